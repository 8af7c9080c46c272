// SPDX-License-Identifier: Apache-2.0
// trace_day.c - with SQLite, records are kept in one database for each day (of the request's
// start). This folder reads the journal for itself: each day's database commits what it takes of a
// batch together with the position behind it, then the main database commits that position. What is
// read again after a crash is passed over by the days that have it: exactly once. A record's id
// comes from its place in the journal and its start, so it names its day.
// Threads: the folder's worker.
#include "mod/trace/trace_own.h"
#include "base/id.h"
#include "base/time.h"

static DailySet *days;
DailySet *trace_days(void) { return days; }

err trace_days_open(Ctx *c) {
    days = NULL; // the last program's were closed with it
    if (db_kind(c->db) != DB_SQLITE) return ERR_OK;
    str folder = arena_printf(c->mem, STR_FMT "/telemetry", STR_ARG(app_of(c)->data_dir));
    return daily_open(c, &trace_daily, folder, &days);
}

void trace_days_close(void) {
    daily_close(days);
    days = NULL;
}

// ---- what a batch holds

typedef struct Entry {
    RequestRecord r;
    JournalPos pos;
    int64_t day;
} Entry;
typedef struct Put {
    Entry *at;
    size_t n;
    int64_t day; // the one that is written now
    JournalPos next;
} Put;

static Put read_batch(Ctx *c, const JournalBatch *b, JournalPos next) {
    Put p = { .at = new (c->mem, Entry, b->n + 1), .next = next };
    for (size_t i = 0; i < b->n; i++) {
        const JournalRecord *j = &b->records[i];
        Entry *e = &p.at[p.n];
        if (j->kind != USAGE_SETTLE && j->kind != USAGE_REFUSED) continue;
        if (!usage_unpack(j->bytes, &e->r)) continue; // the ledger says so
        if (!e->r.final || !e->r.project.n) continue;
        e->pos = j->pos, e->day = time_day(e->r.start_ms);
        p.n++;
    }
    return p;
}

// The first day after `after` that has entries; false: none.
static bool next_day(const Put *p, int64_t after, int64_t *out) {
    bool any = false;
    for (size_t i = 0; i < p->n; i++) {
        if (p->at[i].day <= after || (any && p->at[i].day >= *out)) continue;
        *out = p->at[i].day;
        any = true;
    }
    return any;
}

static str id_of(Ctx *c, const Entry *e) {
    uint64_t place[2] = { e->pos.segment, e->pos.offset },
             h = str_hash_seed(str_n((const char *)place, sizeof place), e->pos.node);
    uint8_t random[10];
    memcpy(random, &h, 8);
    random[8] = (uint8_t)e->pos.node, random[9] = (uint8_t)(e->pos.offset >> 3);
    return id_format(c->mem, "trace", e->r.start_ms, random);
}

// ---- positions

static err write_position(Ctx *c, Tx *tx, const Sql *set, JournalPos at) {
    return db_run(c, tx, set, V((int64_t)at.node), V((int64_t)at.segment), V((int64_t)at.offset));
}

// ---- a batch

static err day_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(folded_get, "SELECT segment, at FROM folded WHERE node = $1");
    static SQL(folded_set, "INSERT INTO folded (node, segment, at) VALUES ($1, $2, $3) ON CONFLICT "
                           "(node) DO UPDATE SET segment = $2, at = $3");
    const Put *p = arg;
    JournalPos at = { .node = p->next.node };
    TRY(usage_position(c, tx, &folded_get, &at));
    Insert to = trace_add_begin(c, tx);
    for (size_t i = 0; i < p->n; i++) {
        const Entry *e = &p->at[i];
        if (e->day != p->day || journal_before(e->pos, at)) continue;
        TRY(trace_add(&to, &e->r, id_of(c, e)));
    }
    TRY(insert_end(&to, NULL));
    return journal_before(at, p->next) ? write_position(c, tx, &folded_set, p->next) : ERR_OK;
}

err trace_days_put(Ctx *c, const JournalBatch *b, JournalPos next) {
    Put p = read_batch(c, b, next);
    for (p.day = INT64_MIN; next_day(&p, p.day, &p.day);) {
        Db *db;
        TRY(daily_take(c, days, p.day, true, &db));
        err e = db_tx(c, db, day_tx, &p);
        daily_give(days, db);
        TRY(e);
    }
    return ERR_OK;
}

static err mark_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(trace_fold_set, "INSERT INTO trace_fold (node, segment, at) VALUES ($1, $2, $3) ON "
                               "CONFLICT (node) DO UPDATE SET segment = $2, at = $3");
    return write_position(c, tx, &trace_fold_set, *(const JournalPos *)arg);
}
err trace_days_mark(Ctx *c, JournalPos next) { return db_tx(c, c->db, mark_tx, &next); }

static err fold_batch(Ctx *c, const JournalBatch *b, JournalPos next) {
    TRY(trace_days_put(c, b, next));
    return trace_days_mark(c, next);
}

static err position_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(trace_fold_get, "SELECT segment, at FROM trace_fold WHERE node = $1");
    return usage_position(c, tx, &trace_fold_get, arg);
}
static err fold_position(Ctx *c, JournalPos *out) {
    *out = (JournalPos){ journal_end(app_of(c)->journal).node, 0, 0 };
    return db_read(c, c->db, position_tx, out);
}
const UsageFolder trace_folder = { "trace", fold_position, fold_batch };
