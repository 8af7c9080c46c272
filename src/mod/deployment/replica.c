// SPDX-License-Identifier: Apache-2.0
// replica.c - what becomes of one replica, from what is seen of it: pure, so that every path can be
// tested. Back-off doubles with failures in a row and is forgotten after a healthy while; exits
// within a window, counted from the first of them, tell a crash loop.
// Owner: texts go into the caller's arena. Threads: any.
#include "base/time.h"
#include "mod/deployment/decide.h"
#include <assert.h>

enum { TEXT_KEPT = 1500 };

int64_t backoff_ms(const Policy *p, int64_t failures) {
    int64_t ms = p->backoff_first_ms;
    for (int64_t i = 1; i < failures && ms < p->backoff_max_ms; i++) ms *= 2;
    return ms < p->backoff_max_ms ? ms : p->backoff_max_ms;
}

bool replica_loops(const ReplicaRow *r, const Policy *p) {
    return r->window_exits >= p->window_exits;
}

void replica_to(ReplicaRow *r, ReplicaState state, int64_t now_ms) {
    if (r->state == (int)state) return;
    r->state = state, r->since = now_ms;
}

static void count_exit(ReplicaRow *r, const Policy *p, int64_t now_ms) {
    bool fresh = !r->window_at || now_ms - r->window_at > p->window_ms || now_ms < r->window_at;
    if (fresh) r->window_at = now_ms, r->window_exits = 0;
    r->window_exits++;
    r->failures++, r->restarts++;
}

// The end of a text matters most: the last lines of a log say why.
static str kept(Arena *mem, str text) {
    size_t from = text.n > TEXT_KEPT ? text.n - TEXT_KEPT : 0;
    while (from && from < text.n && (text.p[from] & 0xc0) == 0x80) from++; // not within a character
    return arena_str(mem, str_sub(text, from, text.n));
}

void replica_exit(Arena *mem, ReplicaRow *r, str reason, const Policy *p, int64_t now_ms) {
    bool was_hung = r->state == AT_HUNG;
    count_exit(r, p, now_ms);
    int64_t wait = replica_loops(r, p) ? p->backoff_max_ms : backoff_ms(p, r->failures);
    if (!was_hung) r->reason = kept(mem, reason); // one that was killed keeps why
    r->next_at = now_ms + wait;
    r->pid = r->progress = r->memory_bytes = r->ready_at = 0;
    replica_to(r, AT_WAITING, now_ms);
}

static void hang(Arena *mem, ReplicaRow *r, const Look *l, int64_t now_ms) {
    bool broken = l->probe == PROBE_BROKEN;
    r->reason = broken
                    ? kept(mem, l->probe_text)
                    : arena_printf(mem, "it answered no probe for " STR_FMT " and is started again",
                                   STR_ARG(span_format(mem, l->silent_ms / 1000 * 1000)));
    replica_to(r, AT_HUNG, now_ms);
}

static void become_ready(ReplicaRow *r, int64_t now_ms) {
    r->ready_at = now_ms, r->progress = 100, r->reason = (str){ 0 }, r->next_at = 0;
    replica_to(r, AT_READY, now_ms);
}

// Weights are most of what loading takes, so what the process holds tells how far it is.
static int64_t loaded_percent(const ReplicaRow *r, const Look *l) {
    if (l->model_bytes <= 0) return r->progress;
    int64_t percent = (int64_t)((double)l->memory_bytes * 100 / (double)l->model_bytes);
    if (percent > 99) percent = 99;
    return percent > r->progress ? percent : r->progress;
}

