// SPDX-License-Identifier: Apache-2.0
// audit.c - descriptor; entries of changes and denials; the record of inferences. Chains are
// chain.c, proof is verify.c and checkpoint.c.
#include "mod/audit/audit_own.h"
#include "base/map.h"
#include "base/time.h"
#include "res/worker.h"
#include <assert.h>

extern const Reason *const audit_reasons[];

// ---- entries
static err audit(Ctx *c, Tx *tx, const AuditEntry *e) {
    const Identity *who = c->who;
    ChainId chain = e->scope == SCOPE_PROJECT && c->project.n ? CHAIN_PROJECT
                    : e->scope != SCOPE_SYSTEM && c->org.n    ? CHAIN_ORG
                                                              : CHAIN_SYSTEM;
    ChainRow row = { .created_by = who ? who->id : (str){ 0 },
                     .v = { V(0), V(os_wall_ms(c->os)), V(who ? who->id : (str){ 0 }),
                            V(who ? who->name : (str){ 0 }), V(who ? who->key_id : (str){ 0 }),
                            V(e->verb), V(e->kind), V(e->id), V(e->name), V(e->permission),
                            V(c->request_id), V(e->change) } };
    return chain_add(c, tx, chain, &row, 1);
}

static ChainRow inference_row(Ctx *c, const InferenceAudit *a) {
    return (ChainRow){ .created_by = c->who ? c->who->id : (str){ 0 },
                       .v = { V(0), V(a->at_ms), V(a->request_id), V(a->key_id), V(a->owner),
                              V(a->model), V(a->version), V(a->model_digest), V(a->deployment),
                              V(a->prompt_digest), V(a->answer_digest), V(a->client_ip),
                              V(a->operation), V(a->outcome), V(a->error_reason), V(a->status),
                              V(a->prompt_tokens), V(a->completion_tokens) } };
}

// Those of one project, in their order, behind `from`.
static err add_inferences(Ctx *c, Tx *tx, const InferenceAudit *a, size_t n, size_t from) {
    ChainRow *rows = new (c->mem, ChainRow, n - from);
    size_t rows_n = 0;
    for (size_t i = from; i < n; i++)
        if (str_eq(a[i].project, a[from].project)) rows[rows_n++] = inference_row(c, &a[i]);
    str org = c->org, project = c->project;
    c->org = a[from].org, c->project = a[from].project;
    err e = chain_add(c, tx, CHAIN_INFERENCE, rows, rows_n);
    c->org = org, c->project = project;
    return e;
}

err audit_inferences(Ctx *c, Tx *tx, const InferenceAudit *a, size_t n) {
    Map done;
    err e = ERR_OK;
    map_init(&done, 0x61756469);
    for (size_t i = 0; i < n && !e; i++)
        if (!map_set(&done, a[i].project, &done)) e = add_inferences(c, tx, a, n, i);
    map_done(&done);
    return e;
}

// ---- denials: counted, and written at growing distances while they go on, so that ten thousand of
// them a second for a day are some thousand rows
enum { DENIALS_MAX = 1000, EVERY_MS = 1000, FARTHEST_MS = 60000, REST_MS = 60000 };
typedef struct Denial {
    str key, org, project, who, who_name, permission, target;
    int64_t n, due_ms, wait_ms; // n since it was last written; when it may be again, and how far on
    Scope scope;
} Denial;
static struct {
    pthread_mutex_t lock;
    Map seen; // by key: project, who and permission
    Arena *mem;
    Worker *writer, *checkpoints;
} denials = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void denials_reset(void) {
    denials.mem = arena_new();
    map_init(&denials.seen, 0x64656e);
}

static Denial *denial_copy(Arena *mem, const Denial *from) {
    Denial *d = new (mem, Denial, 1);
    *d = *from;
    str *texts[] = { &d->key,      &d->org,        &d->project, &d->who,
                     &d->who_name, &d->permission, &d->target };
    for (size_t i = 0; i < countof(texts); i++) *texts[i] = arena_str(mem, *texts[i]);
    return d;
}

static Denial *denial_keep(const Denial *from) {
    Denial *d = denial_copy(denials.mem, from);
    map_set(&denials.seen, d->key, d);
    return d;
}

// Beyond the most there is one for all others, in the system's chain: they are of many places.
static Denial *denial_of(Ctx *c, str who, const char *permission) {
    Denial made = { .org = c->org,
                    .project = c->project,
                    .who = who,
                    .who_name = c->who ? c->who->name : S("nobody"),
                    .permission = str_z(permission),
                    .scope = c->project.n ? SCOPE_PROJECT
                             : c->org.n   ? SCOPE_ORG
                                          : SCOPE_SYSTEM };
    made.key = arena_printf(c->mem, STR_FMT "/" STR_FMT "/%s", STR_ARG(c->project), STR_ARG(who),
                            permission);
    Denial *d = map_get(&denials.seen, made.key);
    if (!d && denials.seen.live >= DENIALS_MAX) {
        str others = S("others");
        made =
            (Denial){ others, { 0 }, { 0 }, others, others, others, { 0 }, .scope = SCOPE_SYSTEM };
        d = map_get(&denials.seen, others);
    }
    return d ? d : denial_keep(&made);
}

static void audit_denied(Ctx *c, const char *permission, str target) {
    pthread_mutex_lock(&denials.lock);
    Denial *d = denial_of(c, c->who ? c->who->id : S("nobody"), permission);
    if (!d->n++) d->target = arena_str(denials.mem, str_sub(target, 0, 200));
    pthread_mutex_unlock(&denials.lock);
    worker_nudge(denials.writer);
}

