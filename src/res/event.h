// SPDX-License-Identifier: Apache-2.0
// event.h - what happened, for readers who want to know at once. A change stages an outbox row in its own transaction; one relay (under a
// lease) numbers them without gaps and keeps them for a time; /lathe/v1/events streams them (SSE, id = number, resumable by
// Last-Event-ID or ?after=; a cursor older than what is kept gets one event "expired" that says where to start again).
// A reader sees events of the projects it may read only. Threads: staging in a Tx; readers on loops.
#ifndef LATHE_RES_EVENT_H
#define LATHE_RES_EVENT_H
#include "db/db.h"

typedef struct EventKind { const char *name; const char *en, *zh; } EventKind;       // "model.created"
// subject: id of what it is about; data: JSON object, at most 16 KiB, no secrets, no prompts.
err event_stage(Ctx *c, Tx *tx, const char *kind, str org, str project, str subject, str data);
// Not stored and not numbered: sent to live readers only (charts once a second). Any thread.
void event_live(void *app, const char *kind, str org, str project, str subject, str data);
typedef struct Event { int64_t number, at_ms; str kind, org, project, subject, data; } Event;
// Numbered events after `after`, oldest first; *out_expired when some after it are gone already.
err event_read(Ctx *c, Tx *tx, int64_t after, size_t max, Event **out, size_t *out_n, bool *out_expired);
#endif
