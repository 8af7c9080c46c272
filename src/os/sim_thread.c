// SPDX-License-Identifier: Apache-2.0
// sim_thread.c - simulated threads: each is a thread of the machine, so that thread-locals, stacks
// and debuggers work as ever, but only one runs at a time. Who runs holds the baton and gives it up
// only where a thread may wait: locks, conditions, joins, its loop, a disk. When it gets it back is
// an event like any other, so the seed decides every interleaving. A thread whose node has died
// never gets it back: what it held is memory that nobody looks at any more.
// Leaves pthread's own calls to sim_pthread.h, for programs that are linked to it.
// Owner: the Sim; stacks stay until the process ends. Threads: the baton's holder.
#include "os/sim_impl.h"
#include "os/sim_pthread.h"
#include <assert.h>
#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    STACK_BYTES = 1 << 20,
    WAKE_NS_MAX = 20000,
    PREEMPT_NS_MAX = 300000,
    NO_LIMIT = -1,
    STOPPED_LOOK_NS = 20000000
};

typedef struct SimThread {
    Link link; // in Sim.threads
    SimOs *os;
    unsigned life;
    void (*fn)(void *);
    void *arg;
    pthread_t thread;
    sem_t baton;
    const void *waits_for; // an address; NULL: it runs, or its event is on its way
    uint64_t ticket;       // of the newest event that may resume it: older ones mean nothing
    bool ended, late;      // late: its limit came before what it waited for
    SimLoop *current;      // Sim's, while it does not run
    bool in_pool;
    int depth;
} SimThread;

typedef struct Resume {
    SimThread *t;
    uint64_t ticket;
} Resume;

static _Thread_local SimThread *here;

bool sim_thread_here(void) { return here; }
Os *sim_thread_os(void) { return here ? &here->os->head : NULL; }

// ---- the baton

static void wait_baton(sem_t *baton) {
    while (sem_wait(baton)) assert(errno == EINTR);
}

// On the scheduler's thread: t runs until it waits or ends.
static void resume(SimThread *t) {
    Sim *s = t->os->sim;
    t->waits_for = NULL;
    sem_post(&t->baton);
    wait_baton(&s->baton);
}

static void comes(void *arg) {
    Resume r = *(Resume *)arg;
    SimThread *t = r.t;
    Sim *s = t->os->sim;
    bool waits = !t->ended && t->ticket == r.ticket && sim_alive(t->os, t->life);
    const SimNode *n = t->os->node;
    if (waits && t->os->stopped) {
        sim_at(s, s->now_ns + STOPPED_LOOK_NS, comes, arg);
        return;
    }
    if (waits && n->stalled_until_ns > s->now_ns && !n->holds) {
        sim_at(s, n->stalled_until_ns + sim_between(s, 1, WAKE_NS_MAX), comes, arg);
        return;
    }
    mem_free(arg);
    if (!waits) return;
    t->late = t->waits_for;
    resume(t);
}

static void resume_at(SimThread *t, int64_t at_ns) {
    Sim *s = t->os->sim;
    Resume *r = mem_new(sizeof *r);
    *r = (Resume){ t, ++t->ticket };
    sim_at(s, at_ns > s->now_ns ? at_ns : s->now_ns, comes, r);
}

// What it waited for has come.
static void wake(SimThread *t) {
    Sim *s = t->os->sim;
    t->waits_for = NULL;
    resume_at(t, s->now_ns + sim_between(s, 1, WAKE_NS_MAX));
}

// The baton goes back; returns when it is here again. Of a dead node it never is.
static void park(SimThread *t) {
    Sim *s = t->os->sim;
    t->current = s->current, t->in_pool = s->in_pool, t->depth = s->depth;
    sem_post(&s->baton);
    wait_baton(&t->baton);
    s->current = t->current, s->in_pool = t->in_pool, s->depth = t->depth;
}

// False when the limit came first.
static bool wait_for(const void *what, int64_t until_ns) {
    SimThread *t = here;
    assert(t && what);
    t->waits_for = what;
    t->late = false;
    t->ticket++;
    if (until_ns != NO_LIMIT) resume_at(t, until_ns);
    park(t);
    return !t->late;
}

void sim_thread_wait(const void *what) { wait_for(what, NO_LIMIT); }

void sim_threads_wake(Sim *s, const void *what) {
    for (Link *at = s->threads.next, *next; at != &s->threads; at = next) {
        SimThread *t = link_of(at, SimThread, link);
        next = at->next;
        if (!sim_alive(t->os, t->life)) link_del(at); // nobody will look for it any more
        else if (t->waits_for == what) wake(t);
    }
}

