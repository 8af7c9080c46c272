// SPDX-License-Identifier: Apache-2.0
// os_test.c - clocks, random, ids, facts, deadlines, what errno becomes, threads and pools.
#include "base/id.h"
#include "base/test.h"
#include "os/process.h"
#include "os/thread.h"
#include <errno.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static Ctx *real_ctx(void) {
    Ctx *c = test_ctx();
    c->os = os_real();
    return c;
}

TEST(os_clocks) {
    Os *os = os_real();
    CHECK(os == os_real());
    CHECK(os_wall_ms(os) > 1700000000000);
    int64_t before = os_mono_ns(os), cpu = os_cpu_ns(os);
    for (int i = 0; i < 1000; i++) {
        int64_t now = os_mono_ns(os);
        CHECK(now >= before);
        before = now;
    }
    CHECK(os_cpu_ns(os) > cpu);
}

TEST(os_random_differs) {
    uint64_t a[4] = { 0 }, b[4] = { 0 };
    os_random(os_real(), a, sizeof a);
    os_random(os_real(), b, sizeof b);
    for (int i = 0; i < 4; i++) CHECK(a[i] && a[i] != b[i]);
}

TEST(os_ids) {
    Ctx *c = real_ctx();
    str one = os_id(c, "model"), two = os_id(c, "model");
    CHECK(id_valid(one, "model") && !str_eq(one, two));
    CHECK(id_time_ms(one) <= os_wall_ms(c->os) && id_time_ms(one) > os_wall_ms(c->os) - 60000);
}

TEST(os_deadline_and_cancel) {
    Ctx *c = real_ctx();
    CHECK_OK(c, ctx_check(c));
    c->deadline_ns = os_mono_ns(c->os) + 3600000000000;
    CHECK_OK(c, ctx_check(c));
    c->deadline_ns = os_mono_ns(c->os);
    CHECK_ERR(ctx_check(c), ERR_TIMEOUT);
    ctx_cancel(c);
    CHECK_ERR(ctx_check(c), ERR_CANCELLED);
    CHECK(c->failure.why == &R_CANCELLED);
}

TEST(os_errno_becomes_a_code_and_a_reason) {
    static const struct {
        int e;
        err code;
    } rows[] = { { ENOENT, ERR_NOTFOUND },     { EACCES, ERR_DENIED },
                 { EEXIST, ERR_CONFLICT },     { ENOSPC, ERR_FULL },
                 { EDQUOT, ERR_FULL },         { EMFILE, ERR_UNAVAILABLE },
                 { EIO, ERR_INTERNAL },        { ETIMEDOUT, ERR_TIMEOUT },
                 { EFBIG, ERR_TOOLARGE },      { EINVAL, ERR_INVALID },
                 { ECONNRESET, ERR_UPSTREAM }, { 99999, ERR_INTERNAL } };
    Ctx *c = real_ctx();
    for (size_t i = 0; i < countof(rows); i++)
        CHECK_ERR(os_fail(c, rows[i].e, "open", S("/x")), rows[i].code);
    CHECK_ERR(os_fail(c, ENOENT, "open", S("/x")), ERR_NOTFOUND);
    Buf b;
    buf_init(&b, 1000);
    failure_format(&c->failure, "en", &b);
    CHECK_STR(buf_str(&b), "cannot open /x: No such file or directory");
    buf_done(&b);
    CHECK_ERR(os_fail(c, ENOSPC, "write", S("/x")), ERR_FULL);
    CHECK(c->failure.why == &R_DISK_FULL);
}

TEST(os_facts_are_plausible) {
    OsFacts f;
    os_facts(os_real(), &f);
    CHECK(f.memory_bytes > 1 << 20 && f.memory_available_bytes > 0);
    CHECK(f.memory_available_bytes <= f.memory_bytes);
    CHECK(f.cpus >= 1 && f.cpus <= 4096);
    CHECK(f.open_files_max >= 64);
    CHECK_INT(f.memory_bytes <= (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE), 1);
#ifdef __x86_64__
    CHECK(f.cpu_model[0]);
    CHECK((strstr(f.cpu_flags, "avx2") != NULL) == (__builtin_cpu_supports("avx2") != 0));
#endif
}

// Each figure follows what this test itself does.
TEST(os_usage_follows_the_process) {
    OsUsage before, after;
    os_usage(os_real(), &before);
    int64_t now = os_wall_ms(os_real());
    CHECK(before.started_ms > now - 86400000 && before.started_ms <= now + 20);
    int pipes[2];
    enum { TOUCHED = 32 << 20 };
    CHECK(pipe(pipes) == 0);
    char *memory = mem_new(TOUCHED);
    for (size_t i = 0; i < TOUCHED; i += 512) memory[i] = (char)i;
    int64_t cpu = os_cpu_ns(os_real());
    while (os_cpu_ns(os_real()) - cpu < 30000000) {}
    os_usage(os_real(), &after);
    CHECK_INT(after.open_files, before.open_files + 2);
    CHECK(after.memory_bytes >= before.memory_bytes + TOUCHED / 2);
    CHECK(after.virtual_bytes >= after.memory_bytes);
    CHECK(after.cpu_us >= before.cpu_us + 25000 && after.threads >= 1);
    int64_t host_before = 0, host_after = 0;
    for (size_t i = 0; i < OS_CPU__COUNT; i++) {
        CHECK(after.host_cpu_ms[i] >= before.host_cpu_ms[i] || i == OS_CPU_IOWAIT);
        host_before += before.host_cpu_ms[i], host_after += after.host_cpu_ms[i];
    }
    CHECK(host_after > host_before);
    CHECK(memory[512] == 0);
    mem_free(memory);
    close(pipes[0]), close(pipes[1]);
}

