// SPDX-License-Identifier: Apache-2.0
// ollama_answer.c - answers of Ollama's chat and generate (its API documentation, "Response"):
// lines of JSON, of which the last one says done and how many tokens there were. A call of a tool
// comes whole. Owner: see dialect.h. Threads: one at a time.
#include "mod/dialect/ollama.h"
#include "mod/dialect/chat.h"

// ---- read
static void read_calls(Reading *r, yyjson_val *calls) {
    OllamaReading *s = r->state;
    size_t i, n;
    yyjson_val *one;
    yyjson_arr_foreach(calls, i, n, one) {
        yyjson_val *function = json_get(one, "function"),
                   *arguments = json_get(function, "arguments");
        str id = json_get_str(one, "id"), name = json_get_str(function, "name");
        if (!name.n || s->calls == DIALECT_CALLS_MAX) continue;
        int64_t call = s->calls++;
        if (!id.n) id = made_id(r, 0, call);
        tell(r, &(Delta){ .kind = DELTA_CALL, .call = call, .id = id, .name = name });
        str text = yyjson_is_obj(arguments) ? json_text(r->c->mem, arguments) : S("{}");
        tell(r, &(Delta){ .kind = DELTA_ARGUMENTS, .call = call, .text = text });
    }
}

static void read_said(Reading *r, yyjson_val *root) {
    yyjson_val *message = json_get(root, "message"), *logprobs = json_get(root, "logprobs");
    bool chat = message != NULL;
    str text = chat ? json_get_str(message, "content") : json_get_str(root, "response");
    Delta d = { .kind = DELTA_TEXT,
                .text = text,
                .logprobs = yyjson_arr_size(logprobs) ? logprobs : NULL };
    tell(r, &(Delta){ .kind = DELTA_BEGIN, .name = json_get_str(root, "model") });
    tell_text(r, DELTA_REASONING, 0, json_get_str(chat ? message : root, "thinking"));
    if (text.n || d.logprobs) tell(r, &d);
    read_calls(r, json_get(message, "tool_calls"));
}

static void read_end(Reading *r, yyjson_val *root) {
    const OllamaReading *s = r->state;
    str reason = json_get_str(root, "done_reason");
    Delta d = { .kind = DELTA_FINISH, .finish = s->calls ? FINISH_CALLS : FINISH_STOP };
    if (str_is(reason, "length")) d.finish = FINISH_LENGTH;
    tell(r, &d);
    // A prompt that was still in its cache is not counted again by some releases.
    if (!yyjson_is_int(json_get(root, "prompt_eval_count"))) return;
    tell(r, &(Delta){ .kind = DELTA_USAGE,
                      .usage = { .prompt = count_of(root, "prompt_eval_count"),
                                 .completion = count_of(root, "eval_count") } });
}

err ollama_read_event(Reading *r, str event, yyjson_val *data) {
    (void)event;
    if (!data) return ERR_OK;
    read_said(r, data);
    if (!json_get_bool(data, "done", false)) return ERR_OK;
    read_end(r, data), tell(r, &(Delta){ .kind = DELTA_END });
    return ERR_OK;
}

err ollama_read_whole(Reading *r, yyjson_val *root) {
    if (!json_get_bool(root, "done", false)) return not_of(r, "it is not done");
    read_said(r, root), read_end(r, root);
    return ERR_OK;
}

// ---- written
static bool is_chat(const Writing *w) { return w->dialect == &dialect_ollama_chat; }

// Days since 1970 as a date (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
static void add_time(Buf *b, int64_t unix_s) {
    int64_t days = unix_s / 86400, s = unix_s % 86400, z = days + 719468;
    int64_t era = z / 146097, doe = z % 146097,
            yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
    int64_t d = doy - (153 * mp + 2) / 5 + 1, m = mp < 10 ? mp + 3 : mp - 9,
            y = yoe + era * 400 + (m <= 2);
    buf_printf(b, "%04d-%02d-%02dT%02d:%02d:%02dZ", (int)y, (int)m, (int)d, (int)(s / 3600),
               (int)(s / 60 % 60), (int)(s % 60));
}

static void open_line(Writing *w) {
    if (!w->head.n) {
        Json j = json_to(&w->head);
        json_obj(&j), json_kv_str(&j, "model", w->model);
        buf_add(&w->head, S(",\"created_at\":\"")),
            add_time(&w->head, w->created_s < 0 ? 0 : w->created_s);
        buf_add(&w->head, is_chat(w) ? S("\",\"message\":{\"role\":\"assistant\",") : S("\","));
    }
    buf_add(&w->out, buf_str(&w->head));
}

static void close_line(Writing *w) { OUT(w, ",\"done\":false}"), out_send(w, NULL); }

static void write_text(Writing *w, const Delta *d) {
    bool thought = d->kind == DELTA_REASONING, chat = is_chat(w);
    open_line(w);
    buf_add(&w->out, chat ? S("\"content\":") : S("\"response\":"));
    if (thought) OUT(w, "\"\",\"thinking\":");
    out_str(w, d->text);
    if (chat) OUT(w, "}");
    if (d->logprobs) {
        Json j = json_to(&w->out);
        OUT(w, ",\"logprobs\":"), json_put_val(&j, d->logprobs);
    }
    close_line(w);
}

static void put_call(const Piece *p, Json *j) {
    json_obj(j), json_kv_str(j, "id", buf_str(&p->id)), json_key(j, "function"), json_obj(j);
    json_kv_str(j, "name", buf_str(&p->name)), json_key(j, "arguments"),
        put_object(kept_text(p), j);
    json_end_obj(j), json_end_obj(j);
}

