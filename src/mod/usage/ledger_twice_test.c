// SPDX-License-Identifier: Apache-2.0
// ledger_twice_test.c - an attempt that is settled more than once, which would be a fault of ours:
// the first stays, the rest is counted and said, and all else of its batch is folded. Threads: one.
#include "mod/usage/usage_own.h"
#include "base/test.h"
#include "mod/audit/audit.h"
#include <assert.h>
#include <stdio.h>

typedef struct Count {
    int64_t rows, audits, sums;
} Count;

static err count_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(counts, "SELECT (SELECT count(*) FROM usage), (SELECT count(*) FROM "
                       "inference_audits), (SELECT CAST(SUM(requests) AS BIGINT) FROM usage_day)");
    Count *n = arg;
    Rows *rows;
    TRY(db_one(c, tx, &rows, &counts, NULL, 0));
    *n = (Count){ col_int(rows, 0), col_int(rows, 1), col_int(rows, 2) };
    return ERR_OK;
}

static void settle(App *app, int number) {
    char id[40];
    snprintf(id, sizeof id, "attempt_%06d", number);
    RequestRecord r = { .org = S("o"),
                        .project = S("p"),
                        .model = S("m"),
                        .final = true,
                        .attempt = 1,
                        .status = 200,
                        .start_ms = 1767225600000,
                        .end_ms = 1767225600001 };
    r.attempt_id = r.request_id = str_z(id);
    assert(usage_room(app));
    usage_open(app, &r);
    usage_settle(app, &r);
}

static err fold_all(Ctx *c, FoldReader *reader) {
    TRY(journal_flush(c, app_of(c)->journal));
    for (bool more = true; more;) TRY(fold_next(c, reader, 2000, &more));
    return ERR_OK;
}

TEST(usage_ledger_counts_what_is_settled_twice_once) {
    App app = { .os = os_real(), .data_dir = str_z(test_dir()) };
    Ctx *c = app_ctx_new(&app);
    str url = arena_printf(c->mem, "sqlite:%s/t.db", test_dir());
    CHECK_OK(c, db_open(c, &(DbConfig){ .url = url }, &app.db));
    c->db = app.db;
    CHECK_OK(c, db_migrate(c, c->db, "audit", audit_module.migrations, audit_module.migrations_n));
    CHECK_OK(c, db_migrate(c, c->db, "usage", usage_migrations, usage_module.migrations_n));
    CHECK_OK(c, journal_open_sized(c, app.data_dir, 1, 1 << 20, &app.journal));
    FoldReader reader = { .f = &ledger };
    CHECK_OK(c, ledger.position(c, &reader.at));
    usage_view(&usage_audit_view);
    metrics_reset();
    metrics_declare(usage_metrics);
    Count n;
    for (int i = 0; i < 40; i++) settle(&app, i % 35); // five of them again, in one batch
    CHECK_OK(c, fold_all(c, &reader));
    CHECK_OK(c, db_read(c, c->db, count_tx, &n));
    CHECK(n.rows == 35 && n.audits == 35 && n.sums == 35);
    for (int i = 30; i < 60; i++) settle(&app, i); // and five of the batch before
    CHECK_OK(c, fold_all(c, &reader));
    CHECK_OK(c, db_read(c, c->db, count_tx, &n));
    CHECK(n.rows == 60 && n.audits == 60 && n.sums == 60);
    Buf b;
    buf_init(&b, 1 << 20);
    metrics_write(&b);
    CHECK(str_find(buf_str(&b), S("\nlathe_usage_repeated_total 10\n")) >= 0);
    buf_done(&b);
    ledger_close();
    journal_close(app.journal);
    db_close(app.db);
    app_ctx_free(c);
}
