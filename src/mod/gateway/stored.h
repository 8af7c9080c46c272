// SPDX-License-Identifier: Apache-2.0
// stored.h - private to the gateway: conversations of /v1/responses that are kept (stored.c).
// Threads: the exchange's loop.
#ifndef LATHE_MOD_GATEWAY_STORED_H
#define LATHE_MOD_GATEWAY_STORED_H
#include "mod/gateway/flow.h"

err stored_parse(Flow *f); // what of a body is to be kept, and what it goes on from
Verdict stage_recall(Flow *f);
void stage_recall_cancel(Flow *f);
Verdict stage_keep(Flow *f);
void stage_keep_cancel(Flow *f);
#endif
