// SPDX-License-Identifier: Apache-2.0
// upgrade.c - see upgrade.h. The copy lies in DIR/snapshots as TIME-release-N.db and is synced
// before it takes its name; the newest `db.snapshots` of them stay.
// Owner: all is in the call's arena. Threads: upgrade.h.
#include "res/upgrade.h"
#include "base/log.h"
#include "base/time.h"
#include "db/copy.h"
#include "res/kit.h"

static int there_before; // the schema's release as this start found it

static str in_snapshots(Ctx *c, str name) {
    return arena_printf(c->mem, STR_FMT "/snapshots/" STR_FMT, STR_ARG(app_of(c)->data_dir),
                        STR_ARG(name));
}

// The oldest go; names sort as times do. What another start left unfinished goes too.
static err trim(Ctx *c) {
    str *names;
    size_t n, whole = 0;
    TRY(dir_list(c, in_snapshots(c, S("")), &names, &n));
    for (size_t i = 0; i < n; i++) {
        if (str_ends(names[i], S(".part"))) TRY(path_remove(c, in_snapshots(c, names[i])));
        else if (str_ends(names[i], S(".db"))) names[whole++] = names[i];
    }
    for (size_t i = 0; i + (size_t)kit_int(KIT_DB_SNAPSHOTS) < whole; i++)
        TRY(path_remove(c, in_snapshots(c, names[i])));
    return ERR_OK;
}

static err sync_path(Ctx *c, str path) {
    File *f;
    TRY(file_open(c, path, FILE_READ | FILE_WRITE, &f));
    err e = file_sync(c, f);
    file_close(f);
    return e;
}

static str snapshot_name(Ctx *c) {
    char text[TIME_TEXT], stamp[TIME_TEXT];
    str t = time_format(os_wall_ms(c->os), text);
    size_t n = 0;
    for (size_t i = 0; i < t.n; i++)
        if (t.p[i] != '-' && t.p[i] != ':' && t.p[i] != '.') stamp[n++] = t.p[i];
    return arena_printf(c->mem, "%.*s-release-%d.db", (int)n, stamp, there_before);
}

static err snapshot(Ctx *c, Db *db) {
    str name = snapshot_name(c), path = in_snapshots(c, name);
    str part = arena_printf(c->mem, STR_FMT ".part", STR_ARG(path));
    TRY(dir_make(c, in_snapshots(c, S("")), 0700));
    TRY(trim(c)); // an unfinished one is in the way
    TRY(sqlite_copy(c, sqlite_path(db), part, NULL));
    TRY(sync_path(c, part));
    TRY(path_rename(c, part, path));
    TRY(dir_sync(c, in_snapshots(c, S(""))));
    log_at("upgrade", LOG_INFO, c,
           "the schema moves forward: the database as it was is kept; to go back, stop this "
           "program, put the copy in lathe.db's place (without lathe.db-wal, lathe.db-shm) and "
           "start the earlier one",
           "copy", say_str(c, path));
    return trim(c);
}

static err before(Ctx *c, Db *db) {
    if (db_kind(db) == DB_SQLITE && kit_int(KIT_DB_SNAPSHOTS) && c->os == os_real())
        return snapshot(c, db);
    log_at(
        "upgrade", LOG_WARN, c, "the schema moves forward, and no copy of the database is taken",
        "why",
        db_kind(db) == DB_POSTGRES
            ? "PostgreSQL's is taken before a new release is started: lathe backup DIR, or pg_dump"
            : "db.snapshots is 0");
    return ERR_OK;
}

err upgrade_begin(Ctx *c) {
    TRY(db_release_check(c, c->db, SCHEMA_RELEASE, &there_before));
    if (there_before > SCHEMA_RELEASE)
        log_at("upgrade", LOG_WARN, c,
               "the database has the next release's schema: this program runs on it, and on no "
               "later one",
               "schema", say(c, "%d", there_before), "program", say(c, "%d", SCHEMA_RELEASE));
    db_before_migrating(c->db, before);
    return ERR_OK;
}

err upgrade_end(Ctx *c) {
    if (there_before >= SCHEMA_RELEASE) return ERR_OK;
    return db_release_set(c, c->db, SCHEMA_RELEASE);
}
