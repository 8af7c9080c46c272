// SPDX-License-Identifier: Apache-2.0
// backup_own.h - private to backup: the folder of a backup, and what is written and read there.
// Owner: a Store is closed by who opened it; texts of a Point are in the arena of the call.
// Threads: one at a time a Store; a backup locks its folder.
#ifndef LATHE_MOD_BACKUP_OWN_H
#define LATHE_MOD_BACKUP_OWN_H
#include "db/copy.h"
#include "mod/backup/backup.h"
#include "res/app.h"

enum { PIECE_BYTES = 256 << 10, MANIFEST_MAX = 64 << 20, MISSING_MAX = 1000 };

// ---- store.c: DIR/lathe-backup (what this is), DIR/blob (objects and pieces of files by content),
// DIR/point/TIME-SHA256.json (one manifest for each backup, written last)
typedef struct Store {
    str dir;
    Blobs *objects;
    File *lock;       // NULL: opened for reading
    const char *kind; // of its manifests: NULL: "point"; "log": steps between points
} Store;
typedef struct Part { // a file of the data folder, in pieces
    str name;         // below the data folder: "lathe.db"
    str sha256;       // of the whole
    int64_t size;
    str *pieces;
    size_t pieces_n;
} Part;
typedef struct Point {
    str id; // its file's name without ".json"
    str node, job, master_key, database, version;
    str schema; // of PostgreSQL: where its tables lie
    int server_major;
    str run;                   // of steps that begin where this one was taken; absent: none do
    int64_t seq;               // a step's own number; of a point: the first that comes after it
    int64_t page_bytes, pages; // of a step: the whole database's
    int64_t taken_ms;          // all that was acknowledged before it is in
    int64_t ended_ms;
    Part *parts;
    size_t parts_n;
    int64_t objects, objects_bytes; // listed by the part OBJECTS_PART
    str *missing;                   // objects that rows name and that were gone or damaged
    size_t missing_n;
} Point;
#define OBJECTS_PART "objects" // a line each: digest, blank, size
typedef struct Work {          // what a long call says of itself
    void (*fn)(void *arg, int64_t done_bytes, int64_t total_bytes);
    void *arg;
    int64_t done, total, copied; // bytes; copied: that the store did not have
} Work;

// make: the folder is made, or must be empty or a backup, and is locked; else it must be one.
err store_open(Ctx *c, str dir, bool make, Store *out);
void store_close(Store *s); // after a failed open too
err store_put(Ctx *c, Store *s, str bytes, Work *w, char out_hex[BLOB_DIGEST_HEX + 1]);
// The first `size` bytes of the file.
err store_put_file(Ctx *c, Store *s, File *f, int64_t size, Work *w, Part *out);
err store_put_text(Ctx *c, Store *s, str bytes, Work *w, Part *out);
err store_copy_object(Ctx *c, Store *s, Blobs *from, str hex, Work *w); // as blob_open, blob_commit
err store_get_file(Ctx *c, const Store *s, const Part *p, str to, Work *w); // checked, synced
err store_get_text(Ctx *c, const Store *s, const Part *p, size_t max, str *out);
const Part *part_find(const Point *p, const char *name);
typedef struct ObjectLine {
    str hex;
    int64_t size;
} ObjectLine;
err store_objects(Ctx *c, const Store *s, const Point *p, ObjectLine **out, size_t *out_n);

// ---- point.c: manifests
err point_write(Ctx *c, Store *s, Point *p);                     // fills p->id
err point_ids(Ctx *c, const Store *s, str **out, size_t *out_n); // rising by time
err point_read(Ctx *c, const Store *s, str id, Point *out);      // its checksum holds
// The newest not after; 0: the newest.
err point_at(Ctx *c, const Store *s, int64_t at_ms, Point *out);
err point_check(Ctx *c, const Store *s, const Point *p, Work *w); // reads and hashes all of it
typedef struct TrimBefore {
    int64_t points_ms, steps_ms;
} TrimBefore;
err points_trim(Ctx *c, Store *s, const TrimBefore *before, int64_t *out_n); // the newest stays
int64_t point_id_ms(str id);                                                 // when; 0: it is no id

// ---- take.c: the job
extern const JobKind backup_kind;
#define PAGES_PART "pages"                                 // of a step: db/copy.h
err take_step(Ctx *c, Store *s, SqliteLog *log, Point *p); // one manifest of the kind "log"
void backup_of(App *app); // whose backups the job takes; before any runs
// ---- postgres.c
#define DUMP_PART "database.dump"
typedef struct PgTool {
    str folder, temp; // where to look first; a file for what a program says
    int major;        // of the server: an older program is of no use
} PgTool;
err backup_tool(Ctx *c, const char *name, const PgTool *want, str *out); // R_BACKUP_TOOL
err backup_dump(Ctx *c, const PgSnapshot *s, str folder, str to, Work *w);

