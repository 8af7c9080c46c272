// SPDX-License-Identifier: Apache-2.0
// job_test.c - the queue on both databases: what runs when, what becomes of it, why it waits.
// Deaths, lost leases and injected faults are job_fault_test.c.
#include "base/id.h"
#include "job/job_test.h"
#include <stdio.h>
#include <time.h>

// ---- kinds of the tests; what they do is steered by these

static pthread_mutex_t gate_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_moved = PTHREAD_COND_INITIALIZER;
static bool gate_open;
static int gate_inside, gate_most;
static atomic_int fail_times, fail_code, ran;
static char order[256];

static void gate_set(bool open) {
    pthread_mutex_lock(&gate_lock);
    gate_open = open;
    gate_most = 0;
    pthread_cond_broadcast(&gate_moved);
    pthread_mutex_unlock(&gate_lock);
}

// Waits until the gate opens; a cancel wakes it by the poll of its Ctx.
static err run_gate(Ctx *c, Job *j) {
    (void)j;
    pthread_mutex_lock(&gate_lock);
    if (++gate_inside > gate_most) gate_most = gate_inside;
    while (!gate_open && !ctx_check(c)) {
        struct timespec when;
        clock_gettime(CLOCK_REALTIME, &when);
        when.tv_nsec += 2000000;
        if (when.tv_nsec >= 1000000000) when.tv_sec++, when.tv_nsec -= 1000000000;
        pthread_cond_timedwait(&gate_moved, &gate_lock, &when);
    }
    gate_inside--;
    pthread_mutex_unlock(&gate_lock);
    return ctx_check(c);
}

static err run_echo(Ctx *c, Job *j) {
    job_say(j, "working on " STR_FMT, STR_ARG(job_subject(j)));
    job_progress(j, 3, 4, "bytes");
    TRY(job_save(c, j, S("{\"at\":3}")));
    job_result(j, job_payload(j));
    atomic_fetch_add(&ran, 1);
    return ERR_OK;
}

static err run_fails(Ctx *c, Job *j) {
    atomic_fetch_add(&ran, 1);
    if (job_attempt(j) > atomic_load(&fail_times)) return ERR_OK;
    return fail(c, (err)atomic_load(&fail_code), R_INTERNAL, "why", "as asked");
}

static err run_order(Ctx *c, Job *j) {
    (void)c;
    pthread_mutex_lock(&gate_lock);
    size_t n = strlen(order);
    snprintf(order + n, sizeof order - n, STR_FMT " ", STR_ARG(job_payload(j)));
    pthread_mutex_unlock(&gate_lock);
    return ERR_OK;
}

static SQL(after_add, "INSERT INTO after_log (id, code) VALUES ($1, $2)");
static void after(Ctx *c, Tx *tx, Job *j, err e) {
    err run_e = db_run(c, tx, &after_add, V(job_id(j)), V((int)e));
    (void)run_e; // a failed statement spoils the transaction: the end is tried again
}

static const JobKind kind_echo = { .name = "t.echo", .run = run_echo, .after = after };
static const JobKind kind_fails = {
    .name = "t.fails", .run = run_fails, .after = after, .backoff_ms = 1, .attempts_max = 3
};
static const JobKind kind_slow = { .name = "t.slow", .run = run_fails, .backoff_ms = 100000 };
static const JobKind kind_gate = { .name = "t.gate", .run = run_gate, .after = after };
static const JobKind kind_pair = { .name = "t.pair", .run = run_gate, .parallel_max = 2 };
static const JobKind kind_brief = {
    .name = "t.brief", .run = run_gate, .timeout_ms = 20, .attempts_max = 1
};
static const JobKind kind_order = { .name = "t.order", .run = run_order };
static const JobKind *const kinds[] = { &kind_echo, &kind_fails, &kind_slow, &kind_gate,
                                        &kind_pair, &kind_brief, &kind_order };

static err queue_open(JobFix *f, int workers, Jobs **out) {
    gate_set(false);
    atomic_store(&ran, 0);
    order[0] = 0;
    TRY(job_fix_exec(f, "CREATE TABLE IF NOT EXISTS after_log (id TEXT, code INTEGER)"));
    str log_dir = arena_printf(f->c->mem, "%s/log", test_dir());
    return jobs_open(
        f->c, &(JobsConfig){ f->db, kinds, countof(kinds), S("node1"), log_dir, workers }, out);
}

