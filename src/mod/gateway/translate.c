// SPDX-License-Identifier: Apache-2.0
// translate.c - between a client and an engine of another dialect: the body written anew, and each
// event of the answer read and written again, with the same figures noted as where bytes pass as
// they came (stream.c). Where both speak Anthropic's or Ollama's (pass.c) events are read alike,
// and pass. A client that wants its answer in one piece gets what was kept of the events, or of the
// engine's whole one. Owner: an attempt's Translation is freed with its Answer. Threads: the
// exchange's loop.
#include "mod/gateway/flow.h"
#include "mod/gateway/stored.h"
#include <assert.h>

enum {
    LINE_MAX_BYTES = 1 << 20,
    ERROR_MAX = 4096,
    TOKENS_MAX = 1 << 30,
    OUTPUT_DEFAULT = 4096 // where an engine must be told a limit, and nobody has one
};

struct Translation {
    Reading reading;
    Writing writing;
    Buf line;    // NDJSON: what has come of one
    bool whole;  // the client wants it in one piece
    bool full;   // which grew too large
    bool counts; // the engine tells its tokens as it makes them
    bool passes; // as it came; last: what ends it
    Buf last_name, last;
    bool closed;
    err how; // what the engine said went wrong
    Buf why;
};

bool speaks_openai(const Dialect *d) { return !d || str_is(str_z(d->name), "openai.chat"); }

bool flow_translates(const Flow *f) {
    return f->spoken && !(speaks_openai(f->dialect) && speaks_openai(f->spoken));
}

// ---- the request
err talk_read(Flow *f) {
    if (f->talk) return ERR_OK;
    Talk *t = new (f->c->mem, Talk, 1);
    TRY(dialect_read(f->c, f->spoken, f->in.root, t));
    f->talk = t;
    return ERR_OK;
}

// One that a server cut to 32 bits would be another limit, or none.
static err check_most(Flow *f, TalkField field, int64_t n, int64_t most) {
    if (n <= most) return ERR_OK;
    return fail(f->c, ERR_INVALID, R_FIELD_RANGE, "field", f->talk->said[field], "min", "1", "max",
                say(f->c, "%lld", (long long)most), "got", say(f->c, "%lld", (long long)n));
}

// What the stages need of a body in a dialect that is not OpenAI's.
err talk_parse(Flow *f) {
    ParsedBody *in = &f->in;
    err e = talk_read(f);
    f->unread = e && pass_may(f);
    if (f->unread) {
        f->c->failure = (Failure){ 0 };
        return pass_parse(f);
    }
    TRY(e);
    const Talk *t = f->talk;
    in->model = t->model, in->user = t->user, in->stream = t->stream == 1;
    in->output_max = t->output_max > 0 ? t->output_max : UNSET_INT;
    TRY(check_most(f, TALK_OUTPUT_MAX, t->output_max, INT32_MAX));
    TRY(check_most(f, TALK_CHOICES, t->choices, CHOICES_MAX));
    in->n = in->choices = in->made = t->choices > 0 ? t->choices : 1;
    if (!in->model.n) return fail(f->c, ERR_INVALID, R_FIELD_REQUIRED, "field", "model");
    return stored_parse(f);
}

static bool asks_stream(const Flow *f) { return f->in.stream || f->engine->launched; }

// Under the engine's own name of the model, streamed where the client or the engine needs it,
// always with usage.
err translate_body(Flow *f, struct evbuffer *out) {
    const Dialect *d = f->dialect;
    if (flow_passes(f)) {
        pass_body(f, out);
        return ERR_OK;
    }
    TRY(talk_read(f));
    Talk t = *f->talk;
    t.model = f->upstream_model;
    t.stream = asks_stream(f), t.said[TALK_STREAM] = "stream";
    t.previous = (str){ 0 }; // it is kept here, and what was said is in the body
    bool tells =
        t.stream && f->engine->streams_usage && d->place[TALK_STREAM_USAGE].kind != PLACE_NONE;
    t.stream_usage = tells ? 1 : -1, t.said[TALK_STREAM_USAGE] = tells ? "stream" : NULL;
    Buf b;
    buf_init(&b, f->in.text.n * 12 + 65536);
    Json j = json_to(&b);
    Accent accent = f->accent; // what it may make is reserved, and no more than the context
    if (!accent.output_default) accent.output_default = OUTPUT_DEFAULT;
    if (accent.output_default > f->deployment->context)
        accent.output_default = f->deployment->context;
    err e = dialect_write(f->c, d, &accent, &t, &j);
    if (!e && b.full)
        e = fail(f->c, ERR_TOOLARGE, R_TOO_LONG, "what", "the request in another dialect", "limit",
                 say(f->c, "%zu bytes", b.max));
    if (!e) evbuffer_add(out, b.p, b.n);
    buf_done(&b);
    return e;
}

