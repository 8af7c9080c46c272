// SPDX-License-Identifier: Apache-2.0
// sim_test.c - the simulated world: time, loops, pools, connections, partitions, deaths, children;
// and that a seed replays its history.
#include "base/test.h"
#include "os/file.h"
#include "os/sim.h"
#include "os/thread.h"
#include <signal.h>
#include <stdio.h>

static const int64_t MS = 1000000, SECOND = 1000000000;

static Ctx *sim_ctx(Sim *s, int node) {
    Ctx *c = test_ctx();
    c->os = sim_node(s, node);
    return c;
}
static int64_t end_of(Sim *s, int64_t seconds) {
    return os_mono_ns(sim_node(s, 0)) + seconds * SECOND;
}

// --- an end of a connection that logs what it is told

typedef struct End {
    Stream *s;
    size_t got, said, wrong; // bytes; wrong: out of their order
    int opened, drained, ended, accepted;
    StreamEnd why;
    bool echo, hold;
    int64_t at_ns; // of the last event
} End;

static void look(End *e) { e->at_ns = loop_now_ns(stream_loop(e->s)); }
static void on_opened(void *arg) {
    ((End *)arg)->opened++;
    look(arg);
}
static void on_data(void *arg) {
    End *e = arg;
    look(e);
    if (e->hold) return;
    size_t n = evbuffer_get_length(stream_in(e->s));
    const uint8_t *p = evbuffer_pullup(stream_in(e->s), -1);
    for (size_t i = 0; i < n; i++) e->wrong += p[i] != (uint8_t)((e->got + i) % 251);
    e->got += n;
    if (e->echo) {
        evbuffer_add_buffer(stream_out(e->s), stream_in(e->s));
        stream_touch(e->s);
    }
    evbuffer_drain(stream_in(e->s), SIZE_MAX);
}
static void on_drained(void *arg) { ((End *)arg)->drained++; }
static void on_ended(void *arg, StreamEnd why) {
    End *e = arg;
    e->ended++;
    e->why = why;
    look(e);
}
static const StreamEvents end_events = { on_opened, on_data, on_drained, on_ended };

static void on_accepted(void *arg, Loop *l, Stream *s) {
    End *e = arg;
    (void)l;
    e->accepted++;
    e->s = s;
    stream_events(s, &end_events, e);
}

// A server on node 1 and a client on node 0.
typedef struct Pair {
    Sim *s;
    Loop *client_loop, *server_loop;
    Listener *listener;
    Addr addr;
    End client, server;
} Pair;

static bool pair_init(Pair *p, uint64_t seed, const char *addr, const char *to) {
    Ctx *c;
    *p = (Pair){ .s = sim_new(seed) };
    p->client_loop = loop_new(sim_node(p->s, 0));
    p->server_loop = loop_new(sim_node(p->s, 1));
    c = sim_ctx(p->s, 1);
    if (addr_parse(c, str_z(addr), &p->addr)) return false;
    ListenSpec spec = { &p->server_loop, 1, &p->addr, on_accepted, &p->server };
    if (listener_open(c, &spec, &p->listener)) return false;
    return !addr_parse(c, str_z(to), &p->addr);
}
static void pair_connect(Pair *p, int64_t timeout_ms) {
    p->client.s = stream_connect(p->client_loop, &p->addr, timeout_ms, &end_events, &p->client);
}
static void pair_done(Pair *p) {
    stream_free(p->client.s);
    stream_free(p->server.s);
    listener_close(p->listener);
    loop_free(p->client_loop);
    loop_free(p->server_loop);
    sim_free(p->s);
}
static void say_much(End *e, size_t n) {
    uint8_t *p = mem_new(n);
    for (size_t i = 0; i < n; i++) p[i] = (uint8_t)(e->said++ % 251);
    evbuffer_add(stream_out(e->s), p, n);
    stream_touch(e->s);
    mem_free(p);
}
static void run(Pair *p, int64_t seconds) { sim_run(p->s, end_of(p->s, seconds), NULL, NULL); }
#define PAIR(p, seed) CHECK(pair_init(&(p), (seed), "0.0.0.0:80", "10.0.0.2:80"))

