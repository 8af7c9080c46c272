// SPDX-License-Identifier: Apache-2.0
// openapi.h - the rows as OpenAPI 3.1 (OpenAPI Initiative, 3.1.1; JSON Schema 2020-12): every
// derived and every hand-written route, with parameters, bodies, answers, errors, limits and
// permissions.
// Threads: any; tables_init must have seen the same modules.
#ifndef LATHE_RES_OPENAPI_H
#define LATHE_RES_OPENAPI_H
#include "res/module.h"

// One whole document as a value; its writer checks j->out->full.
void openapi_write(const Module *const mods[], Json *j);
// The same, written once: anybody may ask for it. It lives as long as the program.
str openapi_text(const Module *const mods[]);

// What a schema is for: the same rows differ in which members may, must and will be there.
typedef enum {
    SCHEMA_SHOW,    // answers: every member, unset ones null
    SCHEMA_CHANGED, // answers to changes too: `warnings` (advice.h) may stand beside them
    SCHEMA_CREATE,  // bodies that make something: no STATUS, REQUIRED ones required
    SCHEMA_PATCH,   // merge patches: nothing required, null unsets
    SCHEMA_PARAM,   // one scalar of a query
} SchemaUse;
// The JSON Schema of one field's value, as a value; documentation included.
void field_schema(const Field *f, Json *j, SchemaUse use);
// The JSON Schema of an object with these members.
void fields_schema(const Field *rows, Json *j, SchemaUse use);
#endif
