// SPDX-License-Identifier: Apache-2.0
// trace_table.c - rows only: the wide record, retention, metrics.
#include "mod/trace/trace_own.h"

static const char *const operations[] = { "chat", "text_completion", "embeddings", NULL };
static const char *const outcomes[] = { "ok", "error", "cancelled", "interrupted", NULL };

// clang-format off
static const Field trace_rows[] = {
    TEXT(TraceRow, request_id, STATUS | INDEXED | COLUMN, 100, "Request", "请求标识"),
    ROW(TraceRow, key_id, T_ID, STATUS | INDEXED, "API key", "API 密钥"),
    ROW(TraceRow, owner, T_ID, STATUS, "Who", "使用者"),
    TEXT(TraceRow, model, STATUS | INDEXED | COLUMN, 300, "Model as the client named it",
        "客户端所用模型名"),
    ROW(TraceRow, deployment, T_ID, STATUS | INDEXED, "Deployment", "部署"),
    TEXT(TraceRow, replica, STATUS, 200, "Replica", "副本"),
    ROW(TraceRow, version, T_ID, STATUS, "Model version", "模型版本"),
    TEXT(TraceRow, response_id, STATUS | INDEXED, 300, "The answer's own id", "应答标识"),
    TEXT(TraceRow, finish_reason, STATUS, 100, "Why the model stopped", "停止原因"),
    TEXT(TraceRow, error_class, STATUS | INDEXED, 100, "What went wrong", "错误类别"),
    TEXT(TraceRow, error_reason, STATUS, 100, "Why", "错误原因"),
    TEXT(TraceRow, client_ip, STATUS, 100, "Client's address", "客户端地址"),
    TEXT(TraceRow, end_user, STATUS, 300, "The client's own user (`user`)", "终端用户（user 字段）"),
    TEXT(TraceRow, currency, STATUS, 3, "Currency", "币种"),
    TEXT(TraceRow, prompt_digest, STATUS, 64, "SHA-256 of the request", "请求的 SHA-256"),
    TEXT(TraceRow, answer_digest, STATUS, 64, "SHA-256 of the answer's text", "应答文本的 SHA-256"),
    ENUM(TraceRow, operation, STATUS | INDEXED, operations, "What was asked", "操作类型"),
    ENUM(TraceRow, outcome, STATUS | INDEXED | COLUMN, outcomes, "How it ended", "结果"),
    BOOL(TraceRow, streamed, STATUS, "Streamed", "是否流式"),
    BOOL(TraceRow, tokens_exact, STATUS, "Counted by the engine", "token 数由引擎给出"),
    BOOL(TraceRow, content, STATUS | INDEXED, "Prompt and answer are kept", "是否保存了内容"),
    INT(TraceRow, status, STATUS | INDEXED, 0, 999, "HTTP status", "HTTP 状态码"),
    INT(TraceRow, attempts, STATUS, 0, 100, "Attempts; 0: refused before one", "尝试次数；0 为未尝试即被拒绝"),
    ROW(TraceRow, started_at, T_TIME, STATUS | INDEXED | COLUMN, "Start", "开始时间"),
    ROW(TraceRow, ended_at, T_TIME, STATUS, "End", "结束时间"),
    INT(TraceRow, queue_us, STATUS, -1, INT64_MAX, "Waited for a slot, microseconds", "排队（微秒）"),
    INT(TraceRow, first_us, STATUS, -1, INT64_MAX, "At the engine until its first byte",
        "引擎首字节（微秒）"),
    INT(TraceRow, stream_us, STATUS, -1, INT64_MAX, "From the first byte to the last",
        "首字节到末字节（微秒）"),
    INT(TraceRow, total_us, STATUS, -1, INT64_MAX,
        "From the request's first byte to the answer's end", "总耗时（微秒）"),
    INT(TraceRow, ttft_us, STATUS | COLUMN, -1, INT64_MAX,
        "Time to first token (TTFT), microseconds", "首 token 延迟（微秒）"),
    INT(TraceRow, tbt_mean_us, STATUS, -1, INT64_MAX, "Mean time between tokens (TBT)",
        "平均 token 间隔（微秒）"),
    INT(TraceRow, tbt_max_us, STATUS, -1, INT64_MAX, "Longest time between tokens",
        "最长 token 间隔（微秒）"),
    INT(TraceRow, prompt_tokens, STATUS | COLUMN, 0, INT64_MAX, "Tokens read", "输入 token 数"),
    INT(TraceRow, cached_tokens, STATUS, 0, INT64_MAX, "Of these, from the prefix cache",
        "其中命中缓存的 token 数"),
    INT(TraceRow, completion_tokens, STATUS | COLUMN, 0, INT64_MAX, "Tokens written", "输出 token 数"),
    ROW(TraceRow, cost, T_MONEY, STATUS | COLUMN, "Cost", "费用"),
    { 0 }
};
const Resource trace_resource = {
    .name = "trace", .plural = "traces", .prefix = "trace", .scope = SCOPE_PROJECT,
    .flags = RES_UNNAMED | RES_NO_CREATE | RES_NO_UPDATE | RES_NO_DELETE | RES_LOG,
        .size = sizeof(TraceRow),
        .fields = trace_rows, .daily = trace_days,
    .en = "One wide record for each request", .zh = "每个请求一条宽记录",
};
#define TRACE_COLUMNS \
    "org TEXT NOT NULL, project TEXT NOT NULL, " \
    "request_id TEXT, key_id TEXT, owner TEXT, " \
    "model TEXT, deployment TEXT, replica TEXT, version TEXT, response_id TEXT, finish_reason " \
    "TEXT, error_class TEXT, " \
    "error_reason TEXT, client_ip TEXT, end_user TEXT, currency TEXT, prompt_digest TEXT, " \
    "answer_digest TEXT, operation TEXT, " \
    "outcome TEXT, streamed BIGINT NOT NULL, tokens_exact BIGINT NOT NULL, content BIGINT NOT " \
    "NULL, status BIGINT, attempts BIGINT, " \
    "started_at BIGINT, ended_at BIGINT, queue_us BIGINT, first_us BIGINT, stream_us BIGINT, " \
    "total_us BIGINT, ttft_us BIGINT, " \
    "tbt_mean_us BIGINT, tbt_max_us BIGINT, prompt_tokens BIGINT, cached_tokens BIGINT, " \
    "completion_tokens BIGINT, cost BIGINT, revision BIGINT NOT NULL, created_at BIGINT NOT " \
    "NULL, updated_at BIGINT NOT NULL, created_by TEXT"
