// SPDX-License-Identifier: Apache-2.0
// upgrade.h - what a start does around migrations: the schema's release is looked at before any
// table is, a copy of the database is taken before the first change, and the release is noted when
// all is done. The rules of releases, and the way back: src/db/README.md.
// Threads: the one that starts the server.
#ifndef LATHE_RES_UPGRADE_H
#define LATHE_RES_UPGRADE_H
#include "res/app.h"

// One more with each release whose migrations change what is stored. Release n runs on the schema
// of n + 1; so a migration may take away only what release n - 1 used last.
enum { SCHEMA_RELEASE = 1 };
// After the database is open, before the first migration. ERR_CONFLICT: its schema is too new;
// ERR_FULL: no room for the copy.
err upgrade_begin(Ctx *c);
err upgrade_end(Ctx *c);
#endif
