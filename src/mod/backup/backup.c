// SPDX-License-Identifier: Apache-2.0
// backup.c - rows, routes and the schedule of backups. Leaves what a backup holds to take.c, and
// new servers to restore.c. Threads: pool, one worker.
#include "mod/backup/backup_own.h"
#include "base/time.h"
#include "os/terminal.h"
#include "res/worker.h"

REASONS_DECLARE(BACKUP_REASONS)
extern const Reason *const backup_reasons[];
REASONS_DEFINE(BACKUP_REASONS, backup_reasons)

// clang-format off
const Setting backup_settings[] = {
    [BACKUP_FOLDER] = { "backup.folder", SET_TEXT, "", 0, 1000, .live = true,
        .en = "Where backups go unless a call names a folder: an absolute path outside the data "
            "folder",
        .zh = "未指定目录时的备份位置：数据目录之外的绝对路径" },
    [BACKUP_EVERY] = { "backup.every", SET_SPAN, "0", 0, INT64_MAX, .live = true,
        .en = "A backup into backup.folder this often: the most that a restore can lose; 0: only "
            "when asked",
        .zh = "向 backup.folder 备份的间隔，即恢复时最多丢失的时间；0 为仅手动备份" },
    [BACKUP_KEEP] = { "retain.backups", SET_SPAN, "30d", 0, INT64_MAX, .live = true,
        .en = "Backups in backup.folder; the newest always stays",
        .zh = "backup.folder 中备份的保留时间；最新的一份始终保留" },
    [BACKUP_PROGRAMS] = { "backup.postgres_programs", SET_TEXT, "", 0, 1000, .live = true,
        .en = "Folder of pg_dump, as new as the PostgreSQL server; empty: PATH, then "
            "/usr/lib/postgresql",
        .zh = "pg_dump 所在目录（版本不低于 PostgreSQL 服务器）；空则查找 PATH 与 "
            "/usr/lib/postgresql" },
    [BACKUP_STEP] = { "backup.archive_every", SET_SPAN, "10s", 0, INT64_MAX, .live = true,
        .en = "What SQLite wrote goes to backup.folder this often, so that a restore may be to any "
            "such moment; 0: only backups",
        .zh = "将 SQLite 的写入归档到 backup.folder 的间隔，恢复可到任一归档时刻；0 为仅备份" },
    [BACKUP_KEEP_STEPS] = { "backup.archive_keep", SET_SPAN, "1d", 0, INT64_MAX, .live = true,
        .en = "What was archived between backups is kept this long; backups themselves stay for "
            "retain.backups",
        .zh = "备份之间归档内容的保留时间；备份本身按 retain.backups 保留" },
    { 0 }
};
const Metric metric_backup_last = { "lathe.backup.last", "s", METRIC_GAUGE, { NULL }, NULL,
    "Unix time of the newest backup that this process took", "本进程最近一次备份的 Unix 时间" };
const Metric metric_backup_bytes = { "lathe.backup.io", "By", METRIC_COUNTER, { "what" }, NULL,
    "Bytes of backups: copied, or kept because they were there",
        "备份字节数：新复制（copied）或已存在（kept）" };
static const Metric *const metrics[] = { &metric_backup_last, &metric_backup_bytes, NULL };
const EventKind backup_taken = { "backup.taken", "A backup is complete", "备份完成" };
static const EventKind backup_restored = { "backup.restored",
    "This server came out of a backup", "本服务器由备份恢复而来" };
static const EventKind *const events[] = { &backup_taken, &backup_restored, NULL };
// clang-format on

str backup_time(int64_t ms, char out[32]) { return ms ? time_format(ms, out) : (str){ 0 }; }

// ---- asking for one

typedef struct Ask {
    str folder, project, job;
    int64_t every_ms;
} Ask;

static bool below(str path, str folder) {
    while (str_ends(folder, S("/"))) folder.n--;
    return str_starts(path, folder) && (path.n == folder.n || path.p[folder.n] == '/');
}

// What was asked for; absent: the setting.
static err folder_of(Ctx *c, str asked, str *out) {
    str data = os_path_absolute(c, app_of(c)->data_dir);
    str folder = asked.n ? asked : setting_text(&backup_settings[BACKUP_FOLDER]);
    *out = folder;
    if (!folder.n) return fail(c, ERR_INVALID, R_FIELD_REQUIRED, "field", "folder");
    bool good = folder.n && folder.p[0] == '/' && str_find(folder, S("/..")) < 0;
    if (good && !below(folder, data) && !below(data, folder)) return ERR_OK;
    return fail(c, ERR_INVALID, R_BACKUP_PATH, "field", asked.n ? "folder" : "backup.folder",
                "path", say_str(c, folder));
}

static str payload_of(Ctx *c, str folder) {
    Buf b;
    buf_init(&b, 8192);
    Json j = json_to(&b);
    json_obj(&j), json_kv_str(&j, "folder", folder), json_end_obj(&j);
    str s = arena_str(c->mem, buf_str(&b));
    buf_done(&b);
    return s;
}

