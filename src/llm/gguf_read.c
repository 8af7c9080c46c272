// SPDX-License-Identifier: Apache-2.0
// gguf_read.c - the checked pass. What it refuses beyond the format's text follows ggml's own
// loader, since a file that passes here and is refused there helps nobody: no arrays of arrays, and
// each tensor starts where the one before it ends.
// Owner: c->mem. Threads: one file a call.
#include "llm/gguf_read.h"
#include <assert.h>

enum { WINDOW = 65536 };

typedef struct Reader {
    Ctx *c;
    GgufRead read;
    void *arg;
    int64_t size;  // of the file
    int64_t limit; // no header byte is read from here on
    int64_t at;    // the next byte
    char *window;
    int64_t window_at;
    size_t window_n;
    int64_t kept; // bytes of values kept so far
} Reader;

// clang-format off
static const struct {
    const char *name;
    int bytes; // 0: not of one size
} types[GGUF_TYPE__COUNT] = {
    [GGUF_TYPE_U8] = { "uint8", 1 },       [GGUF_TYPE_I8] = { "int8", 1 },
    [GGUF_TYPE_U16] = { "uint16", 2 },     [GGUF_TYPE_I16] = { "int16", 2 },
    [GGUF_TYPE_U32] = { "uint32", 4 },     [GGUF_TYPE_I32] = { "int32", 4 },
    [GGUF_TYPE_F32] = { "float32", 4 },    [GGUF_TYPE_BOOL] = { "boolean", 1 },
    [GGUF_TYPE_TEXT] = { "string", 0 },    [GGUF_TYPE_ARRAY] = { "array", 0 },
    [GGUF_TYPE_U64] = { "uint64", 8 },     [GGUF_TYPE_I64] = { "int64", 8 },
    [GGUF_TYPE_F64] = { "float64", 8 },
};
// clang-format on
const char *gguf_type_name(GgufType t) {
    assert(t < GGUF_TYPE__COUNT);
    return types[t].name;
}

// Block sizes: ggml/src/ggml-common.h. Gaps in the numbering are types that ggml has removed.
// clang-format off
const GgufTensorType gguf_tensor_types[GGUF_TENSOR_TYPES] = {
    [0] = { "F32", 1, 4 },        [1] = { "F16", 1, 2 },       [2] = { "Q4_0", 32, 18 },
    [3] = { "Q4_1", 32, 20 },     [6] = { "Q5_0", 32, 22 },    [7] = { "Q5_1", 32, 24 },
    [8] = { "Q8_0", 32, 34 },     [9] = { "Q8_1", 32, 36 },    [10] = { "Q2_K", 256, 84 },
    [11] = { "Q3_K", 256, 110 },  [12] = { "Q4_K", 256, 144 }, [13] = { "Q5_K", 256, 176 },
    [14] = { "Q6_K", 256, 210 },  [15] = { "Q8_K", 256, 292 }, [16] = { "IQ2_XXS", 256, 66 },
    [17] = { "IQ2_XS", 256, 74 }, [18] = { "IQ3_XXS", 256, 98 }, [19] = { "IQ1_S", 256, 50 },
    [20] = { "IQ4_NL", 32, 18 },  [21] = { "IQ3_S", 256, 110 }, [22] = { "IQ2_S", 256, 82 },
    [23] = { "IQ4_XS", 256, 136 }, [24] = { "I8", 1, 1 },      [25] = { "I16", 1, 2 },
    [26] = { "I32", 1, 4 },       [27] = { "I64", 1, 8 },      [28] = { "F64", 1, 8 },
    [29] = { "IQ1_M", 256, 56 },  [30] = { "BF16", 1, 2 },     [34] = { "TQ1_0", 256, 54 },
    [35] = { "TQ2_0", 256, 66 },  [39] = { "MXFP4", 32, 17 },  [40] = { "NVFP4", 64, 36 },
    [41] = { "Q1_0", 128, 18 },   [42] = { "Q2_0", 64, 18 },
};
// clang-format on

err gguf_bad(Ctx *c, int64_t offset, const char *why) {
    return fail(c, ERR_INVALID, R_GGUF_BAD, "offset", say(c, "%lld", (long long)offset), "why",
                why);
}
// Refuses at `offset`, with a sentence in printf's format.
#define bad(r, offset, ...) gguf_bad((r)->c, (offset), say((r)->c, __VA_ARGS__))

