// SPDX-License-Identifier: Apache-2.0
// world.c - see sim_run.h: one seed's world. Servers run `lathe serve` under a supervisor that
// starts it again, other nodes the fake engine and the clients. First all is set up without faults;
// then the seed draws faults and deaths while clients work; then faults end, and check.c looks.
#include "sim_run.h"
#include "os/sim_pthread.h"
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#define SECOND INT64_C(1000000000)
enum { SETUP_S = 120, WORK_S = 1200, SETTLE_S = 900, LOST_NS = 50000000, BEHIND_S = 5 };
const int server_nodes[SERVERS_MAX] = { 0, 4, 5 };

void world_fail(World *w, const char *fmt, ...) {
    va_list args;
    if (w->failed) return;
    w->failed = true;
    va_start(args, fmt);
    vsnprintf(w->why, sizeof w->why, fmt, args);
    va_end(args);
}

static void keep(Ctx *c, str from, const char *to) {
    str *names, bytes;
    size_t n;
    mkdir(to, 0700);
    if (dir_list(c, from, &names, &n)) return;
    for (size_t i = 0; i < n; i++) {
        str path = arena_printf(c->mem, STR_FMT "/" STR_FMT, STR_ARG(from), STR_ARG(names[i]));
        const char *out = arena_printf(c->mem, "%s/" STR_FMT, to, STR_ARG(names[i])).p;
        PathInfo info;
        if (path_info(c, path, &info)) continue;
        if (info.is_dir) {
            keep(c, path, out);
        } else if (!file_read_all(c, path, (size_t)info.size, &bytes)) {
            FILE *f = fopen(out, "w");
            if (f) fwrite(bytes.p, 1, bytes.n, f), fclose(f);
        }
    }
}

void world_keep(World *w, const char *dir) {
    Ctx c;
    ctx_init(&c, arena_new(), sim_node(w->sim, w->servers[0].node));
    keep(&c, S("/data"), dir);
    arena_free(c.mem);
}

static int64_t now_ns(World *w) { return os_mono_ns(sim_node(w->sim, NODE_CLIENT)); }

// ---- programs

typedef struct Life {
    World *w;
    Server *s;
} Life;

// Who cannot write for eight seconds, because it stands still, does not start.
static void serve_ended(void *arg, int code) {
    Life *l = arg;
    bool stalled = l->w->stalls && now_ns(l->w) < l->s->trouble_ns;
    l->s->serving = false;
    if (l->w->quiet && !stalled)
        world_fail(l->w, "serve on %s ended with %d though nothing was wrong", l->s->at.text, code);
}

static void start_serve(World *w, Server *s) {
    char listen[140], program[600];
    Life *life = mem_new(sizeof *life);
    snprintf(listen, sizeof listen, "--listen=%s", s->at.text);
    snprintf(program, sizeof program, STR_FMT "/lathe.so", STR_ARG(w->dir));
    const char *argv[] = { "lathe",
                           "serve",
                           "--data=/data",
                           listen,
                           "--serve.loops=2",
                           "--serve.workers=4",
                           "--serve.drain=5s",
                           "--deployment.probe_every=2s",
                           "--deployment.backoff_max=5s",
                           "--deployment.hung_after=10s",
                           "--deployment.llama_server=/sim/llama-server",
                           w->servers_n > 1 ? "--db.url=sqlite:/shared/lathe.db" : NULL,
                           NULL };
    *life = (Life){ w, s };
    s->serving = true;
    s->starts++;
    program_start(sim_node(w->sim, s->node), program, argv, serve_ended, life);
}

static void engine_ended(void *arg, int code) { world_fail(arg, "the engine ended with %d", code); }

static void start_engine(World *w) {
    char program[600], seed[32];
    snprintf(program, sizeof program, STR_FMT "/fake-engine.so", STR_ARG(w->dir));
    snprintf(seed, sizeof seed, "%u", (unsigned)(w->seed % 1000000) + 1);
    const char *argv[] = { "fake-engine", "--host",     "10.0.0.2", "--port",
                           "9000",        "--parallel", "4",        "--tokens",
                           "12",          "--token-ms", "20",       "--seed",
                           seed,          "--keep",     "65536",    NULL };
    engine_watch(w, program_start(sim_node(w->sim, NODE_ENGINE), program, argv, engine_ended, w));
}

