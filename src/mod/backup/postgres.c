// SPDX-License-Identifier: Apache-2.0
// postgres.c - PostgreSQL's database into a backup and out of it, by PostgreSQL's own programs as
// children: pg_dump on a snapshot that our own reads share, pg_restore in one transaction. They are
// looked for in the setting backup.postgres_programs, then on PATH, then where distributions put
// them; one that is older than the server cannot read it.
// Owner: all is in the arena of the call. Threads: the caller's, blocking.
#include "mod/backup/backup_own.h"
#include "res/cli.h"
#include "os/process.h"
#include <assert.h>
#include <signal.h>
#include <stdio.h>

enum { LOOK_MS = 500, SAID_MAX = 4096, NEWEST = 40, OLDEST = 10 };

// ---- children

static err child_wait(Ctx *c, Process *p, Work *w, ProcessExit *out) {
    for (;;) {
        err e = process_wait(c, p, LOOK_MS, out);
        if (e != ERR_TIMEOUT) return e;
        if (w->fn) w->fn(w->arg, w->done, w->total);
        if (!(e = ctx_check(c))) continue;
        Failure why = c->failure;
        process_signal(p, SIGKILL); // the server notices, and ends what it asked for
        err ended = process_wait(c, p, -1, out);
        (void)ended; // it is gone or not ours any more; why it had to go counts
        c->failure = why;
        return e;
    }
}

// Both of its outputs go to a file; absent fields of spec are filled in.
static err child_run(Ctx *c, ProcessSpec *spec, str said_path, Work *w, ProcessExit *exit) {
    File *said;
    Process *p;
    TRY(file_open(c, said_path, FILE_READ | FILE_WRITE | FILE_CREATE | FILE_TRUNCATE | FILE_PRIVATE,
                  &said));
    spec->in_fd = -1, spec->out_fd = spec->err_fd = file_fd(said);
    err e = process_start(c, spec, NULL, NULL, NULL, &p);
    file_close(said);
    if (e) return e;
    e = child_wait(c, p, w, exit);
    process_free(p);
    return e;
}

static err said_by(Ctx *c, str path, str *out) {
    str all;
    err e = file_read_all(c, path, 1 << 20, &all);
    if (!e) *out = str_trim(str_sub(all, 0, SAID_MAX));
    return e;
}

// ---- finding them

static int version_at(Ctx *c, str path, str temp) {
    const char *argv[] = { arena_z(c->mem, path), "--version", NULL };
    ProcessSpec spec = { .argv = argv };
    ProcessExit exit = { 0 };
    Work quiet = { 0 };
    PathInfo info;
    str said, word;
    int64_t major = 0;
    Failure before = c->failure;
    bool ran = !path_info(c, path, &info) && !child_run(c, &spec, temp, &quiet, &exit) && !exit.code
               && !exit.signal && !said_by(c, temp, &said);
    c->failure = before;
    while (ran && !major && str_cut(&said, ' ', &word)) { // "pg_dump (PostgreSQL) 15.4 (…)"
        str number;
        if (str_cut(&word, '.', &number) && str_to_i64(number, &major)) break;
        major = 0;
    }
    return (int)major;
}

static bool good_at(Ctx *c, str dir, const char *name, const PgTool *want, str *out) {
    *out = arena_printf(c->mem, STR_FMT "/%s", STR_ARG(dir), name);
    return dir.n && version_at(c, *out, want->temp) >= want->major;
}

err backup_tool(Ctx *c, const char *name, const PgTool *want, str *out) {
    str named = want->folder, rest = str_z(os_env(c->os, "PATH")), dir;
    if (named.n && good_at(c, named, name, want, out)) return ERR_OK;
    while (!named.n && rest.n && str_cut(&rest, ':', &dir))
        if (good_at(c, dir, name, want, out)) return ERR_OK;
    for (int n = NEWEST; !named.n && n >= OLDEST; n--)
        if (good_at(c, arena_printf(c->mem, "/usr/lib/postgresql/%d/bin", n), name, want, out))
            return ERR_OK;
    return fail(c, ERR_UNAVAILABLE, R_BACKUP_TOOL, "program", name, "version",
                say(c, "%d", want->major));
}

static err tool_failed(Ctx *c, const char *name, const ProcessExit *exit, str said_path) {
    str said = { 0 };
    TRY(said_by(c, said_path, &said));
    return fail(c, ERR_UNAVAILABLE, R_BACKUP_TOOL_FAILED, "program", name, "why",
                said.n         ? say_str(c, said)
                : exit->signal ? say(c, "signal %d", exit->signal)
                               : say(c, "exit status %d", exit->code));
}

// ---- out of the database

static const char *quoted(Ctx *c, const char *flag, str name) { // a pattern that means itself
    Buf b;
    buf_init(&b, 4096);
    buf_printf(&b, "%s=\"", flag);
    for (size_t i = 0; i < name.n; i++)
        buf_add_char(&b, name.p[i]), name.p[i] == '"' ? buf_add_char(&b, '"') : (void)0;
    buf_add_char(&b, '"');
    const char *z = arena_z(c->mem, buf_str(&b));
    buf_done(&b);
    return z;
}

