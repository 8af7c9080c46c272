// SPDX-License-Identifier: Apache-2.0
// limiter_test.c - properties of the limits: what a window lets through, what never goes over, what
// comes back.
#include "base/test.h"
#include "base/time.h"
#include "os/thread.h"
#include "res/limiter.h"

// ---- of one subject
static LimitAnswer one_admit(Limiter *l, str id, const Limits *limits, int64_t reserve,
                             int64_t now_ms, int64_t mono_ns) {
    return limiter_admit(l, &(LimitSubject){ id, limits }, 1, (LimitUse){ .nano = reserve }, now_ms,
                         mono_ns);
}
static void one_settle(Limiter *l, str id, int64_t reserved, int64_t cost, int64_t at_ms) {
    static const Limits none;
    limiter_settle(l, &(LimitSubject){ id, &none }, 1, (LimitUse){ .nano = reserved },
                   (LimitUse){ .nano = cost }, at_ms);
}
static bool one_again(Limiter *l, str id, const Limits *limits, int64_t reserved, int64_t cost,
                      int64_t at_ms) {
    (void)reserved;
    return !limiter_again(l, &(LimitSubject){ id, limits }, 1, (LimitUse){ .nano = cost }, at_ms,
                          NULL);
}
static bool one_more(Limiter *l, str id, const Limits *limits, int64_t more, int64_t at_ms) {
    return !limiter_more(l, &(LimitSubject){ id, limits }, 1, more, at_ms, NULL);
}

#define SECOND 1000000000LL
enum { DAY = 86400000 };

TEST(limiter_requests_burst_then_rate) {
    Limiter *l = limiter_new(100);
    Limits limits = { .requests_per_minute = 60 };
    int64_t t = 5 * SECOND;
    for (int i = 0; i < 60; i++) {
        CHECK_INT(one_admit(l, S("k"), &limits, 0, 1, t).refused, LIMIT_NONE);
        one_settle(l, S("k"), 0, 0, 1);
    }
    LimitAnswer a = one_admit(l, S("k"), &limits, 0, 1, t);
    CHECK_INT(a.refused, LIMIT_REQUESTS);
    CHECK_INT(a.retry_after_ms, 1000);
    CHECK_INT(a.requests.remaining, 0);
    CHECK_INT(one_admit(l, S("k"), &limits, 0, 1, t + SECOND - 1).refused, LIMIT_REQUESTS);
    CHECK_INT(one_admit(l, S("k"), &limits, 0, 1, t + SECOND).refused, LIMIT_NONE);
    CHECK_INT(one_admit(l, S("other"), &limits, 0, 1, t).refused, LIMIT_NONE);
    limiter_free(l);
}

TEST(limiter_refusal_leaves_no_trace) {
    Limiter *l = limiter_new(100);
    Limits limits = { .requests_per_minute = 10, .concurrency = 1 };
    CHECK_INT(one_admit(l, S("k"), &limits, 0, 1, SECOND).refused, LIMIT_NONE);
    for (int i = 0; i < 100; i++)
        CHECK_INT(one_admit(l, S("k"), &limits, 0, 1, SECOND).refused, LIMIT_CONCURRENCY);
    one_settle(l, S("k"), 0, 0, 1);
    CHECK_INT(limiter_look(l, S("k"), &limits, 1, SECOND).requests.remaining, 9);
    CHECK_INT(one_admit(l, S("k"), &limits, 0, 1, SECOND).refused, LIMIT_NONE);
    limiter_free(l);
}

