// SPDX-License-Identifier: Apache-2.0
// lane.c - one request and its answer: sent, read to its end, checked, and put into the histograms.
// Owner and threads: see drive_own.h.
#include "drive_own.h"
#include <assert.h>
#include <stdio.h>

enum { TAIL_MAX = 1024, EVENT_MAX = 1 << 20, COPY_MAX = 16 << 10 };

// ---- the request

static void no_cleanup(const void *data, size_t n, void *arg) { (void)data, (void)n, (void)arg; }

static struct evbuffer *body_of(const Lane *l) {
    const Plan *p = l->d->plan;
    if (!p->body.n) return NULL;
    struct evbuffer *out = evbuffer_new();
    assert(out);
    if (p->number_at >= 0) {
        char digits[24];
        size_t at = (size_t)p->number_at, rest = at + PLAN_NUMBER_N;
        snprintf(digits, sizeof digits, "%09lld",
                 (long long)(l->number % (p->numbers ? p->numbers : 1000000000)));
        evbuffer_add(out, p->body.p, at);
        evbuffer_add(out, digits, PLAN_NUMBER_N);
        evbuffer_add(out, p->body.p + rest, p->body.n - rest);
    } else if (p->body.n <= COPY_MAX) {
        evbuffer_add(out, p->body.p, p->body.n);
    } else {
        evbuffer_add_reference(out, p->body.p, p->body.n, no_cleanup, NULL);
    }
    return out;
}

// ---- a stream's events

static bool find_stamp(str data, int64_t *out_due_ns, int64_t *out_sent_ns) {
    static const str name = { "\"stamp\":[", 9 };
    ptrdiff_t at = str_find(data, name);
    if (at < 0) return false;
    str rest = str_sub(data, (size_t)at + name.n, data.n), due, sent;
    return str_cut(&rest, ',', &due) && str_cut(&rest, ']', &sent) && str_to_i64(due, out_due_ns)
           && str_to_i64(sent, out_sent_ns);
}

static void on_token(Lane *l, str data) {
    Tally *t = l->d->t;
    int64_t due_ns = 0, sent_ns = 0;
    bool stamped = find_stamp(data, &due_ns, &sent_ns);
    t->tokens++;
    t->stamped += stamped;
    if (l->recorded) {
        if (!l->token_ns) hist_add(&t->first_token, l->now_ns - l->intended_ns);
        else hist_add(&t->gap, l->now_ns - l->token_ns);
        if (stamped) {
            hist_add(&t->way, l->now_ns - sent_ns);
            hist_add(&t->late, l->now_ns - due_ns);
        }
        if (stamped && l->stamp_ns)
            hist_add(&t->added_gap, (l->now_ns - l->token_ns) - (sent_ns - l->stamp_ns));
    }
    l->token_ns = l->now_ns;
    l->stamp_ns = stamped ? sent_ns : 0;
}

static void on_event(void *arg, const SseEvent *ev) {
    Lane *l = arg;
    if (str_is(ev->data, "[DONE]")) l->done = true;
    // Of chat and of text completions; an engine's first event has "content":null.
    else if (str_find(ev->data, S("\"content\":\"")) >= 0
             || str_find(ev->data, S("\"text\":\"")) >= 0)
        on_token(l, ev->data);
    if (l->begun) return;
    l->begun = true;
    drive_on_begun(l);
}

// ---- the answer

static void on_head(void *arg, const CallHead *h) { ((Lane *)arg)->status = h->status; }

static void on_data(void *arg, struct evbuffer *chunk) {
    Lane *l = arg;
    Drive *d = l->d;
    size_t n = evbuffer_get_length(chunk);
    l->now_ns = os_mono_ns(d->os);
    d->t->bytes += (int64_t)n;
    if (d->plan->stream && l->status == d->plan->status) {
        str bytes = str_n(evbuffer_pullup(chunk, -1), n);
        if (!sse_feed(&l->sse, bytes, on_event, l))
            drive_fail(d, "an event over %d bytes", EVENT_MAX);
    }
    if (n > TAIL_MAX) {
        evbuffer_drain(l->tail, evbuffer_get_length(l->tail));
        evbuffer_drain(chunk, n - TAIL_MAX);
    }
    evbuffer_add_buffer(l->tail, chunk);
    n = evbuffer_get_length(l->tail);
    if (n > 2 * TAIL_MAX) evbuffer_drain(l->tail, n - TAIL_MAX);
}

static str tail_of(Lane *l) {
    size_t n = evbuffer_get_length(l->tail);
    return n ? str_n(evbuffer_pullup(l->tail, -1), n) : S("");
}

static const char *fault(Lane *l, CallEnd why) {
    const Plan *p = l->d->plan;
    if (why != CALL_OK) return call_end_name(why);
    if (l->status != p->status) return "another status";
    if (p->stream && !l->done) return "the stream ended without [DONE]";
    if (p->expect.p && str_find(tail_of(l), p->expect) < 0) return "not what was expected";
    return NULL;
}

static void record(Lane *l, int64_t now_ns) {
    Tally *t = l->d->t;
    if (!l->recorded) return;
    hist_add(&t->latency, now_ns - l->intended_ns);
    hist_add(&t->service, now_ns - l->sent_ns);
    hist_add(&t->lag, l->sent_ns - l->intended_ns);
}

static void on_end(void *arg, CallEnd why) {
    Lane *l = arg;
    Drive *d = l->d;
    const char *bad = fault(l, why);
    l->call = NULL;
    if (bad) {
        str tail = tail_of(l);
        if (tail.n > 300) tail.n = 300;
        drive_fail(d, "request %lld, status %d: %s: %.*s", (long long)l->number, l->status, bad,
                   STR_ARG(tail));
    } else {
        record(l, os_mono_ns(d->os));
    }
    evbuffer_drain(l->tail, evbuffer_get_length(l->tail));
    if (d->plan->stream) sse_done(&l->sse);
    if (!bad) drive_on_answer(l);
}

void lane_start(Lane *l, int64_t intended_ns) {
    static const CallEvents events = { .head = on_head, .data = on_data, .end = on_end };
    Drive *d = l->d;
    const Plan *p = d->plan;
    assert(!l->call);
    l->number = p->first + d->t->sent++;
    l->intended_ns = intended_ns;
    l->sent_ns = os_mono_ns(d->os);
    l->recorded = intended_ns - d->start_ns >= p->warm_ns;
    l->status = 0;
    l->done = l->begun = false;
    l->token_ns = l->stamp_ns = 0;
    if (p->stream) sse_init(&l->sse, EVENT_MAX);
    HttpHeader headers[2] = { { S("Content-Type"), S("application/json") } };
    size_t n = p->body.n ? 1 : 0;
    if (p->keys_n)
        headers[n++] = (HttpHeader){ S("Authorization"), p->keys[(size_t)l->number % p->keys_n] };
    struct evbuffer *body = body_of(l);
    CallSpec spec = { .to = p->to,
                      .method = p->method,
                      .target = p->path,
                      .headers = headers,
                      .headers_n = n,
                      .body = body };
    l->call = call_start(d->client, &spec, &events, l);
    if (body) evbuffer_free(body);
}
