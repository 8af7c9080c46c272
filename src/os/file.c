// SPDX-License-Identifier: Apache-2.0
// file.c - the front of files and directories, and whole small files on top of either machine. The
// real ones are file_real.c, the simulated sim_file.c. Threads: any.
#include "os/os_impl.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum { LOCK_LOOK_NS = 5000000 };

static const OsOps *ops_of(Ctx *c) {
    assert(c->os);
    return c->os->ops;
}

static err path_check(Ctx *c, const char *what, str path) {
    if (!path.n || memchr(path.p, 0, path.n)) return os_fail(c, EINVAL, what, path);
    return ERR_OK;
}

err file_open(Ctx *c, str path, unsigned flags, File **out) {
    assert(flags & (FILE_READ | FILE_WRITE));
    assert((flags & FILE_WRITE) || !(flags & (FILE_CREATE | FILE_EXCLUSIVE | FILE_TRUNCATE)));
    TRY(path_check(c, "open", path));
    return ops_of(c)->file_open(c, path, flags, out);
}

void file_close(File *f) {
    if (f) f->ops->close(f);
}

err file_read_at(Ctx *c, File *f, int64_t offset, void *out, size_t n, size_t *out_got) {
    assert(offset >= 0);
    return f->ops->read_at(c, f, offset, out, n, out_got);
}

err file_write_at(Ctx *c, File *f, int64_t offset, const void *p, size_t n) {
    assert(offset >= 0);
    return n ? f->ops->write_at(c, f, offset, p, n) : ERR_OK;
}

err file_allocate(Ctx *c, File *f, int64_t size) {
    assert(size >= 0);
    return size ? f->ops->allocate(c, f, size) : ERR_OK;
}

err file_truncate(Ctx *c, File *f, int64_t size) {
    assert(size >= 0);
    return f->ops->truncate(c, f, size);
}

err file_sync(Ctx *c, File *f) { return f->ops->sync(c, f); }
err file_size(Ctx *c, File *f, int64_t *out) { return f->ops->size(c, f, out); }

err file_skip_zeros(Ctx *c, File *f, int64_t offset, int64_t *out) {
    assert(offset >= 0);
    int64_t size;
    TRY(file_size(c, f, &size));
    *out = offset;
    if (offset >= size) return ERR_OK;
    int64_t at = f->ops->next_data(f, offset);
    *out = at < 0 ? size : at;
    assert(*out >= offset);
    return ERR_OK;
}

int file_fd(File *f) { return f->ops->fd(f); }

bool file_share(File *f, FileShare *out) {
    *out = (FileShare){ 0 };
    if (f->ops->share) f->ops->share(f, out);
    return f->ops->share;
}

void file_may_stall(File *f) {
    if (f->ops->may_stall) f->ops->may_stall(f);
}

void file_hold(File *f, bool on) {
    if (f->ops->hold) f->ops->hold(f, on);
}
err file_lock(Ctx *c, File *f) { return f->ops->lock(c, f); }

err file_lock_within(Ctx *c, File *f, int64_t timeout_ms) {
    int64_t end_ns = os_mono_ns(c->os) + timeout_ms * 1000000;
    err e = file_lock(c, f);
    while (e == ERR_CONFLICT && thread_can_start(c->os) && os_mono_ns(c->os) < end_ns) {
        thread_pause(c->os, LOCK_LOOK_NS);
        e = file_lock(c, f);
    }
    return e;
}

err path_rename(Ctx *c, str from, str to) {
    TRY(path_check(c, "rename", from));
    TRY(path_check(c, "rename", to));
    return ops_of(c)->path_rename(c, from, to);
}

err path_remove(Ctx *c, str path) {
    TRY(path_check(c, "remove", path));
    return ops_of(c)->path_remove(c, path);
}

err path_remove_tree(Ctx *c, str dir) {
    TRY(path_check(c, "remove", dir));
    return ops_of(c)->path_remove_tree(c, dir);
}

err path_info(Ctx *c, str path, PathInfo *out) {
    TRY(path_check(c, "look at", path));
    return ops_of(c)->path_info(c, path, out);
}

