// SPDX-License-Identifier: Apache-2.0
// response.c - keeps answers, and gives back what was said up to one of them. Each row has its own
// request's items and its own answer alone: a conversation is read along `previous`. Threads: tasks
// begin and end on the caller's loop, their SQL is on the pool; hooks are on workers.
#include "mod/response/response_own.h"
#include "base/map.h"
#include "net/reason.h"
#include "res/trim.h"

REASONS_DEFINE(RESPONSE_REASONS, response_reasons)

struct ResponseTask {
    Ctx *c;                       // its own: the caller's may end before
    ResponseEnd to;               // done NULL: the caller has left; the loop's alone
    err (*work)(ResponseTask *t); // worker
    err e;
    ResponseRow row;   // keep
    str input, answer; // keep
    str id, owner;     // recall
    int64_t most_bytes;
    Buf items;
};

// ---- a task's way: begun on the loop, worked on the pool, ended on the loop
static void task_free(ResponseTask *t) {
    Ctx *c = t->c;
    buf_done(&t->items);
    mem_free(t);
    app_ctx_free(c);
}

static void over(void *task) {
    ResponseTask *t = task;
    if (t->to.done) t->to.done(t->to.arg, t->e, &t->c->failure, buf_str(&t->items));
    task_free(t);
}

static void work(void *task) {
    ResponseTask *t = task;
    t->e = t->work(t);
    loop_post(t->to.loop, over, t);
}

static ResponseTask *task_new(Ctx *c, const ResponseEnd *to) {
    ResponseTask *t = mem_new(sizeof *t);
    *t = (ResponseTask){ .c = app_ctx_new(app_of(c)), .to = *to };
    t->c->lang = c->lang;
    t->c->org = arena_str(t->c->mem, c->org);
    t->c->project = arena_str(t->c->mem, c->project);
    return t;
}

static err task_begin(Ctx *c, ResponseTask *t, ResponseTask **out) {
    *out = t;
    if (pool_submit(app_of(c)->pool, work, t)) return ERR_OK;
    *out = NULL;
    task_free(t);
    err e = fail(c, ERR_UNAVAILABLE, R_SERVER_BUSY, "what", "stored responses");
    c->failure.retry_after_ms = 1000;
    return e;
}

void response_leave(ResponseTask *t) { t->to.done = NULL; }

str response_new_id(Ctx *c) { return os_id(c, response_resource.prefix); }

// ---- what was said so far
typedef struct Chain {
    str ids[RESPONSE_CHAIN_MAX]; // the newest first
    size_t n;
} Chain;

static err not_kept(Ctx *c, str id) {
    return fail(c, ERR_INVALID, R_RESPONSE_PREVIOUS, "field", "previous_response_id", "id",
                say_str(c, id));
}

static err too_long(Ctx *c, int64_t limit, const char *unit) {
    return fail(c, ERR_TOOLARGE, R_RESPONSE_CHAIN, "limit",
                say(c, "%lld %s", (long long)limit, unit));
}

// The newest must be the asker's own; those before it were when they were gone on from.
static err find_chain(ResponseTask *t, Tx *tx, Chain *chain) {
    static SQL(response_chain,
               "WITH RECURSIVE chain (id, previous, size_bytes, depth) AS (SELECT id, previous, "
               "size_bytes, CAST(0 AS BIGINT) FROM responses WHERE id = $1 AND project = $2 AND "
               "owner = $3 AND expires_at > $4 UNION ALL SELECT r.id, r.previous, r.size_bytes, "
               "c.depth + 1 FROM responses r JOIN chain c ON r.id = c.previous AND r.project = $2 "
               "AND r.expires_at > $4 WHERE c.depth < $5) SELECT id, previous, size_bytes FROM "
               "chain ORDER BY depth");
    Ctx *c = t->c;
    Rows *rows;
    str next = t->id;
    int64_t bytes = 0;
    chain->n = 0;
    TRY(db_ask(c, tx, &rows, &response_chain, V(t->id), V(c->project), V(t->owner),
               V(os_wall_ms(c->os)), V(RESPONSE_CHAIN_MAX)));
    for (bool more;;) {
        TRY(rows_next(c, rows, &more));
        if (!more) break;
        if (chain->n == RESPONSE_CHAIN_MAX) return too_long(c, RESPONSE_CHAIN_MAX, "answers");
        bytes += col_int(rows, 2);
        if (bytes > t->most_bytes) return too_long(c, t->most_bytes, "bytes");
        chain->ids[chain->n++] = col_str(rows, 0);
        next = col_str(rows, 1);
    }
    return next.n ? not_kept(c, next) : ERR_OK;
}

