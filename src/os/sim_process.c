// SPDX-License-Identifier: Apache-2.0
// sim_process.c - simulated children: programs of the test, each with an Os and a loop of its own.
// Signals end them unless their loop asked for the signal; SIGKILL always does.
// Owner: process_start's caller; the child itself lives until sim_free. Threads: one.
#include "os/sim_impl.h"
#include "os/sim_pthread.h"
#include <assert.h>
#include <errno.h>
#include <signal.h>

static const int64_t MS = 1000000;
enum { START_NS_MAX = 2000000, MEMORY_BYTES = 1 << 20, LOOK_NS = 5000000 };

typedef struct SimProcess {
    Process head;
    SimThing thing;
    Link link; // in Sim.processes
    SimOs os;  // the child's
    SimOs *parent;
    unsigned parent_life;
    const SimProgram *program;
    char **argv;
    SimLoop *loop; // the child's
    void *handle;
    int64_t pid, started_ns;
    bool running, detached, ended, told, forgotten;
    ProcessExit how;
    SimLoop *teller; // the parent's loop; NULL: process_wait
    ProcessExited exited;
    void *arg;
    SimSink *sinks[2]; // its output, its errors
} SimProcess;

static void free_thing(SimThing *t) {
    SimProcess *p = link_of(t, SimProcess, thing);
    for (size_t i = 0; p->argv[i]; i++) mem_free(p->argv[i]);
    mem_free(p->argv);
    mem_free(p);
}

static void tell_exit(void *arg) {
    SimProcess *p = arg;
    if (p->told || p->forgotten || !sim_alive(p->parent, p->parent_life)) return;
    p->told = true;
    p->exited(p->arg, &p->how);
}

static void exit_comes(void *arg) {
    SimProcess *p = arg;
    if (!p->teller) return;
    sim_turn(p->teller, tell_exit, p);
    sim_loop_unref(p->teller);
    p->teller = NULL;
}

static void end(SimProcess *p, int code, int signal);

// Those that are not detached have asked to be told of it by SIGKILL (PR_SET_PDEATHSIG).
static void end_children_of(const SimOs *parent) {
    for (Link *at = parent->sim->processes.next; at != &parent->sim->processes; at = at->next) {
        SimProcess *p = link_of(at, SimProcess, link);
        if (p->parent == parent && !p->detached) end(p, 0, SIGKILL);
    }
}

// The child's memory is gone; its parent learns of it in a while.
static void end(SimProcess *p, int code, int signal) {
    Sim *s = p->os.sim;
    if (p->ended) return;
    p->ended = p->os.gone = true;
    p->how = (ProcessExit){ .code = code,
                            .signal = signal,
                            .cpu_ms = (s->now_ns - p->started_ns) / MS,
                            .memory_peak_bytes = MEMORY_BYTES };
    sim_mix(s, (uint64_t)p->pid << 16 | (uint64_t)code << 8 | (uint64_t)signal);
    sim_os_lost(&p->os, false);
    if (p->running && signal && p->program->killed) p->program->killed(p->handle, signal);
    sim_disk_recount(p->os.node->disk);
    for (int i = 0; i < 2; i++) sim_sink_close(p->sinks[i]);
    end_children_of(&p->os);
    sim_at(s, s->now_ns + sim_between(s, 1, START_NS_MAX), exit_comes, p);
}

static void exit_of_program(void *proc, int code) {
    SimProcess *p = proc;
    end(p, code & 0xff, 0);
}

void sim_process_exit(SimProcess *p, int code) { exit_of_program(p, code); }

bool sim_thread_write(int which, str bytes) {
    SimOs *os = sim_os(sim_thread_os());
    Ctx c;
    bool broken;
    assert(os->process && which >= 1 && which <= 2);
    ctx_init(&c, arena_new(), &os->head);
    bool all = sim_sink_write(&c, os->process->sinks[which - 1], bytes, &broken);
    arena_free(c.mem);
    if (broken) end(os->process, 0, SIGPIPE);
    sim_thread_leave_if_dead();
    return all;
}

