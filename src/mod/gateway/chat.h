// SPDX-License-Identifier: Apache-2.0
// chat.h - private to gateway: `lathe chat`.
#ifndef LATHE_MOD_GATEWAY_CHAT_H
#define LATHE_MOD_GATEWAY_CHAT_H
#include "res/module.h"

extern const CliVerb gateway_verbs[];
#endif
