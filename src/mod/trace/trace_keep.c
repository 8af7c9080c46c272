// SPDX-License-Identifier: Apache-2.0
// trace_keep.c - for how long: records by whole days where they are kept so, content by its
// project's own days, roll-ups by their minute. Threads: the keeper's.
#include "mod/trace/trace_own.h"
#include "base/map.h"
#include "base/time.h"

static const int64_t DAY_MS = 86400000;

typedef struct Trim {
    const Sql *sql;
    int64_t before, removed;
} Trim;

static err trim_tx(Ctx *c, Tx *tx, void *arg) {
    Trim *t = arg;
    return db_exec(c, tx, t->sql, (Val[]){ V(t->before) }, 1, &t->removed);
}
static err trim(Ctx *c, const Sql *sql, int64_t before, int64_t *out) {
    Trim t = { sql, before, 0 };
    TRY(db_tx(c, c->db, trim_tx, &t));
    *out = t.removed;
    return ERR_OK;
}
err trace_trim(Ctx *c, int64_t before_ms, int64_t *out) {
    static SQL(traces_old, "DELETE FROM traces WHERE created_at < $1");
    int64_t files = 0;
    if (trace_days()) TRY(daily_drop(c, trace_days(), time_day(before_ms), &files));
    if (db_kind(c->db) == DB_POSTGRES) TRY(trace_part_drop(c, time_day(before_ms), &files));
    TRY(trim(c, &traces_old, before_ms, out));
    *out += files;
    return ERR_OK;
}
err rollup_trim(Ctx *c, int64_t before_ms, int64_t *out) {
    static SQL(rollups_old, "DELETE FROM rollups WHERE minute < $1");
    return trim(c, &rollups_old, before_ms / 60000, out);
}

// ---- content, in the main database and in each day's
static err read_projects(Ctx *c, Tx *tx, void *arg) {
    static SQL(content_days, "SELECT id, COALESCE(recording_days, 0) FROM projects");
    Map *days = arg;
    Rows *rows;
    TRY(db_query(c, tx, &content_days, NULL, 0, &rows));
    for (bool more;;) {
        TRY(rows_next(c, rows, &more));
        if (!more) return ERR_OK;
        int64_t *keep = new (c->mem, int64_t, 1);
        *keep = col_int(rows, 1);
        map_set(days, col_str(rows, 0), keep);
    }
}

typedef struct Content {
    const Map *days; // of each project; one that is gone: none
    int64_t now_ms, removed;
} Content;

static err content_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(content_projects, "SELECT DISTINCT project FROM trace_content ORDER BY project");
    static SQL(content_old, "DELETE FROM trace_content WHERE project = $1 AND at < $2");
    Content *t = arg;
    Rows *rows;
    t->removed = 0;
    TRY(db_query(c, tx, &content_projects, NULL, 0, &rows));
    for (bool more;;) {
        TRY(rows_next(c, rows, &more));
        if (!more) return ERR_OK;
        str project = col_str(rows, 0);
        const int64_t *keep = map_get(t->days, project);
        int64_t removed, before = t->now_ms - (keep ? *keep : 0) * DAY_MS;
        TRY(db_exec(c, tx, &content_old, (Val[]){ V(project), V(before) }, 2, &removed));
        t->removed += removed;
    }
}

static err content_of_days(Ctx *c, Content *t, int64_t *removed) {
    int64_t *days;
    size_t n;
    TRY(daily_days(c, trace_days(), &days, &n));
    for (size_t i = 0; i < n; i++) {
        Db *db;
        err e = daily_take(c, trace_days(), days[i], false, &db);
        if (e == ERR_NOTFOUND) continue;
        TRY(e);
        e = db_tx(c, db, content_tx, t);
        daily_give(trace_days(), db);
        TRY(e);
        *removed += t->removed;
    }
    return ERR_OK;
}

err content_trim(Ctx *c, int64_t before_ms, int64_t *out) {
    Map days;
    Content t = { .days = &days, .now_ms = os_wall_ms(c->os) };
    (void)before_ms;
    map_init(&days, 0x64617973);
    err e = db_read(c, c->db, read_projects, &days);
    if (!e) e = db_tx(c, c->db, content_tx, &t);
    *out = t.removed;
    if (!e && trace_days()) e = content_of_days(c, &t, out);
    map_done(&days);
    return e;
}
