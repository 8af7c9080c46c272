// SPDX-License-Identifier: Apache-2.0
// sim_pipe.c - where simulated children write: pipes and open files, as numbers that mean something
// to process_start, stream_adopt and pipe_close only. A pipe holds so much and then its writer
// waits; it ends when nobody can write to it any more, and who writes to one that nobody reads is
// ended by SIGPIPE.
// Owner: a number its program until it hands it on; the rest sim_free. Threads: the baton's holder.
#include "os/sim_impl.h"
#include "os/sim_pthread.h"
#include <assert.h>
#include <errno.h>

enum { PIPE_BYTES = 65536, TELL_NS_MAX = 20000 };

typedef struct PipeEnd {
    Stream head;
    SimSink *pipe; // NULL: it is closed
} PipeEnd;

struct SimSink {
    SimThing thing;
    Link link; // in Sim.sinks
    Sim *sim;
    int number;       // of its write end; its read end is one more
    unsigned writers; // open write ends: numbers and children
    File *file;       // NULL: a pipe; else a child appends to what it names
    int64_t at;
    bool unread; // nobody reads, or ever will
    PipeEnd *reader;
    struct evbuffer *bytes;
    bool telling;
};

static void free_thing(SimThing *t) {
    SimSink *k = link_of(t, SimSink, thing);
    if (k->bytes) evbuffer_free(k->bytes);
    mem_free(k);
}

static SimSink *sink_new(Sim *s) {
    SimSink *k = mem_new(sizeof *k);
    k->sim = s;
    k->number = s->next_number;
    s->next_number += 2;
    k->writers = 1;
    link_add(&s->sinks, &k->link);
    sim_own(s, &k->thing, free_thing);
    return k;
}

static SimSink *find(Sim *s, int number) {
    for (Link *at = s->sinks.next; at != &s->sinks; at = at->next) {
        SimSink *k = link_of(at, SimSink, link);
        if ((k->number | 1) == (number | 1)) return k;
    }
    return NULL;
}

// ---- the reader's side

static void tell(void *arg) {
    SimSink *k = arg;
    if (k->reader) stream_on_readable(&k->reader->head, !k->writers);
}

static void tell_comes(void *arg) {
    SimSink *k = arg;
    k->telling = false;
    if (k->reader) sim_turn((SimLoop *)k->reader->head.loop, tell, k);
}

static void tell_soon(SimSink *k) {
    if (k->telling || !k->reader) return;
    k->telling = true;
    sim_at(k->sim, k->sim->now_ns + sim_between(k->sim, 1, TELL_NS_MAX), tell_comes, k);
}

static int send_out(Stream *head, size_t max) { return (void)head, (void)max, EPIPE; }

static ssize_t recv_in(Stream *head, size_t max) {
    SimSink *k = ((PipeEnd *)head)->pipe;
    if (!k) return 0;
    int n = evbuffer_remove_buffer(k->bytes, head->in, max);
    assert(n >= 0);
    if (!n) return k->writers ? -EAGAIN : 0;
    sim_threads_wake(k->sim, k);
    return n;
}

static void finish_out(Stream *head) { (void)head; }

static void unread(SimSink *k) {
    k->unread = true;
    k->reader = NULL;
    evbuffer_drain(k->bytes, SIZE_MAX);
    sim_threads_wake(k->sim, k);
}

static void close_end(Stream *head) {
    PipeEnd *e = (PipeEnd *)head;
    if (!e->pipe) return;
    sim_turns_forget(e->pipe->sim, e->pipe, sizeof *e->pipe);
    unread(e->pipe);
    e->pipe = NULL;
}

static const StreamOps pipe_ops = { send_out, recv_in, finish_out, close_end };

Stream *sim_stream_adopt(Loop *l, int number) {
    SimSink *k = find(sim_os(l->os)->sim, number);
    PipeEnd *e = (PipeEnd *)stream_make(l, &pipe_ops, sizeof *e, "pipe");
    assert(k && !k->file && !k->reader && number == k->number + 1);
    e->pipe = k;
    k->reader = e;
    tell_soon(k);
    return &e->head;
}

// ---- numbers

err sim_pipe_make(Ctx *c, int out_read_write[2]) {
    SimSink *k = sink_new(sim_os(c->os)->sim);
    k->bytes = evbuffer_new();
    assert(k->bytes);
    out_read_write[0] = k->number + 1;
    out_read_write[1] = k->number;
    return ERR_OK;
}

int sim_file_sink(Sim *s, File *f) {
    SimSink *k = sink_new(s);
    k->file = f;
    return k->number;
}

void sim_file_sink_close(Sim *s, int number) {
    SimSink *k = find(s, number);
    if (k) k->file = NULL, k->unread = true;
}

void sim_pipe_close(Os *os, int number) {
    SimSink *k = find(sim_os(os)->sim, number);
    assert(k);
    if (number == k->number) sim_sink_close(k);
    else unread(k);
}

// ---- the writer's side

SimSink *sim_sink_open(Sim *s, int number) {
    SimSink *k = number < 0 ? NULL : find(s, number);
    if (k) k->writers++;
    return k;
}

void sim_sink_close(SimSink *k) {
    if (!k) return;
    assert(k->writers);
    if (!--k->writers) tell_soon(k);
}

// Waits for room, on a simulated thread; elsewhere all is taken.
static size_t write_pipe(SimSink *k, str bytes) {
    size_t done = 0;
    while (done < bytes.n && !k->unread) {
        size_t held = evbuffer_get_length(k->bytes);
        size_t room = held < PIPE_BYTES ? PIPE_BYTES - held : 0;
        if (!sim_thread_here()) room = bytes.n;
        if (!room) {
            sim_thread_wait(k);
            continue;
        }
        size_t n = bytes.n - done < room ? bytes.n - done : room;
        evbuffer_add(k->bytes, bytes.p + done, n);
        done += n;
        tell_soon(k);
    }
    return done;
}

bool sim_sink_write(Ctx *c, SimSink *k, str bytes, bool *out_broken) {
    *out_broken = false;
    if (!k) return true; // to nowhere
    if (!k->file) {
        *out_broken = write_pipe(k, bytes) < bytes.n;
        return !*out_broken;
    }
    if (file_write_at(c, k->file, k->at, bytes.p, bytes.n)) return false;
    k->at += (int64_t)bytes.n;
    return true;
}
