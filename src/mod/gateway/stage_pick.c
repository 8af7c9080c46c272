// SPDX-License-Identifier: Apache-2.0
// stage_pick.c - a slot of a replica, now or after a wait in the deployment's fair queue. Who waits
// is told its place: in a header, and in SSE comments once the wait has lasted for a while. A
// request whose attempt failed comes here again, with the ticket that it holds. Where a route has
// further targets, the next one is asked when this one cannot answer or is not free in time.
#include "mod/gateway/flow.h"

enum { LOOK_MS = 1000 };

static void stop_timer(Flow *f) {
    timer_free(f->timer);
    f->timer = NULL;
}

static void turn(void *arg) {
    Flow *f = arg;
    stop_timer(f);
    flow_resume(f);
}

// What runs on another node cannot be reached from here: its socket is a file there.
static err elsewhere(Flow *f, const DeploymentEntry *d, str node) {
    err e = fail(f->c, ERR_UNAVAILABLE, R_MODEL_ELSEWHERE, "model", say_str(f->c, d->name), "node",
                 say_str(f->c, node), "here", say_str(f->c, app_of(f->c)->node));
    f->c->failure.retry_after_ms = 5000;
    return e;
}

static err none(Flow *f) {
    const DeploymentEntry *d = f->deployment;
    str node = deployment_elsewhere(d);
    if (node.n) return elsewhere(f, d, node);
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

err flow_unserved(Flow *f, LineAnswer answer) { return answer == LINE_FULL ? full(f) : none(f); }

// How long it waits for a slot of this one.
static int64_t patience_ms(const Flow *f) {
    int64_t own = f->deployment->queue_ms;
    bool spills = f->route && f->route->spill_ms != UNSET_INT && f->at + 1 < f->plan_n;
    return spills && f->route->spill_ms < own ? f->route->spill_ms : own;
}

static void late(Flow *f) {
    int64_t ms = line_retry_after_ms(f->deployment);
    stop_timer(f);
    if (flow_next(f)) {
        flow_again(f);
        return;
    }
    err e = fail(f->c, ERR_UNAVAILABLE, R_QUEUE_LATE, "model", say_str(f->c, f->deployment->name),
                 "ms", say(f->c, "%lld", (long long)patience_ms(f)));
    f->c->failure.retry_after_ms = ms;
    (void)e;
    flow_fail(f);
}

static void say_place(Flow *f, int64_t now_ns) {
    f->said_ns = now_ns;
    if (f->spoken && f->spoken->framing == FRAMING_NDJSON) return; // it has no comments
    flow_sse_begin(f);
    exchange_sse_comment(f->x, arena_printf(f->c->mem, "queue position %lld",
                                            (long long)ticket_position(f->ticket)));
}

// Until its place is due to be told, a failed replica may be forgiven, or its time is over.
static void wait_on(Flow *f, int64_t left_ms) {
    int64_t ms = setting_int(&gateway_settings[GW_QUEUE_SAY]);
    if (ms > LOOK_MS) ms = LOOK_MS;
    timer_start(f->timer, ms < left_ms ? ms : left_ms);
}

// Its replicas went to another node while it waited: its turn does not come here.
static bool left_this_node(Flow *f) {
    const Snapshot *s = snapshot_take();
    const DeploymentEntry *d = deployment_by_id(s, f->deployment->id);
    str node = d ? deployment_elsewhere(d) : (str){ 0 };
    err e = node.n ? elsewhere(f, d, node) : ERR_OK;
    snapshot_give(s);
    if (!e) return false;
    stop_timer(f);
    if (flow_next(f)) flow_again(f);
    else flow_fail(f);
    return true;
}

static void still_waiting(void *arg) {
    Flow *f = arg;
    int64_t now_ns = loop_now_ns(exchange_loop(f->x)),
            left_ms = patience_ms(f) - (now_ns - f->joined_ns) / 1000000;
    if (left_ms <= 0) {
        late(f);
        return;
    }
    if (left_this_node(f)) return;
    int64_t say_ns = setting_int(&gateway_settings[GW_QUEUE_SAY]) * 1000000;
    if (f->in.stream && now_ns - f->said_ns >= say_ns) say_place(f, now_ns);
    line_look(f->ticket); // its turn, if this gives it one, comes through the loop
    wait_on(f, left_ms);
}

static LineAnswer ask(Flow *f) {
    LineCall call = { exchange_loop(f->x), turn, f, f->project, f->key->id };
    return f->ticket ? line_other(f->ticket) : line_join(f->deployment, &call, &f->ticket);
}

Verdict stage_pick(Flow *f) {
    LineAnswer answer;
    f->joined_ns = f->said_ns = loop_now_ns(exchange_loop(f->x));
    if (!f->queue_ns) f->queue_ns = f->joined_ns;
    do answer = ask(f);
    while ((answer == LINE_NONE || answer == LINE_FULL) && flow_next(f));
    switch (answer) {
    case LINE_GO: return VERDICT_NEXT;
    case LINE_NONE:
    case LINE_FULL: // lost: why is known
        return f->lost ? VERDICT_FAIL : flow_denied(f, flow_unserved(f, answer));
    case LINE_WAIT: break;
    }
    f->queue_position = ticket_position(f->ticket);
    f->timer = timer_new(exchange_loop(f->x), still_waiting, f);
    wait_on(f, patience_ms(f));
    return VERDICT_WAIT;
}

void stage_pick_cancel(Flow *f) {
    line_leave(f->ticket);
    f->ticket = NULL;
    stop_timer(f);
}
