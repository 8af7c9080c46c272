// SPDX-License-Identifier: Apache-2.0
// db_migrate_test.c - migrations: once, in order, whole or not at all; and columns alike on both
// databases. Threads: the test's.
#include "db/db_test.h"
#include <stdatomic.h>

// clang-format off
static const char make_model[] =
    "CREATE TABLE model (id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL, size INTEGER,"
    " score REAL NOT NULL, body BLOB) STRICT, WITHOUT ROWID; -- a comment; INTEGER\n"
    "/* STRICT */ INSERT INTO model (id, name, score, size)"
    " VALUES ('m1', 'it''s INTEGER; TEXT', 0.5, CAST('7' AS INTEGER));";
static const char make_run[] = "CREATE TABLE run (id INTEGER PRIMARY KEY, at INTEGER) STRICT";
static const char add_note[] = "ALTER TABLE run ADD COLUMN note TEXT";
static const char broken[] = "CREATE TABLE half (id TEXT) STRICT; INSERT INTO nowhere VALUES (1)";
static const char leaving[] = "CREATE TABLE gone (id TEXT) STRICT; /**/ COMMIT";
static const Migration rows[] = {
    { 1, make_model, NULL }, { 2, make_run, NULL }, { 5, add_note, NULL },
};
// clang-format on

DB_TEST(migrations_run_once) {
    CHECK_OK(f->c, db_migrate(f->c, f->db, "registry", rows, 2));
    CHECK_OK(f->c, db_migrate(f->c, f->db, "registry", rows, 2));
    CHECK_OK(f->c, db_migrate(f->c, f->db, "registry", rows, 3));
    CHECK_SQL(f, "SELECT count(*) FROM schema_migration", 3);
    CHECK_SQL(f, "SELECT count(*) FROM model WHERE name = 'it''s INTEGER; TEXT' AND size = 7", 1);
    CHECK_SQL(f, "SELECT count(*) FROM run WHERE note IS NULL", 0);
    // An older program on the newer schema, and another owner with numbers of its own.
    CHECK_OK(f->c, db_migrate(f->c, f->db, "registry", rows, 2));
    CHECK_OK(f->c,
             db_migrate(f->c, f->db, "other",
                        (const Migration[]){ { 1, "CREATE TABLE o (x TEXT) STRICT", NULL } }, 1));
}

DB_TEST(a_changed_migration_is_an_error) {
    const Migration changed[] = { { 1, make_run, NULL }, { 2, make_run, NULL } };
    CHECK_OK(f->c, db_migrate(f->c, f->db, "registry", rows, 2));
    CHECK_ERR(db_migrate(f->c, f->db, "registry", changed, 2), ERR_INTERNAL);
    CHECK(f->c->failure.why == &R_DB_MIGRATION);
    CHECK_STR(failure_param(&f->c->failure, "number"), "1");
    CHECK_STR(failure_param(&f->c->failure, "owner"), "registry");
    // One slipped in before what is applied, and one that nobody knows any more.
    const Migration slipped[] = { rows[0], rows[1], { 4, add_note, NULL }, rows[2] };
    CHECK_OK(f->c, db_migrate(f->c, f->db, "registry", rows, 3));
    CHECK_ERR(db_migrate(f->c, f->db, "registry", slipped, 4), ERR_INTERNAL);
    CHECK_STR(failure_param(&f->c->failure, "number"), "4");
    CHECK_ERR(db_migrate(f->c, f->db, "registry", (const Migration[]){ rows[0], rows[2] }, 2),
              ERR_INTERNAL);
    CHECK_STR(failure_param(&f->c->failure, "number"), "2");
    CHECK_SQL(f, "SELECT count(*) FROM schema_migration", 3);
}

