// SPDX-License-Identifier: Apache-2.0
// sqlite.c - the SQLite backend: statements, rows, read snapshots, the database as a whole. Leaves
// connections to sqlite_conn.c and write transactions to sqlite_writer.c.
// Owner: the SqliteDb owns its connections. Threads: a connection belongs to one at a time (the
// writer's, or the caller that took a reader).
#include "db/sqlite_impl.h"
#include "os/file.h"
#include <assert.h>

typedef struct SqliteStmt {
    Stmt base;
    sqlite3_stmt *handle;
    int params, highest; // distinct parameters, and the largest number among them
    uint16_t *numbers;   // of each parameter in SQLite's order
} SqliteStmt;

// ---- statements

void sqlite_drop_stmt(void *owner, Stmt *s) {
    (void)owner;
    sqlite3_finalize(((SqliteStmt *)s)->handle);
    mem_free(((SqliteStmt *)s)->numbers);
}

static err map_params(Ctx *c, SqliteStmt *s, const Sql *sql) {
    s->params = sqlite3_bind_parameter_count(s->handle);
    s->numbers = mem_new(((size_t)s->params + 1) * sizeof *s->numbers);
    for (int i = 0; i < s->params; i++) {
        const char *name = sqlite3_bind_parameter_name(s->handle, i + 1);
        int64_t number = 0;
        if (!name || name[0] != '$' || !str_to_i64(str_z(name + 1), &number) || number < 1
            || number > DB_ARGS_MAX)
            return db_sql_fail(c, sql->name, "parameters are $1, $2, …");
        s->numbers[i] = (uint16_t)number;
        if (number > s->highest) s->highest = (int)number;
    }
    return ERR_OK;
}

static err prepare(Ctx *c, SqliteConn *k, Tx *tx, const Sql *sql, SqliteStmt **out) {
    const char *text = sql_text(tx->db, sql), *tail = NULL;
    SqliteStmt *s = (SqliteStmt *)stmt_take(&k->cache, sql, text);
    if (s) return *out = s, ERR_OK;
    if (sql_ends_tx(text)) return db_sql_fail(c, sql->name, "it is not for a transaction");
    s = mem_new(sizeof *s);
    err e = ERR_OK;
    if (sqlite3_prepare_v3(k->db, text, -1, SQLITE_PREPARE_PERSISTENT, &s->handle, &tail))
        e = sqlite_fail(c, k, tx, sql->name);
    else if (!s->handle || tail[strspn(tail, " \t\r\n;")])
        e = db_sql_fail(c, sql->name, "it is not exactly one statement");
    else e = map_params(c, s, sql);
    if (e) {
        sqlite_drop_stmt(k, &s->base);
        mem_free(s);
        return e;
    }
    stmt_add(&k->cache, &s->base, sql, text);
    return *out = s, ERR_OK;
}

static int bind_one(sqlite3_stmt *h, int at, const Val *v, sqlite3_destructor_type life) {
    switch (v->type) {
    case VAL_NULL: return sqlite3_bind_null(h, at);
    case VAL_INT: return sqlite3_bind_int64(h, at, v->i);
    case VAL_REAL: return sqlite3_bind_double(h, at, v->f);
    case VAL_TEXT: return sqlite3_bind_text64(h, at, v->s.p, v->s.n, life, SQLITE_UTF8);
    case VAL_BLOB: return sqlite3_bind_blob64(h, at, v->s.p, v->s.n, life);
    }
    assert(!"a value's type");
    return SQLITE_MISUSE;
}

// life: whether SQLite copies text and blobs (its statement outlives the arguments).
static err bind(Ctx *c, SqliteStmt *s, const Val *args, size_t n, sqlite3_destructor_type life) {
    const char *name = s->base.sql->name;
    if (n != (size_t)s->highest)
        return db_sql_fail(c, name, say(c, "it has %d parameters, not %zu", s->highest, n));
    for (int i = 0; i < s->params; i++)
        if (bind_one(s->handle, i + 1, &args[s->numbers[i] - 1], life))
            return db_sql_fail(c, name, "a parameter does not fit");
    return ERR_OK;
}

static void give(SqliteConn *k, SqliteStmt *s) {
    sqlite3_reset(s->handle);
    sqlite3_clear_bindings(s->handle);
    stmt_give(&k->cache, &s->base);
}

