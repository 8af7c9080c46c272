// SPDX-License-Identifier: Apache-2.0
// job_sim_test.c - the queue on the simulated machine, on SQLite over simulated files: deaths of
// the process and of the power, at any moment and at any write, over many seeds. A job that was
// acknowledged ends, once; its steps were all done, and never by an older attempt after a newer.
#include "job/job_test.h"
#include "os/sim.h"
#include <stdlib.h>

enum { JOBS_MAX = 200, STEPS = 4 };

typedef struct World {
    Sim *sim;
    Ctx *c;
    Db *db;
    Jobs *s;
    Loop *l;
    Timer *work;
    str acked[JOBS_MAX]; // ids, on the heap
    size_t acked_n, added;
    const char *broken;
    Arena *mem;
} World;

static SQL(tables, "CREATE TABLE IF NOT EXISTS step (job TEXT, n INTEGER, attempt INTEGER)");
static SQL(ends, "CREATE TABLE IF NOT EXISTS ended (job TEXT, code INTEGER)");
static SQL(step_add, "INSERT INTO step (job, n, attempt) VALUES ($1, $2, $3)");
static SQL(end_add, "INSERT INTO ended (job, code) VALUES ($1, $2)");

static err make_tables(Ctx *c, Tx *tx, void *arg) {
    (void)arg;
    TRY(db_run(c, tx, &tables));
    return db_run(c, tx, &ends);
}

typedef struct Step {
    Job *j;
    int64_t n;
} Step;

static err write_step(Ctx *c, Tx *tx, void *arg) {
    Step *s = arg;
    TRY(job_guard(c, tx, s->j));
    return db_run(c, tx, &step_add, V(job_id(s->j)), V(s->n), V(job_attempt(s->j)));
}

static err run_steps(Ctx *c, Job *j) {
    Step s = { .j = j };
    str at = job_checkpoint(j);
    if (at.p && !str_to_i64(at, &s.n)) return fail(c, ERR_INVALID, R_INTERNAL, "why", "checkpoint");
    uint64_t dice;
    for (; s.n < STEPS; s.n++) {
        TRY(ctx_check(c));
        TRY(db_tx(c, c->db, write_step, &s));
        job_progress(j, s.n + 1, STEPS, "steps");
        os_random(c->os, &dice, sizeof dice);
        if (dice % 10 == 0) return fail(c, ERR_UPSTREAM, R_INTERNAL, "why", "the dice");
        TRY(job_save(c, j, str_z(say(c, "%d", (int)s.n + 1))));
    }
    job_say(j, "all %d steps", STEPS);
    return ERR_OK;
}

static void steps_after(Ctx *c, Tx *tx, Job *j, err e) {
    err run_e = db_run(c, tx, &end_add, V(job_id(j)), V((int)e));
    (void)run_e; // a failed statement spoils the transaction
}

static const JobKind kind_steps = { .name = "s.steps",
                                    .run = run_steps,
                                    .after = steps_after,
                                    .backoff_ms = 20,
                                    .attempts_max = 1000,
                                    .parallel_max = 2 };
static const JobKind *const kinds[] = { &kind_steps };

static err add_tx(Ctx *c, Tx *tx, void *arg) {
    JobSpec spec = { .kind = "s.steps", .payload = S("{}") };
    tx_notify(tx, jobs_wake, jobs_of(c));
    return job_add(c, tx, &spec, arg);
}

static void work(void *arg) {
    World *w = arg;
    Ctx *c = suite_ctx(w->db);
    c->os = sim_node(w->sim, 0);
    str id;
    if (w->added < JOBS_MAX && sim_random(w->sim, 2)) {
        w->added++;
        if (!db_tx(c, w->db, add_tx, &id)) w->acked[w->acked_n++] = arena_str(w->mem, id);
    }
    suite_ctx_free(c);
    timer_start(w->work, (int64_t)sim_random(w->sim, 300));
}

static err life_begin(World *w) {
    if (w->c) suite_ctx_free(w->c);
    w->c = suite_ctx(NULL);
    w->c->os = sim_node(w->sim, 0);
    TRY(dir_make(w->c, S("/data"), 0700));
    TRY(dir_sync(w->c, S("/")));
    TRY(db_open(w->c, &(DbConfig){ .url = S("sqlite:/data/t.db") }, &w->db));
    w->c->db = w->db;
    JobsConfig config = { w->db, kinds, countof(kinds), S("node"), S("/data/log"), 3 };
    err e = db_tx(w->c, w->db, make_tables, NULL);
    if (!e) e = jobs_open(w->c, &config, &w->s);
    if (e) {
        db_close(w->db);
        return e;
    }
    w->l = loop_new(w->c->os);
    jobs_attach(w->s, w->l);
    w->work = timer_new(w->l, work, w);
    timer_start(w->work, 0);
    return ERR_OK;
}

