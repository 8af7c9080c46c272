// SPDX-License-Identifier: Apache-2.0
// stream_test.c - streams over real sockets, loopback TCP and unix. A test is a conversation: a
// list of steps, each waits for its condition, acts, and lets the next one come. A timer of ten
// seconds fails a test that waits in vain.
#include "base/test.h"
#include "os/stream_impl.h"
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct Talk Talk;
typedef struct End {
    Talk *talk;
    Stream *s;
    size_t got; // bytes that data() has seen
    uint64_t hash;
    int opened, drained, ended, datas;
    StreamEnd why, first_why;
    bool hold; // leaves input where it is
    bool echo;
} End;

typedef bool (*Step)(Talk *);
struct Talk {
    Loop *l;
    Timer *limit, *window;
    Listener *listener;
    Addr addr;
    End a, b; // a connects when connect() is called, b is what the listener accepted
    int raw;  // a peer without a loop
    const Step *steps;
    int turns, mark;
    bool late;
};

static void nothing(void *arg) { (void)arg; }
static void kick(End *e) {
    loop_post(e->talk->l, nothing, NULL);
} // one more turn looks at the steps

static void on_opened(void *arg) {
    End *e = arg;
    e->opened++;
    kick(e);
}

static void on_data(void *arg) {
    End *e = arg;
    e->datas++;
    kick(e);
    if (e->hold) return;
    size_t n = evbuffer_get_length(stream_in(e->s));
    const uint8_t *p = evbuffer_pullup(stream_in(e->s), -1);
    for (size_t i = 0; i < n; i++) e->hash = (e->hash ^ p[i]) * 0x100000001b3u;
    e->got += n;
    if (e->echo) {
        evbuffer_add_buffer(stream_out(e->s), stream_in(e->s));
        stream_touch(e->s);
    } else {
        evbuffer_drain(stream_in(e->s), n);
    }
}

static void on_drained(void *arg) {
    End *e = arg;
    e->drained++;
    kick(e);
}

static void on_ended(void *arg, StreamEnd why) {
    End *e = arg;
    if (!e->ended++) e->first_why = why;
    e->why = why;
    kick(e);
}

static const StreamEvents end_events = { on_opened, on_data, on_drained, on_ended };

static void on_accepted(void *arg, Loop *l, Stream *s) {
    Talk *t = arg;
    (void)l;
    t->b.s = s;
    stream_events(s, &end_events, &t->b);
}

static void too_late(void *arg) {
    Talk *t = arg;
    t->late = true;
    loop_stop(t->l);
}

static void on_turn(void *arg) {
    Talk *t = arg;
    t->turns++;
    while (*t->steps && (*t->steps)(t)) t->steps++;
    if (!*t->steps) loop_stop(t->l);
}

static bool begin(Talk *t, const char *addr) {
    Ctx *c = test_ctx();
    *t = (Talk){ .l = loop_new(os_real()), .raw = -1 };
    t->a.talk = t->b.talk = t;
    t->limit = timer_new(t->l, too_late, t);
    timer_start(t->limit, 60000);
    t->window = timer_new(t->l, nothing, NULL);
    if (!strcmp(addr, "unix")) addr = say(c, "unix:%s/s", test_dir());
    if (addr_parse(c, str_z(addr), &t->addr)) return false;
    Loop *loops[] = { t->l };
    ListenSpec spec = { loops, 1, &t->addr, on_accepted, t };
    if (listener_open(c, &spec, &t->listener)) return false;
    t->addr = *listener_addr(t->listener);
    loop_on_turn(t->l, on_turn, t);
    return true;
}

static void connect_a(Talk *t) {
    t->a.s = stream_connect(t->l, &t->addr, 5000, &end_events, &t->a);
}

static bool connect_raw(Talk *t) {
    struct sockaddr_storage to;
    socklen_t n;
    if (!addr_to_sockaddr(&t->addr, &to, &n)) return false;
    t->raw = socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return connect(t->raw, (struct sockaddr *)&to, n) == 0;
}

