// SPDX-License-Identifier: Apache-2.0
// job.h - a durable queue: kinds are rows, a job is a row of SQL. A worker takes a job under a
// lease with a fencing epoch, beats, reports progress, writes a live log, saves checkpoints and may
// be asked to cancel; after a crash another attempt starts from the checkpoint. A job that waits
// says why. Running twice must be harmless: kinds are idempotent, keyed by their job id. Threads:
// any.
// Functions that take a Tx and no Jobs find the queue by c->db.
#ifndef LATHE_JOB_JOB_H
#define LATHE_JOB_JOB_H
#include "db/db.h"
#include "job/reason.h"
#include "os/loop.h"
#include "os/thread.h"

typedef struct Jobs Jobs;
typedef struct Job Job; // one attempt under way
typedef enum { JOB_WAITING, JOB_RUNNING, JOB_DONE, JOB_FAILED, JOB_CANCELLED } JobState;
const char *job_state_name(JobState s);       // waiting running done failed cancelled
bool job_state_find(str name, JobState *out); // false: no such state

typedef struct JobKind {
    const char *name; // "model.import"
    err (*run)(Ctx *c,
               Job *j); // restartable from job_checkpoint; ERR_CANCELLED when c is cancelled
    void (*after)(Ctx *c, Tx *tx, Job *j, err e); // in the transaction that ends it: stage what
                                                  // follows; may be NULL, may run more than once
    int attempts_max;                             // 0: 5
    int64_t backoff_ms, timeout_ms; // first wait (0: 1 s), doubled up to 5 min with jitter; timeout
                                    // of one attempt, 0: none
    int parallel_max;               // running at once on this node; 0: no limit of its own
    const char *en, *zh;
} JobKind;

typedef struct JobSpec {
    const char *kind;
    str org, project, created_by; // absent org and project: the system's
    str payload;                  // JSON
    str key;     // idempotency: a second spec with the same kind, project and key is the same job;
                 // absent: none
    str subject; // id of the resource it works on, for listing; absent: none
    int64_t not_before_ms; // 0: now
    int priority;          // higher first
} JobSpec;
// Stages a job in the caller's transaction (it starts only after the commit). ERR_NOTFOUND with
// R_JOB_KIND for an unknown kind. Wake a worker: tx_notify(tx, jobs_wake, jobs).
err job_add(Ctx *c, Tx *tx, const JobSpec *spec, str *out_id);

// ---- within run(); strings live as long as the attempt. An error that can never pass (INVALID,
// DENIED, NOTFOUND, CONFLICT, ...) fails the job at once, others are tried again.
str job_id(const Job *j);
str job_payload(const Job *j);    // JSON
str job_checkpoint(const Job *j); // what was saved last, until the next save; absent at first
str job_org(const Job *j);
str job_project(const Job *j);
str job_subject(const Job *j);
str job_created_by(const Job *j);
int job_attempt(const Job *j);                // 1, 2, ...
err job_save(Ctx *c, Job *j, str checkpoint); // durable; ERR_LOST when another attempt took over
// Cheap: written at most twice a second. unit is a literal ("bytes").
void job_progress(Job *j, int64_t done, int64_t total, const char *unit);
void job_say(Job *j, const char *fmt, ...)
    __attribute__((format(printf, 2, 3))); // a line of its log
// For run's own writes, first in their transaction: ERR_LOST unless this attempt still holds it.
err job_guard(Ctx *c, Tx *tx, Job *j);
void job_result(Job *j, str json); // shown with the job when done; at most 64 KiB

// ---- control
typedef struct JobsConfig {
    Db *db;
    const JobKind *const *kinds; // rows that outlive the queue
    size_t n;
    str node; // unique among living processes and the same after a restart: what this node's last
              // life left running is taken up at once
    str log_dir;       // made when absent; DIR/<job id>.log
    int workers;       // jobs running at once on this node
    bool tables_later; // the caller has jobs_tables make them
} JobsConfig;
err jobs_open(Ctx *c, const JobsConfig *config, Jobs **out); // runs migrations; c->os outlives it
err jobs_tables(Ctx *c, Db *db);                             // the migrations
void jobs_start(Jobs *s);                                    // threads of its own
void jobs_attach(Jobs *s, Loop *l); // instead of jobs_start on a simulated os: timers of l
void jobs_wake(void *jobs);         // for tx_notify: there may be something to take or to cancel
// Asks running ones to pause (they stay waiting with their checkpoint), then joins.
void jobs_stop(Jobs *s);
void jobs_free(Jobs *s);
void jobs_drop(Jobs *s); // simulated, after sim_crash: as if the process had died
err job_cancel(Ctx *c, Tx *tx, str project, str id); // waiting: at once; running: asked; ended:
                                                     // ERR_CONFLICT with R_JOB_ENDED
err job_retry(Ctx *c, Tx *tx, str project, str id); // failed or cancelled only, from its checkpoint

typedef struct JobView {
    str id, kind, org, project, subject, created_by, node;
    JobState state;
    str wait_reason; // of a waiting one, never absent then: "not_before", "retry_backoff",
                     // "parallel_limit", "no_worker", "queued" (a worker takes it next)
    str wait_text;   // the sentence, in c->lang
    str error_slug, error_text, result, unit;
    int64_t created_ms, started_ms, ended_ms, next_ms, progress_done, progress_total;
    int attempt, attempts_max;
    bool cancel_asked;
} JobView;
// project absent: the system's and the organisations' own jobs.
err job_view(Ctx *c, Tx *tx, str project, str id, JobView *out); // ERR_NOTFOUND
typedef struct JobFilter {
    str project;                  // as in job_view, unless:
    bool any_project;             // for an administrator of the whole system
    str kind, subject, before_id; // absent: any; before_id: the last id of the page before
    const JobState *state;        // NULL: any
} JobFilter;
// Newest first, at most max (1 to 1000).
err job_list(Ctx *c, Tx *tx, const JobFilter *f, size_t max, JobView **out, size_t *out_n);
// Called in the transaction of every change of state (also of a cancel asked for), with the job as
// it is then; an error rolls the change back. Set it before jobs_start; may run more than once.
void jobs_on_change(Jobs *s, err (*fn)(Ctx *c, Tx *tx, const JobView *v, void *arg), void *arg);
// Fills the Ctx of each attempt with what its run needs (app, who). Set it before jobs_start.
void jobs_on_ctx(Jobs *s, void (*fn)(Ctx *c, void *arg), void *arg);
// Removes jobs that ended before then, with their logs; ERR_OK also when none did.
err jobs_trim(Ctx *c, Jobs *s, int64_t before_ms);

// Bytes of the log from offset on, of attempts on this node; end: the job ended and this is all.
// Live: poll, or wait on the event.
typedef struct JobLog {
    str text;
    bool end;
} JobLog;
enum { JOB_LOG_MAX = 4 << 20 }; // then one line says that it was cut
err job_log(Ctx *c, Jobs *s, str project, str id, int64_t offset, JobLog *out);

typedef struct JobCounts {
    int64_t waiting, running, taken, done, failed,
        lost; // waiting, running: now; others since start
} JobCounts;
err jobs_counts(Ctx *c, Jobs *s, JobCounts *out);
// Jobs that have not ended, of all nodes and projects: how many of each kind, state and reason to
// wait. A kind may come more than once with the same reason. In c->mem.
typedef struct JobDepth {
    str kind, wait_reason; // absent reason: running
    JobState state;
    int64_t n;
} JobDepth;
err jobs_depths(Ctx *c, Jobs *s, JobDepth **out, size_t *out_n);
#endif
