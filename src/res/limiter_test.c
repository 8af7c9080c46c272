// SPDX-License-Identifier: Apache-2.0
// limiter_test.c - properties of the limits: what a window lets through, what never goes over, what
// comes back.
#include "base/test.h"
#include "os/thread.h"
#include "res/limiter.h"

#define SECOND 1000000000LL
enum { DAY = 86400000 };

TEST(limiter_requests_burst_then_rate) {
    Limiter *l = limiter_new(100);
    Limits limits = { .requests_per_minute = 60 };
    int64_t t = 5 * SECOND;
    for (int i = 0; i < 60; i++) {
        CHECK_INT(limiter_admit(l, S("k"), &limits, 0, 1, t).refused, LIMIT_NONE);
        limiter_settle(l, S("k"), 0, 0, 1);
    }
    LimitAnswer a = limiter_admit(l, S("k"), &limits, 0, 1, t);
    CHECK_INT(a.refused, LIMIT_REQUESTS);
    CHECK_INT(a.retry_after_ms, 1000);
    CHECK_INT(a.requests.remaining, 0);
    CHECK_INT(limiter_admit(l, S("k"), &limits, 0, 1, t + SECOND - 1).refused, LIMIT_REQUESTS);
    CHECK_INT(limiter_admit(l, S("k"), &limits, 0, 1, t + SECOND).refused, LIMIT_NONE);
    CHECK_INT(limiter_admit(l, S("other"), &limits, 0, 1, t).refused, LIMIT_NONE);
    limiter_free(l);
}

TEST(limiter_refusal_leaves_no_trace) {
    Limiter *l = limiter_new(100);
    Limits limits = { .requests_per_minute = 10, .concurrency = 1 };
    CHECK_INT(limiter_admit(l, S("k"), &limits, 0, 1, SECOND).refused, LIMIT_NONE);
    for (int i = 0; i < 100; i++)
        CHECK_INT(limiter_admit(l, S("k"), &limits, 0, 1, SECOND).refused, LIMIT_CONCURRENCY);
    limiter_settle(l, S("k"), 0, 0, 1);
    CHECK_INT(limiter_look(l, S("k"), &limits, 1, SECOND).requests.remaining, 9);
    CHECK_INT(limiter_admit(l, S("k"), &limits, 0, 1, SECOND).refused, LIMIT_NONE);
    limiter_free(l);
}

TEST(limiter_money_of_a_day_is_never_overspent) {
    Limiter *l = limiter_new(100);
    Limits limits = { .money_per_day = 100 };
    CHECK_INT(limiter_admit(l, S("k"), &limits, 60, 1, 1).refused, LIMIT_NONE);
    CHECK_INT(limiter_admit(l, S("k"), &limits, 41, 1, 1).refused, LIMIT_MONEY);
    CHECK_INT(limiter_admit(l, S("k"), &limits, 40, 1, 1).refused, LIMIT_NONE);
    limiter_settle(l, S("k"), 60, 10, 1);
    CHECK_INT(limiter_admit(l, S("k"), &limits, 50, 1, 1).refused, LIMIT_NONE);
    CHECK_INT(limiter_admit(l, S("k"), &limits, 1, 1, 1).refused, LIMIT_MONEY);
    CHECK_INT(limiter_admit(l, S("k"), &limits, 100, DAY, 1).refused, LIMIT_NONE); // the next day
    limiter_settle(l, S("k"), 40, 40, 1); // of the day before: not today's
    CHECK_INT(limiter_admit(l, S("k"), &limits, 1, DAY, 1).refused, LIMIT_MONEY);
    limiter_free(l);
}

TEST(limiter_reserves_more_for_a_request_under_way) {
    Limiter *l = limiter_new(100);
    Limits limits = { .money_per_day = 100 }, none = { 0 };
    CHECK_INT(limiter_admit(l, S("k"), &limits, 60, 1, 1).refused, LIMIT_NONE);
    CHECK(!limiter_more(l, S("k"), &limits, 41, 1));
    CHECK(limiter_more(l, S("k"), &limits, 40, 1));
    CHECK(limiter_more(l, S("k"), &none, 1000, 1));
    CHECK_INT(limiter_admit(l, S("k"), &limits, 1, 1, 1).refused, LIMIT_MONEY);
    limiter_settle(l, S("k"), 1100, 30, 1);
    CHECK_INT(limiter_look(l, S("k"), &limits, 1, 1).money.remaining, 70);
    limiter_free(l);
}

