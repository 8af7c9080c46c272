// SPDX-License-Identifier: Apache-2.0
// store.c - the one path by which a resource comes to be, changes and goes: rows checked,
// references resolved, hooks called, secrets sealed, the row written under its tenant, references
// kept, audited, its event staged: all in the caller's transaction.
#include "res/table.h"
#include "base/id.h"
#include "res/snapshot.h"

err res_get(Ctx *c, Tx *tx, const Resource *r, str id_or_name, void *out) {
    const ResTable *t = table_of(r);
    ScopeWhere scope;
    TRY(scope_where(c, r, &scope));
    bool by_id = id_valid(id_or_name, r->prefix) || r->flags & RES_UNNAMED;
    Val args[] = { V(id_or_name), V(scope.value) };
    Rows *rows;
    err e = db_one(c, tx, &rows, by_id ? &t->by_id : &t->by_name, args, scope.column ? 2 : 1);
    if (e == ERR_NOTFOUND)
        return fail(c, ERR_NOTFOUND, R_NOT_FOUND, "kind", r->name, "id", say_str(c, id_or_name));
    if (e) return e;
    e = row_load(c, t, rows, out);
    rows_close(rows);
    return e;
}

str res_json(Ctx *c, const Resource *r, const void *row) {
    Buf b;
    buf_init(&b, 8 << 20);
    Json j = json_to(&b);
    json_obj(&j), fields_write(table_of(r)->rows, row, &j, SHOW_API), json_end_obj(&j);
    str s = arena_str(c->mem, buf_str(&b));
    buf_done(&b);
    return s;
}

// ---- audit and events
static void write_change(Json *j, const Field *f, const void *old, const void *now) {
    Field one[2] = { *f, { 0 } };
    if (old && now && fields_equal(one, old, now, false)) return;
    json_key(j, f->name);
    json_arr(j);
    const void *sides[] = { old, now };
    for (int i = 0; i < 2; i++)
        if (sides[i]) field_write(f, sides[i], j, SHOW_CHANGE);
        else json_put_null(j);
    json_end_arr(j);
}

str audit_change(Ctx *c, const ResTable *t, const void *old, const void *now) {
    Buf b;
    buf_init(&b, 1 << 20);
    Json j = json_to(&b);
    json_obj(&j);
    for (const Field *f = t->r->fields; f && f->name; f++)
        if (!(f->flags & (STATUS | HIDDEN | ONCE))) write_change(&j, f, old, now);
    json_end_obj(&j);
    str s = b.full ? S("{\"too_large\":true}") : arena_str(c->mem, buf_str(&b));
    buf_done(&b);
    return s;
}

static err tell(Ctx *c, Tx *tx, const ResTable *t, const char *what, const Head *h) {
    Buf b;
    buf_init(&b, 16384);
    Json j = json_to(&b);
    json_obj(&j);
    json_kv_str(&j, "name", h->name), json_kv_i64(&j, "revision", h->revision);
    json_end_obj(&j);
    str kind = arena_printf(c->mem, "%s.%s", t->r->name, what);
    err e = event_stage(c, tx, kind.p, h->org, h->project, h->id, buf_str(&b));
    buf_done(&b);
    return e;
}

static bool changes(const ResTable *t, const void *old, const void *now) {
    const Head *was = old, *is = now;
    return t->r->flags & RES_HISTORY && (!was || !is || was->revision != is->revision);
}

err res_record(Ctx *c, Tx *tx, const ResTable *t, const char *verb, const void *old,
               const void *now) {
    App *app = app_of(c);
    const Head *h = now ? now : old;
    if (app && app->audit) {
        AuditEntry entry = { verb,
                             t->r->name,
                             h->id,
                             h->name,
                             resource_permission(c->mem, t->r, verb),
                             audit_change(c, t, old, now),
                             t->r->scope };
        TRY(app->audit(c, tx, &entry));
        if (app->history && changes(t, old, now))
            TRY(app->history(c, tx, &entry, t->r, h->deleting_at ? NULL : now));
    }
    if (app && t->r->notify) tx_notify(tx, t->r->notify, app);
    return t->r->flags & RES_IN_SNAPSHOT ? snapshot_changed(c, tx, t->r->name, h->id) : ERR_OK;
}

// ---- writes
static err write_failed(Ctx *c, const ResTable *t, const void *row, err e) {
    if (e != ERR_CONFLICT || c->failure.why != &R_DB_UNIQUE) return e;
    str index = failure_param(&c->failure, "index"), column = { 0 }, rest = index;
    ptrdiff_t open = str_find_char(index, '(');
    if (open >= 0) rest = str_sub(index, (size_t)open + 1, index.n - (size_t)open - 2);
    for (str part; str_cut(&rest, ',', &part);) column = str_trim(part);
    const Field *f = field_find(t->rows, column);
    str value = f ? field_to_text(c->mem, f, row) : (str){ 0 };
    bool shown = f && !(f->flags & HIDDEN) && f->type != T_SECRET;
    return fail(c, ERR_CONFLICT, R_NAME_TAKEN, "kind", t->r->name, "field", say_str(c, column),
                "value", shown ? say_str(c, value) : "this value");
}

