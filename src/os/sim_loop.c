// SPDX-License-Identifier: Apache-2.0
// sim_loop.c - simulated loops. A loop's turn is one step of the simulation, run by the shared code
// of loop.c; which loop comes next is a matter of time and the seed.
// Owner: loop_new's caller; sim_free for what a death left behind. Threads: one.
#include "os/sim_impl.h"
#include "os/sim_pthread.h"
#include <assert.h>

enum { WAKE_NS_MAX = 20000 };

typedef struct SimCall {
    void (*fn)(void *);
    void *arg;
    struct SimCall *next;
} SimCall;

static Sim *sim_of(SimLoop *l) { return l->os->sim; }
static bool lives(SimLoop *l) { return !l->freed && sim_alive(l->os, l->life); }
static void nothing(void *arg) { (void)arg; }
static void turn_comes(void *arg);

static void schedule(SimLoop *l, int64_t at_ns) {
    Sim *s = sim_of(l);
    if (!lives(l) || l->head.stopping || (l->turn_at && l->turn_at <= at_ns)) return;
    l->turn_at = at_ns > s->now_ns ? at_ns : s->now_ns;
    l->refs++;
    sim_at(s, l->turn_at, turn_comes, l);
}

static void schedule_soon(SimLoop *l) {
    schedule(l, sim_of(l)->now_ns + sim_between(sim_of(l), 1, WAKE_NS_MAX));
}

static void schedule_next(SimLoop *l) {
    int64_t timer = timers_next_ns(&l->head);
    if (loop_unsettled(&l->head)) schedule_soon(l);
    if (timer >= 0) schedule(l, timer);
}

static void turn(SimLoop *l, void (*fn)(void *), void *arg) {
    Sim *s = sim_of(l);
    SimLoop *before = s->current;
    bool pool_before = s->in_pool, running_before = l->head.running;
    s->current = l;
    s->in_pool = false;
    l->busy = true;
    l->head.running = true;
    l->head.now_ns = 0;
    fn(arg);
    if (lives(l)) timers_run(&l->head);
    if (lives(l)) loop_run_posts(&l->head);
    if (lives(l)) loop_settle(&l->head);
    l->busy = false;
    l->head.running = running_before;
    s->current = before;
    s->in_pool = pool_before;
}

static void take_waiting(SimLoop *l) {
    SimCall call = *l->waiting;
    mem_free(l->waiting);
    l->waiting = call.next;
    if (lives(l) && !l->head.stopping) turn(l, call.fn, call.arg);
}

void sim_turn(SimLoop *l, void (*fn)(void *), void *arg) {
    if (!lives(l) || l->head.stopping) return;
    if (l->busy || l->threaded) {
        SimCall **end = &l->waiting, *call = mem_new(sizeof *call);
        while (*end) end = &(*end)->next;
        *call = (SimCall){ fn, arg, NULL };
        *end = call;
        if (l->threaded) sim_threads_wake(sim_of(l), l);
        return;
    }
    turn(l, fn, arg);
    while (l->waiting) take_waiting(l);
    schedule_next(l);
}

void sim_turns_forget(Sim *s, const void *p, size_t n) {
    for (Link *at = s->loops.next; at != &s->loops; at = at->next) {
        SimCall **next = &link_of(at, SimLoop, link)->waiting;
        while (*next) {
            SimCall *call = *next;
            bool within = (uintptr_t)call->arg - (uintptr_t)p < n;
            if (within) *next = call->next, mem_free(call);
            else next = &call->next;
        }
    }
}

static void turn_comes(void *arg) {
    SimLoop *l = arg;
    bool due = l->turn_at == sim_of(l)->now_ns; // else an earlier one was scheduled meanwhile
    if (due) l->turn_at = 0;
    l->due |= due;
    if (due && l->threaded) sim_threads_wake(sim_of(l), l);
    else if (due && !l->busy) sim_turn(l, nothing, NULL);
    sim_loop_unref(l);
}

void sim_loop_unref(SimLoop *l) {
    assert(l->refs);
    if (--l->refs || !l->freed) return;
    link_del(&l->link);
    mem_free(l);
}

void sim_loops_kick(Sim *s) {
    for (Link *at = s->loops.next; at != &s->loops; at = at->next) {
        SimLoop *l = link_of(at, SimLoop, link);
        if (!l->turn_at && lives(l) && loop_unsettled(&l->head)) schedule_soon(l);
    }
}

// --- the loop's operations

static void run_on_thread(SimLoop *l) {
    schedule_soon(l); // whatever was set up before
    while (!l->head.stopping) {
        if (l->waiting) {
            take_waiting(l);
        } else if (l->due) {
            l->due = false;
            turn(l, nothing, NULL);
        } else {
            schedule_next(l);
            sim_thread_wait(l);
        }
    }
}

static void run(Loop *head) {
    Sim *s = sim_of((SimLoop *)head);
    if (((SimLoop *)head)->threaded) {
        run_on_thread((SimLoop *)head);
        return;
    }
    assert(!s->depth); // a loop that runs within a step would keep the world from going on
    do sim_loops_kick(s);
    while (!head->stopping && sim_step(s, INT64_MAX));
}

static void wake(Loop *head) {
    SimLoop *l = (SimLoop *)head;
    if (!l->busy) schedule_soon(l);
    if (l->threaded) sim_threads_wake(sim_of(l), l); // a stop is seen at once
}

static void armed(Loop *head) {
    SimLoop *l = (SimLoop *)head;
    if (!l->busy) schedule(l, timers_next_ns(head));
}

static bool is_mine(Loop *head) {
    SimLoop *l = (SimLoop *)head;
    Sim *s = sim_of(l);
    bool idle = l->threaded ? !head->running : !s->depth;
    return head->lost || idle || s->current == l;
}

static void on_signal(Loop *head, int signal, void (*fn)(void *, int), void *arg) {
    SimLoop *l = (SimLoop *)head;
    assert(signal > 0 && (size_t)signal < countof(l->signals));
    l->signals[signal].fn = fn;
    l->signals[signal].arg = arg;
    if (l->threaded) l->os->signals = l;
}

static void free_loop(Loop *head) {
    SimLoop *l = (SimLoop *)head;
    assert(head->lost || !head->owned);
    loop_drop(head); // of a lost loop: what its owner left
    loop_done(head);
    if (l->os->signals == l) l->os->signals = NULL;
    while (l->waiting) {
        SimCall *call = l->waiting;
        l->waiting = call->next;
        mem_free(call);
    }
    l->freed = true;
    l->refs++;
    sim_loop_unref(l);
}

static const LoopOps loop_ops = {
    .run = run,
    .wake = wake,
    .armed = armed,
    .on_signal = on_signal,
    .is_mine = is_mine,
    .free = free_loop,
};

Loop *sim_loop_new(Os *os) {
    SimLoop *l = mem_new(sizeof *l);
    loop_init(&l->head, os, &loop_ops);
    l->os = sim_os(os);
    l->life = l->os->life;
    l->threaded = sim_thread_here();
    link_add(&l->os->sim->loops, &l->link);
    return &l->head;
}

void sim_loop_drop(SimLoop *l) {
    for (SimCall *c = l->waiting, *next; c; c = next) {
        next = c->next;
        mem_free(c);
    }
    if (!l->freed) {
        l->head.lost = true;
        loop_drop(&l->head);
        loop_done(&l->head);
    }
    link_del(&l->link);
    mem_free(l);
}
