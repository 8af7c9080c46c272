// SPDX-License-Identifier: Apache-2.0
// openapi_part.c - parameters, bodies and answers of an operation, and the components they share.
// Threads: any; one writer each.
#include "res/openapi_impl.h"
#include <assert.h>
#include <stdio.h>

bool openapi_in_project(const Operation *op) {
    if (op->table) return op->table->r->scope == SCOPE_PROJECT;
    const unsigned elsewhere = ROUTE_PUBLIC | ROUTE_ANYONE | ROUTE_SYSTEM | ROUTE_ORG;
    return !(op->route->flags & elsewhere);
}

static bool is_foreign(const Operation *op) {
    return op->route && (op->route->flags & ROUTE_FOREIGN || str_starts(op->path, S("/v1/")));
}

// In which shape it is told what went wrong: ours, OpenAI's, or of a dialect that writes its own.
static const char *const error_shapes[] = { "Error", "OpenAI", "Dialect" };
static const char *error_shape(const Operation *op) {
    bool own = op->route && op->route->refuse;
    return error_shapes[own ? 2 : is_foreign(op) ? 1 : 0];
}

// "model_version" is ModelVersion.
str openapi_camel(Arena *a, const char *name) {
    char *p = arena_alloc_raw(a, strlen(name) + 1);
    size_t n = 0;
    bool up = true;
    for (const char *z = name; *z; z++) {
        bool letter = (*z >= 'a' && *z <= 'z') || (*z >= 'A' && *z <= 'Z');
        if (!letter && !(*z >= '0' && *z <= '9')) {
            up = true;
            continue;
        }
        p[n++] = up && *z >= 'a' && *z <= 'z' ? (char)(*z - 'a' + 'A') : *z;
        up = false;
    }
    return (str){ p, n };
}

// ---- small pieces

static void put_ref(Json *j, const char *fmt, str name) {
    Buf b;
    buf_init(&b, 400);
    buf_printf(&b, "#/components/%s/" STR_FMT, fmt, STR_ARG(name));
    json_obj(j);
    json_kv_str(j, "$ref", buf_str(&b));
    json_end_obj(j);
    buf_done(&b);
}

static str schema_name(Writer *w, const Resource *r, const char *tail) {
    str name = openapi_camel(w->mem, r->name);
    return arena_printf(w->mem, STR_FMT "%s", STR_ARG(name), tail);
}

// Opens content: {type: {schema: and waits for one value, then content_end.
static void content_begin(Json *j, const char *type) {
    json_key(j, "content");
    json_obj(j);
    json_key(j, type);
    json_obj(j);
    json_key(j, "schema");
}

static void content_end(Json *j) {
    json_end_obj(j);
    json_end_obj(j);
}

// A media type without its parameters: "text/csv; charset=utf-8" is declared as text/csv.
static const char *media(Writer *w, const char *type) {
    return arena_z(w->mem, str_sub(str_z(type), 0, strcspn(type, ";")));
}

void openapi_describe(Json *j, const char *key, const char *en, const char *zh) {
    char other[64];
    snprintf(other, sizeof other, "x-%s-zh", key);
    json_kv_z(j, key, en ? en : "");
    if (zh && *zh) json_kv_z(j, other, zh);
}

// ---- parameters

static void parameter_begin(Json *j, const char *name, const char *in, bool required) {
    json_obj(j);
    json_kv_z(j, "name", name);
    json_kv_z(j, "in", in);
    if (required) json_kv_bool(j, "required", true);
}

static void path_parameters(Writer *w, const Operation *op, str path) {
    for (str rest = path; str_find_char(rest, '{') >= 0;) {
        rest = str_sub(rest, (size_t)str_find_char(rest, '{') + 1, rest.n);
        str name = str_sub(rest, 0, (size_t)str_find_char(rest, '}'));
        if (op->table) {
            put_ref(w->j, "parameters", S("id"));
            continue;
        }
        parameter_begin(w->j, arena_z(w->mem, name), "path", true);
        json_kv_raw(w->j, "schema", S("{\"type\":\"string\",\"minLength\":1}"));
        json_end_obj(w->j);
    }
}

