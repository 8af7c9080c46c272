// SPDX-License-Identifier: Apache-2.0
// executor_link.c - the connections between the executor and its shims. Being connected and having
// said `hold` is what keeps a child alive beyond its grace time. A link that breaks is made again
// until the child's file says that it has ended, or nobody holds the shim's lock any more.
// Threads: the loop's, but for what says otherwise.
#include "job/executor_own.h"
#include <assert.h>
#include <signal.h>
#include <stdlib.h>

static void child_link_drop(Child *ch) {
    stream_free(ch->stream);
    ch->stream = NULL;
}

// ---- a child without a link: what do its files say (any thread)

static bool lock_is_held(Ctx *c, Child *ch) {
    File *f;
    str path = shim_file(c, ch->e->run_dir, str_z(ch->handle), FILE_LOCK);
    if (file_open(c, path, FILE_READ | FILE_WRITE, &f)) return false;
    bool held = file_lock(c, f) == ERR_CONFLICT;
    file_close(f);
    return held;
}

static void lose(Ctx *c, Child *ch, const ShimState *s, const char *why) {
    ShimState lost = *s;
    lost.state = CHILD_LOST;
    lost.ended_ms = os_wall_ms(c->os);
    lost.reason = str_z(why);
    // The child dies with its shim; this is for what it had started.
    for (int i = 0; i < 20; i++)
        if (!family_signal(c, str_z(ch->handle), s->pid, s->ticks, SIGKILL)) break;
    err e = shim_state_write(c, shim_file(c, ch->e->run_dir, str_z(ch->handle), FILE_STATE), &lost);
    (void)e; // found again at the next open
    child_state_set(ch, &lost);
}

bool child_settle(Ctx *c, Child *ch) {
    str text, path = shim_file(c, ch->e->run_dir, str_z(ch->handle), FILE_STATE);
    ShimState s = { .state = CHILD_STARTING };
    pthread_mutex_lock(&ch->e->lock);
    bool old = os_mono_ns(c->os) - ch->known_ns > (int64_t)NEVER_STARTED_MS * 1000000;
    bool known = ch->ended; // its shim told us, whatever it could write
    pthread_mutex_unlock(&ch->e->lock);
    if (known) return true;
    bool held = lock_is_held(c, ch); // first: a shim writes its state before it lets go
    bool written = !file_read_all(c, path, 64 << 10, &text) && !shim_state_parse(c, text, &s);
    if (written) child_state_set(ch, &s);
    bool ended = written && (s.state == CHILD_EXITED || s.state == CHILD_LOST);
    if (!ended && !held && (written || old)) {
        lose(c, ch, &s, written ? "its shim died" : "it was never started");
        ended = true;
    }
    pthread_mutex_lock(&ch->e->lock);
    ch->started = ch->started || held || written;
    pthread_mutex_unlock(&ch->e->lock);
    return ended;
}

// ---- the link

static void send_line(Child *ch, const char *line) {
    struct evbuffer *out = stream_out(ch->stream);
    evbuffer_add(out, line, strlen(line));
    stream_touch(ch->stream);
}

static void cancel_tell(Child *ch) {
    pthread_mutex_lock(&ch->e->lock);
    int64_t grace_ms = ch->cancel_grace_ms;
    pthread_mutex_unlock(&ch->e->lock);
    if (grace_ms < 0 || !ch->stream) return;
    char line[48];
    Buf b;
    buf_init(&b, sizeof line);
    buf_printf(&b, "cancel %lld\n", (long long)grace_ms);
    send_line(ch, buf_z(&b));
    buf_done(&b);
}

static void on_opened(void *arg) {
    Child *ch = arg;
    ch->retry_ms = RETRY_MIN_MS;
    send_line(ch, "hold\n");
    cancel_tell(ch);
}

// shim VERSION HANDLE | state JSON. Words that we do not know are of a newer shim: left alone.
static void learn(Child *ch, str line) {
    str word;
    ShimState s;
    Ctx c;
    if (!str_cut(&line, ' ', &word) || !str_is(word, "state")) return;
    ctx_init(&c, arena_new(), ch->e->os);
    if (!shim_state_parse(&c, line, &s)) child_state_set(ch, &s);
    arena_free(c.mem);
}

