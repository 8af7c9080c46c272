// SPDX-License-Identifier: Apache-2.0
// db_sim_test.c - SQLite on simulated files: power cuts, torn writes, disks that fail or are full.
// What was acknowledged is there afterwards, what was refused is not, and one seed gives one
// history. Threads: the test's.
#include "db/db_test.h"
#include "os/sim.h"
#include <stdlib.h>

enum { IDS_MAX = 2000 };
typedef enum { FATE_NONE, FATE_THERE, FATE_ABSENT, FATE_EITHER } Fate;

typedef struct World {
    Sim *sim;
    Ctx *c;
    Db *db;
    Fate fate[IDS_MAX];
    int next, refused, unsure;
    int most;    // rows a round
    size_t size; // largest body; with 1000 pages in the log a checkpoint comes
} World;

static SQL(row_table, "CREATE TABLE IF NOT EXISTS row (id INTEGER NOT NULL, body BLOB, PRIMARY KEY"
                      " (id)) STRICT");
static SQL(row_add, "INSERT INTO row (id, body) VALUES ($1, $2)");
static SQL(row_list, "SELECT id FROM row");

static err make_table(Ctx *c, Tx *tx, void *arg) {
    (void)arg;
    return db_run(c, tx, &row_table);
}

static err add_row(Ctx *c, Tx *tx, void *arg) {
    World *w = arg;
    size_t size = (size_t)w->next * 977 % w->size;
    char *body = arena_alloc(c->mem, size + 1, 1);
    return db_run(c, tx, &row_add, V(w->next), val_blob(str_n(body, size)));
}

// Counts rows that contradict what their writers were told.
static err compare(Ctx *c, Tx *tx, void *arg) {
    World *w = arg;
    bool there[IDS_MAX] = { 0 };
    Rows *r;
    TRY(db_query(c, tx, &row_list, NULL, 0, &r));
    for (bool more;;) {
        TRY(rows_next(c, r, &more));
        if (!more) break;
        there[col_int(r, 0)] = true;
    }
    for (int i = 0; i < IDS_MAX; i++) {
        if (w->fate[i] == FATE_EITHER) w->fate[i] = there[i] ? FATE_THERE : FATE_ABSENT;
        if (there[i] != (w->fate[i] == FATE_THERE))
            return fail(c, ERR_GONE, R_DB_SQL, "statement", say(c, "row %d", i), "why",
                        there[i] ? "it is there" : "it is gone");
    }
    return ERR_OK;
}

static void renew_ctx(World *w) {
    if (w->c) suite_ctx_free(w->c);
    w->c = suite_ctx(NULL);
    w->c->os = sim_node(w->sim, 0);
}

static err open_world(World *w) {
    renew_ctx(w);
    TRY(db_open(w->c, &(DbConfig){ .url = S("sqlite:/t.db") }, &w->db));
    return db_tx(w->c, w->db, make_table, NULL);
}

static void add_some(World *w, int n) {
    for (; n && w->next < IDS_MAX; n--, w->next++) {
        renew_ctx(w);
        err e = db_tx(w->c, w->db, add_row, w);
        bool unsure = e && w->c->failure.why == &R_DB_UNKNOWN;
        w->fate[w->next] = !e ? FATE_THERE : unsure ? FATE_EITHER : FATE_ABSENT;
        w->refused += e && !unsure;
        w->unsure += unsure;
    }
}

static void world_done(World *w) {
    db_close(w->db);
    suite_ctx_free(w->c);
    sim_free(w->sim);
    mem_free(w);
}

static World *world_new(uint64_t seed, bool large) {
    World *w = mem_new(sizeof *w);
    w->sim = sim_new(seed);
    w->most = large ? 250 : 40;
    w->size = large ? 60000 : 9000;
    return w;
}

