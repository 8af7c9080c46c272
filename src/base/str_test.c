// SPDX-License-Identifier: Apache-2.0
// str_test.c - text: laws over random input, and the edges of what is accepted.
#include "test.h"
#include <limits.h>
#include <math.h>
#include <stdio.h>

// Text of up to `most` bytes out of `alphabet`, or of any bytes when that is NULL.
static str random_text(Arena *a, size_t most, const char *alphabet) {
    size_t n = test_random() % (most + 1);
    char *p = arena_alloc_raw(a, n + 1);
    for (size_t i = 0; i < n; i++) {
        uint64_t r = test_random();
        p[i] = alphabet ? alphabet[r % strlen(alphabet)] : (char)r;
    }
    return str_n(p, n);
}

TEST(str_cut_parts_join_to_the_whole) {
    Arena *a = test_ctx()->mem;
    for (int round = 0; round < 500; round++) {
        str s = random_text(a, 20, "ab,"), rest = s, parts[32];
        size_t n = 0;
        while (str_cut(&rest, ',', &parts[n])) {
            CHECK(str_find_char(parts[n], ',') < 0);
            CHECK(++n < countof(parts));
        }
        CHECK(n >= 1 && str_eq(arena_join(a, parts, n, S(",")), s));
    }
    str absent = { 0 }, part;
    CHECK(!str_cut(&absent, ',', &part));
}

TEST(str_find_agrees_with_a_slow_search) {
    Arena *a = test_ctx()->mem;
    for (int round = 0; round < 2000; round++) {
        str s = random_text(a, 24, "aab"), needle = random_text(a, 4, "aab");
        ptrdiff_t want = -1;
        for (size_t i = 0; want < 0 && i + needle.n <= s.n; i++)
            if (!memcmp(s.p + i, needle.p, needle.n)) want = (ptrdiff_t)i;
        CHECK_INT(str_find(s, needle), want);
        CHECK(str_starts(s, needle) == (want == 0));
        if (want >= 0) CHECK(str_eq(str_sub(s, (size_t)want, needle.n), needle));
        CHECK(str_ends(s, str_sub(s, s.n / 2, s.n)));
    }
    CHECK_INT(str_find((str){ 0 }, S("a")), -1);
    CHECK(!str_ends(S("a"), S("ba")) && !str_ends(S("ab"), S("a")));
}

TEST(str_order_is_total) {
    Arena *a = test_ctx()->mem;
    for (int round = 0; round < 2000; round++) {
        str x = random_text(a, 3, "a\xff"), y = random_text(a, 3, "a\xff");
        CHECK((str_cmp(x, y) == 0) == str_eq(x, y));
        CHECK((str_cmp(x, y) < 0) == (str_cmp(y, x) > 0));
        CHECK(str_eq_secret(x, y) == str_eq(x, y));
    }
    CHECK(str_cmp(S("a"), S("\xff")) < 0); // bytes are unsigned
    CHECK(str_cmp(S("a"), S("aa")) < 0);
    CHECK(str_cmp((str){ 0 }, S("")) == 0);
    CHECK(str_ieq(S("Content-TYPE"), S("content-type")) && !str_ieq(S("@"), S("`")));
}

TEST(str_sub_is_clipped_to_the_text) {
    CHECK_STR(str_sub(S("hello"), 1, 3), "ell");
    CHECK_STR(str_sub(S("hello"), 3, SIZE_MAX), "lo");
    CHECK_STR(str_sub(S("hello"), SIZE_MAX, 1), "");
    CHECK(!str_sub((str){ 0 }, 1, 1).p);
    CHECK_STR(str_trim(S(" \t\r\n\v\fa b\n")), "a b");
    CHECK_STR(str_trim(S(" \n ")), "");
    CHECK_STR(str_trim(S("\xc2\xa0")), "\xc2\xa0"); // only ASCII counts
}

