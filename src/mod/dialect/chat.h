// SPDX-License-Identifier: Apache-2.0
// chat.h - what OpenAI's two dialects share, and the two halves of chat completions. Owner,
// threads: see dialect.h.
#ifndef LATHE_MOD_DIALECT_CHAT_H
#define LATHE_MOD_DIALECT_CHAT_H
#include "mod/dialect/dialect_own.h"

// ---- requests
extern const unsigned part_kinds[];  // by role, bits of PartKind
extern const Member function_rows[]; // of a TalkTool
extern const Member schema_rows[];   // of a Talk
ReadMember read_tools, read_parallel, read_schema, read_format_type, read_effort;
err read_choice_word(In *in, const At *at, str word);
err image_at(In *in, const At *at, const char *member,
             TalkPart *p);                                         // p->url and p->detail were read
err document_at(In *in, const At *at, str file_data, TalkPart *p); // p->url may have been read
void calls_last(Ctx *c, TalkMessage *m);
void write_image_url(const To *to, const char *key, const TalkPart *p); // key: of the URL
void write_file_data(const To *to, const TalkPart *p);
void write_function(const TalkTool *t, Json *j); // members, but for "strict"
void write_schema(const Talk *t, Json *j);
str choice_word(Choose c);

// ---- answers
err chat_read_event(Reading *r, str event, yyjson_val *data);
err chat_read_whole(Reading *r, yyjson_val *root);
void chat_write_delta(Writing *w, const Delta *d);
void chat_write_whole(Writing *w, Json *out);
void openai_write_error(const DialectError *e, Json *out);
bool openai_read_error(yyjson_val *root, DialectError *out);
const char *openai_type(err how);
typedef struct ChatReading ChatReading;
typedef struct ChatWriting ChatWriting;
#define CHAT_ANSWERS                                                                               \
    .read_event = chat_read_event, .read_whole = chat_read_whole, .write_delta = chat_write_delta, \
    .write_whole = chat_write_whole, .reading_free = chat_reading_free,                            \
    .reading_size = sizeof(ChatReading), .writing_size = sizeof(ChatWriting)

typedef struct ChatCall {
    int64_t choice, index, call;
    uint64_t id; // hash of it
    bool has_arguments;
} ChatCall;
struct ChatReading {
    ChatCall *calls;
    size_t n, cap;
};
void chat_reading_free(void *state);
struct ChatWriting {
    bool begun[DIALECT_CHOICES_MAX], used;
    TokenUse usage;
};
#endif