TEST(limiter_money_of_a_day_is_never_overspent) {
    Limiter *l = limiter_new(100);
    Limits limits = { .money_per_day = 100 };
    CHECK_INT(one_admit(l, S("k"), &limits, 60, 1, 1).refused, LIMIT_NONE);
    CHECK_INT(one_admit(l, S("k"), &limits, 41, 1, 1).refused, LIMIT_MONEY);
    CHECK_INT(one_admit(l, S("k"), &limits, 40, 1, 1).refused, LIMIT_NONE);
    one_settle(l, S("k"), 60, 10, 1);
    CHECK_INT(one_admit(l, S("k"), &limits, 50, 1, 1).refused, LIMIT_NONE);
    CHECK_INT(one_admit(l, S("k"), &limits, 1, 1, 1).refused, LIMIT_MONEY);
    CHECK_INT(one_admit(l, S("k"), &limits, 100, DAY, 1).refused, LIMIT_NONE); // the next day
    one_settle(l, S("k"), 40, 40, 1); // of the day before: not today's
    CHECK_INT(one_admit(l, S("k"), &limits, 1, DAY, 1).refused, LIMIT_MONEY);
    limiter_free(l);
}

TEST(limiter_reserves_more_for_a_request_under_way) {
    Limiter *l = limiter_new(100);
    Limits limits = { .money_per_day = 100 }, none = { 0 };
    CHECK_INT(one_admit(l, S("k"), &limits, 60, 1, 1).refused, LIMIT_NONE);
    CHECK(!one_more(l, S("k"), &limits, 41, 1));
    CHECK(one_more(l, S("k"), &limits, 40, 1));
    CHECK(one_more(l, S("k"), &none, 1000, 1));
    CHECK_INT(one_admit(l, S("k"), &limits, 1, 1, 1).refused, LIMIT_MONEY);
    one_settle(l, S("k"), 1100, 30, 1);
    CHECK_INT(limiter_look(l, S("k"), &limits, 1, 1).money[PERIOD_DAY].remaining, 70);
    limiter_free(l);
}

// The clock is set back over midnight while requests run, and comes forth again.
TEST(limiter_clock_that_goes_back_over_midnight) {
    Limiter *l = limiter_new(100);
    Limits limits = { .money_per_day = 100 };
    CHECK_INT(one_admit(l, S("k"), &limits, 90, DAY - 1, 1).refused, LIMIT_NONE);
    one_settle(l, S("k"), 90, 90, DAY - 1);
    CHECK_INT(one_admit(l, S("k"), &limits, 60, DAY + 1, 1).refused, LIMIT_NONE);
    CHECK_INT(one_admit(l, S("k"), &limits, 11, DAY - 1, 1).refused, LIMIT_MONEY);
    CHECK_INT(one_admit(l, S("k"), &limits, 10, DAY - 1, 1).refused, LIMIT_NONE);
    one_settle(l, S("k"), 10, 0, DAY - 1);
    one_settle(l, S("k"), 60, 0, DAY + 1);
    CHECK_INT(limiter_look(l, S("k"), &limits, DAY - 1, 1).money[PERIOD_DAY].remaining, 10);
    CHECK_INT(limiter_look(l, S("k"), &limits, DAY + 1, 1).money[PERIOD_DAY].remaining,
              100); // nothing stays
    limiter_free(l);
}

// A clock that was a year ahead for a moment: days go on from where they were.
TEST(limiter_clock_that_was_far_ahead) {
    Limiter *l = limiter_new(100);
    Limits limits = { .money_per_day = 100 };
    CHECK_INT(one_admit(l, S("k"), &limits, 70, 1, 1).refused, LIMIT_NONE);
    CHECK_INT(one_admit(l, S("k"), &limits, 70, 400LL * DAY, 1).refused, LIMIT_NONE);
    one_settle(l, S("k"), 70, 70, 1);
    CHECK_INT(limiter_look(l, S("k"), &limits, 1, 1).money[PERIOD_DAY].remaining, 30);
    CHECK_INT(limiter_look(l, S("k"), &limits, DAY, 1).money[PERIOD_DAY].remaining, 100);
    CHECK_INT(one_admit(l, S("k"), &limits, 100, DAY, 1).refused, LIMIT_NONE);
    one_settle(l, S("k"), 70, 70, 400LL * DAY);
    one_settle(l, S("k"), 100, 100, DAY);
    CHECK_INT(limiter_look(l, S("k"), &limits, DAY, 1).money[PERIOD_DAY].remaining, 0);
    CHECK_INT(limiter_look(l, S("k"), &limits, 400LL * DAY, 1).money[PERIOD_DAY].remaining, 30);
    limiter_free(l);
}

