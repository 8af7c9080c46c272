// SPDX-License-Identifier: Apache-2.0
// job_run.c - one attempt: what run() may call, its log, and what becomes of the job afterwards.
// Owner: a Job lives in the arena of its own Ctx, from the take until job_attempt_run has ended it.
// Threads: a worker's; progress, cancel and the like are shared with the beat under Jobs.lock.
#include "base/log.h"
#include "base/time.h"
#include "job/job_own.h"
#include <assert.h>
#include <stdio.h>
#include <time.h>

enum { LINE_MAX = 4096, LOG_TAIL = 64 << 10, END_TRIES = 20, END_TRIES_STOPPING = 3 };

str job_id(const Job *j) { return j->row.view.id; }
str job_payload(const Job *j) { return j->row.payload; }
str job_org(const Job *j) { return j->row.view.org; }
str job_project(const Job *j) { return j->row.view.project; }
str job_subject(const Job *j) { return j->row.view.subject; }
str job_created_by(const Job *j) { return j->row.view.created_by; }
int job_attempt(const Job *j) { return j->row.view.attempt; }

str job_checkpoint(const Job *j) {
    if (!j->checkpoint) return (str){ 0 };
    return str_n(j->checkpoint, j->checkpoint_n);
}

// ---- the log: DIR/<job id>.log, one line an event, the same file for every attempt

str job_log_path(Ctx *c, const Jobs *s, str id) {
    return arena_printf(c->mem, "%s/" STR_FMT ".log", s->log_dir, STR_ARG(id));
}

err job_log_open(Ctx *c, Job *j) {
    unsigned flags = FILE_READ | FILE_WRITE | FILE_CREATE | FILE_PRIVATE;
    TRY(file_open(c, job_log_path(c, j->s, j->row.view.id), flags, &j->log));
    err e = file_size(c, j->log, &j->log_size);
    if (e) {
        file_close(j->log);
        j->log = NULL;
    }
    j->log_cut = j->log_size >= JOB_LOG_MAX;
    return e;
}

static void log_write(Job *j, const char *line, size_t n) {
    Ctx c;
    ctx_init(&c, arena_new(), j->s->os);
    // A line that cannot be written is dropped: the log serves people, the job goes on.
    if (!file_write_at(&c, j->log, j->log_size, line, n)) j->log_size += (int64_t)n;
    arena_free(c.mem);
}

static void line_add(Job *j, bool ours, const char *fmt, va_list args) {
    char line[LINE_MAX], when[TIME_TEXT];
    str t = time_format(os_wall_ms(j->s->os), when);
    int head = snprintf(line, sizeof line, STR_FMT " ", STR_ARG(t));
    int text = vsnprintf(line + head, sizeof line - (size_t)head - 1, fmt, args);
    size_t n = (size_t)head + (text > 0 ? (size_t)text : 0);
    if (n > sizeof line - 2) n = sizeof line - 2;
    for (size_t i = 0; i < n; i++)
        if (line[i] == '\n' || line[i] == '\r') line[i] = ' ';
    line[n++] = '\n';
    pthread_mutex_lock(&j->log_lock);
    // The queue's own few lines have room kept for them behind the limit.
    int64_t max = JOB_LOG_MAX + (ours ? LOG_TAIL : 0);
    if (j->log && j->log_size + (int64_t)n <= max) log_write(j, line, n);
    else if (j->log && !ours && !j->log_cut) {
        static const char cut[] = "[the log is full: later lines of the job are left out]\n";
        log_write(j, cut, sizeof cut - 1);
        j->log_cut = true;
    }
    pthread_mutex_unlock(&j->log_lock);
}

void job_say(Job *j, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    line_add(j, false, fmt, args);
    va_end(args);
}

__attribute__((format(printf, 2, 3))) static void note(Job *j, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    line_add(j, true, fmt, args);
    va_end(args);
}

// ---- within run

void job_progress(Job *j, int64_t done, int64_t total, const char *unit) {
    pthread_mutex_lock(&j->s->lock);
    j->done = done;
    j->total = total;
    j->unit = unit;
    j->progressed = true;
    pthread_mutex_unlock(&j->s->lock);
}

