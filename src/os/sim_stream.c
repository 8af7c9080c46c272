// SPDX-License-Identifier: Apache-2.0
// sim_stream.c - simulated connections and listeners. What a stream sends is cut into segments that
// arrive in order, late, or never: a partition holds them back as lost packets do, a fault cuts the
// connection. A window bounds what is under way, so back-pressure is as real as on a socket. The
// connection outlives its ends: their death reaches the peer the way a kernel would tell it.
// Owner: stream.c, listener_open's caller; sim_free after a death. Threads: one.
#include "os/sim_impl.h"
#include <assert.h>
#include <errno.h>
#include <stdio.h>

static const int64_t MS = 1000000;
enum {
    SEGMENT_MAX = 16384,
    WINDOW_MIN = 4096,
    WINDOW_MAX = 256 << 10,
    RETRY_MS_MIN = 200, // of a lost packet
    RETRY_MS_MAX = 1000,
    GIVE_UP_MS = 60000,     // of retrying
    KEEP_ALIVE_MS = 120000, // until a peer that vanished without a word is noticed
};

typedef enum { SEGMENT_DATA, SEGMENT_FIN, SEGMENT_RST } SegmentKind;
typedef struct Segment {
    Link link;
    SegmentKind kind;
    int64_t at_ns;
    size_t n;
    uint8_t bytes[];
} Segment;

typedef struct SimConn SimConn;
typedef struct SimStream {
    Stream head;
    SimConn *conn; // NULL: it never had one (a pipe)
    int side;
} SimStream;

typedef struct Wire { // one direction, to end[side]
    SimConn *conn;
    int side;
    Link segments;
    size_t under_way;   // bytes in segments and in rx
    int64_t last_at_ns; // segments arrive in order
    int64_t stalled_ns; // since when a partition holds the first one; 0: it does not
    bool ticking;
    struct evbuffer *rx; // arrived, not yet read
    bool eof, reset;     // the reader's next answer once rx is empty
} Wire;

struct SimConn {
    SimThing thing;
    Link link; // in Sim.conns
    Sim *sim;
    SimStream *end[2]; // 0 connected, 1 was accepted; NULL: closed, or not there yet
    SimOs *os[2];
    unsigned life[2];
    bool closed[2];
    Wire wire[2]; // wire[i] brings bytes to end[i]
    size_t window;
    Addr to;
    SimLoop *loop; // that accepts
    int64_t started_ns;
    int connect_errno;
    unsigned events;
};

typedef struct SimListener {
    Listener head;
    SimThing thing;
    Link link; // in Sim.listeners
    SimOs *os;
    unsigned life;
    void (*accepted)(void *arg, Loop *l, Stream *s);
    void *arg;
    size_t loops_n;
    Loop *loops[];
} SimListener;

static void tick(void *arg);

// --- the wire

static bool parted(SimConn *k) { return k->sim->cut[k->os[0]->node->id][k->os[1]->node->id]; }

static int64_t latency_ns(SimConn *k, SimOs *from) {
    const SimFaults *f = &from->node->faults;
    int64_t us = sim_between(k->sim, f->latency_us_min, f->latency_us_max);
    if (sim_chance(k->sim, f->stream_slow)) us *= 100;
    return us * 1000 + sim_between(k->sim, 1, 1000);
}

static void schedule(Wire *w, int64_t at_ns) {
    if (w->ticking) return;
    w->ticking = true;
    w->conn->events++;
    sim_at(w->conn->sim, at_ns, tick, w);
}

static void put(Wire *w, SegmentKind kind, const void *p, size_t n) {
    SimConn *k = w->conn;
    Segment *g = mem_new(sizeof *g + n);
    *g = (Segment){ .kind = kind, .n = n };
    if (n) memcpy(g->bytes, p, n);
    g->at_ns = k->sim->now_ns + latency_ns(k, k->os[!w->side]);
    if (g->at_ns < w->last_at_ns) g->at_ns = w->last_at_ns;
    w->last_at_ns = g->at_ns;
    w->under_way += n;
    link_add(&w->segments, &g->link);
    schedule(w, g->at_ns);
}

static void drop_segments(Wire *w) {
    while (!link_alone(&w->segments)) {
        Segment *g = link_of(w->segments.next, Segment, link);
        w->under_way -= g->n;
        link_del(&g->link);
        mem_free(g);
    }
}

