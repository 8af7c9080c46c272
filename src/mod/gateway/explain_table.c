// SPDX-License-Identifier: Apache-2.0
// explain_table.c - rows only: what `lathe route explain` asks and shows. Behaviour: explain.c.
#include "mod/gateway/explain.h"

static const char *const operations[] = { "chat", "completion", "embedding", NULL };
static const char *const cans[] = {
    [CAN_NOW] = "now", [CAN_WAIT] = "after a wait", [CAN_FULL] = "queue full", [CAN_NOT] = "no",
    NULL
};
static const char *const outcomes[] = { [EXPLAIN_ANSWERED] = "answered",
                                        [EXPLAIN_WAITS] = "waits",
                                        [EXPLAIN_REFUSED] = "refused",
                                        NULL };

// clang-format off
const Field explain_query[] = {
    TEXT(ExplainQuery, api_key, 0, 200, "Key that asks, by id or name; absent: one without limits",
        "发出请求的密钥（标识或名称）；缺省视为无限制的密钥"),
    ENUM(ExplainQuery, operation, 0, operations, "What is asked of the model", "请求的操作",
        .fallback = "chat"),
    INT(ExplainQuery, prompt_tokens, 0, 0, 1LL << 40, "Tokens of the prompt, at most",
        "提示的 token 数上限", .fallback = "0"),
    INT(ExplainQuery, max_tokens, 0, 0, 1LL << 40,
        "Tokens of the answer that the client allows; absent: it does not say",
        "客户端允许的应答 token 数；缺省为未指定"),
    TEXT(ExplainQuery, request_id, 0, 100,
        "An earlier request, whose place in a weighted route's draw is taken",
        "早先的请求标识：按其在加权路由中的抽签结果说明"),
    { 0 }
};

static const Field target_rows[] = {
    TEXT(ExplainTarget, deployment, STATUS, 200, "Name of the deployment", "部署名称"),
    ENUM(ExplainTarget, can, STATUS, cans, "Whether it can answer", "能否应答"),
    TEXT(ExplainTarget, why, STATUS, 2000, "Why it cannot, or not at once", "不能（立即）应答的原因"),
    ROW(ExplainTarget, share, T_REAL, STATUS,
        "Share of the route's requests that ask it first, 0 to 1", "首先请求它的比例（0 至 1）"),
    TEXT(ExplainTarget, model, STATUS, 200, "Model that it runs", "运行的模型"),
    TEXT(ExplainTarget, state, STATUS, 40, "State of the deployment", "部署状态"),
    TEXT(ExplainTarget, node, STATUS, 200, "Server that alone can reach it", "唯一可访问它的服务器"),
    INT(ExplainTarget, replicas, STATUS, 0, INT64_MAX, "Replicas", "副本数"),
    INT(ExplainTarget, ready, STATUS, 0, INT64_MAX, "Replicas that take requests", "可接收请求的副本数"),
    INT(ExplainTarget, failed, STATUS, 0, INT64_MAX,
        "Of these, left alone for a second because a request just failed there",
        "其中因刚有请求失败而暂停一秒的副本数"),
    INT(ExplainTarget, slots, STATUS, 0, INT64_MAX, "Requests at once on one replica",
        "单副本并发数"),
    INT(ExplainTarget, free, STATUS, 0, INT64_MAX, "Slots that are free", "空闲槽位"),
    INT(ExplainTarget, running, STATUS, 0, INT64_MAX, "Requests under way", "处理中的请求"),
    INT(ExplainTarget, waiting, STATUS, 0, INT64_MAX, "Requests that wait", "排队的请求"),
    INT(ExplainTarget, queue_max, STATUS, 0, INT64_MAX, "Requests that may wait", "可排队的请求数"),
    INT(ExplainTarget, queue_ms, STATUS, 0, INT64_MAX, "How long one waits here at most",
        "在此排队的最长时间"),
    INT(ExplainTarget, wait_ms, STATUS, 0, INT64_MAX,
        "Wait to be expected, from what requests take here", "按平均耗时估计的等待"),
    ROW(ExplainTarget, cost_most, T_MONEY, STATUS, "What the request costs here at most",
        "在此的最高费用"),
    TEXT(ExplainTarget, currency, STATUS, 3, "Its currency; absent: nothing is charged",
        "币种；缺省为不计费"),
    { 0 }
};
static const Field limit_rows[] = {
    TEXT(ExplainLimit, of, STATUS, 20, "Whose: the key's, the project's or the organisation's",
        "所属：密钥、项目或组织"),
    TEXT(ExplainLimit, limit, STATUS, 60, "Which", "限制名称"),
    TEXT(ExplainLimit, value, STATUS, 60, "What it allows", "上限"),
    TEXT(ExplainLimit, remaining, STATUS, 60, "What is left of it on this server", "本服务器上的余量"),
    INT(ExplainLimit, resets_ms, STATUS, 0, INT64_MAX, "Until it is whole again", "完全恢复所需毫秒"),
    BOOL(ExplainLimit, refuses, STATUS, "It refuses this request", "拒绝该请求"),
    { 0 }
};
const Field explain_output[] = {
    ENUM(Explanation, outcome, STATUS, outcomes, "What becomes of the request", "请求的结果"),
    INT(Explanation, status, STATUS, 0, 999, "Status of a refusal", "拒绝时的状态码"),
    TEXT(Explanation, code, STATUS, 100, "Its reason, for machines", "拒绝原因代码"),
    TEXT(Explanation, why, STATUS, 4000, "In words", "说明"),
    INT(Explanation, retry_after_ms, STATUS, 0, INT64_MAX, "When to try again", "重试时间"),
    TEXT(Explanation, deployment, STATUS, 200, "Which deployment answers", "应答的部署"),
    TEXT(Explanation, model, STATUS, 200, "Name that was asked for", "请求的模型名"),
    TEXT(Explanation, operation, STATUS, 40, "What is asked of it", "请求的操作"),
    TEXT(Explanation, route, STATUS, 200, "Route of that name; absent: a deployment's own name",
        "该名称的路由；缺省为部署自身的名称"),
    TEXT(Explanation, project, STATUS, 100, "Project that publishes the route; absent: one's own",
        "发布该路由的项目；缺省为本项目"),
    TEXT(Explanation, strategy, STATUS, 40, "How the route finds its first target",
        "路由选择首个目标的策略"),
    INT(Explanation, attempts_max, STATUS, 0, INT64_MAX, "Attempts at all targets together",
        "全部目标合计的尝试次数"),
    INT(Explanation, spill_ms, STATUS, 0, INT64_MAX, "After which wait the next target is asked",
        "等待多久后改问下一目标"),
    LIST(Explanation, targets, ExplainTarget, STATUS, target_rows, 0, 64,
        "Targets in the order in which this request asks them", "按请求顺序排列的目标"),
    LIST(Explanation, limits, ExplainLimit, STATUS, limit_rows, 0, 24,
        "Limits of the key, its project and its organisation", "密钥、项目与组织的限制"),
    { 0 }
};
// clang-format on
