// SPDX-License-Identifier: Apache-2.0
// dialect.c - the list of dialects; requests through a reader, the check that each member has a
// place, and a writer; answers through Reading and Writing. Owner: see dialect.h. Threads: one at a
// time for each object.
#include "mod/dialect/dialect_own.h"
#include "res/module.h"
#include <assert.h>

enum {
    EVENT_MAX = 512 << 20
}; // an escape takes six bytes for one, and events have a limit where they enter

const Dialect *const dialects[] = {
    &dialect_chat,        &dialect_responses,       &dialect_anthropic,
    &dialect_ollama_chat, &dialect_ollama_generate, NULL
};
REASONS_DEFINE(DIALECT_REASONS, dialect_reasons)
const Module dialect_module = {
    .name = "dialect",
    .reasons = dialect_reasons,
    .en = "The languages in which models are asked, each in each",
    .zh = "各种模型接口之间的转换",
};

const Dialect *dialect_find(str name) {
    for (const Dialect *const *d = dialects; *d; d++)
        if (str_is(name, (*d)->name)) return *d;
    return NULL;
}

const char *talk_field_name(TalkField f) {
#define X(name) #name,
    static const char *const names[] = { TALK_FIELDS(X) };
#undef X
    assert(f < TALK__COUNT);
    return names[f];
}

// ---- requests
static void talk_init(Talk *t) {
    *t = (Talk){ .stream = -1,
                 .stream_usage = -1,
                 .logprobs = -1,
                 .store = -1,
                 .serial_tools = -1,
                 .output_max = UNSET_INT,
                 .top_k = UNSET_INT,
                 .seed = UNSET_INT,
                 .choices = UNSET_INT,
                 .top_logprobs = UNSET_INT,
                 .temperature = NAN,
                 .top_p = NAN,
                 .min_p = NAN,
                 .presence = NAN,
                 .frequency = NAN,
                 .format_strict = -1,
                 .reasoning = { .on = -1, .tokens = UNSET_INT } };
}

err dialect_read(Ctx *c, const Dialect *d, yyjson_val *root, Talk *out) {
    In in = { .c = c, .d = d, .t = out };
    talk_init(out);
    TRY(d->ways->read_request(&in, root));
    if (!out->model.p) return at_missing(&in, NULL, d->place[TALK_MODEL].member);
    return ERR_OK;
}

// To call no tool is as good as to have none, where there is no other way to say it.
static bool has_place(const Dialect *d, const Talk *t, TalkField f) {
    return d->place[f].kind != PLACE_NONE || (f == TALK_TOOL_CHOICE && t->choose == CHOOSE_NONE);
}

err dialect_write(Ctx *c, const Dialect *d, const Accent *a, const Talk *t, Json *out) {
    static const Accent plain;
    To to = { .c = c, .d = d, .a = a ? a : &plain, .t = t, .j = out };
    for (TalkField f = 0; f < TALK__COUNT; f++)
        if (t->said[f] && !has_place(d, t, f))
            return fail(c, ERR_INVALID, R_DIALECT_PLACE, "field", t->said[f], "dialect", d->name);
    return d->ways->write_request(&to);
}

// ---- answers, read
void reading_init(Reading *r, const Dialect *d, Ctx *c, void (*tell_)(void *arg, const Delta *d),
                  void *arg) {
    *r = (Reading){ .dialect = d, .c = c, .tell = tell_, .arg = arg, .made = S("0") };
    r->state = mem_new(d->ways->reading_size);
}

void reading_done(Reading *r) {
    if (r->state && r->dialect->ways->reading_free) r->dialect->ways->reading_free(r->state);
    r->state = mem_free(r->state);
}

void tell(Reading *r, const Delta *d) {
    if (r->ended || (d->kind == DELTA_BEGIN && r->begun)) return;
    if (d->kind != DELTA_BEGIN && d->kind != DELTA_ERROR && !r->begun)
        tell(r, &(Delta){ .kind = DELTA_BEGIN });
    r->begun |= d->kind == DELTA_BEGIN, r->finished |= d->kind == DELTA_FINISH;
    r->ended = d->kind == DELTA_END || d->kind == DELTA_ERROR;
    r->tell(r->arg, d);
}

void tell_text(Reading *r, DeltaKind kind, int64_t choice, str text) {
    if (text.n) tell(r, &(Delta){ .kind = kind, .choice = choice, .text = text });
}

err not_of(Reading *r, const char *why) {
    return fail(r->c, ERR_UPSTREAM, R_DIALECT_SHAPE, "dialect", r->dialect->name, "why", why);
}

