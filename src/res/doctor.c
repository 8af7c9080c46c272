// SPDX-License-Identifier: Apache-2.0
// doctor.c - `lathe doctor`: what this machine can and cannot do, each with what would fix it. Asks
// the machine, not a server. Exit status 1 when something is BAD: without it no model is served.
#include "base/time.h"
#include "res/cli.h"
#include "net/tls.h"
#include "res/kit.h"
#include "res/objects.h"
#include <stdio.h>

typedef enum { CHECK_GOOD, CHECK_NOTE, CHECK_BAD } Verdict;
typedef struct Check {
    const char *en, *zh;
    Verdict (*run)(Ctx *c, str *out_is);
    const char *fix_en, *fix_zh; // said unless the verdict is GOOD
} Check;

static const Module *const *modules; // of the program; set once

static const char *pick(const Ctx *c, const char *en, const char *zh) {
    return strcmp(c->lang, "zh") ? en : zh;
}

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

static Verdict check_cpu(Ctx *c, str *is) {
    OsFacts f;
    os_facts(c->os, &f);
    *is = arena_printf(c->mem, pick(c, "%d usable, %s, %s", "可用 %d 核，%s，%s"), f.cpus,
                       f.cpu_model, f.cpu_flags);
    bool wide =
        strstr(f.cpu_flags, "avx2") || strstr(f.cpu_flags, "neon") || strstr(f.cpu_flags, "asimd");
    return wide ? CHECK_GOOD : CHECK_NOTE;
}

static Verdict check_memory(Ctx *c, str *is) {
    OsFacts f;
    os_facts(c->os, &f);
    str some = bytes_format(c->mem, f.memory_available_bytes),
        all = bytes_format(c->mem, f.memory_bytes);
    *is = arena_printf(c->mem,
                       pick(c, STR_FMT " available of " STR_FMT, "可用 " STR_FMT " / 共 " STR_FMT),
                       STR_ARG(some), STR_ARG(all));
    return f.memory_available_bytes > 1 << 30 ? CHECK_GOOD : CHECK_NOTE;
}

static Verdict check_files(Ctx *c, str *is) {
    OsFacts f;
    os_facts(c->os, &f);
    *is = arena_printf(c->mem, pick(c, "%lld allowed", "上限 %lld"), (long long)f.open_files_max);
    return f.open_files_max >= 20000 ? CHECK_GOOD : CHECK_NOTE;
}

static Verdict check_disk(Ctx *c, str *is) {
    int64_t bytes = 0;
    if (disk_free(c, S("."), &bytes)) return CHECK_NOTE;
    str text = bytes_format(c->mem, bytes);
    *is = arena_printf(c->mem, pick(c, STR_FMT " free here", "此处可用 " STR_FMT), STR_ARG(text));
    return bytes > 5LL << 30 ? CHECK_GOOD : CHECK_NOTE;
}

static str newest_engine(Ctx *c) {
    const char *cache = os_env(c->os, "LATHE_CACHE"), *xdg = os_env(c->os, "XDG_CACHE_HOME");
    const char *home = os_env(c->os, "HOME");
    str dir = cache ? arena_printf(c->mem, "%s/engine", cache)
              : xdg ? arena_printf(c->mem, "%s/lathe/engine", xdg)
                    : arena_printf(c->mem, "%s/.cache/lathe/engine", home ? home : ""),
        *names, best = { 0 };
    size_t n;
    int64_t best_ms = -1;
    if (dir_list(c, dir, &names, &n)) return best;
    while (n--) {
        PathInfo info;
        str path = arena_printf(c->mem, STR_FMT "/" STR_FMT "/bin/llama-server", STR_ARG(dir),
                                STR_ARG(names[n]));
        if (path_info(c, path, &info) || info.modified_ms <= best_ms) continue;
        best = path, best_ms = info.modified_ms;
    }
    return best;
}

