// SPDX-License-Identifier: Apache-2.0
// dialect_test.c - what holds for every dialect and every pair: a request that both can say is the
// same after both; an answer is the same streamed, whole, and passed on; what has no place is
// refused by the client's own name. Owner: the test's arena. Threads: one.
#include "mod/dialect/talk_test.h"
#include <stdio.h>
#include <time.h>

// ---- requests
static err rewrite(Ctx *c, const Dialect *d, const Talk *t, str *out_text, Talk *out) {
    yyjson_val *root;
    Buf b;
    buf_init(&b, 16 << 20);
    Json j = json_to(&b);
    err e = dialect_write(c, d, NULL, t, &j);
    *out_text = arena_str(c->mem, buf_str(&b));
    buf_done(&b);
    if (e) return e;
    TRY(json_parse(c, *out_text, &root));
    return dialect_read(c, d, root, out);
}

// What follows the first difference, with a little before it.
static str from_there(str a, str b) {
    size_t n = 0;
    while (n < a.n && n < b.n && a.p[n] == b.p[n]) n++;
    n = n > 40 ? n - 40 : 0;
    return str_sub(a, n, 160);
}

static void check_pair(const Dialect *a, const Dialect *b, uint64_t seed) {
    const Dialect *pair[] = { a, b, NULL };
    for (int i = 0; i < 60; i++) {
        Ctx *c = test_ctx();
        Chance r = { seed + (uint64_t)i, c, pair };
        Talk *t = chance_talk(&r), first, second;
        str text = { 0 };
        CHECK_OK(c, rewrite(c, a, t, &text, &first));
        CHECK_OK(c, rewrite(c, b, &first, &text, &second));
        str want = talk_text(c, t, pair), got = talk_text(c, &second, pair);
        if (!str_eq(want, got))
            TEST_FAIL_("%s to %s, %d: ..." STR_FMT "... is not ..." STR_FMT "...", a->name, b->name,
                       i, STR_ARG(from_there(got, want)), STR_ARG(from_there(want, got)));
    }
}

TEST(dialect_requests_are_kept_by_every_pair) {
    uint64_t seed = test_random();
    for (const Dialect *const *a = dialects; *a; a++)
        for (const Dialect *const *b = dialects; *b; b++) check_pair(*a, *b, seed);
}

// ---- answers
typedef struct Sink {
    Ctx *c;
    Kept *kept;
    Reading *next; // reads what is written
    Writing *out;  // writes what is read
    bool ended, failed;
    err e;
} Sink;

static void on_delta(void *arg, const Delta *d) {
    Sink *s = arg;
    kept_add(s->kept, d);
    s->ended |= d->kind == DELTA_END, s->failed |= d->kind == DELTA_ERROR;
    if (s->out) writing_delta(s->out, d);
}

static void on_event(void *arg, str event, str data) {
    Sink *s = arg;
    if (!s->e) s->e = reading_event(s->next, event, data);
}

static const Talk *asked_of(const Deltas *all, Ctx *c) {
    Talk *t = new (c->mem, Talk, 1);
    t->stream = t->stream_usage = 1, t->choices = 1;
    for (size_t i = 0; i < all->n; i++)
        if (all->all[i].choice >= t->choices) t->choices = all->all[i].choice + 1;
    return t;
}

static void writing_start(Writing *w, const Dialect *d, const Talk *asked, Sink *to) {
    writing_init(w, d, asked);
    w->id = S("id-1"), w->model = S("mine"), w->created_s = 1700000000, w->event = on_event,
    w->arg = to;
}

static void sink_init(Sink *s, Ctx *c, const Dialect *d, Reading *r) {
    *s = (Sink){ .c = c, .kept = kept_new(), .next = r };
    reading_init(r, d, c, on_delta, s);
}

// Written by one dialect's writer and read by its reader; what is read goes on to another.
static str through(Ctx *c, const Dialect *a, const Dialect *b, const Deltas *all, Sink *out) {
    const Talk *asked = asked_of(all, c);
    Sink first, second;
    Reading ra, rb;
    Writing wa, wb;
    sink_init(&first, c, a, &ra), sink_init(&second, c, b, &rb);
    writing_start(&wa, a, asked, &first), writing_start(&wb, b, asked, &second);
    first.out = &wb;
    for (size_t i = 0; i < all->n; i++) writing_delta(&wa, &all->all[i]);
    str text = kept_print(c, second.kept);
    *out = second, out->e = first.e ? first.e : second.e;
    kept_free(first.kept), kept_free(second.kept);
    reading_done(&ra), reading_done(&rb), writing_done(&wa), writing_done(&wb);
    return text;
}

