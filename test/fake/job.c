// SPDX-License-Identifier: Apache-2.0
// job.c - one inference, from its body to its last byte. As many run as there are slots, the others
// wait their turn. Tokens come at the times that the options say; a client that leaves ends its job
// at once, and what was made until then is billed.
// Owner: the exchange's arena holds the Job. Threads: the loop's.
#include "fake.h"
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { BODY_MAX = 64 << 20, PENDING_MAX = 1 << 20, MILLION = 1000000 };
enum { DICE_FAIL, DICE_CUT, DICE_CUT_AT, DICE_LATENCY, DICE_TOKENS }; // which question is asked
enum { DICE_ID = 1 << 20, DICE_NORMAL }; // tokens have the numbers below

static uint64_t dice(const Job *j, uint64_t question) {
    return mix(mix((uint64_t)j->e->o.seed, (uint64_t)j->record->ordinal), question);
}

// ---- slots

static void start(Job *j);

static void queue_drop(Engine *e, Job *j) {
    if (j->before) j->before->next = j->next;
    else e->first = j->next;
    if (j->next) j->next->before = j->before;
    else e->last = j->before;
    j->next = j->before = NULL;
    j->waits = false;
    e->waiting--;
}

static void queue_add(Engine *e, Job *j) {
    j->before = e->last;
    if (e->last) e->last->next = j;
    else e->first = j;
    e->last = j;
    j->waits = true;
    e->waiting++;
}

static int64_t free_slot(const Engine *e) {
    for (int64_t i = 0; i < e->o.slots; i++)
        if (!e->slots[i]) return i;
    return -1;
}

// Starts those that wait. A job may end within its start, so this is no recursion but a loop.
static void pump(Engine *e) {
    if (e->pumping) return;
    e->pumping = true;
    while (e->first && e->busy < e->o.slots) {
        Job *j = e->first;
        queue_drop(e, j);
        j->slot = free_slot(e);
        assert(j->slot >= 0);
        e->slots[j->slot] = j;
        e->busy++;
        start(j);
    }
    e->pumping = false;
}

// The job's part of everything is over; its memory goes with the exchange.
static void leave(Job *j, Outcome outcome) {
    Engine *e = j->e;
    assert(!j->over);
    j->over = true;
    if (j->waits) queue_drop(e, j);
    if (j->slot >= 0) {
        e->slots[j->slot] = NULL;
        e->busy--;
    }
    timer_free(j->timer);
    if (j->gens) j->record->finish = outcome == OUT_FINISHED ? j->gens[0].finish : NULL;
    j->record->completion_tokens = j->made;
    ledger_close(e->ledger, j->record, outcome);
}

// ---- times

static int64_t spread(uint64_t random, int64_t most) {
    return most ? (int64_t)(random % (uint64_t)(most + 1)) : 0;
}

static double normal(const Job *j) { // Box and Muller, 1958
    const double two_53 = 9007199254740992.0, turn = 6.283185307179586;
    double u = ((double)(dice(j, DICE_NORMAL) >> 11) + 1) / two_53;
    double v = (double)(dice(j, DICE_NORMAL + 1) >> 11) / two_53;
    return sqrt(-2 * log(u)) * cos(turn * v);
}

static int64_t latency_ms(const Job *j) {
    const double z99 = 2.3263478740408408; // 99 % of a normal distribution are below
    int64_t median = j->b.latency_ms, p99 = j->b.latency_p99_ms, most = 3600000;
    int64_t jitter = spread(dice(j, DICE_LATENCY), j->b.jitter_ms);
    if (!median || p99 <= median) return median + jitter;
    double ms = (double)median * exp(log((double)p99 / (double)median) / z99 * normal(j));
    return (ms < (double)most ? llround(ms) : most) + jitter;
}

// From the token at `made` to the next.
static int64_t gap_ns(const Job *j) {
    int64_t jitter = j->b.token_jitter_ms * 1000; // half of it either way
    int64_t us = j->b.token_ms * 1000 - jitter / 2
                 + spread(dice(j, DICE_TOKENS + (uint64_t)j->made), jitter);
    return us > 0 ? us * 1000 : 0;
}

static void again_at(Job *j, int64_t ns) {
    int64_t now = loop_now_ns(j->e->loop);
    timer_start(j->timer, ns > now ? (ns - now + 999999) / 1000000 : 0);
}

// ---- ends

static void flush(Job *j) {
    exchange_write(j->x, buf_str(&j->e->text));
    if (j->e->text.n) j->sent_ns = loop_now_ns(j->e->loop);
    buf_clear(&j->e->text);
}

