// SPDX-License-Identifier: Apache-2.0
// job.c - adding, showing, listing, cancelling, trying again: what works on rows only.
#include "base/id.h"
#include "job/job_own.h"
#include <assert.h>

static const char *const state_names[] = { [JOB_WAITING] = "waiting",
                                           [JOB_RUNNING] = "running",
                                           [JOB_DONE] = "done",
                                           [JOB_FAILED] = "failed",
                                           [JOB_CANCELLED] = "cancelled" };

const char *job_state_name(JobState s) { return state_names[s]; }

bool job_state_find(str name, JobState *out) {
    for (size_t i = 0; i < countof(state_names); i++) {
        if (!str_is(name, state_names[i])) continue;
        *out = (JobState)i;
        return true;
    }
    return false;
}

const JobKind *job_kind(const Jobs *s, str name, size_t *out_index) {
    for (size_t i = 0; s && i < s->kinds_n; i++) {
        if (!str_is(name, s->kinds[i]->name)) continue;
        if (out_index) *out_index = i;
        return s->kinds[i];
    }
    return NULL;
}

err job_changed(Ctx *c, Tx *tx, Jobs *s, str id) {
    if (!s || !s->on_change) return ERR_OK;
    JobRow row;
    TRY(job_row(c, tx, id, &row));
    return s->on_change(c, tx, &row.view, s->on_change_arg);
}

static str failure_text(Ctx *c, const Failure *f, const char *lang) {
    Buf b;
    buf_init(&b, 4096);
    failure_format(f, lang, &b);
    str text = arena_str(c->mem, str_utf8(buf_str(&b)) ? buf_str(&b) : S("?"));
    buf_done(&b);
    return text;
}

// A run may return a code without having said why.
void job_error_text(Ctx *c, const Failure *f, err e, JobRow *out) {
    bool said = f->code == e && f->why;
    out->view.error_slug = str_z(said ? f->why->slug : err_row(e)->slug);
    out->view.error_text = said ? failure_text(c, f, "en") : str_z(err_row(e)->slug);
    out->error_zh = said ? failure_text(c, f, "zh") : out->view.error_text;
}

// Doubled with each failure, the upper half of it by chance, so that many do not return at once.
int64_t job_backoff_ms(Jobs *s, const JobKind *kind, int64_t failures) {
    int64_t ms = kind && kind->backoff_ms ? kind->backoff_ms : BACKOFF_MS;
    for (int64_t i = 1; i < failures && ms < BACKOFF_MAX_MS; i++) ms *= 2;
    if (ms > BACKOFF_MAX_MS) ms = BACKOFF_MAX_MS;
    uint64_t dice;
    os_random(s->os, &dice, sizeof dice);
    return ms / 2 + (int64_t)(dice % (uint64_t)(ms / 2 + 1));
}

// ---- adding

static SQL(
    job_insert,
    "INSERT INTO job (id, kind, org, project, subject, created_by, payload, key, priority,"
    " state, next_ms, node, holder, epoch, lease_until_ms, attempt, attempts_max, failures,"
    " crashes, cancel_asked, progress_done, progress_total, unit, result, error_slug,"
    " error_text, error_zh, created_ms, started_ms, ended_ms)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'waiting', $10, '', '', 0, 0, 0, $11, 0,"
    " 0, 0, 0, 0, '', '', '', '', '', $12, 0, 0) ON CONFLICT (kind, project, key) DO NOTHING");
static SQL(job_by_key, "SELECT id FROM job WHERE kind = $1 AND project = $2 AND key = $3");

static err id_by_key(Ctx *c, Tx *tx, const JobSpec *spec, str *out_id) {
    Rows *r;
    bool any;
    *out_id = (str){ 0 };
    if (!spec->key.p) return ERR_OK;
    TRY(db_ask(c, tx, &r, &job_by_key, V(spec->kind), val_text(spec->project), V(spec->key)));
    TRY(rows_next(c, r, &any));
    if (any) *out_id = col_str(r, 0);
    rows_close(r);
    return ERR_OK;
}

err job_add(Ctx *c, Tx *tx, const JobSpec *spec, str *out_id) {
    Jobs *s = jobs_of(c);
    const JobKind *kind = job_kind(s, str_z(spec->kind), NULL);
    if (s && !kind) return fail(c, ERR_NOTFOUND, R_JOB_KIND, "kind", spec->kind);
    str id;
    TRY(id_by_key(c, tx, spec, &id));
    if (!id.p) {
        int64_t changed, now_ms = tx_now_ms(tx);
        id = os_id(c, "job");
        int attempts_max = kind && kind->attempts_max ? kind->attempts_max : ATTEMPTS_MAX;
        Val args[] = { V(id),
                       V(spec->kind),
                       val_text(spec->org),
                       val_text(spec->project),
                       val_text(spec->subject),
                       val_text(spec->created_by),
                       val_text(spec->payload),
                       V(spec->key),
                       V(spec->priority),
                       V(spec->not_before_ms),
                       V(attempts_max),
                       V(now_ms) };
        TRY(db_exec(c, tx, &job_insert, args, countof(args), &changed));
        if (changed) TRY(job_changed(c, tx, s, id));
        else TRY(id_by_key(c, tx, spec, &id)); // another transaction was first
    }
    *out_id = id;
    return ERR_OK;
}

