// SPDX-License-Identifier: Apache-2.0
// backup_cli.c - `lathe backup DIR` asks the server; `lathe backup list|verify DIR` and `lathe
// restore` read the folder themselves and need no server. Threads: the command line's only one.
#include "mod/backup/backup_own.h"
#include "base/time.h"
#include "os/terminal.h"
#include "res/cli.h"
#include <inttypes.h>
#include <stdio.h>

static err word_needed(Cli *cli, const char *what, str *out) {
    str word = cli_word(cli);
    if (!word.n) return fail(cli->c, ERR_INVALID, R_CLI_MISSING, "what", what);
    *out = os_path_absolute(cli->c, word);
    while (out->n > 1 && str_ends(*out, S("/"))) out->n--;
    return ERR_OK;
}

static err read_at(Cli *cli, int64_t *out_ms) {
    str at;
    TRY(cli_value(cli, "at", &at));
    *out_ms = 0;
    if (!at.p || time_parse(at, out_ms)) return ERR_OK;
    return fail(cli->c, ERR_INVALID, R_FIELD_TYPE, "field", "--at", "want",
                "a time such as 2026-11-22T23:00:00Z", "got", say_str(cli->c, at));
}

static void show(Cli *cli, const Point *p, const char *state) {
    Buf b;
    char taken[TIME_TEXT];
    buf_init(&b, 1 << 20);
    Json j = json_to(&b);
    json_obj(&j);
    json_kv_str(&j, "point", p->id), json_kv_str(&j, "taken_at", time_format(p->taken_ms, taken));
    json_kv_z(&j, "state", state), json_kv_str(&j, "node", p->node);
    json_kv_i64(&j, "parts", (int64_t)p->parts_n), json_kv_i64(&j, "objects", p->objects);
    json_kv_i64(&j, "objects_bytes", p->objects_bytes);
    json_kv_i64(&j, "missing", (int64_t)p->missing_n);
    json_kv_str(&j, "master_key", p->master_key);
    json_end_obj(&j);
    cli_print(cli, buf_str(&b), NULL);
    buf_done(&b);
}

static void tell(void *arg, int64_t done, int64_t total) {
    int64_t *percent = arg, now = total ? done * 100 / total : 100;
    if (now == *percent || !cli_tty(2)) return;
    *percent = now;
    fprintf(stderr, "\r  %" PRId64 " %%%s", now, now == 100 ? "\n" : "");
}

// ---- lathe backup DIR

static err backup_ask(Cli *cli, str *out_job) {
    Ctx *c = cli->c;
    str folder = { 0 };
    CliAnswer a;
    if (cli->argc && cli->argv[0][0] != '-') TRY(word_needed(cli, "the folder", &folder));
    TRY(cli_done(cli));
    Buf b;
    buf_init(&b, 8192);
    Json j = json_to(&b);
    json_obj(&j), json_kv_str(&j, "folder", folder.n ? folder : (str){ 0 }), json_end_obj(&j);
    str body = arena_str(c->mem, buf_str(&b));
    buf_done(&b);
    TRY(cli_call(cli, HTTP_POST, S("/lathe/v1/backups"), folder.n ? body : S("{}"), &a));
    *out_job = json_get_str(a.json, "job");
    if (cli->wait) return ERR_OK;
    cli_print(cli, a.body, NULL);
    fprintf(stderr, "`lathe job get " STR_FMT "` shows it\n", STR_ARG(*out_job));
    return ERR_OK;
}

static err backup_run(Cli *cli) {
    str job = { 0 };
    CliAnswer a;
    TRY(backup_ask(cli, &job));
    if (!cli->wait) return ERR_OK;
    TRY(cli_wait_job(cli, job));
    TRY(cli_call(cli, HTTP_GET, arena_printf(cli->c->mem, "/lathe/v1/jobs/" STR_FMT, STR_ARG(job)),
                 (str){ 0 }, &a));
    cli_print(cli, json_text(cli->c->mem, json_get(a.json, "result")), NULL);
    return ERR_OK;
}

static int backup(Cli *cli, int argc, char **argv) {
    (void)argc, (void)argv;
    err e = backup_run(cli);
    return e ? cli_fail(cli, e) : 0;
}

// ---- lathe backup list, lathe backup verify

static int list(Cli *cli, int argc, char **argv) {
    str folder;
    Buf b;
    (void)argc, (void)argv;
    err e = word_needed(cli, "the folder of the backup", &folder);
    if (!e) e = cli_done(cli);
    buf_init(&b, MANIFEST_MAX);
    if (!e) e = backup_points_json(cli->c, folder, &b);
    if (!e) cli_print(cli, buf_str(&b), NULL);
    buf_done(&b);
    return e ? cli_fail(cli, e) : 0;
}

