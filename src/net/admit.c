// SPDX-License-Identifier: Apache-2.0
// admit.c - from a complete head to a handler at work, or a refusal: names the request, finds its
// route, checks what can be checked before the body.
// Owner and threads: see conn.h.
#include "net/conn.h"
#include "net/proxies.h"
#include "net/reason.h"
#include <assert.h>

static bool request_id_good(str s) {
    static const char also[] = "._-";
    if (!s.n || s.n > 64) return false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool alnum = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!alnum && !memchr(also, c, sizeof also - 1)) return false;
    }
    return true;
}

static const char *read_head(Exchange *x) {
    Conn *k = x->conn;
    HttpRequest *r = &x->req;
    const char *why = parser_request(&k->parser, x->mem, r);
    if (why) return why;
    if (x->config->proxies) r->peer = proxies_client(x->config->proxies, x->mem, r);
    str id = http_header(r, "X-Request-Id");
    if (request_id_good(id)) r->request_id = x->ctx.request_id = id;
    if (str_starts(http_header(r, "Accept-Language"), S("zh"))) x->ctx.lang = "zh";
    return NULL;
}

// Nothing here decodes a body, so none can grow when it is read (RFC 9110, 15.5.16).
static bool coded(const HttpRequest *r, str *out) {
    bool body = r->chunked || r->length > 0;
    for (size_t i = 0; body && i < r->headers_n; i++) {
        *out = r->headers[i].value;
        bool is = str_ieq(r->headers[i].name, S("Content-Encoding"));
        if (is && out->n && !str_ieq(*out, S("identity"))) return true;
    }
    return false;
}

static void refuse_coded(Exchange *x, str coding) {
    Ctx *c = &x->ctx;
    (void)fail(c, ERR_MEDIA, R_BODY_CODED, "coding", say_str(c, coding));
    refuse(x);
}

static void refuse_surplus(Exchange *x) {
    x->close = true;
    refuse_busy(x, say(&x->ctx, "all %zu connections are in use", x->config->connections_max));
}

static void no_route(Exchange *x) {
    Ctx *c = &x->ctx;
    const HttpRequest *r = &x->req;
    if (x->allowed)
        (void)fail(c, ERR_METHOD, R_METHOD_NOT_ALLOWED, "method", http_method_name(r->method),
                   "path", say_str(c, r->path));
    else (void)fail(c, ERR_NOTFOUND, R_NO_ROUTE, "path", say_str(c, r->path));
    refuse(x);
}

// Of a body nothing is read before it is known who sends it.
static void start(Exchange *x) {
    const NetRoute *route = x->route;
    const HttpRequest *r = &x->req;
    bool now = route->stream || r->chunked || r->length > 0;
    if (now && serve_enter(x)) {
        refuse(x);
    } else if (route->stream) {
        x->owned = true;
        route->stream(x, route);
    } else {
        x->want = WANT_SERVE; // conn_run goes on with the body
    }
}

void admit_whole(Exchange *x) {
    Conn *k = x->conn;
    assert(k->parser.at == PARSER_END);
    conn_state(k, CONN_WAIT);
    if (!x->route || !x->route->timeout_ms) return;
    x->deadline_ns = loop_now_ns(x->loop) + x->route->timeout_ms * 1000000;
    x->ctx.deadline_ns = x->deadline_ns;
}

void admit(Conn *k) {
    Exchange *x = k->x;
    HttpRequest *r = &x->req;
    Server *s = k->lane->server;
    Target t;
    str coding;
    const char *why = read_head(x);
    if (!why) why = target_parse(x->mem, r->target, &t);
    if (why) {
        refuse_head(x, why);
        return;
    }
    r->path = t.path, r->query = t.query;
    x->route = router_find(s->router, x->mem, &t, r, &x->allowed);
    conn_state(k, CONN_BODY);
    x->offer = k->parser.at == PARSER_END;
    if (x->offer) admit_whole(x);
    int64_t used = atomic_load_explicit(&s->in_flight, memory_order_relaxed);
    if (k->surplus) refuse_surplus(x);
    else if (!x->route) no_route(x);
    else if (coded(r, &coding)) refuse_coded(x, coding);
    else if (r->length > x->route->body_max || (r->chunked && !x->route->body_max))
        refuse_body(x, NULL);
    else if (used > s->config.memory_max_bytes) refuse_busy(x, "memory");
    else start(x);
}
