// SPDX-License-Identifier: Apache-2.0
// ledger_test.c - what no honest engine says and no sane price makes of it is folded all the same:
// the ledger is everybody's, and a batch that cannot be committed would be tried for ever.
#include "mod/usage/usage_own.h"
#include "res/toy_test.h"

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
