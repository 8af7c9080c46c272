// SPDX-License-Identifier: Apache-2.0
// executor.c - the local executor as callers see it: submitting, looking, cancelling, forgetting.
// What is true of a child is in its files and its shim; the list here is what we know of it.
// Owner: executor_open's caller. Threads: any, blocking.
#include "base/json.h"
#include "job/executor_own.h"
#include <assert.h>
#include <signal.h>

// ---- children

static void executor_unref(Executor *e) {
    pthread_mutex_lock(&e->lock);
    bool last = --e->refs == 0;
    pthread_mutex_unlock(&e->lock);
    if (!last) return;
    pthread_mutex_destroy(&e->lock);
    mem_free(e->run_dir);
    mem_free(e->program);
    mem_free(e);
}

void child_ref(Child *ch) {
    pthread_mutex_lock(&ch->e->lock);
    ch->refs++;
    pthread_mutex_unlock(&ch->e->lock);
}

void child_unref(Child *ch) {
    Executor *e = ch->e;
    pthread_mutex_lock(&e->lock);
    bool last = --ch->refs == 0;
    pthread_mutex_unlock(&e->lock);
    if (!last) return;
    assert(!ch->stream && !ch->retry && !ch->shim);
    mem_free(ch->key);
    mem_free(ch->handle);
    mem_free(ch->endpoint);
    mem_free(ch->reason);
    mem_free(ch);
    executor_unref(e);
}

static Child *find(Executor *e, str handle, str key) { // lock held
    Child *ch = e->children;
    while (ch && (ch->forgotten || !(handle.p ? str_is(handle, ch->handle) : str_is(key, ch->key))))
        ch = ch->next;
    return ch;
}

// With a reference; NULL: unknown.
static Child *child_get(Executor *e, str handle) {
    pthread_mutex_lock(&e->lock);
    Child *ch = find(e, handle, (str){ 0 });
    if (ch) ch->refs++;
    pthread_mutex_unlock(&e->lock);
    return ch;
}

static Child *child_make(Executor *e, str key, str handle, str endpoint) { // lock held
    Child *ch = mem_new(sizeof *ch);
    ch->e = e;
    ch->refs = 1;
    ch->key = mem_strdup(key);
    ch->handle = mem_strdup(handle);
    ch->endpoint = endpoint.p ? mem_strdup(endpoint) : NULL;
    ch->cancel_grace_ms = -1;
    ch->known_ns = os_mono_ns(e->os);
    ch->next = e->children;
    e->children = ch;
    e->children_n++;
    e->refs++;
    return ch;
}

Child *child_new(Executor *e, str key, str handle, str endpoint) {
    pthread_mutex_lock(&e->lock);
    Child *ch = child_make(e, key, handle, endpoint);
    pthread_mutex_unlock(&e->lock);
    return ch;
}

void child_unlist(Child *ch) {
    Executor *e = ch->e;
    pthread_mutex_lock(&e->lock);
    Child **at = &e->children;
    while (*at && *at != ch) at = &(*at)->next;
    bool listed = *at != NULL;
    if (listed) *at = ch->next;
    if (listed) e->children_n--;
    pthread_mutex_unlock(&e->lock);
    if (listed) child_unref(ch);
}

void child_state_set(Child *ch, const ShimState *s) {
    Executor *e = ch->e;
    pthread_mutex_lock(&e->lock);
    bool change = ch->state.state != s->state || ch->state.pid != s->pid;
    if (!ch->ended) {
        ch->state = *s;
        mem_free(ch->reason);
        ch->reason = s->reason.p ? mem_strdup(s->reason) : NULL;
        ch->state.reason = str_z(ch->reason);
        ch->ended = s->state == CHILD_EXITED || s->state == CHILD_LOST;
    }
    bool tell = change && e->changed && !ch->forgotten;
    pthread_mutex_unlock(&e->lock);
    if (tell && loop_is_mine(e->l) && !e->closed) e->changed(e->changed_arg, str_z(ch->handle));
}

// ---- submitting

static bool key_valid(str s) {
    for (size_t i = 0; i < s.n; i++) {
        char ch = s.p[i];
        bool good = (ch >= 'a' && ch <= 'z') || (ch >= '0' && ch <= '9') || strchr("_.-", ch);
        if (!good || !ch) return false;
    }
    return s.n >= 1 && s.n <= 100;
}

