// SPDX-License-Identifier: Apache-2.0
// conn.h - private to net: what the server is made of. A Server has a Lane for each loop; a Lane
// has Conns; a Conn has at most one Exchange at a time. Everything here belongs to the loop's
// thread, except what `Work` says. Who ends what: a Conn lives until conn_close or the end of its
// stream. An Exchange lives while it has a Conn, or is held (a pool thread works on it, or its
// owner asked); exchange_drop, called when one of the two ends, frees it when both have. So each is
// freed once, in any order of events.
#ifndef LATHE_NET_CONN_H
#define LATHE_NET_CONN_H
#include "net/head.h"
#include "net/parse.h"
#include "base/id.h"
#include "net/router.h"
#include "net/server.h"

enum {
    CHUNK_ROOM = 64 << 10, // body bytes offered at most, and unread input
    PIECE_MAX = 256 << 10, // of a file, read at once
    OUT_LOW = 64 << 10,    // unsent output below which more is asked for
    KEEP_MAX = 16 << 10,   // memory of a buffer that is kept for its next use
    SPARES_MAX = 64,
};

typedef struct Conn Conn;
typedef struct Lane {
    Server *server;
    Loop *loop;
    Conn *conns; // list
    size_t conns_n, greets_n;
    Conn *greets_first, *greets_last; // those whose TLS is not up yet, the oldest first
    Exchange *spares[SPARES_MAX];     // ready for reuse, with their arenas
    size_t spares_n;
    Buf scratch; // see lane_scratch
    char date[32];
    int64_t date_s;
    uint64_t id_seed, id_count;
    size_t exchanges_n;          // with a connection, or held
    bool draining, cut, drained; // cut: what is held is not waited for
} Lane;

typedef enum {
    CONN_IDLE,  // nothing of a request is here; no exchange
    CONN_HEAD,  // a part of a head is here
    CONN_BODY,  // the head is complete, the body is not; the handler may be at work already
    CONN_WAIT,  // the request is complete; the answer is not
    CONN_FLUSH, // the answer is complete; its bytes leave, and what is left of the body is dropped
} ConnState;

typedef struct Pace { // a window in which at least so many bytes must move
    int64_t from_ns, bytes;
    bool on;
} Pace;

struct Conn {
    Lane *lane;
    Stream *stream;
    Tls *tls; // the stream's; NULL: none
    Exchange *x;
    Conn *before, *after;
    Conn *greet_before, *greet_after;
    Parser parser;
    Timer *timer;
    ConnState state;
    int64_t since_ns;            // when the state was entered
    Pace in, out;                // only what is waited for is timed
    int64_t in_total, out_total; // bytes of bodies read; bytes given to the stream
    int64_t charged;             // bytes of ours in Server.in_flight
    bool running;                // conn_run is on the stack: freeing waits
    bool cut;                    // to be freed when it is not
    bool kicked;                 // conn_run is wanted in the next turn
    bool served;                 // had a request before
    bool half, surplus;          // the client sends no more; over the most: to be refused
    bool greets;                 // in the lane's list of those
};

typedef enum { WANT_NOTHING, WANT_EVENTS, WANT_ALL, WANT_SERVE } BodyWant;
typedef enum { ANSWER_NONE, ANSWER_OPEN, ANSWER_DONE } AnswerState;
typedef enum { WORK_NONE, WORK_SERVE, WORK_PULL, WORK_CLEAN } Work;

struct Exchange {
    Conn *conn; // NULL: over, only holds keep the memory
    Lane *lane;
    Loop *loop;
    const ServerConfig *config;
    const NetRoute *route;
    unsigned allowed; // methods, for Allow
    unsigned holds;
    bool owned; // a stream handler has it: `gone` is owed

    // The request's body.
    BodyWant want;
    bool paused;
    bool offer; // there is something to offer that was not: bytes left, or the end
    bool continued;
    ExchangeEvents ev;
    void *arg;
    void (*all_done)(void *arg, err e, str body);
    void *all_arg;
    size_t all_max;
    int64_t received;
    size_t body_charge; // bytes of `body`, also while the pool has it
    HttpBody http_body;

