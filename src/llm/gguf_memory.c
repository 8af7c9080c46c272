// SPDX-License-Identifier: Apache-2.0
// gguf_memory.c - how many bytes llama-server will hold for a model: an estimate from the header
// alone, fitted to measurements (README.md).
// Owner: none. Threads: any.
#include "llm/gguf_read.h"
#include <assert.h>

static int64_t kv_type_bytes(const char *type) { // of 32 numbers
    for (int i = 0; type && i < GGUF_TENSOR_TYPES; i++) {
        const GgufTensorType *t = &gguf_tensor_types[i];
        if (t->block && str_ieq(str_z(type), str_z(t->name))) return t->bytes * 32 / t->block;
    }
    return 2 * 32;
}

// Sums and products that stay at INT64_MAX once they are there.
static int64_t mul(int64_t a, int64_t b) {
    int64_t n;
    return __builtin_mul_overflow(a, b, &n) ? INT64_MAX : n;
}
static int64_t add(int64_t a, int64_t b) {
    int64_t n;
    return __builtin_add_overflow(a, b, &n) ? INT64_MAX : n;
}

enum {
    BATCH = 512,            // tokens that the engine computes at a time (its --ubatch-size)
    CELLS = 256,            // the KV cache grows in steps of it
    FIXED_BYTES = 12 << 20, // measured: the program itself
    TOKEN_BYTES = 512,      // measured: a token of the vocabulary, with its merges
};

// Weights, cache and what all requests share.
static int64_t resting(const GgufFacts *g, int64_t cells, int64_t slots, const char *kv_type) {
    int64_t window = add(g->window, BATCH + CELLS - 1) / CELLS * CELLS;
    if (window > cells) window = cells;
    int64_t elements = add(mul(g->kv_elements, cells), mul(g->kv_window_elements, window));
    int64_t cache = mul(elements / 32 + 1, kv_type_bytes(kv_type));
    int64_t slot = add(cache, g->state_bytes);
    int64_t words = mul(TOKEN_BYTES, g->vocabulary);
    return add(add(g->tensor_bytes, mul(slot, slots)), add(FIXED_BYTES, words));
}

int64_t gguf_memory_bytes(const GgufFacts *g, int64_t context, int64_t slots, const char *kv_type) {
    assert(context >= 0 && slots >= 0);
    int64_t cells = add(context, CELLS - 1) / CELLS * CELLS;
    // Embedding computes a whole text at once, and has the engine keep the output of each token; of
    // a model that predicts tokens that is one number for each of the vocabulary, also on the way.
    int64_t batch = g->embedder && context > BATCH ? context : BATCH;
    int64_t outputs = g->embedder ? batch : slots;
    int64_t wide = add(mul(4, g->embedding), mul(3, g->feed_forward));
    int64_t last = add(mul(2, g->embedding), g->vocabulary);
    if (g->embedder && !gguf_is_encoder(g) && last > wide) wide = last;
    int64_t compute = add(mul(mul(4, batch), wide), mul(mul(2, batch), cells));
    int64_t output = mul(mul(4, g->vocabulary), outputs);
    return add(resting(g, cells, slots, kv_type), add(compute, output));
}
