// SPDX-License-Identifier: Apache-2.0
// db_tx_test.c - transactions side by side: sums, snapshots, anomalies, limits of time. The same on
// both databases. Threads: the test's.
#include "db/db_test.h"
#include <stdatomic.h>

static const char counters[] = "CREATE TABLE counter (id INTEGER NOT NULL, n INTEGER NOT NULL,"
                               " PRIMARY KEY (id)) STRICT;"
                               "INSERT INTO counter (id, n) VALUES (1, 0), (2, 0)";
static SQL(counter_get, "SELECT n FROM counter WHERE id = $1");
static SQL(counter_set, "UPDATE counter SET n = $2 WHERE id = $1");
static SQL(counter_sum, "SELECT CAST(sum(n) AS BIGINT) FROM counter");

// What every test's threads share.
typedef struct Shared {
    Fix *f;
    int each;
    atomic_int good, refused, odd;
} Shared;

static err get(Ctx *c, Tx *tx, const Sql *sql, int64_t id, int64_t *out) {
    Rows *r;
    TRY(db_one(c, tx, &r, sql, (const Val[]){ V(id) }, sql == &counter_sum ? 0 : 1));
    *out = col_int(r, 0);
    return ERR_OK;
}

// Reads, then writes what it read plus one: lost updates would show.
static err increment(Ctx *c, Tx *tx, void *arg) {
    int64_t n, id = *(const int64_t *)arg;
    TRY(get(c, tx, &counter_get, id, &n));
    return db_run(c, tx, &counter_set, V(id), V(n + 1));
}

static err increment_and_fail(Ctx *c, Tx *tx, void *arg) {
    TRY(increment(c, tx, arg));
    return fail(c, ERR_GONE, R_DB_NO_ROW);
}

// A serialisation failure that outlasts all retries is an answer, too, if nothing was written.
static void note(Shared *s, err e) {
    atomic_fetch_add(!e ? &s->good : e == ERR_UNAVAILABLE ? &s->refused : &s->odd, 1);
}

static void increments(void *arg, int i) {
    Shared *s = arg;
    (void)i;
    for (int n = 0; n < s->each; n++) {
        Ctx *c = suite_ctx(NULL);
        note(s, db_tx(c, s->f->db, increment, &(int64_t){ 1 }));
        suite_ctx_free(c);
    }
}

DB_TEST(increments_add_up) {
    Shared s = { .f = f, .each = 50 };
    int64_t sum = 0;
    CHECK_OK(f->c, fix_script(f, counters));
    fix_threads(8, increments, &s);
    CHECK_INT(s.odd, 0);
    CHECK_INT(s.good + s.refused, 400);
    CHECK_OK(f->c, fix_int(f, "SELECT n FROM counter WHERE id = 1", &sum));
    CHECK_INT(sum, s.good);
    CHECK(s.good >= 200);
    DbCounts n = db_counts(f->db);
    CHECK_INT(n.transactions, s.good + 1);
    if (f->kind == DB_SQLITE) CHECK(s.refused == 0 && n.commits < n.transactions);
}

static void with_failures(void *arg, int i) {
    Shared *s = arg;
    for (int n = 0; n < s->each; n++) {
        Ctx *c = suite_ctx(NULL);
        err e = db_tx(c, s->f->db, (n + i) % 2 ? increment_and_fail : increment, &(int64_t){ 1 });
        if ((n + i) % 2 && e == ERR_GONE)
            e = c->failure.why == &R_DB_NO_ROW ? ERR_UNAVAILABLE : ERR_INTERNAL;
        else if ((n + i) % 2 && e != ERR_UNAVAILABLE) e = ERR_INTERNAL;
        note(s, e);
        suite_ctx_free(c);
    }
}

DB_TEST(failing_neighbours_do_no_harm) {
    Shared s = { .f = f, .each = 40 };
    int64_t sum = 0;
    CHECK_OK(f->c, fix_script(f, counters));
    fix_threads(8, with_failures, &s);
    CHECK_INT(s.odd, 0);
    CHECK_OK(f->c, fix_int(f, "SELECT n FROM counter WHERE id = 1", &sum));
    CHECK_INT(sum, s.good);
    if (f->kind == DB_SQLITE) CHECK_INT(s.good, 160);
}

