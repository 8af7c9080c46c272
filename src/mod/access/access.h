// SPDX-License-Identifier: Apache-2.0
// access.h - who may do what: organisations, projects, users, service accounts, roles, API keys. It
// fills App.identify. A key is lathe_<26 characters>_<32 characters of secret>; only its SHA-256 is
// stored; it is shown once. Threads: key_find is for loops (reads the snapshot); the rest for
// workers.
#ifndef LATHE_MOD_ACCESS_H
#define LATHE_MOD_ACCESS_H
#include "res/app.h"
#include "res/limiter.h"
#include "res/snapshot.h"

typedef struct KeyEntry {                          // a living key as the request path knows it
    str id, name, org, project, owner, owner_name; // project absent: an administrator's
    WhoKind owner_kind;
    const str *permissions; // owner's roles cut to the key's scopes
    size_t permissions_n;
    int64_t expires_ms; // 0: never
    Limits limits;
} KeyEntry;
typedef struct PlaceEntry { // an organisation or a project
    str id, name, org;      // org absent: an organisation
    Limits limits;          // of all its keys together
    int64_t responses_days; // that answers are kept; 0: none is; UNSET_INT: as the setting says
} PlaceEntry;
const PlaceEntry *access_place(const Snapshot *s, str id); // NULL: there is none
// The key of `Authorization: Bearer …` or `x-api-key`, as this snapshot has it. ERR_UNAUTHENTICATED
// with R_KEY_MISSING, R_KEY_UNKNOWN, R_KEY_EXPIRED; ERR_LIMITED with R_KEYS_WRONG when its
// address sent too many unknown ones; ERR_UNAVAILABLE with R_KEY_UNCLEAR when it is not there but
// the snapshot is behind; ERR_DENIED when it may not use the project
// asked for. *out_project: id of the project acted in. No blocking, no SQL.
err access_key(Ctx *c, const Snapshot *s, const HttpRequest *r, const KeyEntry **out,
               str *out_project);
const KeyEntry *access_key_by_id(const Snapshot *s, str id); // NULL: none that is alive
void access_key_used(str key_id,
                     int64_t now_ms); // last use: kept in memory, written back twice a minute
Identity access_identity(const KeyEntry *k);
Limiter *access_limiter(void);         // subjects are ids of keys, projects and organisations
extern const SnapshotPart access_part; // keys and projects

#define ACCESS_REASONS(X)                                                                          \
    X(KEY_MISSING, "key_missing", "send your API key as `Authorization: Bearer KEY`",              \
      "请以 `Authorization: Bearer KEY` 提供 API 密钥")                                            \
    X(KEY_UNKNOWN, "key_unknown",                                                                  \
      "this API key is not known here: it is wrong, was revoked, or it or its owner is disabled",  \
      "此处不认识该 API 密钥：密钥有误、已被吊销，或该密钥或其所属者已停用")                       \
    X(KEY_UNCLEAR, "key_unclear",                                                                  \
      "this API key is not known here yet, and what changed since cannot be read now; try again",  \
      "此处尚不认识该 API 密钥，且目前无法读取最新更改；请重试")                                   \
    X(KEY_EXPIRED, "key_expired", "API key {key} expired at {at}",                                 \
      "API 密钥 {key} 已于 {at} 过期")                                                             \
    X(KEYS_WRONG, "too_many_wrong_keys",                                                           \
      "more than {limit} keys a minute from {address} are not known here; try again in {ms} ms",   \
      "来自 {address} 的未知密钥每分钟超过 {limit} 个；请 {ms} 毫秒后重试")                        \
    X(PROJECT_DENIED, "project_denied", "API key {key} does not belong to project {project}",      \
      "API 密钥 {key} 不属于项目 {project}")                                                       \
    X(LIMITED, "limit_reached", "API key {key} has reached its limit {limit} of {value}; {frees}", \
      "API 密钥 {key} 已达到限制 {limit}（{value}），{frees}")                                     \
    X(BUDGET, "budget_reached",                                                                    \
      "{who} has {left} left of its {limit} of {value}, and this request may cost up to "    \
      "{most}: a smaller limit of output tokens makes it less",                                    \
      "{who} 的 {limit} 为 {value}，剩余 {left}，而本请求最多可能花费 "      \
      "{most}：调低输出 token 上限可降低该值")                                                     \
    X(PROJECT_LIMITED, "project_limit_reached",                                                    \
      "project {project} has reached its limit {limit} of {value}; {frees}",                       \
      "项目 {project} 已达到限制 {limit}（{value}），{frees}")                                     \
    X(ORG_LIMITED, "organisation_limit_reached",                                                   \
      "organisation {org} has reached its limit {limit} of {value}; {frees}",                      \
      "组织 {org} 已达到限制 {limit}（{value}），{frees}")                                         \
    X(ORG_DENIED, "organisation_denied", "API key {key} does not belong to organisation {org}",    \
      "API 密钥 {key} 不属于组织 {org}")                                                           \
    X(ORG_UNKNOWN, "organisation_not_found", "there is no organisation {org} here",                \
      "此处没有组织 {org}")                                                                        \
    X(KEY_BOUND, "key_is_bound",                                                                   \
      "API key {key} is bound by its own {field}: it cannot give any key more",                    \
      "API 密钥 {key} 自身受 {field} 约束，不能授予更多")                                          \
    X(PROJECT_UNKNOWN, "project_not_found", "there is no project {project} here",                  \
      "此处没有项目 {project}")                                                                    \
    X(PROJECT_FULL, "project_not_empty", "project {project} still has {kind}: delete them first",  \
      "项目 {project} 中仍有 {kind}：请先删除")                                                    \
    X(BUILTIN, "role_builtin", "role {role} comes with Lathe and cannot change",                   \
      "角色 {role} 为内置角色，不能修改")                                                          \
    X(PERMISSION_UNKNOWN, "permission_not_found",                                                  \
      "field {field}: nothing here asks for permission {got}; the roles and routes pages of the "  \
      "reference name those that there are",                                                       \
      "字段 {field}：没有任何操作需要权限 {got}；可用权限见参考手册的角色与路由页")                \
    X(OWNER_TWICE, "key_of_two", "a key is a service_account's or a user's, not both",             \
      "密钥只能属于 service_account 或 user 之一")                                                 \
    X(LAST_ADMIN, "last_admin", "the last administrator's key cannot go",                          \
      "不能移除最后一个管理员的密钥")
REASONS_DECLARE(ACCESS_REASONS)
extern const Reason *const access_reasons[];
extern const Module access_module;
#endif
