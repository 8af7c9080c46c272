// SPDX-License-Identifier: Apache-2.0
// limit_test.c - slow clients, slow handlers, full queues, short memory. Time-outs are short here;
// a test waits for what must happen, never for time alone.
#include "net/fixture_test.h"

static RigSpec quick(void) {
    return (RigSpec){ .config = { .head_timeout_ms = 150,
                                  .idle_timeout_ms = 150,
                                  .body_timeout_ms = 150,
                                  .write_timeout_ms = 150 } };
}

static Rig *quick_rig(void) {
    RigSpec spec = quick();
    return rig_start(&spec);
}

TEST(net_slow_head_is_refused) {
    Rig *r = quick_rig();
    CHECK(r);
    int fd = raw_open(&r->addr);
    int64_t from = now_ms();
    raw_sendz(fd, "GET /hello HT");
    Answer a = raw_answer(fd);
    CHECK_INT(a.status, 408);
    CHECK_STR(answer_header(&a, "Connection"), "close");
    CHECK(now_ms() - from >= 140);
    CHECK(raw_ended(fd));
    raw_close(fd);
    // Byte after byte does not help.
    fd = raw_open(&r->addr);
    raw_sendz(fd, "GET /hello HTTP/1.1\r\nX: ");
    for (from = now_ms(); now_ms() - from < test_longer(5000) && !raw_readable(fd, 10);)
        raw_sendz(fd, "x");
    CHECK_INT(raw_answer(fd).status, 408);
    raw_close(fd);
    rig_stop(r);
}

