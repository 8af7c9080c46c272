// SPDX-License-Identifier: Apache-2.0
// suite_test.c - see suite_test.h.
#include "db/suite_test.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *suite_postgres(void) { return getenv("LATHE_TEST_POSTGRES"); } // before main: no Os yet

void suite_add(Test *t, DbKind kind) {
    if (kind == DB_SQLITE || suite_postgres()) test_add(t);
}

Ctx *suite_ctx(Db *db) {
    Ctx *c = mem_new(sizeof *c);
    ctx_init(c, arena_new(), os_real());
    c->db = db;
    return c;
}

void suite_ctx_free(Ctx *c) {
    arena_free(c->mem);
    mem_free(c);
}

static SQL(schema_drop, "DROP SCHEMA IF EXISTS lathe_test CASCADE");
static SQL(schema_make, "CREATE SCHEMA lathe_test");

static err fresh_schema(Ctx *c, Tx *tx, void *arg) {
    (void)arg;
    TRY(db_run(c, tx, &schema_drop));
    return db_run(c, tx, &schema_make);
}

err suite_database(Ctx *c, DbKind kind, str *out_url) {
    if (kind == DB_SQLITE) {
        *out_url = arena_printf(c->mem, "sqlite:%s/t.db", test_dir());
        return ERR_OK;
    }
    const char *url = suite_postgres();
    Db *admin;
    TRY(db_open(c, &(DbConfig){ .url = str_z(url) }, &admin));
    err e = db_tx(c, admin, fresh_schema, NULL);
    db_close(admin);
    char sep = strchr(url, '?') ? '&' : '?';
    *out_url = arena_printf(c->mem, "%s%coptions=-csearch_path%%3Dlathe_test", url, sep);
    return e;
}

TEST(postgres_is_there_or_skipped) {
    Ctx *c = test_ctx();
    Db *db;
    c->os = os_real();
    if (!suite_postgres()) {
        printf("skipped: all *_postgres (LATHE_TEST_POSTGRES is not set: test/postgres-run)\n");
        return;
    }
    CHECK_OK(c, db_open(c, &(DbConfig){ .url = str_z(suite_postgres()) }, &db));
    CHECK_OK(c, db_check(c, db));
    db_close(db);
}