// Plays the conversation; false when it hung.
static bool play(Talk *t, const Step *steps) {
    t->steps = steps;
    loop_run(t->l);
    stream_free(t->a.s);
    stream_free(t->b.s);
    if (t->raw >= 0) close(t->raw);
    listener_close(t->listener);
    timer_free(t->limit);
    timer_free(t->window);
    loop_free(t->l);
    return !t->late;
}
#define PLAY(t, ...) play((t), (const Step[]){ __VA_ARGS__, NULL })

static void say_to(End *e, const char *text) {
    evbuffer_add(stream_out(e->s), text, strlen(text));
    stream_touch(e->s);
}

static void say_much(End *e, size_t n, uint64_t *out_hash) {
    uint64_t dice = n, hash = 0;
    uint8_t *p = mem_new(n);
    for (size_t i = 0; i < n; i++) {
        dice = dice * 6364136223846793005u + 1442695040888963407u;
        p[i] = (uint8_t)(dice >> 56);
        hash = (hash ^ p[i]) * 0x100000001b3u;
    }
    evbuffer_add(stream_out(e->s), p, n);
    stream_touch(e->s);
    mem_free(p);
    *out_hash = hash;
}

// --- bytes

enum { MUCH = 3 << 20 };
static uint64_t much_hash;

static bool up_then_much(Talk *t) {
    if (!t->a.opened || !t->b.s) return false;
    t->b.echo = true;
    say_much(&t->a, MUCH, &much_hash);
    return true;
}
static bool a_got_much(Talk *t) { return t->a.got == MUCH; }

static void echo_over(const char *addr) {
    Talk t;
    CHECK(begin(&t, addr));
    connect_a(&t);
    CHECK(!t.a.opened && !t.a.ended); // never within the call
    CHECK(PLAY(&t, up_then_much, a_got_much));
    CHECK(t.a.hash == much_hash && t.b.hash == much_hash);
    CHECK_INT(t.a.ended + t.b.ended, 0);
}
TEST(os_stream_echo_tcp) { echo_over("127.0.0.1:0"); }
TEST(os_stream_echo_unix) { echo_over("unix"); }

static bool b_up(Talk *t) { return t->b.s; }
static bool no_delay(Talk *t) {
    struct sockaddr_storage peer;
    socklen_t n = sizeof peer;
    int on = 0;
    if (!t->b.s) return false;
    getsockname(t->raw, (struct sockaddr *)&peer, &n);
    Addr mine;
    addr_from_sockaddr(&peer, &mine);
    if (str_is(stream_peer(t->b.s), mine.text)) t->mark++;
    for (int fd = 3; fd < 256; fd++) { // the accepted one has our address as its peer
        struct sockaddr_storage p;
        n = sizeof p;
        if (getpeername(fd, (struct sockaddr *)&p, &n) < 0) continue;
        Addr theirs;
        addr_from_sockaddr(&p, &theirs);
        n = sizeof on;
        if (!strcmp(theirs.text, mine.text)) getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &n);
    }
    t->mark += on;
    return true;
}
TEST(os_stream_accepted_has_peer_and_no_delay) {
    Talk t;
    CHECK(begin(&t, "127.0.0.1:0"));
    CHECK(connect_raw(&t));
    CHECK(PLAY(&t, b_up, no_delay));
    CHECK_INT(t.mark, 2);
}

// What a hook makes durable is durable before the answer leaves: when hooks run, what was added in
// this turn has not left.
static void peek_for_early_answer(void *arg) {
    Talk *t = arg;
    char c;
    if (t->b.s && evbuffer_get_length(stream_out(t->b.s)) && t->raw >= 0
        && recv(t->raw, &c, 1, MSG_DONTWAIT | MSG_PEEK) < 0 && errno == EAGAIN)
        t->mark++;
}
static bool ask(Talk *t) {
    t->b.echo = true;
    return t->b.s && send(t->raw, "x", 1, 0) == 1;
}
static bool answered(Talk *t) {
    char c;
    return recv(t->raw, &c, 1, MSG_DONTWAIT) == 1;
}
TEST(os_stream_answers_leave_after_the_hooks) {
    Talk t;
    CHECK(begin(&t, "unix"));
    loop_on_turn(t.l, peek_for_early_answer, &t);
    CHECK(connect_raw(&t));
    CHECK(PLAY(&t, b_up, ask, answered, ask, answered));
    CHECK(t.mark >= 2);
}

