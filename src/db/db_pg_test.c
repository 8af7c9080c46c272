// SPDX-License-Identifier: Apache-2.0
// db_pg_test.c - what PostgreSQL alone does: serialisation failures, connections that break, locks,
// stale plans, types that SQLite lacks. Threads: the test's; a helper's Db where a server's word
// about another connection is wanted.
#include "db/db_test.h"
#include "db/pg_impl.h"
#include <sched.h>
#include <stdatomic.h>

static const char table[] = "CREATE TABLE box (id INTEGER NOT NULL, n INTEGER NOT NULL,"
                            " PRIMARY KEY (id)) STRICT; INSERT INTO box (id, n) VALUES (1, 0)";
static SQL(box_get, "SELECT n FROM box WHERE id = 1");
static SQL(box_set, "UPDATE box SET n = $1 WHERE id = 1");
static SQL(box_all, "SELECT * FROM box WHERE id = 1");
static SQL(my_pid, "SELECT pg_backend_pid()");
static SQL(end_pid, "SELECT pg_terminate_backend(CAST($1 AS INTEGER))");
static SQL(sleepers, "SELECT count(*) FROM pg_stat_activity WHERE pid = $1"
                     " AND wait_event = 'PgSleep'");

typedef struct Story {
    Fix *f;
    int runs;
    atomic_llong pid;
    atomic_bool held, release;
    err helped;
    Ctx *other; // the helper's
    Db *node;   // another one's, for the helper; NULL: the same
} Story;

static err number(Ctx *c, Tx *tx, const Sql *sql, const Val *args, size_t n, int64_t *out) {
    Rows *r;
    TRY(db_one(c, tx, &r, sql, args, n));
    *out = col_int(r, 0);
    return ERR_OK;
}

static err increment(Ctx *c, Tx *tx, void *arg) {
    int64_t n;
    (void)arg;
    TRY(number(c, tx, &box_get, NULL, 0, &n));
    return db_run(c, tx, &box_set, V(n + 1));
}

// Runs the helper to its end on a thread of its own, for a transaction may not start another.
static err aside(Story *s, void (*fn)(void *)) {
    Thread t;
    thread_start(os_real(), "db-test", fn, s, &t);
    thread_join(t);
    return s->helped;
}

static void increment_aside(void *arg) {
    Story *s = arg;
    s->helped = db_tx(s->other, s->node ? s->node : s->f->db, increment, NULL);
}

static err overtaken(Ctx *c, Tx *tx, void *arg) {
    Story *s = arg;
    int64_t n;
    TRY(number(c, tx, &box_get, NULL, 0, &n));
    if (!s->runs++) TRY(aside(s, increment_aside));
    return db_run(c, tx, &box_set, V(n + 1));
}

DB_TEST_POSTGRES(a_serialisation_failure_runs_again) {
    Story s = { .f = f, .other = suite_ctx(NULL) };
    CHECK_OK(f->c, fix_script(f, table));
    CHECK_OK(f->c, db_tx(f->c, f->db, overtaken, &s));
    CHECK_INT(s.runs, 2);
    CHECK_SQL(f, "SELECT n FROM box", 2);
    CHECK_INT(db_counts(f->db).retries, 1);
    suite_ctx_free(s.other);
}

static err always_overtaken(Ctx *c, Tx *tx, void *arg) {
    Story *s = arg;
    int64_t n;
    s->runs++;
    TRY(number(c, tx, &box_get, NULL, 0, &n));
    TRY(aside(s, increment_aside));
    return db_run(c, tx, &box_set, V(n + 1));
}

