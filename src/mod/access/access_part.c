// SPDX-License-Identifier: Apache-2.0
// access_part.c - what the request path is told of keys, from the database: all of it, or what a
// few changes come to (the JSON is described in access_view.c). A change of an account, a user or a
// member is one of its keys; one of a role, or of a member that is gone, may be one of any key.
// Threads: the snapshot's builder.
#include "mod/access/access_view.h"

typedef struct Owner { // who a key acts for: of an account or a user, what keys need
    str id, name, org;
    str *roles; // an account's
    size_t roles_n;
    bool disabled, account;
    struct Membership *members; // a user's
} Owner;
typedef struct Membership {
    struct Membership *next;
    str role, project;
} Membership;

// Owners and roles that were met, in `keep`; when not `all`, the others are read as they are met.
typedef struct Loader {
    Ctx *c;
    Tx *tx;
    Arena *keep;
    bool all;
    Map owners, roles; // roles: of those that written keys have
    Json *out;
    bool whole;
    Map gone; // ids of keys that a change may have touched
} Loader;

typedef err Visit(Loader *l, void *row);

// Each row of a list, a page at a time: what is not kept goes with its page.
static err each(Loader *l, const Resource *r, const Filter *filter, Visit *fn) {
    ListSpec spec = { .limit = LIST_MAX, .all_scopes = true };
    if (filter) spec.filters[spec.filters_n++] = *filter;
    do {
        ArenaMark mark = arena_mark(l->c->mem);
        ListPage page;
        TRY(res_list(l->c, l->tx, r, &spec, &page));
        for (size_t i = 0; i < page.n; i++) TRY(fn(l, (char *)page.rows + i * r->size));
        spec.cursor = arena_str(l->keep, page.cursor);
        arena_restore(l->c->mem, mark);
    } while (spec.cursor.n);
    return ERR_OK;
}

static err by(Loader *l, const Resource *r, const char *field, str value, Visit *fn) {
    const Field *f = field_find(r->fields, str_z(field));
    Filter filter = { f ? f : field_find(head_rows, str_z(field)), OP_EQ, val_str(value) };
    return each(l, r, &filter, fn);
}

static str keep(Loader *l, str s) { return arena_str(l->keep, s); }

// ---- owners
static Owner *owner_new(Loader *l, const Head *h) {
    Owner *o = new (l->keep, Owner, 1);
    o->id = keep(l, h->id), o->name = keep(l, h->name), o->org = keep(l, h->org);
    map_set(&l->owners, o->id, o);
    return o;
}

static err keep_account(Loader *l, void *row) {
    const ServiceAccount *a = row;
    Owner *o = owner_new(l, &a->head);
    o->account = true, o->disabled = a->disabled;
    o->roles = new (l->keep, str, a->roles_n + 1);
    for (size_t i = 0; i < a->roles_n; i++) o->roles[o->roles_n++] = keep(l, a->roles[i]);
    return ERR_OK;
}

static err keep_user(Loader *l, void *row) {
    const User *u = row;
    owner_new(l, &u->head)->disabled = u->disabled;
    return ERR_OK;
}

static err keep_member(Loader *l, void *row) {
    const Member *m = row;
    Owner *o = map_get(&l->owners, m->user);
    if (!o || !str_eq(o->org, m->head.org)) return ERR_OK; // a member elsewhere is nobody there
    Membership *one = new (l->keep, Membership, 1);
    *one = (Membership){ o->members, keep(l, m->role), keep(l, m->member_project) };
    o->members = one;
    return ERR_OK;
}

static err find_owner(Loader *l, str id, const Owner **out) {
    if (!l->all && id.n && !map_get(&l->owners, id)) {
        bool account = str_starts(id, S("sa_"));
        TRY(by(l, account ? &service_account_resource : &user_resource, "id", id,
               account ? keep_account : keep_user));
        if (!account && map_get(&l->owners, id))
            TRY(by(l, &member_resource, "user", id, keep_member));
    }
    *out = map_get(&l->owners, id);
    return ERR_OK;
}

// ---- keys
static void put_role(Loader *l, str role) {
    static char used;
    json_put_str(l->out, role);
    if (!map_get(&l->roles, role)) map_set(&l->roles, keep(l, role), &used);
}

static void write_head(Loader *l, const Head *h, str org, const Owner *o) {
    Json *j = l->out;
    json_obj(j);
    json_kv_str(j, "id", h->id), json_kv_str(j, "name", h->name), json_kv_str(j, "org", org);
    json_kv_str(j, "project", h->project), json_kv_z(j, "kind", o->account ? "service" : "user");
    json_kv_str(j, "owner", o->id), json_kv_str(j, "owner_name", o->name);
}

