// SPDX-License-Identifier: Apache-2.0
// file_test.c - real files and directories: whole and partial reads, limits, locks, trees, links.
#include "base/test.h"
#include "os/file.h"
#include "os/thread.h"
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static Ctx *real_ctx(void) {
    Ctx *c = test_ctx();
    c->os = os_real();
    return c;
}
static str at(Ctx *c, const char *name) { return arena_printf(c->mem, "%s/%s", test_dir(), name); }

TEST(os_file_reads_and_writes_at) {
    Ctx *c = real_ctx();
    File *f;
    char out[32];
    size_t got;
    int64_t size;
    CHECK_OK(c, file_open(c, at(c, "f"), FILE_READ | FILE_WRITE | FILE_CREATE, &f));
    CHECK_OK(c, file_write_at(c, f, 5, "world", 5));
    CHECK_OK(c, file_write_at(c, f, 0, "hello", 5));
    CHECK_OK(c, file_sync(c, f));
    CHECK_OK(c, file_read_at(c, f, 3, out, sizeof out, &got)); // short only at the end
    CHECK_STR(str_n(out, got), "loworld");
    CHECK_OK(c, file_read_at(c, f, 100, out, sizeof out, &got));
    CHECK_INT(got, 0);
    CHECK_OK(c, file_truncate(c, f, 4));
    CHECK_OK(c, file_size(c, f, &size));
    CHECK_INT(size, 4);
    CHECK_OK(c, file_allocate(c, f, 100000));
    CHECK_OK(c, file_size(c, f, &size));
    CHECK_INT(size, 100000);
    CHECK_OK(c, file_read_at(c, f, 0, out, 6, &got));
    CHECK(!memcmp(out, "hell\0", 6));
    struct stat st;
    CHECK(fstat(file_fd(f), &st) == 0 && st.st_blocks * 512 >= 100000); // reserved, not a hole
    file_close(f);
    file_close(NULL);
}

// Zeros may be skipped, data never: wherever it starts, the answer is not past the next byte of it.
TEST(os_file_skips_only_zeros) {
    enum { SIZE = 1 << 20 };
    Ctx *c = real_ctx();
    File *f;
    int64_t to;
    CHECK_OK(c, file_open(c, at(c, "f"), FILE_READ | FILE_WRITE | FILE_CREATE, &f));
    CHECK_OK(c, file_skip_zeros(c, f, 7, &to)); // behind the end
    CHECK_INT(to, 7);
    CHECK_OK(c, file_allocate(c, f, SIZE));
    CHECK_OK(c, file_skip_zeros(c, f, 0, &to)); // never written: all, if the file system knows
    CHECK(to == SIZE || to == 0);
    const int64_t data[] = { 100, 4095, 70000, SIZE - 1 };
    for (size_t i = 0; i < countof(data); i++) CHECK_OK(c, file_write_at(c, f, data[i], "x", 1));
    int64_t from = 0;
    for (size_t i = 0; i < countof(data); from = data[i++] + 1) {
        for (int64_t at = from; at <= data[i]; at += at < data[i] - 9000 ? 4096 : 1) {
            CHECK_OK(c, file_skip_zeros(c, f, at, &to));
            CHECK(to >= at && to <= data[i]);
        }
    }
    CHECK_OK(c, file_skip_zeros(c, f, SIZE, &to));
    CHECK_INT(to, SIZE);
    file_close(f);
}

TEST(os_file_open_flags) {
    Ctx *c = real_ctx();
    File *f;
    PathInfo info;
    CHECK_ERR(file_open(c, at(c, "none"), FILE_READ, &f), ERR_NOTFOUND);
    CHECK(c->failure.why == &R_OS && str_eq(failure_param(&c->failure, "path"), at(c, "none")));
    CHECK_ERR(file_open(c, at(c, "none"), FILE_WRITE, &f), ERR_NOTFOUND);
    CHECK_OK(c, file_open(c, at(c, "p"), FILE_WRITE | FILE_CREATE | FILE_PRIVATE, &f));
    CHECK_OK(c, file_write_at(c, f, 0, "x", 1));
    file_close(f);
    CHECK_OK(c, path_info(c, at(c, "p"), &info));
    CHECK(info.is_file && !info.is_dir && info.mode == 0600 && info.size == 1);
    CHECK(info.modified_ms > os_wall_ms(c->os) - 60000
          && info.modified_ms < os_wall_ms(c->os) + 60000);
    CHECK_ERR(file_open(c, at(c, "p"), FILE_WRITE | FILE_CREATE | FILE_EXCLUSIVE, &f),
              ERR_CONFLICT);
    CHECK_OK(c, file_open(c, at(c, "p"), FILE_WRITE | FILE_TRUNCATE, &f));
    file_close(f);
    CHECK_OK(c, path_info(c, at(c, "p"), &info));
    CHECK_INT(info.size, 0);
    CHECK_ERR(file_open(c, str_n("a\0b", 3), FILE_READ, &f), ERR_INVALID);
    CHECK_ERR(file_open(c, S(""), FILE_READ, &f), ERR_INVALID);
}

