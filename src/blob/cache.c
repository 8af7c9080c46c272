// SPDX-License-Identifier: Apache-2.0
// cache.c - see cache.h and blob/store.h. A copy is whole, synced and of its digest before it has
// its name, so what stands there after a power cut is good. The one that was used longest ago goes
// when there is no room; not one that is pinned. Removing a file that a child has mapped is
// harmless, but frees nothing while it runs: hence the pins.
// Owner: entries and fetches are the heap's. Threads: `lock` guards all of Cache.
#include "blob/cache.h"
#include <assert.h>
#include <time.h>

enum { WATCH_MS = 50 };
#define PART_NAME ".part"
static const int64_t margin = 64 << 20; // the database and the journal go on

typedef struct Entry {
    char hex[BLOB_DIGEST_HEX + 1];
    int64_t size;
    uint64_t used;
} Entry;
typedef struct Fetch { // freed by the last who waits for it
    char hex[BLOB_DIGEST_HEX + 1];
    int64_t done, total;
    int waiting;
    bool over;
    err failed;
    Arena *mem; // of why
    Failure why;
} Fetch;
typedef struct Pins {
    char *owner;
    char (*hex)[BLOB_DIGEST_HEX + 1];
    size_t n;
} Pins;
struct Cache {
    Blobs *b;
    const char *dir;
    pthread_mutex_t lock;
    pthread_cond_t moved;
    Map entries, fetches, pins;   // by digest; by digest; by owner
    int64_t bytes, promised, max; // promised: of fetches under way
    uint64_t clock;
};

static str path_of(Ctx *c, const Cache *k, str hex) {
    return arena_printf(c->mem, "%s/%.64s", k->dir, hex.p);
}

// ---- entries; the caller holds the lock

static void entry_add(Cache *k, str hex, int64_t size) {
    Entry *e = map_get(&k->entries, hex);
    if (!e) {
        e = mem_new(sizeof *e);
        memcpy(e->hex, hex.p, BLOB_DIGEST_HEX);
        map_set(&k->entries, str_z(e->hex), e);
    }
    k->bytes += size - e->size;
    e->size = size, e->used = ++k->clock;
}

static void entry_drop(Cache *k, str hex) {
    Entry *e = map_del(&k->entries, hex);
    if (!e) return;
    k->bytes -= e->size;
    mem_free(e);
}

static bool pinned(Cache *k, str hex) {
    MapEntry *at;
    for (size_t i = 0; map_each(&k->pins, &i, &at);) {
        const Pins *p = at->value;
        for (size_t n = 0; n < p->n; n++)
            if (str_is(hex, p->hex[n])) return true;
    }
    return false;
}

static Entry *oldest(Cache *k) {
    MapEntry *at;
    Entry *old = NULL;
    for (size_t i = 0; map_each(&k->entries, &i, &at);) {
        Entry *e = at->value;
        if ((!old || e->used < old->used) && !pinned(k, str_z(e->hex))) old = e;
    }
    return old;
}

// True when `bytes` more fit, after others went.
static bool room_make(Ctx *c, Cache *k, int64_t bytes) {
    Failure before = c->failure;
    while (bytes <= k->max && k->bytes + k->promised > k->max - bytes) {
        Entry *e = oldest(k);
        if (!e) break;
        err gone = path_remove(c, path_of(c, k, str_z(e->hex)));
        (void)gone; // what cannot be removed is found again at the next start
        entry_drop(k, str_z(e->hex));
    }
    c->failure = before;
    return bytes <= k->max && k->bytes + k->promised <= k->max - bytes;
}

// ---- opening

static err load(Ctx *c, Cache *k) {
    str *names;
    size_t n;
    TRY(dir_make(c, str_z(k->dir), 0700));
    TRY(dir_list(c, str_z(k->dir), &names, &n));
    for (size_t i = 0; i < n; i++) {
        PathInfo info;
        str path = arena_printf(c->mem, "%s/" STR_FMT, k->dir, STR_ARG(names[i]));
        err e = path_info(c, path, &info);
        if (!e && info.is_file && sha256_hex_valid(names[i])) {
            entry_add(k, names[i], info.size);
            ((Entry *)map_get(&k->entries, names[i]))->used = (uint64_t)(info.modified_ms / 1000);
        } else if (!e && str_ends(names[i], S(PART_NAME))) TRY(path_remove(c, path));
    }
    k->clock = (uint64_t)(os_wall_ms(c->os) / 1000); // files of earlier lives are older
    return ERR_OK;
}

