// SPDX-License-Identifier: Apache-2.0
// field_test.c - what JSON and text may do to a struct: limits with the field's whole path, merge
// patches, what may not change, and that what is written reads back the same.
#include "res/toy_test.h"
#include <math.h>

typedef struct Case {
    const char *json, *reason, *field; // reason NULL: it is accepted
} Case;

static err read_json(Ctx *c, Toy *t, const char *json, FieldsMode mode) {
    yyjson_val *v;
    TRY(json_parse(c, str_z(json), &v));
    return fields_read(c, toy_rows, t, v, mode);
}

static void check_case(Ctx *c, Toy *t, const Case *at, FieldsMode mode) {
    err e = read_json(c, t, at->json, mode);
    if (!e != !at->reason) TEST_FAIL_("%s: %s", at->json, e ? "refused" : "accepted");
    if (!e) return;
    if (e != ERR_INVALID) TEST_FAIL_("%s: %s", at->json, err_row(e)->name);
    str field = failure_param(&c->failure, "field");
    if (strcmp(c->failure.why->slug, at->reason) || !str_is(field, at->field))
        TEST_FAIL_("%s: %s of " STR_FMT, at->json, c->failure.why->slug, STR_ARG(field));
}

TEST(field_limits_name_the_place) {
    static const Case cases[] = {
        { "{}", NULL, NULL },
        { "{\"title\":\"xxxxxxxxxx\"}", NULL, NULL },
        { "{\"title\":\"xxxxxxxxxxx\"}", "field_length", "title" },
        { "{\"title\":\"\u4e2d\u4e2d\u4e2d\u4e2d\u4e2d\u4e2d\u4e2d\u4e2d\u4e2d\u4e2d\"}", NULL,
          NULL },
        { "{\"title\":7}", "field_type", "title" },
        { "{\"shelf\":\"x\"}", "field_length", "shelf" },
        { "{\"count\":0}", "field_range", "count" },
        { "{\"count\":1}", NULL, NULL },
        { "{\"count\":100}", NULL, NULL },
        { "{\"count\":101}", "field_range", "count" },
        { "{\"count\":1.0}", "field_type", "count" },
        { "{\"count\":\"5\"}", "field_type", "count" },
        { "{\"cost\":\"10\"}", NULL, NULL },
        { "{\"cost\":\"10.000000001\"}", "field_range", "cost" },
        { "{\"cost\":\"-1\"}", "field_range", "cost" },
        { "{\"cost\":\"a\"}", "field_type", "cost" },
        { "{\"due\":\"2020-02-30T00:00:00Z\"}", "field_type", "due" },
        { "{\"due\":\"2020-02-29T00:00:00+01:00\"}", NULL, NULL },
        { "{\"colour\":\"pink\"}", "field_enum", "colour" },
        { "{\"on\":1}", "field_type", "on" },
        { "{\"ratio\":\"1\"}", "field_type", "ratio" },
        { "{\"size\":{}}", "field_required", "size.w" },
        { "{\"size\":{\"w\":101}}", "field_range", "size.w" },
        { "{\"size\":{\"w\":1,\"x\":1}}", "unknown_field", "size.x" },
        { "{\"size\":{\"w\":1,\"pin\":\"123456789\"}}", "field_length", "size.pin" },
        { "{\"size\":{\"w\":1,\"pin\":\"\\u0001a\"}}", "field_type", "size.pin" },
        { "{\"parts\":[{\"label\":\"a\"},{\"n\":1}]}", "field_required", "parts[1].label" },
        { "{\"parts\":[{\"label\":\"a\"},{\"label\":\"b\",\"n\":0}]}", "field_range",
          "parts[1].n" },
        { "{\"parts\":[1,2,3,4]}", "field_length", "parts" },
        { "{\"parts\":[1]}", "field_type", "parts[0]" },
        { "{\"tags\":[\"a\",1]}", "field_type", "tags[1]" },
        { "{\"source\":{}}", "field_enum", "source.type" },
        { "{\"source\":{\"type\":\"ftp\"}}", "field_enum", "source.type" },
        { "{\"source\":{\"type\":\"file\"}}", "field_required", "source.path" },
        { "{\"source\":{\"type\":\"file\",\"url\":\"a\"}}", "unknown_field", "source.url" },
        { "{\"source\":{\"type\":\"url\",\"url\":\"a\",\"retries\":6}}", "field_range",
          "source.retries" },
        { "{\"digest\":\"abc\"}", "field_length", "digest" },
        { "{\"digest\":\"ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef0123456789\"}",
          "field_type", "digest" },
        { "{\"extra\":[1]}", "field_type", "extra" },
        { "{\"extra\":{\"a\":\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"}}", "field_length",
          "extra" },
        { "{\"total\":1}", "field_readonly", "total" },
        { "{\"hash\":\"a\"}", "unknown_field", "hash" },
        { "{\"coutn\":1}", "unknown_field", "coutn" },
        { "[]", "field_type", "body" },
    };
    Ctx *c = test_ctx();
    Toy t;
    for (size_t i = 0; i < countof(cases); i++) check_case(c, &t, &cases[i], FIELDS_CREATE);
}

