// SPDX-License-Identifier: Apache-2.0
// os_inject.c - files, folders, loops, streams and children when their n-th system call fails.
#include "inject.h"
#include "os/file.h"
#include "os/process.h"
#include "os/stream.h"
#include <unistd.h>

static str at(Ctx *c, const char *name) {
    return arena_printf(c->mem, "%s/%s", inject_dir(), name);
}

// A file is replaced whole or not at all, and what was acknowledged is what is read.
INJECT_RECOVER(file_replaced_whole) {
    Ctx *c = inject_ctx();
    str before = S("the first text"), after = S("another one, somewhat longer"), got;
    CHECK_OK(c, file_write_all(c, at(c, "f"), before, 0));
    inject_on();
    err e = file_write_all(c, at(c, "f"), after, FILE_PRIVATE);
    if (!e) inject_promise(0, 1);
    CHECK_TOLERABLE(c, e);
    err r = file_read_all(c, at(c, "f"), 1000, &got);
    CHECK_TOLERABLE(c, r);
    inject_off();
    if (!r) CHECK(str_eq(got, after) || (e && str_eq(got, before)));
    CHECK_OK(c, file_write_all(c, at(c, "f"), after, 0));
    CHECK_OK(c, file_read_all(c, at(c, "f"), 1000, &got));
    CHECK(str_eq(got, after));
    str *names;
    size_t n;
    CHECK_OK(c, dir_list(c, str_z(inject_dir()), &names, &n));
    CHECK_INT(n, 1); // no temporary file is left for ever
}
RECOVER(file_replaced_whole) {
    Ctx *c = inject_ctx();
    str got;
    CHECK_OK(c, file_read_all(c, at(c, "f"), 1000, &got));
    CHECK_INT(got.n, inject_promised(0) ? 28 : got.n == 14 ? 14 : 28);
}

INJECT(file_pieces_and_sizes) {
    Ctx *c = inject_ctx();
    File *f = NULL;
    char bytes[3000], back[3000] = { 0 };
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (char)(i * 7);
    inject_on();
    err e = file_open(c, at(c, "g"), FILE_READ | FILE_WRITE | FILE_CREATE, &f);
    CHECK_TOLERABLE(c, e);
    size_t got = 0;
    int64_t size = 0, to = 0;
    err put = ERR_INTERNAL, read = ERR_INTERNAL;
    if (!e) {
        CHECK_TOLERABLE(c, file_lock(c, f));
        CHECK_TOLERABLE(c, file_allocate(c, f, 8192));
        put = file_write_at(c, f, 100, bytes, sizeof bytes);
        CHECK_TOLERABLE(c, put);
        CHECK_TOLERABLE(c, file_sync(c, f));
        read = file_read_at(c, f, 100, back, sizeof back, &got);
        CHECK_TOLERABLE(c, read);
        CHECK_TOLERABLE(c, file_skip_zeros(c, f, 0, &to));
        CHECK_TOLERABLE(c, file_truncate(c, f, 5000));
        CHECK_TOLERABLE(c, file_size(c, f, &size));
    }
    inject_off();
    if (!put && !read) CHECK(got == sizeof bytes && !memcmp(bytes, back, got));
    if (!e && !put) {
        CHECK_OK(c, file_read_at(c, f, 100, back, sizeof back, &got));
        CHECK(got == sizeof bytes && !memcmp(bytes, back, got));
    }
    file_close(f);
}

INJECT(folders_made_listed_removed) {
    Ctx *c = inject_ctx();
    str *names;
    size_t n = 0;
    PathInfo info;
    int64_t bytes;
    inject_on();
    err e = dir_make(c, at(c, "a/b/c"), 0755);
    CHECK_TOLERABLE(c, e);
    err w = file_write_all(c, at(c, "a/b/c/x"), S("x"), 0);
    if (!e) CHECK_TOLERABLE(c, w);
    err l = dir_list(c, at(c, "a/b/c"), &names, &n);
    if (!e) CHECK_TOLERABLE(c, l);
    (void)!path_info(c, at(c, "a/b/c/x"), &info);
    (void)!disk_free(c, at(c, "a"), &bytes);
    (void)!dir_sync(c, at(c, "a"));
    err r = path_remove_tree(c, at(c, "a"));
    CHECK_TOLERABLE(c, r);
    inject_off();
    if (!e && !w && !l) CHECK_INT(n, 1);
    if (!r) CHECK_ERR(path_info(c, at(c, "a"), &info), ERR_NOTFOUND);
    CHECK_OK(c, path_remove_tree(c, at(c, "a")));
    CHECK_OK(c, dir_make(c, at(c, "a/b/c"), 0755));
    CHECK_OK(c, path_remove_tree(c, at(c, "a")));
}

INJECT(child_started_and_waited_for) {
    Ctx *c = inject_ctx();
    const char *argv[] = { "/bin/sh", "-c", "exit 3", NULL };
    ProcessSpec spec = { .argv = argv, .in_fd = -1, .out_fd = -1, .err_fd = -1 };
    Process *p = NULL;
    ProcessExit how = { 0 };
    int ends[2];
    inject_on();
    err piped = pipe_make(c, ends);
    CHECK_TOLERABLE(c, piped);
    err e = process_start(c, &spec, NULL, NULL, NULL, &p);
    CHECK_TOLERABLE(c, e);
    err w = e ? ERR_OK : process_wait(c, p, 10000, &how);
    CHECK_TOLERABLE(c, w);
    inject_off();
    if (!e && !w) CHECK_INT(how.code, 3);
    process_free(p);
    CHECK_OK(c, process_start(c, &spec, NULL, NULL, NULL, &p));
    CHECK_OK(c, process_wait(c, p, 10000, &how));
    CHECK_INT(how.code, 3);
    process_free(p);
    if (!piped) close(ends[0]), close(ends[1]);
}
