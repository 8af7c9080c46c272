// SPDX-License-Identifier: Apache-2.0
// shim.c - the holder of one child:
//     lathe shim RUN_DIR HANDLE LOG_MAX GRACE_MS MEMORY_MAX CWD|- -- ARGV...
// It takes the handle's lock, starts the child, writes its output to the ring, answers holders on
// its socket, and when the last of them is gone waits the grace time before it ends the child. It
// writes down what became of the child, then leaves. Owner: its loop. Threads: one.
#include "job/shim_own.h"
#include <assert.h>
#include <signal.h>
#include <stdlib.h>

extern char **environ; // POSIX: declared by the program

enum { HOLDERS_MAX = 16, SWEEP_MS = 10, SWEEPS_MAX = 300, DRAINS_MAX = 20, LOCK_MS = 2000 };

typedef struct Holder {
    struct Shim *s;
    Stream *stream; // NULL: a free place
    bool holds;     // it said `hold`
} Holder;

typedef struct Shim {
    Ctx c; // its arena is emptied after each event
    Os *os;
    Loop *l;
    Arena *mem;
    const char *run_dir;
    str handle, cwd, cgroup; // cgroup absent: none
    const char *const *argv;
    int64_t grace_ms, memory_max;
    void (*exit)(void *proc, int code);
    void *proc;

    File *lock;
    int64_t lock_until_ns;
    Listener *listener;
    Holder holders[HOLDERS_MAX];
    Process *child;
    Stream *out; // the child's output; NULL: all of it came
    ShimLog log;
    ShimState state;
    const char *why;    // we end it: what the reason adds
    bool gone, killing; // the child has exited; SIGKILL was sent
    int64_t kill_ns;    // when it is sent, once there is a why
    int sweeps;
    Timer *grace, *kill, *sweep, *locking;
} Shim;

static void scratch_reset(Shim *s) {
    arena_reset(s->c.mem);
    s->c.failure = (Failure){ 0 };
}

// ---- leaving

static void shim_free(Shim *s) {
    for (int i = 0; i < HOLDERS_MAX; i++) stream_free(s->holders[i].stream);
    listener_close(s->listener);
    stream_free(s->out);
    process_free(s->child);
    shim_log_close(&s->log);
    file_close(s->lock);
    timer_free(s->grace);
    timer_free(s->kill);
    timer_free(s->sweep);
    timer_free(s->locking);
    arena_free(s->c.mem);
    arena_free(s->mem);
    mem_free(s);
}

static void leave(Shim *s) {
    void (*exit_fn)(void *, int) = s->exit;
    void *proc = s->proc;
    for (int i = 0; i < HOLDERS_MAX; i++) { // what was said still leaves
        if (s->holders[i].stream) stream_shut(s->holders[i].stream);
        s->holders[i].stream = NULL;
    }
    shim_free(s);
    exit_fn(proc, 0);
}

static void say_line(Shim *s, Holder *h, const char *word, str rest) {
    (void)s;
    struct evbuffer *out = stream_out(h->stream);
    evbuffer_add_printf(out, "%s " STR_FMT "\n", word, STR_ARG(rest));
    stream_touch(h->stream);
}

static void state_say(Shim *s, Holder *only) {
    Buf b;
    buf_init(&b, SHIM_LINE_MAX);
    shim_state_format(&s->state, &b);
    for (int i = 0; i < HOLDERS_MAX; i++)
        if (s->holders[i].stream && (!only || only == &s->holders[i]))
            say_line(s, &s->holders[i], "state", buf_str(&b));
    buf_done(&b);
}

// Who learns it through the socket may act on it: so it is on the disk first.
static void state_set(Shim *s, ChildState state) {
    s->state.state = state;
    err e = shim_state_write(&s->c, shim_file(&s->c, s->run_dir, s->handle, FILE_STATE), &s->state);
    (void)e; // holders are told all the same; without one, a later executor finds it lost
    state_say(s, NULL);
}

