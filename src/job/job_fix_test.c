// SPDX-License-Identifier: Apache-2.0
// job_fix_test.c - the fixture of job_test.h.
#include "job/job_test.h"
#include <stdlib.h>
#include <time.h>

const char *job_fix_postgres(void) { return getenv("LATHE_TEST_POSTGRES"); }

void job_fix_add(Test *t, DbKind kind) {
    if (kind == DB_SQLITE || job_fix_postgres()) test_add(t);
}

Ctx *job_fix_ctx(Db *db) {
    Ctx *c = mem_new(sizeof *c);
    ctx_init(c, arena_new(), os_real());
    c->db = db;
    return c;
}

void job_fix_ctx_free(Ctx *c) {
    arena_free(c->mem);
    mem_free(c);
}

static SQL(schema_drop, "DROP SCHEMA IF EXISTS lathe_job_test CASCADE");
static SQL(schema_make, "CREATE SCHEMA lathe_job_test");

static err fresh_schema(Ctx *c, Tx *tx, void *arg) {
    (void)arg;
    TRY(db_run(c, tx, &schema_drop));
    return db_run(c, tx, &schema_make);
}

static err make_url(JobFix *f) {
    if (f->kind == DB_SQLITE) {
        f->url = str_z(say(f->c, "sqlite:%s/t.db", test_dir()));
        return ERR_OK;
    }
    const char *url = job_fix_postgres();
    Db *admin;
    TRY(db_open(f->c, &(DbConfig){ .url = str_z(url) }, &admin));
    err e = db_tx(f->c, admin, fresh_schema, NULL);
    db_close(admin);
    char sep = strchr(url, '?') ? '&' : '?';
    f->url = str_z(say(f->c, "%s%coptions=-csearch_path%%3Dlathe_job_test", url, sep));
    return e;
}

static void open_and_run(JobFix *f, void (*fn)(JobFix *f)) {
    CHECK_OK(f->c, make_url(f));
    CHECK_OK(f->c, db_open(f->c, &(DbConfig){ .url = f->url }, &f->db));
    CHECK_OK(f->c, job_tables_make(f->c, f->db));
    f->c->db = f->db;
    fn(f);
    for (Jobs *left; (left = jobs_of(f->c));) jobs_free(left); // of a failed test
    db_close(f->db);
}

void job_fix_run(DbKind kind, void (*fn)(JobFix *f)) {
    JobFix f = { .c = job_fix_ctx(NULL), .kind = kind };
    open_and_run(&f, fn);
    job_fix_ctx_free(f.c);
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
    int64_t end_ns = os_mono_ns(os_real()) + (int64_t)30 * 1000000000;
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
