// SPDX-License-Identifier: Apache-2.0
// retain_test.c - one kind of data that cannot be trimmed does not keep the others from it.
#include "res/retain.h"
#include "res/kit.h"
#include "res/toy_test.h"

static int trimmed;
static err cannot(Ctx *c, int64_t before_ms, int64_t *out_removed) {
    (void)before_ms, (void)out_removed;
    return fail(c, ERR_UNAVAILABLE, R_INTERNAL, "why", "its disk is away");
}
static err can(Ctx *c, int64_t before_ms, int64_t *out_removed) {
    (void)c, (void)before_ms;
    *out_removed = 0, trimmed++;
    return ERR_OK;
}

TOY_TEST(retention_goes_on_behind_one_that_fails) {
    static const Setting keep = { "retain.toys", SET_SPAN, "1d", 0, INT64_MAX };
    static const Retention rows[] = {
        { "before", &keep, can, "Before", "之前" },
        { "away", &keep, cannot, "Away", "不可用" },
        { "behind", &keep, can, "Behind", "之后" },
        { 0 },
    };
    static const Module module = { .name = "retained", .retentions = rows };
    static const Module *const modules[] = { &module, NULL };
    const Module *const *before = f->app.modules;
    f->app.modules = modules;
    trimmed = 0;
    err e = retain_run(f->c);
    f->app.modules = before;
    CHECK_ERR(e, ERR_UNAVAILABLE);
    CHECK_STR(failure_param(&f->c->failure, "why"), "its disk is away");
    CHECK_INT(trimmed, 2);
}
