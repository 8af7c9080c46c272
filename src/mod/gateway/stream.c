// SPDX-License-Identifier: Apache-2.0
// stream.c - what passes between client and engine in OpenAI's shape (platform documentation,
// "Streaming" and "Usage"): the body on its way there, events and the whole answer on their way
// back, and the figures read off them.
#include "mod/gateway/flow.h"
#include "blob/blob.h"
#include "mod/gateway/chunk.h"
#include <assert.h>

enum { COPIED_MAX = 16 << 10 };

// Members that the gateway writes itself, because of what it needs to know or to be able to do.
typedef struct Asked {
    bool rename, usage, timings, stream;
} Asked;

static bool replaced(const Asked *a, str key) {
    return (a->usage && str_is(key, "stream_options"))
           || (a->timings && str_is(key, "timings_per_token"))
           || (a->stream && str_is(key, "stream")) || (a->rename && str_is(key, "model"));
}

// The request's text outlives its call: a large one is not copied.
static void add_text(struct evbuffer *out, str text) {
    if (text.n < COPIED_MAX) evbuffer_add(out, text.p, text.n);
    else evbuffer_add_reference(out, text.p, text.n, NULL, NULL);
}

// Asked for a stream although the client wants one piece.
bool flow_folds(const Flow *f) {
    return f->engine->launched && !f->in.stream && f->operation != OP_EMBEDDING
           && !flow_translates(f);
}

// The engine's own name of the model; usage in every stream; of an engine that we launched the
// exact count of tokens so far, and a stream even for an answer in one piece (fold_answer.c). All
// else as the client sent it.
err body_for_engine(Flow *f, struct evbuffer *out) {
    const Engine *engine = f->engine;
    if (flow_translates(f)) return translate_body(f, out);
    if (!speaks_openai(f->dialect)) return dialect_lacks(f, f->dialect); // while it changes
    bool folds = flow_folds(f), streams = f->in.stream || folds;
    Asked a = { .rename = !str_eq(f->upstream_model, f->in.model),
                .usage = streams && engine->streams_usage && !f->in.wants_usage,
                .timings = streams && engine->launched && !f->in.wants_timings,
                .stream = folds };
    if (!a.rename && !a.usage && !a.timings && !a.stream) {
        add_text(out, f->in.text);
        return ERR_OK;
    }
    Buf b;
    buf_init(&b, f->in.text.n * 6 + 4096); // an escape takes at most six bytes for one
    Json j = json_to(&b);
    json_obj(&j);
    size_t i, n;
    yyjson_val *key, *v;
    yyjson_obj_foreach(f->in.root, i, n, key, v) {
        if (replaced(&a, json_str(key))) continue;
        json_key_str(&j, json_str(key)), json_put_val(&j, v);
    }
    if (a.rename) json_kv_str(&j, "model", f->upstream_model);
    if (a.usage) json_kv_raw(&j, "stream_options", S("{\"include_usage\":true}"));
    if (a.timings) json_kv_bool(&j, "timings_per_token", true);
    if (a.stream) json_kv_bool(&j, "stream", true);
    json_end_obj(&j);
    assert(!b.full);
    evbuffer_add(out, b.p, b.n);
    buf_done(&b);
    return ERR_OK;
}

// ---- figures
static const int64_t TOKENS_MAX = 1LL << 31;
static int64_t within(int64_t tokens) {
    return tokens < 0 ? 0 : tokens > TOKENS_MAX ? TOKENS_MAX : tokens;
}

// A count of tokens, within what can be one: sums of many stay far from the end of 64 bits.
static bool read_tokens(yyjson_val *obj, const char *name, int64_t *out) {
    if (!json_get_i64(obj, name, out)) return false;
    *out = within(*out);
    return true;
}

static void told_add(Told *to, const Told *now, const Told *was) {
    to->prompt += now->prompt - was->prompt;
    to->completion += now->completion - was->completion;
    to->cached += now->cached - was->cached;
}

void answer_usage(Flow *f, Told now) {
    f->out.usage_seen = true, f->out.usage = now;
    f->r.prompt_tokens = now.prompt, f->r.cached_tokens = now.cached;
    f->r.completion_tokens = now.completion;
}

// Of a choice: some engines tell it once, at its end, others in every event how far it is, so the
// last counts. The choices of one prompt share it: it counts with the first of them.
static void told_of_choice(Flow *f, int64_t index, Told now) {
    Answer *a = &f->out;
    Told *was = &a->of_choice[index > 0 ? index % f->in.choices : 0];
    if (index % f->in.n) now.prompt = now.cached = 0;
    told_add(&a->of_choices, &now, was);
    *was = now;
    a->usage = a->of_choices, a->by_choice = true;
}

