// SPDX-License-Identifier: Apache-2.0
// gguf.c - what the keys of a checked header mean: facts. The keys are those of ggml's
// docs/gguf.md; defaults for absent ones are llama.cpp's. What the facts cost: gguf_memory.c.
// Owner: c->mem. Threads: one file a call.
#include "llm/gguf_read.h"
#include <assert.h>
#include <stdio.h>

REASONS_DEFINE(GGUF_REASONS, gguf_reasons)

// ---- rows
// clang-format off

// general.file_type: llama_ftype in llama.cpp's include/llama.h. Gaps are types that it removed.
static const char *const file_types[] = {
    [0] = "F32",      [1] = "F16",      [2] = "Q4_0",     [3] = "Q4_1",    [7] = "Q8_0",
    [8] = "Q5_0",     [9] = "Q5_1",     [10] = "Q2_K",    [11] = "Q3_K_S", [12] = "Q3_K_M",
    [13] = "Q3_K_L",  [14] = "Q4_K_S",  [15] = "Q4_K_M",  [16] = "Q5_K_S", [17] = "Q5_K_M",
    [18] = "Q6_K",    [19] = "IQ2_XXS", [20] = "IQ2_XS",  [21] = "Q2_K_S", [22] = "IQ3_XS",
    [23] = "IQ3_XXS", [24] = "IQ1_S",   [25] = "IQ4_NL",  [26] = "IQ3_S",  [27] = "IQ3_M",
    [28] = "IQ2_S",   [29] = "IQ2_M",   [30] = "IQ4_XS",  [31] = "IQ1_M",  [32] = "BF16",
    [36] = "TQ1_0",   [37] = "TQ2_0",   [38] = "MXFP4",   [39] = "NVFP4",  [40] = "Q1_0",
    [41] = "Q2_0",
};
static const char *const poolings[] = { "none", "mean", "cls", "last", "rank" };

// Encoders: they keep no KV cache.
static const char *const embedders[] = {
    "bert",         "modern-bert",  "nomic-bert", "nomic-bert-moe",  "neo-bert",
    "jina-bert-v2", "jina-bert-v3", "eurobert",   "gemma-embedding", "t5encoder",
};

// Which layers look at a window only, where the file has no sliding_window_pattern: of `period`
// layers one is full, the first or the last (llama.cpp, src/models/).
static const struct {
    const char *architecture;
    int period;
    bool full_first;
} windowed[] = {
    { "afmoe", 4, false },   { "cohere2", 4, false },   { "cohere2moe", 4, true },
    { "exaone4", 4, false }, { "exaone-moe", 4, false }, { "gemma2", 2, false },
    { "gemma3", 6, false },  { "gemma3n", 5, false },   { "gpt-oss", 2, false },
    { "laguna", 4, true },   { "llama4", 4, false },    { "mellum", 4, false },
    { "olmo2", 4, false },   { "plamo3", 8, false },    { "smallthinker", 4, true },
};

typedef struct TextRow {
    const char *key;
    size_t offset;
} TextRow;
#define TEXT(key, field) { key, offsetof(GgufFacts, field) }
static const TextRow texts[] = { // the first that is present gives the field
    TEXT("general.architecture", architecture),
    TEXT("general.name", name),
    TEXT("general.license", licence),
    TEXT("general.license.name", licence),
    TEXT("general.base_model.0.name", base_model),
    TEXT("general.base_model.0.repo_url", base_model),
    TEXT("tokenizer.chat_template", chat_template),
    TEXT("tokenizer.ggml.model", tokenizer),
};

typedef struct NumberRow {
    const char *key; // after the architecture and a dot
    size_t offset;
    int64_t max;
} NumberRow;
#define NUMBER(key, field, max) { key, offsetof(GgufFacts, field), max }
static const NumberRow numbers[] = {
    NUMBER("context_length", context, INT32_MAX),
    NUMBER("embedding_length", embedding, 1 << 24),
    NUMBER("block_count", layers, GGUF_LAYERS_MAX),
    NUMBER("attention.head_count", heads, 65536),
    NUMBER("attention.head_count_kv", heads_kv, 65536),
    NUMBER("attention.key_length", key_length, 65536),
    NUMBER("attention.value_length", value_length, 65536),
    NUMBER("attention.sliding_window", window, INT32_MAX),
    NUMBER("vocab_size", vocabulary, INT32_MAX),
    NUMBER("feed_forward_length", feed_forward, 1 << 24),
    NUMBER("expert_count", experts, 65536),
};

// clang-format on

// ---- look-ups

typedef struct Look {
    Ctx *c;
    const GgufHead *h;
    const char *architecture;
} Look;

static const GgufKey *find_own(const Look *l, const char *key) { // of this architecture
    return gguf_find(l->h, say(l->c, "%s.%s", l->architecture, key));
}

