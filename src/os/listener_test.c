// SPDX-License-Identifier: Apache-2.0
// listener_test.c - listeners: several loops on threads, unix files old and foreign, running out of
// descriptors, and closing without resetting who waits.
#include "base/test.h"
#include "os/stream_impl.h"
#include "os/thread.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static Ctx *real_ctx(void) {
    Ctx *c = test_ctx();
    c->os = os_real();
    return c;
}

static int raw_connect(const Addr *to) {
    struct sockaddr_storage at;
    socklen_t n;
    if (!addr_to_sockaddr(to, &at, &n)) return -1;
    int fd = socket(at.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&at, n) == 0) return fd;
    if (fd >= 0) close(fd);
    return -1;
}

// --- several loops

enum { LOOPS = 3, CLIENTS = 120 };
typedef struct Hall {
    Loop *loops[LOOPS];
    Thread threads[LOOPS];
    atomic_int accepted[LOOPS], total;
    atomic_bool closed, came_late;
} Hall;

static void hall_data(void *arg) {
    Stream *s = *(Stream **)arg;
    evbuffer_add_buffer(stream_out(s), stream_in(s));
    stream_touch(s);
}
static void hall_ended(void *arg, StreamEnd why) {
    (void)why;
    stream_free(*(Stream **)arg);
    mem_free(arg);
}

static void hall_accepted(void *arg, Loop *l, Stream *s) {
    static const StreamEvents ev = { .data = hall_data, .ended = hall_ended };
    Hall *h = arg;
    if (h->closed || !loop_is_mine(l)) h->came_late = true;
    for (int i = 0; i < LOOPS; i++)
        if (h->loops[i] == l) h->accepted[i]++;
    h->total++;
    Stream **keep = mem_new(sizeof *keep);
    *keep = s;
    stream_events(s, &ev, keep);
}

static void run_loop(void *arg) { loop_run(arg); }

static bool talk(int fd) {
    char c = 0;
    return send(fd, "x", 1, MSG_NOSIGNAL) == 1 && recv(fd, &c, 1, 0) == 1 && c == 'x';
}

// Streams of clients that are still there belong to their loops: told to go, then waited for.
static void stop_hall(Hall *h) {
    for (int i = 0; i < LOOPS; i++) loop_stop(h->loops[i]);
    for (int i = 0; i < LOOPS; i++) thread_join(h->threads[i]);
    for (int i = 0; i < LOOPS; i++) loop_free(h->loops[i]);
}

static void wait_empty(Hall *h, const int *fds, int n) { // each end is seen before the loops stop
    (void)h;
    for (int i = 0; i < n; i++) {
        char c;
        shutdown(fds[i], SHUT_WR);
        while (recv(fds[i], &c, 1, 0) > 0) continue;
        close(fds[i]);
    }
}

TEST(os_listener_serves_several_loops) {
    static Hall h;
    h = (Hall){ 0 };
    Ctx *c = real_ctx();
    Addr any;
    Listener *l;
    int fds[CLIENTS];
    CHECK_OK(c, addr_parse(c, S("127.0.0.1:0"), &any));
    for (int i = 0; i < LOOPS; i++) h.loops[i] = loop_new(os_real());
    for (int i = 0; i < LOOPS; i++)
        thread_start(os_real(), "hall", run_loop, h.loops[i], &h.threads[i]);
    ListenSpec spec = { h.loops, LOOPS, &any, hall_accepted, &h };
    CHECK_OK(c, listener_open(c, &spec, &l));
    any = *listener_addr(l);
    int good = 0;
    for (int i = 0; i < CLIENTS; i++) fds[i] = raw_connect(&any);
    for (int i = 0; i < CLIENTS; i++) good += fds[i] >= 0 && talk(fds[i]);
    listener_close(l); // from a thread that is none of its loops'
    h.closed = true;
    int refused = raw_connect(&any); // may still reach a loop that has not let go: never accepted
    for (int i = 0; i < CLIENTS; i++) good += talk(fds[i]);
    wait_empty(&h, fds, CLIENTS);
    stop_hall(&h);
    if (refused >= 0) close(refused);
    CHECK_INT(good, 2 * CLIENTS);
    CHECK_INT(h.total, CLIENTS);
    for (int i = 0; i < LOOPS; i++) // spread, whichever loop was quick to accept
        CHECK(h.accepted[i] >= CLIENTS / LOOPS - 10 && h.accepted[i] <= CLIENTS / LOOPS + 10);
    CHECK(!h.came_late);
}

// --- one loop

typedef struct Door {
    Loop *l;
    Timer *limit;
    Listener *listener;
    Stream *streams[64];
    int n, stop_at, turns;
    bool late, close_within;
} Door;

static void door_accepted(void *arg, Loop *l, Stream *s) {
    Door *d = arg;
    d->streams[d->n++] = s;
    if (d->close_within) {
        listener_close(d->listener);
        d->listener = NULL;
    }
    if (d->n == d->stop_at) loop_stop(l);
}
static void door_late(void *arg) {
    ((Door *)arg)->late = true;
    loop_stop(((Door *)arg)->l);
}
static void door_turn(void *arg) { ((Door *)arg)->turns++; }

