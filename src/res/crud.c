// SPDX-License-Identifier: Apache-2.0
// crud.c - the derived routes of every resource: get, create, patch, delete and actions, with
// If-Match, Idempotency-Key and dry run. Lists and exports are crud_list.c.
#include "base/id.h"
#include "res/advice.h"
#include "res/bind.h"
#include "res/daily.h"
#include "res/snapshot.h"
#include <stdio.h>

static SQL(idempotency_find,
           "SELECT hash, status, body FROM idempotency WHERE scope = $1 AND idem_key = $2");
static SQL(idempotency_add, "INSERT INTO idempotency (scope, idem_key, hash, status, body, at_ms) "
                            "VALUES ($1, $2, $3, $4, $5, $6)");

// One request on its way through a transaction, which may run it more than once.
typedef struct Op {
    const Binding *b;
    const HttpRequest *r;
    str body, id;
    bool dry, done;
    int status;
    str answer, change;
    int64_t revision, updated_at;
} Op;

// application/json, or a type that ends in +json (RFC 6839 §3.1), in any case, with parameters.
static bool is_json(str type) {
    str kind;
    str_cut(&type, ';', &kind);
    kind = str_trim(kind);
    return str_ieq(kind, S("application/json"))
           || (kind.n > 5 && str_ieq(str_sub(kind, kind.n - 5, kind.n), S("+json")));
}

static err op_init(Ctx *c, Op *op, const NetRoute *n, const HttpRequest *r, const HttpBody *body) {
    *op = (Op){ .b = binding_of(n), .r = r, .status = 200 };
    op->id = r->params_n ? r->params[r->params_n - 1] : (str){ 0 };
    op->body = body ? body->bytes : (str){ 0 };
    str dry = http_query(c->mem, r, "dry_run", NULL), type = http_header(r, "content-type");
    if (dry.p && !str_to_bool(dry, &op->dry))
        return fail(c, ERR_INVALID, R_FIELD_TYPE, "field", "dry_run", "want", "true or false",
                    "got", say_str(c, dry));
    if (op->body.n && type.n && !is_json(type))
        return fail(c, ERR_MEDIA, R_FIELD_TYPE, "field", "Content-Type", "want", "application/json",
                    "got", say_str(c, type));
    return ERR_OK;
}

// What a dry run would have shown once was never given out.
static const void *unshown(Ctx *c, const ResTable *t, const void *row) {
    void *now = row_new(c, t);
    fields_copy(c->mem, t->rows, row, now);
    for (const Field *f = t->rows; f->name; f++)
        if (f->flags & ONCE) *(str *)field_at(f, now) = (str){ 0 };
    return now;
}

// A dry run does all of it, then takes it back.
static err op_close(Ctx *c, Op *op, const void *old, const void *row) {
    const Resource *r = op->b->table->r;
    const Head *h = row;
    bool hide = op->dry && op->b->table->has_once;
    op->answer = res_json(c, r, hide ? unshown(c, op->b->table, row) : row);
    op->revision = h->revision, op->updated_at = h->updated_at;
    if (!op->dry) return ERR_OK;
    op->change = audit_change(c, op->b->table, old, row);
    op->done = true;
    return ERR_CANCELLED;
}

// op_close of what was made or changed: with what there is to know about it.
static err op_changed(Ctx *c, Tx *tx, Op *op, const void *old, const void *row) {
    Advice advice = { 0 };
    bool same = old && ((const Head *)old)->revision == ((const Head *)row)->revision;
    if (!same) TRY(advice_of(c, tx, op->b->table->r, row, &advice));
    err e = op_close(c, op, old, row);
    op->answer = advice_join(c, &advice, op->answer);
    return e;
}

enum { RACES_MAX = 8 };
static err op_run(Ctx *c, Op *op, err (*fn)(Ctx *, Tx *, void *)) {
    err e = db_tx(c, c->db, fn, op);
    // PostgreSQL tells the loser of a race for a number that it is taken, not that it should try
    // again. One that the resource itself explains (a name) has another reason by now.
    for (int i = 0; i < RACES_MAX && e == ERR_CONFLICT && c->failure.why == &R_DB_UNIQUE; i++)
        e = db_tx(c, c->db, fn, op);
    if (e == ERR_CANCELLED && op->done) return ERR_OK;
    if (!e && op->b->table->r->flags & RES_IN_SNAPSHOT && snapshot_sync(c))
        return ERR_OK; // it is done all the same; the path learns of it within a second
    return e;
}

// An answer that shows a new secret is remembered sealed.
static err keep_answer(Ctx *c, const Op *op, str key, str *out) {
    *out = op->answer;
    return op->b->table->has_once ? app_of(c)->seal(c, op->answer, key, out) : ERR_OK;
}

