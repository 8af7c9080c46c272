// SPDX-License-Identifier: Apache-2.0
// access_table.c - rows only: organisations, projects, users, roles, members, service accounts,
// keys.
#include "mod/access/access_own.h"

static const char *const recordings[] = { "none", "all", "sampled", NULL };

// clang-format off
#define MONEY_MAX INT64_C(1000000000000000000)
const Field limit_rows[] = {
    INT(Limits, requests_per_minute, 0, 1, 1000000, "Requests a minute", "每分钟请求数"),
    INT(Limits, tokens_per_minute, 0, 1, 1000000000,
        "Tokens a minute, of prompts and answers; what a request may use at most is reserved, "
        "what it used counts", "每分钟 token 数（提示与应答）：按上限预留，按实际用量计算"),
    INT(Limits, concurrency, 0, 1, 100000, "Requests at once", "并发请求数"),
    ROW(Limits, money_per_day, T_MONEY, 0,
        "Money a day (UTC), in the currency of the organisation's prices, reserved before each "
        "request; a model without a price costs nothing",
        "每日费用（UTC），币种同组织的价格，请求前预留；没有价格的模型不计费",
        .min = 1, .max = MONEY_MAX),
    ROW(Limits, money_per_month, T_MONEY, 0, "Money a calendar month (UTC), likewise",
        "每个自然月的费用（UTC），同样预留", .min = 1, .max = MONEY_MAX),
    ROW(Limits, money_total, T_MONEY, 0, "Money in all, since the beginning, likewise",
        "自始累计的费用，同样预留", .min = 1, .max = MONEY_MAX),
    { 0 }
};
static const Field organisation_rows[] = {
    TEXT(Organisation, title, COLUMN, 200, "Name for people", "显示名称"),
    OBJECT(Organisation, limits, 0, limit_rows, "Limits of all its keys together",
        "其全部密钥合计的限额"),
    { 0 }
};
static const Field project_rows[] = {
    TEXT(Project, title, COLUMN, 200, "Name for people", "显示名称"),
    ENUM(Project, recording, COLUMN, recordings, "Whether prompts and answers are kept in traces",
         "追踪是否保存提示词与应答", .fallback = "none"),
    INT(Project, recording_percent, 0, 0, 100, "Share of requests kept when sampled", "抽样保存的百分比",
        .fallback = "10"),
    INT(Project, recording_days, 0, 1, 3650, "Days that content is kept", "内容保留天数",
        .fallback = "30"),
    INT(Project, responses_days, 0, 0, 3650,
        "Days that responses of /v1/responses are kept; 0: none is; absent: as "
        "retain.responses says",
        "/v1/responses 的应答保留天数；0 为不保存；缺省按 retain.responses"),
    OBJECT(Project, limits, 0, limit_rows, "Limits of all its keys together",
        "其全部密钥合计的限额"),
    { 0 }
};
static const Field user_rows[] = {
    TEXT(User, email, INDEXED | SEARCHED | COLUMN, 254, "E-mail address", "邮箱"),
    TEXT(User, title, COLUMN, 200, "Name for people", "显示名称"),
    BOOL(User, disabled, INDEXED | COLUMN, "May not act; its keys do not work", "已停用；其密钥失效"),
    { 0 }
};
static const Field role_rows[] = {
    TEXT(Role, title, COLUMN, 200, "Name for people", "显示名称"),
    LIST(Role, permissions, str, SORTED_SET, text_item, 0, 500,
         "What it allows: models.read, models.*, *.read", "允许的权限：models.read、models.*、*.read"),
    BOOL(Role, builtin, STATUS | INDEXED | COLUMN, "Comes with Lathe and cannot change",
        "内置角色，不可修改"),
    { 0 }
};
static const Field member_rows[] = {
    REF(Member, user, REQUIRED | IMMUTABLE | INDEXED | COLUMN, "user", REF_CASCADE, "Who", "用户"),
    REF(Member, role, REQUIRED | INDEXED | COLUMN, "role", REF_RESTRICT, "What they may do", "角色"),
    REF(Member, member_project, IMMUTABLE | INDEXED | COLUMN, "project", REF_CASCADE,
        "Where; absent: in the whole organisation", "所在项目；缺省为整个组织"),
    { 0 }
};
static const Field role_item[] = {
    { .name = "", .type = T_REF, .of = "role", .rule = REF_RESTRICT, .en = "Role", .zh = "角色" },
    { 0 }
};
static const Field service_account_rows[] = {
    TEXT(ServiceAccount, title, COLUMN, 200, "Name for people", "显示名称"),
    LIST(ServiceAccount, roles, str, 0, role_item, 0, 20, "What it may do in this project",
        "在本项目中的角色"),
    BOOL(ServiceAccount, disabled, INDEXED | COLUMN, "May not act; its keys do not work",
        "已停用；其密钥失效"),
    { 0 }
};
static const Field api_key_rows[] = {
    REF(ApiKey, service_account, IMMUTABLE | INDEXED | COLUMN, "service_account", REF_RESTRICT,
        "Whose key; absent: yours", "所属服务账号；缺省为创建者本人"),
    REF(ApiKey, user, IMMUTABLE | INDEXED | COLUMN, "user", REF_RESTRICT,
        "A person whose key it is, with what their roles allow in this project",
        "所属用户：权限为其在本项目中的角色所允许者"),
    LIST(ApiKey, scopes, str, SORTED_SET, text_item, 0, 100,
         "Cuts what its owner may do: inference.use, models.read; empty: all of it",
         "限定权限范围：inference.use、models.read；空为不限"),
    OBJECT(ApiKey, limits, 0, limit_rows, "Limits of this key", "密钥限额"),
    ROW(ApiKey, expires_at, T_TIME, INDEXED | COLUMN, "Works until then; absent: for ever",
        "到期时间；缺省为永久"),
    BOOL(ApiKey, disabled, INDEXED | COLUMN, "Does not work for now", "暂停使用"),
    TEXT(ApiKey, hint, STATUS | COLUMN, 60, "Its first and last characters", "首尾字符"),
    ROW(ApiKey, last_used_at, T_TIME, STATUS | COLUMN, "Last use, to about half a minute",
        "最近使用时间（约半分钟精度）"),
    ROW(ApiKey, owner, T_ID, STATUS | INDEXED, "Whose rights it carries", "权限所属者"),
    TEXT(ApiKey, hash, STATUS | HIDDEN, 64, "SHA-256 of the key", "密钥的 SHA-256"),
    TEXT(ApiKey, key, STATUS | ONCE, 100, "The key itself: shown once", "密钥本身：仅显示一次"),
    { 0 }
};
static const Field admin_key_rows[] = {
    REF(AdminKey, user, IMMUTABLE, "user", REF_SOFT,
        "Who answers for it, in the audit too; it may do everything all the same. A key with no "
        "more than a person's own rights is an api_key with --user",
        "责任人（记入审计）；该密钥仍拥有全部权限。仅含本人权限的密钥请用 api_key 的 --user"),
    REF(AdminKey, admin_org, IMMUTABLE | INDEXED | COLUMN, "organisation", REF_CASCADE,
        "The organisation it rules; absent: the whole system", "所管理的组织；缺省为整个系统"),
    ROW(AdminKey, expires_at, T_TIME, INDEXED | COLUMN, "Works until then; absent: for ever",
        "到期时间；缺省为永久"),
    BOOL(AdminKey, disabled, INDEXED | COLUMN, "Does not work for now", "暂停使用"),
    TEXT(AdminKey, hint, STATUS | COLUMN, 60, "Its first and last characters", "首尾字符"),
    ROW(AdminKey, last_used_at, T_TIME, STATUS | COLUMN, "Last use, to about half a minute",
        "最近使用时间（约半分钟精度）"),
    TEXT(AdminKey, hash, STATUS | HIDDEN, 64, "SHA-256 of the key", "密钥的 SHA-256"),
    TEXT(AdminKey, key, STATUS | ONCE, 100, "The key itself: shown once", "密钥本身：仅显示一次"),
    { 0 }
};
// clang-format on

