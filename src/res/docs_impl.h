// SPDX-License-Identifier: Apache-2.0
// docs_impl.h - private to docs*.c: one page being written, and its pages.
#ifndef LATHE_RES_DOCS_IMPL_H
#define LATHE_RES_DOCS_IMPL_H
#include "res/docs.h"

typedef struct Page {
    Arena *mem;
    Buf out;
    bool zh;
    const Module *const *mods;
} Page;

// docs_page.c, in the order of the reference
void docs_resources(Page *p);
void docs_routes(Page *p);
void docs_settings(Page *p);
void docs_metrics(Page *p);
void docs_errors(Page *p);
void docs_events(Page *p);
void docs_jobs(Page *p);
void docs_commands(Page *p);
void docs_roles(Page *p);
#endif
