// SPDX-License-Identifier: Apache-2.0
// metric_test.c - counts are exact under threads, the exposition reads back, names and escapes are
// as Prometheus wants them, and strangers cannot grow the tables.
#include "base/test.h"
#include "os/thread.h"
#include "res/metric.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const double bounds[] = { 0.005, 0.25, 1, 2.5, 0 };
static const Metric requests = { "lathe.test.requests",
                                 "{request}",
                                 METRIC_COUNTER,
                                 { "http.route", "error.type" },
                                 NULL,
                                 "Requests",
                                 "请求数" };
static const Metric duration = {
    "gen_ai.server.request.duration", "s", METRIC_HISTOGRAM, { "gen_ai.request.model" }, bounds,
    "How long \\ it\ntook",           ""
};
static const Metric depth = { "lathe.queue.depth", "", METRIC_GAUGE, { 0 }, NULL, "Waiting", "" };
static const Metric bytes = { "lathe.sent", "By", METRIC_COUNTER, { 0 }, NULL, "Bytes sent", "" };

// The value of the sample whose text before the value is `name`; NaN when it is not there once.
static double sample(str text, const char *name) {
    double found = NAN;
    for (str line; str_cut(&text, '\n', &line);) {
        str rest = str_sub(line, strlen(name), line.n);
        if (!str_starts(line, str_z(name)) || !str_starts(rest, S(" "))) continue;
        double n = NAN;
        if (!isnan(found) || !str_to_f64(str_sub(rest, 1, rest.n), &n)) return NAN;
        found = n;
    }
    return found;
}

static size_t lines_with(str text, const char *start) {
    size_t n = 0;
    for (str line; str_cut(&text, '\n', &line);) n += str_starts(line, str_z(start));
    return n;
}

static str written(Ctx *c) {
    Buf b;
    buf_init(&b, 8 << 20);
    metrics_write(&b);
    str text = b.full ? (str){ 0 } : arena_str(c->mem, buf_str(&b));
    buf_done(&b);
    return text;
}

enum { THREADS = 8, ADDS = 20000 };
static void count(void *arg) {
    const Os *os = arg;
    (void)os;
    char value[16];
    for (int i = 0; i < ADDS; i++) {
        snprintf(value, sizeof value, "r%d", i % 50);
        metric_add(&requests, 1, str_z(value), S(""));
        metric_add(&depth, i % 2 ? -1 : 2);
        metric_observe(&duration, (i % 4) * 0.5, S("m"));
        metric_add(&bytes, 0.25);
    }
}

TEST(metric_counts_exactly) {
    Ctx *c = test_ctx();
    metrics_reset();
    Thread t[THREADS];
    for (int i = 0; i < THREADS; i++) thread_start(os_real(), "count", count, os_real(), &t[i]);
    while (isnan(sample(written(c), "lathe_queue_depth"))) {} // scrapes in the midst are whole
    for (int i = 0; i < THREADS; i++) thread_join(t[i]);
    str text = written(c);
    for (int i = 0; i < 50; i++) {
        str name = arena_printf(c->mem,
                                "lathe_test_requests_total{http_route=\"r%d\",error_type=\"\"}", i);
        CHECK_INT(sample(text, name.p), THREADS * ADDS / 50);
    }
    CHECK_INT(sample(text, "lathe_queue_depth"), THREADS * ADDS / 2);
    CHECK(sample(text, "lathe_sent_bytes_total") == THREADS * ADDS * 0.25);
    const char *m = "gen_ai_server_request_duration_seconds";
    CHECK_INT(sample(text, arena_printf(c->mem, "%s_count{gen_ai_request_model=\"m\"}", m).p),
              THREADS * ADDS);
    CHECK(sample(text, arena_printf(c->mem, "%s_sum{gen_ai_request_model=\"m\"}", m).p)
          == THREADS * ADDS * 0.75);
    metrics_reset();
}

TEST(metric_buckets_hold_their_bounds) {
    Ctx *c = test_ctx();
    metrics_reset();
    const double seen[] = { -1, 0.005, 0.0051, 0.25, 1, 1.5, 2.5, 1e9, NAN };
    for (size_t i = 0; i < countof(seen); i++) metric_observe(&duration, seen[i], S("a"));
    str text = written(c);
    const struct {
        const char *le;
        int n;
    } want[] = { { "0.005", 2 }, { "0.25", 4 }, { "1", 5 }, { "2.5", 7 }, { "+Inf", 8 } };
    for (size_t i = 0; i < countof(want); i++) {
        str name = arena_printf(c->mem,
                                "gen_ai_server_request_duration_seconds_bucket"
                                "{gen_ai_request_model=\"a\",le=\"%s\"}",
                                want[i].le);
        CHECK_INT(sample(text, name.p), want[i].n);
    }
    CHECK_INT(
        sample(text, "gen_ai_server_request_duration_seconds_count{gen_ai_request_model=\"a\"}"),
        8);
    metrics_reset();
}

