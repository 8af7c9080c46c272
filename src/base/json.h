// SPDX-License-Identifier: Apache-2.0
// json.h - reading JSON (RFC 8259) with limits, and writing it without a tree. The parser is
// yyjson; documents live in an arena.
// Writing: a Json writer puts commas and escapes; its owner checks buf->full once at the end.
#ifndef LATHE_BASE_JSON_H
#define LATHE_BASE_JSON_H
#include "ctx.h"
#include <yyjson.h>

enum { JSON_DEPTH_MAX = 64 };

// Parses the whole of s: UTF-8 checked, depth at most JSON_DEPTH_MAX, no trailing bytes, and no key
// twice in one object (readers disagree on which counts, so a check and an upstream could see
// different values). Values point into c->mem. ERR_INVALID with R_JSON_SYNTAX, R_JSON_DEPTH,
// R_JSON_UTF8, each with the byte offset, or R_JSON_TWICE.
err json_parse(Ctx *c, str s, yyjson_val **out_root);
static inline str json_str(yyjson_val *v) {
    return yyjson_is_str(v) ? str_n(yyjson_get_str(v), yyjson_get_len(v)) : (str){ 0 };
}
// NULL when obj is no object or lacks the key.
yyjson_val *json_get(yyjson_val *obj, const char *key);
// The absent string when missing or no string.
str json_get_str(yyjson_val *obj, const char *key);
// False when missing, of another type, or out of range; *out is then untouched. 3.0 is no integer.
bool json_get_i64(yyjson_val *obj, const char *key, int64_t *out);
bool json_get_f64(yyjson_val *obj, const char *key, double *out); // integers too
bool json_get_bool(yyjson_val *obj, const char *key, bool fallback);
str json_text(Arena *a, yyjson_val *v); // compact text of any value

typedef struct Json {
    Buf *out;
    uint64_t comma; // one bit a level
    int depth;      // at most 64
} Json;
static inline Json json_to(Buf *out) { return (Json){ out, 0, 0 }; }
void json_obj(Json *j); // {   as a value
void json_arr(Json *j); // [
void json_end_obj(Json *j);
void json_end_arr(Json *j);
void json_key(Json *j, const char *key); // then one value
void json_key_str(Json *j, str key);
void json_put_str(Json *j, str s); // the absent string is null
void json_put_i64(Json *j, int64_t n);
void json_put_f64(Json *j, double f); // shortest text that reads back; not finite: null
void json_put_bool(Json *j, bool b);
void json_put_null(Json *j);
void json_put_raw(Json *j, str json); // text that is already one JSON value
void json_put_val(Json *j, yyjson_val *v);
// key and value in one
void json_kv_str(Json *j, const char *key, str s);
void json_kv_z(Json *j, const char *key, const char *z);
void json_kv_i64(Json *j, const char *key, int64_t n);
void json_kv_f64(Json *j, const char *key, double f);
void json_kv_bool(Json *j, const char *key, bool b);
void json_kv_raw(Json *j, const char *key, str json);
#endif
