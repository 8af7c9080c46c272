// SPDX-License-Identifier: Apache-2.0
// deployment.c - the descriptor; what may be wished; the actions; where things lie. What follows
// from a wish is reconcile.c's.
// Threads: hooks on workers; start and stop on the main thread.
#include "mod/deployment/watch.h"
#include <assert.h>
#include <stdio.h>

static err init(Ctx *c);
static err start(Ctx *c);
static void stop(void *app);

static const Resource *const resources[] = { &deployment_resource, NULL };
const Module deployment_module = {
    .name = "deployment",
    .needs = "model dialect",
    .resources = resources,
    .routes = deployment_routes,
    .settings = deployment_settings,
    .metrics = deployment_metrics,
    .migrations = deployment_migrations,
    .migrations_n = 2,
    .reasons = deployment_reasons,
    .verbs = deployment_verbs,
    .init = init,
    .start = start,
    .stop = stop,
    .en = "Models made to answer: replicas started, probed, replaced and ended",
    .zh = "模型部署：副本的启动、探测、替换与停止",
};
REASONS_DEFINE(DEPLOYMENT_REASONS, deployment_reasons)

static _Atomic(Worker *) reconciler; // its first turn may come before worker_start has told us
static atomic_bool woken;            // something happened since the last turn began
static void wake(void) {
    atomic_store(&woken, true);
    worker_wake(reconciler);
}
// While all is as wished and nothing happens, every fifth look is enough.
static err turn(Ctx *c, void *arg) {
    enum { SKIPS_MAX = 4 };
    static int skips;
    static bool busy = true;
    (void)arg;
    if (!atomic_exchange(&woken, false) && !busy && skips++ < SKIPS_MAX) return ERR_OK;
    Pace pace = { .look_ms = LOOK_MS };
    err e = reconcile(c, &pace);
    worker_pace(pace.look_ms);
    skips = 0, busy = e || pace.busy;
    if (pace.again) wake();
    return e;
}
static void child_changed(void *arg, str handle) {
    (void)arg, (void)handle;
    wake();
}
void deployment_notify(void *app) {
    snapshot_wake(app);
    wake();
}
void deployment_failed(str replica_id) { probe_poke(replica_id); }

static err init(Ctx *c) {
    snapshot_part(&deployment_part);
    return dir_make(c, socket_dir(c), 0700);
}

static err start(Ctx *c) {
    App *app = app_of(c);
    probes_open(app, wake);
    flight_watch(wake);
    reconciler = worker_start(app, "deployment", LOOK_MS, turn, NULL);
    executor_on_change(app->executor, child_changed, NULL);
    // What the rows say of replicas is looked at before the first request is sent to one.
    err e = deployment_sync(c);
    return e && ctx_cancelled(c) ? e
                                 : ERR_OK; // a database that is away must not keep the server down
}

err deployment_sync(Ctx *c) {
    atomic_store(&woken, true);
    return worker_sync(c, reconciler);
}
void deployment_rest(void) { worker_stop(reconciler); }

static void stop(void *app) {
    worker_free(reconciler);
    reconciler = NULL;
    reconcile_close(app);
    probes_close();
    flight_close();
}

// ---- places
str socket_dir(Ctx *c) {
    return arena_printf(c->mem, STR_FMT "/sockets", STR_ARG(app_of(c)->data_dir));
}

// Named by a hash: a whole identifier would not leave room for the folder's path.
err replica_socket(Ctx *c, str replica_id, Addr *out) {
    enum { PATH_MOST = 107 }; // sun_path of unix(7), with its NUL
    unsigned long long name = str_hash_seed(replica_id, 0x736f636b);
    str path = arena_printf(c->mem, STR_FMT "/%016llx.sock", STR_ARG(socket_dir(c)), name);
    int n = snprintf(out->text, sizeof out->text, "unix:" STR_FMT, STR_ARG(path));
    if (path.n <= PATH_MOST && n > 0 && (size_t)n < sizeof out->text) return ERR_OK;
    return fail(c, ERR_INVALID, R_SOCKET_LONG, "path", say_str(c, path), "limit",
                say(c, "%d", PATH_MOST));
}