static err op_reply(Ctx *c, const Op *op, HttpReply *out) {
    out->status = op->status;
    if (op->dry) {
        Json j = json_to(&out->body);
        json_obj(&j);
        json_kv_bool(&j, "dry_run", true), json_kv_raw(&j, "change", op->change),
            json_kv_raw(&j, "result", op->answer);
        json_end_obj(&j);
        out->status = 200;
        return ERR_OK;
    }
    if (op->status == 204) return ERR_OK;
    buf_add(&out->body, op->answer);
    if (op->revision)
        out->etag = arena_printf(c->mem, "\"%lld.%lld\"", (long long)op->revision,
                                 (long long)op->updated_at);
    return ERR_OK;
}

// If-Match names the revision; what follows its dot (the status' age) does not matter to a change
// of the wish.
static err check_match(Ctx *c, const Op *op, const Head *h) {
    str match = http_header(op->r, "if-match"), rest = match, tag;
    if (!match.p || str_is(match, "*")) return ERR_OK;
    while (str_cut(&rest, ',', &tag)) {
        tag = str_trim(tag);
        if (str_starts(tag, S("W/"))) continue; // RFC 9110 §13.1.1: strong comparison
        if (tag.n > 1 && *tag.p == '"') tag = str_sub(tag, 1, tag.n - 2);
        str number = tag;
        ptrdiff_t dot = str_find_char(tag, '.');
        if (dot >= 0) number = str_sub(tag, 0, (size_t)dot);
        int64_t revision;
        if (str_to_i64(number, &revision) && revision == h->revision) return ERR_OK;
    }
    return fail(c, ERR_PRECONDITION, R_REVISION, "kind", op->b->table->r->name, "id",
                say_str(c, h->id), "now", say(c, "%lld", (long long)h->revision), "sent",
                say_str(c, match));
}

static err load(Ctx *c, Tx *tx, const Op *op, void **out) {
    const Resource *r = op->b->table->r;
    str id = op->id;
    *out = row_new(c, op->b->table);
    if (r->resolve && !id_valid(id, r->prefix)) TRY(r->resolve(c, tx, op->id, &id));
    return res_get(c, tx, r, id, *out);
}

static void *copy(Ctx *c, const Op *op, const void *row) {
    void *now = row_new(c, op->b->table);
    fields_copy(c->mem, op->b->table->rows, row, now);
    return now;
}

// ---- get
static err get_tx(Ctx *c, Tx *tx, void *arg) {
    Op *op = arg;
    void *row;
    TRY(load(c, tx, op, &row));
    return op_close(c, op, NULL, row);
}
err crud_get(Ctx *c, const NetRoute *n, const HttpRequest *r, const HttpBody *body,
             HttpReply *out) {
    Op op;
    TRY(op_init(c, &op, n, r, body));
    op.dry = false;
    const Resource *of = op.b->table->r;
    DailySet *days = of->daily ? of->daily() : NULL;
    TRY(days ? daily_read(c, days, op.id, get_tx, &op) : db_read(c, c->db, get_tx, &op));
    return op_reply(c, &op, out);
}

// ---- create
static str request_hash(Ctx *c, const Op *op) {
    char hex[BLOB_DIGEST_HEX + 1];
    sha256_hex(arena_printf(c->mem, "%s\n" STR_FMT, op->b->net.pattern, STR_ARG(op->body)), hex);
    return arena_str(c->mem, str_z(hex));
}

// Of one key: what one was given, another of the same owner, which may do less, does not get.
static str request_scope(Ctx *c) {
    return arena_printf(c->mem, STR_FMT "/" STR_FMT "/" STR_FMT "/" STR_FMT, STR_ARG(c->org),
                        STR_ARG(c->project), STR_ARG(c->who ? c->who->id : S("")),
                        STR_ARG(c->who ? c->who->key_id : S("")));
}

static err replay(Ctx *c, Tx *tx, Op *op, str key) {
    Rows *rows;
    bool more;
    TRY(db_ask(c, tx, &rows, &idempotency_find, V(request_scope(c)), V(key)));
    TRY(rows_next(c, rows, &more));
    if (!more) return ERR_OK;
    bool same = str_eq(col_str(rows, 0), request_hash(c, op));
    op->status = (int)col_int(rows, 1), op->answer = col_str(rows, 2), op->done = same;
    rows_close(rows);
    if (!same) return fail(c, ERR_CONFLICT, R_IDEMPOTENCY);
    return op->b->table->has_once ? app_of(c)->unseal(c, op->answer, key, &op->answer) : ERR_OK;
}

