// SPDX-License-Identifier: Apache-2.0
// worker.c - see worker.h. Waiting is on the monotonic clock.
#include "res/worker.h"
#include "base/log.h"
#include "res/app.h"
#include <assert.h>

enum { BACKOFF_FIRST_MS = 100 };

struct Worker {
    App *app;
    const char *name;
    int64_t first_ms, every_ms, backoff_ms; // first: as it was started
    atomic_bool rests;
    err (*turn)(Ctx *, void *);
    void *arg;
    Thread thread;
    pthread_mutex_t lock;
    pthread_cond_t changed; // woken, stopped, or a turn ended
    bool woken, stop, joined;
    uint64_t begun, ended; // turns
    size_t waiting;        // in worker_sync
    Ctx *c;                // of the turn under way
    err last;
    const Reason *last_reason;
};

static _Thread_local Worker *current; // whose thread this is

static struct timespec when(Os *os, int64_t ms) {
    int64_t ns = os_mono_ns(os) + ms * 1000000;
    return (struct timespec){ ns / 1000000000, ns % 1000000000 };
}

// False when it is to stop.
static bool wait_turn(Worker *w, int64_t ms) {
    struct timespec until = when(w->app->os, ms);
    pthread_mutex_lock(&w->lock);
    while (!w->stop && !w->woken && !pthread_cond_timedwait(&w->changed, &w->lock, &until)) {}
    bool go = !w->stop;
    w->woken = false;
    if (go) w->begun++;
    pthread_mutex_unlock(&w->lock);
    return go;
}

static void say_failure(Worker *w, Ctx *c, err e) {
    const Reason *why = e ? c->failure.why : NULL;
    if (e && (e != w->last || why != w->last_reason) && e != ERR_CANCELLED) {
        Buf b;
        buf_init(&b, 4096);
        failure_format(&c->failure, "en", &b);
        log_at(w->name, LOG_WARN, c, "did not finish; it will be tried again", "error",
               err_row(e)->slug, "why", buf_z(&b));
        buf_done(&b);
    }
    w->last_reason = why;
}

static int64_t end_turn(Worker *w, Ctx *c, err e) {
    say_failure(w, c, e);
    w->backoff_ms = !e ? 0 : w->backoff_ms ? w->backoff_ms * 2 : BACKOFF_FIRST_MS;
    if (w->backoff_ms > w->every_ms) w->backoff_ms = w->every_ms;
    pthread_mutex_lock(&w->lock);
    w->last = e, w->ended = w->begun;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    return e ? w->backoff_ms : w->every_ms;
}

static void run(void *arg) {
    Worker *w = current = arg;
    for (int64_t ms = 0; wait_turn(w, ms);) {
        Ctx *c = app_ctx_new(w->app);
        pthread_mutex_lock(&w->lock);
        w->c = c;
        if (w->stop) ctx_cancel(c);
        pthread_mutex_unlock(&w->lock);
        err e = w->turn(c, w->arg);
        pthread_mutex_lock(&w->lock);
        w->c = NULL;
        pthread_mutex_unlock(&w->lock);
        ms = end_turn(w, c, e);
        app_ctx_free(c);
    }
}

Worker *worker_start(App *app, const char *name, int64_t every_ms, err (*turn)(Ctx *c, void *arg),
                     void *arg) {
    assert(every_ms > 0);
    Worker *w = mem_new(sizeof *w);
    *w = (Worker){ .app = app, .name = name, .turn = turn, .arg = arg };
    w->first_ms = w->every_ms = every_ms;
    pthread_condattr_t attr;
    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w->changed, &attr);
    pthread_condattr_destroy(&attr);
    thread_start(app->os, name, run, w, &w->thread);
    return w;
}

void worker_wake(Worker *w) {
    if (!w) return;
    pthread_mutex_lock(&w->lock);
    w->woken = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

void worker_pace(int64_t every_ms) {
    assert(current && every_ms > 0);
    current->every_ms = every_ms; // read by its own thread only
    atomic_store(&current->rests, every_ms > current->first_ms);
}

void worker_nudge(Worker *w) {
    if (w && atomic_load(&w->rests) && atomic_exchange(&w->rests, false)) worker_wake(w);
}

void worker_stop(Worker *w) {
    if (!w) return;
    pthread_mutex_lock(&w->lock);
    bool first = !w->joined;
    w->stop = w->joined = true;
    if (w->c) ctx_cancel(w->c);
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    if (first) thread_join(w->thread);
}

void worker_free(Worker *w) {
    if (!w) return;
    worker_stop(w);
    pthread_mutex_lock(&w->lock);
    while (w->waiting) pthread_cond_wait(&w->changed, &w->lock);
    pthread_mutex_unlock(&w->lock);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    mem_free(w);
}

err worker_sync(Ctx *c, Worker *w) {
    enum { LOOK_MS = 100 };
    err gone = ERR_OK;
    pthread_mutex_lock(&w->lock);
    uint64_t wanted = w->begun + 1;
    w->woken = true;
    w->waiting++;
    pthread_cond_broadcast(&w->changed);
    while (w->ended < wanted && !w->stop && !(gone = ctx_check(c))) {
        struct timespec until = when(w->app->os, LOOK_MS);
        pthread_cond_timedwait(&w->changed, &w->lock, &until);
    }
    err e = gone ? gone : w->ended < wanted ? ERR_CANCELLED : w->last;
    if (!--w->waiting) pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    if (gone) return gone;
    return e ? fail(c, e, R_INTERNAL, "why", say(c, "%s did not finish", w->name)) : ERR_OK;
}
