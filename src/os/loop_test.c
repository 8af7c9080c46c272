// SPDX-License-Identifier: Apache-2.0
// loop_test.c - turns, timers, posts and signals on the machine. Every wait is on a condition, with
// a timer of ten seconds that fails the test instead of hanging it.
#include "base/test.h"
#include "os/loop.h"
#include "os/thread.h"
#include <signal.h>

typedef struct Run {
    Loop *l;
    Timer *limit;
    bool late;
    int n;
    char log[64];
} Run;

static void too_late(void *arg) {
    Run *r = arg;
    r->late = true;
    loop_stop(r->l);
}

static void begin(Run *r) {
    *r = (Run){ .l = loop_new(os_real()) };
    r->limit = timer_new(r->l, too_late, r);
    timer_start(r->limit, test_longer(10000));
}

static bool finish(Run *r) {
    timer_free(r->limit);
    loop_free(r->l);
    return !r->late;
}

static void note(Run *r, char what) {
    if (r->n < (int)sizeof r->log - 1) r->log[r->n++] = what;
}

// --- timers

typedef struct Tick {
    Run *run;
    Timer *t;
    char name;
    int64_t at_ns;
} Tick;

static void on_tick(void *arg) {
    Tick *k = arg;
    k->at_ns = os_mono_ns(loop_os(k->run->l));
    note(k->run, k->name);
    if (k->name == 'z') loop_stop(k->run->l);
}

TEST(os_timer_order_and_time) {
    Run r;
    begin(&r);
    Tick ticks[] = { { &r, 0, 'c', 0 }, { &r, 0, 'a', 0 }, { &r, 0, 'b', 0 }, { &r, 0, 'z', 0 } };
    const int64_t ms[] = { 12, 3, 3, 25 };
    int64_t start = os_mono_ns(os_real());
    for (size_t i = 0; i < countof(ticks); i++) {
        ticks[i].t = timer_new(r.l, on_tick, &ticks[i]);
        timer_start(ticks[i].t, ms[i]);
    }
    loop_run(r.l);
    for (size_t i = 0; i < countof(ticks); i++) timer_free(ticks[i].t);
    CHECK(finish(&r));
    CHECK_STR(str_z(r.log), "abcz");
    for (size_t i = 0; i < countof(ticks); i++) CHECK(ticks[i].at_ns - start >= ms[i] * 1000000);
}

// Later, earlier, stopped and freed within the heap: the model is a list of due times.
TEST(os_timer_restart_stop_free) {
    Run r;
    begin(&r);
    Tick ticks[6];
    for (size_t i = 0; i < countof(ticks); i++) {
        ticks[i] = (Tick){ &r, NULL, "abcdez"[i], 0 };
        ticks[i].t = timer_new(r.l, on_tick, &ticks[i]);
        timer_start(ticks[i].t, 10);
    }
    timer_start(ticks[0].t, 20); // later
    timer_start(ticks[1].t, 2);  // earlier
    timer_stop(ticks[2].t);
    CHECK(!timer_running(ticks[2].t) && timer_running(ticks[0].t));
    timer_start(ticks[3].t, 15);
    timer_free(ticks[4].t);
    timer_start(ticks[5].t, 40);
    loop_run(r.l);
    for (size_t i = 0; i < countof(ticks); i++)
        if (i != 4) timer_free(ticks[i].t);
    CHECK(finish(&r));
    CHECK_STR(str_z(r.log), "bdaz");
}

static void free_itself(void *arg) {
    Tick *k = arg;
    timer_free(k->t);
    k->t = NULL;
    loop_stop(k->run->l);
}

TEST(os_timer_freed_within_its_own_call) {
    Run r;
    begin(&r);
    Tick k = { &r, NULL, 'x', 0 };
    k.t = timer_new(r.l, free_itself, &k);
    timer_start(k.t, 0);
    loop_run(r.l);
    CHECK(finish(&r));
    CHECK(!k.t);
}

static void again_at_once(void *arg) {
    Tick *k = arg;
    if (++k->at_ns < 1000) timer_start(k->t, 0);
    else loop_stop(k->run->l);
}

static void one_turn(void *arg) { ++*(int *)arg; }

TEST(os_timer_of_no_time_lets_turns_pass) {
    Run r;
    begin(&r);
    int turns = 0;
    loop_on_turn(r.l, one_turn, &turns);
    Tick k = { &r, NULL, 'x', 0 };
    k.t = timer_new(r.l, again_at_once, &k);
    timer_start(k.t, 0);
    loop_run(r.l);
    timer_free(k.t);
    CHECK(finish(&r));
    CHECK(turns >= 1000);
}

static void many_fired(void *arg) {
    Tick *k = arg;
    k->at_ns = ++k->run->n;
    if (k->name) loop_stop(k->run->l);
}

