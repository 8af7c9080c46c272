// SPDX-License-Identifier: Apache-2.0
// collect.c - see collect.h. Which columns may name an object is read off the rows of all modules,
// those of nested values too: their column holds JSON, in which a digest stands as it is.
// Owner: the module's rows; texts in the caller's arena. Threads: workers.
#include "res/collect.h"
#include "blob/blob.h"
#include <assert.h>

static err run(Ctx *c, Job *j);
const JobKind collect_kind = {
    .name = "blob.collect",
    .run = run,
    .attempts_max = 20,
    .en = "Remove an object that no row needs any more",
    .zh = "移除不再被任何记录使用的对象",
};
const Setting collect_settings[] = {
    { "blob.grace", SET_SPAN, "1h", 0, INT64_MAX, .live = true,
      .en = "An object that nothing needs any more is removed after this; longer than backups are "
            "kept",
      .zh = "对象不再被使用后保留的时间；应长于备份的保留时间" },
    { 0 }
};
const Migration collect_migrations[] = {
    { 1, "CREATE TABLE blob_condemned (digest TEXT NOT NULL PRIMARY KEY, at_ms BIGINT NOT NULL);",
      NULL },
};

static SQL(condemn, "INSERT INTO blob_condemned (digest, at_ms) VALUES ($1, $2) "
                    "ON CONFLICT (digest) DO NOTHING");
static SQL(condemned, "SELECT 1 FROM blob_condemned WHERE digest = $1");
static SQL(pardon, "DELETE FROM blob_condemned WHERE digest = $1");

static App *program; // set once, before anything is served

err object_condemn(Ctx *c, Tx *tx, str digest) {
    return db_run(c, tx, &condemn, V(digest), V(tx_now_ms(tx)));
}
err object_pardon(Ctx *c, Tx *tx, str digest) { return db_run(c, tx, &pardon, V(digest)); }

err object_claim(Ctx *c, Tx *tx, str digest) {
    Rows *rows;
    bool leaving;
    TRY(db_ask(c, tx, &rows, &condemned, V(digest)));
    TRY(rows_next(c, rows, &leaving));
    if (!leaving) return ERR_OK;
    rows_close(rows);
    return fail(c, ERR_UNAVAILABLE, R_BLOB_LEAVING, "digest", say_str(c, digest));
}

// ---- telling

// A job of the system's own: an object may belong to rows of several projects.
err collect_object(Ctx *c, Tx *tx, str digest) {
    int64_t now_ms = tx_now_ms(tx), at;
    assert(sha256_hex_valid(digest));
    if (__builtin_add_overflow(now_ms, setting_int(&collect_settings[0]), &at)) return ERR_OK;
    str id, payload = arena_printf(c->mem, "{\"digest\":\"" STR_FMT "\"}", STR_ARG(digest));
    JobSpec spec = { .kind = collect_kind.name, .payload = payload, .not_before_ms = at };
    TRY(job_add(c, tx, &spec, &id));
    tx_notify(tx, jobs_wake, program->jobs);
    return ERR_OK;
}

static bool holds_blob(const Field *rows);
static bool is_or_holds_blob(const Field *f) {
    const Union *u = f->of;
    bool any = f->type == T_BLOB;
    if (f->type == T_OBJECT || f->type == T_LIST) any = holds_blob(f->of);
    for (const UnionCase *at = f->type == T_UNION ? u->cases : NULL; at && at->tag && !any; at++)
        any = holds_blob(at->rows);
    return any;
}
static bool holds_blob(const Field *rows) {
    for (const Field *f = rows; f && f->name; f++)
        if (is_or_holds_blob(f)) return true;
    return false;
}

err collect_row(Ctx *c, Tx *tx, const Resource *r, const void *row) {
    for (const Field *f = r->fields; f && f->name; f++) {
        if (f->type != T_BLOB) {
            assert(!is_or_holds_blob(f)); // nested ones are the module's to tell of
            continue;
        }
        str digest = *(const str *)((const char *)row + f->offset);
        if (digest.n) TRY(collect_object(c, tx, digest));
    }
    return ERR_OK;
}

// ---- looking again

typedef struct Look {
    str digest;
    bool live;
} Look;

static err refers(Ctx *c, Tx *tx, const Resource *r, const Field *f, Look *l) {
    bool nested = f->type != T_BLOB;
    str text = arena_printf(c->mem, "SELECT 1 FROM %s WHERE \"%s\" %s $1 LIMIT 1", r->plural,
                            f->name, nested ? "LIKE" : "=");
    str like = arena_printf(c->mem, "%%" STR_FMT "%%", STR_ARG(l->digest));
    Sql *sql = new (c->mem, Sql, 1);
    *sql = (Sql){ "blob_refers", text.p, NULL };
    Rows *rows;
    TRY(db_ask(c, tx, &rows, sql, V(nested ? like : l->digest)));
    TRY(rows_next(c, rows, &l->live));
    if (l->live) rows_close(rows);
    return ERR_OK;
}

static err look_everywhere(Ctx *c, Tx *tx, Look *l) {
    for (const Module *const *m = program->modules; *m; m++)
        for (const Resource *const *r = (*m)->resources; r && *r; r++)
            for (const Field *f = (*r)->fields; f && f->name && !l->live; f++)
                if (is_or_holds_blob(f)) TRY(refers(c, tx, *r, f, l));
    return ERR_OK;
}

static err condemn_tx(Ctx *c, Tx *tx, void *arg) {
    Look *l = arg;
    l->live = false;
    TRY(look_everywhere(c, tx, l));
    return l->live ? ERR_OK : object_condemn(c, tx, l->digest);
}

static err pardon_tx(Ctx *c, Tx *tx, void *arg) {
    return object_pardon(c, tx, ((const Look *)arg)->digest);
}

static err run(Ctx *c, Job *j) {
    yyjson_val *root;
    TRY(json_parse(c, job_payload(j), &root));
    Look l = { .digest = json_get_str(root, "digest") };
    TRY(db_tx(c, c->db, condemn_tx, &l));
    if (l.live) {
        job_say(j, "object " STR_FMT " is still used: kept", STR_ARG(l.digest));
        return ERR_OK;
    }
    err e = blob_remove(c, program->blobs, l.digest);
    if (e && e != ERR_NOTFOUND) return e;
    job_say(j, "object " STR_FMT " %s", STR_ARG(l.digest), e ? "was gone" : "removed");
    return db_tx(c, c->db, pardon_tx, &l);
}

// ---- the module

static err init(Ctx *c) {
    program = app_of(c);
    return ERR_OK;
}

static const JobKind *const kinds[] = { &collect_kind, NULL };
REASONS_DEFINE(COLLECT_REASONS, collect_reasons)
const Module blob_module = {
    .name = "blob",
    .needs = "",
    .settings = collect_settings,
    .jobs = kinds,
    .migrations = collect_migrations,
    .migrations_n = COLLECT_MIGRATIONS,
    .reasons = collect_reasons,
    .init = init,
    .en = "Objects that rows share by content, and their removal",
    .zh = "按内容共享的对象及其回收",
};
