// SPDX-License-Identifier: Apache-2.0
// access_key.c - the request path's view of keys: a part of the snapshot, found by the key's hash;
// who is behind it and where it may act.
#include "mod/access/access_own.h"
#include "base/id.h"
#include "base/map.h"
#include "base/time.h"
#include "blob/blob.h"
#include <assert.h>

enum { KEY_SECRET = 32, KEY_TEXT_MAX = 200 };

// ---- making keys
str key_hash(Ctx *c, str key) {
    char hex[BLOB_DIGEST_HEX + 1];
    sha256_hex(key, hex);
    return arena_str(c->mem, str_z(hex));
}

void key_make(Ctx *c, str *out_key, str *out_hint, str *out_hash) {
    static const char letters[33] = "0123456789abcdefghjkmnpqrstvwxyz";
    uint8_t random[KEY_SECRET];
    char secret[KEY_SECRET + 1] = "";
    str id = os_id(c, "k");
    os_random(c->os, random, sizeof random);
    for (int i = 0; i < KEY_SECRET; i++) secret[i] = letters[random[i] & 31]; // 160 bits
    *out_key = arena_printf(c->mem, "lathe_" STR_FMT "_%s", STR_ARG(str_sub(id, 2, id.n)), secret);
    *out_hint = arena_printf(c->mem, "lathe_" STR_FMT "…%s", STR_ARG(str_sub(id, 2, 6)),
                             secret + KEY_SECRET - 4);
    *out_hash = key_hash(c, *out_key);
}

// ---- the part: {"projects": [...], "keys": [...]}
typedef struct ProjectEntry {
    str id, name, org, org_name;
} ProjectEntry;
typedef struct AccessView {
    Map keys, projects, orgs; // by hash; by id; organisation names to ids
    ProjectEntry *all;
    size_t all_n;
    const ProjectEntry *first; // "default" of "default", else the oldest
} AccessView;

typedef struct Loader {
    Ctx *c;
    Tx *tx;
    Map roles, accounts, users;
    Member *members;
    size_t members_n;
    Json *out;
} Loader;

static err each(Loader *l, const Resource *r, err (*fn)(Loader *, void *row)) {
    ListSpec spec = { .limit = LIST_MAX, .all_scopes = true };
    do {
        ListPage page;
        TRY(res_list(l->c, l->tx, r, &spec, &page));
        for (size_t i = 0; i < page.n; i++) TRY(fn(l, (char *)page.rows + i * r->size));
        spec.cursor = page.cursor;
    } while (spec.cursor.n);
    return ERR_OK;
}

static err keep_role(Loader *l, void *row) {
    return map_set(&l->roles, ((Head *)row)->id, row), ERR_OK;
}
static err keep_account(Loader *l, void *row) {
    return map_set(&l->accounts, ((Head *)row)->id, row), ERR_OK;
}
static err keep_user(Loader *l, void *row) {
    return map_set(&l->users, ((Head *)row)->id, row), ERR_OK;
}
static err keep_member(Loader *l, void *row) {
    if (!(l->members_n & (l->members_n - 1))) { // doubles
        Member *grown = new (l->c->mem, Member, l->members_n ? l->members_n * 2 : 1);
        if (l->members_n) memcpy(grown, l->members, l->members_n * sizeof *grown);
        l->members = grown;
    }
    l->members[l->members_n++] = *(Member *)row;
    return ERR_OK;
}

static err write_project(Loader *l, void *row) {
    const Project *p = row;
    json_obj(l->out);
    json_kv_str(l->out, "id", p->head.id), json_kv_str(l->out, "name", p->head.name),
        json_kv_str(l->out, "org", p->head.org);
    json_end_obj(l->out);
    return ERR_OK;
}
static err write_org(Loader *l, void *row) {
    const Head *h = row;
    json_obj(l->out), json_kv_str(l->out, "id", h->id), json_kv_str(l->out, "name", h->name),
        json_end_obj(l->out);
    return ERR_OK;
}

static void write_role(Loader *l, str role) {
    const Role *r = map_get(&l->roles, role);
    for (size_t i = 0; r && i < r->permissions_n; i++) json_put_str(l->out, r->permissions[i]);
}

typedef struct KeyHead {
    const Head *head;
    str org, hash, owner, owner_name;
    int64_t expires_ms;
    const char *kind;
} KeyHead;

