// SPDX-License-Identifier: Apache-2.0
// executor.h - where children run. This is the local one: a small shim (the same binary, verb
// `shim`) holds each child, keeps its log, answers on a unix socket RUN_DIR/<handle>.sock, outlives
// `serve` by a grace time and ends the child if nobody comes back. After a restart or upgrade
// executor_open adopts every living shim. The idempotency key is recorded on disk before the child
// starts, so a crash in between neither loses nor doubles it. Files and the line protocol between
// executor and shim, which binaries of different versions speak, are in README.md.
// Threads: any, blocking (a few ms); connections and events on the loop given.
#ifndef LATHE_JOB_EXECUTOR_H
#define LATHE_JOB_EXECUTOR_H
#include "job/reason.h"
#include "os/process.h"

typedef struct Executor Executor;
// LOST: the shim itself died; what was left of the child is killed.
typedef enum { CHILD_STARTING, CHILD_RUNNING, CHILD_EXITED, CHILD_LOST } ChildState;
const char *child_state_name(ChildState s); // starting running exited lost

typedef struct ChildSpec {
    str key; // idempotency, [a-z0-9_.-]{1,100}: a second submit with it returns the same handle
    const char *const *argv, *const *env; // env NULL: a clean small one
    str cwd;                              // absent: ours
    int64_t
        memory_max_bytes;  // a cgroup v2 where one can be made; else RLIMIT_AS is NOT set (engines
                           // map files): then only watched. 0: none
    int64_t log_max_bytes; // the log is a ring of two files of half this; 0: 8 MiB
    int64_t grace_ms;      // how long the child lives without a `serve`; 0: 60 s
    str socket_path; // endpoint that the child will listen on; removed before start; absent: none
} ChildSpec;

typedef struct ChildView {
    str key, handle, endpoint;
    ChildState state;
    int64_t pid, started_ms, ended_ms; // pid 0: not known yet; ended 0: not ended
    int64_t exit_code, exit_signal;    // signal 0: exited with code
    int64_t memory_bytes, cpu_ms;      // of the child itself, now
    str reason;                        // of EXITED and LOST: one English line
    bool adopted;                      // it was found by executor_open, not started since
} ChildView;

err executor_open(Ctx *c, str run_dir, Loop *l, Executor **out); // adopts
// What later submits execute as `program shim ...`: an absolute path. NULL: this very program.
void executor_program(Executor *e, const char *program);
// Leaves children to their shims. On the loop's thread, or when no thread runs it.
void executor_close(Executor *e);
err executor_submit(Ctx *c, Executor *e, const ChildSpec *spec, str *out_handle);
// ERR_NOTFOUND after executor_forget.
err executor_observe(Ctx *c, Executor *e, str handle, ChildView *out);
err executor_find(Ctx *c, Executor *e, str key, str *out_handle); // ERR_NOTFOUND
err executor_list(Ctx *c, Executor *e, ChildView **out, size_t *out_n);
// Up to max bytes of both of the child's outputs from offset on. Offsets count all bytes ever;
// older ones may be gone: text starts at `from`, the next call's offset is `next`.
typedef struct ChildLog {
    str text;
    int64_t from, next;
} ChildLog;
err executor_logs(Ctx *c, Executor *e, str handle, int64_t offset, size_t max, ChildLog *out);
// Asks for SIGTERM to the child's processes, then SIGKILL after grace (0: at once). Asked again it
// may have less time, never more. Ended: nothing.
err executor_cancel(Ctx *c, Executor *e, str handle, int64_t grace_ms);
err executor_forget(Ctx *c, Executor *e, str handle); // ended children only: removes its files
// On the loop; may be lost, so watchers also poll.
void executor_on_change(Executor *e, void (*fn)(void *arg, str handle), void *arg);
int shim_main(int argc, char **argv); // `lathe shim ...`: the holder itself
// The same on a loop that exists, for sim_program: start and killed of a SimProgram.
void *shim_start(void *arg, Os *os, Loop *l, const char *const *argv,
                 void (*exit_fn)(void *proc, int code), void *proc);
void shim_killed(void *shim, int signal);
#endif