static str whole(Ctx *c, const Dialect *d, const Deltas *all, err *out_e) {
    Writing w;
    Reading r;
    Sink s;
    Buf b;
    yyjson_val *root;
    buf_init(&b, 16 << 20);
    Json j = json_to(&b);
    writing_start(&w, d, asked_of(all, c), NULL), sink_init(&s, c, d, &r);
    for (size_t i = 0; i < all->n; i++) writing_keep(&w, &all->all[i]);
    writing_whole(&w, &j);
    *out_e = json_parse(c, buf_str(&b), &root);
    if (!*out_e) *out_e = reading_whole(&r, root);
    str text = kept_print(c, s.kept);
    kept_free(s.kept), reading_done(&r), writing_done(&w), buf_done(&b);
    return text;
}

static str folded(Ctx *c, const Deltas *all) {
    Kept *f = kept_new();
    for (size_t i = 0; i < all->n; i++) kept_add(f, &all->all[i]);
    str text = kept_print(c, f);
    kept_free(f);
    return text;
}

static void check_answers(const Dialect *a, const Dialect *b, uint64_t seed) {
    const Dialect *pair[] = { a, b, NULL };
    for (int i = 0; i < 60; i++) {
        Ctx *c = test_ctx();
        Chance r = { seed + (uint64_t)i, c, pair };
        Deltas *all = chance_deltas(&r);
        Sink end;
        err e;
        str want = folded(c, all), got = through(c, a, b, all, &end);
        CHECK_OK(c, end.e);
        CHECK(end.ended && !end.failed);
        if (!str_eq(got, want))
            TEST_FAIL_("%s to %s, %d: ..." STR_FMT "... is not ..." STR_FMT "...", a->name, b->name,
                       i, STR_ARG(from_there(got, want)), STR_ARG(from_there(want, got)));
        got = whole(c, a, all, &e);
        CHECK_OK(c, e);
        if (!str_eq(got, want))
            TEST_FAIL_("%s whole, %d: ..." STR_FMT "... is not ..." STR_FMT "...", a->name, i,
                       STR_ARG(from_there(got, want)), STR_ARG(from_there(want, got)));
    }
}

TEST(dialect_answers_are_the_same_streamed_whole_and_passed_on) {
    uint64_t seed = test_random();
    for (const Dialect *const *a = dialects; *a; a++)
        for (const Dialect *const *b = dialects; *b; b++) check_answers(*a, *b, seed);
}

// ---- cost: of the fastest of several turns, in the processor's time, so that a busy machine
// changes nothing
#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
enum { SLOWER = 1 };
#else
enum { SLOWER = 20 };
#endif

// ---- what strangers send: time grows with the size, and no faster
static void repeat(Buf *b, size_t n, const char *head, const char *each, const char *tail) {
    buf_init(b, 64 << 20);
    buf_add(b, str_z(head));
    for (size_t i = 0; i < n; i++) buf_add(b, i ? S(",") : S("")), buf_add(b, str_z(each));
    buf_add(b, str_z(tail));
}

static double read_ns(const Dialect *d, size_t n, const char *head, const char *each,
                      const char *tail) {
    Ctx *c = test_ctx();
    Buf b, out;
    yyjson_val *root;
    Talk t;
    buf_init(&out, 64 << 20);
    repeat(&b, n, head, each, tail);
    Json j = json_to(&out);
    clock_t start = clock();
    err e = json_parse(c, buf_str(&b), &root);
    if (!e) e = dialect_read(c, d, root, &t);
    if (!e) e = dialect_write(c, &dialect_ollama_chat, NULL, &t, &j);
    double ns = (double)(clock() - start) / CLOCKS_PER_SEC * 1e9 / (double)n;
    buf_done(&b), buf_done(&out);
    return e ? 1e12 : ns;
}