// SQLite does not name a broken reference: the table written to has to do.
static err step_fail(Ctx *c, SqliteConn *k, Tx *tx, const Sql *sql) {
    if (sqlite3_extended_errcode(k->db) == SQLITE_CONSTRAINT_FOREIGNKEY)
        return fail(c, ERR_CONFLICT, R_DB_REFERENCE, "index",
                    say_str(c, sql_table(sql_text(tx->db, sql))));
    return sqlite_fail(c, k, tx, sql->name);
}

static err sqlite_exec(Ctx *c, Tx *tx, const Sql *sql, const Val *args, size_t n,
                       int64_t *out_changed) {
    SqliteConn *k = tx->conn;
    SqliteStmt *s;
    TRY(prepare(c, k, tx, sql, &s));
    sqlite_doing(k, sql->name);
    err e = bind(c, s, args, n, SQLITE_STATIC);
    if (!e) {
        int rc;
        do rc = sqlite3_step(s->handle);
        while (rc == SQLITE_ROW);
        if (rc != SQLITE_DONE) e = step_fail(c, k, tx, sql);
        else if (!sqlite3_stmt_readonly(s->handle)) *out_changed = sqlite3_changes64(k->db);
    }
    give(k, s);
    return e;
}

static Val column(Ctx *c, sqlite3_stmt *h, int i) {
    switch (sqlite3_column_type(h, i)) {
    case SQLITE_INTEGER: return val_int(sqlite3_column_int64(h, i));
    case SQLITE_FLOAT: return val_real(sqlite3_column_double(h, i));
    case SQLITE_TEXT: {
        const void *p = sqlite3_column_text(h, i);
        return val_str(arena_str(c->mem, str_n(p, (size_t)sqlite3_column_bytes(h, i))));
    }
    case SQLITE_BLOB: {
        const void *p = sqlite3_column_blob(h, i); // NULL for an empty one
        return val_blob(arena_str(c->mem, str_n(p ? p : "", (size_t)sqlite3_column_bytes(h, i))));
    }
    default: return val_null();
    }
}

static err sqlite_next(Ctx *c, Rows *r) {
    SqliteStmt *s = r->cursor;
    int rc = sqlite3_step(s->handle);
    r->more = rc == SQLITE_ROW;
    if (rc == SQLITE_DONE) return ERR_OK;
    if (rc != SQLITE_ROW) return step_fail(c, r->tx->conn, r->tx, r->sql);
    for (int i = 0; i < r->cols; i++) r->vals[i] = column(c, s->handle, i);
    return ERR_OK;
}

static err sqlite_query(Ctx *c, Rows *r, const Val *args, size_t n) {
    SqliteConn *k = r->tx->conn;
    SqliteStmt *s;
    TRY(prepare(c, k, r->tx, r->sql, &s));
    sqlite_doing(k, r->sql->name);
    err e = bind(c, s, args, n, SQLITE_TRANSIENT);
    if (!e) {
        r->cursor = s;
        r->cols = sqlite3_column_count(s->handle);
        r->vals = new (c->mem, Val, (size_t)r->cols);
        e = sqlite_next(c, r);
    }
    if (e) give(k, s);
    return e;
}

// A statement with RETURNING is run to its end: SQLite checks references only there.
static void sqlite_finish(Rows *r) {
    SqliteStmt *s = r->cursor;
    Tx *tx = r->tx;
    if (r->more && !sqlite3_stmt_readonly(s->handle)) {
        int rc;
        do rc = sqlite3_step(s->handle);
        while (rc == SQLITE_ROW);
        if (rc != SQLITE_DONE) (void)!tx_spoil(tx->c, tx, step_fail(tx->c, tx->conn, tx, r->sql));
    }
    give(tx->conn, s);
}