TEST(limiter_another_attempt_is_paid_for_too) {
    Limiter *l = limiter_new(100);
    Limits limits = { .money_per_day = 100, .concurrency = 1 };
    CHECK_INT(one_admit(l, S("k"), &limits, 60, 1, 1).refused, LIMIT_NONE);
    CHECK(!one_again(l, S("k"), &limits, 60, 41, 1));
    CHECK_INT(limiter_look(l, S("k"), &limits, 1, 1).money[PERIOD_DAY].remaining,
              40); // nothing changed
    CHECK(one_again(l, S("k"), &limits, 60, 40, 1));
    CHECK_INT(limiter_look(l, S("k"), &limits, 1, 1).money[PERIOD_DAY].remaining, 0);
    CHECK_INT(limiter_look(l, S("k"), &limits, 1, 1).concurrency.remaining, 0); // still one request
    one_settle(l, S("k"), 60, 50, 1);
    CHECK_INT(limiter_look(l, S("k"), &limits, 1, 1).money[PERIOD_DAY].remaining, 10);
    CHECK_INT(one_admit(l, S("k"), &limits, 5, 1, 1).refused, LIMIT_NONE);
    CHECK_INT(one_admit(l, S("other"), &limits, 5, DAY, 1).refused, LIMIT_NONE);
    CHECK(one_again(l, S("k"), &limits, 5, 5, 1));
    limiter_free(l);
}

// A model so dear that what many requests reserve or cost is more than 64 bits hold.
TEST(limiter_sums_more_money_than_there_is) {
    enum { MANY = 2000 };
    static const int64_t dear = INT64_MAX / 8;
    Limiter *l = limiter_new(100);
    Limits none = { 0 }, limits = { .money_per_day = 100 };
    for (int i = 0; i < MANY; i++)
        CHECK_INT(one_admit(l, S("k"), &none, dear, 1, 1).refused, LIMIT_NONE);
    CHECK_INT(one_admit(l, S("k"), &limits, 1, 1, 1).refused, LIMIT_MONEY);
    for (int i = 0; i < MANY; i++) one_settle(l, S("k"), dear, dear, 1);
    CHECK_INT(limiter_look(l, S("k"), &limits, 1, 1).money[PERIOD_DAY].remaining, 0);
    CHECK_INT(one_admit(l, S("k"), &limits, 1, 1, 1).refused, LIMIT_MONEY);
    limiter_free(l);
}

// What was admitted while the clock stood before midnight once more counts for the day before, and
// is given back there.
TEST(limiter_gives_back_what_was_reserved_while_the_clock_was_behind) {
    Limiter *l = limiter_new(100);
    Limits limits = { .money_per_day = 100 };
    limiter_spent(l, S("k"), PERIOD_DAY, DAY, 10);
    LimitAnswer a = one_admit(l, S("k"), &limits, 60, DAY - 5, 1);
    CHECK_INT(a.refused, LIMIT_NONE);
    CHECK_INT(a.money[PERIOD_DAY].remaining, 40);
    one_settle(l, S("k"), 60, 20, a.at_ms);
    CHECK_INT(limiter_look(l, S("k"), &limits, DAY - 5, 1).money[PERIOD_DAY].remaining, 80);
    CHECK_INT(limiter_look(l, S("k"), &limits, DAY + 1, 1).money[PERIOD_DAY].remaining, 90);
    limiter_free(l);
}

