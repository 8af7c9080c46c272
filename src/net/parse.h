// SPDX-License-Identifier: Apache-2.0
// parse.h - private to net: reads HTTP/1.1 messages off an evbuffer, one step a call. llhttp, in
// its strictest setting, validates and frames; this adds the limits, cuts the head into slices and
// moves body bytes without copying whole chains. Server and client share it. Owner: embedded in a
// connection; nothing to free (the head's text is in the arena given). Threads: one at a time.
#ifndef LATHE_NET_PARSE_H
#define LATHE_NET_PARSE_H
#include "net/request.h"
#include <event2/buffer.h>
// llhttp's names of the methods would clash with ours.
#define HTTP_GET LLHTTP_GET
#define HTTP_HEAD LLHTTP_HEAD
#define HTTP_POST LLHTTP_POST
#define HTTP_PUT LLHTTP_PUT
#define HTTP_PATCH LLHTTP_PATCH
#define HTTP_DELETE LLHTTP_DELETE
#define HTTP_OPTIONS LLHTTP_OPTIONS
#include <llhttp.h>
#undef HTTP_GET
#undef HTTP_HEAD
#undef HTTP_POST
#undef HTTP_PUT
#undef HTTP_PATCH
#undef HTTP_DELETE
#undef HTTP_OPTIONS

typedef enum {
    PARSE_MORE,    // nothing to do before more bytes come
    PARSE_HEAD,    // the head is complete: parser_request or parser_response reads it
    PARSE_BODY,    // body bytes were moved, more will come
    PARSE_END,     // the message is complete (body bytes may have been moved)
    PARSE_BAD,     // p->why; the connection is of no more use
    PARSE_TOOLARGE // the head is over its limits
} ParseStep;

typedef enum { FRAME_NONE, FRAME_LENGTH, FRAME_CHUNKED, FRAME_CLOSE } ParseFrame;
typedef struct Parser {
    llhttp_t http;
    enum { PARSER_HEAD, PARSER_BODY, PARSER_END } at;
    Buf *head; // what was read of it
    ParseFrame frame;
    int64_t left;          // FRAME_LENGTH: body bytes to come
    int64_t framing, body; // FRAME_CHUNKED: bytes read that are no body, and that are
    const char *piece;     // FRAME_CHUNKED: the body in what llhttp has just read
    size_t piece_n;
    bool bodyless;            // set by the client's owner: the answer to HEAD
    bool keep_alive, upgrade; // known from PARSE_HEAD on
    const char *why;
} Parser;

void parser_init(Parser *p, bool response);
// Before each message. head, of at most PARSE_HEAD_MAX bytes, is the caller's and is emptied.
enum { PARSE_HEAD_MAX = HTTP_HEAD_BYTES_MAX + 1 };
void parser_next(Parser *p, Buf *head);
// Moves at most about `room` bytes of body into `body`; both evbuffers without locks.
ParseStep parser_step(Parser *p, struct evbuffer *in, struct evbuffer *body, size_t room);
// The connection ended: true when that completes the message.
bool parser_finish(Parser *p);
// After PARSE_HEAD. Fill target, headers, length, chunked, expects_continue, keep_alive, method;
// the method HTTP_METHODS is one that we do not know. NULL, or why the head is bad.
const char *parser_request(Parser *p, Arena *a, HttpRequest *out);
// Cuts a response's head. *out_length -1: unknown. NULL, or why the head is bad.
typedef struct ParsedResponse {
    int status;
    HttpHeader *headers; // room for HTTP_HEADERS_MAX
    size_t headers_n;
    int64_t length;
} ParsedResponse;
const char *parser_response(Parser *p, ParsedResponse *out);
extern const char parser_too_many_headers[]; // the `why` that stands for 431
#endif
