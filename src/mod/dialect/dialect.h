// SPDX-License-Identifier: Apache-2.0
// dialect.h - the dialects in which models are asked and answer, one row each, and the translation
// of a request and its answer from any to any. Where both sides speak one dialect nothing here is
// needed but reading an answer's figures: bytes pass as they came. What a dialect has no place for
// is an error that names the client's member, never a silent drop; docs/dialects.md says what is
// mapped, what only nearly, and what was checked against published shapes alone. Owner: the
// caller's arena, but for Reading and Writing, which free their own. Threads: one at a time for
// each object; rows are constants.
#ifndef LATHE_MOD_DIALECT_DIALECT_H
#define LATHE_MOD_DIALECT_DIALECT_H
#include "mod/dialect/talk.h"

typedef struct Dialect Dialect;
enum { DIALECT_CHOICES_MAX = 128, DIALECT_CALLS_MAX = 128 };

// What providers of one dialect say differently; {0} is the dialect as its maker speaks it.
typedef enum {
    THINK_PLAIN,   // openai.chat: reasoning_effort; anthropic: thinking.budget_tokens
    THINK_TYPE,    // openai.chat: thinking.type (DeepSeek, GLM, Kimi, Doubao)
    THINK_ENABLE,  // openai.chat: enable_thinking, thinking_budget (Qwen)
    THINK_OBJECT,  // openai.chat: reasoning{effort, max_tokens} (OpenRouter)
    THINK_ADAPTIVE // anthropic: thinking.type "adaptive" and output_config.effort
} ThinkStyle;
typedef struct Accent {
    int64_t output_default; // for a dialect that must be told a maximum (anthropic); 0: 4096
    ThinkStyle think;
    bool old_max; // openai.chat: max_tokens, not max_completion_tokens
    bool counts;  // openai.chat: llama-server, which can tell its counts in each event
    bool
        past_reasoning; // openai.chat: reasoning of earlier answers is wanted, as reasoning_content
} Accent;

// A client's request. ERR_INVALID: R_DIALECT_MEMBER for a member that is not known, R_FIELD_TYPE
// and the like
// (res/resource.h) for what is of another type; {field} is the member's path.
err dialect_read(Ctx *c, const Dialect *d, yyjson_val *root, Talk *out);
// For an upstream. ERR_INVALID with R_DIALECT_PLACE: {field} as the client named it, and the
// dialect that lacks it.
err dialect_write(Ctx *c, const Dialect *d, const Accent *a, const Talk *t, Json *out);

// ---- answers on their way from an upstream
// Reading: the state of one answer. Every text of a Delta is borrowed for the call.
typedef struct Reading {
    const Dialect *dialect;
    Ctx *c; // for what is parsed; the caller may reset its arena between events
    void (*tell)(void *arg, const Delta *d);
    void *arg;
    str made;                    // in the ids of calls that came without one; no other answer's
    void *state;                 // the dialect's own; freed by reading_done
    bool begun, finished, ended; // BEGIN was told; FINISH of a choice; END or ERROR
} Reading;
void reading_init(Reading *r, const Dialect *d, Ctx *c, void (*tell)(void *arg, const Delta *d),
                  void *arg);
// One event of a stream (SSE: its name, or absent; NDJSON: a line). ERR_UPSTREAM with
// R_DIALECT_SHAPE: it is not of this dialect, or no JSON. Events that the dialect's own clients
// ignore tell nothing, nor does what follows the end.
err reading_event(Reading *r, str event, str data);
err reading_whole(Reading *r,
                  yyjson_val *root); // an answer in one piece: all its deltas, BEGIN to END
// The stream's bytes are at their end: END where only its mark is missing, else ERROR with
// ERR_UPSTREAM.
void reading_close(Reading *r);
void reading_done(Reading *r);

