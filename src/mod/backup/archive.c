// SPDX-License-Identifier: Apache-2.0
// archive.c - what is written between two backups of backup.folder, a step every
// backup.archive_every: the pages that SQLite's log brought, the journal, new objects. Steps follow
// one another without a gap within a run; a run begins with a server's start, or after a gap, and
// with a backup of its own. Commits wait for nothing; the log starts over only when a step has it.
// Owner: the log is this file's, under the gate. Threads: one worker, and who takes a backup.
#include "base/log.h"
#include "mod/backup/backup_own.h"
#include "os/thread.h"
#include <assert.h>

enum {
    LOG_MUCH = 17 << 20,  // bytes of the log: a step is due, so that it may start over
    LOG_MOST = 256 << 20, // that a folder out of reach may cost
};

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static struct {
    SqliteLog *log;
    char run[64];
    int64_t seq; // of the next step
    int64_t last_ms;
} a;

void archive_lock(void) { pthread_mutex_lock(&gate); }
void archive_unlock(void) { pthread_mutex_unlock(&gate); }

static void leave(void) {
    sqlite_log_close(a.log);
    a.log = NULL, a.run[0] = 0;
}

void archive_end(void) {
    archive_lock();
    leave();
    archive_unlock();
}

static bool wanted(Ctx *c) {
    return setting_text(&backup_settings[BACKUP_FOLDER]).n
           && setting_int(&backup_settings[BACKUP_STEP]) && db_kind(c->db) == DB_SQLITE;
}

// Nothing is held back for a folder that could not take it.
static err begin(Ctx *c) {
    str folder = setting_text(&backup_settings[BACKUP_FOLDER]);
    int64_t room;
    Store s;
    err e = store_open(c, folder, true, &s);
    if (!e) e = disk_free(c, folder, &room);
    store_close(&s);
    TRY(e);
    if (room < LOG_MOST) return fail(c, ERR_FULL, R_DISK_FULL, "path", say_str(c, folder));
    TRY(sqlite_log_open(c, c->db, &a.log));
    str id = os_id(c, "run");
    assert(id.n < sizeof a.run);
    memcpy(a.run, id.p, id.n), a.run[id.n] = 0;
    a.seq = 1;
    return ERR_OK;
}

void archive_here(Ctx *c, str folder, Point *p) {
    if (!a.log || !str_eq(folder, setting_text(&backup_settings[BACKUP_FOLDER]))) return;
    p->run = arena_str(c->mem, str_z(a.run)), p->seq = a.seq;
}

static err step(Ctx *c) {
    Store s;
    Point p = { .run = str_z(a.run), .seq = a.seq };
    err e = store_open(c, setting_text(&backup_settings[BACKUP_FOLDER]), true, &s);
    if (!e) e = take_step(c, &s, a.log, &p);
    if (!e) e = sqlite_log_keep(c, a.log);
    store_close(&s);
    if (!e) a.seq++;
    return e;
}

static int64_t log_bytes(Ctx *c) {
    PathInfo info;
    Failure before = c->failure;
    str path = sqlite_path(c->db);
    bool there = !path_info(c, arena_printf(c->mem, STR_FMT "-wal", STR_ARG(path)), &info);
    c->failure = before;
    return there ? info.size : 0;
}

static err turn(Ctx *c, bool *out_new) {
    *out_new = false;
    if (!wanted(c)) return leave(), ERR_OK;
    *out_new = !a.log;
    if (!a.log) return a.last_ms = 0, begin(c);
    int64_t now_ms = os_mono_ns(c->os) / 1000000;
    bool due = now_ms - a.last_ms >= setting_int(&backup_settings[BACKUP_STEP]);
    if (!due && log_bytes(c) < LOG_MUCH) return ERR_OK;
    err e = step(c);
    if (!e) a.last_ms = now_ms;
    if (!e) return ERR_OK;
    if (c->failure.why != &R_BACKUP_MOVED && log_bytes(c) < LOG_MOST)
        return e; // the next one covers it
    log_at("backup", LOG_WARN, c,
           "a gap between backups: the log of the database went on without us");
    leave(); // the next turn begins another run, once the folder takes it
    return ERR_OK;
}

err archive_turn(Ctx *c, void *arg) {
    bool is_new;
    (void)arg;
    if (pthread_mutex_trylock(&gate)) return ERR_OK; // a backup is being taken
    err e = turn(c, &is_new);
    archive_unlock();
    return !e && is_new && wanted(c) ? archive_ask(c) : e;
}
