// SPDX-License-Identifier: Apache-2.0
// machine.c - the money of an engine's time while it runs. Nobody knows beforehand how long an
// answer takes: until its first byte at most gateway.first_token_timeout, so that is reserved at
// admission. While an attempt lasts, more is reserved before what there is has been used; a budget
// that has no more ends the request, and is not overspent.
// Threads: the exchange's loop.
#include "mod/gateway/flow.h"
#include "base/time.h"

enum { LEAST_MS = 2000 }; // a loop may be late by a good part of this

int64_t machine_first_ms(void) {
    int64_t ms = setting_int(&gateway_settings[GW_FIRST]);
    return ms > LEAST_MS ? ms : LEAST_MS;
}

static void budget_over(Flow *f, size_t by, LimitKind kind) {
    Period p = (Period)(kind - LIMIT_MONEY);
    const LimitState none = { .limit = limit_of_money(f->subjects[by].limits, p) };
    err e = limits_refused(f, by, kind, &none, 0);
    stage_attempt_cancel(f);
    (void)e;
    flow_fail(f);
}

static void more(void *arg) {
    Flow *f = arg;
    int64_t nano = usage_cost(f->price, 0, 0, 0, f->machine_ms * 1000);
    size_t by = 0;
    LimitKind over =
        limiter_more(access_limiter(), f->subjects, f->subjects_n, nano, f->limits.at_ms, &by);
    if (over) {
        budget_over(f, by, over);
        return;
    }
    f->r.reserved_nano += nano;
    timer_start(f->timer, f->machine_ms);
}

// An attempt begins, with machine_first_ms reserved: each half of that, as much more.
void machine_watch(Flow *f) {
    machine_unwatch(f);
    if (!f->price || !f->price->machine_second_nano || !limits_have_money(f)) return;
    f->machine_ms = f->first_ms / 2;
    f->timer = timer_new(exchange_loop(f->x), more, f);
    timer_start(f->timer, f->machine_ms);
}

void machine_unwatch(Flow *f) {
    timer_free(f->timer);
    f->timer = NULL;
}
