// SPDX-License-Identifier: Apache-2.0
// inject.c - the runner: each scenario without a fault first, then once for each call (or
// allocation) and each way in which it can fail, in a process and a folder of its own. What a run
// must do: end in time, by itself, with all its checks held and no more descriptors open than
// without a fault; under AddressSanitizer also without a leak. Only an allocation may end
// it, with its message; then what RECOVER says must hold. README.md has the use.
// Owner: one process. Threads: one.
#include "inject.h"
#include "fault.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern int __lsan_do_recoverable_leak_check(void) __attribute__((weak));

enum { LIMIT_MS = 60000, POINTS_MAX = 1000000, SAID_MAX = 16 << 10, FAILURES_SHOWN = 12 };

static Scenario *first, **last = &first;
static char folder[256]; // of the run under way
static int most;         // runs of one scenario and one kind of fault; 0: all of them
static const char *only; // "call", "memory" or a library; NULL: all
static long only_at, only_way = -1;
static int passed_n, failed_n;
static long runs_n, deaths_n;
static long files_most; // descriptors that a run without a fault leaves open; 0: not known yet

void inject_add(Scenario *s) {
    *last = s;
    last = &s->next;
}

// --- for scenarios

void inject_on(void) { fault_plan->on = true; }
void inject_off(void) {
    fault_plan->on = false;
    fault_plan->lasting = 0;
}
const char *inject_dir(void) {
    static char dir[300];
    snprintf(dir, sizeof dir, "%s/kept", folder);
    return dir;
}
void inject_promise(size_t i, int n) { fault_plan->promised[i < PROMISES ? i : 0] = n; }
int inject_promised(size_t i) { return fault_plan->promised[i < PROMISES ? i : 0]; }

Ctx *inject_ctx(void) {
    Ctx *c = test_ctx();
    c->os = os_real();
    return c;
}

bool inject_tolerable(Ctx *c, err e) {
    if (!e) return true;
    Buf b;
    buf_init(&b, 4096);
    bool good = c->failure.why && fault_plan->struck;
    if (good) failure_format(&c->failure, "en", &b);
    good = good && b.n > 10 && c->failure.code == e;
    buf_done(&b);
    return good;
}

bool inject_again(int *tries) {
    poll(NULL, 0, 10);
    return ++*tries < test_longer(1000);
}

// --- one run

typedef struct Run {
    const Scenario *s;
    void (*body)(void); // the scenario's, or its RECOVER
    bool dead;          // it ended at an allocation, with its message
    char why[64];       // "": nothing is wrong
    char said[SAID_MAX];
} Run;

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *at) {
    (void)st, (void)type, (void)at;
    return remove(path);
}

static void folder_make(void) {
    const char *tmp = getenv("TMPDIR"); // in memory when nobody says where: syncs are not the point
    if (!tmp || !*tmp) tmp = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(folder, sizeof folder, "%s/lathe-inject-XXXXXX", tmp);
    if (!mkdtemp(folder) || mkdir(inject_dir(), 0755) < 0) {
        perror("cannot make a folder for a run");
        exit(2);
    }
}

static void folder_remove(void) { nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS); }

static long open_files(void) {
    DIR *d = opendir("/proc/self/fd");
    long n = 0;
    while (d && readdir(d)) n++;
    if (d) closedir(d);
    return n;
}

static _Noreturn void run_here(const Run *r) {
    char path[300];
    setpgid(0, 0);
    setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
    snprintf(path, sizeof path, "%s/said", folder);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
    dup2(fd, 1), dup2(fd, 2);
    close(fd);
    setenv("TMPDIR", folder, 1);
    fault_here = true;
    Test t = r->s->test;
    t.run = r->body;
    bool good = test_run(&t);
    inject_off();
    fault_here = false;
    // Without a fault: how many stay. With one: more may only be on their way out.
    for (int i = 0; (fault_plan->files = open_files()) > fault_plan->files_most && i < 300; i++) {
        if (!fault_plan->files_most) break;
        poll(NULL, 0, 10);
    }
    bool leaks = good && __lsan_do_recoverable_leak_check && __lsan_do_recoverable_leak_check();
    fflush(NULL);
    _exit(good && !leaks ? 0 : 1);
}

static void read_said(Run *r) {
    char path[300];
    snprintf(path, sizeof path, "%s/said", folder);
    int fd = open(path, O_RDONLY);
    ssize_t n = fd < 0 ? 0 : pread(fd, r->said, SAID_MAX - 1, 0);
    r->said[n > 0 ? n : 0] = 0;
    if (fd >= 0) close(fd);
}

// 0: it ended in time.
static int wait_for(pid_t pid, int *out_status) {
    struct pollfd ended = { (int)syscall(SYS_pidfd_open, pid, 0), POLLIN, 0 };
    int rc = poll(&ended, 1, (int)test_longer(LIMIT_MS));
    close(ended.fd);
    if (rc == 0) kill(-pid, SIGABRT), kill(pid, SIGABRT);
    waitpid(pid, out_status, 0);
    kill(-pid, SIGKILL); // what it started
    return rc == 1 ? 0 : -1;
}

// A thread that the program cannot be without.
static bool at_threads(void) { return !strcmp(fault_plan->call, "pthread_create"); }

