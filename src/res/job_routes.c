// SPDX-License-Identifier: Apache-2.0
// job_routes.c - jobs over HTTP: list, one, its log, cancel, retry. A job belongs to a project, or
// to the system.
#include "base/time.h"
#include "res/kit.h"

typedef struct JobCall {
    const HttpRequest *r;
    JobFilter filter;
    size_t limit;
    JobView *views;
    size_t n;
    str id;
    bool retry;
} JobCall;

static void job_write(Ctx *c, const JobView *v, Json *j) {
    char text[TIME_TEXT];
    const struct {
        const char *name;
        int64_t ms;
    } times[] = {
        { "created_at", v->created_ms },
        { "started_at", v->started_ms },
        { "ended_at", v->ended_ms },
        { "next_at", v->next_ms },
    };
    json_obj(j);
    json_kv_str(j, "id", v->id), json_kv_str(j, "kind", v->kind),
        json_kv_z(j, "state", job_state_name(v->state));
    json_kv_str(j, "subject", v->subject), json_kv_str(j, "project", v->project),
        json_kv_str(j, "created_by", v->created_by);
    json_kv_str(j, "node", v->node), json_kv_str(j, "wait_reason", v->wait_reason),
        json_kv_str(j, "wait_text", v->wait_text);
    json_kv_str(j, "error", v->error_slug), json_kv_str(j, "error_text", v->error_text);
    json_kv_i64(j, "progress_done", v->progress_done),
        json_kv_i64(j, "progress_total", v->progress_total);
    json_kv_str(j, "unit", v->unit), json_kv_i64(j, "attempt", v->attempt),
        json_kv_i64(j, "attempts_max", v->attempts_max);
    json_kv_bool(j, "cancel_asked", v->cancel_asked);
    for (size_t i = 0; i < countof(times); i++)
        json_kv_str(j, times[i].name, times[i].ms ? time_format(times[i].ms, text) : (str){ 0 });
    json_kv_raw(j, "result", v->result.n ? v->result : S("null"));
    json_end_obj(j);
    (void)c;
}

static err list_tx(Ctx *c, Tx *tx, void *arg) {
    JobCall *call = arg;
    return job_list(c, tx, &call->filter, call->limit + 1, &call->views, &call->n);
}

static err read_state(Ctx *c, str text, JobState *out) {
    for (JobState s = JOB_WAITING; s <= JOB_CANCELLED; s++)
        if (str_is(text, job_state_name(s))) {
            *out = s;
            return ERR_OK;
        }
    return fail(c, ERR_INVALID, R_FIELD_ENUM, "field", "state", "names",
                "waiting, running, done, failed, cancelled", "got", say_str(c, text));
}

static err serve_list(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    (void)body;
    JobCall call = { .r = r, .limit = LIST_DEFAULT };
    JobState state;
    int64_t limit;
    str text = http_query(c->mem, r, "limit", NULL), want = http_query(c->mem, r, "state", NULL);
    if (text.p && (!str_to_i64(text, &limit) || limit < 1 || limit >= LIST_MAX))
        return fail(c, ERR_INVALID, R_FIELD_RANGE, "field", "limit", "min", "1", "max", "999",
                    "got", say_str(c, text));
    if (text.p) call.limit = (size_t)limit;
    if (want.p) TRY(read_state(c, want, &state));
    call.filter = (JobFilter){ .project = c->project,
                               .kind = http_query(c->mem, r, "kind", NULL),
                               .state = want.p ? &state : NULL,
                               .subject = http_query(c->mem, r, "subject", NULL),
                               .before_id = http_query(c->mem, r, "cursor", NULL) };
    TRY(db_read(c, c->db, list_tx, &call));
    bool more = call.n > call.limit;
    size_t n = more ? call.limit : call.n;
    Json j = json_to(&out->body);
    json_obj(&j), json_key(&j, "data"), json_arr(&j);
    for (size_t i = 0; i < n; i++) job_write(c, &call.views[i], &j);
    json_end_arr(&j);
    json_kv_str(&j, "next_cursor", more ? call.views[n - 1].id : (str){ 0 });
    json_end_obj(&j);
    return ERR_OK;
}

static err one_tx(Ctx *c, Tx *tx, void *arg) {
    JobCall *call = arg;
    call->views = new(c->mem, JobView, 1);
    return job_view(c, tx, c->project, call->id, call->views);
}

static err serve_one(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    (void)body;
    JobCall call = { .r = r, .id = route_param(r, "/lathe/v1/jobs/{id}", "id") };
    TRY(db_read(c, c->db, one_tx, &call));
    Json j = json_to(&out->body);
    job_write(c, call.views, &j);
    return ERR_OK;
}

