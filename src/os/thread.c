// SPDX-License-Identifier: Apache-2.0
// thread.c - threads, and the pool of the real machine: one queue, its workers wait on a condition.
// Owner: pool_new's caller. Threads: any may submit; pool_free comes last and once.
#include "os/real.h"
#include "os/sim_pthread.h"
#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Start {
    void (*fn)(void *);
    void *arg;
} Start;

static void *thread_main(void *arg) {
    Start s = *(Start *)arg;
    mem_free(arg);
    s.fn(s.arg);
    return NULL;
}

// Signals go to the threads that were there first: a worker's write is never cut short by one.
static void block_signals(sigset_t *out_before) {
    sigset_t most;
    sigfillset(&most);
    const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS };
    for (size_t i = 0; i < countof(faults); i++) sigdelset(&most, faults[i]);
    int rc = pthread_sigmask(SIG_SETMASK, &most, out_before);
    assert(rc == 0);
}

bool real_can_start(Os *os) { return (void)os, true; }

void real_pause(Os *os, int64_t ns) {
    (void)os;
    nanosleep(&(struct timespec){ ns / 1000000000, ns % 1000000000 }, NULL);
}

int real_thread_start(Os *os, const char *name, void (*fn)(void *), void *arg, Thread *out) {
    (void)os;
    Start *s = mem_new(sizeof *s);
    *s = (Start){ fn, arg };
    sigset_t before;
    block_signals(&before);
    int rc = pthread_create(out, NULL, thread_main, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc) {
        mem_free(s);
        return rc;
    }
    char short_name[16]; // the kernel keeps 15 bytes
    snprintf(short_name, sizeof short_name, "%s", name);
    pthread_setname_np(*out, short_name);
    return 0;
}

bool thread_can_start(Os *os) { return os->ops->can_start(os); }
void thread_pause(Os *os, int64_t ns) { os->ops->pause(os, ns); }

err thread_open(Ctx *c, const char *name, void (*fn)(void *), void *arg, Thread *out) {
    int rc = c->os->ops->thread_start(c->os, name, fn, arg, out);
    return rc ? os_fail(c, rc, "start", str_z(say(c, "the thread %s", name))) : ERR_OK;
}

void thread_start(Os *os, const char *name, void (*fn)(void *), void *arg, Thread *out) {
    int rc = os->ops->thread_start(os, name, fn, arg, out);
    if (!rc) return;
    fprintf(stderr, "no thread for %s: %s\n", name, strerror(rc));
    abort();
}

void thread_join(Thread t) {
    if (sim_thread_here()) {
        sim_thread_join(t);
        return;
    }
    int rc = pthread_join(t, NULL);
    assert(rc == 0);
}

typedef struct Work {
    void (*fn)(void *);
    void *arg;
} Work;

typedef struct RealPool {
    Pool head;
    pthread_mutex_t mutex;
    pthread_cond_t more;
    Work *ring; // queue_max of them
    size_t first, waiting, queue_max, running;
    bool closing;
    Thread *threads;
    size_t threads_n;
} RealPool;

static void worker(void *arg) {
    RealPool *p = arg;
    pthread_mutex_lock(&p->mutex);
    for (;;) {
        while (!p->waiting && !p->closing) pthread_cond_wait(&p->more, &p->mutex);
        if (!p->waiting) break;
        Work w = p->ring[p->first];
        p->first = (p->first + 1) % p->queue_max;
        p->waiting--;
        p->running++;
        pthread_mutex_unlock(&p->mutex);
        w.fn(w.arg);
        pthread_mutex_lock(&p->mutex);
        p->running--;
    }
    pthread_mutex_unlock(&p->mutex);
}

static bool submit(Pool *head, void (*fn)(void *), void *arg) {
    RealPool *p = (RealPool *)head;
    pthread_mutex_lock(&p->mutex);
    bool room = p->waiting < p->queue_max && !p->closing;
    if (room) {
        p->ring[(p->first + p->waiting) % p->queue_max] = (Work){ fn, arg };
        p->waiting++;
        pthread_cond_signal(&p->more);
    }
    pthread_mutex_unlock(&p->mutex);
    return room;
}

static size_t waiting(Pool *head) {
    RealPool *p = (RealPool *)head;
    pthread_mutex_lock(&p->mutex);
    size_t n = p->waiting;
    pthread_mutex_unlock(&p->mutex);
    return n;
}

static size_t running(Pool *head) {
    RealPool *p = (RealPool *)head;
    pthread_mutex_lock(&p->mutex);
    size_t n = p->running;
    pthread_mutex_unlock(&p->mutex);
    return n;
}

static void stop(Pool *head) {
    RealPool *p = (RealPool *)head;
    pthread_mutex_lock(&p->mutex);
    p->closing = true;
    pthread_cond_broadcast(&p->more);
    pthread_mutex_unlock(&p->mutex);
    for (size_t i = 0; i < p->threads_n; i++) thread_join(p->threads[i]);
    p->threads_n = 0;
    assert(!p->waiting && !p->running);
}

static void free_pool(Pool *head) {
    RealPool *p = (RealPool *)head;
    stop(head);
    pthread_cond_destroy(&p->more);
    pthread_mutex_destroy(&p->mutex);
    mem_free(p->ring);
    mem_free(p->threads);
    mem_free(p);
}

static const PoolOps pool_ops = { stop, free_pool, submit, waiting, running };

Pool *real_pool_new(Os *os, const char *name, int threads, size_t queue_max) {
    RealPool *p = mem_new(sizeof *p);
    p->head.ops = &pool_ops;
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->more, NULL);
    p->queue_max = queue_max;
    p->ring = mem_grow(NULL, queue_max, sizeof *p->ring);
    p->threads_n = (size_t)threads;
    p->threads = mem_grow(NULL, p->threads_n, sizeof *p->threads);
    for (size_t i = 0; i < p->threads_n; i++) thread_start(os, name, worker, p, &p->threads[i]);
    return &p->head;
}

Pool *pool_new(Os *os, const char *name, int threads, size_t queue_max) {
    assert(threads > 0 && queue_max > 0);
    return os->ops->pool_new(os, name, threads, queue_max);
}

void pool_stop(Pool *p) {
    if (p) p->ops->stop(p);
}

void pool_free(Pool *p) {
    if (p) p->ops->free(p);
}

bool pool_submit(Pool *p, void (*fn)(void *), void *arg) { return p->ops->submit(p, fn, arg); }
size_t pool_waiting(Pool *p) { return p->ops->waiting(p); }
size_t pool_running(Pool *p) { return p->ops->running(p); }
