// SPDX-License-Identifier: Apache-2.0
// stage.c - how bytes become an object: a staging file that grows, is hashed as it grows, and is
// renamed to its digest. A named one has a companion NAME.synced that says how many of its bytes a
// sync has covered: after a restart only those are trusted, since a power cut may have left
// anything behind them. The companion is written in place: it needs no space on a full disk.
// Owner: a BlobWriter lives in the arena of the Ctx that made it, which also ends it at the latest.
#include "blob/cache.h"
#include <assert.h>

enum { SYNC_EVERY = 32 << 20, MARK_SLOT = 512 };

struct BlobWriter {
    Blobs *b;
    Ctx own; // for what happens without a caller's Ctx: pause, and the end of the arena
    File *f, *mark;
    str name, path, mark_path; // mark_path absent: unnamed
    int64_t size, synced, hashed;
    unsigned marks; // how often the mark was written: the slots take turns
    EVP_MD_CTX *md;
    BlobProgress progress;
    bool ended;
    bool broken; // a sync failed: the kernel may have dropped bytes, and no later sync would tell
};

EVP_MD_CTX *digest_new(void) {
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    if (!md || EVP_DigestInit_ex(md, sha256_md(), NULL) != 1) mem_exhausted(DIGEST_BYTES);
    return md;
}

void digest_end(EVP_MD_CTX *md, char out[BLOB_DIGEST_HEX + 1]) {
    unsigned char digest[32];
    if (EVP_DigestFinal_ex(md, digest, NULL) != 1) mem_exhausted(DIGEST_BYTES);
    EVP_MD_CTX_free(md);
    digest_hex(digest, out);
}

// ---- the mark: two slots of {length, when, check}, written in turn, so that one is always whole

typedef struct Mark {
    int64_t length; // bytes that a sync has covered; -1: it is being made an object
    int64_t wall_ms;
    uint64_t check;
} Mark;

static uint64_t mark_check(const Mark *m) {
    unsigned char digest[32];
    uint64_t check;
    if (EVP_Digest(m, offsetof(Mark, check), digest, NULL, sha256_md(), NULL) != 1)
        mem_exhausted(DIGEST_BYTES);
    memcpy(&check, digest, sizeof check);
    return check;
}

static err mark_write(Ctx *c, BlobWriter *w, int64_t length) {
    Mark m = { length, os_wall_ms(c->os), 0 };
    m.check = mark_check(&m);
    TRY(file_write_at(c, w->mark, (int64_t)(w->marks++ % 2) * MARK_SLOT, &m, sizeof m));
    return file_sync(c, w->mark);
}

// The newer of the valid slots: lengths only grow, and -1 is the last of all. None: all zeros.
static err mark_read(Ctx *c, File *f, Mark *out, unsigned *out_slot) {
    Mark best = { 0 };
    for (unsigned i = 0; i < 2; i++) {
        Mark m;
        size_t got;
        TRY(file_read_at(c, f, i * MARK_SLOT, &m, sizeof m, &got));
        if (got < sizeof m || m.check != mark_check(&m)) continue;
        if (best.length == -1 || (m.length != -1 && m.length < best.length)) continue;
        best = m;
        *out_slot = i;
    }
    *out = best;
    return ERR_OK;
}

err stage_age(Ctx *c, str mark_path, int64_t *out_wall_ms) {
    File *f;
    Mark m;
    unsigned slot;
    TRY(file_open(c, mark_path, FILE_READ, &f));
    err e = mark_read(c, f, &m, &slot);
    file_close(f);
    if (!e) *out_wall_ms = m.wall_ms;
    return e;
}

// ---- opening

static bool name_ok(str s) {
    for (size_t i = 0; i < s.n; i++)
        if (!(s.p[i] >= 'a' && s.p[i] <= 'z') && !(s.p[i] >= '0' && s.p[i] <= '9') && s.p[i] != '_')
            return false;
    return s.n >= 1 && s.n <= 64;
}

static bool busy_set(BlobWriter *w) {
    pthread_mutex_lock(&w->b->lock);
    bool taken = map_get(&w->b->busy, w->name) != NULL;
    if (!taken) map_set(&w->b->busy, w->name, w);
    pthread_mutex_unlock(&w->b->lock);
    return !taken;
}

static void busy_clear(BlobWriter *w) {
    pthread_mutex_lock(&w->b->lock);
    void *was = map_del(&w->b->busy, w->name);
    pthread_mutex_unlock(&w->b->lock);
    assert(was == w);
}