// ---- faults

// What may keep a server behind its database for a while.
static bool is_trouble(const SimFaults *f) {
    return f->crash || f->write_full || f->write_error || f->sync_error || f->read_error;
}

static SimFaults draw_faults(Sim *s) {
    SimFaults f = { .latency_us_min = 20, .latency_us_max = 2000 };
    unsigned kind = (unsigned)sim_random(s, 8);
    if (kind == 0) f.crash = 300;
    if (kind == 1) f.write_full = 2000;
    if (kind == 2) f.write_error = 500, f.sync_error = 500;
    if (kind == 3) f.read_error = 300;
    if (kind == 4) f.stream_cut = 3000, f.connect_refused = 20000;
    if (kind == 5) f.stream_slow = 20000;
    if (kind == 6) f.clock_jump = 200, f.clock_jump_ms_max = 3600000;
    if (!sim_random(s, 6)) f.start_error = 300000;
    return f;
}

// What only a server meets that shares its database: the way there is cut, or it stands still for
// longer than its leases last.
static void shared_weather(World *w, Server *server, int64_t until_ns) {
    Sim *s = w->sim;
    bool cut = !sim_random(s, 8), stall = !sim_random(s, 6);
    int64_t stall_ns = (int64_t)sim_random(s, 8000) * 1000000;
    sim_partition(s, server->node, NODE_DATABASE, cut);
    if (stall) {
        sim_stall(s, server->node, stall_ns);
        if (now_ns(w) > server->stalled_ns + LOST_NS) server->stall_ns = now_ns(w);
        if (server->stalled_ns < now_ns(w) + stall_ns) server->stalled_ns = now_ns(w) + stall_ns;
    }
    w->faults += cut + stall;
    if (cut || stall)
        fprintf(stderr, "sim: %s at %lld ms: cut %d, stall %lld ms\n", server->at.text,
                (long long)(now_ns(w) / 1000000), cut, (long long)(stall ? stall_ns / 1000000 : 0));
    int64_t end_ns = server->stalled_ns > until_ns ? server->stalled_ns : until_ns;
    if (cut || stall) server->trouble_ns = end_ns + BEHIND_S * SECOND;
}

// In such a world a leader decides, stands still for longer than its lease, and writes: its guard
// must find out. The others are well, so one of them has taken over.
static void stall_weather(World *w, Server *server, int64_t until_ns) {
    enum { STALL_MS = 8000 };
    SimFaults f = { .latency_us_min = 20, .latency_us_max = 500 }, engine = f;
    if (server == &w->servers[w->staller]) {
        f.stall = 80000, f.stall_ms_max = STALL_MS;
        server->trouble_ns = until_ns + STALL_MS * INT64_C(1000000) + BEHIND_S * SECOND;
        w->faults++;
    }
    sim_faults(w->sim, server->node, &f);
    if (sim_random(w->sim, 2)) engine.stream_cut = 3000, engine.connect_refused = 20000;
    sim_faults(w->sim, NODE_ENGINE, &engine);
}

static void server_weather(World *w, Server *server, int64_t until_ns) {
    Sim *s = w->sim;
    SimFaults f = draw_faults(s), calm = { .latency_us_min = 20, .latency_us_max = 500 };
    if (is_trouble(&f)) server->trouble_ns = until_ns + BEHIND_S * SECOND;
    sim_faults(s, server->node, &f);
    if (f.write_full || f.write_error) server->refused_ns = until_ns;
    f.crash = f.write_error = f.sync_error = f.read_error = f.write_full = 0;
    f.clock_jump = 0;
    sim_faults(s, NODE_ENGINE, sim_random(s, 2) ? &f : &calm);
    bool cut = !sim_random(s, 12);
    sim_partition(s, server->node, NODE_ENGINE, cut);
    w->faults += cut;
    if (w->servers_n > 1) shared_weather(w, server, until_ns);
    if (sim_random(s, 10) < 4) {
        sim_crash(s, server->node, sim_random(s, 3) == 0);
        w->faults++;
    }
}

