// SPDX-License-Identifier: Apache-2.0
// gguf.h - facts from the header of a GGUF file, without loading a weight. Format versions 2 and 3,
// little-endian (the format: ggml's docs/gguf.md; what is stricter here is in README.md). The file
// is hostile until this has read it: every count, length and offset is checked against the file's
// size and a limit before it is trusted, and a refusal says the byte offset and why. Runs in a
// sandboxed child (verb `gguf-facts`), which prints JSON.
// Owner: texts of GgufFacts live in c->mem. Threads: one file a call; no state.
#ifndef LATHE_LLM_GGUF_H
#define LATHE_LLM_GGUF_H
#include "base/json.h"
#include "os/file.h"

// More is refused. Together they bound a call to 64 MiB of memory and one pass over GGUF_HEADER_MAX
// bytes, whatever the file claims.
enum {
    GGUF_HEADER_MAX = 128 << 20, // bytes before the tensor data
    GGUF_KEYS_MAX = 16384,
    GGUF_TENSORS_MAX = 65536,
    GGUF_KEY_MAX = 1024,     // bytes of a key
    GGUF_NAME_MAX = 63,      // bytes of a tensor's name: the most that ggml loads
    GGUF_TEXT_MAX = 1 << 20, // bytes of a text that becomes a fact; other texts may be longer
    GGUF_KEPT_MAX = 8 << 20, // bytes of all values kept while reading
    GGUF_LAYERS_MAX = 4096,
    GGUF_JSON_MAX =
        64 << 20, // what gguf_facts_json may write: escapes make a text six times longer
};

typedef struct GgufFacts {
    int64_t version, tensors, keys, file_bytes, data_offset;
    str architecture, name, licence, base_model, chat_template, tokenizer;
    str quantisation; // "Q4_1": from general.file_type, else the type that holds the most bytes
    str pooling;      // "none" "mean" "cls" "last" "rank"; absent: the file does not say
    // 0: the file does not say. Where layers differ: the largest.
    int64_t parameters, context, embedding, layers, heads, heads_kv, key_length, value_length;
    int64_t vocabulary, feed_forward, experts;
    bool embedder; // architecture or pooling says that it is an embedding model
    bool can_chat; // has a chat template
    // What memory depends on.
    int64_t tensor_bytes;       // all weights
    int64_t kv_elements;        // numbers that a token of context keeps in the KV cache
    int64_t kv_window_elements; // the same, in layers that keep the last `window` tokens only
    int64_t window;
    int64_t state_bytes; // of recurrent layers, each slot
} GgufFacts;

// ERR_INVALID with R_GGUF_BAD (offset, why) for anything that is not a whole, consistent GGUF.
// c->os gives the seed of hash tables.
err gguf_facts(Ctx *c, File *f, GgufFacts *out);
err gguf_facts_bytes(Ctx *c, str file, GgufFacts *out); // the same of a file in memory
void gguf_facts_json(const GgufFacts *g, Json *j);      // one JSON object
// Back from that object, which a child that read a hostile file has written: false unless every
// field is there with its type and no number is negative. Texts point into `obj`.
bool gguf_facts_parse(yyjson_val *obj, GgufFacts *out);
// Bytes needed to serve with `slots` requests at a time of up to `context` tokens EACH (for
// llama-server --ctx-size is the product): weights, KV cache, compute buffers, vocabulary. An
// estimate; its formula and its error against llama-server are in README.md. To serve embeddings
// from a model that is no embedder, set `embedder` in the copy that is asked about. kv_type: "f16",
// "q8_0", …; NULL or unknown: f16. INT64_MAX when it overflows.
int64_t gguf_memory_bytes(const GgufFacts *g, int64_t context, int64_t slots, const char *kv_type);

// `lathe gguf-facts PATH`: the facts as JSON on standard output and 0, or
// {"error":{"reason":…,"offset":…,"why":…}} and the error's exit status. PATH is the last argument.
int gguf_main(int argc, char **argv);

// clang-format off
#define GGUF_REASONS(X) \
    X(GGUF_BAD, "gguf_invalid", "not a valid GGUF file: at byte {offset}, {why}", \
      "不是有效的 GGUF 文件：第 {offset} 字节处 {why}")
// clang-format on
REASONS_DECLARE(GGUF_REASONS)
extern const Reason *const gguf_reasons[];
#endif
