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
err lease_migrate(Ctx *c, Db *db); // makes the table; jobs_open calls it too
// Takes a free or expired lease, or renews one's own. ERR_CONFLICT with R_LEASE_HELD when another
// holds it. The epoch grows whenever the holder changes, also after lease_drop.
err lease_take(Ctx *c, Db *db, str object, str holder, int64_t ttl_ms, Lease *out);
// ERR_LOST with R_LEASE_LOST unless it is still ours, in this transaction. One that has expired and
// that nobody took is still ours.
err lease_guard(Ctx *c, Tx *tx, const Lease *l);
err lease_drop(Ctx *c, Db *db, const Lease *l); // lets the next one in at once; not ours: nothing
#endif