static void filter(Writer *w, const Field *f, const char *suffix, const char *en, const char *zh) {
    parameter_begin(w->j, arena_printf(w->mem, "%s%s", f->name, suffix).p, "query", false);
    openapi_describe(w->j, "description", arena_printf(w->mem, "%s: %s", f->en, en).p,
                     arena_printf(w->mem, "%s：%s", f->zh ? f->zh : f->name, zh).p);
    json_key(w->j, "schema");
    Field plain = *f;
    plain.flags &= ~(REQUIRED | STATUS);
    plain.fallback = NULL;
    if (!strcmp(suffix, ".in"))
        json_put_raw(w->j, S("{\"type\":\"string\",\"minLength\":1,\"maxLength\":8192}"));
    else field_schema(&plain, w->j, SCHEMA_PARAM);
    json_end_obj(w->j);
}

static void filters(Writer *w, const Field *f) {
    bool ordered = f->type == T_INT || f->type == T_REAL || f->type == T_TIME || f->type == T_MONEY;
    filter(w, f, "", "equal to this", "等于");
    if (ordered) {
        filter(w, f, ".lt", "less than this", "小于");
        filter(w, f, ".le", "at most this", "小于或等于");
        filter(w, f, ".gt", "more than this", "大于");
        filter(w, f, ".ge", "at least this", "大于或等于");
    } else if (f->type != T_BOOL) {
        filter(w, f, ".ne", "other than this", "不等于");
        filter(w, f, ".in", "one of these, separated by commas", "逗号分隔的值之一");
    }
}

static void sort_parameter(Writer *w, const ResTable *t) {
    parameter_begin(w->j, "sort", "query", false);
    openapi_describe(w->j, "description", "Order; a minus before the field: descending",
                     "排序字段；前加减号为降序");
    json_key(w->j, "schema");
    json_obj(w->j);
    json_kv_z(w->j, "type", "string");
    json_key(w->j, "enum");
    json_arr(w->j);
    for (const Field *f = t->rows; f->name; f++) {
        if (!field_sorts(t->r, f)) continue;
        json_put_str(w->j, str_z(f->name));
        json_put_str(w->j, arena_printf(w->mem, "-%s", f->name));
    }
    json_end_arr(w->j);
    json_end_obj(w->j);
    json_end_obj(w->j);
}

static void list_parameters(Writer *w, const ResTable *t) {
    bool searched = false;
    put_ref(w->j, "parameters", S("limit"));
    put_ref(w->j, "parameters", S("cursor"));
    put_ref(w->j, "parameters", S("format"));
    sort_parameter(w, t);
    for (const Field *f = t->rows; f->name; f++) {
        searched |= (f->flags & SEARCHED) != 0;
        if (field_filters(f)) filters(w, f);
    }
    if (searched) put_ref(w->j, "parameters", S("q"));
}

static void query_parameters(Writer *w, const Field *rows) {
    for (const Field *f = rows; f && f->name; f++) {
        parameter_begin(w->j, f->name, "query", f->flags & REQUIRED);
        openapi_describe(w->j, "description", f->en, f->zh);
        json_key(w->j, "schema");
        field_schema(f, w->j, SCHEMA_PARAM);
        json_end_obj(w->j);
    }
}

void openapi_parameters(Writer *w, const Operation *op, str path) {
    bool writes = op->table && op->kind != OP_LIST && op->kind != OP_GET;
    json_key(w->j, "parameters");
    json_arr(w->j);
    path_parameters(w, op, path);
    if (openapi_in_project(op)) put_ref(w->j, "parameters", S("project"));
    if (op->kind == OP_LIST) list_parameters(w, op->table);
    if (op->route) query_parameters(w, op->route->query);
    if (writes) put_ref(w->j, "parameters", S("dry_run"));
    if (op->kind == OP_CREATE) put_ref(w->j, "parameters", S("idempotency_key"));
    else if (writes) put_ref(w->j, "parameters", S("if_match"));
    json_end_arr(w->j);
}

// ---- bodies

// Dialects of others ignore what they do not know, and leave out what is unset.
static void foreign_schema(const Field *rows, Json *j, bool input) {
    json_obj(j);
    json_kv_z(j, "type", "object");
    json_key(j, "properties");
    json_obj(j);
    for (const Field *f = rows; f->name; f++) {
        json_key(j, f->name);
        field_schema(f, j, input ? SCHEMA_CREATE : SCHEMA_SHOW);
    }
    json_end_obj(j);
    json_key(j, "required");
    json_arr(j);
    for (const Field *f = rows; f->name; f++)
        if (f->flags & REQUIRED) json_put_str(j, str_z(f->name));
    json_end_arr(j);
    json_end_obj(j);
}