static void write_everything(Json *j) {
    json_key(j, "rights"), json_arr(j), json_put_str(j, S("*")), json_end_arr(j);
}

static void write_roles(Loader *l, const Owner *o, str project) {
    json_key(l->out, "roles"), json_arr(l->out);
    for (size_t i = 0; i < o->roles_n; i++) put_role(l, o->roles[i]);
    for (const Membership *m = o->members; m; m = m->next)
        if (!m->project.n || str_eq(m->project, project)) put_role(l, m->role);
    json_end_arr(l->out);
}

static void write_limits(Json *j, const Limits *of) {
    if (of->requests_per_minute > 0) json_kv_i64(j, "rpm", of->requests_per_minute);
    if (of->tokens_per_minute > 0) json_kv_i64(j, "tpm", of->tokens_per_minute);
    if (of->concurrency > 0) json_kv_i64(j, "concurrency", of->concurrency);
    if (of->money_per_day > 0) json_kv_i64(j, "money", of->money_per_day);
    if (of->money_per_month > 0) json_kv_i64(j, "money_month", of->money_per_month);
    if (of->money_total > 0) json_kv_i64(j, "money_total", of->money_total);
}

static err write_api_key(Loader *l, void *row) {
    const ApiKey *k = row;
    Owner system = { .id = k->owner, .name = k->owner };
    const Owner *o;
    bool is_system = str_is(k->owner, "system");
    TRY(find_owner(l, k->owner, &o));
    if (o && !o->account && !str_eq(o->org, k->head.org)) o = NULL; // a member there is nobody here
    if (k->disabled || (o && o->disabled) || (!o && !is_system)) return ERR_OK;
    Json *j = l->out;
    write_head(l, &k->head, k->head.org, o ? o : &system);
    json_kv_str(j, "hash", k->hash), json_kv_i64(j, "expires", k->expires_at);
    if (is_system) write_everything(j);
    if (o) write_roles(l, o, k->head.project);
    json_key(j, "scopes"), json_arr(j);
    for (size_t i = 0; i < k->scopes_n; i++) json_put_str(j, k->scopes[i]);
    json_end_arr(j);
    write_limits(j, &k->limits);
    json_end_obj(j);
    return ERR_OK;
}

static err write_admin_key(Loader *l, void *row) {
    const AdminKey *k = row;
    const Owner *u;
    Owner itself = { .id = k->head.id, .name = k->head.name };
    TRY(find_owner(l, k->user, &u));
    if (k->disabled || (k->user.n && (!u || u->disabled))) return ERR_OK;
    write_head(l, &k->head, k->admin_org, u ? u : &itself);
    json_kv_str(l->out, "hash", k->hash), json_kv_i64(l->out, "expires", k->expires_at);
    write_everything(l->out);
    json_end_obj(l->out);
    return ERR_OK;
}

// ---- places and roles
static void write_place(Json *j, const Head *h, const Limits *limits) {
    json_obj(j);
    json_kv_str(j, "id", h->id), json_kv_str(j, "name", h->name);
    if (h->org.n) json_kv_str(j, "org", h->org);
    write_limits(j, limits);
}

static err write_org(Loader *l, void *row) {
    const Organisation *o = row;
    write_place(l->out, &o->head, &o->limits);
    json_end_obj(l->out);
    return ERR_OK;
}

static err write_project(Loader *l, void *row) {
    const Project *p = row;
    write_place(l->out, &p->head, &p->limits);
    if (p->responses_days != UNSET_INT) json_kv_i64(l->out, "responses", p->responses_days);
    json_end_obj(l->out);
    return ERR_OK;
}

static err write_role(Loader *l, void *row) {
    const Role *r = row;
    if (!map_get(&l->roles, r->head.id)) return ERR_OK; // no key has it
    json_key_str(l->out, r->head.id), json_arr(l->out);
    for (size_t i = 0; i < r->permissions_n; i++) json_put_str(l->out, r->permissions[i]);
    json_end_arr(l->out);
    return ERR_OK;
}

static err write_places(Loader *l) {
    json_key(l->out, "orgs"), json_arr(l->out);
    TRY(each(l, &organisation_resource, NULL, write_org));
    json_end_arr(l->out), json_key(l->out, "projects"), json_arr(l->out);
    TRY(each(l, &project_resource, NULL, write_project));
    json_end_arr(l->out);
    return ERR_OK;
}

