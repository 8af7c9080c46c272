// SPDX-License-Identifier: Apache-2.0
// talk.h - one request to a model and its answer in no dialect: what a dialect's reader makes of
// its JSON, and a writer makes its JSON of. A request is a Talk; an answer is a row of Deltas in
// the order in which it was made, whether it came in pieces or whole. Owner: everything lies in, or
// points into what lies in, the arena that it was read with. Threads: one at a time.
#ifndef LATHE_MOD_DIALECT_TALK_H
#define LATHE_MOD_DIALECT_TALK_H
#include "base/json.h"

// ---- the request

// Whatever a request may say. A reader notes by which of its own names a client said it; a writer
// whose dialect has no place for it refuses by that name: so nothing is dropped unsaid. What only
// says again what would be done anyway (n 1, a penalty of 0) is not noted.
// clang-format off
#define TALK_FIELDS(X) \
    X(MODEL) X(STREAM) X(STREAM_USAGE) X(OUTPUT_MAX) X(TEMPERATURE) X(TOP_P) X(TOP_K) X(MIN_P) \
    X(STOP) X(SEED) X(CHOICES) X(LOGPROBS) X(TOP_LOGPROBS) X(PRESENCE) X(FREQUENCY) \
    X(LOGIT_BIAS) X(USER) X(METADATA) X(VERBOSITY) X(PREVIOUS) X(STORE) X(TURNS) X(TOOLS) \
    X(STRICT_TOOLS) X(TOOL_CHOICE) X(SERIAL_TOOLS) X(JSON) X(SCHEMA) X(REASONING) X(IMAGES) \
    X(IMAGE_URLS) X(IMAGE_DETAIL) X(DOCUMENTS) X(DOCUMENT_URLS) X(TEXT_DOCUMENTS) X(NAMES) \
    X(TOOL_ERRORS) X(RESULT_IMAGES) X(CACHE_MARKS) X(PAST_REASONING) X(SIGNATURES)
#define X(name) TALK_##name,
typedef enum { TALK_FIELDS(X) TALK__COUNT } TalkField;
#undef X
// clang-format on

typedef enum { ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT, ROLE_TOOL } TalkRole; // developer is system
typedef enum {
    PART_TEXT,
    PART_IMAGE,
    PART_DOCUMENT,
    PART_CALL,      // the model asks for a tool
    PART_RESULT,    // what the tool gave
    PART_REASONING, // of an earlier answer
    PART_REFUSAL
} PartKind;
typedef struct TalkPart {
    PartKind kind;
    str text; // TEXT, REASONING, REFUSAL; DOCUMENT: where it is plain text
    str url;  // IMAGE, DOCUMENT: where it lies; absent: it is in data
    str data,
        media_type;  // IMAGE, DOCUMENT: base64 as it came; "image/png", absent where nobody said
    str detail;      // IMAGE: "low", "high"; absent: not said
    str id, name;    // CALL: its id and function; RESULT: of the call; DOCUMENT: name is its title
    str arguments;   // CALL: JSON text; "{}" when there are none
    str signature;   // REASONING: proof of whoever made it; without text it is hidden from readers
    bool is_error;   // RESULT
    bool cache_mark; // what lies before and this may be cached
    struct TalkPart *parts; // RESULT: TEXT and IMAGE
    size_t parts_n;
} TalkPart;
typedef struct TalkMessage {
    TalkRole role; // TOOL: exactly one RESULT
    str name;      // who of several speaks
    TalkPart *parts;
    size_t parts_n;
} TalkMessage;

typedef struct TalkTool {
    str name, description;
    yyjson_val *schema; // of its arguments; NULL: none
    int strict;         // -1: not said
    bool cache_mark;
} TalkTool;
typedef enum { CHOOSE_AUTO, CHOOSE_NONE, CHOOSE_ANY, CHOOSE_ONE } Choose;
typedef enum { FORMAT_TEXT, FORMAT_JSON, FORMAT_SCHEMA } FormatKind;

typedef struct Talk {
    const char *said[TALK__COUNT]; // by which name, for messages; NULL: not said
    str model, user, verbosity, previous;
    TalkMessage *messages;
    size_t messages_n;
    int stream, stream_usage, logprobs, store, serial_tools; // -1: not said
    int64_t output_max, top_k, seed, choices, top_logprobs;  // UNSET_INT (res/field.h)
    double temperature, top_p, min_p, presence, frequency;   // NaN
    str *stop;
    size_t stop_n;
    yyjson_val *logit_bias, *metadata;
    TalkTool *tools;
    size_t tools_n;
    Choose choose;
    str chosen; // CHOOSE_ONE
    FormatKind format;
    str format_name, format_description;
    yyjson_val *schema;
    int format_strict; // -1: not said
    struct {
        int on;         // -1: not said
        str effort;     // "minimal" "low" "medium" "high" "xhigh"; absent: not said
        int64_t tokens; // at most; UNSET_INT
        str summary;    // "auto" "concise" "detailed"; absent: not said
    } reasoning;
} Talk;

// ---- the answer

typedef enum {
    DELTA_BEGIN,     // id, model
    DELTA_TEXT,      // text, logprobs
    DELTA_REASONING, // text
    DELTA_SIGNATURE, // text: of the reasoning before it; of hidden reasoning where there is none
    DELTA_REFUSAL,   // text
    DELTA_CALL,      // call, id, name: a tool call begins
    DELTA_ARGUMENTS, // call, text: JSON, or a part of it
    DELTA_FINISH,    // finish, stop: of this choice
    DELTA_USAGE,     // usage: sums so far; the last one counts. so_far: more is to come
    DELTA_ERROR,     // how, text: why, name: the upstream's own code. Nothing comes after it
    DELTA_END,       // the answer is whole
} DeltaKind;
typedef enum {
    FINISH_NONE,
    FINISH_STOP,
    FINISH_LENGTH,
    FINISH_WINDOW, // the context is full
    FINISH_CALLS,
    FINISH_FILTER,
    FINISH_REFUSAL,
    FINISH_PAUSE // to be asked again with what there is
} Finish;
typedef struct
    TokenUse { // of one answer; prompt contains cached and cache_written, completion reasoning
    int64_t prompt, cached, cache_written, completion, reasoning;
} TokenUse;
typedef struct Delta {
    DeltaKind kind;
    Finish finish;
    err how;
    int64_t choice; // 0 for dialects that have one answer
    int64_t call;   // of the choice, from 0
    str text, id, name;
    str stop;             // FINISH_STOP: the stop sequence, where it is known
    yyjson_val *logprobs; // a list in OpenAI's form, or NULL
    bool so_far;          // USAGE: its server counts as it goes
    bool prompt_only;     // USAGE: before the answer
    TokenUse usage;
} Delta;
#endif
