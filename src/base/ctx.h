// SPDX-License-Identifier: Apache-2.0
// ctx.h - all that a handler may touch: the same for an HTTP request, a job, a CLI verb, a test and
// a simulation. Owner: whoever runs the call.
// Threads: one at a time, except `cancelled`, which any thread may set.
#ifndef LATHE_BASE_CTX_H
#define LATHE_BASE_CTX_H
#include "arena.h"
#include "err.h"
#include <stdatomic.h>

struct Os;
struct Db;
struct Identity;

typedef struct Ctx {
    Arena *mem;                 // the call arena: gone when the call ends
    struct Os *os;              // clock, random, files, processes
    struct Db *db;              // what the call may read and write; NULL in kit tests
    void *app;                  // the running program's object (res/app.h); NULL in kit tests
    const struct Identity *who; // res/identity.h; NULL before identification
    str org, project;           // ids acted in; absent where the scope has none
    str request_id;             // shown in answers, logs, traces, audit
    const char *lang;           // "en" or "zh"
    int64_t deadline_ns;        // monotonic; 0: none
    atomic_bool cancelled;      // set by anyone; long work looks at ctx_check (os/os.h)
    Failure failure;
} Ctx;

void ctx_init(Ctx *c, Arena *mem, struct Os *os);

// Fails with a reason and its parameters: fail(c, ERR_CONFLICT, R_VERSION_LIVE, "version", "v3").
// Keys are literals; values are C strings, copied into the arena (NULL is ""). At most
// FAILURE_PARAMS pairs. The failure already present is replaced. Returns the code.
#define fail(c, e, reason, ...) \
    fail_((c), (e), &(reason), (const char *const[]){ __VA_ARGS__ __VA_OPT__(, ) NULL, NULL })
err fail_(Ctx *c, err e, const Reason *why, const char *const kv[]);
// Its texts in another arena: for another context, or another time.
Failure failure_copy(Arena *to, const Failure *from);
// Text for a parameter: fail(c, ..., "size", say(c, "%zu", n))
const char *say(Ctx *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
// s as a C string in the arena, cut between characters at 200 bytes with an ellipsis; a NUL is '?'.
const char *say_str(Ctx *c, str s);

void ctx_cancel(Ctx *c);
static inline bool ctx_cancelled(const Ctx *c) {
    return atomic_load_explicit(&c->cancelled, memory_order_relaxed);
}

// Reasons of the kit's lowest layer.
// clang-format off
#define BASE_REASONS(X) \
    X(CANCELLED, "cancelled", "the caller left before the answer was ready", \
      "调用方在应答之前已离开") \
    X(DEADLINE, "deadline", "it took longer than the time allowed", "超过了允许的时间") \
    X(JSON_SYNTAX, "json_syntax", "the body is not valid JSON: {why} at byte {offset}", \
      "请求体不是合法的 JSON：第 {offset} 字节处 {why}") \
    X(JSON_DEPTH, "json_depth", "the JSON is nested deeper than {limit} levels", \
      "JSON 嵌套超过 {limit} 层") \
    X(JSON_UTF8, "json_utf8", "the body is not valid UTF-8 at byte {offset}", \
      "请求体第 {offset} 字节处不是合法的 UTF-8") \
    X(JSON_TWICE, "json_twice", "the JSON has the key \"{key}\" twice in one object", \
      "JSON 的同一对象中键“{key}”出现了两次") \
    X(TOO_LONG, "too_long", "{what} is larger than {limit} bytes", "{what} 超过 {limit} 字节") \
    X(INTERNAL, "internal", "an internal error: {why}", "内部错误：{why}")
// clang-format on
REASONS_DECLARE(BASE_REASONS)
extern const Reason *const base_reasons[];
#endif
