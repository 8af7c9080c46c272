// SPDX-License-Identifier: Apache-2.0
// main.c - lathe-sim [--seeds N] [--first S] [--rounds R] [--verbose]: runs N seeds, each in a
// process of its own, and says of each that failed what did not hold and how to see it again.
#include "sim_run.h"
#include "os/sim_pthread.h"
#include <execinfo.h>
#include <libgen.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct Sum {
    long long servers, operations, faults, starts, virtual_ms, digest;
} Sum;

static int rounds = 60;  // of each client
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

static Sum sum_of(const World *w) {
    Sum sum = { .servers = w->servers_n,
                .operations = w->operations,
                .faults = w->faults,
                .virtual_ms = os_mono_ns(sim_node(w->sim, NODE_CLIENT)) / 1000000,
                .digest = (long long)sim_digest(w->sim) };
    for (int i = 0; i < w->servers_n; i++)
        sum.faults += w->servers[i].deaths, sum.starts += w->servers[i].starts;
    return sum;
}

static int run_one(uint64_t seed, const char *dir, bool verbose, int out) {
    static World w;
    w.rounds = rounds;
    static const int ends[] = { SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL };
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) signal(ends[i], on_crash);
    if (!verbose && !freopen("/dev/null", "w", stderr)) return 2;
    signal(SIGUSR1, on_look);
    bool good = world_run(seed, dir, &w);
    if (!good && verbose) sim_threads_each(w.sim, look), children_say(&w);
    if (!good && kept) world_keep(&w, kept);
    Sum sum = sum_of(&w);
    if (write(out, &sum, sizeof sum) != sizeof sum) return 2;
    if (!good) {
        printf("FAIL seed %llu: %s\n", (unsigned long long)seed, w.why);
        fflush(stdout);
    }
    _exit(good ? 0 : 1); // threads of dead lives stand still: nothing is taken down
}

// ---- many

typedef struct Job {
    unsigned long long seed;
    pid_t pid; // 0: none
    int out;
} Job;
typedef struct Plan {
    unsigned long long seeds, first, next, passed, failed;
    bool verbose;
    const char *dir;
    cpu_set_t cpus;
    Sum all;
} Plan;

// One thread runs at a time: on one processor the next one starts soonest.
static void stay_on(const cpu_set_t *cpus, int nth) {
    cpu_set_t one;
    CPU_ZERO(&one);
    nth %= CPU_COUNT(cpus);
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, cpus) && !nth--) CPU_SET(i, &one);
    sched_setaffinity(0, sizeof one, &one);
}

static void start(Plan *p, Job *r, int nth) {
    int fds[2];
    if (pipe(fds)) exit(2);
    fflush(stdout);
    *r = (Job){ p->next++, fork(), fds[0] };
    if (!r->pid) {
        stay_on(&p->cpus, nth);
        setenv("SSL_CERT_FILE", "/dev/null", 1); // the machine's certificates: nobody asks for them
        setenv("SSL_CERT_DIR", "/dev/null", 1);
        mallopt(M_MMAP_THRESHOLD, 64 << 20); // what was given back is soon wanted again
        mallopt(M_TRIM_THRESHOLD, 256 << 20);
        _exit(run_one(r->seed, p->dir, p->verbose, fds[1]));
    }
    close(fds[1]);
    if (r->pid < 0) exit(2);
}

static void finish(Plan *p, Job *r, int status) {
    Sum one = { 0 };
    bool told = read(r->out, &one, sizeof one) == sizeof one;
    close(r->out);
    r->pid = 0;
    if (WIFSIGNALED(status)) printf("FAIL seed %llu: signal %d\n", r->seed, WTERMSIG(status));
    bool good = told && WIFEXITED(status) && !WEXITSTATUS(status);
    good ? p->passed++ : p->failed++;
    if (p->verbose || !good)
        printf("seed %llu: %lld servers, %lld operations, %lld faults, %lld starts, %lld s of its "
               "own time, "
               "digest %llx\n",
               r->seed, one.servers, one.operations, one.faults, one.starts, one.virtual_ms / 1000,
               one.digest);
    p->all.operations += one.operations, p->all.faults += one.faults;
    p->all.starts += one.starts, p->all.virtual_ms += one.virtual_ms;
}

static void run_all(Plan *p) {
    Job runs[CPU_SETSIZE] = { 0 };
    int jobs = p->verbose ? 1 : CPU_COUNT(&p->cpus), running = 0, status;
    for (;;) {
        for (int i = 0; i < jobs && p->next < p->first + p->seeds; i++)
            if (!runs[i].pid) start(p, &runs[i], i), running++;
        if (!running) return;
        pid_t pid = waitpid(-1, &status, 0);
        for (int i = 0; i < jobs; i++)
            if (runs[i].pid && runs[i].pid == pid) finish(p, &runs[i], status), running--;
    }
}

int main(int argc, char **argv) {
    char dir[4096];
    ssize_t n = readlink("/proc/self/exe", dir, sizeof dir - 1);
    if (n <= 0) return 2;
    dir[n] = 0;
    Plan p = { .seeds = 1, .first = 1, .dir = dirname(dir) };
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--seeds") && i + 1 < argc) p.seeds = strtoull(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "--first") && i + 1 < argc)
            p.first = strtoull(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "--rounds") && i + 1 < argc)
            rounds = (int)strtol(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "--keep") && i + 1 < argc) kept = argv[++i];
        else if (!strcmp(argv[i], "--verbose")) p.verbose = true;
    }
    p.next = p.first;
    if (sched_getaffinity(0, sizeof p.cpus, &p.cpus)) return 2;
    run_all(&p);
    printf("%lld operations, %lld faults, %lld starts, %lld s of their own time\n",
           p.all.operations, p.all.faults, p.all.starts, p.all.virtual_ms / 1000);
    printf("%llu passed, %llu failed\n", p.passed, p.failed);
    return p.failed != 0;
}
