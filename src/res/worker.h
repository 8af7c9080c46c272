// SPDX-License-Identifier: Apache-2.0
// worker.h - background work that looks again: a thread that runs a turn when it is woken and at
// least every so often, because a wake-up may be lost. Reconcilers, folders, relays and keepers are
// workers. A turn that fails is logged when its reason changes and tried again after a wait that
// doubles up to `every_ms`. Threads: wake from anywhere; stop and free join, so not from within the
// turn.
#ifndef LATHE_RES_WORKER_H
#define LATHE_RES_WORKER_H
#include "base/ctx.h"

struct App;
typedef struct Worker Worker;
// turn(c, arg): c is identity_system's, fresh for each turn. *c may be cancelled by worker_stop.
Worker *worker_start(struct App *app, const char *name, int64_t every_ms,
                     err (*turn)(Ctx *c, void *arg), void *arg);
void worker_wake(Worker *w); // NULL is fine
// From within a turn: how long its worker waits from now on when nobody wakes it. One that waits
// longer than it was started for rests, and worker_nudge wakes it; another time nudging is free.
// What may have come between the last look and the rest is looked for after worker_pace.
void worker_pace(int64_t every_ms);
void worker_nudge(Worker *w); // NULL is fine
// Ends its thread after the turn under way, whose Ctx is cancelled; waking it stays allowed.
void worker_stop(Worker *w); // NULL is fine
void worker_free(Worker *w); // stops it first; nobody may know it any more; NULL is fine
// Blocks until a turn that began after this call has ended: for tests and for answers that promise
// it. Its error is that turn's, or the caller's own when he may not wait any longer: a turn that
// has always more to do never ends.
err worker_sync(Ctx *c, Worker *w);
#endif
