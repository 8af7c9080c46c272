// SPDX-License-Identifier: Apache-2.0
// anthropic_answer.c - answers of Anthropic's Messages API (API reference, "Messages", "Streaming
// messages", "Errors"). Counts: input_tokens holds neither what was read from a cache nor what was
// written to it. Owner: see dialect.h. Threads: one at a time.
#include "mod/dialect/anthropic.h"
#include "mod/dialect/chat.h"

// ---- read
static const struct {
    const char *name;
    Finish finish;
} finishes[] = { { "end_turn", FINISH_STOP },
                 { "stop_sequence", FINISH_STOP },
                 { "max_tokens", FINISH_LENGTH },
                 { "tool_use", FINISH_CALLS },
                 { "refusal", FINISH_REFUSAL },
                 { "pause_turn", FINISH_PAUSE },
                 { "model_context_window_exceeded", FINISH_WINDOW } };

static void read_finish(Reading *r, yyjson_val *v) {
    str name = json_get_str(v, "stop_reason");
    Delta d = { .kind = DELTA_FINISH,
                .finish = FINISH_STOP,
                .stop = json_get_str(v, "stop_sequence") };
    if (!name.n) return;
    for (size_t i = 0; i < countof(finishes); i++)
        if (str_is(name, finishes[i].name)) d.finish = finishes[i].finish;
    if (d.finish != FINISH_STOP) d.stop = (str){ 0 };
    tell(r, &d);
}

static void take(yyjson_val *usage, const char *key, int64_t *out) {
    if (yyjson_is_int(json_get(usage, key))) *out = count_of(usage, key);
}

// Counts are of the whole so far; one that is not said again stays. Until the prompt's is said
// nothing is. at_start: the answer's is not of the answer yet.
static void read_usage(Reading *r, yyjson_val *usage, bool at_start) {
    AnthropicReading *s = r->state;
    s->used |= yyjson_is_int(json_get(usage, "input_tokens"));
    if (!s->used || !yyjson_is_obj(usage)) return;
    take(usage, "input_tokens", &s->input), take(usage, "output_tokens", &s->output);
    take(usage, "cache_read_input_tokens", &s->cached);
    take(usage, "cache_creation_input_tokens", &s->cache_written);
    take(json_get(usage, "output_tokens_details"), "thinking_tokens", &s->reasoning);
    tell(r, &(Delta){ .kind = DELTA_USAGE,
                      .prompt_only = at_start,
                      .usage = { .prompt = s->input + s->cached + s->cache_written,
                                 .cached = s->cached,
                                 .cache_written = s->cache_written,
                                 .completion = s->output,
                                 .reasoning = s->reasoning } });
}

static AnthropicBlock *block_find(AnthropicReading *s, int64_t index) {
    for (size_t i = s->n; i-- > 0;)
        if (s->blocks[i].index == index) return &s->blocks[i];
    return NULL;
}

void anthropic_reading_free(void *state) { mem_free(((AnthropicReading *)state)->blocks); }

static void tell_arguments(Reading *r, AnthropicBlock *b, str text) {
    if (b->call < 0 || !text.n) return;
    b->has_input = true;
    tell(r, &(Delta){ .kind = DELTA_ARGUMENTS, .call = b->call, .text = text });
}

// A block as it begins in a stream, or whole.
static void read_block(Reading *r, int64_t index, yyjson_val *v) {
    AnthropicReading *s = r->state;
    str type = json_get_str(v, "type"), data = json_get_str(v, "data");
    yyjson_val *input = json_get(v, "input");
    bool call = str_is(type, "tool_use") && s->calls < DIALECT_CALLS_MAX;
    if (call) {
        if (s->n == s->cap)
            s->blocks = mem_grow(s->blocks, s->cap = s->cap ? 2 * s->cap : 4, sizeof *s->blocks);
        s->blocks[s->n] = (AnthropicBlock){ .index = index, .call = s->calls++ };
        AnthropicBlock *b = &s->blocks[s->n++];
        str id = json_get_str(v, "id");
        tell(r, &(Delta){ .kind = DELTA_CALL,
                          .call = b->call,
                          .id = id.n ? id : made_id(r, 0, b->call),
                          .name = json_get_str(v, "name") });
        if (yyjson_obj_size(input)) tell_arguments(r, b, json_text(r->c->mem, input));
    } else if (str_is(type, "text")) {
        tell_text(r, DELTA_TEXT, 0, json_get_str(v, "text"));
    } else if (str_is(type, "thinking")) {
        tell_text(r, DELTA_REASONING, 0, json_get_str(v, "thinking"));
        tell_text(r, DELTA_SIGNATURE, 0, json_get_str(v, "signature"));
    } else if (str_is(type, "redacted_thinking")) {
        tell_text(r, DELTA_SIGNATURE, 0,
                  arena_join(r->c->mem, (str[]){ S(REDACTED), data }, 2, S("")));
    }
}