void openapi_body(Writer *w, const Operation *op) {
    const Route *r = op->route;
    bool none = op->kind == OP_LIST || op->kind == OP_GET || op->kind == OP_DELETE
                || (r && !r->body_max) || (op->kind == OP_ACTION && !op->action->input);
    if (none) return;
    const Field *input = r ? r->input : op->action ? op->action->input : NULL;
    json_key(w->j, "requestBody");
    json_obj(w->j);
    bool must = op->kind == OP_CREATE || op->kind == OP_PATCH;
    for (const Field *f = input; f && f->name; f++) must |= (f->flags & REQUIRED) != 0;
    json_kv_bool(w->j, "required", must);
    content_begin(w->j, r && !input ? "application/octet-stream" : "application/json");
    if (op->kind == OP_CREATE) put_ref(w->j, "schemas", schema_name(w, op->table->r, "Create"));
    else if (op->kind == OP_PATCH) put_ref(w->j, "schemas", schema_name(w, op->table->r, "Patch"));
    else if (!input) json_put_raw(w->j, S("{}"));
    else if (is_foreign(op)) foreign_schema(input, w->j, true);
    else fields_schema(input, w->j, SCHEMA_CREATE);
    content_end(w->j);
    json_end_obj(w->j);
}

// ---- answers

static void answer_begin(Json *j, int status, const char *text) {
    char key[8];
    snprintf(key, sizeof key, "%d", status);
    json_key(j, key);
    json_obj(j);
    json_kv_z(j, "description", text);
}

static void answer_ref(Writer *w, int status, const char *text, str schema) {
    answer_begin(w->j, status, text);
    content_begin(w->j, "application/json");
    put_ref(w->j, "schemas", schema);
    content_end(w->j);
    json_end_obj(w->j);
}

static void answer_list(Writer *w, const Resource *r) {
    answer_begin(w->j, 200, "A page, or all of it as an export");
    json_key(w->j, "content");
    json_obj(w->j);
    json_key(w->j, "application/json");
    json_obj(w->j);
    json_key(w->j, "schema");
    put_ref(w->j, "schemas", schema_name(w, r, "List"));
    json_end_obj(w->j);
    json_kv_raw(w->j, "application/x-ndjson", S("{}"));
    json_kv_raw(w->j, "text/csv", S("{}"));
    json_end_obj(w->j);
    json_end_obj(w->j);
}

static void answer_or_dry(Writer *w, const Operation *op) {
    answer_begin(w->j, 200, "The resource as it is now; of a dry run: what would change");
    content_begin(w->j, "application/json");
    json_obj(w->j);
    json_key(w->j, "anyOf");
    json_arr(w->j);
    put_ref(w->j, "schemas", schema_name(w, op->table->r, ""));
    put_ref(w->j, "schemas", S("DryRun"));
    json_end_arr(w->j);
    json_end_obj(w->j);
    content_end(w->j);
    json_end_obj(w->j);
}

static void answers_of_resource(Writer *w, const Operation *op) {
    const Resource *r = op->table->r;
    str itself = schema_name(w, r, "");
    switch (op->kind) {
    case OP_LIST: answer_list(w, r); break;
    case OP_CREATE:
        answer_ref(w, 201, "Made", itself);
        answer_ref(w, 200, "What a dry run would make", S("DryRun"));
        break;
    case OP_GET:
        answer_ref(w, 200, "The resource", itself);
        answer_begin(w->j, 304, "Not changed since the ETag of If-None-Match");
        json_end_obj(w->j);
        break;
    case OP_DELETE:
        answer_ref(w, 200, "What a dry run would delete", S("DryRun"));
        if (r->flags & RES_RECONCILED)
            answer_ref(w, 202, "It goes when its reconciler has let go of what it holds", itself);
        else {
            answer_begin(w->j, 204, "Deleted");
            json_end_obj(w->j);
        }
        break;
    default:
        answer_or_dry(w, op);
        if (op->kind == OP_ACTION && op->action->kind == ACTION_JOB)
            answer_ref(w, 202, "A job does it", S("JobStarted"));
    }
}

