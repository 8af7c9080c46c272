// SPDX-License-Identifier: Apache-2.0
// pg_stmt.c - PostgreSQL's prepared statements, their parameters, and rows as they come off the
// wire. libpq: PostgreSQL 15 documentation, chapter 34. Owner: a cursor belongs to its Rows.
// Threads: a connection's.
#include "db/pg_impl.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { PARKED_MAX = 64 << 20 }; // bytes of rows set aside while another statement runs

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
    err e = pg_settle(c, r->tx, r->sql->name, sql_text(r->tx->db, r->sql), res);
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

err pg_next(Ctx *c, Rows *r) {
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
void pg_finish(Rows *r) {
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
    if (!pg_good(res)) return pg_settle(c, tx, sql->name, "", res);
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
    if (!e) e = pg_settle(c, tx, sql->name, text, res);
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

err pg_exec(Ctx *c, Tx *tx, const Sql *sql, const Val *args, size_t n, int64_t *out_changed) {
    PGresult *res;
    TRY(send(c, tx, sql, args, n));
    TRY(pg_collect(c, tx, tx->conn, &res));
    if (strncmp(PQcmdStatus(res), "SELECT", 6))
        (void)str_to_i64(str_z(PQcmdTuples(res)), out_changed);
    return pg_settle(c, tx, sql->name, sql_text(tx->db, sql), res);
}

err pg_query(Ctx *c, Rows *r, const Val *args, size_t n) {
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

err pg_script(Ctx *c, Tx *tx, const char *name, const char *text) {
    PgConn *k = tx->conn;
    PGresult *res;
    if (ddl_ends_tx(text)) return db_sql_fail(c, name, "it is not for a transaction");
    TRY(park(c, tx));
    int64_t silent_ms = k->silent_ms;
    k->silent_ms = 0; // a migration may rewrite a large table
    err e = pg_simple(c, tx, k, say(c, "SET LOCAL statement_timeout = 0;%s", text), &res);
    k->silent_ms = silent_ms;
    TRY(e);
    TRY(pg_settle(c, tx, name, text, res));
    assert(PQtransactionStatus(k->pg) == PQTRANS_INTRANS);
    return ERR_OK;
}

static SQL(clock_now, "SELECT CAST(floor(extract(epoch FROM now()) * 1000) AS BIGINT)");

err pg_now(Ctx *c, Tx *tx, int64_t *out_ms) {
    PGresult *res;
    TRY(send(c, tx, &clock_now, NULL, 0));
    TRY(pg_collect(c, tx, tx->conn, &res));
    bool read =
        pg_good(res) && PQntuples(res) == 1 && str_to_i64(str_z(PQgetvalue(res, 0, 0)), out_ms);
    TRY(pg_settle(c, tx, clock_now.name, clock_now.text, res));
    return read ? ERR_OK : db_sql_fail(c, clock_now.name, "it gave no number");
}
