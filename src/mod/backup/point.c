// SPDX-License-Identifier: Apache-2.0
// point.c - the manifests of a backup folder, one for each point in time: which pieces and objects
// made up the server then. A manifest's name holds its time and its SHA-256; it is written last and
// at once, so a backup that was cut short does not exist.
// Owner, threads: backup_own.h.
#include "mod/backup/backup_own.h"
#include "base/map.h"
#include "base/time.h"
#include <assert.h>
#include <stdio.h>

enum { STAMP = 19, ID_N = STAMP + 1 + BLOB_DIGEST_HEX }; // 20261122T234501123Z-SHA256

static const char *kind_of(const Store *s) { return s->kind ? s->kind : "point"; }

static str point_path(Ctx *c, const Store *s, str id) {
    return arena_printf(c->mem, STR_FMT "/%s/" STR_FMT ".json", STR_ARG(s->dir), kind_of(s),
                        STR_ARG(id));
}

static err damaged(Ctx *c, const Store *s, str what, const char *why) {
    return fail(c, ERR_CONFLICT, R_BACKUP_BAD, "what", say_str(c, what), "path", say_str(c, s->dir),
                "why", why);
}

// 2026-11-22T23:45:01.123Z without what separates.
static str stamp(Ctx *c, int64_t ms) {
    char text[TIME_TEXT], out[STAMP + 1];
    str t = time_format(ms, text);
    size_t n = 0;
    for (size_t i = 0; i < t.n && n < STAMP; i++)
        if (t.p[i] != '-' && t.p[i] != ':' && t.p[i] != '.') out[n++] = t.p[i];
    assert(n == STAMP);
    return arena_str(c->mem, str_n(out, n));
}

int64_t point_id_ms(str id) {
    char text[TIME_TEXT];
    int64_t ms = 0;
    if (id.n != ID_N || id.p[STAMP] != '-') return 0;
    const char *p = id.p;
    int n = snprintf(text, sizeof text, "%.4s-%.2s-%.2sT%.2s:%.2s:%.2s.%.3sZ", p, p + 4, p + 6,
                     p + 9, p + 11, p + 13, p + 15);
    return time_parse(str_n(text, (size_t)n), &ms) ? ms : 0;
}

// ---- writing

static void write_parts(Json *j, const Point *p) {
    json_key(j, "parts"), json_arr(j);
    for (size_t i = 0; i < p->parts_n; i++) {
        const Part *part = &p->parts[i];
        json_obj(j);
        json_kv_str(j, "name", part->name), json_kv_i64(j, "size", part->size);
        json_kv_str(j, "sha256", part->sha256);
        json_key(j, "pieces"), json_arr(j);
        for (size_t k = 0; k < part->pieces_n; k++) json_put_str(j, part->pieces[k]);
        json_end_arr(j), json_end_obj(j);
    }
    json_end_arr(j);
}

static void write_point(Json *j, const Point *p) {
    char taken[TIME_TEXT], ended[TIME_TEXT];
    json_obj(j);
    json_kv_z(j, "format", "lathe-backup-1"), json_kv_str(j, "version", p->version);
    json_kv_str(j, "taken_at", time_format(p->taken_ms, taken));
    json_kv_str(j, "ended_at", time_format(p->ended_ms, ended));
    json_kv_str(j, "node", p->node), json_kv_str(j, "job", p->job);
    json_kv_str(j, "master_key", p->master_key), json_kv_str(j, "database", p->database);
    if (p->schema.n) json_kv_str(j, "schema", p->schema);
    if (p->run.n) json_kv_str(j, "run", p->run), json_kv_i64(j, "seq", p->seq);
    if (p->pages) json_kv_i64(j, "page_bytes", p->page_bytes), json_kv_i64(j, "pages", p->pages);
    if (p->server_major) json_kv_i64(j, "server_major", p->server_major);
    json_kv_i64(j, "objects", p->objects), json_kv_i64(j, "objects_bytes", p->objects_bytes);
    json_key(j, "missing"), json_arr(j);
    for (size_t i = 0; i < p->missing_n; i++) json_put_str(j, p->missing[i]);
    json_end_arr(j);
    write_parts(j, p);
    json_end_obj(j);
}

err point_write(Ctx *c, Store *s, Point *p) {
    Buf b;
    char hex[BLOB_DIGEST_HEX + 1];
    buf_init(&b, MANIFEST_MAX);
    Json j = json_to(&b);
    write_point(&j, p);
    sha256_hex(buf_str(&b), hex);
    str time = stamp(c, s->kind ? p->ended_ms : p->taken_ms); // a step holds nothing after it
    p->id = arena_printf(c->mem, STR_FMT "-%s", STR_ARG(time), hex);
    err e = b.full ? fail(c, ERR_TOOLARGE, R_TOO_LONG, "what", "the manifest of a backup", "limit",
                          "64 MiB")
                   : file_write_all(c, point_path(c, s, p->id), buf_str(&b), FILE_PRIVATE);
    buf_done(&b);
    return e;
}

