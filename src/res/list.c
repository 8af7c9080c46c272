// SPDX-License-Identifier: Apache-2.0
// list.c - lists: typed filters on indexed fields, text search, and a keyset cursor (sort value,
// id) that is bound to its list and filters, so that pages neither skip nor repeat while rows come
// and go.
#include "res/table.h"
#include <assert.h>
#include <stdlib.h>

enum { IN_MAX = 50, SEARCH_BYTES_MAX = 400, ARGS_MAX = 2 * FILTERS_MAX * IN_MAX + 8 };
typedef struct Query {
    Ctx *c;
    DbKind kind;
    const ResTable *t;
    const ListSpec *spec;
    Buf sql;
    Val args[ARGS_MAX]; // each value of each filter, twice; scope, search, cursor
    size_t n;
} Query;

// NULL: by id alone.
static const Field *sort_of(const ListSpec *spec) {
    return spec->sort && spec->sort->offset != offsetof(Head, id) ? spec->sort : NULL;
}

static size_t arg(Query *q, Val v) {
    assert(q->n < countof(q->args));
    q->args[q->n] = v;
    return ++q->n;
}

bool field_filters(const Field *f) {
    return f->flags & INDEXED && !(f->flags & HIDDEN) && f->type != T_OBJECT && f->type != T_LIST
           && f->type != T_UNION && f->type != T_JSON;
}

// By a hidden one never: a cursor would tell its value.
bool field_sorts(const Resource *r, const Field *f) {
    return field_filters(f) && (!(r->flags & RES_LOG) || f->offset == offsetof(Head, id));
}

// One scalar of a field's type from text, as a parameter.
static err typed(Ctx *c, const Field *f, str text, Val *out) {
    struct {
        _Alignas(max_align_t) char bytes[32];
    } box = { 0 };
    Field at = *f;
    at.offset = 0;
    TRY(field_from_text(c, &at, &box, text));
    *out = row_val(c, &at, &box);
    if (f->type == T_TIME) *out = val_int(*(const int64_t *)(const void *)box.bytes); // 1970 too
    return ERR_OK;
}

err list_filter(Ctx *c, const Resource *r, ListSpec *spec, const char *field, FilterOp op,
                str value) {
    const ResTable *t = table_of(r);
    const Field *f = field_find(t->rows, str_z(field));
    if (spec->filters_n == FILTERS_MAX)
        return fail(c, ERR_INVALID, R_FIELD_LENGTH, "field", "the query", "min", "0", "max",
                    say(c, "%d", FILTERS_MAX), "unit", "filters", "got", "more");
    if (!f || !field_filters(f)) {
        str names[64];
        size_t n = 0;
        for (size_t i = 0; i < t->rows_n && n < countof(names); i++)
            if (field_filters(&t->rows[i])) names[n++] = str_z(t->rows[i].name);
        return fail(c, ERR_INVALID, R_FILTER, "field", field, "names",
                    arena_join(c->mem, names, n, S(", ")).p);
    }
    Filter *filter = &spec->filters[spec->filters_n];
    *filter = (Filter){ f, op, val_str(value) };
    if (op != OP_IN) TRY(typed(c, f, value, &filter->value));
    spec->filters_n++;
    return ERR_OK;
}

static bool is_number(const Field *f) {
    return f->type == T_INT || f->type == T_MONEY || f->type == T_TIME || f->type == T_REAL
           || f->type == T_BOOL;
}

// Sorting by what may be unset needs one value in its place, the same in ORDER BY, in the cursor's
// comparison and in the index.
static void sort_expression(Query *q, const Field *f) {
    bool always = f->flags & REQUIRED || f->offset < sizeof(Head) || f->type == T_BOOL;
    if (always) buf_printf(&q->sql, "\"%s\"", f->name);
    else buf_printf(&q->sql, "COALESCE(\"%s\", %s)", f->name, is_number(f) ? "0" : "''");
}