static err ask_tx(Ctx *c, Tx *tx, void *arg) {
    Ask *a = arg;
    App *app = app_of(c);
    str payload = payload_of(c, a->folder);
    JobSpec spec = { .kind = backup_kind.name,
                     .project = a->project,
                     .created_by = c->who ? c->who->id : (str){ 0 },
                     .payload = payload };
    TRY(job_add(c, tx, &spec, &a->job));
    tx_notify(tx, jobs_wake, app->jobs);
    AuditEntry entry = { "create", "backup",    a->job, { 0 }, S("backups.create"),
                         payload,  SCOPE_SYSTEM };
    return app->audit ? app->audit(c, tx, &entry) : ERR_OK;
}

typedef struct BackupInput {
    str folder, job;
} BackupInput;
// clang-format off
static const Field folder_input[] = {
    TEXT(BackupInput, folder, 0, 1000, "Folder on the server's machine; absent: backup.folder",
        "服务器上的目录；缺省为 backup.folder"),
    { 0 }
};
// clang-format on

static err serve_create(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    Ask a = { .project = c->project };
    BackupInput in = { 0 };
    yyjson_val *root;
    (void)r;
    if (body->bytes.n) {
        TRY(json_parse(c, body->bytes, &root));
        TRY(fields_read(c, folder_input, &in, root, FIELDS_CREATE));
    }
    TRY(folder_of(c, in.folder, &a.folder));
    TRY(db_tx(c, c->db, ask_tx, &a));
    out->status = 202;
    Json j = json_to(&out->body);
    json_obj(&j), json_kv_str(&j, "job", a.job), json_kv_str(&j, "folder", a.folder),
        json_end_obj(&j);
    return ERR_OK;
}

// The newest first: from a backup on, any moment until the last step. Steps of one run follow one
// another; a number that is not the next begins another window.
static err list_windows(Ctx *c, const Store *s, Json *j) {
    Store logs = *s;
    Point p, next = { 0 };
    str *ids;
    size_t n, steps = 0;
    char text[TIME_TEXT];
    logs.kind = "log";
    TRY(point_ids(c, &logs, &ids, &n));
    json_key(j, "windows"), json_arr(j);
    for (size_t i = n; i-- > 0; next = p) {
        if (point_read(c, &logs, ids[i], &p)) p = (Point){ 0 };
        bool goes_on = steps && p.run.n && str_eq(p.run, next.run) && p.seq + 1 == next.seq;
        if (steps && !goes_on) {
            json_kv_str(j, "from", time_format(next.taken_ms, text));
            json_kv_i64(j, "steps", (int64_t)steps), json_end_obj(j), steps = 0;
        }
        if (!steps && p.run.n) json_obj(j), json_kv_str(j, "until", time_format(p.taken_ms, text));
        steps += p.run.n > 0;
    }
    if (steps)
        json_kv_str(j, "from", time_format(next.taken_ms, text)),
            json_kv_i64(j, "steps", (int64_t)steps), json_end_obj(j);
    json_end_arr(j);
    return ERR_OK;
}

static err list_points(Ctx *c, Store *s, Json *j) {
    str *ids;
    size_t n;
    TRY(point_ids(c, s, &ids, &n));
    json_obj(j), json_key(j, "data"), json_arr(j);
    for (size_t i = n; i-- > 0;) {
        Point p;
        char taken[TIME_TEXT];
        ArenaMark mark = arena_mark(c->mem);
        if (n - i > LIST_MAX) break;
        err e = point_read(c, s, ids[i], &p);
        json_obj(j);
        json_kv_str(j, "id", ids[i]);
        json_kv_str(j, "taken_at", time_format(point_id_ms(ids[i]), taken));
        json_kv_bool(j, "whole", !e);
        json_kv_i64(j, "parts", e ? 0 : (int64_t)p.parts_n);
        json_kv_i64(j, "objects", e ? 0 : p.objects);
        json_kv_i64(j, "objects_bytes", e ? 0 : p.objects_bytes);
        json_kv_i64(j, "missing", e ? 0 : (int64_t)p.missing_n);
        json_end_obj(j);
        arena_restore(c->mem, mark);
    }
    json_end_arr(j);
    TRY(list_windows(c, s, j));
    json_end_obj(j);
    return ERR_OK;
}

err backup_points_json(Ctx *c, str folder, Buf *out) {
    Store s;
    Json j = json_to(out);
    err e = store_open(c, folder, false, &s);
    if (!e) e = list_points(c, &s, &j);
    store_close(&s);
    return e;
}

static err serve_list(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    (void)body;
    str folder;
    TRY(folder_of(c, http_query(c->mem, r, "folder", NULL), &folder));
    return backup_points_json(c, folder, &out->body);
}

