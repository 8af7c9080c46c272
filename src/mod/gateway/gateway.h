// SPDX-License-Identifier: Apache-2.0
// gateway.h - inference in OpenAI's dialect: /v1/models, /v1/chat/completions, /v1/completions,
// /v1/embeddings, each request walked through the table of stages in gateway_table.c.
#ifndef LATHE_MOD_GATEWAY_H
#define LATHE_MOD_GATEWAY_H
#include "res/module.h"

extern const Module gateway_module;
#endif