static void free_conn(SimConn *k) {
    sim_turns_forget(k->sim, k, sizeof *k);
    for (int i = 0; i < 2; i++) {
        drop_segments(&k->wire[i]);
        evbuffer_free(k->wire[i].rx);
    }
    link_del(&k->link);
    mem_free(k);
}

static void free_conn_thing(SimThing *t) { free_conn(link_of(t, SimConn, thing)); }

static void release(SimConn *k) {
    if (k->events || k->end[0] || k->end[1] || !k->closed[0] || !k->closed[1]) return;
    link_del(&k->thing.link);
    free_conn(k);
}

// --- arriving: turns of the reader's loop

static void tell_readable(void *arg) {
    Wire *w = arg;
    SimStream *s = w->conn->end[w->side];
    if (s) stream_on_readable(&s->head, w->eof || w->reset);
}

static void tell_writable(void *arg) {
    Wire *w = arg;
    SimStream *s = w->conn->end[w->side];
    if (s && s->head.blocked) stream_on_writable(&s->head);
}

static void tell(SimStream *s, void (*fn)(void *), void *arg) {
    if (s) sim_turn((SimLoop *)s->head.loop, fn, arg);
}

static void reset_end(Wire *w) {
    if (w->reset) return;
    drop_segments(w);
    w->reset = true;
    sim_mix(w->conn->sim, 0x0572);
    tell(w->conn->end[w->side], tell_readable, w);
}

// Nobody is there to read it: the sender is told, as by a kernel.
static void refuse(Wire *w) { reset_end(&w->conn->wire[!w->side]); }

static void arrive(Wire *w, Segment *g) {
    Sim *s = w->conn->sim;
    sim_mix(s, g->kind);
    sim_mix_bytes(s, g->bytes, g->n);
    if (!w->conn->end[w->side]) {
        w->under_way -= g->n;
        if (g->kind == SEGMENT_DATA) refuse(w);
        return;
    }
    if (g->kind == SEGMENT_RST) {
        reset_end(w);
        return;
    }
    if (g->kind == SEGMENT_FIN) w->eof = true;
    if (g->n) evbuffer_add(w->rx, g->bytes, g->n);
    tell(w->conn->end[w->side], tell_readable, w);
}

// Held back by a partition; after a long time the connection is given up on both sides.
static void stall(Wire *w) {
    Sim *s = w->conn->sim;
    if (!w->stalled_ns) w->stalled_ns = s->now_ns;
    if (s->now_ns - w->stalled_ns < GIVE_UP_MS * MS) {
        schedule(w, s->now_ns + sim_between(s, RETRY_MS_MIN, RETRY_MS_MAX) * MS);
        return;
    }
    drop_segments(w);
    reset_end(&w->conn->wire[0]);
    reset_end(&w->conn->wire[1]);
}

static void tick(void *arg) {
    Wire *w = arg;
    SimConn *k = w->conn;
    w->ticking = false;
    Segment *g = link_alone(&w->segments) ? NULL : link_of(w->segments.next, Segment, link);
    if (g && parted(k)) {
        stall(w);
    } else if (g && g->at_ns <= k->sim->now_ns) {
        w->stalled_ns = 0;
        link_del(&g->link);
        if (sim_chance(k->sim, k->os[!w->side]->node->faults.stream_cut)) {
            w->under_way -= g->n;
            reset_end(&k->wire[0]);
            reset_end(&k->wire[1]);
        } else {
            arrive(w, g);
        }
        mem_free(g);
    }
    if (!link_alone(&w->segments)) {
        int64_t at = link_of(w->segments.next, Segment, link)->at_ns;
        schedule(w, at > k->sim->now_ns ? at : k->sim->now_ns + 1);
    }
    k->events--;
    release(k);
}

// --- the transport below stream.c

static bool end_lives(SimStream *s) {
    return s->conn && sim_alive(s->conn->os[s->side], s->conn->life[s->side]);
}

