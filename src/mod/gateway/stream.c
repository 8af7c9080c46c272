// SPDX-License-Identifier: Apache-2.0
// stream.c - what passes between client and engine in OpenAI's shape (platform documentation,
// "Streaming" and "Usage"): the body on its way there, events and the whole answer on their way
// back, and the figures read off them.
#include "mod/gateway/flow.h"
#include <assert.h>

// The engine's own name of the model, and usage asked for in every stream; all else as the client
// sent it.
err body_for_engine(Flow *f, struct evbuffer *out) {
    bool rename = !str_eq(f->deployment->upstream_model, f->in.model);
    bool ask = f->in.stream && !f->in.wants_usage && f->deployment->engine->streams_usage;
    if (!rename && !ask) {
        evbuffer_add(out, f->in.text.p, f->in.text.n);
        return ERR_OK;
    }
    Buf b;
    buf_init(&b, f->in.text.n * 6 + 4096); // an escape takes at most six bytes for one
    Json j = json_to(&b);
    json_obj(&j);
    size_t i, n;
    yyjson_val *key, *v;
    yyjson_obj_foreach(f->in.root, i, n, key, v) {
        bool model = rename && str_is(json_str(key), "model");
        if (ask && str_is(json_str(key), "stream_options")) continue;
        json_key_str(&j, json_str(key));
        if (model) json_put_str(&j, f->deployment->upstream_model);
        else json_put_val(&j, v);
    }
    if (ask) json_kv_raw(&j, "stream_options", S("{\"include_usage\":true}"));
    json_end_obj(&j);
    assert(!b.full);
    evbuffer_add(out, b.p, b.n);
    buf_done(&b);
    return ERR_OK;
}

// ---- figures
static void read_usage(Flow *f, yyjson_val *usage) {
    if (!yyjson_is_obj(usage)) return;
    RequestRecord *r = &f->r;
    f->out.usage_seen = json_get_i64(usage, "prompt_tokens", &r->prompt_tokens);
    json_get_i64(usage, "completion_tokens", &r->completion_tokens);
    json_get_i64(json_get(usage, "prompt_tokens_details"), "cached_tokens", &r->cached_tokens);
}

static void note_content(Flow *f, str text) {
    Answer *a = &f->out;
    if (!a->digest) {
        a->digest = EVP_MD_CTX_new();
        EVP_DigestInit_ex(a->digest, EVP_sha256(), NULL);
        buf_init(&a->content, 1 << 20);
    }
    EVP_DigestUpdate(a->digest, text.p, text.n);
    if (f->record_content) buf_add(&a->content, text);
}

static void note_token(Flow *f) {
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

// Text of one choice: chat's delta or message (content, reasoning, tool calls), or completion's
// text.
static bool read_choice(Flow *f, yyjson_val *choice) {
    yyjson_val *part = json_get(choice, "delta");
    if (!part) part = json_get(choice, "message");
    str texts[] = { json_get_str(part, "content"), json_get_str(part, "reasoning_content"),
                    json_get_str(choice, "text") };
    bool any = false;
    for (size_t i = 0; i < countof(texts); i++)
        if (texts[i].n) note_content(f, texts[i]), any = true;
    yyjson_val *tools = json_get(part, "tool_calls");
    if (yyjson_arr_size(tools)) note_content(f, json_text(f->c->mem, tools)), any = true;
    str finish = json_get_str(choice, "finish_reason");
    if (finish.n) f->r.finish_reason = arena_str(f->c->mem, finish);
    return any;
}

static bool read_choices(Flow *f, yyjson_val *root) {
    size_t i, n;
    yyjson_val *choice;
    bool any = false;
    yyjson_arr_foreach(json_get(root, "choices"), i, n, choice) any |= read_choice(f, choice);
    if (!f->r.response_id.p) f->r.response_id = arena_str(f->c->mem, json_get_str(root, "id"));
    return any;
}

err answer_read(Flow *f, yyjson_val *root) {
    read_usage(f, json_get(root, "usage"));
    read_choices(f, root);
    return ERR_OK;
}

str stream_event(Flow *f, str data) {
    Ctx *c = f->c;
    if (str_is(data, "[DONE]")) {
        f->out.finished = true; // sent again when the attempt is settled
        return (str){ 0 };
    }
    ArenaMark mark = arena_mark(c->mem);
    yyjson_val *root;
    if (json_parse(c, data, &root) || json_get(root, "error")) {
        f->out.cut = true;
        return (str){ 0 };
    }
    yyjson_val *usage = json_get(root, "usage");
    bool only_usage = yyjson_is_obj(usage) && !yyjson_arr_size(json_get(root, "choices"));
    bool first = !f->r.response_id.p, finish_before = f->r.finish_reason.p;
    read_usage(f, usage);
    if (read_choices(f, root)) note_token(f);
    bool kept = first || !finish_before != !f->r.finish_reason.p;
    if (!kept) arena_restore(c->mem, mark); // a long stream must not grow the arena
    return only_usage && !f->in.wants_usage ? (str){ 0 } : data;
}

void stream_close(Flow *f) {
    buf_done(&f->out.whole), buf_done(&f->out.content);
    sse_done(&f->out.sse);
    EVP_MD_CTX_free(f->out.digest);
    f->out.digest = NULL;
}