static void finish(Job *j) {
    Exchange *x = j->x;
    Engine *e = j->e;
    if (j->ask.stream) {
        write_end(j);
        flush(j);
    }
    leave(j, OUT_FINISHED);
    exchange_end(x);
    pump(e);
}

static void cut(Job *j) {
    Exchange *x = j->x;
    Engine *e = j->e;
    leave(j, OUT_CUT);
    exchange_abort(x);
    pump(e);
}

static void refuse(Job *j, const Refusal *why, Outcome outcome) {
    Exchange *x = j->x;
    leave(j, outcome);
    reply_refusal(x, why);
}

static void on_gone(void *arg) {
    Job *j = arg;
    Engine *e = j->e;
    if (j->slot >= 0 && !j->ask.stream && j->gens) { // what had been made by now
        int64_t ns = loop_now_ns(e->loop) - j->start_ns - j->first_ms * 1000000;
        int64_t each = j->b.token_ms * 1000000;
        j->made = ns < 0 ? 0 : each ? ns / each + 1 : j->total;
        if (j->made > j->total) j->made = j->total;
    }
    leave(j, j->slot >= 0 ? OUT_DISCONNECTED : OUT_LEFT_QUEUE);
    pump(e);
}

// ---- streams

// The next tokens of the choice whose turn it is, as one event.
static void step(Job *j) {
    while (j->gens[j->turn].made == j->gens[j->turn].total) j->turn = (j->turn + 1) % j->gens_n;
    Gen *g = &j->gens[j->turn];
    Buf *b = &j->e->piece;
    int64_t many = j->b.tokens_per_chunk ? j->b.tokens_per_chunk : 1;
    str piece;
    buf_clear(b);
    j->chunk_ns = j->due_ns;
    while (many-- && j->made != j->cut_at && g->made < g->total && gen_next(g, &piece)) {
        j->due_ns += gap_ns(j);
        buf_add(b, piece);
        j->made++;
    }
    bool last = g->made == g->total;
    if (last && gen_next(g, &piece)) buf_add(b, piece);
    write_piece(j, j->turn, buf_str(b));
    if (last) write_finish(j, j->turn);
    j->turn = (j->turn + 1) % j->gens_n;
}

static void stream_on(Job *j) {
    int64_t now = loop_now_ns(j->e->loop);
    if (!exchange_began(j->x)) write_begin(j), j->sent_ns = now;
    buf_clear(&j->e->text);
    bool full = false;
    while (j->made < j->total && j->due_ns <= now && j->cut_at != j->made && !full) {
        step(j);
        full = exchange_pending(j->x) + j->e->text.n > PENDING_MAX;
    }
    if (j->made == j->total) {
        finish(j);
        return;
    }
    bool silent = now - j->sent_ns >= j->e->o.ping_s * 1000000000;
    if (j->e->o.ping_s && silent && !j->e->text.n) buf_add(&j->e->text, S(":\n\n"));
    flush(j);
    if (j->cut_at == j->made) {
        j->cutting = true; // once this has left
        timer_start(j->timer, 5);
    } else if (!full) {
        int64_t ping_ns = j->sent_ns + j->e->o.ping_s * 1000000000;
        again_at(j, j->e->o.ping_s && ping_ns < j->due_ns ? ping_ns : j->due_ns);
    } // else on_drained goes on
}

static void on_drained(void *arg) {
    Job *j = arg;
    if (j->slot >= 0 && j->ask.stream && !j->cutting && !timer_running(j->timer)) stream_on(j);
}

// ---- whole answers

static void answer(Job *j) {
    if (j->ask.kind == ASK_EMBED) write_embeddings(j);
    else write_whole(j);
    j->made = j->total;
    str body = buf_str(&j->e->text);
    if (j->cut_at < 0) {
        Exchange *x = j->x;
        Engine *e = j->e;
        leave(j, OUT_FINISHED);
        reply_json(x, 200, body);
        pump(e);
        return;
    }
    exchange_begin(j->x, 200, NULL, 0, (int64_t)body.n);
    exchange_write(j->x, str_sub(body, 0, body.n / 2));
    j->cutting = true;
    timer_start(j->timer, 5);
}

static void on_time(void *arg) {
    Job *j = arg;
    if (j->cutting) cut(j);
    else if (j->ask.stream) stream_on(j);
    else answer(j);
}

// ---- from the body to a slot

static str big_text(Ctx *c, size_t n) {
    char *p = arena_alloc_raw(c->mem, n);
    memset(p, 'x', n);
    return str_n(p, n);
}

