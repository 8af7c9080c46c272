// SPDX-License-Identifier: Apache-2.0
// health.h - how the targets of routes have answered of late, on this server: a circuit breaker
// (Nygard, "Release It!") that sends first requests elsewhere after failures in a row, and the time
// to their first byte. It only puts targets in order: where all are open, they are asked all the
// same. Threads: any; each call is one short lock.
#ifndef LATHE_MOD_GATEWAY_HEALTH_H
#define LATHE_MOD_GATEWAY_HEALTH_H
#include "base/str.h"

typedef enum {
    BREAKER_CLOSED,
    BREAKER_OPEN,
    BREAKER_HALF // one request may find out
} Breaker;
typedef struct Health {
    Breaker breaker;
    int64_t failures;   // in a row
    int64_t open_ms;    // OPEN: until it is tried again
    int64_t latency_us; // peak EWMA of the time to the first byte; it wears off while nothing comes
} Health;

// deployment: id; now_ns: monotonic.
void health_ok(str deployment, int64_t first_ns, int64_t now_ns);
// retry_after_ms: until when it asked to be left alone; 0: it did not. most: failures in a row that
// open it, 0: none does; open_ms: for how long at first, twice as long each time, up to 16 times.
void health_failed(str deployment, int64_t retry_after_ms, int64_t most, int64_t open_ms,
                   int64_t now_ns);
Health health_of(str deployment, int64_t now_ns);
// Of one that is half open: true for one caller, then for nobody until it failed or as long again.
bool health_try(str deployment, int64_t now_ns);
#endif