// Neither repeats: not over the stock's end, not in another thread, not in a child.
static void draw(void *out) { os_random(os_real(), out, 16); }
TEST(os_random_never_repeats) {
    enum { DRAWS = 100 };
    static uint8_t all[DRAWS + 3][16];
    Thread t;
    int fds[2];
    for (size_t i = 0; i < DRAWS; i++) draw(all[i]);
    thread_start(os_real(), "other", draw, all[DRAWS], &t);
    thread_join(t);
    CHECK(pipe(fds) == 0);
    pid_t pid = fork();
    if (!pid) {
        draw(all[DRAWS + 1]);
        _exit(write(fds[1], all[DRAWS + 1], 16) != 16);
    }
    CHECK(pid > 0 && read(fds[0], all[DRAWS + 1], 16) == 16);
    CHECK(waitpid(pid, NULL, 0) == pid);
    draw(all[DRAWS + 2]);
    for (size_t i = 0; i < countof(all); i++)
        for (size_t j = 0; j < i; j++) CHECK(memcmp(all[i], all[j], 16) != 0);
    close(fds[0]), close(fds[1]);
}

TEST(os_env_and_program) {
    Ctx *c = real_ctx();
    CHECK(os_env(c->os, "PATH"));
    CHECK(!os_env(c->os, "LATHE_SURELY_NOT_SET"));
    str self = os_program(c);
    CHECK(str_starts(self, S("/")) && access(arena_z(c->mem, self), X_OK) == 0);
}

// --- threads and pools

typedef struct Gate { // holds pool threads until it opens
    pthread_mutex_t mutex;
    pthread_cond_t moved;
    bool open;
    int inside, done, most, inside_max;
} Gate;

static void through(void *arg) {
    Gate *g = arg;
    pthread_mutex_lock(&g->mutex);
    if (++g->inside > g->inside_max) g->inside_max = g->inside;
    pthread_cond_broadcast(&g->moved);
    while (!g->open) pthread_cond_wait(&g->moved, &g->mutex);
    g->inside--;
    g->done++;
    pthread_mutex_unlock(&g->mutex);
}

static void wait_inside(Gate *g, int n) {
    pthread_mutex_lock(&g->mutex);
    while (g->inside < n) pthread_cond_wait(&g->moved, &g->mutex);
    pthread_mutex_unlock(&g->mutex);
}

TEST(os_pool_is_bounded_and_finishes_what_it_took) {
    Gate g = { .mutex = PTHREAD_MUTEX_INITIALIZER, .moved = PTHREAD_COND_INITIALIZER };
    Pool *p = pool_new(os_real(), "a pool with a long name", 3, 5);
    for (int i = 0; i < 3; i++) CHECK(pool_submit(p, through, &g));
    wait_inside(&g, 3);
    CHECK_INT(pool_running(p), 3);
    CHECK_INT(pool_waiting(p), 0);
    for (int i = 0; i < 5; i++) CHECK(pool_submit(p, through, &g));
    CHECK_INT(pool_waiting(p), 5);
    CHECK(!pool_submit(p, through, &g)); // full: the caller answers 503
    pthread_mutex_lock(&g.mutex);
    g.open = true;
    pthread_cond_broadcast(&g.moved);
    pthread_mutex_unlock(&g.mutex);
    pool_stop(p);
    CHECK_INT(g.done, 8);
    CHECK(!pool_submit(p, through, &g)); // not even where there is room
    pool_free(p);
    CHECK_INT(g.inside_max, 3);
}

typedef struct Count {
    pthread_mutex_t mutex;
    int64_t sum;
} Count;
static void add_one(void *arg) {
    Count *n = arg;
    pthread_mutex_lock(&n->mutex);
    n->sum++;
    pthread_mutex_unlock(&n->mutex);
}
typedef struct Feeder {
    Pool *pool;
    Count *count;
    int sent;
} Feeder;
static void feed(void *arg) {
    Feeder *f = arg;
    for (int i = 0; i < 20000; i++) f->sent += pool_submit(f->pool, add_one, f->count);
}

TEST(os_pool_fed_by_many_threads) {
    Count n = { .mutex = PTHREAD_MUTEX_INITIALIZER };
    Pool *p = pool_new(os_real(), "pool", 2, 64);
    Feeder feeders[3];
    Thread threads[3];
    for (int i = 0; i < 3; i++) {
        feeders[i] = (Feeder){ p, &n, 0 };
        thread_start(os_real(), "feeder", feed, &feeders[i], &threads[i]);
    }
    int64_t sent = 0;
    for (int i = 0; i < 3; i++) {
        thread_join(threads[i]);
        sent += feeders[i].sent;
    }
    pool_free(p);
    CHECK(sent > 0);
    CHECK_INT(n.sum, sent); // each accepted piece ran once, no refused one ran
}
