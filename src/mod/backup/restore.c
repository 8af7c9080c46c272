// SPDX-License-Identifier: Apache-2.0
// restore.c - a new data folder out of a backup. Everything is checked before anything is written,
// everything is written beside the folder and takes its name at the end. What comes out is another
// node than the one that was backed up: leases and jobs of the old one are ended with a higher
// epoch, its replicas are forgotten, its journal goes on under the new number, so that folding
// resumes where the copied database stood, exactly once.
// Owner: the plan's texts are in the arena of the call. Threads: the command line's only one.
#include "mod/backup/backup_own.h"
#include "base/log.h"
#include "base/time.h"
#include "os/terminal.h"
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

enum { KEY_HEX = 64, KEY_ID_HEX = 16, JOURNAL_HEAD = 24 };

static str at_new(Ctx *c, const RestorePlan *p, const char *name) {
    return arena_printf(c->mem, STR_FMT ".restoring/%s", STR_ARG(p->data), name);
}

static str sqlite_at(Ctx *c, const RestorePlan *p, const char *name) {
    str path = at_new(c, p, name);
    return arena_printf(c->mem, "sqlite:" STR_FMT, STR_ARG(path));
}

// ---- checks

static err target_refused(Ctx *c, const RestorePlan *p, const char *why) {
    return fail(c, ERR_CONFLICT, R_BACKUP_TARGET, "path", say_str(c, p->data), "why", why);
}

static err target_check(Ctx *c, const RestorePlan *p) {
    str *names;
    size_t n;
    File *lock;
    err e = dir_list(c, p->data, &names, &n);
    if (e == ERR_NOTFOUND) return ERR_OK;
    if (e) return e;
    if (!n) return ERR_OK;
    str path = arena_printf(c->mem, STR_FMT "/lathe.lock", STR_ARG(p->data));
    if (file_open(c, path, FILE_READ | FILE_WRITE, &lock))
        return target_refused(c, p, "is not empty");
    e = file_lock(c, lock);
    file_close(lock);
    return target_refused(c, p, e ? "is in use by a server" : "is not empty");
}

static int digit(char ch) {
    return ch >= '0' && ch <= '9' ? ch - '0' : ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : -1;
}

// A key's id is how its SHA-256 begins.
static bool key_is(str hex, str id) {
    char key[KEY_HEX / 2], digest[BLOB_DIGEST_HEX + 1];
    if (hex.n != KEY_HEX) return false;
    for (size_t i = 0; i < KEY_HEX / 2; i++) {
        int high = digit(hex.p[2 * i]), low = digit(hex.p[2 * i + 1]);
        if (high < 0 || low < 0) return false;
        key[i] = (char)(high << 4 | low);
    }
    sha256_hex(str_n(key, sizeof key), digest);
    return str_eq(str_n(digest, KEY_ID_HEX), id);
}

static err key_check(Ctx *c, const RestorePlan *p) {
    str text = str_z(os_env(c->os, "LATHE_MASTER_KEY")), line;
    const char *source = "the key at hand (LATHE_MASTER_KEY) is another one";
    if (p->key_file.n) {
        TRY(file_read_all(c, p->key_file, 4096, &text));
        source = "the file named by --master_key_file does not hold it";
    } else if (!text.n) {
        source = "no key is at hand: name the file with --master_key_file, or set LATHE_MASTER_KEY";
    }
    while (text.n && str_cut(&text, '\n', &line))
        if (key_is(str_trim(line), p->point.master_key)) return ERR_OK;
    return fail(c, ERR_DENIED, R_BACKUP_KEY, "want", say_str(c, p->point.master_key), "source",
                source);
}

static int64_t bytes_of(const Point *p) {
    int64_t n = p->objects_bytes;
    for (size_t i = 0; i < p->parts_n; i++) n += p->parts[i].size;
    return n;
}

static err room_check(Ctx *c, const RestorePlan *p) {
    int64_t room;
    size_t n = p->data.n;
    while (n > 1 && p->data.p[n - 1] != '/') n--;
    TRY(disk_free(c, str_sub(p->data, 0, n), &room));
    return room > bytes_of(&p->point) ? ERR_OK
                                      : fail(c, ERR_FULL, R_DISK_FULL, "path", say_str(c, p->data));
}

