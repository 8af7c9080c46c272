// SPDX-License-Identifier: Apache-2.0
// job_queue.c - the life of a queue: opening, its two threads, stopping, counting, trimming. One
// thread takes what is due (job_take.c), one beats (job_beat.c); both sleep until they are woken or
// a time comes. Simulated: timers of one loop. Owner: jobs_open's caller. Threads: any.
#include "job/job_own.h"
#include <assert.h>
#include <time.h>

enum { NS_PER_MS = 1000000 };

// ---- the registry: functions that have a Tx but no Jobs find the queue by its database

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static Jobs *registry;

Jobs *jobs_of(const Ctx *c) {
    if (!c->db) return NULL;
    pthread_mutex_lock(&registry_lock);
    Jobs *s = registry;
    while (s && s->db != c->db) s = s->next;
    pthread_mutex_unlock(&registry_lock);
    return s;
}

static void register_jobs(Jobs *s) {
    pthread_mutex_lock(&registry_lock);
    s->next = registry;
    registry = s;
    pthread_mutex_unlock(&registry_lock);
}

static void unregister_jobs(Jobs *s) {
    pthread_mutex_lock(&registry_lock);
    Jobs **at = &registry;
    while (*at && *at != s) at = &(*at)->next;
    if (*at) *at = s->next;
    pthread_mutex_unlock(&registry_lock);
}

void jobs_ctx(Jobs *s, Ctx *c) {
    ctx_init(c, arena_new(), s->os);
    c->db = s->db;
    if (s->on_ctx) s->on_ctx(c, s->on_ctx_arg);
}

// ---- threads

static void wait_on(Jobs *s, pthread_cond_t *cond, bool *flag, int64_t ms) {
    int64_t until = os_mono_ns(s->os) + ms * NS_PER_MS;
    struct timespec when = { until / 1000000000, until % 1000000000 };
    int timed_out = 0;
    while (!*flag && !timed_out) timed_out = pthread_cond_timedwait(cond, &s->lock, &when);
    *flag = false;
}

static void take_thread(void *arg) {
    Jobs *s = arg;
    for (;;) {
        int64_t wait_ms = jobs_take_pass(s);
        pthread_mutex_lock(&s->lock);
        bool stop = s->stopping;
        if (!stop) wait_on(s, &s->take_wake, &s->take_now, wait_ms);
        pthread_mutex_unlock(&s->lock);
        if (stop) return;
    }
}

static int64_t beat_wait_ms(const Jobs *s) { // lock held
    int64_t tick_ms = s->beat_ms < TICK_MS ? s->beat_ms : TICK_MS;
    return s->running ? tick_ms : s->beat_ms;
}

static void beat_thread(void *arg) {
    Jobs *s = arg;
    for (;;) {
        jobs_beat_pass(s);
        pthread_mutex_lock(&s->lock);
        bool stop = s->beat_stop;
        if (!stop) wait_on(s, &s->beat_wake, &s->beat_now, beat_wait_ms(s));
        pthread_mutex_unlock(&s->lock);
        if (stop) return;
    }
}

static void take_timer(void *arg) {
    Jobs *s = arg;
    timer_start(s->take_timer, jobs_take_pass(s));
}

static void beat_timer(void *arg) {
    Jobs *s = arg;
    jobs_beat_pass(s);
    timer_start(s->beat_timer, beat_wait_ms(s));
}

static void wake_posted(void *arg) {
    Jobs *s = *(Jobs **)arg; // NULL: stopped meanwhile
    mem_free(arg);
    if (!s) return;
    s->posted = NULL;
    timer_start(s->take_timer, 0);
    timer_start(s->beat_timer, 0);
}

void jobs_wake(void *arg) {
    Jobs *s = arg;
    if (s->loop) {
        if (s->posted || !s->take_timer) return;
        s->posted = mem_new(sizeof *s->posted);
        *s->posted = s;
        loop_post(s->loop, wake_posted, s->posted);
        return;
    }
    pthread_mutex_lock(&s->lock);
    s->take_now = s->beat_now = true;
    pthread_cond_broadcast(&s->take_wake);
    pthread_cond_broadcast(&s->beat_wake);
    pthread_mutex_unlock(&s->lock);
}

static void started(Jobs *s) {
    jobs_reap_pass(s, true);
    s->pool = pool_new(s->os, "job", s->workers, (size_t)s->workers);
    pthread_mutex_lock(&s->lock);
    s->started = true;
    pthread_mutex_unlock(&s->lock);
}

void jobs_start(Jobs *s) {
    assert(!s->started);
    started(s);
    thread_start(s->os, "job-take", take_thread, s, &s->take_thread);
    thread_start(s->os, "job-beat", beat_thread, s, &s->beat_thread);
}

void jobs_attach(Jobs *s, Loop *l) {
    assert(!s->started);
    s->loop = l;
    started(s);
    s->take_timer = timer_new(l, take_timer, s);
    s->beat_timer = timer_new(l, beat_timer, s);
    timer_start(s->take_timer, 0);
    timer_start(s->beat_timer, 0);
}

void jobs_stop(Jobs *s) {
    if (!s->started || s->stopping) return;
    pthread_mutex_lock(&s->lock);
    s->stopping = true;
    pthread_mutex_unlock(&s->lock);
    if (!s->loop) {
        jobs_wake(s);
        thread_join(s->take_thread);
    }
    pthread_mutex_lock(&s->lock);
    for (Job *j = s->running; j; j = j->next) {
        j->pausing = true;
        ctx_cancel(&j->c);
    }
    pthread_mutex_unlock(&s->lock);
    pool_free(s->pool); // while the beat keeps their leases
    pthread_mutex_lock(&s->lock);
    s->beat_stop = true;
    pthread_mutex_unlock(&s->lock);
    if (!s->loop) {
        jobs_wake(s);
        thread_join(s->beat_thread);
    }
    if (s->posted) *s->posted = NULL;
    s->posted = NULL;
    timer_free(s->take_timer);
    timer_free(s->beat_timer);
    s->take_timer = s->beat_timer = NULL;
}

