// SPDX-License-Identifier: Apache-2.0
// sim.c - the simulated machine's scheduler, clock and dice, its nodes and their deaths. Files,
// streams, loops and processes are the other sim_ files.
// Owner: sim_new's caller. Threads: one, that which calls.
#include "os/sim_impl.h"
#include "os/sim_pthread.h"
#include <assert.h>
#include <errno.h>
#include <stdio.h>

enum { START_NS = 1000000000 };                     // not zero: that means "no deadline"
static const int64_t START_WALL_MS = 1767225600000; // 2026-01-01

// --- dice and digest

// SplitMix64 (Steele, Lea and Flood, 2014): any seed is a good one.
uint64_t sim_draw(Sim *s) {
    uint64_t z = s->dice += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint64_t sim_random(Sim *s, uint64_t below) {
    assert(below > 0);
    return sim_draw(s) % below;
}

int64_t sim_between(Sim *s, int64_t low, int64_t high) {
    assert(low <= high);
    return low + (int64_t)sim_random(s, (uint64_t)(high - low) + 1);
}

bool sim_chance(Sim *s, unsigned in_a_million) {
    return in_a_million && sim_random(s, 1000000) < in_a_million;
}

void sim_mix(Sim *s, uint64_t value) {
    s->digest = (s->digest ^ value) * 0x9fb21c651e98df25u;
    s->digest ^= s->digest >> 28;
}

void sim_mix_bytes(Sim *s, const void *p, size_t n) {
    uint64_t h = n, word = 0;
    for (; n >= sizeof word; n -= sizeof word, p = (const char *)p + sizeof word) {
        memcpy(&word, p, sizeof word);
        h = (h ^ word) * 0x9fb21c651e98df25u;
        h ^= h >> 28;
    }
    word = 0;
    if (n) memcpy(&word, p, n);
    sim_mix(s, h ^ word);
}

uint64_t sim_digest(Sim *s) { return s->digest; }

// --- events

static bool earlier(const SimEvent *a, const SimEvent *b) {
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->tie < b->tie;
}

void sim_at(Sim *s, int64_t at_ns, void (*fn)(void *), void *arg) {
    assert(at_ns >= s->now_ns);
    if (s->heap_n == s->heap_cap) {
        s->heap_cap = s->heap_cap ? s->heap_cap * 2 : 256;
        s->heap = mem_grow(s->heap, s->heap_cap, sizeof *s->heap);
    }
    SimEvent e = { at_ns, sim_draw(s), fn, arg };
    size_t i = s->heap_n++;
    for (; i && earlier(&e, &s->heap[(i - 1) / 2]); i = (i - 1) / 2)
        s->heap[i] = s->heap[(i - 1) / 2];
    s->heap[i] = e;
}

static SimEvent take_first(Sim *s) {
    SimEvent first = s->heap[0], last = s->heap[--s->heap_n];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < s->heap_n; i = child) {
        if (child + 1 < s->heap_n && earlier(&s->heap[child + 1], &s->heap[child])) child++;
        if (!earlier(&s->heap[child], &last)) break;
        s->heap[i] = s->heap[child];
    }
    s->heap[i] = last;
    return first;
}

static void bury_the_dying(Sim *s) {
    s->any_dying = false;
    for (int i = 0; i < SIM_NODES_MAX; i++)
        if (s->nodes[i] && s->nodes[i]->os.dying) sim_crash(s, i, s->nodes[i]->dies_of_power);
}

bool sim_step(Sim *s, int64_t until_ns) {
    if (!s->heap_n || s->heap[0].at_ns > until_ns) return false;
    SimEvent e = take_first(s);
    s->now_ns = e.at_ns;
    s->steps++;
    sim_mix(s, (uint64_t)s->now_ns);
    SimLoop *before = s->current; // a step within a step: its loop waits
    s->current = NULL;
    s->depth++;
    e.fn(e.arg);
    s->depth--;
    s->current = before;
    if (s->any_dying && !s->depth) bury_the_dying(s);
    return true;
}

uint64_t sim_run(Sim *s, int64_t until_ns, bool (*done)(void *), void *arg) {
    assert(!s->depth);
    uint64_t first = s->steps;
    if (s->any_dying) bury_the_dying(s);
    for (;;) {
        if (done && done(arg)) break;
        sim_loops_kick(s);
        if (sim_step(s, until_ns)) continue;
        if (s->heap_n && s->now_ns < until_ns) s->now_ns = until_ns; // something waits beyond it
        break;
    }
    return s->steps - first;
}

// --- the handle's operations

static int64_t mono_ns(Os *os) { return sim_os(os)->sim->now_ns; }

