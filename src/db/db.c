// SPDX-License-Identifier: Apache-2.0
// db.c - what both databases share: the life of a transaction's function, rows and their columns,
// checks of parameters, reasons. Leaves SQL to the backends (sqlite.c, postgres.c).
// Owner: a Tx is on the stack of db_tx; a Rows is in the arena of the Ctx it was asked with.
// Threads: any; within a transaction only the one that runs its function.
#include "db/db_impl.h"
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <time.h>

REASONS_DEFINE(DB_REASONS, db_reasons)

// The transaction whose function this thread is in: db_tx within one would wait for itself.
static _Thread_local const Tx *running;

// ---- opening

err db_open(Ctx *c, const DbConfig *config, Db **out) {
    assert(c->os && config->readers >= 0 && config->busy_ms >= 0);
    str url = config->url;
    if (memchr(url.p ? url.p : "", 0, url.n))
        return fail(c, ERR_INVALID, R_DB_URL, "why", "it has a NUL byte");
    if (str_starts(url, S("sqlite:"))) return sqlite_open(c, str_sub(url, 7, url.n), config, out);
    if (str_starts(url, S("postgres://")) || str_starts(url, S("postgresql://")))
        return postgres_open(c, url, config, out);
    if (str_starts(url, S("postgres:")))
        return postgres_open(c, str_sub(url, 9, url.n), config, out);
    return fail(c, ERR_INVALID, R_DB_URL, "why", "it begins neither sqlite: nor postgres:");
}

void db_init(Db *db, Ctx *c, const DbConfig *config, const DbOps *ops, DbKind kind) {
    db->ops = ops;
    db->kind = kind;
    db->shared = kind == DB_POSTGRES;
    db->os = c->os;
    db->readers = config->readers ? config->readers : DB_READERS;
    if (db->readers > DB_READERS_MAX) db->readers = DB_READERS_MAX;
    db->busy_ms = config->busy_ms ? config->busy_ms : DB_BUSY_MS;
    pthread_mutex_init(&db->refused_lock, NULL);
}

void db_close(Db *db) {
    if (!db) return;
    pthread_mutex_destroy(&db->refused_lock);
    db->ops->close(db);
}

// ---- who may

enum { NOBODY = 1 };
static _Thread_local char here; // its address is the thread's name

void db_refuse(Db *db, const char *why) {
    pthread_mutex_lock(&db->refused_lock);
    snprintf(db->refused_why, sizeof db->refused_why, "%s", why);
    pthread_mutex_unlock(&db->refused_lock);
    atomic_store(&db->only, NOBODY);
}

void db_refuse_others(Db *db) { atomic_store(&db->only, (uintptr_t)&here); }
void db_accept(Db *db) { atomic_store(&db->only, 0); }

static err check_refused(Ctx *c, Db *db) {
    char why[sizeof db->refused_why];
    uintptr_t only = atomic_load_explicit(&db->only, memory_order_acquire);
    if (!only || only == (uintptr_t)&here) return ERR_OK;
    pthread_mutex_lock(&db->refused_lock);
    memcpy(why, db->refused_why, sizeof why);
    pthread_mutex_unlock(&db->refused_lock);
    return db_away(c, say(c, "%s", why), 1000);
}

DbKind db_kind(const Db *db) { return db->kind; }
bool db_shared(const Db *db) { return db->shared; }
DbKind tx_kind(const Tx *tx) { return tx->db->kind; }
void db_faults(Db *db, const DbFaults *f) { db->faults = *f; }

DbCounts db_counts(Db *db) {
    return (DbCounts){ .transactions = atomic_load(&db->transactions),
                       .commits = atomic_load(&db->commits),
                       .retries = atomic_load(&db->retries),
                       .reads = atomic_load(&db->reads),
                       .waits_ns = atomic_load(&db->waits_ns) };
}

static err version_tx(Ctx *c, Tx *tx, void *arg) { return tx->db->ops->version(c, tx, arg); }
err db_version(Ctx *c, Db *db, str *out) {
    if (db->shared) return db_read(c, db, version_tx, out);
    *out = arena_printf(c->mem, "%lld", (long long)atomic_load(&db->commits));
    return ERR_OK;
}

// ---- failures

err db_away(Ctx *c, const char *why, int64_t retry_after_ms) {
    err e = fail(c, ERR_UNAVAILABLE, R_DB_AWAY, "why", why);
    c->failure.retry_after_ms = retry_after_ms;
    return e;
}

