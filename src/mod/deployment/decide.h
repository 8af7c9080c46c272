// SPDX-License-Identifier: Apache-2.0
// decide.h - private to deployment: the parts that decide and touch nothing: one replica
// (replica.c), all replicas of a deployment (plan.c), memory (admit.c), what people see (view.c).
// Owner: the caller's. Threads: any.
#ifndef LATHE_MOD_DEPLOYMENT_DECIDE_H
#define LATHE_MOD_DEPLOYMENT_DECIDE_H
#include "mod/deployment/deployment_own.h"
#include "mod/model/model.h"

// ---- replica.c: one replica
typedef enum { PROBE_NONE, PROBE_LOADING, PROBE_READY, PROBE_FAILED, PROBE_BROKEN } ProbeState;
typedef struct Look { // what is seen of it now
    bool launched, there, ended;
    bool ended_before; // while no reconciler watched: nobody's fault
    str left;          // the node that it ran on, when that is not this one: it lost the lease
    str end_reason;    // with the last lines of its log
    int64_t pid, memory_bytes, started_ms;
    ProbeState probe;
    str probe_text, address;
    int64_t silent_ms, in_flight, model_bytes;
} Look;
typedef struct Policy {
    int64_t backoff_first_ms, backoff_max_ms, window_ms, window_exits, hung_ms, healthy_ms,
        quiet_ms, drain_ms, slow_ms;
} Policy;
Policy policy_now(const Deployment *d);
void replica_step(Arena *mem, ReplicaRow *r, const Look *l, const Policy *p, int64_t now_ms);
void replica_exit(Arena *mem, ReplicaRow *r, str reason, const Policy *p, int64_t now_ms);
void replica_to(ReplicaRow *r, ReplicaState state, int64_t now_ms);
bool replica_loops(const ReplicaRow *r, const Policy *p); // it crashes again and again
bool replica_may_end(const ReplicaRow *r, const Look *l, const Policy *p, int64_t now_ms);
int64_t backoff_ms(const Policy *p, int64_t failures);

// ---- plan.c: all replicas of a deployment
typedef struct Unit {
    int64_t generation, number;
    ReplicaState state;
    bool due;     // WAITING: its back-off is over
    bool may_end; // DRAINING: nothing is in flight, or its time is over
} Unit;
typedef struct Wish {
    int64_t generation, replicas; // 0 replicas: stop
    int64_t room;                 // how many more the memory allows now
    bool frees;                   // ending one old replica would make room for a new one
} Wish;
typedef enum { DO_START, DO_DRAIN, DO_UNDRAIN, DO_END, DO_DROP } Do;
typedef struct Step {
    Do what;
    size_t unit; // index; DO_START of a new one: PLAN_NEW and its number
    int64_t number;
} Step;
#define PLAN_NEW SIZE_MAX
enum { STEPS_MAX = UNITS_MAX + REPLICAS_MAX };
int64_t plan_limit(int64_t replicas); // live ones at most, those that drain included
size_t plan(const Wish *w, const Unit *units, size_t n, Step steps[STEPS_MAX]);

// ---- admit.c: memory
typedef struct Memory {
    int64_t total, available; // of the machine or its cgroup; 0: unknown
    int64_t held, promised;   // of our replicas: all they need; what starting ones have yet to take
} Memory;
int64_t memory_needed(const VersionInfo *v, const Serving *s, int64_t slots);
int64_t memory_free(const Memory *m, int64_t reserve); // never negative; INT64_MAX when unknown
void memory_add(Memory *m, const ReplicaRow *r);
int64_t memory_room(int64_t free_bytes, int64_t needed, int64_t most);
void serving_of(const Deployment *d, const VersionInfo *v, Serving *out);

// ---- view.c
void view_update(Ctx *c, Deployment *d, const Policy *p, str blocked);
#endif