// Rounds of work on a disk with these faults, each ended by a crash; then all is compared.
static err live(World *w, const SimFaults *faults, bool *out_power) {
    const SimFaults none = { 0 };
    TRY(open_world(w));
    for (int round = 0; round < 6; round++) {
        sim_faults(w->sim, 0, faults);
        add_some(w, 1 + (int)sim_random(w->sim, (uint64_t)w->most));
        bool power = sim_random(w->sim, 2);
        *out_power |= power;
        sim_crash(w->sim, 0, power);
        sim_faults(w->sim, 0, &none);
        db_close(w->db);
        w->db = NULL;
        TRY(open_world(w));
        TRY(db_check(w->c, w->db));
        TRY(db_read(w->c, w->db, compare, w));
    }
    return ERR_OK;
}

TEST(sim_power_cuts_lose_nothing) {
    bool power = false;
    const char *more = getenv("LATHE_SIM_SEEDS");
    int64_t seeds = 40;
    if (more && !str_to_i64(str_z(more), &seeds)) seeds = 40;
    for (uint64_t seed = 1; seed <= (uint64_t)seeds; seed++) {
        World *w = world_new(seed, false);
        CHECK_OK(w->c, live(w, &(SimFaults){ 0 }, &power));
        CHECK_INT(w->refused + w->unsure, 0);
        CHECK(w->next > 6);
        world_done(w);
    }
    CHECK(power);
}

// Every kind of fault by itself, for one may hide another; then deaths in the midst of a write, and
// logs long enough for checkpoints.
TEST(sim_failing_disks_lose_nothing) {
    static const SimFaults faults[] = {
        { .write_error = 8000 },
        { .sync_error = 40000 },
        { .write_full = 8000 },
        { .write_error = 2000, .sync_error = 10000, .crash = 2000 },
        { .sync_error = 20000, .crash = 300 },
        { .read_error = 20000, .write_full = 1000, .crash = 300 },
    };
    int refused = 0, unsure = 0;
    for (uint64_t i = 0; i < 84; i++) {
        // A failure of one kind needs many short histories, a checkpoint a long one.
        bool large = i >= 80, power = false;
        World *w = world_new(100 + i, large);
        CHECK_OK(w->c, live(w, &faults[large ? 4 + i % 2 : i % 4], &power));
        refused += w->refused;
        unsure += w->unsure;
        world_done(w);
    }
    CHECK(refused > 100 && unsure > 100);
}

TEST(sim_one_seed_one_history) {
    const SimFaults faults = { .write_error = 2000, .sync_error = 2000 };
    uint64_t digests[3];
    bool power = false;
    for (int i = 0; i < 3; i++) {
        World *w = world_new(7 + (uint64_t)i / 2, false);
        CHECK_OK(w->c, live(w, &faults, &power));
        digests[i] = sim_digest(w->sim);
        world_done(w);
    }
    CHECK(digests[0] == digests[1]);
    CHECK(digests[0] != digests[2]);
}

TEST(sim_a_full_disk_refuses_and_recovers) {
    World *w = world_new(5, false);
    CHECK_OK(w->c, open_world(w));
    sim_disk_max(w->sim, 0, 300000);
    add_some(w, 200);
    CHECK(w->refused > 0 && w->refused < 200 && !w->unsure);
    CHECK(w->c->failure.why == &R_DB_FULL);
    sim_disk_max(w->sim, 0, 0);
    int refused = w->refused;
    add_some(w, 20);
    CHECK_INT(w->refused, refused);
    CHECK_OK(w->c, db_read(w->c, w->db, compare, w));
    CHECK_ERR(db_read(w->c, w->db, add_row, w), ERR_INTERNAL); // it writes
    world_done(w);
}

TEST(sim_transactions_run_again) {
    World *w = world_new(6, false);
    CHECK_OK(w->c, open_world(w));
    db_faults(w->db, &(DbFaults){ .again = 300000, .away = 100000, .unknown = 100000 });
    add_some(w, 300);
    CHECK(w->refused > 10 && w->unsure > 10 && db_counts(w->db).retries > 30);
    for (int i = 0; i < IDS_MAX; i++)
        if (w->fate[i] == FATE_EITHER) w->fate[i] = FATE_THERE; // committed before it was said
    db_faults(w->db, &(DbFaults){ 0 });
    CHECK_OK(w->c, db_read(w->c, w->db, compare, w));
    world_done(w);
}
