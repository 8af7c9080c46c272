// SPDX-License-Identifier: Apache-2.0
// reconcile.c - the turn: for each deployment take its lease, look, step each replica, plan, say so
// in SQL, let the request path know, then act. What is done follows what is written, and may be
// done again: so a crash at any line costs nothing but the next turn.
// Owner: leases and their holder's name live from the first turn to reconcile_close; all else in
// the turn's arena. Threads: the reconciler's.
#include "base/log.h"
#include "base/time.h"
#include "blob/store.h"
#include "mod/deployment/reconcile_own.h"
#include "res/objects.h"
#include <assert.h>

// ---- leases: kept while this process lives, renewed well before they end
typedef struct Held {
    Lease lease; // its texts are the heap's
    int64_t taken_ns;
} Held;
static struct {
    Map leases;
    char *holder; // NULL: closed
    int64_t opened_ms,
        answered_ns; // answered: since when the database has, each turn; 0: it does not
    bool unsynced;   // the request path may not know yet of what was written
} mine;

static void open_leases(Ctx *c) {
    if (mine.holder) return;
    map_init(&mine.leases, 0x6c656173);
    str id = os_id(c, "life");
    mine.opened_ms = os_wall_ms(c->os);
    mine.holder = mem_strdup(
        arena_printf(c->mem, STR_FMT ":" STR_FMT, STR_ARG(app_of(c)->node), STR_ARG(id)));
}

// The lock on the data folder says that an earlier life of this node is over, whatever its lease
// says.
static err take_over(Ctx *c, str object, Lease *out) {
    str holder = arena_str(c->mem, failure_param(&c->failure, "holder"));
    str prefix = arena_printf(c->mem, STR_FMT ":", STR_ARG(app_of(c)->node));
    if (c->failure.why != &R_LEASE_HELD || !str_starts(holder, prefix)) return ERR_CONFLICT;
    Lease old;
    TRY(lease_take(c, c->db, object, holder, 1, &old));
    TRY(lease_drop(c, c->db, &old));
    return lease_take(c, c->db, object, str_z(mine.holder), lease_ttl_ms(c->db), out);
}

// After an outage all leases have run out, and who is back first must not take what others run: it
// watches for as long as a lease lasts whether they renew theirs.
static bool watched_long(Ctx *c) {
    if (!db_shared(c->db)) return true;
    int64_t ns = mine.answered_ns ? os_mono_ns(c->os) - mine.answered_ns : 0;
    return ns >= lease_ttl_ms(c->db) * 1000000;
}

static err lease_ours(Ctx *c, str id, Lease *out) {
    str object = arena_printf(c->mem, "deployment/" STR_FMT, STR_ARG(id));
    Held *h = map_get(&mine.leases, object);
    int64_t now_ns = os_mono_ns(c->os), ttl_ms = lease_ttl_ms(c->db);
    if (h && now_ns - h->taken_ns < lease_renew_ms(c->db) * 1000000) {
        *out = h->lease;
        return ERR_OK;
    }
    err e = h || watched_long(c)
                ? lease_take(c, c->db, object, str_z(mine.holder), ttl_ms, out)
                : lease_take_free(c, c->db, object, str_z(mine.holder), ttl_ms, out);
    if (e == ERR_CONFLICT) e = take_over(c, object, out);
    if (e) return e;
    if (!h) {
        h = mem_new(sizeof *h);
        h->lease.object = str_z(mem_strdup(object)), h->lease.holder = str_z(mine.holder);
        map_set(&mine.leases, h->lease.object, h);
    }
    h->lease.epoch = out->epoch, h->lease.until_ms = out->until_ms, h->taken_ns = now_ns;
    *out = h->lease;
    return ERR_OK;
}

static Held *held_of(Ctx *c, str id) {
    return map_get(&mine.leases, arena_printf(c->mem, "deployment/" STR_FMT, STR_ARG(id)));
}
// A write was refused: ask before the next one.
static void lease_doubt(Ctx *c, str id) {
    Held *h = held_of(c, id);
    if (h) h->taken_ns = os_mono_ns(c->os) - lease_renew_ms(c->db) * 1000000;
}

