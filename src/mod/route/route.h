// SPDX-License-Identifier: Apache-2.0
// route.h - a name that clients use, and which deployments answer for it: in which order they are
// asked, with which weights, and when the next one is. The gateway makes its plan for a request
// from the snapshot. Owner: what the snapshot gives lives as long as that snapshot. Threads: loops.
#ifndef LATHE_MOD_ROUTE_H
#define LATHE_MOD_ROUTE_H
#include "res/module.h"
#include "res/snapshot.h"

enum { ROUTE_TARGETS_MAX = 16 };
// How the first target is found. The others follow, each asked when the one before it cannot
// answer.
typedef enum {
    STRATEGY_ORDERED,  // as they stand
    STRATEGY_WEIGHTED, // by chance, after their weights; the others likewise
    // By the gateway, which knows how they are doing:
    STRATEGY_LEAST_BUSY,
    STRATEGY_LOWEST_LATENCY,
    STRATEGY_LOWEST_COST,
    STRATEGY_STICKY,
    STRATEGY__COUNT
} Strategy;
extern const char *const strategy_names[]; // ends with NULL
typedef struct RouteTarget {
    str deployment; // id
    int64_t weight; // 0: only when no other answers
} RouteTarget;
typedef struct RouteEntry {
    str id, name, org, project;
    bool published; // to every project of its organisation
    Strategy strategy;
    int64_t attempts_max; // in all, at all targets
    int64_t
        // the next target is asked when no slot was free for so long; UNSET_INT: a deployment's
        spill_ms;
                  // own queue time
    const RouteTarget *targets;
    size_t targets_n;
} RouteEntry;
extern const SnapshotPart route_part;
// The project's own, else one that its organisation's projects publish; NULL when there is none.
const RouteEntry *route_find(const Snapshot *s, str org, str project, str name);
// Those that the project may name, own ones first. In the call's arena.
size_t route_list(Ctx *c, const Snapshot *s, str org, str project, const RouteEntry ***out);
// The order in which this request asks the targets: indices into targets, each once. dice: the
// request's own, so that its attempts agree.
size_t route_order(const RouteEntry *r, uint64_t dice, size_t out[ROUTE_TARGETS_MAX]);
extern const Module route_module;
#endif
