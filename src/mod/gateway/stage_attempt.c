// SPDX-License-Identifier: Apache-2.0
// stage_attempt.c - the request at an engine. The journal knows of an attempt before it is sent, of
// streamed tokens before the client sees them, and of its end before the last bytes leave. A
// replica that fails before the first byte is answered by another one.
#include "mod/gateway/flow.h"
#include <assert.h>

enum { ATTEMPTS_MAX = 3, MARK_AHEAD = 16, PENDING_HIGH = 256 << 10, EVENT_MAX = 1 << 20 };

static void send_attempt(Flow *f);

static int64_t now_ns(const Flow *f) { return loop_now_ns(exchange_loop(f->x)); }

static const Replica *replica_of(const DeploymentEntry *d, str id) {
    for (size_t i = 0; d && i < d->replicas_n; i++)
        if (str_eq(d->replicas[i].id, id)) return &d->replicas[i];
    return NULL;
}

// ---- the record of one attempt
// What may leave before the journal is told again: sixteen more than have left for certain, so that
// after a crash the count is no more than that above what the client has read, nor above its limit.
static int64_t ahead(const Flow *f) {
    int64_t n = f->out.left + MARK_AHEAD, most = f->in.output_max;
    if (most == UNSET_INT || most > n) return n;
    return most * f->in.choices < n ? most * f->in.choices : n;
}

static void open_record(Flow *f) {
    RequestRecord *r = &f->r;
    r->attempt = ++f->attempt;
    r->attempt_id = os_id(f->c, "attempt");
    r->replica = arena_str(f->c->mem, ticket_replica(f->ticket)); // outlives its slot
    r->start_ms = os_wall_ms(f->c->os);
    r->prompt_tokens = r->completion_tokens = r->cached_tokens = 0;
    f->out.left = 0;
    f->out.marked = r->completion_tokens = ahead(f); // `open` stands for the first ones
    usage_open(f->app, r);
    r->completion_tokens = 0;
}

void attempt_close(Flow *f, Outcome o) {
    RequestRecord *r = &f->r;
    Answer *a = &f->out;
    int64_t end_ns = now_ns(f);
    r->outcome = o, r->end_ms = os_wall_ms(f->c->os);
    r->machine_us = (end_ns - f->sent_ns) / 1000;
    r->stage_us[STAGE_FIRST] = r->ttft_us = a->first_ns ? (a->first_ns - f->sent_ns) / 1000 : -1;
    r->stage_us[STAGE_STREAM] = a->first_ns ? (end_ns - a->first_ns) / 1000 : -1;
    r->tbt_mean_us = a->chunks > 1 ? a->tbt_sum_us / (a->chunks - 1) : -1;
    r->tbt_max_us = a->chunks > 1 ? a->tbt_max_us : -1;
    r->tokens_exact = a->usage_seen;
    if (!a->usage_seen) r->completion_tokens = a->tokens;
    r->cost_nano = f->price ? usage_cost(f->price, r->prompt_tokens, r->cached_tokens,
                                         r->completion_tokens, r->machine_us)
                            : 0;
    r->stage_us[STAGE_TOTAL] = (end_ns - f->start_ns) / 1000;
}

// ---- reading the answer
static void mark(Flow *f) {
    Answer *a = &f->out;
    if (a->tokens <= a->marked) return;
    a->marked = a->tokens > ahead(f) ? a->tokens : ahead(f);
    usage_mark(f->app, &f->r, a->marked);
}

static void on_event(void *arg, const SseEvent *ev) {
    Flow *f = arg;
    if (f->out.finished) return;
    ArenaMark before = arena_mark(f->c->mem);
    str shown = stream_event(f, ev->data);
    mark(f);
    bool first = !f->sse_begun;
    if (shown.p) {
        flow_sse_begin(f);
        exchange_sse(f->x, NULL, (str){ 0 }, shown);
    }
    // A long stream must not grow the arena; what the first event sets up and what a fold keeps
    // stays.
    if (!first && !f->out.fold) arena_restore(f->c->mem, before);
}

static bool is_stream(const Flow *f) {
    return (f->in.stream || f->out.fold) && f->out.status == 200;
}

static void on_head(void *arg, const CallHead *h) {
    Flow *f = arg;
    f->out.status = h->status;
    if (!is_stream(f)) return;
    f->out.began = true;
}

