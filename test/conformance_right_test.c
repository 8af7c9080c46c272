// SPDX-License-Identifier: Apache-2.0
// conformance_right_test.c - nobody gets more than they have: whatever a key asks for, neither it
// nor a key that it is given may do what it could not do before; a key of an organisation sees that
// organisation only; and there is always an administrator.
#include "conformance_test.h"

typedef struct Held { // what a key may do, as it says itself
    str at[64];
    size_t n;
} Held;

static Held held_by(Conf *f, const char *key) {
    Held h = { 0 };
    Told t = conf_ask(f, &(Question){ HTTP_GET, "/lathe/v1/whoami", key, NULL, { { NULL } } });
    size_t i, n;
    yyjson_val *v;
    yyjson_arr_foreach(json_get(t.json, "permissions"), i, n, v) if (h.n < countof(h.at))
        h.at[h.n++] = json_str(v);
    return h;
}

static bool within(const Held *now, const Held *was) {
    for (size_t i = 0; i < now->n; i++) {
        bool covered = false;
        for (size_t k = 0; k < was->n; k++) covered |= permission_covers(was->at[k], now->at[i]);
        if (!covered) return false;
    }
    return true;
}

typedef struct Weak { // a key that must not grow
    const char *what, *id, *key;
    Held had;
} Weak;

static Weak weak_key(Conf *f, const char *what, const char *body) {
    Told t = conf_do(f, &f->a, HTTP_POST, "/lathe/v1/api_keys", body);
    Weak w = { .what = what,
               .id = say_str(f->c, json_get_str(t.json, "id")),
               .key = say_str(f->c, json_get_str(t.json, "key")) };
    if (!*w.key) COMPLAIN("%s: %d " STR_FMT, what, t.status, STR_ARG(t.body));
    w.had = held_by(f, w.key);
    return w;
}

// Whatever the answer is, nothing may have come of it.
static void try_it(Conf *f, const Weak *w, HttpMethod method, const char *path, const char *body) {
    Told t = conf_ask(f, &(Question){ method, path, w->key, body, { { NULL } } });
    Held now = held_by(f, w->key);
    if (!within(&now, &w->had)) COMPLAIN("%s has grown by %s %s", w->what, path, body);
    str key = json_get_str(t.json, "key");
    if (!key.n) return;
    Held given = held_by(f, say_str(f->c, key));
    if (!within(&given, &w->had)) COMPLAIN("%s was given more by %s %s", w->what, path, body);
}

static const char *account_of(Conf *f, const char *name, const char *roles) {
    Told t = conf_do(f, &f->a, HTTP_POST, "/lathe/v1/service_accounts",
                     say(f->c, "{\"name\":\"%s\",\"roles\":[%s]}", name, roles));
    str id = json_get_str(t.json, "id");
    if (!id.n) COMPLAIN("%s: %d " STR_FMT, name, t.status, STR_ARG(t.body));
    return say_str(f->c, id);
}

// Each way by which rights are given, for an object that exists.
static void try_everything(Conf *f, const Weak *w, const char *strong, const char *strong_key) {
    const char *keys = "/lathe/v1/api_keys", *accounts = "/lathe/v1/service_accounts";
    const char *own = say(f->c, "%s/%s", keys, w->id),
               *other = say(f->c, "%s/%s", keys, strong_key);
    static const char *const scopes[] = { "{\"scopes\":[]}", "{\"scopes\":null}",
                                          "{\"scopes\":[\"*\"]}", "{\"scopes\":[\"*.*\"]}",
                                          "{\"scopes\":[\"*.read\",\"api_keys.*\"]}" };
    for (size_t i = 0; i < countof(scopes); i++) {
        try_it(f, w, HTTP_PATCH, own, scopes[i]), try_it(f, w, HTTP_PATCH, other, scopes[i]);
        const char *rest = scopes[i] + 1;
        try_it(f, w, HTTP_POST, keys, say(f->c, "{\"name\":\"t%zu\",%s", ++f->made, rest));
        try_it(
            f, w, HTTP_POST, keys,
            say(f->c, "{\"name\":\"t%zu\",\"service_account\":\"%s\",%s", ++f->made, strong, rest));
    }
    try_it(f, w, HTTP_POST, say(f->c, "%s/rotate", other), "{}");
    try_it(f, w, HTTP_PATCH, say(f->c, "%s/%s", accounts, strong), "{\"roles\":[\"owner\"]}");
    try_it(f, w, HTTP_PATCH, say(f->c, "%s/weak-account", accounts), "{\"roles\":[\"owner\"]}");
    try_it(f, w, HTTP_POST, accounts,
           say(f->c, "{\"name\":\"t%zu\",\"roles\":[\"owner\"]}", ++f->made));
    try_it(f, w, HTTP_POST, say(f->c, "%s/rotate", own), "{}"); // last: the key is another one then
}

