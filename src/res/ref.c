// SPDX-License-Identifier: Apache-2.0
// ref.c - references between resources: names become ids on the way in, one table knows who refers
// to whom, and deleting honours RESTRICT, CASCADE and SOFT. Also the walk that seals secrets.
#include "res/table.h"
#include "base/id.h"

static SQL(ref_clear, "DELETE FROM ref WHERE owner_id = $1");
static SQL(ref_add, "INSERT INTO ref (owner_kind, owner_id, path, target_kind, target_id, rule) "
                    "VALUES ($1, $2, $3, $4, $5, $6)");
static SQL(ref_users, "SELECT owner_kind, owner_id, path, rule FROM ref WHERE target_id = $1 AND "
                      "(rule, owner_id, path) > ($2, $3, $4) ORDER BY rule, owner_id, path LIMIT "
                      "100");

typedef struct Resolve {
    Tx *tx;
    const ResTable *t;
    const void *old; // NULL: there was none
} Resolve;

static err same_id(Ctx *c, const Field *f, str path, str *id, void *arg) {
    str *wanted = arg;
    (void)c, (void)path;
    if (f->rule == REF_SOFT && wanted->p && str_eq(*id, *wanted)) *wanted = (str){ 0 };
    return ERR_OK;
}

// What a SOFT reference was may be gone by now: it may stay, but nothing else may be put there.
static bool held_before(Ctx *c, const Resolve *r, str id) {
    str wanted = id;
    if (!r->old) return false;
    err e = fields_each(c, r->t->r->fields, (void *)(uintptr_t)r->old, T_REF, same_id, &wanted);
    return !e && !wanted.p;
}

static err exists(Ctx *c, Tx *tx, const Resource *target, str text, str *out_id) {
    void *row = arena_alloc(c->mem, target->size, _Alignof(max_align_t));
    TRY(res_get(c, tx, target, text, row));
    const Head *h = row;
    if (h->deleting_at) // its reconciler would wait for us, and we would wait for nothing
        return fail(c, ERR_CONFLICT, R_DELETING, "kind", target->name, "id", say_str(c, h->id));
    *out_id = h->id;
    return ERR_OK;
}

static err resolve_one(Ctx *c, const Field *f, str path, str *id, void *arg) {
    Resolve *r = arg;
    const Resource *target = resource_find(f->of);
    if (!target)
        return fail(c, ERR_INTERNAL, R_INTERNAL, "why",
                    "a reference to a kind that no module brings");
    bool is_id = id_valid(*id, target->prefix);
    if (is_id && f->rule == REF_SOFT && held_before(c, r, *id)) return ERR_OK;
    str text = *id;
    err e = target->resolve && !is_id ? target->resolve(c, r->tx, text, id)
                                      : exists(c, r->tx, target, text, id);
    if (e != ERR_NOTFOUND) return e;
    return fail(c, ERR_INVALID, R_FIELD_REF, "field", say_str(c, path), "kind", target->name, "id",
                say_str(c, text));
}

err refs_resolve(Ctx *c, Tx *tx, const ResTable *t, const void *old, void *row) {
    Resolve r = { tx, t, old };
    return fields_each(c, t->r->fields, row, T_REF, resolve_one, &r);
}

typedef struct Store {
    Tx *tx;
    const ResTable *t;
    str owner;
} Store;

static err store_one(Ctx *c, const Field *f, str path, str *id, void *arg) {
    Store *s = arg;
    return db_run(c, s->tx, &ref_add, V(s->t->r->name), V(s->owner), V(path),
                  V((const char *)f->of), V(*id), V((int)f->rule));
}

err refs_store(Ctx *c, Tx *tx, const ResTable *t, const void *row) {
    Store s = { tx, t, ((const Head *)row)->id };
    TRY(db_run(c, tx, &ref_clear, V(s.owner)));
    return fields_each(c, t->r->fields, (void *)(uintptr_t)row, T_REF, store_one, &s);
}

// ---- letting go
typedef struct User {
    str kind, id, path;
    int64_t rule;
} User;