static err number_range(const Look *l, const GgufKey *k, int64_t v, int64_t max) {
    if (v >= 0 && v <= max) return ERR_OK;
    return gguf_bad(l->c, k->offset,
                    say(l->c, "%s is %lld, not within 0 and %lld", say_str(l->c, k->key),
                        (long long)v, (long long)max));
}

// A whole number; of an array the largest. Absent: *out is untouched.
static err number_of(const Look *l, const GgufKey *k, int64_t max, int64_t *out) {
    if (!k) return ERR_OK;
    bool whole = k->type != GGUF_TYPE_F32 && k->type != GGUF_TYPE_F64 && k->type != GGUF_TYPE_TEXT;
    if (!whole || (k->array && !k->values))
        return gguf_bad(l->c, k->offset,
                        say(l->c, "%s is %s %s, not a number", say_str(l->c, k->key),
                            k->array ? "an array of" : "a", gguf_type_name(k->type)));
    int64_t most = k->array ? 0 : k->integer;
    for (int64_t i = 0; k->array && i < k->count; i++) {
        TRY(number_range(l, k, k->values[i], max));
        if (k->values[i] > most) most = k->values[i];
    }
    TRY(number_range(l, k, most, max));
    *out = most;
    return ERR_OK;
}
static err own_number(const Look *l, const char *key, int64_t max, int64_t *out) {
    return number_of(l, find_own(l, key), max, out);
}

static err text_of(const Look *l, const GgufKey *k, str *out) {
    if (k->array || k->type != GGUF_TYPE_TEXT)
        return gguf_bad(l->c, k->offset,
                        say(l->c, "%s is no single string", say_str(l->c, k->key)));
    if (!k->text.p)
        return gguf_bad(
            l->c, k->offset,
            say(l->c, "%s is longer than %d bytes", say_str(l->c, k->key), GGUF_TEXT_MAX));
    ptrdiff_t wrong = str_utf8_bad(k->text);
    if (wrong >= 0)
        return gguf_bad(l->c, k->offset + 8 + wrong,
                        say(l->c, "%s is not UTF-8", say_str(l->c, k->key)));
    *out = k->text;
    return ERR_OK;
}

static err read_texts(const Look *l, GgufFacts *g) {
    for (size_t i = 0; i < countof(texts); i++) {
        str *field = (str *)((char *)g + texts[i].offset);
        const GgufKey *k = gguf_find(l->h, texts[i].key);
        if (k && !field->p) TRY(text_of(l, k, field));
    }
    if (!g->architecture.n)
        return gguf_bad(l->c, l->h->data_offset, "no key general.architecture came before");
    return ERR_OK;
}

static err read_numbers(const Look *l, GgufFacts *g) {
    for (size_t i = 0; i < countof(numbers); i++)
        TRY(own_number(l, numbers[i].key, numbers[i].max,
                       (int64_t *)((char *)g + numbers[i].offset)));
    const GgufKey *tokens = gguf_find(l->h, "tokenizer.ggml.tokens");
    if (!g->vocabulary && tokens && tokens->array) g->vocabulary = tokens->count;
    if (!find_own(l, "attention.head_count_kv")) g->heads_kv = g->heads;
    int64_t each = g->heads ? g->embedding / g->heads : 0;
    if (!g->key_length) g->key_length = each;
    if (!g->value_length) g->value_length = each;
    return ERR_OK;
}

// Mixtures compute several experts a token: the width that the compute buffers see.
static err widen_experts(const Look *l, GgufFacts *g) {
    int64_t used = 0, width = 0;
    TRY(own_number(l, "expert_used_count", 65536, &used));
    TRY(own_number(l, "expert_feed_forward_length", 1 << 24, &width));
    if (!width) width = g->feed_forward;
    if (used * width > g->feed_forward) g->feed_forward = used * width;
    return ERR_OK;
}

static err read_split(const Look *l) {
    int64_t parts = 0;
    const GgufKey *k = gguf_find(l->h, "split.count");
    TRY(number_of(l, k, 65535, &parts));
    if (parts < 2) return ERR_OK;
    return gguf_bad(
        l->c, k->offset,
        say(l->c, "it is one of %lld parts of a model, not the whole", (long long)parts));
}

static str commonest_type(const GgufHead *h) {
    int best = 0;
    for (int t = 1; t < GGUF_TENSOR_TYPES; t++)
        if (h->bytes_by_type[t] > h->bytes_by_type[best]) best = t;
    return h->bytes_by_type[best] ? str_z(gguf_tensor_types[best].name) : (str){ 0 };
}

