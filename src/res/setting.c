// SPDX-License-Identifier: Apache-2.0
// setting.c - see setting.h: typed values from their sources, the current set, reloads. A set owns
// an arena with all of its text; rows and tables are the caller's constants.
// Threads: loading, using and reloading are one thread's at a time; any thread reads.
#include "res/setting.h"
#include "base/time.h"
#include "os/thread.h"
#include "res/setting_impl.h"
#include <assert.h>
#include <limits.h>
#include <stdlib.h>

REASONS_DEFINE(SETTING_REASONS, setting_reasons)

enum { KEPT = 7, LISTENERS_MAX = 32 };

typedef struct Value {
    int64_t number;
    str text, source, waiting;
    int line; // of the file, while it is read
} Value;

struct Settings {
    Arena *mem;
    const Setting *const *tables;
    const Setting **rows;
    Value *values;
    size_t n;
    uint32_t *slots; // index + 1 by the row's address, 0: free
    size_t slots_n;
    str file, *flags;
    size_t flags_n;
};

// A reader holds the lock while it is inside the current set, never longer; writers swap under it.
static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
static Settings *current;
static Settings *retired[KEPT];
static size_t retired_at;
static struct {
    void (*fn)(void *arg);
    void *arg;
} listeners[LISTENERS_MAX];
static size_t listeners_n;

const char *setting_type_name(SettingType t) {
    static const char *const names[] = { "text",  "integer", "boolean", "span",
                                         "bytes", "money",   "enum",    "secret" };
    assert((unsigned)t < countof(names));
    return names[t];
}

// ---- one value

static str number_text(Ctx *c, const Setting *row, int64_t n) {
    switch (row->type) {
    case SET_SPAN: return span_format(c->mem, n);
    case SET_BYTES: return bytes_format(c->mem, n);
    case SET_MONEY: return money_format(c->mem, n);
    default: return arena_printf(c->mem, "%lld", (long long)n);
    }
}

static int64_t text_max(const Setting *row) { return row->max ? row->max : SETTING_TEXT_MAX; }

// What the value should have been: "a time such as 30s, from 1s to 7d".
static const char *wanted(Ctx *c, const Setting *row) {
    static const char *const kinds[] = { "text",
                                         "an integer",
                                         "true or false",
                                         "a time such as 30s",
                                         "a size such as 64MiB",
                                         "an amount such as 0.25",
                                         NULL,
                                         "text" };
    if (row->type == SET_ENUM) {
        str names[64];
        size_t n = 0;
        while (n < countof(names) && row->names[n]) names[n] = str_z(row->names[n]), n++;
        return say(c, "one of %s", arena_join(c->mem, names, n, S(", ")).p);
    }
    const char *kind = row->form ? row->form : kinds[row->type];
    if (row->form) return kind;
    if (row->type == SET_TEXT || row->type == SET_SECRET)
        return say(c, "UTF-8 text of %lld to %lld bytes", (long long)row->min,
                   (long long)text_max(row));
    if (!row->min && !row->max) return kind;
    return say(c, "%s, from %s to %s", kind, number_text(c, row, row->min).p,
               number_text(c, row, row->max).p);
}

static bool parse_enum(const Setting *row, str text, int64_t *out) {
    for (int64_t i = 0; row->names[i]; i++)
        if (str_is(text, row->names[i])) {
            *out = i;
            return true;
        }
    return false;
}

static bool parse_number(const Setting *row, str text, int64_t *out) {
    bool flag = false;
    switch (row->type) {
    case SET_INT: return str_to_i64(text, out);
    case SET_SPAN: return span_parse(text, out);
    case SET_BYTES: return bytes_parse(text, out);
    case SET_MONEY: return money_parse(text, out);
    case SET_ENUM: return parse_enum(row, text, out);
    case SET_BOOL:
        if (!str_to_bool(text, &flag)) return false;
        *out = flag;
        return true;
    default: abort();
    }
}

static bool parse(const Setting *row, str text, int64_t *out) {
    if (row->type == SET_TEXT || row->type == SET_SECRET)
        return text.n >= (size_t)row->min && text.n <= (size_t)text_max(row) && str_utf8(text)
               && !(text.n && memchr(text.p, 0, text.n)) && (!row->accepts || row->accepts(text));
    if (!parse_number(row, text, out)) return false;
    bool ranged = row->type != SET_BOOL && row->type != SET_ENUM && (row->min || row->max);
    return !ranged || (*out >= row->min && *out <= row->max);
}

