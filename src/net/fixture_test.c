// SPDX-License-Identifier: Apache-2.0
// fixture_test.c - see fixture_test.h.
#include "net/fixture_test.h"
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_MS = 10000 };

int64_t now_ms(void) { return os_mono_ns(os_real()) / 1000000; }

void wait_ms(int ms) { poll(NULL, 0, ms); }

bool wait_until(bool (*cond)(void *), void *arg) {
    int64_t until = now_ms() + test_longer(PATIENCE_MS);
    while (!cond(arg)) {
        if (now_ms() > until) return false;
        wait_ms(1);
    }
    return true;
}

typedef struct AtLeast {
    atomic_int *at;
    int least;
} AtLeast;
static bool is_at_least(void *arg) {
    const AtLeast *a = arg;
    return atomic_load(a->at) >= a->least;
}
bool wait_int(atomic_int *at, int least) {
    return wait_until(is_at_least, &(AtLeast){ at, least });
}

static bool is_idle(void *arg) { return !server_counts(((Rig *)arg)->server).requests_active; }
bool rig_idle(Rig *r) { return wait_until(is_idle, r); }

typedef struct Waiting {
    Rig *rig;
    size_t n;
} Waiting;
static bool has_waiting(void *arg) {
    const Waiting *w = arg;
    return pool_waiting(w->rig->pool) >= w->n;
}
bool wait_pool(Rig *r, size_t waiting) { return wait_until(has_waiting, &(Waiting){ r, waiting }); }

static bool has_active(void *arg) {
    const Waiting *w = arg;
    return server_counts(w->rig->server).requests_active == w->n;
}
bool wait_active(Rig *r, size_t requests) {
    return wait_until(has_active, &(Waiting){ r, requests });
}

static bool has_connections(void *arg) {
    const Waiting *w = arg;
    return server_counts(w->rig->server).connections == w->n;
}
bool wait_connections(Rig *r, size_t n) { return wait_until(has_connections, &(Waiting){ r, n }); }

// ---- the server

static err on_enter(void *app, Ctx *c, const NetRoute *route, const HttpRequest *q) {
    Rig *r = app;
    (void)route, (void)q;
    atomic_fetch_add(&r->entered, 1);
    static const Reason no = { "no", "go away", "走开" };
    return atomic_load(&r->deny) ? fail(c, ERR_UNAUTHENTICATED, no) : ERR_OK;
}

static void on_left(void *app, Ctx *c, const NetRoute *route, const HttpRequest *q,
                    const HttpOutcome *how) {
    Rig *r = app;
    (void)c, (void)route;
    assert(q->request_id.n && how->ns >= 0 && how->sent_bytes >= 0);
    atomic_store(&r->left_status, how->status);
    atomic_store(&r->left_sent, how->sent_bytes);
    atomic_fetch_add(&r->left, 1);
}

static void run_loop(void *arg) { loop_run(arg); }

Rig *rig_start(const RigSpec *spec) {
    Rig *r = mem_new(sizeof *r);
    Ctx *c = test_ctx();
    memset(&test_app, 0, sizeof test_app);
    Os *os = os_real();
    c->os = os;
    r->loops_n = spec->loops_n ? spec->loops_n : 1;
    r->pool = pool_new(os, "test", spec->pool_threads ? spec->pool_threads : 2,
                       spec->pool_queue ? spec->pool_queue : 64);
    for (size_t i = 0; i < r->loops_n; i++) r->loops[i] = loop_new(os);
    ServerConfig config = spec->config;
    config.pool = r->pool;
    if (!config.spool_dir.p) config.spool_dir = str_z(test_dir());
    config.routes = spec->routes ? spec->routes : app_routes;
    config.routes_n = spec->routes ? spec->routes_n : app_routes_n;
    config.enter = spec->plain ? NULL : on_enter;
    config.left = on_left;
    config.app = r;
    Addr addr;
    str where =
        spec->unix_path ? arena_printf(c->mem, "unix:%s", spec->unix_path) : S("127.0.0.1:0");
    err e = addr_parse(c, where, &addr);
    if (!e) e = server_new(c, r->loops, r->loops_n, &config, &r->server);
    if (!e) e = server_listen(c, r->server, &addr, &r->addr);
    if (e) {
        test_failed(__FILE__, __LINE__, "no server: %s", err_row(e)->name);
        return NULL;
    }
    for (size_t i = 0; i < r->loops_n; i++)
        thread_start(os, "loop", run_loop, r->loops[i], &r->threads[i]);
    return r;
}

