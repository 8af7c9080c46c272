// SPDX-License-Identifier: Apache-2.0
// s3.h - private to blob: calls of an S3 service (docs.aws.amazon.com/AmazonS3/latest/API), signed,
// tried again while that can help, and their failures said in words. A thread of its own holds the
// connections; whoever calls blocks, or starts several calls before waiting for the first.
// Owner: who called s3_open; no call is under way at s3_close. A call and the memory it names
// belong to its caller, and may not move between s3_begin and s3_end. Threads: any; a call one.
#ifndef LATHE_BLOB_S3_H
#define LATHE_BLOB_S3_H
#include "blob/store.h"
#include "net/client.h"

typedef struct S3 S3;
// Only the form of the settings is looked at: ERR_INVALID with R_S3_SETTING. Starts the thread.
err s3_open(Ctx *c, const S3Config *config, S3 **out);
void s3_close(S3 *s); // NULL is fine
const S3Config *s3_config(const S3 *s);

enum { S3_HEADERS = 3, S3_ANSWER_MAX = 4 << 20 };
typedef struct S3Call {
    // what is asked
    HttpMethod method;
    str key;   // below the prefix; absent: the bucket itself
    str query; // encoded, sorted by name
    str body, body_hex;
    HttpHeader headers[S3_HEADERS]; // names in lower case, sorted, all signed; x-amz-…
    size_t headers_n;
    str range;           // "bytes=0-9"; absent: none
    char *into;          // where the bytes of a good answer go; NULL: to `answer`
    size_t into_max;     // more is refused
    int64_t patience_ms; // 0: the setting's
    // what came
    int status;
    HttpHeader *got;
    size_t got_n;
    Buf answer;
    size_t into_n;
    bool unsure; // an attempt was sent and its end not seen: it may still take effect
    // s3.c's
    S3 *s;
    Arena *mem;
    Call *call;
    CallSpec spec;
    CallEnd why;
    bool done, left, told, too_much; // left: give_up was posted; told: it has run
    int64_t began_ns;
    int attempts;
} S3Call;
void s3_begin(Ctx *c, S3 *s, S3Call *call);
// Its end: any 2xx is ERR_OK. ERR_NOTFOUND: no such key; ERR_GONE: no such upload; ERR_RANGE;
// ERR_UNAVAILABLE, ERR_UPSTREAM, ERR_FULL with R_S3_…; ERR_CANCELLED, ERR_TIMEOUT of c. Always to
// be called after s3_begin; s3_done then frees what came.
err s3_end(Ctx *c, S3Call *call);
void s3_drop(S3Call *call); // instead of s3_end: it is given up
void s3_done(S3Call *call);
str s3_header(const S3Call *call, const char *name); // absent: none
str s3_key(const S3 *s, Arena *a, str key);          // with the prefix
#endif
