// SPDX-License-Identifier: Apache-2.0
// db_test.c - values, rows, failures and the life of a transaction: the same on both databases.
// Threads: the test's.
#include "db/db_test.h"
#include <math.h>

static const char tables[] =
    "CREATE TABLE item (id TEXT NOT NULL PRIMARY KEY, project TEXT NOT NULL, name TEXT NOT NULL,"
    " size INTEGER) STRICT;"
    "CREATE UNIQUE INDEX item_name ON item (project, name);"
    "CREATE UNIQUE INDEX item_size ON item (abs(size));"
    "CREATE TABLE part (id TEXT NOT NULL PRIMARY KEY, item TEXT REFERENCES item (id)) STRICT;"
    "CREATE TABLE v (k INTEGER PRIMARY KEY, i INTEGER, r REAL, t TEXT, b BLOB) STRICT;";

static SQL(item_add, "INSERT INTO item (id, project, name, size) VALUES ($1, $2, $3, $4)");
static SQL(part_add, "INSERT INTO part (id, item) VALUES ($1, $2)");
static SQL(item_del, "DELETE FROM item WHERE id = $1");
static SQL(item_names, "SELECT name FROM item WHERE project = $1 ORDER BY name");
static SQL(v_add, "INSERT INTO v (i, r, t, b) VALUES ($1, $2, $3, $4) RETURNING k");
static SQL(v_list, "SELECT i, r, t, b FROM v ORDER BY k");

// ---- values

typedef struct ValRow {
    Val i, r, t, b;
} ValRow;

// clang-format off
#define TEXT_ROW(lit) { VAL_TEXT, { .s = { lit, sizeof(lit) - 1 } } }
#define BLOB_ROW(lit) { VAL_BLOB, { .s = { lit, sizeof(lit) - 1 } } }
static const ValRow val_rows[] = {
    { { VAL_NULL, { 0 } }, { VAL_NULL, { 0 } }, { VAL_NULL, { 0 } }, { VAL_NULL, { 0 } } },
    { { VAL_INT, { .i = INT64_MIN } }, { VAL_REAL, { .f = -1.7976931348623157e308 } },
      TEXT_ROW(""), BLOB_ROW("") },
    { { VAL_INT, { .i = INT64_MAX } }, { VAL_REAL, { .f = 0.1 } },
      TEXT_ROW("模型 \\ ' \" $1 \xf0\x9f\x9a\x80"), BLOB_ROW("\0\\\xff'\0") },
    { { VAL_INT, { .i = 0 } }, { VAL_REAL, { .f = 5e-324 } },
      TEXT_ROW("\\x41"), BLOB_ROW("\\x41") },
};
// clang-format on

static bool val_eq(Val a, Val b) {
    if (a.type != b.type) return false;
    if (a.type == VAL_NULL) return true;
    if (a.type == VAL_INT) return a.i == b.i;
    return a.type == VAL_REAL ? a.f == b.f : str_eq(a.s, b.s);
}

static err add_values(Ctx *c, Tx *tx, void *arg) {
    int64_t *keys = arg;
    for (size_t i = 0; i < countof(val_rows); i++) {
        const ValRow *v = &val_rows[i];
        Rows *r;
        TRY(db_one(c, tx, &r, &v_add, (const Val[]){ v->i, v->r, v->t, v->b }, 4));
        keys[i] = col_int(r, 0);
    }
    return ERR_OK;
}

static err compare_values(Ctx *c, Tx *tx, void *arg) {
    size_t *same = arg;
    Rows *r;
    *same = 0;
    TRY(db_query(c, tx, &v_list, NULL, 0, &r));
    for (size_t i = 0;; i++) {
        bool more;
        TRY(rows_next(c, r, &more));
        if (!more) return ERR_OK;
        if (i >= countof(val_rows) || rows_columns(r) != 4) continue;
        const ValRow *v = &val_rows[i];
        *same += val_eq(r->vals[0], v->i) && val_eq(r->vals[1], v->r) && val_eq(r->vals[2], v->t)
                 && val_eq(r->vals[3], v->b) && col_null(r, 0) == !i
                 && str_eq(col_str(r, 3), i ? v->b.s : (str){ 0 });
    }
}

DB_TEST(values_come_back) {
    int64_t keys[countof(val_rows)] = { 0 };
    size_t same = 0;
    CHECK_OK(f->c, fix_script(f, tables));
    CHECK_OK(f->c, db_tx(f->c, f->db, add_values, keys));
    CHECK_OK(f->c, db_read(f->c, f->db, compare_values, &same));
    CHECK_INT(same, countof(val_rows));
    for (size_t i = 1; i < countof(keys); i++) CHECK(keys[i] > keys[i - 1]);
}

