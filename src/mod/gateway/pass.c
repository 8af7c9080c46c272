// SPDX-License-Identifier: Apache-2.0
// pass.c - where client and engine speak one dialect that is not OpenAI's: what the client says
// passes under the engine's name of the model, also what our reader of that dialect does not know.
// What it says of model, stream and output limit is read here where the reader gave up. Events pass
// in translate.c, where their figures are read. OpenAI's chat passes in stream.c; its responses are
// kept here, so they are written anew. Threads: the exchange's loop.
#include "mod/gateway/flow.h"

static const struct Bare {
    const char *dialect, *within, *limit; // within: the object that the limit stands in
    bool streams;                         // where nothing is said
} bares[] = {
    { "anthropic", NULL, "max_tokens", false },
    { "ollama.chat", "options", "num_predict", true },
    { "ollama.generate", "options", "num_predict", true },
};

static const struct Bare *bare_of(const Dialect *d) {
    for (size_t i = 0; i < countof(bares); i++)
        if (str_is(str_z(d->name), bares[i].dialect)) return &bares[i];
    return NULL;
}

bool flow_passes(const Flow *f) {
    return f->spoken && f->dialect == f->spoken && bare_of(f->spoken);
}

bool pass_may(const Flow *f) {
    const Reason *why = f->c->failure.why;
    return bare_of(f->spoken) && (why == &R_DIALECT_MEMBER || why == &R_FIELD_ENUM);
}

// Less than none is no limit (Ollama).
static err read_limit(Flow *f, const struct Bare *b) {
    yyjson_val *in = b->within ? json_get(f->in.root, b->within) : f->in.root,
               *v = json_get(in, b->limit);
    if (!v || yyjson_is_null(v)) return ERR_OK;
    if (!yyjson_is_int(v)) return body_wrong(f->c, b->limit, "an integer", v);
    bool large = yyjson_is_uint(v) && yyjson_get_uint(v) > INT32_MAX;
    if (large)
        return fail(f->c, ERR_INVALID, R_FIELD_RANGE, "field", b->limit, "min", "1", "max",
                    say(f->c, "%lld", (long long)INT32_MAX), "got",
                    say(f->c, "%llu", (unsigned long long)yyjson_get_uint(v)));
    if (yyjson_get_sint(v) > 0) f->in.output_max = yyjson_get_sint(v);
    return ERR_OK;
}

err pass_parse(Flow *f) {
    const struct Bare *b = bare_of(f->spoken);
    ParsedBody *in = &f->in;
    Ctx *c = f->c;
    yyjson_val *model = json_get(in->root, "model"), *stream = json_get(in->root, "stream");
    if (!model) return fail(c, ERR_INVALID, R_FIELD_REQUIRED, "field", "model");
    in->model = json_str(model);
    if (!in->model.n) return body_wrong(c, "model", "the name of a model", model);
    if (stream && !yyjson_is_bool(stream) && !yyjson_is_null(stream))
        return body_wrong(c, "stream", "true or false", stream);
    in->stream = yyjson_is_bool(stream) ? yyjson_get_bool(stream) : b->streams;
    in->user = json_get_str(json_get(in->root, "metadata"), "user_id");
    in->n = in->choices = in->made = 1;
    return read_limit(f, b);
}

err pass_check(Flow *f) {
    if (!f->unread) return ERR_OK;
    for (size_t i = 0; i < f->plan_n; i++)
        if (f->plan[i]->dialect == f->spoken) return ERR_OK;
    return talk_read(f); // names what no engine here could be told
}

void pass_body(Flow *f, struct evbuffer *out) {
    Buf b;
    buf_init(&b, f->in.text.n * 6 + 4096); // an escape takes at most six bytes for one
    Json j = json_to(&b);
    size_t i, n;
    yyjson_val *key, *v;
    json_obj(&j);
    json_kv_str(&j, "model", f->upstream_model);
    yyjson_obj_foreach(f->in.root, i, n, key, v) {
        if (str_is(json_str(key), "model")) continue;
        json_key_str(&j, json_str(key)), json_put_val(&j, v);
    }
    json_end_obj(&j);
    evbuffer_add(out, b.p, b.n);
    buf_done(&b);
}