static err read_chain(ResponseTask *t, Tx *tx, const Chain *chain) {
    static SQL(response_content_get, "SELECT input, answer FROM response_content WHERE id = $1");
    Ctx *c = t->c;
    buf_clear(&t->items);
    for (size_t i = chain->n; i-- > 0;) {
        Rows *rows;
        ArenaMark before = arena_mark(c->mem);
        TRY(db_one(c, tx, &rows, &response_content_get, (Val[]){ V(chain->ids[i]) }, 1));
        str input = col_str(rows, 0), answer = col_str(rows, 1);
        rows_close(rows);
        TRY(items_add(c, input, NULL, &t->items));
        TRY(items_add(c, answer, "output", &t->items));
        if (t->items.full) return too_long(c, t->most_bytes, "bytes");
        arena_restore(c->mem, before);
    }
    return ERR_OK;
}

static err recall_tx(Ctx *c, Tx *tx, void *task) {
    ResponseTask *t = task;
    Chain *chain = new (c->mem, Chain, 1);
    TRY(find_chain(t, tx, chain));
    return read_chain(t, tx, chain);
}

static err recall(ResponseTask *t) { return db_read(t->c, t->c->db, recall_tx, t); }

err response_recall(Ctx *c, const ResponseEnd *to, str id, int64_t most_bytes, ResponseTask **out) {
    ResponseTask *t = task_new(c, to);
    t->work = recall, t->most_bytes = most_bytes;
    t->id = arena_str(t->c->mem, id), t->owner = arena_str(t->c->mem, c->who->id);
    buf_init(&t->items, (size_t)most_bytes);
    return task_begin(c, t, out);
}

// ---- keeping one
static err keep_tx(Ctx *c, Tx *tx, void *task) {
    static SQL(response_add,
               "INSERT INTO responses (id, org, project, model, status, previous, key_id, owner, "
               "prompt_tokens, completion_tokens, size_bytes, expires_at, revision, created_at, "
               "updated_at, created_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, "
               "1, $13, $13, $8)");
    static SQL(response_content_add,
               "INSERT INTO response_content (id, project, expires_at, input, answer) VALUES ($1, "
               "$2, $3, $4, $5)");
    const ResponseTask *t = task;
    const ResponseRow *r = &t->row;
    TRY(db_run(c, tx, &response_add, V(r->head.id), V(c->org), V(c->project), V(r->model),
               V(r->status), V(r->previous), V(r->key_id), V(r->owner), V(r->prompt_tokens),
               V(r->completion_tokens), V(r->size_bytes), V(r->expires_at), V(r->head.created_at)));
    return db_run(c, tx, &response_content_add, V(r->head.id), V(c->project), V(r->expires_at),
                  V(t->input), V(t->answer));
}

static err keep(ResponseTask *t) { return db_tx(t->c, t->c->db, keep_tx, t); }

enum { INPUT_MAX = 64 << 20 }; // with what each item is given

static str items_text(Arena *mem, yyjson_val *input, str id, size_t most) {
    Buf b;
    buf_init(&b, most);
    Json j = json_to(&b);
    items_write(input, id, &j);
    str text = b.full ? (str){ 0 } : arena_str(mem, buf_str(&b));
    buf_done(&b);
    return text;
}

