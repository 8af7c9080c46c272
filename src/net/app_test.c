// SPDX-License-Identifier: Apache-2.0
// app_test.c - the application of net's tests: one handler of each kind. What it saw is in
// test_app.
#include "net/fixture_test.h"
#include <assert.h>
#include <poll.h>

static err hello(Ctx *c, const NetRoute *route, const HttpRequest *r, const HttpBody *body,
                 HttpReply *out) {
    (void)c, (void)route, (void)r, (void)body;
    out->type = "text/plain";
    buf_add(&out->body, S("hello"));
    return ERR_OK;
}

static err params(Ctx *c, const NetRoute *route, const HttpRequest *r, const HttpBody *body,
                  HttpReply *out) {
    (void)c, (void)body;
    buf_printf(&out->body, "%s", route->pattern);
    for (size_t i = 0; i < r->params_n; i++)
        buf_printf(&out->body, " " STR_FMT, STR_ARG(r->params[i]));
    return ERR_OK;
}

// Gives back what it got, and says how it came.
static err echo(Ctx *c, const NetRoute *route, const HttpRequest *r, const HttpBody *body,
                HttpReply *out) {
    (void)route, (void)r;
    http_reply_header(c, out, "X-Spooled", body->spool ? S("yes") : S("no"));
    out->type = "application/octet-stream";
    if (!body->spool) {
        assert(body->size == (int64_t)body->bytes.n);
        buf_add(&out->body, body->bytes);
        return ERR_OK;
    }
    char *at = buf_reserve(&out->body, (size_t)body->size);
    size_t got;
    TRY(file_read_at(c, body->spool, 0, at, (size_t)body->size, &got));
    buf_commit(&out->body, got);
    return ERR_OK;
}

static void stream_body(void *arg, struct evbuffer *chunk, bool last) {
    Exchange *x = arg;
    if (!exchange_began(x)) exchange_begin(x, 200, NULL, 0, -1);
    exchange_write_buffer(x, chunk);
    if (last) exchange_end(x);
}
static void stream_echo(Exchange *x, const NetRoute *route) {
    (void)route;
    exchange_events(x, &(ExchangeEvents){ .body = stream_body }, x);
}

static void all_done(void *arg, err e, str body) {
    Exchange *x = arg;
    if (e) exchange_refuse(x);
    else exchange_reply(x, 200, "application/octet-stream", body);
}
static void all_echo(Exchange *x, const NetRoute *route) {
    (void)route;
    exchange_read_all(x, 200000, all_done, x);
}

// ---- handlers that take their time

TestApp test_app;

// Waits for the gate, or until nobody wants the answer.
static err gate(Ctx *c, const NetRoute *route, const HttpRequest *r, const HttpBody *body,
                HttpReply *out) {
    (void)route, (void)r, (void)body;
    atomic_fetch_add(&test_app.running, 1);
    while (!atomic_load(&test_app.gate) && !ctx_cancelled(c)) poll(NULL, 0, 1);
    atomic_fetch_add(&test_app.cancelled, ctx_cancelled(c));
    atomic_fetch_add(&test_app.passed, 1);
    buf_add(&out->body, S("through"));
    return ERR_OK;
}

static err failing(Ctx *c, const NetRoute *route, const HttpRequest *r, const HttpBody *body,
                   HttpReply *out) {
    static const Reason why = { "limited", "slow down", "慢一点" };
    (void)route, (void)r, (void)body;
    buf_add(&out->body, S("half an answer"));
    (void)fail(c, ERR_LIMITED, why);
    c->failure.retry_after_ms = 2500;
    return ERR_LIMITED;
}

static err tagged(Ctx *c, const NetRoute *route, const HttpRequest *r, const HttpBody *body,
                  HttpReply *out) {
    (void)c, (void)route, (void)r, (void)body;
    out->etag = S("\"t1\"");
    buf_add(&out->body, S("tagged"));
    return ERR_OK;
}

// The file that rig_file made, from byte 3 on.
static err file(Ctx *c, const NetRoute *route, const HttpRequest *r, const HttpBody *body,
                HttpReply *out) {
    (void)route, (void)r, (void)body;
    TRY(file_open(c, arena_printf(c->mem, "%s/file", test_dir()), FILE_READ, &out->file));
    out->file_offset = 3;
    out->file_size = atomic_load(&test_app.file_size);
    out->etag = S("\"f1\"");
    out->type = "application/octet-stream";
    http_reply_header(c, out, "Content-Disposition", S("x\r\nSet-Cookie: y"));
    return ERR_OK;
}

