// SPDX-License-Identifier: Apache-2.0
// model_upload.c - routes that take the bytes of a version, a minimum after tus 1.0 (tus.io):
//   POST  …/models/{id}/uploads                    {"size_bytes": …}   the upload's id
//   PATCH …/models/{id}/uploads/{upload}           Upload-Offset, or Content-Range; 204
//   GET, HEAD the same                             Upload-Offset: where to go on
//   POST  …/models/{id}/uploads/{upload}/finish    202 with the job that imports it
// A PATCH streams: the loop moves pieces to a worker, which appends them to the staging file; while
// WAITING_MAX bytes wait for the worker, the client is not read from. What arrived stays when the
// client leaves; what is answered for is synced first.
// Owner: a Write lives from its request's head until its last piece of work is done.
// Threads: functions marked "worker" run on the pool, one at a time for each Write; the rest on the
// loop of the connection.
#include "mod/model/model_upload.h"
#include "net/reason.h"
#include <assert.h>

enum { WAITING_MAX = 1 << 20 };
#define UPLOAD_PATH "/lathe/v1/models/{id}/uploads/{upload}"

// ---- finding

typedef struct Find {
    str model, upload;
    Model *m;
    Upload *u;
} Find;

static err find_tx(Ctx *c, Tx *tx, void *arg) {
    Find *f = arg;
    f->m = new (c->mem, Model, 1);
    f->u = model_upload_new(c);
    TRY(res_get(c, tx, &model_resource, f->model, f->m));
    TRY(res_get(c, tx, &model_upload_resource, f->upload, f->u));
    if (str_eq(f->u->model, f->m->head.id)) return ERR_OK;
    return fail(c, ERR_NOTFOUND, R_NOT_FOUND, "kind", model_upload_resource.name, "id",
                say_str(c, f->upload));
}

static err find(Ctx *c, const HttpRequest *r, Find *out) {
    *out = (Find){ route_param(r, UPLOAD_PATH, "id"), route_param(r, UPLOAD_PATH, "upload"), NULL,
                   NULL };
    return db_read(c, c->db, find_tx, out);
}

static err read_input(Ctx *c, const HttpBody *body, const Field *rows, UploadInput *out) {
    yyjson_val *json;
    str text = body && str_trim(body->bytes).n ? body->bytes : S("{}");
    TRY(json_parse(c, text, &json));
    TRY(fields_read(c, rows, out, json, FIELDS_CREATE));
    return model_digest_check(c, "sha256", out->sha256);
}

static void reply(Ctx *c, const Field *rows, const void *base, HttpReply *out) {
    (void)c;
    Json j = json_to(&out->body);
    json_obj(&j);
    fields_write(rows, base, &j, SHOW_API);
    json_end_obj(&j);
}

static void reply_upload(Ctx *c, const Upload *u, int64_t offset, HttpReply *out) {
    UploadOutput o = { u->head.id, u->model, offset, u->size_bytes };
    http_reply_header(c, out, "Upload-Offset", arena_printf(c->mem, "%lld", (long long)offset));
    if (u->size_bytes != UNSET_INT)
        http_reply_header(c, out, "Upload-Length",
                          arena_printf(c->mem, "%lld", (long long)u->size_bytes));
    http_reply_header(c, out, "Cache-Control", S("no-store"));
    reply(c, model_upload_output, &o, out);
}

// ---- create

typedef struct Create {
    str model;
    UploadInput in;
    Upload *u;
} Create;

static err create_tx(Ctx *c, Tx *tx, void *arg) {
    Create *a = arg;
    a->u = model_upload_new(c);
    a->u->model = a->model;
    a->u->size_bytes = a->in.size_bytes, a->u->sha256 = a->in.sha256;
    a->u->received_bytes = 0, a->u->state = UPLOAD_OPEN;
    Model *m = new (c->mem, Model, 1);
    int64_t open;
    TRY(res_get(c, tx, &model_resource, a->model, m)); // else it is the body's fault
    TRY(model_sql_uploads(c, tx, m->head.id, &open));
    if (open >= UPLOADS_MAX)
        return fail(c, ERR_CONFLICT, R_UPLOADS_MANY, "model", say_str(c, m->head.name), "limit",
                    say(c, "%d", UPLOADS_MAX));
    return res_create(c, tx, &model_upload_resource, a->u);
}

err model_uploads_create(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    Create a = { .model = route_param(r, UPLOAD_PATH, "id") };
    TRY(read_input(c, body, model_upload_input, &a.in));
    if (a.in.size_bytes != UNSET_INT) {
        TRY(model_import_size_check(c, "the upload", a.in.size_bytes));
        TRY(model_room_check(c, S("the upload"), a.in.size_bytes));
    }
    TRY(db_tx(c, c->db, create_tx, &a));
    out->status = 201;
    reply_upload(c, a.u, 0, out);
    return ERR_OK;
}

// ---- where it stands

err model_uploads_show(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    (void)body;
    Find f;
    int64_t offset;
    TRY(find(c, r, &f));
    TRY(model_session_peek(c, f.u->head.id, &offset));
    reply_upload(c, f.u, offset, out);
    return ERR_OK;
}

