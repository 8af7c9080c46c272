// SPDX-License-Identifier: Apache-2.0
// schema.c - see schema.h. Hidden fields stay hidden; everything else that a row says is here, in
// both languages, so that a client draws forms without knowing any resource.
// Threads: any; one writer each.
#include "res/schema.h"
#include "base/time.h"
#include "res/field_impl.h"
#include "res/table.h"

static void put_doc(Json *j, const char *en, const char *zh) {
    json_kv_z(j, "en", en ? en : "");
    json_kv_z(j, "zh", zh && *zh ? zh : en ? en : "");
}

static void put_fields(Json *j, const char *key, const Field *rows);

static void put_flags(Json *j, unsigned flags) {
    static const struct {
        unsigned flag;
        const char *name;
    } names[] = {
        { REQUIRED, "required" }, { UNIQUE, "unique" },       { INDEXED, "indexed" },
        { STATUS, "status" },     { IMMUTABLE, "immutable" }, { SEARCHED, "searched" },
        { COLUMN, "column" },     { SORTED_SET, "set" },
    };
    json_key(j, "flags");
    json_arr(j);
    for (size_t i = 0; i < countof(names); i++)
        if (flags & names[i].flag) json_put_str(j, str_z(names[i].name));
    json_end_arr(j);
}

static void put_limits(Json *j, const Field *f) {
    bool limited = f->type == T_TEXT || f->type == T_INT || f->type == T_MONEY || f->type == T_LIST
                   || f->type == T_SECRET || f->type == T_REF || f->type == T_JSON;
    if (!limited) return;
    if (f->type == T_MONEY) {
        Arena *a = arena_new();
        json_kv_str(j, "min", money_format(a, field_min(f)));
        json_kv_str(j, "max", money_format(a, field_max(f)));
        arena_free(a);
        return;
    }
    json_kv_i64(j, "min", field_min(f));
    json_kv_i64(j, "max", field_max(f));
}

static void put_cases(Json *j, const Union *u) {
    json_kv_z(j, "tag", u->tag);
    json_key(j, "cases");
    json_arr(j);
    for (const UnionCase *one = u->cases; one->tag; one++) {
        json_obj(j);
        json_kv_z(j, "value", one->tag);
        put_fields(j, "fields", one->rows);
        json_end_obj(j);
    }
    json_end_arr(j);
}

static void put_inner(Json *j, const Field *f) {
    const Field *rows = f->of;
    if (f->type == T_REF) json_kv_z(j, "reference", f->of);
    if (f->type == T_UNION) put_cases(j, f->of);
    if (f->type == T_OBJECT) put_fields(j, "fields", rows);
    if (f->type == T_LIST && *rows->name) put_fields(j, "fields", rows);
    if (f->type == T_LIST && !*rows->name) {
        json_kv_z(j, "items", type_name(rows->type));
        json_kv_i64(j, "item_max", field_max(rows));
    }
    if (f->type != T_ENUM) return;
    json_key(j, "names");
    json_arr(j);
    for (const char *const *z = enum_names(f); *z; z++) json_put_str(j, str_z(*z));
    json_end_arr(j);
}

static void put_fields(Json *j, const char *key, const Field *rows) {
    json_key(j, key);
    json_arr(j);
    for (const Field *f = rows; f && f->name; f++) {
        if (f->flags & HIDDEN) continue;
        json_obj(j);
        json_kv_z(j, "name", f->name);
        json_kv_z(j, "type", type_name(f->type));
        put_flags(j, f->flags);
        put_limits(j, f);
        put_inner(j, f);
        if (f->fallback) json_kv_z(j, "default", f->fallback);
        put_doc(j, f->en, f->zh);
        json_end_obj(j);
    }
    json_end_arr(j);
}

static void put_permission(Json *j, const Resource *r, const char *verb) {
    Arena *a = arena_new();
    json_kv_str(j, "permission", resource_permission(a, r, verb));
    arena_free(a);
}

