// SPDX-License-Identifier: Apache-2.0
// job_test.h - for the tests of job/: one suite, run on both databases. PostgreSQL's half is there
// when LATHE_TEST_POSTGRES is set (test/postgres-run sets it).
#ifndef LATHE_JOB_JOB_TEST_H
#define LATHE_JOB_JOB_TEST_H
#include "base/test.h"
#include "job/job_own.h"

typedef struct JobFix {
    Ctx *c; // c->db is db
    Db *db; // an empty database of this test's own, with the tables of job/
    DbKind kind;
    str url; // to open it once more
} JobFix;
void job_fix_run(DbKind kind, void (*fn)(JobFix *f));
const char *job_fix_postgres(void); // NULL: not asked for
void job_fix_add(Test *t, DbKind kind);

#define JOB_TEST_ON(kind, name_, suffix)                                         \
    static void test_##name_##suffix(void) { job_fix_run(kind, suite_##name_); } \
    __attribute__((constructor)) static void test_add_##name_##suffix(void) {    \
        static Test t = { #name_ #suffix, __FILE__, test_##name_##suffix, 0 };   \
        job_fix_add(&t, kind);                                                   \
    }
#define JOB_TEST(name_)                        \
    static void suite_##name_(JobFix *f);      \
    JOB_TEST_ON(DB_SQLITE, name_, _sqlite)     \
    JOB_TEST_ON(DB_POSTGRES, name_, _postgres) \
    static void suite_##name_(JobFix *f)

// One statement without parameters, and the single number of a query, each on its own.
err job_fix_exec(JobFix *f, const char *text);
int64_t job_fix_int(JobFix *f, const char *text); // INT64_MIN on an error
Ctx *job_fix_ctx(Db *db);                         // for a thread of the test
void job_fix_ctx_free(Ctx *c);
// Looks every millisecond until it holds; false after 30 s.
bool job_fix_until(bool (*holds)(void *arg), void *arg);
#endif
