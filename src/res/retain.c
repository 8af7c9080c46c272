// SPDX-License-Identifier: Apache-2.0
// retain.c - retention: every kind of data that grows has a row that says for how long it is kept;
// one node removes the rest, hourly.
#include "res/kit.h"
#include "base/log.h"
#include "base/time.h"
#include "os/thread.h"
#include "res/retain.h"
#include "res/table.h"
#include "res/trim.h"
#include "res/worker.h"

static err trim_answers(Ctx *c, int64_t before_ms, int64_t *out_removed) {
    static const TrimTable answers = { "idempotency", "at_ms", NULL };
    *out_removed = 0;
    return trim_rows(c, c->db, &answers, &(TrimBelow){ .before = V(before_ms) }, out_removed);
}
static err trim_jobs(Ctx *c, int64_t before_ms, int64_t *out_removed) {
    *out_removed = 0;
    return jobs_trim(c, app_of(c)->jobs, before_ms);
}
// clang-format off
const Retention kit_retentions[] = {
    { "jobs", &kit_settings[KIT_KEEP_JOBS], trim_jobs, "Ended jobs and their logs", "已结束的作业及日志" },
    { "idempotency", &kit_settings[KIT_KEEP_ANSWERS], trim_answers,
        "Answers remembered by Idempotency-Key", "按幂等键记住的应答" },
    { 0 }
};
// clang-format on

static void say_removed(Ctx *c, const char *what, int64_t n) {
    if (n)
        log_at("retain", LOG_INFO, c, "removed what was kept long enough", "what", what, "rows",
               say(c, "%lld", (long long)n));
}

// What each row's last run did, for who asks.
enum { ROWS_MAX = 32 };
static struct {
    pthread_mutex_t lock;
    struct Ran {
        const Retention *row;
        Retained last;
    } at[ROWS_MAX];
} ran = { .lock = PTHREAD_MUTEX_INITIALIZER };

static struct Ran *ran_of(const Retention *r) { // under the lock; NULL: more rows than that
    for (size_t i = 0; i < ROWS_MAX; i++) {
        if (!ran.at[i].row) ran.at[i].row = r;
        if (ran.at[i].row == r) return &ran.at[i];
    }
    return NULL;
}

Retained retain_last(const Retention *r) {
    pthread_mutex_lock(&ran.lock);
    const struct Ran *at = ran_of(r);
    Retained last = at ? at->last : (Retained){ 0 };
    pthread_mutex_unlock(&ran.lock);
    return last;
}

static void note(Ctx *c, const Retention *r, int64_t removed) {
    pthread_mutex_lock(&ran.lock);
    struct Ran *at = ran_of(r);
    if (at) at->last = (Retained){ os_wall_ms(c->os), removed };
    pthread_mutex_unlock(&ran.lock);
}

// What was removed is said also of a run that could not be ended: the next one goes on from there.
static err run_one(Ctx *c, const Retention *r) {
    int64_t keep_ms = setting_int(r->setting), removed = 0;
    int64_t before_ms = os_wall_ms(c->os) - keep_ms;
    if (before_ms < 0)
        before_ms = 0; // longer than there is time: identifiers hold none before 1970
    err e = keep_ms ? r->trim(c, before_ms, &removed) : ERR_OK;
    say_removed(c, r->name, removed);
    if (!e) note(c, r, removed);
    return e;
}

static err run_table(Ctx *c, const ResTable *of) {
    const TrimTable t = { of->r->plural, "created_at", NULL };
    int64_t before_ms = os_wall_ms(c->os) - (int64_t)of->r->retain_days * 86400000, removed = 0;
    if (!of->r->retain_days) return ERR_OK;
    err e = trim_rows(c, c->db, &t, &(TrimBelow){ .before = V(before_ms) }, &removed);
    say_removed(c, of->r->plural, removed);
    return e;
}

// One kind that cannot be trimmed, say backups on a disk that is away, does not keep the others.
err retain_run(Ctx *c) {
    Failure first = { 0 };
    err failed = ERR_OK;
    for (const Module *const *m = app_of(c)->modules; *m; m++)
        for (const Retention *r = (*m)->retentions; r && r->name; r++) {
            err e = run_one(c, r);
            if (e && !failed) failed = e, first = c->failure;
        }
    for (size_t i = 0; i < tables_count(); i++) {
        err e = run_table(c, table_at(i));
        if (e && !failed) failed = e, first = c->failure;
    }
    if (failed) c->failure = first;
    return failed;
}

static Worker *keeper;

static err keep(Ctx *c, void *arg) {
    (void)arg;
    Lease lease;
    err e = lease_take(c, c->db, S("retain"), app_of(c)->node, RETAIN_EVERY_MS / 2, &lease);
    if (e == ERR_CONFLICT) return ERR_OK; // another node does it
    return e ? e : retain_run(c);
}

err retain_start(Ctx *c) {
    keeper = worker_start(app_of(c), "retain", RETAIN_EVERY_MS, keep, NULL);
    return ERR_OK;
}

void retain_stop(void *app) {
    (void)app;
    worker_free(keeper);
    keeper = NULL;
}
