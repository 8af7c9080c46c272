// SPDX-License-Identifier: Apache-2.0
// table.c - resources made ready: the common rows of the head joined to each resource's own, and
// the five statements that serve them.
#include "res/table.h"
#include <assert.h>
#include <stdlib.h>

static const Field condition_rows[] = {
    TEXT(Condition, type, REQUIRED, 60, "What it speaks of", "条件类型"),
    BOOL(Condition, ok, 0, "Whether it holds", "是否成立"),
    TEXT(Condition, reason, 0, 100, "Why, for machines", "原因代码"),
    TEXT(Condition, message, 0, 2000, "Why, for people, and what would fix it",
         "原因说明与处理建议"),
    ROW(Condition, since, T_TIME, 0, "Since when", "自何时起"),
    { 0 }
};
const Field head_rows[] = { ROW(Head, id, T_ID, STATUS | INDEXED, "Identifier", "标识"),
                            TEXT(Head, name,
                                 REQUIRED | UNIQUE | INDEXED | IMMUTABLE | SEARCHED | COLUMN, 200,
                                 "Name, unique here", "名称（同一范围内唯一）"),
                            ROW(Head, org, T_ID, STATUS, "Organisation", "组织"),
                            ROW(Head, project, T_ID, STATUS, "Project", "项目"),
                            { 0 } };
static const Field tail_rows[] = {
    INT(Head, revision, STATUS, 1, INT64_MAX, "Grows with every change", "修订号"),
    ROW(Head, created_at, T_TIME, STATUS | INDEXED | COLUMN, "When it was made", "创建时间"),
    ROW(Head, updated_at, T_TIME, STATUS, "When it last changed", "最近修改时间"),
    ROW(Head, created_by, T_ID, STATUS, "Who made it", "创建者"),
    { 0 }
};
const Field reconciled_rows[] = {
    INT(Head, generation, STATUS, 1, INT64_MAX, "Grows when the wish changes", "期望的代次"),
    INT(Head, observed_generation, STATUS, 0, INT64_MAX, "Wish that the status speaks of",
        "状态所对应的代次"),
    ROW(Head, deleting_at, T_TIME, STATUS, "When its deletion was asked for", "请求删除的时间"),
    LIST(Head, conditions, Condition, STATUS, condition_rows, 0, 32,
         "What holds and what does not, with reasons", "各项状态及原因"),
    { 0 }
};

static struct {
    ResTable *at;
    size_t n;
    Arena *mem;
} tables;

static size_t rows_count(const Field *rows) {
    size_t n = 0;
    while (rows && rows[n].name) n++;
    return n;
}

static bool wanted(const Resource *r, const Field *f) {
    if (f->offset == offsetof(Head, name)) return !(r->flags & RES_UNNAMED);
    if (f->offset == offsetof(Head, org)) return r->scope != SCOPE_SYSTEM;
    if (f->offset == offsetof(Head, project)) return r->scope == SCOPE_PROJECT;
    return true;
}

static void join_rows(ResTable *t) {
    const Field *parts[] = { head_rows, t->r->fields,
                             t->r->flags & RES_RECONCILED ? reconciled_rows : NULL, tail_rows };
    size_t most = 1;
    for (size_t i = 0; i < countof(parts); i++) most += rows_count(parts[i]);
    t->rows = new(tables.mem, Field, most);
    for (size_t i = 0; i < countof(parts); i++)
        for (const Field *f = parts[i]; f && f->name; f++)
            if (f->flags & ONCE) t->has_once = true;
            else if (i != 0 || wanted(t->r, f)) t->rows[t->rows_n++] = *f;
    size_t n = t->rows_n;
    for (const Field *f = t->r->fields; f && f->name; f++)
        if (f->flags & ONCE) t->rows[n++] = *f;
}

static const char *scope_column(const Resource *r) {
    return r->scope == SCOPE_PROJECT ? "project" : r->scope == SCOPE_ORG ? "org" : NULL;
}

static const char *z(const Buf *b) { return arena_z(tables.mem, buf_str(b)); }

static void scope_add(Buf *b, const Resource *r, size_t parameter) {
    if (scope_column(r)) buf_printf(b, " AND \"%s\" = $%zu", scope_column(r), parameter);
}

