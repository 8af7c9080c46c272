// SPDX-License-Identifier: Apache-2.0
// rollup.c - sums per minute by project, deployment, model and key, kept exact by the fold: charts
// read these and never scan traces. A batch writes each row once and gives the rows of a project
// the next revision of it, by which rollup_live.c finds what changed.
// Threads: the fold's, and handlers'.
#include "mod/trace/trace_own.h"
#include "base/map.h"
#include "base/time.h"

const int64_t rollup_bounds_us[ROLLUP_BOUNDS] = { 50000,   100000,  250000,  500000,
                                                  1000000, 2500000, 5000000, 10000000 };

enum { SUMS = 8 + ROLLUP_BOUNDS };
static SQL(
    rollup_add,
    "INSERT INTO rollups (project, minute, deployment, model, key_id, requests, errors, "
    "prompt_tokens, completion_tokens, cost, total_us, ttft_n, ttft_us, b1, b2, b3, b4, b5, "
    "b6, b7, b8, revision) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, "
    "$14, $15, $16, $17, $18, $19, $20, $21, $22) "
    "ON CONFLICT (project, minute, deployment, model, key_id) DO UPDATE SET "
    "requests = rollups.requests + $6, errors = rollups.errors + $7, "
    "prompt_tokens = rollups.prompt_tokens + $8, "
    "completion_tokens = rollups.completion_tokens + $9, "
    "cost = " USAGE_SUM(
        "rollups.cost",
        "$10") ", "
               "total_us = rollups.total_us + $11, ttft_n = rollups.ttft_n + $12, "
               "ttft_us = rollups.ttft_us + $13, b1 = rollups.b1 + $14, b2 = rollups.b2 + $15, "
               "b3 = rollups.b3 + $16, b4 = rollups.b4 + $17, b5 = rollups.b5 + $18, "
               "b6 = rollups.b6 + $19, b7 = rollups.b7 + $20, b8 = rollups.b8 + $21, revision = "
               "$22");
static SQL(rollup_next, "INSERT INTO rollup_state (project, org, revision) VALUES ($1, $2, 1) "
                        "ON CONFLICT (project) DO UPDATE SET revision = rollup_state.revision + 1 "
                        "RETURNING revision");

static str or_empty(str s) { return s.p ? s : S(""); }

// What a batch adds to one row: its key, then the sums in the order of the statement.
typedef struct Sum {
    str project, deployment, model, key_id, org;
    int64_t minute, sums[SUMS];
} Sum;

static Sum *sum_of(Ctx *c, Map *sums, const RequestRecord *r) {
    Sum s = { or_empty(r->project),
              or_empty(r->deployment),
              r->deployment.n ? or_empty(r->model) : S(""),
              or_empty(r->key_id),
              or_empty(r->org),
              r->start_ms / 60000,
              { 0 } };
    char text[STR_I64];
    const str parts[] = { s.project, str_i64(s.minute, text), s.deployment, s.key_id, s.model };
    str key = arena_join(c->mem, parts, countof(parts), S("\n"));
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
    for (int i = 0; i < 8; i++) sums[i] = usage_sum(sums[i], add[i]);
    for (int i = 0; i < ROLLUP_BOUNDS; i++)
        sums[8 + i] += timed && r->ttft_us <= rollup_bounds_us[i];
}

// Two folds of a project, on two nodes, wait for each other here: revisions are committed in order.
static err next_revision(Ctx *c, Tx *tx, Map *revisions, const Sum *s, int64_t *out) {
    int64_t *there = map_get(revisions, s->project);
    if (!there) {
        Rows *rows;
        there = new (c->mem, int64_t, 1);
        TRY(db_one(c, tx, &rows, &rollup_next, (Val[]){ V(s->project), V(s->org) }, 2));
        *there = col_int(rows, 0);
        rows_close(rows);
        map_set(revisions, s->project, there);
    }
    *out = *there;
    return ERR_OK;
}

static err put(Ctx *c, Tx *tx, Map *revisions, const Sum *s) {
    int64_t revision;
    TRY(next_revision(c, tx, revisions, s, &revision));
    Val v[6 + SUMS] = { V(s->project), V(s->minute), V(s->deployment), V(s->model), V(s->key_id) };
    for (int i = 0; i < SUMS; i++) v[5 + i] = V(s->sums[i]);
    v[5 + SUMS] = V(revision);
    return db_exec(c, tx, &rollup_add, v, countof(v), NULL);
}

err rollup_fold(Ctx *c, Tx *tx, const RequestRecord *const *r, size_t n) {
    Map sums, revisions;
    MapEntry *at;
    err e = ERR_OK;
    map_init(&sums, 0x726f6c6c), map_init(&revisions, 0x72657673);
    for (size_t i = 0; i < n; i++)
        if (r[i]->final && r[i]->project.n) sum_add(sum_of(c, &sums, r[i])->sums, r[i]);
    for (size_t i = 0; !e && map_each(&sums, &i, &at);) e = put(c, tx, &revisions, at->value);
    map_done(&sums), map_done(&revisions);
    return e;
}

// ---- GET /lathe/v1/rollups?from=&to=&deployment=&model=&key=&step=60&by=deployment,key
enum { BY_DEPLOYMENT = 1, BY_MODEL = 2, BY_KEY = 4, ROWS_MAX = 50000 };
typedef struct RollupCall {
    str from, to, deployment, model, key, by;
    int64_t step, from_minute, to_minute;
    unsigned apart; // BY_*
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
    TEXT(RollupCall, by, 0, 100,
        "Kept apart by these, separated by commas: deployment, model, key; else summed up",
        "按这些维度分开（逗号分隔）：deployment、model、key；缺省则合计"),
    { 0 }
};
// clang-format on