// Calls go when all of their arguments are there: before the next thing that is said, or at the
// end.
static void write_calls(Writing *w) {
    OllamaWriting *s = w->state;
    for (; s->calls < w->kept->n; s->calls++) {
        const Piece *p = &w->kept->pieces[s->calls];
        if (p->kind != DELTA_CALL || !is_chat(w)) continue;
        Json j = json_to(&w->out);
        open_line(w), OUT(w, "\"content\":\"\",\"tool_calls\":["), put_call(p, &j), OUT(w, "]}"),
            close_line(w);
    }
}

static str reason_of(Finish f) {
    return f == FINISH_LENGTH || f == FINISH_WINDOW || f == FINISH_PAUSE ? S("length") : S("stop");
}

static void add_figures(const Writing *w, Buf *b) {
    int64_t first = w->first_ns, rest = w->total_ns > first ? w->total_ns - first : 0;
    const struct {
        str before;
        int64_t n;
    } all[] = { { S(",\"total_duration\":"), w->total_ns },
                { S(",\"load_duration\":"), 0 },
                { S(",\"prompt_eval_count\":"), w->kept->usage.prompt },
                { S(",\"prompt_eval_duration\":"), first },
                { S(",\"eval_count\":"), w->kept->usage.completion },
                { S(",\"eval_duration\":"), rest } };
    buf_add(b, S(",\"done\":true,\"done_reason\":")),
        buf_add_json(b, reason_of(w->kept->finish[0]));
    for (size_t i = 0; i < countof(all); i++) {
        char text[STR_I64];
        buf_add(b, all[i].before), buf_add(b, str_i64(all[i].n, text));
    }
    buf_add_char(b, '}');
}

static void write_end(Writing *w) {
    write_calls(w), open_line(w);
    buf_add(&w->out, is_chat(w) ? S("\"content\":\"\"}") : S("\"response\":\"\""));
    add_figures(w, &w->out), out_send(w, NULL);
}

static void write_failure(Writing *w, str text) {
    OllamaWriting *s = w->state;
    OUT(w, "{\"error\":"), out_str(w, text), OUT(w, "}"), out_send(w, NULL);
    s->failed = true;
}

// Of a stream calls alone are kept, until they are whole: it may be as long as it likes.
void ollama_write_delta(Writing *w, const Delta *d) {
    OllamaWriting *s = w->state;
    if (d->choice || s->failed) return;
    if (w->kept->full) {
        write_failure(w, S("the answer is too large"));
        return;
    }
    switch (d->kind) {
    case DELTA_TEXT:
    case DELTA_REASONING:
    case DELTA_REFUSAL: write_calls(w), write_text(w, d); break;
    case DELTA_CALL:
    case DELTA_ARGUMENTS:
    case DELTA_FINISH:
    case DELTA_USAGE: kept_add(w->kept, d); break;
    case DELTA_ERROR: write_failure(w, d->text); break;
    case DELTA_END: write_end(w); break;
    default: break;
    }
}

// ---- written whole
static str joined(const Kept *f, DeltaKind a, DeltaKind b, Buf *out) {
    for (size_t i = 0; i < f->n; i++)
        if (f->pieces[i].kind == a || f->pieces[i].kind == b)
            buf_add(out, buf_str(&f->pieces[i].text));
    return buf_str(out);
}

static void put_logprobs(const Kept *f, Json *j) {
    bool any = false;
    for (size_t i = 0; i < f->n; i++) {
        if (!f->pieces[i].logprobs.n) continue;
        if (!any) json_key(j, "logprobs"), json_arr(j), any = true;
        json_put_raw(j, buf_str(&f->pieces[i].logprobs));
    }
    if (any) json_end_arr(j);
}

static void put_calls(const Kept *f, Json *j) {
    bool any = false;
    for (size_t i = 0; i < f->n; i++) {
        if (f->pieces[i].kind != DELTA_CALL) continue;
        if (!any) json_key(j, "tool_calls"), json_arr(j), any = true;
        put_call(&f->pieces[i], j);
    }
    if (any) json_end_arr(j);
}

void ollama_write_whole(Writing *w, Json *j) {
    const Kept *f = w->kept;
    Buf text, thought, time;
    bool chat = is_chat(w);
    buf_init(&text, SIZE_MAX - 1), buf_init(&thought, SIZE_MAX - 1), buf_init(&time, 64);
    add_time(&time, w->created_s < 0 ? 0 : w->created_s);
    json_obj(j), json_kv_str(j, "model", w->model), json_kv_str(j, "created_at", buf_str(&time));
    if (chat) json_key(j, "message"), json_obj(j), json_kv_z(j, "role", "assistant");
    json_kv_str(j, chat ? "content" : "response", joined(f, DELTA_TEXT, DELTA_REFUSAL, &text));
    joined(f, DELTA_REASONING, DELTA_REASONING, &thought);
    if (thought.n) json_kv_str(j, "thinking", buf_str(&thought));
    if (chat) put_calls(f, j), json_end_obj(j);
    put_logprobs(f, j);
    add_figures(w, j->out); // with the end of the object
    j->depth--;
    buf_done(&text), buf_done(&thought), buf_done(&time);
}

// ---- errors
void ollama_write_error(const DialectError *e, Json *j) {
    json_obj(j), json_kv_str(j, "error", e->message), json_end_obj(j);
}

bool ollama_read_error(yyjson_val *root, DialectError *out) {
    if (!openai_read_error(root, out)) return false;
    if (str_find(out->message, S("not found")) >= 0) out->how = ERR_NOTFOUND;
    return true;
}