// --- time and loops

static void count(void *arg) { ++*(int *)arg; }

TEST(sim_time_jumps_when_idle) {
    Sim *s = sim_new(1);
    Loop *l = loop_new(sim_node(s, 0));
    int fired = 0;
    Timer *t = timer_new(l, count, &fired);
    int64_t start = os_mono_ns(loop_os(l)), wall = os_wall_ms(loop_os(l));
    timer_start(t, 86400000);
    CHECK(sim_run(s, start + 200000 * SECOND, NULL, NULL) < 10);
    CHECK_INT(fired, 1);
    CHECK_INT(os_mono_ns(loop_os(l)) - start, 86400 * SECOND);
    CHECK_INT(os_wall_ms(loop_os(l)) - wall, 86400000);
    timer_start(t, 1000);
    sim_run(s, os_mono_ns(loop_os(l)) + 400 * MS, NULL, NULL);
    CHECK_INT(os_mono_ns(loop_os(l)) - start, 86400 * SECOND + 400 * MS); // no further than asked
    CHECK_INT(fired, 1);
    timer_free(t);
    loop_free(l);
    sim_free(s);
}

static bool three(void *arg) { return *(int *)arg == 3; }
static void again(void *arg) {
    Loop *l = ((void **)arg)[0];
    ++*(int *)((void **)arg)[1];
    loop_post(l, again, arg);
}
TEST(sim_run_stops_when_done) {
    Sim *s = sim_new(1);
    Loop *l = loop_new(sim_node(s, 0));
    int n = 0;
    void *both[] = { l, &n };
    loop_post(l, again, both);
    sim_run(s, INT64_MAX, three, &n);
    CHECK_INT(n, 3);
    sim_crash(s, 0, false); // posted calls vanish: loop_free does not call them
    loop_free(l);
    CHECK_INT(n, 3);
    sim_free(s);
}

static void stop(void *arg) { loop_stop(arg); }
TEST(sim_loop_run_drives_the_world) {
    Sim *s = sim_new(2);
    Loop *a = loop_new(sim_node(s, 0)), *b = loop_new(sim_node(s, 1));
    int n = 0;
    loop_post(b, count, &n);
    Timer *t = timer_new(a, stop, a);
    timer_start(t, 50);
    loop_run(a);
    CHECK(loop_stopping(a));
    CHECK_INT(n, 1);
    timer_free(t);
    loop_free(a);
    loop_free(b);
    sim_free(s);
}

typedef struct Pieces {
    Loop *l;
    Pool *pool;
    char order[16];
    int n, inside, most;
    bool mine;
} Pieces;
typedef struct OnePiece {
    Pieces *all;
    char name;
} OnePiece;
static void piece(void *arg) {
    OnePiece *p = arg;
    if (++p->all->inside > p->all->most) p->all->most = p->all->inside;
    if (loop_is_mine(p->all->l)) p->all->mine = true;
    p->all->order[p->all->n++] = p->name;
    p->all->inside--;
}
static void run_pieces(uint64_t seed, int threads, Pieces *all) {
    Sim *s = sim_new(seed);
    *all = (Pieces){ .l = loop_new(sim_node(s, 0)) };
    all->pool = pool_new(sim_node(s, 0), "p", threads, 4);
    OnePiece pieces[7];
    int taken = 0;
    for (int i = 0; i < 7; i++) {
        pieces[i] = (OnePiece){ all, (char)('a' + i) };
        taken += pool_submit(all->pool, piece, &pieces[i]);
    }
    CHECK_INT(taken, threads + 4 < 7 ? threads + 4 : 7);
    CHECK_INT(pool_running(all->pool), threads);
    sim_run(s, INT64_MAX, NULL, NULL);
    CHECK_INT(all->n, taken);
    CHECK_INT(pool_waiting(all->pool) + pool_running(all->pool), 0);
    pool_free(all->pool);
    loop_free(all->l);
    sim_free(s);
}
TEST(sim_pool_one_piece_at_a_time) {
    Pieces one, other;
    bool differs = false;
    run_pieces(1, 1, &one);
    CHECK_STR(str_z(one.order), "abcde"); // one thread keeps the order
    run_pieces(1, 3, &one);
    CHECK(!one.mine && one.most == 1);
    for (uint64_t seed = 2; seed < 10; seed++) {
        run_pieces(seed, 3, &other);
        if (strcmp(one.order, other.order)) differs = true;
    }
    CHECK(differs); // the seed's order
}

