// SPDX-License-Identifier: Apache-2.0
// field_fuzz.c - any JSON as a row of any resource of the program, or from 128 on of the toy that
// has every type. The first byte chooses the table; a NUL ends the body of a create, another that
// of a patch; what is left is text for every scalar. What is accepted holds its limits, is stored
// and loaded as itself, copied as itself, and a patch that is repeated changes nothing more.
// Covers: src/res/field.c src/res/field_read.c src/res/field_write.c
// Threads: one.
#include "fuzz.h"
#include "res/table.h"
#include "res/toy_test.h"

extern const Module *const lathe_modules[];

static void all_tables(void) {
    static const Module *all[64];
    size_t n = 0;
    if (*all) return;
    for (const Module *const *m = lathe_modules; *m; m++) all[n++] = *m;
    for (const Module *const *m = toy_modules; *m; m++) all[n++] = *m;
    assert(n < countof(all));
    tables_init(all);
}

static str stored(Ctx *c, const ResTable *t, const void *row) {
    Buf b;
    buf_init(&b, 64 << 20);
    Json j = json_to(&b);
    json_obj(&j), fields_write(t->rows, row, &j, SHOW_STORE), json_end_obj(&j);
    assert(!b.full);
    str text = arena_str(c->mem, buf_str(&b));
    buf_done(&b);
    return text;
}

// Names are checked where rows are created, and hooks fill STATUS: here only what the rows say.
static void check_row(Ctx *c, const ResTable *t, void *row) {
    yyjson_val *v;
    str text = stored(c, t, row);
    err e = json_parse(c, text, &v);
    assert(!e);
    void *loaded = row_new(c, t), *copy = row_new(c, t);
    e = fields_read(c, t->rows, loaded, v, FIELDS_LOAD);
    assert(!e && str_eq(stored(c, t, loaded), text));
    assert(fields_equal(t->rows, row, loaded, true));
    fields_copy(c->mem, t->rows, row, copy);
    assert(fields_equal(t->rows, row, copy, false));
    e = fields_check(c, t->r->fields, row);
    assert(!e);
    res_json(c, t->r, row);
}

static void check_patch(Ctx *c, const ResTable *t, const void *row, str body) {
    yyjson_val *v;
    if (json_parse(c, body, &v)) return;
    void *now = row_new(c, t);
    fields_copy(c->mem, t->rows, row, now);
    err e = fields_read(c, t->rows, now, v, FIELDS_PATCH);
    if (e) {
        fuzz_refused(c, e, ERR_INVALID);
        return;
    }
    check_row(c, t, now);
    str once = stored(c, t, now);
    e = fields_read(c, t->rows, now, v, FIELDS_PATCH);
    assert(!e && str_eq(stored(c, t, now), once));
}

static void check_scalar(Ctx *c, const Field *f, str text) {
    struct {
        _Alignas(max_align_t) char bytes[64];
    } box = { 0 }, again = { 0 };
    Field at = *f;
    at.offset = 0;
    if (f->type == T_OBJECT || f->type == T_LIST || f->type == T_UNION || f->type == T_JSON) return;
    err e = field_from_text(c, &at, &box, text);
    if (e) {
        fuzz_refused(c, e, ERR_INVALID);
        return;
    }
    str shown = field_to_text(c->mem, &at, &box);
    if (!shown.p) return;
    e = field_from_text(c, &at, &again, shown);
    assert(!e && str_eq(field_to_text(c->mem, &at, &again), shown));
}

FUZZ(field) {
    all_tables();
    Ctx c;
    yyjson_val *v;
    ctx_init(&c, arena_new(), os_real());
    unsigned which = fuzz_choice(&bytes);
    const ResTable *t = which & 128 ? table_of(&toy) : table_at(which % tables_count());
    str create = { 0 }, patch = { 0 }, text = bytes;
    if (text.n) str_cut(&text, '\0', &create);
    if (text.n) str_cut(&text, '\0', &patch);
    if (!json_parse(&c, create, &v)) {
        void *row = row_new(&c, t);
        err e = fields_read(&c, t->rows, row, v, FIELDS_CREATE);
        if (e) fuzz_refused(&c, e, ERR_INVALID);
        else check_row(&c, t, row), check_patch(&c, t, row, patch);
    }
    for (const Field *f = t->rows; f->name && text.n; f++) check_scalar(&c, f, text);
    arena_free(c.mem);
}
