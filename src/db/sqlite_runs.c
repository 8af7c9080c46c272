// SPDX-License-Identifier: Apache-2.0
// sqlite_runs.c - SQLite's writes of its log gathered into runs. It writes it page by page, each
// with two calls (a frame's head, its page); what follows on what was written before waits here
// instead, and goes to the file with one call.
// What waits is written before anything else is done with the log: read, sync, size, cut, close.
// SQLite tells other connections of a frame only after it synced the log (synchronous=FULL), and
// that goes through xSync here, which fails when the writing fails. So others never look for what
// still waits, and what waits when a process dies was never told of (sqlite.org/walformat.html
// §2, §4.3). Pages that are moved into the database are not gathered: where readers keep a
// checkpoint from its end, SQLite lets others read them there without a sync or any other call that
// could fail.
// Stands on another VFS (sqlite.org/vfs.html): the machine's own, or sqlite_vfs.c's. Other files
// are that one's alone.
// Owner: sqlite_runs_add and _remove, around the connections that use it. Threads: a file belongs
// to its connection's.
#include "db/sqlite_impl.h"
#include <assert.h>
#include <stdio.h>

enum { RUN_MAX = 64 << 10 };

typedef struct RunVfs {
    sqlite3_vfs base;
    sqlite3_vfs *under;
    char name[80];
} RunVfs;

typedef struct RunFile { // the file below stands behind it
    sqlite3_file base;
    char *run; // RUN_MAX bytes, with the first write
    int n;     // of them wait
    sqlite3_int64 at;
} RunFile;

static sqlite3_file *below(sqlite3_file *f) { return (sqlite3_file *)((RunFile *)(void *)f + 1); }

// What could not be written is forgotten: SQLite is told, and writes it anew if it still wants to.
static int flush(sqlite3_file *base) {
    RunFile *f = (RunFile *)(void *)base;
    int n = f->n;
    f->n = 0;
    return n ? below(base)->pMethods->xWrite(below(base), f->run, n, f->at) : SQLITE_OK;
}

// ---- a file

static int run_write(sqlite3_file *base, const void *p, int n, sqlite3_int64 at) {
    RunFile *f = (RunFile *)(void *)base;
    bool follows = f->n && at == f->at + f->n && n <= RUN_MAX - f->n;
    int rc = follows ? SQLITE_OK : flush(base);
    if (rc) return rc;
    if (n > RUN_MAX) return below(base)->pMethods->xWrite(below(base), p, n, at);
    if (!f->run) f->run = mem_grow(NULL, RUN_MAX, 1);
    if (!f->n) f->at = at;
    memcpy(f->run + f->n, p, (size_t)n);
    f->n += n;
    return SQLITE_OK;
}

static int run_close(sqlite3_file *base) {
    RunFile *f = (RunFile *)(void *)base;
    int rc = flush(base), closed = below(base)->pMethods->xClose(below(base));
    f->run = mem_free(f->run);
    return rc ? rc : closed;
}

// Everything else: first what waits, then the file below.

static int run_read(sqlite3_file *f, void *out, int n, sqlite3_int64 at) {
    int rc = flush(f);
    return rc ? rc : below(f)->pMethods->xRead(below(f), out, n, at);
}
static int run_cut(sqlite3_file *f, sqlite3_int64 size) {
    int rc = flush(f);
    return rc ? rc : below(f)->pMethods->xTruncate(below(f), size);
}
static int run_sync(sqlite3_file *f, int flags) {
    int rc = flush(f);
    return rc ? rc : below(f)->pMethods->xSync(below(f), flags);
}
static int run_size(sqlite3_file *f, sqlite3_int64 *out) {
    int rc = flush(f);
    return rc ? rc : below(f)->pMethods->xFileSize(below(f), out);
}
static int run_lock(sqlite3_file *f, int level) {
    int rc = flush(f);
    return rc ? rc : below(f)->pMethods->xLock(below(f), level);
}
static int run_locked(sqlite3_file *f, int *out) {
    int rc = flush(f);
    return rc ? rc : below(f)->pMethods->xCheckReservedLock(below(f), out);
}
static int run_fetch(sqlite3_file *f, sqlite3_int64 at, int n, void **out) {
    int rc = flush(f);
    return rc ? rc : below(f)->pMethods->xFetch(below(f), at, n, out);
}

// Given back in any case.
static int run_unlock(sqlite3_file *f, int level) {
    int rc = flush(f), unlocked = below(f)->pMethods->xUnlock(below(f), level);
    return rc ? rc : unlocked;
}

