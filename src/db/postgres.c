// SPDX-License-Identifier: Apache-2.0
// postgres.c - the PostgreSQL backend: transactions with retry, and what SQLSTATEs mean (PostgreSQL
// 15 documentation, appendix A). Leaves connections to pg_pool.c, statements to pg_stmt.c.
// Owner: the PgDb owns its pool. Threads: a connection belongs to the caller that took it.
#include "db/pg_impl.h"
#include <assert.h>

enum {
    COMMIT_MS = 10000, // longest wait for the outcome of a COMMIT
    BACKOFF_FIRST_MS = 2,
    BACKOFF_LAST_MS = 250,
    TURN_AFTER = 2, // times that it was overtaken
};

// ---- failures

static bool is(const char *state, const char *code) { return !strcmp(state, code); }
static bool class_is(const char *state, const char *two) { return !strncmp(state, two, 2); }

static const char *field(const PGresult *res, int code) {
    const char *z = PQresultErrorField(res, code);
    return z ? z : "";
}

// "Key (project, name)=(…) already exists.", in whatever language: table(project,name). The name of
// the index when the key is an expression or is not told.
static err unique_fail(Ctx *c, const PGresult *res) {
    str detail = str_z(field(res, PG_DIAG_MESSAGE_DETAIL));
    ptrdiff_t from = str_find_char(detail, '('), to = str_find(detail, S(")=("));
    if (from < 0 || to <= from)
        return fail(c, ERR_CONFLICT, R_DB_UNIQUE, "index", field(res, PG_DIAG_CONSTRAINT_NAME));
    str columns = str_sub(detail, (size_t)from + 1, (size_t)(to - from - 1));
    if (str_find_char(columns, '(') >= 0)
        return fail(c, ERR_CONFLICT, R_DB_UNIQUE, "index", field(res, PG_DIAG_CONSTRAINT_NAME));
    Buf b;
    buf_init(&b, 4096);
    buf_printf(&b, "%s(", field(res, PG_DIAG_TABLE_NAME));
    for (size_t i = 0; i < columns.n; i++)
        if (columns.p[i] != ' ' && columns.p[i] != '"') buf_add_char(&b, columns.p[i]);
    buf_add_char(&b, ')');
    err e = fail(c, ERR_CONFLICT, R_DB_UNIQUE, "index", buf_z(&b));
    buf_done(&b);
    return e;
}

static bool stale_plan(const char *state, const char *message) {
    return is(state, "26000") || (is(state, "0A000") && strstr(message, "cached plan"));
}

static err resource_fail(Ctx *c, const char *state, const char *message) {
    if (is(state, "53100")) return fail(c, ERR_FULL, R_DB_FULL);
    return db_away(c, message, 1000);
}

// What the server said about the named statement (text: for the table it writes to).
static err pg_fail(Ctx *c, Tx *tx, PgConn *k, const char *name, const char *text,
                   const PGresult *res) {
    const char *state = field(res, PG_DIAG_SQLSTATE);
    const char *message = field(res, PG_DIAG_MESSAGE_PRIMARY);
    if (PQstatus(k->pg) == CONNECTION_BAD || class_is(state, "08") || class_is(state, "57P"))
        return pg_lost(c, tx, k);
    if (is(state, "40001") || is(state, "40P01")) {
        tx->again = true;
        return db_busy(c, (os_mono_ns(k->os) - tx->begun_ns) / 1000000, message);
    }
    if (stale_plan(state, message)) {
        tx->again = true;
        k->broken = true; // with all its prepared statements
        return db_sql_fail(c, name, message);
    }
    if (is(state, "23505")) return unique_fail(c, res);
    if (is(state, "23503") || is(state, "23001"))
        return fail(c, ERR_CONFLICT, R_DB_REFERENCE, "index", say_str(c, sql_table(text)));
    if (is(state, "57014")) {
        TRY(tx_expiry(c, tx));
        return fail(c, ERR_TIMEOUT, R_DEADLINE);
    }
    if (is(state, "55P03")) return db_busy(c, tx->db->busy_ms, message);
    if (class_is(state, "53")) return resource_fail(c, state, message);
    if (is(state, "25006") && tx->write) { // a standby now: the next connection looks who leads
        tx->again = k->broken = true;
        return db_away(c, message, 1000);
    }
    return db_sql_fail(c, name, message);
}

// Judges and clears.
err pg_settle(Ctx *c, Tx *tx, const char *name, const char *text, PGresult *res) {
    err e = pg_good(res) ? ERR_OK : pg_fail(c, tx, tx->conn, name, text, res);
    PQclear(res);
    return e;
}

// ---- transactions

// The server ends a statement a little before we take it for silent. Who has no deadline, a worker,
// may have much to do.
static err begin(Ctx *c, Tx *tx, PgConn *k) {
    enum { READ_MS = 4500, WRITE_MS = 9000, WORK_MS = 30000, MORE_MS = 300 };
    int limit_ms = !tx->write ? READ_MS : c->deadline_ns ? WRITE_MS : WORK_MS;
    const char *level = tx->write ? "SERIALIZABLE" : "REPEATABLE READ READ ONLY";
    PGresult *res;
    k->silent_ms = limit_ms + MORE_MS;
    const char *text =
        say(c, "BEGIN ISOLATION LEVEL %s;SET LOCAL statement_timeout = %d", level, limit_ms);
    TRY(pg_simple(c, tx, k, text, &res));
    return pg_settle(c, tx, "begin", text, res);
}