static void map_end(void *map) { map_done(map); }
static Map *map_new(Ctx *c) { // freed with the arena
    uint64_t seed;
    os_random(c->os, &seed, sizeof seed);
    Map *m = new (c->mem, Map, 1);
    map_init(m, seed);
    arena_defer(c->mem, map_end, m);
    return m;
}

// ---- bytes

// True facts of the file first: it may be shorter than what the header claims.
static err need(Reader *r, int64_t n, const char *what) {
    assert(n >= 0 && r->at <= r->size);
    if (n > r->size - r->at)
        return bad(r, r->at, "the file ends within %s: %lld bytes are needed, %lld are left", what,
                   (long long)n, (long long)(r->size - r->at));
    if (n > r->limit - r->at)
        return bad(r, r->at, "%s passes the limit of %d bytes before the tensor data", what,
                   GGUF_HEADER_MAX);
    return ERR_OK;
}

// Makes the n bytes at r->at readable in the window and passes over them.
static err take(Reader *r, size_t n, const char *what, const char **out) {
    assert(n <= WINDOW);
    TRY(need(r, (int64_t)n, what));
    int64_t skip = r->at - r->window_at;
    if (skip < 0 || skip + (int64_t)n > (int64_t)r->window_n) {
        size_t want = r->size - r->at < WINDOW ? (size_t)(r->size - r->at) : WINDOW, got = 0;
        r->window_n = 0; // not valid, should the read fail
        TRY(r->read(r->c, r->arg, r->at, r->window, want, &got));
        r->window_at = r->at, r->window_n = got, skip = 0;
        if (got < n) return bad(r, r->at, "the file became shorter while it was read");
    }
    *out = r->window + skip;
    r->at += (int64_t)n;
    return ERR_OK;
}

static uint64_t little(const char *p, int bytes) {
    uint64_t v = 0;
    for (int i = bytes; i-- > 0;) v = v << 8 | (unsigned char)p[i];
    return v;
}
static err take_u32(Reader *r, const char *what, uint32_t *out) {
    const char *p;
    TRY(take(r, 4, what, &p));
    *out = (uint32_t)little(p, 4);
    return ERR_OK;
}
static err take_u64(Reader *r, const char *what, uint64_t *out) {
    const char *p;
    TRY(take(r, 8, what, &p));
    *out = little(p, 8);
    return ERR_OK;
}

static err skip(Reader *r, int64_t n, const char *what) {
    TRY(need(r, n, what));
    r->at += n;
    return ERR_OK;
}

// Copies n bytes that may be more than the window holds.
static err copy(Reader *r, size_t n, const char *what, str *out) {
    TRY(need(r, (int64_t)n, what));
    char *to = arena_alloc_raw(r->c->mem, n + 1);
    for (size_t done = 0; done < n;) {
        size_t part = n - done < WINDOW ? n - done : WINDOW;
        const char *p;
        TRY(take(r, part, what, &p));
        memcpy(to + done, p, part);
        done += part;
    }
    to[n] = 0;
    *out = str_n(to, n);
    return ERR_OK;
}

// A length of 8 bytes that the file can hold and that is at most `max`.
static err take_length(Reader *r, const char *what, int64_t max, int64_t *out) {
    int64_t at = r->at;
    uint64_t n;
    TRY(take_u64(r, what, &n));
    if (n > (uint64_t)(r->size - r->at))
        return bad(r, at, "the length of %s is %llu bytes, past the end of the file", what,
                   (unsigned long long)n);
    if (n > (uint64_t)max)
        return bad(r, at, "the length of %s is %llu bytes, more than %lld", what,
                   (unsigned long long)n, (long long)max);
    *out = (int64_t)n;
    return ERR_OK;
}

// A name: not empty, at most max bytes, UTF-8.
static err take_name(Reader *r, const char *what, int64_t max, str *out) {
    int64_t at = r->at, n;
    TRY(take_length(r, what, max, &n));
    if (!n) return bad(r, at, "the length of %s is 0", what);
    at = r->at;
    TRY(copy(r, (size_t)n, what, out));
    ptrdiff_t wrong = str_utf8_bad(*out);
    if (wrong >= 0) return bad(r, at + wrong, "%s is not UTF-8", what);
    return ERR_OK;
}

