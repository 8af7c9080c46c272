// SPDX-License-Identifier: Apache-2.0
// setting_test.c - which source wins, what each refusal says, what a reload may change, and that
// readers see whole values while sets are swapped.
#include "base/test.h"
#include "os/file.h"
#include "os/thread.h"
#include "res/setting.h"
#include <stdlib.h>

static const char *const levels[] = { "debug", "info", "warn", NULL };
// clang-format off
static const Setting rows[] = {
    { "test_serve.listen", SET_TEXT, "127.0.0.1:8080", .flag = "test-listen", .en = "Address" },
    { "test_serve.threads", SET_INT, "2", 1, 64, .en = "Threads" },
    { "test_event.retain", SET_SPAN, "7d", 1000, 31536000000, .live = true, .en = "Kept" },
    { "test_event.bytes", SET_BYTES, "1MiB", 0, 1 << 30, .live = true, .en = "Bytes" },
    { "test_log.level", SET_ENUM, "info", .names = levels, .live = true, .en = "Level" },
    { "test_log.json", SET_BOOL, "false", .live = true, .en = "JSON" },
    { "test_price", SET_MONEY, "0.25", 0, 5000000000, .live = true, .en = "Price" },
    { "test_key", SET_SECRET, "", 0, 20, .live = true, .en = "Key" },
    { 0 }
};
static bool even(str text) { return text.n % 2 == 0; }
static const Setting more[] = {
    { "test_more.name", SET_TEXT, "a", 1, 5, .en = "Name" },
    { "test_more.pair", SET_TEXT, "ab", 0, 9, .accepts = even, .form = "an even text" },
    { 0 }
};
// clang-format on
static const Setting *const tables[] = { rows, more, NULL };
enum { LISTEN, THREADS, RETAIN, BYTES, LEVEL, JSON, PRICE, KEY };

static str path_of(Ctx *c) { return arena_printf(c->mem, "%s/lathe.yaml", test_dir()); }

static err load(Ctx *c, const char *yaml, const char *flag, Settings **out) {
    c->os = os_real();
    str flags[] = { str_z(flag) };
    if (yaml) TRY(file_write_all(c, path_of(c), str_z(yaml), 0));
    return settings_load(c, tables, yaml ? path_of(c) : (str){ 0 }, flags, flag ? 1 : 0, out);
}

// Loads, uses, and returns what a row then says.
static const char *value(Ctx *c, const char *yaml, const char *flag, const Setting *row) {
    Settings *s;
    if (load(c, yaml, flag, &s)) return "refused";
    settings_use(s);
    const char *text = arena_z(c->mem, setting_text(row));
    settings_use(NULL);
    return text;
}

TEST(setting_defaults_hold_without_a_set) {
    settings_use(NULL);
    CHECK_INT(setting_int(&rows[THREADS]), 2);
    CHECK_INT(setting_int(&rows[RETAIN]), 7 * 86400000LL);
    CHECK_INT(setting_int(&rows[PRICE]), 250000000);
    CHECK_STR(setting_text(&rows[LISTEN]), "127.0.0.1:8080");
}

TEST(setting_later_sources_win) {
    Ctx *c = test_ctx();
    const char *nested = "test_serve:\n  listen: 1.1.1.1:1\n  threads: 7\n";
    const char *dotted = "test_serve.listen: 1.1.1.1:1\n";
    CHECK_STR(str_z(value(c, NULL, NULL, &rows[LISTEN])), "127.0.0.1:8080");
    CHECK_STR(str_z(value(c, nested, NULL, &rows[LISTEN])), "1.1.1.1:1");
    CHECK_STR(str_z(value(c, dotted, NULL, &rows[LISTEN])), "1.1.1.1:1");
    setenv("LATHE_TEST_SERVE_LISTEN", "2.2.2.2:2", 1);
    CHECK_STR(str_z(value(c, nested, NULL, &rows[LISTEN])), "2.2.2.2:2");
    CHECK_STR(str_z(value(c, nested, NULL, &rows[THREADS])), "7");
    CHECK_STR(str_z(value(c, nested, "--test-listen=3.3.3.3:3", &rows[LISTEN])), "3.3.3.3:3");
    CHECK_STR(str_z(value(c, nested, "test_serve.listen=[::1]:3", &rows[LISTEN])), "[::1]:3");
    CHECK_STR(str_z(value(c, nested, "--test_log.json", &rows[JSON])), "true");
    unsetenv("LATHE_TEST_SERVE_LISTEN");
}