static void make_gens(Job *j) {
    Ctx *c = exchange_ctx(j->x);
    size_t n = (size_t)j->ask.n;
    j->gens_n = j->ask.prompts_n * n;
    j->gens = new (c->mem, Gen, j->gens_n);
    for (size_t i = 0; i < j->gens_n; i++) {
        const Prompt *p = job_prompt(j, i);
        int64_t room = options_context(&j->e->o) - p->tokens;
        gen_init(c, &j->ask, &j->b, mix(j->seed, p->hash) + i % n, room, &j->gens[i]);
        if (j->b.big_bytes) j->gens[i].big = big_text(c, (size_t)j->b.big_bytes);
        j->total += j->gens[i].total;
    }
}

static int64_t whole_ns(Job *j) { // from the first token to the last
    if (!j->b.token_jitter_ms) return j->b.token_ms * 1000000 * (j->total - 1);
    int64_t ns = 0;
    for (j->made = 1; j->made < j->total; j->made++) ns += gap_ns(j);
    j->made = 0;
    return ns;
}

static void start(Job *j) {
    int64_t latency = latency_ms(j);
    j->start_ns = loop_now_ns(j->e->loop);
    j->first_ms = latency;
    j->seed = (uint64_t)j->e->o.seed;
    if (j->ask.kind != ASK_EMBED) make_gens(j);
    j->due_ns = j->start_ns + latency * 1000000;
    if (dice(j, DICE_CUT) % MILLION < (uint64_t)j->b.cut_ppm)
        j->cut_at =
            j->total > 1 ? 1 + (int64_t)(dice(j, DICE_CUT_AT) % (uint64_t)(j->total - 1)) : 0;
    j->timer = timer_new(j->e->loop, on_time, j);
    int64_t first_chunk = j->ask.stream ? j->b.tokens_per_chunk - 1 : 0;
    if (first_chunk > 0) j->due_ns += first_chunk * j->b.token_ms * 1000000;
    int64_t due = j->due_ns;
    if (!j->ask.stream && j->total) due += whole_ns(j);
    if (due > j->start_ns) again_at(j, due);
    else on_time(j);
}

static void add_id(Job *j) {
    static const char digits[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    int n = snprintf(j->id, sizeof j->id, "chatcmpl-");
    for (uint64_t i = 0; i < 32; i++)
        j->id[n + (int)i] = digits[mix(dice(j, DICE_ID), i) % (sizeof digits - 1)];
}

static void on_body(void *arg, err e, str body) {
    static const Refusal failure = { 500, "server_error", "the fake engine fails, as it was told" };
    static const Refusal no_embeddings = {
        501, "not_supported_error",
        "This server does not support embeddings. Start it with `--embeddings`"
    };
    Job *j = arg;
    Refusal why = { 0 };
    if (e) {
        Exchange *x = j->x;
        leave(j, OUT_REFUSED);
        exchange_refuse(x);
        return;
    }
    if (j->ask.kind == ASK_EMBED && !j->e->o.embeddings) why = no_embeddings;
    else (void)ask_parse(exchange_ctx(j->x), j->e, body, &j->ask, &why);
    if (why.status) {
        refuse(j, &why, OUT_REFUSED);
        return;
    }
    j->b = j->e->o.b;
    options_of_name(j->ask.model, &j->b);
    j->record->stream = j->ask.stream;
    if (dice(j, DICE_FAIL) % MILLION < (uint64_t)j->b.fail_ppm) {
        refuse(j, &failure, OUT_FAILED);
        return;
    }
    for (size_t i = 0; i < j->ask.prompts_n; i++)
        j->record->prompt_tokens += j->ask.prompts[i].tokens;
    queue_add(j->e, j);
    pump(j->e);
}

void job_route(Exchange *x, const NetRoute *route) {
    Ctx *c = exchange_ctx(x);
    Engine *e = c->app;
    if (engine_turns_away(e, x)) return;
    if (e->o.exit_after >= 0 && e->asked >= e->o.exit_after) _Exit(3);
    e->asked++;
    Job *j = new (c->mem, Job, 1);
    j->e = e;
    j->x = x;
    j->slot = -1;
    j->cut_at = -1;
    j->ask.kind = *(const AskKind *)route->owner;
    j->record = ledger_open(e->ledger, exchange_request(x)->request_id, route->pattern);
    add_id(j);
    exchange_events(x, &(ExchangeEvents){ .drained = on_drained, .gone = on_gone }, j);
    exchange_read_all(x, BODY_MAX, on_body, j);
}