static err add_value(Ctx *c, Tx *tx, void *arg) {
    const Val *v = arg;
    return db_run(c, tx, &part_add, V("ok"), *v);
}

DB_TEST(values_refused) {
    const Val bad[] = { val_str(S("a\xff")), val_str(S("a\0b")), val_str(S("\xed\xa0\x80")),
                        val_real((double)NAN), val_real((double)INFINITY) };
    CHECK_OK(f->c, fix_script(f, tables));
    for (size_t i = 0; i < countof(bad); i++) {
        CHECK_ERR(db_tx(f->c, f->db, add_value, (void *)&bad[i]), ERR_INVALID);
        CHECK(f->c->failure.why == &R_DB_VALUE);
        CHECK_STR(failure_param(&f->c->failure, "number"), "2");
    }
    CHECK_SQL(f, "SELECT count(*) FROM part", 0);
}

// ---- parameters and texts

static SQL(params, "SELECT CAST($2 AS TEXT), CAST($1 AS TEXT), CAST($2 AS TEXT)");
static SQL(two, "SELECT 1 ; SELECT 2");
static SQL(ending, "  COMMIT");
static SQL(wrong, "SELECT nothing FROM nowhere");

static err ask_params(Ctx *c, Tx *tx, void *arg) {
    bool *right = arg;
    Rows *r;
    TRY(db_one(c, tx, &r, &params, (const Val[]){ V("one"), V("two") }, 2));
    *right = str_is(col_str(r, 0), "two") && str_is(col_str(r, 1), "one")
             && str_is(col_str(r, 2), "two");
    return ERR_OK;
}

static err ask_few(Ctx *c, Tx *tx, void *arg) {
    (void)arg;
    return db_run(c, tx, &params, V("one"));
}

static err ask_sql(Ctx *c, Tx *tx, void *arg) { return db_exec(c, tx, arg, NULL, 0, NULL); }

DB_TEST(parameters_by_number) {
    bool right = false;
    CHECK_OK(f->c, db_read(f->c, f->db, ask_params, &right));
    CHECK(right);
    CHECK_ERR(db_read(f->c, f->db, ask_few, NULL), ERR_INTERNAL);
    CHECK(f->c->failure.why == &R_DB_SQL);
}

DB_TEST(texts_refused) {
    const Sql *const bad[] = { &two, &ending, &wrong };
    for (size_t i = 0; i < countof(bad); i++) {
        CHECK_ERR(db_tx(f->c, f->db, ask_sql, (void *)bad[i]), ERR_INTERNAL);
        CHECK(f->c->failure.why == &R_DB_SQL);
        CHECK_STR(failure_param(&f->c->failure, "statement"), bad[i]->name);
        CHECK_ERR(db_read(f->c, f->db, ask_sql, (void *)bad[i]), ERR_INTERNAL);
    }
}

static err same_address(Ctx *c, Tx *tx, void *arg) {
    int64_t *sum = arg;
    *sum = 0;
    for (int i = 0; i < 1000; i++) {
        Sql here = { "dynamic", say(c, "SELECT %d", i), NULL };
        Rows *r;
        TRY(db_one(c, tx, &r, &here, NULL, 0));
        *sum += col_int(r, 0);
    }
    return ERR_OK;
}

static err many_addresses(Ctx *c, Tx *tx, void *arg) {
    int64_t *sum = arg;
    *sum = 0;
    Sql *rows = new (c->mem, Sql, 1000);
    for (int turn = 0; turn < 2; turn++)
        for (int i = 0; i < 1000; i++) {
            rows[i] = (Sql){ "dynamic", say(c, "SELECT %d", i), NULL };
            Rows *r;
            TRY(db_one(c, tx, &r, &rows[i], NULL, 0));
            *sum += col_int(r, 0);
        }
    return ERR_OK;
}

DB_TEST(statements_are_found_by_address_and_text) {
    int64_t sum = 0;
    CHECK_OK(f->c, db_read(f->c, f->db, same_address, &sum));
    CHECK_INT(sum, 499500);
    CHECK_OK(f->c, db_read(f->c, f->db, many_addresses, &sum));
    CHECK_INT(sum, 2 * 499500);
    CHECK_OK(f->c, db_tx(f->c, f->db, many_addresses, &sum));
    CHECK_INT(sum, 2 * 499500);
}

