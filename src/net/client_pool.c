// SPDX-License-Identifier: Apache-2.0
// client_pool.c - connections of the client: opened, kept idle, found again, closed. The latest
// used goes first, so that the rest can grow old and be closed. Owner and threads: see
// client_impl.h.
#include "net/client_impl.h"
#include <assert.h>

static Link **bucket(Client *cl, const Addr *to) {
    return &cl->idle[str_hash(str_z(to->text)) % POOL_BUCKETS];
}

static bool same(const Addr *a, const Addr *b) { return strcmp(a->text, b->text) == 0; }
static bool fits(const Link *l, const Addr *to, const TlsClient *trust, const char *host) {
    return same(&l->to, to) && l->trust == trust && (!trust || strcmp(l->host, host) == 0);
}

static void list_add(Link **list, Link *link) {
    link->before = NULL;
    link->after = *list;
    if (link->after) link->after->before = link;
    *list = link;
}

static void list_del(Link **list, Link *link) {
    if (link->before) link->before->after = link->after;
    else *list = link->after;
    if (link->after) link->after->before = link->before;
}

void link_close(Link *link) {
    list_del(link->call ? &link->client->busy : bucket(link->client, &link->to), link);
    stream_free(link->stream);
    mem_free(link->host);
    mem_free(link);
}

void link_close_idle(Client *cl, const Addr *to) {
    for (size_t i = 0; i < POOL_BUCKETS; i++) {
        for (Link *at = cl->idle[i], *next; at; at = next) {
            next = at->after;
            if (!to || same(&at->to, to)) link_close(at);
        }
    }
}

// ---- events: an idle connection has nothing to say, so it is closed at the first word

static void on_opened(void *arg) {
    Link *link = arg;
    link->opened = true;
    if (link->call) call_on_opened(link->call);
}

static void on_data(void *arg) {
    Link *link = arg;
    if (link->call) call_on_data(link->call);
    else link_close(link);
}

static void on_drained(void *arg) {
    Link *link = arg;
    if (link->call) call_on_drained(link->call);
}

static void on_ended(void *arg, StreamEnd why) {
    Link *link = arg;
    link->ended = true;
    link->why = why;
    if (link->call) call_on_data(link->call);
    else link_close(link);
}

static const StreamEvents events = { on_opened, on_data, on_drained, on_ended };

// ---- taking and keeping

Link *link_take(const Call *call) {
    Client *cl = call->client;
    Link **list = bucket(cl, &call->to), *at = *list;
    while (at && !fits(at, &call->to, call->trust, call->host)) at = at->after;
    if (!at) return NULL;
    list_del(list, at);
    list_add(&cl->busy, at);
    return at;
}

Link *link_open(const Call *call) {
    Client *cl = call->client;
    Link *link = mem_new(sizeof *link);
    link->client = cl;
    link->to = call->to;
    link->trust = call->trust;
    if (call->host) link->host = mem_strdup(str_z(call->host));
    parser_init(&link->parser, true);
    list_add(&cl->busy, link);
    link->stream = stream_connect(cl->loop, &call->to, call->connect_ms, &events, link);
    stream_marks(link->stream, CALL_ROOM, CALL_OUT_LOW);
    if (call->trust) link->tls = tls_connect(call->trust, link->stream, str_z(link->host));
    return link;
}

static void close_oldest(Client *cl, const Link *like) {
    size_t n = 0;
    Link *oldest = NULL;
    for (Link *at = *bucket(cl, &like->to); at; at = at->after)
        if (fits(at, &like->to, like->trust, like->host)) n++, oldest = at;
    if (n > cl->idle_max) link_close(oldest);
}

void link_keep(Link *link) {
    Client *cl = link->client;
    list_del(&cl->busy, link);
    link->call = NULL;
    link->used = true;
    link->idle_from_ns = loop_now_ns(cl->loop);
    list_add(bucket(cl, &link->to), link);
    close_oldest(cl, link);
    if (!timer_running(cl->sweep)) timer_start(cl->sweep, cl->idle_ms);
}

// Closes what has been idle too long, and comes back for the next.
static void sweep(void *arg) {
    Client *cl = arg;
    int64_t now = loop_now_ns(cl->loop), first = INT64_MAX;
    for (size_t i = 0; i < POOL_BUCKETS; i++) {
        for (Link *at = cl->idle[i], *next; at; at = next) {
            next = at->after;
            int64_t over = at->idle_from_ns + cl->idle_ms * 1000000;
            if (over <= now) link_close(at);
            else if (over < first) first = over;
        }
    }
    if (first != INT64_MAX) timer_start(cl->sweep, (first - now + 999999) / 1000000);
}

// ---- the client

Client *client_new(Loop *l, size_t idle_max, int64_t idle_ms) {
    assert(idle_ms >= 0);
    Client *cl = mem_new(sizeof *cl);
    cl->loop = l;
    cl->idle_max = idle_ms ? idle_max : 0;
    cl->idle_ms = idle_ms;
    cl->sweep = timer_new(l, sweep, cl);
    return cl;
}

void client_forget(Client *cl, const Addr *to) { link_close_idle(cl, to); }