static void life_free(World *w, bool dead) {
    if (dead) jobs_drop(w->s);
    else jobs_free(w->s);
    timer_free(w->work);
    loop_free(w->l);
    db_close(w->db);
}

typedef struct Died {
    Sim *sim;
    unsigned lives;
} Died;

static bool has_died(void *arg) {
    Died *d = arg;
    return sim_lives(d->sim, 0) != d->lives;
}

static void life_run(World *w, const SimFaults *faults) {
    Died d = { w->sim, sim_lives(w->sim, 0) };
    sim_faults(w->sim, 0, faults);
    int64_t end_ns = os_mono_ns(w->c->os) + (int64_t)(1 + sim_random(w->sim, 2000)) * 1000000;
    sim_run(w->sim, end_ns, has_died, &d);
    bool dead = has_died(&d);
    if (!dead && sim_random(w->sim, 3)) {
        sim_crash(w->sim, 0, sim_random(w->sim, 2));
        dead = true;
    }
    sim_node(w->sim, 0);
    sim_faults(w->sim, 0, &(SimFaults){ 0 });
    life_free(w, dead);
}

static int64_t ask(World *w, const char *text) {
    JobFix f = { .c = w->c, .db = w->db };
    return job_fix_int(&f, text);
}

static bool all_done(void *arg) {
    World *w = arg;
    return ask(w, "SELECT count(*) FROM job WHERE state <> 'done'") == 0;
}

static void check(World *w) {
    for (size_t i = 0; i < w->acked_n; i++) {
        const char *q =
            say(w->c, "SELECT count(*) FROM ended WHERE job = '" STR_FMT "'", STR_ARG(w->acked[i]));
        if (ask(w, q) != 1) w->broken = "an acknowledged job did not end once";
    }
    if (ask(w, "SELECT count(*) FROM ended") != ask(w, "SELECT count(*) FROM job"))
        w->broken = "a job ended twice, or not at all";
    if (ask(w, "SELECT count(*) FROM (SELECT DISTINCT job, n FROM step)")
        != STEPS * ask(w, "SELECT count(*) FROM job"))
        w->broken = "a step is missing";
    if (ask(w, "SELECT count(*) FROM step a JOIN step b ON a.job = b.job AND a.n > b.n"
               " AND a.attempt < b.attempt"))
        w->broken = "an older attempt wrote after a newer one";
}

static void world_run(uint64_t seed, const SimFaults *faults, World *w) {
    *w = (World){ .sim = sim_new(seed), .mem = arena_new() };
    for (int life = 0; life < 6 && !w->broken; life++) {
        if (life_begin(w)) w->broken = "it cannot be opened";
        else life_run(w, faults);
    }
    if (!w->broken && life_begin(w)) w->broken = "it cannot be opened in the end";
    else if (!w->broken) {
        w->added = JOBS_MAX; // no more
        for (int i = 0; i < 600 && !all_done(w); i++)
            sim_run(w->sim, os_mono_ns(w->c->os) + (int64_t)1000000000, NULL, NULL);
        if (!all_done(w)) w->broken = "a job never ended";
        else check(w);
        life_free(w, false);
    }
    if (w->c) suite_ctx_free(w->c);
    arena_free(w->mem);
    sim_free(w->sim);
}

static void histories(uint64_t first, const SimFaults *faults) {
    const char *more = getenv("LATHE_SIM_SEEDS");
    int64_t seeds = 15;
    size_t acked = 0;
    if (more && !str_to_i64(str_z(more), &seeds)) seeds = 15;
    for (uint64_t seed = first; seed < first + (uint64_t)seeds; seed++) {
        World w;
        world_run(seed, faults, &w);
        acked += w.acked_n;
        if (w.broken) {
            test_failed(__FILE__, __LINE__, "seed %llu: %s", (unsigned long long)seed, w.broken);
            return;
        }
    }
    CHECK(acked > 100);
}

TEST(job_sim_deaths_lose_no_job) { histories(1000, &(SimFaults){ 0 }); }

TEST(job_sim_deaths_at_any_write) { histories(2000, &(SimFaults){ .crash = 1000 }); }

TEST(job_sim_failing_disk) {
    histories(
        3000,
        &(SimFaults){ .write_error = 2000, .write_full = 2000, .sync_error = 2000, .crash = 500 });
}