typedef struct Add {
    JobSpec spec;
    str id;
} Add;

static err add_tx(Ctx *c, Tx *tx, void *arg) {
    Add *a = arg;
    Jobs *s = jobs_of(c);
    if (s) tx_notify(tx, jobs_wake, s);
    return job_add(c, tx, &a->spec, &a->id);
}

static str add(JobFix *f, JobSpec spec) {
    Add a = { .spec = spec };
    if (!spec.project.p) a.spec.project = S("p1");
    if (!spec.payload.p) a.spec.payload = S("{}");
    err e = db_tx(f->c, f->db, add_tx, &a);
    if (e) test_failed(__FILE__, __LINE__, "job_add: %s", err_row(e)->name);
    return a.id;
}

typedef struct Look {
    JobFix *f;
    str project, id;
    JobView view;
    JobState state;
    bool cancel, retry;
} Look;

static err look_tx(Ctx *c, Tx *tx, void *arg) {
    Look *l = arg;
    if (l->cancel) TRY(job_cancel(c, tx, l->project, l->id));
    if (l->retry) TRY(job_retry(c, tx, l->project, l->id));
    return job_view(c, tx, l->project, l->id, &l->view);
}

static JobView view(JobFix *f, str id) {
    Look l = { .f = f, .project = S("p1"), .id = id };
    err e = db_read(f->c, f->db, look_tx, &l);
    if (e) test_failed(__FILE__, __LINE__, "job_view: %s", err_row(e)->name);
    return l.view;
}

static err cancel(JobFix *f, str project, str id) {
    Look l = { .f = f, .project = project, .id = id, .cancel = true };
    return db_tx(f->c, f->db, look_tx, &l);
}

static err retry(JobFix *f, str id) {
    Look l = { .f = f, .project = S("p1"), .id = id, .retry = true };
    return db_tx(f->c, f->db, look_tx, &l);
}

static bool has_state(void *arg) {
    Look *l = arg;
    l->view = view(l->f, l->id);
    return l->view.state == l->state;
}

static bool wait_state(JobFix *f, str id, JobState s, JobView *out) {
    Look l = { .f = f, .project = S("p1"), .id = id, .state = s };
    bool good = job_fix_until(has_state, &l);
    if (out) *out = l.view;
    return good;
}

static str whole_log(JobFix *f, Jobs *s, str id) {
    Buf b;
    buf_init(&b, 16 << 20);
    JobLog l = { 0 };
    while (!l.end && !job_log(f->c, s, S("p1"), id, (int64_t)b.n, &l)) buf_add(&b, l.text);
    str text = arena_str(f->c->mem, buf_str(&b));
    buf_done(&b);
    return text;
}

// ---- running

JOB_TEST(job_runs_and_shows_what_it_did) {
    Jobs *s;
    JobView v;
    CHECK_OK(f->c, queue_open(f, 2, &s));
    str id = add(f, (JobSpec){ .kind = "t.echo",
                               .payload = S("{\"a\":[1]}"),
                               .subject = S("m_1"),
                               .created_by = S("user_1"),
                               .org = S("o1") });
    v = view(f, id);
    CHECK(v.state == JOB_WAITING && v.attempt == 0);
    CHECK_STR(v.wait_reason, "no_worker"); // not started yet
    jobs_start(s);
    CHECK(wait_state(f, id, JOB_DONE, &v));
    CHECK_STR(v.result, "{\"a\":[1]}");
    CHECK_STR(v.unit, "bytes");
    CHECK(v.progress_done == 3 && v.progress_total == 4 && v.attempt == 1 && !v.error_slug.p);
    CHECK(str_is(v.org, "o1") && str_is(v.project, "p1") && str_is(v.subject, "m_1"));
    CHECK(str_is(v.created_by, "user_1") && str_is(v.node, "node1") && !v.wait_reason.p);
    CHECK(v.created_ms <= v.started_ms && v.started_ms <= v.ended_ms && v.ended_ms > 0);
    str log = whole_log(f, s, id);
    CHECK(str_find(log, S("attempt 1 began")) > 0 && str_find(log, S("working on m_1\n")) > 0);
    CHECK(str_ends(log, S(" done\n")));
    CHECK_INT(job_fix_int(f, "SELECT code FROM after_log"), ERR_OK);
    Look other = { .f = f, .project = S("p2"), .id = id };
    CHECK_ERR(db_read(f->c, f->db, look_tx, &other), ERR_NOTFOUND);
    JobLog l;
    CHECK_ERR(job_log(f->c, s, S("p2"), id, 0, &l), ERR_NOTFOUND);
    CHECK_ERR(job_log(f->c, s, S("p1"), S("../../etc/passwd"), 0, &l), ERR_NOTFOUND);
    CHECK_ERR(cancel(f, S("p1"), id), ERR_CONFLICT);
    CHECK(f->c->failure.why == &R_JOB_ENDED);
    CHECK_ERR(retry(f, id), ERR_CONFLICT);
    jobs_free(s);
}

