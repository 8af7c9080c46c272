// SPDX-License-Identifier: Apache-2.0
// docs.c - see docs.h: the files of the reference, written or compared. What stands in them is
// docs_page.c's.
// Threads: any; files are the caller's to guard.
#include "res/docs.h"
#include "os/file.h"
#include "res/docs_impl.h"
#include "res/table.h"
#include <assert.h>
#include <stdio.h>

REASONS_DEFINE(DOCS_REASONS, docs_reasons)

enum { FILE_MAX = 4 << 20 };

// clang-format off
static const struct { const char *name, *en, *zh; void (*write)(Page *p); } pages[] = {
    { "resources", "Resources", "资源", docs_resources },
    { "routes", "Routes", "接口", docs_routes },
    { "commands", "Commands", "命令", docs_commands },
    { "settings", "Settings", "设置", docs_settings },
    { "metrics", "Metrics", "指标", docs_metrics },
    { "events", "Events", "事件", docs_events },
    { "jobs", "Jobs", "作业", docs_jobs },
    { "roles", "Roles", "角色", docs_roles },
    { "errors", "Errors", "错误", docs_errors },
};
// clang-format on

static str render(Ctx *c, const Module *const mods[], size_t i, bool zh) {
    Page p = { .mem = c->mem, .zh = zh, .mods = mods };
    buf_init(&p.out, FILE_MAX);
    buf_printf(&p.out, "# %s\n\n%s\n", zh ? pages[i].zh : pages[i].en,
               zh ? "由 `lathe docs` 根据表行生成，请勿手工修改。"
                  : "Written from the rows by `lathe docs`; not by hand.");
    pages[i].write(&p);
    assert(!p.out.full);
    str text = arena_str(c->mem, buf_str(&p.out));
    buf_done(&p.out);
    return text;
}

err docs_render(Ctx *c, const Module *const mods[], DocsFile **out, size_t *out_n) {
    size_t n = 2 * countof(pages);
    DocsFile *files = new (c->mem, DocsFile, n);
    for (size_t i = 0; i < n; i++) {
        bool zh = i % 2;
        files[i].name = arena_printf(c->mem, "%s%s.md", pages[i / 2].name, zh ? ".zh" : "").p;
        files[i].text = render(c, mods, i / 2, zh);
    }
    *out = files;
    *out_n = n;
    return ERR_OK;
}

static err same_as_file(Ctx *c, str path, str text, bool *out) {
    str now;
    err e = file_read_all(c, path, FILE_MAX, &now);
    *out = !e && str_eq(now, text);
    return e == ERR_NOTFOUND || e == ERR_TOOLARGE ? ERR_OK : e;
}

err docs_write(Ctx *c, const Module *const mods[], str dir, bool check) {
    DocsFile *files;
    size_t n;
    TRY(docs_render(c, mods, &files, &n));
    if (!check) TRY(dir_make(c, dir, 0755));
    for (size_t i = 0; i < n; i++) {
        bool same;
        str path = arena_printf(c->mem, STR_FMT "/%s", STR_ARG(dir), files[i].name);
        TRY(same_as_file(c, path, files[i].text, &same));
        if (same) continue;
        if (check)
            return fail(c, ERR_CONFLICT, R_DOCS_STALE, "file", say_str(c, path), "dir",
                        say_str(c, dir));
        TRY(file_write_all(c, path, files[i].text, 0));
    }
    return ERR_OK;
}

int docs_main(int argc, char **argv, const Module *const mods[]) {
    bool check = argc > 0 && !strcmp(argv[0], "--check");
    if (argc != 1 + check || argv[check][0] == '-') {
        fputs("usage: lathe docs [--check] DIR\n", stderr);
        return err_row(ERR_INVALID)->exit_status;
    }
    Ctx c;
    ctx_init(&c, arena_new(), os_real());
    tables_init(mods);
    err e = docs_write(&c, mods, str_z(argv[check]), check);
    if (e) {
        Buf b;
        buf_init(&b, 4096);
        failure_format(&c.failure, c.lang, &b);
        fprintf(stderr, "lathe: " STR_FMT "\n", STR_ARG(buf_str(&b)));
        buf_done(&b);
    }
    arena_free(c.mem);
    return err_row(e)->exit_status;
}