static bool is_quiet(void *arg) {
    ServerCounts n = server_counts(((Rig *)arg)->server);
    return !n.requests_active && !n.connections && !n.bytes_in_flight;
}

static void on_drained(void *arg) { atomic_store(&((Rig *)arg)->drained, 1); }

// Every request was told to `left` once, and nothing is held: whatever the test did.
void rig_stop(Rig *r) {
    if (!r) return;
    if (!r->drained_stop) server_drain(r->server, 5000, on_drained, r);
    if (!wait_int(&r->drained, 1)) test_failed(__FILE__, __LINE__, "it does not drain");
    ServerCounts n = server_counts(r->server);
    if (!wait_until(is_quiet, r))
        test_failed(__FILE__, __LINE__, "left over: %zu requests, %zu connections, %lld bytes",
                    n.requests_active, n.connections, (long long)n.bytes_in_flight);
    for (size_t i = 0; i < r->loops_n; i++) {
        loop_stop(r->loops[i]);
        thread_join(r->threads[i]);
    }
    pool_free(r->pool);
    int64_t requests = server_counts(r->server).requests;
    if (requests != atomic_load(&r->left))
        test_failed(__FILE__, __LINE__, "%lld requests, but left was told of %d",
                    (long long)requests, atomic_load(&r->left));
    server_free(r->server);
    for (size_t i = 0; i < r->loops_n; i++) loop_free(r->loops[i]);
    mem_free(r);
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
void rig_do(Rig *r, void (*fn)(void *), void *arg) {
    Do d = { .fn = fn, .arg = arg };
    loop_post(r->loops[0], do_it, &d);
    if (!wait_int(&d.done, 1)) abort(); // d is on this stack
}

// ---- raw bytes

int raw_open(const Addr *to) {
    bool local = str_starts(str_z(to->text), S("unix:"));
    int fd = socket(local ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert(fd >= 0);
    const char *colon = strrchr(to->text, ':');
    struct sockaddr_in in = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10)),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    memccpy(un.sun_path, to->text + 5, 0, sizeof un.sun_path - 1);
    const int on = 1;
    if (!local) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    int rc = local ? connect(fd, (struct sockaddr *)&un, sizeof un)
                   : connect(fd, (struct sockaddr *)&in, sizeof in);
    if (rc == 0) return fd;
    close(fd);
    return -1;
}

void raw_close(int fd) { close(fd); }

void raw_reset(int fd) {
    struct linger now = { 1, 0 };
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);
}

static bool ready(int fd, short what) {
    struct pollfd p = { fd, what, 0 };
    return poll(&p, 1, (int)test_longer(PATIENCE_MS)) == 1;
}

bool raw_send(int fd, str bytes) {
    while (bytes.n) {
        if (!ready(fd, POLLOUT)) return false;
        ssize_t n = send(fd, bytes.p, bytes.n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n <= 0) return false;
        bytes = str_n(bytes.p + n, bytes.n - (size_t)n);
    }
    return true;
}

bool raw_sendz(int fd, const char *z) { return raw_send(fd, str_z(z)); }

// More bytes into b; false at the end.
static bool more(int fd, Buf *b, size_t n) {
    char *at = buf_reserve(b, n);
    assert(at);
    if (!ready(fd, POLLIN)) return false;
    ssize_t got = recv(fd, at, n, 0);
    if (got <= 0) return false;
    buf_commit(b, (size_t)got);
    return true;
}

bool raw_readable(int fd, int ms) {
    struct pollfd p = { fd, POLLIN, 0 };
    return poll(&p, 1, ms) == 1;
}

bool raw_peek(int fd, char *out) { return ready(fd, POLLIN) && recv(fd, out, 1, MSG_PEEK) == 1; }
bool raw_more(int fd, Buf *b) { return more(fd, b, 4096); }

int64_t raw_take(int fd, size_t n) {
    char junk[65536];
    int64_t all = 0;
    if (!ready(fd, POLLIN)) return 0;
    while (n) {
        ssize_t got = recv(fd, junk, n < sizeof junk ? n : sizeof junk, MSG_DONTWAIT);
        if (got <= 0) break;
        all += got, n -= (size_t)got;
    }
    return all;
}

size_t raw_exactly(int fd, size_t n, char *out) {
    char junk[65536];
    size_t all = 0;
    while (all < n && ready(fd, POLLIN)) {
        size_t want = n - all < sizeof junk ? n - all : sizeof junk;
        ssize_t got = recv(fd, junk, want, 0);
        if (got <= 0) break;
        if (out) memcpy(out + all, junk, (size_t)got);
        all += (size_t)got;
    }
    return all;
}

