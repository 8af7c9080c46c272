// SPDX-License-Identifier: Apache-2.0
// json_fuzz.c - any bytes as JSON: what is accepted is what yyjson alone accepts, less what our
// limits refuse; it is within the limits; and it reads the same after both writers, the tree's and
// the one without a tree.
// Covers: src/base/json.c src/base/buf.c src/base/str.c
// Threads: one.
#include "fuzz.h"

static void write_value(Json *j, yyjson_val *v) {
    size_t i, n;
    yyjson_val *key, *at;
    bool huge = yyjson_is_uint(v) && yyjson_get_uint(v) > INT64_MAX;
    if (yyjson_is_obj(v)) {
        json_obj(j);
        yyjson_obj_foreach(v, i, n, key, at) json_key_str(j, json_str(key)), write_value(j, at);
        json_end_obj(j);
    } else if (yyjson_is_arr(v)) {
        json_arr(j);
        yyjson_arr_foreach(v, i, n, at) write_value(j, at);
        json_end_arr(j);
    } else if (yyjson_is_str(v)) json_put_str(j, json_str(v));
    else if (yyjson_is_bool(v)) json_put_bool(j, yyjson_get_bool(v));
    else if (yyjson_is_int(v) && !huge) json_put_i64(j, yyjson_get_sint(v));
    else if (yyjson_is_real(v)) json_put_f64(j, yyjson_get_real(v));
    else json_put_val(j, v);
}

// As values: 3.0 and 3 are one. Also walks the limits.
static bool same(yyjson_val *a, yyjson_val *b, int depth) {
    assert(depth <= JSON_DEPTH_MAX || !yyjson_is_ctn(a)); // the deepest holds values
    if (yyjson_is_num(a)) return yyjson_is_num(b) && yyjson_get_num(a) == yyjson_get_num(b);
    if (yyjson_get_type(a) != yyjson_get_type(b)) return false;
    if (yyjson_is_str(a)) return str_utf8(json_str(a)) && str_eq(json_str(a), json_str(b));
    if (yyjson_is_bool(a)) return yyjson_get_bool(a) == yyjson_get_bool(b);
    if (!yyjson_is_ctn(a)) return true;
    size_t i, n = yyjson_get_len(a);
    if (n != yyjson_get_len(b)) return false;
    yyjson_val *key, *one;
    if (yyjson_is_arr(a)) {
        yyjson_arr_iter it = yyjson_arr_iter_with(b);
        yyjson_arr_foreach(a, i, n, one) {
            if (!same(one, yyjson_arr_iter_next(&it), depth + 1)) return false;
        }
        return true;
    }
    yyjson_obj_iter it = yyjson_obj_iter_with(b);
    yyjson_obj_foreach(a, i, n, key, one) {
        yyjson_val *other = yyjson_obj_iter_next(&it);
        assert(yyjson_obj_getn(a, yyjson_get_str(key), yyjson_get_len(key)) == one); // not twice
        if (!same(key, other, depth)) return false;
        if (!same(one, yyjson_obj_iter_get_val(other), depth + 1)) return false;
    }
    return true;
}

static void check_accepted(Ctx *c, yyjson_val *root, size_t size) {
    yyjson_val *again;
    str text = json_text(c->mem, root);
    err e = json_parse(c, text, &again);
    assert(!e && same(root, again, 1) && str_eq(json_text(c->mem, again), text));
    Buf b;
    buf_init(&b, size * 20 + 64); // 1e14 becomes 15 digits
    Json j = json_to(&b);
    write_value(&j, root);
    assert(!b.full && !j.depth);
    e = json_parse(c, buf_str(&b), &again);
    assert(!e && same(root, again, 1));
    buf_done(&b);
}

FUZZ(json) {
    Ctx c;
    yyjson_val *root;
    ctx_init(&c, arena_new(), NULL);
    yyjson_doc *plain = yyjson_read(bytes.p, bytes.n, 0);
    err e = json_parse(&c, bytes, &root);
    if (e) {
        fuzz_refused(&c, e, ERR_INVALID);
        bool limit = c.failure.why == &R_JSON_DEPTH || c.failure.why == &R_JSON_TWICE;
        assert(limit == (plain != NULL));
    } else {
        assert(plain && same(root, yyjson_doc_get_root(plain), 1));
        check_accepted(&c, root, bytes.n);
    }
    yyjson_doc_free(plain);
    arena_free(c.mem);
}
