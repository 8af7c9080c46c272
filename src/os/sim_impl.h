// SPDX-License-Identifier: Apache-2.0
// sim_impl.h - private to the simulated machine. A Sim has nodes; a node has a disk and one or more
// SimOs: its main program and its children, each a memory that can be lost. Whatever a program
// holds (loops, streams, files, …) remembers the life of its SimOs it was made in; after a death it
// stays valid memory without effect until its owner or sim_free frees it.
// Everything that happens later is an event in one heap, by time, then by the seed.
#ifndef LATHE_OS_SIM_IMPL_H
#define LATHE_OS_SIM_IMPL_H
#include "os/sim.h"
#include "os/stream_impl.h"
#include <semaphore.h>

typedef struct SimNode SimNode;
typedef struct SimSink SimSink;
typedef struct SimDisk SimDisk;
typedef struct SimOs {
    Os head;
    Sim *sim;
    SimNode *node;
    unsigned life;           // how often it has died
    struct SimLoop *signals; // where its program takes them, when it runs on a thread
    bool dying;   // it died within this step: nothing that it does has an effect any more
    bool gone;    // a child that has ended
    bool stopped; // by SIGSTOP: its threads stand still
    struct SimProcess *process; // NULL: the node's main program
} SimOs;

struct SimNode {
    SimOs os;
    int id;
    SimFaults faults;
    int64_t wall_skew_ms;
    SimDisk *disk;
    int next_port;
    bool dies_of_power; // while os.dying
    int64_t power_cut_ns, stalled_until_ns;
    int holds;         // see file_hold
    const char *mount; // what lies under it is on mounted's disk
    SimNode *mounted;
};

typedef struct SimEvent {
    int64_t at_ns;
    uint64_t tie;
    void (*fn)(void *);
    void *arg;
} SimEvent;

// Handles that owners may never free; what frees them at sim_free.
typedef struct SimThing {
    Link link;
    void (*free)(struct SimThing *);
} SimThing;

typedef struct SimLoop {
    Loop head;
    Link link; // in Sim.loops
    SimOs *os;
    unsigned life;
    int64_t turn_at;         // the next turn that is scheduled; 0: none
    bool busy;               // within a turn, perhaps one that waits in steps of its own
    bool threaded, due;      // it turns only within loop_run, on a simulated thread; due: now
    bool freed;              // by its owner; the memory stays while events point here
    unsigned refs;           // of events and processes
    struct SimCall *waiting; // turns that came while it was busy
    struct {
        void (*fn)(void *, int);
        void *arg;
    } signals[32];
} SimLoop;

struct Sim {
    uint64_t dice, digest, steps;
    int64_t now_ns;
    SimEvent *heap;
    size_t heap_n, heap_cap;
    SimNode *nodes[SIM_NODES_MAX];
    bool cut[SIM_NODES_MAX][SIM_NODES_MAX];
    SimProgram programs[32];
    size_t programs_n;
    SimLoop *current; // whose turn it is; NULL: none, or a piece of a pool
    int depth;        // steps within steps: a piece of work that waits for a child
    bool in_pool, any_dying;
    Link loops, things, listeners, processes, conns;
    Link threads;
    sem_t baton;    // the scheduler's, while a simulated thread runs
    size_t blocked; // threads that wait for a lock
    unsigned preempt;
    int64_t next_pid;
    Link sinks;
    int next_number; // of a pipe's end or an open file
};

// sim.c
uint64_t sim_draw(Sim *s);
int64_t sim_between(Sim *s, int64_t low, int64_t high); // both included
bool sim_chance(Sim *s, unsigned in_a_million);
void sim_mix(Sim *s, uint64_t value);
void sim_mix_bytes(Sim *s, const void *p, size_t n);
void sim_at(Sim *s, int64_t at_ns, void (*fn)(void *), void *arg);
bool sim_step(Sim *s, int64_t until_ns); // false: nothing is left before until_ns
void sim_own(Sim *s, SimThing *t, void (*free)(SimThing *));
static inline SimOs *sim_os(Os *os) { return (SimOs *)os; }
static inline bool sim_alive(const SimOs *os, unsigned life) {
    return !os->dying && !os->gone && os->life == life;
}
void sim_os_init(SimOs *os, Sim *s, SimNode *node);
void sim_os_lost(SimOs *os,
                 bool quiet); // its life ends: loops, streams, listeners; quiet: no resets
