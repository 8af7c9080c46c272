// SPDX-License-Identifier: Apache-2.0
// docs_test.c - every row of every kind is in the reference, in both languages; its tables hold
// together; a folder that is out of date is found.
#include "base/test.h"
#include "os/file.h"
#include "res/docs.h"
#include "res/table.h"

typedef struct Cup {
    Head head;
    str colour;
} Cup;
// clang-format off
static const Field cup_rows[] = {
    TEXT(Cup, colour, REQUIRED, 30, "Colour: red | blue", "颜色"), { 0 }
};
static const Action cup_actions[] = { { "fill", ACTION_JOB, .en = "Fill it", .zh = "倒满" }, { 0 } };
static const Resource cup = { .name = "cup", .plural = "cups", .prefix = "cup",
    .scope = SCOPE_ORG, .flags = RES_NO_DELETE, .size = sizeof(Cup), .fields = cup_rows,
    .actions = cup_actions, .en = "A cup", .zh = "杯子" };
static const Route routes[] = { { HTTP_GET, "/cup/of/{tea}", ROUTE_PUBLIC,
                                  .query = cup_rows, .cli = "cup brew", .en = "Tea", .zh = "茶" },
                                { 0 } };
static const Setting settings[] = { { "cup.size", SET_BYTES, "1KiB", 1, 4096, .live = true,
                                      .flag = "cup", .en = "Its size", .zh = "大小" }, { 0 } };
static const double buckets[] = { 1, 0 };
static const Metric sips = { "cup.sip", "s", METRIC_HISTOGRAM, { "cup.name" }, buckets, "Sips",
                             "口" };
static const EventKind broke = { "cup.broke", "It broke", "碎了" };
static const JobKind wash = { .name = "cup.wash", .en = "Washing", .zh = "清洗" };
static const Reason cold = { "too_cold", "the cup is cold", "杯子凉了" };
static const CliVerb verbs[] = { { "cup", "stack", "[--high]", NULL, "Stack them", "叠放" }, { 0 } };
static const RoleRow roles[] = { { "drinker", (const char *const[]){ "cups.read", NULL }, "Drinks",
                                   "饮用者" }, { 0 } };
static const Module cups = { .name = "cups", .resources = (const Resource *const[]){ &cup, NULL },
    .routes = routes, .settings = settings, .metrics = (const Metric *const[]){ &sips, NULL },
    .events = (const EventKind *const[]){ &broke, NULL },
    .jobs = (const JobKind *const[]){ &wash, NULL },
    .reasons = (const Reason *const[]){ &cold, NULL }, .verbs = verbs, .roles = roles };
// clang-format on
static const Module *const mods[] = { &cups, NULL };

static str page(const DocsFile *files, size_t n, const char *name) {
    for (size_t i = 0; i < n; i++)
        if (!strcmp(files[i].name, name)) return files[i].text;
    return (str){ 0 };
}

TEST(docs_name_every_row) {
    Ctx *c = test_ctx();
    DocsFile *files;
    size_t n;
    tables_init(mods);
    CHECK_OK(c, docs_render(c, mods, &files, &n));
    static const char *const wanted[][3] = {
        { "resources",
          "| `colour` | text | required | 1 … 30 characters |  | Colour: red \\| blue |",
          "| `colour` | text | 必填 | 1 … 30 个字符 |  | 颜色 |" },
        { "routes", "| POST | `/lathe/v1/cups/{id}/fill` | `cups.fill` | Fill it |", "倒满" },
        { "routes", "| GET | `/cup/of/{tea}` | public | Tea |", "| 公开 | 茶 |" },
        { "commands", "| `lathe cup create NAME [--FIELD VALUE]` |", "`lathe cup fill NAME`" },
        { "commands", "| `lathe cup brew TEA --colour text` | Tea |", "`lathe cup set NAME" },
        { "commands", "| `lathe cup stack [--high]` | Stack them |", "叠放" },
        { "settings", "| `cup.size` `--cup` | bytes | `1KiB` |", "大小" },
        { "metrics", "| `cup_sip_seconds` | cup.sip (s) | histogram | cup.name | Sips |", "口" },
        { "events", "| `cup.created` | A cup: made |", "| `cup.broke` | 碎了 |" },
        { "jobs", "| `cup.wash` | 5 | Washing |", "清洗" },
        { "roles", "| `drinker` | `cups.read` | Drinks |", "饮用者" },
        { "errors", "| `not_found` | 404 | 4 |", "| `too_cold` | 杯子凉了 |" },
    };
    for (size_t i = 0; i < countof(wanted); i++)
        for (size_t zh = 0; zh < 2; zh++) {
            const char *name = arena_printf(c->mem, "%s%s.md", wanted[i][0], zh ? ".zh" : "").p;
            str text = page(files, n, name);
            if (str_find(text, str_z(wanted[i][1 + zh])) < 0)
                TEST_FAIL_("%s lacks %s: " STR_FMT, name, wanted[i][1 + zh], STR_ARG(text));
        }
    CHECK(str_find(page(files, n, "commands.md"), S("cup delete")) < 0); // it cannot be deleted
}

// Within one table every line has as many columns as its head.
TEST(docs_tables_hold_together) {
    Ctx *c = test_ctx();
    DocsFile *files;
    size_t n, lines = 0;
    tables_init(mods);
    CHECK_OK(c, docs_render(c, mods, &files, &n));
    for (size_t i = 0; i < n; i++) {
        size_t columns = 0;
        str rest = files[i].text;
        for (str line; str_cut(&rest, '\n', &line);) {
            size_t bars = 0;
            for (size_t k = 0; k < line.n; k++)
                bars += line.p[k] == '|' && (!k || line.p[k - 1] != '\\');
            if (!str_starts(line, S("|"))) columns = 0;
            else if (columns && bars != columns) TEST_FAIL_(STR_FMT, STR_ARG(line));
            else columns = bars, lines++;
        }
    }
    CHECK(lines > 100);
}

TEST(docs_that_are_old_are_found) {
    Ctx *c = test_ctx();
    c->os = os_real();
    tables_init(mods);
    str dir = arena_printf(c->mem, "%s/reference", test_dir());
    CHECK_ERR(docs_write(c, mods, dir, true), ERR_CONFLICT);
    CHECK_OK(c, docs_write(c, mods, dir, false));
    CHECK_OK(c, docs_write(c, mods, dir, true));
    str file = arena_printf(c->mem, STR_FMT "/jobs.zh.md", STR_ARG(dir)), text;
    CHECK_OK(c, file_read_all(c, file, 1 << 20, &text));
    CHECK_OK(c, file_write_all(c, file, str_sub(text, 0, text.n - 1), 0));
    CHECK_ERR(docs_write(c, mods, dir, true), ERR_CONFLICT);
    CHECK_STR(failure_param(&c->failure, "file"), file.p);
    char check[] = "--check", *args[] = { check, (char *)(uintptr_t)dir.p };
    CHECK_INT(docs_main(1, args + 1, mods), 0);
    CHECK_INT(docs_main(2, args, mods), 0);
    CHECK_INT(docs_main(0, args, mods), 2);
}
