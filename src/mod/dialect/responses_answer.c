// SPDX-License-Identifier: Apache-2.0
// responses_answer.c - answers of OpenAI's responses (platform documentation, "The response
// object", "Streaming events"). Written, each kept piece of the answer is one item of `output`; a
// thought is told as its summary. Owner: see dialect.h. Threads: one at a time.
#include "mod/dialect/responses.h"
#include "mod/dialect/chat.h"
#include <assert.h>

// ---- read
static ResponsesItem *item_at(Reading *r, yyjson_val *event) {
    ResponsesReading *s = r->state;
    int64_t index = -1;
    if (!json_get_i64(event, "output_index", &index)) index = s->n ? s->items[s->n - 1].index : 0;
    for (size_t i = s->n; i-- > 0;)
        if (s->items[i].index == index) return &s->items[i];
    if (s->n == s->cap)
        s->items = mem_grow(s->items, s->cap = s->cap ? 2 * s->cap : 4, sizeof *s->items);
    s->items[s->n] = (ResponsesItem){ .index = index, .call = -1 };
    return &s->items[s->n++];
}

void responses_reading_free(void *state) { mem_free(((ResponsesReading *)state)->items); }

static void tell_part(Reading *r, ResponsesItem *it, DeltaKind kind, str text) {
    it->told |= text.n > 0;
    tell_text(r, kind, 0, text);
}

static void tell_arguments(Reading *r, ResponsesItem *it, str text) {
    if (it->call < 0 || !text.n) return;
    it->told = true;
    tell(r, &(Delta){ .kind = DELTA_ARGUMENTS, .call = it->call, .text = text });
}

static void begin_call(Reading *r, ResponsesItem *it, yyjson_val *item) {
    ResponsesReading *s = r->state;
    str id = json_get_str(item, "call_id");
    if (it->call >= 0 || s->calls >= DIALECT_CALLS_MAX) return;
    it->call = s->calls++;
    if (!id.n) id = made_id(r, 0, it->call);
    tell(r,
         &(Delta){
             .kind = DELTA_CALL, .call = it->call, .id = id, .name = json_get_str(item, "name") });
}

static void tell_texts(Reading *r, ResponsesItem *it, yyjson_val *list) {
    size_t i, n;
    yyjson_val *one;
    yyjson_arr_foreach(list, i, n, one) {
        if (i) tell_part(r, it, DELTA_REASONING, S("\n\n"));
        tell_part(r, it, DELTA_REASONING, json_get_str(one, "text"));
    }
}

static void tell_output_text(Reading *r, ResponsesItem *it, str text, yyjson_val *logprobs) {
    Delta d = { .kind = DELTA_TEXT,
                .text = text,
                .logprobs = yyjson_arr_size(logprobs) ? logprobs : NULL };
    if (!text.n && !d.logprobs) return;
    it->told = true;
    tell(r, &d);
}

// An item that is whole: what was not told in pieces.
static void end_item(Reading *r, ResponsesItem *it, yyjson_val *item) {
    size_t i, n;
    yyjson_val *one;
    str type = json_get_str(item, "type"), proof = json_get_str(item, "encrypted_content");
    if (str_is(type, "function_call")) {
        begin_call(r, it, item);
        str arguments = json_get_str(item, "arguments");
        if (!it->told) tell_arguments(r, it, arguments.n ? arguments : S("{}"));
    } else if (str_is(type, "reasoning")) {
        if (!it->told) tell_texts(r, it, json_get(item, "summary"));
        if (!it->told) tell_texts(r, it, json_get(item, "content"));
        tell_text(r, DELTA_SIGNATURE, 0, proof);
    } else if (str_is(type, "message") && !it->told) {
        yyjson_arr_foreach(json_get(item, "content"), i, n, one) {
            tell_output_text(r, it, json_get_str(one, "text"), json_get(one, "logprobs"));
            tell_part(r, it, DELTA_REFUSAL, json_get_str(one, "refusal"));
        }
    }
}

static void tell_end(Reading *r, yyjson_val *response) {
    const ResponsesReading *s = r->state;
    yyjson_val *usage = json_get(response, "usage");
    str reason = json_get_str(json_get(response, "incomplete_details"), "reason");
    Delta d = { .kind = DELTA_FINISH, .finish = s->calls ? FINISH_CALLS : FINISH_STOP };
    if (str_is(reason, "content_filter")) d.finish = FINISH_FILTER;
    else if (reason.n) d.finish = FINISH_LENGTH;
    tell(r, &d);
    if (!yyjson_is_int(json_get(usage, "input_tokens"))) return; // it says nothing
    yyjson_val *in = json_get(usage, "input_tokens_details"),
               *out = json_get(usage, "output_tokens_details");
    tell(r, &(Delta){ .kind = DELTA_USAGE,
                      .usage = { .prompt = count_of(usage, "input_tokens"),
                                 .cached = count_of(in, "cached_tokens"),
                                 .cache_written = count_of(in, "cache_write_tokens"),
                                 .completion = count_of(usage, "output_tokens"),
                                 .reasoning = count_of(out, "reasoning_tokens") } });
}

