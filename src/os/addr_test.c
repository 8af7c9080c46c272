// SPDX-License-Identifier: Apache-2.0
// addr_test.c - addresses: one spelling, strict syntax, and what is not the public internet.
#include "base/test.h"
#include "os/stream.h"

TEST(os_addr_one_spelling) {
    static const char *const rows[][2] = {
        { "127.0.0.1:80", "127.0.0.1:80" },
        { "0.0.0.0:0", "0.0.0.0:0" },
        { "[::1]:443", "[::1]:443" },
        { "[0:0:0:0:0:0:0:1]:443", "[::1]:443" },
        { "[2001:DB8::1]:65535", "[2001:db8::1]:65535" },
        { "[::ffff:10.0.0.1]:1", "10.0.0.1:1" },
        { "unix:/run/x.sock", "unix:/run/x.sock" },
        { "unix:rel.sock", "unix:rel.sock" },
    };
    Ctx *c = test_ctx();
    for (size_t i = 0; i < countof(rows); i++) {
        Addr a;
        CHECK_OK(c, addr_parse(c, str_z(rows[i][0]), &a));
        CHECK_STR(str_z(a.text), rows[i][1]);
    }
}

TEST(os_addr_refuses) {
    static const char *const rows[] = {
        "",
        "80",
        ":80",
        "localhost:80",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:65536",
        "1.2.3:80",
        "127.0.0.1:-1",
        "127.0.0.1:+1",
        "127.0.0.1: 1",
        "127.0.0.1:80x",
        "::1:80",
        "[::1]",
        "[]:80",
        "[::1:80",
        "[fe80::1%lo]:80",
        "256.0.0.1:80",
        "unix:",
        "01.2.3.4:5",
    };
    Ctx *c = test_ctx();
    Addr a;
    for (size_t i = 0; i < countof(rows); i++) {
        err e = addr_parse(c, str_z(rows[i]), &a);
        if (e != ERR_INVALID) test_failed(__FILE__, __LINE__, "accepted %s", rows[i]);
    }
    CHECK(c->failure.why == &R_ADDRESS);
    char path[130];
    memset(path, 'p', sizeof path);
    memcpy(path, "unix:", 5);
    CHECK_ERR(addr_parse(c, str_n(path, 5 + 108), &a), ERR_INVALID); // sun_path has 108 with NUL
    CHECK_OK(c, addr_parse(c, str_n(path, 5 + 107), &a));
    CHECK_ERR(addr_parse(c, S("unix:a\0b"), &a), ERR_INVALID);
}

TEST(os_addr_ip_with_a_port_or_without) {
    static const char *const rows[][2] = {
        { "10.0.0.1", "10.0.0.1:0" },      { "10.0.0.1:80", "10.0.0.1:80" },
        { "::1", "[::1]:0" },              { "[::1]", "[::1]:0" },
        { "[::1]:80", "[::1]:80" },        { "::ffff:10.0.0.1", "10.0.0.1:0" },
        { "2001:DB8::1", "[2001:db8::1]:0" },
    };
    static const char *const none[] = { "",        "unknown",  "unix:/a", "10.0.0.1:",     "10.0.0",
                                        "[::1",    "::1]",     ":80",     "_hidden",       "[::1]:",
                                        "1.2.3.4 ", "1:2:3:4:5:6:7:8:9", "10.0.0.1:80:90" };
    uint8_t at[16], four[16] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1 };
    Addr a;
    for (size_t i = 0; i < countof(rows); i++) {
        CHECK(addr_ip(str_z(rows[i][0]), at, &a));
        CHECK_STR(str_z(a.text), rows[i][1]);
    }
    CHECK(addr_ip(S("10.0.0.1"), at, NULL) && !memcmp(at, four, sizeof at));
    for (size_t i = 0; i < countof(none); i++)
        if (addr_ip(str_z(none[i]), at, &a)) test_failed(__FILE__, __LINE__, "took %s", none[i]);
    CHECK(!addr_ip(S("1.2.3.4\0x"), at, &a));
}

TEST(os_addr_private) {
    static const char *const inside[] = {
        "127.0.0.1:1",
        "127.255.0.1:1",
        "10.1.2.3:1",
        "172.16.0.1:1",
        "172.31.255.255:1",
        "192.168.3.4:1",
        "169.254.169.254:80",
        "100.64.0.1:1",
        "0.0.0.0:1",
        "224.0.0.1:1",
        "255.255.255.255:1",
        "192.0.0.8:1",
        "198.18.0.1:1",
        "[::1]:1",
        "[::]:1",
        "[fe80::1]:1",
        "[fd00::1]:1",
        "[fc00::1]:1",
        "[ff02::1]:1",
        "[::ffff:10.0.0.1]:1",
        "[64:ff9b::a00:1]:1",
        "[2002:a00:1::1]:1",
        "[::7f00:1]:1",
        "unix:/x",
    };
    static const char *const outside[] = {
        "8.8.8.8:53",         "172.15.255.255:1",     "172.32.0.1:1",
        "100.128.0.1:1",      "11.0.0.1:1",           "[2606:4700::1111]:443",
        "[::ffff:8.8.8.8]:1", "[64:ff9b::808:808]:1", "[2002:808:808::1]:1",
    };
    Ctx *c = test_ctx();
    Addr a;
    for (size_t i = 0; i < countof(inside) + countof(outside); i++) {
        bool want = i < countof(inside);
        const char *text = want ? inside[i] : outside[i - countof(inside)];
        CHECK_OK(c, addr_parse(c, str_z(text), &a));
        if (addr_is_private(&a) != want) test_failed(__FILE__, __LINE__, "%s is wrong", text);
    }
}

TEST(os_addr_resolve_without_dns) {
    Ctx *c = test_ctx();
    c->os = os_real();
    Addr out[4];
    size_t n;
    CHECK_OK(c, addr_resolve(c, S("localhost"), 8080, out, 4, &n));
    CHECK(n >= 1 && addr_is_private(&out[0]) && str_ends(str_z(out[0].text), S(":8080")));
    CHECK_OK(c, addr_resolve(c, S("192.0.2.7"), 1, out, 1, &n));
    CHECK_STR(str_z(out[0].text), "192.0.2.7:1");
    CHECK_ERR(addr_resolve(c, S(""), 1, out, 1, &n), ERR_INVALID);
}
