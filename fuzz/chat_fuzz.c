// SPDX-License-Identifier: Apache-2.0
// chat_fuzz.c - any bytes as the body of a request to a model. The first byte chooses the operation
// and the engine, or a dialect that both sides speak. What is refused says why; what is accepted is
// within its limits, and the engine gets one JSON object that differs in nothing but what the
// gateway writes itself.
// Covers: src/mod/gateway/check_body.c src/mod/gateway/stage_parse.c src/mod/gateway/stream.c
// Covers: src/mod/gateway/pass.c
// Threads: one.
#include "fuzz.h"
#include "mod/gateway/flow.h"

static bool ours(str key) {
    static const char *const names[] = { "model", "stream", "stream_options", "timings_per_token" };
    for (size_t i = 0; i < countof(names); i++)
        if (str_is(key, names[i])) return true;
    return false;
}

static void check_sent(Flow *f) {
    Ctx *c = f->c;
    yyjson_val *sent, *key, *v;
    size_t i, n;
    struct evbuffer *out = evbuffer_new();
    err e = body_for_engine(f, out);
    assert(!e);
    str text = str_n(evbuffer_pullup(out, -1), evbuffer_get_length(out));
    e = json_parse(c, text, &sent);
    assert(!e && str_eq(json_get_str(sent, "model"), f->upstream_model));
    yyjson_obj_foreach(f->in.root, i, n, key, v) {
        if (ours(json_str(key))) continue;
        yyjson_val *same = yyjson_obj_getn(sent, yyjson_get_str(key), yyjson_get_len(key));
        assert(same && str_eq(json_text(c->mem, same), json_text(c->mem, v)));
    }
    yyjson_obj_foreach(sent, i, n, key, v) {
        assert(ours(json_str(key))
               || yyjson_obj_getn(f->in.root, yyjson_get_str(key), yyjson_get_len(key)));
    }
    evbuffer_free(out);
}

FUZZ(chat) {
    unsigned how = fuzz_choice(&bytes);
    const Engine engine = {
        .name = "fuzz", .launched = how & 4, .streams_usage = how & 8, .embeds = true
    };
    Ctx c;
    ctx_init(&c, arena_new(), os_real());
    Flow f = { .c = &c, .operation = (Operation)(how % 3), .engine = &engine };
    if (how & 64) {
        f.operation = OP_CHAT;
        f.spoken = f.dialect = dialect_find(how & 128 ? S("ollama.chat") : S("anthropic"));
    }
    err e = flow_read_body(&f, bytes);
    if (e) {
        fuzz_refused(&c, e, ERR_INVALID);
    } else {
        assert(f.in.model.n && f.in.n >= 1 && f.in.prompts >= 1);
        assert(f.operation == OP_EMBEDDING || f.in.choices <= CHOICES_MAX);
        assert(f.in.output_max == UNSET_INT
               || (f.in.output_max >= 1 && f.in.output_max <= INT32_MAX));
        f.upstream_model = how & 16 ? f.in.model : S("up\"stream");
        if (how & 32 && !f.in.stream) f.out.fold = fold_new(&c);
        check_sent(&f);
    }
    arena_free(c.mem);
}
