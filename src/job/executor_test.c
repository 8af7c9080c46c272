// SPDX-License-Identifier: Apache-2.0
// executor_test.c - children under real shims: this binary, started as `BINARY shim ...`, is the
// shim, and started with LATHE_TEST_EXECUTOR it is a `serve` that gets killed.
#include "base/test.h"
#include "job/executor_own.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

static Ctx *real_ctx(void) {
    Ctx *c = test_ctx();
    c->os = os_real();
    return c;
}

// ---- a loop on a thread of its own, as serve has one

typedef struct Host {
    Ctx *c;
    Loop *l;
    Thread thread;
    Executor *e;
    atomic_int changes;
} Host;

static void host_run(void *arg) { loop_run(((Host *)arg)->l); }

static void host_changed(void *arg, str handle) {
    Host *h = arg;
    (void)handle;
    atomic_fetch_add(&h->changes, 1);
}

static err host_open(Host *h, Ctx *c) {
    *h = (Host){ .c = c, .l = loop_new(c->os) };
    str dir = arena_printf(c->mem, "%s/run", test_dir());
    TRY(executor_open(c, dir, h->l, &h->e));
    executor_on_change(h->e, host_changed, h);
    thread_start(c->os, "host", host_run, h, &h->thread);
    return ERR_OK;
}

static void host_close(Host *h) {
    loop_stop(h->l);
    thread_join(h->thread);
    executor_close(h->e);
    loop_free(h->l);
}

static str submit(Host *h, const char *key, const char *script, ChildSpec spec) {
    const char *argv[] = { "/bin/sh", "-c", script, NULL };
    str handle = { 0 };
    spec.key = str_z(key);
    spec.argv = argv;
    if (!spec.grace_ms) spec.grace_ms = 20000;
    err e = executor_submit(h->c, h->e, &spec, &handle);
    if (e) test_failed(__FILE__, __LINE__, "submit: %s", err_row(e)->name);
    return handle;
}

// Looks until the view is as wanted, for 20 s at most.
static bool until(Host *h, str handle, ChildState state, ChildView *out) {
    int64_t end_ns = os_mono_ns(h->c->os) + test_longer(20) * 1000000000;
    do {
        if (executor_observe(h->c, h->e, handle, out)) return false;
        if (out->state == state) return true;
        sched_yield();
    } while (os_mono_ns(h->c->os) < end_ns);
    return false;
}

static bool log_has(Host *h, str handle, const char *text) {
    int64_t end_ns = os_mono_ns(h->c->os) + test_longer(20) * 1000000000;
    do {
        ArenaMark m = arena_mark(h->c->mem);
        ChildLog l;
        bool has = !executor_logs(h->c, h->e, handle, 0, 1 << 20, &l)
                   && str_find(l.text, str_z(text)) >= 0;
        arena_restore(h->c->mem, m);
        if (has) return true;
        sched_yield();
    } while (os_mono_ns(h->c->os) < end_ns);
    return false;
}

static bool gone(int64_t pid, int64_t ticks) {
    int64_t end_ns = os_mono_ns(os_real()) + test_longer(20) * 1000000000;
    while (pid_start_ticks(os_real(), pid) == ticks)
        if (os_mono_ns(os_real()) > end_ns) return false;
    return true;
}

// The numbers that a script prints, a line each: waits for n of them.
static bool log_pids(Host *h, str handle, int64_t *out, size_t n) {
    int64_t end_ns = os_mono_ns(h->c->os) + test_longer(20) * 1000000000;
    size_t found = 0;
    while (found < n && os_mono_ns(h->c->os) < end_ns) {
        ArenaMark m = arena_mark(h->c->mem);
        ChildLog l;
        str line;
        found = 0;
        if (executor_logs(h->c, h->e, handle, 0, 1 << 20, &l)) return false;
        while (found < n && str_cut(&l.text, '\n', &line))
            if (l.text.p && str_to_i64(line, &out[found])) found++; // its newline has come
        arena_restore(h->c->mem, m);
    }
    return found == n;
}

// The shims of a handle, by their command line: how many, and one of them.
static int shims_of(Ctx *c, str handle, int64_t *out_pid) {
    int found = 0;
    str *names, line, word;
    size_t n;
    if (dir_list(c, S("/proc"), &names, &n)) return 0;
    for (size_t i = 0; i < n; i++) {
        int64_t pid;
        if (!str_to_i64(names[i], &pid)) continue;
        str path = arena_printf(c->mem, "/proc/" STR_FMT "/cmdline", STR_ARG(names[i]));
        if (file_read_all(c, path, 1 << 20, &line)) continue;
        bool shim = str_cut(&line, 0, &word) && str_cut(&line, 0, &word) && str_is(word, "shim");
        shim = shim && str_cut(&line, 0, &word) && str_cut(&line, 0, &word);
        if (!shim || !str_eq(word, handle)) continue;
        *out_pid = pid;
        found++;
    }
    return found;
}