// Where a deployment would look, but for the setting deployment.llama_server of a server.
static Verdict check_engine(Ctx *c, str *is) {
    str path = str_z(os_env(c->os, "LATHE_LLAMA_SERVER"));
    if (!path.n) path = find_program(c, "llama-server");
    if (!path.n) path = newest_engine(c);
    bool there = path.n && exists(c, path);
    *is = there    ? path
          : path.n ? arena_printf(c->mem, pick(c, STR_FMT " is not there", STR_FMT " 不存在"),
                                  STR_ARG(path))
                   : str_z(pick(c, "llama-server is not there", "未找到 llama-server"));
    return there ? CHECK_GOOD : CHECK_BAD;
}

static Verdict check_packages(Ctx *c, str *is) {
    static const char *const programs[] = { "cc",  "c++",     "make",  "pkg-config", "cmake", "git",
                                            "npm", "python3", "unzip", "curl",       "flock" };
    str lack[countof(programs)];
    size_t n = 0;
    for (size_t i = 0; i < countof(programs); i++)
        if (!find_program(c, programs[i]).n) lack[n++] = str_z(programs[i]);
    if (!n) *is = str_z(pick(c, "all that a build starts from", "编译所需程序齐备"));
    else
        *is = arena_printf(c->mem, pick(c, "a build here would lack %s", "在此编译缺少 %s"),
                           arena_join(c->mem, lack, n, S(", ")).p);
    return n ? CHECK_NOTE : CHECK_GOOD;
}

static Verdict check_gpu(Ctx *c, str *is) {
    static const struct {
        const char *path, *what;
    } devices[] = {
        { "/dev/nvidiactl", "NVIDIA" },
        { "/dev/kfd", "AMD" },
        { "/dev/davinci_manager", "Ascend" },
        { "/dev/cambricon_ctl", "Cambricon" },
    };
    *is = str_z(pick(c, "none found: models run on the processor", "未发现：模型在处理器上运行"));
    for (size_t i = 0; i < countof(devices); i++)
        if (exists(c, str_z(devices[i].path))) {
            *is = str_z(devices[i].what);
            return CHECK_GOOD;
        }
    return CHECK_NOTE;
}

static Verdict check_cgroup(Ctx *c, str *is) {
    str text = { 0 };
    bool v2 = !file_read_all(c, S("/sys/fs/cgroup/cgroup.controllers"), 4096, &text);
    bool memory = v2 && str_find(text, S("memory")) >= 0;
    if (memory) *is = arena_printf(c->mem, "v2: " STR_FMT, STR_ARG(str_trim(text)));
    else
        *is = str_z(v2 ? pick(c, "v2, without the memory controller", "v2，但无内存控制器")
                       : pick(c, "no cgroup v2", "无 cgroup v2"));
    return memory ? CHECK_GOOD : CHECK_NOTE;
}

static Verdict check_sandbox(Ctx *c, str *is) {
    bool seccomp = exists(c, S("/proc/sys/kernel/seccomp/actions_avail"));
    *is = str_z(
        seccomp ? pick(c, "seccomp: model files are read in a child without network or new files",
                       "seccomp：模型文件由无网络、不能打开新文件的子进程读取")
                : pick(c, "no seccomp", "无 seccomp"));
    return seccomp ? CHECK_GOOD : CHECK_NOTE;
}

// Of the files that the settings of this environment name: LATHE_TLS_CERT, LATHE_TLS_KEY.
static Verdict check_tls(Ctx *c, str *is) {
    enum { SOON_DAYS = 21 };
    TlsIdentity id = { .cert = str_z(os_env(c->os, "LATHE_TLS_CERT")),
                       .key = str_z(os_env(c->os, "LATHE_TLS_KEY")) };
    TlsFacts f;
    Buf why;
    if (!id.cert.n) {
        *is = str_z(pick(c, "no certificate is named: LATHE_TLS_CERT and LATHE_TLS_KEY",
                         "未指定证书（LATHE_TLS_CERT、LATHE_TLS_KEY）"));
        return CHECK_GOOD;
    }
    if (!tls_identity_check(c, &id, &f)) {
        char *to = new (c->mem, char, TIME_TEXT);
        int64_t days = (f.to_ms - os_wall_ms(c->os)) / (24 * 3600 * 1000);
        time_format(f.to_ms, to);
        *is = arena_printf(c->mem, pick(c, "good until %s, %lld days", "有效期至 %s，剩余 %lld 天"),
                           to, (long long)days);
        return days > SOON_DAYS ? CHECK_GOOD : CHECK_NOTE;
    }
    buf_init(&why, 4096);
    failure_format(&c->failure, c->lang, &why);
    *is = arena_str(c->mem, buf_str(&why));
    buf_done(&why);
    return CHECK_BAD;
}