static int send_out(Stream *head, size_t max) {
    SimStream *s = (SimStream *)head;
    if (!end_lives(s) || s->conn->wire[s->side].reset) return EPIPE;
    Wire *w = &s->conn->wire[!s->side];
    uint8_t part[SEGMENT_MAX];
    for (size_t sent = 0; sent < max && evbuffer_get_length(head->out);) {
        size_t room = s->conn->window > w->under_way ? s->conn->window - w->under_way : 0;
        if (!room) {
            head->blocked = true;
            return 0;
        }
        size_t n = 1 + sim_random(s->conn->sim, SEGMENT_MAX); // most are large, some tiny
        if (n > room) n = room;
        int got = evbuffer_remove(head->out, part, n);
        assert(got > 0);
        put(w, SEGMENT_DATA, part, (size_t)got);
        sent += (size_t)got;
    }
    return 0;
}

static void room_again(void *arg) {
    SimConn *k = arg;
    k->events--;
    for (int i = 0; i < 2; i++)
        if (k->end[i] && k->end[i]->head.blocked && k->wire[!i].under_way < k->window)
            tell(k->end[i], tell_writable, &k->wire[i]);
    release(k);
}

static ssize_t recv_in(Stream *head, size_t max) {
    SimStream *s = (SimStream *)head;
    if (!s->conn) return 0;
    Wire *w = &s->conn->wire[s->side];
    int n = evbuffer_remove_buffer(w->rx, head->in, max);
    assert(n >= 0);
    if (!n) return w->reset ? -ECONNRESET : w->eof ? 0 : -EAGAIN;
    w->under_way -= (size_t)n;
    SimStream *peer = s->conn->end[!s->side];
    if (peer && peer->head.blocked) { // the window opens, a latency later
        s->conn->events++;
        sim_at(s->conn->sim, s->conn->sim->now_ns + latency_ns(s->conn, s->conn->os[s->side]),
               room_again, s->conn);
    }
    return n;
}

static void finish_out(Stream *head) {
    SimStream *s = (SimStream *)head;
    if (end_lives(s)) put(&s->conn->wire[!s->side], SEGMENT_FIN, NULL, 0);
}

// A close with unread input is a reset, as on the machine.
static void close_stream(Stream *head) {
    SimStream *s = (SimStream *)head;
    SimConn *k = s->conn;
    if (!k) return;
    Wire *in = &k->wire[s->side];
    k->end[s->side] = NULL;
    if (end_lives(s) && !in->reset && !k->closed[s->side]) {
        bool unread = evbuffer_get_length(in->rx) > 0;
        if (unread || !head->finished)
            put(&k->wire[!s->side], unread ? SEGMENT_RST : SEGMENT_FIN, NULL, 0);
    }
    k->closed[s->side] = !k->os[s->side]->dying; // else sim_streams_lost tells the peer
    in->under_way -= evbuffer_get_length(in->rx);
    evbuffer_drain(in->rx, SIZE_MAX);
    s->conn = NULL;
    release(k);
}

static const StreamOps stream_ops = { send_out, recv_in, finish_out, close_stream };

// --- connecting

static SimConn *conn_new(SimOs *from, const Addr *to) {
    SimConn *k = mem_new(sizeof *k);
    k->sim = from->sim;
    k->to = *to;
    k->os[0] = k->os[1] = from;
    k->life[0] = from->life;
    k->closed[1] = true; // until accepted
    k->started_ns = k->sim->now_ns;
    k->window = (size_t)sim_between(k->sim, WINDOW_MIN, WINDOW_MAX);
    for (int i = 0; i < 2; i++) {
        k->wire[i].conn = k;
        k->wire[i].side = i;
        link_init(&k->wire[i].segments);
        k->wire[i].rx = evbuffer_new();
        assert(k->wire[i].rx);
    }
    link_add(&k->sim->conns, &k->link);
    sim_own(k->sim, &k->thing, free_conn_thing);
    return k;
}

static SimStream *stream_of(Loop *l, SimConn *k, int side, const char *peer) {
    SimStream *s = (SimStream *)stream_make(l, &stream_ops, sizeof *s, peer);
    s->conn = k;
    s->side = side;
    if (!k) return s;
    k->end[side] = s;
    k->closed[side] = false;
    k->os[side] = sim_os(l->os);
    k->life[side] = k->os[side]->life;
    return s;
}

// Which node an address means, seen from `from`: itself for loopback and unix. -1: none.
static int node_of(SimOs *from, const Addr *a) {
    unsigned last, port;
    if (!strncmp(a->text, "unix:", 5) || !strncmp(a->text, "127.", 4)) return from->node->id;
    if (!strncmp(a->text, "[::1]:", 6)) return from->node->id;
    if (sscanf(a->text, "10.0.0.%u:%u", &last, &port) != 2 || !last) return -1;
    return last <= SIM_NODES_MAX && from->sim->nodes[last - 1] ? (int)last - 1 : -1;
}