static void answers_of_route(Writer *w, const Operation *op) {
    const Route *r = op->route;
    const char *type = r->output_type ? media(w, r->output_type) : "application/json";
    answer_begin(w->j, 200, "Done");
    json_key(w->j, "content");
    json_obj(w->j);
    if (r->output) {
        json_key(w->j, "application/json");
        json_obj(w->j);
        json_key(w->j, "schema");
        if (is_foreign(op)) foreign_schema(r->output, w->j, false);
        else fields_schema(r->output, w->j, SCHEMA_SHOW);
        json_end_obj(w->j);
    }
    if (!r->output || strcmp(type, "application/json")) json_kv_raw(w->j, type, S("{}"));
    json_end_obj(w->j);
    json_end_obj(w->j);
    if (r->output || r->output_type) return;
    answer_begin(w->j, 204, "Done");
    json_end_obj(w->j);
}

static const struct {
    int status;
    const char *en;
    unsigned ops; // of the derived ones, by bit
} errors[] = {
// clang-format off
#define ALL_OPS 0x3fu
#define WRITES (1u << OP_CREATE | 1u << OP_PATCH | 1u << OP_DELETE | 1u << OP_ACTION)
#define BODIES (1u << OP_CREATE | 1u << OP_PATCH | 1u << OP_ACTION)
    { 400, "The request is not valid: reason and field say why", ALL_OPS },
    { 401, "No key, or one that is unknown, expired or revoked", ALL_OPS },
    { 402, "A budget is used up", 0 },
    { 403, "The key lacks the permission", ALL_OPS },
    { 404, "There is no such thing here", ALL_OPS },
    { 408, "The request came too slowly", ALL_OPS },
    { 409, "It conflicts with what is there", WRITES },
    { 410, "It is gone for good", 0 },
    { 412, "It changed since the revision of If-Match", WRITES & ~(1u << OP_CREATE) },
    { 413, "The body is larger than this route takes", ALL_OPS },
    { 415, "The body is of a type, or in a coding, that this route does not take", BODIES },
    { 416, "The range is outside of it", 0 },
    { 429, "A limit is reached: Retry-After says when to come again", ALL_OPS },
    { 431, "The head of the request is too large", ALL_OPS },
    { 500, "An error of this server", ALL_OPS },
    { 502, "What stands behind this server failed", 0 },
    { 503, "Not now: Retry-After says when to come again", ALL_OPS },
    { 504, "It took longer than the time allowed", ALL_OPS },
    { 507, "The disk is full: nothing was changed", WRITES },
    // clang-format on
};

static bool listed(const char *statuses, int status) {
    str rest = str_z(statuses);
    for (str one; str_cut(&rest, ' ', &one);) {
        int64_t n;
        if (str_to_i64(one, &n) && n == status) return true;
    }
    return false;
}

static bool may_fail_with(const Operation *op, size_t i) {
    if (op->table) return errors[i].ops & 1u << op->kind;
    const unsigned always = 1u << OP_LIST;
    return errors[i].ops & always || listed(op->route->errors, errors[i].status);
}

// Statuses below 400 that a route row names are further successes.
static void further_answers(Writer *w, const Route *r) {
    str rest = str_z(r->errors);
    for (str one; str_cut(&rest, ' ', &one);) {
        int64_t n;
        if (!str_to_i64(one, &n) || n >= 400 || n == 200) continue;
        answer_begin(w->j, (int)n, "Done");
        json_end_obj(w->j);
    }
}

void openapi_answers(Writer *w, const Operation *op) {
    json_key(w->j, "responses");
    json_obj(w->j);
    if (op->table) answers_of_resource(w, op);
    else {
        answers_of_route(w, op);
        further_answers(w, op->route);
    }
    for (size_t i = 0; i < countof(errors); i++) {
        if (!may_fail_with(op, i)) continue;
        char key[16], name[24];
        snprintf(key, sizeof key, "%d", errors[i].status);
        snprintf(name, sizeof name, "%s%d", error_shape(op), errors[i].status);
        json_key(w->j, key);
        put_ref(w->j, "responses", str_z(name));
    }
    json_end_obj(w->j);
}

// ---- components

