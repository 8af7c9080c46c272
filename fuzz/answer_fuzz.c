// SPDX-License-Identifier: Apache-2.0
// answer_fuzz.c - any bytes as an engine's answer: events of a stream, folded or passed on; a whole
// answer; an error. What a client gets of it is JSON, figures stay within sense, and an error
// becomes a refusal that says why. The first byte chooses what was asked.
// Covers: src/mod/gateway/stream.c src/mod/gateway/fold_answer.c src/mod/gateway/refusal.c
// Threads: one.
#include "fuzz.h"
#include "mod/gateway/flow.h"

static void check_figures(const Flow *f) {
    assert(f->r.prompt_tokens >= 0 && f->r.completion_tokens >= 0 && f->r.cached_tokens >= 0);
    assert(f->out.tokens >= 0 && f->out.tbt_max_us >= 0);
    assert(f->r.finish_reason.n < sizeof f->finish && f->r.response_id.n < sizeof f->response_id);
}

static void check_json(Ctx *c, str text) {
    yyjson_val *v;
    err e = json_parse(c, text, &v);
    assert(!e && yyjson_is_obj(v));
}

static void on_event(void *arg, const SseEvent *ev) {
    Flow *f = arg;
    if (f->out.cut) return;
    str shown = stream_event(f, ev->data);
    check_figures(f);
    if (shown.p) check_json(f->c, shown);
    assert(!shown.p || !f->out.fold);
}

static void check_stream(Flow *f, str bytes) {
    Sse s;
    sse_init(&s, 1 << 16);
    sse_feed(&s, bytes, on_event, f);
    sse_done(&s);
    check_json(f->c, flow_usage(f));
    if (!f->out.fold || f->out.cut) return;
    Buf b;
    buf_init(&b, 16 << 20);
    fold_write(f->out.fold, f->operation == OP_CHAT, flow_usage(f), &b);
    check_json(f->c, buf_str(&b));
    buf_done(&b);
}

FUZZ(answer) {
    unsigned how = fuzz_choice(&bytes);
    const Engine engine = { .name = "fuzz", .launched = how & 8, .streams_usage = true };
    const DeploymentEntry deployment = { .name = S("m") };
    yyjson_val *root;
    Ctx c;
    ctx_init(&c, arena_new(), os_real());
    Flow f = { .c = &c,
               .operation = how & 1 ? OP_COMPLETION : OP_CHAT,
               .engine = &engine,
               .dialect = dialect_find(how & 128 ? S("anthropic") : S("openai.chat")),
               .deployment = &deployment,
               .upstream_model = S("up"),
               .record_content = true };
    f.in.stream = how & 2, f.in.wants_usage = how & 4, f.in.wants_timings = how & 16;
    f.in.n = f.in.choices = how & 32 ? 3 : 1, f.in.prompts = 1;
    Told of_choice[2][3] = { 0 };
    f.out.of_choice = of_choice[0];
    if (!f.in.stream) f.out.fold = fold_new(&c);
    check_stream(&f, bytes);
    stream_close(&f);
    f.out = (Answer){ .of_choice = of_choice[1] };
    f.r = (RequestRecord){ 0 };
    if (!json_parse(&c, bytes, &root)) {
        err e = answer_read(&f, root);
        assert(!e);
        check_figures(&f);
    }
    stream_close(&f);
    err e = engine_refusal(&f, how & 64 ? 500 : 400, bytes);
    fuzz_refused(&c, e, e == ERR_UPSTREAM ? e : ERR_INVALID);
    arena_free(c.mem);
}
