// SPDX-License-Identifier: Apache-2.0
// conformance_list_test.c - every list of every resource is served by an index: its default order,
// each order that its rows allow, with a cursor, and each filter by equality. Both databases are
// asked for their plans. A page must not cost a reading of the whole table, nor a sorting of all
// that matches.
#include "conformance_test.h"

typedef struct Plan {
    Conf *f;
    const ResTable *t;
    const char *what;
    ListSpec spec;
    bool sorts;      // few rows may be sorted: a filter of a log
    const char *bad; // the step that no index serves, and its statement
} Plan;

// The planner's last resorts are made dear, so that they show: PostgreSQL reads and sorts a small
// table whatever its indexes are.
static err dear(Ctx *c, Tx *tx) {
    static const Sql all[] = { { "no_scan", "", "SET LOCAL enable_seqscan = off" },
                               { "no_sort", "", "SET LOCAL enable_sort = off" },
                               { "no_bitmap", "", "SET LOCAL enable_bitmapscan = off" } };
    for (size_t i = 0; i < countof(all) && tx_kind(tx) == DB_POSTGRES; i++)
        TRY(db_exec(c, tx, &all[i], NULL, 0, NULL));
    return ERR_OK;
}

static bool bad_step(const Plan *p, str step) {
    bool scan = str_starts(step, S("SCAN ")) && str_find(step, S("USING")) < 0;
    if (scan || str_find(step, S("Seq Scan")) >= 0) return true;
    bool incremental = str_find(step, S("Incremental Sort")) >= 0; // what is equal, by its id
    bool sort = str_find(step, S("TEMP B-TREE")) >= 0 || str_find(step, S("Sort  (")) >= 0;
    return sort && !incremental && !p->sorts;
}

static err ask_plan(Ctx *c, Tx *tx, void *arg) {
    Plan *p = arg;
    Sql *sql = new (c->mem, Sql, 1);
    ListSql list;
    Rows *rows;
    TRY(dear(c, tx));
    TRY(list_statement(c, tx_kind(tx), p->t->r, &p->spec, &list));
    bool pg = tx_kind(tx) == DB_POSTGRES;
    *sql = (Sql){ "plan", say(c, "%s %s", pg ? "EXPLAIN" : "EXPLAIN QUERY PLAN", list.sql.text),
                  NULL };
    TRY(db_query(c, tx, sql, list.args, list.n, &rows));
    for (bool more;;) {
        TRY(rows_next(c, rows, &more));
        if (!more) return ERR_OK;
        str step = col_str(rows, pg ? 0 : 3);
        if (bad_step(p, step))
            p->bad = say(p->f->c, STR_FMT " of %s", STR_ARG(step), list.sql.text);
    }
}

static void ask(Plan *p) {
    Conf *f = p->f;
    Ctx *c = app_ctx_new(f->app);
    c->org = str_z(f->a.org), c->project = str_z(f->a.project);
    if (db_tx(c, f->app->db, ask_plan, p)) {
        Buf b;
        buf_init(&b, 4096), failure_format(&c->failure, "en", &b);
        COMPLAIN("%s, %s: " STR_FMT, p->t->r->plural, p->what, STR_ARG(buf_str(&b)));
        buf_done(&b);
    }
    app_ctx_free(c);
}

static void look(Plan *p) {
    p->bad = NULL;
    ask(p);
    if (p->bad) COMPLAIN("%s, %s: %s", p->t->r->plural, p->what, p->bad);
}

static Val some_value(const Field *f) {
    switch (f->type) {
    case T_INT:
    case T_MONEY:
    case T_TIME:
    case T_BOOL: return val_int(1);
    case T_REAL: return val_real(1);
    default: return val_z("a");
    }
}

static void look_at_filter(Conf *f, const ResTable *t, const Field *field) {
    Plan p = { .f = f,
               .t = t,
               .what = say(f->c, "filtered by %s", field->name),
               .sorts = t->r->flags & RES_LOG };
    p.spec.filters[p.spec.filters_n++] = (Filter){ field, OP_EQ, some_value(field) };
    look(&p);
}

static void look_at_range(Conf *f, const ResTable *t, const Field *field) {
    Plan p = { .f = f, .t = t, .what = say(f->c, "a range of %s", field->name) };
    p.spec.filters[p.spec.filters_n++] = (Filter){ field, OP_GE, some_value(field) };
    look(&p); // in the default order
    if (!field_sorts(t->r, field)) return;
    p.spec.sort = field, p.what = say(f->c, "a range of %s, sorted by it", field->name);
    look(&p);
}

// sort NULL: the default order.
static void look_at_order(Conf *f, const ResTable *t, const Field *sort) {
    Plan p = { .f = f, .t = t, .spec.sort = sort };
    for (int i = 0; i < 2; i++) {
        p.spec.descending = i;
        p.what = say(f->c, "sorted by %s%s", i ? "-" : "", sort ? sort->name : "nothing");
        look(&p);
    }
}

// The test is not blind.
CONF_TEST(conformance_plans_show_what_no_index_serves) {
    EACH_TABLE(t) {
        if (strcmp(t->r->plural, "secrets")) continue;
        Plan p = { .f = f, .t = t, .what = "", .spec.sort = field_find(t->rows, S("length")) };
        ask(&p);
        CHECK(p.bad);
    }
}

CONF_TEST(conformance_lists_are_served_by_indexes) {
    EACH_TABLE(t) {
        look_at_order(f, t, NULL);
        for (const Field *field = t->rows; field < t->rows + t->rows_n; field++) {
            if (!field_filters(field)) continue;
            look_at_filter(f, t, field);
            if (field->type != T_BOOL && field->type != T_ENUM) look_at_range(f, t, field);
            if (field_sorts(t->r, field)) look_at_order(f, t, field);
        }
    }
}
