// SPDX-License-Identifier: Apache-2.0
// doctor.c - `lathe doctor`: what this machine can and cannot do, each with what would fix it. Asks
// the machine, not a server.
#include "base/time.h"
#include "res/cli.h"
#include "res/kit.h"
#include <stdio.h>

typedef enum { CHECK_GOOD, CHECK_WARN, CHECK_BAD } Verdict;
typedef struct Check {
    const char *name;
    Verdict (*run)(Ctx *c, str *out_is, const char **out_fix);
    const char *en, *zh;
} Check;

static bool exists(Ctx *c, str path) {
    PathInfo info;
    return !path_info(c, path, &info);
}

static str find_program(Ctx *c, const char *name) {
    str rest = str_z(os_env(c->os, "PATH")), dir;
    while (rest.p && str_cut(&rest, ':', &dir)) {
        str path = arena_printf(c->mem, STR_FMT "/%s", STR_ARG(dir), name);
        if (dir.n && exists(c, path)) return path;
    }
    return (str){ 0 };
}

static Verdict check_cpu(Ctx *c, str *is, const char **fix) {
    OsFacts f;
    os_facts(c->os, &f);
    *is = arena_printf(c->mem, "%d usable, %s, %s", f.cpus, f.cpu_model, f.cpu_flags);
    *fix = "a processor with AVX2 or better: without it inference is several times slower";
    return strstr(f.cpu_flags, "avx2") || strstr(f.cpu_flags, "neon")
                   || strstr(f.cpu_flags, "asimd")
               ? CHECK_GOOD
               : CHECK_WARN;
}

static Verdict check_memory(Ctx *c, str *is, const char **fix) {
    OsFacts f;
    os_facts(c->os, &f);
    *is = arena_printf(c->mem, STR_FMT " available of " STR_FMT,
                       STR_ARG(bytes_format(c->mem, f.memory_available_bytes)),
                       STR_ARG(bytes_format(c->mem, f.memory_bytes)));
    *fix = "free some memory, or deploy models that fit: `lathe model_version get` says what each "
           "needs";
    return f.memory_available_bytes > 1 << 30 ? CHECK_GOOD : CHECK_WARN;
}

static Verdict check_files(Ctx *c, str *is, const char **fix) {
    OsFacts f;
    os_facts(c->os, &f);
    *is = arena_printf(c->mem, "%lld open files allowed", (long long)f.open_files_max);
    *fix = "raise the limit (LimitNOFILE=65536, or `ulimit -n 65536`): each client and each "
           "replica takes one";
    return f.open_files_max >= 20000 ? CHECK_GOOD : CHECK_WARN;
}

static Verdict check_disk(Ctx *c, str *is, const char **fix) {
    int64_t bytes = 0;
    if (disk_free(c, S("."), &bytes)) return CHECK_WARN;
    *is = arena_printf(c->mem, STR_FMT " free here", STR_ARG(bytes_format(c->mem, bytes)));
    *fix = "free some space, or put the data folder elsewhere (--data)";
    return bytes > 5LL << 30 ? CHECK_GOOD : CHECK_WARN;
}

static str newest_engine(Ctx *c) {
    const char *cache = os_env(c->os, "LATHE_CACHE"), *home = os_env(c->os, "HOME");
    str dir = cache ? arena_printf(c->mem, "%s/engine", cache)
                    : arena_printf(c->mem, "%s/.cache/lathe/engine", home ? home : ""),
        *names;
    size_t n;
    if (dir_list(c, dir, &names, &n)) return (str){ 0 };
    while (n--) {
        str path = arena_printf(c->mem, STR_FMT "/" STR_FMT "/bin/llama-server", STR_ARG(dir),
                                STR_ARG(names[n]));
        if (exists(c, path)) return path;
    }
    return (str){ 0 };
}

static Verdict check_engine(Ctx *c, str *is, const char **fix) {
    str path = str_z(os_env(c->os, "LATHE_LLAMA_SERVER"));
    if (!path.n) path = find_program(c, "llama-server");
    if (!path.n) path = newest_engine(c);
    *is = path.n ? path : S("llama-server is not there");
    *fix = "`make setup` builds it, or set deployment.llama_server to one that you have";
    return path.n && exists(c, path) ? CHECK_GOOD : CHECK_BAD;
}

