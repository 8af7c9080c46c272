// SPDX-License-Identifier: Apache-2.0
// revision.h - what objects were: each change of one whose resource has RES_HISTORY leaves a
// revision, which says what was changed and can be brought back. It fills App.history; nothing is
// called by others.
#ifndef LATHE_MOD_REVISION_H
#define LATHE_MOD_REVISION_H
#include "res/module.h"

extern const Module revision_module;
#endif
