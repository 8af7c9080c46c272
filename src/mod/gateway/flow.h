// SPDX-License-Identifier: Apache-2.0
// flow.h - one inference request on its way through the stages. A stage is one row of
// gateway_stages: run() returns a verdict; one that WAITs calls flow_resume or flow_fail later, and
// its cancel() gives back what it waits for when the client leaves. Owner: the flow, whose memory
// is its exchange's. Threads: the exchange's loop.
#ifndef LATHE_MOD_GATEWAY_FLOW_H
#define LATHE_MOD_GATEWAY_FLOW_H
#include "mod/access/access.h"
#include "mod/dialect/dialect.h"
#include "mod/gateway/answer.h"
#include "mod/gateway/line.h"
#include "mod/gateway/reason.h"
#include "mod/response/response.h"
#include "mod/route/route.h"
#include "mod/trace/trace.h"

typedef enum { VERDICT_NEXT, VERDICT_WAIT, VERDICT_ANSWER, VERDICT_FAIL } Verdict;
typedef struct FlowStage {
    const char *name;
    Verdict (*run)(Flow *f);
    void (*cancel)(Flow *f); // NULL: it never waits
    bool always;             // also after a failure and after the client left
    const char *en, *zh;
} FlowStage;
extern const FlowStage gateway_stages[]; // gateway_table.c; ends with a zero name

typedef struct ParsedBody { // what the stages need of the request
    yyjson_val *root;
    str text, model, user;
    int64_t size;                // bytes: as many tokens at most
    int64_t output_max;          // tokens the client asked for at most; UNSET_INT: not said
    int64_t n, prompts, choices; // choices: n of each prompt
    int64_t made;                // choices that are computed and paid for, seen or not
    bool stream, wants_usage, wants_timings, wants_progress;
} ParsedBody;

enum { CHOICES_MAX = 128 };
// check_body.c. body_wrong: ERR_INVALID that names the field; got NULL: it is missing.
err body_check(Ctx *c, Operation op, yyjson_val *root, int64_t *out_prompts);
err body_wrong(Ctx *c, const char *field, const char *want, yyjson_val *got);

struct Flow {
    Exchange *x;
    Ctx *c;
    App *app;
    Operation operation;
    const Dialect *spoken; // by the client; NULL: an operation that is not translated
    Talk *talk;            // the request in no dialect; NULL: not needed so far
    struct {               // /v1/responses (stored.c)
        bool keeps;        // its answer
        str id, previous;  // of the answer; of the one that it goes on from, absent: none
        yyjson_val *input; // as the client sent it
        ResponseTask *task;
    } stored;
    bool unread; // our reader does not know all of it: it can only be passed on
    const FlowStage *stage;
    const Snapshot *snapshot;
    const KeyEntry *key;
    Identity who;
    str project;
    ParsedBody in;
    const RouteEntry *route;                        // NULL: the name is a deployment's own
    const DeploymentEntry *plan[ROUTE_TARGETS_MAX]; // who may answer, in order
    size_t plan_n, at;                              // at: whose turn it is
    const DeploymentEntry *deployment;              // plan[at]
    const Price *price;
    LimitSubject subjects[LIMIT_SUBJECTS_MAX]; // limits.c
    size_t subjects_n;
    int64_t reserved_tokens;
    LimitAnswer limits;
    bool admitted, failed, gone, has_room, sse_begun, record_content;
    bool lost; // the last attempt came to nothing and is not settled yet: another one may follow
    Ticket *ticket;
    int64_t queue_position; // when it joined; 0: did not wait
    int64_t hops;           // gateways that it came through
    Timer *timer;
    int64_t start_ms, start_ns, queue_ns, joined_ns, said_ns; // said: its place in the queue
    int64_t sent_ns;                                          // this attempt's request
    int attempt, deaths;  // deaths: engines that ended their connection instead of this answer
    const Engine *engine; // of the replica that answers, as are the next
    const Dialect *dialect;
    Accent accent;
    str upstream_model;
    Call *call;
    Answer out;
    int64_t first_ms, machine_ms;      // machine time: reserved at admission; then again and again
    int64_t said_bytes;                // of text that came of this attempt
    bool taken;                        // the client left when its engine had the whole request
    char finish[64], response_id[128]; // behind r's: a stream's arena is reset after each event
    RequestRecord r;                   // grows on the way
};

void flow_start(Exchange *x, Operation op, const char *dialect); // the routes' stream function
void flow_resume(Flow *f);           // the waiting stage is over: on with the next
void flow_fail(Flow *f);             // the waiting stage failed: c->failure says why
void flow_again(Flow *f);            // the attempt failed, another may do: back to `pick`
bool flow_next(Flow *f);             // gives its slot back; false: nobody is left to ask
Verdict flow_denied(Flow *f, err e); // NEXT for ERR_OK, else FAIL

