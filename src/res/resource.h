// SPDX-License-Identifier: Apache-2.0
// resource.h - the heart: a resource is a C struct, its field rows and its action rows. Derived
// from them: lists, get, create, patch, delete, If-Match, Idempotency-Key, dry run, permissions,
// audit, events, OpenAPI, CLI, console schema, conformance tests. A module writes rows and three
// hooks. Threads: rows are constants; functions run on workers with the caller's Tx.
#ifndef LATHE_RES_RESOURCE_H
#define LATHE_RES_RESOURCE_H
#include "db/db.h"
#include "job/lease.h"
#include "res/field.h"

typedef struct Condition {
    str type;
    bool ok;
    str reason, message;
    int64_t since;
} Condition;

// Every resource's struct starts with a Head, named `head`. Its rows come with every resource.
typedef struct Head {
    str id, org, project, name; // org and project: by scope; absent otherwise
    int64_t revision;           // grows with every change of the wish; If-Match compares it
    int64_t created_at, updated_at;
    str created_by; // identity id
    // reconciled resources only
    int64_t generation, observed_generation; // of the spec; of the spec that STATUS speaks of
    int64_t deleting_at; // delete was asked for; the reconciler finishes it. 0: no
    Condition *conditions;
    size_t conditions_n;
} Head;

typedef enum { SCOPE_SYSTEM, SCOPE_ORG, SCOPE_PROJECT } Scope;
typedef enum { ACTION_SYNC, ACTION_JOB } ActionKind;
typedef struct Action {
    const char *
        // "promote": POST …/{id}/promote, permission "<plural>.promote", `lathe <name> promote`
        verb;
    ActionKind kind;
    // SYNC: changes row in place, the kit stores it; JOB: stages a job and sets *out_job, answered
    // 202.
    err (*run)(Ctx *c, Tx *tx, void *row, const void *input, str *out_job);
    const Field *input; // rows of the body; NULL: none
    size_t input_size;
    const char *en, *zh;
} Action;

// IN_SNAPSHOT: an answer to a change waits until the request path knows of it. LOG: rows come as
// fast as requests do, and an index for each field would cost each of them: sorted by id (which is
// by time) alone; filters are looked at along that order. HISTORY: each change is kept, and can be
// taken back (mod/revision); of a project's resources.
enum {
    RES_UNNAMED = 1u,
    RES_RECONCILED = 2u,
    RES_NO_CREATE = 4u,
    RES_NO_UPDATE = 8u,
    RES_NO_DELETE = 16u,
    RES_IN_SNAPSHOT = 32u,
    RES_LOG = 64u,
    RES_HISTORY = 128u
};
// What a list needs, for migrations: of the scope's column ("project", "org"), of each INDEXED
// field, and for one that may be unset of what stands in its place when it is sorted (list.c).
// LIST_SYSTEM: without a scope. A test asks both databases whether every list is served by them.
#define LIST_IDS(table, scope) "CREATE INDEX " table "_by_id ON " table " (" scope ", id);"
#define LIST_INDEX(table, scope, field) \
    "CREATE INDEX " table "_by_" field " ON " table " (" scope ", \"" field "\", id);"
#define LIST_INDEX_UNSET(table, scope, field, unset)                                               \
    "CREATE INDEX " table "_by_" field " ON " table " (" scope ", (COALESCE(\"" field "\", " unset \
    ")), id);"
#define LIST_SYSTEM(table, field) \
    "CREATE INDEX " table "_by_" field " ON " table " (\"" field "\", id);"
#define LIST_SYSTEM_UNSET(table, field, unset) \
    "CREATE INDEX " table "_by_" field " ON " table " ((COALESCE(\"" field "\", " unset ")), id);"
