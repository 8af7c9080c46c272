// SPDX-License-Identifier: Apache-2.0
// blob.c - committed objects: as files, and, wherever they lie, reading, checking and removing
// them. How bytes become an object is stage.c's, a bucket s3_store.c's, local copies cache.c's.
#include "blob/cache.h"
#include "blob/s3.h"
#include <assert.h>
#include <stdlib.h>

REASONS_DEFINE(BLOB_REASONS, blob_reasons)

enum { PIECE = 256 << 10 };
enum { UNNAMED_KEPT_MS = 24 * 3600 * 1000 };
#define NAMED_KEPT_MS (30 * (int64_t)UNNAMED_KEPT_MS)

static bool hex_lower(str s) {
    for (size_t i = 0; i < s.n; i++)
        if (!(s.p[i] >= '0' && s.p[i] <= '9') && !(s.p[i] >= 'a' && s.p[i] <= 'f')) return false;
    return true;
}

bool sha256_hex_valid(str hex) { return hex.n == BLOB_DIGEST_HEX && hex_lower(hex); }

void digest_hex(const unsigned char *digest, char out[BLOB_DIGEST_HEX + 1]) {
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < 32; i++) {
        out[2 * i] = digits[digest[i] >> 4];
        out[2 * i + 1] = digits[digest[i] & 15];
    }
    out[BLOB_DIGEST_HEX] = 0;
}

// Looked up once: with what EVP_sha256 names, OpenSSL looks it up again for every digest, which
// costs more than hashing a short text.
static EVP_MD *sha256;
static void sha256_find(void) { sha256 = EVP_MD_fetch(NULL, "SHA256", NULL); }

const EVP_MD *sha256_md(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, sha256_find);
    if (!sha256) mem_exhausted(DIGEST_BYTES);
    return sha256;
}

void sha256_hex(str bytes, char out[BLOB_DIGEST_HEX + 1]) {
    unsigned char digest[32];
    if (EVP_Digest(bytes.p ? bytes.p : "", bytes.n, digest, NULL, sha256_md(), NULL) != 1)
        mem_exhausted(DIGEST_BYTES);
    digest_hex(digest, out);
}

str blob_folder(Ctx *c, Blobs *b, str hex) {
    return arena_printf(c->mem, "%s/%.2s", b->objects, hex.p);
}

str blob_path(Ctx *c, Blobs *b, str hex) {
    assert(sha256_hex_valid(hex));
    return arena_printf(c->mem, "%s/%.2s/%.62s", b->objects, hex.p, hex.p + 2);
}

err blob_absent(Ctx *c, str hex) {
    return fail(c, ERR_NOTFOUND, R_BLOB_ABSENT, "digest", say_str(c, hex));
}

// All 256 folders exist from the start, so that no commit depends on another's dir_sync of them.
static err folders_make(Ctx *c, Blobs *b) {
    str *names;
    size_t n;
    TRY(dir_make(c, str_z(b->objects), 0755));
    TRY(dir_make(c, str_z(b->staging), 0700));
    TRY(dir_list(c, str_z(b->objects), &names, &n));
    if (n >= 256) return ERR_OK;
    for (unsigned i = 0; i < 256; i++)
        TRY(dir_make(c, arena_printf(c->mem, "%s/%02x", b->objects, i), 0755));
    TRY(dir_sync(c, str_z(b->objects)));
    return dir_sync(c, str_z(b->dir));
}

// Whether an earlier process's file is not wanted any more: an unnamed one after a day, a named one
// a month after its last sync, or when none was ever finished, a mark without its file.
static bool stale(Ctx *c, str path, const PathInfo *info, bool unnamed) {
    int64_t now_ms = os_wall_ms(c->os), synced_ms = 0;
    if (unnamed) return now_ms - info->modified_ms > UNNAMED_KEPT_MS;
    str mark = path;
    if (!str_ends(path, S(STAGE_MARK)))
        mark = arena_printf(c->mem, STR_FMT STAGE_MARK, STR_ARG(path));
    PathInfo other;
    str data = str_sub(mark, 0, mark.n - strlen(STAGE_MARK));
    if (path_info(c, data, &other) == ERR_NOTFOUND) return true;
    err e = stage_age(c, mark, &synced_ms);
    return e == ERR_NOTFOUND || (!e && now_ms - synced_ms > NAMED_KEPT_MS);
}

