// SPDX-License-Identifier: Apache-2.0
// stage_settle.c - runs always: what the request used is settled in the journal, its reservation
// turned into what it cost, its slot given to the next one; then its wide record is kept, and last
// the end of the answer leaves.
#include "mod/gateway/flow.h"
#include "blob/blob.h"

static void describe(Flow *f) {
    RequestRecord *r = &f->r;
    const HttpRequest *q = exchange_request(f->x);
    r->request_id = f->c->request_id, r->client_ip = q->peer, r->operation = f->operation;
    r->streamed = f->in.stream, r->end_user = f->in.user, r->model = f->in.model,
    r->project = f->project;
    if (f->key) r->org = f->c->org, r->key_id = f->key->id, r->owner = f->key->owner;
    const DeploymentEntry *d = f->deployment;
    if (d) r->deployment = d->id, r->version = d->version, r->model_digest = d->model_digest;
    usage_priced(r, f->price);
}

void flow_describe(Flow *f) {
    char hex[BLOB_DIGEST_HEX + 1];
    describe(f);
    sha256_hex(f->in.text, hex);
    f->r.prompt_digest = arena_str(f->c->mem, str_z(hex));
    f->record_content = trace_records_content(f->snapshot, f->project, f->c->request_id);
    if (f->record_content) f->r.prompt = f->in.text;
}

static void close_digest(Flow *f) {
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    Buf hex;
    if (!f->out.digest) return;
    EVP_DigestFinal_ex(f->out.digest, md, &n);
    buf_init(&hex, 2 * EVP_MAX_MD_SIZE);
    buf_add_hex(&hex, md, n);
    f->r.answer_digest = arena_str(f->c->mem, buf_str(&hex));
    buf_done(&hex);
    if (f->record_content) f->r.answer = buf_str(&f->out.content);
}

static Outcome outcome(const Flow *f) {
    return f->gone ? OUTCOME_CANCELLED : f->failed ? OUTCOME_ERROR : OUTCOME_OK;
}

Verdict stage_settle(Flow *f) {
    RequestRecord *r = &f->r;
    bool under_way = f->has_room && f->attempt;
    r->final = true;
    r->status = f->gone ? 499 : f->failed ? err_row(f->c->failure.code)->http : 200;
    if (f->failed && !f->gone) {
        r->error_class = str_z(err_row(f->c->failure.code)->slug);
        r->error_reason = str_z(f->c->failure.why ? f->c->failure.why->slug : "");
    }
    if (f->gone) r->error_class = S("cancelled");
    close_digest(f);
    if (under_way) {
        if (!f->lost) attempt_close(f, outcome(f));
        r->outcome = outcome(f);
        r->stage_us[STAGE_TOTAL] = (loop_now_ns(exchange_loop(f->x)) - f->start_ns) / 1000;
        usage_settle(f->app, r);
    } else if (f->has_room) {
        usage_room_back(f->app);
    }
    f->has_room = false;
    int64_t served_ms = f->sent_ns ? (loop_now_ns(exchange_loop(f->x)) - f->sent_ns) / 1000000 : 0;
    if (f->ticket) line_done(f->ticket, served_ms);
    f->ticket = NULL;
    if (f->admitted)
        limiter_settle(access_limiter(), f->subjects, f->subjects_n, limits_reserved(f),
                       f->attempt ? limits_used(f) : (LimitUse){ 0 }, f->limits.at_ms);
    return VERDICT_NEXT;
}

// What is refused costs its caller next to nothing, least of all one who is over a limit: beyond
// ONE_BY_ONE a minute of one key such are counted together, as other denials are.
static bool told_by_itself(Flow *f) {
    enum { ONE_BY_ONE = 60 };
    static const Limits most = { .requests_per_minute = ONE_BY_ONE };
    static const LimitUse none;
    Ctx *c = f->c;
    const Reason *why = c->failure.why;
    LimitSubject of = { arena_printf(c->mem, "refused " STR_FMT, STR_ARG(f->key->id)), &most };
    int64_t now_ns = loop_now_ns(exchange_loop(f->x));
    LimitAnswer a = limiter_admit(access_limiter(), &of, 1, none, f->start_ms, now_ns);
    if (!a.refused) limiter_settle(access_limiter(), &of, 1, none, none, a.at_ms);
    else if (f->app->audit_denied)
        f->app->audit_denied(c, say(c, "inference.use (%s)", why ? why->slug : "cancelled"),
                             exchange_request(f->x)->path);
    return !a.refused;
}

Verdict stage_record(Flow *f) {
    if (!f->key) return VERDICT_NEXT; // nobody: access counts such
    if (!f->attempt) {
        describe(f);
        f->r.outcome = outcome(f), f->r.end_ms = os_wall_ms(f->c->os), f->r.start_ms = f->start_ms;
        f->r.ttft_us = f->r.tbt_mean_us = f->r.tbt_max_us = -1;
        if (told_by_itself(f)) usage_refused(f->app, &f->r);
    }
    trace_live(&f->r);
    return VERDICT_NEXT;
}

static void end_stream(Flow *f) {
    flow_sse_begin(f);
    bool translated = f->spoken && !str_is(str_z(f->spoken->name), "openai.chat");
    if (translated || f->out.translation) {
        translate_end(f);
    } else if (f->failed) {
        Buf b;
        buf_init(&b, 16384);
        error_write(f->c, exchange_request(f->x)->path, &b);
        exchange_sse(f->x, NULL, (str){ 0 }, buf_str(&b));
        buf_done(&b);
    } else {
        f->out.chunks++; // nothing is held back any more
        answer_show(f, (str){ 0 }, S("[DONE]"));
    }
    exchange_end(f->x);
}

// A refusal that also says how the key's limits stand.
static void refuse_with(Flow *f, HttpHeader *headers, size_t n) {
    int http = err_row(f->c->failure.code)->http;
    int64_t ms = f->c->failure.retry_after_ms;
    Buf b;
    buf_init(&b, 16384);
    error_write(f->c, exchange_request(f->x)->path, &b);
    headers[n++] = (HttpHeader){ S("Content-Type"), S("application/json") };
    if (ms)
        headers[n++] =
            (HttpHeader){ S("Retry-After"),
                          arena_printf(f->c->mem, "%lld", (long long)((ms + 999) / 1000)) };
    if (http == 401) headers[n++] = (HttpHeader){ S("WWW-Authenticate"), S("Bearer") };
    exchange_begin(f->x, http, headers, n, (int64_t)b.n);
    exchange_write(f->x, buf_str(&b));
    buf_done(&b);
    exchange_end(f->x);
}

Verdict stage_answer(Flow *f) {
    if (f->gone) return VERDICT_WAIT; // nobody is there to hear it
    if (f->sse_begun || (f->in.stream && !f->failed)) {
        end_stream(f);
        return VERDICT_WAIT;
    }
    HttpHeader headers[FLOW_HEADERS + 3];
    size_t n = flow_headers(f, headers);
    if (f->failed && !n) {
        exchange_refuse(f->x);
        return VERDICT_WAIT;
    }
    if (f->failed) {
        refuse_with(f, headers, n);
        return VERDICT_WAIT;
    }
    headers[n++] = (HttpHeader){ S("Content-Type"), S("application/json") };
    exchange_begin(f->x, 200, headers, n, (int64_t)f->out.whole.n);
    exchange_write(f->x, buf_str(&f->out.whole));
    exchange_end(f->x);
    return VERDICT_WAIT; // f went with its exchange
}