static bool of_postgres(const Point *p) { return str_is(p->database, "postgres"); }

static err database_check(Ctx *c, RestorePlan *p) {
    const char *part = of_postgres(&p->point) ? DUMP_PART : "lathe.db";
    if (!part_find(&p->point, part))
        return fail(c, ERR_INVALID, R_BACKUP_DATABASE, "why", "this backup holds no database");
    if (of_postgres(&p->point)) return restore_database_check(c, p);
    if (!p->db_url.n) return ERR_OK;
    return fail(c, ERR_INVALID, R_BACKUP_DATABASE, "why",
                "this backup is of SQLite: its database lies in the data folder, --db is for one "
                "of PostgreSQL");
}

// The steps that follow the point without a gap, until the moment that is asked for.
static err steps_find(Ctx *c, RestorePlan *p) {
    Store logs = p->store;
    str *ids;
    size_t n;
    logs.kind = "log";
    if (!p->point.run.n) return ERR_OK;
    TRY(point_ids(c, &logs, &ids, &n));
    p->steps = new (c->mem, Point, n + 1);
    for (size_t i = 0; i < n; i++) {
        Point *step = &p->steps[p->steps_n];
        if (p->at_ms && point_id_ms(ids[i]) > p->at_ms) break;
        if (point_id_ms(ids[i]) < p->point.taken_ms) continue;
        TRY(point_read(c, &logs, ids[i], step));
        if (!str_eq(step->run, p->point.run)) continue;
        if (step->seq != p->point.seq + (int64_t)p->steps_n || !part_find(step, PAGES_PART)) break;
        p->steps_n++;
    }
    return ERR_OK;
}

err restore_check(Ctx *c, RestorePlan *p, Work *w) {
    TRY(target_check(c, p));
    TRY(store_open(c, p->from, false, &p->store));
    TRY(point_at(c, &p->store, p->at_ms, &p->point));
    TRY(database_check(c, p));
    TRY(steps_find(c, p));
    TRY(key_check(c, p));
    TRY(room_check(c, p));
    TRY(point_check(c, &p->store, &p->point, w));
    for (size_t i = 0; i < p->steps_n; i++)
        TRY(store_get_file(c, &p->store, part_find(&p->steps[i], PAGES_PART), (str){ 0 }, w));
    return ERR_OK;
}

// ---- writing

static err folder_of(Ctx *c, str path) {
    size_t n = path.n;
    while (n > 1 && path.p[n - 1] != '/') n--;
    return dir_make(c, str_sub(path, 0, n - 1), 0700);
}

// NODE-SEGMENT.log with the new node: its header says which (job/README.md).
static err segment_adopt(Ctx *c, str path, uint32_t node) {
    char head[JOURNAL_HEAD];
    uint32_t was, crc;
    uint64_t segment;
    size_t got;
    File *f;
    TRY(file_open(c, path, FILE_READ | FILE_WRITE, &f));
    err e = file_read_at(c, f, 0, head, sizeof head, &got);
    if (!e && !segment_header(str_n(head, got), &was, &segment))
        e = fail(c, ERR_CONFLICT, R_BACKUP_BAD, "what", "a segment of the journal", "path",
                 say_str(c, path), "why", "its header is not possible");
    if (!e) {
        memcpy(head + 8, &node, sizeof node);
        crc = crc32c(0, head, 20);
        memcpy(head + 20, &crc, sizeof crc);
        e = file_write_at(c, f, 0, head, sizeof head);
    }
    if (!e) e = file_sync(c, f);
    file_close(f);
    return e;
}

static str part_target(Ctx *c, const RestorePlan *p, const Part *part) {
    uint32_t node = (uint32_t)str_hash(p->node);
    str to = at_new(c, p, arena_z(c->mem, part->name));
    bool segment = str_starts(part->name, S("journal/"));
    if (str_starts(part->name, S("audit/"))) // another server's signature: kept for the record
        to = at_new(c, p, say(c, "restored/" STR_FMT, STR_ARG(str_sub(part->name, 6, 100))));
    if (segment)
        to = at_new(c, p,
                    say(c, "journal/%08" PRIx32 STR_FMT, node,
                        STR_ARG(str_sub(part->name, strlen("journal/") + 8, 100))));
    return to;
}

