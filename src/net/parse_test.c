// SPDX-License-Identifier: Apache-2.0
// parse_test.c - units of parse.c, head.c, range.c and sse.c that need no socket. fuzz/ has the
// same properties for hostile bytes.
#include "base/test.h"
#include "net/head.h"
#include "net/parse.h"
#include "net/sse.h"
#include <time.h>

// ---- no copies

static int freed;
static void release(const void *p, size_t n, void *arg) {
    (void)p, (void)n, (void)arg;
    freed++;
}

// A chain that is body from end to end moves as it is: the bytes stay where they are.
TEST(net_body_chains_move) {
    static const char head[] = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n";
    static char body[20000];
    Parser p;
    Buf text;
    struct evbuffer *in = evbuffer_new(), *out = evbuffer_new();
    buf_init(&text, PARSE_HEAD_MAX);
    freed = 0;
    parser_init(&p, false);
    parser_next(&p, &text);
    evbuffer_add(in, head, sizeof head - 1);
    evbuffer_add_reference(in, body, sizeof body, release, NULL);
    CHECK_INT(parser_step(&p, in, out, 1 << 20), PARSE_HEAD);
    CHECK_INT(parser_step(&p, in, out, 1 << 20), PARSE_END);
    struct evbuffer_iovec v;
    CHECK_INT(evbuffer_peek(out, -1, NULL, &v, 1), 1);
    CHECK(v.iov_base == body && freed == 0);
    evbuffer_free(in);
    evbuffer_free(out);
    buf_done(&text);
    CHECK_INT(freed, 1);
}

// The room given is about what is moved, so that back-pressure holds.
TEST(net_body_room_is_kept) {
    static const char *const heads[] = {
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n186a0\r\n"
    };
    static char body[100000];
    for (size_t i = 0; i < countof(heads); i++) {
        Parser p;
        Buf head;
        struct evbuffer *in = evbuffer_new(), *out = evbuffer_new();
        buf_init(&head, PARSE_HEAD_MAX);
        parser_init(&p, false);
        parser_next(&p, &head);
        evbuffer_add(in, heads[i], strlen(heads[i]));
        for (size_t at = 0; at < sizeof body; at += 1000) evbuffer_add(in, body + at, 1000);
        CHECK_INT(parser_step(&p, in, out, 5000), PARSE_HEAD);
        for (size_t all = 0, got; all < sizeof body; all += got) {
            ParseStep step = parser_step(&p, in, out, 5000);
            got = evbuffer_get_length(out);
            CHECK(got > 0 && got <= 5000 + 65536);
            CHECK(step == PARSE_BODY || all + got == sizeof body);
            evbuffer_drain(out, got);
        }
        evbuffer_free(in);
        evbuffer_free(out);
        buf_done(&head);
    }
}

// ---- heads

TEST(net_dates_are_right) {
    for (int64_t s = 0; s < 20000000000; s += 86399 * 37 + (int64_t)(test_random() % 86400)) {
        char got[32], want[32];
        time_t t = (time_t)s;
        struct tm tm;
        head_date(s, got);
        strftime(want, sizeof want, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&t, &tm));
        CHECK_STR(str_z(got), want);
    }
}

TEST(net_numbers_in_heads) {
    static const int64_t n[] = { 0, 1, 9, 10, 99, 1234567890, INT64_MAX, -1, INT64_MIN };
    for (size_t i = 0; i < countof(n); i++) {
        Buf b;
        buf_init(&b, 64);
        head_add_i64(&b, n[i]);
        CHECK_STR(buf_str(&b), say(test_ctx(), "%lld", (long long)n[i]));
        buf_done(&b);
    }
}

