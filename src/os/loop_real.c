// SPDX-License-Identifier: Apache-2.0
// loop_real.c - a loop on libevent's epoll, with three things of its own. Output is written at the
// end of a turn instead of by a write event: that saves two epoll_ctl and an epoll_wait an answer
// (README.md has the figures). Posts wake it by one eventfd write a burst. Timers are timer.c's,
// behind one timerfd, so most turns look at no clock but once. Both descriptors are edge-triggered
// and therefore never read.
// Owner: loop_new's caller. Threads: the loop's; wake any.
#include "os/loop_impl.h"
#include "os/real.h"
#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { SIGNALS_MAX = 8 };

typedef struct SignalWatch {
    struct event event;
    void (*fn)(void *, int);
    void *arg;
} SignalWatch;

typedef struct RealLoop {
    Loop head;
    struct event_base *base;
    struct event wake_event, timer_event;
    int wake_fd, timer_fd;
    int64_t armed_ns; // what timer_fd is set to; 0: nothing
    SignalWatch signals[SIGNALS_MAX];
    size_t signals_n;
} RealLoop;

struct event_base *real_loop_base(Loop *l) {
    return ((RealLoop *)l)->base;
}

static bool is_mine(Loop *head) {
    return !head->running || pthread_equal(head->thread, pthread_self());
}

static void wake(Loop *head) {
    RealLoop *l = (RealLoop *)head;
    if (head->running && is_mine(head)) return; // it looks before it waits
    uint64_t one = 1;
    ssize_t n;
    do n = write(l->wake_fd, &one, sizeof one);
    while (n < 0 && errno == EINTR);
    assert(n == sizeof one);
}

static void on_wake(evutil_socket_t fd, short what, void *arg) {
    (void)fd, (void)what, (void)arg; // the turn runs what was posted
}

static void on_timer(evutil_socket_t fd, short what, void *arg) {
    (void)fd, (void)what;
    RealLoop *l = arg;
    l->armed_ns = 0;
    timers_run(&l->head);
}

static void armed(Loop *l) { (void)l; } // the turn looks before it waits

// Sets the timer when it would come too late. Too early is left: a restarted timer costs one idle
// turn, setting again would cost a system call a turn.
static void arm(RealLoop *l) {
    int64_t next = timers_next_ns(&l->head);
    if (next < 0 || (l->armed_ns && l->armed_ns <= next)) return;
    struct itimerspec when = { .it_value = { next / 1000000000, next % 1000000000 } };
    if (next <= 0) when.it_value.tv_nsec = 1; // zero would disarm
    int rc = timerfd_settime(l->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
    assert(rc == 0);
    l->armed_ns = next;
}

static void run(Loop *head) {
    RealLoop *l = (RealLoop *)head;
    while (!head->stopping) {
        arm(l);
        head->now_ns = 0;
        int hurry = loop_unsettled(head) ? EVLOOP_NONBLOCK : 0;
        int rc = event_base_loop(l->base, EVLOOP_ONCE | hurry);
        assert(rc >= 0);
        loop_run_posts(head);
        loop_settle(head);
    }
}

static void on_signal_event(evutil_socket_t signal, short what, void *arg) {
    (void)what;
    SignalWatch *w = arg;
    w->fn(w->arg, (int)signal);
}

static void on_signal(Loop *head, int signal, void (*fn)(void *, int), void *arg) {
    RealLoop *l = (RealLoop *)head;
    assert(l->signals_n < SIGNALS_MAX);
    SignalWatch *w = &l->signals[l->signals_n++];
    w->fn = fn;
    w->arg = arg;
    int rc = event_assign(&w->event, l->base, signal, EV_SIGNAL | EV_PERSIST, on_signal_event, w);
    assert(rc == 0);
    rc = event_add(&w->event, NULL);
    assert(rc == 0);
}

static void free_loop(Loop *head) {
    RealLoop *l = (RealLoop *)head;
    assert(!head->owned); // streams and timers go before their loop
    for (size_t i = 0; i < l->signals_n; i++) event_del(&l->signals[i].event);
    event_del(&l->wake_event);
    event_del(&l->timer_event);
    event_base_free(l->base);
    close(l->wake_fd);
    close(l->timer_fd);
    loop_done(head);
    mem_free(l);
}

static const LoopOps loop_ops = {
    .run = run,
    .wake = wake,
    .armed = armed,
    .on_signal = on_signal,
    .is_mine = is_mine,
    .free = free_loop,
};

// Without locks: no other thread touches the base. EV_CLOSED and edges need epoll.
static struct event_base *base_new(void) {
    struct event_config *how = event_config_new();
    assert(how);
    event_config_require_features(how, EV_FEATURE_ET | EV_FEATURE_EARLY_CLOSE);
    event_config_set_flag(how, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_IGNORE_ENV);
    struct event_base *base = event_base_new_with_config(how);
    assert(base);
    event_config_free(how);
    return base;
}

static void watch(RealLoop *l, struct event *e, int fd, event_callback_fn fn) {
    assert(fd >= 0);
    int rc = event_assign(e, l->base, fd, EV_READ | EV_ET | EV_PERSIST, fn, l);
    assert(rc == 0);
    rc = event_add(e, NULL);
    assert(rc == 0);
}

Loop *real_loop_new(Os *os) {
    RealLoop *l = mem_new(sizeof *l);
    loop_init(&l->head, os, &loop_ops);
    l->base = base_new();
    l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    watch(l, &l->wake_event, l->wake_fd, on_wake);
    l->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    watch(l, &l->timer_event, l->timer_fd, on_timer);
    return &l->head;
}
