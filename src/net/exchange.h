// SPDX-License-Identifier: Apache-2.0
// exchange.h - one request and its answer, for routes that stream: everything on the loop.
// Owner: the handler, from its `stream` call until exchange_end, exchange_abort, exchange_reply,
// exchange_refuse or the event `gone`; exactly one of these ends every exchange. Then its arena and
// all text of its request are gone as well, unless exchange_hold was called.
// Threads: the loop of its connection; only ctx_cancel of its Ctx is for any thread.
#ifndef LATHE_NET_EXCHANGE_H
#define LATHE_NET_EXCHANGE_H
#include "net/request.h"
#include "os/stream.h"

typedef struct Exchange Exchange;
typedef struct ExchangeEvents { // any may be NULL; none comes from within a call of the owner's
    // Drain what you take. 64 KiB that are left hold reading back; what is left is offered again
    // with the next bytes or after exchange_pause(x, false). last: nothing follows what chunk
    // holds; a request without a body gets one such event with an empty chunk.
    void (*body)(void *arg, struct evbuffer *chunk, bool last);
    void (*drained)(void *arg); // the client took enough for more to be written
    // The last event: the client left, was too slow, sent a broken or too large body, or the
    // route's time is over. In the latter cases net itself answers. Never after the exchange ended.
    void (*gone)(void *arg);
} ExchangeEvents;
const HttpRequest *exchange_request(Exchange *x);
Ctx *exchange_ctx(Exchange *x); // its arena lives as long as the exchange
Loop *exchange_loop(Exchange *x);
// May be called late: until body events or exchange_read_all are asked for, no body is read and no
// "100 Continue" is sent.
void exchange_events(Exchange *x, const ExchangeEvents *ev, void *arg);
void exchange_pause(Exchange *x, bool paused); // body events stop; false: they go on
// Collects the whole body up to max, then calls done(arg, err, body), not from within this call;
// body lives as long as the exchange. ERR_TOOLARGE when larger, ERR_UNAVAILABLE when memory is
// short: the failure is in the Ctx, for exchange_refuse. When the client leaves, `gone` comes
// instead. Use instead of body events.
void exchange_read_all(Exchange *x, size_t max, void (*done)(void *arg, err e, str body),
                       void *arg);
// Status line and headers; length -1: chunked (HTTP/1.0: until close). Content-Length, Date,
// Connection and X-Request-Id are added; given ones of these, and other hop-by-hop headers
// (RFC 9110 §7.6.1), are dropped, so the head of another server's answer may be passed on.
void exchange_begin(Exchange *x, int status, const HttpHeader *headers, size_t n, int64_t length);
bool exchange_began(const Exchange *x);
void exchange_write(Exchange *x, str bytes);                 // copies
void exchange_write_buffer(Exchange *x, struct evbuffer *b); // moves: b is empty afterwards
size_t exchange_pending(Exchange *x); // bytes not yet taken by the kernel: hold back over a mark
// The answer is complete (fewer bytes than the length promised: the connection is cut). x is not
// the caller's any more.
void exchange_end(Exchange *x);
void exchange_abort(Exchange *x); // cuts the connection so that the client sees a broken answer
void exchange_reply(Exchange *x, int status, const char *type, str body); // begin + write + end
// Answers the failure of its Ctx in the words of ServerConfig.refuse; abort when it has begun.
void exchange_refuse(Exchange *x);
// Keeps the memory of x (request, Ctx, arena) after its end until the release: for work on the pool
// that still reads it. Both on the loop.
void exchange_hold(Exchange *x);
void exchange_release(Exchange *x);

// Server-sent events (WHATWG HTML §9.2). Begin sends the headers and starts a comment as heartbeat
// when nothing else was sent for heartbeat_ms (0: none). event NULL: data only; an absent id: none.
// Data may hold newlines; event and id are cut at one.
void exchange_sse_begin(Exchange *x, const HttpHeader *headers, size_t n, int64_t heartbeat_ms);
void exchange_sse(Exchange *x, const char *event, str id, str data);
void exchange_sse_comment(Exchange *x, str text);
#endif
