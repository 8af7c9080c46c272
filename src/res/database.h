// SPDX-License-Identifier: Apache-2.0
// database.h - what a start asks of the database, and a start without it. Each thing to ask is a
// step. When PostgreSQL does not answer, that step and all after it are put off: the server starts
// from its snapshot on disk, every other transaction is refused with the reason, and a worker runs
// all steps, in their order, as soon as the database is back; then all goes on as after any start.
// A step may run again from its beginning. SQLite lies on this machine: without it there is no
// start. Threads: the one that starts and ends the server; steps that were put off run on the
// worker's.
#ifndef LATHE_RES_DATABASE_H
#define LATHE_RES_DATABASE_H
#include "base/ctx.h"

err database_step(Ctx *c, err (*step)(Ctx *c)); // its error, unless it is put off
bool database_awaited(void);                    // steps are put off
void database_start(Ctx *c);                    // the worker, if it has something to do
void database_stop(void);
#endif