err cache_open(Ctx *c, Blobs *b, Cache **out) {
    Cache *k = mem_new(sizeof *k);
    uint64_t seed;
    pthread_condattr_t attr;
    os_random(c->os, &seed, sizeof seed);
    *k = (Cache){ .b = b, .max = INT64_MAX / 2 };
    k->dir = arena_printf(b->mem, "%s/cached", b->dir).p;
    map_init(&k->entries, seed), map_init(&k->fetches, seed), map_init(&k->pins, seed);
    pthread_mutex_init(&k->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&k->moved, &attr);
    pthread_condattr_destroy(&attr);
    *out = k;
    return load(c, k);
}

static void pins_free(Pins *p) {
    if (!p) return;
    mem_free(p->owner);
    mem_free(p->hex);
    mem_free(p);
}

void cache_close(Cache *k) {
    MapEntry *at;
    if (!k) return;
    assert(!k->fetches.live);
    for (size_t i = 0; map_each(&k->entries, &i, &at);) mem_free(at->value);
    for (size_t i = 0; map_each(&k->pins, &i, &at);) pins_free(at->value);
    map_done(&k->entries), map_done(&k->fetches), map_done(&k->pins);
    pthread_cond_destroy(&k->moved);
    pthread_mutex_destroy(&k->lock);
    mem_free(k);
}

void blobs_cache_max(Blobs *b, int64_t bytes) {
    if (!b->cache) return;
    pthread_mutex_lock(&b->cache->lock);
    b->cache->max = bytes;
    pthread_mutex_unlock(&b->cache->lock);
}

int64_t blobs_cache_bytes(Blobs *b) {
    if (!b->cache) return 0;
    pthread_mutex_lock(&b->cache->lock);
    int64_t bytes = b->cache->bytes;
    pthread_mutex_unlock(&b->cache->lock);
    return bytes;
}

void blobs_pin(Blobs *b, str owner, const str *hex, size_t n) {
    Cache *k = b ? b->cache : NULL;
    if (!k) return;
    Pins *p = n ? mem_new(sizeof *p) : NULL;
    if (p) {
        *p = (Pins){ mem_strdup(owner), mem_new(n * sizeof *p->hex), 0 };
        for (size_t i = 0; i < n; i++)
            if (sha256_hex_valid(hex[i])) memcpy(p->hex[p->n++], hex[i].p, BLOB_DIGEST_HEX);
    }
    pthread_mutex_lock(&k->lock);
    Pins *was = map_del(&k->pins, owner);
    if (p) map_set(&k->pins, str_z(p->owner), p);
    pthread_mutex_unlock(&k->lock);
    pins_free(was);
}

void cache_forget(Ctx *c, Blobs *b, str hex) {
    Cache *k = b->cache;
    Failure before = c->failure;
    if (!k) return;
    pthread_mutex_lock(&k->lock);
    bool there = map_get(&k->entries, hex) != NULL;
    entry_drop(k, hex);
    pthread_mutex_unlock(&k->lock);
    if (there && path_remove(c, path_of(c, k, hex))) c->failure = before;
}

void cache_adopt(Ctx *c, Blobs *b, str path, str hex, int64_t size) {
    Cache *k = b->cache;
    Failure before = c->failure;
    pthread_mutex_lock(&k->lock);
    bool fits = !map_get(&k->entries, hex) && room_make(c, k, size);
    if (fits && !path_rename(c, path, path_of(c, k, hex))) entry_add(k, hex, size);
    pthread_mutex_unlock(&k->lock);
    if (fits && dir_sync(c, str_z(k->dir))) c->failure = before;
    c->failure = before;
}

// ---- asking

err blob_local(Ctx *c, Blobs *b, str hex, str *out_path) {
    int64_t size;
    Cache *k = b->cache;
    if (!sha256_hex_valid(hex)) return blob_absent(c, hex);
    *out_path = blob_path(c, b, hex);
    err e = place_files.find(c, b, hex, &size);
    if (e != ERR_NOTFOUND || !k) return e;
    pthread_mutex_lock(&k->lock);
    Entry *at = map_get(&k->entries, hex);
    if (at) at->used = ++k->clock;
    pthread_mutex_unlock(&k->lock);
    *out_path = path_of(c, k, hex);
    PathInfo info;
    if (at && !path_info(c, *out_path, &info)) return ERR_OK;
    if (at) cache_forget(c, b, hex); // somebody removed the file
    return blob_absent(c, hex);
}

typedef struct Pulling {
    Cache *k;
    Fetch *f;
    File *file;
    int64_t at;
    EVP_MD_CTX *md;
    const BlobProgress *progress;
} Pulling;

