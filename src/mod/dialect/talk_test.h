// SPDX-License-Identifier: Apache-2.0
// talk_test.h - requests and answers by chance, of what a set of dialects can say, and their text
// for comparing. Owner: the test's arena. Threads: one.
#ifndef LATHE_MOD_DIALECT_TALK_TEST_H
#define LATHE_MOD_DIALECT_TALK_TEST_H
#include "mod/dialect/dialect_own.h"
#include "base/test.h"

typedef struct Chance {
    uint64_t state;
    Ctx *c;
    const Dialect *const *among; // what is made has the same place in all of them; NULL-terminated
} Chance;
uint64_t chance(Chance *r, uint64_t n); // below n
bool chance_can(const Chance *r, TalkField f);
Talk *chance_talk(Chance *r);
typedef struct Deltas {
    Delta all[512];
    size_t n;
} Deltas;
Deltas *chance_deltas(Chance *r);
// What of a Talk all the dialects keep as it is.
str talk_text(Ctx *c, const Talk *t, const Dialect *const *among);
str kept_print(Ctx *c, Kept *f);
#endif
