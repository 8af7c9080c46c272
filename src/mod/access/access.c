// SPDX-License-Identifier: Apache-2.0
// access.c - who may do what. The descriptor; the first start; when keys were last used. The
// request path's view of keys is access_key.c, what may be given away access_right.c, the rows are
// access_table.c.
#include "mod/access/access_own.h"
#include "base/log.h"
#include "base/map.h"
#include "res/worker.h"

static err access_init(Ctx *c);
static err access_start(Ctx *c);
static void access_stop(void *app);

static const Resource *const resources[] = {
    &organisation_resource, &project_resource,   &user_resource,
    &role_resource,         &member_resource,    &service_account_resource,
    &api_key_resource,      &admin_key_resource, NULL,
};

static err serve_whoami(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    (void)r, (void)body;
    Json j = json_to(&out->body);
    json_obj(&j);
    json_kv_str(&j, "id", c->who->id), json_kv_str(&j, "name", c->who->name),
        json_kv_str(&j, "key", c->who->key_id);
    json_kv_str(&j, "org", c->org), json_kv_str(&j, "project", c->project);
    json_key(&j, "permissions"), json_arr(&j);
    for (size_t i = 0; i < c->who->permissions_n; i++) json_put_str(&j, c->who->permissions[i]);
    json_end_arr(&j), json_end_obj(&j);
    return ERR_OK;
}

// clang-format off
static const Route routes[] = {
    { HTTP_GET, "/lathe/v1/whoami", ROUTE_ANYONE, .serve = serve_whoami, .cli = "whoami",
        .en = "Whose key this is, where it acts, what it may", .zh = "当前身份、所在项目与权限" },
    { 0 }
};
const Module access_module = {
    .name = "access", .needs = "", .resources = resources, .routes = routes,
        .migrations = access_migrations, .migrations_n = 7,
    .settings = access_settings, .metrics = access_metrics, .reasons = access_reasons,
        .roles = access_roles, .init = access_init,
        .database = first_start, .start = access_start, .stop = access_stop,
    .en = "Organisations, projects, people, roles and keys", .zh = "组织、项目、人员、角色与密钥",
};
// clang-format on
REASONS_DEFINE(ACCESS_REASONS, access_reasons)

// ---- first start
static err seed_role(Ctx *c, Tx *tx, const RoleRow *row) {
    Role was = { 0 }, now = { 0 };
    err e = res_get(c, tx, &role_resource, str_z(row->name), &was);
    if (e && e != ERR_NOTFOUND) return e;
    if (!e) now = was;
    size_t n = 0;
    while (row->permissions[n]) n++;
    now.head.name = str_z(row->name), now.title = str_z(row->en), now.builtin = true;
    now.permissions = new (c->mem, str, n + 1), now.permissions_n = n;
    for (size_t i = 0; i < n; i++) now.permissions[i] = str_z(row->permissions[i]);
    return e ? res_create(c, tx, &role_resource, &now)
             : res_update(c, tx, &role_resource, &was, &now);
}

err roles_seed(Ctx *c, Tx *tx, str org) {
    str was = c->org;
    const Identity *who = c->who;
    c->org = org, c->who = &identity_system;
    err e = ERR_OK;
    for (const Module *const *m = app_of(c)->modules; !e && *m; m++)
        for (const RoleRow *r = (*m)->roles; !e && r && r->name; r++) e = seed_role(c, tx, r);
    c->org = was, c->who = who;
    return e;
}

static err seed_first(Ctx *c, Tx *tx, void *arg) {
    AdminKey *key = arg;
    Organisation org = { .head.name = S("default"), .title = S("Default"), .limits = limits_none };
    Project project = { .head.name = S("default"),
                        .limits = limits_none,
                        .title = S("Default"),
                        .recording = 0,
                        .recording_percent = 10,
                        .recording_days = 30,
                        .responses_days = UNSET_INT };
    User admin = { .head.name = S("admin"), .title = S("Administrator") };
    AdminKey first = { .head.name = S("admin") };
    TRY(res_create(c, tx, &organisation_resource, &org));
    c->org = org.head.id;
    TRY(res_create(c, tx, &project_resource, &project));
    TRY(res_create(c, tx, &user_resource, &admin));
    Member owner = { .user = admin.head.id, .role = S("owner") };
    TRY(res_create(c, tx, &member_resource, &owner));
    first.user = admin.head.id;
    TRY(res_create(c, tx, &admin_key_resource, &first));
    *key = first;
    // The file first: a key that is stored nowhere but here must not be lost. A transaction that
    // fails leaves one that opens nothing.
    str path = arena_printf(c->mem, STR_FMT "/admin.key", STR_ARG(app_of(c)->data_dir));
    return file_write_all(c, path, arena_printf(c->mem, STR_FMT "\n", STR_ARG(first.key)),
                          FILE_PRIVATE);
}

