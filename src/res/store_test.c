// SPDX-License-Identifier: Apache-2.0
// store_test.c - rows in a database of either kind: what is stored reads back, every write is under
// its tenant, leaves one audit row and one event or nothing at all, references hold, secrets are
// sealed, and two writers of one row do not lose each other's change.
#include "res/toy_test.h"
#include "base/id.h"

static int64_t notes(ToyFix *f, const char *verb) {
    return toy_count(f, "SELECT COUNT(*) FROM toy_note WHERE verb = $1", verb);
}
static int64_t events(ToyFix *f, const char *kind) {
    return toy_count(f, "SELECT COUNT(*) FROM outbox WHERE kind = $1", kind);
}

static Toy *full_toy(ToyFix *f, const char *name, str box) {
    Toy *t = toy_new(f, name);
    ToyPart *parts = new (f->c->mem, ToyPart, 2);
    str *tags = new (f->c->mem, str, 2);
    parts[0] = (ToyPart){ S("wheel"), box, 2 }, parts[1] = (ToyPart){ S("axle"), { 0 }, 1 };
    tags[0] = S("a"), tags[1] = S("b");
    t->title = S("Title"), t->shelf = S("left"), t->count = 7, t->due = 1900000000000;
    t->cost = 1, t->ratio = 0.1, t->on = true, t->colour = 2, t->box = box;
    t->size = (ToySize){ 3, 4, S("1234") }, t->parts = parts, t->parts_n = 2, t->tags = tags;
    t->tags_n = 2, t->source = (ToySource){ .kind = SOURCE_URL, .url = S("u"), .retries = 1 };
    t->pass = S("open sesame"), t->extra = S("{\"k\":[1]}");
    return t;
}

static bool make_box(ToyFix *f, const char *name, str *out) {
    ToyBox *b = row_new(f->c, table_of(&toy_box));
    b->head.name = str_z(name);
    err e = toy_create(f, &toy_box, b);
    *out = b->head.id;
    return !e;
}

TOY_TEST(store_reads_back_every_type) {
    str box;
    CHECK(make_box(f, "box", &box));
    Toy *t = full_toy(f, "one", box), *got = toy_new(f, NULL);
    CHECK_OK(f->c, toy_create(f, &toy, t));
    CHECK_OK(f->c, toy_get(f, &toy, t->head.id, got));
    t->ticket = (str){ 0 }; // shown once, never stored
    CHECK(fields_equal(table_of(&toy)->rows, t, got, false));
    CHECK_INT(got->total, 21); // the hook's
    CHECK_STR(got->head.created_by, "u_1");
    CHECK_STR(got->head.project, "p1");
    CHECK_INT(got->head.revision, 1);
    CHECK(got->head.created_at > 0 && got->head.created_at == got->head.updated_at);
    CHECK(id_valid(got->head.id, "toy"));
    CHECK_OK(f->c, toy_get(f, &toy, S("one"), got)); // by name
    Toy *bare = toy_new(f, "bare");
    CHECK_OK(f->c, toy_create(f, &toy, bare));
    CHECK_OK(f->c, toy_get(f, &toy, S("bare"), got));
    bare->ticket = (str){ 0 };
    CHECK(fields_equal(table_of(&toy)->rows, bare, got, false));
}

TOY_TEST(store_tenants_do_not_meet) {
    Toy *t = toy_new(f, "mine"), *got = toy_new(f, NULL), *now = toy_new(f, NULL);
    CHECK_OK(f->c, toy_create(f, &toy, t));
    CHECK_OK(f->c, toy_get(f, &toy, t->head.id, got));
    fields_copy(f->c->mem, table_of(&toy)->rows, got, now);
    now->title = S("theirs");
    toy_enter(f, "o1", "p2");
    CHECK_ERR(toy_get(f, &toy, t->head.id, toy_new(f, NULL)), ERR_NOTFOUND);
    CHECK_ERR(toy_get(f, &toy, S("mine"), toy_new(f, NULL)), ERR_NOTFOUND);
    CHECK_ERR(toy_update(f, &toy, got, now), ERR_CONFLICT);  // no row of theirs has this revision
    CHECK_OK(f->c, toy_create(f, &toy, toy_new(f, "mine"))); // a name is a project's own
    toy_enter(f, "o1", NULL);
    CHECK_ERR(toy_get(f, &toy, t->head.id, toy_new(f, NULL)), ERR_INVALID);
    CHECK(!strcmp(toy_reason(f), "project_required"));
    toy_enter(f, "o1", "p1");
    CHECK_OK(f->c, toy_get(f, &toy, t->head.id, got));
    CHECK(!got->title.p);
}