typedef struct Resource {
    const char *name, *plural,
        *prefix; // "model", "models", id prefix "model"; the table has the plural's name
    Scope scope;
    unsigned flags;
    size_t size;
    const Field *fields; // without the head's
    const Action *actions;
    // May fail and must not act; may fill derived STATUS of now. old NULL: create; now NULL:
    // delete.
    err (*check)(Ctx *c, Tx *tx, const void *old, void *now);
    // In the same transaction, after the row is written: jobs, outbox, rows of the module's own.
    err (*stage)(Ctx *c, Tx *tx, const void *old, const void *now);
    // After the commit: wakes readers; may be lost, so each also looks by itself.
    void (*notify)(void *app);
    // Other names that a reference may use ("smol:3"); gives the id, or ERR_NOTFOUND. NULL: id or
    // name only.
    err (*resolve)(Ctx *c, Tx *tx, str text, str *out_id);
    int retain_days; // 0: for ever; by created_at
    // Rows are in databases of their days (res/daily.h); an id's time is of its row's day. NULL, or
    // gives NULL: they are not.
    struct DailySet *(*daily)(void);
    const char *en, *zh;
} Resource;
extern const Field head_rows[], reconciled_rows[];

// ---- for modules: the same path as the API (hooks, audit, events), with structs. Scope comes from
// c->org and c->project.
err res_get(Ctx *c, Tx *tx, const Resource *r, str id_or_name,
            void *out); // ERR_NOTFOUND with R_NOT_FOUND
err res_create(Ctx *c, Tx *tx, const Resource *r,
               void *row); // head.id, times and so on are filled in
err res_update(Ctx *c, Tx *tx, const Resource *r, const void *old,
               void *now); // no change: nothing happens
// Reconciled resources: marks deleting_at; called again with the mark set, or for others: removes.
// References are honoured.
err res_delete(Ctx *c, Tx *tx, const Resource *r, const void *row);
err res_purge(Ctx *c, Tx *tx, const Resource *r,
              const void *row); // the reconciler's last step of a delete
// STATUS members only, by the system: no audit, event "<name>.status". lease may be NULL; else the
// write is fenced by it.
err res_set_status(Ctx *c, Tx *tx, const Resource *r, void *row, const Lease *lease);
// Sets a condition on a head in memory. True when it changed. since is set only when ok changed.
bool condition_set(Ctx *c, Head *h, const char *type, bool ok, const char *reason,
                   const char *message);

typedef enum { OP_EQ, OP_NE, OP_LT, OP_LE, OP_GT, OP_GE, OP_IN } FilterOp;
typedef struct Filter {
    const Field *field;
    FilterOp op;
    Val value;
} Filter; // OP_IN: value is comma-separated text
enum { LIST_MAX = 1000, LIST_DEFAULT = 50, FILTERS_MAX = 16 };
typedef struct ListSpec {
    Filter filters[FILTERS_MAX];
    size_t filters_n;
    const Field *sort;           // NULL: by id, which is by time
    bool descending, all_scopes; // all_scopes: for reconcilers and system admins only
    str search, cursor;          // cursor: from the last list with the same filters
    size_t limit, slice;         // 0: LIST_DEFAULT; slice: rows looked at, at most; 0: all
} ListSpec;
typedef struct ListPage {
    void *rows; // n structs, one after the other
    size_t n;
    str cursor; // of the next page; absent: there is none. A slice's page may be short (AIP-158)
} ListPage;
err res_list(Ctx *c, Tx *tx, const Resource *r, const ListSpec *spec, ListPage *out);
// One page of the same list read in n places: each has what comes first there.
err res_list_merge(Ctx *c, const Resource *r, const ListSpec *spec, const ListPage *pages, size_t n,
                   ListPage *out);
err list_filter(Ctx *c, const Resource *r, ListSpec *spec, const char *field, FilterOp op,
                str value); // typed by the row

str res_json(Ctx *c, const Resource *r, const void *row); // as the API shows it
const Resource *resource_find(const char *name);          // by name or plural, among all modules
str resource_permission(Arena *a, const Resource *r, const char *verb); // "models.create"

