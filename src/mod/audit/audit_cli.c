// SPDX-License-Identifier: Apache-2.0
// audit_cli.c - `lathe audit verify [--data DIR]`: asks the server, or reads a stopped server's
// folder itself and so needs to trust nobody: the chains from its database (in the folder, or where
// LATHE_DB_URL says), the checkpoint and the key that signed it from its audit folder.
#include "base/log.h"
#include "mod/audit/audit_own.h"
#include "res/cli.h"

// To open a file of SQLite that is not there would make one.
static err database_of(Ctx *c, str data, str *out_url) {
    const char *set = os_env(c->os, "LATHE_DB_URL");
    PathInfo info;
    *out_url = str_z(set ? set : "");
    if (out_url->n) return ERR_OK;
    *out_url = arena_printf(c->mem, "sqlite:" STR_FMT "/lathe.db", STR_ARG(data));
    return path_info(c, arena_printf(c->mem, STR_FMT "/lathe.db", STR_ARG(data)), &info);
}

static err verify_folder(Cli *cli, str data, str *out_json) {
    Ctx *c = cli->c;
    App app = { .modules = cli->modules, .os = c->os, .data_dir = data };
    DbConfig config = { 0 };
    TRY(database_of(c, data, &config.url));
    TRY(db_open(c, &config, &app.db));
    c->app = &app, c->db = app.db;
    err e = checkpoint_open(c);
    if (!e) e = audit_report(c, out_json);
    db_close(app.db);
    c->app = NULL, c->db = NULL;
    return e;
}

static err run(Cli *cli, bool *out_ok) {
    Ctx *c = cli->c;
    str data = cli_option(cli, "data"), json = { 0 };
    yyjson_val *v;
    CliAnswer a;
    TRY(cli_done(cli));
    if (data.p) {
        TRY(verify_folder(cli, data, &json));
    } else {
        TRY(cli_call(cli, HTTP_GET, S("/lathe/v1/audit/verify"), (str){ 0 }, &a));
        json = a.body;
    }
    cli_print(cli, json, NULL);
    TRY(json_parse(c, json, &v));
    *out_ok = json_get_bool(v, "ok", false);
    return ERR_OK;
}

static int verify(Cli *cli, int argc, char **argv) {
    bool ok = false;
    (void)argc, (void)argv;
    err e = run(cli, &ok);
    return e ? cli_fail(cli, e) : ok ? 0 : err_row(ERR_CONFLICT)->exit_status;
}

// clang-format off
const CliVerb audit_verbs[] = {
    { "audit", "verify", "[--data DIR]", verify,
      "Prove every chain; --data reads a stopped server's folder, LATHE_DB_URL its database",
      "校验审计链；--data 直接读取已停止服务器的目录，LATHE_DB_URL 指定其数据库" },
    { 0 }
};
// clang-format on