err response_keep(Ctx *c, const ResponseEnd *to, const ResponseRow *row, yyjson_val *input,
                  str answer, ResponseTask **out) {
    ResponseTask *t = task_new(c, to);
    Arena *mem = t->c->mem;
    str *const texts[] = { &t->row.head.id,  &t->row.model,  &t->row.status,
                           &t->row.previous, &t->row.key_id, &t->row.owner };
    t->work = keep, t->row = *row;
    for (size_t i = 0; i < countof(texts); i++)
        if (texts[i]->p) *texts[i] = arena_str(mem, *texts[i]);
    t->input = items_text(mem, input, row->head.id, INPUT_MAX);
    t->answer = arena_str(mem, answer);
    if (!t->input.p) {
        task_free(t);
        return too_long(c, INPUT_MAX, "bytes");
    }
    t->row.size_bytes = (int64_t)(t->input.n + t->answer.n);
    if (t->row.expires_at == UNSET_INT)
        t->row.expires_at = row->head.created_at + setting_int(&response_settings[0]);
    return task_begin(c, t, out);
}

// ---- who asked may read it
typedef struct Found {
    str id, input, answer;
    bool anyones; // not of whoever asked alone
} Found;

static err find_tx(Ctx *c, Tx *tx, void *found) {
    static SQL(response_find,
               "SELECT t.input, t.answer FROM responses r JOIN response_content t ON t.id = r.id "
               "WHERE r.id = $1 AND r.project = $2 AND (r.owner = $3 OR $4 = 1) AND r.expires_at > "
               "$5");
    Found *f = found;
    Rows *rows;
    err e = db_one(
        c, tx, &rows, &response_find,
        (Val[]){ V(f->id), V(c->project), V(c->who->id), V(f->anyones), V(os_wall_ms(c->os)) }, 5);
    if (e == ERR_NOTFOUND)
        return fail(c, e, R_NOT_FOUND, "kind", response_resource.name, "id", say_str(c, f->id));
    if (e) return e;
    f->input = col_str(rows, 0), f->answer = col_str(rows, 1);
    rows_close(rows);
    return ERR_OK;
}

err serve_response(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    Found f = { .id = route_param(r, "/v1/responses/{response_id}", "response_id") };
    (void)body;
    if (str_is(http_query(c->mem, r, "stream", NULL), "true"))
        return fail(c, ERR_INVALID, R_RESPONSE_STREAM, "field", "stream");
    TRY(db_read(c, c->db, find_tx, &f));
    buf_add(&out->body, f.answer);
    return ERR_OK;
}

static err audit_read(Ctx *c, Tx *tx, void *found) {
    const Found *f = found;
    App *app = app_of(c);
    AuditEntry entry = { "read",  response_resource.name, f->id, { 0 }, S("responses.content"),
                         S("{}"), SCOPE_PROJECT };
    return app->audit ? app->audit(c, tx, &entry) : ERR_OK;
}

err serve_response_content(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    Found f = { .id = route_param(r, "/lathe/v1/responses/{id}/content", "id"), .anyones = true };
    (void)body;
    TRY(db_read(c, c->db, find_tx, &f));
    TRY(db_tx(c, c->db, audit_read, &f)); // before anything of it is shown
    Json j = json_to(&out->body);
    json_obj(&j), json_kv_str(&j, "id", f.id), json_kv_raw(&j, "input", f.input),
        json_kv_raw(&j, "answer", f.answer), json_end_obj(&j);
    return ERR_OK;
}

// ---- what was asked, page by page
static void write_page(yyjson_val *items, const ItemsQuery *q, Json *j) {
    size_t n = yyjson_arr_size(items), at = 0, shown = 0;
    bool ascending = q->order == ITEMS_ASC;
    str first = { 0 }, last = { 0 };
    for (size_t i = 0; q->after.n && i < n; i++) {
        size_t k = ascending ? i : n - 1 - i;
        if (str_eq(json_get_str(yyjson_arr_get(items, k), "id"), q->after)) at = i + 1;
    }
    json_obj(j), json_kv_z(j, "object", "list"), json_key(j, "data"), json_arr(j);
    for (; at < n && shown < (size_t)q->limit; at++, shown++) {
        yyjson_val *item = yyjson_arr_get(items, ascending ? at : n - 1 - at);
        last = json_get_str(item, "id");
        if (!shown) first = last;
        json_put_val(j, item);
    }
    json_end_arr(j), json_kv_str(j, "first_id", first), json_kv_str(j, "last_id", last);
    json_kv_bool(j, "has_more", at < n), json_end_obj(j);
}

