// SPDX-License-Identifier: Apache-2.0
// exchange.c - one request and its answer: memory, and what its owner may do with it. Exchanges are
// reused with their arena, so a small request allocates nothing of ours.
// Owner and threads: see exchange.h and conn.h.
#include "net/conn.h"
#include <assert.h>

// ---- life

static void request_blank(Exchange *x) {
    HttpRequest *r = &x->req;
    Conn *k = x->conn;
    r->method = HTTP_METHODS; // of a head that was never read
    r->target = r->path = r->query = S("");
    r->headers = NULL;
    r->headers_n = r->params_n = 0;
    r->length = -1;
    r->chunked = r->expects_continue = r->keep_alive = false;
    r->peer = arena_str(x->mem, stream_peer(k->stream));
    TlsPeer peer = k->tls ? tls_peer(k->tls) : (TlsPeer){ 0 };
    r->tls = k->tls;
    r->tls_subject = peer.subject.p ? arena_str(x->mem, peer.subject) : (str){ 0 };
    r->tls_fingerprint = peer.subject.p ? arena_str(x->mem, peer.fingerprint) : (str){ 0 };
    r->request_id = lane_id(x->lane, x->mem, "req");
    r->start_ns = loop_now_ns(x->loop);
}

Exchange *exchange_new(Conn *k) {
    Lane *lane = k->lane;
    Exchange *x = lane->spares_n ? lane->spares[--lane->spares_n] : mem_new(sizeof *x);
    if (!x->mem) {
        x->mem = arena_new();
        x->chunk = evbuffer_new();
        buf_init(&x->head, PARSE_HEAD_MAX);
        buf_init(&x->body, 0);
        buf_init(&x->reply.body, HTTP_REPLY_BODY);
        assert(x->chunk);
    }
    memset(x, 0, offsetof(Exchange, mem));
    lane->exchanges_n++;
    x->conn = k;
    x->lane = lane;
    x->loop = lane->loop;
    x->config = &lane->server->config;
    x->left = -1;
    x->out_from = k->out_total;
    ctx_init(&x->ctx, x->mem, loop_os(x->loop));
    x->ctx.app = x->config->app;
    x->ctx.db = x->config->db;
    request_blank(x);
    x->ctx.request_id = x->req.request_id;
    x->reply = (HttpReply){ .body = x->reply.body };
    atomic_fetch_add_explicit(&lane->server->active, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&lane->server->requests, 1, memory_order_relaxed);
    return x;
}

void exchange_free(Exchange *x) {
    arena_free(x->mem);
    evbuffer_free(x->chunk);
    buf_done(&x->head);
    buf_done(&x->body);
    buf_done(&x->reply.body);
    mem_free(x);
}

static void keep_small(Buf *b) {
    size_t max = b->max;
    buf_clear(b);
    if (b->cap <= KEEP_MAX) return;
    buf_done(b);
    buf_init(b, max);
}

static void exchange_recycle(Exchange *x) {
    Lane *lane = x->lane;
    if (loop_stopping(x->loop)) { // the lane may be gone
        exchange_free(x);
        return;
    }
    lane->exchanges_n--;
    if (lane->spares_n == SPARES_MAX) {
        exchange_free(x);
    } else {
        arena_reset(x->mem);
        evbuffer_drain(x->chunk, evbuffer_get_length(x->chunk));
        keep_small(&x->head);
        keep_small(&x->body);
        keep_small(&x->reply.body);
        lane->spares[lane->spares_n++] = x;
    }
    lane_check_drained(lane);
}

void exchange_drop(Exchange *x) {
    if (x->conn || x->holds) return;
    if (!x->told && !loop_stopping(x->loop)) {
        const ServerConfig *f = x->config;
        int status = x->verdict ? x->verdict : x->answer == ANSWER_DONE ? x->status : 499;
        x->told = true;
        HttpOutcome how = { status, x->sent_bytes, x->took_ns };
        if (f->left) f->left(f->app, &x->ctx, x->route, &x->req, &how);
    }
    if (serve_unclean(x)) {
        if (!loop_stopping(x->loop) && serve_submit(x, WORK_CLEAN)) return; // comes back here
        serve_clean(x);
    }
    exchange_recycle(x);
}

