// SPDX-License-Identifier: Apache-2.0
// usage_table.c - rows only: the ledger and the prices.
#include "mod/usage/usage_own.h"

const char *const operations[] = { "chat", "text_completion", "embeddings", NULL };
const char *const outcomes[] = { "ok", "error", "cancelled", "interrupted", NULL };
#define MONEY_MAX INT64_C(1000000000000000)

// clang-format off
static const Field usage_rows[] = {
    ROW(UsageRow, request_id, T_TEXT, STATUS | INDEXED, "Request", "请求标识"),
    ROW(UsageRow, key_id, T_ID, STATUS | INDEXED, "API key", "API 密钥"),
    ROW(UsageRow, owner, T_ID, STATUS, "Who", "使用者"),
    TEXT(UsageRow, model, STATUS | INDEXED | COLUMN, 300, "Model as the client named it",
        "客户端所用模型名"),
    ROW(UsageRow, deployment, T_ID, STATUS | INDEXED, "Deployment", "部署"),
    ROW(UsageRow, replica, T_TEXT, STATUS, "Replica", "副本"),
    ROW(UsageRow, version, T_ID, STATUS, "Model version", "模型版本"),
    TEXT(UsageRow, end_user, STATUS, 300, "The client's own user (`user`)", "终端用户（user 字段）"),
    TEXT(UsageRow, error_class, STATUS | INDEXED, 100, "What went wrong", "错误类别"),
    TEXT(UsageRow, currency, STATUS, 3, "Currency", "币种"),
    ROW(UsageRow, price_id, T_ID, STATUS, "Price that was asked", "所用价格"),
    ENUM(UsageRow, operation, STATUS | INDEXED, operations, "What was asked", "操作类型"),
    ENUM(UsageRow, outcome, STATUS | INDEXED | COLUMN, outcomes, "How it ended", "结果"),
    INT(UsageRow, status, STATUS, 0, 999, "HTTP status", "HTTP 状态码"),
    INT(UsageRow, attempt, STATUS, 1, 100, "Attempt at this request", "第几次尝试"),
    ROW(UsageRow, started_at, T_TIME, STATUS | INDEXED | COLUMN, "Start", "开始时间"),
    ROW(UsageRow, ended_at, T_TIME, STATUS, "End", "结束时间"),
    INT(UsageRow, prompt_tokens, STATUS | COLUMN, 0, INT64_MAX, "Tokens read", "输入 token 数"),
    INT(UsageRow, cached_tokens, STATUS, 0, INT64_MAX, "Of these, from the prefix cache",
        "其中命中缓存的 token 数"),
    INT(UsageRow, completion_tokens, STATUS | COLUMN, 0, INT64_MAX, "Tokens written", "输出 token 数"),
    INT(UsageRow, machine_us, STATUS, 0, INT64_MAX, "Time at the engine, microseconds", "引擎耗时（微秒）"),
    ROW(UsageRow, cost, T_MONEY, STATUS | COLUMN, "Cost", "费用"),
    BOOL(UsageRow, streamed, STATUS, "Streamed", "是否流式"),
    BOOL(UsageRow, tokens_exact, STATUS, "Counted by the engine; else an estimate: of a prompt "
        "that it did not tell what was reserved, of the answer what came",
        "token 数由引擎给出；否则为估计：未给出的输入按预留计，输出按已收到的内容计"),
    { 0 }
};
const Resource usage_resource = {
    .name = "usage", .plural = "usage", .prefix = "attempt", .scope = SCOPE_PROJECT,
    .flags = RES_UNNAMED | RES_NO_CREATE | RES_NO_UPDATE | RES_NO_DELETE | RES_LOG,
        .size = sizeof(UsageRow),
        .fields = usage_rows,
    .en = "What each attempt used and cost", .zh = "每次推理尝试的用量与费用",
};
static const Field price_rows[] = {
    TEXT(PriceRow, model, REQUIRED | INDEXED | COLUMN, 300,
        "The model that a deployment serves, by name; of an attached one without a model, the "
        "deployment. Of several prices for it the newest is asked, and one of a project before "
        "those of the organisation",
        "部署所服务的模型名；外接且无模型的部署则为部署名。同一模型有多个价格时采用最新者，项目专用价格优先于组织价格"),
    REF(PriceRow, price_project, IMMUTABLE | COLUMN, "project", REF_CASCADE,
        "Only in this project", "仅用于此项目"),
    TEXT(PriceRow, currency, COLUMN, 3,
        "ISO 4217 code; one for all prices of an organisation, and its limits of money are in it",
        "币种（ISO 4217）；一个组织的全部价格同一币种，费用限额亦以其计", .min = 3,
        .fallback = "USD"),
    ROW(PriceRow, input, T_MONEY, COLUMN, "A million tokens read", "每百万输入 token", .min = 0,
        .max = MONEY_MAX, .fallback = "0"),
    ROW(PriceRow, cached, T_MONEY, 0, "A million of them from the cache; absent: as input",
        "每百万缓存命中 token；缺省同输入",
        .min = 0, .max = MONEY_MAX),
    ROW(PriceRow, output, T_MONEY, COLUMN, "A million tokens written", "每百万输出 token", .min = 0,
        .max = MONEY_MAX, .fallback = "0"),
    ROW(PriceRow, machine_second, T_MONEY, COLUMN, "A second at the engine", "每秒机器时间", .min = 0,
        .max = MONEY_MAX, .fallback = "0"),
    BOOL(PriceRow, active, STATUS | COLUMN, "Asked for; else a newer one for the same model is",
        "正在采用；否则已由同一模型的更新价格取代"),
    { 0 }
};
const Resource price_resource = {
    .name = "price", .plural = "prices", .prefix = "price", .scope = SCOPE_ORG,
        .flags = RES_IN_SNAPSHOT, .size = sizeof(PriceRow),
    .fields = price_rows, .check = price_check, .stage = price_stage, .notify = snapshot_wake,
        .en = "What a model costs: by tokens, by machine time, or both",
        .zh = "模型价格：按 token、按机器时间或两者",
};
#define TAIL "revision BIGINT NOT NULL, created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, " \
    "created_by TEXT);"
