// SPDX-License-Identifier: Apache-2.0
// process_test.c - real children: how they end, what they inherit, who dies with whom, the sandbox.
// Where a shell cannot play the child, this very program does: a role in the environment, taken
// before main.
#include "base/test.h"
#include "os/file.h"
#include "os/process.h"
#include "os/stream.h"
#include "os/thread.h"
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static Ctx *real_ctx(void) {
    Ctx *c = test_ctx();
    c->os = os_real();
    return c;
}

static ProcessSpec sh(const char *script) {
    static const char *argv[4];
    argv[0] = "/bin/sh";
    argv[1] = "-c";
    argv[2] = script;
    argv[3] = NULL;
    return (ProcessSpec){ .argv = argv, .in_fd = -1, .out_fd = -1, .err_fd = -1 };
}

// Runs it to its end and gives what it wrote to its standard output.
static err run_spec(Ctx *c, ProcessSpec spec, ProcessExit *out_exit, str *out_text) {
    int fds[2];
    Process *p;
    Buf b;
    TRY(pipe_make(c, fds));
    fcntl(fds[0], F_SETFL, 0); // a test may block
    spec.out_fd = fds[1];
    err e = process_start(c, &spec, NULL, NULL, NULL, &p);
    close(fds[1]);
    buf_init(&b, 1 << 20);
    for (ssize_t n = 1; !e && n > 0;) {
        n = read(fds[0], buf_reserve(&b, 4096), 4096);
        if (n > 0) buf_commit(&b, (size_t)n);
    }
    close(fds[0]);
    *out_text = arena_str(c->mem, buf_str(&b));
    buf_done(&b);
    if (e) return e;
    e = process_wait(c, p, test_longer(20000), out_exit);
    process_free(p);
    return e;
}

TEST(os_process_ends_with_a_code_or_a_signal) {
    Ctx *c = real_ctx();
    ProcessExit how;
    str text;
    CHECK_OK(c, run_spec(c, sh("echo hi; exit 7"), &how, &text));
    CHECK_INT(how.code, 7);
    CHECK_INT(how.signal, 0);
    CHECK_STR(text, "hi\n");
    CHECK(how.memory_peak_bytes > 0);
    CHECK_OK(c,
             run_spec(c, sh("kill -PIPE $$; exit 3"), &how, &text)); // ours is ignored, its is not
    CHECK_INT(how.signal, SIGPIPE);
}

TEST(os_process_that_cannot_start) {
    Ctx *c = real_ctx();
    ProcessExit how;
    str text;
    const char *argv[] = { "/no/such/program", NULL };
    ProcessSpec spec = { .argv = argv, .in_fd = -1, .out_fd = -1, .err_fd = -1 };
    CHECK_ERR(run_spec(c, spec, &how, &text), ERR_NOTFOUND);
    CHECK_STR(failure_param(&c->failure, "path"), "/no/such/program");
    argv[0] = "/etc/passwd";
    CHECK_ERR(run_spec(c, spec, &how, &text), ERR_DENIED);
    spec = sh("true");
    spec.cwd = "/no/such/place";
    CHECK_ERR(run_spec(c, spec, &how, &text), ERR_NOTFOUND);
}

TEST(os_process_inherits_little) {
    Ctx *c = real_ctx();
    ProcessExit how;
    str text, line;
    setenv("LATHE_TEST_SECRET", "hunter2", 1);
    int leak = open("/dev/null", O_RDONLY); // a library's, without close-on-exec
    CHECK_OK(c,
             run_spec(c, sh("env | grep -c SECRET; ls /proc/self/fd | wc -w; pwd"), &how, &text));
    close(leak);
    unsetenv("LATHE_TEST_SECRET");
    CHECK(str_cut(&text, '\n', &line));
    CHECK_STR(line, "0");
    CHECK(str_cut(&text, '\n', &line));
    CHECK_STR(str_trim(line), "4"); // 0, 1, 2 and ls's own directory
}

