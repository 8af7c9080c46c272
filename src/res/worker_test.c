// SPDX-License-Identifier: Apache-2.0
// worker_test.c - a turn for each wake-up, again after a failure, and an end that waits for it.
#include "base/test.h"
#include "res/app.h"
#include "res/worker.h"

enum { HOUR_MS = 3600000 };

typedef struct Job {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int64_t given, seen; // what the test put there, and what a turn has read
    int turns, fails;    // fails: so many turns fail first
    bool hold, held, cancelled;
} Job;

static err fail_turn(Ctx *c) { return fail(c, ERR_UNAVAILABLE, R_INTERNAL, "why", "a test"); }

// Holding, it ends only when its Ctx is cancelled.
static err turn(Ctx *c, void *arg) {
    Job *j = arg;
    pthread_mutex_lock(&j->lock);
    j->turns++, j->seen = j->given;
    bool bad = j->fails > 0;
    if (bad) j->fails--;
    j->held = j->hold;
    pthread_cond_broadcast(&j->changed);
    while (j->hold && !ctx_cancelled(c)) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 1000000;
        if (until.tv_nsec >= 1000000000) until.tv_nsec -= 1000000000, until.tv_sec++;
        pthread_cond_timedwait(&j->changed, &j->lock, &until);
    }
    j->cancelled = ctx_cancelled(c);
    pthread_mutex_unlock(&j->lock);
    return bad ? fail_turn(c) : ERR_OK;
}

typedef struct Fix {
    App app;
    Job job;
    Worker *w;
    Ctx *c;
} Fix;

static Fix *fix_start(int fails, bool hold) {
    Ctx *c = test_ctx();
    Fix *f = new (c->mem, Fix, 1);
    *f = (Fix){ .app.os = os_real(), .job = { .fails = fails, .hold = hold }, .c = c };
    pthread_mutex_init(&f->job.lock, NULL);
    pthread_cond_init(&f->job.changed, NULL);
    c->os = f->app.os;
    f->w = worker_start(&f->app, "test", HOUR_MS, turn, &f->job);
    return f;
}

static void wait_turns(Fix *f, int n) {
    pthread_mutex_lock(&f->job.lock);
    while (f->job.turns < n) pthread_cond_wait(&f->job.changed, &f->job.lock);
    pthread_mutex_unlock(&f->job.lock);
}

static int64_t give(Fix *f, int64_t n) {
    pthread_mutex_lock(&f->job.lock);
    f->job.given = n;
    pthread_mutex_unlock(&f->job.lock);
    return n;
}

static int64_t seen(Fix *f) {
    pthread_mutex_lock(&f->job.lock);
    int64_t n = f->job.seen;
    pthread_mutex_unlock(&f->job.lock);
    return n;
}

TEST(worker_begins_at_once_and_when_woken) {
    Fix *f = fix_start(0, false);
    wait_turns(f, 1);
    worker_wake(f->w);
    wait_turns(f, 2);
    worker_free(f->w);
    worker_wake(NULL), worker_stop(NULL), worker_free(NULL);
}

// Whatever turn was under way: the one that is waited for began after the call.
TEST(worker_sync_sees_what_was_given_before) {
    Fix *f = fix_start(0, false);
    for (int64_t i = 1; i <= 300; i++) {
        give(f, i);
        if (i % 3 == 0) worker_wake(f->w); // so that one may be under way
        CHECK_OK(f->c, worker_sync(f->c, f->w));
        CHECK(seen(f) >= i);
    }
    worker_free(f->w);
}

TEST(worker_tries_again_after_a_failure) {
    Fix *f = fix_start(3, false); // each hour by itself: what comes sooner is the back-off
    wait_turns(f, 4);
    CHECK_OK(f->c, worker_sync(f->c, f->w));
    pthread_mutex_lock(&f->job.lock);
    f->job.fails = 1;
    pthread_mutex_unlock(&f->job.lock);
    CHECK_ERR(worker_sync(f->c, f->w), ERR_UNAVAILABLE); // its error is that turn's
    worker_free(f->w);
}

TEST(worker_stop_cancels_the_turn_under_way_and_waits) {
    Fix *f = fix_start(0, true);
    wait_turns(f, 1);
    CHECK(f->job.held);
    worker_stop(f->w);
    CHECK(f->job.cancelled);
    worker_wake(f->w); // allowed, and nothing comes of it
    worker_free(f->w);
    CHECK_INT(f->job.turns, 1);
}

typedef struct Syncer {
    Fix *f;
    int64_t base;
    int late;
} Syncer;
static void sync_many(void *arg) {
    Syncer *s = arg;
    Ctx *c = app_ctx_new(&s->f->app);
    for (int i = 0; i < 50; i++) {
        pthread_mutex_lock(&s->f->job.lock);
        int64_t mine = ++s->f->job.given;
        pthread_mutex_unlock(&s->f->job.lock);
        if (worker_sync(c, s->f->w) || seen(s->f) < mine) s->late++;
    }
    app_ctx_free(c);
}

TEST(worker_sync_from_many_threads) {
    Fix *f = fix_start(0, false);
    Thread threads[4];
    Syncer s[4];
    for (int i = 0; i < 4; i++) {
        s[i] = (Syncer){ f, 0, 0 };
        thread_start(f->app.os, "sync", sync_many, &s[i], &threads[i]);
    }
    for (int i = 0; i < 4; i++) thread_join(threads[i]);
    worker_free(f->w);
    for (int i = 0; i < 4; i++) CHECK_INT(s[i].late, 0);
    CHECK_INT(f->job.seen, 200);
}
