// SPDX-License-Identifier: Apache-2.0
// talk_test.c - see talk_test.h.
#include "net/talk_test.h"
#include <arpa/inet.h>
#include <assert.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void run_loop(void *arg) { loop_run(arg); }

void line_open(Line *l, size_t idle_max, int64_t idle_ms) {
    l->loop = loop_new(os_real());
    l->client = client_new(l->loop, idle_max, idle_ms);
    thread_start(os_real(), "client", run_loop, l->loop, &l->thread);
}

void line_close(Line *l) {
    loop_stop(l->loop);
    thread_join(l->thread);
    client_free(l->client);
    loop_free(l->loop);
}

typedef struct Do {
    void (*fn)(void *);
    void *arg;
    atomic_int done;
} Do;
static void do_it(void *arg) {
    Do *d = arg;
    d->fn(d->arg);
    atomic_store(&d->done, 1);
}
void line_do(Line *l, void (*fn)(void *), void *arg) {
    Do d = { .fn = fn, .arg = arg };
    loop_post(l->loop, do_it, &d);
    if (!wait_int(&d.done, 1)) abort(); // d is on this stack
}

// ---- a call

static void alive(Talk *t) {
    if (t->starting || !t->call || atomic_load(&t->ended)) atomic_fetch_add(&t->late, 1);
}

static void on_head(void *arg, const CallHead *h) {
    Talk *t = arg;
    alive(t);
    t->status = h->status, t->reused = h->reused, t->length = h->length;
    for (size_t i = 0; i < h->headers_n; i++)
        buf_printf(&t->head, STR_FMT ": " STR_FMT "\n", STR_ARG(h->headers[i].name),
                   STR_ARG(h->headers[i].value));
    atomic_fetch_add(&t->heads, 1);
}

static void go_on(void *arg) {
    Talk *t = arg;
    if (t->call) call_pause(t->call, false);
}

static void on_data(void *arg, struct evbuffer *chunk) {
    Talk *t = arg;
    alive(t);
    atomic_fetch_add(&t->datas, 1);
    if (t->cancels) {
        call_cancel(t->call);
        t->call = NULL;
        atomic_store(&t->ended, 1);
        return;
    }
    if (atomic_load(&t->hold)) return;
    size_t n = evbuffer_get_length(chunk);
    if (t->take_most && n > t->take_most) n = t->take_most;
    char *at = buf_reserve(&t->answer, n);
    assert(at);
    evbuffer_remove(chunk, at, n);
    buf_commit(&t->answer, n);
    atomic_fetch_add(&t->got, (int)n);
    if (t->pauses) call_pause(t->call, true);
    if (t->pauses || evbuffer_get_length(chunk)) timer_start(t->again, 0);
}

static void write_more(Talk *t) {
    while (t->written < t->body.n && call_pending(t->call) < 200000) {
        struct evbuffer *b = evbuffer_new();
        str part = str_sub(t->body, t->written, 10000);
        evbuffer_add(b, part.p, part.n);
        call_write(t->call, b);
        evbuffer_free(b);
        t->written += part.n;
    }
    if (t->written == t->body.n) {
        call_write_end(t->call);
        t->written++;
    }
}

static void on_drained(void *arg) {
    Talk *t = arg;
    alive(t);
    atomic_fetch_add(&t->drains, 1);
    write_more(t);
}

static void on_end(void *arg, CallEnd why) {
    Talk *t = arg;
    alive(t);
    t->why = why;
    t->call = NULL;
    t->ended_ms = now_ms();
    timer_stop(t->again);
    atomic_store(&t->ended, 1);
}

static void start(void *arg) {
    static const CallEvents events = { on_head, on_data, on_drained, on_end };
    Talk *t = arg;
    struct evbuffer *b = evbuffer_new();
    t->again = timer_new(t->line->loop, go_on, t);
    if (!t->spec.body_streams) evbuffer_add(b, t->body.p, t->body.n);
    t->spec.body = b;
    t->starting = true;
    t->call = call_start(t->line->client, &t->spec, &events, t);
    t->starting = false;
    if (t->spec.body_streams) write_more(t);
    evbuffer_free(b);
}

void talk_start(Line *l, Talk *t) {
    t->line = l;
    buf_init(&t->head, 1 << 20);
    buf_init(&t->answer, 256 << 20);
    if (!t->spec.target.p) t->spec.target = S("/");
    line_do(l, start, t);
}

bool talk_wait(Talk *t) { return wait_int(&t->ended, 1); }

static void end_timer(void *arg) { timer_free(((Talk *)arg)->again); }
void talk_done(Talk *t) {
    line_do(t->line, end_timer, t);
    if (atomic_load(&t->late)) test_failed(__FILE__, __LINE__, "an event out of its time");
    buf_done(&t->head);
    buf_done(&t->answer);
}

void talk_resume(Talk *t) {
    atomic_store(&t->hold, false);
    line_do(t->line, go_on, t);
}

static void cancel(void *arg) {
    Talk *t = arg;
    if (!t->call) return;
    call_cancel(t->call);
    t->call = NULL;
}
void talk_cancel(Talk *t) { line_do(t->line, cancel, t); }

static void pause_it(void *arg) { call_pause(((Talk *)arg)->call, true); }
void talk_pause(Talk *t) { line_do(t->line, pause_it, t); }

typedef struct Forget {
    Client *client;
    const Addr *to;
} Forget;
static void forget(void *arg) {
    const Forget *f = arg;
    client_forget(f->client, f->to);
}
void talk_forget(Line *l, const Addr *to) { line_do(l, forget, &(Forget){ l->client, to }); }

bool talk_get(Line *l, Talk *t, const Addr *to) {
    t->spec.to = *to;
    talk_start(l, t);
    return talk_wait(t);
}

// ---- the upstream

int up_listen(Addr *out, int backlog) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof at;
    int rc = bind(fd, (struct sockaddr *)&at, n) | listen(fd, backlog);
    rc |= getsockname(fd, (struct sockaddr *)&at, &n);
    assert(rc == 0);
    snprintf(out->text, sizeof out->text, "127.0.0.1:%d", ntohs(at.sin_port));
    return fd;
}

int up_accept(int listener) {
    struct pollfd p = { listener, POLLIN, 0 };
    return poll(&p, 1, (int)test_longer(10000)) == 1 ? accept(listener, NULL, NULL) : -1;
}

bool up_request(int fd, Buf *head) {
    buf_clear(head);
    while (head->n < 4 || memcmp(head->p + head->n - 4, "\r\n\r\n", 4) != 0) {
        char c;
        if (!raw_peek(fd, &c)) return false;
        raw_take(fd, 1);
        buf_add_char(head, c);
    }
    return true;
}

bool up_closed_within(int fd, int64_t ms) {
    char c;
    return raw_readable(fd, (int)ms) && !raw_peek(fd, &c);
}