DB_TEST_POSTGRES(who_is_always_overtaken_gives_up_after_a_while) {
    Story s = { .f = f, .other = suite_ctx(NULL) };
    CHECK_OK(f->c, fix_script(f, table));
    db_close(f->db);
    const DbConfig config = { .url = f->url, .readers = 2, .busy_ms = 300 };
    CHECK_OK(f->c, db_open(f->c, &config, &f->db));
    CHECK_OK(f->c, db_open(f->c, &config, &s.node));
    int64_t begun = os_mono_ns(os_real());
    CHECK_ERR(db_tx(f->c, f->db, always_overtaken, &s), ERR_UNAVAILABLE);
    CHECK(os_mono_ns(os_real()) - begun >= 300 * INT64_C(1000000));
    CHECK(f->c->failure.why == &R_DB_BUSY && f->c->failure.retry_after_ms > 0);
    CHECK_STR(failure_param(&f->c->failure, "ms"), "300");
    CHECK(s.runs >= 1 + DB_RETRIES);
    CHECK_SQL(f, "SELECT n FROM box", s.runs); // the helper's alone
    db_close(s.node);
    suite_ctx_free(s.other);
}

enum { MEMBERS = 16, WRITES = 40 };
typedef struct Crowd {
    Fix *f;
    err e;
    int runs, most; // of the transaction under way; of one of them
} Crowd;

static err increment_counted(Ctx *c, Tx *tx, void *arg) {
    ((Crowd *)arg)->runs++;
    return increment(c, tx, NULL);
}

static void crowd_member(void *arg) {
    Crowd *m = arg;
    Ctx *c = suite_ctx(NULL);
    for (int i = 0; i < WRITES && !m->e; i++) {
        m->runs = 0;
        m->e = db_tx(c, m->f->db, increment_counted, m);
        if (m->runs > m->most) m->most = m->runs;
    }
    suite_ctx_free(c);
}

// With luck alone one of them is overtaken dozens of times, and an impatient caller gives up.
DB_TEST_POSTGRES(a_crowd_of_writers_all_get_through) {
    Crowd crowd[MEMBERS];
    Thread threads[MEMBERS];
    CHECK_OK(f->c, fix_script(f, table));
    for (int i = 0; i < MEMBERS; i++) {
        crowd[i] = (Crowd){ .f = f };
        thread_start(os_real(), "db-test", crowd_member, &crowd[i], &threads[i]);
    }
    for (int i = 0; i < MEMBERS; i++) thread_join(threads[i]);
    int most = 0;
    for (int i = 0; i < MEMBERS; i++) {
        CHECK(!crowd[i].e);
        if (crowd[i].most > most) most = crowd[i].most;
    }
    CHECK(most <= 6); // 3 but for a loaded machine; 7 to 9 without turns
    CHECK_SQL(f, "SELECT n FROM box", MEMBERS * WRITES);
}

// ---- broken connections

static err terminate(Ctx *c, Tx *tx, void *arg) {
    int64_t pid = atomic_load(&((Story *)arg)->pid);
    Rows *r;
    return db_one(c, tx, &r, &end_pid, (const Val[]){ V(pid) }, 1);
}

static void terminate_aside(void *arg) {
    Story *s = arg;
    s->helped = db_tx(s->other, s->f->db, terminate, s);
}

static err cut_off(Ctx *c, Tx *tx, void *arg) {
    Story *s = arg;
    int64_t pid;
    TRY(increment(c, tx, NULL));
    TRY(number(c, tx, &my_pid, NULL, 0, &pid));
    atomic_store(&s->pid, pid);
    if (!s->runs++) TRY(aside(s, terminate_aside));
    return increment(c, tx, NULL);
}

DB_TEST_POSTGRES(a_connection_lost_before_the_commit_runs_again) {
    Story s = { .f = f, .other = suite_ctx(NULL) };
    CHECK_OK(f->c, fix_script(f, table));
    CHECK_OK(f->c, db_tx(f->c, f->db, cut_off, &s));
    CHECK_INT(s.runs, 2);
    CHECK_SQL(f, "SELECT n FROM box", 2);
    s.runs = 0;
    CHECK_ERR(db_read(f->c, f->db, cut_off, &s), ERR_INTERNAL); // it writes
    suite_ctx_free(s.other);
}