// All that are due, at once; one that was lost is asked for when its deployment's turn comes.
static err leases_renew(Ctx *c) {
    MapEntry *e;
    size_t n = 0;
    int64_t now_ns = os_mono_ns(c->os), due_ns = now_ns - lease_renew_ms(c->db) * 1000000;
    Held **held = new (c->mem, Held *, mine.leases.live + 1);
    const Lease **leases = new (c->mem, const Lease *, mine.leases.live + 1);
    bool *ours = new (c->mem, bool, mine.leases.live + 1);
    for (size_t i = 0; map_each(&mine.leases, &i, &e);) {
        Held *h = e->value;
        if (h->taken_ns <= due_ns) held[n] = h, leases[n++] = &h->lease;
    }
    TRY(lease_renew(c, c->db, leases, n, lease_ttl_ms(c->db), ours));
    for (size_t i = 0; i < n; i++)
        if (ours[i]) held[i]->taken_ns = now_ns;
    return ERR_OK;
}

static void lease_let_go(Ctx *c, str object) {
    Held *h = map_del(&mine.leases, object);
    if (!h) return;
    if (lease_drop(c, c->db, &h->lease))
        log_at("deployment", LOG_DEBUG, c, "a lease was not dropped; it ends by itself");
    mem_free((char *)(uintptr_t)h->lease.object.p);
    mem_free(h);
}

void reconcile_close(App *app) {
    MapEntry *e;
    orphans_close();
    if (!mine.holder) return;
    Ctx *c = app_ctx_new(app);
    for (size_t i = 0; map_each(&mine.leases, &i, &e);) lease_let_go(c, e->key);
    app_ctx_free(c);
    map_done(&mine.leases);
    mine.holder = mem_free(mine.holder);
}

// ---- reading
static err load_page(Ctx *c, Tx *tx, void *arg) {
    Turn *t = arg;
    ListSpec spec = { .limit = LIST_MAX, .all_scopes = true };
    t->n = 0, t->all = NULL;
    do {
        ListPage page;
        TRY(res_list(c, tx, &deployment_resource, &spec, &page));
        size_t n = page.n;
        Deployment *grown = new (c->mem, Deployment, t->n + n + 1);
        if (t->n) memcpy(grown, t->all, t->n * sizeof *grown);
        if (n) memcpy(grown + t->n, page.rows, n * sizeof *grown);
        spec.cursor = page.cursor;
        t->all = grown, t->n += n;
    } while (spec.cursor.n);
    for (size_t i = 0; i < t->n; i++)
        for (size_t r = 0; r < t->all[i].replicas_status_n; r++) {
            ReplicaRow *row = &t->all[i].replicas_status[r];
            if (row->state < 0 || row->state >= AT_GONE)
                row->state = AT_WAITING; // of a newer release
        }
    return ERR_OK;
}

static err load_version(Ctx *c, Tx *tx, void *arg) {
    One *o = arg;
    return model_version(c, tx, o->d.model, &o->version);
}

static const char *failure_text(Ctx *c) {
    Buf b;
    buf_init(&b, 2000);
    failure_format(&c->failure, "en", &b);
    const char *text = arena_z(c->mem, buf_str(&b));
    buf_done(&b);
    return text;
}

static void wait_for_file(Ctx *c, One *o) {
    o->blocked = arena_printf(c->mem, STR_FMT ":" STR_FMT ": %s", STR_ARG(o->version.model),
                              STR_ARG(o->version.number), failure_text(c));
    for (size_t i = 0; i < o->n; i++)
        if (o->rows[i].state == AT_WAITING) o->rows[i].reason = o->blocked;
}

// Local copies of what its replicas map, and of what is about to be started, stay.
static void pin_files(Ctx *c, const One *o, str next) {
    str *digests = new (c->mem, str, o->n + 1);
    size_t n = 0;
    for (size_t i = 0; i < o->n; i++)
        if (o->rows[i].state != AT_WAITING && o->rows[i].digest.n) digests[n++] = o->rows[i].digest;
    if (next.n) digests[n++] = next;
    blobs_pin(app_of(c)->blobs, o->d.head.id, digests, n);
}

// An object in S3 is brought here first. Where nodes do not share their objects, another may have
// the model's files.
static void check_files(Ctx *c, One *o) {
    pin_files(c, o, o->version.digest);
    err e = object_local(c, o->version.digest, &o->version.path);
    o->misplaced = e == ERR_NOTFOUND;
    if (e && !o->misplaced) wait_for_file(c, o);
    if (!o->misplaced) return;
    o->blocked = arena_printf(c->mem,
                              "node " STR_FMT " does not have the files of " STR_FMT ":" STR_FMT
                              ": let all nodes share the folder of objects",
                              STR_ARG(app_of(c)->node), STR_ARG(o->version.model),
                              STR_ARG(o->version.number));
    for (size_t i = 0; i < o->n; i++)
        if (o->rows[i].state == AT_WAITING) o->rows[i].reason = o->blocked;
}