void job_result(Job *j, str json) {
    if (json.n > RESULT_MAX) {
        note(j, "the result of %zu bytes is too large to be kept", json.n);
        return;
    }
    str copy = arena_str(j->c.mem, json);
    pthread_mutex_lock(&j->s->lock);
    j->result = copy;
    pthread_mutex_unlock(&j->s->lock);
}

#define JOB_OURS "SELECT epoch FROM job WHERE id = $1 AND epoch = $2 AND state = 'running'"
static const Sql job_ours = { "job_ours", JOB_OURS, JOB_OURS " FOR SHARE" };
static SQL(job_save_checkpoint,
           "UPDATE job SET checkpoint = $3 WHERE id = $1 AND epoch = $2 AND state = 'running'");

static err lost(Ctx *c, const Job *j) {
    return fail(c, ERR_LOST, R_LEASE_LOST, "object", say_str(c, j->row.view.id));
}

err job_guard(Ctx *c, Tx *tx, Job *j) {
    Rows *r;
    bool ours;
    TRY(db_ask(c, tx, &r, &job_ours, V(j->row.view.id), V(j->row.epoch)));
    TRY(rows_next(c, r, &ours));
    rows_close(r);
    return ours ? ERR_OK : lost(c, j);
}

typedef struct Save {
    Job *j;
    str checkpoint;
} Save;

static err save(Ctx *c, Tx *tx, void *arg) {
    Save *s = arg;
    int64_t changed;
    Val args[] = { V(s->j->row.view.id), V(s->j->row.epoch), val_text(s->checkpoint) };
    TRY(db_exec(c, tx, &job_save_checkpoint, args, countof(args), &changed));
    return changed ? ERR_OK : lost(c, s->j);
}

err job_save(Ctx *c, Job *j, str checkpoint) {
    Save s = { j, checkpoint };
    ArenaMark m = arena_mark(c->mem);
    TRY(db_tx(c, j->s->db, save, &s));
    arena_restore(c->mem, m); // a job may save for days
    if (!str_eq(job_checkpoint(j), checkpoint)) j->checkpoint_changed = true;
    mem_free(j->checkpoint);
    j->checkpoint = mem_strdup(checkpoint.p ? checkpoint : S(""));
    j->checkpoint_n = checkpoint.n;
    return ERR_OK;
}

// ---- what becomes of it

// What another try with the same input cannot change.
static bool final(err e) {
    switch (e) {
    case ERR_INVALID:
    case ERR_DENIED:
    case ERR_NOTFOUND:
    case ERR_CONFLICT:
    case ERR_UNAUTHENTICATED:
    case ERR_PRECONDITION:
    case ERR_TOOLARGE:
    case ERR_GONE:
    case ERR_METHOD:
    case ERR_MEDIA:
    case ERR_RANGE:
    case ERR_BUDGET:
    case ERR_HEADERS: return true;
    default: return false;
    }
}

static void wait_again(JobRow *now, int64_t at_ms) {
    now->view.state = JOB_WAITING;
    now->view.next_ms = at_ms;
}

static void decide(Ctx *c, const Ended *d, int64_t now_ms, JobRow *now) {
    const JobKind *kind = job_kind(d->s, d->was->view.kind, NULL);
    now->view.state = JOB_DONE;
    now->view.ended_ms = now_ms;
    if (!d->e) {
        now->view.error_slug = now->view.error_text = now->error_zh = (str){ 0 };
        return;
    }
    if (d->cancel) {
        now->view.state = JOB_CANCELLED;
        return;
    }
    if (d->pausing && !final(d->e)) { // we stop, it is not to blame
        now->view.ended_ms = 0;
        now->view.attempt--;
        wait_again(now, now_ms);
        return;
    }
    job_error_text(c, &d->failure, d->e, now);
    now->view.state = JOB_FAILED;
    now->failures = (d->job && d->job->checkpoint_changed ? 0 : now->failures) + 1;
    if (final(d->e) || now->failures >= now->view.attempts_max) return;
    int64_t wait_ms = job_backoff_ms(d->s, kind, now->failures);
    if (d->failure.code == d->e && d->failure.retry_after_ms > wait_ms)
        wait_ms = d->failure.retry_after_ms;
    now->view.ended_ms = 0;
    wait_again(now, now_ms + wait_ms);
}