CONF_TEST(conformance_no_key_gets_more_than_it_has) {
    const char *strong = account_of(f, "strong-account", "\"owner\""), *weak;
    conf_do(f, &f->a, HTTP_POST, "/lathe/v1/roles",
            "{\"name\":\"key-keeper\",\"permissions\":[\"api_keys.*\",\"service_accounts.*\"]}");
    weak = account_of(f, "weak-account", "\"key-keeper\",\"viewer\"");
    Weak big = weak_key(f, "the strong key",
                        say(f->c, "{\"name\":\"strong\",\"service_account\":\"%s\"}", strong));
    const char *cut = "\"scopes\":[\"api_keys.*\",\"service_accounts.*\"]";
    const Weak all[] = {
        weak_key(f, "a keeper's key",
                 say(f->c, "{\"name\":\"w1\",\"service_account\":\"%s\"}", weak)),
        weak_key(f, "an owner's key with scopes",
                 say(f->c, "{\"name\":\"w2\",\"service_account\":\"%s\",%s}", strong, cut)),
        weak_key(f, "a person's key with scopes", say(f->c, "{\"name\":\"w3\",%s}", cut)),
    };
    for (size_t i = 0; i < countof(all); i++) {
        CHECK(all[i].had.n >= 2);
        try_everything(f, &all[i], strong, big.id);
    }
}

// ---- what binds a key
CONF_TEST(conformance_no_key_loosens_what_binds_it) {
    static const struct {
        const char *bound, *loose, *tight, *field;
    } all[] = {
        { "\"expires_at\":\"2090-01-01T00:00:00Z\"", "\"expires_at\":null",
          "\"expires_at\":\"2089-01-01T00:00:00Z\"", "expires_at" },
        { "\"expires_at\":\"2090-01-01T00:00:00Z\"", "\"expires_at\":\"2091-01-01T00:00:00Z\"",
          "\"title\":null", "expires_at" },
        { "\"limits\":{\"requests_per_minute\":5}", "\"limits\":{\"requests_per_minute\":6}",
          "\"limits\":{\"requests_per_minute\":4}", "limits.requests_per_minute" },
        { "\"limits\":{\"concurrency\":5}", "\"limits\":{\"concurrency\":null}",
          "\"limits\":{\"concurrency\":4}", "limits.concurrency" },
        { "\"limits\":{\"money_per_day\":\"5\"}", "\"limits\":{\"money_per_day\":\"5.000000001\"}",
          "\"limits\":{\"money_per_day\":\"1\"}", "limits.money_per_day" },
    };
    const char *owner = account_of(f, "bound-owner", "\"owner\"");
    Weak free = weak_key(f, "a free key",
                         say(f->c, "{\"name\":\"free\",\"service_account\":\"%s\"}", owner));
    for (size_t i = 0; i < countof(all); i++) {
        Weak w = weak_key(
            f, all[i].field,
            say(f->c, "{\"name\":\"b%zu\",\"service_account\":\"%s\",%s}", i, owner, all[i].bound));
        const char *own = say(f->c, "/lathe/v1/api_keys/%s", w.id);
        const char *other = say(f->c, "/lathe/v1/api_keys/%s/rotate", free.id);
        const Question asks[] = {
            { HTTP_PATCH, own, w.key, say(f->c, "{%s}", all[i].loose), { { NULL } } },
            { HTTP_POST, other, w.key, "{}", { { NULL } } },
            { HTTP_POST,
              "/lathe/v1/api_keys",
              w.key,
              say(f->c, "{\"name\":\"n%zu\"}", i),
              { { NULL } } },
        };
        for (size_t k = 0; k < countof(asks); k++) {
            Told t = conf_ask(f, &asks[k]);
            if (t.status != 403 || !str_is(conf_reason(&t), "key_is_bound"))
                COMPLAIN("%s %s: %d " STR_FMT, asks[k].path, asks[k].body, t.status,
                         STR_ARG(t.body));
        }
        if (strstr(all[i].tight, "title")) continue;
        Told t = conf_ask(
            f,
            &(Question){ HTTP_PATCH, own, w.key, say(f->c, "{%s}", all[i].tight), { { NULL } } });
        if (t.status != 200) COMPLAIN("%s: %d " STR_FMT, all[i].tight, t.status, STR_ARG(t.body));
    }
}

