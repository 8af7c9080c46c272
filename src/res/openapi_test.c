// SPDX-License-Identifier: Apache-2.0
// openapi_test.c - the document is whole (every reference resolves, every path is a route of the
// server and the other way round) and true: what its schemas allow is what fields_read takes, what
// resources write is what its schemas promise.
#include "base/test.h"
#include "os/os.h"
#include "res/bind.h"
#include "res/openapi.h"
#include "res/schema.h"
#include <stdio.h>
#include <stdlib.h>

typedef struct Step {
    str name;
    int64_t weight;
} Step;
typedef struct Limits {
    int64_t cost;
    double share;
} Limits;
typedef struct Where {
    int tag;
    str host;
    int64_t port;
} Where;
typedef struct Toy {
    Head head;
    str title, secret, parent, extra, hash, fixed;
    int64_t size, price, seen_at;
    bool on;
    int mood;
    Limits limits;
    Step *steps;
    size_t steps_n;
    str *tags;
    size_t tags_n;
    Where where;
} Toy;

static const char *const moods[] = { "calm", "busy", NULL };
// clang-format off
static const Field step_rows[] = {
    TEXT(Step, name, REQUIRED, 20, "Name", "名称"), INT(Step, weight, 0, 0, 10, "Weight", "权重"), { 0 }
};
static const Field limits_rows[] = {
    ROW(Limits, cost, T_MONEY, 0, "Cost", "费用", .max = 5000000000),
    ROW(Limits, share, T_REAL, 0, "Share", "占比"), { 0 }
};
static const Field here_rows[] = { { 0 } };
static const Field there_rows[] = {
    TEXT(Where, host, REQUIRED, 60, "Host", "主机"),
    INT(Where, port, 0, 1, 65535, "Port", "端口"), { 0 }
};
static const UnionCase where_cases[] = { { "here", here_rows }, { "there", there_rows }, { 0 } };
static const Union where_union = { "at", offsetof(Where, tag), where_cases };
static const Field toy_rows[] = {
    TEXT(Toy, title, REQUIRED | SEARCHED, 30, "Title", "标题"),
    ROW(Toy, secret, T_SECRET, 0, "Secret", "密钥", .max = 40),
    REF(Toy, parent, 0, "toy", REF_SOFT, "Parent", "上级"),
    ROW(Toy, extra, T_JSON, 0, "Anything", "任意"),
    ROW(Toy, hash, T_BLOB, STATUS, "Content", "内容"),
    TEXT(Toy, fixed, IMMUTABLE, 10, "Given once", "只能设置一次"),
    INT(Toy, size, INDEXED, 1, 100, "Size", "大小", .fallback = "10"),
    ROW(Toy, price, T_MONEY, INDEXED, "Price", "价格"),
    ROW(Toy, seen_at, T_TIME, STATUS | INDEXED, "Seen", "见到的时间"),
    BOOL(Toy, on, INDEXED, "On", "启用", .fallback = "true"),
    ENUM(Toy, mood, REQUIRED | INDEXED, moods, "Mood", "心情"),
    OBJECT(Toy, limits, 0, limits_rows, "Limits", "限制"),
    LIST(Toy, steps, Step, 0, step_rows, 0, 3, "Steps", "步骤"),
    LIST(Toy, tags, str, SORTED_SET, text_item, 0, 4, "Tags", "标签"),
    UNION(Toy, where, 0, &where_union, "Where", "位置"),
    { 0 }
};
static const Field wind_input[] = { INT(Step, weight, REQUIRED, 1, 5, "Turns", "圈数"), { 0 } };
// clang-format on