static err write_row(Ctx *c, Tx *tx, const ResTable *t, const void *row, int64_t old_revision) {
    ScopeWhere scope;
    TRY(scope_where(c, t->r, &scope));
    Val *args = new (c->mem, Val, t->rows_n + 2);
    size_t n = 0;
    for (; n < t->rows_n; n++) args[n] = row_val(c, &t->rows[n], row);
    if (!old_revision) return write_failed(c, t, row, db_exec(c, tx, &t->insert, args, n, NULL));
    args[n++] = V(old_revision);
    if (scope.column) args[n++] = V(scope.value);
    int64_t changed = 0;
    err e = write_failed(c, t, row, db_exec(c, tx, &t->update, args, n, &changed));
    if (e || changed == 1) return e;
    return fail(c, ERR_CONFLICT, R_REVISION, "kind", t->r->name, "id",
                say_str(c, ((const Head *)row)->id), "now", "a later one", "sent",
                say(c, "%lld", (long long)old_revision));
}

err res_create(Ctx *c, Tx *tx, const Resource *r, void *row) {
    const ResTable *t = table_of(r);
    Head *h = row;
    ScopeWhere scope;
    TRY(scope_where(c, r, &scope));
    h->id = os_id(c, r->prefix);
    h->org = r->scope == SCOPE_SYSTEM ? (str){ 0 } : c->org;
    h->project = r->scope == SCOPE_PROJECT ? c->project : (str){ 0 };
    h->created_at = h->updated_at = os_wall_ms(c->os);
    h->created_by = c->who ? c->who->id : (str){ 0 };
    h->revision = h->generation = 1, h->observed_generation = 0, h->deleting_at = 0;
    TRY(fields_check(c, t->rows, row));
    if (!(r->flags & RES_UNNAMED) && id_valid(h->name, r->prefix)) // who asks for it gets the id's
        return fail(c, ERR_INVALID, R_FIELD_NAME_ID, "field", "name");
    TRY(refs_resolve(c, tx, t, NULL, row));
    if (r->check) TRY(r->check(c, tx, NULL, row));
    TRY(secrets_seal(c, t, row));
    TRY(write_row(c, tx, t, row, 0));
    TRY(refs_store(c, tx, t, row));
    if (r->stage) TRY(r->stage(c, tx, NULL, row));
    TRY(res_record(c, tx, t, "create", NULL, row));
    return tell(c, tx, t, "created", h);
}

static err store_update(Ctx *c, Tx *tx, const ResTable *t, const void *old, void *now,
                        const char *verb) {
    const Head *was = old;
    Head *h = now;
    bool wish = !fields_equal(t->r->fields, old, now, true) || h->deleting_at != was->deleting_at;
    if (wish && t->r->flags & RES_RECONCILED) h->generation = was->generation + 1;
    h->revision = was->revision + 1;
    h->updated_at = os_wall_ms(c->os);
    TRY(secrets_seal(c, t, now));
    TRY(write_row(c, tx, t, now, was->revision));
    TRY(refs_store(c, tx, t, now));
    if (t->r->stage) TRY(t->r->stage(c, tx, old, now));
    TRY(res_record(c, tx, t, verb, old, now));
    return tell(c, tx, t, h->deleting_at && !was->deleting_at ? "deleting" : "updated", h);
}

static err may_act(Ctx *c, const ResTable *t, const void *old, const void *now) {
    if (((const Head *)old)->deleting_at)
        return fail(c, ERR_CONFLICT, R_DELETING, "kind", t->r->name, "id",
                    say_str(c, ((const Head *)old)->id));
    return fields_check(c, t->rows, now);
}

// After refs_resolve of now.
static err act(Ctx *c, Tx *tx, const ResTable *t, const void *old, void *now, const char *verb) {
    if (t->r->check) TRY(t->r->check(c, tx, old, now));
    return store_update(c, tx, t, old, now, verb);
}

err res_act(Ctx *c, Tx *tx, const Resource *r, const void *old, void *now, const char *verb) {
    const ResTable *t = table_of(r);
    TRY(may_act(c, t, old, now));
    TRY(refs_resolve(c, tx, t, old, now));
    return act(c, tx, t, old, now, verb);
}

