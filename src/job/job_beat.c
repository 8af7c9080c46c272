// SPDX-License-Identifier: Apache-2.0
// job_beat.c - keeps the leases of running attempts, writes their progress, tells them of a cancel
// or of a lost lease, and puts back what a dead process left running. Threads: the beating one's
// only (simulated: its timer), and jobs_start's for what this node's last life left.
#include "job/job_own.h"
#include <assert.h>

enum { NS_PER_MS = 1000000, REAP_MAX = 20 };

// ---- beating

static SQL(job_beat, "UPDATE job SET lease_until_ms = $3"
                     " WHERE id = $1 AND epoch = $2 AND state = 'running'");
static SQL(job_set_progress, "UPDATE job SET progress_done = $3, progress_total = $4, unit = $5"
                             " WHERE id = $1 AND epoch = $2 AND state = 'running'");
static SQL(job_flags, "SELECT id, epoch, cancel_asked FROM job"
                      " WHERE state = 'running' AND holder = $1");
static SQL(job_expired, "SELECT " JOB_COLUMNS " FROM job WHERE state = 'running'"
                        " AND lease_until_ms < $1 LIMIT 20");
static SQL(job_former, "SELECT " JOB_COLUMNS " FROM job WHERE state = 'running'"
                       " AND node = $1 AND holder <> $2 LIMIT 20");

typedef struct Pulse { // of one running attempt
    str id;
    int64_t epoch, done, total;
    const char *unit;
    bool progressed, ours, cancel;
} Pulse;
typedef struct Beat {
    Jobs *s;
    Pulse *pulses;
    size_t n;
    bool extend, write;
} Beat;

static void pulses_copy(Ctx *c, Beat *b) {
    Jobs *s = b->s;
    pthread_mutex_lock(&s->lock);
    b->pulses = new (c->mem, Pulse, (size_t)s->running_n + 1);
    for (Job *j = s->running; j; j = j->next) {
        b->pulses[b->n++] = (Pulse){ .id = arena_str(c->mem, j->row.view.id),
                                     .epoch = j->row.epoch,
                                     .done = j->done,
                                     .total = j->total,
                                     .unit = j->unit,
                                     .progressed = j->progressed };
        b->write = b->write || j->progressed;
        j->progressed = false;
    }
    pthread_mutex_unlock(&s->lock);
    b->write = b->n && (b->write || b->extend);
}

static err beat(Ctx *c, Tx *tx, void *arg) {
    Beat *b = arg;
    int64_t until_ms = b->write ? tx_now_ms(tx) + b->s->ttl_ms : 0;
    for (size_t i = 0; i < b->n; i++) {
        Pulse *p = &b->pulses[i];
        p->ours = p->cancel = false;
        if (b->extend) TRY(db_run(c, tx, &job_beat, V(p->id), V(p->epoch), V(until_ms)));
        if (p->progressed)
            TRY(db_run(c, tx, &job_set_progress, V(p->id), V(p->epoch), V(p->done), V(p->total),
                       V(p->unit)));
    }
    Rows *r;
    TRY(db_ask(c, tx, &r, &job_flags, V(b->s->holder)));
    for (bool more = true; more;) {
        TRY(rows_next(c, r, &more));
        for (size_t i = 0; more && i < b->n; i++) {
            Pulse *p = &b->pulses[i];
            if (p->epoch != col_int(r, 1) || !str_eq(p->id, col_str(r, 0))) continue;
            p->ours = true;
            p->cancel = col_int(r, 2) != 0;
        }
    }
    return ERR_OK;
}

// What the beat learned; `e` when the database did not answer: then a lease runs out by our clock.
static void pulses_apply(const Beat *b, int64_t now_ns, err e) {
    Jobs *s = b->s;
    pthread_mutex_lock(&s->lock);
    for (Job *j = s->running; j; j = j->next) {
        const Pulse *p = NULL;
        for (size_t i = 0; i < b->n && !p; i++)
            if (b->pulses[i].epoch == j->row.epoch && str_eq(b->pulses[i].id, j->row.view.id))
                p = &b->pulses[i];
        if (!p) continue; // taken meanwhile
        if (e && p->progressed) j->progressed = true;
        if (!e && p->ours && b->extend) j->beat_ns = now_ns;
        if (e ? now_ns - j->beat_ns > s->ttl_ms * NS_PER_MS : !p->ours) j->lost = true;
        if (!e && p->cancel) j->cancel = true;
        if (j->lost || j->cancel) ctx_cancel(&j->c);
    }
    pthread_mutex_unlock(&s->lock);
}

typedef struct Reap {
    Jobs *s;
    bool former; // what this node's last life left, instead of what expired
    size_t n;
} Reap;

static err reap(Ctx *c, Tx *tx, void *arg) {
    Reap *a = arg;
    JobRow rows[REAP_MAX];
    Rows *r;
    a->n = 0;
    if (a->former) TRY(db_ask(c, tx, &r, &job_former, V(a->s->node), V(a->s->holder)));
    else TRY(db_ask(c, tx, &r, &job_expired, V(tx_now_ms(tx))));
    for (bool more = true; more && a->n < REAP_MAX;) {
        TRY(rows_next(c, r, &more));
        if (more) job_row_read(r, &rows[a->n++]);
    }
    rows_close(r);
    for (size_t i = 0; i < a->n; i++) TRY(job_crashed(c, tx, a->s, &rows[i]));
    return ERR_OK;
}

static err any_expired(Ctx *c, Tx *tx, void *arg) {
    Reap *a = arg;
    Rows *r;
    bool more;
    TRY(db_ask(c, tx, &r, &job_expired, V(tx_now_ms(tx))));
    TRY(rows_next(c, r, &more));
    a->n = more;
    rows_close(r);
    return ERR_OK;
}

void jobs_reap_pass(Jobs *s, bool former) {
    Ctx c;
    Reap a = { .s = s, .former = former, .n = 1 };
    jobs_ctx(s, &c);
    err e = former ? ERR_OK : db_read(&c, s->db, any_expired, &a);
    while (!e && a.n) {
        e = db_tx(&c, s->db, reap, &a);
        if (!e && a.n) jobs_wake(s);
    }
    arena_free(c.mem);
}

void jobs_beat_pass(Jobs *s) {
    Ctx c;
    Beat b = { .s = s };
    int64_t now_ns = os_mono_ns(s->os);
    pthread_mutex_lock(&s->lock);
    bool frozen = s->beats_frozen;
    b.extend = now_ns - s->beat_last_ns >= s->beat_ms * NS_PER_MS;
    if (b.extend) s->beat_last_ns = now_ns;
    pthread_mutex_unlock(&s->lock);
    if (frozen) return;
    jobs_ctx(s, &c);
    pulses_copy(&c, &b);
    if (b.n) {
        err e = b.write ? db_tx(&c, s->db, beat, &b) : db_read(&c, s->db, beat, &b);
        pulses_apply(&b, now_ns, e);
    }
    arena_free(c.mem);
    if (b.extend) jobs_reap_pass(s, false);
}