static err wind(Ctx *c, Tx *tx, void *row, const void *input, str *out_job) {
    (void)c, (void)tx, (void)row, (void)input, (void)out_job;
    return ERR_OK;
}
static err serve(Ctx *c, const HttpRequest *r, const HttpBody *body, HttpReply *out) {
    (void)c, (void)r, (void)body, (void)out;
    return ERR_OK;
}
static const Action toy_actions[] = { { "wind", ACTION_SYNC, wind, wind_input, sizeof(Step),
                                        "Wind it up", "上发条" },
                                      { "melt", ACTION_JOB, wind, NULL, 0, "Melt it", "熔化" },
                                      { 0 } };
static const Resource toy = { .name = "big_toy",
                              .plural = "big_toys",
                              .prefix = "toy",
                              .scope = SCOPE_PROJECT,
                              .flags = RES_RECONCILED,
                              .size = sizeof(Toy),
                              .fields = toy_rows,
                              .actions = toy_actions,
                              .en = "A toy",
                              .zh = "玩具" };
static const Resource shelf = { .name = "shelf",
                                .plural = "shelves",
                                .prefix = "shelf",
                                .scope = SCOPE_SYSTEM,
                                .flags = RES_NO_UPDATE | RES_UNNAMED,
                                .size = sizeof(Toy),
                                .fields = toy_rows,
                                .en = "A shelf",
                                .zh = "架子" };
static const Route routes[] = {
    { HTTP_GET, "/lathe/v1/big_toys/{toy}/parts/{part*}", 0, "big_toys.read", serve,
      .query = wind_input, .output = step_rows, .errors = "409 202", .en = "Parts", .zh = "零件" },
    { HTTP_PUT, "/lathe/v1/big_toys/{toy}", 0, "big_toys.update", serve, .body_max = 100,
      .en = "Whole", .zh = "整体" },
    { HTTP_POST, "/v1/play", ROUTE_FOREIGN, "big_toys.read", serve, .body_max = 100,
      .input = step_rows, .output = step_rows, .output_type = "text/event-stream", .en = "Play",
      .zh = "玩" },
    { HTTP_GET, "/ping", ROUTE_PUBLIC, .serve = serve, .output_type = "text/plain; charset=utf-8",
      .en = "Ping", .zh = "探测" },
    { 0 }
};
static const Module toys = { .name = "toys",
                             .resources = (const Resource *const[]){ &toy, &shelf, NULL },
                             .routes = routes,
                             .en = "Toys",
                             .zh = "玩具" };
static const Module *const mods[] = { &toys, NULL };

static yyjson_val *document(Ctx *c) {
    c->os = os_real();
    tables_init(mods);
    Buf b;
    buf_init(&b, 8 << 20);
    Json j = json_to(&b);
    openapi_write(mods, &j);
    yyjson_val *root = NULL;
    if (b.full || json_parse(c, arena_str(c->mem, buf_str(&b)), &root)) root = NULL;
    buf_done(&b);
    return root;
}

// "#/components/schemas/X" or "a/b/c"; NULL when there is none.
static yyjson_val *at(Ctx *c, yyjson_val *root, str path) {
    if (str_starts(path, S("#/"))) path = str_sub(path, 2, path.n);
    for (str part; root && str_cut(&path, '/', &part);)
        root = json_get(root, arena_z(c->mem, part));
    return root;
}

static int broken_refs(Ctx *c, yyjson_val *root, yyjson_val *v) {
    int n = 0;
    size_t i, max;
    yyjson_val *key, *item;
    str ref = json_get_str(v, "$ref");
    if (ref.p && !at(c, root, ref)) n++;
    if (yyjson_is_obj(v)) {
        yyjson_obj_foreach(v, i, max, key, item) n += broken_refs(c, root, item);
    } else {
        yyjson_arr_foreach(v, i, max, item) n += broken_refs(c, root, item);
    }
    return n;
}