err db_busy(Ctx *c, int64_t ms, const char *why) {
    err e = fail(c, ERR_UNAVAILABLE, R_DB_BUSY, "ms", say(c, "%lld", (long long)ms), "why", why);
    c->failure.retry_after_ms = 1000;
    return e;
}

err db_sql_fail(Ctx *c, const char *statement, const char *why) {
    return fail(c, ERR_INTERNAL, R_DB_SQL, "statement", statement, "why", why);
}

static bool draw(Db *db, unsigned chance) {
    uint32_t dice = 0;
    if (!chance) return false;
    os_random(db->os, &dice, sizeof dice);
    return dice % 1000000 < chance;
}

// ---- transactions

static Tx tx_make(Ctx *c, Db *db, err (*fn)(Ctx *c, Tx *tx, void *arg), void *arg) {
    assert(c->os && fn && db);
    assert(!running && "db_tx or db_read within a transaction: pass its Tx instead");
    return (Tx){ .db = db, .c = c, .fn = fn, .arg = arg, .before = c->failure };
}

err db_tx(Ctx *c, Db *db, err (*fn)(Ctx *c, Tx *tx, void *arg), void *arg) {
    Tx tx = tx_make(c, db, fn, arg);
    TRY(ctx_check(c));
    TRY(check_refused(c, db));
    if (draw(db, db->faults.away)) return db_away(c, "an injected fault", 100);
    tx.write = true;
    tx.reruns = draw(db, db->faults.again);
    TRY(db->ops->tx(c, &tx));
    atomic_fetch_add(&db->transactions, 1);
    for (Notice *n = tx.notices; n; n = n->next) n->fn(n->arg);
    if (draw(db, db->faults.unknown))
        return fail(c, ERR_UNAVAILABLE, R_DB_UNKNOWN, "why", "an injected fault");
    return ERR_OK;
}

err db_read(Ctx *c, Db *db, err (*fn)(Ctx *c, Tx *tx, void *arg), void *arg) {
    Tx tx = tx_make(c, db, fn, arg);
    TRY(ctx_check(c));
    TRY(check_refused(c, db));
    if (draw(db, db->faults.away)) return db_away(c, "an injected fault", 100);
    TRY(db->ops->read(c, &tx));
    atomic_fetch_add(&db->reads, 1);
    return ERR_OK;
}

static void tx_reset(Tx *tx) {
    assert(!tx->rows);
    tx->again = false;
    tx->now_ms = 0;
    tx->failed = ERR_OK;
    tx->c->failure = tx->before;
    tx->notices = NULL;
    tx->notices_tail = &tx->notices;
    tx->thread = pthread_self();
    tx->begun_ns = os_mono_ns(tx->db->os);
    tx->end_ns = tx->write ? 0 : tx->begun_ns + DB_READ_MS * INT64_C(1000000);
}

err tx_run(Tx *tx) {
    assert(!running && tx->conn);
    tx_reset(tx);
    running = tx;
    err e = tx->fn(tx->c, tx, tx->arg);
    running = NULL;
    while (tx->rows) rows_shut(tx->rows);
    if (!e && tx->failed) {
        tx->c->failure = tx->failure;
        e = tx->failed;
    }
    if (!e && tx->write) e = ctx_check(tx->c);
    if (!e && tx->reruns) {
        tx->reruns = false;
        tx->again = true;
    }
    return e;
}

void tx_notify(Tx *tx, void (*fn)(void *), void *arg) {
    assert(tx->write && running == tx);
    Notice *n = new (tx->c->mem, Notice, 1);
    *n = (Notice){ fn, arg, NULL };
    *tx->notices_tail = n;
    tx->notices_tail = &n->next;
}

bool tx_expired(const Tx *tx) {
    const Ctx *c = tx->c;
    if (ctx_cancelled(c)) return true;
    if (!c->deadline_ns && !tx->end_ns) return false;
    if (c->deadline_ns && os_mono_ns(c->os) >= c->deadline_ns) return true;
    return tx->end_ns && os_mono_ns(tx->db->os) >= tx->end_ns;
}

err tx_expiry(Ctx *c, Tx *tx) {
    TRY(ctx_check(c));
    if (tx->end_ns && os_mono_ns(tx->db->os) >= tx->end_ns) return fail(c, ERR_TIMEOUT, R_DEADLINE);
    return ERR_OK;
}

err tx_spoil(Ctx *c, Tx *tx, err e) {
    assert(e);
    if (!tx->failed) {
        tx->failed = e;
        tx->failure = c->failure;
    }
    return e;
}

