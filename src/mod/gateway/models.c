// SPDX-License-Identifier: Apache-2.0
// models.c - GET /v1/models and /v1/models/{model}: what this project's keys may name, in OpenAI's
// shape.
#include "base/id.h"
#include "mod/gateway/flow.h"

static void write_model(const DeploymentEntry *d, Json *j) {
    json_obj(j);
    json_kv_str(j, "id", d->name), json_kv_z(j, "object", "model");
    json_kv_i64(j, "created", id_time_ms(d->id) / 1000); // OpenAI's times are seconds
    json_kv_str(j, "owned_by", S("lathe"));
    json_kv_str(j, "state", d->state), json_kv_i64(j, "context_length", d->context);
    json_end_obj(j);
}

static err write_models(Ctx *c, const Snapshot *s, str project, str name, Json *j) {
    const DeploymentEntry *const *all;
    if (name.p) {
        const DeploymentEntry *d = deployment_find(s, project, name);
        if (!d)
            return fail(c, ERR_NOTFOUND, R_MODEL_UNKNOWN, "field", "model", "model",
                        say_str(c, name), "known", "GET /v1/models");
        write_model(d, j);
        return ERR_OK;
    }
    size_t n = deployment_list(s, project, &all);
    json_obj(j), json_kv_z(j, "object", "list"), json_key(j, "data"), json_arr(j);
    for (size_t i = 0; i < n; i++) write_model(all[i], j);
    json_end_arr(j), json_end_obj(j);
    return ERR_OK;
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
    return write_models(c, s, project, route_param(r, "/v1/models/{model}", "model"), &j);
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
