// SPDX-License-Identifier: Apache-2.0
// pg_impl.h - private to the PostgreSQL backend: its connections and how they are shared.
#ifndef LATHE_DB_PG_IMPL_H
#define LATHE_DB_PG_IMPL_H
#include "db/db_impl.h"
#include <libpq-fe.h>

struct event_base;

typedef struct PgConn {
    PGconn *pg;
    Os *os;
    StmtCache cache;
    struct event_base *loop; // only to wait for the socket
    unsigned serial;         // of the next prepared statement's name
    bool broken;             // is closed instead of going back to the pool
    bool left;               // broken by us: the server is well
    bool closing;
    Rows *streaming;   // whose rows are still on the wire
    int64_t silent_ms; // longest wait for an answer; 0: none
    int64_t limit_ns;  // for what no Ctx may interrupt: give up then; 0: none
    uint64_t generation;
    struct PgConn *next;
} PgConn;

// Whose writing transactions run beside which, within this process (pg_turn.c).
typedef struct PgTurn {
    pthread_mutex_t lock; // all below
    pthread_cond_t moved;
    int together, alone, waiting; // the latter: to be alone
} PgTurn;

typedef struct PgDb {
    Db base;
    PgTurn turn;
    char *conninfo;
    pthread_mutex_t lock; // all below
    pthread_cond_t freed;
    PgConn *idle;
    int opened, opening; // the latter are among the former
    uint64_t generation; // grows when a connection breaks: older idle ones are not trusted
    int64_t retry_at_ns, backoff_ms; // no new connection before
    char why[200];
} PgDb;

// pg_pool.c
void pg_pool_init(PgDb *db, const char *conninfo);
void pg_pool_done(PgDb *db);
err pg_take(Ctx *c, PgDb *db, PgConn **out);
void pg_give(PgDb *db, PgConn *k);
err pg_pause(Ctx *c, PgDb *db, int ms); // before another attempt

// The next result of what was sent, NULL after the last. An expired tx (NULL: none) leaves the
// connection. ERR_UNAVAILABLE and k->broken: it is lost, silent, or k->limit_ns has passed.
err pg_result(Ctx *c, Tx *tx, PgConn *k, PGresult **out);
// A text of statements without parameters; *out is the last result, or the first that failed, for
// the caller to judge and to clear.
err pg_simple(Ctx *c, Tx *tx, PgConn *k, const char *text, PGresult **out);
// All results of what was sent, in the same way.
err pg_collect(Ctx *c, Tx *tx, PgConn *k, PGresult **out);
bool pg_good(const PGresult *res);
err pg_lost(Ctx *c, Tx *tx, PgConn *k);

// pg_turn.c
void pg_turn_init(PgTurn *t);
void pg_turn_done(PgTurn *t);
// Never for long: a turn makes an overtaken transaction likelier to end, nothing depends on it.
void pg_turn_take(PgDb *db, bool alone);
void pg_turn_give(PgDb *db, bool alone);

// postgres.c: judges a result of the named statement (text: for the table it writes to), clears it.
err pg_settle(Ctx *c, Tx *tx, const char *name, const char *text, PGresult *res);

// pg_stmt.c, for DbOps and the cache
void pg_drop_stmt(void *owner, Stmt *s);
err pg_exec(Ctx *c, Tx *tx, const Sql *sql, const Val *args, size_t n, int64_t *out_changed);
err pg_query(Ctx *c, Rows *r, const Val *args, size_t n);
err pg_next(Ctx *c, Rows *r);
void pg_finish(Rows *r);
err pg_script(Ctx *c, Tx *tx, const char *name, const char *text);
err pg_now(Ctx *c, Tx *tx, int64_t *out_ms);
#endif
