// SPDX-License-Identifier: Apache-2.0
// rollup.c - sums per minute by project, deployment, model and key, kept exact by the fold. Charts
// read these and never scan traces; each change of a minute is told to live readers as the event
// "rollup".
#include "mod/trace/trace_own.h"
#include "base/map.h"
#include "base/time.h"

const int64_t rollup_bounds_us[ROLLUP_BOUNDS] = { 50000,   100000,  250000,  500000,
                                                  1000000, 2500000, 5000000, 10000000 };

enum { SUMS = 8 + ROLLUP_BOUNDS };
static SQL(rollup_add,
           "INSERT INTO rollups (project, minute, deployment, model, key_id, requests, errors, "
           "prompt_tokens, completion_tokens, cost, total_us, ttft_n, ttft_us, b1, b2, b3, b4, b5, "
           "b6, b7, b8) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, "
           "$16, $17, $18, $19, $20, $21) "
           "ON CONFLICT (project, minute, deployment, model, key_id) DO UPDATE SET "
           "requests = rollups.requests + $6, errors = rollups.errors + $7, "
           "prompt_tokens = rollups.prompt_tokens + $8, "
           "completion_tokens = rollups.completion_tokens + $9, cost = rollups.cost + $10, "
           "total_us = rollups.total_us + $11, ttft_n = rollups.ttft_n + $12, "
           "ttft_us = rollups.ttft_us + $13, b1 = rollups.b1 + $14, b2 = rollups.b2 + $15, "
           "b3 = rollups.b3 + $16, b4 = rollups.b4 + $17, b5 = rollups.b5 + $18, "
           "b6 = rollups.b6 + $19, b7 = rollups.b7 + $20, b8 = rollups.b8 + $21");

static str or_empty(str s) { return s.p ? s : S(""); }

// What a batch adds to one row: its key, then the sums in the order of the statement.
typedef struct Sum {
    str project, deployment, model, key_id;
    int64_t minute, sums[SUMS];
} Sum;

static Sum *sum_of(Ctx *c, Map *sums, const RequestRecord *r) {
    Sum s = {
        or_empty(r->project), or_empty(r->deployment), r->deployment.n ? or_empty(r->model) : S(""),
        or_empty(r->key_id),  r->start_ms / 60000,     { 0 }
    };
    str key = arena_printf(c->mem, STR_FMT "\n%lld\n" STR_FMT "\n" STR_FMT "\n" STR_FMT,
                           STR_ARG(s.project), (long long)s.minute, STR_ARG(s.deployment),
                           STR_ARG(s.key_id), STR_ARG(s.model));
    Sum *there = map_get(sums, key);
    if (there) return there;
    there = new (c->mem, Sum, 1);
    *there = s;
    map_set(sums, key, there);
    return there;
}

static void sum_add(int64_t *sums, const RequestRecord *r) {
    bool timed = r->ttft_us >= 0 && r->streamed;
    const int64_t add[8] = { 1,
                             r->outcome != OUTCOME_OK,
                             r->prompt_tokens,
                             r->completion_tokens,
                             r->cost_nano,
                             r->stage_us[STAGE_TOTAL],
                             timed,
                             timed ? r->ttft_us : 0 };
    for (int i = 0; i < 8; i++) sums[i] += add[i];
    for (int i = 0; i < ROLLUP_BOUNDS; i++)
        sums[8 + i] += timed && r->ttft_us <= rollup_bounds_us[i];
}

static err put(Ctx *c, Tx *tx, const Sum *s) {
    Val v[5 + SUMS] = { V(s->project), V(s->minute), V(s->deployment), V(s->model), V(s->key_id) };
    for (int i = 0; i < SUMS; i++) v[5 + i] = V(s->sums[i]);
    return db_exec(c, tx, &rollup_add, v, countof(v), NULL);
}

err rollup_fold(Ctx *c, Tx *tx, const RequestRecord *const *r, size_t n) {
    Map sums;
    MapEntry *at;
    err e = ERR_OK;
    map_init(&sums, 0x726f6c6c);
    for (size_t i = 0; i < n; i++)
        if (r[i]->final && r[i]->project.n) sum_add(sum_of(c, &sums, r[i])->sums, r[i]);
    for (size_t i = 0; !e && map_each(&sums, &i, &at);) e = put(c, tx, at->value);
    map_done(&sums);
    return e;
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
