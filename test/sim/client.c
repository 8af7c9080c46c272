// SPDX-License-Identifier: Apache-2.0
// client.c - see sim_run.h: one request and its answer, as a blocking program makes it.
#include "sim_run.h"

enum { ANSWER_MAX = 4 << 20 };

typedef struct Reading {
    Reply *reply;
    int leave_after;
} Reading;

static bool read_piece(void *arg, str piece) {
    Reading *r = arg;
    if (str_find(piece, S("\"content\":\"")) >= 0) r->reply->pieces++;
    if (str_find(piece, S("[DONE]")) >= 0) r->reply->done = true;
    return !r->leave_after || r->reply->pieces < r->leave_after;
}

Reply call(Ctx *c, const Call *q) {
    HttpHeader headers[4] = { { S("Content-Type"), S("application/json") } };
    size_t n = 1;
    Reply out = { 0 };
    Reading reading = { &out, q->leave_after };
    FetchResult r = { 0 };
    if (q->key)
        headers[n++] =
            (HttpHeader){ S("Authorization"), arena_printf(c->mem, "Bearer %s", q->key) };
    if (q->id) headers[n++] = (HttpHeader){ S("X-Request-Id"), str_z(q->id) };
    if (q->once) headers[n++] = (HttpHeader){ S("Idempotency-Key"), str_z(q->once) };
    struct evbuffer *bytes = q->body.n ? evbuffer_new() : NULL;
    if (bytes) evbuffer_add(bytes, q->body.p, q->body.n);
    CallSpec spec = { .to = *q->to,
                      .method = q->method,
                      .target = str_z(q->target),
                      .headers = headers,
                      .headers_n = n,
                      .body = bytes,
                      .connect_ms = 3000,
                      .first_byte_ms = 60000,
                      .idle_ms = 60000 };
    err e = http_fetch(c, &spec, ANSWER_MAX, q->stream ? read_piece : NULL, &reading, &r);
    if (bytes) evbuffer_free(bytes);
    if (e) out.why = err_row(e)->slug, out.done = false;
    else out.status = r.status, out.body = r.body;
    for (size_t i = 0; !e && i < r.headers_n; i++)
        if (str_ieq(r.headers[i].name, S("x-ratelimit-remaining-money")))
            out.money = r.headers[i].value;
    return out;
}

Reply ask(Ctx *c, const Addr *to, HttpMethod m, const char *target, const char *key, str body) {
    return call(c, &(Call){ to, m, target, key, .body = body });
}

Ctx *client_ctx(World *w) {
    Ctx *c = mem_new(sizeof *c); // not in its arena, which is emptied between calls
    ctx_init(c, arena_new(), sim_node(w->sim, NODE_CLIENT));
    return c;
}
