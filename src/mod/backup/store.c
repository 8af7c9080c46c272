// SPDX-License-Identifier: Apache-2.0
// store.c - the folder of a backup: objects by content (blob/blob.h), and files in pieces which are
// such objects too, so that a piece that did not change since the last backup is there already.
// Owner, threads: backup_own.h.
#include "mod/backup/backup_own.h"
#include <assert.h>
#include <openssl/evp.h>
#include <stdio.h>

static const char marker[] = "lathe backup 1\n";
static const char *const own_names[] = { "lathe-backup", "blob", "point", "log",
                                         "staging",      "temp", "lock" };

static err not_one(Ctx *c, str dir, const char *why) {
    return fail(c, ERR_INVALID, R_BACKUP_FOLDER, "path", say_str(c, dir), "why", why);
}

// A folder of someone else's is never written to.
static err ours_or_empty(Ctx *c, str dir) {
    str *names;
    size_t n;
    TRY(dir_list(c, dir, &names, &n));
    for (size_t i = 0; i < n; i++) {
        bool ours = false;
        for (size_t k = 0; k < countof(own_names); k++) ours |= str_is(names[i], own_names[k]);
        if (!ours) return not_one(c, dir, "it holds other files");
    }
    return ERR_OK;
}

static err store_make(Ctx *c, Store *s) {
    str path = arena_printf(c->mem, STR_FMT "/lathe-backup", STR_ARG(s->dir)), there;
    TRY(dir_make(c, s->dir, 0700));
    TRY(ours_or_empty(c, s->dir));
    str lock = arena_printf(c->mem, STR_FMT "/lock", STR_ARG(s->dir));
    TRY(file_open(c, lock, FILE_READ | FILE_WRITE | FILE_CREATE | FILE_PRIVATE, &s->lock));
    TRY(file_lock(c, s->lock));
    TRY(dir_make(c, arena_printf(c->mem, STR_FMT "/point", STR_ARG(s->dir)), 0700));
    TRY(dir_make(c, arena_printf(c->mem, STR_FMT "/log", STR_ARG(s->dir)), 0700));
    str temp = arena_printf(c->mem, STR_FMT "/temp", STR_ARG(s->dir));
    TRY(path_remove_tree(c, temp)); // what a backup that was killed left
    TRY(dir_make(c, temp, 0700));
    err e = file_read_all(c, path, 100, &there);
    return e == ERR_NOTFOUND ? file_write_all(c, path, str_z(marker), FILE_PRIVATE) : e;
}

err store_open(Ctx *c, str dir, bool make, Store *out) {
    str there;
    *out = (Store){ .dir = arena_str(c->mem, dir) };
    if (make) TRY(store_make(c, out));
    err e =
        file_read_all(c, arena_printf(c->mem, STR_FMT "/lathe-backup", STR_ARG(dir)), 100, &there);
    if (e == ERR_NOTFOUND) return not_one(c, dir, "it has no file lathe-backup");
    if (e) return e;
    if (!str_is(there, marker)) return not_one(c, dir, "its format is not known here");
    return blobs_open(c, dir, &out->objects);
}

void store_close(Store *s) {
    blobs_close(s->objects);
    file_close(s->lock);
    s->objects = NULL, s->lock = NULL;
}

static void step(Work *w, int64_t n) {
    w->done += n;
    if (w->fn) w->fn(w->arg, w->done, w->total > w->done ? w->total : w->done);
}

err store_put(Ctx *c, Store *s, str bytes, Work *w, char out_hex[BLOB_DIGEST_HEX + 1]) {
    int64_t size = (int64_t)bytes.n;
    sha256_hex(bytes, out_hex);
    step(w, size);
    if (blob_has(c, s->objects, str_n(out_hex, BLOB_DIGEST_HEX))) return ERR_OK;
    BlobWriter *b;
    ArenaMark mark = arena_mark(c->mem); // of thousands of pieces nothing is kept
    TRY(blob_stage(c, s->objects, (str){ 0 }, &b));
    err e = blob_append(c, b, bytes);
    if (e) {
        blob_abandon(c, b);
        return e;
    }
    w->copied += size;
    TRY(blob_commit(c, b, str_n(out_hex, BLOB_DIGEST_HEX), out_hex, &size));
    arena_restore(c->mem, mark);
    return ERR_OK;
}

