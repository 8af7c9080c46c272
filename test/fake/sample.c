// SPDX-License-Identifier: Apache-2.0
// sample.c - a small JSON text that fits a schema (the part of JSON Schema that tools and
// response_format use): all properties, shortest arrays, first choices. What it does not know it
// takes for a string.
// Owner: the exchange's arena. Threads: the loop's.
#include "fake.h"

enum { DEPTH_MAX = 16, SAMPLE_MAX = 1 << 20 };

typedef struct Sampler {
    yyjson_val *root; // where "#/…" references begin
    Json j;
    uint64_t seed;
    int64_t words;
} Sampler;

static void put(Sampler *s, yyjson_val *schema, int depth);

static yyjson_val *follow(const Sampler *s, yyjson_val *schema) {
    str ref = json_get_str(schema, "$ref");
    if (!str_starts(ref, S("#/"))) return schema;
    char pointer[256];
    str path = str_sub(ref, 1, ref.n);
    if (path.n >= sizeof pointer) return schema;
    memcpy(pointer, path.p, path.n);
    return yyjson_ptr_getn(s->root, pointer, path.n);
}

static void put_word(Sampler *s, yyjson_val *schema) {
    str w = word_at(s->seed, 1 + s->words++);
    int64_t max = INT64_MAX, min = 0;
    json_get_i64(schema, "maxLength", &max);
    json_get_i64(schema, "minLength", &min);
    w = str_sub(w, 1, w.n); // without its space
    if (!w.n) w = S("x");
    if ((int64_t)w.n > max) w = str_sub(w, 0, (size_t)max);
    char longer[256];
    if ((int64_t)w.n < min && min < (int64_t)sizeof longer) {
        memset(longer, 'x', (size_t)min);
        memcpy(longer, w.p, w.n);
        w = str_n(longer, (size_t)min);
    }
    json_put_str(&s->j, w);
}

static void put_object(Sampler *s, yyjson_val *schema, int depth) {
    yyjson_val *key, *value;
    size_t i, n;
    json_obj(&s->j);
    yyjson_obj_foreach(json_get(schema, "properties"), i, n, key, value) {
        json_key_str(&s->j, json_str(key));
        put(s, value, depth + 1);
    }
    json_end_obj(&s->j);
}

static void put_array(Sampler *s, yyjson_val *schema, int depth) {
    int64_t n = 1;
    json_get_i64(schema, "minItems", &n);
    json_arr(&s->j);
    for (int64_t i = 0; i < n && i < 64; i++) put(s, json_get(schema, "items"), depth + 1);
    json_end_arr(&s->j);
}

static void put_number(Sampler *s, yyjson_val *schema) {
    int64_t n = 1, max = INT64_MAX;
    json_get_i64(schema, "minimum", &n);
    json_get_i64(schema, "maximum", &max);
    json_put_i64(&s->j, n > max ? max : n);
}

static void put_kind(Sampler *s, yyjson_val *schema, int depth) {
    yyjson_val *type = json_get(schema, "type");
    str kind = json_str(yyjson_is_arr(type) ? yyjson_arr_get_first(type) : type);
    if (str_is(kind, "object") || json_get(schema, "properties")) put_object(s, schema, depth);
    else if (str_is(kind, "array")) put_array(s, schema, depth);
    else if (str_is(kind, "integer") || str_is(kind, "number")) put_number(s, schema);
    else if (str_is(kind, "boolean")) json_put_bool(&s->j, s->seed & 1);
    else if (str_is(kind, "null")) json_put_null(&s->j);
    else put_word(s, schema);
}

static void put(Sampler *s, yyjson_val *schema, int depth) {
    static const char *const choices[] = { "enum", "anyOf", "oneOf", "allOf" };
    schema = follow(s, schema);
    if (depth > DEPTH_MAX) {
        json_put_null(&s->j);
        return;
    }
    if (json_get(schema, "const")) {
        json_put_val(&s->j, json_get(schema, "const"));
        return;
    }
    for (size_t i = 0; i < countof(choices); i++) {
        yyjson_val *first = yyjson_arr_get_first(json_get(schema, choices[i]));
        if (!first) continue;
        if (i) put(s, first, depth + 1);
        else json_put_val(&s->j, first);
        return;
    }
    put_kind(s, schema, depth);
}

str sample_json(Ctx *c, yyjson_val *schema, uint64_t seed) {
    Buf text;
    buf_init(&text, SAMPLE_MAX);
    Sampler s = { schema, json_to(&text), seed, 0 };
    if (schema) put(&s, schema, 0);
    else {
        json_obj(&s.j);
        json_key(&s.j, "answer");
        put_word(&s, NULL);
        json_end_obj(&s.j);
    }
    str out = arena_str(c->mem, buf_str(&text));
    buf_done(&text);
    return out;
}
