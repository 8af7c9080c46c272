// SPDX-License-Identifier: Apache-2.0
// insert_test.c - many rows with one statement are the rows one by one would be: counted, told
// apart from those that are there, and none of them there after a failure. Threads: the test's.
#include "db/insert.h"
#include "db/db_test.h"

static const char table[] = "CREATE TABLE pair (a BIGINT PRIMARY KEY, b TEXT)";
static InsertSql pair_add = { .name = "pair_add", .into = "pair (a, b)", .columns = 2 };
static InsertSql pair_new = {
    .name = "pair_new", .into = "pair (a, b)", .columns = 2, .tail = "ON CONFLICT (a) DO NOTHING"
};

typedef struct Some {
    InsertSql *sql;
    int64_t first, n, step, added; // first, first + step, … : n of them
} Some;

static err add_some(Ctx *c, Tx *tx, void *arg) {
    Some *s = arg;
    Insert to = insert_begin(c, tx, s->sql);
    for (int64_t i = 0; i < s->n; i++) {
        int64_t a = s->first + i * s->step;
        TRY(insert_row(&to, (Val[]){ V(a), V(say(c, "b%lld", (long long)a)) }));
    }
    return insert_end(&to, &s->added);
}

DB_TEST(insert_of_many_rows_is_each_of_them) {
    static const int64_t sizes[] = { 0, 1, 2, 15, 16, 17, 31, 32, 33, 500 };
    int64_t all = 0;
    CHECK_OK(f->c, fix_script(f, table));
    for (size_t i = 0; i < countof(sizes); i++) {
        Some s = { &pair_add, all, sizes[i], 1, -1 };
        CHECK_OK(f->c, db_tx(f->c, f->db, add_some, &s));
        CHECK_INT(s.added, sizes[i]);
        all += sizes[i];
    }
    CHECK_SQL(f, "SELECT count(*) FROM pair", all);
    CHECK_SQL(f, "SELECT count(*) FROM pair WHERE b <> 'b' || a", 0);
    CHECK_SQL(f, "SELECT max(a) FROM pair", all - 1);
}

DB_TEST(insert_says_how_many_are_new) {
    CHECK_OK(f->c, fix_script(f, table));
    Some third = { &pair_add, 0, 30, 3, 0 }, every = { &pair_new, 0, 80, 1, 0 };
    CHECK_OK(f->c, db_tx(f->c, f->db, add_some, &third));
    CHECK_OK(f->c, db_tx(f->c, f->db, add_some, &every));
    CHECK_INT(every.added, 80 - 27);
    CHECK_SQL(f, "SELECT count(*) FROM pair", 83);
    Some same = { &pair_new, 1000, 40, 0, 0 }; // twice in one statement, too
    CHECK_OK(f->c, db_tx(f->c, f->db, add_some, &same));
    CHECK_INT(same.added, 1);
}

DB_TEST(insert_that_fails_leaves_nothing) {
    CHECK_OK(f->c, fix_script(f, table));
    Some one = { &pair_add, 70, 1, 1, 0 };
    CHECK_OK(f->c, db_tx(f->c, f->db, add_some, &one));
    for (int64_t n = 61; n < 90; n += 7) { // in the midst of a full statement, or at the end
        Some many = { &pair_add, n - 50, 60, 1, 0 };
        CHECK_ERR(db_tx(f->c, f->db, add_some, &many), ERR_CONFLICT);
        CHECK(f->c->failure.why == &R_DB_UNIQUE);
        f->c->failure = (Failure){ 0 };
        CHECK_SQL(f, "SELECT count(*) FROM pair", 1);
    }
}