void sim_die_here(SimOs *os); // the fault `crash`: at the end of this step
extern const OsOps sim_ops;

// sim_loop.c. fn(arg) as a turn of l; a busy loop takes it when it can, a lost one never.
void sim_turn(SimLoop *l, void (*fn)(void *), void *arg);
void sim_turns_forget(Sim *s, const void *p,
                      size_t n); // those that wait, with an arg in p's n bytes
void sim_loop_drop(SimLoop *l);
void sim_loop_unref(SimLoop *l);
void sim_loops_kick(Sim *s); // those that were touched from outside a step
Loop *sim_loop_new(Os *os);
Pool *sim_pool_new(Os *os, const char *name, int threads, size_t queue_max);

// sim_thread.c, beyond sim_pthread.h
void sim_threads_init(Sim *s);
void sim_threads_done(Sim *s);
void sim_thread_wait(const void *what); // until sim_threads_wake of the same address
void sim_threads_wake(Sim *s, const void *what);
void sim_thread_sleep(int64_t ns);
void sim_thread_leave_if_dead(void); // nothing of a dead node runs on

// sim_disk.c, sim_file.c
SimDisk *sim_disk_new(Sim *s);
void sim_disk_free(SimDisk *d);
void sim_disk_limit(SimDisk *d, int64_t max_bytes);
void sim_disk_power_cut(SimDisk *d);
void sim_disk_recount(SimDisk *d); // after a death: its open files hold nothing any more
SimNode *sim_place(Ctx *c, str path, int *out_errno); // the node whose disk holds it
err sim_file_open(Ctx *c, str path, unsigned flags, File **out);
err sim_path_rename(Ctx *c, str from, str to);
err sim_path_remove(Ctx *c, str path);
err sim_path_remove_tree(Ctx *c, str dir);
err sim_path_info(Ctx *c, str path, PathInfo *out);
err sim_dir_make(Ctx *c, str path, unsigned mode);
err sim_dir_list(Ctx *c, str path, str **out_names, size_t *out_n);
err sim_dir_sync(Ctx *c, str path);
err sim_disk_space(Ctx *c, str path, int64_t *out_bytes);
err sim_disk_size(Ctx *c, str path, int64_t *out_bytes);

// sim_stream.c
Stream *sim_stream_connect(Loop *l, const Addr *to);
err sim_listener_open(Ctx *c, const ListenSpec *spec, Listener **out);
err sim_resolve(Ctx *c, str host, int port, Addr *out, size_t max, size_t *out_n);
void sim_streams_lost(SimOs *os, bool quiet); // os.life is still that of the streams

// sim_pipe.c. What children write to, by a number that is a descriptor's in all but name.
Stream *sim_stream_adopt(Loop *l, int number);
err sim_pipe_make(Ctx *c, int out_read_write[2]);
void sim_pipe_close(Os *os, int number);
int sim_file_sink(Sim *s, File *f); // its number
void sim_file_sink_close(Sim *s, int number);
SimSink *sim_sink_open(Sim *s, int number); // for one child; NULL: to nowhere
void sim_sink_close(SimSink *k);
// False: not all was taken; out_broken: by a pipe that nobody reads.
bool sim_sink_write(Ctx *c, SimSink *k, str bytes, bool *out_broken);

// sim_process.c
bool sim_is_program(Sim *s, str path); // programs lie in /sim
void sim_process_exit(struct SimProcess *p, int code);
err sim_process_start(Ctx *c, const ProcessSpec *spec, Loop *l, ProcessExited exited, void *arg,
                      Process **out);
void sim_processes_lost(SimNode *n, bool detached_too);
int64_t sim_pid_start_ticks(Os *os, int64_t pid);
bool sim_pid_ending(Os *os, int64_t pid);
bool sim_pid_signal(Os *os, int64_t pid, int64_t start_ticks, int signal);
int64_t sim_pid_memory_bytes(Os *os, int64_t pid);
int64_t sim_pid_cpu_ms(Os *os, int64_t pid);
#endif
