// SPDX-License-Identifier: Apache-2.0
// node_claim.h - private to res: a node's name is one server's at a time. Threads: the main one.
#ifndef LATHE_RES_NODE_CLAIM_H
#define LATHE_RES_NODE_CLAIM_H
#include "res/app.h"

// Before anything acts under the node's name. Where others may share the database: ERR_CONFLICT
// with R_NODE_TAKEN while another server uses the name there. A database that is away is asked
// later, and a conflict that shows then is told in the log.
err node_claim(Ctx *c);
void node_claim_end(App *app); // nothing acts under it any more; without a claim it is fine
#endif