// ---- the answer
static str finish_name(Finish n) {
    static const char *const names[] = { [FINISH_NONE] = "",
                                         [FINISH_STOP] = "stop",
                                         [FINISH_LENGTH] = "length",
                                         [FINISH_WINDOW] = "length",
                                         [FINISH_CALLS] = "tool_calls",
                                         [FINISH_FILTER] = "content_filter",
                                         [FINISH_REFUSAL] = "content_filter",
                                         [FINISH_PAUSE] = "pause" };
    return str_z(names[n]);
}

static int64_t within(int64_t tokens) { return tokens < TOKENS_MAX ? tokens : TOKENS_MAX; }

// Of a stream it came now; when the pieces of a whole answer were made nobody knows.
static void note_piece(Flow *f, str text) {
    answer_content(f, text);
    if (!asks_stream(f)) return;
    answer_token(f);
    if (!f->out.translation->counts) f->out.tokens++;
}

static void note_usage(Flow *f, const Delta *d) {
    Told told = { within(d->usage.prompt), within(d->usage.completion), within(d->usage.cached) };
    if (!d->so_far && !d->prompt_only) {
        answer_usage(f, told);
        return;
    }
    f->r.prompt_tokens = told.prompt, f->r.cached_tokens = told.cached;
    if (d->prompt_only) f->out.prompt_told = true;
    else f->out.translation->counts = true, f->out.tokens = told.completion;
}

static void note(Flow *f, const Delta *d) {
    switch (d->kind) {
    case DELTA_BEGIN: answer_id(f, d->id); break;
    case DELTA_CALL: note_piece(f, d->name); break;
    case DELTA_TEXT:
    case DELTA_REASONING:
    case DELTA_REFUSAL:
    case DELTA_ARGUMENTS: note_piece(f, d->text); break;
    case DELTA_FINISH: answer_finish(f, finish_name(d->finish)); break;
    case DELTA_USAGE: note_usage(f, d); break;
    default: break;
    }
}

static void note_error(Flow *f, const Delta *d) {
    Translation *t = f->out.translation;
    t->how = d->how;
    buf_add(&t->why, str_sub(d->text, 0, ERROR_MAX));
    f->out.cut = true;
}

// The end waits until the attempt is settled: translate_end.
static void tell(void *arg, const Delta *d) {
    Flow *f = arg;
    Translation *t = f->out.translation;
    if ((d->so_far || d->prompt_only) && f->out.usage_seen) return; // there is more to go by
    note(f, d);
    answer_mark(f);
    if (d->kind == DELTA_ERROR) note_error(f, d);
    else if (d->kind == DELTA_END) f->out.finished = true;
    else if (t->passes) return;
    else if (t->whole) t->full |= !writing_keep(&t->writing, d);
    else writing_delta(&t->writing, d);
}

static void show(void *arg, str event, str data) { answer_show(arg, event, data); }

static void write_open(Flow *f, Writing *w) {
    static const Talk unread; // only a failure is written then
    writing_init(w, f->spoken, f->talk ? f->talk : &unread);
    w->id = f->stored.id.n ? f->stored.id : f->c->request_id, w->model = f->in.model,
    w->created_s = f->start_ms / 1000;
    w->event = show, w->arg = f;
}

void translate_open(Flow *f) {
    Translation *t = f->out.translation = new (f->c->mem, Translation, 1);
    reading_init(&t->reading, f->dialect, f->c, tell, f);
    t->reading.made = f->c->request_id;
    write_open(f, &t->writing);
    t->whole = !f->in.stream, t->passes = flow_passes(f);
    buf_init(&t->line, LINE_MAX_BYTES), buf_init(&t->why, ERROR_MAX);
    buf_init(&t->last, LINE_MAX_BYTES), buf_init(&t->last_name, ERROR_MAX);
}

void translate_close(Translation *t) {
    if (!t || t->closed) return;
    reading_done(&t->reading), writing_done(&t->writing);
    buf_done(&t->line), buf_done(&t->why);
    buf_done(&t->last), buf_done(&t->last_name);
    t->closed = true;
}

