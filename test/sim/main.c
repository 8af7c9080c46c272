// SPDX-License-Identifier: Apache-2.0
// main.c - lathe-sim [--seeds N] [--first S] [--verbose]: runs N seeds, each in a process of its
// own, and says of each that failed what did not hold and how to see it again.
#include "sim_run.h"
#include "os/sim_pthread.h"
#include <execinfo.h>
#include <libgen.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct Sum {
    long long operations, faults, starts, virtual_ms, digest;
} Sum;

static const char *kept; // where a failed world's files go
static volatile sig_atomic_t looked;

// Which program died where; its libraries are memory that a debugger may not find.
static void on_crash(int sig) {
    void *frames[40];
    backtrace_symbols_fd(frames, backtrace(frames, 40), STDOUT_FILENO);
    signal(sig, SIG_DFL);
    raise(sig);
}

// Where a thread stands that waits.
static void on_look(int sig) {
    char name[20] = "";
    void *frames[24];
    pthread_getname_np(pthread_self(), name, sizeof name);
    dprintf(STDERR_FILENO, "---- %s\n", name);
    int n = backtrace(frames, 24);
    if (n > 6) backtrace_symbols_fd(frames + 4, n - 6, STDERR_FILENO);
    (void)sig;
    looked = 1;
}
static void look(pthread_t thread) {
    looked = 0;
    if (pthread_kill(thread, SIGUSR1)) return;
    while (!looked) sched_yield();
}

static int run_one(uint64_t seed, const char *dir, bool verbose, int out) {
    static World w;
    static const int ends[] = { SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL };
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) signal(ends[i], on_crash);
    if (!verbose && !freopen("/dev/null", "w", stderr)) return 2;
    signal(SIGUSR1, on_look);
    bool good = world_run(seed, dir, &w);
    if (!good && verbose) sim_threads_each(w.sim, look);
    if (!good && kept) world_keep(&w, kept);
    Sum sum = { w.operations, w.faults + w.deaths, w.starts,
                os_mono_ns(sim_node(w.sim, NODE_CLIENT)) / 1000000, (long long)sim_digest(w.sim) };
    if (write(out, &sum, sizeof sum) != sizeof sum) return 2;
    if (!good) {
        printf("FAIL seed %llu: %s\n", (unsigned long long)seed, w.why);
        fflush(stdout);
    }
    _exit(good ? 0 : 1); // threads of dead lives stand still: nothing is taken down
}

int main(int argc, char **argv) {
    unsigned long long seeds = 1, first = 1;
    bool verbose = false;
    char dir[4096];
    ssize_t n = readlink("/proc/self/exe", dir, sizeof dir - 1);
    if (n <= 0) return 2;
    dir[n] = 0;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--seeds") && i + 1 < argc) seeds = strtoull(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "--first") && i + 1 < argc) first = strtoull(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "--keep") && i + 1 < argc) kept = argv[++i];
        else if (!strcmp(argv[i], "--verbose")) verbose = true;
    }
    unsigned long long passed = 0, failed = 0;
    Sum all = { 0 };
    for (unsigned long long s = first; s < first + seeds; s++) {
        int pipe_fds[2], status;
        Sum one = { 0 };
        if (pipe(pipe_fds)) return 2;
        fflush(stdout);
        pid_t pid = fork();
        if (!pid) _exit(run_one(s, dirname(dir), verbose, pipe_fds[1]));
        close(pipe_fds[1]);
        bool told = read(pipe_fds[0], &one, sizeof one) == sizeof one;
        close(pipe_fds[0]);
        waitpid(pid, &status, 0);
        if (WIFSIGNALED(status)) printf("FAIL seed %llu: signal %d\n", s, WTERMSIG(status));
        bool good = told && WIFEXITED(status) && !WEXITSTATUS(status);
        good ? passed++ : failed++;
        if (verbose || !good)
            printf("seed %llu: %lld operations, %lld faults, %lld starts, %lld s of its own time, "
                   "digest %llx\n",
                   s, one.operations, one.faults, one.starts, one.virtual_ms / 1000, one.digest);
        all.operations += one.operations, all.faults += one.faults;
        all.starts += one.starts, all.virtual_ms += one.virtual_ms;
    }
    printf("%lld operations, %lld faults, %lld starts, %lld s of their own time\n", all.operations,
           all.faults, all.starts, all.virtual_ms / 1000);
    printf("%llu passed, %llu failed\n", passed, failed);
    return failed != 0;
}
