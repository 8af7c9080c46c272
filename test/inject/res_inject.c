// SPDX-License-Identifier: Apache-2.0
// res_inject.c - a resource is made, changed and listed while calls and allocations fail: whole,
// with its references and its audit entries, or not at all.
#include "inject.h"
#include "res/toy_test.h"

static void one_resource(ToyFix *f) {
    Ctx *c = f->c;
    Toy *t = toy_new(f, "one"), got;
    void *rows;
    size_t n = 0;
    str next;
    t->title = S("first");
    inject_on();
    err made = toy_create(f, &toy, t);
    CHECK_TOLERABLE(c, made);
    const Reason *why = c->failure.why;
    Toy changed = *t;
    changed.title = S("second");
    err patched = made ? ERR_INTERNAL : toy_update(f, &toy, t, &changed);
    if (!made) CHECK_TOLERABLE(c, patched);
    bool unclear = !made && patched && c->failure.why == &R_DB_UNKNOWN;
    err listed = toy_list(f, &toy, &(ListSpec){ .limit = 10 }, &rows, &n, &next);
    CHECK_TOLERABLE(c, listed);
    if (!listed && !made) CHECK_INT(n, 1);
    inject_off();
    bool unknown = made && why == &R_DB_UNKNOWN;
    CHECK_COMES_BACK(c, db_check(c, f->app.db));
    int64_t there = toy_count(f, "SELECT COUNT(*) FROM toys", NULL);
    if (!unknown) CHECK_INT(there, made ? 0 : 1);
    if (!there) CHECK_OK(c, toy_create(f, &toy, t = toy_new(f, "one")));
    CHECK_OK(c, toy_get(f, &toy, t->head.id, &got));
    bool second = str_is(got.title, "second"); // what is told of it goes with it
    if (!unclear) CHECK(second == !patched);
    if (!unknown) CHECK_INT(toy_count(f, "SELECT COUNT(*) FROM outbox", NULL), 1 + second);
}
INJECT(resource_on_sqlite) { toy_run(DB_SQLITE, one_resource); }
INJECT(resource_on_postgres) {
    if (getenv("LATHE_TEST_POSTGRES")) toy_run(DB_POSTGRES, one_resource);
}