static void write_head(Loader *l, const KeyHead *k) {
    Json *j = l->out;
    json_obj(j);
    json_kv_str(j, "hash", k->hash), json_kv_str(j, "id", k->head->id);
    json_kv_str(j, "name", k->head->name), json_kv_str(j, "org", k->org);
    json_kv_str(j, "project", k->head->project), json_kv_z(j, "kind", k->kind);
    json_kv_str(j, "owner", k->owner), json_kv_str(j, "owner_name", k->owner_name);
    json_kv_i64(j, "expires", k->expires_ms);
}

static err write_api_key(Loader *l, void *row) {
    const ApiKey *k = row;
    const ServiceAccount *a = map_get(&l->accounts, k->owner);
    const User *u = map_get(&l->users, k->owner);
    bool system = str_is(k->owner, "system");
    if (u && !str_eq(u->head.org, k->head.org)) u = NULL; // a member there is nobody here
    if (k->disabled || (a && a->disabled) || (u && u->disabled) || (!a && !u && !system))
        return ERR_OK;
    Json *j = l->out;
    write_head(l, &(KeyHead){ &k->head, k->head.org, k->hash, k->owner,
                              a   ? a->head.name
                              : u ? u->head.name
                                  : k->owner,
                              k->expires_at, a ? "service" : "user" });
    json_key(j, "rights"), json_arr(j);
    for (size_t i = 0; a && i < a->roles_n; i++) write_role(l, a->roles[i]);
    for (size_t i = 0; u && i < l->members_n; i++) {
        const Member *m = &l->members[i];
        if (str_eq(m->user, u->head.id)
            && (!m->member_project.n || str_eq(m->member_project, k->head.project)))
            write_role(l, m->role);
    }
    if (system) json_put_str(j, S("*"));
    json_end_arr(j);
    json_key(j, "scopes"), json_arr(j);
    for (size_t i = 0; i < k->scopes_n; i++) json_put_str(j, k->scopes[i]);
    json_end_arr(j);
    json_kv_i64(j, "rpm", k->limits.requests_per_minute),
        json_kv_i64(j, "concurrency", k->limits.concurrency);
    json_kv_i64(j, "money", k->limits.money_per_day);
    json_end_obj(j);
    return ERR_OK;
}

static err write_admin_key(Loader *l, void *row) {
    const AdminKey *k = row;
    const User *u = map_get(&l->users, k->user);
    if (k->disabled || (k->user.n && (!u || u->disabled))) return ERR_OK;
    const Head *owner = u ? &u->head : &k->head;
    write_head(l, &(KeyHead){ &k->head, k->admin_org, k->hash, owner->id, owner->name,
                              k->expires_at, "user" });
    json_key(l->out, "rights"), json_arr(l->out), json_put_str(l->out, S("*")),
        json_end_arr(l->out);
    json_end_obj(l->out);
    return ERR_OK;
}

static err part_query(Ctx *c, Tx *tx, Json *out) {
    Loader l = { .c = c, .tx = tx, .out = out };
    map_init(&l.roles, 1), map_init(&l.accounts, 2), map_init(&l.users, 3);
    err e = each(&l, &role_resource, keep_role);
    if (!e) e = each(&l, &service_account_resource, keep_account);
    if (!e) e = each(&l, &user_resource, keep_user);
    if (!e) e = each(&l, &member_resource, keep_member);
    json_obj(out);
    json_key(out, "orgs"), json_arr(out);
    if (!e) e = each(&l, &organisation_resource, write_org);
    json_end_arr(out), json_key(out, "projects"), json_arr(out);
    if (!e) e = each(&l, &project_resource, write_project);
    json_end_arr(out), json_key(out, "keys"), json_arr(out);
    if (!e) e = each(&l, &api_key_resource, write_api_key);
    if (!e) e = each(&l, &admin_key_resource, write_admin_key);
    json_end_arr(out), json_end_obj(out);
    map_done(&l.roles), map_done(&l.accounts), map_done(&l.users);
    return e;
}

// ---- compiled
static Rights texts(Arena *mem, yyjson_val *list) {
    Rights out = { new (mem, str, yyjson_arr_size(list) + 1), 0 };
    size_t i, n;
    yyjson_val *v;
    yyjson_arr_foreach(list, i, n, v) out.at[out.n++] = json_str(v);
    return out;
}

