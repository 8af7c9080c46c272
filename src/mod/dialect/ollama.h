// SPDX-License-Identifier: Apache-2.0
// ollama.h - Ollama's chat and generate: their requests and their answers. Owner, threads: see
// dialect.h.
#ifndef LATHE_MOD_DIALECT_OLLAMA_H
#define LATHE_MOD_DIALECT_OLLAMA_H
#include "mod/dialect/dialect_own.h"

err ollama_read_event(Reading *r, str event, yyjson_val *data);
err ollama_read_whole(Reading *r, yyjson_val *root);
void ollama_write_delta(Writing *w, const Delta *d);
void ollama_write_whole(Writing *w, Json *out);
void ollama_write_error(const DialectError *e, Json *out);
bool ollama_read_error(yyjson_val *root, DialectError *out);

typedef struct OllamaReading {
    int64_t calls;
} OllamaReading;
typedef struct OllamaWriting {
    size_t calls; // pieces of w->kept that were told, if they are calls
    bool failed;
} OllamaWriting;
#endif
