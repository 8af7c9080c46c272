// SPDX-License-Identifier: Apache-2.0
// field.c - values behind rows: unset, defaults, limits, equality, copies, and one scalar from and
// to text. Reading JSON is field_read.c, writing it field_write.c.
#include "res/field_impl.h"
#include "base/id.h"
#include "base/time.h"
#include <assert.h>

const Field text_item[] = { { .name = "", .type = T_TEXT, .max = 1000, .en = "Text", .zh = "文本" },
                            { 0 } };

const char *type_name(Type t) {
    static const char *const names[T__COUNT] = {
        [T_TEXT] = "text",     [T_ID] = "id",         [T_INT] = "integer", [T_REAL] = "number",
        [T_BOOL] = "boolean",  [T_TIME] = "time",     [T_MONEY] = "money", [T_ENUM] = "enum",
        [T_REF] = "reference", [T_OBJECT] = "object", [T_LIST] = "list",   [T_UNION] = "union",
        [T_BLOB] = "blob",     [T_SECRET] = "secret", [T_JSON] = "json",
    };
    assert((unsigned)t < T__COUNT);
    return names[t];
}

const Field *field_find(const Field *rows, str name) {
    for (const Field *f = rows; f && f->name; f++)
        if (str_is(name, f->name)) return f;
    return NULL;
}

const char *const *enum_names(const Field *f) { return f->of; }

int enum_index(const Field *f, str name) {
    const char *const *names = enum_names(f);
    for (int i = 0; names[i]; i++)
        if (str_is(name, names[i])) return i;
    return -1;
}

size_t *field_count(const Field *f, const void *base) {
    assert(f->type == T_LIST && f->item_size);
    return (size_t *)((char *)(uintptr_t)base + f->count_offset);
}

const Field *union_rows(const Union *u, const void *base) {
    int tag = *(const int *)((const char *)base + u->tag_offset);
    for (int i = 0; u->cases[i].tag; i++)
        if (i == tag) return u->cases[i].rows;
    return NULL;
}

static const struct {
    int64_t min, max;
} type_limits[T__COUNT] = {
    [T_TEXT] = { 0, TEXT_MAX },
    [T_ID] = { 1, 64 },
    [T_INT] = { INT64_MIN + 1, INT64_MAX },
    [T_MONEY] = { 0, INT64_MAX },
    [T_REF] = { 1, REF_MAX },
    [T_LIST] = { 0, LIST_ITEMS_MAX },
    [T_BLOB] = { 64, 64 },
    [T_SECRET] = { 1, TEXT_MAX },
    [T_JSON] = { 2, JSON_FIELD_MAX },
};
int64_t field_min(const Field *f) {
    if (f->min || f->max)
        return f->min || f->type != T_TEXT ? f->min : (f->flags & REQUIRED ? 1 : 0);
    return f->type == T_TEXT && f->flags & REQUIRED ? 1 : type_limits[f->type].min;
}
int64_t field_max(const Field *f) { return f->min || f->max ? f->max : type_limits[f->type].max; }

bool field_unset(const Field *f, const void *base) {
    const void *at = field_at(f, base);
    switch (f->type) {
    case T_INT:
    case T_MONEY: return *(const int64_t *)at == UNSET_INT;
    case T_REAL: return isnan(*(const double *)at);
    case T_TIME: return *(const int64_t *)at == 0;
    case T_ENUM: return *(const int *)at < 0;
    case T_BOOL:
    case T_OBJECT: return false;
    case T_LIST: return *field_count(f, base) == 0;
    case T_UNION: return !union_rows(f->of, at);
    default: return !((const str *)at)->p;
    }
}

static void unset_one(Arena *a, const Field *f, void *base) {
    void *at = field_at(f, base);
    switch (f->type) {
    case T_INT:
    case T_MONEY: *(int64_t *)at = UNSET_INT; break;
    case T_REAL: *(double *)at = NAN; break;
    case T_TIME: *(int64_t *)at = 0; break;
    case T_ENUM: *(int *)at = -1; break;
    case T_BOOL: *(bool *)at = false; break;
    case T_OBJECT: fields_default(a, f->of, at); break;
    case T_LIST: *(void **)at = NULL, *field_count(f, base) = 0; break;
    case T_UNION: *(int *)((char *)at + ((const Union *)f->of)->tag_offset) = -1; break;
    default: *(str *)at = (str){ 0 };
    }
}

