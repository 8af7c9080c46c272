// SPDX-License-Identifier: Apache-2.0
// server_test.c - requests and answers over real sockets: routing, keep-alive, pipelining, bodies
// both ways, replies, limits.
#include "net/fixture_test.h"
#include <assert.h>

// ---- handlers

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

static const NetRoute *const routes[] = {
    &(const NetRoute){ HTTP_GET, "/", 0, 0, hello, NULL, NULL },
    &(const NetRoute){ HTTP_GET, "/hello", 0, 0, hello, NULL, NULL },
    &(const NetRoute){ HTTP_PUT, "/hello", 10, 0, hello, NULL, NULL },
    &(const NetRoute){ HTTP_GET, "/p/{a}/x", 0, 0, params, NULL, NULL },
    &(const NetRoute){ HTTP_GET, "/p/{a}/{b}", 0, 0, params, NULL, NULL },
    &(const NetRoute){ HTTP_GET, "/p/{a}/{b}/{rest*}", 0, 0, params, NULL, NULL },
    &(const NetRoute){ HTTP_POST, "/echo", 8 << 20, 0, echo, NULL, NULL },
    &(const NetRoute){ HTTP_POST, "/stream", 64 << 20, 0, NULL, stream_echo, NULL },
    &(const NetRoute){ HTTP_POST, "/all", 64 << 20, 0, NULL, all_echo, NULL },
};

static Rig *rig(void) {
    return rig_start(&(RigSpec){ .routes = routes, .routes_n = countof(routes) });
}

TEST(net_hello) {
    Rig *r = rig();
    CHECK(r);
    Answer a = raw_ask(&r->addr, "GET /hello HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine-1\r\n\r\n");
    CHECK_INT(a.status, 200);
    CHECK_STR(a.body, "hello");
    CHECK_STR(answer_header(&a, "Content-Type"), "text/plain");
    CHECK_STR(answer_header(&a, "Content-Length"), "5");
    CHECK_STR(answer_header(&a, "X-Request-Id"), "mine-1");
    CHECK(answer_header(&a, "Date").n == 29);
    CHECK(!answer_header(&a, "Connection").p);
    rig_stop(r);
}

static str pattern_bytes(Ctx *c, size_t n) {
    char *p = arena_alloc_raw(c->mem, n + 1);
    for (size_t i = 0; i < n; i++) p[i] = (char)(i * 2654435761u >> 13);
    return str_n(p, n);
}

static bool send_chunked(int fd, const char *head, str body, size_t piece) {
    Buf b;
    buf_init(&b, 256 << 20);
    buf_printf(&b, "%sTransfer-Encoding: chunked\r\n\r\n", head);
    for (size_t at = 0; at < body.n; at += piece) {
        str part = str_sub(body, at, piece);
        buf_printf(&b, "%zx\r\n", part.n);
        buf_add(&b, part);
        buf_add(&b, S("\r\n"));
    }
    buf_add(&b, S("0\r\n\r\n"));
    bool good = raw_send(fd, buf_str(&b));
    buf_done(&b);
    return good;
}

TEST(net_bodies_come_back_whole) {
    static const size_t sizes[] = {
        0, 1, 100, 4095, 65536, 200000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20
    };
    static const char *const paths[] = { "/echo", "/stream", "/all" };
    Rig *r = rig();
    CHECK(r);
    Ctx *c = test_ctx();
    int fd = raw_open(&r->addr);
    for (size_t i = 0; i < countof(sizes) * countof(paths) * 2; i++) {
        const char *path = paths[i % countof(paths)];
        bool chunked = i / countof(paths) % 2;
        str body = pattern_bytes(c, sizes[i / countof(paths) / 2]);
        if (strcmp(path, "/all") == 0 && body.n > 200000) continue;
        const char *head = say(c, "POST %s HTTP/1.1\r\nHost: a\r\n", path);
        if (chunked) CHECK(send_chunked(fd, head, body, 1000 + i * 977));
        else {
            CHECK(raw_sendz(fd, say(c, "%sContent-Length: %zu\r\n\r\n", head, body.n)));
            CHECK(raw_send(fd, body));
        }
        Answer a = raw_answer(fd);
        CHECK_INT(a.status, 200 + (strcmp(path, "/echo") == 0 && !body.n ? 4 : 0));
        CHECK_INT(a.body.n, body.n);
        CHECK(str_eq(a.body, body));
        if (strcmp(path, "/echo") == 0)
            CHECK_STR(answer_header(&a, "X-Spooled"), body.n > HTTP_BODY_MEMORY ? "yes" : "no");
    }
    raw_close(fd);
    rig_stop(r);
}
