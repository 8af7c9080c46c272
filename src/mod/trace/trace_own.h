// SPDX-License-Identifier: Apache-2.0
// trace_own.h - private to trace.
#ifndef LATHE_MOD_TRACE_OWN_H
#define LATHE_MOD_TRACE_OWN_H
#include "db/insert.h"
#include "mod/trace/trace.h"
#include "res/daily.h"
#include "res/worker.h"

typedef struct TraceRow {
    Head head;
    str request_id, key_id, owner, model, deployment, replica, version, response_id, finish_reason,
        error_class, error_reason, client_ip, end_user, currency, prompt_digest, answer_digest;
    int operation, outcome;
    bool streamed, tokens_exact, content;
    int64_t status, attempts, started_at, ended_at, queue_us, first_us, stream_us, total_us,
        ttft_us, tbt_mean_us, tbt_max_us, prompt_tokens, cached_tokens, completion_tokens, cost;
} TraceRow;
extern const Resource trace_resource;
extern const Setting trace_settings[];
extern const Retention trace_retentions[];
extern const Migration trace_migrations[];
extern const Metric *const trace_metrics[];
extern const Route trace_routes[];
extern const EventKind *const trace_events[];

// trace_day.c: with SQLite records are kept by day. NULL: they are not (PostgreSQL).
extern const Daily trace_daily;
DailySet *trace_days(void);
err trace_days_open(Ctx *c);
void trace_days_close(void); // tests; a program's end closes all
// One batch in its two steps, for tests: into the days it concerns, then the main position.
err trace_days_put(Ctx *c, const JournalBatch *b, JournalPos next);
err trace_days_mark(Ctx *c, JournalPos next);
extern const UsageFolder trace_folder;
// trace_part.c: with PostgreSQL, partitions by day.
err trace_part_make(Ctx *c, Tx *tx, int64_t day);
err trace_part_drop(Ctx *c, int64_t before_day, int64_t *out_removed);
Insert trace_add_begin(Ctx *c, Tx *tx); // insert_end ends it
err trace_add(Insert *to, const RequestRecord *r, str id);
err trace_fold(Ctx *c, Tx *tx, const RequestRecord *const *r, size_t n);
err rollup_fold(Ctx *c, Tx *tx, const RequestRecord *const *r, size_t n);
err trace_trim(Ctx *c, int64_t before_ms, int64_t *out_removed);
err content_trim(Ctx *c, int64_t before_ms,
                 int64_t *out_removed); // by each project's own days; before_ms is not used
err rollup_trim(Ctx *c, int64_t before_ms, int64_t *out_removed);
err serve_rollups(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out);
err serve_content(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out);
extern const Field rollup_query[];
// One object: minute, deployment, model, key (NULL: left out), eight sums, the buckets.
void rollup_write(const Rows *rows, int64_t step, Json *j);
extern const EventKind rollup_event;
// What changed since the last look, to `send`; data is an event's.
typedef struct RollupTold RollupTold;
typedef struct RollupSink {
    void (*send)(void *arg, str org, str project, str data);
    void *arg;
} RollupSink;
RollupTold *rollup_told_new(void);
void rollup_told_free(RollupTold *t);
void rollup_told_rest(RollupTold *t); // nobody listens now
err rollup_tell(Ctx *c, RollupTold *t, const RollupSink *to);
void rollup_echo(RollupTold *t, int64_t now_ns, const RollupSink *to); // what revisions there are
err rollup_live_start(Ctx *c);
void rollup_live_stop(void *app);
enum { ROLLUP_BOUNDS = 8 };
extern const int64_t rollup_bounds_us[ROLLUP_BOUNDS]; // of TTFT, cumulative
#endif