// ---- showing

static str reason_text(Ctx *c, const Reason *why, const char *const kv[]) {
    Ctx scratch;
    ctx_init(&scratch, c->mem, c->os);
    err e = fail_(&scratch, ERR_UNAVAILABLE, why, kv);
    (void)e;
    return failure_text(c, &scratch.failure, c->lang ? c->lang : "en");
}

typedef struct Slots { // how busy this node is: kinds at their limit, and all
    bool started;
    int running_n, running_of[KINDS_MAX];
} Slots;

static void slots_look(Jobs *s, Slots *out) {
    *out = (Slots){ 0 };
    if (!s) return;
    pthread_mutex_lock(&s->lock);
    out->started = s->started && !s->stopping;
    out->running_n = s->running_n;
    memcpy(out->running_of, s->running_of, sizeof out->running_of);
    pthread_mutex_unlock(&s->lock);
}

static void wait_say(Ctx *c, JobView *v, const Reason *why, const char *const kv[]) {
    v->wait_reason = str_z(why->slug);
    v->wait_text = reason_text(c, why, kv);
}
#define wait_because(c, v, reason, ...) \
    wait_say((c), (v), &(reason), (const char *const[]){ __VA_ARGS__ __VA_OPT__(, ) NULL, NULL })

// The reason depends on now and on who else runs, so it is found when it is asked for.
static void wait_fill(Ctx *c, const Jobs *s, const Slots *slots, int64_t now_ms, JobRow *row) {
    JobView *v = &row->view;
    bool zh = c->lang && !strcmp(c->lang, "zh");
    if (zh && row->error_zh.p) v->error_text = row->error_zh;
    if (v->state != JOB_WAITING) return;
    size_t i = 0;
    const JobKind *kind = job_kind(s, v->kind, &i);
    const char *seconds = say(c, "%.1f", (double)(v->next_ms - now_ms) / 1000);
    if (v->next_ms > now_ms && v->error_text.p)
        wait_because(c, v, R_JOB_BACKOFF, "seconds", seconds, "error", say_str(c, v->error_text));
    else if (v->next_ms > now_ms) wait_because(c, v, R_JOB_NOT_BEFORE, "seconds", seconds);
    else if (!kind || !slots->started)
        wait_because(c, v, R_JOB_NO_WORKER, "kind", say_str(c, v->kind));
    else if (kind->parallel_max && slots->running_of[i] >= kind->parallel_max)
        wait_because(c, v, R_JOB_PARALLEL, "running", say(c, "%d", slots->running_of[i]), "limit",
                     say(c, "%d", kind->parallel_max));
    else if (slots->running_n >= s->workers)
        wait_because(c, v, R_JOB_BUSY, "workers", say(c, "%d", s->workers));
    else wait_because(c, v, R_JOB_QUEUED);
    assert(v->wait_reason.n && v->wait_text.n);
}

err job_view(Ctx *c, Tx *tx, str project, str id, JobView *out) {
    Jobs *s = jobs_of(c);
    JobRow row;
    Slots slots;
    TRY(job_row_of(c, tx, project, id, &row));
    slots_look(s, &slots);
    wait_fill(c, s, &slots, tx_now_ms(tx), &row);
    *out = row.view;
    return ERR_OK;
}

// One statement for each access path, so that each has its index; the rest filters.
#define LIST_REST                                                                      \
    " AND ($2 = '' OR kind = $2) AND ($3 = '' OR state = $3) AND ($4 = '' OR id < $4)" \
    " ORDER BY id DESC LIMIT $5"
static SQL(job_list_project, "SELECT " JOB_COLUMNS " FROM job WHERE project = $1" LIST_REST);
static SQL(job_list_any, "SELECT " JOB_COLUMNS " FROM job WHERE $1 = ''" LIST_REST);
static SQL(job_list_subject,
           "SELECT " JOB_COLUMNS " FROM job WHERE subject = $6 AND project = $1" LIST_REST);
static SQL(job_list_any_subject,
           "SELECT " JOB_COLUMNS " FROM job WHERE subject = $6 AND $1 = ''" LIST_REST);

