// SPDX-License-Identifier: Apache-2.0
// ledger_test.c - what no honest engine says and no sane price makes of it is folded all the same:
// the ledger is everybody's, and a batch that cannot be committed would be tried for ever.
#include "mod/usage/usage_own.h"
#include "base/id.h"
#include "res/toy_test.h"
#include "res/trim.h"

enum { MANY = 700, BATCHES = 4 };

static str settled(Ctx *c, int batch, int i) {
    RequestRecord r = { .request_id = S("req_1"),
                        .org = S("o1"),
                        .project = S("p1"),
                        .model = S("m1"),
                        .key_id = S("key_a"),
                        .currency = S("USD"),
                        .start_ms = 1767225600000,
                        .cost_nano = INT64_MAX,
                        .final = true,
                        .attempt = 1 };
    Buf b;
    buf_init(&b, 1 << 16);
    r.attempt_id = arena_printf(c->mem, "attempt_%d_%d", batch, i);
    bool fits = record_pack(&r, false, &b);
    str s = fits ? arena_str(c->mem, buf_str(&b)) : (str){ 0 };
    buf_done(&b);
    return s;
}

TOY_TEST(ledger_goes_on_behind_unpayable_requests) {
    Ctx *c = f->c;
    const Module *m = &usage_module;
    c->db = f->app.db;
    CHECK_OK(c, db_migrate(c, f->app.db, "usage", m->migrations, (size_t)m->migrations_n));
    for (int k = 0; k < BATCHES; k++) {
        JournalBatch b = { new (c->mem, JournalRecord, MANY), MANY, false };
        for (int i = 0; i < MANY; i++)
            b.records[i] = (JournalRecord){ .kind = USAGE_SETTLE, .bytes = settled(c, k, i) };
        CHECK_OK(c, ledger.batch(c, &b, (JournalPos){ 1, 1, (uint64_t)k + 100 }));
    }
    CHECK_INT(toy_count(f, "SELECT requests FROM usage_day", NULL), MANY * BATCHES);
    CHECK_INT(toy_count(f, "SELECT cost FROM usage_day", NULL), USAGE_SUM_MAX);
    CHECK_INT(toy_count(f, "SELECT at FROM usage_fold", NULL), 100 + BATCHES - 1);
}

// ---- retention: more rows than one transaction takes, of several projects

enum { ROWS_EACH = 2 * TRIM_ROWS + 30, KEPT_EACH = 40 };
static const str tenants[] = { { "p1", 2 }, { "p2", 2 }, { "p3", 2 } };

static err fill_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(usage_fill, "INSERT INTO usage (id, org, project, streamed, tokens_exact, revision, "
                           "created_at, updated_at) VALUES ($1, 'o1', $2, 0, 1, 1, 0, 0)");
    const int64_t *cut_ms = arg;
    for (int i = 0; i < ROWS_EACH + KEPT_EACH; i++) {
        uint8_t number[10] = { (uint8_t)(i >> 8), (uint8_t)i };
        int64_t at_ms = *cut_ms + (i < ROWS_EACH ? -1 - i : i);
        str id = id_format(c->mem, "attempt", at_ms, number);
        for (size_t k = 0; k < countof(tenants); k++)
            TRY(db_run(c, tx, &usage_fill, V(id), V(tenants[k])));
    }
    return ERR_OK;
}

TOY_TEST(usage_retention_takes_every_project_in_batches) {
    Ctx *c = f->c;
    const Module *m = &usage_module;
    int64_t cut_ms = 1767225600000, removed = 0;
    c->db = f->app.db;
    CHECK_OK(c, db_migrate(c, f->app.db, "usage", m->migrations, (size_t)m->migrations_n));
    CHECK_OK(c, db_tx(c, c->db, fill_tx, &cut_ms));
    CHECK_OK(c, usage_trim(c, cut_ms, &removed));
    CHECK_INT(removed, ROWS_EACH * (int)countof(tenants));
    CHECK_INT(toy_count(f, "SELECT count(*) FROM usage", NULL), KEPT_EACH * (int)countof(tenants));
    CHECK_INT(toy_count(f, "SELECT count(*) FROM usage WHERE project = 'p2'", NULL), KEPT_EACH);
}
