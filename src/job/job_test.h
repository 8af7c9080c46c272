// SPDX-License-Identifier: Apache-2.0
// job_test.h - for the tests of job/: one suite, run on both databases (db/suite_test.h).
#ifndef LATHE_JOB_JOB_TEST_H
#define LATHE_JOB_JOB_TEST_H
#include "db/suite_test.h"
#include "job/job_own.h"

typedef struct JobFix {
    Ctx *c; // c->db is db
    Db *db; // an empty database of this test's own, with the tables of job/
    DbKind kind;
    str url; // to open it once more
} JobFix;
void job_fix_run(DbKind kind, void (*fn)(JobFix *f));
#define JOB_TEST(name_) SUITE_TEST(JobFix, job_fix_run, name_)

// One statement without parameters, and the single number of a query, each on its own.
err job_fix_exec(JobFix *f, const char *text);
int64_t job_fix_int(JobFix *f, const char *text); // INT64_MIN on an error
// Looks every millisecond until it holds; false after 30 s.
bool job_fix_until(bool (*holds)(void *arg), void *arg);
#endif