// ---- opening, counting, trimming

static void conds_init(Jobs *s) {
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->take_wake, &attr);
    pthread_cond_init(&s->beat_wake, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&s->lock, NULL);
}

err jobs_open(Ctx *c, const JobsConfig *config, Jobs **out) {
    assert(config->workers > 0 && config->n <= KINDS_MAX && config->node.n);
    if (!config->tables_later) TRY(jobs_tables(c, config->db));
    TRY(dir_make(c, config->log_dir, 0700));
    Jobs *s = mem_new(sizeof *s);
    s->mem = arena_new();
    s->os = c->os;
    s->db = config->db;
    s->kinds_n = config->n;
    s->kinds = new (s->mem, const JobKind *, config->n + 1);
    for (size_t i = 0; i < config->n; i++) {
        s->kinds[i] = config->kinds[i];
        assert(s->kinds[i]->name && s->kinds[i]->run);
        assert(job_kind(s, str_z(s->kinds[i]->name), NULL) == s->kinds[i]); // named once
    }
    s->node = arena_str(s->mem, config->node);
    str life = os_id(c, "life");
    s->holder = arena_printf(s->mem, STR_FMT ":" STR_FMT, STR_ARG(s->node), STR_ARG(life));
    s->log_dir = arena_z(s->mem, config->log_dir);
    s->workers = config->workers;
    s->ttl_ms = lease_ttl_ms(s->db);
    s->beat_ms = lease_renew_ms(s->db);
    conds_init(s);
    register_jobs(s);
    *out = s;
    return ERR_OK;
}

void jobs_drop(Jobs *s) {
    assert(s->loop);
    pool_free(s->pool);
    while (s->running) {
        Job *j = s->running;
        s->running = j->next;
        job_free(j);
    }
    mem_free(s->posted); // it vanished with its loop
    s->posted = NULL;
    timer_free(s->take_timer);
    timer_free(s->beat_timer);
    s->stopping = true;
    jobs_free(s);
}

void jobs_free(Jobs *s) {
    if (!s) return;
    jobs_stop(s);
    assert(!s->running);
    unregister_jobs(s);
    pthread_cond_destroy(&s->take_wake);
    pthread_cond_destroy(&s->beat_wake);
    pthread_mutex_destroy(&s->lock);
    arena_free(s->mem);
    mem_free(s);
}

void jobs_on_change(Jobs *s, err (*fn)(Ctx *c, Tx *tx, const JobView *v, void *arg), void *arg) {
    s->on_change = fn;
    s->on_change_arg = arg;
}

void jobs_on_ctx(Jobs *s, void (*fn)(Ctx *c, void *arg), void *arg) {
    s->on_ctx = fn;
    s->on_ctx_arg = arg;
}

static SQL(job_count_waiting, "SELECT count(*) FROM job WHERE state = 'waiting'");

static err count_waiting(Ctx *c, Tx *tx, void *arg) {
    Rows *r;
    TRY(db_one(c, tx, &r, &job_count_waiting, NULL, 0));
    *(int64_t *)arg = col_int(r, 0);
    return ERR_OK;
}

err jobs_counts(Ctx *c, Jobs *s, JobCounts *out) {
    int64_t waiting;
    TRY(db_read(c, s->db, count_waiting, &waiting));
    pthread_mutex_lock(&s->lock);
    *out = s->counts;
    out->running = s->running_n;
    pthread_mutex_unlock(&s->lock);
    out->waiting = waiting;
    return ERR_OK;
}

static SQL(job_old, "SELECT id FROM job WHERE ended_ms > 0 AND ended_ms < $1"
                    " ORDER BY ended_ms LIMIT 500");
static SQL(job_remove, "DELETE FROM job WHERE id = $1 AND ended_ms > 0 AND ended_ms < $2");

typedef struct Trim {
    int64_t before_ms;
    str ids[500];
    size_t n;
} Trim;

static err trim_find(Ctx *c, Tx *tx, void *arg) {
    Trim *t = arg;
    Rows *r;
    t->n = 0;
    TRY(db_ask(c, tx, &r, &job_old, V(t->before_ms)));
    for (bool more = true; more && t->n < countof(t->ids);) {
        TRY(rows_next(c, r, &more));
        if (more) t->ids[t->n++] = col_str(r, 0);
    }
    rows_close(r);
    return ERR_OK;
}

static err trim_rows(Ctx *c, Tx *tx, void *arg) {
    Trim *t = arg;
    for (size_t i = 0; i < t->n; i++)
        TRY(db_run(c, tx, &job_remove, V(t->ids[i]), V(t->before_ms)));
    return ERR_OK;
}

// The logs first: a crash in between leaves a job without its log, never a log without its job.
err jobs_trim(Ctx *c, Jobs *s, int64_t before_ms) {
    Trim *t = new (c->mem, Trim, 1);
    t->before_ms = before_ms;
    do {
        TRY(db_read(c, s->db, trim_find, t));
        for (size_t i = 0; i < t->n; i++) {
            err e = path_remove(c, job_log_path(c, s, t->ids[i]));
            if (e && e != ERR_NOTFOUND) return e;
        }
        if (t->n) TRY(db_tx(c, s->db, trim_rows, t));
    } while (t->n == countof(t->ids));
    return ERR_OK;
}