static err door_open(Ctx *c, Door *d, const char *addr) {
    Addr a;
    *d = (Door){ .l = loop_new(os_real()) };
    d->limit = timer_new(d->l, door_late, d);
    timer_start(d->limit, test_longer(10000));
    loop_on_turn(d->l, door_turn, d);
    TRY(addr_parse(c, str_z(addr), &a));
    Loop *loops[] = { d->l };
    ListenSpec spec = { loops, 1, &a, door_accepted, d };
    return listener_open(c, &spec, &d->listener);
}

static bool door_close(Door *d) {
    listener_close(d->listener);
    for (int i = 0; i < d->n; i++) stream_free(d->streams[i]);
    timer_free(d->limit);
    loop_free(d->l);
    return !d->late;
}

static void backlog_is_accepted(Ctx *c, const char *addr) {
    Door d;
    int fds[5];
    CHECK_OK(c, door_open(c, &d, addr));
    for (int i = 0; i < 5; i++) fds[i] = raw_connect(listener_addr(d.listener));
    listener_close(d.listener);
    d.listener = NULL;
    CHECK_INT(d.n, 5);
    d.stop_at = -1;
    for (int i = 0; i < 5; i++) { // alive: no reset, nothing to read
        char b;
        CHECK(recv(fds[i], &b, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
        close(fds[i]);
    }
    CHECK(door_close(&d));
}
TEST(os_listener_close_accepts_the_backlog_tcp) { backlog_is_accepted(real_ctx(), "127.0.0.1:0"); }
TEST(os_listener_close_accepts_the_backlog_unix) {
    Ctx *c = real_ctx();
    backlog_is_accepted(c, say(c, "unix:%s/s", test_dir()));
}

TEST(os_listener_closed_within_accepted) {
    Ctx *c = real_ctx();
    Door d;
    CHECK_OK(c, door_open(c, &d, "127.0.0.1:0"));
    d.close_within = true;
    d.stop_at = 1;
    int one = raw_connect(listener_addr(d.listener)), two = raw_connect(listener_addr(d.listener));
    loop_run(d.l);
    CHECK(one >= 0 && two >= 0 && d.n == 1 && !d.listener);
    CHECK(door_close(&d));
    close(one);
    close(two);
}

TEST(os_listener_unix_file) {
    Ctx *c = real_ctx();
    Door d, other;
    struct stat st;
    const char *path = say(c, "%s/s", test_dir()), *addr = say(c, "unix:%s", path);
    CHECK_OK(c, door_open(c, &d, addr));
    CHECK(stat(path, &st) == 0 && S_ISSOCK(st.st_mode) && (st.st_mode & 07777) == 0600);
    CHECK_ERR(door_open(c, &other, addr), ERR_CONFLICT); // somebody answers
    CHECK(door_close(&other));
    CHECK(door_close(&d));
    CHECK(stat(path, &st) < 0); // our file goes with us
}

TEST(os_listener_replaces_a_dead_unix_file_only) {
    Ctx *c = real_ctx();
    Door d;
    const char *path = say(c, "%s/s", test_dir()), *addr = say(c, "unix:%s", path);
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    memcpy(at.sun_path, path, strlen(path));
    int dead = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(dead, (struct sockaddr *)&at, sizeof at) == 0);
    close(dead);
    CHECK_OK(c, door_open(c, &d, addr));
    int fd = raw_connect(listener_addr(d.listener));
    CHECK(fd >= 0);
    close(fd);
    CHECK(door_close(&d));
    int plain = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600); // a file that is no socket stays
    close(plain);
    CHECK_ERR(door_open(c, &d, addr), ERR_CONFLICT);
    CHECK(access(path, F_OK) == 0);
    CHECK(door_close(&d));
}

TEST(os_listener_port_in_use) {
    Ctx *c = real_ctx();
    Door d, other;
    CHECK_OK(c, door_open(c, &d, "127.0.0.1:0"));
    CHECK(!str_ends(str_z(listener_addr(d.listener)->text), S(":0")));
    CHECK_ERR(door_open(c, &other, listener_addr(d.listener)->text), ERR_CONFLICT);
    CHECK_STR(failure_param(&c->failure, "path"), listener_addr(d.listener)->text);
    CHECK(door_close(&other));
    CHECK(door_close(&d));
}

// Out of descriptors: connections wait in the backlog, the loop sleeps between tries instead of
// spinning, and accepts when there is room.
typedef struct Crunch {
    Door d;
    struct rlimit before;
    int turns_hungry;
} Crunch;
static void feed_again(void *arg) {
    Crunch *k = arg;
    k->turns_hungry = k->d.turns;
    setrlimit(RLIMIT_NOFILE, &k->before);
}
TEST(os_listener_out_of_files_does_not_spin) {
    Ctx *c = real_ctx();
    Crunch k = { 0 };
    CHECK_OK(c, door_open(c, &k.d, "127.0.0.1:0"));
    int fd = raw_connect(listener_addr(k.d.listener));
    CHECK(fd >= 0);
    getrlimit(RLIMIT_NOFILE, &k.before);
    struct rlimit none = k.before;
    none.rlim_cur = (rlim_t)fd + 1; // the lowest free number is above it
    setrlimit(RLIMIT_NOFILE, &none);
    Timer *t = timer_new(k.d.l, feed_again, &k);
    timer_start(t, 60);
    k.d.stop_at = 1;
    loop_run(k.d.l);
    timer_free(t);
    CHECK_INT(k.d.n, 1);
    CHECK(k.turns_hungry > 0 && k.turns_hungry < 10);
    close(fd);
    CHECK(door_close(&k.d));
}