// clang-format off
static const Field create_output[] = {
    ROW(BackupInput, job, T_ID, STATUS, "Job that takes it", "备份作业"),
    TEXT(BackupInput, folder, STATUS, 1000, "Where it goes", "备份位置"),
    { 0 }
};
static const Route routes[] = {
    { HTTP_POST, "/lathe/v1/backups", ROUTE_SYSTEM, "backups.create", serve_create,
      .body_max = 65536, .input = folder_input, .input_size = sizeof(BackupInput),
      .output = create_output, .errors = "202",
      .en = "Take a backup of the running server, as a job", .zh = "备份运行中的服务器（作业）" },
    { HTTP_GET, "/lathe/v1/backups", ROUTE_SYSTEM, "backups.read", serve_list,
      .query = folder_input, .en = "Backups in a folder, newest first", .zh = "目录中的备份（新的在前）" },
    { 0 }
};
// clang-format on

// ---- by itself

static Worker *clockwork, *archiver;

static err due_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(backup_last, "SELECT COALESCE(MAX(created_ms), 0), COALESCE(SUM(CASE WHEN state IN "
                            "('waiting', 'running') THEN 1 ELSE 0 END), 0) FROM job WHERE kind = "
                            "'backup.take'");
    static SQL(default_project,
               "SELECT id FROM projects WHERE name = 'default' ORDER BY id LIMIT 1");
    Ask *a = arg;
    Rows *rows;
    bool more;
    TRY(db_one(c, tx, &rows, &backup_last, NULL, 0));
    if (col_int(rows, 1) || tx_now_ms(tx) - col_int(rows, 0) < a->every_ms) return ERR_OK;
    TRY(db_query(c, tx, &default_project, NULL, 0, &rows));
    TRY(rows_next(c, rows, &more));
    if (more) a->project = col_str(rows, 0); // where an administrator's calls look for jobs
    rows_close(rows);
    return ask_tx(c, tx, a);
}

static err turn(Ctx *c, void *arg) {
    (void)arg;
    int64_t every = setting_int(&backup_settings[BACKUP_EVERY]);
    Ask a = { .every_ms = every };
    if (!every || !setting_text(&backup_settings[BACKUP_FOLDER]).n) return ERR_OK;
    TRY(folder_of(c, (str){ 0 }, &a.folder));
    return db_tx(c, c->db, due_tx, &a);
}

err archive_ask(Ctx *c) {
    Ask a = { 0 };
    TRY(folder_of(c, (str){ 0 }, &a.folder));
    return db_tx(c, c->db, due_tx, &a);
}

static err trim(Ctx *c, int64_t before_ms, int64_t *out_removed) {
    str folder;
    Store s;
    int64_t steps_ms = os_wall_ms(c->os) - setting_int(&backup_settings[BACKUP_KEEP_STEPS]);
    TrimBefore before = { before_ms, steps_ms };
    *out_removed = 0;
    if (!setting_text(&backup_settings[BACKUP_FOLDER]).n) return ERR_OK;
    TRY(folder_of(c, (str){ 0 }, &folder));
    archive_lock();
    err e = store_open(c, folder, true, &s);
    if (!e) e = points_trim(c, &s, &before, out_removed);
    store_close(&s);
    archive_unlock();
    return e == ERR_CONFLICT ? ERR_OK : e; // a backup is being taken: the next hour's turn
}

enum { LOOK_EVERY_MS = 60000, LOOK_SOON_MS = 1000 };

static err init(Ctx *c) {
    backup_of(app_of(c));
    return ERR_OK;
}

static err start(Ctx *c) {
    int64_t every = setting_int(&backup_settings[BACKUP_EVERY]);
    clockwork =
        worker_start(app_of(c), "backup",
                     every && every < LOOK_EVERY_MS ? LOOK_SOON_MS : LOOK_EVERY_MS, turn, NULL);
    int64_t step = setting_int(&backup_settings[BACKUP_STEP]);
    if (db_kind(c->db) == DB_SQLITE && c->os == os_real())
        archiver =
            worker_start(app_of(c), "archive", step && step < LOOK_SOON_MS ? step : LOOK_SOON_MS,
                         archive_turn, NULL);
    return ERR_OK;
}

static void stop(void *app) {
    (void)app;
    worker_free(clockwork);
    worker_free(archiver);
    clockwork = archiver = NULL;
    archive_end();
}

static const JobKind *const kinds[] = { &backup_kind, NULL };
static const Retention retentions[] = { { "backups", &backup_settings[BACKUP_KEEP], trim,
                                          "Backups in backup.folder", "backup.folder 中的备份" },
                                        { 0 } };
const Module backup_module = {
    .name = "backup",
    .needs = "usage",
    .routes = routes,
    .settings = backup_settings,
    .metrics = metrics,
    .events = events,
    .jobs = kinds,
    .reasons = backup_reasons,
    .verbs = backup_verbs,
    .retentions = retentions,
    .init = init,
    .database = restore_told,
    .start = start,
    .stop = stop,
    .en = "Backups of a running server, and new servers out of them",
    .zh = "运行中服务器的备份与恢复",
};
