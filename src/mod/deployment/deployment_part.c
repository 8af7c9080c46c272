// SPDX-License-Identifier: Apache-2.0
// deployment_part.c - the request path's view: a part of the snapshot, {"deployments": [...]},
// found
// by project and name or by id in sorted arrays. A key of an attached server lies sealed in the
// JSON, which is kept on disk, and is opened when it is compiled.
// Owner: the snapshot. Threads: the builder writes, any reads.
#include "base/log.h"
#include "mod/deployment/deployment_own.h"
#include <stdlib.h>

// ---- rows to JSON
static bool is_routed(const ReplicaRow *r) {
    bool soon =
        r->state == AT_WAITING && r->failures > 0 && r->failures <= 2; // back within seconds
    return soon || (r->state >= AT_STARTING && r->state <= AT_DRAINING);
}

static void write_replica(Json *j, const ReplicaRow *r) {
    json_obj(j);
    json_kv_str(j, "id", r->id), json_kv_str(j, "node", r->node),
        json_kv_str(j, "address", r->address);
    json_kv_bool(j, "attached", r->attached), json_kv_bool(j, "ready", r->state == AT_READY),
        json_kv_bool(j, "draining", r->state == AT_DRAINING);
    json_kv_str(j, "host", r->host), json_kv_str(j, "base", r->base_path),
        json_kv_str(j, "key", r->sealed_key), json_kv_bool(j, "tls", r->tls);
    json_kv_str(j, "model", r->model), json_kv_str(j, "version", r->version),
        json_kv_str(j, "digest", r->digest);
    json_kv_str(j, "upstream", r->upstream), json_kv_str(j, "engine", r->engine);
    if (r->attached) {
        json_key(j, "manner"), json_obj(j);
        fields_write(manner_rows, &r->manner, j, SHOW_STORE), json_end_obj(j);
    }
    json_end_obj(j);
}

// While two generations serve, a request must fit either.
static int64_t least(const Deployment *d, size_t member, int64_t wished) {
    int64_t n = wished;
    for (size_t i = 0; i < d->replicas_status_n; i++) {
        const ReplicaRow *r = &d->replicas_status[i];
        int64_t has = *(const int64_t *)((const char *)r + member);
        if (r->state == AT_READY && has > 0 && has < n) n = has;
    }
    return n;
}

static void write_deployment(Json *j, const Deployment *d) {
    const Serving *s = &d->serving;
    json_obj(j);
    json_kv_str(j, "id", d->head.id), json_kv_str(j, "name", d->head.name),
        json_kv_str(j, "org", d->head.org);
    json_kv_str(j, "project", d->head.project), json_kv_str(j, "model", s->model);
    json_kv_str(j, "version", s->version), json_kv_str(j, "digest", s->digest),
        json_kv_str(j, "upstream", upstream_of(d));
    json_kv_z(j, "dialect", manner_dialect(&d->endpoint.manner)->name);
    json_kv_z(j, "engine", engine_of(d)->name),
        json_kv_i64(j, "task", s->task < 0 ? TASK_CHAT : s->task);
    json_kv_i64(
        j, "context",
        least(d, offsetof(ReplicaRow, context), s->context > 0 ? s->context : CONTEXT_DEFAULT));
    json_kv_i64(j, "slots", least(d, offsetof(ReplicaRow, slots), d->slots));
    json_kv_i64(j, "queue_max", d->queue_max), json_kv_i64(j, "queue_ms", d->queue_ms);
    json_kv_z(j, "state", deployment_states[d->state < 0 ? DEP_PENDING : d->state]);
    json_kv_str(j, "reason", d->state_reason);
    json_key(j, "replicas"), json_arr(j);
    for (size_t i = 0; i < d->replicas_status_n; i++)
        if (is_routed(&d->replicas_status[i])) write_replica(j, &d->replicas_status[i]);
    json_end_arr(j), json_end_obj(j);
}

