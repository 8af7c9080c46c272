// SPDX-License-Identifier: Apache-2.0
// log.h - one line an event: JSON or text, a level per module, the request id. Never a secret or a
// prompt: log ids, sizes and reasons. The sink is a function (os/ gives stderr); lines are
// formatted here. Threads: any; levels may change while others log.
#ifndef LATHE_BASE_LOG_H
#define LATHE_BASE_LOG_H
#include "ctx.h"

typedef enum { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_OFF } LogLevel;
enum { LOG_LINE_MAX = 8192 }; // longer lines lose their last pairs and say "truncated"

typedef struct LogSink {
    void (*write)(void *arg, str line); // one line with its newline; any thread
    int64_t (*now_ms)(void *arg);
    void *arg;
    bool json;
} LogSink;
void log_to(LogSink sink); // at start, before other threads log; the default drops everything

// "info" or "info,net=debug,db=warn"; before the first call all are at info. False names the first
// bad part in *out_bad (NULL is fine) and changes nothing.
bool log_levels(str spec, str *out_bad);
bool log_levels_good(str spec); // whether log_levels would take it
bool log_on(const char *module, LogLevel level);

// Keys are literals, values C strings: log_at("net", LOG_INFO, c, "listening", "address", a).
// c may be NULL (no request id).
#define log_at(module, level, c, message, ...)                                        \
    do {                                                                              \
        if (log_on((module), (level)))                                                \
            log_line((module), (level), (c), (message),                               \
                     (const char *const[]){ __VA_ARGS__ __VA_OPT__(, ) NULL, NULL }); \
    } while (0)
void log_line(const char *module, LogLevel level, const Ctx *c, const char *message,
              const char *const kv[]);
#endif
