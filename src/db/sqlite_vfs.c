// SPDX-License-Identifier: Apache-2.0
// sqlite_vfs.c - SQLite's files over os/file.h, for a simulated os: what is written, synced, lost
// or torn there is what SQLite sees (sqlite.org/vfs.html). Locks and the log's shared index are of
// all programs that have the database open, on the simulated machine where it lies; simulated
// threads run one at a time, so neither needs a lock of its own. Who has died holds none.
// The machine itself uses SQLite's own unix VFS. Owner: sqlite_vfs_add and _remove, around the
// connections that use it.
#include "db/sqlite_impl.h"
#include "os/file.h"
#include <assert.h>
#include <stdio.h>

enum { PATH_MAX_BYTES = 512, SECTOR_BYTES = 4096, REGIONS_MAX = 256, WRITER = 1 };
static const int64_t julian_ms = INT64_C(210866760000000); // from its epoch to Unix's

struct VfsFile;
typedef struct Common { // of all who have one database open
    struct VfsFile *users;
    void *regions[REGIONS_MAX]; // the log's index
    uint64_t writes;            // that have ended, well or not
    void **slot;
} Common;

typedef struct Vfs {
    sqlite3_vfs base;
    char name[40];
    Ctx c; // of every file operation; its arena is emptied after each
    unsigned temporaries;
    char *path;     // of the database: temporary files stand beside it
    Common *common; // NULL: not open yet
    void *alone;    // its slot on the machine itself, in tests
    Os *where;      // the machine on which it lies
} Vfs;

typedef struct VfsFile {
    sqlite3_file base;
    Vfs *vfs;
    File *file;
    char *path;
    bool is_new, temporary; // is_new: its name is not yet safe in its directory
    // Of a database: its locks (bits: those of the index) and what it shares.
    Common *common; // NULL: no database, or its program has died
    struct VfsFile *next;
    int level;
    unsigned index_shares, index_held;
    bool maps_index;
} VfsFile;

static int done(Vfs *v, err e, int otherwise) {
    arena_reset(v->c.mem);
    if (!e) return SQLITE_OK;
    return e == ERR_FULL ? SQLITE_FULL : otherwise;
}

static str folder(str path) {
    while (path.n && path.p[path.n - 1] != '/') path.n--;
    if (path.n > 1) path.n--;
    return path.n ? path : S(".");
}

static void leave(VfsFile *f);

// ---- a file

static int file_close_(sqlite3_file *base) {
    VfsFile *f = (VfsFile *)base;
    leave(f);
    file_close(f->file);
    err e = f->temporary ? path_remove(&f->vfs->c, str_z(f->path)) : ERR_OK;
    mem_free(f->path);
    return done(f->vfs, e, SQLITE_IOERR_CLOSE);
}

static int file_read(sqlite3_file *base, void *out, int n, sqlite3_int64 offset) {
    VfsFile *f = (VfsFile *)base;
    size_t got = 0;
    err e = file_read_at(&f->vfs->c, f->file, offset, out, (size_t)n, &got);
    int rc = done(f->vfs, e, SQLITE_IOERR_READ);
    if (rc || got == (size_t)n) return rc;
    memset((char *)out + got, 0, (size_t)n - got);
    return SQLITE_IOERR_SHORT_READ;
}

static int file_write(sqlite3_file *base, const void *p, int n, sqlite3_int64 offset) {
    VfsFile *f = (VfsFile *)base;
    return done(f->vfs, file_write_at(&f->vfs->c, f->file, offset, p, (size_t)n),
                SQLITE_IOERR_WRITE);
}

static int file_cut(sqlite3_file *base, sqlite3_int64 size) {
    VfsFile *f = (VfsFile *)base;
    return done(f->vfs, file_truncate(&f->vfs->c, f->file, size), SQLITE_IOERR_TRUNCATE);
}

static int file_sync_(sqlite3_file *base, int flags) {
    VfsFile *f = (VfsFile *)base;
    (void)flags;
    err e = file_sync(&f->vfs->c, f->file);
    if (!e && f->is_new) e = dir_sync(&f->vfs->c, folder(str_z(f->path)));
    if (!e) f->is_new = false;
    return done(f->vfs, e, SQLITE_IOERR_FSYNC);
}