// The version matters when something may be started of it.
static err learn_version(Ctx *c, One *o) {
    Deployment *d = &o->d;
    if (!d->model.n) {
        serving_of(d, NULL, &d->serving);
        d->memory_needed = 0;
        return ERR_OK;
    }
    err e = db_read(c, c->db, load_version, o);
    o->has_version = !e;
    if (e == ERR_CONFLICT || e == ERR_NOTFOUND) {
        o->blocked = arena_printf(c->mem, "%s; it is served when it is ready", failure_text(c));
        return ERR_OK;
    }
    if (e) return e;
    if (engine_of(d)->launched) check_files(c, o);
    serving_of(d, &o->version, &d->serving);
    d->serves = arena_printf(c->mem, STR_FMT ":" STR_FMT, STR_ARG(o->version.model),
                             STR_ARG(o->version.number));
    d->memory_needed = memory_needed(&o->version, &d->serving, d->slots);
    return ERR_OK;
}

Policy policy_now(const Deployment *d) {
    enum { WINDOW_MS = 600000, WINDOW_EXITS = 5, HEALTHY_MS = 30000, QUIET_MS = 1000 };
    return (Policy){ .backoff_first_ms = setting_int(&deployment_settings[SET_BACKOFF_FIRST]),
                     .backoff_max_ms = setting_int(&deployment_settings[SET_BACKOFF_MAX]),
                     .window_ms = WINDOW_MS,
                     .window_exits = WINDOW_EXITS,
                     .healthy_ms = HEALTHY_MS,
                     .hung_ms = setting_int(&deployment_settings[SET_HUNG_AFTER]),
                     .quiet_ms = QUIET_MS,
                     .drain_ms = d->drain_ms,
                     .slow_ms = 2 * setting_int(&deployment_settings[SET_PROBE_TIMEOUT])
                                + setting_int(&deployment_settings[SET_PROBE_EVERY]) };
}

// ---- planning
static int64_t wished(const Deployment *d) {
    if (d->stopped || d->head.deleting_at) return 0;
    return engine_of(d)->launched || d->replicas < 1 ? d->replicas : 1;
}

static str memory_text(Ctx *c, int64_t needed, int64_t free_bytes) {
    return arena_printf(c->mem,
                        "one replica needs %lld bytes (" STR_FMT ") of memory, %lld (" STR_FMT
                        ") are available: free some, or "
                        "lower context, slots or replicas",
                        (long long)needed, STR_ARG(bytes_format(c->mem, needed)),
                        (long long)free_bytes, STR_ARG(bytes_format(c->mem, free_bytes)));
}

static Wish make_wish(Ctx *c, One *o) {
    Deployment *d = &o->d;
    Wish w = { .generation = d->rollout, .replicas = wished(d), .room = REPLICAS_MAX };
    if (o->blocked.n) w.room = 0;
    if (!engine_of(d)->launched || !w.replicas || o->blocked.n) return w;
    int64_t left =
        memory_free(&o->t->memory, setting_int(&deployment_settings[SET_MEMORY_RESERVE]));
    int64_t running = 0, unwanted_most = 0; // the latter: what ending one would free
    for (size_t i = 0; i < o->n; i++) {
        const ReplicaRow *r = &o->rows[i];
        bool wanted = r->generation == d->rollout && r->number < w.replicas;
        if (!wanted && r->memory_needed > unwanted_most) unwanted_most = r->memory_needed;
        if (wanted && r->state != AT_WAITING) running++;
    }
    bool missing = running < w.replicas;
    w.room = memory_room(left, d->memory_needed, REPLICAS_MAX);
    w.frees = !w.room && memory_room(left + unwanted_most, d->memory_needed, 1) > 0;
    if (!missing || w.room) return w;
    o->blocked = memory_text(c, d->memory_needed, left);
    d->memory_available = left;
    return w;
}

