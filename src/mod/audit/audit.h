// SPDX-License-Identifier: Apache-2.0
// audit.h - the module as src/modules.def names it; what it fills for others is in res/app.h.
#ifndef LATHE_MOD_AUDIT_H
#define LATHE_MOD_AUDIT_H
#include "res/module.h"

extern const Module audit_module;
#endif
