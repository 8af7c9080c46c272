// SPDX-License-Identifier: Apache-2.0
// gguf_test.c - the reader against files that a small writer makes: true ones, ones cut at every
// byte, ones with every bit turned, and ones where a single field lies.
// Owner: each test its own. Threads: one.
#include "llm/gguf_read.h"
#include "base/test.h"
#include "os/file.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

// ---- the writer: remembers where each field lies, so that a test can lie in it

enum { MARKS_MAX = 256, FILE_MAX = 1 << 16 };
typedef struct Maker {
    char bytes[FILE_MAX];
    size_t n;
    struct {
        char name[64];
        size_t at;
    } marks[MARKS_MAX];
    size_t marks_n, data_at;
} Maker;

static Maker m; // one test at a time

static void mark(const char *fmt, const char *name) {
    assert(m.marks_n < MARKS_MAX);
    snprintf(m.marks[m.marks_n].name, 64, fmt, name);
    m.marks[m.marks_n++].at = m.n;
}
static int64_t at(const char *name) {
    for (size_t i = 0; i < m.marks_n; i++)
        if (!strcmp(m.marks[i].name, name)) return (int64_t)m.marks[i].at;
    test_failed(__FILE__, __LINE__, "no field %s", name);
    return -1;
}
static bool is_mark(int64_t offset) {
    for (size_t i = 0; i < m.marks_n; i++)
        if ((int64_t)m.marks[i].at == offset) return true;
    return false;
}
static void put(const void *p, size_t n) {
    assert(m.n + n <= FILE_MAX);
    memcpy(m.bytes + m.n, p, n);
    m.n += n;
}
static void put_number(uint64_t v, int bytes) { // little-endian, as this machine
    put(&v, (size_t)bytes);
}
static void put_text(const char *z) {
    put_number(strlen(z), 8);
    put(z, strlen(z));
}
static void put_key(const char *key, GgufType type) {
    mark("%s", key);
    put_number(strlen(key), 8);
    mark("%s:name", key);
    put(key, strlen(key));
    mark("%s:type", key);
    put_number(type, 4);
    mark("%s:value", key);
}
static void key_u32(const char *key, uint32_t v) { put_key(key, GGUF_TYPE_U32), put_number(v, 4); }
static void key_text(const char *key, const char *v) {
    put_key(key, GGUF_TYPE_TEXT), put_number(strlen(v), 8);
    mark("%s:bytes", key);
    put(v, strlen(v));
}
static void key_array(const char *key, GgufType type, uint64_t n) {
    put_key(key, GGUF_TYPE_ARRAY), put_number(type, 4);
    mark("%s:count", key);
    put_number(n, 8);
}
static void tensor(const char *name, uint64_t columns, uint64_t rows, uint32_t type, size_t at) {
    mark("%s", name);
    put_number(strlen(name), 8);
    mark("%s:name", name);
    put(name, strlen(name));
    mark("%s:dims", name), put_number(2, 4);
    mark("%s:columns", name), put_number(columns, 8);
    mark("%s:rows", name), put_number(rows, 8);
    mark("%s:type", name), put_number(type, 4);
    mark("%s:offset", name), put_number(at, 8);
}

