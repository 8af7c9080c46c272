// SPDX-License-Identifier: Apache-2.0
// cli.c - the line: options taken out, noun and verb found in the rows, run.
#include "res/cli.h"
#include "res/table.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

extern const Reason *const cli_reasons[];
REASONS_DEFINE(CLI_REASONS, cli_reasons)

// ---- the line
static void take_out(Cli *cli, int at, int n) {
    memmove(&cli->argv[at], &cli->argv[at + n], (size_t)(cli->argc - at - n) * sizeof *cli->argv);
    cli->argc -= n;
}

static bool is_option(const char *arg, const char *name) {
    if (!strcmp(name, "o") || !strcmp(name, "f")) return arg[0] == '-' && !strcmp(arg + 1, name);
    return !strncmp(arg, "--", 2) && !strcmp(arg + 2, name);
}

str cli_option(Cli *cli, const char *name) {
    size_t n = strlen(name);
    for (int i = 0; i < cli->argc; i++) {
        const char *arg = cli->argv[i];
        if (!strcmp(arg, "--")) break;
        if (!strncmp(arg, "--", 2) && !strncmp(arg + 2, name, n) && arg[2 + n] == '=') {
            str value = str_z(arg + 3 + n);
            take_out(cli, i, 1);
            return value;
        }
        if (!is_option(arg, name)) continue;
        bool has = i + 1 < cli->argc
                   && (cli->argv[i + 1][0] != '-' || !cli->argv[i + 1][1]
                       || strchr("0123456789.", cli->argv[i + 1][1]));
        str value = has ? str_z(cli->argv[i + 1]) : S("true");
        take_out(cli, i, has ? 2 : 1);
        return value;
    }
    return (str){ 0 };
}

bool cli_flag(Cli *cli, const char *name) {
    for (int i = 0; i < cli->argc; i++)
        if (is_option(cli->argv[i], name)) {
            take_out(cli, i, 1);
            return true;
        }
    return false;
}

str cli_word(Cli *cli) {
    for (int i = 0; i < cli->argc; i++) {
        if (!strcmp(cli->argv[i], "--")) {
            take_out(cli, i--, 1);
            continue;
        }
        if (cli->argv[i][0] == '-' && cli->argv[i][1]) continue;
        str word = str_z(cli->argv[i]);
        take_out(cli, i, 1);
        return word;
    }
    return (str){ 0 };
}

err cli_done(Cli *cli) {
    if (!cli->argc) return ERR_OK;
    return fail(cli->c, ERR_INVALID, R_CLI_WORD, "word", cli->argv[0], "noun", "");
}

static err read_globals(Cli *cli) {
    static const char *const shows[] = { "table", "json", "yaml", "name" };
    str show = cli_option(cli, "o");
    cli->url = cli_option(cli, "server"), cli->key = cli_option(cli, "key");
    cli->project = cli_option(cli, "project"), cli->org = cli_option(cli, "org");
    cli->wait = cli_flag(cli, "wait"), cli->dry_run = cli_flag(cli, "dry-run");
    cli->show = SHOW_TABLE;
    for (size_t i = 0; i < countof(shows); i++)
        if (str_is(show, shows[i])) {
            cli->show = (CliShow)i;
            return ERR_OK;
        }
    return show.p ? fail(cli->c, ERR_INVALID, R_FIELD_ENUM, "field", "-o", "names",
                         "table, json, yaml, name", "got", say_str(cli->c, show))
                  : ERR_OK;
}

// ---- nouns and verbs
static const CliVerb *find_verb(Cli *cli, str noun, str verb) {
    for (const Module *const *m = cli->modules; *m; m++)
        for (const CliVerb *v = (*m)->verbs; v && v->noun; v++)
            if (str_is(noun, v->noun) && (!v->verb || str_is(verb, v->verb))) return v;
    return NULL;
}

static const Route *find_route(Cli *cli, str noun, str verb) {
    str want = arena_printf(cli->c->mem, STR_FMT "%s" STR_FMT, STR_ARG(noun), verb.n ? " " : "",
                            STR_ARG(verb));
    for (const Module *const *m = cli->modules; *m; m++)
        for (const Route *r = (*m)->routes; r && r->pattern; r++)
            if (r->cli && (str_is(want, r->cli) || str_is(noun, r->cli))) return r;
    return NULL;
}

static err unknown_word(Cli *cli, str noun) {
    const char *nearest = "help";
    unsigned best = UINT_MAX;
    for (size_t i = 0; i < tables_count(); i++) {
        unsigned d = str_distance(noun, str_z(table_at(i)->r->name));
        if (d < best) best = d, nearest = table_at(i)->r->name;
    }
    for (const Module *const *m = cli->modules; *m; m++)
        for (const CliVerb *v = (*m)->verbs; v && v->noun; v++) {
            unsigned d = str_distance(noun, str_z(v->noun));
            if (d < best) best = d, nearest = v->noun;
        }
    return fail(cli->c, ERR_INVALID, R_CLI_VERB, "word", say_str(cli->c, noun), "nearest", nearest);
}

static const Resource *find_noun(Cli *cli, str noun) {
    const char *z = arena_z(cli->c->mem, noun);
    for (char *p = (char *)(uintptr_t)z; *p; p++)
        if (*p == '-') *p = '_';
    return resource_find(z);
}

static int dispatch(Cli *cli) {
    str noun = cli_word(cli);
    if (!noun.n || str_is(noun, "help")) return cli_help(cli, cli_word(cli));
    if (str_is(noun, "apply") || str_is(noun, "diff")) return cli_apply(cli, str_is(noun, "diff"));
    str verb = { 0 };
    for (int i = 0; i < cli->argc && !verb.p; i++)
        if (cli->argv[i][0] != '-') verb = str_z(cli->argv[i]);
    const CliVerb *own = find_verb(cli, noun, verb);
    const Route *route = own ? NULL : find_route(cli, noun, verb);
    if (own ? own->verb != NULL : route && strchr(route->cli, ' ')) cli_word(cli);
    if (own) return own->run(cli, cli->argc, cli->argv);
    if (route) return cli_route(cli, route);
    const Resource *r = find_noun(cli, noun);
    if (!r) return cli_fail(cli, unknown_word(cli, noun));
    if (!verb.n) return cli_help(cli, noun);
    cli_word(cli);
    return cli_resource(cli, r, verb);
}

int cli_main(int argc, char **argv, const Module *const *mods) {
    Cli cli = { .modules = mods };
    Ctx c;
    ctx_init(&c, arena_new(), os_real());
    const char *lang = os_env(c.os, "LANG");
    c.lang = lang && !strncmp(lang, "zh", 2) ? "zh" : "en";
    cli.c = &c, cli.argc = argc - 1, cli.argv = argv + 1;
    tables_init(mods);
    int status;
    if (argc > 1 && !strcmp(argv[1], "completion"))
        status = cli_completion(&cli, argc - 2, argv + 2);
    else {
        if (cli_flag(&cli, "help")) status = cli_help(&cli, cli_word(&cli));
        else {
            err e = read_globals(&cli);
            status = e ? cli_fail(&cli, e) : dispatch(&cli);
        }
    }
    fflush(stdout);
    arena_free(c.mem);
    return status;
}
