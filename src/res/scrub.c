// SPDX-License-Identifier: Apache-2.0
// scrub.c - see scrub.h. A scrub walks the 256 folders of objects and notes how far it is, so that
// one that was interrupted goes on. What is found is first written down, then taken out of
// the way: a crash between finds it again. Owner: rows of the database; texts in the call's arena.
// Threads: job workers, one worker, pool.
#include "res/objects.h"
#include "res/scrub.h"
#include "base/time.h"
#include "blob/store.h"
#include "os/terminal.h"
#include "res/collect.h"
#include "res/worker.h"
#include <assert.h>
#include <stdio.h>

enum { FOLDERS = 256, PAUSE_MS = 50, LOOK_MS = 60000 };
typedef enum { SEEN_ROTTEN, SEEN_ABSENT } Seen;
static const char *const seen_names[] = { "rotten", "absent", NULL };

typedef struct DamageUser {
    str kind, id, name, org, project;
} DamageUser;
typedef struct Damage {
    Head head;
    str digest;
    int seen;
    int64_t size_bytes, found_at;
    DamageUser *users;
    size_t users_n;
} Damage;

// clang-format off
static const Field user_rows[] = {
    TEXT(DamageUser, kind, STATUS, 100, "Kind of the row", "记录类型"),
    ROW(DamageUser, id, T_ID, STATUS, "Its id", "标识"),
    TEXT(DamageUser, name, STATUS, 200, "Its name, where it has one", "名称"),
    ROW(DamageUser, org, T_ID, STATUS, "Organisation", "组织"),
    ROW(DamageUser, project, T_ID, STATUS, "Project", "项目"),
    { 0 }
};
static const Field damage_rows[] = {
    TEXT(Damage, digest, STATUS | COLUMN | UNIQUE, BLOB_DIGEST_HEX, "SHA-256 that it must have",
        "应有的 SHA-256"),
    ENUM(Damage, seen, STATUS | COLUMN, seen_names, "rotten: its bytes changed; absent: it is gone",
        "rotten：内容已变；absent：对象缺失"),
    INT(Damage, size_bytes, STATUS | COLUMN, 0, INT64_MAX, "Bytes on the disk", "磁盘上的字节数"),
    ROW(Damage, found_at, T_TIME, STATUS | COLUMN, "When it was found", "发现时间"),
    LIST(Damage, users, DamageUser, STATUS, user_rows, 0, 100,
        "What it affects: rows that name it", "受影响的记录"),
    { 0 }
};
const Resource damaged_object_resource = {
    .name = "damaged_object", .plural = "damaged_objects", .prefix = "damage",
    .scope = SCOPE_SYSTEM, .flags = RES_UNNAMED | RES_NO_CREATE | RES_NO_UPDATE | RES_NO_DELETE,
    .size = sizeof(Damage), .fields = damage_rows,
    .en = "An object that is not what its name says; the same content, stored again, mends it",
    .zh = "内容与摘要不符或缺失的对象；重新存入相同内容即可修复",
};
const char scrub_tables[] =
    "CREATE TABLE damaged_objects (id TEXT PRIMARY KEY, digest TEXT NOT NULL, seen TEXT, "
    "size_bytes BIGINT, found_at BIGINT, users TEXT, revision BIGINT NOT NULL, created_at BIGINT "
    "NOT NULL, updated_at BIGINT NOT NULL, created_by TEXT); "
    "CREATE UNIQUE INDEX damaged_objects_digest ON damaged_objects (digest); "
    "CREATE TABLE blob_scrub (one BIGINT PRIMARY KEY, due_ms BIGINT NOT NULL, started_ms BIGINT "
    "NOT NULL, ended_ms BIGINT NOT NULL, objects BIGINT NOT NULL, bytes BIGINT NOT NULL, damaged "
    "BIGINT NOT NULL);";
static const Metric metric_damaged = { "lathe.blob.damaged", "{object}", METRIC_GAUGE, { NULL },
    NULL, "Objects known to be damaged or gone", "已知损坏或缺失的对象数" };
static const Metric metric_scrubbed = { "lathe.blob.scrub.io", "By", METRIC_COUNTER, { NULL }, NULL,
    "Bytes of objects read and compared with their digests", "已校验的对象字节数" };
const Metric *const scrub_metrics[] = { &metric_damaged, &metric_scrubbed, &metric_cache,
    &metric_fetched, NULL };
// clang-format on

static App *program; // set once, before anything is served

// ---- what is known to be damaged

typedef struct Found {
    str digest;
    Seen seen;
    int64_t size;
    bool busy, unused; // a job works on a row that names it; no row does
} Found;

