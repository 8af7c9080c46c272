// SPDX-License-Identifier: Apache-2.0
// access_flood_test.c - who is counted as one when wrong keys come in numbers.
#include "base/test.h"
#include "mod/access/access_own.h"
#include <arpa/inet.h>
#include <stdio.h>

TEST(access_flood_counts_by_address) {
    static const struct {
        const char *peer, *source;
    } rows[] = {
        { "192.0.2.7:40000", "192.0.2.7" },
        { "[2001:db8::1]:40000", "2001:db8:0:0::/64" },
        { "[2001:db8:1:2:3:4:5:6]:1", "2001:db8:1:2::/64" },
        { "[::1]:1", "0:0:0:0::/64" },
        { "[1::]:1", "1:0:0:0::/64" },
        { "[::]:1", "0:0:0:0::/64" },
        { "unix:/run/lathe.sock", "unix" },
        { "", "" },
        { "[", "[" },
    };
    Ctx *c = test_ctx();
    for (size_t i = 0; i < countof(rows); i++)
        CHECK_STR(flood_source(c, str_z(rows[i].peer)), rows[i].source);
}

// In whatever way an address is shortened, its first 64 bits tell.
TEST(access_flood_network_is_the_first_half) {
    Ctx *c = test_ctx();
    for (int i = 0; i < 2000; i++) {
        uint8_t b[16];
        char host[INET6_ADDRSTRLEN], want[80];
        uint64_t dice = test_random(), zeros = test_random();
        for (int k = 0; k < 16; k++) b[k] = zeros >> k & 1 ? 0 : (uint8_t)(dice >> k * 3);
        b[0] = 0x20; // not an IPv4 address in disguise
        CHECK(inet_ntop(AF_INET6, b, host, sizeof host));
        snprintf(want, sizeof want, "%x:%x:%x:%x::/64", b[0] << 8 | b[1], b[2] << 8 | b[3],
                 b[4] << 8 | b[5], b[6] << 8 | b[7]);
        CHECK_STR(flood_source(c, str_z(say(c, "[%s]:443", host))), want);
    }
}
