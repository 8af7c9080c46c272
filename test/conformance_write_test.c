// SPDX-License-Identifier: Apache-2.0
// conformance_write_test.c - what every write must do, whichever resource: leave one audit row and
// one event, honour If-Match and Idempotency-Key, and show no secret anywhere.
#include "conformance_test.h"
#include <ftw.h>

static const char *audit_table(const Resource *r) {
    return r->scope == SCOPE_PROJECT ? "audit_entries"
           : r->scope == SCOPE_ORG   ? "org_audit_entries"
                                     : "system_audit_entries";
}

static void expect_audit(Conf *f, const Resource *r, const char *id, const char *verb) {
    const char *sql =
        say(f->c, "SELECT COUNT(*) FROM %s WHERE subject = $1 AND verb = $2", audit_table(r));
    int64_t n = conf_count(f, sql, id, verb);
    if (n != 1) COMPLAIN("%s %s: %lld audit rows", r->name, verb, (long long)n);
}

// In the outbox, or numbered already.
static void expect_event(Conf *f, const Resource *r, const char *id, const char *what) {
    int64_t n = conf_count(f,
                           "SELECT (SELECT COUNT(*) FROM outbox WHERE subject = $1 AND kind = $2) "
                           "+ (SELECT COUNT(*) FROM event WHERE subject = $1 AND kind = $2)",
                           id, say(f->c, "%s.%s", r->name, what));
    if (n != 1) COMPLAIN("%s.%s: %lld events", r->name, what, (long long)n);
}

// {"field": [before, after]}, as the API shows both; what it does not show is stars.
static void expect_change(Conf *f, const Resource *r, yyjson_val *before, yyjson_val *after,
                          yyjson_val *change) {
    size_t i, n;
    yyjson_val *key, *sides;
    if (!yyjson_obj_size(change)) COMPLAIN("%s: a change of nothing", r->name);
    yyjson_obj_foreach(change, i, n, key, sides) {
        const char *name = yyjson_get_str(key);
        yyjson_val *old = yyjson_arr_get(sides, 0), *now = yyjson_arr_get(sides, 1);
        if (yyjson_arr_size(sides) != 2 || yyjson_equals(old, now))
            COMPLAIN("%s.%s: not a change", r->name, name);
        const Field *x = field_find(r->fields, str_z(name));
        if (!x) COMPLAIN("%s.%s is no field", r->name, name);
        if (!x || x->type == T_SECRET || x->type == T_OBJECT) continue;
        if (before && !yyjson_equals(old, json_get(before, name)))
            COMPLAIN("%s.%s: the old value is another one", r->name, name);
        if (!yyjson_equals(now, json_get(after, name)))
            COMPLAIN("%s.%s: the new value is another one", r->name, name);
    }
    (void)f;
}

static void expect_audited_change(Conf *f, const Resource *r, const char *id, yyjson_val *before,
                                  yyjson_val *after) {
    Told t = conf_do(f, &f->a, HTTP_GET,
                     say(f->c, "/lathe/v1/%s?subject=%s&verb=update", audit_table(r), id), NULL);
    expect_change(f, r, before, after,
                  json_get(yyjson_arr_get_first(json_get(t.json, "data")), "change"));
}

static void check_writes(Conf *f, const Resource *r) {
    const char *id = conf_make(f, &f->a, r), *path = conf_path(f, r, id), *patch;
    if (!(r->flags & RES_NO_CREATE))
        expect_audit(f, r, id, "create"), expect_event(f, r, id, "created");
    if (conf_patch(f, &f->a, r, &patch)) {
        Told was = conf_do(f, &f->a, HTTP_GET, path, NULL);
        Told t = conf_do(f, &f->a, HTTP_PATCH, path, patch);
        expect_audited_change(f, r, id, was.json, t.json);
        if (t.status != 200)
            COMPLAIN("%s %s: %d " STR_FMT, r->name, patch, t.status, STR_ARG(t.body));
        expect_audit(f, r, id, "update"), expect_event(f, r, id, "updated");
        t = conf_do(f, &f->a, HTTP_PATCH, path, "{}"); // no change: nothing happens
        if (t.status != 200) COMPLAIN("%s {}: %d " STR_FMT, r->name, t.status, STR_ARG(t.body));
        expect_audit(f, r, id, "update"), expect_event(f, r, id, "updated");
    }
    if (r->flags & RES_NO_DELETE) return;
    Told t = conf_do(f, &f->a, HTTP_DELETE, path, NULL);
    bool late = r->flags & RES_RECONCILED;
    if (t.status != (late ? 202 : 204))
        COMPLAIN("DELETE %s: %d " STR_FMT, path, t.status, STR_ARG(t.body));
    expect_audit(f, r, id, "delete"), expect_event(f, r, id, late ? "deleting" : "deleted");
    if (!late && conf_do(f, &f->a, HTTP_GET, path, NULL).status != 404)
        COMPLAIN("%s is still there", path);
}

