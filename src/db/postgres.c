// SPDX-License-Identifier: Apache-2.0
// postgres.c - the PostgreSQL backend: transactions with retry, prepared statements, rows as they
// come off the wire, and what SQLSTATEs mean. Leaves connections to pg_pool.c.
// Protocol facts: PostgreSQL 15 documentation, chapters 34 (libpq) and appendix A (error codes).
// Owner: the PgDb owns its pool. Threads: a connection belongs to the caller that took it.
#include "db/pg_impl.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    COMMIT_MS = 30000,     // longest wait for the outcome of a COMMIT
    PARKED_MAX = 64 << 20, // bytes of rows set aside while another statement runs
    BACKOFF_FIRST_MS = 2,
    BACKOFF_LAST_MS = 250,
};

// Types by their fixed object ids (pg_type.dat).
enum {
    OID_BOOL = 16,
    OID_BYTEA = 17,
    OID_NAME = 19,
    OID_INT8 = 20,
    OID_INT2 = 21,
    OID_INT4 = 23,
    OID_TEXT = 25,
    OID_OID = 26,
    OID_JSON = 114,
    OID_FLOAT4 = 700,
    OID_FLOAT8 = 701,
    OID_BPCHAR = 1042,
    OID_VARCHAR = 1043,
    OID_NUMERIC = 1700,
};

typedef struct PgStmt {
    Stmt base;
    char name[16];
    int params;
    Oid *types; // of the parameters
} PgStmt;

// Rows that had to leave the wire before they were asked for.
typedef struct PgCursor {
    PGresult **parked;
    size_t n, at, cap, bytes;
} PgCursor;

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
        return db_busy(c, (os_mono_ns(k->os) - tx->begun_ns) / 1000000);
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
    if (is(state, "55P03")) return db_busy(c, tx->db->busy_ms);
    if (class_is(state, "53")) return resource_fail(c, state, message);
    if (is(state, "25006") && tx->write) return db_away(c, message, 1000); // a standby
    return db_sql_fail(c, name, message);
}

// Judges and clears.
static err settle(Ctx *c, Tx *tx, const char *name, const char *text, PGresult *res) {
    err e = pg_good(res) ? ERR_OK : pg_fail(c, tx, tx->conn, name, text, res);
    PQclear(res);
    return e;
}

// ---- rows on the wire

static void cursor_free(PgCursor *cur) {
    while (cur->at < cur->n) PQclear(cur->parked[cur->at++]);
    mem_free(cur->parked);
    mem_free(cur);
}

// The next result of the streaming Rows: a row, or NULL after the last.
static err wire_next(Ctx *c, Rows *r, PGresult **out) {
    PgConn *k = r->tx->conn;
    PGresult *res;
    assert(k->streaming == r);
    TRY(pg_result(c, r->tx, k, &res));
    if (res && PQresultStatus(res) == PGRES_SINGLE_TUPLE) return *out = res, ERR_OK;
    // The end of the rows, or a failure: then what follows must be read off, too.
    k->streaming = NULL;
    if (!res) return *out = NULL, ERR_OK;
    if (!r->cols) r->cols = PQnfields(res);
    err e = settle(c, r->tx, r->sql->name, sql_text(r->tx->db, r->sql), res);
    while (!k->broken) {
        TRY(pg_result(c, r->tx, k, &res));
        if (!res) break;
        PQclear(res);
    }
    *out = NULL;
    return e;
}

// Sets aside the rows that are still on the wire, for another statement wants it.
static err park(Ctx *c, Tx *tx) {
    PgConn *k = tx->conn;
    while (k->streaming) {
        Rows *r = k->streaming;
        PgCursor *cur = r->cursor;
        PGresult *row;
        TRY(wire_next(c, r, &row));
        if (!row) break;
        if (cur->n == cur->cap) {
            cur->cap = cur->cap ? 2 * cur->cap : 64;
            cur->parked = mem_grow(cur->parked, cur->cap, sizeof *cur->parked);
        }
        cur->parked[cur->n++] = row;
        cur->bytes += PQresultMemorySize(row);
        if (cur->bytes > PARKED_MAX)
            return db_sql_fail(c, r->sql->name,
                               "too many rows were unread when another statement began");
    }
    return ERR_OK;
}

