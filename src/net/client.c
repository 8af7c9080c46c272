// SPDX-License-Identifier: Apache-2.0
// client.c - one call: the request out, the answer in, step by step, and every way to end.
//
//   WAITS_HEAD --final head--> READS_BODY --last byte--> IS_WHOLE --all taken--> IS_OVER
//
// Leaves connections to client_pool.c. A call that is under way when the connection ends is either
// repeated (once, on a new connection, see client.h) or over.
// Owner and threads: see client.h and client_impl.h.
#include "net/client_impl.h"
#include "net/head.h"
#include <assert.h>

enum { INTERIM_MAX = 16 }; // answers before the answer (1xx)

const char *call_end_name(CallEnd e) {
    static const char *const names[] = { "ok",
                                         "connect",
                                         "refused",
                                         "reset",
                                         "timeout_connect",
                                         "timeout_first",
                                         "timeout_idle",
                                         "protocol",
                                         "too_large",
                                         "tls_failed",
                                         "certificate_expired",
                                         "certificate_of_another_host",
                                         "certificate_authority_unknown",
                                         "certificate_not_good",
                                         "tls_refused" };
    assert(e <= CALL_TLS_REFUSED);
    return names[e];
}

bool call_end_unsent(CallEnd e) {
    return e == CALL_CONNECT || e == CALL_REFUSED || e == CALL_TIMEOUT_CONNECT
           || (e >= CALL_TLS_BROKEN && e < CALL_TLS_REFUSED);
}

str call_header(const CallHead *h, const char *name) {
    for (size_t i = 0; i < h->headers_n; i++)
        if (str_ieq(h->headers[i].name, str_z(name))) return h->headers[i].value;
    return (str){ 0 };
}

static struct evbuffer *out_of(const Call *c) { return stream_out(c->link->stream); }
static size_t chunk_size(const Call *c) { return evbuffer_get_length(c->chunk); }

// ---- life

static void on_time(void *arg);

static Call *call_new(Client *cl) {
    Call *c = cl->spares;
    if (c) {
        cl->spares = c->next;
        cl->spares_n--;
    } else {
        c = mem_new(sizeof *c);
        c->timer = timer_new(cl->loop, on_time, c);
        c->body = evbuffer_new();
        c->chunk = evbuffer_new();
        buf_init(&c->head, SIZE_MAX / 4); // what the caller has in memory already
        buf_init(&c->answer, PARSE_HEAD_MAX);
        assert(c->body && c->chunk);
    }
    memset(c, 0, offsetof(Call, timer));
    c->client = cl;
    return c;
}

static void call_free(Call *c) {
    timer_free(c->timer);
    evbuffer_free(c->body);
    evbuffer_free(c->chunk);
    buf_done(&c->head);
    buf_done(&c->answer);
    mem_free(c->host);
    mem_free(c);
}

static void keep_small(Buf *b) {
    size_t max = b->max;
    buf_clear(b);
    if (b->cap <= CALL_KEEP_MAX) return;
    buf_done(b);
    buf_init(b, max);
}

static void call_recycle(Call *c) {
    Client *cl = c->client;
    assert(!c->running && !c->link);
    if (cl->spares_n == CALL_SPARES) {
        call_free(c);
        return;
    }
    timer_stop(c->timer);
    evbuffer_drain(c->body, evbuffer_get_length(c->body));
    evbuffer_drain(c->chunk, chunk_size(c));
    keep_small(&c->head);
    keep_small(&c->answer);
    c->host = mem_free(c->host);
    c->phase = CALL_IS_OVER;
    c->next = cl->spares;
    cl->spares = c;
    cl->spares_n++;
}

static void drop_link(Call *c) {
    if (c->link) link_close(c->link);
    c->link = NULL;
}

static bool link_is_good(const Call *c) {
    const Link *l = c->link;
    bool rest = evbuffer_get_length(stream_in(l->stream)) || evbuffer_get_length(out_of(c));
    bool goes_on = l->parser.keep_alive && !l->ended && !c->single;
    return goes_on && c->sent && !rest && c->client->idle_max;
}

// The last event. The memory goes when `run` (or the timer) is done with it.
static void over(Call *c, CallEnd why) {
    assert(c->running && c->phase != CALL_IS_OVER);
    c->phase = CALL_IS_OVER;
    if (why == CALL_OK && link_is_good(c)) {
        link_keep(c->link);
        c->link = NULL;
    } else {
        drop_link(c);
    }
    if (c->ev.end) c->ev.end(c->arg, why);
    c->dead = true;
}

