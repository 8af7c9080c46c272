// SPDX-License-Identifier: Apache-2.0
// stream.h - connected byte streams (TCP, unix sockets) on a loop, non-blocking, with libevent's evbuffers as the bytes on both sides
// so that a proxy moves chunks instead of copying them. Output is flushed once at the end of the turn.
// Owner: whoever opened or accepted it; stream_free at any time, also within its own events. Threads: the loop's own.
#ifndef LATHE_OS_STREAM_H
#define LATHE_OS_STREAM_H
#include "os/loop.h"
#include <event2/buffer.h>

typedef struct Addr { char text[120]; } Addr;    // "127.0.0.1:8080" "[::1]:80" "unix:/path": numeric, checked
err addr_parse(Ctx *c, str text, Addr *out);                 // ERR_INVALID with R_ADDRESS
err addr_resolve(Ctx *c, str host, int port, Addr *out, size_t max, size_t *out_n);   // blocking DNS: on a worker only
bool addr_is_private(const Addr *a);             // loopback, link-local, RFC 1918, RFC 4193, unix: see Outbound

typedef enum { STREAM_EOF, STREAM_RESET, STREAM_REFUSED, STREAM_TIMEOUT, STREAM_IO } StreamEnd;
const char *stream_end_name(StreamEnd e);
typedef struct Stream Stream;
typedef struct StreamEvents {
    void (*opened)(void *arg);                   // an outgoing connection is up
    void (*data)(void *arg);                     // stream_in has grown
    void (*drained)(void *arg);                  // output fell to or below the low mark after having been above it, or is empty
    void (*ended)(void *arg, StreamEnd why);     // once; unread input is still there; EOF: the peer's writing side only
} StreamEvents;

Stream *stream_connect(Loop *l, const Addr *to, int64_t timeout_ms, const StreamEvents *ev, void *arg);   // failure comes as ended()
void stream_events(Stream *s, const StreamEvents *ev, void *arg);        // hands it to another owner
void stream_free(Stream *s);                     // closes at once; unsent output is lost; NULL is fine
void stream_shut(Stream *s);                     // sends what is queued, then closes; the stream is no longer the caller's
struct evbuffer *stream_in(Stream *s);           // the owner drains it
struct evbuffer *stream_out(Stream *s);          // the owner adds to it
void stream_touch(Stream *s);                    // output was added: flush at the end of this turn
void stream_read(Stream *s, bool on);            // back-pressure: off leaves bytes in the kernel; on is the default
void stream_marks(Stream *s, size_t in_max, size_t out_low);             // reading pauses by itself at in_max unread bytes
// Each counts from the last progress in its direction; 0: none. Ends with STREAM_TIMEOUT.
void stream_timeouts(Stream *s, int64_t read_ms, int64_t write_ms);
Loop *stream_loop(Stream *s);
str stream_peer(Stream *s);                      // text for logs; lives as long as the stream
// Watches for the peer going away while reading is off (EPOLLRDHUP): ended(RESET or EOF) still comes.

typedef struct Listener Listener;
// accepted(arg, s) on the loop that will own it: one listener may serve several loops, the kernel or the listener spreads connections.
// addr port 0 takes a free one: listener_addr tells. An old unix socket file that nobody answers on is replaced.
err listener_open(Ctx *c, Loop *const loops[], size_t loops_n, const Addr *addr,
                  void (*accepted)(void *arg, Loop *l, Stream *s), void *arg, Listener **out);
void listener_close(Listener *l);                // stops accepting; accepted streams live on; NULL is fine
const Addr *listener_addr(const Listener *l);
#endif
