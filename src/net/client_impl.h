// SPDX-License-Identifier: Apache-2.0
// client_impl.h - private to net: what the client is made of. A Link is a connection; it has a
// Call, or is idle in the pool. A Call has a Link until its end, except between two links when it
// is repeated. Threads: the loop's.
#ifndef LATHE_NET_CLIENT_IMPL_H
#define LATHE_NET_CLIENT_IMPL_H
#include "net/client.h"
#include "net/parse.h"

enum {
    CALL_ROOM = 256 << 10, // body of an answer that is offered at most
    CALL_OUT_LOW = 64 << 10,
    CALL_SPARES = 64,
    CALL_KEEP_MAX = 4 << 10, // memory of a spare's buffer
    POOL_BUCKETS = 64,
};

typedef struct Link Link;
struct Link {
    Client *client;
    Stream *stream;
    Tls *tls;   // the stream's; NULL: plain
    Call *call; // NULL: idle
    Addr to;
    TlsClient *trust;
    char *host;           // of the certificate
    Link *before, *after; // in the client's list of busy ones, or in a bucket
    Parser parser;
    int64_t idle_from_ns;
    bool opened, used; // used: a call ended well on it
    bool ended;        // by the other side
    StreamEnd why;
};

typedef enum { CALL_WAITS_HEAD, CALL_READS_BODY, CALL_IS_WHOLE, CALL_IS_OVER } CallPhase;
struct Call {
    Client *client;
    Link *link;
    CallEvents ev;
    void *arg;
    Call *next; // spare
    CallPhase phase;
    HttpMethod method;
    Addr to;
    TlsClient *trust;
    char *host; // of the certificate; NULL when plain
    bool repeatable, repeated, single, streams;
    bool wrote;     // call_write was used: nothing is left to repeat
    bool body_over; // call_write_end, or a body that is known
    bool sent;      // the kernel has the whole request
    bool paused, offer, kicked;
    bool running, dead;
    int64_t connect_ms, first_byte_ms, idle_ms, active_ns;
    size_t unsent; // when it was last looked at
    int interim;   // 1xx answers seen
    // Kept from one call to the next.
    Timer *timer;
    Buf head;               // of the request
    Buf answer;             // head of the answer
    struct evbuffer *body;  // of the request, while it may have to be repeated
    struct evbuffer *chunk; // of the answer, not yet taken
};

struct Client {
    Loop *loop;
    size_t idle_max;
    int64_t idle_ms;
    Link *busy;
    Link *idle[POOL_BUCKETS]; // each the latest first
    Timer *sweep;
    Call *spares;
    size_t spares_n;
    CallHead head; // the one being told of
};

// client_pool.c
Link *link_take(const Call *call); // an idle one to the same place under the same trust, or NULL
Link *link_open(const Call *call);
void link_keep(Link *link); // back to the pool, or closed when there are enough
void link_close(Link *link);
void link_close_idle(Client *cl, const Addr *to); // to NULL: all
// client.c: what a link that has a call sees
void call_on_opened(Call *call);
void call_on_data(Call *call);
void call_on_drained(Call *call);
#endif