static unsigned hex(char ch) {
    if (ch >= '0' && ch <= '9') return (unsigned)(ch - '0');
    return (unsigned)(ch - 'a' + 10) & 15;
}

// bytea as text: \x and two digits a byte.
static Val bytes_value(Ctx *c, str s) {
    assert(s.n >= 2 && s.p[0] == '\\' && s.p[1] == 'x');
    size_t n = s.n / 2 - 1;
    char *p = arena_alloc_raw(c->mem, n + 1);
    for (size_t i = 0; i < n; i++) p[i] = (char)(hex(s.p[2 * i + 2]) << 4 | hex(s.p[2 * i + 3]));
    p[n] = 0;
    return val_blob(str_n(p, n));
}

static Val value(Ctx *c, const PGresult *res, int col) {
    if (PQgetisnull(res, 0, col)) return val_null();
    str s = str_n(PQgetvalue(res, 0, col), (size_t)PQgetlength(res, 0, col));
    int64_t i;
    switch (PQftype(res, col)) {
    case OID_BOOL: return val_int(s.p[0] == 't');
    case OID_INT2:
    case OID_INT4:
    case OID_INT8:
    case OID_OID:
    case OID_NUMERIC:
        if (str_to_i64(s, &i)) return val_int(i);
        return val_real(strtod(s.p, NULL)); // a numeric with decimals, or too large
    case OID_FLOAT4:
    case OID_FLOAT8: return val_real(strtod(s.p, NULL));
    case OID_BYTEA: return bytes_value(c, s);
    default: return val_str(arena_str(c->mem, s));
    }
}

static err pg_next(Ctx *c, Rows *r) {
    PgCursor *cur = r->cursor;
    PgConn *k = r->tx->conn;
    PGresult *row = NULL;
    if (cur->at < cur->n) row = cur->parked[cur->at++];
    else if (k->streaming == r) TRY(wire_next(c, r, &row));
    r->more = row;
    if (!row) return ERR_OK;
    if (!r->vals) {
        r->cols = PQnfields(row);
        r->vals = new (c->mem, Val, (size_t)r->cols);
    }
    for (int i = 0; i < r->cols; i++) r->vals[i] = value(c, row, i);
    PQclear(row);
    return ERR_OK;
}

// Rows that nobody reads are read off all the same: to cancel would spoil the transaction.
static void pg_finish(Rows *r) {
    PgConn *k = r->tx->conn;
    while (k->streaming == r) {
        PGresult *row = NULL;
        err e = wire_next(r->tx->c, r, &row);
        if (e) e = tx_spoil(r->tx->c, r->tx, e);
        PQclear(row);
    }
    cursor_free(r->cursor);
}

// ---- statements

static void stmt_free(PgStmt *s) {
    mem_free(s->types);
    mem_free(s);
}

void pg_drop_stmt(void *owner, Stmt *base) {
    PgConn *k = owner;
    PgStmt *s = (PgStmt *)base;
    mem_free(s->types);
    if (k->closing || k->broken) return;
    // Between statements of a healthy transaction: it takes one round trip and does not fail.
    char text[40];
    snprintf(text, sizeof text, "DEALLOCATE %s", s->name);
    Arena *scratch = arena_new();
    Ctx c;
    PGresult *res = NULL;
    ctx_init(&c, scratch, k->os);
    if (pg_simple(&c, NULL, k, text, &res) || !pg_good(res)) k->broken = true;
    PQclear(res);
    arena_free(scratch);
}

