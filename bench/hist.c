// SPDX-License-Identifier: Apache-2.0
// hist.c - see hist.h. Values below 128 ns have a bucket each; above, a bucket is the value's
// exponent and its seven highest bits after the first.
#include "hist.h"
#include <assert.h>
#include <math.h>

static size_t bucket_of(int64_t ns) {
    if (ns < HIST_PARTS) return (size_t)ns;
    int shift = 63 - __builtin_clzll((unsigned long long)ns) - HIST_BITS;
    return (size_t)(shift + 1) * HIST_PARTS + (size_t)(ns >> shift) - HIST_PARTS;
}

// The largest value that belongs to the bucket.
static int64_t bucket_end(size_t i) {
    if (i < HIST_PARTS) return (int64_t)i;
    int shift = (int)(i / HIST_PARTS) - 1;
    int64_t high = (int64_t)(i % HIST_PARTS) + HIST_PARTS;
    return ((high + 1) << shift) - 1;
}

void hist_add(Hist *h, int64_t ns) {
    const int64_t most = (1LL << HIST_TOP) - 1;
    ns = ns < 0 ? 0 : ns > most ? most : ns;
    size_t i = bucket_of(ns);
    assert(i < HIST_BUCKETS);
    h->counts[i]++;
    if (!h->n || ns < h->least_ns) h->least_ns = ns;
    if (ns > h->most_ns) h->most_ns = ns;
    h->sum_ns += ns;
    h->n++;
}

void hist_merge(Hist *to, const Hist *from) {
    if (!from->n) return;
    if (!to->n || from->least_ns < to->least_ns) to->least_ns = from->least_ns;
    if (from->most_ns > to->most_ns) to->most_ns = from->most_ns;
    to->sum_ns += from->sum_ns;
    to->n += from->n;
    for (size_t i = 0; i < HIST_BUCKETS; i++) to->counts[i] += from->counts[i];
}

int64_t hist_quantile(const Hist *h, double q) {
    assert(q >= 0 && q <= 1);
    int64_t want = (int64_t)ceil(q * (double)h->n), seen = 0;
    if (!h->n) return 0;
    if (want < 1) want = 1;
    for (size_t i = 0; i < HIST_BUCKETS; i++) {
        seen += h->counts[i];
        if (seen >= want) return bucket_end(i) < h->most_ns ? bucket_end(i) : h->most_ns;
    }
    return h->most_ns;
}

void hist_write(const Hist *h, Json *j) {
    static const struct {
        const char *name;
        double q;
    } told[] = { { "p50_ns", .5 },
                 { "p90_ns", .9 },
                 { "p95_ns", .95 },
                 { "p99_ns", .99 },
                 { "p999_ns", .999 } };
    json_obj(j);
    json_kv_i64(j, "n", h->n);
    json_kv_i64(j, "sum_ns", h->sum_ns);
    json_kv_i64(j, "mean_ns", h->n ? h->sum_ns / h->n : 0);
    json_kv_i64(j, "least_ns", h->least_ns);
    json_kv_i64(j, "most_ns", h->most_ns);
    for (size_t i = 0; i < countof(told); i++)
        json_kv_i64(j, told[i].name, hist_quantile(h, told[i].q));
    json_kv_i64(j, "parts", HIST_PARTS);
    json_key(j, "counts");
    json_arr(j);
    for (size_t i = 0; i < HIST_BUCKETS; i++) {
        if (!h->counts[i]) continue;
        json_arr(j);
        json_put_i64(j, (int64_t)i);
        json_put_i64(j, h->counts[i]);
        json_end_arr(j);
    }
    json_end_arr(j);
    json_end_obj(j);
}

bool hist_read(yyjson_val *v, Hist *h) {
    Hist *one = mem_new(sizeof *one);
    int64_t parts = 0, total = 0;
    bool good = json_get_i64(v, "n", &one->n) && json_get_i64(v, "sum_ns", &one->sum_ns)
                && json_get_i64(v, "least_ns", &one->least_ns)
                && json_get_i64(v, "most_ns", &one->most_ns) && json_get_i64(v, "parts", &parts)
                && parts == HIST_PARTS && one->n >= 0 && one->least_ns >= 0;
    yyjson_val *counts = json_get(v, "counts"), *pair;
    size_t i, n;
    good = good && yyjson_is_arr(counts);
    yyjson_arr_foreach(counts, i, n, pair) {
        yyjson_val *at = yyjson_arr_get(pair, 0), *count = yyjson_arr_get(pair, 1);
        good = good && yyjson_is_uint(at) && yyjson_get_uint(at) < HIST_BUCKETS
               && yyjson_is_uint(count) && yyjson_get_uint(count) <= (uint64_t)(one->n - total);
        if (!good) break;
        one->counts[yyjson_get_uint(at)] += (int64_t)yyjson_get_uint(count);
        total += (int64_t)yyjson_get_uint(count);
    }
    good = good && total == one->n;
    if (good) hist_merge(h, one);
    mem_free(one);
    return good;
}
