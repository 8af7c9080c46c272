// SPDX-License-Identifier: Apache-2.0
// inject.h - what happens when the n-th system call, or the n-th allocation, fails. A scenario is
// run again and again in a process of its own, each time with one more call let through, until a
// run meets no fault; then with the next way in which a call can fail. Between inject_on and
// inject_off a scenario tolerates errors and only remembers what it was promised; after it faults
// are off, and it checks that what was promised holds, that each error gave its reason, and that a
// second try works. README.md has the rules; fault.c decides who fails how.
// Threads: a scenario's own; faults strike calls of every thread while they are on.
#ifndef LATHE_TEST_INJECT_H
#define LATHE_TEST_INJECT_H
#include "base/test.h"
#include "os/os.h"

typedef struct Scenario {
    Test test;
    void (*recover)(void); // NULL: nothing outlives its death
    struct Scenario *next;
} Scenario;
void inject_add(Scenario *s);

// INJECT(name) { ... } with CHECKs as in a TEST. INJECT_RECOVER(name) { ... } { ... }: the second
// body runs, without faults, in another process after one that died at a fault; inject_promised
// tells it what had been acknowledged.
// clang-format off
#define INJECT_(name_, recover_)                                                                   \
    static void inject_##name_(void);                                                              \
    __attribute__((constructor)) static void inject_add_##name_(void) {                            \
        static Scenario s = { { #name_, __FILE__, inject_##name_, 0 }, recover_, 0 };              \
        inject_add(&s);                                                                            \
    }
#define INJECT(name_) INJECT_(name_, NULL) static void inject_##name_(void)
#define INJECT_RECOVER(name_)                                                                      \
    static void recover_##name_(void);                                                             \
    INJECT_(name_, recover_##name_) static void inject_##name_(void)
#define RECOVER(name_) static void recover_##name_(void)
// clang-format on

void inject_on(void);
void inject_off(void);
const char *inject_dir(void);         // empty at first; kept for RECOVER, removed after it
void inject_promise(size_t i, int n); // i below 64: what has been acknowledged so far
int inject_promised(size_t i);
Ctx *inject_ctx(void); // a test_ctx on the real machine
// An error that came of a fault: it has a reason and a sentence. ERR_OK is fine as well.
bool inject_tolerable(Ctx *c, err e);
#define CHECK_TOLERABLE(c, e) CHECK(inject_tolerable((c), (e)))
// After inject_off: what was away comes back by itself, within ten seconds (test_longer).
bool inject_again(int *tries);
#define CHECK_COMES_BACK(c, x)                                        \
    do {                                                              \
        int tries_ = 0;                                               \
        bool more_ = true;                                            \
        while (more_ && (x) != ERR_OK) more_ = inject_again(&tries_); \
        if (!more_) CHECK_OK(c, x);                                   \
    } while (0)
#endif
