// SPDX-License-Identifier: Apache-2.0
// job_fault_test.c - the queue under deaths, stalls, pauses and a database that fails: what was
// promised happens at least once, ends once, and only the newest attempt writes.
#include "job/job_test.h"
#include <sched.h>
#include <time.h>

static atomic_bool hold;     // run_steps waits at its third step while this is set
static atomic_int steps_run; // how many steps were run, repeats included
static atomic_int holding;   // attempts that wait at the third step
static atomic_int lost_saves, guard_lost;

static SQL(step_add, "INSERT INTO step (job, n, attempt) VALUES ($1, $2, $3)");

typedef struct Step {
    Job *j;
    int n;
} Step;

static err write_step(Ctx *c, Tx *tx, void *arg) {
    Step *s = arg;
    TRY(job_guard(c, tx, s->j));
    return db_run(c, tx, &step_add, V(job_id(s->j)), V(s->n), V(job_attempt(s->j)));
}

// Five guarded writes with a checkpoint after each. A held one ignores its cancel, as a stalled
// process would.
static err run_steps(Ctx *c, Job *j) {
    str at = job_checkpoint(j);
    int64_t n = 0;
    if (at.p && !str_to_i64(at, &n)) return fail(c, ERR_INVALID, R_INTERNAL, "why", "checkpoint");
    for (; n < 5; n++) {
        if (n == 2 && atomic_load(&hold)) {
            atomic_fetch_add(&holding, 1);
            while (atomic_load(&hold)) sched_yield();
            atomic_store(&c->cancelled, false); // it does not look
        }
        Step s = { j, (int)n };
        err e = db_tx(c, j->s->db, write_step, &s);
        if (e == ERR_LOST) atomic_fetch_add(&guard_lost, 1);
        TRY(e);
        atomic_fetch_add(&steps_run, 1);
        e = job_save(c, j, str_z(say(c, "%d", (int)n + 1)));
        if (e == ERR_LOST) atomic_fetch_add(&lost_saves, 1);
        TRY(e);
    }
    return ERR_OK;
}

static SQL(end_add, "INSERT INTO ended (job, code) VALUES ($1, $2)");
static void steps_after(Ctx *c, Tx *tx, Job *j, err e) {
    err run_e = db_run(c, tx, &end_add, V(job_id(j)), V((int)e));
    (void)run_e; // a failed statement spoils the transaction
}

// Waits for ever, politely.
static err run_patient(Ctx *c, Job *j) {
    (void)j;
    atomic_fetch_add(&holding, 1);
    while (!ctx_check(c)) sched_yield();
    return ctx_check(c);
}

static const JobKind kind_steps = {
    .name = "f.steps", .run = run_steps, .after = steps_after, .backoff_ms = 1, .attempts_max = 1000
};
static const JobKind kind_patient = { .name = "f.patient", .run = run_patient };
static const JobKind *const kinds[] = { &kind_steps, &kind_patient };

static err open_node(JobFix *f, Db *db, const char *node, Jobs **out) {
    str log_dir = arena_printf(f->c->mem, "%s/%s", test_dir(), node);
    JobsConfig config = { db, kinds, countof(kinds), str_z(node), log_dir, 2 };
    TRY(jobs_open(f->c, &config, out));
    (*out)->ttl_ms = 200;
    (*out)->beat_ms = 20;
    return ERR_OK;
}

static err begin(JobFix *f) {
    atomic_store(&hold, false);
    atomic_store(&holding, 0);
    atomic_store(&steps_run, 0);
    atomic_store(&lost_saves, 0);
    atomic_store(&guard_lost, 0);
    TRY(job_fix_exec(f, "CREATE TABLE step (job TEXT, n INTEGER, attempt INTEGER)"));
    return job_fix_exec(f, "CREATE TABLE ended (job TEXT, code INTEGER)");
}

typedef struct Add {
    const char *kind;
    str id;
} Add;

static err add_tx(Ctx *c, Tx *tx, void *arg) {
    Add *a = arg;
    JobSpec spec = { .kind = a->kind, .payload = S("{}") };
    return job_add(c, tx, &spec, &a->id);
}

