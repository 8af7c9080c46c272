// SPDX-License-Identifier: Apache-2.0
// copy.h - a consistent copy of a database that is being written, for backups. SQLite: one read
// snapshot, page by page (its online backup), so pages that did not change are the same bytes
// in the next copy. Writers go on meanwhile; their log starts over only after the copy.
// PostgreSQL: a snapshot that pg_dump shares with our own reads.
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

typedef struct PgSnapshot {
    Db *db;                 // connections of its own, to read with
    void *conn;             // holds the snapshot
    str id;                 // for pg_dump --snapshot
    str schema;             // that the address looks into; absent: it names none that is there
    int server_major;       // 15
    const char *const *env; // where the database is, for PostgreSQL's programs
} PgSnapshot;
// Of the same database as `like`; held until closed, however long that is.
err pg_snapshot_open(Ctx *c, const Db *like, PgSnapshot *out);
// First in a function that db_read runs on s->db: it sees what pg_dump sees.
err pg_snapshot_join(Ctx *c, Tx *tx, const PgSnapshot *s);
void pg_snapshot_close(PgSnapshot *s); // after a failed open too
#endif