static bool send_file(Talk *t) {
    if (!t->a.opened || !t->b.s) return false;
    char path[600];
    snprintf(path, sizeof path, "%s/file", test_dir());
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    for (int i = 0; i < 100; i++)
        if (write(fd, path, sizeof path) != sizeof path) return false;
    evbuffer_add_file(stream_out(t->a.s), fd, 0, 100 * (ev_off_t)sizeof path);
    stream_touch(t->a.s);
    return true;
}
static bool b_got_file(Talk *t) { return t->b.got == 60000; }
TEST(os_stream_sends_a_file_segment) {
    Talk t;
    CHECK(begin(&t, "127.0.0.1:0"));
    connect_a(&t);
    CHECK(PLAY(&t, send_file, b_got_file));
}

// --- pausing

static bool hold_b(Talk *t) {
    if (!t->b.s) return false;
    t->b.hold = true;
    stream_read(t->b.s, false);
    return true;
}

static bool leave_quietly(Talk *t) {
    t->mark = t->turns;
    return send(t->raw, "abc", 3, 0) == 3 && shutdown(t->raw, SHUT_WR) == 0;
}
static bool b_ended(Talk *t) { return t->b.ended; }
static bool answer_after_eof(Talk *t) {
    say_to(&t->b, "late");
    return true;
}
static bool raw_got_late(Talk *t) {
    char text[5] = "";
    return recv(t->raw, text, 4, MSG_DONTWAIT) == 4 && !strcmp(text, "late");
}

// The peer's writing side only: what was unread comes first, and we may still answer.
static void half_close(const char *addr, bool paused) {
    Talk t;
    CHECK(begin(&t, addr));
    CHECK(connect_raw(&t));
    const Step hold = paused ? hold_b : b_up;
    CHECK(PLAY(&t, hold, leave_quietly, b_ended, answer_after_eof, raw_got_late));
    CHECK_INT(t.b.why, STREAM_EOF);
    CHECK_INT(t.b.ended, 1);
    CHECK_INT(t.b.got, paused ? 0 : 3);
    CHECK_INT(t.b.datas, paused ? 0 : 1);
}
TEST(os_stream_half_close_tcp) { half_close("127.0.0.1:0", false); }
TEST(os_stream_half_close_unix) { half_close("unix", false); }
TEST(os_stream_half_close_while_paused_tcp) { half_close("127.0.0.1:0", true); }
TEST(os_stream_half_close_while_paused_unix) { half_close("unix", true); }

static bool paused_input_kept(Talk *t) {
    if (!t->b.ended) return false;
    char text[4] = "";
    if (evbuffer_get_length(stream_in(t->b.s)) == 3) evbuffer_copyout(stream_in(t->b.s), text, 3);
    t->mark = !strcmp(text, "abc");
    return true;
}
TEST(os_stream_unread_input_survives_the_end) {
    Talk t;
    CHECK(begin(&t, "127.0.0.1:0"));
    CHECK(connect_raw(&t));
    CHECK(PLAY(&t, hold_b, leave_quietly, paused_input_kept));
    CHECK_INT(t.mark, 1);
}