// What a reconciler may write: its own STATUS members, never the bookkeeping of the wish.
static bool is_status_column(const Field *f) {
    static const char *const kept[] = { "id",         "org",        "project",    "revision",
                                        "created_at", "created_by", "generation", "deleting_at" };
    for (size_t i = 0; i < countof(kept); i++)
        if (!strcmp(f->name, kept[i])) return false;
    return f->flags & STATUS;
}

static void write_status_sql(ResTable *t, Buf *sql) {
    t->status_rows = new(tables.mem, const Field *, t->rows_n);
    buf_printf(sql, "UPDATE %s SET ", t->r->plural);
    for (size_t i = 0; i < t->rows_n; i++) {
        if (!is_status_column(&t->rows[i])) continue;
        buf_printf(sql, "%s\"%s\" = $%zu", t->status_n ? ", " : "", t->rows[i].name,
                   t->status_n + 1);
        t->status_rows[t->status_n++] = &t->rows[i];
    }
    buf_printf(sql, " WHERE \"id\" = $%zu", t->status_n + 1), scope_add(sql, t->r, t->status_n + 2);
}

static void write_sql(ResTable *t) {
    Buf columns, marks, sets, sql;
    buf_init(&columns, 1 << 16), buf_init(&marks, 1 << 16), buf_init(&sets, 1 << 16),
        buf_init(&sql, 1 << 18);
    for (size_t i = 0; i < t->rows_n; i++) {
        buf_printf(&columns, "%s\"%s\"", i ? ", " : "", t->rows[i].name);
        buf_printf(&marks, "%s$%zu", i ? ", " : "", i + 1);
        buf_printf(&sets, "%s\"%s\" = $%zu", i ? ", " : "", t->rows[i].name, i + 1);
    }
    const char *table = t->r->plural, *name = t->r->name;
    t->columns = z(&columns);
    buf_printf(&sql, "SELECT %s FROM %s WHERE \"id\" = $1", t->columns, table),
        scope_add(&sql, t->r, 2);
    t->by_id = (Sql){ arena_printf(tables.mem, "%s_by_id", name).p, z(&sql), NULL };
    buf_clear(&sql), buf_printf(&sql, "SELECT %s FROM %s WHERE \"name\" = $1", t->columns, table),
        scope_add(&sql, t->r, 2);
    t->by_name = (Sql){ arena_printf(tables.mem, "%s_by_name", name).p, z(&sql), NULL };
    buf_clear(&sql),
        buf_printf(&sql, "INSERT INTO %s (%s) VALUES (%s)", table, t->columns, z(&marks));
    t->insert = (Sql){ arena_printf(tables.mem, "%s_insert", name).p, z(&sql), NULL };
    buf_clear(&sql), buf_printf(&sql, "UPDATE %s SET %s WHERE \"id\" = $1 AND \"revision\" = $%zu",
                                table, z(&sets), t->rows_n + 1);
    scope_add(&sql, t->r, t->rows_n + 2);
    t->update = (Sql){ arena_printf(tables.mem, "%s_update", name).p, z(&sql), NULL };
    buf_clear(&sql), buf_printf(&sql, "DELETE FROM %s WHERE \"id\" = $1", table),
        scope_add(&sql, t->r, 2);
    t->remove = (Sql){ arena_printf(tables.mem, "%s_remove", name).p, z(&sql), NULL };
    buf_clear(&sql), write_status_sql(t, &sql);
    t->status = (Sql){ arena_printf(tables.mem, "%s_status", name).p, z(&sql), NULL };
    assert(!sql.full && !columns.full && !sets.full);
    buf_done(&columns), buf_done(&marks), buf_done(&sets), buf_done(&sql);
}

void tables_init(const Module *const mods[]) {
    arena_free(tables.mem);
    tables.mem = arena_new(), tables.n = 0;
    size_t n = 0;
    for (const Module *const *m = mods; *m; m++)
        for (const Resource *const *r = (*m)->resources; r && *r; r++) n++;
    tables.at = new(tables.mem, ResTable, n + 1);
    for (const Module *const *m = mods; *m; m++)
        for (const Resource *const *r = (*m)->resources; r && *r; r++) {
            ResTable *t = &tables.at[tables.n++];
            t->r = *r;
            assert((*r)->size >= sizeof(Head));
            join_rows(t), write_sql(t);
        }
}