JOB_TEST(job_unknown_kind_and_same_key) {
    Jobs *s;
    CHECK_OK(f->c, queue_open(f, 1, &s));
    Add a = { .spec = { .kind = "t.nothing", .payload = S("{}") } };
    CHECK_ERR(db_tx(f->c, f->db, add_tx, &a), ERR_NOTFOUND);
    CHECK(f->c->failure.why == &R_JOB_KIND);
    str one = add(f, (JobSpec){ .kind = "t.echo", .key = S("k") });
    CHECK(str_eq(add(f, (JobSpec){ .kind = "t.echo", .key = S("k") }), one));
    CHECK(!str_eq(add(f, (JobSpec){ .kind = "t.echo", .key = S("k"), .project = S("p2") }), one));
    CHECK(!str_eq(add(f, (JobSpec){ .kind = "t.gate", .key = S("k") }), one));
    CHECK(!str_eq(add(f, (JobSpec){ .kind = "t.echo" }), add(f, (JobSpec){ .kind = "t.echo" })));
    CHECK_INT(job_fix_int(f, "SELECT count(*) FROM job"), 5);
    jobs_free(s);
}

// Each code of the vocabulary either ends the job at once or is tried again until it passes.
JOB_TEST(job_errors_that_can_pass_are_tried_again) {
    static const err final[] = { ERR_INVALID,         ERR_DENIED,       ERR_NOTFOUND, ERR_CONFLICT,
                                 ERR_UNAUTHENTICATED, ERR_PRECONDITION, ERR_TOOLARGE, ERR_GONE,
                                 ERR_METHOD,          ERR_MEDIA,        ERR_RANGE,    ERR_BUDGET,
                                 ERR_HEADERS };
    Jobs *s;
    CHECK_OK(f->c, queue_open(f, 1, &s));
    jobs_start(s);
    for (int code = 1; code < ERR__COUNT; code++) {
        bool ends = false;
        for (size_t i = 0; i < countof(final); i++) ends = ends || (int) final[i] == code;
        atomic_store(&fail_code, code);
        atomic_store(&fail_times, 2);
        atomic_store(&ran, 0);
        JobView v;
        str id = add(f, (JobSpec){ .kind = "t.fails" });
        CHECK(wait_state(f, id, ends ? JOB_FAILED : JOB_DONE, &v));
        CHECK_INT(atomic_load(&ran), ends ? 1 : 3);
        CHECK_INT(v.attempt, ends ? 1 : 3);
        CHECK(ends == (v.error_slug.p != NULL));
        if (ends) CHECK_STR(v.error_slug, "internal"); // the reason's slug
        if (ends) CHECK_STR(v.error_text, "an internal error: as asked");
    }
    CHECK_INT(job_fix_int(f, "SELECT count(*) FROM after_log WHERE code = 0"),
              ERR__COUNT - 1 - (int)countof(final));
    jobs_free(s);
}