static err set(Ctx *c, Settings *s, size_t i, str text, str source) {
    const Setting *row = s->rows[i];
    int64_t number = 0;
    if (row->type != SET_TEXT && row->type != SET_SECRET) text = str_trim(text);
    if (!parse(row, text, &number))
        return fail(c, ERR_INVALID, R_SETTING_VALUE, "source", say_str(c, source), "name",
                    row->name, "want", wanted(c, row), "got",
                    row->type == SET_SECRET ? "********" : say_str(c, text));
    s->values[i].number = number;
    s->values[i].text = arena_str(s->mem, text);
    s->values[i].source = arena_str(s->mem, source);
    return ERR_OK;
}

// ---- names

static ptrdiff_t index_of_name(const Settings *s, str name, bool flags) {
    for (size_t i = 0; i < s->n; i++) {
        if (str_is(name, s->rows[i]->name)) return (ptrdiff_t)i;
        if (flags && s->rows[i]->flag && str_is(name, s->rows[i]->flag)) return (ptrdiff_t)i;
    }
    return -1;
}

static bool is_group(const Settings *s, str name) {
    for (size_t i = 0; i < s->n; i++) {
        str row = str_z(s->rows[i]->name);
        if (row.n > name.n && str_starts(row, name) && row.p[name.n] == '.') return true;
    }
    return false;
}

static void nearer(str name, const char *one, unsigned more, unsigned *best, const char **out) {
    unsigned d = one ? str_distance(name, str_z(one)) : UINT_MAX;
    if (d < UINT_MAX - more && d + more < *best) {
        *best = d + more;
        *out = one;
    }
}

static err unknown(Ctx *c, const Settings *s, str name, str source) {
    const char *nearest = "", *last = NULL;
    unsigned best = UINT_MAX;
    for (size_t i = 0; i < s->n; i++) {
        const Setting *row = s->rows[i];
        const char *dot = strrchr(row->name, '.');
        nearer(name, row->name, 0, &best, &nearest);
        // The group may have been forgotten: "listen" is near "serve.listen".
        unsigned before = best;
        if (dot) nearer(name, dot + 1, 1, &best, &last);
        if (best < before) nearest = row->name;
        if (str_starts(source, S("flag"))) nearer(name, row->flag, 0, &best, &nearest);
    }
    return fail(c, ERR_INVALID, R_SETTING_UNKNOWN, "source", say_str(c, source), "name",
                say_str(c, name), "nearest", nearest);
}

str setting_env_name(Arena *a, const Setting *row) {
    str name = arena_printf(a, "LATHE_%s", row->name);
    char *p = (char *)(uintptr_t)name.p;
    for (size_t i = 0; i < name.n; i++) {
        if (p[i] == '.' || p[i] == '-') p[i] = '_';
        else if (p[i] >= 'a' && p[i] <= 'z') p[i] = (char)(p[i] - 'a' + 'A');
    }
    return name;
}

// ---- sources

static err take_line(Ctx *c, const SettingLine *line, void *arg) {
    Settings *s = arg;
    ptrdiff_t i = index_of_name(s, line->name, false);
    str source = arena_printf(c->mem, "file " STR_FMT ":%d", STR_ARG(s->file), line->line);
    if (i < 0 && is_group(s, line->name)) {
        if (line->kind != SETTING_LINE_VALUE) return ERR_OK;
        const char *why = say(c, "%s is a group of settings, not a value", say_str(c, line->name));
        return setting_file_fail(c, s->file, line->line, why);
    }
    if (i < 0) return unknown(c, s, line->name, source);
    if (line->kind == SETTING_LINE_GROUP)
        return setting_file_fail(c, s->file, line->line,
                                 say(c, "%s is a setting, not a group", s->rows[i]->name));
    if (s->values[i].line)
        return setting_file_fail(
            c, s->file, line->line,
            say(c, "%s was given on line %d already", s->rows[i]->name, s->values[i].line));
    s->values[i].line = line->line;
    return line->kind == SETTING_LINE_NULL ? ERR_OK : set(c, s, (size_t)i, line->value, source);
}

