// SPDX-License-Identifier: Apache-2.0
// addr.c - addresses as text, checked and in one spelling. Names are resolved by each machine.
// Threads: any.
#include "os/stream_impl.h"
#include <arpa/inet.h>
#include <assert.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/un.h>

static bool parse_port(str text, int *out) {
    int64_t port = 0;
    if (text.n > 5 || !str_to_i64(text, &port) || port < 0 || port > 65535) return false;
    *out = (int)port;
    return text.p[0] != '+' && text.p[0] != '-';
}

static bool parse_unix(str path, struct sockaddr_un *out) {
    if (path.n == 0 || path.n >= sizeof out->sun_path || memchr(path.p, 0, path.n)) return false;
    *out = (struct sockaddr_un){ .sun_family = AF_UNIX };
    memcpy(out->sun_path, path.p, path.n);
    return true;
}

static bool parse_host(str host, int port, struct sockaddr_storage *out) {
    char text[INET6_ADDRSTRLEN];
    bool six = str_starts(host, S("[")) && str_ends(host, S("]")) && host.n > 2;
    if (six) host = str_sub(host, 1, host.n - 2);
    if (host.n == 0 || host.n >= sizeof text) return false;
    memcpy(text, host.p, host.n);
    text[host.n] = 0;
    *out = (struct sockaddr_storage){ 0 };
    if (six) {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons((uint16_t)port);
        return inet_pton(AF_INET6, text, &in6->sin6_addr) == 1;
    }
    struct sockaddr_in *in = (struct sockaddr_in *)out;
    in->sin_family = AF_INET;
    in->sin_port = htons((uint16_t)port);
    return inet_pton(AF_INET, text, &in->sin_addr) == 1;
}

static bool parse(str text, struct sockaddr_storage *out) {
    if (str_starts(text, S("unix:"))) {
        *out = (struct sockaddr_storage){ 0 };
        return parse_unix(str_sub(text, 5, text.n), (struct sockaddr_un *)out);
    }
    size_t colon = text.n;
    while (colon && text.p[colon - 1] != ':') colon--;
    int port = 0;
    if (!colon || colon == text.n || !parse_port(str_sub(text, colon, text.n), &port)) return false;
    return parse_host(str_sub(text, 0, colon - 1), port, out);
}

err addr_parse(Ctx *c, str text, Addr *out) {
    struct sockaddr_storage a;
    if (text.n >= sizeof out->text || !parse(text, &a))
        return fail(c, ERR_INVALID, R_ADDRESS, "address", say_str(c, text));
    addr_from_sockaddr(&a, out);
    return ERR_OK;
}

bool addr_to_sockaddr(const Addr *a, struct sockaddr_storage *out, socklen_t *out_n) {
    if (!parse(str_z(a->text), out)) return false;
    *out_n = out->ss_family == AF_UNIX    ? (socklen_t)sizeof(struct sockaddr_un)
             : out->ss_family == AF_INET6 ? (socklen_t)sizeof(struct sockaddr_in6)
                                          : (socklen_t)sizeof(struct sockaddr_in);
    return true;
}

// An IPv4 peer of a socket that listens on [::] is written as the IPv4 address that it is.
void addr_from_sockaddr(const struct sockaddr_storage *from, Addr *out) {
    char host[INET6_ADDRSTRLEN] = "";
    if (from->ss_family == AF_UNIX) {
        const struct sockaddr_un *un = (const struct sockaddr_un *)from;
        snprintf(out->text, sizeof out->text, "unix:%.*s", (int)sizeof un->sun_path, un->sun_path);
        return;
    }
    if (from->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)from;
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
        snprintf(out->text, sizeof out->text, "%s:%d", host, ntohs(in->sin_port));
        return;
    }
    assert(from->ss_family == AF_INET6);
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)from;
    bool four = IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr);
    if (four) inet_ntop(AF_INET, &in6->sin6_addr.s6_addr[12], host, sizeof host);
    else inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof host);
    snprintf(out->text, sizeof out->text, four ? "%s:%d" : "[%s]:%d", host, ntohs(in6->sin6_port));
}