static err seed_again(Ctx *c, Tx *tx, void *arg) {
    ListPage page;
    ListSpec spec = { .limit = LIST_MAX };
    bool *any = arg;
    *any = false;
    do {
        TRY(res_list(c, tx, &organisation_resource, &spec, &page));
        const Organisation *orgs = page.rows;
        for (size_t i = 0; i < page.n; i++) TRY(roles_seed(c, tx, orgs[i].head.id));
        *any |= page.n > 0;
        spec.cursor = page.cursor;
    } while (spec.cursor.n);
    return ERR_OK;
}

err first_start(Ctx *c) {
    bool any = false;
    AdminKey key = { 0 };
    TRY(db_tx(c, c->db, seed_again, &any));
    if (any) return ERR_OK;
    str org = c->org;
    err e = db_tx(c, c->db, seed_first, &key);
    c->org = org;
    return e;
}

// ---- last use
static struct {
    pthread_mutex_t lock;
    Map used;
    Arena *mem;
    Worker *writer;
    Limiter *limiter;
} state = { .lock = PTHREAD_MUTEX_INITIALIZER };
typedef struct LastUse {
    str id;
    int64_t at_ms;
} LastUse;
enum { FLUSH_EVERY_MS = 30000, SUBJECTS_MAX = 100000 };

Limiter *access_limiter(void) { return state.limiter; }

void access_key_used(str key_id, int64_t now_ms) {
    pthread_mutex_lock(&state.lock);
    LastUse *u = state.mem ? map_get(&state.used, key_id) : NULL;
    if (state.mem && !u) {
        u = new (state.mem, LastUse, 1);
        u->id = arena_str(state.mem, key_id);
        map_set(&state.used, u->id, u);
    }
    if (u) u->at_ms = now_ms;
    pthread_mutex_unlock(&state.lock);
}

typedef struct Uses {
    LastUse *at;
    size_t n;
} Uses;

static err write_uses(Ctx *c, Tx *tx, void *arg) {
    static SQL(api_key_used, "UPDATE api_keys SET last_used_at = $1 WHERE id = $2");
    static SQL(admin_key_used, "UPDATE admin_keys SET last_used_at = $1 WHERE id = $2");
    const Uses *uses = arg;
    for (size_t i = 0; i < uses->n; i++) {
        bool admin = str_starts(uses->at[i].id, S("adminkey_"));
        TRY(db_run(c, tx, admin ? &admin_key_used : &api_key_used, V(uses->at[i].at_ms),
                   V(uses->at[i].id)));
    }
    return ERR_OK;
}

static void uses_reset(void) {
    map_done(&state.used);
    arena_free(state.mem);
    state.mem = arena_new();
    map_init(&state.used, 0x75736564);
}

err used_flush(Ctx *c, void *arg) {
    (void)arg;
    Uses uses = { 0 };
    MapEntry *e;
    pthread_mutex_lock(&state.lock);
    uses.at = new (c->mem, LastUse, state.used.live + 1);
    for (size_t i = 0; map_each(&state.used, &i, &e);) {
        const LastUse *u = e->value;
        uses.at[uses.n++] = (LastUse){ arena_str(c->mem, u->id), u->at_ms };
    }
    uses_reset();
    pthread_mutex_unlock(&state.lock);
    return uses.n ? db_tx(c, c->db, write_uses, &uses) : ERR_OK;
}

static err access_init(Ctx *c) {
    app_of(c)->identify = access_identify;
    snapshot_part(&access_part);
    state.limiter = limiter_new(SUBJECTS_MAX);
    flood_start();
    uses_reset();
    return ERR_OK;
}

static err access_start(Ctx *c) {
    state.writer = worker_start(app_of(c), "access", FLUSH_EVERY_MS, used_flush, NULL);
    return ERR_OK;
}

static void access_stop(void *app) {
    worker_free(state.writer);
    state.writer = NULL;
    Ctx *c = app_ctx_new(app);
    if (used_flush(c, NULL))
        log_at("access", LOG_WARN, c, "the last uses of keys were not written");
    app_ctx_free(c);
    limiter_free(state.limiter);
    state.limiter = NULL;
    flood_stop();
}
