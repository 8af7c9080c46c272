// SPDX-License-Identifier: Apache-2.0
// http.h - the HTTP/1.1 server (RFC 9110, 9112): parsing (llhttp), routing by rows, bodies streamed
// with back-pressure, held in memory or spooled, replies, ranges, ETags, SSE, draining. It knows no
// feature: what a route means is its owner's. This header is enough for the author of a handler:
//   request.h   what the client asked for
//   reply.h     blocking handlers, on a pool thread
//   exchange.h  streaming handlers, on the loop
//   server.h    route rows and the server
// Owner and threads: said in each.
#ifndef LATHE_NET_HTTP_H
#define LATHE_NET_HTTP_H
#include "base/json.h"
#include "net/exchange.h"
#include "net/reply.h"
#include "net/request.h"
#include "net/server.h"
#endif
