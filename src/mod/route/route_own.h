// SPDX-License-Identifier: Apache-2.0
// route_own.h - private to route: its rows as structs.
#ifndef LATHE_MOD_ROUTE_OWN_H
#define LATHE_MOD_ROUTE_OWN_H
#include "mod/route/route.h"
#include "res/app.h"

typedef struct TargetRow {
    str deployment;
    int64_t weight;
} TargetRow;
typedef struct RouteRow {
    Head head;
    str description;
    int strategy;
    TargetRow *targets;
    size_t targets_n;
    int64_t attempts_max, spill_ms;
    bool published;
} RouteRow;
extern const Resource route_resource;

err route_check(Ctx *c, Tx *tx, const void *old, void *now);
err route_init(Ctx *c);

#define ROUTE_REASONS(X)                                                                 \
    X(ROUTE_TWICE, "target_twice",                                                       \
      "field {field}: deployment {name} is a target of this route twice",                \
      "字段 {field}：部署 {name} 在该路由中出现了两次")                                  \
    X(ROUTE_WEIGHTLESS, "no_weight",                                                     \
      "field targets: with strategy weighted one weight must be above 0",                \
      "字段 targets：weighted 策略中至少一个目标的权重须大于 0")                         \
    X(ROUTE_PUBLISHED, "published_elsewhere",                                            \
      "field published: project {project} publishes a route of the name {name} already", \
      "字段 published：项目 {project} 已发布名为 {name} 的路由")
REASONS_DECLARE(ROUTE_REASONS)
extern const Reason *const route_reasons[];
#endif