// The settings of this environment and of the file that LATHE_CONFIG names; a small object is
// stored there and removed.
static Verdict check_store(Ctx *c, str *is) {
    const Setting *tables[64];
    size_t n = 0;
    for (const Module *const *m = modules; *m && n < countof(tables) - 1; m++)
        if ((*m)->settings) tables[n++] = (*m)->settings;
    tables[n] = NULL;
    Settings *set;
    bool named = false;
    Buf why;
    err e = settings_load(c, tables, str_z(os_env(c->os, "LATHE_CONFIG")), NULL, 0, &set);
    if (!e) settings_use(set), e = objects_check(c, &named);
    if (!e) {
        str where = arena_printf(c->mem,
                                 pick(c, "bucket " STR_FMT " can be listed, read and written",
                                      "存储桶 " STR_FMT " 可列出与读写"),
                                 STR_ARG(setting_text(&blob_settings[S3_BUCKET])));
        *is = named ? where : str_z(pick(c, "files of the data folder", "数据目录中的文件"));
        return CHECK_GOOD;
    }
    buf_init(&why, 4096);
    failure_format(&c->failure, c->lang, &why);
    *is = arena_str(c->mem, buf_str(&why));
    buf_done(&why);
    return CHECK_BAD;
}

static Verdict check_postgres(Ctx *c, str *is) {
    str url = str_z(os_env(c->os, "LATHE_DB_URL")), dump = find_program(c, "pg_dump");
    bool used = str_starts(url, S("postgres"));
    for (int n = 40; !dump.n && n >= 10; n--) {
        str path = arena_printf(c->mem, "/usr/lib/postgresql/%d/bin/pg_dump", n);
        if (exists(c, path)) dump = path;
    }
    *is = dump.n ? dump
          : used ? str_z(pick(c, "pg_dump is not here: `lathe backup` cannot read LATHE_DB_URL",
                              "没有 pg_dump：`lathe backup` 无法备份 LATHE_DB_URL"))
                 : str_z(pick(c, "not installed, and not needed: SQLite in the data folder is used",
                              "未安装，也不需要：使用数据目录中的 SQLite"));
    return dump.n || !used ? CHECK_GOOD : CHECK_NOTE;
}

