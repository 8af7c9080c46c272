// SPDX-License-Identifier: Apache-2.0
// fold.c - the journal is followed. Each folder has a worker and a position of its own; what is
// behind the slowest of them is trimmed. usage's own folder is ledger.c.
#include "mod/usage/usage_own.h"
#include "base/log.h"
#include "job/reason.h"
#include "os/thread.h"
#include "res/worker.h"
#include <assert.h>

// A batch gathers for EVERY_MS: a commit for each turn of a loop would cost more than the requests.
// Who needs the rows now calls usage_flush. After QUIET_TURNS without a record a folder rests: the
// next write of the journal wakes it.
enum {
    FOLDERS_MAX = 8,
    BATCH_MAX = 2000,
    EVERY_MS = 500,
    QUIET_TURNS = 4,
    REST_MS = 10000,
    UNREAD_MAX = 50, // turns
};

static struct {
    size_t folders_n;
    JournalPos began; // where this life's records begin
    atomic_bool caught_up;
    struct Follow {
        FoldReader reader;
        Worker *worker;
        int quiet; // turns without a record
        pthread_mutex_t lock;
        App *app;
    } folders[FOLDERS_MAX];
} all;

void usage_folder(const UsageFolder *f) {
    assert(all.folders_n < FOLDERS_MAX);
    pthread_mutex_init(&all.folders[all.folders_n].lock, NULL);
    all.folders[all.folders_n++].reader.f = f;
}

// ---- following the journal
static err trim(Ctx *c) {
    JournalPos slowest = { 0 };
    for (size_t i = 0; i < all.folders_n; i++) {
        struct Follow *f = &all.folders[i];
        pthread_mutex_lock(&f->lock);
        if (i == 0 || journal_before(f->reader.at, slowest)) slowest = f->reader.at;
        pthread_mutex_unlock(&f->lock);
    }
    return slowest.segment ? journal_trim(c, app_of(c)->journal, slowest) : ERR_OK;
}

err fold_next(Ctx *c, FoldReader *r, size_t most, bool *out_more) {
    JournalBatch b;
    Journal *j = app_of(c)->journal;
    if (r->doubt) TRY(r->f->position(c, &r->at));
    r->doubt = false;
    JournalPos end = journal_end(j); // an idle server opens no file to learn that nothing came
    *out_more = r->at.segment != end.segment || r->at.offset != end.offset;
    if (r->until.segment) *out_more = journal_before(r->at, r->until);
    if (!*out_more) return ERR_OK;
    err e = journal_read(c, j, r->at, most, &b);
    while (!e && r->until.segment && b.n && !journal_before(b.records[b.n - 1].pos, r->until))
        b.n--;
    // A disk that does not give it now may later: only what it gives and is no record is damaged.
    if (e && c->failure.why != &R_JOURNAL_BAD && ++r->unread < UNREAD_MAX) return e;
    r->unread = 0;
    JournalPos next = e ? journal_skip(j, r->at) : b.n ? b.records[b.n - 1].next : r->at;
    if (e && !journal_before(r->at, next)) return e; // damaged, and nothing after it yet
    if (e)
        log_at("usage", LOG_ERROR, c, "a damaged part of the journal was passed over", "reader",
               r->f->name);
    if (!e && b.gap)
        log_at("usage", LOG_WARN, c, "the journal begins later than its reader stood", "reader",
               r->f->name);
    *out_more = e || b.n;
    if (!*out_more) return ERR_OK;
    if (e) b.n = 0;
    r->doubt = true;
    TRY(r->f->batch(c, &b, next));
    r->at = next, r->doubt = false;
    return ERR_OK;
}

static err follow_once(Ctx *c, struct Follow *f, bool *out_more) {
    FoldReader r = f->reader; // only this thread writes it
    err e = fold_next(c, &r, BATCH_MAX, out_more);
    pthread_mutex_lock(&f->lock);
    f->reader = r;
    pthread_mutex_unlock(&f->lock);
    return e;
}

static err follow_all(Ctx *c, struct Follow *f, bool *out_any) {
    for (bool more = true; more;) {
        TRY(ctx_check(c));
        TRY(follow_once(c, f, &more));
        *out_any = *out_any || more;
        arena_reset(c->mem);
    }
    return ERR_OK;
}

