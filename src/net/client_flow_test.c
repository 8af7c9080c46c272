// SPDX-License-Identifier: Apache-2.0
// client_flow_test.c - back-pressure both ways, cancelling, time-outs, connections that cannot be
// made.
#include "net/talk_test.h"

#define OK_1 "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n."

typedef struct Place {
    Line line;
    Addr to;
    int up;
    Buf head;
} Place;

static void place_open(Place *p) {
    p->up = up_listen(&p->to, 64);
    buf_init(&p->head, 1 << 16);
    line_open(&p->line, 4, 60000);
}
static void place_close(Place *p) {
    line_close(&p->line);
    raw_close(p->up);
    buf_done(&p->head);
}
static int begun(Place *p, Talk *t) {
    t->spec.to = p->to;
    talk_start(&p->line, t);
    int fd = up_accept(p->up);
    return fd >= 0 && up_request(fd, &p->head) ? fd : -1;
}

// ---- back-pressure

// Whatever the framing, the packets and the appetite: the same bytes come out.
TEST(net_client_takes_in_any_portions) {
    Place p;
    place_open(&p);
    Ctx *c = test_ctx();
    for (int i = 0; i < 24; i++) {
        str body = test_bytes(c, test_random() % 60000);
        Talk t = { .take_most = i % 3 ? 1 + test_random() % 3000 : 0, .pauses = i % 4 == 1 };
        int fd = begun(&p, &t);
        CHECK(fd >= 0);
        Buf b;
        buf_init(&b, 1 << 20);
        buf_add(&b, S("HTTP/1.1 200 OK\r\n"));
        if (i % 2) test_add_chunked(&b, body, 1 + test_random() % 5000);
        else {
            buf_printf(&b, "Content-Length: %zu\r\n\r\n", body.n);
            buf_add(&b, body);
        }
        str rest = buf_str(&b);
        for (size_t n; rest.n; rest = str_sub(rest, n, rest.n)) {
            n = 1 + test_random() % 9000;
            raw_send(fd, str_sub(rest, 0, n));
        }
        CHECK(talk_wait(&t));
        CHECK_INT(t.why, CALL_OK);
        CHECK(str_eq(buf_str(&t.answer), body));
        talk_done(&t);
        buf_done(&b);
        talk_forget(&p.line, &p.to);
        raw_close(fd);
    }
    place_close(&p);
}

