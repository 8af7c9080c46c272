// SPDX-License-Identifier: Apache-2.0
// line.h - who may use a replica now: slots of each deployment and the fair queue before them:
// round robin over projects, within a project over keys, within a key first come first served. One
// Line a deployment, shared by all loops under its own lock. Owner of a Ticket: the flow until
// line_leave, or until its turn came and line_done gave the slot back.
#ifndef LATHE_MOD_GATEWAY_LINE_H
#define LATHE_MOD_GATEWAY_LINE_H
#include "mod/deployment/deployment.h"

typedef struct Line Line;
typedef struct Ticket Ticket;
typedef enum {
    LINE_GO,
    LINE_WAIT,
    LINE_FULL,
    LINE_NONE
} LineAnswer; // NONE: no replica could ever serve it as things are

typedef struct LineCall { // how a turn reaches its flow
    Loop *loop;
    void (*turn)(void *arg); // on loop, once, unless line_leave came first
    void *arg;
    str project, key;
} LineCall;
// GO: the ticket holds a slot of its replica. WAIT: turn() comes. FULL and NONE: no ticket.
LineAnswer line_join(const DeploymentEntry *d, const LineCall *call, Ticket **out);
void line_leave(Ticket *t); // waiting or holding: gives everything back; the ticket is gone
void line_done(Ticket *t,
               int64_t service_ms); // served: the slot goes to the next one; the ticket is gone
// Holding a slot of a replica that failed: asks for one of another. GO: it holds one. WAIT: turn()
// comes; it stands first of its key, for it has waited before, and even where as many wait as may:
// never more than there are slots wait so. NONE: it holds none. line_leave ends it in any case.
LineAnswer line_other(Ticket *t);
void line_look(Ticket *t); // now and then while one waits: a replica that failed may be tried again
str ticket_replica(const Ticket *t);      // id; of a holder
int64_t ticket_position(const Ticket *t); // 1: next. An estimate while others come and go
int64_t line_retry_after_ms(
    const DeploymentEntry *d);    // from what a request takes on average and how many wait
typedef struct LineFigures { // failed: of the ready replicas, those that get nothing for a second
    int64_t ready, failed, free, running, waiting;
} LineFigures;
// What line_join would answer now, and from what. Any thread.
LineAnswer line_ask(const DeploymentEntry *d, int64_t now_ns, LineFigures *out);
void lines_refresh(void *unused); // replicas changed: on snapshot swaps
typedef struct LineView {
    str deployment;
    int64_t waiting, running;
} LineView;
size_t lines_view(Ctx *c, LineView **out); // for metrics
#endif
