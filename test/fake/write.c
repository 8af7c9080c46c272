// SPDX-License-Identifier: Apache-2.0
// write.c - answers, in the shapes and with the keys that llama-server of deps/manifest gave: chat
// and text completions, whole and as events, embeddings, errors.
// Threads: the loop's.
#include "fake.h"
#include <assert.h>
#include <math.h>

static const HttpHeader head_json[] = {
    { S("Server"), S("llama.cpp") },
    { S("Content-Type"), S("application/json; charset=utf-8") },
};
static const HttpHeader head_events[] = {
    { S("Server"), S("llama.cpp") },
    { S("X-Accel-Buffering"), S("no") },
    { S("Content-Type"), S("text/event-stream") },
};

void reply_json(Exchange *x, int status, str body) {
    exchange_begin(x, status, head_json, countof(head_json), (int64_t)body.n);
    exchange_write(x, body);
    exchange_end(x);
}

void reply_refusal(Exchange *x, const Refusal *why) {
    Ctx *c = exchange_ctx(x);
    Engine *e = c->app;
    Json j = json_to(&e->text);
    buf_clear(&e->text);
    json_obj(&j);
    json_key(&j, "error");
    json_obj(&j);
    json_kv_i64(&j, "code", why->status);
    json_kv_z(&j, "message", why->message);
    json_kv_z(&j, "type", why->type);
    if (why->context) {
        json_kv_i64(&j, "n_prompt_tokens", why->prompt_tokens);
        json_kv_i64(&j, "n_ctx", why->context);
    }
    json_end_obj(&j);
    json_end_obj(&j);
    reply_json(x, why->status, buf_str(&e->text));
}

// ---- parts

static bool is_chat(const Job *j) { return j->ask.kind == ASK_CHAT; }

const Prompt *job_prompt(const Job *j, size_t choice) {
    return &j->ask.prompts[choice / (size_t)j->ask.n];
}

static void add_usage(Job *j, size_t choice) {
    long long prompt = job_prompt(j, choice)->tokens, completion = j->gens[choice].made;
    j->record->told_tokens += completion;
    buf_printf(&j->e->text,
               ",\"usage\":{\"completion_tokens\":%lld,\"prompt_tokens\":%lld,\"total_tokens\":"
               "%lld,\"prompt_tokens_details\":{\"cached_tokens\":0}}",
               completion, prompt, prompt + completion);
}

static void add_timings(Job *j, size_t choice) {
    long long prompt = job_prompt(j, choice)->tokens, made = j->gens[choice].made;
    double prompt_ms = (double)j->first_ms + 0.001;
    double all_ms = (double)(loop_now_ns(j->e->loop) - j->start_ns) / 1e6;
    double made_ms = all_ms > prompt_ms ? all_ms - prompt_ms : 0.001;
    buf_printf(&j->e->text,
               ",\"timings\":{\"cache_n\":0,\"prompt_n\":%lld,\"prompt_ms\":%.3f,"
               "\"prompt_per_token_ms\":%.3f,\"prompt_per_second\":%.3f,\"predicted_n\":%lld,"
               "\"predicted_ms\":%.3f,\"predicted_per_token_ms\":%.3f,"
               "\"predicted_per_second\":%.3f}",
               prompt, prompt_ms, prompt_ms / (double)(prompt + !prompt),
               (double)prompt * 1000 / prompt_ms, made, made_ms, made_ms / (double)(made + !made),
               (double)made * 1000 / made_ms);
}

static void add_tail(Job *j, const char *object, Buf *b) {
    long long now = os_wall_ms(j->e->os) / 1000;
    buf_printf(b, ",\"created\":%lld,\"id\":\"%s\",\"model\":", now, j->id);
    buf_add_json(b, str_z(j->e->o.alias));
    buf_printf(b, ",\"system_fingerprint\":\"%s\",\"object\":\"%s\"", j->e->fingerprint, object);
}

// What the model says, in the braces of a message or a delta.
static void add_content(Job *j, str text) {
    buf_add(&j->e->text, S("\"content\":"));
    buf_add_json(&j->e->text, text);
}

