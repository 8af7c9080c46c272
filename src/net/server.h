// SPDX-License-Identifier: Apache-2.0
// server.h - routes and the server that answers them: listening, limits, refusals, draining.
// Owner: whoever called server_new. Threads: its loops run it; server_drain and server_counts are
// for any thread, server_listen for the first loop's (or before the loops run).
#ifndef LATHE_NET_SERVER_H
#define LATHE_NET_SERVER_H
#include "net/exchange.h"
#include "net/reply.h"
#include "net/tls.h"
#include "os/thread.h"

typedef struct NetRoute {
    HttpMethod method; // a GET row answers HEAD as well
    // "/lathe/v1/models/{model}": {x} is one whole segment, not empty; "/{path*}" at the end takes
    // the rest, at least one segment. A literal segment goes before {x}, {x} before {x*}.
    const char *pattern;
    int64_t body_max;   // bytes; 0: a body is refused
    int64_t timeout_ms; // from the whole request to the whole answer; 0: none (streams)
    // exactly one of the two
    err (*serve)(Ctx *c, const struct NetRoute *route, const HttpRequest *r, const HttpBody *body,
                 HttpReply *out);
    void (*stream)(Exchange *x, const struct NetRoute *route); // on the loop, when the head is here
    const void *owner;                                         // res's own row
} NetRoute;

typedef struct Server Server;
typedef struct HttpOutcome { // how a request ended
    int status;              // 499: the client left before the answer
    int64_t sent_bytes, ns;  // head and body; from the head's first byte to the last one sent
} HttpOutcome;

typedef struct ServerConfig {
    Pool *pool;    // for blocking handlers; freed after its loops stopped and before the server
    str spool_dir; // must exist; bodies over HTTP_BODY_MEMORY go there
    // A new connection or a head: whole after head_timeout. Between requests: idle_timeout. Body
    // and write: at least 128 bytes a second on average over each such time while there are bytes
    // to come or to go. 0: 10 s, 75 s, 30 s, 30 s.
    int64_t head_timeout_ms, idle_timeout_ms, body_timeout_ms, write_timeout_ms;
    // Of bodies and answers in flight; over it new requests get 503, a quarter over it growing ones
    // too; 0: 256 MiB.
    int64_t memory_max_bytes;
    // A few more are answered 503 and closed, those behind them closed at once; 0: 10000.
    size_t connections_max;
    // Whose X-Forwarded-For says who the client is; outlives the server; NULL: nobody's.
    const struct Proxies *proxies;
    size_t greetings_max; // TLS handshakes under way on a loop; over it the oldest ends; 0: 256
    // Fills a failed blocking reply, or a refusal of net's own (404, 405, 400, 413, 431, 408, 503),
    // in the dialect of the path; c->failure says what. After it net adds Allow and Retry-After.
    // Must not block. NULL: a plain JSON error. r of a broken head may lack its target.
    void (*refuse)(void *app, Ctx *c, const HttpRequest *r, HttpReply *out);
    // Before a body is read and a handler runs: fills who, org, project, lang, deadline of c. An
    // error is answered by refuse. May be NULL. Must not block: on the loop for stream and where
    // there is a body, else on the pool thread.
    err (*enter)(void *app, Ctx *c, const NetRoute *route, const HttpRequest *r);
    // After the answer: for access logs and metrics. On the loop. route NULL: none matched.
    void (*left)(void *app, Ctx *c, const NetRoute *route, const HttpRequest *r,
                 const HttpOutcome *how);
    void *app;
    struct Db *db;                 // into each Ctx
    const NetRoute *const *routes; // the rows outlive the server; this array need not
    size_t routes_n;
} ServerConfig;

// Patterns are checked: a clash or a bad one is ERR_INVALID with R_BAD_ROUTE.
err server_new(Ctx *c, Loop *const loops[], size_t loops_n, const ServerConfig *config,
               Server **out);
err server_listen(Ctx *c, Server *s, const Addr *addr, Addr *out_actual); // out_actual may be NULL
// The same over TLS: a greeting has head_timeout for itself and the first head. One TlsServer for
// all such listeners; it outlives the server's loops.
err server_listen_tls(Ctx *c, Server *s, const Addr *addr, TlsServer *tls, Addr *out_actual);
// Stops accepting, closes idle connections, lets answers finish; done(arg) on the first loop when
// neither they nor handlers at work are left, or timeout_ms passed (then the rest is cut first).
// Once.
void server_drain(Server *s, int64_t timeout_ms, void (*done)(void *), void *arg);
// After its loops stopped: closes every connection, which cancels what runs for it. The pool is
// stopped next, so that the owners' cancel hooks and handlers end while what they use is there.
void server_cut(Server *s); // NULL is fine
// After its loops stopped and the pool was freed, before the loops are freed; NULL is fine.
void server_free(Server *s);
typedef struct ServerCounts {
    size_t connections, requests_active, greetings; // greetings: TLS handshakes under way
    int64_t requests, bytes_in_flight;
    int64_t greetings_dropped, connections_refused; // the first: over greetings_max
} ServerCounts;
ServerCounts server_counts(Server *s);
#endif