static err serve_log(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    (void)body;
    int64_t offset = 0;
    str text = http_query(c->mem, r, "offset", NULL);
    if (text.p && (!str_to_i64(text, &offset) || offset < 0))
        return fail(c, ERR_INVALID, R_FIELD_TYPE, "field", "offset", "want", "a number of bytes",
                    "got", say_str(c, text));
    JobLog log;
    TRY(job_log(c, app_of(c)->jobs, c->project, route_param(r, "/lathe/v1/jobs/{id}/log", "id"),
                offset, &log));
    out->type = "text/plain; charset=utf-8";
    out->status = 200;
    http_reply_header(c, out, "Lathe-Log-Next",
                      arena_printf(c->mem, "%lld", (long long)(offset + (int64_t)log.text.n)));
    http_reply_header(c, out, "Lathe-Log-End", log.end ? S("true") : S("false"));
    buf_add(&out->body, log.text);
    return ERR_OK;
}

static err change_tx(Ctx *c, Tx *tx, void *arg) {
    JobCall *call = arg;
    TRY(call->retry ? job_retry(c, tx, c->project, call->id)
                    : job_cancel(c, tx, c->project, call->id));
    App *app = app_of(c);
    tx_notify(tx, jobs_wake, app->jobs);
    AuditEntry entry = { call->retry ? "retry" : "cancel",
                         "job",
                         call->id,
                         { 0 },
                         call->retry ? S("jobs.retry") : S("jobs.cancel"),
                         S("{}"),
                         SCOPE_PROJECT };
    return app->audit ? app->audit(c, tx, &entry) : ERR_OK;
}

static err change(Ctx *c, const HttpRequest *r, bool retry, HttpReply *out) {
    JobCall call = { .r = r, .retry = retry, .id = r->params[r->params_n - 1] };
    TRY(db_tx(c, c->db, change_tx, &call));
    TRY(db_read(c, c->db, one_tx, &call));
    Json j = json_to(&out->body);
    job_write(c, call.views, &j);
    return ERR_OK;
}
static err serve_cancel(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    (void)body;
    return change(c, r, false, out);
}
static err serve_retry(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    (void)body;
    return change(c, r, true, out);
}

// clang-format off
typedef struct JobQuery { str kind, subject, cursor, state; int64_t limit, offset; } JobQuery;
static const Field list_query[] = {
    TEXT(JobQuery, kind, 0, 100, "Only jobs of this kind", "仅此类型"),
    TEXT(JobQuery, subject, 0, 100, "Only jobs on this object", "仅针对此对象"),
    TEXT(JobQuery, state, 0, 20, "waiting, running, done, failed or cancelled", "状态"),
    INT(JobQuery, limit, 0, 1, LIST_MAX - 1, "Most to give", "条数上限"),
    TEXT(JobQuery, cursor, 0, 100, "next_cursor of the page before", "上一页的 next_cursor"),
    { 0 }
};
static const Field log_query[] = { INT(JobQuery, offset, 0, 0, INT64_MAX, "Bytes to skip",
    "跳过的字节数"), { 0 } };
const Route job_routes[] = {
    { HTTP_GET, "/lathe/v1/jobs", 0, "jobs.read", serve_list, .query = list_query,
        .cli = "job list",
      .en = "Jobs, newest first, each with what it waits for", .zh = "作业列表（新的在前），含等待原因" },
    { HTTP_GET, "/lathe/v1/jobs/{id}", 0, "jobs.read", serve_one, .cli = "job get",
        .en = "One job", .zh = "一个作业" },
    { HTTP_GET, "/lathe/v1/jobs/{id}/log", 0, "jobs.read", serve_log, .query = log_query,
        .cli = "job log",
      .output_type = "text/plain; charset=utf-8", .en = "A job's log from an offset on",
          .zh = "作业日志" },
    { HTTP_POST, "/lathe/v1/jobs/{id}/cancel", 0, "jobs.cancel", serve_cancel, .body_max = 1024,
        .cli = "job cancel", .errors = "409",
      .en = "Ask a job to end", .zh = "取消作业" },
    { HTTP_POST, "/lathe/v1/jobs/{id}/retry", 0, "jobs.retry", serve_retry, .body_max = 1024,
        .cli = "job retry", .errors = "409",
      .en = "Start a failed or cancelled job again", .zh = "重试作业" },
    { 0 }
};
// clang-format on
