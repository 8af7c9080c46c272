// SPDX-License-Identifier: Apache-2.0
// access_right.c - nobody gives, or takes, more than they have: what a key may carry, and who may
// make, change or rotate it. Rights are cut to scopes here, for the request path too. Also whether
// an administrator is left. Threads: within the caller's transaction; permissions_cut on any.
#include "mod/access/access_own.h"

// What both allow: "*.read" and "models.*" have "models.read" in common.
static bool meet(Arena *mem, str a, str b, str *out) {
    if (permission_covers(a, b)) return *out = b, true;
    if (permission_covers(b, a)) return *out = a, true;
    ptrdiff_t i = str_find_char(a, '.'), k = str_find_char(b, '.');
    if (i < 0 || k < 0) return false;
    str kinds[] = { str_sub(a, 0, (size_t)i), str_sub(b, 0, (size_t)k) };
    str verbs[] = { str_sub(a, (size_t)i + 1, a.n), str_sub(b, (size_t)k + 1, b.n) };
    bool kind_open = str_is(kinds[0], "*"), verb_open = str_is(verbs[0], "*");
    if (!kind_open && !str_is(kinds[1], "*") && !str_eq(kinds[0], kinds[1])) return false;
    if (!verb_open && !str_is(verbs[1], "*") && !str_eq(verbs[0], verbs[1])) return false;
    *out = arena_printf(mem, STR_FMT "." STR_FMT, STR_ARG(kinds[kind_open]),
                        STR_ARG(verbs[verb_open]));
    return true;
}

Rights rights_cut(Arena *mem, Rights have, Rights scopes) {
    if (!scopes.n) return have;
    Rights both = { new (mem, str, have.n * scopes.n + 1), 0 };
    for (size_t i = 0; i < have.n; i++)
        for (size_t s = 0; s < scopes.n; s++)
            if (meet(mem, have.at[i], scopes.at[s], &both.at[both.n])) both.n++;
    return both;
}

// ---- rights of an owner
static void rights_add(Arena *mem, Rights *to, const Role *role) {
    str *grown = new (mem, str, to->n + role->permissions_n + 1);
    if (to->n) memcpy(grown, to->at, to->n * sizeof *grown);
    for (size_t i = 0; i < role->permissions_n; i++) grown[to->n + i] = role->permissions[i];
    *to = (Rights){ grown, to->n + role->permissions_n };
}

static err role_rights(Ctx *c, Tx *tx, str role, Rights *to) {
    Role r = { 0 };
    TRY(res_get(c, tx, &role_resource, role, &r));
    rights_add(c->mem, to, &r);
    return ERR_OK;
}

static err account_rights(Ctx *c, Tx *tx, str account, Rights *to) {
    ServiceAccount a = { 0 };
    TRY(res_get(c, tx, &service_account_resource, account, &a));
    for (size_t i = 0; i < a.roles_n; i++) TRY(role_rights(c, tx, a.roles[i], to));
    return ERR_OK;
}

static err user_rights(Ctx *c, Tx *tx, str user, Rights *to) {
    ListSpec spec = { .limit = LIST_MAX };
    TRY(list_filter(c, &member_resource, &spec, "user", OP_EQ, user));
    do {
        ListPage page;
        TRY(res_list(c, tx, &member_resource, &spec, &page));
        const Member *m = page.rows;
        for (size_t i = 0; i < page.n; i++)
            if (!m[i].member_project.n || str_eq(m[i].member_project, c->project))
                TRY(role_rights(c, tx, m[i].role, to));
        spec.cursor = page.cursor;
    } while (spec.cursor.n);
    return ERR_OK;
}

// ---- giving
static err require_all(Ctx *c, Rights rights, str target) {
    for (size_t i = 0; i < rights.n; i++) TRY(require(c, say_str(c, rights.at[i]), target));
    return ERR_OK;
}

err may_give(Ctx *c, Tx *tx, str role) {
    Rights rights = { 0 };
    if (c->who && c->who->kind == WHO_SYSTEM) return ERR_OK;
    TRY(role_rights(c, tx, role, &rights));
    return require_all(c, rights, role);
}

static bool system_acts(const Ctx *c) { return !c->who || c->who->kind == WHO_SYSTEM; }

static err may_hold(Ctx *c, Tx *tx, const ApiKey *k) {
    Rights rights = { 0 };
    if (str_is(k->owner, "system")) return require(c, "*", k->head.id);
    err e = k->service_account.n ? account_rights(c, tx, k->service_account, &rights)
                                 : user_rights(c, tx, k->owner, &rights);
    TRY(e);
    return require_all(c, rights_cut(c->mem, rights, (Rights){ k->scopes, k->scopes_n }),
                       k->head.id);
}

// ---- a key that is bound itself
static bool over(int64_t asked, int64_t own) {
    return own != UNSET_INT && (asked == UNSET_INT || asked > own);
}

static int64_t limit_at(const Limits *l, const Field *f) {
    return *(const int64_t *)field_at(f, (void *)(uintptr_t)l);
}

static const char *loosened(Ctx *c, const ApiKey *own, const ApiKey *k) {
    if (own->expires_at && (!k->expires_at || k->expires_at > own->expires_at)) return "expires_at";
    for (const Field *f = limit_rows; f->name; f++)
        if (over(limit_at(&k->limits, f), limit_at(&own->limits, f)))
            return say(c, "limits.%s", f->name);
    return NULL;
}

static bool limited(const Limits *l) {
    bool any = false;
    for (const Field *f = limit_rows; f->name; f++) any |= limit_at(l, f) != UNSET_INT;
    return any;
}

const Limits limits_none = { UNSET_INT, UNSET_INT, UNSET_INT, UNSET_INT, UNSET_INT, UNSET_INT };