TOY_TEST(store_names_are_taken_once) {
    CHECK_OK(f->c, toy_create(f, &toy, toy_new(f, "one")));
    CHECK_ERR(toy_create(f, &toy, toy_new(f, "one")), ERR_CONFLICT);
    CHECK(!strcmp(toy_reason(f), "name_taken"));
    CHECK(!strcmp(toy_param(f, "field"), "name") && !strcmp(toy_param(f, "value"), "one"));
    CHECK_INT(toy_count(f, "SELECT COUNT(*) FROM toys", NULL), 1);
}

TOY_TEST(store_every_write_is_audited_and_told_once) {
    Toy *t = toy_new(f, "one"), *now = toy_new(f, NULL);
    CHECK_OK(f->c, toy_create(f, &toy, t));
    CHECK_INT(notes(f, "create"), 1);
    CHECK_INT(events(f, "toy.created"), 1);
    CHECK_INT(notes(f, "stage+"), 1);
    fields_copy(f->c->mem, table_of(&toy)->rows, t, now);
    CHECK_OK(f->c, toy_update(f, &toy, t, now)); // the same: nothing happens
    CHECK_INT(notes(f, "update"), 0);
    now->count = 9;
    CHECK_OK(f->c, toy_update(f, &toy, t, now));
    CHECK_INT(now->head.revision, 2);
    CHECK_INT(notes(f, "update"), 1);
    CHECK_INT(events(f, "toy.updated"), 1);
    CHECK_OK(f->c, toy_delete(f, &toy, "one"));
    CHECK_INT(notes(f, "delete"), 1);
    CHECK_INT(events(f, "toy.deleted"), 1);
    CHECK_INT(notes(f, "stage-"), 1);
    CHECK_ERR(toy_delete(f, &toy, "one"), ERR_NOTFOUND);
}

TOY_TEST(store_a_refused_write_leaves_nothing) {
    Toy *t = toy_new(f, "one");
    t->title = S("forbidden"); // by the hook, after the row's own checks
    CHECK_ERR(toy_create(f, &toy, t), ERR_CONFLICT);
    t->title = S("far too long a title");
    CHECK_ERR(toy_create(f, &toy, t), ERR_INVALID);
    CHECK_INT(toy_count(f, "SELECT COUNT(*) FROM toys", NULL), 0);
    CHECK_INT(toy_count(f, "SELECT COUNT(*) FROM toy_note", NULL), 0);
    CHECK_INT(toy_count(f, "SELECT COUNT(*) FROM outbox", NULL), 0);
}

TOY_TEST(store_update_of_an_old_row_is_refused) {
    Toy *a = toy_new(f, "one"), *b = toy_new(f, NULL), *d = toy_new(f, NULL);
    CHECK_OK(f->c, toy_create(f, &toy, a));
    fields_copy(f->c->mem, table_of(&toy)->rows, a, b);
    fields_copy(f->c->mem, table_of(&toy)->rows, a, d);
    b->count = 8, d->count = 9;
    CHECK_OK(f->c, toy_update(f, &toy, a, b));
    CHECK_ERR(toy_update(f, &toy, a, d), ERR_CONFLICT);
    CHECK(!strcmp(toy_reason(f), "revision_changed"));
    CHECK_OK(f->c, toy_get(f, &toy, S("one"), d));
    CHECK_INT(d->count, 8);
}

// ---- secrets