CONF_TEST(conformance_an_expiring_administrator_leaves_no_key_behind) {
    Tenant home = { .org = f->a.org };
    Told t = conf_do(f, &home, HTTP_POST, "/lathe/v1/admin_keys",
                     "{\"name\":\"guest\",\"expires_at\":\"2090-01-01T00:00:00Z\"}");
    const char *guest = say_str(f->c, json_get_str(t.json, "key"));
    static const struct {
        HttpMethod method;
        const char *path, *body;
        int want;
    } all[] = {
        { HTTP_POST, "/lathe/v1/admin_keys", "{\"name\":\"g1\"}", 403 },
        { HTTP_POST, "/lathe/v1/admin_keys",
          "{\"name\":\"g2\",\"expires_at\":\"2090-01-01T00:00:01Z\"}", 403 },
        { HTTP_POST, "/lathe/v1/admin_keys",
          "{\"name\":\"g3\",\"expires_at\":\"2090-01-01T00:00:00Z\"}", 201 },
        { HTTP_PATCH, "/lathe/v1/admin_keys/guest", "{\"expires_at\":null}", 403 },
        { HTTP_POST, "/lathe/v1/api_keys", "{\"name\":\"g4\",\"service_account\":\"place-owner\"}",
          403 },
        { HTTP_POST, "/lathe/v1/api_keys",
          "{\"name\":\"g5\",\"service_account\":\"place-owner\",\"expires_at\":"
          "\"2089-01-01T00:00:00Z\"}",
          201 },
    };
    for (size_t i = 0; i < countof(all); i++) {
        Question q = {
            all[i].method, all[i].path, guest, all[i].body, { { "lathe-project", f->a.project } }
        };
        t = conf_ask(f, &q);
        if (t.status != all[i].want)
            COMPLAIN("%s %s: %d " STR_FMT, q.path, q.body, t.status, STR_ARG(t.body));
    }
}

// ---- whose key it is
CONF_TEST(conformance_a_key_without_an_owner_is_not_made) {
    Tenant system = { .org = f->a.org, .project = f->a.project };
    Told t = conf_do(f, &system, HTTP_POST, "/lathe/v1/admin_keys", "{\"name\":\"nobodys\"}");
    const char *key = say_str(f->c, json_get_str(t.json, "key"));
    Question q = { HTTP_POST,
                   "/lathe/v1/api_keys",
                   key,
                   "{\"name\":\"dead\"}",
                   { { "lathe-project", f->a.project } } };
    t = conf_ask(f, &q);
    CHECK_INT(t.status, 400);
    CHECK(str_is(conf_field(&t), "service_account"));
    // A person of one organisation is nobody in another, also not its owner.
    t = conf_do(f, &f->far, HTTP_POST, "/lathe/v1/api_keys", "{\"name\":\"abroad\"}");
    CHECK_INT(t.status, 400);
    // A service's own key is one of its account: it goes with the account.
    t = conf_ask(
        f, &(Question){
               HTTP_POST, "/lathe/v1/api_keys", f->b.owner, "{\"name\":\"own\"}", { { NULL } } });
    CHECK_INT(t.status, 201);
    CHECK(str_starts(json_get_str(t.json, "service_account"), S("sa_")));
}

