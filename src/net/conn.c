// SPDX-License-Identifier: Apache-2.0
// conn.c - one client's connection: a small state machine, run by what arrives, by time, and by the
// exchange's owner.
//
//   IDLE --bytes--> HEAD --head complete--> BODY --body complete--> WAIT --answer complete--> FLUSH
//     ^                \--broken: refused---------------------------------------------------> |
//     \-------------------------------- flushed and kept alive ------------------------------/
//
// An answer may be complete before the body is: BODY goes to FLUSH then, where the rest of the body
// is dropped. A connection that is not kept alive is shut after FLUSH; the stream lets the client
// finish sending, so that it can read why. A client that ends its side while an answer is being
// made has left: no client of ours half-closes, and an engine must not work for nobody. Leaves
// parsing to parse.c, what a head means to admit.c, the body to body.c. Owner and threads: see
// conn.h.
#include "net/conn.h"
#include "net/reason.h"
#include <assert.h>

enum { RATE_MIN = 128 };    // bytes a second below which a client is too slow
enum { SURPLUS_MS = 1000 }; // one that is over the most has so long to ask

// ---- time

static int64_t ns_of(int64_t ms) { return ms * 1000000; }
static int64_t sooner(int64_t a, int64_t b) { return a < b ? a : b; }

static void pace_set(Pace *p, bool on, int64_t now_ns, int64_t bytes) {
    if (on && !p->on) *p = (Pace){ now_ns, bytes, true };
    if (!on) p->on = false;
}

// True when the window has passed with too little in it; else a new one starts when it is over.
static bool pace_missed(Pace *p, int64_t window_ms, int64_t now_ns, int64_t bytes) {
    if (!p->on || now_ns < p->from_ns + ns_of(window_ms)) return false;
    int64_t least = RATE_MIN * window_ms / 1000;
    if (bytes - p->bytes < (least ? least : 1)) return true;
    *p = (Pace){ now_ns, bytes, true };
    return false;
}

size_t conn_pending(const Conn *k) { return evbuffer_get_length(stream_out(k->stream)); }
static int64_t sent_total(const Conn *k) { return k->out_total - (int64_t)conn_pending(k); }

// Bytes of the body are waited for.
static bool reads_body(const Conn *k) {
    if (k->state == CONN_FLUSH) return k->parser.at == PARSER_BODY && !k->x->close;
    return k->state == CONN_BODY && body_wanted(k->x);
}

static int64_t head_due(const Conn *k) {
    int64_t ms = k->lane->server->config.head_timeout_ms;
    return k->since_ns + ns_of(k->surplus ? sooner(ms, SURPLUS_MS) : ms);
}

static int64_t idle_due(const Conn *k) {
    bool patient = k->served && !k->lane->draining;
    return patient ? k->since_ns + ns_of(k->lane->server->config.idle_timeout_ms) : head_due(k);
}

// When conn_time has something to do next; INT64_MAX: never.
static int64_t due(const Conn *k) {
    const ServerConfig *f = &k->lane->server->config;
    int64_t at = INT64_MAX;
    if (k->kicked) return 0;
    if (k->state == CONN_IDLE) at = idle_due(k);
    if (k->state == CONN_HEAD) at = head_due(k);
    if (k->in.on) at = sooner(at, k->in.from_ns + ns_of(f->body_timeout_ms));
    if (k->out.on) at = sooner(at, k->out.from_ns + ns_of(f->write_timeout_ms));
    if (k->x && k->x->deadline_ns) at = sooner(at, k->x->deadline_ns);
    if (k->x && k->x->beat_ms) at = sooner(at, k->x->beat_ns + ns_of(k->x->beat_ms));
    if (k->x && k->x->retry_ns) at = sooner(at, k->x->retry_ns);
    return at;
}

static void charge(Conn *k) {
    Exchange *x = k->x;
    size_t now = conn_pending(k) + evbuffer_get_length(stream_in(k->stream));
    if (x && x->chunk) now += evbuffer_get_length(x->chunk);
    if (x) now += x->body_charge;
    int64_t more = (int64_t)now - k->charged;
    if (now && more < 4096 && more > -4096) return; // few bytes are not worth an atomic operation
    k->charged = (int64_t)now;
    if (more) atomic_fetch_add_explicit(&k->lane->server->in_flight, more, memory_order_relaxed);
}

