// SPDX-License-Identifier: Apache-2.0
// flight.c - requests in flight on each replica of this node. A count stays while its replica is
// known, so that the request path allocates nothing after a replica's first request.
// Owner: this file; flight_forget drops one. Threads: any.
#include "base/map.h"
#include "mod/deployment/watch.h"
#include <assert.h>

typedef struct Flight {
    int64_t n;
    bool forgotten, watched; // watched: somebody waits for zero
    char id[];
} Flight;
static struct {
    pthread_mutex_t lock;
    Map by_id;
    bool open;
    void (*idle)(void);
} flights = { .lock = PTHREAD_MUTEX_INITIALIZER };

void flight_watch(void (*idle)(void)) {
    pthread_mutex_lock(&flights.lock);
    flights.idle = idle;
    pthread_mutex_unlock(&flights.lock);
}

static Flight *find(str id) { return flights.open ? map_get(&flights.by_id, id) : NULL; }

static void drop(Flight *f) {
    map_del(&flights.by_id, str_z(f->id));
    mem_free(f);
}

void replica_begin(str id) {
    pthread_mutex_lock(&flights.lock);
    if (!flights.open) map_init(&flights.by_id, 0x666c6774), flights.open = true;
    Flight *f = find(id);
    if (!f) {
        f = mem_new(sizeof *f + id.n + 1);
        memcpy(f->id, id.p, id.n);
        map_set(&flights.by_id, str_z(f->id), f);
    }
    f->n++, f->forgotten = false;
    pthread_mutex_unlock(&flights.lock);
}

void replica_end(str id) {
    void (*idle)(void) = NULL;
    pthread_mutex_lock(&flights.lock);
    Flight *f = find(id);
    assert(f && f->n > 0);
    if (!--f->n) {
        if (f->watched) idle = flights.idle;
        if (f->forgotten) drop(f);
    }
    pthread_mutex_unlock(&flights.lock);
    if (idle) idle();
}

int64_t flight_count(str id, bool watch) {
    pthread_mutex_lock(&flights.lock);
    Flight *f = find(id);
    int64_t n = f ? f->n : 0;
    if (f) f->watched = watch;
    pthread_mutex_unlock(&flights.lock);
    return n;
}

void flight_forget(str id) {
    pthread_mutex_lock(&flights.lock);
    Flight *f = find(id);
    if (f && !f->n) drop(f);
    else if (f) f->forgotten = true;
    pthread_mutex_unlock(&flights.lock);
}

void flight_close(void) {
    MapEntry *e;
    pthread_mutex_lock(&flights.lock);
    if (flights.open) {
        for (size_t i = 0; map_each(&flights.by_id, &i, &e);) mem_free(e->value);
        map_done(&flights.by_id);
    }
    flights.open = false, flights.idle = NULL;
    pthread_mutex_unlock(&flights.lock);
}
