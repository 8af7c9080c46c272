// SPDX-License-Identifier: Apache-2.0
// collect.c - see collect.h. Which columns may name an object is read off the rows of all modules,
// those of nested values too: their column holds JSON, in which a digest stands as it is.
// Owner: the module's rows; texts in the caller's arena. Threads: workers.
#include "res/collect.h"
#include "blob/store.h"
#include "res/objects.h"
#include "res/scrub.h"
#include <assert.h>
#include <stdlib.h>

static err run(Ctx *c, Job *j);
const JobKind collect_kind = {
    .name = "blob.collect",
    .run = run,
    .attempts_max = 10000, // while it is condemned nobody may store it: this is not given up
    .en = "Remove an object that no row needs any more",
    .zh = "移除不再被任何记录使用的对象",
};
const Migration collect_migrations[] = {
    { 1, "CREATE TABLE blob_condemned (digest TEXT NOT NULL PRIMARY KEY, at_ms BIGINT NOT NULL);",
      NULL },
    { 2, scrub_tables, NULL },
    { 3, "ALTER TABLE blob_condemned ADD COLUMN job TEXT NOT NULL DEFAULT '';", NULL },
    { 4, LIST_SYSTEM("damaged_objects", "created_at"), NULL },
};

static SQL(condemn, "INSERT INTO blob_condemned (digest, at_ms, job) VALUES ($1, $2, $3) "
                    "ON CONFLICT (digest) DO UPDATE SET job = $3");
static SQL(condemned, "SELECT 1 FROM blob_condemned WHERE digest = $1");
static SQL(pardon, "DELETE FROM blob_condemned WHERE digest = $1");

void (*collect_between)(void);
static App *program; // set once, before anything is served

static err condemn_by(Ctx *c, Tx *tx, str digest, str job) {
    return db_run(c, tx, &condemn, V(digest), V(tx_now_ms(tx)), V(job));
}
err object_condemn(Ctx *c, Tx *tx, str digest) { return condemn_by(c, tx, digest, S("")); }
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
    if (__builtin_add_overflow(now_ms, setting_int(&blob_settings[BLOB_GRACE]), &at)) return ERR_OK;
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
    Job *job;
    str digest;
    bool live, taken; // taken: another job is removing it
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

// ---- all that is named

typedef struct Live {
    str *at;
    size_t n, room;
} Live;

static void live_add(Ctx *c, Live *l, str digest) {
    if (l->n == l->room) {
        size_t room = l->room ? 2 * l->room : 256;
        str *grown = new (c->mem, str, room);
        if (l->n) memcpy(grown, l->at, l->n * sizeof *grown);
        l->at = grown, l->room = room;
    }
    l->at[l->n++] = digest;
}

// Nested values are JSON: whatever in it looks like a digest and is an object.
static err live_in_text(Ctx *c, Live *l, str text) {
    size_t run = 0;
    for (size_t i = 0; i <= text.n; i++) {
        bool hex = i < text.n && strchr("0123456789abcdef", text.p[i]) && text.p[i];
        if (!hex && run == BLOB_DIGEST_HEX) {
            str digest = str_n(text.p + i - run, run);
            err e = blob_find(c, program->blobs, digest, NULL);
            if (e && e != ERR_NOTFOUND) return e; // a backup without it would not be whole
            if (!e) live_add(c, l, digest);
        }
        run = hex ? run + 1 : 0;
    }
    return ERR_OK;
}

static err live_of(Ctx *c, Tx *tx, const Resource *r, const Field *f, Live *l) {
    Sql *sql = new (c->mem, Sql, 1);
    *sql = (Sql){ "blob_live",
                  arena_printf(c->mem, "SELECT DISTINCT \"%s\" FROM %s WHERE \"%s\" IS NOT NULL",
                               f->name, r->plural, f->name)
                      .p,
                  NULL };
    Rows *rows;
    bool more;
    TRY(db_query(c, tx, sql, NULL, 0, &rows));
    for (;;) {
        TRY(rows_next(c, rows, &more));
        if (!more) return ERR_OK;
        str text = col_str(rows, 0);
        if (f->type != T_BLOB) TRY(live_in_text(c, l, text));
        else if (sha256_hex_valid(text)) live_add(c, l, text);
    }
}

static int by_digest(const void *a, const void *b) {
    return str_cmp(*(const str *)a, *(const str *)b);
}

err collect_live(Ctx *c, Tx *tx, str **out, size_t *out_n) {
    Live l = { .at = new (c->mem, str, 1) };
    for (const Module *const *m = program->modules; *m; m++)
        for (const Resource *const *r = (*m)->resources; r && *r; r++)
            for (const Field *f = (*r)->fields; f && f->name; f++)
                if (is_or_holds_blob(f)) TRY(live_of(c, tx, *r, f, &l));
    qsort(l.at, l.n, sizeof *l.at, by_digest);
    size_t kept = 0;
    for (size_t i = 0; i < l.n; i++)
        if (!kept || !str_eq(l.at[kept - 1], l.at[i])) l.at[kept++] = l.at[i];
    *out = l.at, *out_n = kept;
    return ERR_OK;
}