static void run_body(Run *r) {
    int status = 0;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) run_here(r);
    if (pid < 0) perror("fork"), exit(2);
    int late = wait_for(pid, &status);
    fault_plan->on = false;
    read_said(r);
    r->why[0] = 0;
    r->dead =
        fault_plan->struck && strstr(r->said, at_threads() ? "no thread for " : "out of memory: ");
    if (late) snprintf(r->why, sizeof r->why, "hangs");
    else if (r->dead) return;
    else if (WIFSIGNALED(status))
        snprintf(r->why, sizeof r->why, "ends by SIG%s", sigabbrev_np(WTERMSIG(status)));
    else if (status) snprintf(r->why, sizeof r->why, "does not hold");
}

static void plan_reset(FaultWhat what, const char *library, long at, int way) {
    memset(fault_plan, 0, sizeof *fault_plan);
    fault_plan->files_most = files_most;
    fault_plan->what = what, fault_plan->at = at, fault_plan->way = way;
    snprintf(fault_plan->library, sizeof fault_plan->library, "%s", library);
}

// The scenario, and after its death its RECOVER.
static void run_once(const Scenario *s, Run *r) {
    folder_make();
    *r = (Run){ .s = s, .body = s->test.run };
    run_body(r);
    runs_n++;
    deaths_n += r->dead;
    if (r->dead && s->recover && !*r->why) {
        atomic_bool struck = fault_plan->struck;
        fault_plan->at = 0;
        r->body = s->recover;
        fault_plan->struck = false;
        run_body(r);
        fault_plan->struck = struck;
    }
    folder_remove();
}

// --- all runs of a scenario

static void complain(const Scenario *s, const char *what, long at, int way, const Run *r) {
    printf("FAIL %s: %s: %s %ld, %s (%s): -w %s -n %ld:%d\n", s->test.name, r->why, what, at,
           fault_plan->call, fault_name(fault_plan->error), what, at, way);
    printf("%s\n", r->said);
}

static bool judge(FaultWhat what, Run *r) {
    long more = fault_plan->files - files_most;
    if (!*r->why && r->dead && what == FAULT_CALL && !at_threads())
        snprintf(r->why, sizeof r->why, "ends");
    if (!*r->why && !r->dead && more > 0)
        snprintf(r->why, sizeof r->why, "leaves %ld descriptors open", more);
    return !*r->why;
}

static bool run_kind(const Scenario *s, const char *name, FaultWhat what) {
    static Run r;
    const char *library = what == FAULT_LIBRARY ? name : "";
    files_most = 0;
    plan_reset(what, library, 0, 0);
    run_once(s, &r);
    files_most = fault_plan->files;
    long points = fault_plan->seen, bad = 0, before = runs_n, n = 0;
    if (*r.why) {
        printf("FAIL %s: %s without a fault\n%s\n", s->test.name, r.why, r.said);
        failed_n++;
        return false;
    }
    if (!points) return true;
    long step = most && points > most ? (points + most - 1) / most : 1;
    for (long at = only_at ? only_at : 1; at < POINTS_MAX; at += step, n++) {
        int ways = 1;
        for (int way = only_way >= 0 ? (int)only_way
                       : most        ? (int)n
                                     : 0,
                 i = 0;
             i < ways; way++, i++) {
            plan_reset(what, library, at, way);
            run_once(s, &r);
            if (!fault_plan->struck && !*r.why) break;
            if (!judge(what, &r) && bad++ < FAILURES_SHOWN) complain(s, name, at, way, &r);
            if (!most && only_way < 0 && !r.dead) ways = fault_plan->ways;
        }
        if (!fault_plan->struck || only_at) break;
    }
    printf("%s %s: %s: %ld points, %ld runs, %ld failed\n", bad ? "FAIL" : "ok", s->test.name, name,
           points, runs_n - before, bad);
    bad ? failed_n++ : passed_n++;
    return true;
}

static void run_scenario(const Scenario *s) {
    static const char *const libraries[] = { "libsqlite3", "libevent", "libcrypto", "libssl",
                                             "libcurl",    "libyaml",  "libpq" };
    bool good = true;
    if (!only || !strcmp(only, "call")) good = run_kind(s, "call", FAULT_CALL);
    if (good && s->recover && (!only || !strcmp(only, "memory")))
        good = run_kind(s, "memory", FAULT_MEMORY);
    for (size_t i = 0; good && i < sizeof libraries / sizeof *libraries; i++)
        if (!only || !strcmp(only, libraries[i])) good = run_kind(s, libraries[i], FAULT_LIBRARY);
}

// --- the program

static int usage(void) {
    fputs("usage: lathe-inject [-l] [-m MOST] [-w call|memory|LIBRARY] [-n POINT[:WAY]] [PATTERN…]"
          "\n",
          stderr);
    return 2;
}

static bool wanted(const Scenario *s, char **patterns) {
    if (!*patterns) return true;
    for (; *patterns; patterns++)
        if (strstr(s->test.name, *patterns) || !fnmatch(*patterns, s->test.name, 0)) return true;
    return false;
}

int main(int argc, char **argv) {
    bool list = false;
    for (int o; (o = getopt(argc, argv, "lm:w:n:")) != -1;) {
        if (o == 'l') list = true;
        else if (o == 'm') most = (int)strtol(optarg, NULL, 10);
        else if (o == 'w') only = optarg;
        else if (o != 'n' || sscanf(optarg, "%ld:%ld", &only_at, &only_way) < 1) return usage();
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    fault_start();
    for (const Scenario *s = first; s; s = s->next) {
        if (!wanted(s, argv + optind)) continue;
        if (list) puts(s->test.name);
        else run_scenario(s);
    }
    if (list) return 0;
    printf("%ld runs, %ld ended at an allocation\n%d passed, %d failed\n", runs_n, deaths_n,
           passed_n, failed_n);
    return failed_n || !passed_n;
}
