// SPDX-License-Identifier: Apache-2.0
// dialect_own.h - what the dialects share: a walk over a request's members that knows where it is,
// answers kept in pieces, and the functions of each dialect. Owner, threads: see dialect.h.
#ifndef LATHE_MOD_DIALECT_OWN_H
#define LATHE_MOD_DIALECT_OWN_H
#include "mod/dialect/dialect.h"
#include "res/resource.h"

// ---- requests, read
// Where a value stands: links on the stack, written out only for an error or a note.
typedef struct At {
    const struct At *up; // NULL: at the top
    const char *key;     // NULL: an element
    size_t index;
} At;
const char *at_text(Ctx *c, const At *at); // "messages[2].content[0].type"

typedef struct In {
    Ctx *c;
    const Dialect *d;
    Talk *t;
    size_t room;             // of t->messages
    size_t turns;            // messages that are no system's
    const TalkPart *calling; // the message whose results may follow
    size_t calling_n;
    bool answered[DIALECT_CALLS_MAX]; // of its calls
} In;
// What a member holds goes to `into`; null is as if it were missing.
typedef err ReadMember(In *in, const At *at, yyjson_val *v, void *into);
typedef struct Member {
    const char *name;
    ReadMember *read; // NULL: it is left out
    size_t offset;    // of `into` in the struct that is read
} Member;             // lists end with {0}
// Every member of obj by its row; one without is R_DIALECT_MEMBER.
err read_members(In *in, const At *at, yyjson_val *obj, const Member *rows, void *into);
// The same for a Talk's scalars, which stand at `prefix` and a plain name, and for what has a row.
err read_scalars(In *in, const At *at, yyjson_val *obj, const char *prefix, const Member *rows);
ReadMember read_text, read_bool, read_i64, read_f64, read_value,
    read_object;         // str, int, …, yyjson_val *
ReadMember read_stop;    // a text or a list of them, into Talk
ReadMember read_nothing; // for members that were looked at before
err at_wrong(In *in, const At *at, const char *want, yyjson_val *got);
err at_enum(In *in, const At *at, const char *names, str got);
err at_unknown(In *in, const At *at);
err at_missing(In *in, const At *at, const char *member);
void said(In *in, TalkField f, const At *at); // the first place counts
#define SAID(in, f, at) said((in), TALK_##f, (at))
TalkMessage *add_message(In *in, TalkRole role, const At *at, size_t parts_max);
TalkPart *add_part(TalkMessage *m, PartKind kind);
bool data_url(str url, str *out_media_type, str *out_data); // "data:image/png;base64,…"
str effort_of_budget(int64_t tokens, int64_t output_max);
int64_t budget_of_effort(str effort, int64_t output_max);
str talk_effort(const Talk *t); // an effort for what is asked: never absent, "none" for off

// ---- requests, written
typedef struct To {
    Ctx *c;
    const Dialect *d;
    const Accent *a;
    const Talk *t;
    Json *j;
} To;
// Scalars whose place is `prefix` and a plain name, but for those of the mask.
void write_scalars(const To *to, const char *prefix, uint64_t but);
#define BUT(f) ((uint64_t)1 << TALK_##f)
void write_texts(Json *j, const str *texts, size_t n);
void put_object(str json, Json *j); // a call's arguments: an object, or one that holds what is none
str parts_text(Ctx *c, const TalkPart *parts,
               size_t n);                        // texts, one after the other on lines of their own
str result_text(Ctx *c, const TalkPart *result); // with "Error: " before that of a failed tool
str call_name(const Talk *t, size_t before, str id); // the function of a call in an earlier message

// ---- answers
err not_of(Reading *r, const char *why); // ERR_UPSTREAM
void tell(Reading *r, const Delta *d);
void tell_text(Reading *r, DeltaKind kind, int64_t choice, str text); // nothing for an empty one
int64_t count_of(yyjson_val *obj,
                 const char *key); // tokens: 0 when missing, within what can be one
str made_id(Reading *r, int64_t choice, int64_t call); // in the arena

typedef struct Piece {
    DeltaKind kind; // TEXT, REASONING, REFUSAL, CALL
    int64_t choice, call;
    Buf text, signature, id, name, logprobs; // logprobs: elements, comma separated
} Piece;
struct Kept {
    Piece *pieces;
    size_t n, cap, size_bytes;
    int64_t choices; // as many as have pieces or an end
    Finish finish[DIALECT_CHOICES_MAX];
    Buf stop;
    TokenUse usage;
    bool full;
};
Kept *kept_new(void);
Kept *kept_free(Kept *f);
bool kept_add(Kept *f, const Delta *d);
Piece *kept_last(Kept *f, DeltaKind kind, int64_t choice, int64_t call); // NULL: none
str kept_text(const Piece *p); // of a call: "{}" when it has none

// The event under way in w->out.
#define OUT(w, lit) buf_add(&(w)->out, S(lit))
void out_str(Writing *w, str s); // as JSON
void out_i64(Writing *w, int64_t n);
void out_send(Writing *w, const char *event); // NULL: it has no name

// ---- dialects
struct DialectWays {
    err (*read_request)(In *in, yyjson_val *root);
    err (*write_request)(const To *to);
    err (*read_event)(Reading *r, str event, yyjson_val *data); // data NULL: "[DONE]"
    err (*read_whole)(Reading *r, yyjson_val *root);
    void (*write_delta)(Writing *w, const Delta *d);
    void (*write_whole)(Writing *w, Json *out); // of w->kept
    size_t reading_size, writing_size;          // of their states; both are zeroed at first
    void (*write_error)(const DialectError *e, Json *out);
    bool (*read_error)(yyjson_val *root, DialectError *out);
    void (*reading_free)(void *state); // what its state holds; NULL: nothing
    bool folds; // its stream needs what was said before: w->kept is kept for it
};
// Of a row's places.
#define SAME(f, m) [TALK_##f] = { PLACE_SAME, m }
#define NEAR(f, m) [TALK_##f] = { PLACE_NEAR, m }
#define MOOT(f) [TALK_##f] = { PLACE_MOOT, NULL }
#define ALWAYS(f) [TALK_##f] = { PLACE_ALWAYS, NULL }
extern const Dialect dialect_chat, dialect_responses, dialect_anthropic, dialect_ollama_chat,
    dialect_ollama_generate;
#endif
