// SPDX-License-Identifier: Apache-2.0
// test.h - units: TEST(name) { ... CHECK(...) ... } in a *_test.c beside the code, one binary,
// filter by name. A failed CHECK prints file, line and both sides, marks the test failed, returns.
// Threads: tests run one after the other; test_failed may be called from any thread of the test.
#ifndef LATHE_BASE_TEST_H
#define LATHE_BASE_TEST_H
#include "json.h"
#include "log.h"

typedef struct Test {
    const char *name, *file;
    void (*run)(void);
    struct Test *next;
} Test;

void test_add(Test *t); // objects are linked directly, so the constructors below always run
// [-l] [PATTERN ...]: a pattern is a part of `file:name`, or a glob over all of the name. Prints a
// line a test and `N passed, N failed`. 1 when one failed or none ran.
int test_main(int argc, char **argv);
bool test_run(const Test *t); // one of them, with its line
void test_failed(const char *file, int line, const char *what, ...)
    __attribute__((format(printf, 3, 4)));
Ctx *test_ctx(void); // a fresh Ctx, freed after the test; os is NULL
// A directory of this test's own, the same at each call, empty at the first; removed after the test
// (kept when it failed).
const char *test_dir(void);
// The same numbers in each run of a test: its name is the seed, with $TEST_SEED when that is set.
uint64_t test_random(void);
// A limit of time, in any unit: longer by $LATHE_TEST_SLOWER, which a sanitizer's run sets.
int64_t test_longer(int64_t limit);

// clang-format off
#define TEST(name_)                                                                                \
    static void test_##name_(void);                                                                \
    __attribute__((constructor)) static void test_add_##name_(void) {                              \
        static Test t = { #name_, __FILE__, test_##name_, 0 };                                     \
        test_add(&t);                                                                              \
    }                                                                                              \
    static void test_##name_(void)
#define TEST_FAIL_(...)                                                                            \
    do { test_failed(__FILE__, __LINE__, __VA_ARGS__); return; } while (0)
#define CHECK(cond)                                                                                \
    do { if (!(cond)) TEST_FAIL_("%s", #cond); } while (0)
#define CHECK_INT(got, want)                                                                       \
    do { long long g_ = (long long)(got), w_ = (long long)(want);                                  \
        if (g_ != w_) TEST_FAIL_("%s is %lld, not %lld", #got, g_, w_); } while (0)
#define CHECK_STR(got, want)                                                                       \
    do { str g_ = (got), w_ = str_z(want);                                                         \
        if (!str_eq(g_, w_)) TEST_FAIL_("%s is \"" STR_FMT "\", not \"" STR_FMT "\"", #got,        \
                                        STR_ARG(g_), STR_ARG(w_)); } while (0)
#define CHECK_OK(c, x)                                                                             \
    do { if ((x) != ERR_OK) {                                                                      \
        Buf b_; buf_init(&b_, 4096); failure_format(&(c)->failure, "en", &b_);                     \
        test_failed(__FILE__, __LINE__, "%s failed: %s", #x, buf_z(&b_)); buf_done(&b_); return; } \
    } while (0)
#define CHECK_ERR(x, want)                                                                         \
    do { err e_ = (x); if (e_ != (want)) TEST_FAIL_("%s is %s, not %s", #x, err_row(e_)->name,     \
                                                    err_row(want)->name); } while (0)
// clang-format on
#endif
