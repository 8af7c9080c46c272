// SPDX-License-Identifier: Apache-2.0
// shim_file.c - the files of a child: its state, and its log as a ring of two files. The shim
// writes them, the executor reads them, also of a shim that is gone.
#include "base/json.h"
#include "job/shim_own.h"
#include <assert.h>
#include <inttypes.h>

static const char *const state_names[] = { [CHILD_STARTING] = "starting",
                                           [CHILD_RUNNING] = "running",
                                           [CHILD_EXITED] = "exited",
                                           [CHILD_LOST] = "lost" };

const char *child_state_name(ChildState s) { return state_names[s]; }

str shim_file(Ctx *c, const char *run_dir, str handle, const char *suffix) {
    return arena_printf(c->mem, "%s/" STR_FMT "%s", run_dir, STR_ARG(handle), suffix);
}

// ---- state

void shim_state_format(const ShimState *s, Buf *out) {
    Json j = json_to(out);
    json_obj(&j);
    json_kv_i64(&j, "version", SHIM_VERSION);
    json_kv_z(&j, "state", state_names[s->state]);
    json_kv_i64(&j, "pid", s->pid);
    json_kv_i64(&j, "ticks", s->ticks);
    json_kv_i64(&j, "started_ms", s->started_ms);
    json_kv_i64(&j, "ended_ms", s->ended_ms);
    json_kv_i64(&j, "exit_code", s->exit_code);
    json_kv_i64(&j, "exit_signal", s->exit_signal);
    json_kv_str(&j, "reason", s->reason);
    json_end_obj(&j);
}

err shim_state_parse(Ctx *c, str json, ShimState *out) {
    yyjson_val *root;
    ShimState s = { 0 };
    TRY(json_parse(c, json, &root));
    str name = json_get_str(root, "state");
    size_t i = 0;
    while (i < countof(state_names) && !str_is(name, state_names[i])) i++;
    if (i == countof(state_names) || !json_get_i64(root, "pid", &s.pid)
        || !json_get_i64(root, "ticks", &s.ticks))
        return fail(c, ERR_INVALID, R_EXECUTOR, "what", "read a child's state", "why",
                    "fields are missing");
    s.state = (ChildState)i;
    json_get_i64(root, "started_ms", &s.started_ms);
    json_get_i64(root, "ended_ms", &s.ended_ms);
    json_get_i64(root, "exit_code", &s.exit_code);
    json_get_i64(root, "exit_signal", &s.exit_signal);
    s.reason = json_get_str(root, "reason");
    *out = s;
    return ERR_OK;
}

static err write_in_place(Ctx *c, str path, str text) {
    File *f;
    int64_t old = 0;
    TRY(file_open(c, path, FILE_READ | FILE_WRITE, &f));
    err e = file_size(c, f, &old);
    Buf b; // blanks hide what is left of a longer text
    buf_init(&b, 1 << 20);
    buf_add(&b, text);
    if (!e && old > (int64_t)text.n && old < 1 << 19) buf_add_repeat(&b, ' ', (size_t)old - text.n);
    if (!e) e = file_write_at(c, f, 0, b.p, b.n);
    if (!e) e = file_sync(c, f);
    buf_done(&b);
    file_close(f);
    return e;
}

err shim_state_write(Ctx *c, str path, const ShimState *s) {
    Buf b;
    buf_init(&b, 64 << 10);
    shim_state_format(s, &b);
    buf_add_char(&b, '\n');
    err e = file_write_all(c, path, buf_str(&b), FILE_PRIVATE);
    if (e == ERR_FULL) e = write_in_place(c, path, buf_str(&b));
    buf_done(&b);
    return e;
}

// ---- log

static str log_path(Ctx *c, const char *run_dir, str handle, int64_t start) {
    return arena_printf(c->mem, "%s/" STR_FMT FILE_LOG "%016" PRIx64, run_dir, STR_ARG(handle),
                        (uint64_t)start);
}

static bool log_turn(Ctx *c, ShimLog *l) {
    int64_t start = l->start + l->size;
    File *f;
    unsigned flags = FILE_WRITE | FILE_CREATE | FILE_TRUNCATE | FILE_PRIVATE;
    if (file_open(c, log_path(c, l->run_dir, l->handle, start), flags, &f)) return false;
    if (l->f && l->older >= 0) {
        err e = path_remove(c, log_path(c, l->run_dir, l->handle, l->older));
        (void)e; // one file too many for a while
    }
    l->older = l->f ? l->start : -1;
    file_close(l->f);
    l->f = f;
    l->start = start;
    l->size = 0;
    return true;
}

void shim_log_write(Ctx *c, ShimLog *l, str bytes) {
    int64_t half = l->max / 2;
    assert(half > 0);
    while (bytes.n) {
        if ((!l->f || l->size >= half) && !log_turn(c, l)) return;
        str part = str_sub(bytes, 0, (size_t)(half - l->size));
        if (file_write_at(c, l->f, l->size, part.p, part.n)) return;
        l->size += (int64_t)part.n;
        bytes = str_sub(bytes, part.n, bytes.n);
    }
}

void shim_log_close(ShimLog *l) {
    file_close(l->f);
    l->f = NULL;
}

static bool hex_to_i64(str s, int64_t *out) {
    uint64_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        char ch = s.p[i];
        int digit = ch >= '0' && ch <= '9' ? ch - '0' : ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : -1;
        if (digit < 0) return false;
        n = n << 4 | (unsigned)digit;
    }
    *out = (int64_t)n;
    return s.n == 16 && *out >= 0;
}

// The file that holds `offset`, or the oldest one behind it; the end of the newest when none does.
static err log_find(Ctx *c, const char *run_dir, str handle, int64_t offset, int64_t *out_start) {
    str *names, prefix = arena_printf(c->mem, STR_FMT FILE_LOG, STR_ARG(handle));
    size_t n;
    int64_t found = -1;
    TRY(dir_list(c, str_z(run_dir), &names, &n));
    for (size_t i = 0; i < n; i++) { // sorted: starts ascend
        int64_t start;
        if (!str_starts(names[i], prefix)) continue;
        if (!hex_to_i64(str_sub(names[i], prefix.n, names[i].n), &start)) continue;
        if (found < 0 || start <= offset) found = start;
    }
    *out_start = found;
    return ERR_OK;
}

err shim_log_read(Ctx *c, const char *run_dir, str handle, int64_t offset, size_t max,
                  ChildLog *out) {
    char *p = arena_alloc_raw(c->mem, max ? max : 1);
    size_t n = 0;
    int64_t from = offset < 0 ? 0 : offset, at = from;
    while (n < max) {
        int64_t start;
        File *f;
        size_t got = 0;
        TRY(log_find(c, run_dir, handle, at, &start));
        if (start < 0) break;
        err e = file_open(c, log_path(c, run_dir, handle, start), FILE_READ, &f);
        if (e == ERR_NOTFOUND) continue; // the ring turned meanwhile
        if (e) return e;
        if (at < start && n) { // what lay between is gone: the next call says so
            file_close(f);
            break;
        }
        if (at < start) from = at = start;
        e = file_read_at(c, f, at - start, p + n, max - n, &got);
        file_close(f);
        if (e) return e;
        n += got;
        at += (int64_t)got;
        int64_t next;
        TRY(log_find(c, run_dir, handle, at, &next));
        if (!got && next == start) break; // the end of the newest
    }
    *out = (ChildLog){ str_n(p, n), from, at };
    return ERR_OK;
}
