// SPDX-License-Identifier: Apache-2.0
// usage.c - the ledger: descriptor, totals. Writing is record.c, reading the journal is fold.c,
// prices are price.c.
#include "mod/usage/usage_own.h"
#include "base/id.h"
#include "base/time.h"
#include "mod/audit/audit.h"

const char *outcome_name(Outcome o) { return outcomes[o]; }
const char *operation_name(Operation o) { return operations[o]; }

// By identifiers, which hold the time: rows lie in the order of project and identifier, and need no
// index of their age.
static err trim_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(usage_old, "DELETE FROM usage WHERE project IN (SELECT DISTINCT project FROM "
                          "usage_day) AND id < $1");
    static const uint8_t least[10];
    int64_t *at = arg;
    str first = id_format(c->mem, usage_resource.prefix, at[0], least);
    return db_exec(c, tx, &usage_old, (Val[]){ V(first) }, 1, &at[1]);
}
err usage_trim(Ctx *c, int64_t before_ms, int64_t *out_removed) {
    int64_t at[2] = { before_ms, 0 };
    TRY(db_tx(c, c->db, trim_tx, at));
    *out_removed = at[1];
    return ERR_OK;
}

// ---- totals: GET /lathe/v1/usage_totals?by=day,model&from=2026-11-01&to=2026-11-30
typedef struct Totals {
    str by, from, to;
    int64_t from_day, to_day;
    bool day, key, model;
    HttpReply *out;
} Totals;

static err read_day(Ctx *c, const char *name, str text, int64_t *out) {
    if (!text.p) return ERR_OK;
    int64_t ms;
    str full = arena_printf(c->mem, STR_FMT "T00:00:00Z", STR_ARG(text));
    if (!time_parse(text.n == 10 ? full : text, &ms))
        return fail(c, ERR_INVALID, R_FIELD_TYPE, "field", name, "want", "a day such as 2026-11-22",
                    "got", say_str(c, text));
    *out = time_day(ms);
    return ERR_OK;
}

static err read_by(Ctx *c, Totals *t) {
    str rest = t->by.p ? t->by : S("day,model"), part;
    while (str_cut(&rest, ',', &part)) {
        part = str_trim(part);
        if (str_is(part, "day")) t->day = true;
        else if (str_is(part, "key")) t->key = true;
        else if (str_is(part, "model")) t->model = true;
        else if (!str_is(part, "project"))
            return fail(c, ERR_INVALID, R_FIELD_ENUM, "field", "by", "names",
                        "day, key, model, project", "got", say_str(c, part));
    }
    return ERR_OK;
}

static void write_total(Totals *t, const Rows *rows, Json *j) {
    static const char *const sums[] = { "requests",          "failed",
                                        "prompt_tokens",     "cached_tokens",
                                        "completion_tokens", "machine_us" };
    char text[TIME_TEXT];
    Arena *a = arena_new();
    json_obj(j);
    if (t->day)
        json_kv_str(j, "day", str_sub(time_format(col_int(rows, 0) * 86400000, text), 0, 10));
    if (t->key) json_kv_str(j, "key", col_str(rows, 1));
    if (t->model) json_kv_str(j, "model", col_str(rows, 2));
    for (int i = 0; i < 6; i++) json_kv_i64(j, sums[i], col_int(rows, 4 + i));
    json_kv_str(j, "cost", money_format(a, col_int(rows, 10)));
    json_kv_str(j, "currency", col_str(rows, 3));
    json_end_obj(j);
    arena_free(a);
}

