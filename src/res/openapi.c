// SPDX-License-Identifier: Apache-2.0
// openapi.c - the document: operations are gathered from resource and route rows and grouped by
// path. What stands in an operation is openapi_part.c's, schemas of fields are openapi_field.c's.
// The address of a project's operations may also start with /p/{project}: said by a second server,
// not by a second path.
// Threads: any; one writer each.
#include "res/openapi_impl.h"
#include <assert.h>
#include <pthread.h>

enum { TEXT_MAX_BYTES = 8 << 20 };

// ---- gathering

static str plain_path(Arena *a, const char *pattern) {
    char *p = arena_alloc_raw(a, strlen(pattern) + 1);
    size_t n = 0;
    for (const char *z = pattern; *z; z++)
        if (*z != '*') p[n++] = *z;
    return (str){ p, n };
}

static void add(Writer *w, Operation op, const char *pattern) {
    op.path = plain_path(w->mem, pattern);
    if (w->n == w->room) {
        w->at = arena_grow_raw(w->mem, w->at, w->n * sizeof op, (w->room + 256) * sizeof op);
        w->room += 256;
    }
    w->at[w->n++] = op;
}

static void add_resource(Writer *w, const Module *m, const Resource *r) {
    static const struct {
        OpKind kind;
        HttpMethod method;
        const char *tail;
        unsigned without;
    } faces[] = {
        { OP_LIST, HTTP_GET, "", 0 },
        { OP_CREATE, HTTP_POST, "", RES_NO_CREATE },
        { OP_GET, HTTP_GET, "/{id}", 0 },
        { OP_PATCH, HTTP_PATCH, "/{id}", RES_NO_UPDATE },
        { OP_DELETE, HTTP_DELETE, "/{id}", RES_NO_DELETE },
    };
    Operation op = { .module = m, .table = table_of(r) };
    for (size_t i = 0; i < countof(faces); i++) {
        if (r->flags & faces[i].without) continue;
        op.kind = faces[i].kind;
        op.method = faces[i].method;
        add(w, op, arena_printf(w->mem, "/lathe/v1/%s%s", r->plural, faces[i].tail).p);
    }
    op.kind = OP_ACTION;
    op.method = HTTP_POST;
    for (const Action *a = r->actions; a && a->verb; a++) {
        op.action = a;
        add(w, op, arena_printf(w->mem, "/lathe/v1/%s/{id}/%s", r->plural, a->verb).p);
    }
}

static void gather(Writer *w) {
    for (const Module *const *m = w->mods; *m; m++) {
        for (const Resource *const *r = (*m)->resources; r && *r; r++) add_resource(w, *m, *r);
        for (const Route *r = (*m)->routes; r && r->pattern; r++)
            add(w, (Operation){ .kind = OP_ROUTE, .method = r->method, .module = *m, .route = r },
                r->pattern);
    }
}

// ---- what an operation is

static const char *verb_of(const Operation *op) {
    static const char *const verbs[] = { "list", "create", "get", "update", "delete" };
    return op->kind == OP_ACTION ? op->action->verb : verbs[op->kind];
}

static const char *method_name(Writer *w, const Operation *op) {
    const char *upper = http_method_name(op->method);
    char *z = (char *)(uintptr_t)arena_z(w->mem, str_z(upper));
    for (char *p = z; *p; p++) *p = (char)(*p | 0x20);
    return z;
}

static str operation_id(Writer *w, const Operation *op) {
    if (op->route) {
        str path = openapi_camel(w->mem, arena_z(w->mem, op->path));
        return arena_printf(w->mem, "%s" STR_FMT, method_name(w, op), STR_ARG(path));
    }
    const Resource *r = op->table->r;
    str about = openapi_camel(w->mem, op->kind == OP_LIST ? r->plural : r->name);
    return arena_printf(w->mem, "%s" STR_FMT, verb_of(op), STR_ARG(about));
}

// ---- operations

