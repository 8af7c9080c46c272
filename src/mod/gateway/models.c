// SPDX-License-Identifier: Apache-2.0
// models.c - what this project's keys may name: GET /v1/models and /v1/models/{model} in OpenAI's
// shape, GET /ollama/api/tags in Ollama's.
#include "base/id.h"
#include "base/time.h"
#include "mod/gateway/flow.h"

typedef struct Named { // a name, and who answers to it now
    str id, name;
    const DeploymentEntry *d; // NULL: nobody yet
} Named;

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

static bool find(const Snapshot *s, Ctx *c, str name, Named *out) {
    const RouteEntry *r = route_find(s, c->org, c->project, name);
    bool own = r && str_eq(r->project, c->project);
    const DeploymentEntry *d = own ? NULL : deployment_find(s, c->project, name);
    if (d) *out = (Named){ d->id, d->name, d };
    else if (r) *out = (Named){ r->id, r->name, best_of(s, r) };
    return r || d;
}

// Each name once, as `find` finds it.
static size_t list(const Snapshot *s, Ctx *c, Named **out) {
    const DeploymentEntry *const *all;
    const RouteEntry **routes;
    size_t routes_n = route_list(c, s, c->org, c->project, &routes), n = 0;
    size_t all_n = deployment_list(s, c->project, &all);
    Named *names = *out = new (c->mem, Named, routes_n + all_n + 1);
    for (size_t i = 0; i < routes_n; i++) {
        find(s, c, routes[i]->name, &names[n]);
        if (str_eq(names[n].id, routes[i]->id)) n++; // else a deployment goes before it
    }
    for (size_t i = 0; i < all_n; i++) {
        find(s, c, all[i]->name, &names[n]);
        if (str_eq(names[n].id, all[i]->id)) n++;
    }
    return n;
}

// ---- shapes
static void write_model(const Named *m, Json *j) {
    json_obj(j);
    json_kv_str(j, "id", m->name), json_kv_z(j, "object", "model");
    json_kv_i64(j, "created", id_time_ms(m->id) / 1000); // OpenAI's times are seconds
    json_kv_str(j, "owned_by", S("lathe"));
    json_kv_str(j, "state", m->d ? m->d->state : S("pending"));
    if (m->d) json_kv_i64(j, "context_length", m->d->context);
    json_end_obj(j);
}

static void write_models(Json *j, const Named *all, size_t n) {
    json_obj(j), json_kv_z(j, "object", "list"), json_key(j, "data"), json_arr(j);
    for (size_t i = 0; i < n; i++) write_model(&all[i], j);
    json_end_arr(j), json_end_obj(j);
}

// {"models": [{"name", "model", "modified_at", "digest"}]}: Ollama's API, "List local models".
static void write_tags(Json *j, const Named *all, size_t n) {
    char text[TIME_TEXT];
    json_obj(j), json_key(j, "models"), json_arr(j);
    for (size_t i = 0; i < n; i++) {
        json_obj(j);
        json_kv_str(j, "name", all[i].name), json_kv_str(j, "model", all[i].name);
        json_kv_str(j, "modified_at", time_format(id_time_ms(all[i].id), text));
        if (all[i].d && all[i].d->model_digest.n) json_kv_str(j, "digest", all[i].d->model_digest);
        json_end_obj(j);
    }
    json_end_arr(j), json_end_obj(j);
}

// ---- routes
typedef void WriteAll(Json *j, const Named *all, size_t n);

static err answer(Ctx *c, Exchange *x, const Snapshot *s, WriteAll *write, Buf *out) {
    const HttpRequest *r = exchange_request(x);
    const KeyEntry *key;
    str project;
    TRY(access_key(c, s, r, &key, &project));
    Identity *who = new (c->mem, Identity, 1);
    *who = access_identity(key);
    c->who = who, c->project = project;
    TRY(require(c, "inference.use", r->path));
    Json j = json_to(out);
    Named *all, one;
    str name = route_param(r, "/v1/models/{model}", "model");
    size_t n = name.p ? 0 : list(s, c, &all);
    if (!name.p) write(&j, all, n);
    else if (find(s, c, name, &one)) write_model(&one, &j);
    else
        return fail(c, ERR_NOTFOUND, R_MODEL_UNKNOWN, "field", "model", "model", say_str(c, name),
                    "known", "GET /v1/models");
    return ERR_OK;
}

static void serve(Exchange *x, WriteAll *write) {
    Ctx *c = exchange_ctx(x);
    const Snapshot *s = snapshot_take();
    Buf out;
    buf_init(&out, 4 << 20);
    if (answer(c, x, s, write, &out)) exchange_refuse(x);
    else exchange_reply(x, 200, "application/json", buf_str(&out));
    buf_done(&out);
    snapshot_give(s);
}

void gateway_models(Exchange *x) { serve(x, write_models); }
void gateway_tags(Exchange *x) { serve(x, write_tags); }