JOB_TEST(job_fails_after_its_attempts_and_can_be_asked_again) {
    Jobs *s;
    JobView v;
    CHECK_OK(f->c, queue_open(f, 1, &s));
    jobs_start(s);
    atomic_store(&fail_code, ERR_UNAVAILABLE);
    atomic_store(&fail_times, 1000);
    str id = add(f, (JobSpec){ .kind = "t.fails" });
    CHECK(wait_state(f, id, JOB_FAILED, &v));
    CHECK(v.attempt == 3 && v.attempts_max == 3 && v.ended_ms > 0);
    CHECK_INT(atomic_load(&ran), 3);
    CHECK_INT(job_fix_int(f, "SELECT code FROM after_log"), ERR_UNAVAILABLE);
    atomic_store(&fail_times, 4); // the fourth attempt fails, the fifth passes
    CHECK_OK(f->c, retry(f, id));
    CHECK(wait_state(f, id, JOB_DONE, &v));
    CHECK(v.attempt == 5 && !v.error_slug.p && !v.error_text.p);
    str log = whole_log(f, s, id);
    CHECK(str_find(log, S("attempt 2 failed: an internal error: as asked; it is tried again")) > 0);
    jobs_free(s);
}

// ---- waiting always has its reason

typedef struct Why {
    JobFix *f;
    str id;
    const char *reason;
    JobView view;
} Why;

static bool waits_because(void *arg) {
    Why *w = arg;
    w->view = view(w->f, w->id);
    return w->view.state == JOB_WAITING && str_is(w->view.wait_reason, w->reason);
}

// Waits until the job waits for this reason; its sentence. Absent when it never does.
static str why(JobFix *f, str id, const char *reason) {
    Why w = { .f = f, .id = id, .reason = reason };
    return job_fix_until(waits_because, &w) ? w.view.wait_text : (str){ 0 };
}

static bool two_run(void *arg) {
    return job_fix_int(arg, "SELECT count(*) FROM job WHERE state = 'running'") == 2;
}

// Jobs of a kind that wait for this reason; NULL: that run.
static int64_t depth(JobFix *f, Jobs *s, const char *kind, const char *reason) {
    JobDepth *d;
    size_t n;
    int64_t sum = 0;
    if (jobs_depths(f->c, s, &d, &n)) return -1;
    for (size_t i = 0; i < n; i++)
        if (str_is(d[i].kind, kind)
            && (reason ? str_is(d[i].wait_reason, reason) : d[i].state == JOB_RUNNING))
            sum += d[i].n;
    return sum;
}

JOB_TEST(job_waiting_says_why) {
    Jobs *s;
    CHECK_OK(f->c, queue_open(f, 3, &s));
    jobs_start(s);
    int64_t later_ms = os_wall_ms(f->c->os) + 90500;
    str later = add(f, (JobSpec){ .kind = "t.echo", .not_before_ms = later_ms });
    CHECK(str_starts(why(f, later, "not_before"), S("it starts in ")));
    atomic_store(&fail_code, ERR_UPSTREAM);
    atomic_store(&fail_times, 1);
    str failed = add(f, (JobSpec){ .kind = "t.slow" });
    CHECK(str_ends(why(f, failed, "retry_backoff"), S(" s, after: an internal error: as asked")));
    str pair[3], third = { 0 };
    for (int i = 0; i < 3; i++) pair[i] = add(f, (JobSpec){ .kind = "t.pair" });
    CHECK(job_fix_until(two_run, f));
    for (int i = 0; i < 3; i++)
        if (view(f, pair[i]).state == JOB_WAITING) third = pair[i];
    CHECK_STR(why(f, third, "parallel_limit"), "2 of at most 2 jobs of this kind are running");
    str gate = add(f, (JobSpec){ .kind = "t.gate" });
    CHECK(wait_state(f, gate, JOB_RUNNING, NULL));
    str behind = add(f, (JobSpec){ .kind = "t.echo" });
    CHECK_STR(why(f, behind, "no_worker"), "all 3 workers are busy");
    f->c->lang = "zh";
    CHECK_STR(why(f, behind, "no_worker"), "全部 3 个工作线程都在忙");
    f->c->lang = NULL;
    CHECK_INT(depth(f, s, "t.echo", "not_before"), 1);
    CHECK_INT(depth(f, s, "t.echo", "no_worker"), 1);
    CHECK_INT(depth(f, s, "t.slow", "retry_backoff"), 1);
    CHECK_INT(depth(f, s, "t.pair", "parallel_limit"), 1);
    CHECK_INT(depth(f, s, "t.pair", NULL), 2);
    CHECK_INT(depth(f, s, "t.gate", NULL), 1);
    gate_set(true);
    CHECK(wait_state(f, behind, JOB_DONE, NULL) && wait_state(f, third, JOB_DONE, NULL));
    CHECK(view(f, later).state == JOB_WAITING && view(f, failed).state == JOB_WAITING);
    jobs_free(s);
}