static bool reset_by_raw(Talk *t) {
    struct linger now = { 1, 0 };
    t->mark = t->turns;
    setsockopt(t->raw, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(t->raw);
    t->raw = -1;
    return true;
}
TEST(os_stream_reset_while_paused) {
    Talk t;
    CHECK(begin(&t, "127.0.0.1:0"));
    CHECK(connect_raw(&t));
    CHECK(PLAY(&t, hold_b, reset_by_raw, b_ended));
    CHECK_INT(t.b.why, STREAM_RESET);
    CHECK_INT(t.b.ended, 1);
    CHECK(t.turns - t.mark < 20);
}
TEST(os_stream_reset_while_reading) {
    Talk t;
    CHECK(begin(&t, "127.0.0.1:0"));
    CHECK(connect_raw(&t));
    CHECK(PLAY(&t, b_up, reset_by_raw, b_ended));
    CHECK_INT(t.b.why, STREAM_RESET);
}

static bool send_and_reset(Talk *t) {
    return t->b.s && send(t->raw, "abc", 3, 0) == 3 && reset_by_raw(t);
}
TEST(os_stream_reset_right_behind_data) { // one event for both: each must be told
    Talk t;
    CHECK(begin(&t, "127.0.0.1:0"));
    CHECK(connect_raw(&t));
    CHECK(PLAY(&t, send_and_reset, b_ended));
    CHECK_INT(t.b.got, 3);
    CHECK_INT(t.b.why, STREAM_RESET);
}

// A stream with a dead peer must not keep its loop busy: the turns of 40 ms are counted.
static bool open_window(Talk *t) {
    t->mark = t->turns;
    timer_start(t->window, 40);
    return true;
}
static bool window_over(Talk *t) { return !timer_running(t->window); }

TEST(os_stream_paused_with_a_dead_peer_is_idle) {
    Talk t;
    CHECK(begin(&t, "127.0.0.1:0"));
    CHECK(connect_raw(&t));
    CHECK(PLAY(&t, hold_b, leave_quietly, b_ended, open_window, window_over));
    CHECK(t.turns - t.mark < 10);
}
TEST(os_stream_reset_and_kept_is_idle) {
    Talk t;
    CHECK(begin(&t, "127.0.0.1:0"));
    CHECK(connect_raw(&t));
    CHECK(PLAY(&t, hold_b, reset_by_raw, b_ended, open_window, window_over));
    CHECK(t.turns - t.mark < 10);
}

static bool flood_b(Talk *t) {
    if (!t->a.opened || !t->b.s) return false;
    t->b.hold = true;
    stream_marks(t->b.s, 10000, 0);
    stream_marks(t->a.s, 10000, 100000);
    say_much(&t->a, 16 << 20, &much_hash);
    return true;
}
static bool b_full(Talk *t) { return evbuffer_get_length(stream_in(t->b.s)) == 10000; }
static bool take_some(Talk *t) { // below the maximum, it reads on by itself, exactly up to it again
    if (evbuffer_get_length(stream_in(t->b.s)) > 10000) return t->mark = -1000, true;
    t->mark++;
    evbuffer_drain(stream_in(t->b.s), 5000);
    return true;
}
static bool a_blocked(Talk *t) { // the pipe is full: nothing was told as drained
    size_t left = evbuffer_get_length(stream_out(t->a.s));
    return left > 100000 && left < 16 << 20 && !t->a.drained;
}
static bool let_b_read(Talk *t) {
    t->b.hold = false;
    on_data(&t->b);
    return true;
}
static bool a_drained(Talk *t) { // at the low mark, and when empty
    size_t left = evbuffer_get_length(stream_out(t->a.s));
    if (t->a.drained && left > 100000) t->mark = -1000;
    return left == 0 && t->a.drained;
}
static bool b_got_flood(Talk *t) { return t->b.got >= (16 << 20) - 10000; }

static void back_pressure(const char *addr) {
    Talk t;
    CHECK(begin(&t, addr));
    connect_a(&t);
    CHECK(PLAY(&t, flood_b, b_full, a_blocked, take_some, b_full, take_some, b_full, let_b_read,
               a_drained, b_got_flood));
    CHECK_INT(t.mark, 2);
    CHECK(t.a.drained >= 1 && t.a.drained <= 3);
}
TEST(os_stream_back_pressure_tcp) { back_pressure("127.0.0.1:0"); }
TEST(os_stream_back_pressure_unix) { back_pressure("unix"); }

// --- time-outs

static bool b_read_limit(Talk *t) {
    if (!t->b.s) return false;
    stream_timeouts(t->b.s, 30, 0);
    return true;
}
TEST(os_stream_read_timeout) {
    Talk t;
    CHECK(begin(&t, "unix"));
    CHECK(connect_raw(&t));
    int64_t start = os_mono_ns(os_real());
    CHECK(PLAY(&t, b_read_limit, b_ended));
    CHECK_INT(t.b.why, STREAM_TIMEOUT);
    CHECK(os_mono_ns(os_real()) - start >= 30000000);
}
static bool b_hold_limit(Talk *t) { return hold_b(t) && b_read_limit(t); }
static bool b_lives(Talk *t) { return !t->b.ended; }
TEST(os_stream_read_timeout_rests_while_paused) {
    Talk t;
    CHECK(begin(&t, "unix"));
    CHECK(connect_raw(&t));
    CHECK(PLAY(&t, b_hold_limit, open_window, window_over, b_lives));
}
static bool resume_b(Talk *t) { // the pause does not count: its limit of 30 ms begins now
    stream_read(t->b.s, true);
    t->b.got = (size_t)os_mono_ns(os_real());
    return true;
}
TEST(os_stream_read_timeout_begins_anew_after_a_pause) {
    Talk t;
    CHECK(begin(&t, "unix"));
    CHECK(connect_raw(&t));
    CHECK(PLAY(&t, b_hold_limit, open_window, window_over, resume_b, b_ended));
    CHECK_INT(t.b.why, STREAM_TIMEOUT);
    CHECK(os_mono_ns(os_real()) - (int64_t)t.b.got >= 30 * 1000000);
}
static bool write_to_nobody(Talk *t) { // raw never reads
    if (!t->b.s) return false;
    stream_timeouts(t->b.s, 0, 30);
    say_much(&t->b, 32 << 20, &much_hash);
    return true;
}
TEST(os_stream_write_timeout) {
    Talk t;
    CHECK(begin(&t, "127.0.0.1:0"));
    CHECK(connect_raw(&t));
    CHECK(PLAY(&t, write_to_nobody, b_ended));
    CHECK_INT(t.b.why, STREAM_TIMEOUT);
}

// --- connecting

static bool a_ended(Talk *t) { return t->a.ended; }
static void connect_fails(const char *to, StreamEnd why) {
    Talk t;
    CHECK(begin(&t, "unix"));
    snprintf(t.addr.text, sizeof t.addr.text, "%s", to);
    connect_a(&t);
    say_to(&t.a, "into the void");
    CHECK(!t.a.ended);
    CHECK(PLAY(&t, a_ended));
    CHECK_INT(t.a.why, why);
    CHECK_INT(t.a.ended, 1);
    CHECK_INT(t.a.opened, 0);
}
TEST(os_stream_connect_refused_tcp) {
    Ctx *c = test_ctx(); // a port that was just free: nobody listens
    Loop *l = loop_new(os_real());
    Loop *loops[] = { l };
    Addr any;
    Listener *listener;
    CHECK_OK(c, addr_parse(c, S("127.0.0.1:0"), &any));
    ListenSpec spec = { loops, 1, &any, on_accepted, NULL };
    CHECK_OK(c, listener_open(c, &spec, &listener));
    any = *listener_addr(listener);
    listener_close(listener);
    loop_free(l);
    connect_fails(any.text, STREAM_REFUSED);
}
TEST(os_stream_connect_refused_unix) { connect_fails("unix:/nowhere/at/all", STREAM_REFUSED); }

// A unix listener whose backlog is full says EAGAIN: retried until there is room, or time is up.
static int full_listener(Talk *t, int *out_filler) {
    struct sockaddr_storage at;
    socklen_t n;
    snprintf(t->addr.text, sizeof t->addr.text, "unix:%s/full", test_dir());
    addr_to_sockaddr(&t->addr, &at, &n);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(fd, (struct sockaddr *)&at, n) < 0 || listen(fd, 0) < 0) return -1;
    *out_filler = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(*out_filler, (struct sockaddr *)&at, n) < 0) return -1;
    return fd;
}
TEST(os_stream_connect_timeout) {
    Talk t;
    int filler = -1;
    CHECK(begin(&t, "unix"));
    int fd = full_listener(&t, &filler);
    CHECK(fd >= 0);
    t.a.s = stream_connect(t.l, &t.addr, 30, &end_events, &t.a);
    CHECK(PLAY(&t, a_ended));
    CHECK_INT(t.a.why, STREAM_TIMEOUT);
    close(fd);
    close(filler);
}
static bool make_room(Talk *t) {
    t->raw = accept(t->mark, NULL, NULL);
    return t->raw >= 0;
}
static bool a_opened(Talk *t) { return t->a.opened; }
TEST(os_stream_connect_waits_for_room) {
    Talk t;
    int filler = -1;
    CHECK(begin(&t, "unix"));
    int fd = t.mark = full_listener(&t, &filler);
    CHECK(fd >= 0);
    connect_a(&t);
    CHECK(PLAY(&t, make_room, a_opened));
    CHECK_INT(t.a.ended, 0);
    close(fd);
    close(filler);
}