static err take(Ctx *c, void *arg, str bytes) {
    Pulling *p = arg;
    TRY(file_write_at(c, p->file, p->at, bytes.p, bytes.n));
    int ok = EVP_DigestUpdate(p->md, bytes.p, bytes.n);
    assert(ok == 1);
    p->at += (int64_t)bytes.n;
    pthread_mutex_lock(&p->k->lock);
    p->f->done = p->at;
    pthread_mutex_unlock(&p->k->lock);
    if (p->progress) p->progress->fn(p->progress->arg, p->at, p->f->total);
    return ERR_OK;
}

static err keep(Ctx *c, Pulling *p, str part, str hex) {
    char got[BLOB_DIGEST_HEX + 1];
    digest_end(p->md, got);
    p->md = NULL;
    if (!str_is(hex, got)) return fail(c, ERR_INTERNAL, R_BLOB_ROTTEN, "digest", say_str(c, hex));
    TRY(file_sync(c, p->file));
    TRY(path_rename(c, part, path_of(c, p->k, hex)));
    return dir_sync(c, str_z(p->k->dir));
}

static err bring_file(Ctx *c, Pulling *p, str hex) {
    Cache *k = p->k;
    BlobSink sink = { take, p };
    int64_t size;
    str part = arena_printf(c->mem, STR_FMT PART_NAME, STR_ARG(path_of(c, k, hex)));
    TRY(file_open(c, part, FILE_READ | FILE_WRITE | FILE_CREATE | FILE_TRUNCATE | FILE_PRIVATE,
                  &p->file));
    p->md = digest_new();
    err e = s3_pull(c, k->b, hex, &sink, &size);
    if (!e) e = keep(c, p, part, hex);
    EVP_MD_CTX_free(p->md);
    file_close(p->file);
    if (!e) return ERR_OK;
    Failure why = c->failure;
    if (path_remove(c, part)) c->failure = why;
    c->failure = why;
    return e;
}

static err no_room(Ctx *c, const Cache *k, int64_t size, int64_t limit) {
    (void)k;
    return fail(c, ERR_FULL, R_CACHE_FULL, "bytes", say(c, "%lld", (long long)size), "limit",
                say(c, "%lld", (long long)limit));
}

static err room_check(Ctx *c, Cache *k, int64_t size) {
    int64_t free_bytes, max;
    pthread_mutex_lock(&k->lock);
    bool fits = room_make(c, k, size);
    max = k->max;
    if (fits) k->promised += size;
    pthread_mutex_unlock(&k->lock);
    if (!fits) return no_room(c, k, size, max);
    err e = disk_free(c, str_z(k->dir), &free_bytes);
    if (!e && size > free_bytes - margin)
        e = fail(c, ERR_FULL, R_DISK_FULL, "path", say_str(c, str_z(k->dir)));
    if (!e) return ERR_OK;
    pthread_mutex_lock(&k->lock);
    k->promised -= size;
    pthread_mutex_unlock(&k->lock);
    return e;
}

static err bring(Ctx *c, Cache *k, Fetch *f, const BlobProgress *progress) {
    str hex = str_z(f->hex);
    int64_t size;
    TRY(place_s3.find(c, k->b, hex, &size));
    TRY(room_check(c, k, size));
    pthread_mutex_lock(&k->lock);
    f->total = size;
    pthread_mutex_unlock(&k->lock);
    err e = bring_file(c, &(Pulling){ .k = k, .f = f, .progress = progress }, hex);
    pthread_mutex_lock(&k->lock);
    k->promised -= size;
    if (!e) entry_add(k, hex, size);
    pthread_mutex_unlock(&k->lock);
    return e;
}

// The caller holds the lock and is one of f->waiting.
static void leave(Cache *k, Fetch *f) {
    if (f->over && map_get(&k->fetches, str_z(f->hex)) == f) map_del(&k->fetches, str_z(f->hex));
    if (--f->waiting) return;
    arena_free(f->mem);
    mem_free(f);
}

static err lead(Ctx *c, Cache *k, Fetch *f, const BlobProgress *progress) {
    pthread_mutex_unlock(&k->lock);
    err e = bring(c, k, f, progress);
    pthread_mutex_lock(&k->lock);
    f->over = true, f->failed = e;
    if (e) f->why = failure_copy(f->mem, &c->failure);
    pthread_cond_broadcast(&k->moved);
    leave(k, f);
    return e;
}

