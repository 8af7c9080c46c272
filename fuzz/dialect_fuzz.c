// SPDX-License-Identifier: Apache-2.0
// dialect_fuzz.c - any bytes as a client's request, a server's stream or whole answer, in each
// dialect. The first byte chooses from which dialect to which. A request that is taken is written
// as JSON that the other's reader takes, or is refused with the name of a member; an answer ends
// once, whatever is told is written as JSON, and folds to JSON.
// Covers: src/mod/dialect/read.c src/mod/dialect/chat_answer.c src/mod/dialect/responses_answer.c
// Threads: one.
#include "fuzz.h"
#include "mod/dialect/dialect.h"

typedef struct Way {
    Ctx *c;
    Writing stream, whole;
    int ends;
    bool writing;
} Way;

static void must_be_json(Ctx *c, str text) {
    yyjson_val *v;
    Ctx in;
    ctx_init(&in, c->mem, c->os);
    err e = json_parse(&in, text, &v);
    assert(!e && yyjson_is_obj(v));
}

static void on_event(void *arg, str event, str data) {
    Way *w = arg;
    (void)event;
    assert(w->writing);
    if (!str_is(data, "[DONE]")) must_be_json(w->c, data);
}

static void on_delta(void *arg, const Delta *d) {
    Way *w = arg;
    const TokenUse *u = &d->usage;
    assert(!w->ends && d->choice >= 0 && d->choice < DIALECT_CHOICES_MAX);
    assert(d->call >= 0 && d->call < DIALECT_CALLS_MAX);
    assert(u->prompt >= 0 && u->cached >= 0 && u->cache_written >= 0 && u->completion >= 0);
    w->ends += d->kind == DELTA_END || d->kind == DELTA_ERROR;
    w->writing = true;
    writing_delta(&w->stream, d);
    w->writing = false;
    writing_keep(&w->whole, d);
}

static void begin_writing(Writing *out, const Dialect *d, const Talk *asked, Way *w) {
    writing_init(out, d, asked);
    out->id = S("id_1"), out->model = S("m\"1"), out->event = on_event, out->arg = w;
}

static void check_answer(Ctx *c, const Dialect *from, const Dialect *to, str bytes, bool whole) {
    static const Talk asked = { .stream = 1, .stream_usage = 1, .choices = 1 };
    Way w = { .c = c };
    Reading r;
    str rest = bytes, line;
    yyjson_val *root;
    err e = ERR_OK;
    begin_writing(&w.stream, to, &asked, &w), begin_writing(&w.whole, to, &asked, &w);
    reading_init(&r, from, c, on_delta, &w);
    if (whole && !json_parse(c, bytes, &root)) {
        e = reading_whole(&r, root);
    } else if (!whole) {
        while (!e && str_cut(&rest, '\n', &line)) e = reading_event(&r, (str){ 0 }, line);
        if (!e) reading_close(&r);
        assert(e || w.ends == 1);
    }
    if (e) fuzz_refused(c, e, ERR_UPSTREAM);
    Buf b;
    buf_init(&b, 64 << 20);
    Json j = json_to(&b);
    writing_whole(&w.whole, &j);
    must_be_json(c, buf_str(&b));
    buf_done(&b), reading_done(&r), writing_done(&w.stream), writing_done(&w.whole);
}

static void check_request(Ctx *c, const Dialect *from, const Dialect *to, str bytes) {
    yyjson_val *root;
    Talk t, again;
    Buf b;
    if (json_parse(c, bytes, &root)) return;
    err e = dialect_read(c, from, root, &t);
    if (e) {
        fuzz_refused(c, e, ERR_INVALID);
        assert(failure_param(&c->failure, "field").p);
        return;
    }
    buf_init(&b, 64 << 20);
    Json j = json_to(&b);
    e = dialect_write(c, to, NULL, &t, &j);
    if (e) fuzz_refused(c, e, ERR_INVALID);
    else {
        must_be_json(c, buf_str(&b));
        e = json_parse(c, buf_str(&b), &root);
        assert(!e);
        e = dialect_read(c, to, root, &again);
        if (e) fuzz_refused(c, e, ERR_INVALID); // one that its own server would refuse too
    }
    buf_done(&b);
}

FUZZ(dialect) {
    unsigned how = fuzz_choice(&bytes);
    size_t n = 0;
    while (dialects[n]) n++;
    const Dialect *from = dialects[how % n], *to = dialects[how / n % n];
    Ctx c;
    ctx_init(&c, arena_new(), NULL);
    if (how / n / n % 3 == 0) check_request(&c, from, to, bytes);
    else check_answer(&c, from, to, bytes, how / n / n % 3 == 1);
    arena_free(c.mem);
}