TEST(os_file_is_closed_on_exec) {
    Ctx *c = real_ctx();
    File *f;
    CHECK_OK(c, file_open(c, at(c, "f"), FILE_WRITE | FILE_CREATE, &f));
    CHECK(fcntl(file_fd(f), F_GETFD) & FD_CLOEXEC);
    file_close(f);
}

TEST(os_file_lock_names_its_holder) {
    Ctx *c = real_ctx();
    File *one, *two;
    CHECK_OK(c, file_open(c, at(c, "lock"), FILE_WRITE | FILE_CREATE, &one));
    CHECK_OK(c, file_open(c, at(c, "lock"), FILE_WRITE | FILE_CREATE, &two));
    CHECK_OK(c, file_lock(c, one));
    CHECK_ERR(file_lock(c, two), ERR_CONFLICT);
    CHECK(c->failure.why == &R_LOCKED);
    CHECK_STR(failure_param(&c->failure, "pid"), say(c, "%d", (int)getpid()));
    file_close(one);
    CHECK_OK(c, file_lock(c, two));
    file_close(two);
}

static void close_soon(void *f) {
    int64_t until = os_mono_ns(os_real()) + 20000000; // others wait by then
    while (os_mono_ns(os_real()) < until) sched_yield();
    file_close(f);
}

// Waits for a holder that ends, and no longer than told for one that stays.
TEST(os_file_lock_within) {
    Ctx *c = real_ctx();
    File *one, *two;
    Thread t;
    CHECK_OK(c, file_open(c, at(c, "lock"), FILE_WRITE | FILE_CREATE, &one));
    CHECK_OK(c, file_open(c, at(c, "lock"), FILE_WRITE, &two));
    CHECK_OK(c, file_lock_within(c, one, 0));
    int64_t began = os_mono_ns(c->os);
    CHECK_ERR(file_lock_within(c, two, 30), ERR_CONFLICT);
    CHECK(os_mono_ns(c->os) - began >= 30000000 && c->failure.why == &R_LOCKED);
    thread_start(c->os, "holder", close_soon, one, &t);
    CHECK_OK(c, file_lock_within(c, two, 60000));
    thread_join(t);
    file_close(two);
}

TEST(os_file_whole) {
    Ctx *c = real_ctx();
    str got;
    PathInfo info;
    CHECK_OK(c, file_write_all(c, at(c, "w"), S("first"), 0));
    CHECK_OK(c, file_write_all(c, at(c, "w"), S("second\0x"), FILE_PRIVATE));
    CHECK_OK(c, file_read_all(c, at(c, "w"), 8, &got));
    CHECK(str_eq(got, S("second\0x")) && got.p[got.n] == 0);
    CHECK_ERR(file_read_all(c, at(c, "w"), 7, &got), ERR_TOOLARGE);
    CHECK(c->failure.why == &R_TOO_LONG);
    CHECK_OK(c, path_info(c, at(c, "w"), &info));
    CHECK_INT(info.mode, 0600);
    CHECK_OK(c, file_write_all(c, at(c, "e"), S(""), 0));
    CHECK_OK(c, file_read_all(c, at(c, "e"), 0, &got));
    CHECK(got.p && got.n == 0);
    CHECK_OK(c, file_read_all(c, S("/proc/self/status"), 1 << 20, &got)); // says that it is empty
    CHECK(str_find(got, S("Pid:")) >= 0);
    CHECK_ERR(file_read_all(c, S("/proc/self/status"), 100, &got), ERR_TOOLARGE);
    str *names;
    size_t n;
    CHECK_OK(c, dir_list(c, str_z(test_dir()), &names, &n)); // no temporary file is left
    CHECK_INT(n, 2);
}