// --- connections

TEST(sim_stream_echo_takes_time) {
    for (uint64_t seed = 0; seed < 30; seed++) {
        Pair p;
        PAIR(p, seed);
        sim_faults(p.s, -1, &(SimFaults){ .latency_us_min = 5000, .latency_us_max = 9000 });
        int64_t start = os_mono_ns(sim_node(p.s, 0));
        p.server.echo = true;
        pair_connect(&p, 1000);
        say_much(&p.client, 500000);
        run(&p, 60);
        CHECK_INT(p.client.opened, 1);
        CHECK_INT(p.server.got, 500000);
        CHECK_INT(p.client.got, 500000);
        CHECK_INT(p.client.wrong + p.server.wrong, 0);
        CHECK(p.client.at_ns - start >= 4 * 5 * MS && p.client.at_ns - start < 20 * SECOND);
        CHECK_INT(p.client.ended + p.server.ended, 0);
        pair_done(&p);
    }
}

TEST(sim_stream_unix_stays_within_a_node) {
    Pair p;
    CHECK(pair_init(&p, 1, "unix:/run/s", "unix:/run/s"));
    pair_connect(&p, 1000); // from node 0, it listens on node 1
    run(&p, 5);
    CHECK_INT(p.client.ended, 1);
    CHECK_INT(p.client.why, STREAM_REFUSED);
    pair_done(&p);
    CHECK(pair_init(&p, 1, "unix:/run/s", "unix:/run/s"));
    Loop *l = loop_new(sim_node(p.s, 1));
    p.client.s = stream_connect(l, &p.addr, 1000, &end_events, &p.client);
    run(&p, 5);
    CHECK_INT(p.client.opened, 1);
    stream_free(p.client.s);
    p.client.s = NULL;
    loop_free(l);
    pair_done(&p);
}

TEST(sim_stream_back_pressure) {
    Pair p;
    PAIR(p, 4);
    p.server.hold = true;
    pair_connect(&p, 0);
    stream_marks(p.client.s, 1000, 1000);
    say_much(&p.client, 2 << 20);
    run(&p, 10);
    size_t left = evbuffer_get_length(stream_out(p.client.s));
    CHECK(left > (2 << 20) - (1 << 20) && !p.client.drained);
    p.server.hold = false;
    on_data(&p.server);
    run(&p, 60);
    CHECK_INT(p.server.got, 2 << 20);
    CHECK(p.client.drained >= 1);
    pair_done(&p);
}

// A byte every 40 ms: 60 ms of silence never come, until they do. On the machine a late wake-up
// could not be told from a limit that counts wrong.
TEST(sim_stream_read_timeout_counts_from_progress) {
    Pair p;
    PAIR(p, 8);
    sim_faults(p.s, -1, &(SimFaults){ .latency_us_max = 1000 });
    pair_connect(&p, 1000);
    run(&p, 1);
    stream_timeouts(p.server.s, 60, 0);
    int64_t last = 0;
    for (size_t i = 1; i <= 4; i++) {
        say_much(&p.client, 1);
        last = os_mono_ns(sim_node(p.s, 0));
        sim_run(p.s, last + 40 * MS, NULL, NULL);
        CHECK_INT(p.server.got, i);
        CHECK_INT(p.server.ended, 0);
    }
    run(&p, 5);
    CHECK_INT(p.server.ended, 1);
    CHECK_INT(p.server.why, STREAM_TIMEOUT);
    CHECK(p.server.at_ns >= last + 60 * MS && p.server.at_ns < last + 70 * MS);
    pair_done(&p);
}