// ---- an attached server's address (RFC 3986 §3, without user information)
static err bad_url(Ctx *c, const char *why) {
    return fail(c, ERR_INVALID, R_ENDPOINT_FORM, "field", "endpoint.url", "why", why);
}

static bool plain_path(str path) {
    for (size_t i = 0; i < path.n; i++)
        if (path.p[i] <= ' ' || path.p[i] > '~' || path.p[i] == '?' || path.p[i] == '#')
            return false;
    return true;
}

static err parse_authority(Ctx *c, str text, Url *out) {
    if (!text.n || !plain_path(text) || str_find_char(text, '@') >= 0)
        return bad_url(c, "its host is missing or has other characters");
    out->host_header = text;
    ptrdiff_t bracket = str_find_char(text, ']'), colon = -1;
    for (size_t i = bracket < 0 ? 0 : (size_t)bracket; i < text.n; i++)
        if (text.p[i] == ':') colon = (ptrdiff_t)i;
    out->host = colon < 0 ? text : str_sub(text, 0, (size_t)colon);
    if (str_starts(out->host, S("[")) && str_ends(out->host, S("]")))
        out->host = str_sub(out->host, 1, out->host.n - 2);
    int64_t port = out->tls ? 443 : 80;
    if (colon >= 0
        && (!str_to_i64(str_sub(text, (size_t)colon + 1, text.n), &port) || port < 1
            || port > 65535))
        return bad_url(c, "its port is not a number from 1 to 65535");
    out->port = (int)port;
    return out->host.n ? ERR_OK : bad_url(c, "its host is missing");
}

err endpoint_parse(Ctx *c, const Endpoint *e, Url *out) {
    str url = e->url;
    *out = (Url){ .tls = str_starts(url, S("https://")) };
    if (!out->tls && !str_starts(url, S("http://")))
        return bad_url(c, "other schemes than http and https are not spoken");
    str rest = str_sub(url, out->tls ? 8 : 7, url.n);
    ptrdiff_t slash = str_find_char(rest, '/');
    str path = slash < 0 ? S("") : str_sub(rest, (size_t)slash, rest.n);
    TRY(parse_authority(c, slash < 0 ? rest : str_sub(rest, 0, (size_t)slash), out));
    while (path.n && path.p[path.n - 1] == '/') path.n--;
    if (!plain_path(path)) return bad_url(c, "its path has a query or other characters");
    out->base_path = manner_base(c->mem, &e->manner, path);
    return ERR_OK;
}

// ---- what may be wished
static err need(Ctx *c, const Reason *why, const char *field, const Deployment *d) {
    return fail_(c, ERR_INVALID, why,
                 (const char *const[]){ "field", field, "engine", engine_of(d)->name, NULL, NULL });
}

static bool same_text(str a, str b) { return !a.p == !b.p && str_eq(a, b); }

// A key is for the server that it was given for: who may change the address, and could not read the
// key, would have it sent to a server of their own.
static err check_attached(Ctx *c, const Deployment *was, const Deployment *d) {
    Url url;
    if (!d->endpoint.url.n) return need(c, &R_ENDPOINT_REQUIRED, "endpoint.url", d);
    bool moved = was && was->endpoint.api_key.n && !same_text(was->endpoint.url, d->endpoint.url);
    if (moved && same_text(was->endpoint.api_key, d->endpoint.api_key))
        return fail(c, ERR_INVALID, R_FIELD_REQUIRED, "field", "endpoint.api_key");
    TRY(manner_check(c, &d->endpoint.manner, d->task));
    return endpoint_parse(c, &d->endpoint, &url);
}