CONF_TEST(conformance_writes_are_audited_and_told) {
    EACH_TABLE(t) if (!(t->r->flags & RES_NO_CREATE)) check_writes(f, t->r);
}

// A dry run says what would change and does none of it.
CONF_TEST(conformance_dry_runs_change_nothing) {
    EACH_TABLE(t) {
        const Resource *r = t->r;
        if (r->flags & RES_NO_CREATE) continue;
        const char *body = conf_body(f, &f->a, r, 0, NULL), *patch;
        const char *count = say(f->c, "SELECT COUNT(*) FROM %s", r->plural);
        const char *audits = say(f->c, "SELECT COUNT(*) FROM %s", audit_table(r));
        const char *id = conf_make(f, &f->a, r), *path = conf_path(f, r, id);
        const char *changes = conf_patch(f, &f->a, r, &patch) ? patch : NULL;
        int64_t rows = conf_count(f, count, NULL, NULL), seen = conf_count(f, audits, NULL, NULL);
        Told t1 =
            conf_do(f, &f->a, HTTP_POST, say(f->c, "%s?dry_run=true", conf_path(f, r, NULL)), body);
        if (t1.status != 200 || !json_get(t1.json, "result"))
            COMPLAIN("%s: %d " STR_FMT, r->name, t1.status, STR_ARG(t1.body));
        if (changes) conf_do(f, &f->a, HTTP_PATCH, say(f->c, "%s?dry_run=true", path), changes);
        if (!(r->flags & RES_NO_DELETE))
            conf_do(f, &f->a, HTTP_DELETE, say(f->c, "%s?dry_run=true", path), NULL);
        Told t2 = conf_do(f, &f->a, HTTP_GET, path, NULL);
        if (json_get(t2.json, "deleting_at") && !yyjson_is_null(json_get(t2.json, "deleting_at")))
            COMPLAIN("%s is being deleted by a dry run", r->name);
        int64_t revision = 0;
        if (!json_get_i64(t2.json, "revision", &revision) || revision != 1)
            COMPLAIN("%s: revision %lld after dry runs", r->name, (long long)revision);
        CHECK_INT(conf_count(f, count, NULL, NULL), rows);
        CHECK_INT(conf_count(f, audits, NULL, NULL), seen);
    }
}

static Told ask_with(Conf *f, HttpMethod method, const char *path, const char *body,
                     const char *header, const char *value) {
    return conf_ask(f, &(Question){ method,
                                    path,
                                    f->admin,
                                    body,
                                    { { "lathe-organisation", f->a.org },
                                      { "lathe-project", f->a.project },
                                      { header, value } } });
}

CONF_TEST(conformance_if_match_guards_every_write) {
    EACH_TABLE(t) {
        const Resource *r = t->r;
        const char *patch;
        if (r->flags & RES_NO_CREATE) continue;
        const char *id = conf_make(f, &f->a, r), *path = conf_path(f, r, id);
        if (conf_patch(f, &f->a, r, &patch)) {
            static const char *const bad[] = { "\"7\"", "W/\"1\"", "nonsense", "\"\"" };
            for (size_t i = 0; i < countof(bad); i++) {
                Told no = ask_with(f, HTTP_PATCH, path, patch, "if-match", bad[i]);
                if (no.status != 412) COMPLAIN("%s If-Match %s: %d", r->name, bad[i], no.status);
            }
            Told was = conf_do(f, &f->a, HTTP_GET, path, NULL);
            Told yes =
                ask_with(f, HTTP_PATCH, path, patch, "if-match", arena_z(f->c->mem, was.etag));
            if (yes.status != 200)
                COMPLAIN("%s If-Match: %d " STR_FMT, r->name, yes.status, STR_ARG(yes.body));
            Told old =
                ask_with(f, HTTP_PATCH, path, patch, "if-match", arena_z(f->c->mem, was.etag));
            if (old.status != 412) COMPLAIN("%s: an old If-Match: %d", r->name, old.status);
        }
        if (r->flags & RES_NO_DELETE) continue;
        Told no = ask_with(f, HTTP_DELETE, path, NULL, "if-match", "\"99\"");
        if (no.status != 412) COMPLAIN("DELETE %s If-Match: %d", r->name, no.status);
    }
}

