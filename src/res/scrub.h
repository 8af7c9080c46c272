// SPDX-License-Identifier: Apache-2.0
// scrub.h - looking after objects at rest: every so often all of them are read and hashed, slowly.
// One that is not what its name says is taken out of the way and stands in `damaged_objects` with
// what it affects; so does one that rows name and that is gone. Storing the same content again
// mends it. Part of blob_module (collect.h). Threads: one worker, a job's.
#ifndef LATHE_RES_SCRUB_H
#define LATHE_RES_SCRUB_H
#include "res/app.h"

extern const JobKind scrub_kind;
extern const Resource damaged_object_resource;
extern const Route scrub_routes[];
// object.c: GET /lathe/v1/objects/{digest}
err object_serve(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out);
extern const Metric *const scrub_metrics[];
extern const char scrub_tables[]; // of the module's second migration
err scrub_init(Ctx *c);
err scrub_start(Ctx *c);
void scrub_stop(void *app);
#endif