static void rollback(PgConn *k) {
    Arena *scratch = arena_new();
    Ctx c;
    PGresult *res = NULL;
    ctx_init(&c, scratch, k->os);
    k->limit_ns = os_mono_ns(k->os) + DB_BUSY_MS * INT64_C(1000000);
    if (pg_simple(&c, NULL, k, "ROLLBACK", &res) || !pg_good(res)) k->broken = true;
    PQclear(res);
    arena_free(scratch);
}

// From the moment that COMMIT is sent the caller waits for its outcome, cancelled or not.
static err commit(Ctx *c, Tx *tx, PgConn *k) {
    PGresult *res;
    k->limit_ns = os_mono_ns(k->os) + COMMIT_MS * INT64_C(1000000);
    err e = pg_simple(c, NULL, k, "COMMIT", &res);
    if (!e) {
        bool committed = pg_good(res) && is(PQcmdStatus(res), "COMMIT");
        bool odd = pg_good(res) && !committed;
        e = pg_settle(c, tx, "commit", "", res);
        if (odd) e = db_sql_fail(c, "commit", "the server rolled it back");
    }
    if (!k->broken) return e;
    tx->again = false;
    str why = failure_param(&c->failure, "why");
    return fail(c, ERR_UNAVAILABLE, R_DB_UNKNOWN, "why", say_str(c, why.p ? why : S("")));
}

static err attempt(Ctx *c, Tx *tx, PgConn *k) {
    tx->conn = k;
    tx->again = false;
    tx->end_ns = 0;
    tx->begun_ns = os_mono_ns(k->os);
    err e = begin(c, tx, k);
    if (!e) e = tx_run(tx);
    if (!e && !tx->again && tx->write) return commit(c, tx, k);
    if (!k->broken && PQtransactionStatus(k->pg) != PQTRANS_IDLE) rollback(k);
    return e;
}

// Full jitter: somewhere in a span that doubles.
static int backoff_ms(Os *os, int tries) {
    uint32_t dice;
    int span = BACKOFF_FIRST_MS << (tries < 8 ? tries : 8);
    if (span > BACKOFF_LAST_MS) span = BACKOFF_LAST_MS;
    os_random(os, &dice, sizeof dice);
    return 1 + (int)(dice % (uint32_t)span);
}

// What others overtake is run again until it has waited as long as it may for a lock, and at least
// DB_RETRIES times: a crowd of writers is busy for longer than a few turns take.
static const char overtaken[] = "other transactions changed the same rows, each time anew";

static err one_try(Ctx *c, PgDb *db, Tx *tx) {
    PgConn *k;
    tx->again = false;
    TRY(pg_take(c, db, &k));
    err e = attempt(c, tx, k);
    if (!e && !tx->again && tx->write) atomic_fetch_add(&db->base.commits, 1);
    pg_give(db, k);
    return e;
}

static err pg_transaction(Ctx *c, Tx *tx) {
    PgDb *db = (PgDb *)tx->db;
    int64_t until_ns = os_mono_ns(db->base.os) + db->base.busy_ms * INT64_C(1000000);
    for (int tries = 0;; tries++) {
        bool alone = tries >= TURN_AFTER;
        if (tx->write) pg_turn_take(db, alone);
        err e = one_try(c, db, tx);
        if (tx->write) pg_turn_give(db, alone);
        if (!tx->again) return e;
        if (tries >= DB_RETRIES && os_mono_ns(db->base.os) >= until_ns)
            return c->failure.why == &R_DB_BUSY ? db_busy(c, db->base.busy_ms, overtaken) : e;
        atomic_fetch_add(&db->base.retries, 1);
        TRY(pg_pause(c, db, backoff_ms(db->base.os, tries)));
    }
}

// ---- the database

static void pg_close(Db *base) {
    PgDb *db = (PgDb *)base;
    pg_pool_done(db);
    pg_turn_done(&db->turn);
    mem_free(db);
}

static err pg_version(Ctx *c, Tx *tx, str *out) {
    static SQL(version, "SELECT CAST(pg_current_snapshot() AS TEXT)");
    Rows *rows;
    TRY(db_one(c, tx, &rows, &version, NULL, 0));
    *out = col_str(rows, 0);
    return ERR_OK;
}

static const DbOps pg_ops = { .close = pg_close,
                              .tx = pg_transaction,
                              .read = pg_transaction,
                              .exec = pg_exec,
                              .query = pg_query,
                              .next = pg_next,
                              .finish = pg_finish,
                              .script = pg_script,
                              .now = pg_now,
                              .version = pg_version };

// The address may hold a password: libpq's own words about it are not repeated.
static err check_conninfo(Ctx *c, const char *conninfo) {
    char *why = NULL;
    PQconninfoOption *options = PQconninfoParse(conninfo, &why);
    bool good = options;
    PQconninfoFree(options);
    PQfreemem(why);
    return good ? ERR_OK : fail(c, ERR_INVALID, R_DB_URL, "why", "libpq cannot read it");
}

err postgres_open(Ctx *c, str conninfo, const DbConfig *config, Db **out) {
    const char *text = arena_z(c->mem, conninfo);
    TRY(check_conninfo(c, text));
    if (c->os != os_real())
        return fail(c, ERR_INVALID, R_DB_URL, "why", "a simulated machine has SQLite only");
    PgDb *db = mem_new(sizeof *db);
    db_init(&db->base, c, config, &pg_ops, DB_POSTGRES);
    pg_pool_init(db, text);
    pg_turn_init(&db->turn);
    PgConn *k;
    err e = config->later ? ERR_OK : pg_take(c, db, &k);
    if (e) {
        db_close(&db->base);
        return e;
    }
    if (!config->later) pg_give(db, k);
    *out = &db->base;
    return ERR_OK;
}