TEST(openapi_is_whole) {
    Ctx *c = test_ctx();
    yyjson_val *root = document(c); // also refuses a key that is there twice
    CHECK(root);
    CHECK_STR(json_get_str(root, "openapi"), "3.1.0");
    CHECK_INT(broken_refs(c, root, root), 0);
    yyjson_val *list = at(c, root, S("components/schemas/BigToyList/properties/data/items"));
    CHECK_STR(json_get_str(list, "$ref"), "#/components/schemas/BigToy");
    CHECK(!at(c, root, S("components/schemas/ShelfPatch")));
}

static const char *lower(Ctx *c, HttpMethod m) {
    char *z = (char *)(uintptr_t)arena_z(c->mem, str_z(http_method_name(m)));
    for (char *p = z; *p; p++) *p = (char)(*p | 0x20);
    return z;
}

// The path item of a pattern, whatever its parameters are called.
static yyjson_val *path_item(yyjson_val *root, const char *pattern) {
    yyjson_val *key, *item;
    size_t i, max;
    yyjson_obj_foreach(json_get(root, "paths"), i, max, key, item) {
        str a = json_str(key), b = str_z(pattern), x, y;
        bool same = true, more_a, more_b;
        do {
            more_a = str_cut(&a, '/', &x);
            more_b = str_cut(&b, '/', &y);
            same &= more_a == more_b;
            if (more_a && more_b)
                same &= str_eq(x, y) || (str_starts(x, S("{")) && str_starts(y, S("{")));
        } while (same && more_a);
        if (same) return item;
    }
    return NULL;
}

TEST(openapi_has_each_route_and_no_other) {
    Ctx *c = test_ctx();
    yyjson_val *root = document(c);
    CHECK(root);
    const NetRoute *const *bound;
    size_t n, below_project = 0, operations = 0;
    CHECK_OK(c, bindings_build(c, mods, &bound, &n));
    for (size_t i = 0; i < n; i++) {
        const char *pattern = bound[i]->pattern;
        bool below = !strncmp(pattern, "/p/{project}", 12);
        yyjson_val *item = path_item(root, below ? pattern + 12 : pattern);
        if (!item) TEST_FAIL_("%s is not in the document", pattern);
        yyjson_val *op = json_get(item, lower(c, bound[i]->method));
        if (!op) TEST_FAIL_("%s lacks a method", pattern);
        const char *permission = binding_of(bound[i])->permission;
        CHECK_STR(json_get_str(op, "x-permission"), permission);
        below_project += below;
        if (below) CHECK_INT(yyjson_arr_size(json_get(item, "servers")), 2);
    }
    size_t i, max, k, methods;
    yyjson_val *key, *item, *method, *op;
    yyjson_obj_foreach(json_get(root, "paths"), i, max, key, item) {
        yyjson_obj_foreach(item, k, methods, method, op) {
            operations += json_get(op, "operationId") != NULL;
        }
    }
    CHECK_INT(operations, n - below_project);
}

TEST(openapi_operations_are_complete) {
    Ctx *c = test_ctx();
    yyjson_val *root = document(c), *key, *item, *method, *op, *other;
    size_t i, max, k, methods, p, params, seen_n = 0;
    str seen[100];
    CHECK(root);
    yyjson_obj_foreach(json_get(root, "paths"), i, max, key, item) {
        yyjson_obj_foreach(item, k, methods, method, op) {
            str id = json_get_str(op, "operationId");
            if (!id.p) continue;
            for (size_t s = 0; s < seen_n; s++) CHECK(!str_eq(seen[s], id));
            seen[seen_n++] = id;
            CHECK(json_get_str(op, "summary").n && json_get_str(op, "x-summary-zh").n);
            size_t in_path = 0, wanted = 0;
            yyjson_arr_foreach(json_get(op, "parameters"), p, params, other) {
                str ref = json_get_str(other, "$ref"); // `other` itself leads to the next one
                yyjson_val *parameter = ref.p ? at(c, root, ref) : other;
                in_path += str_is(json_get_str(parameter, "in"), "path");
            }
            str path = json_str(key);
            for (size_t b = 0; b < path.n; b++) wanted += path.p[b] == '{';
            CHECK_INT(in_path, wanted);
            yyjson_val *answers = json_get(op, "responses");
            CHECK(json_get(answers, "400") && json_get(answers, "503"));
        }
    }
    yyjson_val *play = at(c, root, S("paths"));
    play = at(c, json_get(json_get(play, "/v1/play"), "post"), S("responses/404"));
    CHECK_STR(json_get_str(play, "$ref"), "#/components/responses/OpenAI404");
}