// Whether a filter's own index is the way: then rows come in the list's order, or are few. Else the
// list is read in its order and the filter looked at on the way: a page costs no sorting of all
// that match, which is what SQLite, which knows no counts, would choose for a range.
static bool finds(const Query *q, const Filter *f) {
    const Field *sort = sort_of(q->spec);
    bool few_values = f->field->type == T_BOOL || f->field->type == T_ENUM;
    if (sort == f->field || (!sort && f->field->offset == offsetof(Head, id))) return true;
    return f->op == OP_EQ ? !sort || !few_values : f->op == OP_IN && !few_values;
}

static err filter_values(Query *q, const Filter *f) {
    static const char *const ops[] = { "=", "<>", "<", "<=", ">", ">=" };
    if (f->op != OP_IN) {
        buf_printf(&q->sql, " %s $%zu", ops[f->op], arg(q, f->value));
        return ERR_OK;
    }
    str rest = f->value.s;
    buf_add(&q->sql, S(" IN ("));
    int n = 0;
    for (str part; str_cut(&rest, ',', &part); n++) {
        Val v;
        if (n == IN_MAX)
            return fail(q->c, ERR_INVALID, R_FIELD_LENGTH, "field", f->field->name, "min", "1",
                        "max", "50", "unit", "items", "got", "more");
        TRY(typed(q->c, f->field, str_trim(part), &v));
        buf_printf(&q->sql, "%s$%zu", n ? ", " : "", arg(q, v));
    }
    buf_add(&q->sql, n ? S(")") : S("NULL)"));
    return ERR_OK;
}

// The index holds what sort_expression says; the plain column beside it leaves out what is unset.
// apart: of rows that were found without it.
static err add_filter(Query *q, const Filter *f, bool apart) {
    bool log = q->t->r->flags & RES_LOG, found = finds(q, f);
    bool away = !found && !apart && q->kind == DB_SQLITE; // +x: SQLite uses no index for it
    if (found && f->op != OP_NE && !log) {
        buf_add(&q->sql, S(" AND ")), sort_expression(q, f->field);
        TRY(filter_values(q, f));
    }
    buf_printf(&q->sql, " AND %s\"%s\"", away ? "+" : "", f->field->name);
    return filter_values(q, f);
}

static str like_pattern(Ctx *c, str search) {
    Buf like;
    buf_init(&like, 2 * SEARCH_BYTES_MAX + 2);
    buf_add_char(&like, '%');
    for (size_t i = 0; i < search.n; i++) {
        char ch = search.p[i];
        if (ch == '%' || ch == '_' || ch == '\\') buf_add_char(&like, '\\');
        buf_add_char(&like, ch);
    }
    buf_add_char(&like, '%');
    str s = arena_str(c->mem, buf_str(&like));
    buf_done(&like);
    return s;
}

static err add_search(Query *q) {
    Ctx *c = q->c;
    str search = q->spec->search;
    if (!search.n) return ERR_OK;
    if (!str_utf8(search))
        return fail(c, ERR_INVALID, R_FIELD_TYPE, "field", "q", "want", "UTF-8 text", "got",
                    "other bytes");
    if (search.n > SEARCH_BYTES_MAX)
        return fail(c, ERR_INVALID, R_FIELD_LENGTH, "field", "q", "min", "0", "max",
                    say(c, "%d", SEARCH_BYTES_MAX), "unit", "bytes", "got",
                    say(c, "%zu", search.n));
    size_t at = 0;
    for (size_t i = 0; i < q->t->rows_n; i++) {
        if (!(q->t->rows[i].flags & SEARCHED)) continue;
        buf_add(&q->sql, at ? S(" OR ") : S(" AND ("));
        if (!at) at = arg(q, val_str(like_pattern(c, search)));
        buf_printf(&q->sql,
                   "LOWER(\"%s\") LIKE LOWER(CAST($%zu AS TEXT) COLLATE \"C\") ESCAPE '\\'",
                   q->t->rows[i].name, at);
    }
    buf_add(&q->sql, at ? S(")") : S(" AND 1=0")); // nothing is searched: nothing is found
    return ERR_OK;
}

