// SPDX-License-Identifier: Apache-2.0
// client_fuzz.c - any bytes as what an upstream answers our client, on simulated machines. How the
// call ends and what it gave do not depend on how the bytes were cut, it ends once, and no byte of
// it is taken for the answer to the next request. The first byte says whether the upstream hangs up
// and what is asked, the second the cuts.
// Covers: src/net/client.c src/net/client_pool.c src/net/parse.c
// Threads: one.
#include "fuzz.h"
#include "net/client.h"
#include "os/sim.h"

enum { BYTES_MAX = 3000, TIME_MAX_MS = 5000 };
static const char second[] = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond";

typedef struct World {
    Loop *ours, *theirs;
    Client *client;
    Addr to;
    HttpMethod method;
    str bytes;
    unsigned how, cut, asked, peers;
    uint32_t dice;
    Buf out; // transcript of the call under way
    bool over;
} World;
typedef struct Peer { // one connection of the upstream's
    World *w;
    Stream *s;
    Timer *t;
    Buf request;
    str left;
} Peer;

// ---- the upstream

static void peer_free(Peer *p) {
    stream_free(p->s);
    timer_free(p->t);
    buf_done(&p->request);
    p->w->peers--;
    mem_free(p);
}

static void send_on(void *arg) {
    Peer *p = arg;
    World *w = p->w;
    w->dice = w->dice * 1664525 + 1013904223;
    size_t n = w->cut ? 1 + (w->dice >> 16) % (w->cut < 64 ? w->cut : 900) : p->left.n;
    str part = str_sub(p->left, 0, n);
    evbuffer_add(stream_out(p->s), part.p, part.n);
    stream_touch(p->s);
    p->left = str_sub(p->left, part.n, p->left.n);
    if (p->left.n) {
        timer_start(p->t, 1);
    } else if (w->how & 1) {
        stream_shut(p->s);
        p->s = NULL;
        peer_free(p);
    }
}

static void on_request(void *arg) {
    Peer *p = arg;
    struct evbuffer *in = stream_in(p->s);
    size_t n = evbuffer_get_length(in);
    char *at = buf_reserve(&p->request, n);
    assert(at);
    evbuffer_remove(in, at, n);
    buf_commit(&p->request, n);
    if (str_find(buf_str(&p->request), S("\r\n\r\n")) < 0) return;
    buf_clear(&p->request);
    if (p->w->asked++ == 0) {
        p->left = p->w->bytes;
        timer_start(p->t, 1);
    } else {
        evbuffer_add(stream_out(p->s), second, sizeof second - 1);
        stream_touch(p->s);
    }
}

static void on_gone(void *arg, StreamEnd why) {
    (void)why;
    peer_free(arg);
}

static void on_peer(void *arg, Loop *l, Stream *s) {
    static const StreamEvents events = { NULL, on_request, NULL, on_gone };
    Peer *p = mem_new(sizeof *p);
    *p = (Peer){ .w = arg, .s = s };
    p->t = timer_new(l, send_on, p);
    buf_init(&p->request, 1 << 16);
    p->w->peers++;
    stream_events(s, &events, p);
}

// ---- our call

static void on_head(void *arg, const CallHead *h) {
    World *w = arg;
    assert(!w->out.n && h->status >= 200 && h->status <= 999);
    buf_printf(&w->out, "%d %lld", h->status, (long long)h->length);
    for (size_t i = 0; i < h->headers_n; i++)
        buf_printf(&w->out, " [" STR_FMT "=" STR_FMT "]", STR_ARG(h->headers[i].name),
                   STR_ARG(h->headers[i].value));
    buf_add_char(&w->out, '\n');
}

static void on_data(void *arg, struct evbuffer *chunk) {
    World *w = arg;
    size_t n = evbuffer_get_length(chunk);
    char *at = buf_reserve(&w->out, n);
    assert(at && w->out.n);
    evbuffer_remove(chunk, at, n);
    buf_commit(&w->out, n);
}

static void on_end(void *arg, CallEnd why) {
    World *w = arg;
    assert(!w->over);
    w->over = true;
    buf_printf(&w->out, "\n%s", call_end_name(why));
}

static bool is_over(void *arg) { return ((World *)arg)->over; }

static void start(void *arg) { // on the loop, as everything
    static const CallEvents events = { on_head, on_data, NULL, on_end };
    World *w = arg;
    CallSpec spec = { .to = w->to,
                      .method = w->method,
                      .target = S("/"),
                      .connect_ms = TIME_MAX_MS,
                      .first_byte_ms = TIME_MAX_MS,
                      .idle_ms = TIME_MAX_MS };
    call_start(w->client, &spec, &events, w);
}

static str call(World *w, Sim *sim, HttpMethod method) {
    buf_clear(&w->out);
    w->over = false, w->method = method;
    loop_post(w->ours, start, w);
    sim_run(sim, INT64_MAX, is_over, w);
    assert(w->over);
    return buf_str(&w->out);
}

static void nothing(void *w) { ((World *)w)->over = true; }

// What was said of the first call. The second's answer is its own.
static str run(Arena *mem, str bytes, unsigned how, unsigned cut) {
    Sim *sim = sim_new(1);
    Ctx c;
    Listener *l;
    World w = { .bytes = bytes, .how = how, .cut = cut, .dice = cut };
    ctx_init(&c, mem, sim_node(sim, 1));
    w.ours = loop_new(sim_node(sim, 0)), w.theirs = loop_new(sim_node(sim, 1));
    w.client = client_new(w.ours, 4, 60000);
    buf_init(&w.out, 64 << 20);
    err e = addr_parse(&c, S("10.0.0.2:80"), &w.to);
    assert(!e);
    e = listener_open(&c, &(ListenSpec){ &w.theirs, 1, &w.to, on_peer, &w }, &l);
    assert(!e);
    str first = arena_str(mem, call(&w, sim, how & 2 ? HTTP_HEAD : HTTP_GET));
    // What is still on its way comes, before the next is asked.
    w.over = false;
    Timer *t = timer_new(w.ours, nothing, &w);
    timer_start(t, 2 * BYTES_MAX);
    sim_run(sim, INT64_MAX, is_over, &w);
    timer_free(t);
    str next = call(&w, sim, HTTP_GET);
    assert(str_ends(next, S("\nsecond\nok")) && str_starts(next, S("200 6")));
    client_free(w.client);
    w.over = false;
    t = timer_new(w.theirs, nothing, &w);
    timer_start(t, 1000);
    sim_run(sim, INT64_MAX, is_over, &w);
    timer_free(t);
    assert(!w.peers); // the upstream has seen all of them end
    listener_close(l);
    loop_free(w.ours), loop_free(w.theirs);
    buf_done(&w.out);
    sim_free(sim);
    return first;
}

FUZZ(client) {
    unsigned how = fuzz_choice(&bytes), cut = fuzz_choice(&bytes);
    if (bytes.n > BYTES_MAX) return;
    Arena *mem = arena_new();
    str whole = run(mem, bytes, how, 0), parts = run(mem, bytes, how, 1 + cut);
    assert(str_eq(whole, parts));
    arena_free(mem);
}