enum { KEYS = 16, TENSORS = 2 };
static void make_head(uint32_t version) {
    m.n = m.marks_n = 0;
    mark("%s", "magic"), put("GGUF", 4);
    mark("%s", "version"), put_number(version, 4);
    mark("%s", "tensors"), put_number(TENSORS, 8);
    mark("%s", "keys"), put_number(KEYS, 8);
}
static void make_keys(void) {
    key_text("general.architecture", "llama");
    key_text("general.name", "Tiny");
    key_text("general.license", "apache-2.0");
    key_u32("general.file_type", 3);
    key_u32("general.alignment", 64);
    key_u32("llama.context_length", 2048);
    key_u32("llama.embedding_length", 576);
    key_u32("llama.block_count", 30);
    key_u32("llama.attention.head_count", 9);
    key_u32("llama.feed_forward_length", 1536);
    put_key("llama.attention.layer_norm_rms_epsilon", GGUF_TYPE_F32), put_number(0, 4);
    put_key("tokenizer.ggml.add_bos_token", GGUF_TYPE_BOOL), put_number(1, 1);
    key_text("tokenizer.chat_template", "{{ messages }}");
    key_text("tokenizer.ggml.model", "gpt2");
    key_array("llama.attention.head_count_kv", GGUF_TYPE_I32, 30);
    for (int i = 0; i < 30; i++) mark("%s", "layer"), put_number(3, 4);
    key_array("tokenizer.ggml.tokens", GGUF_TYPE_TEXT, 3);
    mark("%s", "token 0"), put_text("a");
    mark("%s", "token 1"), put_text("");
    mark("%s", "token 2"), put_text("bc");
}
// 64 × 2 numbers of Q4_1 are 80 bytes, at 0; 8 × 2 of F32 are 64, at 128 after padding.
static void make_tensors(void) {
    tensor("one", 64, 2, 3, 0);
    tensor("two", 8, 2, 0, 128);
    m.data_at = (m.n + 63) / 64 * 64;
    m.n = m.data_at + 128 + 64;
    memset(m.bytes + m.data_at, 'w', 128 + 64);
}
static str make(void) {
    make_head(3);
    make_keys();
    make_tensors();
    return str_n(m.bytes, m.n);
}
static void patch(int64_t offset, uint64_t v, int bytes) {
    assert(offset >= 0 && (size_t)offset + 8 < FILE_MAX);
    memcpy(m.bytes + offset, &v, (size_t)bytes);
}

static Ctx *ctx(void) {
    Ctx *c = test_ctx();
    c->os = os_real();
    return c;
}
// From a copy of the exact size, so that a sanitizer sees a byte too far.
static err facts_of(Ctx *c, str file, GgufFacts *g) {
    char *copy = malloc(file.n ? file.n : 1);
    assert(copy);
    memcpy(copy, file.p, file.n);
    err e = gguf_facts_bytes(c, str_n(copy, file.n), g);
    free(copy);
    return e;
}
static int64_t refused_at(const Ctx *c) {
    int64_t offset = -1;
    bool told = str_to_i64(failure_param(&c->failure, "offset"), &offset);
    return told ? offset : -1;
}

// ---- true files

TEST(gguf_tells_the_facts) {
    Ctx *c = ctx();
    GgufFacts g;
    str file = make();
    CHECK_OK(c, facts_of(c, file, &g));
    CHECK_STR(g.architecture, "llama");
    CHECK_STR(g.name, "Tiny");
    CHECK_STR(g.licence, "apache-2.0");
    CHECK_STR(g.quantisation, "Q4_1");
    CHECK_STR(g.tokenizer, "gpt2");
    CHECK_STR(g.chat_template, "{{ messages }}");
    CHECK(!g.base_model.p && !g.pooling.p && g.can_chat && !g.embedder);
    CHECK_INT(g.version, 3);
    CHECK_INT(g.tensors, TENSORS);
    CHECK_INT(g.keys, KEYS);
    CHECK_INT(g.file_bytes, file.n);
    CHECK_INT(g.data_offset, m.data_at);
    CHECK_INT(g.parameters, 64 * 2 + 8 * 2);
    CHECK_INT(g.tensor_bytes, 80 + 64);
    CHECK_INT(g.context, 2048);
    CHECK_INT(g.embedding, 576);
    CHECK_INT(g.layers, 30);
    CHECK_INT(g.heads, 9);
    CHECK_INT(g.heads_kv, 3);
    CHECK_INT(g.key_length, 64);
    CHECK_INT(g.value_length, 64);
    CHECK_INT(g.vocabulary, 3);
    CHECK_INT(g.kv_elements, 30 * 3 * (64 + 64));
}

TEST(gguf_version_2_is_read_too) {
    Ctx *c = ctx();
    GgufFacts g;
    make();
    patch(at("version"), 2, 4);
    CHECK_OK(c, facts_of(c, str_n(m.bytes, m.n), &g));
    CHECK_INT(g.version, 2);
}

TEST(gguf_names_the_commonest_type_when_the_file_names_none) {
    Ctx *c = ctx();
    GgufFacts g;
    make();
    patch(at("general.file_type:value"), 999, 4);
    CHECK_OK(c, facts_of(c, str_n(m.bytes, m.n), &g));
    CHECK_STR(g.quantisation, "Q4_1"); // 80 bytes against 64
}