// The common subset: what looks the same must mean the same.
DB_TEST(same_meaning) {
    CHECK_OK(f->c, fix_script(f, "CREATE TABLE w (t TEXT NOT NULL) STRICT;"
                                 "INSERT INTO w (t) VALUES ('B'), ('a'), ('é'), ('z'), ('A')"));
    CHECK_SQL(f, "SELECT count(*) FROM w WHERE t LIKE 'a%'", 1);
    CHECK_SQL(f, "SELECT count(*) FROM w WHERE t < 'a'", 2);
    CHECK_SQL(f, "SELECT count(*) FROM w WHERE t > 'z'", 1);
    CHECK_SQL(f, "SELECT count(*) FROM w WHERE t < 'a' COLLATE \"C\"", 2);
    CHECK_SQL(f, "SELECT 7 / 2", 3);
    CHECK_SQL(f, "SELECT CAST(sum(length(t)) AS BIGINT) FROM w", 5);
}

// ---- failures

static err add_item(Ctx *c, Tx *tx, void *arg) {
    const char *const *v = arg;
    return db_run(c, tx, &item_add, V(v[0]), V(v[1]), V(v[2]),
                  v[3] ? val_int(v[3][0] - '0') : val_null());
}

static err add_part(Ctx *c, Tx *tx, void *arg) {
    return db_run(c, tx, &part_add, V("p1"), V((const char *)arg));
}

static err del_item(Ctx *c, Tx *tx, void *arg) {
    return db_run(c, tx, &item_del, V((const char *)arg));
}

#define ITEM(...) ((void *)(const char *const[]){ __VA_ARGS__ })

DB_TEST(violations_are_named_alike) {
    Ctx *c = f->c;
    CHECK_OK(c, fix_script(f, tables));
    CHECK_OK(c, db_tx(c, f->db, add_item, ITEM("i1", "p", "n", "4")));
    CHECK_ERR(db_tx(c, f->db, add_item, ITEM("i1", "p", "other", NULL)), ERR_CONFLICT);
    CHECK(c->failure.why == &R_DB_UNIQUE);
    CHECK_STR(failure_param(&c->failure, "index"), "item(id)");
    CHECK_ERR(db_tx(c, f->db, add_item, ITEM("i2", "p", "n", NULL)), ERR_CONFLICT);
    CHECK_STR(failure_param(&c->failure, "index"), "item(project,name)");
    CHECK_ERR(db_tx(c, f->db, add_item, ITEM("i2", "p", "m", "4")), ERR_CONFLICT);
    CHECK_STR(failure_param(&c->failure, "index"), "item_size");
    CHECK_ERR(db_tx(c, f->db, add_part, "nobody"), ERR_CONFLICT);
    CHECK(c->failure.why == &R_DB_REFERENCE);
    CHECK_STR(failure_param(&c->failure, "index"), "part");
    CHECK_OK(c, db_tx(c, f->db, add_part, "i1"));
    CHECK_ERR(db_tx(c, f->db, del_item, "i1"), ERR_CONFLICT);
    CHECK(c->failure.why == &R_DB_REFERENCE);
    CHECK_STR(failure_param(&c->failure, "index"), "item");
    CHECK_SQL(f, "SELECT count(*) FROM item", 1);
}

// Adds a row, fails in the way asked for, and (if asked) hides it.
typedef struct Spoil {
    const Sql *with;
    bool hide;
} Spoil;

static err spoil(Ctx *c, Tx *tx, void *arg) {
    const Spoil *s = arg;
    TRY(db_run(c, tx, &item_add, V("s1"), V("s"), V("s"), val_null()));
    if (!s->with) return fail(c, ERR_PRECONDITION, R_DB_NO_ROW);
    err e = db_exec(c, tx, s->with, NULL, 0, NULL);
    if (!s->hide) return e;
    err again = db_run(c, tx, &item_add, V("s2"), V("s"), V("s2"), val_null());
    return again == e ? ERR_OK : fail(c, ERR_GONE, R_DB_NO_ROW);
}

static SQL(item_copy, "INSERT INTO item (id, project, name) VALUES ('s1', 'x', 'x')");