static ReplicaRow *new_row(Ctx *c, One *o, int64_t number) {
    if (o->n >= UNITS_MAX) return NULL;
    ReplicaRow *r = &o->rows[o->n];
    o->seen[o->n] = (Seen){ .look.launched = engine_of(&o->d)->launched };
    o->n++;
    *r = (ReplicaRow){
        .number = number, .generation = o->d.rollout, .state = AT_WAITING, .node = app_of(c)->node
    };
    r->id = arena_printf(c->mem, STR_FMT ".%lld.%lld", STR_ARG(o->d.head.id),
                         (long long)r->generation, (long long)number);
    Addr addr;
    if (engine_of(&o->d)->launched && !replica_socket(c, r->id, &addr))
        r->address = arena_str(c->mem, str_z(addr.text));
    return r;
}

static void start_row(Ctx *c, One *o, ReplicaRow *r) {
    const Deployment *d = &o->d;
    bool moved = o->seen[r - o->rows].look.left.n;
    Url url;
    r->context = d->serving.context, r->slots = d->slots, r->node = app_of(c)->node;
    r->memory_needed = d->memory_needed, r->memory_bytes = r->progress = r->next_at = 0;
    r->ready_at = r->started_at = 0;
    r->attached = !engine_of(d)->launched, r->refused = false;
    r->serves = d->serves, r->model = d->serving.model, r->version = d->serving.version;
    r->digest = d->serving.digest, r->upstream = upstream_of(d),
    r->engine = str_z(engine_of(d)->name);
    if (!r->window_exits && !moved) r->reason = (str){ 0 }; // else it says why it is started again
    if (r->attached && !endpoint_parse(c, &d->endpoint, &url)) {
        r->host = arena_str(c->mem, url.host_header),
        r->base_path = arena_str(c->mem, url.base_path);
        r->sealed_key = d->endpoint.api_key, r->manner = d->endpoint.manner;
        r->tls = url.tls;
    }
    replica_to(r, AT_STARTING, os_wall_ms(c->os));
    memory_add(&o->t->memory, r);
}

static void apply(Ctx *c, One *o, const Step *s) {
    int64_t now_ms = os_wall_ms(c->os);
    ReplicaRow *r = s->unit == PLAN_NEW ? new_row(c, o, s->number) : &o->rows[s->unit];
    o->t->again = true;
    if (!r) return;
    switch (s->what) {
    case DO_START: start_row(c, o, r); break;
    case DO_DRAIN: replica_to(r, AT_DRAINING, now_ms); break;
    case DO_UNDRAIN: replica_to(r, AT_READY, now_ms); break;
    case DO_END: replica_to(r, AT_ENDING, now_ms); break;
    case DO_DROP: replica_to(r, AT_GONE, now_ms); break;
    }
}

static void plan_one(Ctx *c, One *o) {
    Wish w = make_wish(c, o);
    Unit units[UNITS_MAX];
    Step *steps = new (c->mem, Step, STEPS_MAX);
    int64_t now_ms = os_wall_ms(c->os);
    for (size_t i = 0; i < o->n; i++) {
        const ReplicaRow *r = &o->rows[i];
        units[i] =
            (Unit){ r->generation, r->number, (ReplicaState)r->state, r->next_at <= now_ms,
                    !mine.unsynced && replica_may_end(r, &o->seen[i].look, &o->policy, now_ms) };
    }
    size_t n = plan(&w, units, o->n, steps);
    for (size_t i = 0; i < n; i++) apply(c, o, &steps[i]);
    one_settle(o);
}

// ---- writing
typedef struct Commit {
    const One *o;
    bool purge;
} Commit;

static err commit_tx(Ctx *c, Tx *tx, void *arg) {
    const Commit *commit = arg;
    const Deployment *d = &commit->o->d;
    Deployment now = { 0 };
    TRY(res_get(c, tx, &deployment_resource, d->head.id, &now));
    if (commit->purge) {
        TRY(lease_guard(c, tx, &commit->o->lease));
        return res_purge(c, tx, &deployment_resource, &now);
    }
    // The wish may have changed since it was read: only what is ours is written.
    now.state = d->state, now.state_reason = d->state_reason, now.node = d->node,
    now.ready_replicas = d->ready_replicas;
    now.memory_needed = d->memory_needed, now.memory_available = d->memory_available,
    now.serving = d->serving, now.serves = d->serves;
    now.replicas_status = d->replicas_status, now.replicas_status_n = d->replicas_status_n;
    now.head.conditions = d->head.conditions, now.head.conditions_n = d->head.conditions_n;
    now.head.observed_generation = d->head.observed_generation;
    return res_set_status(c, tx, &deployment_resource, &now, &commit->o->lease);
}