static err create_tx(Ctx *c, Tx *tx, void *arg) {
    Op *op = arg;
    str key = op->dry ? (str){ 0 } : http_header(op->r, "idempotency-key");
    op->done = false, op->status = 201;
    if (key.n) TRY(replay(c, tx, op, key));
    if (op->done) return ERR_OK;
    yyjson_val *json;
    TRY(json_parse(c, op->body, &json));
    void *row = row_new(c, op->b->table);
    TRY(fields_read(c, op->b->table->rows, row, json, FIELDS_CREATE));
    TRY(res_create(c, tx, op->b->table->r, row));
    TRY(op_changed(c, tx, op, NULL, row));
    if (!key.n) return ERR_OK;
    str kept;
    TRY(keep_answer(c, op, key, &kept));
    return db_run(c, tx, &idempotency_add, V(request_scope(c)), V(key), V(request_hash(c, op)),
                  V(op->status), V(kept), V(os_wall_ms(c->os)));
}
err crud_create(Ctx *c, const NetRoute *n, const HttpRequest *r, const HttpBody *body,
                HttpReply *out) {
    Op op;
    TRY(op_init(c, &op, n, r, body));
    str key = http_header(r, "idempotency-key");
    if (key.n > 255)
        return fail(c, ERR_INVALID, R_TOO_LONG, "what", "Idempotency-Key", "limit", "255");
    if (!str_utf8(key))
        return fail(c, ERR_INVALID, R_FIELD_TYPE, "field", "Idempotency-Key", "want", "UTF-8 text",
                    "got", "other bytes");
    err e = op_run(c, &op, create_tx);
    if (e == ERR_CONFLICT && key.n) e = op_run(c, &op, create_tx); // its twin may have been faster
    TRY(e);
    return op_reply(c, &op, out);
}

// ---- patch
static err patch_tx(Ctx *c, Tx *tx, void *arg) {
    Op *op = arg;
    void *old;
    yyjson_val *json;
    TRY(json_parse(c, op->body, &json));
    TRY(load(c, tx, op, &old));
    TRY(check_match(c, op, old));
    void *now = copy(c, op, old);
    TRY(fields_read(c, op->b->table->rows, now, json, FIELDS_PATCH));
    TRY(res_update(c, tx, op->b->table->r, old, now));
    return op_changed(c, tx, op, old, now);
}
err crud_patch(Ctx *c, const NetRoute *n, const HttpRequest *r, const HttpBody *body,
               HttpReply *out) {
    Op op;
    TRY(op_init(c, &op, n, r, body));
    TRY(op_run(c, &op, patch_tx));
    return op_reply(c, &op, out);
}

// ---- delete
static err delete_tx(Ctx *c, Tx *tx, void *arg) {
    Op *op = arg;
    const Resource *r = op->b->table->r;
    void *row;
    TRY(load(c, tx, op, &row));
    TRY(check_match(c, op, row));
    str id = ((Head *)row)->id;
    TRY(res_delete(c, tx, r, row));
    op->status = 204;
    if (r->flags & RES_RECONCILED) { // it goes when its reconciler has let go of what it holds
        TRY(res_get(c, tx, r, id, row));
        op->status = 202;
    }
    return op_close(c, op, row, row);
}
err crud_delete(Ctx *c, const NetRoute *n, const HttpRequest *r, const HttpBody *body,
                HttpReply *out) {
    Op op;
    TRY(op_init(c, &op, n, r, body));
    TRY(op_run(c, &op, delete_tx));
    return op_reply(c, &op, out);
}

// ---- actions
static err read_input(Ctx *c, const Op *op, void **out) {
    const Action *a = op->b->action;
    *out = NULL;
    if (!a->input) {
        if (str_trim(op->body).n && !str_is(str_trim(op->body), "{}"))
            return fail(c, ERR_INVALID, R_FIELD_TYPE, "field", "body", "want", "empty", "got",
                        "some");
        return ERR_OK;
    }
    *out = arena_alloc(c->mem, a->input_size, _Alignof(max_align_t));
    yyjson_val *json;
    TRY(json_parse(c, op->body.n ? op->body : S("{}"), &json));
    return fields_read(c, a->input, *out, json, FIELDS_CREATE);
}

static err action_tx(Ctx *c, Tx *tx, void *arg) {
    Op *op = arg;
    const Action *a = op->b->action;
    void *old, *input;
    str job = { 0 };
    TRY(read_input(c, op, &input));
    TRY(load(c, tx, op, &old));
    TRY(check_match(c, op, old));
    void *now = copy(c, op, old);
    TRY(a->run(c, tx, now, input, &job));
    op->status = 200;
    if (a->kind == ACTION_SYNC) {
        TRY(res_act(c, tx, op->b->table->r, old, now, a->verb));
        return op_changed(c, tx, op, old, now);
    }
    TRY(res_record(c, tx, op->b->table, a->verb, old, now));
    TRY(op_close(c, op, old, now));
    op->status = 202, op->revision = 0;
    op->answer = arena_printf(c->mem, "{\"job\":\"" STR_FMT "\"}", STR_ARG(job));
    return ERR_OK;
}
err crud_action(Ctx *c, const NetRoute *n, const HttpRequest *r, const HttpBody *body,
                HttpReply *out) {
    Op op;
    TRY(op_init(c, &op, n, r, body));
    TRY(op_run(c, &op, action_tx));
    return op_reply(c, &op, out);
}
