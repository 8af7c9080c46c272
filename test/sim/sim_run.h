// SPDX-License-Identifier: Apache-2.0
// sim_run.h - private to test/sim: the real program on simulated machines.
//   main.c     seeds, each in a process of its own; what failed, and how to see it again
//   world.c    the nodes, the faults, lives and deaths
//   program.c  a program as a library: each start of it has statics of its own
//   work.c     clients: what they ask and what they were told
//   check.c    what must hold at the end
//   wrap.c     pthread's waiting calls
// Owner: world_run. Threads: the scheduler's and simulated ones, one at a time.
#ifndef LATHE_TEST_SIM_RUN_H
#define LATHE_TEST_SIM_RUN_H
#include "base/json.h"
#include "net/client.h"
#include "os/file.h"
#include "os/sim.h"

// The declarations that the linker's --wrap makes up.
Os *__wrap_os_real(void);

// ---- program.c
// Starts file's main on a thread of os; ended(arg, code) on that thread when it returns.
void program_start(Os *os, const char *file, const char *const *argv,
                   void (*ended)(void *arg, int code), void *arg);

// ---- world.c
enum { NODE_LATHE, NODE_ENGINE, NODE_CLIENT, CLIENTS = 6, CALLS_MAX = 20000 };
typedef struct Told {   // one inference as its client saw it
    char id[80];        // X-Request-Id of the answer; "": none came
    int status;         // 0: no answer
    int tokens;         // pieces of text that were read
    bool stream, whole; // whole: to its end
    bool at_risk, lost; // see mark() in world.c
    int64_t at_ns;      // when its end came
} Told;
typedef struct World {
    Sim *sim;
    uint64_t seed;
    str dir; // of the programs
    Addr lathe, engine;
    char admin[200], key[200]; // API keys
    bool serving, quiet;       // a life of serve is under way; faults are over
    int starts, deaths, ended; // of serve; ended: with a code of its own
    int clients_left;
    bool ready, failed;
    Told *told;
    size_t told_n;
    int64_t looked_ns, cut_ns, died_ns, answered_ns; // died: when that was seen
    int64_t operations, faults;
    char why[2000];   // of the first failure
    char waits[1600]; // what check_end waits for
} World;
bool world_run(uint64_t seed, const char *dir, World *w); // false: w->why
void world_keep(World *w, const char *dir);               // node 0's files, for a look at them
void world_fail(World *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// ---- work.c, on threads of NODE_CLIENT
void work_setup(World *w); // until the server is ready and what clients need is there
void work_client(World *w, int number);
typedef struct Reply {
    int status; // 0: none, why says so
    str body;
    const char *why;
} Reply;
// Blocks. body absent: none. key NULL: none.
Reply ask(Ctx *c, const Addr *to, HttpMethod m, const char *target, const char *key, str body);

// ---- check.c, on a thread of NODE_CLIENT
void check_end(World *w);
#endif