// Injected: each function runs twice, so one that counted outside of SQL would be found out.
DB_TEST(a_repeated_run_does_not_double) {
    Shared s = { .f = f, .each = 20 };
    CHECK_OK(f->c, fix_script(f, counters));
    db_faults(f->db, &(DbFaults){ .again = 1000000 });
    fix_threads(4, increments, &s);
    CHECK_INT(s.odd, 0);
    CHECK(db_counts(f->db).retries >= s.good);
    CHECK_SQL(f, "SELECT n FROM counter WHERE id = 1", s.good);
}

// Write skew: each takes one from its own counter while the sum of both allows it.
static err take_one(Ctx *c, Tx *tx, void *arg) {
    int64_t sum, n, id = *(const int64_t *)arg;
    TRY(get(c, tx, &counter_sum, 0, &sum));
    if (sum < 1) return fail(c, ERR_PRECONDITION, R_DB_NO_ROW);
    TRY(get(c, tx, &counter_get, id, &n));
    return db_run(c, tx, &counter_set, V(id), V(n - 1));
}

static void take_all(void *arg, int i) {
    Shared *s = arg;
    for (int n = 0; n < s->each; n++) {
        Ctx *c = suite_ctx(NULL);
        err e = db_tx(c, s->f->db, take_one, &(int64_t){ 1 + i % 2 });
        note(s, e == ERR_PRECONDITION ? ERR_UNAVAILABLE : e);
        suite_ctx_free(c);
    }
}

DB_TEST(no_write_skew) {
    Shared s = { .f = f, .each = 30 };
    CHECK_OK(f->c, fix_script(f, counters));
    CHECK_OK(f->c, fix_script(f, "UPDATE counter SET n = 20"));
    fix_threads(4, take_all, &s);
    CHECK_INT(s.odd, 0);
    CHECK_SQL(f, "SELECT CAST(sum(n) AS BIGINT) FROM counter", 40 - s.good);
    CHECK(s.good <= 40);
}

// ---- snapshots

typedef struct Peek {
    Fix *f;
    Ctx *other;
    err wrote;
    int64_t before, after;
} Peek;

static void write_aside(void *arg) {
    Peek *p = arg;
    p->wrote = db_tx(p->other, p->f->db, increment, &(int64_t){ 1 });
}

static err peek(Ctx *c, Tx *tx, void *arg) {
    Peek *p = arg;
    Thread t;
    TRY(get(c, tx, &counter_get, 1, &p->before));
    thread_start(c->os, "db-test", write_aside, p, &t);
    thread_join(t);
    return get(c, tx, &counter_get, 1, &p->after);
}

DB_TEST(a_snapshot_stands_still) {
    Peek p = { .f = f, .other = suite_ctx(NULL) };
    CHECK_OK(f->c, fix_script(f, counters));
    CHECK_OK(f->c, db_read(f->c, f->db, peek, &p));
    CHECK_OK(p.other, p.wrote);
    CHECK_INT(p.before, 0);
    CHECK_INT(p.after, 0);
    CHECK_SQL(f, "SELECT n FROM counter WHERE id = 1", 1);
    suite_ctx_free(p.other);
}

// ---- limits of time

static SQL(endless, "WITH RECURSIVE n(i) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT i + 1"
                    " FROM n) SELECT count(*) FROM n");
static SQL(endless_write, "WITH RECURSIVE n(i) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT i + 1"
                          " FROM n) INSERT INTO counter (id, n) SELECT i + 10, 0 FROM n");

typedef struct Long {
    const Sql *sql;
    atomic_bool started;
    Ctx *c;
    int64_t cancelled_ns;
} Long;

static err run_long(Ctx *c, Tx *tx, void *arg) {
    Long *l = arg;
    TRY(db_run(c, tx, &counter_set, V(1), V(7)));
    atomic_store(&l->started, true);
    return db_exec(c, tx, l->sql, NULL, 0, NULL);
}

