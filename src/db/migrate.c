// SPDX-License-Identifier: Apache-2.0
// migrate.c - the schema: numbered migrations, and what the database says about its tables.
// Stands on transactions of db.h; leaves running a script to the backends.
// Several programs may start on one database at once: each migration looks again, under a lock,
// whether it is still to be done. Threads: any.
#include "db/db_impl.h"
#include <assert.h>

static SQL(migration_table, "CREATE TABLE IF NOT EXISTS schema_migration (owner TEXT NOT NULL,"
                            " number BIGINT NOT NULL, hash TEXT NOT NULL, at_ms BIGINT NOT NULL,"
                            " PRIMARY KEY (owner, number))");
// Before the first look, for the snapshot is taken there.
static const Sql migration_lock = { "migration_lock", "SELECT 1",
                                    "LOCK TABLE schema_migration IN EXCLUSIVE MODE" };
static SQL(migration_list,
           "SELECT number, hash FROM schema_migration WHERE owner = $1 ORDER BY number");
static SQL(migration_add,
           "INSERT INTO schema_migration (owner, number, hash, at_ms) VALUES ($1, $2, $3, $4)");
// The schema's release stands beside the migrations, as those of an owner that has none.
static SQL(release_there, "SELECT CAST(COALESCE(MAX(number), 0) AS BIGINT) FROM schema_migration"
                          " WHERE owner = 'release'");
static SQL(release_add, "INSERT INTO schema_migration (owner, number, hash, at_ms)"
                        " VALUES ('release', $1, '', $2) ON CONFLICT (owner, number) DO NOTHING");
static SQL(migration_any, "SELECT CAST(count(*) AS BIGINT) FROM schema_migration");

typedef struct Work {
    const char *owner;
    const Migration *rows;
    size_t n;
    size_t done; // rows[0 .. done) are applied, as the last look found
} Work;

static const char *text_of(DbKind kind, const Migration *m) {
    return kind == DB_POSTGRES && m->pg ? m->pg : m->text;
}

// FNV-1a, 64 bits: it lies in databases for ever, so it is written out here.
static str hash_of(Arena *a, const char *text) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (const char *p = text; *p; p++) hash = (hash ^ (unsigned char)*p) * UINT64_C(0x100000001b3);
    return arena_printf(a, "%016llx", (unsigned long long)hash);
}

static err migration_fail(Ctx *c, const Work *w, int number, const char *why) {
    return fail(c, ERR_INTERNAL, R_DB_MIGRATION, "owner", w->owner, "number", say(c, "%d", number),
                "why", why);
}

// Compares what the table says with the rows. Numbers above ours belong to a later release, which
// may share the database with this one for a while.
static err look(Ctx *c, Tx *tx, void *arg) {
    Work *w = arg;
    Rows *r;
    w->done = 0;
    TRY(db_ask(c, tx, &r, &migration_list, V(w->owner)));
    for (bool more;;) {
        TRY(rows_next(c, r, &more));
        if (!more || w->done == w->n) break;
        const Migration *m = &w->rows[w->done];
        if (col_int(r, 0) > m->number)
            return migration_fail(c, w, m->number, "it is not applied, though a later one is");
        if (col_int(r, 0) < m->number)
            return migration_fail(c, w, (int)col_int(r, 0), "it is applied, but nobody knows it");
        if (!str_eq(col_str(r, 1), hash_of(c->mem, text_of(tx_kind(tx), m))))
            return migration_fail(c, w, m->number, "its text changed after it was applied");
        w->done++;
    }
    rows_close(r);
    return ERR_OK;
}

static err run_script(Ctx *c, Tx *tx, const Work *w, const Migration *m) {
    const char *text = text_of(tx_kind(tx), m);
    if (tx_kind(tx) == DB_POSTGRES && !m->pg) text = ddl_postgres(c->mem, text);
    err e = tx->db->ops->script(c, tx, w->owner, text);
    if (!e) return ERR_OK;
    if (e == ERR_INTERNAL || e == ERR_CONFLICT) {
        Buf b;
        buf_init(&b, 4096);
        failure_format(&c->failure, "en", &b);
        e = migration_fail(c, w, m->number, say_str(c, buf_str(&b)));
        buf_done(&b);
    }
    return tx_spoil(c, tx, e);
}

