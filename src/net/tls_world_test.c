// SPDX-License-Identifier: Apache-2.0
// tls_world_test.c - server and client over TLS in a simulated world: wires cut at any byte, slow,
// or refused. Each call ends once, what is said to be whole is whole, and nothing is left. With an
// RSA key every message has the same length each time, so that an equal seed gives equal ends,
// though the bytes on the wire are others.
#include "net/client.h"
#include "net/tls_fix_test.h"
#include "os/sim.h"
#include <assert.h>

enum { CALLS = 16, SEEDS = 16 };

typedef struct World World;
typedef struct Errand {
    World *w;
    Timer *start, *cancel;
    Call *call;
    str body;
    Buf got;
    int status, ends;
    CallEnd why;
    bool cancelled, begun;
} Errand;
struct World {
    Sim *sim;
    Loop *client_loop, *server_loop;
    Client *client;
    Pool *pool;
    Server *server;
    TlsServer *tls;
    TlsClient *trust;
    Addr addr;
    Errand errands[CALLS];
    int ends, left;
    bool drained;
};

static void on_body(void *arg, struct evbuffer *chunk, bool last) {
    Exchange *x = arg;
    if (!exchange_began(x)) exchange_begin(x, 200, NULL, 0, -1);
    exchange_write_buffer(x, chunk);
    if (last) exchange_end(x);
}
static void stream(Exchange *x, const NetRoute *route) {
    (void)route;
    exchange_events(x, &(ExchangeEvents){ .body = on_body }, x);
}
static const NetRoute row = { HTTP_POST, "/stream", 4 << 20, 0, NULL, stream, NULL };
static const NetRoute *const rows[] = { &row };

static void on_left(void *w, Ctx *c, const NetRoute *route, const HttpRequest *r,
                    const HttpOutcome *how) {
    (void)c, (void)route, (void)r, (void)how;
    ((World *)w)->left++;
}

static void on_head(void *arg, const CallHead *h) { ((Errand *)arg)->status = h->status; }
static void on_data(void *arg, struct evbuffer *chunk) {
    Errand *e = arg;
    size_t n = evbuffer_get_length(chunk);
    char *at = buf_reserve(&e->got, n);
    assert(at);
    evbuffer_remove(chunk, at, n);
    buf_commit(&e->got, n);
}
static void on_end(void *arg, CallEnd why) {
    Errand *e = arg;
    e->call = NULL;
    e->ends++;
    e->why = why;
    e->w->ends++;
}
static void start(void *arg) {
    static const CallEvents events = { on_head, on_data, NULL, on_end };
    Errand *e = arg;
    struct evbuffer *b = evbuffer_new();
    evbuffer_add(b, e->body.p, e->body.n);
    CallSpec spec = { .to = e->w->addr,
                      .tls = e->w->trust,
                      .tls_host = S("localhost"),
                      .method = HTTP_POST,
                      .target = S("/stream"),
                      .body = b,
                      .connect_ms = 30000,
                      .first_byte_ms = 60000,
                      .idle_ms = 60000,
                      .repeatable = true };
    e->begun = true;
    e->call = call_start(e->w->client, &spec, &events, e);
    evbuffer_free(b);
}
static void cancel(void *arg) {
    Errand *e = arg;
    if (!e->call) return;
    call_cancel(e->call);
    e->call = NULL;
    e->cancelled = true;
    e->w->ends++;
}

static void errand_init(World *w, Errand *e, Ctx *c) {
    size_t n = 1 + sim_random(w->sim, sim_random(w->sim, 4) ? 30000 : 600000);
    *e = (Errand){ .w = w, .body = test_bytes(c, n) };
    buf_init(&e->got, 8 << 20);
    e->start = timer_new(w->client_loop, start, e);
    e->cancel = timer_new(w->client_loop, cancel, e);
    int64_t at_ms = (int64_t)sim_random(w->sim, 2000);
    timer_start(e->start, at_ms);
    if (sim_random(w->sim, 5) == 0)
        timer_start(e->cancel, at_ms + (int64_t)sim_random(w->sim, 100));
}

// Files are the machine's; clocks and dice the world's.
static err trust_open(World *w, Os *server) {
    Ctx *c = real_ctx();
    TlsIdentity id = cert_identity("server");
    TRY(tls_server_new(c, &id, &w->tls));
    TRY(tls_client_new(c, cert_path("ca", "pem"), TLS_1_2, &w->trust));
    w->tls->os = server;
    w->trust->os = sim_node(w->sim, 0);
    return ERR_OK;
}