static int64_t wall_ns(Os *os) {
    Sim *s = sim_os(os)->sim;
    SimNode *n = sim_os(os)->node;
    if (sim_chance(s, n->faults.clock_jump) && n->faults.clock_jump_ms_max > 0)
        n->wall_skew_ms +=
            sim_between(s, -n->faults.clock_jump_ms_max, n->faults.clock_jump_ms_max);
    return (START_WALL_MS + n->wall_skew_ms) * 1000000 + s->now_ns;
}

static void random_bytes(Os *os, void *out, size_t n) {
    for (size_t done = 0; done < n; done += 8) {
        uint64_t r = sim_draw(sim_os(os)->sim);
        memcpy((char *)out + done, &r, n - done < 8 ? n - done : 8);
    }
}

static const char *env(Os *os, const char *name) { return (void)os, (void)name, NULL; }
static const char *const *environment(Os *os) {
    static const char *const none[] = { NULL };
    return (void)os, none;
}

static void facts(Os *os, OsFacts *out) {
    *out = (OsFacts){ .memory_bytes = (int64_t)16 << 30,
                      .memory_available_bytes = (int64_t)12 << 30,
                      .cpus = 4,
                      .open_files_max = 65536,
                      .cpu_model = "simulated",
                      .cpu_flags = "avx2 fma" };
    int64_t cut_ns = sim_os(os)->node->power_cut_ns;
    snprintf(out->boot, sizeof out->boot, "boot-%lld", (long long)cut_ns);
}

static void usage(Os *os, OsUsage *out) {
    out->started_ms = START_WALL_MS;
    out->cpu_us = mono_ns(os) / 1000;
    out->memory_bytes = out->virtual_bytes = (int64_t)64 << 20;
    out->threads = 1;
    out->host_cpu_ms[OS_CPU_USER] = mono_ns(os) / 1000000;
}

static str program(Ctx *c) { return (void)c, S("/sim/lathe"); }
static const char *sandbox_name(Os *os) { return (void)os, "simulated"; }

static void pause_thread(Os *os, int64_t ns) { (void)os, sim_thread_sleep(ns); }
static bool can_start(Os *os) { return (void)os, sim_thread_here(); }

const OsOps sim_ops = {
    .wall_ns = wall_ns,
    .mono_ns = mono_ns,
    .cpu_ns = mono_ns,
    .random = random_bytes,
    .env = env,
    .environment = environment,
    .facts = facts,
    .usage = usage,
    .program = program,

    .file_open = sim_file_open,
    .path_rename = sim_path_rename,
    .path_remove = sim_path_remove,
    .path_remove_tree = sim_path_remove_tree,
    .path_info = sim_path_info,
    .dir_make = sim_dir_make,
    .dir_list = sim_dir_list,
    .dir_sync = sim_dir_sync,
    .disk_free = sim_disk_space,
    .disk_size = sim_disk_size,

    .can_start = can_start,
    .pause = pause_thread,
    .thread_start = sim_thread_start,
    .loop_new = sim_loop_new,
    .pool_new = sim_pool_new,
    .stream_connect = sim_stream_connect,
    .stream_adopt = sim_stream_adopt,
    .listener_open = sim_listener_open,
    .resolve = sim_resolve,

    .process_start = sim_process_start,
    .sandbox_name = sandbox_name,
    .pid_start_ticks = sim_pid_start_ticks,
    .pid_ending = sim_pid_ending,
    .pid_signal = sim_pid_signal,
    .pid_memory_bytes = sim_pid_memory_bytes,
    .pid_cpu_ms = sim_pid_cpu_ms,
    .pipe_make = sim_pipe_make,
    .pipe_close = sim_pipe_close,
};

// --- nodes

void sim_os_init(SimOs *os, Sim *s, SimNode *node) {
    *os = (SimOs){ .head = { &sim_ops }, .sim = s, .node = node };
}

Os *sim_node(Sim *s, int node) {
    assert(node >= 0 && node < SIM_NODES_MAX);
    if (s->any_dying && !s->depth) bury_the_dying(s);
    if (!s->nodes[node]) {
        SimNode *n = s->nodes[node] = mem_new(sizeof *n);
        sim_os_init(&n->os, s, n);
        n->id = node;
        n->next_port = 40000;
        n->faults = (SimFaults){ .latency_us_min = 20, .latency_us_max = 200 };
        n->disk = sim_disk_new(s);
    }
    return &s->nodes[node]->os.head;
}

static SimNode *node_of(Sim *s, int node) { return sim_os(sim_node(s, node))->node; }

