// SPDX-License-Identifier: Apache-2.0
// modules.c - the modules of this program, in start order.
#include "res/collect.h"
#include "res/kit.h"
#include "res/serve_tls.h"

#define MODULE(name) extern const Module name##_module;
#include "modules.def"
#undef MODULE
const Module *const lathe_modules[] = {
    &kit_module, &job_module, &event_module, &blob_module, &tls_module,
#define MODULE(name) &name##_module,
#include "modules.def"
#undef MODULE
    NULL,
};