TEST(sim_stream_end_and_shut) {
    Pair p;
    PAIR(p, 5);
    pair_connect(&p, 0);
    say_much(&p.client, 100000);
    run(&p, 1);
    say_much(&p.client, 100000);
    stream_shut(p.client.s);
    p.client.s = NULL;
    run(&p, 5);
    CHECK_INT(p.server.got, 200000);
    CHECK_INT(p.server.wrong, 0);
    CHECK_INT(p.server.ended, 1);
    CHECK_INT(p.server.why, STREAM_EOF);
    pair_done(&p);
}

TEST(sim_stream_refused_and_unknown) {
    Pair p;
    PAIR(p, 6);
    snprintf(p.addr.text, sizeof p.addr.text, "10.0.0.2:81");
    pair_connect(&p, 1000);
    run(&p, 5);
    CHECK_INT(p.client.why, STREAM_REFUSED);
    stream_free(p.client.s);
    snprintf(p.addr.text, sizeof p.addr.text, "10.0.0.77:80");
    p.client = (End){ 0 };
    pair_connect(&p, 1000);
    run(&p, 5);
    CHECK_INT(p.client.ended, 1);
    CHECK_INT(p.client.why, STREAM_IO);
    Ctx *c = sim_ctx(p.s, 0);
    Addr out[2];
    size_t n;
    CHECK_OK(c, addr_resolve(c, S("node1"), 80, out, 2, &n));
    CHECK_STR(str_z(out[0].text), "10.0.0.2:80");
    CHECK_ERR(addr_resolve(c, S("example.com"), 80, out, 2, &n), ERR_NOTFOUND);
    pair_done(&p);
}

TEST(sim_stream_cut_is_told_to_both) {
    Pair p;
    PAIR(p, 7);
    pair_connect(&p, 0);
    run(&p, 1);
    sim_faults(p.s, -1, &(SimFaults){ .stream_cut = 1000000, .latency_us_max = 10 });
    say_much(&p.client, 10);
    run(&p, 1);
    CHECK_INT(p.client.ended, 1);
    CHECK_INT(p.client.why, STREAM_RESET);
    CHECK_INT(p.server.ended, 1);
    CHECK_INT(p.server.got, 0);
    pair_done(&p);
}

TEST(sim_partition_holds_back_and_heals) {
    Pair p;
    PAIR(p, 8);
    pair_connect(&p, 0);
    run(&p, 1);
    sim_partition(p.s, 0, 1, true);
    say_much(&p.client, 1000);
    End late = { 0 };
    late.s = stream_connect(p.client_loop, &p.addr, 3000, &end_events, &late);
    run(&p, 10);
    CHECK_INT(p.server.got, 0);
    CHECK_INT(p.client.ended, 0);
    CHECK_INT(late.why, STREAM_TIMEOUT);
    stream_free(late.s);
    sim_partition(p.s, 0, 1, false);
    run(&p, 10);
    CHECK_INT(p.server.got, 1000);
    sim_partition(p.s, 0, 1, true);
    say_much(&p.client, 1000);
    run(&p, 300); // for too long
    CHECK_INT(p.client.why, STREAM_RESET);
    CHECK_INT(p.server.why, STREAM_RESET);
    CHECK_INT(p.server.got, 1000);
    pair_done(&p);
}

// --- deaths