static err read_long(Ctx *c, Tx *tx, void *arg) {
    Long *l = arg;
    Rows *r;
    atomic_store(&l->started, true);
    return db_query(c, tx, l->sql, NULL, 0, &r);
}

// Cancels when the statement is about to run, or runs already: either way it must end.
static void canceller(void *arg) {
    Long *l = arg;
    while (!atomic_load(&l->started)) sched_yield();
    l->cancelled_ns = os_mono_ns(os_real());
    ctx_cancel(l->c);
}

// How late an answer may be; the best of a few counts, for a loaded machine only adds to it.
enum { SOON_MS = 100, TRIES = 5 };

static err (*const long_fns[])(Ctx *, Tx *, void *) = { read_long, run_long, run_long };
static const Sql *const long_texts[] = { &endless, &endless, &endless_write };

static err go_long(Fix *f, Long *l, size_t kind) {
    return kind ? db_tx(l->c, f->db, long_fns[kind], l) : db_read(l->c, f->db, long_fns[kind], l);
}

DB_TEST(a_cancelled_query_returns_soon) {
    CHECK_OK(f->c, fix_script(f, counters));
    for (size_t kind = 0; kind < countof(long_fns); kind++) {
        int64_t late_ns = INT64_MAX;
        for (int i = 0; i < TRIES && late_ns >= test_longer(SOON_MS * INT64_C(1000000)); i++) {
            Thread t;
            Long l = { .sql = long_texts[kind], .c = suite_ctx(NULL) };
            thread_start(os_real(), "db-test", canceller, &l, &t);
            err e = go_long(f, &l, kind);
            int64_t end_ns = os_mono_ns(os_real());
            thread_join(t);
            CHECK_ERR(e, ERR_CANCELLED);
            late_ns = end_ns - l.cancelled_ns;
            suite_ctx_free(l.c);
        }
        CHECK(late_ns < test_longer(SOON_MS * INT64_C(1000000)));
        CHECK_SQL(f, "SELECT n FROM counter WHERE id = 1", 0);
    }
}

DB_TEST(a_deadline_ends_a_query) {
    CHECK_OK(f->c, fix_script(f, counters));
    for (size_t kind = 0; kind < countof(long_fns); kind++) {
        int64_t late_ns = INT64_MAX;
        for (int i = 0; i < TRIES && late_ns >= test_longer(SOON_MS * INT64_C(1000000)); i++) {
            Long l = { .sql = long_texts[kind], .c = suite_ctx(NULL) };
            l.c->deadline_ns = os_mono_ns(os_real()) + 60 * INT64_C(1000000);
            CHECK_ERR(go_long(f, &l, kind), ERR_TIMEOUT);
            late_ns = os_mono_ns(os_real()) - l.c->deadline_ns;
            CHECK(l.c->failure.why == &R_DEADLINE && late_ns >= 0);
            suite_ctx_free(l.c);
        }
        CHECK(late_ns < test_longer(SOON_MS * INT64_C(1000000)));
        CHECK_SQL(f, "SELECT CAST(sum(n) AS BIGINT) FROM counter", 0);
    }
}

// The cancellation arrives between statements: what was done so far must not be committed.
static err cancel_itself(Ctx *c, Tx *tx, void *arg) {
    TRY(increment(c, tx, arg));
    ctx_cancel(c);
    return ERR_OK;
}

DB_TEST(a_cancelled_transaction_is_rolled_back) {
    Ctx *c = suite_ctx(NULL);
    CHECK_OK(f->c, fix_script(f, counters));
    CHECK_ERR(db_tx(c, f->db, cancel_itself, &(int64_t){ 1 }), ERR_CANCELLED);
    CHECK_ERR(db_tx(c, f->db, increment, &(int64_t){ 1 }), ERR_CANCELLED);
    CHECK_ERR(db_read(c, f->db, increment, &(int64_t){ 1 }), ERR_CANCELLED);
    CHECK_SQL(f, "SELECT n FROM counter WHERE id = 1", 0);
    suite_ctx_free(c);
}

// Five seconds, of which this test waits for the last fiftieth.
static err nearly_over(Ctx *c, Tx *tx, void *arg) {
    int64_t *span_ns = arg;
    *span_ns = tx->end_ns - tx->begun_ns;
    tx->end_ns = os_mono_ns(c->os) + *span_ns / 50;
    return read_long(c, tx, &(Long){ .sql = &endless });
}

