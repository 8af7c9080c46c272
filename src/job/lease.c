// SPDX-License-Identifier: Apache-2.0
// lease.c - see lease.h. The row stays for ever, so that its epoch only grows. On PostgreSQL both
// taking and guarding lock it: a guard that passed holds off the next holder until its transaction
// has committed. SQLite has one writer.
#include "job/lease.h"
#include "job/reason.h"
#include <assert.h>

static const Migration migrations[] = {
    { 1,
      "CREATE TABLE lease (object TEXT PRIMARY KEY, holder TEXT NOT NULL, epoch INTEGER NOT NULL,"
      " until_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;",
      NULL },
};

#define LEASE_OF "SELECT holder, epoch, until_ms FROM lease WHERE object = $1"
#define LEASE_OURS "SELECT epoch FROM lease WHERE object = $1 AND holder = $2 AND epoch = $3"
static const Sql lease_of = { "lease_of", LEASE_OF, LEASE_OF " FOR UPDATE" };
static const Sql lease_ours = { "lease_ours", LEASE_OURS, LEASE_OURS " FOR SHARE" };
static SQL(lease_add, "INSERT INTO lease (object, holder, epoch, until_ms) VALUES ($1, $2, 1, $3)");
static SQL(lease_set, "UPDATE lease SET holder = $2, epoch = $3, until_ms = $4 WHERE object = $1");
static SQL(lease_extend, "UPDATE lease SET until_ms = $4"
                         " WHERE object = $1 AND holder = $2 AND epoch = $3");
static SQL(lease_end, "UPDATE lease SET holder = '', until_ms = 0"
                      " WHERE object = $1 AND holder = $2 AND epoch = $3");

int64_t lease_ttl_ms(Db *db) { return db_shared(db) ? 3000 : 15000; }
int64_t lease_renew_ms(Db *db) { return db_shared(db) ? 800 : 5000; }

err lease_migrate(Ctx *c, Db *db) {
    return db_migrate(c, db, "lease", migrations, countof(migrations));
}

typedef struct Take {
    str object, holder;
    int64_t ttl_ms;
    bool free_only;
    Lease out;
} Take;

static err held(Ctx *c, const Take *t, str holder, int64_t left_ms) {
    err e = fail(c, ERR_CONFLICT, R_LEASE_HELD, "object", say_str(c, t->object), "holder",
                 say_str(c, holder), "ms", say(c, "%lld", (long long)left_ms));
    c->failure.retry_after_ms = left_ms;
    return e;
}

static err take(Ctx *c, Tx *tx, void *arg) {
    Take *t = arg;
    Rows *r;
    bool any;
    int64_t now_ms = tx_now_ms(tx), until_ms = now_ms + t->ttl_ms;
    t->out = (Lease){ t->object, t->holder, 1, until_ms };
    TRY(db_ask(c, tx, &r, &lease_of, V(t->object)));
    TRY(rows_next(c, r, &any));
    if (!any) return db_run(c, tx, &lease_add, V(t->object), V(t->holder), V(until_ms));
    str holder = col_str(r, 0);
    int64_t epoch = col_int(r, 1), held_until_ms = col_int(r, 2);
    rows_close(r);
    bool ours = str_eq(holder, t->holder);
    int64_t left_ms = held_until_ms > now_ms ? held_until_ms - now_ms : 0;
    if (!ours && (left_ms || (t->free_only && holder.n))) return held(c, t, holder, left_ms);
    t->out.epoch = ours ? epoch : epoch + 1;
    return db_run(c, tx, &lease_set, V(t->object), V(t->holder), V(t->out.epoch), V(until_ms));
}

static err take_as(Ctx *c, Db *db, Take *t, Lease *out) {
    assert(t->object.n && t->holder.n && t->ttl_ms > 0);
    t->object = arena_str(c->mem, t->object), t->holder = arena_str(c->mem, t->holder);
    TRY(db_tx(c, db, take, t));
    *out = t->out;
    return ERR_OK;
}

err lease_take(Ctx *c, Db *db, str object, str holder, int64_t ttl_ms, Lease *out) {
    Take t = { .object = object, .holder = holder, .ttl_ms = ttl_ms };
    return take_as(c, db, &t, out);
}

err lease_take_free(Ctx *c, Db *db, str object, str holder, int64_t ttl_ms, Lease *out) {
    Take t = { .object = object, .holder = holder, .ttl_ms = ttl_ms, .free_only = true };
    return take_as(c, db, &t, out);
}

typedef struct Renew {
    const Lease *const *held;
    size_t n;
    int64_t ttl_ms;
    bool *ours;
} Renew;

static err renew(Ctx *c, Tx *tx, void *arg) {
    const Renew *r = arg;
    int64_t until_ms = tx_now_ms(tx) + r->ttl_ms, changed;
    for (size_t i = 0; i < r->n; i++) {
        const Lease *l = r->held[i];
        Val args[] = { V(l->object), V(l->holder), V(l->epoch), V(until_ms) };
        TRY(db_exec(c, tx, &lease_extend, args, countof(args), &changed));
        r->ours[i] = changed == 1;
    }
    return ERR_OK;
}

err lease_renew(Ctx *c, Db *db, const Lease *const *held, size_t n, int64_t ttl_ms,
                bool *out_ours) {
    assert(ttl_ms > 0);
    Renew r = { held, n, ttl_ms, out_ours };
    return n ? db_tx(c, db, renew, &r) : ERR_OK;
}

err lease_guard(Ctx *c, Tx *tx, const Lease *l) {
    Rows *r;
    bool ours;
    TRY(db_ask(c, tx, &r, &lease_ours, V(l->object), V(l->holder), V(l->epoch)));
    TRY(rows_next(c, r, &ours));
    rows_close(r);
    if (ours) return ERR_OK;
    return fail(c, ERR_LOST, R_LEASE_LOST, "object", say_str(c, l->object));
}

static err drop(Ctx *c, Tx *tx, void *arg) {
    const Lease *l = arg;
    return db_run(c, tx, &lease_end, V(l->object), V(l->holder), V(l->epoch));
}

err lease_drop(Ctx *c, Db *db, const Lease *l) { return db_tx(c, db, drop, (void *)l); }