TOY_TEST(store_secrets_are_sealed_and_stay_so) {
    Toy *t = toy_new(f, "one"), *now = toy_new(f, NULL), *got = toy_new(f, NULL);
    t->pass = S("abc"), t->size = (ToySize){ 1, 2, S("xyz") };
    CHECK_OK(f->c, toy_create(f, &toy, t));
    CHECK_OK(f->c, toy_get(f, &toy, S("one"), got));
    CHECK_STR(got->pass, "\1cba");
    CHECK_STR(got->size.pin, "\1zyx");
    fields_copy(f->c->mem, table_of(&toy)->rows, got, now);
    now->count = 9; // sealed once: a change of something else leaves it
    CHECK_OK(f->c, toy_update(f, &toy, got, now));
    CHECK_OK(f->c, toy_get(f, &toy, S("one"), got));
    CHECK_STR(got->pass, "\1cba");
    fields_copy(f->c->mem, table_of(&toy)->rows, got, now);
    now->pass = S("new");
    CHECK_OK(f->c, toy_update(f, &toy, got, now));
    CHECK_OK(f->c, toy_get(f, &toy, S("one"), got));
    CHECK_STR(got->pass, "\1wen");
    CHECK_INT(toy_count(f, "SELECT COUNT(*) FROM toy_note WHERE subject LIKE $1", "%abc%"), 0);
    CHECK_INT(toy_count(f, "SELECT COUNT(*) FROM toy_note WHERE subject LIKE $1", "%cba%"), 0);
    CHECK_INT(toy_count(f, "SELECT COUNT(*) FROM toy_note WHERE subject LIKE $1", "%********%"), 2);
}

// ---- references

TOY_TEST(store_references_become_ids) {
    str box;
    CHECK(make_box(f, "box", &box));
    Toy *t = full_toy(f, "one", S("box")), *got = toy_new(f, NULL);
    CHECK_OK(f->c, toy_create(f, &toy, t));
    CHECK_OK(f->c, toy_get(f, &toy, S("one"), got));
    CHECK(str_eq(got->box, box) && str_eq(got->parts[0].box, box));
    CHECK_INT(toy_count(f, "SELECT COUNT(*) FROM ref WHERE target_id = $1", say_str(f->c, box)), 2);
    t = full_toy(f, "two", S("nothing"));
    CHECK_ERR(toy_create(f, &toy, t), ERR_INVALID);
    CHECK(!strcmp(toy_reason(f), "field_reference") && !strcmp(toy_param(f, "field"), "box"));
    t->box = box, t->parts[0].box = S("box_01aryz6s41tsv4rrffq69g5fav");
    CHECK_ERR(toy_create(f, &toy, t), ERR_INVALID);
    CHECK(!strcmp(toy_param(f, "field"), "parts[0].box"));
    toy_enter(f, "o2", "p9"); // another organisation's box is none
    t->parts[0].box = (str){ 0 };
    CHECK_ERR(toy_create(f, &toy, t), ERR_INVALID);
}

TOY_TEST(store_delete_honours_the_rules) {
    str box;
    CHECK(make_box(f, "box", &box));
    Toy *t = toy_new(f, "one"), *twin = toy_new(f, "twin");
    t->box = box;
    CHECK_OK(f->c, toy_create(f, &toy, t));
    twin->twin = t->head.id;
    CHECK_OK(f->c, toy_create(f, &toy, twin));
    Robot *r = row_new(f->c, table_of(&robot));
    r->head.name = S("rob"), r->toy = S("one");
    CHECK_OK(f->c, toy_create(f, &robot, r));
    CHECK_ERR(toy_delete(f, &toy_box, "box"), ERR_CONFLICT); // RESTRICT
    CHECK(!strcmp(toy_reason(f), "in_use") && !strcmp(toy_param(f, "user"), "one"));
    toy_enter(f, "o1", "p2"); // from a place where the user is not seen, too
    CHECK_ERR(toy_delete(f, &toy_box, "box"), ERR_CONFLICT);
    toy_enter(f, "o1", NULL);
    CHECK_ERR(toy_delete(f, &toy_box, "box"), ERR_CONFLICT);
    toy_enter(f, "o1", "p1");
    CHECK_OK(f->c, toy_delete(f, &toy, "one")); // CASCADE takes the twin, SOFT leaves the robot
    CHECK_INT(toy_count(f, "SELECT COUNT(*) FROM toys", NULL), 0);
    CHECK_INT(notes(f, "delete"), 2);
    CHECK_OK(f->c, toy_get(f, &robot, S("rob"), r));
    CHECK(str_eq(r->toy, t->head.id));
    Robot *now = row_new(f->c, table_of(&robot)); // which may go on though what it names is gone
    fields_copy(f->c->mem, table_of(&robot)->rows, r, now);
    now->wish = 3;
    CHECK_OK(f->c, toy_update(f, &robot, r, now));
    CHECK_OK(f->c, toy_delete(f, &toy_box, "box"));
    CHECK_INT(toy_count(f, "SELECT COUNT(*) FROM ref WHERE owner_kind = $1", "toy"), 0);
}

