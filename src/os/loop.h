// SPDX-License-Identifier: Apache-2.0
// loop.h - an event loop, one a thread: timers, posted calls, and the sockets of stream.h. A turn
// is: wait, run what is ready, run the turn hooks, flush the output of every stream that was
// written to. So what a hook makes durable is durable before an answer leaves. (When flushing calls
// an owner back and it writes more, the hooks run again before that leaves.)
// Threads: everything on the loop's own thread, except loop_post, loop_stop and loop_stopping.
#ifndef LATHE_OS_LOOP_H
#define LATHE_OS_LOOP_H
#include "os/os.h"

typedef struct Loop Loop;
typedef struct Timer Timer;

err loop_open(Ctx *c, Loop **out); // fails when no descriptor or memory is left
Loop *loop_new(Os *os);            // the same where the program ends without one
// After loop_run has returned: makes the calls that were posted since, while what they refer to is
// still there. False when there were none.
bool loop_finish(Loop *l);
void loop_free(Loop *l); // after its last stream and timer are gone; NULL is fine
void loop_run(Loop *l);  // until loop_stop
void loop_stop(Loop *l); // any thread
Os *loop_os(Loop *l);
int64_t loop_now_ns(Loop *l); // monotonic, cached for this turn
// Called on the loop's thread, or while no thread runs it (for asserts).
bool loop_is_mine(Loop *l);
// fn(arg) on the loop's thread, in order of posting, not within the caller. Any thread. After
// loop_stop: dropped at loop_free, with fn called so that it can release arg (loop_stopping() is
// then true).
void loop_post(Loop *l, void (*fn)(void *), void *arg);
bool loop_stopping(Loop *l);
// Each turn that did anything, before streams are flushed; in order of registration; for ever.
void loop_on_turn(Loop *l, void (*fn)(void *), void *arg);

Timer *timer_new(Loop *l, void (*fn)(void *), void *arg); // not started
void timer_start(Timer *t, int64_t ms); // once, ms from now; restarts a running one, cheaply
void timer_stop(Timer *t);
void timer_free(Timer *t); // NULL is fine; allowed within its own fn
bool timer_running(const Timer *t);

// Signals SIGTERM, SIGINT, SIGHUP, SIGUSR1, delivered on this loop. One loop of the program only.
void loop_on_signal(Loop *l, int signal, void (*fn)(void *, int), void *arg);
#endif
