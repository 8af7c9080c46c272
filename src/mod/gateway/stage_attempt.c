// SPDX-License-Identifier: Apache-2.0
// stage_attempt.c - the request at an engine. The journal knows of an attempt before it is sent, of
// streamed tokens before the client sees them, and of its end before the last bytes leave.
// While the client has seen nothing, another engine may answer instead of one that failed: an
// answer in one piece is folded here, so until its end nothing of it has left, however much was
// made. Every attempt is settled on its own, and paid for. One that could not reach its engine is
// made again there, up to three times or as often as the route says; one whose engine died under it
// only twice, for it may be what kills. Then the route's next target is asked.
#include "mod/gateway/flow.h"
#include "mod/gateway/health.h"
#include <assert.h>

enum {
    ATTEMPTS_MAX = 3,
    DEATHS_MAX = 2,
    MARK_AHEAD = 16,
    PENDING_HIGH = 256 << 10,
    EVENT_MAX = 1 << 20,
    HELD_MAX = 4 << 20
};

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
    f->out.left = f->said_bytes = 0;
    f->out.marked = r->completion_tokens = ahead(f); // `open` stands for the first ones
    usage_open(f->app, r);
    r->completion_tokens = 0;
    machine_watch(f);
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
    flow_estimate(f);
    r->cost_nano = f->price ? usage_cost(f->price, r->prompt_tokens, r->cached_tokens,
                                         r->completion_tokens, r->machine_us)
                            : 0;
    r->stage_us[STAGE_TOTAL] = (end_ns - f->start_ns) / 1000;
}

// ---- reading the answer
void answer_mark(Flow *f) {
    Answer *a = &f->out;
    if (a->tokens <= a->marked) return;
    a->marked = a->tokens > ahead(f) ? a->tokens : ahead(f);
    usage_mark(f->app, &f->r, a->marked);
}

// An engine of ours sends what opens an answer together with its first token: held back until then
// it costs no time, and should the engine die between the two, another may still answer. So it is
// where a route has somebody left to ask.
static bool is_opening(const Flow *f) {
    bool may_wait = f->engine->launched || f->at + 1 < f->plan_n;
    return may_wait && !f->out.shown && !f->in.wants_progress && !f->out.chunks
           && !f->out.usage_seen && !f->r.finish_reason.n;
}

static void send_event(Flow *f, str event, str data) {
    if (f->spoken && f->spoken->framing == FRAMING_NDJSON)
        exchange_write(f->x, data), exchange_write(f->x, S("\n"));
    else exchange_sse(f->x, event.n ? arena_z(f->c->mem, event) : NULL, (str){ 0 }, data);
}

static bool hold(Buf *held, str event, str data) {
    size_t before = held->n;
    bool fits = buf_add(held, event) && buf_add_char(held, '\0') && buf_add(held, data)
                && buf_add_char(held, '\0');
    if (!fits) held->n = before;
    return fits;
}

void answer_show(Flow *f, str event, str data) {
    Buf *held = &f->out.held;
    if (f->engine && is_opening(f) && hold(held, event, data)) return;
    str rest = buf_str(held), name, one;
    flow_sse_begin(f);
    while (rest.n && str_cut(&rest, '\0', &name) && str_cut(&rest, '\0', &one))
        send_event(f, name, one);
    buf_clear(held);
    send_event(f, event, data);
    f->out.shown = true;
}

static void relay(Flow *f, str data) {
    str shown = stream_event(f, data);
    answer_mark(f);
    if (shown.p) answer_show(f, (str){ 0 }, shown);
}

static void on_event(void *arg, const SseEvent *ev) {
    Flow *f = arg;
    if (f->out.finished) return;
    ArenaMark before = arena_mark(f->c->mem);
    f->out.kept = false;
    if (f->out.translation) translate_event(f, ev->event, ev->data);
    else relay(f, ev->data);
    // However many events an engine sends, the arena does not grow by them.
    if (!f->out.kept) arena_restore(f->c->mem, before);
}

static bool is_stream(const Flow *f) {
    bool streams = f->in.stream || f->out.fold || (f->out.translation && f->engine->launched);
    return streams && f->out.status == 200;
}

static void on_head(void *arg, const CallHead *h) {
    enum { SECONDS_MAX = 3600 };
    Flow *f = arg;
    int64_t seconds;
    f->out.status = h->status;
    // RFC 9110, 10.2.3; a date is not gone by, for whose clock it is nobody knows.
    bool said = str_to_i64(call_header(h, "retry-after"), &seconds) && seconds > 0;
    f->out.retry_after_ms = said ? (seconds < SECONDS_MAX ? seconds : SECONDS_MAX) * 1000 : 0;
}

