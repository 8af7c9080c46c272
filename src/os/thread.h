// SPDX-License-Identifier: Apache-2.0
// thread.h - threads, and a bounded pool for blocking work. Simulated, there are threads only for
// who runs on one (sim_pthread.h); else thread_start is refused by an assertion, sim_run drives
// every loop, and pool work runs one piece at a time, in an order of the seed's.
#ifndef LATHE_OS_THREAD_H
#define LATHE_OS_THREAD_H
#include "os/os.h"
#include <pthread.h>

typedef pthread_t Thread;
bool thread_can_start(Os *os);
// Others run for so long. Simulated and on no thread: nothing happens.
void thread_pause(Os *os, int64_t ns);
// Fails when the system has none left. The thread gets no signals but those of its own faults.
err thread_open(Ctx *c, const char *name, void (*fn)(void *), void *arg, Thread *out);
// The same for what a program cannot be without: it ends and says why.
void thread_start(Os *os, const char *name, void (*fn)(void *), void *arg, Thread *out);
void thread_join(Thread t);

typedef struct Pool Pool;
Pool *pool_new(Os *os, const char *name, int threads, size_t queue_max);
// Finishes what was submitted, then joins; refuses what is submitted from then on.
void pool_stop(Pool *p); // NULL is fine; once is enough
void pool_free(Pool *p); // stops it first; NULL is fine
// False when queue_max pieces wait already: the caller answers 503. fn gets arg on a pool thread.
bool pool_submit(Pool *p, void (*fn)(void *), void *arg);
size_t pool_waiting(Pool *p);
size_t pool_running(Pool *p);
#endif
