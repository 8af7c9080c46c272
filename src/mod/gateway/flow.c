// SPDX-License-Identifier: Apache-2.0
// flow.c - walks a request through the stages. A failure, or a client that leaves, skips to the
// stages that run always: what was begun is settled and recorded in every case, exactly once.
#include "mod/gateway/flow.h"
#include "mod/gateway/gateway.h"
#include "base/time.h"
#include <assert.h>

static void walk(Flow *f) {
    while (f->stage->name) {
        const FlowStage *at = f->stage;
        if ((f->failed || f->gone) && !at->always) {
            f->stage++;
            continue;
        }
        Verdict v = at->run(f);
        if (v == VERDICT_WAIT) return;
        if (v == VERDICT_FAIL) f->failed = true;
        f->stage++;
    }
    // The last stage gave the exchange away: f is gone.
}

void flow_resume(Flow *f) {
    f->stage++;
    walk(f);
}

void flow_fail(Flow *f) {
    assert(f->c->failure.code);
    f->failed = true;
    flow_resume(f);
}

void flow_again(Flow *f) {
    while (f->stage->run != stage_pick) f->stage--;
    walk(f);
}

bool flow_next(Flow *f) {
    if (f->ticket) line_leave(f->ticket);
    f->ticket = NULL;
    if (f->at + 1 >= f->plan_n) return false;
    f->deployment = f->plan[++f->at];
    return true;
}

Verdict flow_denied(Flow *f, err e) {
    (void)f;
    return e ? VERDICT_FAIL : VERDICT_NEXT;
}

// The client left while a stage waited: that stage gives back what it holds, then the rest is
// settled.
static void gone(void *arg) {
    Flow *f = arg;
    f->gone = true;
    if (f->stage->cancel) f->stage->cancel(f);
    flow_resume(f);
}

static void free_flow(void *arg) {
    Flow *f = arg;
    timer_free(f->timer);
    stream_close(f);
    snapshot_give(f->snapshot);
}

static void drained(void *arg) { flow_drained(arg); }

static const ExchangeEvents events = { .drained = drained, .gone = gone };

void flow_start(Exchange *x, Operation op, const char *dialect) {
    Ctx *c = exchange_ctx(x);
    Flow *f = new (c->mem, Flow, 1);
    *f = (Flow){ .x = x, .c = c, .app = app_of(c), .operation = op, .stage = gateway_stages };
    f->spoken = dialect ? dialect_find(str_z(dialect)) : NULL;
    f->start_ms = os_wall_ms(c->os), f->start_ns = exchange_request(x)->start_ns;
    f->snapshot = snapshot_take();
    arena_defer(c->mem, free_flow, f);
    exchange_events(x, &events, f);
    walk(f);
}

// ---- what stages share
static void add(HttpHeader *out, size_t *n, Ctx *c, const char *name, int64_t value) {
    assert(*n < FLOW_HEADERS);
    char text[STR_I64];
    out[(*n)++] = (HttpHeader){ str_z(name), arena_str(c->mem, str_i64(value, text)) };
}

static void add_ms(HttpHeader *out, size_t *n, Ctx *c, const char *name, int64_t ms) {
    assert(*n < FLOW_HEADERS);
    out[(*n)++] = (HttpHeader){ str_z(name), arena_printf(c->mem, "%lldms", (long long)ms) };
}

// Of the periods that are limited the one with the least left.
static const LimitState *money_left(const Flow *f) {
    const LimitState *all = f->limits.money, *least = &all[0];
    for (int p = 1; p < PERIOD__COUNT; p++)
        if (all[p].limit && (!least->limit || all[p].remaining < least->remaining)) least = &all[p];
    return least;
}

size_t flow_headers(Flow *f, HttpHeader *out) {
    size_t n = 0;
    const LimitState *r = &f->limits.requests, *t = &f->limits.tokens, *m = money_left(f);
    if (r->limit) {
        add(out, &n, f->c, "x-ratelimit-limit-requests", r->limit);
        add(out, &n, f->c, "x-ratelimit-remaining-requests", r->remaining);
        add_ms(out, &n, f->c, "x-ratelimit-reset-requests", r->reset_ms);
    }
    if (t->limit) {
        add(out, &n, f->c, "x-ratelimit-limit-tokens", t->limit);
        add(out, &n, f->c, "x-ratelimit-remaining-tokens", t->remaining);
        add_ms(out, &n, f->c, "x-ratelimit-reset-tokens", t->reset_ms);
    }
    if (m->limit) {
        out[n++] = (HttpHeader){ S("x-ratelimit-limit-money"), money_format(f->c->mem, m->limit) };
        out[n++] =
            (HttpHeader){ S("x-ratelimit-remaining-money"), money_format(f->c->mem, m->remaining) };
    }
    if (f->queue_position) add(out, &n, f->c, "x-lathe-queue-position", f->queue_position);
    if (f->attempt > 1) add(out, &n, f->c, "x-lathe-attempts", f->attempt);
    const char *id = f->spoken ? f->spoken->request_id : NULL;
    if (id) out[n++] = (HttpHeader){ str_z(id), f->c->request_id };
    return n;
}

void flow_sse_begin(Flow *f) {
    if (f->sse_begun) return;
    HttpHeader headers[FLOW_HEADERS + 3];
    size_t n = flow_headers(f, headers);
    f->sse_begun = true;
    if (f->spoken && f->spoken->framing == FRAMING_NDJSON) {
        headers[n++] = (HttpHeader){ S("Content-Type"), S("application/x-ndjson") };
        headers[n++] = (HttpHeader){ S("Cache-Control"), S("no-cache") };
        headers[n++] = (HttpHeader){ S("X-Accel-Buffering"), S("no") }; // as for events
        exchange_begin(f->x, 200, headers, n, -1);
        return;
    }
    exchange_sse_begin(f->x, headers, n, setting_int(&gateway_settings[GW_HEARTBEAT]));
}
