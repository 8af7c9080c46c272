// SPDX-License-Identifier: Apache-2.0
// db_impl.h - private to db/: what a backend fills in, and what both backends share.
// db.c dispatches; sqlite*.c and postgres.c, pg_pool.c are the backends; migrate.c stands on db.h.
#ifndef LATHE_DB_DB_IMPL_H
#define LATHE_DB_DB_IMPL_H
#include "db/db.h"
#include "os/thread.h"

enum {
    DB_READERS = 4,
    DB_READERS_MAX = 256,
    DB_BUSY_MS = 5000,
    DB_READ_MS = 5000, // longest life of a read snapshot
    DB_RETRIES = 10,   // least further runs of a transaction that others overtake
    DB_SLICE_MS = 20,  // a waiting caller looks at its Ctx this often
    DB_ARGS_MAX = 30000,
    DB_VALUE_MAX = 64 << 20, // bytes of one text or blob, and of one row
};

typedef struct DbOps {
    void (*close)(Db *db);
    err (*tx)(Ctx *c, Tx *tx);   // every attempt: begin, tx_run, commit
    err (*read)(Ctx *c, Tx *tx); // the same on a snapshot
    err (*exec)(Ctx *c, Tx *tx, const Sql *sql, const Val *args, size_t n, int64_t *out_changed);
    err (*query)(Ctx *c, Rows *r, const Val *args, size_t n); // fetches the first row as well
    err (*next)(Ctx *c, Rows *r);                             // fills r->vals, or clears r->more
    void (*finish)(Rows *r);                                  // gives the statement back; once
    err (*script)(Ctx *c, Tx *tx, const char *name, const char *text); // several statements
    err (*now)(Ctx *c, Tx *tx, int64_t *out_ms);
    err (*version)(Ctx *c, Tx *tx, str *out); // of a shared one
} DbOps;

// The head of each backend's object.
struct Db {
    const DbOps *ops;
    DbKind kind;
    bool shared;
    Os *os;
    int readers;
    int64_t busy_ms;
    DbFaults faults;
    pthread_mutex_t refused_lock; // of refused_why
    atomic_uintptr_t only;        // see check_refused in db.c; 0: everybody
    char refused_why[200];
    err (*before_migrating)(Ctx *c, Db *db); // NULL: done, or nobody asked
    atomic_llong transactions, commits, retries, reads, waits_ns;
};

typedef struct Notice {
    void (*fn)(void *);
    void *arg;
    struct Notice *next;
} Notice;

struct Tx {
    Db *db;
    Ctx *c;
    err (*fn)(Ctx *c, Tx *tx, void *arg);
    void *arg;
    void *conn; // the backend's connection, while an attempt runs
    bool write, reruns;
    bool again;               // this attempt must be rolled back and run again
    int64_t begun_ns, end_ns; // end_ns: when the snapshot must end; 0: no limit
    int64_t now_ms;           // 0: not asked yet
    err failed;               // the first failed statement spoils the attempt
    Failure failure, before;  // before: what stood on c when db_tx was called
    Rows *rows;               // open ones
    Notice *notices, **notices_tail;
    pthread_t thread;
};

struct Rows {
    Tx *tx;
    const Sql *sql;
    Val *vals; // of the current row
    int cols;
    bool open, fetched, more; // fetched: vals hold a row that rows_next has not handed out yet
    void *cursor;             // the backend's
    Rows *next, **link;
};

err sqlite_open(Ctx *c, str path, const DbConfig *config, Db **out);
err postgres_open(Ctx *c, str conninfo, const DbConfig *config, Db **out);
// Fills the head of a backend's object.
void db_init(Db *db, Ctx *c, const DbConfig *config, const DbOps *ops, DbKind kind);
err db_away(Ctx *c, const char *why, int64_t retry_after_ms); // R_DB_AWAY
err db_busy(Ctx *c, int64_t ms, const char *why);             // R_DB_BUSY
err db_sql_fail(Ctx *c, const char *statement, const char *why);

// One attempt at the transaction's function on tx->conn: resets what an earlier one left, runs it,
// closes its Rows, and gives the failure that counts. tx->again is set when it must run once more.
err tx_run(Tx *tx);
bool tx_expired(const Tx *tx);       // cancelled, past the deadline, or the snapshot is too old
err tx_expiry(Ctx *c, Tx *tx);       // the same as a failure on c; ERR_OK when it is not so
err tx_spoil(Ctx *c, Tx *tx, err e); // notes the failure on c as the statement's; returns e
const char *sql_text(const Db *db, const Sql *sql);
str sql_table(const char *text);    // that an INSERT, UPDATE or DELETE writes to; else empty
bool sql_ends_tx(const char *text); // BEGIN, COMMIT and the like: not for a function's statements
// ddl.c: a migration in the common subset as PostgreSQL's text. In the arena.
const char *ddl_postgres(Arena *a, const char *text);
bool ddl_ends_tx(const char *text); // whether one of PostgreSQL's statements does
// Checks what both databases must refuse alike.
err args_check(Ctx *c, const Sql *sql, const Val *args, size_t n);
void rows_shut(Rows *r);

// A monotonic condition, and a wait on it of at most ms.
void cond_init(pthread_cond_t *cond);
void cond_wait_ms(Os *os, pthread_cond_t *cond, pthread_mutex_t *lock, int ms);

// ---- stmt_cache.c: prepared statements of one connection, by the row's address, the least
// recently used dropped first. A backend's statement starts with a Stmt.
typedef struct Stmt {
    const Sql *sql;
    char *text; // a copy: a row at the same address with another text is another statement
    uint64_t used;
    bool busy, cached;
    struct Stmt *next;
} Stmt;
enum { STMT_BUCKETS = 64 };
typedef struct StmtCache {
    Stmt *buckets[STMT_BUCKETS];
    int n, max;
    uint64_t clock;
    void (*drop)(void *owner, Stmt *s); // releases the handle; the cache frees the memory
    void *owner;
} StmtCache;
// A prepared one that nobody uses, now busy; else NULL.
Stmt *stmt_take(StmtCache *cache, const Sql *sql, const char *text);
// Takes over a new statement, busy. It is kept when there is room and no other stands for its row.
void stmt_add(StmtCache *cache, Stmt *s, const Sql *sql, const char *text);
void stmt_give(StmtCache *cache, Stmt *s); // no longer busy; one that is not kept is dropped
void stmt_clear(StmtCache *cache);         // drops all

#endif