// Users may live in other projects than the one acted in: each is looked at where it is.
static err enter_place(Ctx *c, Tx *tx, const Resource *kind, str id) {
    if (kind->scope == SCOPE_SYSTEM) return ERR_OK;
    Sql *sql = new (c->mem, Sql, 1);
    const char *columns = kind->scope == SCOPE_PROJECT ? "org, project" : "org";
    *sql = (Sql){ "ref_place",
                  arena_printf(c->mem, "SELECT %s FROM %s WHERE id = $1", columns, kind->plural).p,
                  NULL };
    Rows *rows;
    TRY(db_one(c, tx, &rows, sql, (Val[]){ V(id) }, 1));
    c->org = col_str(rows, 0);
    if (kind->scope == SCOPE_PROJECT) c->project = col_str(rows, 1);
    rows_close(rows);
    return ERR_OK;
}

static err release_here(Ctx *c, Tx *tx, const ResTable *t, const Head *target, const User *user) {
    const Resource *kind = resource_find(say_str(c, user->kind));
    void *row = arena_alloc(c->mem, kind->size, _Alignof(max_align_t));
    TRY(enter_place(c, tx, kind, user->id));
    TRY(res_get(c, tx, kind, user->id, row));
    if (user->rule == REF_CASCADE) return res_delete(c, tx, kind, row);
    const Head *h = row;
    return fail(c, ERR_CONFLICT, R_IN_USE, "kind", t->r->name, "id",
                say_str(c, target->name.p ? target->name : target->id), "user_kind", kind->name,
                "user", say_str(c, h->name.p ? h->name : h->id));
}

static err release_user(Ctx *c, Tx *tx, const ResTable *t, const Head *target, const User *user) {
    if (user->rule == REF_SOFT || !resource_find(say_str(c, user->kind))) return ERR_OK;
    str org = c->org, project = c->project;
    err e = release_here(c, tx, t, target, user);
    c->org = org, c->project = project;
    return e == ERR_NOTFOUND ? ERR_OK : e; // it went with another of its references
}

static err users_after(Ctx *c, Tx *tx, str target, const User *last, User *out, size_t *out_n) {
    Rows *rows;
    bool more;
    TRY(db_ask(c, tx, &rows, &ref_users, V(target), V(last->rule), V(last->id), V(last->path)));
    for (*out_n = 0;; (*out_n)++) {
        TRY(rows_next(c, rows, &more));
        if (!more) return ERR_OK;
        out[*out_n] =
            (User){ col_str(rows, 0), col_str(rows, 1), col_str(rows, 2), col_int(rows, 3) };
    }
}

// RESTRICT is first in order, so nothing goes in vain. What it refers to itself is let go before:
// a circle of CASCADE ends where it began.
err refs_release(Ctx *c, Tx *tx, const ResTable *t, const void *row) {
    const Head *h = row;
    User *users = new (c->mem, User, 100), last = { S(""), S(""), S(""), -1 };
    size_t n;
    TRY(db_run(c, tx, &ref_clear, V(h->id)));
    do {
        TRY(users_after(c, tx, h->id, &last, users, &n));
        for (size_t i = 0; i < n; i++) TRY(release_user(c, tx, t, h, &users[i]));
        if (n) last = users[n - 1];
    } while (n);
    return ERR_OK;
}

static err seal_one(Ctx *c, const Field *f, str path, str *value, void *arg) {
    const Head *h = arg;
    (void)f;
    if (value->n && *value->p == SEALED_MARK) return ERR_OK; // unchanged
    App *app = app_of(c);
    if (!app || !app->seal)
        return fail(c, ERR_INTERNAL, R_INTERNAL, "why", "no module seals secrets");
    str sealed;
    TRY(app->seal(c, *value,
                  arena_printf(c->mem, STR_FMT "/" STR_FMT, STR_ARG(h->id), STR_ARG(path)),
                  &sealed));
    *value = sealed;
    return ERR_OK;
}

err secrets_seal(Ctx *c, const ResTable *t, void *row) {
    return fields_each(c, t->r->fields, row, T_SECRET, seal_one, row);
}
