// SPDX-License-Identifier: Apache-2.0
// setting.h - rows of what an operator may set. Value from, later wins: default, YAML file,
// environment (LATHE_<NAME>, dots as underscores), flag (--<name>, or its short form). An unknown
// key is an error that suggests the nearest. Live rows change on SIGHUP; a reload that has an error
// changes nothing and says so.
// Threads: any reads; one at a time loads, uses and reloads. A set is immutable, swapped whole.
#ifndef LATHE_RES_SETTING_H
#define LATHE_RES_SETTING_H
#include "os/os.h"

typedef enum {
    SET_TEXT,
    SET_INT,
    SET_BOOL,
    SET_SPAN,
    SET_BYTES,
    SET_MONEY,
    SET_ENUM,
    SET_SECRET
} SettingType;
const char *setting_type_name(SettingType t); // "text", "span" ...

typedef struct Setting {
    const char *name; // "serve.listen"; a dot makes a group in the file
    SettingType type;
    const char *fallback;     // text of the default; NULL is ""
    int64_t min, max;         // ms, bytes (of text: its length), or the number; both 0: any
    const char *const *names; // SET_ENUM, NULL ends
    bool live;                // SIGHUP applies it
    const char *flag;         // short form on `lathe serve`: "listen"; NULL: none
    bool (*accepts)(str text); // SET_TEXT of a form of its own; NULL: any
    const char *form;          // what that is, for the failure: "levels such as info,net=debug"
    const char *en, *zh;
} Setting;
enum { SETTING_TEXT_MAX = 4096, SETTING_FILE_MAX = 1 << 20 }; // bytes

typedef struct Settings Settings; // one immutable set of values
// Reads every source. tables: NULL ends; each table ends with a zero name, and outlives the set.
// file absent: none. flags: "name=value", with or without "--"; a bare "--name" is "true" of a
// SET_BOOL. A variable of the environment that is nearly a row's is taken for a slip. ERR_INVALID
// names the source, its line and the nearest name.
err settings_load(Ctx *c, const Setting *const *tables, str file, const str *flags, size_t flags_n,
                  Settings **out);
void settings_free(Settings *s); // one that was never used; NULL is fine
// Becomes the current set (start, tests; NULL: the defaults of every row are). The set takes care
// of itself from now on: its memory is given back seven changes later.
void settings_use(Settings *s);
// The same sources again. Only live rows change; *out_waiting (absent: none) names the others that
// differ, which wait for a restart.
err settings_reload(Ctx *c, str *out_waiting);

// Current values. A row that no loaded table holds aborts.
int64_t setting_int(const Setting *row); // INT, SPAN (ms), BYTES, MONEY (nano), ENUM (index), BOOL
str setting_text(const Setting *row);    // any type, as text; valid for six reloads more
typedef struct SettingView {
    const Setting *row;
    str value, source; // "default", "file lathe.yaml:12", "env LATHE_X", "flag"
    str waiting;       // the value that a restart would bring; absent: the same
} SettingView;
// In the order of the tables, in c->mem; secrets that are set are "********".
err settings_view(Ctx *c, SettingView **out, size_t *out_n);
str setting_env_name(Arena *a, const Setting *row);        // LATHE_SERVE_LISTEN
void settings_on_change(void (*fn)(void *arg), void *arg); // after a reload, on its thread

// clang-format off
#define SETTING_REASONS(X) \
    X(SETTING_UNKNOWN, "unknown_setting", \
      "{source}: there is no setting {name}; did you mean {nearest}?", \
      "{source}：没有设置项 {name}；是否指 {nearest}？") \
    X(SETTING_VALUE, "bad_setting", "{source}: {name} must be {want}, not {got}", \
      "{source}：{name} 应为 {want}，而不是 {got}") \
    X(SETTING_BARE, "setting_without_value", "flag {flag} needs a value after it", \
      "参数 {flag} 之后需要一个值") \
    X(SETTING_WORD, "unexpected_argument", \
      "{word} is not expected here: settings are given as --NAME VALUE", \
      "此处不应出现 {word}：设置的写法为 --名称 值") \
    X(SETTING_FILE, "bad_settings_file", "{path} line {line}: {why}", \
      "{path} 第 {line} 行：{why}")
// clang-format on
REASONS_DECLARE(SETTING_REASONS)
extern const Reason *const setting_reasons[];
#endif
