// SPDX-License-Identifier: Apache-2.0
// trace_part.c - with PostgreSQL the table of records is partitioned by day (of the request's
// start): `traces_day_N`, N days since the epoch. The fold makes a day's partition in the
// transaction that first needs it; retention drops whole ones. `traces_rest` takes what nobody made
// a day for: the fold puts nothing there, since a day could then not be made any more.
// Threads: the fold's, the keeper's.
#include "mod/trace/trace_own.h"
#include "base/time.h"

static const int64_t DAY_MS = 86400000;

static err run_text(Ctx *c, Tx *tx, const char *name, str text) {
    Sql *sql = new (c->mem, Sql, 1);
    *sql = (Sql){ name, text.p, NULL };
    return db_exec(c, tx, sql, NULL, 0, NULL);
}

err trace_part_make(Ctx *c, Tx *tx, int64_t day) {
    static SQL(trace_part_there, "SELECT CASE WHEN to_regclass($1) IS NULL THEN 0 ELSE 1 END");
    Rows *rows;
    const char *name = arena_printf(c->mem, "traces_day_%lld", (long long)day).p;
    TRY(db_one(c, tx, &rows, &trace_part_there, (Val[]){ V(name) }, 1));
    bool there = col_int(rows, 0);
    rows_close(rows);
    if (there) return ERR_OK;
    return run_text(c, tx, "trace_part_make",
                    arena_printf(c->mem,
                                 "CREATE TABLE IF NOT EXISTS %s PARTITION OF traces FOR VALUES "
                                 "FROM (%lld) TO (%lld)",
                                 name, (long long)(day * DAY_MS), (long long)((day + 1) * DAY_MS)));
}

typedef struct Drop {
    int64_t before_day, removed;
} Drop;

static err drop_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(trace_parts, "SELECT CAST(k.relname AS TEXT) FROM pg_inherits i JOIN pg_class k ON "
                            "k.oid = i.inhrelid WHERE i.inhparent = to_regclass('traces') "
                            "ORDER BY 1");
    Drop *d = arg;
    Rows *rows;
    str start = S("traces_day_"), names[64];
    size_t n = 0;
    d->removed = 0;
    TRY(db_query(c, tx, &trace_parts, NULL, 0, &rows));
    for (bool more = true; more && n < countof(names);) { // the rest at the next hour
        int64_t day;
        TRY(rows_next(c, rows, &more));
        str name = more ? col_str(rows, 0) : S("");
        if (!str_starts(name, start) || !str_to_i64(str_sub(name, start.n, name.n), &day)) continue;
        if (day < d->before_day) names[n++] = name;
    }
    rows_close(rows);
    for (size_t i = 0; i < n; i++)
        TRY(run_text(c, tx, "trace_part_drop",
                     arena_printf(c->mem, "DROP TABLE " STR_FMT, STR_ARG(names[i]))));
    d->removed = (int64_t)n;
    return ERR_OK;
}

err trace_part_drop(Ctx *c, int64_t before_day, int64_t *out_removed) {
    Drop d = { .before_day = before_day };
    TRY(db_tx(c, c->db, drop_tx, &d));
    *out_removed = d.removed;
    return ERR_OK;
}