// A little of everything, a piece of virtual time long.
static int64_t next_weather(World *w) {
    int64_t until_ns = now_ns(w) + (200 + (int64_t)sim_random(w->sim, 3800)) * 1000000;
    for (int i = 0; i < w->servers_n; i++) {
        (w->stalls ? stall_weather : server_weather)(w, &w->servers[i], until_ns);
        children_weather(w, w->servers[i].node);
    }
    return until_ns;
}

static void calm(World *w) {
    SimFaults none = { .latency_us_min = 20, .latency_us_max = 500 };
    sim_faults(w->sim, NODE_ENGINE, &none);
    sim_faults(w->sim, NODE_CLIENT, &none);
    for (int i = 0; i < w->servers_n; i++) {
        sim_faults(w->sim, w->servers[i].node, &none);
        sim_partition(w->sim, w->servers[i].node, NODE_ENGINE, false);
        sim_partition(w->sim, w->servers[i].node, NODE_DATABASE, false);
    }
}

// What was written less than 50 ms before a death may not be on the disk: the next life makes it so
// before it answers anybody. A power cut until then may take it, a process that dies takes nothing,
// but for what a disk refused that had promised the room: it is in memory until it is taken.
static void mark(World *w, Server *s) {
    int64_t cut_ns = sim_power_cut_ns(w->sim, s->node);
    bool power = cut_ns != s->cut_ns;
    int64_t end_ns = power ? cut_ns : s->looked_ns; // who stands still syncs nothing
    if (s->stalled_ns + LOST_NS >= end_ns && s->stall_ns < end_ns) end_ns = s->stall_ns;
    fprintf(stderr, "sim: %s has died: %s at %lld ms, seen at %lld ms\n", s->at.text,
            power ? "no power" : "killed", (long long)(end_ns / 1000000),
            (long long)(now_ns(w) / 1000000));
    for (size_t i = 0; i < w->told_n; i++) {
        Told *t = &w->told[i];
        if (&w->servers[t->server] != s) continue;
        t->at_risk |= t->at_ns >= end_ns - LOST_NS;
        t->cut |= power && t->at_risk;
        t->lost |= t->cut;
        t->lost |= t->at_ns <= s->refused_ns && t->at_ns >= s->looked_ns - SECOND;
    }
    s->cut_ns = cut_ns;
    s->died_ns = now_ns(w);
}

static void answers_again(World *w, const Server *s) {
    for (size_t i = 0; i < w->told_n && s->answered_ns > s->died_ns; i++)
        if (&w->servers[w->told[i].server] == s) w->told[i].at_risk = false;
}

// The supervisor: whatever has died or ended is started again.
static void supervise(World *w) {
    for (int i = 0; i < w->servers_n; i++) {
        Server *s = &w->servers[i];
        unsigned lives = sim_lives(w->sim, s->node);
        if ((int)lives != s->deaths) {
            s->deaths = (int)lives, s->serving = false;
            mark(w, s);
        }
        answers_again(w, s);
        if (!s->serving) start_serve(w, s);
        s->looked_ns = now_ns(w);
    }
}

// ---- phases

typedef struct Worker {
    World *w;
    int number;
} Worker;
static void run_setup(void *arg) { work_setup(arg); }
static void run_client(void *arg) {
    Worker *k = arg;
    work_client(k->w, k->number);
    k->w->clients_left--;
}
static void run_check(void *arg) {
    World *w = arg;
    check_end(w);
    w->clients_left--;
}

static bool is_ready(void *arg) { return ((World *)arg)->ready || ((World *)arg)->failed; }
static bool is_done(void *arg) { return !((World *)arg)->clients_left || ((World *)arg)->failed; }