TEST(gguf_facts_come_back_from_their_json) {
    Ctx *c = ctx();
    GgufFacts g, back;
    yyjson_val *root;
    Buf b;
    CHECK_OK(c, facts_of(c, make(), &g));
    buf_init(&b, GGUF_JSON_MAX);
    Json j = json_to(&b);
    gguf_facts_json(&g, &j);
    CHECK_OK(c, json_parse(c, buf_str(&b), &root));
    buf_done(&b);
    CHECK(gguf_facts_parse(root, &back));
    CHECK_INT(back.kv_elements, g.kv_elements);
    CHECK(str_eq(back.chat_template, g.chat_template) && !back.pooling.p && back.can_chat);
    CHECK_INT(gguf_memory_bytes(&back, 2048, 4, "q8_0"), gguf_memory_bytes(&g, 2048, 4, "q8_0"));
    const char *const wrong[] = { "{}", "[]", "{\"version\":-1}", "{\"version\":\"3\"}" };
    for (size_t i = 0; i < countof(wrong); i++) {
        CHECK_OK(c, json_parse(c, str_z(wrong[i]), &root));
        CHECK(!gguf_facts_parse(root, &back));
    }
}

// ---- cut and turned

// A refusal of a cut file names a field that the file still has, or the one at the cut.
TEST(gguf_cut_at_any_byte_is_refused) {
    GgufFacts g;
    size_t whole = make().n;
    for (size_t n = 0; n < whole; n++) {
        Ctx *c = ctx();
        CHECK_ERR(facts_of(c, str_n(m.bytes, n), &g), ERR_INVALID);
        CHECK(c->failure.why == &R_GGUF_BAD);
        int64_t offset = refused_at(c);
        if (offset < 0 || offset > (int64_t)n || !is_mark(offset))
            TEST_FAIL_("cut at %zu, refused at %lld", n, (long long)offset);
        if (n >= m.data_at + 80) CHECK_INT(offset, at("two:offset"));
    }
}

// Whatever a bit turns, the answer is facts or a refusal within the file.
TEST(gguf_any_turned_bit_is_survived) {
    GgufFacts g;
    int facts = 0, refused = 0;
    make();
    for (size_t i = 0; i < 8 * m.data_at; i++) {
        Ctx *c = ctx();
        m.bytes[i / 8] ^= (char)(1 << i % 8);
        err e = facts_of(c, str_n(m.bytes, m.n), &g);
        m.bytes[i / 8] ^= (char)(1 << i % 8);
        if (e) CHECK(e == ERR_INVALID && refused_at(c) >= 0 && refused_at(c) <= (int64_t)m.n);
        else CHECK(gguf_memory_bytes(&g, 1 << 20, 8, "f16") > 0);
        e ? refused++ : facts++;
    }
    CHECK(facts > 100 && refused > 1000); // names may change; structure may not
}

TEST(gguf_noise_in_place_of_a_field_is_survived) {
    GgufFacts g;
    for (int round = 0; round < 4000; round++) {
        Ctx *c = ctx();
        make();
        size_t to = test_random() % m.data_at;
        uint64_t noise = test_random() >> test_random() % 64;
        patch((int64_t)to, noise, 1 + (int)(test_random() % 8));
        err e = facts_of(c, str_n(m.bytes, m.n), &g);
        CHECK(!e || (e == ERR_INVALID && refused_at(c) <= (int64_t)m.n));
        CHECK(arena_used(c->mem) < 1 << 20);
    }
}

// The fuzzer's corpus, from the root of the tree: what begins with "ok-" gives facts.
TEST(gguf_corpus_of_the_fuzzer) {
    str *names;
    size_t n;
    Ctx *list = ctx();
    CHECK_OK(list, dir_list(list, S("fuzz/corpus/gguf"), &names, &n));
    CHECK(n >= 15);
    for (size_t i = 0; i < n; i++) {
        Ctx *c = ctx();
        GgufFacts g;
        str file, path = arena_printf(c->mem, "fuzz/corpus/gguf/" STR_FMT, STR_ARG(names[i]));
        CHECK_OK(c, file_read_all(c, path, FILE_MAX, &file));
        bool refused = facts_of(c, file, &g) != ERR_OK;
        if (refused == str_starts(names[i], S("ok-"))) TEST_FAIL_(STR_FMT, STR_ARG(names[i]));
    }
}

