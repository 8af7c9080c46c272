// SPDX-License-Identifier: Apache-2.0
// shim_family.c - a child and all that it started. A process belongs to it when its parent does or
// when its environment carries the child's cookie, which exec hands down: so one that made itself a
// daemon (two forks, a session of its own) is found as well. Reads /proc; the signal goes through
// pid and start time, so none can reach a recycled number. Who hides on purpose, by clearing its
// environment and losing its parents, is for the sandbox and cgroups.
#include "job/shim_own.h"
#include <stdio.h>

enum { STAT_MAX = 4096, ENVIRON_MAX = 1 << 20, PIDS_MAX = 65536 };

typedef struct Pid {
    int64_t pid, parent, ticks;
    bool ours;
} Pid;

static bool stat_parse(str text, Pid *out) {
    size_t at = text.n;
    while (at && text.p[at - 1] != ')') at--; // the name may hold blanks and brackets
    char state;
    long long parent;
    unsigned long long ticks;
    int got = at ? sscanf(text.p + at,
                          " %c %lld %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d"
                          " %*d %*d %*d %*d %*d %llu",
                          &state, &parent, &ticks)
                 : 0;
    if (got != 3 || state == 'Z' || state == 'X') return false;
    out->parent = parent;
    out->ticks = (int64_t)ticks;
    return true;
}

static bool carries(Ctx *c, int64_t pid, str cookie) {
    str env, entry;
    str path = arena_printf(c->mem, "/proc/%lld/environ", (long long)pid);
    if (file_read_all(c, path, ENVIRON_MAX, &env)) return false; // another user's, or gone
    while (str_cut(&env, 0, &entry))
        if (str_eq(entry, cookie)) return true;
    return false;
}

static size_t pids_read(Ctx *c, str cookie, Pid **out) {
    str *names;
    size_t n, found = 0;
    if (dir_list(c, S("/proc"), &names, &n)) return 0;
    Pid *pids = new (c->mem, Pid, n + 1);
    for (size_t i = 0; i < n && found < PIDS_MAX; i++) {
        Pid *p = &pids[found];
        str text;
        if (!str_to_i64(names[i], &p->pid) || p->pid <= 1) continue;
        str path = arena_printf(c->mem, "/proc/%lld/stat", (long long)p->pid);
        if (file_read_all(c, path, STAT_MAX, &text) || !stat_parse(text, p)) continue;
        p->ours = carries(c, p->pid, cookie);
        found++;
    }
    *out = pids;
    return found;
}

static void descend(Pid *pids, size_t n) {
    for (bool more = true; more;) {
        more = false;
        for (size_t i = 0; i < n; i++)
            for (size_t k = 0; k < n && !pids[i].ours; k++)
                if (pids[k].ours && pids[k].pid == pids[i].parent) pids[i].ours = more = true;
    }
}

size_t family_signal(Ctx *outer, str handle, int64_t pid, int64_t ticks, int signal) {
    Ctx c; // a scan leaves much behind
    Pid *pids = NULL;
    size_t sent = 0;
    bool child_seen = false;
    ctx_init(&c, arena_new(), outer->os);
    str cookie = arena_printf(c.mem, COOKIE STR_FMT, STR_ARG(handle));
    size_t n = !os_is_simulated(c.os) ? pids_read(&c, cookie, &pids) : 0;
    for (size_t i = 0; i < n; i++)
        if (pids[i].pid == pid && pids[i].ticks == ticks) pids[i].ours = true;
    descend(pids, n);
    for (size_t i = 0; i < n; i++) {
        if (!pids[i].ours) continue;
        child_seen = child_seen || pids[i].pid == pid;
        sent += pid_signal(c.os, pids[i].pid, pids[i].ticks, signal);
    }
    if (!child_seen && pid > 0 && ticks) sent += pid_signal(c.os, pid, ticks, signal);
    arena_free(c.mem);
    return sent;
}