    // The answer.
    AnswerState answer;
    int status;
    int verdict;  // what `left` is told instead of status; 0: status
    int64_t left; // bytes of the length promised; -1: not promised
    bool chunked, bodyless, close;
    int64_t out_from;            // Conn.out_total when it began
    int64_t sent_bytes, took_ns; // for `left`, known when the connection is done with it
    bool told;                   // `left` was called, or must not be
    int64_t deadline_ns;         // of the route; 0: none
    int64_t beat_ms, beat_ns;    // SSE heartbeat, and when the last byte was written
    int64_t retry_ns;            // the pool was full in the midst of an answer

    // Work on the pool: while it lasts the pool thread has ctx, req (to read), body, http_body,
    // reply and the fields from here on.
    Work work;
    err work_failed;
    bool entered, more;
    int64_t file_at, file_left;
    int64_t reply_length; // or HEAD_LENGTH_CHUNKED
    Ctx ctx;

    // Kept from one use to the next; what stands above is zeroed.
    Arena *mem;
    Buf head; // the request's text
    struct evbuffer *chunk;
    Buf body; // WANT_ALL, WANT_SERVE
    HttpReply reply;
    HttpRequest req;
};

struct Server {
    ServerConfig config;
    Router *router;
    Lane *lanes;
    size_t lanes_n;
    Listener *listeners[8];
    size_t listeners_n;
    TlsServer *tls; // of its TLS listeners
    atomic_size_t connections, active, greetings;
    atomic_int_least64_t requests, in_flight, greetings_dropped, refused;
    atomic_size_t lanes_left; // to drain
    Timer *drain_timer;
    int64_t drain_ms;
    void (*drain_done)(void *);
    void *drain_arg;
};

// conn.c
void conn_accept(Lane *lane, Stream *s, TlsServer *tls); // tls NULL: plain
void conn_run(Conn *k);                                  // not within itself
void conn_kick(Conn *k);                                 // conn_run in the next turn
void conn_settle(Conn *k); // after output was added or a state changed: memory, paces, timer
void conn_state(Conn *k, ConnState s);
// Frees it, its stream, and its exchange as far as nobody holds it; at once, or when conn_run
// returns.
void conn_close(Conn *k);
void conn_sent(Conn *k, size_t n); // so many bytes were added to its output
size_t conn_pending(const Conn *k);
// body.c
bool body_step(Conn *k); // CONN_BODY: true when something happened
bool body_left(Conn *k); // CONN_WAIT: what the owner has not taken
bool body_wanted(const Exchange *x);
// The rest of the body is so short that reading it is better than a new connection.
bool body_rest_is_short(const Exchange *x);
// admit.c: the head is complete
void admit(Conn *k);
void admit_whole(Exchange *x); // the body is complete as well: the route's time starts
// refuse.c
void refuse(Exchange *x);                       // answers ctx.failure; cut when an answer has begun
void refuse_head(Exchange *x, const char *why); // of the parser
void refuse_body(Exchange *x, const char *why); // NULL: it is too large
void refuse_late(Conn *k, const char *part);    // of the request; NULL: the answer
void refuse_busy(Exchange *x, const char *what);
err refuse_busy_fail(Exchange *x, const char *what);
void refuse_fill(Exchange *x); // failure into reply; also on pool threads
// exchange.c
Exchange *exchange_new(Conn *k);
void exchange_leave(Exchange *x); // its connection is done with it
void exchange_drop(Exchange *x);  // if nobody holds it: `left`, then memory
void exchange_free(Exchange *x);
void exchange_send_reply(Exchange *x, int64_t length); // head of reply, and what body it has
// serve.c
bool serve_submit(Exchange *x, Work work); // false: the pool is full
void serve_start(Exchange *x, Work work);  // or refused
err serve_enter(Exchange *x);              // once; on the loop, or on the pool with its handler
void serve_next(Exchange *x);              // the client took enough: the next piece
bool serve_unclean(const Exchange *x);
void serve_clean(Exchange *x); // ends what reply and body still own; on any one thread
// sse_write.c
void sse_beat(Exchange *x, int64_t now_ns);
// server.c
str lane_date(Lane *lane);
Buf *lane_scratch(Lane *lane); // empty; heads and events are written here before they go out
str lane_id(Lane *lane, Arena *a, const char *prefix); // unique, not secret
void lane_check_drained(Lane *lane);
#endif