static err query(Ctx *c, Tx *tx, Json *out) {
    ListSpec spec = { .limit = LIST_MAX, .all_scopes = true };
    json_obj(out), json_key(out, "deployments"), json_arr(out);
    do {
        ListPage page;
        TRY(res_list(c, tx, &deployment_resource, &spec, &page));
        for (size_t i = 0; i < page.n; i++)
            write_deployment(out, (const Deployment *)page.rows + i);
        spec.cursor = page.cursor;
    } while (spec.cursor.n);
    json_end_arr(out), json_end_obj(out);
    return ERR_OK;
}

// ---- compiled
typedef struct View {
    size_t n;
    const DeploymentEntry **by_name, **by_id; // sorted by (project, name), and by id
} View;

static int64_t number(yyjson_val *v, const char *key) {
    int64_t n = 0;
    json_get_i64(v, key, &n);
    return n;
}

static int by_name(const void *a, const void *b) {
    const DeploymentEntry *x = *(const DeploymentEntry *const *)a,
                          *y = *(const DeploymentEntry *const *)b;
    int n = str_cmp(x->project, y->project);
    return n ? n : str_cmp(x->name, y->name);
}
static int by_id(const void *a, const void *b) {
    const DeploymentEntry *x = *(const DeploymentEntry *const *)a,
                          *y = *(const DeploymentEntry *const *)b;
    return str_cmp(x->id, y->id);
}

// A key that cannot be opened costs this replica, not everyone's snapshot.
static bool open_key(Ctx *c, const DeploymentEntry *d, str sealed, str *out) {
    App *app = app_of(c);
    if (!sealed.n) return true;
    str aad = arena_printf(c->mem, STR_FMT "/endpoint.api_key", STR_ARG(d->id));
    if (!app || !app->unseal || app->unseal(c, sealed, aad, out)) {
        log_at("deployment", LOG_ERROR, c, "the key of an attached server cannot be opened",
               "deployment", say_str(c, d->name));
        return false;
    }
    return true;
}

static bool read_manner(Ctx *c, const DeploymentEntry *d, yyjson_val *in, Replica *r) {
    Manner m;
    str key = { 0 };
    yyjson_val *said = json_get(in, "manner");
    fields_default(c->mem, manner_rows, &m);
    if (said && fields_read(c, manner_rows, &m, said, FIELDS_LOAD)) return false;
    r->dialect = manner_dialect(&m), r->accent = manner_accent(&m);
    r->query = manner_query(c->mem, &m);
    if (!open_key(c, d, json_get_str(in, "key"), &key)) return false;
    r->headers_n = manner_headers(c->mem, &m, key, r->headers);
    return true;
}

static void read_replica(Ctx *c, const DeploymentEntry *d, yyjson_val *in, Replica *r) {
    *r = (Replica){ .id = json_get_str(in, "id"),
                    .host = json_get_str(in, "host"),
                    .base_path = json_get_str(in, "base"),
                    .model = json_get_str(in, "model"),
                    .version = json_get_str(in, "version"),
                    .model_digest = json_get_str(in, "digest"),
                    .upstream_model = json_get_str(in, "upstream"),
                    .engine = engine_find(json_get_str(in, "engine")),
                    .dialect = dialect_find(S("openai.chat")) };
    r->ready = json_get_bool(in, "ready", false),
    r->draining = json_get_bool(in, "draining", false), r->tls = json_get_bool(in, "tls", false);
    str address = json_get_str(in, "address");
    if (json_get_bool(in, "attached", false))
        r->ready &= address.n && !addr_parse(c, address, &r->addr) && read_manner(c, d, in, r);
    else if (str_eq(json_get_str(in, "node"), app_of(c)->node))
        r->ready &= !replica_socket(c, r->id, &r->addr);
    else r->ready = false, r->node = json_get_str(in, "node");
}