TEST(field_unknown_names_tell_the_nearest) {
    Ctx *c = test_ctx();
    Toy t;
    CHECK_ERR(read_json(c, &t, "{\"coutn\":1}", FIELDS_CREATE), ERR_INVALID);
    CHECK_STR(failure_param(&c->failure, "nearest"), "count");
    CHECK_ERR(read_json(c, &t, "{\"hasch\":1}", FIELDS_CREATE), ERR_INVALID); // hidden: not told
    CHECK(!str_is(failure_param(&c->failure, "nearest"), "hash"));
}

static const char full[] =
    "{\"title\":\"t\",\"shelf\":\"left\",\"count\":7,\"due\":\"2031-01-02T03:04:05Z\",\"cost\":\"1."
    "5\","
    "\"ratio\":0.25,\"on\":true,\"colour\":\"blue\",\"box\":\"b\",\"size\":{\"w\":3,\"pin\":\"99\"}"
    ","
    "\"parts\":[{\"label\":\"a\"},{\"label\":\"b\",\"n\":2}],\"tags\":[\"z\",\"a\",\"z\"],"
    "\"source\":{\"type\":\"url\",\"url\":\"u\"},\"pass\":\"secret\",\"extra\":{\"k\":[1,null]}}";

TEST(field_create_fills_defaults_and_sets_are_sorted) {
    Ctx *c = test_ctx();
    Toy t;
    CHECK_OK(c, read_json(c, &t, "{}", FIELDS_CREATE));
    CHECK_INT(t.count, 5);
    CHECK_INT(t.size.h, 2);
    CHECK(t.size.w == UNSET_INT && t.cost == UNSET_INT && isnan(t.ratio) && t.colour == -1);
    CHECK(!t.title.p && !t.on && !t.due && t.source.kind == -1 && !t.parts_n);
    CHECK_OK(c, read_json(c, &t, full, FIELDS_CREATE));
    CHECK_INT(t.cost, 1500000000);
    CHECK_INT(t.parts_n, 2);
    CHECK_INT(t.parts[0].n, 1);
    CHECK_INT(t.parts[1].n, 2);
    CHECK_INT(t.source.retries, 3);
    CHECK_INT(t.tags_n, 2);
    CHECK_STR(t.tags[0], "a");
    CHECK_STR(t.tags[1], "z");
}

static str written(Ctx *c, const Toy *t, FieldsShow show) {
    Buf b;
    buf_init(&b, 1 << 20);
    Json j = json_to(&b);
    json_obj(&j), fields_write(toy_rows, t, &j, show), json_end_obj(&j);
    str s = arena_str(c->mem, buf_str(&b));
    buf_done(&b);
    return s;
}

TEST(field_what_is_written_reads_back) {
    Ctx *c = test_ctx();
    Toy a, b;
    CHECK_OK(c, read_json(c, &a, full, FIELDS_CREATE));
    str stored = written(c, &a, SHOW_STORE);
    CHECK_OK(c, read_json(c, &b, arena_z(c->mem, stored), FIELDS_LOAD));
    CHECK(fields_equal(toy_rows, &a, &b, false));
    CHECK_STR(written(c, &b, SHOW_STORE), arena_z(c->mem, stored));
    CHECK_OK(c, read_json(c, &a, "{}", FIELDS_CREATE)); // all unset
    CHECK_OK(c, read_json(c, &b, arena_z(c->mem, written(c, &a, SHOW_STORE)), FIELDS_LOAD));
    CHECK(fields_equal(toy_rows, &a, &b, false));
}

TEST(field_secrets_and_hidden_ones_are_not_shown) {
    Ctx *c = test_ctx();
    Toy t;
    CHECK_OK(c, read_json(c, &t, full, FIELDS_CREATE));
    t.hash = S("hidden");
    str shown = written(c, &t, SHOW_API);
    CHECK(str_find(shown, S("secret")) < 0 && str_find(shown, S("hidden")) < 0);
    CHECK(str_find(shown, S("\"pass\"")) < 0 && str_find(shown, S("\"pin\"")) < 0);
    CHECK(str_find(written(c, &t, SHOW_STORE), S("secret")) > 0);
}