static err follow(Ctx *c, void *arg) {
    struct Follow *f = arg;
    bool any = false;
    if (!usage_spending_known())
        return fail(c, ERR_UNAVAILABLE, R_DB_AWAY, "why",
                    "the journal waits for it since the start");
    TRY(follow_all(c, f, &any));
    f->quiet = any ? 0 : f->quiet + 1;
    if (f->quiet >= QUIET_TURNS) {
        worker_pace(REST_MS);
        TRY(follow_all(c, f, &any)); // what came before it rested
        if (any) f->quiet = 0;
    }
    if (f->quiet < QUIET_TURNS) worker_pace(EVERY_MS);
    return trim(c);
}

static void on_data(void *unused) {
    (void)unused;
    for (size_t i = 0; i < all.folders_n; i++) worker_nudge(all.folders[i].worker);
}

// The journal ends before what this folder has read: an older one is in its place, or the clock
// went back by more than its age. Whatever is there now is read; what was read before is known by
// its id.
static err begin_anew(Ctx *c, FoldReader *r) {
    const JournalBatch lost = { .gap = true };
    log_at("usage", LOG_ERROR, c, "the journal ends before its reader stood", "reader", r->f->name,
           "segment", say(c, "%llu", (unsigned long long)r->at.segment));
    r->at.segment = r->at.offset = 0;
    r->doubt = true;
    TRY(r->f->batch(c, &lost, r->at));
    r->doubt = false;
    return ERR_OK;
}

err usage_flush(Ctx *c) {
    TRY(journal_flush(c, app_of(c)->journal));
    for (size_t i = 0; i < all.folders_n; i++) TRY(worker_sync(c, all.folders[i].worker));
    return ERR_OK;
}

static err catch_up(Ctx *c, struct Follow *f) {
    TRY(f->reader.f->position(c, &f->reader.at));
    if (journal_before(all.began, f->reader.at)) TRY(begin_anew(c, &f->reader));
    f->reader.until = all.began;
    for (bool more = true; more;) {
        ArenaMark mark = arena_mark(c->mem);
        err e = follow_once(c, f, &more);
        if (e && f->reader.unread) thread_pause(c->os, EVERY_MS * INT64_C(1000000)), e = ERR_OK;
        TRY(e);
        arena_restore(c->mem, mark);
    }
    f->reader.until = (JournalPos){ 0 };
    return ERR_OK;
}

bool usage_spending_known(void) { return atomic_load(&all.caught_up); }

err fold_catch_up(Ctx *c) {
    if (usage_spending_known()) return ERR_OK;
    for (size_t i = 0; i < all.folders_n; i++) TRY(catch_up(c, &all.folders[i]));
    TRY(ledger_settle_orphans(c));
    TRY(ledger_tell_power_cut(c));
    TRY(ledger_recover_spending(c));
    atomic_store(&all.caught_up, true);
    return ERR_OK;
}

err fold_start(Ctx *c) {
    App *app = app_of(c);
    for (size_t i = 0; i < all.folders_n; i++)
        all.folders[i].worker =
            worker_start(app, all.folders[i].reader.f->name, EVERY_MS, follow, &all.folders[i]);
    journal_on_data(app->journal, on_data, NULL);
    return ERR_OK;
}

void fold_stop(void *app) {
    Ctx *c = app_ctx_new(app);
    if (usage_flush(c))
        log_at("usage", LOG_WARN, c, "the journal was not read to its end; the next start does it");
    journal_on_data(app_of(c)->journal, NULL, NULL);
    app_ctx_free(c);
    for (size_t i = 0; i < all.folders_n; i++) {
        worker_free(all.folders[i].worker);
        pthread_mutex_destroy(&all.folders[i].lock);
        all.folders[i] = (struct Follow){ 0 };
    }
    all.folders_n = 0;
    atomic_store(&all.caught_up, false);
    ledger_close();
}

void fold_init(Ctx *c) {
    all.began = journal_end(app_of(c)->journal);
    if (!all.began.segment) all.began.segment = 1, all.began.offset = 0; // nothing before
    usage_folder(&ledger);
}
