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
typedef struct Event {
    int64_t number, at_ms;
    str kind, org, project; // absent org and project: the system's
    str subject, data;      // id of what it is about; a JSON object, no secrets, no prompts
} Event;
// Data of at most EVENT_DATA_MAX bytes, absent: {}. More is ERR_INVALID with R_TOO_LONG. kind: a C
// string. The number comes later, the time from the database.
#define event_stage(c, tx, kind_, org_, project_, subject_, data_) \
    event_put((c), (tx), &(Event){ 0, 0, str_z(kind_), (org_), (project_), (subject_), (data_) })
err event_put(Ctx *c, Tx *tx, const Event *e);
// Not stored and not numbered: sent to live readers only (charts once a second), dropped for those
// that are behind. app may be one whose events have not started.
void event_live(void *app, const char *kind, str org, str project, str subject, str data);
bool event_heard(void *app); // somebody reads events at this node: else live ones need not be made

typedef struct EventPage {
    Event *at;
    size_t n;
    int64_t oldest, newest; // kept, and ever given; none kept: oldest is newest + 1
    bool expired; // some after the number asked for are gone already, or it was never given
} EventPage;
// Numbered events after `after`, oldest first, at most max, in c->mem; expired or not, what there
// is comes.
err event_read(Ctx *c, Tx *tx, int64_t after, size_t max, EventPage *out);

extern const Migration event_migrations[]; // owner "event"
extern const size_t event_migrations_n;

// clang-format off
#define EVENT_REASONS(X) \
    X(EVENT_READERS, "too_many_readers", "{limit} readers of events are connected already", \
      "事件读取连接已达 {limit} 个") \
    X(EVENT_SHARE, "reader_share_used", "{place} has its {limit} readers of events already; " \
      "the setting {setting} is the limit", \
      "{place} 的事件读取连接已达 {limit} 个；上限由设置 {setting} 决定") \
    X(EVENT_STOPPING, "stopping", "the server is stopping: connect again", \
      "服务器正在停止，请重新连接")
// clang-format on
REASONS_DECLARE(EVENT_REASONS)
extern const Reason *const event_reasons[];
#endif