// ---- reading

err point_ids(Ctx *c, const Store *s, str **out, size_t *out_n) {
    str *names;
    size_t n, kept = 0;
    err e =
        dir_list(c, arena_printf(c->mem, STR_FMT "/%s", STR_ARG(s->dir), kind_of(s)), &names, &n);
    *out_n = 0;
    if (e == ERR_NOTFOUND && s->kind) return ERR_OK; // an older backup has no steps
    TRY(e);
    for (size_t i = 0; i < n; i++) {
        if (!str_ends(names[i], S(".json"))) continue;
        str id = str_sub(names[i], 0, names[i].n - 5);
        if (point_id_ms(id)) names[kept++] = id; // names sort as times do
    }
    *out = names, *out_n = kept;
    return ERR_OK;
}

static bool name_safe(str name) { // it becomes a path below the restored folder
    if (!name.n || name.p[0] == '/' || str_find(name, S("..")) >= 0) return false;
    return !memchr(name.p, 0, name.n);
}

static err read_part(Ctx *c, const Store *s, yyjson_val *v, Part *out) {
    yyjson_val *pieces = json_get(v, "pieces"), *piece;
    size_t i, n;
    out->name = json_get_str(v, "name"), out->sha256 = json_get_str(v, "sha256");
    bool good = name_safe(out->name) && json_get_i64(v, "size", &out->size) && out->size >= 0;
    size_t want = good ? (size_t)((out->size + PIECE_BYTES - 1) / PIECE_BYTES) : 0;
    good = good && yyjson_arr_size(pieces) == want;
    if (!good) return damaged(c, s, S("the manifest"), "a part is not as it must be");
    out->pieces = new (c->mem, str, want + 1);
    yyjson_arr_foreach(pieces, i, n, piece) {
        str hex = out->pieces[out->pieces_n++] = json_str(piece);
        if (!sha256_hex_valid(hex)) return damaged(c, s, S("the manifest"), "a piece has no name");
    }
    return ERR_OK;
}

static err read_point(Ctx *c, const Store *s, yyjson_val *v, Point *out) {
    yyjson_val *parts = json_get(v, "parts"), *missing = json_get(v, "missing"), *at;
    size_t i, n;
    if (!str_is(json_get_str(v, "format"), "lathe-backup-1"))
        return damaged(c, s, S("the manifest"), "its format is not known here");
    out->node = json_get_str(v, "node"), out->job = json_get_str(v, "job");
    out->master_key = json_get_str(v, "master_key"), out->database = json_get_str(v, "database");
    out->version = json_get_str(v, "version"), out->schema = json_get_str(v, "schema");
    out->run = json_get_str(v, "run");
    json_get_i64(v, "seq", &out->seq);
    json_get_i64(v, "page_bytes", &out->page_bytes), json_get_i64(v, "pages", &out->pages);
    int64_t major = 0;
    if (json_get_i64(v, "server_major", &major) && major > 0 && major < 1000)
        out->server_major = (int)major;
    json_get_i64(v, "objects", &out->objects),
        json_get_i64(v, "objects_bytes", &out->objects_bytes);
    bool timed = time_parse(json_get_str(v, "taken_at"), &out->taken_ms);
    if (!timed || !time_parse(json_get_str(v, "ended_at"), &out->ended_ms))
        return damaged(c, s, S("the manifest"), "its times are not times");
    out->parts = new (c->mem, Part, yyjson_arr_size(parts) + 1);
    yyjson_arr_foreach(parts, i, n, at) TRY(read_part(c, s, at, &out->parts[out->parts_n++]));
    out->missing = new (c->mem, str, yyjson_arr_size(missing) + 1);
    yyjson_arr_foreach(missing, i, n, at) out->missing[out->missing_n++] = json_str(at);
    return ERR_OK;
}

err point_read(Ctx *c, const Store *s, str id, Point *out) {
    str text;
    yyjson_val *v;
    char hex[BLOB_DIGEST_HEX + 1];
    TRY(file_read_all(c, point_path(c, s, id), MANIFEST_MAX, &text));
    sha256_hex(text, hex);
    if (!str_is(str_sub(id, STAMP + 1, BLOB_DIGEST_HEX), hex))
        return damaged(c, s, S("the manifest"), "it is not what was written");
    TRY(json_parse(c, text, &v));
    *out = (Point){ .id = id };
    return read_point(c, s, v, out);
}