static void run_program(void *arg) {
    SimProcess *p = arg;
    const SimProgram *prog = p->program;
    p->running = true;
    p->handle = prog->start(prog->arg, &p->os.head, &p->loop->head, (const char *const *)p->argv,
                            exit_of_program, p);
}

static void start_comes(void *arg) {
    SimProcess *p = arg;
    if (!p->ended) sim_turn(p->loop, run_program, p);
}

// --- signals

typedef struct Delivery {
    SimProcess *p;
    int signal;
} Delivery;

static SimLoop *taker(SimProcess *p) { return p->os.signals ? p->os.signals : p->loop; }

static void tell_signal(void *arg) {
    Delivery d = *(Delivery *)arg;
    mem_free(arg);
    SimLoop *l = taker(d.p);
    if (!d.p->ended) l->signals[d.signal].fn(l->signals[d.signal].arg, d.signal);
}

static bool ignored(int signal) {
    return signal == 0 || signal == SIGCHLD || signal == SIGURG || signal == SIGWINCH;
}

static void signal_comes(void *arg);

// True: it is done with. Who stands still takes the others later; a program that runs on its loop,
// without a thread, does not stand still.
static bool stop_or_go(Delivery *d) {
    SimProcess *p = d->p;
    Sim *s = p->os.sim;
    bool stops = d->signal == SIGSTOP || d->signal == SIGCONT;
    if (p->ended || d->signal == SIGKILL || (!stops && !p->os.stopped)) return false;
    if (stops) p->os.stopped = d->signal == SIGSTOP, mem_free(d);
    else sim_at(s, s->now_ns + LOOK_NS, signal_comes, d);
    return true;
}

static void signal_comes(void *arg) {
    Delivery *d = arg;
    SimProcess *p = d->p;
    if (stop_or_go(d)) return;
    bool asked = d->signal != SIGKILL && (size_t)d->signal < countof(p->loop->signals)
                 && taker(p)->signals[d->signal].fn;
    if (!p->ended && asked) {
        sim_turn(taker(p), tell_signal, d);
        return;
    }
    if (!p->ended && !ignored(d->signal)) end(p, 0, d->signal);
    mem_free(d);
}

static void queue_signal(SimProcess *p, int signal) {
    if (p->ended || !signal) return;
    Delivery *d = mem_new(sizeof *d);
    *d = (Delivery){ p, signal };
    sim_at(p->os.sim, p->os.sim->now_ns + sim_between(p->os.sim, 1, MS), signal_comes, d);
}

void sim_signal(void *proc, int signal) { queue_signal(proc, signal); }
bool sim_ended(const void *proc) { return ((const SimProcess *)proc)->ended; }
int sim_proc_node(const void *proc) { return ((const SimProcess *)proc)->os.node->id; }

// --- the parent's side

static err wait_for(Ctx *c, Process *head, int64_t timeout_ms, ProcessExit *out) {
    SimProcess *p = (SimProcess *)head;
    Sim *s = p->os.sim;
    assert(!p->exited); // it has no loop to tell
    int64_t until = timeout_ms < 0 ? INT64_MAX : s->now_ns + timeout_ms * MS;
    while (sim_thread_here() && !p->ended && s->now_ns < until) // it lets others run
        sim_thread_sleep(until - s->now_ns < LOOK_NS ? until - s->now_ns : LOOK_NS);
    while (!sim_thread_here() && !p->ended && sim_step(s, until))
        continue; // the world goes on, who waits does not
    if (p->ended) {
        *out = p->how;
        return ERR_OK;
    }
    if (!sim_thread_here() && until != INT64_MAX && s->now_ns < until) s->now_ns = until;
    return fail(c, ERR_TIMEOUT, R_DEADLINE);
}

static int64_t pid_of(const Process *head) { return ((const SimProcess *)head)->pid; }

static void send_signal(Process *head, int signal) {
    SimProcess *p = (SimProcess *)head;
    if (sim_alive(p->parent, p->parent_life)) queue_signal(p, signal);
}

static void forget(Process *head) { ((SimProcess *)head)->forgotten = true; }

static const ProcessOps process_ops = { wait_for, pid_of, send_signal, forget };