TEST(setting_types_parse) {
    Ctx *c = test_ctx();
    Settings *s;
    CHECK_OK(c, load(c,
                     "# all of them\ntest_event: {retain: 36h, bytes: 64KiB}\ntest_log:\n"
                     "  level: warn\n  json: yes\ntest_price: \"1.5\"\ntest_key: ' x '\n"
                     "test_serve:\ntest_more: ~\n",
                     NULL, &s));
    settings_use(s);
    CHECK_INT(setting_int(&rows[RETAIN]), 36 * 3600000LL);
    CHECK_INT(setting_int(&rows[BYTES]), 65536);
    CHECK_INT(setting_int(&rows[LEVEL]), 2);
    CHECK_INT(setting_int(&rows[JSON]), 1);
    CHECK_INT(setting_int(&rows[PRICE]), 1500000000);
    CHECK_STR(setting_text(&rows[KEY]), " x ");
    CHECK_INT(setting_int(&rows[THREADS]), 2);
    settings_use(NULL);
}

// A slip in the environment is told; what is for another program is left alone.
TEST(setting_slips_in_the_environment_are_refused) {
    Ctx *c = test_ctx();
    Settings *s;
    setenv("LATHE_TEST_SERVE_LISTN", "1.1.1.1:1", 1);
    CHECK_ERR(load(c, NULL, NULL, &s), ERR_INVALID);
    CHECK_STR(failure_param(&c->failure, "name"), "LATHE_TEST_SERVE_LISTN");
    CHECK_STR(failure_param(&c->failure, "nearest"), "LATHE_TEST_SERVE_LISTEN");
    unsetenv("LATHE_TEST_SERVE_LISTN");
    setenv("LATHE_TEST_SERVE_PORT", "1", 1);
    CHECK_OK(c, load(c, NULL, NULL, &s));
    settings_free(s);
    unsetenv("LATHE_TEST_SERVE_PORT");
}

// What loading says, in English.
static str said(Ctx *c, const char *yaml, const char *flag) {
    Settings *s;
    if (load(c, yaml, flag, &s) != ERR_INVALID) return S("was not refused");
    Buf b;
    buf_init(&b, 4096);
    failure_format(&c->failure, "en", &b);
    str text = arena_str(c->mem, buf_str(&b)), dir = path_of(c);
    buf_done(&b);
    ptrdiff_t at = str_find(text, dir);
    if (at < 0) return text;
    return arena_printf(c->mem, STR_FMT "F" STR_FMT, (int)at, text.p,
                        STR_ARG(str_sub(text, (size_t)at + dir.n, text.n)));
}

TEST(setting_refusals_name_source_and_nearest) {
    Ctx *c = test_ctx();
    const struct {
        const char *yaml, *flag, *said;
    } cases[] = {
        { "test_serve:\n  lisen: x\n", NULL,
          "file F:2: there is no setting test_serve.lisen; did you mean test_serve.listen?" },
        { "\n\nthreads: 3\n", NULL,
          "file F:3: there is no setting threads; did you mean test_serve.threads?" },
        { NULL, "--test-lsten=1",
          "flag --test-lsten: there is no setting test-lsten; did you mean test-listen?" },
        { "test_serve: {threads: 65}\n", NULL,
          "file F:1: test_serve.threads must be an integer, from 1 to 64, not 65" },
        { NULL, "test_event.retain=1",
          "flag --test_event.retain: test_event.retain must be a time such as 30s, from 1s to "
          "365d, not 1" },
        { "test_log.level: loud\n", NULL,
          "file F:1: test_log.level must be one of debug, info, warn, not loud" },
        { "test_more.pair: abc\n", NULL, "file F:1: test_more.pair must be an even text, not abc" },
        { NULL, "--test-listen", "flag --test-listen needs a value after it" },
        { NULL, "threads", "threads is not expected here: settings are given as --NAME VALUE" },
        { "test_log.json: maybe\n", NULL,
          "file F:1: test_log.json must be true or false, not maybe" },
        { "test_key: 123456789012345678901\n", NULL,
          "file F:1: test_key must be UTF-8 text of 0 to 20 bytes, not ********" },
        { "test_more.name: ''\n", NULL,
          "file F:1: test_more.name must be UTF-8 text of 1 to 5 bytes, not " },
        { "test_serve: 3\n", NULL, "F line 1: test_serve is a group of settings, not a value" },
        { "test_price: {a: 1}\n", NULL, "F line 1: test_price is a setting, not a group" },
        { "test_price: 1\ntest_price: 2\n", NULL,
          "F line 2: test_price was given on line 1 already" },
        { "test_serve: [a]\n", NULL, "F line 1: a setting is not a list" },
        { "a: &x\n  b: *x\n", NULL,
          "file F:1: there is no setting a; did you mean "
          "test_more.name?" },
        { "test_price: *x\n", NULL, "F line 1: a value is wanted here, not an alias" },
        { "- a\n", NULL, "F line 1: the file is not a map of settings" },
        { "test_price: 1\n---\ntest_price: 2\n", NULL, "F line 2: a second document is not read" },
        { "test_serve: {listen: x\n", NULL, "F line 2: did not find expected ',' or '}'" },
        { "test_key: \xff\n", NULL, "F line 1: invalid leading UTF-8 octet" },
    };
    for (size_t i = 0; i < countof(cases); i++)
        CHECK_STR(said(c, cases[i].yaml, cases[i].flag), cases[i].said);
    setenv("LATHE_TEST_SERVE_THREADS", "many", 1);
    CHECK_STR(said(c, NULL, NULL), "env LATHE_TEST_SERVE_THREADS: test_serve.threads must be an "
                                   "integer, from 1 to 64, not many");
    unsetenv("LATHE_TEST_SERVE_THREADS");
    Settings *s;
    CHECK_ERR(settings_load(c, tables, S("/nowhere/at/all"), NULL, 0, &s), ERR_NOTFOUND);
}