static err read_kind(const Look *l, GgufFacts *g) {
    int64_t type = -1, pooling = -1;
    TRY(number_of(l, gguf_find(l->h, "general.file_type"), INT32_MAX, &type));
    type &= ~(int64_t)1024; // llama.cpp's mark of a guess
    bool named = type >= 0 && type < (int64_t)countof(file_types) && file_types[type];
    g->quantisation = named ? str_z(file_types[type]) : commonest_type(l->h);
    TRY(own_number(l, "pooling_type", INT32_MAX, &pooling));
    if (pooling >= 0 && pooling < (int64_t)countof(poolings)) g->pooling = str_z(poolings[pooling]);
    g->embedder = pooling >= 1 && pooling <= 3;
    for (size_t i = 0; i < countof(embedders); i++)
        if (str_is(g->architecture, embedders[i])) g->embedder = !str_is(g->pooling, "rank");
    g->can_chat = g->chat_template.n > 0;
    return ERR_OK;
}

// ---- what memory depends on

bool gguf_is_encoder(const GgufFacts *g) {
    for (size_t i = 0; i < countof(embedders); i++)
        if (str_is(g->architecture, embedders[i])) return true;
    return false;
}

// Of an array with a value a layer; a single number goes for all.
static int64_t at_layer(const GgufKey *k, int64_t layer, int64_t otherwise) {
    if (!k) return otherwise;
    return k->array ? k->values[layer] : k->integer;
}

static err check_layers(const Look *l, const GgufKey *k, int64_t layers) {
    if (!k || !k->array || (k->values && k->count >= layers)) return ERR_OK;
    return gguf_bad(l->c, k->offset,
                    say(l->c, "%s has %lld elements for %lld layers", say_str(l->c, k->key),
                        (long long)k->count, (long long)layers));
}

static bool looks_through_window(const Look *l, const GgufFacts *g, const GgufKey *pattern,
                                 int64_t layer) {
    if (!g->window) return false;
    if (pattern && pattern->array) return pattern->values[layer];
    for (size_t i = 0; i < countof(windowed); i++) {
        if (strcmp(l->architecture, windowed[i].architecture)) continue;
        int64_t period = pattern && pattern->integer > 0 ? pattern->integer : windowed[i].period;
        return layer % period != (windowed[i].full_first ? 0 : period - 1);
    }
    return false;
}

// One token in the KV cache, layer by layer: some have no heads (recurrent ones), some a window.
static err measure_cache(const Look *l, GgufFacts *g) {
    const GgufKey *heads = find_own(l, "attention.head_count_kv");
    const GgufKey *pattern = find_own(l, "attention.sliding_window_pattern");
    int64_t interval = 1;
    TRY(own_number(l, "full_attention_interval", GGUF_LAYERS_MAX, &interval));
    TRY(check_layers(l, heads, g->layers));
    TRY(number_of(l, pattern, GGUF_LAYERS_MAX, &(int64_t){ 0 }));
    TRY(check_layers(l, pattern, g->layers));
    if (gguf_is_encoder(g)) return ERR_OK;
    // Multi-head latent attention keeps one joint vector, whose length is key_length.
    bool joint = find_own(l, "attention.key_length_mla");
    int64_t head = g->key_length + (joint ? 0 : g->value_length);
    for (int64_t i = 0; i < g->layers; i++) {
        if (interval > 1 && (i + 1) % interval) continue;
        int64_t n = at_layer(heads, i, g->heads_kv) * head;
        if (looks_through_window(l, g, pattern, i)) g->kv_window_elements += n;
        else g->kv_elements += n;
    }
    return ERR_OK;
}

static err measure_state(const Look *l, GgufFacts *g) {
    int64_t conv = 0, inner = 0, state = 0, groups = 0;
    TRY(own_number(l, "ssm.conv_kernel", 1024, &conv));
    TRY(own_number(l, "ssm.inner_size", 1 << 24, &inner));
    TRY(own_number(l, "ssm.state_size", 65536, &state));
    TRY(own_number(l, "ssm.group_count", 65536, &groups));
    int64_t kept = conv > 0 ? (conv - 1) * (inner + 2 * groups * state) : 0;
    g->state_bytes = 4 * (kept + state * inner) * g->layers;
    return ERR_OK;
}

// ---- all facts

static err facts_of(Ctx *c, const GgufHead *h, GgufFacts *out) {
    GgufFacts g = {
        .version = h->version,
        .tensors = h->tensors_n,
        .keys = (int64_t)h->keys->live,
        .file_bytes = h->file_bytes,
        .data_offset = h->data_offset,
        .parameters = h->elements,
        .tensor_bytes = h->bytes,
    };
    Look l = { c, h, "" };
    TRY(read_split(&l));
    TRY(read_texts(&l, &g));
    l.architecture = arena_z(c->mem, g.architecture);
    TRY(read_numbers(&l, &g));
    TRY(read_kind(&l, &g));
    TRY(measure_cache(&l, &g));
    TRY(measure_state(&l, &g));
    TRY(widen_experts(&l, &g));
    *out = g;
    return ERR_OK;
}

