// SPDX-License-Identifier: Apache-2.0
// json.c - limits around yyjson, which is iterative and so cannot run out of stack; and the
// writer. Owner: documents live in the caller's arena. Threads: one at a time for each arena.
#include "json.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>

static void *alc_malloc(void *a, size_t size) { return arena_alloc_raw(a, size); }
static void *alc_realloc(void *a, void *p, size_t old_size, size_t size) {
    return size <= old_size ? p : arena_grow_raw(a, p, old_size, size);
}
static void alc_free(void *a, void *p) { (void)a, (void)p; }
static yyjson_alc alc_in(Arena *a) { return (yyjson_alc){ alc_malloc, alc_realloc, alc_free, a }; }

static err fail_syntax(Ctx *c, str s, yyjson_read_err e) {
    ptrdiff_t bad = str_utf8_bad(s);
    if (bad >= 0 && (size_t)bad <= e.pos)
        return fail(c, ERR_INVALID, R_JSON_UTF8, "offset", say(c, "%td", bad));
    const char *why = s.n ? e.msg : "there is nothing where JSON should be";
    return fail(c, ERR_INVALID, R_JSON_SYNTAX, "why", why, "offset", say(c, "%zu", e.pos));
}

// Where valid JSON first goes too deep.
static size_t deep_offset(str s) {
    int depth = 0;
    bool quoted = false;
    for (size_t i = 0; i < s.n; i++) {
        char ch = s.p[i];
        if (quoted) {
            if (ch == '\\') i++;
            else if (ch == '"') quoted = false;
        } else if (ch == '"') quoted = true;
        else if (ch == ']' || ch == '}') depth--;
        else if ((ch == '[' || ch == '{') && ++depth > JSON_DEPTH_MAX) return i;
    }
    return s.n;
}

static int by_bytes(const void *a, const void *b) {
    return str_cmp(*(const str *)a, *(const str *)b);
}

// The first key that stands twice in the object, or the absent string.
static str twice(Arena *mem, yyjson_val *obj) {
    enum { FEW = 16 };
    size_t n = yyjson_obj_size(obj), i = 0;
    str few[FEW], found = { 0 };
    ArenaMark m = arena_mark(mem);
    str *keys = n <= FEW ? few : arena_alloc_raw(mem, n * sizeof *keys);
    yyjson_obj_iter it = yyjson_obj_iter_with(obj);
    for (yyjson_val *key; !found.p && (key = yyjson_obj_iter_next(&it)); i++) {
        keys[i] = json_str(key);
        for (size_t j = 0; n <= FEW && j < i; j++)
            if (str_eq(keys[j], keys[i])) found = keys[i];
    }
    if (n > FEW) {
        qsort(keys, n, sizeof *keys, by_bytes);
        for (i = 1; !found.p && i < n; i++)
            if (str_eq(keys[i - 1], keys[i])) found = keys[i];
    }
    if (n > FEW) arena_restore(mem, m);
    return found;
}

// Values lie one after the other in the order of the text, so a walk needs no recursion: only where
// each open container ends.
static err check_tree(Ctx *c, str s, yyjson_val *root) {
    const yyjson_val *ends[JSON_DEPTH_MAX], *end = unsafe_yyjson_get_next(root);
    int depth = 0;
    for (yyjson_val *v = root; v < end; v++) {
        while (depth && v >= ends[depth - 1]) depth--;
        if (!yyjson_is_ctn(v)) continue;
        if (depth == JSON_DEPTH_MAX)
            return fail(c, ERR_INVALID, R_JSON_DEPTH, "limit", say(c, "%d", JSON_DEPTH_MAX),
                        "offset", say(c, "%zu", deep_offset(s)));
        ends[depth++] = unsafe_yyjson_get_next(v);
        str key = yyjson_is_obj(v) ? twice(c->mem, v) : (str){ 0 };
        if (key.p) return fail(c, ERR_INVALID, R_JSON_TWICE, "key", say_str(c, key));
    }
    return ERR_OK;
}

err json_parse(Ctx *c, str s, yyjson_val **out_root) {
    yyjson_alc alc = alc_in(c->mem);
    yyjson_read_err e;
    char *copy = arena_alloc_raw(c->mem, s.n + YYJSON_PADDING_SIZE); // parsed where it lies
    if (s.n) memcpy(copy, s.p, s.n);
    memset(copy + s.n, 0, YYJSON_PADDING_SIZE);
    yyjson_doc *doc = yyjson_read_opts(copy, s.n, YYJSON_READ_INSITU, &alc, &e);
    if (!doc) return fail_syntax(c, s, e);
    yyjson_val *root = yyjson_doc_get_root(doc);
    TRY(check_tree(c, s, root));
    *out_root = root;
    return ERR_OK;
}

yyjson_val *json_get(yyjson_val *obj, const char *key) { return yyjson_obj_get(obj, key); }

