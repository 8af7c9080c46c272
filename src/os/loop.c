// SPDX-License-Identifier: Apache-2.0
// loop.c - what is the same for real and simulated loops: posted calls, turn hooks, and the end of
// a turn. Waiting is loop_real.c and sim_loop.c.
// Owner: loop_new's caller. Threads: loop.h.
#include "os/stream_impl.h"
#include <assert.h>
#include <errno.h>

// After flushing, owners may write again. Each round runs the hooks first; past this many the rest
// waits for the next turn, so that one busy stream cannot starve the others.
enum { ROUNDS_MAX = 4 };

void loop_init(Loop *l, Os *os, const LoopOps *ops) {
    l->ops = ops;
    l->os = os;
    l->post_end = &l->post_first;
    pthread_mutex_init(&l->post_mutex, NULL);
    link_init(&l->touched);
    link_init(&l->pending);
    link_init(&l->streams);
    link_init(&l->dead);
    link_init(&l->timers);
}

void loop_done(Loop *l) {
    assert(!l->post_first && link_alone(&l->streams) && link_alone(&l->dead));
    pthread_mutex_destroy(&l->post_mutex);
    l->heap = mem_free(l->heap);
}

static void drop_posts(Loop *l) {
    for (Post *p = l->post_first, *next; p; p = next) {
        next = p->next;
        mem_free(p);
    }
    l->post_first = NULL;
    l->post_end = &l->post_first;
    l->posted = 0;
}

void loop_drop(Loop *l) {
    drop_posts(l);
    streams_drop(l, false);
    streams_bury(l);
    while (!link_alone(&l->timers)) timer_free(link_of(l->timers.next, Timer, all));
    l->owned = 0;
}

err loop_open(Ctx *c, Loop **out) {
    *out = c->os->ops->loop_new(c->os);
    return *out ? ERR_OK : os_fail(c, errno, "open", S("an event loop"));
}

Loop *loop_new(Os *os) {
    Loop *l = os->ops->loop_new(os);
    assert(l);
    return l;
}

bool loop_finish(Loop *l) {
    assert(!l->running && l->stopping && loop_is_mine(l));
    bool any = l->posted != 0;
    loop_run_posts(l);
    return any;
}

void loop_free(Loop *l) {
    if (!l) return;
    assert(!l->running && loop_is_mine(l));
    l->stopping = true;
    if (l->lost) drop_posts(l);
    while (l->posted) loop_run_posts(l);
    streams_drop(l, true);
    streams_bury(l);
    l->ops->free(l);
}

void loop_run(Loop *l) {
    assert(loop_is_mine(l));
    l->thread = pthread_self(); // before running: who posts meanwhile compares with it
    l->running = true;
    l->ops->run(l);
    l->now_ns = 0;
    l->running = false;
}

void loop_stop(Loop *l) {
    l->stopping = true;
    l->ops->wake(l);
}

Os *loop_os(Loop *l) { return l->os; }
bool loop_is_mine(Loop *l) { return l->ops->is_mine(l); }
bool loop_stopping(Loop *l) { return l->stopping; }

int64_t loop_now_ns(Loop *l) {
    if (!l->running) return os_mono_ns(l->os); // no turn: nothing would make a kept value new
    if (!l->now_ns) l->now_ns = os_mono_ns(l->os);
    return l->now_ns;
}

void loop_post(Loop *l, void (*fn)(void *), void *arg) {
    assert(fn);
    Post *p = mem_new(sizeof *p);
    *p = (Post){ fn, arg, NULL };
    pthread_mutex_lock(&l->post_mutex);
    bool first = !l->post_first;
    *l->post_end = p;
    l->post_end = &p->next;
    l->posted++;
    pthread_mutex_unlock(&l->post_mutex);
    if (first) l->ops->wake(l); // one wake a burst
}

void loop_run_posts(Loop *l) {
    if (!l->posted) return;
    pthread_mutex_lock(&l->post_mutex);
    Post *p = l->post_first;
    l->post_first = NULL;
    l->post_end = &l->post_first;
    l->posted = 0;
    pthread_mutex_unlock(&l->post_mutex);
    while (p) {
        Post *next = p->next;
        p->fn(p->arg);
        mem_free(p);
        p = next;
    }
}

void loop_on_turn(Loop *l, void (*fn)(void *), void *arg) {
    assert(fn && loop_is_mine(l) && l->hooks_n < LOOP_HOOKS_MAX);
    l->hooks[l->hooks_n++] = (TurnHook){ fn, arg };
}

void loop_on_signal(Loop *l, int signal, void (*fn)(void *, int), void *arg) {
    assert(fn && loop_is_mine(l));
    l->ops->on_signal(l, signal, fn, arg);
}

bool loop_unsettled(Loop *l) {
    return l->posted || !link_alone(&l->touched) || !link_alone(&l->pending);
}

static void settle_round(Loop *l) {
    for (size_t i = 0; i < l->hooks_n; i++) l->hooks[i].fn(l->hooks[i].arg);
    Link now;
    link_take(&l->touched, &now);
    while (!link_alone(&now)) {
        Stream *s = link_of(now.next, Stream, touched);
        link_del(&s->touched);
        stream_flush(s); // calls nobody: it only makes streams pending
    }
    link_take(&l->pending, &now);
    while (!link_alone(&now)) {
        Stream *s = link_of(now.next, Stream, pending);
        link_del(&s->pending);
        stream_attend(s);
    }
}

void loop_settle(Loop *l) {
    for (int round = 0; round < ROUNDS_MAX; round++) {
        settle_round(l);
        if (link_alone(&l->touched) && link_alone(&l->pending)) break;
    }
    streams_bury(l);
}
