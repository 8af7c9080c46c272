// SPDX-License-Identifier: Apache-2.0
// event_seat.c - who may take a place at the stream of events: a project and an organisation have a
// share each of the whole, so that one of them that opens stream after stream keeps nobody else
// out. Whose a reader is says its key; the system's own keys have the whole.
// Owner: an EventSeat is its reader's until seats_give. Threads: any; one short lock.
#include "res/event_impl.h"
#include <assert.h>

typedef struct Seat { // of one organisation or project, as long as it has a reader
    size_t n, key_n;
    char key[];
} Seat;

void seats_init(EventSeats *e) {
    pthread_mutex_init(&e->lock, NULL);
    map_init(&e->of, 0x736561);
    e->n = 0;
}

void seats_done(EventSeats *e) {
    assert(!e->n);
    map_done(&e->of);
    pthread_mutex_destroy(&e->lock);
}

static size_t taken(const EventSeats *e, str key) {
    const Seat *s = key.n ? map_get(&e->of, key) : NULL;
    return s ? s->n : 0;
}

static Seat *seat_add(EventSeats *e, str key) {
    if (!key.n) return NULL;
    Seat *s = map_get(&e->of, key);
    if (!s) {
        s = mem_new(sizeof *s + key.n);
        memcpy(s->key, key.p, key.n);
        s->key_n = key.n;
        map_set(&e->of, str_n(s->key, s->key_n), s);
    }
    s->n++;
    return s;
}

static void seat_drop(EventSeats *e, Seat *s) {
    if (!s) return;
    assert(s->n);
    if (--s->n) return;
    map_del(&e->of, str_n(s->key, s->key_n));
    mem_free(s);
}

static size_t most(size_t setting) { return (size_t)setting_int(&event_settings[setting]); }

static err check(Ctx *c, const EventSeats *e, str org, str project) {
    size_t all = most(EVENT_SET_READERS), of_org = most(EVENT_SET_READERS_ORG),
           of_project = most(EVENT_SET_READERS_PROJECT);
    if (e->n >= all) return fail(c, ERR_UNAVAILABLE, R_EVENT_READERS, "limit", say(c, "%zu", all));
    if (taken(e, project) >= of_project)
        return fail(c, ERR_UNAVAILABLE, R_EVENT_SHARE, "place", "this project", "limit",
                    say(c, "%zu", of_project), "setting",
                    event_settings[EVENT_SET_READERS_PROJECT].name);
    if (taken(e, org) >= of_org)
        return fail(c, ERR_UNAVAILABLE, R_EVENT_SHARE, "place", "this organisation", "limit",
                    say(c, "%zu", of_org), "setting", event_settings[EVENT_SET_READERS_ORG].name);
    return ERR_OK;
}

err seats_take(Ctx *c, EventSeats *e, EventSeat *out) {
    const Identity *who = c->who;
    str org = who ? who->org : (str){ 0 }, project = who ? who->project : (str){ 0 };
    pthread_mutex_lock(&e->lock);
    err x = check(c, e, org, project);
    if (!x) {
        e->n++;
        *out = (EventSeat){ seat_add(e, org), seat_add(e, project) };
    }
    pthread_mutex_unlock(&e->lock);
    return x;
}

void seats_give(EventSeats *e, const EventSeat *s) {
    pthread_mutex_lock(&e->lock);
    assert(e->n);
    e->n--;
    seat_drop(e, s->org), seat_drop(e, s->project);
    pthread_mutex_unlock(&e->lock);
}