DB_TEST(a_failed_transaction_leaves_nothing) {
    Ctx *c = f->c;
    CHECK_OK(c, fix_script(f, tables));
    CHECK_ERR(db_tx(c, f->db, spoil, &(Spoil){ NULL, false }), ERR_PRECONDITION);
    CHECK(c->failure.why == &R_DB_NO_ROW);
    CHECK_ERR(db_tx(c, f->db, spoil, &(Spoil){ &item_copy, false }), ERR_CONFLICT);
    CHECK_ERR(db_tx(c, f->db, spoil, &(Spoil){ &item_copy, true }), ERR_CONFLICT);
    CHECK(c->failure.why == &R_DB_UNIQUE);
    CHECK_ERR(db_tx(c, f->db, spoil, &(Spoil){ &wrong, true }), ERR_INTERNAL);
    CHECK_SQL(f, "SELECT count(*) FROM item", 0);
    CHECK_INT(db_counts(f->db).transactions, 1);
    CHECK_OK(c, db_tx(c, f->db, add_item, ITEM("i1", "p", "n", NULL)));
}

DB_TEST(version_changes_with_each_commit_and_with_nothing_else) {
    Ctx *c = f->c;
    str before, same, after;
    CHECK_OK(c, fix_script(f, tables));
    CHECK_OK(c, db_version(c, f->db, &before));
    for (int i = 0; i < 20; i++) {
        CHECK_OK(c, db_version(c, f->db, &same));
        if (f->kind == DB_SQLITE) CHECK(str_eq(before, same)); // a server has other writers
        CHECK_OK(c, db_tx(c, f->db, add_item, ITEM(say(c, "i%d", i), "p", say(c, "n%d", i), NULL)));
        CHECK_OK(c, db_version(c, f->db, &after));
        CHECK(!str_eq(before, after));
        before = after;
    }
}

DB_TEST(a_read_refuses_writes) {
    CHECK_OK(f->c, fix_script(f, tables));
    CHECK_ERR(db_read(f->c, f->db, add_item, ITEM("i1", "p", "n", NULL)), ERR_INTERNAL);
    CHECK(f->c->failure.why == &R_DB_SQL);
    CHECK_OK(f->c, db_tx(f->c, f->db, add_item, ITEM("i1", "p", "n", NULL)));
}

// ---- rows

static SQL(numbers, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1)"
                    " SELECT i FROM n ORDER BY i");

// Walks 1 .. $1; at each hundred asks again, with the same statement, and stops early there. Short,
// also on a slow machine, beside the time that a reading may take.
static err walk(Ctx *c, Tx *tx, void *arg) {
    int64_t *sum = arg;
    Rows *outer, *inner;
    *sum = 0;
    TRY(db_ask(c, tx, &outer, &numbers, V(1000)));
    for (bool more;;) {
        TRY(rows_next(c, outer, &more));
        if (!more) break;
        *sum += col_int(outer, 0);
        if (col_int(outer, 0) % 100) continue;
        ArenaMark mark = arena_mark(c->mem);
        TRY(db_ask(c, tx, &inner, &numbers, V(1000)));
        TRY(rows_next(c, inner, &more));
        TRY(rows_next(c, inner, &more));
        *sum += 1000 * col_int(inner, 0);
        if (col_int(outer, 0) % 200) rows_close(inner);
        arena_restore(c->mem, mark); // closes it, too
    }
    TRY(rows_next(c, outer, (bool *)&(bool){ 0 }));
    rows_close(outer);
    TRY(db_ask(c, tx, &outer, &numbers, V(5))); // left open
    return rows_next(c, outer, (bool *)&(bool){ 0 });
}

DB_TEST(rows_nest_and_close) {
    int64_t sum = 0;
    CHECK_OK(f->c, db_read(f->c, f->db, walk, &sum));
    CHECK_INT(sum, 500500 + 10 * 2000);
    CHECK_OK(f->c, db_tx(f->c, f->db, walk, &sum));
    CHECK_INT(sum, 500500 + 10 * 2000);
}

static err write_while_reading(Ctx *c, Tx *tx, void *arg) {
    (void)arg;
    Rows *r;
    TRY(db_ask(c, tx, &r, &numbers, V(300)));
    for (bool more;;) {
        TRY(rows_next(c, r, &more));
        if (!more) return ERR_OK;
        const char *id = say(c, "i%lld", (long long)col_int(r, 0));
        int64_t changed = 0;
        TRY(db_exec(c, tx, &item_add, (const Val[]){ V(id), V("p"), V(id), val_null() }, 4,
                    &changed));
        if (changed != 1) return fail(c, ERR_GONE, R_DB_NO_ROW);
    }
}

static err one_of(Ctx *c, Tx *tx, void *arg) {
    Rows *r;
    return db_one(c, tx, &r, &item_names, (const Val[]){ V((const char *)arg) }, 1);
}