static err count_sleepers(Ctx *c, Tx *tx, void *arg) {
    Story *s = arg;
    int64_t n, pid = atomic_load(&s->pid);
    TRY(number(c, tx, &sleepers, (const Val[]){ V(pid) }, 1, &n));
    atomic_store(&s->held, n > 0);
    return ERR_OK;
}

// Waits until the COMMIT sleeps in the server, then breaks its connection.
static void cut_commit(void *arg) {
    Story *s = arg;
    while (!atomic_load(&s->pid)) sched_yield();
    do s->helped = db_read(s->other, s->f->db, count_sleepers, s);
    while (!s->helped && !atomic_load(&s->held));
    if (!s->helped) terminate_aside(s);
}

static err slow_commit(Ctx *c, Tx *tx, void *arg) {
    Story *s = arg;
    int64_t pid;
    s->runs++;
    TRY(number(c, tx, &my_pid, NULL, 0, &pid));
    TRY(increment(c, tx, NULL));
    atomic_store(&s->pid, pid);
    return ERR_OK;
}

static const char sleepy[] =
    "CREATE FUNCTION doze() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN PERFORM pg_sleep(20); RETURN NULL; END $$;"
    "CREATE CONSTRAINT TRIGGER doze AFTER UPDATE ON box DEFERRABLE INITIALLY DEFERRED"
    " FOR EACH ROW EXECUTE FUNCTION doze()";

DB_TEST_POSTGRES(a_connection_lost_in_the_commit_is_told) {
    Story s = { .f = f, .other = suite_ctx(NULL) };
    Thread t;
    CHECK_OK(f->c, fix_script(f, table));
    CHECK_OK(f->c, fix_script(f, sleepy));
    thread_start(os_real(), "db-test", cut_commit, &s, &t);
    err e = db_tx(f->c, f->db, slow_commit, &s);
    thread_join(t);
    CHECK_OK(s.other, s.helped);
    CHECK_ERR(e, ERR_UNAVAILABLE);
    CHECK(f->c->failure.why == &R_DB_UNKNOWN);
    CHECK_INT(s.runs, 1);
    suite_ctx_free(s.other);
}

// The pool's own idea of where the server is, for a server that goes away and comes back.
static void move_server(Fix *f, char *conninfo) {
    PgDb *db = (PgDb *)f->db;
    pthread_mutex_lock(&db->lock);
    db->conninfo = conninfo;
    db->generation++;
    pthread_mutex_unlock(&db->lock);
}

DB_TEST_POSTGRES(an_absent_server_is_told_and_found_again) {
    char *right = ((PgDb *)f->db)->conninfo, wrong[] = "host=/nowhere user=lathe";
    CHECK_OK(f->c, fix_script(f, table));
    move_server(f, wrong);
    for (int i = 0; i < 3; i++) { // the second and third fail fast, within the back-off
        CHECK_ERR(db_tx(f->c, f->db, increment, NULL), ERR_UNAVAILABLE);
        CHECK(f->c->failure.why == &R_DB_AWAY && f->c->failure.retry_after_ms > 0);
    }
    move_server(f, right);
    int64_t begun = os_mono_ns(os_real());
    err e = ERR_UNAVAILABLE;
    while (e == ERR_UNAVAILABLE && os_mono_ns(os_real()) - begun < test_longer(INT64_C(5000000000)))
        e = db_tx(f->c, f->db, increment, NULL);
    CHECK_OK(f->c, e);
    CHECK_SQL(f, "SELECT n FROM box", 1);
}

TEST(postgres_url_refused_or_away) {
    Ctx *c = test_ctx();
    Db *db = NULL;
    c->os = os_real();
    CHECK_ERR(db_open(c, &(DbConfig){ .url = S("postgres:password='sesame host=x") }, &db),
              ERR_INVALID);
    CHECK(c->failure.why == &R_DB_URL);
    CHECK(str_find(failure_param(&c->failure, "why"), S("sesame")) < 0);
    CHECK_ERR(db_open(c, &(DbConfig){ .url = S("postgres:host=/nowhere") }, &db), ERR_UNAVAILABLE);
    CHECK(c->failure.why == &R_DB_AWAY && c->failure.retry_after_ms > 0 && !db);
    CHECK_OK(c, db_open(c, &(DbConfig){ .url = S("postgres:host=/nowhere"), .later = true }, &db));
    CHECK_ERR(db_check(c, db), ERR_UNAVAILABLE);
    db_close(db);
}

