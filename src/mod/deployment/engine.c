// SPDX-License-Identifier: Apache-2.0
// engine.c - the engines as rows, and how llama-server is found and launched. Its flags are those
// that were measured (README.md): what the file says wins over what the server would guess.
// Owner: argument vectors live in the call's arena. Threads: workers.
#include "mod/deployment/deployment_own.h"
#include <stdlib.h>

static err llama_argv(Ctx *c, const LaunchSpec *spec, const char *const **out);

// clang-format off
const Engine engines[] = {
    { "llama.cpp", true, llama_argv, "/health", "/tokenize",
      .streams_usage = true, .takes_json_schema = true, .takes_tools = true, .embeds = true,
      .en = "llama.cpp's llama-server, run here on a unix socket",
      .zh = "在本机以 Unix 套接字运行 llama.cpp 的 llama-server" },
    { "openai", false, NULL, NULL, NULL,
      .streams_usage = true, .takes_json_schema = true, .takes_tools = true, .embeds = true,
      .en = "A server that is attached by its address; endpoint.dialect is what it speaks",
      .zh = "按地址外接的服务；endpoint.dialect 为其接口类型" },
    { 0 }
};
// clang-format on

const Engine *engine_find(str name) {
    for (const Engine *e = engines; e->name; e++)
        if (str_is(name, e->name)) return e;
    return NULL;
}

// ---- where llama-server is
static bool is_program(Ctx *c, str path) {
    PathInfo info;
    return path.n && !path_info(c, path, &info) && info.is_file && info.mode & 0111;
}

static str in_path(Ctx *c) {
    str rest = str_z(os_env(c->os, "PATH")), dir;
    while (rest.p && str_cut(&rest, ':', &dir)) {
        str path = arena_printf(c->mem, STR_FMT "/llama-server", STR_ARG(dir));
        if (dir.n && is_program(c, path)) return path;
    }
    return (str){ 0 };
}

// What deps/fetch built: the newest one.
static str in_cache(Ctx *c) {
    const char *cache = os_env(c->os, "LATHE_CACHE"), *xdg = os_env(c->os, "XDG_CACHE_HOME");
    const char *home = os_env(c->os, "HOME");
    str dir = cache  ? arena_printf(c->mem, "%s/engine", cache)
              : xdg  ? arena_printf(c->mem, "%s/lathe/engine", xdg)
              : home ? arena_printf(c->mem, "%s/.cache/lathe/engine", home)
                     : (str){ 0 };
    str *names, best = { 0 };
    size_t n;
    int64_t best_ms = 0;
    if (!dir.n || dir_list(c, dir, &names, &n)) return best;
    for (size_t i = 0; i < n; i++) {
        str path = arena_printf(c->mem, STR_FMT "/" STR_FMT "/bin/llama-server", STR_ARG(dir),
                                STR_ARG(names[i]));
        PathInfo info;
        if (path_info(c, path, &info) || !info.is_file || info.modified_ms < best_ms) continue;
        best = path, best_ms = info.modified_ms;
    }
    return best;
}

static err llama_program(Ctx *c, const char **out) {
    str path = setting_text(&deployment_settings[SET_LLAMA_SERVER]);
    if (!path.n) path = str_z(os_env(c->os, "LATHE_LLAMA_SERVER"));
    if (!path.n) path = in_path(c);
    if (!path.n) path = in_cache(c);
    if (!is_program(c, path)) return fail(c, ERR_UNAVAILABLE, R_ENGINE_ABSENT);
    *out = arena_z(c->mem, path);
    return ERR_OK;
}

// ---- how it is launched
enum { ARGS_MAX = 64 };
typedef struct Args {
    Arena *mem;
    const char **at;
    size_t n;
} Args;

static void add(Args *a, const char *one) {
    if (a->n < ARGS_MAX - 1) a->at[a->n++] = one;
}
static void add_text(Args *a, const char *flag, str value) {
    add(a, flag), add(a, arena_z(a->mem, value));
}
static void add_number(Args *a, const char *flag, int64_t value) {
    add(a, flag), add(a, arena_printf(a->mem, "%lld", (long long)value).p);
}

static void add_embedding(Args *a, const LaunchSpec *spec) {
    add(a, "--embeddings");
    if (spec->pool_mean) add(a, "--pooling"), add(a, "mean");
    add_number(a, "-b", spec->context),
        add_number(a, "-ub", spec->context); // a text is computed whole
}

static err llama_argv(Ctx *c, const LaunchSpec *spec, const char *const **out) {
    Args a = { c->mem, new (c->mem, const char *, ARGS_MAX), 0 };
    const char *program = NULL;
    OsFacts facts;
    TRY(llama_program(c, &program));
    os_facts(c->os, &facts);
    add(&a, program);
    add_text(&a, "--host", spec->socket), add_text(&a, "--model", spec->model_path);
    add_text(&a, "--alias", spec->alias);
    add(&a, "--offline"), add(&a, "--no-ui");
    add(&a, "-fit"), add(&a, "off");
    add_number(&a, "-c", spec->context * spec->slots), add_number(&a, "-np", spec->slots);
    add(&a, "-no-kvu");
    add_number(&a, "-t", spec->threads > 0 ? spec->threads : facts.cpus > 0 ? facts.cpus : 1);
    add(&a, "--metrics");
    add_number(&a, "--cache-ram", 0), add_number(&a, "--sse-ping-interval", 1),
        add_number(&a, "-lv", 3);
    if (spec->cache_q8) {
        add(&a, "-fa"), add(&a, "on");
        add(&a, "-ctk"), add(&a, "q8_0"), add(&a, "-ctv"), add(&a, "q8_0");
    }
    if (spec->task == TASK_EMBEDDING) add_embedding(&a, spec);
    *out = a.at;
    return ERR_OK;
}