// What stands apart is one choice's of several (llama-server's chat), or, where choices told theirs
// before, all of them together.
static void told_apart(Answer *a, Told now) {
    static const Told none;
    if (a->by_choice) {
        a->usage = now;
        return;
    }
    if (a->usage_seen) now.prompt = now.cached = 0;
    told_add(&a->usage, &now, &none);
}

static void read_usage(Flow *f, yyjson_val *root) {
    Answer *a = &f->out;
    Told now = { 0 };
    int64_t index = 0;
    yyjson_val *usage = json_get(root, "usage"),
               *choice = yyjson_arr_get_first(json_get(root, "choices"));
    if (!read_tokens(usage, "prompt_tokens", &now.prompt)) return;
    read_tokens(usage, "completion_tokens", &now.completion); // embeddings have none
    read_tokens(json_get(usage, "prompt_tokens_details"), "cached_tokens", &now.cached);
    if (choice && json_get_i64(choice, "index", &index)) told_of_choice(f, index, now);
    else told_apart(a, now);
    answer_usage(f, a->usage);
}

str flow_usage(Flow *f) {
    const Answer *a = &f->out;
    int64_t completion = a->usage_seen ? a->usage.completion : a->tokens;
    return arena_printf(f->c->mem,
                        "{\"prompt_tokens\":%lld,\"completion_tokens\":%lld,\"total_tokens\":%lld,"
                        "\"prompt_tokens_details\":{\"cached_tokens\":%lld}}",
                        (long long)f->r.prompt_tokens, (long long)completion,
                        (long long)(f->r.prompt_tokens + completion),
                        (long long)f->r.cached_tokens);
}

// llama-server's own count so far, with timings_per_token: exact where chunks are not tokens.
static bool read_timings(Flow *f, yyjson_val *timings) {
    int64_t predicted, prompt = 0, cached = 0;
    if (!read_tokens(timings, "predicted_n", &predicted) || f->in.choices > 1) return false;
    read_tokens(timings, "prompt_n", &prompt), read_tokens(timings, "cache_n", &cached);
    f->out.tokens = predicted;
    if (f->out.usage_seen) return true;
    f->r.prompt_tokens = prompt + cached, f->r.cached_tokens = cached;
    return true;
}

// What the client did not ask for is taken out again: it stands last, as one flat object.
static str without_timings(Ctx *c, str data) {
    static const char mark[] = ",\"timings\":{";
    const char *at = NULL;
    for (size_t i = data.n; i-- > 0 && !at;)
        if (data.n - i >= sizeof mark - 1 && !memcmp(data.p + i, mark, sizeof mark - 1))
            at = data.p + i;
    if (!at) return data;
    size_t head = (size_t)(at - data.p), rest = data.n - head - (sizeof mark - 1);
    const char *inner = at + sizeof mark - 1, *close = memchr(inner, '}', rest);
    if (!close || close + 2 != data.p + data.n || memchr(inner, '{', rest)) return data;
    return arena_printf(c->mem, STR_FMT "}", STR_ARG(str_sub(data, 0, head)));
}

void answer_content(Flow *f, str text) {
    Answer *a = &f->out;
    if (!a->digest) {
        a->digest = EVP_MD_CTX_new();
        if (!a->digest || EVP_DigestInit_ex(a->digest, sha256_md(), NULL) != 1) mem_exhausted(64);
        buf_init(&a->content, 1 << 20);
    }
    EVP_DigestUpdate(a->digest, text.p, text.n), f->said_bytes += (int64_t)text.n;
    if (f->record_content) buf_add(&a->content, text);
}

void answer_token(Flow *f) {
    Answer *a = &f->out;
    int64_t now = os_mono_ns(f->c->os);
    a->chunks++;
    if (!a->first_ns) a->first_ns = now;
    else {
        int64_t us = (now - a->last_ns) / 1000;
        a->tbt_sum_us += us;
        if (us > a->tbt_max_us) a->tbt_max_us = us;
    }
    a->last_ns = now;
}

void answer_finish(Flow *f, str reason) {
    if (!reason.n || reason.n >= sizeof f->finish) return;
    memcpy(f->finish, reason.p, reason.n);
    f->r.finish_reason = str_n(f->finish, reason.n);
}

// Text of one choice: chat's delta or message (content, reasoning, tool calls), or completion's
// text.
static bool read_choice(Flow *f, yyjson_val *choice) {
    yyjson_val *part = json_get(choice, "delta");
    if (!part) part = json_get(choice, "message");
    str texts[] = { json_get_str(part, "content"), json_get_str(part, "reasoning_content"),
                    json_get_str(choice, "text") };
    bool any = false;
    for (size_t i = 0; i < countof(texts); i++)
        if (texts[i].n) answer_content(f, texts[i]), any = true;
    yyjson_val *tools = json_get(part, "tool_calls");
    if (yyjson_arr_size(tools)) answer_content(f, json_text(f->c->mem, tools)), any = true;
    answer_finish(f, json_get_str(choice, "finish_reason"));
    return any;
}