static err refuse(Ctx *c, err e, const char *what, const char *why) {
    return fail(c, e, R_EXECUTOR, "what", what, "why", why);
}

static err record_write(Ctx *c, const Child *ch) {
    Buf b;
    buf_init(&b, 64 << 10);
    Json j = json_to(&b);
    json_obj(&j);
    json_kv_i64(&j, "version", SHIM_VERSION);
    json_kv_z(&j, "key", ch->key);
    json_kv_str(&j, "endpoint", str_z(ch->endpoint));
    json_end_obj(&j);
    str path = shim_file(c, ch->e->run_dir, str_z(ch->handle), FILE_RECORD);
    err e = file_write_all(c, path, buf_str(&b), FILE_PRIVATE);
    buf_done(&b);
    return e;
}

static err shim_launch(Ctx *c, Executor *e, Child *ch, const ChildSpec *spec) {
    size_t n = 0;
    while (spec->argv[n]) n++;
    int64_t log_max = spec->log_max_bytes ? spec->log_max_bytes : LOG_MAX_DEFAULT;
    int64_t grace_ms = spec->grace_ms ? spec->grace_ms : GRACE_MS_DEFAULT;
    const char **argv = new (c->mem, const char *, n + 10);
    const char *head[] = { e->program ? e->program : arena_z(c->mem, os_program(c)),
                           "shim",
                           e->run_dir,
                           ch->handle,
                           say(c, "%lld", (long long)log_max),
                           say(c, "%lld", (long long)grace_ms),
                           say(c, "%lld", (long long)spec->memory_max_bytes),
                           spec->cwd.p ? arena_z(c->mem, spec->cwd) : "-",
                           "--" };
    memcpy(argv, head, sizeof head);
    memcpy(argv + countof(head), spec->argv, n * sizeof *argv);
    if (spec->socket_path.p) {
        err gone = path_remove(c, spec->socket_path);
        if (gone && gone != ERR_NOTFOUND) return gone;
    }
    ProcessSpec how = {
        .argv = argv, .env = spec->env, .in_fd = -1, .out_fd = -1, .err_fd = -1, .detached = true
    };
    child_ref(ch); // until link_shim_exited, or link_end
    err failed = process_start(c, &how, e->l, link_shim_exited, ch, &ch->shim);
    if (failed) child_unref(ch);
    return failed;
}

static err spec_check(Ctx *c, Executor *e, const ChildSpec *spec) {
    Addr addr;
    if (!key_valid(spec->key)) return refuse(c, ERR_INVALID, "start a child", "its key is not one");
    if (!spec->argv || !spec->argv[0])
        return refuse(c, ERR_INVALID, "start a child", "it has no program");
    if (spec->log_max_bytes < 0 || spec->log_max_bytes == 1 || spec->grace_ms < 0
        || spec->memory_max_bytes < 0)
        return refuse(c, ERR_INVALID, "start a child", "a limit is negative");
    str longest = arena_printf(c->mem, "unix:%s/c_%026d" FILE_SOCKET, e->run_dir, 0);
    return addr_parse(c, longest, &addr); // a long folder: its sockets would have no name
}

err executor_submit(Ctx *c, Executor *e, const ChildSpec *spec, str *out_handle) {
    TRY(spec_check(c, e, spec));
    pthread_mutex_lock(&e->lock);
    Child *ch = find(e, (str){ 0 }, spec->key);
    bool made = !ch, full = made && e->children_n >= CHILDREN_MAX;
    if (made && !full) ch = child_make(e, spec->key, os_id(c, "c"), spec->socket_path);
    bool start = ch && !ch->started && !ch->ended;
    if (ch) ch->refs++;
    if (start) ch->started = true;
    pthread_mutex_unlock(&e->lock);
    if (full) return refuse(c, ERR_UNAVAILABLE, "start a child", "there are too many already");
    *out_handle = arena_str(c->mem, str_z(ch->handle));
    err failed = made ? record_write(c, ch) : ERR_OK;
    if (!failed && start) failed = shim_launch(c, e, ch, spec);
    if (!failed && start) link_begin(ch);
    if (failed && !made) { // one that was found: its link is there, and it may be tried again
        pthread_mutex_lock(&e->lock);
        ch->started = ch->started && !start;
        pthread_mutex_unlock(&e->lock);
    } else if (failed) { // no shim was started: as if it had not been asked for
        Failure why = c->failure;
        err gone = path_remove(c, shim_file(c, e->run_dir, *out_handle, FILE_RECORD));
        (void)gone;
        c->failure = why;
        child_unlist(ch);
    }
    child_unref(ch);
    return failed;
}

