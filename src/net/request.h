// SPDX-License-Identifier: Apache-2.0
// request.h - what a client asked for: the parsed head of a request (RFC 9110, 9112) and its query.
// Owner: the exchange; all text points into its arena and lives as long. Threads: read-only once a
// handler sees it.
#ifndef LATHE_NET_REQUEST_H
#define LATHE_NET_REQUEST_H
#include "base/ctx.h"

typedef enum {
    HTTP_GET,
    HTTP_HEAD,
    HTTP_POST,
    HTTP_PUT,
    HTTP_PATCH,
    HTTP_DELETE,
    HTTP_OPTIONS,
    HTTP_METHODS // their number; as a method: another one, which no route has
} HttpMethod;
const char *http_method_name(HttpMethod m);

enum {
    HTTP_HEADERS_MAX = 100,      // of one message; more: 431
    HTTP_HEAD_BYTES_MAX = 65536, // of one message's head; more: 431
    HTTP_PARAMS_MAX = 6,         // of one route
    HTTP_BODY_MEMORY = 1 << 20,  // bytes of a blocking handler's body held in memory; more: spooled
};
typedef struct HttpHeader {
    str name, value; // name as sent; look-up ignores case
} HttpHeader;

typedef struct HttpRequest {
    HttpMethod method;
    str target, query; // as sent; query without its '?', "" when there is none
    // Percent-decoded and without dot segments, except that %2F stays (in upper case), so that each
    // '/' separates segments. Always valid UTF-8 without NUL.
    str path;
    const HttpHeader *headers;
    size_t headers_n;
    str params[HTTP_PARAMS_MAX]; // what the {names} of the route's pattern matched, in order; fully
    size_t params_n;             // decoded, so one segment may hold '/', but never a dot segment
    int64_t length;              // Content-Length; -1 when chunked or absent
    bool chunked, expects_continue, keep_alive;
    str peer;         // address of the client, as trusted proxies forwarded it
    bool tls;         // it came over TLS
    str tls_subject;  // of the client's verified certificate (net/tls.h); absent: none
    str tls_fingerprint;
    str request_id;   // ours, or the client's X-Request-Id when it is [A-Za-z0-9._-]{1,64}
    int64_t start_ns; // monotonic, first byte of the head
} HttpRequest;

// The first header of that name; the absent string when there is none.
str http_header(const HttpRequest *r, const char *name);
// Value of a query parameter, decoded into a (application/x-www-form-urlencoded, WHATWG URL §5.1:
// bad escapes stay as they are, bad UTF-8 becomes U+FFFD); the absent string when missing.
// *out_n (may be NULL) counts how often it is given.
str http_query(Arena *a, const HttpRequest *r, const char *name, size_t *out_n);
// Visits every parameter; false at the end. *rest starts as r->query.
bool http_query_next(Arena *a, str *rest, str *out_name, str *out_value);
#endif
