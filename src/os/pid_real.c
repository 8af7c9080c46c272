// SPDX-License-Identifier: Apache-2.0
// pid_real.c - other processes by pid and start time (proc(5)). Threads: any.
#include "os/real.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef struct Stat {
    char state;
    unsigned flags; // PF_EXITING: it gives back what it holds
    int64_t cpu_ticks, start_ticks;
} Stat;

// Fields after the name, which may hold blanks and brackets itself: from the last ')' on.
static bool read_stat(int64_t pid, Stat *out) {
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
    ssize_t n = pid > 0 ? real_read_small(path, text, sizeof text) : -1;
    const char *at = n > 0 ? strrchr(text, ')') : NULL;
    if (!at) return false;
    unsigned long long user, kernel, start;
    int got = sscanf(at + 1,
                     " %c %*d %*d %*d %*d %*d %u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %*d"
                     " %*d %llu",
                     &out->state, &out->flags, &user, &kernel, &start);
    out->cpu_ticks = (int64_t)(user + kernel);
    out->start_ticks = (int64_t)start;
    return got == 5 && out->state != 'Z' && out->state != 'X';
}

int64_t real_pid_start_ticks(Os *os, int64_t pid) {
    (void)os;
    Stat s;
    return read_stat(pid, &s) ? s.start_ticks : 0;
}

// Whoever sent SIGKILL left it on the whole process until it is reaped, and a thread takes its own
// copy off before PF_EXITING stands: the signals are read first, so that no moment is missed.
bool real_pid_ending(Os *os, int64_t pid) {
    enum { EXITING = 4 };
    (void)os;
    Stat s;
    char path[64], text[4096];
    snprintf(path, sizeof path, "/proc/%lld/status", (long long)pid);
    if (pid <= 0 || real_read_small(path, text, sizeof text) <= 0) return true;
    unsigned long long pending = 0;
    static const char *const masks[] = { "\nSigPnd:", "\nShdPnd:" };
    for (int i = 0; i < 2; i++) {
        const char *at = strstr(text, masks[i]);
        if (at) pending |= strtoull(at + strlen(masks[i]), NULL, 16);
    }
    return pending >> (SIGKILL - 1) & 1 || !read_stat(pid, &s) || s.flags & EXITING;
}

// The pidfd first, then the check: what the pidfd means cannot change any more.
bool real_pid_signal(Os *os, int64_t pid, int64_t start_ticks, int signal) {
    if (pid <= 0) return false;
    int fd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
    if (fd < 0) return false;
    bool same = real_pid_start_ticks(os, pid) == start_ticks && start_ticks;
    bool sent = same && syscall(SYS_pidfd_send_signal, fd, signal, NULL, 0) == 0;
    close(fd);
    return sent;
}

int64_t real_pid_memory_bytes(Os *os, int64_t pid) {
    (void)os;
    char path[64], text[256];
    snprintf(path, sizeof path, "/proc/%lld/statm", (long long)pid);
    long long resident = 0;
    if (pid <= 0 || real_read_small(path, text, sizeof text) <= 0) return 0;
    if (sscanf(text, "%*d %lld", &resident) != 1) return 0;
    return (int64_t)resident * sysconf(_SC_PAGESIZE);
}

int64_t real_pid_cpu_ms(Os *os, int64_t pid) {
    (void)os;
    Stat s;
    return read_stat(pid, &s) ? s.cpu_ticks * 1000 / sysconf(_SC_CLK_TCK) : 0;
}