TEST(str_to_integers_read_back_and_refuse_the_next) {
    char text[32], digits[STR_I64];
    for (int round = 0; round < 2000; round++) {
        int64_t i = (int64_t)(test_random() >> (test_random() % 64)), got_i = 0;
        if (round & 1) i = -i;
        uint64_t u = (uint64_t)i, got_u = 0;
        snprintf(text, sizeof text, "%lld", (long long)i);
        CHECK(str_to_i64(str_z(text), &got_i) && got_i == i);
        CHECK_STR(str_i64(i, digits), text);
        snprintf(text, sizeof text, "%llu", (unsigned long long)u);
        CHECK(str_to_u64(str_z(text), &got_u) && got_u == u);
    }
    int64_t i = 7;
    uint64_t u = 7;
    CHECK(str_to_i64(S("-9223372036854775808"), &i) && i == INT64_MIN);
    CHECK(str_to_i64(S("9223372036854775807"), &i) && i == INT64_MAX);
    CHECK_STR(str_i64(INT64_MIN, digits), "-9223372036854775808");
    CHECK(str_to_u64(S("18446744073709551615"), &u) && u == UINT64_MAX);
    static const char *const bad[] = { "",
                                       "-",
                                       "+1",
                                       " 1",
                                       "1 ",
                                       "0x1",
                                       "1.0",
                                       "1e3",
                                       "--1",
                                       "9223372036854775808",
                                       "-9223372036854775809",
                                       "99999999999999999999999" };
    for (size_t k = 0; k < countof(bad); k++) {
        i = 7;
        CHECK(!str_to_i64(str_z(bad[k]), &i) && i == 7);
    }
    u = 7;
    CHECK(!str_to_u64(S("18446744073709551616"), &u) && u == 7);
    CHECK(!str_to_u64(S("-0"), &u) && !str_to_i64((str){ 0 }, &i));
    CHECK(!str_to_i64(str_n("1\0", 2), &i));
}

TEST(str_to_f64_reads_back_every_double) {
    for (int round = 0; round < 5000; round++) {
        uint64_t bits = test_random();
        double f, got;
        char text[40];
        memcpy(&f, &bits, 8);
        if (!isfinite(f)) continue;
        snprintf(text, sizeof text, "%.17g", f);
        CHECK(str_to_f64(str_z(text), &got) && got == f);
    }
    static const char *const bad[] = { "",   "-",   ".5", "5.", "nan", "inf",   "0x1p3", "1e",
                                       "e1", "1e+", " 1", "1 ", "1,5", "1e999", "+1",    "1.e3" };
    for (size_t k = 0; k < countof(bad); k++) {
        double f = 7;
        CHECK(!str_to_f64(str_z(bad[k]), &f) && f == 7);
    }
    char digits[600];
    double f;
    memset(digits, '1', sizeof digits);
    CHECK(!str_to_f64(str_n(digits, sizeof digits), &f));
    CHECK(str_to_f64(str_n("12", 1), &f) && f == 1); // nothing beyond n is read
}

TEST(str_to_bool_knows_eight_words) {
    bool b = false;
    CHECK(str_to_bool(S("on"), &b) && b && str_to_bool(S("no"), &b) && !b);
    CHECK(str_to_bool(S("1"), &b) && b && str_to_bool(S("false"), &b) && !b);
    CHECK(!str_to_bool(S("True"), &b) && !str_to_bool(S(""), &b) && !str_to_bool(S("2"), &b));
}

static size_t encode(uint32_t cp, char out[4]) {
    if (cp < 0x80) return out[0] = (char)cp, 1;
    if (cp < 0x800) return out[0] = (char)(0xc0 | cp >> 6), out[1] = (char)(0x80 | (cp & 63)), 2;
    size_t n = cp < 0x10000 ? 3 : 4;
    for (size_t i = n; --i; cp >>= 6) out[i] = (char)(0x80 | (cp & 63));
    out[0] = (char)((n == 3 ? 0xe0 : 0xf0) | cp);
    return n;
}

TEST(str_utf8_takes_each_scalar_and_no_part_of_it) {
    char z[4];
    for (uint32_t cp = 0; cp < 0x120000; cp += cp < 0x1000 ? 1 : 7) {
        size_t n = encode(cp, z);
        bool scalar = cp < 0x110000 && (cp < 0xd800 || cp > 0xdfff);
        CHECK(str_utf8(str_n(z, n)) == scalar);
        if (!scalar) continue;
        CHECK_INT(str_utf8_count(str_n(z, n)), 1);
        for (size_t cut = 1; cut < n; cut++) {
            CHECK_INT(str_utf8_bad(str_n(z, cut)), 0);
            CHECK_INT(str_utf8_bad(str_n(z + cut, n - cut)), 0);
        }
    }
}