// ---- a small validator: the keywords that field_schema writes

static bool fits(yyjson_val *schema, yyjson_val *v);

static bool fits_type(yyjson_val *type, yyjson_val *v) {
    size_t i, n;
    yyjson_val *one;
    if (yyjson_is_arr(type)) {
        yyjson_arr_foreach(type, i, n, one) {
            if (fits_type(one, v)) return true;
        }
        return false;
    }
    str t = json_str(type);
    if (!t.p) return true;
    return (str_is(t, "null") && yyjson_is_null(v)) || (str_is(t, "string") && yyjson_is_str(v))
           || (str_is(t, "integer") && yyjson_is_int(v))
           || (str_is(t, "number") && yyjson_is_num(v))
           || (str_is(t, "boolean") && yyjson_is_bool(v))
           || (str_is(t, "object") && yyjson_is_obj(v)) || (str_is(t, "array") && yyjson_is_arr(v));
}

static bool fits_object(yyjson_val *schema, yyjson_val *v) {
    size_t i, n;
    yyjson_val *key, *item, *properties = json_get(schema, "properties");
    yyjson_arr_foreach(json_get(schema, "required"), i, n, item) {
        if (!json_get(v, yyjson_get_str(item))) return false;
    }
    yyjson_obj_foreach(v, i, n, key, item) {
        yyjson_val *known = json_get(properties, yyjson_get_str(key));
        if (!known && json_get(schema, "additionalProperties")) return false;
        if (known && !fits(known, item)) return false;
    }
    return true;
}

static bool fits_limits(yyjson_val *schema, yyjson_val *v) {
    int64_t n;
    size_t length = yyjson_is_str(v) ? str_utf8_count(json_str(v)) : yyjson_arr_size(v);
    if (yyjson_is_int(v) && json_get_i64(schema, "minimum", &n) && yyjson_get_sint(v) < n)
        return false;
    if (yyjson_is_int(v) && json_get_i64(schema, "maximum", &n) && yyjson_get_sint(v) > n)
        return false;
    if (yyjson_is_str(v) && json_get_i64(schema, "minLength", &n) && length < (size_t)n)
        return false;
    if (yyjson_is_str(v) && json_get_i64(schema, "maxLength", &n) && length > (size_t)n)
        return false;
    if (yyjson_is_arr(v) && json_get_i64(schema, "maxItems", &n) && length > (size_t)n)
        return false;
    return true;
}

static bool fits(yyjson_val *schema, yyjson_val *v) {
    size_t i, n, hits = 0;
    yyjson_val *one, *cases = json_get(schema, "oneOf"), *names = json_get(schema, "enum");
    yyjson_arr_foreach(cases, i, n, one) hits += fits(one, v);
    if (cases && hits != 1) return false;
    hits = 0;
    yyjson_arr_foreach(names, i, n, one) hits += yyjson_equals(one, v);
    if (names && !hits) return false;
    yyjson_val *only = json_get(schema, "const"), *items = json_get(schema, "items");
    if (only && !yyjson_equals(only, v)) return false;
    if (!fits_type(json_get(schema, "type"), v) || !fits_limits(schema, v)) return false;
    yyjson_arr_foreach(v, i, n, one) {
        if (items && !fits(items, one)) return false;
    }
    return !yyjson_is_obj(v) || !json_get(schema, "properties") || fits_object(schema, v);
}

