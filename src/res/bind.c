// SPDX-License-Identifier: Apache-2.0
// bind.c - from rows to routes: the derived ones of each resource, the hand-written ones of each
// module, and what all of them share: identification, permission, the error's shape, the access
// log.
#include "res/bind.h"
#include "res/kit.h"
#include "base/log.h"
#include <assert.h>
#include <limits.h>
#include <stdio.h>

typedef struct Builder {
    Ctx *c;
    Arena *mem;
    Binding **at;
    size_t n, room;
} Builder;

static Binding *push(Builder *b, const Binding *like, const char *pattern) {
    assert(b->n < b->room);
    Binding *one = new (b->mem, Binding, 1);
    *one = *like;
    one->net.pattern = pattern, one->net.owner = one;
    return b->at[b->n++] = one;
}

static void push_both(Builder *b, const Binding *like, const char *pattern, bool project) {
    push(b, like, pattern);
    if (project) push(b, like, arena_printf(b->mem, "/p/{project}%s", pattern).p);
}

static const char *permission(Builder *b, const ResTable *t, const char *verb) {
    return resource_permission(b->mem, t->r, verb).p;
}

enum { CRUD_BODY_MAX = 1 << 20, CRUD_TIMEOUT_MS = 60000 };

static void bind_resource(Builder *b, const ResTable *t) {
    const struct {
        BindKind kind;
        HttpMethod method;
        const char *tail, *verb;
        unsigned without;
        void *serve;
    } faces[] = {
        { BIND_LIST, HTTP_GET, "", "list", 0, crud_list },
        { BIND_CREATE, HTTP_POST, "", "create", RES_NO_CREATE, crud_create },
        { BIND_GET, HTTP_GET, "/{id}", "get", 0, crud_get },
        { BIND_PATCH, HTTP_PATCH, "/{id}", "update", RES_NO_UPDATE, crud_patch },
        { BIND_DELETE, HTTP_DELETE, "/{id}", "delete", RES_NO_DELETE, crud_delete },
    };
    bool project = t->r->scope == SCOPE_PROJECT;
    Binding like = { .net = { .timeout_ms = CRUD_TIMEOUT_MS }, .table = t, .scope = t->r->scope };
    for (size_t i = 0; i < countof(faces); i++) {
        if (t->r->flags & faces[i].without) continue;
        bool writes = faces[i].kind == BIND_CREATE || faces[i].kind == BIND_PATCH;
        like.kind = faces[i].kind, like.net.method = faces[i].method,
        like.net.body_max = writes ? CRUD_BODY_MAX : 0;
        like.net.serve = (err(*)(Ctx *, const NetRoute *, const HttpRequest *, const HttpBody *,
                                 HttpReply *))faces[i]
                             .serve;
        like.permission = permission(b, t, faces[i].verb);
        push_both(b, &like, arena_printf(b->mem, "/lathe/v1/%s%s", t->r->plural, faces[i].tail).p,
                  project);
    }
    like.kind = BIND_ACTION, like.net.method = HTTP_POST, like.net.serve = crud_action,
    like.net.body_max = CRUD_BODY_MAX;
    for (const Action *a = t->r->actions; a && a->verb; a++) {
        like.action = a, like.permission = permission(b, t, a->verb);
        push_both(b, &like, arena_printf(b->mem, "/lathe/v1/%s/{id}/%s", t->r->plural, a->verb).p,
                  project);
    }
}

static err query_unknown(Ctx *c, const Field *rows, str name) {
    const char *nearest = "";
    unsigned best = UINT_MAX;
    for (const Field *f = rows; f->name; f++) {
        unsigned d = str_distance(name, str_z(f->name));
        if (d < best) best = d, nearest = f->name;
    }
    return fail(c, ERR_INVALID, R_FIELD_UNKNOWN, "field", say_str(c, name), "nearest", nearest);
}

