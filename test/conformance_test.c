// SPDX-License-Identifier: Apache-2.0
// conformance_test.c - what every row of every module must hold, whoever wrote it: documented in
// both languages, no two alike, permissions well-formed, the schema as the rows say, every route
// closed to those who lack its permission, and no route that shows another project's row.
#include "conformance_test.h"
#include <ctype.h>
#include <stdlib.h>

// ---- rows alone

static bool chinese(const char *zh) {
    for (const char *p = zh; p && *p; p++)
        if (*p & 0x80) return true;
    return false;
}

// Some words are the same in both languages: those of Latin letters without a space.
static void check_doc(const char *where, const char *name, const char *en, const char *zh) {
    if (!en || !*en) COMPLAIN("%s %s has no English text", where, name);
    if (!zh || !*zh) COMPLAIN("%s %s has no Chinese text", where, name);
    bool word = zh && en && !strcmp(en, zh) && !strchr(zh, ' ');
    if (zh && !chinese(zh) && !word) COMPLAIN("%s %s: not Chinese: %s", where, name, zh);
}

static void check_fields(const char *where, const Field *rows) {
    for (const Field *f = rows; f && f->name; f++) {
        check_doc(where, f->name, f->en, f->zh);
        if (field_find(rows, str_z(f->name)) != f) COMPLAIN("%s: %s twice", where, f->name);
        if (field_min(f) > field_max(f)) COMPLAIN("%s: %s: min over max", where, f->name);
        if (f->type == T_OBJECT || f->type == T_LIST) check_fields(where, f->of);
        if (f->type == T_REF && !resource_find(f->of))
            COMPLAIN("%s: %s refers to no resource", where, f->name);
        for (const UnionCase *u = f->type == T_UNION ? ((const Union *)f->of)->cases : NULL;
             u && u->tag; u++)
            check_fields(where, u->rows);
    }
}

static bool permission_valid(const char *p) {
    const char *dot = p ? strchr(p, '.') : NULL;
    if (!dot || dot == p || !dot[1] || strchr(dot + 1, '.')) return false;
    for (; *p; p++)
        if (!islower((unsigned char)*p) && *p != '_' && *p != '.') return false;
    return true;
}

static void check_resource(const Resource *r) {
    check_doc("resource", r->name, r->en, r->zh);
    check_fields(r->name, r->fields);
    if (!str_is(resource_permission(test_ctx()->mem, r, "list"),
                say(test_ctx(), "%s.read", r->plural)))
        COMPLAIN("%s: permission of list", r->name);
    if (resource_find(r->name) != r || resource_find(r->plural) != r)
        COMPLAIN("%s: another resource has its name or plural", r->name);
    for (const Action *a = r->actions; a && a->verb; a++) {
        check_doc(r->name, a->verb, a->en, a->zh);
        check_fields(a->verb, a->input);
        if (!a->input != !a->input_size) COMPLAIN("%s %s: size of input", r->name, a->verb);
    }
}

static void check_routes(const Module *m) {
    for (const Route *r = m->routes; r && r->pattern; r++) {
        check_doc("route", r->pattern, r->en, r->zh);
        check_fields(r->pattern, r->query), check_fields(r->pattern, r->input);
        check_fields(r->pattern, r->output);
        if (r->permission && !permission_valid(r->permission))
            COMPLAIN("%s: permission %s", r->pattern, r->permission);
        if (!r->permission && !(r->flags & (ROUTE_PUBLIC | ROUTE_ANYONE)))
            COMPLAIN("%s asks for no permission", r->pattern);
    }
}