void fields_default(Arena *a, const Field *rows, void *base) {
    for (const Field *f = rows; f && f->name; f++) {
        unset_one(a, f, base);
        if (!f->fallback) continue;
        Ctx c = { .mem = a };
        err e = field_from_text(&c, f, base, str_z(f->fallback));
        assert(!e); // a row whose default breaks its own limits
    }
}

const char *place_text(Ctx *c, const Place *p) {
    Buf b;
    buf_init(&b, 1024);
    const Place *path[JSON_DEPTH_MAX];
    size_t n = 0;
    for (; p && n < countof(path); p = p->up) path[n++] = p;
    while (n--) {
        if (!path[n]->name) buf_printf(&b, "[%zu]", path[n]->index);
        else if (*path[n]->name) buf_printf(&b, "%s%s", b.n ? "." : "", path[n]->name);
    }
    const char *text = b.n ? arena_z(c->mem, buf_str(&b)) : "body";
    buf_done(&b);
    return text;
}

static err out_of_range(Ctx *c, const Field *f, int64_t n, const Place *at) {
    bool money = f->type == T_MONEY;
    str lo = money ? money_format(c->mem, field_min(f))
                   : arena_printf(c->mem, "%lld", (long long)field_min(f));
    str hi = money ? money_format(c->mem, field_max(f))
                   : arena_printf(c->mem, "%lld", (long long)field_max(f));
    str got = money ? money_format(c->mem, n) : arena_printf(c->mem, "%lld", (long long)n);
    return fail(c, ERR_INVALID, R_FIELD_RANGE, "field", place_text(c, at), "min", lo.p, "max", hi.p,
                "got", got.p);
}

static err check_length(Ctx *c, const Field *f, size_t n, const Place *at) {
    if ((int64_t)n >= field_min(f) && (int64_t)n <= field_max(f)) return ERR_OK;
    const char *unit = f->type == T_LIST ? "items" : f->type == T_JSON ? "bytes" : "characters";
    return fail(c, ERR_INVALID, R_FIELD_LENGTH, "field", place_text(c, at), "min",
                say(c, "%lld", (long long)field_min(f)), "max",
                say(c, "%lld", (long long)field_max(f)), "unit", unit, "got", say(c, "%zu", n));
}

static err check_name(Ctx *c, const Field *f, str s, const Place *at) {
    if (f->type == T_TEXT && f->flags & UNIQUE && !strcmp(f->name, "name") && !name_valid(s))
        return fail(c, ERR_INVALID, R_FIELD_NAME, "field", place_text(c, at));
    if (f->type == T_BLOB && strspn(arena_z(c->mem, s), "0123456789abcdef") != 64)
        return fail(c, ERR_INVALID, R_FIELD_TYPE, "field", place_text(c, at), "want",
                    "a SHA-256 in lower-case hex", "got", say_str(c, s));
    return ERR_OK;
}

err field_limits(Ctx *c, const Field *f, const void *base, const Place *at) {
    const void *p = field_at(f, base);
    switch (f->type) {
    case T_INT:
    case T_MONEY: {
        int64_t n = *(const int64_t *)p;
        return n < field_min(f) || n > field_max(f) ? out_of_range(c, f, n, at) : ERR_OK;
    }
    case T_TEXT:
    case T_ID:
    case T_REF:
    case T_SECRET:
    case T_BLOB:
        TRY(check_length(c, f, str_utf8_count(*(const str *)p), at));
        return check_name(c, f, *(const str *)p, at);
    case T_JSON: return check_length(c, f, ((const str *)p)->n, at);
    case T_LIST: return check_length(c, f, *field_count(f, base), at);
    default: return ERR_OK;
    }
}

static err check_rows(Ctx *c, const Field *rows, const void *base, const Place *up);

// Anything in it differs from its default: an object that may be left out is then checked whole.
static bool touched(Ctx *c, const Field *rows, const void *base) {
    for (const Field *f = rows; f && f->name; f++) {
        if (f->type == T_OBJECT && touched(c, f->of, field_at(f, base))) return true;
        if (f->type == T_OBJECT || field_unset(f, base)) continue;
        const char *fallback = f->fallback ? f->fallback : f->type == T_BOOL ? "false" : "";
        if (!str_is(field_to_text(c->mem, f, base), fallback)) return true;
    }
    return false;
}

