// SPDX-License-Identifier: Apache-2.0
// conformance_view_test.c - what requests know of keys comes from what changed: after any changes
// of keys, accounts, users, members, roles and projects it is what a reading of all would give.
// What cannot be read makes no key a wrong one.
#include "conformance_test.h"
#include "mod/access/access_view.h"

typedef struct Kept {
    const char *id, *path;
} Kept;
enum { KEPT_MAX = 400, STEPS = 200 };
typedef struct World {
    Conf *f;
    uint64_t x;
    Kept at[KEPT_MAX];
    size_t n, made;
} World;

static uint64_t draw(World *w, uint64_t most) {
    w->x = w->x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (w->x >> 33) % most;
}

static const char *some(World *w, const char *path) {
    const char *found = NULL;
    size_t seen = 0;
    for (size_t i = 0; i < w->n; i++)
        if (!strcmp(w->at[i].path, path) && !draw(w, ++seen)) found = w->at[i].id;
    return found;
}

static void make(World *w, const Tenant *at, const char *path, const char *body) {
    Told t = conf_do(w->f, at, HTTP_POST, say(w->f->c, "/lathe/v1/%s", path), body);
    str id = json_get_str(t.json, "id");
    if (t.status == 201 && w->n < KEPT_MAX)
        w->at[w->n++] = (Kept){ arena_z(w->f->c->mem, id), path };
    else if (t.status != 409) COMPLAIN("%s: %d " STR_FMT, path, t.status, STR_ARG(t.body));
}

static size_t count(const World *w, const char *path) {
    size_t n = 0;
    for (size_t i = 0; i < w->n; i++) n += !strcmp(w->at[i].path, path);
    return n;
}

// Few owners, so that each has keys.
static void create_one(World *w, const Tenant *at) {
    Ctx *c = w->f->c;
    const char *account = some(w, "service_accounts"), *user = some(w, "users"),
               *role = some(w, "roles");
    const char *name = say(c, "v%zu", w->made++);
    uint64_t what = draw(w, 9);
    bool enough =
        (what == 1 && count(w, "service_accounts") > 3) || (what == 2 && count(w, "users") > 3);
    switch (enough ? 8 : what) {
    case 0:
        make(w, at, "roles", say(c, "{\"name\":\"%s\",\"permissions\":[\"models.read\"]}", name));
        break;
    case 1:
        make(w, at, "service_accounts",
             say(c, "{\"name\":\"%s\",\"roles\":[\"%s\"]}", name, role ? role : "viewer"));
        break;
    case 2: make(w, at, "users", say(c, "{\"name\":\"%s\"}", name)); break;
    case 3:
        if (user)
            make(w, at, "members",
                 say(c, "{\"user\":\"%s\",\"role\":\"%s\"}", user, role ? role : "viewer"));
        break;
    case 4: make(w, at, "projects", say(c, "{\"name\":\"%s\"}", name)); break;
    case 5:
        if (user)
            make(w, at, "admin_keys", say(c, "{\"name\":\"%s\",\"user\":\"%s\"}", name, user));
        break;
    default:
        if (account)
            make(w, at, "api_keys",
                 say(c, "{\"name\":\"%s\",\"service_account\":\"%s\",\"scopes\":[%s]}", name,
                     account, draw(w, 2) ? "\"models.read\"" : ""));
    }
}

static void change_one(World *w, const Tenant *at) {
    static const char *const kinds[] = { "service_accounts", "users",     "api_keys", "roles",
                                         "projects",         "admin_keys" };
    const char *path = kinds[draw(w, countof(kinds))], *id = some(w, path), *body;
    if (!id) return;
    body = !strcmp(path, "projects") ? say(w->f->c, "{\"title\":\"t%zu\"}", w->made++)
           : !strcmp(path, "roles")
               ? say(w->f->c, "{\"permissions\":[\"models.%s\"]}", draw(w, 2) ? "read" : "create")
               : say(w->f->c, "{\"disabled\":%s}", draw(w, 2) ? "true" : "false");
    Told t = conf_do(w->f, at, HTTP_PATCH, say(w->f->c, "/lathe/v1/%s/%s", path, id), body);
    if (t.status >= 400 && t.status != 404)
        COMPLAIN("%s: %d " STR_FMT, path, t.status, STR_ARG(t.body));
}

static void remove_one(World *w, const Tenant *at) {
    if (!w->n) return;
    size_t i = draw(w, w->n);
    Told t = conf_do(w->f, at, HTTP_DELETE,
                     say(w->f->c, "/lathe/v1/%s/%s", w->at[i].path, w->at[i].id), NULL);
    if (t.status >= 500) COMPLAIN("%s: %d " STR_FMT, w->at[i].path, t.status, STR_ARG(t.body));
    if (t.status < 300 || t.status == 404) w->at[i] = w->at[--w->n]; // or gone with what it was of
}

