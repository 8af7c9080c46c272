// SPDX-License-Identifier: Apache-2.0
// pg_copy.c - see copy.h: a snapshot of PostgreSQL that pg_dump and our own reads share, and what
// PostgreSQL's programs need to find the database: libpq's environment variables, so that no
// password stands on a command line.
// Owner: the PgSnapshot owns its Db; its texts are in the arena of the call. Threads: the caller's.
#include "db/copy.h"
#include "db/pg_impl.h"
#include <assert.h>

static str value_at(Ctx *c, const PGresult *res, int col) {
    if (PQntuples(res) != 1 || PQgetisnull(res, 0, col)) return (str){ 0 };
    return arena_str(c->mem, str_z(PQgetvalue(res, 0, col)));
}

// What the connection came about with, the password and what our environment said included.
static err env_of(Ctx *c, PgConn *k, const char *const **out) {
    enum { ROOM = 64 };
    static const char *const ours[] = { "PATH", "HOME", "TMPDIR", NULL };
    PQconninfoOption *all = PQconninfo(k->pg);
    const char **env = new (c->mem, const char *, ROOM);
    size_t n = 0;
    if (!all) return db_away(c, "memory is out", 0);
    for (const PQconninfoOption *o = all; o->keyword && n < ROOM - 8; o++)
        if (o->envvar && o->val && *o->val) env[n++] = say(c, "%s=%s", o->envvar, o->val);
    PQconninfoFree(all);
    for (const char *const *name = ours; *name; name++)
        if (os_env(c->os, *name)) env[n++] = say(c, "%s=%s", *name, os_env(c->os, *name));
    env[n++] = "LC_ALL=C"; // what they say is read by people who know it in English
    *out = env;
    return ERR_OK;
}

static err export_snapshot(Ctx *c, PgConn *k, PgSnapshot *out) {
    PGresult *res;
    TRY(pg_simple(c, NULL, k,
                  "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;"
                  "SET LOCAL idle_in_transaction_session_timeout = 0;"
                  "SELECT pg_export_snapshot(), current_schema()::text",
                  &res));
    bool good = pg_good(res);
    if (good) out->id = value_at(c, res, 0), out->schema = value_at(c, res, 1);
    err e = good ? ERR_OK : db_sql_fail(c, "snapshot", PQresultErrorMessage(res));
    PQclear(res);
    return e;
}

err pg_snapshot_open(Ctx *c, const Db *like, PgSnapshot *out) {
    assert(db_kind(like) == DB_POSTGRES);
    const char *conninfo = ((const PgDb *)like)->conninfo;
    DbConfig config = { .url = arena_printf(c->mem, "postgres:%s", conninfo), .readers = 2 };
    PgConn *k;
    *out = (PgSnapshot){ 0 };
    TRY(db_open(c, &config, &out->db));
    err e = pg_take(c, (PgDb *)out->db, &k);
    if (!e) {
        out->conn = k;
        e = export_snapshot(c, k, out);
        if (!e) e = env_of(c, k, &out->env);
        out->server_major = PQserverVersion(k->pg) / 10000;
    }
    if (e) pg_snapshot_close(out);
    return e;
}

err pg_snapshot_join(Ctx *c, Tx *tx, const PgSnapshot *s) {
    assert(!tx->write);
    TRY(pg_script(c, tx, "snapshot",
                  say(c, "SET TRANSACTION SNAPSHOT '" STR_FMT "'", STR_ARG(s->id))));
    ((PgConn *)tx->conn)->silent_ms = 0; // all rows of some table may take a while
    return ERR_OK;
}

void pg_snapshot_close(PgSnapshot *s) {
    PgConn *k = s->conn;
    if (k) k->broken = true; // closed, and its transaction with it
    if (k) pg_give((PgDb *)s->db, k);
    db_close(s->db);
    s->db = NULL, s->conn = NULL;
}
