// SPDX-License-Identifier: Apache-2.0
// app.c - calls that the program makes itself.
#include "res/app.h"
#include <assert.h>
#include <stdlib.h>

size_t app_loop_index(const App *app, const Loop *l) {
    for (size_t i = 0; i < app->loops_n; i++)
        if (app->loops[i] == l) return i;
    abort(); // not a loop of this program
}

Ctx *app_ctx_new(App *app) {
    Ctx *c = mem_new(sizeof *c);
    ctx_init(c, arena_new(), app->os);
    c->app = app, c->db = app->db, c->who = &identity_system, c->lang = "en";
    return c;
}

void app_ctx_free(Ctx *c) {
    if (!c) return;
    arena_free(c->mem);
    mem_free(c);
}

void app_ctx_of_job(Ctx *c, void *app) { c->app = app, c->who = &identity_system, c->lang = "en"; }

const char *res_lang(Os *os) {
    static const char *const names[] = { "LC_ALL", "LC_MESSAGES", "LANG" };
    for (size_t i = 0; i < countof(names); i++) {
        const char *lang = os_env(os, names[i]);
        if (lang && *lang) return strncmp(lang, "zh", 2) ? "en" : "zh";
    }
    return "en";
}
