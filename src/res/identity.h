// SPDX-License-Identifier: Apache-2.0
// identity.h - who acts, and what they may do. Filled by the access module; read by everyone. Lives
// as long as the call.
#ifndef LATHE_RES_IDENTITY_H
#define LATHE_RES_IDENTITY_H
#include "base/ctx.h"

typedef enum { WHO_NOBODY, WHO_USER, WHO_SERVICE, WHO_SYSTEM } WhoKind;
typedef struct Identity {
    WhoKind kind;
    str id, name;           // user_…, sa_…, or "system"
    str key_id;             // the API key used; absent: none
    str org, project;       // where the key belongs; absent project: an administrator's key
    const str *permissions; // "models.read", "models.*", "*.read", "*"
    size_t permissions_n;
} Identity;
bool identity_may(const Identity *who, str permission);
bool permission_covers(str granted, str wanted); // with the wildcards above
// Whether any route of this program asks for what it covers: else it is a slip.
bool permission_exists(str granted);
extern const Identity identity_system;           // reconcilers, jobs, start-up: may everything
#endif
