// SPDX-License-Identifier: Apache-2.0
// take.c - the job that takes a backup of the running server. What is copied is what a crash would
// leave, read in an order from which recovery closes every gap: first the journal is folded, then
// come the database, the databases of days, the journal from before the database on, and last the
// objects that the copied database names. Removal of objects is held meanwhile.
// Owner: all of an attempt is in its Ctx. Threads: a job worker's.
#include "mod/backup/backup_own.h"
#include "db/copy.h"
#include "mod/usage/usage.h"
#include "res/collect.h"
#include <assert.h>
#include <inttypes.h>

enum { PARTS_MAX = 4096, SEGMENTS_MAX = 1024, HOLD_EVERY_MS = COLLECT_HOLD_MS / 4 };

typedef struct Held { // a segment of the journal: open, so that trimming does not take it away
    uint64_t number;
    File *file;
} Held;
typedef struct Take {
    Ctx *c;
    Job *job;
    Store store;
    Point point;
    Work work;
    Held held[SEGMENTS_MAX];
    size_t held_n;
    int64_t held_at_ms; // the objects
    str *objects;
    size_t objects_n;
    bool lost; // the hold on objects
} Take;

// ---- progress, and the hold on objects

static err hold(Take *t) {
    Lease lease;
    err e = collect_hold(t->c, job_id(t->job), &lease);
    if (!e) t->held_at_ms = os_wall_ms(t->c->os);
    return e;
}

static void on_step(void *arg, int64_t done, int64_t total) {
    Take *t = arg;
    job_progress(t->job, done, total, "bytes");
    if (t->held_at_ms && os_wall_ms(t->c->os) - t->held_at_ms > HOLD_EVERY_MS && hold(t))
        t->lost = true;
}

static str in_work(Take *t, const char *name) {
    return arena_printf(t->c->mem, STR_FMT "/temp/%s", STR_ARG(t->store.dir), name);
}
static str in_data(Take *t, const char *name) {
    return arena_printf(t->c->mem, STR_FMT "/%s", STR_ARG(app_of(t->c)->data_dir), name);
}
static Part *part_new(Take *t, str name) {
    assert(t->point.parts_n < PARTS_MAX);
    Part *p = &t->point.parts[t->point.parts_n++];
    p->name = name;
    return p;
}

static err put_path(Take *t, str path, int64_t size, str name) {
    Ctx *c = t->c;
    PathInfo info;
    File *f;
    if (size < 0) {
        TRY(path_info(c, path, &info));
        size = info.size;
    }
    TRY(file_open(c, path, FILE_READ, &f));
    err e = store_put_file(c, &t->store, f, size, &t->work, part_new(t, name));
    file_close(f);
    return e;
}

// ---- the journal

static bool segment_number(str name, uint32_t node, uint64_t *out) {
    char prefix[12];
    uint64_t n = 0;
    snprintf(prefix, sizeof prefix, "%08" PRIx32 "-", node);
    if (name.n != 29 || !str_starts(name, str_z(prefix)) || !str_ends(name, S(".log")))
        return false;
    for (size_t i = 9; i < 25; i++) {
        const char *digits = "0123456789abcdef", *at = strchr(digits, name.p[i]);
        if (!at || !*at) return false;
        n = n << 4 | (uint64_t)(at - digits);
    }
    *out = n;
    return true;
}

static bool is_held(const Take *t, uint64_t number) {
    for (size_t i = 0; i < t->held_n; i++)
        if (t->held[i].number == number) return true;
    return false;
}

