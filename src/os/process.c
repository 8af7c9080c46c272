// SPDX-License-Identifier: Apache-2.0
// process.c - the front of children and of other processes' figures. The machine's are
// process_real.c and pid_real.c, the simulated ones sim_process.c. Threads: process.h.
#include "os/os_impl.h"
#include <assert.h>

err process_start(Ctx *c, const ProcessSpec *spec, Loop *l, ProcessExited exited, void *arg,
                  Process **out) {
    assert(spec->argv && spec->argv[0] && (!l || exited));
    assert(spec->memory_max_bytes >= 0 && spec->file_max_bytes >= 0 && spec->cpu_max_s >= 0);
    return c->os->ops->process_start(c, spec, l, exited, arg, out);
}

err process_wait(Ctx *c, Process *p, int64_t timeout_ms, ProcessExit *out) {
    return p->ops->wait(c, p, timeout_ms, out);
}

int64_t process_pid(const Process *p) { return p->ops->pid(p); }
void process_signal(Process *p, int signal) { p->ops->signal(p, signal); }

void process_free(Process *p) {
    if (p) p->ops->free(p);
}

const char *process_sandbox_name(Os *os) { return os->ops->sandbox_name(os); }
int64_t pid_start_ticks(Os *os, int64_t pid) { return os->ops->pid_start_ticks(os, pid); }
bool pid_ending(Os *os, int64_t pid) { return os->ops->pid_ending(os, pid); }
int64_t pid_memory_bytes(Os *os, int64_t pid) { return os->ops->pid_memory_bytes(os, pid); }
int64_t pid_cpu_ms(Os *os, int64_t pid) { return os->ops->pid_cpu_ms(os, pid); }
err pipe_make(Ctx *c, int out_read_write[2]) { return c->os->ops->pipe_make(c, out_read_write); }
void pipe_close(Os *os, int fd) { os->ops->pipe_close(os, fd); }

bool pid_signal(Os *os, int64_t pid, int64_t start_ticks, int signal) {
    return os->ops->pid_signal(os, pid, start_ticks, signal);
}
