// SPDX-License-Identifier: Apache-2.0
// stream_filter.c - a filter between a stream and its transport: the stream keeps its rules (marks,
// pauses, time-outs, ends), the transport moves the wire's bytes, and what one owes the other is
// kept here. The owner's output stays in the stream until all that stands for it has left, so that
// "sent" means what it means without a filter; a piece of at most PIECE_MAX is encoded ahead.
// Owner: stream.c. Threads: the loop's.
#include "os/stream_impl.h"
#include <assert.h>
#include <errno.h>

enum {
    PIECE_MAX = 64 << 10, // of output encoded at once
    READ_MAX = 64000,     // of the wire, as the stream's own largest
    LAST_MAX = 16 << 10,  // of an alert that is sent on the way out
};

static size_t length(struct evbuffer *b) { return evbuffer_get_length(b); }

// The transport works on s->in and s->out: for as long as it does, these are the wire's.
static int wire_send(Stream *s, size_t max) {
    struct evbuffer *out = s->out;
    s->out = s->filter->wire_out;
    int e = s->filter->below->send(s, max);
    s->out = out;
    return e;
}

static ssize_t wire_recv(Stream *s, size_t max) {
    struct evbuffer *in = s->in;
    s->in = s->filter->wire_in;
    ssize_t n = s->filter->below->recv(s, max);
    s->in = in;
    return n;
}

bool filter_owes(const Stream *s) {
    const Filter *f = s->filter;
    if (!f || s->broken || s->ended_out) return false;
    return length(f->wire_out) || (s->shut && f->ready && !f->said_bye);
}

// After each step of the filter: what waited for it may go on.
static void stepped(Stream *s) {
    Filter *f = s->filter;
    if (!f->ready && f->fn.ready(f->arg)) {
        f->ready = true;
        s->held = false;
        stream_push(s);
        stream_pend(s); // tells `opened`
    }
    if (filter_owes(s)) stream_push(s);
}

// --- input

// Positive when there is more to decode, -EAGAIN, or how the wire ends. *room is what is read next,
// more each time; 0 once a short read has emptied the socket (as in stream.c: but for an end that
// was already told of).
static ssize_t more_wire(Stream *s, size_t *room) {
    size_t want = *room;
    if (!want) return -EAGAIN;
    ssize_t n = wire_recv(s, want);
    if (n == (ssize_t)want) *room = want < READ_MAX / 4 ? want * 4 : READ_MAX;
    else if (!s->leaving) *room = 0;
    return n ? n : -ECONNRESET; // an end that the peer has not announced
}

static ssize_t filter_recv(Stream *s, size_t max) {
    Filter *f = s->filter;
    size_t got = 0, room = max;
    ssize_t n;
    while (!f->over && got < max) {
        n = f->fn.take(f->arg, s->in, max - got);
        if (n > 0) got += (size_t)n;
        else if (n == 0) f->over = 1;
        else if (n != -EAGAIN) f->over = (int)n;
        else if ((n = more_wire(s, &room)) == -EAGAIN) break;
        else if (n < 0) f->over = (int)n;
    }
    stepped(s);
    if (f->over && got) s->leaving = true; // the end is to be read, though this was a short read
    if (got || !f->over) return got ? (ssize_t)got : -EAGAIN;
    return f->over < 0 ? f->over : 0;
}

// --- output

// The next piece for the wire: the owner's bytes, or our end.
static int encode(Stream *s) {
    Filter *f = s->filter;
    evbuffer_drain(s->out, f->covered);
    f->covered = 0;
    if (s->shut && !f->ready) evbuffer_drain(s->out, length(s->out));
    if (length(s->out) && !f->ready) {
        s->held = true;
    } else if (length(s->out)) {
        ssize_t n = f->fn.give(f->arg, s->out, PIECE_MAX);
        if (n <= 0) return n ? (int)-n : EPROTO;
        f->covered = (size_t)n;
    } else if (s->shut && f->ready && !f->said_bye) {
        f->said_bye = true;
        f->fn.bye(f->arg);
    }
    return 0;
}

static int filter_send(Stream *s, size_t max) {
    Filter *f = s->filter;
    for (size_t sent = 0; sent < max && !s->blocked;) {
        size_t before = length(f->wire_out);
        int e = before ? wire_send(s, max - sent) : encode(s);
        if (e) return e;
        size_t after = length(f->wire_out);
        if (!before && !after) break; // nothing to send, or held
        if (before) sent += before - after;
    }
    if (!length(f->wire_out)) {
        evbuffer_drain(s->out, f->covered);
        f->covered = 0;
    }
    return 0;
}

static void filter_finish(Stream *s) { s->filter->below->finish(s); }

// What the filter itself has to say (an alert) is tried once; the owner's bytes are lost, as
// without a filter.
static void filter_close(Stream *s) {
    Filter *f = s->filter;
    const StreamOps *below = f->below;
    bool alert = !f->covered && length(f->wire_out) && !s->blocked && !s->connecting;
    if (alert && !s->broken && wire_send(s, LAST_MAX)) s->broken = true;
    f->fn.free(f->arg);
    evbuffer_free(f->wire_in);
    evbuffer_free(f->wire_out);
    mem_free(f);
    s->filter = NULL;
    below->close(s);
}

static const StreamOps filter_ops = { filter_send, filter_recv, filter_finish, filter_close };

void stream_filter(Stream *s, const StreamFilter *fn, void *arg, StreamWire *out_wire) {
    assert(loop_is_mine(s->loop) && !s->dead && !s->shut && !s->filter);
    assert(!length(s->in) && !length(s->out));
    Filter *f = mem_new(sizeof *f);
    f->below = s->ops;
    f->fn = *fn;
    f->arg = arg;
    f->wire_in = evbuffer_new();
    f->wire_out = evbuffer_new();
    assert(f->wire_in && f->wire_out);
    *out_wire = (StreamWire){ f->wire_in, f->wire_out };
    s->filter = f;
    s->ops = &filter_ops;
    if (!s->connecting && !s->tell_failed) s->tell_opened = true;
    ssize_t none = fn->take(arg, s->in, 0); // who speaks first does
    assert(none <= 0);
    stepped(s);
}