// ---- the two views
static err read_part(Ctx *c, Tx *tx, void *arg) {
    Buf *out = arg;
    buf_clear(out);
    Json j = json_to(out);
    return access_part_query(c, tx, &j);
}

static bool same_key(const KeyEntry *a, const KeyEntry *b) {
    if (!a || !b) return a == b;
    bool same = str_eq(a->id, b->id) && str_eq(a->name, b->name) && str_eq(a->org, b->org)
                && str_eq(a->project, b->project) && str_eq(a->owner, b->owner)
                && str_eq(a->owner_name, b->owner_name) && a->owner_kind == b->owner_kind
                && a->expires_ms == b->expires_ms && a->permissions_n == b->permissions_n;
    for (size_t i = 0; same && i < a->permissions_n; i++)
        same = str_eq(a->permissions[i], b->permissions[i]);
    return same;
}

static void compare_keys(Ctx *c, const AccessView *now, yyjson_val *all, const AccessView *whole) {
    size_t i, n;
    yyjson_val *one;
    CHECK_INT(pmap_count(now->by_hash), pmap_count(whole->by_hash));
    CHECK_INT(pmap_count(now->by_id), pmap_count(whole->by_id));
    CHECK_INT(now->places->all_n, whole->places->all_n);
    yyjson_arr_foreach(json_get(all, "keys"), i, n, one) {
        str hash = json_get_str(one, "hash");
        if (!same_key(access_view_key(now, hash), access_view_key(whole, hash)))
            COMPLAIN("key %s differs", say_str(c, json_get_str(one, "id")));
    }
}

static void compare_views(Conf *f) {
    Ctx *c = app_ctx_new(f->app);
    Arena *mem = arena_new();
    Buf text;
    yyjson_val *json = NULL;
    void *whole = NULL;
    buf_init(&text, 64 << 20);
    err e = snapshot_sync(c);
    if (!e) e = db_read(c, f->app->db, read_part, &text);
    if (!e) e = json_parse(c, buf_str(&text), &json);
    if (!e) e = access_view_compile(c, mem, json, &whole);
    const Snapshot *s = snapshot_take();
    if (e) COMPLAIN("%s", err_row(e)->slug);
    else compare_keys(c, snapshot_get(s, &access_part), json, whole);
    snapshot_give(s);
    buf_done(&text);
    arena_free(mem);
    app_ctx_free(c);
}

CONF_TEST(conformance_changes_of_keys_come_to_all_of_them) {
    World *w = new (f->c->mem, World, 1);
    w->f = f, w->x = test_random();
    for (int i = 0; i < STEPS; i++) {
        uint64_t what = draw(w, 10);
        if (what < 6) create_one(w, &f->a);
        else if (what < 8) change_one(w, &f->a);
        else remove_one(w, &f->a);
        compare_views(f);
    }
    CHECK(conf_count(f, "SELECT COUNT(*) FROM api_keys WHERE name LIKE $1", "v%", NULL) > 5);
}

// ---- while changes cannot be read

static err rename_tx(Ctx *c, Tx *tx, void *arg) { return db_run(c, tx, arg); }

static void check_asked(Conf *f, const char *key, int status, const char *reason) {
    Told t = conf_ask(f, &(Question){ HTTP_GET, "/lathe/v1/whoami", key, NULL });
    CHECK_INT(t.status, status);
    if (reason) CHECK_STR(conf_reason(&t), reason);
    CHECK_INT(conf_ask(f, &(Question){ HTTP_GET, "/v1/models", key, NULL }).status, status);
}

// Keys are made all the while: only the request path does not hear of them.
CONF_TEST(conformance_a_key_that_cannot_be_looked_up_is_not_wrong) {
    static SQL(prices_off, "ALTER TABLE prices RENAME TO prices_off");
    static SQL(prices_on, "ALTER TABLE prices_off RENAME TO prices");
    Ctx *c = app_ctx_new(f->app);
    check_asked(f, "lathe_wrong", 401, "key_unknown");
    err e = db_tx(c, f->app->db, rename_tx, (void *)&prices_off);
    CHECK_OK(c, e);
    Told t = conf_do(f, &f->a, HTTP_POST, "/lathe/v1/api_keys",
                     "{\"name\":\"late\",\"service_account\":\"place-owner\"}");
    CHECK_INT(t.status, 201);
    const char *late = say_str(f->c, json_get_str(t.json, "key"));
    check_asked(f, late, 503, "key_unclear");
    check_asked(f, "lathe_wrong", 503, "key_unclear");
    check_asked(f, f->a.owner, 200, NULL);
    e = db_tx(c, f->app->db, rename_tx, (void *)&prices_on);
    if (!e) e = snapshot_sync(c);
    CHECK_OK(c, e);
    check_asked(f, late, 200, NULL);
    check_asked(f, "lathe_wrong", 401, "key_unknown");
    app_ctx_free(c);
}
