// SPDX-License-Identifier: Apache-2.0
// proxies.c - see proxies.h.
#include "net/proxies.h"
#include "os/stream.h"

enum { HOPS_MAX = 32 };

static bool network_parse(str text, struct Network *out) {
    str host;
    int64_t bits = 128;
    bool four = str_find_char(text, ':') < 0, cut = str_find_char(text, '/') >= 0;
    str rest = text;
    if (!str_cut(&rest, '/', &host) || !addr_ip(host, out->at, NULL)) return false;
    if (cut && (!str_to_i64(rest, &bits) || bits < 0 || bits > (four ? 32 : 128))) return false;
    out->bits = (int)bits + (four && cut ? 96 : 0);
    return true;
}

bool proxies_parse(str list, Proxies *out) {
    str one;
    *out = (Proxies){ 0 };
    if (!list.n) return true;
    while (str_cut(&list, ',', &one)) {
        one = str_trim(one);
        if (str_is(one, "unix")) out->sockets = true;
        else if (out->n == PROXIES_MAX || !network_parse(one, &out->nets[out->n])) return false;
        else out->n++;
    }
    return true;
}

bool proxies_form(str list) {
    Proxies p;
    return proxies_parse(list, &p);
}

static bool within(const struct Network *n, const uint8_t at[16]) {
    size_t whole = (size_t)n->bits / 8;
    if (memcmp(n->at, at, whole)) return false;
    int left = n->bits % 8;
    return !left || (n->at[whole] ^ at[whole]) >> (8 - left) == 0;
}

static bool trusted(const Proxies *p, str address) {
    uint8_t at[16];
    if (str_starts(address, S("unix:"))) return p->sockets;
    if (!addr_ip(address, at, NULL)) return false;
    for (size_t i = 0; i < p->n; i++)
        if (within(&p->nets[i], at)) return true;
    return false;
}

// The last HOPS_MAX of what was forwarded, in order, over all headers of the name.
static size_t hops_of(const HttpRequest *r, str out[HOPS_MAX]) {
    size_t n = 0;
    for (size_t i = 0; i < r->headers_n; i++) {
        str rest = r->headers[i].value, one;
        if (!str_ieq(r->headers[i].name, S("X-Forwarded-For"))) continue;
        while (rest.n && str_cut(&rest, ',', &one)) {
            if (n == HOPS_MAX) memmove(out, out + 1, --n * sizeof *out);
            out[n++] = str_trim(one);
        }
    }
    return n;
}

str proxies_client(const Proxies *p, Arena *mem, const HttpRequest *r) {
    str hops[HOPS_MAX], client = r->peer;
    if ((!p->n && !p->sockets) || !trusted(p, client)) return client;
    for (size_t n = hops_of(r, hops); n--;) {
        uint8_t at[16];
        Addr addr;
        if (!addr_ip(hops[n], at, &addr)) break; // "unknown", or nonsense: as far as it is known
        client = arena_str(mem, str_z(addr.text));
        if (!trusted(p, client)) break;
    }
    return client;
}
