// SPDX-License-Identifier: Apache-2.0
// fixture_test.h - a server on its own loops and threads, and a client that is no code of ours:
// plain blocking sockets, so that a test may send any bytes and read as slowly as it likes. Owner:
// rig_start's caller calls rig_stop. Threads: the test's, except where said.
#ifndef LATHE_NET_FIXTURE_TEST_H
#define LATHE_NET_FIXTURE_TEST_H
#include "base/test.h"
#include "net/http.h"

enum { RIG_LOOPS_MAX = 4 };
typedef struct Rig {
    Loop *loops[RIG_LOOPS_MAX];
    Thread threads[RIG_LOOPS_MAX];
    size_t loops_n;
    Pool *pool;
    Server *server;
    Addr addr;
    bool drained_stop;
    // What the hooks saw.
    atomic_int left, left_status, drained;
    atomic_int_least64_t left_sent;
    atomic_int entered, entered_before_body;
    atomic_bool deny; // `enter` refuses
} Rig;
typedef struct RigSpec {
    const NetRoute *const *routes; // NULL: app_routes
    size_t routes_n;
    size_t loops_n;        // 0: 1
    int pool_threads;      // 0: 2
    size_t pool_queue;     // 0: 64
    ServerConfig config;   // pool, spool_dir, routes, hooks and app are the rig's
    const char *unix_path; // NULL: loopback TCP
    bool plain;            // no enter hook
} RigSpec;
Rig *rig_start(const RigSpec *spec); // NULL: the test has failed
void rig_stop(Rig *r);               // checks that nothing is left
// Waits until cond(arg); false after ten seconds.
bool wait_until(bool (*cond)(void *), void *arg);
bool wait_int(atomic_int *at, int least); // until *at >= least
bool rig_idle(Rig *r);                    // waits until no exchange is under way

// Runs fn(arg) on the first loop and waits for it.
void rig_do(Rig *r, void (*fn)(void *), void *arg);

// ---- the application: app_test.c. All zero when a rig starts.
typedef struct TestApp {
    atomic_bool gate; // what waits at it goes on
    atomic_int running, passed, cancelled;
    atomic_int gone, released, pulls, pulls_begun, pulls_done, pending_most, taken;
    atomic_llong file_size;
    _Atomic(Exchange *) hanging; // the latest; for the loop only
} TestApp;
extern TestApp test_app;
extern const NetRoute *const app_routes[];
extern const size_t app_routes_n;
str test_bytes(Ctx *c, size_t n);                      // a pattern without short periods
void test_add_chunked(Buf *b, str body, size_t piece); // with the header that says so

// ---- a client of raw bytes; everything gives up after ten seconds
int raw_open(const Addr *to);
bool raw_send(int fd, str bytes);
bool raw_sendz(int fd, const char *z);
void raw_close(int fd);
void raw_reset(int fd); // closes with RST
bool raw_ended(int fd); // waits for the other side to close; what comes before it is dropped
bool raw_readable(int fd, int ms);  // within ms; the end counts
bool raw_peek(int fd, char *out);   // waits for the next byte, leaves it there
bool raw_more(int fd, Buf *b);      // appends what comes next; false at the end
int64_t raw_take(int fd, size_t n); // reads up to n bytes that are here, waits for the first
size_t raw_exactly(int fd, size_t n,
                   char *out);      // reads n bytes (out NULL: drops them); how many came
void raw_quiet(int fd);             // waits until no more input comes
int raw_try(const Addr *to);        // begins to connect and does not wait
size_t raw_push(int fd, str bytes); // sends until nothing more is taken for 200 ms
int64_t now_ms(void);
void wait_ms(int ms); // between two looks at a condition; never for time to pass by itself
bool wait_pool(Rig *r, size_t waiting);    // until so many pieces of work wait
bool wait_active(Rig *r, size_t requests); // until exactly so many are under way
bool wait_connections(Rig *r, size_t n);   // until exactly so many are open
size_t raw_some(int fd, str bytes);        // sends what the kernel takes now
typedef struct Answer {
    int status;        // 0: none came whole
    str head, body;    // in the test's arena; body decoded
    bool chunked, cut; // cut: the connection ended within the body
} Answer;
Answer raw_answer(int fd);                            // the next answer
Answer raw_answer_to(int fd, bool head);              // head: to a HEAD request
str answer_header(const Answer *a, const char *name); // the absent string when there is none
Answer raw_ask(const Addr *to, const char *request);  // opens, sends, reads one answer, closes
#endif