TEST(sim_crash_takes_the_memory_of_a_node) {
    for (uint64_t seed = 0; seed < 20; seed++) {
        Pair p;
        int fired = 0;
        PAIR(p, seed);
        pair_connect(&p, 0);
        run(&p, 1);
        Timer *t = timer_new(p.server_loop, count, &fired);
        timer_start(t, 10);
        loop_post(p.server_loop, count, &fired);
        sim_crash(p.s, 1, seed % 2);
        CHECK_INT(sim_lives(p.s, 1), 1);
        run(&p, 200); // a peer without power may be noticed by keep-alive only
        CHECK_INT(fired, 0);
        CHECK_INT(p.client.ended, 1);
        CHECK_INT(p.client.why, STREAM_RESET);
        CHECK_INT(p.server.ended, 0);         // it is not told: it is not there
        Loop *l = loop_new(sim_node(p.s, 1)); // the next life listens at the same place
        Ctx *c = sim_ctx(p.s, 1);
        Listener *listener;
        End next = { 0 }, client = { 0 };
        CHECK_OK(c, addr_parse(c, S("10.0.0.2:80"), &p.addr));
        ListenSpec spec = { &l, 1, &p.addr, on_accepted, &next };
        CHECK_OK(c, listener_open(c, &spec, &listener));
        client.s = stream_connect(p.client_loop, &p.addr, 1000, &end_events, &client);
        run(&p, 2);
        CHECK_INT(client.opened, 1);
        CHECK_INT(next.accepted, 1);
        stream_free(client.s);
        stream_free(next.s);
        listener_close(listener);
        loop_free(l);
        if (seed % 4 < 2) timer_free(t); // the lost things may be freed by their owner, or not
        if (seed % 4 < 2) {
            pair_done(&p);
            continue;
        }
        stream_free(p.client.s);
        loop_free(p.client_loop);
        sim_free(p.s);
    }
}

// --- children

typedef struct Child {
    Loop *l;
    Timer *t;
    void (*exit)(void *proc, int code);
    void *proc;
    int *killed_by, *terms;
    int code;
} Child;
typedef struct Nursery {
    int killed_by, terms, starts, exits;
    ProcessExit how;
    bool catches_term;
} Nursery;

static void child_time(void *arg) {
    Child *k = arg;
    timer_free(k->t);
    k->exit(k->proc, k->code);
    mem_free(k);
}
static void child_term(void *arg, int signal) {
    Child *k = arg;
    *k->terms += signal == SIGTERM;
    timer_free(k->t);
    k->exit(k->proc, 99);
    mem_free(k);
}
// argv: name, milliseconds to live, exit code
static void *child_start(void *arg, Os *os, Loop *l, const char *const *argv,
                         void (*exit)(void *, int), void *proc) {
    Nursery *n = arg;
    Child *k = mem_new(sizeof *k);
    int64_t ms = 0, code = 0;
    n->starts++;
    if (loop_os(l) != os || !str_to_i64(str_z(argv[1]), &ms)) return k;
    if (argv[2] && str_to_i64(str_z(argv[2]), &code)) k->code = (int)code;
    k->l = l;
    k->exit = exit;
    k->proc = proc;
    k->killed_by = &n->killed_by;
    k->terms = &n->terms;
    k->t = timer_new(l, child_time, k);
    timer_start(k->t, ms);
    if (n->catches_term) loop_on_signal(l, SIGTERM, child_term, k);
    return k;
}
static void child_killed(void *handle, int signal) {
    Child *k = handle;
    *k->killed_by = signal;
    timer_free(k->t);
    mem_free(k);
}
static void nursery_init(Nursery *n, Sim *s) {
    *n = (Nursery){ 0 };
    sim_program(s, &(SimProgram){ "child", child_start, child_killed, n });
}
static void nursery_exited(void *arg, const ProcessExit *how) {
    ((Nursery *)arg)->exits++;
    ((Nursery *)arg)->how = *how;
}
static err start_child(Ctx *c, Nursery *n, Loop *l, const char *ms, bool detached, Process **out) {
    const char *argv[] = { "/usr/lib/child", ms, "7", NULL };
    ProcessSpec spec = { .argv = argv, .in_fd = -1, .out_fd = -1, .err_fd = -1 };
    spec.detached = detached;
    return process_start(c, &spec, l, l ? nursery_exited : NULL, n, out);
}

