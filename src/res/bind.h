// SPDX-License-Identifier: Apache-2.0
// bind.h - private to res: rows bound to net's routes. Every route of the program passes enter
// (who, which project, may they), its handler, and on failure refuse (the error in the dialect of
// its path).
#ifndef LATHE_RES_BIND_H
#define LATHE_RES_BIND_H
#include "res/table.h"

typedef enum {
    BIND_LIST,
    BIND_CREATE,
    BIND_GET,
    BIND_PATCH,
    BIND_DELETE,
    BIND_ACTION,
    BIND_ROUTE
} BindKind;
typedef struct Binding {
    NetRoute net; // first member: a NetRoute is its Binding
    BindKind kind;
    const ResTable *table; // not for BIND_ROUTE
    const Action *action;
    const Route *route;
    const char *permission;
    Scope scope; // where it acts: a key of a narrower place may not
    bool open;   // no permission asked: public, or for any identity
} Binding;
static inline const Binding *binding_of(const NetRoute *n) { return (const Binding *)n; }

// All routes of the modules and their resources, twice where a project may be named in the path.
// Lives as long as the program.
err bindings_build(Ctx *c, const Module *const mods[], const NetRoute *const **out, size_t *out_n);
const NetRoute *const *bindings_now(size_t *out_n); // those built last
void bindings_hooks(ServerConfig *config);          // enter, refuse, left
bool path_is_foreign(str path);                     // /v1/… below an optional /p/{project}
// Every parameter of a query is a row, and within its limits. Their types are scalars.
err query_check(Ctx *c, const Field *rows, const HttpRequest *r);

err crud_list(Ctx *c, const NetRoute *n, const HttpRequest *r, const HttpBody *body,
              HttpReply *out);
err crud_create(Ctx *c, const NetRoute *n, const HttpRequest *r, const HttpBody *body,
                HttpReply *out);
err crud_get(Ctx *c, const NetRoute *n, const HttpRequest *r, const HttpBody *body, HttpReply *out);
err crud_patch(Ctx *c, const NetRoute *n, const HttpRequest *r, const HttpBody *body,
               HttpReply *out);
err crud_delete(Ctx *c, const NetRoute *n, const HttpRequest *r, const HttpBody *body,
                HttpReply *out);
err crud_action(Ctx *c, const NetRoute *n, const HttpRequest *r, const HttpBody *body,
                HttpReply *out);
#endif
