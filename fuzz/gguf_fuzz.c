// SPDX-License-Identifier: Apache-2.0
// gguf_fuzz.c - libFuzzer's entry to the GGUF reader: any bytes give facts, or a refusal in them.
// The corpus in fuzz/corpus/gguf is replayed by gguf_test.c as well.
// Threads: one.
// Covers: src/llm/gguf.c src/llm/gguf_read.c src/llm/gguf_memory.c
#include "fuzz.h"
#include "llm/gguf.h"

FUZZ(gguf) {
    Ctx c;
    GgufFacts g, back;
    ctx_init(&c, arena_new(), os_real());
    err e = gguf_facts_bytes(&c, bytes, &g);
    if (e) {
        int64_t offset = -1;
        assert(e == ERR_INVALID && c.failure.why == &R_GGUF_BAD);
        assert(str_to_i64(failure_param(&c.failure, "offset"), &offset));
        assert(offset >= 0 && (size_t)offset <= bytes.n);
    } else {
        Buf b;
        yyjson_val *root;
        buf_init(&b, GGUF_JSON_MAX);
        Json j = json_to(&b);
        gguf_facts_json(&g, &j);
        assert(!b.full && !json_parse(&c, buf_str(&b), &root));
        assert(gguf_facts_parse(root, &back) && back.kv_elements == g.kv_elements);
        assert(gguf_memory_bytes(&g, g.context, 4, "q8_0") >= g.tensor_bytes);
        buf_done(&b);
    }
    arena_free(c.mem);
}
