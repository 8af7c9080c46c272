// SPDX-License-Identifier: Apache-2.0
// pg_turn.c - turns of this process's writers. Those that change the same rows (a project's audit
// chain, its revisions) overtake each other, and with enough of them one may be overtaken for as
// long as it may wait. So who was overtaken more than once runs with no other writer of this
// process beside it: then only another node can come first.
// A courtesy, not a lock: nobody waits longer than the limits below, so one long transaction, or
// one that hangs, holds up nobody.
// Owner: the PgDb. Threads: any.
#include "db/pg_impl.h"
#include <assert.h>

enum { TO_BE_ALONE_MS = 250, BEHIND_ALONE_MS = 500 };

void pg_turn_init(PgTurn *t) {
    *t = (PgTurn){ 0 };
    pthread_mutex_init(&t->lock, NULL);
    cond_init(&t->moved);
}

void pg_turn_done(PgTurn *t) {
    assert(!t->together && !t->alone && !t->waiting);
    pthread_mutex_destroy(&t->lock);
    pthread_cond_destroy(&t->moved);
}

static bool must_wait(const PgTurn *t, bool alone, int64_t waited_ms) {
    if (waited_ms >= BEHIND_ALONE_MS) return false;
    if (!alone) return t->alone || t->waiting;
    return t->alone || (t->together && waited_ms < TO_BE_ALONE_MS);
}

void pg_turn_take(PgDb *db, bool alone) {
    PgTurn *t = &db->turn;
    Os *os = db->base.os;
    int64_t since = os_mono_ns(os), waited_ms = 0;
    pthread_mutex_lock(&t->lock);
    if (alone) t->waiting++;
    while (must_wait(t, alone, waited_ms)) {
        cond_wait_ms(os, &t->moved, &t->lock, DB_SLICE_MS);
        waited_ms = (os_mono_ns(os) - since) / 1000000;
    }
    if (alone) t->waiting--, t->alone++;
    else t->together++;
    pthread_mutex_unlock(&t->lock);
}

void pg_turn_give(PgDb *db, bool alone) {
    PgTurn *t = &db->turn;
    pthread_mutex_lock(&t->lock);
    if (alone) t->alone--;
    else t->together--;
    pthread_cond_broadcast(&t->moved);
    pthread_mutex_unlock(&t->lock);
}
