// SPDX-License-Identifier: Apache-2.0
// field_impl.h - private to field*.c: the place of a value in its document, and a value's own
// checks.
#ifndef LATHE_RES_FIELD_IMPL_H
#define LATHE_RES_FIELD_IMPL_H
#include "res/field.h"
#include "res/resource.h"

// A place, innermost first; text is made only when a failure needs it. name NULL: an index.
typedef struct Place {
    const struct Place *up;
    const char *name;
    size_t index;
} Place;
const char *place_text(Ctx *c, const Place *p); // "targets[1].weight"; "" is "body"

enum { TEXT_MAX = 4096, JSON_FIELD_MAX = 65536, LIST_ITEMS_MAX = 1000, REF_MAX = 400 };
int64_t field_min(const Field *f);
int64_t field_max(const Field *f);
bool field_unset(const Field *f, const void *base);
err field_limits(Ctx *c, const Field *f, const void *base,
                 const Place *at); // of a value that is set
const Field *union_rows(const Union *u,
                        const void *base); // rows of the case that is chosen; NULL: none
size_t *field_count(const Field *f, const void *base); // LIST
const char *const *enum_names(const Field *f);
int enum_index(const Field *f, str name); // -1: none
#endif
