// SPDX-License-Identifier: Apache-2.0
// fold.c - the journal becomes rows. Each folder has a worker and a position of its own; usage's
// own folder writes the ledger: one row an attempt, sums by day, and the views, committed together
// with the position: exactly once. An attempt that is open at the end of a batch waits in
// usage_open; what is still there when the server starts, with the journal read to its end, was cut
// by a crash.
#include "mod/usage/usage_own.h"
#include "mod/access/access.h"
#include "base/log.h"
#include "base/map.h"
#include "base/time.h"
#include "res/worker.h"
#include <assert.h>

// A batch gathers for EVERY_MS: a commit for each turn of a loop would cost more than the requests.
// Who needs the rows now calls usage_flush.
enum { FOLDERS_MAX = 8, VIEWS_MAX = 8, BATCH_MAX = 2000, EVERY_MS = 200 };

static struct {
    const UsageView *views[VIEWS_MAX];
    size_t views_n, folders_n;
    struct Follow {
        const UsageFolder *f;
        Worker *worker;
        JournalPos at;
        pthread_mutex_t lock;
        App *app;
    } folders[FOLDERS_MAX];
} all;

void usage_view(const UsageView *v) {
    assert(all.views_n < VIEWS_MAX);
    all.views[all.views_n++] = v;
}
void usage_folder(const UsageFolder *f) {
    assert(all.folders_n < FOLDERS_MAX);
    all.folders[all.folders_n++].f = f;
}

// ---- into SQL
static SQL(usage_add, "INSERT INTO usage (id, org, project, request_id, key_id, owner, model, "
                      "deployment, replica, version, end_user, error_class, "
                      "currency, price_id, operation, outcome, status, attempt, started_at, "
                      "ended_at, prompt_tokens, cached_tokens, "
                      "completion_tokens, machine_us, cost, streamed, tokens_exact, revision, "
                      "created_at, updated_at) VALUES ($1, $2, $3, $4, $5, "
                      "$6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, "
                      "$22, $23, $24, $25, $26, $27, 1, $20, $20)");
static SQL(usage_day_add, "INSERT INTO usage_day (project, day, key_id, model, currency, org, "
                          "requests, failed, prompt_tokens, cached_tokens, "
                          "completion_tokens, machine_us, cost) VALUES ($1, $2, $3, $4, $5, $6, "
                          "$7, $8, $9, $10, $11, $12, $13) "
                          "ON CONFLICT (project, day, key_id, model, currency) DO UPDATE SET "
                          "requests = usage_day.requests + $7, "
                          "failed = usage_day.failed + $8, prompt_tokens = usage_day.prompt_tokens "
                          "+ $9, cached_tokens = usage_day.cached_tokens + $10, "
                          "completion_tokens = usage_day.completion_tokens + $11, machine_us = "
                          "usage_day.machine_us + $12, cost = usage_day.cost + $13");

static str text_or(str s, str instead) { return s.p ? s : instead; }

static err add_day(Ctx *c, Tx *tx, const RequestRecord *r) {
    return db_run(c, tx, &usage_day_add, V(r->project), V(time_day(r->start_ms)),
                  V(text_or(r->key_id, S(""))), V(r->model), V(text_or(r->currency, S(""))),
                  V(r->org), V(1), V((int)(r->outcome != OUTCOME_OK)), V(r->prompt_tokens),
                  V(r->cached_tokens), V(r->completion_tokens), V(r->machine_us), V(r->cost_nano));
}

static err tell_views(Ctx *c, Tx *tx, const RequestRecord *r) {
    for (size_t i = 0; i < all.views_n; i++) TRY(all.views[i]->fold(c, tx, r));
    return ERR_OK;
}
err fold_refused(Ctx *c, Tx *tx, const RequestRecord *r) { return tell_views(c, tx, r); }

err fold_settle(Ctx *c, Tx *tx, const RequestRecord *r) {
    TRY(db_run(c, tx, &usage_add, V(r->attempt_id), V(r->org), V(r->project), V(r->request_id),
               V(r->key_id), V(r->owner), V(r->model), V(r->deployment), V(r->replica),
               V(r->version), V(r->end_user), V(r->error_class), V(r->currency), V(r->price_id),
               V(operation_name(r->operation)), V(outcome_name(r->outcome)), V(r->status),
               V(r->attempt), V(r->start_ms), V(r->end_ms), V(r->prompt_tokens),
               V(r->cached_tokens), V(r->completion_tokens), V(r->machine_us), V(r->cost_nano),
               V((int)r->streamed), V((int)r->tokens_exact)));
    TRY(add_day(c, tx, r));
    return tell_views(c, tx, r);
}

// ---- usage's own folder
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
    RequestRecord r;
    str bytes;
} Open; // seen in this batch, not settled in it
typedef struct Batch {
    const JournalBatch *b;
    JournalPos next;
    Map open;
} Batch;

