// SPDX-License-Identifier: Apache-2.0
// trim_test.c - old rows go oldest first, a bounded number in each transaction, and stay gone
// whatever happens to the rest.
#include "res/trim.h"
#include "res/toy_test.h"

enum { OLD = 3 * TRIM_ROWS + 7, YOUNG = 20, SAME = TRIM_ROWS + 50 };

static err fill_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(fill, "INSERT INTO trimmed (place, at, name) VALUES ($1, $2, $3)");
    (void)arg;
    for (int64_t i = 0; i < OLD + YOUNG; i++) {
        const char *place = i % 3 ? "a" : "b";
        TRY(db_run(c, tx, &fill, V(place), V(1000 + i), V(say(c, "n%06d", (int)i))));
    }
    for (int i = 0; i < SAME; i++) TRY(db_run(c, tx, &fill, V("same"), V(7), V("n")));
    return ERR_OK;
}

static void fill(ToyFix *f) {
    static const Migration table[] = {
        { 1,
          "CREATE TABLE trimmed (place TEXT NOT NULL, at BIGINT NOT NULL, name TEXT NOT NULL);"
          "CREATE INDEX trimmed_at ON trimmed (at);"
          "CREATE INDEX trimmed_place ON trimmed (place, name)",
          NULL },
    };
    CHECK_OK(f->c, db_migrate(f->c, f->app.db, "trimmed", table, 1));
    CHECK_OK(f->c, db_tx(f->c, f->app.db, fill_tx, NULL));
}

TOY_TEST(trim_removes_the_oldest_first_and_keeps_what_it_did) {
    static const TrimTable all = { "trimmed", "at", NULL };
    TrimBelow below = { .before = V((int64_t)(1000 + OLD)) };
    int64_t removed = 0;
    bool more;
    fill(f);
    CHECK_OK(f->c, trim_some(f->c, f->app.db, &all, &below, &removed, &more));
    CHECK(more && removed == SAME); // of one value all
    for (int i = 1; i <= 3; i++) {  // each is done, whatever becomes of the next
        CHECK_OK(f->c, trim_some(f->c, f->app.db, &all, &below, &removed, &more));
        CHECK(more && removed == SAME + i * TRIM_ROWS);
        CHECK_INT(toy_count(f, "SELECT MIN(at) FROM trimmed", NULL), 1000 + i * TRIM_ROWS);
    }
    ctx_cancel(f->c);
    CHECK_ERR(trim_rows(f->c, f->app.db, &all, &below, &removed), ERR_CANCELLED);
    atomic_store(&f->c->cancelled, false);
    CHECK_INT(removed, SAME + 3 * TRIM_ROWS);
    CHECK_OK(f->c, trim_rows(f->c, f->app.db, &all, &below, &removed));
    CHECK_INT(removed, SAME + OLD);
    CHECK_INT(toy_count(f, "SELECT count(*) FROM trimmed", NULL), YOUNG);
    CHECK_OK(f->c, trim_rows(f->c, f->app.db, &all, &below, &removed)); // nothing is left to do
    CHECK_INT(removed, SAME + OLD);
}

TOY_TEST(trim_of_one_place_leaves_the_others) {
    static const TrimTable of_place = { "trimmed", "name", "place" };
    TrimBelow below = { V(say(f->c, "n%06d", OLD)), V("a") };
    int64_t removed = 0, others = 0;
    fill(f);
    for (int64_t i = 0; i < OLD + YOUNG; i++) others += i % 3 == 0;
    CHECK_OK(f->c, trim_rows(f->c, f->app.db, &of_place, &below, &removed));
    CHECK_INT(toy_count(f, "SELECT count(*) FROM trimmed WHERE place = 'b'", NULL), others);
    CHECK_INT(toy_count(f, "SELECT count(*) FROM trimmed WHERE place = 'same'", NULL), SAME);
    CHECK_INT(toy_count(f, "SELECT count(*) FROM trimmed WHERE place = 'a'", NULL),
              OLD + YOUNG - others - removed);
    CHECK(removed > 2 * TRIM_ROWS);
}