CONF_TEST(conformance_idempotency_keys_make_one) {
    EACH_TABLE(t) {
        const Resource *r = t->r;
        if (r->flags & RES_NO_CREATE) continue;
        const char *path = conf_path(f, r, NULL), *key = say(f->c, "key-%s", r->name);
        const char *body = conf_body(f, &f->a, r, 0, NULL),
                   *other = conf_body(f, &f->a, r, 1, NULL);
        Told first = ask_with(f, HTTP_POST, path, body, "idempotency-key", key);
        if (first.status != 201)
            COMPLAIN("%s: %d " STR_FMT, r->name, first.status, STR_ARG(first.body));
        int64_t rows = conf_count(f, say(f->c, "SELECT COUNT(*) FROM %s", r->plural), NULL, NULL);
        Told again = ask_with(f, HTTP_POST, path, body, "idempotency-key", key);
        if (again.status != 201 || !str_eq(first.body, again.body))
            COMPLAIN("%s again: %d " STR_FMT, r->name, again.status, STR_ARG(again.body));
        Told clash = ask_with(f, HTTP_POST, path, other, "idempotency-key", key);
        if (clash.status != 409 || !str_is(conf_reason(&clash), "idempotency_key_reused"))
            COMPLAIN("%s with another body: %d " STR_FMT, r->name, clash.status,
                     STR_ARG(clash.body));
        CHECK_INT(conf_count(f, say(f->c, "SELECT COUNT(*) FROM %s", r->plural), NULL, NULL), rows);
    }
}

// What one key was answered, another of the same owner does not get by sending the same again.
CONF_TEST(conformance_idempotency_keys_are_of_one_key) {
    Told t = conf_do(f, &f->a, HTTP_GET, "/lathe/v1/service_accounts/place-owner", NULL);
    const char *owner = say_str(f->c, json_get_str(t.json, "id"));
    t = conf_do(f, &f->a, HTTP_POST, "/lathe/v1/api_keys",
                say(f->c, "{\"name\":\"second\",\"service_account\":\"%s\"}", owner));
    const char *second = say_str(f->c, json_get_str(t.json, "key"));
    Question q = { HTTP_POST,
                   "/lathe/v1/api_keys",
                   f->a.owner,
                   say(f->c, "{\"name\":\"once\",\"service_account\":\"%s\"}", owner),
                   { { "idempotency-key", "the-same" } } };
    Told first = conf_ask(f, &q), again = conf_ask(f, &q);
    CHECK_INT(first.status, 201);
    CHECK(str_eq(first.body, again.body));
    q.key = second;
    again = conf_ask(f, &q);
    CHECK_INT(again.status, 409);
    CHECK(!conf_has(again.body, say_str(f->c, json_get_str(first.json, "key"))));
}

// ---- secrets

// Who may change where a secret is sent must know it: else it could be had by a server of theirs.
CONF_TEST(conformance_secrets_do_not_follow_another_address) {
    static const struct {
        const char *patch;
        int want;
    } all[] = {
        { "{\"endpoint\":{\"url\":\"http://127.0.0.1:8/v1\"}}", 400 },
        { "{\"endpoint\":{\"url\":\"http://127.0.0.1:8/v1\",\"upstream_model\":\"m\"}}", 400 },
        { "{\"endpoint\":{\"upstream_model\":\"m\"}}", 200 },
        { "{\"endpoint\":{\"url\":\"http://127.0.0.1:8/v1\",\"api_key\":\"new\"}}", 200 },
        { "{\"endpoint\":{\"url\":\"http://127.0.0.1:7/v1\",\"api_key\":null}}", 200 },
        { "{\"endpoint\":{\"url\":\"http://127.0.0.1:8/v1\"}}", 200 }, // there is none any more
    };
    const Resource *r = resource_find("deployment");
    const char *path = conf_path(f, r, conf_make(f, &f->a, r));
    for (size_t i = 0; i < countof(all); i++) {
        Told t = conf_do(f, &f->a, HTTP_PATCH, path, all[i].patch);
        if (t.status != all[i].want)
            COMPLAIN("%s: %d " STR_FMT, all[i].patch, t.status, STR_ARG(t.body));
        if (t.status == 400) CHECK(str_is(conf_field(&t), "endpoint.api_key"));
    }
}