// *out_lowest: of those that are there now; 0: none.
static err hold_segments(Take *t, uint64_t *out_lowest) {
    Ctx *c = t->c;
    str *names;
    size_t n;
    uint64_t number;
    uint32_t node = journal_end(app_of(c)->journal).node;
    *out_lowest = 0;
    TRY(dir_list(c, in_data(t, "journal"), &names, &n));
    for (size_t i = 0; i < n; i++) {
        if (!segment_number(names[i], node, &number)) continue;
        if (!*out_lowest) *out_lowest = number; // names sort as numbers do
        if (is_held(t, number) || t->held_n == SEGMENTS_MAX) continue;
        Held *h = &t->held[t->held_n];
        err e = file_open(c,
                          arena_printf(c->mem, STR_FMT "/journal/" STR_FMT,
                                       STR_ARG(app_of(c)->data_dir), STR_ARG(names[i])),
                          FILE_READ, &h->file);
        if (e == ERR_NOTFOUND) continue; // trimmed just now: folded before this backup began
        if (e) return e;
        h->number = number, t->held_n++;
    }
    return ERR_OK;
}

// Trimming removes from the front. So when a segment that was held before is still there, or none
// came since, nothing between was missed.
static err journal_parts(Take *t, uint64_t last_before) {
    Ctx *c = t->c;
    uint64_t lowest;
    TRY(journal_flush(c, app_of(c)->journal));
    JournalPos end = journal_end(app_of(c)->journal);
    TRY(hold_segments(t, &lowest));
    if (end.segment > last_before && lowest > last_before)
        return fail(c, ERR_UNAVAILABLE, R_BACKUP_MOVED);
    for (size_t i = 0; i < t->held_n; i++) {
        const Held *h = &t->held[i];
        int64_t size = (int64_t)end.offset;
        if (h->number > end.segment) continue; // nothing is in it yet
        if (h->number < end.segment) TRY(file_size(c, h->file, &size));
        str name =
            arena_printf(c->mem, "journal/%08" PRIx32 "-%016" PRIx64 ".log", end.node, h->number);
        TRY(store_put_file(c, &t->store, h->file, size, &t->work, part_new(t, name)));
    }
    return ERR_OK;
}

// ---- databases

static err live_tx(Ctx *c, Tx *tx, void *arg) {
    Take *t = arg;
    return collect_live(c, tx, &t->objects, &t->objects_n);
}

// The copy is proved whole before it counts, and says which objects belong to it. Its pieces are in
// the store by then: to be opened changes it.
static err look_into(Take *t, str copy) {
    Ctx *c = t->c;
    Db *db;
    DbConfig config = { .url = arena_printf(c->mem, "sqlite:" STR_FMT, STR_ARG(copy)),
                        .readers = 1 };
    TRY(db_open(c, &config, &db));
    err e = db_check(c, db);
    if (!e) e = db_read(c, db, live_tx, t);
    db_close(db);
    return e;
}

static err database_part(Take *t, str from, str name, bool look) {
    Ctx *c = t->c;
    str copy = in_work(t, look ? "lathe.db" : "day.db");
    TRY(sqlite_copy(c, from, copy, NULL));
    TRY(put_path(t, copy, -1, name));
    if (look) TRY(look_into(t, copy));
    return path_remove(c, copy);
}

typedef struct Shared {
    Take *t;
    const PgSnapshot *s;
} Shared;
static err shared_tx(Ctx *c, Tx *tx, void *arg) {
    Shared *x = arg;
    TRY(pg_snapshot_join(c, tx, x->s));
    return live_tx(c, tx, x->t);
}

// What pg_dump reads, and which objects belong to it: one snapshot.
static err postgres_part(Take *t) {
    Ctx *c = t->c;
    PgSnapshot s;
    Shared shared = { t, &s };
    str dump = in_work(t, DUMP_PART);
    TRY(pg_snapshot_open(c, c->db, &s));
    t->point.schema = s.schema, t->point.server_major = s.server_major;
    err e = db_read(c, s.db, shared_tx, &shared);
    if (!e) e = backup_dump(c, &s, setting_text(&backup_settings[BACKUP_PROGRAMS]), dump, &t->work);
    pg_snapshot_close(&s);
    if (!e) e = put_path(t, dump, -1, S(DUMP_PART));
    return e ? e : path_remove(c, dump);
}