void exchange_leave(Exchange *x) {
    Conn *k = x->conn;
    assert(k && k->x == x);
    if (x->owned) {
        x->owned = false;
        ctx_cancel(&x->ctx);
        exchange_hold(x);
        if (x->ev.gone) x->ev.gone(x->arg);
        x->holds--;
    }
    ctx_cancel(&x->ctx);
    x->sent_bytes = k->out_total - (int64_t)conn_pending(k) - x->out_from;
    x->took_ns = loop_now_ns(x->loop) - x->req.start_ns;
    atomic_fetch_sub_explicit(&x->lane->server->active, 1, memory_order_relaxed);
    x->conn = NULL;
    k->x = NULL;
    exchange_drop(x);
}

void exchange_hold(Exchange *x) { x->holds++; }

void exchange_release(Exchange *x) {
    assert(x->holds && loop_is_mine(x->loop));
    x->holds--;
    exchange_drop(x);
}

// ---- reading

const HttpRequest *exchange_request(Exchange *x) { return &x->req; }
Ctx *exchange_ctx(Exchange *x) { return &x->ctx; }
Loop *exchange_loop(Exchange *x) { return x->loop; }

static void assert_owned(const Exchange *x) {
    assert(x->owned && x->conn && loop_is_mine(x->loop));
}

// The owner asks for more, or for the same again: not from within its call.
static void ask(Exchange *x) {
    Conn *k = x->conn;
    if (!k->running) conn_kick(k);
}

void exchange_events(Exchange *x, const ExchangeEvents *ev, void *arg) {
    assert_owned(x);
    assert(x->want != WANT_ALL || !ev->body);
    x->ev = *ev;
    x->arg = arg;
    if (!ev->body) return;
    x->want = WANT_EVENTS;
    ask(x);
}

void exchange_pause(Exchange *x, bool paused) {
    assert_owned(x);
    bool again = x->paused && !paused;
    x->paused = paused;
    if (!again && !evbuffer_get_length(x->chunk)) return;
    if (evbuffer_get_length(x->chunk)) x->offer = true;
    if (!paused) ask(x);
}

void exchange_read_all(Exchange *x, size_t max, void (*done)(void *arg, err e, str body),
                       void *arg) {
    assert_owned(x);
    assert(done && x->want == WANT_NOTHING && !x->received);
    x->want = WANT_ALL;
    x->all_max = max;
    x->all_done = done;
    x->all_arg = arg;
    ask(x);
}

// ---- answering

static void add(Exchange *x, const void *p, size_t n) {
    Conn *k = x->conn;
    int rc = evbuffer_add(stream_out(k->stream), p, n);
    assert(rc == 0);
    conn_sent(k, n);
}

static void must_close(Exchange *x, int64_t length) {
    const Conn *k = x->conn;
    bool unread = x->want == WANT_NOTHING && !body_rest_is_short(x);
    bool until_close = length < 0 && !x->chunked && !x->bodyless;
    x->close |= unread || until_close || k->lane->draining || !x->req.keep_alive;
}

static void begin(Exchange *x, int status, const HttpHeader *headers, size_t n, int64_t length) {
    Conn *k = x->conn;
    bool old = !k->parser.http.http_minor, no_body = status == 204 || status == 304;
    assert(k && x->answer == ANSWER_NONE && status >= 200 && length >= -1);
    x->answer = ANSWER_OPEN;
    x->status = status;
    x->bodyless = no_body || x->req.method == HTTP_HEAD;
    x->chunked = length < 0 && !old && !no_body;
    x->left = length;
    must_close(x, length);
    HeadResponse h = { .status = status, .headers = headers, .headers_n = n, .length = length };
    if (no_body || (length < 0 && !x->chunked)) h.length = HEAD_LENGTH_NONE;
    h.connection = x->close ? "close" : old ? "keep-alive" : NULL;
    h.date = lane_date(x->lane);
    h.request_id = x->req.request_id;
    Buf *head = lane_scratch(x->lane);
    head_response(head, &h);
    add(x, head->p, head->n);
}

void exchange_begin(Exchange *x, int status, const HttpHeader *headers, size_t n, int64_t length) {
    assert_owned(x);
    begin(x, status, headers, n, length);
}

bool exchange_began(const Exchange *x) { return x->answer != ANSWER_NONE; }

// What of n more bytes of body may be sent; a chunk's size goes before them.
static size_t write_room(Exchange *x, size_t n) {
    assert(x->answer == ANSWER_OPEN);
    if (x->bodyless || !n) return 0;
    if (x->left >= 0) {
        if ((int64_t)n > x->left) n = (size_t)x->left, x->verdict = 500;
        x->left -= (int64_t)n;
    }
    x->beat_ns = loop_now_ns(x->loop);
    if (!x->chunked) return n;
    static const char digits[] = "0123456789abcdef";
    char line[20], *at = line + sizeof line;
    *--at = '\n', *--at = '\r';
    for (size_t left = n; left; left >>= 4) *--at = digits[left & 15];
    add(x, at, (size_t)(line + sizeof line - at));
    return n;
}

