// SPDX-License-Identifier: Apache-2.0
// db.h - SQL over SQLite and PostgreSQL with the same named statements. Writes are functions run
// inside a transaction: a savepoint of SQLite's group commit (one writer thread commits what is
// waiting with one sync), or a pooled SERIALIZABLE transaction with retry on PostgreSQL. Such a
// function may run more than once, on another thread than the caller's (who waits): it must be free
// of side effects besides SQL and its result struct. When db_tx returns ERR_OK the change is
// durable. Threads: any; a Tx belongs to the thread that its function runs on.
#ifndef LATHE_DB_DB_H
#define LATHE_DB_DB_H
#include "os/os.h"

typedef struct Db Db;
typedef struct Tx Tx; // a write transaction, or a read snapshot from db_read

// A statement's row. Text in the common subset of both databases (README.md), parameters $1 $2 …;
// pg where that is not enough. Connections keep prepared statements by the row's address.
typedef struct Sql {
    const char *name, *text, *pg;
} Sql;
#define SQL(id, text) const Sql id = { #id, text, NULL }

typedef enum { VAL_NULL, VAL_INT, VAL_REAL, VAL_TEXT, VAL_BLOB } ValType;
typedef struct Val {
    ValType type;
    union {
        int64_t i;
        double f; // finite
        str s;    // text: UTF-8 without NUL, else ERR_INVALID with R_DB_VALUE
    };
} Val;
static inline Val val_null(void) { return (Val){ VAL_NULL, { 0 } }; }
static inline Val val_int(int64_t i) { return (Val){ VAL_INT, { .i = i } }; }
static inline Val val_real(double f) { return (Val){ VAL_REAL, { .f = f } }; }
static inline Val val_str(str s) { return s.p ? (Val){ VAL_TEXT, { .s = s } } : val_null(); }
static inline Val val_z(const char *z) { return val_str(str_z(z)); }
static inline Val val_blob(str s) { return s.p ? (Val){ VAL_BLOB, { .s = s } } : val_null(); }
// clang-format off
#define V(x) _Generic((x), int: val_int, long: val_int, long long: val_int, unsigned: val_int, \
                      bool: val_int, double: val_real, str: val_str, char *: val_z,            \
                      const char *: val_z)(x)
// clang-format on

typedef enum { DB_SQLITE, DB_POSTGRES } DbKind;
typedef struct DbConfig {
    str url;         // "sqlite:PATH", "postgres://…" or "postgres:" and libpq's key=value text
    int readers;     // reader connections, or PostgreSQL pool size; 0: 4
    int64_t busy_ms; // longest wait for a connection or a lock; 0: 5000
    bool later;      // PostgreSQL may be away: the first transaction finds out
} DbConfig;
err db_open(Ctx *c, const DbConfig *config, Db **out);
void db_close(Db *db); // after the last caller; NULL is fine
// From now on every transaction is refused: ERR_UNAVAILABLE with R_DB_AWAY and why (copied).
void db_refuse(Db *db, const char *why);
void db_refuse_others(Db *db); // but those of the calling thread run
void db_accept(Db *db);        // all, as at first
DbKind db_kind(const Db *db);
// Others commit to it as well: PostgreSQL, or a simulated machine's SQLite that is another's.
bool db_shared(const Db *db);

// Runs fn in a write transaction. fn's error rolls back and is returned as is. A failed statement
// spoils its transaction: whatever fn does next, that failure is what db_tx returns (unless fn
// fails with its own). A serialisation failure runs fn again (at most 10 times, then
// ERR_UNAVAILABLE). Cancelled or past its deadline: rolled back. Database away: ERR_UNAVAILABLE
// with R_DB_AWAY, retry_after set; gone while committing: ERR_UNAVAILABLE with R_DB_UNKNOWN.
// Failures set within fn on c survive. Never call db_tx or db_read within fn: pass the Tx.
err db_tx(Ctx *c, Db *db, err (*fn)(Ctx *c, Tx *tx, void *arg), void *arg);
// Runs fn on one read snapshot; at most 5 s, then ERR_TIMEOUT. Writes in it fail.
err db_read(Ctx *c, Db *db, err (*fn)(Ctx *c, Tx *tx, void *arg), void *arg);
// Runs after the commit of this transaction (once, on the caller's thread), dropped when it rolls
// back: for wake-ups that may be lost. fn must not fail or block.
void tx_notify(Tx *tx, void (*fn)(void *), void *arg);
DbKind tx_kind(const Tx *tx);
// The database's own clock (SQLite: os wall), one value a transaction: for leases. When it cannot
// be read the transaction is spoilt.
int64_t tx_now_ms(Tx *tx);

// Executes; out_changed may be NULL. A unique violation is ERR_CONFLICT with R_DB_UNIQUE and
// "table(column,column)", or the name of an index on expressions; a broken reference ERR_CONFLICT
// with R_DB_REFERENCE and the statement's table: resources turn these into better words.
err db_exec(Ctx *c, Tx *tx, const Sql *sql, const Val *args, size_t n, int64_t *out_changed);
#define db_run(c, tx, sql, ...)                             \
    db_exec((c), (tx), (sql), (const Val[]){ __VA_ARGS__ }, \
            sizeof((const Val[]){ __VA_ARGS__ }) / sizeof(Val), NULL)

// A query: rows one at a time. Text and blobs of each row live in c->mem. Other statements may run
// while a Rows is open.
typedef struct Rows Rows;
err db_query(Ctx *c, Tx *tx, const Sql *sql, const Val *args, size_t n, Rows **out);
#define db_ask(c, tx, out, sql, ...)                         \
    db_query((c), (tx), (sql), (const Val[]){ __VA_ARGS__ }, \
             sizeof((const Val[]){ __VA_ARGS__ }) / sizeof(Val), (out))