static err read_users(Ctx *c, Tx *tx, Found *f, Damage *d) {
    static SQL(job_of_subject, "SELECT 1 FROM job WHERE subject = $1 AND state IN ('waiting', "
                               "'running') LIMIT 1");
    CollectUser *users;
    Rows *rows;
    TRY(collect_users(c, tx, f->digest, &users, &d->users_n));
    d->users = new (c->mem, DamageUser, d->users_n + 1);
    for (size_t i = 0; i < d->users_n; i++) {
        const CollectUser *u = &users[i];
        d->users[i] = (DamageUser){ str_z(u->r->name), u->id, u->name, u->org, u->project };
        bool more;
        TRY(db_ask(c, tx, &rows, &job_of_subject, V(u->id)));
        TRY(rows_next(c, rows, &more));
        rows_close(rows);
        f->busy |= more;
    }
    f->unused = !d->users_n;
    return ERR_OK;
}

static err known(Ctx *c, Tx *tx, str digest, Damage *out, bool *out_any) {
    static SQL(damage_of, "SELECT id FROM damaged_objects WHERE digest = $1");
    Rows *rows;
    TRY(db_ask(c, tx, &rows, &damage_of, V(digest)));
    TRY(rows_next(c, rows, out_any));
    if (!*out_any) return ERR_OK;
    str id = arena_str(c->mem, col_str(rows, 0));
    rows_close(rows);
    return res_get(c, tx, &damaged_object_resource, id, out);
}

// One that rows have just come to name may not be there yet: its job brings it.
static err found_tx(Ctx *c, Tx *tx, void *arg) {
    Found *f = arg;
    Damage *d = new (c->mem, Damage, 1), *now = new (c->mem, Damage, 1);
    bool any;
    f->busy = false;
    TRY(known(c, tx, f->digest, d, &any));
    *now = *d;
    now->digest = f->digest, now->seen = (int)f->seen, now->size_bytes = f->size;
    TRY(read_users(c, tx, f, now));
    if (f->unused || (f->busy && f->seen == SEEN_ABSENT)) return ERR_OK;
    if (any) return res_set_status(c, tx, &damaged_object_resource, now, NULL);
    now->found_at = tx_now_ms(tx);
    return res_create(c, tx, &damaged_object_resource, now);
}

static err found(Ctx *c, Job *j, Found *f) {
    TRY(db_tx(c, c->db, found_tx, f));
    if (f->seen == SEEN_ROTTEN) TRY(blob_quarantine(c, program->blobs, f->digest));
    if (f->busy && f->seen == SEEN_ABSENT) return ERR_OK;
    job_say(j, "object " STR_FMT " is %s%s", STR_ARG(f->digest), seen_names[f->seen],
            f->unused ? ", and nothing needs it" : ": see `lathe damaged_object list`");
    return ERR_OK;
}

typedef struct List {
    Damage *at;
    size_t n;
} List;
static err list_tx(Ctx *c, Tx *tx, void *arg) {
    List *l = arg;
    ListPage page;
    ListSpec spec = { .limit = LIST_MAX };
    TRY(res_list(c, tx, &damaged_object_resource, &spec, &page));
    l->at = page.rows, l->n = page.n;
    return ERR_OK;
}
static err each_damaged(Ctx *c, Damage **out, size_t *out_n) {
    List l;
    TRY(db_read(c, c->db, list_tx, &l));
    *out = l.at, *out_n = l.n;
    metric_set(&metric_damaged, (double)l.n);
    return ERR_OK;
}

static err unused_tx(Ctx *c, Tx *tx, void *arg) {
    Found *f = arg;
    Damage d = { 0 };
    return read_users(c, tx, f, &d);
}
static err mended_tx(Ctx *c, Tx *tx, void *arg) {
    return res_delete(c, tx, &damaged_object_resource, arg);
}

// What was stored again, and what nobody needs any more, leaves the list.
static err mend(Ctx *c) {
    Damage *all;
    size_t n;
    TRY(each_damaged(c, &all, &n));
    for (size_t i = 0; i < n; i++) {
        Found f = { .digest = all[i].digest };
        TRY(db_read(c, c->db, unused_tx, &f));
        err e = f.unused ? ERR_OK : blob_verify(c, program->blobs, f.digest);
        if (e == ERR_NOTFOUND || e == ERR_INTERNAL) continue;
        TRY(e);
        TRY(blob_rotten_remove(c, program->blobs, f.digest));
        TRY(db_tx(c, c->db, mended_tx, &all[i]));
    }
    return n ? each_damaged(c, &all, &n) : ERR_OK;
}

// ---- a scrub