static err staging_sweep(Ctx *c, Blobs *b) {
    str *names;
    size_t n;
    TRY(dir_list(c, str_z(b->staging), &names, &n));
    for (size_t i = 0; i < n; i++) {
        str path = arena_printf(c->mem, "%s/" STR_FMT, b->staging, STR_ARG(names[i]));
        PathInfo info;
        if (path_info(c, path, &info) || !info.is_file) continue;
        if (!stale(c, path, &info, str_starts(names[i], S(STAGE_UNNAMED)))) continue;
        err e = path_remove(c, path);
        if (e && e != ERR_NOTFOUND) return e;
    }
    return ERR_OK;
}

err blobs_open(Ctx *c, str dir, Blobs **out) {
    Blobs *b = mem_new(sizeof *b);
    uint64_t seed;
    os_random(c->os, &seed, sizeof seed);
    map_init(&b->busy, seed);
    pthread_mutex_init(&b->lock, NULL);
    b->os = c->os;
    b->mem = arena_new();
    b->places[b->places_n++] = b->home = &place_files;
    b->dir = arena_z(b->mem, dir);
    b->objects = arena_printf(b->mem, "%s/blob", b->dir).p;
    b->staging = arena_printf(b->mem, "%s/staging", b->dir).p;
    b->rotten = arena_printf(b->mem, "%s/rotten", b->dir).p;
    err e = folders_make(c, b);
    if (!e) e = staging_sweep(c, b);
    if (e) {
        blobs_close(b);
        return e;
    }
    *out = b;
    return ERR_OK;
}

void blobs_close(Blobs *b) {
    if (!b) return;
    assert(b->busy.live == 0);
    cache_close(b->cache);
    s3_close(b->s3);
    map_done(&b->busy);
    pthread_mutex_destroy(&b->lock);
    arena_free(b->mem);
    mem_free(b);
}

err blobs_use_s3(Ctx *c, Blobs *b, const S3Config *config, bool home) {
    assert(!b->s3);
    TRY(s3_open(c, config, &b->s3));
    b->places[b->places_n++] = &place_s3;
    if (home) b->home = &place_s3;
    return cache_open(c, b, &b->cache);
}

bool blobs_remote(const Blobs *b) { return b->s3 != NULL; }

// ---- as files

static err files_find(Ctx *c, Blobs *b, str hex, int64_t *out_size) {
    PathInfo info;
    err e = path_info(c, blob_path(c, b, hex), &info);
    if (e == ERR_NOTFOUND || (!e && !info.is_file)) return blob_absent(c, hex);
    *out_size = info.size;
    return e;
}

static err files_open(Ctx *c, Blobs *b, str hex, BlobReader *r) {
    err e = file_open(c, blob_path(c, b, hex), FILE_READ, &r->f);
    if (e == ERR_NOTFOUND) return blob_absent(c, hex);
    if (!e) e = file_size(c, r->f, &r->size);
    return e;
}

static err files_read(Ctx *c, BlobReader *r, int64_t at, void *out, size_t n, size_t *out_got) {
    return file_read_at(c, r->f, at, out, n, out_got);
}

static void files_close(BlobReader *r) { file_close(r->f); }

static err files_remove(Ctx *c, Blobs *b, str hex) {
    err e = path_remove(c, blob_path(c, b, hex));
    if (e == ERR_NOTFOUND) return blob_absent(c, hex);
    return e ? e : dir_sync(c, blob_folder(c, b, hex));
}

static str rotten_path(Ctx *c, Blobs *b, str hex) {
    return arena_printf(c->mem, "%s/" STR_FMT, b->rotten, STR_ARG(hex));
}

// Its content is worthless, so only that it is gone from its place must last.
static err files_quarantine(Ctx *c, Blobs *b, str hex) {
    TRY(dir_make(c, str_z(b->rotten), 0700));
    err e = path_rename(c, blob_path(c, b, hex), rotten_path(c, b, hex));
    if (e == ERR_NOTFOUND) return blob_absent(c, hex);
    if (!e) e = dir_sync(c, str_z(b->rotten));
    return e ? e : dir_sync(c, blob_folder(c, b, hex));
}

static err files_rotten(Ctx *c, Blobs *b, str hex, bool *out) {
    PathInfo info;
    Failure before = c->failure;
    err e = path_info(c, rotten_path(c, b, hex), &info);
    *out = !e;
    if (e != ERR_NOTFOUND) return e;
    c->failure = before;
    return ERR_OK;
}

