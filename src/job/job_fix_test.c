// SPDX-License-Identifier: Apache-2.0
// job_fix_test.c - the fixture of job_test.h.
#include "job/job_test.h"
#include <stdlib.h>
#include <time.h>

static void open_and_run(JobFix *f, void (*fn)(JobFix *f)) {
    CHECK_OK(f->c, suite_database(f->c, f->kind, &f->url));
    CHECK_OK(f->c, db_open(f->c, &(DbConfig){ .url = f->url }, &f->db));
    CHECK_OK(f->c, jobs_tables(f->c, f->db));
    f->c->db = f->db;
    fn(f);
    for (Jobs *left; (left = jobs_of(f->c));) jobs_free(left); // of a failed test
    db_close(f->db);
}

void job_fix_run(DbKind kind, void (*fn)(JobFix *f)) {
    JobFix f = { .c = suite_ctx(NULL), .kind = kind };
    open_and_run(&f, fn);
    suite_ctx_free(f.c);
}

typedef struct Ask {
    const char *text;
    int64_t number;
} Ask;

static err run_exec(Ctx *c, Tx *tx, void *arg) {
    const Sql sql = { "exec", arg, NULL };
    return db_run(c, tx, &sql);
}

err job_fix_exec(JobFix *f, const char *text) { return db_tx(f->c, f->db, run_exec, (void *)text); }

static err run_ask(Ctx *c, Tx *tx, void *arg) {
    Ask *a = arg;
    const Sql sql = { "ask", a->text, NULL };
    Rows *r;
    TRY(db_one(c, tx, &r, &sql, NULL, 0));
    a->number = col_int(r, 0);
    return ERR_OK;
}

int64_t job_fix_int(JobFix *f, const char *text) {
    Ask a = { text, 0 };
    return db_read(f->c, f->db, run_ask, &a) ? INT64_MIN : a.number;
}

bool job_fix_until(bool (*holds)(void *arg), void *arg) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static pthread_cond_t never = PTHREAD_COND_INITIALIZER;
    int64_t end_ns = os_mono_ns(os_real()) + test_longer(30) * 1000000000;
    while (!holds(arg)) {
        if (os_mono_ns(os_real()) > end_ns) return false;
        struct timespec when;
        clock_gettime(CLOCK_REALTIME, &when);
        when.tv_nsec += 1000000;
        if (when.tv_nsec >= 1000000000) when.tv_sec++, when.tv_nsec -= 1000000000;
        pthread_mutex_lock(&lock);
        pthread_cond_timedwait(&never, &lock, &when);
        pthread_mutex_unlock(&lock);
    }
    return true;
}