// A failed replacement leaves the old file and nothing else. The disk is full past 1000 bytes.
TEST(os_file_write_all_fails_whole) {
    Ctx *c = real_ctx();
    str got, *names;
    size_t n;
    CHECK_OK(c, file_write_all(c, at(c, "w"), S("old"), 0));
    struct rlimit before, small;
    getrlimit(RLIMIT_FSIZE, &before);
    small = before;
    small.rlim_cur = 1000;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    char *big = new (c->mem, char, 5000);
    err e = file_write_all(c, at(c, "w"), str_n(big, 5000), 0);
    setrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, SIG_DFL);
    CHECK_ERR(e, ERR_TOOLARGE);
    CHECK(str_is(failure_param(&c->failure, "what"), "write"));
    CHECK_OK(c, file_read_all(c, at(c, "w"), 100, &got));
    CHECK_STR(got, "old");
    CHECK_OK(c, dir_list(c, str_z(test_dir()), &names, &n));
    CHECK_INT(n, 1);
    CHECK_ERR(file_write_all(c, at(c, "no/such/dir"), S("x"), 0), ERR_NOTFOUND);
    CHECK(str_is(failure_param(&c->failure, "what"), "open"));
}

TEST(os_dir_make_list_remove) {
    Ctx *c = real_ctx();
    str *names;
    size_t n;
    CHECK_OK(c, dir_make(c, at(c, "d/e//f"), 0700));
    CHECK_OK(c, dir_make(c, at(c, "d/e/f"), 0700));
    CHECK_OK(c, file_write_all(c, at(c, "d/zz"), S("1"), 0));
    CHECK_OK(c, file_write_all(c, at(c, "d/B"), S("1"), 0));
    CHECK_OK(c, file_write_all(c, at(c, "d/a"), S("1"), 0));
    CHECK_OK(c, dir_sync(c, at(c, "d")));
    CHECK_OK(c, dir_list(c, at(c, "d"), &names, &n));
    CHECK_STR(arena_join(c->mem, names, n, S(" ")), "B a e zz");
    CHECK_ERR(dir_make(c, at(c, "d/a"), 0700), ERR_NOTFOUND); // ENOTDIR: a file is in the way
    CHECK_ERR(dir_make(c, at(c, "d/a/x"), 0700), ERR_NOTFOUND);
    CHECK_ERR(path_remove(c, at(c, "d")), ERR_CONFLICT);
    CHECK_OK(c, path_remove(c, at(c, "d/a")));
    CHECK_ERR(path_remove(c, at(c, "d/a")), ERR_NOTFOUND);
    CHECK_OK(c, path_rename(c, at(c, "d/zz"), at(c, "d/B")));
    CHECK_OK(c, path_remove(c, at(c, "d/e/f"))); // an empty directory
    CHECK_OK(c, path_remove_tree(c, at(c, "d")));
    CHECK_ERR(dir_list(c, at(c, "d"), &names, &n), ERR_NOTFOUND);
    CHECK_OK(c, path_remove_tree(c, at(c, "d")));
}

TEST(os_remove_tree_follows_no_link) {
    Ctx *c = real_ctx();
    str got;
    CHECK_OK(c, dir_make(c, at(c, "keep/in"), 0700));
    CHECK_OK(c, file_write_all(c, at(c, "keep/in/f"), S("safe"), 0));
    CHECK_OK(c, dir_make(c, at(c, "tree/sub"), 0700));
    CHECK(symlink(at(c, "keep").p, at(c, "tree/sub/link").p) == 0);
    CHECK(symlink(at(c, "keep/in/f").p, at(c, "tree/file").p) == 0);
    CHECK(symlink(at(c, "keep").p, at(c, "toplink").p) == 0);
    CHECK_OK(c, path_remove_tree(c, at(c, "tree")));
    CHECK_OK(c, path_remove_tree(c, at(c, "toplink/"))); // the link goes, not what it points to
    CHECK_OK(c, file_read_all(c, at(c, "keep/in/f"), 100, &got));
    CHECK_STR(got, "safe");
    struct stat st;
    CHECK(lstat(at(c, "tree").p, &st) < 0 && lstat(at(c, "toplink").p, &st) < 0);
}

TEST(os_disk_free_is_positive) {
    Ctx *c = real_ctx();
    int64_t bytes = 0;
    CHECK_OK(c, disk_free(c, str_z(test_dir()), &bytes));
    CHECK(bytes > 0);
    CHECK_ERR(disk_free(c, S("/no/such"), &bytes), ERR_NOTFOUND);
    int64_t all = 0;
    CHECK_OK(c, disk_size(c, str_z(test_dir()), &all));
    CHECK(all >= bytes);
    CHECK_ERR(disk_size(c, S("/no/such"), &all), ERR_NOTFOUND);
}
