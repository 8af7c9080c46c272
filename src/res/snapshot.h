// SPDX-License-Identifier: Apache-2.0
// snapshot.h - what the request path knows: one immutable picture of keys, deployments, prices and
// policies, swapped atomically for each committed change and kept on disk, so that requests are
// served while SQL is away (setting gateway.stale_max). A module brings a part: `query` writes its
// rows as one JSON value in a read transaction; `compile` turns that value into what its readers
// want, in the snapshot's arena. Only JSON that differs is compiled again into a new snapshot.
// Built by a thread of its own, woken by snapshot_wake (resources' notify hooks), and by a look at
// the database's version twice a second, so a change made on another node arrives within a second.
// A part of very many rows says what a change is of (`changes`, `apply`): then it is read whole at
// the start and now and then only (at most a hundredth of the time), and what is between comes from
// the log of changed resources, which res/ writes in each change's own transaction.
// Threads: readers anywhere.
#ifndef LATHE_RES_SNAPSHOT_H
#define LATHE_RES_SNAPSHOT_H
#include "base/json.h"
#include "db/db.h"

typedef struct Snapshot Snapshot;
typedef struct SnapshotChange {
    str kind, id; // of a resource with RES_IN_SNAPSHOT; its row may be gone
} SnapshotChange;
typedef struct SnapshotPart {
    const char *name;                        // "keys"
    err (*query)(Ctx *c, Tx *tx, Json *out); // all tenants; one JSON value
    err (*compile)(Ctx *c, Arena *mem, yyjson_val *in,
                   void **out); // must accept what an older release wrote, or fail
    // Both or neither. What became of these, each named once, as one JSON value; *out_whole: it
    // must be read whole. They may be told of twice.
    err (*changes)(Ctx *c, Tx *tx, const SnapshotChange *at, size_t n, Json *out, bool *out_whole);
    // The next view, which shares with the one before what did not change; in NULL: all of it.
    err (*apply)(Ctx *c, Arena *mem, const void *before, yyjson_val *in, void **out);
} SnapshotPart;
void snapshot_part(const SnapshotPart *p); // in a module's init

err snapshot_start(Ctx *c); // builds the first one (SQL away: from disk); then the thread
void snapshot_stop(void *app);
// In the transaction of a change: for parts that are not read whole.
err snapshot_changed(Ctx *c, Tx *tx, const char *kind, str id);
void snapshot_wake(void *app); // something changed; fits Resource.notify
// Blocks until a snapshot that contains what is committed now is current: for tests and for answers
// that promise it.
err snapshot_sync(Ctx *c);

const Snapshot *snapshot_take(void); // the current one; never NULL after start; give it back
void snapshot_give(const Snapshot *s);
const void *snapshot_get(const Snapshot *s, const SnapshotPart *p);
int64_t snapshot_age_ms(
    const Snapshot *s); // since it was last known to be true; grows while SQL is away
int64_t snapshot_number(const Snapshot *s);
// Something that was acknowledged may be missing in s: what was committed could not be read since,
// or s is no longer the current one. Then what s does not have is unknown, not absent.
bool snapshot_behind(const Snapshot *s);
void snapshot_on_swap(void (*fn)(void *arg), void *arg); // after each swap, on the builder's thread
#endif
