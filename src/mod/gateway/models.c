// SPDX-License-Identifier: Apache-2.0
// models.c - GET /v1/models and /v1/models/{model}: what this project's keys may name, in OpenAI's
// shape.
#include "base/id.h"
#include "mod/gateway/flow.h"

static void write_model(str id, str name, const DeploymentEntry *d, Json *j) {
    json_obj(j);
    json_kv_str(j, "id", name), json_kv_z(j, "object", "model");
    json_kv_i64(j, "created", id_time_ms(id) / 1000); // OpenAI's times are seconds
    json_kv_str(j, "owned_by", S("lathe"));
    json_kv_str(j, "state", d ? d->state : S("pending"));
    if (d) json_kv_i64(j, "context_length", d->context);
    json_end_obj(j);
}

// Of its targets the first that is ready, else the first there is.
static const DeploymentEntry *best_of(const Snapshot *s, const RouteEntry *r) {
    const DeploymentEntry *best = NULL;
    for (size_t i = 0; i < r->targets_n; i++) {
        const DeploymentEntry *d = deployment_by_id(s, r->targets[i].deployment);
        if (d && str_is(d->state, "ready")) return d;
        if (!best) best = d;
    }
    return best;
}

static err write_one(Ctx *c, const Snapshot *s, str name, Json *j) {
    const RouteEntry *r = route_find(s, c->org, c->project, name);
    bool own = r && str_eq(r->project, c->project);
    const DeploymentEntry *d = own ? NULL : deployment_find(s, c->project, name);
    if (!r && !d)
        return fail(c, ERR_NOTFOUND, R_MODEL_UNKNOWN, "field", "model", "model", say_str(c, name),
                    "known", "GET /v1/models");
    if (d) write_model(d->id, d->name, d, j);
    else write_model(r->id, r->name, best_of(s, r), j);
    return ERR_OK;
}

static bool is_routed(const RouteEntry *const *routes, size_t n, str name) {
    for (size_t i = 0; i < n; i++)
        if (str_eq(routes[i]->name, name)) return true;
    return false;
}

// A deployment goes before a published route of its name, and behind the project's own.
static void write_all(Ctx *c, const Snapshot *s, Json *j) {
    const DeploymentEntry *const *all;
    const RouteEntry **routes;
    size_t routes_n = route_list(c, s, c->org, c->project, &routes), own_n = 0;
    size_t n = deployment_list(s, c->project, &all);
    while (own_n < routes_n && str_eq(routes[own_n]->project, c->project)) own_n++;
    json_obj(j), json_kv_z(j, "object", "list"), json_key(j, "data"), json_arr(j);
    for (size_t i = 0; i < routes_n; i++)
        if (i < own_n || !deployment_find(s, c->project, routes[i]->name))
            write_model(routes[i]->id, routes[i]->name, best_of(s, routes[i]), j);
    for (size_t i = 0; i < n; i++)
        if (!is_routed((const RouteEntry *const *)routes, own_n, all[i]->name))
            write_model(all[i]->id, all[i]->name, all[i], j);
    json_end_arr(j), json_end_obj(j);
}

static err answer(Ctx *c, Exchange *x, const Snapshot *s, Buf *out) {
    const HttpRequest *r = exchange_request(x);
    const KeyEntry *key;
    str project;
    TRY(access_key(c, s, r, &key, &project));
    Identity *who = new (c->mem, Identity, 1);
    *who = access_identity(key);
    c->who = who, c->project = project;
    TRY(require(c, "inference.use", r->path));
    Json j = json_to(out);
    str name = route_param(r, "/v1/models/{model}", "model");
    if (name.p) return write_one(c, s, name, &j);
    write_all(c, s, &j);
    return ERR_OK;
}

void gateway_models(Exchange *x) {
    Ctx *c = exchange_ctx(x);
    const Snapshot *s = snapshot_take();
    Buf out;
    buf_init(&out, 4 << 20);
    if (answer(c, x, s, &out)) exchange_refuse(x);
    else exchange_reply(x, 200, "application/json", buf_str(&out));
    buf_done(&out);
    snapshot_give(s);
}