static void finish(Shim *s) {
    s->state.ended_ms = os_wall_ms(s->os);
    if (!s->why && cgroup_ran_out(&s->c, s->cgroup)) s->why = "it needed more memory than it may";
    cgroup_remove(&s->c, s->cgroup);
    const char *how = s->state.exit_signal ? "killed by signal" : "exited with status";
    int64_t number = s->state.exit_signal ? s->state.exit_signal : s->state.exit_code;
    if (!s->state.reason.p)
        s->state.reason = arena_printf(s->mem, "%s %lld%s%s", how, (long long)number,
                                       s->why ? ": " : "", s->why ? s->why : "");
    state_set(s, CHILD_EXITED);
    leave(s);
}

// ---- the end of the child

// After the child itself, what it left running; then the rest of its output.
static void on_sweep(void *arg) {
    Shim *s = arg;
    scratch_reset(s);
    bool swept = s->sweeps > SWEEPS_MAX;
    if (!swept) cgroup_kill(&s->c, s->cgroup);
    size_t left = swept ? 0 : family_signal(&s->c, s->handle, 0, 0, SIGKILL);
    if (left && s->sweeps++ < SWEEPS_MAX) {
        timer_start(s->sweep, SWEEP_MS);
        return;
    }
    s->sweeps = swept ? s->sweeps + 1 : SWEEPS_MAX + 1;
    // In many short turns: each reads what has come, also when the machine is slow.
    if (!s->out || s->sweeps > SWEEPS_MAX + DRAINS_MAX) finish(s);
    else timer_start(s->sweep, SWEEP_MS);
}

static void on_exit_of_child(void *arg, const ProcessExit *how) {
    Shim *s = arg;
    s->gone = true;
    s->state.exit_code = how->code;
    s->state.exit_signal = how->signal;
    timer_stop(s->kill);
    timer_stop(s->grace);
    on_sweep(s);
}

static void on_kill(void *arg) { // again while it is not gone: it may have started more
    Shim *s = arg;
    scratch_reset(s);
    s->killing = true;
    cgroup_kill(&s->c, s->cgroup);
    family_signal(&s->c, s->handle, s->state.pid, s->state.ticks, SIGKILL);
    if (!s->gone) timer_start(s->kill, 10 * SWEEP_MS);
}

static void terminate(Shim *s, int64_t grace_ms, const char *why) {
    enum { GRACE_MOST_MS = 86400000 };
    grace_ms = grace_ms > GRACE_MOST_MS ? GRACE_MOST_MS : grace_ms > 0 ? grace_ms : 0;
    int64_t kill_ns = os_mono_ns(s->os) + grace_ms * 1000000;
    if (s->gone || s->killing || !s->child) return;
    if (s->why && s->kill_ns <= kill_ns) return; // asked again it has no more time than before
    s->kill_ns = kill_ns;
    if (!s->why) {
        s->why = why;
        if (grace_ms > 0) family_signal(&s->c, s->handle, s->state.pid, s->state.ticks, SIGTERM);
    }
    timer_start(s->kill, grace_ms);
}

static void on_grace(void *arg) {
    Shim *s = arg;
    scratch_reset(s);
    terminate(s, TERM_GRACE_MS, "nobody came back for it");
}

static void on_signal(void *arg, int signal) {
    Shim *s = arg;
    (void)signal;
    scratch_reset(s);
    terminate(s, TERM_GRACE_MS, "the machine asked its shim to stop");
}

// ---- output

static void on_output(void *arg) {
    Shim *s = arg;
    struct evbuffer *in = stream_in(s->out);
    scratch_reset(s);
    while (evbuffer_get_length(in)) {
        size_t n = evbuffer_get_contiguous_space(in);
        shim_log_write(&s->c, &s->log, str_n(evbuffer_pullup(in, (ssize_t)n), n));
        evbuffer_drain(in, n);
    }
}

static void on_output_end(void *arg, StreamEnd why) {
    Shim *s = arg;
    (void)why;
    on_output(s);
    stream_free(s->out);
    s->out = NULL;
    if (s->gone && s->sweeps > SWEEPS_MAX) timer_start(s->sweep, 0);
}

// ---- holders

static void grace_look(Shim *s) {
    bool held = false;
    for (int i = 0; i < HOLDERS_MAX; i++) held = held || s->holders[i].holds;
    if (held) timer_stop(s->grace);
    else if (!timer_running(s->grace)) timer_start(s->grace, s->grace_ms);
}

