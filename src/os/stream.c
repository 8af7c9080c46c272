// SPDX-License-Identifier: Apache-2.0
// stream.c - the life of a stream on either machine: when it reads, pauses, flushes, tells its
// owner, times out and ends. Moving bytes is the transport's (stream_real.c, sim_stream.c).
// Owner: stream.h. A freed stream's connection is closed at once, its memory at the end of the
// turn, so that code further up the stack may still look at it. Threads: the loop's.
#include "os/stream_impl.h"
#include <assert.h>
#include <errno.h>

enum {
    IN_MAX_DEFAULT = 256 << 10,
    TURN_MAX = 256 << 10,    // bytes of one stream in one direction before others get their turn
    LEAVING_MAX = 256 << 10, // moved despite a pause when the peer has ended its side
    CHUNK_MIN = 4000,        // with libevent's header just under 4 KiB
    CHUNK_MAX = 64000,
    SHUT_SEND_MS = 30000, // without progress, when the owner had set no time-out
    SHUT_LINGER_MS = 2000,
};

const char *stream_end_name(StreamEnd e) {
    static const char *const names[] = { "eof", "reset", "refused", "timeout", "io" };
    assert(e <= STREAM_IO);
    return names[e];
}

static StreamEnd end_of_errno(int e) {
    switch (e) {
    case ECONNREFUSED:
    case ENOENT: return STREAM_REFUSED;
    case ETIMEDOUT: return STREAM_TIMEOUT;
    case ECONNRESET:
    case EPIPE: return STREAM_RESET;
    default: return STREAM_IO;
    }
}

static size_t unread(Stream *s) { return evbuffer_get_length(s->in); }
static size_t unsent(Stream *s) { return evbuffer_get_length(s->out); }
static bool paused(Stream *s) { return !s->shut && (!s->reading || unread(s) >= s->in_max); }

static bool opening(Stream *s) { return s->connecting || (s->tell_opened && s->filter); }

void stream_pend(Stream *s) {
    if (!s->dead && link_alone(&s->pending)) link_add(&s->loop->pending, &s->pending);
}

static void touch(Stream *s) {
    if (!s->dead && link_alone(&s->touched)) link_add(&s->loop->touched, &s->touched);
}

void stream_push(Stream *s) { touch(s); }

static void destroy(Stream *s) {
    assert(!s->dead);
    s->ops->close(s);
    s->dead = true;
    timer_done(&s->timer);
    link_del(&s->touched);
    link_del(&s->pending);
    link_del(&s->all);
    link_add(&s->loop->dead, &s->all);
}

void streams_bury(Loop *l) {
    while (!link_alone(&l->dead)) {
        Stream *s = link_of(l->dead.next, Stream, all);
        link_del(&s->all);
        evbuffer_free(s->in);
        evbuffer_free(s->out);
        mem_free(s);
    }
}

void streams_drop(Loop *l, bool shut_only) {
    for (Link *at = l->streams.next, *next; at != &l->streams; at = next) {
        next = at->next;
        Stream *s = link_of(at, Stream, all);
        if (s->shut || !shut_only) destroy(s);
    }
}

// --- deadlines

static int64_t sooner(int64_t a, int64_t b) { return !a || (b && b < a) ? b : a; }

static int64_t read_due(Stream *s) {
    bool counts = s->read_ms && !s->connecting && !s->ended_in && !paused(s);
    return counts ? s->last_in_ns + s->read_ms * 1000000 : 0;
}

static int64_t write_due(Stream *s) {
    int64_t ms = s->write_ms || !s->shut ? s->write_ms : SHUT_SEND_MS;
    bool counts = ms && s->blocked && !s->ended_out;
    return counts ? s->last_out_ns + ms * 1000000 : 0;
}

static void watch_time(Stream *s) {
    int64_t due = opening(s) ? s->connect_due_ns : 0;
    due = sooner(due, read_due(s));
    due = sooner(due, write_due(s));
    due = sooner(due, s->shut_due_ns);
    if (due) timer_start_at(&s->timer, due);
    else if (s->timer.running) timer_stop(&s->timer);
}

