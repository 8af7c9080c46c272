// SPDX-License-Identifier: Apache-2.0
// answer.h - what comes from an engine during one attempt, and what is noted of it on its way to
// the client, whichever dialects the two speak. Owner: the flow; a new one for each attempt.
// Threads: its loop.
#ifndef LATHE_MOD_GATEWAY_ANSWER_H
#define LATHE_MOD_GATEWAY_ANSWER_H
#include "base/json.h"
#include "net/sse.h"
#include <openssl/evp.h>

typedef struct Flow Flow;
typedef struct Fold Fold; // fold_answer.c: a whole answer out of chunks
Fold *fold_new(Ctx *c);
bool fold_chunk(Ctx *c, Fold *f, yyjson_val *chunk);            // false: it keeps nothing of c->mem
void fold_write(const Fold *f, bool chat, str usage, Buf *out); // usage: its object

typedef struct Told { // what an engine said that was used
    int64_t prompt, completion, cached;
} Told;
typedef struct Translation Translation; // translate.c

typedef struct Answer {
    Buf whole; // not streamed: the body
    Buf held;  // events before the first content, for a client that has seen none: names and data
    Sse sse;
    int status;
    int64_t retry_after_ms; // as it said; 0: it did not
    str message; // of an error
    bool finished, usage_seen;
    bool prompt_told;         // the prompt's count alone, before the answer
    bool cut;                 // what came is not, or no longer, an answer
    bool shown;               // something of it went to the client, so no other engine may answer
    Fold *fold;               // asked for a stream, answered whole
    Translation *translation; // NULL: client and engine speak the same dialect
    bool kept;                // of the event at hand something stays in the arena
    int64_t tokens;           // so far
    Told usage;               // of all, as far as it was told
    Told *of_choice;          // what each choice said last
    Told of_choices;          // their sum
    bool by_choice;           // some did
    int64_t chunks;           // content chunks seen
    int64_t marked, left;     // tokens the journal knows of; of these, what the kernel has taken
    int64_t first_ns, last_ns, tbt_sum_us, tbt_max_us;
    EVP_MD_CTX *digest;
    Buf content; // recorded answer
} Answer;

// What is noted (stream.c).
void answer_content(Flow *f, str text); // for the digest, and for the record where it is kept
void answer_token(Flow *f);             // a piece of content came now
void answer_id(Flow *f, str id);
void answer_finish(Flow *f, str reason); // in OpenAI's words
void answer_usage(Flow *f, Told now);    // of all so far; the last one counts
// To the client (stage_attempt.c): the journal knows of the tokens first.
void answer_mark(Flow *f);
void answer_show(Flow *f, str event, str data); // event absent: the framing has none
#endif