static void on_data(void *arg, struct evbuffer *chunk) {
    Flow *f = arg;
    if (!f->out.first_ns && !is_stream(f)) f->out.first_ns = now_ns(f);
    if (!exchange_pending(f->x)) f->out.left = f->out.tokens;
    size_t n = evbuffer_get_length(chunk);
    str bytes = str_n(n ? (char *)evbuffer_pullup(chunk, -1) : "", n);
    if (is_stream(f)) f->out.cut |= !sse_feed(&f->out.sse, bytes, on_event, f);
    else buf_add(&f->out.whole, bytes);
    evbuffer_drain(chunk, n);
    if (exchange_pending(f->x) > PENDING_HIGH) call_pause(f->call, true);
}

void flow_drained(Flow *f) {
    if (f->call) call_pause(f->call, false);
}

// ---- its end
static const char *what_ended(CallEnd e) {
    switch (e) {
    case CALL_RESET: return "it ended the connection before the answer was complete";
    case CALL_PROTOCOL:
    case CALL_TOOLARGE: return "its answer is not HTTP as we know it";
    default: return "it cannot be reached";
    }
}

static err call_failure(Flow *f, CallEnd why) {
    Ctx *c = f->c;
    const char *model = say_str(c, f->deployment->name);
    if (why == CALL_TIMEOUT_FIRST || why == CALL_TIMEOUT_IDLE) {
        bool first = why == CALL_TIMEOUT_FIRST;
        int64_t ms = setting_int(&gateway_settings[first ? GW_FIRST : GW_IDLE]);
        return fail(c, ERR_TIMEOUT, R_ENGINE_SLOW, "model", model, "what",
                    first ? "first byte" : "further byte", "ms", say(c, "%lld", (long long)ms));
    }
    return fail(c, ERR_UPSTREAM, R_ENGINE_FAILED, "model", model, "why", what_ended(why));
}

// {"error": {"message", "type", "n_prompt_tokens", "n_ctx"}} as llama-server and OpenAI write it;
// anything else is shown shortened.
static err engine_refusal(Flow *f) {
    Ctx *c = f->c;
    yyjson_val *root = NULL, *e;
    int64_t tokens, context;
    if (json_parse(c, buf_str(&f->out.whole), &root)) root = NULL;
    e = json_get(root, "error");
    str message = json_get_str(e, "message");
    if (!message.p) message = buf_str(&f->out.whole);
    if (json_get_i64(e, "n_prompt_tokens", &tokens) && json_get_i64(e, "n_ctx", &context))
        return fail(c, ERR_INVALID, R_CONTEXT, "field", "messages", "tokens",
                    say(c, "%lld", (long long)tokens), "context",
                    say(c, "%lld", (long long)context), "model", say_str(c, f->deployment->name));
    if (f->out.status >= 500)
        return fail(c, ERR_UPSTREAM, R_ENGINE_FAILED, "model", say_str(c, f->deployment->name),
                    "why", say_str(c, message));
    return fail(c, f->out.status == 429 ? ERR_LIMITED : ERR_INVALID, R_ENGINE_REFUSED, "why",
                say_str(c, message));
}

static err read_whole(Flow *f) {
    Ctx *c = f->c;
    yyjson_val *root;
    if (f->out.whole.full)
        return fail(c, ERR_UPSTREAM, R_ENGINE_FAILED, "model", say_str(c, f->deployment->name),
                    "why", "its answer is too large");
    if (json_parse(c, buf_str(&f->out.whole), &root))
        return fail(c, ERR_UPSTREAM, R_ENGINE_FAILED, "model", say_str(c, f->deployment->name),
                    "why", "its answer is not JSON");
    return answer_read(f, root);
}

static err judge(Flow *f, CallEnd why) {
    bool whole = is_stream(f) && f->out.finished && !f->out.cut; // what comes after is no matter
    if (why != CALL_OK && !whole) return call_failure(f, why);
    if (f->out.status != 200) return engine_refusal(f);
    if (!is_stream(f)) return read_whole(f);
    if (!f->out.finished || f->out.cut) return call_failure(f, CALL_RESET);
    if (f->out.fold) fold_write(f->out.fold, f->operation == OP_CHAT, &f->out.whole);
    return ERR_OK;
}

static bool may_retry(const Flow *f, CallEnd why) {
    bool unreached = why == CALL_CONNECT || why == CALL_REFUSED || why == CALL_TIMEOUT_CONNECT
                     || why == CALL_RESET;
    bool loading = why == CALL_OK && f->out.status == 503;
    return (unreached || loading) && !f->out.chunks && f->attempt < ATTEMPTS_MAX;
}

