// SPDX-License-Identifier: Apache-2.0
// lease.h - a row with a fencing epoch and database time: one actor for each reconciled object, the same on SQLite and PostgreSQL.
// Every write of the holder goes through lease_guard in its transaction, so a stalled holder whose lease was taken can change nothing.
#ifndef LATHE_JOB_LEASE_H
#define LATHE_JOB_LEASE_H
#include "db/db.h"

typedef struct Lease { str object, holder; int64_t epoch, until_ms; } Lease;
// Takes a free or expired lease, or renews one's own. ERR_CONFLICT with R_LEASE_HELD when another holds it. The epoch grows when the holder changes.
err lease_take(Ctx *c, Db *db, str object, str holder, int64_t ttl_ms, Lease *out);
err lease_guard(Ctx *c, Tx *tx, const Lease *l);             // ERR_LOST with R_LEASE_LOST unless it is still ours, in this transaction
err lease_drop(Ctx *c, Db *db, const Lease *l);              // lets the next one in at once
#endif