static err sqlite_script(Ctx *c, Tx *tx, const char *name, const char *text) {
    SqliteConn *k = tx->conn;
    while (*text) {
        sqlite3_stmt *h = NULL;
        if (sqlite3_prepare_v2(k->db, text, -1, &h, &text)) return sqlite_fail(c, k, tx, name);
        if (!h) break;
        bool bad = sql_ends_tx(sqlite3_sql(h));
        err e = bad ? db_sql_fail(c, name, "it is not for a transaction") : ERR_OK;
        int rc = SQLITE_ROW;
        while (!e && rc == SQLITE_ROW) rc = sqlite3_step(h);
        if (!e && rc != SQLITE_DONE) e = sqlite_fail(c, k, tx, name);
        sqlite3_finalize(h);
        TRY(e);
    }
    return ERR_OK;
}

static err sqlite_now(Ctx *c, Tx *tx, int64_t *out_ms) {
    const SqliteDb *db = (SqliteDb *)tx->db;
    (void)c;
    *out_ms = os_wall_ms(db->where);
    return ERR_OK;
}

static err sqlite_version(Ctx *c, Tx *tx, str *out) {
    static SQL(reach, "SELECT 1 FROM sqlite_schema LIMIT 1");
    SqliteShare share;
    Rows *rows;
    TRY(db_one(c, tx, &rows, &reach, NULL, 0)); // it answers
    sqlite_vfs_share(((SqliteDb *)tx->db)->vfs, &share);
    *out = arena_printf(c->mem, "%llu", (unsigned long long)share.writes);
    return ERR_OK;
}

// ---- read snapshots

// An idle reader, or a new one while there may be more. *out stays NULL when a new one may be
// opened.
static err wait_reader(Ctx *c, SqliteDb *db, Tx *tx, SqliteConn **out) {
    int64_t since = os_mono_ns(db->base.os), waited = 0;
    err e = ERR_OK;
    pthread_mutex_lock(&db->lock);
    while (!db->idle && db->opened == db->base.readers && !e) {
        waited = os_mono_ns(db->base.os) - since;
        e = tx_expiry(c, tx);
        if (!e && waited >= db->base.busy_ms * 1000000)
            e = db_busy(c, db->base.busy_ms, say(c, "all its %d readers are at work", db->opened));
        if (!e) cond_wait_ms(db->base.os, &db->freed, &db->lock, DB_SLICE_MS);
    }
    if (!e) {
        *out = db->idle;
        if (db->idle) db->idle = db->idle->next;
        else db->opened++;
    }
    pthread_mutex_unlock(&db->lock);
    if (waited) atomic_fetch_add(&db->base.waits_ns, os_mono_ns(db->base.os) - since);
    return e;
}

static void give_reader(SqliteDb *db, SqliteConn *k) {
    pthread_mutex_lock(&db->lock);
    if (k) {
        k->next = db->idle;
        db->idle = k;
    } else {
        db->opened--;
    }
    pthread_cond_signal(&db->freed);
    pthread_mutex_unlock(&db->lock);
}

static err snapshot(Ctx *c, SqliteConn *k, Tx *tx) {
    tx->conn = k;
    k->tx = tx;
    err e = ERR_OK;
    if (sqlite_control(k, CONTROL_BEGIN)) e = sqlite_fail(c, k, tx, "begin");
    else e = tx_run(tx);
    k->tx = NULL;
    if (!sqlite3_get_autocommit(k->db)) sqlite_control(k, CONTROL_ROLLBACK);
    assert(sqlite3_get_autocommit(k->db));
    return e;
}

static err read_alone(Ctx *c, SqliteDb *db, Tx *tx) {
    SqliteConn *k = db->writer.conn;
    sqlite3_exec(k->db, "PRAGMA query_only=ON", NULL, NULL, NULL);
    err e = snapshot(c, k, tx);
    sqlite3_exec(k->db, "PRAGMA query_only=OFF", NULL, NULL, NULL);
    return e;
}

static err sqlite_read(Ctx *c, Tx *tx) {
    SqliteDb *db = (SqliteDb *)tx->db;
    if (!db->writer.threaded) return read_alone(c, db, tx);
    SqliteConn *k = NULL;
    TRY(wait_reader(c, db, tx, &k));
    err e = k ? ERR_OK : sqlite_conn_open(c, db, false, &k);
    if (!e) e = snapshot(c, k, tx);
    give_reader(db, k);
    return e;
}

static err sqlite_tx(Ctx *c, Tx *tx) { return writer_tx(c, &((SqliteDb *)tx->db)->writer, tx); }

// ---- the database