// Ends one side (EOF) or both. The owner may free the stream within its event.
static void end(Stream *s, StreamEnd why) {
    bool again = why == STREAM_EOF ? s->ended_in : s->ended_out;
    if (again) return;
    s->ended_in = true;
    if (why != STREAM_EOF) {
        s->ended_out = true;
        evbuffer_drain(s->out, unsent(s));
    }
    if (!s->shut) {
        watch_time(s);
        if (s->events.ended) s->events.ended(s->arg, why);
    } else if (s->ended_out || s->finished) {
        destroy(s);
    }
}

static void on_time(void *arg) {
    Stream *s = arg;
    int64_t now = loop_now_ns(s->loop), read = read_due(s), write = write_due(s);
    if (s->shut_due_ns && now >= s->shut_due_ns) {
        destroy(s);
    } else if ((opening(s) && s->connect_due_ns && now >= s->connect_due_ns)
               || (read && now >= read) || (write && now >= write)) {
        s->connecting = false;
        end(s, STREAM_TIMEOUT);
    } else {
        watch_time(s);
    }
}

// --- input

// The owner drained input below the maximum: go on reading at the end of the turn.
static void on_in_changed(struct evbuffer *in, const struct evbuffer_cb_info *info, void *arg) {
    (void)in;
    Stream *s = arg;
    if (info->n_deleted && s->readable && !paused(s)) stream_pend(s);
}

static void watch_in(Stream *s) {
    if (s->watching_in) return;
    struct evbuffer_cb_entry *entry = evbuffer_add_cb(s->in, on_in_changed, s);
    assert(entry);
    s->watching_in = true;
}

// One read of a size that follows the traffic: small for a trickle, so that an idle stream holds
// little, large for bulk. Returns as recv does.
static ssize_t pull_chunk(Stream *s, size_t room) {
    size_t want = room < s->chunk ? room : s->chunk;
    ssize_t n = s->ops->recv(s, want);
    if (n == (ssize_t)want) {
        s->chunk = s->chunk < CHUNK_MAX / 4 ? s->chunk * 4 : CHUNK_MAX;
    } else if (n >= 0) {
        // A short read has emptied the socket, and edges tell of what comes after it; but an end
        // that was already told of must be read.
        if (n > 0 && !s->leaving) s->readable = false;
        if ((size_t)n < s->chunk / 4)
            s->chunk = s->chunk / 2 > CHUNK_MIN ? s->chunk / 2 : CHUNK_MIN;
    }
    return n;
}

// How many bytes may be taken now.
static size_t pull_room(Stream *s) {
    if (s->shut) return TURN_MAX; // thrown away, so that the peer can finish and read our answer
    if (paused(s)) return s->leaving && !s->pulled ? LEAVING_MAX : 0;
    size_t room = s->in_max - unread(s);
    return room < TURN_MAX ? room : TURN_MAX;
}

// What recv said last, once all before it was handed over.
static void pulled_last(Stream *s, ssize_t last) {
    if (last == -EAGAIN) {
        s->readable = false;
        if (s->broken) end(s, STREAM_RESET);
    } else if (last == 0) {
        s->readable = false;
        end(s, s->broken ? STREAM_RESET : STREAM_EOF);
    } else if (last < 0) {
        s->readable = false;
        end(s, end_of_errno((int)-last));
    } else if (s->readable) { // more is there
        if (!paused(s)) stream_pend(s);
        else if (s->broken) end(s, STREAM_RESET);
        else watch_in(s);
    }
}

// Input waits while the owner has paused. Only a connection that is gone for good is told.
static void pull_nothing(Stream *s) {
    if (s->broken) end(s, STREAM_RESET);
    else if (s->reading) watch_in(s);
}

static void say_opened(Stream *s) {
    if (!s->tell_opened || !filter_ready(s)) return;
    s->tell_opened = false;
    if (s->events.opened) s->events.opened(s->arg);
}