// What makes a toy, with one member replaced.
static str body_with(Ctx *c, const char *name, const char *value) {
    static const char *const plain[][2] = { { "name", "\"a\"" },
                                            { "title", "\"t\"" },
                                            { "mood", "\"calm\"" } };
    Buf b;
    buf_init(&b, 1 << 20);
    buf_printf(&b, "{\"%s\":%s", name, value);
    for (size_t i = 0; i < countof(plain); i++)
        if (strcmp(plain[i][0], name)) buf_printf(&b, ",\"%s\":%s", plain[i][0], plain[i][1]);
    buf_add_char(&b, '}');
    str s = arena_str(c->mem, buf_str(&b));
    buf_done(&b);
    return s;
}

static const char *text_of(Ctx *c, size_t n) { // n characters of three bytes
    Buf b;
    buf_init(&b, 1 << 20);
    buf_add_char(&b, '"');
    while (n--) buf_add(&b, S("版"));
    buf_add_char(&b, '"');
    const char *z = arena_z(c->mem, buf_str(&b));
    buf_done(&b);
    return z;
}

TEST(openapi_schemas_allow_what_reading_takes) {
    Ctx *c = test_ctx();
    yyjson_val *root = document(c);
    CHECK(root);
    yyjson_val *schema = at(c, root, S("components/schemas/BigToyCreate"));
    const char *const cases[][2] = {
        { "title", text_of(c, 0) },
        { "title", text_of(c, 1) },
        { "title", text_of(c, 30) },
        { "title", text_of(c, 31) },
        { "title", "7" },
        { "size", "0" },
        { "size", "1" },
        { "size", "100" },
        { "size", "101" },
        { "size", "1.5" },
        { "on", "1" },
        { "on", "false" },
        { "mood", "\"busy\"" },
        { "mood", "\"sad\"" },
        { "limits", "{\"share\":0.5}" },
        { "limits", "{\"shore\":0.5}" },
        { "limits", "[]" },
        { "extra", "{\"a\":[1]}" },
        { "extra", "[1]" },
        { "secret", text_of(c, 40) },
        { "secret", text_of(c, 41) },
        { "tags", "[\"a\",\"b\",\"a\",\"c\"]" },
        { "tags", "[1]" },
        { "tags", "[\"a\",\"b\",\"a\",\"c\",\"d\"]" },
        { "steps", "[{\"name\":\"x\"}]" },
        { "steps", "[{\"weight\":1}]" },
        { "steps", "[{\"name\":\"x\",\"weight\":11}]" },
        { "where", "{\"at\":\"here\"}" },
        { "where", "{\"at\":\"there\"}" },
        { "where", "{\"at\":\"there\",\"host\":\"h\",\"port\":0}" },
        { "where", "{\"at\":\"there\",\"host\":\"h\",\"port\":9}" },
        { "where", "{\"at\":\"else\"}" },
        { "where", "{\"host\":\"h\"}" },
        { "seen_at", "\"2026-01-01T00:00:00Z\"" },
        { "hash", "null" },
        { "revision", "1" },
        { "nothing", "1" },
        { "fixed", "\"once\"" },
        { "parent", text_of(c, 400) },
        { "parent", text_of(c, 401) },
        { "org", "\"x\"" },
    };
    int allowed = 0;
    for (size_t i = 0; i < countof(cases); i++) {
        str text = body_with(c, cases[i][0], cases[i][1]);
        yyjson_val *v;
        CHECK_OK(c, json_parse(c, text, &v));
        Toy t = { 0 };
        bool taken = fields_read(c, table_of(&toy)->rows, &t, v, FIELDS_CREATE) == ERR_OK;
        if (taken != fits(schema, v))
            TEST_FAIL_(STR_FMT " is %s, against its schema", STR_ARG(text),
                       taken ? "taken" : "refused");
        allowed += taken;
    }
    CHECK(allowed > 10 && allowed < (int)countof(cases) - 10);
}

