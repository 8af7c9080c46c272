// SPDX-License-Identifier: Apache-2.0
// field_read.c - JSON and text into structs by rows. Each refusal names the field's whole path and
// what would be right.
#include "res/field_impl.h"
#include "base/time.h"
#include <assert.h>
#include <limits.h>
#include <stdlib.h>

typedef struct Reader {
    Ctx *c;
    FieldsMode mode;
    bool frozen;
} Reader;

static err read_rows(Reader r, const Field *rows, void *base, yyjson_val *obj, const Place *up,
                     const char *tag);

static const char *json_kind(yyjson_val *v) {
    if (yyjson_is_null(v)) return "null";
    if (yyjson_is_obj(v)) return "an object";
    if (yyjson_is_arr(v)) return "a list";
    if (yyjson_is_bool(v)) return "true or false";
    return yyjson_is_str(v) ? "text" : "a number";
}

static err wrong_type(Reader r, const Place *at, const char *want, yyjson_val *v) {
    return fail(r.c, ERR_INVALID, R_FIELD_TYPE, "field", place_text(r.c, at), "want", want, "got",
                json_kind(v));
}

// No database and no C program keeps one.
static err no_nul(Ctx *c, const Place *at) {
    return fail(c, ERR_INVALID, R_FIELD_TYPE, "field", place_text(c, at), "want",
                "text without NUL", "got", "NUL");
}

static err not_in_enum(Ctx *c, const Field *f, const Place *at, str got) {
    str names[64];
    size_t n = 0;
    for (const char *const *z = enum_names(f); *z && n < countof(names); z++)
        names[n++] = str_z(*z);
    return fail(c, ERR_INVALID, R_FIELD_ENUM, "field", place_text(c, at), "names",
                arena_join(c->mem, names, n, S(", ")).p, "got", say_str(c, got));
}

// ---- scalars
static err read_int(Reader r, int64_t *out, yyjson_val *v, const Place *at) {
    if (!yyjson_is_int(v)) return wrong_type(r, at, "an integer", v);
    if (yyjson_is_uint(v) && yyjson_get_uint(v) > INT64_MAX)
        return fail(r.c, ERR_INVALID, R_FIELD_TYPE, "field", place_text(r.c, at), "want",
                    "a 64-bit integer", "got",
                    say(r.c, "%llu", (unsigned long long)yyjson_get_uint(v)));
    *out = yyjson_is_uint(v) ? (int64_t)yyjson_get_uint(v) : yyjson_get_sint(v);
    return ERR_OK;
}

static err read_money(Reader r, int64_t *out, yyjson_val *v, const Place *at) {
    str text = yyjson_is_num(v) ? json_text(r.c->mem, v) : json_str(v);
    if (!text.p) return wrong_type(r, at, "an amount such as \"0.25\"", v);
    if (!money_parse(text, out))
        return fail(r.c, ERR_INVALID, R_FIELD_TYPE, "field", place_text(r.c, at), "want",
                    "an amount with at most nine decimals", "got", say_str(r.c, text));
    return ERR_OK;
}

static err read_time(Reader r, int64_t *out, yyjson_val *v, const Place *at) {
    if (!yyjson_is_str(v)) return wrong_type(r, at, "an RFC 3339 time", v);
    if (time_parse(json_str(v), out) && *out) return ERR_OK;
    return fail(r.c, ERR_INVALID, R_FIELD_TYPE, "field", place_text(r.c, at), "want",
                "an RFC 3339 time", "got", say_str(r.c, json_str(v)));
}

static err read_enum(Reader r, const Field *f, int *out, yyjson_val *v, const Place *at) {
    if (!yyjson_is_str(v)) return wrong_type(r, at, "text", v);
    int i = enum_index(f, json_str(v));
    if (i < 0) return not_in_enum(r.c, f, at, json_str(v));
    *out = i;
    return ERR_OK;
}