TEST(net_idle_connections_are_closed) {
    Rig *r = quick_rig();
    CHECK(r);
    int silent = raw_open(&r->addr), idle = raw_open(&r->addr);
    raw_sendz(idle, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_STR(raw_answer(idle).body, "hello");
    CHECK(raw_ended(silent) && raw_ended(idle));
    raw_close(silent);
    raw_close(idle);
    CHECK(wait_int(&r->left, 1));
    CHECK_INT(atomic_load(&r->left), 1); // no request, nothing to tell
    rig_stop(r);
}

TEST(net_slow_body_is_refused) {
    static const char *const paths[] = { "/echo", "/stream", "/all", "/holding" };
    Rig *r = quick_rig();
    CHECK(r);
    atomic_store(&test_app.gate, true);
    for (size_t i = 0; i < countof(paths); i++) {
        int fd = raw_open(&r->addr);
        raw_sendz(fd,
                  say(test_ctx(), "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\nabc",
                      paths[i]));
        int64_t from = now_ms();
        while (now_ms() - from < test_longer(5000) && !raw_readable(fd, 20))
            raw_sendz(fd, "x"); // 50 bytes a second
        Answer a = raw_answer(fd);
        if (i == 1) CHECK(a.status == 200 && a.cut); // its answer had begun
        else CHECK_INT(a.status, 408);
        CHECK(now_ms() - from >= 130);
        raw_close(fd);
    }
    rig_stop(r);
    CHECK_INT(atomic_load(&test_app.gone), 1); // of /holding
}

// Slow, but above the least rate: it takes several times the time-out, and is served.
TEST(net_merely_slow_body_is_fine) {
    Rig *r = quick_rig();
    CHECK(r);
    int fd = raw_open(&r->addr);
    raw_sendz(fd, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n");
    int64_t from = now_ms();
    for (int i = 0; i < 40; i++) {
        raw_send(fd, test_bytes(test_ctx(), 50));
        raw_readable(fd, 15);
    }
    Answer a = raw_answer(fd);
    CHECK_INT(a.status, 200);
    CHECK_INT(a.body.n, 2000);
    CHECK(now_ms() - from > 400);
    raw_close(fd);
    rig_stop(r);
}

TEST(net_slow_reader_is_cut) {
    static const char *const paths[] = { "/flood/50000000", "/pull/5000/-1" };
    Rig *r = quick_rig();
    CHECK(r);
    for (int i = 0; i < 2; i++) {
        int fd = raw_open(&r->addr);
        raw_sendz(fd, say(test_ctx(), "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", paths[i]));
        char byte;
        int64_t from = now_ms();
        while (atomic_load(&r->left) <= i && now_ms() - from < test_longer(8000)) {
            CHECK(raw_peek(fd, &byte)); // there is something to read
            raw_take(fd, 1);            // a byte now and then
            wait_ms(20);
        }
        CHECK_INT(atomic_load(&r->left), i + 1);
        CHECK_INT(atomic_load(&r->left_status), 499);
        CHECK(now_ms() - from < test_longer(5000));
        raw_close(fd);
    }
    rig_stop(r);
    CHECK_INT(atomic_load(&test_app.gone), 1);
    CHECK_INT(atomic_load(&test_app.pulls_done), 1);
}

TEST(net_merely_slow_reader_is_fine) {
    Rig *r = quick_rig();
    CHECK(r);
    int fd = raw_open(&r->addr);
    raw_sendz(fd, "GET /flood/12000000 HTTP/1.1\r\nHost: a\r\n\r\n");
    int64_t from = now_ms(), taken = 0, n;
    while (taken < 12000000 && (n = raw_take(fd, 400000)) > 0) {
        taken += n;
        wait_ms(20);
    }
    CHECK(taken >= 12000000);
    CHECK(now_ms() - from > 400);
    raw_close(fd);
    rig_stop(r);
    CHECK_INT(atomic_load(&test_app.gone), 0);
}

// An idle stream of events is not a slow reader.
TEST(net_quiet_streams_have_no_timeout) {
    Rig *r = quick_rig();
    CHECK(r);
    int fd = raw_open(&r->addr);
    raw_sendz(fd, "GET /hang HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(!raw_readable(fd, 500));
    CHECK_INT(atomic_load(&test_app.gone), 0);
    raw_close(fd);
    CHECK(wait_int(&test_app.gone, 1));
    rig_stop(r);
}

TEST(net_routes_have_their_time) {
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    int fd = raw_open(&r->addr);
    raw_sendz(fd, "GET /gate-timed HTTP/1.1\r\nHost: a\r\n\r\n");
    Answer a = raw_answer(fd);
    CHECK_INT(a.status, 504);
    CHECK(str_find(a.body, S("answer_late")) > 0);
    CHECK(wait_int(&test_app.cancelled, 1)); // the handler learns it
    raw_sendz(fd, "GET /hang-timed HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(raw_answer(fd).status, 504);
    CHECK_INT(atomic_load(&test_app.gone), 1);
    raw_sendz(fd, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_STR(raw_answer(fd).body, "hello"); // the connection is as good as before
    raw_sendz(fd, "GET /begun-timed HTTP/1.1\r\nHost: a\r\n\r\n");
    a = raw_answer(fd);
    CHECK(a.status == 200 && a.cut);
    CHECK(wait_int(&test_app.gone, 2));
    CHECK(wait_int(&r->left, 4));
    CHECK_INT(atomic_load(&r->left_status), 504);
    raw_close(fd);
    rig_stop(r);
}

TEST(net_full_pool_is_busy) {
    Rig *r = rig_start(&(RigSpec){ .pool_threads = 1, .pool_queue = 1 });
    CHECK(r);
    int running = raw_open(&r->addr), waiting = raw_open(&r->addr);
    raw_sendz(running, "GET /gate HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(wait_int(&test_app.running, 1));
    raw_sendz(waiting, "GET /gate HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(wait_pool(r, 1));
    Answer a = raw_ask(&r->addr, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(a.status, 503);
    CHECK_STR(answer_header(&a, "Retry-After"), "1");
    CHECK_INT(raw_ask(&r->addr, "GET /flood/5 HTTP/1.1\r\nHost: a\r\n\r\n").status, 200); // no pool
    atomic_store(&test_app.gate, true);
    CHECK_STR(raw_answer(running).body, "through");
    CHECK_STR(raw_answer(waiting).body, "through");
    raw_close(running);
    raw_close(waiting);
    rig_stop(r);
}

// A generator whose next piece finds the pool full goes on later.
TEST(net_full_pool_delays_pieces) {
    Rig *r = rig_start(&(RigSpec){ .pool_threads = 1, .pool_queue = 2 });
    CHECK(r);
    int fd = raw_open(&r->addr), gates[3];
    raw_sendz(fd, "GET /pull/3000/-1 HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(wait_int(&test_app.pulls, 5));
    for (int i = 0; i < 3; i++) {
        gates[i] = raw_open(&r->addr);
        raw_sendz(gates[i], "GET /gate HTTP/1.1\r\nHost: a\r\n\r\n");
        CHECK(i || wait_int(&test_app.running, 1));
    }
    CHECK(wait_pool(r, 2)); // a piece may be one of them, then it was too late to delay it
    raw_take(fd, 20000000); // makes room: the next piece is asked for while the pool is full
    wait_ms(50);
    atomic_store(&test_app.gate, true);
    CHECK_STR(raw_answer(gates[0]).body, "through");
    while (atomic_load(&test_app.pulls_done) == 0 && raw_take(fd, 1 << 20) > 0) {}
    CHECK_INT(atomic_load(&test_app.pulls), 3000);
    raw_close(fd);
    for (int i = 0; i < 3; i++) raw_close(gates[i]);
    rig_stop(r);
}

// Answers that nobody takes fill the budget: new requests are told when to come again.
TEST(net_short_memory_is_busy) {
    Rig *r = rig_start(&(RigSpec){ .config = { .memory_max_bytes = 150000 } });
    CHECK(r);
    int slow = raw_open(&r->addr);
    raw_sendz(slow, "GET /flood/50000000 HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(wait_int(&test_app.pending_most, 190000));
    Answer a = raw_ask(&r->addr, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    for (int64_t from = now_ms();
         a.status == 200 && now_ms() - from < test_longer(5000);) // buffers still fill
        a = raw_ask(&r->addr, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(a.status, 503);
    CHECK_STR(answer_header(&a, "Retry-After"), "1");
    CHECK(str_find(a.body, S("memory")) > 0);
    raw_close(slow);
    CHECK(wait_int(&test_app.gone, 1));
    CHECK_INT(raw_ask(&r->addr, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
    rig_stop(r);
}

TEST(net_short_memory_stops_growing_bodies) {
    Rig *r = rig_start(&(RigSpec){ .config = { .memory_max_bytes = 100000 } });
    CHECK(r);
    int fd = raw_open(&r->addr);
    raw_sendz(fd, "POST /all HTTP/1.1\r\nHost: a\r\nContent-Length: 190000\r\n\r\n");
    raw_send(fd, test_bytes(test_ctx(), 189999));
    CHECK_INT(raw_answer(fd).status, 503);
    raw_close(fd);
    rig_stop(r);
}

TEST(net_connections_have_a_limit) {
    Rig *r = rig_start(&(RigSpec){ .config = { .connections_max = 3 } });
    CHECK(r);
    int fd[3];
    for (int i = 0; i < 3; i++) {
        fd[i] = raw_open(&r->addr);
        raw_sendz(fd[i], "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
        CHECK_STR(raw_answer(fd[i]).body, "hello");
    }
    int more = raw_open(&r->addr);
    raw_sendz(more, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\n");
    Answer a = raw_answer(more);
    CHECK_INT(a.status, 503); // and told when to come again
    CHECK_STR(answer_header(&a, "Retry-After"), "1");
    CHECK_STR(answer_header(&a, "Connection"), "close");
    CHECK(str_find(a.body, S("all 3 connections are in use")) >= 0);
    CHECK(raw_ended(more));
    raw_close(more);
    CHECK_INT(server_counts(r->server).connections_refused, 1);
    raw_close(fd[0]);
    a = (Answer){ 0 };
    for (int64_t from = now_ms(); a.status != 200 && now_ms() - from < test_longer(5000);)
        a = raw_ask(&r->addr, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(a.status, 200);
    raw_close(fd[1]);
    raw_close(fd[2]);
    rig_stop(r);
}

// Those who are to be told have a second to ask; behind them nobody is let in.
TEST(net_connections_over_the_limit_end_by_themselves) {
    enum { TOLD = 64 };
    Rig *r = rig_start(&(RigSpec){ .config = { .connections_max = 1 } });
    CHECK(r);
    int first = raw_open(&r->addr), told[TOLD], cut;
    raw_sendz(first, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_STR(raw_answer(first).body, "hello");
    for (int i = 0; i < TOLD; i++) told[i] = raw_open(&r->addr);
    cut = raw_open(&r->addr);
    CHECK(raw_ended(cut)); // at once
    CHECK(raw_ended(told[TOLD - 1]) && raw_ended(told[0]));
    raw_sendz(first, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_STR(raw_answer(first).body, "hello");
    CHECK_INT(server_counts(r->server).connections_refused, TOLD + 1);
    for (int i = 0; i < TOLD; i++) raw_close(told[i]);
    raw_close(cut), raw_close(first);
    rig_stop(r);
}

// ---- back-pressure of bodies

static void resume(void *arg) {
    (void)arg;
    exchange_pause(atomic_load(&test_app.hanging), false);
}

TEST(net_untaken_body_holds_reading_back) {
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    Ctx *c = test_ctx();
    int fd = raw_open(&r->addr);
    enum { SIZE = 30000000 };
    raw_sendz(fd, say(c, "POST /holding HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", SIZE));
    CHECK(wait_int(&test_app.running, 1));
    str body = test_bytes(c, SIZE);
    size_t sent = raw_push(fd, body); // until the kernel takes no more
    CHECK(sent < SIZE);
    CHECK(atomic_load(&test_app.pending_most) < 200000);
    CHECK(server_counts(r->server).bytes_in_flight < 400000);
    atomic_store(&test_app.gate, true);
    rig_do(r, resume, NULL);
    CHECK(raw_send(fd, str_sub(body, sent, SIZE)));
    CHECK_STR(raw_answer(fd).body, "taken");
    CHECK_INT(atomic_load(&test_app.taken), SIZE);
    raw_close(fd);
    rig_stop(r);
}