// What binds the key that acts, whichever kind it is.
static err acting_key(Ctx *c, Tx *tx, ApiKey *out) {
    AdminKey admin = { 0 };
    *out = (ApiKey){ .limits = limits_none };
    if (str_starts(c->who->key_id, S("key_")))
        return res_get(c, tx, &api_key_resource, c->who->key_id, out);
    if (!str_starts(c->who->key_id, S("adminkey_"))) return ERR_OK;
    TRY(res_get(c, tx, &admin_key_resource, c->who->key_id, &admin));
    out->head = admin.head, out->expires_at = admin.expires_at;
    return ERR_OK;
}

// A key with limits makes none: each of many would have them anew.
static err stays_bound(Ctx *c, Tx *tx, const ApiKey *k, bool made) {
    ApiKey own;
    TRY(acting_key(c, tx, &own));
    const char *field = made && limited(&own.limits) ? "limits" : loosened(c, &own, k);
    if (!field) return ERR_OK;
    App *app = app_of(c);
    if (app->audit_denied) app->audit_denied(c, "a key beyond its own", c->who->key_id);
    return fail(c, ERR_DENIED, R_KEY_BOUND, "field", field, "key", say_str(c, own.head.name));
}

static err set_owner(Ctx *c, Tx *tx, ApiKey *k) {
    User user = { 0 };
    if (k->service_account.n && k->user.n) return fail(c, ERR_INVALID, R_OWNER_TWICE);
    k->owner = c->who ? c->who->id : (str){ 0 };
    if (!k->service_account.n && !k->user.n && c->who && c->who->kind == WHO_SERVICE)
        k->service_account = c->who->id;
    if (k->service_account.n || k->user.n) {
        k->owner = k->user.n ? k->user : k->service_account;
        return ERR_OK;
    }
    if (system_acts(c)) return ERR_OK;
    err e = res_get(c, tx, &user_resource, k->owner, &user); // of this organisation
    return e == ERR_NOTFOUND ? fail(c, ERR_INVALID, R_FIELD_REQUIRED, "field", "service_account")
                             : e;
}

// A key carries its owner's rights: who makes, changes or rotates it could give them to themselves.
err permissions_known(Ctx *c, const char *field, const str *at, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!permission_exists(at[i]))
            return fail(c, ERR_INVALID, R_PERMISSION_UNKNOWN, "field", field, "got",
                        say_str(c, at[i]));
    return ERR_OK;
}

err api_key_check(Ctx *c, Tx *tx, const void *old, void *now) {
    ApiKey *k = now;
    if (!k) return ERR_OK;
    if (!old) TRY(set_owner(c, tx, k));
    TRY(permissions_known(c, "scopes", k->scopes, k->scopes_n));
    if (!system_acts(c)) {
        if (old) TRY(may_hold(c, tx, old));
        TRY(may_hold(c, tx, k));
        TRY(stays_bound(c, tx, k, !old));
    }
    if (!old) key_make(c, &k->key, &k->hint, &k->hash);
    return ERR_OK;
}

// ---- administrators
// Keys of the whole system that work for ever, but for this one and for this user's.
static err admins_left(Ctx *c, Tx *tx, str but_key, str but_user, int64_t *out) {
    static SQL(admins_left_,
               "SELECT COUNT(*) FROM admin_keys k WHERE k.id <> $1 AND k.disabled = 0 "
               "AND k.admin_org IS NULL AND k.expires_at IS NULL AND (k.\"user\" IS "
               "NULL OR (k.\"user\" <> $2 AND EXISTS (SELECT 1 FROM users u WHERE "
               "u.id = k.\"user\" AND u.disabled = 0)))");
    Rows *rows;
    TRY(db_one(c, tx, &rows, &admins_left_, (Val[]){ V(but_key), V(but_user) }, 2));
    *out = col_int(rows, 0);
    rows_close(rows);
    return ERR_OK;
}

static err admin_stays(Ctx *c, Tx *tx, str but_key, str but_user) {
    int64_t left;
    TRY(admins_left(c, tx, but_key, but_user, &left));
    return left ? ERR_OK : fail(c, ERR_CONFLICT, R_LAST_ADMIN);
}

err admin_key_check(Ctx *c, Tx *tx, const void *old, void *now) {
    AdminKey *k = now;
    const AdminKey *was = old;
    if (k && !system_acts(c)) {
        ApiKey as = { .expires_at = k->expires_at, .limits = limits_none };
        TRY(stays_bound(c, tx, &as, false));
    }
    if (!old) {
        key_make(c, &k->key, &k->hint, &k->hash);
        return ERR_OK;
    }
    bool ends = !k || k->disabled || k->expires_at;
    return ends && !was->admin_org.n ? admin_stays(c, tx, was->head.id, S("")) : ERR_OK;
}

// A user who is gone or disabled takes their keys along. Who rules an organisation only does not
// end those of the system.
err user_check(Ctx *c, Tx *tx, const void *old, void *now) {
    static SQL(admin_keys_of,
               "SELECT COUNT(*) FROM admin_keys WHERE \"user\" = $1 AND disabled = 0 "
               "AND admin_org IS NULL");
    const User *was = old, *is = now;
    Rows *rows;
    if (!was || was->disabled || (is && !is->disabled)) return ERR_OK;
    TRY(db_one(c, tx, &rows, &admin_keys_of, (Val[]){ V(was->head.id) }, 1));
    bool rules = col_int(rows, 0) > 0;
    rows_close(rows);
    if (!rules) return ERR_OK;
    if (!system_acts(c) && c->who->org.n)
        return fail(c, ERR_DENIED, R_FORBIDDEN, "who", say_str(c, c->who->name), "permission",
                    "admin_keys.delete");
    return admin_stays(c, tx, S(""), was->head.id);
}
