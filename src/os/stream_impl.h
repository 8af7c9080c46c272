// SPDX-License-Identifier: Apache-2.0
// stream_impl.h - private to os/: a stream as both machines see it. stream.c decides when to read,
// write, tell and end; a transport only moves bytes between the evbuffers and its peer, and reports
// what it notices with the stream_on_ functions.
#ifndef LATHE_OS_STREAM_IMPL_H
#define LATHE_OS_STREAM_IMPL_H
#include "os/loop_impl.h"
#include <sys/socket.h>

typedef struct StreamOps {
    // Sends at most max bytes from s->out. 0, or errno when it can never send again. Sets
    // s->blocked when the peer takes no more now; stream_on_writable must follow.
    int (*send)(Stream *s, size_t max);
    // Adds at most max bytes to s->in. How many, 0 at the end, or -errno (-EAGAIN: none now).
    ssize_t (*recv)(Stream *s, size_t max);
    void (*finish)(Stream *s); // nothing more will be sent
    void (*close)(Stream *s);  // drops the connection and every event of it
} StreamOps;

// What a filter has to do with its stream: stream_filter.c.
typedef struct Filter {
    const StreamOps *below; // the transport's, which sees wire_in and wire_out as its buffers
    StreamFilter fn;
    void *arg;
    struct evbuffer *wire_in, *wire_out;
    size_t covered; // bytes of the stream's `out` that wire_out stands for
    int over;       // -errno, or 1: what the wire's end meant, told once all before it was
    bool ready, said_bye;
} Filter;

struct Stream {
    const StreamOps *ops;
    Filter *filter; // NULL: none
    Loop *loop;
    StreamEvents events;
    void *arg;
    struct evbuffer *in, *out;
    Link touched, pending, all;
    Timer timer; // the nearest of the deadlines below
    size_t in_max, out_low, chunk;
    int64_t read_ms, write_ms;           // 0: none
    int64_t last_in_ns, last_out_ns;     // progress
    int64_t connect_due_ns, shut_due_ns; // 0: none
    int connect_errno;                   // told by `tell_failed`
    bool connecting, tell_opened, tell_failed, tell_drained;
    bool reading;             // the owner wants input
    bool readable;            // the transport may have input
    bool leaving;             // the peer has ended its side: input is finite
    bool broken;              // sending failed: end with a reset, after the input
    bool pulled;              // leaving input was already moved despite a pause
    bool watching_in;         // evbuffer callback on `in` is set
    bool blocked, above;      // output waits for the peer; was above the low mark
    bool held;                // output waits until the filter is ready
    bool ended_in, ended_out; // nothing more comes; nothing more can be sent
    bool shut, finished;      // by stream_shut; its FIN is sent
    bool dead;                // freed: memory goes at the end of the turn
    Addr peer;
};

// For transports. size is that of the whole transport's struct, whose first member is the Stream.
Stream *stream_make(Loop *l, const StreamOps *ops, size_t size, const char *peer);
void stream_on_connected(Stream *s, int errno_value);
void stream_on_readable(Stream *s, bool leaving); // calls the owner
void stream_on_writable(Stream *s);
void stream_pend(Stream *s); // stream_attend at the end of this turn
void stream_push(Stream *s); // stream_flush at the end of this turn

// For loop.c.
void stream_flush(Stream *s);
void stream_attend(Stream *s);
void streams_bury(Loop *l);                 // frees the memory of the dead
void streams_drop(Loop *l, bool shut_only); // at loop_free: shut ones are nobody's any more

// For stream.c: the filter has bytes for the wire besides the owner's; it is through its greeting.
bool filter_owes(const Stream *s);
static inline bool filter_ready(const Stream *s) { return !s->filter || s->filter->ready; }

struct Listener {
    void (*close)(Listener *);
    Addr addr;
};

bool addr_to_sockaddr(const Addr *a, struct sockaddr_storage *out, socklen_t *out_n);
void addr_from_sockaddr(const struct sockaddr_storage *from, Addr *out);
#endif
