// SPDX-License-Identifier: Apache-2.0
// shim_own.h - what the executor and its shim share: files of a child in RUN_DIR, what they hold,
// the ring of its log, and its family of processes. Nobody else includes it. README.md describes
// the files and the protocol.
#ifndef LATHE_JOB_SHIM_OWN_H
#define LATHE_JOB_SHIM_OWN_H
#include "job/executor.h"
#include "os/file.h"
#include "os/stream.h"

enum { SHIM_VERSION = 1, SHIM_LINE_MAX = 16 << 10 };
enum { LOG_MAX_DEFAULT = 8 << 20, GRACE_MS_DEFAULT = 60000, TERM_GRACE_MS = 10000 };
#define FILE_RECORD ".record" // what was submitted; its presence makes the child known
#define FILE_STATE ".state"   // what became of it
#define FILE_LOCK ".lock"     // held by the living shim
#define FILE_SOCKET ".sock"
#define FILE_LOG ".log."       // then 16 hex digits: the offset of its first byte
#define COOKIE "LATHE_HANDLE=" // in the environment of the child and all that it starts

typedef struct ShimState {
    ChildState state;
    int64_t pid, ticks; // of the child: ticks tell it from a later one with the same number
    int64_t started_ms, ended_ms, exit_code, exit_signal;
    str reason;
} ShimState;
void shim_state_format(const ShimState *s, Buf *out); // one line of JSON
err shim_state_parse(Ctx *c, str json, ShimState *out);
// Atomic and durable; on a full disk in place, in the space that the file has already.
err shim_state_write(Ctx *c, str path, const ShimState *s);
str shim_file(Ctx *c, const char *run_dir, str handle, const char *suffix);

typedef struct ShimLog { // zeroed, then run_dir, handle and max
    const char *run_dir;
    str handle;
    int64_t max;
    File *f;
    int64_t start, size; // of the newer file; start counts all bytes ever
    int64_t older;       // where the other one starts; -1: there is none
} ShimLog;
void shim_log_write(Ctx *c, ShimLog *l, str bytes); // what a full disk does not take is lost
void shim_log_close(ShimLog *l);
err shim_log_read(Ctx *c, const char *run_dir, str handle, int64_t offset, size_t max,
                  ChildLog *out);

// A cgroup for the child in which it may use so much memory: its folder, absent where there is none
// to be had. What the rest does with an absent one is nothing.
str cgroup_make(Ctx *c, Arena *mem, str handle, int64_t memory_max_bytes, int64_t pid);
void cgroup_kill(Ctx *c, str dir);
bool cgroup_ran_out(Ctx *c, str dir); // the kernel has killed in it for want of memory
void cgroup_remove(Ctx *c, str dir);

// Signals the child and everything it started, also what left its group, session or parent.
// How many living processes that were. Simulated: the child only.
size_t family_signal(Ctx *c, str handle, int64_t pid, int64_t ticks, int signal);
#endif
