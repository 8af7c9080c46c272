// SPDX-License-Identifier: Apache-2.0
// snapshot.c - see snapshot.h. On disk: DIR/snapshot.json, {"number": N, "parts": {"keys": …, …}},
// written whole and atomically.
#include "res/snapshot.h"
#include "base/log.h"
#include "os/file.h"
#include "res/app.h"
#include "res/worker.h"
#include <assert.h>

// Looked at twice a second, for what other nodes commit; read again when something was committed,
// and now and then in any case. With SQLite there are no other nodes, and our own changes wake it.
enum { PARTS_MAX = 16, SNAPSHOT_BYTES_MAX = 64 << 20 };
enum { EVERY_MS = 500, ALONE_MS = 5000, READ_MS = 10000, READ_ALONE_MS = 60000 };

struct Snapshot {
    atomic_int refs; // one for being current
    Arena *mem;
    int64_t number;
    str text[PARTS_MAX]; // each part's JSON
    void *part[PARTS_MAX];
};

static struct {
    const SnapshotPart *parts[PARTS_MAX];
    size_t parts_n;
    pthread_mutex_t lock; // of current
    Snapshot *current;
    atomic_llong true_at_ns; // when SQL last agreed with it
    Worker *builder;
    atomic_bool wanted; // somebody woke it
    char version[200];  // the database's, when it was read last; builder only, with read_ns
    int64_t read_ns;
    void (*swapped[8])(void *);
    void *swapped_arg[8];
    size_t swapped_n;
} all = { .lock = PTHREAD_MUTEX_INITIALIZER };

void snapshot_part(const SnapshotPart *p) {
    assert(all.parts_n < PARTS_MAX && !all.current);
    all.parts[all.parts_n++] = p;
}

void snapshot_on_swap(void (*fn)(void *arg), void *arg) {
    assert(all.swapped_n < countof(all.swapped));
    all.swapped[all.swapped_n] = fn, all.swapped_arg[all.swapped_n++] = arg;
}

// ---- readers
const Snapshot *snapshot_take(void) {
    pthread_mutex_lock(&all.lock);
    Snapshot *s = all.current;
    assert(s);
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    pthread_mutex_unlock(&all.lock);
    return s;
}

void snapshot_give(const Snapshot *given) {
    Snapshot *s = (Snapshot *)(uintptr_t)given;
    if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1) return;
    arena_free(s->mem);
    mem_free(s);
}

const void *snapshot_get(const Snapshot *s, const SnapshotPart *p) {
    for (size_t i = 0; i < all.parts_n; i++)
        if (all.parts[i] == p) return s->part[i];
    assert(!"a part that a module registered");
    return NULL;
}

int64_t snapshot_number(const Snapshot *s) { return s->number; }
int64_t snapshot_age_ms(const Snapshot *s) {
    (void)s;
    return (os_mono_ns(os_real()) - atomic_load(&all.true_at_ns)) / 1000000;
}

// ---- building
typedef struct Build {
    str text[PARTS_MAX];
} Build;

static err query_all(Ctx *c, Tx *tx, void *arg) {
    Build *b = arg;
    Buf out;
    buf_init(&out, SNAPSHOT_BYTES_MAX);
    err e = ERR_OK;
    for (size_t i = 0; i < all.parts_n && !e; i++) {
        buf_clear(&out);
        Json j = json_to(&out);
        e = all.parts[i]->query(c, tx, &j);
        if (!e && out.full)
            e = fail(c, ERR_TOOLARGE, R_TOO_LONG, "what", all.parts[i]->name, "limit", "64 MiB");
        if (!e) b->text[i] = arena_str(c->mem, buf_str(&out));
    }
    buf_done(&out);
    return e;
}

static bool same(const Snapshot *s, const Build *b) {
    for (size_t i = 0; s && i < all.parts_n; i++)
        if (!str_eq(s->text[i], b->text[i])) return false;
    return s != NULL;
}

static err compile_all(Ctx *c, const Build *b, Snapshot *s) {
    Ctx in = {
        .mem = s->mem, .os = c->os, .app = c->app, .db = c->db, .who = c->who, .lang = c->lang
    };
    for (size_t i = 0; i < all.parts_n; i++) {
        yyjson_val *json;
        s->text[i] = arena_str(s->mem, b->text[i]);
        err e = json_parse(&in, s->text[i], &json);
        if (!e) e = all.parts[i]->compile(&in, s->mem, json, &s->part[i]);
        if (e)
            return fail(c, e, R_INTERNAL, "why",
                        say(c, "snapshot part %s does not compile", all.parts[i]->name));
    }
    return ERR_OK;
}