enum { USERS_MAX = 100 };
typedef struct Users {
    str digest;
    CollectUser *at;
    size_t n;
} Users;

static const Sql *users_sql(Ctx *c, const Resource *r, const Field *f) {
    const char *name = r->flags & RES_UNNAMED ? "NULL" : "name",
               *org = r->scope == SCOPE_SYSTEM ? "NULL" : "org",
               *project = r->scope == SCOPE_PROJECT ? "project" : "NULL";
    Sql *sql = new (c->mem, Sql, 1);
    str text = arena_printf(
        c->mem, "SELECT id, %s, %s, %s FROM %s WHERE \"%s\" %s $1 ORDER BY id LIMIT %d", name, org,
        project, r->plural, f->name, f->type == T_BLOB ? "=" : "LIKE", USERS_MAX);
    *sql = (Sql){ "blob_users", text.p, NULL };
    return sql;
}

static err users_of(Ctx *c, Tx *tx, const Resource *r, const Field *f, Users *to) {
    str like = arena_printf(c->mem, "%%" STR_FMT "%%", STR_ARG(to->digest));
    Rows *rows;
    bool more;
    TRY(db_ask(c, tx, &rows, users_sql(c, r, f), V(f->type == T_BLOB ? to->digest : like)));
    while (to->n < USERS_MAX) {
        TRY(rows_next(c, rows, &more));
        if (!more) return ERR_OK;
        to->at[to->n++] = (CollectUser){ r, col_str(rows, 0), col_str(rows, 1), col_str(rows, 2),
                                         col_str(rows, 3) };
    }
    rows_close(rows);
    return ERR_OK;
}

err collect_users(Ctx *c, Tx *tx, str digest, CollectUser **out, size_t *out_n) {
    Users u = { digest, new (c->mem, CollectUser, USERS_MAX), 0 };
    for (const Module *const *m = program->modules; *m; m++)
        for (const Resource *const *r = (*m)->resources; r && *r; r++)
            for (const Field *f = (*r)->fields; f && f->name; f++)
                if (is_or_holds_blob(f)) TRY(users_of(c, tx, *r, f, &u));
    *out = u.at, *out_n = u.n;
    return ERR_OK;
}

static err named_by(Ctx *c, Tx *tx, const Resource *r, const Field *f, Users *u) {
    Sql *sql = new (c->mem, Sql, 1);
    str like = arena_printf(c->mem, "%%" STR_FMT "%%", STR_ARG(u->digest));
    str text = arena_printf(c->mem, "SELECT 1 FROM %s WHERE project = $2 AND \"%s\" %s $1 LIMIT 1",
                            r->plural, f->name, f->type == T_BLOB ? "=" : "LIKE");
    *sql = (Sql){ "blob_named", text.p, NULL };
    Rows *rows;
    bool more;
    TRY(db_ask(c, tx, &rows, sql, V(f->type == T_BLOB ? u->digest : like), V(c->project)));
    TRY(rows_next(c, rows, &more));
    rows_close(rows);
    u->n += more;
    return ERR_OK;
}

err collect_named(Ctx *c, Tx *tx, str digest, bool *out) {
    Users u = { .digest = digest };
    for (const Module *const *m = program->modules; *m; m++)
        for (const Resource *const *r = (*m)->resources; r && *r; r++)
            for (const Field *f = (*r)->fields; f && f->name && !u.n; f++)
                if ((*r)->scope == SCOPE_PROJECT && is_or_holds_blob(f))
                    TRY(named_by(c, tx, *r, f, &u));
    *out = u.n > 0;
    return ERR_OK;
}

// ---- a backup keeps what it copies

#define HOLD "blob.hold"

err collect_hold(Ctx *c, str holder, Lease *out) {
    return lease_take(c, c->db, S(HOLD), holder, COLLECT_HOLD_MS, out);
}

static err not_held(Ctx *c, Tx *tx) {
    static SQL(blob_hold, "SELECT until_ms FROM lease WHERE object = '" HOLD "'");
    Rows *rows;
    bool more, held;
    TRY(db_query(c, tx, &blob_hold, NULL, 0, &rows));
    TRY(rows_next(c, rows, &more));
    held = more && col_int(rows, 0) > tx_now_ms(tx);
    rows_close(rows);
    return held ? fail(c, ERR_UNAVAILABLE, R_BLOB_HELD) : ERR_OK;
}

// Every row that let go of an object left a job. One removes; two could remove what was stored
// between them. A job that will not run again does not count.
static err by_another(Ctx *c, Tx *tx, Look *l) {
    static SQL(condemner, "SELECT 1 FROM blob_condemned b JOIN job j ON j.id = b.job WHERE "
                          "b.digest = $1 AND b.job <> $2 AND j.state IN ('waiting', 'running')");
    Rows *rows;
    TRY(db_ask(c, tx, &rows, &condemner, V(l->digest), V(job_id(l->job))));
    TRY(rows_next(c, rows, &l->taken));
    rows_close(rows);
    return ERR_OK;
}

