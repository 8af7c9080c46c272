// SPDX-License-Identifier: Apache-2.0
// trace.c - descriptor; which content is recorded; the wide record folded into SQL; GenAI metrics.
// Days are trace_day.c, retention trace_keep.c, roll-ups rollup.c.
#include "mod/trace/trace_own.h"
#include "base/map.h"
#include "base/time.h"
#include <assert.h>

// ---- metrics: names, units and buckets of OpenTelemetry's GenAI conventions
// (semantic-conventions-genai, gen-ai-metrics.md)
static const double duration_buckets[] = { .01,  .02,  .04,   .08,   .16,   .32,   .64, 1.28,
                                           2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 0 };
static const double ttft_buckets[] = { .001, .005, .01, .02, .04, .06, .08, .1, .25,
                                       .5,   .75,  1,   2.5, 5,   7.5, 10,  0 };
static const double tbt_buckets[] = {
    .01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 0
};
static const double token_buckets[] = { 1,       4,       16,       64,       256,
                                        1024,    4096,    16384,    65536,    262144,
                                        1048576, 4194304, 16777216, 67108864, 0 };
// clang-format off
#define LABELS "gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model"
static const Metric duration = { "gen_ai.server.request.duration", "s", METRIC_HISTOGRAM, { LABELS,
    "error.type" }, duration_buckets,
    "Duration of generative AI requests", "生成式请求耗时" };
static const Metric ttft = { "gen_ai.server.time_to_first_token", "s", METRIC_HISTOGRAM,
    { LABELS }, ttft_buckets,
    "Time to first token", "首 token 延迟" };
static const Metric tbt = { "gen_ai.server.time_per_output_token", "s", METRIC_HISTOGRAM,
    { LABELS }, tbt_buckets,
    "Time per output token after the first", "首个之后每个输出 Token 的耗时" };
static const Metric tokens = { "gen_ai.client.token.usage", "{token}", METRIC_HISTOGRAM, { LABELS,
    "gen_ai.token.type" }, token_buckets,
    "Tokens read and written", "输入与输出 token 数" };
const Metric *const trace_metrics[] = { &duration, &ttft, &tbt, &tokens, NULL };
// clang-format on

void trace_live(const RequestRecord *r) {
    str op = str_z(operation_name(r->operation)), provider = S("lathe");
    str model = r->deployment.n ? r->model : S(""); // a name that nobody deployed makes no series
    metric_observe(&duration, (double)r->stage_us[STAGE_TOTAL] / 1e6, op, provider, model,
                   r->error_class.p ? r->error_class : S(""));
    if (r->ttft_us >= 0 && r->streamed)
        metric_observe(&ttft, (double)r->ttft_us / 1e6, op, provider, model);
    if (r->tbt_mean_us >= 0)
        metric_observe(&tbt, (double)r->tbt_mean_us / 1e6, op, provider, model);
    if (r->prompt_tokens)
        metric_observe(&tokens, (double)r->prompt_tokens, op, provider, model, S("input"));
    if (r->completion_tokens)
        metric_observe(&tokens, (double)r->completion_tokens, op, provider, model, S("output"));
}

// ---- what is recorded, from the snapshot
typedef struct Recording {
    int64_t percent;
} Recording; // of requests
typedef struct TraceView {
    Map projects;
} TraceView;

static err part_query(Ctx *c, Tx *tx, Json *out) {
    static SQL(recordings, "SELECT id, recording, recording_percent FROM projects WHERE recording "
                           "<> 'none' ORDER BY id");
    Rows *rows;
    bool more;
    json_arr(out);
    TRY(db_query(c, tx, &recordings, NULL, 0, &rows));
    for (;;) {
        TRY(rows_next(c, rows, &more));
        if (!more) break;
        json_obj(out);
        json_kv_str(out, "project", col_str(rows, 0));
        json_kv_i64(out, "percent", str_is(col_str(rows, 1), "all") ? 100 : col_int(rows, 2));
        json_end_obj(out);
    }
    json_end_arr(out);
    return ERR_OK;
}

static void view_done(void *v) { map_done(&((TraceView *)v)->projects); }

static err part_compile(Ctx *c, Arena *mem, yyjson_val *in, void **out) {
    TraceView *v = new (mem, TraceView, 1);
    size_t i, n;
    yyjson_val *row;
    (void)c;
    map_init(&v->projects, 0x7472);
    arena_defer(mem, view_done, v);
    yyjson_arr_foreach(in, i, n, row) {
        Recording *r = new (mem, Recording, 1);
        json_get_i64(row, "percent", &r->percent);
        map_set(&v->projects, json_get_str(row, "project"), r);
    }
    *out = v;
    return ERR_OK;
}
const SnapshotPart trace_part = { "recording", part_query, part_compile };

// The same request id gives the same answer on every node and at every attempt.
bool trace_records_content(const Snapshot *s, str project, str request_id) {
    const TraceView *v = snapshot_get(s, &trace_part);
    const Recording *r = map_get(&v->projects, project);
    return r && (int64_t)(str_hash_seed(request_id, 0x72656364) % 100) < r->percent;
}

// ---- folding: the last attempt of a request is its trace
static InsertSql trace_rows_add = {
    .name = "trace_add",
    .into = "traces (id, org, project, request_id, key_id, owner, model, deployment, "
            "replica, version, response_id, finish_reason, error_class, error_reason, client_ip, "
            "end_user, currency, prompt_digest, answer_digest, operation, outcome, streamed, "
            "tokens_exact, content, status, attempts, started_at, ended_at, queue_us, first_us, "
            "stream_us, total_us, ttft_us, tbt_mean_us, tbt_max_us, prompt_tokens, cached_tokens, "
            "completion_tokens, cost, revision, created_at, updated_at)",
    .columns = 42,
};
static SQL(content_add, "INSERT INTO trace_content (id, project, at, prompt, answer) VALUES ($1, "
                        "$2, $3, $4, $5)");

