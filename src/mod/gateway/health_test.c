// SPDX-License-Identifier: Apache-2.0
// health_test.c - the breaker's way from closed to open and back, and what the latency remembers.
#include "mod/gateway/health.h"
#include "base/test.h"

#define MS INT64_C(1000000)
enum { MOST = 3, OPEN_MS = 100 };

static void fail_times(str id, int n, int64_t at_ms) {
    for (int i = 0; i < n; i++) health_failed(id, 0, MOST, OPEN_MS, at_ms * MS);
}

TEST(health_opens_after_failures_in_a_row_only) {
    str id = S("row");
    CHECK_INT(health_of(id, 0).breaker, BREAKER_CLOSED);
    for (int i = 0; i < 10; i++) {
        fail_times(id, MOST - 1, i);
        health_ok(id, 1, i * MS);
    }
    CHECK_INT(health_of(id, 10 * MS).breaker, BREAKER_CLOSED);
    fail_times(id, MOST, 10);
    Health h = health_of(id, 10 * MS);
    CHECK_INT(h.breaker, BREAKER_OPEN);
    CHECK_INT(h.failures, MOST);
    CHECK_INT(h.open_ms, OPEN_MS);
    CHECK_INT(health_of(id, (10 + OPEN_MS) * MS - 1).breaker, BREAKER_OPEN);
    CHECK_INT(health_of(id, (10 + OPEN_MS) * MS).breaker, BREAKER_HALF);
    fail_times(S("never"), 0, 10);
    for (int i = 0; i < 100; i++) health_failed(S("never"), 1000, 0, OPEN_MS, 10 * MS);
    CHECK_INT(health_of(S("never"), 10 * MS).breaker, BREAKER_CLOSED); // it is switched off
}

TEST(health_lets_one_find_out) {
    str id = S("half");
    fail_times(id, MOST, 0);
    CHECK(!health_try(id, (OPEN_MS - 1) * MS));
    CHECK(health_try(id, OPEN_MS * MS));
    CHECK(!health_try(id, OPEN_MS * MS));    // it is being found out
    CHECK(health_try(id, 2 * OPEN_MS * MS)); // whoever was to find out never came back
    health_ok(id, 1, 2 * OPEN_MS * MS);
    CHECK_INT(health_of(id, 2 * OPEN_MS * MS).breaker, BREAKER_CLOSED);
    CHECK(!health_try(id, 10 * OPEN_MS * MS));
}

TEST(health_is_open_longer_each_time_up_to_a_bound) {
    str id = S("longer");
    int64_t at_ms = 0, before = 0;
    fail_times(id, MOST, 0);
    for (int i = 0; i < 12; i++) {
        int64_t open_ms = health_of(id, at_ms * MS).open_ms;
        CHECK(open_ms >= before && open_ms <= 16 * OPEN_MS);
        before = open_ms, at_ms += open_ms;
        CHECK(health_try(id, at_ms * MS));
        fail_times(id, 1, at_ms);
    }
    CHECK_INT(before, 16 * OPEN_MS);
    health_failed(S("asked"), 30000, MOST, OPEN_MS, 0); // it said for how long: one is enough
    CHECK_INT(health_of(S("asked"), 0).open_ms, 30000);
    health_failed(S("asked"), 86400000, MOST, OPEN_MS, 0);
    CHECK_INT(health_of(S("asked"), 0).open_ms, 300000); // nobody is left alone for a day
}

TEST(health_remembers_slowness_and_forgets_it) {
    str id = S("slow");
    health_ok(id, 10 * MS, 0);
    CHECK_INT(health_of(id, 0).latency_us, 10000);
    health_ok(id, 500 * MS, MS); // at once
    CHECK_INT(health_of(id, MS).latency_us, 500000);
    for (int i = 2; i < 12; i++) health_ok(id, 10 * MS, i * MS);
    CHECK(health_of(id, 12 * MS).latency_us > 400000); // ten fast ones within a moment say little
    int64_t later = health_of(id, 20000 * MS).latency_us;
    CHECK(later < 100000 && later > 0); // silence wears it off
    CHECK(health_of(id, 200000 * MS).latency_us < 10);
}

TEST(health_of_many_keeps_to_its_room) {
    char id[20];
    for (int i = 0; i < 10000; i++) {
        snprintf(id, sizeof id, "many %d", i);
        health_ok(str_z(id), MS, (int64_t)i * MS);
    }
    CHECK_INT(health_of(str_z(id), 10000 * MS).latency_us, 999); // the newest is known
}