#define TRACE_CONTENT \
    "CREATE TABLE trace_content (id TEXT PRIMARY KEY, project TEXT NOT NULL, at BIGINT NOT " \
    "NULL, prompt TEXT, answer TEXT);" \
    "CREATE INDEX trace_content_age ON trace_content (project, at);"
const Migration trace_migrations[] = {
    { 1,
      "CREATE TABLE traces (id TEXT PRIMARY KEY, " TRACE_COLUMNS ");"
      "CREATE INDEX traces_project ON traces (project, id); CREATE INDEX traces_request ON traces "
      "(request_id);"
      "CREATE INDEX traces_age ON traces (created_at);" TRACE_CONTENT
      "CREATE TABLE rollups (project TEXT NOT NULL, minute BIGINT NOT NULL, deployment TEXT NOT "
      "NULL, model TEXT NOT NULL, "
      "key_id TEXT NOT NULL, requests BIGINT NOT NULL, errors BIGINT NOT NULL, prompt_tokens "
      "BIGINT NOT NULL, "
      "completion_tokens BIGINT NOT NULL, cost BIGINT NOT NULL, total_us BIGINT NOT NULL, ttft_n "
      "BIGINT NOT NULL, ttft_us BIGINT NOT NULL, "
      "b1 BIGINT NOT NULL, b2 BIGINT NOT NULL, b3 BIGINT NOT NULL, b4 BIGINT NOT NULL, b5 BIGINT "
      "NOT NULL, b6 BIGINT NOT NULL, "
      "b7 BIGINT NOT NULL, b8 BIGINT NOT NULL, PRIMARY KEY (project, minute, deployment, model, "
      "key_id));"
      "CREATE INDEX rollups_age ON rollups (minute);", NULL },
    { 2,
      "ALTER TABLE rollups ADD COLUMN revision BIGINT NOT NULL DEFAULT 0;"
      "CREATE INDEX rollups_changed ON rollups (project, revision);"
      "CREATE TABLE rollup_state (project TEXT PRIMARY KEY, org TEXT NOT NULL, revision BIGINT NOT "
      "NULL);", NULL },
    { 3, // what was folded until now is in `traces`: the days begin after it
      "CREATE TABLE trace_fold (node BIGINT PRIMARY KEY, segment BIGINT NOT NULL, at BIGINT NOT "
      "NULL);"
      "INSERT INTO trace_fold (node, segment, at) SELECT node, segment, at FROM usage_fold;",
      NULL },
    { 4, // PostgreSQL's records are partitioned by day; SQLite's days are files, so nothing changes
      "DROP INDEX traces_age; CREATE INDEX traces_age ON traces (created_at);",
      "ALTER TABLE traces RENAME TO traces_before;"
      "ALTER TABLE traces_before DROP CONSTRAINT traces_pkey;"
      "DROP INDEX traces_project; DROP INDEX traces_request; DROP INDEX traces_age;"
      "CREATE TABLE traces (LIKE traces_before INCLUDING DEFAULTS) PARTITION BY RANGE (created_at);"
      "ALTER TABLE traces ADD PRIMARY KEY (project, id, created_at);"
      "CREATE INDEX traces_request ON traces (request_id);"
      "CREATE TABLE traces_rest PARTITION OF traces DEFAULT;"
      "DO 'DECLARE d BIGINT; BEGIN"
      " FOR d IN SELECT DISTINCT created_at / 86400000 FROM traces_before LOOP"
      " EXECUTE ''CREATE TABLE traces_day_'' || d || '' PARTITION OF traces FOR VALUES FROM ('' ||"
      " d * 86400000 || '') TO ('' || (d + 1) * 86400000 || '')''; END LOOP; END';"
      "INSERT INTO traces SELECT * FROM traces_before; DROP TABLE traces_before;" },
    { 5, // days go whole; what has no day goes by its age
      "DROP INDEX traces_age; CREATE INDEX traces_age ON traces (created_at);",
      "CREATE INDEX traces_rest_age ON traces_rest (created_at);" },
};

