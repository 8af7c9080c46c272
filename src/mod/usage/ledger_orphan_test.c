// SPDX-License-Identifier: Apache-2.0
// ledger_orphan_test.c - attempts that nobody is left to settle: at which price, by whom, and when.
// Threads: one.
#include "mod/usage/usage_own.h"
#include "base/test.h"
#include "mod/audit/audit.h"
#include <assert.h>

typedef struct Place {
    App app;
    Ctx *c;
    FoldReader reader;
} Place;

static void place_open(Place *p) {
    *p = (Place){ .app = { .os = os_real(), .data_dir = str_z(test_dir()) } };
    Ctx *c = p->c = app_ctx_new(&p->app);
    str url = arena_printf(c->mem, "sqlite:%s/t.db", test_dir());
    CHECK_OK(c, db_open(c, &(DbConfig){ .url = url }, &p->app.db));
    c->db = p->app.db;
    CHECK_OK(c, db_migrate(c, c->db, "audit", audit_module.migrations, audit_module.migrations_n));
    CHECK_OK(c, db_migrate(c, c->db, "usage", usage_migrations, usage_module.migrations_n));
    CHECK_OK(c, journal_open_sized(c, p->app.data_dir, 1, 1 << 20, &p->app.journal));
    p->reader = (FoldReader){ .f = &ledger };
    CHECK_OK(c, ledger.position(c, &p->reader.at));
    usage_view(&usage_audit_view);
}

static void place_close(Place *p) {
    ledger_close();
    journal_close(p->app.journal);
    db_close(p->app.db);
    app_ctx_free(p->c);
}

static err do_tx(Ctx *c, Tx *tx, void *arg) {
    Sql sql = { "do", arg, NULL };
    return db_exec(c, tx, &sql, NULL, 0, NULL);
}
static void do_sql(Place *p, const char *sql) {
    CHECK_OK(p->c, db_tx(p->c, p->c->db, do_tx, (void *)(uintptr_t)sql));
}

typedef struct Ask {
    const char *sql;
    int64_t got;
} Ask;
static err ask_tx(Ctx *c, Tx *tx, void *arg) {
    Ask *a = arg;
    Sql sql = { "ask", a->sql, NULL };
    Rows *rows;
    TRY(db_one(c, tx, &rows, &sql, NULL, 0));
    a->got = col_int(rows, 0);
    return ERR_OK;
}
static int64_t number(Place *p, const char *sql) {
    Ask a = { sql, -1 };
    return db_read(p->c, p->c->db, ask_tx, &a) ? -1 : a.got;
}

static RequestRecord attempt(const char *id) {
    return (RequestRecord){ .attempt_id = str_z(id),
                            .request_id = S("req_1"),
                            .org = S("o"),
                            .project = S("p"),
                            .model = S("m"),
                            .attempt = 1,
                            .prompt_tokens = 1000,
                            .completion_tokens = 16,
                            .start_ms = 1767225600000,
                            .end_ms = 1767225600001 };
}

static void fold_all(Place *p) {
    CHECK_OK(p->c, journal_flush(p->c, p->app.journal));
    for (bool more = true; more;) CHECK_OK(p->c, fold_next(p->c, &p->reader, 2000, &more));
}

// As an earlier release wrote it: which price it was, and no more.
static void open_of_old(Place *p, const RequestRecord *r) {
    Buf b;
    buf_init(&b, 8192);
    CHECK(record_pack(r, false, &b));
    JournalEntry e = { .cl = JOURNAL_A, .kind = USAGE_OPEN, .bytes = buf_str(&b) };
    CHECK_OK(p->c, journal_append(p->app.journal, &e));
    buf_done(&b);
}

#define PRICES                                                                                   \
    "INSERT INTO prices (id, name, org, model, currency, input, cached, output, machine_second," \
    " revision, created_at, updated_at) VALUES "                                                 \
    "('price_1', 'a', 'o', 'm', 'USD', 2000000, NULL, 5000000, 0, 1, 0, 0), "                    \
    "('price_2', 'b', 'o', 'n', 'USD', 0, NULL, 0, 0, 1, 0, 0)"

TEST(usage_orphans_cost_what_they_were_asked_at) {
    const Price then = { S("price_1"), S("USD"), 2000000, 2000000, 5000000, 0 },
                nothing = { S("price_2"), S("USD"), 0, 0, 0, 0 };
    Place p;
    place_open(&p);
    do_sql(&p, PRICES);
    RequestRecord dear = attempt("attempt_1"), free = attempt("attempt_2"),
                  old = attempt("attempt_3");
    usage_priced(&dear, &then), usage_priced(&free, &nothing);
    old.price_id = then.id, old.currency = then.currency;
    dear.prompt = dear.answer = S("not kept here");
    CHECK(usage_room(&p.app) && usage_room(&p.app));
    usage_open(&p.app, &dear), usage_open(&p.app, &free);
    open_of_old(&p, &old);
    fold_all(&p);
    do_sql(&p, "UPDATE prices SET input = 9000000, output = 9000000");
    CHECK_OK(p.c, ledger_settle_orphans(p.c));
    CHECK_INT(number(&p, "SELECT count(*) FROM usage"), 3);
    CHECK_INT(number(&p, "SELECT cost FROM usage WHERE id = 'attempt_1'"), 2080);
    CHECK_INT(number(&p, "SELECT cost FROM usage WHERE id = 'attempt_2'"), 0);
    CHECK_INT(number(&p, "SELECT cost FROM usage WHERE id = 'attempt_3'"), 9144);
    place_close(&p);
}
