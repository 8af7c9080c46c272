// SPDX-License-Identifier: Apache-2.0
// head.h - private to net: writes the heads of requests and responses. Whatever a caller passes,
// the result is one well-formed head: names that are no tokens are dropped, control characters in
// values become spaces, so no text from outside can add a header. Threads: pure.
#ifndef LATHE_NET_HEAD_H
#define LATHE_NET_HEAD_H
#include "net/request.h"

enum { HEAD_LENGTH_NONE = -2, HEAD_LENGTH_CHUNKED = -1 };
typedef struct HeadResponse {
    int status;
    const HttpHeader *headers;
    size_t headers_n;
    int64_t length;         // or one of the two above
    const char *connection; // NULL: not said
    str date, request_id;
} HeadResponse;
void head_response(Buf *out, const HeadResponse *h);

typedef struct HeadRequest {
    HttpMethod method;
    str target, host;
    const HttpHeader *headers;
    size_t headers_n;
    int64_t length;
    bool close; // Connection: close
} HeadRequest;
void head_request(Buf *out, const HeadRequest *h);
void head_date(int64_t unix_s, char out[32]); // IMF-fixdate (RFC 9110 §5.6.7)
void head_add_i64(Buf *out, int64_t n);
#endif
