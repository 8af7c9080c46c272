// SPDX-License-Identifier: Apache-2.0
// responses.h - the two halves of OpenAI's responses. Owner, threads: see dialect.h.
#ifndef LATHE_MOD_DIALECT_RESPONSES_H
#define LATHE_MOD_DIALECT_RESPONSES_H
#include "mod/dialect/dialect_own.h"

err responses_read_event(Reading *r, str event, yyjson_val *data);
err responses_read_whole(Reading *r, yyjson_val *root);
void responses_reading_free(void *state);
void responses_write_delta(Writing *w, const Delta *d);
void responses_write_whole(Writing *w, Json *out);
bool responses_read_error(yyjson_val *root, DialectError *out);
void responses_write_tool(const TalkTool *t, Json *j);
void responses_write_choice(const Talk *t, Json *j);

typedef struct ResponsesItem { // of output
    int64_t index, call;       // call -1: none
    bool told;                 // its text or arguments
} ResponsesItem;
typedef struct ResponsesReading {
    ResponsesItem *items;
    size_t n, cap;
    int64_t calls;
} ResponsesReading;
typedef struct ResponsesWriting {
    int64_t sequence;
    size_t items; // opened so far, each a piece of w->kept; the last one is under way while open
    bool open, part, begun, failed;
} ResponsesWriting;
#endif
