// SPDX-License-Identifier: Apache-2.0
// client.h - an HTTP/1.1 client on a loop: pooled keep-alive connections over TCP and unix sockets, streamed both ways with back-pressure.
// A call that is cancelled closes its connection at once (an engine sees its client leave well under 100 ms later).
// A request that fails before one byte of its answer came on a reused connection is repeated once on a new one when it is safe
// (idempotent, or the connection died before the request was fully sent). Threads: the loop's own; one Client a loop.
#ifndef LATHE_NET_CLIENT_H
#define LATHE_NET_CLIENT_H
#include "net/http.h"

typedef struct Client Client;
Client *client_new(Loop *l, size_t idle_max, int64_t idle_ms);           // idle connections kept for each address, and for how long
void client_free(Client *cl);                    // cancels what is under way
void client_forget(Client *cl, const Addr *to);  // closes idle connections to it (a replica that went)

typedef struct CallSpec {
    Addr to;
    HttpMethod method;
    str target, host;                            // host absent: from `to`, or "localhost" for a unix socket
    const HttpHeader *headers;                   // sent as given, besides Host, Content-Length / Transfer-Encoding, Connection
    size_t headers_n;
    struct evbuffer *body;                       // moved from; NULL: none, or streamed when body_streams
    bool body_streams;                           // chunked: call_write, then call_write_end
    int64_t connect_ms, first_byte_ms, idle_ms;  // 0: none
} CallSpec;
typedef struct CallHead { int status; HttpHeader headers[HTTP_HEADERS_MAX]; size_t headers_n; int64_t length; bool reused; } CallHead;
str call_header(const CallHead *h, const char *name);
typedef enum { CALL_OK, CALL_CONNECT, CALL_REFUSED, CALL_RESET, CALL_TIMEOUT_CONNECT, CALL_TIMEOUT_FIRST, CALL_TIMEOUT_IDLE, CALL_PROTOCOL, CALL_TOOLARGE } CallEnd;
const char *call_end_name(CallEnd e);
typedef struct CallEvents {
    void (*head)(void *arg, const CallHead *h);  // also for 4xx and 5xx; 1xx are skipped
    void (*data)(void *arg, struct evbuffer *chunk);         // decoded body; drain what you take; what is left holds reading back
    void (*drained)(void *arg);                  // streamed request body: room again
    void (*end)(void *arg, CallEnd why);         // once, the last event; CALL_OK: the whole answer came
} CallEvents;
typedef struct Call Call;
Call *call_start(Client *cl, const CallSpec *spec, const CallEvents *ev, void *arg);         // events never come from within call_start
void call_cancel(Call *call);                    // no further event; not after end
void call_pause(Call *call, bool paused);        // back-pressure: events stop
void call_write(Call *call, struct evbuffer *bytes);
void call_write_end(Call *call);

// Blocking twin for workers and the command line: the whole answer, at most max bytes. on_data (may be NULL) sees pieces as they come
// and stops the call by returning false.
typedef struct FetchResult { int status; str body; HttpHeader *headers; size_t headers_n; } FetchResult;
err http_fetch(Ctx *c, const CallSpec *spec, size_t max, bool (*on_data)(void *arg, str piece), void *arg, FetchResult *out);
#endif
