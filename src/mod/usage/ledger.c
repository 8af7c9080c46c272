// SPDX-License-Identifier: Apache-2.0
// ledger.c - usage's own folder: a batch of the journal becomes one row an attempt, sums by day,
// and what the views make of it, committed together with the position: exactly once. An attempt
// that is open at the end of a batch waits in usage_open; what is still there when the server
// starts, with the journal read to its end, was cut by a crash.
// A batch is one transaction and each row of sums is written once in it: what a request costs falls
// with the size of its batch. Threads: the folder's worker; all memory is the call's.
#include "mod/usage/usage_own.h"
#include "mod/access/access.h"
#include "base/log.h"
#include "base/map.h"
#include "base/time.h"
#include "db/insert.h"
#include <assert.h>

enum { VIEWS_MAX = 8 };
static struct {
    const UsageView *at[VIEWS_MAX];
    size_t n;
} views;

void usage_view(const UsageView *v) {
    assert(views.n < VIEWS_MAX);
    views.at[views.n++] = v;
}

// ---- what a batch has settled or refused, in the order of the journal
typedef struct Told {
    const RequestRecord **at;
    size_t n, room;
    bool apart; // each by itself: some were settled before
} Told;

static void tell(Ctx *c, Told *t, const RequestRecord *r) {
    if (t->n == t->room) {
        size_t room = t->room ? t->room * 2 : 64;
        const RequestRecord **more = new (c->mem, const RequestRecord *, room);
        if (t->n) memcpy(more, t->at, t->n * sizeof *more);
        t->at = more, t->room = room;
    }
    t->at[t->n++] = r;
}

// ---- rows and sums
static InsertSql usage_add = {
    .name = "usage_add",
    .into = "usage (id, org, project, request_id, key_id, owner, model, deployment, "
            "replica, version, end_user, error_class, currency, price_id, operation, outcome, "
            "status, attempt, started_at, ended_at, prompt_tokens, cached_tokens, "
            "completion_tokens, machine_us, cost, streamed, tokens_exact, revision, created_at, "
            "updated_at)",
    .columns = 30,
    .tail = "ON CONFLICT (project, id) DO NOTHING",
};
static SQL(usage_day_add,
           "INSERT INTO usage_day (project, day, key_id, model, currency, org, requests, failed, "
           "prompt_tokens, cached_tokens, completion_tokens, machine_us, cost) "
           "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) "
           "ON CONFLICT (project, day, key_id, model, currency) DO UPDATE SET "
           "requests = usage_day.requests + $7, failed = usage_day.failed + $8, "
           "prompt_tokens = usage_day.prompt_tokens + $9, "
           "cached_tokens = usage_day.cached_tokens + $10, "
           "completion_tokens = usage_day.completion_tokens + $11, "
           "machine_us = usage_day.machine_us + $12, cost = " USAGE_SUM("usage_day.cost", "$13"));

// clang-format off
static const Metric repeated = { "lathe.usage.repeated", "{attempt}", METRIC_COUNTER, { 0 }, NULL,
    "Attempts that came to the ledger a second time and were passed over: a fault of Lathe's",
    "重复到达账本而被忽略的调用：属于 Lathe 的缺陷" };
static const Metric gaps = { "lathe.usage.gaps", "{gap}", METRIC_COUNTER, { 0 }, NULL,
    "Power cuts and lost segments of the journal, after which usage may be missing: see the audit",
    "断电或日志段丢失的次数：其后可能缺少用量记录，详见审计" };
const Metric *const usage_metrics[] = { &repeated, &gaps, NULL };
// clang-format on

static err add_row(Insert *to, const RequestRecord *r) {
    const Val v[] = { V(r->attempt_id),
                      V(r->org),
                      V(r->project),
                      V(r->request_id),
                      V(r->key_id),
                      V(r->owner),
                      V(r->model),
                      V(r->deployment),
                      V(r->replica),
                      V(r->version),
                      V(r->end_user),
                      V(r->error_class),
                      V(r->currency),
                      V(r->price_id),
                      V(operation_name(r->operation)),
                      V(outcome_name(r->outcome)),
                      V(r->status),
                      V(r->attempt),
                      V(r->start_ms),
                      V(r->end_ms),
                      V(r->prompt_tokens),
                      V(r->cached_tokens),
                      V(r->completion_tokens),
                      V(r->machine_us),
                      V(r->cost_nano),
                      V((int)r->streamed),
                      V((int)r->tokens_exact),
                      V(1),
                      V(r->end_ms),
                      V(r->end_ms) };
    static_assert(countof(v) == 30, "as many as its statement has columns");
    return insert_row(to, v);
}

