// SPDX-License-Identifier: Apache-2.0
// job_inject.c - the queue, leases and children: what was accepted is done once faults stop, a
// lease is one holder's, a key starts one child.
#include "inject.h"
#include "job/executor.h"
#include "job/job_test.h"
#include <sched.h>
#include <stdlib.h>

static atomic_int ran;

static err run_steps(Ctx *c, Job *j) {
    job_say(j, "working");
    job_progress(j, 1, 2, "bytes");
    TRY(job_save(c, j, S("{\"at\":1}")));
    job_result(j, S("{\"ok\":true}"));
    atomic_fetch_add(&ran, 1);
    return ERR_OK;
}
static const JobKind steps = { .name = "inject.steps",
                               .run = run_steps,
                               .attempts_max = 100,
                               .backoff_ms = 5,
                               .en = "",
                               .zh = "" };
static const JobKind *const kinds[] = { &steps };

typedef struct Asked {
    Ctx *c;
    str id;
    JobView view;
} Asked;

static err add_job(Ctx *c, Tx *tx, void *arg) {
    Asked *a = arg;
    return job_add(c, tx, &(JobSpec){ .kind = "inject.steps", .payload = S("{}"), .key = S("k") },
                   &a->id);
}
static err view_job(Ctx *c, Tx *tx, void *arg) {
    Asked *a = arg;
    return job_view(c, tx, (str){ 0 }, a->id, &a->view);
}
static bool is_done(void *arg) {
    Asked *a = arg;
    return !db_read(a->c, a->c->db, view_job, a) && a->view.state == JOB_DONE;
}
static bool is_done_or_struck(void *arg) {
    Asked *a = arg;
    static int looks;
    return is_done(a) || ++looks % 200 == 0;
}

static void queue_works(JobFix *f) {
    Asked a = { .c = f->c };
    str logs = arena_printf(f->c->mem, "%s/jobs", inject_dir());
    JobsConfig config = { f->db, kinds, countof(kinds), S("n1"), logs, 2 };
    Jobs *s = NULL;
    bool accepted = false;
    inject_on();
    err opened = jobs_open(f->c, &config, &s);
    CHECK_TOLERABLE(f->c, opened);
    if (!opened) {
        err e = db_tx(f->c, f->db, add_job, &a);
        CHECK_TOLERABLE(f->c, e);
        accepted = !e;
        jobs_start(s);
        if (!e) job_fix_until(is_done_or_struck, &a);
    }
    inject_off();
    if (opened) {
        CHECK_COMES_BACK(f->c, jobs_open(f->c, &config, &s));
        jobs_start(s);
    }
    str before = accepted ? a.id : (str){ 0 };
    // The same job, when it was accepted before.
    CHECK_COMES_BACK(f->c, db_tx(f->c, f->db, add_job, &a));
    if (before.n) CHECK(str_eq(before, a.id));
    jobs_wake(s);
    CHECK(job_fix_until(is_done, &a));
    CHECK_STR(a.view.result, "{\"ok\":true}");
    CHECK(atomic_load(&ran) >= 1);
    jobs_stop(s);
    jobs_free(s);
}
INJECT(jobs_on_sqlite) { job_fix_run(DB_SQLITE, queue_works); }
INJECT(jobs_on_postgres) {
    if (getenv("LATHE_TEST_POSTGRES")) job_fix_run(DB_POSTGRES, queue_works);
}

static void leases_work(JobFix *f) {
    Ctx *c = f->c;
    Lease a, b;
    inject_on();
    err first = lease_take(c, f->db, S("o"), S("one"), 60000, &a);
    CHECK_TOLERABLE(c, first);
    err e = lease_take(c, f->db, S("o"), S("two"), 60000, &b);
    if (!first) CHECK(e != ERR_OK); // one holder
    err dropped = first ? ERR_OK : lease_drop(c, f->db, &a);
    CHECK_TOLERABLE(c, dropped);
    inject_off();
    if (first && !e) CHECK_COMES_BACK(c, lease_drop(c, f->db, &b));
    if (!first && dropped) CHECK_COMES_BACK(c, lease_drop(c, f->db, &a));
    if (first && e) CHECK_COMES_BACK(c, job_fix_exec(f, "UPDATE lease SET until_ms = 1"));
    CHECK_COMES_BACK(c, lease_take(c, f->db, S("o"), S("three"), 60000, &b));
    CHECK_INT(job_fix_int(f, "SELECT COUNT(*) FROM lease WHERE object = 'o'"), 1);
}
INJECT(leases_on_sqlite) { job_fix_run(DB_SQLITE, leases_work); }
INJECT(leases_on_postgres) {
    if (getenv("LATHE_TEST_POSTGRES")) job_fix_run(DB_POSTGRES, leases_work);
}

// --- a child behind its shim

static void run_loop(void *l) { loop_run(l); }

static bool reaches(Ctx *c, Executor *e, str handle, ChildState state, ChildView *out) {
    int64_t end_ns = os_mono_ns(c->os) + test_longer(10) * 1000000000;
    do {
        if (!executor_observe(c, e, handle, out) && out->state == state) return true;
        sched_yield();
    } while (os_mono_ns(c->os) < end_ns);
    return false;
}

INJECT(children_behind_shims) {
    Ctx *c = inject_ctx();
    const char *argv[] = { "/bin/sh", "-c", "echo began; exit 3", NULL };
    ChildSpec spec = { .key = S("one"), .argv = argv, .grace_ms = 2000 };
    str dir = arena_printf(c->mem, "%s/run", inject_dir()), handle = { 0 }, again;
    Loop *l = loop_new(c->os);
    Executor *x;
    ChildView v;
    Thread t;
    inject_on();
    err opened = executor_open(c, dir, l, &x);
    CHECK_TOLERABLE(c, opened);
    err e = ERR_INTERNAL;
    if (!opened) {
        thread_start(c->os, "host", run_loop, l, &t);
        e = executor_submit(c, x, &spec, &handle);
        CHECK_TOLERABLE(c, e);
        err o = e ? ERR_OK : executor_observe(c, x, handle, &v);
        CHECK_TOLERABLE(c, o);
    }
    inject_off();
    if (opened) {
        CHECK_OK(c, executor_open(c, dir, l, &x));
        thread_start(c->os, "host", run_loop, l, &t);
    }
    CHECK_OK(c, executor_submit(c, x, &spec, &again)); // the same child, when it was submitted
    if (!e) CHECK(str_eq(handle, again));
    CHECK(reaches(c, x, again, CHILD_EXITED, &v));
    CHECK_INT(v.exit_code, 3);
    ChildView *all;
    size_t n;
    CHECK_OK(c, executor_list(c, x, &all, &n));
    CHECK_INT(n, 1);
    CHECK_OK(c, executor_forget(c, x, again));
    loop_stop(l);
    thread_join(t);
    executor_close(x);
    loop_free(l);
}
