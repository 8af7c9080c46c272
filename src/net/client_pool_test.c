// SPDX-License-Identifier: Apache-2.0
// client_pool_test.c - connections that are kept, found again, closed, and found dead.
#include "net/talk_test.h"

#define OK_1 "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n."

typedef struct Place { // a client and the upstream it talks to
    Line line;
    Addr to;
    int up;
    Buf head;
} Place;

static void place_open(Place *p, size_t idle_max, int64_t idle_ms) {
    p->up = up_listen(&p->to, 64);
    buf_init(&p->head, 1 << 16);
    line_open(&p->line, idle_max, idle_ms);
}
static void place_close(Place *p) {
    line_close(&p->line);
    raw_close(p->up);
    buf_done(&p->head);
}

// One whole call on a new connection, which is kept; its upstream side.
static int kept_connection(Place *p) {
    Talk t = { .spec = { .to = p->to } };
    talk_start(&p->line, &t);
    int fd = up_accept(p->up);
    if (fd < 0 || !up_request(fd, &p->head) || !raw_sendz(fd, OK_1) || !talk_wait(&t) || t.why)
        test_failed(__FILE__, __LINE__, "no first call");
    talk_done(&t);
    return fd;
}

TEST(net_pool_keeps_so_many) {
    enum { KEPT = 3, CALLS = 8 };
    Place p;
    place_open(&p, KEPT, 60000);
    Talk t[CALLS] = { 0 };
    int fd[CALLS], closed = 0;
    for (int i = 0; i < CALLS; i++) {
        t[i].spec.to = p.to;
        talk_start(&p.line, &t[i]);
        fd[i] = up_accept(p.up);
        CHECK(up_request(fd[i], &p.head));
    }
    for (int i = 0; i < CALLS; i++) {
        raw_sendz(fd[i], OK_1);
        CHECK(talk_wait(&t[i]));
        talk_done(&t[i]);
    }
    for (int i = 0; i < CALLS - KEPT; i++) closed += raw_ended(fd[i]); // the oldest go
    CHECK_INT(closed, CALLS - KEPT);
    for (int i = CALLS - KEPT; i < CALLS; i++) CHECK(!raw_readable(fd[i], 0));
    talk_forget(&p.line, &(Addr){ "127.0.0.1:1" }); // another address
    for (int i = CALLS - KEPT; i < CALLS; i++) CHECK(!raw_readable(fd[i], 0));
    talk_forget(&p.line, &p.to);
    for (int i = CALLS - KEPT; i < CALLS; i++) CHECK(raw_ended(fd[i]));
    for (int i = 0; i < CALLS; i++) raw_close(fd[i]);
    place_close(&p);
}

TEST(net_pool_has_no_part_in_a_single_call) {
    Place p;
    place_open(&p, 4, 60000);
    int kept = kept_connection(&p);
    Talk t = { .spec = { .to = p.to, .single = true } };
    talk_start(&p.line, &t);
    int fd = up_accept(p.up);
    CHECK(fd >= 0 && up_request(fd, &p.head));
    CHECK(str_find(buf_str(&p.head), S("\r\nConnection: close\r\n")) > 0);
    CHECK(raw_sendz(fd, OK_1) && talk_wait(&t) && !t.why);
    CHECK(raw_ended(fd)); // also when the other side would have kept it
    CHECK(!raw_readable(kept, 0));
    talk_done(&t);
    raw_close(fd), raw_close(kept);
    place_close(&p);
}

TEST(net_pool_closes_the_idle) {
    Place p;
    place_open(&p, 4, 80);
    int64_t from = now_ms();
    int fd = kept_connection(&p);
    CHECK(raw_ended(fd));
    CHECK(now_ms() - from >= 75);
    raw_close(fd);
    place_close(&p);
}

TEST(net_pool_leaves_what_ended_or_speaks) {
    Place p;
    place_open(&p, 4, 60000);
    int fd = kept_connection(&p);
    raw_sendz(fd, OK_1); // nobody asked
    CHECK(raw_ended(fd));
    raw_close(fd);
    raw_close(kept_connection(&p)); // the next call finds it closed, or never sees it
    fd = kept_connection(&p);
    raw_close(fd);
    place_close(&p);
}

