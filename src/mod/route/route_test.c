// SPDX-License-Identifier: Apache-2.0
// route_test.c - the order in which a request asks a route's targets.
#include "base/test.h"
#include "mod/route/route.h"

static RouteEntry route_of(RouteTarget *targets, size_t n, Strategy strategy) {
    return (RouteEntry){ .strategy = strategy, .targets = targets, .targets_n = n };
}

TEST(route_order_asks_each_target_once) {
    RouteTarget targets[ROUTE_TARGETS_MAX];
    size_t order[ROUTE_TARGETS_MAX];
    for (uint64_t dice = 0; dice < 2000; dice++) {
        size_t n = 1 + dice % ROUTE_TARGETS_MAX;
        for (size_t i = 0; i < n; i++)
            targets[i] = (RouteTarget){ .weight = (int64_t)((dice >> i) % 7) };
        RouteEntry r = route_of(targets, n, STRATEGY_WEIGHTED);
        unsigned seen = 0;
        bool weightless = false;
        CHECK_INT(route_order(&r, dice, order), n);
        for (size_t i = 0; i < n; i++) {
            seen |= 1u << order[i];
            // those without weight come last
            CHECK(!weightless || !targets[order[i]].weight);
            weightless |= !targets[order[i]].weight;
        }
        CHECK_INT(seen, (1u << n) - 1);
    }
}

TEST(route_order_is_the_requests_own) {
    RouteTarget targets[] = { { .weight = 5 }, { .weight = 3 }, { .weight = 2 } };
    RouteEntry r = route_of(targets, 3, STRATEGY_WEIGHTED);
    size_t first[3] = { 0 }, a[ROUTE_TARGETS_MAX], b[ROUTE_TARGETS_MAX];
    enum { N = 100000 };
    for (uint64_t dice = 0; dice < N; dice++) {
        route_order(&r, dice * 0x9e3779b97f4a7c15, a);
        route_order(&r, dice * 0x9e3779b97f4a7c15, b);
        CHECK(!memcmp(a, b, 3 * sizeof *a));
        first[a[0]]++;
    }
    for (size_t i = 0; i < 3; i++) { // within five standard deviations of its share
        int64_t want = N / 10 * targets[i].weight, off = (int64_t)first[i] - want;
        CHECK(off * off < 25 * want);
    }
}

TEST(route_order_as_they_stand) {
    RouteTarget targets[] = { { .weight = 0 }, { .weight = 9 } };
    RouteEntry r = route_of(targets, 2, STRATEGY_ORDERED);
    size_t order[ROUTE_TARGETS_MAX];
    CHECK_INT(route_order(&r, 7, order), 2);
    CHECK(order[0] == 0 && order[1] == 1);
}
