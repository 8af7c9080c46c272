// SPDX-License-Identifier: Apache-2.0
// crud_list.c - GET of a collection: a page as JSON, or all of it as NDJSON or CSV (RFC 4180), read
// page by page while the client takes it.
#include "res/bind.h"
#include "res/daily.h"

enum { EXPORT_PAGE = 500 };

static err read_filter(Ctx *c, const Resource *r, ListSpec *spec, str name, str value) {
    static const struct {
        const char *suffix;
        FilterOp op;
    } ops[] = {
        { ".ne", OP_NE }, { ".lt", OP_LT }, { ".le", OP_LE },
        { ".gt", OP_GT }, { ".ge", OP_GE }, { ".in", OP_IN },
    };
    for (size_t i = 0; i < countof(ops); i++)
        if (str_ends(name, str_z(ops[i].suffix)))
            return list_filter(c, r, spec, arena_z(c->mem, str_sub(name, 0, name.n - 3)), ops[i].op,
                               value);
    return list_filter(c, r, spec, arena_z(c->mem, name), OP_EQ, value);
}

static err list_unsorted(Ctx *c, const ResTable *t, str value) {
    str names[64];
    size_t n = 0;
    for (size_t i = 0; i < t->rows_n && n < countof(names); i++)
        if (field_sorts(t->r, &t->rows[i])) names[n++] = str_z(t->rows[i].name);
    return fail(c, ERR_INVALID, R_FILTER, "field", say_str(c, value), "names",
                arena_join(c->mem, names, n, S(", ")).p);
}

static err read_sort(Ctx *c, const ResTable *t, ListSpec *spec, str value) {
    if (value.n && *value.p == '-') spec->descending = true, value = str_sub(value, 1, value.n);
    if (str_is(value, "id")) return ERR_OK;
    const Field *f = field_find(t->rows, value);
    if (!f || !field_sorts(t->r, f)) return list_unsorted(c, t, value);
    spec->sort = f;
    return ERR_OK;
}

static err read_limit(Ctx *c, ListSpec *spec, str value) {
    int64_t n;
    if (!str_to_i64(value, &n) || n < 1 || n > LIST_MAX)
        return fail(c, ERR_INVALID, R_FIELD_RANGE, "field", "limit", "min", "1", "max", "1000",
                    "got", say_str(c, value));
    spec->limit = (size_t)n;
    return ERR_OK;
}

static err read_query(Ctx *c, const ResTable *t, const HttpRequest *r, ListSpec *spec,
                      str *out_format) {
    str rest = r->query, name, value;
    *out_format = S("json");
    while (http_query_next(c->mem, &rest, &name, &value)) {
        if (memchr(value.p ? value.p : "", 0, value.n))
            return fail(c, ERR_INVALID, R_FIELD_TYPE, "field", say_str(c, name), "want",
                        "text without NUL", "got", "NUL");
        if (str_is(name, "limit")) TRY(read_limit(c, spec, value));
        else if (str_is(name, "cursor")) spec->cursor = value;
        else if (str_is(name, "q")) spec->search = value;
        else if (str_is(name, "sort")) TRY(read_sort(c, t, spec, value));
        else if (str_is(name, "format")) *out_format = value;
        else if (str_is(name, "dry_run")) continue;
        else TRY(read_filter(c, t->r, spec, name, value));
    }
    if (str_is(*out_format, "json") || str_is(*out_format, "ndjson") || str_is(*out_format, "csv"))
        return ERR_OK;
    return fail(c, ERR_INVALID, R_FIELD_ENUM, "field", "format", "names", "json, ndjson, csv",
                "got", say_str(c, *out_format));
}

// ---- one page
typedef struct Page {
    const ResTable *t;
    const ListSpec *spec;
    ListPage list;
} Page;

// A page that asks for few of many rows looks at SLICE of them after the other until it is full, or
// until the caller has waited for long enough: then it is short, and its cursor leads on.
static err page_tx(Ctx *c, Tx *tx, void *arg) {
    enum { SLICE = 2048, ENOUGH_MS = 6 };
    Page *p = arg;
    size_t size = p->t->r->size, limit = p->spec->limit ? p->spec->limit : LIST_DEFAULT;
    char *rows = arena_alloc_array(c->mem, limit, size, _Alignof(max_align_t));
    int64_t until_ns = os_mono_ns(c->os) + ENOUGH_MS * INT64_C(1000000);
    ListSpec rest = *p->spec;
    p->list = (ListPage){ .rows = rows };
    rest.slice = SLICE;
    do {
        ListPage part;
        rest.limit = limit - p->list.n;
        TRY(res_list(c, tx, p->t->r, &rest, &part));
        if (part.n) memcpy(rows + p->list.n * size, part.rows, part.n * size);
        p->list.n += part.n, p->list.cursor = rest.cursor = part.cursor;
    } while (rest.cursor.n && p->list.n < limit && os_mono_ns(c->os) < until_ns);
    return ERR_OK;
}

static err read_page(Ctx *c, Page *p) {
    const Resource *r = p->t->r;
    DailySet *days = r->daily ? r->daily() : NULL;
    return days ? daily_list(c, days, r, p->spec, &p->list) : db_read(c, c->db, page_tx, p);
}