// ---- administrators
static int status_of(Conf *f, const char *key, HttpMethod method, const char *path,
                     const char *body) {
    return conf_ask(f, &(Question){ method, path, key, body, { { NULL } } }).status;
}

CONF_TEST(conformance_an_administrator_is_left) {
    static const struct {
        HttpMethod method;
        const char *path, *body;
    } all[] = {
        { HTTP_DELETE, "/lathe/v1/admin_keys/admin", NULL },
        { HTTP_PATCH, "/lathe/v1/admin_keys/admin", "{\"disabled\":true}" },
        { HTTP_PATCH, "/lathe/v1/admin_keys/admin", "{\"expires_at\":\"2090-01-01T00:00:00Z\"}" },
        { HTTP_PATCH, "/lathe/v1/users/admin", "{\"disabled\":true}" },
        { HTTP_DELETE, "/lathe/v1/users/admin", NULL },
    };
    Tenant home = { .org = f->a.org };
    conf_do(f, &home, HTTP_POST, "/lathe/v1/users", "{\"name\":\"gone\",\"disabled\":true}");
    static const char *const others[] = {
        // none of these stays
        "{\"name\":\"late\",\"expires_at\":\"2090-01-01T00:00:00Z\"}",
        "{\"name\":\"off\",\"disabled\":true}",
        "{\"name\":\"of-gone\",\"user\":\"gone\"}",
        "{\"name\":\"of-far\",\"admin_org\":\"far\"}",
    };
    for (size_t i = 0; i < countof(others); i++)
        CHECK_INT(conf_do(f, &home, HTTP_POST, "/lathe/v1/admin_keys", others[i]).status, 201);
    for (size_t i = 0; i < countof(all); i++) {
        int status = conf_do(f, &home, all[i].method, all[i].path, all[i].body).status;
        if (status != 409) COMPLAIN("%s %s: %d", all[i].path, all[i].body, status);
    }
    CHECK_INT(status_of(f, f->admin, HTTP_GET, "/lathe/v1/settings", NULL), 200);
}

CONF_TEST(conformance_a_persons_keys_end_with_them) {
    Tenant home = { .org = f->a.org };
    const char *keys[2];
    for (size_t i = 0; i < countof(keys); i++) {
        const char *name = say(f->c, "leaver-%zu", i), *user;
        Told t =
            conf_do(f, &home, HTTP_POST, "/lathe/v1/users", say(f->c, "{\"name\":\"%s\"}", name));
        user = say_str(f->c, json_get_str(t.json, "id"));
        t = conf_do(f, &home, HTTP_POST, "/lathe/v1/admin_keys",
                    say(f->c, "{\"name\":\"%s\",\"user\":\"%s\"}", name, user));
        keys[i] = say_str(f->c, json_get_str(t.json, "key"));
        CHECK_INT(status_of(f, keys[i], HTTP_GET, "/lathe/v1/settings", NULL), 200);
    }
    // Who rules the organisation only may not end a key of the system.
    Told t = conf_do(f, &home, HTTP_POST, "/lathe/v1/admin_keys",
                     say(f->c, "{\"name\":\"ruler\",\"admin_org\":\"%s\"}", f->a.org));
    const char *ruler = say_str(f->c, json_get_str(t.json, "key"));
    CHECK_INT(status_of(f, ruler, HTTP_DELETE, "/lathe/v1/users/leaver-0", NULL), 403);
    CHECK_INT(status_of(f, ruler, HTTP_PATCH, "/lathe/v1/users/leaver-0", "{\"disabled\":true}"),
              403);
    CHECK_INT(conf_do(f, &home, HTTP_DELETE, "/lathe/v1/users/leaver-0", NULL).status, 204);
    CHECK_INT(
        conf_do(f, &home, HTTP_PATCH, "/lathe/v1/users/leaver-1", "{\"disabled\":true}").status,
        200);
    for (size_t i = 0; i < countof(keys); i++)
        CHECK_INT(status_of(f, keys[i], HTTP_GET, "/lathe/v1/settings", NULL), 401);
}