// ---- cursors: hex of {"list": hash, "id": …, "sort": text or null}
static uint64_t list_hash(const Query *q, str scope) {
    const ListSpec *s = q->spec;
    uint64_t h = str_hash_seed(str_z(q->t->r->plural), s->descending ? 7 : 3);
    h = str_hash_seed(scope, h), h = str_hash_seed(s->search, h),
    h = str_hash_seed(str_z(sort_of(s) ? sort_of(s)->name : "id"), h);
    for (size_t i = 0; i < s->filters_n; i++) {
        const Filter *f = &s->filters[i];
        h = str_hash_seed(str_z(f->field->name), h + (uint64_t)f->op);
        h = f->value.type == VAL_TEXT ? str_hash_seed(f->value.s, h)
                                      : str_hash_seed(str_n(&f->value.i, sizeof f->value.i), h);
    }
    return h;
}

static str cursor_make(Query *q, str scope, const void *row) {
    Buf json, hex;
    buf_init(&json, 8192), buf_init(&hex, 16384);
    Json j = json_to(&json);
    json_obj(&j);
    json_kv_str(&j, "list",
                arena_printf(q->c->mem, "%016llx", (unsigned long long)list_hash(q, scope)));
    json_kv_str(&j, "id", ((const Head *)row)->id);
    json_kv_str(&j, "sort",
                sort_of(q->spec) ? field_to_text(q->c->mem, q->spec->sort, row) : (str){ 0 });
    json_end_obj(&j);
    buf_add_hex(&hex, json.p, json.n);
    str s = arena_str(q->c->mem, buf_str(&hex));
    buf_done(&json), buf_done(&hex);
    return s;
}

static err bad_cursor(Ctx *c) { return fail(c, ERR_INVALID, R_CURSOR); }

static err unhex(Ctx *c, str hex, str *out) {
    if (hex.n % 2 || hex.n > 16384) return bad_cursor(c);
    char *p = new(c->mem, char, hex.n / 2 + 1);
    for (size_t i = 0; i < hex.n / 2; i++) {
        char two[3] = { hex.p[2 * i], hex.p[2 * i + 1], 0 }, *end;
        p[i] = (char)strtoul(two, &end, 16);
        if (*end || two[0] == '+' || two[0] == '-' || two[0] == ' ') return bad_cursor(c);
    }
    *out = str_n(p, hex.n / 2);
    return ERR_OK;
}

static err add_cursor(Query *q, str scope) {
    if (!q->spec->cursor.n) return ERR_OK;
    str text;
    yyjson_val *v;
    TRY(unhex(q->c, q->spec->cursor, &text));
    if (json_parse(q->c, text, &v)) return bad_cursor(q->c);
    str want = arena_printf(q->c->mem, "%016llx", (unsigned long long)list_hash(q, scope));
    str id = json_get_str(v, "id"), sort = json_get_str(v, "sort");
    if (!str_eq(json_get_str(v, "list"), want) || !id.n || str_find_char(id, 0) >= 0)
        return bad_cursor(q->c);
    const char *than = q->spec->descending ? "<" : ">";
    if (!sort_of(q->spec)) {
        buf_printf(&q->sql, " AND \"id\" %s $%zu", than, arg(q, V(id)));
        return ERR_OK;
    }
    const Field *f = sort_of(q->spec);
    Val at = is_number(f) ? val_int(0) : val_str(S(""));
    if (sort.p && typed(q->c, f, sort, &at)) return bad_cursor(q->c);
    buf_add(&q->sql, S(" AND (")), sort_expression(q, f);
    buf_printf(&q->sql, ", \"id\") %s ($%zu, ", than, arg(q, at));
    buf_printf(&q->sql, "$%zu)", arg(q, V(id)));
    return ERR_OK;
}

// Whether what matches must be looked for among rows that do not.
static bool looks(const Query *q) {
    bool all_found = !q->spec->search.n;
    for (size_t i = 0; i < q->spec->filters_n; i++) all_found &= finds(q, &q->spec->filters[i]);
    return !all_found;
}

static bool sliced(const Query *q) { return q->spec->slice && looks(q); }

static void add_order(Query *q) {
    const char *direction = q->spec->descending ? "DESC" : "ASC";
    buf_add(&q->sql, S(" ORDER BY "));
    if (sort_of(q->spec))
        sort_expression(q, q->spec->sort), buf_printf(&q->sql, " %s, ", direction);
    buf_printf(&q->sql, "\"id\" %s", direction);
}

