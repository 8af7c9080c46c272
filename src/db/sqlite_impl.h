// SPDX-License-Identifier: Apache-2.0
// sqlite_impl.h - private to the SQLite backend: its connections, its writer, its simulated files.
#ifndef LATHE_DB_SQLITE_IMPL_H
#define LATHE_DB_SQLITE_IMPL_H
#include "db/db_impl.h"
#include <sqlite3.h>
#include <stdatomic.h>

// Statements of the backend's own, prepared once a connection.
typedef enum {
    CONTROL_BEGIN,
    CONTROL_BEGIN_WRITE,
    CONTROL_COMMIT,
    CONTROL_ROLLBACK,
    CONTROL_SAVE,
    CONTROL_RELEASE,
    CONTROL_UNDO,
    CONTROL__COUNT
} Control;

typedef struct SqliteConn {
    sqlite3 *db;
    Os *os;
    int64_t busy_ms, busy_since_ns;
    const char *_Atomic doing; // a statement's name, or words; for whoever waits
    Tx *tx; // whose statements run, for its deadline; NULL: nothing may interrupt
    StmtCache cache;
    sqlite3_stmt *control[CONTROL__COUNT];
    int wal_pages; // in the log after the last commit
    struct SqliteConn *next;
} SqliteConn;

// A transaction that waits for the writer. In its caller's arena.
typedef enum { REQ_WAITING, REQ_RUNNING, REQ_DONE } ReqState;
typedef struct Req {
    Tx *tx;
    err result;
    ReqState state;
    bool solo; // a neighbour took its group down: its next group is its own
    int64_t queued_ns;
    pthread_cond_t done;
    struct Req *next;
} Req;

typedef struct Writer {
    Db *db;
    SqliteConn *conn;
    pthread_mutex_t lock;
    pthread_cond_t more;
    Req *head, **tail; // under lock, as are the states of the requests
    bool closing, threaded;
    int checkpoint_at;       // pages in the log that call for the next checkpoint
    _Atomic int64_t turn_ns; // since when it has been at a group; 0: idle
    Thread thread;
} Writer;

typedef struct SqliteDb {
    Db base;
    char *path;
    const char *vfs;  // NULL: the machine's
    const char *runs; // on top of it
    Os *where;        // its machine, whose clock counts
    Writer writer;
    pthread_mutex_t lock; // of the readers
    pthread_cond_t freed;
    SqliteConn *idle;
    int opened;
    struct File *index; // of the log, for who follows it (sqlite_log.c); NULL: nobody did
} SqliteDb;

err sqlite_conn_open(Ctx *c, SqliteDb *db, bool write, SqliteConn **out);
void sqlite_conn_close(SqliteConn *k);
int sqlite_control(SqliteConn *k, Control what); // SQLite's code
static inline void sqlite_doing(SqliteConn *k, const char *what) {
    atomic_store_explicit(&k->doing, what, memory_order_relaxed);
}
// What SQLite said last on k, as a failure of the named statement. tx is NULL outside of one.
err sqlite_fail(Ctx *c, SqliteConn *k, Tx *tx, const char *statement);
err sqlite_commit_fail(Ctx *c, SqliteConn *k); // the same of a COMMIT

void sqlite_drop_stmt(void *owner, Stmt *s); // releases a prepared one

err writer_start(Ctx *c, Writer *w, Db *db, SqliteConn *conn); // failed: as never begun
void writer_stop(Writer *w);                                   // what waits is run first
err writer_tx(Ctx *c, Writer *w, Tx *tx);

// sqlite_vfs.c: SQLite's files over os/file.h, for a simulated os. The name to open with.
const char *sqlite_vfs_add(Os *os, const char *path);
void sqlite_vfs_remove(const char *name);
typedef struct SqliteShare {
    Os *where;       // the machine on which the database lies
    uint64_t writes; // by whoever has it open: while it is the same, nothing was committed
} SqliteShare;
void sqlite_vfs_share(const char *name, SqliteShare *out);

// sqlite_runs.c: writes gathered into runs, above another VFS (NULL: the machine's). Only for
// connections with synchronous=FULL. The name to open with.
const char *sqlite_runs_add(const char *under);
void sqlite_runs_remove(const char *name);
#endif
