// SPDX-License-Identifier: Apache-2.0
// time_test.c - every day of four centuries, random instants, and text that must be refused.
#include "base/time.h"
#include "test.h"
#include <stdio.h>
#include <time.h>

static str at(int64_t ms) {
    static char out[TIME_TEXT];
    return time_format(ms, out);
}

TEST(time_agrees_with_the_c_library_on_each_day) {
    for (int64_t day = 0; day < 366 * 430; day++) {
        char want[TIME_TEXT];
        int64_t s = day * 86400 + (int64_t)(test_random() % 86400), got = -1;
        time_t t = (time_t)s;
        struct tm tm;
        gmtime_r(&t, &tm);
        strftime(want, sizeof want, "%Y-%m-%dT%H:%M:%S.000Z", &tm);
        CHECK_STR(at(s * 1000), want);
        CHECK(time_parse(str_z(want), &got) && got == s * 1000 && time_day(got) == day);
    }
}

TEST(time_edges) {
    int64_t t = -1;
    CHECK_STR(at(0), "1970-01-01T00:00:00.000Z");
    CHECK_STR(at(-1), "1970-01-01T00:00:00.000Z");
    CHECK_STR(at(INT64_MAX), "9999-12-31T23:59:59.999Z");
    CHECK(time_parse(at(INT64_MAX), &t) && t == 253402300799999);
    CHECK_INT(time_day(-1), -1);
    CHECK_INT(time_day(-86400000), -1);
    CHECK_INT(time_day(86399999), 0);
}

TEST(time_parse_takes_what_rfc_3339_allows) {
    static const struct {
        const char *text;
        int64_t ms;
    } rows[] = { { "2026-11-22T16:37:00.123Z", 1795365420123 },
                 { "2026-11-22t16:37:00.1239999999z", 1795365420123 },
                 { "2026-11-23 00:37:00.123+08:00", 1795365420123 },
                 { "2026-11-22T11:07:00.123-05:30", 1795365420123 },
                 { "2026-11-22T16:37:00Z", 1795365420000 },
                 { "2026-11-22T16:37:00.5Z", 1795365420500 },
                 { "1969-12-31T23:00:00-01:00", 0 },
                 { "2016-12-31T23:59:60Z", 1483228800000 } };
    for (size_t i = 0; i < countof(rows); i++) {
        int64_t t = -1;
        CHECK(time_parse(str_z(rows[i].text), &t));
        CHECK_INT(t, rows[i].ms);
    }
}

TEST(time_parse_refuses_the_rest) {
    static const char *const bad[] = {
        "",
        "2026",
        "2026-11-22",
        "2026-11-22T16:37:00",
        "2026-11-22T16:37Z",
        "2026-11-22T24:00:00Z",
        "2026-11-22T16:60:00Z",
        "2026-11-22T16:37:61Z",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-02-29T00:00:00Z",
        "2100-02-29T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2026-01-00T00:00:00Z",
        "2026-11-22T16:37:00.Z",
        "2026-11-22T16:37:00+0800",
        "2026-11-22T16:37:00+24:00",
        "2026-11-22T16:37:00+08:60",
        "2026-11-22T16:37:00ZZ",
        "2026-11-22T16:37:00Z ",
        " 2026-11-22T16:37:00Z",
        "2026-11-22X16:37:00Z",
        "+026-11-22T16:37:00Z",
        "1969-12-31T23:59:59Z",
        "1970-01-01T00:00:00+00:01",
        "0000-01-01T00:00:00Z",
        "9999-12-31T23:59:59-01:00",
        "20261-1-22T16:37:00Z",
        "2026-11-22T16:-7:00Z",
    };
    for (size_t i = 0; i < countof(bad); i++) {
        int64_t t = 7;
        CHECK(!time_parse(str_z(bad[i]), &t) && t == 7);
    }
}

TEST(time_parse_of_broken_text_is_refused_or_reads_back) {
    for (int round = 0; round < 20000; round++) {
        char text[] = "2026-11-22T16:37:00.123+08:00", again[TIME_TEXT];
        for (int k = 0; k < 2; k++)
            text[test_random() % (sizeof text - 1)] = "0123456789-:.TZ+ \xff"[test_random() % 18];
        int64_t t, back = -1;
        if (!time_parse(str_n(text, test_random() % sizeof text), &t)) continue;
        CHECK(t >= 0 && time_parse(time_format(t, again), &back) && back == t);
    }
}