TEST(field_copies_are_deep) {
    Ctx *c = test_ctx();
    Toy a, b;
    Arena *mem = arena_new();
    Ctx in = { .mem = mem };
    CHECK_OK(&in, read_json(&in, &a, full, FIELDS_CREATE));
    memset(&b, 0, sizeof b);
    fields_copy(c->mem, toy_rows, &a, &b);
    CHECK(fields_equal(toy_rows, &a, &b, false));
    str before = written(c, &b, SHOW_STORE);
    a.parts[0].n = 9, a.tags[0] = S("other");
    CHECK(!fields_equal(toy_rows, &a, &b, false));
    arena_free(mem); // nothing of the copy points into it
    CHECK_STR(written(c, &b, SHOW_STORE), arena_z(c->mem, before));
}

TEST(field_equal_sees_each_member) {
    static const char *const changes[] = {
        "{\"title\":\"u\"}",
        "{\"title\":\"\"}",
        "{\"title\":null}",
        "{\"count\":8}",
        "{\"on\":false}",
        "{\"due\":\"2031-01-02T03:04:06Z\"}",
        "{\"cost\":\"1.500000001\"}",
        "{\"ratio\":null}",
        "{\"ratio\":0.5}",
        "{\"colour\":\"red\"}",
        "{\"size\":{\"h\":3}}",
        "{\"size\":null}",
        "{\"parts\":[{\"label\":\"a\"}]}",
        "{\"parts\":[{\"label\":\"a\"},{\"label\":\"b\",\"n\":3}]}",
        "{\"tags\":[\"a\"]}",
        "{\"source\":{\"retries\":4}}",
        "{\"source\":{\"type\":\"file\",\"path\":\"u\"}}",
        "{\"source\":null}",
        "{\"pass\":\"x\"}",
        "{\"extra\":{\"k\":1}}",
        "{\"box\":\"c\"}"
    };
    Ctx *c = test_ctx();
    for (size_t i = 0; i < countof(changes); i++) {
        Toy a, b;
        CHECK_OK(c, read_json(c, &a, full, FIELDS_CREATE));
        fields_default(c->mem, toy_rows, &b), fields_copy(c->mem, toy_rows, &a, &b);
        CHECK_OK(c, read_json(c, &b, changes[i], FIELDS_PATCH));
        if (fields_equal(toy_rows, &a, &b, false)) TEST_FAIL_("%s: no difference", changes[i]);
        CHECK_OK(c, read_json(c, &a, changes[i], FIELDS_PATCH));
        if (!fields_equal(toy_rows, &a, &b, false)) TEST_FAIL_("%s: a difference", changes[i]);
    }
}

// RFC 7396: null unsets, objects merge, lists replace.
TEST(field_patch_merges) {
    Ctx *c = test_ctx();
    Toy t;
    CHECK_OK(c, read_json(c, &t, full, FIELDS_CREATE));
    CHECK_OK(c,
             read_json(c, &t, "{\"size\":{\"h\":9},\"tags\":[\"q\"],\"title\":null,\"count\":null}",
                       FIELDS_PATCH));
    CHECK_INT(t.size.w, 3);
    CHECK_INT(t.size.h, 9);
    CHECK_STR(t.size.pin, "99");
    CHECK_INT(t.tags_n, 1);
    CHECK(!t.title.p);
    CHECK_INT(t.count, 5); // back to its default
    CHECK_OK(c, read_json(c, &t, "{\"source\":{\"retries\":0}}", FIELDS_PATCH)); // the same case
    CHECK_STR(t.source.url, "u");
    CHECK_INT(t.source.retries, 0);
    CHECK_OK(c, read_json(c, &t, "{\"source\":{\"type\":\"file\",\"path\":\"p\"}}", FIELDS_PATCH));
    CHECK_INT(t.source.kind, SOURCE_FILE);
    CHECK_STR(t.source.path, "p");
    CHECK_OK(c, read_json(c, &t, "{\"parts\":null,\"source\":null}", FIELDS_PATCH));
    CHECK(!t.parts_n && t.source.kind == -1);
}

