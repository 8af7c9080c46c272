// SPDX-License-Identifier: Apache-2.0
// gone_test.c - clients that leave at every moment, by closing and by resetting. rig_stop checks
// after each test that every request was told of once and that nothing is left; the sanitizers
// check that nothing was freed twice.
#include "net/fixture_test.h"

static void leave(int fd, int how) {
    if (how) raw_reset(fd);
    else raw_close(fd);
}

TEST(net_gone_in_the_midst_of_an_answer) {
    static const struct {
        const char *path;
        int gone, pulls;
    } rows[] = { { "/flood/50000000", 1, 0 }, { "/pull/5000/-1", 0, 1 }, { "/sse", 1, 0 },
                 { "/hang", 1, 0 },           { "/hang-begun", 1, 0 },   { "/held", 1, 0 } };
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    int gone = 0, pulls = 0, told = 0;
    for (size_t i = 0; i < 2 * countof(rows); i++) {
        const char *path = rows[i / 2].path;
        bool silent = strcmp(path, "/hang") == 0 || strcmp(path, "/held") == 0;
        int fd = raw_open(&r->addr), before = atomic_load(&test_app.running);
        char byte;
        raw_sendz(fd, say(test_ctx(), "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", path));
        if (silent) CHECK(wait_int(&test_app.running, before + 1));
        else CHECK(raw_peek(fd, &byte));
        leave(fd, i % 2);
        gone += rows[i / 2].gone, pulls += rows[i / 2].pulls;
        CHECK(wait_int(&r->left, ++told));
        CHECK_INT(atomic_load(&r->left_status), 499);
        CHECK(wait_int(&test_app.gone, gone) && wait_int(&test_app.pulls_done, pulls));
    }
    rig_stop(r);
    CHECK_INT(atomic_load(&test_app.gone), gone);
    CHECK_INT(atomic_load(&test_app.pulls_done), pulls);
    CHECK_INT(atomic_load(&test_app.released), 2);
}

TEST(net_gone_while_a_handler_runs) {
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    for (int how = 0; how < 2; how++) {
        int fd = raw_open(&r->addr);
        raw_sendz(fd, "GET /gate HTTP/1.1\r\nHost: a\r\n\r\n");
        CHECK(wait_int(&test_app.running, how + 1));
        leave(fd, how);
        CHECK(wait_int(&test_app.cancelled, how + 1)); // the handler was told
        CHECK(wait_int(&r->left, how + 1));
        CHECK_INT(atomic_load(&r->left_status), 499);
        CHECK_INT(atomic_load(&r->left_sent), 0);
    }
    rig_stop(r);
}

