// SPDX-License-Identifier: Apache-2.0
// database.c - see database.h.
#include "res/database.h"
#include "base/log.h"
#include "res/app.h"
#include "res/snapshot.h"
#include "res/worker.h"
#include <assert.h>

enum { STEPS_MAX = 8, EVERY_MS = 1000, REST_MS = 3600000 };
static struct {
    err (*steps[STEPS_MAX])(Ctx *c);
    size_t n;
    atomic_bool away;
    int64_t since_ns;
    Worker *worker;
} all;

bool database_awaited(void) { return atomic_load(&all.away); }

static bool is_away(const Ctx *c, err e) {
    return e == ERR_UNAVAILABLE && c->failure.why == &R_DB_AWAY && db_kind(c->db) == DB_POSTGRES;
}

// Of a database that answers and is not what it should be, the whole sentence.
static void refuse(Ctx *c, err e) {
    if (is_away(c, e)) {
        db_refuse(c->db, say_str(c, failure_param(&c->failure, "why")));
        return;
    }
    Buf b;
    buf_init(&b, 4096);
    failure_format(&c->failure, "en", &b);
    db_refuse(c->db, buf_z(&b));
    buf_done(&b);
}

err database_step(Ctx *c, err (*step)(Ctx *c)) {
    assert(all.n < STEPS_MAX && !all.worker);
    all.steps[all.n++] = step;
    if (all.away) return ERR_OK;
    err e = step(c);
    if (!is_away(c, e)) return e;
    atomic_store(&all.away, true);
    all.since_ns = os_mono_ns(c->os);
    refuse(c, e);
    log_at("database", LOG_WARN, c,
           "the database does not answer: starting without it, if a snapshot is kept here", "why",
           say_str(c, failure_param(&c->failure, "why")));
    return ERR_OK;
}

static err run_steps(Ctx *c) {
    for (size_t i = 0; i < all.n; i++) TRY(all.steps[i](c));
    return ERR_OK;
}

static err turn(Ctx *c, void *unused) {
    (void)unused;
    if (!database_awaited()) return ERR_OK;
    db_refuse_others(c->db);
    err e = run_steps(c);
    if (e) {
        refuse(c, e);
        return e;
    }
    db_accept(c->db);
    atomic_store(&all.away, false);
    log_at("database", LOG_INFO, c, "the database is there: all goes on as after any start",
           "waited_s",
           say(c, "%lld", (long long)((os_mono_ns(c->os) - all.since_ns) / 1000000000)));
    snapshot_wake(app_of(c));
    worker_pace(REST_MS);
    return ERR_OK;
}

void database_start(Ctx *c) {
    if (database_awaited()) all.worker = worker_start(app_of(c), "database", EVERY_MS, turn, NULL);
}

void database_stop(void) {
    worker_free(all.worker);
    all.worker = NULL, all.n = 0;
    atomic_store(&all.away, false);
}
