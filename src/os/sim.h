// SPDX-License-Identifier: Apache-2.0
// sim.h - the simulated twin of os: virtual time, and one seed that decides every order, delay and
// fault. Several nodes share one world; each has its own Os, files, loops and processes; unix
// sockets reach within a node, TCP between nodes. Everything runs on the thread that calls sim_run.
// Time moves only when nothing is ready. The same seed and the same calls replay the same history.
// Node n is "node<n>" to addr_resolve and 10.0.0.<n + 1> on the wire; 127.0.0.1 is each node's own.
// Inspired by FoundationDB's and TigerBeetle's simulators.
#ifndef LATHE_OS_SIM_H
#define LATHE_OS_SIM_H
#include "os/stream.h"
#include "os/process.h"

typedef struct Sim Sim;
enum { SIM_NODES_MAX = 250 };
typedef struct SimFaults { // chances in a million, for each operation of the kind
    unsigned write_error, write_full, sync_error, read_error;
    unsigned connect_refused, stream_cut, stream_slow; // slow: latency times 100
    unsigned crash;                                    // the node dies at this write
    unsigned start_error;                              // no child can be started
    int64_t latency_us_min, latency_us_max;            // of each stream segment
    int64_t clock_jump_ms_max;                         // wall clock, when a jump is drawn
    unsigned clock_jump;
    unsigned stall; // a thread stands still before it takes what others wait for (file_may_stall)
    int64_t stall_ms_max; // and at least a quarter of it
} SimFaults;

Sim *sim_new(uint64_t seed);
void sim_free(Sim *s);
Os *sim_node(Sim *s, int node);                        // made on first use, alive
void sim_faults(Sim *s, int node, const SimFaults *f); // node -1: all
// Node's memory is gone: streams reset, processes die, timers and posted calls vanish (their loops
// are dead). Files keep what was synced; each unsynced write is kept, lost or torn by the seed when
// power is true, kept when false (the process only). Then alive again.
// With power false, detached children live on. Not within a step: see the fault `crash`.
void sim_crash(Sim *s, int node, bool power);
unsigned sim_lives(Sim *s,
                   int node); // how often it has died: when it grows, start its program anew
int64_t sim_power_cut_ns(Sim *s, int node); // when it last lost its power; 0: never
void sim_partition(Sim *s, int a, int b, bool cut);
// What lies under dir on node is that of owner, under the same path, as long as they reach each
// other; its faults and its power are owner's. dir lives as long as the Sim.
void sim_mount(Sim *s, int node, const char *dir, int owner);
// Node's threads stand still for so long, once they keep no others from their work (file_hold); a
// stall is never made shorter by another.
void sim_stall(Sim *s, int node, int64_t ns);
void sim_disk_max(Sim *s, int node, int64_t bytes); // 0: none
// A program that process_start finds by the last part of argv[0]: start(arg, process os, argv)
// makes its own loop things on `l`; killed(handle) drops them (a signal, a death of the node, or
// sim_free; not after its own exit). Returns handle.
typedef struct SimProgram {
    const char *name;
    void *(*start)(void *arg, Os *os, Loop *l, const char *const *argv,
                   void (*exit)(void *proc, int code), void *proc);
    void (*killed)(void *handle, int signal);
    void *arg;
} SimProgram;
void sim_program(Sim *s, const SimProgram *p);
// Of a child, by the proc that its start was given: a signal to it alone, whether it has ended, and
// its node.
void sim_signal(void *proc, int signal);
bool sim_ended(const void *proc);
int sim_proc_node(const void *proc);
// Runs until nothing is left to do, until_ns of virtual time has come, or done(arg) is true after a
// step. Returns steps taken.
uint64_t sim_run(Sim *s, int64_t until_ns, bool (*done)(void *), void *arg);
uint64_t sim_random(Sim *s, uint64_t below); // the history's own dice, for workloads
uint64_t sim_digest(Sim *s);                 // of the history so far: equal seeds, equal digests
#endif