TEST(net_gone_while_its_handler_waits_for_a_thread) {
    Rig *r = rig_start(&(RigSpec){ .pool_threads = 1 });
    CHECK(r);
    int busy = raw_open(&r->addr), fd = raw_open(&r->addr);
    raw_sendz(busy, "GET /gate HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(wait_int(&test_app.running, 1));
    raw_sendz(fd, "POST /gate HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    CHECK(wait_pool(r, 1));
    raw_close(fd);
    CHECK(wait_active(r, 1));
    atomic_store(&test_app.gate, true);
    CHECK_STR(raw_answer(busy).body, "through");
    CHECK(wait_int(&r->left, 2));
    CHECK_INT(atomic_load(&test_app.running), 1); // it never ran
    raw_close(busy);
    rig_stop(r);
}

// While nobody reads a body, the end of its client is seen behind as much of it as a stream takes
// in.
enum { SENT_MAX = 60000 };

TEST(net_gone_in_the_midst_of_a_body) {
    static const char *const paths[] = { "/echo", "/stream", "/all", "/hang", "/holding", "/gate" };
    static const char *const framing[] = { "Content-Length: 3000000\r\n\r\n",
                                           "Transfer-Encoding: chunked\r\n\r\n200000\r\n" };
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    Ctx *c = test_ctx();
    int told = 0;
    for (size_t i = 0; i < countof(paths) * 4; i++) {
        const char *path = paths[i / 4];
        int fd = raw_open(&r->addr);
        raw_sendz(fd, say(c, "POST %s HTTP/1.1\r\nHost: a\r\n%s", path, framing[i / 2 % 2]));
        size_t large = i < 12 ? 1500000 : SENT_MAX; // with and without a spool file
        raw_push(fd, test_bytes(c, i % 3 ? 100 : large));
        leave(fd, (int)i % 2);
        CHECK(wait_int(&r->left, ++told));
        int status = atomic_load(&r->left_status);
        CHECK(status == 499 || (status == 413 && i >= 8)); // /all and /hang have smaller limits
    }
    CHECK_INT(atomic_load(&test_app.passed), 0);
    rig_stop(r);
    str *names;
    size_t n;
    c->os = os_real();
    CHECK_OK(c, dir_list(c, str_z(test_dir()), &names, &n));
    CHECK_INT(n, 0);
}

// The owner holds its exchange when the route's time is over: net answers on another.
TEST(net_late_while_held) {
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    int fd = raw_open(&r->addr);
    raw_sendz(fd, "GET /held-timed?q HTTP/1.1\r\nHost: a\r\nX-Request-Id: kept\r\n\r\n");
    Answer a = raw_answer(fd);
    CHECK_INT(a.status, 504);
    CHECK_STR(answer_header(&a, "X-Request-Id"), "kept");
    CHECK(wait_int(&test_app.released, 1));
    raw_close(fd);
    rig_stop(r);
}

// ---- a storm: many clients, each doing something else, leaving whenever they like

enum { CLIENTS = 24, MOVES = 1500 };
typedef struct Guest {
    int fd;
    str rest; // of its request, not yet sent
    size_t sent;
} Guest;

static str some_request(Ctx *c) {
    static const char *const gets[] = { "/hello",      "/gate",         "/gate-timed",
                                        "/pull/50/-1", "/pull/30/10",   "/hang",
                                        "/hang-timed", "/sse",          "/held",
                                        "/held-timed", "/flood/300000", "/aborting",
                                        "/failing",    "/nowhere",      "/begun-timed" };
    static const char *const posts[] = { "/echo",    "/stream", "/all",  "/hang",
                                         "/holding", "/gate",   "/hello" };
    uint64_t dice = test_random();
    if (dice % 2)
        return arena_printf(c->mem, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n",
                            gets[dice / 2 % countof(gets)]);
    size_t n = dice / 64 % 9 ? dice / 1024 % 5000 : 50000;
    const char *path = posts[dice / 2 % countof(posts)];
    const char *expect = dice / 128 % 5 ? "" : "Expect: 100-continue\r\n";
    Buf b;
    buf_init(&b, 4 << 20);
    buf_printf(&b, "POST %s HTTP/1.1\r\nHost: a\r\n%s", path, expect);
    if (dice / 256 % 2) test_add_chunked(&b, test_bytes(c, n), 1 + n / 7);
    else {
        buf_printf(&b, "Content-Length: %zu\r\n\r\n", n);
        buf_add(&b, test_bytes(c, n));
    }
    str all = arena_str(c->mem, buf_str(&b));
    buf_done(&b);
    return all;
}

static void guest_moves(Guest *g, Rig *r, Ctx *c) {
    uint64_t dice = test_random();
    if (g->fd < 0) {
        g->fd = raw_open(&r->addr);
        g->rest = some_request(c);
        return;
    }
    switch (dice % 8) {
    case 0: leave(g->fd, dice / 8 % 2), *g = (Guest){ .fd = -1 }; return;
    case 1:
        if (raw_readable(g->fd, 0) && !raw_take(g->fd, 1 + dice / 8 % 100000))
            raw_close(g->fd), *g = (Guest){ .fd = -1 };
        return;
    case 2: atomic_store(&test_app.gate, dice / 8 % 3 == 0); return;
    default: break;
    }
    if (g->sent > SENT_MAX / 2) return;
    if (!g->rest.n) g->rest = some_request(c); // pipelined
    str part = str_sub(g->rest, 0, dice / 8 % 3 ? g->rest.n : 1 + dice / 64 % g->rest.n);
    size_t sent = raw_some(g->fd, str_sub(part, 0, SENT_MAX / 2));
    g->rest = str_sub(g->rest, sent, g->rest.n);
    g->sent += sent;
}

TEST(net_storm) {
    Rig *r = rig_start(&(RigSpec){ .loops_n = 2, .pool_threads = 2, .pool_queue = 4 });
    CHECK(r);
    Guest guests[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) guests[i] = (Guest){ .fd = -1 };
    for (int i = 0; i < MOVES; i++) guest_moves(&guests[test_random() % CLIENTS], r, test_ctx());
    atomic_store(&test_app.gate, true);
    for (int i = 0; i < CLIENTS; i++)
        if (guests[i].fd >= 0) leave(guests[i].fd, i % 2);
    rig_stop(r);
    CHECK_INT(atomic_load(&test_app.pulls_done), atomic_load(&test_app.pulls_begun));
    str *names;
    size_t n;
    Ctx *c = test_ctx();
    c->os = os_real();
    CHECK_OK(c, dir_list(c, str_z(test_dir()), &names, &n));
    CHECK_INT(n, 0);
}
