// SPDX-License-Identifier: Apache-2.0
// sqlite_conn.c - connections to SQLite, how they are set up, and what its codes mean. Durability:
// WAL with synchronous=FULL, so a commit is one sync of the log. Leaves statements to sqlite.c.
// Owner: whoever opened it. Threads: a connection belongs to one at a time.
#include "db/sqlite_impl.h"
#include <assert.h>
#include <errno.h>
#include <stdio.h>

enum {
    WRITER_CACHE_KIB = 4096,
    READER_CACHE_KIB = 1024,
    WRITER_STATEMENTS = 256,
    READER_STATEMENTS = 128,
    PROGRESS_OPS = 1000, // of the virtual machine, between looks at the Ctx: well under 1 ms
};

// ---- failures

static err unique_fail(Ctx *c, const char *message) {
    // "UNIQUE constraint failed: t.a, t.b" or "… failed: index 'name'"
    str rest = str_z(message);
    ptrdiff_t at = str_find(rest, S("failed: "));
    if (at >= 0) rest = str_sub(rest, (size_t)at + 8, rest.n);
    Buf b;
    buf_init(&b, 1024);
    if (str_starts(rest, S("index '"))) {
        rest = str_sub(rest, 7, rest.n);
        str name;
        if (str_cut(&rest, '\'', &name)) buf_add(&b, name);
    } else {
        str part;
        for (int i = 0; str_cut(&rest, ',', &part); i++) {
            part = str_trim(part);
            ptrdiff_t dot = str_find_char(part, '.');
            if (!i && dot >= 0) buf_printf(&b, STR_FMT "(", STR_ARG(str_sub(part, 0, (size_t)dot)));
            if (i) buf_add_char(&b, ',');
            buf_add(&b, str_sub(part, (size_t)(dot + 1), part.n));
        }
        buf_add_char(&b, ')');
    }
    err e = fail(c, ERR_CONFLICT, R_DB_UNIQUE, "index", buf_z(&b));
    buf_done(&b);
    return e;
}

static err constraint_fail(Ctx *c, SqliteConn *k, const char *statement) {
    switch (sqlite3_extended_errcode(k->db)) {
    case SQLITE_CONSTRAINT_UNIQUE:
    case SQLITE_CONSTRAINT_PRIMARYKEY:
    case SQLITE_CONSTRAINT_ROWID: return unique_fail(c, sqlite3_errmsg(k->db));
    default: return db_sql_fail(c, statement, sqlite3_errmsg(k->db));
    }
}

// The kernel's last word about the log: COMMIT does not leave it in sqlite3_system_errno.
static int log_errno(SqliteConn *k) {
    sqlite3_file *log = NULL;
    int why = 0;
    sqlite3_file_control(k->db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &log);
    if (log && log->pMethods) log->pMethods->xFileControl(log, SQLITE_FCNTL_LAST_ERRNO, &why);
    return why;
}

static bool is_space(int why) { return why == ENOSPC || why == EDQUOT || why == EFBIG; }

static bool no_space(SqliteConn *k) {
    int code = sqlite3_extended_errcode(k->db);
    if (code == SQLITE_FULL) return true;
    if ((code & 0xff) != SQLITE_IOERR) return false;
    return is_space(sqlite3_system_errno(k->db))
           || (code == SQLITE_IOERR_WRITE && is_space(log_errno(k)));
}

err sqlite_fail(Ctx *c, SqliteConn *k, Tx *tx, const char *statement) {
    if (no_space(k)) return fail(c, ERR_FULL, R_DB_FULL);
    switch (sqlite3_errcode(k->db)) {
    case SQLITE_CONSTRAINT: return constraint_fail(c, k, statement);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        if (tx) TRY(tx_expiry(c, tx));
        return db_busy(c, k->busy_ms, sqlite3_errmsg(k->db));
    case SQLITE_INTERRUPT:
        if (tx) TRY(tx_expiry(c, tx));
        return fail(c, ERR_CANCELLED, R_CANCELLED);
    case SQLITE_TOOBIG:
        return fail(c, ERR_TOOLARGE, R_TOO_LONG, "what", "a row for the database", "limit",
                    say(c, "%d", DB_VALUE_MAX));
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB: return db_away(c, sqlite3_errmsg(k->db), 1000);
    default: return db_sql_fail(c, statement, sqlite3_errmsg(k->db));
    }
}

// After a failed write or sync the log may hold the whole transaction all the same, and a crash
// would bring it back: only a full disk is a plain no.
err sqlite_commit_fail(Ctx *c, SqliteConn *k) {
    if (!no_space(k) && sqlite3_errcode(k->db) == SQLITE_IOERR)
        return fail(c, ERR_UNAVAILABLE, R_DB_UNKNOWN, "why", sqlite3_errmsg(k->db));
    return sqlite_fail(c, k, NULL, "commit");
}

// ---- connections

static int on_progress(void *arg) {
    const SqliteConn *k = arg;
    return k->tx && tx_expired(k->tx);
}

static int on_busy(void *arg, int tries) {
    SqliteConn *k = arg;
    int64_t now = os_mono_ns(k->os);
    if (!tries) k->busy_since_ns = now;
    if (now - k->busy_since_ns >= k->busy_ms * 1000000) return 0;
    if (k->tx && tx_expired(k->tx)) return 0;
    thread_pause(k->os, tries < 8 ? 1000000 : 5000000);
    return 1;
}

