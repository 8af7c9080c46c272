// SPDX-License-Identifier: Apache-2.0
// retain_view.c - what is kept, for how long, how much of it there is, and what goes with the next
// run. Figures that would take longer than a read may are null rather than late.
// Owner: the reply. Threads: pool.
#include "base/id.h"
#include "base/time.h"
#include "os/file.h"
#include "res/kit.h"
#include "res/retain.h"

enum { COUNT_MAX = 100000, DAY_MS = 86400000 };
typedef struct Place { // where a Retention row's data lies
    const char *name, *table, *column;
    int64_t unit_ms;  // of the column
    const char *also; // in the WHERE; "" none
    bool days;        // with SQLite also in the databases of days
    const char *ids;  // prefix of the identifiers by whose time it goes; NULL: by the column
} Place;
static const Place places[] = {
    { "jobs", "job", "ended_ms", 1, " AND ended_ms > 0", false, NULL },
    { "idempotency", "idempotency", "at_ms", 1, "", false, NULL },
    { "model_uploads", "model_uploads", "created_at", 1, "", false, NULL },
    { "usage", "usage", "created_at", 1, "", false, "attempt" },
    { "traces", "traces", "created_at", 1, "", true, NULL },
    { "rollups", "rollups", "minute", 60000, "", false, NULL },
    { "content", "trace_content", "at", 1, "", false, NULL },
};

typedef struct Look {
    const Place *p;
    int64_t before, value; // before: in the column's unit
    const char *what;      // one number of the table
    bool any;
} Look;

static const Place *place_of(const Retention *r) {
    for (size_t i = 0; i < countof(places); i++)
        if (!strcmp(places[i].name, r->name)) return &places[i];
    return NULL;
}

static err look_tx(Ctx *c, Tx *tx, void *arg) {
    Look *l = arg;
    Sql *sql = new (c->mem, Sql, 1);
    *sql = (Sql){ "retain_look", l->what, NULL };
    Rows *rows;
    TRY(db_one(c, tx, &rows, sql, NULL, 0));
    l->any = !col_null(rows, 0);
    l->value = l->any ? col_int(rows, 0) : 0;
    return ERR_OK;
}

// False: there is none, or it took too long.
static bool look(Ctx *c, Look *l, const char *sql) {
    Failure before = c->failure;
    l->what = sql;
    err e = db_read(c, c->db, look_tx, l);
    c->failure = before;
    return !e && l->any;
}

static void put(Json *j, const char *key, bool any, int64_t n) {
    json_key(j, key);
    if (any) json_put_i64(j, n);
    else json_put_null(j);
}

static void put_time(Json *j, const char *key, int64_t ms) {
    char text[TIME_TEXT];
    json_kv_str(j, key, ms ? time_format(ms, text) : (str){ 0 });
}

// Files of the days, oldest first; their bytes and the first day.
static void write_days(Ctx *c, Json *j) {
    str *names, folder = arena_printf(c->mem, STR_FMT "/telemetry", STR_ARG(app_of(c)->data_dir));
    size_t n, days = 0;
    int64_t bytes = 0;
    str oldest = { 0 };
    Failure before = c->failure;
    if (dir_list(c, folder, &names, &n)) n = 0;
    for (size_t i = 0; i < n; i++) {
        PathInfo info;
        if (!path_info(
                c, arena_printf(c->mem, STR_FMT "/" STR_FMT, STR_ARG(folder), STR_ARG(names[i])),
                &info))
            bytes += info.size;
        if (!str_ends(names[i], S(".db"))) continue;
        if (!days++ && names[i].n > 13) oldest = str_sub(names[i], names[i].n - 13, 10);
    }
    c->failure = before;
    put(j, "days", true, (int64_t)days), put(j, "days_bytes", true, bytes);
    json_kv_str(j, "oldest_day", oldest);
}

static const char *bytes_sql(Ctx *c, const Place *p, bool pg) {
    if (!pg)
        return say(c, "SELECT SUM(pgsize) FROM dbstat WHERE name = '%s' AND aggregate = 1",
                   p->table);
    return say(c,
               "SELECT CAST(pg_total_relation_size('%s') + COALESCE((SELECT "
               "SUM(pg_total_relation_size(relid)) FROM pg_partition_tree('%s') WHERE isleaf), 0) "
               "AS BIGINT)",
               p->table, p->table);
}

// What trim would remove, by the same bound. Where days are kept apart they go whole.
static const char *due_where(Ctx *c, const Place *p, int64_t before_ms) {
    static const uint8_t least[10];
    if (p->days && db_kind(c->db) == DB_POSTGRES) before_ms = time_day(before_ms) * DAY_MS;
    if (!p->ids) return say(c, "%s < %lld", p->column, (long long)(before_ms / p->unit_ms));
    return say(c, "id < '" STR_FMT "'", STR_ARG(id_format(c->mem, p->ids, before_ms, least)));
}

static void write_table(Ctx *c, Json *j, const Place *p, int64_t before_ms) {
    Look l = { .p = p };
    bool pg = db_kind(c->db) == DB_POSTGRES;
    const char *from = say(c, "FROM %s WHERE %s >= 0%s", p->table, p->column, p->also);
    bool any =
        look(c, &l, say(c, "SELECT COUNT(*) FROM (SELECT 1 %s LIMIT %d) t", from, COUNT_MAX));
    put(j, "rows", any, l.value);
    json_kv_bool(j, "rows_more", any && l.value == COUNT_MAX);
    any = before_ms > 0
          && look(c, &l,
                  say(c, "SELECT COUNT(*) FROM (SELECT 1 %s AND %s LIMIT %d) t", from,
                      due_where(c, p, before_ms), COUNT_MAX));
    put(j, "due", any, l.value);
    any = look(c, &l, bytes_sql(c, p, pg));
    put(j, "bytes", any, l.value);
    any = look(c, &l, say(c, "SELECT MIN(%s) %s", p->column, from));
    put_time(j, "oldest", any ? l.value * p->unit_ms : 0);
    if (p->days && !pg) write_days(c, j);
}

static void write_one(Ctx *c, Json *j, const Retention *r) {
    int64_t keep_ms = setting_int(r->setting), now_ms = os_wall_ms(c->os);
    int64_t before_ms = keep_ms ? now_ms - keep_ms : 0;
    const Place *p = place_of(r);
    Retained last = retain_last(r);
    json_obj(j);
    json_kv_z(j, "name", r->name), json_kv_z(j, "setting", r->setting->name);
    json_kv_str(j, "keep", keep_ms ? span_format(c->mem, keep_ms) : S("for ever"));
    if (p) write_table(c, j, p, before_ms);
    put_time(j, "before", before_ms > 0 ? before_ms : 0); // what is older goes
    put_time(j, "last_run", last.at_ms);
    put_time(j, "next_run", last.at_ms ? last.at_ms + RETAIN_EVERY_MS : 0);
    json_kv_i64(j, "removed", last.removed);
    json_kv_z(j, "doc", strcmp(c->lang, "zh") ? r->en : r->zh);
    json_end_obj(j);
}

err retain_serve(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    (void)r, (void)body;
    Json j = json_to(&out->body);
    json_obj(&j), json_key(&j, "data"), json_arr(&j);
    for (const Module *const *m = app_of(c)->modules; *m; m++)
        for (const Retention *one = (*m)->retentions; one && one->name; one++)
            write_one(c, &j, one);
    json_end_arr(&j), json_end_obj(&j);
    return ERR_OK;
}