static err day_parts(Take *t) {
    Ctx *c = t->c;
    str *names;
    size_t n;
    err e = dir_list(c, in_data(t, "telemetry"), &names, &n);
    if (e) return e == ERR_NOTFOUND ? ERR_OK : e;
    for (size_t i = 0; i < n; i++) {
        if (!str_ends(names[i], S(".db"))) continue;
        str name = arena_printf(c->mem, "telemetry/" STR_FMT, STR_ARG(names[i]));
        e = database_part(t, in_data(t, name.p), name, false);
        if (e && e != ERR_NOTFOUND) return e; // one that retention took just now is not missed
        if (e)
            t->point.parts_n =
                part_find(&t->point, name.p) ? t->point.parts_n - 1 : t->point.parts_n;
    }
    return ERR_OK;
}

static err sqlite_parts(Take *t) {
    PathInfo info;
    str path = sqlite_path(t->c->db);
    TRY(path_info(t->c, path, &info));
    t->work.total = info.size;
    TRY(database_part(t, path, S("lathe.db"), true));
    return day_parts(t);
}

static err main_database(Take *t) {
    return db_kind(t->c->db) == DB_POSTGRES ? postgres_part(t) : sqlite_parts(t);
}

// ---- small files

static err small_parts(Take *t, const char *folder, const char *const *names) {
    for (; *names; names++) {
        str name = arena_printf(t->c->mem, "%s/%s", folder, *names), text;
        err e = file_read_all(t->c, in_data(t, name.p), MANIFEST_MAX, &text);
        if (e == ERR_NOTFOUND) continue;
        if (!e) e = store_put_text(t->c, &t->store, text, &t->work, part_new(t, name));
        if (e) return e;
    }
    return ERR_OK;
}

static err log_parts(Take *t) {
    Ctx *c = t->c;
    str *names, text;
    size_t n;
    err e = dir_list(c, in_data(t, "jobs"), &names, &n);
    if (e) return e == ERR_NOTFOUND ? ERR_OK : e;
    for (size_t i = 0; i < n && t->point.parts_n < PARTS_MAX / 2; i++) {
        str name = arena_printf(c->mem, "jobs/" STR_FMT, STR_ARG(names[i]));
        e = file_read_all(c, in_data(t, name.p), 2 * JOB_LOG_MAX, &text);
        if (e == ERR_NOTFOUND) continue; // ended and trimmed
        if (!e) e = store_put_text(c, &t->store, text, &t->work, part_new(t, name));
        if (e) return e;
    }
    return ERR_OK;
}

// ---- objects

static bool is_damage(err e) { return e == ERR_NOTFOUND || e == ERR_INVALID || e == ERR_INTERNAL; }

static void missing_add(Take *t, str hex, const char *why) {
    if (t->point.missing_n < MISSING_MAX) t->point.missing[t->point.missing_n++] = hex;
    if (t->job)
        job_say(t->job, "object " STR_FMT " is named by rows and %s: it is not in this backup",
                STR_ARG(hex), why);
}

static err one_object(Take *t, str hex, Buf *list) {
    Ctx *c = t->c;
    PathInfo info;
    int64_t before = t->work.done;
    err e = store_copy_object(c, &t->store, app_of(c)->blobs, hex, &t->work);
    if (is_damage(e)) {
        missing_add(t, hex, e == ERR_NOTFOUND ? "gone" : "damaged");
        return ERR_OK;
    }
    TRY(e);
    TRY(path_info(c, blob_path(c, t->store.objects, hex), &info));
    buf_printf(list, STR_FMT " %" PRId64 "\n", STR_ARG(hex), info.size);
    t->point.objects++, t->point.objects_bytes += info.size;
    assert(t->work.done >= before);
    return ERR_OK;
}