static err fold_mark(Ctx *c, Tx *tx, Batch *b, const RequestRecord *m) {
    Open *o = map_get(&b->open, m->attempt_id);
    if (!o)
        return db_run(c, tx, &open_mark, V(m->completion_tokens), V(m->prompt_tokens),
                      V(m->cached_tokens), V(m->attempt_id));
    o->r.completion_tokens = m->completion_tokens, o->r.prompt_tokens = m->prompt_tokens,
    o->r.cached_tokens = m->cached_tokens;
    return ERR_OK;
}

static err fold_one(Ctx *c, Tx *tx, Batch *b, const JournalRecord *j) {
    Open *o = new(c->mem, Open, 1);
    if (j->kind < USAGE_OPEN || j->kind > USAGE_REFUSED) return ERR_OK;
    if (!usage_unpack(j->bytes, &o->r)) {
        log_at("usage", LOG_ERROR, c, "a journal record cannot be read", "segment",
               say(c, "%llu", (unsigned long long)j->pos.segment), "offset",
               say(c, "%llu", (unsigned long long)j->pos.offset));
        return ERR_OK;
    }
    o->bytes = j->bytes;
    switch (j->kind) {
    case USAGE_OPEN: map_set(&b->open, o->r.attempt_id, o); return ERR_OK;
    case USAGE_MARK: return fold_mark(c, tx, b, &o->r);
    case USAGE_REFUSED: return fold_refused(c, tx, &o->r);
    default:
        if (!map_del(&b->open, o->r.attempt_id)) TRY(db_run(c, tx, &open_drop, V(o->r.attempt_id)));
        return fold_settle(c, tx, &o->r);
    }
}

static err batch_tx(Ctx *c, Tx *tx, void *arg) {
    Batch *b = arg;
    MapEntry *e;
    err result = ERR_OK;
    map_done(&b->open), map_init(&b->open, 0x6f70656e);
    for (size_t i = 0; i < b->b->n && !result; i++) result = fold_one(c, tx, b, &b->b->records[i]);
    for (size_t i = 0; !result && map_each(&b->open, &i, &e);) {
        const Open *o = e->value;
        result = db_run(c, tx, &open_add, V(e->key), V((int64_t)b->next.node), val_blob(o->bytes),
                        V(o->r.completion_tokens), V(o->r.prompt_tokens), V(o->r.cached_tokens));
    }
    if (!result)
        result = db_run(c, tx, &fold_set, V((int64_t)b->next.node), V((int64_t)b->next.segment),
                        V((int64_t)b->next.offset));
    map_done(&b->open);
    return result;
}

static err ledger_batch(Ctx *c, const JournalBatch *batch, JournalPos next) {
    Batch b = { batch, next, { 0 } };
    return db_tx(c, c->db, batch_tx, &b);
}

static err position_tx(Ctx *c, Tx *tx, void *arg) {
    JournalPos *at = arg;
    Rows *rows;
    bool more;
    TRY(db_ask(c, tx, &rows, &fold_get, V((int64_t)at->node)));
    TRY(rows_next(c, rows, &more));
    if (!more) return ERR_OK;
    at->segment = (uint64_t)col_int(rows, 0), at->offset = (uint64_t)col_int(rows, 1);
    rows_close(rows);
    return ERR_OK;
}
static err ledger_position(Ctx *c, JournalPos *out) {
    *out = (JournalPos){ journal_end(app_of(c)->journal).node, 0, 0 };
    return db_read(c, c->db, position_tx, out);
}
static const UsageFolder ledger = { "usage", ledger_position, ledger_batch };

// ---- following the journal
static bool before(JournalPos a, JournalPos b) {
    return a.segment < b.segment || (a.segment == b.segment && a.offset < b.offset);
}

static err trim(Ctx *c) {
    JournalPos slowest = { 0 };
    for (size_t i = 0; i < all.folders_n; i++) {
        struct Follow *f = &all.folders[i];
        pthread_mutex_lock(&f->lock);
        if (i == 0 || before(f->at, slowest)) slowest = f->at;
        pthread_mutex_unlock(&f->lock);
    }
    return slowest.segment ? journal_trim(c, app_of(c)->journal, slowest) : ERR_OK;
}

static err follow_once(Ctx *c, struct Follow *f, bool *out_more) {
    JournalBatch b;
    Journal *j = app_of(c)->journal;
    err e = journal_read(c, j, f->at, BATCH_MAX, &b);
    JournalPos next = e ? journal_skip(j, f->at) : b.n ? b.records[b.n - 1].next : f->at;
    if (e && !before(f->at, next)) return e; // damaged, and nothing after it yet
    if (e)
        log_at("usage", LOG_ERROR, c, "a damaged part of the journal was passed over", "reader",
               f->f->name);
    if (!e && b.gap)
        log_at("usage", LOG_WARN, c, "the journal begins later than its reader stood", "reader",
               f->f->name);
    *out_more = e || b.n;
    if (e || !b.n) {
        if (!e) return ERR_OK;
        b.n = 0;
    }
    TRY(f->f->batch(c, &b, next));
    pthread_mutex_lock(&f->lock);
    f->at = next;
    pthread_mutex_unlock(&f->lock);
    return ERR_OK;
}

