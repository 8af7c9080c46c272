// SPDX-License-Identifier: Apache-2.0
// route.c - what a route must be, and the order in which one request asks its targets.
// Threads: hooks on workers; route_order on loops.
#include "mod/route/route_own.h"
#include <assert.h>

REASONS_DEFINE(ROUTE_REASONS, route_reasons)

// ---- a route that is written
static err check_targets(Ctx *c, const RouteRow *r) {
    int64_t weight = 0;
    for (size_t i = 0; i < r->targets_n; i++) {
        weight += r->targets[i].weight;
        for (size_t k = 0; k < i; k++)
            if (str_eq(r->targets[i].deployment, r->targets[k].deployment))
                return fail(c, ERR_INVALID, R_ROUTE_TWICE, "field",
                            say(c, "targets[%zu].deployment", i), "name",
                            say_str(c, r->targets[i].deployment));
    }
    return r->strategy == STRATEGY_WEIGHTED && !weight
               ? fail(c, ERR_INVALID, R_ROUTE_WEIGHTLESS, "field", "targets")
               : ERR_OK;
}

// Whoever publishes a name has it for the whole organisation.
static err check_published(Ctx *c, Tx *tx, const RouteRow *r) {
    static SQL(
        other,
        "SELECT project FROM routes WHERE org = $1 AND name = $2 AND published = 1 AND id <> $3");
    Rows *rows;
    bool more;
    if (!r->published) return ERR_OK;
    TRY(db_ask(c, tx, &rows, &other, V(c->org), V(r->head.name), V(r->head.id)));
    TRY(rows_next(c, rows, &more));
    str project = more ? arena_str(c->mem, col_str(rows, 0)) : (str){ 0 };
    rows_close(rows);
    return more ? fail(c, ERR_CONFLICT, R_ROUTE_PUBLISHED, "field", "published", "project",
                       say_str(c, project), "name", say_str(c, r->head.name))
                : ERR_OK;
}

err route_check(Ctx *c, Tx *tx, const void *old, void *now) {
    (void)old;
    if (!now) return ERR_OK;
    TRY(check_targets(c, now));
    return check_published(c, tx, now);
}

// ---- one request's order
static uint64_t next(
    uint64_t *dice) { // splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom numbers")
    uint64_t z = (*dice += 0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

// Of those from `at` on, one by its weight; the first where none has any.
static size_t draw(const RouteEntry *r, const size_t *order, size_t at, uint64_t *dice) {
    uint64_t sum = 0;
    for (size_t i = at; i < r->targets_n; i++) sum += (uint64_t)r->targets[order[i]].weight;
    if (!sum) return at;
    uint64_t left = next(dice) % sum;
    for (size_t i = at; i < r->targets_n; i++) {
        uint64_t weight = (uint64_t)r->targets[order[i]].weight;
        if (left < weight) return i;
        left -= weight;
    }
    return at;
}

size_t route_order(const RouteEntry *r, uint64_t dice, size_t out[ROUTE_TARGETS_MAX]) {
    assert(r->targets_n <= ROUTE_TARGETS_MAX);
    for (size_t i = 0; i < r->targets_n; i++) out[i] = i;
    if (r->strategy != STRATEGY_WEIGHTED) return r->targets_n;
    for (size_t i = 0; i < r->targets_n; i++) {
        size_t found = draw(r, out, i, &dice), index = out[found];
        for (; found > i; found--) out[found] = out[found - 1];
        out[i] = index;
    }
    return r->targets_n;
}

err route_init(Ctx *c) {
    (void)c;
    snapshot_part(&route_part);
    return ERR_OK;
}
