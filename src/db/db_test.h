// SPDX-License-Identifier: Apache-2.0
// db_test.h - for the tests of db/: one suite, run on both databases (db/suite_test.h).
#ifndef LATHE_DB_TEST_H
#define LATHE_DB_TEST_H
#include "db/db_impl.h"
#include "db/suite_test.h"

typedef struct Fix {
    Ctx *c;
    Db *db; // an empty database of this test's own
    DbKind kind;
    str url; // to open it once more
} Fix;
void fix_run(DbKind kind, void (*fn)(Fix *f));

// The first two run on one side only.
#define DB_TEST_POSTGRES(name_)                           \
    static void suite_##name_(Fix *f);                    \
    SUITE_TEST_ON(DB_POSTGRES, fix_run, name_, _postgres) \
    static void suite_##name_(Fix *f)
#define DB_TEST_SQLITE(name_)                         \
    static void suite_##name_(Fix *f);                \
    SUITE_TEST_ON(DB_SQLITE, fix_run, name_, _sqlite) \
    static void suite_##name_(Fix *f)
#define DB_TEST(name_) SUITE_TEST(Fix, fix_run, name_)

err fix_open(Fix *f, Db **out); // the same database again

// One script, or one statement whose single number is wanted, in a transaction of its own.
err fix_script(Fix *f, const char *text);
err fix_int(Fix *f, const char *text, int64_t *out);
#define CHECK_SQL(f, text, want)                                                        \
    do {                                                                                \
        int64_t n_ = 0;                                                                 \
        CHECK_OK((f)->c, fix_int((f), (text), &n_));                                    \
        if (n_ != (want))                                                               \
            TEST_FAIL_("%s: %lld, not %lld", (text), (long long)n_, (long long)(want)); \
    } while (0)

// Threads that all run fn(arg, i), begun together; waits for all.
void fix_threads(int n, void (*fn)(void *arg, int i), void *arg);
#endif