err dir_make(Ctx *c, str path, unsigned mode) {
    TRY(path_check(c, "make directory", path));
    return ops_of(c)->dir_make(c, path, mode);
}

static int by_name(const void *a, const void *b) {
    return str_cmp(*(const str *)a, *(const str *)b);
}

err dir_list(Ctx *c, str path, str **out_names, size_t *out_n) {
    TRY(path_check(c, "list", path));
    str *names = NULL;
    size_t n = 0;
    TRY(ops_of(c)->dir_list(c, path, &names, &n));
    if (n) qsort(names, n, sizeof *names, by_name);
    *out_names = names;
    *out_n = n;
    return ERR_OK;
}

err dir_sync(Ctx *c, str path) {
    TRY(path_check(c, "sync", path));
    return ops_of(c)->dir_sync(c, path);
}

err disk_free(Ctx *c, str path, int64_t *out_bytes) {
    TRY(path_check(c, "look at", path));
    return ops_of(c)->disk_free(c, path, out_bytes);
}

err disk_size(Ctx *c, str path, int64_t *out_bytes) {
    TRY(path_check(c, "look at", path));
    return ops_of(c)->disk_size(c, path, out_bytes);
}

static err too_large(Ctx *c, str path, size_t max) {
    return fail(c, ERR_TOOLARGE, R_TOO_LONG, "what", say_str(c, path), "limit", say(c, "%zu", max));
}

// Files of /proc say that they are empty: read until the end, whatever the size was.
static err read_to_end(Ctx *c, File *f, str path, size_t max, Buf *b) {
    for (;;) {
        size_t want = b->n < 65536 ? 4096 : b->n, got = 0;
        if (want > max + 1 - b->n) want = max + 1 - b->n;
        char *room = buf_reserve(b, want);
        assert(room);
        TRY(file_read_at(c, f, (int64_t)b->n, room, want, &got));
        buf_commit(b, got);
        if (b->n > max) return too_large(c, path, max);
        if (got < want) return ERR_OK;
    }
}

err file_read_all(Ctx *c, str path, size_t max, str *out) {
    assert(max < PTRDIFF_MAX);
    File *f = NULL;
    int64_t size = 0;
    Buf b;
    TRY(file_open(c, path, FILE_READ, &f));
    buf_init(&b, max + 1);
    err e = file_size(c, f, &size);
    if (!e && size > 0 && (uint64_t)size > max) e = too_large(c, path, max);
    if (!e) e = read_to_end(c, f, path, max, &b);
    if (!e) *out = arena_str(c->mem, buf_str(&b));
    buf_done(&b);
    file_close(f);
    return e;
}

// "." for a bare name; "/" for a name in the root.
static str parent_of(str path) {
    while (path.n > 1 && path.p[path.n - 1] == '/') path.n--;
    while (path.n && path.p[path.n - 1] != '/') path.n--;
    if (!path.n) return S(".");
    while (path.n > 1 && path.p[path.n - 1] == '/') path.n--;
    return path;
}

static err write_new(Ctx *c, str path, str bytes, unsigned flags) {
    File *f = NULL;
    TRY(file_open(c, path, FILE_WRITE | FILE_CREATE | FILE_EXCLUSIVE | (flags & FILE_PRIVATE), &f));
    err e = file_write_at(c, f, 0, bytes.p, bytes.n);
    if (!e) e = file_sync(c, f);
    file_close(f);
    return e;
}

err file_write_all(Ctx *c, str path, str bytes, unsigned flags) {
    assert(!(flags & ~(unsigned)FILE_PRIVATE));
    TRY(path_check(c, "write", path));
    uint64_t mark;
    os_random(c->os, &mark, sizeof mark);
    str temp =
        arena_printf(c->mem, STR_FMT ".tmp-%016llx", STR_ARG(path), (unsigned long long)mark);
    err e = write_new(c, temp, bytes, flags);
    if (!e) e = path_rename(c, temp, path);
    if (e) {
        Failure why = c->failure; // the origin, not what the cleaning up may say
        if (path_remove(c, temp)) c->failure = why;
        c->failure = why;
        return e;
    }
    return dir_sync(c, parent_of(path));
}