typedef struct Due {
    Denial *at;
    size_t n;
} Due;

static err write_denials(Ctx *c, Tx *tx, void *arg) {
    const Due *due = arg;
    for (size_t i = 0; i < due->n; i++) {
        const Denial *d = &due->at[i];
        Identity who = { .id = d->who, .name = d->who_name };
        c->org = d->org, c->project = d->project, c->who = &who;
        Buf b;
        buf_init(&b, 4096);
        Json j = json_to(&b);
        json_obj(&j), json_kv_i64(&j, "count", d->n), json_kv_str(&j, "first_target", d->target),
            json_end_obj(&j);
        AuditEntry entry = { "denied", "permission",  { 0 },
                             { 0 },    d->permission, arena_str(c->mem, buf_str(&b)),
                             d->scope };
        buf_done(&b);
        err failed = audit(c, tx, &entry);
        c->who = &identity_system;
        if (failed) return failed;
    }
    return ERR_OK;
}

// What is to be written now, in c->mem; it counts anew from here on. What may be written and has
// nothing to say is forgotten, and its memory given back by moving what stays.
static Due denials_take(Ctx *c, bool all) {
    int64_t now_ms = os_mono_ns(c->os) / 1000000;
    Map was = denials.seen;
    Arena *mem = denials.mem;
    Due due = { new (c->mem, Denial, was.live + 1), 0 };
    MapEntry *e;
    denials_reset();
    for (size_t i = 0; map_each(&was, &i, &e);) {
        Denial *d = denial_copy(c->mem, e->value);
        bool now = all || now_ms >= d->due_ms;
        if (now && !d->n) continue;
        if (now) {
            due.at[due.n++] = *d;
            d->wait_ms = d->wait_ms ? d->wait_ms * 2 : EVERY_MS;
            if (d->wait_ms > FARTHEST_MS) d->wait_ms = FARTHEST_MS;
            d->n = 0, d->target = (str){ 0 }, d->due_ms = now_ms + d->wait_ms;
        }
        denial_keep(d);
    }
    map_done(&was);
    arena_free(mem);
    return due;
}

// What could not be written is counted on.
static void denials_back(const Due *due) {
    for (size_t i = 0; i < due->n; i++) {
        Denial *d = map_get(&denials.seen, due->at[i].key);
        if (!d) d = denial_keep(&(Denial){ .key = due->at[i].key });
        int64_t more = d->n;
        *d = *denial_copy(denials.mem, &due->at[i]);
        d->n += more;
    }
}

static err flush_denials(Ctx *c, bool all) {
    pthread_mutex_lock(&denials.lock);
    Due due = { 0 };
    if (denials.seen.live) due = denials_take(c, all);
    pthread_mutex_unlock(&denials.lock);
    err e = due.n ? db_tx(c, c->db, write_denials, &due) : ERR_OK;
    if (!e) return ERR_OK;
    pthread_mutex_lock(&denials.lock);
    denials_back(&due);
    pthread_mutex_unlock(&denials.lock);
    return e;
}

// The next denial after a time without any wakes it; those that follow wait for the next turn.
static err denials_turn(Ctx *c, void *unused) {
    (void)unused;
    worker_pace(REST_MS);
    pthread_mutex_lock(&denials.lock);
    bool any = denials.seen.live;
    pthread_mutex_unlock(&denials.lock);
    if (any) worker_pace(EVERY_MS);
    return flush_denials(c, false);
}

// ---- GET /lathe/v1/audit/verify
static err serve_verify(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    str json;
    (void)r, (void)body;
    TRY(audit_report(c, &json));
    buf_add(&out->body, json);
    return ERR_OK;
}

// clang-format off
static const Route routes[] = {
    { HTTP_GET, "/lathe/v1/audit/verify", ROUTE_SYSTEM, "audit.verify", serve_verify,
        .cli = "audit verify", .timeout_ms = 600000,
      .en = "Prove every audit chain: no row changed, missing or cut off",
          .zh = "校验所有审计链：无篡改、无缺失、无截断" },
    { 0 }
};
// clang-format on
static const Resource *const resources[] = { &audit_entry_resource, &org_audit_entry_resource,
                                             &system_audit_entry_resource,
                                             &inference_audit_resource, NULL };

static err audit_init(Ctx *c) {
    App *app = app_of(c);
    app->audit = audit, app->audit_denied = audit_denied;
    denials_reset();
    return checkpoint_open(c);
}

static err audit_start(Ctx *c) {
    denials.writer = worker_start(app_of(c), "audit", EVERY_MS, denials_turn, NULL);
    denials.checkpoints = worker_start(app_of(c), "checkpoint", EVERY_MS, checkpoint_write, NULL);
    return ERR_OK;
}

static void audit_stop(void *app) {
    worker_free(denials.writer), worker_free(denials.checkpoints);
    denials.writer = denials.checkpoints = NULL;
    Ctx *c = app_ctx_new(app);
    if (flush_denials(c, true) || checkpoint_write(c, NULL)) {
    } // a database that is away: the next start goes on
    app_ctx_free(c);
}

const Module audit_module = {
    .name = "audit",
    .needs = "",
    .resources = resources,
    .routes = routes,
    .migrations = audit_migrations,
    .migrations_n = 1,
    .reasons = audit_reasons,
    .verbs = audit_verbs,
    .init = audit_init,
    .start = audit_start,
    .stop = audit_stop,
    .en = "Who did what, in chains that tell when they were touched",
    .zh = "审计：可自证未被篡改的操作链",
};