TEST(span_and_bytes_parse) {
    static const struct {
        const char *text;
        int64_t n;
    } spans[] = { { "250ms", 250 },    { "30s", 30000 }, { "5m", 300000 }, { "2h", 7200000 },
                  { "7d", 604800000 }, { "42", 42 },     { "0", 0 } },
      sizes[] = { { "512", 512 },      { "64KiB", 65536 },    { "20MiB", 20971520 },
                  { "1GiB", 1 << 30 }, { "5GB", 5000000000 }, { "3B", 3 },
                  { "2kB", 2000 },     { "1TiB", 1ll << 40 }, { "8191PiB", 8191ll << 50 } };
    static const char *const bad[] = { "",
                                       "s",
                                       "-1s",
                                       "1.5h",
                                       "1 s",
                                       " 1s",
                                       "1s ",
                                       "5M",
                                       "1Kib",
                                       "5G",
                                       "1msx",
                                       "9223372036854775808",
                                       "9223372036854775807d",
                                       "9223372036854775807KiB",
                                       "8192PiB",
                                       "+1" };
    int64_t n;
    for (size_t i = 0; i < countof(spans); i++)
        CHECK(span_parse(str_z(spans[i].text), &n) && n == spans[i].n);
    for (size_t i = 0; i < countof(sizes); i++)
        CHECK(bytes_parse(str_z(sizes[i].text), &n) && n == sizes[i].n);
    for (size_t i = 0; i < countof(bad); i++) {
        n = 7;
        CHECK(!span_parse(str_z(bad[i]), &n) && !bytes_parse(str_z(bad[i]), &n) && n == 7);
    }
    CHECK(!span_parse((str){ 0 }, &n) && !bytes_parse(S("1d"), &n) && !span_parse(S("1KiB"), &n));
}

TEST(span_format_is_exact) {
    Arena *a = test_ctx()->mem;
    CHECK_STR(span_format(a, 90000), "90s");
    CHECK_STR(span_format(a, 7200000), "2h");
    CHECK_STR(span_format(a, 0), "0s");
    CHECK_STR(span_format(a, -1500), "-1500ms");
    for (int round = 0; round < 5000; round++) {
        static const int64_t units[] = { 1, 1000, 60000, 3600000, 86400000 };
        int64_t ms = (int64_t)(test_random() % 1000) * units[test_random() % 5], back = -1;
        CHECK(span_parse(span_format(a, ms), &back) && back == ms);
    }
}

TEST(bytes_format_is_near) {
    Arena *a = test_ctx()->mem;
    CHECK_STR(bytes_format(a, 1023), "1023 B");
    CHECK_STR(bytes_format(a, 1024), "1.0 KiB");
    CHECK_STR(bytes_format(a, 1048575), "1.0 MiB");
    CHECK_STR(bytes_format(a, 432327885), "412.3 MiB");
    CHECK_STR(bytes_format(a, INT64_MAX), "8192.0 PiB");
    CHECK_STR(bytes_format(a, -2048), "-2.0 KiB");
    CHECK_STR(bytes_format(a, INT64_MIN), "-8192.0 PiB");
}

TEST(money_reads_back_exactly) {
    Arena *a = test_ctx()->mem;
    for (int round = 0; round < 20000; round++) {
        int64_t n = (int64_t)(test_random() >> (1 + test_random() % 63)), back = -1;
        if (round % 3 == 0) n -= n % 1000000;
        if (round & 1) n = -n;
        CHECK(money_parse(money_format(a, n), &back) && back == n);
    }
    CHECK_STR(money_format(a, 1250000000), "1.25");
    CHECK_STR(money_format(a, -1), "-0.000000001");
    CHECK_STR(money_format(a, INT64_MIN), "-9223372036.854775808");
    CHECK_STR(money_format(a, 0), "0");
    int64_t n = 7;
    CHECK(money_parse(S("-9223372036.854775808"), &n) && n == INT64_MIN);
    CHECK(money_parse(S("0.10"), &n) && n == 100000000);
    static const char *const bad[] = { "",
                                       "-",
                                       ".5",
                                       "5.",
                                       "1.0000000001",
                                       "1e3",
                                       "+1",
                                       "1,5",
                                       " 1",
                                       "1.-5",
                                       "--1",
                                       "9223372036.854775808",
                                       "1.2.3",
                                       "$1",
                                       "1 ",
                                       "-9223372036.854775809",
                                       "99999999999999999999" };
    for (size_t i = 0; i < countof(bad); i++) {
        n = 7;
        CHECK(!money_parse(str_z(bad[i]), &n) && n == 7);
    }
}
