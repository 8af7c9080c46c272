// SPDX-License-Identifier: Apache-2.0
// http.h - the HTTP/1.1 server (RFC 9110, 9112): parsing (llhttp), routing by rows, bodies streamed with back-pressure, held in memory
// or spooled, replies, ranges, ETags, SSE (WHATWG HTML §9.2), draining. It knows no feature: what a route means is its owner's.
// Threads: an Exchange lives on its connection's loop. A blocking handler runs on a pool thread and sees only HttpRequest and HttpReply.
#ifndef LATHE_NET_HTTP_H
#define LATHE_NET_HTTP_H
#include "base/json.h"
#include "os/file.h"
#include "os/stream.h"
#include "os/thread.h"

typedef enum { HTTP_GET, HTTP_HEAD, HTTP_POST, HTTP_PUT, HTTP_PATCH, HTTP_DELETE, HTTP_OPTIONS, HTTP_METHODS } HttpMethod;
const char *http_method_name(HttpMethod m);

enum { HTTP_HEADERS_MAX = 100, HTTP_HEAD_BYTES_MAX = 65536, HTTP_PARAMS_MAX = 6, HTTP_BODY_MEMORY = 1 << 20 };
typedef struct HttpHeader { str name, value; } HttpHeader;   // names as sent; look-up ignores case

typedef struct HttpRequest {                     // lives as long as its exchange; all text points into the exchange's arena
    HttpMethod method;
    str target, path, query;                     // as sent; path is percent-decoded and has no dot segments
    HttpHeader headers[HTTP_HEADERS_MAX];
    size_t headers_n;
    str params[HTTP_PARAMS_MAX];                 // what the {names} of the route's pattern matched, in order
    size_t params_n;
    int64_t length;                              // Content-Length; -1 when chunked or absent
    bool chunked, expects_continue, keep_alive;
    str peer;                                    // address of the client
    str request_id;                              // ours, or the client's X-Request-Id when it is [A-Za-z0-9._-]{1,64}
    int64_t start_ns;                            // monotonic, first byte of the head
} HttpRequest;
str http_header(const HttpRequest *r, const char *name);     // the first one; absent string when there is none
// Value of a query parameter, percent-decoded into a; absent string when missing. *out_n (may be NULL) counts how often it is given.
str http_query(Arena *a, const HttpRequest *r, const char *name, size_t *out_n);
// Visits every parameter; false at the end. *rest starts as r->query.
bool http_query_next(Arena *a, str *rest, str *out_name, str *out_value);

// ---- blocking handlers: run on a pool thread once the whole body is here; never touch a socket
typedef struct HttpBody {                        // at most one of the two
    str bytes;                                   // up to HTTP_BODY_MEMORY
    File *spool;                                 // larger: a private temporary file, removed with the exchange
    str spool_path;
    int64_t size;
} HttpBody;
typedef struct HttpReply {
    int status;                                  // 0: 200 with a body, else 204
    const char *type;                            // Content-Type; NULL: application/json
    Buf body;                                    // made ready with a maximum by the caller of the handler
    HttpHeader headers[16];
    size_t headers_n;
    // instead of body: a file range (Range and If-None-Match are answered by net from etag), the reply owns and closes file
    File *file;
    int64_t file_offset, file_size;
    // or pieces on demand, called on pool threads while the client takes them; *more false ends. An error cuts the connection.
    err (*pull)(Ctx *c, void *arg, Buf *out, bool *more);
    void (*pull_done)(void *arg);                // always called once, at the end or when the client left
    void *pull_arg;
    str etag;                                    // with its quotes; absent: none
} HttpReply;
void http_reply_header(Ctx *c, HttpReply *r, const char *name, str value);