static Conf *searched; // nftw has no argument

static int search_file(const char *path, const struct stat *st, int type, struct FTW *at) {
    str text;
    (void)st, (void)at;
    if (type != FTW_F || strstr(path, "admin.key")) return 0;
    if (file_read_all(searched->c, str_z(path), 64 << 20, &text)) return 0;
    if (conf_has(text, "secret-canary")) COMPLAIN("%s holds a secret as it is", path);
    return 0;
}

static void expect_none(Conf *f, const char *where, str text) {
    if (conf_has(text, "secret-canary")) COMPLAIN("%s shows a secret", where);
    (void)f;
}

static void read_everything(Conf *f, const Tenant *p) {
    static const char *const others[] = { "/openapi.json", "/lathe/v1/schema", "/lathe/v1/settings",
                                          "/metrics" };
    static const char *const forms[] = { "limit=1000", "format=csv", "format=ndjson" };
    EACH_TABLE(t) for (size_t i = 0; i < countof(forms); i++) {
        const char *path = say(f->c, "%s?%s", conf_path(f, t->r, NULL), forms[i]);
        Told got = conf_do(f, p, HTTP_GET, path, NULL);
        if (got.status != 200) COMPLAIN("%s: %d " STR_FMT, path, got.status, STR_ARG(got.body));
        expect_none(f, path, got.body);
    }
    for (size_t i = 0; i < countof(others); i++)
        expect_none(f, others[i], conf_do(f, p, HTTP_GET, others[i], NULL).body);
    // The database's address may hold a password.
    Told t = conf_do(f, p, HTTP_GET, "/lathe/v1/settings", NULL);
    CHECK(conf_has(t.body, "db.url") && !conf_has(t.body, "lathe_conformance"));
}

static void check_members(Conf *f, const ResTable *t, const Told *shown, const char *when) {
    for (const Field *x = t->rows; x->name; x++) {
        bool never = x->flags & HIDDEN || x->type == T_SECRET || x->flags & ONCE;
        yyjson_val *v = json_get(shown->json, x->name);
        if (!never && !v) COMPLAIN("%s: %s lacks %s", t->r->name, when, x->name);
        if (never && v && !yyjson_is_null(v))
            COMPLAIN("%s: %s shows %s", t->r->name, when, x->name);
    }
    (void)f;
}

static bool has_secret(const Field *rows) {
    for (const Field *x = rows; x && x->name; x++)
        if (x->type == T_SECRET || (x->type == T_OBJECT && has_secret(x->of))) return true;
    return false;
}

static void search_database(Conf *f, const ResTable *t) {
    for (size_t i = 0; i < t->rows_n; i++) {
        const Field *x = &t->rows[i];
        if (x->type == T_INT || x->type == T_MONEY || x->type == T_TIME || x->type == T_BOOL
            || x->type == T_REAL)
            continue;
        int64_t n =
            conf_count(f,
                       say(f->c, "SELECT COUNT(*) FROM %s WHERE \"%s\" LIKE '%%secret-canary%%'",
                           t->r->plural, x->name),
                       NULL, NULL);
        if (n) COMPLAIN("column %s.%s holds a secret as it is", t->r->plural, x->name);
    }
}