static int64_t shim_pid(Ctx *c, str handle) {
    int64_t pid = 0;
    return shims_of(c, handle, &pid) ? pid : 0;
}

// Before main: what this binary is when it was started for something else than tests.
static _Noreturn void serve_until_killed(const char *dir) {
    Ctx c;
    Executor *e;
    str handle;
    ctx_init(&c, arena_new(), os_real());
    Loop *l = loop_new(c.os);
    const char *argv[] = { "/bin/sh", "-c", "echo $$; while :; do echo tick; sleep 0.01; done",
                           NULL };
    ChildSpec spec = { .key = S("model-1"), .argv = argv, .grace_ms = 20000 };
    if (executor_open(&c, str_z(dir), l, &e)) _exit(3);
    if (executor_submit(&c, e, &spec, &handle)) _exit(4);
    if (write(1, handle.p, handle.n) != (ssize_t)handle.n || write(1, "\n", 1) != 1) _exit(5);
    loop_run(l);
    _exit(6);
}

__attribute__((constructor)) static void other_roles(int argc, char **argv) {
    const char *dir = getenv("LATHE_TEST_EXECUTOR");
    if (argc > 1 && !strcmp(argv[1], "shim")) exit(shim_main(argc, argv));
    if (dir) serve_until_killed(dir);
}

TEST(job_executor_runs_a_child_and_keeps_what_became_of_it) {
    Ctx *c = real_ctx();
    Host h;
    ChildView v;
    ChildLog l;
    CHECK_OK(c, host_open(&h, c));
    str ok = submit(&h, "a", "echo out; echo err >&2; exit 3", (ChildSpec){ 0 });
    CHECK(until(&h, ok, CHILD_EXITED, &v));
    CHECK(v.exit_code == 3 && v.exit_signal == 0 && v.pid > 0 && !v.adopted);
    CHECK(v.started_ms > 0 && v.ended_ms >= v.started_ms);
    CHECK_STR(v.reason, "exited with status 3");
    CHECK_OK(c, executor_logs(c, h.e, ok, 0, 100, &l));
    CHECK_STR(l.text, "out\nerr\n");
    CHECK_OK(c, executor_logs(c, h.e, ok, 2, 3, &l));
    CHECK(str_is(l.text, "t\ne") && l.from == 2 && l.next == 5);
    str killed = submit(&h, "b", "kill -9 $$", (ChildSpec){ 0 });
    CHECK(until(&h, killed, CHILD_EXITED, &v));
    CHECK(v.exit_signal == 9);
    CHECK_STR(v.reason, "killed by signal 9");
    int64_t end_ns = os_mono_ns(c->os) + test_longer(20) * 1000000000;
    while (atomic_load(&h.changes) < 2) { // said after it is seen
        CHECK(os_mono_ns(c->os) < end_ns);
        sched_yield();
    }
    host_close(&h);
    CHECK_OK(c, host_open(&h, c)); // all of it from the files
    CHECK_OK(c, executor_observe(c, h.e, ok, &v));
    CHECK(v.state == CHILD_EXITED && v.exit_code == 3 && str_is(v.key, "a"));
    CHECK_OK(c, executor_forget(c, h.e, ok));
    CHECK_ERR(executor_observe(c, h.e, ok, &v), ERR_NOTFOUND);
    CHECK_ERR(executor_forget(c, h.e, ok), ERR_NOTFOUND);
    CHECK_OK(c, executor_forget(c, h.e, killed));
    str *names;
    size_t n;
    CHECK_OK(c, dir_list(c, arena_printf(c->mem, "%s/run", test_dir()), &names, &n));
    CHECK_INT(n, 0);
    host_close(&h);
}