// RFC 6890 and its successors: everything that is not unicast on the public internet.
static bool private_four(const uint8_t b[4]) {
    static const struct {
        uint8_t net[4];
        int bits;
    } blocks[] = {
        { { 0, 0, 0, 0 }, 8 },     { { 10, 0, 0, 0 }, 8 },      { { 100, 64, 0, 0 }, 10 },
        { { 127, 0, 0, 0 }, 8 },   { { 169, 254, 0, 0 }, 16 },  { { 172, 16, 0, 0 }, 12 },
        { { 192, 0, 0, 0 }, 24 },  { { 192, 0, 2, 0 }, 24 },    { { 192, 168, 0, 0 }, 16 },
        { { 198, 18, 0, 0 }, 15 }, { { 198, 51, 100, 0 }, 24 }, { { 203, 0, 113, 0 }, 24 },
        { { 224, 0, 0, 0 }, 4 },   { { 240, 0, 0, 0 }, 4 },
    };
    uint32_t a = (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
    for (size_t i = 0; i < countof(blocks); i++) {
        const uint8_t *n = blocks[i].net;
        uint32_t net = (uint32_t)n[0] << 24 | (uint32_t)n[1] << 16 | (uint32_t)n[2] << 8 | n[3];
        if ((a ^ net) >> (32 - blocks[i].bits) == 0) return true;
    }
    return false;
}

static bool private_six(const uint8_t b[16]) {
    static const uint8_t zeros[12], nat64[12] = { 0, 0x64, 0xff, 0x9b };
    static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };
    if (!memcmp(b, zeros, 12)) return true; // ::, ::1 and the old compatible form
    if (!memcmp(b, mapped, 12) || !memcmp(b, nat64, 12)) return private_four(b + 12);
    if (b[0] == 0x20 && b[1] == 0x02) return private_four(b + 2); // 6to4
    return (b[0] & 0xe0) != 0x20;                                 // global unicast is 2000::/3
}

bool addr_is_private(const Addr *a) {
    struct sockaddr_storage s;
    socklen_t n;
    if (!addr_to_sockaddr(a, &s, &n)) return true;
    if (s.ss_family == AF_INET) {
        uint8_t b[4];
        memcpy(b, &((struct sockaddr_in *)&s)->sin_addr, sizeof b);
        return private_four(b);
    }
    if (s.ss_family == AF_INET6) return private_six(((struct sockaddr_in6 *)&s)->sin6_addr.s6_addr);
    return true;
}

// A colon more than a port's: an IPv6 address without brackets.
static bool bare_six(str text) {
    ptrdiff_t colon = str_find_char(text, ':');
    bool more = colon >= 0 && str_find_char(str_sub(text, (size_t)colon + 1, text.n), ':') >= 0;
    return more && text.p[0] != '[';
}

bool addr_ip(str text, uint8_t at[16], Addr *out) {
    static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };
    char with_port[INET6_ADDRSTRLEN + 16];
    struct sockaddr_storage s;
    if (!text.n || text.n > INET6_ADDRSTRLEN + 8 || memchr(text.p, 0, text.n)) return false;
    if (str_starts(text, S("unix:"))) return false;
    bool bare = bare_six(text), port = !bare && text.p[text.n - 1] != ']';
    port = port && str_find_char(text, ':') >= 0;
    snprintf(with_port, sizeof with_port, "%s" STR_FMT "%s%s", bare ? "[" : "", STR_ARG(text),
             bare ? "]" : "", port ? "" : ":0");
    if (!parse(str_z(with_port), &s)) return false;
    if (s.ss_family == AF_INET6) memcpy(at, &((struct sockaddr_in6 *)&s)->sin6_addr, 16);
    else memcpy(at, mapped, 12), memcpy(at + 12, &((struct sockaddr_in *)&s)->sin_addr, 4);
    if (out) addr_from_sockaddr(&s, out);
    return true;
}

err addr_resolve(Ctx *c, str host, int port, Addr *out, size_t max, size_t *out_n) {
    assert(port >= 0 && port <= 65535 && max > 0);
    if (!host.n || host.n > 253 || memchr(host.p, 0, host.n))
        return fail(c, ERR_INVALID, R_ADDRESS, "address", say_str(c, host));
    return c->os->ops->resolve(c, host, port, out, max, out_n);
}