static void work(World *w) {
    static Worker workers[CLIENTS]; // threads of theirs may outlive this
    Os *os = sim_node(w->sim, NODE_CLIENT);
    int64_t end = now_ns(w) + WORK_S * SECOND;
    w->clients_left = CLIENTS;
    for (int i = 0; i < CLIENTS; i++) {
        workers[i] = (Worker){ w, i };
        sim_thread_start(os, "client", run_client, &workers[i], NULL);
    }
    while (!is_done(w) && now_ns(w) < end) {
        supervise(w);
        sim_run(w->sim, next_weather(w), is_done, w);
    }
    if (!is_done(w)) world_fail(w, "%d clients did not come to their end", w->clients_left);
}

static void settle(World *w) {
    int64_t end = now_ns(w) + SETTLE_S * SECOND;
    calm(w);
    children_calm(w);
    supervise(w);
    w->quiet = true;
    w->clients_left = 1;
    sim_thread_start(sim_node(w->sim, NODE_CLIENT), "check", run_check, w, NULL);
    while (!is_done(w) && now_ns(w) < end) {
        supervise(w);
        sim_run(w->sim, now_ns(w) + SECOND, is_done, w);
    }
    if (!is_done(w)) world_fail(w, "it did not settle in %d s: %s", SETTLE_S, w->waits);
}

// ---- a server that is away, when nothing else is wrong: its shims keep its engines, and end them
// when it does not come back.

static void run_phase(World *w, void (*fn)(void *)) {
    int64_t end = now_ns(w) + SETTLE_S * SECOND;
    w->clients_left = 1;
    sim_thread_start(sim_node(w->sim, NODE_CLIENT), "check", fn, w, NULL);
    sim_run(w->sim, end, is_done, w);
    if (!is_done(w)) world_fail(w, "it did not settle in %d s: %s", SETTLE_S, w->waits);
}
static void run_again(void *arg) {
    World *w = arg;
    check_again(w);
    w->clients_left--;
}
static void run_delete(void *arg) {
    World *w = arg;
    check_deleted(w);
    w->clients_left--;
}

static void away(World *w) {
    enum { SHORT_S = 45, LONG_S = 80 }; // a shim's grace is 60 s, and its engine's end 10 s
    Server *s = &w->servers[sim_random(w->sim, (uint64_t)w->servers_n)];
    bool is_long = sim_random(w->sim, 2);
    bool well = children_well(w);
    size_t started = w->children_n;
    sim_crash(w->sim, s->node, false);
    int64_t away_s = is_long ? LONG_S : 1 + (int64_t)sim_random(w->sim, SHORT_S);
    sim_run(w->sim, now_ns(w) + away_s * SECOND, NULL, NULL);
    if (is_long
        && children_alive(w, CHILD_SHIM, s->node) + children_alive(w, CHILD_ENGINE, s->node))
        world_fail(w, "%s was away for %d s and its children live", s->at.text, LONG_S);
    supervise(w);
    run_phase(w, run_again);
    if (well && !is_long && w->servers_n == 1 && w->children_n != started)
        world_fail(w, "%s was away for %d s and %zu children were started instead of adopted",
                   s->at.text, (int)away_s, w->children_n - started);
    if (!w->failed) run_phase(w, run_delete);
}

static void place(World *w) {
    snprintf(w->engine.text, sizeof w->engine.text, "10.0.0.%d:9000", NODE_ENGINE + 1);
    for (int i = 0; i < w->servers_n; i++) {
        Server *s = &w->servers[i];
        s->node = server_nodes[i];
        snprintf(s->at.text, sizeof s->at.text, "10.0.0.%d:8642", s->node + 1);
    }
}

// The others take the first one's master key, as their operator would give it to them.
static bool give_key(World *w) {
    Ctx c;
    str key;
    ctx_init(&c, arena_new(), sim_node(w->sim, w->servers[0].node));
    err e = file_read_all(&c, S("/data/master.key"), 4096, &key);
    for (int i = 1; i < w->servers_n && !e; i++) {
        c.os = sim_node(w->sim, w->servers[i].node);
        e = dir_make(&c, S("/data"), 0700);
        if (!e) e = file_write_all(&c, S("/data/master.key"), key, FILE_PRIVATE);
    }
    arena_free(c.mem);
    return !e;
}

