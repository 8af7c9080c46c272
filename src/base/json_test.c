// SPDX-License-Identifier: Apache-2.0
// json_test.c - what is accepted, what is refused and where, and that writing and reading agree.
#include "test.h"
#include <math.h>

static str text_of(Ctx *c, const char *key) { return failure_param(&c->failure, key); }

TEST(json_accepts_what_rfc_8259_accepts) {
    Ctx *c = test_ctx();
    static const char *const good[] = { "null",
                                        "0",
                                        "-0",
                                        "1e5",
                                        "-1.25E-3",
                                        "\"\"",
                                        "[]",
                                        "{}",
                                        " \t\r\n[1 , 2]\n",
                                        "{\"\":{\"\":[]}}",
                                        "\"\\ud83d\\ude00\"",
                                        "\"\\u0000\"",
                                        "18446744073709551615",
                                        "\"中\"",
                                        "1e308" };
    for (size_t i = 0; i < countof(good); i++) {
        yyjson_val *v = NULL;
        CHECK_OK(c, json_parse(c, str_z(good[i]), &v));
        CHECK(v);
    }
}

TEST(json_refuses_the_rest) {
    Ctx *c = test_ctx();
    static const char *const bad[] = {
        "",
        " ",
        "nul",
        "NULL",
        "01",
        "1.",
        ".5",
        "+1",
        "1e",
        "0x10",
        "NaN",
        "Infinity",
        "-",
        "1e999",
        "\"",
        "\"\\x\"",
        "\"\t\"",
        "\"\n\"",
        "'a'",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[",
        "]",
        "{\"a\"}",
        "{a:1}",
        "{1:1}",
        "{\"a\":1,}",
        "{\"a\":",
        "1 2",
        "[] []",
        "//x\n1",
        "/**/1",
        "[1}",
        "{]",
        "\"\\ud800\"",
        "\"\\u12\"",
        "\xef\xbb\xbf"
        "1",
        "nullx",
        "\v1",
    };
    for (size_t i = 0; i < countof(bad); i++) {
        yyjson_val *untouched = (yyjson_val *)c, *v = untouched;
        int64_t offset = -1;
        CHECK_ERR(json_parse(c, str_z(bad[i]), &v), ERR_INVALID);
        CHECK(v == untouched && c->failure.why == &R_JSON_SYNTAX);
        CHECK(str_to_i64(text_of(c, "offset"), &offset) && offset <= (int64_t)strlen(bad[i]));
    }
    yyjson_val *v;
    CHECK_ERR(json_parse(c, str_n("1\0", 2), &v), ERR_INVALID);
    CHECK_STR(text_of(c, "offset"), "1");
    CHECK_ERR(json_parse(c, (str){ 0 }, &v), ERR_INVALID);
}

TEST(json_names_the_byte_that_is_not_utf8) {
    Ctx *c = test_ctx();
    yyjson_val *v;
    static const struct {
        const char *text, *offset;
    } rows[] = { { "\"ab\xff\"", "3" },
                 { "{\"\xc0\x80\":1}", "2" },
                 { "\"\xed\xa0\x80\"", "1" },
                 { "[\"\xe4\xb8\"]", "2" },
                 { "\xff", "0" },
                 { "[1, \x80]", "4" },
                 { "\"\xf4\x90\x80\x80\"", "1" } };
    for (size_t i = 0; i < countof(rows); i++) {
        CHECK_ERR(json_parse(c, str_z(rows[i].text), &v), ERR_INVALID);
        CHECK(c->failure.why == &R_JSON_UTF8);
        CHECK_STR(text_of(c, "offset"), rows[i].offset);
    }
    CHECK_ERR(json_parse(c, S("[x, \"\xff\"]"), &v),
              ERR_INVALID); // the first fault is the one told
    CHECK(c->failure.why == &R_JSON_SYNTAX);
}

static str nested(Ctx *c, int depth, const char *open, const char *shut) {
    Buf b;
    buf_init(&b, 64 << 20);
    for (int i = 0; i < depth; i++) buf_add(&b, str_z(open));
    buf_add(&b, S("0"));
    for (int i = 0; i < depth; i++) buf_add(&b, str_z(shut));
    str s = arena_str(c->mem, buf_str(&b));
    buf_done(&b);
    return s;
}

TEST(json_depth_is_limited) {
    Ctx *c = test_ctx();
    yyjson_val *v;
    static const char *const open[] = { "[", "{\"a\":", "[7,\"]}\\\"\"," };
    static const char *const shut[] = { "]", "}", "]" };
    for (int i = 0; i < 3; i++) {
        CHECK_OK(c, json_parse(c, nested(c, JSON_DEPTH_MAX, open[i], shut[i]), &v));
        CHECK_ERR(json_parse(c, nested(c, JSON_DEPTH_MAX + 1, open[i], shut[i]), &v), ERR_INVALID);
        CHECK(c->failure.why == &R_JSON_DEPTH);
        int64_t offset, want = JSON_DEPTH_MAX * (int64_t)strlen(open[i]);
        CHECK(str_to_i64(text_of(c, "offset"), &offset) && offset == want);
    }
    CHECK_ERR(json_parse(c, nested(c, 1000000, "[", "]"), &v), ERR_INVALID);
    CHECK_ERR(json_parse(c, nested(c, 1000000, "[", ""), &v), ERR_INVALID);
    str wide = nested(c, 10000, "[[]],", ""); // many, but not deep
    CHECK_OK(c, json_parse(c, arena_printf(c->mem, "[" STR_FMT "]", STR_ARG(wide)), &v));
}

TEST(json_refuses_a_key_twice) {
    Ctx *c = test_ctx();
    yyjson_val *v;
    static const char *const twice[] = {
        "{\"model\":1,\"model\":1}",
        "{\"a\":[{\"b\":1,\"model\":2,\"c\":{},\"model\":3}]}",
        "{\"model\":1,\"mo\\u0064el\":2}", // the same once read
        "[{\"model\":{\"model\":1},\"x\":[],\"model\":0}]",
    };
    for (size_t i = 0; i < countof(twice); i++) {
        CHECK_ERR(json_parse(c, str_z(twice[i]), &v), ERR_INVALID);
        CHECK(c->failure.why == &R_JSON_TWICE);
        CHECK_STR(text_of(c, "key"), "model");
    }
    CHECK_OK(c, json_parse(c, S("{\"a\":{\"a\":1},\"b\":[{\"a\":1},{\"a\":1}],\"A\":1}"), &v));
    for (int n = 1; n < 60; n++) { // past the number of keys where the way of looking changes
        Buf b;
        buf_init(&b, 1 << 16);
        Json j = json_to(&b);
        json_obj(&j);
        for (int i = 0; i < n; i++) json_kv_i64(&j, say(c, "key%d", i), i);
        size_t before = b.n;
        json_end_obj(&j);
        CHECK_OK(c, json_parse(c, buf_str(&b), &v));
        b.n = before;
        buf_printf(&b, ",\"key%d\":0}", (int)(test_random() % (unsigned)n));
        CHECK_ERR(json_parse(c, buf_str(&b), &v), ERR_INVALID);
        CHECK(c->failure.why == &R_JSON_TWICE);
        buf_done(&b);
    }
}

// Writes a random value of at most this depth; keys differ by their place.
static void random_value(Ctx *c, Json *j, int depth) {
    unsigned kind = (unsigned)(test_random() % (depth > 0 ? 8 : 6)),
             n = (unsigned)(test_random() % 6);
    switch (kind) {
    case 0: json_put_null(j); break;
    case 1: json_put_bool(j, n & 1); break;
    case 2: json_put_i64(j, (int64_t)(test_random() >> test_random() % 64)); break;
    case 3: json_put_f64(j, (double)(int64_t)test_random() / 1e9); break;
    case 4: json_put_str(j, str_z(n & 1 ? "text \"中\"\n" : "")); break;
    case 5: json_put_raw(j, S("[1,{}]")); break;
    case 6:
        json_arr(j);
        while (n--) random_value(c, j, depth - 1);
        json_end_arr(j);
        break;
    default:
        json_obj(j);
        while (n--) json_key(j, say(c, "k%u", n)), random_value(c, j, depth - 1);
        json_end_obj(j);
    }
}

TEST(json_written_is_read_and_written_alike) {
    Ctx *c = test_ctx();
    Buf b;
    buf_init(&b, 1 << 20);
    ArenaMark m = arena_mark(c->mem);
    for (int round = 0; round < 1000; round++) {
        buf_clear(&b);
        Json j = json_to(&b);
        random_value(c, &j, 5);
        CHECK(!j.depth && !b.full);
        yyjson_val *v;
        CHECK_OK(c, json_parse(c, buf_str(&b), &v));
        str first = json_text(c->mem, v);
        CHECK_OK(c, json_parse(c, first, &v));
        CHECK(str_eq(json_text(c->mem, v), first));
        size_t n = b.n;
        buf_add_char(&b, '\n');
        json_put_val(&j, v); // a second document: no comma at the top
        CHECK(str_eq(str_sub(buf_str(&b), n + 1, b.n), first));
        arena_restore(c->mem, m);
    }
    buf_done(&b);
}

TEST(json_broken_anywhere_is_an_error_or_a_value) {
    Ctx *c = test_ctx();
    static const char doc[] =
        "{\"a\":[1,-2.5e3,\"x\\u00e9\\n\",{\"b\":null}],\"中\":true,\"c\":{}}";
    char text[sizeof doc];
    int refused = 0, taken = 0;
    ArenaMark m = arena_mark(c->mem);
    for (int round = 0; round < 20000; round++) {
        memcpy(text, doc, sizeof doc);
        size_t n = sizeof doc - 1 - (test_random() % 4 ? 0 : test_random() % 40);
        for (int k = (int)(test_random() % 3); k > 0; k--)
            text[test_random() % n] = "\"\\{}[],:01e\x80\xff x"[test_random() % 15];
        yyjson_val *v = NULL;
        err e = json_parse(c, str_n(text, n), &v);
        e == ERR_OK ? taken++ : refused++;
        if (e == ERR_OK) CHECK(json_text(c->mem, v).n > 0);
        else CHECK(e == ERR_INVALID && c->failure.code == e && !v);
        arena_restore(c->mem, m);
    }
    CHECK(refused > 5000 && taken > 2000);
}

static str number(Ctx *c, double f) {
    Buf b;
    buf_init(&b, 64);
    Json j = json_to(&b);
    json_put_f64(&j, f);
    str s = arena_str(c->mem, buf_str(&b));
    buf_done(&b);
    return s;
}

TEST(json_put_f64_is_short_and_exact) {
    Ctx *c = test_ctx();
    static const struct {
        double f;
        const char *text;
    } rows[] = {
        { 0, "0" },      { -0.0, "-0.0" },     { 1, "1" },           { -7, "-7" },
        { 0.1, "0.1" },  { 1.5, "1.5" },       { 100000, "100000" }, { 1e14, "100000000000000" },
        { NAN, "null" }, { INFINITY, "null" }, { -INFINITY, "null" }
    };
    for (size_t i = 0; i < countof(rows); i++) CHECK_STR(number(c, rows[i].f), rows[i].text);
    for (int round = 0; round < 20000; round++) {
        uint64_t bits = test_random();
        double f, back = 0;
        memcpy(&f, &bits, 8);
        if (round & 1) f = (double)(int64_t)bits / 1000.0;
        if (!isfinite(f)) continue;
        str text = number(c, f);
        CHECK(str_to_f64(text, &back) && back == f && text.n <= 25);
        CHECK(signbit(back) == signbit(f));
    }
    CHECK(number(c, 5e-324).n <= 7 && number(c, 1.7976931348623157e308).n <= 23);
}

TEST(json_put_i64_covers_the_range) {
    Ctx *c = test_ctx();
    Buf b;
    buf_init(&b, 1 << 16);
    Json j = json_to(&b);
    json_arr(&j);
    const int64_t edges[] = { 0, -1, INT64_MIN, INT64_MAX, 10, -10 };
    for (size_t i = 0; i < countof(edges); i++) json_put_i64(&j, edges[i]);
    json_end_arr(&j);
    CHECK_STR(buf_str(&b), "[0,-1,-9223372036854775808,9223372036854775807,10,-10]");
    yyjson_val *v;
    CHECK_OK(c, json_parse(c, buf_str(&b), &v));
    for (size_t i = 0; i < countof(edges); i++)
        CHECK(yyjson_get_sint(yyjson_arr_get(v, i)) == edges[i]);
    buf_done(&b);
}

TEST(json_writer_nests_to_64_levels) {
    Ctx *c = test_ctx();
    Buf b;
    buf_init(&b, 1 << 16);
    Json j = json_to(&b);
    for (int i = 0; i < 64; i++) json_arr(&j), json_put_i64(&j, i);
    for (int i = 0; i < 64; i++) json_put_bool(&j, true), json_end_arr(&j);
    yyjson_val *v;
    CHECK_OK(c, json_parse(c, buf_str(&b), &v));
    for (int i = 0; i < 63; i++) {
        CHECK_INT(yyjson_arr_size(v), 3);
        v = yyjson_arr_get(v, 1);
    }
    buf_done(&b);
}

TEST(json_getters_refuse_other_types) {
    Ctx *c = test_ctx();
    yyjson_val *v;
    int64_t i = 7;
    double f = 7;
    CHECK_OK(c, json_parse(c,
                           S("{\"i\":-3,\"big\":9223372036854775808,\"f\":3.0,\"s\":\"x\\u0000y\","
                             "\"t\":true,\"z\":null,\"o\":{}}"),
                           &v));
    CHECK(json_get_i64(v, "i", &i) && i == -3);
    CHECK(!json_get_i64(v, "big", &i) && !json_get_i64(v, "f", &i) && !json_get_i64(v, "s", &i));
    CHECK(!json_get_i64(v, "z", &i) && !json_get_i64(v, "none", &i) && i == -3);
    CHECK(json_get_f64(v, "i", &f) && f == -3 && json_get_f64(v, "f", &f) && f == 3);
    CHECK(!json_get_f64(v, "t", &f) && f == 3);
    CHECK(json_get_bool(v, "t", false) && json_get_bool(v, "z", true)
          && !json_get_bool(v, "i", false));
    CHECK(str_eq(json_get_str(v, "s"), str_n("x\0y", 3)) && !json_get_str(v, "i").p);
    CHECK(!json_get(v, "none") && !json_get(json_get(v, "i"), "x") && !json_get(NULL, "x"));
    CHECK_STR(json_text(c->mem, json_get(v, "o")), "{}");
    CHECK_STR(json_text(c->mem, NULL), "null");
}

TEST(json_pairs_and_fullness) {
    for (size_t max = 0; max < 80; max++) {
        Buf b;
        buf_init(&b, max);
        Json j = json_to(&b);
        json_obj(&j);
        json_kv_z(&j, "z", NULL), json_kv_str(&j, "s", S("a")), json_kv_bool(&j, "b", false);
        json_kv_f64(&j, "f", 0.5), json_kv_raw(&j, "r", S("[]")), json_kv_i64(&j, "i", 1);
        json_end_obj(&j);
        static const char want[] =
            "{\"z\":null,\"s\":\"a\",\"b\":false,\"f\":0.5,\"r\":[],\"i\":1}";
        CHECK(b.full == (max < sizeof want - 1));
        CHECK(!memcmp(want, buf_z(&b), b.n) && (b.full || b.n == sizeof want - 1));
        buf_done(&b);
    }
}