static void digest_text(EVP_MD_CTX *md, char out[BLOB_DIGEST_HEX + 1]) {
    unsigned char digest[32];
    int ok = EVP_DigestFinal_ex(md, digest, NULL);
    assert(ok == 1);
    for (int i = 0; i < 32; i++) snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

static err put_pieces(Ctx *c, Store *s, File *f, Part *p, EVP_MD_CTX *md, Work *w) {
    char *piece = mem_new(PIECE_BYTES), hex[BLOB_DIGEST_HEX + 1];
    err e = ERR_OK;
    for (int64_t at = 0; !e && at < p->size; at += PIECE_BYTES) {
        size_t want = p->size - at < PIECE_BYTES ? (size_t)(p->size - at) : PIECE_BYTES, got = 0;
        e = ctx_check(c);
        if (!e) e = file_read_at(c, f, at, piece, want, &got);
        if (!e && got < want) memset(piece + got, 0, want - got); // a spare of the journal was cut
        if (!e) e = store_put(c, s, str_n(piece, want), w, hex);
        if (e) break;
        EVP_DigestUpdate(md, piece, want);
        p->pieces[p->pieces_n++] = arena_str(c->mem, str_n(hex, BLOB_DIGEST_HEX));
    }
    mem_free(piece);
    return e;
}

err store_put_file(Ctx *c, Store *s, File *f, int64_t size, Work *w, Part *out) {
    char hex[BLOB_DIGEST_HEX + 1];
    *out = (Part){ .name = out->name, .size = size };
    out->pieces = new (c->mem, str, (size_t)(size / PIECE_BYTES) + 1);
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    if (!md || EVP_DigestInit_ex(md, EVP_sha256(), NULL) != 1) mem_exhausted(64);
    err e = put_pieces(c, s, f, out, md, w);
    digest_text(md, hex);
    EVP_MD_CTX_free(md);
    out->sha256 = arena_str(c->mem, str_n(hex, BLOB_DIGEST_HEX));
    return e;
}

err store_put_text(Ctx *c, Store *s, str bytes, Work *w, Part *out) {
    char hex[BLOB_DIGEST_HEX + 1];
    *out = (Part){ .name = out->name, .size = (int64_t)bytes.n };
    out->pieces = new (c->mem, str, bytes.n / PIECE_BYTES + 1);
    sha256_hex(bytes, hex);
    out->sha256 = arena_str(c->mem, str_n(hex, BLOB_DIGEST_HEX));
    for (size_t at = 0; at < bytes.n; at += PIECE_BYTES) {
        TRY(store_put(c, s, str_sub(bytes, at, PIECE_BYTES), w, hex));
        out->pieces[out->pieces_n++] = arena_str(c->mem, str_n(hex, BLOB_DIGEST_HEX));
    }
    return ERR_OK;
}

// Hashed as it is read: what it becomes here is what its name says, or nothing.
err store_copy_object(Ctx *c, Store *s, Blobs *from, str hex, Work *w) {
    BlobReader *f;
    int64_t size, at = 0;
    BlobWriter *b;
    char got_hex[BLOB_DIGEST_HEX + 1];
    TRY(blob_open(c, from, hex, &f, &size));
    if (blob_has(c, s->objects, hex)) {
        step(w, size);
        blob_close(f);
        return ERR_OK;
    }
    err e = blob_stage(c, s->objects, (str){ 0 }, &b);
    char *piece = e ? NULL : mem_new(PIECE_BYTES);
    for (size_t got = PIECE_BYTES; !e && got == PIECE_BYTES; at += (int64_t)got) {
        e = ctx_check(c);
        if (!e) e = blob_read_at(c, f, at, piece, PIECE_BYTES, &got);
        if (!e) e = blob_append(c, b, str_n(piece, got));
        step(w, e ? 0 : (int64_t)got);
    }
    blob_close(f);
    if (!piece) return e;
    mem_free(piece);
    if (e) {
        blob_abandon(c, b);
        return e;
    }
    w->copied += size;
    return blob_commit(c, b, hex, got_hex, &size);
}

// ---- reading

static err damaged(Ctx *c, const Store *s, str what, const char *why) {
    return fail(c, ERR_CONFLICT, R_BACKUP_BAD, "what", say_str(c, what), "path", say_str(c, s->dir),
                "why", why);
}

static err piece_read(Ctx *c, const Store *s, const Part *p, size_t i, char *out, size_t *out_n) {
    BlobReader *f;
    int64_t size, left = p->size - (int64_t)i * PIECE_BYTES;
    char hex[BLOB_DIGEST_HEX + 1];
    int64_t want = left < PIECE_BYTES ? left : PIECE_BYTES;
    err e = blob_open(c, s->objects, p->pieces[i], &f, &size);
    if (e == ERR_NOTFOUND) return damaged(c, s, p->name, "a piece is missing");
    if (e) return e;
    if (size == want) e = blob_read_at(c, f, 0, out, (size_t)want, out_n);
    blob_close(f);
    if (e) return e;
    if (size != want || *out_n != (size_t)want)
        return damaged(c, s, p->name, "a piece has another length");
    sha256_hex(str_n(out, *out_n), hex);
    bool good = str_is(p->pieces[i], hex);
    return good ? ERR_OK : damaged(c, s, p->name, "a piece has other content");
}

static err pieces_each(Ctx *c, const Store *s, const Part *p, File *to, Work *w) {
    char *piece = mem_new(PIECE_BYTES), hex[BLOB_DIGEST_HEX + 1];
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    if (!md || EVP_DigestInit_ex(md, EVP_sha256(), NULL) != 1) mem_exhausted(64);
    err e = ERR_OK;
    for (size_t i = 0; !e && i < p->pieces_n; i++) {
        size_t n = 0;
        e = ctx_check(c);
        if (!e) e = piece_read(c, s, p, i, piece, &n);
        if (!e && to) e = file_write_at(c, to, (int64_t)i * PIECE_BYTES, piece, n);
        if (!e) EVP_DigestUpdate(md, piece, n);
        step(w, e ? 0 : (int64_t)n);
    }
    digest_text(md, hex);
    EVP_MD_CTX_free(md);
    mem_free(piece);
    if (!e && !str_is(p->sha256, hex)) e = damaged(c, s, p->name, "the whole has another digest");
    return e;
}

// to absent: only checked.
err store_get_file(Ctx *c, const Store *s, const Part *p, str to, Work *w) {
    File *f = NULL;
    unsigned flags = FILE_READ | FILE_WRITE | FILE_CREATE | FILE_EXCLUSIVE | FILE_PRIVATE;
    if (to.p) TRY(file_open(c, to, flags, &f));
    err e = pieces_each(c, s, p, f, w);
    if (!e && f) e = file_sync(c, f);
    file_close(f);
    return e;
}

err store_get_text(Ctx *c, const Store *s, const Part *p, size_t max, str *out) {
    if (p->size > (int64_t)max) return damaged(c, s, p->name, "it is too large");
    char *text = arena_alloc_raw(c->mem, (size_t)p->size + PIECE_BYTES), hex[BLOB_DIGEST_HEX + 1];
    for (size_t i = 0, n = 0; i < p->pieces_n; i++)
        TRY(piece_read(c, s, p, i, text + i * PIECE_BYTES, &n));
    *out = str_n(text, (size_t)p->size);
    sha256_hex(*out, hex);
    return str_is(p->sha256, hex) ? ERR_OK : damaged(c, s, p->name, "the whole has another digest");
}

const Part *part_find(const Point *p, const char *name) {
    for (size_t i = 0; i < p->parts_n; i++)
        if (str_is(p->parts[i].name, name)) return &p->parts[i];
    return NULL;
}

err store_objects(Ctx *c, const Store *s, const Point *p, ObjectLine **out, size_t *out_n) {
    enum { LINE_MIN = BLOB_DIGEST_HEX + 2 };
    const Part *part = part_find(p, OBJECTS_PART);
    str text, line, hex;
    if (!part) return damaged(c, s, S(OBJECTS_PART), "it is missing");
    TRY(store_get_text(c, s, part, 1 << 30, &text));
    ObjectLine *at = *out = new (c->mem, ObjectLine, text.n / LINE_MIN + 1);
    while (text.n && str_cut(&text, '\n', &line)) {
        if (!str_cut(&line, ' ', &hex) || !sha256_hex_valid(hex) || !str_to_i64(line, &at->size))
            return damaged(c, s, part->name, "a line is not as it must be");
        at++->hex = hex;
    }
    *out_n = (size_t)(at - *out);
    return ERR_OK;
}
