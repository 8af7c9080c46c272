// SPDX-License-Identifier: Apache-2.0
// price_row.c - prices as rows: which of several for one model is asked, and that those of an
// organisation have one currency, for its limits of money are sums. What a request costs is
// price.c's. Threads: within the caller's transaction.
#include "mod/usage/usage_own.h"
#include "res/advice.h"

// ---- one currency
static err check_code(Ctx *c, str code) {
    bool fine = code.n == 3;
    for (size_t i = 0; i < code.n; i++) fine &= code.p[i] >= 'A' && code.p[i] <= 'Z';
    return fine ? ERR_OK
                : fail(c, ERR_INVALID, R_PRICE_CODE, "field", "currency", "got", say_str(c, code));
}

static err check_currency(Ctx *c, Tx *tx, const PriceRow *p) {
    static SQL(other, "SELECT name, currency FROM prices WHERE org = $1 AND id <> $2 AND currency "
                      "<> $3 ORDER BY id LIMIT 1");
    Rows *rows;
    bool any;
    TRY(check_code(c, p->currency));
    TRY(db_ask(c, tx, &rows, &other, V(p->head.org), V(p->head.id), V(p->currency)));
    TRY(rows_next(c, rows, &any));
    if (!any) return ERR_OK;
    err e = fail(c, ERR_INVALID, R_PRICE_CURRENCY, "field", "currency", "price",
                 say_str(c, col_str(rows, 0)), "currency", say_str(c, col_str(rows, 1)));
    rows_close(rows);
    return e;
}

// ---- the newest counts: ids are by time, and the snapshot (price.c) reads them in that order
static err neighbour(Ctx *c, Tx *tx, const Sql *sql, const PriceRow *p, str *out) {
    Rows *rows;
    bool any;
    *out = (str){ 0 };
    str place = p->price_project.n ? p->price_project : S("");
    Val args[] = { V(p->head.org), V(p->model), V(place), V(p->head.id) };
    TRY(db_query(c, tx, sql, args, countof(args), &rows));
    TRY(rows_next(c, rows, &any));
    if (!any) return ERR_OK;
    *out = arena_str(c->mem, col_str(rows, 0));
    rows_close(rows);
    return ERR_OK;
}

#define PRICES_BESIDE                                            \
    "SELECT name FROM prices WHERE org = $1 AND model = $2 AND " \
    "COALESCE(price_project, '') = $3 AND id "
static SQL(price_newer, PRICES_BESIDE "> $4 ORDER BY id DESC LIMIT 1");
static SQL(price_older, PRICES_BESIDE "< $4 ORDER BY id DESC LIMIT 1");

err price_check(Ctx *c, Tx *tx, const void *old, void *now) {
    PriceRow *p = now;
    const PriceRow *was = old;
    str newer;
    if (!p) return ERR_OK;
    if (!was || !str_eq(was->currency, p->currency)) TRY(check_currency(c, tx, p));
    TRY(neighbour(c, tx, &price_newer, p, &newer));
    p->active = !newer.n;
    return ERR_OK;
}

static err choose(Ctx *c, Tx *tx, const PriceRow *p) {
    static SQL(choose_price,
               "UPDATE prices SET active = CASE WHEN id = (SELECT MAX(q.id) FROM prices q WHERE "
               "q.org = $1 AND q.model = $2 AND COALESCE(q.price_project, '') = $3) THEN 1 ELSE 0 "
               "END WHERE org = $1 AND model = $2 AND COALESCE(price_project, '') = $3");
    str place = p->price_project.n ? p->price_project : S("");
    return db_run(c, tx, &choose_price, V(p->head.org), V(p->model), V(place));
}

err price_stage(Ctx *c, Tx *tx, const void *old, const void *now) {
    const PriceRow *was = old, *is = now;
    if (was && (!is || !str_eq(was->model, is->model))) TRY(choose(c, tx, was));
    return is ? choose(c, tx, is) : ERR_OK;
}

err price_advise(Ctx *c, Tx *tx, const Resource *r, const void *now, Advice *out) {
    const PriceRow *p = now;
    str name;
    if (r != &price_resource) return ERR_OK;
    TRY(neighbour(c, tx, p->active ? &price_older : &price_newer, p, &name));
    if (!name.n) return ERR_OK;
    const char *other = say_str(c, name), *model = say_str(c, p->model);
    if (p->active) advice_add(c, out, R_PRICE_REPLACED, "price", other, "model", model);
    else advice_add(c, out, R_PRICE_OLDER, "price", other, "model", model);
    return ERR_OK;
}