void answer_id(Flow *f, str id) {
    if (f->r.response_id.p || !id.n || id.n >= sizeof f->response_id) return;
    memcpy(f->response_id, id.p, id.n);
    f->r.response_id = str_n(f->response_id, id.n);
}

static bool read_choices(Flow *f, yyjson_val *root) {
    size_t i, n;
    yyjson_val *choice;
    bool any = false;
    yyjson_arr_foreach(json_get(root, "choices"), i, n, choice) any |= read_choice(f, choice);
    answer_id(f, json_get_str(root, "id"));
    return any;
}

err answer_read(Flow *f, yyjson_val *root) {
    read_usage(f, root);
    read_choices(f, root);
    return ERR_OK;
}

// Clients take a stream's last usage for the whole: of several choices it is told once, as a sum.
static str usage_event(Flow *f) {
    Buf b;
    buf_init(&b, 4096);
    Json j = json_to(&b);
    json_obj(&j);
    json_kv_str(&j, "id", f->r.response_id);
    json_kv_z(&j, "object", f->operation == OP_CHAT ? "chat.completion.chunk" : "text_completion");
    json_kv_i64(&j, "created", f->start_ms / 1000);
    json_kv_str(&j, "model", f->upstream_model);
    json_key(&j, "choices"), json_arr(&j), json_end_arr(&j);
    json_kv_raw(&j, "usage", flow_usage(f));
    json_end_obj(&j);
    str text = arena_str(f->c->mem, buf_str(&b));
    buf_done(&b);
    return text;
}

// As it came, but for members that are ours to tell, or that only we asked for.
static str without_usage(Flow *f, yyjson_val *root, size_t size) {
    Buf b;
    buf_init(&b, size * 6 + 64);
    Json j = json_to(&b);
    size_t i, n;
    yyjson_val *key, *v;
    json_obj(&j);
    yyjson_obj_foreach(root, i, n, key, v) {
        str name = json_str(key);
        if (str_is(name, "usage") || (str_is(name, "timings") && !f->in.wants_timings)) continue;
        json_key_str(&j, name), json_put_val(&j, v);
    }
    json_end_obj(&j);
    str text = arena_str(f->c->mem, buf_str(&b));
    buf_done(&b);
    return text;
}

// An event that says no more than a word of a text.
static bool read_plain(Flow *f, str data) {
    Chunk k;
    if (f->out.fold || !chunk_read(data, &k)) return false;
    if (k.text.n) {
        answer_content(f, k.text), answer_token(f);
        f->out.tokens++;
    }
    answer_id(f, k.id);
    return true;
}

str stream_event(Flow *f, str data) {
    Ctx *c = f->c;
    bool several = f->in.choices > 1;
    if (str_is(data, "[DONE]")) {
        f->out.finished = true; // sent again when the attempt is settled
        bool told = several && f->in.stream && f->in.wants_usage && f->out.usage_seen;
        return told ? usage_event(f) : (str){ 0 };
    }
    if (read_plain(f, data)) return data;
    yyjson_val *root;
    if (json_parse(c, data, &root) || json_get(root, "error")) {
        f->out.cut = true;
        return (str){ 0 };
    }
    yyjson_val *usage = json_get(root, "usage");
    bool only_usage = yyjson_is_obj(usage) && !yyjson_arr_size(json_get(root, "choices"));
    read_usage(f, root);
    bool counted = read_timings(f, json_get(root, "timings"));
    if (read_choices(f, root)) {
        answer_token(f);
        if (!counted) f->out.tokens++;
    }
    if (f->out.fold) {
        f->out.kept = fold_chunk(c, f->out.fold, root);
        return (str){ 0 };
    }
    if (!yyjson_is_obj(root)) return (str){ 0 }; // llama-server starts two prompts with `null`
    if (only_usage && (several || !f->in.wants_usage)) return (str){ 0 };
    if (several && yyjson_is_obj(usage)) return without_usage(f, root, data.n);
    return f->in.wants_timings || !f->engine->launched ? data : without_timings(c, data);
}

void stream_close(Flow *f) {
    buf_done(&f->out.whole), buf_done(&f->out.held), buf_done(&f->out.content);
    sse_done(&f->out.sse);
    translate_close(f->out.translation);
    EVP_MD_CTX_free(f->out.digest);
    f->out.digest = NULL;
}
