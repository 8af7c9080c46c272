// SPDX-License-Identifier: Apache-2.0
// body_test.c - bodies of requests over real sockets: whole, limited, spooled, refused, promised
// and never sent; and "100 Continue".
#include "net/fixture_test.h"

typedef struct Held {
    Rig *rig;
    int64_t most;
} Held;
static bool holds_less(void *arg) {
    const Held *h = arg;
    return server_counts(h->rig->server).bytes_in_flight < h->most;
}
static bool wait_held(Rig *r, int64_t most) { return wait_until(holds_less, &(Held){ r, most }); }

TEST(net_bodies_come_back_whole) {
    static const size_t sizes[] = {
        0, 1, 100, 4095, 65536, 200000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20
    };
    static const char *const paths[] = { "/echo", "/stream", "/all", "/sipping" };
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    Ctx *c = test_ctx();
    Buf b;
    buf_init(&b, 16 << 20);
    int fd = raw_open(&r->addr);
    for (size_t i = 0; i < countof(sizes) * countof(paths) * 2; i++) {
        const char *path = paths[i % countof(paths)];
        bool chunked = i / countof(paths) % 2, echoes = strcmp(path, "/echo") == 0;
        str body = test_bytes(c, sizes[i / countof(paths) / 2]);
        if (i % countof(paths) > 1 && body.n > 200000) continue;
        buf_clear(&b);
        buf_printf(&b, "POST %s HTTP/1.1\r\nHost: a\r\n", path);
        if (chunked) test_add_chunked(&b, body, 1000 + i * 977);
        else buf_printf(&b, "Content-Length: %zu\r\n\r\n", body.n);
        if (!chunked) buf_add(&b, body);
        CHECK(raw_send(fd, buf_str(&b)));
        Answer a = raw_answer(fd);
        CHECK_INT(a.status, echoes && !body.n ? 204 : 200);
        CHECK_INT(a.body.n, body.n);
        CHECK(str_eq(a.body, body));
        if (echoes)
            CHECK_STR(answer_header(&a, "X-Spooled"), body.n > HTTP_BODY_MEMORY ? "yes" : "no");
    }
    raw_close(fd);
    buf_done(&b);
    rig_stop(r);
    str *names;
    size_t names_n;
    c->os = os_real();
    CHECK_OK(c, dir_list(c, str_z(test_dir()), &names, &names_n));
    CHECK_INT(names_n, 0); // no spool file is left
}