err job_list(Ctx *c, Tx *tx, const JobFilter *f, size_t max, JobView **out, size_t *out_n) {
    assert(max >= 1 && max <= 1000);
    static const Sql *const sqls[2][2] = { { &job_list_project, &job_list_subject },
                                           { &job_list_any, &job_list_any_subject } };
    Val args[] = { val_text(f->any_project ? (str){ 0 } : f->project),
                   val_text(f->kind),
                   val_text(f->state ? str_z(job_state_name(*f->state)) : (str){ 0 }),
                   val_text(f->before_id),
                   V((int64_t)max),
                   V(f->subject) };
    Jobs *s = jobs_of(c);
    Slots slots;
    Rows *r;
    JobView *views = new (c->mem, JobView, max);
    size_t n = 0;
    slots_look(s, &slots);
    int64_t now_ms = tx_now_ms(tx);
    bool by_subject = f->subject.p != NULL;
    TRY(db_query(c, tx, sqls[f->any_project][by_subject], args, by_subject ? 6 : 5, &r));
    for (bool more;;) {
        TRY(rows_next(c, r, &more));
        if (!more) break;
        JobRow row;
        job_row_read(r, &row);
        wait_fill(c, s, &slots, now_ms, &row);
        views[n++] = row.view;
    }
    *out = views;
    *out_n = n;
    return ERR_OK;
}

// ---- how many, by why

enum { DEPTHS_MAX = KINDS_MAX * 8 }; // of a kind: state, later or not, after a failure or not
static SQL(job_depths, "SELECT kind, state, CASE WHEN next_ms > $1 THEN 1 ELSE 0 END,"
                       " CASE WHEN error_text <> '' THEN 1 ELSE 0 END, COUNT(*) FROM job"
                       " WHERE state IN ('waiting', 'running')"
                       " GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4 LIMIT $2");
typedef struct Depths {
    Jobs *s;
    JobDepth *at;
    size_t n;
} Depths;

static err read_depths(Ctx *c, Tx *tx, void *arg) {
    Depths *d = arg;
    Rows *r;
    Slots slots;
    int64_t now_ms = tx_now_ms(tx);
    slots_look(d->s, &slots);
    d->n = 0;
    TRY(db_ask(c, tx, &r, &job_depths, V(now_ms), V(DEPTHS_MAX)));
    for (bool more;;) {
        TRY(rows_next(c, r, &more));
        if (!more) return ERR_OK;
        JobRow row = { .view = { .kind = col_str(r, 0), .next_ms = now_ms + col_int(r, 2) } };
        bool known = job_state_find(col_str(r, 1), &row.view.state);
        assert(known && d->n < DEPTHS_MAX);
        if (col_int(r, 3)) row.view.error_text = S("-"); // only the reason is wanted
        wait_fill(c, d->s, &slots, now_ms, &row);
        d->at[d->n++] =
            (JobDepth){ row.view.kind, row.view.wait_reason, row.view.state, col_int(r, 4) };
    }
}

err jobs_depths(Ctx *c, Jobs *s, JobDepth **out, size_t *out_n) {
    Depths d = { s, new (c->mem, JobDepth, DEPTHS_MAX), 0 };
    TRY(db_read(c, s->db, read_depths, &d));
    *out = d.at, *out_n = d.n;
    return ERR_OK;
}

// ---- cancelling and trying again

static SQL(job_ask_cancel, "UPDATE job SET cancel_asked = 1 WHERE id = $1");
static SQL(
    job_again,
    "UPDATE job SET state = 'waiting', next_ms = $2, ended_ms = 0, failures = 0, crashes = 0,"
    " cancel_asked = 0, error_slug = '', error_text = '', error_zh = '' WHERE id = $1");

static err state_conflict(Ctx *c, const Reason *why, const JobView *v) {
    return fail_(c, ERR_CONFLICT, why,
                 (const char *const[]){ "id", say_str(c, v->id), "state", job_state_name(v->state),
                                        NULL, NULL });
}

err job_cancel(Ctx *c, Tx *tx, str project, str id) {
    Jobs *s = jobs_of(c);
    JobRow row;
    TRY(job_row_of(c, tx, project, id, &row));
    if (row.view.state == JOB_WAITING) return job_end_idle(c, tx, s, &row, ERR_CANCELLED);
    if (row.view.state != JOB_RUNNING) return state_conflict(c, &R_JOB_ENDED, &row.view);
    TRY(db_run(c, tx, &job_ask_cancel, V(id)));
    if (s) tx_notify(tx, jobs_wake, s);
    return job_changed(c, tx, s, id);
}

err job_retry(Ctx *c, Tx *tx, str project, str id) {
    Jobs *s = jobs_of(c);
    JobRow row;
    TRY(job_row_of(c, tx, project, id, &row));
    JobState state = row.view.state;
    if (state == JOB_DONE) return state_conflict(c, &R_JOB_ENDED, &row.view);
    if (state != JOB_FAILED && state != JOB_CANCELLED)
        return state_conflict(c, &R_JOB_LIVE, &row.view);
    TRY(db_run(c, tx, &job_again, V(id), V(tx_now_ms(tx))));
    if (s) tx_notify(tx, jobs_wake, s);
    return job_changed(c, tx, s, id);
}
