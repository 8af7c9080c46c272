// SPDX-License-Identifier: Apache-2.0
// denial_test.c - a flood of refusals for a day of virtual time: few entries, and not one refusal
// that is in none of them; also when the database does not take them for a while.
#include "base/test.h"
#include "mod/audit/audit_own.h"
#include "os/sim.h"
#include <assert.h>

typedef struct Fix {
    Ctx *c;
    App app;
    Sim *sim;
    Loop *loop;
    bool over;
} Fix;

static bool is_over(void *arg) { return ((Fix *)arg)->over; }
static void pass(void *arg) { ((Fix *)arg)->over = true; }

// Virtual time goes on.
static void wait_ms(Fix *f, int64_t ms) {
    Timer *t = timer_new(f->loop, pass, f);
    f->over = false;
    timer_start(t, ms);
    sim_run(f->sim, INT64_MAX, is_over, f);
    timer_free(t);
}

static bool fix_open(Fix *f) {
    *f = (Fix){ .c = test_ctx(), .sim = sim_new(1) };
    f->c->app = &f->app, f->c->os = f->app.os = os_real();
    str url = str_z(say(f->c, "sqlite:%s/a.db", test_dir()));
    if (db_open(f->c, &(DbConfig){ .url = url }, &f->app.db)) return false;
    f->c->db = f->app.db;
    f->c->os = sim_node(f->sim, 0);
    f->loop = loop_new(f->c->os);
    denial_reset();
    return true;
}

static void fix_close(Fix *f) {
    denial_reset();
    db_close(f->app.db);
    loop_free(f->loop);
    sim_free(f->sim);
}

static err sum_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(entries, "SELECT change FROM system_audit_entries");
    int64_t *out = arg, n;
    Rows *rows;
    bool more = true;
    TRY(db_query(c, tx, &entries, NULL, 0, &rows));
    for (;;) {
        yyjson_val *v;
        TRY(rows_next(c, rows, &more));
        if (!more) return ERR_OK;
        TRY(json_parse(c, col_str(rows, 0), &v));
        if (json_get_i64(v, "count", &n)) out[0]++, out[1] += n;
    }
}

// Entries, and the refusals that they count.
static void sum(Fix *f, int64_t out[2]) {
    out[0] = out[1] = 0;
    if (db_read(f->c, f->app.db, sum_tx, out)) out[0] = -1;
}

static err migrate(Fix *f) { return db_migrate(f->c, f->app.db, "audit", audit_migrations, 1); }

TEST(audit_denials_of_a_day_are_few_entries) {
    enum { HOURS = 24, A_SECOND = 3 };
    Fix f;
    int64_t got[2], denied = 0;
    CHECK(fix_open(&f));
    CHECK_OK(f.c, migrate(&f));
    for (int s = 0; s < HOURS * 3600; s++) {
        Arena *own = arena_new(), *kept = f.c->mem;
        f.c->mem = own; // a turn's
        for (int i = 0; i < A_SECOND; i++, denied++) denial_note(f.c, "identify", S("192.0.2.7:1"));
        wait_ms(&f, 1000);
        err e = denial_flush(f.c, false);
        f.c->mem = kept;
        arena_free(own);
        CHECK(!e);
        if (s == 1) sum(&f, got);
    }
    CHECK(got[0] >= 1); // the first was told soon
    sum(&f, got);
    CHECK(got[0] > 1000 && got[0] < 1460 && got[1] <= denied && got[1] >= denied - 61 * A_SECOND);
    CHECK_OK(f.c, denial_flush(f.c, true));
    sum(&f, got);
    CHECK_INT(got[1], denied);
    fix_close(&f);
}

TEST(audit_denials_wait_for_their_database) {
    Fix f;
    int64_t got[2];
    CHECK(fix_open(&f)); // its tables are not there yet
    for (int i = 0; i < 50; i++) {
        denial_note(f.c, i % 2 ? "identify" : "another place", S("x"));
        wait_ms(&f, 1000);
        CHECK(denial_flush(f.c, false) != ERR_OK);
    }
    CHECK_OK(f.c, migrate(&f));
    CHECK_OK(f.c, denial_flush(f.c, false));
    sum(&f, got);
    CHECK_INT(got[0], 2);
    CHECK_INT(got[1], 50);
    fix_close(&f);
}

// Many places at once: those beyond the most are one, and belong to nobody's project.
TEST(audit_denials_of_many_places_are_bounded) {
    enum { PLACES = 3000, MOST = 1000 };
    Fix f;
    int64_t got[2];
    CHECK(fix_open(&f));
    CHECK_OK(f.c, migrate(&f));
    for (int i = 0; i < PLACES; i++) denial_note(f.c, say(f.c, "p%d", i), S("x"));
    CHECK_OK(f.c, denial_flush(f.c, false));
    sum(&f, got);
    CHECK_INT(got[0], MOST + 1);
    CHECK_INT(got[1], PLACES);
    fix_close(&f);
}