static void begin(Reading *r, yyjson_val *response) {
    tell(r, &(Delta){ .kind = DELTA_BEGIN,
                      .id = json_get_str(response, "id"),
                      .name = json_get_str(response, "model") });
}

static void tell_failure(Reading *r, yyjson_val *response) {
    DialectError e = { .how = ERR_UPSTREAM };
    if (!openai_read_error(response, &e))
        e.message = S("the model's server failed and did not say why");
    tell(r, &(Delta){ .kind = DELTA_ERROR, .how = e.how, .text = e.message, .name = e.code });
}

static void read_delta(Reading *r, str type, yyjson_val *data) {
    ResponsesItem *it = item_at(r, data);
    str delta = json_get_str(data, "delta");
    int64_t part = 0;
    if (str_is(type, "response.output_text.delta"))
        tell_output_text(r, it, delta, json_get(data, "logprobs"));
    else if (str_is(type, "response.function_call_arguments.delta")) tell_arguments(r, it, delta);
    else if (str_is(type, "response.reasoning_summary_text.delta")
             || str_is(type, "response.reasoning_text.delta"))
        tell_part(r, it, DELTA_REASONING, delta);
    else if (str_is(type, "response.refusal.delta")) tell_part(r, it, DELTA_REFUSAL, delta);
    else if (str_is(type, "response.reasoning_summary_part.added")
             && json_get_i64(data, "summary_index", &part) && part)
        tell_part(r, it, DELTA_REASONING, S("\n\n"));
}

err responses_read_event(Reading *r, str event, yyjson_val *data) {
    str type = json_get_str(data, "type");
    yyjson_val *item = json_get(data, "item"), *response = json_get(data, "response");
    if (!type.n) type = event;
    if (str_is(type, "response.output_item.added")) {
        ResponsesItem *it = item_at(r, data);
        if (!str_is(json_get_str(item, "type"), "function_call")) return ERR_OK;
        begin_call(r, it, item), tell_arguments(r, it, json_get_str(item, "arguments"));
    } else if (str_is(type, "response.output_item.done")) {
        end_item(r, item_at(r, data), item);
    } else if (str_is(type, "response.created") || str_is(type, "response.in_progress")) {
        begin(r, response);
    } else if (str_is(type, "response.completed") || str_is(type, "response.incomplete")) {
        tell_end(r, response), tell(r, &(Delta){ .kind = DELTA_END });
    } else if (str_is(type, "response.failed") || str_is(type, "response.cancelled")) {
        tell_failure(r, response);
    } else if (data) {
        read_delta(r, type, data);
    }
    return ERR_OK;
}

err responses_read_whole(Reading *r, yyjson_val *root) {
    size_t i, n;
    yyjson_val *item, *output = json_get(root, "output");
    str status = json_get_str(root, "status");
    if (!yyjson_is_arr(output)) return not_of(r, "it has no output");
    begin(r, root);
    yyjson_arr_foreach(output, i, n, item) {
        ResponsesItem it = { .index = (int64_t)i, .call = -1 };
        end_item(r, &it, item);
    }
    if (str_is(status, "failed") || str_is(status, "cancelled")) tell_failure(r, root);
    else tell_end(r, root);
    return ERR_OK;
}

bool responses_read_error(yyjson_val *root, DialectError *out) {
    if (!str_is(json_get_str(root, "type"), "error") || json_get(root, "error"))
        return openai_read_error(root, out);
    out->message = json_get_str(root, "message"), out->code = json_get_str(root, "code");
    out->field = json_get_str(root, "param");
    if (str_is(out->code, "rate_limit_exceeded")) out->how = ERR_LIMITED;
    return true;
}

// ---- the object
static const char *const prefixes[] = {
    [DELTA_TEXT] = "msg_", [DELTA_REFUSAL] = "msg_", [DELTA_REASONING] = "rs_", [DELTA_CALL] = "fc_"
};