static void write_page(const Page *p, Buf *out) {
    Json j = json_to(out);
    json_obj(&j), json_key(&j, "data"), json_arr(&j);
    for (size_t i = 0; i < p->list.n; i++) {
        json_obj(&j);
        fields_write(p->t->rows, (char *)p->list.rows + i * p->t->r->size, &j, SHOW_API);
        json_end_obj(&j);
    }
    json_end_arr(&j);
    json_kv_str(&j, "next_cursor", p->list.cursor);
    json_end_obj(&j);
}

// ---- exports
typedef struct Export {
    const ResTable *t;
    ListSpec spec;
    bool csv, header;
    Arena *mem;
} Export;

static bool exported(const Field *f) { return !(f->flags & HIDDEN) && f->type != T_SECRET; }

// What a spreadsheet would run as a formula, in wide letters too, is shown as text (OWASP, CSV
// injection).
static bool runs(str s) {
    static const char *const wide[] = { "\uff1d", "\uff0b", "\uff0d", "\uff20" };
    for (size_t i = 0; i < countof(wide); i++)
        if (str_starts(s, str_z(wide[i]))) return true;
    return s.n && memchr("=+-@\t\r\n", *s.p, 7);
}

static void csv_cell(Buf *out, str s, bool first) {
    if (!first) buf_add_char(out, ',');
    bool formula = runs(s), quote = formula;
    for (size_t i = 0; i < s.n; i++)
        quote |= s.p[i] == '"' || s.p[i] == ',' || s.p[i] == '\n' || s.p[i] == '\r';
    if (!quote) {
        buf_add(out, s);
        return;
    }
    buf_add_char(out, '"');
    if (formula) buf_add_char(out, '\'');
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '"') buf_add_char(out, '"');
        buf_add_char(out, s.p[i]);
    }
    buf_add_char(out, '"');
}

static void csv_line(Ctx *c, const ResTable *t, const void *row, Buf *out) {
    bool first = true;
    for (const Field *f = t->rows; f->name; f++) {
        if (!exported(f)) continue;
        bool number = f->type == T_INT || f->type == T_REAL || f->type == T_MONEY;
        str s = row ? field_to_text(c->mem, f, row) : str_z(f->name);
        if (number && row) {
            if (!first) buf_add_char(out, ',');
            buf_add(out, s);
        } else csv_cell(out, s, first);
        first = false;
    }
    buf_add(out, S("\r\n"));
}

static err export_pull(Ctx *c, void *arg, Buf *out, bool *more) {
    Export *x = arg;
    Page p = { .t = x->t, .spec = &x->spec };
    TRY(read_page(c, &p));
    if (x->csv && x->header) csv_line(c, x->t, NULL, out), x->header = false;
    for (size_t i = 0; i < p.list.n; i++) {
        const void *row = (char *)p.list.rows + i * x->t->r->size;
        if (x->csv) csv_line(c, x->t, row, out);
        else buf_add(out, res_json(c, x->t->r, row)), buf_add_char(out, '\n');
    }
    x->spec.cursor = arena_str(x->mem, p.list.cursor);
    *more = p.list.cursor.n > 0;
    return ERR_OK;
}
static void export_done(void *arg) { arena_free(((Export *)arg)->mem); }

static err export_start(Ctx *c, const ResTable *t, const ListSpec *spec, bool csv, HttpReply *out) {
    Arena *mem = arena_new();
    Export *x = new (mem, Export, 1);
    *x = (Export){ t, *spec, csv, true, mem };
    x->spec.limit = EXPORT_PAGE;
    x->spec.search = arena_str(mem, spec->search), x->spec.cursor = arena_str(mem, spec->cursor);
    for (size_t i = 0; i < x->spec.filters_n; i++)
        if (x->spec.filters[i].value.type == VAL_TEXT)
            x->spec.filters[i].value.s = arena_str(mem, x->spec.filters[i].value.s);
    out->pull = export_pull, out->pull_done = export_done, out->pull_arg = x;
    out->type = csv ? "text/csv; charset=utf-8" : "application/x-ndjson";
    http_reply_header(c, out, "Content-Disposition",
                      arena_printf(c->mem, "attachment; filename=\"%s.%s\"", t->r->plural,
                                   csv ? "csv" : "ndjson"));
    return ERR_OK;
}

err crud_list(Ctx *c, const NetRoute *n, const HttpRequest *r, const HttpBody *body,
              HttpReply *out) {
    (void)body;
    const ResTable *t = binding_of(n)->table;
    ListSpec spec = { 0 };
    str format;
    TRY(read_query(c, t, r, &spec, &format));
    Page p = { .t = t, .spec = &spec };
    if (!str_is(format, "json")) {
        spec.limit = 1; // a refusal must come before the first byte of an export
        TRY(read_page(c, &p));
        return export_start(c, t, &spec, str_is(format, "csv"), out);
    }
    TRY(read_page(c, &p));
    write_page(&p, &out->body);
    return ERR_OK;
}