// ---- looking

static void view_fill(Ctx *c, Child *ch, ChildView *out) { // lock held
    const ShimState *s = &ch->state;
    *out = (ChildView){ .key = arena_str(c->mem, str_z(ch->key)),
                        .handle = arena_str(c->mem, str_z(ch->handle)),
                        .endpoint = arena_str(c->mem, str_z(ch->endpoint)),
                        .state = s->state,
                        .pid = s->pid,
                        .started_ms = s->started_ms,
                        .ended_ms = s->ended_ms,
                        .exit_code = s->exit_code,
                        .exit_signal = s->exit_signal,
                        .reason = arena_str(c->mem, str_z(ch->reason)),
                        .adopted = ch->adopted };
}

static void view_live(Ctx *c, ChildView *v, int64_t ticks) {
    if (v->state != CHILD_RUNNING || pid_start_ticks(c->os, v->pid) != ticks) return;
    v->memory_bytes = pid_memory_bytes(c->os, v->pid);
    v->cpu_ms = pid_cpu_ms(c->os, v->pid);
}

static err unknown(Ctx *c, str handle) {
    (void)handle;
    return refuse(c, ERR_NOTFOUND, "find the child", "there is none with this handle");
}

err executor_observe(Ctx *c, Executor *e, str handle, ChildView *out) {
    Child *ch = child_get(e, handle);
    if (!ch) return unknown(c, handle);
    pthread_mutex_lock(&e->lock);
    view_fill(c, ch, out);
    int64_t ticks = ch->state.ticks;
    pthread_mutex_unlock(&e->lock);
    view_live(c, out, ticks);
    child_unref(ch);
    return ERR_OK;
}

err executor_find(Ctx *c, Executor *e, str key, str *out_handle) {
    pthread_mutex_lock(&e->lock);
    Child *ch = find(e, (str){ 0 }, key);
    if (ch) *out_handle = arena_str(c->mem, str_z(ch->handle));
    pthread_mutex_unlock(&e->lock);
    return ch ? ERR_OK : refuse(c, ERR_NOTFOUND, "find the child", "there is none with this key");
}

err executor_list(Ctx *c, Executor *e, ChildView **out, size_t *out_n) {
    pthread_mutex_lock(&e->lock);
    size_t n = 0;
    ChildView *views = new (c->mem, ChildView, e->children_n + 1);
    int64_t *ticks = new (c->mem, int64_t, e->children_n + 1);
    for (Child *ch = e->children; ch; ch = ch->next) {
        if (ch->forgotten) continue;
        ticks[n] = ch->state.ticks;
        view_fill(c, ch, &views[n++]);
    }
    pthread_mutex_unlock(&e->lock);
    for (size_t i = 0; i < n; i++) view_live(c, &views[i], ticks[i]);
    *out = views;
    *out_n = n;
    return ERR_OK;
}

err executor_logs(Ctx *c, Executor *e, str handle, int64_t offset, size_t max, ChildLog *out) {
    Child *ch = child_get(e, handle);
    if (!ch) return unknown(c, handle);
    err failed = shim_log_read(c, e->run_dir, str_z(ch->handle), offset, max, out);
    child_unref(ch);
    return failed;
}

// ---- ending

err executor_cancel(Ctx *c, Executor *e, str handle, int64_t grace_ms) {
    assert(grace_ms >= 0);
    Child *ch = child_get(e, handle);
    if (!ch) return unknown(c, handle);
    pthread_mutex_lock(&e->lock);
    bool sooner = ch->cancel_grace_ms < 0 || grace_ms < ch->cancel_grace_ms;
    if (sooner) ch->cancel_grace_ms = grace_ms;
    bool started = ch->started, ended = ch->ended;
    pthread_mutex_unlock(&e->lock);
    if (!ended && started) link_cancel(ch);
    if (!ended && !started) {
        ShimState s = { .state = CHILD_LOST,
                        .ended_ms = os_wall_ms(e->os),
                        .reason = S("it was cancelled before it was started") };
        child_state_set(ch, &s);
    }
    child_unref(ch);
    return ERR_OK;
}

