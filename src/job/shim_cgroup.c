// SPDX-License-Identifier: Apache-2.0
// shim_cgroup.c - a cgroup v2 of the child's own, where the machine lets us make one: a limit of
// memory that the kernel keeps, and an end that nobody in it can escape. It is made beside our own
// group or within it: beside is what a service manager delegates (systemd: Delegate=yes with
// DelegateSubgroup=). Where neither has a memory controller there is none, and nothing fails.
// LATHE_CGROUP_ROOT replaces /sys/fs/cgroup. Threads: the shim's.
#include "job/shim_own.h"

static err say_to(Ctx *c, str dir, const char *file, const char *text) {
    File *f;
    TRY(file_open(c, arena_printf(c->mem, STR_FMT "/%s", STR_ARG(dir), file), FILE_WRITE, &f));
    err e = file_write_at(c, f, 0, text, strlen(text));
    file_close(f);
    return e;
}

static err enter(Ctx *c, str dir, int64_t memory_max_bytes, int64_t pid) {
    TRY(dir_make(c, dir, 0755));
    err e = say_to(c, dir, "memory.max", say(c, "%lld\n", (long long)memory_max_bytes));
    if (!e) e = say_to(c, dir, "cgroup.procs", say(c, "%lld\n", (long long)pid));
    if (e) {
        err gone = path_remove(c, dir);
        (void)gone;
    }
    return e;
}

// Our own group, below the root: "/system.slice/lathe.service/serve" from a line "0::...".
static str own_group(Ctx *c) {
    str text, line;
    if (file_read_all(c, S("/proc/self/cgroup"), 64 << 10, &text)) return S("");
    while (str_cut(&text, '\n', &line))
        if (str_starts(line, S("0::/"))) return str_sub(line, 3, line.n);
    return S("");
}

str cgroup_make(Ctx *c, Arena *mem, str handle, int64_t memory_max_bytes, int64_t pid) {
    if (memory_max_bytes <= 0 || os_is_simulated(c->os)) return (str){ 0 };
    const char *set = os_env(c->os, "LATHE_CGROUP_ROOT");
    str own = own_group(c), outer = own;
    while (outer.n && outer.p[outer.n - 1] != '/') outer.n--;
    if (outer.n) outer.n--; // without its slash
    str places[] = { outer, own };
    for (size_t i = 0; i < countof(places); i++) {
        str dir = arena_printf(c->mem, "%s" STR_FMT "/lathe-" STR_FMT, set ? set : "/sys/fs/cgroup",
                               STR_ARG(places[i]), STR_ARG(handle));
        if (!enter(c, dir, memory_max_bytes, pid)) return arena_str(mem, dir);
    }
    return (str){ 0 };
}

void cgroup_kill(Ctx *c, str dir) {
    if (!dir.p) return;
    err e = say_to(c, dir, "cgroup.kill", "1\n"); // Linux 5.14; the family's scan comes anyway
    (void)e;
}

bool cgroup_ran_out(Ctx *c, str dir) {
    str text, line;
    int64_t n = 0;
    if (!dir.p) return false;
    str path = arena_printf(c->mem, STR_FMT "/memory.events", STR_ARG(dir));
    if (file_read_all(c, path, 4096, &text)) return false;
    while (str_cut(&text, '\n', &line))
        if (str_starts(line, S("oom_kill "))) str_to_i64(str_sub(line, 9, line.n), &n);
    return n > 0;
}

void cgroup_remove(Ctx *c, str dir) {
    if (!dir.p) return;
    err e = path_remove(c, dir);
    (void)e; // empty groups cost nothing
}