static err follow(Ctx *c, void *arg) {
    struct Follow *f = arg;
    for (bool more = true; more;) {
        TRY(ctx_check(c));
        TRY(follow_once(c, f, &more));
        arena_reset(c->mem);
    }
    return trim(c);
}

err usage_flush(Ctx *c) {
    TRY(journal_flush(c, app_of(c)->journal));
    for (size_t i = 0; i < all.folders_n; i++) TRY(worker_sync(c, all.folders[i].worker));
    return ERR_OK;
}

// ---- after a crash
// At the price that was asked, if it is still known. How long the engine worked is not.
static err price_orphan(Ctx *c, Tx *tx, RequestRecord *r) {
    static SQL(price_by_id,
               "SELECT input, COALESCE(cached, input), output FROM prices WHERE id = $1");
    Rows *rows;
    bool more;
    r->cost_nano = r->machine_us = 0;
    if (!r->price_id.n) return ERR_OK;
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

static err settle_orphans(Ctx *c, Tx *tx, void *arg) {
    int64_t *settled = arg;
    Rows *rows;
    bool more;
    *settled = 0;
    TRY(db_ask(c, tx, &rows, &open_all, V((int64_t)journal_end(app_of(c)->journal).node)));
    for (;;) {
        RequestRecord r;
        TRY(rows_next(c, rows, &more));
        if (!more) return ERR_OK;
        TRY(db_run(c, tx, &open_drop, V(col_str(rows, 0))));
        if (!usage_unpack(col_str(rows, 1), &r)) continue;
        r.outcome = OUTCOME_INTERRUPTED, r.status = 502, r.error_class = S("interrupted"),
        r.error_reason = S("server_died");
        r.completion_tokens = r.operation == OP_EMBEDDING ? 0 : col_int(rows, 2);
        r.prompt_tokens = col_int(rows, 3), r.cached_tokens = col_int(rows, 4);
        r.end_ms = r.start_ms, r.tokens_exact = false, r.final = true;
        r.ttft_us = r.tbt_mean_us = r.tbt_max_us = -1;
        TRY(price_orphan(c, tx, &r));
        TRY(fold_settle(c, tx, &r));
        ++*settled;
    }
}

// What each key spent today, for its limit.
static err recover_spending(Ctx *c, Tx *tx, void *arg) {
    static SQL(
        spent_today,
        "SELECT key_id, CAST(SUM(cost) AS BIGINT) FROM usage_day WHERE day = $1 GROUP BY key_id");
    Rows *rows;
    bool more;
    int64_t day = time_day(os_wall_ms(c->os));
    (void)arg;
    TRY(db_ask(c, tx, &rows, &spent_today, V(day)));
    for (;;) {
        TRY(rows_next(c, rows, &more));
        if (!more) return ERR_OK;
        limiter_spent(access_limiter(), col_str(rows, 0), day, col_int(rows, 1));
    }
}

static err catch_up(Ctx *c, struct Follow *f) {
    TRY(f->f->position(c, &f->at));
    for (bool more = true; more;) TRY(follow_once(c, f, &more));
    return ERR_OK;
}

err fold_start(Ctx *c) {
    App *app = app_of(c);
    for (size_t i = 0; i < all.folders_n; i++) {
        pthread_mutex_init(&all.folders[i].lock, NULL);
        TRY(catch_up(c, &all.folders[i]));
    }
    int64_t settled = 0;
    TRY(db_tx(c, c->db, settle_orphans, &settled));
    if (settled)
        log_at("usage", LOG_WARN, c, "requests that the last crash cut were settled as interrupted",
               "requests", say(c, "%lld", (long long)settled));
    TRY(db_read(c, c->db, recover_spending, NULL));
    for (size_t i = 0; i < all.folders_n; i++)
        all.folders[i].worker =
            worker_start(app, all.folders[i].f->name, EVERY_MS, follow, &all.folders[i]);
    return ERR_OK;
}

void fold_stop(void *app) {
    Ctx *c = app_ctx_new(app);
    if (usage_flush(c))
        log_at("usage", LOG_WARN, c, "the journal was not read to its end; the next start does it");
    app_ctx_free(c);
    for (size_t i = 0; i < all.folders_n; i++) {
        worker_free(all.folders[i].worker);
        all.folders[i].worker = NULL;
    }
}

void fold_init(void) { usage_folder(&ledger); }