TEST(sim_process_exits_and_is_signalled) {
    Sim *s = sim_new(1);
    Ctx *c = sim_ctx(s, 0);
    Loop *l = loop_new(c->os);
    Nursery n;
    Process *p;
    nursery_init(&n, s);
    const char *argv[] = { "/bin/nobody", NULL };
    ProcessSpec spec = { .argv = argv };
    CHECK_ERR(process_start(c, &spec, l, nursery_exited, &n, &p), ERR_NOTFOUND);
    CHECK_OK(c, start_child(c, &n, l, "500", false, &p));
    sim_run(s, end_of(s, 10), NULL, NULL);
    CHECK_INT(n.exits, 1);
    CHECK_INT(n.how.code, 7);
    CHECK(n.how.cpu_ms >= 500);
    process_free(p);

    CHECK_OK(c, start_child(c, &n, l, "500000", false, &p));
    int64_t pid = process_pid(p);
    CHECK(pid_start_ticks(c->os, pid) > 0);
    process_signal(p, SIGTERM);
    sim_run(s, end_of(s, 1), NULL, NULL);
    CHECK_INT(n.how.signal, SIGTERM);
    CHECK_INT(pid_start_ticks(c->os, pid), 0);
    CHECK(!pid_signal(c->os, pid, 1, SIGKILL));
    process_free(p);

    n.catches_term = true;
    CHECK_OK(c, start_child(c, &n, l, "500000", false, &p));
    sim_run(s, end_of(s, 1), NULL, NULL);
    process_signal(p, SIGTERM);
    sim_run(s, end_of(s, 1), NULL, NULL);
    CHECK_INT(n.terms, 1);
    CHECK_INT(n.how.code, 99);
    CHECK_INT(n.exits, 3);
    process_free(p);
    loop_free(l);
    sim_free(s);
}

TEST(sim_process_waited_for) {
    Sim *s = sim_new(2);
    Ctx *c = sim_ctx(s, 0);
    Nursery n;
    Process *p;
    ProcessExit how;
    nursery_init(&n, s);
    CHECK_OK(c, start_child(c, &n, NULL, "500", false, &p));
    int64_t start = os_mono_ns(c->os);
    CHECK_ERR(process_wait(c, p, 100, &how), ERR_TIMEOUT);
    CHECK_INT(os_mono_ns(c->os) - start, 100 * MS);
    CHECK_OK(c, process_wait(c, p, -1, &how));
    CHECK_INT(how.code, 7);
    process_free(p);
    sim_free(s);
}

typedef struct Waiter {
    Ctx *c;
    Nursery *n;
    err e;
    ProcessExit how;
    int other;
} Waiter;
static void wait_in_pool(void *arg) { // a blocking handler
    Waiter *w = arg;
    Process *p;
    w->e = start_child(w->c, w->n, NULL, "1000", false, &p);
    if (!w->e) w->e = process_wait(w->c, p, 5000, &w->how);
    process_free(p);
}
TEST(sim_process_waited_for_in_a_pool) { // the world goes on meanwhile
    Sim *s = sim_new(3);
    Ctx *c = sim_ctx(s, 0);
    Nursery n;
    int ticks = 0;
    nursery_init(&n, s);
    Loop *l = loop_new(c->os);
    Pool *pool = pool_new(c->os, "p", 2, 8);
    Waiter w = { .c = c, .n = &n, .e = ERR_INTERNAL };
    Timer *t = timer_new(l, count, &ticks);
    timer_start(t, 500);
    CHECK(pool_submit(pool, wait_in_pool, &w));
    CHECK(pool_submit(pool, count, &w.other));
    CHECK(pool_submit(pool, count, &w.other));
    sim_run(s, end_of(s, 10), NULL, NULL);
    CHECK_OK(c, w.e);
    CHECK_INT(w.how.code, 7);
    CHECK_INT(w.other, 2);
    CHECK_INT(ticks, 1);
    pool_free(pool);
    timer_free(t);
    loop_free(l);
    sim_free(s);
}