// An attempt is settled once. A second time would be a fault of ours: it is said and counted, and
// must not hold up all that comes after it.
static err add_apart(Ctx *c, Tx *tx, const RequestRecord *r, bool *out_new) {
    Insert to = insert_begin(c, tx, &usage_add);
    int64_t added;
    TRY(add_row(&to, r));
    TRY(insert_end(&to, &added));
    *out_new = added;
    if (added) return ERR_OK;
    metric_add(&repeated, 1);
    log_at("usage", LOG_ERROR, c, "an attempt was settled twice: the first stays", "attempt",
           say_str(c, r->attempt_id), "request", say_str(c, r->request_id));
    return ERR_OK;
}

typedef struct Day {
    const RequestRecord *of; // one of those it sums
    int64_t day, requests, failed, prompt_tokens, cached_tokens, completion_tokens, machine_us,
        cost_nano;
} Day;

static void sum_day(Ctx *c, Map *days, const RequestRecord *r) {
    int64_t day = time_day(r->start_ms);
    char text[STR_I64];
    const str parts[] = { r->project, str_i64(day, text), r->key_id, r->currency, r->model };
    str key = arena_join(c->mem, parts, countof(parts), S("\n"));
    Day *d = map_get(days, key);
    if (!d) {
        d = new (c->mem, Day, 1);
        d->of = r, d->day = day;
        map_set(days, key, d);
    }
    d->requests++, d->failed += r->outcome != OUTCOME_OK;
    d->prompt_tokens += r->prompt_tokens, d->cached_tokens += r->cached_tokens;
    d->completion_tokens += r->completion_tokens;
    d->machine_us += r->machine_us, d->cost_nano = usage_sum(d->cost_nano, r->cost_nano);
}

static str text_or(str s, str instead) { return s.p ? s : instead; }

// What each has cost since the beginning: its key, project and organisation.
static err add_spent(Ctx *c, Tx *tx, const Day *d) {
    static SQL(usage_spent_add,
               "INSERT INTO usage_spent (subject, cost) VALUES ($1, $2) ON "
               "CONFLICT (subject) DO UPDATE SET cost = " USAGE_SUM("usage_spent.cost", "$2"));
    const str of[] = { d->of->key_id, d->of->project, d->of->org };
    for (size_t i = 0; i < countof(of) && d->cost_nano; i++)
        if (of[i].n) TRY(db_run(c, tx, &usage_spent_add, V(of[i]), V(d->cost_nano)));
    return ERR_OK;
}

static err add_days(Ctx *c, Tx *tx, const Map *days) {
    MapEntry *e;
    for (size_t i = 0; map_each(days, &i, &e);) {
        const Day *d = e->value;
        TRY(db_run(c, tx, &usage_day_add, V(d->of->project), V(d->day),
                   V(text_or(d->of->key_id, S(""))), V(d->of->model),
                   V(text_or(d->of->currency, S(""))), V(d->of->org), V(d->requests), V(d->failed),
                   V(d->prompt_tokens), V(d->cached_tokens), V(d->completion_tokens),
                   V(d->machine_us), V(d->cost_nano)));
        TRY(add_spent(c, tx, d));
    }
    return ERR_OK;
}

// All at once. Were some there already, nobody says which: the transaction is undone and run again
// with each row by itself.
static err add_together(Ctx *c, Tx *tx, const Told *t) {
    Insert to = insert_begin(c, tx, &usage_add);
    int64_t rows = 0, added;
    for (size_t i = 0; i < t->n; i++) {
        if (!t->at[i]->attempt) continue;
        TRY(add_row(&to, t->at[i]));
        rows++;
    }
    TRY(insert_end(&to, &added));
    return added == rows ? ERR_OK
                         : fail(c, ERR_CONFLICT, R_DB_UNIQUE, "index", "usage(project,id)");
}

// A refused request has no attempt, so no row and no place in the sums.
static err add_rows(Ctx *c, Tx *tx, const Told *t, Told *out, Map *days) {
    if (!t->apart) TRY(add_together(c, tx, t));
    for (size_t i = 0; i < t->n; i++) {
        bool fresh = true;
        if (t->apart && t->at[i]->attempt) TRY(add_apart(c, tx, t->at[i], &fresh));
        if (!fresh) continue;
        if (t->at[i]->attempt) sum_day(c, days, t->at[i]);
        tell(c, out, t->at[i]);
    }
    return ERR_OK;
}