// ---- values

static int64_t integer_of(GgufType t, const char *p) {
    uint64_t v = little(p, types[t].bytes);
    switch (t) {
    case GGUF_TYPE_I8: return (int8_t)v;
    case GGUF_TYPE_I16: return (int16_t)v;
    case GGUF_TYPE_I32: return (int32_t)v;
    case GGUF_TYPE_I64: return (int64_t)v;
    default: return v > INT64_MAX ? INT64_MAX : (int64_t)v;
    }
}
static bool is_integer(GgufType t) {
    return t != GGUF_TYPE_F32 && t != GGUF_TYPE_F64 && t != GGUF_TYPE_TEXT && t != GGUF_TYPE_ARRAY;
}

static err take_type(Reader *r, const GgufKey *k, const char *what, GgufType *out) {
    int64_t at = r->at;
    uint32_t t;
    TRY(take_u32(r, what, &t));
    if (t >= GGUF_TYPE__COUNT)
        return bad(r, at, "%s %u of key %s is unknown", what, t, say_str(r->c, k->key));
    *out = (GgufType)t;
    return ERR_OK;
}

// Whether n more bytes may be kept.
static bool keep(Reader *r, int64_t n) {
    if (n > GGUF_KEPT_MAX - r->kept) return false;
    r->kept += n;
    return true;
}

static err take_text(Reader *r, GgufKey *k) {
    int64_t n;
    TRY(take_length(r, "a string", INT64_MAX, &n));
    if (n > GGUF_TEXT_MAX || !keep(r, n)) return skip(r, n, "a string");
    return copy(r, (size_t)n, "a string", &k->text);
}

static err take_boolean(Reader *r, const GgufKey *k, int64_t *out) {
    int64_t at = r->at;
    const char *p;
    TRY(take(r, 1, "a boolean", &p));
    if (*p != 0 && *p != 1)
        return bad(r, at, "a boolean of key %s is %u", say_str(r->c, k->key), (unsigned char)*p);
    *out = *p;
    return ERR_OK;
}

static err take_element(Reader *r, const GgufKey *k, int64_t *out) {
    const char *p;
    if (k->type == GGUF_TYPE_BOOL) return take_boolean(r, k, out);
    TRY(take(r, (size_t)types[k->type].bytes, "a value", &p));
    *out = is_integer(k->type) ? integer_of(k->type, p) : 0;
    return ERR_OK;
}

static err take_texts(Reader *r, int64_t count) {
    for (int64_t i = 0, n; i < count; i++) {
        TRY(take_length(r, "a string of an array", INT64_MAX, &n));
        TRY(skip(r, n, "a string of an array"));
    }
    return ERR_OK;
}

static err take_elements(Reader *r, GgufKey *k) {
    if (k->type == GGUF_TYPE_TEXT) return take_texts(r, k->count);
    bool kept = is_integer(k->type) && k->count <= GGUF_LAYERS_MAX && keep(r, k->count * 8);
    int64_t bytes = k->count * types[k->type].bytes; // within the file: the caller has checked
    if (!kept && k->type != GGUF_TYPE_BOOL) return skip(r, bytes, "an array");
    TRY(need(r, bytes, "an array"));
    if (kept) k->values = new (r->c->mem, int64_t, (size_t)k->count);
    for (int64_t i = 0, v; i < k->count; i++) {
        TRY(take_element(r, k, &v));
        if (kept) k->values[i] = v;
    }
    return ERR_OK;
}

static err take_array(Reader *r, GgufKey *k) {
    int64_t at = r->at;
    TRY(take_type(r, k, "the type of elements", &k->type));
    if (k->type == GGUF_TYPE_ARRAY)
        return bad(r, at, "key %s is an array of arrays", say_str(r->c, k->key));
    at = r->at;
    uint64_t n;
    TRY(take_u64(r, "the length of an array", &n));
    // The least that an element can take; a string has at least its length.
    int least = k->type == GGUF_TYPE_TEXT ? 8 : types[k->type].bytes;
    if (n > (uint64_t)(r->size - r->at) / (unsigned)least)
        return bad(r, at, "key %s claims %llu elements, more than the file can hold",
                   say_str(r->c, k->key), (unsigned long long)n);
    k->array = true, k->count = (int64_t)n;
    return take_elements(r, k);
}