static void check_others(const Module *m) {
    check_doc("module", m->name, m->en, m->zh);
    for (const Setting *s = m->settings; s && s->name; s++)
        check_doc("setting", s->name, s->en, s->zh);
    for (const Metric *const *x = m->metrics; x && *x; x++)
        check_doc("metric", (*x)->name, (*x)->en, (*x)->zh);
    for (const EventKind *const *e = m->events; e && *e; e++) {
        check_doc("event", (*e)->name, (*e)->en, (*e)->zh);
        if (!permission_valid((*e)->name)) COMPLAIN("event %s: not kind.verb", (*e)->name);
    }
    for (const JobKind *const *k = m->jobs; k && *k; k++)
        check_doc("job kind", (*k)->name, (*k)->en, (*k)->zh);
    for (const Reason *const *r = m->reasons; r && *r; r++)
        check_doc("reason", (*r)->slug, (*r)->en, (*r)->zh);
    for (const CliVerb *v = m->verbs; v && v->noun; v++) check_doc("verb", v->noun, v->en, v->zh);
    for (const Retention *r = m->retentions; r && r->name; r++)
        check_doc("retention", r->name, r->en, r->zh);
    for (const RoleRow *r = m->roles; r && r->name; r++) {
        check_doc("role", r->name, r->en, r->zh);
        for (const char *const *p = r->permissions; *p; p++)
            if (strcmp(*p, "*") && !permission_valid(*p + (**p == '*')) && **p != '*'
                && !strchr(*p, '*'))
                COMPLAIN("role %s: permission %s", r->name, *p);
    }
}

TEST(conformance_rows_are_documented) {
    tables_init(lathe_modules);
    check_fields("head", head_rows), check_fields("head", reconciled_rows);
    for (const Module *const *m = lathe_modules; *m; m++) {
        check_others(*m), check_routes(*m);
        for (const Resource *const *r = (*m)->resources; r && *r; r++) check_resource(*r);
    }
}

TEST(conformance_names_are_unique) {
    for (const Module *const *m = lathe_modules; *m; m++)
        for (const Module *const *o = lathe_modules; *o; o++) {
            if (*m != *o && !strcmp((*m)->name, (*o)->name)) COMPLAIN("module %s", (*m)->name);
            for (const Setting *s = (*m)->settings; s && s->name; s++)
                for (const Setting *t = (*o)->settings; t && t->name; t++)
                    if (s != t && !strcmp(s->name, t->name)) COMPLAIN("setting %s", s->name);
            for (const Metric *const *s = (*m)->metrics; s && *s; s++)
                for (const Metric *const *t = (*o)->metrics; t && *t; t++)
                    if (s != t && !strcmp((*s)->name, (*t)->name))
                        COMPLAIN("metric %s", (*s)->name);
            for (const JobKind *const *s = (*m)->jobs; s && *s; s++)
                for (const JobKind *const *t = (*o)->jobs; t && *t; t++)
                    if (s != t && !strcmp((*s)->name, (*t)->name))
                        COMPLAIN("job kind %s", (*s)->name);
            for (const EventKind *const *s = (*m)->events; s && *s; s++)
                for (const EventKind *const *t = (*o)->events; t && *t; t++)
                    if (s != t && !strcmp((*s)->name, (*t)->name)) COMPLAIN("event %s", (*s)->name);
        }
}

// The same pattern once parameters have no name.
static const char *shape(Ctx *c, const char *pattern) {
    char *z = new (c->mem, char, strlen(pattern) + 1), *to = z;
    for (const char *p = pattern; *p; p++) {
        *to++ = *p;
        while (*p == '{' && p[1] && p[1] != '}') p++;
    }
    return z;
}

TEST(conformance_no_two_routes_clash) {
    Ctx *c = test_ctx();
    const NetRoute *const *all;
    size_t n;
    tables_init(lathe_modules);
    CHECK_OK(c, bindings_build(c, lathe_modules, &all, &n));
    CHECK(n > 100);
    for (size_t i = 0; i < n; i++)
        for (size_t k = i + 1; k < n; k++)
            if (all[i]->method == all[k]->method
                && !strcmp(shape(c, all[i]->pattern), shape(c, all[k]->pattern)))
                COMPLAIN("%s %s and %s", http_method_name(all[i]->method), all[i]->pattern,
                         all[k]->pattern);
}

// ---- the schema

