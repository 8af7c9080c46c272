// SPDX-License-Identifier: Apache-2.0
// chat_answer.c - answers of OpenAI's chat completions (platform documentation, "The chat
// completion object", "The chat completion chunk object", "Error codes") and of what speaks like
// it: reasoning_content, reasoning, DeepSeek's and Kimi's counts of cached tokens. Owner: see
// dialect.h. Threads: one at a time.
#include "mod/dialect/chat.h"

// ---- read
static const struct {
    const char *name;
    Finish finish;
} finishes[] = { { "stop", FINISH_STOP },           { "length", FINISH_LENGTH },
                 { "tool_calls", FINISH_CALLS },    { "content_filter", FINISH_FILTER },
                 { "function_call", FINISH_CALLS }, { "sensitive", FINISH_FILTER }, // GLM
                 { "eos_token", FINISH_STOP } };                                    // TGI

static Finish finish_of(str name) {
    for (size_t i = 0; i < countof(finishes); i++)
        if (str_is(name, finishes[i].name)) return finishes[i].finish;
    return FINISH_STOP;
}

// One that says nothing is none.
static void read_usage(Reading *r, yyjson_val *usage) {
    if (!yyjson_is_int(json_get(usage, "prompt_tokens"))) return;
    yyjson_val *prompt = json_get(usage, "prompt_tokens_details"),
               *made = json_get(usage, "completion_tokens_details");
    TokenUse u = { .prompt = count_of(usage, "prompt_tokens"),
                   .cached = count_of(prompt, "cached_tokens"),
                   .cache_written = count_of(prompt, "cache_write_tokens"),
                   .completion = count_of(usage, "completion_tokens"),
                   .reasoning = count_of(made, "reasoning_tokens") };
    if (!u.cached) u.cached = count_of(usage, "prompt_cache_hit_tokens"); // DeepSeek
    if (!u.cached) u.cached = count_of(usage, "cached_tokens");           // Kimi
    tell(r, &(Delta){ .kind = DELTA_USAGE, .usage = u });
}

// llama-server's counts in each event, with timings_per_token.
static void read_timings(Reading *r, yyjson_val *timings) {
    if (!yyjson_is_int(json_get(timings, "predicted_n"))) return;
    TokenUse u = { .cached = count_of(timings, "cache_n"),
                   .completion = count_of(timings, "predicted_n") };
    u.prompt = count_of(timings, "prompt_n") + u.cached;
    tell(r, &(Delta){ .kind = DELTA_USAGE, .usage = u, .so_far = true });
}

static ChatCall *call_find(ChatReading *s, int64_t choice, bool by_index, int64_t index) {
    for (size_t i = s->n; i-- > 0;)
        if (s->calls[i].choice == choice && (!by_index || s->calls[i].index == index))
            return &s->calls[i];
    return NULL;
}

static ChatCall *call_add(Reading *r, int64_t choice, int64_t index, str id, str name) {
    ChatReading *s = r->state;
    const ChatCall *before = call_find(s, choice, false, 0);
    int64_t call = before ? before->call + 1 : 0;
    if (call >= DIALECT_CALLS_MAX) return NULL;
    if (s->n == s->cap)
        s->calls = mem_grow(s->calls, s->cap = s->cap ? 2 * s->cap : 4, sizeof *s->calls);
    s->calls[s->n++] =
        (ChatCall){ .choice = choice, .index = index, .call = call, .id = id.n ? str_hash(id) : 0 };
    if (!id.n) id = made_id(r, choice, call);
    tell(r, &(Delta){ .kind = DELTA_CALL, .choice = choice, .call = call, .id = id, .name = name });
    return &s->calls[s->n - 1];
}

void chat_reading_free(void *state) { mem_free(((ChatReading *)state)->calls); }

