// SPDX-License-Identifier: Apache-2.0
// rollup.c - sums per minute by project, deployment, model and key, kept exact by the fold. Charts
// read these and never scan traces; each change of a minute is told to live readers as the event
// "rollup".
#include "mod/trace/trace_own.h"
#include "base/time.h"

const int64_t rollup_bounds_us[ROLLUP_BOUNDS] = { 50000,   100000,  250000,  500000,
                                                  1000000, 2500000, 5000000, 10000000 };

static SQL(rollup_add, "INSERT INTO rollups (project, minute, deployment, model, key_id, requests, "
                       "errors, prompt_tokens, completion_tokens, cost, "
                       "total_us, ttft_n, ttft_us, b1, b2, b3, b4, b5, b6, b7, b8) VALUES ($1, $2, "
                       "$3, $4, $5, 1, $6, $7, $8, $9, $10, $11, $12, "
                       "$13, $14, $15, $16, $17, $18, $19, $20) ON CONFLICT (project, minute, "
                       "deployment, model, key_id) DO UPDATE SET "
                       "requests = rollups.requests + 1, errors = rollups.errors + $6, "
                       "prompt_tokens = rollups.prompt_tokens + $7, "
                       "completion_tokens = rollups.completion_tokens + $8, cost = rollups.cost + "
                       "$9, total_us = rollups.total_us + $10, "
                       "ttft_n = rollups.ttft_n + $11, ttft_us = rollups.ttft_us + $12, b1 = "
                       "rollups.b1 + $13, b2 = rollups.b2 + $14, "
                       "b3 = rollups.b3 + $15, b4 = rollups.b4 + $16, b5 = rollups.b5 + $17, b6 = "
                       "rollups.b6 + $18, b7 = rollups.b7 + $19, "
                       "b8 = rollups.b8 + $20");

static str or_empty(str s) { return s.p ? s : S(""); }

err rollup_fold(Ctx *c, Tx *tx, const RequestRecord *r) {
    if (!r->final || !r->project.n) return ERR_OK;
    bool timed = r->ttft_us >= 0 && r->streamed;
    Val v[20] = { V(r->project),
                  V(r->start_ms / 60000),
                  V(or_empty(r->deployment)),
                  V(r->deployment.n ? or_empty(r->model) : S("")),
                  V(or_empty(r->key_id)),
                  V((int)(r->outcome != OUTCOME_OK)),
                  V(r->prompt_tokens),
                  V(r->completion_tokens),
                  V(r->cost_nano),
                  V(r->stage_us[STAGE_TOTAL]),
                  V((int)timed),
                  V(timed ? r->ttft_us : 0) };
    for (int i = 0; i < ROLLUP_BOUNDS; i++)
        v[12 + i] = V((int)(timed && r->ttft_us <= rollup_bounds_us[i]));
    return db_exec(c, tx, &rollup_add, v, countof(v), NULL);
}

// ---- GET /lathe/v1/rollups?from=&to=&deployment=&model=&key=&step=60
typedef struct RollupCall {
    str from, to, deployment, model, key;
    int64_t step, from_minute, to_minute;
    HttpReply *out;
} RollupCall;

// clang-format off
const Field rollup_query[] = {
    TEXT(RollupCall, from, 0, 40, "Start; an hour ago", "起始时间；默认一小时前"),
    TEXT(RollupCall, to, 0, 40, "End; now", "结束时间；默认现在"),
    TEXT(RollupCall, deployment, 0, 100, "Only this deployment", "仅此部署"),
    TEXT(RollupCall, model, 0, 300, "Only this model", "仅此模型"),
    TEXT(RollupCall, key, 0, 100, "Only this key", "仅此密钥"),
    INT(RollupCall, step, 0, 1, 1440, "Minutes put together", "合并的分钟数"),
    { 0 }
};
// clang-format on