TEST(dialect_long_conversations_cost_by_their_length) {
    static const char call[] = "{\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"f\"}}";
    static const char result[] =
        "{\"role\":\"tool\",\"tool_name\":\"f\",\"tool_call_id\":\"a\",\"content\":\"1\"}";
    static const char chat_result[] =
        "{\"role\":\"tool\",\"tool_call_id\":\"a\",\"content\":\"1\"}";
    Buf head;
    buf_init(&head, 1 << 20);
    buf_add(&head, S("{\"model\":\"m\",\"messages\":[{\"role\":\"assistant\",\"tool_calls\":["));
    for (int i = 0; i < 100; i++)
        buf_add(&head, i ? S(",") : S("")), buf_add(&head, str_n(call, sizeof call - 1));
    buf_add(&head, S("]},"));
    double ollama = read_ns(&dialect_ollama_chat, 20000, buf_z(&head), result, "]}");
    double chat = read_ns(&dialect_chat, 20000, buf_z(&head), chat_result, "]}");
    buf_done(&head);
    CHECK(ollama < 50000 * SLOWER && chat < 50000 * SLOWER);
}

// Calls and results without ids, which belong together by their order.
TEST(dialect_results_are_matched_by_order_at_once) {
    enum { CALLS = 100, TURNS = 100 };
    static const char call[] = "{\"function\":{\"name\":\"f\"}}";
    static const char result[] = "{\"role\":\"tool\",\"tool_name\":\"f\",\"content\":\"1\"}";
    Buf calls, turn;
    repeat(&calls, CALLS, "{\"role\":\"assistant\",\"tool_calls\":[", call, "]},");
    repeat(&turn, CALLS, buf_z(&calls), result, "");
    double ns = 1e12;
    for (int i = 0; i < 5; i++)
        ns = fmin(ns, read_ns(&dialect_ollama_chat, TURNS, "{\"model\":\"m\",\"messages\":[",
                              buf_z(&turn), "]}")
                          / (2 * CALLS));
    buf_done(&calls), buf_done(&turn);
    if (ns > 3000 * SLOWER) TEST_FAIL_("%.0f ns a call or result", ns);
}

static size_t read_bytes(const Dialect *d, const char *head, const char *each, const char *tail) {
    enum { TIMES = 1000 };
    Ctx *c = test_ctx();
    Buf b;
    yyjson_val *root;
    Talk t;
    repeat(&b, TIMES, head, each, tail);
    err e = json_parse(c, buf_str(&b), &root);
    size_t before = arena_used(c->mem);
    if (!e) e = dialect_read(c, d, root, &t);
    buf_done(&b);
    return e ? SIZE_MAX : (arena_used(c->mem) - before) / TIMES;
}

TEST(dialect_long_conversations_take_memory_by_their_length) {
    static const char result_and_text[] = "{\"type\":\"tool_result\",\"tool_use_id\":\"a\"},"
                                          "{\"type\":\"text\",\"text\":\"x\"}";
    CHECK(read_bytes(&dialect_anthropic,
                     "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[",
                     result_and_text, "]}]}")
          < 1000);
    CHECK(read_bytes(&dialect_anthropic, "{\"model\":\"m\",\"messages\":[",
                     "{\"role\":\"user\",\"content\":\"\"}", "]}")
          < 500);
    CHECK(read_bytes(&dialect_ollama_chat, "{\"model\":\"m\",\"messages\":[", "{\"role\":\"user\"}",
                     "]}")
          < 300);
}

static void no_error(void *arg, str event, str data) {
    (void)event, *(bool *)arg |= str_find(str_sub(data, 0, 200), S("\"error\"")) >= 0;
}

TEST(dialect_streams_may_be_longer_than_what_is_kept) {
    enum { BYTES = 80 << 20, EACH = 1 << 20 };
    for (const Dialect *const *d = dialects; *d; d++) {
        if (*d == &dialect_responses) continue; // tells at its end all that was said
        Ctx *c = test_ctx();
        Talk asked = { .stream = 1, .choices = 1 };
        Writing w;
        bool failed = false;
        char *text = arena_alloc_raw(c->mem, EACH);
        memset(text, 'x', EACH);
        writing_init(&w, *d, &asked);
        w.id = S("id_1"), w.model = S("mine"), w.event = no_error, w.arg = &failed;
        for (size_t i = 0; i < BYTES; i += EACH)
            writing_delta(&w, &(Delta){ .kind = i / EACH % 2 ? DELTA_TEXT : DELTA_REASONING,
                                        .text = str_n(text, EACH) });
        CHECK(!failed);
        CHECK_INT(w.kept->size_bytes, 0);
        writing_done(&w);
    }
}

