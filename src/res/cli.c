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
    if (!name[1] && arg[0] == '-' && !strcmp(arg + 1, name)) return true;
    return !strncmp(arg, "--", 2) && !strcmp(arg + 2, name);
}

// Flags are --words and single letters: -5, -.5 and -started_at are values.
static bool is_value(const char *arg) {
    if (arg[0] != '-' || !arg[1]) return true;
    return arg[1] != '-' && (arg[2] || strchr("0123456789.", arg[1]));
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
        bool has = i + 1 < cli->argc && is_value(cli->argv[i + 1]);
        str value = has ? str_z(cli->argv[i + 1]) : S("true");
        take_out(cli, i, has ? 2 : 1);
        return value;
    }
    return (str){ 0 };
}

err cli_value(Cli *cli, const char *name, str *out) {
    int before = cli->argc;
    bool joined = false; // --name=VALUE is one word with its value
    for (int i = 0; i < cli->argc; i++) {
        const char *equals = strchr(cli->argv[i], '=');
        size_t n = equals ? (size_t)(equals - cli->argv[i]) : 0;
        joined |= n == strlen(name) + 2 && !strncmp(cli->argv[i] + 2, name, n - 2);
    }
    *out = cli_option(cli, name);
    if (!out->p || joined || before - cli->argc == 2) return ERR_OK;
    const char *dashes = name[1] ? "--" : "-";
    return fail(cli->c, ERR_INVALID, R_CLI_BARE, "word", say(cli->c, "%s%s", dashes, name));
}

bool cli_flag(Cli *cli, const char *name) {
    for (int i = 0; i < cli->argc && strcmp(cli->argv[i], "--") != 0; i++)
        if (is_option(cli->argv[i], name)) {
            take_out(cli, i, 1);
            return true;
        }
    return false;
}

err cli_read(Cli *cli, str path, size_t max, str *out) {
    if (!str_is(path, "-")) return file_read_all(cli->c, path, max, out);
    char piece[4096];
    size_t n;
    Buf b;
    buf_init(&b, max);
    while (!b.full && (n = fread(piece, 1, sizeof piece, stdin)) > 0) buf_add(&b, str_n(piece, n));
    bool full = b.full;
    *out = arena_str(cli->c->mem, buf_str(&b));
    buf_done(&b);
    return full ? fail(cli->c, ERR_TOOLARGE, R_CLI_LONG, "max", say(cli->c, "%zu", max)) : ERR_OK;
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
    return fail(cli->c, ERR_INVALID, R_CLI_WORD, "word", cli->argv[0], "noun", cli_topic(cli));
}

const char *cli_topic(Cli *cli) { return cli->noun ? say(cli->c, " %s", cli->noun) : ""; }

static const Route *find_route(Cli *cli, str noun, str verb);

// What of the line's noun and verb has this name: `lathe rollup list --key K` means rollup's, and
// `lathe --key K rollup list` the key to act with.
static bool means_own(Cli *cli, const char *name) {
    bool noun_first = cli->argc > 1 && cli->argv[0][0] != '-' && cli->argv[1][0] != '-';
    const Route *r = noun_first ? find_route(cli, str_z(cli->argv[0]), str_z(cli->argv[1])) : NULL;
    return r && r->query && field_find(r->query, str_z(name));
}

static err read_global(Cli *cli, const char *name, str *out) {
    return means_own(cli, name) ? ERR_OK : cli_value(cli, name, out);
}

static err check_key(Cli *cli) {
    bool other = cli->key.p && !str_starts(cli->key, S("lathe_"));
    return other ? fail(cli->c, ERR_INVALID, R_CLI_KEY) : ERR_OK;
}

static err read_globals(Cli *cli) {
    static const char *const shows[] = { "table", "json", "yaml", "name" };
    str show;
    TRY(cli_value(cli, "o", &show));
    TRY(read_global(cli, "server", &cli->url));
    TRY(read_global(cli, "key", &cli->key));
    TRY(read_global(cli, "project", &cli->project));
    TRY(read_global(cli, "org", &cli->org));
    TRY(check_key(cli));
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

static int unknown_noun(Cli *cli, str noun) {
    return cli_fail(cli, fail(cli->c, ERR_INVALID, R_CLI_VERB, "word", say_str(cli->c, noun),
                              "nearest", cli_nearest(cli, (str){ 0 }, noun), "noun", ""));
}

int cli_unknown_verb(Cli *cli, str noun, str verb) {
    Ctx *c = cli->c;
    const char *nearest = cli_nearest(cli, noun, verb);
    if (!nearest) return unknown_noun(cli, noun);
    cli->noun = arena_z(c->mem, noun);
    return cli_fail(cli, fail(c, ERR_INVALID, R_CLI_VERB, "word",
                              say(c, "%s %s", cli->noun, say_str(c, verb)), "nearest",
                              say(c, "%s %s", cli->noun, nearest), "noun", cli_topic(cli)));
}

const Resource *cli_resource_of(Cli *cli, str noun) {
    const char *z = arena_z(cli->c->mem, noun);
    for (char *p = (char *)(uintptr_t)z; *p; p++)
        if (*p == '-') *p = '_';
    return resource_find(z);
}

static int dispatch(Cli *cli) {
    str noun = cli_word(cli);
    if (!noun.n && cli->argc) return cli_fail(cli, cli_done(cli));
    if (!noun.n || str_is(noun, "help")) return cli_help(cli, cli_word(cli));
    cli->noun = arena_z(cli->c->mem, noun);
    if (str_is(noun, "apply") || str_is(noun, "diff")) return cli_apply(cli, str_is(noun, "diff"));
    str verb = { 0 };
    for (int i = 0; i < cli->argc && !verb.p; i++)
        if (cli->argv[i][0] != '-') verb = str_z(cli->argv[i]);
    const CliVerb *own = find_verb(cli, noun, verb);
    const Route *route = own ? NULL : find_route(cli, noun, verb);
    if (own ? own->verb != NULL : route && strchr(route->cli, ' ')) cli_word(cli);
    if (own) return own->run(cli, cli->argc, cli->argv);
    if (route) return cli_route(cli, route);
    const Resource *r = cli_resource_of(cli, noun);
    if (!verb.n && cli->argc) return cli_fail(cli, cli_done(cli));
    if (!verb.n) return cli_help(cli, noun);
    if (!r) return cli_unknown_verb(cli, noun, verb);
    cli_word(cli);
    return cli_resource(cli, r, verb);
}

int cli_main(int argc, char **argv, const Module *const *mods) {
    Cli cli = { .modules = mods };
    Ctx c;
    ctx_init(&c, arena_new(), os_real());
    c.lang = res_lang(c.os);
    cli.c = &c, cli.argc = argc - 1, cli.argv = argv + 1;
    tables_init(mods);
    int status;
    if (argc > 1 && !strcmp(argv[1], "--version")) argv[1] = (char *)(uintptr_t) "version";
    cli.noun = argc > 1 && !strcmp(argv[1], "completion") ? argv[1] : NULL;
    if (cli.noun && (argc == 2 || argv[2][0] != '-'))
        status = cli_completion(&cli, argc - 2, argv + 2);
    else {
        if (cli_flag(&cli, "help") || cli_flag(&cli, "h")) status = cli_help(&cli, cli_word(&cli));
        else {
            err e = read_globals(&cli);
            status = e ? cli_fail(&cli, e) : dispatch(&cli);
        }
    }
    fflush(stdout);
    tls_client_free(cli.tls);
    arena_free(c.mem);
    return status;
}
