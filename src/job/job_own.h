// SPDX-License-Identifier: Apache-2.0
// job_own.h - what the files of the queue share; nobody else includes it.
// job_sql.c rows; job.c adding, showing, cancelling; job_take.c and job_beat.c who runs what and
// when; job_run.c one attempt; job_queue.c the rest. Jobs.lock guards what is marked so; no SQL is
// done under it.
#ifndef LATHE_JOB_JOB_OWN_H
#define LATHE_JOB_JOB_OWN_H
#include "job/job.h"
#include "job/lease.h"
#include "os/file.h"

enum { ATTEMPTS_MAX = 5, CRASHES_MAX = 20, KINDS_MAX = 256, RESULT_MAX = 64 << 10 };
enum { BACKOFF_MS = 1000, BACKOFF_MAX_MS = 5 * 60 * 1000 };
enum { TICK_MS = 500, POLL_MS = 1000, SEEN_MS = 5000 };

// A row as it is in SQL.
typedef struct JobRow {
    JobView view; // without wait_reason and wait_text; strings in the c->mem it was read with
    str payload, checkpoint, holder, error_zh;
    int64_t epoch, lease_until_ms, failures, crashes;
} JobRow;

struct Job {
    Jobs *s;
    Job *next, **link; // in Jobs.running (lock)
    Ctx c;             // run's: its arena holds the row and this Job
    JobRow row;
    const JobKind *kind;
    char *checkpoint; // NULL: none; checkpoint_n bytes
    size_t checkpoint_n;
    bool checkpoint_changed; // by this attempt: failures before it do not count any more
    pthread_mutex_t log_lock;
    File *log; // NULL: could not be opened
    int64_t log_size;
    bool log_cut;
    // Jobs.lock:
    int64_t done, total, beat_ns; // beat_ns: last time the lease was surely ours
    const char *unit;
    str result;
    bool progressed, pausing, cancel, lost;
};
typedef struct Ended { // how an attempt, or a job without one, ended
    Jobs *s;
    Job *job; // NULL: none runs
    const JobRow *was;
    err e;
    Failure failure;
    bool pausing, cancel;
    JobRow now;
} Ended;

struct Jobs {
    Db *db;
    Os *os;
    Arena *mem;
    const JobKind **kinds;
    size_t kinds_n;
    str node, holder; // holder: this life of the node
    const char *log_dir;
    int workers;
    int64_t ttl_ms, beat_ms;
    err (*on_change)(Ctx *c, Tx *tx, const JobView *v, void *arg);
    void (*on_ctx)(Ctx *c, void *arg);
    void *on_change_arg, *on_ctx_arg;
    Jobs *next; // in the registry by Db

    Pool *pool;
    Thread take_thread, beat_thread;
    Loop *loop; // simulated: timers instead of threads
    Timer *take_timer, *beat_timer;
    struct Jobs **posted; // what wake_posted is to find; NULL: none is under way

    pthread_mutex_t lock; // what follows
    pthread_cond_t take_wake, beat_wake;
    Job *running;
    int running_n, running_of[KINDS_MAX];
    char seen[64];         // the taking thread's: db_version when nothing was there to take
    int64_t seen_until_ns; // until then it is believed, unless woken
    bool started, stopping, beat_stop, take_now, beat_now, strays;
    bool beats_frozen; // tests: as if this node stalled
    int64_t beat_last_ns;
    JobCounts counts;
};

// job_sql.c
err job_row(Ctx *c, Tx *tx, str id, JobRow *out); // ERR_NOTFOUND with R_JOB_ABSENT
err job_row_of(Ctx *c, Tx *tx, str project, str id, JobRow *out);
void job_row_read(Rows *r, JobRow *out); // from a row of a statement with JOB_COLUMNS
// Writes what may change and ends the lease, if the row is still as `was` says (epoch and state):
// else *out_changed is false.
err job_row_set(Ctx *c, Tx *tx, const JobRow *was, const JobRow *now, bool *out_changed);
#define JOB_COLUMNS                                                                     \
    "id, kind, org, project, subject, created_by, node, state, error_slug, error_text," \
    " error_zh, result, unit, created_ms, started_ms, ended_ms, next_ms,"               \
    " progress_done, progress_total, attempt, attempts_max, cancel_asked, payload,"     \
    " checkpoint, holder, epoch, lease_until_ms, failures, crashes"
static inline Val val_text(str s) { return val_str(s.p ? s : S("")); }

// job.c
Jobs *jobs_of(const Ctx *c); // the queue on c->db; NULL: none in this program
const JobKind *job_kind(const Jobs *s, str name, size_t *out_index); // NULL: unknown
// Tells on_change about the job as it is now, in tx.
err job_changed(Ctx *c, Tx *tx, Jobs *s, str id);
// What a failure says, in both languages, in c->mem.
void job_error_text(Ctx *c, const Failure *f, err e, JobRow *out);
int64_t job_backoff_ms(Jobs *s, const JobKind *kind, int64_t failures);

// job_run.c
void job_attempt_run(void *job); // on a worker; frees the job
void job_free(Job *j);
err job_log_open(Ctx *c, Job *j);
str job_log_path(Ctx *c, const Jobs *s, str id);
// Ends a job that no attempt runs, with c->failure: after() gets a Job made from its row.
err job_end_idle(Ctx *c, Tx *tx, Jobs *s, const JobRow *row, err e);
// Its attempt ended without an answer: it waits for the next, or fails after too many of these.
err job_crashed(Ctx *c, Tx *tx, Jobs *s, const JobRow *row);

// job_take.c, job_beat.c, job_queue.c
int64_t jobs_take_pass(Jobs *s);     // milliseconds until there may be more to take
void jobs_job_gone(Jobs *s, Job *j); // its attempt has ended: a worker is free
void jobs_beat_pass(Jobs *s);
void jobs_reap_pass(Jobs *s, bool former); // former: what this node's last life left running
void jobs_ctx(Jobs *s, Ctx *c);            // for the queue's own work; its arena is new
#endif