// ---- exchanges: for routes that stream; everything on the loop
typedef struct Exchange Exchange;
typedef struct ExchangeEvents {
    void (*body)(void *arg, struct evbuffer *chunk, bool last);          // drain what you take; what is left holds reading back
    void (*drained)(void *arg);                  // the client took enough for more to be written
    void (*gone)(void *arg);                     // the client left or timed out before exchange_end: the last event
} ExchangeEvents;
const HttpRequest *exchange_request(Exchange *x);
Ctx *exchange_ctx(Exchange *x);                  // its arena lives as long as the exchange
Loop *exchange_loop(Exchange *x);
void exchange_events(Exchange *x, const ExchangeEvents *ev, void *arg);
// Collects the whole body up to max, then calls done(arg, err, body): ERR_TOOLARGE when larger. Use instead of body events.
void exchange_read_all(Exchange *x, size_t max, void (*done)(void *arg, err e, str body), void *arg);
// status line and headers; length -1: chunked (HTTP/1.0: until close). Content-Length, Date, Connection and X-Request-Id are added.
void exchange_begin(Exchange *x, int status, const HttpHeader *headers, size_t n, int64_t length);
bool exchange_began(const Exchange *x);
void exchange_write(Exchange *x, str bytes);                 // copies
void exchange_write_buffer(Exchange *x, struct evbuffer *b); // moves: b is empty afterwards
size_t exchange_pending(Exchange *x);            // bytes not yet taken by the kernel: hold back over a mark
void exchange_end(Exchange *x);                  // the answer is complete; x is not the caller's any more
void exchange_abort(Exchange *x);                // cuts the connection so that the client sees a broken answer
void exchange_reply(Exchange *x, int status, const char *type, str body);    // begin + write + end
// Server-sent events. Begin sets the headers and starts a comment heartbeat; event NULL: data only. Data may hold newlines.
void exchange_sse_begin(Exchange *x, const HttpHeader *headers, size_t n, int64_t heartbeat_ms);
void exchange_sse(Exchange *x, const char *event, str id, str data);
void exchange_sse_comment(Exchange *x, str text);

// ---- routes and the server
typedef struct NetRoute {
    HttpMethod method;
    const char *pattern;                         // "/lathe/v1/models/{model}": {x} is one segment; "/{path*}" at the end takes the rest
    int64_t body_max;                            // bytes; 0: a body is refused
    int64_t timeout_ms;                          // from the whole request to the whole answer; 0: none (streams)
    // exactly one of the two
    err (*serve)(Ctx *c, const struct NetRoute *route, const HttpRequest *r, const HttpBody *body, HttpReply *out);
    void (*stream)(Exchange *x, const struct NetRoute *route);   // on the loop, when the head is complete
    const void *owner;                           // res's own row
} NetRoute;
typedef struct Server Server;
typedef struct ServerConfig {
    Pool *pool;                                  // for blocking handlers
    str spool_dir;
    int64_t head_timeout_ms, idle_timeout_ms, body_timeout_ms, write_timeout_ms;     // 0: 10 s, 75 s, 30 s, 30 s
    int64_t memory_max_bytes;                    // of bodies and answers in flight; over it new requests get 503; 0: 256 MiB
    size_t connections_max;                      // 0: 10000
    // Fills a failed blocking reply, or a refusal of net's own (404, 405, 400, 413, 431, 408, 503), in the dialect of the path.
    void (*refuse)(void *app, Ctx *c, const HttpRequest *r, HttpReply *out);
    // Before a handler runs: fills who, org, project, lang, deadline of c. An error is answered by refuse. May be NULL. On the pool thread
    // for serve, on the loop for stream (so it must not block there: route tells which).
    err (*enter)(void *app, Ctx *c, const NetRoute *route, const HttpRequest *r);
    // After the answer: for access logs and metrics. On the loop. status 499: the client left.
    void (*left)(void *app, Ctx *c, const NetRoute *route, const HttpRequest *r, int status, int64_t sent_bytes, int64_t ns);
    void *app;
    struct Db *db;
} ServerConfig;
// Patterns are checked: a clash or a bad one is ERR_INVALID. Rows must outlive the server.
err server_new(Ctx *c, Loop *const loops[], size_t loops_n, const ServerConfig *config, const NetRoute *const routes[], size_t routes_n, Server **out);
err server_listen(Ctx *c, Server *s, const Addr *addr, Addr *out_actual);
// Stops accepting, closes idle connections, lets answers finish; done(arg) on the first loop when none is left or timeout_ms passed.
void server_drain(Server *s, int64_t timeout_ms, void (*done)(void *), void *arg);
void server_free(Server *s);                     // after its loops stopped
typedef struct ServerCounts { size_t connections, requests_active; int64_t requests, bytes_in_flight; } ServerCounts;
ServerCounts server_counts(Server *s);
#endif
