// SPDX-License-Identifier: Apache-2.0
// db_fix_test.c - the fixture of db_test.h: a fresh database on either side, threads, helpers.
// Threads: the test's.
#include "db/db_test.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

err fix_open(Fix *f, Db **out) { return db_open(f->c, &(DbConfig){ .url = f->url }, out); }

static void open_and_run(Fix *f, void (*fn)(Fix *f)) {
    CHECK_OK(f->c, suite_database(f->c, f->kind, &f->url));
    CHECK_OK(f->c, fix_open(f, &f->db));
    fn(f);
    db_close(f->db);
}

void fix_run(DbKind kind, void (*fn)(Fix *f)) {
    Fix f = { .c = suite_ctx(NULL), .kind = kind };
    open_and_run(&f, fn);
    suite_ctx_free(f.c);
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