// The list's rows in its order, from the cursor on; of a sliced one those that indexes find.
static err add_way(Query *q, const ScopeWhere *scope) {
    buf_printf(&q->sql, " FROM %s WHERE 1=1", q->t->r->plural);
    if (scope->column)
        buf_printf(&q->sql, " AND \"%s\" = $%zu", scope->column, arg(q, V(scope->value)));
    for (size_t i = 0; i < q->spec->filters_n; i++) {
        const Filter *f = &q->spec->filters[i];
        if (!sliced(q) || finds(q, f)) TRY(add_filter(q, f, false));
    }
    if (!sliced(q)) TRY(add_search(q));
    TRY(add_cursor(q, scope->column ? scope->value : S("*")));
    add_order(q);
    return ERR_OK;
}

// SQLite reads the slice in its order, row by row, and stops at the limit; asked for the order once
// more it would sort, and so read all.
static err write_query(Query *q, const ScopeWhere *scope, size_t limit) {
    buf_printf(&q->sql, "SELECT %s", q->t->columns);
    if (sliced(q)) buf_add(&q->sql, S(" FROM (SELECT *"));
    TRY(add_way(q, scope));
    if (sliced(q)) {
        buf_printf(&q->sql, " LIMIT %zu) AS slice WHERE 1=1", q->spec->slice);
        for (size_t i = 0; i < q->spec->filters_n; i++)
            if (!finds(q, &q->spec->filters[i])) TRY(add_filter(q, &q->spec->filters[i], true));
        TRY(add_search(q));
        if (q->kind == DB_POSTGRES) add_order(q);
    }
    buf_printf(&q->sql, " LIMIT %zu", limit + 1);
    assert(!q->sql.full);
    return ERR_OK;
}

static Sql statement(Query *q) {
    return (Sql){ arena_printf(q->c->mem, "%s_list", q->t->r->name).p,
                  arena_z(q->c->mem, buf_str(&q->sql)), NULL };
}

err list_statement(Ctx *c, DbKind kind, const Resource *r, const ListSpec *spec, ListSql *out) {
    Query *q = new(c->mem, Query, 1);
    *q = (Query){ .c = c, .kind = kind, .t = table_of(r), .spec = spec };
    ScopeWhere scope = { 0 };
    if (!spec->all_scopes) TRY(scope_where(c, r, &scope));
    buf_init(&q->sql, 1 << 16);
    err e = write_query(q, &scope, spec->limit ? spec->limit : LIST_DEFAULT);
    *out = (ListSql){ statement(q), q->args, q->n };
    buf_done(&q->sql);
    return e;
}

static err read_rows(Query *q, Tx *tx, size_t limit, ListPage *out, bool *out_more) {
    size_t size = q->t->r->size, n = 0;
    Sql *sql = new(q->c->mem, Sql, 1);
    *sql = statement(q);
    Rows *rows;
    bool more = true;
    char *items = arena_alloc_array(q->c->mem, limit + 1, size, _Alignof(max_align_t));
    TRY(db_query(q->c, tx, sql, q->args, q->n, &rows));
    while (n <= limit) {
        TRY(rows_next(q->c, rows, &more));
        if (!more) break;
        err e = row_load(q->c, q->t, rows, items + n++ * size);
        if (e) {
            rows_close(rows);
            return e;
        }
    }
    if (more) rows_close(rows);
    *out_more = n > limit;
    out->n = n > limit ? limit : n;
    out->rows = items;
    return ERR_OK;
}

// What PostgreSQL does not know of a table that grew a minute ago makes it sort all of it for each
// slice; it still sorts where no index has the order.
static SQL(in_order, "SELECT set_config('enable_sort', 'off', true),"
                     " set_config('enable_bitmapscan', 'off', true)");

// The slice's last row, when there are more behind it: from there the list goes on, whatever
// matched.
static err read_end(Query *q, Tx *tx, const ScopeWhere *scope, ListPage *out) {
    buf_clear(&q->sql);
    q->n = 0;
    buf_printf(&q->sql, "SELECT %s", q->t->columns);
    TRY(add_way(q, scope));
    buf_printf(&q->sql, " LIMIT 2 OFFSET %zu", q->spec->slice - 1);
    assert(!q->sql.full);
    ListPage last = { 0 };
    bool more;
    TRY(read_rows(q, tx, 1, &last, &more));
    if (more) out->cursor = cursor_make(q, scope->column ? scope->value : S("*"), last.rows);
    return ERR_OK;
}