const ResTable *table_of(const Resource *r) {
    for (size_t i = 0; i < tables.n; i++)
        if (tables.at[i].r == r) return &tables.at[i];
    abort();
}
size_t tables_count(void) { return tables.n; }
const ResTable *table_at(size_t i) {
    assert(i < tables.n);
    return &tables.at[i];
}

const Resource *resource_find(const char *name) {
    for (size_t i = 0; i < tables.n; i++)
        if (!strcmp(tables.at[i].r->name, name) || !strcmp(tables.at[i].r->plural, name))
            return tables.at[i].r;
    return NULL;
}

str resource_permission(Arena *a, const Resource *r, const char *verb) {
    bool read = !strcmp(verb, "get") || !strcmp(verb, "list");
    return arena_printf(a, "%s.%s", r->plural, read ? "read" : verb);
}

err scope_where(Ctx *c, const Resource *r, ScopeWhere *out) {
    *out = (ScopeWhere){ scope_column(r), r->scope == SCOPE_PROJECT ? c->project : c->org };
    if (out->column && !out->value.n) return fail(c, ERR_INVALID, R_NO_PROJECT);
    return ERR_OK;
}

// ---- columns
static bool stored_as_json(const Field *f) {
    return f->type == T_OBJECT || f->type == T_LIST || f->type == T_UNION;
}

static str nested_json(Ctx *c, const Field *f, const void *base) {
    Field one[2] = { *f, { 0 } };
    Buf b;
    buf_init(&b, 4 << 20);
    Json j = json_to(&b);
    json_obj(&j), fields_write(one, base, &j, SHOW_STORE), json_end_obj(&j);
    size_t skip = strlen(f->name) + 4; // {"name": … }
    assert(!b.full && b.n > skip);
    str s = arena_str(c->mem, str_n(b.p + skip, b.n - skip - 1));
    buf_done(&b);
    return s;
}

Val row_val(Ctx *c, const Field *f, const void *base) {
    const void *p = field_at(f, base);
    if (f->type == T_BOOL) return val_int(*(const bool *)p);
    if (stored_as_json(f)) return val_str(nested_json(c, f, base));
    switch (f->type) {
    case T_INT:
    case T_MONEY:
        return *(const int64_t *)p == UNSET_INT ? val_null() : val_int(*(const int64_t *)p);
    case T_TIME: return *(const int64_t *)p ? val_int(*(const int64_t *)p) : val_null();
    case T_REAL: return isnan(*(const double *)p) ? val_null() : val_real(*(const double *)p);
    case T_ENUM:
        return *(const int *)p < 0 ? val_null()
                                   : val_z(((const char *const *)f->of)[*(const int *)p]);
    default: return val_str(*(const str *)p);
    }
}

static err load_json(Ctx *c, const Field *f, void *out, str text) {
    str wrapped = arena_printf(c->mem, "{\"%s\":" STR_FMT "}", f->name, STR_ARG(text));
    yyjson_val *v;
    TRY(json_parse(c, wrapped, &v));
    Field one[2] = { *f, { 0 } };
    return fields_read(c, one, out, v, FIELDS_LOAD);
}

static int enum_of(const Field *f, str name) {
    const char *const *names = f->of;
    for (int i = 0; names[i]; i++)
        if (str_is(name, names[i])) return i;
    return -1;
}

err row_load(Ctx *c, const ResTable *t, const Rows *rows, void *out) {
    fields_default(c->mem, t->rows, out);
    for (size_t i = 0; i < t->rows_n; i++) {
        const Field *f = &t->rows[i];
        void *p = field_at(f, out);
        int col = (int)i;
        if (col_null(rows, col)) continue;
        switch (f->type) {
        case T_INT:
        case T_MONEY:
        case T_TIME: *(int64_t *)p = col_int(rows, col); break;
        case T_BOOL: *(bool *)p = col_int(rows, col); break;
        case T_REAL: *(double *)p = col_real(rows, col); break;
        case T_ENUM: *(int *)p = enum_of(f, col_str(rows, col)); break;
        case T_OBJECT:
        case T_LIST:
        case T_UNION: TRY(load_json(c, f, out, col_str(rows, col))); break;
        default: *(str *)p = col_str(rows, col);
        }
    }
    return ERR_OK;
}

void *row_new(Ctx *c, const ResTable *t) {
    void *row = arena_alloc(c->mem, t->r->size, _Alignof(max_align_t));
    fields_default(c->mem, t->rows, row);
    return row;
}
