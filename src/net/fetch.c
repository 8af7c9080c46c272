// SPDX-License-Identifier: Apache-2.0
// fetch.c - one call, waited for: a loop of its own, run until the call ends or the context is
// cancelled. For workers and the command line, never for a thread that runs a loop.
// Owner and threads: see client.h.
#include "net/client.h"
#include "net/reason.h"
#include <assert.h>

enum { WATCH_MS = 50 };

typedef struct Fetch {
    Ctx *c;
    Loop *loop;
    Call *call; // NULL: over
    Timer *watch;
    size_t max;
    bool (*on_data)(void *arg, str piece);
    void *arg;
    FetchResult *out;
    Buf body;
    CallEnd why;
    err failed;
} Fetch;

static void stop(Fetch *f, err e) {
    f->failed = e;
    if (f->call) call_cancel(f->call);
    f->call = NULL;
    loop_stop(f->loop);
}

static void on_head(void *arg, const CallHead *h) {
    Fetch *f = arg;
    FetchResult *out = f->out;
    Arena *a = f->c->mem;
    out->status = h->status;
    out->headers = new (a, HttpHeader, h->headers_n + 1);
    out->headers_n = h->headers_n;
    for (size_t i = 0; i < h->headers_n; i++) {
        out->headers[i].name = arena_str(a, h->headers[i].name);
        out->headers[i].value = arena_str(a, h->headers[i].value);
    }
}

// True when it went on to the caller's on_data.
static bool hand_over(Fetch *f, struct evbuffer *chunk) {
    struct evbuffer_iovec piece;
    if (!f->on_data || f->out->status / 100 != 2) return false;
    while (f->call && evbuffer_peek(chunk, -1, NULL, &piece, 1) > 0 && piece.iov_len) {
        bool more = f->on_data(f->arg, str_n(piece.iov_base, piece.iov_len));
        evbuffer_drain(chunk, piece.iov_len);
        if (!more) stop(f, ERR_OK);
    }
    return true;
}

static void on_data(void *arg, struct evbuffer *chunk) {
    Fetch *f = arg;
    if (hand_over(f, chunk)) return;
    size_t n = evbuffer_get_length(chunk);
    char *at = buf_reserve(&f->body, n);
    if (!at) {
        const char *limit = say(f->c, "%zu", f->max);
        stop(f, fail(f->c, ERR_TOOLARGE, R_TOO_LONG, "what", "the answer", "limit", limit));
        return;
    }
    evbuffer_remove(chunk, at, n);
    buf_commit(&f->body, n);
}

static void on_end(void *arg, CallEnd why) {
    Fetch *f = arg;
    f->call = NULL;
    f->why = why;
    loop_stop(f->loop);
}

static void on_watch(void *arg) {
    Fetch *f = arg;
    err e = ctx_check(f->c);
    if (e) stop(f, e);
    else timer_start(f->watch, WATCH_MS);
}

static err outcome(Fetch *f, const Addr *to) {
    Ctx *c = f->c;
    if (f->failed) return f->failed;
    const char *address = to->text, *why = call_end_name(f->why);
    if (call_end_unsent(f->why) && f->why != CALL_TIMEOUT_CONNECT)
        return fail(c, ERR_UNAVAILABLE, R_FETCH_FAILED, "address", address, "why", why);
    switch (f->why) {
    case CALL_OK: return ERR_OK;
    case CALL_TIMEOUT_CONNECT:
    case CALL_TIMEOUT_FIRST:
    case CALL_TIMEOUT_IDLE:
        return fail(c, ERR_TIMEOUT, R_FETCH_FAILED, "address", address, "why", why);
    default: return fail(c, ERR_UPSTREAM, R_FETCH_FAILED, "address", address, "why", why);
    }
}

err http_fetch(Ctx *c, const CallSpec *spec, size_t max, bool (*sink)(void *arg, str piece),
               void *arg, FetchResult *out) {
    static const CallEvents events = { .head = on_head, .data = on_data, .end = on_end };
    FetchResult got = { 0 };
    Fetch f = { .c = c, .max = max, .on_data = sink, .arg = arg, .out = &got };
    assert(c->os && !spec->body_streams);
    TRY(ctx_check(c));
    TRY(loop_open(c, &f.loop));
    buf_init(&f.body, max);
    Client *client = client_new(f.loop, 0, 0);
    f.watch = timer_new(f.loop, on_watch, &f);
    timer_start(f.watch, WATCH_MS);
    f.call = call_start(client, spec, &events, &f);
    loop_run(f.loop);
    timer_free(f.watch);
    client_free(client);
    loop_free(f.loop);
    err e = outcome(&f, &spec->to);
    got.body = arena_str(c->mem, buf_str(&f.body));
    buf_done(&f.body);
    if (!e) *out = got;
    return e;
}