TEST(os_process_env_cwd_and_limits) {
    Ctx *c = real_ctx();
    ProcessExit how;
    str text;
    const char *env[] = { "A=b", NULL };
    ProcessSpec spec = sh("echo $A; pwd; ulimit -v; ulimit -f; ulimit -t");
    spec.env = env;
    spec.cwd = "/";
    spec.memory_max_bytes = 1 << 30;
    spec.file_max_bytes = 1 << 20;
    spec.cpu_max_s = 9;
    CHECK_OK(c, run_spec(c, spec, &how, &text));
    CHECK_STR(text, "b\n/\n1048576\n2048\n9\n"); // KiB, blocks of 512, seconds
}

// --- this program as a child

static err start_role(Ctx *c, const char *role, ProcessSpec spec, ProcessExit *out_exit, str *out) {
    const char *argv[] = { arena_z(c->mem, os_program(c)), NULL };
    const char *env[] = { say(c, "LATHE_TEST_ROLE=%s", role), "PATH=/usr/bin:/bin", NULL };
    spec.argv = argv;
    spec.env = env;
    spec.in_fd = spec.err_fd = -1;
    return run_spec(c, spec, out_exit, out);
}

static void role_limits(Ctx *c) { // our soft limit is raised, our child gets the old one
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    printf("%d ", files.rlim_cur == files.rlim_max);
    fflush(stdout);
    ProcessSpec spec = sh("ulimit -Sn");
    spec.out_fd = 1;
    Process *p;
    ProcessExit how;
    if (process_start(c, &spec, NULL, NULL, NULL, &p) || process_wait(c, p, -1, &how)) _exit(1);
}

static void role_relimit(Ctx *c) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = 123;
    setrlimit(RLIMIT_NOFILE, &files);
    setenv("LATHE_TEST_ROLE", "limits", 1);
    execl(os_program(c).p, "again", NULL);
}

// Leaves two children behind, one tied to it and one detached, and says their pids.
static void role_parent(Ctx *c) {
    for (int i = 0; i < 2; i++) {
        ProcessSpec spec = sh("exec sleep 1000");
        spec.detached = i;
        Process *p;
        if (process_start(c, &spec, NULL, NULL, NULL, &p)) _exit(1);
        printf("%lld %lld\n", (long long)process_pid(p),
               (long long)pid_start_ticks(c->os, process_pid(p)));
    }
    fflush(stdout);
}

