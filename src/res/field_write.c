// SPDX-License-Identifier: Apache-2.0
// field_write.c - structs into JSON and text by rows, and the walk over references and secrets.
#include "res/field_impl.h"
#include "base/time.h"
#include <assert.h>

static void write_items(const Field *f, const void *base, Json *j, FieldsShow show) {
    const Field *rows = f->of;
    const char *items = *(char *const *)field_at(f, base);
    json_arr(j);
    for (size_t i = 0; i < *field_count(f, base); i++) {
        const void *item = items + i * f->item_size;
        if (!*rows->name) {
            field_write(rows, item, j, show);
            continue;
        }
        json_obj(j);
        fields_write(rows, item, j, show);
        json_end_obj(j);
    }
    json_end_arr(j);
}

static void write_union(const Union *u, const void *at, Json *j, FieldsShow show) {
    int tag = *(const int *)((const char *)at + u->tag_offset);
    json_obj(j);
    json_kv_z(j, u->tag, u->cases[tag].tag);
    fields_write(u->cases[tag].rows, at, j, show);
    json_end_obj(j);
}

void field_write(const Field *f, const void *base, Json *j, FieldsShow show) {
    const void *p = field_at(f, base);
    char text[TIME_TEXT];
    assert(f->type != T_SECRET || show != SHOW_API);
    if (field_unset(f, base) && f->type != T_LIST) {
        json_put_null(j);
        return;
    }
    switch (f->type) {
    case T_INT: json_put_i64(j, *(const int64_t *)p); break;
    case T_REAL: json_put_f64(j, *(const double *)p); break;
    case T_BOOL: json_put_bool(j, *(const bool *)p); break;
    case T_TIME: json_put_str(j, time_format(*(const int64_t *)p, text)); break;
    case T_ENUM: json_put_str(j, str_z(enum_names(f)[*(const int *)p])); break;
    case T_MONEY: {
        Arena *a = arena_new();
        json_put_str(j, money_format(a, *(const int64_t *)p));
        arena_free(a);
        break;
    }
    case T_OBJECT:
        json_obj(j);
        fields_write(f->of, p, j, show);
        json_end_obj(j);
        break;
    case T_LIST: write_items(f, base, j, show); break;
    case T_UNION: write_union(f->of, p, j, show); break;
    case T_JSON: json_put_raw(j, *(const str *)p); break;
    case T_SECRET: json_put_str(j, show == SHOW_STORE ? *(const str *)p : S("********")); break;
    default: json_put_str(j, *(const str *)p);
    }
}

void fields_write(const Field *rows, const void *base, Json *j, FieldsShow show) {
    for (const Field *f = rows; f && f->name; f++) {
        if (show != SHOW_STORE && f->flags & HIDDEN) continue;
        if (show == SHOW_API && f->type == T_SECRET) continue;
        json_key(j, f->name);
        field_write(f, base, j, show);
    }
}

str field_to_text(Arena *a, const Field *f, const void *base) {
    const void *p = field_at(f, base);
    char text[TIME_TEXT];
    if (field_unset(f, base)) return (str){ 0 };
    switch (f->type) {
    case T_INT: return arena_printf(a, "%lld", (long long)*(const int64_t *)p);
    case T_BOOL: return *(const bool *)p ? S("true") : S("false");
    case T_TIME: return arena_str(a, time_format(*(const int64_t *)p, text));
    case T_ENUM: return str_z(enum_names(f)[*(const int *)p]);
    case T_MONEY: return money_format(a, *(const int64_t *)p);
    case T_REAL:
    case T_OBJECT:
    case T_LIST:
    case T_UNION: {
        Buf b;
        buf_init(&b, 1 << 20);
        Json j = json_to(&b);
        field_write(f, base, &j, SHOW_API);
        str s = arena_str(a, buf_str(&b));
        buf_done(&b);
        return s;
    }
    default: return *(const str *)p;
    }
}

typedef struct Walk {
    Ctx *c;
    Type type;
    err (*visit)(Ctx *, const Field *, str, str *, void *);
    void *arg;
} Walk;

static err walk(const Walk *w, const Field *rows, void *base, const Place *up) {
    for (const Field *f = rows; f && f->name; f++) {
        Place at = { up, f->name, 0 };
        void *p = field_at(f, base);
        if (f->type == w->type && !field_unset(f, base))
            TRY(w->visit(w->c, f, str_z(place_text(w->c, &at)), p, w->arg));
        if (f->type == T_OBJECT) TRY(walk(w, f->of, p, &at));
        if (f->type == T_UNION && !field_unset(f, base)) TRY(walk(w, union_rows(f->of, p), p, &at));
        for (size_t i = 0; f->type == T_LIST && i < *field_count(f, base); i++) {
            Place item = { &at, NULL, i };
            TRY(walk(w, f->of, *(char **)p + i * f->item_size, &item));
        }
    }
    return ERR_OK;
}

err fields_each(Ctx *c, const Field *rows, void *base, Type type,
                err (*visit)(Ctx *c, const Field *f, str path, str *value, void *arg), void *arg) {
    assert(type == T_REF || type == T_SECRET || type == T_BLOB);
    Walk w = { c, type, visit, arg };
    return walk(&w, rows, base, NULL);
}
