// SPDX-License-Identifier: Apache-2.0
// job_take.c - what is due goes to a worker: the highest priority first, then the oldest, among the
// kinds that have room. Threads: the taking thread's only (simulated: its timer).
#include "job/job_own.h"
#include <assert.h>

enum { STRAYS_MAX = 20 };

// ---- taking

static SQL(job_next_of, "SELECT id, priority FROM job WHERE state = 'waiting' AND kind = $1"
                        " AND next_ms <= $2 ORDER BY priority DESC, id LIMIT 1");
static SQL(job_next_due, "SELECT next_ms FROM job WHERE state = 'waiting' AND next_ms > $1"
                         " ORDER BY next_ms LIMIT 1");
static SQL(job_take, "UPDATE job SET state = 'running', node = $3, holder = $4, epoch = epoch + 1,"
                     " attempt = attempt + 1, started_ms = $5, lease_until_ms = $6"
                     " WHERE id = $1 AND epoch = $2 AND state = 'waiting'");

typedef struct Take {
    Jobs *s;
    bool full[KINDS_MAX]; // kinds at their limit
    JobRow row;
    bool taken;
    int64_t due_ms; // until the next becomes due; -1: none waits for a time
} Take;

static err next_of_kind(Ctx *c, Tx *tx, const char *kind, str *id, int64_t *priority) {
    Rows *r;
    bool any;
    TRY(db_ask(c, tx, &r, &job_next_of, V(kind), V(tx_now_ms(tx))));
    TRY(rows_next(c, r, &any));
    if (any
        && (!id->p || col_int(r, 1) > *priority
            || (col_int(r, 1) == *priority && str_cmp(col_str(r, 0), *id) < 0))) {
        *id = col_str(r, 0);
        *priority = col_int(r, 1);
    }
    rows_close(r);
    return ERR_OK;
}

static err find_due(Ctx *c, Tx *tx, int64_t *out_ms) {
    Rows *r;
    bool any;
    int64_t now_ms = tx_now_ms(tx);
    TRY(db_ask(c, tx, &r, &job_next_due, V(now_ms)));
    TRY(rows_next(c, r, &any));
    *out_ms = any ? col_int(r, 0) - now_ms : -1;
    rows_close(r);
    return ERR_OK;
}

static err take(Ctx *c, Tx *tx, void *arg) {
    Take *t = arg;
    Jobs *s = t->s;
    str id = { 0 };
    int64_t priority = 0, changed, now_ms = tx_now_ms(tx);
    t->taken = false;
    for (size_t i = 0; i < s->kinds_n; i++)
        if (!t->full[i]) TRY(next_of_kind(c, tx, s->kinds[i]->name, &id, &priority));
    if (!id.p) return find_due(c, tx, &t->due_ms);
    TRY(job_row(c, tx, id, &t->row));
    Val args[] = { V(id),        V(t->row.epoch), V(s->node),
                   V(s->holder), V(now_ms),       V(now_ms + s->ttl_ms) };
    TRY(db_exec(c, tx, &job_take, args, countof(args), &changed));
    TRY(job_row(c, tx, id, &t->row));
    t->taken = changed == 1;
    return t->taken ? job_changed(c, tx, s, id) : ERR_OK;
}

// A look is a read; only when there is something does a write transaction follow.
static err look(Ctx *c, Tx *tx, void *arg) {
    Take *t = arg;
    str id = { 0 };
    int64_t priority = 0;
    for (size_t i = 0; i < t->s->kinds_n && !id.p; i++)
        if (!t->full[i]) TRY(next_of_kind(c, tx, t->s->kinds[i]->name, &id, &priority));
    t->taken = id.p != NULL;
    return t->taken ? ERR_OK : find_due(c, tx, &t->due_ms);
}

static Job *job_make(Jobs *s, const Ctx *c, const JobRow *row) {
    Job *j = new (c->mem, Job, 1);
    j->s = s;
    j->row = *row;
    j->kind = job_kind(s, row->view.kind, NULL);
    assert(j->kind);
    ctx_init(&j->c, c->mem, s->os);
    j->c.db = s->db;
    j->c.org = row->view.org, j->c.project = row->view.project;
    if (s->on_ctx) s->on_ctx(&j->c, s->on_ctx_arg);
    if (row->checkpoint.p) j->checkpoint = mem_strdup(row->checkpoint);
    j->checkpoint_n = row->checkpoint.n;
    j->done = row->view.progress_done, j->total = row->view.progress_total;
    pthread_mutex_init(&j->log_lock, NULL);
    return j;
}

static void job_enter(Jobs *s, Job *j) {
    size_t i;
    const JobKind *kind = job_kind(s, j->row.view.kind, &i);
    assert(kind);
    pthread_mutex_lock(&s->lock);
    j->beat_ns = os_mono_ns(s->os);
    j->next = s->running;
    s->running = j;
    s->running_n++;
    s->running_of[i]++;
    s->counts.taken++;
    if (s->stopping) j->pausing = true;
    pthread_mutex_unlock(&s->lock);
    if (j->pausing) ctx_cancel(&j->c);
    bool queued = pool_submit(s->pool, job_attempt_run, j);
    assert(queued); // the pool has as many places as workers
}