TEST(job_executor_same_key_is_the_same_child) {
    Ctx *c = real_ctx();
    Host h;
    ChildView v;
    ChildView *all;
    size_t n;
    CHECK_OK(c, host_open(&h, c));
    str one = submit(&h, "k", "echo $$; exec sleep 100", (ChildSpec){ 0 });
    CHECK(str_eq(submit(&h, "k", "echo twice", (ChildSpec){ 0 }), one));
    str found;
    CHECK_OK(c, executor_find(c, h.e, S("k"), &found));
    CHECK(str_eq(found, one));
    CHECK(until(&h, one, CHILD_RUNNING, &v));
    CHECK(v.memory_bytes > 0);
    int64_t pid;
    CHECK_INT(shims_of(c, one, &pid), 1);
    CHECK_ERR(executor_forget(c, h.e, one), ERR_CONFLICT);
    CHECK_OK(c, executor_list(c, h.e, &all, &n));
    CHECK(n == 1 && str_is(all[0].key, "k"));
    CHECK_OK(c, executor_cancel(c, h.e, one, 0));
    CHECK(until(&h, one, CHILD_EXITED, &v));
    CHECK_OK(c, executor_forget(c, h.e, one));
    CHECK(!str_eq(submit(&h, "k", "exit 0", (ChildSpec){ 0 }), one)); // the key is free again
    CHECK_OK(c, executor_find(c, h.e, S("k"), &found));
    CHECK(until(&h, found, CHILD_EXITED, &v));
    const char *bad[] = { "", "A", "a/b", "..\\", "a b" };
    const char *argv[] = { "/bin/true", NULL };
    for (size_t i = 0; i < countof(bad); i++) {
        ChildSpec spec = { .key = str_z(bad[i]), .argv = argv };
        CHECK_ERR(executor_submit(c, h.e, &spec, &found), ERR_INVALID);
    }
    host_close(&h);
}

TEST(job_executor_program_that_is_not_there) {
    Ctx *c = real_ctx();
    Host h;
    ChildView v;
    str handle;
    const char *argv[] = { "/no/such/program", NULL };
    CHECK_OK(c, host_open(&h, c));
    ChildSpec spec = { .key = S("k"), .argv = argv };
    CHECK_OK(c, executor_submit(c, h.e, &spec, &handle));
    CHECK(until(&h, handle, CHILD_EXITED, &v));
    CHECK_INT(v.exit_code, 127);
    CHECK(str_starts(v.reason, S("it could not be started: ")));
    executor_program(h.e, "/no/such/shim");
    spec.key = S("other");
    CHECK_ERR(executor_submit(c, h.e, &spec, &handle), ERR_NOTFOUND);
    CHECK_ERR(executor_find(c, h.e, S("other"), &handle), ERR_NOTFOUND); // no trace of it
    host_close(&h);
}

TEST(job_executor_cancel_asks_then_forces) {
    Ctx *c = real_ctx();
    Host h;
    ChildView v;
    CHECK_OK(c, host_open(&h, c));
    str polite = submit(&h, "polite",
                        "trap 'echo bye; exit 7' TERM; echo ready;"
                        " while :; do sleep 0.01; done",
                        (ChildSpec){ 0 });
    CHECK(log_has(&h, polite, "ready"));
    CHECK_OK(c, executor_cancel(c, h.e, polite, 20000));
    CHECK(until(&h, polite, CHILD_EXITED, &v));
    CHECK_INT(v.exit_code, 7);
    CHECK_STR(v.reason, "exited with status 7: it was cancelled");
    CHECK(log_has(&h, polite, "bye"));
    str deaf = submit(&h, "deaf", "trap '' TERM; echo ready; while :; do sleep 0.01; done",
                      (ChildSpec){ 0 });
    CHECK(log_has(&h, deaf, "ready"));
    CHECK_OK(c, executor_cancel(c, h.e, deaf, 100));
    CHECK(until(&h, deaf, CHILD_EXITED, &v));
    CHECK_INT(v.exit_signal, SIGKILL);
    str asked = submit(&h, "asked", "trap '' TERM; echo ready; while :; do sleep 0.01; done",
                       (ChildSpec){ 0 });
    CHECK(log_has(&h, asked, "ready"));
    CHECK_OK(c, executor_cancel(c, h.e, asked, 3600000));
    CHECK_OK(c, executor_cancel(c, h.e, asked, 100));     // it may become less time,
    CHECK_OK(c, executor_cancel(c, h.e, asked, 3600000)); // but never more
    CHECK(until(&h, asked, CHILD_EXITED, &v));
    CHECK_INT(v.exit_signal, SIGKILL);
    host_close(&h);
}