static bool tell_error(Reading *r, yyjson_val *root) {
    DialectError e;
    if (!dialect_read_error(r->dialect, root, &e)) return false;
    tell(r, &(Delta){ .kind = DELTA_ERROR, .how = e.how, .text = e.message, .name = e.code });
    return true;
}

static err parse(Reading *r, str data, yyjson_val **out) {
    if (!json_parse(r->c, data, out)) return ERR_OK;
    return not_of(r, "an event is no JSON");
}

err reading_event(Reading *r, str event, str data) {
    yyjson_val *root = NULL;
    str text = str_trim(data);
    if (r->ended || !text.n) return ERR_OK;
    if (!str_is(text, "[DONE]")) {
        TRY(parse(r, data, &root));
        if (yyjson_is_null(root)) return ERR_OK; // llama-server starts some streams with it
        if (!yyjson_is_obj(root)) return not_of(r, "an event is no object");
        if (tell_error(r, root)) return ERR_OK;
    }
    return r->dialect->ways->read_event(r, event, root);
}

err reading_whole(Reading *r, yyjson_val *root) {
    if (!yyjson_is_obj(root)) return not_of(r, "it is no object");
    if (tell_error(r, root)) return ERR_OK;
    TRY(r->dialect->ways->read_whole(r, root));
    tell(r, &(Delta){ .kind = DELTA_END });
    return ERR_OK;
}

void reading_close(Reading *r) {
    Delta end = { .kind = DELTA_END };
    Delta cut = { .kind = DELTA_ERROR,
                  .how = ERR_UPSTREAM,
                  .text = S("the model's server ended the stream before the answer was whole"),
                  .name = S("stream_cut") };
    tell(r, r->finished ? &end : &cut);
}

int64_t count_of(yyjson_val *obj, const char *key) {
    static const int64_t most = 1LL << 40; // sums of many stay far from the end of 64 bits
    int64_t n = 0;
    json_get_i64(obj, key, &n);
    return n < 0 ? 0 : n > most ? most : n;
}

str made_id(Reading *r, int64_t choice, int64_t call) {
    char a[STR_I64], b[STR_I64];
    str parts[] = { S("call"), r->made, str_i64(choice, a), str_i64(call, b) };
    return arena_join(r->c->mem, parts, countof(parts), S("_"));
}

// ---- answers, written
void writing_init(Writing *w, const Dialect *d, const Talk *asked) {
    *w = (Writing){ .dialect = d, .asked = asked };
    w->state = mem_new(d->ways->writing_size);
    w->kept = kept_new();
    buf_init(&w->out, EVENT_MAX), buf_init(&w->head, 1 << 16);
}

void writing_done(Writing *w) {
    w->kept = kept_free(w->kept);
    w->state = mem_free(w->state);
    buf_done(&w->out), buf_done(&w->head);
}

void writing_delta(Writing *w, const Delta *d) {
    if (w->dialect->ways->folds && !d->choice) kept_add(w->kept, d);
    w->dialect->ways->write_delta(w, d);
}

bool writing_keep(Writing *w, const Delta *d) { return kept_add(w->kept, d); }

void writing_whole(Writing *w, Json *out) { w->dialect->ways->write_whole(w, out); }

void out_str(Writing *w, str s) { buf_add_json(&w->out, s); }

void out_i64(Writing *w, int64_t n) {
    char text[STR_I64];
    buf_add(&w->out, str_i64(n, text));
}

void out_send(Writing *w, const char *event) {
    assert(!w->out.full);
    w->event(w->arg, str_z(event), buf_str(&w->out));
    buf_clear(&w->out);
}

void framing_add(Framing f, str event, str data, Buf *out) {
    if (f == FRAMING_SSE_NAMED && event.n)
        buf_add(out, S("event: ")), buf_add(out, event), buf_add_char(out, '\n');
    if (f != FRAMING_NDJSON) buf_add(out, S("data: "));
    buf_add(out, data);
    buf_add(out, f == FRAMING_NDJSON ? S("\n") : S("\n\n"));
}

// ---- errors
DialectError dialect_error_of(Ctx *c) {
    const Failure *f = &c->failure;
    Buf b;
    buf_init(&b, 8192);
    failure_format(f, c->lang, &b);
    DialectError e = { .how = f->code,
                       .code = str_z(f->why ? f->why->slug : err_row(f->code)->slug),
                       .message = arena_str(c->mem, buf_str(&b)),
                       .field = failure_param(f, "field"),
                       .request_id = c->request_id };
    buf_done(&b);
    return e;
}

void dialect_write_error(const Dialect *d, const DialectError *e, Json *out) {
    d->ways->write_error(e, out);
}

bool dialect_read_error(const Dialect *d, yyjson_val *root, DialectError *out) {
    *out = (DialectError){ .how = ERR_UPSTREAM };
    return d->ways->read_error(root, out);
}
