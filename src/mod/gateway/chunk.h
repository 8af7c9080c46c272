// SPDX-License-Identifier: Apache-2.0
// chunk.h - private to gateway: a stream's ordinary event read without a document (OpenAI platform
// documentation, "The chat completion chunk object"; completions alike).
#ifndef LATHE_MOD_GATEWAY_CHUNK_H
#define LATHE_MOD_GATEWAY_CHUNK_H
#include "base/str.h"

typedef struct Chunk {
    str id, text; // within the event's text; absent: it has none
} Chunk;
// True for one object of known members, one choice, no usage, nothing that ends a choice, and text
// that stands as it is (no escapes): JSON that a parser takes too, and reads the same in. False:
// anything else, which may be JSON all the same. Pure.
bool chunk_read(str data, Chunk *out);
#endif