CONF_TEST(conformance_secrets_are_shown_nowhere) {
    size_t with = 0;
    EACH_TABLE(t) {
        const char *id = conf_make(f, &f->a, t->r), *path = conf_path(f, t->r, id), *patch;
        Told got = conf_do(f, &f->a, HTTP_GET, path, NULL);
        check_members(f, t, &got, "get"), expect_none(f, path, got.body);
        with += has_secret(t->r->fields);
        if (!conf_patch(f, &f->a, t->r, &patch)) continue;
        got = conf_do(f, &f->a, HTTP_PATCH, path, patch);
        check_members(f, t, &got, "patch"), expect_none(f, path, got.body);
    }
    CHECK(with >= 2);
    Told bad = conf_do(f, &f->a, HTTP_POST, "/lathe/v1/secrets",
                       "{\"name\":\"bad name\",\"value\":\"secret-canary-7\"}");
    CHECK_INT(bad.status, 400);
    expect_none(f, "a refusal", bad.body);
    read_everything(f, &f->a);
    EACH_TABLE(t) search_database(f, t);
    static const char *const tables[] = { "outbox", "event" };
    for (size_t i = 0; i < countof(tables); i++)
        CHECK_INT(
            conf_count(f,
                       say(f->c, "SELECT COUNT(*) FROM %s WHERE data LIKE '%%canary%%'", tables[i]),
                       NULL, NULL),
            0);
    searched = f;
    nftw(f->dir, search_file, 16, FTW_PHYS);
    pthread_mutex_lock(&f->lock);
    bool logged = conf_has(buf_str(&f->log), "secret-canary"), any = f->log.n > 1000;
    pthread_mutex_unlock(&f->lock);
    CHECK(any);
    CHECK(!logged);
}

// A key is told once: by the answer that made it, and that answer again for its Idempotency-Key.
CONF_TEST(conformance_what_is_shown_once_is_stored_nowhere) {
    size_t with = 0;
    EACH_TABLE(t) {
        if (!t->has_once) continue;
        const Resource *r = t->r;
        Told made = ask_with(f, HTTP_POST, conf_path(f, r, NULL), conf_body(f, &f->a, r, 0, NULL),
                             "idempotency-key", r->name);
        str key = json_get_str(made.json, "key");
        if (key.n < 20) COMPLAIN("%s: %d " STR_FMT, r->name, made.status, STR_ARG(made.body));
        const char *z = say_str(f->c, key);
        Told list =
            conf_do(f, &f->a, HTTP_GET, say(f->c, "%s?limit=1000", conf_path(f, r, NULL)), NULL);
        CHECK(!conf_has(list.body, z));
        for (size_t i = 0; i < t->rows_n; i++)
            if (t->rows[i].type == T_TEXT)
                CHECK_INT(conf_count(f,
                                     say(f->c, "SELECT COUNT(*) FROM %s WHERE \"%s\" = $1",
                                         r->plural, t->rows[i].name),
                                     z, NULL),
                          0);
        CHECK_INT(conf_count(f, "SELECT COUNT(*) FROM idempotency WHERE body LIKE $1",
                             say(f->c, "%%%s%%", z), NULL),
                  0);
        pthread_mutex_lock(&f->lock);
        bool logged = conf_has(buf_str(&f->log), z);
        pthread_mutex_unlock(&f->lock);
        CHECK(!logged);
        with++;
    }
    CHECK(with >= 2);
}

// ---- slots of a deployment: thousands where a server is attached, few where one is launched

static void make_slots(Conf *f, const char *engine, const char *slots, int want) {
    static int made;
    bool attached = !strcmp(engine, "openai");
    Told t = conf_do(f, &f->a, HTTP_POST, "/lathe/v1/deployments",
                     say(f->c, "{\"name\":\"slots-%d\",\"engine\":\"%s\",\"slots\":%s%s}", made++,
                         engine, slots,
                         attached ? ",\"endpoint\":{\"url\":\"http://127.0.0.1:9/v1\"}" : ""));
    if (t.status != want)
        COMPLAIN("%s, slots %s: %d " STR_FMT, engine, slots, t.status, STR_ARG(t.body));
    if (want == 400 && !str_is(conf_field(&t), "slots"))
        COMPLAIN("%s, slots %s: " STR_FMT, engine, slots, STR_ARG(t.body));
}

CONF_TEST(conformance_slots_follow_the_engine) {
    make_slots(f, "openai", "5000", 201), make_slots(f, "openai", "0", 201);
    make_slots(f, "openai", "100001", 400), make_slots(f, "openai", "-1", 400);
    make_slots(f, "llama.cpp", "257", 400), make_slots(f, "llama.cpp", "0", 400);
}