static err check_one(Ctx *c, const Field *f, const void *base, const Place *at) {
    if (field_unset(f, base)) {
        bool must = f->flags & REQUIRED && !(f->flags & STATUS);
        return must ? fail(c, ERR_INVALID, R_FIELD_REQUIRED, "field", place_text(c, at)) : ERR_OK;
    }
    TRY(field_limits(c, f, base, at));
    void *p = field_at(f, base);
    if (f->type == T_OBJECT)
        return f->flags & REQUIRED || (!(f->flags & STATUS) && touched(c, f->of, p))
                   ? check_rows(c, f->of, p, at)
                   : ERR_OK;
    if (f->type == T_UNION) return check_rows(c, union_rows(f->of, p), p, at);
    if (f->type != T_LIST) return ERR_OK;
    for (size_t i = 0; i < *field_count(f, base); i++) {
        Place item = { at, NULL, i };
        TRY(check_rows(c, f->of, *(char **)p + i * f->item_size, &item));
    }
    return ERR_OK;
}

static err check_rows(Ctx *c, const Field *rows, const void *base, const Place *up) {
    for (const Field *f = rows; f && f->name; f++) {
        Place at = { up, f->name, 0 };
        TRY(check_one(c, f, base, &at));
    }
    return ERR_OK;
}
err fields_check(Ctx *c, const Field *rows, const void *base) {
    return check_rows(c, rows, base, NULL);
}

static bool one_equal(const Field *f, const void *a, const void *b, bool spec_only) {
    const void *x = field_at(f, a), *y = field_at(f, b);
    switch (f->type) {
    case T_INT:
    case T_MONEY:
    case T_TIME: return *(const int64_t *)x == *(const int64_t *)y;
    case T_REAL:
        return *(const double *)x == *(const double *)y || (field_unset(f, a) && field_unset(f, b));
    case T_BOOL: return *(const bool *)x == *(const bool *)y;
    case T_ENUM: return *(const int *)x == *(const int *)y;
    case T_OBJECT: return fields_equal(f->of, x, y, spec_only);
    case T_UNION:
        return union_rows(f->of, x) == union_rows(f->of, y)
               && fields_equal(union_rows(f->of, x), x, y, spec_only);
    case T_LIST:
        if (*field_count(f, a) != *field_count(f, b)) return false;
        for (size_t i = 0; i < *field_count(f, a); i++)
            if (!fields_equal(f->of, *(char *const *)x + i * f->item_size,
                              *(char *const *)y + i * f->item_size, spec_only))
                return false;
        return true;
    default:
        return !((const str *)x)->p == !((const str *)y)->p
               && str_eq(*(const str *)x, *(const str *)y);
    }
}

bool fields_equal(const Field *rows, const void *a, const void *b, bool spec_only) {
    for (const Field *f = rows; f && f->name; f++)
        if (!(spec_only && f->flags & STATUS) && !one_equal(f, a, b, spec_only)) return false;
    return true;
}

static void copy_one(Arena *a, const Field *f, const void *from, void *to) {
    const void *x = field_at(f, from);
    void *y = field_at(f, to);
    switch (f->type) {
    case T_INT:
    case T_MONEY:
    case T_TIME: *(int64_t *)y = *(const int64_t *)x; break;
    case T_REAL: *(double *)y = *(const double *)x; break;
    case T_BOOL: *(bool *)y = *(const bool *)x; break;
    case T_ENUM: *(int *)y = *(const int *)x; break;
    case T_OBJECT: fields_copy(a, f->of, x, y); break;
    case T_UNION: {
        size_t tag = ((const Union *)f->of)->tag_offset;
        *(int *)((char *)y + tag) = *(const int *)((const char *)x + tag);
        fields_copy(a, union_rows(f->of, x), x, y);
        break;
    }
    case T_LIST: {
        size_t n = *field_count(f, from);
        char *items = n ? arena_alloc_array(a, n, f->item_size, _Alignof(max_align_t)) : NULL;
        for (size_t i = 0; i < n; i++)
            fields_copy(a, f->of, *(char *const *)x + i * f->item_size, items + i * f->item_size);
        *(char **)y = items, *field_count(f, to) = n;
        break;
    }
    default: *(str *)y = arena_str(a, *(const str *)x);
    }
}

void fields_copy(Arena *a, const Field *rows, const void *from, void *to) {
    for (const Field *f = rows; f && f->name; f++) copy_one(a, f, from, to);
}