// ---- a field that lies

typedef struct Lie {
    const char *field; // what is patched
    uint64_t value;
    int bytes;
    const char *refused; // the field that the refusal points at
    const char *why;     // part of its sentence
} Lie;
// clang-format off
static const Lie lies[] = {
    { "magic", 0x46554748, 4, "magic", "does not begin" },
    { "version", 0, 4, "version", "is 0" },
    { "version", 1, 4, "version", "is 1" },
    { "version", 4, 4, "version", "is 4" },
    { "version", 0x03000000, 4, "version", "big-endian" },
    { "tensors", 1ull << 60, 8, "tensors", "more than 65536" },
    { "tensors", UINT64_MAX, 8, "tensors", "more than 65536" },
    { "tensors", 60000, 8, "tensors", "more than the file can hold" },
    { "tensors", 3, 8, NULL, "" },
    { "keys", 1ull << 60, 8, "keys", "more than 16384" },
    { "keys", 16384, 8, "keys", "more than the file can hold" },
    { "keys", 17, 8, NULL, "" },
    { "keys", 15, 8, NULL, "" },
    { "general.name", UINT64_MAX, 8, "general.name", "past the end" },
    { "general.name", 1ull << 63, 8, "general.name", "past the end" },
    { "general.name", 1025, 8, "general.name", "more than 1024" },
    { "general.name", 0, 8, "general.name", "is 0" },
    { "general.name:name", 0x80, 1, "general.name:name", "not UTF-8" },
    { "general.name:type", 13, 4, "general.name:type", "unknown" },
    { "general.name:type", UINT32_MAX, 4, "general.name:type", "unknown" },
    { "general.name:value", 1ull << 60, 8, "general.name:value", "past the end" },
    { "general.name:bytes", 0xff, 1, "general.name:bytes", "not UTF-8" },
    { "general.alignment:value", 0, 4, "general.alignment:value", "power of two" },
    { "general.alignment:value", 48, 4, "general.alignment:value", "power of two" },
    { "general.alignment:value", 1u << 31, 4, "two:offset", "an overlap" },
    { "general.alignment:type", GGUF_TYPE_I32, 4, "general.alignment:value", "no uint32" },
    { "llama.context_length:value", UINT32_MAX, 4, "llama.context_length:value", "not within" },
    { "llama.context_length:type", GGUF_TYPE_F32, 4, "llama.context_length:value", "a float32" },
    { "llama.context_length:type", GGUF_TYPE_I32, 4, NULL, NULL },
    { "llama.block_count:value", 4097, 4, "llama.block_count:value", "not within" },
    { "llama.block_count:value", 31, 4, "llama.attention.head_count_kv:value",
      "30 elements for 31 layers" },
    { "layer", UINT32_MAX, 4, "llama.attention.head_count_kv:value", "is -1" },
    { "tokenizer.ggml.add_bos_token:value", 2, 1, "tokenizer.ggml.add_bos_token:value", "is 2" },
    { "tokenizer.ggml.tokens:value", GGUF_TYPE_ARRAY, 4, "tokenizer.ggml.tokens:value",
      "array of arrays" },
    { "tokenizer.ggml.tokens:value", 99, 4, "tokenizer.ggml.tokens:value", "unknown" },
    { "tokenizer.ggml.tokens:count", 1ull << 60, 8, "tokenizer.ggml.tokens:count",
      "more than the file can hold" },
    { "tokenizer.ggml.tokens:count", UINT64_MAX, 8, "tokenizer.ggml.tokens:count",
      "more than the file can hold" },
    { "llama.attention.head_count_kv:count", 1ull << 62, 8, "llama.attention.head_count_kv:count",
      "more than the file can hold" },
    { "token 1", 1ull << 40, 8, "token 1", "past the end" },
    { "token 2", UINT64_MAX - 7, 8, "token 2", "past the end" },
    { "one", 64, 8, "one", "more than 63" },
    { "one", 0, 8, "one", "is 0" },
    { "one:dims", 5, 4, "one:dims", "5 dimensions" },
    { "one:dims", UINT32_MAX, 4, "one:dims", "dimensions" },
    { "one:columns", 0, 8, "one:columns", "not a size" },
    { "one:columns", 1ull << 63, 8, "one:columns", "not a size" },
    { "one:rows", 1ull << 60, 8, "one:rows", "not a size" },
    { "one:rows", 1ull << 56, 8, "one:offset", "passes the end" },
    { "one:columns", 65, 8, "one:type", "no multiple of the 32" },
    { "one:type", 4, 4, "one:type", "unknown type 4" },
    { "one:type", 31, 4, "one:type", "unknown type 31" },
    { "one:type", 43, 4, "one:type", "unknown type 43" },
    { "one:type", UINT32_MAX, 4, "one:type", "unknown type" },
    { "one:offset", 64, 8, "one:offset", "a gap" },
    { "one:offset", UINT64_MAX, 8, "one:offset", "a gap" },
    { "two:offset", 64, 8, "two:offset", "an overlap" },
    { "two:offset", 0, 8, "two:offset", "an overlap" },
    { "two:offset", 192, 8, "two:offset", "a gap" },
    { "two:rows", 3, 8, "two:offset", "passes the end" },
    { "two:name", 0x656e6f, 3, "two", "there twice" },
};
// clang-format on

