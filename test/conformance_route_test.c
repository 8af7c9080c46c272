// SPDX-License-Identifier: Apache-2.0
// conformance_route_test.c - every ROUTE row, whoever wrote it: it refuses a role that may do all
// but what it asks for, takes no query that its rows do not know, and shows nothing of a place that
// its caller is not in.
#include "conformance_test.h"

// ---- permissions
enum { PERMISSIONS_MAX = 400 };
typedef struct Permissions {
    const char *at[PERMISSIONS_MAX];
    size_t n;
} Permissions;

static void permissions_add(Permissions *all, const char *p) {
    for (size_t i = 0; i < all->n; i++)
        if (!strcmp(all->at[i], p)) return;
    if (all->n < PERMISSIONS_MAX) all->at[all->n++] = p;
}

static void permissions_of(Permissions *all) {
    size_t n;
    const NetRoute *const *routes = bindings_now(&n);
    for (size_t i = 0; i < n; i++)
        if (!binding_of(routes[i])->open) permissions_add(all, binding_of(routes[i])->permission);
}

// A key of an account whose one role has all of them but `but`, or `but` alone.
static const char *key_with(Conf *f, const Permissions *all, const char *but, bool alone) {
    Buf b;
    buf_init(&b, 1 << 16);
    size_t n = 0, made = ++f->made;
    for (size_t i = 0; i < all->n; i++)
        if (!strcmp(all->at[i], but) == alone)
            buf_printf(&b, "%s\"%s\"", n++ ? "," : "", all->at[i]);
    const char *list = arena_z(f->c->mem, buf_str(&b));
    buf_done(&b);
    conf_do(f, &f->a, HTTP_POST, "/lathe/v1/roles",
            say(f->c, "{\"name\":\"just-%zu\",\"permissions\":[%s]}", made, list));
    conf_do(f, &f->a, HTTP_POST, "/lathe/v1/service_accounts",
            say(f->c, "{\"name\":\"just-%zu\",\"roles\":[\"just-%zu\"]}", made, made));
    Told t =
        conf_do(f, &f->a, HTTP_POST, "/lathe/v1/api_keys",
                say(f->c, "{\"name\":\"just-%zu\",\"service_account\":\"just-%zu\"}", made, made));
    str key = json_get_str(t.json, "key");
    if (!key.n) COMPLAIN("no key without %s: " STR_FMT, but, STR_ARG(t.body));
    return say_str(f->c, key);
}

static const char *filled(Conf *f, const char *pattern, const char *project, const char *id) {
    Buf b;
    buf_init(&b, 1000);
    for (const char *p = pattern; *p; p++) {
        if (*p != '{') {
            buf_add_char(&b, *p);
            continue;
        }
        buf_add(&b, str_z(strncmp(p, "{project}", 9) ? id : project));
        p = strchr(p, '}');
    }
    const char *path = arena_z(f->c->mem, buf_str(&b));
    buf_done(&b);
    return path;
}

static Told ask_route(Conf *f, const Binding *b, const char *key, const char *query) {
    bool body = b->net.method == HTTP_POST || b->net.method == HTTP_PATCH;
    const char *path = say(f->c, "%s%s", filled(f, b->net.pattern, f->a.project, "nothing"), query);
    return conf_ask(f, &(Question){ b->net.method, path, key, body ? "{}" : NULL, { { NULL } } });
}

// All but the one is not enough; the one is, as far as the route itself asks. (What is missing
// "nothing" says then, or the event stream by not ending: it is told to.)
static void check_permission(Conf *f, const Permissions *all, const char *permission) {
    const char *without = key_with(f, all, permission, false),
               *with = key_with(f, all, permission, true);
    size_t n;
    const NetRoute *const *routes = bindings_now(&n);
    for (size_t i = 0; i < n; i++) {
        const Binding *b = binding_of(routes[i]);
        if (b->open || strcmp(b->permission, permission)) continue;
        const char *end = strstr(b->net.pattern, "/events") ? "?follow=false" : "";
        int status = ask_route(f, b, without, end).status;
        if (status != 403)
            COMPLAIN("%s %s without %s: %d", http_method_name(b->net.method), b->net.pattern,
                     permission, status);
        if (b->scope != SCOPE_PROJECT) continue;
        status = ask_route(f, b, with, end).status;
        if (status == 403 || status == 401 || status == 0 || status >= 500)
            COMPLAIN("%s %s with %s: %d", http_method_name(b->net.method), b->net.pattern,
                     permission, status);
    }
}

CONF_TEST(conformance_routes_ask_for_the_permission_of_their_row) {
    Permissions all = { .n = 0 };
    permissions_of(&all);
    CHECK(all.n > 50 && all.n < PERMISSIONS_MAX);
    for (size_t i = 0; i < all.n; i++) check_permission(f, &all, all.at[i]);
}