DB_TEST(a_snapshot_lives_five_seconds_at_most) {
    int64_t span_ns = 0, begun = os_mono_ns(os_real());
    CHECK_ERR(db_read(f->c, f->db, nearly_over, &span_ns), ERR_TIMEOUT);
    CHECK(f->c->failure.why == &R_DEADLINE);
    CHECK_INT(span_ns, INT64_C(5000000000));
    CHECK(os_mono_ns(os_real()) - begun < test_longer(INT64_C(4000000000)));
}

// ---- references that may be broken for a while

static SQL(later_add, "INSERT INTO later (id, parent) VALUES ($1, $2)");

static err add_later(Ctx *c, Tx *tx, void *arg) {
    const int64_t *v = arg;
    TRY(db_run(c, tx, &later_add, V(v[0]), V(v[1])));
    return v[2] ? db_run(c, tx, &later_add, V(v[1]), V(v[1])) : ERR_OK;
}

DB_TEST(deferred_references_are_checked_at_the_end) {
    CHECK_OK(f->c, fix_script(f, "CREATE TABLE later (id INTEGER NOT NULL, parent INTEGER NOT NULL"
                                 " REFERENCES later (id) DEFERRABLE INITIALLY DEFERRED,"
                                 " PRIMARY KEY (id)) STRICT"));
    CHECK_ERR(db_tx(f->c, f->db, add_later, ((int64_t[]){ 1, 2, 0 })), ERR_CONFLICT);
    CHECK(f->c->failure.why == &R_DB_REFERENCE);
    CHECK_OK(f->c, db_tx(f->c, f->db, add_later, ((int64_t[]){ 1, 2, 1 })));
    CHECK_SQL(f, "SELECT count(*) FROM later", 2);
}

// ---- more callers than connections

static void reads(void *arg, int i) {
    Shared *s = arg;
    (void)i;
    for (int n = 0; n < s->each; n++) {
        Ctx *c = suite_ctx(NULL);
        int64_t sum = -1;
        Fix mine = { .c = c, .db = s->f->db };
        err e = fix_int(&mine, "SELECT CAST(sum(n) AS BIGINT) FROM counter", &sum);
        note(s, sum == 0 ? e : ERR_INTERNAL);
        suite_ctx_free(c);
    }
}

DB_TEST(readers_share_connections) {
    Shared s = { .f = f, .each = 50 };
    CHECK_OK(f->c, fix_script(f, counters));
    fix_threads(12, reads, &s);
    CHECK_INT(s.good, 600);
    CHECK_INT(db_counts(f->db).reads, 600);
}

// ---- one thread alone

typedef struct Others {
    Db *db;
    int refused, ran;
    bool told;
} Others;

static void asks(void *arg, int i) {
    Others *o = arg;
    Ctx *c = suite_ctx(NULL);
    Fix mine = { .c = c, .db = o->db };
    int64_t one = 0;
    (void)i;
    err e = fix_int(&mine, "SELECT 1", &one);
    if (!e && one == 1) o->ran++;
    if (e == ERR_UNAVAILABLE && c->failure.why == &R_DB_AWAY && c->failure.retry_after_ms > 0)
        o->refused++, o->told = str_is(failure_param(&c->failure, "why"), "not yet");
    suite_ctx_free(c);
}

DB_TEST(refuses_all_or_all_others) {
    Others o = { .db = f->db };
    int64_t one = 0;
    db_refuse(f->db, "not yet");
    CHECK_ERR(fix_int(f, "SELECT 1", &one), ERR_UNAVAILABLE);
    fix_threads(1, asks, &o);
    CHECK_INT(o.refused, 1);
    CHECK(o.told);
    db_refuse_others(f->db);
    CHECK_OK(f->c, fix_int(f, "SELECT 1", &one));
    fix_threads(1, asks, &o);
    CHECK_INT(o.refused, 2);
    db_accept(f->db);
    fix_threads(1, asks, &o);
    CHECK_INT(o.ran, 1);
}