TEST(gguf_each_lie_is_refused_where_it_stands) {
    for (size_t i = 0; i < countof(lies); i++) {
        const Lie *l = &lies[i];
        Ctx *c = ctx();
        GgufFacts g = { .version = 77 };
        make();
        patch(at(l->field), l->value, l->bytes);
        err e = facts_of(c, str_n(m.bytes, m.n), &g);
        if (!l->why) {
            CHECK_OK(c, e);
            continue;
        }
        if (e != ERR_INVALID || c->failure.why != &R_GGUF_BAD)
            TEST_FAIL_("%s = %llx: not refused", l->field, (unsigned long long)l->value);
        str why = failure_param(&c->failure, "why");
        if (str_find(why, str_z(l->why)) < 0 || (l->refused && refused_at(c) != at(l->refused)))
            TEST_FAIL_("%s = %llx: refused at %lld: " STR_FMT, l->field,
                       (unsigned long long)l->value, (long long)refused_at(c), STR_ARG(why));
        CHECK_INT(g.version, 77); // untouched on failure
    }
}

static err with_keys(Ctx *c, int keys, void (*more)(void), GgufFacts *g) {
    make_head(3);
    patch(at("keys"), (uint64_t)(KEYS + keys), 8);
    make_keys();
    more();
    make_tensors();
    return facts_of(c, str_n(m.bytes, m.n), g);
}

static void again(void) { mark("%s", "again"), key_text("general.name", "Other"); }
TEST(gguf_a_key_twice_is_refused) {
    Ctx *c = ctx();
    GgufFacts g;
    CHECK_ERR(with_keys(c, 1, again, &g), ERR_INVALID);
    CHECK_INT(refused_at(c), at("again"));
}

static void part(void) { put_key("split.count", GGUF_TYPE_U16), put_number(3, 2); }
TEST(gguf_a_part_of_a_model_is_not_a_model) {
    Ctx *c = ctx();
    GgufFacts g;
    CHECK_ERR(with_keys(c, 1, part, &g), ERR_INVALID);
    CHECK_INT(refused_at(c), at("split.count:value"));
}

TEST(gguf_without_architecture_is_refused) {
    Ctx *c = ctx();
    GgufFacts g;
    make();
    memcpy(m.bytes + at("general.architecture:name"), "xeneral", 7);
    CHECK_ERR(facts_of(c, str_n(m.bytes, m.n), &g), ERR_INVALID);
    CHECK(str_find(failure_param(&c->failure, "why"), S("general.architecture")) >= 0);
}

// ---- what architectures mean

static void pooled(void) { key_u32("llama.pooling_type", 1); }
TEST(gguf_pooling_makes_an_embedder) {
    Ctx *c = ctx();
    GgufFacts g;
    CHECK_OK(c, with_keys(c, 1, pooled, &g));
    CHECK(g.embedder);
    CHECK_STR(g.pooling, "mean");
    patch(at("llama.pooling_type:value"), 4, 4);
    CHECK_OK(c, facts_of(c, str_n(m.bytes, m.n), &g));
    CHECK(!g.embedder); // it ranks
    CHECK_STR(g.pooling, "rank");
}