static err verify_run(Cli *cli) {
    Ctx *c = cli->c;
    str folder;
    int64_t at, percent = -1;
    Store s;
    Point p;
    Work w = { .fn = tell, .arg = &percent };
    TRY(word_needed(cli, "the folder of the backup", &folder));
    TRY(read_at(cli, &at));
    TRY(cli_done(cli));
    err e = store_open(c, folder, false, &s);
    if (!e) e = point_at(c, &s, at, &p);
    if (!e) e = point_check(c, &s, &p, &w);
    store_close(&s);
    if (!e) show(cli, &p, "whole");
    return e;
}

static int verify(Cli *cli, int argc, char **argv) {
    (void)argc, (void)argv;
    err e = verify_run(cli);
    return e ? cli_fail(cli, e) : 0;
}

// ---- lathe restore

static int64_t restore_moment(const RestorePlan *p) {
    return p->steps_n ? p->steps[p->steps_n - 1].taken_ms : p->point.taken_ms;
}

static void say_plan(Cli *cli, const RestorePlan *p) {
    Ctx *c = cli->c;
    char taken[TIME_TEXT], asked[TIME_TEXT];
    str at = time_format(p->point.taken_ms, taken),
        bytes = bytes_format(c->mem, p->point.objects_bytes);
    fprintf(stderr, "backup of " STR_FMT " (" STR_FMT "), whole; into the new folder " STR_FMT "\n",
            STR_ARG(at), STR_ARG(p->point.id), STR_ARG(p->data));
    if (p->steps_n)
        fprintf(stderr, "  and what was written until " STR_FMT ", in %zu steps\n",
                STR_ARG(time_format(restore_moment(p), asked)), p->steps_n);
    if (p->at_ms)
        fprintf(stderr,
                "  asked for " STR_FMT ": this is the newest one not after it, %.1f s "
                "before; what changed in between is not in it\n",
                STR_ARG(time_format(p->at_ms, asked)),
                (double)(p->at_ms - restore_moment(p)) / 1000);
    fprintf(stderr,
            "  %zu files, %" PRId64 " objects of " STR_FMT "; the new server is another "
            "node, its replicas start anew, and keys work as they did\n",
            p->point.parts_n, p->point.objects, STR_ARG(bytes));
    if (p->point.missing_n)
        fprintf(stderr,
                "  %zu objects were gone or damaged when it was taken, the first " STR_FMT "\n",
                p->point.missing_n, STR_ARG(p->point.missing[0]));
}

static err read_line(Cli *cli, RestorePlan *p) {
    Ctx *c = cli->c;
    str data, key_file;
    TRY(cli_value(cli, "data", &data));
    TRY(cli_value(cli, "master_key_file", &key_file));
    TRY(cli_value(cli, "db", &p->db_url));
    TRY(cli_value(cli, "postgres_programs", &p->tools));
    TRY(read_at(cli, &p->at_ms));
    TRY(word_needed(cli, "the folder of the backup", &p->from));
    if (!data.n) return fail(c, ERR_INVALID, R_CLI_MISSING, "what", "--data DIR");
    p->data = os_path_absolute(c, data), p->key_file = key_file;
    while (p->data.n > 1 && str_ends(p->data, S("/"))) p->data.n--;
    return cli_done(cli);
}

static err restore_line(Cli *cli) {
    Ctx *c = cli->c;
    RestorePlan p = { 0 };
    int64_t percent = -1;
    Work w = { .fn = tell, .arg = &percent };
    TRY(read_line(cli, &p));
    err e = restore_check(c, &p, &w);
    if (!e) say_plan(cli, &p);
    percent = -1;
    if (!e && !cli->dry_run) e = restore_run(c, &p, &w);
    store_close(&p.store);
    if (e) return e;
    show(cli, &p.point, cli->dry_run ? "would be restored" : "restored");
    if (!cli->dry_run)
        fprintf(stderr, "start it: lathe serve --data " STR_FMT "%s\n", STR_ARG(p.data),
                p.db_url.n ? ", with db.url the address that --db named" : "");
    return ERR_OK;
}

static int restore(Cli *cli, int argc, char **argv) {
    (void)argc, (void)argv;
    err e = restore_line(cli);
    return e ? cli_fail(cli, e) : 0;
}

// clang-format off
const CliVerb backup_verbs[] = {
    { "backup", "list", "DIR", list, "Backups in a folder, newest first", "列出目录中的备份" },
    { "backup", "verify", "DIR [--at TIME]", verify,
      "Read and hash all that a backup holds", "读取并校验备份的全部内容" },
    { "backup", NULL, "[DIR] [--wait]", backup,
      "Back up the running server into a folder of its machine; what is there is not copied again",
      "将运行中的服务器备份到其所在机器的目录；已有内容不再复制" },
    { "restore", NULL, "FROM --data DIR [--db URL] [--at TIME] [--master_key_file FILE]", restore,
      "A new data folder out of a backup: the newest, or the newest not after a time",
      "由备份恢复出新的数据目录：最新的备份，或指定时间之前最新的备份" },
    { 0 }
};
// clang-format on