static err part_write(Ctx *c, const RestorePlan *p, const Part *part, Work *w) {
    str to = part_target(c, p, part);
    if (str_is(part->name, OBJECTS_PART)) return ERR_OK;
    TRY(folder_of(c, to));
    TRY(store_get_file(c, &p->store, part, to, w));
    bool segment = str_starts(part->name, S("journal/"));
    return segment ? segment_adopt(c, to, (uint32_t)str_hash(p->node)) : ERR_OK;
}

// ---- the steps

static bool is_journal(const Part *part) { return str_starts(part->name, S("journal/")); }

// Each segment as the last step has it: it only grew.
static err journal_replace(Ctx *c, const RestorePlan *p, Work *w) {
    for (size_t i = 0; i < p->steps_n; i++) {
        for (size_t k = 0; k < p->steps[i].parts_n; k++) {
            const Part *part = &p->steps[i].parts[k];
            bool later = false;
            for (size_t m = i + 1; is_journal(part) && !later && m < p->steps_n; m++)
                later = part_find(&p->steps[m], arena_z(c->mem, part->name));
            if (!is_journal(part) || later) continue;
            err e = path_remove(c, part_target(c, p, part));
            if (e && e != ERR_NOTFOUND) return e;
            TRY(part_write(c, p, part, w));
        }
    }
    return ERR_OK;
}

static err traces_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(trace_at, "SELECT segment, at FROM trace_fold");
    RestorePlan *p = arg;
    Rows *rows;
    bool more;
    TRY(db_query(c, tx, &trace_at, NULL, 0, &rows));
    TRY(rows_next(c, rows, &more));
    p->traced = more;
    if (more) p->trace_segment = col_int(rows, 0), p->trace_at = col_int(rows, 1);
    rows_close(rows);
    return ERR_OK;
}

static err steps_write(Ctx *c, RestorePlan *p, Work *w) {
    str db = at_new(c, p, "lathe.db"), path = at_new(c, p, PAGES_PART);
    DbConfig config = { .url = sqlite_at(c, p, "lathe.db"), .readers = 1 };
    Db *before;
    if (!p->steps_n) return ERR_OK;
    // The databases of days are the point's: their reader goes on where it was then.
    TRY(db_open(c, &config, &before));
    err e = db_read(c, before, traces_tx, p);
    db_close(before);
    TRY(e);
    for (size_t i = 0; i < p->steps_n; i++) {
        const Point *step = &p->steps[i];
        File *f;
        ArenaMark mark = arena_mark(c->mem);
        TRY(store_get_file(c, &p->store, part_find(step, PAGES_PART), path, w));
        TRY(file_open(c, path, FILE_READ, &f));
        e = sqlite_log_apply(c, db, f, step->page_bytes, step->pages);
        file_close(f);
        TRY(e);
        TRY(path_remove(c, path));
        arena_restore(c->mem, mark);
    }
    return journal_replace(c, p, w);
}

static err objects_write(Ctx *c, const RestorePlan *p, Work *w) {
    Store to = { .dir = at_new(c, p, "") };
    ObjectLine *objects;
    size_t n;
    const Point *last = p->steps_n ? &p->steps[p->steps_n - 1] : &p->point;
    TRY(store_objects(c, &p->store, last, &objects, &n));
    err e = blobs_open(c, str_sub(to.dir, 0, to.dir.n - 1), &to.objects);
    for (size_t i = 0; !e && i < n; i++) {
        ArenaMark mark = arena_mark(c->mem);
        e = store_copy_object(c, &to, p->store.objects, objects[i].hex, w);
        if (!e) arena_restore(c->mem, mark);
    }
    blobs_close(to.objects);
    return e;
}

// ---- another life