static const char *column_type(const Field *f) {
    switch (f->type) {
    case T_INT:
    case T_MONEY:
    case T_TIME:
    case T_BOOL: return "INTEGER";
    case T_REAL: return "REAL";
    default: return "TEXT";
    }
}

static const Column *column_find(const Column *at, size_t n, const char *name) {
    for (size_t i = 0; i < n; i++)
        if (str_is(at[i].name, name)) return &at[i];
    return NULL;
}

static void check_column(const ResTable *t, const Field *f, const Column *col) {
    if (!col) {
        COMPLAIN("table %s lacks column %s", t->r->plural, f->name);
        return;
    }
    str type = str_is(col->type, "BIGINT") ? S("INTEGER") : col->type;
    if (!str_is(type, column_type(f)))
        COMPLAIN("%s.%s is " STR_FMT, t->r->plural, f->name, STR_ARG(type));
    bool head = f->offset < sizeof(Head) && f->offset != offsetof(Head, created_by)
                && strcmp(f->name, "deleting_at") && strcmp(f->name, "conditions");
    if (head && !col->not_null && strcmp(f->name, "id") && strcmp(f->name, "observed_generation"))
        COMPLAIN("%s.%s may be null", t->r->plural, f->name);
}

CONF_TEST(conformance_schema_is_as_the_rows) {
    EACH_TABLE(t) {
        Column *columns;
        size_t n;
        CHECK_OK(f->c, db_columns(f->c, f->app->db, t->r->plural, &columns, &n));
        for (size_t i = 0; i < t->rows_n; i++)
            check_column(t, &t->rows[i], column_find(columns, n, t->rows[i].name));
        for (size_t i = 0; i < n; i++) {
            const Field *row = field_find(t->rows, columns[i].name);
            if (!row || row >= t->rows + t->rows_n)
                COMPLAIN("column %s." STR_FMT " is in no row", t->r->plural,
                         STR_ARG(columns[i].name));
        }
    }
}

// Text is ordered by its bytes on both databases, whatever the server's own order is.
CONF_TEST(conformance_text_is_ordered_by_bytes) {
    static const char *const names[] = { "z", "a_1", "B-2", "a-1", "A1", "a.1", "Z", "0", "a1" };
    EACH_TABLE(t) {
        if (f->kind != DB_POSTGRES) continue;
        int64_t n = conf_count(f,
                               "SELECT COUNT(*) FROM information_schema.columns WHERE table_schema "
                               "= 'lathe_conformance' AND table_name = $1 AND data_type = 'text' "
                               "AND collation_name IS DISTINCT FROM 'C'",
                               t->r->plural, NULL);
        if (n) COMPLAIN("%s: %lld columns are not COLLATE \"C\"", t->r->plural, (long long)n);
    }
    for (size_t i = 0; i < countof(names); i++)
        CHECK_INT(conf_do(f, &f->b, HTTP_POST, "/lathe/v1/service_accounts",
                          say(f->c, "{\"name\":\"%s\"}", names[i]))
                      .status,
                  201);
    Told t = conf_do(f, &f->b, HTTP_GET, "/lathe/v1/service_accounts?sort=name", NULL);
    size_t i, n;
    yyjson_val *v;
    str last = { 0 };
    yyjson_arr_foreach(json_get(t.json, "data"), i, n, v) {
        str name = json_get_str(v, "name");
        if (last.n && str_cmp(last, name) >= 0)
            COMPLAIN(STR_FMT " before " STR_FMT, STR_ARG(last), STR_ARG(name));
        last = name;
    }
    CHECK_INT(n, countof(names) + 1);
}

// ---- permissions

static bool granted(const RoleRow *role, const char *permission) {
    for (const char *const *p = role->permissions; *p; p++)
        if (permission_covers(str_z(*p), str_z(permission))) return true;
    return false;
}