static void write_row(const RollupCall *call, const Rows *rows, Json *j) {
    static const char *const names[] = { "requests",          "errors",    "prompt_tokens",
                                         "completion_tokens", "cost_nano", "total_us",
                                         "ttft_count",        "ttft_us" };
    char text[TIME_TEXT];
    json_obj(j);
    json_kv_str(j, "at", time_format(col_int(rows, 0) * call->step * 60000, text));
    for (int i = 0; i < 8; i++) json_kv_i64(j, names[i], col_int(rows, 1 + i));
    json_key(j, "ttft_buckets"), json_arr(j);
    for (int i = 0; i < ROLLUP_BOUNDS; i++) json_put_i64(j, col_int(rows, 9 + i));
    json_end_arr(j), json_end_obj(j);
}

static err rollups_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(rollups_get, "SELECT minute / $7, CAST(SUM(requests) AS BIGINT), CAST(SUM(errors) "
                            "AS BIGINT), CAST(SUM(prompt_tokens) AS BIGINT), "
                            "CAST(SUM(completion_tokens) AS BIGINT), CAST(SUM(cost) AS BIGINT), "
                            "CAST(SUM(total_us) AS BIGINT), "
                            "CAST(SUM(ttft_n) AS BIGINT), CAST(SUM(ttft_us) AS BIGINT), "
                            "CAST(SUM(b1) AS BIGINT), CAST(SUM(b2) AS BIGINT), "
                            "CAST(SUM(b3) AS BIGINT), CAST(SUM(b4) AS BIGINT), CAST(SUM(b5) AS "
                            "BIGINT), CAST(SUM(b6) AS BIGINT), "
                            "CAST(SUM(b7) AS BIGINT), CAST(SUM(b8) AS BIGINT) FROM rollups WHERE "
                            "project = $1 AND minute BETWEEN $2 AND $3 "
                            "AND ($4 = '' OR deployment = $4) AND ($5 = '' OR model = $5) AND ($6 "
                            "= '' OR key_id = $6) GROUP BY 1 ORDER BY 1 LIMIT 50000");
    RollupCall *call = arg;
    Rows *rows;
    bool more;
    buf_clear(&call->out->body);
    Json j = json_to(&call->out->body);
    json_obj(&j);
    json_key(&j, "ttft_bounds_us"), json_arr(&j);
    for (int i = 0; i < ROLLUP_BOUNDS; i++) json_put_i64(&j, rollup_bounds_us[i]);
    json_end_arr(&j);
    json_key(&j, "data"), json_arr(&j);
    TRY(db_ask(c, tx, &rows, &rollups_get, V(c->project), V(call->from_minute), V(call->to_minute),
               V(or_empty(call->deployment)), V(or_empty(call->model)), V(or_empty(call->key)),
               V(call->step)));
    for (;;) {
        TRY(rows_next(c, rows, &more));
        if (!more) break;
        write_row(call, rows, &j);
    }
    json_end_arr(&j), json_end_obj(&j);
    return ERR_OK;
}

static err read_minute(Ctx *c, const char *name, str text, int64_t fallback, int64_t *out) {
    int64_t ms = fallback;
    if (text.p && !time_parse(text, &ms))
        return fail(c, ERR_INVALID, R_FIELD_TYPE, "field", name, "want", "an RFC 3339 time", "got",
                    say_str(c, text));
    *out = ms / 60000;
    return ERR_OK;
}

err serve_rollups(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    int64_t now = os_wall_ms(c->os);
    (void)body;
    RollupCall call = { .out = out, .step = 1 };
    str step = http_query(c->mem, r, "step", NULL);
    call.deployment = http_query(c->mem, r, "deployment", NULL),
    call.model = http_query(c->mem, r, "model", NULL);
    call.key = http_query(c->mem, r, "key", NULL);
    TRY(read_minute(c, "from", http_query(c->mem, r, "from", NULL), now - 3600000,
                    &call.from_minute));
    TRY(read_minute(c, "to", http_query(c->mem, r, "to", NULL), now, &call.to_minute));
    if (step.p && (!str_to_i64(step, &call.step) || call.step < 1 || call.step > 1440))
        return fail(c, ERR_INVALID, R_FIELD_RANGE, "field", "step", "min", "1", "max", "1440",
                    "got", say_str(c, step));
    return db_read(c, c->db, rollups_tx, &call);
}