str json_get_str(yyjson_val *obj, const char *key) { return json_str(json_get(obj, key)); }

bool json_get_i64(yyjson_val *obj, const char *key, int64_t *out) {
    yyjson_val *v = json_get(obj, key);
    if (!yyjson_is_int(v) || (yyjson_is_uint(v) && yyjson_get_uint(v) > INT64_MAX)) return false;
    *out = yyjson_get_sint(v);
    return true;
}

bool json_get_f64(yyjson_val *obj, const char *key, double *out) {
    yyjson_val *v = json_get(obj, key);
    if (!yyjson_is_num(v)) return false;
    *out = yyjson_get_num(v);
    return true;
}

bool json_get_bool(yyjson_val *obj, const char *key, bool fallback) {
    yyjson_val *v = json_get(obj, key);
    return yyjson_is_bool(v) ? yyjson_get_bool(v) : fallback;
}

str json_text(Arena *a, yyjson_val *v) {
    yyjson_alc alc = alc_in(a);
    size_t n;
    char *text = yyjson_val_write_opts(v, 0, &alc, &n, NULL);
    return text ? str_n(text, n) : S("null");
}

// Before a value or a key. At the top there are no commas: a writer may put one document a line.
static void comma(Json *j) {
    if (!j->depth) return;
    uint64_t bit = (uint64_t)1 << (j->depth - 1);
    if (j->comma & bit) buf_add_char(j->out, ',');
    j->comma |= bit;
}

static void json_open(Json *j, char c) {
    comma(j);
    buf_add_char(j->out, c);
    assert(j->depth < 64);
    j->comma &= ~((uint64_t)1 << j->depth++);
}

static void json_close(Json *j, char c) {
    assert(j->depth > 0);
    j->depth--;
    buf_add_char(j->out, c);
}

void json_obj(Json *j) { json_open(j, '{'); }
void json_arr(Json *j) { json_open(j, '['); }
void json_end_obj(Json *j) { json_close(j, '}'); }
void json_end_arr(Json *j) { json_close(j, ']'); }

void json_key_str(Json *j, str key) {
    assert(j->depth > 0);
    comma(j);
    buf_add_json(j->out, key);
    buf_add_char(j->out, ':');
    j->comma &= ~((uint64_t)1 << (j->depth - 1)); // the value comes without one
}

void json_key(Json *j, const char *key) { json_key_str(j, str_z(key)); }

void json_put_raw(Json *j, str json) {
    comma(j);
    buf_add(j->out, json);
}

void json_put_str(Json *j, str s) {
    comma(j);
    if (s.p) buf_add_json(j->out, s);
    else buf_add(j->out, S("null"));
}

void json_put_i64(Json *j, int64_t n) {
    comma(j);
    char text[STR_I64];
    buf_add(j->out, str_i64(n, text));
}

// yyjson's writer finds the shortest digits, which printf cannot.
static void add_real(Buf *b, double f) {
    yyjson_val v = { .tag = YYJSON_TYPE_NUM | YYJSON_SUBTYPE_REAL, .uni.f64 = f };
    char pool[512]; // a number takes 32 bytes and the pool its bookkeeping
    yyjson_alc alc;
    size_t n;
    bool ready = yyjson_alc_pool_init(&alc, pool, sizeof pool);
    const char *text = ready ? yyjson_val_write_opts(&v, 0, &alc, &n, NULL) : NULL;
    assert(text);
    buf_add(b, str_n(text, n));
}

void json_put_f64(Json *j, double f) {
    comma(j);
    if (!isfinite(f)) buf_add(j->out, S("null"));
    else if (f == 0 && signbit(f)) buf_add(j->out, S("-0.0"));
    else if (fabs(f) < 1e15 && f == (double)(int64_t)f) buf_printf(j->out, "%lld", (long long)f);
    else add_real(j->out, f);
}

void json_put_bool(Json *j, bool b) { json_put_raw(j, b ? S("true") : S("false")); }
void json_put_null(Json *j) { json_put_raw(j, S("null")); }

void json_put_val(Json *j, yyjson_val *v) {
    size_t n;
    char *text = yyjson_val_write(v, 0, &n);
    json_put_raw(j, text ? str_n(text, n) : S("null"));
    free(text);
}

void json_kv_str(Json *j, const char *key, str s) { json_key(j, key), json_put_str(j, s); }
void json_kv_z(Json *j, const char *key, const char *z) { json_kv_str(j, key, str_z(z)); }
void json_kv_i64(Json *j, const char *key, int64_t n) { json_key(j, key), json_put_i64(j, n); }
void json_kv_f64(Json *j, const char *key, double f) { json_key(j, key), json_put_f64(j, f); }
void json_kv_bool(Json *j, const char *key, bool b) { json_key(j, key), json_put_bool(j, b); }
void json_kv_raw(Json *j, const char *key, str json) { json_key(j, key), json_put_raw(j, json); }
