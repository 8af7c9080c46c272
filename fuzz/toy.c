// SPDX-License-Identifier: Apache-2.0
// toy.c - the tests' toy resources for fuzzers: a Ctx of theirs lives as long as the program.
// Threads: one.
#include "base/test.h"
Ctx *fuzz_ctx(void);
#define test_ctx fuzz_ctx
#include "res/toy_test.c"
#undef test_ctx

Ctx *fuzz_ctx(void) {
    Arena *a = arena_new();
    Ctx *c = new (a, Ctx, 1);
    ctx_init(c, a, NULL);
    return c;
}
