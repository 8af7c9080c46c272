// SPDX-License-Identifier: Apache-2.0
// reason.h - the sentences of this layer's failures, and of a job's waiting.
#ifndef LATHE_JOB_REASON_H
#define LATHE_JOB_REASON_H
#include "base/err.h"

// clang-format off
#define JOB_REASONS(X)                                                                            \
    X(LEASE_HELD, "lease_held", "{object} is held by {holder} for {ms} ms more",                  \
      "{object} 由 {holder} 持有，还剩 {ms} 毫秒")                                                \
    X(LEASE_LOST, "lease_lost", "{object} was taken over by another node",                        \
      "{object} 已被其他节点接管")                                                                \
    X(JOB_ENDED, "job_ended", "job {id} has already ended ({state})", "作业 {id} 已经结束（{state}）") \
    X(JOB_LIVE, "job_live", "job {id} has not ended yet ({state})", "作业 {id} 尚未结束（{state}）") \
    X(JOB_KIND, "job_kind", "there is no job kind {kind}", "没有作业类型 {kind}")                 \
    X(JOB_ABSENT, "job_absent", "there is no job {id}", "没有作业 {id}")                          \
    X(JOB_CRASHED, "job_crashed",                                                                 \
      "attempt {attempt} ended without an answer: its process died or stalled",                   \
      "第 {attempt} 次尝试没有结果：其进程已退出或停滞")                                          \
    X(JOB_NOT_BEFORE, "not_before", "it starts in {seconds} s", "将在 {seconds} 秒后开始")        \
    X(JOB_BACKOFF, "retry_backoff", "it is tried again in {seconds} s, after: {error}",           \
      "将在 {seconds} 秒后重试，上次失败：{error}")                                               \
    X(JOB_PARALLEL, "parallel_limit",                                                             \
      "{running} of at most {limit} jobs of this kind are running",                               \
      "同类作业正在运行 {running} 个，上限 {limit} 个")                                           \
    X(JOB_NO_WORKER, "no_worker", "no worker here runs jobs of kind {kind}",                      \
      "这里没有运行 {kind} 类作业的工作线程")                                                     \
    X(JOB_BUSY, "no_worker", "all {workers} workers are busy", "全部 {workers} 个工作线程都在忙") \
    X(JOB_QUEUED, "queued", "a worker takes it next", "即将由工作线程执行")                       \
    X(JOURNAL_BAD, "journal_bad", "journal segment {path} is damaged at byte {offset}: {why}",    \
      "日志段 {path} 在第 {offset} 字节处损坏：{why}")                                            \
    X(EXECUTOR, "executor", "the executor cannot {what}: {why}", "执行器无法{what}：{why}")
// clang-format on
REASONS_DECLARE(JOB_REASONS)
extern const Reason *const job_reasons[];
#endif