// ---- archive.c: what is written between two backups of backup.folder
// A backup, a step and trimming take turns; a step does not wait for its.
void archive_lock(void);
void archive_unlock(void);
void archive_here(Ctx *c, str folder, Point *p); // locked: which steps will follow this backup
err archive_turn(Ctx *c, void *arg);             // a worker's
void archive_end(void);
err archive_ask(Ctx *c); // backup.c: a backup into backup.folder soon

// ---- restore.c
typedef struct RestorePlan {
    str from, data, key_file;
    str db_url, tools; // for a backup of PostgreSQL: an empty database, and where its programs are
    int64_t at_ms;     // 0: the newest
    Store store;
    Point point;
    Point *steps; // after it, in their order
    size_t steps_n;
    int64_t trace_segment, trace_at; // how far the point's databases of days were, if `traced`
    bool traced;
    str node; // the new one
} RestorePlan;
err restore_check(Ctx *c, RestorePlan *p, Work *w); // nothing is written
err restore_run(Ctx *c, RestorePlan *p, Work *w);
err restore_database_check(Ctx *c, RestorePlan *p); // postgres.c: empty, of our schema's name
err restore_database(Ctx *c, const RestorePlan *p, Db *db, str dump, Work *w); // all or nothing
err restore_told(Ctx *c); // at a server's start: says once that it came from a backup

extern const Setting backup_settings[];
enum { BACKUP_FOLDER, BACKUP_EVERY, BACKUP_KEEP, BACKUP_PROGRAMS, BACKUP_STEP, BACKUP_KEEP_STEPS };
extern const EventKind backup_taken;
str backup_time(int64_t ms, char out[32]);
err backup_points_json(Ctx *c, str folder, Buf *out); // as GET /lathe/v1/backups answers
extern const CliVerb backup_verbs[];
extern const Metric metric_backup_last, metric_backup_bytes;

// clang-format off
#define BACKUP_REASONS(X)                                                                         \
    X(BACKUP_FOLDER, "not_a_backup", "{path} is not a backup: {why}", "{path} 不是备份：{why}")   \
    X(BACKUP_BAD, "backup_damaged", "{what} of the backup {path} is damaged: {why}",              \
      "备份 {path} 的 {what} 已损坏：{why}")                                                      \
    X(BACKUP_NONE, "no_backup_then", "{path} holds no backup taken at or before {time}",          \
      "{path} 中没有 {time} 或之前的备份")                                                        \
    X(BACKUP_TARGET, "restore_target", "{path} {why}: restore into an empty folder",              \
      "{path} {why}：请恢复到空目录")                                                             \
    X(BACKUP_KEY, "master_key_differs",                                                           \
      "the backup's secrets are sealed with master key {want}, and {source}: nothing was written", \
      "备份的机密由主密钥 {want} 密封，而{source}；未写入任何内容")                               \
    X(BACKUP_DATABASE, "backup_database", "{why}", "{why}")                                       \
    X(BACKUP_TOOL, "no_postgres_program",                                                         \
      "{program} of PostgreSQL {version} or later is not on this machine: install it "            \
      "(postgresql-client-{version}), or name its folder in backup.postgres_programs",            \
      "本机没有 PostgreSQL {version} 或更高版本的 {program}：请安装 "                             \
      "postgresql-client-{version}，或用 backup.postgres_programs 指定其目录")                    \
    X(BACKUP_TOOL_FAILED, "postgres_program_failed", "{program}: {why}", "{program}：{why}")      \
    X(BACKUP_SCHEMA, "backup_schema",                                                             \
      "the backup's tables lie in schema {want}, and the database named by --db is looked into "  \
      "at {got}: make that schema and end the address with ?options=-csearch_path%3D{want}",      \
      "备份的表位于模式 {want}，而 --db 指向的模式为 {got}：请创建该模式，并在地址末尾加上 "      \
      "?options=-csearch_path%3D{want}")                                                          \
    X(BACKUP_MOVED, "backup_again", "the journal moved on too fast; it is tried again",           \
      "日志推进过快，稍后重试")                                                                   \
    X(BACKUP_PATH, "backup_path",                                                                 \
      "{field} is {path}: the folder of a backup is an absolute path, and lies outside the data " \
      "folder", "{field} 为 {path}：备份目录须为绝对路径，且位于数据目录之外")
// clang-format on
REASONS_DECLARE(BACKUP_REASONS)
#endif