// The pattern with its parameters filled in: {project} by the place, others by `id`.
static const char *fill(Conf *f, const char *pattern, const char *project, const char *id) {
    Buf b;
    buf_init(&b, 1000);
    for (const char *p = pattern; *p; p++) {
        if (*p != '{') {
            buf_add_char(&b, *p);
            continue;
        }
        bool place = !strncmp(p, "{project}", 9) && p == pattern + 3;
        bool second = !strncmp(p, "{upload}", 8) && strchr(id, ' '); // "MODEL UPLOAD"
        str rest = str_z(id), part;
        str_cut(&rest, ' ', &part);
        buf_add(&b, place ? str_z(project) : second ? rest : part);
        p = strchr(p, '}');
    }
    const char *path = arena_z(f->c->mem, buf_str(&b));
    buf_done(&b);
    return path;
}

static void expect_refused(Conf *f, const Binding *b, const char *key, const char *as, int want) {
    bool body = b->net.method == HTTP_POST || b->net.method == HTTP_PATCH;
    Question q = { b->net.method,
                   fill(f, b->net.pattern, f->a.project, "nothing"),
                   key,
                   body ? "{}" : NULL,
                   { { NULL } } };
    Told t = conf_ask(f, &q);
    if (t.status != want)
        COMPLAIN("%s %s as %s: %d, not %d: " STR_FMT, http_method_name(q.method), b->net.pattern,
                 as, t.status, want, STR_ARG(str_sub(t.body, 0, 200)));
    if (conf_has(t.body, f->a.owner) || conf_has(t.body, f->admin))
        COMPLAIN("%s shows a key", b->net.pattern);
}

static const char *account_key(Conf *f, const Tenant *p, const char *role) {
    Told t = conf_do(f, p, HTTP_POST, "/lathe/v1/service_accounts",
                     say(f->c, "{\"name\":\"as-%s\",\"roles\":[\"%s\"]}", role, role));
    str id = json_get_str(t.json, "id");
    if (!id.n) COMPLAIN("no account for role %s: %d " STR_FMT, role, t.status, STR_ARG(t.body));
    t = conf_do(
        f, p, HTTP_POST, "/lathe/v1/api_keys",
        say(f->c, "{\"name\":\"as-%s\",\"service_account\":\"%s\"}", role, say_str(f->c, id)));
    str key = json_get_str(t.json, "key");
    if (!key.n) COMPLAIN("no key for role %s: " STR_FMT, role, STR_ARG(t.body));
    return say_str(f->c, key);
}

static void walk_as(Conf *f, const RoleRow *role) {
    const char *key = account_key(f, &f->a, role->name);
    size_t n, refused = 0;
    const NetRoute *const *all = bindings_now(&n);
    if (!*key) return;
    for (size_t i = 0; i < n; i++) {
        const Binding *b = binding_of(all[i]);
        if (b->open || (b->scope == SCOPE_PROJECT && granted(role, b->permission))) continue;
        expect_refused(f, b, key, role->name, 403);
        refused++;
    }
    if (!refused) COMPLAIN("role %s is refused nothing", role->name);
}

CONF_TEST(conformance_routes_refuse_who_lacks_permission) {
    for (const Module *const *m = lathe_modules; *m; m++)
        for (const RoleRow *r = (*m)->roles; r && r->name; r++) walk_as(f, r);
}

CONF_TEST(conformance_routes_refuse_nobody) {
    size_t n;
    const NetRoute *const *all = bindings_now(&n);
    for (size_t i = 0; i < n; i++) {
        const Binding *b = binding_of(all[i]);
        if (b->open && b->route->flags & ROUTE_PUBLIC) continue;
        expect_refused(f, b, NULL, "nobody", 401);
        expect_refused(f, b, "lathe_00000000000000000000000000_0", "an unknown key", 401);
    }
}

