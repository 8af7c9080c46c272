// SPDX-License-Identifier: Apache-2.0
// sqlite_copy.c - see copy.h. The source is read by a connection of its own within one read
// transaction: SQLite starts a copy over only when it loses its snapshot, and this one keeps it.
// Owner: both connections end with the call. Threads: the caller's.
#include "db/copy.h"
#include "db/sqlite_impl.h"
#include "os/file.h"
#include <assert.h>

enum { STEP_PAGES = 256, BUSY_MS = 5000 };

typedef struct Copy {
    sqlite3 *from, *to;
    sqlite3_backup *copy;
    int64_t page_bytes;
    const CopyProgress *progress;
} Copy;

str sqlite_path(const Db *db) {
    assert(db_kind(db) == DB_SQLITE);
    return str_z(((const SqliteDb *)db)->path);
}

static err refused(Ctx *c, sqlite3 *db, int code) {
    if ((code & 0xff) == SQLITE_FULL) return fail(c, ERR_FULL, R_DB_FULL);
    return db_away(c, db ? sqlite3_errmsg(db) : sqlite3_errstr(code), 0);
}

static int page_size(void *out, int n, char **values, char **names) {
    (void)n, (void)names;
    int64_t *bytes = out;
    return values[0] && str_to_i64(str_z(values[0]), bytes) ? 0 : 1;
}

static err source_open(Ctx *c, Copy *x, str path) {
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX;
    int rc = sqlite3_open_v2(arena_z(c->mem, path), &x->from, flags, NULL);
    if (!rc) rc = sqlite3_busy_timeout(x->from, BUSY_MS);
    if (!rc) rc = sqlite3_exec(x->from, "PRAGMA query_only=ON; BEGIN", NULL, NULL, NULL);
    if (!rc) rc = sqlite3_exec(x->from, "SELECT 1 FROM sqlite_schema", NULL, NULL, NULL);
    if (!rc) rc = sqlite3_exec(x->from, "PRAGMA page_size", page_size, &x->page_bytes, NULL);
    return rc ? refused(c, x->from, rc) : ERR_OK;
}

static err target_open(Ctx *c, Copy *x, str path) {
    File *f;
    TRY(file_open(c, path, FILE_WRITE | FILE_CREATE | FILE_EXCLUSIVE | FILE_PRIVATE, &f));
    file_close(f);
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX;
    int rc = sqlite3_open_v2(arena_z(c->mem, path), &x->to, flags, NULL);
    if (!rc)
        rc = sqlite3_exec(x->to, "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF", NULL, NULL,
                          NULL);
    return rc ? refused(c, x->to, rc) : ERR_OK;
}

static err pages(Ctx *c, Copy *x) {
    x->copy = sqlite3_backup_init(x->to, "main", x->from, "main");
    if (!x->copy) return refused(c, x->to, sqlite3_errcode(x->to));
    int rc = SQLITE_OK;
    while (rc == SQLITE_OK) {
        TRY(ctx_check(c));
        rc = sqlite3_backup_step(x->copy, STEP_PAGES);
        int64_t total = sqlite3_backup_pagecount(x->copy);
        int64_t done = total - sqlite3_backup_remaining(x->copy);
        if (x->progress && x->progress->fn)
            x->progress->fn(x->progress->arg, done * x->page_bytes, total * x->page_bytes);
    }
    return rc == SQLITE_DONE ? ERR_OK : refused(c, x->to, rc);
}

err sqlite_copy(Ctx *c, str from, str to, const CopyProgress *progress) {
    PathInfo info;
    assert(c->os == os_real());
    TRY(path_info(c, from, &info)); // to open what is not there would make it
    Copy x = { .progress = progress };
    err e = source_open(c, &x, from);
    if (!e) e = target_open(c, &x, to);
    if (!e) e = pages(c, &x);
    int rc = sqlite3_backup_finish(x.copy); // NULL is fine, here and below
    if (!e && rc) e = refused(c, x.to, rc);
    sqlite3_close(x.to);
    sqlite3_close(x.from);
    return e;
}