// Nodes share the folder of objects; here each has what was in it.
static void give_objects(World *w, const Server *to, const char *dir) {
    Ctx from, c;
    str *names, bytes;
    size_t n = 0;
    ctx_init(&from, arena_new(), sim_node(w->sim, w->servers[0].node));
    ctx_init(&c, from.mem, sim_node(w->sim, to->node));
    err e = dir_make(&c, str_z(dir), 0700);
    if (!e) e = dir_list(&from, str_z(dir), &names, &n);
    for (size_t i = 0; i < n && !e; i++) {
        const char *path = arena_printf(c.mem, "%s/" STR_FMT, dir, STR_ARG(names[i])).p;
        PathInfo info;
        e = path_info(&from, str_z(path), &info);
        if (!e && info.is_dir) give_objects(w, to, path);
        if (e || info.is_dir) continue;
        e = file_read_all(&from, str_z(path), (size_t)info.size, &bytes);
        if (!e) e = file_write_all(&c, str_z(path), bytes, 0);
    }
    if (e) world_fail(w, "objects cannot be given to %s", to->at.text);
    arena_free(c.mem);
}

static void run_join(void *arg) { work_join(arg); }

static void run_watch(void *arg) { lease_watch(arg); }
static bool is_watched(void *arg) { return ((World *)arg)->watched; }

static void others(World *w) {
    w->ready = false;
    sim_thread_start(sim_node(w->sim, NODE_DATABASE), "watch", run_watch, w, NULL);
    sim_run(w->sim, now_ns(w) + SETUP_S * SECOND, is_watched, w);
    if (!give_key(w)) world_fail(w, "the master key cannot be given to the others");
    for (int i = 1; i < w->servers_n; i++) give_objects(w, &w->servers[i], "/data/blob");
    for (int i = 1; i < w->servers_n; i++) start_serve(w, &w->servers[i]);
    sim_thread_start(sim_node(w->sim, NODE_CLIENT), "join", run_join, w, NULL);
    sim_run(w->sim, now_ns(w) + SETUP_S * SECOND, is_ready, w);
    if (!w->ready) world_fail(w, "the others were not ready after %d s", SETUP_S);
}

static void share(World *w) {
    Ctx c;
    ctx_init(&c, arena_new(), sim_node(w->sim, NODE_DATABASE));
    err e = dir_make(&c, S("/shared"), 0700);
    if (e) world_fail(w, "the database has no folder");
    arena_free(c.mem);
    for (int i = 0; i < w->servers_n; i++)
        sim_mount(w->sim, w->servers[i].node, "/shared", NODE_DATABASE);
}

bool world_run(uint64_t seed, const char *dir, World *w) {
    *w = (World){ .seed = seed, .dir = str_z(dir), .sim = sim_new(seed), .rounds = w->rounds };
    w->told = mem_new(CALLS_MAX * sizeof *w->told);
    w->changes = mem_new(CALLS_MAX * sizeof *w->changes);
    w->runs = mem_new(RUNS_MAX * sizeof *w->runs);
    w->children = mem_new(CHILDREN_MAX * sizeof *w->children);
    children_open(w);
    w->servers_n = sim_random(w->sim, 2) ? 1 : 2 + (int)sim_random(w->sim, 2);
    w->stalls = w->servers_n > 1 && !sim_random(w->sim, 3);
    w->staller = 0; // it made the deployment, and leads it
    place(w);
    if (w->servers_n > 1) share(w);
    calm(w);
    start_engine(w);
    start_serve(w, &w->servers[0]);
    sim_thread_start(sim_node(w->sim, NODE_CLIENT), "setup", run_setup, w, NULL);
    sim_run(w->sim, now_ns(w) + SETUP_S * SECOND, is_ready, w);
    if (!w->ready) world_fail(w, "it was not ready after %d s: %s", SETUP_S, w->waits);
    if (!w->failed && w->servers_n > 1) others(w);
    sim_preempt(w->sim, (unsigned)sim_random(w->sim, 3) * 20000);
    if (!w->failed) work(w);
    if (!w->failed) settle(w);
    if (!w->failed) away(w);
    return !w->failed;
}
