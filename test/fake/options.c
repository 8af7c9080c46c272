// SPDX-License-Identifier: Apache-2.0
// options.c - the command line: our own options, and those of llama-server that Lathe passes, so
// that the fake can be launched in its place. An unknown option is refused, as there.
// Threads: the loop's.
#include "fake.h"
#include <stdio.h>

enum { KEEP_MIN = 16384 }; // more than there can be connections

typedef struct NumberRow {
    const char *name;
    size_t offset;
    int64_t max;
} NumberRow;
#define B(name, field, max) \
    { name, offsetof(Behaviour, field), max }
static const NumberRow behaviours[] = {
    B("latency-ms", latency_ms, 3600000),
    B("jitter-ms", jitter_ms, 3600000),
    B("latency-p99-ms", latency_p99_ms, 3600000),
    B("token-ms", token_ms, 3600000),
    B("token-jitter-ms", token_jitter_ms, 3600000),
    B("tokens", tokens, 1000000),
    B("tokens-per-chunk", tokens_per_chunk, 1000000),
    B("fail-rate", fail_ppm, 1000000),
    B("cut-rate", cut_ppm, 1000000),
    B("big-bytes", big_bytes, 16 << 20),
    B("stamp", stamp, 1),
};
#define N(name, field, max) \
    { name, offsetof(Options, field), max }
static const NumberRow numbers[] = {
    N("--port", port, 65535),
    N("--load-ms", load_ms, 3600000),
    N("--slots", slots, 16384), // a number follows; alone it is llama-server's switch
    N("--parallel", slots, 16384),
    N("-np", slots, 16384),
    N("--ctx-size", ctx_size, 1 << 30),
    N("-c", ctx_size, 1 << 30),
    N("--ubatch-size", batch, 1 << 30), // what an embedding may measure
    N("-ub", batch, 1 << 30),
    N("--seed", seed, INT64_MAX),
    N("-s", seed, INT64_MAX),
    N("--hang-after", hang_after, INT64_MAX),
    N("--exit-after", exit_after, INT64_MAX),
    N("--dimensions", dimensions, 8192),
    N("--keep", keep, 10000000),
    N("--idle-ms", idle_ms, 3600000),
    N("--sse-ping-interval", ping_s, 3600),
};
#define T(name, field) \
    { name, offsetof(Options, field), 0 }
static const NumberRow texts[] = {
    T("--host", host),   T("--model", model), T("-m", model),
    T("--alias", alias), T("-a", alias),      T("--api-key", api_key),
};
static const struct {
    const char *name;
    size_t offset;
    bool value;
} flags[] = {
    { "--embeddings", offsetof(Options, embeddings), true },
    { "--embedding", offsetof(Options, embeddings), true },
    { "--metrics", offsetof(Options, metrics), true },
    { "--no-slots", offsetof(Options, no_slots), true },
};

// llama-server's, taken and without effect: alone, with a value, with one when it is no option.
// clang-format off
static const char *const ignored[] = {
    "--no-webui", "--no-ui", "--jinja", "--no-jinja", "--no-mmap", "--mmap", "--mlock",
    "--log-disable", "--log-prefix", "--no-log-prefix", "--log-timestamps", "--no-log-timestamps",
    "--log-jsonl", "--cont-batching", "-cb", "--no-cont-batching", "--kv-unified", "-kvu",
    "--no-kv-unified", "-no-kvu", "--swa-full", "--no-warmup", "--warmup", "--offline", "--props",
    "--no-context-shift", "--context-shift", "--cache-prompt", "--no-cache-prompt", "--no-repack",
    "-nr", "--repack", "--no-cache-idle-slots", "--no-perf", "--perf", "-v", "--verbose",
};
static const char *const ignored_value[] = {
    "--threads", "-t", "--threads-batch", "-tb", "--threads-http", "--batch-size", "-b",
    "--cache-type-k", "-ctk", "--cache-type-v", "-ctv", "--cache-ram", "-cram",
    "--ctx-checkpoints", "--pooling", "--chat-template", "--chat-template-file", "--lora",
    "--lora-scaled", "--timeout", "-to", "--n-predict", "-n", "--predict", "--numa", "--prio",
    "--poll", "--gpu-layers", "-ngl", "--n-gpu-layers", "--device", "-dev", "--load-mode", "-lm",
    "--log-file", "--verbosity", "-lv", "--log-verbosity", "--reasoning-format",
    "--reasoning-budget", "--sleep-idle-seconds", "--temp", "--top-k",
    "--top-p", "--min-p", "--rope-scaling", "--rope-scale", "--rope-freq-base", "--override-kv",
    "--mmproj", "--slot-save-path", "--tags", "--cpu-mask", "-C", "--fit", "-fit",
};
static const char *const ignored_maybe[] = { "--flash-attn", "-fa", "--log-colors" };
// clang-format on