JOB_TEST(job_parallel_max_is_never_exceeded) {
    Jobs *s;
    str ids[12];
    CHECK_OK(f->c, queue_open(f, 6, &s));
    gate_set(true);
    jobs_start(s);
    for (int i = 0; i < 12; i++) ids[i] = add(f, (JobSpec){ .kind = "t.pair" });
    for (int i = 0; i < 12; i++) CHECK(wait_state(f, ids[i], JOB_DONE, NULL));
    CHECK(gate_most >= 1 && gate_most <= 2);
    JobCounts counts;
    do CHECK_OK(f->c, jobs_counts(f->c, s, &counts)); // counted just after the commit
    while (counts.done < 12);
    CHECK(counts.done == 12 && counts.taken == 12 && counts.waiting == 0 && counts.lost == 0);
    jobs_free(s);
}

JOB_TEST(job_priority_first_then_age) {
    enum { N = 8 };
    static const int priorities[N] = { 0, 5, -1, 5, 0, 0, 5, -1 };
    Jobs *s;
    str ids[N], want = S("");
    bool used[N] = { false };
    CHECK_OK(f->c, queue_open(f, 1, &s));
    for (int i = 0; i < N; i++)
        ids[i] = add(f, (JobSpec){ .kind = "t.order",
                                   .priority = priorities[i],
                                   .payload = str_z(say(f->c, "%d", i)) });
    for (int k = 0; k < N; k++) { // ids sort by time
        int best = -1;
        for (int i = 0; i < N; i++)
            if (!used[i]
                && (best < 0 || priorities[i] > priorities[best]
                    || (priorities[i] == priorities[best] && str_cmp(ids[i], ids[best]) < 0)))
                best = i;
        used[best] = true;
        want = arena_printf(f->c->mem, STR_FMT "%d ", STR_ARG(want), best);
    }
    jobs_start(s);
    for (int i = 0; i < N; i++) CHECK(wait_state(f, ids[i], JOB_DONE, NULL));
    CHECK_STR(str_z(order), want.p);
    jobs_free(s);
}

// ---- cancel

JOB_TEST(job_cancel_waiting_and_running) {
    Jobs *s;
    JobView v;
    CHECK_OK(f->c, queue_open(f, 1, &s));
    jobs_start(s);
    str running = add(f, (JobSpec){ .kind = "t.gate" });
    CHECK(wait_state(f, running, JOB_RUNNING, NULL));
    str waiting = add(f, (JobSpec){ .kind = "t.gate" });
    CHECK_ERR(cancel(f, S("p2"), waiting), ERR_NOTFOUND);
    CHECK_OK(f->c, cancel(f, S("p1"), waiting));
    v = view(f, waiting);
    CHECK(v.state == JOB_CANCELLED && v.attempt == 0 && v.ended_ms > 0);
    CHECK_ERR(retry(f, running), ERR_CONFLICT);
    CHECK(f->c->failure.why == &R_JOB_LIVE);
    CHECK_OK(f->c, cancel(f, S("p1"), running));
    CHECK(wait_state(f, running, JOB_CANCELLED, &v));
    CHECK(str_ends(whole_log(f, s, running), S(" cancelled\n")));
    CHECK_INT(
        job_fix_int(f, say(f->c, "SELECT count(*) FROM after_log WHERE code = %d", ERR_CANCELLED)),
        2);
    gate_set(true);
    CHECK_OK(f->c, retry(f, waiting));
    CHECK(wait_state(f, waiting, JOB_DONE, &v));
    CHECK(!v.cancel_asked);
    jobs_free(s);
}