DB_TEST(a_bad_migration_leaves_nothing) {
    const Migration bad[] = { rows[0], { 2, broken, NULL } };
    const Migration ends[] = { rows[0], { 2, leaving, NULL } };
    const Migration better[] = { rows[0], { 2, "CREATE TABLE half (id TEXT) STRICT", NULL } };
    CHECK_ERR(db_migrate(f->c, f->db, "registry", bad, 2), ERR_INTERNAL);
    CHECK(f->c->failure.why == &R_DB_MIGRATION);
    CHECK_STR(failure_param(&f->c->failure, "number"), "2");
    CHECK_SQL(f, "SELECT count(*) FROM schema_migration", 1);
    CHECK_ERR(db_migrate(f->c, f->db, "registry", ends, 2), ERR_INTERNAL);
    CHECK_SQL(f, "SELECT count(*) FROM schema_migration", 1);
    Column *columns;
    size_t n;
    CHECK_OK(f->c, db_columns(f->c, f->db, "gone", &columns, &n));
    CHECK_INT(n, 0);
    CHECK_OK(f->c, db_migrate(f->c, f->db, "registry", better, 2));
}

// Several programs start at once, each with its own connections.
typedef struct Start {
    Fix *f;
    atomic_int good;
} Start;

static void starter(void *arg, int i) {
    Start *s = arg;
    Fix mine = { .c = suite_ctx(NULL), .url = s->f->url };
    (void)i;
    if (!fix_open(&mine, &mine.db)) {
        s->good += !db_migrate(mine.c, mine.db, "registry", rows, countof(rows));
        db_close(mine.db);
    }
    suite_ctx_free(mine.c);
}

DB_TEST(starters_at_once_migrate_once) {
    Start s = { .f = f };
    fix_threads(6, starter, &s);
    CHECK_INT(s.good, 6);
    CHECK_SQL(f, "SELECT count(*) FROM schema_migration", countof(rows));
    CHECK_SQL(f, "SELECT count(*) FROM model", 1);
}

// ---- releases

DB_TEST(a_release_runs_on_the_next_schema_and_on_none_after_it) {
    int there = -1;
    CHECK_OK(f->c, db_release_check(f->c, f->db, 4, &there)); // before anything is there
    CHECK_INT(there, 0);
    CHECK_OK(f->c, db_migrate(f->c, f->db, "registry", rows, 2));
    for (int n = 3; n < 8; n++) {
        CHECK_OK(f->c, db_release_set(f->c, f->db, n));
        CHECK_OK(f->c, db_release_set(f->c, f->db, n)); // another node does the same
        for (int ours = 1; ours < 9; ours++) {
            err want = n <= ours + 1 ? ERR_OK : ERR_CONFLICT;
            CHECK_ERR(db_release_check(f->c, f->db, ours, &there), want);
            CHECK_INT(there, n);
            if (!want) continue;
            CHECK(f->c->failure.why == &R_DB_RELEASE);
            CHECK_STR(failure_param(&f->c->failure, "most"), say(f->c, "%d", ours + 1));
        }
    }
    CHECK_OK(f->c, db_release_set(f->c, f->db, 2)); // the older one starts again: not back
    CHECK_OK(f->c, db_release_check(f->c, f->db, 6, &there));
    CHECK_INT(there, 7);
    CHECK_OK(f->c, db_migrate(f->c, f->db, "registry", rows, 3));
}

static int told;
static err before_refused;
static err tell(Ctx *c, Db *db) {
    (void)db;
    told++;
    return before_refused ? fail(c, before_refused, R_DB_FULL) : ERR_OK;
}

DB_TEST(before_a_migration_changes_what_is_there) {
    told = 0, before_refused = ERR_FULL;
    db_before_migrating(f->db, tell);
    CHECK_OK(f->c, db_migrate(f->c, f->db, "registry", rows, 1)); // a new one holds nothing to keep
    CHECK_INT(told, 0);
    db_before_migrating(f->db, tell);
    CHECK_OK(f->c, db_migrate(f->c, f->db, "registry", rows, 1)); // nothing to do
    CHECK_INT(told, 0);
    CHECK_ERR(db_migrate(f->c, f->db, "registry", rows, 3), ERR_FULL);
    CHECK_SQL(f, "SELECT count(*) FROM schema_migration", 1); // no copy, no change
    before_refused = ERR_OK;
    CHECK_OK(f->c, db_migrate(f->c, f->db, "registry", rows, 3));
    CHECK_INT(told, 2);
    const Migration other = { 1, "CREATE TABLE o (x TEXT) STRICT", NULL };
    CHECK_OK(f->c, db_migrate(f->c, f->db, "other", &other, 1));
    CHECK_INT(told, 2); // one copy for all that a start changes
}