err point_at(Ctx *c, const Store *s, int64_t at_ms, Point *out) {
    str *ids;
    size_t n;
    char text[TIME_TEXT];
    TRY(point_ids(c, s, &ids, &n));
    while (n && at_ms && point_id_ms(ids[n - 1]) > at_ms) n--;
    if (n) return point_read(c, s, ids[n - 1], out);
    return fail(c, ERR_NOTFOUND, R_BACKUP_NONE, "path", say_str(c, s->dir), "time",
                at_ms ? say_str(c, time_format(at_ms, text)) : "now");
}

err point_check(Ctx *c, const Store *s, const Point *p, Work *w) {
    ObjectLine *objects;
    size_t n;
    for (size_t i = 0; i < p->parts_n; i++) w->total += p->parts[i].size;
    w->total += p->objects_bytes;
    for (size_t i = 0; i < p->parts_n; i++) TRY(store_get_file(c, s, &p->parts[i], (str){ 0 }, w));
    TRY(store_objects(c, s, p, &objects, &n));
    for (size_t i = 0; i < n; i++) {
        err e = blob_verify(c, s->objects, objects[i].hex);
        if (e == ERR_NOTFOUND) return damaged(c, s, objects[i].hex, "the object is missing");
        if (e == ERR_INTERNAL) return damaged(c, s, objects[i].hex, "the object has other content");
        TRY(e);
        w->done += objects[i].size;
        if (w->fn) w->fn(w->arg, w->done, w->total);
    }
    return ERR_OK;
}

// ---- keeping

// Everything that a point left needs, into a set of digests.
static err mark(Ctx *c, const Store *s, str id, Map *needed) {
    Point p;
    ObjectLine *objects;
    size_t n;
    TRY(point_read(c, s, id, &p));
    TRY(store_objects(c, s, &p, &objects, &n));
    for (size_t i = 0; i < n; i++) map_set(needed, objects[i].hex, needed);
    for (size_t i = 0; i < p.parts_n; i++)
        for (size_t k = 0; k < p.parts[i].pieces_n; k++)
            map_set(needed, p.parts[i].pieces[k], needed);
    return ERR_OK;
}

static err sweep(Ctx *c, Store *s, Map *needed) {
    for (unsigned i = 0; i < 256; i++) {
        ArenaMark at = arena_mark(c->mem);
        char prefix[3];
        str *names;
        size_t n;
        snprintf(prefix, sizeof prefix, "%02x", i);
        TRY(blob_list(c, s->objects, str_n(prefix, 2), &names, &n));
        for (size_t k = 0; k < n; k++)
            if (!map_get(needed, names[k])) TRY(blob_remove(c, s->objects, names[k]));
        arena_restore(c->mem, at);
        TRY(ctx_check(c));
    }
    return ERR_OK;
}

// Steps are many: they go sooner than points. The others' pieces are needed.
static err steps_trim(Ctx *c, const Store *s, int64_t before_ms, Map *needed) {
    Store steps = *s;
    str *ids;
    size_t n;
    steps.kind = "log";
    TRY(point_ids(c, &steps, &ids, &n));
    for (size_t i = 0; i < n; i++) {
        ArenaMark at = arena_mark(c->mem);
        if (point_id_ms(ids[i]) < before_ms) TRY(path_remove(c, point_path(c, &steps, ids[i])));
        else TRY(mark(c, &steps, ids[i], needed));
        arena_restore(c->mem, at);
    }
    return ERR_OK;
}

static bool steps_due(Ctx *c, const Store *s, int64_t before_ms) {
    Store steps = *s;
    str *ids;
    size_t n;
    steps.kind = "log";
    return !point_ids(c, &steps, &ids, &n) && n && point_id_ms(ids[0]) < before_ms;
}

err points_trim(Ctx *c, Store *s, const TrimBefore *before, int64_t *out_n) {
    str *ids;
    size_t n, first = 0;
    Map needed;
    uint64_t seed;
    int64_t steps_ms = before->steps_ms;
    assert(s->lock);
    *out_n = 0;
    TRY(point_ids(c, s, &ids, &n));
    while (n && first < n - 1 && point_id_ms(ids[first]) < before->points_ms) first++;
    if (n && point_id_ms(ids[first]) > steps_ms) steps_ms = point_id_ms(ids[first]);
    if (!first && !steps_due(c, s, steps_ms)) return ERR_OK;
    os_random(c->os, &seed, sizeof seed);
    map_init(&needed, seed);
    err e = steps_trim(c, s, steps_ms, &needed);
    for (size_t i = first; !e && i < n; i++) e = mark(c, s, ids[i], &needed);
    for (size_t i = 0; !e && i < first; i++) e = path_remove(c, point_path(c, s, ids[i]));
    if (!e) e = dir_sync(c, arena_printf(c->mem, STR_FMT "/point", STR_ARG(s->dir)));
    if (!e) e = sweep(c, s, &needed);
    map_done(&needed);
    if (!e) *out_n = (int64_t)first;
    return e;
}
