// SPDX-License-Identifier: Apache-2.0
// buf_test.c - a buffer holds a true prefix of what was added, and its JSON always reads back.
#include "test.h"

TEST(buf_holds_a_prefix_and_stays_full) {
    for (size_t max = 0; max < 700; max += 1 + test_random() % 30) {
        Buf b;
        char want[1024];
        size_t n = 0;
        bool full = false;
        buf_init(&b, max);
        for (int i = 0; i < 60; i++) {
            char piece[40];
            size_t size = test_random() % sizeof piece;
            memset(piece, 'a' + i % 26, size);
            bool fits = !full && n + size <= max;
            if (fits) memcpy(want + n, piece, size), n += size;
            else full = true;
            switch (test_random() % 3) {
            case 0: CHECK(buf_add(&b, str_n(piece, size)) == fits); break;
            case 1: CHECK(buf_add_repeat(&b, (char)('a' + i % 26), size) == fits); break;
            default: CHECK(buf_printf(&b, STR_FMT, (int)size, piece) == fits); break;
            }
        }
        CHECK(b.full == full && b.cap <= max && str_eq(buf_str(&b), str_n(want, n)));
        CHECK_INT(strlen(buf_z(&b)), n);
        buf_clear(&b);
        CHECK(buf_add_char(&b, 'x') == (max > 0));
        buf_done(&b);
    }
}

TEST(buf_reserve_commit_drop) {
    Buf b;
    buf_init(&b, 10);
    memcpy(buf_reserve(&b, 10), "0123456789", 10);
    buf_commit(&b, 6);
    CHECK_STR(buf_str(&b), "012345");
    buf_drop(&b, 4);
    CHECK_STR(buf_str(&b), "45");
    buf_drop(&b, 2);
    CHECK_STR(buf_str(&b), "");
    CHECK(!buf_reserve(&b, SIZE_MAX) && b.full && !buf_reserve(&b, 0));
    buf_clear(&b);
    CHECK(buf_add_hex(&b, "\x00\xff\x1a", 3) && !buf_add_hex(&b, "xyz", 3));
    CHECK_STR(buf_str(&b), "00ff1a");
    buf_done(&b);
}

TEST(buf_empty_reads_as_empty_text) {
    Buf b;
    buf_init(&b, 10);
    CHECK(buf_str(&b).p && !buf_str(&b).n && !*buf_z(&b));
    CHECK(buf_add(&b, (str){ 0 }) && buf_add(&b, S("")) && !b.n);
    buf_drop(&b, 0);
    buf_done(&b);
}

// Any bytes at all become one valid literal; well-formed text reads back as itself.
TEST(buf_add_json_reads_back) {
    Ctx *c = test_ctx();
    Buf b;
    buf_init(&b, 1 << 20);
    ArenaMark m = arena_mark(c->mem);
    for (int round = 0; round < 5000; round++) {
        static const char *const pieces[] = { "\"",   "\\",   "\n",          "\x01", "\x7f",
                                              "é",    "中",   "😀",           "text", "\xc3",
                                              "\x80", "\xff", "\xed\xa0\x80" };
        char text[256];
        size_t n = 0;
        for (int i = (int)(test_random() % 12); i > 0; i--) {
            const char *piece = pieces[test_random() % countof(pieces)];
            memcpy(text + n, piece, strlen(piece));
            n += strlen(piece);
            if (i == 5) text[n++] = 0;
        }
        buf_clear(&b);
        CHECK(buf_add_json(&b, str_n(text, n)));
        yyjson_val *v;
        CHECK_OK(c, json_parse(c, buf_str(&b), &v));
        CHECK(yyjson_is_str(v) && str_utf8(json_str(v)));
        if (str_utf8(str_n(text, n))) CHECK(str_eq(json_str(v), str_n(text, n)));
        else CHECK(str_find(json_str(v), S("\xef\xbf\xbd")) >= 0);
        arena_restore(c->mem, m);
    }
    buf_clear(&b);
    CHECK(buf_add_json(&b, str_n("a\"\\/\b\f\n\r\t\x1f\x7f\xff", 12)));
    CHECK_STR(buf_str(&b), "\"a\\\"\\\\/\\b\\f\\n\\r\\t\\u001f\x7f\xef\xbf\xbd\"");
    buf_done(&b);
}

TEST(buf_add_json_leaves_no_half_literal) {
    for (size_t max = 0; max < 14; max++) {
        Buf b;
        buf_init(&b, max);
        bool fits = buf_add_json(&b, S("ab\ncd\xff"));
        CHECK(fits == (max >= 11) && b.full == !fits && b.n == (fits ? 11u : 0u));
        buf_done(&b);
    }
}