static err files_rotten_remove(Ctx *c, Blobs *b, str hex) {
    err e = path_remove(c, rotten_path(c, b, hex));
    return e == ERR_NOTFOUND ? ERR_OK : e;
}

static err files_list(Ctx *c, Blobs *b, str prefix2, str **out_hex, size_t *out_n) {
    str *names;
    size_t n, kept = 0;
    TRY(dir_list(c, blob_folder(c, b, prefix2), &names, &n));
    for (size_t i = 0; i < n; i++)
        if (names[i].n == BLOB_DIGEST_HEX - 2 && hex_lower(names[i]))
            names[kept++] = arena_printf(c->mem, "%.2s%.62s", prefix2.p, names[i].p);
    *out_hex = names;
    *out_n = kept;
    return ERR_OK;
}

const Place place_files = { .find = files_find,
                            .open = files_open,
                            .read = files_read,
                            .close = files_close,
                            .remove = files_remove,
                            .quarantine = files_quarantine,
                            .rotten = files_rotten,
                            .rotten_remove = files_rotten_remove,
                            .list = files_list };

// ---- wherever they are

err blob_find(Ctx *c, Blobs *b, str hex, int64_t *out_size) {
    int64_t size;
    err e = ERR_NOTFOUND;
    if (!sha256_hex_valid(hex)) return blob_absent(c, hex);
    for (size_t i = 0; i < b->places_n && e == ERR_NOTFOUND; i++)
        e = b->places[i]->find(c, b, hex, &size);
    if (e == ERR_NOTFOUND) return blob_absent(c, hex);
    if (!e && out_size) *out_size = size;
    return e;
}

bool blob_has(Ctx *c, Blobs *b, str hex) { return !blob_find(c, b, hex, NULL); }

err blob_open(Ctx *c, Blobs *b, str hex, BlobReader **out, int64_t *out_size) {
    err e = ERR_NOTFOUND;
    if (!sha256_hex_valid(hex)) return blob_absent(c, hex);
    BlobReader *r = mem_new(sizeof *r);
    r->b = b;
    memcpy(r->hex, hex.p, BLOB_DIGEST_HEX);
    for (size_t i = 0; i < b->places_n && e == ERR_NOTFOUND; i++) {
        r->place = b->places[i];
        e = r->place->open(c, b, hex, r);
    }
    if (e) {
        blob_close(r);
        return e == ERR_NOTFOUND ? blob_absent(c, hex) : e;
    }
    *out = r, *out_size = r->size;
    return ERR_OK;
}

err blob_read_at(Ctx *c, BlobReader *r, int64_t at, void *out, size_t n, size_t *out_got) {
    return r->place->read(c, r, at, out, n, out_got);
}

void blob_close(BlobReader *r) {
    if (!r) return;
    r->place->close(r);
    mem_free(r);
}

// From each place it is in.
err blob_remove(Ctx *c, Blobs *b, str hex) {
    bool any = false;
    if (!sha256_hex_valid(hex)) return blob_absent(c, hex);
    cache_forget(c, b, hex);
    for (size_t i = 0; i < b->places_n; i++) {
        err e = b->places[i]->remove(c, b, hex);
        if (e && e != ERR_NOTFOUND) return e;
        any = any || !e;
    }
    return any ? ERR_OK : blob_absent(c, hex);
}

typedef struct Hashing { // of a file or of an object
    File *f;
    BlobReader *r;
    int64_t from, to;
    EVP_MD_CTX *md;
    const BlobProgress *progress;
} Hashing;

static err hash(Ctx *c, const Hashing *h) {
    int64_t from = h->from, to = h->to;
    char *piece = mem_new(PIECE);
    err e = ERR_OK;
    while (!e && from < to) {
        size_t want = to - from < PIECE ? (size_t)(to - from) : PIECE, got = 0;
        e = ctx_check(c);
        if (!e && h->f) e = file_read_at(c, h->f, from, piece, want, &got);
        if (!e && h->r) e = blob_read_at(c, h->r, from, piece, want, &got);
        if (!e && got < want)
            e = fail(c, ERR_INTERNAL, R_INTERNAL, "why", "a file became shorter while it was read");
        if (e) break;
        int ok = EVP_DigestUpdate(h->md, piece, got);
        assert(ok == 1);
        from += (int64_t)got;
        if (h->progress) h->progress->fn(h->progress->arg, from, to);
    }
    mem_free(piece);
    return e;
}

