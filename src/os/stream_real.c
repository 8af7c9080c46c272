// SPDX-License-Identifier: Apache-2.0
// stream_real.c - sockets and pipes behind a stream. Each is registered once, edge-triggered, for
// input and for the peer's leaving (EPOLLRDHUP), and not touched again until it is closed: pausing
// needs no system call, and an error cannot make a paused loop spin. Writability is asked for only
// once the kernel has refused bytes.
// Owner: stream.c. Threads: the loop's.
#include "os/real.h"
#include "os/stream_impl.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    UNIX_RETRY_MS = 5,     // a unix listener's backlog is full: there is no event for room in it
    KEEP_ALIVE_S = 60,     // idle before the first probe: finds peers that vanished without a word
    KEEP_ALIVE_PROBES = 4, // 15 s apart
};

typedef struct RealStream {
    Stream head;
    int fd; // -1: a connection that failed at once
    Watch watch;
    bool asks_out; // EPOLLOUT is asked for
    Timer retry;
    Addr to;
} RealStream;

#define EVENTS_IN (EPOLLIN | EPOLLRDHUP | (unsigned)EPOLLET)

static void on_events(void *arg, unsigned events);

void real_socket_options(int fd, int family) {
    if (family == AF_UNIX) return;
    const int on = 1, idle = KEEP_ALIVE_S, every = KEEP_ALIVE_S / 4, probes = KEEP_ALIVE_PROBES;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof every);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

// While asked for, an edge follows each refusal: the kernel tells when there is room again.
static void ask_out(RealStream *s, bool on) {
    if (s->asks_out == on) return;
    s->asks_out = on;
    real_watch_set(s->head.loop, &s->watch, EVENTS_IN | (on ? EPOLLOUT : 0u));
}

// evbuffer_write knows chains and file segments (sendfile). SIGPIPE is ignored: see os_real.
static int send_out(Stream *head, size_t max) {
    RealStream *s = (RealStream *)head;
    for (size_t sent = 0; sent < max && evbuffer_get_length(head->out);) {
        int n = evbuffer_write_atmost(head->out, s->fd, (ev_ssize_t)(max - sent));
        if (n >= 0) {
            sent += (size_t)n;
            if (n == 0) return EIO; // a file segment that is shorter than it said
        } else if (errno == EAGAIN) {
            head->blocked = true;
            ask_out(s, true);
            return 0;
        } else if (errno != EINTR) {
            return errno;
        }
    }
    return 0;
}

static ssize_t recv_in(Stream *head, size_t max) {
    RealStream *s = (RealStream *)head;
    struct evbuffer_iovec room[2];
    int n_room = evbuffer_reserve_space(head->in, (ev_ssize_t)max, room, 2);
    assert(n_room > 0);
    if (room[0].iov_len >= max) n_room = 1;
    if (room[0].iov_len > max) room[0].iov_len = max;
    if (n_room == 2 && room[1].iov_len > max - room[0].iov_len)
        room[1].iov_len = max - room[0].iov_len;
    ssize_t n;
    do n = readv(s->fd, (struct iovec *)room, n_room);
    while (n < 0 && errno == EINTR);
    int e = errno;
    if (n > 0) {
        size_t left = (size_t)n;
        for (int i = 0; i < n_room; i++) {
            if (room[i].iov_len > left) room[i].iov_len = left;
            left -= room[i].iov_len;
        }
        if (n_room == 2 && !room[1].iov_len) n_room = 1;
        int rc = evbuffer_commit_space(head->in, room, n_room);
        assert(rc == 0);
    }
    return n < 0 ? -e : n;
}

static int pending_error(RealStream *s) {
    int e = 0;
    socklen_t n = sizeof e;
    return getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &e, &n) < 0 ? errno : e;
}

static void finish_out(Stream *head) { shutdown(((RealStream *)head)->fd, SHUT_WR); }

static void close_stream(Stream *head) {
    RealStream *s = (RealStream *)head;
    timer_done(&s->retry);
    if (s->fd < 0) return;
    real_watch_del(head->loop, &s->watch);
    close(s->fd);
    s->fd = -1;
}

static const StreamOps stream_ops = { send_out, recv_in, finish_out, close_stream };

static RealStream *make(Loop *l, int fd, const char *peer) {
    RealStream *s = (RealStream *)stream_make(l, &stream_ops, sizeof *s, peer);
    s->fd = fd;
    timer_init(&s->retry, l, NULL, s);
    s->watch = (Watch){ .fd = fd, .fn = on_events, .arg = s };
    return s;
}

// One that cannot be watched has failed: its owner hears that from `ended`.
static void watch(RealStream *s, unsigned events) {
    int e = real_watch_add(s->head.loop, &s->watch, events);
    if (!e) return;
    s->head.connecting = true;
    s->head.tell_opened = false;
    stream_on_connected(&s->head, e);
}