// ---- organisations
static const char *ruler_of(Conf *f, const Tenant *p) {
    Told t = conf_do(f, p, HTTP_POST, "/lathe/v1/admin_keys",
                     say(f->c, "{\"name\":\"ruler-%zu\",\"admin_org\":\"%s\"}", ++f->made, p->org));
    return say_str(f->c, json_get_str(t.json, "key"));
}

CONF_TEST(conformance_an_organisation_is_named_or_nobody) {
    Question q = {
        HTTP_GET, "/lathe/v1/projects", f->admin, NULL, { { "lathe-organisation", "no-such" } }
    };
    Told t = conf_ask(f, &q); // never another one in its place
    CHECK_INT(t.status, 404);
    CHECK(str_is(conf_reason(&t), "organisation_not_found"));
    const char *ruler = ruler_of(f, &f->far), *const keys[] = { ruler, f->far.owner };
    for (size_t i = 0; i < countof(keys); i++) {
        q = (Question){
            HTTP_GET, "/lathe/v1/whoami", keys[i], NULL, { { "lathe-organisation", f->a.org } }
        };
        t = conf_ask(f, &q);
        CHECK_INT(t.status, 403);
        CHECK(str_is(conf_reason(&t), "organisation_denied"));
        q.headers[0][1] = "far";
        CHECK_INT(conf_ask(f, &q).status, 200);
    }
}

// A key that rules one organisation, at every route, for the objects of another.
CONF_TEST(conformance_an_organisations_key_stays_in_it) {
    const char *ruler = ruler_of(f, &f->far);
    size_t n, systems = 0;
    const NetRoute *const *all = bindings_now(&n);
    for (size_t i = 0; i < n; i++) {
        const Binding *b = binding_of(all[i]);
        if (b->open || b->scope != SCOPE_SYSTEM || strchr(b->net.pattern, '{')) continue;
        bool body = b->net.method == HTTP_POST;
        int status = status_of(f, ruler, b->net.method, b->net.pattern, body ? "{}" : NULL);
        if (status != 403)
            COMPLAIN("%s %s: %d", http_method_name(b->net.method), b->net.pattern, status);
        systems++;
    }
    CHECK(systems >= 5);
    EACH_TABLE(t) {
        if (t->r->scope == SCOPE_SYSTEM) continue;
        const char *id = conf_make(f, &f->a, t->r), *path = conf_path(f, t->r, id);
        Question q = { HTTP_GET, path, ruler, NULL, { { "lathe-project", f->far.project } } };
        Told one = conf_ask(f, &q);
        if (one.status != 404) COMPLAIN("%s to a ruler of elsewhere: %d", path, one.status);
        q.path = say(f->c, "%s?limit=1000", conf_path(f, t->r, NULL));
        Told list = conf_ask(f, &q);
        if (list.status != 200 || conf_has(list.body, id)) COMPLAIN("%s: %d", q.path, list.status);
        q.headers[0][1] = f->a.project;
        int status = conf_ask(f, &q).status;
        if (status != 404) COMPLAIN("%s in a project of elsewhere: %d", q.path, status);
    }
}

// Refused at the door, with the mark in the key's own project: there its owners look.
CONF_TEST(conformance_reaching_elsewhere_leaves_a_mark) {
    Question q = {
        HTTP_GET, "/lathe/v1/models", f->b.owner, NULL, { { "lathe-project", f->a.project } }
    };
    CHECK_INT(conf_ask(f, &q).status, 403);
    Question look = {
        HTTP_GET, "/lathe/v1/audit_entries?verb=denied", f->b.owner, NULL, { { NULL } }
    };
    int64_t end_ns = os_mono_ns(f->c->os) + 20000000000;
    Told t = { 0 };
    do t = conf_ask(f, &look); // denials are written once a second
    while (!conf_has(t.body, "another place") && os_mono_ns(f->c->os) < end_ns);
    CHECK(conf_has(t.body, "another place") && conf_has(t.body, "place-owner"));
    t = conf_do(f, &f->a, HTTP_GET, "/lathe/v1/audit_entries?verb=denied", NULL);
    CHECK(!conf_has(t.body, "another place"));
}