void conn_settle(Conn *k) {
    if (k->running || k->cut) return; // conn_run does it at its end
    int64_t now = loop_now_ns(k->lane->loop);
    charge(k);
    pace_set(&k->in, reads_body(k), now, k->in_total);
    pace_set(&k->out, conn_pending(k) > 0, now, sent_total(k));
    int64_t at = due(k);
    if (at == INT64_MAX) timer_stop(k->timer);
    else timer_start(k->timer, at > now ? (at - now + 999999) / 1000000 : 0);
}

// ---- greetings: TLS that is not up yet. Who sends many and finishes none pushes out his own: the
// oldest goes, and an honest one takes a few round trips.

static void greet_over(Conn *k) {
    Lane *lane = k->lane;
    if (!k->greets) return;
    k->greets = false;
    if (k->greet_before) k->greet_before->greet_after = k->greet_after;
    else lane->greets_first = k->greet_after;
    if (k->greet_after) k->greet_after->greet_before = k->greet_before;
    else lane->greets_last = k->greet_before;
    lane->greets_n--;
    atomic_fetch_sub_explicit(&lane->server->greetings, 1, memory_order_relaxed);
}

static void greet_begin(Conn *k) {
    Lane *lane = k->lane;
    Server *s = lane->server;
    if (lane->greets_n >= s->config.greetings_max) {
        atomic_fetch_add_explicit(&s->greetings_dropped, 1, memory_order_relaxed);
        conn_close(lane->greets_first);
    }
    k->greets = true;
    k->greet_before = lane->greets_last;
    if (k->greet_before) k->greet_before->greet_after = k;
    else lane->greets_first = k;
    lane->greets_last = k;
    lane->greets_n++;
    atomic_fetch_add_explicit(&s->greetings, 1, memory_order_relaxed);
}

// ---- life

void conn_state(Conn *k, ConnState s) {
    k->state = s;
    k->since_ns = loop_now_ns(k->lane->loop);
}

static void conn_free(Conn *k) {
    Lane *lane = k->lane;
    Exchange *x = k->x;
    assert(!k->running);
    greet_over(k);
    if (k->before) k->before->after = k->after;
    else lane->conns = k->after;
    if (k->after) k->after->before = k->before;
    lane->conns_n--;
    if (x) exchange_leave(x);
    Server *server = lane->server;
    atomic_fetch_sub_explicit(&server->in_flight, k->charged, memory_order_relaxed);
    atomic_fetch_sub_explicit(&server->connections, 1, memory_order_relaxed);
    // Between requests the end is said (RFC 9112 §9.8); one in the midst of an answer must not look
    // like an end.
    if (k->stream && k->tls && k->state == CONN_IDLE && tls_ready(k->tls)) stream_shut(k->stream);
    else stream_free(k->stream);
    timer_free(k->timer);
    mem_free(k);
    lane_check_drained(lane);
}

void conn_close(Conn *k) {
    k->cut = true;
    if (!k->running) conn_free(k);
}

// Lets what is queued leave, and the client finish.
static void conn_shut(Conn *k) {
    assert(!k->x && k->running);
    stream_shut(k->stream);
    k->stream = NULL;
    k->cut = true;
}

void conn_sent(Conn *k, size_t n) {
    k->out_total += (int64_t)n;
    stream_touch(k->stream);
    conn_settle(k);
}

// ---- steps: true when something happened

static bool step_idle(Conn *k) {
    if (!evbuffer_get_length(stream_in(k->stream))) {
        if (k->half || (k->lane->draining && k->served)) conn_close(k);
        return false;
    }
    k->x = exchange_new(k);
    parser_next(&k->parser, &k->x->head);
    conn_state(k, CONN_HEAD);
    return true;
}

static bool step_head(Conn *k) {
    ParseStep step = parser_step(&k->parser, stream_in(k->stream), NULL, 1);
    if (step == PARSE_HEAD) admit(k);
    else if (step == PARSE_TOOLARGE) refuse_head(k->x, parser_too_many_headers);
    else if (step == PARSE_BAD) refuse_head(k->x, k->parser.why);
    return step != PARSE_MORE;
}

// What is left of the body is dropped while the answer leaves; a short rest is waited for, so that
// the connection can go on.
static void drop_body(Conn *k) {
    Exchange *x = k->x;
    ParseStep step = PARSE_BODY;
    while (step == PARSE_BODY && k->parser.at == PARSER_BODY) {
        int64_t before = (int64_t)evbuffer_get_length(x->chunk);
        step = parser_step(&k->parser, stream_in(k->stream), x->chunk, CHUNK_ROOM);
        k->in_total += (int64_t)evbuffer_get_length(x->chunk) - before;
        evbuffer_drain(x->chunk, evbuffer_get_length(x->chunk));
    }
    if (step == PARSE_BAD) x->close = true;
}