static err swap(Ctx *c, const Build *b, int64_t number) {
    Snapshot *s = mem_new(sizeof *s);
    atomic_init(&s->refs, 1);
    s->mem = arena_new(), s->number = number;
    err e = compile_all(c, b, s);
    if (e) {
        snapshot_give(s);
        return e;
    }
    pthread_mutex_lock(&all.lock);
    Snapshot *old = all.current;
    all.current = s;
    pthread_mutex_unlock(&all.lock);
    snapshot_give(old);
    for (size_t i = 0; i < all.swapped_n; i++) all.swapped[i](all.swapped_arg[i]);
    return ERR_OK;
}

// ---- the copy on disk: for a start while SQL is away
static str disk_path(Ctx *c) {
    return arena_printf(c->mem, STR_FMT "/snapshot.json", STR_ARG(app_of(c)->data_dir));
}

static err save(Ctx *c, const Build *b, int64_t number) {
    Buf out;
    buf_init(&out, SNAPSHOT_BYTES_MAX);
    Json j = json_to(&out);
    json_obj(&j), json_kv_i64(&j, "number", number), json_key(&j, "parts"), json_obj(&j);
    for (size_t i = 0; i < all.parts_n; i++) json_kv_raw(&j, all.parts[i]->name, b->text[i]);
    json_end_obj(&j), json_end_obj(&j);
    err e = out.full ? ERR_OK : file_write_all(c, disk_path(c), buf_str(&out), FILE_PRIVATE);
    buf_done(&out);
    return e;
}

static err load(Ctx *c, Build *b, int64_t *out_number) {
    str text;
    yyjson_val *v;
    TRY(file_read_all(c, disk_path(c), SNAPSHOT_BYTES_MAX, &text));
    TRY(json_parse(c, text, &v));
    json_get_i64(v, "number", out_number);
    for (size_t i = 0; i < all.parts_n; i++) {
        yyjson_val *part = json_get(json_get(v, "parts"), all.parts[i]->name);
        if (!part)
            return fail(c, ERR_NOTFOUND, R_INTERNAL, "why", "the snapshot on disk lacks a part");
        b->text[i] = json_text(c->mem, part);
    }
    return ERR_OK;
}

static err rebuild(Ctx *c) {
    Build *b = new (c->mem, Build, 1);
    TRY(db_read(c, c->db, query_all, b));
    int64_t number = all.current ? all.current->number : 0;
    bool changed = !same(all.current, b);
    if (changed) TRY(swap(c, b, number + 1));
    atomic_store(&all.true_at_ns, os_mono_ns(c->os));
    if (changed && save(c, b, number + 1)) // the old copy stays; requests do not depend on it
        log_at("snapshot", LOG_WARN, c, "cannot keep the snapshot on disk");
    return ERR_OK;
}

static bool read_since(Ctx *c, int64_t ms) {
    return os_mono_ns(c->os) - all.read_ns < ms * 1000000;
}

static err unchanged(Ctx *c, str *version, bool *out) {
    if (db_kind(c->db) == DB_SQLITE) {
        worker_pace(ALONE_MS);
        *out = !atomic_exchange(&all.wanted, false) && read_since(c, READ_ALONE_MS);
        return ERR_OK;
    }
    TRY(db_version(c, c->db, version));
    *out = str_is(*version, all.version) && read_since(c, READ_MS);
    return ERR_OK;
}

static err turn(Ctx *c, void *arg) {
    str version = S("");
    int64_t now_ns = os_mono_ns(c->os);
    bool same;
    (void)arg;
    TRY(unchanged(c, &version, &same));
    if (same) {
        atomic_store(&all.true_at_ns, now_ns);
        return ERR_OK;
    }
    all.version[0] = 0;
    all.read_ns = now_ns - (int64_t)READ_ALONE_MS * 1000000; // until it has been
    TRY(rebuild(c));
    all.read_ns = now_ns;
    if (version.n < sizeof all.version)
        snprintf(all.version, sizeof all.version, STR_FMT, STR_ARG(version));
    return ERR_OK;
}

err snapshot_start(Ctx *c) {
    assert(!all.current);
    err e = rebuild(c);
    if (e == ERR_UNAVAILABLE) {
        Build *b = new (c->mem, Build, 1);
        int64_t number = 0;
        TRY(load(c, b, &number));
        TRY(swap(c, b, number));
        log_at("snapshot", LOG_WARN, c, "the database is away; serving from the snapshot on disk");
    } else if (e) {
        return e;
    }
    all.builder = worker_start(app_of(c), "snapshot", EVERY_MS, turn, NULL);
    return ERR_OK;
}

void snapshot_stop(void *app) {
    (void)app;
    worker_free(all.builder);
    snapshot_give(all.current);
    all.builder = NULL, all.current = NULL, all.parts_n = 0, all.swapped_n = 0;
    all.version[0] = 0, all.read_ns = INT64_MIN / 2;
}

void snapshot_wake(void *app) {
    (void)app;
    atomic_store(&all.wanted, true);
    worker_wake(all.builder);
}
err snapshot_sync(Ctx *c) {
    atomic_store(&all.wanted, true);
    return worker_sync(c, all.builder);
}