void translate_event(Flow *f, str event, str data) {
    Translation *t = f->out.translation;
    if (f->out.finished || f->out.cut) return;
    if (reading_event(&t->reading, event, data)) f->out.cut = true;
    if (!t->passes || f->out.cut || !data.n) return;
    if (f->out.finished) buf_add(&t->last_name, event), buf_add(&t->last, data);
    else answer_show(f, event, data);
}

// False: a line is too long.
bool translate_lines(Flow *f, str bytes) {
    Translation *t = f->out.translation;
    str rest = bytes, line;
    while (rest.n) {
        ptrdiff_t end = str_find_char(rest, '\n');
        line = end < 0 ? rest : str_sub(rest, 0, (size_t)end);
        if (!buf_add(&t->line, line)) return false;
        rest = end < 0 ? (str){ 0 } : str_sub(rest, (size_t)end + 1, rest.n);
        if (end < 0) break;
        ArenaMark before = arena_mark(f->c->mem);
        translate_event(f, (str){ 0 }, buf_str(&t->line));
        arena_restore(f->c->mem, before);
        buf_clear(&t->line);
    }
    return true;
}

// The engine's stream is over: where it has said that it finished, the end's own mark is no matter,
// nor the last line's.
void translate_over(Flow *f) {
    Translation *t = f->out.translation;
    if (t->line.n && !t->line.full) translate_event(f, (str){ 0 }, buf_str(&t->line));
    if (!f->out.cut && t->reading.finished) reading_close(&t->reading);
}

// Whether what it said is an answer. An error within it is what it would have been as an answer of
// its own: that our key is wrong, say, is not the client's matter.
err translate_judge(Flow *f) {
    Translation *t = f->out.translation;
    Ctx *c = f->c;
    if (t->how) return engine_refusal(f, err_row(t->how)->http, buf_str(&t->why));
    if (!f->out.finished)
        return fail(c, ERR_UPSTREAM, R_ENGINE_FAILED, "model", say_str(c, f->deployment->name),
                    "why", "what it sent is not a whole answer");
    return ERR_OK;
}

err translate_whole(Flow *f, yyjson_val *root) {
    TRY(reading_whole(&f->out.translation->reading, root));
    return translate_judge(f);
}

// ---- its end, after it was settled
static Delta failure_delta(Flow *f) {
    DialectError e = dialect_error_of(f->c);
    return (Delta){ .kind = DELTA_ERROR, .how = e.how, .text = e.message, .name = e.code };
}

static void time_it(Flow *f, Writing *w) {
    w->total_ns = loop_now_ns(exchange_loop(f->x)) - f->start_ns;
    w->first_ns = f->out.first_ns ? f->out.first_ns - f->start_ns : 0;
}

void translate_end(Flow *f) {
    static const Delta end = { .kind = DELTA_END };
    Translation *t = f->out.translation, own = { 0 };
    Delta failure;
    if (!t || t->closed) { // it failed before, or between attempts
        t = &own;
        write_open(f, &t->writing);
    }
    time_it(f, &t->writing);
    if (f->failed) failure = failure_delta(f);
    f->out.chunks++;               // nothing is held back any more
    if (t->passes && !f->failed) { // where the end's own mark is missing it is Anthropic's
        if (t->last.n) answer_show(f, buf_str(&t->last_name), buf_str(&t->last));
        else answer_show(f, S("message_stop"), S("{\"type\":\"message_stop\"}"));
        return;
    }
    writing_delta(&t->writing, f->failed ? &failure : &end);
    if (t == &own) writing_done(&own.writing);
}

// False: it is too large.
bool translate_body_out(Flow *f, Buf *out) {
    Translation *t = f->out.translation;
    static const Delta end = { .kind = DELTA_END };
    t->full |= !writing_keep(&t->writing, &end);
    time_it(f, &t->writing);
    Json j = json_to(out);
    if (!t->full) writing_whole(&t->writing, &j);
    return !t->full && !out->full;
}

bool translate_again(Flow *f, Buf *out) {
    Json j = json_to(out);
    buf_clear(out);
    writing_whole(&f->out.translation->writing, &j);
    return !out->full;
}

void gateway_refuse(Ctx *c, const char *dialect, Buf *out) {
    DialectError e = dialect_error_of(c);
    Json j = json_to(out);
    dialect_write_error(dialect_find(str_z(dialect)), &e, &j);
}
