// SPDX-License-Identifier: Apache-2.0
// http_fuzz.c - libFuzzer's entry to HTTP: any bytes as a stream of requests, or of responses. What
// comes out does not depend on how the bytes were cut into packets; paths stay inside their routes;
// heads written from hostile text read back as one head.
// The first byte chooses the side, the second the cuts. Threads: one.
// Covers: src/net/parse.c src/net/target.c src/net/router.c src/net/range.c src/net/head.c
// Covers: src/net/proxies.c
#include "fuzz.h"
#include "net/head.h"
#include "net/parse.h"
#include "net/proxies.h"
#include "net/range.h"
#include "net/router.h"

static void stream(Exchange *x, const NetRoute *route) { (void)x, (void)route; }
static const NetRoute rows[] = {
    { HTTP_GET, "/", 0, 0, NULL, stream, NULL },
    { HTTP_GET, "/a", 0, 0, NULL, stream, NULL },
    { HTTP_POST, "/a/{x}", 0, 0, NULL, stream, NULL },
    { HTTP_GET, "/a/{x}/b", 0, 0, NULL, stream, NULL },
    { HTTP_GET, "/a/{x}/{y}/{rest*}", 0, 0, NULL, stream, NULL },
    { HTTP_GET, "/{any*}", 0, 0, NULL, stream, NULL },
};
static const NetRoute *const row_list[] = { &rows[0], &rows[1], &rows[2],
                                            &rows[3], &rows[4], &rows[5] };

static bool has_dots(str s) {
    str part;
    while (str_cut(&s, '/', &part))
        if (str_is(part, ".") || str_is(part, "..")) return true;
    return false;
}

static void check_target(Arena *a, const Router *router, HttpRequest *r) {
    Target t;
    unsigned allowed;
    str rest, name, value;
    if (target_parse(a, r->target, &t)) return;
    assert(str_utf8(t.path) && str_find_char(t.path, 0) < 0 && !has_dots(t.path));
    assert(str_is(t.path, "*") || str_starts(t.path, S("/")));
    for (size_t i = 0; i < t.segments_n; i++) assert(!has_dots(t.segments[i]));
    const NetRoute *row = router_find(router, a, &t, r, &allowed);
    assert(!row || allowed);
    for (size_t i = 0; i < r->params_n; i++) assert(r->params[i].n && !has_dots(r->params[i]));
    r->query = rest = t.query;
    while (http_query_next(a, &rest, &name, &value)) assert(str_utf8(name) && str_utf8(value));
    for (int64_t size = 0; size < 200; size = size * 3 + 1) {
        RangePlan p = range_plan(r, S("\"e\""), size);
        bool part = p.answer == RANGE_PART;
        assert(!part || (p.from >= 0 && p.n > 0 && p.from + p.n <= size));
    }
}

static void note_headers(Buf *out, const HttpHeader *headers, size_t n) {
    for (size_t i = 0; i < n; i++)
        buf_printf(out, "[" STR_FMT "=" STR_FMT "]", STR_ARG(headers[i].name),
                   STR_ARG(headers[i].value));
}

// Whatever was forwarded, the client is an address, or who asked.
static void check_client(Arena *a, HttpRequest *r) {
    static Proxies all;
    uint8_t at[16];
    if (!all.n) assert(proxies_parse(S("0.0.0.0/0, 2000::/3, ::1"), &all));
    r->peer = S("10.0.0.1:9");
    assert(addr_ip(proxies_client(&all, a, r), at, NULL));
}

// A head is complete: what it says goes into the transcript. False: it is refused.
static bool note_head(Parser *p, Arena *a, const Router *router, Buf *out) {
    static HttpRequest request;
    static HttpHeader headers[HTTP_HEADERS_MAX];
    const char *why;
    if (p->http.type == HTTP_RESPONSE) {
        ParsedResponse r = { .headers = headers };
        if ((why = parser_response(p, &r))) return false;
        buf_printf(out, "%d %lld ", r.status, (long long)r.length);
        note_headers(out, headers, r.headers_n);
        return true;
    }
    if ((why = parser_request(p, a, &request))) return false;
    buf_printf(out, "%d " STR_FMT " %lld ", (int)request.method, STR_ARG(request.target),
               (long long)request.length);
    note_headers(out, request.headers, request.headers_n);
    check_target(a, router, &request);
    check_client(a, &request);
    return true;
}

typedef struct Run {
    Parser p;
    Arena *mem;
    const Router *router;
    struct evbuffer *in, *body;
    Buf out, head;
    bool over;
} Run;

