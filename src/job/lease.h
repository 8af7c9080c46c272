// SPDX-License-Identifier: Apache-2.0
// lease.h - a row with a fencing epoch and database time: one actor for each reconciled object, the
// same on SQLite and PostgreSQL. Every write of the holder goes through lease_guard in its
// transaction, so a stalled holder whose lease was taken can change nothing.
// A holder names one life of a process ("node-1:x7f…"): after a restart it is another.
// Ownership: strings of an out Lease live in c->mem. Threads: any, blocking.
#ifndef LATHE_JOB_LEASE_H
#define LATHE_JOB_LEASE_H
#include "db/db.h"

typedef struct Lease {
    str object, holder;
    int64_t epoch, until_ms; // until: by the database's clock
} Lease;
// How long a lease lasts that nobody renews, and how often its holder does. With PostgreSQL another
// node goes on within seconds of a death; with SQLite there is none, and writes would be for
// nothing.
int64_t lease_ttl_ms(Db *db);
int64_t lease_renew_ms(Db *db);
err lease_migrate(Ctx *c, Db *db); // makes the table; jobs_open calls it too
// Takes a free or expired lease, or renews one's own. ERR_CONFLICT with R_LEASE_HELD when another
// holds it. The epoch grows whenever the holder changes, also after lease_drop.
err lease_take(Ctx *c, Db *db, str object, str holder, int64_t ttl_ms, Lease *out);
// As lease_take, but what another let expire stays its own. For who has only just reached the
// database again: the other may have been cut off as well, and comes back to what it runs.
err lease_take_free(Ctx *c, Db *db, str object, str holder, int64_t ttl_ms, Lease *out);
// Renews many in one transaction. out_ours[i] false: another's by now.
err lease_renew(Ctx *c, Db *db, const Lease *const *held, size_t n, int64_t ttl_ms, bool *out_ours);
// ERR_LOST with R_LEASE_LOST unless it is still ours, in this transaction. One that has expired and
// that nobody took is still ours.
err lease_guard(Ctx *c, Tx *tx, const Lease *l);
err lease_drop(Ctx *c, Db *db, const Lease *l); // lets the next one in at once; not ours: nothing
#endif