static err add_all(Ctx *c, Tx *tx, const Told *t) {
    Map days;
    Told fresh = { 0 };
    map_init(&days, 0x64617973);
    err e = add_rows(c, tx, t, &fresh, &days);
    if (!e) e = add_days(c, tx, &days);
    map_done(&days);
    for (size_t i = 0; i < views.n && !e && fresh.n; i++)
        e = views.at[i]->fold(c, tx, fresh.at, fresh.n);
    return e;
}

// fn ends with add_all of `told`.
static err add_tx(Ctx *c, err (*fn)(Ctx *c, Tx *tx, void *arg), void *arg, Told *told) {
    Failure before = c->failure;
    err e = db_tx(c, c->db, fn, arg);
    if (e != ERR_CONFLICT || c->failure.why != &R_DB_UNIQUE) return e;
    c->failure = before;
    told->apart = true;
    return db_tx(c, c->db, fn, arg);
}

// ---- a batch
static SQL(fold_get, "SELECT segment, at FROM usage_fold WHERE node = $1");
static SQL(fold_set, "INSERT INTO usage_fold (node, segment, at) VALUES ($1, $2, $3) ON CONFLICT "
                     "(node) DO UPDATE SET segment = $2, at = $3");
static SQL(open_add, "INSERT INTO usage_open (id, node, record, tokens, prompt_tokens, "
                     "cached_tokens) VALUES ($1, $2, $3, $4, $5, $6)");
static SQL(open_mark, "UPDATE usage_open SET tokens = $1, prompt_tokens = $2, cached_tokens = $3 "
                      "WHERE id = $4");
static SQL(open_drop, "DELETE FROM usage_open WHERE id = $1");
static SQL(open_all, "SELECT id, record, tokens, prompt_tokens, cached_tokens FROM usage_open "
                     "WHERE node = $1 ORDER BY id");

typedef struct Open {
    str bytes;
    int64_t completion_tokens, prompt_tokens, cached_tokens;
} Open; // seen in this batch, not settled in it
typedef struct Batch {
    const JournalBatch *b;
    JournalPos next;
    Map open;
    Told told;
} Batch;

static Open tokens_of(const RequestRecord *r, str bytes) {
    return (Open){ bytes, r->completion_tokens, r->prompt_tokens, r->cached_tokens };
}

static void fold_open(Ctx *c, Batch *b, const RequestRecord *r, str bytes) {
    Open *o = new (c->mem, Open, 1);
    *o = tokens_of(r, bytes);
    map_set(&b->open, r->attempt_id, o);
}

static err fold_mark(Ctx *c, Tx *tx, Batch *b, const RequestRecord *m) {
    Open *o = map_get(&b->open, m->attempt_id);
    if (o) {
        *o = tokens_of(m, o->bytes);
        return ERR_OK;
    }
    return db_run(c, tx, &open_mark, V(m->completion_tokens), V(m->prompt_tokens),
                  V(m->cached_tokens), V(m->attempt_id));
}

static err fold_end(Ctx *c, Tx *tx, Batch *b, uint16_t kind, const RequestRecord *r) {
    tell(c, &b->told, r);
    if (kind != USAGE_SETTLE || map_del(&b->open, r->attempt_id)) return ERR_OK;
    return db_run(c, tx, &open_drop, V(r->attempt_id));
}

static void say_unreadable(Ctx *c, JournalPos pos) {
    log_at("usage", LOG_ERROR, c, "a journal record cannot be read", "segment",
           say(c, "%llu", (unsigned long long)pos.segment), "offset",
           say(c, "%llu", (unsigned long long)pos.offset));
}

// Of what only begins an attempt no more is read than its end needs, which is nearly always in the
// same batch.
static err fold_one(Ctx *c, Tx *tx, Batch *b, const JournalRecord *j) {
    RequestRecord start, *whole;
    switch (j->kind) {
    case USAGE_OPEN:
    case USAGE_MARK:
        if (!usage_unpack_mark(j->bytes, &start)) break;
        if (j->kind == USAGE_MARK) return fold_mark(c, tx, b, &start);
        fold_open(c, b, &start, j->bytes);
        return ERR_OK;
    case USAGE_SETTLE:
    case USAGE_REFUSED:
        whole = new (c->mem, RequestRecord, 1);
        if (!usage_unpack(j->bytes, whole)) break;
        return fold_end(c, tx, b, j->kind, whole);
    default: return ERR_OK;
    }
    say_unreadable(c, j->pos);
    return ERR_OK;
}