static bool ended_state(JobState s) { return s != JOB_WAITING && s != JOB_RUNNING; }

// The last steps of every way to end: the row, what follows from it, and who wants to know.
static err row_end(Ctx *c, Tx *tx, const Ended *d, const JobRow *now) {
    bool changed;
    TRY(job_row_set(c, tx, d->was, now, &changed));
    if (!changed) return fail(c, ERR_LOST, R_LEASE_LOST, "object", say_str(c, d->was->view.id));
    const JobKind *kind = job_kind(d->s, d->was->view.kind, NULL);
    err e = now->view.state == JOB_CANCELLED ? ERR_CANCELLED : d->e;
    if (kind && kind->after && ended_state(now->view.state)) {
        Job idle = { .s = d->s, .row = *d->was, .kind = kind };
        idle.checkpoint = (char *)d->was->checkpoint.p;
        idle.checkpoint_n = d->was->checkpoint.n;
        kind->after(c, tx, d->job ? d->job : &idle, e);
    }
    return job_changed(c, tx, d->s, d->was->view.id);
}

static err attempt_end(Ctx *c, Tx *tx, void *arg) {
    Ended *d = arg;
    Job *j = d->job;
    d->now = j->row;
    decide(c, d, tx_now_ms(tx), &d->now);
    pthread_mutex_lock(&j->s->lock);
    if (!d->e) d->now.view.result = j->result;
    if (j->progressed || j->unit) {
        d->now.view.progress_done = j->done;
        d->now.view.progress_total = j->total;
        d->now.view.unit = str_z(j->unit);
    }
    pthread_mutex_unlock(&j->s->lock);
    if (j->checkpoint_changed) d->now.crashes = 0;
    return row_end(c, tx, d, &d->now);
}

err job_end_idle(Ctx *c, Tx *tx, Jobs *s, const JobRow *row, err e) {
    Ended d = { .s = s, .was = row, .e = e, .failure = c->failure, .cancel = e == ERR_CANCELLED };
    JobRow now = *row;
    decide(c, &d, tx_now_ms(tx), &now);
    now.view.state = d.cancel ? JOB_CANCELLED : JOB_FAILED;
    now.view.ended_ms = tx_now_ms(tx);
    return row_end(c, tx, &d, &now);
}

err job_crashed(Ctx *c, Tx *tx, Jobs *s, const JobRow *row) {
    const JobKind *kind = job_kind(s, row->view.kind, NULL);
    if (row->view.cancel_asked) return job_end_idle(c, tx, s, row, ERR_CANCELLED);
    JobRow now = *row;
    now.crashes++;
    Failure before = c->failure;
    err e = fail(c, ERR_INTERNAL, R_JOB_CRASHED, "attempt", say(c, "%d", row->view.attempt));
    job_error_text(c, &c->failure, e, &now);
    JobRow counted = *row;
    counted.crashes = now.crashes;
    if (kind && now.crashes > CRASHES_MAX) return job_end_idle(c, tx, s, &counted, e);
    c->failure = before;
    Ended d = { .s = s, .was = row };
    int64_t wait_ms = now.crashes > 1 ? job_backoff_ms(s, kind, now.crashes - 1) : 0;
    wait_again(&now, tx_now_ms(tx) + wait_ms);
    return row_end(c, tx, &d, &now);
}

// ---- the attempt

static void say_end(Job *j, const Ended *d) {
    const JobView *v = &d->now.view;
    if (v->state == JOB_DONE) note(j, "done");
    else if (v->state == JOB_CANCELLED) note(j, "cancelled");
    else if (d->pausing && !final(d->e)) note(j, "paused: this node stops; it goes on later");
    else if (v->state == JOB_FAILED) note(j, "failed: " STR_FMT, STR_ARG(v->error_text));
    else
        note(j, "attempt %d failed: " STR_FMT "; it is tried again", v->attempt,
             STR_ARG(v->error_text));
}

static void count(Jobs *s, const Ended *d, err e) {
    pthread_mutex_lock(&s->lock);
    if (e) s->counts.lost++;
    else if (d->now.view.state == JOB_DONE) s->counts.done++;
    else if (d->now.view.state == JOB_FAILED) s->counts.failed++;
    // Not written, and perhaps still ours: the next take lets it go.
    if (e && e != ERR_LOST) s->strays = true;
    pthread_mutex_unlock(&s->lock);
}

