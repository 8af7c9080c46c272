// SPDX-License-Identifier: Apache-2.0
// id_test.c - identifiers sort by time, tell it, and nothing else passes for one.
#include "id.h"
#include "test.h"

static str random_id(Arena *a, int64_t ms) {
    uint8_t random[10];
    for (int i = 0; i < 10; i++) random[i] = (uint8_t)test_random();
    return id_format(a, "model", ms, random);
}

TEST(id_sorts_by_time_and_tells_it) {
    Arena *a = test_ctx()->mem;
    for (int round = 0; round < 5000; round++) {
        int64_t x = (int64_t)(test_random() >> (16 + test_random() % 40));
        int64_t y = (int64_t)(test_random() >> (16 + test_random() % 40));
        str i = random_id(a, x), k = random_id(a, y);
        CHECK(id_time_ms(i) == x && id_valid(i, "model") && id_valid(i, NULL));
        CHECK(!id_valid(i, "mode") && !id_valid(i, "odel") && i.n == 6 + ID_BODY);
        if (x != y) CHECK((str_cmp(i, k) < 0) == (x < y));
    }
}

TEST(id_of_nanoseconds_sorts_by_them) {
    Arena *a = test_ctx()->mem;
    for (int round = 0; round < 5000; round++) {
        int64_t x = (int64_t)(test_random() >> 3), y = x + (int64_t)(test_random() % 3000);
        uint8_t one[10], two[10];
        for (int i = 0; i < 10; i++)
            one[i] = (uint8_t)test_random(), two[i] = (uint8_t)test_random();
        str i = id_format_ns(a, "req", x, one), k = id_format_ns(a, "req", y, two);
        CHECK(id_valid(i, "req") && id_time_ms(i) == x / 1000000 && id_time_ms(k) == y / 1000000);
        if (y - x > 245) CHECK(str_cmp(i, k) < 0);
    }
}

// RFC 9562, appendix A.6: 017F22E2-79B0-7CC3-98C4-DC0C0C07398F.
TEST(id_holds_the_uuid_of_the_rfc) {
    static const uint8_t random[] = { 0x0c, 0xc3, 0x18 << 2 | 3, 0x13, 0x70,
                                      0x30, 0x30, 0x1c,          0xe6, 0x3c };
    str id = id_format(test_ctx()->mem, "x", 0x017F22E279B0, random);
    CHECK_STR(id, "x_01fwhe4ydgfk1shh6w1g60eecf");
}

TEST(id_each_bit_of_random_counts) {
    Arena *a = test_ctx()->mem;
    int differ = 0;
    uint8_t random[10] = { 0 };
    str zero = id_format(a, "x", 1, random);
    for (int bit = 0; bit < 80; bit++) {
        random[bit / 8] = (uint8_t)(1u << bit % 8);
        differ += !str_eq(id_format(a, "x", 1, random), zero);
        random[bit / 8] = 0;
    }
    CHECK_INT(differ, 74); // as many as a UUIDv7 has
}

TEST(id_refuses_what_is_none) {
    static const char *const bad[] = {
        "",
        "model",
        "model_",
        "_01fwhe4ydgfk1shh6w1g60eecf",
        "x_01fwhe4ydgfk1shh6w1g60eec",
        "x_01fwhe4ydgfk1shh6w1g60eecff",
        "x_01fwhe4ydgfk1shh6w1g60eecF",
        "x_01fwhe4ydgfk1shh6w1g60eecu",
        "x_81fwhe4ydgfk1shh6w1g60eecf", // past 128 bits
        "x_01fwhe4ydg3k1shh6w1g60eecf", // not version 7
        "x_01fwhe4ydgfk13hh6w1g60eecf", // not the variant
        "X_01fwhe4ydgfk1shh6w1g60eecf",
        "1_01fwhe4ydgfk1shh6w1g60eecf",
        "a-b_01fwhe4ydgfk1shh6w1g60eecf",
        "abcdefghijklm_01fwhe4ydgfk1shh6w1g60eecf",
        "x01fwhe4ydgfk1shh6w1g60eecf",
    };
    for (size_t i = 0; i < countof(bad); i++) {
        CHECK(!id_valid(str_z(bad[i]), NULL));
        CHECK_INT(id_time_ms(str_z(bad[i])), -1);
    }
    CHECK(!id_valid((str){ 0 }, NULL));
    CHECK(!id_valid(str_n("x_01fwhe4ydgfk1shh6w1g60ee\0f", 28), NULL));
    CHECK(id_valid(S("a_b2_01fwhe4ydgfk1shh6w1g60eecf"), "a_b2"));
}

TEST(name_valid_reserves_the_separators) {
    char text[201];
    memset(text, 'a', sizeof text);
    CHECK(name_valid(str_n(text, 200)) && !name_valid(str_n(text, 201)) && !name_valid(S("")));
    CHECK(name_valid(S("Qwen2.5-0.5B_instruct")) && name_valid(S("7")));
    for (int c = 0; c < 256; c++) {
        char first[] = { (char)c, 'a' }, later[] = { 'a', (char)c };
        bool word = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        CHECK(name_valid(str_n(first, 2)) == word);
        CHECK(name_valid(str_n(later, 2)) == (word || c == '.' || c == '_' || c == '-'));
    }
}
