// SPDX-License-Identifier: Apache-2.0
// reason.h - what net itself refuses or fails with (base/err.h).
#ifndef LATHE_NET_REASON_H
#define LATHE_NET_REASON_H
#include "base/err.h"

// clang-format off
#define NET_REASONS(X)                                                                         \
    X(NO_ROUTE, "no_route", "there is nothing at {path}", "{path} 处没有任何内容")                 \
    X(METHOD_NOT_ALLOWED, "method_not_allowed", "{method} is not possible at {path}",          \
      "{path} 不支持 {method}")                                                                  \
    X(MALFORMED_HTTP, "malformed_http", "the request is not valid HTTP: {why}",                \
      "请求不是合法的 HTTP：{why}")                                                                \
    X(HEAD_TOO_LARGE, "head_too_large",                                                        \
      "the head of the request is over {bytes} bytes or {headers} headers",                    \
      "请求头超过 {bytes} 字节或 {headers} 个字段")                                                 \
    X(BODY_TOO_LARGE, "body_too_large", "the body is larger than {limit} bytes",               \
      "请求体超过 {limit} 字节")                                                                   \
    X(BODY_CODED, "body_coded",                                                                \
      "bodies are not decoded here: send it without Content-Encoding {coding}",                \
      "此处不解码请求体：请不要以 Content-Encoding {coding} 发送")                                      \
    X(SLOW_CLIENT, "slow_client", "the {part} of the request did not come in time",            \
      "未能及时收到请求的 {part}")                                                                  \
    X(SERVER_BUSY, "server_busy", "too much is under way: {what}", "系统繁忙：{what}")             \
    X(ANSWER_LATE, "answer_late", "there was no answer within {ms} ms", "{ms} 毫秒内没有应答")      \
    X(RANGE_BEYOND, "range_beyond", "the range is outside of {size} bytes",                    \
      "范围超出了 {size} 字节")                                                                    \
    X(FETCH_FAILED, "fetch_failed", "{address} gave no answer: {why}", "{address} 没有应答：{why}") \
    X(TLS_FILE, "tls_file", "{setting} {path}: {why}", "{setting} {path}：{why}")                \
    X(TLS_OPEN_KEY, "tls_key_mode",                                                            \
      "the key {path} may be read by others than its owner (mode {mode}): chmod 600 it",       \
      "私钥 {path} 可被所有者以外的用户读取（权限 {mode}）：请执行 chmod 600")                              \
    X(TLS_MATCH, "tls_key_match", "the key {key} does not belong to the certificate {cert}",   \
      "私钥 {key} 与证书 {cert} 不匹配")                                                            \
    X(TLS_DATE, "tls_date", "the certificate {path} is good from {from} to {to}, not now ({now})", \
      "证书 {path} 的有效期为 {from} 至 {to}，当前时间为 {now}")                                         \
    X(BAD_ROUTE, "bad_route", "the route {route} is wrong: {why}", "路由 {route} 有误：{why}")
// clang-format on
REASONS_DECLARE(NET_REASONS)
extern const Reason *const net_reasons[];
#endif