static void pull(Stream *s) {
    if (!s->readable || s->ended_in) return;
    bool tell = !s->shut && !paused(s);
    size_t room = pull_room(s), got = 0;
    if (!room) {
        pull_nothing(s);
        return;
    }
    ssize_t last = -EAGAIN;
    while (got < room && s->readable) {
        last = pull_chunk(s, room - got);
        if (last <= 0) break;
        got += (size_t)last;
    }
    if (!tell) s->pulled = true;
    if (got) s->last_in_ns = loop_now_ns(s->loop);
    say_opened(s);
    if (s->dead) return;
    if (got && s->shut) evbuffer_drain(s->in, unread(s));
    if (got && tell && s->events.data) s->events.data(s->arg);
    if (s->dead) return;
    pulled_last(s, last);
    if (!s->dead) watch_time(s);
}

void stream_on_readable(Stream *s, bool leaving) {
    if (s->dead) return;
    s->readable = true;
    if (leaving) s->leaving = true;
    if (s->connecting || s->tell_opened || s->tell_failed) stream_pend(s);
    else pull(s);
}

// --- output

static void finish(Stream *s) {
    assert(s->shut && !s->finished);
    s->finished = true;
    s->ops->finish(s);
    s->shut_due_ns = loop_now_ns(s->loop) + (int64_t)SHUT_LINGER_MS * 1000000;
    if (s->ended_in) destroy(s);
    else stream_pend(s); // the peer's end may be there already
}

static void send_failed(Stream *s) {
    evbuffer_drain(s->out, unsent(s));
    s->blocked = false;
    s->broken = s->readable = s->leaving = true; // an answer may still be there to read
    stream_pend(s);
}

void stream_flush(Stream *s) {
    if (s->dead || s->connecting || s->tell_failed) return;
    size_t before = unsent(s);
    if (s->ended_out || s->broken) evbuffer_drain(s->out, before);
    if (before > s->out_low) s->above = true;
    bool waited = s->blocked;
    int e = (unsent(s) || filter_owes(s)) && !waited ? s->ops->send(s, TURN_MAX) : 0;
    size_t after = unsent(s);
    if (after < before || !waited) s->last_out_ns = loop_now_ns(s->loop);
    if (e) {
        send_failed(s);
        return;
    }
    bool owes = filter_owes(s);
    if ((after || owes) && !s->blocked && !s->held) touch(s); // more than its share
    if (!s->ended_out && ((s->above && after <= s->out_low) || (before && !after))) {
        s->above = false;
        s->tell_drained = true;
        stream_pend(s);
    }
    if (s->shut && !after && !owes && !s->finished) finish(s);
    else watch_time(s);
}

void stream_on_writable(Stream *s) {
    s->blocked = false;
    touch(s);
}

void stream_on_connected(Stream *s, int errno_value) {
    if (!s->connecting) return;
    s->connecting = false;
    s->connect_errno = errno_value;
    if (errno_value) {
        s->tell_failed = true;
    } else {
        s->tell_opened = true;
        s->last_in_ns = s->last_out_ns = loop_now_ns(s->loop);
        touch(s); // what was added before it was up
    }
    stream_pend(s);
}

// --- notices

void stream_attend(Stream *s) {
    if (s->dead || s->connecting) return;
    if (s->tell_failed) {
        s->tell_failed = false;
        end(s, end_of_errno(s->connect_errno));
        return;
    }
    say_opened(s);
    if (s->tell_drained && !s->dead) {
        s->tell_drained = false;
        if (s->events.drained) s->events.drained(s->arg);
    }
    if (s->dead) return;
    if (s->broken && s->ended_in) end(s, STREAM_RESET);
    else pull(s);
    if (!s->dead) watch_time(s);
}

// --- the owner's side

