// SPDX-License-Identifier: Apache-2.0
// db_vfs_test.c - SQLite's files over os/file.h, here on the machine's own files: what they write
// the usual VFS must read, and the other way round. Threads: the test's.
#include "db/db_test.h"
#include "db/sqlite_impl.h"

static int run(sqlite3 *db, const char *text) { return sqlite3_exec(db, text, NULL, NULL, NULL); }

static int64_t ask(sqlite3 *db, const char *text) {
    sqlite3_stmt *s = NULL;
    int64_t n = -1;
    if (!sqlite3_prepare_v2(db, text, -1, &s, NULL) && sqlite3_step(s) == SQLITE_ROW)
        n = sqlite3_column_int64(s, 0);
    sqlite3_finalize(s);
    return n;
}

static const char fill[] = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE"
                           " i < 3000) INSERT INTO t SELECT i, zeroblob(500) FROM n";

TEST(vfs_files_are_sqlite_files) {
    Ctx *c = test_ctx();
    c->os = os_real();
    const char *path = say(c, "%s/v.db", test_dir());
    const char *name = sqlite_vfs_add(c->os, path);
    sqlite3 *db;
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    CHECK_INT(sqlite3_open_v2(path, &db, flags, name), SQLITE_OK);
    CHECK_INT(run(db, "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL;"
                      "PRAGMA synchronous=FULL; CREATE TABLE t (i INTEGER, b BLOB)"),
              SQLITE_OK);
    CHECK_INT(run(db, fill), SQLITE_OK);
    // A statement journal, and a sort that spills: temporary files.
    CHECK_INT(run(db, "PRAGMA cache_size=10; CREATE UNIQUE INDEX u ON t (i)"), SQLITE_OK);
    CHECK_INT(run(db, fill), SQLITE_CONSTRAINT);
    CHECK_INT(ask(db, "SELECT count(*) FROM (SELECT DISTINCT b, i FROM t ORDER BY b, i DESC)"),
              3000);
    CHECK(ask(db, "SELECT abs(julianday('now') - julianday('2000-01-01')) > 9000"));
    CHECK_INT(sqlite3_close(db), SQLITE_OK);
    CHECK_INT(sqlite3_open_v2(path, &db, flags, NULL), SQLITE_OK);
    CHECK_INT(ask(db, "SELECT sum(i) FROM t"), 4501500);
    CHECK_INT(run(db, "PRAGMA journal_mode=DELETE; DELETE FROM t WHERE i > 10"), SQLITE_OK);
    CHECK_INT(sqlite3_close(db), SQLITE_OK);
    CHECK_INT(sqlite3_open_v2(path, &db, flags, name), SQLITE_OK);
    CHECK_INT(run(db, "DELETE FROM t WHERE i > 9"), SQLITE_OK); // with a rollback journal
    CHECK_INT(ask(db, "SELECT sum(i) FROM t"), 45);
    CHECK_INT(sqlite3_close(db), SQLITE_OK);
    sqlite_vfs_remove(name);
}
