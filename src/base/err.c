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

static int param(const Failure *f, str key) {
    for (int i = 0; i < FAILURE_PARAMS && f->key[i]; i++)
        if (str_is(key, f->key[i])) return i;
    return -1;
}

str failure_param(const Failure *f, const char *key) {
    int i = param(f, str_z(key));
    return i < 0 ? (str){ 0 } : f->val[i];
}

void failure_format(const Failure *f, const char *lang, Buf *out) {
    if (!f->why) {
        buf_add(out, str_z(err_row(f->code)->slug));
        return;
    }
    bool zh = lang && !strcmp(lang, "zh");
    str rest = str_z(zh ? f->why->zh : f->why->en), text;
    while (str_cut(&rest, '{', &text)) {
        buf_add(out, text);
        if (!rest.p) break;
        ptrdiff_t end = str_find_char(rest, '}');
        int i = end < 0 ? -1 : param(f, str_sub(rest, 0, (size_t)end));
        if (i >= 0) {
            buf_add(out, zh ? word_in_chinese(f->key[i], f->val[i]) : f->val[i]);
            rest = str_sub(rest, (size_t)end + 1, rest.n);
        } else buf_add_char(out, '{'); // a brace that names no parameter stays as it is
    }
}