// An item's id: the answer's, with its kind and place. w->head is the answer's as it stands within
// quotes.
static void add_item_id(Writing *w, size_t i, Buf *b) {
    char text[STR_I64];
    if (!w->head.n) {
        str rest = w->id, before;
        str_cut(&rest, '_', &before);
        buf_add_json(&w->head, rest.p ? rest : w->id);
        w->head.n = w->head.n > 2 ? w->head.n - 1 : 1; // without its last quote
        buf_add_char(&w->head, '_');
    }
    buf_add_char(b, '"'), buf_add(b, str_z(prefixes[w->kept->pieces[i].kind]));
    buf_add(b, str_sub(buf_str(&w->head), 1, w->head.n)), buf_add(b, str_i64((int64_t)i, text)),
        buf_add_char(b, '"');
}

static void put_part(const Piece *p, bool whole, Json *j) {
    str text = whole ? buf_str(&p->text) : S("");
    json_obj(j);
    if (p->kind == DELTA_REASONING) {
        json_kv_z(j, "type", "summary_text"), json_kv_str(j, "text", text);
    } else if (p->kind == DELTA_REFUSAL) {
        json_kv_z(j, "type", "refusal"), json_kv_str(j, "refusal", text);
    } else {
        json_kv_z(j, "type", "output_text"), json_kv_str(j, "text", text);
        json_key(j, "annotations"), json_arr(j), json_end_arr(j), json_key(j, "logprobs"),
            json_arr(j);
        if (whole && p->logprobs.n) json_put_raw(j, buf_str(&p->logprobs));
        json_end_arr(j);
    }
    json_end_obj(j);
}

static void put_item(Writing *w, size_t i, const char *status, Json *j) {
    const Piece *p = &w->kept->pieces[i];
    bool whole = status[2] != '_'; // not in_progress
    json_obj(j), json_key(j, "id"), json_put_raw(j, S("")), add_item_id(w, i, j->out);
    switch (p->kind) {
    case DELTA_CALL:
        json_kv_z(j, "type", "function_call"), json_kv_z(j, "status", status);
        json_kv_str(j, "call_id", buf_str(&p->id)), json_kv_str(j, "name", buf_str(&p->name));
        json_kv_str(j, "arguments", whole ? kept_text(p) : S(""));
        break;
    case DELTA_REASONING:
        json_kv_z(j, "type", "reasoning"), json_key(j, "summary"), json_arr(j);
        if (whole && p->text.n) put_part(p, true, j);
        json_end_arr(j);
        if (whole && p->signature.n) json_kv_str(j, "encrypted_content", buf_str(&p->signature));
        break;
    default:
        json_kv_z(j, "type", "message"), json_kv_z(j, "status", status),
            json_kv_z(j, "role", "assistant");
        json_key(j, "content"), json_arr(j);
        if (whole) put_part(p, true, j);
        json_end_arr(j);
    }
    json_end_obj(j);
}

static const char *incomplete_why(Finish f) {
    if (f == FINISH_FILTER || f == FINISH_REFUSAL) return "content_filter";
    return f == FINISH_LENGTH || f == FINISH_WINDOW || f == FINISH_PAUSE ? "max_output_tokens"
                                                                         : NULL;
}

static void put_usage(const TokenUse *u, Json *j) {
    json_obj(j), json_kv_i64(j, "input_tokens", u->prompt);
    json_key(j, "input_tokens_details"), json_obj(j), json_kv_i64(j, "cached_tokens", u->cached),
        json_kv_i64(j, "cache_write_tokens", u->cache_written), json_end_obj(j);
    json_kv_i64(j, "output_tokens", u->completion), json_key(j, "output_tokens_details"),
        json_obj(j);
    json_kv_i64(j, "reasoning_tokens", u->reasoning), json_end_obj(j);
    json_kv_i64(j, "total_tokens", u->prompt + u->completion), json_end_obj(j);
}

// What was asked for, as the object says it again.
static void put_asked(const Talk *t, Json *j) {
    json_key(j, "instructions"), json_put_null(j);
    json_key(j, "max_output_tokens");
    if (t->output_max != UNSET_INT) json_put_i64(j, t->output_max);
    else json_put_null(j);
    json_kv_bool(j, "parallel_tool_calls", t->serial_tools != 1);
    json_kv_str(j, "previous_response_id", t->previous);
    json_key(j, "reasoning"), json_obj(j), json_kv_str(j, "effort", t->reasoning.effort);
    json_kv_str(j, "summary", t->reasoning.summary), json_end_obj(j);
    json_kv_bool(j, "store", t->store != 0);
    json_kv_f64(j, "temperature", isnan(t->temperature) ? 1 : t->temperature);
    json_kv_f64(j, "top_p", isnan(t->top_p) ? 1 : t->top_p);
    json_key(j, "text"), json_obj(j), json_key(j, "format"), json_obj(j);
    json_kv_z(j, "type",
              t->format == FORMAT_TEXT   ? "text"
              : t->format == FORMAT_JSON ? "json_object"
                                         : "json_schema");
    if (t->format == FORMAT_SCHEMA) write_schema(t, j);
    json_end_obj(j), json_end_obj(j);
    responses_write_choice(t, j), json_key(j, "tools"), json_arr(j);
    for (size_t i = 0; i < t->tools_n; i++) responses_write_tool(&t->tools[i], j);
    json_end_arr(j), json_kv_z(j, "truncation", "disabled");
    json_kv_str(j, "user", t->user), json_key(j, "metadata");
    if (t->metadata) json_put_val(j, t->metadata);
    else json_obj(j), json_end_obj(j);
}