static bool among(const char *const *list, size_t n, const char *name) {
    for (size_t i = 0; i < n; i++)
        if (!strcmp(list[i], name)) return true;
    return false;
}

static bool behaviour_set(str name, str value, Behaviour *b) {
    for (size_t i = 0; i < countof(behaviours); i++) {
        int64_t n;
        if (!str_is(name, behaviours[i].name)) continue;
        if (!str_to_i64(value, &n) || n < 0 || n > behaviours[i].max) return false;
        *(int64_t *)((char *)b + behaviours[i].offset) = n;
        return true;
    }
    return false;
}

bool options_text(str text, Behaviour *b) {
    str rest = text, pair;
    while (text.n && str_cut(&rest, ',', &pair)) {
        str value = pair, name;
        if (!str_cut(&value, '=', &name) || !value.p || !behaviour_set(name, value, b))
            return false;
    }
    return true;
}

void options_of_name(str name, Behaviour *b) {
    for (ptrdiff_t at; (at = str_find(name, S("--"))) >= 0;) {
        name = str_sub(name, (size_t)at + 2, name.n);
        ptrdiff_t end = str_find(name, S("--"));
        str value = end < 0 ? name : str_sub(name, 0, (size_t)end), key;
        if (str_cut(&value, '.', &key) && value.p) (void)behaviour_set(key, value, b);
    }
}

void options_json(const Behaviour *b, Json *j) {
    json_obj(j);
    for (size_t i = 0; i < countof(behaviours); i++)
        json_kv_i64(j, behaviours[i].name,
                    *(const int64_t *)((const char *)b + behaviours[i].offset));
    json_end_obj(j);
}

int64_t options_context(const Options *o) {
    enum { EACH = 4096 };
    return o->ctx_size ? o->ctx_size / o->slots : EACH;
}

static bool set_number(const NumberRow *row, const char *value, Options *o) {
    int64_t n;
    bool good = str_to_i64(str_z(value), &n) && n <= row->max;
    // llama-server's -1 is "as you like".
    if (good && n >= 0) *(int64_t *)((char *)o + row->offset) = n;
    return good && n >= -1;
}

static bool set_text(const NumberRow *row, const char *value, Options *o) {
    return snprintf((char *)o + row->offset, TEXT_MAX, "%s", value) < TEXT_MAX;
}

static bool set_flag(const char *name, Options *o) {
    for (size_t i = 0; i < countof(flags); i++) {
        if (strcmp(flags[i].name, name)) continue;
        *(bool *)((char *)o + flags[i].offset) = flags[i].value;
        return true;
    }
    return among(ignored, countof(ignored), name);
}

// One option that takes a value. False: it takes none, or the value is bad.
static bool set_value(const char *name, const char *value, Options *o) {
    for (size_t i = 0; i < countof(numbers); i++)
        if (!strcmp(numbers[i].name, name)) return set_number(&numbers[i], value, o);
    for (size_t i = 0; i < countof(texts); i++)
        if (!strcmp(texts[i].name, name)) return set_text(&texts[i], value, o);
    if (!strncmp(name, "--", 2) && behaviour_set(str_z(name + 2), str_z(value), &o->b)) return true;
    return among(ignored_value, countof(ignored_value), name);
}

static int parse_one(char **argv, Options *o) { // arguments taken; 0: not understood
    const char *value = argv[1];
    bool has_value = value && (value[0] != '-' || (value[1] >= '0' && value[1] <= '9'));
    if (!strcmp(argv[0], "--slots") && !has_value) return 1;
    if (among(ignored_maybe, countof(ignored_maybe), argv[0])) return has_value ? 2 : 1;
    if (set_flag(argv[0], o)) return 1;
    return value && set_value(argv[0], value, o) ? 2 : 0;
}

bool options_parse(int argc, char **argv, Options *o, char out_bad[TEXT_MAX]) {
    *o = (Options){ .b = { .tokens = 16, .tokens_per_chunk = 1 },
                    .host = "127.0.0.1",
                    .port = 8080,
                    .slots = 4,
                    .batch = 512,
                    .seed = 1,
                    .hang_after = -1,
                    .exit_after = -1,
                    .dimensions = 384,
                    .keep = 65536,
                    .idle_ms = 5000,
                    .ping_s = 30 };
    for (int i = 1, n; i < argc; i += n) {
        n = parse_one(argv + i, o);
        if (n) continue;
        snprintf(out_bad, TEXT_MAX, "error: invalid argument: %s", argv[i]);
        return false;
    }
    if (!o->slots) o->slots = 1;
    if (o->keep < KEEP_MIN) o->keep = KEEP_MIN;
    if (!o->dimensions) o->dimensions = 1;
    if (!*o->alias) snprintf(o->alias, TEXT_MAX, "%s", *o->model ? o->model : "fake");
    options_of_name(str_z(o->alias), &o->b);
    return true;
}