static bool step_flush(Conn *k) {
    Exchange *x = k->x;
    if (k->parser.at == PARSER_BODY) drop_body(k);
    bool close = x->close || k->half;
    if (conn_pending(k) || (!close && k->parser.at != PARSER_END)) return false;
    exchange_leave(x);
    k->x = NULL;
    k->served = true;
    conn_state(k, CONN_IDLE);
    if (close) conn_shut(k);
    return !close;
}

static bool step(Conn *k) {
    switch (k->state) {
    case CONN_IDLE: return step_idle(k);
    case CONN_HEAD: return step_head(k);
    case CONN_BODY: return body_step(k);
    case CONN_WAIT: return body_left(k);
    case CONN_FLUSH: return step_flush(k);
    }
    return false;
}

void conn_run(Conn *k) {
    assert(!k->running);
    k->running = true;
    k->kicked = false;
    while (!k->cut && step(k)) {}
    k->running = false;
    if (k->cut) conn_free(k);
    else conn_settle(k);
}

void conn_kick(Conn *k) {
    k->kicked = true;
    conn_settle(k);
}

// ---- events

static void on_data(void *arg) { conn_run(arg); }

static void on_drained(void *arg) {
    Conn *k = arg;
    Exchange *x = k->x;
    if (!conn_pending(k)) k->out.on = false;
    if (k->state == CONN_FLUSH) {
        conn_run(k);
    } else if (x && x->answer == ANSWER_OPEN && x->owned && x->ev.drained) {
        x->ev.drained(x->arg);
    } else if (x && x->answer == ANSWER_OPEN && !x->owned) {
        serve_next(x);
    }
}

static void on_ended(void *arg, StreamEnd why) {
    Conn *k = arg;
    k->half = true;
    if (why == STREAM_EOF && k->state == CONN_FLUSH) conn_run(k);
    else conn_close(k);
}

// ---- the clock

// What was not done in time. True: the connection is closed or answers now.
static bool conn_late(Conn *k, int64_t now) {
    const ServerConfig *f = &k->lane->server->config;
    Exchange *x = k->x;
    if (pace_missed(&k->out, f->write_timeout_ms, now, sent_total(k))
        || (k->state == CONN_IDLE && now >= idle_due(k))) {
        conn_close(k);
        return true;
    }
    const char *part = NULL;
    if (k->state == CONN_HEAD && now >= head_due(k)) part = "head";
    if (pace_missed(&k->in, f->body_timeout_ms, now, k->in_total)) part = "body";
    bool late = x && x->deadline_ns && now >= x->deadline_ns;
    if (!part && !late) return false;
    if (x->answer == ANSWER_DONE) { // only a rest of the body is missing
        conn_close(k);
        return true;
    }
    refuse_late(k, part);
    return true;
}

static void on_time(void *arg) {
    Conn *k = arg;
    int64_t now = loop_now_ns(k->lane->loop);
    bool kicked = k->kicked;
    k->running = true;
    bool late = conn_late(k, now);
    if (!late && k->x && k->x->beat_ms) sse_beat(k->x, now);
    if (!late && k->x && k->x->retry_ns && now >= k->x->retry_ns) serve_next(k->x);
    k->running = false;
    if (k->cut) conn_free(k);
    else if (late || kicked) conn_run(k);
    else conn_settle(k);
}

static void on_opened(void *k) { greet_over(k); }

void conn_accept(Lane *lane, Stream *s, TlsServer *tls) {
    static const StreamEvents events = { on_opened, on_data, on_drained, on_ended };
    Conn *k = mem_new(sizeof *k);
    k->lane = lane;
    k->stream = s;
    k->surplus = atomic_load_explicit(&lane->server->connections, memory_order_relaxed)
                 > lane->server->config.connections_max;
    k->timer = timer_new(lane->loop, on_time, k);
    k->after = lane->conns;
    if (k->after) k->after->before = k;
    lane->conns = k;
    lane->conns_n++;
    parser_init(&k->parser, false);
    conn_state(k, CONN_IDLE);
    stream_events(s, &events, k);
    stream_marks(s, CHUNK_ROOM, OUT_LOW);
    if (tls) k->tls = tls_accept(tls, s);
    if (tls) greet_begin(k);
    conn_run(k);
}