// A call goes on under its index; some servers give no index, or one index to several calls of
// different ids.
static void read_call(Reading *r, int64_t choice, yyjson_val *v) {
    yyjson_val *function = json_get(v, "function");
    str id = json_get_str(v, "id"), name = json_get_str(function, "name"),
        more = json_get_str(function, "arguments");
    int64_t index = -1;
    bool has_index = json_get_i64(v, "index", &index);
    ChatCall *call = call_find(r->state, choice, has_index, index);
    bool another = name.n && id.n && call && call->id != str_hash(id);
    if (call && !has_index && name.n) another = true;
    if (!call || another) {
        if (!name.n) return; // of no call
        call = call_add(r, choice, index, id, name);
    }
    if (!call || !more.n) return;
    call->has_arguments = true;
    tell(r,
         &(Delta){ .kind = DELTA_ARGUMENTS, .choice = choice, .call = call->call, .text = more });
}

// Calls of functions without parameters may have come with no arguments at all.
static void end_calls(Reading *r, int64_t choice) {
    ChatReading *s = r->state;
    for (size_t i = 0; i < s->n; i++) {
        ChatCall *c = &s->calls[i];
        if (c->choice != choice || c->has_arguments) continue;
        c->has_arguments = true;
        tell(r, &(Delta){
                    .kind = DELTA_ARGUMENTS, .choice = choice, .call = c->call, .text = S("{}") });
    }
}

static void read_content(Reading *r, int64_t choice, yyjson_val *content, yyjson_val *logprobs) {
    size_t i, n;
    yyjson_val *part;
    Delta d = {
        .kind = DELTA_TEXT, .choice = choice, .text = json_str(content), .logprobs = logprobs
    };
    if (d.text.n || (logprobs && yyjson_arr_size(logprobs))) tell(r, &d);
    yyjson_arr_foreach(content, i, n, part) { // Mistral: its reasoning stands in a part of its own
        size_t k, m;
        yyjson_val *one;
        tell_text(r, DELTA_TEXT, choice, json_get_str(part, "text"));
        yyjson_arr_foreach(json_get(part, "thinking"), k, m, one)
            tell_text(r, DELTA_REASONING, choice, json_get_str(one, "text"));
    }
}

// A chunk's delta or a whole answer's message.
static void read_said(Reading *r, int64_t choice, yyjson_val *said, yyjson_val *logprobs) {
    size_t i, n;
    yyjson_val *call;
    str reasoning = json_get_str(said, "reasoning_content");
    if (!reasoning.n) reasoning = json_get_str(said, "reasoning");
    tell_text(r, DELTA_REASONING, choice, reasoning);
    read_content(r, choice, json_get(said, "content"), json_get(logprobs, "content"));
    tell_text(r, DELTA_REFUSAL, choice, json_get_str(said, "refusal"));
    yyjson_arr_foreach(json_get(said, "tool_calls"), i, n, call) read_call(r, choice, call);
}

static void read_choice(Reading *r, yyjson_val *v, const char *member) {
    int64_t choice = 0;
    json_get_i64(v, "index", &choice);
    if (choice < 0 || choice >= DIALECT_CHOICES_MAX) return;
    read_said(r, choice, json_get(v, member), json_get(v, "logprobs"));
    str finish = json_get_str(v, "finish_reason");
    if (!finish.n) return;
    end_calls(r, choice);
    Delta d = { .kind = DELTA_FINISH, .choice = choice, .finish = finish_of(finish) };
    if (d.finish == FINISH_STOP && call_find(r->state, choice, false, 0)) d.finish = FINISH_CALLS;
    if (d.finish == FINISH_STOP) d.stop = json_get_str(v, "stop_reason"); // vLLM, SGLang
    tell(r, &d);
}

static void begin(Reading *r, yyjson_val *root) {
    if (r->begun) return;
    tell(r, &(Delta){ .kind = DELTA_BEGIN,
                      .id = json_get_str(root, "id"),
                      .name = json_get_str(root, "model") });
}

err chat_read_event(Reading *r, str event, yyjson_val *data) {
    size_t i, n;
    yyjson_val *choice, *choices = json_get(data, "choices");
    (void)event;
    if (!data) {
        tell(r, &(Delta){ .kind = DELTA_END });
        return ERR_OK;
    }
    begin(r, data);
    read_timings(r, json_get(data, "timings")); // of the tokens that follow, too
    yyjson_arr_foreach(choices, i, n, choice) read_choice(r, choice, "delta");
    read_usage(r, json_get(data, "usage"));
    if (!json_get(data, "usage"))
        read_usage(r, json_get(yyjson_arr_get_first(choices), "usage")); // Kimi
    return ERR_OK;
}