static str port_of(const Addr *a) {
    str t = str_z(a->text);
    size_t i = t.n;
    while (i && t.p[i - 1] != ':') i--;
    return str_sub(t, i, t.n);
}

static bool is_unix(const Addr *a) { return !strncmp(a->text, "unix:", 5); }

// Bound to this address, or to every address of its node.
static bool listens_at(const SimListener *l, int node, const Addr *to) {
    if (l->os->node->id != node || !sim_alive(l->os, l->life)) return false;
    if (!strcmp(l->head.addr.text, to->text)) return true;
    if (is_unix(to) || is_unix(&l->head.addr)) return false;
    bool any =
        !strncmp(l->head.addr.text, "0.0.0.0:", 8) || !strncmp(l->head.addr.text, "[::]:", 5);
    return any && str_eq(port_of(&l->head.addr), port_of(to));
}

static SimListener *find_listener(Sim *s, int node, const Addr *to) {
    for (Link *at = s->listeners.next; at != &s->listeners; at = at->next) {
        SimListener *l = link_of(at, SimListener, link);
        if (listens_at(l, node, to)) return l;
    }
    return NULL;
}

// The connection is up for the listener first, for the client a latency later.
static void connected_comes(void *arg);

static void later(SimConn *k, int64_t at_ns, void (*fn)(void *)) {
    k->events++;
    sim_at(k->sim, at_ns, fn, k);
}

static void accept_conn(void *arg) {
    SimConn *k = arg;
    SimListener *l = find_listener(k->sim, k->os[1]->node->id, &k->to);
    Addr peer = { "unix:pid=1" };
    if (!l || !k->end[0]) return;
    if (!is_unix(&k->to))
        snprintf(peer.text, sizeof peer.text, "10.0.0.%d:%lld", k->os[0]->node->id + 1,
                 (long long)sim_between(k->sim, 20000, 39999));
    SimStream *s = stream_of(&k->loop->head, k, 1, peer.text);
    int64_t at = k->sim->now_ns + latency_ns(k, k->os[1]);
    k->wire[0].last_at_ns = at + 1; // nothing overtakes the handshake
    later(k, at, connected_comes);
    l->accepted(l->arg, &k->loop->head, &s->head);
}

static void tell_connected(void *arg) {
    SimConn *k = arg;
    if (k->end[0]) stream_on_connected(&k->end[0]->head, k->connect_errno);
}

static void connected_comes(void *arg) {
    SimConn *k = arg;
    tell(k->end[0], tell_connected, k);
    k->events--;
    release(k);
}

// Lost packets are sent again; who is not there answers "refused" at once.
static void syn_arrives(void *arg) {
    SimConn *k = arg;
    Sim *s = k->sim;
    SimOs *from = k->os[0];
    int node = node_of(from, &k->to);
    k->events--;
    if (!k->end[0]) {
        release(k);
        return;
    }
    bool cut = node >= 0 && s->cut[from->node->id][node];
    if (cut && s->now_ns - k->started_ns < GIVE_UP_MS * MS) {
        later(k, s->now_ns + sim_between(s, RETRY_MS_MIN, RETRY_MS_MAX) * MS, syn_arrives);
        return;
    }
    SimListener *l = node < 0 || cut ? NULL : find_listener(s, node, &k->to);
    if (l && sim_chance(s, from->node->faults.connect_refused)) l = NULL;
    sim_mix(s, l ? 0xacce : 0x4ef);
    k->connect_errno = l ? 0 : cut ? ETIMEDOUT : node < 0 ? EHOSTUNREACH : ECONNREFUSED;
    if (!l) {
        later(k, s->now_ns + latency_ns(k, from), connected_comes);
        return;
    }
    k->os[1] = l->os;
    k->loop = (SimLoop *)l->loops[sim_random(s, l->loops_n)];
    sim_turn(k->loop, accept_conn, k);
}

Stream *sim_stream_connect(Loop *l, const Addr *to) {
    SimOs *os = sim_os(l->os);
    SimConn *k = conn_new(os, to);
    SimStream *s = stream_of(l, k, 0, to->text);
    s->head.connecting = true;
    later(k, k->sim->now_ns + latency_ns(k, os), syn_arrives);
    return &s->head;
}

