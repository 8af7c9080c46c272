// SPDX-License-Identifier: Apache-2.0
// arrival.h - when requests are meant to be sent. The schedule knows nothing of the answers, so a
// slow server meets the same arrivals as a fast one (an open loop), and nothing has to be queued:
// what is late is still in the schedule. Owner: the caller. Threads: one at a time.
#ifndef LATHE_BENCH_ARRIVAL_H
#define LATHE_BENCH_ARRIVAL_H
#include <stdbool.h>
#include <stdint.h>

typedef struct Arrival {
    double rate;      // a second, on average
    bool poisson;     // gaps are exponential; else all the same
    uint64_t seed;    // of a Poisson schedule: the same one gives the same times
    int64_t start_ns; // of the first arrival
    int64_t n;        // arrivals taken so far
    double at_s;      // of the next one, from start; Poisson only
} Arrival;

void arrival_init(Arrival *a, double rate, bool poisson, uint64_t seed, int64_t start_ns);
int64_t arrival_next_ns(const Arrival *a); // when the next one is due; never goes back
void arrival_take(Arrival *a);             // that one is on its way
#endif
