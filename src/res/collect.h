// SPDX-License-Identifier: Apache-2.0
// collect.h - removal of objects (blob/blob.h) that no row needs any more, for every module with
// BLOB rows. Objects are shared by content, whoever stored them, so nobody removes one: who drops a
// reference says so in that transaction, and a job looks again after a grace time. It condemns the
// object in a transaction that has seen no BLOB of any module's rows name it; who is about to name
// one claims it in a transaction that has seen no condemnation. So of two at a time one gives way,
// and no claimed object goes.
// Threads: the caller's transaction.
#ifndef LATHE_RES_COLLECT_H
#define LATHE_RES_COLLECT_H
#include "res/app.h"

// This object may not be needed any more: it is looked at after the setting blob.grace.
err collect_object(Ctx *c, Tx *tx, str digest);
// The same for every BLOB of a row that goes: from a resource's stage hook.
err collect_row(Ctx *c, Tx *tx, const Resource *r, const void *row);
// Before a row names the object, in the same transaction: ERR_UNAVAILABLE with R_BLOB_LEAVING while
// it is just being removed; try again.
err object_claim(Ctx *c, Tx *tx, str digest);

// What refers to objects: all of them, each once; and what names one of them.
err collect_live(Ctx *c, Tx *tx, str **out, size_t *out_n); // sorted, in c->mem
typedef struct CollectUser {
    const Resource *r;
    str id, name, org, project; // absent where the resource has none
} CollectUser;
err collect_users(Ctx *c, Tx *tx, str digest, CollectUser **out, size_t *out_n); // at most 100
err collect_named(Ctx *c, Tx *tx, str digest, bool *out); // by a row of the caller's project
// While it is held no object is removed, on any node: a backup copies what its snapshot names. A
// lease, to be taken again before it runs out.
enum { COLLECT_HOLD_MS = 120000 };
err collect_hold(Ctx *c, str holder, Lease *out);

extern const Module blob_module; // its table, setting and job kind
extern const JobKind collect_kind;
extern const Migration collect_migrations[];
enum { COLLECT_MIGRATIONS = 4 };
#define COLLECT_REASONS(X)                                                                      \
    X(BLOB_LEAVING, "blob_leaving", "object {digest} is just being removed; it is tried again", \
      "对象 {digest} 正在被移除，稍后重试")                                                     \
    X(BLOB_UNSURE, "blob_unsure",                                                               \
      "S3 did not answer a removal of object {digest}, which may still come: {seconds} s more", \
      "S3 未应答对象 {digest} 的删除请求，该请求仍可能生效：再等 {seconds} 秒")                 \
    X(BLOB_HELD, "blob_held", "a backup is being taken: nothing is removed until it has ended", \
      "正在备份，结束之前不移除任何对象")
REASONS_DECLARE(COLLECT_REASONS)

// For tests: the two steps of a removal.
err object_condemn(Ctx *c, Tx *tx, str digest); // twice is once
err object_pardon(Ctx *c, Tx *tx, str digest);
extern void (*collect_between)(void); // called between them; NULL
#endif