static void read_deployment(Ctx *c, Arena *mem, yyjson_val *in, DeploymentEntry *d) {
    static const struct {
        const char *key;
        size_t at;
    } texts[] = {
        { "id", offsetof(DeploymentEntry, id) },
        { "name", offsetof(DeploymentEntry, name) },
        { "org", offsetof(DeploymentEntry, org) },
        { "project", offsetof(DeploymentEntry, project) },
        { "model", offsetof(DeploymentEntry, model) },
        { "version", offsetof(DeploymentEntry, version) },
        { "digest", offsetof(DeploymentEntry, model_digest) },
        { "upstream", offsetof(DeploymentEntry, upstream_model) },
        { "state", offsetof(DeploymentEntry, state) },
        { "reason", offsetof(DeploymentEntry, state_reason) },
    };
    for (size_t i = 0; i < countof(texts); i++)
        *(str *)((char *)d + texts[i].at) = json_get_str(in, texts[i].key);
    d->engine = engine_find(json_get_str(in, "engine"));
    d->dialect = dialect_find(json_get_str(in, "dialect"));
    if (!d->dialect) d->dialect = dialect_find(S("openai.chat")); // of an older release
    int64_t task = number(in, "task");
    d->task = task == TASK_COMPLETION || task == TASK_EMBEDDING ? (Task)task : TASK_CHAT;
    d->context = number(in, "context"), d->slots = number(in, "slots");
    if (!d->slots) d->slots = SLOTS_ANY;
    d->queue_max = number(in, "queue_max"), d->queue_ms = number(in, "queue_ms");
    yyjson_val *list = json_get(in, "replicas"), *one;
    size_t i, n;
    Replica *replicas = new (mem, Replica, yyjson_arr_size(list) + 1);
    yyjson_arr_foreach(list, i, n, one) read_replica(c, d, one, &replicas[d->replicas_n++]);
    d->replicas = replicas;
}

static err compile(Ctx *c, Arena *mem, yyjson_val *in, void **out) {
    yyjson_val *list = json_get(in, "deployments"), *one;
    size_t i, n, most = yyjson_arr_size(list);
    View *view = new (mem, View, 1);
    DeploymentEntry *all = new (mem, DeploymentEntry, most + 1);
    view->by_name = new (mem, const DeploymentEntry *, most + 1);
    view->by_id = new (mem, const DeploymentEntry *, most + 1);
    yyjson_arr_foreach(list, i, n, one) {
        DeploymentEntry *d = &all[view->n];
        if (!engine_find(json_get_str(one, "engine"))) continue; // of a newer release
        read_deployment(c, mem, one, d);
        view->by_name[view->n] = view->by_id[view->n] = d;
        view->n++;
    }
    qsort(view->by_name, view->n, sizeof *view->by_name, by_name);
    qsort(view->by_id, view->n, sizeof *view->by_id, by_id);
    *out = view;
    return ERR_OK;
}
const SnapshotPart deployment_part = { "deployments", query, compile };

// ---- readers
str deployment_elsewhere(const DeploymentEntry *d) {
    str node = { 0 };
    for (size_t i = 0; i < d->replicas_n; i++) {
        const Replica *r = &d->replicas[i];
        if (!r->node.n && !r->draining) return (str){ 0 };
        if (r->node.n) node = r->node;
    }
    return node;
}

static const View *view_of(const Snapshot *s) { return snapshot_get(s, &deployment_part); }

const DeploymentEntry *deployment_find(const Snapshot *s, str project, str name) {
    const View *v = view_of(s);
    DeploymentEntry like = { .project = project, .name = name };
    const DeploymentEntry *key = &like, **at;
    at = v->n ? bsearch(&key, v->by_name, v->n, sizeof *v->by_name, by_name) : NULL;
    return at ? *at : NULL;
}

const DeploymentEntry *deployment_by_id(const Snapshot *s, str id) {
    const View *v = view_of(s);
    DeploymentEntry like = { .id = id };
    const DeploymentEntry *key = &like, **at;
    at = v->n ? bsearch(&key, v->by_id, v->n, sizeof *v->by_id, by_id) : NULL;
    return at ? *at : NULL;
}

size_t deployment_list(const Snapshot *s, str project, const DeploymentEntry *const **out) {
    const View *v = view_of(s);
    size_t from = 0, to = v->n;
    while (from < to) { // the first of the project
        size_t mid = from + (to - from) / 2;
        if (str_cmp(v->by_name[mid]->project, project) < 0) from = mid + 1;
        else to = mid;
    }
    size_t n = 0;
    while (from + n < v->n && str_eq(v->by_name[from + n]->project, project)) n++;
    *out = v->by_name + from;
    return n;
}
