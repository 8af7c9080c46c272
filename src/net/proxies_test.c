// SPDX-License-Identifier: Apache-2.0
// proxies_test.c - whose word is taken, and that strangers cannot name an address of their own.
// Threads: one.
#include "base/test.h"
#include "net/proxies.h"

static str client(const char *trusted, const char *peer, const char *first, const char *second) {
    Proxies p;
    HttpHeader headers[] = { { S("x-forwarded-for"), str_z(first ? first : "") },
                             { S("X-Forwarded-For"), str_z(second ? second : "") } };
    HttpRequest r = { .peer = str_z(peer), .headers = headers };
    r.headers_n = (size_t) !!first + !!second;
    if (!proxies_parse(str_z(trusted), &p)) return S("not a list");
    return proxies_client(&p, test_ctx()->mem, &r);
}

TEST(net_proxies_say_who_asked_them) {
    static const struct {
        const char *trusted, *peer, *first, *second, *want;
    } rows[] = {
        { "", "10.0.0.1:5", "1.2.3.4", NULL, "10.0.0.1:5" }, // nobody is trusted
        { "10.0.0.1", "10.0.0.1:5", NULL, NULL, "10.0.0.1:5" },
        { "10.0.0.1", "10.0.0.1:5", "1.2.3.4", NULL, "1.2.3.4:0" },
        { "10.0.0.1", "10.0.0.2:5", "1.2.3.4", NULL, "10.0.0.2:5" },           // a stranger's word
        { "10.0.0.0/8", "10.9.9.9:5", "6.6.6.6, 1.2.3.4", NULL, "1.2.3.4:0" }, // it wrote 6.6.6.6
        { "10.0.0.0/8", "10.9.9.9:5", "6.6.6.6, 1.2.3.4 , 10.3.3.3", NULL, "1.2.3.4:0" },
        { "10.0.0.0/8", "10.9.9.9:5", "6.6.6.6, 1.2.3.4", "10.3.3.3", "1.2.3.4:0" },
        { "10.0.0.0/8", "10.9.9.9:5", "10.1.1.1, 10.3.3.3", NULL, "10.1.1.1:0" }, // all are ours
        { "10.0.0.0/8", "10.9.9.9:5", "1.2.3.4, unknown", NULL, "10.9.9.9:5" },
        { "10.0.0.0/8", "10.9.9.9:5", "1.2.3.4, ,10.3.3.3", NULL, "10.3.3.3:0" },
        { "::1, fd00::/8", "[::1]:5", "2001:db8::7, [fd12::1]:80", NULL, "[2001:db8::7]:0" },
        { "10.0.0.0/7", "11.0.0.1:5", "1.2.3.4:99", NULL, "1.2.3.4:99" },
        { "10.0.0.0/8", "[::ffff:10.0.0.1]:5", "1.2.3.4", NULL, "1.2.3.4:0" },
        { "unix", "unix:pid=7", "1.2.3.4", NULL, "1.2.3.4:0" },
        { "10.0.0.0/8", "unix:pid=7", "1.2.3.4", NULL, "unix:pid=7" },
    };
    for (size_t i = 0; i < countof(rows); i++) {
        str got = client(rows[i].trusted, rows[i].peer, rows[i].first, rows[i].second);
        CHECK_STR(got, rows[i].want);
    }
}

TEST(net_proxies_only_the_last_hops_are_read) {
    Buf b;
    buf_init(&b, 4096);
    buf_add(&b, S("6.6.6.6"));
    for (int i = 0; i < 200; i++) buf_add(&b, S(",10.0.0.7"));
    const char *text = arena_str(test_ctx()->mem, buf_str(&b)).p;
    buf_done(&b);
    CHECK_STR(client("10.0.0.0/8", "10.9.9.9:5", text, "1.2.3.4, 10.0.0.8"), "1.2.3.4:0");
    CHECK_STR(client("10.0.0.0/8", "10.9.9.9:5", text, NULL), "10.0.0.7:0");
}

TEST(net_proxies_form) {
    static const char *const good[] = { "", "10.0.0.1", "::1,10.0.0.0/8 , unix", "0.0.0.0/0",
                                        "::/0" };
    static const char *const bad[] = { "10.0.0.1,",   "10.0.0.0/33", "::/129",   "10.0.0.0/-1",
                                       "10.0.0.0/8x", "proxy.local", "10.0.0.0/" };
    for (size_t i = 0; i < countof(good); i++) CHECK(proxies_form(str_z(good[i])));
    for (size_t i = 0; i < countof(bad); i++)
        if (proxies_form(str_z(bad[i]))) test_failed(__FILE__, __LINE__, "took %s", bad[i]);
}
