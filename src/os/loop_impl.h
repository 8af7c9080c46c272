// SPDX-License-Identifier: Apache-2.0
// loop_impl.h - private to os/: what real and simulated loops, timers and streams share. Buffers,
// marks, time-outs, the order of hooks and flushes are the same code for both (loop.c, timer.c,
// stream.c); only moving bytes and waiting differ.
#ifndef LATHE_OS_LOOP_IMPL_H
#define LATHE_OS_LOOP_IMPL_H
#include "os/os_impl.h"

// A ring: a list head and its members; a member that is in no list points to itself.
typedef struct Link {
    struct Link *prev, *next;
} Link;
static inline void link_init(Link *l) { l->prev = l->next = l; }
static inline bool link_alone(const Link *l) { return l->next == l; }
static inline void link_add(Link *list, Link *l) {
    l->prev = list->prev;
    l->next = list;
    list->prev->next = l;
    list->prev = l;
}
static inline void link_del(Link *l) {
    l->prev->next = l->next;
    l->next->prev = l->prev;
    link_init(l);
}
static inline void link_take(Link *from, Link *to) { // all members of `from`; `to` was not set up
    link_add(from, to);
    link_del(from);
}
#define link_of(l, T, member) ((T *)((char *)(l)-offsetof(T, member)))

struct Timer {
    Loop *loop;
    void (*fn)(void *);
    void *arg;
    int64_t due_ns; // when it fires
    int64_t key_ns; // its place in the heap: never later than due_ns, so a restart need not move it
    uint64_t seq;   // among equal keys the first started goes first
    size_t at;      // index + 1 in the heap; 0: not in it
    bool running;
    Link all; // those of timer_new
};

typedef struct LoopOps {
    void (*run)(Loop *);
    void (*wake)(Loop *);  // any thread: something was posted, or the loop shall stop
    void (*armed)(Loop *); // a timer became the earliest
    void (*on_signal)(Loop *, int signal, void (*fn)(void *, int), void *arg);
    bool (*is_mine)(Loop *);
    void (*free)(Loop *);
} LoopOps;

typedef struct Post {
    void (*fn)(void *);
    void *arg;
    struct Post *next;
} Post;
typedef struct TurnHook {
    void (*fn)(void *);
    void *arg;
} TurnHook;
enum { LOOP_HOOKS_MAX = 16 };

struct Loop {
    const LoopOps *ops;
    Os *os;
    int64_t now_ns;            // 0: not looked at in this turn
    _Atomic(pthread_t) thread; // the last that ran it
    atomic_bool running, stopping;
    TurnHook hooks[LOOP_HOOKS_MAX];
    size_t hooks_n;
    Timer **heap;
    size_t heap_n, heap_cap;
    uint64_t timer_seq;
    pthread_mutex_t post_mutex;
    Post *post_first, **post_end; // under post_mutex
    atomic_size_t posted;
    Link touched;        // streams with output to flush
    Link pending;        // streams with something to tell their owner, or to read
    Link streams;        // all that live
    Link dead;           // freed in this turn: their memory is still good
    Link timers;         // those of timer_new
    bool lost;           // simulated: its machine has died; posted calls vanish
    atomic_size_t owned; // timers and streams of owners: none may be left at loop_free
};

void loop_init(Loop *l, Os *os, const LoopOps *ops);
void loop_done(Loop *l);      // after the last post has run
void loop_drop(Loop *l);      // frees what owners never will: simulated, their memory is gone
void loop_run_posts(Loop *l); // those posted before this call
void loop_settle(Loop *l);    // the end of a turn: hooks, flush, notices; then buries the dead
bool loop_unsettled(Loop *l); // something is left for the next turn: do not wait

int64_t timers_next_ns(Loop *l); // earliest key; -1: none. It may turn out to be a stopped one.
void timers_run(Loop *l);        // those due now
void timer_init(Timer *t, Loop *l, void (*fn)(void *), void *arg);
void timer_done(Timer *t);
void timer_start_at(Timer *t, int64_t due_ns);
#endif