TOY_TEST(store_cascade_takes_any_number_and_ends_in_circles) {
    Toy *first = toy_new(f, "first"), *now = toy_new(f, NULL);
    CHECK_OK(f->c, toy_create(f, &toy, first));
    enum { MANY = LIST_MAX + 30 }; // more than any page of users
    for (int i = 0; i < MANY; i++) {
        Toy *t = toy_new(f, say(f->c, "t%d", i));
        t->twin = first->head.id;
        CHECK_OK(f->c, toy_create(f, &toy, t));
    }
    fields_copy(f->c->mem, table_of(&toy)->rows, first, now);
    now->twin = S("t7"); // which refers back
    CHECK_OK(f->c, toy_update(f, &toy, first, now));
    CHECK_OK(f->c, toy_delete(f, &toy, "first"));
    CHECK_INT(toy_count(f, "SELECT COUNT(*) FROM toys", NULL), 0);
    CHECK_INT(toy_count(f, "SELECT COUNT(*) FROM ref", NULL), 0);
    CHECK_INT(notes(f, "delete"), MANY + 1);
}

// A reference that may dangle holds what it was, and takes nothing new that is not there.
TOY_TEST(store_soft_references_are_no_way_out) {
    Toy *far = toy_new(f, "far"), *near = toy_new(f, "near");
    toy_enter(f, "o2", "p9");
    CHECK_OK(f->c, toy_create(f, &toy, far));
    toy_enter(f, "o1", "p1");
    CHECK_OK(f->c, toy_create(f, &toy, near));
    Robot *r = row_new(f->c, table_of(&robot)), *now = row_new(f->c, table_of(&robot));
    r->head.name = S("rob"), r->toy = S("near");
    CHECK_OK(f->c, toy_create(f, &robot, r));
    const str ids[] = { far->head.id, S("toy_01aryz6s41tsv4rrffq69g5fav") };
    for (size_t i = 0; i < countof(ids); i++) {
        fields_copy(f->c->mem, table_of(&robot)->rows, r, now);
        now->toy = ids[i];
        CHECK_ERR(toy_update(f, &robot, r, now), ERR_INVALID);
        CHECK(!strcmp(toy_reason(f), "field_reference") && !strcmp(toy_param(f, "field"), "toy"));
    }
    CHECK_OK(f->c, toy_delete(f, &toy, "near")); // what is gone stays written, but is not put back
    fields_copy(f->c->mem, table_of(&robot)->rows, r, now);
    now->wish = 1;
    CHECK_OK(f->c, toy_update(f, &robot, r, now));
    fields_copy(f->c->mem, table_of(&robot)->rows, now, r);
    now->toy = (str){ 0 };
    CHECK_OK(f->c, toy_update(f, &robot, r, now));
    fields_copy(f->c->mem, table_of(&robot)->rows, now, r);
    now->toy = near->head.id;
    CHECK_ERR(toy_update(f, &robot, r, now), ERR_INVALID);
}

TOY_TEST(store_names_are_no_ids) {
    Toy *t = toy_new(f, "one");
    CHECK_OK(f->c, toy_create(f, &toy, t));
    CHECK_ERR(toy_create(f, &toy, toy_new(f, say_str(f->c, t->head.id))), ERR_INVALID);
    CHECK(!strcmp(toy_reason(f), "field_name_id"));
    CHECK_ERR(toy_create(f, &toy, toy_new(f, say_str(f->c, os_id(f->c, "toy")))), ERR_INVALID);
    CHECK_OK(f->c, toy_create(f, &toy, toy_new(f, say_str(f->c, os_id(f->c, "box")))));
}

// ---- reconciled

static err status_tx(Ctx *c, Tx *tx, void *arg) {
    void **a = arg;
    return res_set_status(c, tx, &robot, a[0], a[1]);
}
static err set_status(ToyFix *f, Robot *r, const Lease *l) {
    void *args[] = { r, (void *)(uintptr_t)l };
    return db_tx(f->c, f->app.db, status_tx, args);
}