static err totals_tx(Ctx *c, Tx *tx, void *arg) {
    Totals *t = arg;
    const char *day = t->day ? "day" : "CAST(0 AS BIGINT)",
               *key = t->key ? "key_id" : "CAST('' AS TEXT)",
               *model = t->model ? "model" : "CAST('' AS TEXT)";
    Sql *sql = new (c->mem, Sql, 1);
    *sql = (Sql){ "usage_totals",
                  arena_printf(
                      c->mem,
                      "SELECT %s AS a, %s AS b, %s AS d, currency, CAST(SUM(requests) AS BIGINT), "
                      "CAST(SUM(failed) AS BIGINT), "
                      "CAST(SUM(prompt_tokens) AS BIGINT), CAST(SUM(cached_tokens) AS BIGINT), "
                      "CAST(SUM(completion_tokens) AS "
                      "BIGINT), CAST(SUM(machine_us) AS BIGINT), CAST(SUM(cost) AS BIGINT) FROM "
                      "usage_day WHERE project = $1 AND "
                      "day BETWEEN $2 AND $3 GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4 LIMIT 10000",
                      day, key, model)
                      .p,
                  NULL };
    Rows *rows;
    bool more;
    buf_clear(&t->out->body);
    Json j = json_to(&t->out->body);
    json_obj(&j), json_key(&j, "data"), json_arr(&j);
    TRY(db_ask(c, tx, &rows, sql, V(c->project), V(t->from_day), V(t->to_day)));
    for (;;) {
        TRY(rows_next(c, rows, &more));
        if (!more) break;
        write_total(t, rows, &j);
    }
    json_end_arr(&j), json_end_obj(&j);
    return ERR_OK;
}

static err serve_totals(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    Totals t = { http_query(c->mem, r, "by", NULL), http_query(c->mem, r, "from", NULL),
                 http_query(c->mem, r, "to", NULL), .out = out };
    (void)body;
    t.to_day = time_day(os_wall_ms(c->os)), t.from_day = t.to_day - 30;
    TRY(read_by(c, &t));
    TRY(read_day(c, "from", t.from, &t.from_day));
    TRY(read_day(c, "to", t.to, &t.to_day));
    TRY(usage_flush(c)); // a total that one asks for right after a request counts it
    return db_read(c, c->db, totals_tx, &t);
}

// clang-format off
static const Field totals_query[] = {
    TEXT(Totals, by, 0, 60, "day, key, model, project: comma separated",
        "分组：day、key、model、project"),
    TEXT(Totals, from, 0, 40, "First day; 30 days ago", "起始日；默认 30 天前"),
    TEXT(Totals, to, 0, 40, "Last day; today", "结束日；默认今天"),
    { 0 }
};
const Route usage_routes[] = {
    { HTTP_GET, "/lathe/v1/usage_totals", 0, "usage.read", serve_totals, .query = totals_query,
        .cli = "usage total",
      .en = "Sums of usage and cost", .zh = "用量与费用汇总" },
    { 0 }
};
// clang-format on

static const Resource *const resources[] = { &usage_resource, &price_resource, NULL };

// One audit record for each inference, written where its usage is: the ledger and the chain cannot
// differ.
static err audit_view(Ctx *c, Tx *tx, const RequestRecord *const *all, size_t n) {
    InferenceAudit *a = new (c->mem, InferenceAudit, n);
    size_t a_n = 0;
    for (size_t i = 0; i < n; i++) {
        const RequestRecord *r = all[i];
        if (!r->final || !r->project.n) continue;
        a[a_n++] = (InferenceAudit){ .org = r->org,
                                     .project = r->project,
                                     .request_id = r->request_id,
                                     .key_id = r->key_id,
                                     .owner = r->owner,
                                     .model = r->model,
                                     .version = r->version,
                                     .model_digest = r->model_digest,
                                     .deployment = r->deployment,
                                     .prompt_digest = r->prompt_digest,
                                     .answer_digest = r->answer_digest,
                                     .client_ip = r->client_ip,
                                     .operation = str_z(operation_name(r->operation)),
                                     .outcome = str_z(outcome_name(r->outcome)),
                                     .error_reason = r->error_reason,
                                     .at_ms = r->start_ms,
                                     .status = r->status,
                                     .prompt_tokens = r->prompt_tokens,
                                     .completion_tokens = r->completion_tokens };
    }
    return audit_inferences(c, tx, a, a_n);
}
const UsageView usage_audit_view = { "audit", audit_view };

static err usage_init(Ctx *c) {
    (void)c;
    snapshot_part(&usage_part);
    usage_view(&usage_audit_view);
    fold_init();
    return ERR_OK;
}

const Module usage_module = {
    .name = "usage",
    .needs = "access audit",
    .resources = resources,
    .routes = usage_routes,
    .settings = usage_settings,
    .metrics = usage_metrics,
    .migrations = usage_migrations,
    .migrations_n = 1,
    .retentions = usage_retentions,
    .init = usage_init,
    .start = fold_start,
    .stop = fold_stop,
    .en = "What was used and what it cost",
    .zh = "用量与费用",
};