static int file_size_(sqlite3_file *base, sqlite3_int64 *out) {
    VfsFile *f = (VfsFile *)base;
    int64_t size = 0;
    int rc = done(f->vfs, file_size(&f->vfs->c, f->file, &size), SQLITE_IOERR_FSTAT);
    *out = size;
    return rc;
}

// ---- what is shared

static bool is_dead(const VfsFile *f) {
    FileShare share;
    file_share(f->file, &share);
    return share.dead;
}

static void index_give(VfsFile *f, unsigned bits) {
    if (!f->common) return;
    if (f->index_held & bits & WRITER) f->common->writes++;
    for (unsigned held = f->index_held & bits; held; held &= held - 1) file_hold(f->file, false);
    f->index_held &= ~bits, f->index_shares &= ~bits;
}

static void free_regions(Common *k) {
    for (int i = 0; i < REGIONS_MAX; i++) k->regions[i] = mem_free(k->regions[i]);
}

static void leave(VfsFile *f) {
    Common *k = f->common;
    if (!k) return;
    VfsFile **at = &k->users;
    while (*at != f) at = &(*at)->next;
    *at = f->next;
    index_give(f, ~0u);
    f->common = NULL;
    bool mapped = false;
    for (const VfsFile *u = k->users; u; u = u->next) mapped |= u->maps_index;
    if (!mapped) free_regions(k);
    if (k->users) return;
    *k->slot = NULL;
    mem_free(k);
}

// As a kernel does when a program ends. What they hold of the index is memory that stays.
static Common *bury(Common *k) {
    void **slot = k->slot;
    for (VfsFile *u = k->users, *next; u; u = next) {
        next = u->next;
        if (is_dead(u)) leave(u);
    }
    return *slot;
}

// The dead have left. False: f's own program has died.
static bool is_with(VfsFile *f) {
    if (f->common) bury(f->common);
    return f->common;
}

static void join(VfsFile *f) {
    FileShare share;
    if (!file_share(f->file, &share)) share = (FileShare){ f->vfs->c.os, &f->vfs->alone, false };
    Common *k = *share.slot ? bury(*share.slot) : NULL;
    if (!k) {
        *share.slot = k = mem_new(sizeof *k);
        k->slot = share.slot;
    }
    f->common = k;
    f->next = k->users;
    k->users = f;
    f->vfs->where = share.where;
    f->vfs->common = k;
}

// ---- locks on the database (sqlite.org/lockingv3.html), by connection

static int most_of_others(const VfsFile *f) {
    int most = SQLITE_LOCK_NONE;
    for (const VfsFile *u = f->common->users; u; u = u->next)
        if (u != f && u->level > most) most = u->level;
    return most;
}

static int file_lock_(sqlite3_file *base, int level) {
    VfsFile *f = (VfsFile *)base;
    if (f->level >= level) return SQLITE_OK;
    if (!is_with(f)) return SQLITE_IOERR_LOCK;
    int others = most_of_others(f);
    if (!f->level) {
        if (others >= SQLITE_LOCK_PENDING) return SQLITE_BUSY;
        f->level = SQLITE_LOCK_SHARED;
    }
    if (level == SQLITE_LOCK_SHARED) return SQLITE_OK;
    if (others >= SQLITE_LOCK_RESERVED) return SQLITE_BUSY;
    bool waits = level == SQLITE_LOCK_EXCLUSIVE && others > SQLITE_LOCK_NONE;
    f->level = waits ? SQLITE_LOCK_PENDING : level;
    return waits ? SQLITE_BUSY : SQLITE_OK;
}

static int file_unlock(sqlite3_file *base, int level) {
    VfsFile *f = (VfsFile *)base;
    if (f->level > level) f->level = level;
    return SQLITE_OK;
}

static int file_locked(sqlite3_file *base, int *out) {
    const VfsFile *f = (VfsFile *)base;
    *out = f->level >= SQLITE_LOCK_RESERVED
           || (f->common && most_of_others(f) >= SQLITE_LOCK_RESERVED);
    return SQLITE_OK;
}

// ---- the log's index (sqlite.org/walformat.html §2)

static int index_map(sqlite3_file *base, int i, int bytes, int extend, void volatile **out) {
    VfsFile *f = (VfsFile *)base;
    if (i >= REGIONS_MAX || !is_with(f)) return SQLITE_IOERR_SHMMAP;
    Common *k = f->common;
    f->maps_index = true;
    if (!k->regions[i] && extend) k->regions[i] = mem_new((size_t)bytes);
    *out = k->regions[i];
    return SQLITE_OK;
}