// Two forks and a session of its own: only its environment tells whose it is.
TEST(job_executor_takes_all_that_a_child_started) {
    static const char script[] = "sleep 1000 & echo $!; setsid sh -c 'sleep 1001 & echo $!';"
                                 " (setsid sh -c 'echo $$; : > there; exec sleep 1002' &);"
                                 " while [ ! -e there ]; do sleep 0.01; done; echo ready; %s";
    Ctx *c = real_ctx();
    for (int how = 0; how < 3; how++) { // cancelled, ends by itself, its shim is killed
        Host h;
        ChildView v;
        int64_t pids[3], ticks[3];
        str cwd = arena_printf(c->mem, "%s/%d", test_dir(), how), text;
        CHECK_OK(c, dir_make(c, cwd, 0700));
        CHECK_OK(c, host_open(&h, c));
        text = arena_printf(c->mem, "%.*s%s", (int)sizeof script - 3, script,
                            how == 1 ? "exit 0" : "wait");
        str handle = submit(&h, say(c, "k%d", how), text.p, (ChildSpec){ .cwd = cwd });
        CHECK(log_pids(&h, handle, pids, 3));
        for (int i = 0; i < 3; i++) ticks[i] = pid_start_ticks(c->os, pids[i]);
        CHECK(log_has(&h, handle, "ready"));
        if (how == 0) CHECK_OK(c, executor_cancel(c, h.e, handle, 0));
        int64_t shim = how == 2 ? shim_pid(c, handle) : 0;
        if (how == 2) CHECK(shim > 0 && kill((pid_t)shim, SIGKILL) == 0);
        CHECK(until(&h, handle, how == 2 ? CHILD_LOST : CHILD_EXITED, &v));
        for (int i = 0; i < 3; i++) CHECK(!ticks[i] || gone(pids[i], ticks[i]));
        if (how == 2) CHECK_STR(v.reason, "its shim died");
        host_close(&h);
    }
}

TEST(job_executor_child_survives_kill_9_of_serve_and_is_adopted) {
    Ctx *c = real_ctx();
    const char *env[] = { arena_printf(c->mem, "LATHE_TEST_EXECUTOR=%s/run", test_dir()).p,
                          "PATH=/bin:/usr/bin", NULL };
    const char *argv[] = { arena_z(c->mem, os_program(c)), NULL };
    int64_t first_pid = 0;
    Host h;
    ChildView v;
    str handle = { 0 };
    for (int round = 0; round < 3; round++) { // each serve adopts what the one before left
        int fds[2];
        char line[64] = "";
        Process *p;
        ProcessExit how;
        CHECK(pipe2(fds, O_CLOEXEC) == 0);
        ProcessSpec spec = { .argv = argv, .env = env, .in_fd = -1, .out_fd = fds[1], .err_fd = 2 };
        CHECK_OK(c, process_start(c, &spec, NULL, NULL, NULL, &p));
        close(fds[1]);
        ssize_t n = 0, got;
        while (n < (ssize_t)sizeof line - 1 && (got = read(fds[0], line + n, 1)) == 1)
            if (line[n++] == '\n') break;
        close(fds[0]);
        process_signal(p, SIGKILL);
        CHECK_OK(c, process_wait(c, p, 20000, &how));
        process_free(p);
        CHECK(n > 1);
        line[n - 1] = 0;
        CHECK(!handle.p || str_is(handle, line)); // the same key, the same child
        handle = arena_str(c->mem, str_z(line));
    }
    CHECK_OK(c, host_open(&h, c));
    CHECK(until(&h, handle, CHILD_RUNNING, &v));
    CHECK(v.adopted && str_is(v.key, "model-1"));
    CHECK(log_has(&h, handle, "tick\n"));
    CHECK(log_pids(&h, handle, &first_pid, 1));
    CHECK_INT(v.pid, first_pid); // it prints its number once, when it starts
    ChildLog before, after;
    CHECK_OK(c, executor_logs(c, h.e, handle, 0, 1 << 20, &before));
    do CHECK_OK(c, executor_logs(c, h.e, handle, before.next, 1 << 20, &after)); // still at work
    while (!after.text.n);
    CHECK_OK(c, executor_cancel(c, h.e, handle, 0));
    CHECK(until(&h, handle, CHILD_EXITED, &v));
    host_close(&h);
}

TEST(job_executor_grace_ends_a_child_that_nobody_wants) {
    Ctx *c = real_ctx();
    Host h;
    ChildView v;
    CHECK_OK(c, host_open(&h, c));
    str handle = submit(&h, "k", "echo ready; exec sleep 1000", (ChildSpec){ .grace_ms = 300 });
    CHECK(until(&h, handle, CHILD_RUNNING, &v));
    int64_t pid = v.pid, ticks = pid_start_ticks(c->os, pid);
    int64_t held_ns = os_mono_ns(c->os) + (int64_t)600 * 1000000;
    while (os_mono_ns(c->os) < held_ns) // longer than the grace: it lives while it is held
        CHECK(pid_start_ticks(c->os, pid) == ticks);
    host_close(&h);
    CHECK(gone(pid, ticks));
    int64_t end_ns = os_mono_ns(c->os) + test_longer(20) * 1000000000;
    while (shim_pid(c, handle)) CHECK(os_mono_ns(c->os) < end_ns);
    CHECK_OK(c, host_open(&h, c));
    CHECK_OK(c, executor_observe(c, h.e, handle, &v));
    CHECK(v.state == CHILD_EXITED && v.exit_signal == SIGTERM);
    CHECK_STR(v.reason, "killed by signal 15: nobody came back for it");
    host_close(&h);
}