static str add(JobFix *f, const char *kind) {
    Add a = { .kind = kind };
    err e = ERR_UNAVAILABLE;
    for (int i = 0; i < 100 && e == ERR_UNAVAILABLE; i++) e = db_tx(f->c, f->db, add_tx, &a);
    if (e) test_failed(__FILE__, __LINE__, "job_add: %s", err_row(e)->name);
    return a.id;
}

typedef struct Until {
    JobFix *f;
    const char *query;
    int64_t want;
} Until;

static bool query_is(void *arg) {
    Until *u = arg;
    return job_fix_int(u->f, u->query) == u->want;
}

static bool until(JobFix *f, const char *query, int64_t want) {
    Until u = { f, query, want };
    return job_fix_until(query_is, &u);
}

static bool guard_refused(void *arg) { return (void)arg, atomic_load(&guard_lost) == 1; }
static bool held(void *arg) { return atomic_load(&holding) >= *(int *)arg; }

// What must hold of every job of kind f.steps that is done.
static void check_steps(JobFix *f, int jobs) {
    CHECK_INT(job_fix_int(f, "SELECT count(*) FROM job WHERE state = 'done'"), jobs);
    CHECK_INT(job_fix_int(f, "SELECT count(*) FROM ended"), jobs);
    CHECK_INT(job_fix_int(f, "SELECT count(DISTINCT job) FROM ended WHERE code = 0"), jobs);
    // Every step was done, and an older attempt never wrote after a newer one.
    CHECK_INT(job_fix_int(f, "SELECT count(*) FROM (SELECT DISTINCT job, n FROM step) AS x"),
              5 * jobs);
    CHECK_INT(job_fix_int(f, "SELECT count(*) FROM step a JOIN step b ON a.job = b.job"
                             " AND a.n > b.n AND a.attempt < b.attempt"),
              0);
}

JOB_TEST(job_pause_goes_on_from_the_checkpoint) {
    Jobs *s;
    int one = 1;
    CHECK_OK(f->c, begin(f));
    CHECK_OK(f->c, open_node(f, f->db, "a", &s));
    jobs_start(s);
    str patient = add(f, "f.patient");
    CHECK(job_fix_until(held, &one));
    jobs_free(s);
    CHECK_INT(job_fix_int(f, "SELECT count(*) FROM job WHERE state = 'waiting' AND attempt = 0"
                             " AND failures = 0 AND crashes = 0 AND error_text = ''"),
              1);
    CHECK_OK(f->c, job_fix_exec(
                       f, say(f->c, "DELETE FROM job WHERE id = '" STR_FMT "'", STR_ARG(patient))));
    // Stopped in the middle of its steps, four times over: at most the step under way is repeated.
    add(f, "f.steps");
    for (int life = 0; life < 4; life++) {
        CHECK_OK(f->c, open_node(f, f->db, "a", &s));
        jobs_start(s);
        while (atomic_load(&steps_run) <= life) sched_yield();
        jobs_free(s);
    }
    CHECK_OK(f->c, open_node(f, f->db, "a", &s));
    jobs_start(s);
    CHECK(until(f, "SELECT count(*) FROM ended", 1));
    jobs_free(s);
    check_steps(f, 1);
    CHECK(job_fix_int(f, "SELECT count(*) FROM step") <= 5 + 4);
}

// The process of node `a` stalls: its beats stop, another node takes over, and then it wakes.
JOB_TEST(job_stalled_holder_changes_nothing) {
    Jobs *a, *b;
    int one = 1;
    Db *second;
    CHECK_OK(f->c, begin(f));
    CHECK_OK(f->c, db_open(f->c, &(DbConfig){ .url = f->url }, &second));
    CHECK_OK(f->c, open_node(f, f->db, "a", &a));
    jobs_start(a);
    atomic_store(&hold, true);
    add(f, "f.steps");
    CHECK(job_fix_until(held, &one));
    pthread_mutex_lock(&a->lock);
    a->beats_frozen = true;
    a->workers = 1; // and it takes nothing new
    pthread_mutex_unlock(&a->lock);
    CHECK(until(f, "SELECT count(*) FROM job WHERE lease_until_ms > 0", 1));
    CHECK_OK(f->c, open_node(f, second, "b", &b));
    jobs_start(b);
    int two = 2;
    bool taken = job_fix_until(held, &two); // b runs it from the checkpoint, and holds as well
    atomic_store(&hold, false);
    CHECK(taken);
    CHECK(until(f, "SELECT count(*) FROM ended", 1));
    CHECK(job_fix_until(guard_refused, NULL));
    jobs_free(b);
    jobs_free(a);
    db_close(second);
    CHECK_INT(job_fix_int(f, "SELECT attempt FROM job"), 2);
    CHECK_INT(job_fix_int(f, "SELECT count(*) FROM step"), 5);
    check_steps(f, 1);
}

