// SPDX-License-Identifier: Apache-2.0
// usage.h - what was used and what it cost: one settled row for each attempt, streamed or not,
// complete or broken, through the journal. The gateway writes `open` before an attempt (with its
// reservation), marks while it streams, and `settle` before the last bytes of the answer leave.
// After a crash what has no settle is settled as `interrupted` with its last mark. The settle
// record also carries the request's wide row, of which the trace and the inference audit record are
// views. Threads: the usage_* writers are for loops and never block; folding is on a worker.
#ifndef LATHE_MOD_USAGE_H
#define LATHE_MOD_USAGE_H
#include "res/app.h"
#include "res/snapshot.h"

typedef enum {
    OUTCOME_OK,
    OUTCOME_ERROR,
    OUTCOME_CANCELLED,
    OUTCOME_INTERRUPTED
} Outcome; // cancelled: the caller left
const char *outcome_name(Outcome o);
typedef enum {
    OP_CHAT,
    OP_COMPLETION,
    OP_EMBEDDING
} Operation; // gen_ai.operation.name: chat, text_completion, embeddings
const char *operation_name(Operation o);
typedef enum {
    STAGE_QUEUE,
    STAGE_CONNECT,
    STAGE_FIRST,
    STAGE_STREAM,
    STAGE_TOTAL,
    STAGE__COUNT
} Stage;

// One wide row: everything known of one request. Text is borrowed for the call. Times: Unix ms;
// spans: microseconds, -1 unknown.
typedef struct RequestRecord {
    str request_id, attempt_id, org, project, key_id, owner, model, deployment, replica,
        version; // model: the name the client used
    str model_digest, response_id, finish_reason, error_class, error_reason, client_ip,
        end_user; // end_user: OpenAI's `user`
    Operation operation;
    Outcome outcome;
    int status, attempt; // HTTP status given; 1, 2, …
    bool streamed;
    int64_t start_ms, end_ms, stage_us[STAGE__COUNT], ttft_us, tbt_mean_us, tbt_max_us;
    int64_t prompt_tokens, completion_tokens, cached_tokens, reserved_nano, cost_nano, machine_us;
    bool final;        // the request ends with this attempt: it is not tried again
    bool tokens_exact; // said by the engine; else estimated: see the gateway's estimate.c
    str currency, price_id;
    bool
        priced; // `rate` is known: the price as it was when it was asked, whatever it is changed to
    int64_t rate_input, rate_cached, rate_output, rate_machine; // see Price
    str prompt_digest, answer_digest; // SHA-256 hex, always; content itself only as recording says
    str prompt, answer;               // absent unless the project records content
} RequestRecord;

// Reserves journal room for the whole life of an attempt. False: disk full, answer 507.
bool usage_room(App *app);
void usage_room_back(App *app);                    // no attempt came of it
void usage_open(App *app, const RequestRecord *r); // before the attempt is sent
// At least every 16 tokens of a stream, before they are sent: completion_tokens is what the client
// may have read by the next mark.
void usage_mark(App *app, const RequestRecord *r, int64_t completion_tokens);
void usage_settle(App *app, const RequestRecord *r); // once for each open; also releases the room
// A request that was refused before any attempt (attempt 0): no usage row, but views are told. Best
// effort when the disk is full.
void usage_refused(App *app, const RequestRecord *r);
// What one attempt may cost at most, and what it did cost. Prices of the snapshot; no price: 0 in
// the deployment's project currency.
typedef struct Price {
    str id, currency;
    int64_t input_nano, cached_nano, output_nano, machine_second_nano;
} Price;                                                             // per million tokens
const Price *usage_price(const Snapshot *s, str project, str model); // NULL: free
void usage_priced(RequestRecord *r, const Price *p); // what it costs from now on; NULL: nothing
int64_t usage_cost(const Price *p, int64_t prompt, int64_t cached, int64_t completion,
                   int64_t machine_us); // rounded once, half to even
extern const SnapshotPart usage_part;   // prices
// Sums of costs end at USAGE_SUM_MAX: prices and what engines say of themselves are the tenants',
// and one row that ran over would stop the ledger of all. In SQL: a column and what to add.
#define USAGE_SUM_MAX 1000000000000000000
#define USAGE_SUM_TEXT "1000000000000000000"
#define USAGE_SUM(column, more)                                                                 \
    "CASE WHEN " column " > " USAGE_SUM_TEXT " - " more " THEN " USAGE_SUM_TEXT " ELSE " column \
    " + " more " END"
static inline int64_t usage_sum(int64_t a, int64_t b) { // of parts that are at most that
    return a > USAGE_SUM_MAX - b ? USAGE_SUM_MAX : a + b;
}
// Folding: a view is told of the n > 0 settled or refused (attempt 0) records of a batch in the
// transaction that folds them. Order of the journal; exactly once. What sums does so over the batch
// and writes once.
typedef struct UsageView {
    const char *name;
    err (*fold)(Ctx *c, Tx *tx, const RequestRecord *const *r, size_t n);
} UsageView;
void usage_view(const UsageView *v); // in a module's init
// A folder reads the same journal into a database of its own, which keeps its own position:
// `position` tells it at start (zero: the oldest), `batch` commits what it makes of the records
// together with `next`. The journal is trimmed behind the slowest folder.
typedef struct UsageFolder {
    const char *name;
    err (*position)(Ctx *c, JournalPos *out);
    err (*batch)(Ctx *c, const JournalBatch *b, JournalPos next);
} UsageFolder;
// at->node's row of a folder's table of positions: get has $1 node and gives segment and offset. No
// row: zero, the oldest.
err usage_position(Ctx *c, Tx *tx, const Sql *get, JournalPos *at);
void usage_folder(const UsageFolder *f);                          // in a module's init
enum { USAGE_OPEN = 1, USAGE_MARK, USAGE_SETTLE, USAGE_REFUSED }; // kinds of journal records
bool usage_unpack(str bytes, RequestRecord *out); // text points into bytes; false: not one of ours
err usage_flush(
    Ctx *c); // blocks until everything written so far is folded everywhere: tests, reports, drain
// What each key has spent today is known: false at a start whose database is away.
bool usage_spending_known(void);
extern const Module usage_module;
#endif