static void compile_key(Arena *mem, AccessView *v, yyjson_val *in) {
    KeyEntry *k = new (mem, KeyEntry, 1);
    *k = (KeyEntry){ .id = json_get_str(in, "id"),
                     .name = json_get_str(in, "name"),
                     .org = json_get_str(in, "org"),
                     .project = json_get_str(in, "project"),
                     .owner = json_get_str(in, "owner"),
                     .owner_name = json_get_str(in, "owner_name"),
                     .owner_kind =
                         str_is(json_get_str(in, "kind"), "service") ? WHO_SERVICE : WHO_USER };
    json_get_i64(in, "expires", &k->expires_ms);
    json_get_i64(in, "rpm", &k->limits.requests_per_minute);
    json_get_i64(in, "concurrency", &k->limits.concurrency);
    json_get_i64(in, "money", &k->limits.money_per_day);
    Rights rights =
        rights_cut(mem, texts(mem, json_get(in, "rights")), texts(mem, json_get(in, "scopes")));
    k->permissions = rights.at, k->permissions_n = rights.n;
    map_set(&v->keys, json_get_str(in, "hash"), k);
}

static void compile_projects(Arena *mem, AccessView *v, yyjson_val *list) {
    size_t i, n;
    yyjson_val *in;
    v->all = new (mem, ProjectEntry, yyjson_arr_size(list) + 1);
    yyjson_arr_foreach(list, i, n, in) {
        ProjectEntry *p = &v->all[v->all_n++];
        *p = (ProjectEntry){
            json_get_str(in, "id"), json_get_str(in, "name"), json_get_str(in, "org"), { 0 }
        };
        map_set(&v->projects, p->id, p);
        if (!v->first || (str_is(p->name, "default") && !str_is(v->first->name, "default")))
            v->first = p;
    }
}

static void view_done(void *arg) {
    AccessView *v = arg;
    map_done(&v->keys), map_done(&v->projects), map_done(&v->orgs);
}

static err part_compile(Ctx *c, Arena *mem, yyjson_val *in, void **out) {
    AccessView *v = new (mem, AccessView, 1);
    uint64_t seed;
    os_random(c->os, &seed, sizeof seed);
    map_init(&v->keys, seed), map_init(&v->projects, seed), map_init(&v->orgs, seed);
    arena_defer(mem, view_done, v);
    size_t i, n;
    yyjson_val *each_in;
    yyjson_arr_foreach(json_get(in, "orgs"), i, n, each_in) {
        str *id = new (mem, str, 1);
        *id = json_get_str(each_in, "id");
        map_set(&v->orgs, json_get_str(each_in, "name"), id), map_set(&v->orgs, *id, id);
    }
    compile_projects(mem, v, json_get(in, "projects"));
    yyjson_arr_foreach(json_get(in, "keys"), i, n, each_in) compile_key(mem, v, each_in);
    *out = v;
    return ERR_OK;
}
const SnapshotPart access_part = { "access", part_query, part_compile };

// ---- who is it
static str sent_key(const HttpRequest *r) {
    str bearer = http_header(r, "authorization");
    if (bearer.n > 7 && str_ieq(str_sub(bearer, 0, 7), S("bearer ")))
        return str_trim(str_sub(bearer, 7, bearer.n));
    return http_header(r, "x-api-key");
}

// The organisation that the key is of, or that the system's key asks to act in. A key of one that
// names another is refused; OpenAI's header is then left alone: its clients send it everywhere.
static err choose_org(Ctx *c, const AccessView *v, const KeyEntry *k, const HttpRequest *r,
                      str *out) {
    str name = http_header(r, "lathe-organisation");
    *out = k->org;
    if (!name.p && !k->org.n) name = http_header(r, "openai-organization");
    if (!name.n) return ERR_OK;
    const str *id = map_get(&v->orgs, name);
    if (k->org.n && id && str_eq(*id, k->org)) return ERR_OK;
    if (k->org.n)
        return fail(c, ERR_DENIED, R_ORG_DENIED, "key", say_str(c, k->name), "org",
                    say_str(c, name));
    if (!id) return fail(c, ERR_NOTFOUND, R_ORG_UNKNOWN, "org", say_str(c, name));
    *out = *id;
    return ERR_OK;
}

