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

// A reader keeps a checkpoint from its end. What was moved until then is read in the database by
// whoever comes next, though nobody synced it.
TEST(vfs_runs_hold_back_nothing_of_a_checkpoint_cut_short) {
    Ctx *c = test_ctx();
    const char *path = say(c, "%s/r.db", test_dir()), *name = sqlite_runs_add(NULL);
    sqlite3 *writer, *reader, *next;
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, pages = 0, moved = 0;
    CHECK_INT(sqlite3_open_v2(path, &writer, flags, name), SQLITE_OK);
    CHECK_INT(run(writer, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
                          "PRAGMA wal_autocheckpoint=0; CREATE TABLE t (i INTEGER, n, b BLOB);"
                          "WITH RECURSIVE k(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM k WHERE"
                          " i < 400) INSERT INTO t SELECT i, 0, zeroblob(3000) FROM k;"
                          "PRAGMA wal_checkpoint(TRUNCATE); UPDATE t SET n = 1"),
              SQLITE_OK);
    CHECK_INT(sqlite3_open_v2(path, &reader, flags, name), SQLITE_OK);
    CHECK_INT(run(reader, "BEGIN; SELECT count(*) FROM t"), SQLITE_OK);
    CHECK_INT(run(writer, "UPDATE t SET n = 2 WHERE i = 1"), SQLITE_OK);
    CHECK_INT(sqlite3_wal_checkpoint_v2(writer, NULL, SQLITE_CHECKPOINT_PASSIVE, &pages, &moved),
              SQLITE_OK);
    CHECK(moved > 300 && moved < pages);
    CHECK_INT(sqlite3_open_v2(path, &next, flags, name), SQLITE_OK);
    CHECK_INT(ask(next, "SELECT sum(n) FROM t"), 401);
    CHECK_INT(ask(reader, "SELECT sum(n) FROM t"), 400);
    CHECK_INT(sqlite3_close(next), SQLITE_OK);
    CHECK_INT(sqlite3_close(reader), SQLITE_OK);
    CHECK_INT(sqlite3_close(writer), SQLITE_OK);
    sqlite_runs_remove(name);
}