static void on_data(void *arg, struct evbuffer *chunk) {
    Flow *f = arg;
    if (!f->out.first_ns && !is_stream(f)) f->out.first_ns = now_ns(f);
    if (!exchange_pending(f->x)) f->out.left = f->out.tokens;
    size_t n = evbuffer_get_length(chunk);
    str bytes = str_n(n ? (char *)evbuffer_pullup(chunk, -1) : "", n);
    bool lines = f->out.translation && f->dialect->framing == FRAMING_NDJSON;
    if (is_stream(f))
        f->out.cut |=
            lines ? !translate_lines(f, bytes) : !sse_feed(&f->out.sse, bytes, on_event, f);
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
    case CALL_TLS_EXPIRED: return "its certificate is not in date";
    case CALL_TLS_WRONG_HOST: return "its certificate is for another host";
    case CALL_TLS_UNKNOWN_CA: return "its certificate is signed by none whom tls.ca trusts";
    case CALL_TLS_CERT: return "its certificate is not good";
    case CALL_TLS_REFUSED: return "it refuses us as a client of TLS";
    case CALL_TLS_BROKEN: return "it does not speak TLS as we do";
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

static err too_large(Flow *f) {
    return fail(f->c, ERR_UPSTREAM, R_ENGINE_FAILED, "model", say_str(f->c, f->deployment->name),
                "why", "its answer is too large");
}

static err read_whole(Flow *f) {
    Ctx *c = f->c;
    yyjson_val *root;
    if (f->out.whole.full) return too_large(f);
    if (json_parse(c, buf_str(&f->out.whole), &root))
        return fail(c, ERR_UPSTREAM, R_ENGINE_FAILED, "model", say_str(c, f->deployment->name),
                    "why", "its answer is not JSON");
    return f->out.translation ? translate_whole(f, root) : answer_read(f, root);
}

static err write_whole(Flow *f) {
    if (f->out.translation && !f->in.stream && !flow_passes(f)) {
        buf_clear(&f->out.whole);
        return translate_body_out(f, &f->out.whole) ? ERR_OK : too_large(f);
    }
    if (f->out.fold) fold_write(f->out.fold, f->operation == OP_CHAT, flow_usage(f), &f->out.whole);
    return f->out.whole.full ? too_large(f) : ERR_OK;
}

static err judge(Flow *f, CallEnd why) {
    if (f->out.translation && is_stream(f) && why == CALL_OK) translate_over(f);
    bool whole = is_stream(f) && f->out.finished && !f->out.cut; // what comes after is no matter
    if (why != CALL_OK && !whole) return call_failure(f, why);
    if (f->out.status != 200) return engine_refusal(f, f->out.status, buf_str(&f->out.whole));
    if (!is_stream(f)) TRY(read_whole(f));
    else if (f->out.translation && f->out.cut) return translate_judge(f);
    else if (!f->out.finished || f->out.cut) return call_failure(f, CALL_RESET);
    return write_whole(f);
}

// The engine ended its connection, properly or not, before its answer was complete.
static bool has_died(const Flow *f, CallEnd why) {
    return why == CALL_RESET || (why == CALL_OK && is_stream(f) && !f->out.finished && !f->out.cut);
}

static void attempt_failed(Flow *f, CallEnd why) {
    f->r.error_class = S("upstream"), f->r.error_reason = str_z(call_end_name(why));
    f->r.status = 502;
    attempt_close(f, OUTCOME_ERROR);
}

static int attempts_max(const Flow *f) {
    return f->route ? (int)f->route->attempts_max : ATTEMPTS_MAX;
}

static bool may_retry(Flow *f, CallEnd why) {
    bool unreached = call_end_unsent(why);
    bool loading = why == CALL_OK && f->out.status == 503, died = has_died(f, why);
    if (died) f->deaths++;
    return (unreached || loading || died) && !f->out.shown && f->attempt < attempts_max(f)
           && f->deaths < DEATHS_MAX;
}

// What failed lies with this deployment, not with the request.
static bool is_theirs(const Flow *f) {
    err e = f->c->failure.code;
    return e == ERR_UPSTREAM || e == ERR_TIMEOUT || e == ERR_LIMITED || e == ERR_UNAVAILABLE;
}

// For routes; and what an upstream says of when to come again is told to the client.
static void note_health(Flow *f, err e) {
    str id = f->deployment->id;
    int64_t asked_ms = f->out.retry_after_ms;
    if (f->route && !e) health_ok(id, f->out.first_ns - f->sent_ns, now_ns(f));
    else if (f->route && is_theirs(f))
        health_failed(id, asked_ms, setting_int(&gateway_settings[GW_BREAKER]),
                      setting_int(&gateway_settings[GW_BREAKER_OPEN]), now_ns(f));
    if (e == ERR_LIMITED && asked_ms) f->c->failure.retry_after_ms = asked_ms;
}

// The route's next target may do better.
static bool may_fall(const Flow *f) {
    return is_theirs(f) && !f->out.shown && f->deaths < DEATHS_MAX && f->at + 1 < f->plan_n
           && f->attempt < attempts_max(f);
}

// Another of this deployment's replicas is nearer than the route's next target.
static bool has_other(const Flow *f) {
    const DeploymentEntry *d = f->deployment;
    for (size_t i = 0; i < d->replicas_n; i++) {
        const Replica *r = &d->replicas[i];
        if (r->ready && !r->draining && !str_eq(r->id, f->r.replica)) return true;
    }
    return false;
}

static void on_end(void *arg, CallEnd why) {
    Flow *f = arg;
    f->call = NULL;
    machine_unwatch(f);
    err e = judge(f, why);
    note_health(f, e);
    if (!e) {
        flow_resume(f);
        return;
    }
    bool again = may_retry(f, why), falls = may_fall(f) && !(again && has_other(f));
    if (again || has_died(f, why) || (call_end_unsent(why) && why != CALL_TIMEOUT_CONNECT))
        deployment_failed(f->r.replica);
    if (!again && !falls) {
        flow_fail(f);
        return;
    }
    attempt_failed(f, why);
    f->lost = true, f->queue_ns = 0;
    if (falls) flow_next(f);
    flow_again(f);
}

// The last attempt is settled, with the room of its own, when it is certain that another one
// follows: else it is the request's last. What it left behind is forgotten, for nobody saw it.
static bool start_over(Flow *f) {
    RequestRecord *r = &f->r;
    if (!usage_room(f->app)) return false;
    if (limiter_again(access_limiter(), f->subjects, f->subjects_n, limits_used(f), f->limits.at_ms,
                      NULL)) {
        usage_room_back(f->app);
        return false;
    }
    usage_settle(f->app, r);
    stream_close(f);
    f->out = (Answer){ 0 };
    f->c->failure = (Failure){ 0 };
    r->error_class = r->error_reason = r->finish_reason = r->response_id = (str){ 0 };
    f->lost = false;
    return true;
}

static void answer_open(Flow *f) {
    f->out.fold = flow_folds(f) ? fold_new(f->c) : NULL;
    f->out.of_choice = new (f->c->mem, Told, (size_t)f->in.choices);
    buf_init(&f->out.whole, (size_t)setting_int(&gateway_settings[GW_ANSWER_MAX]));
    buf_init(&f->out.held, HELD_MAX);
    sse_init(&f->out.sse, EVENT_MAX);
    if (flow_translates(f)) translate_open(f);
}

// A kept connection ended under the request. The engine may have run it all the same, so what
// follows on a new one is an attempt of its own.
static bool on_repeat(void *arg) {
    Flow *f = arg;
    if (f->attempt >= attempts_max(f)) return false;
    attempt_failed(f, CALL_RESET);
    if (!start_over(f)) return false;
    answer_open(f);
    open_record(f);
    f->sent_ns = now_ns(f);
    return true;
}

static const CallEvents call_events = {
    .head = on_head, .data = on_data, .repeat = on_repeat, .end = on_end
};

static str target_of(Flow *f, const Replica *r) {
    static const char *const paths[] = { [OP_CHAT] = "/chat/completions",
                                         [OP_COMPLETION] = "/completions",
                                         [OP_EMBEDDING] = "/embeddings" };
    return arena_printf(f->c->mem, STR_FMT "%s" STR_FMT,
                        STR_ARG(r->base_path.n ? r->base_path : S("/v1")),
                        f->spoken ? f->dialect->path : paths[f->operation], STR_ARG(r->query));
}

// OpenAI's own servers refuse max_tokens for some models. Others may not know the name that came
// after it, and what is not heard limits nothing.
static bool is_openais(str host) {
    return str_ends(host, S("api.openai.com")) || str_ends(host, S(".openai.azure.com"));
}

// What truly answers: while a deployment changes, its replicas differ in all of this.
static void take_engine(Flow *f, const Replica *r) {
    const DeploymentEntry *d = f->deployment;
    f->engine = r && r->engine ? r->engine : d->engine;
    f->dialect = r ? r->dialect : d->dialect;
    f->accent = r ? r->accent : (Accent){ 0 };
    f->accent.counts = f->engine->launched;
    f->accent.old_max = !r || !is_openais(r->host);
    f->upstream_model =
        r && r->upstream_model.n ? arena_str(f->c->mem, r->upstream_model) : d->upstream_model;
}

static void take_replica(Flow *f, const Replica *r) {
    const DeploymentEntry *d = f->deployment;
    Arena *mem = f->c->mem;
    bool known = r && r->version.n;
    f->r.deployment = d->id;
    f->r.version = known ? arena_str(mem, r->version) : d->version;
    f->r.model_digest = known ? arena_str(mem, r->model_digest) : d->model_digest;
    str model = known ? r->model : d->model;
    f->price = usage_price(f->snapshot, f->project, model.n ? model : d->name);
    usage_priced(&f->r, f->price);
}

static void send_attempt(Flow *f, const Replica *r, struct evbuffer *body) {
    take_replica(f, r);
    answer_open(f);
    HttpHeader headers[4 + ENDPOINT_HEADERS] = { { S("Content-Type"), S("application/json") },
                                                 { S("X-Request-Id"), f->c->request_id } };
    size_t n = 2;
    if (!f->engine->launched)
        headers[n++] = (HttpHeader){ S("Lathe-Hops"),
                                     arena_printf(f->c->mem, "%lld", (long long)f->hops + 1) };
    for (size_t i = 0; r && i < r->headers_n; i++) headers[n++] = r->headers[i];
    str beta = flow_passes(f) ? http_header(exchange_request(f->x), "anthropic-beta") : (str){ 0 };
    if (beta.n) headers[n++] = (HttpHeader){ S("anthropic-beta"), beta };
    CallSpec spec = { .to = r ? r->addr : (Addr){ "unix:/nowhere" },
                      .method = HTTP_POST,
                      .target = r ? target_of(f, r) : S("/"),
                      .host = r ? r->host : (str){ 0 },
                      .tls = r && r->tls ? f->app->tls : NULL,
                      .headers = headers,
                      .headers_n = n,
                      .body = body,
                      .repeatable = true,
                      // llama-server ends kept connections under requests, unsaid
                      .single = f->engine->launched,
                      .connect_ms = setting_int(&gateway_settings[GW_CONNECT]),
                      .first_byte_ms = setting_int(&gateway_settings[GW_FIRST]),
                      .idle_ms = setting_int(&gateway_settings[GW_IDLE]) };
    assert(!r || !r->tls || spec.tls); // never in the clear instead
    open_record(f);
    f->sent_ns = now_ns(f);
    f->call = call_start(f->app->clients[app_loop_index(f->app, exchange_loop(f->x))], &spec,
                         &call_events, f);
}

// The body comes first: what this engine's dialect has no place for is no attempt. The replica was
// picked from a picture at least as new as now's.
static Verdict attempt(Flow *f, const Snapshot *now, struct evbuffer *body, bool *out_unsaid) {
    const Replica *r =
        replica_of(deployment_by_id(now, f->deployment->id), ticket_replica(f->ticket));
    take_engine(f, r);
    *out_unsaid = r && body_for_engine(f, body);
    if (*out_unsaid) return VERDICT_FAIL;
    if (!f->attempt) flow_describe(f);
    else if (!start_over(f)) return VERDICT_FAIL; // why the last attempt failed
    f->r.stage_us[STAGE_QUEUE] = (now_ns(f) - f->queue_ns) / 1000;
    send_attempt(f, r, body);
    return VERDICT_WAIT;
}

Verdict stage_attempt(Flow *f) {
    const Snapshot *now = snapshot_take();
    struct evbuffer *body = evbuffer_new();
    bool unsaid;
    Verdict v = attempt(f, now, body, &unsaid);
    evbuffer_free(body);
    snapshot_give(now);
    if (!unsaid || !flow_next(f)) return v;
    flow_again(f);
    return VERDICT_WAIT;
}

void stage_attempt_cancel(Flow *f) {
    machine_unwatch(f);
    f->taken = f->call && !call_pending(f->call);
    if (f->call) call_cancel(f->call);
    f->call = NULL;
}