static err take_key(Reader *r, GgufHead *h) {
    int64_t at = r->at;
    GgufKey *k = new (r->c->mem, GgufKey, 1);
    TRY(take_name(r, "a key", GGUF_KEY_MAX, &k->key));
    if (map_get(h->keys, k->key))
        return bad(r, at, "the key %s is there twice", say_str(r->c, k->key));
    TRY(take_type(r, k, "the type", &k->type));
    k->offset = r->at, k->count = 1;
    if (k->type == GGUF_TYPE_ARRAY) TRY(take_array(r, k));
    else if (k->type == GGUF_TYPE_TEXT) TRY(take_text(r, k));
    else TRY(take_element(r, k, &k->integer));
    map_set(h->keys, k->key, k);
    return ERR_OK;
}

// ---- tensors

typedef struct Tensor {
    str name;
    int64_t offset_at;  // where the header states its offset
    int64_t start, end; // of its bytes within the data
    int64_t elements, row;
    uint32_t type;
} Tensor;

static err take_shape(Reader *r, Tensor *t) {
    int64_t at = r->at;
    uint32_t dims;
    TRY(take_u32(r, "the number of dimensions", &dims));
    if (dims > 4)
        return bad(r, at, "tensor %s has %u dimensions, more than 4", say_str(r->c, t->name), dims);
    t->elements = t->row = 1;
    for (uint32_t i = 0; i < dims; i++) {
        at = r->at;
        uint64_t n;
        TRY(take_u64(r, "a dimension", &n));
        if (!n || n > INT64_MAX || __builtin_mul_overflow(t->elements, (int64_t)n, &t->elements))
            return bad(r, at, "dimension %u of tensor %s is %llu: not a size", i,
                       say_str(r->c, t->name), (unsigned long long)n);
        if (!i) t->row = (int64_t)n;
    }
    return ERR_OK;
}

static err take_tensor_type(Reader *r, Tensor *t, int64_t *out_bytes) {
    int64_t at = r->at;
    TRY(take_u32(r, "the type of a tensor", &t->type));
    if (t->type >= GGUF_TENSOR_TYPES || !gguf_tensor_types[t->type].block)
        return bad(r, at, "tensor %s has the unknown type %u", say_str(r->c, t->name), t->type);
    const GgufTensorType *type = &gguf_tensor_types[t->type];
    if (t->row % type->block)
        return bad(r, at, "the rows of tensor %s hold %lld numbers, no multiple of the %d of %s",
                   say_str(r->c, t->name), (long long)t->row, type->block, type->name);
    if (__builtin_mul_overflow(t->elements / type->block, (int64_t)type->bytes, out_bytes))
        return bad(r, at, "tensor %s is larger than any file", say_str(r->c, t->name));
    return ERR_OK;
}

// `next`: where the data of this tensor has to start.
static err take_offset(Reader *r, Tensor *t, int64_t bytes, int64_t next) {
    t->offset_at = r->at;
    uint64_t offset;
    TRY(take_u64(r, "the offset of a tensor", &offset));
    if (offset != (uint64_t)next)
        return bad(r, t->offset_at, "the data of tensor %s starts at %llu: %s, since %lld is next",
                   say_str(r->c, t->name), (unsigned long long)offset,
                   offset < (uint64_t)next ? "an overlap" : "a gap", (long long)next);
    t->start = next;
    if (__builtin_add_overflow(next, bytes, &t->end) || t->end > r->size - r->at)
        return bad(r, t->offset_at, "the data of tensor %s, %lld bytes, passes the end of the file",
                   say_str(r->c, t->name), (long long)bytes);
    return ERR_OK;
}

static err take_tensor(Reader *r, Map *names, int64_t next, Tensor *t) {
    int64_t at = r->at, bytes = 0;
    TRY(take_name(r, "the name of a tensor", GGUF_NAME_MAX, &t->name));
    if (map_set(names, t->name, t))
        return bad(r, at, "the tensor %s is there twice", say_str(r->c, t->name));
    TRY(take_shape(r, t));
    TRY(take_tensor_type(r, t, &bytes));
    return take_offset(r, t, bytes, next);
}

static int64_t align_up(int64_t n, int64_t alignment) { // n is at most a file's size
    return (n + alignment - 1) & ~(alignment - 1);
}