TEST(limiter_recovers_what_was_spent) {
    Limiter *l = limiter_new(100);
    Limits limits = { .money_per_day = 100 };
    limiter_spent(l, S("k"), PERIOD_DAY, 0, 70);
    limiter_spent(l, S("k"), PERIOD_DAY, 0, 20);
    CHECK_INT(limiter_look(l, S("k"), &limits, 1, 1).money[PERIOD_DAY].remaining, 10);
    CHECK_INT(one_admit(l, S("k"), &limits, 11, 1, 1).refused, LIMIT_MONEY);
    limiter_free(l);
}

TEST(limiter_forgets_only_the_idle) {
    Limiter *l = limiter_new(64);
    Limits limits = { .concurrency = 1, .money_per_day = 5 };
    CHECK_INT(one_admit(l, S("busy"), &limits, 0, 1, 1).refused, LIMIT_NONE);
    limiter_spent(l, S("spender"), PERIOD_DAY, 0, 5);
    Ctx *c = test_ctx();
    for (int i = 0; i < 5000; i++)
        limiter_look(l, arena_printf(c->mem, "idle%d", i), &limits, 1, 1);
    CHECK_INT(one_admit(l, S("busy"), &limits, 0, 1, 1).refused, LIMIT_CONCURRENCY);
    CHECK_INT(one_admit(l, S("spender"), &limits, 1, 1, 1).refused, LIMIT_MONEY);
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
        if (one_admit(b->l, S("k"), &limits, 10, 1, 1).refused) continue;
        b->admitted++;
        int64_t cost = i % 11;
        one_settle(b->l, S("k"), 10, cost, 1);
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
    CHECK_INT(limiter_look(l, S("k"), &limits, 1, 1).money[PERIOD_DAY].remaining, 1000 - spent);
    limiter_free(l);
}

// ---- of several
TEST(limiter_all_admit_or_none) {
    const Limits key = { .money_per_day = 100, .requests_per_minute = 10 },
                 project = { .money_per_day = 150, .concurrency = 2 }, org = { 0 };
    const LimitSubject a[] = { { S("a"), &key }, { S("p"), &project }, { S("o"), &org } },
                       b[] = { { S("b"), &key }, { S("p"), &project }, { S("o"), &org } };
    Limiter *l = limiter_new(100);
    LimitAnswer got = limiter_admit(l, a, 3, (LimitUse){ .nano = 90 }, 1, 1);
    CHECK_INT(got.refused, LIMIT_NONE);
    CHECK(got.money[PERIOD_DAY].limit == 100
          && got.money[PERIOD_DAY].remaining == 10); // the key has less left
    got = limiter_admit(l, b, 3, (LimitUse){ .nano = 90 }, 1, 1);
    CHECK(got.refused == LIMIT_MONEY && got.by == 1 && got.money[PERIOD_DAY].limit == 150);
    CHECK_INT(limiter_look(l, S("b"), &key, 1, 1).money[PERIOD_DAY].remaining,
              100); // without a trace
    CHECK_INT(limiter_look(l, S("b"), &key, 1, 1).requests.remaining, 10);
    got = limiter_admit(l, b, 3, (LimitUse){ .nano = 60 }, 1, 1);
    CHECK(got.refused == LIMIT_NONE && got.money[PERIOD_DAY].limit == 150
          && !got.money[PERIOD_DAY].remaining);
    got = limiter_admit(l, b, 3, (LimitUse){ .nano = 0 }, 1, 1);
    CHECK(got.refused == LIMIT_CONCURRENCY && got.by == 1);
    size_t by = 9;
    CHECK(limiter_more(l, b, 3, 1, 1, &by) == LIMIT_MONEY && by == 1);
    limiter_settle(l, a, 3, (LimitUse){ .nano = 90 }, (LimitUse){ .nano = 10 }, 1);
    CHECK_INT(limiter_more(l, b, 3, 40, 1, &by), LIMIT_NONE);
    CHECK(limiter_more(l, b, 3, 1, 1, &by) == LIMIT_MONEY && by == 0); // now its key has no more
    CHECK(limiter_again(l, b, 3, (LimitUse){ .nano = 1 }, 1, &by) && by == 0);
    limiter_settle(l, b, 3, (LimitUse){ .nano = 100 }, (LimitUse){ .nano = 100 }, 1);
    CHECK_INT(limiter_look(l, S("p"), &project, 1, 1).money[PERIOD_DAY].remaining, 40);
    CHECK_INT(limiter_look(l, S("p"), &project, 1, 1).concurrency.remaining, 2);
    limiter_free(l);
}

