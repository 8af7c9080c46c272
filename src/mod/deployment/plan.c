// SPDX-License-Identifier: Apache-2.0
// plan.c - from what is wished and what is there to what is done next: pure and level-triggered, so
// that it converges from anywhere. Replicas of the wished generation come up beside the old ones,
// within a limit and the memory; an old one that answers is let go only when the new ones make up
// for it. Where memory does not hold both, one old replica at a time makes room.
// Owner: nothing is kept. Threads: any.
#include "mod/deployment/decide.h"
#include <assert.h>

int64_t plan_limit(int64_t replicas) { return replicas + (replicas + 3) / 4; }

typedef struct Plan {
    const Wish *w;
    const Unit *u;
    size_t n, steps_n;
    Step *steps;
    int64_t live, new_ready, old_ready, new_starting, leaving;
} Plan;

static bool is_live(const Unit *u) { return u->state != AT_WAITING; }
static bool is_leaving(const Unit *u) {
    return u->state == AT_DRAINING || u->state == AT_ENDING || u->state == AT_HUNG;
}
static bool is_wanted(const Plan *p, const Unit *u) {
    return u->generation == p->w->generation && u->number < p->w->replicas;
}

static void step(Plan *p, Do what, size_t unit, int64_t number) {
    assert(p->steps_n < STEPS_MAX);
    p->steps[p->steps_n++] = (Step){ what, unit, number };
}

static void count(Plan *p) {
    for (size_t i = 0; i < p->n; i++) {
        const Unit *u = &p->u[i];
        p->live += is_live(u);
        p->leaving += is_leaving(u);
        if (u->state == AT_READY) *(is_wanted(p, u) ? &p->new_ready : &p->old_ready) += 1;
        if (u->state == AT_STARTING && is_wanted(p, u)) p->new_starting++;
    }
}

// Unwanted ones that serve nothing go at once; those that drain go when they may.
static void clear(Plan *p) {
    for (size_t i = 0; i < p->n; i++) {
        const Unit *u = &p->u[i];
        bool wanted = is_wanted(p, u);
        if (u->state == AT_DRAINING && wanted) {
            step(p, DO_UNDRAIN, i, u->number);
            p->leaving--;
        } else if (u->state == AT_DRAINING && u->may_end) {
            step(p, DO_END, i, u->number);
        } else if (wanted) {
            continue;
        } else if (u->state == AT_WAITING) {
            step(p, DO_DROP, i, u->number);
        } else if (u->state == AT_STARTING || u->state == AT_HUNG) {
            step(p, DO_END, i, u->number);
            p->leaving += u->state == AT_STARTING;
        }
    }
}

static bool start(Plan *p, size_t unit, int64_t number, int64_t *room) {
    if (*room <= 0 || p->live >= plan_limit(p->w->replicas)) return false;
    step(p, DO_START, unit, number);
    p->live++, p->new_starting++, --*room;
    return true;
}

// True when all that should run do, or have their reason not to in their own back-off.
static bool fill(Plan *p) {
    int64_t room = p->w->room;
    bool all = true;
    for (int64_t number = 0; number < p->w->replicas; number++) {
        size_t i = 0;
        while (i < p->n && !(p->u[i].generation == p->w->generation && p->u[i].number == number))
            i++;
        bool known = i < p->n;
        if (known && (p->u[i].state != AT_WAITING || !p->u[i].due)) continue;
        if (!known && p->n + p->steps_n >= UNITS_MAX) continue;
        if (!start(p, known ? i : PLAN_NEW, number, &room)) all = false;
    }
    return all;
}

static void drain_old(Plan *p, ReplicaState state, int64_t most) {
    for (size_t i = 0; i < p->n && most > 0; i++) {
        if (p->u[i].state != state || is_wanted(p, &p->u[i])) continue;
        step(p, DO_DRAIN, i, p->u[i].number);
        p->leaving++, most--;
    }
}

// Old ones that answer: as many as are more than wished; or one, to make room for a new one. Those
// that do not answer just now may yet recover, and stay until they are not needed.
static void let_go(Plan *p, bool filled) {
    int64_t more = p->new_ready + p->old_ready - p->w->replicas;
    bool stuck = !filled && !p->new_starting && !p->leaving;
    bool cramped = stuck && p->live >= plan_limit(p->w->replicas);
    if (more >= 0) drain_old(p, AT_UNREADY, UNITS_MAX);
    else if (cramped) drain_old(p, AT_UNREADY, 1);
    if (more > 0) drain_old(p, AT_READY, more);
    else if (stuck && p->w->room <= 0 && p->w->frees) drain_old(p, AT_READY, 1);
}

size_t plan(const Wish *w, const Unit *units, size_t n, Step steps[STEPS_MAX]) {
    assert(n <= UNITS_MAX && w->replicas >= 0 && w->replicas <= REPLICAS_MAX);
    Plan p = { .w = w, .u = units, .n = n, .steps = steps };
    count(&p);
    clear(&p);
    bool filled = fill(&p);
    let_go(&p, filled);
    return p.steps_n;
}
