// SPDX-License-Identifier: Apache-2.0
// openapi_impl.h - private to openapi*.c: what is gathered before it is written.
#ifndef LATHE_RES_OPENAPI_IMPL_H
#define LATHE_RES_OPENAPI_IMPL_H
#include "res/openapi.h"
#include "res/table.h"

typedef enum { OP_LIST, OP_CREATE, OP_GET, OP_PATCH, OP_DELETE, OP_ACTION, OP_ROUTE } OpKind;
typedef struct Operation {
    OpKind kind;
    HttpMethod method;
    str path; // without '*'
    const Module *module;
    const ResTable *table; // of the derived ones
    const Action *action;
    const Route *route; // of OP_ROUTE
    bool done;
} Operation;
typedef struct Writer {
    Arena *mem;
    Json *j;
    const Module *const *mods;
    Operation *at;
    size_t n, room;
} Writer;

// openapi_part.c: members of an operation, and the document's components
void openapi_parameters(Writer *w, const Operation *op, str path);
void openapi_body(Writer *w, const Operation *op);
void openapi_answers(Writer *w, const Operation *op);
void openapi_components(Writer *w);
bool openapi_in_project(const Operation *op);
str openapi_camel(Arena *a, const char *name); // "model_version" is ModelVersion
void openapi_describe(Json *j, const char *key, const char *en, const char *zh);
#endif