static err read_scalar(Reader r, const Field *f, void *p, yyjson_val *v, const Place *at) {
    switch (f->type) {
    case T_INT: return read_int(r, p, v, at);
    case T_MONEY: return read_money(r, p, v, at);
    case T_TIME: return read_time(r, p, v, at);
    case T_ENUM: return read_enum(r, f, p, v, at);
    case T_REAL:
        if (!yyjson_is_num(v)) return wrong_type(r, at, "a number", v);
        *(double *)p = yyjson_get_num(v);
        return ERR_OK;
    case T_BOOL:
        if (!yyjson_is_bool(v)) return wrong_type(r, at, "true or false", v);
        *(bool *)p = yyjson_get_bool(v);
        return ERR_OK;
    case T_JSON:
        if (!yyjson_is_obj(v)) return wrong_type(r, at, "an object", v);
        *(str *)p = json_text(r.c->mem, v);
        return ERR_OK;
    default:
        if (!yyjson_is_str(v)) return wrong_type(r, at, "text", v);
        if (f->type == T_SECRET && r.mode != FIELDS_LOAD && yyjson_get_len(v)
            && *yyjson_get_str(v) == SEALED_MARK)
            return wrong_type(r, at, "text that does not start with a control character", v);
        if (memchr(yyjson_get_str(v), 0, yyjson_get_len(v)) && r.mode != FIELDS_LOAD)
            return no_nul(r.c, at);
        *(str *)p = arena_str(r.c->mem, json_str(v));
        return ERR_OK;
    }
}

// ---- lists and unions
static int by_text(const void *a, const void *b) {
    return str_cmp(*(const str *)a, *(const str *)b);
}

static void sort_set(const Field *f, void *base) {
    str *items = *(str **)field_at(f, base);
    size_t *n = field_count(f, base), kept = 0;
    if (!*n) return;
    qsort(items, *n, sizeof *items, by_text);
    for (size_t i = 0; i < *n; i++)
        if (!kept || !str_eq(items[kept - 1], items[i])) items[kept++] = items[i];
    *n = kept;
}

static err read_item(Reader r, const Field *rows, void *item, yyjson_val *v, const Place *at) {
    fields_default(r.c->mem, rows, item);
    if (*rows->name) return read_rows(r, rows, item, v, at, NULL);
    TRY(read_scalar(r, rows, item, v, at));
    return r.mode == FIELDS_LOAD ? ERR_OK : field_limits(r.c, rows, item, at);
}

static err read_list(Reader r, const Field *f, void *base, yyjson_val *v, const Place *at) {
    if (!yyjson_is_arr(v)) return wrong_type(r, at, "a list", v);
    size_t n = yyjson_arr_size(v), i = 0, max;
    if (r.mode != FIELDS_LOAD && (int64_t)n > field_max(f)) { // before anything is allocated for it
        size_t had = *field_count(f, base);
        *field_count(f, base) = n;
        err e = field_limits(r.c, f, base, at);
        *field_count(f, base) = had;
        return e;
    }
    char *items = n ? arena_alloc_array(r.c->mem, n, f->item_size, _Alignof(max_align_t)) : NULL;
    Reader each = { r.c, r.mode == FIELDS_LOAD ? FIELDS_LOAD : FIELDS_CREATE, false };
    yyjson_val *item;
    yyjson_arr_foreach(v, i, max, item) {
        Place place = { at, NULL, i };
        TRY(read_item(each, f->of, items + i * f->item_size, item, &place));
    }
    *(char **)field_at(f, base) = items, *field_count(f, base) = n;
    if (f->flags & SORTED_SET) sort_set(f, base);
    return ERR_OK;
}

static err read_union(Reader r, const Union *u, void *p, yyjson_val *v, const Place *at) {
    if (!yyjson_is_obj(v)) return wrong_type(r, at, "an object", v);
    int *tag = (int *)((char *)p + u->tag_offset), wanted = -1;
    str name = json_get_str(v, u->tag);
    for (int i = 0; u->cases[i].tag; i++)
        if (str_is(name, u->cases[i].tag)) wanted = i;
    if (!name.p && r.mode == FIELDS_PATCH) wanted = *tag;
    if (wanted < 0) {
        str names[64];
        size_t n = 0;
        for (; u->cases[n].tag && n < countof(names); n++) names[n] = str_z(u->cases[n].tag);
        Place place = { at, u->tag, 0 };
        return fail(r.c, ERR_INVALID, R_FIELD_ENUM, "field", place_text(r.c, &place), "names",
                    arena_join(r.c->mem, names, n, S(", ")).p, "got",
                    name.p ? say_str(r.c, name) : "nothing");
    }
    if (wanted != *tag) {
        if (r.frozen)
            return fail(r.c, ERR_INVALID, R_FIELD_IMMUTABLE, "field", place_text(r.c, at));
        fields_default(r.c->mem, u->cases[wanted].rows, p);
        if (r.mode == FIELDS_PATCH) r.mode = FIELDS_CREATE;
    }
    *tag = wanted;
    return read_rows(r, u->cases[wanted].rows, p, v, at, u->tag);
}

