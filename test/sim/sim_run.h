// SPDX-License-Identifier: Apache-2.0
// sim_run.h - private to test/sim: the real program on simulated machines.
//   main.c     seeds, each in a process of its own; what failed, and how to see it again
//   world.c    the nodes, the faults, lives and deaths
//   program.c  a program as a library: each start of it has statics of its own
//   child.c    what servers start: shims, the reader of GGUF files, engines; their faults
//   model.c    a model's version, and the deployment that is launched of it
//   client.c   a blocking client
//   work.c     clients: what they ask and what they were told; change.c: what they change
//   check.c    what must hold at the end; check_told.c: request by request, change by change
//   lease.c    who holds what, in a shared database
//   wrap.c     pthread's waiting calls
// Owner: world_run. Threads: the scheduler's and simulated ones, one at a time.
#ifndef LATHE_TEST_SIM_RUN_H
#define LATHE_TEST_SIM_RUN_H
#include "base/json.h"
#include "net/client.h"
#include "os/file.h"
#include "os/sim.h"
#include <stdio.h>

// The declarations that the linker's --wrap makes up.
Os *__wrap_os_real(void);
size_t __wrap_fwrite(const void *p, size_t size, size_t n, FILE *f);
int __wrap_fprintf(FILE *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
_Noreturn void __wrap__Exit(int code);

// ---- program.c
// Starts file's main on a thread of os; ended(arg, code) on that thread when it returns.
// The library that it is.
void *program_start(Os *os, const char *file, const char *const *argv,
                    void (*ended)(void *arg, int code), void *arg);
void *program_symbol(void *library, const char *name);

// ---- world.c
enum {
    NODE_ENGINE = 1,
    NODE_CLIENT,
    NODE_DATABASE,
    SERVERS_MAX = 3,
    CLIENTS = 6,
    CALLS_MAX = 40000,
    RUNS_MAX = 3 * CALLS_MAX,
    CHILDREN_MAX = 4000,
    REPLICAS_MOST = 3,
    TOLD_DAYS = 4,
    BUDGET_NANO = 800000 // of KEY_POOR, a day
};
extern const int server_nodes[SERVERS_MAX];
typedef struct Server { // a node that runs `lathe serve`
    int node;
    Addr at;
    bool serving; // a life is under way
    int starts, deaths;
    int64_t looked_ns, died_ns, answered_ns; // died: when that was seen
    int64_t cut_ns;                          // when its power last went; 0: never
    int64_t stall_ns, stalled_ns;            // its last stall: from, to
    int64_t refused_ns;                      // until then its disk refuses writes
    int64_t trouble_ns; // until then it may be behind the database: faults, and a while after them
} Server;
typedef enum { KEY_APP, KEY_POOR, KEY_SLOW, KEYS } KeyId; // without limits; money a day; requests
typedef struct Told {                                     // one inference as its client saw it
    char id[24];                                          // its X-Request-Id
    int status;                                           // 0: no answer
    int tokens;                                           // pieces of text that were read
    KeyId key;
    int server;
    bool stream, own, whole; // own: of the launched deployment; whole: to its end
    bool at_risk, lost, cut; // see mark() in world.c; cut: lost by the power
    int64_t began_ns, at_ns; // at: when its end came
} Told;
typedef struct Change { // of the control plane, as its client saw it
    char id[24];        // its X-Request-Id, the same for each try
    const char *verb;
    int status; // 0: nobody knows
} Change;
typedef struct Run { // of an engine, as it told itself; probes have no id and are left out
    char id[68];
    const void *record;
    int64_t prompt, written; // tokens; 0 while it is under way, or when its process died
    bool finished;
} Run;
typedef enum { CHILD_SHIM, CHILD_ENGINE, CHILD_READER } ChildKind;
typedef struct Child { // of a server, or of its shim
    struct World *w;
    ChildKind kind;
    int node;
    void *proc; // of sim.h
    void (*exit)(void *proc, int code);
    int64_t began_ns;
    char socket[120]; // of its engine: a replica's own
    bool sick;        // something was drawn for it, perhaps for later
} Child;
typedef struct World {
    Sim *sim;
    uint64_t seed;
    str dir;    // of the programs
    int rounds; // of each client
    Server servers[SERVERS_MAX];
    int servers_n;
    Addr engine;
    char admin[200], keys[KEYS][200], key_ids[KEYS][80];
    bool quiet, watched; // faults are over; lease.c looks
    bool stalls;         // one server stands still for longer than a lease, just before it writes
    int staller;         // which
    int clients_left;
    bool ready, failed;
    Told *told;
    Change *changes;
    Run *runs;
    Child **children, *stopped; // stopped: one that may go on later
    size_t told_n, changes_n, runs_n, children_n;
    int replicas; // that the launched deployment shall have
    int64_t operations, faults;
    char why[2000];   // of the first failure
    char waits[1600]; // what check_end waits for
} World;
bool world_run(uint64_t seed, const char *dir, World *w); // false: w->why
void world_keep(World *w, const char *dir);               // node 0's files, for a look at them
void world_fail(World *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// ---- child.c
void children_open(World *w);
void engine_watch(World *w, void *library); // what it does goes to w->runs
void children_weather(World *w, int node);
void children_calm(World *w);
size_t children_alive(const World *w, ChildKind kind, int node); // node -1: all
bool children_well(const World *w);                              // none that lives is sick
void children_say(const World *w); // those that live, to standard error
void check_start(World *w, const Child *ch);

// ---- client.c: what a client of the server needs, on threads of NODE_CLIENT
typedef struct Reply {
    int status; // 0: none, why says so
    str body;
    const char *why;
    int pieces; // of text, in a stream
    bool done;  // the stream came to its end
    str money;  // that is left of a day's, as the answer's head says
} Reply;
typedef struct Call {
    const Addr *to;
    HttpMethod method;
    const char *target, *key; // key NULL: none
    str body;                 // absent: none
    const char *id, *once;    // X-Request-Id, Idempotency-Key; NULL: none
    bool stream;
    int leave_after; // pieces; 0: reads to the end
} Call;
Reply call(Ctx *c, const Call *q); // blocks
Reply ask(Ctx *c, const Addr *to, HttpMethod m, const char *target, const char *key, str body);
Ctx *client_ctx(World *w);

// ---- work.c, change.c
void work_setup(World *w); // until the server is ready and what clients need is there
void work_join(World *w);  // until the other servers are ready
bool work_make(World *w, Ctx *c, const char *target, const char *body, Reply *out);
typedef struct Client {
    World *w;
    Ctx *c;
    int number, server, calls; // server: that it asks until it fails
    int step;                  // change.c: in the life of its row
    char row[24];
} Client;
void work_client(World *w, int number);
void client_id(Client *k, char out[24]);                         // of its next request
int infer(Client *k, int server, const char *key, KeyId limits); // the status
void change_row(Client *k);
void change_key(Client *k);
void change_deployment(Client *k); // its leader has something to write
void change_own(Client *k);        // its replicas, a restart, a stop
void look_at_waiting(Client *k);   // whatever waits says why

// ---- lease.c, on a thread of NODE_DATABASE, until the seed's end
void lease_watch(World *w);

// ---- check.c, check_told.c, on a thread of NODE_CLIENT
typedef struct Look {
    World *w;
    Ctx *c;
} Look;
void check_end(World *w);
void check_again(World *w);   // it is ready, and has no child too many
void check_deleted(World *w); // without its deployment no child is left
void check_rest(Look *l);     // check_rest.c: nothing is held for requests that are over
bool look_get(Look *l, const Addr *to, const char *target, yyjson_val **out);
// Each row of a list, page by page.
void look_each(Look *l, const char *target, void (*fn)(Look *l, yyjson_val *row, void *arg),
               void *arg);
void check_told(Look *l);
int64_t told_spent(Look *l, KeyId key, int day); // nano; day: from the first on, at most TOLD_DAYS
void check_changes(Look *l);

// ---- model.c
bool model_setup(World *w, Ctx *c); // a model's version and the deployment `own` of it
void import_again(Client *k);
bool versions_settled(Look *l, const Server *s); // each is ready, or has failed and says why
#endif