static err tx_check(Ctx *c, Tx *tx) {
    assert(running == tx && pthread_equal(tx->thread, pthread_self()));
    if (tx->failed) {
        c->failure = tx->failure;
        return tx->failed;
    }
    err e = tx_expiry(c, tx);
    return e ? tx_spoil(c, tx, e) : ERR_OK;
}

int64_t tx_now_ms(Tx *tx) {
    Ctx *c = tx->c;
    if (tx->now_ms) return tx->now_ms;
    int64_t now = os_wall_ms(tx->db->os);
    err e = tx_check(c, tx);
    if (!e) {
        e = tx->db->ops->now(c, tx, &now);
        if (e) e = tx_spoil(c, tx, e);
    }
    if (!e) tx->now_ms = now;
    return now;
}

// ---- statements

const char *sql_text(const Db *db, const Sql *sql) {
    return db->kind == DB_POSTGRES && sql->pg ? sql->pg : sql->text;
}

static err value_fail(Ctx *c, const Sql *sql, size_t i, const char *why) {
    return fail(c, ERR_INVALID, R_DB_VALUE, "number", say(c, "%zu", i + 1), "statement", sql->name,
                "why", why);
}

err args_check(Ctx *c, const Sql *sql, const Val *args, size_t n) {
    assert(n <= DB_ARGS_MAX && (args || !n));
    for (size_t i = 0; i < n; i++) {
        const Val *v = &args[i];
        assert(v->type <= VAL_BLOB);
        if (v->type == VAL_REAL && !isfinite(v->f))
            return value_fail(c, sql, i, "is not a finite number");
        if (v->type < VAL_TEXT) continue;
        if (v->s.n > DB_VALUE_MAX)
            return fail(c, ERR_TOOLARGE, R_TOO_LONG, "what", "a value for the database", "limit",
                        say(c, "%d", DB_VALUE_MAX));
        if (v->type == VAL_BLOB) continue;
        ptrdiff_t bad = str_utf8_bad(v->s);
        if (bad >= 0)
            return value_fail(c, sql, i, say(c, "is not UTF-8 at byte %lld", (long long)bad));
        if (v->s.n && memchr(v->s.p, 0, v->s.n)) return value_fail(c, sql, i, "has a NUL byte");
    }
    return ERR_OK;
}

err db_exec(Ctx *c, Tx *tx, const Sql *sql, const Val *args, size_t n, int64_t *out_changed) {
    TRY(tx_check(c, tx));
    int64_t changed = 0;
    err e = args_check(c, sql, args, n);
    if (!e) e = tx->db->ops->exec(c, tx, sql, args, n, &changed);
    if (e) return tx_spoil(c, tx, e);
    if (out_changed) *out_changed = changed;
    return ERR_OK;
}

static void rows_defer(void *arg) { rows_shut(arg); }

err db_query(Ctx *c, Tx *tx, const Sql *sql, const Val *args, size_t n, Rows **out) {
    TRY(tx_check(c, tx));
    err e = args_check(c, sql, args, n);
    if (e) return tx_spoil(c, tx, e);
    Rows *r = new (c->mem, Rows, 1);
    *r = (Rows){ .tx = tx, .sql = sql };
    e = tx->db->ops->query(c, r, args, n);
    if (e) return tx_spoil(c, tx, e);
    assert(r->cols >= 0 && (r->vals || !r->cols));
    r->open = true;
    r->fetched = true;
    r->next = tx->rows;
    r->link = &tx->rows;
    if (r->next) r->next->link = &r->next;
    tx->rows = r;
    // The arena may be restored to a mark before the transaction ends.
    arena_defer(c->mem, rows_defer, r);
    if (!r->more) rows_shut(r);
    *out = r;
    return ERR_OK;
}

void rows_shut(Rows *r) {
    if (!r->open) return;
    r->open = false;
    *r->link = r->next;
    if (r->next) r->next->link = r->link;
    r->tx->db->ops->finish(r);
    r->cursor = NULL;
}

void rows_close(Rows *r) { rows_shut(r); }

err rows_next(Ctx *c, Rows *r, bool *out_more) {
    if (r->open && !r->fetched) {
        err e = tx_check(c, r->tx);
        if (!e) {
            e = r->tx->db->ops->next(c, r);
            if (e) e = tx_spoil(c, r->tx, e);
        }
        if (e || !r->more) rows_shut(r);
        TRY(e);
    }
    r->fetched = false;
    *out_more = r->open;
    return ERR_OK;
}

