// SPDX-License-Identifier: Apache-2.0
// stage_pick.c - a slot of a replica, now or after a wait in the deployment's fair queue. Who waits
// is told its place: in a header, and in SSE comments once the wait has lasted for a while.
#include "mod/gateway/flow.h"

static void stop_timer(Flow *f) {
    timer_free(f->timer);
    f->timer = NULL;
}

static void turn(void *arg) {
    Flow *f = arg;
    stop_timer(f);
    flow_resume(f);
}

static err none(Flow *f) {
    const DeploymentEntry *d = f->deployment;
    err e = fail(f->c, ERR_UNAVAILABLE, R_MODEL_DOWN, "model", say_str(f->c, d->name), "why",
                 d->state_reason.n ? say_str(f->c, d->state_reason) : say_str(f->c, d->state));
    f->c->failure.retry_after_ms = 5000;
    return e;
}

static err full(Flow *f) {
    const DeploymentEntry *d = f->deployment;
    int64_t ms = line_retry_after_ms(d);
    err e =
        fail(f->c, ERR_LIMITED, R_QUEUE_FULL, "model", say_str(f->c, d->name), "waiting",
             say(f->c, "%lld", (long long)d->queue_max), "ms", say(f->c, "%lld", (long long)ms));
    f->c->failure.retry_after_ms = ms;
    return e;
}

static void late(Flow *f) {
    int64_t ms = line_retry_after_ms(f->deployment);
    line_leave(f->ticket);
    f->ticket = NULL;
    stop_timer(f);
    err e = fail(f->c, ERR_UNAVAILABLE, R_QUEUE_LATE, "model", say_str(f->c, f->deployment->name),
                 "ms", say(f->c, "%lld", (long long)f->deployment->queue_ms));
    f->c->failure.retry_after_ms = ms;
    (void)e;
    flow_fail(f);
}

static void still_waiting(void *arg) {
    Flow *f = arg;
    int64_t waited_ms = (loop_now_ns(exchange_loop(f->x)) - f->queue_ns) / 1000000,
            left_ms = f->deployment->queue_ms - waited_ms;
    if (left_ms <= 0) {
        late(f);
        return;
    }
    if (f->in.stream) {
        flow_sse_begin(f);
        exchange_sse_comment(f->x, arena_printf(f->c->mem, "queue position %lld",
                                                (long long)ticket_position(f->ticket)));
    }
    int64_t say_ms = setting_int(&gateway_settings[GW_QUEUE_SAY]);
    timer_start(f->timer, say_ms < left_ms ? say_ms : left_ms);
}

Verdict stage_pick(Flow *f) {
    f->queue_ns = loop_now_ns(exchange_loop(f->x));
    LineCall call = { exchange_loop(f->x), turn, f, f->project, f->key->id };
    switch (line_join(f->deployment, &call, &f->ticket)) {
    case LINE_GO: return VERDICT_NEXT;
    case LINE_NONE: return flow_denied(f, none(f));
    case LINE_FULL: return flow_denied(f, full(f));
    case LINE_WAIT: break;
    }
    f->queue_position = ticket_position(f->ticket);
    int64_t say_ms = setting_int(&gateway_settings[GW_QUEUE_SAY]),
            most_ms = f->deployment->queue_ms;
    f->timer = timer_new(exchange_loop(f->x), still_waiting, f);
    timer_start(f->timer, say_ms < most_ms ? say_ms : most_ms);
    return VERDICT_WAIT;
}

void stage_pick_cancel(Flow *f) {
    line_leave(f->ticket);
    f->ticket = NULL;
    stop_timer(f);
}
