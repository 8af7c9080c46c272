// SPDX-License-Identifier: Apache-2.0
// view.c - what people see of a deployment: one state, one sentence that says why it is not ready
// and what would fix it, and three conditions.
// Owner: texts go into the call's arena. Threads: workers.
#include "base/time.h"
#include "mod/deployment/decide.h"

typedef struct Count {
    int64_t by[AT_GONE], ready_now, wanted, old, starting_percent;
    const ReplicaRow *loops, *trouble, *starting;
} Count;

static void count_one(Count *n, const Deployment *d, const ReplicaRow *r, const Policy *p) {
    bool current = r->generation == d->rollout;
    n->by[r->state]++;
    if (!current) n->old++;
    if (r->state == AT_READY && current) n->ready_now++;
    if (r->state == AT_STARTING && current && !n->starting) n->starting = r;
    bool down = r->state == AT_WAITING || r->state == AT_HUNG || r->state == AT_UNREADY;
    bool retries = r->state == AT_STARTING && r->window_exits > 0;
    if (!current || (!down && !retries)) return;
    if (replica_loops(r, p) && !n->loops) n->loops = r;
    if (r->reason.n && !n->trouble) n->trouble = r;
}

static str trouble_text(Ctx *c, const ReplicaRow *r, int64_t now_ms) {
    if (r->state != AT_WAITING || r->next_at <= now_ms)
        return arena_printf(c->mem, "replica %lld: " STR_FMT, (long long)r->number,
                            STR_ARG(r->reason));
    char at[TIME_TEXT]; // not a countdown: the text changes when the facts do
    return arena_printf(c->mem, "replica %lld is started again at " STR_FMT ": " STR_FMT,
                        (long long)r->number, STR_ARG(time_format(r->next_at / 1000 * 1000, at)),
                        STR_ARG(r->reason));
}

static str loading_text(Ctx *c, const ReplicaRow *r) {
    if (!r->memory_needed)
        return arena_printf(c->mem, "waits for the server at its endpoint: " STR_FMT,
                            STR_ARG(r->reason.n ? r->reason : S("not asked yet")));
    if (r->reason.n) return arena_printf(c->mem, "loading: " STR_FMT, STR_ARG(r->reason));
    return arena_printf(c->mem, "loading the model: %lld %%", (long long)r->progress);
}

static void say_state(Deployment *d, DeploymentState state, str reason) {
    d->state = state, d->state_reason = reason;
}

static void view_down(Ctx *c, Deployment *d, const Count *n) {
    int64_t left = (int64_t)d->replicas_status_n;
    if (left) {
        const char *why = d->head.deleting_at ? "being deleted" : "stopping";
        say_state(d, DEP_STOPPING,
                  arena_printf(c->mem, "%s: %lld replicas finish their requests and end", why,
                               (long long)left));
    } else if (d->head.deleting_at) {
        say_state(d, DEP_STOPPING, S("being deleted"));
    } else {
        say_state(d, DEP_STOPPED,
                  d->stopped ? S("stopped on request; `start` runs it again")
                             : S("replicas is 0; set it higher to serve"));
    }
    (void)n;
}

static void view_none_ready(Ctx *c, Deployment *d, const Count *n, str blocked, int64_t now_ms) {
    if (n->trouble && n->trouble->refused) {
        say_state(d, DEP_FAILED, trouble_text(c, n->trouble, now_ms));
    } else if (n->loops) {
        say_state(d, DEP_CRASH_LOOP, trouble_text(c, n->loops, now_ms));
    } else if (n->starting && !n->starting->reason.n) {
        say_state(d, DEP_STARTING, loading_text(c, n->starting));
    } else if (n->trouble) {
        bool lost = n->trouble->state == AT_UNREADY || n->trouble->state == AT_HUNG;
        say_state(d,
                  lost        ? DEP_DEGRADED
                  : blocked.n ? DEP_PENDING
                              : DEP_STARTING,
                  trouble_text(c, n->trouble, now_ms));
    } else if (n->starting) {
        say_state(d, DEP_STARTING, loading_text(c, n->starting));
    } else {
        say_state(d, DEP_PENDING, blocked.n ? blocked : S("about to start"));
    }
}

static void view_some_ready(Ctx *c, Deployment *d, const Count *n, str blocked, int64_t now_ms) {
    int64_t leaving = n->by[AT_DRAINING] + n->by[AT_ENDING];
    str why = blocked;
    if (n->trouble) why = trouble_text(c, n->trouble, now_ms);
    else if (!why.n && n->starting) why = loading_text(c, n->starting);
    else if (!why.n && leaving)
        why = arena_printf(c->mem, "%lld more finish their requests and end", (long long)leaving);
    bool fresh = !n->trouble && !blocked.n && (leaving || (n->starting && !n->starting->restarts));
    const char *of = n->old ? " of the new generation" : "";
    str text =
        arena_printf(c->mem, "%lld of %lld replicas%s are ready%s" STR_FMT, (long long)n->ready_now,
                     (long long)n->wanted, of, why.n ? "; " : "", STR_ARG(why));
    say_state(d, n->old || fresh ? DEP_UPDATING : DEP_DEGRADED, text);
}

static void set_conditions(Ctx *c, Deployment *d, const Count *n, str blocked) {
    bool available = d->ready_replicas > 0, up = d->state == DEP_READY || d->state == DEP_STOPPED;
    bool moving = n->starting || n->old || n->by[AT_DRAINING] || n->by[AT_ENDING];
    const char *reason = arena_z(c->mem, d->state_reason), *why = arena_z(c->mem, blocked);
    condition_set(c, &d->head, "Available", available,
                  available ? "replicas_ready" : "no_replica_ready", available ? "" : reason);
    condition_set(c, &d->head, "Progressing", moving,
                  moving ? "changing"
                  : up   ? "settled"
                         : "waiting",
                  moving || up ? "" : reason);
    condition_set(c, &d->head, "Admitted", !blocked.n, blocked.n ? "blocked" : "admitted", why);
}

void view_update(Ctx *c, Deployment *d, const Policy *p, str blocked) {
    Count n = { .wanted = d->stopped || d->head.deleting_at ? 0 : d->replicas };
    int64_t now_ms = os_wall_ms(c->os);
    if (!engine_of(d)->launched && n.wanted > 1) n.wanted = 1;
    for (size_t i = 0; i < d->replicas_status_n; i++) count_one(&n, d, &d->replicas_status[i], p);
    d->ready_replicas = n.by[AT_READY];
    bool all = n.ready_now == n.wanted && !n.old && d->replicas_status_n == (size_t)n.wanted;
    if (!n.wanted) view_down(c, d, &n);
    else if (all) say_state(d, DEP_READY, S(""));
    else if (n.ready_now || n.by[AT_READY]) view_some_ready(c, d, &n, blocked, now_ms);
    else if (n.old && (n.by[AT_DRAINING] || n.by[AT_ENDING]) && !n.trouble)
        say_state(d, DEP_UPDATING,
                  n.starting ? loading_text(c, n.starting)
                             : S("the old replica makes room for the new one"));
    else view_none_ready(c, d, &n, blocked, now_ms);
    set_conditions(c, d, &n, blocked);
    d->head.observed_generation = d->head.generation;
}