static err read_file(Ctx *c, void *f, int64_t offset, void *out, size_t n, size_t *out_got) {
    return file_read_at(c, f, offset, out, n, out_got);
}
err gguf_facts(Ctx *c, File *f, GgufFacts *out) {
    int64_t size;
    GgufHead h;
    TRY(file_size(c, f, &size));
    TRY(gguf_read(c, read_file, f, size, &h));
    return facts_of(c, &h, out);
}

static err read_bytes(Ctx *c, void *arg, int64_t offset, void *out, size_t n, size_t *out_got) {
    const str *s = arg;
    (void)c;
    assert(offset >= 0 && (size_t)offset <= s->n);
    *out_got = n < s->n - (size_t)offset ? n : s->n - (size_t)offset;
    memcpy(out, s->p + offset, *out_got);
    return ERR_OK;
}
err gguf_facts_bytes(Ctx *c, str file, GgufFacts *out) {
    GgufHead h;
    TRY(gguf_read(c, read_bytes, &file, (int64_t)file.n, &h));
    return facts_of(c, &h, out);
}

// ---- JSON

typedef enum { FACT_NUMBER, FACT_TEXT, FACT_FLAG } FactKind;
// clang-format off
static const struct {
    const char *key;
    FactKind kind;
    size_t offset;
} fields[] = {
#define FACT(kind, field) { #field, kind, offsetof(GgufFacts, field) }
    FACT(FACT_NUMBER, version),      FACT(FACT_TEXT, architecture),
    FACT(FACT_TEXT, name),           FACT(FACT_TEXT, quantisation),
    FACT(FACT_TEXT, licence),        FACT(FACT_TEXT, base_model),
    FACT(FACT_TEXT, tokenizer),      FACT(FACT_TEXT, pooling),
    FACT(FACT_FLAG, embedder),       FACT(FACT_FLAG, can_chat),
    FACT(FACT_NUMBER, parameters),   FACT(FACT_NUMBER, context),
    FACT(FACT_NUMBER, embedding),    FACT(FACT_NUMBER, layers),
    FACT(FACT_NUMBER, heads),        FACT(FACT_NUMBER, heads_kv),
    FACT(FACT_NUMBER, key_length),   FACT(FACT_NUMBER, value_length),
    FACT(FACT_NUMBER, vocabulary),   FACT(FACT_NUMBER, feed_forward),
    FACT(FACT_NUMBER, experts),      FACT(FACT_NUMBER, tensors),
    FACT(FACT_NUMBER, keys),         FACT(FACT_NUMBER, file_bytes),
    FACT(FACT_NUMBER, data_offset),  FACT(FACT_NUMBER, tensor_bytes),
    FACT(FACT_NUMBER, kv_elements),  FACT(FACT_NUMBER, kv_window_elements),
    FACT(FACT_NUMBER, window),       FACT(FACT_NUMBER, state_bytes),
    FACT(FACT_TEXT, chat_template),
};
// clang-format on

void gguf_facts_json(const GgufFacts *g, Json *j) {
    json_obj(j);
    for (size_t i = 0; i < countof(fields); i++) {
        const void *at = (const char *)g + fields[i].offset;
        switch (fields[i].kind) {
        case FACT_NUMBER: json_kv_i64(j, fields[i].key, *(const int64_t *)at); break;
        case FACT_TEXT: json_kv_str(j, fields[i].key, *(const str *)at); break;
        case FACT_FLAG: json_kv_bool(j, fields[i].key, *(const bool *)at); break;
        }
    }
    json_end_obj(j);
}

static bool parse_field(yyjson_val *v, FactKind kind, void *at) {
    switch (kind) {
    case FACT_NUMBER:
        if (!yyjson_is_int(v) || yyjson_get_uint(v) > INT64_MAX) return false;
        *(int64_t *)at = yyjson_get_sint(v);
        return true;
    case FACT_TEXT: *(str *)at = json_str(v); return yyjson_is_str(v) || yyjson_is_null(v);
    case FACT_FLAG: *(bool *)at = yyjson_get_bool(v); return yyjson_is_bool(v);
    }
    return false;
}
bool gguf_facts_parse(yyjson_val *obj, GgufFacts *out) {
    GgufFacts g = { 0 };
    for (size_t i = 0; i < countof(fields); i++)
        if (!parse_field(json_get(obj, fields[i].key), fields[i].kind,
                         (char *)&g + fields[i].offset))
            return false;
    *out = g;
    return true;
}