static void holder_drop(Holder *h) {
    stream_free(h->stream);
    h->stream = NULL;
    h->holds = false;
    grace_look(h->s);
}

static void on_holder_end(void *arg, StreamEnd why) {
    (void)why;
    holder_drop(arg);
}

// hold | cancel GRACE_MS. Words that we do not know are of a newer executor: left alone.
static void obey(Holder *h, str line) {
    str word;
    int64_t ms;
    if (!str_cut(&line, ' ', &word)) return;
    if (str_is(word, "hold")) {
        h->holds = true;
        grace_look(h->s);
    }
    if (str_is(word, "cancel") && str_to_i64(line, &ms) && ms >= 0)
        terminate(h->s, ms, "it was cancelled");
}

static void on_holder_data(void *arg) {
    Holder *h = arg;
    struct evbuffer *in = stream_in(h->stream);
    size_t n;
    char *line;
    scratch_reset(h->s);
    while ((line = evbuffer_readln(in, &n, EVBUFFER_EOL_LF))) {
        obey(h, str_n(line, n));
        free(line);
    }
    if (evbuffer_get_length(in) > SHIM_LINE_MAX) holder_drop(h);
}

static void on_accept(void *arg, Loop *l, Stream *stream) {
    static const StreamEvents events = { .data = on_holder_data, .ended = on_holder_end };
    Shim *s = arg;
    (void)l;
    int i = 0;
    while (i < HOLDERS_MAX && s->holders[i].stream) i++;
    if (i == HOLDERS_MAX) {
        stream_free(stream);
        return;
    }
    Holder *h = &s->holders[i];
    *h = (Holder){ s, stream, false };
    stream_events(stream, &events, h);
    scratch_reset(s);
    say_line(s, h, "shim", arena_printf(s->c.mem, "%d " STR_FMT, SHIM_VERSION, STR_ARG(s->handle)));
    state_say(s, h);
}

// ---- starting

static const char *const *child_env(Shim *s) {
    size_t n = 0;
    while (environ[n]) n++;
    const char **env = new (s->c.mem, const char *, n + 2);
    memcpy(env, environ, n * sizeof *env);
    env[n] = arena_printf(s->c.mem, COOKIE STR_FMT, STR_ARG(s->handle)).p;
    return env;
}

static err child_start(Shim *s) {
    static const StreamEvents events = { .data = on_output, .ended = on_output_end };
    int fds[2];
    TRY(pipe_make(&s->c, fds));
    ProcessSpec spec = { .argv = s->argv,
                         .env = child_env(s),
                         .cwd = s->cwd.p ? arena_z(s->c.mem, s->cwd) : NULL,
                         .in_fd = -1,
                         .out_fd = fds[1],
                         .err_fd = fds[1] };
    s->state.started_ms = os_wall_ms(s->os);
    err e = process_start(&s->c, &spec, s->l, on_exit_of_child, s, &s->child);
    pipe_close(s->os, fds[1]);
    if (e) pipe_close(s->os, fds[0]);
    else s->out = stream_adopt(s->l, fds[0], &events, s);
    if (e) return e;
    s->state.pid = process_pid(s->child);
    s->state.ticks = pid_start_ticks(s->os, s->state.pid);
    s->cgroup = cgroup_make(&s->c, s->mem, s->handle, s->memory_max, s->state.pid);
    return ERR_OK;
}

static err begin(Shim *s) {
    Addr addr;
    Loop *const loops[] = { s->l };
    str socket = shim_file(&s->c, s->run_dir, s->handle, FILE_SOCKET);
    TRY(addr_parse(&s->c, arena_printf(s->c.mem, "unix:" STR_FMT, STR_ARG(socket)), &addr));
    ListenSpec spec = { loops, 1, &addr, on_accept, s };
    TRY(listener_open(&s->c, &spec, &s->listener));
    state_set(s, CHILD_STARTING);
    TRY(child_start(s));
    state_set(s, CHILD_RUNNING);
    grace_look(s);
    return ERR_OK;
}

