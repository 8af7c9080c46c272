// SPDX-License-Identifier: Apache-2.0
// audit_table.c - rows only: entries of the system, an organisation, a project, and inferences.
#include "mod/audit/audit_own.h"

typedef struct Entry {
    Head head;
    int64_t seq, at;
    str actor, actor_name, key_id, verb, kind, subject, subject_name, permission, request_id,
        change, previous, hash;
} Entry;
typedef struct Inference {
    Head head;
    int64_t seq, at, status, prompt_tokens, completion_tokens;
    str request_id, key_id, owner, model, version, model_digest, deployment, prompt_digest,
        answer_digest, client_ip, operation, outcome, error_reason, previous, hash;
} Inference;

// clang-format off
static const Field entry_rows[] = {
    INT(Entry, seq, STATUS | INDEXED | COLUMN, 1, INT64_MAX, "Place in its chain", "链中序号"),
    ROW(Entry, at, T_TIME, STATUS | INDEXED | COLUMN, "When", "时间"),
    TEXT(Entry, actor, STATUS | INDEXED, 100, "Who", "操作者标识"),
    TEXT(Entry, actor_name, STATUS | COLUMN, 300, "Who, by name", "操作者"),
    TEXT(Entry, key_id, STATUS, 100, "API key used", "所用 API 密钥"),
    TEXT(Entry, verb, STATUS | INDEXED | COLUMN, 100, "What was done", "操作"),
    TEXT(Entry, kind, STATUS | INDEXED | COLUMN, 100, "To what kind of object", "对象类型"),
    TEXT(Entry, subject, STATUS | INDEXED, 100, "To which", "对象标识"),
    TEXT(Entry, subject_name, STATUS | COLUMN | SEARCHED, 300, "To which, by name", "对象名称"),
    TEXT(Entry, permission, STATUS, 200, "The permission it took", "所需权限"),
    TEXT(Entry, request_id, STATUS | INDEXED, 100, "Request", "请求标识"),
    ROW(Entry, change, T_JSON, STATUS, "Each changed field: before and after", "字段变化：前后值",
        .max = 1 << 20),
    TEXT(Entry, previous, STATUS, 64, "Hash of the entry before", "前一条的哈希"),
    TEXT(Entry, hash, STATUS, 64, "SHA-256 over the hash before and this entry", "本条哈希"),
    { 0 }
};
enum { READ_ONLY = RES_UNNAMED | RES_NO_CREATE | RES_NO_UPDATE | RES_NO_DELETE | RES_LOG };
const Resource audit_entry_resource = {
    .name = "audit_entry", .plural = "audit_entries", .prefix = "audit", .scope = SCOPE_PROJECT,
        .flags = READ_ONLY, .size = sizeof(Entry),
    .fields = entry_rows, .en = "What was done or refused in a project", .zh = "项目内的操作与拒绝记录" };
const Resource org_audit_entry_resource = {
    .name = "org_audit_entry", .plural = "org_audit_entries", .prefix = "audit",
        .scope = SCOPE_ORG, .flags = READ_ONLY, .size = sizeof(Entry),
    .fields = entry_rows, .en = "What was done or refused in an organisation",
        .zh = "组织内的操作与拒绝记录" };
const Resource system_audit_entry_resource = {
    .name = "system_audit_entry", .plural = "system_audit_entries", .prefix = "audit",
        .scope = SCOPE_SYSTEM, .flags = READ_ONLY,
    .size = sizeof(Entry), .fields = entry_rows, .en = "What was done or refused on the system",
        .zh = "系统级的操作与拒绝记录" };

