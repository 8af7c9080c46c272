// SPDX-License-Identifier: Apache-2.0
// drive.c - when each request goes out, and when all is over. See drive.h.
#include "drive_own.h"
#include <assert.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum {
    IDLE_MS = 4000, // below what servers grant: a connection is never found closed
    SETTING_UP_MAX = 128,
};

// ---- ends

static void stop(Drive *d) {
    d->stopped = true;
    loop_stop(d->loop);
}

void drive_fail(Drive *d, const char *fmt, ...) {
    if (d->failed) return;
    d->failed = true;
    va_list args;
    va_start(args, fmt);
    vsnprintf(d->why, sizeof d->why, fmt, args);
    va_end(args);
    stop(d);
}

// After the time of sending, and all the time where only a count ends it: as long as answers come,
// however slowly, they are waited for.
static void on_limit(void *arg) {
    Drive *d = arg;
    int64_t progress = d->t->answered + d->t->held;
    if (progress == d->progress)
        drive_fail(d, "no answer for %lld ms while %lld requests wait for theirs",
                   (long long)d->plan->patience_ms, (long long)d->busy);
    d->progress = progress;
    timer_start(d->limit, d->plan->patience_ms);
}

static void on_signal(void *arg, int signal) {
    Drive *d = arg;
    if (d->plan->mode == PLAN_HOLD && d->t->held == d->plan->connections) stop(d);
    else drive_fail(d, "interrupted by signal %d", signal);
}

// No more are sent; the rest is waited for.
static void close_door(Drive *d) {
    d->over = true;
    if (!d->busy) stop(d);
}

// ---- sending

static Lane *take(Drive *d) {
    Lane *l = d->free;
    if (!l) return NULL;
    d->free = l->next;
    d->busy++;
    return l;
}

static bool enough(const Drive *d, int64_t at_ns) {
    const Plan *p = d->plan;
    return (p->duration_ns && at_ns >= d->end_ns) || (p->requests && d->t->sent >= p->requests);
}

static void set_clock(Drive *d, int64_t at_ns) {
    struct itimerspec when = { .it_value = { .tv_sec = at_ns / 1000000000,
                                             .tv_nsec = at_ns % 1000000000 } };
    int rc = timerfd_settime(d->clock_fd, TFD_TIMER_ABSTIME, &when, NULL);
    assert(rc == 0);
}

// All that is due goes out, as far as there are lanes; what remains goes with the next free one.
static void send_due(Drive *d) {
    while (!d->over && !d->stopped) {
        int64_t next_ns = arrival_next_ns(&d->arrival);
        if (enough(d, next_ns)) {
            close_door(d);
            return;
        }
        if (!d->free) return;
        if (next_ns > os_mono_ns(d->os)) {
            set_clock(d, next_ns);
            return;
        }
        arrival_take(&d->arrival);
        lane_start(take(d), next_ns);
    }
}

// Each connection at once: a closed loop.
static void send_all(Drive *d) {
    while (!d->over && !d->stopped) {
        int64_t now_ns = os_mono_ns(d->os);
        if (enough(d, now_ns)) {
            close_door(d);
            return;
        }
        if (!d->free) return;
        lane_start(take(d), now_ns);
    }
}

// Streams to hold: some at a time, so that no listener's backlog overflows.
static void send_held(Drive *d) {
    while (!d->stopped && d->free && d->setting_up < SETTING_UP_MAX) {
        d->setting_up++;
        lane_start(take(d), os_mono_ns(d->os));
    }
}

static void go_on(Drive *d) {
    if (d->plan->mode == PLAN_OPEN) send_due(d);
    else if (d->plan->mode == PLAN_CLOSED) send_all(d);
    else send_held(d);
}

static void on_clock(void *arg) {
    Drive *d = arg;
    struct evbuffer *in = stream_in(d->clock);
    evbuffer_drain(in, evbuffer_get_length(in));
    go_on(d);
}

// ---- what lanes tell

void drive_on_answer(Lane *l) {
    Drive *d = l->d;
    d->t->answered++;
    d->t->elapsed_ns = os_mono_ns(d->os) - d->start_ns;
    if (d->plan->mode == PLAN_HOLD) drive_fail(d, "a stream that was to be held ended");
    l->next = d->free;
    d->free = l;
    d->busy--;
    if (!d->over) go_on(d);
    else if (!d->busy) stop(d);
}

void drive_on_begun(Lane *l) {
    Drive *d = l->d;
    if (d->plan->mode != PLAN_HOLD) return;
    d->setting_up--;
    d->t->held++;
    if (d->t->held == d->plan->connections) {
        timer_stop(d->limit);
        printf("{\"held\":%lld}\n", (long long)d->t->held);
        fflush(stdout);
    }
    send_held(d);
}

// ---- life

Drive *drive_new(Loop *loop, const Plan *plan, Tally *out) {
    static const StreamEvents clock_events = { .data = on_clock };
    Drive *d = mem_new(sizeof *d);
    *d = (Drive){ .loop = loop, .os = loop_os(loop), .plan = plan, .t = out };
    d->client = client_new(loop, plan->fresh ? 0 : (size_t)plan->connections, IDLE_MS);
    d->lanes = mem_new((size_t)plan->connections * sizeof *d->lanes);
    for (int64_t i = plan->connections; i-- > 0;) {
        Lane *l = &d->lanes[i];
        *l = (Lane){ .d = d, .next = d->free, .tail = evbuffer_new() };
        assert(l->tail);
        d->free = l;
    }
    d->limit = timer_new(loop, on_limit, d);
    d->clock_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    assert(d->clock_fd >= 0);
    d->clock = stream_adopt(loop, d->clock_fd, &clock_events, d);
    loop_on_signal(loop, SIGTERM, on_signal, d);
    loop_on_signal(loop, SIGINT, on_signal, d);
    return d;
}

static void begin(void *arg) {
    Drive *d = arg;
    d->start_ns = os_mono_ns(d->os);
    d->end_ns = d->start_ns + d->plan->duration_ns;
    if (d->plan->mode == PLAN_OPEN)
        arrival_init(&d->arrival, d->plan->rate, d->plan->poisson, (uint64_t)d->plan->seed,
                     d->start_ns);
    timer_start(d->limit, d->plan->duration_ns / 1000000 + d->plan->patience_ms);
    go_on(d);
}

bool drive_run(Drive *d) {
    int64_t before_ns = os_cpu_ns(d->os);
    loop_post(d->loop, begin, d);
    loop_run(d->loop);
    d->t->cpu_ns = os_cpu_ns(d->os) - before_ns;
    return !d->failed;
}

const char *drive_failure(const Drive *d) { return d->why; }

void drive_free(Drive *d) {
    client_free(d->client);
    for (int64_t i = 0; i < d->plan->connections; i++) {
        evbuffer_free(d->lanes[i].tail);
        if (d->lanes[i].call && d->plan->stream) sse_done(&d->lanes[i].sse);
    }
    stream_free(d->clock);
    timer_free(d->limit);
    mem_free(d->lanes);
    mem_free(d);
}