err db_one(Ctx *c, Tx *tx, Rows **out, const Sql *sql, const Val *args, size_t n) {
    Rows *r;
    bool more;
    TRY(db_query(c, tx, sql, args, n, &r));
    TRY(rows_next(c, r, &more));
    if (!more) return fail(c, ERR_NOTFOUND, R_DB_NO_ROW);
    Val *first = r->vals;
    r->vals = new (c->mem, Val, (size_t)r->cols);
    TRY(rows_next(c, r, &more));
    r->vals = first;
    if (more) {
        rows_shut(r);
        return tx_spoil(c, tx, db_sql_fail(c, sql->name, "more than one row"));
    }
    *out = r;
    return ERR_OK;
}

// ---- columns

int rows_columns(const Rows *r) { return r->cols; }

static const Val *col(const Rows *r, int i) {
    assert(i >= 0 && i < r->cols);
    return &r->vals[i];
}

bool col_null(const Rows *r, int i) { return col(r, i)->type == VAL_NULL; }

int64_t col_int(const Rows *r, int i) {
    const Val *v = col(r, i);
    assert(v->type <= VAL_REAL);
    if (v->type != VAL_REAL) return v->type == VAL_INT ? v->i : 0;
    if (!(v->f > -0x1p63)) return INT64_MIN;
    return v->f < 0x1p63 ? (int64_t)v->f : INT64_MAX;
}

double col_real(const Rows *r, int i) {
    const Val *v = col(r, i);
    assert(v->type <= VAL_REAL);
    if (v->type != VAL_REAL) return v->type == VAL_INT ? (double)v->i : 0;
    return v->f;
}

str col_str(const Rows *r, int i) {
    const Val *v = col(r, i);
    assert(v->type == VAL_NULL || v->type >= VAL_TEXT);
    return v->type == VAL_NULL ? (str){ 0 } : v->s;
}

// ---- text of statements

static bool blank(char ch) { return ch == ' ' || ch == '\t' || ch == '\n' || ch == '\r'; }

static const char *skip_space(const char *p) {
    for (;;) {
        const char *end = NULL;
        while (blank(*p)) p++;
        if (p[0] == '-' && p[1] == '-') end = strchr(p, '\n');
        else if (p[0] == '/' && p[1] == '*') end = (end = strstr(p + 2, "*/")) ? end + 2 : NULL;
        else return p;
        p = end ? end : p + strlen(p);
    }
}

// The next word, or quoted name without its quotes.
static str word(const char **at) {
    const char *p = skip_space(*at);
    const char *start = p;
    if (*p == '"') {
        const char *end = strchr(++start, '"');
        if (!end) end = start + strlen(start);
        *at = *end ? end + 1 : end;
        return str_n(start, (size_t)(end - start));
    }
    while (*p && !blank(*p) && !strchr("(),;\"", *p)) p++;
    *at = p;
    return str_n(start, (size_t)(p - start));
}

str sql_table(const char *text) {
    str verb = word(&text);
    if (str_ieq(verb, S("UPDATE"))) return word(&text);
    if (!str_ieq(verb, S("INSERT")) && !str_ieq(verb, S("DELETE"))) return S("");
    for (str w = word(&text); w.n; w = word(&text))
        if (str_ieq(w, S("INTO")) || str_ieq(w, S("FROM"))) return word(&text);
    return S("");
}

bool sql_ends_tx(const char *text) {
    static const char *const verbs[] = { "BEGIN",    "START",     "COMMIT",  "END",
                                         "ROLLBACK", "SAVEPOINT", "RELEASE", "ABORT" };
    str verb = word(&text);
    for (size_t i = 0; i < countof(verbs); i++)
        if (str_ieq(verb, str_z(verbs[i]))) return true;
    return false;
}

// ---- waiting

void cond_init(pthread_cond_t *cond) {
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    int e = pthread_cond_init(cond, &attr);
    assert(!e);
    pthread_condattr_destroy(&attr);
}

void cond_wait_ms(Os *os, pthread_cond_t *cond, pthread_mutex_t *lock, int ms) {
    assert(ms > 0);
    int64_t until = os_mono_ns(os) + ms * INT64_C(1000000);
    struct timespec ts = { .tv_sec = (time_t)(until / 1000000000),
                           .tv_nsec = (long)(until % 1000000000) };
    pthread_cond_timedwait(cond, lock, &ts);
}