static const ProjectEntry *find_project(const AccessView *v, str org, str id_or_name) {
    const ProjectEntry *p = map_get(&v->projects, id_or_name);
    if (p && (!org.n || str_eq(p->org, org))) return p;
    const ProjectEntry *found = NULL;
    for (size_t i = 0; i < v->all_n; i++) {
        if (!str_eq(v->all[i].name, id_or_name) || (org.n && !str_eq(v->all[i].org, org))) continue;
        if (found) return NULL; // two organisations have one: the id says which
        found = &v->all[i];
    }
    return found;
}

static err choose_project(Ctx *c, const AccessView *v, const KeyEntry *k, const HttpRequest *r,
                          str *out_org, str *out_project) {
    str asked = request_project(r), org;
    const ProjectEntry *p = NULL;
    TRY(choose_org(c, v, k, r, &org));
    if (k->project.n) {
        p = map_get(&v->projects, k->project);
        if (asked.n && !str_eq(asked, k->project) && !(p && str_eq(asked, p->name)))
            return fail(c, ERR_DENIED, R_PROJECT_DENIED, "key", say_str(c, k->name), "project",
                        say_str(c, asked));
    } else if (asked.n) {
        p = find_project(v, org, asked);
        if (!p) return fail(c, ERR_NOTFOUND, R_PROJECT_UNKNOWN, "project", say_str(c, asked));
    } else if (!org.n) {
        p = v->first;
    } else {
        p = find_project(v, org, S("default"));
    }
    *out_project = k->project.n ? k->project : p ? p->id : (str){ 0 };
    *out_org = p ? p->org : org;
    return ERR_OK;
}

static err find_key(Ctx *c, const AccessView *v, const HttpRequest *r, const KeyEntry **out) {
    str text = sent_key(r);
    if (!text.n) return fail(c, ERR_UNAUTHENTICATED, R_KEY_MISSING);
    if (text.n > KEY_TEXT_MAX) return fail(c, ERR_UNAUTHENTICATED, R_KEY_UNKNOWN);
    char hex[BLOB_DIGEST_HEX + 1], at[TIME_TEXT];
    sha256_hex(text, hex); // found by its hash: no comparison whose time tells of a prefix
    const KeyEntry *k = map_get(&v->keys, str_z(hex));
    if (!k) return fail(c, ERR_UNAUTHENTICATED, R_KEY_UNKNOWN);
    if (k->expires_ms && os_wall_ms(c->os) >= k->expires_ms)
        return fail(c, ERR_UNAUTHENTICATED, R_KEY_EXPIRED, "key", say_str(c, k->name), "at",
                    say_str(c, time_format(k->expires_ms, at)));
    *out = k;
    return ERR_OK;
}

// A key that reaches for another's place leaves a mark in its own.
static err denied_place(Ctx *c, const KeyEntry *k, const HttpRequest *r, err e) {
    App *app = app_of(c);
    if (e != ERR_DENIED || !app->audit_denied) return e;
    Identity *who = new (c->mem, Identity, 1);
    *who = access_identity(k);
    c->who = who, c->org = k->org, c->project = k->project;
    app->audit_denied(c, "another place", r->path);
    return e;
}

err access_key(Ctx *c, const Snapshot *s, const HttpRequest *r, const KeyEntry **out,
               str *out_project) {
    const AccessView *v = snapshot_get(s, &access_part);
    const KeyEntry *k = NULL;
    str org;
    err e = find_key(c, v, r, &k);
    if (e) {
        App *app = app_of(c);
        if (app->audit_denied) app->audit_denied(c, "identify", r->peer);
        return flood_check(c, r, e);
    }
    e = choose_project(c, v, k, r, &org, out_project);
    if (e) return denied_place(c, k, r, e);
    c->org = org;
    *out = k;
    return ERR_OK;
}

Identity access_identity(const KeyEntry *k) {
    return (Identity){ k->owner_kind, k->owner,   k->owner_name,  k->id,
                       k->org,        k->project, k->permissions, k->permissions_n };
}

static void give(void *s) { snapshot_give(s); }

err access_identify(Ctx *c, const HttpRequest *r, bool on_loop) {
    const Snapshot *s = snapshot_take(); // the identity points into it: kept as long as the call
    const KeyEntry *k;
    str project;
    (void)on_loop;
    arena_defer(c->mem, give, (void *)(uintptr_t)s);
    TRY(access_key(c, s, r, &k, &project));
    Identity *who = new (c->mem, Identity, 1);
    *who = access_identity(k);
    c->who = who, c->project = project;
    access_key_used(k->id, os_wall_ms(c->os));
    return ERR_OK;
}