static void on_data(void *arg) {
    Child *ch = arg;
    size_t n;
    char *line;
    child_ref(ch); // `changed` may close the executor
    while (ch->stream && (line = evbuffer_readln(stream_in(ch->stream), &n, EVBUFFER_EOL_LF))) {
        learn(ch, str_n(line, n));
        free(line);
    }
    child_unref(ch);
}

static bool settle_here(Child *ch) {
    Ctx c;
    ctx_init(&c, arena_new(), ch->e->os);
    bool ended = child_settle(&c, ch);
    arena_free(c.mem);
    return ended;
}

static void on_ended(void *arg, StreamEnd why) {
    Child *ch = arg;
    (void)why;
    child_link_drop(ch);
    child_ref(ch);
    bool ended = settle_here(ch);
    if (ch->e->closed || !ch->retry) { // closed by `changed`
    } else if (ended) link_end(ch);
    else {
        timer_start(ch->retry, ch->retry_ms);
        ch->retry_ms = 2 * ch->retry_ms < RETRY_MAX_MS ? 2 * ch->retry_ms : RETRY_MAX_MS;
    }
    child_unref(ch);
}

static void connect_now(Child *ch) {
    static const StreamEvents events = { .opened = on_opened, .data = on_data, .ended = on_ended };
    Ctx c;
    Addr addr;
    ctx_init(&c, arena_new(), ch->e->os);
    str path = shim_file(&c, ch->e->run_dir, str_z(ch->handle), FILE_SOCKET);
    err e = addr_parse(&c, arena_printf(c.mem, "unix:" STR_FMT, STR_ARG(path)), &addr);
    arena_free(c.mem);
    if (e) return; // submit has checked it; one that was adopted has the same folder
    ch->stream = stream_connect(ch->e->l, &addr, 0, &events, ch);
}

static void on_retry(void *arg) {
    Child *ch = arg;
    if (!ch->stream) connect_now(ch);
}

// ---- posted from any thread; each post holds a reference

static void begin_posted(void *arg) {
    Child *ch = arg;
    pthread_mutex_lock(&ch->e->lock);
    bool ended = ch->ended;
    pthread_mutex_unlock(&ch->e->lock);
    if (!ch->e->closed && !loop_stopping(ch->e->l) && !ch->retry && !ended) {
        ch->retry_ms = RETRY_MIN_MS;
        ch->retry = timer_new(ch->e->l, on_retry, ch);
        connect_now(ch);
    }
    child_unref(ch);
}

void link_begin(Child *ch) {
    child_ref(ch);
    loop_post(ch->e->l, begin_posted, ch);
}

static void cancel_posted(void *arg) {
    Child *ch = arg;
    if (!ch->e->closed) cancel_tell(ch);
    child_unref(ch);
}

void link_cancel(Child *ch) {
    child_ref(ch);
    loop_post(ch->e->l, cancel_posted, ch);
}

static void forget_posted(void *arg) {
    Child *ch = arg;
    if (!ch->e->closed) {
        link_end(ch);
        child_unlist(ch);
    }
    child_unref(ch);
}

void link_forget(Child *ch) {
    child_ref(ch);
    loop_post(ch->e->l, forget_posted, ch);
}

void link_end(Child *ch) {
    child_link_drop(ch);
    timer_free(ch->retry);
    ch->retry = NULL;
    if (!ch->shim) return;
    process_free(ch->shim); // lives on; os/ waits for it
    ch->shim = NULL;
    child_unref(ch);
}

void link_shim_exited(void *arg, const ProcessExit *how) {
    Child *ch = arg;
    (void)how;
    process_free(ch->shim);
    ch->shim = NULL;
    pthread_mutex_lock(&ch->e->lock);
    ch->known_ns = INT64_MIN / 2; // one that never started will not start any more
    pthread_mutex_unlock(&ch->e->lock);
    if (!ch->stream && ch->retry) timer_start(ch->retry, 0); // looks at once what became of it
    child_unref(ch);
}