// What the broken attempt has left behind is forgotten: no content of it was seen.
static void start_over(Flow *f) {
    buf_clear(&f->out.whole);
    sse_done(&f->out.sse), sse_init(&f->out.sse, EVENT_MAX);
    f->out.status = 0, f->out.first_ns = 0, f->out.tokens = 0;
    f->out.cut = f->out.finished = false;
    f->r.error_class = f->r.error_reason = (str){ 0 };
}

// The slot stays with the ticket until the whole flow is settled, or moves to another replica. An
// attempt is settled here only when there will be another: else it is the request's last.
static bool retry(Flow *f, CallEnd why) {
    if (!may_retry(f, why)) return false;
    deployment_failed(f->r.replica);
    if (!usage_room(f->app)) return false;
    if (line_other(f->ticket) != LINE_GO) {
        usage_room_back(f->app);
        return false;
    }
    f->r.error_class = S("upstream"), f->r.error_reason = str_z(call_end_name(why)),
    f->r.status = 502;
    attempt_close(f, OUTCOME_ERROR);
    usage_settle(f->app, &f->r); // with the room of its own; the new one is the next attempt's
    start_over(f);
    send_attempt(f);
    return true;
}

static void on_end(void *arg, CallEnd why) {
    Flow *f = arg;
    f->call = NULL;
    err e = judge(f, why);
    if (e && retry(f, why)) return;
    if (e && (why == CALL_RESET || why == CALL_REFUSED || why == CALL_CONNECT))
        deployment_failed(f->r.replica);
    if (e) flow_fail(f);
    else flow_resume(f);
}

static const CallEvents call_events = { .head = on_head, .data = on_data, .end = on_end };

static str target_of(Flow *f, const Replica *r) {
    static const char *const paths[] = { [OP_CHAT] = "/chat/completions",
                                         [OP_COMPLETION] = "/completions",
                                         [OP_EMBEDDING] = "/embeddings" };
    return arena_printf(f->c->mem, STR_FMT "%s", STR_ARG(r->base_path.n ? r->base_path : S("/v1")),
                        paths[f->operation]);
}

static void send_attempt(Flow *f) {
    const Snapshot *now =
        snapshot_take(); // the replica was picked from a picture at least this new
    const Replica *r =
        replica_of(deployment_by_id(now, f->deployment->id), ticket_replica(f->ticket));
    HttpHeader headers[4] = { { S("Content-Type"), S("application/json") },
                              { S("X-Request-Id"), f->c->request_id } };
    size_t n = 2;
    if (r && r->authorization.n)
        headers[n++] = (HttpHeader){ S("Authorization"), r->authorization };
    struct evbuffer *body = evbuffer_new();
    err e = r ? body_for_engine(f, body) : ERR_OK;
    assert(!e); // what was parsed can be written
    CallSpec spec = { .to = r ? r->addr : (Addr){ "unix:/nowhere" },
                      .method = HTTP_POST,
                      .target = r ? target_of(f, r) : S("/"),
                      .host = r ? r->host : (str){ 0 },
                      .headers = headers,
                      .headers_n = n,
                      .body = body,
                      .repeatable = true,
                      .connect_ms = setting_int(&gateway_settings[GW_CONNECT]),
                      .first_byte_ms = setting_int(&gateway_settings[GW_FIRST]),
                      .idle_ms = setting_int(&gateway_settings[GW_IDLE]) };
    open_record(f);
    f->sent_ns = now_ns(f);
    f->call = call_start(f->app->clients[app_loop_index(f->app, exchange_loop(f->x))], &spec,
                         &call_events, f);
    evbuffer_free(body);
    snapshot_give(now);
}

Verdict stage_attempt(Flow *f) {
    f->r.stage_us[STAGE_QUEUE] = (now_ns(f) - f->queue_ns) / 1000;
    buf_init(&f->out.whole, (size_t)setting_int(&gateway_settings[GW_ANSWER_MAX]));
    sse_init(&f->out.sse, EVENT_MAX);
    flow_describe(f);
    bool folds = f->deployment->engine->launched && !f->in.stream && f->operation != OP_EMBEDDING;
    if (folds) f->out.fold = fold_new(f->c);
    send_attempt(f);
    return VERDICT_WAIT;
}

void stage_attempt_cancel(Flow *f) {
    if (f->call) call_cancel(f->call);
    f->call = NULL;
}