static err apply_next(Ctx *c, Tx *tx, void *arg) {
    Work *w = arg;
    TRY(db_run(c, tx, &migration_lock));
    TRY(look(c, tx, w));
    if (w->done == w->n) return ERR_OK;
    const Migration *m = &w->rows[w->done];
    TRY(run_script(c, tx, w, m));
    return db_run(c, tx, &migration_add, V(w->owner), V(m->number),
                  V(hash_of(c->mem, text_of(tx_kind(tx), m))), V(tx_now_ms(tx)));
}

static err make_table(Ctx *c, Tx *tx, void *arg) {
    (void)arg;
    return db_run(c, tx, &migration_table);
}

// PostgreSQL lets two makers of one table collide, IF NOT EXISTS or not: the one that loses finds
// it when it looks again.
static err ensure_table(Ctx *c, Db *db) {
    err e = ERR_OK;
    for (int i = 0; i < 3; i++) {
        Column *columns;
        size_t n;
        TRY(db_columns(c, db, "schema_migration", &columns, &n));
        if (n) return ERR_OK;
        e = db_tx(c, db, make_table, NULL);
        if (!e) return ERR_OK;
    }
    return e;
}

// ---- releases

static err read_number(Ctx *c, Tx *tx, int64_t *out, const Sql *sql) {
    Rows *r;
    TRY(db_one(c, tx, &r, sql, NULL, 0));
    *out = col_int(r, 0);
    return ERR_OK;
}
static err read_release(Ctx *c, Tx *tx, void *out) {
    return read_number(c, tx, out, &release_there);
}
static err read_any(Ctx *c, Tx *tx, void *out) { return read_number(c, tx, out, &migration_any); }

err db_release_check(Ctx *c, Db *db, int ours, int *out_there) {
    int64_t there = 0;
    assert(ours > 0);
    TRY(ensure_table(c, db));
    TRY(db_read(c, db, read_release, &there));
    *out_there = (int)there;
    if (there <= ours + 1) return ERR_OK;
    return fail(c, ERR_CONFLICT, R_DB_RELEASE, "there", say(c, "%d", (int)there), "ours",
                say(c, "%d", ours), "most", say(c, "%d", ours + 1));
}

static err set_release(Ctx *c, Tx *tx, void *arg) {
    return db_run(c, tx, &release_add, V(*(const int *)arg), V(tx_now_ms(tx)));
}

err db_release_set(Ctx *c, Db *db, int ours) { return db_tx(c, db, set_release, &ours); }

static bool takes_away(const char *text) {
    static const char *const words[] = { "DROP TABLE", "DROP COLUMN", "RENAME ",  "SET NOT NULL",
                                         "DROP VIEW",  " TYPE ",      "ADD CHECK" };
    for (size_t i = 0; text && i < countof(words); i++)
        if (str_find(str_z(text), str_z(words[i])) >= 0) return true;
    return false;
}

// An index that goes costs time only, and a column that comes needs a default: SQLite insists.
const char *migration_breaks(const Migration *m) {
    bool takes = takes_away(m->text) || takes_away(m->pg);
    if (m->release <= 1) return NULL; // nothing was released before
    if (takes && !m->last_used) return "it takes something away and does not say who used it last";
    if (m->last_used > m->release - 2)
        return "it takes away what the release before its own still uses";
    return NULL;
}

void db_before_migrating(Db *db, err (*fn)(Ctx *c, Db *db)) { db->before_migrating = fn; }

static err announce(Ctx *c, Db *db) {
    int64_t any = 0;
    err (*fn)(Ctx *, Db *) = db->before_migrating;
    if (!fn) return ERR_OK;
    TRY(db_read(c, db, read_any, &any));
    if (any) TRY(fn(c, db));
    db->before_migrating = NULL; // what follows is ours
    return ERR_OK;
}

