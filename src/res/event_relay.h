// SPDX-License-Identifier: Apache-2.0
// event_relay.h - for who runs the program: the relay that numbers staged events and sends them to
// readers, and the rows of its route, settings and metrics.
// Owner: each App has one relay, between start and stop. Threads: said at each.
#ifndef LATHE_RES_EVENT_RELAY_H
#define LATHE_RES_EVENT_RELAY_H
#include "res/app.h"

// After event_migrations and lease_migrate ran; app->db, node, loops and pool are there. Before or
// while its loops run; on the first loop's thread, or while none runs.
err event_start(Ctx *c, App *app);
// Any thread: ends every reader with an event "closed" and refuses new ones, so that the server can
// drain. Staged events are numbered on.
void event_drain(App *app);
// After its loops stopped and before they are freed. Not started: nothing.
void event_stop(App *app);

extern const Setting event_settings[];
extern const Route event_routes[];
extern const Metric *const event_metrics[];
#endif