void rollup_write(const Rows *rows, int64_t step, Json *j) {
    static const char *const names[] = { "requests",          "errors",    "prompt_tokens",
                                         "completion_tokens", "cost_nano", "total_us",
                                         "ttft_count",        "ttft_us" };
    static const char *const dims[] = { "deployment", "model", "key" };
    char text[TIME_TEXT];
    json_obj(j);
    json_kv_str(j, "at", time_format(col_int(rows, 0) * step * 60000, text));
    for (int i = 0; i < 3; i++)
        if (!col_null(rows, 1 + i)) json_kv_str(j, dims[i], col_str(rows, 1 + i));
    for (int i = 0; i < 8; i++) json_kv_i64(j, names[i], col_int(rows, 4 + i));
    json_key(j, "ttft_buckets"), json_arr(j);
    for (int i = 0; i < ROLLUP_BOUNDS; i++) json_put_i64(j, col_int(rows, 12 + i));
    json_end_arr(j), json_end_obj(j);
}

static err write_rows(Ctx *c, Tx *tx, const RollupCall *call, Json *j) {
    static SQL(rollups_get,
               "SELECT minute / $7, CASE WHEN $8 = 1 THEN deployment END, "
               "CASE WHEN $9 = 1 THEN model END, CASE WHEN $10 = 1 THEN key_id END, "
               "CAST(SUM(requests) AS BIGINT), CAST(SUM(errors) AS BIGINT), "
               "CAST(SUM(prompt_tokens) AS BIGINT), CAST(SUM(completion_tokens) AS BIGINT), "
               "CAST(SUM(cost) AS BIGINT), CAST(SUM(total_us) AS BIGINT), "
               "CAST(SUM(ttft_n) AS BIGINT), CAST(SUM(ttft_us) AS BIGINT), "
               "CAST(SUM(b1) AS BIGINT), CAST(SUM(b2) AS BIGINT), CAST(SUM(b3) AS BIGINT), "
               "CAST(SUM(b4) AS BIGINT), CAST(SUM(b5) AS BIGINT), CAST(SUM(b6) AS BIGINT), "
               "CAST(SUM(b7) AS BIGINT), CAST(SUM(b8) AS BIGINT) FROM rollups "
               "WHERE project = $1 AND minute BETWEEN $2 AND $3 "
               "AND ($4 = '' OR deployment = $4) AND ($5 = '' OR model = $5) "
               "AND ($6 = '' OR key_id = $6) GROUP BY 1, 2, 3, 4 "
               "ORDER BY 1, 2 NULLS FIRST, 3 NULLS FIRST, 4 NULLS FIRST LIMIT $11");
    Rows *rows;
    bool more;
    int n = 0;
    TRY(db_ask(c, tx, &rows, &rollups_get, V(c->project), V(call->from_minute), V(call->to_minute),
               V(or_empty(call->deployment)), V(or_empty(call->model)), V(or_empty(call->key)),
               V(call->step), V(call->apart & BY_DEPLOYMENT ? 1 : 0),
               V(call->apart & BY_MODEL ? 1 : 0), V(call->apart & BY_KEY ? 1 : 0),
               V(ROWS_MAX + 1)));
    json_key(j, "data"), json_arr(j);
    for (;; n++) {
        TRY(rows_next(c, rows, &more));
        if (!more || n == ROWS_MAX) break;
        rollup_write(rows, call->step, j);
    }
    json_end_arr(j);
    json_kv_bool(j, "more", more);
    rows_close(rows);
    return ERR_OK;
}

static err rollups_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(rollups_revision, "SELECT revision FROM rollup_state WHERE project = $1");
    RollupCall *call = arg;
    Rows *rows;
    bool any;
    TRY(db_ask(c, tx, &rows, &rollups_revision, V(c->project)));
    TRY(rows_next(c, rows, &any));
    buf_clear(&call->out->body);
    Json j = json_to(&call->out->body);
    json_obj(&j);
    json_kv_i64(&j, "revision", any ? col_int(rows, 0) : 0);
    rows_close(rows);
    json_key(&j, "ttft_bounds_us"), json_arr(&j);
    for (int i = 0; i < ROLLUP_BOUNDS; i++) json_put_i64(&j, rollup_bounds_us[i]);
    json_end_arr(&j);
    TRY(write_rows(c, tx, call, &j));
    json_end_obj(&j);
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

static err read_by(Ctx *c, str text, unsigned *out) {
    *out = 0;
    for (str one; text.n && str_cut(&text, ',', &one);) {
        one = str_trim(one);
        if (str_is(one, "deployment")) *out |= BY_DEPLOYMENT;
        else if (str_is(one, "model")) *out |= BY_MODEL;
        else if (str_is(one, "key")) *out |= BY_KEY;
        else
            return fail(c, ERR_INVALID, R_FIELD_TYPE, "field", "by", "want",
                        "deployment, model or key", "got", say_str(c, one));
    }
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
    TRY(read_by(c, http_query(c->mem, r, "by", NULL), &call.apart));
    if (step.p && (!str_to_i64(step, &call.step) || call.step < 1 || call.step > 1440))
        return fail(c, ERR_INVALID, R_FIELD_RANGE, "field", "step", "min", "1", "max", "1440",
                    "got", say_str(c, step));
    return db_read(c, c->db, rollups_tx, &call);
}