// The clock is set back over midnight while requests run, and comes forth again.
TEST(limiter_clock_that_goes_back_over_midnight) {
    Limiter *l = limiter_new(100);
    Limits limits = { .money_per_day = 100 };
    CHECK_INT(limiter_admit(l, S("k"), &limits, 90, DAY - 1, 1).refused, LIMIT_NONE);
    limiter_settle(l, S("k"), 90, 90, DAY - 1);
    CHECK_INT(limiter_admit(l, S("k"), &limits, 60, DAY + 1, 1).refused, LIMIT_NONE);
    CHECK_INT(limiter_admit(l, S("k"), &limits, 11, DAY - 1, 1).refused, LIMIT_MONEY);
    CHECK_INT(limiter_admit(l, S("k"), &limits, 10, DAY - 1, 1).refused, LIMIT_NONE);
    limiter_settle(l, S("k"), 10, 0, DAY - 1);
    limiter_settle(l, S("k"), 60, 0, DAY + 1);
    CHECK_INT(limiter_look(l, S("k"), &limits, DAY - 1, 1).money.remaining, 10);
    CHECK_INT(limiter_look(l, S("k"), &limits, DAY + 1, 1).money.remaining, 100); // nothing stays
    limiter_free(l);
}

// A clock that was a year ahead for a moment: days go on from where they were.
TEST(limiter_clock_that_was_far_ahead) {
    Limiter *l = limiter_new(100);
    Limits limits = { .money_per_day = 100 };
    CHECK_INT(limiter_admit(l, S("k"), &limits, 70, 1, 1).refused, LIMIT_NONE);
    CHECK_INT(limiter_admit(l, S("k"), &limits, 70, 400LL * DAY, 1).refused, LIMIT_NONE);
    limiter_settle(l, S("k"), 70, 70, 1);
    CHECK_INT(limiter_look(l, S("k"), &limits, 1, 1).money.remaining, 30);
    CHECK_INT(limiter_look(l, S("k"), &limits, DAY, 1).money.remaining, 100);
    CHECK_INT(limiter_admit(l, S("k"), &limits, 100, DAY, 1).refused, LIMIT_NONE);
    limiter_settle(l, S("k"), 70, 70, 400LL * DAY);
    limiter_settle(l, S("k"), 100, 100, DAY);
    CHECK_INT(limiter_look(l, S("k"), &limits, DAY, 1).money.remaining, 0);
    CHECK_INT(limiter_look(l, S("k"), &limits, 400LL * DAY, 1).money.remaining, 30);
    limiter_free(l);
}

TEST(limiter_another_attempt_is_paid_for_too) {
    Limiter *l = limiter_new(100);
    Limits limits = { .money_per_day = 100, .concurrency = 1 };
    CHECK_INT(limiter_admit(l, S("k"), &limits, 60, 1, 1).refused, LIMIT_NONE);
    CHECK(!limiter_again(l, S("k"), &limits, 60, 41, 1));
    CHECK_INT(limiter_look(l, S("k"), &limits, 1, 1).money.remaining, 40); // nothing changed
    CHECK(limiter_again(l, S("k"), &limits, 60, 40, 1));
    CHECK_INT(limiter_look(l, S("k"), &limits, 1, 1).money.remaining, 0);
    CHECK_INT(limiter_look(l, S("k"), &limits, 1, 1).concurrency.remaining, 0); // still one request
    limiter_settle(l, S("k"), 60, 50, 1);
    CHECK_INT(limiter_look(l, S("k"), &limits, 1, 1).money.remaining, 10);
    CHECK_INT(limiter_admit(l, S("k"), &limits, 5, 1, 1).refused, LIMIT_NONE);
    CHECK_INT(limiter_admit(l, S("other"), &limits, 5, DAY, 1).refused, LIMIT_NONE);
    CHECK(limiter_again(l, S("k"), &limits, 5, 5, 1));
    limiter_free(l);
}