static err world_open(World *w, uint64_t seed, Ctx *c) {
    *w = (World){ .sim = sim_new(seed) };
    Os *server = sim_node(w->sim, 1);
    w->client_loop = loop_new(sim_node(w->sim, 0));
    w->client = client_new(w->client_loop, 4, 5000);
    w->server_loop = loop_new(server);
    w->pool = pool_new(server, "pool", 1, 8);
    ServerConfig config = { .pool = w->pool,
                            .spool_dir = S("/spool"),
                            .greetings_max = 4,
                            .left = on_left,
                            .app = w,
                            .routes = rows,
                            .routes_n = 1 };
    TRY(trust_open(w, server));
    c->os = server;
    TRY(dir_make(c, S("/spool"), 0700));
    TRY(addr_parse(c, S("0.0.0.0:443"), &w->addr));
    TRY(server_new(c, &w->server_loop, 1, &config, &w->server));
    TRY(server_listen_tls(c, w->server, &w->addr, w->tls, NULL));
    return addr_parse(c, S("10.0.0.2:443"), &w->addr);
}

static void world_close(World *w) {
    for (int i = 0; i < CALLS; i++) {
        timer_free(w->errands[i].start);
        timer_free(w->errands[i].cancel);
        buf_done(&w->errands[i].got);
    }
    client_free(w->client);
    pool_free(w->pool);
    loop_stop(w->server_loop);
    server_free(w->server);
    loop_free(w->client_loop);
    loop_free(w->server_loop);
    tls_server_free(w->tls);
    tls_client_free(w->trust);
    sim_free(w->sim);
}

static void errand_check(const Errand *e, uint64_t seed) {
    bool once = e->begun && e->ends + e->cancelled == 1;
    bool whole = e->why != CALL_OK || e->status != 200 || str_eq(buf_str(&e->got), e->body);
    bool honest = e->why <= CALL_TIMEOUT_IDLE || e->why == CALL_TLS_BROKEN;
    if (!once || (!e->cancelled && (!whole || !honest)))
        test_failed(__FILE__, __LINE__, "seed %llu: %d ends, %s, status %d, %zu of %zu bytes",
                    (unsigned long long)seed, e->ends, call_end_name(e->why), e->status, e->got.n,
                    e->body.n);
}

static bool all_ended(void *w) { return ((World *)w)->ends == CALLS; }
static bool is_drained(void *w) { return ((World *)w)->drained; }
static void on_drained(void *w) { ((World *)w)->drained = true; }
static int64_t later(World *w, int64_t s) {
    return os_mono_ns(sim_node(w->sim, 0)) + s * 1000000000;
}

// A number that tells how each call ended; *out_whole counts the good ones.
static uint64_t history(uint64_t seed, int *out_whole) {
    static World w;
    uint64_t ends = seed;
    Ctx *c = test_ctx();
    if (world_open(&w, seed, c)) {
        test_failed(__FILE__, __LINE__, "no world");
        return 0;
    }
    for (int i = 0; i < CALLS; i++) errand_init(&w, &w.errands[i], c);
    SimFaults f = { .latency_us_min = 50, .latency_us_max = 5000 };
    if (seed % 4) f.stream_cut = 4000, f.stream_slow = 5000, f.connect_refused = 50000;
    sim_faults(w.sim, -1, &f);
    sim_run(w.sim, later(&w, 900), all_ended, &w);
    for (int i = 0; i < CALLS; i++) {
        const Errand *e = &w.errands[i];
        errand_check(e, seed);
        *out_whole += e->ends && e->why == CALL_OK;
        ends = ends * 31 + (uint64_t)e->why * 7 + (uint64_t)e->cancelled + e->got.n;
    }
    sim_faults(w.sim, -1, &(SimFaults){ .latency_us_max = 100 });
    server_drain(w.server, 100000, on_drained, &w);
    sim_run(w.sim, later(&w, 200), is_drained, &w);
    ServerCounts n = server_counts(w.server);
    if (w.ends != CALLS || !w.drained || n.connections || n.requests_active || n.bytes_in_flight
        || n.greetings || n.requests != w.left)
        test_failed(__FILE__, __LINE__, "seed %llu: %d ends, %zu connections, %zu greetings",
                    (unsigned long long)seed, w.ends, n.connections, n.greetings);
    world_close(&w);
    return ends;
}

static void certificates(void) {
    enum { LONG_S = 1000000000 }; // the world's clock is its own
    cert_make(&(CertSpec){ "ca", NULL, NULL, -LONG_S, LONG_S, true });
    cert_make(&(CertSpec){ "server", "DNS:localhost", "ca", -LONG_S, LONG_S, true });
}

TEST(net_tls_world) {
    int whole = 0;
    certificates();
    for (uint64_t seed = 1; seed <= SEEDS; seed++) history(seed, &whole);
    CHECK(whole > SEEDS * CALLS / 3 && whole < SEEDS * CALLS); // the faults bite, and not all
}

TEST(net_tls_world_replays) {
    int whole[2] = { 0 };
    certificates();
    for (uint64_t seed = 1; seed <= 4; seed++)
        CHECK(history(seed, &whole[0]) == history(seed, &whole[1]));
    CHECK_INT(whole[0], whole[1]);
}
