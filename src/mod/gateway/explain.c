// SPDX-License-Identifier: Apache-2.0
// explain.c - see explain.h: a request without a body or a client goes through what the stages
// resolve, admit and pick look at.
#include "mod/gateway/explain.h"
#include "base/time.h"
#include "mod/gateway/flow.h"
#include "mod/gateway/health.h"
#include <assert.h>

typedef struct Explain {
    Ctx *c;
    ExplainQuery q;
    Flow flow; // what the stages know of a request, as far as it is asked for
    Explanation e;
    bool refused; // by the first limit that does, as follows
    size_t by;
    LimitKind kind;
    LimitState state;
} Explain;

// ---- the key, and its limits
typedef struct KeyCall {
    str name;
    Head head;
} KeyCall;

static err key_tx(Ctx *c, Tx *tx, void *arg) {
    KeyCall *call = arg;
    const Resource *r = resource_find("api_key");
    char *row = arena_alloc(c->mem, r->size, _Alignof(max_align_t));
    TRY(res_get(c, tx, r, call->name, row));
    call->head = *(const Head *)(const void *)row;
    return ERR_OK;
}

static err find_key(Explain *x) {
    Ctx *c = x->c;
    KeyCall call = { .name = x->q.api_key };
    if (!x->q.api_key.n) return ERR_OK;
    TRY(require(c, "api_keys.read", x->q.api_key));
    TRY(db_read(c, c->db, key_tx, &call));
    x->flow.key = access_key_by_id(x->flow.snapshot, call.head.id);
    if (x->flow.key) return ERR_OK;
    return fail(c, ERR_UNAUTHENTICATED, R_KEY_UNKNOWN); // revoked, or its account is disabled
}

static str amount(Ctx *c, LimitKind kind, int64_t n) {
    return kind >= LIMIT_MONEY ? money_format(c->mem, n)
                               : arena_printf(c->mem, "%lld", (long long)n);
}

