// SPDX-License-Identifier: Apache-2.0
// server_test.c - requests and answers over real sockets: keep-alive, pipelining, routes, methods.
#include "net/fixture_test.h"

TEST(net_hello) {
    Rig *r = rig_start(&(RigSpec){ 0 });
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

TEST(net_request_ids_are_ours_unless_plain) {
    static const char *const bad[] = { "",
                                       "a b",
                                       "a\tb",
                                       "\xc3\xa9",
                                       "a/b",
                                       "a\"b",
                                       "0123456789012345678901234567890123456789"
                                       "0123456789012345678901234567890123456789" };
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    Ctx *c = test_ctx();
    str seen[countof(bad)];
    for (size_t i = 0; i < countof(bad); i++) {
        Answer a = raw_ask(&r->addr,
                           say(c, "GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: %s\r\n\r\n", bad[i]));
        CHECK_INT(a.status, 200);
        seen[i] = answer_header(&a, "X-Request-Id");
        CHECK(str_starts(seen[i], S("req_")));
        for (size_t j = 0; j < i; j++) CHECK(!str_eq(seen[i], seen[j]));
    }
    rig_stop(r);
}

TEST(net_unix_socket) {
    Ctx *c = test_ctx();
    const char *path = say(c, "%s/s", test_dir());
    Rig *r = rig_start(&(RigSpec){ .unix_path = path });
    CHECK(r);
    Answer a = raw_ask(&r->addr, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_STR(a.body, "hello");
    rig_stop(r);
}

// ---- keep-alive, pipelining, HTTP/1.0

static void add_request(Buf *b, Ctx *c, unsigned i) {
    str body = test_bytes(c, i * 37 % 3000);
    const char *path = i % 4 == 1 ? "/echo" : i % 4 == 2 ? "/stream" : "/all";
    if (i % 4 == 0) {
        buf_printf(b, "GET /hello HTTP/1.1\r\nHost: a\r\nX-Request-Id: n%u\r\n\r\n", i);
        return;
    }
    buf_printf(b, "POST %s HTTP/1.1\r\nHost: a\r\nX-Request-Id: n%u\r\n", path, i);
    if (i % 3) {
        buf_printf(b, "Content-Length: %zu\r\n\r\n", body.n);
        buf_add(b, body);
    } else {
        test_add_chunked(b, body, 1 + i);
    }
}

// Pipelined requests of every kind, cut into random pieces: the answers come whole and in order.
TEST(net_pipelining_in_any_split) {
    enum { REQUESTS = 120 };
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    Ctx *c = test_ctx();
    Buf b;
    buf_init(&b, 16 << 20);
    for (unsigned i = 0; i < REQUESTS; i++) add_request(&b, c, i);
    int fd = raw_open(&r->addr);
    str left = buf_str(&b);
    for (size_t n; left.n; left = str_sub(left, n, left.n)) {
        n = 1 + test_random() % (test_random() % 4 ? 40 : 20000);
        CHECK(raw_send(fd, str_sub(left, 0, n)));
    }
    for (unsigned i = 0; i < REQUESTS; i++) {
        Answer a = raw_answer(fd);
        CHECK(a.status == 200 || (a.status == 204 && !a.body.n));
        CHECK_STR(answer_header(&a, "X-Request-Id"), say(c, "n%u", i));
        if (i % 4 == 0) CHECK_STR(a.body, "hello");
        else CHECK(str_eq(a.body, test_bytes(c, i * 37 % 3000)));
    }
    raw_close(fd);
    buf_done(&b);
    rig_stop(r);
}

TEST(net_http10_and_close) {
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    int fd = raw_open(&r->addr);
    raw_sendz(fd, "GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    Answer a = raw_answer(fd);
    CHECK_STR(answer_header(&a, "Connection"), "keep-alive");
    int both = raw_open(&r->addr); // "close" beats the other
    raw_sendz(both, "GET /hello HTTP/1.0\r\nConnection: close, keep-alive\r\n\r\n");
    a = raw_answer(both);
    CHECK_STR(answer_header(&a, "Connection"), "close");
    CHECK(raw_ended(both));
    raw_close(both);
    raw_sendz(fd, "POST /stream HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc");
    a = raw_answer(fd); // to its end: HTTP/1.0 knows no chunks
    CHECK_STR(a.body, "abc");
    CHECK(!a.chunked && !answer_header(&a, "Content-Length").p);
    CHECK_STR(answer_header(&a, "Connection"), "close");
    raw_close(fd);
    fd = raw_open(&r->addr);
    raw_sendz(fd,
              "GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /hello HTTP/1.1\r\n"
              "Host: a\r\n\r\n");
    a = raw_answer(fd);
    CHECK_STR(answer_header(&a, "Connection"), "close");
    CHECK_INT(raw_answer(fd).status, 0); // what follows is not answered
    raw_close(fd);
    rig_stop(r);
}

// ---- routes and methods

TEST(net_routes_over_the_wire) {
    static const struct {
        const char *target, *body;
    } rows[] = {
        { "/p/1/x", "/p/{a}/x 1" },
        { "/p/1/y", "/p/{a}/{b} 1 y" },
        { "/p/1/x/y/z", "/p/{a}/{b}/{rest*} 1 x y/z" },
        { "/p/a%2Fb/c%20d", "/p/{a}/{b} a/b c d" },
        { "/p/%78/%78", "/p/{a}/x x" },
        { "http://any.host:1/p/1/y?q", "/p/{a}/{b} 1 y" },
        { "/p/./q/../1/y", "/p/{a}/{b} 1 y" },
        { "/p/1/%2e%2e/2/y", "/p/{a}/{b} 2 y" },
    };
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    Ctx *c = test_ctx();
    for (size_t i = 0; i < countof(rows); i++) {
        Answer a = raw_ask(&r->addr, say(c, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", rows[i].target));
        CHECK_INT(a.status, 200);
        CHECK_STR(a.body, rows[i].body);
    }
    static const char *const bad[] = { "/..",        "/p/../../x", "/p/%2e%2e/%2e%2e/x",
                                       "/p/..%2f/x", "/p/%00/x",   "/p/%zz/x",
                                       "/p/%ff/x",   "/p/%/x",     "/p/a%2f../x" };
    for (size_t i = 0; i < countof(bad); i++)
        CHECK_INT(raw_ask(&r->addr, say(c, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", bad[i])).status,
                  400);
    rig_stop(r);
}

TEST(net_not_found_and_not_allowed) {
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    Answer a =
        raw_ask(&r->addr, "GET /nowhere HTTP/1.1\r\nHost: a\r\nAccept-Language: zh-CN\r\n\r\n");
    CHECK_INT(a.status, 404);
    CHECK(str_find(a.body, S("\"no_route\"")) > 0 && str_find(a.body, S("没有")) > 0);
    CHECK(!answer_header(&a, "Allow").p);
    a = raw_ask(&r->addr, "DELETE /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(a.status, 405);
    CHECK_STR(answer_header(&a, "Allow"), "GET, HEAD, PUT");
    a = raw_ask(&r->addr, "PROPFIND /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(a.status, 405);
    CHECK_INT(raw_ask(&r->addr, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").status, 404);
    CHECK_INT(raw_ask(&r->addr, "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n").status, 400);
    rig_stop(r);
}

TEST(net_head_has_no_body) {
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    int fd = raw_open(&r->addr);
    for (int i = 0; i < 3; i++) {
        raw_sendz(fd,
                  "HEAD /hello HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n"
                  "HEAD /nowhere HTTP/1.1\r\nHost: a\r\n\r\n");
        Answer a = raw_answer_to(fd, true);
        CHECK_INT(a.status, 200);
        CHECK_STR(answer_header(&a, "Content-Length"), "5");
        CHECK_STR(raw_answer(fd).body, "hello");
        CHECK_INT(raw_answer_to(fd, true).status, 404);
    }
    raw_close(fd);
    rig_stop(r);
}