// The record is on the disk, and then serve died: the next submit with the key starts the child,
// once, and a child that nobody submits again is not waited for for ever.
TEST(job_executor_death_between_record_and_start) {
    Ctx *c = real_ctx();
    Host h;
    ChildView v;
    str dir = arena_printf(c->mem, "%s/run", test_dir());
    CHECK_OK(c, dir_make(c, dir, 0700));
    str record = arena_printf(c->mem, STR_FMT "/c_00000000000000000000000001.record", STR_ARG(dir));
    CHECK_OK(c, file_write_all(c, record, S("{\"version\":1,\"key\":\"k\"}"), 0));
    str orphan = arena_printf(c->mem, STR_FMT "/c_00000000000000000000000002.state", STR_ARG(dir));
    CHECK_OK(c, file_write_all(c, orphan, S("{}"), 0));
    CHECK_OK(c, host_open(&h, c));
    PathInfo info;
    CHECK_ERR(path_info(c, orphan, &info), ERR_NOTFOUND);
    CHECK_OK(c, executor_observe(c, h.e, S("c_00000000000000000000000001"), &v));
    CHECK_INT(v.state, CHILD_STARTING);
    const char *argv[] = { "/bin/true", NULL };
    str handle;
    executor_program(h.e, "/no/such/shim"); // nothing can be started just now
    ChildSpec spec = { .key = S("k"), .argv = argv };
    CHECK_ERR(executor_submit(c, h.e, &spec, &handle), ERR_NOTFOUND);
    executor_program(h.e, NULL);
    handle = submit(&h, "k", "echo once", (ChildSpec){ 0 });
    CHECK_STR(handle, "c_00000000000000000000000001");
    CHECK(until(&h, handle, CHILD_EXITED, &v));
    ChildLog l;
    CHECK_OK(c, executor_logs(c, h.e, handle, 0, 100, &l));
    CHECK_STR(l.text, "once\n");
    CHECK_OK(c, executor_forget(c, h.e, handle));
    host_close(&h);
    CHECK_OK(c, file_write_all(c, record, S("{\"version\":1,\"key\":\"k\"}"), 0));
    CHECK_OK(c, host_open(&h, c));
    CHECK_OK(c, executor_cancel(c, h.e, handle, 0));
    CHECK(until(&h, handle, CHILD_LOST, &v));
    host_close(&h);
}

// Shims that are started twice for one handle, as after a crash at the worst moment: one child.
TEST(job_executor_two_shims_hold_one_child) {
    Ctx *c = real_ctx();
    str dir = arena_printf(c->mem, "%s/run", test_dir());
    CHECK_OK(c, dir_make(c, dir, 0700));
    Process *p[6];
    ProcessExit how;
    const char *argv[] = { arena_z(c->mem, os_program(c)),
                           "shim",
                           arena_z(c->mem, dir),
                           "c_x",
                           "1000",
                           "600000", // its grace: nobody holds it
                           "0",
                           test_dir(),
                           "--",
                           "/bin/sh",
                           "-c",
                           "echo once >> starts; echo said",
                           NULL };
    ProcessSpec spec = { .argv = argv, .in_fd = -1, .out_fd = -1, .err_fd = 2 };
    for (int i = 0; i < 6; i++) CHECK_OK(c, process_start(c, &spec, NULL, NULL, NULL, &p[i]));
    for (int i = 0; i < 6; i++) {
        CHECK_OK(c, process_wait(c, p[i], 120000, &how));
        CHECK(how.code == 0 && how.signal == 0);
        process_free(p[i]);
    }
    ChildLog l;
    str starts;
    CHECK_OK(c, shim_log_read(c, arena_z(c->mem, dir), S("c_x"), 0, 1000, &l));
    CHECK_STR(l.text, "said\n");
    CHECK_OK(c, file_read_all(c, str_z(say(c, "%s/starts", test_dir())), 1000, &starts));
    CHECK_STR(starts, "once\n");
}