static void wake_one(Sim *s, const void *what) {
    size_t n = 0;
    SimThread *chosen = NULL;
    for (Link *at = s->threads.next; at != &s->threads; at = at->next) {
        SimThread *t = link_of(at, SimThread, link);
        if (t->waits_for == what && sim_alive(t->os, t->life) && !sim_random(s, ++n)) chosen = t;
    }
    if (chosen) wake(chosen);
}

void sim_thread_sleep(int64_t ns) {
    SimThread *t = here;
    if (!t) return;
    resume_at(t, t->os->sim->now_ns + ns);
    park(t);
}

void sim_thread_leave_if_dead(void) {
    SimThread *t = here;
    if (t && !sim_alive(t->os, t->life)) park(t);
}

bool sim_thread_in_child(void) { return here && here->os->process; }

void sim_thread_exit(int code) {
    assert(here && here->os->process);
    sim_process_exit(here->os->process, code);
    park(here); // and never comes back
    abort();
}

// Where another thread might get in between on a machine.
static void maybe_elsewhere(void) {
    Sim *s = here->os->sim;
    if (s->preempt && sim_chance(s, s->preempt))
        sim_thread_sleep(sim_between(s, 1, PREEMPT_NS_MAX));
}

// ---- starting and ending

static void *thread_main(void *arg) {
    SimThread *t = here = arg;
    Sim *s = t->os->sim;
    wait_baton(&t->baton);
    s->current = NULL, s->in_pool = false, s->depth = 1;
    t->fn(t->arg);
    t->ended = true;
    sim_threads_wake(s, t);
    sem_post(&s->baton);
    return NULL;
}

int sim_thread_start(Os *os, const char *name, void (*fn)(void *), void *arg, Thread *out) {
    Sim *s = sim_os(os)->sim;
    SimThread *t = mem_new(sizeof *t);
    *t = (SimThread){ .os = sim_os(os), .life = sim_os(os)->life, .fn = fn, .arg = arg };
    sem_init(&t->baton, 0, 0);
    link_add(&s->threads, &t->link);
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    int rc = pthread_create(&t->thread, &attr, thread_main, t);
    assert(rc == 0);
    pthread_attr_destroy(&attr);
    char short_name[16];
    snprintf(short_name, sizeof short_name, "%d:%s", t->os->node->id, name);
    pthread_setname_np(t->thread, short_name);
    wake(t);
    if (out) *out = (Thread)(uintptr_t)t;
    return 0;
}

void sim_thread_join(Thread thread) {
    SimThread *t = (SimThread *)(uintptr_t)thread;
    while (!t->ended) wait_for(t, NO_LIMIT);
}

void sim_threads_each(Sim *s, void (*fn)(pthread_t thread)) {
    for (Link *at = s->threads.next; at != &s->threads; at = at->next) {
        SimThread *t = link_of(at, SimThread, link);
        if (!t->ended && sim_alive(t->os, t->life)) fn(t->thread);
    }
}

void sim_preempt(Sim *s, unsigned chance) { s->preempt = chance; }

void sim_threads_init(Sim *s) {
    link_init(&s->threads);
    sem_init(&s->baton, 0, 0);
}

// Those that wait for ever keep their stacks: they were in the middle of something.
void sim_threads_done(Sim *s) {
    while (!link_alone(&s->threads)) {
        SimThread *t = link_of(s->threads.next, SimThread, link);
        link_del(&t->link);
        if (t->ended) mem_free(t);
    }
}

// ---- what pthread's waiting calls become

int sim_lock(void *lock, int (*attempt)(void *)) {
    Sim *s = here->os->sim;
    int rc;
    maybe_elsewhere();
    while ((rc = attempt(lock)) == EBUSY) {
        s->blocked++;
        wait_for(lock, NO_LIMIT);
        s->blocked--;
    }
    return rc;
}

void sim_unlocked(const void *lock) {
    if (here->os->sim->blocked) sim_threads_wake(here->os->sim, lock);
}

static int attempt_mutex(void *m) { return pthread_mutex_trylock(m); }

int sim_cond_wait(const void *cond, pthread_mutex_t *m, const struct timespec *until) {
    pthread_mutex_unlock(m);
    sim_unlocked(m);
    bool came =
        wait_for(cond, until ? (int64_t)until->tv_sec * 1000000000 + until->tv_nsec : NO_LIMIT);
    int rc = sim_lock(m, attempt_mutex);
    return rc ? rc : came ? 0 : ETIMEDOUT;
}

void sim_cond_wake(const void *cond, bool all) {
    if (all) sim_threads_wake(here->os->sim, cond);
    else wake_one(here->os->sim, cond);
    maybe_elsewhere();
}