// Sums in two halves, for one alone might run over.
#define SPENT_BY(column) \
    "SELECT " column " AS s, SUM(cost / 1000000000) AS h, SUM(cost % 1000000000) AS l FROM " \
    "usage_day GROUP BY " column
const Migration usage_migrations[] = {
    { 1,
      "CREATE TABLE usage (id TEXT NOT NULL, org TEXT NOT NULL, project TEXT NOT NULL, "
      "request_id TEXT, key_id TEXT, owner TEXT, "
      "model TEXT, deployment TEXT, replica TEXT, version TEXT, end_user TEXT, error_class TEXT, "
      "currency TEXT, price_id TEXT, "
      "operation TEXT, outcome TEXT, status BIGINT, attempt BIGINT, started_at BIGINT, ended_at "
      "BIGINT, prompt_tokens BIGINT, "
      "cached_tokens BIGINT, completion_tokens BIGINT, machine_us BIGINT, cost BIGINT, streamed "
      "BIGINT NOT NULL, "
      "tokens_exact BIGINT NOT NULL, revision BIGINT NOT NULL, created_at BIGINT NOT NULL, "
      "updated_at BIGINT NOT NULL, created_by TEXT, PRIMARY KEY (project, id)) WITHOUT ROWID;"
      "CREATE INDEX usage_request ON usage (request_id);"
      "CREATE TABLE usage_day (project TEXT NOT NULL, day BIGINT NOT NULL, key_id TEXT NOT NULL, "
      "model TEXT NOT NULL, "
      "currency TEXT NOT NULL, org TEXT NOT NULL, requests BIGINT NOT NULL, failed BIGINT NOT "
      "NULL, prompt_tokens BIGINT NOT NULL, "
      "cached_tokens BIGINT NOT NULL, completion_tokens BIGINT NOT NULL, machine_us BIGINT NOT "
      "NULL, cost BIGINT NOT NULL, "
      "PRIMARY KEY (project, day, key_id, model, currency));"
      "CREATE INDEX usage_day_day ON usage_day (day);"
      "CREATE TABLE usage_fold (node BIGINT PRIMARY KEY, segment BIGINT NOT NULL, at BIGINT NOT "
      "NULL);"
      "CREATE TABLE prices (id TEXT PRIMARY KEY, name TEXT NOT NULL, org TEXT NOT NULL, model "
      "TEXT NOT NULL, price_project TEXT, "
      "currency TEXT NOT NULL, input BIGINT, cached BIGINT, output BIGINT, machine_second BIGINT, "
      "" TAIL
      "CREATE UNIQUE INDEX prices_name ON prices (org, name); CREATE INDEX prices_model ON prices "
      "(org, model);"
      "CREATE TABLE usage_open (id TEXT PRIMARY KEY, node BIGINT NOT NULL, record BLOB NOT NULL, "
      "tokens BIGINT NOT NULL, "
      "prompt_tokens BIGINT NOT NULL, cached_tokens BIGINT NOT NULL);"
      "CREATE INDEX usage_open_node ON usage_open (node);", NULL },
    { 2, LIST_IDS("prices", "org") LIST_INDEX("prices", "org", "model")
      LIST_INDEX("prices", "org", "created_at") "DROP INDEX prices_model;", NULL },
    { 3,
      "ALTER TABLE prices ADD COLUMN active BIGINT NOT NULL DEFAULT 1;"
      "UPDATE prices SET active = 0 WHERE EXISTS (SELECT 1 FROM prices q WHERE q.org = prices.org "
      "AND q.model = prices.model AND COALESCE(q.price_project, '') = "
      "COALESCE(prices.price_project, '') AND q.id > prices.id);", NULL },
    { 4, // what each key, project and organisation has cost since the beginning
      "CREATE TABLE usage_spent (subject TEXT PRIMARY KEY, cost BIGINT NOT NULL);"
      "INSERT INTO usage_spent (subject, cost) SELECT s, CASE WHEN h >= 1000000000 THEN "
      USAGE_SUM_TEXT " ELSE h * 1000000000 + l END FROM ("
      SPENT_BY("key_id") " UNION ALL " SPENT_BY("project") " UNION ALL " SPENT_BY("org")
      ") AS t WHERE s <> '' AND h + l > 0;", NULL },
};
const Setting usage_settings[] = {
    { "retain.usage", SET_SPAN, "400d", 0, INT64_MAX, .live = true,
        .en = "Usage rows; their sums by day stay", .zh = "用量明细的保留时间；按天汇总永久保留" },
    { 0 }
};
const Retention usage_retentions[] = {
    { "usage", &usage_settings[0], usage_trim, "Usage rows", "用量明细" },
    { 0 }
};
// clang-format on
