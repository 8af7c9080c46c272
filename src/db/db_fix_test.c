// SPDX-License-Identifier: Apache-2.0
// db_fix_test.c - the fixture of db_test.h: a fresh database on either side, threads, helpers.
// Threads: the test's.
#include "db/db_test.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

Ctx *fix_ctx(void) {
    Ctx *c = mem_new(sizeof *c);
    ctx_init(c, arena_new(), os_real());
    return c;
}

void fix_ctx_free(Ctx *c) {
    arena_free(c->mem);
    mem_free(c);
}

err fix_open(Fix *f, Db **out) { return db_open(f->c, &(DbConfig){ .url = f->url }, out); }

// Also before main: no Os yet.
const char *fix_postgres_url(void) { return getenv("LATHE_TEST_POSTGRES"); }

TEST(postgres_is_there_or_skipped) {
    Ctx *c = test_ctx();
    Db *db;
    c->os = os_real();
    if (!fix_postgres_url()) {
        printf("skipped: db *_postgres (LATHE_TEST_POSTGRES is not set: test/postgres-run)\n");
        return;
    }
    CHECK_OK(c, db_open(c, &(DbConfig){ .url = str_z(fix_postgres_url()) }, &db));
    CHECK_OK(c, db_check(c, db));
    db_close(db);
}

static SQL(schema_drop, "DROP SCHEMA IF EXISTS lathe_test CASCADE");
static SQL(schema_make, "CREATE SCHEMA lathe_test");

static err fresh_schema(Ctx *c, Tx *tx, void *arg) {
    (void)arg;
    TRY(db_run(c, tx, &schema_drop));
    return db_run(c, tx, &schema_make);
}

static err make_url(Fix *f) {
    Ctx *c = f->c;
    if (f->kind == DB_SQLITE) {
        f->url = str_z(say(c, "sqlite:%s/t.db", test_dir()));
        return ERR_OK;
    }
    const char *url = fix_postgres_url();
    Db *admin;
    TRY(db_open(c, &(DbConfig){ .url = str_z(url) }, &admin));
    err e = db_tx(c, admin, fresh_schema, NULL);
    db_close(admin);
    f->url =
        str_z(say(c, "%s%coptions=-csearch_path%%3Dlathe_test", url, strchr(url, '?') ? '&' : '?'));
    return e;
}

static void open_and_run(Fix *f, void (*fn)(Fix *f)) {
    CHECK_OK(f->c, make_url(f));
    CHECK_OK(f->c, fix_open(f, &f->db));
    fn(f);
    db_close(f->db);
}

void fix_run(DbKind kind, void (*fn)(Fix *f)) {
    Fix f = { .c = fix_ctx(), .kind = kind };
    open_and_run(&f, fn);
    fix_ctx_free(f.c);
}

typedef struct Ask {
    const char *text;
    int64_t number;
} Ask;

static err run_script(Ctx *c, Tx *tx, void *arg) {
    const char *text = arg;
    if (tx_kind(tx) == DB_POSTGRES) text = ddl_postgres(c->mem, text);
    err e = tx->db->ops->script(c, tx, "script", text);
    return e ? tx_spoil(c, tx, e) : ERR_OK;
}

err fix_script(Fix *f, const char *text) { return db_tx(f->c, f->db, run_script, (void *)text); }

static err ask_number(Ctx *c, Tx *tx, void *arg) {
    Ask *a = arg;
    const Sql sql = { "ask", a->text, NULL };
    Rows *r;
    TRY(db_one(c, tx, &r, &sql, NULL, 0));
    a->number = col_int(r, 0);
    return ERR_OK;
}

err fix_int(Fix *f, const char *text, int64_t *out) {
    Ask a = { text, 0 };
    TRY(db_read(f->c, f->db, ask_number, &a));
    *out = a.number;
    return ERR_OK;
}

typedef struct Crowd {
    pthread_barrier_t *start;
    void (*fn)(void *arg, int i);
    void *arg;
    int i;
} Crowd;

static void crowd_main(void *arg) {
    Crowd *one = arg;
    pthread_barrier_wait(one->start);
    one->fn(one->arg, one->i);
}

void fix_threads(int n, void (*fn)(void *arg, int i), void *arg) {
    enum { MOST = 32 };
    Thread threads[MOST];
    Crowd crowd[MOST];
    pthread_barrier_t start;
    assert(n <= MOST);
    pthread_barrier_init(&start, NULL, (unsigned)n);
    for (int i = 0; i < n; i++) {
        crowd[i] = (Crowd){ &start, fn, arg, i };
        thread_start(os_real(), "db-test", crowd_main, &crowd[i], &threads[i]);
    }
    for (int i = 0; i < n; i++) thread_join(threads[i]);
    pthread_barrier_destroy(&start);
}