static const SimProgram *find_program(Sim *s, const char *path) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    for (size_t i = 0; i < s->programs_n; i++)
        if (!strcmp(s->programs[i].name, name)) return &s->programs[i];
    return NULL;
}

bool sim_is_program(Sim *s, str path) {
    char name[64];
    if (!str_starts(path, S("/sim/")) || path.n >= sizeof name) return false;
    memcpy(name, path.p, path.n);
    name[path.n] = 0;
    return find_program(s, name);
}

static char **copy_argv(const char *const *argv) {
    size_t n = 0;
    while (argv[n]) n++;
    char **copy = mem_new((n + 1) * sizeof *copy);
    for (size_t i = 0; i < n; i++) copy[i] = mem_strdup(str_z(argv[i]));
    return copy;
}

err sim_process_start(Ctx *c, const ProcessSpec *spec, Loop *l, ProcessExited exited, void *arg,
                      Process **out) {
    SimOs *parent = sim_os(c->os);
    Sim *s = parent->sim;
    const SimProgram *program = find_program(s, spec->argv[0]);
    int e = parent->dying || parent->gone ? EIO : program ? 0 : ENOENT;
    if (!e && sim_chance(s, parent->node->faults.start_error)) e = EAGAIN;
    if (e) return os_fail(c, e, "start", str_z(spec->argv[0]));
    SimProcess *p = mem_new(sizeof *p);
    p->head.ops = &process_ops;
    sim_os_init(&p->os, s, parent->node);
    p->parent = parent;
    p->parent_life = parent->life;
    p->program = program;
    p->argv = copy_argv(spec->argv);
    p->os.process = p;
    p->loop = (SimLoop *)sim_loop_new(&p->os.head);
    p->loop->threaded = false; // a program with threads makes loops of its own
    p->sinks[0] = sim_sink_open(s, spec->out_fd), p->sinks[1] = sim_sink_open(s, spec->err_fd);
    p->pid = s->next_pid++;
    p->started_ns = s->now_ns;
    p->detached = spec->detached;
    p->exited = l ? exited : NULL;
    p->arg = arg;
    p->teller = (SimLoop *)l;
    if (l) p->teller->refs++;
    link_add(&s->processes, &p->link);
    sim_own(s, &p->thing, free_thing);
    sim_at(s, s->now_ns + sim_between(s, 1, START_NS_MAX), start_comes, p);
    *out = &p->head;
    return ERR_OK;
}

void sim_processes_lost(SimNode *n, bool detached_too) {
    Sim *s = n->os.sim;
    for (Link *at = s->processes.next; at != &s->processes; at = at->next) {
        SimProcess *p = link_of(at, SimProcess, link);
        if (p->os.node == n && (detached_too || p->os.dying)) end(p, 0, SIGKILL);
    }
    end_children_of(&n->os);
}

// --- by pid

static SimProcess *find(Os *os, int64_t pid) {
    Sim *s = sim_os(os)->sim;
    for (Link *at = s->processes.next; at != &s->processes; at = at->next) {
        SimProcess *p = link_of(at, SimProcess, link);
        if (p->pid == pid && p->os.node == sim_os(os)->node && !p->ended) return p;
    }
    return NULL;
}

int64_t sim_pid_start_ticks(Os *os, int64_t pid) {
    SimProcess *p = find(os, pid);
    return p ? p->started_ns / 10000000 + 1 : 0;
}

bool sim_pid_ending(Os *os, int64_t pid) { return !sim_pid_start_ticks(os, pid); }

bool sim_pid_signal(Os *os, int64_t pid, int64_t start_ticks, int signal) {
    SimProcess *p = find(os, pid);
    if (!p || sim_os(os)->dying || sim_pid_start_ticks(os, pid) != start_ticks) return false;
    queue_signal(p, signal);
    return true;
}

int64_t sim_pid_memory_bytes(Os *os, int64_t pid) { return find(os, pid) ? MEMORY_BYTES : 0; }

int64_t sim_pid_cpu_ms(Os *os, int64_t pid) {
    SimProcess *p = find(os, pid);
    return p ? (p->os.sim->now_ns - p->started_ns) / MS : 0;
}
