// SPDX-License-Identifier: Apache-2.0
// stage_admit.c - the key's limits, and the money that this request may cost at most reserved
// before it runs. Room in the journal is taken here too: what could not be recorded is not served.
#include "mod/gateway/flow.h"
#include "base/time.h"

enum { SPENDING_RETRY_MS = 1000 };

static int64_t cost_at(const Flow *f, const DeploymentEntry *d, str model) {
    const Price *price = usage_price(f->snapshot, f->project, model);
    return price ? usage_cost(price, flow_prompt_most(f, d), 0, flow_output_most(f, d),
                              price->machine_second_nano ? f->first_ms * 1000 : 0)
                 : 0;
}

// While a deployment changes, any of its replicas may answer: the dearest is reserved.
int64_t flow_cost_at(const Flow *f, const DeploymentEntry *d) {
    int64_t most = cost_at(f, d, d->model.n ? d->model : d->name);
    for (size_t i = 0; i < d->replicas_n; i++) {
        str model = d->replicas[i].model;
        if (!model.n || str_eq(model, d->model)) continue;
        int64_t cost = cost_at(f, d, model);
        if (cost > most) most = cost;
    }
    return most;
}

int64_t flow_cost_most(const Flow *f) {
    int64_t most = 0;
    for (size_t i = 0; i < f->plan_n; i++) {
        int64_t cost = flow_cost_at(f, f->plan[i]);
        if (cost > most) most = cost;
    }
    return most;
}

int64_t flow_tokens_most(const Flow *f) {
    int64_t most = 0;
    for (size_t i = 0; i < f->plan_n; i++) {
        int64_t prompt = flow_prompt_most(f, f->plan[i]), output = flow_output_most(f, f->plan[i]);
        if (prompt + output > most) most = prompt + output;
    }
    return most;
}

static err refuse(Flow *f) {
    const LimitAnswer *a = &f->limits;
    const LimitState *s = a->refused >= LIMIT_MONEY      ? &a->money[a->refused - LIMIT_MONEY]
                          : a->refused == LIMIT_REQUESTS ? &a->requests
                          : a->refused == LIMIT_TOKENS   ? &a->tokens
                                                         : &a->concurrency;
    return limits_refused(f, a->by, a->refused, s, a->retry_after_ms);
}

// After a start without the database nobody knows what was spent before.
static err check_known(Flow *f) {
    if (!limits_have_money(f) || usage_spending_known()) return ERR_OK;
    err e = fail(f->c, ERR_UNAVAILABLE, R_DB_AWAY, "why",
                 "this key has a budget, and what it has spent today is known when it is back");
    f->c->failure.retry_after_ms = SPENDING_RETRY_MS;
    return e;
}

static err admit(Flow *f) {
    f->first_ms = machine_first_ms();
    f->reserved_tokens = flow_tokens_most(f), f->r.reserved_nano = flow_cost_most(f);
    limits_of(f);
    TRY(check_known(f));
    f->limits = limiter_admit(access_limiter(), f->subjects, f->subjects_n, limits_reserved(f),
                              f->start_ms, loop_now_ns(exchange_loop(f->x)));
    if (f->limits.refused) {
        err e = refuse(f);
        f->r.reserved_nano = 0;
        return e;
    }
    f->admitted = true;
    f->has_room = usage_room(f->app);
    return f->has_room ? ERR_OK : fail(f->c, ERR_FULL, R_NO_SPACE);
}

Verdict stage_admit(Flow *f) { return flow_denied(f, admit(f)); }