err chat_read_whole(Reading *r, yyjson_val *root) {
    size_t i, n;
    yyjson_val *choice, *choices = json_get(root, "choices");
    if (!yyjson_arr_size(choices)) return not_of(r, "it has no choices");
    begin(r, root);
    yyjson_arr_foreach(choices, i, n, choice) read_choice(r, choice, "message");
    read_usage(r, json_get(root, "usage"));
    return r->finished ? ERR_OK : not_of(r, "it has no finish_reason");
}

// ---- written
static str finish_name(Finish f) {
    switch (f) {
    case FINISH_LENGTH:
    case FINISH_WINDOW:
    case FINISH_PAUSE: return S("length");
    case FINISH_CALLS: return S("tool_calls");
    case FINISH_FILTER:
    case FINISH_REFUSAL: return S("content_filter");
    case FINISH_NONE:
    case FINISH_STOP: break;
    }
    return S("stop");
}

static void add_usage(Buf *b, const TokenUse *u) {
    const struct {
        str before;
        int64_t n;
    } all[] = { { S("{\"prompt_tokens\":"), u->prompt },
                { S(",\"completion_tokens\":"), u->completion },
                { S(",\"total_tokens\":"), u->prompt + u->completion },
                { S(",\"prompt_tokens_details\":{\"cached_tokens\":"), u->cached },
                { S(",\"cache_write_tokens\":"), u->cache_written },
                { S("},\"completion_tokens_details\":{\"reasoning_tokens\":"), u->reasoning } };
    for (size_t i = 0; i < countof(all); i++) {
        char text[STR_I64];
        buf_add(b, all[i].before), buf_add(b, str_i64(all[i].n, text));
    }
    buf_add(b, S("}}"));
}

static void add_head(Writing *w) {
    Json j = json_to(&w->head);
    json_obj(&j);
    json_kv_str(&j, "id", w->id), json_kv_z(&j, "object", "chat.completion.chunk");
    json_kv_i64(&j, "created", w->created_s), json_kv_str(&j, "model", w->model);
    buf_add(&w->head, S(",\"choices\":["));
}

static void open_chunk(Writing *w, int64_t choice) {
    if (!w->head.n) add_head(w);
    buf_add(&w->out, buf_str(&w->head));
    OUT(w, "{\"index\":"), out_i64(w, choice), OUT(w, ",\"delta\":{");
}

static void close_chunk(Writing *w, str finish) {
    OUT(w, ",\"finish_reason\":");
    if (finish.n) out_str(w, finish);
    else OUT(w, "null");
    OUT(w, "}]");
    if (w->asked->stream_usage == 1) OUT(w, ",\"usage\":null");
    OUT(w, "}"), out_send(w, NULL);
}

static void begin_choice(Writing *w, int64_t choice) {
    ChatWriting *s = w->state;
    if (s->begun[choice]) return;
    s->begun[choice] = true;
    open_chunk(w, choice);
    OUT(w, "\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null"),
        close_chunk(w, (str){ 0 });
}

static void write_text(Writing *w, const Delta *d, str before) {
    open_chunk(w, d->choice);
    buf_add(&w->out, before), out_str(w, d->text), OUT(w, "},\"logprobs\":");
    if (d->logprobs) {
        Json j = json_to(&w->out);
        OUT(w, "{\"content\":"), json_put_val(&j, d->logprobs), OUT(w, ",\"refusal\":null}");
    } else OUT(w, "null");
    close_chunk(w, (str){ 0 });
}