DB_TEST(one_row_is_wanted) {
    Ctx *c = f->c;
    CHECK_OK(c, fix_script(f, tables));
    CHECK_OK(c, db_tx(c, f->db, write_while_reading, NULL));
    CHECK_SQL(f, "SELECT count(*) FROM item", 300);
    CHECK_ERR(db_read(c, f->db, one_of, "nobody"), ERR_NOTFOUND);
    CHECK(c->failure.why == &R_DB_NO_ROW);
    CHECK_ERR(db_read(c, f->db, one_of, "p"), ERR_INTERNAL);
}

static SQL(part_add_back, "INSERT INTO part (id, item) VALUES ($1, $2) RETURNING id");

// Takes the row and looks no further: the broken reference must still count.
static err returning_broken(Ctx *c, Tx *tx, void *arg) {
    (void)arg;
    Rows *r;
    bool more;
    TRY(db_ask(c, tx, &r, &part_add_back, V("p1"), V("nobody")));
    return rows_next(c, r, &more);
}

DB_TEST(returning_checks_references) {
    CHECK_OK(f->c, fix_script(f, tables));
    CHECK_ERR(db_tx(f->c, f->db, returning_broken, NULL), ERR_CONFLICT);
    CHECK(f->c->failure.why == &R_DB_REFERENCE);
    CHECK_SQL(f, "SELECT count(*) FROM part", 0);
}

// ---- runs, notices, time

typedef struct Runs {
    int runs, told;
    bool fails;
    int64_t first_ms, second_ms;
} Runs;

static void told(void *arg) { ((Runs *)arg)->told++; }

static err count_runs(Ctx *c, Tx *tx, void *arg) {
    Runs *r = arg;
    r->runs++;
    tx_notify(tx, told, r);
    r->first_ms = tx_now_ms(tx);
    TRY(db_run(c, tx, &item_add, V("r1"), V("r"), V("r"), val_null()));
    r->second_ms = tx_now_ms(tx);
    return r->fails ? fail(c, ERR_GONE, R_DB_NO_ROW) : ERR_OK;
}

DB_TEST(notices_come_once_after_the_commit) {
    Runs r = { .fails = true };
    CHECK_OK(f->c, fix_script(f, tables));
    CHECK_ERR(db_tx(f->c, f->db, count_runs, &r), ERR_GONE);
    CHECK_INT(r.told, 0);
    r = (Runs){ 0 };
    db_faults(f->db, &(DbFaults){ .again = 1000000 });
    CHECK_OK(f->c, db_tx(f->c, f->db, count_runs, &r));
    CHECK_INT(r.runs, 2);
    CHECK_INT(r.told, 1);
    CHECK_INT(db_counts(f->db).retries, 1);
    int64_t wall = os_wall_ms(os_real());
    CHECK_INT(r.first_ms, r.second_ms);
    CHECK(r.first_ms > wall - 60000 && r.first_ms < wall + 60000);
}

DB_TEST(faults_are_injected) {
    Runs r = { 0 };
    CHECK_OK(f->c, fix_script(f, tables));
    db_faults(f->db, &(DbFaults){ .away = 1000000 });
    CHECK_ERR(db_tx(f->c, f->db, count_runs, &r), ERR_UNAVAILABLE);
    CHECK(f->c->failure.why == &R_DB_AWAY && f->c->failure.retry_after_ms > 0);
    CHECK_INT(r.runs, 0);
    db_faults(f->db, &(DbFaults){ .unknown = 1000000 });
    CHECK_ERR(db_tx(f->c, f->db, count_runs, &r), ERR_UNAVAILABLE);
    CHECK(f->c->failure.why == &R_DB_UNKNOWN);
    CHECK_SQL(f, "SELECT count(*) FROM item", 1);
}

DB_TEST(integrity_is_checked) { CHECK_OK(f->c, db_check(f->c, f->db)); }

TEST(url_refused) {
    static const char *const bad[] = { "", "mysql://x",
                                       "sqlite:", "sqlite::memory:", "sqlite:file:x" };
    Ctx *c = test_ctx();
    c->os = os_real();
    for (size_t i = 0; i < countof(bad); i++) {
        Db *db = NULL;
        CHECK_ERR(db_open(c, &(DbConfig){ .url = str_z(bad[i]) }, &db), ERR_INVALID);
        CHECK(c->failure.why == &R_DB_URL && !db);
    }
}