// ---- hooks
static err role_check(Ctx *c, Tx *tx, const void *old, void *now) {
    const Role *was = old, *is = now;
    (void)tx;
    bool system = c->who && c->who->kind == WHO_SYSTEM;
    if (system) return ERR_OK;
    if ((was && was->builtin) || (is && is->builtin))
        return fail(c, ERR_CONFLICT, R_BUILTIN, "role", say_str(c, (was ? was : is)->head.name));
    if (is) TRY(permissions_known(c, "permissions", is->permissions, is->permissions_n));
    for (size_t i = 0; is && i < is->permissions_n; i++)
        TRY(require(c, say_str(c, is->permissions[i]), S("")));
    return ERR_OK;
}

static err member_check(Ctx *c, Tx *tx, const void *old, void *now) {
    (void)old;
    return now ? may_give(c, tx, ((Member *)now)->role) : ERR_OK;
}

static err account_check(Ctx *c, Tx *tx, const void *old, void *now) {
    const ServiceAccount *a = now;
    (void)old;
    for (size_t i = 0; a && i < a->roles_n; i++) TRY(may_give(c, tx, a->roles[i]));
    return ERR_OK;
}

static err api_key_rotate(Ctx *c, Tx *tx, void *row, const void *input, str *out_job) {
    ApiKey *k = row;
    (void)tx, (void)input, (void)out_job;
    key_make(c, &k->key, &k->hint, &k->hash);
    return ERR_OK;
}

static err organisation_stage(Ctx *c, Tx *tx, const void *old, const void *now) {
    const Organisation *o = now;
    return old || !o ? ERR_OK : roles_seed(c, tx, o->head.id);
}

static err still_holds(Ctx *c, Tx *tx, const Resource *r, const Project *p) {
    ListSpec spec = { .limit = 1 };
    ListPage page;
    if (r->scope != SCOPE_PROJECT || r->flags & RES_NO_CREATE) return ERR_OK; // history may stay
    TRY(res_list(c, tx, r, &spec, &page));
    if (!page.n) return ERR_OK;
    return fail(c, ERR_CONFLICT, R_PROJECT_FULL, "project", say_str(c, p->head.name), "kind",
                r->plural);
}

