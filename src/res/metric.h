// SPDX-License-Identifier: Apache-2.0
// metric.h - counters, gauges and histograms as rows, written in Prometheus text format 0.0.4 at /metrics (dots become underscores; units
// are appended as promtool wants them). A Series is found once and kept: adding to it is one relaxed atomic. Series per metric are capped;
// what comes after falls into one with label values "other". Threads: any.
#ifndef LATHE_RES_METRIC_H
#define LATHE_RES_METRIC_H
#include "base/ctx.h"

typedef enum { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM } MetricType;
enum { METRIC_LABELS_MAX = 8, METRIC_BUCKETS_MAX = 24 };
typedef struct Metric {
    const char *name, *unit;                     // "gen_ai.server.request.duration", "s"; unit "" for plain counts
    MetricType type;
    const char *labels[METRIC_LABELS_MAX];       // "gen_ai.request.model" …; NULL ends
    const double *buckets;                       // upper bounds, rising; 0 ends
    const char *en, *zh;
} Metric;
typedef struct Series Series;
Series *metric_series(const Metric *m, const str *values);   // as many values as labels; "" is fine; lives for ever
void series_add(Series *s, double n);            // counter: n >= 0; gauge: any
void series_set(Series *s, double n);            // gauge
void series_observe(Series *s, double value);    // histogram
#define metric_add(m, n, ...) series_add(metric_series((m), (const str[]){ __VA_ARGS__ __VA_OPT__(,) { 0 } }), (n))
#define metric_set(m, n, ...) series_set(metric_series((m), (const str[]){ __VA_ARGS__ __VA_OPT__(,) { 0 } }), (n))
#define metric_observe(m, n, ...) series_observe(metric_series((m), (const str[]){ __VA_ARGS__ __VA_OPT__(,) { 0 } }), (n))
// Called before each scrape, to set gauges that are cheaper to read than to keep.
void metric_collector(void (*fn)(void *arg), void *arg);
void metrics_write(Buf *out);                    // the whole exposition
void metrics_reset(void);                        // tests only
#endif