static err check_launched(Ctx *c, const Deployment *d) {
    if (d->slots < 1 || d->slots > SLOTS_LAUNCHED_MAX)
        return fail(c, ERR_INVALID, R_FIELD_RANGE, "field", "slots", "min", "1", "max",
                    say(c, "%d", SLOTS_LAUNCHED_MAX), "got", say(c, "%lld", (long long)d->slots));
    if (!d->model.n) return need(c, &R_MODEL_REQUIRED, "model", d);
    if (d->endpoint.url.p) return need(c, &R_ENDPOINT_UNUSED, "endpoint.url", d);
    if (d->endpoint.api_key.p) return need(c, &R_ENDPOINT_UNUSED, "endpoint.api_key", d);
    if (d->endpoint.upstream_model.p)
        return need(c, &R_ENDPOINT_UNUSED, "endpoint.upstream_model", d);
    Manner none;
    fields_default(c->mem, manner_rows, &none);
    if (!fields_equal(manner_rows, &none, &d->endpoint.manner, false))
        return need(c, &R_ENDPOINT_UNUSED, "endpoint", d);
    return ERR_OK;
}

static const char *version_text(Ctx *c, const VersionInfo *v) {
    return say(c, STR_FMT ":" STR_FMT, STR_ARG(v->model), STR_ARG(v->number));
}

// A version that is still on its way is fine: the deployment waits for it and says so.
static err check_version(Ctx *c, Tx *tx, Deployment *d) {
    VersionInfo v = { 0 };
    err e = model_version(c, tx, d->model, &v);
    if (e == ERR_CONFLICT && v.id.n && !v.failed) return ERR_OK;
    if (e) return e;
    if (v.embedder && d->task >= 0 && d->task != TASK_EMBEDDING)
        return fail(c, ERR_INVALID, R_TASK_UNFIT, "field", "task", "task", task_names[d->task],
                    "model", version_text(c, &v));
    if (d->context > 0 && v.context > 0 && d->context > v.context)
        return fail(c, ERR_INVALID, R_CONTEXT_LARGE, "field", "context", "got",
                    say(c, "%lld", (long long)d->context), "model", version_text(c, &v), "limit",
                    say(c, "%lld", (long long)v.context));
    return ERR_OK;
}

// Whether replicas of the one would serve the other: what else changes needs no new ones.
static bool same_launch(const Deployment *a, const Deployment *b) {
    const Endpoint *x = &a->endpoint, *y = &b->endpoint;
    return same_text(a->model, b->model) && a->task == b->task && a->engine == b->engine
           && a->context == b->context && a->slots == b->slots && a->threads == b->threads
           && a->cache == b->cache && a->restart_at == b->restart_at && same_text(x->url, y->url)
           && same_text(x->api_key, y->api_key) && same_text(x->upstream_model, y->upstream_model)
           && fields_equal(manner_rows, &x->manner, &y->manner, false);
}

// A patch may take away what has a default.
static void set_defaults(Deployment *d) {
    const struct {
        int64_t *at, value;
    } numbers[] = { { &d->replicas, 1 },    { &d->slots, 4 },        { &d->threads, 0 },
                    { &d->queue_max, 100 }, { &d->queue_ms, 30000 }, { &d->drain_ms, 60000 } };
    for (size_t i = 0; i < countof(numbers); i++)
        if (*numbers[i].at == UNSET_INT) *numbers[i].at = numbers[i].value;
    if (d->engine < 0) d->engine = 0;
    if (d->cache < 0) d->cache = CACHE_AUTO;
}

err deployment_check(Ctx *c, Tx *tx, const void *old, void *now) {
    const Deployment *was = old;
    Deployment *d = now;
    if (!d) return ERR_OK;
    set_defaults(d);
    TRY(engine_of(d)->launched ? check_launched(c, d) : check_attached(c, was, d));
    if (d->model.n && (!was || !same_launch(was, d))) TRY(check_version(c, tx, d));
    if (!was)
        d->rollout = 1, d->state = DEP_PENDING, d->state_reason = S("about to start"),
        d->ready_replicas = 0;
    else if (!same_launch(was, d))
        d->rollout = was->head.generation + 1; // the one that it will have
    return ERR_OK;
}