static err object_parts(Take *t) {
    Buf list;
    buf_init(&list, 1 << 30);
    err e = ERR_OK;
    t->point.missing = new (t->c->mem, str, MISSING_MAX);
    for (size_t i = 0; !e && i < t->objects_n; i++) {
        ArenaMark mark = arena_mark(t->c->mem);
        e = one_object(t, t->objects[i], &list);
        if (!e) arena_restore(t->c->mem, mark);
    }
    if (!e)
        e = store_put_text(t->c, &t->store, buf_str(&list), &t->work, part_new(t, S(OBJECTS_PART)));
    buf_done(&list);
    return e;
}

// ---- all of it

// The third part of anything sealed is the id of the key that sealed it.
static err key_id(Ctx *c, str *out) {
    str sealed, part;
    TRY(app_of(c)->seal(c, S("-"), S("backup"), &sealed));
    for (int i = 0; i < 3; i++)
        if (!str_cut(&sealed, ':', &part)) return fail(c, ERR_INTERNAL, R_INTERNAL, "why", "seal");
    *out = part;
    return ERR_OK;
}

// So that a restore has little left to fold. Where requests come faster than they are folded that
// never ends: what is not folded comes with the journal.
static err fold_first(Ctx *c) {
    enum { FOLD_MS = 2000 };
    int64_t before_ns = c->deadline_ns, most_ns = os_mono_ns(c->os) + FOLD_MS * INT64_C(1000000);
    if (!before_ns || before_ns > most_ns) c->deadline_ns = most_ns;
    err e = usage_flush(c);
    bool late = e == ERR_TIMEOUT && c->deadline_ns == most_ns;
    c->deadline_ns = before_ns;
    return late ? ERR_OK : e;
}

static err take_all(Take *t) {
    static const char *const audit_files[] = { "checkpoint.json", "sign.pub", NULL };
    Ctx *c = t->c;
    App *app = app_of(c);
    uint64_t lowest, last_before;
    Point *p = &t->point;
    TRY(hold(t));
    TRY(key_id(c, &p->master_key));
    p->node = app->node, p->job = job_id(t->job), p->version = S("0.1.0");
    p->database = db_kind(c->db) == DB_POSTGRES ? S("postgres") : S("sqlite");
    p->parts = new (c->mem, Part, PARTS_MAX);
    p->taken_ms = os_wall_ms(c->os);
    TRY(fold_first(c));
    TRY(hold_segments(t, &lowest));
    last_before = t->held_n ? t->held[t->held_n - 1].number : 0;
    TRY(small_parts(t, "audit", audit_files));
    TRY(main_database(t));
    TRY(journal_parts(t, last_before));
    TRY(log_parts(t));
    TRY(object_parts(t));
    if (t->lost) return fail(c, ERR_UNAVAILABLE, R_BACKUP_MOVED);
    p->ended_ms = os_wall_ms(c->os);
    return point_write(c, &t->store, p);
}

// ---- between two of them

static err step_pages(Take *t, SqliteLog *log) {
    Ctx *c = t->c;
    LogStep step;
    str path = in_work(t, PAGES_PART);
    File *f;
    unsigned flags = FILE_READ | FILE_WRITE | FILE_CREATE | FILE_TRUNCATE | FILE_PRIVATE;
    TRY(file_open(c, path, flags, &f));
    err e = sqlite_log_next(c, log, f, &step);
    file_close(f);
    TRY(e);
    if (step.gap) return fail(c, ERR_CONFLICT, R_BACKUP_MOVED);
    t->point.taken_ms = step.before_ms, t->point.ended_ms = step.after_ms;
    t->point.pages = step.pages, t->point.page_bytes = step.page_bytes;
    TRY(put_path(t, path, -1, S(PAGES_PART)));
    return path_remove(c, path);
}

static err step_parts(Take *t, SqliteLog *log) {
    uint64_t lowest;
    TRY(hold_segments(t, &lowest));
    uint64_t last_before = t->held_n ? t->held[t->held_n - 1].number : 0;
    TRY(step_pages(t, log));
    TRY(journal_parts(t, last_before));
    TRY(db_read(t->c, t->c->db, live_tx, t));
    TRY(object_parts(t));
    return point_write(t->c, &t->store, &t->point);
}

