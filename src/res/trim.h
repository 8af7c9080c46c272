// SPDX-License-Identifier: Apache-2.0
// trim.h - removes old rows, however many there are: oldest first, some hundreds in a transaction
// of its own, so that none runs into a statement's time limit, no writer waits for long, and what
// was removed stays removed whatever ends the rest. Threads: any, blocking.
#ifndef LATHE_RES_TRIM_H
#define LATHE_RES_TRIM_H
#include "db/db.h"

enum { TRIM_ROWS = 500 };
// Rows of `table` whose `column` is less than a value; an index begins with [scope,] column. As
// many as share one value of it go together. Names are the program's own, never a caller's.
typedef struct TrimTable {
    const char *table, *column;
    const char *scope; // NULL, or a column: only rows where it is a given value
} TrimTable;
typedef struct TrimBelow {
    Val before; // of the column's type
    Val scope;  // unused without one
} TrimBelow;
// *io_removed grows by what was removed, also by a call that fails later.
err trim_rows(Ctx *c, Db *db, const TrimTable *t, const TrimBelow *below, int64_t *io_removed);
// One such transaction; *out_more: there may be others.
err trim_some(Ctx *c, Db *db, const TrimTable *t, const TrimBelow *below, int64_t *io_removed,
              bool *out_more);
// The next value of the scope's column after one; absent: there is none. Begin after "".
err trim_next(Ctx *c, Db *db, const TrimTable *t, str after, str *out);
#endif
