// SPDX-License-Identifier: Apache-2.0
// models.c - what this project's keys may name: GET /v1/models and /v1/models/{model} in OpenAI's
// shape, GET /ollama/api/tags, GET /ollama/api/ps and POST /ollama/api/show in Ollama's
// (docs.ollama.com/api: "List models", "List running models", "Show model details").
#include "base/id.h"
#include "base/time.h"
#include "mod/gateway/flow.h"
#include "mod/gateway/models.h"

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
static void write_model(Json *j, const Named *m) {
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
    for (size_t i = 0; i < n; i++) write_model(j, &all[i]);
    json_end_arr(j), json_end_obj(j);
}

// Ollama's clients take a name without a tag for one with :latest.
static void write_ollama(Json *j, const Named *m) {
    char text[TIME_TEXT];
    json_kv_str(j, "name", m->name), json_kv_str(j, "model", m->name);
    json_kv_str(j, "modified_at", time_format(id_time_ms(m->id), text));
    if (m->d && m->d->model_digest.n) json_kv_str(j, "digest", m->d->model_digest);
}

// {"format": "gguf", "family": …}: what is known of it here.
static void write_details(Json *j, const Named *m) {
    bool launched = m->d && m->d->engine && m->d->engine->launched;
    json_key(j, "details"), json_obj(j);
    json_kv_str(j, "parent_model", m->d ? m->d->model : S(""));
    json_kv_z(j, "format", launched ? "gguf" : "");
    json_kv_z(j, "family", ""), json_kv_z(j, "parameter_size", "");
    json_kv_z(j, "quantization_level", "");
    json_end_obj(j);
}

static void write_tags(Json *j, const Named *all, size_t n) {
    json_obj(j), json_key(j, "models"), json_arr(j);
    for (size_t i = 0; i < n; i++) {
        json_obj(j), write_ollama(j, &all[i]), write_details(j, &all[i]), json_end_obj(j);
    }
    json_end_arr(j), json_end_obj(j);
}

// Those that answer now.
static void write_running(Json *j, const Named *all, size_t n) {
    json_obj(j), json_key(j, "models"), json_arr(j);
    for (size_t i = 0; i < n; i++) {
        if (!all[i].d || !str_is(all[i].d->state, "ready")) continue;
        json_obj(j), write_ollama(j, &all[i]), write_details(j, &all[i]);
        json_kv_i64(j, "context_length", all[i].d->context), json_end_obj(j);
    }
    json_end_arr(j), json_end_obj(j);
}

static void write_capabilities(Json *j, const DeploymentEntry *d) {
    json_key(j, "capabilities"), json_arr(j);
    if (!d || d->task != TASK_EMBEDDING) json_put_str(j, S("completion"));
    if (d && d->task == TASK_EMBEDDING) json_put_str(j, S("embedding"));
    if (d && d->task == TASK_CHAT && d->engine && d->engine->takes_tools)
        json_put_str(j, S("tools"));
    json_end_arr(j);
}

static void write_shown(Json *j, const Named *m) {
    char text[TIME_TEXT];
    json_obj(j);
    json_kv_z(j, "modelfile", ""), json_kv_z(j, "parameters", ""), json_kv_z(j, "template", "");
    json_kv_str(j, "modified_at", time_format(id_time_ms(m->id), text));
    write_details(j, m), write_capabilities(j, m->d);
    json_key(j, "model_info"), json_obj(j);
    if (m->d) json_kv_i64(j, "general.context_length", m->d->context);
    json_end_obj(j), json_end_obj(j);
}

// ---- routes
typedef void WriteAll(Json *j, const Named *all, size_t n);
typedef void WriteOne(Json *j, const Named *m);
typedef struct Ask {
    Exchange *x;
    str name; // absent: all of them
    WriteAll *all;
    WriteOne *one;
} Ask;

static err identify(Ctx *c, const Snapshot *s, const HttpRequest *r) {
    const KeyEntry *key;
    str project;
    TRY(access_key(c, s, r, &key, &project));
    Identity *who = new (c->mem, Identity, 1);
    *who = access_identity(key);
    c->who = who, c->project = project;
    return require(c, "inference.use", r->path);
}

static err answer(const Ask *ask, Ctx *c, const Snapshot *s, Buf *out) {
    TRY(identify(c, s, exchange_request(ask->x)));
    Json j = json_to(out);
    Named *all, one;
    size_t n = ask->name.p ? 0 : list(s, c, &all);
    if (!ask->name.p) ask->all(&j, all, n);
    else if (find(s, c, ask->name, &one)) ask->one(&j, &one);
    else
        return fail(c, ERR_NOTFOUND, R_MODEL_UNKNOWN, "field", "model", "model",
                    say_str(c, ask->name), "known", "GET /v1/models");
    return ERR_OK;
}

static void serve(const Ask *ask) {
    const Snapshot *s = snapshot_take();
    Buf out;
    buf_init(&out, 4 << 20);
    if (answer(ask, exchange_ctx(ask->x), s, &out)) exchange_refuse(ask->x);
    else exchange_reply(ask->x, 200, "application/json", buf_str(&out));
    buf_done(&out);
    snapshot_give(s);
}

void gateway_models(Exchange *x) {
    str name = route_param(exchange_request(x), "/v1/models/{model}", "model");
    serve(&(Ask){ x, name, write_models, write_model });
}
void gateway_tags(Exchange *x) { serve(&(Ask){ .x = x, .all = write_tags }); }
void gateway_ps(Exchange *x) { serve(&(Ask){ .x = x, .all = write_running }); }

str ollama_name(str name) {
    return str_ends(name, S(":latest")) ? str_sub(name, 0, name.n - 7) : name;
}

// {"model": …}; "name" is what it was called before.
static err asked_name(Ctx *c, str body, str *out) {
    yyjson_val *root;
    TRY(json_parse(c, body, &root));
    if (!yyjson_is_obj(root)) return body_wrong(c, "body", "an object", root);
    yyjson_val *model = json_get(root, "model") ? json_get(root, "model") : json_get(root, "name");
    if (!model) return fail(c, ERR_INVALID, R_FIELD_REQUIRED, "field", "model");
    *out = ollama_name(json_str(model));
    return out->n ? ERR_OK : body_wrong(c, "model", "the name of a model", model);
}

static void asked(void *arg, err e, str body) {
    Ask ask = { .x = arg, .one = write_shown };
    if (!e) e = asked_name(exchange_ctx(ask.x), body, &ask.name);
    if (e) exchange_refuse(ask.x);
    else serve(&ask);
}

// Who may not ask is refused before the body is read.
void gateway_show(Exchange *x) {
    enum { ASK_MAX = 1 << 16 };
    const Snapshot *s = snapshot_take();
    if (identify(exchange_ctx(x), s, exchange_request(x))) exchange_refuse(x);
    else exchange_read_all(x, ASK_MAX, asked, x);
    snapshot_give(s);
}

// Some of Ollama's clients look at it before they ask anything else, and show it.
void gateway_version(Exchange *x) {
    const Snapshot *s = snapshot_take();
    const KeyEntry *key;
    str project;
    if (access_key(exchange_ctx(x), s, exchange_request(x), &key, &project)) exchange_refuse(x);
    else exchange_reply(x, 200, "application/json", S("{\"version\":\"" LATHE_VERSION "\"}"));
    snapshot_give(s);
}
