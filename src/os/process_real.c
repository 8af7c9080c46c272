// SPDX-License-Identifier: Apache-2.0
// process_real.c - children of the machine, each behind a pidfd: its exit is an event of the loop
// and a signal can never hit a recycled pid. Forking is children.c, the stage before exec child.c.
// Owner: process_start's caller. Threads: process.h.
#include "os/loop_impl.h"
#include "os/real.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LOOK_MS = 100 };

typedef struct RealProcess {
    Process head;
    int64_t pid;
    int pidfd; // -1: reaped
    bool detached;
    Loop *loop;
    Watch watch; // of pidfd
    Timer again; // while it cannot be watched, it is looked at
    ProcessExited exited;
    void *arg;
} RealProcess;

// False: it still runs. The figures are of the child and of those that it has waited for.
static bool reap(RealProcess *p, ProcessExit *out) {
    int status;
    struct rusage used;
    pid_t got;
    do got = wait4((pid_t)p->pid, &status, WNOHANG, &used);
    while (got < 0 && errno == EINTR);
    if (got == 0) return false;
    assert(got == (pid_t)p->pid); // nobody else waits for our children
    int64_t us = (int64_t)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000
                 + used.ru_utime.tv_usec + used.ru_stime.tv_usec;
    *out = (ProcessExit){
        .code = WIFEXITED(status) ? WEXITSTATUS(status) : 0,
        .signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0,
        .cpu_ms = us / 1000,
        .memory_peak_bytes = (int64_t)used.ru_maxrss * 1024,
    };
    if (p->loop) real_watch_del(p->loop, &p->watch);
    close(p->pidfd);
    p->pidfd = -1;
    return true;
}

static void on_exit_event(void *arg, unsigned events) {
    (void)events;
    RealProcess *p = arg;
    ProcessExit how;
    if (reap(p, &how)) p->exited(p->arg, &how); // may free p
}

static void watch(void *arg) {
    RealProcess *p = arg;
    p->watch = (Watch){ .fd = p->pidfd, .fn = on_exit_event, .arg = p };
    if (real_watch_add(p->loop, &p->watch, EPOLLIN)) timer_start(&p->again, LOOK_MS);
}

static void look_again(void *arg) {
    RealProcess *p = arg;
    ProcessExit how;
    if (reap(p, &how)) p->exited(p->arg, &how); // may free p
    else watch(p);
}

static err wait_for(Ctx *c, Process *head, int64_t timeout_ms, ProcessExit *out) {
    RealProcess *p = (RealProcess *)head;
    assert(!p->loop && p->pidfd >= 0);
    int64_t until = timeout_ms < 0 ? -1 : os_mono_ns(c->os) / 1000000 + timeout_ms;
    for (;;) {
        if (reap(p, out)) return ERR_OK;
        int64_t left = until < 0 ? -1 : until - os_mono_ns(c->os) / 1000000;
        if (until >= 0 && left <= 0) return fail(c, ERR_TIMEOUT, R_DEADLINE);
        struct pollfd ended = { p->pidfd, POLLIN, 0 };
        int rc = poll(&ended, 1, left > 60000 ? 60000 : (int)left);
        if (rc < 0 && errno != EINTR) return os_fail(c, errno, "wait for", S("a child"));
    }
}

static int64_t pid_of(const Process *head) { return ((const RealProcess *)head)->pid; }

static void send_signal(Process *head, int signal) {
    RealProcess *p = (RealProcess *)head;
    if (p->pidfd < 0) return; // it is gone, its number may be another's
    if (p->detached) kill(-(pid_t)p->pid, signal);
    else syscall(SYS_pidfd_send_signal, p->pidfd, signal, NULL, 0);
}

static void free_process(Process *head) {
    RealProcess *p = (RealProcess *)head;
    if (p->loop) real_watch_del(p->loop, &p->watch);
    if (p->pidfd >= 0) real_children_forget(p->pid, p->pidfd);
    mem_free(p);
}

static void free_late(void *arg) { free_process(arg); }

// On another thread than the loop's, watch may still be posted: leave after it.
static void forget(Process *head) {
    RealProcess *p = (RealProcess *)head;
    assert(!p->loop || loop_is_mine(p->loop));
    if (p->loop) timer_done(&p->again);
    if (p->loop && p->pidfd >= 0 && !p->watch.on) loop_post(p->loop, free_late, p);
    else free_process(head);
}

static const ProcessOps process_ops = { wait_for, pid_of, send_signal, forget };

// A child's environment when the caller gives none: what a program cannot do without, no secrets.
static const char *const *plain_env(Ctx *c) {
    static const char *const names[] = { "PATH", "HOME", "LANG", "TMPDIR" };
    const char **env = new (c->mem, const char *, countof(names) + 1);
    size_t n = 0;
    for (size_t i = 0; i < countof(names); i++) {
        const char *value = getenv(names[i]);
        if (value) env[n++] = arena_printf(c->mem, "%s=%s", names[i], value).p;
    }
    return env;
}

err real_process_start(Ctx *c, const ProcessSpec *spec, Loop *l, ProcessExited exited, void *arg,
                       Process **out) {
    const char *const *env = spec->env ? spec->env : plain_env(c);
    int pidfd = -1;
    int64_t pid = real_children_start(spec, env, &pidfd);
    if (pid < 0) return os_fail(c, (int)-pid, "start", str_z(spec->argv[0]));
    RealProcess *p = mem_new(sizeof *p);
    p->head.ops = &process_ops;
    p->pid = pid;
    p->pidfd = pidfd;
    p->detached = spec->detached;
    p->loop = l;
    p->exited = exited;
    p->arg = arg;
    if (l) timer_init(&p->again, l, look_again, p);
    *out = &p->head;
    if (l && loop_is_mine(l)) watch(p);
    else if (l) loop_post(l, watch, p);
    return ERR_OK;
}

err real_pipe_make(Ctx *c, int out_read_write[2]) {
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0) return os_fail(c, errno, "open", S("a pipe"));
    int flags = fcntl(fds[0], F_GETFL);
    if (fcntl(fds[0], F_SETFL, flags | O_NONBLOCK) < 0) {
        int e = errno;
        close(fds[0]);
        close(fds[1]);
        return os_fail(c, e, "open", S("a pipe"));
    }
    out_read_write[0] = fds[0];
    out_read_write[1] = fds[1];
    return ERR_OK;
}

void real_pipe_close(Os *os, int fd) { (void)os, close(fd); }