static err describe(Ctx *c, Tx *tx, PgConn *k, const Sql *sql, PgStmt *s) {
    PGresult *res;
    if (!PQsendDescribePrepared(k->pg, s->name)) return pg_lost(c, tx, k);
    TRY(pg_collect(c, tx, k, &res));
    if (!pg_good(res)) return settle(c, tx, sql->name, "", res);
    s->params = PQnparams(res);
    s->types = mem_new(((size_t)s->params + 1) * sizeof *s->types);
    for (int i = 0; i < s->params; i++) s->types[i] = PQparamtype(res, i);
    PQclear(res);
    return ERR_OK;
}

static err prepare(Ctx *c, Tx *tx, const Sql *sql, PgStmt **out) {
    PgConn *k = tx->conn;
    const char *text = sql_text(tx->db, sql);
    TRY(park(c, tx));
    PgStmt *s = (PgStmt *)stmt_take(&k->cache, sql, text);
    if (s) return *out = s, ERR_OK;
    if (sql_ends_tx(text)) return db_sql_fail(c, sql->name, "it is not for a transaction");
    s = mem_new(sizeof *s);
    snprintf(s->name, sizeof s->name, "s%u", k->serial++);
    PGresult *res = NULL;
    err e = PQsendPrepare(k->pg, s->name, text, 0, NULL) ? pg_collect(c, tx, k, &res)
                                                         : pg_lost(c, tx, k);
    if (!e) e = settle(c, tx, sql->name, text, res);
    if (!e) e = describe(c, tx, k, sql, s);
    if (e) {
        stmt_free(s);
        return e;
    }
    stmt_add(&k->cache, &s->base, sql, text);
    return *out = s, ERR_OK;
}

typedef struct Params {
    const char **values;
    int *lengths, *formats; // format 1: binary
} Params;

static bool is_text(Oid type) {
    return type == OID_TEXT || type == OID_VARCHAR || type == OID_BPCHAR || type == OID_NAME
           || type == OID_JSON || type == OID_BYTEA;
}

static void put_param(Ctx *c, Params *p, size_t i, const Val *v, Oid type) {
    switch (v->type) {
    case VAL_NULL: p->values[i] = NULL; return;
    case VAL_INT: p->values[i] = arena_printf(c->mem, "%lld", (long long)v->i).p; return;
    case VAL_REAL: p->values[i] = arena_printf(c->mem, "%.17g", v->f).p; return;
    case VAL_TEXT:
    case VAL_BLOB:
        if (v->type == VAL_TEXT && !is_text(type)) {
            p->values[i] = arena_z(c->mem, v->s); // the server reads it as a literal
            return;
        }
        p->values[i] = v->s.p;
        p->lengths[i] = (int)v->s.n;
        p->formats[i] = 1;
    }
}

static err send(Ctx *c, Tx *tx, const Sql *sql, const Val *args, size_t n) {
    PgConn *k = tx->conn;
    PgStmt *s = NULL;
    TRY(prepare(c, tx, sql, &s));
    assert(s->base.cached);
    stmt_give(&k->cache, &s->base); // the server keeps no state of a finished execution
    if ((size_t)s->params != n)
        return db_sql_fail(c, sql->name, say(c, "it has %d parameters, not %zu", s->params, n));
    ArenaMark mark = arena_mark(c->mem);
    Params p = { new (c->mem, const char *, n + 1), new (c->mem, int, n + 1),
                 new (c->mem, int, n + 1) };
    for (size_t i = 0; i < n; i++) put_param(c, &p, i, &args[i], s->types[i]);
    int sent = PQsendQueryPrepared(k->pg, s->name, (int)n, p.values, p.lengths, p.formats, 0);
    arena_restore(c->mem, mark);
    return sent ? ERR_OK : pg_lost(c, tx, k);
}

