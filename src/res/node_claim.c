// SPDX-License-Identifier: Apache-2.0
// node_claim.c - see node_claim.h. Two servers of one name on one database (a folder that was
// copied, serve.node in a file that both read) would share leases, the place up to which the
// journal is folded, and each other's open requests: answers would be lost from the ledger without
// a word. So the name is a lease. Its holder is this folder on this boot of this machine: the
// folder's lock proves that an earlier life of it is over, which need not be waited for.
// Threads: a worker renews it.
#include "res/node_claim.h"
#include "os/terminal.h"
#include "os/thread.h"
#include "res/database.h"
#include "res/resource.h"
#include "res/worker.h"

enum { HOLDER_MAX = 160, LOOK_MS = 100, MORE_MS = 1500 };

static struct {
    Worker *keeper;
    char object[160], holder[HOLDER_MAX];
    int64_t epoch; // 0: not ours
} claim;

// A copy of the folder has its mark, and another path, or lies on another machine.
static err folder_mark(Ctx *c, str *out) {
    str path = arena_printf(c->mem, STR_FMT "/folder", STR_ARG(app_of(c)->data_dir));
    err e = file_read_all(c, path, 100, out);
    if (e != ERR_NOTFOUND) return e;
    *out = os_id(c, "folder");
    return file_write_all(c, path, *out, FILE_PRIVATE);
}

static err names_make(Ctx *c) {
    str mark, at = os_path_absolute(c, app_of(c)->data_dir);
    OsFacts facts;
    os_facts(c->os, &facts);
    TRY(folder_mark(c, &mark));
    snprintf(claim.holder, sizeof claim.holder, STR_FMT "/%016llx/%s", STR_ARG(mark),
             (unsigned long long)str_hash(at), facts.boot);
    snprintf(claim.object, sizeof claim.object, "node/" STR_FMT, STR_ARG(app_of(c)->node));
    return ERR_OK;
}

static err take(Ctx *c) {
    Lease l;
    TRY(lease_take(c, c->db, str_z(claim.object), str_z(claim.holder), lease_ttl_ms(c->db), &l));
    claim.epoch = l.epoch;
    return ERR_OK;
}

static err taken(Ctx *c) {
    err e = fail(c, ERR_CONFLICT, R_NODE_TAKEN, "node", say_str(c, app_of(c)->node));
    c->failure.retry_after_ms = lease_ttl_ms(c->db);
    return e;
}

static err keep(Ctx *c, void *unused) {
    (void)unused;
    err e = take(c);
    return e == ERR_CONFLICT ? taken(c) : e;
}

// Who died on another boot or in another folder holds it for as long as a lease lasts.
static err take_within(Ctx *c) {
    int64_t end_ns = os_mono_ns(c->os) + (lease_ttl_ms(c->db) + MORE_MS) * INT64_C(1000000);
    err e;
    while ((e = take(c)) == ERR_CONFLICT && os_mono_ns(c->os) < end_ns)
        thread_pause(c->os, LOOK_MS * INT64_C(1000000));
    return e == ERR_CONFLICT ? taken(c) : e;
}

err node_claim(Ctx *c) {
    if (!db_shared(c->db)) return ERR_OK;
    claim.epoch = 0;
    TRY(names_make(c));
    err e = database_awaited() ? ERR_UNAVAILABLE : take_within(c);
    if (e && e != ERR_UNAVAILABLE) return e;
    c->failure = (Failure){ 0 };
    claim.keeper = worker_start(app_of(c), "node", lease_renew_ms(c->db), keep, NULL);
    return ERR_OK;
}

void node_claim_end(App *app) {
    if (!claim.keeper) return;
    worker_free(claim.keeper);
    claim.keeper = NULL;
    Ctx *c = app_ctx_new(app);
    Lease l = { str_z(claim.object), str_z(claim.holder), claim.epoch, 0 };
    c->deadline_ns = os_mono_ns(c->os) + 2000 * INT64_C(1000000);
    if (claim.epoch && lease_drop(c, c->db, &l)) {} // then it runs out by itself
    app_ctx_free(c);
}