static void end_block(Reading *r, int64_t index) {
    AnthropicBlock *b = block_find(r->state, index);
    if (b && !b->has_input) tell_arguments(r, b, S("{}"));
}

static void read_delta(Reading *r, int64_t index, yyjson_val *v) {
    str type = json_get_str(v, "type");
    if (str_is(type, "text_delta")) tell_text(r, DELTA_TEXT, 0, json_get_str(v, "text"));
    else if (str_is(type, "thinking_delta"))
        tell_text(r, DELTA_REASONING, 0, json_get_str(v, "thinking"));
    else if (str_is(type, "signature_delta"))
        tell_text(r, DELTA_SIGNATURE, 0, json_get_str(v, "signature"));
    else if (str_is(type, "input_json_delta")) {
        AnthropicBlock *b = block_find(r->state, index);
        if (b) tell_arguments(r, b, json_get_str(v, "partial_json"));
    }
}

static void begin(Reading *r, yyjson_val *message) {
    tell(r, &(Delta){ .kind = DELTA_BEGIN,
                      .id = json_get_str(message, "id"),
                      .name = json_get_str(message, "model") });
}

err anthropic_read_event(Reading *r, str event, yyjson_val *data) {
    str type = json_get_str(data, "type");
    int64_t index = 0;
    if (!type.n) type = event;
    json_get_i64(data, "index", &index);
    if (str_is(type, "content_block_delta")) read_delta(r, index, json_get(data, "delta"));
    else if (str_is(type, "content_block_start"))
        read_block(r, index, json_get(data, "content_block"));
    else if (str_is(type, "content_block_stop")) end_block(r, index);
    else if (str_is(type, "message_start"))
        begin(r, json_get(data, "message")),
            read_usage(r, json_get(json_get(data, "message"), "usage"), true);
    else if (str_is(type, "message_delta"))
        read_finish(r, json_get(data, "delta")), read_usage(r, json_get(data, "usage"), false);
    else if (str_is(type, "message_stop")) tell(r, &(Delta){ .kind = DELTA_END });
    return ERR_OK;
}

err anthropic_read_whole(Reading *r, yyjson_val *root) {
    size_t i, n;
    yyjson_val *block, *content = json_get(root, "content");
    if (!yyjson_is_arr(content)) return not_of(r, "it has no content");
    begin(r, root);
    yyjson_arr_foreach(content, i, n, block) {
        read_block(r, (int64_t)i, block);
        end_block(r, (int64_t)i);
    }
    read_finish(r, root), read_usage(r, json_get(root, "usage"), false);
    return r->finished ? ERR_OK : not_of(r, "it has no stop_reason");
}

// ---- written
static str finish_name(Finish f, bool stopped) {
    switch (f) {
    case FINISH_LENGTH: return S("max_tokens");
    case FINISH_WINDOW: return S("model_context_window_exceeded");
    case FINISH_CALLS: return S("tool_use");
    case FINISH_FILTER:
    case FINISH_REFUSAL: return S("refusal");
    case FINISH_PAUSE: return S("pause_turn");
    case FINISH_NONE:
    case FINISH_STOP: break;
    }
    return stopped ? S("stop_sequence") : S("end_turn");
}

static void add_usage(Buf *b, const TokenUse *u) {
    int64_t fresh = u->prompt - u->cached - u->cache_written;
    const struct {
        str before;
        int64_t n;
    } all[] = { { S("{\"input_tokens\":"), fresh > 0 ? fresh : 0 },
                { S(",\"cache_creation_input_tokens\":"), u->cache_written },
                { S(",\"cache_read_input_tokens\":"), u->cached },
                { S(",\"output_tokens\":"), u->completion } };
    for (size_t i = 0; i < countof(all); i++) {
        char text[STR_I64];
        buf_add(b, all[i].before), buf_add(b, str_i64(all[i].n, text));
    }
    buf_add_char(b, '}');
}

