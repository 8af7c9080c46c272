// SPDX-License-Identifier: Apache-2.0
// real.h - private to the real machine: its parts, joined in real.c.
#ifndef LATHE_OS_REAL_H
#define LATHE_OS_REAL_H
#include "os/os_impl.h"
#include <sys/epoll.h>
#include <sys/socket.h>

void real_facts(Os *os, OsFacts *out);
void real_usage(Os *os, OsUsage *out);
void real_files_limit_restore(void); // in a child before exec: async-signal-safe
// Reads a small file of /proc or /sys into out, NUL-terminated; its bytes, or -1. EINTR is retried.
ssize_t real_read_small(const char *path, char *out, size_t size);

err real_file_open(Ctx *c, str path, unsigned flags, File **out);
err real_path_rename(Ctx *c, str from, str to);
err real_path_remove(Ctx *c, str path);
err real_path_remove_tree(Ctx *c, str dir);
err real_path_info(Ctx *c, str path, PathInfo *out);
err real_dir_make(Ctx *c, str path, unsigned mode);
err real_dir_list(Ctx *c, str path, str **out_names, size_t *out_n);
err real_dir_sync(Ctx *c, str path);
err real_disk_free(Ctx *c, str path, int64_t *out_bytes);
err real_disk_size(Ctx *c, str path, int64_t *out_bytes);

Loop *real_loop_new(Os *os);
// A descriptor that a loop watches, on its thread. events are epoll's; fn gets what epoll said.
typedef struct Watch {
    int fd;
    bool on;
    void (*fn)(void *arg, unsigned events);
    void *arg;
} Watch;
int real_watch_add(Loop *l, Watch *w, unsigned events); // 0, or errno: memory, or a limit
void real_watch_set(Loop *l, Watch *w, unsigned events);
void real_watch_del(Loop *l, Watch *w); // before fd is closed; fine when it is not watched
bool real_can_start(Os *os);
void real_pause(Os *os, int64_t ns);
int real_thread_start(Os *os, const char *name, void (*fn)(void *), void *arg, Thread *out);
// Over thread.h and pthread's waiting calls only: simulated threads use it too.
Pool *real_pool_new(Os *os, const char *name, int threads, size_t queue_max);

Stream *real_stream_connect(Loop *l, const Addr *to);
Stream *real_stream_adopt(Loop *l, int fd);
Stream *real_stream_accepted(Loop *l, int fd, const struct sockaddr_storage *from);
err real_listener_open(Ctx *c, const ListenSpec *spec, Listener **out);
err real_resolve(Ctx *c, str host, int port, Addr *out, size_t max, size_t *out_n);
void real_socket_options(int fd, int family); // TCP_NODELAY, keep-alive

err real_process_start(Ctx *c, const ProcessSpec *spec, Loop *l, ProcessExited exited, void *arg,
                       Process **out);
// The child stage, after fork: only async-signal-safe calls. Returns only when exec failed: errno.
int real_child_exec(const ProcessSpec *spec, const char *const *env, int64_t parent_pid);
// Forks and reaps on one thread that never ends: PR_SET_PDEATHSIG means the parent's thread.
// start: the child's pid, or -errno; *out_pidfd is close-on-exec.
int64_t real_children_start(const ProcessSpec *spec, const char *const *env, int *out_pidfd);
void real_children_forget(int64_t pid, int pidfd); // reaps it when it ends; takes over pidfd
const char *real_sandbox_name(Os *os);
int real_sandbox_enter(bool no_network, bool no_new_files); // 0 or errno; async-signal-safe
int64_t real_pid_start_ticks(Os *os, int64_t pid);
bool real_pid_ending(Os *os, int64_t pid);
bool real_pid_signal(Os *os, int64_t pid, int64_t start_ticks, int signal);
int64_t real_pid_memory_bytes(Os *os, int64_t pid);
int64_t real_pid_cpu_ms(Os *os, int64_t pid);
err real_pipe_make(Ctx *c, int out_read_write[2]);
void real_pipe_close(Os *os, int fd);
#endif
