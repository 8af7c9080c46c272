// SPDX-License-Identifier: Apache-2.0
// reply.h - blocking handlers: they run on a pool thread once the whole body is here, see only an
// HttpRequest and an HttpBody, fill an HttpReply, and never touch a socket.
// Owner: net, except where a field says otherwise. Threads: the pool thread that runs the handler;
// pull runs on pool threads too, one call at a time.
#ifndef LATHE_NET_REPLY_H
#define LATHE_NET_REPLY_H
#include "net/request.h"
#include "os/file.h"

typedef struct HttpBody { // at most one of the two
    str bytes;            // up to HTTP_BODY_MEMORY; "" when there is no body
    // Larger: a private temporary file, closed and removed with the exchange. A handler that wants
    // to keep it renames spool_path away.
    File *spool;
    str spool_path;
    int64_t size;
} HttpBody;

enum { HTTP_REPLY_HEADERS = 16, HTTP_REPLY_BODY = 64 << 20 }; // most headers; most bytes of `body`
typedef struct HttpReply {
    int status;       // 0: 200 with a body, else 204
    const char *type; // Content-Type; NULL: application/json; "": none
    Buf body;         // made ready with its maximum by net; over it the answer is an error
    HttpHeader headers[HTTP_REPLY_HEADERS];
    size_t headers_n;
    // Instead of body: a part of a file. The reply owns the file. Range, If-Range and If-None-Match
    // are answered by net.
    File *file;
    int64_t file_offset, file_size;
    // Or parts of something else of file_size bytes, answered as a file; short only at its end.
    // pull_done is called for it, and pull_arg is its argument.
    err (*read_at)(Ctx *c, void *arg, int64_t at, void *out, size_t n, size_t *out_got);
    // Or pieces on demand, called while the client takes them; *more false ends. An error cuts the
    // connection, so that no client takes a part for the whole.
    err (*pull)(Ctx *c, void *arg, Buf *out, bool *more);
    // Always called once, at the end or when the client left: on a pool thread, or on the loop when
    // the pool is full.
    void (*pull_done)(void *arg);
    void *pull_arg;
    str etag; // with its quotes; absent: none. A GET that already has it gets 304.
} HttpReply;
// value is copied; at most HTTP_REPLY_HEADERS. Length, Date, Connection, X-Request-Id are net's.
void http_reply_header(Ctx *c, HttpReply *r, const char *name, str value);
#endif
