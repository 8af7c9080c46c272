// SPDX-License-Identifier: Apache-2.0
// wrap.c - what the linker puts in place of pthread's waiting calls in the programs of a simulation
// (--wrap): on a simulated thread the scheduler's, else pthread's own. A program that asks for the
// machine gets the node it runs on. Threads: any.
#include "sim_run.h"
#include "os/sim_pthread.h"
#include <stdarg.h>
#include <stdlib.h>

#define REAL(name, ...)                     \
    int __real_pthread_##name(__VA_ARGS__); \
    int __wrap_pthread_##name(__VA_ARGS__); \
    int __wrap_pthread_##name(__VA_ARGS__)

static int attempt_mutex(void *m) { return pthread_mutex_trylock(m); }
static int attempt_read(void *l) { return pthread_rwlock_tryrdlock(l); }
static int attempt_write(void *l) { return pthread_rwlock_trywrlock(l); }

REAL(mutex_lock, pthread_mutex_t *m) {
    return sim_thread_here() ? sim_lock(m, attempt_mutex) : __real_pthread_mutex_lock(m);
}
REAL(mutex_unlock, pthread_mutex_t *m) {
    int rc = __real_pthread_mutex_unlock(m);
    if (sim_thread_here()) sim_unlocked(m);
    return rc;
}
REAL(rwlock_rdlock, pthread_rwlock_t *l) {
    return sim_thread_here() ? sim_lock(l, attempt_read) : __real_pthread_rwlock_rdlock(l);
}
REAL(rwlock_wrlock, pthread_rwlock_t *l) {
    return sim_thread_here() ? sim_lock(l, attempt_write) : __real_pthread_rwlock_wrlock(l);
}
REAL(rwlock_unlock, pthread_rwlock_t *l) {
    int rc = __real_pthread_rwlock_unlock(l);
    if (sim_thread_here()) sim_unlocked(l);
    return rc;
}
REAL(cond_wait, pthread_cond_t *cond, pthread_mutex_t *m) {
    return sim_thread_here() ? sim_cond_wait(cond, m, NULL) : __real_pthread_cond_wait(cond, m);
}
REAL(cond_timedwait, pthread_cond_t *cond, pthread_mutex_t *m, const struct timespec *until) {
    return sim_thread_here() ? sim_cond_wait(cond, m, until)
                             : __real_pthread_cond_timedwait(cond, m, until);
}
REAL(cond_clockwait, pthread_cond_t *cond, pthread_mutex_t *m, clockid_t clock,
     const struct timespec *until) {
    return sim_thread_here() ? sim_cond_wait(cond, m, until)
                             : __real_pthread_cond_clockwait(cond, m, clock, until);
}
REAL(cond_signal, pthread_cond_t *cond) {
    if (!sim_thread_here()) return __real_pthread_cond_signal(cond);
    sim_cond_wake(cond, false);
    return 0;
}
REAL(cond_broadcast, pthread_cond_t *cond) {
    if (!sim_thread_here()) return __real_pthread_cond_broadcast(cond);
    sim_cond_wake(cond, true);
    return 0;
}

// Standard output and errors of a child go to its pipe or file, and it alone exits.
size_t __wrap_fwrite(const void *p, size_t size, size_t n, FILE *f) {
    if (!sim_thread_in_child() || (f != stdout && f != stderr)) return fwrite(p, size, n, f);
    return sim_thread_write(f == stdout ? 1 : 2, str_n(p, size * n)) ? n : 0;
}

int __wrap_fprintf(FILE *f, const char *fmt, ...) {
    char text[8192];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (n > 0) __wrap_fwrite(text, 1, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1, f);
    return n;
}

void __wrap__Exit(int code) {
    if (sim_thread_in_child()) sim_thread_exit(code);
    _Exit(code);
}

Os *__wrap_os_real(void) { return sim_thread_here() ? sim_thread_os() : os_real(); }
