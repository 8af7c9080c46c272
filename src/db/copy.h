// SPDX-License-Identifier: Apache-2.0
// copy.h - a consistent copy of a database that is being written, for backups. SQLite: one read
// snapshot, page by page (its online backup), so pages that did not change are the same bytes
// in the next copy. Writers go on meanwhile; their log starts over only after the copy.
// PostgreSQL: a snapshot that pg_dump shares with our own reads.
// Threads: any, blocking. On the real machine only.
#ifndef LATHE_DB_COPY_H
#define LATHE_DB_COPY_H
#include "db/db.h"
#include "os/file.h"

typedef struct CopyProgress {
    void (*fn)(void *arg, int64_t done_bytes, int64_t total_bytes); // NULL: nobody asks
    void *arg;
} CopyProgress;
str sqlite_path(const Db *db); // of an open SQLite database; lives as long as it
// from must be there; `to` must not, is private, and is not synced. Cancelled or failed: what is at
// `to` is of no use. ERR_UNAVAILABLE with R_DB_AWAY for what is no database.
err sqlite_copy(Ctx *c, str from, str to, const CopyProgress *progress);

// Follows SQLite's log (sqlite.org/fileformat2.html, "The Write-Ahead Log"; walformat.html): what
// was committed since the last step, as the last content of each page. Until a step is kept a read
// transaction of ours keeps the log from starting over, so nothing is missed: SQLite's own locks
// see to that, and no commit waits. Owner: one thread.
typedef struct SqliteLog SqliteLog;
typedef struct LogStep {
    int64_t pages, page_bytes; // of the whole database after it
    int64_t frames;            // in the log that it covers
    int64_t before_ms;         // all that was acknowledged before is in
    int64_t after_ms;          // nothing that began after is in
    bool gap;                  // the log started over unseen: what comes next needs a new copy
} LogStep;
err sqlite_log_open(Ctx *c, Db *db, SqliteLog **out); // from here on; closed before db
// Writes a page's number (4 bytes, big-endian) and its content for each page that changed to `to`.
err sqlite_log_next(Ctx *c, SqliteLog *l, File *to, LogStep *out);
err sqlite_log_keep(Ctx *c,
                    SqliteLog *l);   // the step is safe elsewhere; else the next covers it too
void sqlite_log_close(SqliteLog *l); // NULL is fine
// Into a closed database, a copy from within the steps' time. To be right, steps are applied one
// after the other from one that ended after the copy began, to one that began after it ended.
err sqlite_log_apply(Ctx *c, str path, File *step, int64_t page_bytes, int64_t pages);

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