// The files of a cgroup, played by plain ones: what is written where, and that a machine without
// them is no failure. That a kernel keeps the limit is the kernel's.
TEST(job_executor_memory_limit_goes_to_a_cgroup) {
    Ctx *c = real_ctx();
    str dir = arena_printf(c->mem, "%s/run", test_dir()), own = S(""), text, line;
    CHECK_OK(c, dir_make(c, dir, 0700));
    CHECK_OK(c, file_read_all(c, S("/proc/self/cgroup"), 64 << 10, &text));
    while (str_cut(&text, '\n', &line))
        if (str_starts(line, S("0::/"))) own = str_sub(line, 3, line.n);
    const char *env[] = { arena_printf(c->mem, "LATHE_CGROUP_ROOT=%s", test_dir()).p, NULL };
    for (int there = 0; there < 2; there++) {
        const char *handle = there ? "c_in" : "c_out";
        str group =
            arena_printf(c->mem, "%s" STR_FMT "/lathe-%s", test_dir(), STR_ARG(own), handle);
        static const char *const files[] = { "memory.max", "cgroup.procs", "cgroup.kill",
                                             "memory.events" };
        if (there) CHECK_OK(c, dir_make(c, group, 0700));
        for (int i = 0; there && i < 4; i++) {
            str path = arena_printf(c->mem, STR_FMT "/%s", STR_ARG(group), files[i]);
            CHECK_OK(c, file_write_all(c, path, i == 3 ? S("low 0\noom_kill 1\n") : S(""), 0));
        }
        const char *argv[] = { arena_z(c->mem, os_program(c)),
                               "shim",
                               arena_z(c->mem, dir),
                               handle,
                               "1000",
                               "600000",
                               "123456789",
                               "-",
                               "--",
                               "/bin/sh",
                               "-c",
                               "echo $$",
                               NULL };
        ProcessSpec spec = { .argv = argv, .env = env, .in_fd = -1, .out_fd = -1, .err_fd = 2 };
        Process *p;
        ProcessExit how;
        ShimState s;
        CHECK_OK(c, process_start(c, &spec, NULL, NULL, NULL, &p));
        CHECK_OK(c, process_wait(c, p, 20000, &how));
        process_free(p);
        CHECK_OK(c, file_read_all(c, shim_file(c, arena_z(c->mem, dir), str_z(handle), FILE_STATE),
                                  4096, &text));
        CHECK_OK(c, shim_state_parse(c, text, &s));
        CHECK(s.state == CHILD_EXITED && s.exit_code == 0);
        PathInfo info;
        if (!there) CHECK_ERR(path_info(c, group, &info), ERR_NOTFOUND);
        if (!there) continue;
        CHECK_STR(s.reason, "exited with status 0: it needed more memory than it may");
        const char *want[] = { "123456789\n", say(c, "%lld\n", (long long)s.pid), "1\n" };
        for (int i = 0; i < 3; i++) {
            str path = arena_printf(c->mem, STR_FMT "/%s", STR_ARG(group), files[i]);
            CHECK_OK(c, file_read_all(c, path, 4096, &text));
            CHECK_STR(text, want[i]);
        }
    }
}

TEST(job_executor_never_touches_a_recycled_pid) {
    Ctx *c = real_ctx();
    Host h;
    ChildView v;
    Process *stranger;
    ProcessExit how;
    const char *argv[] = { "/bin/sleep", "1000", NULL };
    ProcessSpec spec = { .argv = argv, .in_fd = -1, .out_fd = -1, .err_fd = -1 };
    CHECK_OK(c, process_start(c, &spec, NULL, NULL, NULL, &stranger));
    str dir = arena_printf(c->mem, "%s/run", test_dir());
    CHECK_OK(c, dir_make(c, dir, 0700));
    ShimState s = { .state = CHILD_RUNNING, .pid = process_pid(stranger), .ticks = 12345 };
    str at = arena_printf(c->mem, STR_FMT "/c_00000000000000000000000001", STR_ARG(dir));
    CHECK_OK(c, file_write_all(c, arena_printf(c->mem, STR_FMT ".record", STR_ARG(at)),
                               S("{\"version\":1,\"key\":\"k\"}"), 0));
    CHECK_OK(c, shim_state_write(c, arena_printf(c->mem, STR_FMT ".state", STR_ARG(at)), &s));
    CHECK_OK(c, host_open(&h, c));
    CHECK_OK(c, executor_observe(c, h.e, S("c_00000000000000000000000001"), &v));
    CHECK(v.state == CHILD_LOST && v.memory_bytes == 0);
    CHECK(pid_start_ticks(c->os, process_pid(stranger)) != 0);
    host_close(&h);
    process_signal(stranger, SIGKILL);
    CHECK_OK(c, process_wait(c, stranger, 20000, &how));
    process_free(stranger);
}

// ---- binaries of different versions: words and fields that one side does not know change nothing