// Of a day's database: few indexes, since most records are written and never read. With rowids:
// rows this wide in the order of their identifiers cost half as much again.
static const Migration day_migrations[] = {
    { 1, "CREATE TABLE traces (id TEXT NOT NULL, " TRACE_COLUMNS ", PRIMARY KEY (project, id));"
      "CREATE INDEX traces_request ON traces (request_id);" TRACE_CONTENT
      "CREATE TABLE folded (node BIGINT PRIMARY KEY, segment BIGINT NOT NULL, at BIGINT NOT NULL);",
      NULL },
};
const Daily trace_daily = { "traces", day_migrations, 1 };

const Setting trace_settings[] = {
    { "retain.traces", SET_SPAN, "30d", 0, INT64_MAX, .live = true, .en = "Traces",
        .zh = "追踪的保留时间" },
    { "retain.rollups", SET_SPAN, "30d", 0, INT64_MAX, .live = true, .en = "Roll-ups per minute",
        .zh = "每分钟汇总的保留时间" },
    { "retain.content", SET_SPAN, "1d", 1, INT64_MAX, .live = true,
      .en = "Not used as a span: recorded content goes after its project's own days",
          .zh = "内容按项目自身的天数清除" },
    { 0 }
};
const Retention trace_retentions[] = {
    { "traces", &trace_settings[0], trace_trim, "Traces", "追踪" },
    { "rollups", &trace_settings[1], rollup_trim, "Roll-ups per minute", "每分钟汇总" },
    { "content", &trace_settings[2], content_trim,
        "Recorded prompts and answers, by each project's days", "已记录的提示词与应答" },
    { 0 }
};
const EventKind rollup_event = { "trace.rollup",
    "Roll-ups per minute that changed, at most once a second for a project. Live only: these have "
    "no number and are not sent again. `data` holds rows as GET /lathe/v1/rollups gives them with "
    "by=deployment,model,key, each with the whole sum of its minute. It leads from revision "
    "`after` to `revision`, over all of its `parts`: drop it when `revision` is at most the one "
    "you have, GET again when `after` is more than that",
    "每分钟汇总的变化，每个项目每秒至多一次。仅实时发送：没有编号，也不会重发。data 中的行与 GET /lathe/v1/rollups"
    "?by=deployment,model,key 相同，均为该分钟的完整合计；由修订 after 到 revision，共 parts 部分。"
    "若 revision 不大于已有修订则忽略；若 after 大于已有修订则重新 GET" };
const EventKind *const trace_events[] = { &rollup_event, NULL };
const Route trace_routes[] = {
    { HTTP_GET, "/lathe/v1/rollups", 0, "traces.read", serve_rollups, .query = rollup_query,
        .cli = "rollup list",
      .en = "Requests, tokens, cost and TTFT per minute", .zh = "每分钟的请求、token、费用与首 token 延迟" },
    { HTTP_GET, "/lathe/v1/traces/{id}/content", 0, "traces.content", serve_content,
        .cli = "trace content",
      .en = "The recorded request and answer; reading it is audited", .zh = "已记录的请求与应答；读取会被审计" },
    { 0 }
};
// clang-format on