TEST(sim_process_dies_with_its_node_unless_detached) {
    Sim *s = sim_new(4);
    Ctx *c = sim_ctx(s, 0);
    Loop *l = loop_new(c->os);
    Nursery n;
    Process *tied, *loose;
    nursery_init(&n, s);
    CHECK_OK(c, start_child(c, &n, l, "900000", false, &tied));
    CHECK_OK(c, start_child(c, &n, l, "900000", true, &loose));
    int64_t pid = process_pid(loose), ticks = pid_start_ticks(c->os, pid);
    sim_run(s, end_of(s, 1), NULL, NULL);
    CHECK_INT(n.starts, 2);
    sim_crash(s, 0, false);
    CHECK_INT(n.killed_by, SIGKILL);
    CHECK_INT(pid_start_ticks(c->os, process_pid(tied)), 0);
    CHECK_INT(pid_start_ticks(c->os, pid), ticks); // the next life can find it
    CHECK(pid_memory_bytes(c->os, pid) > 0);
    n.killed_by = 0;
    CHECK(pid_signal(c->os, pid, ticks, SIGTERM));
    sim_run(s, end_of(s, 1), NULL, NULL);
    CHECK_INT(n.killed_by, SIGTERM);
    CHECK_INT(pid_start_ticks(c->os, pid), 0);
    CHECK_INT(n.exits, 0); // who would have been told is gone
    process_free(tied);
    process_free(loose);
    loop_free(l);
    sim_free(s);
}

// --- a whole history, twice

enum { STORY_NODES = 3 };
typedef struct StoryNode {
    struct Story *story;
    int id;
    unsigned life;
    Loop *loop;
    Pool *pool;
    Timer *timer;
} StoryNode;
typedef struct Story {
    Sim *s;
    Arena *mem; // what dead nodes leave behind
    StoryNode nodes[STORY_NODES];
    int echoed, broken, logged, failed, restarts;
} Story;
typedef struct Talker {
    StoryNode *node;
    Stream *s;
    size_t left;
    bool echo;
} Talker;

static void talker_data(void *arg) {
    Talker *t = arg;
    size_t n = evbuffer_get_length(stream_in(t->s));
    if (t->echo) {
        evbuffer_add_buffer(stream_out(t->s), stream_in(t->s));
        stream_touch(t->s);
        return;
    }
    evbuffer_drain(stream_in(t->s), n);
    t->left -= n < t->left ? n : t->left;
    if (t->left) return;
    t->node->story->echoed++;
    stream_free(t->s);
}
static void talker_ended(void *arg, StreamEnd why) {
    Talker *t = arg;
    t->node->story->broken += why != STREAM_EOF;
    stream_free(t->s);
}
static const StreamEvents talker_events = { .data = talker_data, .ended = talker_ended };

static void story_accepted(void *arg, Loop *l, Stream *s) {
    StoryNode *n = arg;
    (void)l;
    Talker *t = new (n->story->mem, Talker, 1);
    *t = (Talker){ n, s, 0, true };
    stream_events(s, &talker_events, t);
}

static void story_log(void *arg) { // a blocking handler
    StoryNode *n = arg;
    Ctx c;
    File *f;
    char line[64];
    ctx_init(&c, n->story->mem, sim_node(n->story->s, n->id));
    os_random(c.os, line, sizeof line);
    if (file_open(&c, S("/log"), FILE_WRITE | FILE_CREATE, &f)) return;
    err e = file_write_at(&c, f, os_wall_ms(c.os) % 5000, line, sizeof line);
    if (!e) e = file_sync(&c, f);
    file_close(f);
    ++*(e ? &n->story->failed : &n->story->logged);
}

static void story_tick(void *arg) {
    StoryNode *n = arg;
    Sim *s = n->story->s;
    Addr to;
    Talker *t = new (n->story->mem, Talker, 1);
    snprintf(to.text, sizeof to.text, "10.0.0.%d:80", (int)sim_random(s, STORY_NODES) + 1);
    *t = (Talker){ .node = n, .left = 1 + sim_random(s, 50000) };
    t->s = stream_connect(n->loop, &to, 2000, &talker_events, t);
    void *bytes = arena_alloc(n->story->mem, t->left, 1);
    evbuffer_add(stream_out(t->s), bytes, t->left);
    stream_touch(t->s);
    pool_submit(n->pool, story_log, n);
    timer_start(n->timer, (int64_t)sim_random(s, 100));
}

