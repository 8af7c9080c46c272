// SPDX-License-Identifier: Apache-2.0
// deployment_cli.c - `lathe deployment logs NAME [--follow]`: what a replica's engine has written,
// and goes on writing. Other verbs are derived from the rows.
// Threads: the command line's only one.
#include "mod/deployment/deployment_own.h"
#include "res/cli.h"
#include <stdio.h>
#include <time.h>

typedef struct Tail {
    str name, replica;
    int64_t offset;
    char shown[128]; // the replica that is read; a new one is read from its beginning
} Tail;

static err read_piece(Cli *cli, Tail *t, size_t *out_n) {
    Ctx *c = cli->c;
    str name = cli_escape(cli, t->name),
        replica = cli_escape(cli, t->replica.n ? t->replica : S(""));
    str target = arena_printf(
        c->mem, "/lathe/v1/deployments/" STR_FMT "/logs?offset=%lld%s" STR_FMT, STR_ARG(name),
        (long long)t->offset, replica.n ? "&replica=" : "", STR_ARG(replica));
    CliAnswer a;
    TRY(cli_call(cli, HTTP_GET, target, (str){ 0 }, &a));
    str id = json_get_str(a.json, "replica"), text = json_get_str(a.json, "text");
    *out_n = text.n;
    if (!str_is(id, t->shown)) {
        bool other = t->shown[0];
        snprintf(t->shown, sizeof t->shown, STR_FMT, STR_ARG(id));
        if (other) {
            fprintf(stderr, "replica " STR_FMT "\n", STR_ARG(id));
            t->offset = 0, *out_n = 1;
            return ERR_OK;
        }
    }
    fwrite(text.p, 1, text.n, stdout);
    fflush(stdout);
    json_get_i64(a.json, "next", &t->offset);
    return ERR_OK;
}

static err logs(Cli *cli) {
    struct timespec pause = { 0, 300000000 };
    Tail t = { .replica = cli_option(cli, "replica") };
    bool follow = cli_flag(cli, "follow");
    t.name = cli_word(cli);
    TRY(cli_done(cli));
    if (!t.name.n) return fail(cli->c, ERR_INVALID, R_CLI_MISSING, "what", "NAME");
    TRY(cli_connect(cli));
    for (;;) {
        ArenaMark mark = arena_mark(cli->c->mem);
        size_t n = 0;
        TRY(read_piece(cli, &t, &n));
        arena_restore(cli->c->mem, mark);
        if (!n && !follow) return ERR_OK;
        if (!n) nanosleep(&pause, NULL);
    }
}

static int run(Cli *cli, int argc, char **argv) {
    (void)argc, (void)argv;
    err e = logs(cli);
    return e ? cli_fail(cli, e) : 0;
}

// clang-format off
const CliVerb deployment_verbs[] = {
    { "deployment", "logs", "NAME [--replica NUMBER|ID] [--follow]", run,
      "What a replica's engine has written; --follow: and goes on writing",
      "副本引擎的输出日志；--follow 持续输出" },
    { 0 }
};
// clang-format on