Stream *real_stream_accepted(Loop *l, int fd, const struct sockaddr_storage *from) {
    Addr peer = { "unix:" };
    if (from->ss_family == AF_UNIX) {
        struct ucred who = { 0 };
        socklen_t n = sizeof who;
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n) == 0)
            snprintf(peer.text, sizeof peer.text, "unix:pid=%ld", (long)who.pid);
    } else {
        addr_from_sockaddr(from, &peer);
    }
    RealStream *s = make(l, fd, peer.text);
    watch(s, EVENTS_IN);
    return &s->head;
}

Stream *real_stream_adopt(Loop *l, int fd) {
    assert(fd >= 0);
    int flags = fcntl(fd, F_GETFL);
    assert(flags >= 0);
    fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    RealStream *s = make(l, fd, "pipe");
    watch(s, EVENTS_IN);
    return &s->head;
}

// --- connecting

static void check_connected(RealStream *s) {
    struct sockaddr_storage peer;
    socklen_t n = sizeof peer;
    int e = pending_error(s);
    if (!e && getpeername(s->fd, (struct sockaddr *)&peer, &n) < 0) return; // not yet
    stream_on_connected(&s->head, e);
}

static void try_connect(void *arg) {
    RealStream *s = arg;
    struct sockaddr_storage to;
    socklen_t to_n;
    bool good = addr_to_sockaddr(&s->to, &to, &to_n);
    assert(good); // an Addr comes from addr_parse
    int rc = connect(s->fd, (struct sockaddr *)&to, to_n);
    if (rc == 0) stream_on_connected(&s->head, 0);
    else if (errno == EAGAIN) timer_start(&s->retry, UNIX_RETRY_MS);
    else if (errno != EINPROGRESS && errno != EINTR) stream_on_connected(&s->head, errno);
}

Stream *real_stream_connect(Loop *l, const Addr *to) {
    struct sockaddr_storage where;
    socklen_t where_n;
    bool good = addr_to_sockaddr(to, &where, &where_n);
    assert(good);
    int fd = socket(where.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int e = errno;
    RealStream *s = make(l, fd, to->text);
    s->head.connecting = true;
    s->to = *to;
    s->retry.fn = try_connect;
    if (fd < 0) {
        stream_on_connected(&s->head, e);
        return &s->head;
    }
    real_socket_options(fd, where.ss_family);
    try_connect(s);
    // After connect: before it, epoll takes the socket for hung up.
    s->asks_out = s->head.connecting;
    watch(s, EVENTS_IN | (s->asks_out ? EPOLLOUT : 0u));
    return &s->head;
}

static void on_events(void *arg, unsigned events) {
    RealStream *s = arg;
    const unsigned leaving = EPOLLRDHUP | EPOLLHUP | EPOLLERR;
    if (s->head.connecting) {
        if (!s->retry.running) check_connected(s);
        if (s->head.connecting) return;
    }
    if (events & EPOLLOUT) {
        if (s->head.blocked) stream_on_writable(&s->head);
        else ask_out(s, false);
    }
    if (events & (EPOLLIN | leaving)) stream_on_readable(&s->head, events & leaving);
}

// --- names

static err resolve_failed(Ctx *c, str host, int rc) {
    err e = rc == EAI_NONAME || rc == EAI_NODATA ? ERR_NOTFOUND
            : rc == EAI_AGAIN                    ? ERR_UNAVAILABLE
                                                 : ERR_UPSTREAM;
    return fail(c, e, R_CONNECT, "address", say_str(c, host), "why", gai_strerror(rc));
}

err real_resolve(Ctx *c, str host, int port, Addr *out, size_t max, size_t *out_n) {
    struct addrinfo want = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG }, *all = NULL;
    int rc = getaddrinfo(arena_z(c->mem, host), NULL, &want, &all);
    if (rc) return resolve_failed(c, host, rc);
    size_t n = 0;
    for (struct addrinfo *a = all; a && n < max; a = a->ai_next) {
        struct sockaddr_storage s = { 0 };
        if (a->ai_family != AF_INET && a->ai_family != AF_INET6) continue;
        memcpy(&s, a->ai_addr, a->ai_addrlen);
        if (s.ss_family == AF_INET) ((struct sockaddr_in *)&s)->sin_port = htons((uint16_t)port);
        else ((struct sockaddr_in6 *)&s)->sin6_port = htons((uint16_t)port);
        addr_from_sockaddr(&s, &out[n++]);
    }
    freeaddrinfo(all);
    if (!n) return resolve_failed(c, host, EAI_NONAME);
    *out_n = n;
    return ERR_OK;
}
