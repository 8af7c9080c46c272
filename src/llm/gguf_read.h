// SPDX-License-Identifier: Apache-2.0
// gguf_read.h - private to llm/: one checked pass over a GGUF header. It knows the format, not what
// a key means; gguf.c makes facts of it.
// Owner: all of a GgufHead lives in c->mem. Threads: one file a call.
#ifndef LATHE_LLM_GGUF_READ_H
#define LATHE_LLM_GGUF_READ_H
#include "llm/gguf.h"
#include "base/map.h"

typedef enum GgufType {
    GGUF_TYPE_U8,
    GGUF_TYPE_I8,
    GGUF_TYPE_U16,
    GGUF_TYPE_I16,
    GGUF_TYPE_U32,
    GGUF_TYPE_I32,
    GGUF_TYPE_F32,
    GGUF_TYPE_BOOL,
    GGUF_TYPE_TEXT,
    GGUF_TYPE_ARRAY,
    GGUF_TYPE_U64,
    GGUF_TYPE_I64,
    GGUF_TYPE_F64,
    GGUF_TYPE__COUNT,
} GgufType;
const char *gguf_type_name(GgufType t);

typedef struct GgufKey {
    str key;
    int64_t offset; // of the value in the file
    GgufType type;  // of the elements, for an array
    bool array;
    int64_t count;   // 1, or elements of the array
    int64_t integer; // whole numbers and booleans; above INT64_MAX it is INT64_MAX
    // Kept when within GGUF_LAYERS_MAX and GGUF_TEXT_MAX and what is left of GGUF_KEPT_MAX:
    int64_t *values; // of an array of whole numbers or booleans; else NULL
    str text;        // else absent
} GgufKey;

// A tensor type: `block` numbers take `bytes`. 0 block: not one that ggml reads (any more).
typedef struct GgufTensorType {
    const char *name;
    int block, bytes;
} GgufTensorType;
enum { GGUF_TENSOR_TYPES = 43 };
extern const GgufTensorType gguf_tensor_types[GGUF_TENSOR_TYPES];

typedef struct GgufHead {
    int64_t version, file_bytes, data_offset, tensors_n;
    int64_t elements, bytes;                  // of all tensors
    int64_t bytes_by_type[GGUF_TENSOR_TYPES]; // of their data
    Map *keys;                                // key → GgufKey
} GgufHead;

// Reads n bytes at offset, as file_read_at.
typedef err (*GgufRead)(Ctx *c, void *arg, int64_t offset, void *out, size_t n, size_t *out_got);
// ERR_INVALID with R_GGUF_BAD, or what `read` failed with.
err gguf_read(Ctx *c, GgufRead read, void *arg, int64_t file_bytes, GgufHead *out);
err gguf_bad(Ctx *c, int64_t offset, const char *why); // the refusal; `why` lives in c->mem
// What `gguf-facts PATH` prints, without the newline; what it returns is for the exit status.
err gguf_text(const char *path, Buf *out);
bool gguf_is_encoder(const GgufFacts *g);                     // by architecture: keeps no KV cache
const GgufKey *gguf_find(const GgufHead *h, const char *key); // NULL: absent
#endif