static void pattern(void) {
    key_u32("llama.attention.sliding_window", 256);
    key_array("llama.attention.sliding_window_pattern", GGUF_TYPE_BOOL, 30);
    for (int i = 0; i < 30; i++) put_number(i % 3 != 2, 1);
}
TEST(gguf_windowed_layers_keep_less) {
    Ctx *c = ctx();
    GgufFacts g, full;
    CHECK_OK(c, facts_of(c, make(), &full));
    CHECK_OK(c, with_keys(c, 2, pattern, &g));
    CHECK_INT(g.kv_window_elements, 20 * 3 * 128);
    CHECK_INT(g.kv_elements, 10 * 3 * 128);
    int64_t saved =
        gguf_memory_bytes(&full, 8192, 1, "f16") - gguf_memory_bytes(&g, 8192, 1, "f16");
    CHECK_INT(saved, 2 * 20 * 3 * 128 * (8192 - 768));
}

static void joint(void) {
    key_u32("llama.attention.key_length_mla", 192);
    key_u32("llama.attention.key_length", 576);
    key_u32("llama.attention.value_length", 512);
}
TEST(gguf_latent_attention_keeps_one_vector) {
    Ctx *c = ctx();
    GgufFacts g;
    CHECK_OK(c, with_keys(c, 3, joint, &g));
    CHECK_INT(g.kv_elements, 30 * 3 * 576);
}

// ---- bounds

// 4,096 arrays of 4,096 numbers: 16 MiB that would be 128 MiB if all were kept.
TEST(gguf_memory_stays_within_its_bound) {
    enum { ARRAYS = 4096, NUMBERS = 4096 };
    Ctx *c = ctx();
    GgufFacts g;
    Buf b;
    make_head(3);
    patch(at("tensors"), 0, 8);
    patch(at("keys"), ARRAYS, 8);
    buf_init(&b, 32 << 20);
    buf_add(&b, str_n(m.bytes, m.n));
    for (int i = 0; i < ARRAYS; i++) {
        char name[16];
        snprintf(name, sizeof name, "k%d", i);
        m.n = m.marks_n = 0;
        key_array(name, GGUF_TYPE_U8, NUMBERS);
        buf_add(&b, str_n(m.bytes, m.n));
        buf_add_repeat(&b, 1, NUMBERS);
    }
    CHECK(!b.full);
    CHECK_ERR(gguf_facts_bytes(c, buf_str(&b), &g), ERR_INVALID); // it has no architecture
    CHECK(arena_used(c->mem) < 16 << 20);
    buf_done(&b);
}

static void nothing(void) {}
TEST(gguf_header_has_a_limit_whatever_the_file_holds) {
    Ctx *c = ctx();
    GgufFacts g;
    File *f;
    str path = arena_printf(c->mem, "%s/sparse.gguf", test_dir());
    (void)with_keys(c, 1, nothing, &g); // a key more than there are: the next bytes are ours
    m.n = (size_t)at("one");
    key_array("tokenizer.ggml.token_type", GGUF_TYPE_I32, 100 << 20);
    CHECK_OK(c, file_open(c, path, FILE_READ | FILE_WRITE | FILE_CREATE, &f));
    CHECK_OK(c, file_write_at(c, f, 0, m.bytes, m.n));
    CHECK_OK(c, file_truncate(c, f, 1ll << 30));
    CHECK_ERR(gguf_facts(c, f, &g), ERR_INVALID);
    CHECK(str_find(failure_param(&c->failure, "why"), S("limit")) >= 0);
    file_close(f);
}

TEST(gguf_long_texts_pass_by_unless_they_are_facts) {
    enum { LONG = GGUF_TEXT_MAX + 1 };
    const char *const keys[] = { "tokenizer.huggingface.json", "tokenizer.ggml.model" };
    for (int i = 0; i < 2; i++) {
        Ctx *c = ctx();
        GgufFacts g;
        Buf b;
        make_head(3);
        patch(at("tensors"), 0, 8);
        patch(at("keys"), 2, 8);
        key_text("general.architecture", "llama");
        put_key(keys[i], GGUF_TYPE_TEXT), put_number(LONG, 8);
        buf_init(&b, 4 << 20);
        buf_add(&b, str_n(m.bytes, m.n));
        buf_add_repeat(&b, 'x', LONG);
        err e = gguf_facts_bytes(c, buf_str(&b), &g);
        buf_done(&b);
        CHECK_ERR(e, i ? ERR_INVALID : ERR_OK);
        if (i) CHECK_INT(refused_at(c), m.n - 8);
    }
}