TEST(field_patch_refuses_what_may_not_change) {
    static const Case cases[] = {
        { "{\"shelf\":\"left\"}", NULL, NULL }, // as it is
        { "{\"shelf\":\"right\"}", "field_immutable", "shelf" },
        { "{\"shelf\":null}", "field_immutable", "shelf" },
        { "{\"total\":21}", NULL, NULL },
        { "{\"total\":22}", "field_readonly", "total" },
        { "{\"total\":\"x\"}", "field_readonly", "total" },
        { "{\"hash\":\"a\"}", "unknown_field", "hash" },
        { "{\"size\":{\"w\":null}}", "field_required", "size.w" },
        { "{\"size\":7}", "field_type", "size" },
        { "{\"parts\":[{\"n\":1}]}", "field_required", "parts[0].label" },
        { "{\"source\":{\"type\":\"file\"}}", "field_required", "source.path" },
        { "{\"source\":{\"path\":\"p\"}}", "unknown_field", "source.path" },
        { "{\"count\":0}", "field_range", "count" },
    };
    Ctx *c = test_ctx();
    for (size_t i = 0; i < countof(cases); i++) {
        Toy t;
        CHECK_OK(c, read_json(c, &t, full, FIELDS_CREATE));
        t.total = 21;
        check_case(c, &t, &cases[i], FIELDS_PATCH);
        CHECK_STR(t.shelf, "left");
        CHECK_INT(t.total, 21);
    }
}

// An object that may be left out is whole once anything of it is there.
TEST(field_check_sees_half_an_object) {
    Ctx *c = test_ctx();
    Toy t;
    CHECK_OK(c, read_json(c, &t, "{}", FIELDS_CREATE));
    CHECK_OK(c, fields_check(c, toy_rows, &t));
    CHECK_OK(c, read_json(c, &t, "{\"size\":{\"h\":4}}", FIELDS_PATCH));
    CHECK_ERR(fields_check(c, toy_rows, &t), ERR_INVALID);
    CHECK_STR(failure_param(&c->failure, "field"), "size.w");
    t.size.w = 500;
    CHECK_ERR(fields_check(c, toy_rows, &t), ERR_INVALID);
    t.size.w = 50;
    CHECK_OK(c, fields_check(c, toy_rows, &t));
}

// One scalar as text and back, for every type and many values.
TEST(field_text_reads_back) {
    static const char *const good[][2] = { { "title", "a b" },
                                           { "count", "100" },
                                           { "due", "2031-01-02T03:04:05.000Z" },
                                           { "cost", "0.000000001" },
                                           { "ratio", "0.1" },
                                           { "on", "true" },
                                           { "colour", "green" },
                                           { "tags", "[\"a\",\"b\"]" },
                                           { "parts", "[{\"label\":\"a\",\"box\":null,\"n\":3}]" },
                                           { "extra", "{\"a\":1}" } };
    static const char *const bad[][2] = { { "title", "xxxxxxxxxxx" },
                                          { "title", "\xff" },
                                          { "count", "101" },
                                          { "count", "1e2" },
                                          { "count", "" },
                                          { "due", "today" },
                                          { "cost", "1.0000000001" },
                                          { "ratio", "nan" },
                                          { "ratio", "1e999" },
                                          { "on", "maybe" },
                                          { "colour", "Green" },
                                          { "tags", "[1]" },
                                          { "tags", "a" },
                                          { "extra", "[]" } };
    Ctx *c = test_ctx();
    Toy t;
    fields_default(c->mem, toy_rows, &t);
    for (size_t i = 0; i < countof(good); i++) {
        const Field *f = field_find(toy_rows, str_z(good[i][0]));
        CHECK_OK(c, field_from_text(c, f, &t, str_z(good[i][1])));
        CHECK_STR(field_to_text(c->mem, f, &t), good[i][1]);
    }
    for (size_t i = 0; i < countof(bad); i++) {
        const Field *f = field_find(toy_rows, str_z(bad[i][0]));
        if (field_from_text(c, f, &t, str_z(bad[i][1])) != ERR_INVALID) TEST_FAIL_("%s", bad[i][1]);
    }
}

static err note(Ctx *c, const Field *f, str path, str *value, void *arg) {
    (void)f;
    buf_printf(arg, STR_FMT "=" STR_FMT ";", STR_ARG(path), STR_ARG(*value));
    return str_is(*value, "stop") ? fail(c, ERR_INVALID, R_FIELD_NAME, "field", "x") : ERR_OK;
}

TEST(field_each_visits_nested_ones) {
    Ctx *c = test_ctx();
    Toy t;
    Buf b;
    buf_init(&b, 1000);
    CHECK_OK(c, read_json(c, &t, full, FIELDS_CREATE));
    t.parts[1].box = S("b2");
    CHECK_OK(c, fields_each(c, toy_rows, &t, T_REF, note, &b));
    CHECK_OK(c, fields_each(c, toy_rows, &t, T_SECRET, note, &b));
    CHECK_STR(buf_str(&b), "box=b;parts[1].box=b2;size.pin=99;pass=secret;");
    t.box = S("stop"), buf_clear(&b);
    CHECK_ERR(fields_each(c, toy_rows, &t, T_REF, note, &b), ERR_INVALID);
    CHECK_STR(buf_str(&b), "box=stop;");
    buf_done(&b);
}