static int run_control(sqlite3_file *f, int what, void *arg) {
    return below(f)->pMethods->xFileControl(below(f), what, arg);
}
static int run_sector(sqlite3_file *f) { return below(f)->pMethods->xSectorSize(below(f)); }
static int run_traits(sqlite3_file *f) {
    return below(f)->pMethods->xDeviceCharacteristics(below(f));
}
static int run_map(sqlite3_file *f, int i, int bytes, int extend, void volatile **out) {
    return below(f)->pMethods->xShmMap(below(f), i, bytes, extend, out);
}
static int run_index_lock(sqlite3_file *f, int first, int n, int flags) {
    return below(f)->pMethods->xShmLock(below(f), first, n, flags);
}
static void run_barrier(sqlite3_file *f) { below(f)->pMethods->xShmBarrier(below(f)); }
static int run_unmap(sqlite3_file *f, int remove) {
    return below(f)->pMethods->xShmUnmap(below(f), remove);
}
static int run_unfetch(sqlite3_file *f, sqlite3_int64 at, void *p) {
    return below(f)->pMethods->xUnfetch(below(f), at, p);
}

#define METHODS(version)                                                                      \
    {                                                                                         \
        .iVersion = (version), .xClose = run_close, .xRead = run_read, .xWrite = run_write,   \
        .xTruncate = run_cut, .xSync = run_sync, .xFileSize = run_size, .xLock = run_lock,    \
        .xUnlock = run_unlock, .xCheckReservedLock = run_locked, .xFileControl = run_control, \
        .xSectorSize = run_sector, .xDeviceCharacteristics = run_traits, .xShmMap = run_map,  \
        .xShmLock = run_index_lock, .xShmBarrier = run_barrier, .xShmUnmap = run_unmap,       \
        .xFetch = run_fetch, .xUnfetch = run_unfetch                                          \
    }
// As much as the file below has: 2, shared memory; 3, mapped reads.
static const sqlite3_io_methods methods[] = { METHODS(1), METHODS(2), METHODS(3) };

// ---- the system

static RunVfs *of(sqlite3_vfs *v) { return (RunVfs *)(void *)v; }

static int run_open(sqlite3_vfs *v, const char *name, sqlite3_file *out, int flags,
                    int *out_flags) {
    sqlite3_vfs *under = of(v)->under;
    if (!(flags & SQLITE_OPEN_WAL)) return under->xOpen(under, name, out, flags, out_flags);
    RunFile *f = (RunFile *)(void *)out;
    *f = (RunFile){ 0 };
    sqlite3_file *b = below(out);
    b->pMethods = NULL;
    int rc = under->xOpen(under, name, b, flags, out_flags);
    if (!b->pMethods) return rc;
    int version = b->pMethods->iVersion;
    assert(version >= 1);
    f->base.pMethods = &methods[version > 3 ? 2 : version - 1]; // SQLite closes what has methods
    return rc;
}

static int run_delete(sqlite3_vfs *v, const char *name, int sync) {
    return of(v)->under->xDelete(of(v)->under, name, sync);
}
static int run_access(sqlite3_vfs *v, const char *name, int flags, int *out) {
    return of(v)->under->xAccess(of(v)->under, name, flags, out);
}
static int run_full(sqlite3_vfs *v, const char *name, int max, char *out) {
    return of(v)->under->xFullPathname(of(v)->under, name, max, out);
}
static int run_random(sqlite3_vfs *v, int n, char *out) {
    return of(v)->under->xRandomness(of(v)->under, n, out);
}
static int run_sleep(sqlite3_vfs *v, int us) { return of(v)->under->xSleep(of(v)->under, us); }
static int run_error(sqlite3_vfs *v, int n, char *out) {
    return of(v)->under->xGetLastError(of(v)->under, n, out);
}
static int run_today(sqlite3_vfs *v, double *out) {
    return of(v)->under->xCurrentTime(of(v)->under, out);
}
static int run_now(sqlite3_vfs *v, sqlite3_int64 *out) {
    return of(v)->under->xCurrentTimeInt64(of(v)->under, out);
}

const char *sqlite_runs_add(const char *under) {
    RunVfs *v = mem_new(sizeof *v);
    v->under = sqlite3_vfs_find(under);
    assert(v->under && v->under->iVersion >= 2);
    snprintf(v->name, sizeof v->name, "runs-%p", (void *)v);
    v->base = (sqlite3_vfs){ .iVersion = 2,
                             .szOsFile = (int)sizeof(RunFile) + v->under->szOsFile,
                             .mxPathname = v->under->mxPathname,
                             .zName = v->name,
                             .xOpen = run_open,
                             .xDelete = run_delete,
                             .xAccess = run_access,
                             .xFullPathname = run_full,
                             .xRandomness = run_random,
                             .xSleep = run_sleep,
                             .xCurrentTime = run_today,
                             .xGetLastError = run_error,
                             .xCurrentTimeInt64 = run_now };
    int rc = sqlite3_vfs_register(&v->base, 0);
    assert(rc == SQLITE_OK);
    return v->name;
}

void sqlite_runs_remove(const char *name) {
    sqlite3_vfs *v = sqlite3_vfs_find(name);
    assert(v);
    sqlite3_vfs_unregister(v);
    mem_free(v);
}