typedef struct Scrub {
    Ctx *c;
    Job *job;
    int64_t folder, objects, bytes, damaged, started_ms; // the checkpoint
    int64_t begun_ns, paced, last;                       // bytes of this attempt, of this object
} Scrub;

// Waits until the bytes so far have taken as long as the rate says. Cancelled: the reader looks.
static void pace(void *arg, int64_t done, int64_t total) {
    Scrub *s = arg;
    int64_t rate = setting_int(&blob_settings[BLOB_SCRUB_RATE]), ahead_ms;
    (void)total;
    s->paced += done - s->last, s->last = done;
    do {
        int64_t took_ms = (os_mono_ns(s->c->os) - s->begun_ns) / 1000000;
        ahead_ms = s->paced / ((rate + 999) / 1000) - took_ms;
        if (ahead_ms > 0) os_pause_ms(ahead_ms < PAUSE_MS ? ahead_ms : PAUSE_MS);
    } while (ahead_ms > PAUSE_MS && !ctx_cancelled(s->c));
}

static err scrub_object(Scrub *s, str hex) {
    Ctx *c = s->c;
    int64_t size;
    BlobProgress progress = { pace, s };
    err e = blob_find(c, program->blobs, hex, &size);
    if (e) return e == ERR_NOTFOUND ? ERR_OK : e; // removed just now
    s->last = 0;
    e = blob_verify_slowly(c, program->blobs, hex, &progress);
    if (e == ERR_INTERNAL) e = blob_verify(c, program->blobs, hex); // not a slip of one reading
    if (e == ERR_NOTFOUND) return ERR_OK;
    s->objects++, s->bytes += size;
    metric_add(&metric_scrubbed, (double)size);
    job_progress(s->job, s->folder, FOLDERS, "folders");
    if (e != ERR_INTERNAL) return e;
    s->damaged++;
    return found(c, s->job, &(Found){ .digest = hex, .seen = SEEN_ROTTEN, .size = size });
}

static err save(Scrub *s) {
    char text[200];
    int n = snprintf(text, sizeof text,
                     "{\"folder\":%lld,\"objects\":%lld,\"bytes\":%lld,\"damaged\":%lld,"
                     "\"started\":%lld}",
                     (long long)s->folder, (long long)s->objects, (long long)s->bytes,
                     (long long)s->damaged, (long long)s->started_ms);
    return job_save(s->c, s->job, str_n(text, (size_t)n));
}

static err scrub_folders(Scrub *s) {
    Ctx *c = s->c;
    for (; s->folder < FOLDERS; s->folder++) {
        ArenaMark mark = arena_mark(c->mem);
        char prefix[3];
        str *names;
        size_t n;
        snprintf(prefix, sizeof prefix, "%02x", (unsigned)s->folder);
        TRY(blob_list(c, program->blobs, str_n(prefix, 2), &names, &n));
        if (n) TRY(save(s));
        for (size_t i = 0; i < n; i++) TRY(scrub_object(s, names[i]));
        arena_restore(c->mem, mark);
        TRY(ctx_check(c));
    }
    return save(s);
}

typedef struct Live {
    str *at;
    size_t n;
} Live;
static err live_tx(Ctx *c, Tx *tx, void *arg) {
    Live *l = arg;
    return collect_live(c, tx, &l->at, &l->n);
}

static err scrub_absent(Scrub *s) {
    Ctx *c = s->c;
    Live l;
    TRY(db_read(c, c->db, live_tx, &l));
    for (size_t i = 0; i < l.n; i++) {
        err e = blob_find(c, program->blobs, l.at[i], NULL);
        if (e && e != ERR_NOTFOUND) return e;
        if (!e) continue;
        Found f = { .digest = l.at[i], .seen = SEEN_ABSENT };
        bool known_rotten;
        TRY(blob_rotten(c, program->blobs, l.at[i], &known_rotten));
        if (known_rotten) continue;
        TRY(found(c, s->job, &f));
        s->damaged += !f.busy && !f.unused;
    }
    return ERR_OK;
}

static err ended_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(scrub_ended, "UPDATE blob_scrub SET started_ms = $1, ended_ms = $2, objects = $3, "
                            "bytes = $4, damaged = $5 WHERE one = 1");
    const Scrub *s = arg;
    TRY(job_guard(c, tx, s->job));
    return db_run(c, tx, &scrub_ended, V(s->started_ms), V(tx_now_ms(tx)), V(s->objects),
                  V(s->bytes), V(s->damaged));
}