JOB_TEST(job_attempt_has_a_timeout) {
    Jobs *s;
    JobView v;
    CHECK_OK(f->c, queue_open(f, 1, &s));
    jobs_start(s);
    str id = add(f, (JobSpec){ .kind = "t.brief" });
    CHECK(wait_state(f, id, JOB_FAILED, &v));
    CHECK_STR(v.error_slug, "deadline");
    jobs_free(s);
}

// ---- lists

static err list_tx(Ctx *c, Tx *tx, void *arg) {
    JobFilter *filter = arg;
    size_t seen = 0;
    for (;;) { // pages of three, the keys of each after the last of the one before
        JobView *page;
        size_t n;
        TRY(job_list(c, tx, filter, 3, &page, &n));
        for (size_t i = 0; i < n; i++) {
            if (filter->before_id.p && str_cmp(page[i].id, filter->before_id) >= 0)
                return ERR_INTERNAL;
            if (!filter->any_project && !str_eq(page[i].project, filter->project))
                return ERR_INTERNAL;
            if (filter->kind.p && !str_eq(page[i].kind, filter->kind)) return ERR_INTERNAL;
            if (filter->subject.p && !str_eq(page[i].subject, filter->subject)) return ERR_INTERNAL;
            if (filter->state && page[i].state != *filter->state) return ERR_INTERNAL;
            if (page[i].state == JOB_WAITING && !page[i].wait_text.n) return ERR_INTERNAL;
            filter->before_id = page[i].id;
        }
        seen += n;
        if (n < 3) break;
    }
    filter->before_id = str_z(say(c, "%zu", seen));
    return ERR_OK;
}

JOB_TEST(job_list_pages_hold_what_the_filter_says) {
    static const char *const kind_names[] = { "t.echo", "t.gate" };
    static const char *const projects[] = { "p1", "p2", "" }, *const subjects[] = { "", "m", "n" };
    static const JobState states[] = { JOB_WAITING, JOB_CANCELLED };
    Jobs *s;
    CHECK_OK(f->c, queue_open(f, 1, &s));
    for (int i = 0; i < 40; i++) {
        str project = str_z(projects[i % 3]);
        str id = add(f, (JobSpec){ .kind = kind_names[i % 2],
                                   .project = project,
                                   .subject = str_z(subjects[i / 2 % 3]) });
        if (i % 5 == 0) CHECK_OK(f->c, cancel(f, project, id));
    }
    for (int i = 0; i < 4 * 3 * 4 * 3; i++) {
        int p = i % 4, k = i / 4 % 3, m = i / 12 % 4, t = i / 48;
        JobFilter filter = { .any_project = p == 3 };
        if (p < 3) filter.project = str_z(projects[p]);
        if (k < 2) filter.kind = str_z(kind_names[k]);
        if (m < 3) filter.subject = str_z(subjects[m]);
        if (t < 2) filter.state = &states[t];
        const char *count =
            say(f->c, "SELECT count(*) FROM job WHERE %s%s%s AND %s%s%s AND %s%s%s AND %s%s%s",
                p < 3 ? "project = '" : "", p < 3 ? projects[p] : "1 = 1", p < 3 ? "'" : "",
                k < 2 ? "kind = '" : "", k < 2 ? kind_names[k] : "1 = 1", k < 2 ? "'" : "",
                m < 3 ? "subject = '" : "", m < 3 ? subjects[m] : "1 = 1", m < 3 ? "'" : "",
                t < 2 ? "state = '" : "", t < 2 ? job_state_name(states[t]) : "1 = 1",
                t < 2 ? "'" : "");
        CHECK_OK(f->c, db_read(f->c, f->db, list_tx, &filter));
        CHECK_STR(filter.before_id, say(f->c, "%lld", (long long)job_fix_int(f, count)));
    }
    jobs_free(s);
}

// ---- the log's limit, old jobs, events

static err run_chatter(Ctx *c, Job *j) {
    (void)c;
    for (int i = 0; i < 5000; i++) job_say(j, "%01023d\nsecond line of it", i);
    return ERR_OK;
}
static const JobKind kind_chatter = { .name = "t.chatter", .run = run_chatter };
static const JobKind *const chatter_kinds[] = { &kind_chatter };