// Where another machine cannot be reached, nothing begins there; what is given back always is.
static int index_lock(sqlite3_file *base, int first, int n, int flags) {
    VfsFile *f = (VfsFile *)base;
    unsigned bits = ((1u << n) - 1) << first, others = 0;
    bool exclusive = flags & SQLITE_SHM_EXCLUSIVE;
    int64_t size;
    if (flags & SQLITE_SHM_UNLOCK) return index_give(f, bits), SQLITE_OK;
    if (exclusive && bits & WRITER && !(f->index_held & WRITER)) file_may_stall(f->file);
    if (!is_with(f)) return SQLITE_IOERR_SHMLOCK;
    int rc = done(f->vfs, file_size(&f->vfs->c, f->file, &size), SQLITE_IOERR_SHMLOCK);
    if (rc) return rc;
    for (const VfsFile *u = f->common->users; u; u = u->next)
        if (u != f) others |= u->index_held | (exclusive ? u->index_shares : 0);
    if (others & bits) return SQLITE_BUSY;
    index_give(f, bits);
    *(exclusive ? &f->index_held : &f->index_shares) |= bits;
    for (int i = 0; exclusive && i < n; i++) file_hold(f->file, true);
    return SQLITE_OK;
}

static void index_barrier(sqlite3_file *base) { (void)base; }

static int index_unmap(sqlite3_file *base, int remove) {
    VfsFile *f = (VfsFile *)base;
    (void)remove;
    index_give(f, ~0u);
    f->maps_index = false;
    bool mapped = false;
    for (const VfsFile *u = f->common ? f->common->users : NULL; u; u = u->next)
        mapped |= u->maps_index;
    if (f->common && !mapped) free_regions(f->common);
    return SQLITE_OK;
}

// ---- the rest of a file

static int file_control(sqlite3_file *base, int what, void *arg) {
    (void)base, (void)what, (void)arg;
    return SQLITE_NOTFOUND;
}

static int file_sector(sqlite3_file *base) { return (void)base, SECTOR_BYTES; }

static int file_traits(sqlite3_file *base) {
    (void)base;
    return SQLITE_IOCAP_POWERSAFE_OVERWRITE; // as the unix VFS says: no byte beside a write is hurt
}

static const sqlite3_io_methods methods = { .iVersion = 2,
                                            .xClose = file_close_,
                                            .xRead = file_read,
                                            .xWrite = file_write,
                                            .xTruncate = file_cut,
                                            .xSync = file_sync_,
                                            .xFileSize = file_size_,
                                            .xLock = file_lock_,
                                            .xUnlock = file_unlock,
                                            .xCheckReservedLock = file_locked,
                                            .xFileControl = file_control,
                                            .xSectorSize = file_sector,
                                            .xDeviceCharacteristics = file_traits,
                                            .xShmMap = index_map,
                                            .xShmLock = index_lock,
                                            .xShmBarrier = index_barrier,
                                            .xShmUnmap = index_unmap };

// ---- the system

static int vfs_open(sqlite3_vfs *base, const char *name, sqlite3_file *out, int flags,
                    int *out_flags) {
    Vfs *v = (Vfs *)base;
    VfsFile *f = (VfsFile *)out;
    char temporary[PATH_MAX_BYTES + 32];
    PathInfo info;
    *f = (VfsFile){ .vfs = v, .temporary = !name };
    if (!name) {
        snprintf(temporary, sizeof temporary, "%s-temporary-%u", v->path, v->temporaries++);
        name = temporary;
    }
    unsigned want = FILE_READ | FILE_PRIVATE;
    if (flags & SQLITE_OPEN_READWRITE) want |= FILE_WRITE;
    if (flags & SQLITE_OPEN_CREATE) want |= FILE_CREATE;
    f->is_new = path_info(&v->c, str_z(name), &info) == ERR_NOTFOUND;
    int rc = done(v, file_open(&v->c, str_z(name), want, &f->file), SQLITE_CANTOPEN);
    if (rc) return rc; // without methods SQLite does not close it
    f->path = mem_strdup(str_z(name));
    f->base.pMethods = &methods;
    if (flags & SQLITE_OPEN_MAIN_DB) join(f);
    if (out_flags) *out_flags = flags;
    return SQLITE_OK;
}