TEST(metric_names_and_escapes) {
    Ctx *c = test_ctx();
    metrics_reset();
    static const struct {
        Metric m;
        const char *name;
    } cases[] = {
        { { "a.b", "", METRIC_COUNTER, .en = "x" }, "a_b_total" },
        { { "a.b.total", "", METRIC_COUNTER, .en = "x" }, "a_b_total" },
        { { "gen_ai.client.token.usage", "{token}", METRIC_HISTOGRAM, .en = "x" },
          "gen_ai_client_token_usage" },
        { { "process.cpu.time", "s", METRIC_COUNTER, .en = "x" },
          "process_cpu_time_seconds_total" },
        { { "disk.free.bytes", "By", METRIC_GAUGE, .en = "x" }, "disk_free_bytes" },
        { { "cpu.utilization", "1", METRIC_GAUGE, .en = "x" }, "cpu_utilization_ratio" },
        { { "9-lives..left", "", METRIC_GAUGE, .en = "x" }, "_9_lives_left" },
    };
    for (size_t i = 0; i < countof(cases); i++)
        CHECK_STR(metric_exposed_name(c->mem, &cases[i].m), cases[i].name);
    metric_add(&requests, 3, S("a\"b\\c\nd"), S("bad\xff utf8"));
    metric_add(&requests, 4, S("a\"b\\c\nd"), S("bad\xff utf8"));
    metric_observe(&duration, 1, S("m"));
    str text = written(c);
    CHECK_INT(sample(text, "lathe_test_requests_total{http_route=\"a\\\"b\\\\c\\nd\","
                           "error_type=\"bad? utf8\"}"),
              7);
    CHECK(str_find(text, S("# HELP gen_ai_server_request_duration_seconds How long \\\\ it\\ntook\n"
                           "# TYPE gen_ai_server_request_duration_seconds histogram\n"))
          >= 0);
    CHECK(str_find(text, S("# TYPE lathe_test_requests_total counter\n")) >= 0);
    metrics_reset();
}

TEST(metric_series_are_capped) {
    Ctx *c = test_ctx();
    metrics_reset();
    char value[24];
    for (int i = 0; i < METRIC_SERIES_MAX + 500; i++) {
        snprintf(value, sizeof value, "v%d", i);
        metric_add(&requests, 1, str_z(value), S("x"));
    }
    metric_add(&requests, 1, S("v7"), S("x")); // those that were in time still count alone
    str text = written(c);
    CHECK_INT(lines_with(text, "lathe_test_requests_total{"), METRIC_SERIES_MAX + 1);
    CHECK_INT(sample(text, "lathe_test_requests_total{http_route=\"other\",error_type=\"other\"}"),
              500);
    CHECK_INT(sample(text, "lathe_test_requests_total{http_route=\"v7\",error_type=\"x\"}"), 2);
    metrics_reset();
}

TEST(metric_values_are_cut) {
    Ctx *c = test_ctx();
    metrics_reset();
    Buf b;
    buf_init(&b, 4096);
    buf_add_repeat(&b, 'k', METRIC_VALUE_MAX - 1);
    buf_add(&b, S("版本"));
    for (int i = 0; i < 2; i++) metric_add(&requests, 1, buf_str(&b), S(""));
    str text = written(c);
    CHECK_INT(lines_with(text, "lathe_test_requests_total{"), 1);
    CHECK(str_utf8(text));
    buf_done(&b);
    metrics_reset();
}

TEST(metric_totals_never_fall) {
    Ctx *c = test_ctx();
    metrics_reset();
    const double read[] = { 1.5, 7.25, 6, 7 };
    for (size_t i = 0; i < countof(read); i++) metric_total(&bytes, read[i]);
    CHECK(sample(written(c), "lathe_sent_bytes_total") == 7.25);
    metrics_reset();
}

static void set_depth(void *arg) { metric_set(&depth, *(double *)arg); }
TEST(metric_declared_and_collected) {
    Ctx *c = test_ctx();
    metrics_reset();
    metrics_declare((const Metric *const[]){ &bytes, &requests, &depth, NULL });
    str text = written(c);
    CHECK_INT(sample(text, "lathe_sent_bytes_total"), 0);
    CHECK_INT(lines_with(text, "lathe_test_requests_total"), 0);
    double now = -1.5;
    metric_collector(set_depth, &now);
    CHECK(sample(written(c), "lathe_queue_depth") == -1.5);
    now = 1e300;
    CHECK(sample(written(c), "lathe_queue_depth") == 1e300);
    metrics_reset();
}