static int on_wal(void *arg, sqlite3 *db, const char *name, int pages) {
    (void)db, (void)name;
    ((SqliteConn *)arg)->wal_pages = pages;
    return SQLITE_OK;
}

// Byte order, by the name that PostgreSQL knows it by.
static int collate_c(void *arg, int an, const void *a, int bn, const void *b) {
    (void)arg;
    return str_cmp(str_n(a, (size_t)an), str_n(b, (size_t)bn));
}

static void settings(SqliteConn *k, bool write) {
    sqlite3 *db = k->db;
    sqlite3_extended_result_codes(db, 0);
    sqlite3_progress_handler(db, PROGRESS_OPS, on_progress, k);
    sqlite3_busy_handler(db, on_busy, k);
    // SQLite's own checkpoint would run within COMMIT, before anybody gets an answer.
    sqlite3_wal_hook(db, on_wal, k);
    sqlite3_limit(db, SQLITE_LIMIT_LENGTH, DB_VALUE_MAX + 4096);
    sqlite3_limit(db, SQLITE_LIMIT_ATTACHED, 0);
    sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(db, SQLITE_DBCONFIG_DQS_DML, 0, NULL);
    sqlite3_db_config(db, SQLITE_DBCONFIG_DQS_DDL, 0, NULL);
    sqlite3_create_collation(db, "C", SQLITE_UTF8, NULL, collate_c);
    k->cache = (StmtCache){ .max = write ? WRITER_STATEMENTS : READER_STATEMENTS,
                            .drop = sqlite_drop_stmt,
                            .owner = k };
}

// The log must be there before synchronous and the rest mean what they say.
static int journal(SqliteConn *k, bool alone) {
    sqlite3_stmt *s = NULL;
    // Without shared memory the log's index is in this process: one connection, exclusive.
    int rc = alone ? sqlite3_exec(k->db, "PRAGMA locking_mode=EXCLUSIVE; PRAGMA temp_store=MEMORY;",
                                  NULL, NULL, NULL)
                   : SQLITE_OK;
    if (!rc) rc = sqlite3_prepare_v2(k->db, "PRAGMA journal_mode=WAL", -1, &s, NULL);
    if (rc) return rc;
    rc = sqlite3_step(s);
    bool wal = rc == SQLITE_ROW && str_is(str_z((const char *)sqlite3_column_text(s, 0)), "wal");
    int end = sqlite3_finalize(s);
    if (end) return end;
    return wal ? SQLITE_OK : SQLITE_CANTOPEN;
}

static int pragmas(SqliteConn *k, bool write) {
    char text[512];
    snprintf(text, sizeof text,
             "PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA case_sensitive_like=ON;"
             "PRAGMA journal_size_limit=16777216; PRAGMA mmap_size=33554432;"
             "PRAGMA cache_size=-%d; PRAGMA secure_delete=FAST; PRAGMA trusted_schema=OFF;"
             "PRAGMA cell_size_check=ON; PRAGMA query_only=%s;",
             write ? WRITER_CACHE_KIB : READER_CACHE_KIB, write ? "OFF" : "ON");
    return sqlite3_exec(k->db, text, NULL, NULL, NULL);
}

static int prepare_control(SqliteConn *k) {
    static const char *const texts[CONTROL__COUNT] = {
        [CONTROL_BEGIN] = "BEGIN",         [CONTROL_BEGIN_WRITE] = "BEGIN IMMEDIATE",
        [CONTROL_COMMIT] = "COMMIT",       [CONTROL_ROLLBACK] = "ROLLBACK",
        [CONTROL_SAVE] = "SAVEPOINT tx",   [CONTROL_RELEASE] = "RELEASE tx",
        [CONTROL_UNDO] = "ROLLBACK TO tx",
    };
    int rc = SQLITE_OK;
    for (int i = 0; i < CONTROL__COUNT && !rc; i++)
        rc = sqlite3_prepare_v3(k->db, texts[i], -1, SQLITE_PREPARE_PERSISTENT, &k->control[i],
                                NULL);
    return rc;
}

int sqlite_control(SqliteConn *k, Control what) {
    sqlite3_step(k->control[what]);
    return sqlite3_reset(k->control[what]);
}

err sqlite_conn_open(Ctx *c, SqliteDb *db, bool write, SqliteConn **out) {
    SqliteConn *k = mem_new(sizeof *k);
    k->os = db->base.os;
    k->busy_ms = db->base.busy_ms;
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX;
    int rc = sqlite3_open_v2(db->path, &k->db, flags, db->runs);
    if (!k->db) return mem_free(k), db_away(c, sqlite3_errstr(rc), 1000);
    if (!rc) {
        settings(k, write);
        rc = journal(k, !db->writer.threaded);
        if (!rc) rc = pragmas(k, write);
        if (!rc) rc = prepare_control(k);
    }
    if (!rc) return *out = k, ERR_OK;
    err e = sqlite3_errcode(k->db) ? sqlite_fail(c, k, NULL, "open")
                                   : db_away(c, "its files do not allow a write-ahead log", 0);
    sqlite_conn_close(k);
    return e;
}

void sqlite_conn_close(SqliteConn *k) {
    if (!k) return;
    assert(!k->tx);
    if (k->cache.drop) stmt_clear(&k->cache);
    for (int i = 0; i < CONTROL__COUNT; i++) sqlite3_finalize(k->control[i]);
    int rc = sqlite3_close(k->db);
    assert(rc == SQLITE_OK);
    mem_free(k);
}