static void resource_schemas(Writer *w, const ResTable *t) {
    const Resource *r = t->r;
    json_key_str(w->j, schema_name(w, r, ""));
    bool changes = !(r->flags & RES_NO_CREATE) || !(r->flags & RES_NO_UPDATE);
    fields_schema(t->rows, w->j, changes ? SCHEMA_CHANGED : SCHEMA_SHOW);
    if (!(r->flags & RES_NO_CREATE)) {
        json_key_str(w->j, schema_name(w, r, "Create"));
        fields_schema(t->rows, w->j, SCHEMA_CREATE);
    }
    if (!(r->flags & RES_NO_UPDATE)) {
        json_key_str(w->j, schema_name(w, r, "Patch"));
        fields_schema(t->rows, w->j, SCHEMA_PATCH);
    }
    json_key_str(w->j, schema_name(w, r, "List"));
    json_obj(w->j);
    json_kv_z(w->j, "type", "object");
    json_key(w->j, "properties");
    json_obj(w->j);
    json_key(w->j, "data");
    json_obj(w->j);
    json_kv_z(w->j, "type", "array");
    json_key(w->j, "items");
    put_ref(w->j, "schemas", schema_name(w, r, ""));
    json_end_obj(w->j);
    json_kv_raw(w->j, "next_cursor", S("{\"type\":[\"string\",\"null\"]}"));
    json_end_obj(w->j);
    json_kv_raw(w->j, "required", S("[\"data\",\"next_cursor\"]"));
    json_end_obj(w->j);
}

static void error_codes(Json *j) {
    json_key(j, "code");
    json_obj(j);
    json_kv_z(j, "type", "string");
    json_key(j, "enum");
    json_arr(j);
    for (int e = ERR_OK + 1; e < ERR__COUNT; e++) json_put_str(j, str_z(err_row((err)e)->slug));
    json_end_arr(j);
    json_end_obj(j);
}

static void error_schemas(Json *j) {
    json_key(j, "Error");
    json_obj(j);
    json_kv_z(j, "type", "object");
    json_key(j, "properties");
    json_obj(j);
    json_key(j, "error");
    json_obj(j);
    json_kv_z(j, "type", "object");
    json_key(j, "properties");
    json_obj(j);
    error_codes(j);
    json_kv_raw(j, "reason", S("{\"type\":\"string\"}"));
    json_kv_raw(j, "message", S("{\"type\":\"string\"}"));
    json_kv_raw(j, "field", S("{\"type\":[\"string\",\"null\"]}"));
    json_kv_raw(j, "params",
                S("{\"type\":\"object\",\"additionalProperties\":"
                  "{\"type\":[\"string\",\"null\"]}}"));
    json_kv_raw(j, "request_id", S("{\"type\":[\"string\",\"null\"]}"));
    json_end_obj(j);
    json_kv_raw(j, "required", S("[\"code\",\"reason\",\"message\",\"request_id\"]"));
    json_end_obj(j);
    json_end_obj(j);
    json_kv_raw(j, "required", S("[\"error\"]"));
    json_end_obj(j);
    json_kv_raw(j, "OpenAIError",
                S("{\"type\":\"object\",\"properties\":{\"error\":{\"type\":\"object\","
                  "\"properties\":{\"message\":{\"type\":\"string\"},"
                  "\"type\":{\"type\":\"string\"},\"param\":{\"type\":[\"string\",\"null\"]},"
                  "\"code\":{\"type\":[\"string\",\"null\"]},"
                  "\"request_id\":{\"type\":[\"string\",\"null\"]}},"
                  "\"required\":[\"message\",\"type\",\"param\",\"code\"]}},"
                  "\"required\":[\"error\"]}"));
    json_kv_raw(j, "DialectError",
                S("{\"type\":\"object\",\"description\":\"As the dialect's clients expect it\"}"));
}

static void schemas(Writer *w) {
    json_key(w->j, "schemas");
    json_obj(w->j);
    error_schemas(w->j);
    json_kv_raw(w->j, "DryRun",
                S("{\"type\":\"object\",\"properties\":{\"dry_run\":{\"type\":\"boolean\","
                  "\"const\":true},\"change\":{\"type\":\"object\"},"
                  "\"result\":{\"type\":\"object\"}},"
                  "\"required\":[\"dry_run\",\"change\",\"result\"]}"));
    json_kv_raw(w->j, "JobStarted",
                S("{\"type\":\"object\",\"properties\":{\"job\":{\"type\":\"string\"}},"
                  "\"required\":[\"job\"]}"));
    for (const Module *const *m = w->mods; *m; m++)
        for (const Resource *const *r = (*m)->resources; r && *r; r++)
            resource_schemas(w, table_of(*r));
    json_end_obj(w->j);
}