// The upstream reads a request on a kept connection, then drops it without a byte of an answer.
TEST(net_dead_connection_is_repeated_once_when_safe) {
    static const struct {
        HttpMethod method;
        bool repeatable, repeated;
    } rows[] = { { HTTP_GET, false, true },    { HTTP_PUT, false, true },
                 { HTTP_DELETE, false, true }, { HTTP_POST, false, false },
                 { HTTP_PATCH, false, false }, { HTTP_POST, true, true } };
    static const size_t sizes[] = { 0, 10, 100000 };
    Place p;
    place_open(&p, 4, 60000);
    Ctx *c = test_ctx();
    for (size_t i = 0; i < countof(rows) * countof(sizes); i++) {
        int fd = kept_connection(&p);
        str body = test_bytes(c, sizes[i / countof(rows)]);
        Talk t = { .spec = { .to = p.to,
                             .method = rows[i % countof(rows)].method,
                             .repeatable = rows[i % countof(rows)].repeatable },
                   .body = body };
        talk_start(&p.line, &t);
        CHECK(up_request(fd, &p.head));
        CHECK_INT(raw_exactly(fd, body.n, NULL), body.n);
        if (i % 2) raw_reset(fd);
        else raw_close(fd);
        if (rows[i % countof(rows)].repeated) {
            fd = up_accept(p.up);
            CHECK(up_request(fd, &p.head));
            char *again = arena_alloc_raw(c->mem, body.n + 1);
            CHECK_INT(raw_exactly(fd, body.n, again), body.n);
            CHECK(memcmp(again, body.p, body.n) == 0);
            raw_close(fd); // twice is once too often
        }
        CHECK(talk_wait(&t));
        CHECK_INT(t.why, CALL_RESET);
        talk_done(&t);
        CHECK(!raw_readable(p.up, 0)); // nobody comes a third time
    }
    place_close(&p);
}

TEST(net_repeated_call_succeeds) {
    Place p;
    place_open(&p, 4, 60000);
    int fd = kept_connection(&p);
    Talk t = { .spec = { .to = p.to } };
    talk_start(&p.line, &t);
    CHECK(up_request(fd, &p.head));
    raw_close(fd);
    fd = up_accept(p.up);
    CHECK(up_request(fd, &p.head));
    raw_sendz(fd, OK_1);
    CHECK(talk_wait(&t));
    CHECK(t.why == CALL_OK && !t.reused);
    talk_done(&t);
    raw_close(fd);
    place_close(&p);
}

// A connection that dies before the request is out: nobody can have acted on it.
TEST(net_unsent_post_is_repeated) {
    Place p;
    place_open(&p, 4, 60000);
    Ctx *c = test_ctx();
    enum { SIZE = 30000000 };
    str body = test_bytes(c, SIZE);
    int fd = kept_connection(&p);
    Talk t = { .spec = { .to = p.to, .method = HTTP_POST }, .body = body };
    talk_start(&p.line, &t);
    CHECK(up_request(fd, &p.head));
    raw_reset(fd);
    fd = up_accept(p.up);
    CHECK(up_request(fd, &p.head));
    char *got = arena_alloc_raw(c->mem, SIZE);
    CHECK_INT(raw_exactly(fd, SIZE, got), SIZE);
    CHECK(memcmp(got, body.p, SIZE) == 0);
    raw_sendz(fd, OK_1);
    CHECK(talk_wait(&t));
    CHECK_INT(t.why, CALL_OK);
    talk_done(&t);
    raw_close(fd);
    place_close(&p);
}

// One byte of an answer, and nothing is repeated; neither is it on a new connection, nor when
// pieces of a streamed body are gone.
TEST(net_what_is_not_repeated) {
    Place p;
    place_open(&p, 4, 60000);
    for (int i = 0; i < 3; i++) {
        int fd = i == 1 ? -1 : kept_connection(&p);
        Talk t = { .spec = { .to = p.to, .method = i == 2 ? HTTP_PUT : HTTP_GET } };
        if (i == 2) t.spec.body_streams = true, t.body = S("piece");
        if (i == 1) talk_forget(&p.line, &p.to);
        talk_start(&p.line, &t);
        if (i == 1) fd = up_accept(p.up);
        CHECK(up_request(fd, &p.head));
        if (i == 0) raw_sendz(fd, "H");
        if (i == 2) CHECK_INT(raw_exactly(fd, 10, NULL), 10);
        raw_close(fd);
        CHECK(talk_wait(&t));
        CHECK_INT(t.why, CALL_RESET);
        talk_done(&t);
        CHECK(!raw_readable(p.up, 0));
    }
    place_close(&p);
}
