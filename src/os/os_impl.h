// SPDX-License-Identifier: Apache-2.0
// os_impl.h - private to os/: what the real machine and the simulated one each provide. Every
// handle begins with its table of operations; the public functions check arguments and dispatch.
#ifndef LATHE_OS_IMPL_H
#define LATHE_OS_IMPL_H
#include "os/file.h"
#include "os/process.h"
#include "os/stream.h"
#include "os/thread.h"

typedef void (*ProcessExited)(void *arg, const ProcessExit *);

typedef struct OsOps {
    int64_t (*wall_ns)(Os *);
    int64_t (*mono_ns)(Os *);
    int64_t (*cpu_ns)(Os *);
    void (*random)(Os *, void *out, size_t n);
    const char *(*env)(Os *, const char *name);
    const char *const *(*environment)(Os *);
    void (*facts)(Os *, OsFacts *out);
    void (*usage)(Os *, OsUsage *out);
    str (*program)(Ctx *);

    err (*file_open)(Ctx *, str path, unsigned flags, File **out);
    err (*path_rename)(Ctx *, str from, str to);
    err (*path_remove)(Ctx *, str path);
    err (*path_remove_tree)(Ctx *, str dir);
    err (*path_info)(Ctx *, str path, PathInfo *out);
    err (*dir_make)(Ctx *, str path, unsigned mode);
    err (*dir_list)(Ctx *, str path, str **out_names, size_t *out_n); // in any order
    err (*dir_sync)(Ctx *, str path);
    err (*disk_free)(Ctx *, str path, int64_t *out_bytes);
    err (*disk_size)(Ctx *, str path, int64_t *out_bytes);

    bool (*can_start)(Os *); // threads
    void (*pause)(Os *, int64_t ns);
    // 0, or errno.
    int (*thread_start)(Os *, const char *name, void (*fn)(void *), void *arg, Thread *out);
    Loop *(*loop_new)(Os *); // NULL: errno says why
    Pool *(*pool_new)(Os *, const char *name, int threads, size_t queue_max);
    Stream *(*stream_connect)(Loop *, const Addr *to);
    Stream *(*stream_adopt)(Loop *, int fd);
    err (*listener_open)(Ctx *, const ListenSpec *, Listener **out);
    err (*resolve)(Ctx *, str host, int port, Addr *out, size_t max, size_t *out_n);

    err (*process_start)(Ctx *, const ProcessSpec *, Loop *, ProcessExited, void *arg,
                         Process **out);
    const char *(*sandbox_name)(Os *);
    int64_t (*pid_start_ticks)(Os *, int64_t pid);
    bool (*pid_ending)(Os *, int64_t pid);
    bool (*pid_signal)(Os *, int64_t pid, int64_t start_ticks, int signal);
    int64_t (*pid_memory_bytes)(Os *, int64_t pid);
    int64_t (*pid_cpu_ms)(Os *, int64_t pid);
    err (*pipe_make)(Ctx *, int out_read_write[2]);
    void (*pipe_close)(Os *, int fd);
} OsOps;
struct Os {
    const OsOps *ops;
};
extern const OsOps os_real_ops;

typedef struct FileOps {
    void (*close)(File *);
    err (*read_at)(Ctx *, File *, int64_t offset, void *out, size_t n, size_t *out_got);
    err (*write_at)(Ctx *, File *, int64_t offset, const void *p, size_t n);
    err (*sync)(Ctx *, File *);
    err (*allocate)(Ctx *, File *, int64_t size);
    err (*truncate)(Ctx *, File *, int64_t size);
    err (*size)(Ctx *, File *, int64_t *out);
    int64_t (*next_data)(File *, int64_t offset); // may say offset; -1: none, up to the end
    int (*fd)(File *);
    err (*lock)(Ctx *, File *);
    void (*share)(File *, FileShare *out); // these two simulated only
    void (*hold)(File *, bool on);
    void (*may_stall)(File *);
} FileOps;
struct File {
    const FileOps *ops;
    char *path; // for messages
};

typedef struct PoolOps {
    void (*stop)(Pool *);
    void (*free)(Pool *);
    bool (*submit)(Pool *, void (*fn)(void *), void *arg);
    size_t (*waiting)(Pool *);
    size_t (*running)(Pool *);
} PoolOps;
struct Pool {
    const PoolOps *ops;
};

typedef struct ProcessOps {
    err (*wait)(Ctx *, Process *, int64_t timeout_ms, ProcessExit *out);
    int64_t (*pid)(const Process *);
    void (*signal)(Process *, int signal);
    void (*free)(Process *);
} ProcessOps;
struct Process {
    const ProcessOps *ops;
};
#endif
