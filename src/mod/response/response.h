// SPDX-License-Identifier: Apache-2.0
// response.h - answers of /v1/responses that are kept, so that the next request may go on from one
// by its id (OpenAI platform documentation, "Conversation state"). Both tasks run on the pool and
// tell their end on the caller's loop. Owner: a task is its caller's until it told its end, or
// until response_leave. Threads: the caller's loop.
#ifndef LATHE_MOD_RESPONSE_H
#define LATHE_MOD_RESPONSE_H
#include "res/app.h"

typedef struct ResponseRow { // what lists show; its content is a table of its own
    Head head;
    str model, status, previous, key_id, owner;
    int64_t prompt_tokens, completion_tokens, size_bytes, expires_at;
} ResponseRow;

typedef struct ResponseTask ResponseTask;
// items: of a recall, what was said so far, in its order: items of an `input` between commas,
// without brackets. why and items live until it returns.
typedef void ResponseDone(void *arg, err e, const Failure *why, str items);
typedef struct ResponseEnd { // who is told
    Loop *loop;
    ResponseDone *done;
    void *arg;
} ResponseEnd;

// What was said up to the end of response `id`, as c->who may read it: at most most_bytes, else
// ERR_TOOLARGE. ERR_INVALID with R_RESPONSE_PREVIOUS: it, or one before it, is not kept here.
// These fail at once (ERR_UNAVAILABLE) when the pool is full; `done` is not called then.
err response_recall(Ctx *c, const ResponseEnd *to, str id, int64_t most_bytes, ResponseTask **out);
// Keeps one: ERR_OK when it is durable. input: the request's `input`, answer: the response object;
// all is copied.
err response_keep(Ctx *c, const ResponseEnd *to, const ResponseRow *row, yyjson_val *input,
                  str answer, ResponseTask **out);
void response_leave(ResponseTask *t); // done is not called any more; what is kept is kept
str response_new_id(Ctx *c);

// clang-format off
#define RESPONSE_REASONS(X) \
    X(RESPONSE_PREVIOUS, "previous_response_not_found", \
      "field previous_response_id: response {id} is not kept here: it was deleted, has expired, " \
        "was not to be stored, or is another's", \
      "字段 previous_response_id：此处没有保存应答 {id}：可能已删除、已过期、未要求保存或属于他人") \
    X(RESPONSE_CHAIN, "conversation_too_long", \
      "the conversation before this request is longer than {limit}: begin a new one", \
      "该请求之前的对话超过 {limit}：请开始新的对话") \
    X(RESPONSE_UNKEPT, "responses_not_kept", \
      "field store: project {project} keeps no responses (its responses_days is 0)", \
      "字段 store：项目 {project} 不保存应答（其 responses_days 为 0）") \
    X(RESPONSE_STREAM, "stored_response_not_streamed", \
      "field stream: a stored response is given in one piece", \
      "字段 stream：已保存的应答只能一次性返回")
// clang-format on
REASONS_DECLARE(RESPONSE_REASONS)
extern const Reason *const response_reasons[];
extern const Module response_module;
#endif
