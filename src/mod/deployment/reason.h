// SPDX-License-Identifier: Apache-2.0
// reason.h - the sentences of this module's failures.
#ifndef LATHE_MOD_DEPLOYMENT_REASON_H
#define LATHE_MOD_DEPLOYMENT_REASON_H
#include "base/err.h"

// clang-format off
#define DEPLOYMENT_REASONS(X)                                                                     \
    X(MODEL_REQUIRED, "model_required", "{field} is required with engine {engine}",               \
      "使用引擎 {engine} 时必须提供 {field}")                                                     \
    X(ENDPOINT_REQUIRED, "endpoint_required", "{field} is required with engine {engine}",         \
      "使用引擎 {engine} 时必须提供 {field}")                                                     \
    X(ENDPOINT_UNUSED, "endpoint_unused",                                                         \
      "{field} is for engines that are attached, not for {engine}",                               \
      "{field} 仅用于外接引擎，不适用于 {engine}")                                                \
    X(ENDPOINT_FORM, "bad_endpoint", "{field} must be http://HOST[:PORT][/BASE], {why}",          \
      "{field} 应为 http://主机[:端口][/前缀]：{why}")                                            \
    X(MANNER_UNFIT, "endpoint_dialect_unfit",                                                     \
      "{field} {value} is not for servers that speak {dialect}",                                  \
      "{field} {value} 不适用于使用 {dialect} 接口的服务")                                        \
    X(CONTEXT_LARGE, "context_too_large",                                                         \
      "{field} is {got} tokens, {model} was trained for {limit}",                                 \
      "{field} 为 {got} token，而 {model} 的训练上下文为 {limit}")                                 \
    X(TASK_UNFIT, "task_unfit",                                                                   \
      "{field} {task} does not fit {model}, which is an embedding model",                         \
      "{model} 是向量模型，不支持任务 {task}（{field}）")                                         \
    X(ENGINE_ABSENT, "engine_absent",                                                             \
      "no llama-server was found: run `make setup`, or set deployment.llama_server to its path",  \
      "未找到 llama-server：请运行 `make setup`，或在 deployment.llama_server 中设置其路径")      \
    X(SOCKET_LONG, "socket_path_too_long",                                                        \
      "the data folder's path is too long for a unix socket: {path} has more than {limit} bytes", \
      "数据目录路径过长，无法创建 Unix 套接字：{path} 超过 {limit} 字节")                         \
    X(REPLICA_UNKNOWN, "unknown_replica",                                                         \
      "{deployment} has no replica {replica}; it has: {known}",                                   \
      "{deployment} 没有副本 {replica}；现有：{known}")
// clang-format on
REASONS_DECLARE(DEPLOYMENT_REASONS)
extern const Reason *const deployment_reasons[];
#endif
