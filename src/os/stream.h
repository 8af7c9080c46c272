// SPDX-License-Identifier: Apache-2.0
// stream.h - connected byte streams (TCP, unix sockets) on a loop, non-blocking, with libevent's
// evbuffers as the bytes on both sides so that a proxy moves chunks instead of copying them. Output
// is flushed once at the end of the turn.
// Owner: whoever opened or accepted it; stream_free at any time, also within its own events.
// Threads: the loop's own.
#ifndef LATHE_OS_STREAM_H
#define LATHE_OS_STREAM_H
#include "os/loop.h"
#include <event2/buffer.h>

// "127.0.0.1:8080" "[::1]:80" "unix:/path": numeric, checked
typedef struct Addr {
    char text[120];
} Addr;
err addr_parse(Ctx *c, str text, Addr *out); // ERR_INVALID with R_ADDRESS
// A numeric address alone, or with a port: "10.0.0.1", "::1", "[::1]", "10.0.0.1:80", "[::1]:80".
// at: IPv4 as ::ffff:a.b.c.d. out (may be NULL): in the one spelling, port 0 where none is said.
bool addr_ip(str text, uint8_t at[16], Addr *out);
// Blocking DNS: on a worker only. At most max answers, in the resolver's order.
err addr_resolve(Ctx *c, str host, int port, Addr *out, size_t max, size_t *out_n);
// Loopback, link-local, RFC 1918, RFC 4193, unix, and whatever else is not the public internet
// (RFC 6890), also inside an IPv4-mapped, 6to4 or NAT64 address: see Outbound.
bool addr_is_private(const Addr *a);

typedef enum { STREAM_EOF, STREAM_RESET, STREAM_REFUSED, STREAM_TIMEOUT, STREAM_IO } StreamEnd;
const char *stream_end_name(StreamEnd e);
typedef struct Stream Stream;
typedef struct StreamEvents {  // any may be NULL
    void (*opened)(void *arg); // an outgoing connection is up
    void (*data)(void *arg);   // stream_in has grown
    // Output fell to or below the low mark after having been above it, or is empty.
    void (*drained)(void *arg);
    // Once; unread input is still there. EOF is the peer's writing side only: what we write may
    // still arrive, and if that breaks later, one more `ended` (never EOF) says so.
    void (*ended)(void *arg, StreamEnd why);
} StreamEvents;

// Failure comes as ended(), never within the call. timeout_ms 0: the system's.
Stream *stream_connect(Loop *l, const Addr *to, int64_t timeout_ms, const StreamEvents *ev,
                       void *arg);
// The read end of a pipe (process.h) as a stream; takes over fd.
Stream *stream_adopt(Loop *l, int fd, const StreamEvents *ev, void *arg);
void stream_events(Stream *s, const StreamEvents *ev, void *arg); // hands it to another owner
void stream_free(Stream *s); // closes at once; unsent output is lost; NULL is fine
// Sends what is queued, then closes without resetting what is on its way; the stream is no longer
// the caller's.
void stream_shut(Stream *s);
struct evbuffer *stream_in(Stream *s);  // the owner drains it
struct evbuffer *stream_out(Stream *s); // the owner adds to it
void stream_touch(Stream *s);           // output was added: flush at the end of this turn
void stream_read(Stream *s, bool on);   // back-pressure: off leaves bytes in the kernel; default on
// Reading pauses by itself at in_max unread bytes (default 256 KiB); out_low is 0 by default.
void stream_marks(Stream *s, size_t in_max, size_t out_low);
// Each counts from the last progress in its direction, the first while reading is on, the second
// while output waits; 0: none. Ends with STREAM_TIMEOUT.
void stream_timeouts(Stream *s, int64_t read_ms, int64_t write_ms);
Loop *stream_loop(Stream *s);
str stream_peer(Stream *s); // text for logs; lives as long as the stream
// Watches for the peer going away while reading is off (EPOLLRDHUP): ended(RESET or EOF) still
// comes; before EOF, what the kernel holds (at most 256 KiB) is moved to stream_in without data().

// What stands between the owner's bytes and the wire's (TLS: net/tls.h). It is the stream's from
// stream_filter on. None of its functions may free the stream or add to stream_out.
typedef struct StreamFilter {
    // Decodes from `wire_in` to `in`, at most max bytes (0: only what is no owner's), and answers
    // into `wire_out`. How many; 0: the peer has said its end; -EAGAIN: more of the wire is needed;
    // another -errno: it is broken.
    ssize_t (*take)(void *arg, struct evbuffer *in, size_t max);
    // Encodes a first part of `out`, at most max bytes, into `wire_out`, and leaves `out` as it is.
    // How many bytes of it; -errno: broken. Not called before it is ready.
    ssize_t (*give)(void *arg, struct evbuffer *out, size_t max);
    bool (*ready)(void *arg); // the owner's bytes may pass
    void (*bye)(void *arg);   // says our end into `wire_out`
    void (*free)(void *arg);
} StreamFilter;
typedef struct StreamWire {
    struct evbuffer *in, *out;
} StreamWire;
// Right after stream_connect, or before an accepted stream has had an event. *out_wire lives as
// long as the filter; the first `take` follows at once. `opened` comes when the filter is ready,
// also on accepted streams, and the time of stream_connect counts until then. The wire's end
// without the peer's word is a reset. Bytes count as sent when all that stands for them is.
void stream_filter(Stream *s, const StreamFilter *f, void *arg, StreamWire *out_wire);

typedef struct Listener Listener;
typedef struct ListenSpec {
    Loop *const *loops; // one listener may serve several loops, the idle one takes the connection
    size_t loops_n;
    const Addr *addr;
    void (*accepted)(void *arg, Loop *l, Stream *s); // on the loop that will own s
    void *arg;
} ListenSpec;
// addr port 0 takes a free one: listener_addr tells. A unix socket has mode 0600; an old file of it
// that nobody answers on is replaced, else ERR_CONFLICT. spec need not outlive the call.
err listener_open(Ctx *c, const ListenSpec *spec, Listener **out);
// Stops accepting; accepted streams live on; NULL is fine. What waits in the backlog is still
// accepted, within this call, when it is made on one of the listener's loops. No call of accepted
// runs or comes after it. Any thread, before its loops are freed.
void listener_close(Listener *l);
const Addr *listener_addr(const Listener *l);
#endif
