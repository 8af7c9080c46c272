// SPDX-License-Identifier: Apache-2.0
// executor.h - where children run. This is the local one: a small shim (the same binary, verb `shim`) holds each child, keeps its log,
// answers on a unix socket DIR/run/<handle>.sock, outlives `serve` by a grace time and ends the child if nobody comes back. After a restart
// or upgrade executor_open adopts every living shim. The idempotency key is recorded on disk before the child starts, so a crash in between
// neither loses nor doubles it. Threads: any, blocking (a few ms); events on the loop given.
#ifndef LATHE_JOB_EXECUTOR_H
#define LATHE_JOB_EXECUTOR_H
#include "os/process.h"

typedef struct Executor Executor;
typedef enum { CHILD_STARTING, CHILD_RUNNING, CHILD_EXITED, CHILD_LOST } ChildState;      // LOST: the shim itself died
const char *child_state_name(ChildState s);
typedef struct ChildSpec {
    str key;                                     // idempotency, [a-z0-9_.-]{1,100}: a second submit with it returns the same handle
    const char *const *argv, *const *env;        // env NULL: a clean small one
    str cwd;
    int64_t memory_max_bytes;                    // cgroup v2 where available, else RLIMIT_AS is NOT set (engines map files): then watched only
    int64_t log_max_bytes;                       // the log is a ring of two files of half this; 0: 8 MiB
    int64_t grace_ms;                            // how long the child lives without a `serve`; 0: 60 s
    str socket_path;                             // endpoint that the child will listen on; removed before start; absent: none
} ChildSpec;
typedef struct ChildView { str key, handle, endpoint; ChildState state; int64_t pid, started_ms, exit_code, exit_signal, memory_bytes, cpu_ms; str reason; bool adopted; } ChildView;

err executor_open(Ctx *c, str run_dir, Loop *l, Executor **out);         // adopts
void executor_close(Executor *e);                // leaves children to their shims
err executor_submit(Ctx *c, Executor *e, const ChildSpec *spec, str *out_handle);
err executor_observe(Ctx *c, Executor *e, str handle, ChildView *out);   // ERR_NOTFOUND after executor_forget
err executor_list(Ctx *c, Executor *e, ChildView **out, size_t *out_n);
err executor_logs(Ctx *c, Executor *e, str handle, int64_t offset, size_t max, str *out, int64_t *out_next);    // offset counts all bytes ever; older ones may be gone
err executor_cancel(Ctx *c, Executor *e, str handle, int64_t grace_ms);  // SIGTERM, then SIGKILL after grace
err executor_forget(Ctx *c, Executor *e, str handle);        // ended children only: removes its files
void executor_on_change(Executor *e, void (*fn)(void *arg, str handle), void *arg);      // on the loop; may be lost, so watchers also poll
int shim_main(int argc, char **argv);            // `lathe shim …`: the holder itself
#endif
