// SPDX-License-Identifier: Apache-2.0
// process.h - children, started by exec and never by a bare fork. Signals and exits arrive on a
// loop; no zombie is left. A detached child is its own session leader and outlives this process
// (the job shim); others die with it (PR_SET_PDEATHSIG).
// Threads: process_start any; the rest of a Process that has a loop on that loop's thread.
#ifndef LATHE_OS_PROCESS_H
#define LATHE_OS_PROCESS_H
#include "os/loop.h"

typedef struct Process Process;
typedef struct ProcessSpec {
    const char *const *argv;   // argv[0] is the path; NULL-terminated
    const char *const *env;    // NAME=VALUE, NULL-terminated;
                               // NULL: PATH, HOME, LANG, TMPDIR of ours only
    const char *cwd;           // NULL: ours
    int in_fd, out_fd, err_fd; // -1: /dev/null; not closed here
    bool detached;
    int64_t memory_max_bytes, file_max_bytes; // rlimits RLIMIT_AS and RLIMIT_FSIZE; 0: ours
    int64_t cpu_max_s;                        // RLIMIT_CPU; 0: ours
    bool no_network, no_new_files;            // sandbox, where process_sandbox_name says so
} ProcessSpec;
typedef struct ProcessExit {
    int code, signal;                  // signal 0: exited with code
    int64_t cpu_ms, memory_peak_bytes; // peak: at least our own size when it was started
} ProcessExit;

// exited(arg, exit) comes once, on l, unless process_free came first; l NULL: use process_wait.
// A program that cannot be executed is an error here (ERR_NOTFOUND, ERR_DENIED), not an exit.
err process_start(Ctx *c, const ProcessSpec *spec, Loop *l,
                  void (*exited)(void *arg, const ProcessExit *), void *arg, Process **out);
// Blocking; ERR_TIMEOUT leaves it running; timeout_ms < 0: for ever.
err process_wait(Ctx *c, Process *p, int64_t timeout_ms, ProcessExit *out);
int64_t process_pid(const Process *p);
void process_signal(Process *p, int signal); // to the child's whole process group when detached
void process_free(Process *p);               // forgets it, does not end it; NULL is fine
// "seccomp" or "none". With none, no_network and no_new_files do nothing: say so to the operator.
// no_network: no new socket but socketpair, no connect, bind or listen. no_new_files: nothing is
// opened for writing, made, renamed or removed; open descriptors stay usable. Refused calls: EPERM.
const char *process_sandbox_name(Os *os);
// Processes that are not our children, by pid and start time, so that a recycled pid is never taken
// for them.
int64_t pid_start_ticks(Os *os, int64_t pid); // 0: there is none (a zombie counts as none)
bool pid_ending(Os *os, int64_t pid);         // gone, ending, or told to by SIGKILL
bool pid_signal(Os *os, int64_t pid, int64_t start_ticks, int signal); // false: gone
int64_t pid_memory_bytes(Os *os, int64_t pid);                         // resident; 0: gone
int64_t pid_cpu_ms(Os *os, int64_t pid);
str os_program(Ctx *c); // path of this very program, for children of the same binary
err pipe_make(Ctx *c, int out_read_write[2]); // close-on-exec, read end non-blocking
void pipe_close(Os *os, int fd);              // an end that no stream has adopted
#endif