// LATHE_SERVE_LISTN: nothing reads it, and one or two letters away is a setting. Others of the same
// start are for programs beside this one (LATHE_URL), or a platform's (LATHE_GATEWAY_PORT).
static err check_env(Ctx *c, const Settings *s) {
    enum { SLIP = 2 };
    for (const char *const *env = os_environment(c->os); *env; env++) {
        str rest = str_z(*env), name;
        if (!str_cut(&rest, '=', &name) || !str_starts(name, S("LATHE_"))) continue;
        unsigned best = SLIP + 1;
        str nearest = { 0 };
        for (size_t i = 0; i < s->n; i++) {
            str own = setting_env_name(c->mem, s->rows[i]);
            unsigned d = str_distance(name, own);
            if (d < best) best = d, nearest = own;
        }
        if (nearest.p && best)
            return fail(c, ERR_INVALID, R_SETTING_UNKNOWN, "source", "env", "name",
                        say_str(c, name), "nearest", say_str(c, nearest));
    }
    return ERR_OK;
}

static err take_env(Ctx *c, Settings *s) {
    for (size_t i = 0; i < s->n; i++) {
        str name = setting_env_name(c->mem, s->rows[i]);
        const char *text = os_env(c->os, name.p);
        if (text)
            TRY(set(c, s, i, str_z(text), arena_printf(c->mem, "env " STR_FMT, STR_ARG(name))));
    }
    return ERR_OK;
}

static err take_flags(Ctx *c, Settings *s) {
    for (size_t i = 0; i < s->flags_n; i++) {
        str rest = s->flags[i], name = { 0 };
        bool dashes = str_starts(rest, S("--"));
        if (dashes) rest = str_sub(rest, 2, rest.n);
        if (!dashes && str_find_char(rest, '=') < 0)
            return fail(c, ERR_INVALID, R_SETTING_WORD, "word", say_str(c, rest));
        if (!str_cut(&rest, '=', &name)) continue;
        str source = arena_printf(c->mem, "flag --" STR_FMT, STR_ARG(name));
        ptrdiff_t at = index_of_name(s, name, true);
        if (at < 0) return unknown(c, s, name, source);
        if (!rest.p && s->rows[at]->type != SET_BOOL)
            return fail(c, ERR_INVALID, R_SETTING_BARE, "flag", say_str(c, s->flags[i]));
        TRY(set(c, s, (size_t)at, rest.p ? rest : S("true"), source));
    }
    return ERR_OK;
}

static err take_defaults(Ctx *c, Settings *s) {
    for (size_t i = 0; i < s->n; i++)
        TRY(set(c, s, i, str_z(s->rows[i]->fallback ? s->rows[i]->fallback : ""), S("default")));
    return ERR_OK;
}

// ---- sets

static size_t slot_of(const Settings *s, const Setting *row) {
    size_t at = ((uintptr_t)row >> 3) * UINT64_C(0x9E3779B97F4A7C15) >> 32;
    for (;; at++) {
        uint32_t i = s->slots[at % s->slots_n];
        if (!i || s->rows[i - 1] == row) return at % s->slots_n;
    }
}

static void check_rows(const Settings *s) {
    Arena *a = arena_new();
    for (size_t i = 0; i < s->n; i++) {
        assert((s->rows[i]->type == SET_ENUM) == (s->rows[i]->names != NULL));
        for (size_t k = 0; k < i; k++)
            assert(!str_eq(setting_env_name(a, s->rows[i]), setting_env_name(a, s->rows[k])));
    }
    arena_free(a);
}

static Settings *settings_new(const Setting *const *tables) {
    Settings *s = mem_new(sizeof *s);
    s->mem = arena_new();
    s->tables = tables;
    for (const Setting *const *t = tables; *t; t++)
        for (const Setting *row = *t; row->name; row++) s->n++;
    s->rows = new (s->mem, const Setting *, s->n + 1);
    s->values = new (s->mem, Value, s->n + 1);
    s->slots_n = 2 * s->n + 1;
    s->slots = new (s->mem, uint32_t, s->slots_n);
    size_t i = 0;
    for (const Setting *const *t = tables; *t; t++)
        for (const Setting *row = *t; row->name; row++) {
            s->rows[i++] = row;
            s->slots[slot_of(s, row)] = (uint32_t)i;
        }
    check_rows(s);
    return s;
}

static void copy_sources(Settings *s, str file, const str *flags, size_t flags_n) {
    s->file = arena_str(s->mem, file);
    s->flags = new (s->mem, str, flags_n + 1);
    for (size_t i = 0; i < flags_n; i++) s->flags[i] = arena_str(s->mem, flags[i]);
    s->flags_n = flags_n;
}

static err take_all(Ctx *c, Settings *s) {
    TRY(take_defaults(c, s));
    if (s->file.n) TRY(setting_file_read(c, s->file, take_line, s));
    TRY(check_env(c, s));
    TRY(take_env(c, s));
    return take_flags(c, s);
}

