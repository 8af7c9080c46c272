// SPDX-License-Identifier: Apache-2.0
// timer.c - timers of a loop, real or simulated: a binary heap by time, then by order of starting.
// There is about one idle timer a stream and each read restarts it, so restarting to a later time,
// and stopping, only write a field: the heap is put right when the old time comes.
// Owner: timer_new's caller, before its loop is freed. Threads: the loop's.
#include "os/loop_impl.h"
#include <assert.h>

static bool before(const Timer *a, const Timer *b) {
    return a->key_ns != b->key_ns ? a->key_ns < b->key_ns : a->seq < b->seq;
}

static void put(Loop *l, size_t i, Timer *t) {
    l->heap[i] = t;
    t->at = i + 1;
}

static void sift_up(Loop *l, size_t i, Timer *t) {
    while (i && before(t, l->heap[(i - 1) / 2])) {
        put(l, i, l->heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    put(l, i, t);
}

static void sift_down(Loop *l, size_t i, Timer *t) {
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= l->heap_n) break;
        if (child + 1 < l->heap_n && before(l->heap[child + 1], l->heap[child])) child++;
        if (!before(l->heap[child], t)) break;
        put(l, i, l->heap[child]);
        i = child;
    }
    put(l, i, t);
}

static void heap_add(Loop *l, Timer *t) {
    assert(!t->at);
    if (l->heap_n == l->heap_cap) {
        l->heap_cap = l->heap_cap ? l->heap_cap * 2 : 64;
        l->heap = mem_grow(l->heap, l->heap_cap, sizeof(Timer *));
    }
    sift_up(l, l->heap_n++, t);
}

static void heap_del(Loop *l, Timer *t) {
    assert(t->at && l->heap[t->at - 1] == t);
    size_t i = t->at - 1;
    Timer *last = l->heap[--l->heap_n];
    t->at = 0;
    if (last == t) return;
    if (i && before(last, l->heap[(i - 1) / 2])) sift_up(l, i, last);
    else sift_down(l, i, last);
}

void timer_init(Timer *t, Loop *l, void (*fn)(void *), void *arg) {
    *t = (Timer){ .loop = l, .fn = fn, .arg = arg };
}

void timer_done(Timer *t) {
    if (t->at) heap_del(t->loop, t);
    t->running = false;
}

void timer_start_at(Timer *t, int64_t due_ns) {
    Loop *l = t->loop;
    assert(loop_is_mine(l));
    t->due_ns = due_ns;
    t->running = true;
    if (t->at && t->key_ns <= due_ns) return;
    if (t->at) heap_del(l, t);
    t->key_ns = due_ns;
    t->seq = ++l->timer_seq;
    heap_add(l, t);
    if (t->at == 1) l->ops->armed(l);
}

Timer *timer_new(Loop *l, void (*fn)(void *), void *arg) {
    assert(fn && loop_is_mine(l));
    Timer *t = mem_new(sizeof *t);
    timer_init(t, l, fn, arg);
    link_add(&l->timers, &t->all);
    l->owned++;
    return t;
}

// Not within this turn even for 0 ms: a timer that restarts itself must not keep the loop from its
// sockets.
void timer_start(Timer *t, int64_t ms) {
    assert(ms >= 0 && ms < INT64_MAX / 4000000);
    timer_start_at(t, loop_now_ns(t->loop) + (ms ? ms * 1000000 : 1));
}

void timer_stop(Timer *t) {
    assert(loop_is_mine(t->loop));
    t->running = false;
}

void timer_free(Timer *t) {
    if (!t) return;
    assert(loop_is_mine(t->loop) && t->loop->owned);
    t->loop->owned--;
    timer_done(t);
    link_del(&t->all);
    mem_free(t);
}

bool timer_running(const Timer *t) { return t->running; }

int64_t timers_next_ns(Loop *l) { return l->heap_n ? l->heap[0]->key_ns : -1; }

void timers_run(Loop *l) {
    int64_t now = loop_now_ns(l);
    while (l->heap_n && l->heap[0]->key_ns <= now) {
        Timer *t = l->heap[0];
        heap_del(l, t);
        if (!t->running) continue;
        if (t->due_ns > now) { // restarted since it took this place
            timer_start_at(t, t->due_ns);
            continue;
        }
        t->running = false;
        t->fn(t->arg); // may free t
    }
}