typedef struct Fence {
    const char *text;
    bool nodes; // $1 the new node's number, $2 the old one's; else no parameters
} Fence;
// What the copied database says of the old server's processes, and what becomes of it.
static const Fence fences[] = {
    { "UPDATE lease SET holder = '', until_ms = 0, epoch = epoch + 1000000", false },
    { "UPDATE job SET node = '', holder = '', lease_until_ms = 0, epoch = epoch + 1000000 "
      "WHERE state = 'running'",
      false },
    { "UPDATE deployments SET replicas_status = '[]', ready_replicas = 0, node = NULL", false },
    { "UPDATE usage_fold SET node = $1 WHERE node = $2", true },
    // Other nodes' too: nobody else settles them here.
    { "UPDATE usage_open SET node = $1 WHERE node <> $1 OR node = $2", true },
    { "UPDATE trace_fold SET node = $1 WHERE node = $2", true },
};
static const Fence day_fences[] = { { "UPDATE folded SET node = $1 WHERE node = $2", true } };

typedef struct Fencing {
    const RestorePlan *p;
    const Fence *at;
    size_t n;
    bool job;
} Fencing;

// To where the point's databases of days are; nowhere: they begin with the journal.
static err trace_fence(Ctx *c, Tx *tx, const RestorePlan *p) {
    static SQL(trace_back, "UPDATE trace_fold SET segment = $1, at = $2");
    static SQL(trace_none, "DELETE FROM trace_fold");
    if (!p->traced) return db_run(c, tx, &trace_none);
    return db_run(c, tx, &trace_back, V(p->trace_segment), V(p->trace_at));
}

static err fence_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(backup_job_end,
               "UPDATE job SET state = 'cancelled', ended_ms = $2, cancel_asked = 1 "
               "WHERE id = $1");
    const Fencing *f = arg;
    int64_t node[2] = { (uint32_t)str_hash(f->p->node), (uint32_t)str_hash(f->p->point.node) };
    for (size_t i = 0; i < f->n; i++) {
        Sql *sql = new (c->mem, Sql, 1);
        *sql = (Sql){ "restore_fence", f->at[i].text, NULL };
        TRY(db_exec(c, tx, sql, (Val[]){ V(node[0]), V(node[1]) }, f->at[i].nodes ? 2 : 0, NULL));
    }
    if (f->job && f->p->steps_n) TRY(trace_fence(c, tx, f->p));
    // The job that took this backup would take another one here.
    return f->job ? db_run(c, tx, &backup_job_end, V(f->p->point.job), V(tx_now_ms(tx))) : ERR_OK;
}

static err fence(Ctx *c, const RestorePlan *p, str url, Fencing *f) {
    Db *db;
    DbConfig config = { .url = url, .readers = 2 };
    f->p = p;
    TRY(db_open(c, &config, &db));
    err e = db_check(c, db);
    if (!e) e = db_tx(c, db, fence_tx, f);
    db_close(db);
    return e;
}

// All of it or nothing; the dump is not part of the new folder.
static err database_write(Ctx *c, const RestorePlan *p, Work *w) {
    str dump = at_new(c, p, DUMP_PART);
    Db *db;
    DbConfig config = { .url = p->db_url, .readers = 2 };
    if (!of_postgres(&p->point)) return ERR_OK;
    TRY(db_open(c, &config, &db));
    err e = restore_database(c, p, db, dump, w);
    db_close(db);
    return e ? e : path_remove(c, dump);
}

static err fence_all(Ctx *c, const RestorePlan *p) {
    Fencing main = { .at = fences, .n = countof(fences), .job = true };
    if (of_postgres(&p->point)) return fence(c, p, p->db_url, &main);
    TRY(fence(c, p, sqlite_at(c, p, "lathe.db"), &main));
    for (size_t i = 0; i < p->point.parts_n; i++) {
        str name = p->point.parts[i].name;
        Fencing day = { .at = day_fences, .n = countof(day_fences) };
        if (str_starts(name, S("telemetry/")) && str_ends(name, S(".db")))
            TRY(fence(c, p, sqlite_at(c, p, arena_z(c->mem, name)), &day));
    }
    return ERR_OK;
}