Insert trace_add_begin(Ctx *c, Tx *tx) { return insert_begin(c, tx, &trace_rows_add); }

err trace_add(Insert *to, const RequestRecord *r, str id) {
    bool content = r->prompt.p || r->answer.p;
    const Val v[] = { V(id),
                      V(r->org),
                      V(r->project),
                      V(r->request_id),
                      V(r->key_id),
                      V(r->owner),
                      V(r->model),
                      V(r->deployment),
                      V(r->replica),
                      V(r->version),
                      V(r->response_id),
                      V(r->finish_reason),
                      V(r->error_class),
                      V(r->error_reason),
                      V(r->client_ip),
                      V(r->end_user),
                      V(r->currency),
                      V(r->prompt_digest),
                      V(r->answer_digest),
                      V(operation_name(r->operation)),
                      V(outcome_name(r->outcome)),
                      V((int)r->streamed),
                      V((int)r->tokens_exact),
                      V((int)content),
                      V(r->status),
                      V(r->attempt),
                      V(r->start_ms),
                      V(r->end_ms),
                      V(r->stage_us[STAGE_QUEUE]),
                      V(r->stage_us[STAGE_FIRST]),
                      V(r->stage_us[STAGE_STREAM]),
                      V(r->stage_us[STAGE_TOTAL]),
                      V(r->ttft_us),
                      V(r->tbt_mean_us),
                      V(r->tbt_max_us),
                      V(r->prompt_tokens),
                      V(r->cached_tokens),
                      V(r->completion_tokens),
                      V(r->cost_nano),
                      V(1),
                      V(r->start_ms),
                      V(r->end_ms) };
    static_assert(countof(v) == 42, "as many as its statement has columns");
    TRY(insert_row(to, v));
    if (!content) return ERR_OK;
    return db_run(to->c, to->tx, &content_add, V(id), V(r->project), V(r->start_ms), V(r->prompt),
                  V(r->answer));
}

// Into the main database: all with PostgreSQL; else only what a crash left open, which the ledger
// settles at the start and no journal tells.
err trace_fold(Ctx *c, Tx *tx, const RequestRecord *const *r, size_t n) {
    int64_t day = INT64_MIN; // whose partition is there
    Insert to = trace_add_begin(c, tx);
    for (size_t i = 0; i < n; i++) {
        bool here = !trace_days() || str_is(r[i]->error_reason, "server_died");
        if (!here || !r[i]->final || !r[i]->project.n) continue;
        int64_t of = time_day(r[i]->start_ms);
        if (tx_kind(tx) == DB_POSTGRES && of != day) TRY(trace_part_make(c, tx, of));
        day = of;
        TRY(trace_add(&to, r[i], os_id(c, "trace")));
    }
    return insert_end(&to, NULL);
}

// ---- reading content is itself audited
typedef struct ContentCall {
    str id, prompt, answer;
} ContentCall;

static err content_read(Ctx *c, Tx *tx, void *arg) {
    static SQL(content_get,
               "SELECT prompt, answer FROM trace_content WHERE id = $1 AND project = $2");
    ContentCall *call = arg;
    Rows *rows;
    err e = db_one(c, tx, &rows, &content_get, (Val[]){ V(call->id), V(c->project) }, 2);
    if (e == ERR_NOTFOUND)
        return fail(c, e, R_NOT_FOUND, "kind", "recorded content of", "id", say_str(c, call->id));
    if (e) return e;
    call->prompt = col_str(rows, 0), call->answer = col_str(rows, 1);
    rows_close(rows);
    return ERR_OK;
}

static err content_audit(Ctx *c, Tx *tx, void *arg) {
    const ContentCall *call = arg;
    App *app = app_of(c);
    AuditEntry entry = { "read",  "trace_content", call->id, { 0 }, S("traces.content"),
                         S("{}"), SCOPE_PROJECT };
    return app->audit ? app->audit(c, tx, &entry) : ERR_OK;
}

err serve_content(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    ContentCall call = { .id = route_param(r, "/lathe/v1/traces/{id}/content", "id") };
    (void)body;
    DailySet *days = trace_days();
    TRY(days ? daily_read(c, days, call.id, content_read, &call)
             : db_read(c, c->db, content_read, &call));
    TRY(db_tx(c, c->db, content_audit, &call)); // before anything of it is shown
    Json j = json_to(&out->body);
    json_obj(&j), json_kv_str(&j, "id", call.id), json_kv_str(&j, "prompt", call.prompt),
        json_kv_str(&j, "answer", call.answer);
    json_end_obj(&j);
    return ERR_OK;
}

static const UsageView trace_view = { "trace", trace_fold },
                       rollup_view = { "rollup", rollup_fold };
static const Resource *const resources[] = { &trace_resource, NULL };

static err trace_init(Ctx *c) {
    snapshot_part(&trace_part);
    usage_view(&trace_view), usage_view(&rollup_view);
    TRY(trace_days_open(c));
    if (trace_days()) usage_folder(&trace_folder);
    return ERR_OK;
}

const Module trace_module = {
    .name = "trace",
    .needs = "usage",
    .resources = resources,
    .routes = trace_routes,
    .settings = trace_settings,
    .metrics = trace_metrics,
    .migrations = trace_migrations,
    .migrations_n = 5,
    .retentions = trace_retentions,
    .events = trace_events,
    .init = trace_init,
    .start = rollup_live_start,
    .stop = rollup_live_stop,
    .en = "One wide record for each request, metrics and roll-ups",
    .zh = "请求追踪、指标与汇总",
};