typedef struct Crowd {
    Limiter *l;
    const Limits *project;
    str key;
    int64_t admitted;
} Crowd;
static void crowd_asks(void *arg) {
    static const Limits none;
    Crowd *me = arg;
    const LimitSubject of[] = { { me->key, &none }, { S("p"), me->project }, { S("o"), &none } };
    for (int i = 0; i < 20000; i++)
        if (!limiter_admit(me->l, of, 3, (LimitUse){ .nano = 7 }, 1, 1).refused) me->admitted++;
}
TEST(limiter_a_crowd_does_not_overspend_what_it_shares) {
    enum { THREADS = 4 };
    const Limits project = { .money_per_day = 7 * 12345 + 3 };
    Limiter *l = limiter_new(16); // fewer than there are subjects: none that is in use goes
    Crowd all[THREADS];
    Thread threads[THREADS];
    Ctx *c = test_ctx();
    int64_t sum = 0;
    c->os = os_real();
    for (int i = 0; i < THREADS; i++) {
        all[i] = (Crowd){ l, &project, arena_printf(c->mem, "key_%d", i), 0 };
        CHECK_OK(c, thread_open(c, "crowd", crowd_asks, &all[i], &threads[i]));
    }
    for (int i = 0; i < THREADS; i++) thread_join(threads[i]), sum += all[i].admitted;
    CHECK_INT(sum, 12345);
    CHECK_INT(limiter_look(l, S("p"), &project, 1, 1).money[PERIOD_DAY].remaining, 3);
    limiter_free(l);
}

// ---- tokens
static LimitAnswer ask_tokens(Limiter *l, const Limits *limits, int64_t n, int64_t mono_ns) {
    return limiter_admit(l, &(LimitSubject){ S("k"), limits }, 1, (LimitUse){ .tokens = n }, 1,
                         mono_ns);
}
static void used_tokens(Limiter *l, const Limits *limits, int64_t reserved, int64_t used) {
    limiter_settle(l, &(LimitSubject){ S("k"), limits }, 1, (LimitUse){ .tokens = reserved },
                   (LimitUse){ .tokens = used }, 1);
}

TEST(limiter_tokens_a_minute_are_those_that_were_used) {
    const Limits limits = { .tokens_per_minute = 600 }; // ten a second
    Limiter *l = limiter_new(100);
    int64_t t = 5 * SECOND;
    CHECK_INT(ask_tokens(l, &limits, 400, t).refused, LIMIT_NONE);
    LimitAnswer a = ask_tokens(l, &limits, 300, t);
    CHECK_INT(a.refused, LIMIT_TOKENS);
    CHECK_INT(a.retry_after_ms, 10000);
    CHECK_INT(a.tokens.remaining, 200);
    used_tokens(l, &limits, 400, 100); // it used less than it might have
    CHECK_INT(ask_tokens(l, &limits, 300, t).refused, LIMIT_NONE);
    used_tokens(l, &limits, 300, 300);
    CHECK_INT(limiter_look(l, S("k"), &limits, 1, t).tokens.remaining, 200);
    CHECK_INT(limiter_look(l, S("k"), &limits, 1, t + SECOND).tokens.remaining, 210);
    limiter_free(l);
}

