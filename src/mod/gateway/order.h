// SPDX-License-Identifier: Apache-2.0
// order.h - private to the gateway: a route's targets in the order in which a request asks them
// (order.c). Threads: any, one at a time for each flow.
#ifndef LATHE_MOD_GATEWAY_ORDER_H
#define LATHE_MOD_GATEWAY_ORDER_H
#include "mod/gateway/flow.h"

// The request's own chance: its attempts, and whoever asks why, find it again.
uint64_t order_dice(const Flow *f);
void order_plan(Flow *f); // its plan, by its route's strategy
#endif