// A key of project B that names project A, in the path or in a header.
CONF_TEST(conformance_routes_refuse_another_projects_key) {
    size_t n;
    const NetRoute *const *all = bindings_now(&n);
    for (size_t i = 0; i < n; i++) {
        const Binding *b = binding_of(all[i]);
        if (b->open || b->scope != SCOPE_PROJECT) continue;
        if (strstr(b->net.pattern, "/p/{project}")) {
            expect_refused(f, b, f->b.owner, "another project", 403);
            continue;
        }
        Question q = { b->net.method,
                       fill(f, b->net.pattern, "", "nothing"),
                       f->far.owner,
                       NULL,
                       { { "lathe-project", f->a.project } } };
        Told t = conf_ask(f, &q);
        if (t.status != 403) COMPLAIN("%s %s: %d", http_method_name(q.method), q.path, t.status);
    }
}

// ---- tenants

static Told ask_at(Conf *f, const Tenant *p, HttpMethod method, const char *path,
                   const char *body) {
    Question q = { method, path, p->owner, body, { { NULL } } };
    return conf_ask(f, &q);
}

// Asks as the other place does: with the project's own key, or, for what an organisation holds,
// with the system's key acting in the other organisation.
static Told ask_as_other(Conf *f, const Resource *r, HttpMethod method, const char *path,
                         const char *body) {
    Tenant far = { .org = f->far.org };
    return r->scope == SCOPE_PROJECT ? ask_at(f, &f->b, method, path, body)
                                     : conf_do(f, &far, method, path, body);
}

static void expect_hidden(Conf *f, const Resource *r, HttpMethod method, const char *path,
                          const char *body) {
    Told t = ask_as_other(f, r, method, path, body);
    if (t.status != 404)
        COMPLAIN("%s %s of another place: %d " STR_FMT, http_method_name(method), path, t.status,
                 STR_ARG(str_sub(t.body, 0, 200)));
}

static void expect_unlisted(Conf *f, const Resource *r, const char *id) {
    const char *asks[] = { "limit=1000", "limit=1000&sort=-created_at", "format=csv",
                           "format=ndjson", "q=conf" };
    if (r->flags & RES_LOG) asks[1] = "limit=1000&sort=-id";
    const char *filter = say(f->c, "id=%s", id);
    for (size_t i = 0; i <= countof(asks); i++) {
        const char *path =
            say(f->c, "%s?%s", conf_path(f, r, NULL), i < countof(asks) ? asks[i] : filter);
        Told t = ask_as_other(f, r, HTTP_GET, path, NULL);
        if (t.status != 200) COMPLAIN("%s: %d " STR_FMT, path, t.status, STR_ARG(t.body));
        if (conf_has(t.body, id)) COMPLAIN("%s shows another place's row", path);
    }
}

static const char *other_name(Conf *f, const Resource *r, const Told *own) {
    int64_t number = 0;
    str model = json_get_str(own->json, "model");
    if (!r->resolve || !model.n || !json_get_i64(own->json, "number", &number)) return NULL;
    Told m =
        conf_do(f, &f->a, HTTP_GET, say(f->c, "/lathe/v1/models/" STR_FMT, STR_ARG(model)), NULL);
    const char *name =
        say(f->c, "%s:%lld", say_str(f->c, json_get_str(m.json, "name")), (long long)number);
    Told found = conf_do(f, &f->a, HTTP_GET, conf_path(f, r, name), NULL);
    if (found.status != 200) COMPLAIN("%s %s: %d", r->name, name, found.status);
    return name;
}

