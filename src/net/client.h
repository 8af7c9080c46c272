// SPDX-License-Identifier: Apache-2.0
// client.h - an HTTP/1.1 client on a loop: pooled keep-alive connections over TCP and unix sockets,
// streamed both ways with back-pressure. A call that is cancelled closes its connection at once (an
// engine sees its client leave well under 100 ms later). A request that fails before one byte of
// its answer came on a reused connection is repeated once on a new one when it is safe.
// Owner: whoever called client_new. Threads: the loop's own; one Client a loop.
#ifndef LATHE_NET_CLIENT_H
#define LATHE_NET_CLIENT_H
#include "net/request.h"
#include "net/tls.h"

typedef struct Client Client;
// Idle connections kept for each address, and for how long (0: none are kept).
Client *client_new(Loop *l, size_t idle_max, int64_t idle_ms);
// Cancels what is under way, without further events; not from within an event; NULL is fine.
void client_free(Client *cl);
void client_forget(Client *cl, const Addr *to); // closes idle connections to a replica that went

typedef struct CallSpec { // read within call_start only
    Addr to;
    TlsClient *tls; // whom to trust; outlives the client; NULL: plain
    str tls_host;   // whose certificate is wanted; absent: that of `host` without its port
    HttpMethod method;
    str target; // origin form: "/v1/models?limit=2"
    str host;   // absent: from `to`, or "localhost" for a unix socket
    // Sent as given; Host, Content-Length, Transfer-Encoding, Connection and other hop-by-hop ones
    // are dropped: the first four are the client's own.
    const HttpHeader *headers;
    size_t headers_n;
    // Moved from; NULL: none, or streamed when body_streams. What it refers to without holding it
    // lives until the end event or call_cancel.
    struct evbuffer *body;
    bool body_streams; // chunked: call_write, then call_write_end
    // The request may be repeated though its method is not idempotent (RFC 9110 §9.2.2), when a
    // reused connection dies before one byte of an answer: for inference, where twice does no harm.
    // Without it, only when the connection died before the request was fully sent.
    bool repeatable;
    bool single; // on a connection of its own, which both close after the answer
    int64_t connect_ms, first_byte_ms, idle_ms; // 0: none
} CallSpec;

typedef struct CallHead { // valid during `head`; the text lives until `end` has returned
    int status;
    HttpHeader headers[HTTP_HEADERS_MAX];
    size_t headers_n;
    int64_t length; // of the body as announced; -1: not known before its end
    bool reused;    // the connection had served before
} CallHead;
str call_header(const CallHead *h, const char *name); // the absent string when there is none

typedef enum {
    CALL_OK,
    CALL_CONNECT,         // no connection could be made
    CALL_REFUSED,         // nobody listens there
    CALL_RESET,           // the connection ended before the answer did
    CALL_TIMEOUT_CONNECT, // longer than connect_ms
    CALL_TIMEOUT_FIRST,   // first_byte_ms after the connection was up, no byte of an answer
    CALL_TIMEOUT_IDLE,    // no byte for idle_ms, either way, while we were ready for one
    CALL_PROTOCOL,        // the answer is not HTTP
    CALL_TOOLARGE,        // the head of the answer is over the limits of request.h
    // Of tls.h's TlsWhy; but for the last, nothing of the request was sent.
    CALL_TLS_BROKEN,
    CALL_TLS_EXPIRED,
    CALL_TLS_WRONG_HOST,
    CALL_TLS_UNKNOWN_CA,
    CALL_TLS_CERT,
    CALL_TLS_REFUSED // by the server: it wants a certificate of ours, or another version
} CallEnd;
const char *call_end_name(CallEnd e); // lower case: "timeout_first"
bool call_end_unsent(CallEnd e);      // there was no connection to send a request on

typedef struct CallEvents { // any may be NULL; none comes from within call_start
    void (*head)(void *arg, const CallHead *h); // also for 4xx and 5xx; 1xx are skipped
    // Decoded body. Drain what you take; 256 KiB that are left hold reading back; what is left is
    // offered again with the next bytes or after call_pause(call, false).
    void (*data)(void *arg, struct evbuffer *chunk);
    void (*drained)(void *arg); // streamed request body: room again
    // Once, the last event; the call is gone when it returns. CALL_OK: the whole answer came, and
    // everything of it was drained.
    void (*end)(void *arg, CallEnd why);
    bool (*repeat)(void *arg); // it was sent and is about to be sent once more; false: it is not
} CallEvents;

typedef struct Call Call;
Call *call_start(Client *cl, const CallSpec *spec, const CallEvents *ev, void *arg);
void call_cancel(Call *call); // no further event; not after end; allowed within its events
void call_pause(Call *call, bool paused); // back-pressure: data events stop; false: they go on
// Body of a streaming call: bytes is moved from. `drained` comes when call_pending fell to 64 KiB.
void call_write(Call *call, struct evbuffer *bytes);
void call_write_end(Call *call);
size_t call_pending(const Call *call); // bytes of the request that the kernel has not taken

// Blocking twin, for workers and the command line: the whole answer, at most max bytes
// (ERR_TOOLARGE), in c->mem. With on_data (may be NULL) the pieces of a 2xx answer go to it as they
// come instead of into body, without max; it stops the call by returning false, which is no error.
// ERR_UNAVAILABLE: no connection. ERR_TIMEOUT: of the spec or of c. ERR_UPSTREAM: a broken answer.
// ERR_CANCELLED: c was cancelled, noticed within 50 ms. Any HTTP status is ERR_OK.
typedef struct FetchResult {
    int status;
    str body;
    HttpHeader *headers;
    size_t headers_n;
} FetchResult;
err http_fetch(Ctx *c, const CallSpec *spec, size_t max, bool (*on_data)(void *arg, str piece),
               void *arg, FetchResult *out);
#endif
