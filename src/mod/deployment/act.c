// SPDX-License-Identifier: Apache-2.0
// act.c - what is done for a deployment once its rows say so and the lease was ours: children
// submitted, cancelled, forgotten; probes started and kept. Everything here may be done again.
// Owner: the turn. Threads: the reconciler's.
#include "base/log.h"
#include "mod/deployment/reconcile_own.h"
#include <assert.h>

// An engine that is told to end has so long: its requests are over and it has nothing to save, so
// this only lets it leave in its own way (llama-server: under 100 ms). One that hangs has had its
// time: it would not even hear the signal while it is stopped.
enum { GRACE_MS = 3000, ORPHAN_DRAIN_MS = 60000, ORPHAN_QUIET_MS = 1000 };

// ---- connections that a gateway keeps to a replica that is gone
typedef struct Forget {
    App *app;
    size_t loop;
    Addr addr;
} Forget;

static void forget_posted(void *arg) {
    Forget *f = arg;
    if (!loop_stopping(f->app->loops[f->loop])) client_forget(f->app->clients[f->loop], &f->addr);
    mem_free(f);
}

static void forget_socket(Ctx *c, str replica_id) {
    App *app = app_of(c);
    Addr addr;
    if (replica_socket(c, replica_id, &addr)) return;
    err e = path_remove(c, str_sub(str_z(addr.text), 5, sizeof addr.text)); // an engine leaves its
    if (e && e != ERR_NOTFOUND) log_at("deployment", LOG_DEBUG, c, "a socket's file stays");
    for (size_t i = 0; i < app->loops_n; i++) {
        Forget *f = mem_new(sizeof *f);
        *f = (Forget){ app, i, addr };
        loop_post(app->loops[i], forget_posted, f);
    }
}

// ---- launching
static const char *const *engine_env(Ctx *c) {
    // A clean environment: many variables change what an engine does. GOMP_SPINCOUNT: OpenMP's
    // threads spin, and starve others and each other on a busy machine (README.md).
    static const char *const passed[] = {
        "PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES"
    };
    const char **env = new (c->mem, const char *, countof(passed) + 2);
    size_t n = 0;
    env[n++] = "GOMP_SPINCOUNT=1000";
    for (size_t i = 0; i < countof(passed); i++) {
        const char *value = os_env(c->os, passed[i]);
        if (value) env[n++] = arena_printf(c->mem, "%s=%s", passed[i], value).p;
    }
    return env;
}

static err launch(Ctx *c, const One *o, const ReplicaRow *r) {
    Addr addr;
    str handle;
    TRY(replica_socket(c, r->id, &addr));
    str path = str_sub(str_z(addr.text), 5, sizeof addr.text); // without "unix:"
    const Serving *s = &o->d.serving;
    LaunchSpec spec = { .model_path = o->version.path,
                        .socket = path,
                        .alias = o->d.head.name,
                        .context = r->context,
                        .slots = r->slots,
                        .threads = o->d.threads,
                        .task = (Task)s->task,
                        .cache_q8 = s->cache_q8,
                        .pool_mean = s->pool_mean };
    ChildSpec child = { .key = r->id, .env = engine_env(c), .socket_path = path };
    // A runaway engine costs itself; an estimate that is a little low costs nothing.
    int64_t twice = r->memory_needed < INT64_MAX / 4 ? 2 * r->memory_needed : 0;
    child.memory_max_bytes = twice ? twice + (INT64_C(1) << 30) : 0;
    TRY(engine_of(&o->d)->argv(c, &spec, &child.argv));
    return executor_submit(c, app_of(c)->executor, &child, &handle);
}

// True when it failed: the row waits for another try.
static bool start_one(Ctx *c, One *o, size_t i) {
    ReplicaRow *r = &o->rows[i];
    const ChildView *v = o->seen[i].child;
    Executor *e = app_of(c)->executor;
    err failed = ERR_OK;
    if (v && (v->state == CHILD_EXITED || v->state == CHILD_LOST)) {
        failed = executor_forget(c, e, v->handle); // its log has been read
        forget_socket(c, r->id);
    }
    if (!failed) failed = o->has_version ? launch(c, o, r) : ERR_OK;
    if (!failed) return false;
    Buf why;
    buf_init(&why, 2000);
    failure_format(&c->failure, "en", &why);
    replica_exit(c->mem, r, buf_str(&why), &o->policy, os_wall_ms(c->os));
    r->refused = true;
    buf_done(&why);
    return true;
}

static void end_one(Ctx *c, const ReplicaRow *r, const ChildView *v) {
    int64_t left = r->state == AT_HUNG ? 0 : r->since + GRACE_MS - os_wall_ms(c->os);
    if (!v) return;
    err e = executor_cancel(c, app_of(c)->executor, v->handle,
                            left < 0          ? 0
                            : left > GRACE_MS ? GRACE_MS
                                              : left);
    if (e && e != ERR_NOTFOUND)
        log_at("deployment", LOG_WARN, c, "cannot end a replica", "replica", say_str(c, r->id));
}