typedef struct Pull {
    int64_t left, fail_at;
} Pull;
static err pull(Ctx *c, void *arg, Buf *out, bool *more) {
    Pull *p = arg;
    static const Reason why = { "broken", "it broke", "坏了" };
    atomic_fetch_add(&test_app.pulls, 1);
    if (p->left == p->fail_at) return fail(c, ERR_INTERNAL, why);
    if (p->left > 0) buf_add_repeat(out, 'a' + (char)(p->left % 26), 10000);
    *more = --p->left > 0;
    return ERR_OK;
}
static void pull_done(void *arg) {
    mem_free(arg);
    atomic_fetch_add(&test_app.pulls_done, 1);
}
// /pull/{n}/{fail_at}: n pieces; an error when so many are left.
static err pulling(Ctx *c, const NetRoute *route, const HttpRequest *r, const HttpBody *body,
                   HttpReply *out) {
    (void)c, (void)route, (void)body;
    Pull *p = mem_new(sizeof *p);
    str_to_i64(r->params[0], &p->left);
    str_to_i64(r->params[1], &p->fail_at);
    out->pull = pull, out->pull_done = pull_done, out->pull_arg = p;
    atomic_fetch_add(&test_app.pulls_begun, 1);
    return ERR_OK;
}

// ---- streams

static void on_gone(void *arg) {
    (void)arg;
    atomic_fetch_add(&test_app.gone, 1);
}

// Never answers by itself; the test may end the latest one.
static void hang(Exchange *x, const NetRoute *route) {
    (void)route;
    exchange_events(x, &(ExchangeEvents){ .gone = on_gone }, x);
    atomic_store(&test_app.hanging, x);
    atomic_fetch_add(&test_app.running, 1);
}
static void hang_begun(Exchange *x, const NetRoute *route) {
    hang(x, route);
    exchange_begin(x, 200, NULL, 0, -1);
    exchange_write(x, S("part"));
}

static void sse(Exchange *x, const NetRoute *route) {
    hang(x, route);
    exchange_sse_begin(x, &(HttpHeader){ S("X-Own"), S("1") }, 1, 30);
    exchange_sse(x, "greeting", S("7"), S("a\nb\r\nc\rd"));
    exchange_sse(x, NULL, (str){ 0 }, S(""));
    exchange_sse_comment(x, S("note"));
}

// As much as the query's length says, never with much more than a mark outstanding.
typedef struct Flood {
    Exchange *x;
    int64_t left;
} Flood;
static void flood_more(void *arg) {
    Flood *f = arg;
    static const char bytes[16384];
    while (f->left && exchange_pending(f->x) < 200000) {
        size_t n = f->left < (int64_t)sizeof bytes ? (size_t)f->left : sizeof bytes;
        exchange_write(f->x, str_n(bytes, n));
        f->left -= (int64_t)n;
    }
    int pending = (int)exchange_pending(f->x);
    if (pending > atomic_load(&test_app.pending_most))
        atomic_store(&test_app.pending_most, pending);
    if (!f->left) exchange_end(f->x);
}
static void flood(Exchange *x, const NetRoute *route) {
    (void)route;
    const HttpRequest *r = exchange_request(x);
    Flood *f = new (exchange_ctx(x)->mem, Flood, 1);
    f->x = x;
    str_to_i64(r->params[0], &f->left);
    exchange_events(x, &(ExchangeEvents){ .drained = flood_more, .gone = on_gone }, f);
    exchange_begin(x, 200, NULL, 0, f->left);
    flood_more(f);
}

// Leaves every body in the chunk until the gate opens.
static void holds_body(void *arg, struct evbuffer *chunk, bool last) {
    Exchange *x = arg;
    int n = (int)evbuffer_get_length(chunk);
    if (n > atomic_load(&test_app.pending_most)) atomic_store(&test_app.pending_most, n);
    if (!atomic_load(&test_app.gate)) return;
    atomic_fetch_add(&test_app.taken, n);
    evbuffer_drain(chunk, (size_t)n);
    if (last) exchange_reply(x, 200, NULL, S("taken"));
}
static void holding(Exchange *x, const NetRoute *route) {
    (void)route;
    exchange_events(x, &(ExchangeEvents){ .body = holds_body, .gone = on_gone }, x);
    atomic_store(&test_app.hanging, x);
    atomic_fetch_add(&test_app.running, 1);
}

// Takes a little of the body at a time, and pauses in between.
typedef struct Sips {
    Exchange *x;
    Timer *again;
    struct evbuffer *got;
} Sips;
static void sip_again(void *arg) { exchange_pause(((Sips *)arg)->x, false); }
static void sips_done(void *arg) {
    Sips *s = arg;
    timer_free(s->again);
    evbuffer_free(s->got);
}
static void sip(void *arg, struct evbuffer *chunk, bool last) {
    Sips *s = arg;
    evbuffer_remove_buffer(chunk, s->got, 700);
    if (last && !evbuffer_get_length(chunk)) {
        exchange_begin(s->x, 200, NULL, 0, (int64_t)evbuffer_get_length(s->got));
        exchange_write_buffer(s->x, s->got);
        exchange_end(s->x);
        return;
    }
    exchange_pause(s->x, true);
    timer_start(s->again, 0);
}
static void sipping(Exchange *x, const NetRoute *route) {
    (void)route;
    Sips *s = new (exchange_ctx(x)->mem, Sips, 1);
    *s = (Sips){ x, timer_new(exchange_loop(x), sip_again, s), evbuffer_new() };
    arena_defer(exchange_ctx(x)->mem, sips_done, s);
    exchange_events(x, &(ExchangeEvents){ .body = sip, .gone = on_gone }, s);
}

