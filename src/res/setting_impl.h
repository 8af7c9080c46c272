// SPDX-License-Identifier: Apache-2.0
// setting_impl.h - private to setting*.c: a YAML file as flat names.
#ifndef LATHE_RES_SETTING_IMPL_H
#define LATHE_RES_SETTING_IMPL_H
#include "res/setting.h"

typedef enum { SETTING_LINE_VALUE, SETTING_LINE_NULL, SETTING_LINE_GROUP } SettingLineKind;
typedef struct SettingLine { // "serve.listen", whether it stood in a group or not
    str name, value;
    int line;
    SettingLineKind kind;
} SettingLine;
enum { SETTING_DEPTH_MAX = 8 };

// Calls each for every scalar and at the start of every group, in order; its text lives in c->mem.
// Lists, aliases and further documents are refused: R_SETTING_FILE with path and line.
err setting_file_read(Ctx *c, str path, err (*each)(Ctx *c, const SettingLine *line, void *arg),
                      void *arg);
err setting_file_fail(Ctx *c, str path, int line, const char *why);
#endif
