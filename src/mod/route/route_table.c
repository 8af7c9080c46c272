// SPDX-License-Identifier: Apache-2.0
// route_table.c - rows only: what a route is. Behaviour is in route.c.
#include "mod/route/route_own.h"

const char *const strategy_names[] = {
    [STRATEGY_ORDERED] = "ordered",
    [STRATEGY_WEIGHTED] = "weighted",
    [STRATEGY_LEAST_BUSY] = "least_busy",
    [STRATEGY_LOWEST_LATENCY] = "lowest_latency",
    [STRATEGY_LOWEST_COST] = "lowest_cost",
    [STRATEGY_STICKY] = "sticky",
    NULL
};

// clang-format off
static const Field target_rows[] = {
    REF(TargetRow, deployment, REQUIRED, "deployment", REF_RESTRICT, "Deployment that answers",
        "应答的部署"),
    INT(TargetRow, weight, 0, 0, 1000000,
        "Its share among the weights, with strategies weighted and sticky; 0: only when no "
        "other target answers", "在 weighted 与 sticky 策略中的权重；0 表示仅在其他目标都无法应答时使用", .fallback = "1"),
    { 0 }
};
static const Field route_rows[] = {
    TEXT(RouteRow, description, COLUMN, 500, "What it is for", "用途说明"),
    ENUM(RouteRow, strategy, INDEXED | COLUMN, strategy_names,
        "Which target is asked first; the others follow when it cannot answer. ordered: as they "
        "stand; weighted: by chance, after their weights; least_busy: whose slots are the least "
        "taken; lowest_latency: the faster of two drawn by chance, by the time to their first "
        "byte of late; lowest_cost: by what the request may cost at most; sticky: the same one "
        "for the same conversation, by header Lathe-Session, else the body's user, else how "
        "the conversation begins",
        "首先请求哪个目标，其余在其无法应答时依次接替。ordered：按顺序；weighted：按权重随机；least_busy：槽位占用最低者；"
        "lowest_latency：随机取两个中近期首字节更快者；lowest_cost：按请求可能的最高费用；sticky：同一会话固定同一目标"
        "（依次按请求头 Lathe-Session、请求体 user、会话开头区分）",
        .fallback = "ordered"),
    LIST(RouteRow, targets, TargetRow, REQUIRED, target_rows, 1, ROUTE_TARGETS_MAX, "Who answers",
        "应答的目标"),
    INT(RouteRow, attempts_max, 0, 1, 20, "Attempts for one request, at all targets together",
        "单个请求在全部目标上的尝试次数上限",
        .fallback = "3"),
    INT(RouteRow, spill_ms, 0, 0, 3600000,
        "Ask the next target when none of this one's slots was free for so many "
        "milliseconds; absent: after the deployment's own queue time",
        "若目标在这么多毫秒内没有空闲槽位则改问下一个；缺省为部署自身的排队时长"),
    BOOL(RouteRow, published, INDEXED | COLUMN,
        "Keys of every project of the organisation may name it",
        "本组织所有项目的密钥均可使用该名称"),
    { 0 }
};
const Resource route_resource = {
    .name = "route", .plural = "routes", .prefix = "route", .scope = SCOPE_PROJECT,
    .flags = RES_IN_SNAPSHOT | RES_HISTORY, .size = sizeof(RouteRow), .fields = route_rows,
    .check = route_check, .notify = snapshot_wake,
    .en = "A model name that clients use, and the deployments behind it",
        .zh = "路由：客户端使用的模型名及其背后的部署",
};
static const Resource *const resources[] = { &route_resource, NULL };

static const Migration migrations[] = {
    { 1,
      "CREATE TABLE routes (id TEXT PRIMARY KEY, name TEXT NOT NULL, org TEXT NOT NULL, project "
      "TEXT NOT NULL, "
      "description TEXT, strategy TEXT, targets TEXT, attempts_max BIGINT, spill_ms BIGINT, "
      "published BIGINT NOT "
      "NULL, revision BIGINT NOT NULL, created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, "
      "created_by TEXT);"
      "CREATE UNIQUE INDEX routes_name ON routes (project, name);"
      LIST_IDS("routes", "project") LIST_INDEX("routes", "project", "created_at")
      LIST_INDEX_UNSET("routes", "project", "strategy", "''") LIST_INDEX("routes", "project",
          "published")
      "CREATE INDEX routes_published ON routes (org, name) WHERE published = 1;", NULL },
};
const Module route_module = {
    .name = "route", .needs = "deployment", .resources = resources, .migrations = migrations,
    .migrations_n = countof(migrations), .reasons = route_reasons, .init = route_init,
    .en = "Names that clients use, and who answers for them", .zh = "客户端模型名的路由",
};
// clang-format on