void raw_quiet(int fd) {
    int before = -1, now = 0;
    for (int same = 0; same < 20; same = now == before ? same + 1 : 0) {
        before = now;
        wait_ms(5);
        ioctl(fd, FIONREAD, &now);
    }
}

int raw_try(const Addr *to) {
    struct sockaddr_in in = { .sin_family = AF_INET,
                              .sin_port =
                                  htons((uint16_t)strtoul(strrchr(to->text, ':') + 1, NULL, 10)),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int rc = connect(fd, (struct sockaddr *)&in, sizeof in);
    assert(fd >= 0 && (rc == 0 || errno == EINPROGRESS));
    return fd;
}

size_t raw_some(int fd, str bytes) {
    ssize_t n = send(fd, bytes.p, bytes.n, MSG_NOSIGNAL | MSG_DONTWAIT);
    return n > 0 ? (size_t)n : 0;
}

size_t raw_push(int fd, str bytes) {
    size_t all = 0;
    struct pollfd p = { fd, POLLOUT, 0 };
    while (all < bytes.n && poll(&p, 1, 200) == 1) {
        ssize_t n = send(fd, bytes.p + all, bytes.n - all, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n <= 0) break;
        all += (size_t)n;
    }
    return all;
}

bool raw_ended(int fd) {
    char junk[4096];
    int64_t until = now_ms() + test_longer(PATIENCE_MS);
    while (now_ms() < until && ready(fd, POLLIN))
        if (recv(fd, junk, sizeof junk, 0) <= 0) return true;
    return false;
}

str answer_header(const Answer *a, const char *name) {
    str rest = a->head, line;
    while (str_cut(&rest, '\n', &line)) {
        str key;
        if (!str_cut(&line, ':', &key) || !str_ieq(key, str_z(name))) continue;
        return str_trim(line);
    }
    return (str){ 0 };
}

static bool exactly(int fd, Buf *b, size_t n) {
    while (b->n < n)
        if (!more(fd, b, n - b->n)) return false;
    return true;
}

static bool line(int fd, Buf *b) {
    size_t from = b->n;
    do
        if (!more(fd, b, 1)) return false;
    while (b->n - from < 2 || memcmp(b->p + b->n - 2, "\r\n", 2) != 0);
    return true;
}

static bool chunks(int fd, Buf *body) {
    for (;;) {
        Buf b;
        buf_init(&b, 64);
        bool good = line(fd, &b);
        size_t n = good ? strtoul(buf_z(&b), NULL, 16) : 0;
        buf_done(&b);
        if (!good || !exactly(fd, body, body->n + n + 2)) return false;
        body->n -= 2;
        if (!n) return true;
    }
}

static str keep(Buf *b) {
    str s = arena_str(test_ctx()->mem, buf_str(b));
    buf_done(b);
    return s;
}

Answer raw_answer_to(int fd, bool head) {
    Answer a = { 0 };
    Buf b, body;
    buf_init(&b, 1 << 20);
    buf_init(&body, 512 << 20);
    do {
        if (!line(fd, &b)) {
            a.head = keep(&b);
            buf_done(&body);
            return a;
        }
    } while (b.n < 4 || memcmp(b.p + b.n - 4, "\r\n\r\n", 4) != 0);
    a.head = keep(&b);
    a.status = (int)strtol(a.head.p + 9, NULL, 10);
    int64_t length = 0;
    bool sized = str_to_i64(answer_header(&a, "Content-Length"), &length);
    a.chunked = str_is(answer_header(&a, "Transfer-Encoding"), "chunked");
    bool none = head || a.status < 200 || a.status == 204 || a.status == 304;
    if (none) (void)0;
    else if (a.chunked) a.cut = !chunks(fd, &body);
    else if (sized) a.cut = !exactly(fd, &body, (size_t)length);
    else
        while (more(fd, &body, 4096)) {}
    a.body = keep(&body);
    return a;
}

Answer raw_answer(int fd) { return raw_answer_to(fd, false); }

Answer raw_ask(const Addr *to, const char *request) {
    int fd = raw_open(to);
    Answer a = { 0 };
    if (fd < 0 || !raw_sendz(fd, request)) return a;
    a = raw_answer_to(fd, str_starts(str_z(request), S("HEAD ")));
    raw_close(fd);
    return a;
}