static const Field inference_rows[] = {
    INT(Inference, seq, STATUS | INDEXED | COLUMN, 1, INT64_MAX, "Place in its chain", "链中序号"),
    ROW(Inference, at, T_TIME, STATUS | INDEXED | COLUMN, "When", "时间"),
    TEXT(Inference, request_id, STATUS | INDEXED | COLUMN, 100, "Request", "请求标识"),
    TEXT(Inference, key_id, STATUS | INDEXED, 100, "API key used", "所用 API 密钥"),
    TEXT(Inference, owner, STATUS | INDEXED | COLUMN, 100, "Who", "使用者"),
    TEXT(Inference, model, STATUS | INDEXED | COLUMN, 300, "Model", "模型"),
    TEXT(Inference, version, STATUS, 100, "Model version", "模型版本"),
    TEXT(Inference, model_digest, STATUS, 64, "SHA-256 of its weights", "权重的 SHA-256"),
    TEXT(Inference, deployment, STATUS, 100, "Deployment", "部署"),
    TEXT(Inference, prompt_digest, STATUS, 64, "SHA-256 of the request", "请求的 SHA-256"),
    TEXT(Inference, answer_digest, STATUS, 64, "SHA-256 of the answer's text", "应答文本的 SHA-256"),
    TEXT(Inference, client_ip, STATUS, 100, "Client's address", "客户端地址"),
    TEXT(Inference, operation, STATUS, 40, "What was asked", "操作类型"),
    TEXT(Inference, outcome, STATUS | INDEXED | COLUMN, 40, "How it ended", "结果"),
    TEXT(Inference, error_reason, STATUS, 100, "Why it failed", "失败原因"),
    INT(Inference, status, STATUS, 0, 999, "HTTP status", "HTTP 状态码"),
    INT(Inference, prompt_tokens, STATUS, 0, INT64_MAX, "Tokens read", "输入 token 数"),
    INT(Inference, completion_tokens, STATUS, 0, INT64_MAX, "Tokens written", "输出 token 数"),
    TEXT(Inference, previous, STATUS, 64, "Hash of the record before", "前一条的哈希"),
    TEXT(Inference, hash, STATUS, 64, "SHA-256 over the hash before and this record", "本条哈希"),
    { 0 }
};
const Resource inference_audit_resource = {
    .name = "inference_audit", .plural = "inference_audits", .prefix = "infaudit",
        .scope = SCOPE_PROJECT, .flags = READ_ONLY,
    .size = sizeof(Inference), .fields = inference_rows,
        .en = "One record for each inference, independent of traces", .zh = "每次推理一条审计记录，独立于追踪抽样" };

#define ENTRY "seq BIGINT NOT NULL, at BIGINT NOT NULL, actor TEXT, actor_name TEXT, key_id " \
  "TEXT, verb TEXT NOT NULL, kind TEXT, subject TEXT, " \
    "subject_name TEXT, permission TEXT, request_id TEXT, change TEXT, previous TEXT NOT NULL, " \
    "hash TEXT NOT NULL, " TAIL
#define TAIL "revision BIGINT NOT NULL, created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, " \
    "created_by TEXT);"
const Migration audit_migrations[] = {
    { 1,
      "CREATE TABLE audit_head (chain TEXT PRIMARY KEY, seq BIGINT NOT NULL, hash TEXT NOT NULL);"
      "CREATE TABLE audit_entries (id TEXT PRIMARY KEY, org TEXT NOT NULL, project TEXT NOT NULL, "
      "" ENTRY
      "CREATE UNIQUE INDEX audit_entries_seq ON audit_entries (project, seq);"
      "CREATE TABLE org_audit_entries (id TEXT PRIMARY KEY, org TEXT NOT NULL, " ENTRY
      "CREATE UNIQUE INDEX org_audit_entries_seq ON org_audit_entries (org, seq);"
      "CREATE TABLE system_audit_entries (id TEXT PRIMARY KEY, " ENTRY
      "CREATE UNIQUE INDEX system_audit_entries_seq ON system_audit_entries (seq);"
      "CREATE TABLE inference_audits (id TEXT PRIMARY KEY, org TEXT NOT NULL, project TEXT NOT "
      "NULL, seq BIGINT NOT NULL, at BIGINT NOT NULL, "
      "request_id TEXT, key_id TEXT, owner TEXT, model TEXT, version TEXT, model_digest TEXT, "
      "deployment TEXT, prompt_digest TEXT, "
      "answer_digest TEXT, client_ip TEXT, operation TEXT, outcome TEXT, error_reason TEXT, "
      "status BIGINT, prompt_tokens BIGINT, "
      "completion_tokens BIGINT, previous TEXT NOT NULL, hash TEXT NOT NULL, " TAIL
      "CREATE UNIQUE INDEX inference_audits_seq ON inference_audits (project, seq);"
      "CREATE INDEX inference_audits_request ON inference_audits (request_id);", NULL },
    { 2, LIST_IDS("audit_entries", "project") LIST_INDEX("audit_entries", "project", "subject")
      LIST_IDS("org_audit_entries", "org") LIST_INDEX("org_audit_entries", "org", "subject")
      LIST_SYSTEM("system_audit_entries", "subject") LIST_IDS("inference_audits", "project"),
      NULL },
};
// clang-format on
