// SPDX-License-Identifier: Apache-2.0
// talk_test.h - the client on a loop of its own, and an upstream of raw bytes for it to talk to.
// Threads: the test's, except where said.
#ifndef LATHE_NET_TALK_TEST_H
#define LATHE_NET_TALK_TEST_H
#include "net/client.h"
#include "net/fixture_test.h"

typedef struct Line { // a client and its loop
    Loop *loop;
    Thread thread;
    Client *client;
} Line;
void line_open(Line *l, size_t idle_max, int64_t idle_ms);
void line_close(Line *l);
void line_do(Line *l, void (*fn)(void *), void *arg); // on the loop, waited for

typedef struct Talk { // one call; zero it, set what is asked for, talk_start
    // Set by the test.
    CallSpec spec;
    str body;         // sent with the call, or written in pieces when spec.body_streams
    size_t take_most; // bytes drained at each data event; 0: all
    atomic_bool hold; // drains nothing
    bool pauses;      // pauses after each data event and goes on in the next turn
    bool cancels;     // at the first data event
    // What happened.
    atomic_int ended, heads, datas, drains, late;
    atomic_int got; // bytes
    CallEnd why;
    int status;
    bool reused;
    int64_t length, ended_ms;
    Buf head, answer;
    // The loop's.
    Line *line;
    Call *call;
    atomic_size_t written;
    bool starting;
    Timer *again;
} Talk;
void talk_start(Line *l, Talk *t);
bool talk_wait(Talk *t); // until it ended
void talk_done(Talk *t);
void talk_resume(Talk *t);
void talk_cancel(Talk *t);
void talk_pause(Talk *t);
// All of it for a GET: starts, waits; the caller calls talk_done.
bool talk_get(Line *l, Talk *t, const Addr *to);

void talk_forget(Line *l, const Addr *to); // client_forget

int up_listen(Addr *out, int backlog);     // an upstream on loopback
int up_accept(int listener);               // -1 after ten seconds
bool up_request(int fd, Buf *head);        // reads one request's head
bool up_closed_within(int fd, int64_t ms); // the client closes, and nothing comes before
#endif