// ERR_CANCELLED with *out_again: who brought it left.
static err follow(Ctx *c, Cache *k, Fetch *f, const BlobProgress *progress, bool *out_again) {
    err e = ERR_OK;
    while (!f->over && !e) {
        int64_t at_ns = os_mono_ns(c->os) + (int64_t)WATCH_MS * 1000000;
        struct timespec at = { at_ns / 1000000000, at_ns % 1000000000 };
        pthread_cond_clockwait(&k->moved, &k->lock, CLOCK_MONOTONIC, &at);
        int64_t done = f->done, total = f->total;
        pthread_mutex_unlock(&k->lock);
        if (progress) progress->fn(progress->arg, done, total);
        e = ctx_check(c);
        pthread_mutex_lock(&k->lock);
    }
    if (!e) e = f->failed;
    *out_again = f->over && (f->failed == ERR_CANCELLED || f->failed == ERR_TIMEOUT);
    if (f->over && f->failed) c->failure = failure_copy(c->mem, &f->why);
    leave(k, f);
    return e;
}

err blob_fetch(Ctx *c, Blobs *b, str hex, const BlobProgress *progress, str *out_path) {
    Cache *k = b->cache;
    for (;;) {
        err e = blob_local(c, b, hex, out_path);
        if (e != ERR_NOTFOUND || !k) return e;
        bool again = false;
        TRY(ctx_check(c));
        pthread_mutex_lock(&k->lock);
        Fetch *f = map_get(&k->fetches, hex);
        bool first = !f;
        if (first) {
            f = mem_new(sizeof *f);
            f->mem = arena_new();
            memcpy(f->hex, hex.p, BLOB_DIGEST_HEX);
            map_set(&k->fetches, str_z(f->hex), f);
        }
        f->waiting++;
        e = first ? lead(c, k, f, progress) : follow(c, k, f, progress, &again);
        pthread_mutex_unlock(&k->lock);
        if (e && !again) return e == ERR_NOTFOUND ? blob_absent(c, hex) : e;
    }
}

// ---- from one store to the other

static err append(Ctx *c, void *arg, str bytes) { return blob_append(c, arg, bytes); }

static err move_here(Ctx *c, Blobs *b, str hex, bool *out_moved) {
    BlobWriter *w;
    BlobSink sink = { append, NULL };
    char got[BLOB_DIGEST_HEX + 1];
    int64_t size;
    err e = place_s3.find(c, b, hex, &size);
    if (e) return e;
    *out_moved = true;
    if (place_files.find(c, b, hex, &size) == ERR_OK) return place_s3.remove(c, b, hex);
    TRY(blob_stage(c, b, (str){ 0 }, &w));
    sink.arg = w;
    e = s3_pull(c, b, hex, &sink, &size);
    if (e) {
        blob_abandon(c, w);
        return e;
    }
    TRY(blob_commit(c, w, hex, got, &size));
    return place_s3.remove(c, b, hex);
}

// A file that rotted keeps its place, where a scrub finds it.
static err move_away(Ctx *c, Blobs *b, str hex, const BlobProgress *progress, bool *out_moved) {
    BlobPut put = { .hex = hex, .progress = progress };
    char got[BLOB_DIGEST_HEX + 1];
    TRY(place_files.find(c, b, hex, &put.size));
    TRY(file_open(c, blob_path(c, b, hex), FILE_READ, &put.from));
    EVP_MD_CTX *md = digest_new();
    err e = file_hash(c, put.from, 0, put.size, md);
    digest_end(md, got);
    if (!e && !str_is(hex, got))
        e = fail(c, ERR_INTERNAL, R_BLOB_ROTTEN, "digest", say_str(c, hex));
    if (!e) e = place_s3.put(c, b, &put);
    file_close(put.from);
    TRY(e);
    *out_moved = true;
    cache_adopt(c, b, blob_path(c, b, hex), hex, put.size);
    e = place_files.remove(c, b, hex);
    return e == ERR_NOTFOUND ? dir_sync(c, blob_folder(c, b, hex)) : e;
}

err blob_move(Ctx *c, Blobs *b, str hex, const BlobProgress *progress, bool *out_moved) {
    *out_moved = false;
    if (!sha256_hex_valid(hex)) return blob_absent(c, hex);
    if (!b->s3) return blob_find(c, b, hex, NULL);
    bool here = b->home == &place_files;
    err e = here ? move_here(c, b, hex, out_moved) : move_away(c, b, hex, progress, out_moved);
    return e == ERR_NOTFOUND ? blob_find(c, b, hex, NULL) : e;
}