TEST(what_a_migration_may_take_away) {
    static const struct {
        const char *text;
        int release, last_used;
        bool good;
    } cases[] = {
        { "DROP TABLE old", 0, 0, true }, // nothing was released before the first
        { "DROP TABLE old", 1, 0, true },
        { "DROP TABLE old", 4, 0, false },
        { "DROP TABLE old", 4, 3, false }, // release 3 runs on this schema, and uses it
        { "DROP TABLE old", 4, 2, true },
        { "ALTER TABLE a DROP COLUMN b", 3, 2, false },
        { "ALTER TABLE a DROP COLUMN b", 3, 1, true },
        { "ALTER TABLE a RENAME COLUMN b TO c", 2, 0, false },
        { "ALTER TABLE a ALTER COLUMN b TYPE BIGINT", 2, 0, false },
        { "ALTER TABLE a ADD COLUMN b TEXT", 2, 0, true },
        { "CREATE TABLE n (x TEXT); CREATE INDEX i ON n (x); DROP INDEX j", 2, 0, true },
    };
    for (size_t i = 0; i < countof(cases); i++) {
        Migration m = { 1, cases[i].text, NULL, cases[i].release, cases[i].last_used };
        Migration pg = { 1, "SELECT 1", cases[i].text, cases[i].release, cases[i].last_used };
        CHECK_INT(!migration_breaks(&m), cases[i].good);
        CHECK_INT(!migration_breaks(&pg), cases[i].good);
    }
}

DB_TEST(columns_are_told_alike) {
    static const struct {
        const char *name, *type;
        bool not_null;
    } want[] = { { "id", "TEXT", true },
                 { "name", "TEXT", true },
                 { "size", "INTEGER", false },
                 { "score", "REAL", true },
                 { "body", "BLOB", false } };
    Column *columns;
    size_t n;
    CHECK_OK(f->c, db_migrate(f->c, f->db, "registry", rows, countof(rows)));
    CHECK_OK(f->c, db_columns(f->c, f->db, "model", &columns, &n));
    CHECK_INT(n, countof(want));
    for (size_t i = 0; i < n; i++) {
        CHECK_STR(columns[i].name, want[i].name);
        CHECK_STR(columns[i].type, want[i].type);
        CHECK_INT(columns[i].not_null, want[i].not_null);
    }
    CHECK_OK(f->c, db_columns(f->c, f->db, "run", &columns, &n));
    CHECK_INT(n, 3);
    CHECK_INT(columns[0].not_null, true);
    CHECK_OK(f->c, db_columns(f->c, f->db, "nothing", &columns, &n));
    CHECK_INT(n, 0);
}

TEST(ddl_translates_words_only) {
    static const struct {
        const char *from, *to;
    } texts[] = {
        { "a INTEGER, b TEXT, c REAL, d BLOB",
          "a BIGINT, b TEXT COLLATE \"C\", c DOUBLE PRECISION, d BYTEA" },
        { "id INTEGER PRIMARY KEY", "id BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY" },
        { "'INTEGER' \"TEXT\" -- REAL\n/* BLOB */ $x$ REAL; $x$ text integer",
          "'INTEGER' \"TEXT\" -- REAL\n/* BLOB */ $x$ REAL; $x$ text integer" },
        { "CAST(a AS TEXT), b TEXT COLLATE \"x\"", "CAST(a AS TEXT), b TEXT COLLATE \"x\"" },
        { "(a INTEGERS, TEXTS) STRICT, WITHOUT ROWID; x", "(a INTEGERS, TEXTS)  ; x" },
        { ") WITHOUT ROWID , STRICT", ")  " },
        { "'unfinished INTEGER", "'unfinished INTEGER" },
        { "", "" },
    };
    Ctx *c = test_ctx();
    for (size_t i = 0; i < countof(texts); i++)
        CHECK_STR(str_z(ddl_postgres(c->mem, texts[i].from)), texts[i].to);
    CHECK(ddl_ends_tx("SELECT 1; -- x\n commit"));
    CHECK(ddl_ends_tx("BEGIN"));
    CHECK(!ddl_ends_tx("SELECT ';COMMIT'; CREATE x AS $$ BEGIN; END $$; SELECT commit"));
}
