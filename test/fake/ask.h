// SPDX-License-Identifier: Apache-2.0
// ask.h - what the fake engine is told: options, requests, and the tokens that follow from them.
// Owner: all of a request in its exchange's arena. Threads: one loop, one thread.
#ifndef LATHE_TEST_FAKE_ASK_H
#define LATHE_TEST_FAKE_ASK_H
#include "base/json.h"

// ---- options

typedef struct Behaviour {             // may differ by model and change while it runs
    int64_t latency_ms, jitter_ms;     // to the first token; jitter: up to so much more
    int64_t latency_p99_ms;            // above latency_ms: log-normal, with that as its median
    int64_t token_ms, token_jitter_ms; // between tokens
    int64_t tokens;                    // of an answer that ends by itself
    int64_t tokens_per_chunk;
    int64_t fail_ppm, cut_ppm; // of a million: 500 before the first byte; connection cut within
    int64_t big_bytes;         // added to the last token's text, unbilled
    int64_t stamp;             // 1: each token of a stream says when it was due and was sent
} Behaviour;

enum { TEXT_MAX = 512 };
typedef struct Options {
    Behaviour b;
    char alias[TEXT_MAX], model[TEXT_MAX], host[TEXT_MAX], api_key[TEXT_MAX];
    int64_t port, load_ms, slots, ctx_size, batch, seed, hang_after, exit_after, dimensions, keep,
        idle_ms, ping_s;
    bool embeddings, metrics, no_slots;
} Options;

// False: *out_bad says what is wrong, as llama-server would on standard error.
bool options_parse(int argc, char **argv, Options *o, char out_bad[TEXT_MAX]);
bool options_text(str text, Behaviour *b); // "token-ms=5,tokens=100"; false: something unknown
// What follows "--" in a model's name: "any--token-ms.5--tokens.100".
void options_of_name(str name, Behaviour *b);
void options_json(const Behaviour *b, Json *j);
int64_t options_context(const Options *o); // tokens a slot

// ---- tokens

typedef struct Prompt {
    int64_t tokens;
    uint64_t hash; // of the text: the same prompt gets the same words
} Prompt;
size_t token_next(str text, size_t at); // bytes of the token there; 0 at the end
int64_t token_count(str text);
int64_t token_id(str piece);
void prompt_add(Prompt *p, str text);
uint64_t mix(uint64_t a, uint64_t b);  // a good hash of two numbers
str word_at(uint64_t seed, int64_t i); // the i-th token of an answer

// ---- requests

typedef enum { ASK_CHAT, ASK_TEXT, ASK_EMBED } AskKind;
typedef struct Refusal {
    int status;
    const char *type, *message;
    int64_t prompt_tokens, context; // of exceed_context_size_error
} Refusal;
typedef struct Ask {
    AskKind kind;
    bool stream, usage, ignore_eos, json, base64, timings, progress;
    int64_t max_tokens; // -1: as many as there are
    int64_t n;
    str model;
    Prompt *prompts;
    size_t prompts_n;
    str *stops;
    size_t stops_n;
    yyjson_val *schema, *tool; // of the answer; the function that is forced
} Ask;
struct Engine;
bool ask_parse(Ctx *c, const struct Engine *e, str body, Ask *a, Refusal *why);
// The prompt that messages make, in c->mem, or only counted when out_text is NULL.
bool ask_template(Ctx *c, yyjson_val *root, Prompt *p, str *out_text, Refusal *why);
bool refuse_with(Refusal *why, int status, const char *type, const char *message); // false

str sample_json(Ctx *c, yyjson_val *schema, uint64_t seed); // {"…":"…"} when schema is NULL

// ---- the tokens of one choice

typedef struct Gen {
    uint64_t seed;
    int64_t made, total; // tokens, with the invisible last one when it ends by itself
    str text;            // absent: words; else its tokens
    size_t at, visible;  // in text
    str big;             // comes last, unbilled; absent once it came
    const char *finish;  // "stop" "length" "tool_calls"
    bool begun;          // its first chunk is written
} Gen;
void gen_init(Ctx *c, const Ask *a, const Behaviour *b, uint64_t seed, int64_t room, Gen *g);
bool gen_next(Gen *g, str *out_piece); // false: all is told; a piece may be empty
#endif