static void sqlite_close_db(Db *base) {
    SqliteDb *db = (SqliteDb *)base;
    writer_stop(&db->writer);
    int closed = 0;
    for (SqliteConn *k = db->idle, *next; k; k = next, closed++) {
        next = k->next;
        sqlite_conn_close(k);
    }
    assert(closed == db->opened); // nobody reads any more
    sqlite_conn_close(db->writer.conn);
    file_close(db->index); // after the last connection: this drops locks too
    sqlite_runs_remove(db->runs);
    if (db->vfs) sqlite_vfs_remove(db->vfs);
    pthread_mutex_destroy(&db->lock);
    pthread_cond_destroy(&db->freed);
    mem_free(db->path);
    mem_free(db);
}

static const DbOps sqlite_ops = { .close = sqlite_close_db,
                                  .tx = sqlite_tx,
                                  .read = sqlite_read,
                                  .exec = sqlite_exec,
                                  .query = sqlite_query,
                                  .next = sqlite_next,
                                  .finish = sqlite_finish,
                                  .script = sqlite_script,
                                  .now = sqlite_now,
                                  .version = sqlite_version };

static void configure(void) {
    sqlite3_config(SQLITE_CONFIG_MULTITHREAD);
    sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0); // a lock around every allocation otherwise
    sqlite3_initialize();
}

// Made by us, so that nobody else may read it; its log takes after it. Not opened when it is there:
// closing would drop the locks that this process holds on it (POSIX).
static err make_file(Ctx *c, str path) {
    PathInfo info;
    Failure before = c->failure;
    err e = path_info(c, path, &info);
    if (e != ERR_NOTFOUND) return e;
    c->failure = before;
    File *f;
    TRY(file_open(c, path, FILE_READ | FILE_WRITE | FILE_CREATE | FILE_PRIVATE, &f));
    file_close(f);
    return ERR_OK;
}

// What a log shows after a crash may be in the kernel's memory only, where an earlier sync failed:
// a commit behind such frames would be lost with them by a power cut. So all of it moves into the
// database, which is synced, before anything is added. A full disk may wait, reads must not.
static err settle_log(Ctx *c, SqliteConn *k) {
    int rc = sqlite3_wal_checkpoint_v2(k->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    if (!rc || rc == SQLITE_BUSY || rc == SQLITE_LOCKED) return ERR_OK;
    Failure before = c->failure;
    err e = sqlite_fail(c, k, NULL, "checkpoint");
    if (e != ERR_FULL) return e;
    c->failure = before;
    return ERR_OK;
}

// On another simulated machine: other nodes use it too, its clock is that machine's, and now and
// then a transaction is overtaken, as PostgreSQL's are.
static void look_at_share(SqliteDb *db) {
    enum { OVERTAKEN = 20000 };
    SqliteShare share = { .where = db->base.os };
    if (db->vfs) sqlite_vfs_share(db->vfs, &share);
    db->where = share.where;
    db->base.shared = share.where != db->base.os;
    if (db->base.shared) db->base.faults.again = OVERTAKEN;
}

err sqlite_open(Ctx *c, str path, const DbConfig *config, Db **out) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, configure);
    if (!path.n || path.p[0] == ':' || str_starts(path, S("file:")))
        return fail(c, ERR_INVALID, R_DB_URL, "why", "sqlite: wants the path of a file");
    TRY(make_file(c, path));
    SqliteDb *db = mem_new(sizeof *db);
    db_init(&db->base, c, config, &sqlite_ops, DB_SQLITE);
    db->path = mem_strdup(path);
    db->vfs = os_is_simulated(c->os) ? sqlite_vfs_add(c->os, db->path) : NULL;
    db->runs = sqlite_runs_add(db->vfs);
    db->writer.threaded = thread_can_start(c->os);
    pthread_mutex_init(&db->lock, NULL);
    cond_init(&db->freed);
    SqliteConn *k;
    err e = sqlite_conn_open(c, db, true, &k);
    if (!e) {
        e = settle_log(c, k);
        if (!e) look_at_share(db);
        if (!e) e = writer_start(c, &db->writer, &db->base, k);
        if (e) sqlite_conn_close(k);
    }
    if (e) sqlite_close_db(&db->base);
    else *out = &db->base;
    return e;
}