// --- endings

static void free_on_data(void *arg) {
    End *e = arg;
    e->datas++;
    stream_free(e->s);
    e->s = NULL;
    kick(e);
}
static void free_on_ended(void *arg, StreamEnd why) {
    End *e = arg;
    e->ended++;
    e->why = why;
    stream_free(e->s);
    e->s = NULL;
    kick(e);
}
static void free_on_drained(void *arg) { free_on_data(arg); }
static bool b_frees_on_data(Talk *t) {
    static const StreamEvents ev = { .data = free_on_data };
    if (!t->b.s) return false;
    stream_events(t->b.s, &ev, &t->b);
    return send(t->raw, "xyz", 3, 0) == 3;
}
static bool b_freed(Talk *t) { return !t->b.s && t->b.datas == 1; }
static bool raw_sees_end(Talk *t) {
    char c[16];
    ssize_t n = recv(t->raw, c, sizeof c, MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno == ECONNRESET);
}
TEST(os_stream_freed_in_data) {
    Talk t;
    CHECK(begin(&t, "127.0.0.1:0"));
    CHECK(connect_raw(&t));
    CHECK(PLAY(&t, b_frees_on_data, b_freed, raw_sees_end));
}
static bool b_frees_on_drained(Talk *t) {
    static const StreamEvents ev = { .drained = free_on_drained };
    if (!t->b.s) return false;
    stream_events(t->b.s, &ev, &t->b);
    say_to(&t->b, "1");
    return true;
}
TEST(os_stream_freed_in_drained) {
    Talk t;
    CHECK(begin(&t, "unix"));
    CHECK(connect_raw(&t));
    CHECK(PLAY(&t, b_frees_on_drained, b_freed));
}
static bool b_frees_on_ended(Talk *t) {
    static const StreamEvents ev = { .ended = free_on_ended };
    if (!t->b.s) return false;
    stream_events(t->b.s, &ev, &t->b);
    return leave_quietly(t);
}
static bool b_gone(Talk *t) { return !t->b.s && t->b.ended == 1; }
TEST(os_stream_freed_in_ended) {
    Talk t;
    CHECK(begin(&t, "127.0.0.1:0"));
    CHECK(connect_raw(&t));
    CHECK(PLAY(&t, b_frees_on_ended, b_gone));
    CHECK_INT(t.b.why, STREAM_EOF);
}