static int vfs_delete(sqlite3_vfs *base, const char *name, int sync) {
    Vfs *v = (Vfs *)base;
    err e = path_remove(&v->c, str_z(name));
    if (e == ERR_NOTFOUND) return done(v, ERR_OK, 0), SQLITE_IOERR_DELETE_NOENT;
    if (!e && sync) e = dir_sync(&v->c, folder(str_z(name)));
    return done(v, e, SQLITE_IOERR_DELETE);
}

static int vfs_access(sqlite3_vfs *base, const char *name, int flags, int *out) {
    Vfs *v = (Vfs *)base;
    PathInfo info = { 0 };
    err e = path_info(&v->c, str_z(name), &info);
    // An empty log counts as none, as the unix VFS has it.
    *out = !e && (flags != SQLITE_ACCESS_EXISTS || info.size > 0);
    return done(v, e == ERR_NOTFOUND ? ERR_OK : e, SQLITE_IOERR_ACCESS);
}

static int vfs_full(sqlite3_vfs *base, const char *name, int max, char *out) {
    (void)base;
    int n = snprintf(out, (size_t)max, "%s", name);
    return n < max ? SQLITE_OK : SQLITE_CANTOPEN;
}

static int vfs_random(sqlite3_vfs *base, int n, char *out) {
    os_random(((Vfs *)base)->c.os, out, (size_t)n);
    return n;
}

static int vfs_sleep(sqlite3_vfs *base, int us) {
    thread_pause(((Vfs *)base)->c.os, (int64_t)us * 1000);
    return us;
}
static int vfs_error(sqlite3_vfs *base, int n, char *out) {
    return (void)base, (void)n, (void)out, 0;
}

static int vfs_now(sqlite3_vfs *base, sqlite3_int64 *out) {
    *out = julian_ms + os_wall_ms(((Vfs *)base)->c.os);
    return SQLITE_OK;
}

static int vfs_today(sqlite3_vfs *base, double *out) {
    sqlite3_int64 ms;
    vfs_now(base, &ms);
    *out = (double)ms / 86400000.0;
    return SQLITE_OK;
}

// SQLite draws from one generator for the whole process and seeds it from the default VFS: a seed
// of the simulation's gives the same log, bit by bit.
static void seed_from(sqlite3_vfs *v) {
    sqlite3_vfs *usual = sqlite3_vfs_find(NULL);
    char byte;
    sqlite3_vfs_register(v, 1);
    sqlite3_randomness(0, NULL);
    sqlite3_randomness(1, &byte);
    sqlite3_vfs_register(usual, 1);
}

const char *sqlite_vfs_add(Os *os, const char *path) {
    Vfs *v = mem_new(sizeof *v);
    ctx_init(&v->c, arena_new(), os);
    snprintf(v->name, sizeof v->name, "lathe-%p", (void *)v);
    v->path = mem_strdup(str_sub(str_z(path), 0, PATH_MAX_BYTES));
    v->base = (sqlite3_vfs){ .iVersion = 2,
                             .szOsFile = sizeof(VfsFile),
                             .mxPathname = PATH_MAX_BYTES,
                             .zName = v->name,
                             .pAppData = v,
                             .xOpen = vfs_open,
                             .xDelete = vfs_delete,
                             .xAccess = vfs_access,
                             .xFullPathname = vfs_full,
                             .xRandomness = vfs_random,
                             .xSleep = vfs_sleep,
                             .xCurrentTime = vfs_today,
                             .xGetLastError = vfs_error,
                             .xCurrentTimeInt64 = vfs_now };
    seed_from(&v->base);
    return v->name;
}

void sqlite_vfs_share(const char *name, SqliteShare *out) {
    const Vfs *v = sqlite3_vfs_find(name)->pAppData;
    *out = (SqliteShare){ v->where, v->common ? v->common->writes : 0 };
}

void sqlite_vfs_remove(const char *name) {
    sqlite3_vfs *base = sqlite3_vfs_find(name);
    assert(base);
    Vfs *v = base->pAppData;
    sqlite3_vfs_unregister(base);
    sqlite3_randomness(0, NULL); // the next seed is the machine's
    arena_free(v->c.mem);
    mem_free(v->path);
    mem_free(v);
}