static err condemn_tx(Ctx *c, Tx *tx, void *arg) {
    Look *l = arg;
    l->live = false;
    TRY(not_held(c, tx));
    TRY(by_another(c, tx, l));
    if (l->taken) return ERR_OK;
    TRY(look_everywhere(c, tx, l));
    return l->live ? ERR_OK : condemn_by(c, tx, l->digest, job_id(l->job));
}

// Right before the removal: an attempt that stalled since it condemned may have been taken over,
// the object removed, pardoned and stored anew by others.
static err still_ours_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(condemned_by, "SELECT 1 FROM blob_condemned WHERE digest = $1 AND job = $2");
    Look *l = arg;
    Rows *rows;
    bool ours;
    TRY(job_guard(c, tx, l->job));
    TRY(db_ask(c, tx, &rows, &condemned_by, V(l->digest), V(job_id(l->job))));
    TRY(rows_next(c, rows, &ours));
    rows_close(rows);
    l->taken = !ours;
    return ERR_OK;
}

static err pardon_tx(Ctx *c, Tx *tx, void *arg) {
    return object_pardon(c, tx, ((const Look *)arg)->digest);
}

// A removal that S3 did not answer may still come to pass, and must not meet what is stored anew.
static err unsure_note(Ctx *c, Job *j) {
    Failure why = c->failure;
    TRY(job_save(c, j, arena_printf(c->mem, "{\"unsure_ms\":%lld}", (long long)os_wall_ms(c->os))));
    c->failure = why;
    return why.code;
}

static err unsure_wait(Ctx *c, const Look *l) {
    enum { UNSURE_MS = 60000 };
    yyjson_val *root;
    int64_t since_ms = 0;
    if (!job_checkpoint(l->job).n) return ERR_OK;
    TRY(json_parse(c, job_checkpoint(l->job), &root));
    json_get_i64(root, "unsure_ms", &since_ms);
    int64_t passed_ms = os_wall_ms(c->os) - since_ms;
    if (passed_ms < 0 || passed_ms >= UNSURE_MS) return ERR_OK;
    return fail(c, ERR_UNAVAILABLE, R_BLOB_UNSURE, "digest", say_str(c, l->digest), "seconds",
                say(c, "%lld", (long long)(UNSURE_MS - passed_ms) / 1000 + 1));
}

static err run(Ctx *c, Job *j) {
    yyjson_val *root;
    TRY(json_parse(c, job_payload(j), &root));
    Look l = { .job = j, .digest = json_get_str(root, "digest") };
    TRY(db_tx(c, c->db, condemn_tx, &l));
    if (l.live) {
        job_say(j, "object " STR_FMT " is still used: kept", STR_ARG(l.digest));
        return ERR_OK;
    }
    if (collect_between && !l.taken) collect_between();
    if (!l.taken) TRY(db_tx(c, c->db, still_ours_tx, &l));
    if (l.taken) {
        job_say(j, "object " STR_FMT " is removed by another job", STR_ARG(l.digest));
        return ERR_OK;
    }
    err e = blob_remove(c, program->blobs, l.digest);
    if (c->failure.why == &R_S3_UNSURE) TRY(unsure_note(c, j));
    if (e && e != ERR_NOTFOUND) return e;
    TRY(unsure_wait(c, &l));
    job_say(j, "object " STR_FMT " %s", STR_ARG(l.digest), e ? "was gone" : "removed");
    return db_tx(c, c->db, pardon_tx, &l);
}

// ---- the module

static err init(Ctx *c) {
    program = app_of(c);
    return scrub_init(c);
}

static err start(Ctx *c) {
    TRY(objects_start(c));
    return scrub_start(c);
}

static void stop(void *app) {
    scrub_stop(app);
    objects_stop();
}

static const JobKind *const kinds[] = { &collect_kind, &scrub_kind, &objects_move_kind, NULL };
static const Resource *const resources[] = { &damaged_object_resource, NULL };
COLLECT_REASONS(REASON_BODY_)
OBJECTS_REASONS(REASON_BODY_)
static const Reason *const reasons[] = { COLLECT_REASONS(REASON_REF_) OBJECTS_REASONS(REASON_REF_)
                                             NULL };
const Module blob_module = {
    .name = "blob",
    .needs = "",
    .resources = resources,
    .routes = scrub_routes,
    .metrics = scrub_metrics,
    .settings = blob_settings,
    .jobs = kinds,
    .migrations = collect_migrations,
    .migrations_n = COLLECT_MIGRATIONS,
    .reasons = reasons,
    .init = init,
    .start = start,
    .stop = stop,
    .en = "Objects that rows share by content, and their removal",
    .zh = "按内容共享的对象及其回收",
};