// A connection whose one end was in a memory that is lost.
static void vanished(void *arg) {
    SimConn *k = arg;
    for (int i = 0; i < 2; i++)
        if (k->end[i]) reset_end(&k->wire[i]);
    k->events--;
    release(k);
}

static void end_lost(SimConn *k, int side, bool quiet) {
    if (k->end[side]) k->end[side]->conn = NULL;
    k->end[side] = NULL;
    k->closed[side] = true;
    k->wire[side].under_way -= evbuffer_get_length(k->wire[side].rx);
    evbuffer_drain(k->wire[side].rx, SIZE_MAX);
    if (quiet) later(k, k->sim->now_ns + KEEP_ALIVE_MS * MS, vanished);
    else put(&k->wire[!side], SEGMENT_RST, NULL, 0);
}

void sim_streams_lost(SimOs *os, bool quiet) {
    Sim *s = os->sim;
    for (Link *at = s->conns.next; at != &s->conns; at = at->next) {
        SimConn *k = link_of(at, SimConn, link);
        for (int i = 0; i < 2; i++)
            if (k->os[i] == os && k->life[i] == os->life && !k->closed[i]) end_lost(k, i, quiet);
    }
    for (Link *at = s->listeners.next, *next; at != &s->listeners; at = next) {
        SimListener *l = link_of(at, SimListener, link);
        next = at->next;
        if (l->os == os) link_del(&l->link);
    }
}

// --- listeners and names

static void free_listener_thing(SimThing *t) { mem_free(link_of(t, SimListener, thing)); }

static void close_listener(Listener *head) {
    SimListener *l = (SimListener *)head;
    link_del(&l->link);
    link_del(&l->thing.link);
    mem_free(l);
}

static int check_address(SimOs *os, const Addr *a) {
    char own[32];
    snprintf(own, sizeof own, "10.0.0.%d:", os->node->id + 1);
    str t = str_z(a->text);
    bool here = is_unix(a) || str_starts(t, S("127.")) || str_starts(t, S("0.0.0.0:"))
                || str_starts(t, S("[::]:")) || str_starts(t, S("[::1]:"))
                || str_starts(t, str_z(own));
    if (!here) return EADDRNOTAVAIL;
    return find_listener(os->sim, os->node->id, a) ? EADDRINUSE : 0;
}

err sim_listener_open(Ctx *c, const ListenSpec *spec, Listener **out) {
    SimOs *os = sim_os(spec->loops[0]->os);
    Addr a = *spec->addr;
    str port = port_of(&a);
    if (!is_unix(&a) && str_is(port, "0"))
        snprintf(a.text, sizeof a.text, "%.*s%d", (int)(port.p - spec->addr->text),
                 spec->addr->text, os->node->next_port++);
    int e = os->dying ? EIO : check_address(os, &a);
    if (e) return os_fail(c, e, "listen on", str_z(a.text));
    SimListener *l = mem_new(sizeof *l + spec->loops_n * sizeof *l->loops);
    l->head = (Listener){ close_listener, a };
    l->os = os;
    l->life = os->life;
    l->accepted = spec->accepted;
    l->arg = spec->arg;
    l->loops_n = spec->loops_n;
    memcpy(l->loops, spec->loops, spec->loops_n * sizeof *l->loops);
    link_add(&os->sim->listeners, &l->link);
    sim_own(os->sim, &l->thing, free_listener_thing);
    *out = &l->head;
    return ERR_OK;
}

// "localhost", "node<n>", and addresses as they are.
err sim_resolve(Ctx *c, str host, int port, Addr *out, size_t max, size_t *out_n) {
    (void)max;
    int64_t node;
    str text = arena_printf(c->mem, STR_FMT ":%d", STR_ARG(host), port);
    if (str_is(host, "localhost")) text = arena_printf(c->mem, "127.0.0.1:%d", port);
    if (str_starts(host, S("node")) && str_to_i64(str_sub(host, 4, host.n), &node) && node >= 0
        && node < SIM_NODES_MAX)
        text = arena_printf(c->mem, "10.0.0.%lld:%d", (long long)node + 1, port);
    if (addr_parse(c, text, out))
        return fail(c, ERR_NOTFOUND, R_CONNECT, "address", say_str(c, host), "why", "no such name");
    *out_n = 1;
    return ERR_OK;
}