static err run(Ctx *c, Job *j) {
    Scrub s = { .c = c, .job = j, .started_ms = os_wall_ms(c->os), .begun_ns = os_mono_ns(c->os) };
    yyjson_val *v;
    if (job_checkpoint(j).n) {
        TRY(json_parse(c, job_checkpoint(j), &v));
        json_get_i64(v, "folder", &s.folder), json_get_i64(v, "objects", &s.objects);
        json_get_i64(v, "bytes", &s.bytes), json_get_i64(v, "damaged", &s.damaged);
        json_get_i64(v, "started", &s.started_ms);
    }
    int64_t swept = 0;
    if (blobs_remote(program->blobs)) TRY(blobs_s3_sweep(c, program->blobs, &swept));
    if (swept) job_say(j, "%lld uploads that nobody finished are removed", (long long)swept);
    TRY(scrub_folders(&s));
    TRY(scrub_absent(&s));
    TRY(mend(c));
    job_say(j, "%lld objects of %lld bytes read, %lld damaged or absent", (long long)s.objects,
            (long long)s.bytes, (long long)s.damaged);
    job_result(j, arena_printf(c->mem, "{\"objects\":%lld,\"bytes\":%lld,\"damaged\":%lld}",
                               (long long)s.objects, (long long)s.bytes, (long long)s.damaged));
    return db_tx(c, c->db, ended_tx, &s);
}

const JobKind scrub_kind = {
    .name = "blob.scrub",
    .run = run,
    .attempts_max = 100, // each restart of the server is one
    .parallel_max = 1,
    .en = "Read all objects and compare each with its digest",
    .zh = "读取全部对象并与摘要比对",
};

// ---- when

typedef struct Ask {
    str project, job;
    bool by_clock;
} Ask;

static err state_row(Ctx *c, Tx *tx, Rows **out) {
    static SQL(scrub_begin, "INSERT INTO blob_scrub (one, due_ms, started_ms, ended_ms, objects, "
                            "bytes, damaged) VALUES (1, $1, 0, 0, 0, 0, 0) ON CONFLICT (one) DO "
                            "NOTHING");
    static SQL(scrub_state, "SELECT due_ms, started_ms, ended_ms, objects, bytes, damaged FROM "
                            "blob_scrub WHERE one = 1");
    TRY(db_run(c, tx, &scrub_begin,
               V(tx_now_ms(tx) + setting_int(&blob_settings[BLOB_SCRUB_EVERY]))));
    return db_one(c, tx, out, &scrub_state, NULL, 0);
}

static err ask_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(scrub_due, "UPDATE blob_scrub SET due_ms = $1 WHERE one = 1");
    static SQL(scrub_under_way, "SELECT id FROM job WHERE kind = 'blob.scrub' AND state IN "
                                "('waiting', 'running') ORDER BY id LIMIT 1");
    Ask *a = arg;
    Rows *rows;
    bool more;
    TRY(state_row(c, tx, &rows));
    if (a->by_clock && col_int(rows, 0) > tx_now_ms(tx)) return ERR_OK;
    TRY(db_run(c, tx, &scrub_due,
               V(tx_now_ms(tx) + setting_int(&blob_settings[BLOB_SCRUB_EVERY]))));
    TRY(db_query(c, tx, &scrub_under_way, NULL, 0, &rows));
    TRY(rows_next(c, rows, &more));
    a->job = more ? arena_str(c->mem, col_str(rows, 0)) : (str){ 0 };
    rows_close(rows);
    if (more) return ERR_OK;
    JobSpec spec = { .kind = scrub_kind.name,
                     .project = a->project,
                     .payload = S("{}"),
                     .created_by = c->who ? c->who->id : (str){ 0 } };
    TRY(job_add(c, tx, &spec, &a->job));
    tx_notify(tx, jobs_wake, program->jobs);
    AuditEntry entry = {
        "create", "scrub", a->job, { 0 }, S("scrubs.create"), S("{}"), SCOPE_SYSTEM
    };
    return program->audit && !a->by_clock ? program->audit(c, tx, &entry) : ERR_OK;
}

// An idle server writes nothing to learn that there is nothing to do.
static err due_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(scrub_look, "SELECT COALESCE((SELECT due_ms FROM blob_scrub WHERE one = 1), 0), "
                           "(SELECT COUNT(*) FROM damaged_objects)");
    Rows *rows;
    TRY(db_one(c, tx, &rows, &scrub_look, NULL, 0));
    *(bool *)arg = col_int(rows, 1) || col_int(rows, 0) <= tx_now_ms(tx);
    return ERR_OK;
}