TEST(net_missing_spool_folder_is_our_fault) {
    Rig *r = rig_start(&(RigSpec){ .config = { .spool_dir = S("/nonexistent") } });
    CHECK(r);
    int fd = raw_open(&r->addr);
    raw_sendz(fd, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\nabc");
    CHECK_INT(raw_answer(fd).status, 500);
    raw_close(fd);
    rig_stop(r);
}

TEST(net_body_limits) {
    static const struct {
        const char *head;
        int status;
    } rows[] = {
        { "PUT /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789", 200 },
        { "PUT /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n0123456789a", 413 },
        { "PUT /hello HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
          "a\r\n0123456789\r\n0\r\n\r\n",
          200 },
        { "PUT /hello HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
          "a\r\n0123456789\r\n1\r\na\r\n0\r\n\r\n",
          413 },
        { "GET /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 200 },
        { "GET /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na", 413 },
        { "GET /hello HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 413 },
        { "POST /all HTTP/1.1\r\nHost: a\r\nContent-Length: 200001\r\n\r\n", 413 },
    };
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    for (size_t i = 0; i < countof(rows); i++) {
        int fd = raw_open(&r->addr);
        raw_sendz(fd, rows[i].head);
        if (i == 7) raw_send(fd, test_bytes(test_ctx(), 1000));
        CHECK_INT(raw_answer(fd).status, rows[i].status);
        raw_close(fd);
    }
    rig_stop(r);
}

// A refused request with a short body does not cost its client the connection.
TEST(net_refused_body_is_read_when_short) {
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    int fd = raw_open(&r->addr);
    for (int i = 0; i < 3; i++) {
        raw_sendz(fd, "POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
        Answer a = raw_answer(fd); // before the body is here
        CHECK_INT(a.status, 404);
        CHECK(!answer_header(&a, "Connection").p);
        raw_sendz(fd, "abcde");
    }
    raw_sendz(fd, "POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n");
    Answer a = raw_answer(fd);
    CHECK_STR(answer_header(&a, "Connection"), "close");
    raw_close(fd);
    rig_stop(r);
}

TEST(net_continue_only_when_wanted) {
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    static const char *const wants[] = { "/echo", "/stream", "/all" };
    int fd = raw_open(&r->addr);
    for (size_t i = 0; i < countof(wants); i++) {
        raw_sendz(fd, say(test_ctx(),
                          "POST %s HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
                          "Content-Length: 3\r\n\r\n",
                          wants[i]));
        CHECK_INT(raw_answer(fd).status, 100);
        raw_sendz(fd, "abc");
        Answer a = raw_answer(fd);
        CHECK_INT(a.status, 200);
        CHECK_STR(a.body, "abc");
    }
    raw_close(fd);
    // A client that does not wait gets no needless 100.
    fd = raw_open(&r->addr);
    raw_sendz(fd, "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n"
                  "\r\nabc");
    Answer a = raw_answer(fd);
    CHECK(a.status == 200 || a.status == 100); // the head may arrive alone
    raw_close(fd);
    // A refused upload has its answer before one byte of it is sent.
    static const char *const refused[] = { "PUT /hello", "POST /nowhere", "PATCH /hello" };
    for (size_t i = 0; i < countof(refused); i++) {
        a = raw_ask(&r->addr, say(test_ctx(),
                                  "%s HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
                                  "Content-Length: 100\r\n\r\n",
                                  refused[i]));
        CHECK(a.status >= 400 && a.status < 500);
        CHECK_STR(answer_header(&a, "Connection"), "close");
    }
    atomic_store(&r->deny, true);
    a = raw_ask(&r->addr, "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
                          "Content-Length: 100\r\n\r\n");
    CHECK_INT(a.status, 401);
    a = raw_ask(&r->addr, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n");
    CHECK_INT(a.status, 401);
    a = raw_ask(&r->addr, "POST /stream HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
                          "Content-Length: 100\r\n\r\n");
    CHECK_INT(a.status, 401);
    a = raw_ask(&r->addr,
                "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: more\r\nContent-Length: 1\r\n\r\n");
    CHECK_INT(a.status, 400);
    rig_stop(r);
}

// Who is not let in is told so by the head alone: nothing of what he sends is kept, however many of
// him there are, and a short rest does not cost him the connection.
TEST(net_bodies_of_strangers_are_not_kept) {
    enum { STRANGERS = 20, SIZE = 60000 };
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    str head = arena_printf(test_ctx()->mem,
                            "POST /gate HTTP/1.1\r\nHost: a\r\nContent-Length: %d"
                            "\r\n\r\n",
                            SIZE);
    str body = test_bytes(test_ctx(), SIZE);
    int fds[STRANGERS];
    atomic_store(&r->deny, true);
    for (size_t i = 0; i < STRANGERS; i++) {
        fds[i] = raw_open(&r->addr);
        CHECK(raw_send(fds[i], head) && raw_send(fds[i], str_sub(body, 0, SIZE - 1)));
    }
    for (size_t i = 0; i < STRANGERS; i++) {
        Answer a = raw_answer(fds[i]);
        CHECK_INT(a.status, 401);
        CHECK(!str_ieq(answer_header(&a, "Connection"), S("close")));
    }
    CHECK(wait_held(r, SIZE));
    atomic_store(&r->deny, false);
    for (size_t i = 0; i < STRANGERS; i++) {
        CHECK(raw_sendz(fds[i], "!GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"));
        CHECK_INT(raw_answer(fds[i]).status, 200);
        raw_close(fds[i]);
    }
    rig_stop(r);
}

// The client promises a body and leaves: the handler never runs, and nobody is answered.
TEST(net_false_content_length) {
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    static const char *const paths[] = { "/echo", "/stream", "/all" };
    for (size_t i = 0; i < countof(paths); i++) {
        int fd = raw_open(&r->addr);
        raw_sendz(fd,
                  say(test_ctx(), "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc",
                      paths[i]));
        raw_close(fd);
        CHECK(wait_int(&r->left, (int)i + 1));
        CHECK_INT(atomic_load(&r->left_status), 499);
    }
    CHECK_INT(atomic_load(&r->entered), 3);
    CHECK_INT(atomic_load(&test_app.running), 0);
    int fd = raw_open(&r->addr); // half of a head
    raw_sendz(fd, "GET /hello HT");
    raw_close(fd);
    CHECK(wait_int(&r->left, 4));
    CHECK_INT(atomic_load(&r->left_sent), 0);
    rig_stop(r);
}