TEST(openapi_schemas_promise_what_is_written) {
    Ctx *c = test_ctx();
    yyjson_val *root = document(c), *v;
    CHECK(root);
    yyjson_val *schema = at(c, root, S("components/schemas/BigToy"));
    const char *const bodies[] = {
        "{\"name\":\"a\",\"title\":\"t\",\"mood\":\"calm\"}",
        "{\"name\":\"a\",\"title\":\"t\",\"mood\":\"busy\",\"secret\":\"s\",\"price\":\"0.25\","
        "\"extra\":{},\"limits\":{\"cost\":\"1\",\"share\":2},\"steps\":[{\"name\":\"x\"}],"
        "\"tags\":[\"b\",\"a\"],\"where\":{\"at\":\"there\",\"host\":\"h\"},\"on\":false}",
    };
    for (size_t i = 0; i < countof(bodies); i++) {
        Toy *t = row_new(c, table_of(&toy));
        CHECK_OK(c, json_parse(c, str_z(bodies[i]), &v));
        CHECK_OK(c, fields_read(c, table_of(&toy)->rows, t, v, FIELDS_CREATE));
        t->head.id = S("toy_01");
        t->head.org = t->head.project = S("x_1");
        t->head.revision = t->head.generation = 1;
        t->head.observed_generation = 0;
        t->head.created_at = t->head.updated_at = 1000;
        CHECK_OK(c, json_parse(c, res_json(c, &toy, t), &v));
        if (!fits(schema, v)) TEST_FAIL_("%zu does not fit its schema", i);
        CHECK(!json_get(v, "secret"));
    }
    CHECK_OK(c, json_parse(c, S("{\"id\":1}"), &v));
    CHECK(!fits(schema, v));
}

TEST(openapi_patch_has_no_frozen_members) {
    Ctx *c = test_ctx();
    yyjson_val *root = document(c), *v;
    CHECK(root);
    yyjson_val *patch = at(c, root, S("components/schemas/BigToyPatch"));
    static const char *const absent[] = { "id", "name", "fixed", "seen_at", "hash", "revision" };
    for (size_t i = 0; i < countof(absent); i++)
        CHECK(!json_get(json_get(patch, "properties"), absent[i]));
    CHECK_INT(yyjson_arr_size(json_get(patch, "required")), 0);
    CHECK_OK(c, json_parse(c, S("{\"size\":null}"), &v));
    CHECK(fits(patch, v));
    CHECK_OK(c, json_parse(c, S("{\"title\":null}"), &v));
    CHECK(!fits(patch, v));
}

TEST(schema_shows_the_rows) {
    Ctx *c = test_ctx();
    yyjson_val *root = NULL;
    c->os = os_real();
    tables_init(mods);
    Buf b;
    buf_init(&b, 8 << 20);
    Json j = json_to(&b);
    schema_write(mods, &j);
    CHECK(!b.full);
    CHECK_OK(c, json_parse(c, arena_str(c->mem, buf_str(&b)), &root));
    buf_done(&b);
    yyjson_val *one = yyjson_arr_get(json_get(root, "resources"), 0);
    CHECK_STR(json_get_str(one, "name"), "big_toy");
    CHECK_STR(json_get_str(one, "scope"), "project");
    CHECK_INT(yyjson_arr_size(json_get(one, "fields")), table_of(&toy)->rows_n);
    CHECK_INT(yyjson_arr_size(json_get(one, "actions")), 2);
    size_t i, n, secrets = 0;
    yyjson_val *f;
    yyjson_arr_foreach(json_get(one, "fields"), i, n, f) {
        CHECK(json_get_str(f, "en").n && json_get_str(f, "zh").n && json_get_str(f, "type").n);
        secrets += str_is(json_get_str(f, "type"), "secret");
    }
    CHECK_INT(secrets, 1);
}