// Waits a little for the database to come back; false: not any longer.
static bool try_again(Jobs *s, int tries) {
    pthread_mutex_lock(&s->lock);
    bool stopping = s->stopping;
    int64_t until = os_mono_ns(s->os) + (int64_t)tries * 100000000;
    while (!s->loop && !s->stopping && os_mono_ns(s->os) < until) {
        struct timespec when = { until / 1000000000, until % 1000000000 };
        pthread_cond_timedwait(&s->beat_wake, &s->lock, &when);
    }
    pthread_mutex_unlock(&s->lock);
    return tries < (stopping ? END_TRIES_STOPPING : END_TRIES);
}

static void attempt_finish(Job *j, err e) {
    Jobs *s = j->s;
    Ctx c; // not run's own: that one may be cancelled or past its deadline
    ctx_init(&c, arena_new(), s->os);
    c.db = s->db;
    c.org = j->c.org, c.project = j->c.project;
    if (s->on_ctx) s->on_ctx(&c, s->on_ctx_arg);
    Ended d = { .s = s, .job = j, .was = &j->row, .e = e, .failure = j->c.failure };
    pthread_mutex_lock(&s->lock);
    d.pausing = j->pausing, d.cancel = j->cancel;
    pthread_mutex_unlock(&s->lock);
    d.now = j->row;
    decide(&c, &d, os_wall_ms(s->os), &d.now);
    say_end(j, &d); // first: who sees that the job has ended finds the whole log
    err end_e = ERR_OK;
    for (int tries = 1;; tries++) {
        end_e = db_tx(&c, s->db, attempt_end, &d);
        if (!end_e || end_e == ERR_LOST || !try_again(s, tries)) break;
    }
    if (end_e == ERR_LOST) note(j, "this attempt was taken over by another; its end is void");
    else if (end_e) note(j, "the end of this attempt could not be written; it is run again");
    count(s, &d, end_e);
    arena_free(c.mem);
}

void job_free(Job *j) {
    file_close(j->log);
    mem_free(j->checkpoint);
    pthread_mutex_destroy(&j->log_lock);
    arena_free(j->c.mem); // j lives in it
}

void job_attempt_run(void *arg) {
    Job *j = arg;
    Jobs *s = j->s;
    err e = job_log_open(&j->c, j);
    if (e) log_at("job", LOG_DEBUG, &j->c, "no log file", "job", say_str(&j->c, job_id(j)));
    j->c.failure = (Failure){ 0 };
    note(j, "attempt %d began on " STR_FMT, j->row.view.attempt, STR_ARG(s->node));
    if (j->kind->timeout_ms) j->c.deadline_ns = os_mono_ns(s->os) + j->kind->timeout_ms * 1000000;
    e = ctx_check(&j->c); // cancelled or stopping already
    if (!e) e = j->kind->run(&j->c, j);
    attempt_finish(j, e);
    jobs_job_gone(s, j);
    job_free(j);
}

// ---- reading the log

typedef struct LogAsk {
    str project, id;
    bool ended;
} LogAsk;

static err log_ask(Ctx *c, Tx *tx, void *arg) {
    LogAsk *a = arg;
    JobRow row;
    TRY(job_row_of(c, tx, a->project, a->id, &row));
    a->ended = ended_state(row.view.state);
    return ERR_OK;
}

err job_log(Ctx *c, Jobs *s, str project, str id, int64_t offset, JobLog *out) {
    enum { PIECE = 64 << 10 };
    LogAsk a = { project, id, false };
    File *f;
    size_t got = 0;
    TRY(db_read(c, s->db, log_ask, &a));
    *out = (JobLog){ S(""), a.ended };
    err e = file_open(c, job_log_path(c, s, id), FILE_READ, &f);
    if (e == ERR_NOTFOUND) return ERR_OK; // it has not run here
    if (e) return e;
    char *p = arena_alloc_raw(c->mem, PIECE);
    e = file_read_at(c, f, offset < 0 ? 0 : offset, p, PIECE, &got);
    file_close(f);
    if (e) return e;
    *out = (JobLog){ str_n(p, got), a.ended && got < PIECE };
    return ERR_OK;
}
