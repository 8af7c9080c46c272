// SPDX-License-Identifier: Apache-2.0
// advice.h - what is no error, but what whoever makes or changes something should be told: shown as
// `warnings` of that one answer, kept nowhere. Rows of a module give it (Module.advise), of their
// own resources and of others'. Owner: texts in c->mem. Threads: within the caller's transaction.
#ifndef LATHE_RES_ADVICE_H
#define LATHE_RES_ADVICE_H
#include "res/module.h"

enum { ADVICE_MAX = 8 };
typedef struct Advice {
    const char *slugs[ADVICE_MAX];
    str texts[ADVICE_MAX]; // sentences in the caller's language
    size_t n;
} Advice;

// advice_add(c, out, R_PRICE_IDLE, "model", name): parameters as of fail(). What is more than
// ADVICE_MAX is left out.
#define advice_add(c, to, reason, ...) \
    advice_add_((c), (to), &(reason),  \
                (const char *const[]){ __VA_ARGS__ __VA_OPT__(, ) NULL, NULL })
void advice_add_(Ctx *c, Advice *to, const Reason *why, const char *const kv[]);
// Of every module, of a row as it is now. Fails only where SQL does.
err advice_of(Ctx *c, Tx *tx, const Resource *r, const void *now, Advice *out);
// Puts them into an object's JSON, as its last member; none: the same text.
str advice_join(Ctx *c, const Advice *a, str object);
#endif