// ---- the request

// The body stays in c->body for a repetition when the connection may be stale.
static void send_body(Call *c) {
    size_t n = evbuffer_get_length(c->body);
    if (!n) return;
    bool keep = c->link->used && !c->repeated;
    if (keep && n <= 4096) evbuffer_add(out_of(c), evbuffer_pullup(c->body, -1), n);
    else if (!keep || evbuffer_add_buffer_reference(out_of(c), c->body) != 0) {
        evbuffer_add_buffer(out_of(c), c->body);
        c->wrote = true;
    }
}

static void await_head(Call *c) {
    parser_next(&c->link->parser, &c->answer);
    c->link->parser.bodyless = c->method == HTTP_HEAD;
}

static void send_request(Call *c) {
    Client *cl = c->client;
    c->link = c->repeated || c->single ? NULL : link_take(c);
    if (!c->link) c->link = link_open(c);
    c->link->call = c;
    await_head(c);
    c->phase = CALL_WAITS_HEAD;
    c->active_ns = loop_now_ns(cl->loop);
    evbuffer_add(out_of(c), c->head.p, c->head.n);
    send_body(c);
    c->unsent = evbuffer_get_length(out_of(c));
    stream_touch(c->link->stream);
}

static str host_of(const CallSpec *spec) {
    if (spec->host.p) return spec->host;
    str to = str_z(spec->to.text);
    return str_starts(to, S("unix:")) ? S("localhost") : to;
}

// "example.org:8443", "[::1]:443": the name alone.
static str name_of(const CallSpec *spec) {
    str host = spec->tls_host.p ? spec->tls_host : host_of(spec);
    if (spec->tls_host.p) return host;
    bool six = str_starts(host, S("["));
    ptrdiff_t end = str_find_char(host, six ? ']' : ':');
    return end < 0 ? host : str_sub(host, six, (size_t)end - six);
}

static void write_head(Call *c, const CallSpec *spec) {
    bool may = spec->method == HTTP_POST || spec->method == HTTP_PUT || spec->method == HTTP_PATCH;
    size_t n = evbuffer_get_length(c->body);
    HeadRequest h = { spec->method,
                      spec->target,
                      host_of(spec),
                      spec->headers,
                      spec->headers_n,
                      spec->body_streams ? HEAD_LENGTH_CHUNKED
                      : n || may         ? (int64_t)n
                                         : HEAD_LENGTH_NONE,
                      spec->single };
    head_request(&c->head, &h);
}

static void settle(Call *c);

Call *call_start(Client *cl, const CallSpec *spec, const CallEvents *ev, void *arg) {
    assert(loop_is_mine(cl->loop) && (unsigned)spec->method < HTTP_METHODS);
    Call *c = call_new(cl);
    c->ev = *ev;
    c->arg = arg;
    c->to = spec->to;
    c->trust = spec->tls;
    if (c->trust) c->host = mem_strdup(name_of(spec));
    c->method = spec->method;
    bool idempotent = spec->method != HTTP_POST && spec->method != HTTP_PATCH;
    c->repeatable = spec->repeatable || idempotent;
    c->single = spec->single;
    c->streams = spec->body_streams;
    c->body_over = !c->streams;
    c->connect_ms = spec->connect_ms;
    c->first_byte_ms = spec->first_byte_ms;
    c->idle_ms = spec->idle_ms;
    if (spec->body && !c->streams) evbuffer_add_buffer(c->body, spec->body);
    write_head(c, spec);
    send_request(c);
    settle(c);
    return c;
}

// ---- ends

static bool may_repeat(const Call *c) {
    const Link *l = c->link;
    bool untouched = !l->parser.head->n && !evbuffer_get_length(stream_in(l->stream));
    bool safe = c->repeatable || !c->sent;
    return l->used && !c->repeated && c->phase == CALL_WAITS_HEAD && untouched && safe && !c->wrote;
}

