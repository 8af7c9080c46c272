// SPDX-License-Identifier: Apache-2.0
// ref.c - references between resources: names become ids on the way in, one table knows who refers
// to whom, and deleting honours RESTRICT, CASCADE and SOFT. Also the walk that seals secrets.
#include "res/table.h"
#include "base/id.h"

static SQL(ref_clear, "DELETE FROM ref WHERE owner_id = $1");
static SQL(ref_add, "INSERT INTO ref (owner_kind, owner_id, path, target_kind, target_id, rule) "
                    "VALUES ($1, $2, $3, $4, $5, $6)");
static SQL(ref_users, "SELECT owner_kind, owner_id, path, rule FROM ref WHERE target_id = $1 ORDER "
                      "BY rule, owner_id, path LIMIT 1000");

typedef struct Resolve {
    Tx *tx;
    bool update;
} Resolve;

static err exists(Ctx *c, Tx *tx, const Resource *target, str text, str *out_id) {
    void *row = arena_alloc(c->mem, target->size, _Alignof(max_align_t));
    TRY(res_get(c, tx, target, text, row));
    *out_id = ((Head *)row)->id;
    return ERR_OK;
}

static err resolve_one(Ctx *c, const Field *f, str path, str *id, void *arg) {
    Resolve *r = arg;
    const Resource *target = resource_find(f->of);
    if (!target)
        return fail(c, ERR_INTERNAL, R_INTERNAL, "why",
                    "a reference to a kind that no module brings");
    bool is_id = id_valid(*id, target->prefix);
    if (is_id && f->rule == REF_SOFT && r->update) return ERR_OK; // it may dangle
    str text = *id;
    err e = target->resolve && !is_id ? target->resolve(c, r->tx, text, id)
                                      : exists(c, r->tx, target, text, id);
    if (e != ERR_NOTFOUND) return e;
    return fail(c, ERR_INVALID, R_FIELD_REF, "field", say_str(c, path), "kind", target->name, "id",
                say_str(c, text));
}

err refs_resolve(Ctx *c, Tx *tx, const ResTable *t, void *row, bool update) {
    Resolve r = { tx, update };
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

static err release_user(Ctx *c, Tx *tx, const ResTable *t, const Head *target, const Rows *user) {
    const Resource *kind = resource_find(say_str(c, col_str(user, 0)));
    str id = col_str(user, 1);
    if (col_int(user, 3) == REF_SOFT || !kind) return ERR_OK;
    void *row = arena_alloc(c->mem, kind->size, _Alignof(max_align_t));
    err e = res_get(c, tx, kind, id, row);
    if (e) return e == ERR_NOTFOUND ? ERR_OK : e;
    if (col_int(user, 3) == REF_CASCADE) return res_delete(c, tx, kind, row);
    const Head *h = row;
    return fail(c, ERR_CONFLICT, R_IN_USE, "kind", t->r->name, "id",
                say_str(c, target->name.p ? target->name : target->id), "user_kind", kind->name,
                "user", say_str(c, h->name.p ? h->name : h->id));
}

err refs_release(Ctx *c, Tx *tx, const ResTable *t, const void *row) {
    const Head *h = row;
    Rows *users;
    bool more;
    TRY(db_ask(c, tx, &users, &ref_users, V(h->id)));
    for (;;) {
        TRY(rows_next(c, users, &more));
        if (!more) return ERR_OK;
        err e = release_user(c, tx, t, h, users);
        if (e) {
            rows_close(users);
            return e;
        }
    }
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