static int unix_socket(const char *path, bool listening) {
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    snprintf(to.sun_path, sizeof to.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval limit = { 20, 0 };
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    int rc = listening ? bind(fd, (struct sockaddr *)&to, sizeof to)
                       : connect(fd, (struct sockaddr *)&to, sizeof to);
    if (!rc && listening) rc = listen(fd, 1);
    return rc ? -1 : fd;
}

static str line_from(Ctx *c, int fd) {
    char line[4096];
    size_t n = 0;
    while (n < sizeof line) { // a limit of time (SO_RCVTIMEO) makes any signal end a read
        ssize_t got = read(fd, line + n, 1);
        if (got < 0 && errno == EINTR) continue;
        if (got != 1 || line[n] == '\n') break;
        n++;
    }
    return arena_str(c->mem, str_n(line, n));
}

// A child that only a stranger holds, who talks like a newer executor: on *out_fd, when it lives
// longer than its grace. False also when a busy machine let the grace pass before anybody held it.
static bool stranger_holds(Ctx *c, int64_t grace_ms, ChildView *out, int *out_fd) {
    Host h;
    const char *words = "\nfuture 1 2 3\nhold with more\ncancel x\ncancel -1\n";
    if (host_open(&h, c)) return false;
    str handle = submit(&h, say(c, "k%lld", (long long)grace_ms), "exec sleep 1000",
                        (ChildSpec){ .grace_ms = grace_ms });
    while (!executor_observe(c, h.e, handle, out) && out->state == CHILD_STARTING) sched_yield();
    int fd = unix_socket(say(c, "%s/run/" STR_FMT ".sock", test_dir(), STR_ARG(handle)), false);
    bool good =
        fd >= 0 && str_eq(line_from(c, fd), str_z(say(c, "shim 1 " STR_FMT, STR_ARG(handle))));
    good = good && str_starts(line_from(c, fd), S("state {\"version\":1,\"state\":\"running\","));
    good = good && write(fd, words, strlen(words)) == (ssize_t)strlen(words);
    host_close(&h);                                     // now only the stranger holds it
    struct pollfd end = { .fd = fd, .events = POLLIN }; // it would say that the child has ended
    if (good && poll(&end, 1, (int)grace_ms + 300) == 0) return *out_fd = fd, true;
    if (fd >= 0) close(fd);
    return false;
}

TEST(job_executor_shim_obeys_an_executor_of_another_version) {
    Ctx *c = real_ctx();
    ChildView v;
    int fd = -1;
    int64_t grace_ms = 200;
    while (!stranger_holds(c, grace_ms, &v, &fd)) CHECK((grace_ms *= 4) < 20000);
    int64_t ticks = pid_start_ticks(c->os, v.pid);
    CHECK(ticks);
    CHECK(write(fd, "cancel 0 now\ncancel 0\n", 22) == 22);
    str state = line_from(c, fd);
    CHECK(str_starts(state, S("state ")) && str_find(state, S("\"exited\"")) > 0);
    CHECK(gone(v.pid, ticks));
    close(fd);
}

// An older executor may say it once a second, each time with the same grace.
TEST(job_executor_shim_gives_no_more_time_when_asked_again) {
    Ctx *c = real_ctx();
    Host h;
    ChildView v;
    const char *words = "cancel 100\ncancel 3600000\n";
    CHECK_OK(c, host_open(&h, c));
    str deaf = submit(&h, "deaf", "trap '' TERM; echo ready; while :; do sleep 0.01; done",
                      (ChildSpec){ 0 });
    CHECK(log_has(&h, deaf, "ready"));
    int fd = unix_socket(say(c, "%s/run/" STR_FMT ".sock", test_dir(), STR_ARG(deaf)), false);
    CHECK(fd >= 0 && write(fd, words, strlen(words)) == (ssize_t)strlen(words));
    CHECK(until(&h, deaf, CHILD_EXITED, &v));
    CHECK_INT(v.exit_signal, SIGKILL);
    close(fd);
    host_close(&h);
}

TEST(job_executor_understands_a_shim_of_another_version) {
    Ctx *c = real_ctx();
    Host h;
    ChildView v;
    str handle = S("c_00000000000000000000000001"),
        dir = arena_printf(c->mem, "%s/run", test_dir());
    str at = arena_printf(c->mem, STR_FMT "/" STR_FMT, STR_ARG(dir), STR_ARG(handle));
    File *lock;
    CHECK_OK(c, dir_make(c, dir, 0700));
    str record = S("{\"version\":2,\"key\":\"k\",\"more\":[1]}");
    CHECK_OK(c, file_write_all(c, arena_printf(c->mem, STR_FMT ".record", STR_ARG(at)), record, 0));
    CHECK_OK(c, file_open(c, arena_printf(c->mem, STR_FMT ".lock", STR_ARG(at)),
                          FILE_READ | FILE_WRITE | FILE_CREATE, &lock));
    CHECK_OK(c, file_lock(c, lock)); // this test is the shim
    int listener = unix_socket(say(c, STR_FMT ".sock", STR_ARG(at)), true);
    CHECK(listener >= 0);
    CHECK_OK(c, host_open(&h, c));
    int fd = accept(listener, NULL, NULL);
    CHECK(fd >= 0);
    CHECK_STR(line_from(c, fd), "hold");
    dprintf(fd, "shim 2 x more\nnews of 2027\nstate {broken\nstate {\"version\":2,\"pid\":7,"
                "\"ticks\":8,\"new\":{},\"state\":\"running\"}\n");
    CHECK(until(&h, handle, CHILD_RUNNING, &v));
    CHECK(v.adopted && v.pid == 7);
    CHECK_OK(c, executor_cancel(c, h.e, handle, 1234));
    CHECK_STR(line_from(c, fd), "cancel 1234");
    close(fd); // a link that breaks is made again, and the cancel said again
    fd = accept(listener, NULL, NULL);
    CHECK(fd >= 0);
    CHECK_STR(line_from(c, fd), "hold");
    CHECK_STR(line_from(c, fd), "cancel 1234");
    dprintf(fd, "state {\"pid\":7,\"ticks\":8,\"state\":\"exited\",\"exit_code\":5}\n");
    CHECK(until(&h, handle, CHILD_EXITED, &v));
    CHECK_INT(v.exit_code, 5);
    close(fd);
    close(listener);
    file_close(lock);
    host_close(&h);
}

TEST(job_executor_log_is_a_ring) {
    Ctx *c = real_ctx();
    Host h;
    ChildView v;
    ChildLog l;
    CHECK_OK(c, host_open(&h, c));
    str handle = submit(&h, "k", "i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done",
                        (ChildSpec){ .log_max_bytes = 20000 });
    CHECK(until(&h, handle, CHILD_EXITED, &v));
    int64_t total = 10 * 2 + 90 * 3 + 900 * 4 + 9000 * 5 + 10000 * 6, offset = 0;
    str all = S("");
    do {
        CHECK_OK(c, executor_logs(c, h.e, handle, offset, 777, &l));
        CHECK(l.next == l.from + (int64_t)l.text.n && l.text.n <= 777);
        CHECK(offset == 0 || l.from == offset);
        all = arena_printf(c->mem, STR_FMT STR_FMT, STR_ARG(all), STR_ARG(l.text));
        offset = l.next;
    } while (l.text.n);
    CHECK_INT(offset, total); // offsets count what is gone, too
    CHECK(all.n > 10000 && all.n <= 20000);
    CHECK(str_ends(all, S("\n19998\n19999\n")));
    str *names;
    size_t n, logs = 0;
    CHECK_OK(c, dir_list(c, arena_printf(c->mem, "%s/run", test_dir()), &names, &n));
    for (size_t i = 0; i < n; i++) logs += str_find(names[i], S(FILE_LOG)) >= 0;
    CHECK_INT(logs, 2);
    host_close(&h);
}

// What serve has open is not the shim's, nor its child's.
TEST(job_executor_shim_holds_little) {
    Ctx *c = real_ctx();
    Host h;
    ChildView v;
    int secret = open(arena_printf(c->mem, "%s/secret", test_dir()).p, O_CREAT | O_RDWR, 0600);
    CHECK(secret >= 0); // without close-on-exec, as a careless library would
    CHECK_OK(c, host_open(&h, c));
    str handle =
        submit(&h, "k", "ls -l /proc/$$/fd; echo ready; exec sleep 1000", (ChildSpec){ 0 });
    CHECK(until(&h, handle, CHILD_RUNNING, &v));
    CHECK(log_has(&h, handle, "ready"));
    ChildLog l;
    CHECK_OK(c, executor_logs(c, h.e, handle, 0, 1 << 20, &l));
    CHECK(str_find(l.text, S("secret")) < 0);
    int64_t pid = shim_pid(c, handle);
    CHECK(pid > 0);
    const char *dir = say(c, "/proc/%lld/fd", (long long)pid);
    DIR *d = opendir(dir);
    CHECK(d);
    bool leaked = false;
    for (struct dirent *entry; (entry = readdir(d));) {
        char target[256] = "";
        ssize_t n = readlinkat(dirfd(d), entry->d_name, target, sizeof target - 1);
        leaked = leaked || (n > 0 && strstr(target, "secret"));
    }
    closedir(d);
    CHECK(!leaked);
    str status, line;
    CHECK_OK(c,
             file_read_all(c, str_z(say(c, "/proc/%lld/status", (long long)pid)), 8192, &status));
    int64_t anon_kb = -1;
    while (str_cut(&status, '\n', &line))
        if (str_starts(line, S("RssAnon:")))
            str_to_i64(str_trim(str_sub(line, 8, line.n - 8 - 3)), &anon_kb);
    CHECK(anon_kb > 0);
#ifndef __SANITIZE_ADDRESS__
#ifndef __SANITIZE_THREAD__
    CHECK(anon_kb < 4096);
#endif
#endif
    close(secret);
    CHECK_OK(c, executor_cancel(c, h.e, handle, 0));
    CHECK(until(&h, handle, CHILD_EXITED, &v));
    host_close(&h);
}