static void put_response(Writing *w, const char *status, const Delta *failure, Json *j) {
    const Kept *f = w->kept;
    const char *why =
        *status == 'i' && !failure && status[2] == 'c' ? incomplete_why(f->finish[0]) : NULL;
    json_obj(j), json_kv_str(j, "id", w->id), json_kv_z(j, "object", "response");
    json_kv_i64(j, "created_at", w->created_s), json_kv_z(j, "status", status),
        json_kv_bool(j, "background", false);
    json_key(j, "error");
    if (failure)
        json_obj(j), json_kv_str(j, "code", failure->name.n ? failure->name : S("server_error")),
            json_kv_str(j, "message", failure->text), json_end_obj(j);
    else json_put_null(j);
    json_key(j, "incomplete_details");
    if (why) json_obj(j), json_kv_z(j, "reason", why), json_end_obj(j);
    else json_put_null(j);
    json_kv_str(j, "model", w->model), json_key(j, "output"), json_arr(j);
    for (size_t i = 0; status[2] != '_' && i < f->n; i++)
        put_item(w, i, why ? "incomplete" : "completed", j);
    json_end_arr(j), put_asked(w->asked, j), json_key(j, "usage");
    if (status[2] != '_' && !failure) put_usage(&f->usage, j);
    else json_put_null(j);
    json_end_obj(j);
}

static const char *status_of(const Kept *f) {
    return incomplete_why(f->finish[0]) ? "incomplete" : "completed";
}

void responses_write_whole(Writing *w, Json *j) { put_response(w, status_of(w->kept), NULL, j); }

// ---- events
static void open_event(Writing *w, const char *type) {
    ResponsesWriting *s = w->state;
    OUT(w, "{\"type\":\""), buf_add(&w->out, str_z(type)), OUT(w, "\",\"sequence_number\":"),
        out_i64(w, s->sequence++);
}

static void item_event(Writing *w, const char *type, size_t i) {
    open_event(w, type);
    OUT(w, ",\"output_index\":"), out_i64(w, (int64_t)i);
    if (w->kept->pieces[i].kind != DELTA_REASONING && w->kept->pieces[i].kind != DELTA_CALL)
        OUT(w, ",\"content_index\":0");
    if (w->kept->pieces[i].kind == DELTA_REASONING) OUT(w, ",\"summary_index\":0");
    OUT(w, ",\"item_id\":"), add_item_id(w, i, &w->out);
}

static void response_event(Writing *w, const char *type, const char *status, const Delta *failure) {
    Json j = json_to(&w->out);
    open_event(w, type);
    OUT(w, ",\"response\":"), put_response(w, status, failure, &j), OUT(w, "}"), out_send(w, type);
}

static void output_item(Writing *w, const char *type, size_t i, const char *status) {
    Json j = json_to(&w->out);
    open_event(w, type);
    OUT(w, ",\"output_index\":"), out_i64(w, (int64_t)i), OUT(w, ",\"item\":"),
        put_item(w, i, status, &j);
    OUT(w, "}"), out_send(w, type);
}

static void part_event(Writing *w, const char *type, size_t i, bool whole) {
    Json j = json_to(&w->out);
    item_event(w, type, i);
    OUT(w, ",\"part\":"), put_part(&w->kept->pieces[i], whole, &j), OUT(w, "}"), out_send(w, type);
}

typedef struct Names {
    const char *delta, *done, *member, *part_added, *part_done;
} Names;
static const Names *names_of(DeltaKind kind) {
    static const Names text = { "response.output_text.delta", "response.output_text.done", "text",
                                "response.content_part.added", "response.content_part.done" },
                       refusal = { "response.refusal.delta", "response.refusal.done", "refusal",
                                   "response.content_part.added", "response.content_part.done" },
                       thought = { "response.reasoning_summary_text.delta",
                                   "response.reasoning_summary_text.done", "text",
                                   "response.reasoning_summary_part.added",
                                   "response.reasoning_summary_part.done" },
                       call = { "response.function_call_arguments.delta",
                                "response.function_call_arguments.done", "arguments", NULL, NULL };
    return kind == DELTA_TEXT        ? &text
           : kind == DELTA_REFUSAL   ? &refusal
           : kind == DELTA_REASONING ? &thought
                                     : &call;
}

