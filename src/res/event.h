// SPDX-License-Identifier: Apache-2.0
// event.h - what happened, for readers who want to know at once. A change stages an outbox row in
// its own transaction; one relay (under a lease) numbers them without gaps and keeps them for a
// time; /lathe/v1/events streams them (SSE, id = number, resumable by Last-Event-ID or ?after=; a
// cursor older than what is kept gets one event "expired" that says where it goes on).
// A reader sees events of the projects it may read only, of kinds whose resource it may read.
// Threads: staging in a Tx; event_live on any.
#ifndef LATHE_RES_EVENT_H
#define LATHE_RES_EVENT_H
#include "db/db.h"

enum { EVENT_DATA_MAX = 16384, EVENT_KIND_MAX = 64 };
typedef struct EventKind {
    const char *name; // "model.created": what it is about, a dot, what happened
    const char *en, *zh;
} EventKind;
// subject: id of what it is about; data: a JSON object of at most EVENT_DATA_MAX bytes, no secrets,
// no prompts; absent: {}. More is ERR_INVALID with R_TOO_LONG.
err event_stage(Ctx *c, Tx *tx, const char *kind, str org, str project, str subject, str data);
// Not stored and not numbered: sent to live readers only (charts once a second), dropped for those
// that are behind. app may be one whose events have not started.
void event_live(void *app, const char *kind, str org, str project, str subject, str data);

typedef struct Event {
    int64_t number, at_ms;
    str kind, org, project, subject, data; // absent org and project: the system's
} Event;
// Numbered events after `after`, oldest first, at most max; *out_expired when some after it are
// gone already, or `after` is a number that was never given. What there is comes all the same.
err event_read(Ctx *c, Tx *tx, int64_t after, size_t max, Event **out, size_t *out_n,
               bool *out_expired);
// The oldest that is kept and the newest that was given; oldest is newest + 1 when none is kept.
err event_bounds(Ctx *c, Tx *tx, int64_t *out_oldest, int64_t *out_newest);

extern const Migration event_migrations[]; // owner "event"
extern const size_t event_migrations_n;

// clang-format off
#define EVENT_REASONS(X) \
    X(EVENT_READERS, "too_many_readers", "{limit} readers of events are connected already", \
      "事件读取连接已达 {limit} 个") \
    X(EVENT_STOPPING, "stopping", "the server is stopping: connect again", \
      "服务器正在停止，请重新连接")
// clang-format on
REASONS_DECLARE(EVENT_REASONS)
extern const Reason *const event_reasons[];
#endif