static const Field *status_rows(void) { return deployment_resource.fields; }

static bool routes_differ(const Deployment *a, const Deployment *b) {
    if (a->replicas_status_n != b->replicas_status_n) return true;
    for (size_t i = 0; i < a->replicas_status_n; i++) {
        const ReplicaRow *x = &a->replicas_status[i], *y = &b->replicas_status[i];
        if (!str_eq(x->id, y->id) || x->state != y->state || !str_eq(x->address, y->address))
            return true;
    }
    return false;
}

static void log_change(Ctx *c, const One *o) {
    if (o->d.state == o->was->state) return;
    bool bad = o->d.state == DEP_CRASH_LOOP || o->d.state == DEP_FAILED;
    log_at("deployment", bad ? LOG_WARN : LOG_INFO, c, deployment_states[o->d.state], "deployment",
           say_str(c, o->d.head.name), "id", say_str(c, o->d.head.id), "why",
           say_str(c, o->d.state_reason));
}

// Before an old replica is told to end, nobody may be sent to it any more.
static err tell_routes(Ctx *c) {
    if (!mine.unsynced) return ERR_OK;
    TRY(snapshot_sync(c));
    mine.unsynced = false;
    return ERR_OK;
}

static err commit(Ctx *c, One *o) {
    Deployment *d = &o->d;
    d->replicas_status = o->rows, d->replicas_status_n = o->n;
    d->node = app_of(c)->node;
    view_update(c, d, &o->policy, o->blocked);
    bool same = fields_equal(status_rows(), o->was, d, false)
                && o->was->head.observed_generation == d->head.observed_generation;
    if (same) return tell_routes(c);
    Commit what = { .o = o };
    bool routes = routes_differ(o->was, d);
    mine.unsynced = mine.unsynced || routes;
    TRY(db_tx(c, c->db, commit_tx, &what));
    log_change(c, o);
    o->t->again = o->t->again || routes;
    if (!mine.unsynced) snapshot_wake(app_of(c));
    return tell_routes(c);
}

static err purge(Ctx *c, One *o) {
    Commit what = { .o = o, .purge = true };
    str object = o->lease.object;
    TRY(db_tx(c, c->db, commit_tx, &what));
    snapshot_wake(app_of(c));
    blobs_pin(app_of(c)->blobs, o->d.head.id, NULL, 0);
    lease_let_go(c, object);
    return ERR_OK;
}

// ---- one deployment
static void open_one(Ctx *c, Turn *t, const Deployment *d, One *o) {
    *o = (One){ .t = t, .d = *d, .was = d, .policy = policy_now(d) };
    o->rows = new (c->mem, ReplicaRow, UNITS_MAX);
    o->seen = new (c->mem, Seen, UNITS_MAX);
    o->gone = new (c->mem, const ChildView *, UNITS_MAX);
    o->n = d->replicas_status_n < UNITS_MAX ? d->replicas_status_n : UNITS_MAX;
    if (o->n) memcpy(o->rows, d->replicas_status, o->n * sizeof *o->rows);
    if (d->head.conditions_n) { // condition_set changes them in place
        o->d.head.conditions = new (c->mem, Condition, d->head.conditions_n);
        memcpy(o->d.head.conditions, d->head.conditions,
               d->head.conditions_n * sizeof *d->head.conditions);
    }
    c->org = d->head.org, c->project = d->head.project;
}

// Nothing changes here by itself but what children and probes tell.
static bool at_rest(const One *o) {
    const Deployment *d = &o->d;
    if (d->head.observed_generation != d->head.generation || d->serving.generation != d->rollout)
        return false;
    if ((int64_t)o->n != wished(d)) return false;
    for (size_t i = 0; i < o->n; i++)
        if (o->rows[i].state != AT_READY || o->rows[i].generation != d->rollout) return false;
    return true;
}

static bool runs_none(const One *o) {
    for (size_t i = 0; i < o->n; i++)
        if (o->rows[i].state != AT_WAITING) return false;
    return true;
}

// What ran here ends. Should the other die, its lease's end is the moment to look.
static void left_to_another(Ctx *c, Turn *t, str id) {
    int64_t left_ms = c->failure.retry_after_ms + 1;
    map_del(&t->known, id);
    blobs_pin(app_of(c)->blobs, id, NULL, 0);
    if (left_ms > 1 && left_ms < t->look_ms) t->look_ms = left_ms;
}

