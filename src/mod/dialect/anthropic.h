// SPDX-License-Identifier: Apache-2.0
// anthropic.h - the two halves of Anthropic's messages. Owner, threads: see dialect.h.
#ifndef LATHE_MOD_DIALECT_ANTHROPIC_H
#define LATHE_MOD_DIALECT_ANTHROPIC_H
#include "mod/dialect/dialect_own.h"

// What hides a thought from readers is its data, and stands among signatures with this before it.
#define REDACTED "redacted_thinking:"
str redacted_data(str signature); // absent: it is a signature

err anthropic_read_event(Reading *r, str event, yyjson_val *data);
err anthropic_read_whole(Reading *r, yyjson_val *root);
void anthropic_reading_free(void *state);
void anthropic_write_delta(Writing *w, const Delta *d);
void anthropic_write_whole(Writing *w, Json *out);
void anthropic_write_error(const DialectError *e, Json *out);
bool anthropic_read_error(yyjson_val *root, DialectError *out);

typedef struct AnthropicBlock {
    int64_t index, call; // call -1: no tool's
    bool has_input;
} AnthropicBlock;
typedef struct AnthropicReading {
    AnthropicBlock *blocks;
    size_t n, cap;
    int64_t calls, input, cached, cache_written, output, reasoning;
    bool used; // the prompt's count was seen
} AnthropicReading;
typedef struct AnthropicWriting {
    DeltaKind open; // kind of the block under way; END: none
    int64_t blocks; // begun so far
    int32_t block_of[DIALECT_CALLS_MAX];
    Finish finish;
    bool begun, closed;
    TokenUse usage;
} AnthropicWriting;
#endif
