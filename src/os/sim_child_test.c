// SPDX-License-Identifier: Apache-2.0
// sim_child_test.c - what simulated children write, and who ends with whom: pipes that fill, end
// and break, files that take output, and a child that goes when its parent does.
#include "base/test.h"
#include "os/file.h"
#include "os/sim.h"
#include "os/sim_pthread.h"
#include "os/stream.h"
#include <assert.h>
#include <signal.h>
#include <stdio.h>

enum { PIPE_ROOM = 65536 };
static const int64_t SECOND = 1000000000;

typedef struct Writer { // a child with a thread: writes so much, then exits
    size_t bytes;
    size_t wrote;
    bool stays; // or does not exit
    bool starts_one;
    int killed_by;
    void *proc;
    Process *grandchild;
} Writer;

static void write_all(void *arg) {
    Writer *w = arg;
    char text[1000];
    memset(text, 'x', sizeof text);
    while (w->wrote < w->bytes && sim_thread_write(1, str_n(text, sizeof text)))
        w->wrote += sizeof text;
    while (w->stays) sim_thread_write(2, S("")), thread_pause(sim_thread_os(), SECOND);
    sim_thread_exit(5);
}

static void *writer_start(void *arg, Os *os, Loop *l, const char *const *argv,
                          void (*exit)(void *, int), void *proc) {
    Writer *w = arg;
    (void)l, (void)exit;
    w->proc = proc;
    if (w->starts_one && !w->grandchild) {
        Ctx c;
        ProcessSpec spec = { .argv = argv, .in_fd = -1, .out_fd = -1, .err_fd = -1 };
        ctx_init(&c, arena_new(), os);
        err e = process_start(&c, &spec, NULL, NULL, NULL, &w->grandchild);
        assert(!e);
        arena_free(c.mem);
    }
    sim_thread_start(os, "writer", write_all, w, NULL);
    return NULL;
}
static void writer_killed(void *handle, int signal) { (void)handle, (void)signal; }

typedef struct Reader {
    Stream *s;
    size_t got;
    int ended, exits;
    ProcessExit how;
} Reader;
static void reader_data(void *arg) {
    Reader *r = arg;
    r->got += evbuffer_get_length(stream_in(r->s));
    evbuffer_drain(stream_in(r->s), SIZE_MAX);
}
static void reader_ended(void *arg, StreamEnd why) {
    Reader *r = arg;
    reader_data(arg);
    r->ended += why == STREAM_EOF;
}
static void reader_exited(void *arg, const ProcessExit *how) {
    ((Reader *)arg)->exits++;
    ((Reader *)arg)->how = *how;
}

typedef struct Stage {
    Sim *s;
    Ctx *c;
    Loop *l;
    Writer w;
    Reader r;
    Process *p;
} Stage;

static void stage_open(Stage *g, uint64_t seed, size_t bytes) {
    *g = (Stage){ .s = sim_new(seed), .c = test_ctx(), .w = { .bytes = bytes } };
    g->c->os = sim_node(g->s, 0);
    g->l = loop_new(g->c->os);
    sim_program(g->s, &(SimProgram){ "writer", writer_start, writer_killed, &g->w });
}

static void stage_start(Stage *g, int out_fd, bool detached) {
    static const char *const argv[] = { "/sim/writer", NULL };
    ProcessSpec spec = { .argv = argv, .in_fd = -1, .out_fd = out_fd, .err_fd = -1 };
    spec.detached = detached;
    CHECK_OK(g->c, process_start(g->c, &spec, g->l, reader_exited, &g->r, &g->p));
}

static void stage_run(Stage *g, int64_t seconds) {
    sim_run(g->s, os_mono_ns(g->c->os) + seconds * SECOND, NULL, NULL);
}

static void stage_pipe(Stage *g, bool read) {
    static const StreamEvents events = { .data = reader_data, .ended = reader_ended };
    int fds[2];
    CHECK_OK(g->c, pipe_make(g->c, fds));
    stage_start(g, fds[1], false);
    g->r.s = stream_adopt(g->l, fds[0], &events, &g->r);
    stream_read(g->r.s, read);
    pipe_close(g->c->os, fds[1]);
}

static void stage_close(Stage *g) {
    process_free(g->p);
    process_free(g->w.grandchild);
    loop_free(g->l);
    sim_free(g->s);
}

TEST(sim_child_writes_a_pipe_to_its_end) {
    for (uint64_t seed = 1; seed < 20; seed++) {
        Stage g;
        stage_open(&g, seed, 300000);
        stage_pipe(&g, true);
        stage_run(&g, 10);
        CHECK_INT(g.r.got, 300000);
        CHECK_INT(g.r.ended, 1);
        CHECK_INT(g.r.exits, 1);
        CHECK_INT(g.r.how.code, 5);
        stream_free(g.r.s);
        stage_close(&g);
    }
}

TEST(sim_child_waits_while_its_pipe_is_full_and_dies_of_a_broken_one) {
    Stage g;
    stage_open(&g, 2, 1000000);
    stage_pipe(&g, false);
    stage_run(&g, 10);
    CHECK(g.w.wrote <= 3 * PIPE_ROOM && g.w.wrote > PIPE_ROOM / 2);
    CHECK_INT(g.r.exits, 0);
    stream_free(g.r.s);
    stage_run(&g, 1);
    CHECK_INT(g.r.exits, 1);
    CHECK_INT(g.r.how.signal, SIGPIPE);
    stage_close(&g);
}

TEST(sim_child_writes_an_open_file) {
    Stage g;
    File *f;
    str text;
    stage_open(&g, 3, 5000);
    CHECK_OK(g.c, file_open(g.c, S("/out"), FILE_WRITE | FILE_CREATE, &f));
    stage_start(&g, file_fd(f), false);
    stage_run(&g, 1);
    file_close(f);
    CHECK_INT(g.r.how.code, 5);
    CHECK_OK(g.c, file_read_all(g.c, S("/out"), 10000, &text));
    CHECK_INT(text.n, 5000);
    stage_close(&g);
}

TEST(sim_child_stands_still_until_it_may_go_on) {
    Stage g;
    stage_open(&g, 4, 0);
    g.w.stays = true;
    stage_start(&g, -1, false);
    stage_run(&g, 1);
    sim_signal(g.w.proc, SIGSTOP);
    sim_signal(g.w.proc, SIGTERM); // waits with it
    stage_run(&g, 5);
    CHECK(!sim_ended(g.w.proc));
    sim_signal(g.w.proc, SIGCONT);
    stage_run(&g, 5);
    CHECK_INT(g.r.how.signal, SIGTERM);
    stage_close(&g);
}

TEST(sim_child_ends_with_its_parent) {
    for (int power = 0; power < 2; power++) {
        Stage g;
        stage_open(&g, 5, 0);
        g.w.stays = g.w.starts_one = true;
        stage_start(&g, -1, true);
        stage_run(&g, 1);
        int64_t pid = process_pid(g.p), inner = process_pid(g.w.grandchild);
        sim_crash(g.s, 0, power);
        CHECK((pid_start_ticks(g.c->os, pid) == 0) == power); // detached: power alone ends it
        CHECK((pid_start_ticks(g.c->os, inner) == 0) == power);
        if (!power) CHECK(pid_signal(g.c->os, pid, pid_start_ticks(g.c->os, pid), SIGKILL));
        stage_run(&g, 1);
        CHECK_INT(pid_start_ticks(g.c->os, inner), 0); // whose parent is gone
        stage_close(&g);
    }
}