static void role_socket(Ctx *c) {
    (void)c;
    int pair[2], fd = socket(AF_INET, SOCK_STREAM, 0);
    const char *inet = fd < 0 ? strerror(errno) : "ok";
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    const char *local = fd < 0 ? strerror(errno) : "ok";
    printf("%s, %s, %d\n", inet, local, socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    fflush(stdout);
}

__attribute__((constructor)) static void play_role(void) {
    const char *role = getenv("LATHE_TEST_ROLE");
    if (!role) return;
    Arena *a = arena_new();
    Ctx c;
    ctx_init(&c, a, os_real());
    if (!strcmp(role, "limits")) role_limits(&c);
    if (!strcmp(role, "relimit")) role_relimit(&c);
    if (!strcmp(role, "parent")) role_parent(&c);
    if (!strcmp(role, "socket")) role_socket(&c);
    _exit(0);
}

static const ProcessSpec plain = { .out_fd = -1 };

TEST(os_process_gets_the_first_limit_of_files) {
    Ctx *c = real_ctx();
    ProcessExit how;
    str text;
    CHECK_OK(c, start_role(c, "relimit", plain, &how, &text));
    CHECK_STR(text, "1 123\n");
}

// True when the process is gone within ten seconds.
static bool goes_away(Os *os, int64_t pid, int64_t ticks) {
    for (int64_t until = os_mono_ns(os) + test_longer(10000000000); os_mono_ns(os) < until;
         sched_yield())
        if (pid_start_ticks(os, pid) != ticks) return true;
    return false;
}

TEST(os_process_dies_with_its_parent_unless_detached) {
    Ctx *c = real_ctx();
    ProcessExit how;
    str text;
    long long tied, tied_ticks, loose, loose_ticks;
    CHECK_OK(c, start_role(c, "parent", plain, &how, &text));
    CHECK_INT(sscanf(text.p, "%lld %lld %lld %lld", &tied, &tied_ticks, &loose, &loose_ticks), 4);
    CHECK(goes_away(c->os, tied, tied_ticks));
    CHECK(!pid_signal(c->os, tied, tied_ticks, 0));
    CHECK_INT(pid_start_ticks(c->os, loose), loose_ticks);
    CHECK_INT(getsid((pid_t)loose), loose);
    CHECK(!pid_signal(c->os, loose, loose_ticks + 1, SIGKILL)); // a recycled pid is not it
    CHECK_INT(pid_start_ticks(c->os, loose), loose_ticks);
    CHECK(pid_memory_bytes(c->os, loose) > 0);
    CHECK(pid_signal(c->os, loose, loose_ticks, SIGKILL));
    CHECK(goes_away(c->os, loose, loose_ticks));
    CHECK_INT(pid_memory_bytes(c->os, 0), 0);
}

typedef struct Starter {
    Ctx *c;
    Process *p;
    err e;
} Starter;
static void start_sleeper(void *arg) {
    Starter *s = arg;
    ProcessSpec spec = sh("exec sleep 1000");
    s->e = process_start(s->c, &spec, NULL, NULL, NULL, &s->p);
}

TEST(os_process_outlives_the_thread_that_started_it) {
    Ctx *c = real_ctx();
    Starter s = { .c = c };
    Thread t;
    ProcessExit how;
    thread_start(c->os, "starter", start_sleeper, &s, &t);
    thread_join(t);
    CHECK_OK(c, s.e);
    CHECK_ERR(process_wait(c, s.p, 50, &how), ERR_TIMEOUT); // it still runs
    process_signal(s.p, SIGTERM);
    CHECK_OK(c, process_wait(c, s.p, -1, &how));
    CHECK_INT(how.signal, SIGTERM);
    process_free(s.p);
}

TEST(os_process_forgotten_leaves_no_zombie) {
    Ctx *c = real_ctx();
    Starter s = { .c = c };
    start_sleeper(&s);
    CHECK_OK(c, s.e);
    int64_t pid = process_pid(s.p), until = os_mono_ns(c->os) + test_longer(10000000000);
    CHECK(pid_start_ticks(c->os, pid) > 0 && !pid_ending(c->os, pid));
    process_free(s.p);
    CHECK(kill((pid_t)pid, 0) == 0); // forgotten, not ended
    kill((pid_t)pid, SIGKILL);
    CHECK(pid_ending(c->os, pid)); // from this moment on, whatever it has taken of it
    while (kill((pid_t)pid, 0) == 0 && os_mono_ns(c->os) < until) sched_yield();
    CHECK(kill((pid_t)pid, 0) < 0 && errno == ESRCH); // a zombie would still take signals
}

// --- exits and output on a loop

typedef struct Watch {
    Loop *l;
    Timer *limit;
    Process *p;
    Stream *out;
    ProcessExit how;
    int exits, ends;
    char text[64];
    bool late, free_within;
} Watch;

static void watch_late(void *arg) {
    ((Watch *)arg)->late = true;
    loop_stop(((Watch *)arg)->l);
}
static void watch_check(Watch *w) {
    if (w->exits && (w->ends || !w->out)) loop_stop(w->l);
}
static void watch_exited(void *arg, const ProcessExit *how) {
    Watch *w = arg;
    w->how = *how;
    w->exits++;
    if (w->free_within) {
        process_free(w->p);
        w->p = NULL;
    }
    watch_check(w);
}
static void watch_ended(void *arg, StreamEnd why) {
    Watch *w = arg;
    w->ends += why == STREAM_EOF;
    evbuffer_remove(stream_in(w->out), w->text, sizeof w->text - 1);
    watch_check(w);
}
static void watch_begin(Watch *w) {
    *w = (Watch){ .l = loop_new(os_real()) };
    w->limit = timer_new(w->l, watch_late, w);
    timer_start(w->limit, test_longer(10000));
}
static bool watch_run(Watch *w) {
    loop_run(w->l);
    stream_free(w->out);
    process_free(w->p);
    timer_free(w->limit);
    loop_free(w->l);
    return !w->late;
}

TEST(os_process_exit_and_output_come_on_the_loop) {
    static const StreamEvents ev = { .ended = watch_ended };
    Ctx *c = real_ctx();
    Watch w;
    int fds[2];
    watch_begin(&w);
    CHECK_OK(c, pipe_make(c, fds));
    ProcessSpec spec = sh("echo one; echo two >&2; exit 5");
    spec.out_fd = spec.err_fd = fds[1];
    CHECK_OK(c, process_start(c, &spec, w.l, watch_exited, &w, &w.p));
    close(fds[1]);
    w.out = stream_adopt(w.l, fds[0], &ev, &w);
    CHECK(watch_run(&w));
    CHECK_INT(w.exits, 1);
    CHECK_INT(w.how.code, 5);
    CHECK_STR(str_z(w.text), "one\ntwo\n");
}

// The group of a detached child: the shell and what it started.
TEST(os_process_signal_reaches_the_group) {
    Ctx *c = real_ctx();
    Watch w;
    int fds[2];
    char text[32] = "";
    watch_begin(&w);
    w.free_within = true;
    CHECK_OK(c, pipe_make(c, fds));
    fcntl(fds[0], F_SETFL, 0);
    ProcessSpec spec = sh("sleep 1000 & echo $!; wait");
    spec.out_fd = fds[1];
    spec.detached = true;
    CHECK_OK(c, process_start(c, &spec, w.l, watch_exited, &w, &w.p));
    close(fds[1]);
    CHECK(read(fds[0], text, sizeof text - 1) > 0);
    int64_t grandchild = 0;
    CHECK(str_to_i64(str_trim(str_z(text)), &grandchild));
    int64_t ticks = pid_start_ticks(c->os, grandchild);
    CHECK(ticks > 0);
    process_signal(w.p, SIGKILL);
    CHECK(watch_run(&w));
    CHECK_INT(w.how.signal, SIGKILL);
    CHECK(goes_away(c->os, grandchild, ticks));
    close(fds[0]);
}

static void start_on_loop(void *arg) { // from a thread that is not the loop's
    Watch *w = arg;
    Ctx *c = test_ctx();
    c->os = os_real();
    ProcessSpec spec = sh("exit 4");
    if (process_start(c, &spec, w->l, watch_exited, w, &w->p)) loop_stop(w->l);
}

TEST(os_process_started_by_another_thread) {
    Watch w;
    Thread t;
    watch_begin(&w);
    thread_start(os_real(), "starter", start_on_loop, &w, &t);
    loop_run(w.l);
    thread_join(t);
    CHECK(watch_run(&w));
    CHECK_INT(w.how.code, 4);
}

// --- sandbox

TEST(os_sandbox_denies_network) {
    Ctx *c = real_ctx();
    ProcessExit how;
    str text;
    CHECK_OK(c, start_role(c, "socket", plain, &how, &text));
    CHECK_STR(text, "ok, ok, 0\n");
    CHECK_STR(str_z(process_sandbox_name(c->os)), "seccomp");
    ProcessSpec spec = plain;
    spec.no_network = true;
    CHECK_OK(c, start_role(c, "socket", spec, &how, &text));
    CHECK_STR(text, "Operation not permitted, Operation not permitted, 0\n");
}

TEST(os_sandbox_denies_new_files) {
    static const char *const script =
        "echo x > new; echo x >> old; mkdir dir; rm old; mv old older; ln old link; chmod 777 old;"
        "touch old; cat old; echo done";
    Ctx *c = real_ctx();
    ProcessExit how;
    str text, *names;
    size_t n;
    CHECK_OK(c, file_write_all(c, arena_printf(c->mem, "%s/old", test_dir()), S("kept\n"), 0));
    ProcessSpec spec = sh(script);
    spec.cwd = test_dir();
    spec.no_new_files = true;
    CHECK_OK(c, run_spec(c, spec, &how, &text));
    CHECK_STR(text, "kept\ndone\n"); // reading, and writing where it was let, go on
    CHECK_OK(c, dir_list(c, str_z(test_dir()), &names, &n));
    CHECK_INT(n, 1);
    spec = sh(script);
    spec.cwd = test_dir();
    CHECK_OK(c, run_spec(c, spec, &how, &text));
    CHECK_OK(c, dir_list(c, str_z(test_dir()), &names, &n));
    CHECK(n > 1); // the same script does all that without the sandbox
}