TEST(net_client_holds_the_upstream_back) {
    Place p;
    place_open(&p);
    Ctx *c = test_ctx();
    enum { SIZE = 30000000 };
    str body = test_bytes(c, SIZE);
    Talk t = { .hold = true };
    int fd = begun(&p, &t);
    raw_sendz(fd, say(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", SIZE));
    size_t sent = raw_push(fd, body);
    CHECK(sent < SIZE && atomic_load(&t.got) == 0);
    talk_resume(&t);
    CHECK(raw_send(fd, str_sub(body, sent, SIZE)));
    CHECK(talk_wait(&t));
    CHECK_INT(t.why, CALL_OK);
    CHECK(str_eq(buf_str(&t.answer), body));
    talk_done(&t);
    raw_close(fd);
    place_close(&p);
}

// The answer is complete and its connection gone; the end waits until everything is taken.
TEST(net_client_ends_after_the_last_byte_is_taken) {
    Place p;
    place_open(&p);
    for (int i = 0; i < 2; i++) {
        Talk t = { .hold = true };
        int fd = begun(&p, &t);
        raw_sendz(fd, i ? "HTTP/1.1 200 OK\r\n\r\nhello"
                        : "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        raw_close(fd);
        CHECK(wait_int(&t.datas, 1));
        wait_ms(20);
        CHECK_INT(atomic_load(&t.ended), 0);
        talk_resume(&t);
        CHECK(talk_wait(&t));
        CHECK_INT(t.why, CALL_OK);
        CHECK_STR(buf_str(&t.answer), "hello");
        talk_done(&t);
    }
    place_close(&p);
}

TEST(net_client_streams_a_body) {
    Place p;
    place_open(&p);
    Ctx *c = test_ctx();
    enum { SIZE = 20000000 };
    Talk t = { .spec = { .method = HTTP_POST, .body_streams = true }, .body = test_bytes(c, SIZE) };
    int fd = begun(&p, &t);
    CHECK(str_find(buf_str(&p.head), S("Transfer-Encoding: chunked\r\n")) > 0);
    raw_quiet(fd); // the upstream reads nothing: writing stops
    CHECK(t.written < SIZE / 2);
    char *got = arena_alloc_raw(c->mem, SIZE + 100);
    for (size_t at = 0; at < SIZE; at += 10000) {
        char line[6];
        CHECK_INT(raw_exactly(fd, 6, line), 6);
        CHECK(memcmp(line, "2710\r\n", 6) == 0);
        CHECK_INT(raw_exactly(fd, 10000, got + at), 10000);
        CHECK_INT(raw_exactly(fd, 2, line), 2);
    }
    char last[5];
    CHECK_INT(raw_exactly(fd, 5, last), 5);
    CHECK(memcmp(last, "0\r\n\r\n", 5) == 0 && memcmp(got, t.body.p, SIZE) == 0);
    raw_sendz(fd, OK_1);
    CHECK(talk_wait(&t));
    CHECK_INT(t.why, CALL_OK);
    talk_done(&t);
    raw_close(fd);
    place_close(&p);
}

// ---- cancelling

// The upstream sees its caller leave at once, whatever the call was at, and no event follows.
TEST(net_cancel_closes_upstream_at_once) {
    Place p;
    place_open(&p);
    for (int i = 0; i < 5; i++) {
        Talk t = { .hold = i == 2 };
        if (i == 3) t.spec = (CallSpec){ .method = HTTP_POST, .body_streams = true };
        if (i == 3) t.body = test_bytes(test_ctx(), 9000000);
        int fd = begun(&p, &t);
        CHECK(fd >= 0);
        if (i) raw_sendz(fd, "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhello");
        if (i) CHECK(wait_int(&t.datas, 1));
        if (i == 4) talk_pause(&t);
        if (i == 3) raw_quiet(fd);
        int64_t from = now_ms();
        talk_cancel(&t);
        if (i == 3) CHECK(raw_ended(fd)); // after what the kernel has
        else CHECK(up_closed_within(fd, 100));
        CHECK(now_ms() - from < test_longer(i == 3 ? 5000 : 100));
        CHECK_INT(atomic_load(&t.ended), 0);
        raw_close(fd);
        talk_done(&t);
    }
    Talk inside = { .cancels = true };
    int fd = begun(&p, &inside);
    raw_sendz(fd, "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhello");
    CHECK(wait_int(&inside.ended, 1));
    CHECK(up_closed_within(fd, 100));
    CHECK_INT(atomic_load(&inside.datas), 1);
    talk_done(&inside);
    raw_close(fd);
    place_close(&p);
}

TEST(net_client_free_cancels_silently) {
    Place p;
    place_open(&p);
    Talk t[3];
    memset(t, 0, sizeof t);
    t[1].hold = true;
    t[2].spec.method = HTTP_POST, t[2].spec.body_streams = true;
    int fd[3];
    for (int i = 0; i < 3; i++) fd[i] = begun(&p, &t[i]);
    raw_sendz(fd[1], "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhello");
    CHECK(wait_int(&t[1].datas, 1));
    for (int i = 0; i < 3; i++) talk_done(&t[i]); // their timers only
    place_close(&p);
    for (int i = 0; i < 3; i++) {
        CHECK(raw_ended(fd[i]));
        CHECK_INT(atomic_load(&t[i].ended), 0);
        raw_close(fd[i]);
    }
}

// ---- time, and connections that cannot be made

TEST(net_call_timeouts) {
    static const struct {
        const char *answer;
        int64_t first, idle;
        CallEnd why;
    } rows[] = {
        { "", 100, 0, CALL_TIMEOUT_FIRST },
        { "", 100, 50, CALL_TIMEOUT_FIRST }, // waiting for the first byte is not being idle
        { "HTTP/1.1 200 O", 0, 100, CALL_TIMEOUT_IDLE },
        { "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", 50, 100, CALL_TIMEOUT_IDLE },
        { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", 50, 100,
          CALL_TIMEOUT_IDLE },
        { "HTTP/1.1 100 Continue\r\n\r\n", 100, 0, CALL_TIMEOUT_FIRST },
    };
    Place p;
    place_open(&p);
    for (size_t i = 0; i < countof(rows); i++) {
        Talk t = { .spec = { .first_byte_ms = rows[i].first, .idle_ms = rows[i].idle } };
        int64_t from = now_ms();
        int fd = begun(&p, &t);
        raw_sendz(fd, rows[i].answer);
        CHECK(talk_wait(&t));
        CHECK_INT(t.why, rows[i].why);
        CHECK(t.ended_ms - from >= 95 && t.ended_ms - from < test_longer(3000));
        CHECK(raw_ended(fd));
        talk_done(&t);
        raw_close(fd);
    }
    place_close(&p);
}

// We are slow, not the upstream: no time-out while reading is held back.
TEST(net_no_timeout_while_held) {
    Place p;
    place_open(&p);
    Talk t = { .spec = { .idle_ms = 80 } };
    int fd = begun(&p, &t);
    raw_sendz(fd, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
    CHECK(wait_int(&t.got, 5));
    talk_pause(&t);
    wait_ms(250);
    CHECK_INT(atomic_load(&t.ended), 0);
    talk_resume(&t);
    CHECK(talk_wait(&t)); // and now it counts
    CHECK_INT(t.why, CALL_TIMEOUT_IDLE);
    talk_done(&t);
    raw_close(fd);
    place_close(&p);
}

TEST(net_upload_that_nobody_reads_times_out) {
    Place p;
    place_open(&p);
    Talk t = { .spec = { .method = HTTP_POST, .idle_ms = 150, .first_byte_ms = 50 },
               .body = test_bytes(test_ctx(), 30000000) };
    int fd = begun(&p, &t);
    CHECK(talk_wait(&t));
    CHECK_INT(t.why, CALL_TIMEOUT_IDLE);
    talk_done(&t);
    raw_close(fd);
    place_close(&p);
}

TEST(net_connections_that_cannot_be_made) {
    Line l;
    Addr full, closed;
    line_open(&l, 4, 60000);
    raw_close(up_listen(&closed, 1));
    const Addr unix_none = { "unix:/nonexistent/socket" };
    const Addr *const refused[] = { &closed, &unix_none };
    for (size_t i = 0; i < countof(refused); i++) {
        Talk t = { 0 };
        CHECK(talk_get(&l, &t, refused[i]));
        CHECK_INT(t.why, CALL_REFUSED);
        talk_done(&t);
    }
    int up = up_listen(&full, 0), fd[8]; // its queue full, a listener lets no more in
    for (int i = 0; i < 8; i++) fd[i] = raw_try(&full);
    Talk t = { .spec = { .connect_ms = 100 } };
    int64_t from = now_ms();
    CHECK(talk_get(&l, &t, &full));
    CHECK_INT(t.why, CALL_TIMEOUT_CONNECT);
    CHECK(t.ended_ms - from >= 95);
    talk_done(&t);
    Talk left = { .spec = { .to = full } };
    talk_start(&l, &left);
    talk_cancel(&left); // while connecting
    talk_done(&left);
    for (int i = 0; i < 8; i++) raw_close(fd[i]);
    raw_close(up);
    line_close(&l);
}

// ---- both of ours together

TEST(net_client_and_server) {
    Rig *r = rig_start(&(RigSpec){ .loops_n = 2 });
    CHECK(r);
    Line l;
    line_open(&l, 8, 60000);
    Ctx *c = test_ctx();
    Talk t[40];
    memset(t, 0, sizeof t);
    for (size_t i = 0; i < countof(t); i++) {
        t[i].spec = (CallSpec){ .to = r->addr, .method = HTTP_POST, .target = S("/echo") };
        if (i % 3 == 1) t[i].spec.target = S("/stream");
        t[i].spec.body_streams = i % 2;
        t[i].body = test_bytes(c, 1 + i * 51000);
        talk_start(&l, &t[i]);
    }
    for (size_t i = 0; i < countof(t); i++) {
        CHECK(talk_wait(&t[i]));
        CHECK_INT(t[i].why, CALL_OK);
        CHECK(str_eq(buf_str(&t[i].answer), t[i].body));
        talk_done(&t[i]);
    }
    line_close(&l);
    rig_stop(r);
}
