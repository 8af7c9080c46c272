// SPDX-License-Identifier: Apache-2.0
// schema.h - the rows themselves as JSON, for the console and the command line, which draw forms,
// tables and flags from them: served at /lathe/v1/schema.
// Threads: any; tables_init must have seen the same modules.
#ifndef LATHE_RES_SCHEMA_H
#define LATHE_RES_SCHEMA_H
#include "res/module.h"

// One whole document as a value; its writer checks j->out->full.
void schema_write(const Module *const mods[], Json *j);
#endif