static void fail_to_start(Shim *s) {
    Buf b;
    buf_init(&b, 4096);
    failure_format(&s->c.failure, "en", &b);
    s->state.reason = arena_printf(s->mem, "it could not be started: %s", buf_z(&b));
    s->state.exit_code = 127;
    buf_done(&b);
    finish(s);
}

// A starting shim may meet an executor that looks whether anyone holds the lock: so it tries for a
// while. One that finds a state came too late: the child has been held already.
static void on_locking(void *arg) {
    Shim *s = arg;
    PathInfo info;
    scratch_reset(s);
    err e = file_lock(&s->c, s->lock);
    if (e == ERR_CONFLICT && os_mono_ns(s->os) < s->lock_until_ns) {
        timer_start(s->locking, SWEEP_MS);
        return;
    }
    if (!e) e = path_info(&s->c, shim_file(&s->c, s->run_dir, s->handle, FILE_STATE), &info);
    if (e != ERR_NOTFOUND) {
        leave(s);
        return;
    }
    e = begin(s);
    if (e) fail_to_start(s);
}

static bool args_take(Shim *s, const char *const *argv) {
    size_t n = 0;
    while (argv[n]) n++;
    size_t at = n && !strcmp(argv[0], "shim") ? 1 : 2; // with or without the program's name
    if (n < at + 8 || strcmp(argv[at + 6], "--") != 0) return false;
    s->run_dir = arena_z(s->mem, str_z(argv[at]));
    s->handle = arena_str(s->mem, str_z(argv[at + 1]));
    if (!str_to_i64(str_z(argv[at + 2]), &s->log.max) || s->log.max < 2) return false;
    if (!str_to_i64(str_z(argv[at + 3]), &s->grace_ms) || s->grace_ms < 0) return false;
    if (!str_to_i64(str_z(argv[at + 4]), &s->memory_max) || s->memory_max < 0) return false;
    if (strcmp(argv[at + 5], "-") != 0) s->cwd = arena_str(s->mem, str_z(argv[at + 5]));
    s->argv = argv + at + 7;
    return true;
}

void *shim_start(void *arg, Os *os, Loop *l, const char *const *argv,
                 void (*exit_fn)(void *proc, int code), void *proc) {
    (void)arg;
    Shim *s = mem_new(sizeof *s);
    s->os = os;
    s->l = l;
    s->mem = arena_new();
    s->exit = exit_fn;
    s->proc = proc;
    ctx_init(&s->c, arena_new(), os);
    s->grace = timer_new(l, on_grace, s);
    s->kill = timer_new(l, on_kill, s);
    s->sweep = timer_new(l, on_sweep, s);
    s->locking = timer_new(l, on_locking, s);
    s->lock_until_ns = os_mono_ns(os) + (int64_t)LOCK_MS * 1000000;
    bool good = args_take(s, argv);
    if (good) {
        s->log.run_dir = s->run_dir;
        s->log.handle = s->handle;
        s->log.older = -1;
        str lock = shim_file(&s->c, s->run_dir, s->handle, FILE_LOCK);
        good =
            !file_open(&s->c, lock, FILE_READ | FILE_WRITE | FILE_CREATE | FILE_PRIVATE, &s->lock);
    }
    if (!good) {
        shim_free(s);
        exit_fn(proc, 2);
        return NULL;
    }
    loop_on_signal(l, SIGTERM, on_signal, s);
    timer_start(s->locking, 0);
    return s;
}

void shim_killed(void *shim, int signal) {
    (void)signal;
    if (shim) shim_free(shim);
}

typedef struct Main {
    Loop *l;
    int code;
} Main;

static void main_exit(void *arg, int code) {
    Main *m = arg;
    m->code = code;
    loop_stop(m->l);
}

int shim_main(int argc, char **argv) {
    assert(argc >= 1 && !argv[argc]);
    Main m = { 0 };
    Ctx c;
    ctx_init(&c, arena_new(), os_real());
    err e = loop_open(&c, &m.l);
    arena_free(c.mem);
    if (e) return 2; // as without its lock: who submitted it sees it gone
    shim_start(NULL, os_real(), m.l, (const char *const *)argv, main_exit, &m);
    loop_run(m.l);
    loop_free(m.l);
    return m.code;
}
