// SPDX-License-Identifier: Apache-2.0
// body.c - where a request's body goes: to its owner in pieces, into memory, or, when it is large
// and for a blocking handler, into a private temporary file. Nothing is read, and no "100 Continue"
// sent, before somebody wants it.
// Owner and threads: see conn.h. Writing a spool file blocks the loop for the time the page cache
// takes.
#include "net/conn.h"
#include "net/reason.h"
#include <assert.h>

enum { REST_SHORT = 64 << 10 };

static size_t chunk_size(const Exchange *x) { return evbuffer_get_length(x->chunk); }

bool body_wanted(const Exchange *x) {
    return x->want != WANT_NOTHING && !x->paused && chunk_size(x) < CHUNK_ROOM;
}

bool body_rest_is_short(const Exchange *x) {
    const Parser *p = &x->conn->parser;
    if (p->at != PARSER_BODY) return p->at == PARSER_END;
    bool comes = !x->req.expects_continue || x->continued;
    return comes && !p->why && p->frame == FRAME_LENGTH && p->left <= REST_SHORT;
}

static void send_continue(Exchange *x) {
    static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    Conn *k = x->conn;
    bool needed = x->req.expects_continue && !x->received && x->answer == ANSWER_NONE;
    if (x->continued || !needed) return;
    x->continued = true;
    if (evbuffer_get_length(stream_in(k->stream))) return; // it did not wait
    evbuffer_add(stream_out(k->stream), text, sizeof text - 1);
    conn_sent(k, sizeof text - 1);
}

// ---- collecting

static err memory_check(Exchange *x) {
    const Server *s = x->lane->server;
    int64_t used = atomic_load_explicit(&s->in_flight, memory_order_relaxed);
    bool full = used > s->config.memory_max_bytes + s->config.memory_max_bytes / 4;
    return full ? refuse_busy_fail(x, "memory") : ERR_OK;
}

// Moves what the chunk has into memory that lies in one piece.
static void collect(Exchange *x, size_t max) {
    size_t n = chunk_size(x), want = n;
    assert(x->body.n + n <= max);
    if (x->body.max < max) x->body.max = max;
    bool known = x->req.length > 0 && (size_t)x->req.length <= max;
    if (known && !x->body.n && x->req.length <= PIECE_MAX) want = (size_t)x->req.length;
    char *at = buf_reserve(&x->body, want > n ? want : n);
    assert(at);
    int got = evbuffer_remove(x->chunk, at, n);
    assert(got == (int)n);
    buf_commit(&x->body, n);
    x->body_charge = x->body.n;
}

static void all_end(Exchange *x, err e) {
    x->want = WANT_NOTHING;
    str body = e ? (str){ 0 } : buf_str(&x->body);
    x->all_done(x->all_arg, e, body);
}

static void take_all(Exchange *x, bool last) {
    Ctx *c = &x->ctx;
    size_t n = chunk_size(x);
    bool over = x->req.length > 0 && (size_t)x->req.length > x->all_max;
    err e = ERR_OK;
    if (over || n > x->all_max - x->body.n)
        e = fail(c, ERR_TOOLARGE, R_BODY_TOO_LARGE, "limit", say(c, "%zu", x->all_max));
    else e = memory_check(x);
    if (!e) collect(x, x->all_max);
    if (e || last) all_end(x, e);
}

// ---- spooling

static err spool_write(Exchange *x, str bytes) {
    TRY(file_write_at(&x->ctx, x->http_body.spool, x->http_body.size, bytes.p, bytes.n));
    x->http_body.size += (int64_t)bytes.n;
    return ERR_OK;
}

static err spool_open(Exchange *x) {
    HttpBody *b = &x->http_body;
    unsigned how = FILE_READ | FILE_WRITE | FILE_CREATE | FILE_EXCLUSIVE | FILE_PRIVATE;
    str id = lane_id(x->lane, x->mem, "body"), dir = x->config->spool_dir;
    str path = arena_printf(x->mem, STR_FMT "/" STR_FMT, STR_ARG(dir), STR_ARG(id));
    TRY(file_open(&x->ctx, path, how, &b->spool));
    b->spool_path = path;
    TRY(spool_write(x, buf_str(&x->body)));
    buf_clear(&x->body);
    x->body_charge = 0;
    return ERR_OK;
}

// A spool folder that is missing is our fault, whatever the file system calls it.
static err spool_fault(Exchange *x, err e) {
    if (e == ERR_FULL) return e;
    x->ctx.failure.code = ERR_INTERNAL;
    return ERR_INTERNAL;
}

static err spool(Exchange *x) {
    struct evbuffer_iovec piece;
    if (!x->http_body.spool) TRY(spool_open(x));
    while (evbuffer_peek(x->chunk, -1, NULL, &piece, 1) > 0 && piece.iov_len) {
        TRY(spool_write(x, str_n(piece.iov_base, piece.iov_len)));
        evbuffer_drain(x->chunk, piece.iov_len);
    }
    return ERR_OK;
}

static void take_serve(Exchange *x, bool last) {
    bool large = x->req.length > HTTP_BODY_MEMORY || x->http_body.spool
                 || x->body.n + chunk_size(x) > HTTP_BODY_MEMORY;
    err e = large ? spool(x) : memory_check(x);
    if (e && large) e = spool_fault(x, e);
    if (!e && !large) collect(x, HTTP_BODY_MEMORY);
    if (e) {
        refuse(x);
        return;
    }
    if (!last) return;
    x->want = WANT_NOTHING;
    if (!large) x->http_body = (HttpBody){ .bytes = buf_str(&x->body), .size = x->body_charge };
    serve_start(x, WORK_SERVE);
}

static void take(Exchange *x, bool last) {
    x->offer = false;
    switch (x->want) {
    case WANT_EVENTS: x->ev.body(x->arg, x->chunk, last); break;
    case WANT_ALL: take_all(x, last); break;
    case WANT_SERVE: take_serve(x, last); break;
    case WANT_NOTHING: break;
    }
}

bool body_step(Conn *k) {
    Exchange *x = k->x;
    if (x->want == WANT_NOTHING || x->paused) return false;
    if (x->offer && chunk_size(x)) { // asked for again
        take(x, false);
        return true;
    }
    if (!body_wanted(x)) return false;
    send_continue(x);
    size_t before = chunk_size(x);
    ParseStep step = parser_step(&k->parser, stream_in(k->stream), x->chunk, CHUNK_ROOM);
    size_t got = chunk_size(x) - before;
    k->in_total += (int64_t)got;
    x->received += (int64_t)got;
    if (step == PARSE_MORE) return false;
    if (step == PARSE_BAD) refuse_body(x, k->parser.why);
    else if (x->received > x->route->body_max) refuse_body(x, NULL);
    else {
        if (step == PARSE_END) admit_whole(x);
        take(x, step == PARSE_END);
    }
    return true;
}

bool body_left(Conn *k) {
    Exchange *x = k->x;
    if (!x->offer || x->want == WANT_NOTHING || x->paused) return false;
    take(x, true);
    return true;
}