void jobs_job_gone(Jobs *s, Job *j) {
    size_t i;
    const JobKind *kind = job_kind(s, j->row.view.kind, &i);
    assert(kind);
    pthread_mutex_lock(&s->lock);
    Job **at = &s->running;
    while (*at != j) at = &(*at)->next;
    *at = j->next;
    s->running_n--;
    s->running_of[i]--;
    pthread_mutex_unlock(&s->lock);
    jobs_wake(s);
}

// Nothing was there to take, and nothing was committed since. Only where that is known without
// asking the database; others that write the same file (simulated nodes) are noticed a bit later.
static bool quiet(Ctx *c, Jobs *s, str *out_version) {
    if (db_shared(s->db) || db_version(c, s->db, out_version)) return false;
    return str_is(*out_version, s->seen) && os_mono_ns(s->os) < s->seen_until_ns;
}

static void quiet_note(Jobs *s, str version) {
    if (!version.n || version.n >= sizeof s->seen) return;
    memcpy(s->seen, version.p, version.n);
    s->seen[version.n] = 0;
    s->seen_until_ns = os_mono_ns(s->os) + (int64_t)SEEN_MS * 1000000;
}

// 1: took one, 0: nothing to take, -1: the database did not answer for sure.
static int take_one(Jobs *s, int64_t *due_ms) {
    Take t = { .s = s, .due_ms = -1 };
    pthread_mutex_lock(&s->lock);
    bool room = s->running_n < s->workers && !s->stopping;
    for (size_t i = 0; i < s->kinds_n; i++)
        t.full[i] = s->kinds[i]->parallel_max && s->running_of[i] >= s->kinds[i]->parallel_max;
    pthread_mutex_unlock(&s->lock);
    if (!room) return 0;
    Ctx c;
    jobs_ctx(s, &c);
    str version = S("");
    bool skip = quiet(&c, s, &version);
    err e = skip ? ERR_OK : db_read(&c, s->db, look, &t);
    if (!skip && !e && !t.taken && t.due_ms < 0) quiet_note(s, version);
    bool wrote = !e && t.taken;
    if (wrote) e = db_tx(&c, s->db, take, &t);
    if (!e && t.taken) {
        job_enter(s, job_make(s, &c, &t.row)); // which owns the arena now
        return 1;
    }
    arena_free(c.mem);
    *due_ms = t.due_ms;
    if (!e) return 0;
    pthread_mutex_lock(&s->lock);
    s->strays = s->strays || wrote; // it may have been taken, and nobody runs it
    pthread_mutex_unlock(&s->lock);
    return -1;
}

// ---- strays: rows that say we run them, and we do not

static SQL(job_of_holder,
           "SELECT " JOB_COLUMNS " FROM job WHERE state = 'running' AND holder = $1");

static bool runs(Jobs *s, const JobRow *row) {
    pthread_mutex_lock(&s->lock);
    bool found = false;
    for (Job *j = s->running; j && !found; j = j->next)
        found = j->row.epoch == row->epoch && str_eq(j->row.view.id, row->view.id);
    pthread_mutex_unlock(&s->lock);
    return found;
}

static err strays_free(Ctx *c, Tx *tx, void *arg) {
    Jobs *s = arg;
    Rows *r;
    JobRow rows[STRAYS_MAX];
    size_t n = 0;
    TRY(db_ask(c, tx, &r, &job_of_holder, V(s->holder)));
    for (bool more = true; more && n < STRAYS_MAX;) {
        TRY(rows_next(c, r, &more));
        if (more) job_row_read(r, &rows[n]);
        if (more && !runs(s, &rows[n])) n++;
    }
    rows_close(r);
    for (size_t i = 0; i < n; i++) {
        JobRow now = rows[i];
        bool changed;
        now.view.state = JOB_WAITING;
        now.view.next_ms = tx_now_ms(tx);
        now.view.attempt--;
        TRY(job_row_set(c, tx, &rows[i], &now, &changed));
        if (changed) TRY(job_changed(c, tx, s, now.view.id));
    }
    return ERR_OK;
}

int64_t jobs_take_pass(Jobs *s) {
    pthread_mutex_lock(&s->lock);
    bool strays = s->strays;
    s->strays = false;
    pthread_mutex_unlock(&s->lock);
    if (strays) { // on this thread, so that none is being taken meanwhile
        Ctx c;
        jobs_ctx(s, &c);
        err e = db_tx(&c, s->db, strays_free, s);
        arena_free(c.mem);
        pthread_mutex_lock(&s->lock);
        s->strays = s->strays || e;
        pthread_mutex_unlock(&s->lock);
    }
    int64_t due_ms = -1;
    int took;
    do took = take_one(s, &due_ms);
    while (took > 0);
    return due_ms >= 0 && due_ms < POLL_MS ? due_ms + 1 : POLL_MS;
}
