// SPDX-License-Identifier: Apache-2.0
// stage_resolve.c - from the model's name to the deployment that answers it, and the price that
// will be asked.
#include "mod/gateway/flow.h"

static const char *known_models(Flow *f) {
    const DeploymentEntry *const *all;
    size_t n = deployment_list(f->snapshot, f->project, &all), shown = n < 20 ? n : 20;
    str *names = new (f->c->mem, str, shown + 1);
    for (size_t i = 0; i < shown; i++) names[i] = all[i]->name;
    return n ? arena_join(f->c->mem, names, shown, S(", ")).p : "none";
}

static bool task_fits(Task task, Operation op) {
    if (op == OP_EMBEDDING) return task == TASK_EMBEDDING;
    return op == OP_CHAT ? task == TASK_CHAT
                         : task != TASK_EMBEDDING; // a chat deployment completes text as well
}

static err resolve(Flow *f) {
    static const char *const tasks[] = { "chat", "completion", "embedding" };
    Ctx *c = f->c;
    const DeploymentEntry *d = f->deployment =
        deployment_find(f->snapshot, f->project, f->in.model);
    if (!d)
        return fail(c, ERR_NOTFOUND, R_MODEL_UNKNOWN, "field", "model", "model",
                    say_str(c, f->in.model), "known", known_models(f));
    if (!task_fits(d->task, f->operation))
        return fail(c, ERR_INVALID, R_MODEL_TASK, "field", "model", "model", say_str(c, d->name),
                    "task", tasks[d->task], "wanted", operation_name(f->operation));
    f->price = usage_price(f->snapshot, f->project, d->model.n ? d->model : d->name);
    return ERR_OK;
}

Verdict stage_resolve(Flow *f) { return flow_denied(f, resolve(f)); }
