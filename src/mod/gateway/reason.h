// SPDX-License-Identifier: Apache-2.0
// reason.h - the sentences of the gateway's refusals and failures.
#ifndef LATHE_MOD_GATEWAY_REASON_H
#define LATHE_MOD_GATEWAY_REASON_H
#include "base/err.h"

#define GATEWAY_REASONS(X)                                                                  \
    X(MODEL_UNKNOWN, "model_not_found",                                                     \
      "there is no model {model} in this project; it has: {known}",                         \
      "此项目中没有模型 {model}；现有：{known}")                                            \
    X(MODEL_TASK, "model_task", "model {model} is deployed for {task}, not for {wanted}",   \
      "模型 {model} 的部署任务是 {task}，不是 {wanted}")                                    \
    X(MODEL_DIALECT, "model_dialect",                                                       \
      "model {model} is on a server that speaks {dialect}, which has no {wanted}",          \
      "模型 {model} 所在的服务使用 {dialect} 接口，不支持 {wanted}")                        \
    X(MODEL_DOWN, "model_not_ready", "model {model} cannot answer now: {why}",              \
      "模型 {model} 目前无法应答：{why}")                                                   \
    X(MODEL_ELSEWHERE, "model_on_another_node",                                             \
      "model {model} runs on node {node}, out of reach of this one, {here}: ask that node", \
      "模型 {model} 运行在节点 {node} 上，当前节点 {here} 无法访问：请向该节点发送请求")    \
    X(QUEUE_FULL, "queue_full",                                                             \
      "{waiting} requests already wait for model {model}; try again in {ms} ms",            \
      "模型 {model} 已有 {waiting} 个请求在排队；请 {ms} 毫秒后重试")                       \
    X(QUEUE_LATE, "queue_timeout", "no slot of model {model} became free within {ms} ms",   \
      "{ms} 毫秒内模型 {model} 没有空闲槽位")                                               \
    X(CONTEXT, "context_length_exceeded",                                                   \
      "the prompt has {tokens} tokens, the context of model {model} is {context}",          \
      "提示词有 {tokens} 个 token，模型 {model} 的上下文为 {context}")                      \
    X(ENGINE_REFUSED, "engine_refused", "the engine refused the request: {why}",            \
      "推理引擎拒绝了请求：{why}")                                                          \
    X(ENGINE_FAILED, "engine_failed", "the engine of model {model} failed: {why}",          \
      "模型 {model} 的推理引擎出错：{why}")                                                 \
    X(ENGINE_SLOW, "engine_timeout", "model {model} gave no {what} within {ms} ms",         \
      "模型 {model} 在 {ms} 毫秒内没有给出 {what}")                                         \
    X(NO_SPACE, "storage_full",                                                             \
      "the disk has no room to record this request, so it is not served",                   \
      "磁盘空间不足以记录该请求，因此不予处理")                                             \
    X(LOOP, "endpoint_loop",                                                                \
      "this request came through {hops} gateways: an endpoint leads back to itself",        \
      "该请求已经过 {hops} 个网关：某个 endpoint 指回了自身")
REASONS_DECLARE(GATEWAY_REASONS)
extern const Reason *const gateway_reasons[];
#endif