err take_step(Ctx *c, Store *s, SqliteLog *log, Point *p) {
    Take *t = new (c->mem, Take, 1);
    *t = (Take){ .c = c, .store = *s, .point = *p };
    t->store.kind = "log";
    t->point.parts = new (c->mem, Part, PARTS_MAX);
    t->point.node = app_of(c)->node, t->point.version = S("0.1.0");
    t->point.database = S("sqlite"), t->point.master_key = S("-"), t->point.job = S("-");
    err e = step_parts(t, log);
    for (size_t i = 0; i < t->held_n; i++) file_close(t->held[i].file);
    return e;
}

// ---- its end

static void write_result(Ctx *c, const Take *t, Json *j) {
    char text[2][32];
    (void)c;
    json_obj(j);
    json_kv_str(j, "folder", t->store.dir), json_kv_str(j, "point", t->point.id);
    json_kv_i64(j, "bytes", t->work.done), json_kv_i64(j, "copied_bytes", t->work.copied);
    json_kv_i64(j, "objects", t->point.objects);
    json_kv_i64(j, "missing", (int64_t)t->point.missing_n);
    json_kv_str(j, "taken_at", backup_time(t->point.taken_ms, text[0]));
    json_kv_str(j, "ended_at", backup_time(t->point.ended_ms, text[1]));
    json_end_obj(j);
}

static err told_tx(Ctx *c, Tx *tx, void *arg) {
    Take *t = arg;
    Buf b;
    TRY(job_guard(c, tx, t->job));
    buf_init(&b, EVENT_DATA_MAX);
    Json j = json_to(&b);
    write_result(c, t, &j);
    err e = event_stage(c, tx, backup_taken.name, (str){ 0 }, (str){ 0 }, t->point.id, buf_str(&b));
    if (!e) job_result(t->job, buf_str(&b));
    buf_done(&b);
    return e;
}

static err hold_end_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(hold_end, "UPDATE lease SET holder = '', until_ms = 0 WHERE object = 'blob.hold' "
                         "AND holder = $1");
    return db_run(c, tx, &hold_end, V(*(const str *)arg));
}

static App *program; // a job's own Ctx does not say
void backup_of(App *app) { program = app; }

static err run(Ctx *c, Job *j) {
    yyjson_val *root;
    c->app = program, c->who = &identity_system;
    TRY(json_parse(c, job_payload(j), &root));
    Take *t = new (c->mem, Take, 1);
    *t = (Take){ .c = c, .job = j, .work = { .fn = on_step, .arg = t } };
    str id = job_id(j);
    archive_lock();
    err e = store_open(c, json_get_str(root, "folder"), true, &t->store);
    archive_here(c, t->store.dir, &t->point);
    if (!e) e = take_all(t);
    store_close(&t->store);
    archive_unlock();
    for (size_t i = 0; i < t->held_n; i++) file_close(t->held[i].file);
    Failure failure = c->failure;
    err ended = db_tx(c, c->db, hold_end_tx, &id); // else it runs out by itself
    (void)ended;
    c->failure = failure;
    if (e) return e;
    job_say(j, "backup " STR_FMT ": %" PRId64 " bytes, of which %" PRId64 " were not there yet",
            STR_ARG(t->point.id), t->work.done, t->work.copied);
    metric_set(&metric_backup_last, (double)t->point.taken_ms / 1000);
    metric_add(&metric_backup_bytes, (double)t->work.copied, S("copied"));
    metric_add(&metric_backup_bytes, (double)(t->work.done - t->work.copied), S("kept"));
    return db_tx(c, c->db, told_tx, t);
}

const JobKind backup_kind = {
    .name = "backup.take",
    .run = run,
    .attempts_max = 5,
    .parallel_max = 1,
    .en = "Take a backup of the running server",
    .zh = "备份运行中的服务器",
};
