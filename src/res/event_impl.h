// SPDX-License-Identifier: Apache-2.0
// event_impl.h - private to event*.c: the relay's state and what passes between its thread and the
// loops. An Events is counted: each posted call holds it, so that one that is dropped with its loop
// still finds it.
#ifndef LATHE_RES_EVENT_IMPL_H
#define LATHE_RES_EVENT_IMPL_H
#include "base/map.h"
#include "job/lease.h"
#include "res/event_relay.h"

enum {
    EVENT_SET_RETAIN,
    EVENT_SET_RETAIN_ROWS,
    EVENT_SET_POLL,
    EVENT_SET_READERS,
    EVENT_SET_READERS_ORG,
    EVENT_SET_READERS_PROJECT
};
extern const Metric metric_event_numbered, metric_event_delay, metric_event_readers,
    metric_event_ended;

enum { EVENT_UNKNOWN = -1 };
typedef struct EventQuery {
    int64_t after;
    str kind, subject;
    bool follow;
} EventQuery;
extern const Field event_query_rows[];

// Events on their way to readers: immutable, shared by the loops, gone with the last of them.
typedef struct BatchEvent {
    Event event;  // number 0: live only
    str id, text; // as they are sent: the number, and one JSON object
    str may[2];   // either permission lets one read it
} BatchEvent;
typedef struct Batch {
    atomic_int users;
    Arena *mem;
    BatchEvent *at;
    size_t n;
} Batch;
Batch *batch_new(const Event *events, size_t n);
void batch_drop(Batch *b);

typedef struct LoopReaders { // of one loop
    struct Events *of;
    struct Reader *first; // the loop's own
    atomic_size_t n;      // how many; any thread
} LoopReaders;

typedef struct EventSeats { // event_seat.c
    pthread_mutex_t lock;
    size_t n;
    Map of; // by the id of an organisation or project
} EventSeats;
typedef struct EventSeat { // a reader's own place in the shares of these
    struct Seat *org, *project;
} EventSeat;

typedef struct Events {
    App *app;
    atomic_int users;
    Pool *relay, *reads; // one thread each: numbering; catching up of readers
    LoopReaders at[APP_LOOPS_MAX];
    atomic_size_t readers_n;
    EventSeats seats;
    _Atomic int64_t newest; // every loop with readers was told of all up to this; EVENT_UNKNOWN:
                            // the database has been away since the start, and nobody reads
    atomic_bool woken, stopping, draining;
    // the first loop's
    Timer *timer;
    bool busy, again;
    // the relay thread's, between its turns
    Lease lease;
    bool held, failing;
    int64_t lease_at_ns, trim_at_ns; // when to look again
    char seen[64];                   // db_version when all was numbered and sent
    int64_t seen_until_ns;           // until then it is believed
} Events;
Events *events_of(const void *app); // counted up; NULL: not started. Any thread
void events_drop(Events *e);
void events_wake(Events *e); // look at the outbox now. Any thread
// Posts batch to every loop that has readers; takes it over. Any thread.
void events_send(Events *e, Batch *b);

void seats_init(EventSeats *e);
void seats_done(EventSeats *e);
// For c->who; ERR_UNAVAILABLE says whose share is used up.
err seats_take(Ctx *c, EventSeats *e, EventSeat *out);
void seats_give(EventSeats *e, const EventSeat *s);

// event_stream.c, each on its loop
void readers_take(LoopReaders *l, const Batch *b);
void readers_close(LoopReaders *l);
void event_stream(Exchange *x);
#endif