// ---- finish

typedef struct Finish {
    const Upload *u;
    str sha256;
    Version *v;
} Finish;

static err finish_tx(Ctx *c, Tx *tx, void *arg) {
    Finish *a = arg;
    a->v = model_version_new(c);
    a->v->model = a->u->model, a->v->sha256 = a->sha256;
    a->v->source = (Source){ .type = SOURCE_UPLOAD, .upload = a->u->head.id };
    return res_create(c, tx, &model_version_resource, a->v);
}

// The size is known here, so that a caller who counted wrong may go on instead of beginning again.
static err finish_size(Ctx *c, const Upload *u) {
    Session *s;
    TRY(model_session_take(c, u->head.id, &s));
    int64_t bytes = model_session_offset(s);
    model_session_give(s);
    if (!bytes) return fail(c, ERR_CONFLICT, R_UPLOAD_EMPTY);
    if (u->size_bytes == UNSET_INT || u->size_bytes == bytes) return ERR_OK;
    return fail(c, ERR_CONFLICT, R_UPLOAD_SIZE, "bytes", say(c, "%lld", (long long)bytes), "size",
                say(c, "%lld", (long long)u->size_bytes));
}

err model_uploads_finish(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    UploadInput in;
    Find f;
    TRY(read_input(c, body, model_finish_input, &in));
    TRY(find(c, r, &f));
    TRY(finish_size(c, f.u));
    TRY(model_session_close(c, f.u->head.id));
    Finish a = { f.u, in.sha256, NULL };
    TRY(db_tx(c, c->db, finish_tx, &a));
    FinishOutput o = { a.v->job, a.v->head.id, a.v->number };
    out->status = 202;
    reply(c, model_finish_output, &o, out);
    return ERR_OK;
}

// ---- writing

typedef struct Write {
    Exchange *x; // NULL: over, nobody waits for an answer
    Loop *loop;
    Ctx *c; // a worker's while busy
    str model, upload;
    int64_t from, length;               // length -1: not said
    Session *session;                   // worker
    Upload *u;                          // worker
    int64_t offset;                     // worker: safe bytes
    struct evbuffer *waiting, *writing; // writing: a worker's while busy
    bool busy, last, paused, over;      // last: no more will come; over: there is no work left
    bool left, whole;                   // for the worker: the client is gone; all is in writing
    bool ended;                         // the worker's: becomes over
    err e;                              // the worker's
} Write;

static void write_free(Write *w) {
    evbuffer_free(w->waiting);
    evbuffer_free(w->writing);
    app_ctx_free(w->c);
    mem_free(w);
}

// worker
static err size_check(Ctx *c, const Write *w, int64_t end) {
    TRY(model_import_size_check(c, "the upload", end));
    if (w->u->size_bytes == UNSET_INT || end <= w->u->size_bytes) return ERR_OK;
    return fail(c, ERR_INVALID, R_UPLOAD_SIZE, "bytes", say(c, "%lld", (long long)end), "size",
                say(c, "%lld", (long long)w->u->size_bytes));
}

// worker
static err open_upload(Write *w) {
    Ctx *c = w->c;
    Find f = { w->model, w->upload, NULL, NULL };
    TRY(db_read(c, c->db, find_tx, &f));
    w->u = f.u;
    bool far = w->length > INT64_MAX - w->from;
    if (w->length >= 0) TRY(size_check(c, w, far ? INT64_MAX : w->from + w->length));
    TRY(model_session_take(c, f.u->head.id, &w->session));
    int64_t at = w->offset = model_session_offset(w->session);
    if (at == w->from) return ERR_OK;
    return fail(c, ERR_CONFLICT, R_UPLOAD_OFFSET, "offset", say(c, "%lld", (long long)at), "sent",
                say(c, "%lld", (long long)w->from));
}

// worker
static err append_pieces(Write *w) {
    Ctx *c = w->c;
    struct evbuffer_iovec piece;
    int64_t end = model_session_offset(w->session) + (int64_t)evbuffer_get_length(w->writing);
    TRY(size_check(c, w, end));
    while (evbuffer_peek(w->writing, -1, NULL, &piece, 1) > 0 && piece.iov_len) {
        TRY(model_session_append(c, w->session, str_n(piece.iov_base, piece.iov_len)));
        metric_add(&model_metric_import_bytes, (double)piece.iov_len, S("upload"));
        evbuffer_drain(w->writing, piece.iov_len);
    }
    return ERR_OK;
}

static err note_tx(Ctx *c, Tx *tx, void *arg) {
    Write *w = arg;
    Upload *u = model_upload_new(c);
    err e = res_get(c, tx, &model_upload_resource, w->u->head.id, u);
    if (e) return e;
    u->received_bytes = w->offset;
    return res_set_status(c, tx, &model_upload_resource, u, NULL);
}

// worker: what will be answered for is on the disk before.
static err settle(Write *w) {
    TRY(model_session_sync(w->c, w->session));
    w->offset = model_session_offset(w->session);
    return db_tx(w->c, w->c->db, note_tx, w);
}