bool one_act(Ctx *c, One *o) {
    bool failed = false;
    for (size_t i = 0; i < o->n; i++) {
        const ReplicaRow *r = &o->rows[i];
        const ChildView *v = o->seen[i].child;
        bool ended = v && (v->state == CHILD_EXITED || v->state == CHILD_LOST);
        bool unborn = !v || ended || (v->state == CHILD_STARTING && !v->pid);
        if (r->state == AT_STARTING && o->seen[i].look.launched && unborn)
            failed |= start_one(c, o, i);
        if ((r->state == AT_HUNG || r->state == AT_ENDING) && !ended) end_one(c, r, v);
    }
    for (size_t i = 0; i < o->gone_n; i++) {
        err e = executor_forget(c, app_of(c)->executor, o->gone[i]->handle);
        if (e && e != ERR_NOTFOUND)
            log_at("deployment", LOG_WARN, c, "cannot forget a replica's process", "replica",
                   say_str(c, o->gone[i]->key));
        forget_socket(c, o->gone[i]->key);
    }
    return failed;
}

// ---- children that are not ours to lead any more: their deployment is another node's by now, or
// is gone. Requests that came before this node knew still run on them.
static struct {
    Map all; // by the child's key
    bool open;
} leaving;
typedef struct Leaving {
    int64_t since_ns; // nobody is sent to it from then on
    char key[];
} Leaving;

void orphans_close(void) {
    MapEntry *e;
    for (size_t i = 0; leaving.open && map_each(&leaving.all, &i, &e);) mem_free(e->value);
    if (leaving.open) map_done(&leaving.all);
    leaving.open = false;
}

static void leaving_drop(str key) { mem_free(leaving.open ? map_del(&leaving.all, key) : NULL); }

static int64_t drain_ms_of(const Turn *t, str deployment) {
    for (size_t i = 0; i < t->n; i++)
        if (str_eq(t->all[i].head.id, deployment)) return t->all[i].drain_ms;
    return ORPHAN_DRAIN_MS;
}

// The snapshot that is synced for a new one does not name it any more.
static bool may_leave(Ctx *c, Turn *t, str key, int64_t drain_ms) {
    if (!leaving.open) map_init(&leaving.all, 0x6c656176), leaving.open = true;
    Leaving *l = map_get(&leaving.all, key);
    int64_t now_ns = os_mono_ns(c->os);
    t->busy = true;
    if (!l) {
        if (snapshot_sync(c)) return false;
        l = mem_new(sizeof *l + key.n + 1);
        memcpy(l->key, key.p, key.n);
        l->since_ns = os_mono_ns(c->os);
        map_set(&leaving.all, str_z(l->key), l);
        return false;
    }
    int64_t ms = (now_ns - l->since_ns) / 1000000;
    return ms >= drain_ms || (ms >= ORPHAN_QUIET_MS && !flight_count(key, true));
}

void orphans_end(Ctx *c, Turn *t) {
    for (size_t i = 0; i < t->children_n; i++) {
        const ChildView *v = &t->children[i];
        str dep;
        int64_t generation, number;
        if (!replica_key_parse(v->key, &dep, &generation, &number)) continue;
        bool ended = v->state == CHILD_EXITED || v->state == CHILD_LOST;
        bool ours = map_get(&t->known, dep);
        if (ours || ended) leaving_drop(v->key);
        if (ours || (!ended && !may_leave(c, t, v->key, drain_ms_of(t, dep)))) continue;
        Executor *e = app_of(c)->executor;
        if (ended) flight_forget(v->key);
        err failed =
            ended ? executor_forget(c, e, v->handle) : executor_cancel(c, e, v->handle, GRACE_MS);
        if (failed && failed != ERR_NOTFOUND)
            log_at("deployment", LOG_WARN, c, "cannot end a process without a deployment", "key",
                   say_str(c, v->key));
    }
}

// ---- probes
static bool probe_fill(Ctx *c, const One *o, const ReplicaRow *r, ProbeSpec *out) {
    const Engine *engine = engine_of(&o->d);
    *out = (ProbeSpec){ .id = r->id,
                        .engine = engine,
                        .task = o->d.serving.task < 0 ? TASK_CHAT : (Task)o->d.serving.task,
                        .trusted = r->ready_at > 0 };
    if (engine->launched) return !replica_socket(c, r->id, &out->addr);
    Url url;
    if (endpoint_parse(c, &o->d.endpoint, &url)) return false;
    out->host = r->host, out->resolve = url.host, out->port = url.port, out->tls = r->tls;
    out->health = manner_health(c->mem, &r->manner, r->base_path);
    out->may_lack_health = manner_may_lack_health(&r->manner);
    str key = { 0 }, aad = arena_printf(c->mem, STR_FMT "/endpoint.api_key", STR_ARG(o->d.head.id));
    if (r->sealed_key.n && app_of(c)->unseal(c, r->sealed_key, aad, &key)) return false;
    out->headers_n = manner_headers(c->mem, &r->manner, key, out->headers);
    return true;
}

void one_probe(Ctx *c, One *o) {
    for (size_t i = 0; i < o->n; i++) {
        const ReplicaRow *r = &o->rows[i];
        bool alive = !o->seen[i].look.launched || (o->seen[i].child && !o->seen[i].look.ended);
        bool wanted = r->state == AT_STARTING || r->state == AT_READY || r->state == AT_UNREADY;
        if (!alive || !wanted) continue;
        ProbeSpec spec;
        map_set(&o->t->probed, r->id, o->t);
        // Of another engine, or attached elsewhere: its probe goes on as it was begun.
        bool current = r->attached == !engine_of(&o->d)->launched
                       && (!r->attached || r->generation == o->d.rollout);
        if (current && probe_fill(c, o, r, &spec)) probe_start(&spec);
    }
}