static err read_list(Query *q, Tx *tx, ListPage *out) {
    size_t limit = q->spec->limit ? q->spec->limit : LIST_DEFAULT;
    ScopeWhere scope = { 0 };
    bool more = false;
    assert(limit <= LIST_MAX);
    if (!q->spec->all_scopes) TRY(scope_where(q->c, q->t->r, &scope));
    TRY(write_query(q, &scope, limit));
    if (sliced(q) && q->kind == DB_POSTGRES) TRY(db_run(q->c, tx, &in_order));
    TRY(read_rows(q, tx, limit, out, &more));
    if (!more) return sliced(q) ? read_end(q, tx, &scope, out) : ERR_OK;
    const char *last = (const char *)out->rows + (out->n - 1) * q->t->r->size;
    out->cursor = cursor_make(q, scope.column ? scope.value : S("*"), last);
    return ERR_OK;
}

err res_list(Ctx *c, Tx *tx, const Resource *r, const ListSpec *spec, ListPage *out) {
    Query *q = new(c->mem, Query, 1);
    *q = (Query){ .c = c, .kind = tx_kind(tx), .t = table_of(r), .spec = spec };
    buf_init(&q->sql, 1 << 16);
    *out = (ListPage){ 0 };
    err e = read_list(q, tx, out);
    buf_done(&q->sql);
    return e;
}

// ---- one list of several databases

static int compare(Ctx *c, const Field *f, const void *a, const void *b) {
    Val va = row_val(c, f, a), vb = row_val(c, f, b);
    if (va.type == VAL_TEXT || vb.type == VAL_TEXT) { // what is unset sorts as ''
        str ta = va.type == VAL_TEXT ? va.s : S(""), tb = vb.type == VAL_TEXT ? vb.s : S("");
        return str_cmp(ta, tb);
    }
    double fa = va.type == VAL_REAL ? va.f : 0, fb = vb.type == VAL_REAL ? vb.f : 0;
    int64_t ia = va.type == VAL_INT ? va.i : 0, ib = vb.type == VAL_INT ? vb.i : 0;
    return ia != ib ? (ia > ib) - (ia < ib) : (fa > fb) - (fa < fb);
}

static bool comes_first(Ctx *c, const ListSpec *spec, const void *a, const void *b) {
    int order = sort_of(spec) ? compare(c, sort_of(spec), a, b) : 0;
    if (!order) order = str_cmp(((const Head *)a)->id, ((const Head *)b)->id);
    return spec->descending ? order > 0 : order < 0;
}

err res_list_merge(Ctx *c, const Resource *r, const ListSpec *spec, const ListPage *pages, size_t n,
                   ListPage *out) {
    Query *q = new(c->mem, Query, 1);
    *q = (Query){ .c = c, .t = table_of(r), .spec = spec };
    ScopeWhere scope = { 0 };
    if (!spec->all_scopes) TRY(scope_where(c, r, &scope));
    size_t limit = spec->limit ? spec->limit : LIST_DEFAULT, *taken = new(c->mem, size_t, n + 1);
    char *items = arena_alloc_array(c->mem, limit, r->size, _Alignof(max_align_t));
    bool more = false;
    *out = (ListPage){ .rows = items };
    while (out->n < limit) {
        const char *first = NULL;
        size_t from = 0;
        for (size_t i = 0; i < n; i++) {
            if (taken[i] == pages[i].n) continue;
            const char *row = (const char *)pages[i].rows + taken[i] * r->size;
            if (!first || comes_first(c, spec, row, first)) first = row, from = i;
        }
        if (!first) break;
        memcpy(items + out->n++ * r->size, first, r->size);
        taken[from]++;
    }
    for (size_t i = 0; i < n; i++) more |= taken[i] < pages[i].n || pages[i].cursor.n;
    if (more && out->n)
        out->cursor =
            cursor_make(q, scope.column ? scope.value : S("*"), items + (out->n - 1) * r->size);
    return ERR_OK;
}
