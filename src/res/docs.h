// SPDX-License-Identifier: Apache-2.0
// docs.h - the reference as Markdown, written from the rows, in English and Chinese: resources,
// routes, settings, metrics, errors, events, jobs, commands, roles.
// Threads: any; tables_init must have seen the same modules.
#ifndef LATHE_RES_DOCS_H
#define LATHE_RES_DOCS_H
#include "res/module.h"

typedef struct DocsFile {
    const char *name; // "resources.md", "resources.zh.md"
    str text;
} DocsFile;
// Every file of the reference, in c->mem.
err docs_render(Ctx *c, const Module *const mods[], DocsFile **out, size_t *out_n);
// Writes what differs from what is in the folder, which is made when absent. check: writes nothing,
// and ERR_CONFLICT with R_DOCS_STALE names the first file that differs.
err docs_write(Ctx *c, const Module *const mods[], str dir, bool check);
// `lathe docs [--check] DIR`: after the noun; returns the exit status. mods: the program's modules.
int docs_main(int argc, char **argv, const Module *const mods[]);

// clang-format off
#define DOCS_REASONS(X) \
    X(DOCS_STALE, "docs_stale", "{file} is not what the rows say: run `lathe docs {dir}`", \
      "{file} 与表行不符：请运行 `lathe docs {dir}`")
// clang-format on
REASONS_DECLARE(DOCS_REASONS)
extern const Reason *const docs_reasons[];
#endif