// ---- locks and connections that others hold

static err hold(Ctx *c, Tx *tx, void *arg) {
    Story *s = arg;
    TRY(increment(c, tx, NULL));
    atomic_store(&s->held, true);
    while (!atomic_load(&s->release)) sched_yield();
    return ERR_OK;
}

static void hold_aside(void *arg) {
    Story *s = arg;
    s->helped = db_tx(s->other, s->f->db, hold, s);
}

// A row's lock with two connections; the connection itself with one.
DB_TEST_POSTGRES(what_others_hold_is_waited_for_a_while) {
    CHECK_OK(f->c, fix_script(f, table));
    db_close(f->db);
    for (int readers = 2; readers >= 1; readers--) {
        Story s = { .f = f, .other = suite_ctx(NULL) };
        const DbConfig config = { .url = f->url, .readers = readers, .busy_ms = 400 };
        Thread t;
        CHECK_OK(f->c, db_open(f->c, &config, &f->db));
        thread_start(os_real(), "db-test", hold_aside, &s, &t);
        while (!atomic_load(&s.held)) sched_yield();
        err e = db_tx(f->c, f->db, increment, NULL);
        atomic_store(&s.release, true);
        thread_join(t);
        CHECK_ERR(e, ERR_UNAVAILABLE);
        CHECK(f->c->failure.why == &R_DB_BUSY);
        CHECK_OK(s.other, s.helped);
        CHECK_SQL(f, "SELECT n FROM box", 3 - readers);
        CHECK(db_counts(f->db).waits_ns > 0 || readers == 2);
        suite_ctx_free(s.other);
        if (readers > 1) db_close(f->db);
    }
}

// ---- plans and types

static err columns(Ctx *c, Tx *tx, void *arg) {
    Rows *r;
    TRY(db_one(c, tx, &r, &box_all, NULL, 0));
    *(int *)arg = rows_columns(r);
    return ERR_OK;
}

DB_TEST_POSTGRES(a_changed_table_spoils_no_statement) {
    int n = 0;
    CHECK_OK(f->c, fix_script(f, table));
    CHECK_OK(f->c, db_read(f->c, f->db, columns, &n));
    CHECK_INT(n, 2);
    CHECK_OK(f->c, fix_script(f, "ALTER TABLE box ADD COLUMN more TEXT"));
    CHECK_OK(f->c, db_read(f->c, f->db, columns, &n));
    CHECK_INT(n, 3);
    CHECK_OK(f->c, db_tx(f->c, f->db, columns, &n));
    CHECK_INT(n, 3);
}

static SQL(types,
           "SELECT sum(n), avg(n), true, CAST('1.5' AS NUMERIC), CAST(7 AS SMALLINT),"
           " CAST(2.5 AS REAL), CAST('{\"a\": 1}' AS JSON), CAST('x' AS VARCHAR(3)) FROM box");

static err ask_types(Ctx *c, Tx *tx, void *arg) {
    Rows *r;
    TRY(db_one(c, tx, &r, &types, NULL, 0));
    *(bool *)arg = col_int(r, 0) == 0 && col_real(r, 1) == 0.0 && col_int(r, 2) == 1
                   && col_real(r, 3) == 1.5 && col_int(r, 4) == 7 && col_real(r, 5) == 2.5
                   && str_is(col_str(r, 6), "{\"a\": 1}") && str_is(col_str(r, 7), "x");
    return ERR_OK;
}

DB_TEST_POSTGRES(other_types_are_read) {
    bool right = false;
    CHECK_OK(f->c, fix_script(f, table));
    CHECK_OK(f->c, db_read(f->c, f->db, ask_types, &right));
    CHECK(right);
}