static err keep_open(Ctx *c, Tx *tx, const Batch *b) {
    MapEntry *e;
    for (size_t i = 0; map_each(&b->open, &i, &e);) {
        const Open *o = e->value;
        TRY(db_run(c, tx, &open_add, V(e->key), V((int64_t)b->next.node), val_blob(o->bytes),
                   V(o->completion_tokens), V(o->prompt_tokens), V(o->cached_tokens)));
    }
    return ERR_OK;
}

// What is missing of the journal may have held usage: who audits the ledger has to know.
static err tell_gap(Ctx *c, Tx *tx, str why) {
    str place = app_of(c)->node;
    AuditEntry entry = { "lose", "journal", place, place, { 0 }, why, SCOPE_SYSTEM };
    return app_of(c)->audit ? app_of(c)->audit(c, tx, &entry) : ERR_OK;
}

static err power_cut_tx(Ctx *c, Tx *tx, void *unused) {
    (void)unused;
    return tell_gap(c, tx, S("{\"missing\":[null,\"up to 50 ms before a power cut\"]}"));
}
err ledger_tell_power_cut(Ctx *c) {
    Journal *j = app_of(c)->journal;
    if (!journal_gap(j)) return ERR_OK;
    log_at("usage", LOG_WARN, c,
           "the machine ended under the server: up to 50 ms of usage may be missing");
    TRY(db_tx(c, c->db, power_cut_tx, NULL));
    metric_add(&gaps, 1);
    return journal_gap_told(c, j);
}

static err batch_tx(Ctx *c, Tx *tx, void *arg) {
    Batch *b = arg;
    err e = b->b->gap ? tell_gap(c, tx, S("{\"missing\":[null,\"segments\"]}")) : ERR_OK;
    map_init(&b->open, 0x6f70656e);
    b->told.n = 0;
    for (size_t i = 0; i < b->b->n && !e; i++) e = fold_one(c, tx, b, &b->b->records[i]);
    if (!e) e = keep_open(c, tx, b);
    map_done(&b->open);
    if (!e) e = add_all(c, tx, &b->told);
    if (e) return e;
    return db_run(c, tx, &fold_set, V((int64_t)b->next.node), V((int64_t)b->next.segment),
                  V((int64_t)b->next.offset));
}

static err ledger_batch(Ctx *c, const JournalBatch *batch, JournalPos next) {
    Batch b = { .b = batch, .next = next };
    TRY(add_tx(c, batch_tx, &b, &b.told));
    if (batch->gap) metric_add(&gaps, 1);
    return ERR_OK;
}

err usage_position(Ctx *c, Tx *tx, const Sql *get, JournalPos *at) {
    Rows *rows;
    bool any;
    at->segment = at->offset = 0;
    TRY(db_ask(c, tx, &rows, get, V((int64_t)at->node)));
    TRY(rows_next(c, rows, &any));
    if (!any) return ERR_OK;
    at->segment = (uint64_t)col_int(rows, 0), at->offset = (uint64_t)col_int(rows, 1);
    rows_close(rows);
    return ERR_OK;
}
static err position_tx(Ctx *c, Tx *tx, void *arg) { return usage_position(c, tx, &fold_get, arg); }
static err ledger_position(Ctx *c, JournalPos *out) {
    *out = (JournalPos){ journal_end(app_of(c)->journal).node, 0, 0 };
    return db_read(c, c->db, position_tx, out);
}
const UsageFolder ledger = { "usage", ledger_position, ledger_batch };

// ---- after a crash
// At the price that was asked, as it was then. How long the engine worked is not known.
static int64_t price_then(const RequestRecord *r) {
    Price p = { .input_nano = r->rate_input,
                .cached_nano = r->rate_cached,
                .output_nano = r->rate_output };
    return usage_cost(&p, r->prompt_tokens, r->cached_tokens, r->completion_tokens, 0);
}

// Records of releases before the first that wrote it say only which price: if it is still there.
static err price_orphan(Ctx *c, Tx *tx, RequestRecord *r) {
    static SQL(price_by_id,
               "SELECT input, COALESCE(cached, input), output FROM prices WHERE id = $1");
    Rows *rows;
    bool more;
    r->machine_us = 0;
    r->cost_nano = r->priced ? price_then(r) : 0;
    if (r->priced || !r->price_id.n) return ERR_OK;
    TRY(db_ask(c, tx, &rows, &price_by_id, V(r->price_id)));
    TRY(rows_next(c, rows, &more));
    if (!more) return ERR_OK;
    Price p = { .input_nano = col_int(rows, 0),
                .cached_nano = col_int(rows, 1),
                .output_nano = col_int(rows, 2) };
    r->cost_nano = usage_cost(&p, r->prompt_tokens, r->cached_tokens, r->completion_tokens, 0);
    rows_close(rows);
    return ERR_OK;
}