Stream *stream_make(Loop *l, const StreamOps *ops, size_t size, const char *peer) {
    assert(loop_is_mine(l) && size >= sizeof(Stream));
    Stream *s = mem_new(size);
    s->ops = ops;
    s->loop = l;
    s->in = evbuffer_new();
    s->out = evbuffer_new();
    assert(s->in && s->out);
    link_init(&s->touched);
    link_init(&s->pending);
    link_add(&l->streams, &s->all);
    timer_init(&s->timer, l, on_time, s);
    s->in_max = IN_MAX_DEFAULT;
    s->chunk = CHUNK_MIN;
    s->reading = true;
    s->last_in_ns = s->last_out_ns = loop_now_ns(l);
    memccpy(s->peer.text, peer, 0, sizeof s->peer.text - 1);
    l->owned++;
    return s;
}

Stream *stream_connect(Loop *l, const Addr *to, int64_t timeout_ms, const StreamEvents *ev,
                       void *arg) {
    assert(loop_is_mine(l) && timeout_ms >= 0);
    Stream *s = l->os->ops->stream_connect(l, to);
    stream_events(s, ev, arg);
    if (timeout_ms) s->connect_due_ns = loop_now_ns(l) + timeout_ms * 1000000;
    watch_time(s);
    return s;
}

Stream *stream_adopt(Loop *l, int fd, const StreamEvents *ev, void *arg) {
    Stream *s = l->os->ops->stream_adopt(l, fd);
    stream_events(s, ev, arg);
    return s;
}

void stream_events(Stream *s, const StreamEvents *ev, void *arg) {
    assert(loop_is_mine(s->loop) && !s->dead && !s->shut);
    s->events = ev ? *ev : (StreamEvents){ 0 };
    s->arg = arg;
}

void stream_free(Stream *s) {
    if (!s) return;
    assert(loop_is_mine(s->loop) && !s->dead && !s->shut && s->loop->owned);
    s->loop->owned--;
    destroy(s);
}

void stream_shut(Stream *s) {
    assert(loop_is_mine(s->loop) && !s->dead && !s->shut);
    s->loop->owned--;
    s->shut = true;
    s->events = (StreamEvents){ 0 };
    if (s->ended_out || s->tell_failed) {
        destroy(s);
        return;
    }
    evbuffer_drain(s->in, unread(s));
    s->last_out_ns = loop_now_ns(s->loop);
    touch(s);
    watch_time(s);
}

struct evbuffer *stream_in(Stream *s) {
    return s->in;
}
struct evbuffer *stream_out(Stream *s) {
    return s->out;
}
Loop *stream_loop(Stream *s) { return s->loop; }
str stream_peer(Stream *s) { return str_z(s->peer.text); }

void stream_touch(Stream *s) {
    assert(loop_is_mine(s->loop) && !s->shut);
    touch(s);
}

void stream_read(Stream *s, bool on) {
    assert(loop_is_mine(s->loop) && !s->dead && !s->shut);
    if (s->reading == on) return;
    s->reading = on;
    s->last_in_ns = loop_now_ns(s->loop);
    if (on && s->readable) stream_pend(s);
    watch_time(s);
}

void stream_marks(Stream *s, size_t in_max, size_t out_low) {
    assert(in_max > 0);
    s->in_max = in_max;
    s->out_low = out_low;
    if (s->readable && !paused(s)) stream_pend(s);
}

void stream_timeouts(Stream *s, int64_t read_ms, int64_t write_ms) {
    assert(read_ms >= 0 && write_ms >= 0);
    s->read_ms = read_ms;
    s->write_ms = write_ms;
    s->last_in_ns = s->last_out_ns = loop_now_ns(s->loop);
    watch_time(s);
}

// --- listeners

err listener_open(Ctx *c, const ListenSpec *spec, Listener **out) {
    assert(spec->loops_n > 0 && spec->accepted);
    return spec->loops[0]->os->ops->listener_open(c, spec, out);
}

void listener_close(Listener *l) {
    if (l) l->close(l);
}

const Addr *listener_addr(const Listener *l) { return &l->addr; }