TEST(net_response_heads_keep_out_what_is_not_theirs) {
    const HttpHeader headers[] = {
        { S("Content-Type"), S("text/plain") },
        { S("content-length"), S("7") },
        { S("Transfer-Encoding"), S("chunked") },
        { S("Connection"), S("X-Private ,close") },
        { S("x-private"), S("secret") },
        { S("Date"), S("then") },
        { S("X-Request-ID"), S("theirs") },
        { S("Upgrade"), S("h2c") },
        { S("X-A"), S("b\r\nSet-Cookie: c") },
        { S("X B"), S("c") },
        { S("X:C"), S("d") },
    };
    Buf b;
    buf_init(&b, 4096);
    head_response(&b,
                  &(HeadResponse){ 418, headers, countof(headers), 3, "close", S("now"), S("id") });
    CHECK_STR(buf_str(&b), "HTTP/1.1 418 \r\nDate: now\r\nContent-Type: text/plain\r\n"
                           "X-A: b  Set-Cookie: c\r\nContent-Length: 3\r\nConnection: close\r\n"
                           "X-Request-Id: id\r\n\r\n");
    buf_done(&b);
}

// ---- server-sent events

static void note(void *arg, const SseEvent *ev) {
    buf_printf(arg, "(" STR_FMT "|" STR_FMT "|" STR_FMT ")", STR_ARG(ev->event), STR_ARG(ev->id),
               STR_ARG(ev->data));
}

// Each stream whole and byte by byte.
TEST(net_sse_reading) {
    static const struct {
        const char *bytes, *events;
    } rows[] = {
        { "data: a\n\n", "(||a)" },
        { "data:a\r\rdata:  b\r\n\r\n", "(||a)(|| b)" },
        { "\xef\xbb\xbf"
          "data: a\n\n",
          "(||a)" },
        { "data: \xef\xbb\xbf"
          "a\n\n",
          "(||\xef\xbb\xbf"
          "a)" },
        { ": hi\n\ndata: a\n\n", "(||a)" },
        { "event: e\nid: 1\ndata: a\ndata: b\n\ndata: c\n\n", "(e|1|a\nb)(|1|c)" },
        { "id: 1\ndata: a\n\nid\ndata: b\n\n", "(|1|a)(||b)" },
        { "event: e\n\ndata: a\n\n", "(||a)" }, // no data, no event
        { "data\n\ndata:\n\ndata\ndata\n\n", "(||)(||)(||\n)" },
        { "data: a\n", "" }, // never finished
        { "Data: a\nfoo: b\nretry: 9\n\n", "" },
        { "data: a\r\n\r\n\r\n\r\ndata: b\n\r\n", "(||a)(||b)" },
    };
    for (size_t i = 0; i < 2 * countof(rows); i++) {
        Sse s;
        Buf b;
        buf_init(&b, 4096);
        sse_init(&s, 1000);
        str bytes = str_z(rows[i / 2].bytes);
        size_t step = i % 2 ? 1 : bytes.n;
        for (size_t at = 0; at < bytes.n; at += step)
            CHECK(sse_feed(&s, str_sub(bytes, at, step), note, &b));
        CHECK_STR(buf_str(&b), rows[i / 2].events);
        sse_done(&s);
        buf_done(&b);
    }
}

TEST(net_sse_events_have_a_limit) {
    for (size_t n = 95; n < 110; n++) {
        for (int lines = 1; lines < 3; lines++) {
            Sse s;
            Buf b, in;
            buf_init(&b, 4096);
            buf_init(&in, 4096);
            sse_init(&s, 100);
            size_t each = n / (size_t)lines;
            for (int i = 0; i < lines; i++) {
                buf_add(&in, S("data:"));
                buf_add_repeat(&in, 'x', each);
                buf_add(&in, S("\n"));
            }
            buf_add(&in, S("\n"));
            bool fits = each + 5 <= 100 && each * (size_t)lines + (size_t)lines - 1 <= 100;
            CHECK_INT(sse_feed(&s, buf_str(&in), note, &b), fits);
            CHECK_INT(sse_feed(&s, S("data: a\n\n"), note, &b), fits); // for good
            CHECK_INT(b.n > 0, fits);
            sse_done(&s);
            buf_done(&b);
            buf_done(&in);
        }
    }
}
