// SPDX-License-Identifier: Apache-2.0
// router.h - private to net: rows compiled into a trie of path segments.
// Owner: router_free. Threads: read-only after router_new.
#ifndef LATHE_NET_ROUTER_H
#define LATHE_NET_ROUTER_H
#include "net/server.h"
#include "net/target.h"

typedef struct Router Router;
err router_new(Ctx *c, const NetRoute *const rows[], size_t n, Router **out);
Router *router_free(Router *r); // NULL is fine; returns NULL
// The row for a path and a method, with r->params filled; NULL when there is none: then
// *out_allowed has a bit 1u << method for each method possible there, 0 when the path leads
// nowhere. At most one visit a trie node: no path costs more than the table is large.
const NetRoute *router_find(const Router *router, Arena *a, const Target *t, HttpRequest *r,
                            unsigned *out_allowed);
#endif