// Both slots, so that none of what was there counts any more.
static err start_anew(Ctx *c, BlobWriter *w) {
    w->synced = 0;
    TRY(mark_write(c, w, 0));
    return mark_write(c, w, 0);
}

static err named_open(Ctx *c, BlobWriter *w) {
    unsigned flags = FILE_READ | FILE_WRITE | FILE_CREATE | FILE_PRIVATE;
    w->mark_path = arena_printf(w->own.mem, STR_FMT STAGE_MARK, STR_ARG(w->path));
    TRY(file_open(c, w->mark_path, flags, &w->mark));
    TRY(file_lock(c, w->mark));
    TRY(file_allocate(c, w->mark, 2 * MARK_SLOT));
    Mark m;
    TRY(mark_read(c, w->mark, &m, &w->marks));
    w->marks++;           // the next one goes to the other slot
    if (m.length == -1) { // a power cut at the rename may have kept both names of one file
        err e = path_remove(c, w->path);
        if (e && e != ERR_NOTFOUND) return e;
        TRY(dir_sync(c, str_z(w->b->staging)));
        TRY(start_anew(c, w));
    }
    // Written once more: its writer may have died before the sync, or the sync may have failed.
    if (m.length > 0) TRY(mark_write(c, w, m.length));
    TRY(file_open(c, w->path, flags, &w->f));
    int64_t there;
    TRY(file_size(c, w->f, &there));
    w->synced = m.length > 0 ? m.length : 0;
    if (w->synced > there) TRY(start_anew(c, w)); // not possible by any fault we know
    if (there > w->synced) TRY(file_truncate(c, w->f, w->synced));
    w->size = w->synced;
    return dir_sync(c, str_z(w->b->staging));
}

static err unnamed_open(Ctx *c, BlobWriter *w) {
    unsigned flags = FILE_READ | FILE_WRITE | FILE_CREATE | FILE_EXCLUSIVE | FILE_PRIVATE;
    return file_open(c, w->path, flags, &w->f);
}

static void writer_end(BlobWriter *w) {
    assert(!w->ended);
    w->ended = true;
    file_close(w->f);
    file_close(w->mark);
    EVP_MD_CTX_free(w->md);
    busy_clear(w);
    arena_free(w->own.mem);
}

static void files_remove(Ctx *c, BlobWriter *w) {
    // What cannot be removed is swept by a later blobs_open. Durable, so that a name that is staged
    // again, perhaps for other bytes, does not find these.
    err e = path_remove(c, w->path);
    if (w->mark_path.p) e = path_remove(c, w->mark_path);
    if (w->mark_path.p) e = dir_sync(c, str_z(w->b->staging));
    (void)e;
}

static void writer_left(void *arg) {
    BlobWriter *w = arg;
    if (w->ended) return;
    blob_pause(w);
}

err blob_stage(Ctx *c, Blobs *b, str name, BlobWriter **out) {
    if (name.p && !name_ok(name))
        return fail(c, ERR_INVALID, R_BLOB_NAME, "name", say_str(c, name));
    BlobWriter *w = new (c->mem, BlobWriter, 1);
    w->b = b;
    ctx_init(&w->own, arena_new(), b->os);
    w->name = arena_str(w->own.mem, name.p ? name : os_id(&w->own, "u"));
    if (!name.p) w->name = arena_printf(w->own.mem, STAGE_UNNAMED STR_FMT, STR_ARG(w->name));
    w->path = arena_printf(w->own.mem, "%s/" STR_FMT, b->staging, STR_ARG(w->name));
    if (!busy_set(w)) {
        arena_free(w->own.mem);
        return fail(c, ERR_CONFLICT, R_BLOB_STAGED, "name", say_str(c, name));
    }
    err e = name.p ? named_open(c, w) : unnamed_open(c, w);
    if (e) {
        writer_end(w);
        return e;
    }
    w->md = digest_new();
    arena_defer(c->mem, writer_left, w);
    *out = w;
    return ERR_OK;
}

// ---- growing

void blob_writer_progress(BlobWriter *w, BlobProgress progress) { w->progress = progress; }
int64_t blob_staged(const BlobWriter *w) { return w->size; }

static err hash_catch_up(Ctx *c, BlobWriter *w) {
    while (w->hashed < w->size) { // in steps, so that what was hashed counts when a later one fails
        int64_t to = w->size - w->hashed > SYNC_EVERY ? w->hashed + SYNC_EVERY : w->size;
        EVP_MD_CTX *md = digest_new();
        int ok = EVP_MD_CTX_copy_ex(md, w->md);
        assert(ok == 1);
        err e = file_hash(c, w->f, w->hashed, to, md);
        EVP_MD_CTX_free(e ? md : w->md);
        if (e) return e;
        w->md = md;
        w->hashed = to;
    }
    return ERR_OK;
}