static CallEnd end_of(const Link *l) {
    static const CallEnd of_tls[] = {
        [TLS_BROKEN] = CALL_TLS_BROKEN,         [TLS_REFUSED] = CALL_TLS_REFUSED,
        [TLS_EXPIRED] = CALL_TLS_EXPIRED,       [TLS_WRONG_HOST] = CALL_TLS_WRONG_HOST,
        [TLS_UNKNOWN_CA] = CALL_TLS_UNKNOWN_CA, [TLS_CERT] = CALL_TLS_CERT,
    };
    TlsWhy why = l->tls ? tls_why(l->tls) : TLS_GOOD;
    if (why && !(l->opened && why == TLS_BROKEN)) return of_tls[why];
    if (l->opened) return CALL_RESET;
    if (l->why == STREAM_TIMEOUT) return CALL_TIMEOUT_CONNECT;
    return l->why == STREAM_REFUSED ? CALL_REFUSED : CALL_CONNECT;
}

// The connection ended, and everything that it brought is read.
static void broken(Call *c) {
    Link *l = c->link;
    if (l->why == STREAM_EOF && c->phase == CALL_READS_BODY && parser_finish(&l->parser)) {
        c->phase = CALL_IS_WHOLE;
        return;
    }
    if (!may_repeat(c) || (c->sent && c->ev.repeat && !c->ev.repeat(c->arg))) {
        over(c, end_of(l));
        return;
    }
    drop_link(c);
    c->repeated = true;
    send_request(c);
}

// ---- the answer

static bool step_head(Call *c) {
    Link *l = c->link;
    CallHead *h = &c->client->head;
    ParseStep step = parser_step(&l->parser, stream_in(l->stream), NULL, 1);
    if (step == PARSE_MORE) {
        bool ended = l->ended;
        if (ended) broken(c); // l may be gone
        return ended;
    }
    ParsedResponse r = { .headers = h->headers };
    const char *why = step == PARSE_HEAD ? parser_response(&l->parser, &r) : NULL;
    bool interim = !why && step == PARSE_HEAD && r.status < 200;
    if (step == PARSE_TOOLARGE || why == parser_too_many_headers) over(c, CALL_TOOLARGE);
    else if (step == PARSE_BAD || why || (interim && ++c->interim > INTERIM_MAX))
        over(c, CALL_PROTOCOL);
    else if (interim) await_head(c);
    else {
        c->phase = CALL_READS_BODY;
        evbuffer_drain(c->body, evbuffer_get_length(c->body)); // nothing is repeated any more
        h->status = r.status, h->headers_n = r.headers_n, h->length = r.length;
        h->reused = l->used;
        if (c->ev.head) c->ev.head(c->arg, h);
    }
    return true;
}

static void offer(Call *c) {
    c->offer = false;
    if (c->ev.data) c->ev.data(c->arg, c->chunk);
    else evbuffer_drain(c->chunk, chunk_size(c));
}

static bool step_body(Call *c) {
    Link *l = c->link;
    if (c->paused) return false;
    if (c->offer && chunk_size(c)) {
        offer(c);
        return true;
    }
    if (chunk_size(c) >= CALL_ROOM) return false;
    size_t before = chunk_size(c);
    ParseStep step = parser_step(&l->parser, stream_in(l->stream), c->chunk, CALL_ROOM);
    if (step == PARSE_BAD) over(c, CALL_PROTOCOL);
    else if (step == PARSE_END) c->phase = CALL_IS_WHOLE, c->offer = true;
    else if (chunk_size(c) > before) offer(c);
    else if (l->ended) broken(c);
    else return false;
    return true;
}

static bool step_whole(Call *c) {
    if (!chunk_size(c)) {
        over(c, CALL_OK);
        return true;
    }
    if (!c->offer || c->paused) return false;
    offer(c);
    return true;
}

static bool step(Call *c) {
    switch (c->phase) {
    case CALL_WAITS_HEAD: return step_head(c);
    case CALL_READS_BODY: return step_body(c);
    case CALL_IS_WHOLE: return step_whole(c);
    case CALL_IS_OVER: return false;
    }
    return false;
}

static void run(Call *c) {
    assert(!c->running);
    c->running = true;
    c->kicked = false;
    while (!c->dead && step(c)) {}
    c->running = false;
    if (c->dead) {
        drop_link(c);
        call_recycle(c);
    } else {
        settle(c);
    }
}

// ---- time