// ---- memory: what llama-server was measured to hold (README.md), in KiB

// clang-format off
static const GgufFacts smollm2 = { // SmolLM2-135M-Instruct Q4_1
    .architecture = { "llama", 5 }, .tensor_bytes = 96576768, .kv_elements = 30 * 3 * 128,
    .embedding = 576, .feed_forward = 1536, .vocabulary = 49152,
};
static const GgufFacts minilm = { // the shape of all-MiniLM-L6-v2, F16
    .architecture = { "bert", 4 }, .tensor_bytes = 45581568, .embedding = 384,
    .feed_forward = 1536, .vocabulary = 30522, .embedder = true,
};
static const struct {
    const GgufFacts *model;
    int64_t context, slots;
    const char *kv;
    bool embed;
    int64_t kib;
} measured[] = {
    { &smollm2, 2048, 1, "f16", false, 191432 }, { &smollm2, 2048, 1, "q8_0", false, 169032 },
    { &smollm2, 8192, 1, "f16", false, 335728 }, { &smollm2, 8192, 1, "q8_0", false, 248372 },
    { &smollm2, 2048, 4, "f16", false, 330408 }, { &smollm2, 2048, 4, "q8_0", false, 243168 },
    { &smollm2, 512, 1, "f16", true, 336824 },
    { &minilm, 512, 1, "f16", true, 132940 },    { &minilm, 512, 4, "f16", true, 133732 },
};
// clang-format on

// Never more than a percent short, at most a tenth too much.
TEST(gguf_estimate_is_near_what_the_engine_holds) {
    for (size_t i = 0; i < countof(measured); i++) {
        GgufFacts g = *measured[i].model;
        g.embedder = measured[i].embed;
        int64_t have =
            gguf_memory_bytes(&g, measured[i].context, measured[i].slots, measured[i].kv);
        int64_t real = measured[i].kib * 1024;
        if (have * 100 < real * 99 || have * 100 > real * 110)
            TEST_FAIL_("row %zu: %lld, measured %lld", i, (long long)have, (long long)real);
    }
}

TEST(gguf_estimate_never_wraps) {
    GgufFacts g = { .tensor_bytes = INT64_MAX,
                    .kv_elements = INT64_MAX,
                    .window = INT64_MAX,
                    .embedding = INT64_MAX,
                    .feed_forward = INT64_MAX,
                    .vocabulary = INT64_MAX };
    CHECK(gguf_memory_bytes(&g, INT64_MAX, INT64_MAX, NULL) == INT64_MAX);
    CHECK_INT(gguf_memory_bytes(&(GgufFacts){ 0 }, 0, 0, "f16"), 12 << 20);
}

// ---- the verb

TEST(gguf_verb_prints_facts_or_a_refusal) {
    Ctx *c = ctx();
    yyjson_val *root;
    GgufFacts g;
    Buf b;
    str path = arena_printf(c->mem, "%s/model.gguf", test_dir());
    str file = make();
    CHECK_OK(c, file_write_all(c, path, file, 0));
    buf_init(&b, GGUF_JSON_MAX);
    CHECK_INT(gguf_text(path.p, &b), ERR_OK);
    CHECK_OK(c, json_parse(c, buf_str(&b), &root));
    CHECK(gguf_facts_parse(root, &g) && str_is(g.name, "Tiny"));
    patch(at("keys"), 1ull << 60, 8);
    CHECK_OK(c, file_write_all(c, path, file, 0));
    CHECK_INT(gguf_text(path.p, &b), ERR_INVALID);
    CHECK_OK(c, json_parse(c, buf_str(&b), &root));
    yyjson_val *error = json_get(root, "error");
    CHECK_STR(json_get_str(error, "reason"), "gguf_invalid");
    CHECK_INT(yyjson_get_int(json_get(error, "offset")), 16);
    CHECK(json_get_str(error, "why").n > 0);
    CHECK_INT(gguf_text("/nowhere/at/all", &b), ERR_NOTFOUND);
    buf_done(&b);
}