static err note_write(Ctx *c, const RestorePlan *p) {
    Buf b;
    char taken[TIME_TEXT], now[TIME_TEXT];
    buf_init(&b, 65536);
    Json j = json_to(&b);
    json_obj(&j);
    json_kv_str(&j, "from", p->from), json_kv_str(&j, "point", p->point.id);
    json_kv_str(&j, "taken_at", time_format(p->point.taken_ms, taken));
    json_kv_str(&j, "restored_at", time_format(os_wall_ms(c->os), now));
    json_kv_str(&j, "node", p->node), json_kv_str(&j, "node_before", p->point.node);
    json_kv_i64(&j, "missing", (int64_t)p->point.missing_n);
    json_end_obj(&j);
    err e = file_write_all(c, at_new(c, p, "restored.json"), buf_str(&b), FILE_PRIVATE);
    buf_done(&b);
    return e;
}

static err key_write(Ctx *c, const RestorePlan *p) {
    str text;
    if (!p->key_file.n) return ERR_OK;
    TRY(file_read_all(c, p->key_file, 4096, &text));
    return file_write_all(c, at_new(c, p, "master.key"), text, FILE_PRIVATE);
}

static err take_name(Ctx *c, const RestorePlan *p) {
    str from = str_sub(at_new(c, p, ""), 0, p->data.n + strlen(".restoring"));
    size_t n = p->data.n;
    err e = path_remove(c, p->data); // an empty folder
    if (e && e != ERR_NOTFOUND) return e;
    TRY(path_rename(c, from, p->data));
    while (n > 1 && p->data.p[n - 1] != '/') n--;
    return dir_sync(c, n > 1 ? str_sub(p->data, 0, n - 1) : S("/"));
}

err restore_run(Ctx *c, RestorePlan *p, Work *w) {
    w->total = bytes_of(&p->point), w->done = 0;
    p->node = os_id(c, "node");
    TRY(path_remove_tree(c, str_sub(at_new(c, p, ""), 0, p->data.n + strlen(".restoring"))));
    TRY(dir_make(c, at_new(c, p, ""), 0700));
    for (size_t i = 0; i < p->point.parts_n; i++) {
        ArenaMark mark = arena_mark(c->mem);
        TRY(part_write(c, p, &p->point.parts[i], w));
        arena_restore(c->mem, mark);
    }
    TRY(steps_write(c, p, w));
    TRY(objects_write(c, p, w));
    TRY(key_write(c, p));
    TRY(file_write_all(c, at_new(c, p, "node"), p->node, 0));
    TRY(note_write(c, p));
    TRY(database_write(c, p, w));
    TRY(fence_all(c, p));
    static const char *const folders[] = { "", "journal", "jobs", "telemetry", "restored" };
    for (size_t i = 0; i < countof(folders); i++) {
        err e = dir_sync(c, at_new(c, p, folders[i]));
        if (e && e != ERR_NOTFOUND) return e;
    }
    return take_name(c, p);
}

// ---- the first start

static err told_tx(Ctx *c, Tx *tx, void *arg) {
    str text = *(const str *)arg;
    App *app = app_of(c);
    AuditEntry entry = {
        "restore", "backup", { 0 }, { 0 }, S("backups.restore"), text, SCOPE_SYSTEM
    };
    if (app->audit) TRY(app->audit(c, tx, &entry));
    return event_stage(c, tx, "backup.restored", (str){ 0 }, (str){ 0 }, (str){ 0 }, text);
}

err restore_told(Ctx *c) {
    str text, dir = app_of(c)->data_dir;
    str path = arena_printf(c->mem, STR_FMT "/restored.json", STR_ARG(dir));
    err e = file_read_all(c, path, 65536, &text);
    if (e) return e == ERR_NOTFOUND ? ERR_OK : e;
    TRY(db_tx(c, c->db, told_tx, &text));
    log_at("backup", LOG_INFO, c, "this server came out of a backup", "what", say_str(c, text));
    TRY(dir_make(c, arena_printf(c->mem, STR_FMT "/restored", STR_ARG(dir)), 0700));
    return path_rename(c, path,
                       arena_printf(c->mem, STR_FMT "/restored/restored.json", STR_ARG(dir)));
}