static void put_verbs(Json *j, const Resource *r) {
    static const struct {
        const char *name;
        unsigned without;
    } verbs[] = { { "list", 0 },
                  { "get", 0 },
                  { "create", RES_NO_CREATE },
                  { "update", RES_NO_UPDATE },
                  { "delete", RES_NO_DELETE } };
    json_key(j, "verbs");
    json_arr(j);
    for (size_t i = 0; i < countof(verbs); i++) {
        if (r->flags & verbs[i].without) continue;
        json_obj(j);
        json_kv_z(j, "verb", verbs[i].name);
        put_permission(j, r, verbs[i].name);
        json_end_obj(j);
    }
    json_end_arr(j);
    json_key(j, "actions");
    json_arr(j);
    for (const Action *a = r->actions; a && a->verb; a++) {
        json_obj(j);
        json_kv_z(j, "verb", a->verb);
        json_kv_bool(j, "job", a->kind == ACTION_JOB);
        put_permission(j, r, a->verb);
        put_fields(j, "input", a->input);
        put_doc(j, a->en, a->zh);
        json_end_obj(j);
    }
    json_end_arr(j);
}

static void put_resource(Json *j, const Module *m, const ResTable *t) {
    static const char *const scopes[] = { "system", "organisation", "project" };
    const Resource *r = t->r;
    json_obj(j);
    json_kv_z(j, "name", r->name);
    json_kv_z(j, "plural", r->plural);
    json_kv_z(j, "module", m->name);
    json_kv_z(j, "prefix", r->prefix);
    json_kv_z(j, "scope", scopes[r->scope]);
    json_kv_bool(j, "named", !(r->flags & RES_UNNAMED));
    json_kv_bool(j, "reconciled", (r->flags & RES_RECONCILED) != 0);
    json_kv_i64(j, "retain_days", r->retain_days);
    put_fields(j, "fields", t->rows);
    put_verbs(j, r);
    put_doc(j, r->en, r->zh);
    json_end_obj(j);
}

static void put_routes(Json *j, const Module *m) {
    for (const Route *r = m->routes; r && r->pattern; r++) {
        json_obj(j);
        json_kv_z(j, "method", http_method_name(r->method));
        json_kv_z(j, "path", r->pattern);
        json_kv_z(j, "module", m->name);
        json_kv_z(j, "permission", r->permission);
        json_kv_bool(j, "stream", (r->flags & ROUTE_STREAM) != 0);
        put_fields(j, "query", r->query);
        put_fields(j, "input", r->input);
        put_fields(j, "output", r->output);
        put_doc(j, r->en, r->zh);
        json_end_obj(j);
    }
}

static void put_events(Json *j, const Module *m) {
    for (const EventKind *const *e = m->events; e && *e; e++) {
        json_obj(j);
        json_kv_z(j, "name", (*e)->name);
        json_kv_z(j, "module", m->name);
        put_doc(j, (*e)->en, (*e)->zh);
        json_end_obj(j);
    }
}

static void put_roles(Json *j, const Module *m) {
    for (const RoleRow *r = m->roles; r && r->name; r++) {
        json_obj(j);
        json_kv_z(j, "name", r->name);
        json_key(j, "permissions");
        json_arr(j);
        for (const char *const *p = r->permissions; p && *p; p++) json_put_str(j, str_z(*p));
        json_end_arr(j);
        put_doc(j, r->en, r->zh);
        json_end_obj(j);
    }
}

static void put_resources(Json *j, const Module *m) {
    for (const Resource *const *r = m->resources; r && *r; r++) put_resource(j, m, table_of(*r));
}

static void put_module(Json *j, const Module *m) {
    json_obj(j);
    json_kv_z(j, "name", m->name);
    put_doc(j, m->en, m->zh);
    json_end_obj(j);
}

void schema_write(const Module *const mods[], Json *j) {
    static const struct {
        const char *name;
        void (*put)(Json *j, const Module *m);
    } parts[] = { { "modules", put_module },
                  { "resources", put_resources },
                  { "routes", put_routes },
                  { "events", put_events },
                  { "roles", put_roles } };
    json_obj(j);
    for (size_t i = 0; i < countof(parts); i++) {
        json_key(j, parts[i].name);
        json_arr(j);
        for (const Module *const *m = mods; *m; m++) parts[i].put(j, *m);
        json_end_arr(j);
    }
    json_end_obj(j);
}
