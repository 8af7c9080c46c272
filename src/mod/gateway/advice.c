// SPDX-License-Identifier: Apache-2.0
// advice.c - what does nothing though it looks as if it did: a price for a model that nothing
// serves, a limit of money where models have no price. Looked at in the snapshot, which may be a
// moment behind. Threads: within the caller's transaction.
#include "mod/gateway/advice.h"
#include "mod/gateway/flow.h"
#include "res/advice.h"

enum { SHOWN_MAX = 10 };
typedef struct Names {
    str at[SHOWN_MAX];
    size_t n;
} Names;

static void add_name(Names *to, str name) {
    for (size_t i = 0; i < to->n; i++)
        if (str_eq(to->at[i], name)) return;
    if (to->n < SHOWN_MAX) to->at[to->n++] = name;
}

static const char *joined(Ctx *c, const Names *names) {
    return names->n ? arena_join(c->mem, names->at, names->n, S(", ")).p : "-";
}

static str priced_as(const DeploymentEntry *d) { return d->model.n ? d->model : d->name; }

// Each project of an organisation, a page at a time.
static err each_project(Ctx *c, Tx *tx, str org, void (*fn)(void *arg, str project), void *arg) {
    const Resource *r = resource_find("project");
    ListSpec spec = { .limit = LIST_MAX };
    str was = c->org;
    err e = ERR_OK;
    c->org = org;
    do {
        ListPage page;
        e = res_list(c, tx, r, &spec, &page);
        for (size_t i = 0; !e && i < page.n; i++)
            fn(arg, ((const Head *)(const void *)((const char *)page.rows + i * r->size))->id);
        spec.cursor = page.cursor;
    } while (!e && spec.cursor.n);
    c->org = was;
    return e;
}

// ---- a price
typedef struct Served {
    const Snapshot *s;
    str model;
    bool any;
    Names models;
} Served;

static void see_served(void *arg, str project) {
    Served *at = arg;
    const DeploymentEntry *const *all;
    size_t n = deployment_list(at->s, project, &all);
    for (size_t i = 0; i < n; i++) {
        at->any |= str_eq(priced_as(all[i]), at->model);
        add_name(&at->models, priced_as(all[i]));
    }
}

// Whether the organisation has such a model: it may be deployed yet.
static err registered(Ctx *c, Tx *tx, str org, str name, bool *out) {
    const Resource *r = resource_find("model");
    ListSpec spec = { .limit = LIST_MAX, .all_scopes = true };
    ListPage page;
    TRY(list_filter(c, r, &spec, "name", OP_EQ, name));
    TRY(res_list(c, tx, r, &spec, &page));
    for (size_t i = 0; i < page.n; i++) {
        const Head *h = (const void *)((const char *)page.rows + i * r->size);
        *out |= str_eq(h->org, org);
    }
    return ERR_OK;
}

static err advise_price(Ctx *c, Tx *tx, const Resource *r, const void *row, Advice *out) {
    const Head *h = row;
    Served at = { .s = snapshot_take() };
    at.model = *(const str *)field_at(field_find(r->fields, S("model")), row);
    str only = *(const str *)field_at(field_find(r->fields, S("price_project")), row);
    err e = ERR_OK;
    if (only.n) see_served(&at, only);
    else e = each_project(c, tx, h->org, see_served, &at);
    if (!e && !at.any) e = registered(c, tx, h->org, at.model, &at.any);
    if (!e && !at.any)
        advice_add(c, out, R_PRICE_IDLE, "model", say_str(c, at.model), "served",
                   joined(c, &at.models));
    snapshot_give(at.s);
    return e;
}

// ---- a limit of money
typedef struct Free {
    const Snapshot *s;
    Names models;
} Free;

static void see_free(void *arg, str project) {
    Free *at = arg;
    const DeploymentEntry *const *all;
    size_t n = deployment_list(at->s, project, &all);
    for (size_t i = 0; i < n; i++)
        if (!usage_price(at->s, project, priced_as(all[i])))
            add_name(&at->models, priced_as(all[i]));
}

static LimitKind money_limit(const Limits *l) {
    for (int p = 0; p < PERIOD__COUNT; p++)
        if (limit_of_money(l, (Period)p) > 0) return limit_money((Period)p);
    return LIMIT_NONE;
}

static err advise_limits(Ctx *c, Tx *tx, const Resource *r, const void *row, Advice *out) {
    const Head *h = row;
    const Field *f = field_find(r->fields, S("limits"));
    LimitKind kind = money_limit(field_at(f, row));
    if (kind == LIMIT_NONE) return ERR_OK;
    Free at = { .s = snapshot_take() };
    err e = ERR_OK;
    if (r->scope == SCOPE_SYSTEM) e = each_project(c, tx, h->id, see_free, &at);
    else see_free(&at, r->scope == SCOPE_ORG ? h->id : h->project);
    if (!e && at.models.n)
        advice_add(c, out, R_MONEY_UNPRICED, "limit", limit_name(kind), "models",
                   joined(c, &at.models));
    snapshot_give(at.s);
    return e;
}

err gateway_advise(Ctx *c, Tx *tx, const Resource *r, const void *now, Advice *out) {
    if (!strcmp(r->name, "price")) return advise_price(c, tx, r, now, out);
    bool limited = !strcmp(r->name, "api_key") || !strcmp(r->name, "project")
                   || !strcmp(r->name, "organisation");
    return limited ? advise_limits(c, tx, r, now, out) : ERR_OK;
}