JOB_TEST(job_log_is_cut_and_says_so) {
    Jobs *s;
    str log_dir = arena_printf(f->c->mem, "%s/log", test_dir());
    JobsConfig config = { f->db, chatter_kinds, 1, S("n"), log_dir, 1 };
    CHECK_OK(f->c, jobs_open(f->c, &config, &s));
    jobs_start(s);
    str id = add(f, (JobSpec){ .kind = "t.chatter" });
    CHECK(wait_state(f, id, JOB_DONE, NULL));
    str log = whole_log(f, s, id);
    CHECK(log.n > JOB_LOG_MAX - 2048 && log.n < JOB_LOG_MAX + (64 << 10));
    CHECK(str_find(log, S("[the log is full: later lines of the job are left out]\n")) > 0);
    CHECK(str_ends(log, S(" done\n")));
    for (str rest = log, line; str_cut(&rest, '\n', &line);) // no line can be forged
        CHECK(!line.n || line.p[0] == '2' || line.p[0] == '[');
    jobs_free(s);
}

JOB_TEST(job_trim_takes_old_ended_ones_with_their_logs) {
    Jobs *s;
    str done[3], waiting;
    str *names;
    size_t n;
    CHECK_OK(f->c, queue_open(f, 1, &s));
    jobs_start(s);
    for (int i = 0; i < 3; i++) {
        done[i] = add(f, (JobSpec){ .kind = "t.echo" });
        CHECK(wait_state(f, done[i], JOB_DONE, NULL));
    }
    waiting = add(f, (JobSpec){ .kind = "t.echo", .not_before_ms = os_wall_ms(f->c->os) + 90000 });
    const char *age = say(f->c,
                          "UPDATE job SET ended_ms = 10 WHERE id <> '" STR_FMT "'"
                          " AND ended_ms > 0",
                          STR_ARG(done[2]));
    CHECK_OK(f->c, job_fix_exec(f, age));
    CHECK_OK(f->c, jobs_trim(f->c, s, 11));
    CHECK_INT(job_fix_int(f, "SELECT count(*) FROM job"), 2);
    CHECK(view(f, done[2]).state == JOB_DONE && view(f, waiting).state == JOB_WAITING);
    CHECK_OK(f->c, dir_list(f->c, arena_printf(f->c->mem, "%s/log", test_dir()), &names, &n));
    CHECK(n == 1 && str_starts(names[0], done[2]));
    jobs_free(s);
}

static SQL(event_add, "INSERT INTO seen (id, state) VALUES ($1, $2)");
static err event_note(Ctx *c, Tx *tx, const JobView *v, void *arg) {
    (void)arg;
    return db_run(c, tx, &event_add, V(v->id), V(job_state_name(v->state)));
}

JOB_TEST(job_every_change_of_state_is_told_in_its_transaction) {
    Jobs *s;
    CHECK_OK(f->c, job_fix_exec(f, "CREATE TABLE seen (id TEXT, state TEXT)"));
    CHECK_OK(f->c, queue_open(f, 2, &s));
    jobs_on_change(s, event_note, NULL);
    jobs_start(s);
    atomic_store(&fail_code, ERR_UNAVAILABLE);
    atomic_store(&fail_times, 1);
    str id = add(f, (JobSpec){ .kind = "t.fails" });
    CHECK(wait_state(f, id, JOB_DONE, NULL));
    CHECK_INT(job_fix_int(f, "SELECT count(*) FROM seen WHERE state = 'waiting'"), 2);
    CHECK_INT(job_fix_int(f, "SELECT count(*) FROM seen WHERE state = 'running'"), 2);
    CHECK_INT(job_fix_int(f, "SELECT count(*) FROM seen WHERE state = 'done'"), 1);
    str second = add(f, (JobSpec){ .kind = "t.gate" });
    CHECK(wait_state(f, second, JOB_RUNNING, NULL));
    CHECK_OK(f->c, cancel(f, S("p1"), second));
    CHECK(wait_state(f, second, JOB_CANCELLED, NULL));
    CHECK_INT(job_fix_int(f, "SELECT count(*) FROM seen WHERE state = 'cancelled'"), 1);
    CHECK_INT(job_fix_int(f, "SELECT count(*) FROM seen"), 9); // waiting running asked cancelled
    jobs_free(s);
}
