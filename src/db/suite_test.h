// SPDX-License-Identifier: Apache-2.0
// suite_test.h - for tests of any part that keeps rows: one suite, run on both databases, each time
// in an empty one. PostgreSQL's half is there when LATHE_TEST_POSTGRES is set (test/postgres-run
// sets it). Threads: the test's; one test at a time uses PostgreSQL.
#ifndef LATHE_DB_SUITE_TEST_H
#define LATHE_DB_SUITE_TEST_H
#include "base/test.h"
#include "db/db.h"

const char *suite_postgres(void);     // its URL; NULL: not asked for
void suite_add(Test *t, DbKind kind); // before main: a test, where its database is there
err suite_database(Ctx *c, DbKind kind, str *out_url); // empties it; the URL lasts as long as c

// A Ctx of the machine's os, for a thread of the test; suite_ctx_free. db NULL: none.
Ctx *suite_ctx(Db *db);
void suite_ctx_free(Ctx *c);

// SUITE_TEST(Fixture, run, name) { uses f }: run(kind, fn) makes a Fixture on that database, calls
// fn(f) and undoes it. More arguments go to run between the two. SUITE_TEST_ON is one half, for a
// suite_NAME that is written already.
#define SUITE_TEST_ON(kind, run, name_, suffix, ...)                           \
    static void test_##name_##suffix(void) {                                   \
        run(kind __VA_OPT__(, ) __VA_ARGS__, suite_##name_);                   \
    }                                                                          \
    __attribute__((constructor)) static void test_add_##name_##suffix(void) {  \
        static Test t = { #name_ #suffix, __FILE__, test_##name_##suffix, 0 }; \
        suite_add(&t, kind);                                                   \
    }
#define SUITE_TEST(Fixture, run, name_, ...)                                     \
    static void suite_##name_(Fixture *f);                                       \
    SUITE_TEST_ON(DB_SQLITE, run, name_, _sqlite __VA_OPT__(, ) __VA_ARGS__)     \
    SUITE_TEST_ON(DB_POSTGRES, run, name_, _postgres __VA_OPT__(, ) __VA_ARGS__) \
    static void suite_##name_(Fixture *f)
#endif