// What a project holds must go first: deployments run, models lie on disk.
static err project_check(Ctx *c, Tx *tx, const void *old, void *now) {
    const Project *p = old;
    if (now) return ERR_OK;
    str was = c->project;
    c->project = p->head.id;
    err e = ERR_OK;
    for (const Module *const *m = app_of(c)->modules; !e && *m; m++)
        for (const Resource *const *r = (*m)->resources; !e && r && *r; r++)
            e = still_holds(c, tx, *r, p);
    c->project = was;
    return e;
}

// clang-format off
const Resource organisation_resource = {
    .name = "organisation", .plural = "organisations", .prefix = "org", .scope = SCOPE_SYSTEM,
        .flags = RES_IN_SNAPSHOT | RES_NO_DELETE,
    .size = sizeof(Organisation), .fields = organisation_rows, .stage = organisation_stage,
        .notify = snapshot_wake,
    .en = "A company or department with its own people, projects and bills",
        .zh = "组织：拥有各自的人员、项目与账单" };
const Resource project_resource = {
    .name = "project", .plural = "projects", .prefix = "project", .scope = SCOPE_ORG,
        .flags = RES_IN_SNAPSHOT,
    .size = sizeof(Project), .fields = project_rows, .check = project_check,
        .notify = snapshot_wake,
    .en = "Where models, deployments and keys live, apart from other projects",
        .zh = "项目：模型、部署与密钥所在，彼此隔离" };
const Resource user_resource = {
    .name = "user", .plural = "users", .prefix = "user", .scope = SCOPE_ORG,
        .flags = RES_IN_SNAPSHOT,
    .size = sizeof(User), .fields = user_rows, .check = user_check, .notify = snapshot_wake,
    .en = "A person", .zh = "用户" };
const Resource role_resource = {
    .name = "role", .plural = "roles", .prefix = "role", .scope = SCOPE_ORG,
        .flags = RES_IN_SNAPSHOT,
    .size = sizeof(Role), .fields = role_rows, .check = role_check, .notify = snapshot_wake,
    .en = "A set of permissions", .zh = "角色：一组权限" };
const Resource member_resource = {
    .name = "member", .plural = "members", .prefix = "member", .scope = SCOPE_ORG,
        .flags = RES_UNNAMED | RES_IN_SNAPSHOT,
    .size = sizeof(Member), .fields = member_rows, .check = member_check, .notify = snapshot_wake,
    .en = "What a user may do, and where", .zh = "成员：用户在何处拥有何种角色" };
const Resource service_account_resource = {
    .name = "service_account", .plural = "service_accounts", .prefix = "sa",
        .scope = SCOPE_PROJECT, .flags = RES_IN_SNAPSHOT,
    .size = sizeof(ServiceAccount), .fields = service_account_rows, .check = account_check,
        .notify = snapshot_wake,
    .en = "An application that acts in a project", .zh = "服务账号：在项目中运行的应用" };
static const Action api_key_actions[] = {
    { "rotate", ACTION_SYNC, api_key_rotate,
        .en = "A new key in place of the old one, which stops at once", .zh = "轮换：旧密钥立即失效" },
    { 0 }
};
const Resource api_key_resource = {
    .name = "api_key", .plural = "api_keys", .prefix = "key", .scope = SCOPE_PROJECT,
        .flags = RES_IN_SNAPSHOT,
    .size = sizeof(ApiKey), .fields = api_key_rows, .actions = api_key_actions,
        .check = api_key_check, .notify = snapshot_wake,
    .en = "A key of an application or a person in a project, with scopes and limits",
    .zh = "API 密钥：供项目中的应用或个人使用，带权限范围与限额" };
const Resource admin_key_resource = {
    .name = "admin_key", .plural = "admin_keys", .prefix = "adminkey", .scope = SCOPE_SYSTEM,
        .flags = RES_IN_SNAPSHOT,
    .size = sizeof(AdminKey), .fields = admin_key_rows, .check = admin_key_check,
        .notify = snapshot_wake,
    .en = "A key of an administrator: all rights over the system, or over one organisation",
    .zh = "管理员密钥：拥有整个系统或某个组织的全部权限" };

static const char *const owner_permissions[] = { "*", NULL };
static const char *const developer_permissions[] = {
    "*.read", "inference.use", "models.*", "model_versions.*", "deployments.*",
    "routes.*", "jobs.*",
    "secrets.create", "secrets.update", "secrets.delete",
    NULL };
static const char *const viewer_permissions[] = { "*.read", NULL };
static const char *const application_permissions[] = { "inference.use", NULL };
const RoleRow access_roles[] = {
    { "owner", owner_permissions, "May do everything here", "拥有全部权限" },
    { "developer", developer_permissions,
        "Models, deployments, routes, inference; reads everything",
        "管理模型、部署与路由，使用推理，可读一切" },
    { "viewer", viewer_permissions, "Reads everything", "只读" },
    { "application", application_permissions, "Uses models, nothing else", "仅使用模型" },
    { 0 }
};
// clang-format on