static void check_tenant(Conf *f, const Resource *r) {
    const char *id = conf_make(f, &f->a, r), *path = conf_path(f, r, id), *patch = "{}";
    if (!*id) return; // conf_make has said why
    Told own = conf_do(f, &f->a, HTTP_GET, path, NULL);
    if (own.status != 200) COMPLAIN("%s: not shown to its own project: %d", path, own.status);
    conf_patch(f, r->scope == SCOPE_PROJECT ? &f->b : &f->far, r, &patch);
    expect_hidden(f, r, HTTP_GET, path, NULL);
    str name = json_get_str(own.json, "name");
    if (name.n) expect_hidden(f, r, HTTP_GET, conf_path(f, r, say_str(f->c, name)), NULL);
    const char *other = other_name(f, r, &own); // what Resource.resolve knows it by
    if (other) expect_hidden(f, r, HTTP_GET, conf_path(f, r, other), NULL);
    if (!(r->flags & RES_NO_UPDATE)) expect_hidden(f, r, HTTP_PATCH, path, patch);
    for (const Action *a = r->actions; a && a->verb; a++)
        expect_hidden(f, r, HTTP_POST, say(f->c, "%s/%s", path, a->verb), "{}");
    if (!(r->flags & RES_NO_DELETE)) expect_hidden(f, r, HTTP_DELETE, path, NULL);
    expect_unlisted(f, r, id);
    Told after = conf_do(f, &f->a, HTTP_GET, path, NULL);
    if (after.status != 200) COMPLAIN("%s was changed from outside: %d", path, after.status);
}

CONF_TEST(conformance_no_route_shows_another_tenants_row) {
    EACH_TABLE(t) if (t->r->scope != SCOPE_SYSTEM) check_tenant(f, t->r);
}

// Hand-written routes below an object of project A, asked by project B: the object is not there.
static void check_route(Conf *f, const Binding *b, const char *id) {
    const char *path = fill(f, b->net.pattern, f->b.project, id);
    bool body = b->net.method == HTTP_POST || b->net.method == HTTP_PATCH;
    Question q = {
        b->net.method, path, f->b.owner, body ? "{}" : NULL, { { "upload-offset", "0" } }
    };
    Told t = conf_ask(f, &q);
    if (t.status != 404)
        COMPLAIN("%s %s: %d " STR_FMT, http_method_name(b->net.method), path, t.status,
                 STR_ARG(str_sub(t.body, 0, 200)));
}

static err content_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(content_plant, "INSERT INTO trace_content (id, project, at, prompt, answer) VALUES "
                              "($1, $2, 1000, 'a prompt', 'an answer')");
    const char *const *ids = arg;
    return db_run(c, tx, &content_plant, V(ids[0]), V(ids[1]));
}

static void plant_content(Conf *f, const char *trace) {
    const char *ids[] = { trace, f->a.project };
    CHECK_OK(f->c, db_tx(f->c, f->app->db, content_tx, ids));
}

// Whose object a hand-written path names: a resource's plural, or jobs.
static const char *object_of(Conf *f, const char *pattern) {
    const char *at = strstr(pattern, "/lathe/v1/");
    if (!at || !strchr(at, '{')) return NULL;
    str rest = str_z(at + strlen("/lathe/v1/")), plural;
    str_cut(&rest, '/', &plural);
    if (str_is(plural, "jobs")) {
        Told t = conf_do(f, &f->a, HTTP_POST, "/lathe/v1/model_versions",
                         conf_body(f, &f->a, resource_find("model_version"), 0, NULL));
        return say_str(f->c, json_get_str(t.json, "job"));
    }
    if (strstr(pattern, "{upload}")) {
        const char *upload = conf_make(f, &f->a, resource_find("model_upload"));
        Told t = conf_do(f, &f->a, HTTP_GET, say(f->c, "/lathe/v1/model_uploads/%s", upload), NULL);
        return say(f->c, "%s %s", say_str(f->c, json_get_str(t.json, "model")), upload);
    }
    const Resource *r = resource_find(say_str(f->c, plural));
    const char *id = r ? conf_make(f, &f->a, r) : NULL;
    if (id && !strcmp(r->name, "trace")) plant_content(f, id);
    return id;
}

CONF_TEST(conformance_hand_written_routes_keep_tenants_apart) {
    size_t n, walked = 0;
    const NetRoute *const *all = bindings_now(&n);
    for (size_t i = 0; i < n; i++) {
        const Binding *b = binding_of(all[i]);
        if (b->kind != BIND_ROUTE || b->open || b->scope != SCOPE_PROJECT) continue;
        const char *id = object_of(f, b->net.pattern);
        if (id) check_route(f, b, id), walked++;
    }
    CHECK(walked >= 10);
}
