// SPDX-License-Identifier: Apache-2.0
// usage.c - the ledger: descriptor, totals. Writing is record.c, reading the journal is fold.c,
// prices are price.c.
#include "mod/usage/usage_own.h"
#include "base/id.h"
#include "base/time.h"
#include "mod/audit/audit.h"
#include "res/trim.h"

const char *outcome_name(Outcome o) { return outcomes[o]; }
const char *operation_name(Operation o) { return operations[o]; }

// By identifiers, which hold the time: rows lie in the order of project and identifier, and need no
// index of their age. The oldest first of each project.
err usage_trim(Ctx *c, int64_t before_ms, int64_t *out_removed) {
    static const TrimTable rows = { "usage", "id", "project" };
    static const uint8_t least[10];
    str first = id_format(c->mem, usage_resource.prefix, before_ms, least), project = S("");
    *out_removed = 0;
    for (;;) {
        TRY(trim_next(c, c->db, &rows, project, &project));
        if (!project.p) return ERR_OK;
        TrimBelow below = { V(first), V(project) };
        TRY(trim_rows(c, c->db, &rows, &below, out_removed));
    }
}

// ---- totals: GET /lathe/v1/usage_totals?by=day,model&from=2026-11-01&to=2026-11-30, of a project;
// org_usage_totals, of an organisation.
typedef struct Totals {
    str by, from, to;
    bool day, key, model, project, whole_org;
    int64_t from_day, to_day;
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
        else if (str_is(part, "project")) t->project = true;
        else
            return fail(c, ERR_INVALID, R_FIELD_ENUM, "field", "by", "names",
                        "day, key, model, project", "got", say_str(c, part));
    }
    return ERR_OK;
}

static void write_total(const Totals *t, const Rows *rows, Json *j) {
    static const char *const sums[] = { "requests",          "failed",
                                        "prompt_tokens",     "cached_tokens",
                                        "completion_tokens", "machine_us" };
    char text[TIME_TEXT];
    Arena *a = arena_new();
    json_obj(j);
    if (t->day)
        json_kv_str(j, "day", str_sub(time_format(col_int(rows, 0) * 86400000, text), 0, 10));
    if (t->project) json_kv_str(j, "project", col_str(rows, 1));
    if (t->key) json_kv_str(j, "key", col_str(rows, 2));
    if (t->model) json_kv_str(j, "model", col_str(rows, 3));
    for (int i = 0; i < 6; i++) json_kv_i64(j, sums[i], col_int(rows, 5 + i));
    json_kv_str(j, "cost", money_format(a, col_int(rows, 11)));
    json_kv_str(j, "currency", col_str(rows, 4));
    json_end_obj(j);
    arena_free(a);
}

#define TOTALS_OF(where)                                                                       \
    "SELECT CASE WHEN $4 = 1 THEN day ELSE 0 END, CASE WHEN $5 = 1 THEN project ELSE '' END, " \
    "CASE WHEN $6 = 1 THEN key_id ELSE '' END, CASE WHEN $7 = 1 THEN model ELSE '' END, "      \
    "currency, "                                                                               \
    "CAST(SUM(requests) AS BIGINT), CAST(SUM(failed) AS BIGINT), "                             \
    "CAST(SUM(prompt_tokens) AS BIGINT), CAST(SUM(cached_tokens) AS BIGINT), "                 \
    "CAST(SUM(completion_tokens) AS BIGINT), CAST(SUM(machine_us) AS BIGINT), "                \
    "CAST(SUM(cost) AS BIGINT) FROM usage_day WHERE " where " = $1 AND day BETWEEN $2 AND $3 " \
    "GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5 LIMIT 10000"

static err totals_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(totals_of_project, TOTALS_OF("project"));
    static SQL(totals_of_org, TOTALS_OF("org"));
    const Totals *t = arg;
    Rows *rows;
    bool more;
    buf_clear(&t->out->body);
    Json j = json_to(&t->out->body);
    json_obj(&j), json_key(&j, "data"), json_arr(&j);
    TRY(db_ask(c, tx, &rows, t->whole_org ? &totals_of_org : &totals_of_project,
               V(t->whole_org ? c->org : c->project), V(t->from_day), V(t->to_day), V((int)t->day),
               V((int)t->project), V((int)t->key), V((int)t->model)));
    for (;;) {
        TRY(rows_next(c, rows, &more));
        if (!more) break;
        write_total(t, rows, &j);
    }
    json_end_arr(&j), json_end_obj(&j);
    return ERR_OK;
}

static err totals(Ctx *c, const HttpRequest *r, bool whole_org, HttpReply *out) {
    Totals t = { http_query(c->mem, r, "by", NULL), http_query(c->mem, r, "from", NULL),
                 http_query(c->mem, r, "to", NULL), .whole_org = whole_org, .out = out };
    t.to_day = time_day(os_wall_ms(c->os)), t.from_day = t.to_day - 30;
    TRY(read_by(c, &t));
    TRY(read_day(c, "from", t.from, &t.from_day));
    TRY(read_day(c, "to", t.to, &t.to_day));
    TRY(usage_flush(c)); // a total that one asks for right after a request counts it
    return db_read(c, c->db, totals_tx, &t);
}
static err serve_totals(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    (void)body;
    return totals(c, r, false, out);
}
static err serve_org_totals(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    (void)body;
    return totals(c, r, true, out);
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
      .en = "Sums of a project's usage and cost", .zh = "项目的用量与费用汇总" },
    { HTTP_GET, "/lathe/v1/org_usage_totals", ROUTE_ORG, "usage.read", serve_org_totals,
        .query = totals_query, .cli = "usage org_total",
      .en = "Sums of an organisation's usage and cost, over its projects",
          .zh = "组织内各项目的用量与费用汇总" },
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
    snapshot_part(&usage_part);
    usage_view(&usage_audit_view);
    fold_init(c);
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
    .migrations_n = 4,
    .reasons = usage_reasons,
    .advise = price_advise,
    .retentions = usage_retentions,
    .init = usage_init,
    .database = fold_catch_up,
    .start = fold_start,
    .stop = fold_stop,
    .en = "What was used and what it cost",
    .zh = "用量与费用",
};
REASONS_DEFINE(USAGE_REASONS, usage_reasons)