static void add_limit(Explain *x, size_t by, LimitKind kind, const LimitState *s, int64_t wanted) {
    static const char *const of[] = { "key", "project", "organisation" };
    if (s->limit <= 0) return;
    x->e.limits[x->e.limits_n++] = (ExplainLimit){ .of = str_z(of[by]),
                                                   .limit = str_z(limit_name(kind)),
                                                   .value = amount(x->c, kind, s->limit),
                                                   .remaining = amount(x->c, kind, s->remaining),
                                                   .resets_ms = s->reset_ms,
                                                   .refuses = s->remaining < wanted };
    if (s->remaining >= wanted || x->refused) return;
    x->refused = true, x->by = by, x->kind = kind, x->state = *s;
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static err check_limits(Explain *x) {
    Ctx *c = x->c;
    Flow *f = &x->flow;
    if (!f->key) return ERR_OK;
    limits_of(f);
    f->r.reserved_nano = flow_cost_most(f);
    x->e.limits = new (c->mem, ExplainLimit, (size_t)limit_money(PERIOD__COUNT) * f->subjects_n);
    for (size_t i = 0; i < f->subjects_n; i++) {
        LimitAnswer a = limiter_look(access_limiter(), f->subjects[i].id, f->subjects[i].limits,
                                     os_wall_ms(c->os), os_mono_ns(c->os));
        add_limit(x, i, LIMIT_REQUESTS, &a.requests, 1);
        add_limit(x, i, LIMIT_TOKENS, &a.tokens, least(flow_tokens_most(f), a.tokens.limit));
        add_limit(x, i, LIMIT_CONCURRENCY, &a.concurrency, 1);
        for (int p = 0; p < PERIOD__COUNT; p++)
            add_limit(x, i, limit_money((Period)p), &a.money[p], flow_cost_most(f));
    }
    return x->refused ? limits_refused(f, x->by, x->kind, &x->state, x->state.reset_ms) : ERR_OK;
}

// ---- targets
static double share_of(const Flow *f, str deployment) {
    const RouteEntry *r = f->route;
    int64_t sum = 0, own = 0;
    if (!r) return 1;
    if (r->strategy == STRATEGY_ORDERED)
        return str_eq(r->targets[0].deployment, deployment) ? 1 : 0;
    if (r->strategy != STRATEGY_WEIGHTED && r->strategy != STRATEGY_STICKY)
        return f->plan_n && str_eq(f->plan[0]->id, deployment) ? 1 : 0; // as things are now
    for (size_t i = 0; i < r->targets_n; i++) {
        sum += r->targets[i].weight;
        if (str_eq(r->targets[i].deployment, deployment)) own = r->targets[i].weight;
    }
    return sum ? (double)own / (double)sum : 0;
}

// It can, but its route asks the others first.
static str why_late(Explain *x, const DeploymentEntry *d) {
    Ctx *c = x->c;
    Health h = health_of(d->id, os_mono_ns(c->os));
    if (!x->flow.route || h.breaker == BREAKER_CLOSED) return (str){ 0 };
    if (h.breaker == BREAKER_HALF)
        return arena_printf(c->mem,
                            "it failed %lld times in a row: one request finds out whether "
                            "it answers again",
                            (long long)h.failures);
    return arena_printf(c->mem,
                        "it failed %lld times in a row: the others are asked first for "
                        "%lld ms",
                        (long long)h.failures, (long long)h.open_ms);
}

static str why_not(Explain *x, const DeploymentEntry *d, const LineFigures *now, Can can) {
    Ctx *c = x->c;
    str node = deployment_elsewhere(d);
    switch (can) {
    case CAN_NOW: return why_late(x, d);
    case CAN_NOT:
        if (node.n)
            return arena_printf(c->mem, "it runs on " STR_FMT ", out of this server's reach",
                                STR_ARG(node));
        return arena_str(c->mem, d->state_reason.n ? d->state_reason : d->state);
    case CAN_WAIT:
    case CAN_FULL: break;
    }
    if (now->ready && now->failed == now->ready)
        return S("a request just failed on each of its replicas: it gets none for a second");
    if (!now->ready) return arena_str(c->mem, d->state_reason.n ? d->state_reason : d->state);
    return arena_printf(c->mem, "%lld requests are under way and %lld wait before it",
                        (long long)now->running, (long long)now->waiting);
}

// Whoever publishes a route does not show what is behind it: of another project's deployment no
// more is told than a request for it would learn.
static void keep_apart(Explain *x, ExplainTarget *t) {
    size_t number = (size_t)(t - x->e.targets) + 1;
    ExplainTarget all = *t;
    *t = (ExplainTarget){ .deployment = arena_printf(x->c->mem, "target %zu", number) };
    t->can = all.can, t->share = all.share, t->wait_ms = all.wait_ms;
    t->cost_most = all.cost_most, t->currency = all.currency;
    t->replicas = t->ready = t->failed = t->slots = t->free = UNSET_INT;
    t->running = t->waiting = t->queue_max = t->queue_ms = UNSET_INT;
    if (all.can == CAN_NOW && all.why.n) t->why = S("it failed several times in a row");
    if (all.can == CAN_NOT) t->why = S("it cannot answer now");
    else if (all.can != CAN_NOW) t->why = S("its slots are taken");
}

static void add_target(Explain *x, const DeploymentEntry *d) {
    Ctx *c = x->c;
    const Flow *f = &x->flow;
    LineFigures now;
    static const Can cans[] = {
        [LINE_GO] = CAN_NOW, [LINE_WAIT] = CAN_WAIT, [LINE_FULL] = CAN_FULL, [LINE_NONE] = CAN_NOT
    };
    Can can = cans[line_ask(d, os_mono_ns(c->os), &now)];
    str model = d->model.n ? d->model : d->name;
    const Price *price = usage_price(f->snapshot, f->project, model);
    x->e.targets[x->e.targets_n++] =
        (ExplainTarget){ .deployment = arena_str(c->mem, d->name),
                         .model = arena_str(c->mem, model),
                         .state = arena_str(c->mem, d->state),
                         .why = why_not(x, d, &now, can),
                         .node = arena_str(c->mem, deployment_elsewhere(d)),
                         .currency = price ? arena_str(c->mem, price->currency) : (str){ 0 },
                         .share = share_of(f, d->id),
                         .can = can,
                         .replicas = (int64_t)d->replicas_n,
                         .ready = now.ready,
                         .failed = now.failed,
                         .slots = d->slots,
                         .free = now.free,
                         .running = now.running,
                         .waiting = now.waiting,
                         .queue_max = d->queue_max,
                         .queue_ms = d->queue_ms,
                         .wait_ms = can == CAN_WAIT ? line_retry_after_ms(d) : UNSET_INT,
                         .cost_most = price ? flow_cost_at(f, d) : UNSET_INT };
    if (!str_eq(d->project, f->project)) keep_apart(x, &x->e.targets[x->e.targets_n - 1]);
}

static bool in_plan(const Flow *f, str deployment) {
    for (size_t i = 0; i < f->plan_n; i++)
        if (str_eq(f->plan[i]->id, deployment)) return true;
    return false;
}

// A route's targets that this request does not ask.
static void add_left_out(Explain *x) {
    const RouteEntry *r = x->flow.route;
    for (size_t i = 0; r && i < r->targets_n; i++) {
        str id = r->targets[i].deployment;
        if (in_plan(&x->flow, id)) continue;
        const DeploymentEntry *d = deployment_by_id(x->flow.snapshot, id);
        if (d) add_target(x, d);
        else
            x->e.targets[x->e.targets_n++] =
                (ExplainTarget){ .deployment = S("-"), .can = CAN_NOT };
        ExplainTarget *t = &x->e.targets[x->e.targets_n - 1];
        t->can = CAN_NOT;
        t->why = !d ? S("it is not known on this server yet")
                 : deployment_says(d, x->flow.operation)
                     ? S("it is made for another task")
                     : S("the dialect of its server has no such operation");
    }
}

static void add_targets(Explain *x) {
    const RouteEntry *r = x->flow.route;
    x->e.targets = new (x->c->mem, ExplainTarget, ROUTE_TARGETS_MAX);
    for (size_t i = 0; i < x->flow.plan_n; i++) add_target(x, x->flow.plan[i]);
    add_left_out(x);
    if (!r) return;
    x->e.route = arena_str(x->c->mem, r->name);
    x->e.strategy = str_z(strategy_names[r->strategy]);
    if (!str_eq(r->project, x->flow.project)) x->e.project = arena_str(x->c->mem, r->project);
    x->e.attempts_max = r->attempts_max, x->e.spill_ms = r->spill_ms;
}

// As stage_pick does: the first that has a slot or a place in its queue.
static err choose(Explain *x) {
    LineAnswer last = LINE_NONE;
    for (size_t i = 0; i < x->flow.plan_n; i++) {
        const ExplainTarget *t = &x->e.targets[i];
        x->flow.deployment = x->flow.plan[i], last = t->can == CAN_FULL ? LINE_FULL : LINE_NONE;
        if (t->can != CAN_NOW && t->can != CAN_WAIT) continue;
        x->e.outcome = t->can == CAN_NOW ? EXPLAIN_ANSWERED : EXPLAIN_WAITS;
        x->e.deployment = t->deployment, x->e.why = t->why;
        return ERR_OK;
    }
    return flow_unserved(&x->flow, last);
}

// ---- all of it
static void refused(Explain *x, err e) {
    Ctx *c = x->c;
    Buf b;
    buf_init(&b, 8192);
    failure_format(&c->failure, c->lang, &b);
    x->e.outcome = EXPLAIN_REFUSED, x->e.status = err_row(e)->http;
    x->e.code = str_z(c->failure.why->slug), x->e.why = arena_str(c->mem, buf_str(&b));
    if (c->failure.retry_after_ms) x->e.retry_after_ms = c->failure.retry_after_ms;
    buf_done(&b);
    c->failure = (Failure){ 0 };
}

static err walk(Explain *x) {
    str own = x->c->request_id;
    if (x->q.request_id.n) x->c->request_id = x->q.request_id; // a weighted route draws by it
    err e = flow_resolve(&x->flow);
    x->c->request_id = own;
    add_targets(x);
    TRY(e);
    TRY(check_limits(x));
    return choose(x);
}

static void flow_of(Explain *x, str model) {
    Ctx *c = x->c;
    Flow *f = &x->flow;
    *f = (Flow){ .c = c, .app = app_of(c), .operation = (Operation)x->q.operation };
    f->project = c->project, f->start_ms = os_wall_ms(c->os), f->first_ms = machine_first_ms();
    f->in.model = model, f->in.size = x->q.prompt_tokens, f->in.output_max = x->q.max_tokens;
    f->in.n = f->in.choices = f->in.made = f->in.prompts = 1;
    f->snapshot = snapshot_take();
}

err gateway_explain(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    (void)body;
    Explain *x = new (c->mem, Explain, 1);
    x->c = c;
    TRY(query_read(c, explain_query, &x->q, r));
    x->e = (Explanation){ .status = UNSET_INT, .retry_after_ms = UNSET_INT };
    x->e.attempts_max = x->e.spill_ms = UNSET_INT;
    flow_of(x, route_param(r, EXPLAIN_PATH, "model"));
    x->e.model = x->flow.in.model, x->e.operation = str_z(operation_name(x->flow.operation));
    err e = find_key(x);
    if (!e) {
        err why = walk(x);
        if (why) refused(x, why);
        Json j = json_to(&out->body);
        json_obj(&j);
        fields_write(explain_output, &x->e, &j, SHOW_API);
        json_end_obj(&j);
    }
    snapshot_give(x->flow.snapshot);
    return e;
}
