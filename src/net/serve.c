// SPDX-License-Identifier: Apache-2.0
// serve.c - blocking handlers on the pool. One piece of work at a time is out for an exchange;
// while it is, the exchange is held, and the loop touches only what conn.h leaves to it. The first
// bytes of a file or of a generator are read in the same piece of work that ran the handler. When
// the client leaves meanwhile, the Ctx is cancelled and the result thrown away. Owner and threads:
// see conn.h; functions say which thread they are for.
#include "net/conn.h"
#include "net/range.h"
#include "net/reason.h"
#include <assert.h>

enum { RETRY_MS = 20 };

// ---- on the pool thread

static bool sized(const HttpReply *r) { return r->file || r->read_at; }

bool serve_unclean(const Exchange *x) {
    return x->reply.pull_done || x->reply.file || x->http_body.spool;
}

void serve_clean(Exchange *x) {
    HttpReply *r = &x->reply;
    if (r->pull_done) r->pull_done(r->pull_arg);
    r->pull_done = NULL, r->pull = NULL, r->read_at = NULL;
    file_close(r->file);
    r->file = NULL;
    if (!x->http_body.spool) return;
    file_close(x->http_body.spool);
    x->http_body.spool = NULL;
    (void)path_remove(&x->ctx, x->http_body.spool_path); // absent when the handler took it
}

err serve_enter(Exchange *x) {
    const ServerConfig *f = x->config;
    if (x->entered || !f->enter) return ERR_OK;
    x->entered = true;
    return f->enter(f->app, &x->ctx, x->route, &x->req);
}

static err file_piece(Exchange *x) {
    HttpReply *r = &x->reply;
    size_t want = x->file_left < PIECE_MAX ? (size_t)x->file_left : PIECE_MAX, got = 0;
    char *at = buf_reserve(&r->body, want);
    assert(at);
    TRY(r->file ? file_read_at(&x->ctx, r->file, x->file_at, at, want, &got)
                : r->read_at(&x->ctx, r->pull_arg, x->file_at, at, want, &got));
    buf_commit(&r->body, got);
    x->file_at += (int64_t)got;
    x->file_left -= (int64_t)got;
    x->more = x->file_left && got == want; // a file that was cut since breaks the answer
    return ERR_OK;
}

// The next bytes of the answer's body.
static err piece(Exchange *x) {
    HttpReply *r = &x->reply;
    if (sized(r)) return file_piece(x);
    x->more = true;
    TRY(ctx_check(&x->ctx));
    TRY(r->pull(&x->ctx, r->pull_arg, &r->body, &x->more));
    if (r->body.full)
        return fail(&x->ctx, ERR_INTERNAL, R_INTERNAL, "why", "a piece of the answer is too large");
    return ERR_OK;
}

static void range_header(Exchange *x, const RangePlan *p) {
    int64_t size = x->reply.file_size;
    str text = p->answer == RANGE_BEYOND
                   ? arena_printf(x->mem, "bytes */%lld", (long long)size)
                   : arena_printf(x->mem, "bytes %lld-%lld/%lld", (long long)p->from,
                                  (long long)(p->from + p->n - 1), (long long)size);
    http_reply_header(&x->ctx, &x->reply, "Content-Range", text);
}

// Decides what of the answer is sent. False: nothing but the head, or it was refused.
static bool plan(Exchange *x) {
    HttpReply *r = &x->reply;
    bool get = x->req.method == HTTP_GET || x->req.method == HTTP_HEAD;
    RangePlan p = { RANGE_WHOLE, 0, r->file_size };
    if (get && r->status == 200) p = range_plan(&x->req, r->etag, sized(r) ? r->file_size : -1);
    if (p.answer == RANGE_SAME) {
        r->status = 304;
        x->reply_length = 0;
        buf_clear(&r->body);
        return false;
    }
    if (p.answer == RANGE_BEYOND) {
        serve_clean(x);
        int64_t size = r->file_size;
        (void)fail(&x->ctx, ERR_RANGE, R_RANGE_BEYOND, "size",
                   say(&x->ctx, "%lld", (long long)size));
        refuse_fill(x);
        r->file_size = size;
        range_header(x, &p);
        return false;
    }
    if (sized(r) && r->status == 200) http_reply_header(&x->ctx, r, "Accept-Ranges", S("bytes"));
    if (p.answer == RANGE_PART) {
        r->status = 206;
        range_header(x, &p);
    }
    x->file_at = r->file_offset + p.from;
    x->file_left = p.n;
    return true;
}