TOY_TEST(store_status_and_wish_do_not_overwrite_each_other) {
    Robot *r = row_new(f->c, table_of(&robot)), *seen = row_new(f->c, table_of(&robot));
    Robot *now = row_new(f->c, table_of(&robot));
    r->head.name = S("rob");
    CHECK_OK(f->c, toy_create(f, &robot, r));
    CHECK_OK(f->c, toy_get(f, &robot, S("rob"), seen)); // the reconciler's copy
    fields_copy(f->c->mem, table_of(&robot)->rows, r, now);
    now->wish = 5;
    CHECK_OK(f->c, toy_update(f, &robot, r, now));
    CHECK_INT(now->head.generation, 2);
    seen->seen = 4, seen->wish = 9, seen->head.observed_generation = 1; // of an older wish
    CHECK(condition_set(f->c, &seen->head, "ready", true, "ok", "fine"));
    CHECK(!condition_set(f->c, &seen->head, "ready", true, "ok", "fine"));
    CHECK_OK(f->c, set_status(f, seen, NULL));
    CHECK_OK(f->c, toy_get(f, &robot, S("rob"), r));
    CHECK_INT(r->wish, 5); // a user's
    CHECK_INT(r->seen, 4); // the system's
    CHECK_INT(r->head.generation, 2);
    CHECK_INT(r->head.observed_generation, 1);
    CHECK_INT(r->head.revision, 2);
    CHECK_INT(r->head.conditions_n, 1);
    CHECK_STR(r->head.conditions[0].message, "fine");
    CHECK_INT(events(f, "robot.status"), 1);
    CHECK_INT(notes(f, "update"), 1); // no audit row for a status
}

TOY_TEST(store_status_needs_the_lease) {
    Robot *r = row_new(f->c, table_of(&robot));
    Lease mine, theirs;
    r->head.name = S("rob");
    CHECK_OK(f->c, toy_create(f, &robot, r));
    CHECK_OK(f->c, lease_take(f->c, f->app.db, S("robots"), S("me"), 60000, &mine));
    r->seen = 1;
    CHECK_OK(f->c, set_status(f, r, &mine));
    CHECK_OK(f->c, lease_drop(f->c, f->app.db, &mine));
    CHECK_OK(f->c, lease_take(f->c, f->app.db, S("robots"), S("you"), 60000, &theirs));
    r->seen = 2;
    CHECK_ERR(set_status(f, r, &mine), ERR_LOST);
    Lease again; // the same node takes it back: what its earlier life began is lost all the same
    CHECK_OK(f->c, lease_drop(f->c, f->app.db, &theirs));
    CHECK_OK(f->c, lease_take(f->c, f->app.db, S("robots"), S("me"), 60000, &again));
    CHECK(again.epoch > mine.epoch);
    CHECK_ERR(set_status(f, r, &mine), ERR_LOST);
    CHECK_OK(f->c, toy_get(f, &robot, S("rob"), r));
    CHECK_INT(r->seen, 1);
}

TOY_TEST(store_delete_of_a_reconciled_one_waits_for_it) {
    Robot *r = row_new(f->c, table_of(&robot)), *now = row_new(f->c, table_of(&robot));
    r->head.name = S("rob");
    CHECK_OK(f->c, toy_create(f, &robot, r));
    CHECK_OK(f->c, toy_delete(f, &robot, "rob"));
    CHECK_OK(f->c, toy_get(f, &robot, S("rob"), r));
    CHECK(r->head.deleting_at > 0);
    CHECK_INT(r->head.generation, 2);
    CHECK_INT(events(f, "robot.deleting"), 1);
    CHECK_OK(f->c, toy_delete(f, &robot, "rob")); // asked again: nothing more happens
    CHECK_INT(notes(f, "delete"), 1);
    fields_copy(f->c->mem, table_of(&robot)->rows, r, now);
    now->wish = 1;
    CHECK_ERR(toy_update(f, &robot, r, now), ERR_CONFLICT);
    CHECK(!strcmp(toy_reason(f), "deleting"));
    CHECK_OK(f->c, toy_purge(f, &robot, "rob"));
    CHECK_ERR(toy_get(f, &robot, S("rob"), r), ERR_NOTFOUND);
    CHECK_INT(events(f, "robot.deleted"), 1);
    CHECK_INT(notes(f, "delete"), 1);
}

TOY_TEST(store_columns_are_as_the_rows) {
    for (size_t i = 0; i < tables_count(); i++) {
        const ResTable *t = table_at(i);
        Column *columns;
        size_t n;
        CHECK_OK(f->c, db_columns(f->c, f->app.db, t->r->plural, &columns, &n));
        CHECK_INT(n, t->rows_n);
        for (size_t k = 0; k < n; k++) CHECK(field_find(t->rows, columns[k].name));
    }
}