static err pg_exec(Ctx *c, Tx *tx, const Sql *sql, const Val *args, size_t n,
                   int64_t *out_changed) {
    PGresult *res;
    TRY(send(c, tx, sql, args, n));
    TRY(pg_collect(c, tx, tx->conn, &res));
    if (strncmp(PQcmdStatus(res), "SELECT", 6))
        (void)str_to_i64(str_z(PQcmdTuples(res)), out_changed);
    return settle(c, tx, sql->name, sql_text(tx->db, sql), res);
}

static err pg_query(Ctx *c, Rows *r, const Val *args, size_t n) {
    PgConn *k = r->tx->conn;
    TRY(send(c, r->tx, r->sql, args, n));
    int single = PQsetSingleRowMode(k->pg);
    assert(single);
    r->cursor = mem_new(sizeof(PgCursor));
    k->streaming = r;
    err e = pg_next(c, r);
    if (!e && !r->vals) r->vals = new (c->mem, Val, (size_t)r->cols);
    if (e) {
        assert(k->streaming != r);
        cursor_free(r->cursor);
    }
    return e;
}

static err pg_script(Ctx *c, Tx *tx, const char *name, const char *text) {
    PgConn *k = tx->conn;
    PGresult *res;
    if (ddl_ends_tx(text)) return db_sql_fail(c, name, "it is not for a transaction");
    TRY(park(c, tx));
    TRY(pg_simple(c, tx, k, text, &res));
    TRY(settle(c, tx, name, text, res));
    assert(PQtransactionStatus(k->pg) == PQTRANS_INTRANS);
    return ERR_OK;
}

static SQL(clock_now, "SELECT CAST(floor(extract(epoch FROM now()) * 1000) AS BIGINT)");

static err pg_now(Ctx *c, Tx *tx, int64_t *out_ms) {
    PGresult *res;
    TRY(send(c, tx, &clock_now, NULL, 0));
    TRY(pg_collect(c, tx, tx->conn, &res));
    bool read =
        pg_good(res) && PQntuples(res) == 1 && str_to_i64(str_z(PQgetvalue(res, 0, 0)), out_ms);
    TRY(settle(c, tx, clock_now.name, clock_now.text, res));
    return read ? ERR_OK : db_sql_fail(c, clock_now.name, "it gave no number");
}

// ---- transactions

static err begin(Ctx *c, Tx *tx, PgConn *k) {
    const char *text = tx->write ? "BEGIN ISOLATION LEVEL SERIALIZABLE"
                                 : "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;"
                                   "SET LOCAL statement_timeout = 5000";
    PGresult *res;
    TRY(pg_simple(c, tx, k, text, &res));
    return settle(c, tx, "begin", text, res);
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
        e = settle(c, tx, "commit", "", res);
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

static err pg_transaction(Ctx *c, Tx *tx) {
    PgDb *db = (PgDb *)tx->db;
    for (int tries = 0;; tries++) {
        PgConn *k;
        TRY(pg_take(c, db, &k));
        err e = attempt(c, tx, k);
        if (!e && !tx->again && tx->write) atomic_fetch_add(&db->base.commits, 1);
        pg_give(db, k);
        if (!tx->again || tries == DB_RETRIES) return e;
        atomic_fetch_add(&db->base.retries, 1);
        TRY(pg_pause(c, db, backoff_ms(db->base.os, tries)));
    }
}

// ---- the database

static void pg_close(Db *base) {
    PgDb *db = (PgDb *)base;
    pg_pool_done(db);
    mem_free(db);
}

static const DbOps pg_ops = { .close = pg_close,
                              .tx = pg_transaction,
                              .read = pg_transaction,
                              .exec = pg_exec,
                              .query = pg_query,
                              .next = pg_next,
                              .finish = pg_finish,
                              .script = pg_script,
                              .now = pg_now };

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
    PgConn *k;
    err e = pg_take(c, db, &k);
    if (e) {
        pg_close(&db->base);
        return e;
    }
    pg_give(db, k);
    *out = &db->base;
    return ERR_OK;
}