// ---- answers on their way to a client
typedef struct Kept Kept;
typedef struct Writing {
    const Dialect *dialect;
    const Talk *asked;
    str id, model; // what the client is told; the upstream's own are not its business
    int64_t created_s;
    int64_t total_ns, first_ns; // for dialects that tell them; set before END. To the first token
    void (*event)(void *arg, str event, str data); // event absent: the framing has none; borrowed
    void *arg;
    Kept *kept; // what is kept
    Buf out;    // of the event under way
    Buf head;   // what each of its events begins with
    void *state;
} Writing;
void writing_init(Writing *w, const Dialect *d,
                  const Talk *asked);           // then set the members from id to arg
void writing_delta(Writing *w, const Delta *d); // as events; one delta may be none or several
// For an answer in one piece, instead: deltas are kept, and written when the last one was. False:
// it grew too large.
bool writing_keep(Writing *w, const Delta *d);
void writing_whole(Writing *w, Json *out);
void writing_done(Writing *w);

// ---- errors
typedef struct DialectError {
    err how;
    str code, message, field, request_id; // field, request_id may be absent
} DialectError;
DialectError dialect_error_of(Ctx *c); // the context's failure, in its language
void dialect_write_error(const Dialect *d, const DialectError *e, Json *out);
bool dialect_read_error(const Dialect *d, yyjson_val *root, DialectError *out); // false: it is none

// ---- rows
typedef enum { FRAMING_SSE, FRAMING_SSE_NAMED, FRAMING_NDJSON } Framing;
void framing_add(Framing f, str event, str data, Buf *out); // an event as it goes over the wire

// NEAR: said with other words, so reading it back may differ. ALWAYS: so it is in any case. MOOT:
// it asks nothing of the answer, and is left out.
typedef enum { PLACE_NONE, PLACE_SAME, PLACE_NEAR, PLACE_ALWAYS, PLACE_MOOT } PlaceKind;
typedef struct DialectPlace {
    PlaceKind kind;
    const char *member; // SAME, NEAR: by which this dialect says it ("options.top_k")
} DialectPlace;
typedef struct DialectWays DialectWays; // the functions of a dialect (dialect_own.h)
struct Dialect {
    const char
        *name; // "openai.chat", "openai.responses", "anthropic", "ollama.chat", "ollama.generate"
    const char *path; // below a provider's base URL
    const char
        *request_id; // header where its clients look for it, beside ours; NULL: there is none
    Framing framing;
    DialectPlace place[TALK__COUNT];
    const char *const
        *moot; // members that are left out when translating, since they ask nothing of a model
    const DialectWays *ways;
    const char *en, *zh;
};
extern const Dialect *const dialects[]; // ends with NULL
const Dialect *dialect_find(str name);
const char *talk_field_name(TalkField f); // "output_max"

// clang-format off
#define DIALECT_REASONS(X) \
    X(DIALECT_PLACE, "no_place_in_dialect", \
      "field {field} cannot be said to this model's server, which speaks {dialect}: leave it " \
        "out, or ask a model " \
      "whose server takes it", \
      "字段 {field} 无法转换为该模型服务所用的 {dialect} 接口：请去掉该字段，或改用支持它的模型") \
    X(DIALECT_MEMBER, "unknown_member", \
      "field {field} is not known in {dialect}, so it cannot be translated for this model's " \
        "server", \
      "{dialect} 接口中没有字段 {field}，无法为该模型的服务转换") \
    X(DIALECT_ROOM, "no_room_to_reason", \
      "field {field} needs an output of more than {least} tokens, and {most} are allowed", \
      "字段 {field} 需要超过 {least} 个 token 的输出，而允许的只有 {most} 个") \
    X(DIALECT_SHAPE, "not_of_dialect", "the answer is not of {dialect}: {why}", \
      "应答不符合 {dialect} 接口：{why}")
// clang-format on
REASONS_DECLARE(DIALECT_REASONS)
extern const Reason *const dialect_reasons[];
#endif