static err read_orphan(Ctx *c, Tx *tx, const Rows *rows, Told *out) {
    RequestRecord *r = new (c->mem, RequestRecord, 1);
    TRY(db_run(c, tx, &open_drop, V(col_str(rows, 0))));
    if (!usage_unpack(col_str(rows, 1), r)) return ERR_OK;
    r->outcome = OUTCOME_INTERRUPTED, r->status = 502, r->error_class = S("interrupted"),
    r->error_reason = S("server_died");
    r->completion_tokens = r->operation == OP_EMBEDDING ? 0 : col_int(rows, 2);
    r->prompt_tokens = col_int(rows, 3), r->cached_tokens = col_int(rows, 4);
    r->end_ms = r->start_ms, r->tokens_exact = false, r->final = true;
    r->ttft_us = r->tbt_mean_us = r->tbt_max_us = -1;
    tell(c, out, r);
    return price_orphan(c, tx, r);
}

static err settle_orphans(Ctx *c, Tx *tx, void *arg) {
    Told *told = arg;
    Rows *rows;
    bool more;
    told->n = 0;
    TRY(db_ask(c, tx, &rows, &open_all, V((int64_t)journal_end(app_of(c)->journal).node)));
    TRY(rows_next(c, rows, &more));
    while (more) {
        TRY(read_orphan(c, tx, rows, told));
        TRY(rows_next(c, rows, &more));
    }
    return add_all(c, tx, told);
}

// What each key, project and organisation spent today, this month and in all, for its limits; told
// once it was read to the end.
typedef struct Spent {
    str by;
    Period period;
    int64_t nano;
    struct Spent *next;
} Spent;
typedef struct Spending {
    int64_t now_ms;
    Spent *first;
} Spending;

static void note_spent(Ctx *c, Spending *all, str by, Period p, int64_t nano) {
    if (!by.n) return;
    Spent *s = new (c->mem, Spent, 1);
    *s = (Spent){ by, p, nano, all->first };
    all->first = s;
}

static err read_month(Ctx *c, Tx *tx, Spending *all) {
    static SQL(spent_by_day, "SELECT key_id, project, org, cost, day FROM usage_day WHERE day >= "
                             "$1 AND day <= $2");
    Rows *rows;
    int64_t today = time_day(all->now_ms);
    int64_t first = time_day(time_month_begin(time_month(all->now_ms)));
    TRY(db_ask(c, tx, &rows, &spent_by_day, V(first), V(today)));
    for (bool more;;) {
        TRY(rows_next(c, rows, &more));
        if (!more) return ERR_OK;
        for (int i = 0; i < 3; i++) {
            note_spent(c, all, col_str(rows, i), PERIOD_MONTH, col_int(rows, 3));
            if (col_int(rows, 4) == today)
                note_spent(c, all, col_str(rows, i), PERIOD_DAY, col_int(rows, 3));
        }
    }
}

// Those that are gone are asked for no more.
static err read_total(Ctx *c, Tx *tx, Spending *all) {
    static SQL(spent_in_all,
               "SELECT subject, cost FROM usage_spent WHERE subject IN (SELECT id FROM api_keys "
               "UNION ALL SELECT id FROM admin_keys UNION ALL SELECT id FROM projects UNION ALL "
               "SELECT id FROM organisations)");
    Rows *rows;
    TRY(db_query(c, tx, &spent_in_all, NULL, 0, &rows));
    for (bool more;;) {
        TRY(rows_next(c, rows, &more));
        if (!more) return ERR_OK;
        note_spent(c, all, col_str(rows, 0), PERIOD_TOTAL, col_int(rows, 1));
    }
}

static err read_spending(Ctx *c, Tx *tx, void *arg) {
    Spending *all = arg;
    all->first = NULL;
    TRY(read_month(c, tx, all));
    return read_total(c, tx, all);
}

err ledger_settle_orphans(Ctx *c) {
    Told told = { 0 };
    TRY(add_tx(c, settle_orphans, &told, &told));
    if (told.n)
        log_at("usage", LOG_WARN, c, "requests that the last crash cut were settled as interrupted",
               "requests", say(c, "%zu", told.n));
    return ERR_OK;
}
err ledger_recover_spending(Ctx *c) {
    Spending all = { .now_ms = os_wall_ms(c->os) };
    TRY(db_read(c, c->db, read_spending, &all));
    for (const Spent *s = all.first; s; s = s->next)
        limiter_spent(access_limiter(), s->by, s->period, all.now_ms, s->nano);
    return ERR_OK;
}

void ledger_close(void) { views.n = 0; }
