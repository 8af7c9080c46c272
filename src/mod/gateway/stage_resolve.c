// SPDX-License-Identifier: Apache-2.0
// stage_resolve.c - from the model's name to the deployments that may answer it, in the order in
// which this request asks them, and the price that will be asked. A name is the project's route,
// else its deployment, else a route that a project of its organisation publishes.
#include "mod/gateway/order.h"
#include "mod/gateway/models.h"

static const char *known_models(Flow *f) {
    enum { SHOWN_MAX = 20 };
    const DeploymentEntry *const *own;
    const RouteEntry **routes;
    str names[SHOWN_MAX];
    size_t shown = 0, n = route_list(f->c, f->snapshot, f->c->org, f->project, &routes);
    for (size_t i = 0; i < n && shown < SHOWN_MAX; i++) names[shown++] = routes[i]->name;
    n = deployment_list(f->snapshot, f->project, &own);
    for (size_t i = 0; i < n && shown < SHOWN_MAX; i++) {
        const RouteEntry *r = route_find(f->snapshot, f->c->org, f->project, own[i]->name);
        if (!r) names[shown++] = own[i]->name;
    }
    return shown ? arena_join(f->c->mem, names, shown, S(", ")).p : "none";
}

static bool task_fits(Task task, Operation op) {
    if (op == OP_EMBEDDING) return task == TASK_EMBEDDING;
    return op == OP_CHAT ? task == TASK_CHAT
                         : task != TASK_EMBEDDING; // a chat deployment completes text as well
}

static err task_wrong(Flow *f, const DeploymentEntry *d) {
    static const char *const tasks[] = { "chat", "completion", "embedding" };
    return fail(f->c, ERR_INVALID, R_MODEL_TASK, "field", "model", "model",
                say_str(f->c, f->in.model), "task", tasks[d->task], "wanted",
                operation_name(f->operation));
}

bool deployment_says(const DeploymentEntry *d, Operation op) {
    return op == OP_CHAT || speaks_openai(d->dialect);
}

static bool fits(const DeploymentEntry *d, Operation op) {
    return task_fits(d->task, op) && deployment_says(d, op);
}

err dialect_lacks(Flow *f, const Dialect *d) {
    return fail(f->c, ERR_INVALID, R_MODEL_DIALECT, "field", "model", "model",
                say_str(f->c, f->in.model), "dialect", d->name, "wanted",
                operation_name(f->operation));
}

static err unfit_why(Flow *f, const DeploymentEntry *d) {
    return task_fits(d->task, f->operation) ? dialect_lacks(f, d->dialect) : task_wrong(f, d);
}

static err plan_route(Flow *f, const RouteEntry *r) {
    size_t order[ROUTE_TARGETS_MAX], n = route_order(r, order_dice(f), order);
    const DeploymentEntry *unfit = NULL;
    for (size_t i = 0; i < n; i++) {
        const DeploymentEntry *d = deployment_by_id(f->snapshot, r->targets[order[i]].deployment);
        if (d && fits(d, f->operation)) f->plan[f->plan_n++] = d;
        else if (d) unfit = d;
    }
    f->route = r;
    if (f->plan_n) order_plan(f);
    if (f->plan_n) return ERR_OK;
    if (unfit) return unfit_why(f, unfit);
    return fail(f->c, ERR_UNAVAILABLE, R_MODEL_DOWN, "model", say_str(f->c, r->name), "why",
                "none of its route's targets is known here yet");
}

static err plan(Flow *f) {
    bool ollama = f->spoken && !strncmp(f->spoken->name, "ollama", 6);
    str name = ollama ? ollama_name(f->in.model) : f->in.model;
    const RouteEntry *r = route_find(f->snapshot, f->c->org, f->project, name);
    bool own = r && str_eq(r->project, f->project);
    const DeploymentEntry *d = own ? NULL : deployment_find(f->snapshot, f->project, name);
    if (r && !d) return plan_route(f, r);
    if (!d)
        return fail(f->c, ERR_NOTFOUND, R_MODEL_UNKNOWN, "field", "model", "model",
                    say_str(f->c, f->in.model), "known", known_models(f));
    f->plan[f->plan_n++] = d;
    return fits(d, f->operation) ? ERR_OK : unfit_why(f, d);
}

err flow_resolve(Flow *f) {
    err e = plan(f);
    const DeploymentEntry *d = f->deployment = f->plan_n ? f->plan[0] : NULL;
    if (!e) f->price = usage_price(f->snapshot, f->project, d->model.n ? d->model : d->name);
    return e;
}

Verdict stage_resolve(Flow *f) {
    err e = flow_resolve(f);
    return flow_denied(f, e ? e : pass_check(f));
}