// kill -9 and a restart of the same node: what it ran is taken up at once, not after the lease.
JOB_TEST(job_restart_takes_up_what_its_last_life_ran) {
    Jobs *a, *b;
    int one = 1;
    CHECK_OK(f->c, begin(f));
    CHECK_OK(f->c, open_node(f, f->db, "a", &a));
    a->ttl_ms = 3600 * 1000;
    jobs_start(a);
    atomic_store(&hold, true);
    add(f, "f.steps");
    CHECK(job_fix_until(held, &one));
    pthread_mutex_lock(&a->lock);
    a->beats_frozen = true; // as dead as a thread of a test can be
    a->workers = 1;
    pthread_mutex_unlock(&a->lock);
    CHECK_OK(f->c, open_node(f, f->db, "a", &b));
    jobs_start(b);
    int two = 2;
    bool taken = job_fix_until(held, &two);
    atomic_store(&hold, false);
    CHECK(taken);
    CHECK(until(f, "SELECT count(*) FROM ended", 1));
    jobs_free(b);
    jobs_free(a);
    check_steps(f, 1);
}

// A job that takes its process with it every time does not do so for ever.
JOB_TEST(job_that_kills_its_process_fails_in_the_end) {
    Jobs *s;
    CHECK_OK(f->c, begin(f));
    CHECK_OK(f->c, open_node(f, f->db, "a", &s));
    add(f, "f.steps");
    for (int i = 0; i <= CRASHES_MAX; i++) {
        CHECK_OK(f->c, job_fix_exec(f, "UPDATE job SET state = 'running', node = 'a',"
                                       " holder = 'a:dead', attempt = attempt + 1"
                                       " WHERE state = 'waiting'"));
        jobs_reap_pass(s, true);
        CHECK_INT(job_fix_int(f, "SELECT crashes FROM job"), i + 1);
    }
    CHECK_INT(job_fix_int(f, "SELECT count(*) FROM job WHERE state = 'failed'"
                             " AND error_slug = 'job_crashed'"),
              1);
    CHECK_INT(job_fix_int(f, "SELECT count(*) FROM ended WHERE code <> 0"), 1);
    jobs_free(s);
}

// Two nodes on one database that reruns, refuses and loses answers.
JOB_TEST(job_database_faults_lose_nothing) {
    enum { JOBS = 40 };
    Jobs *a, *b;
    Db *second;
    CHECK_OK(f->c, begin(f));
    CHECK_OK(f->c, db_open(f->c, &(DbConfig){ .url = f->url }, &second));
    CHECK_OK(f->c, open_node(f, f->db, "a", &a));
    CHECK_OK(f->c, open_node(f, second, "b", &b));
    a->ttl_ms = b->ttl_ms = 5000;
    for (int i = 0; i < JOBS; i++) add(f, "f.steps");
    db_faults(second, &(DbFaults){ .again = 100000, .away = 50000, .unknown = 50000 });
    db_faults(f->db, &(DbFaults){ .again = 100000, .away = 50000, .unknown = 50000 });
    jobs_start(a);
    jobs_start(b);
    CHECK(until(f, "SELECT count(*) FROM job WHERE state = 'done'", JOBS));
    jobs_free(b);
    jobs_free(a);
    db_faults(f->db, &(DbFaults){ 0 });
    db_close(second);
    check_steps(f, JOBS);
}