// A reference given once may be sent back by name: only as ids do the two compare.
static err refs_unmoved(Ctx *c, const ResTable *t, const void *old, const void *now) {
    for (const Field *f = t->r->fields; f && f->name; f++) {
        Field one[2] = { *f, { 0 } };
        if (f->type == T_REF && f->flags & IMMUTABLE && !fields_equal(one, old, now, false))
            return fail(c, ERR_INVALID, R_FIELD_IMMUTABLE, "field", f->name);
    }
    return ERR_OK;
}

err res_update(Ctx *c, Tx *tx, const Resource *r, const void *old, void *now) {
    const ResTable *t = table_of(r);
    if (fields_equal(t->rows, old, now, false)) return ERR_OK;
    TRY(may_act(c, t, old, now));
    TRY(refs_resolve(c, tx, t, old, now));
    TRY(refs_unmoved(c, t, old, now));
    if (fields_equal(t->rows, old, now, false)) return ERR_OK; // names of what was there already
    return act(c, tx, t, old, now, "update");
}

static err remove_row(Ctx *c, Tx *tx, const ResTable *t, const void *row) {
    const Head *h = row;
    ScopeWhere scope;
    TRY(scope_where(c, t->r, &scope));
    static SQL(ref_gone, "DELETE FROM ref WHERE owner_id = $1");
    TRY(db_run(c, tx, &ref_gone, V(h->id)));
    Val args[] = { V(h->id), V(scope.value) };
    int64_t changed = 0;
    TRY(db_exec(c, tx, &t->remove, args, scope.column ? 2 : 1, &changed));
    if (!changed)
        return fail(c, ERR_NOTFOUND, R_NOT_FOUND, "kind", t->r->name, "id", say_str(c, h->id));
    if (t->r->stage) TRY(t->r->stage(c, tx, row, NULL));
    return ERR_OK;
}

err res_delete(Ctx *c, Tx *tx, const Resource *r, const void *row) {
    const ResTable *t = table_of(r);
    const Head *h = row;
    if (h->deleting_at) return ERR_OK; // asked for already
    TRY(refs_release(c, tx, t, row));
    if (r->check) TRY(r->check(c, tx, row, NULL));
    if (r->flags & RES_RECONCILED) {
        void *now = row_new(c, t);
        fields_copy(c->mem, t->rows, row, now);
        ((Head *)now)->deleting_at = os_wall_ms(c->os);
        return store_update(c, tx, t, row, now, "delete");
    }
    TRY(remove_row(c, tx, t, row));
    TRY(res_record(c, tx, t, "delete", row, NULL));
    return tell(c, tx, t, "deleted", h);
}

err res_purge(Ctx *c, Tx *tx, const Resource *r, const void *row) {
    const ResTable *t = table_of(r);
    TRY(refs_release(c, tx, t, row));
    TRY(remove_row(c, tx, t, row));
    if (app_of(c) && r->notify) tx_notify(tx, r->notify, app_of(c));
    return tell(c, tx, t, "deleted", row);
}

err res_set_status(Ctx *c, Tx *tx, const Resource *r, void *row, const Lease *lease) {
    const ResTable *t = table_of(r);
    Head *h = row;
    ScopeWhere scope;
    TRY(scope_where(c, r, &scope));
    if (lease) TRY(lease_guard(c, tx, lease));
    h->updated_at = os_wall_ms(c->os);
    Val *args = new (c->mem, Val, t->status_n + 2);
    size_t n = 0;
    for (; n < t->status_n; n++) args[n] = row_val(c, t->status_rows[n], row);
    args[n++] = V(h->id);
    if (scope.column) args[n++] = V(scope.value);
    int64_t changed = 0;
    TRY(db_exec(c, tx, &t->status, args, n, &changed));
    if (!changed)
        return fail(c, ERR_NOTFOUND, R_NOT_FOUND, "kind", r->name, "id", say_str(c, h->id));
    return tell(c, tx, t, "status", h);
}

bool condition_set(Ctx *c, Head *h, const char *type, bool ok, const char *reason,
                   const char *message) {
    Condition *at = NULL;
    for (size_t i = 0; i < h->conditions_n; i++)
        if (str_is(h->conditions[i].type, type)) at = &h->conditions[i];
    if (!at) {
        Condition *grown = new (c->mem, Condition, h->conditions_n + 1);
        if (h->conditions_n) memcpy(grown, h->conditions, h->conditions_n * sizeof *grown);
        h->conditions = grown;
        at = &grown[h->conditions_n++];
        at->type = arena_str(c->mem, str_z(type));
    } else if (at->ok == ok && str_is(at->reason, reason) && str_is(at->message, message)) {
        return false;
    }
    if (!at->since || at->ok != ok) at->since = os_wall_ms(c->os);
    at->ok = ok, at->reason = arena_str(c->mem, str_z(reason)),
    at->message = arena_str(c->mem, str_z(message));
    return true;
}