static err files_remove(Ctx *c, const char *run_dir, str handle) {
    str *names, prefix = arena_printf(c->mem, STR_FMT ".", STR_ARG(handle));
    size_t n;
    err e = path_remove(c, shim_file(c, run_dir, handle, FILE_RECORD));
    if (e && e != ERR_NOTFOUND) return e;
    TRY(dir_sync(c, str_z(run_dir))); // whatever else stays is swept by a later open
    TRY(dir_list(c, str_z(run_dir), &names, &n));
    for (size_t i = 0; i < n; i++) {
        if (!str_starts(names[i], prefix)) continue;
        e = path_remove(c, arena_printf(c->mem, "%s/" STR_FMT, run_dir, STR_ARG(names[i])));
        if (e && e != ERR_NOTFOUND) return e;
    }
    return ERR_OK;
}

err executor_forget(Ctx *c, Executor *e, str handle) {
    Child *ch = child_get(e, handle);
    if (!ch) return unknown(c, handle);
    pthread_mutex_lock(&e->lock);
    bool ended = ch->ended;
    ch->forgotten = ch->forgotten || ended;
    pthread_mutex_unlock(&e->lock);
    err failed = ended ? files_remove(c, e->run_dir, str_z(ch->handle))
                       : refuse(c, ERR_CONFLICT, "forget the child", "it has not ended");
    if (ended) link_forget(ch); // what could not be removed is swept by the next open
    child_unref(ch);
    return failed;
}

// ---- opening and closing

static err record_read(Ctx *c, Executor *e, str handle, str *out_key, str *out_endpoint) {
    str text;
    yyjson_val *root;
    TRY(file_read_all(c, shim_file(c, e->run_dir, handle, FILE_RECORD), 64 << 10, &text));
    TRY(json_parse(c, text, &root));
    *out_key = json_get_str(root, "key");
    *out_endpoint = json_get_str(root, "endpoint");
    return key_valid(*out_key) ? ERR_OK : refuse(c, ERR_INVALID, "adopt", "a record is damaged");
}

static void adopt(Ctx *c, Executor *e, str handle, str key, str endpoint) {
    Child *ch = child_new(e, key, handle, endpoint);
    ch->adopted = true;
    if (!child_settle(c, ch)) link_begin(ch);
}

// Files of a child that was forgotten half way have no record any more.
static err adopt_all(Ctx *c, Executor *e) {
    str *names, key, endpoint, last = { 0 };
    size_t n;
    TRY(dir_list(c, str_z(e->run_dir), &names, &n));
    for (size_t i = 0; i < n; i++) {
        ptrdiff_t dot = str_find_char(names[i], '.');
        str handle = str_sub(names[i], 0, dot < 0 ? 0 : (size_t)dot);
        if (!str_starts(handle, S("c_")) || (last.p && str_eq(handle, last))) continue;
        last = handle;
        err failed = record_read(c, e, handle, &key, &endpoint);
        if (!failed) adopt(c, e, handle, key, endpoint);
        else if (failed == ERR_NOTFOUND) TRY(files_remove(c, e->run_dir, handle));
    }
    return ERR_OK;
}

err executor_open(Ctx *c, str run_dir, Loop *l, Executor **out) {
    TRY(dir_make(c, run_dir, 0700));
    Executor *e = mem_new(sizeof *e);
    e->os = c->os;
    e->l = l;
    e->refs = 1;
    e->run_dir = mem_strdup(run_dir);
    pthread_mutex_init(&e->lock, NULL);
    err failed = adopt_all(c, e);
    if (failed) {
        executor_close(e);
        return failed;
    }
    *out = e;
    return ERR_OK;
}

void executor_program(Executor *e, const char *program) {
    mem_free(e->program);
    e->program = program ? mem_strdup(str_z(program)) : NULL;
}

void executor_on_change(Executor *e, void (*fn)(void *arg, str handle), void *arg) {
    e->changed = fn;
    e->changed_arg = arg;
}

void executor_close(Executor *e) {
    if (!e) return;
    assert(loop_is_mine(e->l));
    e->closed = true;
    while (e->children) {
        Child *ch = e->children;
        link_end(ch);
        child_unlist(ch);
    }
    executor_unref(e);
}