// ---- one member
static err unset_member(Reader r, const Field *f, void *base, const Place *at) {
    if (f->flags & REQUIRED)
        return fail(r.c, ERR_INVALID, R_FIELD_REQUIRED, "field", place_text(r.c, at));
    Field one[2] = { *f, { 0 } };
    fields_default(r.c->mem, one, base);
    return ERR_OK;
}

static err read_value(Reader r, const Field *f, void *base, yyjson_val *v, const Place *at) {
    void *p = field_at(f, base);
    if (f->type == T_OBJECT) {
        if (!yyjson_is_obj(v)) return wrong_type(r, at, "an object", v);
        return read_rows(r, f->of, p, v, at, NULL);
    }
    if (f->type == T_UNION) return read_union(r, f->of, p, v, at);
    TRY(f->type == T_LIST ? read_list(r, f, base, v, at) : read_scalar(r, f, p, v, at));
    return r.mode == FIELDS_LOAD ? ERR_OK : field_limits(r.c, f, base, at);
}

// The bytes of one member, to look at it before and after.
typedef struct Member {
    _Alignas(max_align_t) char bytes[sizeof(str)];
    size_t count;
} Member;

static size_t member_size(const Field *f) {
    switch (f->type) {
    case T_INT:
    case T_MONEY:
    case T_TIME:
    case T_REAL:
    case T_LIST: return sizeof(int64_t);
    case T_ENUM: return sizeof(int);
    case T_BOOL: return sizeof(bool);
    default: return sizeof(str);
    }
}

static Member member_get(const Field *f, const void *base) {
    Member m = { .count = f->type == T_LIST ? *field_count(f, base) : 0 };
    memcpy(m.bytes, field_at(f, base), member_size(f));
    return m;
}

static void member_put(const Field *f, void *base, const Member *m) {
    memcpy(field_at(f, base), m->bytes, member_size(f));
    if (f->type == T_LIST) *field_count(f, base) = m->count;
}

static bool member_same(const Field *f, const Member *a, const Member *b) {
    Field rows[2] = { *f, { 0 } };
    rows[0].offset = 0, rows[0].count_offset = offsetof(Member, count);
    return fields_equal(rows, a, b, false);
}

// A member that may not change is read all the same and compared, so that a document can be sent
// back as it was got. A reference may come back by name: res_update compares it when it is an id.
static err read_frozen(Reader r, const Field *f, void *base, yyjson_val *v, const Place *at) {
    bool status = f->flags & STATUS;
    Member old = member_get(f, base);
    err e = yyjson_is_null(v) ? unset_member(r, f, base, at) : read_value(r, f, base, v, at);
    Member now = member_get(f, base);
    if (!e && !status && f->type == T_REF && !at->up) return ERR_OK;
    member_put(f, base, &old);
    if (e && !status) return e;
    if (!e && member_same(f, &old, &now)) return ERR_OK;
    return fail(r.c, ERR_INVALID, *(status ? &R_FIELD_READONLY : &R_FIELD_IMMUTABLE), "field",
                place_text(r.c, at));
}

static err read_member(Reader r, const Field *f, void *base, yyjson_val *v, const Place *at) {
    if (r.mode == FIELDS_CREATE && f->flags & STATUS)
        return fail(r.c, ERR_INVALID, R_FIELD_READONLY, "field", place_text(r.c, at));
    if (r.mode == FIELDS_PATCH && f->flags & (STATUS | IMMUTABLE)) r.frozen = true;
    bool nested = f->type == T_OBJECT || f->type == T_UNION;
    if (r.frozen && !nested) return read_frozen(r, f, base, v, at);
    if (yyjson_is_null(v)) return r.mode == FIELDS_LOAD ? ERR_OK : unset_member(r, f, base, at);
    return read_value(r, f, base, v, at);
}