// A server that answers and closes while the client still sends: the answer arrives whole, because
// what the client sends is read and thrown away instead of being answered with a reset.
static bool raw_sends_much(Talk *t) {
    static char junk[1 << 20];
    if (!t->b.s) return false;
    fcntl(t->raw, F_SETFL, O_NONBLOCK);
    return send(t->raw, junk, sizeof junk, 0) > 0;
}
static bool shut_b(Talk *t) {
    if (!t->b.datas) return false;
    say_much(&t->b, MUCH, &much_hash);
    stream_shut(t->b.s);
    t->b.s = NULL;
    return true;
}
static bool raw_reads_all(Talk *t) {
    static uint8_t p[1 << 16];
    ssize_t n;
    ssize_t sent = send(t->raw, p, 1000, MSG_NOSIGNAL); // and still sends
    if (sent < 0 && errno != EAGAIN) t->mark = errno;
    while ((n = recv(t->raw, p, sizeof p, 0)) > 0) {
        t->a.got += (size_t)n;
        for (ssize_t i = 0; i < n; i++) t->a.hash = (t->a.hash ^ p[i]) * 0x100000001b3u;
    }
    if (n < 0 && errno != EAGAIN) t->mark = errno;
    kick(&t->a);
    return n == 0 || t->mark;
}
static void shut_is_clean(const char *addr) {
    Talk t;
    CHECK(begin(&t, addr));
    CHECK(connect_raw(&t));
    CHECK(PLAY(&t, raw_sends_much, shut_b, raw_reads_all));
    CHECK_INT(t.mark, 0);
    CHECK_INT(t.a.got, MUCH);
    CHECK(t.a.hash == much_hash);
}
TEST(os_stream_shut_delivers_all_tcp) { shut_is_clean("127.0.0.1:0"); }
TEST(os_stream_shut_delivers_all_unix) { shut_is_clean("unix"); }

