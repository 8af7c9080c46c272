// SPDX-License-Identifier: Apache-2.0
// backup.h - backups of a running server, and a new server out of one. The format: README.md.
#ifndef LATHE_MOD_BACKUP_H
#define LATHE_MOD_BACKUP_H
#include "res/module.h"

extern const Module backup_module;
#endif
