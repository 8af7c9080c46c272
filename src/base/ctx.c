// SPDX-License-Identifier: Apache-2.0
// ctx.c - starting a call, and saying once why it failed. ctx_check is in os/: it needs a clock.
// Owner and threads: see ctx.h.
#include "ctx.h"
#include <assert.h>

REASONS_DEFINE(BASE_REASONS, base_reasons)

enum { SAY_MAX = 200 };

void ctx_init(Ctx *c, Arena *mem, struct Os *os) {
    assert(mem);
    memset(c, 0, sizeof *c);
    atomic_init(&c->cancelled, false);
    c->mem = mem;
    c->os = os;
    c->lang = "en";
}

err fail_(Ctx *c, err e, const Reason *why, const char *const kv[]) {
    assert(e != ERR_OK && (unsigned)e < ERR__COUNT && why);
    Failure f = { .code = e, .why = why };
    size_t n = 0;
    for (; kv[2 * n]; n++) {
        assert(n < FAILURE_PARAMS);
        const char *val = kv[2 * n + 1];
        f.key[n] = kv[2 * n];
        f.val[n] = arena_str(c->mem, str_z(val ? val : "")); // may be of the failure replaced
    }
    c->failure = f;
    return e;
}

Failure failure_copy(Arena *to, const Failure *from) {
    Failure f = *from;
    for (size_t i = 0; i < FAILURE_PARAMS && f.key[i]; i++) f.val[i] = arena_str(to, from->val[i]);
    return f;
}

const char *say(Ctx *c, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    str s = arena_vprintf(c->mem, fmt, args);
    va_end(args);
    return s.p;
}

const char *say_str(Ctx *c, str s) {
    size_t keep = s.n;
    if (s.n > SAY_MAX) {
        keep = SAY_MAX;
        while (keep && ((unsigned char)s.p[keep] & 0xc0) == 0x80) keep--; // not inside a character
        if (keep < SAY_MAX - 3) keep = SAY_MAX;                           // not UTF-8 at all
    }
    char *z = arena_alloc(c->mem, keep + sizeof "…", 1);
    for (size_t i = 0; i < keep; i++) z[i] = s.p[i] ? s.p[i] : '?';
    if (keep < s.n) memcpy(z + keep, "…", sizeof "…");
    return z;
}

void ctx_cancel(Ctx *c) { atomic_store_explicit(&c->cancelled, true, memory_order_relaxed); }
