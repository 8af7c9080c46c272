// SPDX-License-Identifier: Apache-2.0
// os.h - every source of surprise: clock, random, files, sockets, threads, processes. Two
// implementations stand behind one handle: the real machine, and a simulated one where a seed
// replays a history (sim.h). Nothing above os/ makes a system call of its own.
// Threads: an Os may be used from any thread.
#ifndef LATHE_OS_OS_H
#define LATHE_OS_OS_H
#include "base/ctx.h"

typedef struct Os Os;

// The machine; one for the whole program, never freed. The first call ignores SIGPIPE and raises
// the soft limit of open files to the hard one (children get both back as they were).
Os *os_real(void);
bool os_is_simulated(const Os *os);

int64_t os_wall_ms(Os *os);                  // Unix milliseconds; may jump
int64_t os_wall_ns(Os *os);                  // the same clock, finer
int64_t os_mono_ns(Os *os);                  // never goes back
int64_t os_cpu_ns(Os *os);                   // processor time of this thread (simulated: monotonic)
void os_random(Os *os, void *out, size_t n); // cryptographic on the real machine
str os_id(Ctx *c, const char *prefix);       // base/id.h, from this clock and random; in c->mem
const char *os_env(Os *os, const char *name); // NULL when unset
const char *const *os_environment(Os *os);    // all of it, "NAME=value" each; NULL ends

// Ctx whose deadline has passed or that was cancelled: ERR_TIMEOUT or ERR_CANCELLED. Long work
// calls it.
err ctx_check(Ctx *c);

// Facts of the machine, for admission and doctor. Zero where unknown.
typedef struct OsFacts {
    int64_t memory_bytes, memory_available_bytes; // the smaller of host and cgroup
    int cpus;                                     // usable by this process
    int64_t open_files_max;
    char cpu_model[64], cpu_flags[512]; // flags: those that inference cares for, space separated
    char boot[40]; // differs after each start of the machine (not of a container)
} OsFacts;
void os_facts(Os *os, OsFacts *out);

// What this process and its machine use, for metrics. Zero where unknown. Cheap: a few small files.
typedef enum {
    OS_CPU_USER,
    OS_CPU_NICE,
    OS_CPU_SYSTEM,
    OS_CPU_IDLE,
    OS_CPU_IOWAIT,
    OS_CPU_INTERRUPT,
    OS_CPU_STEAL,
    OS_CPU__COUNT
} OsCpuMode;
typedef struct OsUsage {
    int64_t started_ms;                  // this process: Unix milliseconds
    int64_t cpu_us;                      // of all its threads, user and kernel
    int64_t memory_bytes, virtual_bytes; // resident; mapped
    int64_t open_files, threads;
    int64_t host_cpu_ms[OS_CPU__COUNT]; // since the machine's start, of all processors
} OsUsage;
void os_usage(Os *os, OsUsage *out);

// What the kernel said, as a code and a reason (R_OS: "{what} {path}: {why}"): ENOENT is NOTFOUND,
// ENOSPC and EDQUOT are FULL, EACCES is DENIED, EEXIST is CONFLICT, … `what` is a verb: "open".
err os_fail(Ctx *c, int errno_value, const char *what, str path);

// clang-format off
#define OS_REASONS(X)                                                                             \
    X(OS, "os_error", "cannot {what} {path}: {why}", "无法{what} {path}：{why}")                  \
    X(DISK_FULL, "disk_full", "no space left while writing {path}", "写入 {path} 时磁盘已满")     \
    X(LOCKED, "locked", "{path} is in use by process {pid}", "{path} 正被进程 {pid} 使用")        \
    X(ADDRESS, "bad_address", "{address} is not HOST:PORT or unix:PATH",                          \
      "{address} 不是 HOST:PORT 或 unix:PATH")                                                    \
    X(CONNECT, "connect_failed", "cannot connect to {address}: {why}", "无法连接 {address}：{why}")
// clang-format on
REASONS_DECLARE(OS_REASONS)
extern const Reason *const os_reasons[];
#endif