static err broken(Ctx *c, BlobWriter *w) {
    return fail(c, ERR_UNAVAILABLE, R_BLOB_BROKEN, "name", say_str(c, w->name));
}

err blob_append(Ctx *c, BlobWriter *w, str bytes) {
    assert(!w->ended);
    if (w->broken) return broken(c, w);
    TRY(hash_catch_up(c, w));
    err e = file_write_at(c, w->f, w->size, bytes.p, bytes.n);
    int64_t there = w->size + (int64_t)bytes.n;
    if (e) { // the kernel takes what fits: the file's size tells how much that was
        Failure first = c->failure;
        err size_e = file_size(c, w->f, &there);
        c->failure = first;
        if (size_e || e != ERR_FULL) there = w->size;
        if (there > w->size + (int64_t)bytes.n) there = w->size + (int64_t)bytes.n;
    }
    if (there > w->size) {
        int ok = EVP_DigestUpdate(w->md, bytes.p, (size_t)(there - w->size));
        assert(ok == 1);
        w->size = w->hashed = there;
    }
    if (e) return e;
    return w->mark && w->size - w->synced >= SYNC_EVERY ? blob_sync(c, w) : ERR_OK;
}

err blob_sync(Ctx *c, BlobWriter *w) {
    assert(!w->ended);
    if (w->broken) return broken(c, w);
    if (w->synced == w->size) return ERR_OK;
    err e = file_sync(c, w->f);
    if (!e && w->mark) e = mark_write(c, w, w->size);
    w->broken = e != ERR_OK;
    if (!e) w->synced = w->size;
    return e;
}

// ---- ending

void blob_pause(BlobWriter *w) {
    assert(!w->ended);
    if (!w->mark) {
        blob_abandon(&w->own, w);
        return;
    }
    err e = blob_sync(&w->own, w);
    (void)e; // not synced: after a restart it continues from the last sync
    writer_end(w);
}

void blob_abandon(Ctx *c, BlobWriter *w) {
    assert(!w->ended);
    (void)c;
    files_remove(&w->own, w);
    writer_end(w);
}

// To another place than files: the staging file stays until that has it, and may go then.
static err place_away(Ctx *c, BlobWriter *w, str hex) {
    BlobPut put = { w->f, hex, w->size, w->progress.fn ? &w->progress : NULL };
    TRY(w->b->home->put(c, w->b, &put));
    if (!w->mark || !mark_write(c, w, -1)) cache_adopt(c, w->b, w->path, hex, w->size);
    return ERR_OK;
}

// The same bytes once: an object that is there with the right size stays, and the new one goes.
static err place(Ctx *c, BlobWriter *w, str hex) {
    if (w->b->home->put) return place_away(c, w, hex);
    str to = blob_path(c, w->b, hex);
    PathInfo info;
    err e = path_info(c, to, &info);
    if (e && e != ERR_NOTFOUND) return e;
    bool there = !e && info.is_file && info.size == w->size;
    if (w->mark) TRY(mark_write(c, w, -1)); // from here on the file may be the object's
    TRY(there ? path_remove(c, w->path) : path_rename(c, w->path, to));
    TRY(dir_sync(c, blob_folder(c, w->b, hex)));
    return dir_sync(c, str_z(w->b->staging));
}

err blob_commit(Ctx *c, BlobWriter *w, str want_hex, char out_hex[BLOB_DIGEST_HEX + 1],
                int64_t *out_size) {
    assert(!w->ended);
    err e = hash_catch_up(c, w);
    if (!e) e = blob_sync(c, w);
    if (e) {
        blob_pause(w);
        return e;
    }
    char got[BLOB_DIGEST_HEX + 1];
    digest_end(w->md, got);
    w->md = NULL;
    if (want_hex.p && !str_is(want_hex, got)) {
        blob_abandon(c, w);
        return fail(c, ERR_INVALID, R_BLOB_DIGEST, "got", got, "want", say_str(c, want_hex));
    }
    int64_t size = w->size;
    e = place(c, w, str_z(got));
    if (!e && (w->mark_path.p || w->b->home->put)) files_remove(c, w);
    if (e && !w->mark_path.p) files_remove(c, w); // nobody could go on with it
    writer_end(w);
    if (e) return e;
    memcpy(out_hex, got, sizeof got);
    *out_size = size;
    return ERR_OK;
}
