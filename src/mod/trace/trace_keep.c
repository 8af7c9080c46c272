// SPDX-License-Identifier: Apache-2.0
// trace_keep.c - for how long: records by whole days where they are kept so, content by its
// project's own days, roll-ups by their minute. Threads: the keeper's.
#include "mod/trace/trace_own.h"
#include "base/map.h"
#include "base/time.h"
#include "res/trim.h"

static const int64_t DAY_MS = 86400000;

err trace_trim(Ctx *c, int64_t before_ms, int64_t *out) {
    static const TrimTable traces = { "traces", "created_at", NULL },
                           rest = { "traces_rest", "created_at", NULL };
    bool parts = db_kind(c->db) == DB_POSTGRES;
    int64_t day = time_day(before_ms);
    *out = 0;
    if (trace_days()) TRY(daily_drop(c, trace_days(), day, out));
    if (parts) TRY(trace_part_drop(c, day, out));
    TrimBelow below = { .before = V(parts ? day * DAY_MS : before_ms) };
    return trim_rows(c, c->db, parts ? &rest : &traces, &below, out);
}
err rollup_trim(Ctx *c, int64_t before_ms, int64_t *out) {
    static const TrimTable rollups = { "rollups", "minute", NULL };
    *out = 0;
    return trim_rows(c, c->db, &rollups, &(TrimBelow){ .before = V(before_ms / 60000) }, out);
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

static err content_of(Ctx *c, Db *db, Content *t) {
    static const TrimTable content = { "trace_content", "at", "project" };
    str project = S("");
    for (;;) {
        TRY(trim_next(c, db, &content, project, &project));
        if (!project.p) return ERR_OK;
        const int64_t *keep = map_get(t->days, project);
        int64_t before_ms = t->now_ms - (keep ? *keep : 0) * DAY_MS;
        TRY(trim_rows(c, db, &content, &(TrimBelow){ V(before_ms), V(project) }, &t->removed));
    }
}

static err content_of_days(Ctx *c, Content *t) {
    int64_t *days;
    size_t n;
    TRY(daily_days(c, trace_days(), &days, &n));
    for (size_t i = 0; i < n; i++) {
        Db *db;
        err e = daily_take(c, trace_days(), days[i], false, &db);
        if (e == ERR_NOTFOUND) continue;
        TRY(e);
        e = content_of(c, db, t);
        daily_give(trace_days(), db);
        TRY(e);
    }
    return ERR_OK;
}

err content_trim(Ctx *c, int64_t before_ms, int64_t *out) {
    Map days;
    Content t = { .days = &days, .now_ms = os_wall_ms(c->os) };
    (void)before_ms;
    map_init(&days, 0x64617973);
    err e = db_read(c, c->db, read_projects, &days);
    if (!e) e = content_of(c, c->db, &t);
    if (!e && trace_days()) e = content_of_days(c, &t);
    *out = t.removed;
    map_done(&days);
    return e;
}