static void write_bytes(Exchange *x, str bytes) {
    size_t n = write_room(x, bytes.n);
    if (!n) return;
    add(x, bytes.p, n);
    if (x->chunked) add(x, "\r\n", 2);
}

void exchange_write(Exchange *x, str bytes) {
    assert_owned(x);
    write_bytes(x, bytes);
}

static void write_buffer(Exchange *x, struct evbuffer *b) {
    size_t all = evbuffer_get_length(b), n = write_room(x, all);
    Conn *k = x->conn;
    if (n == all) evbuffer_add_buffer(stream_out(k->stream), b);
    else if (n) evbuffer_remove_buffer(b, stream_out(k->stream), n);
    evbuffer_drain(b, evbuffer_get_length(b));
    if (n) conn_sent(k, n);
    if (n && x->chunked) add(x, "\r\n", 2);
}

void exchange_write_buffer(Exchange *x, struct evbuffer *b) {
    assert_owned(x);
    write_buffer(x, b);
}

size_t exchange_pending(Exchange *x) { return conn_pending(x->conn); }

static void abort_answer(Exchange *x) {
    x->owned = false;
    x->verdict = 500;
    conn_close(x->conn);
}

void exchange_abort(Exchange *x) {
    assert_owned(x);
    abort_answer(x);
}

static void end(Exchange *x) {
    Conn *k = x->conn;
    assert(k && x->answer == ANSWER_OPEN && x->work == WORK_NONE);
    bool broken = !x->bodyless && (x->left > 0 || x->verdict);
    if (broken) {
        abort_answer(x);
        return;
    }
    if (x->chunked && !x->bodyless) add(x, "0\r\n\r\n", 5);
    x->owned = false;
    x->answer = ANSWER_DONE;
    x->want = WANT_NOTHING;
    x->deadline_ns = x->beat_ms = x->retry_ns = 0;
    if (!body_rest_is_short(x)) x->close = true;
    conn_state(k, CONN_FLUSH);
    if (!k->running && !conn_pending(k)) conn_kick(k);
    else conn_settle(k);
}

void exchange_end(Exchange *x) { end(x); }

void exchange_reply(Exchange *x, int status, const char *type, str body) {
    assert_owned(x);
    HttpHeader h = { S("Content-Type"), str_z(type) };
    begin(x, status, &h, type ? 1 : 0, (int64_t)body.n);
    write_bytes(x, body);
    end(x);
}

// ---- replies of blocking handlers

static void release_bytes(const void *p, size_t n, void *arg) {
    (void)n, (void)arg;
    mem_free((void *)p);
}

// Small bodies are copied behind the head; large ones are handed over.
static void write_reply_body(Exchange *x) {
    Buf *b = &x->reply.body;
    if (b->n <= 4096) {
        write_bytes(x, buf_str(b));
        buf_clear(b);
        return;
    }
    struct evbuffer *piece = evbuffer_new();
    assert(piece);
    evbuffer_add_reference(piece, b->p, b->n, release_bytes, NULL);
    buf_init(b, b->max);
    write_buffer(x, piece);
    evbuffer_free(piece);
}

void exchange_send_reply(Exchange *x, int64_t length) {
    const HttpReply *r = &x->reply;
    if (x->answer == ANSWER_NONE) {
        HttpHeader headers[HTTP_REPLY_HEADERS + 2];
        size_t n = 0;
        const char *type = r->type ? r->type : "application/json";
        bool typed = *type && r->status != 204 && r->status != 304;
        if (typed) headers[n++] = (HttpHeader){ S("Content-Type"), str_z(type) };
        if (r->etag.p) headers[n++] = (HttpHeader){ S("ETag"), r->etag };
        for (size_t i = 0; i < r->headers_n; i++) headers[n++] = r->headers[i];
        begin(x, r->status, headers, n, length);
    }
    write_reply_body(x);
}

void http_reply_header(Ctx *c, HttpReply *r, const char *name, str value) {
    assert(r->headers_n < HTTP_REPLY_HEADERS);
    str kept = arena_str(c->mem, value);
    r->headers[r->headers_n++] = (HttpHeader){ str_z(name), kept };
}