static void add_call_id(Job *j, size_t choice) {
    static const char digits[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    buf_add(&j->e->text, S("\"id\":\""));
    for (uint64_t i = 0; i < 32; i++)
        buf_add_char(&j->e->text, digits[mix(j->seed + choice, i) % (sizeof digits - 1)]);
    buf_add_char(&j->e->text, '"');
}

static void add_function(Job *j, bool with_name, str arguments) {
    buf_add(&j->e->text, S("\"function\":{"));
    if (with_name) {
        buf_add(&j->e->text, S("\"name\":"));
        buf_add_json(&j->e->text, json_get_str(j->ask.tool, "name"));
        buf_add_char(&j->e->text, ',');
    }
    buf_add(&j->e->text, S("\"arguments\":"));
    buf_add_json(&j->e->text, arguments);
    buf_add_char(&j->e->text, '}');
}

// ---- streams

void write_begin(Job *j) {
    Buf b;
    buf_init(&b, 4096);
    add_tail(j, is_chat(j) ? "chat.completion.chunk" : "text_completion", &b);
    j->tail = arena_str(exchange_ctx(j->x)->mem, buf_str(&b));
    buf_done(&b);
    exchange_begin(j->x, 200, head_events, countof(head_events), -1);
    // llama-server's own first event when there are several prompts.
    if (j->ask.prompts_n > 1) exchange_write(j->x, S("data: null\n\n"));
}

static void chunk_open(Job *j, size_t choice) {
    Buf *b = &j->e->text;
    if (is_chat(j))
        buf_printf(b, "data: {\"choices\":[{\"finish_reason\":null,\"index\":%zu,\"delta\":{",
                   choice);
    else buf_add(b, S("data: {\"choices\":[{\"text\":"));
}
static void chunk_close(Job *j, size_t choice) {
    buf_add(&j->e->text, j->tail);
    if (j->ask.timings) add_timings(j, choice);
    if (j->b.stamp)
        buf_printf(&j->e->text, ",\"stamp\":[%lld,%lld]", (long long)j->chunk_ns,
                   (long long)os_mono_ns(j->e->os));
    buf_add(&j->e->text, S("}\n\n"));
}

static void write_role(Job *j, size_t choice, bool progress) {
    long long prompt = job_prompt(j, choice)->tokens;
    chunk_open(j, choice);
    buf_add(&j->e->text, S("\"role\":\"assistant\",\"content\":null}}]"));
    buf_add(&j->e->text, j->tail);
    if (progress)
        buf_printf(&j->e->text,
                   ",\"prompt_progress\":{\"total\":%lld,\"cache\":0,\"processed\":%lld,"
                   "\"time_ms\":%lld}",
                   prompt, prompt, (long long)j->first_ms);
    buf_add(&j->e->text, S("}\n\n"));
}

static void write_call_piece(Job *j, size_t choice, str text, bool first) {
    Buf *b = &j->e->text;
    buf_add(b, S("\"tool_calls\":[{\"index\":0,"));
    if (first) {
        add_call_id(j, choice);
        buf_add(b, S(",\"type\":\"function\","));
    }
    add_function(j, first, text);
    buf_add(b, S("}]}}]"));
}

void write_piece(Job *j, size_t choice, str text) {
    Gen *g = &j->gens[choice];
    bool first = !g->begun;
    Buf *b = &j->e->text;
    g->begun = true;
    if (first && is_chat(j) && j->ask.progress) write_role(j, choice, true);
    if (first && is_chat(j)) write_role(j, choice, false);
    if (!text.n) return;
    chunk_open(j, choice);
    if (j->ask.tool) {
        write_call_piece(j, choice, text, first);
    } else if (is_chat(j)) {
        add_content(j, text);
        buf_add(b, S("}}]"));
    } else {
        buf_add_json(b, text);
        buf_printf(b, ",\"index\":%zu,\"logprobs\":null,\"finish_reason\":null}]", choice);
    }
    chunk_close(j, choice);
}

void write_finish(Job *j, size_t choice) {
    Buf *b = &j->e->text;
    const char *finish = j->gens[choice].finish;
    if (is_chat(j))
        buf_printf(b, "data: {\"choices\":[{\"finish_reason\":\"%s\",\"index\":%zu,\"delta\":{}}]",
                   finish, choice);
    else
        buf_printf(b,
                   "data: {\"choices\":[{\"text\":\"\",\"index\":%zu,\"logprobs\":null,"
                   "\"finish_reason\":\"%s\"}]",
                   choice, finish);
    buf_add(b, j->tail);
    if (!is_chat(j)) add_usage(j, choice);
    if (!is_chat(j) || !j->ask.usage) add_timings(j, choice);
    buf_add(b, S("}\n\n"));
    if (!is_chat(j) || !j->ask.usage) return;
    buf_add(b, S("data: {\"choices\":[]"));
    buf_add(b, j->tail);
    add_usage(j, choice);
    add_timings(j, choice);
    buf_add(b, S("}\n\n"));
}

void write_end(Job *j) { buf_add(&j->e->text, S("data: [DONE]\n\n")); }

// ---- whole answers

static void add_message(Job *j, size_t choice, str text) {
    Buf *b = &j->e->text;
    buf_printf(b, "{\"finish_reason\":\"%s\",\"index\":%zu,\"message\":{\"role\":\"assistant\",",
               j->gens[choice].finish, choice);
    add_content(j, j->ask.tool ? S("") : text);
    if (j->ask.tool) {
        buf_add(b, S(",\"tool_calls\":[{\"type\":\"function\","));
        add_function(j, true, text);
        buf_add_char(b, ',');
        add_call_id(j, choice);
        buf_add(b, S("}]"));
    }
    buf_add(b, S("}}"));
}

static void add_choice(Job *j, size_t choice) {
    Gen *g = &j->gens[choice];
    Buf *b = &j->e->text;
    str piece;
    buf_clear(&j->e->piece);
    while (gen_next(g, &piece)) buf_add(&j->e->piece, piece);
    if (choice) buf_add_char(b, ',');
    if (is_chat(j)) {
        add_message(j, choice, buf_str(&j->e->piece));
        return;
    }
    buf_add(b, S("{\"text\":"));
    buf_add_json(b, buf_str(&j->e->piece));
    buf_printf(b, ",\"index\":%zu,\"logprobs\":null,\"finish_reason\":\"%s\"}", choice, g->finish);
}

void write_whole(Job *j) {
    Buf *b = &j->e->text;
    buf_clear(b);
    buf_add(b, S("{\"choices\":["));
    for (size_t i = 0; i < j->gens_n; i++) add_choice(j, i);
    buf_add_char(b, ']');
    add_tail(j, is_chat(j) ? "chat.completion" : "text_completion", b);
    add_usage(j, 0);
    add_timings(j, 0);
    buf_add_char(b, '}');
    assert(!b->full);
}

// ---- embeddings

enum { DIMENSIONS_MAX = 8192 };

static void vector_of(const Prompt *p, int64_t n, float *out) {
    double sum = 0;
    assert(n <= DIMENSIONS_MAX);
    for (int64_t i = 0; i < n; i++) {
        double v = (double)(int64_t)mix(p->hash, (uint64_t)i) / 9.3e18;
        out[i] = (float)v;
        sum += v * v;
    }
    for (int64_t i = 0; i < n; i++) out[i] /= (float)sqrt(sum);
}

static void add_base64(Buf *b, const void *p, size_t n) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *u = p;
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)u[i] << 16;
        if (i + 1 < n) v |= (uint32_t)u[i + 1] << 8;
        if (i + 2 < n) v |= u[i + 2];
        buf_add_char(b, digits[v >> 18]);
        buf_add_char(b, digits[v >> 12 & 63]);
        buf_add_char(b, i + 1 < n ? digits[v >> 6 & 63] : '=');
        buf_add_char(b, i + 2 < n ? digits[v & 63] : '=');
    }
}

