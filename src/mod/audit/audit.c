// SPDX-License-Identifier: Apache-2.0
// audit.c - descriptor; entries of changes; the record of inferences. Refusals are denial.c, chains
// chain.c, proof is verify.c and checkpoint.c.
#include "mod/audit/audit_own.h"
#include "base/map.h"
#include "base/time.h"
#include <assert.h>

extern const Reason *const audit_reasons[];
enum { EVERY_MS = 1000 };

// ---- entries
err audit_add(Ctx *c, Tx *tx, const AuditEntry *e) {
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

static struct { Worker *denials, *checkpoints; } workers;

static err audit_init(Ctx *c) {
    App *app = app_of(c);
    app->audit = audit_add, app->audit_denied = denial_note;
    denial_reset();
    return checkpoint_open(c);
}

static err audit_start(Ctx *c) {
    workers.denials = worker_start(app_of(c), "audit", EVERY_MS, denial_turn, NULL);
    workers.checkpoints = worker_start(app_of(c), "checkpoint", EVERY_MS, checkpoint_write, NULL);
    denial_writer(workers.denials);
    return ERR_OK;
}

static void audit_stop(void *app) {
    denial_writer(NULL);
    worker_free(workers.denials), worker_free(workers.checkpoints);
    workers.denials = workers.checkpoints = NULL;
    Ctx *c = app_ctx_new(app);
    if (denial_flush(c, true) || checkpoint_write(c, NULL)) {
    } // a database that is away: the next start goes on
    app_ctx_free(c);
}

const Module audit_module = {
    .name = "audit",
    .needs = "",
    .resources = resources,
    .routes = routes,
    .migrations = audit_migrations,
    .migrations_n = 2,
    .reasons = audit_reasons,
    .verbs = audit_verbs,
    .init = audit_init,
    .start = audit_start,
    .stop = audit_stop,
    .en = "Who did what, in chains that tell when they were touched",
    .zh = "审计：可自证未被篡改的操作链",
};