// How long nothing may happen now, and what it is called; 0: for ever.
static int64_t patience(const Call *c, CallEnd *out_why) {
    const Link *l = c->link;
    *out_why = CALL_TIMEOUT_IDLE;
    if (!l->opened) return 0; // the stream's own
    bool quiet = c->phase == CALL_WAITS_HEAD && !l->parser.head->n;
    if (!c->sent && evbuffer_get_length(out_of(c))) return c->idle_ms;
    if (quiet && !c->sent) return 0; // the owner has not written more
    if (quiet) *out_why = CALL_TIMEOUT_FIRST;
    bool held = c->paused || chunk_size(c) >= CALL_ROOM || c->phase == CALL_IS_WHOLE;
    return held ? 0 : quiet ? c->first_byte_ms : c->idle_ms;
}

static void settle(Call *c) {
    CallEnd why;
    if (c->running) return;
    int64_t wait = patience(c, &why), now = loop_now_ns(c->client->loop);
    int64_t left = wait ? (c->active_ns + wait * 1000000 - now + 999999) / 1000000 : 0;
    if (c->kicked) timer_start(c->timer, 0);
    else if (wait) timer_start(c->timer, left > 0 ? left : 0);
    else timer_stop(c->timer);
}

static void on_time(void *arg) {
    Call *c = arg;
    CallEnd why;
    int64_t wait = patience(c, &why), now = loop_now_ns(c->client->loop);
    size_t unsent = evbuffer_get_length(out_of(c));
    if (unsent < c->unsent) c->active_ns = now; // it moves
    c->unsent = unsent;
    if (!c->kicked && wait && now >= c->active_ns + wait * 1000000) {
        c->running = true;
        over(c, why);
        c->running = false;
        call_recycle(c);
        return;
    }
    if (c->kicked) run(c);
    else settle(c);
}

// ---- what the link sees

void call_on_opened(Call *c) {
    c->active_ns = loop_now_ns(c->client->loop);
    settle(c);
}

void call_on_data(Call *c) {
    c->active_ns = loop_now_ns(c->client->loop);
    run(c);
}

void call_on_drained(Call *c) {
    c->active_ns = loop_now_ns(c->client->loop);
    c->unsent = evbuffer_get_length(out_of(c));
    c->sent = c->body_over && !c->unsent;
    settle(c);
    if (c->streams && !c->body_over && c->ev.drained) c->ev.drained(c->arg);
}

// ---- the owner's side

void call_cancel(Call *c) {
    assert(c->phase != CALL_IS_OVER && loop_is_mine(c->client->loop));
    c->phase = CALL_IS_OVER;
    c->dead = true;
    if (c->running) return; // run frees it, in this turn
    drop_link(c);
    call_recycle(c);
}

void call_pause(Call *c, bool paused) {
    assert(c->phase != CALL_IS_OVER);
    c->paused = paused;
    if (chunk_size(c)) c->offer = true;
    c->active_ns = loop_now_ns(c->client->loop);
    c->kicked |= !paused;
    settle(c);
}

size_t call_pending(const Call *c) { return c->link ? evbuffer_get_length(out_of(c)) : 0; }

void call_write(Call *c, struct evbuffer *bytes) {
    size_t n = evbuffer_get_length(bytes);
    assert(c->streams && !c->body_over && c->phase != CALL_IS_OVER);
    if (!n) return;
    c->wrote = true;
    c->sent = false;
    evbuffer_add_printf(out_of(c), "%zx\r\n", n);
    evbuffer_add_buffer(out_of(c), bytes);
    evbuffer_add(out_of(c), "\r\n", 2);
    c->unsent = evbuffer_get_length(out_of(c));
    stream_touch(c->link->stream);
    settle(c);
}

void call_write_end(Call *c) {
    assert(c->streams && !c->body_over && c->phase != CALL_IS_OVER);
    c->wrote = c->body_over = true;
    evbuffer_add(out_of(c), "0\r\n\r\n", 5);
    c->unsent = evbuffer_get_length(out_of(c));
    stream_touch(c->link->stream);
    settle(c);
}

void client_free(Client *cl) {
    if (!cl) return;
    while (cl->busy) call_cancel(cl->busy->call);
    link_close_idle(cl, NULL);
    for (Call *c; (c = cl->spares);) {
        cl->spares = c->next;
        call_free(c);
    }
    timer_free(cl->sweep);
    mem_free(cl);
}