static void put_vector(Job *j, Json *json, const Prompt *p) {
    static float v[DIMENSIONS_MAX];
    int64_t n = j->e->o.dimensions;
    vector_of(p, n, v);
    if (j->ask.base64) {
        buf_clear(&j->e->piece);
        add_base64(&j->e->piece, v, (size_t)n * sizeof *v);
        json_put_str(json, buf_str(&j->e->piece));
        return;
    }
    json_arr(json);
    for (int64_t i = 0; i < n; i++) json_put_f64(json, (double)v[i]);
    json_end_arr(json);
}

void write_embeddings(Job *j) {
    Json json = json_to(&j->e->text);
    int64_t tokens = 0;
    buf_clear(&j->e->text);
    for (size_t i = 0; i < j->ask.prompts_n; i++) tokens += j->ask.prompts[i].tokens;
    json_obj(&json);
    json_kv_str(&json, "model", j->ask.model.n ? j->ask.model : str_z(j->e->o.alias));
    json_kv_z(&json, "object", "list");
    json_key(&json, "usage");
    json_obj(&json);
    json_kv_i64(&json, "prompt_tokens", tokens);
    json_kv_i64(&json, "total_tokens", tokens);
    json_end_obj(&json);
    json_key(&json, "data");
    json_arr(&json);
    for (size_t i = 0; i < j->ask.prompts_n; i++) {
        json_obj(&json);
        json_key(&json, "embedding");
        put_vector(j, &json, &j->ask.prompts[i]);
        json_kv_i64(&json, "index", (int64_t)i);
        json_kv_z(&json, "object", "embedding");
        json_end_obj(&json);
    }
    json_end_arr(&json);
    json_end_obj(&json);
}
