// SPDX-License-Identifier: Apache-2.0
// proxies.h - whose word about a client's address is taken. A proxy that is trusted adds, behind
// what X-Forwarded-For said already, whom it was asked by; so the client is the last address there
// that no trusted proxy has, and whatever stands before it was written by strangers.
// Owner: whoever parsed it. Threads: any.
#ifndef LATHE_NET_PROXIES_H
#define LATHE_NET_PROXIES_H
#include "net/request.h"

enum { PROXIES_MAX = 64 };
typedef struct Proxies {
    struct Network {
        uint8_t at[16]; // IPv4 as ::ffff:a.b.c.d
        int bits;
    } nets[PROXIES_MAX];
    size_t n;
    bool sockets; // whoever comes by a unix socket
} Proxies;
// "127.0.0.1, 10.0.0.0/8, 2001:db8::/32, unix" (CIDR: RFC 4632, RFC 4291 2.3). False: not so.
bool proxies_parse(str list, Proxies *out);
bool proxies_form(str list); // for a setting's row
// The address of the request's client, "HOST:PORT" (port 0 where nobody says): r->peer's own, or,
// where that is a trusted proxy's, as it was forwarded. In mem.
str proxies_client(const Proxies *p, Arena *mem, const HttpRequest *r);
#endif