static void write_call(Writing *w, const Delta *d) {
    open_chunk(w, d->choice);
    OUT(w, "\"tool_calls\":[{\"index\":"), out_i64(w, d->call);
    if (d->kind == DELTA_CALL) {
        OUT(w, ",\"id\":"), out_str(w, d->id),
            OUT(w, ",\"type\":\"function\",\"function\":{\"name\":");
        out_str(w, d->name), OUT(w, ",\"arguments\":\"\"}}]");
    } else {
        OUT(w, ",\"function\":{\"arguments\":"), out_str(w, d->text), OUT(w, "}}]");
    }
    OUT(w, "},\"logprobs\":null"), close_chunk(w, (str){ 0 });
}

static void write_end(Writing *w) {
    const ChatWriting *s = w->state;
    if (w->asked->stream_usage == 1) {
        if (!w->head.n) add_head(w);
        buf_add(&w->out, buf_str(&w->head)), OUT(w, "],\"usage\":"), add_usage(&w->out, &s->usage);
        OUT(w, "}"), out_send(w, NULL);
    }
    OUT(w, "[DONE]"), out_send(w, NULL);
}

static void write_failure(Writing *w, const Delta *d) {
    DialectError e = { .how = d->how, .code = d->name, .message = d->text };
    Json j = json_to(&w->out);
    openai_write_error(&e, &j), out_send(w, NULL);
}

void chat_write_delta(Writing *w, const Delta *d) {
    ChatWriting *s = w->state;
    if (d->choice < 0 || d->choice >= DIALECT_CHOICES_MAX) return;
    if (d->kind != DELTA_USAGE && d->kind != DELTA_END && d->kind != DELTA_ERROR)
        begin_choice(w, d->choice);
    switch (d->kind) {
    case DELTA_TEXT: write_text(w, d, S("\"content\":")); break;
    case DELTA_REASONING: write_text(w, d, S("\"reasoning_content\":")); break;
    case DELTA_REFUSAL: write_text(w, d, S("\"refusal\":")); break;
    case DELTA_CALL:
    case DELTA_ARGUMENTS: write_call(w, d); break;
    case DELTA_FINISH:
        open_chunk(w, d->choice), OUT(w, "},\"logprobs\":null"),
            close_chunk(w, finish_name(d->finish));
        break;
    case DELTA_USAGE: s->usage = d->usage; break;
    case DELTA_ERROR: write_failure(w, d); break;
    case DELTA_END: write_end(w); break;
    case DELTA_BEGIN:
    case DELTA_SIGNATURE: break;
    }
}

// ---- written whole
static bool put_texts(const Kept *f, DeltaKind kind, int64_t choice, const char *key, Json *j) {
    bool any = false;
    Buf all;
    buf_init(&all, SIZE_MAX - 1);
    for (size_t i = 0; i < f->n; i++) {
        const Piece *p = &f->pieces[i];
        if (p->kind == kind && p->choice == choice && (p->text.n || kind == DELTA_TEXT))
            any = true, buf_add(&all, buf_str(&p->text));
    }
    if (any) json_kv_str(j, key, buf_str(&all));
    buf_done(&all);
    return any;
}

static bool has_calls(const Kept *f, int64_t choice) {
    for (size_t i = 0; i < f->n; i++)
        if (f->pieces[i].kind == DELTA_CALL && f->pieces[i].choice == choice) return true;
    return false;
}

static void put_calls(const Kept *f, int64_t choice, Json *j) {
    bool any = false;
    for (size_t i = 0; i < f->n; i++) {
        const Piece *p = &f->pieces[i];
        if (p->kind != DELTA_CALL || p->choice != choice) continue;
        if (!any) json_key(j, "tool_calls"), json_arr(j), any = true;
        json_obj(j), json_kv_str(j, "id", buf_str(&p->id)), json_kv_z(j, "type", "function");
        json_key(j, "function"), json_obj(j), json_kv_str(j, "name", buf_str(&p->name));
        json_kv_str(j, "arguments", kept_text(p)), json_end_obj(j), json_end_obj(j);
    }
    if (any) json_end_arr(j);
}

