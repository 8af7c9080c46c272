// SPDX-License-Identifier: Apache-2.0
// retain.h - private to res: what retention keeps and what goes when, for `lathe retention list`.
// Threads: any.
#ifndef LATHE_RES_RETAIN_H
#define LATHE_RES_RETAIN_H
#include "res/app.h"

enum { RETAIN_EVERY_MS = 3600000 };
typedef struct Retained { // the last run of one row, on this node
    int64_t at_ms, removed;
} Retained;
Retained retain_last(const Retention *r); // zeros: not run here yet
// GET /lathe/v1/retentions: {"data": [{name, setting, keep, before, rows, due, bytes, oldest, …}]}
err retain_serve(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out);
#endif