// Decodes as the encoding is defined, then refuses what has a shorter form: another way than ours.
static bool slow_utf8(const unsigned char *p, size_t n) {
    for (size_t i = 0; i < n;) {
        size_t ones = 0;
        while (ones < 8 && p[i] & 0x80 >> ones) ones++;
        size_t len = ones ? ones : 1;
        if (ones == 1 || ones > 4 || i + len > n) return false;
        uint32_t cp = ones ? p[i] & (0x7fu >> ones) : p[i];
        for (size_t k = 1; k < len; k++) {
            if (p[i + k] >> 6 != 2) return false;
            cp = cp << 6 | (p[i + k] & 63);
        }
        char z[4];
        if (cp > 0x10ffff || (cp >= 0xd800 && cp < 0xe000) || encode(cp, z) != len) return false;
        i += len;
    }
    return true;
}

TEST(str_utf8_agrees_with_a_slow_reader) {
    unsigned char p[4], tails[] = { 0x00, 0x7f, 0x80, 0xbf, 0xc0, 0xff };
    for (unsigned first = 0; first < 256 * 256; first++) {
        p[0] = (unsigned char)(first >> 8), p[1] = (unsigned char)first;
        CHECK(str_utf8(str_n(p, 2)) == slow_utf8(p, 2));
        for (size_t t = 0; t < countof(tails) * countof(tails); t++) {
            p[2] = tails[t / countof(tails)], p[3] = tails[t % countof(tails)];
            CHECK(str_utf8(str_n(p, 3)) == slow_utf8(p, 3));
            CHECK(str_utf8(str_n(p, 4)) == slow_utf8(p, 4));
        }
    }
    char text[64];
    for (size_t at = 0; at < sizeof text; at++) { // around the eight bytes taken at once
        memset(text, 'a', sizeof text);
        text[at] = (char)0x80;
        for (size_t n = at + 1; n <= sizeof text; n++) CHECK_INT(str_utf8_bad(str_n(text, n)), at);
        CHECK(str_utf8(str_n(text, at)));
    }
}

TEST(str_distance_is_a_metric) {
    Arena *a = test_ctx()->mem;
    CHECK_INT(str_distance(S("kitten"), S("sitting")), 3);
    CHECK_INT(str_distance(S(""), S("abc")), 3);
    for (int round = 0; round < 1000; round++) {
        str x = random_text(a, 8, "abc"), y = random_text(a, 8, "abc"),
            z = random_text(a, 8, "abc");
        unsigned xy = str_distance(x, y);
        CHECK((xy == 0) == str_eq(x, y) && xy == str_distance(y, x));
        CHECK(xy <= str_distance(x, z) + str_distance(z, y));
        CHECK(xy <= (x.n > y.n ? x.n : y.n));
    }
    char text[65] = { 0 };
    CHECK_INT(str_distance(str_n(text, 64), S("")), 64);
    CHECK(str_distance(str_n(text, 65), S("")) == UINT_MAX);
}

TEST(str_hash_spreads_and_depends_on_its_seed) {
    enum { KEYS = 4096, BUCKETS = 256 };
    int plain[BUCKETS] = { 0 }, seeded[BUCKETS] = { 0 }, same = 0;
    for (int i = 0; i < KEYS; i++) {
        char text[16];
        str s = str_n(text, (size_t)snprintf(text, sizeof text, "key%d", i));
        plain[str_hash(s) % BUCKETS]++;
        seeded[str_hash_seed(s, 1) % BUCKETS]++;
        same += str_hash_seed(s, 1) % BUCKETS == str_hash_seed(s, 2) % BUCKETS;
    }
    for (int b = 0; b < BUCKETS; b++) CHECK(plain[b] < 48 && seeded[b] < 48); // 16 expected
    CHECK(same < 64);                                                         // 16 expected
    char zeros[24] = { 0 };
    for (size_t n = 0; n < sizeof zeros; n++) // the length counts, not only the bytes
        CHECK(str_hash_seed(str_n(zeros, n), 1) != str_hash_seed(str_n(zeros, n + 1), 1));
}