err deployment_start(Ctx *c, Tx *tx, void *row, const void *input, str *out_job) {
    (void)c, (void)tx, (void)input, (void)out_job;
    ((Deployment *)row)->stopped = false;
    return ERR_OK;
}
err deployment_stop(Ctx *c, Tx *tx, void *row, const void *input, str *out_job) {
    (void)c, (void)tx, (void)input, (void)out_job;
    ((Deployment *)row)->stopped = true;
    return ERR_OK;
}
err deployment_restart(Ctx *c, Tx *tx, void *row, const void *input, str *out_job) {
    (void)tx, (void)input, (void)out_job;
    Deployment *d = row;
    int64_t now_ms = os_wall_ms(c->os);
    d->restart_at =
        now_ms > d->restart_at ? now_ms : d->restart_at + 1; // two within a millisecond are two
    d->stopped = false;
    return ERR_OK;
}

// ---- logs
typedef struct LogCall {
    str id;
    Deployment d;
} LogCall;

static err log_row(Ctx *c, Tx *tx, void *arg) {
    LogCall *call = arg;
    return res_get(c, tx, &deployment_resource, call->id, &call->d);
}

static err pick_replica(Ctx *c, const Deployment *d, str wanted, str *out_id) {
    Buf known;
    buf_init(&known, 2000);
    const ReplicaRow *best = NULL;
    for (size_t i = 0; i < d->replicas_status_n; i++) {
        const ReplicaRow *r = &d->replicas_status[i];
        buf_printf(&known, "%s" STR_FMT, i ? ", " : "", STR_ARG(r->id));
        bool fits = !wanted.n || str_eq(wanted, r->id)
                    || str_is(wanted, say(c, "%lld", (long long)r->number));
        if (fits && (!best || r->generation > best->generation)) best = r;
    }
    const char *names = known.n ? arena_z(c->mem, buf_str(&known)) : "none";
    buf_done(&known);
    if (!best)
        return fail(c, ERR_NOTFOUND, R_REPLICA_UNKNOWN, "deployment", say_str(c, d->head.name),
                    "replica", wanted.n ? say_str(c, wanted) : "yet", "known", names);
    *out_id = best->id;
    return ERR_OK;
}

static err read_number(Ctx *c, const HttpRequest *r, const char *name, int64_t most, int64_t *out) {
    str text = http_query(c->mem, r, name, NULL);
    if (!text.p) return ERR_OK;
    if (str_to_i64(text, out) && *out >= 0 && *out <= most) return ERR_OK;
    return fail(c, ERR_INVALID, R_FIELD_RANGE, "field", name, "min", "0", "max",
                say(c, "%lld", (long long)most), "got", say_str(c, text));
}

err deployment_logs(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    (void)body;
    enum { LIMIT = 65536, LIMIT_MAX = 1 << 20 };
    LogCall call = { .id = route_param(r, "/lathe/v1/deployments/{id}/logs", "id") };
    int64_t offset = 0, limit = LIMIT;
    str id, handle;
    ChildLog log = { .text = S("") };
    TRY(read_number(c, r, "offset", INT64_MAX, &offset));
    TRY(read_number(c, r, "limit", LIMIT_MAX, &limit));
    TRY(db_read(c, c->db, log_row, &call));
    TRY(pick_replica(c, &call.d, http_query(c->mem, r, "replica", NULL), &id));
    err e = executor_find(c, app_of(c)->executor, id, &handle);
    if (!e)
        e = executor_logs(c, app_of(c)->executor, handle, offset, limit ? (size_t)limit : 1, &log);
    if (e && e != ERR_NOTFOUND)
        return e; // one that has no process yet, or runs elsewhere, has written nothing here
    if (e) log.from = log.next = offset;
    Json j = json_to(&out->body);
    json_obj(&j);
    json_kv_str(&j, "replica", id), json_kv_i64(&j, "from", log.from),
        json_kv_i64(&j, "next", log.next);
    json_kv_str(&j, "text", log.text);
    json_end_obj(&j);
    return ERR_OK;
}