static err unknown(Reader r, const Field *rows, str key, const Place *up) {
    const char *nearest = "";
    unsigned best = UINT_MAX;
    for (const Field *f = rows; f && f->name; f++) {
        unsigned d = f->flags & (STATUS | HIDDEN) ? UINT_MAX : str_distance(key, str_z(f->name));
        if (d < best) best = d, nearest = f->name;
    }
    Place at = { up, say_str(r.c, key), 0 };
    return fail(r.c, ERR_INVALID, R_FIELD_UNKNOWN, "field", place_text(r.c, &at), "nearest",
                nearest);
}

static err read_rows(Reader r, const Field *rows, void *base, yyjson_val *obj, const Place *up,
                     const char *tag) {
    if (!yyjson_is_obj(obj)) return wrong_type(r, up, "an object", obj);
    size_t i, n;
    yyjson_val *key, *v;
    yyjson_obj_foreach(obj, i, n, key, v) {
        const Field *f = field_find(rows, json_str(key));
        if (tag && str_is(json_str(key), tag)) continue;
        if ((!f || f->flags & HIDDEN) && r.mode != FIELDS_LOAD)
            return unknown(r, rows, json_str(key), up);
        if (!f) continue; // a column of a newer release
        Place at = { up, f->name, 0 };
        TRY(read_member(r, f, base, v, &at));
    }
    if (r.mode != FIELDS_CREATE) return ERR_OK;
    for (const Field *f = rows; f && f->name; f++) {
        if (!(f->flags & REQUIRED) || f->flags & STATUS || json_get(obj, f->name)) continue;
        Place at = { up, f->name, 0 };
        return fail(r.c, ERR_INVALID, R_FIELD_REQUIRED, "field", place_text(r.c, &at));
    }
    return ERR_OK;
}

err fields_read(Ctx *c, const Field *rows, void *base, yyjson_val *obj, FieldsMode mode) {
    if (mode != FIELDS_PATCH) fields_default(c->mem, rows, base);
    return read_rows((Reader){ c, mode, false }, rows, base, obj, NULL, NULL);
}

// ---- text
static err bad_text(Ctx *c, const Field *f, const char *want, str got) {
    return fail(c, ERR_INVALID, R_FIELD_TYPE, "field", f->name, "want", want, "got",
                say_str(c, got));
}

static err text_as_json(Ctx *c, const Field *f, void *base, str text) {
    yyjson_val *v;
    TRY(json_parse(c, text, &v));
    Place at = { NULL, f->name, 0 };
    return read_value((Reader){ c, FIELDS_CREATE, false }, f, base, v, &at);
}

err field_from_text(Ctx *c, const Field *f, void *base, str text) {
    void *p = field_at(f, base);
    Place at = { NULL, f->name, 0 };
    switch (f->type) {
    case T_INT:
        if (!str_to_i64(text, p)) return bad_text(c, f, "an integer", text);
        break;
    case T_REAL:
        if (!str_to_f64(text, p)) return bad_text(c, f, "a number", text);
        break;
    case T_BOOL:
        if (!str_to_bool(text, p)) return bad_text(c, f, "true or false", text);
        break;
    case T_TIME:
        if (!time_parse(text, p)) return bad_text(c, f, "an RFC 3339 time", text);
        break;
    case T_MONEY:
        if (!money_parse(text, p)) return bad_text(c, f, "an amount such as 0.25", text);
        break;
    case T_ENUM: {
        int i = enum_index(f, text);
        if (i < 0) return not_in_enum(c, f, &at, text);
        *(int *)p = i;
        break;
    }
    case T_OBJECT:
    case T_LIST:
    case T_UNION:
    case T_JSON: return text_as_json(c, f, base, text);
    default:
        if (!str_utf8(text)) return bad_text(c, f, "UTF-8 text", S("other bytes"));
        if (str_find_char(text, 0) >= 0) return no_nul(c, &at);
        *(str *)p = arena_str(c->mem, text);
    }
    return field_limits(c, f, base, &at);
}
