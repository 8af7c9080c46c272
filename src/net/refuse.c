// SPDX-License-Identifier: Apache-2.0
// refuse.c - answers that net gives itself: the failure in an exchange's Ctx, in the words of
// ServerConfig.refuse. When the exchange is at work elsewhere (its owner's, or a pool thread's), it
// is taken back first, so that nobody writes to it at the same time.
// Owner and threads: the loop's; refuse_fill also on pool threads.
#include "base/json.h"
#include "net/conn.h"
#include "net/reason.h"
#include <assert.h>

// ---- the words

static void plain(Ctx *c, HttpReply *out) {
    Buf text;
    buf_init(&text, 4096);
    failure_format(&c->failure, c->lang, &text);
    Json j = json_to(&out->body);
    json_obj(&j);
    json_key(&j, "error");
    json_obj(&j);
    json_kv_z(&j, "code", err_row(c->failure.code)->slug);
    json_kv_z(&j, "reason", c->failure.why->slug);
    json_kv_str(&j, "message", buf_str(&text));
    json_kv_str(&j, "request_id", c->request_id);
    json_end_obj(&j);
    json_end_obj(&j);
    buf_done(&text);
}

static bool has_header(const HttpReply *r, const char *name) {
    for (size_t i = 0; i < r->headers_n; i++)
        if (str_ieq(r->headers[i].name, str_z(name))) return true;
    return false;
}

static void add_allow(Exchange *x) {
    str names[HTTP_METHODS];
    size_t n = 0;
    for (unsigned m = 0; m < HTTP_METHODS; m++)
        if (x->allowed >> m & 1) names[n++] = str_z(http_method_name(m));
    http_reply_header(&x->ctx, &x->reply, "Allow", arena_join(x->mem, names, n, S(", ")));
}

void refuse_fill(Exchange *x) {
    Ctx *c = &x->ctx;
    HttpReply *out = &x->reply;
    if (!c->failure.why)
        (void)fail(c, ERR_INTERNAL, R_INTERNAL, "why", "it failed without a reason");
    Buf keep = out->body;
    buf_clear(&keep);
    *out = (HttpReply){ .status = err_row(c->failure.code)->http, .body = keep };
    if (x->config->refuse) x->config->refuse(x->config->app, c, &x->req, out);
    else plain(c, out);
    if (c->failure.code == ERR_METHOD && !has_header(out, "Allow")) add_allow(x);
    if (c->failure.why == &R_BODY_CODED)
        http_reply_header(c, out, "Accept-Encoding", S("identity"));
    if (c->failure.retry_after_ms > 0 && !has_header(out, "Retry-After")) {
        int64_t s = (c->failure.retry_after_ms + 999) / 1000;
        http_reply_header(c, out, "Retry-After", arena_printf(x->mem, "%lld", (long long)s));
    }
    x->more = false;
    x->reply_length = (int64_t)out->body.n;
}

// ---- taking back

// The same request again, on memory that no other thread knows.
static Exchange *replace(Conn *k) {
    Exchange *old = k->x, *x = exchange_new(k);
    const HttpRequest *from = &old->req;
    HttpRequest *r = &x->req;
    r->method = from->method;
    r->target = arena_str(x->mem, from->target);
    r->path = arena_str(x->mem, from->path);
    r->query = arena_str(x->mem, from->query);
    HttpHeader *headers = new (x->mem, HttpHeader, from->headers_n);
    for (size_t i = 0; i < from->headers_n; i++) {
        headers[i].name = arena_str(x->mem, from->headers[i].name);
        headers[i].value = arena_str(x->mem, from->headers[i].value);
    }
    r->headers = headers, r->headers_n = from->headers_n;
    r->length = from->length, r->chunked = from->chunked, r->keep_alive = from->keep_alive;
    r->expects_continue = from->expects_continue, r->start_ns = from->start_ns;
    r->request_id = x->ctx.request_id = arena_str(x->mem, from->request_id);
    x->route = old->route, x->allowed = old->allowed;
    x->continued = old->continued, x->received = old->received;
    x->out_from = old->out_from, x->answer = old->answer, x->status = old->status;
    x->close = old->close;
    old->told = true; // it goes on as one request
    old->conn = NULL;
    atomic_fetch_sub_explicit(&x->lane->server->active, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&x->lane->server->requests, 1, memory_order_relaxed);
    ctx_cancel(&old->ctx);
    k->x = x;
    return x;
}

// The exchange on which net may answer now. Its owner is told that it is gone.
static Exchange *reclaim(Conn *k) {
    Exchange *x = k->x;
    bool owned = x->owned;
    x->owned = false;
    x->want = WANT_NOTHING;
    x->beat_ms = x->deadline_ns = x->retry_ns = 0;
    if (!owned && !x->holds) return x;
    if (owned) {
        ctx_cancel(&x->ctx);
        exchange_hold(x);
        if (x->ev.gone) x->ev.gone(x->arg);
        x->holds--;
        atomic_store_explicit(&x->ctx.cancelled, false, memory_order_relaxed);
    }
    return x->holds ? replace(k) : x;
}

// ---- what is refused

void refuse(Exchange *x) {
    Conn *k = x->conn;
    assert(k && x->work == WORK_NONE);
    x->owned = false;
    x->want = WANT_NOTHING;
    if (x->answer != ANSWER_NONE) {
        x->verdict = err_row(x->ctx.failure.code)->http;
        conn_close(k);
        return;
    }
    if (!body_rest_is_short(x)) x->close = true;
    refuse_fill(x);
    exchange_send_reply(x, x->reply_length);
    exchange_end(x);
}

void refuse_head(Exchange *x, const char *why) {
    Ctx *c = &x->ctx;
    x->close = true;
    if (why == parser_too_many_headers)
        (void)fail(c, ERR_HEADERS, R_HEAD_TOO_LARGE, "bytes", say(c, "%d", HTTP_HEAD_BYTES_MAX),
                   "headers", say(c, "%d", HTTP_HEADERS_MAX));
    else (void)fail(c, ERR_INVALID, R_MALFORMED_HTTP, "why", why);
    refuse(x);
}

void refuse_body(Exchange *old, const char *why) {
    Exchange *x = reclaim(old->conn);
    Ctx *c = &x->ctx;
    if (why) (void)fail(c, ERR_INVALID, R_MALFORMED_HTTP, "why", why);
    else
        (void)fail(c, ERR_TOOLARGE, R_BODY_TOO_LARGE, "limit",
                   say(c, "%lld", (long long)x->route->body_max));
    refuse(x);
}

void refuse_late(Conn *k, const char *part) {
    Exchange *x = reclaim(k);
    Ctx *c = &x->ctx;
    if (part) (void)fail(c, ERR_SLOW, R_SLOW_CLIENT, "part", part);
    else
        (void)fail(c, ERR_TIMEOUT, R_ANSWER_LATE, "ms",
                   say(c, "%lld", (long long)x->route->timeout_ms));
    if (part) x->close = true;
    refuse(x);
}

err refuse_busy_fail(Exchange *x, const char *what) {
    (void)fail(&x->ctx, ERR_UNAVAILABLE, R_SERVER_BUSY, "what", what);
    x->ctx.failure.retry_after_ms = 1000;
    return ERR_UNAVAILABLE;
}

void refuse_busy(Exchange *x, const char *what) {
    (void)refuse_busy_fail(x, what);
    refuse(x);
}

void exchange_refuse(Exchange *x) {
    assert(x->owned && x->conn && loop_is_mine(x->loop));
    refuse(x);
}