// A query that is not understood is refused: a filter that is misspelt must not give everything.
err query_check(Ctx *c, const Field *rows, const HttpRequest *r) {
    struct {
        _Alignas(max_align_t) char bytes[32];
    } box;
    str rest = r->query, name, value;
    while (http_query_next(c->mem, &rest, &name, &value)) {
        const Field *f = field_find(rows, name);
        if (!f) return query_unknown(c, rows, name);
        Field at = *f;
        at.offset = 0;
        TRY(field_from_text(c, &at, &box, value));
    }
    return ERR_OK;
}

err query_read(Ctx *c, const Field *rows, void *base, const HttpRequest *r) {
    str rest = r->query, name, value;
    fields_default(c->mem, rows, base);
    while (http_query_next(c->mem, &rest, &name, &value)) {
        const Field *f = field_find(rows, name);
        if (!f) return query_unknown(c, rows, name);
        TRY(field_from_text(c, f, base, value));
    }
    return ERR_OK;
}

static err serve_route(Ctx *c, const NetRoute *n, const HttpRequest *r, const HttpBody *body,
                       HttpReply *out) {
    const Route *route = binding_of(n)->route;
    if (route->query) TRY(query_check(c, route->query, r));
    return route->serve(c, r, body, out);
}
static void stream_route(Exchange *x, const NetRoute *n) { binding_of(n)->route->stream(x); }

static void bind_route(Builder *b, const Route *r) {
    bool streams = r->flags & ROUTE_STREAM;
    assert(streams ? !!r->stream : !!r->serve);
    bool open = r->flags & (ROUTE_PUBLIC | ROUTE_ANYONE);
    assert(!!r->permission != open);
    Binding like = {
        .net = { .method = r->method, .body_max = r->body_max, .timeout_ms = r->timeout_ms },
        .kind = BIND_ROUTE,
        .route = r
    };
    if (!streams && !like.net.timeout_ms) like.net.timeout_ms = CRUD_TIMEOUT_MS;
    if (streams) like.net.stream = stream_route;
    else like.net.serve = serve_route;
    like.permission = r->permission;
    like.open = open;
    like.scope = r->flags & ROUTE_ORG              ? SCOPE_ORG
                 : open || r->flags & ROUTE_SYSTEM ? SCOPE_SYSTEM
                                                   : SCOPE_PROJECT;
    push_both(b, &like, r->pattern, like.scope == SCOPE_PROJECT);
}

static struct {
    const NetRoute *const *at;
    size_t n;
} built;
const NetRoute *const *bindings_now(size_t *out_n) {
    *out_n = built.n;
    return built.at;
}

bool permission_exists(str granted) {
    for (size_t i = 0; i < built.n; i++) {
        const char *asked = binding_of(built.at[i])->permission;
        if (asked && permission_covers(granted, str_z(asked))) return true;
    }
    return false;
}

err bindings_build(Ctx *c, const Module *const mods[], const NetRoute *const **out, size_t *out_n) {
    static Arena *mem; // the routes of the running program
    arena_free(mem);
    mem = arena_new();
    Builder b = { c, mem, NULL, 0, 0 };
    for (size_t i = 0; i < tables_count(); i++) {
        b.room += 10;
        for (const Action *a = table_at(i)->r->actions; a && a->verb; a++) b.room += 2;
    }
    for (const Module *const *m = mods; *m; m++)
        for (const Route *r = (*m)->routes; r && r->pattern; r++) b.room += 2;
    b.at = new (mem, Binding *, b.room + 1);
    for (size_t i = 0; i < tables_count(); i++) bind_resource(&b, table_at(i));
    for (const Module *const *m = mods; *m; m++)
        for (const Route *r = (*m)->routes; r && r->pattern; r++) bind_route(&b, r);
    *out = built.at = (const NetRoute *const *)(void *)b.at, *out_n = built.n = b.n;
    return ERR_OK;
}

// ---- what every request passes
str request_project(const HttpRequest *r) {
    str path = r->path;
    if (str_starts(path, S("/p/")) && r->params_n) return r->params[0];
    str name = http_header(r, "lathe-project");
    return name.p ? name : http_header(r, "openai-project");
}