err settings_load(Ctx *c, const Setting *const *tables, str file, const str *flags, size_t flags_n,
                  Settings **out) {
    Settings *s = settings_new(tables);
    copy_sources(s, file, flags, flags_n);
    err e = take_all(c, s);
    if (e) settings_free(s);
    else *out = s;
    return e;
}

void settings_free(Settings *s) {
    if (!s) return;
    arena_free(s->mem);
    mem_free(s);
}

void settings_use(Settings *s) {
    pthread_rwlock_wrlock(&lock);
    Settings *old = current, *oldest = NULL;
    assert(!s || s != old);
    current = s;
    if (old) {
        oldest = retired[retired_at];
        retired[retired_at] = old;
        retired_at = (retired_at + 1) % KEPT;
    }
    pthread_rwlock_unlock(&lock);
    settings_free(oldest);
}

static bool same(const Setting *row, const Value *a, const Value *b) {
    if (row->type == SET_TEXT || row->type == SET_SECRET) return str_eq(a->text, b->text);
    return a->number == b->number;
}

// What may not change live stays as it was; its new value waits.
static str hold_back(Ctx *c, Settings *s, const Settings *old) {
    str *names = new (c->mem, str, s->n + 1);
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++) {
        assert(s->rows[i] == old->rows[i]);
        if (s->rows[i]->live) continue;
        Value now = s->values[i];
        s->values[i] = (Value){ old->values[i].number,
                                arena_str(s->mem, old->values[i].text),
                                arena_str(s->mem, old->values[i].source),
                                { 0 },
                                0 };
        if (same(s->rows[i], &now, &old->values[i])) continue;
        s->values[i].waiting = now.text;
        names[n++] = str_z(s->rows[i]->name);
    }
    return n ? arena_join(c->mem, names, n, S(", ")) : (str){ 0 };
}

err settings_reload(Ctx *c, str *out_waiting) {
    const Settings *old = current; // only this thread changes it
    assert(old);
    Settings *s;
    TRY(settings_load(c, old->tables, old->file, old->flags, old->flags_n, &s));
    *out_waiting = hold_back(c, s, old);
    settings_use(s);
    for (size_t i = 0;; i++) {
        pthread_rwlock_rdlock(&lock);
        bool more = i < listeners_n;
        void (*fn)(void *) = more ? listeners[i].fn : NULL;
        void *arg = more ? listeners[i].arg : NULL;
        pthread_rwlock_unlock(&lock);
        if (!more) return ERR_OK;
        fn(arg);
    }
}

void settings_on_change(void (*fn)(void *arg), void *arg) {
    pthread_rwlock_wrlock(&lock);
    assert(listeners_n < LISTENERS_MAX);
    listeners[listeners_n].fn = fn;
    listeners[listeners_n++].arg = arg;
    pthread_rwlock_unlock(&lock);
}

// ---- reading

// The default when no set is in use.
static Value value_of(const Setting *row) {
    Value v = { .text = str_z(row->fallback ? row->fallback : "") };
    pthread_rwlock_rdlock(&lock);
    bool used = current;
    if (used) {
        uint32_t i = current->slots[slot_of(current, row)];
        assert(i); // a row of a table that was not loaded
        v = current->values[i - 1];
    }
    pthread_rwlock_unlock(&lock);
    bool ok = used || parse(row, v.text, &v.number);
    assert(ok);
    return v;
}

int64_t setting_int(const Setting *row) {
    assert(row->type != SET_TEXT && row->type != SET_SECRET);
    return value_of(row).number;
}

str setting_text(const Setting *row) { return value_of(row).text; }

static str shown(Ctx *c, const Setting *row, str text) {
    if (row->type == SET_SECRET && text.n) return S("********");
    return arena_str(c->mem, text);
}

err settings_view(Ctx *c, SettingView **out, size_t *out_n) {
    pthread_rwlock_rdlock(&lock);
    const Settings *s = current;
    size_t n = s ? s->n : 0;
    SettingView *views = new (c->mem, SettingView, n + 1);
    for (size_t i = 0; i < n; i++) {
        const Value *v = &s->values[i];
        views[i] = (SettingView){ s->rows[i], shown(c, s->rows[i], v->text),
                                  arena_str(c->mem, v->source), shown(c, s->rows[i], v->waiting) };
    }
    pthread_rwlock_unlock(&lock);
    *out = views;
    *out_n = n;
    return ERR_OK;
}