err serve_response_items(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    Found f = { .id = route_param(r, "/v1/responses/{response_id}/input_items", "response_id") };
    yyjson_val *items;
    ItemsQuery q;
    (void)body;
    TRY(query_read(c, items_query, &q, r));
    TRY(db_read(c, c->db, find_tx, &f));
    TRY(json_parse(c, f.input, &items));
    Json j = json_to(&out->body);
    write_page(items, &q, &j);
    return ERR_OK;
}

// ---- its end
static err delete_tx(Ctx *c, Tx *tx, void *found) {
    Found *f = found;
    ResponseRow row = { 0 };
    TRY(find_tx(c, tx, f));
    TRY(res_get(c, tx, &response_resource, f->id, &row));
    return res_delete(c, tx, &response_resource, &row);
}

err serve_response_delete(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    Found f = { .id = route_param(r, "/v1/responses/{response_id}", "response_id") };
    (void)body;
    TRY(db_tx(c, c->db, delete_tx, &f));
    Json j = json_to(&out->body);
    json_obj(&j), json_kv_str(&j, "id", f.id), json_kv_z(&j, "object", "response");
    json_kv_bool(&j, "deleted", true), json_end_obj(&j);
    return ERR_OK;
}

err response_row_stage(Ctx *c, Tx *tx, const void *old, const void *now) {
    static SQL(response_content_drop, "DELETE FROM response_content WHERE id = $1");
    const ResponseRow *was = old;
    return was && !now ? db_run(c, tx, &response_content_drop, V(was->head.id)) : ERR_OK;
}

// ---- for how long
static err projects_tx(Ctx *c, Tx *tx, void *map) {
    static SQL(response_projects, "SELECT id FROM projects");
    Rows *rows;
    TRY(db_query(c, tx, &response_projects, NULL, 0, &rows));
    for (bool more;;) {
        TRY(rows_next(c, rows, &more));
        if (!more) return ERR_OK;
        map_set(map, col_str(rows, 0), map);
    }
}

// What is of a project that is gone goes with it.
static err trim_table(Ctx *c, const TrimTable *t, const Map *projects, int64_t *io_removed) {
    str project = S("");
    for (;;) {
        TRY(trim_next(c, c->db, t, project, &project));
        if (!project.p) return ERR_OK;
        int64_t before_ms = map_get(projects, project) ? os_wall_ms(c->os) : INT64_MAX;
        TRY(trim_rows(c, c->db, t, &(TrimBelow){ V(before_ms), V(project) }, io_removed));
    }
}

err response_trim(Ctx *c, int64_t before_ms, int64_t *out_removed) {
    static const TrimTable rows = { "responses", "expires_at", "project" },
                           content = { "response_content", "expires_at", "project" };
    Map projects;
    int64_t texts = 0;
    (void)before_ms; // each says when it expires
    *out_removed = 0;
    map_init(&projects, 0x72657370);
    err e = db_read(c, c->db, projects_tx, &projects);
    if (!e) e = trim_table(c, &rows, &projects, out_removed); // first: what is found has content
    if (!e) e = trim_table(c, &content, &projects, &texts);
    map_done(&projects);
    return e;
}

static const Resource *const resources[] = { &response_resource, NULL };
const Module response_module = {
    .name = "response",
    .needs = "access",
    .resources = resources,
    .routes = response_routes,
    .settings = response_settings,
    .migrations = response_migrations,
    .migrations_n = 1,
    .reasons = response_reasons,
    .retentions = response_retentions,
    .en = "Answers that are kept, so that conversations go on from them",
    .zh = "保存应答，供后续请求继续对话",
};