str route_param(const HttpRequest *r, const char *pattern, const char *name) {
    size_t at = str_starts(r->path, S("/p/")) && strncmp(pattern, "/p/", 3) ? 1 : 0;
    for (const char *p = strchr(pattern, '{'); p; p = strchr(p + 1, '{'), at++) {
        size_t n = strcspn(p + 1, "*}");
        if (n == strlen(name) && !strncmp(p + 1, name, n) && at < r->params_n) return r->params[at];
    }
    return (str){ 0 };
}

static const char *language(const HttpRequest *r) {
    return str_starts(http_header(r, "accept-language"), S("zh")) ? "zh" : "en";
}

static err refuse_who(Ctx *c, const char *permission, str target) {
    App *app = app_of(c);
    if (app && app->audit_denied) app->audit_denied(c, permission, target);
    const char *who = c->who && c->who->name.n ? say_str(c, c->who->name) : "nobody";
    return fail(c, ERR_DENIED, R_FORBIDDEN, "who", who, "permission", permission);
}

err require(Ctx *c, const char *permission_wanted, str target) {
    bool may = c->who && identity_may(c->who, str_z(permission_wanted));
    return may ? ERR_OK : refuse_who(c, permission_wanted, target);
}

// A project's key acts in its project only, an organisation's key not on the system: whatever it
// may there, so this asks no permission ("*" would cover any).
static err require_scope(Ctx *c, const Binding *b, str target) {
    bool narrow = c->who
                  && ((b->scope == SCOPE_SYSTEM && c->who->org.n)
                      || (b->scope != SCOPE_PROJECT && c->who->project.n));
    if (narrow) {
        str wanted = arena_printf(c->mem, "%s (outside its project)", b->permission);
        return refuse_who(c, wanted.p, target);
    }
    if (b->scope == SCOPE_PROJECT && !c->project.n) return fail(c, ERR_INVALID, R_NO_PROJECT);
    return ERR_OK;
}

static err enter(void *app, Ctx *c, const NetRoute *n, const HttpRequest *r) {
    App *a = app;
    const Binding *b = binding_of(n);
    c->app = a, c->os = a->os, c->db = a->db, c->lang = language(r);
    if (n->stream || (b->route && b->route->flags & ROUTE_PUBLIC)) return ERR_OK;
    if (a->identify) TRY(a->identify(c, r, true)); // perhaps: see net/server.h
    if (b->open) return ERR_OK;
    TRY(require_scope(c, b, r->path));
    return require(c, b->permission, r->path);
}

// Below an optional /p/{project}.
static str bare_path(str path) {
    if (!str_starts(path, S("/p/"))) return path;
    ptrdiff_t slash = str_find_char(str_sub(path, 3, path.n), '/');
    return slash < 0 ? path : str_sub(path, 3 + (size_t)slash, path.n);
}

bool path_is_foreign(str path) { return str_starts(bare_path(path), S("/v1/")); }

static void write_params(const Failure *f, Json *j) {
    json_key(j, "params"), json_obj(j);
    for (size_t i = 0; i < FAILURE_PARAMS && f->key[i]; i++) json_kv_str(j, f->key[i], f->val[i]);
    json_end_obj(j);
}

// OpenAI's shape: {"error": {"message", "type", "param", "code"}} (platform documentation, "Error
// codes").
static const char *openai_type(err e) {
    switch (err_row(e)->http) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 402:
    case 429: return "rate_limit_error";
    default: return err_row(e)->http >= 500 ? "server_error" : "invalid_request_error";
    }
}

// How many whole segments two paths have alike at their beginning; what stands before the first
// slash is one.
static size_t segments_alike(str a, str b) {
    str x, y;
    size_t n = 0;
    while (str_cut(&a, '/', &x) && str_cut(&b, '/', &y) && str_eq(x, y)) n++;
    return n;
}