static void responses(Writer *w) {
    json_key(w->j, "responses");
    json_obj(w->j);
    static const char *const schemas[] = { "Error", "OpenAIError", "DialectError" };
    for (size_t i = 0; i < countof(schemas) * countof(errors); i++) {
        size_t shape = i / countof(errors);
        int status = errors[i % countof(errors)].status;
        json_key(w->j, arena_printf(w->mem, "%s%d", error_shapes[shape], status).p);
        json_obj(w->j);
        json_kv_z(w->j, "description", errors[i % countof(errors)].en);
        if (status == 429 || status == 503)
            json_kv_raw(w->j, "headers",
                        S("{\"Retry-After\":{\"description\":\"Seconds\","
                          "\"schema\":{\"type\":\"integer\",\"minimum\":0}}}"));
        content_begin(w->j, "application/json");
        put_ref(w->j, "schemas", str_z(schemas[shape]));
        content_end(w->j);
        json_end_obj(w->j);
    }
    json_end_obj(w->j);
}

// clang-format off
static const struct { const char *key, *name, *in, *schema, *en, *zh; } shared_parameters[] = {
    { "id", "id", "path",
      "{\"type\":\"string\",\"minLength\":1,\"maxLength\":200,"
      "\"pattern\":\"^[A-Za-z0-9][A-Za-z0-9._-]*$\"}", "Id or name", "标识或名称" },
    { "limit", "limit", "query",
      "{\"type\":\"integer\",\"minimum\":1,\"maximum\":1000,\"default\":50}",
      "Most rows of a page", "每页最多行数" },
    { "cursor", "cursor", "query", "{\"type\":\"string\",\"maxLength\":2000}",
      "next_cursor of the page before, with the same filters. A page that is short, or empty, is "
      "the "
      "last only when its next_cursor is null: among very many rows a page is not looked for "
      "longer "
      "than a moment",
      "上一页的 next_cursor（过滤条件须相同）。只有 next_cursor 为 null 才是最后一页：数据很多时，一页可能不满，"
      "甚至为空" },
    { "format", "format", "query",
      "{\"type\":\"string\",\"enum\":[\"json\",\"ndjson\",\"csv\"],\"default\":\"json\"}",
      "json: a page; ndjson and csv: all of it", "json 为一页；ndjson 与 csv 为全部" },
    { "q", "q", "query", "{\"type\":\"string\",\"maxLength\":200}",
      "Text that occurs in a searched field", "在可检索字段中查找的文本" },
    { "dry_run", "dry_run", "query", "{\"type\":\"boolean\",\"default\":false}",
      "Says what would change, and changes nothing", "只说明将发生的变更，不执行" },
    { "project", "Lathe-Project", "header",
      "{\"type\":\"string\",\"minLength\":1,\"maxLength\":200,"
      "\"pattern\":\"^[A-Za-z0-9][A-Za-z0-9._-]*$\"}",
      "Project to act in, where the key has several; OpenAI-Project is the same",
      "密钥可用于多个项目时指明项目；亦可用 OpenAI-Project" },
    { "idempotency_key", "Idempotency-Key", "header",
      "{\"type\":\"string\",\"minLength\":1,\"maxLength\":255,\"pattern\":\"^[!-~]+$\"}",
      "A second request with it answers what the first did", "相同键的再次请求返回首次的应答" },
    { "if_match", "If-Match", "header",
      "{\"type\":\"string\",\"minLength\":1,\"maxLength\":200,\"pattern\":\"^[!-~]+$\"}",
      "The ETag that was read: 412 when it changed since", "读取时的 ETag；其后有变更则返回 412" },
};
// clang-format on

static void shared(Writer *w) {
    json_key(w->j, "parameters");
    json_obj(w->j);
    for (size_t i = 0; i < countof(shared_parameters); i++) {
        bool path = !strcmp(shared_parameters[i].in, "path");
        json_key(w->j, shared_parameters[i].key);
        parameter_begin(w->j, shared_parameters[i].name, shared_parameters[i].in, path);
        openapi_describe(w->j, "description", shared_parameters[i].en, shared_parameters[i].zh);
        json_kv_raw(w->j, "schema", str_z(shared_parameters[i].schema));
        json_end_obj(w->j);
    }
    json_end_obj(w->j);
}

void openapi_components(Writer *w) {
    json_key(w->j, "components");
    json_obj(w->j);
    schemas(w);
    responses(w);
    shared(w);
    json_kv_raw(w->j, "securitySchemes",
                S("{\"bearer\":{\"type\":\"http\",\"scheme\":\"bearer\"}}"));
    json_end_obj(w->j);
}
