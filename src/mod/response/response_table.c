// SPDX-License-Identifier: Apache-2.0
// response_table.c - rows only: what a kept response is, for how long it is, its routes.
#include "mod/response/response_own.h"

static const Field response_rows[] = {
    TEXT(ResponseRow, model, STATUS | COLUMN, 300, "Model as the client named it",
         "客户端所用模型名"),
    TEXT(ResponseRow, status, STATUS | COLUMN, 20, "completed, or incomplete: it was cut short",
         "completed，或 incomplete（被截断）"),
    ROW(ResponseRow, previous, T_ID, STATUS, "The response that it goes on from", "所延续的应答"),
    ROW(ResponseRow, key_id, T_ID, STATUS | INDEXED, "API key", "API 密钥"),
    ROW(ResponseRow, owner, T_ID, STATUS | INDEXED, "Who asked; nobody else may go on from it",
        "提问者；他人不能由此继续"),
    INT(ResponseRow, prompt_tokens, STATUS | COLUMN, 0, INT64_MAX, "Tokens read", "输入 token 数"),
    INT(ResponseRow, completion_tokens, STATUS | COLUMN, 0, INT64_MAX, "Tokens written",
        "输出 token 数"),
    INT(ResponseRow, size_bytes, STATUS | COLUMN, 0, INT64_MAX, "Bytes of its input and answer",
        "输入与应答的字节数"),
    ROW(ResponseRow, expires_at, T_TIME, STATUS | COLUMN, "When it is removed", "清除时间"),
    { 0 }
};
const Resource response_resource = {
    .name = "response",
    .plural = "responses",
    .prefix = "resp",
    .scope = SCOPE_PROJECT,
    .flags = RES_UNNAMED | RES_NO_CREATE | RES_NO_UPDATE | RES_LOG,
    .size = sizeof(ResponseRow),
    .fields = response_rows,
    .stage = response_row_stage,
    .en = "An answer of /v1/responses that is kept, so that a conversation may go on from it",
    .zh = "保存的 /v1/responses 应答，后续请求可由其继续对话",
};

const Migration response_migrations[] = {
    { 1,
      "CREATE TABLE responses (id TEXT PRIMARY KEY, org TEXT NOT NULL, project TEXT NOT NULL, "
      "model TEXT, status TEXT, previous TEXT, key_id TEXT, owner TEXT, prompt_tokens BIGINT, "
      "completion_tokens BIGINT, size_bytes BIGINT, expires_at BIGINT, revision BIGINT NOT NULL, "
      "created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, created_by TEXT);"
      "CREATE INDEX responses_project ON responses (project, id);"
      "CREATE INDEX responses_expiry ON responses (project, expires_at);"
      "CREATE TABLE response_content (id TEXT PRIMARY KEY, project TEXT NOT NULL, expires_at "
      "BIGINT NOT NULL, input TEXT NOT NULL, answer TEXT NOT NULL);"
      "CREATE INDEX response_content_expiry ON response_content (project, expires_at);",
      NULL },
};

// clang-format off
const Setting response_settings[] = {
    { "retain.responses", SET_SPAN, "30d", 60000, 3650LL * 86400000, .live = true,
      .en = "Responses that are kept, where their project does not say for how many days",
      .zh = "应答的保留时间（项目未指定天数时）" },
    { 0 }
};
const Retention response_retentions[] = {
    { "responses", &response_settings[0], response_trim,
        "Kept responses, by each one's own expiry", "保存的应答（按各自的到期时间）" },
    { 0 }
};

static const char *const orders[] = { [ITEMS_DESC] = "desc", [ITEMS_ASC] = "asc", NULL };
const Field items_query[] = {
    ENUM(ItemsQuery, order, 0, orders, "By their place in the request", "按其在请求中的位置",
        .fallback = "desc"),
    TEXT(ItemsQuery, after, 0, 200, "Id of the item before the first", "从该条目之后开始"),
    INT(ItemsQuery, limit, 0, 1, 100, "Most items", "条目数上限", .fallback = "20"),
    { 0 }
};
const Route response_routes[] = {
    { HTTP_GET, "/v1/responses/{response_id}", ROUTE_FOREIGN, "inference.use", serve_response,
      .en = "A response that is kept, for whoever asked (OpenAI)", .zh = "读取自己的已保存应答（OpenAI）" },
    { HTTP_DELETE, "/v1/responses/{response_id}", ROUTE_FOREIGN, "inference.use",
      serve_response_delete,
      .en = "Keep a response no longer (OpenAI)", .zh = "删除自己的已保存应答（OpenAI）" },
    { HTTP_GET, "/v1/responses/{response_id}/input_items", ROUTE_FOREIGN, "inference.use",
      serve_response_items, .query = items_query,
      .en = "What was asked (OpenAI)", .zh = "请求的输入条目（OpenAI）" },
    { HTTP_GET, "/lathe/v1/responses/{id}/content", 0, "responses.content", serve_response_content,
      .cli = "response content",
      .en = "What was asked and answered; reading it is audited", .zh = "请求与应答的内容；读取会被审计" },
    { 0 }
};
// clang-format on