// ---- queries
static void check_parameter(Conf *f, const Binding *b, const Field *x) {
    const char *bad = x->type == T_TEXT ? say(f->c, "%0*d", (int)field_max(x) + 1, 0)
                      : x->type == T_INT && field_min(x) > INT64_MIN + 1
                          ? say(f->c, "%lld", (long long)field_min(x) - 1)
                          : "nonsense";
    const char *const values[] = { bad, x->type == T_TEXT ? "a%00b" : "1.5x" };
    for (size_t i = 0; i < countof(values); i++) {
        Told t = ask_route(f, b, f->a.owner, say(f->c, "?%s=%s", x->name, values[i]));
        if (t.status != 400 || !str_is(conf_field(&t), x->name))
            COMPLAIN("%s?%s=%s: %d " STR_FMT, b->net.pattern, x->name, values[i], t.status,
                     STR_ARG(t.body));
    }
}

CONF_TEST(conformance_routes_read_their_query) {
    size_t n, walked = 0;
    const NetRoute *const *routes = bindings_now(&n);
    for (size_t i = 0; i < n; i++) {
        const Binding *b = binding_of(routes[i]);
        if (b->kind != BIND_ROUTE || !b->route->query || b->scope != SCOPE_PROJECT) continue;
        Told t = ask_route(f, b, f->a.owner, "?no_such_parameter=1");
        if (t.status != 400 || !str_is(conf_reason(&t), "unknown_field")
            || !str_is(conf_field(&t), "no_such_parameter"))
            COMPLAIN("%s: %d " STR_FMT, b->net.pattern, t.status, STR_ARG(t.body));
        for (const Field *x = b->route->query; x->name; x++) check_parameter(f, b, x);
        walked++;
    }
    CHECK(walked >= 8);
}

// ---- places
enum { MARKS_MAX = 80 };
typedef struct Marks { // what only project A has: ids, and names that stand in no other place
    const char *at[MARKS_MAX];
    size_t n;
} Marks;

static void mark(Marks *m, const char *text) {
    if (*text && m->n < MARKS_MAX) m->at[m->n++] = text;
}
static const char *marked(const Marks *m, str body) {
    for (size_t i = 0; i < m->n; i++)
        if (conf_has(body, m->at[i])) return m->at[i];
    return NULL;
}

static err day_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(day_plant,
               "INSERT INTO usage_day (project, day, key_id, model, currency, org, requests, "
               "failed, prompt_tokens, cached_tokens, completion_tokens, machine_us, cost) VALUES "
               "($1, $2, 'model-of-a', 'model-of-a', 'USD', $3, 1, 0, 1, 0, 1, 1, 1)");
    Conf *f = arg;
    return db_run(c, tx, &day_plant, V(f->a.project), V(os_wall_ms(c->os) / 86400000), V(f->a.org));
}

// One of everything, and what requests leave: one that is refused has a trace and a roll-up.
static void fill_a(Conf *f, Marks *m) {
    Told me =
        conf_ask(f, &(Question){ HTTP_GET, "/lathe/v1/whoami", f->a.owner, NULL, { { NULL } } });
    mark(m, f->a.project), mark(m, "model-of-a");
    mark(m, say_str(f->c, json_get_str(me.json, "key")));
    EACH_TABLE(t) if (t->r->scope == SCOPE_PROJECT) mark(m, conf_make(f, &f->a, t->r));
    Told d = conf_do(f, &f->a, HTTP_GET, "/lathe/v1/deployments?limit=1", NULL);
    yyjson_val *one = yyjson_arr_get_first(json_get(d.json, "data"));
    mark(m, say(f->c, "\"%s\"", say_str(f->c, json_get_str(one, "name"))));
    Told job = conf_do(f, &f->a, HTTP_GET, "/lathe/v1/jobs?limit=1", NULL);
    one = yyjson_arr_get_first(json_get(job.json, "data"));
    mark(m, say_str(f->c, json_get_str(one, "id")));
    CHECK_OK(f->c, db_tx(f->c, f->app->db, day_tx, f));
    Question q = {
        HTTP_POST,
        "/v1/chat/completions",
        f->a.owner,
        "{\"model\":\"model-of-a\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}",
        { { NULL } }
    };
    CHECK_INT(conf_ask(f, &q).status, 404);
    conf_do(f, &f->a, HTTP_GET, "/lathe/v1/usage_totals", NULL); // what has ended is counted now
}

static bool collection(const Binding *b) {
    const char *own = strstr(b->net.pattern, "/p/{project}") ? b->net.pattern + 12 : b->net.pattern;
    return b->kind == BIND_ROUTE && b->net.method == HTTP_GET && !strchr(own, '{');
}

// Shows what answers now, and without an engine nothing does.
static bool idle(const Binding *b) { return strstr(b->net.pattern, "/ollama/api/ps") != NULL; }

static Told get_at(Conf *f, const Binding *b, const Tenant *p, const char *query) {
    const char *path = say(f->c, "%s?%s%s", filled(f, b->net.pattern, p->project, ""),
                           strstr(b->net.pattern, "/events") ? "follow=false&" : "", query);
    return conf_ask(f, &(Question){ HTTP_GET, path, p->owner, NULL, { { NULL } } });
}

