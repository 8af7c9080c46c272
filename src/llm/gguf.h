// SPDX-License-Identifier: Apache-2.0
// gguf.h - facts from the header of a GGUF file (format versions 2 and 3; ggml docs/gguf.md), without loading a weight.
// The file is hostile until this has read it: every count, length and offset is checked against the file's size and a limit before it is
// trusted; a refusal says the byte offset and why. Runs in a sandboxed child (verb `gguf-facts`), which prints JSON.
// Threads: one file a call; no state.
#ifndef LATHE_LLM_GGUF_H
#define LATHE_LLM_GGUF_H
#include "base/json.h"
#include "os/file.h"

typedef struct GgufFacts {
    int64_t version, tensors, keys, file_bytes, data_offset;
    str architecture, name, quantisation, licence, chat_template, tokenizer, pooling, base_model;   // quantisation: "Q4_1", from general.file_type or the commonest tensor type
    int64_t parameters, context, embedding, layers, heads, heads_kv, key_length, value_length, vocabulary, feed_forward, experts;
    bool embedder;                               // architecture or pooling says that it is an embedding model
    bool can_chat;                               // has a chat template
} GgufFacts;
// ERR_INVALID with R_GGUF_BAD (offset, why) for anything that is not a whole, consistent GGUF.
err gguf_facts(Ctx *c, File *f, GgufFacts *out);
void gguf_facts_json(const GgufFacts *g, Json *j);           // one JSON object
// Bytes needed to serve: weights + KV cache + compute buffers (estimate; its formula and error against llama-server are in README.md).
int64_t gguf_memory_bytes(const GgufFacts *g, int64_t context, int64_t slots, const char *kv_type);

#define GGUF_REASONS(X) \
    X(GGUF_BAD, "gguf_invalid", "not a valid GGUF file: at byte {offset}, {why}", "不是有效的 GGUF 文件：第 {offset} 字节处 {why}")
REASONS_DECLARE(GGUF_REASONS)
extern const Reason *const gguf_reasons[];
#endif
