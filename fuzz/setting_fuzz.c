// SPDX-License-Identifier: Apache-2.0
// setting_fuzz.c - any bytes as the settings of the whole program: a YAML file, then after a NUL
// the flags, then after another the environment, a line each. What is accepted is within its rows,
// and reads the same when all of it is given as flags.
// Covers: src/res/setting.c src/res/setting_file.c
// Threads: one.
#include "fuzz.h"
#include "os/file.h"
#include "os/os_impl.h"
#include "os/sim.h"
#include "res/module.h"

extern const Module *const lathe_modules[];

enum { LINES_MAX = 6 };
static const char *lines[LINES_MAX + 1]; // the environment

static const char *env(Os *os, const char *name) {
    size_t n = strlen(name);
    (void)os;
    for (const char **at = lines; *at; at++)
        if (!strncmp(*at, name, n) && (*at)[n] == '=') return *at + n + 1;
    return NULL;
}
static const char *const *environment(Os *os) { return (void)os, lines; }

static const Setting *const *tables(void) {
    static const Setting *all[64];
    size_t n = 0;
    for (const Module *const *m = lathe_modules; *m && n < countof(all) - 1; m++)
        if ((*m)->settings) all[n++] = (*m)->settings;
    return all;
}

static size_t split(Ctx *c, str text, str *out) {
    size_t n = 0;
    str line;
    while (n < LINES_MAX && text.n && str_cut(&text, '\n', &line))
        if (line.n) out[n++] = arena_str(c->mem, line);
    return n;
}

static void check_again(Ctx *c) {
    SettingView *views, *again;
    size_t n, m, flags_n = 0;
    err e = settings_view(c, &views, &n);
    assert(!e);
    str *flags = new (c->mem, str, n);
    for (size_t i = 0; i < n; i++)
        if (views[i].row->type != SET_SECRET)
            flags[flags_n++] =
                arena_printf(c->mem, "--%s=" STR_FMT, views[i].row->name, STR_ARG(views[i].value));
    Settings *set;
    lines[0] = NULL;
    e = settings_load(c, tables(), (str){ 0 }, flags, flags_n, &set);
    assert(!e);
    settings_use(set);
    e = settings_view(c, &again, &m);
    assert(!e && m == n);
    for (size_t i = 0; i < n; i++) {
        const Setting *row = views[i].row;
        if (row->type == SET_SECRET) continue;
        assert(str_eq(views[i].value, again[i].value));
        bool number = row->type != SET_TEXT && row->type != SET_ENUM && row->type != SET_BOOL;
        if (!number || (!row->min && !row->max)) continue;
        assert(setting_int(row) >= row->min && setting_int(row) <= row->max);
    }
}

FUZZ(setting) {
    static OsOps ops;
    str parts[3] = { 0 }, flags[LINES_MAX], vars[LINES_MAX];
    for (size_t i = 0; i < countof(parts) && bytes.n; i++) str_cut(&bytes, '\0', &parts[i]);
    Sim *sim = sim_new(1);
    Os *os = sim_node(sim, 0);
    ops = *os->ops, ops.env = env, ops.environment = environment;
    os->ops = &ops;
    Ctx c;
    ctx_init(&c, arena_new(), os);
    err e = file_write_all(&c, S("/f.yaml"), parts[0].p ? parts[0] : S(""), 0);
    assert(!e);
    size_t flags_n = split(&c, parts[1], flags), vars_n = split(&c, parts[2], vars);
    for (size_t i = 0; i < vars_n; i++) lines[i] = arena_z(c.mem, vars[i]);
    lines[vars_n] = NULL;
    Settings *set;
    e = settings_load(&c, tables(), S("/f.yaml"), flags, flags_n, &set);
    if (e) fuzz_refused(&c, e, e == ERR_TOOLARGE ? e : ERR_INVALID);
    else settings_use(set), check_again(&c);
    arena_free(c.mem);
    sim_free(sim);
}
