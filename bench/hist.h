// SPDX-License-Identifier: Apache-2.0
// hist.h - a histogram of times with a fixed relative error, after HdrHistogram (Gil Tene): each
// power of two is cut into 128 equal parts, so a value that is told is never below the true one and
// less than 1/128 (0.8 %) above it, from a nanosecond to over an hour, in 36 KB whatever is added.
// Two of them add up exactly. Owner: the caller. Threads: one at a time.
#ifndef LATHE_BENCH_HIST_H
#define LATHE_BENCH_HIST_H
#include "base/json.h"

enum { HIST_PARTS = 128, HIST_BITS = 7, HIST_TOP = 42 }; // 2^42 ns are 73 minutes
enum { HIST_BUCKETS = (HIST_TOP - HIST_BITS + 1) * HIST_PARTS };

typedef struct Hist {
    int64_t n, sum_ns, least_ns, most_ns; // exact; least and most are 0 while n is
    int64_t counts[HIST_BUCKETS];
} Hist;

void hist_add(Hist *h, int64_t ns); // below 0 counts as 0, over 73 minutes as that
void hist_merge(Hist *to, const Hist *from);
// The least value v that a bucket ends with such that at least q of all samples are <= v, and never
// more than the most; 0 without samples. q in [0, 1].
int64_t hist_quantile(const Hist *h, double q);
// {"n","mean_ns","least_ns","most_ns","p50_ns",…,"parts":128,"counts":[[bucket,count],…]}
void hist_write(const Hist *h, Json *j);
// What hist_write wrote, added to h. False: it is none, or of other parts; h may then have some.
bool hist_read(yyjson_val *v, Hist *h);
#endif