static err write_all(Loader *l) {
    TRY(each(l, &service_account_resource, NULL, keep_account));
    TRY(each(l, &user_resource, NULL, keep_user));
    TRY(each(l, &member_resource, NULL, keep_member));
    json_obj(l->out);
    TRY(write_places(l));
    json_key(l->out, "keys"), json_arr(l->out);
    TRY(each(l, &api_key_resource, NULL, write_api_key));
    TRY(each(l, &admin_key_resource, NULL, write_admin_key));
    json_end_arr(l->out), json_key(l->out, "roles"), json_obj(l->out);
    TRY(each(l, &role_resource, NULL, write_role));
    json_end_obj(l->out), json_end_obj(l->out);
    return ERR_OK;
}

static Loader loader(Ctx *c, Tx *tx, Json *out, bool all) {
    Loader l = { .c = c, .tx = tx, .keep = arena_new(), .all = all, .out = out };
    map_init(&l.owners, 2), map_init(&l.roles, 1), map_init(&l.gone, 3);
    return l;
}

static void loader_done(Loader *l) {
    map_done(&l->owners), map_done(&l->roles), map_done(&l->gone);
    arena_free(l->keep);
}

err access_part_query(Ctx *c, Tx *tx, Json *out) {
    Loader l = loader(c, tx, out, true);
    err e = write_all(&l);
    loader_done(&l);
    return e;
}

// ---- changes
static err note_key(Loader *l, void *row) {
    str id = keep(l, ((const Head *)row)->id);
    static char there;
    if (!map_get(&l->gone, id)) map_set(&l->gone, id, &there);
    return ERR_OK;
}

static err note_of_user(Loader *l, str user) {
    TRY(by(l, &api_key_resource, "owner", user, note_key));
    return by(l, &admin_key_resource, "user", user, note_key);
}

static err note_member(Loader *l, void *row) {
    return note_of_user(l, ((const Member *)row)->user);
}

static err note_change(Loader *l, const SnapshotChange *at, bool *places) {
    Head itself = { .id = at->id };
    bool key = str_is(at->kind, "api_key") || str_is(at->kind, "admin_key");
    if (key) return note_key(l, &itself);
    if (str_is(at->kind, "organisation") || str_is(at->kind, "project"))
        return *places = true, ERR_OK;
    if (str_is(at->kind, "service_account"))
        return by(l, &api_key_resource, "owner", at->id, note_key);
    if (str_is(at->kind, "user")) return note_of_user(l, at->id);
    size_t before = l->gone.live;
    if (str_is(at->kind, "member")) TRY(by(l, &member_resource, "id", at->id, note_member));
    // It is gone, and with it whose it was; or its user has no key.
    bool unknown = str_is(at->kind, "member") && l->gone.live == before;
    l->whole |= unknown || str_is(at->kind, "role");
    return ERR_OK;
}

static err write_changes(Loader *l, bool places) {
    MapEntry *e;
    json_obj(l->out);
    if (places) TRY(write_places(l));
    json_key(l->out, "gone"), json_arr(l->out);
    for (size_t i = 0; map_each(&l->gone, &i, &e);) json_put_str(l->out, e->key);
    json_end_arr(l->out), json_key(l->out, "keys"), json_arr(l->out);
    for (size_t i = 0; map_each(&l->gone, &i, &e);) {
        bool admin = str_starts(e->key, S("adminkey_"));
        TRY(by(l, admin ? &admin_key_resource : &api_key_resource, "id", e->key,
               admin ? write_admin_key : write_api_key));
    }
    json_end_arr(l->out), json_key(l->out, "roles"), json_obj(l->out);
    for (size_t i = 0; map_each(&l->roles, &i, &e);)
        TRY(by(l, &role_resource, "id", e->key, write_role));
    json_end_obj(l->out), json_end_obj(l->out);
    return ERR_OK;
}

err access_part_changes(Ctx *c, Tx *tx, const SnapshotChange *at, size_t n, Json *out,
                        bool *out_whole) {
    Loader l = loader(c, tx, out, false);
    bool places = false;
    err e = ERR_OK;
    for (size_t i = 0; i < n && !e && !l.whole; i++) e = note_change(&l, &at[i], &places);
    *out_whole = l.whole;
    if (!e && !l.whole && (l.gone.live || places)) e = write_changes(&l, places);
    loader_done(&l);
    return e;
}
