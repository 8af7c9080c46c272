// SPDX-License-Identifier: Apache-2.0
// job.h - a durable queue: kinds are rows, a job is a row of SQL. A worker takes a job under a lease with a fencing epoch, beats, reports
// progress, writes a live log, saves checkpoints and may be asked to cancel; after a crash another attempt starts from the checkpoint.
// A job that waits says why. Running twice must be harmless: kinds are idempotent, keyed by their job id. Threads: any.
#ifndef LATHE_JOB_JOB_H
#define LATHE_JOB_JOB_H
#include "db/db.h"
#include "os/thread.h"

typedef struct Jobs Jobs;
typedef struct Job Job;                          // one attempt under way
typedef enum { JOB_WAITING, JOB_RUNNING, JOB_DONE, JOB_FAILED, JOB_CANCELLED } JobState;
const char *job_state_name(JobState s);          // waiting running done failed cancelled

typedef struct JobKind {
    const char *name;                            // "model.import"
    err (*run)(Ctx *c, Job *j);                  // restartable from job_checkpoint; ERR_CANCELLED after a cancel was asked for
    void (*after)(Ctx *c, Tx *tx, Job *j, err e);            // in the transaction that ends it: stage what follows; may be NULL
    int attempts_max;                            // 0: 5
    int64_t backoff_ms, timeout_ms;              // first wait, doubled up to 5 min with jitter; timeout of one attempt, 0: none
    int parallel_max;                            // running at once on this node; 0: no limit of its own
    const char *en, *zh;
} JobKind;

typedef struct JobSpec {
    const char *kind;
    str org, project, created_by;                // absent org and project: the system's
    str payload;                                 // JSON
    str key;                                     // idempotency: a second spec with the same kind, project and key is the same job; absent: none
    str subject;                                 // id of the resource it works on, for listing; absent: none
    int64_t not_before_ms;                       // 0: now
    int priority;                                // higher first
} JobSpec;
// Stages a job in the caller's transaction (it starts only after the commit).
err job_add(Ctx *c, Tx *tx, const JobSpec *spec, str *out_id);

// ---- within run()
str job_id(const Job *j);
str job_payload(const Job *j);                   // JSON
str job_checkpoint(const Job *j);                // what the last attempt saved; absent at first
str job_project(const Job *j);
str job_subject(const Job *j);
int job_attempt(const Job *j);                   // 1, 2, …
err job_save(Ctx *c, Job *j, str checkpoint);    // durable; ERR_LOST when another attempt took over
void job_progress(Job *j, int64_t done, int64_t total, const char *unit);            // cheap: written at most twice a second
void job_say(Job *j, const char *fmt, ...) __attribute__((format(printf, 2, 3)));    // a line of its log
err job_guard(Ctx *c, Tx *tx, Job *j);           // for run's own writes: ERR_LOST unless this attempt still holds the job
void job_result(Job *j, str json);               // shown with the job when done

// ---- control
err jobs_open(Ctx *c, Db *db, const JobKind *const kinds[], size_t n, str node, str log_dir, int workers, Jobs **out);   // runs migrations
void jobs_start(Jobs *s);
void jobs_wake(void *jobs);                      // for tx_notify
void jobs_stop(Jobs *s);                         // asks running ones to pause (they stay waiting with their checkpoint), then joins
void jobs_free(Jobs *s);
err job_cancel(Ctx *c, Tx *tx, str project, str id);         // waiting: at once; running: asked; ended: ERR_CONFLICT
err job_retry(Ctx *c, Tx *tx, str project, str id);          // failed or cancelled only
typedef struct JobView {
    str id, kind, org, project, subject, created_by, node;
    JobState state;
    str wait_reason;                             // why it waits: "not_before", "parallel_limit", "no_worker", "retry_backoff", with text in wait_text
    str wait_text, error_slug, error_text, result, unit;
    int64_t created_ms, started_ms, ended_ms, next_ms, progress_done, progress_total;
    int attempt, attempts_max;
    bool cancel_asked;
} JobView;
err job_view(Ctx *c, Tx *tx, str project, str id, JobView *out);         // ERR_NOTFOUND
// Bytes of the log from offset on; *out_end true when the job ended and this is all. Live: poll or wait on the event.
err job_log(Ctx *c, Jobs *s, str project, str id, int64_t offset, size_t max, str *out, bool *out_end);

#define JOB_REASONS(X)                                                                                                  \
    X(LEASE_HELD, "lease_held", "{object} is held by {holder} for {ms} ms more", "{object} 由 {holder} 持有，还剩 {ms} 毫秒")  \
    X(LEASE_LOST, "lease_lost", "{object} was taken over by another node", "{object} 已被其他节点接管")                        \
    X(JOB_ENDED, "job_ended", "job {id} has already ended ({state})", "作业 {id} 已经结束（{state}）")                         \
    X(JOB_LIVE, "job_live", "job {id} has not ended yet ({state})", "作业 {id} 尚未结束（{state}）")                           \
    X(JOB_KIND, "job_kind", "there is no job kind {kind}", "没有作业类型 {kind}")                                             \
    X(JOB_ABSENT, "job_absent", "there is no job {id}", "没有作业 {id}")                                                     \
    X(JOURNAL_BAD, "journal_bad", "journal segment {path} is damaged at byte {offset}: {why}", "日志段 {path} 在第 {offset} 字节处损坏：{why}") \
    X(EXECUTOR, "executor", "the executor cannot {what}: {why}", "执行器无法{what}：{why}")
REASONS_DECLARE(JOB_REASONS)
extern const Reason *const job_reasons[];
#endif
