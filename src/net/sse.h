// SPDX-License-Identifier: Apache-2.0
// sse.h - reads server-sent events (WHATWG HTML §9.2.6) out of a byte stream: any split, CR, LF or CRLF, BOM, multi-line data, comments.
// Owner: the caller; sse_done frees. Threads: one at a time.
#ifndef LATHE_NET_SSE_H
#define LATHE_NET_SSE_H
#include "base/buf.h"

typedef struct SseEvent { str event, data, id; } SseEvent;   // event "" means "message"; valid during the callback
typedef struct Sse { Buf line, data, event, id; bool cr, started; } Sse;
void sse_init(Sse *s, size_t event_max);         // most bytes of one event
void sse_done(Sse *s);
// Calls on_event for each complete event. False: an event was larger than event_max (then the stream is of no more use).
bool sse_feed(Sse *s, str bytes, void (*on_event)(void *arg, const SseEvent *ev), void *arg);
#endif
