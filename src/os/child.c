// SPDX-License-Identifier: Apache-2.0
// child.c - what a child does between fork and exec. Other threads of the parent may have held any
// lock when it was copied: nothing here but async-signal-safe calls (signal-safety(7)) and prctl,
// setrlimit, close_range, which are bare system calls. Threads: the child's only one.
#include "os/real.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { CPU_GRACE_S = 5 }; // SIGXCPU first, then SIGKILL

static bool limit(int what, int64_t soft, int64_t hard) {
    if (soft <= 0) return true;
    struct rlimit l = { (rlim_t)soft, (rlim_t)hard };
    return setrlimit(what, &l) == 0;
}

static int stdio_fd(int fd, bool read) {
    if (fd < 0) fd = open("/dev/null", read ? O_RDONLY | O_CLOEXEC : O_WRONLY | O_CLOEXEC);
    return fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3); // out of the way of 0, 1 and 2
}

static bool set_stdio(const ProcessSpec *spec) {
    int fds[3] = { stdio_fd(spec->in_fd, true), stdio_fd(spec->out_fd, false),
                   stdio_fd(spec->err_fd, false) };
    for (int i = 0; i < 3; i++)
        if (fds[i] < 0 || dup2(fds[i], i) < 0) return false;
    // Ours are all close-on-exec; what a library opened without it must not leak either.
    syscall(SYS_close_range, 3u, ~0u, CLOSE_RANGE_CLOEXEC);
    return true;
}

// Ignored signals and the mask survive exec: the program shall find the usual ones.
static void plain_signals(void) {
    for (int s = 1; s < NSIG; s++) {
        if (s == SIGKILL || s == SIGSTOP) continue;
        struct sigaction plain = { .sa_handler = SIG_DFL };
        sigaction(s, &plain, NULL);
    }
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static int tie_to_parent(int64_t parent_pid) {
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) return errno;
    return getppid() == parent_pid ? 0 : ESRCH; // it died before the tie was made
}

int real_child_exec(const ProcessSpec *spec, const char *const *env, int64_t parent_pid) {
    plain_signals();
    if (spec->detached && setsid() < 0) return errno;
    if (!spec->detached) {
        int e = tie_to_parent(parent_pid);
        if (e) return e;
    }
    if (!set_stdio(spec)) return errno;
    if (spec->cwd && chdir(spec->cwd) < 0) return errno;
    real_files_limit_restore();
    bool limited = limit(RLIMIT_AS, spec->memory_max_bytes, spec->memory_max_bytes)
                   && limit(RLIMIT_FSIZE, spec->file_max_bytes, spec->file_max_bytes)
                   && limit(RLIMIT_CPU, spec->cpu_max_s, spec->cpu_max_s + CPU_GRACE_S);
    if (!limited) return errno;
    if (spec->no_network || spec->no_new_files) {
        int e = real_sandbox_enter(spec->no_network, spec->no_new_files);
        if (e) return e;
    }
    execve(spec->argv[0], (char *const *)spec->argv, (char *const *)env);
    return errno;
}