static void close_item(Writing *w) {
    ResponsesWriting *s = w->state;
    if (!s->open) return;
    size_t i = s->items - 1;
    const Piece *p = &w->kept->pieces[i];
    const Names *n = names_of(p->kind);
    s->open = false;
    if (s->part || p->kind == DELTA_CALL) {
        item_event(w, n->done, i);
        OUT(w, ",\""), buf_add(&w->out, str_z(n->member)), OUT(w, "\":"), out_str(w, kept_text(p));
        if (p->kind == DELTA_TEXT)
            OUT(w, ",\"logprobs\":["), buf_add(&w->out, buf_str(&p->logprobs)), OUT(w, "]");
        OUT(w, "}"), out_send(w, n->done);
    }
    if (s->part) part_event(w, n->part_done, i, true);
    output_item(w, "response.output_item.done", i, "completed");
}

// Items are opened as their pieces are: the last piece is the one that this delta went to.
static void open_items(Writing *w) {
    ResponsesWriting *s = w->state;
    while (s->items < w->kept->n) {
        close_item(w);
        s->open = true, s->part = false;
        output_item(w, "response.output_item.added", s->items++, "in_progress");
    }
}

static void write_text(Writing *w, const Delta *d) {
    ResponsesWriting *s = w->state;
    size_t i = s->items - 1;
    const Names *n = names_of(d->kind);
    if (!s->items || !s->open || w->kept->pieces[i].kind != d->kind) return;
    if (!s->part) s->part = true, part_event(w, n->part_added, i, false);
    item_event(w, n->delta, i);
    OUT(w, ",\"delta\":"), out_str(w, d->text);
    if (d->kind == DELTA_TEXT) {
        Json j = json_to(&w->out);
        OUT(w, ",\"logprobs\":");
        if (d->logprobs) json_put_val(&j, d->logprobs);
        else OUT(w, "[]");
    }
    OUT(w, "}"), out_send(w, n->delta);
}

static void write_arguments(Writing *w, const Delta *d) {
    ResponsesWriting *s = w->state;
    size_t i = s->items - 1;
    if (!s->open || w->kept->pieces[i].kind != DELTA_CALL || w->kept->pieces[i].call != d->call)
        return;
    item_event(w, "response.function_call_arguments.delta", i);
    OUT(w, ",\"delta\":"), out_str(w, d->text), OUT(w, "}"),
        out_send(w, "response.function_call_arguments.delta");
}

static void write_failure(Writing *w, const Delta *d) {
    ResponsesWriting *s = w->state;
    if (s->failed) return;
    s->failed = true;
    if (s->begun) {
        response_event(w, "response.failed", "failed", d);
        return;
    }
    open_event(w, "error");
    OUT(w, ",\"code\":"), out_str(w, d->name), OUT(w, ",\"message\":"), out_str(w, d->text);
    OUT(w, ",\"param\":null}"), out_send(w, "error");
}

void responses_write_delta(Writing *w, const Delta *d) {
    static const Delta large = { .kind = DELTA_ERROR, .text = { "the answer is too large", 23 } };
    ResponsesWriting *s = w->state;
    if (d->choice || s->failed) return;
    if (w->kept->full) {
        write_failure(w, &large);
        return;
    }
    if (!s->begun && d->kind != DELTA_ERROR) {
        s->begun = true;
        response_event(w, "response.created", "in_progress", NULL);
        response_event(w, "response.in_progress", "in_progress", NULL);
    }
    open_items(w);
    switch (d->kind) {
    case DELTA_TEXT:
    case DELTA_REASONING:
    case DELTA_REFUSAL: write_text(w, d); break;
    case DELTA_ARGUMENTS: write_arguments(w, d); break;
    case DELTA_FINISH: close_item(w); break;
    case DELTA_ERROR: write_failure(w, d); break;
    case DELTA_END: {
        const char *status = status_of(w->kept);
        close_item(w);
        response_event(w, *status == 'c' ? "response.completed" : "response.incomplete", status,
                       NULL);
        break;
    }
    case DELTA_BEGIN:
    case DELTA_SIGNATURE:
    case DELTA_CALL:
    case DELTA_USAGE: break;
    }
}
