// SPDX-License-Identifier: Apache-2.0
// copy.h - a consistent copy of a SQLite database that is being written, for backups: one read
// snapshot, page by page (SQLite's online backup), so pages that did not change are the same bytes
// in the next copy. Writers go on meanwhile; their log starts over only after the copy.
// Threads: any, blocking. On the real machine only.
#ifndef LATHE_DB_COPY_H
#define LATHE_DB_COPY_H
#include "db/db.h"

typedef struct CopyProgress {
    void (*fn)(void *arg, int64_t done_bytes, int64_t total_bytes); // NULL: nobody asks
    void *arg;
} CopyProgress;
str sqlite_path(const Db *db); // of an open SQLite database; lives as long as it
// from must be there; `to` must not, is private, and is not synced. Cancelled or failed: what is at
// `to` is of no use. ERR_UNAVAILABLE with R_DB_AWAY for what is no database.
err sqlite_copy(Ctx *c, str from, str to, const CopyProgress *progress);
#endif