// clang-format off
static const Check checks[] = {
    { "processor", "处理器", check_cpu,
      "a processor with AVX2 or better: without it inference is several times slower",
      "使用支持 AVX2 的处理器，否则推理会慢数倍" },
    { "memory", "内存", check_memory,
      "free some memory, or deploy models that fit: `lathe model_version get` says what each needs",
      "释放内存，或部署较小的模型；`lathe model_version get` 显示各模型所需内存" },
    { "open files", "打开文件数", check_files,
      "raise the limit (LimitNOFILE=65536, `ulimit -n 65536`): a client takes one, a replica too",
      "提高上限（LimitNOFILE=65536 或 `ulimit -n 65536`）：每个客户端与副本各占一个" },
    { "disk", "磁盘", check_disk,
      "free some space, or put the data folder elsewhere (--data)",
      "释放空间，或用 --data 指定其他数据目录" },
    { "engine", "推理引擎", check_engine,
      "`make setup` builds it; or set deployment.llama_server or LATHE_LLAMA_SERVER to yours",
      "运行 `make setup` 编译；或用 deployment.llama_server、LATHE_LLAMA_SERVER 指定已有的" },
    { "packages", "软件包", check_packages,
      "`make setup` installs them, or prints the line to run; a built lathe does not need them",
      "运行 `make setup` 安装（或打印所需命令）；已编译的 lathe 不需要它们" },
    { "accelerator", "加速卡", check_gpu,
      "nothing to fix for small models; for large ones a machine with a GPU or NPU and its driver",
      "小模型无需处理；大模型请使用带 GPU 或 NPU 及其驱动的机器" },
    { "cgroups", "cgroup", check_cgroup,
      "run under systemd with Delegate=yes: a replica's memory is then limited, not only watched",
      "在 systemd 下以 Delegate=yes 运行：副本内存将受限制，而不只是被监视" },
    { "sandbox", "沙箱", check_sandbox,
      "a kernel with CONFIG_SECCOMP_FILTER: without it hostile files are read with limits only",
      "使用启用 CONFIG_SECCOMP_FILTER 的内核；否则读取不可信文件时只有资源限制" },
    { "certificate", "证书", check_tls,
      "renew it, put both files in place, then SIGHUP: open connections go on",
      "续期并替换两个文件，再发送 SIGHUP：已有连接不受影响" },
    { "objects", "对象存储", check_store,
      "set LATHE_BLOB_STORE and LATHE_BLOB_S3_… as `lathe serve` gets them; then ask again",
      "按 `lathe serve` 的配置设置 LATHE_BLOB_STORE 与 LATHE_BLOB_S3_…，再次检查" },
    { "postgresql", "PostgreSQL", check_postgres,
      "install postgresql-client, as new as the server: backup and restore run its programs",
      "安装不低于服务器版本的 postgresql-client：`lathe backup` 与 `restore` 需要其程序" },
};
// clang-format on

typedef struct Finding {
    const char *name, *fix;
    str is;
    Verdict verdict;
} Finding;

static void print_json(Cli *cli, const Finding *all, size_t n) {
    static const char *const verdicts[] = { "ok", "note", "bad" };
    Buf b;
    buf_init(&b, 1 << 16);
    Json j = json_to(&b);
    json_obj(&j), json_key(&j, "data"), json_arr(&j);
    for (size_t i = 0; i < n; i++) {
        json_obj(&j);
        json_kv_z(&j, "name", all[i].name), json_kv_z(&j, "verdict", verdicts[all[i].verdict]);
        json_kv_str(&j, "is", all[i].is);
        if (all[i].verdict != CHECK_GOOD) json_kv_z(&j, "fix", all[i].fix);
        json_end_obj(&j);
    }
    json_end_arr(&j), json_end_obj(&j);
    cli_print(cli, buf_str(&b), NULL);
    buf_done(&b);
}

// Of a terminal: Chinese characters take two (UAX #11).
static int columns(const char *s) {
    int n = 0;
    for (; *s; s++) n += ((unsigned char)*s & 0xc0) == 0x80 ? 0 : (unsigned char)*s >= 0xe3 ? 2 : 1;
    return n;
}

static int doctor(Cli *cli, int argc, char **argv) {
    static const char *const marks[] = { "ok  ", "note", "BAD " };
    Finding all[countof(checks)];
    bool bad = false;
    (void)argc, (void)argv;
    err e = cli_done(cli);
    if (e) return cli_fail(cli, e);
    modules = cli->modules;
    for (size_t i = 0; i < countof(checks); i++) {
        const Check *k = &checks[i];
        str is = str_z(pick(cli->c, "unknown", "未知"));
        Verdict v = k->run(cli->c, &is);
        all[i] = (Finding){ k->en, pick(cli->c, k->fix_en, k->fix_zh), is, v };
        bad |= v == CHECK_BAD;
        if (cli->show != SHOW_TABLE) continue;
        const char *name = pick(cli->c, k->en, k->zh);
        printf("%s  %s%*s " STR_FMT "\n", marks[v], name, 12 - columns(name), "", STR_ARG(is));
        if (v != CHECK_GOOD) printf("      %-12s -> %s\n", "", all[i].fix);
    }
    if (cli->show != SHOW_TABLE) print_json(cli, all, countof(all));
    return bad ? 1 : 0;
}

static int version(Cli *cli, int argc, char **argv) {
    (void)cli, (void)argc, (void)argv;
    puts("lathe " LATHE_VERSION);
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
