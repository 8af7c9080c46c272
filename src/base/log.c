// SPDX-License-Identifier: Apache-2.0
// log.c - which lines are wanted, and how they look. The sink writes them.
// A module's level is found without a lock: names are only ever added, published by their count.
// Threads: log_levels is serialised by a flag; log_on and log_line run anywhere.
#include "buf.h"
#include "log.h"
#include "time.h"
#include <assert.h>

enum { MODULES_MAX = 64, MODULE_NAME = 16, LEVEL_UNSET = -1, TAIL = 32 };

typedef struct ModuleLevel {
    char name[MODULE_NAME];
    atomic_int level; // LEVEL_UNSET: as the default
} ModuleLevel;

static LogSink sink;
static atomic_int default_level = LOG_INFO;
static atomic_int least_level = LOG_INFO; // of the default and all modules: most calls stop here
static ModuleLevel modules[MODULES_MAX];
static atomic_int modules_n;
static atomic_flag setting = ATOMIC_FLAG_INIT;

static const char *const names[] = { "debug", "info", "warn", "error", "off" };
static const char *const upper[] = { "DEBUG", "INFO", "WARN", "ERROR", "OFF" };

void log_to(LogSink to) { sink = to; }

static bool level_parse(str s, int *out) {
    for (size_t i = 0; i < countof(names); i++)
        if (str_is(s, names[i])) return *out = (int)i, true;
    return false;
}

static bool module_valid(str s) {
    if (!s.n || s.n >= MODULE_NAME) return false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if ((c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_') return false;
    }
    return true;
}

static ModuleLevel *module_find(str name) {
    int n = atomic_load_explicit(&modules_n, memory_order_acquire);
    for (int i = 0; i < n; i++)
        if (str_is(name, modules[i].name)) return &modules[i];
    return NULL;
}

static bool part_parse(str part, str *out_module, int *out_level) {
    str level = part;
    *out_module = (str){ 0 };
    if (str_find_char(part, '=') < 0) return level_parse(part, out_level);
    return str_cut(&level, '=', out_module) && module_valid(*out_module)
           && level_parse(level, out_level);
}

static bool levels_check(str spec, str *out_bad) {
    int level, fresh = 0;
    str part, module;
    while (str_cut(&spec, ',', &part)) {
        *out_bad = part;
        if (!part_parse(part, &module, &level)) return false;
        if (module.p && !module_find(module)) fresh++; // a name said twice counts twice: harmless
        if (atomic_load(&modules_n) + fresh > MODULES_MAX) return false;
    }
    return true;
}

static void module_set(str name, int level) {
    ModuleLevel *m = module_find(name);
    if (!m) {
        int n = atomic_load(&modules_n);
        assert(n < MODULES_MAX);
        m = &modules[n];
        memcpy(m->name, name.p, name.n);
        atomic_store(&m->level, level);
        atomic_store_explicit(&modules_n, n + 1, memory_order_release);
    }
    atomic_store(&m->level, level);
}

static void levels_set(str spec) {
    int level, general = LOG_INFO, least = LOG_OFF;
    str part, module;
    for (int i = 0; i < atomic_load(&modules_n); i++) atomic_store(&modules[i].level, LEVEL_UNSET);
    while (str_cut(&spec, ',', &part)) {
        bool known = part_parse(part, &module, &level);
        assert(known); // levels_check saw it
        if (module.p) module_set(module, level);
        else general = level;
        if (level < least) least = level;
    }
    atomic_store(&default_level, general);
    atomic_store(&least_level, general < least ? general : least);
}

bool log_levels_good(str spec) {
    str bad;
    return spec.p && levels_check(spec, &bad);
}

bool log_levels(str spec, str *out_bad) {
    str bad = spec;
    while (atomic_flag_test_and_set(&setting)) {}
    bool good = spec.p && levels_check(spec, &bad);
    if (good) levels_set(spec);
    else if (out_bad) *out_bad = bad;
    atomic_flag_clear(&setting);
    return good;
}

bool log_on(const char *module, LogLevel level) {
    if ((int)level < atomic_load_explicit(&least_level, memory_order_relaxed) || !sink.write)
        return false;
    const ModuleLevel *m = module_find(str_z(module));
    int least = m ? atomic_load_explicit(&m->level, memory_order_relaxed) : LEVEL_UNSET;
    if (least == LEVEL_UNSET) least = atomic_load_explicit(&default_level, memory_order_relaxed);
    return (int)level >= least && level < LOG_OFF;
}

static void pair_json(Buf *b, const char *key, str value) {
    if (b->n > 1) buf_add_char(b, ',');
    buf_add_json(b, str_z(key));
    buf_add_char(b, ':');
    buf_add_json(b, value);
}

// As it is when a reader could not take it for something else, else as a JSON string.
static void add_text(Buf *b, str s, bool spaces_too) {
    bool plain = s.n && str_utf8(s);
    for (size_t i = 0; plain && i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        plain = c > 0x20 ? c != '"' && c != '=' && c != 0x7f : c == ' ' && spaces_too;
    }
    if (plain) buf_add(b, s);
    else buf_add_json(b, s);
}

static void pair_text(Buf *b, const char *key, str value) {
    buf_add_char(b, ' ');
    buf_add(b, str_z(key));
    buf_add_char(b, '=');
    add_text(b, value, false);
}

static void pair(Buf *b, const char *key, str value) {
    if (sink.json) pair_json(b, key, value);
    else pair_text(b, key, value);
}

static void head(Buf *b, str time, LogLevel level, str module, str message) {
    if (sink.json) {
        buf_add_char(b, '{');
        pair_json(b, "time", time);
        pair_json(b, "level", str_z(names[level]));
        pair_json(b, "module", module);
        pair_json(b, "message", str_sub(message, 0, LOG_LINE_MAX / 16));
    } else {
        buf_add(b, time);
        buf_printf(b, " %s " STR_FMT " ", upper[level], STR_ARG(module));
        add_text(b, str_sub(message, 0, LOG_LINE_MAX / 16), true);
    }
}

void log_line(const char *module, LogLevel level, const Ctx *c, const char *message,
              const char *const kv[]) {
    if (!sink.write) return;
    assert(level < LOG_OFF);
    char line[LOG_LINE_MAX + 1], time[TIME_TEXT];
    Buf b = { .p = line, .cap = LOG_LINE_MAX - TAIL, .max = LOG_LINE_MAX - TAIL };
    head(&b, time_format(sink.now_ms ? sink.now_ms(sink.arg) : 0, time), level,
         str_sub(str_z(module), 0, MODULE_NAME), str_z(message));
    if (c && c->request_id.n) pair(&b, "request_id", str_sub(c->request_id, 0, 200));
    assert(!b.full);
    for (; kv[0] && !b.full; kv += 2) {
        size_t before = b.n;
        pair(&b, kv[0], str_z(kv[1] ? kv[1] : ""));
        if (b.full) b.n = before;
    }
    bool cut = b.full;
    b.full = false, b.cap = b.max = LOG_LINE_MAX;
    if (cut) pair(&b, "truncated", S("true"));
    buf_add(&b, sink.json ? S("}\n") : S("\n"));
    assert(!b.full);
    sink.write(sink.arg, buf_str(&b));
}