static void put_logprobs(const Kept *f, int64_t choice, Json *j) {
    bool any = false;
    json_key(j, "logprobs");
    for (size_t i = 0; i < f->n; i++) {
        const Piece *p = &f->pieces[i];
        if (!p->logprobs.n || p->choice != choice) continue;
        if (!any) json_obj(j), json_key(j, "content"), json_arr(j), any = true;
        json_put_raw(j, buf_str(&p->logprobs));
    }
    if (any) json_end_arr(j), json_key(j, "refusal"), json_put_null(j), json_end_obj(j);
    else json_put_null(j);
}

static void put_choice(const Kept *f, int64_t choice, Json *j) {
    json_obj(j), json_kv_i64(j, "index", choice), json_key(j, "message"), json_obj(j);
    json_kv_z(j, "role", "assistant");
    if (!put_texts(f, DELTA_TEXT, choice, "content", j))
        json_kv_str(j, "content", has_calls(f, choice) ? (str){ 0 } : S(""));
    put_texts(f, DELTA_REASONING, choice, "reasoning_content", j);
    if (!put_texts(f, DELTA_REFUSAL, choice, "refusal", j))
        json_key(j, "refusal"), json_put_null(j);
    put_calls(f, choice, j);
    json_end_obj(j), put_logprobs(f, choice, j);
    json_kv_str(j, "finish_reason", finish_name(f->finish[choice])), json_end_obj(j);
}

void chat_write_whole(Writing *w, Json *j) {
    const Kept *f = w->kept;
    json_obj(j), json_kv_str(j, "id", w->id), json_kv_z(j, "object", "chat.completion");
    json_kv_i64(j, "created", w->created_s), json_kv_str(j, "model", w->model);
    json_key(j, "choices"), json_arr(j);
    for (int64_t i = 0; i < f->choices; i++) put_choice(f, i, j);
    json_end_arr(j), json_key(j, "usage"), add_usage(j->out, &f->usage);
    json_end_obj(j);
}

// ---- errors
const char *openai_type(err how) {
    switch (err_row(how)->http) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 402:
    case 429: return "rate_limit_error";
    default: return err_row(how)->http >= 500 ? "server_error" : "invalid_request_error";
    }
}

void openai_write_error(const DialectError *e, Json *j) {
    json_obj(j), json_key(j, "error"), json_obj(j);
    json_kv_str(j, "message", e->message), json_kv_z(j, "type", openai_type(e->how));
    json_kv_str(j, "param", e->field), json_kv_str(j, "code", e->code);
    if (e->request_id.p) json_kv_str(j, "request_id", e->request_id);
    json_end_obj(j), json_end_obj(j);
}

static const struct {
    const char *name;
    err how;
} hows[] = { { "invalid_request_error", ERR_INVALID },
             { "authentication_error", ERR_UNAUTHENTICATED },
             { "invalid_api_key", ERR_UNAUTHENTICATED },
             { "permission_error", ERR_DENIED },
             { "not_found_error", ERR_NOTFOUND },
             { "rate_limit_error", ERR_LIMITED },
             { "rate_limit_exceeded", ERR_LIMITED },
             { "insufficient_quota", ERR_LIMITED },
             { "requests", ERR_LIMITED },
             { "tokens", ERR_LIMITED },
             { "BadRequestError", ERR_INVALID },
             { "NotFoundError", ERR_NOTFOUND } };

static err how_of(str type, str code) {
    for (size_t i = 0; i < countof(hows); i++)
        if (str_is(type, hows[i].name) || str_is(code, hows[i].name)) return hows[i].how;
    return ERR_UPSTREAM;
}

// {"error": {…}}, {"error": "…"}, vLLM's old {"object": "error", …}.
bool openai_read_error(yyjson_val *root, DialectError *out) {
    yyjson_val *error = json_get(root, "error");
    if (str_is(json_get_str(root, "object"), "error")) error = root;
    if (!error || yyjson_is_null(error)) return false;
    str type = json_get_str(error, "type");
    out->message = yyjson_is_str(error) ? json_str(error) : json_get_str(error, "message");
    out->code = json_get_str(error, "code"), out->field = json_get_str(error, "param");
    out->how = how_of(type, out->code);
    if (!out->code.n) out->code = type;
    if (!out->message.n)
        out->message = S("the model's server answered with an error that says nothing");
    return true;
}
