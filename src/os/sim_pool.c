// SPDX-License-Identifier: Apache-2.0
// sim_pool.c - a simulated pool: its pieces run one at a time, outside any loop, so that touching a
// stream from one fails the same assertion as on the machine. With n threads any of the first n
// that wait may be next; a piece that waits for a child lets others of the pool run meanwhile.
// Owner: pool_new's caller; sim_free after a death. Threads: one.
#include "os/real.h"
#include "os/sim_impl.h"
#include "os/sim_pthread.h"
#include <assert.h>

enum { PIECE_NS_MAX = 1000000 };

typedef struct Piece {
    void (*fn)(void *);
    void *arg;
} Piece;

typedef struct SimPool {
    Pool head;
    SimThing thing;
    SimOs *os;
    unsigned life;
    size_t threads, queue_max, running;
    Piece *pieces;
    size_t n, cap;
    size_t events; // on their way to run a piece
    bool stopped, freed;
} SimPool;

static void piece_comes(void *arg);

static void schedule(SimPool *p) {
    Sim *s = p->os->sim;
    p->events++;
    sim_at(s, s->now_ns + sim_between(s, 1, PIECE_NS_MAX), piece_comes, p);
}

static void run_one(SimPool *p) {
    Sim *s = p->os->sim;
    size_t first = p->threads > p->running ? p->threads - p->running : 1;
    size_t i = sim_random(s, first < p->n ? first : p->n);
    Piece piece = p->pieces[i];
    memmove(&p->pieces[i], &p->pieces[i + 1], (--p->n - i) * sizeof piece);
    SimLoop *before = s->current;
    bool pool_before = s->in_pool;
    s->current = NULL;
    s->in_pool = true;
    s->depth++;
    p->running++;
    piece.fn(piece.arg);
    p->running--;
    s->depth--;
    s->current = before;
    s->in_pool = pool_before;
}

static void release(SimPool *p) {
    if (!p->freed || p->events) return;
    link_del(&p->thing.link);
    mem_free(p->pieces);
    mem_free(p);
}

static void piece_comes(void *arg) {
    SimPool *p = arg;
    p->events--;
    if (!p->freed && p->n && sim_alive(p->os, p->life)) {
        if (p->running < p->threads) run_one(p);
        else schedule(p); // all its threads wait for something
    }
    release(p);
}

static bool submit(Pool *head, void (*fn)(void *), void *arg) {
    SimPool *p = (SimPool *)head;
    if (p->stopped || !sim_alive(p->os, p->life) || p->n + p->running >= p->queue_max + p->threads)
        return false;
    if (p->n == p->cap) {
        p->cap = p->cap ? p->cap * 2 : 16;
        p->pieces = mem_grow(p->pieces, p->cap, sizeof *p->pieces);
    }
    p->pieces[p->n++] = (Piece){ fn, arg };
    schedule(p);
    return true;
}

// As if each thread had taken its piece at once.
static size_t running(Pool *head) {
    SimPool *p = (SimPool *)head;
    size_t n = p->running + p->n;
    return n < p->threads ? n : p->threads;
}

static size_t waiting(Pool *head) {
    SimPool *p = (SimPool *)head;
    return p->running + p->n - running(head);
}

static void stop(Pool *head) {
    SimPool *p = (SimPool *)head;
    while (p->n && sim_alive(p->os, p->life)) run_one(p);
    assert(!p->running);
    p->stopped = true;
}

static void free_pool(Pool *head) {
    SimPool *p = (SimPool *)head;
    stop(head);
    p->freed = true;
    release(p);
}

static void free_thing(SimThing *t) {
    SimPool *p = link_of(t, SimPool, thing);
    mem_free(p->pieces);
    mem_free(p);
}

static const PoolOps pool_ops = { stop, free_pool, submit, waiting, running };

Pool *sim_pool_new(Os *os, const char *name, int threads, size_t queue_max) {
    if (sim_thread_here()) return real_pool_new(os, name, threads, queue_max);
    SimPool *p = mem_new(sizeof *p);
    p->head.ops = &pool_ops;
    p->os = sim_os(os);
    p->life = p->os->life;
    p->threads = (size_t)threads;
    p->queue_max = queue_max;
    sim_own(p->os->sim, &p->thing, free_thing);
    return &p->head;
}