// ---- rows
TEST(dialect_rows_are_whole) {
    for (const Dialect *const *d = dialects; *d; d++) {
        CHECK(dialect_find(str_z((*d)->name)) == *d && (*d)->en && (*d)->zh && *(*d)->path == '/');
        for (TalkField f = 0; f < TALK__COUNT; f++) {
            const DialectPlace *p = &(*d)->place[f];
            bool named = p->kind == PLACE_SAME || p->kind == PLACE_NEAR;
            if (named != (p->member != NULL)) TEST_FAIL_("%s: %s", (*d)->name, talk_field_name(f));
        }
    }
    CHECK(!dialect_find(S("openai.telepathy")));
}

// ---- cost
static void count_event(void *arg, str event, str data) { (void)event, *(size_t *)arg += data.n; }
static void write_on(void *arg, const Delta *d) { writing_delta(arg, d); }

static double event_ns(const Dialect *to, str data) {
    enum { EVENTS = 4000 };
    Talk asked = { .stream = 1, .choices = 1 };
    size_t bytes = 0;
    Ctx *c = test_ctx();
    Writing w;
    Reading r;
    writing_init(&w, to, &asked);
    w.id = S("id_1"), w.model = S("mine"), w.event = count_event, w.arg = &bytes;
    reading_init(&r, &dialect_chat, c, write_on, &w);
    clock_t start = clock();
    for (int i = 0; i < EVENTS; i++) {
        ArenaMark m = arena_mark(c->mem);
        if (reading_event(&r, (str){ 0 }, data)) bytes = 0;
        arena_restore(c->mem, m);
    }
    double ns = (double)(clock() - start) / CLOCKS_PER_SEC * 1e9 / EVENTS;
    reading_done(&r), writing_done(&w);
    return bytes > EVENTS ? ns : 1e9;
}

static double request_ns(const Dialect *to, str text) {
    enum { REQUESTS = 300 };
    Ctx *c = test_ctx();
    bool bad = false;
    clock_t start = clock();
    for (int i = 0; i < REQUESTS; i++) {
        ArenaMark m = arena_mark(c->mem);
        yyjson_val *root;
        Talk t;
        Buf b;
        buf_init(&b, 1 << 20);
        Json j = json_to(&b);
        bad |= json_parse(c, text, &root) || dialect_read(c, &dialect_chat, root, &t)
               || dialect_write(c, to, NULL, &t, &j);
        buf_done(&b), arena_restore(c->mem, m);
    }
    double ns = (double)(clock() - start) / CLOCKS_PER_SEC * 1e9 / REQUESTS;
    return bad ? 1e9 : ns;
}

TEST(dialect_translation_is_cheap) {
    static const char chunk[] = "{\"id\":\"chatcmpl-9f1c2d3e4f5a6b7c8d9e0f1a2b3c4d5e\",\"object\":"
                                "\"chat.completion.chunk\","
                                "\"created\":1700000000,\"model\":\"m\",\"system_fingerprint\":"
                                "\"fp_44709d6fcb\",\"choices\":"
                                "[{\"index\":0,\"delta\":{\"content\":\" a "
                                "word\"},\"logprobs\":null,\"finish_reason\":null}]}";
    char text[1024];
    int n =
        snprintf(text, sizeof text,
                 "{\"model\":\"m\",\"temperature\":0.5,\"max_tokens\":99,\"messages\":[{\"role\":"
                 "\"system\",\"content\":\"brief\"},{\"role\":\"user\",\"content\":\"%0800d\"}]}",
                 7);
    for (const Dialect *const *d = dialects; *d; d++) {
        double event = 1e9, request = 1e9;
        for (int i = 0; i < 5; i++) {
            event = fmin(event, event_ns(*d, str_n(chunk, sizeof chunk - 1)));
            request = fmin(request, request_ns(*d, str_n(text, (size_t)n)));
        }
        if (event > 5000 * SLOWER || request > 100000 * SLOWER)
            TEST_FAIL_("to %s: %.0f ns an event, %.0f ns a request", (*d)->name, event, request);
    }
}
