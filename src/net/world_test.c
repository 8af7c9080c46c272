// SPDX-License-Identifier: Apache-2.0
// world_test.c - server and client in a simulated world, plain and over TLS: cuts, delays, refused
// connections and full disks drawn by a seed. Whatever happens, each call ends once, what is said
// to be whole is whole, and nothing is left. An equal seed replays an equal history; TLS draws keys
// of its own, so there only the ends are equal, and with an RSA key every message's length.
#include "net/client.h"
#include "net/tls_fix_test.h"
#include "os/sim.h"
#include <assert.h>

enum { CALLS = 30, SEEDS = 24, SEEDS_TLS = 16 };

typedef struct World World;
typedef struct Errand { // one call, started and perhaps cancelled at times of the seed's
    World *w;
    Timer *start, *cancel;
    Call *call;
    str body;
    Buf got;
    int status, ends;
    CallEnd why;
    bool cancelled, begun;
    HttpMethod method;
    const char *target;
} Errand;
struct World {
    Sim *sim;
    Loop *client_loop, *server_loops[2];
    Client *client;
    Pool *pool;
    Server *server;
    TlsServer *tls; // NULL: plain, and so is trust
    TlsClient *trust;
    Addr addr;
    Errand errands[CALLS];
    int ends, left;
    bool drained;
};

// ---- the server's side

static err echo(Ctx *c, const NetRoute *route, const HttpRequest *r, const HttpBody *body,
                HttpReply *out) {
    (void)route, (void)r;
    buf_add(&out->body, body->bytes);
    if (!body->spool) return ERR_OK;
    size_t got;
    char *at = buf_reserve(&out->body, (size_t)body->size);
    TRY(file_read_at(c, body->spool, 0, at, (size_t)body->size, &got));
    buf_commit(&out->body, got);
    return ERR_OK;
}
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
static void on_left(void *app, Ctx *c, const NetRoute *route, const HttpRequest *r,
                    const HttpOutcome *how) {
    (void)c, (void)route, (void)r, (void)how;
    ((World *)app)->left++;
}
static const NetRoute rows[] = {
    { HTTP_POST, "/echo", 4 << 20, 20000, echo, NULL, NULL },
    { HTTP_POST, "/stream", 4 << 20, 0, NULL, stream, NULL },
    { HTTP_GET, "/echo", 0, 0, echo, NULL, NULL },
};
static const NetRoute *const row_list[] = { &rows[0], &rows[1], &rows[2] };

// ---- the client's side

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
                      .method = e->method,
                      .target = str_z(e->target),
                      .body = b,
                      .connect_ms = 30000,
                      .first_byte_ms = 60000,
                      .idle_ms = 60000,
                      .repeatable = e->body.n % 2 };
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
    size_t n = sim_random(w->sim, sim_random(w->sim, 5) ? 30000 : 1500000);
    char *body = arena_alloc_raw(c->mem, n + 1);
    for (size_t i = 0; i < n; i++) body[i] = (char)(i * 31 >> 3);
    *e = (Errand){ .w = w, .body = str_n(body, n), .method = HTTP_POST, .target = "/echo" };
    if (sim_random(w->sim, 3) == 0) e->target = "/stream";
    if (sim_random(w->sim, 4) == 0) e->method = HTTP_GET, e->target = "/echo", e->body.n = 0;
    buf_init(&e->got, 8 << 20);
    e->start = timer_new(w->client_loop, start, e);
    e->cancel = timer_new(w->client_loop, cancel, e);
    int64_t at_ms = (int64_t)sim_random(w->sim, 3000);
    timer_start(e->start, at_ms);
    if (sim_random(w->sim, 5) == 0)
        timer_start(e->cancel, at_ms + (int64_t)sim_random(w->sim, 400));
}

// ---- the world

