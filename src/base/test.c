// SPDX-License-Identifier: Apache-2.0
// test.c - the runner of units: one process, one test after the other, a time limit for each.
// It alone in base/ makes system calls (directories, clock, alarm): it is no part of the product.
// Owner: contexts and the directory of a test live until it ends. Threads: see test.h.
#include "test.h"
#include <fnmatch.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { TEST_LIMIT_S = 120, DIR_MAX = 512 };

static Test *first, **last = &first;
static const Test *current;
static atomic_bool failed;
static Arena *owned;      // contexts are freed by its cleanups
static char dir[DIR_MAX]; // "": none yet
static uint64_t seed;
static int passed_n, failed_n;

void test_add(Test *t) {
    *last = t;
    last = &t->next;
}

void test_failed(const char *file, int line, const char *what, ...) {
    Buf b; // one write a line: tests have threads
    va_list args;
    buf_init(&b, 64 << 10);
    buf_printf(&b, "FAIL %s: %s:%d: ", current ? current->name : "?", file, line);
    va_start(args, what);
    buf_vprintf(&b, what, args);
    va_end(args);
    puts(buf_z(&b));
    buf_done(&b);
    atomic_store(&failed, true);
}

static void free_arena(void *arena) { arena_free(arena); }

Ctx *test_ctx(void) {
    Arena *a = arena_new();
    Ctx *c = new (a, Ctx, 1);
    ctx_init(c, a, NULL);
    arena_defer(owned, free_arena, a);
    return c;
}

const char *test_dir(void) {
    if (*dir) return dir;
    const char *tmp = getenv("TMPDIR");
    int n = snprintf(dir, sizeof dir, "%s/lathe-test-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (n < 0 || n >= DIR_MAX || !mkdtemp(dir)) {
        perror("cannot make a directory for tests");
        abort();
    }
    return dir;
}

// SplitMix64 (Steele, Lea and Flood, 2014).
uint64_t test_random(void) {
    uint64_t z = seed += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

int64_t test_longer(int64_t limit) {
    const char *slower = getenv("LATHE_TEST_SLOWER");
    int64_t times;
    return slower && str_to_i64(str_z(slower), &times) && times > 1 ? limit * times : limit;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *at) {
    (void)st, (void)type, (void)at;
    return remove(path);
}

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

// A test that crashes or hangs takes the others with it, but not without its name and the count.
static void on_signal(int sig) {
    char line[DIR_MAX];
    int n = snprintf(
        line, sizeof line, "FAIL %s: %s\n%d passed, %d failed\n", current ? current->name : "?",
        sig == SIGALRM ? "over the time limit" : sigabbrev_np(sig), passed_n, failed_n + 1);
    (void)!write(STDOUT_FILENO, line, (size_t)(n < DIR_MAX ? n : DIR_MAX - 1));
    signal(sig, SIG_DFL);
    raise(sig);
}

bool test_run(const Test *t) {
    int64_t start_ms = now_ms();
    owned = arena_new();
    current = t;
    atomic_store(&failed, false);
    const char *more = getenv("TEST_SEED");
    seed = str_hash_seed(str_z(t->name), more ? str_hash(str_z(more)) : 0);
    alarm((unsigned)test_longer(TEST_LIMIT_S));
    t->run();
    alarm(0);
    owned = arena_free(owned);
    current = NULL;
    bool good = !atomic_load(&failed);
    if (good) printf("ok %s (%lld ms)\n", t->name, (long long)(now_ms() - start_ms));
    else if (*dir) printf("     %s: its files are kept in %s\n", t->name, dir);
    if (good && *dir) nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    *dir = 0;
    return good;
}

static bool wanted(const Test *t, char **patterns) {
    if (!*patterns) return true;
    char name[DIR_MAX];
    snprintf(name, sizeof name, "%s:%s", t->file, t->name);
    for (; *patterns; patterns++)
        if (strstr(name, *patterns) || !fnmatch(*patterns, t->name, 0)) return true;
    return false;
}

int test_main(int argc, char **argv) {
    bool list = argc > 1 && !strcmp(argv[1], "-l");
    char **patterns = argv + 1 + list;
    setvbuf(stdout, NULL, _IOLBF, 0);
    static const int ends[] = { SIGABRT, SIGALRM, SIGSEGV, SIGBUS, SIGFPE, SIGILL };
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        void (*was)(int) = signal(ends[i], on_signal);
        if (was != SIG_DFL) signal(ends[i], was); // a sanitizer says more
    }
    for (const Test *t = first; t; t = t->next) {
        if (!wanted(t, patterns)) continue;
        if (list) puts(t->name);
        else if (test_run(t)) passed_n++;
        else failed_n++;
    }
    if (list) return 0;
    printf("%d passed, %d failed\n", passed_n, failed_n);
    return failed_n || !passed_n;
}
