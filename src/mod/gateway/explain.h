// SPDX-License-Identifier: Apache-2.0
// explain.h - private to the gateway: what would happen to a request now, and why, as
// `lathe route explain` shows it. Read from the same snapshot, queues and limits, by the same
// functions, as a request's stages; nothing is sent, counted or reserved. Money is what the request
// costs at most. Threads: workers.
#ifndef LATHE_MOD_GATEWAY_EXPLAIN_H
#define LATHE_MOD_GATEWAY_EXPLAIN_H
#include "net/http.h"
#include "res/field.h"

typedef struct ExplainQuery {
    str api_key, request_id;
    int operation;
    int64_t prompt_tokens, max_tokens;
} ExplainQuery;

// What this target says when it is asked. WAIT: has no slot free, and a place in its queue.
typedef enum { CAN_NOW, CAN_WAIT, CAN_FULL, CAN_NOT } Can;
typedef struct ExplainTarget {
    str deployment, model, state, why, node, currency;
    double share;
    int can;
    int64_t replicas, ready, failed, slots, free, running, waiting, queue_max, queue_ms, wait_ms,
        cost_most;
} ExplainTarget;

typedef struct ExplainLimit {
    str of, limit, value, remaining;
    int64_t resets_ms;
    bool refuses;
} ExplainLimit;

typedef enum { EXPLAIN_ANSWERED, EXPLAIN_WAITS, EXPLAIN_REFUSED } ExplainOutcome;
typedef struct Explanation {
    int outcome;
    int64_t status, retry_after_ms;
    str code, why, deployment, model, operation, route, project, strategy;
    int64_t attempts_max, spill_ms;
    ExplainTarget *targets;
    size_t targets_n;
    ExplainLimit *limits;
    size_t limits_n;
} Explanation;

#define EXPLAIN_PATH "/lathe/v1/model_plans/{model}"
extern const Field explain_query[], explain_output[];
err gateway_explain(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out);
#endif
