// SPDX-License-Identifier: Apache-2.0
// event_test.h - for the tests of events: nodes (loops, server, relay) on one database of either
// kind, and readers that note what they are sent.
// Owner: the fixture stops its nodes; a test stops its readers. Threads: the test's.
#ifndef LATHE_RES_EVENT_TEST_H
#define LATHE_RES_EVENT_TEST_H
#include "db/suite_test.h"
#include "res/event_impl.h"

enum { FIX_NODES = 2, FIX_LOOPS = 2, SEEN_MAX = 8192 };
typedef struct Node {
    App app;
    Thread threads[FIX_LOOPS];
    Addr addr;
    bool runs;
} Node;
typedef struct EventFix {
    Ctx *c;
    Db *db;
    DbKind kind;
    str url;
    Node nodes[FIX_NODES];
    atomic_bool revoked; // identify fails from now on
} EventFix;
// fn in a fresh database; settings: "event.poll=1h" ..., NULL ends; NULL: the defaults.
void event_fix_run(DbKind kind, const char *const *settings, void (*fn)(EventFix *f));
bool node_start(EventFix *f, size_t i);
void node_stop(EventFix *f, size_t i);

// One event of project p1 or p2 of org o1, on a node, in a transaction of its own. kind NULL: rolls
// back.
err fix_stage(EventFix *f, size_t node, const char *kind, const char *project, const char *data);
bool wait_numbered(EventFix *f, int64_t newest); // false after 20 s, as in each wait
err fix_read(EventFix *f, int64_t after, size_t max, EventPage *out);

typedef struct Seen {
    int64_t id; // 0: none
    char kind[32], data[200];
} Seen;
typedef struct EventReader {
    EventFix *f;
    const Node *node;
    const char *target, *who, *last_id; // who: admin alice bob cat dan
    Ctx *c;
    Thread thread;
    pthread_mutex_t lock; // of what follows
    pthread_cond_t grew;
    bool held, ended; // held: takes nothing from its connection
    int status;
    str body; // of a refusal
    Seen seen[SEEN_MAX];
    size_t n;
} EventReader;
EventReader *reader_open(EventFix *f, size_t node, const char *who, const char *target,
                         const char *last_id);
void reader_close(EventReader *r); // also frees
bool wait_seen(EventReader *r, size_t n);
bool wait_ended(EventReader *r);
bool wait_readers(EventFix *f, size_t node, size_t n); // connected to that node
void reader_hold(EventReader *r, bool on);

#define EVENT_TEST(name_, ...)                 \
    SUITE_TEST(EventFix, event_fix_run, name_, \
               ((const char *const[]){ __VA_ARGS__ __VA_OPT__(, ) NULL }))
#endif