static Verdict check_gpu(Ctx *c, str *is, const char **fix) {
    static const struct {
        const char *path, *what;
    } devices[] = {
        { "/dev/nvidiactl", "NVIDIA" },
        { "/dev/kfd", "AMD" },
        { "/dev/davinci_manager", "Ascend" },
        { "/dev/cambricon_ctl", "Cambricon" },
    };
    *is = S("none found: models run on the processor");
    *fix = "nothing to fix for small models; for large ones a machine with an accelerator and its "
           "driver";
    for (size_t i = 0; i < countof(devices); i++)
        if (exists(c, str_z(devices[i].path))) {
            *is = str_z(devices[i].what);
            return CHECK_GOOD;
        }
    return CHECK_WARN;
}

static Verdict check_cgroup(Ctx *c, str *is, const char **fix) {
    str text = { 0 };
    bool v2 = !file_read_all(c, S("/sys/fs/cgroup/cgroup.controllers"), 4096, &text);
    bool memory = v2 && str_find(text, S("memory")) >= 0;
    *is = memory ? arena_printf(c->mem, "v2: " STR_FMT, STR_ARG(str_trim(text)))
          : v2   ? S("v2, without the memory controller")
                 : S("no cgroup v2");
    *fix = "run under systemd with Delegate=yes: then a replica's memory is limited and not only "
           "watched";
    return memory ? CHECK_GOOD : CHECK_WARN;
}

static Verdict check_sandbox(Ctx *c, str *is, const char **fix) {
    str status = { 0 };
    bool seccomp = exists(c, S("/proc/sys/kernel/seccomp/actions_avail"));
    (void)status;
    *is = seccomp
              ? S("seccomp filters: model files are read in a child without network or new files")
              : S("no seccomp");
    *fix = "a kernel with CONFIG_SECCOMP_FILTER: without it hostile files are read in a child with "
           "limits only";
    return seccomp ? CHECK_GOOD : CHECK_WARN;
}

static Verdict check_postgres(Ctx *c, str *is, const char **fix) {
    str psql = find_program(c, "psql");
    *is = psql.n ? psql : S("not installed: SQLite in the data folder is used");
    *fix = "only needed for several nodes: apt install postgresql, then --db.url postgres://…";
    return CHECK_GOOD;
}

// clang-format off
static const Check checks[] = {
    { "processor", check_cpu, "Cores and vector instructions", "处理器核数与向量指令" },
    { "memory", check_memory, "Memory", "内存" },
    { "open files", check_files, "Limit of open files", "打开文件数上限" },
    { "disk", check_disk, "Space", "磁盘空间" },
    { "engine", check_engine, "llama.cpp's server", "llama.cpp 推理引擎" },
    { "accelerator", check_gpu, "GPU or NPU", "GPU 或 NPU" },
    { "cgroups", check_cgroup, "Limits of children", "子进程资源限制" },
    { "sandbox", check_sandbox, "Hostile files", "沙箱" },
    { "postgresql", check_postgres, "Scale-out database", "可扩展数据库" },
};
// clang-format on

static int doctor(Cli *cli, int argc, char **argv) {
    static const char *const marks[] = { "ok  ", "note", "BAD " };
    int worst = CHECK_GOOD;
    (void)argc, (void)argv;
    err e = cli_done(cli);
    if (e) return cli_fail(cli, e);
    for (size_t i = 0; i < countof(checks); i++) {
        str is = S("unknown");
        const char *fix = "";
        Verdict v = checks[i].run(cli->c, &is, &fix);
        printf("%s  %-12s " STR_FMT "\n", marks[v], checks[i].name, STR_ARG(is));
        if (v != CHECK_GOOD) printf("      %-12s -> %s\n", "", fix);
        if ((int)v > worst) worst = v;
    }
    return worst == CHECK_BAD ? 1 : 0;
}

static int version(Cli *cli, int argc, char **argv) {
    (void)cli, (void)argc, (void)argv;
    puts("lathe 0.1.0");
    return 0;
}

// clang-format off
const CliVerb kit_verbs[] = {
    { "doctor", NULL, "", doctor, "What this machine can and cannot do, and the fix",
        "检查本机能力并给出修复方法" },
    { "version", NULL, "", version, "The version of this program", "程序版本" },
    { 0 }
};
// clang-format on