err db_migrate(Ctx *c, Db *db, const char *owner, const Migration *rows, size_t n) {
    Work w = { owner, rows, n, 0 };
    for (size_t i = 0; i < n; i++) {
        assert(rows[i].text && rows[i].number > 0);
        assert(!i || rows[i].number > rows[i - 1].number);
        assert(!migration_breaks(&rows[i]));
    }
    TRY(ensure_table(c, db));
    TRY(db_read(c, db, look, &w));
    if (w.done < n) TRY(announce(c, db));
    while (w.done < n) {
        size_t before = w.done;
        TRY(db_tx(c, db, apply_next, &w));
        TRY(db_read(c, db, look, &w));
        assert(w.done > before);
    }
    return ERR_OK;
}

// ---- what the database says of its tables

static const Sql columns_list = {
    "columns_list",
    "SELECT name, type, \"notnull\" OR pk > 0 FROM pragma_table_info($1)",
    "SELECT a.attname::text, format_type(a.atttypid, NULL), a.attnotnull::int FROM pg_attribute a"
    " WHERE a.attrelid = to_regclass(quote_ident($1)) AND a.attnum > 0 AND NOT a.attisdropped"
    " ORDER BY a.attnum",
};

static str upper(Arena *a, str s) {
    char *p = arena_alloc_raw(a, s.n + 1);
    for (size_t i = 0; i < s.n; i++)
        p[i] = (char)(s.p[i] >= 'a' && s.p[i] <= 'z' ? s.p[i] - 32 : s.p[i]);
    p[s.n] = 0;
    return str_n(p, s.n);
}

static str type_name(Arena *a, str s) {
    static const struct {
        const char *theirs, *ours;
    } names[] = {
        { "BIGINT", "INTEGER" },         { "INT", "INTEGER" },  { "INT8", "INTEGER" },
        { "DOUBLE PRECISION", "REAL" },  { "DOUBLE", "REAL" },  { "BYTEA", "BLOB" },
        { "CHARACTER VARYING", "TEXT" }, { "VARCHAR", "TEXT" },
    };
    str big = upper(a, s);
    for (size_t i = 0; i < countof(names); i++)
        if (str_is(big, names[i].theirs)) return str_z(names[i].ours);
    return big;
}

enum { COLUMNS_MAX = 2000 }; // SQLite's limit; PostgreSQL's is 1600
typedef struct Columns {
    const char *table;
    Column *list;
    size_t n;
} Columns;

static err list_columns(Ctx *c, Tx *tx, void *arg) {
    Columns *out = arg;
    Rows *r;
    size_t cap = 0;
    out->list = NULL;
    out->n = 0;
    TRY(db_ask(c, tx, &r, &columns_list, V(out->table)));
    for (bool more;;) {
        TRY(rows_next(c, r, &more));
        if (!more) return ERR_OK;
        assert(out->n < COLUMNS_MAX);
        if (out->n == cap) {
            size_t bigger = cap ? 2 * cap : 16;
            Column *list = new (c->mem, Column, bigger);
            if (cap) memcpy(list, out->list, cap * sizeof *list);
            out->list = list;
            cap = bigger;
        }
        out->list[out->n++] = (Column){ .name = col_str(r, 0),
                                        .type = type_name(c->mem, col_str(r, 1)),
                                        .not_null = col_int(r, 2) != 0 };
    }
}

err db_columns(Ctx *c, Db *db, const char *table, Column **out, size_t *out_n) {
    Columns columns = { .table = table };
    TRY(db_read(c, db, list_columns, &columns));
    *out = columns.list;
    *out_n = columns.n;
    return ERR_OK;
}

// ---- integrity

static const Sql check_all = { "check", "PRAGMA quick_check(1)", "SELECT 'ok'" };

static err check(Ctx *c, Tx *tx, void *arg) {
    (void)arg;
    Rows *r;
    tx->end_ns = 0; // a large file takes longer than a snapshot may
    TRY(db_one(c, tx, &r, &check_all, NULL, 0));
    str said = col_str(r, 0);
    return str_is(said, "ok") ? ERR_OK : db_sql_fail(c, check_all.name, say_str(c, said));
}

err db_check(Ctx *c, Db *db) { return db_read(c, db, check, NULL); }
