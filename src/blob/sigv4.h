// SPDX-License-Identifier: Apache-2.0
// sigv4.h - private to blob: AWS Signature Version 4 for S3 (docs.aws.amazon.com, "Authenticating
// Requests: Using the Authorization Header"). libcurl signs too, but its release in Debian 12 takes
// the query as it stands and hashes no body that it streams.
// Owner: texts live in the arena given. Threads: pure.
#ifndef LATHE_BLOB_SIGV4_H
#define LATHE_BLOB_SIGV4_H
#include "net/request.h"

enum { SIGV4_DATE = 17 }; // "20130524T000000Z" and NUL
typedef struct SigV4 {
    const char *method;
    str path;  // percent-encoded, as it is sent
    str query; // parameters encoded and sorted by name, as they are sent; "" for none
    // Those that are signed: names in lower case, sorted. Host, x-amz-date and x-amz-content-sha256
    // must be among them.
    const HttpHeader *headers;
    size_t headers_n;
    str payload_hex; // SHA-256 of the body
    str region, access_key, secret_key;
    const char *date; // of sigv4_date
} SigV4;
void sigv4_date(int64_t wall_ms, char out[SIGV4_DATE]);
str sigv4_authorization(Arena *a, const SigV4 *s); // the value of the header Authorization
str uri_encode(Arena *a, str text);                // RFC 3986: unreserved stay, also not '/'
#endif