static void expect_unmarked(Conf *f, const Binding *b, const Marks *m, const Tenant *p,
                            const char *query) {
    Told t = get_at(f, b, p, query);
    const char *seen = marked(m, t.body);
    if (t.status >= 500 || t.status == 0) COMPLAIN("%s?%s: %d", b->net.pattern, query, t.status);
    if (seen && !(*query && t.status == 400)) // a refusal says what it was asked
        COMPLAIN("%s?%s shows %s of another place", b->net.pattern, query, seen);
}

CONF_TEST(conformance_routes_show_nothing_of_another_place) {
    Marks m = { .n = 0 };
    size_t n, walked = 0;
    const NetRoute *const *routes = bindings_now(&n);
    fill_a(f, &m);
    CHECK(m.n >= 15);
    const Tenant *const others[] = { &f->b, &f->far };
    for (size_t i = 0; i < n; i++) {
        const Binding *b = binding_of(routes[i]);
        if (!collection(b) || b->open || b->scope != SCOPE_PROJECT) continue;
        bool sums = field_find(b->route->query, S("by")); // which name nothing by themselves
        const char *by = sums ? "by=key" : "";
        Told own = get_at(f, b, &f->a, by);
        if (own.status != 200 || (!marked(&m, own.body) && !idle(b)))
            COMPLAIN("%s shows its own place nothing: %d " STR_FMT, b->net.pattern, own.status,
                     STR_ARG(str_sub(own.body, 0, 300)));
        for (size_t k = 0; k < countof(others); k++) {
            expect_unmarked(f, b, &m, others[k], by);
            for (const Field *x = b->route->query; x && x->name; x++)
                for (size_t j = 0; x->type == T_TEXT && j < m.n; j++)
                    expect_unmarked(f, b, &m, others[k], say(f->c, "%s=%s", x->name, m.at[j]));
        }
        walked++;
    }
    CHECK(walked >= 10);
}

// Open to anyone: whoever asks sees themselves at most.
CONF_TEST(conformance_open_routes_show_no_place) {
    Marks m = { .n = 0 };
    size_t n, walked = 0;
    const NetRoute *const *routes = bindings_now(&n);
    fill_a(f, &m);
    mark(&m, f->a.owner), mark(&m, f->admin);
    for (size_t i = 0; i < n; i++) {
        const Binding *b = binding_of(routes[i]);
        if (!b->open) continue;
        expect_unmarked(f, b, &m, &f->b, "");
        if (b->route->flags & ROUTE_PUBLIC) {
            Told t =
                conf_ask(f, &(Question){ b->net.method, b->net.pattern, NULL, NULL, { { NULL } } });
            if (t.status != 200) COMPLAIN("%s: %d", b->net.pattern, t.status);
            if (marked(&m, t.body)) COMPLAIN("%s shows %s", b->net.pattern, marked(&m, t.body));
        }
        walked++;
    }
    CHECK(walked >= 5);
}

static bool ends(const char *text, const char *end) {
    size_t n = strlen(text), k = strlen(end);
    return n >= k && !strcmp(text + n - k, end);
}

// What a model is asked; translated bodies may hold nothing else.
static const char *asked_of(const char *pattern) {
    if (ends(pattern, "/embeddings") || ends(pattern, "/responses")) return "\"input\":\"x\"";
    if (ends(pattern, "/generate") || (ends(pattern, "/completions") && !strstr(pattern, "/chat/")))
        return "\"prompt\":\"x\"";
    if (ends(pattern, "/v1/messages"))
        return "\"max_tokens\":1,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]";
    return "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]";
}

// A model is named by what the body says: another place's name, and its id, are no model here.
CONF_TEST(conformance_another_places_model_is_unknown) {
    const char *id = conf_make(f, &f->a, resource_find("deployment"));
    Told d = conf_do(f, &f->a, HTTP_GET, say(f->c, "/lathe/v1/deployments/%s", id), NULL);
    const char *const names[] = { id, say_str(f->c, json_get_str(d.json, "name")) };
    size_t n, walked = 0;
    const NetRoute *const *routes = bindings_now(&n);
    for (size_t i = 0; i < n; i++) {
        const Binding *b = binding_of(routes[i]);
        bool foreign = b->kind == BIND_ROUTE && b->route->flags & ROUTE_FOREIGN;
        bool one = foreign && strstr(b->net.pattern, "{model}");
        bool of_another = strstr(b->net.pattern, "{response_id}");
        if (!foreign || of_another || (b->net.method == HTTP_GET && !one)) continue;
        for (size_t k = 0; k < countof(names); k++) {
            const char *path = filled(f, b->net.pattern, f->b.project, names[k]);
            const char *body =
                say(f->c, "{\"model\":\"%s\",%s}", names[k], asked_of(b->net.pattern));
            Question q = { b->net.method, path, f->b.owner, one ? NULL : body, { { NULL } } };
            Told t = conf_ask(f, &q);
            if (t.status != 404)
                COMPLAIN("%s %s: %d " STR_FMT, b->net.pattern, names[k], t.status, STR_ARG(t.body));
        }
        walked++;
    }
    CHECK(walked >= 8);
}