// A model so dear that what many requests reserve or cost is more than 64 bits hold.
TEST(limiter_sums_more_money_than_there_is) {
    enum { MANY = 2000 };
    static const int64_t dear = INT64_MAX / 8;
    Limiter *l = limiter_new(100);
    Limits none = { 0 }, limits = { .money_per_day = 100 };
    for (int i = 0; i < MANY; i++)
        CHECK_INT(limiter_admit(l, S("k"), &none, dear, 1, 1).refused, LIMIT_NONE);
    CHECK_INT(limiter_admit(l, S("k"), &limits, 1, 1, 1).refused, LIMIT_MONEY);
    for (int i = 0; i < MANY; i++) limiter_settle(l, S("k"), dear, dear, 1);
    CHECK_INT(limiter_look(l, S("k"), &limits, 1, 1).money.remaining, 0);
    CHECK_INT(limiter_admit(l, S("k"), &limits, 1, 1, 1).refused, LIMIT_MONEY);
    limiter_free(l);
}

// What was admitted while the clock stood before midnight once more counts for the day before, and
// is given back there.
TEST(limiter_gives_back_what_was_reserved_while_the_clock_was_behind) {
    Limiter *l = limiter_new(100);
    Limits limits = { .money_per_day = 100 };
    limiter_spent(l, S("k"), 1, 10);
    LimitAnswer a = limiter_admit(l, S("k"), &limits, 60, DAY - 5, 1);
    CHECK_INT(a.refused, LIMIT_NONE);
    CHECK_INT(a.money.remaining, 40);
    limiter_settle(l, S("k"), 60, 20, a.at_ms);
    CHECK_INT(limiter_look(l, S("k"), &limits, DAY - 5, 1).money.remaining, 80);
    CHECK_INT(limiter_look(l, S("k"), &limits, DAY + 1, 1).money.remaining, 90);
    limiter_free(l);
}

TEST(limiter_recovers_what_was_spent) {
    Limiter *l = limiter_new(100);
    Limits limits = { .money_per_day = 100 };
    limiter_spent(l, S("k"), 0, 70);
    limiter_spent(l, S("k"), 0, 20);
    CHECK_INT(limiter_look(l, S("k"), &limits, 1, 1).money.remaining, 10);
    CHECK_INT(limiter_admit(l, S("k"), &limits, 11, 1, 1).refused, LIMIT_MONEY);
    limiter_free(l);
}

TEST(limiter_forgets_only_the_idle) {
    Limiter *l = limiter_new(64);
    Limits limits = { .concurrency = 1, .money_per_day = 5 };
    CHECK_INT(limiter_admit(l, S("busy"), &limits, 0, 1, 1).refused, LIMIT_NONE);
    limiter_spent(l, S("spender"), 0, 5);
    Ctx *c = test_ctx();
    for (int i = 0; i < 5000; i++)
        limiter_look(l, arena_printf(c->mem, "idle%d", i), &limits, 1, 1);
    CHECK_INT(limiter_admit(l, S("busy"), &limits, 0, 1, 1).refused, LIMIT_CONCURRENCY);
    CHECK_INT(limiter_admit(l, S("spender"), &limits, 1, 1, 1).refused, LIMIT_MONEY);
    limiter_free(l);
}

typedef struct Burst {
    Limiter *l;
    int64_t admitted, spent;
} Burst;

static void burst(void *arg) {
    Burst *b = arg;
    Limits limits = { .money_per_day = 1000 };
    for (int i = 0; i < 2000; i++) {
        if (limiter_admit(b->l, S("k"), &limits, 10, 1, 1).refused) continue;
        b->admitted++;
        int64_t cost = i % 11;
        limiter_settle(b->l, S("k"), 10, cost, 1);
        b->spent += cost;
    }
}

TEST(limiter_burst_of_threads_stays_within_budget) {
    Limiter *l = limiter_new(100);
    Burst b[4] = { { l, 0, 0 }, { l, 0, 0 }, { l, 0, 0 }, { l, 0, 0 } };
    Thread t[4];
    int64_t spent = 0, admitted = 0;
    for (int i = 0; i < 4; i++) thread_start(os_real(), "burst", burst, &b[i], &t[i]);
    for (int i = 0; i < 4; i++) thread_join(t[i]), spent += b[i].spent, admitted += b[i].admitted;
    Limits limits = { .money_per_day = 1000 };
    CHECK(spent <= 1000);
    CHECK(admitted >= 100);
    CHECK_INT(limiter_look(l, S("k"), &limits, 1, 1).money.remaining, 1000 - spent);
    limiter_free(l);
}
