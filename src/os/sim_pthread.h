// SPDX-License-Identifier: Apache-2.0
// sim_pthread.h - simulated threads: one runs at a time, and which one is the seed's choice. A
// program is put on them by its linker (--wrap of pthread's waiting calls), not by its source; the
// calls below are for what stands in for those. Threads: a simulated one, unless said otherwise.
#ifndef LATHE_OS_SIM_PTHREAD_H
#define LATHE_OS_SIM_PTHREAD_H
#include "os/sim.h"
#include "os/thread.h"

// Any thread: a first one of a node's program or of a simulated process, too. out may be NULL. 0.
int sim_thread_start(Os *os, const char *name, void (*fn)(void *), void *arg, Thread *out);
void sim_thread_join(Thread t);
bool sim_thread_here(void); // whether the caller is one; any thread
Os *sim_thread_os(void);    // the caller's; NULL on a thread of the machine; any thread
// Those that live, for a look at where each stands; the scheduler's thread.
void sim_threads_each(Sim *s, void (*fn)(pthread_t thread));
bool sim_thread_in_child(void);           // of process_start; any thread
_Noreturn void sim_thread_exit(int code); // of the process that the caller belongs to: a child
// What a child's thread writes to its output (1) or its errors (2); it waits while a pipe is full.
// False: not all was taken; a pipe that nobody reads ends the process, as SIGPIPE does.
bool sim_thread_write(int which, str bytes);
// Chance in a million that another thread comes in between at a lock or a signal; 0 at first.
void sim_preempt(Sim *s, unsigned chance);

// attempt(lock) is repeated until it does not say EBUSY; its last answer.
int sim_lock(void *lock, int (*attempt)(void *));
void sim_unlocked(const void *lock); // after it was given free
// 0, or ETIMEDOUT at until (of the monotonic clock; NULL: never), or what locking said.
int sim_cond_wait(const void *cond, pthread_mutex_t *m, const struct timespec *until);
void sim_cond_wake(const void *cond, bool all);
#endif