static err alignment_of(Reader *r, const GgufHead *h, int64_t *out) {
    const GgufKey *k = gguf_find(h, "general.alignment");
    *out = 32;
    if (!k) return ERR_OK;
    if (k->array || k->type != GGUF_TYPE_U32)
        return bad(r, k->offset, "general.alignment is no uint32");
    if (!k->integer || (k->integer & (k->integer - 1)))
        return bad(r, k->offset, "general.alignment is %lld, not a power of two",
                   (long long)k->integer);
    *out = k->integer;
    return ERR_OK;
}

static err take_tensors(Reader *r, GgufHead *h, int64_t alignment) {
    Map *names = map_new(r->c);
    Tensor *tensors = new (r->c->mem, Tensor, (size_t)h->tensors_n);
    int64_t next = 0;
    for (int64_t i = 0; i < h->tensors_n; i++) {
        Tensor *t = &tensors[i];
        TRY(take_tensor(r, names, next, t));
        next = align_up(t->end, alignment);
        h->bytes += t->end - t->start;
        h->bytes_by_type[t->type] += t->end - t->start;
        if (__builtin_add_overflow(h->elements, t->elements, &h->elements))
            return bad(r, t->offset_at, "the tensors hold more numbers than any file");
    }
    h->data_offset = h->tensors_n ? align_up(r->at, alignment) : r->at;
    for (int64_t i = 0; i < h->tensors_n; i++)
        if (h->data_offset > r->size || tensors[i].end > r->size - h->data_offset)
            return bad(r, tensors[i].offset_at,
                       "the data of tensor %s, %lld bytes, passes the end of the file",
                       say_str(r->c, tensors[i].name),
                       (long long)(tensors[i].end - tensors[i].start));
    return ERR_OK;
}

// ---- the whole header

static err take_count(Reader *r, const char *what, int64_t max, int least, int64_t *out) {
    int64_t at = r->at;
    uint64_t n;
    TRY(take_u64(r, what, &n));
    if (n > (uint64_t)max)
        return bad(r, at, "%s is %llu, more than %lld", what, (unsigned long long)n,
                   (long long)max);
    if (n > (uint64_t)(r->size - r->at) / (unsigned)least)
        return bad(r, at, "%s is %llu, more than the file can hold", what, (unsigned long long)n);
    *out = (int64_t)n;
    return ERR_OK;
}

static err take_magic(Reader *r, GgufHead *h) {
    const char *p;
    TRY(take(r, 4, "the magic \"GGUF\"", &p));
    if (memcmp(p, "GGUF", 4)) return bad(r, 0, "the file does not begin with \"GGUF\"");
    uint32_t version;
    TRY(take_u32(r, "the version", &version));
    if (version && !(version & 0xffff))
        return bad(r, 4, "the file is big-endian, which no engine here reads");
    if (version != 2 && version != 3)
        return bad(r, 4, "the format version is %u; 2 and 3 are known", version);
    h->version = version;
    return ERR_OK;
}

static err take_head(Reader *r, GgufHead *h) {
    int64_t keys, alignment;
    TRY(take_magic(r, h));
    // The least: a name of one byte with its length, a type, and one byte of value or no dimension
    // and an offset.
    TRY(take_count(r, "the number of tensors", GGUF_TENSORS_MAX, 8 + 1 + 4 + 4 + 8, &h->tensors_n));
    TRY(take_count(r, "the number of keys", GGUF_KEYS_MAX, 8 + 1 + 4 + 1, &keys));
    for (int64_t i = 0; i < keys; i++) TRY(take_key(r, h));
    TRY(alignment_of(r, h, &alignment));
    return take_tensors(r, h, alignment);
}

err gguf_read(Ctx *c, GgufRead read, void *arg, int64_t file_bytes, GgufHead *out) {
    assert(file_bytes >= 0);
    *out = (GgufHead){ .file_bytes = file_bytes, .keys = map_new(c) };
    Reader r = { .c = c, .read = read, .arg = arg, .size = file_bytes, .limit = file_bytes };
    if (r.limit > GGUF_HEADER_MAX) r.limit = GGUF_HEADER_MAX;
    r.window = arena_alloc_raw(c->mem, WINDOW);
    return take_head(&r, out);
}

const GgufKey *gguf_find(const GgufHead *h, const char *key) {
    return map_get(h->keys, str_z(key));
}