static void story_start(StoryNode *n) {
    Ctx c;
    Addr any;
    Listener *l;
    Os *os = sim_node(n->story->s, n->id);
    ctx_init(&c, n->story->mem, os);
    n->life = sim_lives(n->story->s, n->id);
    n->loop = loop_new(os);
    n->pool = pool_new(os, "p", 2, 10);
    n->timer = timer_new(n->loop, story_tick, n);
    CHECK_OK(&c, addr_parse(&c, S("0.0.0.0:80"), &any));
    ListenSpec spec = { &n->loop, 1, &any, story_accepted, n };
    CHECK_OK(&c, listener_open(&c, &spec, &l));
    timer_start(n->timer, 0);
}

static void story_restart_the_dead(Story *t) {
    for (int i = 0; i < STORY_NODES; i++) {
        if (sim_lives(t->s, i) == t->nodes[i].life) continue;
        t->restarts++;
        story_start(&t->nodes[i]);
    }
}

static uint64_t tell_story(uint64_t seed, Story *t) {
    *t = (Story){ .s = sim_new(seed), .mem = arena_new() };
    for (int i = 0; i < STORY_NODES; i++) {
        t->nodes[i] = (StoryNode){ .story = t, .id = i };
        story_start(&t->nodes[i]);
    }
    sim_faults(t->s, -1,
               &(SimFaults){ .write_error = 1000,
                             .sync_error = 1000,
                             .crash = 500,
                             .connect_refused = 5000,
                             .stream_cut = 200,
                             .stream_slow = 1000,
                             .latency_us_min = 50,
                             .latency_us_max = 3000,
                             .clock_jump = 10000,
                             .clock_jump_ms_max = 5000 });
    for (int slice = 0; slice < 40; slice++) {
        sim_run(t->s, end_of(t->s, 0) + 200 * MS, NULL, NULL);
        story_restart_the_dead(t);
        int node = (int)sim_random(t->s, STORY_NODES);
        if (sim_random(t->s, 8) == 0) sim_crash(t->s, node, sim_random(t->s, 2));
        sim_partition(t->s, node, (node + 1) % STORY_NODES, sim_random(t->s, 4) == 0);
        story_restart_the_dead(t);
    }
    uint64_t digest = sim_digest(t->s);
    sim_free(t->s);
    arena_free(t->mem);
    return digest;
}

TEST(sim_same_seed_same_history) {
    uint64_t before = 0;
    int restarts = 0, broken = 0, failed = 0;
    for (uint64_t seed = 0; seed < 8; seed++) {
        Story one, two;
        uint64_t first = tell_story(seed, &one), second = tell_story(seed, &two);
        CHECK(first == second);
        CHECK(first != before);
        CHECK_INT(one.echoed, two.echoed);
        CHECK(one.echoed > 50 && one.logged > 50);
        before = first;
        restarts += one.restarts;
        broken += one.broken;
        failed += one.failed;
    }
    CHECK(restarts > 0 && broken > 0 && failed > 0); // the faults were there
}

TEST(sim_wall_clock_jumps) {
    Sim *s = sim_new(11);
    Os *os = sim_node(s, 0);
    sim_faults(s, 0, &(SimFaults){ .clock_jump = 500000, .clock_jump_ms_max = 1000 });
    int jumps = 0, back = 0;
    int64_t mono = os_mono_ns(os);
    for (int64_t i = 0, last = os_wall_ms(os); i < 100; i++) {
        int64_t now = os_wall_ms(os);
        jumps += now != last;
        back += now < last;
        last = now;
    }
    CHECK(jumps > 20 && back > 5);
    CHECK_INT(os_mono_ns(os), mono);
    sim_free(s);
}
