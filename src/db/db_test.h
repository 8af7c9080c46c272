// SPDX-License-Identifier: Apache-2.0
// db_test.h - for the tests of db/: one suite, run on both databases. PostgreSQL's half is there
// when LATHE_TEST_POSTGRES is set (test/postgres-run sets it); else one line says that it is not.
#ifndef LATHE_DB_TEST_H
#define LATHE_DB_TEST_H
#include "base/test.h"
#include "db/db_impl.h"

typedef struct Fix {
    Ctx *c;
    Db *db; // an empty database of this test's own
    DbKind kind;
    str url; // to open it once more
} Fix;
void fix_run(DbKind kind, void (*fn)(Fix *f));

// A test that runs on one side only, in a fresh database.
#define DB_TEST_ON(kind, name_, suffix)                                        \
    static void test_##name_##suffix(void) { fix_run(kind, suite_##name_); }   \
    __attribute__((constructor)) static void test_add_##name_##suffix(void) {  \
        static Test t = { #name_ #suffix, __FILE__, test_##name_##suffix, 0 }; \
        if (kind == DB_SQLITE || fix_postgres_url()) test_add(&t);             \
    }
#define DB_TEST_POSTGRES(name_)               \
    static void suite_##name_(Fix *f);        \
    DB_TEST_ON(DB_POSTGRES, name_, _postgres) \
    static void suite_##name_(Fix *f)
#define DB_TEST_SQLITE(name_)             \
    static void suite_##name_(Fix *f);    \
    DB_TEST_ON(DB_SQLITE, name_, _sqlite) \
    static void suite_##name_(Fix *f)
#define DB_TEST(name_)                        \
    static void suite_##name_(Fix *f);        \
    DB_TEST_ON(DB_SQLITE, name_, _sqlite)     \
    DB_TEST_ON(DB_POSTGRES, name_, _postgres) \
    static void suite_##name_(Fix *f)

const char *fix_postgres_url(void); // NULL: not asked for
err fix_open(Fix *f, Db **out);     // the same database again
Ctx *fix_ctx(void);                 // for a thread of the test; fix_ctx_free
void fix_ctx_free(Ctx *c);

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
