// SPDX-License-Identifier: Apache-2.0
// loop_real.c - a loop on epoll itself; of libevent only the evbuffers are used. Output is written
// at the end of a turn instead of by a write event, which saves two epoll_ctl and an epoll_wait an
// answer (README.md has the figures), and the events come as epoll says them: libevent folds
// EPOLLERR into "readable and writable", so that behind an edge a reset that follows data is lost.
// Posts wake the loop by one eventfd write a burst; edge-triggered, it is never read.
// Owner: loop_new's caller. Threads: the loop's; wake any.
#include "os/loop_impl.h"
#include "os/real.h"
#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { READY_MAX = 256, SIGNALS_MAX = 8, SLICE_NS = 500000 };

typedef struct SignalCall {
    int signal;
    void (*fn)(void *, int);
    void *arg;
} SignalCall;

typedef struct RealLoop {
    Loop head;
    int poll_fd;
    Watch wake_watch;
    struct epoll_event ready[READY_MAX];
    int ready_n;
    SignalCall signals[SIGNALS_MAX];
    size_t signals_n;
} RealLoop;

static void must(int rc) { assert(rc == 0); }

int real_watch_add(Loop *l, Watch *w, unsigned events) {
    assert(w->fd >= 0 && w->fn && !w->on);
    struct epoll_event e = { .events = events, .data.ptr = w };
    if (epoll_ctl(((RealLoop *)l)->poll_fd, EPOLL_CTL_ADD, w->fd, &e) < 0) {
        assert(errno == ENOMEM || errno == ENOSPC); // epoll_ctl(2): max_user_watches
        return errno;
    }
    w->on = true;
    return 0;
}

void real_watch_set(Loop *l, Watch *w, unsigned events) {
    assert(w->on);
    struct epoll_event e = { .events = events, .data.ptr = w };
    must(epoll_ctl(((RealLoop *)l)->poll_fd, EPOLL_CTL_MOD, w->fd, &e));
}

// Also takes back what this turn has still to tell about it: w may be freed at once.
void real_watch_del(Loop *head, Watch *w) {
    RealLoop *l = (RealLoop *)head;
    if (!w->on) return;
    w->on = false;
    struct epoll_event none = { 0 };
    must(epoll_ctl(l->poll_fd, EPOLL_CTL_DEL, w->fd, &none));
    for (int i = 0; i < l->ready_n; i++)
        if (l->ready[i].data.ptr == w) l->ready[i].data.ptr = NULL;
}

static bool is_mine(Loop *head) {
    return !head->running || pthread_equal(head->thread, pthread_self());
}

static void write_wake(int fd) {
    const uint64_t one = 1;
    ssize_t n;
    do n = write(fd, &one, sizeof one);
    while (n < 0 && errno == EINTR);
    assert(n == sizeof one);
}

static void wake(Loop *head) {
    RealLoop *l = (RealLoop *)head;
    if (head->running && is_mine(head)) return; // it looks before it waits
    write_wake(l->wake_watch.fd);
}

static void on_wake(void *arg, unsigned events) { (void)arg, (void)events; }

static void armed(Loop *l) { (void)l; } // the turn looks before it waits

// Rounded up: a timer that came too early would only be put back.
static int wait_ms(RealLoop *l) {
    if (loop_unsettled(&l->head)) return 0;
    int64_t next = timers_next_ns(&l->head);
    if (next < 0) return -1;
    int64_t ms = (next - os_mono_ns(l->head.os) + 999999) / 1000000;
    return ms <= 0 ? 0 : ms > 3600000 ? 3600000 : (int)ms;
}

// --- signals: a handler can do no more than leave a note and wake the loop

static atomic_int noted[NSIG];
static atomic_int noted_fd = -1;

static void note_signal(int signal) {
    int saved = errno;
    noted[signal] = 1;
    write_wake(noted_fd);
    errno = saved;
}

static void on_signal(Loop *head, int signal, void (*fn)(void *, int), void *arg) {
    RealLoop *l = (RealLoop *)head;
    assert(signal > 0 && signal < NSIG && l->signals_n < SIGNALS_MAX);
    assert(noted_fd < 0 || noted_fd == l->wake_watch.fd); // one loop of the program only
    noted_fd = l->wake_watch.fd;
    l->signals[l->signals_n++] = (SignalCall){ signal, fn, arg };
    struct sigaction how = { .sa_handler = note_signal, .sa_flags = SA_RESTART };
    must(sigaction(signal, &how, NULL));
}

static void tell_signals(RealLoop *l) {
    for (size_t i = 0; i < l->signals_n; i++) {
        SignalCall *s = &l->signals[i];
        if (atomic_exchange(&noted[s->signal], 0)) s->fn(s->arg, s->signal);
    }
}

static void drop_signals(RealLoop *l) {
    for (size_t i = 0; i < l->signals_n; i++) {
        struct sigaction plain = { .sa_handler = SIG_DFL };
        must(sigaction(l->signals[i].signal, &plain, NULL));
    }
    if (l->signals_n) noted_fd = -1;
}

// --- turns

// As in sched_setattr(2), of which this libc has no declaration.
typedef struct SchedAttr {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime_ns, deadline_ns, period_ns;
} SchedAttr;

// People wait for a loop, nobody for the threads that write down what it did. With a slice shorter
// than the usual (1.4 to 2.8 ms) it runs as soon as it is woken, in the middle of another's (Linux
// 6.12; before, this changes nothing); it gets no more of the processor by it. A busy turn fits in.
// What the system refuses it does not need.
static void ask_short_slice(void) {
    SchedAttr a = { .size = sizeof a };
    if (syscall(SYS_sched_getattr, 0, &a, sizeof a, 0) || a.policy != SCHED_OTHER) return;
    a.runtime_ns = SLICE_NS;
    if (syscall(SYS_sched_setattr, 0, &a, 0)) errno = 0;
}

static void run(Loop *head) {
    RealLoop *l = (RealLoop *)head;
    ask_short_slice();
    while (!head->stopping) {
        int n = epoll_wait(l->poll_fd, l->ready, READY_MAX, wait_ms(l));
        assert(n >= 0 || errno == EINTR);
        head->now_ns = 0;
        l->ready_n = n < 0 ? 0 : n;
        for (int i = 0; i < l->ready_n; i++) {
            Watch *w = l->ready[i].data.ptr;
            if (w) w->fn(w->arg, l->ready[i].events);
        }
        l->ready_n = 0;
        timers_run(head);
        tell_signals(l);
        loop_run_posts(head);
        loop_settle(head);
    }
}

static void free_loop(Loop *head) {
    RealLoop *l = (RealLoop *)head;
    assert(!head->owned); // streams and timers go before their loop
    drop_signals(l);
    close(l->wake_watch.fd);
    close(l->poll_fd);
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

// 0, or errno.
static int open_files(RealLoop *l) {
    l->poll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (l->poll_fd < 0) return errno;
    l->wake_watch = (Watch){ .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .fn = on_wake };
    if (l->wake_watch.fd < 0) return errno;
    return real_watch_add(&l->head, &l->wake_watch, EPOLLIN | EPOLLET);
}

Loop *real_loop_new(Os *os) {
    RealLoop *l = mem_new(sizeof *l);
    loop_init(&l->head, os, &loop_ops);
    l->poll_fd = l->wake_watch.fd = -1;
    int e = open_files(l);
    if (!e) return &l->head;
    if (l->wake_watch.fd >= 0) close(l->wake_watch.fd);
    if (l->poll_fd >= 0) close(l->poll_fd);
    loop_done(&l->head);
    mem_free(l);
    errno = e;
    return NULL;
}