static void certificates(void) {
    enum { LONG_S = 1000000000 }; // the world's clock is its own
    cert_make(&(CertSpec){ "ca", NULL, NULL, -LONG_S, LONG_S, true });
    cert_make(&(CertSpec){ "server", "DNS:localhost", "ca", -LONG_S, LONG_S, true });
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

static err listen_at(World *w, Ctx *c) {
    TRY(addr_parse(c, S("0.0.0.0:80"), &w->addr));
    if (w->tls) TRY(server_listen_tls(c, w->server, &w->addr, w->tls, NULL));
    else TRY(server_listen(c, w->server, &w->addr, NULL));
    return addr_parse(c, S("10.0.0.2:80"), &w->addr);
}

static err world_open(World *w, uint64_t seed, bool tls, Ctx *c) {
    *w = (World){ .sim = sim_new(seed) };
    Os *server = sim_node(w->sim, 1);
    w->client_loop = loop_new(sim_node(w->sim, 0));
    w->client = client_new(w->client_loop, 4, 5000);
    for (int i = 0; i < 2; i++) w->server_loops[i] = loop_new(server);
    w->pool = pool_new(server, "pool", 2, 8);
    ServerConfig config = { .pool = w->pool,
                            .spool_dir = S("/spool"),
                            .greetings_max = 4,
                            .left = on_left,
                            .app = w,
                            .routes = row_list,
                            .routes_n = countof(row_list) };
    if (tls) TRY(trust_open(w, server));
    c->os = server;
    TRY(dir_make(c, S("/spool"), 0700));
    TRY(server_new(c, w->server_loops, 2, &config, &w->server));
    return listen_at(w, c);
}

static void faults(World *w, uint64_t seed) {
    SimFaults f = { .latency_us_min = 50, .latency_us_max = 5000 };
    if (seed % 4) f.stream_cut = 2000, f.stream_slow = 5000, f.connect_refused = 50000;
    if (seed % 8 == 7) f.write_full = 20000;
    sim_faults(w->sim, -1, &f);
}

static bool all_ended(void *arg) { return ((World *)arg)->ends == CALLS; }
static bool is_drained(void *arg) { return ((World *)arg)->drained; }
static void on_drained(void *arg) { ((World *)arg)->drained = true; }
static int64_t later(World *w, int64_t s) {
    return os_mono_ns(sim_node(w->sim, 0)) + s * 1000000000;
}

static void world_close(World *w) {
    for (int i = 0; i < CALLS; i++) {
        timer_free(w->errands[i].start);
        timer_free(w->errands[i].cancel);
        buf_done(&w->errands[i].got);
    }
    client_free(w->client);
    pool_free(w->pool);
    for (int i = 0; i < 2; i++) loop_stop(w->server_loops[i]);
    server_free(w->server);
    loop_free(w->client_loop);
    for (int i = 0; i < 2; i++) loop_free(w->server_loops[i]);
    if (w->tls) tls_server_free(w->tls);
    if (w->trust) tls_client_free(w->trust);
    sim_free(w->sim);
}

static void errand_check(const Errand *e, uint64_t seed) {
    bool once = e->begun && e->ends + e->cancelled == 1;
    bool whole = e->why != CALL_OK || e->status >= 400 || str_eq(buf_str(&e->got), e->body);
    bool known = e->status == 0 || e->status == 200 || e->status == 204 || e->status >= 408;
    if (!once || (!e->cancelled && (!whole || !known)))
        test_failed(__FILE__, __LINE__, "seed %llu: %d ends, %s, status %d, %zu of %zu bytes",
                    (unsigned long long)seed, e->ends, call_end_name(e->why), e->status, e->got.n,
                    e->body.n);
}

// Drains the server and looks at what is left of anything.
static void drain(World *w, uint64_t seed) {
    sim_faults(w->sim, -1, &(SimFaults){ .latency_us_max = 100 });
    server_drain(w->server, 100000, on_drained, w);
    sim_run(w->sim, later(w, 200), is_drained, w);
    ServerCounts n = server_counts(w->server);
    if (!w->drained || n.connections || n.requests_active || n.bytes_in_flight || n.greetings
        || n.requests != w->left)
        test_failed(__FILE__, __LINE__, "seed %llu: %zu connections, %zu requests, %lld bytes",
                    (unsigned long long)seed, n.connections, n.requests_active,
                    (long long)n.bytes_in_flight);
}

// A number that stands for all that happened; *out_whole counts the good ends.
static uint64_t history(uint64_t seed, bool tls, int *out_whole) {
    static World w;
    Ctx *c = test_ctx();
    if (world_open(&w, seed, tls, c)) {
        test_failed(__FILE__, __LINE__, "no world");
        return 0;
    }
    for (int i = 0; i < CALLS; i++) errand_init(&w, &w.errands[i], c);
    faults(&w, seed);
    sim_run(w.sim, later(&w, 900), all_ended, &w);
    if (w.ends != CALLS)
        test_failed(__FILE__, __LINE__, "seed %llu: %d ends", (unsigned long long)seed, w.ends);
    uint64_t ends = seed;
    for (int i = 0; i < CALLS; i++) {
        const Errand *e = &w.errands[i];
        errand_check(e, seed);
        *out_whole += e->ends && e->why == CALL_OK && e->status < 400;
        ends = ends * 31 + (uint64_t)e->why * 7 + (uint64_t)e->cancelled + e->got.n;
    }
    drain(&w, seed);
    uint64_t digest = tls ? ends : sim_digest(w.sim);
    world_close(&w);
    return digest;
}

static void seeds(int n, bool tls) {
    int whole = 0;
    if (tls) certificates();
    for (int seed = 1; seed <= n; seed++) history((uint64_t)seed, tls, &whole);
    CHECK(whole > n * CALLS / 3 && whole < n * CALLS); // the faults bite, and not all
}

static void replays(bool tls) {
    int whole[2] = { 0 };
    if (tls) certificates();
    for (uint64_t seed = 1; seed <= 5; seed++)
        CHECK(history(seed, tls, &whole[0]) == history(seed, tls, &whole[1]));
    CHECK_INT(whole[0], whole[1]);
}

TEST(net_world) { seeds(SEEDS, false); }
TEST(net_world_replays) { replays(false); }
TEST(net_tls_world) { seeds(SEEDS_TLS, true); }
TEST(net_tls_world_replays) { replays(true); }
