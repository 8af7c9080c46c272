// SPDX-License-Identifier: Apache-2.0
// identity.c - permissions: "<plural>.<verb>" with a star for either part.
#include "res/identity.h"

static const str everything[] = { { "*", 1 } };
const Identity identity_system = { .kind = WHO_SYSTEM,
                                   .id = { "system", 6 },
                                   .name = { "system", 6 },
                                   .permissions = everything,
                                   .permissions_n = 1 };

bool permission_covers(str granted, str wanted) {
    if (str_is(granted, "*") || str_eq(granted, wanted)) return true;
    ptrdiff_t dot = str_find_char(granted, '.'), at = str_find_char(wanted, '.');
    if (dot < 0 || at < 0) return false;
    str kind = str_sub(granted, 0, (size_t)dot),
        verb = str_sub(granted, (size_t)dot + 1, granted.n);
    bool kind_fits = str_is(kind, "*") || str_eq(kind, str_sub(wanted, 0, (size_t)at));
    bool verb_fits = str_is(verb, "*") || str_eq(verb, str_sub(wanted, (size_t)at + 1, wanted.n));
    return kind_fits && verb_fits;
}

bool identity_may(const Identity *who, str permission) {
    for (size_t i = 0; who && i < who->permissions_n; i++)
        if (permission_covers(who->permissions[i], permission)) return true;
    return false;
}