// False at the end; the Rows is closed then, and by the end of its transaction anyway.
err rows_next(Ctx *c, Rows *r, bool *out_more);
void rows_close(Rows *r);
int rows_columns(const Rows *r);
bool col_null(const Rows *r, int col);
int64_t col_int(const Rows *r, int col); // 0 for NULL; asserts that the value is a number
double col_real(const Rows *r, int col);
str col_str(const Rows *r, int col); // absent for NULL; asserts that it is text or a blob
// Exactly one row is wanted: ERR_NOTFOUND (reason R_DB_NO_ROW) when there is none. The Rows stands
// on it; its values stay readable as long as c->mem.
err db_one(Ctx *c, Tx *tx, Rows **out, const Sql *sql, const Val *args, size_t n);

// Migrations: numbered upwards per owner ("access"), forward only, each run once in a transaction
// and recorded in schema_migration with a hash of its text; a changed text of an applied one is an
// error. text may hold several statements. pg NULL: the same text with its type words translated
// (INTEGER, REAL, BLOB, TEXT, STRICT, WITHOUT ROWID: see README.md).
typedef struct Migration {
    int number;
    const char *text, *pg;
    int release;   // of the schema that brings it; 0: the first
    int last_used; // by this release, of what it takes away; 0: it takes nothing away
} Migration;
err db_migrate(Ctx *c, Db *db, const char *owner, const Migration *rows, size_t n);
// Called once, before the first migration changes a database that has some already: an error ends
// the migrating before it began. Set it before db_migrate.
void db_before_migrating(Db *db, err (*fn)(Ctx *c, Db *db));
// Releases of the schema: expand, then contract, so release n runs on the schema of n + 1 and on
// none after it: ERR_CONFLICT with R_DB_RELEASE. *out_there: 0 when none was set yet.
err db_release_check(Ctx *c, Db *db, int ours, int *out_there);
err db_release_set(Ctx *c, Db *db, int ours); // never goes back
// Why a migration breaks the release before its own, which still runs; NULL: it does not.
const char *migration_breaks(const Migration *m);
// Columns of a table as the database has them, to compare with rows: names, types as SQLite's
// (INTEGER TEXT REAL BLOB, else the database's own, upper case), not-null. None: no such table.
typedef struct Column {
    str name, type;
    bool not_null;
} Column;
err db_columns(Ctx *c, Db *db, const char *table, Column **out, size_t *out_n);
err db_check(Ctx *c, Db *db); // integrity: PRAGMA quick_check, or a trivial query on PostgreSQL

// What stands for all that is committed: while two answers are equal nothing was. To be asked
// before the reading that it is compared for. SQLite: counts this Db's commits, since only one
// process writes; a shared one is asked: PostgreSQL for its snapshot of transactions.
err db_version(Ctx *c, Db *db, str *out);

typedef struct DbCounts {
    int64_t transactions, commits, retries, reads, waits_ns;
} DbCounts;
DbCounts db_counts(Db *db); // commits < transactions shows the group commit at work

// Injected faults, for tests and simulation: chances in a million for each transaction, drawn from
// the database's os. again: fn's first run is rolled back and repeated; away: refused with
// R_DB_AWAY; unknown: committed, then answered with R_DB_UNKNOWN. To be called before other threads
// use db.
typedef struct DbFaults {
    unsigned again, away, unknown;
} DbFaults;
void db_faults(Db *db, const DbFaults *f);

// clang-format off
#define DB_REASONS(X) \
    X(DB_AWAY, "database_unavailable", "the database does not answer: {why}", \
      "数据库没有应答：{why}") \
    X(DB_BUSY, "database_busy", "the database was busy for longer than {ms} ms: {why}", \
      "数据库忙碌超过 {ms} 毫秒：{why}") \
    X(DB_UNKNOWN, "outcome_unknown", \
      "the database went away while committing: the change may be there or not ({why})", \
      "数据库在提交时失去连接：更改可能已生效，也可能未生效（{why}）") \
    X(DB_UNIQUE, "not_unique", "a row with the same {index} exists already", \
      "已存在相同 {index} 的记录") \
    X(DB_REFERENCE, "broken_reference", "the row refers to, or is used by, another one ({index})", \
      "该记录与其他记录存在引用关系（{index}）") \
    X(DB_NO_ROW, "no_row", "there is no such row", "没有这条记录") \
    X(DB_SQL, "database_error", "statement {statement} failed: {why}", \
      "语句 {statement} 执行失败：{why}") \
    X(DB_VALUE, "bad_value", "parameter {number} of statement {statement} {why}", \
      "语句 {statement} 的参数 {number} 无效：{why}") \
    X(DB_FULL, "disk_full", "the disk that holds the database is full", "数据库所在磁盘已满") \
    X(DB_MIGRATION, "bad_migration", "migration {owner} {number}: {why}", \
      "迁移 {owner} {number}：{why}") \
    X(DB_RELEASE, "schema_too_new", \
      "the database has the schema of release {there}, and this program is of release {ours}: it " \
      "runs on that of {most} at most. Start a program of release {most} or later, or go back to " \
      "a copy of the database from before (README.md of src/db)", \
      "数据库的模式版本为 {there}，本程序为 {ours}，最高支持 {most}：请启动 {most} 或更高版本的程序，" \
      "或恢复升级前的数据库副本（见 src/db/README.md）") \
    X(DB_URL, "bad_database_url", "the database address is not usable: {why}", \
      "数据库地址不可用：{why}")
// clang-format on
REASONS_DECLARE(DB_REASONS)
extern const Reason *const db_reasons[];
#endif