// Random starts, restarts and stops against a plain table of due times.
TEST(os_timer_heap_agrees_with_a_table) {
    enum { N = 300 };
    Run r;
    begin(&r);
    static Tick ticks[N];
    static int64_t due[N];
    uint64_t dice = 42;
    for (int i = 0; i < N; i++) {
        ticks[i] = (Tick){ .run = &r };
        ticks[i].t = timer_new(r.l, many_fired, &ticks[i]);
        due[i] = 0;
    }
    for (int step = 0; step < 5000; step++) {
        dice = dice * 6364136223846793005u + 1442695040888963407u;
        int i = (int)(dice >> 33) % N, what = (int)(dice >> 20) % 4;
        due[i] = what ? (int64_t)((dice >> 40) % 40) * 2 : 0; // 2 ms apart: the order must show
        if (due[i]) timer_start(ticks[i].t, due[i]);
        else timer_stop(ticks[i].t);
    }
    Tick last = { .run = &r, .name = 'z' };
    last.t = timer_new(r.l, many_fired, &last);
    timer_start(last.t, 200);
    loop_run(r.l);
    int fired = 0;
    bool right = true;
    for (int i = 0; i < N; i++) {
        if ((due[i] != 0) != (ticks[i].at_ns != 0)) right = false;
        fired += ticks[i].at_ns != 0;
        timer_free(ticks[i].t);
    }
    timer_free(last.t);
    CHECK(finish(&r));
    CHECK(right);
    CHECK(fired > N / 4);
}

// --- posts

static void post_a(void *arg) { note(arg, 'a'); }
static void post_b(void *arg) { note(arg, 'b'); }
static void post_stop(void *arg) {
    Run *r = arg;
    note(r, loop_stopping(r->l) ? 'S' : 's');
    loop_stop(r->l);
}
static void post_more(void *arg) {
    Run *r = arg;
    loop_post(r->l, post_b, r);
    note(r, 'm'); // before b: not within the caller
    loop_post(r->l, post_stop, r);
}

TEST(os_loop_post_keeps_order) {
    Run r;
    begin(&r);
    loop_post(r.l, post_a, &r);
    loop_post(r.l, post_more, &r);
    loop_post(r.l, post_a, &r);
    loop_run(r.l);
    CHECK_STR(str_z(r.log), "amabs");
    loop_post(r.l, post_stop, &r); // after the end: called at loop_free, to release its arg
    CHECK(finish(&r));
    CHECK_STR(str_z(r.log), "amabsS");
}

enum { POSTERS = 4, POSTS = 20000 };
typedef struct Poster {
    struct Crowd *crowd;
    int sent, seen;
    bool order_kept;
} Poster;
typedef struct Crowd {
    Run run;
    Poster posters[POSTERS];
    int total;
} Crowd;
typedef struct Piece {
    Poster *from;
    int number;
} Piece;

static void on_piece(void *arg) {
    Piece *piece = arg;
    Poster *p = piece->from;
    if (piece->number != p->seen++) p->order_kept = false;
    if (!loop_is_mine(p->crowd->run.l)) p->order_kept = false;
    if (++p->crowd->total == POSTERS * POSTS) loop_stop(p->crowd->run.l);
    mem_free(piece);
}

static void post_many(void *arg) {
    Poster *p = arg;
    for (int i = 0; i < POSTS; i++) {
        Piece *piece = mem_new(sizeof *piece);
        *piece = (Piece){ p, i };
        loop_post(p->crowd->run.l, on_piece, piece);
    }
}

TEST(os_loop_post_from_many_threads) {
    static Crowd crowd;
    crowd = (Crowd){ 0 };
    begin(&crowd.run);
    Thread threads[POSTERS];
    for (int i = 0; i < POSTERS; i++) {
        crowd.posters[i] = (Poster){ .crowd = &crowd, .order_kept = true };
        thread_start(os_real(), "poster", post_many, &crowd.posters[i], &threads[i]);
    }
    loop_run(crowd.run.l);
    for (int i = 0; i < POSTERS; i++) thread_join(threads[i]);
    CHECK(finish(&crowd.run));
    CHECK_INT(crowd.total, POSTERS * POSTS);
    for (int i = 0; i < POSTERS; i++) CHECK(crowd.posters[i].order_kept);
}

static void stop_from_outside(void *arg) { loop_stop(arg); }

TEST(os_loop_stop_wakes_an_idle_loop) {
    Run r;
    begin(&r);
    Thread t;
    thread_start(os_real(), "stopper", stop_from_outside, r.l, &t);
    loop_run(r.l);
    thread_join(t);
    CHECK(loop_stopping(r.l));
    CHECK(finish(&r));
}

// --- turns and signals

static void hook_one(void *arg) { note(arg, '1'); }
static void hook_two(void *arg) { note(arg, '2'); }

TEST(os_loop_hooks_run_after_the_work_in_order) {
    Run r;
    begin(&r);
    loop_on_turn(r.l, hook_one, &r);
    loop_on_turn(r.l, hook_two, &r);
    loop_post(r.l, post_a, &r);
    loop_post(r.l, post_stop, &r);
    loop_run(r.l);
    CHECK(finish(&r));
    CHECK_STR(str_z(r.log), "as12");
}

static void on_usr1(void *arg, int signal) {
    Run *r = arg;
    if (signal == SIGUSR1) note(r, 'u');
    loop_stop(r->l);
}
static void raise_usr1(void *arg) {
    (void)arg;
    raise(SIGUSR1);
}

TEST(os_loop_signal) {
    Run r;
    begin(&r);
    loop_on_signal(r.l, SIGUSR1, on_usr1, &r);
    loop_post(r.l, raise_usr1, NULL);
    loop_run(r.l);
    CHECK(finish(&r));
    CHECK_STR(str_z(r.log), "u");
}
