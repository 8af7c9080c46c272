// SPDX-License-Identifier: Apache-2.0
// err.c - the rows of the codes, and filling a reason's sentence with its parameters.
// Threads: pure, on constant tables.
#include "err.h"

static const ErrRow rows[] = {
#define X(name, value, slug, http, exit_status) [value] = { #name, slug, http, exit_status },
    ERR_MAP(X)
#undef X
};
_Static_assert(countof(rows) == ERR__COUNT, "codes count up from 0 without holes");

const ErrRow *err_row(err e) {
    return (unsigned)e < countof(rows) ? &rows[e] : &rows[ERR_INTERNAL];
}

static const str *param(const Failure *f, str key) {
    for (int i = 0; i < FAILURE_PARAMS && f->key[i]; i++)
        if (str_is(key, f->key[i])) return &f->val[i];
    return NULL;
}

str failure_param(const Failure *f, const char *key) {
    const str *val = param(f, str_z(key));
    return val ? *val : (str){ 0 };
}

void failure_format(const Failure *f, const char *lang, Buf *out) {
    if (!f->why) {
        buf_add(out, str_z(err_row(f->code)->slug));
        return;
    }
    str rest = str_z(lang && !strcmp(lang, "zh") ? f->why->zh : f->why->en), text;
    while (str_cut(&rest, '{', &text)) {
        buf_add(out, text);
        if (!rest.p) break;
        ptrdiff_t end = str_find_char(rest, '}');
        const str *val = end < 0 ? NULL : param(f, str_sub(rest, 0, (size_t)end));
        if (val) {
            buf_add(out, *val);
            rest = str_sub(rest, (size_t)end + 1, rest.n);
        } else buf_add_char(out, '{'); // a brace that names no parameter stays as it is
    }
}