err file_hash(Ctx *c, File *f, int64_t from, int64_t to, EVP_MD_CTX *md) {
    return hash(c, &(Hashing){ .f = f, .from = from, .to = to, .md = md });
}

err blob_verify(Ctx *c, Blobs *b, str hex) { return blob_verify_slowly(c, b, hex, NULL); }

err blob_verify_slowly(Ctx *c, Blobs *b, str hex, const BlobProgress *progress) {
    BlobReader *r;
    int64_t size;
    TRY(blob_open(c, b, hex, &r, &size));
    EVP_MD_CTX *md = digest_new();
    err e = hash(c, &(Hashing){ .r = r, .to = size, .md = md, .progress = progress });
    char got[BLOB_DIGEST_HEX + 1];
    digest_end(md, got);
    blob_close(r);
    if (!e && !str_is(hex, got))
        e = fail(c, ERR_INTERNAL, R_BLOB_ROTTEN, "digest", say_str(c, hex));
    return e;
}

// The one that is read; one behind it is looked at the next time.
err blob_quarantine(Ctx *c, Blobs *b, str hex) {
    err e = ERR_NOTFOUND;
    if (!sha256_hex_valid(hex)) return blob_absent(c, hex);
    for (size_t i = 0; i < b->places_n && e == ERR_NOTFOUND; i++)
        e = b->places[i]->quarantine(c, b, hex);
    return e == ERR_NOTFOUND ? blob_absent(c, hex) : e;
}

err blob_rotten(Ctx *c, Blobs *b, str hex, bool *out) {
    *out = false;
    if (!sha256_hex_valid(hex)) return blob_absent(c, hex);
    for (size_t i = 0; i < b->places_n && !*out; i++) TRY(b->places[i]->rotten(c, b, hex, out));
    return ERR_OK;
}

err blob_rotten_remove(Ctx *c, Blobs *b, str hex) {
    if (!sha256_hex_valid(hex)) return blob_absent(c, hex);
    for (size_t i = 0; i < b->places_n; i++) TRY(b->places[i]->rotten_remove(c, b, hex));
    return ERR_OK;
}

static int by_digest(const void *a, const void *b) {
    return str_cmp(*(const str *)a, *(const str *)b);
}

err blob_list(Ctx *c, Blobs *b, str prefix2, str **out_hex, size_t *out_n) {
    assert(prefix2.n == 2 && hex_lower(prefix2));
    str *found[countof(b->places)], *all;
    size_t n[countof(b->places)], total = 0, kept = 0;
    for (size_t i = 0; i < b->places_n; i++) {
        TRY(b->places[i]->list(c, b, prefix2, &found[i], &n[i]));
        total += n[i];
    }
    all = new (c->mem, str, total + 1);
    total = 0;
    for (size_t i = 0; i < b->places_n; i++)
        for (size_t k = 0; k < n[i]; k++) all[total++] = found[i][k];
    if (total) qsort(all, total, sizeof *all, by_digest);
    for (size_t i = 0; i < total; i++)
        if (!kept || !str_eq(all[kept - 1], all[i])) all[kept++] = all[i];
    *out_hex = all, *out_n = kept;
    return ERR_OK;
}

err blob_import(Ctx *c, Blobs *b, str path, const BlobProgress *progress,
                char out_hex[BLOB_DIGEST_HEX + 1], int64_t *out_size) {
    PathInfo info;
    TRY(path_info(c, path, &info));
    if (!info.is_file) // opening a pipe or a device could block, and has no end
        return fail(c, ERR_INVALID, R_OS, "what", "import", "path", say_str(c, path), "why",
                    "it is not a regular file");
    File *from;
    BlobWriter *w;
    TRY(file_open(c, path, FILE_READ, &from));
    err e = blob_stage(c, b, (str){ 0 }, &w);
    char *piece = e ? NULL : mem_new(PIECE);
    for (size_t got = PIECE; !e && got == PIECE;) {
        e = ctx_check(c);
        if (!e) e = file_read_at(c, from, blob_staged(w), piece, PIECE, &got);
        if (!e) e = blob_append(c, w, str_n(piece, got));
        if (!e && progress) {
            int64_t done = blob_staged(w);
            progress->fn(progress->arg, done, done > info.size ? done : info.size);
        }
    }
    file_close(from);
    if (!piece) return e;
    mem_free(piece);
    if (!e) return blob_commit(c, w, (str){ 0 }, out_hex, out_size);
    blob_abandon(c, w);
    return e;
}
