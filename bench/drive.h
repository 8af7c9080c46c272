// SPDX-License-Identifier: Apache-2.0
// drive.h - the generator: sends a plan's requests, reads every answer, and keeps what it measured.
//
// Latency is from the moment at which a request was meant to be sent to its last byte, so what had
// to wait because the server was slow counts in full (no coordinated omission: Gil Tene, "How NOT
// to Measure Latency", and his wrk2). Late requests are not queued: the schedule itself remembers
// them, and memory is bounded by the number of connections.
//
// Nothing is asked twice and no failure is forgiven: an answer of another status, without what the
// plan expects, a stream without its end or a broken connection ends the run.
// Owner: the caller. Threads: one, the loop's.
#ifndef LATHE_BENCH_DRIVE_H
#define LATHE_BENCH_DRIVE_H
#include "hist.h"
#include "plan.h"

typedef struct Tally {
    int64_t sent, answered, bytes, tokens, stamped; // exact; bytes of bodies
    int64_t held;                                   // PLAN_HOLD: most at once
    int64_t elapsed_ns, cpu_ns;                     // until the last answer; of this program
    // Of requests meant after the warm-up: since the intended time; since the real sending; how
    // late that was.
    Hist latency, service, lag;
    // Of their streams: intended time to the first token; between tokens; and where the upstream
    // stamps its tokens (fake engine, --stamp): each token's way, from being handed to the kernel
    // there to being here; how much longer a gap was here than there; how much later than the
    // upstream's own intended time it came.
    Hist first_token, gap, way, added_gap, late;
} Tally;

typedef struct Drive Drive;
Drive *drive_new(Loop *loop, const Plan *plan, Tally *out); // all three outlive it
// Runs the loop until the end of the plan. False: drive_failure says why, and figures mean nothing.
bool drive_run(Drive *d);
const char *drive_failure(const Drive *d);
void drive_free(Drive *d);
#endif