// worker
static void work_end(Write *w) {
    if (w->session) model_session_give(w->session);
    w->session = NULL;
    w->ended = true;
}

static void done(void *write);
static void work(void *write) { // worker
    Write *w = write;
    if (!w->left && !w->u) w->e = open_upload(w);
    if (!w->e && w->session) w->e = append_pieces(w);
    if (!w->e && w->whole) w->e = settle(w);
    if (w->e || w->whole || w->left) work_end(w);
    loop_post(w->loop, done, w);
}

static void answer(Write *w) {
    Exchange *x = w->x;
    Ctx *c = exchange_ctx(x);
    w->x = NULL;
    if (w->e) {
        c->failure = failure_copy(c->mem, &w->c->failure);
        exchange_refuse(x);
        return;
    }
    str at = arena_printf(c->mem, "%lld", (long long)w->offset);
    HttpHeader header = { S("Upload-Offset"), at };
    exchange_begin(x, 204, &header, 1, 0);
    exchange_end(x);
}

static bool wanted(const Write *w) { // is there something for a worker
    return !w->busy && !w->over && (evbuffer_get_length(w->waiting) || w->last || !w->x);
}

static void refuse_busy(Write *w) {
    Ctx *c = w->c;
    w->e = fail(c, ERR_UNAVAILABLE, R_SERVER_BUSY, "what", "uploads");
    c->failure.retry_after_ms = 1000;
    work_end(w); // never blocks
    w->over = true;
    if (w->x) answer(w);
}

static void submit(Write *w) {
    evbuffer_add_buffer(w->writing, w->waiting);
    w->left = !w->x, w->whole = w->last && w->x;
    w->busy = true;
    if (pool_submit(app_of(w->c)->pool, work, w)) return;
    w->busy = false;
    refuse_busy(w);
}

static void pump(Write *w) {
    if (wanted(w)) submit(w);
    bool full = evbuffer_get_length(w->waiting) >= WAITING_MAX;
    if (w->x && full != w->paused) exchange_pause(w->x, w->paused = full);
}

static void done(void *write) {
    Write *w = write;
    w->busy = false, w->over = w->ended;
    if (w->over && w->x) answer(w);
    if (!w->over) pump(w);
    if (w->over && !w->x && !w->busy) write_free(w);
}

static void on_body(void *write, struct evbuffer *chunk, bool last) {
    Write *w = write;
    evbuffer_add_buffer(w->waiting, chunk);
    w->last |= last;
    pump(w);
    if (w->over && !w->x && !w->busy) write_free(w);
}

static void on_gone(void *write) {
    Write *w = write;
    w->x = NULL;
    pump(w);
    if (w->over && !w->busy) write_free(w);
}

// Upload-Offset: 5 (tus), or Content-Range: bytes 5-9/10.
static err read_offset(Ctx *c, const HttpRequest *r, int64_t *out) {
    str offset = http_header(r, "upload-offset"), range = http_header(r, "content-range"), from;
    str text = offset.p ? offset : range;
    bool good = offset.p && str_to_i64(offset, out);
    if (!offset.p && str_starts(range, S("bytes "))) {
        str rest = str_sub(range, 6, range.n);
        good = str_cut(&rest, '-', &from) && rest.p && str_to_i64(from, out);
    }
    if (good && *out >= 0) return ERR_OK;
    return fail(c, ERR_INVALID, R_UPLOAD_HEADER, "field",
                range.p && !offset.p ? "Content-Range" : "Upload-Offset", "want",
                text.p ? "a number of bytes" : "it is missing");
}

static err enter(Ctx *c, const HttpRequest *r, int64_t *out_from) {
    App *app = app_of(c);
    if (app->identify) TRY(app->identify(c, r, true));
    if (!c->project.n) return fail(c, ERR_INVALID, R_NO_PROJECT);
    TRY(require(c, "models.import", r->path));
    return read_offset(c, r, out_from);
}

void model_uploads_write(Exchange *x) {
    static const ExchangeEvents events = { .body = on_body, .gone = on_gone };
    Ctx *c = exchange_ctx(x);
    const HttpRequest *r = exchange_request(x);
    int64_t from;
    if (enter(c, r, &from)) {
        exchange_refuse(x);
        return;
    }
    Write *w = mem_new(sizeof *w);
    w->x = x, w->loop = exchange_loop(x);
    w->c = app_ctx_new(app_of(c));
    w->c->org = arena_str(w->c->mem, c->org), w->c->project = arena_str(w->c->mem, c->project);
    w->c->request_id = arena_str(w->c->mem, c->request_id);
    w->model = arena_str(w->c->mem, route_param(r, UPLOAD_PATH, "id"));
    w->upload = arena_str(w->c->mem, route_param(r, UPLOAD_PATH, "upload"));
    w->from = from, w->length = r->length;
    w->waiting = evbuffer_new(), w->writing = evbuffer_new();
    exchange_events(x, &events, w);
}