static void begin_message(Writing *w) {
    OUT(w, "{\"type\":\"message_start\",\"message\":{\"id\":"), out_str(w, w->id);
    OUT(w, ",\"type\":\"message\",\"role\":\"assistant\",\"model\":"), out_str(w, w->model);
    OUT(w, ",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":");
    add_usage(&w->out, &(TokenUse){ 0 });
    OUT(w, "}}"), out_send(w, "message_start");
}

static void close_block(Writing *w) {
    AnthropicWriting *s = w->state;
    if (s->open == DELTA_END) return;
    s->open = DELTA_END;
    OUT(w, "{\"type\":\"content_block_stop\",\"index\":"), out_i64(w, s->blocks - 1);
    OUT(w, "}"), out_send(w, "content_block_stop");
}

static void open_block(Writing *w, DeltaKind kind) {
    AnthropicWriting *s = w->state;
    close_block(w);
    s->open = kind;
    OUT(w, "{\"type\":\"content_block_start\",\"index\":"), out_i64(w, s->blocks++);
    OUT(w, ",\"content_block\":");
}

static void opened(Writing *w) { OUT(w, "}"), out_send(w, "content_block_start"); }

static void write_delta(Writing *w, int64_t index, str before, str text) {
    OUT(w, "{\"type\":\"content_block_delta\",\"index\":"), out_i64(w, index);
    OUT(w, ",\"delta\":{\"type\":"), buf_add(&w->out, before), out_str(w, text);
    OUT(w, "}}"), out_send(w, "content_block_delta");
}

static void write_text(Writing *w, str text) {
    AnthropicWriting *s = w->state;
    if (s->open != DELTA_TEXT)
        open_block(w, DELTA_TEXT), OUT(w, "{\"type\":\"text\",\"text\":\"\"}"), opened(w);
    if (text.n) write_delta(w, s->blocks - 1, S("\"text_delta\",\"text\":"), text);
}

static void open_thinking(Writing *w) {
    AnthropicWriting *s = w->state;
    if (s->open == DELTA_REASONING) return;
    open_block(w, DELTA_REASONING);
    OUT(w, "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}"), opened(w);
}

static void write_signature(Writing *w, str signature) {
    AnthropicWriting *s = w->state;
    str data = redacted_data(signature);
    if (data.p) {
        open_block(w, DELTA_SIGNATURE);
        OUT(w, "{\"type\":\"redacted_thinking\",\"data\":"), out_str(w, data), OUT(w, "}"),
            opened(w);
    } else {
        open_thinking(w);
        write_delta(w, s->blocks - 1, S("\"signature_delta\",\"signature\":"), signature);
    }
    close_block(w); // what comes next is another thought
}

static void write_call(Writing *w, const Delta *d) {
    AnthropicWriting *s = w->state;
    if (d->call < 0 || d->call >= DIALECT_CALLS_MAX) return;
    if (d->kind == DELTA_ARGUMENTS) {
        int64_t block = s->block_of[d->call];
        bool open = s->open == DELTA_CALL && block == s->blocks - 1;
        if (open || !str_is(d->text, "{}")) // a block that is over has {} as it is
            write_delta(w, block, S("\"input_json_delta\",\"partial_json\":"), d->text);
        return;
    }
    open_block(w, DELTA_CALL);
    s->block_of[d->call] = (int32_t)(s->blocks - 1);
    OUT(w, "{\"type\":\"tool_use\",\"id\":"), out_str(w, d->id), OUT(w, ",\"name\":"),
        out_str(w, d->name);
    OUT(w, ",\"input\":{}}"), opened(w);
}

static void write_end(Writing *w) {
    AnthropicWriting *s = w->state;
    str stop = buf_str(&w->kept->stop);
    close_block(w);
    OUT(w, "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":"),
        out_str(w, finish_name(s->finish, stop.n > 0));
    OUT(w, ",\"stop_sequence\":");
    if (stop.n) out_str(w, stop);
    else OUT(w, "null");
    OUT(w, "},\"usage\":"), add_usage(&w->out, &s->usage), OUT(w, "}"),
        out_send(w, "message_delta");
    OUT(w, "{\"type\":\"message_stop\"}"), out_send(w, "message_stop");
}

static void write_failure(Writing *w, const Delta *d) {
    DialectError e = { .how = d->how, .code = d->name, .message = d->text };
    Json j = json_to(&w->out);
    anthropic_write_error(&e, &j), out_send(w, "error");
}

void anthropic_write_delta(Writing *w, const Delta *d) {
    AnthropicWriting *s = w->state;
    if (d->choice) return;
    if (!s->begun && d->kind != DELTA_ERROR) s->begun = true, s->open = DELTA_END, begin_message(w);
    switch (d->kind) {
    case DELTA_TEXT:
    case DELTA_REFUSAL: write_text(w, d->text); break;
    case DELTA_REASONING:
        open_thinking(w),
            write_delta(w, s->blocks - 1, S("\"thinking_delta\",\"thinking\":"), d->text);
        break;
    case DELTA_SIGNATURE: write_signature(w, d->text); break;
    case DELTA_CALL:
    case DELTA_ARGUMENTS: write_call(w, d); break;
    case DELTA_FINISH:
        close_block(w), s->finish = d->finish;
        buf_clear(&w->kept->stop), buf_add(&w->kept->stop, d->stop);
        break;
    case DELTA_USAGE: s->usage = d->usage; break;
    case DELTA_ERROR: write_failure(w, d); break;
    case DELTA_END: write_end(w); break;
    case DELTA_BEGIN: break;
    }
}

// ---- written whole
static void put_piece(const Piece *p, Json *j) {
    str signature = buf_str(&p->signature), data = redacted_data(signature);
    json_obj(j);
    if (p->kind == DELTA_CALL) {
        json_kv_z(j, "type", "tool_use"), json_kv_str(j, "id", buf_str(&p->id));
        json_kv_str(j, "name", buf_str(&p->name)), json_key(j, "input"),
            put_object(kept_text(p), j);
    } else if (p->kind == DELTA_REASONING && data.p) {
        json_kv_z(j, "type", "redacted_thinking"), json_kv_str(j, "data", data);
    } else if (p->kind == DELTA_REASONING) {
        json_kv_z(j, "type", "thinking"), json_kv_str(j, "thinking", buf_str(&p->text));
        json_kv_str(j, "signature", signature);
    } else {
        json_kv_z(j, "type", "text"), json_kv_str(j, "text", buf_str(&p->text));
    }
    json_end_obj(j);
}

void anthropic_write_whole(Writing *w, Json *j) {
    const Kept *f = w->kept;
    str stop = buf_str(&f->stop);
    json_obj(j), json_kv_str(j, "id", w->id), json_kv_z(j, "type", "message"),
        json_kv_z(j, "role", "assistant");
    json_kv_str(j, "model", w->model), json_key(j, "content"), json_arr(j);
    for (size_t i = 0; i < f->n; i++)
        if (!f->pieces[i].choice) put_piece(&f->pieces[i], j);
    json_end_arr(j), json_kv_str(j, "stop_reason", finish_name(f->finish[0], stop.n > 0));
    json_kv_str(j, "stop_sequence", stop.n ? stop : (str){ 0 });
    json_key(j, "usage"), add_usage(j->out, &f->usage);
    json_end_obj(j);
}

// ---- errors
static const char *type_of(err how) {
    int http = err_row(how)->http;
    switch (http) {
    case 401: return "authentication_error";
    case 402: return "billing_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 413: return "request_too_large";
    case 429: return "rate_limit_error";
    case 503: return "overloaded_error";
    case 504: return "timeout_error";
    default: return http >= 500 ? "api_error" : "invalid_request_error";
    }
}

void anthropic_write_error(const DialectError *e, Json *j) {
    json_obj(j), json_kv_z(j, "type", "error"), json_key(j, "error"), json_obj(j);
    json_kv_z(j, "type", type_of(e->how)), json_kv_str(j, "message", e->message);
    json_end_obj(j);
    if (e->request_id.p) json_kv_str(j, "request_id", e->request_id);
    json_end_obj(j);
}

bool anthropic_read_error(yyjson_val *root, DialectError *out) {
    static const err hows[] = { ERR_INVALID, ERR_UNAUTHENTICATED, ERR_BUDGET,
                                ERR_DENIED,  ERR_NOTFOUND,        ERR_TOOLARGE,
                                ERR_LIMITED, ERR_UNAVAILABLE,     ERR_TIMEOUT };
    if (!openai_read_error(root, out)) return false;
    str type = json_get_str(json_get(root, "error"), "type");
    out->how = ERR_UPSTREAM;
    for (size_t i = 0; i < countof(hows); i++)
        if (str_is(type, type_of(hows[i]))) out->how = hows[i];
    out->request_id = json_get_str(root, "request_id");
    return true;
}
