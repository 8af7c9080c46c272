// SPDX-License-Identifier: Apache-2.0
// reconcile_own.h - what reconcile.c (the turn), observe.c (what is seen) and act.c (what is done)
// share: one turn over all deployments, and one deployment within it. All of it lives in the turn's
// arena and on the worker's thread.
#ifndef LATHE_MOD_RECONCILE_OWN_H
#define LATHE_MOD_RECONCILE_OWN_H
#include "base/map.h"
#include "mod/deployment/watch.h"

typedef struct Turn {
    Deployment *all;
    size_t n;
    ChildView *children; // of the executor: ours and others'
    size_t children_n;
    Map known, probed; // deployments by id; replicas that keep their probe
    Memory memory;
    bool again, busy; // as Pace
    int64_t look_ms;
    int64_t opened_ms; // when this process began to look after deployments
} Turn;

typedef struct Seen { // one replica
    Look look;
    const ChildView *child; // NULL: none
} Seen;

typedef struct One { // one deployment; rows and seen go together
    Turn *t;
    Deployment d;
    const Deployment *was;
    Lease lease;
    Policy policy;
    ReplicaRow *rows;
    Seen *seen;
    size_t n;
    const ChildView **gone; // ended children to forget
    size_t gone_n;
    VersionInfo version;
    bool has_version;
    str blocked;    // why no replica may be started; absent: they may
    bool misplaced; // another node might: this one has not the model's files
} One;

// ---- observe.c
void one_observe(Ctx *c, One *o); // children, probes, in flight; a step for each replica
void one_settle(One *o);          // those that are gone leave the rows
bool replica_key_parse(str key, str *out_deployment, int64_t *out_generation, int64_t *out_number);
const char *log_tail(Ctx *c, str handle);
// ---- act.c
void one_probe(Ctx *c, One *o); // starts probes, and keeps those that are still wanted
// Starts, ends and forgets children. True when a start failed: the row says so and is to be kept.
bool one_act(Ctx *c, One *o);
// Children of deployments that are no more, or another node's: no more than their last requests.
void orphans_end(Ctx *c, Turn *t);
void orphans_close(void);
#endif