static void bump(void *arg) { ++*(int *)arg; }

TEST(setting_reload_changes_live_rows_only) {
    Ctx *c = test_ctx();
    static int changes;
    settings_on_change(bump, &changes);
    changes = 0;
    Settings *s;
    CHECK_OK(c, load(c, "test_serve.threads: 3\ntest_log.level: info\n", NULL, &s));
    settings_use(s);
    str waiting;
    CHECK_OK(c, settings_reload(c, &waiting));
    CHECK(!waiting.p);
    CHECK_OK(c, file_write_all(c, path_of(c),
                               S("test_serve.threads: 5\ntest_log.level: warn\n"
                                 "test_key: hidden\n"),
                               0));
    CHECK_OK(c, settings_reload(c, &waiting));
    CHECK_STR(waiting, "test_serve.threads");
    CHECK_INT(setting_int(&rows[THREADS]), 3);
    CHECK_INT(setting_int(&rows[LEVEL]), 2);
    CHECK_INT(changes, 2);
    CHECK_OK(c, file_write_all(c, path_of(c), S("test_log.level: loud\n"), 0));
    CHECK_ERR(settings_reload(c, &waiting), ERR_INVALID);
    CHECK_INT(setting_int(&rows[LEVEL]), 2);
    CHECK_INT(changes, 2);
    SettingView *views;
    size_t n;
    CHECK_OK(c, settings_view(c, &views, &n));
    CHECK_INT(n, 10);
    CHECK_STR(views[THREADS].value, "3");
    CHECK_STR(views[THREADS].waiting, "5");
    CHECK_STR(views[KEY].value, "********");
    CHECK_STR(views[LISTEN].source, "default");
    CHECK_STR(views[LEVEL].source,
              arena_printf(c->mem, "file " STR_FMT ":2", STR_ARG(path_of(c))).p);
    settings_use(NULL);
}

static atomic_bool done;
static void read_often(void *arg) {
    atomic_bool *wrong = arg;
    while (!atomic_load(&done)) {
        int64_t retain = setting_int(&rows[RETAIN]);
        if (retain != 1000 && retain != 2000) atomic_store(wrong, true);
    }
}

TEST(setting_swaps_are_atomic) {
    Ctx *c = test_ctx();
    atomic_bool wrong = false;
    Settings *s;
    CHECK_OK(c, load(c, "test_event.retain: 1s\n", NULL, &s));
    settings_use(s);
    atomic_store(&done, false);
    Thread t[2];
    for (size_t i = 0; i < countof(t); i++) thread_start(c->os, "read", read_often, &wrong, &t[i]);
    for (int i = 0; i < 100; i++) {
        if (load(c, i % 2 ? "test_event.retain: 1s\n" : "test_event.retain: 2s\n", NULL, &s)) break;
        settings_use(s);
    }
    atomic_store(&done, true);
    for (size_t i = 0; i < countof(t); i++) thread_join(t[i]);
    CHECK(!atomic_load(&wrong));
    settings_use(NULL);
}
