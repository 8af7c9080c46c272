// SPDX-License-Identifier: Apache-2.0
// drain_test.c - the end of a server under its clients' eyes.
#include "net/fixture_test.h"

static void drained(void *arg) { atomic_store(&((Rig *)arg)->drained, 1); }

static void drain(Rig *r, int64_t timeout_ms) {
    r->drained_stop = true;
    server_drain(r->server, timeout_ms, drained, r);
}

static bool nobody_listens(void *arg) {
    int fd = raw_open(arg);
    if (fd >= 0) raw_close(fd);
    return fd < 0;
}

TEST(net_drain_lets_answers_finish) {
    Rig *r = rig_start(&(RigSpec){ .loops_n = 2 });
    CHECK(r);
    int idle = raw_open(&r->addr), active = raw_open(&r->addr), fresh = raw_open(&r->addr);
    int half = raw_open(&r->addr);
    raw_sendz(idle, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_STR(raw_answer(idle).body, "hello");
    raw_sendz(active, "GET /gate HTTP/1.1\r\nHost: a\r\n\r\n");
    raw_sendz(half, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab");
    CHECK(wait_int(&test_app.running, 1) && wait_active(r, 2) && wait_connections(r, 4));
    drain(r, 8000);
    CHECK(raw_ended(idle));
    CHECK(wait_until(nobody_listens, &r->addr));
    raw_sendz(fresh, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"); // could not know
    Answer a = raw_answer(fresh);
    CHECK_STR(a.body, "hello");
    CHECK_STR(answer_header(&a, "Connection"), "close");
    raw_sendz(half, "cd");
    a = raw_answer(half);
    CHECK_STR(a.body, "abcd");
    CHECK_STR(answer_header(&a, "Connection"), "close");
    CHECK_INT(atomic_load(&r->drained), 0);
    atomic_store(&test_app.gate, true);
    a = raw_answer(active);
    CHECK_STR(a.body, "through");
    CHECK_STR(answer_header(&a, "Connection"), "close");
    CHECK(raw_ended(active) && raw_ended(fresh));
    CHECK(wait_int(&r->drained, 1));
    raw_close(idle);
    raw_close(active);
    raw_close(fresh);
    raw_close(half);
    rig_stop(r);
}

TEST(net_drain_ends_in_time) {
    Rig *r = rig_start(&(RigSpec){ .loops_n = 2 });
    CHECK(r);
    int stuck[6];
    for (int i = 0; i < 6; i++) {
        stuck[i] = raw_open(&r->addr);
        raw_sendz(stuck[i], i % 2 ? "GET /hang HTTP/1.1\r\nHost: a\r\n\r\n"
                                  : "GET /sse HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    CHECK(wait_int(&test_app.running, 6));
    int64_t from = now_ms();
    drain(r, 100);
    CHECK(wait_int(&r->drained, 1));
    CHECK(now_ms() - from >= 95 && now_ms() - from < test_longer(5000));
    CHECK_INT(atomic_load(&test_app.gone), 6);
    for (int i = 0; i < 6; i++) CHECK(raw_ended(stuck[i]));
    for (int i = 0; i < 6; i++) raw_close(stuck[i]);
    rig_stop(r);
}

// A stream that ends while draining closes its connection though its head promised to keep it.
TEST(net_drain_closes_after_a_stream) {
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    int fd = raw_open(&r->addr);
    raw_sendz(fd, "GET /pull/3000/-1 HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(wait_int(&test_app.pulls, 3));
    drain(r, 8000);
    Answer a = raw_answer(fd);
    CHECK_INT(a.body.n, 30000000);
    CHECK(!a.cut && raw_ended(fd));
    CHECK(wait_int(&r->drained, 1));
    raw_close(fd);
    rig_stop(r);
}

TEST(net_drain_of_nothing) {
    Rig *r = rig_start(&(RigSpec){ .loops_n = 3 });
    CHECK(r);
    drain(r, 8000);
    CHECK(wait_int(&r->drained, 1));
    rig_stop(r);
}

// Loops stop with everything under way: nothing leaks, nobody is called late.
TEST(net_stop_without_draining) {
    Rig *r = rig_start(&(RigSpec){ .loops_n = 2 });
    CHECK(r);
    static const char *const paths[] = { "/gate",           "/hang", "/sse",
                                         "/flood/50000000", "/held", "/pull/5000/-1" };
    int fd[countof(paths)];
    for (size_t i = 0; i < countof(paths); i++) {
        fd[i] = raw_open(&r->addr);
        raw_sendz(fd[i], say(test_ctx(), "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", paths[i]));
    }
    CHECK(wait_active(r, countof(paths)) && wait_int(&test_app.pulls, 1));
    CHECK(wait_int(&test_app.running, 4));
    for (size_t i = 0; i < r->loops_n; i++) {
        loop_stop(r->loops[i]);
        thread_join(r->threads[i]);
    }
    atomic_store(&test_app.gate, true);
    pool_free(r->pool);
    server_free(r->server);
    for (size_t i = 0; i < r->loops_n; i++) loop_free(r->loops[i]);
    CHECK_INT(atomic_load(&test_app.gone), 4);
    CHECK_INT(atomic_load(&test_app.pulls_done), 1);
    CHECK_INT(atomic_load(&test_app.released), 1);
    for (size_t i = 0; i < countof(paths); i++) raw_close(fd[i]);
    mem_free(r);
}