TEST(limiter_a_request_that_may_use_more_than_a_minutes_tokens) {
    const Limits limits = { .tokens_per_minute = 600 };
    Limiter *l = limiter_new(100);
    int64_t t = 5 * SECOND;
    CHECK_INT(ask_tokens(l, &limits, 100000, t).refused, LIMIT_NONE); // alone it may
    CHECK_INT(ask_tokens(l, &limits, 1, t).refused, LIMIT_TOKENS);
    used_tokens(l, &limits, 100000, 1200); // twice what a minute has: the next waits for it
    LimitAnswer a = ask_tokens(l, &limits, 1, t);
    CHECK_INT(a.refused, LIMIT_TOKENS);
    CHECK_INT(a.retry_after_ms, 60100);
    CHECK_INT(ask_tokens(l, &limits, 1, t + 61 * SECOND).refused, LIMIT_NONE);
    limiter_free(l);
}

// ---- months, and all time
TEST(limiter_money_of_a_month_ends_with_it) {
    const int64_t begin = time_month_begin(12 * 2026 + 1), next = time_month_begin(12 * 2026 + 2);
    Limiter *l = limiter_new(100);
    Limits limits = { .money_per_day = 60, .money_per_month = 100 };
    CHECK_INT(next - begin, 28LL * DAY);
    CHECK_INT(one_admit(l, S("k"), &limits, 60, begin, 1).refused, LIMIT_NONE);
    one_settle(l, S("k"), 60, 55, begin);
    CHECK_INT(one_admit(l, S("k"), &limits, 6, begin, 1).refused, LIMIT_MONEY);
    LimitAnswer a = one_admit(l, S("k"), &limits, 46, begin + DAY, 1);
    CHECK_INT(a.refused, limit_money(PERIOD_MONTH));
    CHECK_INT(a.retry_after_ms, 27LL * DAY);
    CHECK_INT(a.money[PERIOD_MONTH].remaining, 45);
    CHECK_INT(a.money[PERIOD_DAY].remaining, 60);
    CHECK_INT(one_admit(l, S("k"), &limits, 45, next - 1, 1).refused, LIMIT_NONE);
    CHECK_INT(one_admit(l, S("k"), &limits, 1, next - 1, 1).retry_after_ms, 0); // it may come back
    CHECK_INT(one_admit(l, S("k"), &limits, 60, next, 1).refused, LIMIT_NONE);
    one_settle(l, S("k"), 45, 40, next - 1); // of the month that it was admitted in
    CHECK_INT(limiter_look(l, S("k"), &limits, next, 1).money[PERIOD_MONTH].remaining, 40);
    CHECK_INT(limiter_look(l, S("k"), &limits, next - 1, 1).money[PERIOD_MONTH].remaining, 5);
    one_settle(l, S("k"), 60, 0, next);
    limiter_free(l);
}

TEST(limiter_money_in_all_never_comes_back) {
    Limiter *l = limiter_new(1);
    Limits limits = { .money_total = 10 }, none = { 0 };
    limiter_spent(l, S("k"), PERIOD_TOTAL, 0, 4);
    CHECK_INT(one_admit(l, S("k"), &limits, 6, 1, 1).refused, LIMIT_NONE);
    CHECK_INT(one_more(l, S("k"), &limits, 1, 1), false);
    one_settle(l, S("k"), 6, 6, 1);
    for (int i = 0; i < 1000; i++) { // as many others as there are places, years later: it stays
        char id[20];
        snprintf(id, sizeof id, "other %d", i);
        one_admit(l, str_z(id), &none, 0, 4000LL * DAY, 1);
        one_settle(l, str_z(id), 0, 0, 4000LL * DAY);
    }
    LimitAnswer a = one_admit(l, S("k"), &limits, 1, 4000LL * DAY, 1);
    CHECK_INT(a.refused, limit_money(PERIOD_TOTAL));
    CHECK_INT(a.retry_after_ms, 0);
    CHECK_INT(a.money[PERIOD_TOTAL].remaining, 0);
    CHECK_INT(one_admit(l, S("k"), &limits, 0, 4000LL * DAY, 1).refused, LIMIT_NONE); // it is free
    limiter_free(l);
}