static void operation(Writer *w, const Operation *op, str path) {
    static const char *const words[][2] = {
        { "List", "列出" },   { "Create", "创建" }, { "Get", "获取" },
        { "Change", "修改" }, { "Delete", "删除" },
    };
    const Resource *r = op->table ? op->table->r : NULL;
    const char *en = op->route ? op->route->en : op->action ? op->action->en : NULL;
    const char *zh = op->route ? op->route->zh : op->action ? op->action->zh : NULL;
    if (!en) {
        en = arena_printf(w->mem, "%s: %s", words[op->kind][0], r->en).p;
        zh = arena_printf(w->mem, "%s：%s", words[op->kind][1], r->zh).p;
    }
    json_key(w->j, method_name(w, op));
    json_obj(w->j);
    json_kv_str(w->j, "operationId", operation_id(w, op));
    openapi_describe(w->j, "summary", en, zh);
    json_key(w->j, "tags");
    json_arr(w->j);
    json_put_str(w->j, str_z(op->module->name));
    json_end_arr(w->j);
    const char *permission =
        op->route ? op->route->permission : resource_permission(w->mem, r, verb_of(op)).p;
    if (permission) json_kv_z(w->j, "x-permission", permission);
    if (op->route && op->route->flags & ROUTE_STREAM) json_kv_bool(w->j, "x-stream", true);
    if (op->route && op->route->flags & ROUTE_PUBLIC) json_kv_raw(w->j, "security", S("[]"));
    openapi_parameters(w, op, path);
    openapi_body(w, op);
    openapi_answers(w, op);
    json_end_obj(w->j);
}

// Equal but for the names of their parameters.
static bool same_path(str a, str b) {
    for (;;) {
        str x = { 0 }, y = { 0 };
        bool more_a = str_cut(&a, '/', &x), more_b = str_cut(&b, '/', &y);
        if (more_a != more_b) return false;
        if (!more_a) return true;
        bool both = str_starts(x, S("{")) && str_starts(y, S("{"));
        if (!both && !str_eq(x, y)) return false;
    }
}

static void paths(Writer *w) {
    json_key(w->j, "paths");
    json_obj(w->j);
    for (size_t i = 0; i < w->n; i++) {
        if (w->at[i].done) continue;
        str path = w->at[i].path;
        json_key_str(w->j, path);
        json_obj(w->j);
        if (openapi_in_project(&w->at[i]))
            json_kv_raw(w->j, "servers",
                        S("[{\"url\":\"/\"},{\"url\":\"/p/{project}\",\"variables\":"
                          "{\"project\":{\"default\":\"default\"}}}]"));
        for (size_t k = i; k < w->n; k++) {
            if (w->at[k].done || !same_path(w->at[k].path, path)) continue;
            operation(w, &w->at[k], path);
            w->at[k].done = true;
        }
        json_end_obj(w->j);
    }
    json_end_obj(w->j);
}

static void head(Writer *w) {
    json_kv_z(w->j, "openapi", "3.1.0");
    json_kv_raw(w->j, "info",
                S("{\"title\":\"Lathe\",\"version\":\"1\",\"summary\":\"LLMOps platform\","
                  "\"license\":{\"name\":\"Apache-2.0\",\"identifier\":\"Apache-2.0\"}}"));
    json_kv_raw(w->j, "servers", S("[{\"url\":\"/\"}]"));
    json_kv_raw(w->j, "security", S("[{\"bearer\":[]}]"));
    json_key(w->j, "tags");
    json_arr(w->j);
    for (const Module *const *m = w->mods; *m; m++) {
        json_obj(w->j);
        json_kv_z(w->j, "name", (*m)->name);
        openapi_describe(w->j, "description", (*m)->en, (*m)->zh);
        json_end_obj(w->j);
    }
    json_end_arr(w->j);
}

void openapi_write(const Module *const mods[], Json *j) {
    Writer w = { .mem = arena_new(), .j = j, .mods = mods };
    gather(&w);
    json_obj(j);
    head(&w);
    paths(&w);
    openapi_components(&w);
    json_end_obj(j);
    arena_free(w.mem);
}

str openapi_text(const Module *const mods[]) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static const Module *const *of;
    static Buf text;
    pthread_mutex_lock(&lock);
    if (of != mods) {
        buf_done(&text), buf_init(&text, TEXT_MAX_BYTES);
        Json j = json_to(&text);
        openapi_write(mods, &j);
        assert(!text.full);
        of = mods;
    }
    str out = buf_str(&text);
    pthread_mutex_unlock(&lock);
    return out;
}
