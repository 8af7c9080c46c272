// SPDX-License-Identifier: Apache-2.0
// sse.h - reads server-sent events (WHATWG HTML §9.2.6) out of a byte stream: any split, CR, LF or
// CRLF, BOM, multi-line data, comments. Leaves reconnecting (retry) to its caller.
// Owner: the caller; sse_done frees. Threads: one at a time.
#ifndef LATHE_NET_SSE_H
#define LATHE_NET_SSE_H
#include "base/buf.h"

typedef struct SseEvent {
    str event; // "" means "message"
    str data;
    str id; // the last one seen in the stream
} SseEvent; // valid during the callback

typedef struct Sse {
    Buf line, data, event, id;
    size_t event_max;
    bool after_cr, started, has_data, broken;
} Sse;
void sse_init(Sse *s, size_t event_max); // most bytes of one event, and of one line
void sse_done(Sse *s);
// Calls on_event for each complete event that has data (an empty data line counts). False: an event
// was larger than event_max (then, and from then on, the stream is of no more use).
bool sse_feed(Sse *s, str bytes, void (*on_event)(void *arg, const SseEvent *ev), void *arg);
#endif