// stages, one file each
Verdict stage_identify(Flow *f);
Verdict stage_parse(Flow *f);
Verdict stage_resolve(Flow *f);
Verdict stage_admit(Flow *f);
Verdict stage_pick(Flow *f);
void stage_pick_cancel(Flow *f);
Verdict stage_attempt(Flow *f);
void stage_attempt_cancel(Flow *f);
Verdict stage_settle(Flow *f);
Verdict stage_record(Flow *f);
Verdict stage_answer(Flow *f);

// between them
err flow_read_body(Flow *f, str body); // stage_parse.c; body lives as long
int64_t flow_prompt_most(const Flow *f, const DeploymentEntry *d); // tokens; estimate.c
int64_t flow_output_most(const Flow *f, const DeploymentEntry *d);
int64_t flow_cost_at(const Flow *f, const DeploymentEntry *d); // at most, by this one; nano
int64_t flow_cost_most(const Flow *f);                         // by any of the plan
int64_t flow_tokens_most(const Flow *f);                       // prompt and answer
bool deployment_says(const DeploymentEntry *d, Operation op);  // in the dialect of its server
err dialect_lacks(Flow *f, const Dialect *d);                  // the refusal where it cannot
err flow_resolve(Flow *f);                     // its plan, from project, name and operation
err flow_unserved(Flow *f, LineAnswer answer); // FULL or NONE: why its deployment does not serve it
void limits_of(Flow *f);                       // fills its subjects
bool limits_have_money(const Flow *f);
LimitUse limits_reserved(const Flow *f);
LimitUse limits_used(const Flow *f); // by the last attempt
err limits_refused(Flow *f, size_t by, LimitKind kind, const LimitState *s, int64_t retry_ms);
int64_t machine_first_ms(void); // machine.c
void machine_watch(Flow *f);    // the running attempt, until
void machine_unwatch(Flow *f);
void flow_estimate(Flow *f);                   // the record's tokens, where the engine did not say
void attempt_close(Flow *f, Outcome o);        // settles this attempt and gives its slot back
size_t flow_headers(Flow *f, HttpHeader *out); // x-ratelimit-*, x-lathe-*: at most FLOW_HEADERS
enum { FLOW_HEADERS = 16 };
void flow_sse_begin(Flow *f);   // once
bool flow_folds(const Flow *f); // an answer in one piece is made of this engine's stream
err body_for_engine(Flow *f, struct evbuffer *out); // ERR_INVALID: its dialect has no place for it
// What of one streamed event the client gets: absent: nothing.
str stream_event(Flow *f, str data);
err answer_read(Flow *f, yyjson_val *root);        // figures of a whole answer
err engine_refusal(Flow *f, int status, str body); // refusal.c
str flow_usage(Flow *f);                           // {"prompt_tokens": …}: what is known now
void flow_describe(Flow *f);                       // what the record says before the attempt
void flow_drained(Flow *f);                        // the client took what was held back
void stream_close(Flow *f);                        // frees what Answer holds

// pass.c: where client and engine speak one dialect that is not OpenAI's
bool flow_passes(const Flow *f);
bool pass_may(const Flow *f); // the reader's failure is that it does not know something
err pass_parse(Flow *f);      // what the stages need of such a body
err pass_check(Flow *f);      // the reader's failure, where nobody of the plan may be passed it
void pass_body(Flow *f, struct evbuffer *out);

// translate.c: where they speak different ones, and what both ways share
err talk_read(Flow *f);
bool flow_translates(const Flow *f);
bool speaks_openai(const Dialect *d);              // NULL: an operation that is OpenAI's alone
err talk_parse(Flow *f);                           // a body that is not in OpenAI's dialect
err translate_body(Flow *f, struct evbuffer *out); // ERR_INVALID: the engine's has no place for it
void translate_open(Flow *f);                      // for an attempt
void translate_close(Translation *t);
void translate_event(Flow *f, str event, str data);         // of the engine's stream
bool translate_lines(Flow *f, str bytes);                   // the same of NDJSON
err translate_whole(Flow *f, yyjson_val *root);             // of its answer in one piece
void translate_over(Flow *f);                               // the engine's stream ended
err translate_judge(Flow *f);                               // what it said
void translate_end(Flow *f);                                // the last events, after the settling
bool translate_body_out(Flow *f, Buf *out);                 // the answer in one piece
bool translate_again(Flow *f, Buf *out);                    // the same once more, or of a stream
void gateway_refuse(Ctx *c, const char *dialect, Buf *out); // c->failure in this dialect

enum {
    GW_BODY_MAX,
    GW_ANSWER_MAX,
    GW_CONNECT,
    GW_FIRST,
    GW_IDLE,
    GW_HEARTBEAT,
    GW_QUEUE_SAY,
    GW_STALE,
    GW_BREAKER,
    GW_BREAKER_OPEN,
    GW_SETTINGS
};
extern const Setting gateway_settings[GW_SETTINGS + 1];
extern const Route gateway_routes[];
extern const Metric gateway_waiting, gateway_running;
extern const Metric *const gateway_metrics[];
#endif