static void step_alive(Arena *mem, ReplicaRow *r, const Look *l, const Policy *p, int64_t now_ms) {
    bool answers = l->probe == PROBE_READY;
    bool silent = l->silent_ms > p->hung_ms || l->probe == PROBE_BROKEN;
    if (l->address.n) r->address = arena_str(mem, l->address);
    switch (r->state) {
    case AT_STARTING:
        r->progress = loaded_percent(r, l);
        if (answers && (l->pid || !l->launched)) become_ready(r, now_ms);
        else if (silent && l->launched) hang(mem, r, l, now_ms);
        else if (l->probe == PROBE_FAILED) r->reason = kept(mem, l->probe_text);
        break;
    case AT_READY:
        if (l->silent_ms > p->slow_ms) {
            str span = span_format(mem, p->slow_ms / 1000 * 1000);
            r->reason = arena_printf(mem, "it has answered no probe for " STR_FMT, STR_ARG(span));
            replica_to(r, AT_UNREADY, now_ms);
        } else if (l->probe == PROBE_FAILED || l->probe == PROBE_BROKEN) {
            r->reason = kept(mem, l->probe_text);
            replica_to(r, AT_UNREADY, now_ms);
        } else if (now_ms - r->ready_at >= p->healthy_ms) {
            r->failures = 0;
        }
        break;
    case AT_UNREADY:
        if (answers && l->silent_ms <= p->slow_ms) become_ready(r, now_ms);
        else if (silent && l->launched) hang(mem, r, l, now_ms);
        else if (l->probe == PROBE_FAILED) r->reason = kept(mem, l->probe_text);
        break;
    default: break;
    }
}

static void step_gone(Arena *mem, ReplicaRow *r, const Look *l, const Policy *p, int64_t now_ms) {
    bool unwanted = r->state == AT_DRAINING || r->state == AT_ENDING;
    if (unwanted) {
        replica_to(r, AT_GONE, now_ms);
    } else if (l->left.n) {
        r->reason = arena_printf(mem, "its node " STR_FMT " is gone; it is started on this one",
                                 STR_ARG(l->left));
        r->pid = r->progress = r->memory_bytes = r->ready_at = r->next_at = 0;
        replica_to(r, AT_WAITING, now_ms);
    } else if (l->ended && !l->ended_before) {
        replica_exit(mem, r, l->end_reason, p, now_ms);
    } else if (l->ended || r->state != AT_STARTING) { // it or the machine ended while we were away
        r->reason = S("its process ended while nobody watched; it is started again");
        r->pid = r->progress = r->memory_bytes = r->ready_at = r->next_at = 0;
        replica_to(r, AT_WAITING, now_ms);
    } // else it is still to be submitted
}

void replica_step(Arena *mem, ReplicaRow *r, const Look *l, const Policy *p, int64_t now_ms) {
    assert(r->state >= AT_WAITING && r->state < AT_GONE);
    bool alive = !l->launched || (l->there && !l->ended);
    if (r->next_at > now_ms + p->backoff_max_ms) r->next_at = now_ms + p->backoff_max_ms;
    if (r->state == AT_WAITING) {
        bool started = l->launched && alive; // submitted by someone who could not say so
        if (started) replica_to(r, AT_STARTING, now_ms);
        if (!started) return;
    }
    if (!l->launched && r->state == AT_ENDING) {
        replica_to(r, AT_GONE, now_ms);
        return;
    }
    if (!alive) {
        step_gone(mem, r, l, p, now_ms);
        return;
    }
    if (l->launched && l->pid) { // of one that was just found nothing is known yet
        int64_t change = l->memory_bytes - r->memory_bytes;
        if (change < 0) change = -change;
        if (change * 10 > r->memory_bytes) r->memory_bytes = l->memory_bytes;
        r->pid = l->pid, r->started_at = l->started_ms;
    } else if (!l->launched && !r->started_at) {
        r->started_at = now_ms;
    }
    step_alive(mem, r, l, p, now_ms);
}

bool replica_may_end(const ReplicaRow *r, const Look *l, const Policy *p, int64_t now_ms) {
    if (r->state != AT_DRAINING) return false;
    int64_t drained_ms = now_ms - r->since;
    if (drained_ms < 0 || drained_ms >= p->drain_ms)
        return true; // the clock went back, or time is over
    return !l->in_flight && drained_ms >= p->quiet_ms;
}