// Keeps the exchange's memory for a while after the client has gone, as work on the pool would.
static void held_over(void *arg) {
    Exchange *x = arg;
    if (exchange_request(x)->request_id.n && exchange_ctx(x)->mem) exchange_release(x);
    atomic_fetch_add(&test_app.released, 1);
}
static void held_gone(void *arg) {
    on_gone(arg);
    loop_post(exchange_loop(arg), held_over, arg);
}
static void held(Exchange *x, const NetRoute *route) {
    (void)route;
    exchange_hold(x);
    exchange_events(x, &(ExchangeEvents){ .gone = held_gone }, x);
    atomic_fetch_add(&test_app.running, 1);
}

static void aborting(Exchange *x, const NetRoute *route) {
    (void)route;
    exchange_begin(x, 200, NULL, 0, 100);
    exchange_write(x, S("less"));
    exchange_abort(x);
}
static void lying(Exchange *x, const NetRoute *route) {
    (void)route;
    exchange_begin(x, 200, NULL, 0, 100);
    exchange_write(x, S("less"));
    exchange_end(x);
}

#define SERVE(m, p, max, ms, fn) \
    &(const NetRoute) { HTTP_##m, p, max, ms, fn, NULL, NULL }
#define STREAM(m, p, max, ms, fn) \
    &(const NetRoute) { HTTP_##m, p, max, ms, NULL, fn, NULL }
const NetRoute *const app_routes[] = {
    SERVE(GET, "/", 0, 0, hello),
    SERVE(GET, "/hello", 0, 0, hello),
    SERVE(PUT, "/hello", 10, 0, hello),
    SERVE(GET, "/p/{a}/x", 0, 0, params),
    SERVE(GET, "/p/{a}/{b}", 0, 0, params),
    SERVE(GET, "/p/{a}/{b}/{rest*}", 0, 0, params),
    SERVE(POST, "/echo", 8 << 20, 0, echo),
    STREAM(POST, "/stream", 64 << 20, 0, stream_echo),
    STREAM(POST, "/all", 64 << 20, 0, all_echo),
    SERVE(GET, "/gate", 0, 0, gate),
    SERVE(POST, "/gate", 8 << 20, 0, gate),
    SERVE(GET, "/gate-timed", 0, 60, gate),
    SERVE(GET, "/failing", 0, 0, failing),
    SERVE(GET, "/tagged", 0, 0, tagged),
    SERVE(GET, "/file", 0, 0, file),
    SERVE(GET, "/pull/{n}/{fail}", 0, 0, pulling),
    STREAM(GET, "/hang", 0, 0, hang),
    STREAM(POST, "/hang", 1 << 20, 0, hang),
    STREAM(GET, "/hang-begun", 0, 0, hang_begun),
    STREAM(GET, "/hang-timed", 0, 60, hang),
    STREAM(GET, "/begun-timed", 0, 60, hang_begun),
    STREAM(GET, "/sse", 0, 0, sse),
    STREAM(GET, "/flood/{n}", 0, 0, flood),
    STREAM(POST, "/holding", 64 << 20, 0, holding),
    STREAM(POST, "/sipping", 1 << 20, 0, sipping),
    STREAM(GET, "/held", 0, 0, held),
    STREAM(GET, "/held-timed", 0, 60, held),
    STREAM(GET, "/aborting", 0, 0, aborting),
    STREAM(GET, "/lying", 0, 0, lying),
};
const size_t app_routes_n = countof(app_routes);

// ---- bytes of tests

str test_bytes(Ctx *c, size_t n) {
    char *p = arena_alloc_raw(c->mem, n + 1);
    for (size_t i = 0; i < n; i++) p[i] = (char)(i * 2654435761u >> 13);
    return str_n(p, n);
}

void test_add_chunked(Buf *b, str body, size_t piece) {
    buf_add(b, S("Transfer-Encoding: chunked\r\n\r\n"));
    for (size_t at = 0; at < body.n; at += piece) {
        str part = str_sub(body, at, piece);
        buf_printf(b, "%zx\r\n", part.n);
        buf_add(b, part);
        buf_add(b, S("\r\n"));
    }
    buf_add(b, S("0\r\n\r\n"));
}
