// SPDX-License-Identifier: Apache-2.0
// metric.h - counters, gauges and histograms as rows, written in Prometheus text format 0.0.4 at
// /metrics. Names follow OpenTelemetry's rules for Prometheus: dots become underscores, the unit
// becomes a suffix ("s" _seconds, "By" _bytes, "1" _ratio on gauges, "{token}" nothing), counters
// end in _total. A Series is found once and kept: adding to it is one relaxed atomic.
// Series per metric are capped: what comes after falls into one whose values are all "other".
// Threads: any.
#ifndef LATHE_RES_METRIC_H
#define LATHE_RES_METRIC_H
#include "base/ctx.h"

typedef enum { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM } MetricType;
enum {
    METRIC_LABELS_MAX = 8,
    METRIC_BUCKETS_MAX = 24,
    METRIC_SERIES_MAX = 1000, // of one metric; "other" comes on top
    METRIC_VALUE_MAX = 256,   // bytes of a label's value; longer ones are cut
};
typedef struct Metric {
    const char *name, *unit; // "gen_ai.server.request.duration", "s"; unit "" for plain counts
    MetricType type;
    const char *labels[METRIC_LABELS_MAX]; // "gen_ai.request.model" ...; NULL ends
    const double *buckets;                 // upper bounds, rising; 0 ends
    const char *en, *zh;
} Metric;
typedef struct Series Series;
// As many values as labels; the absent string is "". Lives for ever, and so must the row.
Series *metric_series(const Metric *m, const str *values);
void series_add(Series *s, double n);       // counter: n >= 0; gauge: any
void series_set(Series *s, double n);       // gauge
void series_total(Series *s, double total); // counter kept elsewhere: its value so far, never less
void series_observe(Series *s, double value); // histogram; NaN is ignored
// clang-format off
#define metric_add(m, n, ...) series_add(metric_series((m), METRIC_VALUES_(__VA_ARGS__)), (n))
#define metric_set(m, n, ...) series_set(metric_series((m), METRIC_VALUES_(__VA_ARGS__)), (n))
#define metric_total(m, n, ...) series_total(metric_series((m), METRIC_VALUES_(__VA_ARGS__)), (n))
#define metric_observe(m, n, ...) \
    series_observe(metric_series((m), METRIC_VALUES_(__VA_ARGS__)), (n))
#define METRIC_VALUES_(...) (const str[]){ __VA_ARGS__ __VA_OPT__(, ) { 0 } }
// clang-format on

// Makes the rows known before they are used: one without labels is shown as 0 from then on.
void metrics_declare(const Metric *const *rows); // NULL ends, and NULL is fine
// Called before each exposition, to set gauges that are cheaper to read than to keep.
void metric_collector(void (*fn)(void *arg), void *arg);
void metrics_write(Buf *out); // the whole exposition; out->full when it did not fit
void metrics_reset(void);     // tests only, while no other thread counts: forgets all
// The name as Prometheus shows it, without _bucket, _sum, _count.
str metric_exposed_name(Arena *a, const Metric *m);
#endif