#define RES_REASONS(X)                                                                             \
    X(NOT_FOUND, "not_found", "there is no {kind} {id} here", "此处没有 {kind} {id}")              \
    X(FIELD_UNKNOWN, "unknown_field", "{field} is not a field here; the nearest is {nearest}",     \
      "此处没有字段 {field}；最接近的是 {nearest}")                                                \
    X(FIELD_REQUIRED, "field_required", "{field} is required", "必须提供 {field}")                 \
    X(FIELD_TYPE, "field_type", "{field} must be {want}, not {got}",                               \
      "{field} 应为 {want}，而不是 {got}")                                                         \
    X(FIELD_RANGE, "field_range", "{field} must be from {min} to {max}, not {got}",                \
      "{field} 应在 {min} 到 {max} 之间，而不是 {got}")                                            \
    X(FIELD_LENGTH, "field_length", "{field} must have {min} to {max} {unit}, not {got}",          \
      "{field} 的长度应为 {min} 到 {max} {unit}，而不是 {got}")                                    \
    X(FIELD_ENUM, "field_enum", "{field} must be one of {names}, not {got}",                       \
      "{field} 应为 {names} 之一，而不是 {got}")                                                   \
    X(FIELD_READONLY, "field_readonly", "{field} is set by the system", "{field} 由系统设置")      \
    X(FIELD_IMMUTABLE, "field_immutable", "{field} cannot change after creation",                  \
      "创建后不能修改 {field}")                                                                    \
    X(FIELD_NAME, "field_name",                                                                    \
      "{field} may hold letters, digits, '.', '_' and '-' only, and starts with a letter or "      \
      "digit",                                                                                     \
      "{field} 只能包含字母、数字、“.”、“_”和“-”，且以字母或数字开头")                             \
    X(FIELD_NAME_ID, "field_name_id", "{field} must not look like an identifier",                  \
      "{field} 不能形如标识")                                                                      \
    X(FIELD_REF, "field_reference", "{field}: there is no {kind} {id} here",                       \
      "{field}：此处没有 {kind} {id}")                                                             \
    X(NAME_TAKEN, "name_taken", "a {kind} with {field} {value} exists already",                    \
      "{field} 为 {value} 的 {kind} 已存在")                                                       \
    X(IN_USE, "in_use", "{kind} {id} is used by {user_kind} {user}: delete that first",            \
      "{kind} {id} 正被 {user_kind} {user} 使用：请先删除后者")                                    \
    X(REVISION, "revision_changed",                                                                \
      "{kind} {id} has changed since you read it: it is at revision {now}, you sent {sent}",       \
      "{kind} {id} 已被修改：当前修订号 {now}，你提交的是 {sent}")                                 \
    X(IDEMPOTENCY, "idempotency_key_reused",                                                       \
      "this Idempotency-Key was used for a different request",                                     \
      "该 Idempotency-Key 已用于另一个不同的请求")                                                 \
    X(FILTER, "bad_filter", "this list is not filtered or sorted by {field}; it is by: {names}",   \
      "该列表不能按 {field} 过滤或排序；可用字段：{names}")                                        \
    X(CURSOR, "bad_cursor",                                                                        \
      "the cursor does not belong to this list and filter; start again without it",                \
      "游标与该列表及过滤条件不符；请去掉游标重新开始")                                            \
    X(DELETING, "deleting", "{kind} {id} is being deleted", "{kind} {id} 正在删除")                \
    X(FORBIDDEN, "permission_denied", "{who} lacks the permission {permission}",                   \
      "{who} 缺少权限 {permission}")                                                               \
    X(NO_PROJECT, "project_required", "say which project: header OpenAI-Project, or /p/PROJECT/…", \
      "请指明项目：请求头 OpenAI-Project 或 /p/PROJECT/…")                                         \
    X(NODE_TAKEN, "node_name_taken",                                                               \
      "another server uses this database as node {node}: give each its own serve.node",            \
      "另一台服务器正以节点名 {node} 使用该数据库：请各自设置 serve.node")
REASONS_DECLARE(RES_REASONS)
extern const Reason *const res_reasons[];
#endif