static Worker *watcher;
static err turn(Ctx *c, void *arg) {
    Lease lease;
    Ask a = { .by_clock = true };
    bool due;
    (void)arg;
    TRY(db_read(c, c->db, due_tx, &due));
    if (!due) return ERR_OK;
    err e = lease_take(c, c->db, S("blob.watch"), program->node, LOOK_MS / 2, &lease);
    if (e) return e == ERR_CONFLICT ? ERR_OK : e; // another node does it
    TRY(mend(c));
    return setting_int(&blob_settings[BLOB_SCRUB_EVERY]) ? db_tx(c, c->db, ask_tx, &a) : ERR_OK;
}

// ---- routes

static err serve_start(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    Ask a = { .project = c->project };
    (void)r, (void)body;
    TRY(db_tx(c, c->db, ask_tx, &a));
    out->status = 202;
    Json j = json_to(&out->body);
    json_obj(&j), json_kv_str(&j, "job", a.job), json_end_obj(&j);
    return ERR_OK;
}

typedef struct State {
    int64_t due_at, started_at, ended_at, objects, bytes, damaged, known;
} State;
static err state_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(damage_count, "SELECT COUNT(*) FROM damaged_objects");
    State *s = arg;
    Rows *rows;
    TRY(state_row(c, tx, &rows));
    s->due_at = col_int(rows, 0), s->started_at = col_int(rows, 1), s->ended_at = col_int(rows, 2);
    s->objects = col_int(rows, 3), s->bytes = col_int(rows, 4), s->damaged = col_int(rows, 5);
    TRY(db_one(c, tx, &rows, &damage_count, NULL, 0));
    s->known = col_int(rows, 0);
    return ERR_OK;
}

// clang-format off
static const Field state_rows[] = {
    ROW(State, due_at, T_TIME, STATUS, "When the next one begins", "下次开始时间"),
    ROW(State, started_at, T_TIME, STATUS, "When the last one that ended began", "上次开始时间"),
    ROW(State, ended_at, T_TIME, STATUS, "When it ended", "上次结束时间"),
    INT(State, objects, STATUS, 0, INT64_MAX, "Objects that it read", "校验的对象数"),
    INT(State, bytes, STATUS, 0, INT64_MAX, "Bytes that it read", "校验的字节数"),
    INT(State, damaged, STATUS, 0, INT64_MAX, "Of them damaged or absent", "其中损坏或缺失"),
    INT(State, known, STATUS, 0, INT64_MAX, "Objects that are damaged or absent now",
        "当前损坏或缺失的对象数"),
    { 0 }
};
static const Field start_output[] = {
    ROW(Ask, job, T_ID, STATUS, "Its job", "作业"),
    { 0 }
};
// clang-format on

static err serve_state(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    State s;
    (void)r, (void)body;
    TRY(db_tx(c, c->db, state_tx, &s));
    Json j = json_to(&out->body);
    json_obj(&j), fields_write(state_rows, &s, &j, SHOW_API), json_end_obj(&j);
    return ERR_OK;
}

// clang-format off
const Route scrub_routes[] = {
    { HTTP_POST, "/lathe/v1/scrubs", ROUTE_SYSTEM, "scrubs.create", serve_start, .body_max = 1024,
      .output = start_output, .cli = "scrub start", .errors = "202",
      .en = "Read all objects and compare each with its digest, as a job",
      .zh = "校验全部对象（作业）" },
    { HTTP_GET, "/lathe/v1/scrubs", ROUTE_SYSTEM, "scrubs.read", serve_state,
      .output = state_rows, .cli = "scrub status",
      .en = "When objects were read last, when they will be, and what is damaged",
      .zh = "上次与下次校验时间及损坏情况" },
    { HTTP_POST, "/lathe/v1/object_moves", ROUTE_SYSTEM, "objects.move", objects_move_serve,
      .body_max = 1024, .output = objects_move_output, .cli = "object move", .errors = "202",
      .en = "Move all objects to the store that blob.store names, as a job",
      .zh = "将全部对象移至 blob.store 指定的存储（作业）" },
    { HTTP_GET, "/lathe/v1/objects/{digest}", 0, "objects.download", object_serve,
      .output_type = "application/octet-stream", .errors = "206 304 416",
      .en = "The bytes of an object that a row of this project names, whole or a range",
      .zh = "本项目记录所引用对象的内容，可按范围读取" },
    { 0 }
};
// clang-format on

err scrub_init(Ctx *c) {
    program = app_of(c);
    return ERR_OK;
}

err scrub_start(Ctx *c) {
    watcher = worker_start(app_of(c), "scrub", LOOK_MS, turn, NULL);
    return ERR_OK;
}

void scrub_stop(void *app) {
    (void)app;
    worker_free(watcher);
    watcher = NULL;
}