void sim_faults(Sim *s, int node, const SimFaults *f) {
    assert(f->latency_us_min >= 0 && f->latency_us_min <= f->latency_us_max);
    if (node >= 0) node_of(s, node)->faults = *f;
    for (int i = 0; node < 0 && i < SIM_NODES_MAX; i++)
        if (s->nodes[i]) s->nodes[i]->faults = *f;
}

void sim_partition(Sim *s, int a, int b, bool cut) {
    assert(a >= 0 && a < SIM_NODES_MAX && b >= 0 && b < SIM_NODES_MAX && a != b);
    s->cut[a][b] = s->cut[b][a] = cut;
    sim_mix(s, (uint64_t)a << 16 | (uint64_t)b << 8 | cut);
}

void sim_mount(Sim *s, int node, const char *dir, int owner) {
    SimNode *n = node_of(s, node);
    assert(node != owner && *dir == '/');
    n->mount = dir;
    n->mounted = node_of(s, owner);
}

void sim_stall(Sim *s, int node, int64_t ns) {
    assert(ns >= 0);
    SimNode *n = node_of(s, node);
    if (n->stalled_until_ns < s->now_ns + ns) n->stalled_until_ns = s->now_ns + ns;
    sim_mix(s, (uint64_t)node << 8 | 0x57a11);
}

void sim_disk_max(Sim *s, int node, int64_t bytes) {
    sim_disk_limit(node_of(s, node)->disk, bytes);
}

int64_t sim_power_cut_ns(Sim *s, int node) { return node_of(s, node)->power_cut_ns; }
unsigned sim_lives(Sim *s, int node) { return node_of(s, node)->os.life; }

void sim_os_lost(SimOs *os, bool quiet) {
    sim_streams_lost(os, quiet);
    for (Link *at = os->sim->loops.next; at != &os->sim->loops; at = at->next) {
        SimLoop *l = link_of(at, SimLoop, link);
        if (l->os == os) l->head.lost = true;
    }
    os->life++;
    os->dying = false;
}

void sim_die_here(SimOs *os) {
    Sim *s = os->sim;
    if (os->node->os.dying) return;
    os->node->os.dying = os->dying = s->any_dying = true;
    os->node->dies_of_power = sim_random(s, 2);
    sim_mix(s, 0xdead);
}

void sim_crash(Sim *s, int node, bool power) {
    assert(!s->depth); // from outside sim_run, or between its steps
    SimNode *n = s->nodes[node];
    assert(n);
    sim_mix(s, (uint64_t)node << 1 | power);
    n->os.dying = true; // what `killed` does has no effect
    n->holds = 0, n->stalled_until_ns = 0;
    sim_processes_lost(n, power);
    sim_os_lost(&n->os, power && sim_random(s, 2));
    if (power) {
        n->power_cut_ns = s->now_ns;
        sim_disk_power_cut(n->disk);
    }
    sim_disk_recount(n->disk);
    if (n->mounted) sim_disk_recount(n->mounted->disk);
}

void sim_program(Sim *s, const SimProgram *p) {
    assert(p->name && p->start && s->programs_n < countof(s->programs));
    s->programs[s->programs_n++] = *p;
}

// --- the world

void sim_own(Sim *s, SimThing *t, void (*free)(SimThing *)) {
    t->free = free;
    link_add(&s->things, &t->link);
}

Sim *sim_new(uint64_t seed) {
    Sim *s = mem_new(sizeof *s);
    s->dice = seed;
    s->now_ns = START_NS;
    s->next_pid = 1000;
    s->next_number = 1000000; // no descriptor of the machine's is ever so high
    link_init(&s->sinks);
    link_init(&s->loops);
    link_init(&s->things);
    link_init(&s->listeners);
    link_init(&s->processes);
    link_init(&s->conns);
    sim_threads_init(s);
    sim_mix(s, seed);
    return s;
}

void sim_free(Sim *s) {
    if (!s) return;
    assert(!s->depth);
    for (int i = 0; i < SIM_NODES_MAX; i++) // so that the programs free what is theirs
        if (s->nodes[i]) sim_processes_lost(s->nodes[i], true);
    while (!link_alone(&s->loops)) sim_loop_drop(link_of(s->loops.next, SimLoop, link));
    while (!link_alone(&s->things)) {
        SimThing *t = link_of(s->things.next, SimThing, link);
        link_del(&t->link);
        t->free(t);
    }
    for (int i = 0; i < SIM_NODES_MAX; i++) {
        if (s->nodes[i]) sim_disk_free(s->nodes[i]->disk);
        mem_free(s->nodes[i]);
    }
    sim_threads_done(s);
    mem_free(s->heap);
    mem_free(s);
}
