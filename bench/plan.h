// SPDX-License-Identifier: Apache-2.0
// plan.h - what lathe-load is asked to do: its command line, checked, and the requests themselves,
// rendered once. Owner: the caller's arena. Threads: read only once made.
#ifndef LATHE_BENCH_PLAN_H
#define LATHE_BENCH_PLAN_H
#include "net/client.h"

typedef enum {
    PLAN_OPEN,   // arrivals by the clock, whatever the answers do
    PLAN_CLOSED, // each connection asks again once it was answered: the most that there is
    PLAN_HOLD    // streams that are begun and held open until SIGTERM
} PlanMode;

typedef struct Plan {
    PlanMode mode;
    Addr to;
    HttpMethod method;
    str path, expect; // expect: must be found in the last KiB of each answer; absent: nothing
    str body;
    ptrdiff_t number_at; // where in body the request's number goes (PLAN_NUMBER); -1: nowhere
    str *keys;           // "Bearer …"; used in turn
    size_t keys_n;
    double rate;
    bool poisson, stream;
    bool fresh;                                  // each request on a connection of its own
    int64_t seed, connections, requests, status; // requests 0: only time ends it
    int64_t duration_ns, warm_ns;                // warm: what is meant before is not in the figures
    int64_t first, numbers; // number of the first request; they start anew after so many, 0: never
    int64_t patience_ms;    // without any answer
} Plan;

#define PLAN_NUMBER "NNNNNNNNN" // nine digits take its place, so every body is as long
enum { PLAN_NUMBER_N = 9 };

extern const char plan_usage[];
// ERR_INVALID: out_bad names the argument that is not understood.
err plan_parse(Ctx *c, char **argv, Plan *out, const char **out_bad);
#endif
