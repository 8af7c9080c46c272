// SPDX-License-Identifier: Apache-2.0
// fake.h - the fake engine: it speaks what Lathe uses of llama-server's HTTP surface, makes up its
// words by a rule, and keeps a ledger of every token. README.md has the rules. It is a test's tool:
// no part of the product links it.
//   options.c  command line, run-time and per-model options
//   token.c    what a token is; words
//   ask.c      bodies of requests, and the refusals that llama-server has for them
//   sample.c   JSON that fits a schema
//   gen.c      the tokens of one choice
//   write.c    answers in llama-server's shapes
//   job.c      one inference from its body to its last byte: slots, times, faults
//   info.c     health, models, props, slots, metrics, the ledger's door
//   post.c     tokenize, apply-template, options while it runs
//   ledger.c   what was billed, by outcome and by request id
// Owner: main owns the Engine, an exchange's arena its Job. Threads: one loop, one thread.
#ifndef LATHE_TEST_FAKE_H
#define LATHE_TEST_FAKE_H
#include "ask.h"
#include "base/map.h"
#include "net/http.h"

// ---- the ledger

typedef enum {
    OUT_ACTIVE,
    OUT_FINISHED,     // the whole answer was handed to the kernel
    OUT_REFUSED,      // 4xx and 5xx of llama-server
    OUT_FAILED,       // --fail-rate
    OUT_CUT,          // --cut-rate
    OUT_DISCONNECTED, // the client left while tokens were made
    OUT_LEFT_QUEUE,   // or before a slot was free
    OUT__COUNT
} Outcome;
typedef struct Record {
    char id[68];                                                    // the request's X-Request-Id
    const char *path;                                               // a literal
    int64_t ordinal, prompt_tokens, completion_tokens, told_tokens; // told: in usage
    Outcome outcome;
    bool stream;
    const char *finish;
    struct Record *older, *newer; // of the same id
} Record;
typedef struct Ledger Ledger;
extern void (*ledger_watch)(const Record *r); // NULL: nobody looks on
Ledger *ledger_new(Os *os, int64_t keep);
void ledger_free(Ledger *l);
Record *ledger_open(Ledger *l, str id, const char *path);
void ledger_close(Ledger *l, Record *r, Outcome outcome); // counts it; r stays readable for a while
int64_t ledger_prompt(const Ledger *l);
int64_t ledger_completion(const Ledger *l);
void ledger_json(const Ledger *l, Json *j);
bool ledger_find(const Ledger *l, str id, Json *j); // newest first; false: unknown

// ---- jobs

struct Job;
typedef struct Engine {
    Os *os;
    Loop *loop;
    Server *server;
    Options o;
    Ledger *ledger;
    int64_t ready_ns; // loaded from then on
    int64_t asked;    // inference requests so far
    struct Job **slots;
    struct Job *first, *last; // waiting for a slot
    int64_t busy, waiting;
    bool pumping;
    Buf piece, text; // scratch: what is about to be sent
    char fingerprint[16];
} Engine;
bool engine_loading(const Engine *e);
bool engine_hangs(const Engine *e);
// True: answered (loading, no key) or left hanging; nothing more is to be done.
bool engine_turns_away(Engine *e, Exchange *x);

typedef struct Job {
    Engine *e;
    Exchange *x;
    Ask ask;
    Behaviour b;
    Record *record;
    Timer *timer;
    struct Job *next, *before; // in the queue
    int64_t slot;              // -1: none
    bool waits, cutting, over;
    Gen *gens;
    size_t gens_n, turn;
    int64_t made, total; // tokens of all choices
    int64_t cut_at;      // tokens after which the connection is cut; -1: never
    int64_t start_ns;    // in a slot from then on
    int64_t due_ns;      // of the next event of a stream
    int64_t chunk_ns;    // when the one being written was due
    int64_t sent_ns;     // the last one
    int64_t first_ms;    // to the first token
    uint64_t seed;
    char id[48];
    str tail; // of each chunk of a stream
} Job;
void job_route(Exchange *x, const NetRoute *route);

// ---- answers

void reply_json(Exchange *x, int status, str body);
void reply_refusal(Exchange *x, const Refusal *why);
void write_begin(Job *j);                          // of a stream
void write_piece(Job *j, size_t choice, str text); // these three append to e->text
void write_finish(Job *j, size_t choice);
void write_end(Job *j);
const Prompt *job_prompt(const Job *j, size_t choice);
void write_whole(Job *j); // these two reply
void write_embeddings(Job *j);

// ---- the rest of the surface

typedef struct Info { // a GET that is answered at once; the owner of a route
    void (*write)(Engine *e, Json *j);
} Info;
extern const Info info_health, info_models, info_props, info_slots, info_ledger, info_options;
void info_route(Exchange *x, const NetRoute *route);
void slots_route(Exchange *x, const NetRoute *route);
void metrics_route(Exchange *x, const NetRoute *route);
void requests_route(Exchange *x, const NetRoute *route);

typedef struct Post { // a POST of JSON; false: why says it
    bool (*answer)(Exchange *x, yyjson_val *root, Json *j, Refusal *why);
} Post;
extern const Post post_tokenize, post_template, post_count, post_options;
void post_route(Exchange *x, const NetRoute *route);
#endif
