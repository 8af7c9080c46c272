// SPDX-License-Identifier: Apache-2.0
// server.c - listening, counting, draining. A lane is a loop's share of the server; lanes share
// only atomic counters. Draining: listeners close, each lane closes what is idle, and the last
// connection or handler at work of the last lane ends it. A connection that has not had its first
// request yet may still have it: the client could not know. Owner and threads: see server.h.
#include "net/conn.h"
#include <assert.h>

// ---- small services to a lane's exchanges

str lane_date(Lane *lane) {
    int64_t s = os_wall_ms(loop_os(lane->loop)) / 1000;
    if (s != lane->date_s) head_date(s < 0 ? 0 : s, lane->date);
    lane->date_s = s;
    return str_z(lane->date);
}

static uint64_t mix(uint64_t z) { // splitmix64
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

str lane_id(Lane *lane, Arena *a, const char *prefix) {
    uint64_t n = mix(lane->id_seed + 0x9e3779b97f4a7c15u * ++lane->id_count);
    uint64_t m = mix(n ^ lane->id_seed);
    uint8_t random[10];
    memcpy(random, &n, 8);
    memcpy(random + 8, &m, 2);
    return id_format_ns(a, prefix, os_wall_ns(loop_os(lane->loop)), random);
}

// ---- making

static int64_t or_default(int64_t value, int64_t fallback) { return value ? value : fallback; }

static void config_take(ServerConfig *to, const ServerConfig *from) {
    *to = *from;
    to->head_timeout_ms = or_default(from->head_timeout_ms, 10000);
    to->idle_timeout_ms = or_default(from->idle_timeout_ms, 75000);
    to->body_timeout_ms = or_default(from->body_timeout_ms, 30000);
    to->write_timeout_ms = or_default(from->write_timeout_ms, 30000);
    to->memory_max_bytes = or_default(from->memory_max_bytes, 256 << 20);
    if (!from->connections_max) to->connections_max = 10000;
    if (!from->greetings_max) to->greetings_max = 256;
    to->spool_dir = str_z(mem_strdup(from->spool_dir));
    to->routes = NULL, to->routes_n = 0;
}

// What is written here is in memory already, or limited where it came in.
Buf *lane_scratch(Lane *lane) {
    Buf *b = &lane->scratch;
    if (b->cap > KEEP_MAX) buf_done(b);
    if (!b->p) buf_init(b, SIZE_MAX / 4);
    buf_clear(b);
    return b;
}

static void lane_init(Lane *lane, Server *s, Loop *l) {
    lane->server = s;
    lane->loop = l;
    lane->date_s = -1;
    os_random(loop_os(l), &lane->id_seed, sizeof lane->id_seed);
}

err server_new(Ctx *c, Loop *const loops[], size_t loops_n, const ServerConfig *config,
               Server **out) {
    Router *router;
    assert(loops_n);
    TRY(router_new(c, config->routes, config->routes_n, &router));
    Server *s = mem_new(sizeof *s);
    s->router = router;
    config_take(&s->config, config);
    s->lanes = mem_new(loops_n * sizeof *s->lanes);
    s->lanes_n = loops_n;
    for (size_t i = 0; i < loops_n; i++) lane_init(&s->lanes[i], s, loops[i]);
    atomic_init(&s->lanes_left, loops_n);
    *out = s;
    return ERR_OK;
}

// ---- listening

enum { SURPLUS_MAX = 64 }; // connections over the most, which are told so

static void admit_stream(Server *s, Loop *l, Stream *stream, TlsServer *tls) {
    Lane *lane = s->lanes;
    while (lane->loop != l) lane++;
    assert(lane < s->lanes + s->lanes_n);
    size_t before = atomic_fetch_add_explicit(&s->connections, 1, memory_order_relaxed);
    if (before >= s->config.connections_max)
        atomic_fetch_add_explicit(&s->refused, 1, memory_order_relaxed);
    if (before < s->config.connections_max + SURPLUS_MAX) {
        conn_accept(lane, stream, tls);
        return;
    }
    atomic_fetch_sub_explicit(&s->connections, 1, memory_order_relaxed);
    stream_free(stream);
}

static void accepted(void *s, Loop *l, Stream *stream) { admit_stream(s, l, stream, NULL); }
static void accepted_tls(void *arg, Loop *l, Stream *stream) {
    Server *s = arg;
    admit_stream(s, l, stream, s->tls);
}

static err listen_on(Ctx *c, Server *s, const Addr *addr, bool tls, Addr *out_actual) {
    Loop *loops[64];
    Listener *l;
    assert(s->listeners_n < countof(s->listeners) && s->lanes_n <= countof(loops));
    for (size_t i = 0; i < s->lanes_n; i++) loops[i] = s->lanes[i].loop;
    ListenSpec spec = { loops, s->lanes_n, addr, tls ? accepted_tls : accepted, s };
    TRY(listener_open(c, &spec, &l));
    s->listeners[s->listeners_n++] = l;
    if (out_actual) *out_actual = *listener_addr(l);
    return ERR_OK;
}

err server_listen(Ctx *c, Server *s, const Addr *addr, Addr *out_actual) {
    return listen_on(c, s, addr, false, out_actual);
}

err server_listen_tls(Ctx *c, Server *s, const Addr *addr, TlsServer *tls, Addr *out_actual) {
    assert(tls && (!s->tls || s->tls == tls));
    s->tls = tls;
    return listen_on(c, s, addr, true, out_actual);
}

// ---- draining

static void drain_over(void *arg) {
    Server *s = arg;
    if (loop_stopping(s->lanes[0].loop)) return;
    timer_free(s->drain_timer);
    s->drain_timer = NULL;
    s->drain_done(s->drain_arg);
}

void lane_check_drained(Lane *lane) {
    Server *s = lane->server;
    bool busy = lane->conns_n || (lane->exchanges_n && !lane->cut);
    if (!lane->draining || lane->drained || busy) return;
    lane->drained = true;
    if (atomic_fetch_sub(&s->lanes_left, 1) == 1) loop_post(s->lanes[0].loop, drain_over, s);
}

static void lane_drain(void *arg) {
    Lane *lane = arg;
    if (loop_stopping(lane->loop)) return;
    lane->draining = true;
    for (Conn *k = lane->conns, *next; k; k = next) {
        next = k->after;
        if (k->state == CONN_IDLE) conn_run(k);
    }
    lane_check_drained(lane);
}

static void lane_cut(void *arg) {
    Lane *lane = arg;
    if (loop_stopping(lane->loop)) return;
    lane->cut = true;
    while (lane->conns) conn_close(lane->conns);
    lane_check_drained(lane);
}

static void drain_late(void *arg) {
    Server *s = arg;
    for (size_t i = 0; i < s->lanes_n; i++) loop_post(s->lanes[i].loop, lane_cut, &s->lanes[i]);
}

static void drain_begin(void *arg) {
    Server *s = arg;
    if (loop_stopping(s->lanes[0].loop)) return;
    for (size_t i = 0; i < s->listeners_n; i++) listener_close(s->listeners[i]);
    s->listeners_n = 0;
    s->drain_timer = timer_new(s->lanes[0].loop, drain_late, s);
    timer_start(s->drain_timer, s->drain_ms);
    for (size_t i = 0; i < s->lanes_n; i++) loop_post(s->lanes[i].loop, lane_drain, &s->lanes[i]);
}

void server_drain(Server *s, int64_t timeout_ms, void (*done)(void *), void *arg) {
    assert(!s->drain_done && done && timeout_ms >= 0);
    s->drain_ms = timeout_ms;
    s->drain_done = done;
    s->drain_arg = arg;
    loop_post(s->lanes[0].loop, drain_begin, s);
}

// ---- the end

static void lane_done(Lane *lane) {
    lane->draining = false;
    while (lane->conns) conn_close(lane->conns);
    while (lane->spares_n) exchange_free(lane->spares[--lane->spares_n]);
    buf_done(&lane->scratch);
}

void server_cut(Server *s) {
    if (!s) return;
    for (size_t i = 0; i < s->listeners_n; i++) listener_close(s->listeners[i]);
    s->listeners_n = 0;
    for (size_t i = 0; i < s->lanes_n; i++) {
        s->lanes[i].draining = false;
        s->lanes[i].cut = true;
        while (s->lanes[i].conns) conn_close(s->lanes[i].conns);
    }
}

void server_free(Server *s) {
    if (!s) return;
    for (size_t i = 0; i < s->listeners_n; i++) listener_close(s->listeners[i]);
    for (size_t i = 0; i < s->lanes_n; i++) lane_done(&s->lanes[i]);
    timer_free(s->drain_timer);
    router_free(s->router);
    mem_free((void *)s->config.spool_dir.p);
    mem_free(s->lanes);
    mem_free(s);
}

ServerCounts server_counts(Server *s) {
    return (ServerCounts){ .connections = atomic_load(&s->connections),
                           .requests_active = atomic_load(&s->active),
                           .greetings = atomic_load(&s->greetings),
                           .greetings_dropped = atomic_load(&s->greetings_dropped),
                           .requests = atomic_load(&s->requests),
                           .connections_refused = atomic_load(&s->refused),
                           .bytes_in_flight = atomic_load(&s->in_flight) };
}
