// SPDX-License-Identifier: Apache-2.0
// setting.h - rows of what an operator may set. Value from, later wins: default, YAML file, environment (LATHE_<NAME>, dots as
// underscores), flag (--<name>, or its short form). An unknown key is an error that suggests the nearest. Live rows change on SIGHUP; a
// reload that has an error changes nothing and says so. Threads: readers see one immutable set, swapped atomically.
#ifndef LATHE_RES_SETTING_H
#define LATHE_RES_SETTING_H
#include "os/os.h"

typedef enum { SET_TEXT, SET_INT, SET_BOOL, SET_SPAN, SET_BYTES, SET_MONEY, SET_ENUM, SET_SECRET } SettingType;
typedef struct Setting {
    const char *name;                            // "serve.listen"
    SettingType type;
    const char *fallback;                        // text of the default
    int64_t min, max;                            // ms, bytes, or the number; both 0: any
    const char *const *names;                    // SET_ENUM
    bool live;                                   // SIGHUP applies it
    const char *flag;                            // short form on `lathe serve`: "listen"; NULL: none
    const char *en, *zh;
} Setting;
typedef struct Settings Settings;                // one immutable set of values
// Reads every source. flags: "name=value" pairs. file absent: none. Errors name the source, line and nearest name.
err settings_load(Ctx *c, const Setting *const *tables, str file, const str *flags, size_t flags_n, Settings **out);
void settings_free(Settings *s);
void settings_use(Settings *s);                  // becomes the current set (start, SIGHUP); the old one is kept until its readers are gone
err settings_reload(Ctx *c);                     // the same sources again; only live rows change; names those that would need a restart
// Current values; row must be one of the loaded tables' rows (an unknown row aborts).
int64_t setting_int(const Setting *row);         // INT, SPAN (ms), BYTES, MONEY (nano), ENUM (index), BOOL
str setting_text(const Setting *row);            // any type, as text; valid until the next-but-one reload
typedef struct SettingView { const Setting *row; str value, source; } SettingView;   // source: "default", "file lathe.yaml:12", "env LATHE_X", "flag"
err settings_view(Ctx *c, SettingView **out, size_t *out_n); // secrets shown as "********"
void settings_on_change(void (*fn)(void *arg), void *arg);   // after a reload, on the thread that did it

#define SETTING_REASONS(X)                                                                                                   \
    X(SETTING_UNKNOWN, "unknown_setting", "{source}: there is no setting {name}; did you mean {nearest}?", "{source}：没有设置项 {name}；是否指 {nearest}？") \
    X(SETTING_VALUE, "bad_setting", "{source}: {name} must be {want}, not {got}", "{source}：{name} 应为 {want}，而不是 {got}")     \
    X(SETTING_FILE, "bad_settings_file", "{path} line {line}: {why}", "{path} 第 {line} 行：{why}")
REASONS_DECLARE(SETTING_REASONS)
extern const Reason *const setting_reasons[];
#endif