err backup_dump(Ctx *c, const PgSnapshot *s, str folder, str to, Work *w) {
    str said = arena_printf(c->mem, STR_FMT ".said", STR_ARG(to)), program;
    PgTool want = { folder, said, s->server_major };
    ProcessExit exit = { 0 };
    if (!s->schema.n)
        return fail(c, ERR_INVALID, R_BACKUP_DATABASE, "why",
                    "the address of the database looks into no schema that is there");
    TRY(backup_tool(c, "pg_dump", &want, &program));
    const char *argv[] = { arena_z(c->mem, program),
                           "--format=custom",
                           "--compress=1",
                           "--no-owner",
                           "--no-privileges",
                           "--no-password",
                           "--lock-wait-timeout=60000",
                           quoted(c, "--schema", s->schema),
                           say(c, "--snapshot=" STR_FMT, STR_ARG(s->id)),
                           say(c, "--file=" STR_FMT, STR_ARG(to)),
                           NULL };
    ProcessSpec spec = { .argv = argv, .env = s->env };
    TRY(child_run(c, &spec, said, w, &exit));
    if (exit.code || exit.signal) return tool_failed(c, "pg_dump", &exit, said);
    return path_remove(c, said);
}

// ---- into another one

static err empty_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(tables_there, "SELECT CAST(count(*) AS BIGINT), COALESCE(min(relname::text), '') "
                             "FROM pg_class WHERE relnamespace = (SELECT oid FROM pg_namespace "
                             "WHERE nspname = current_schema()) AND relkind IN ('r', 'p', 'v', "
                             "'m', 'S')");
    Rows *rows;
    const RestorePlan *p = arg;
    TRY(db_one(c, tx, &rows, &tables_there, NULL, 0));
    if (!col_int(rows, 0)) return ERR_OK;
    return fail(c, ERR_CONFLICT, R_BACKUP_TARGET, "path", "the database named by --db", "why",
                say(c, "is not empty: schema " STR_FMT " holds " STR_FMT " and more",
                    STR_ARG(p->point.schema), STR_ARG(col_str(rows, 1))));
}

static err fits(Ctx *c, RestorePlan *p, Db *db) {
    PgSnapshot s;
    str program;
    TRY(pg_snapshot_open(c, db, &s));
    PgTool want = { p->tools, arena_printf(c->mem, STR_FMT ".said", STR_ARG(p->data)),
                    p->point.server_major };
    err e = ERR_OK;
    if (!str_eq(s.schema, p->point.schema))
        e = fail(c, ERR_INVALID, R_BACKUP_SCHEMA, "want", say_str(c, p->point.schema), "got",
                 s.schema.n ? say_str(c, s.schema) : "none that is there");
    else if (s.server_major < p->point.server_major)
        e = fail(c, ERR_INVALID, R_BACKUP_DATABASE, "why",
                 say(c, "the backup is of PostgreSQL %d, the database named by --db is %d",
                     p->point.server_major, s.server_major));
    if (!e) e = backup_tool(c, "pg_restore", &want, &program);
    Failure why = c->failure;
    err removed = path_remove(c, want.temp);
    (void)removed; // it may not be there
    c->failure = why;
    pg_snapshot_close(&s);
    return e;
}

err restore_database_check(Ctx *c, RestorePlan *p) {
    Db *db;
    DbConfig config = { .url = p->db_url, .readers = 2 };
    if (!p->db_url.n) return fail(c, ERR_INVALID, R_CLI_MISSING, "what", "--db postgres://…");
    if (str_starts(p->db_url, S("sqlite:")))
        return fail(c, ERR_INVALID, R_BACKUP_DATABASE, "why",
                    "this backup is of PostgreSQL: --db names an empty PostgreSQL database");
    TRY(db_open(c, &config, &db));
    err e = fits(c, p, db);
    if (!e) e = db_read(c, db, empty_tx, p);
    db_close(db);
    return e;
}

err restore_database(Ctx *c, const RestorePlan *p, Db *db, str dump, Work *w) {
    PgSnapshot s; // for what the program needs to find the database
    str said = arena_printf(c->mem, STR_FMT ".said", STR_ARG(dump)), program;
    PgTool want = { p->tools, said, p->point.server_major };
    ProcessExit exit = { 0 };
    TRY(backup_tool(c, "pg_restore", &want, &program));
    TRY(pg_snapshot_open(c, db, &s));
    const char *argv[] = { arena_z(c->mem, program),
                           "--single-transaction",
                           "--exit-on-error",
                           "--no-owner",
                           "--no-privileges",
                           "--no-password",
                           say(c, "--schema=" STR_FMT, STR_ARG(p->point.schema)),
                           "--dbname=application_name=lathe-restore", // the rest: environment
                           arena_z(c->mem, dump),
                           NULL };
    ProcessSpec spec = { .argv = argv, .env = s.env };
    err e = child_run(c, &spec, said, w, &exit);
    if (!e && (exit.code || exit.signal)) e = tool_failed(c, "pg_restore", &exit, said);
    pg_snapshot_close(&s);
    if (!e) e = path_remove(c, said);
    return e;
}