static void drain_body(Run *r) {
    size_t n = evbuffer_get_length(r->body);
    char *at = buf_reserve(&r->out, n);
    assert(at);
    evbuffer_remove(r->body, at, n);
    buf_commit(&r->out, n);
}

static void run_steps(Run *r, size_t room) {
    while (!r->over) {
        ParseStep step = parser_step(&r->p, r->in, r->body, room);
        drain_body(r);
        if (step == PARSE_MORE) return;
        if (step == PARSE_BODY) continue;
        if (step == PARSE_HEAD) {
            buf_add(&r->out, S("\nHEAD "));
            r->over = !note_head(&r->p, r->mem, r->router, &r->out);
            buf_add(&r->out, S("\nBODY "));
        } else if (step == PARSE_END) {
            buf_add(&r->out, r->p.keep_alive ? S("\nEND") : S("\nEND, close"));
            arena_reset(r->mem);
            parser_next(&r->p, &r->head);
        } else {
            buf_add(&r->out, step == PARSE_BAD ? S("\nBAD") : S("\nTOO LARGE"));
            r->over = true;
        }
    }
}

// cut 0: all at once.
static void transcript(Run *r, const Router *router, bool response, str bytes, unsigned cut) {
    memset(r, 0, sizeof *r);
    r->mem = arena_new();
    r->router = router;
    r->in = evbuffer_new(), r->body = evbuffer_new();
    buf_init(&r->out, 64 << 20);
    buf_init(&r->head, PARSE_HEAD_MAX);
    parser_init(&r->p, response);
    parser_next(&r->p, &r->head);
    uint32_t dice = cut;
    while (bytes.n) {
        dice = dice * 1664525 + 1013904223;
        size_t n = cut ? 1 + (dice >> 16) % (cut < 128 ? cut : 5000) : bytes.n;
        str part = str_sub(bytes, 0, n);
        evbuffer_add(r->in, part.p, part.n);
        run_steps(r, cut ? 1 + (dice >> 8) % 3000 : 65536);
        bytes = str_sub(bytes, part.n, bytes.n);
    }
    buf_add(&r->out, parser_finish(&r->p) ? S("\nwhole") : S("\ncut"));
}

static void done(Run *r) {
    arena_free(r->mem);
    evbuffer_free(r->in);
    evbuffer_free(r->body);
    buf_done(&r->out);
    buf_done(&r->head);
}

// Text from outside in names and values of an answer: still one head with no more than these
// headers.
static void check_written(str bytes) {
    HttpHeader given[8], read[HTTP_HEADERS_MAX];
    size_t n = 0;
    str part;
    while (n < countof(given) && str_cut(&bytes, '|', &part)) {
        given[n].value = part;
        str_cut(&given[n].value, ':', &given[n].name);
        if (!given[n].value.p) given[n].value = S("");
        n++;
    }
    Buf b;
    buf_init(&b, 1 << 20);
    head_response(&b, &(HeadResponse){ 200, given, n, 0, NULL, S("now"), S("id") });
    Run r = { .in = evbuffer_new() };
    buf_init(&r.head, PARSE_HEAD_MAX);
    parser_init(&r.p, true);
    parser_next(&r.p, &r.head);
    evbuffer_add(r.in, b.p, b.n);
    if (b.n < HTTP_HEAD_BYTES_MAX) {
        ParsedResponse out = { .headers = read };
        ParseStep step = parser_step(&r.p, r.in, NULL, 1);
        assert(step == PARSE_HEAD && !evbuffer_get_length(r.in));
        const char *why = parser_response(&r.p, &out);
        assert(!why && out.status == 200 && out.length == 0 && out.headers_n <= n + 3);
    }
    buf_done(&b);
    evbuffer_free(r.in);
    buf_done(&r.head);
}

FUZZ(http) {
    bool response = fuzz_choice(&bytes) & 1;
    unsigned cuts = fuzz_choice(&bytes);
    if (bytes.n > 200000) return;
    static Router *router;
    if (!router) {
        Ctx c;
        ctx_init(&c, arena_new(), NULL);
        err e = router_new(&c, row_list, countof(row_list), &router);
        assert(!e);
        arena_free(c.mem);
    }
    Run whole, cut;
    transcript(&whole, router, response, bytes, 0);
    transcript(&cut, router, response, bytes, 1u + cuts);
    assert(whole.out.n == cut.out.n && !memcmp(whole.out.p, cut.out.p, cut.out.n));
    done(&whole);
    done(&cut);
    check_written(bytes);
}