static err prepare(Exchange *x) {
    HttpReply *r = &x->reply;
    bool has_size = sized(r);
    assert(!(has_size && r->pull) && !(r->file && r->read_at));
    bool has_body = r->body.n || has_size || r->pull;
    if (!r->status) r->status = has_body ? 200 : 204;
    if (!plan(x)) return ERR_OK;
    if (!has_size && !r->pull) {
        x->reply_length = (int64_t)r->body.n;
        return ERR_OK;
    }
    buf_clear(&r->body);
    if (has_size && !x->file_left) x->reply_length = 0;
    else if (x->req.method == HTTP_HEAD) x->reply_length = has_size ? x->file_left : -1;
    else {
        int64_t length = has_size ? x->file_left : HEAD_LENGTH_CHUNKED;
        TRY(piece(x));
        x->reply_length = has_size || x->more ? length : (int64_t)r->body.n;
    }
    return ERR_OK;
}

static void run_handler(Exchange *x) {
    Ctx *c = &x->ctx;
    err e = serve_enter(x);
    if (!e) e = ctx_check(c);
    if (!e) e = x->route->serve(c, x->route, &x->req, &x->http_body, &x->reply);
    if (!e && x->reply.body.full)
        e = fail(c, ERR_INTERNAL, R_TOO_LONG, "what", "the answer", "limit",
                 say(c, "%d", HTTP_REPLY_BODY));
    if (!e) e = prepare(x);
    if (e) {
        serve_clean(x);
        refuse_fill(x);
    }
    if (!x->more) serve_clean(x);
}

static void serve_worked(void *arg);

static void serve_work(void *arg) {
    Exchange *x = arg;
    switch (x->work) {
    case WORK_SERVE: run_handler(x); break;
    case WORK_PULL:
        x->ctx.deadline_ns = 0; // the answer has begun: its pace is watched instead
        buf_clear(&x->reply.body);
        x->work_failed = piece(x);
        if (x->work_failed || !x->more) serve_clean(x);
        break;
    case WORK_CLEAN: serve_clean(x); break;
    case WORK_NONE: assert(!"work without a kind");
    }
    loop_post(x->loop, serve_worked, x); // from here on x is the loop's
}

// ---- on the loop

bool serve_submit(Exchange *x, Work work) {
    assert(x->work == WORK_NONE && loop_is_mine(x->loop));
    x->work = work;
    x->holds++;
    if (pool_submit(x->config->pool, serve_work, x)) return true;
    x->holds--;
    x->work = WORK_NONE;
    return false;
}

void serve_start(Exchange *x, Work work) {
    if (!serve_submit(x, work)) refuse_busy(x, "blocking requests");
}

void serve_next(Exchange *x) {
    Conn *k = x->conn;
    x->retry_ns = 0;
    if (x->work != WORK_NONE || !x->more || conn_pending(k) > OUT_LOW) return;
    if (serve_submit(x, WORK_PULL)) return;
    x->retry_ns = loop_now_ns(x->loop) + RETRY_MS * 1000000;
    conn_settle(k);
}

static void send_pieces(Exchange *x) {
    exchange_send_reply(x, x->reply_length);
    if (x->more) serve_next(x);
    else exchange_end(x);
}

static void serve_worked(void *arg) {
    Exchange *x = arg;
    Work work = x->work;
    x->work = WORK_NONE;
    x->holds--;
    if (!x->conn) {
        exchange_drop(x);
    } else if (work == WORK_SERVE) {
        send_pieces(x);
    } else if (x->work_failed) {
        refuse(x); // cuts the connection when the answer has begun
    } else if (work == WORK_PULL) {
        send_pieces(x);
    }
}
