// SPDX-License-Identifier: Apache-2.0
// db_log_test.c - SQLite's log followed while others write: a copy, and the steps from before it to
// after it, give exactly what each step saw. Threads: the test's and a writer.
#include "db/copy.h"
#include "db/db_test.h"
#include "os/file.h"
#include <stdatomic.h>
#include <unistd.h>

enum { STEPS = 12, BETWEEN = 70 };
static const Migration table[] = {
    { 1,
      "CREATE TABLE mark (n INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;"
      "CREATE INDEX mark_body ON mark (body)",
      NULL },
};
typedef struct World {
    Fix *f;
    atomic_llong done; // acknowledged
    atomic_bool over;
    LogStep steps[STEPS];
    int64_t least[STEPS], most[STEPS]; // rows that a step must hold, and may
} World;

// Rows come, grow, and go again, so that pages are freed and the file shrinks.
static err write_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(mark_add, "INSERT INTO mark (n, body) VALUES ($1, $2)");
    static SQL(mark_grow, "UPDATE mark SET body = body || $2 WHERE n % 97 = $1");
    static SQL(mark_cut, "UPDATE mark SET body = 'x' WHERE n % 89 = $1");
    int64_t n = *(const int64_t *)arg;
    char body[900];
    memset(body, 'a' + (int)(n % 26), sizeof body);
    TRY(db_run(c, tx, &mark_add, V(n), V(str_n(body, (size_t)(n * 7919 % 900)))));
    if (n % 50 == 0) TRY(db_run(c, tx, &mark_grow, V(n % 97), V(str_n(body, 500))));
    return n % 40 ? ERR_OK : db_run(c, tx, &mark_cut, V(n % 89));
}

static void writer(void *arg, int i) {
    World *w = arg;
    Ctx *c = suite_ctx(w->f->db);
    (void)i;
    for (int64_t n = 1; !w->over && n < 200000; n++) {
        CHECK_OK(c, db_tx(c, w->f->db, write_tx, &n));
        atomic_store(&w->done, n);
        arena_reset(c->mem);
    }
    suite_ctx_free(c);
}

static str step_path(World *w, int i) {
    return arena_printf(w->f->c->mem, STR_FMT ".step%d", STR_ARG(sqlite_path(w->f->db)), i);
}

static void step(World *w, SqliteLog *l, int i, bool keep) {
    Ctx *c = w->f->c;
    File *to;
    CHECK_OK(c, file_open(c, step_path(w, i), FILE_READ | FILE_WRITE | FILE_CREATE | FILE_TRUNCATE,
                          &to));
    w->least[i] = atomic_load(&w->done);
    CHECK_OK(c, sqlite_log_next(c, l, to, &w->steps[i]));
    w->most[i] = atomic_load(&w->done) + 1; // one is on its way
    CHECK(!w->steps[i].gap);
    if (keep) CHECK_OK(c, sqlite_log_keep(c, l));
    file_close(to);
}

static void rows_in(Ctx *c, str path, int64_t *out_n, int64_t *out_highest) {
    Fix f = { .c = c, .url = arena_printf(c->mem, "sqlite:" STR_FMT, STR_ARG(path)) };
    *out_n = -1;
    CHECK_OK(c, fix_open(&f, &f.db));
    CHECK_OK(c, db_check(c, f.db));
    CHECK_OK(c, fix_int(&f, "SELECT count(*) FROM mark", out_n));
    CHECK_OK(c, fix_int(&f, "SELECT COALESCE(max(n), 0) FROM mark", out_highest));
    db_close(f.db);
}

static void follower(void *arg, int i) {
    World *w = arg;
    Ctx *c = w->f->c;
    SqliteLog *l;
    if (i) {
        writer(arg, i);
        return;
    }
    str copy = arena_printf(c->mem, STR_FMT ".copy", STR_ARG(sqlite_path(w->f->db)));
    CHECK_OK(c, sqlite_log_open(c, w->f->db, &l));
    for (int k = 0; k < STEPS; k++) {
        int64_t until = atomic_load(&w->done) + BETWEEN;
        while (atomic_load(&w->done) < until) thread_pause(c->os, 1000000);
        if (k % 5 == 2) step(w, l, k, false); // one that failed: the next covers it
        step(w, l, k, true);
        if (k == STEPS / 3) CHECK_OK(c, sqlite_copy(c, sqlite_path(w->f->db), copy, NULL));
    }
    w->over = true;
    sqlite_log_close(l);
}

DB_TEST_SQLITE(steps_of_the_log_over_a_copy_are_what_each_step_saw) {
    Ctx *c = f->c;
    World w = { .f = f };
    CHECK_OK(c, db_migrate(c, f->db, "log", table, 1));
    fix_threads(2, follower, &w);
    str copy = arena_printf(c->mem, STR_FMT ".copy", STR_ARG(sqlite_path(f->db)));
    for (int k = STEPS / 3; k < STEPS; k++) { // one step older than the copy does no harm
        File *from;
        CHECK_OK(c, file_open(c, step_path(&w, k), FILE_READ, &from));
        CHECK_OK(c, sqlite_log_apply(c, copy, from, w.steps[k].page_bytes, w.steps[k].pages));
        file_close(from);
        if (k == STEPS / 3) continue; // it ended before the copy did
        int64_t highest, n;
        str look = arena_printf(c->mem, STR_FMT ".look", STR_ARG(copy));
        CHECK_OK(c, sqlite_copy(c, copy, look, NULL));
        rows_in(c, look, &n, &highest);
        CHECK_INT(n, highest); // a prefix of the history, whole
        CHECK(n >= w.least[k] && n <= w.most[k]);
        CHECK_OK(c, path_remove(c, look));
    }
}

// POSIX locks of this process on bytes `from` on, of whatever file: "1: POSIX  ADVISORY  READ 4711
// 00:1b:123 128 128" (proc(5)).
static int locks_held(Ctx *c, const char *bytes) {
    str text, line, part;
    int n = 0;
    str pid = arena_printf(c->mem, "%ld", (long)getpid());
    if (file_read_all(c, S("/proc/locks"), 1 << 20, &text)) return -1;
    while (str_cut(&text, '\n', &line)) {
        bool posix = str_find(line, S(" POSIX ")) >= 0, ours = false;
        bool there = str_ends(str_trim(line), str_z(bytes));
        while (str_cut(&line, ' ', &part)) ours |= str_eq(part, pid);
        n += posix && ours && there;
    }
    return n;
}

// Without its lock on byte 128 of the index ("somebody is there") the next program that opens the
// database cuts the index, which we have mapped.
DB_TEST_SQLITE(following_the_log_keeps_the_locks_on_its_index) {
    Ctx *c = f->c;
    SqliteLog *l;
    LogStep step;
    File *to;
    CHECK_OK(c, db_migrate(c, f->db, "log", table, 1));
    CHECK_OK(c, file_open(c, arena_printf(c->mem, STR_FMT ".step", STR_ARG(sqlite_path(f->db))),
                          FILE_READ | FILE_WRITE | FILE_CREATE, &to));
    int before = locks_held(c, " 128 128");
    CHECK_INT(before, 1);
    for (int i = 0; i < 3; i++) {
        CHECK_OK(c, sqlite_log_open(c, f->db, &l));
        CHECK_OK(c, sqlite_log_next(c, l, to, &step));
        CHECK_INT(locks_held(c, " 128 128"), before);
        CHECK_OK(c, sqlite_log_keep(c, l));
        sqlite_log_close(l);
        CHECK_INT(locks_held(c, " 128 128"), before);
    }
    file_close(to);
}
