// SPDX-License-Identifier: Apache-2.0
// fuzz.h - what fuzzers share: their entry, and what holds for every refusal. FUZZ(name) { … } has
// `bytes`. With libFuzzer it is its entry; else it joins the list that replay.c runs over the
// corpora. A line `// Covers: FILE …` in a fuzzer names the sources whose coverage is reported.
// Threads: one.
#ifndef LATHE_FUZZ_FUZZ_H
#define LATHE_FUZZ_FUZZ_H
#include "base/json.h"
#include <assert.h>
#include <stdlib.h>

typedef struct Fuzzer {
    const char *name;
    void (*run)(str bytes);
    struct Fuzzer *next;
} Fuzzer;

#ifdef FUZZ_REPLAY
void fuzzer_add(Fuzzer *f);
#define FUZZ(name_)                                                \
    static void fuzz_run(str bytes);                               \
    __attribute__((constructor)) static void fuzz_register(void) { \
        static Fuzzer f = { #name_, fuzz_run, NULL };              \
        fuzzer_add(&f);                                            \
    }                                                              \
    static void fuzz_run(str bytes)
#else
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
#define FUZZ(name_)                                                             \
    static void fuzz_run(str bytes);                                            \
    int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {              \
        uint8_t *exact = malloc(size ? size : 1);                               \
        assert(exact);                                                          \
        if (size) memcpy(exact, data, size);                                    \
        fuzz_run(str_n(exact, size)); /* its end is the sanitizer's to guard */ \
        free(exact);                                                            \
        return 0;                                                               \
    }                                                                           \
    static void fuzz_run(str bytes)
#endif

// A refusal of what came from outside has a reason, whose sentences are text that JSON can hold.
static inline void fuzz_refused(Ctx *c, err e, err want) {
    static const char *const langs[] = { "en", "zh" };
    assert(e == want && c->failure.code == e && c->failure.why);
    for (size_t i = 0; i < countof(langs); i++) {
        Buf text, json;
        yyjson_val *v;
        buf_init(&text, 1 << 16), buf_init(&json, 1 << 19);
        failure_format(&c->failure, langs[i], &text);
        assert(text.n && !text.full);
        buf_add_json(&json, buf_str(&text));
        Ctx in;
        ctx_init(&in, c->mem, c->os);
        err bad = json_parse(&in, buf_str(&json), &v);
        assert(!bad && yyjson_is_str(v));
        buf_done(&text), buf_done(&json);
    }
}

// The first byte, which chooses something; 0 when there is none.
static inline unsigned fuzz_choice(str *bytes) {
    if (!bytes->n) return 0;
    unsigned first = (uint8_t)*bytes->p;
    *bytes = str_sub(*bytes, 1, bytes->n);
    return first;
}
#endif