static bool shut_at_once(Talk *t) {
    say_to(&t->a, "bye");
    stream_shut(t->a.s);
    t->a.s = NULL;
    return true;
}
static bool b_got_bye(Talk *t) { return t->b.got == 3 && t->b.ended && t->b.why == STREAM_EOF; }
TEST(os_stream_shut_before_it_is_up) {
    Talk t;
    CHECK(begin(&t, "127.0.0.1:0"));
    connect_a(&t);
    CHECK(PLAY(&t, shut_at_once, b_got_bye));
}

static bool write_on(Talk *t) { // after EOF: the writing side breaks too, told once more
    if (t->b.ended == 2) return true;
    if (t->raw >= 0) close(t->raw);
    t->raw = -1;
    say_to(&t->b, "anybody?");
    kick(&t->b);
    return false;
}
TEST(os_stream_break_after_eof_is_told) {
    Talk t;
    CHECK(begin(&t, "127.0.0.1:0"));
    CHECK(connect_raw(&t));
    CHECK(PLAY(&t, b_up, leave_quietly, b_ended, write_on));
    CHECK_INT(t.b.first_why, STREAM_EOF);
    CHECK_INT(t.b.why, STREAM_RESET);
    CHECK_INT(t.b.ended, 2);
}

// The peer answered and left without reading: our writing fails, its answer is still ours.
static bool raw_answers_and_goes(Talk *t) {
    if (!t->b.s || send(t->raw, "no", 2, 0) != 2) return false;
    t->b.hold = true;
    stream_read(t->b.s, false);
    say_much(&t->b, 1 << 20, &much_hash);
    close(t->raw);
    t->raw = -1;
    return true;
}
static bool b_has_answer(Talk *t) {
    if (!t->b.ended) return false;
    t->mark = (int)evbuffer_get_length(stream_in(t->b.s));
    return true;
}
TEST(os_stream_answer_of_a_peer_that_left) {
    Talk t;
    CHECK(begin(&t, "unix"));
    CHECK(connect_raw(&t));
    CHECK(PLAY(&t, raw_answers_and_goes, b_has_answer));
    CHECK_INT(t.mark, 2);
}

TEST(os_stream_names) {
    CHECK_STR(str_z(stream_end_name(STREAM_EOF)), "eof");
    CHECK_STR(str_z(stream_end_name(STREAM_IO)), "io");
}