// As the clients of its route expect it; what has no route is told as the routes nearest to it
// would, if they agree: /ollama/api/show is refused in Ollama's words.
static bool refuses_itself(Ctx *c, str path, Buf *out) {
    str bare = bare_path(path);
    const Route *best = NULL;
    size_t nearest = 1;
    bool agree = true;
    for (size_t i = 0; i < built.n; i++) {
        const Route *r = binding_of(built.at[i])->route;
        bool foreign = r && r->flags & ROUTE_FOREIGN; // the others are told apart by /lathe
        size_t n = foreign ? segments_alike(str_z(r->pattern), bare) : 0;
        if (n > nearest) best = r, nearest = n, agree = true;
        else if (best && n == nearest) agree &= r->refuse == best->refuse;
    }
    if (!best || !agree || !best->refuse) return false;
    best->refuse(c, out);
    return true;
}

void error_write(Ctx *c, str path, Buf *out) {
    const Failure *f = &c->failure;
    if (refuses_itself(c, path, out)) return;
    Buf message;
    buf_init(&message, 8192);
    failure_format(f, c->lang, &message);
    str field = failure_param(f, "field");
    Json j = json_to(out);
    json_obj(&j), json_key(&j, "error"), json_obj(&j);
    json_kv_str(&j, "message", buf_str(&message));
    if (path_is_foreign(path)) {
        json_kv_z(&j, "type", openai_type(f->code));
        json_kv_str(&j, "param", field);
        json_kv_z(&j, "code", f->why ? f->why->slug : err_row(f->code)->slug);
    } else {
        json_kv_z(&j, "code", err_row(f->code)->slug);
        json_kv_z(&j, "reason", f->why ? f->why->slug : err_row(f->code)->slug);
        json_kv_str(&j, "field", field);
        write_params(f, &j);
    }
    json_kv_str(&j, "request_id", c->request_id);
    json_end_obj(&j), json_end_obj(&j);
    buf_done(&message);
}

static void refuse(void *app, Ctx *c, const HttpRequest *r, HttpReply *out) {
    (void)app;
    if (!c->lang) c->lang = language(r);
    out->status = err_row(c->failure.code)->http;
    out->type = "application/json";
    error_write(c, r->path, &out->body);
    if (out->status == 401) http_reply_header(c, out, "WWW-Authenticate", S("Bearer"));
}

// Whether a failure is told in the log: a few a second, so that a flood of refusals does not become
// one of lines; metrics count them all. *out_more: those kept quiet before this one.
static bool tells(Ctx *c, int64_t *out_more) {
    enum { A_SECOND = 20 };
    static atomic_int_least64_t second, told, quiet;
    int64_t now = os_mono_ns(c->os) / 1000000000;
    if (atomic_exchange_explicit(&second, now, memory_order_relaxed) != now)
        atomic_store_explicit(&told, 0, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&told, 1, memory_order_relaxed) >= A_SECOND) {
        atomic_fetch_add_explicit(&quiet, 1, memory_order_relaxed);
        return false;
    }
    *out_more = atomic_exchange_explicit(&quiet, 0, memory_order_relaxed);
    return true;
}

static void left(void *app, Ctx *c, const NetRoute *n, const HttpRequest *r,
                 const HttpOutcome *how) {
    char digits[STR_I64];
    str status = str_i64(how->status, digits);
    int64_t quiet = 0;
    metric_observe(&metric_http_duration, (double)how->ns / 1e9, str_z(http_method_name(r->method)),
                   str_z(n ? n->pattern : ""), status);
    c->os = ((App *)app)->os; // a head that was refused came no further
    bool failed = how->status >= 500;
    if (failed && !tells(c, &quiet)) return;
    if (quiet)
        log_at("http", LOG_WARN, c, "more requests failed than are told of", "more",
               say(c, "%lld", (long long)quiet));
    log_at("http", failed ? LOG_WARN : LOG_DEBUG, c, "request", "method",
           http_method_name(r->method), "path", n ? n->pattern : "-", "status", say_str(c, status),
           "ms", say(c, "%.3f", (double)how->ns / 1e6), "bytes",
           say(c, "%lld", (long long)how->sent_bytes));
}

void bindings_hooks(ServerConfig *config) {
    config->enter = enter, config->refuse = refuse, config->left = left;
}
