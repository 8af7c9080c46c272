// SPDX-License-Identifier: Apache-2.0
// facts.c - what this machine has, from /proc, /sys and cgroups (v2, and v1's memory limit): the
// smaller of host and cgroup, since a container that believes the host's figures is killed for it.
// Threads: any.
#include "os/real.h"
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

ssize_t real_read_small(const char *path, char *out, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    size_t n = 0;
    while (n + 1 < size) {
        ssize_t got = read(fd, out + n, size - 1 - n);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        n += (size_t)got;
    }
    close(fd);
    out[n] = 0;
    return (ssize_t)n;
}

static bool read_i64(const char *path, int64_t *out) {
    char text[64];
    ssize_t n = real_read_small(path, text, sizeof text);
    return n > 0 && str_to_i64(str_trim(str_n(text, (size_t)n)), out);
}

// The value after "name:" at the start of a line, up to its end; absent string when there is none.
static str line_value(str text, const char *name) {
    str line, key = str_z(name);
    while (str_cut(&text, '\n', &line)) {
        if (!str_starts(line, key)) continue;
        str rest = str_trim(str_sub(line, key.n, line.n));
        if (str_starts(rest, S(":"))) return str_trim(str_sub(rest, 1, rest.n));
    }
    return (str){ 0 };
}

static int64_t meminfo_bytes(str text, const char *name) {
    str value = line_value(text, name), number;
    int64_t kib = 0;
    if (!value.p || !str_cut(&value, ' ', &number) || !str_to_i64(number, &kib)) return 0;
    return kib * 1024;
}

static void host_memory(OsFacts *f) {
    char text[8192];
    ssize_t n = real_read_small("/proc/meminfo", text, sizeof text);
    if (n <= 0) return;
    f->memory_bytes = meminfo_bytes(str_n(text, (size_t)n), "MemTotal");
    f->memory_available_bytes = meminfo_bytes(str_n(text, (size_t)n), "MemAvailable");
}

static void memory_limit(OsFacts *f, int64_t max, int64_t used) {
    if (max <= 0) return;
    if (!f->memory_bytes || max < f->memory_bytes) f->memory_bytes = max;
    int64_t left = max > used ? max - used : 0;
    if (left < f->memory_available_bytes) f->memory_available_bytes = left;
}

static void cpu_quota(OsFacts *f, const char *path) {
    char text[64];
    ssize_t n = real_read_small(path, text, sizeof text);
    long long quota = 0, period = 0;
    if (n <= 0 || sscanf(text, "%lld %lld", &quota, &period) != 2) return; // "max 100000"
    if (quota <= 0 || period <= 0) return;
    int cpus = (int)((quota + period - 1) / period);
    if (cpus < f->cpus) f->cpus = cpus;
}

// Every ancestor's limit counts; a container sees its own cgroup as the root.
static void cgroup_v2(OsFacts *f, str group) {
    for (;;) {
        char path[1024];
        int64_t max = 0, used = 0;
        snprintf(path, sizeof path, "/sys/fs/cgroup" STR_FMT "/memory.max", STR_ARG(group));
        bool limited = read_i64(path, &max);
        snprintf(path, sizeof path, "/sys/fs/cgroup" STR_FMT "/memory.current", STR_ARG(group));
        if (limited && read_i64(path, &used)) memory_limit(f, max, used);
        snprintf(path, sizeof path, "/sys/fs/cgroup" STR_FMT "/cpu.max", STR_ARG(group));
        cpu_quota(f, path);
        if (!group.n) return;
        do group.n--;
        while (group.n && group.p[group.n] != '/');
    }
}

static void cgroups(OsFacts *f) {
    char text[4096];
    ssize_t n = real_read_small("/proc/self/cgroup", text, sizeof text);
    str rest = str_n(text, n > 0 ? (size_t)n : 0), line;
    while (str_cut(&rest, '\n', &line))
        if (str_starts(line, S("0::/"))) {
            str group = str_sub(line, 3, line.n);
            cgroup_v2(f, group.n == 1 ? S("") : group);
        }
    int64_t max = 0, used = 0;
    if (read_i64("/sys/fs/cgroup/memory/memory.limit_in_bytes", &max)
        && read_i64("/sys/fs/cgroup/memory/memory.usage_in_bytes", &used))
        memory_limit(f, max, used);
}

// x86 names in "flags", ARM names in "Features".
static const char *const useful_flags[] = {
    "sse4_2",      "avx",      "avx2",        "fma",      "f16c",     "avx512f",
    "avx512bw",    "avx512vl", "avx512_vnni", "avx_vnni", "amx_tile", "avx512_bf16",
    "avx512_fp16", "amx_int8", "amx_bf16",    "asimd",    "asimdhp",  "asimddp",
    "asimdfhm",    "i8mm",     "bf16",        "sve",      "sve2",     "sme",
};

static bool has_word(str words, const char *word) {
    str w;
    while (str_cut(&words, ' ', &w))
        if (str_is(w, word)) return true;
    return false;
}

static void cpu_names(OsFacts *f) {
    char text[8192]; // the first processor's paragraph is enough
    ssize_t n = real_read_small("/proc/cpuinfo", text, sizeof text);
    str all = str_n(text, n > 0 ? (size_t)n : 0);
    str model = line_value(all, "model name"), flags = line_value(all, "flags");
    if (!flags.p) flags = line_value(all, "Features");
    if (model.p) snprintf(f->cpu_model, sizeof f->cpu_model, STR_FMT, STR_ARG(model));
    size_t used = 0;
    for (size_t i = 0; i < countof(useful_flags); i++) {
        if (!flags.p || !has_word(flags, useful_flags[i])) continue;
        int w = snprintf(f->cpu_flags + used, sizeof f->cpu_flags - used, "%s%s", used ? " " : "",
                         useful_flags[i]);
        if (w < 0 || (size_t)w >= sizeof f->cpu_flags - used) break;
        used += (size_t)w;
    }
}

static void boot_id(OsFacts *f) {
    char text[64];
    ssize_t n = real_read_small("/proc/sys/kernel/random/boot_id", text, sizeof text);
    if (n <= 0) return;
    snprintf(f->boot, sizeof f->boot, STR_FMT, STR_ARG(str_trim(str_n(text, (size_t)n))));
}

void real_facts(Os *os, OsFacts *out) {
    (void)os;
    boot_id(out);
    cpu_set_t set;
    out->cpus = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set)
                                                            : (int)sysconf(_SC_NPROCESSORS_ONLN);
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0)
        out->open_files_max = files.rlim_cur > INT64_MAX ? INT64_MAX : (int64_t)files.rlim_cur;
    host_memory(out);
    cgroups(out);
    cpu_names(out);
}