static err reconcile_one(Ctx *c, Turn *t, const Deployment *d) {
    One *o = new (c->mem, One, 1);
    open_one(c, t, d, o);
    err e = lease_ours(c, d->head.id, &o->lease);
    if (e == ERR_CONFLICT) left_to_another(c, t, d->head.id);
    if (e) return e == ERR_CONFLICT ? ERR_OK : e;
    one_observe(c, o);
    one_settle(o);
    pin_files(c, o, (str){ 0 });
    if (!at_rest(o)) {
        t->busy = t->busy || wished(d) || o->n || d->head.deleting_at;
        if (wished(d)) TRY(learn_version(c, o));
        plan_one(c, o);
    }
    if (d->head.deleting_at && !o->n && !o->gone_n) return purge(c, o);
    TRY(commit(c, o));
    if (one_act(c, o)) TRY(commit(c, o));
    one_probe(c, o);
    if (o->misplaced && runs_none(o)) lease_let_go(c, o->lease.object);
    return ERR_OK;
}

// ---- all of them
static bool keep_probe(void *arg, str id) { return map_get(&((Turn *)arg)->probed, id); }

static void measure(const Turn *t) {
    int64_t by[AT_GONE] = { 0 }, held = 0, bytes = 0;
    for (size_t i = 0; i < t->n; i++)
        for (size_t r = 0; r < t->all[i].replicas_status_n; r++) {
            const ReplicaRow *row = &t->all[i].replicas_status[r];
            by[row->state]++;
            if (row->state == AT_WAITING) continue;
            held += row->memory_needed > 0 ? row->memory_needed : 0,
                bytes += row->memory_bytes > 0 ? row->memory_bytes : 0;
        }
    for (int s = 0; s < AT_GONE; s++)
        metric_set(&metric_replicas, (double)by[s], str_z(replica_states[s]));
    metric_set(&metric_memory, (double)bytes, S("held")),
        metric_set(&metric_memory, (double)held, S("needed"));
}

static err open_turn(Ctx *c, Turn *t) {
    TRY(db_read(c, c->db, load_page, t));
    TRY(executor_list(c, app_of(c)->executor, &t->children, &t->children_n));
    OsFacts facts;
    os_facts(c->os, &facts);
    t->memory = (Memory){ .total = facts.memory_bytes, .available = facts.memory_available_bytes };
    for (size_t i = 0; i < t->n; i++) {
        map_set(&t->known, t->all[i].head.id, &t->all[i]);
        for (size_t r = 0; r < t->all[i].replicas_status_n; r++)
            if (str_eq(t->all[i].replicas_status[r].node, app_of(c)->node))
                memory_add(&t->memory, &t->all[i].replicas_status[r]);
    }
    measure(t);
    return ERR_OK;
}

static err run_turn(Ctx *c, Turn *t) {
    TRY(leases_renew(c));
    TRY(open_turn(c, t));
    err first = ERR_OK;
    for (size_t i = 0; i < t->n && !ctx_cancelled(c); i++) {
        const Deployment *d = &t->all[i];
        if (d->engine < 0) continue;    // of a newer release
        err e = reconcile_one(c, t, d); // one that fails must not hold up the others
        if (!e) continue;
        if (!first) first = e;
        if (e == ERR_LOST) lease_doubt(c, d->head.id);
        for (size_t r = 0; r < d->replicas_status_n; r++)
            map_set(&t->probed, d->replicas_status[r].id, t);
    }
    if (ctx_cancelled(c)) return ERR_CANCELLED; // not all were looked at: nothing ends for it
    orphans_end(c, t);
    probes_keep(keep_probe, t);
    return first;
}

err reconcile(Ctx *c, Pace *out) {
    open_leases(c);
    Turn t = { .opened_ms = mine.opened_ms, .look_ms = LOOK_MS };
    map_init(&t.known, 1), map_init(&t.probed, 2);
    err e = run_turn(c, &t);
    if (e == ERR_UNAVAILABLE) mine.answered_ns = 0;
    else if (!mine.answered_ns) mine.answered_ns = os_mono_ns(c->os);
    map_done(&t.known), map_done(&t.probed);
    bool shared = t.n && db_shared(c->db); // leases are renewed and watched
    *out = (Pace){ .again = t.again && !e, .busy = t.busy || shared, .look_ms = t.look_ms };
    return e;
}
