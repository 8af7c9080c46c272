// SPDX-License-Identifier: Apache-2.0
// malformed_test.c - what is refused before it can mean two things (request smuggling), and heads
// and framing without end.
#include "net/fixture_test.h"

#define HEAD "POST /echo HTTP/1.1\r\nHost: a\r\n"
static const struct {
    const char *name, *bytes;
    size_t n;
} malformed[] = {
#define BAD(name, text) \
    { name, text, sizeof(text) - 1 }
    BAD("length and chunked",
        HEAD "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    BAD("chunked and length",
        HEAD "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"),
    BAD("two lengths", HEAD "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
    BAD("the same length twice", HEAD "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
    BAD("a list of lengths", HEAD "Content-Length: 3, 3\r\n\r\nabc"),
    BAD("plus", HEAD "Content-Length: +3\r\n\r\nabc"),
    BAD("minus", HEAD "Content-Length: -3\r\n\r\nabc"),
    BAD("hex length", HEAD "Content-Length: 0x3\r\n\r\nabc"),
    BAD("no length", HEAD "Content-Length:\r\n\r\nabc"),
    BAD("2^64", HEAD "Content-Length: 18446744073709551616\r\n\r\nabc"),
    BAD("2^64-1", HEAD "Content-Length: 18446744073709551615\r\n\r\nabc"),
    BAD("gzip, chunked", HEAD "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    BAD("chunked, chunked", HEAD "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    BAD("chunked, identity", HEAD "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    BAD("chunked twice",
        HEAD "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    BAD("xchunked", HEAD "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    BAD("vertical tab", HEAD "Transfer-Encoding: \x0b"
                             "chunked\r\n\r\n0\r\n\r\n"),
    BAD("chunked in 1.0", "POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    BAD("chunk size", HEAD "Transfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n0\r\n\r\n"),
    BAD("chunk size 0x", HEAD "Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n"),
    BAD("chunk size minus", HEAD "Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n"),
    BAD("chunk size 2^64", HEAD "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\nabc\r\n"),
    BAD("chunk size space", HEAD "Transfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n"),
    BAD("chunk too short", HEAD "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n"),
    BAD("chunk with LF", HEAD "Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n"),
    BAD("chunk end LF", HEAD "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n"),
    BAD("folding", HEAD "X: a\r\n b\r\nContent-Length: 0\r\n\r\n"),
    BAD("folding at once", "GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    BAD("bare LF", "GET / HTTP/1.1\nHost: a\n\n"),
    BAD("bare LF in headers", "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n"),
    BAD("bare CR", "GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n"),
    BAD("space before colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
    BAD("tab before colon", "GET / HTTP/1.1\r\nHost\t: a\r\n\r\n"),
    BAD("no name", "GET / HTTP/1.1\r\n: a\r\n\r\n"),
    BAD("no colon", "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n"),
    BAD("NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
    BAD("NUL in a name", "GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n"),
    BAD("NUL in the target", "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("no host", "GET / HTTP/1.1\r\n\r\n"),
    BAD("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    BAD("two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("space at the end", "GET /  HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("no version", "GET /\r\nHost: a\r\n\r\n"),
    BAD("HTTP/0.9", "GET / HTTP/0.9\r\nHost: a\r\n\r\n"),
    BAD("HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
    BAD("HTTP/2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
    BAD("preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    BAD("no such method", "FETCH / HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("lower case", "get / HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("8 bit", "GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
    BAD("TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
};

// Each has one answer, 400, and then the end: what follows is never taken for a request.
TEST(net_malformed_is_refused) {
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    for (size_t i = 0; i < countof(malformed); i++) {
        int fd = raw_open(&r->addr);
        raw_send(fd, str_n(malformed[i].bytes, malformed[i].n));
        raw_sendz(fd, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
        Answer a = raw_answer(fd), next = raw_answer(fd);
        if (a.status != 400 || next.status || !str_is(answer_header(&a, "Connection"), "close"))
            test_failed(__FILE__, __LINE__, "%s: %d, then %d", malformed[i].name, a.status,
                        next.status);
        raw_close(fd);
    }
    rig_stop(r);
}

TEST(net_heads_have_limits) {
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    for (int extra = 98; extra < 102; extra++) {
        Buf b;
        buf_init(&b, 1 << 20);
        buf_add(&b, S("GET /hello HTTP/1.1\r\nHost: a\r\n"));
        for (int i = 0; i < extra; i++) buf_printf(&b, "X-%d: y\r\n", i);
        buf_add(&b, S("\r\n"));
        CHECK_INT(raw_ask(&r->addr, buf_z(&b)).status, extra + 1 <= 100 ? 200 : 431);
        buf_done(&b);
    }
    static const size_t sizes[] = { 1000, 65000, 66000, 200000 };
    for (size_t i = 0; i < countof(sizes); i++) {
        Buf b;
        buf_init(&b, 1 << 20);
        buf_add(&b, S("GET /hello HTTP/1.1\r\nHost: a\r\nX: "));
        buf_add_repeat(&b, 'x', sizes[i]);
        buf_add(&b, S("\r\n\r\n"));
        CHECK_INT(raw_ask(&r->addr, buf_z(&b)).status, sizes[i] < HTTP_HEAD_BYTES_MAX ? 200 : 431);
        buf_done(&b);
    }
    rig_stop(r);
}

// A connection cannot be kept busy with framing that carries nothing.
TEST(net_endless_framing_is_refused) {
    static const char *const endless[] = { "\r\n", HEAD "Transfer-Encoding: chunked\r\n\r\n1;",
                                           HEAD "Transfer-Encoding: chunked\r\n\r\n0\r\nT: " };
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    for (size_t i = 0; i < countof(endless); i++) {
        int fd = raw_open(&r->addr);
        raw_sendz(fd, endless[i]);
        Buf b;
        buf_init(&b, 1 << 20);
        while (b.n < 100000) buf_add(&b, i ? S("extension") : S("\r\n"));
        raw_send(fd, buf_str(&b));
        buf_done(&b);
        CHECK_INT(raw_answer(fd).status, i ? 400 : 431);
        raw_close(fd);
    }
    rig_stop(r);
}

// Nothing decodes a body, so nothing small becomes large: on every kind of route, before the body.
TEST(net_coded_bodies_are_refused) {
    static const char *const codings[] = { "gzip", "deflate, gzip", "zstd", "identity, br", "x" };
    static const char *const paths[] = { "/echo", "/stream", "/all" };
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    for (size_t i = 0; i < countof(codings) * countof(paths); i++) {
        const char *path = paths[i % countof(paths)], *coding = codings[i / countof(paths)];
        Answer a = raw_ask(&r->addr, say(test_ctx(),
                                         "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n"
                                         "Content-Encoding: identity\r\n"
                                         "Content-Encoding: %s\r\n\r\n",
                                         path, coding));
        CHECK_INT(a.status, 415);
        CHECK_STR(answer_header(&a, "Accept-Encoding"), "identity");
        CHECK(str_find(a.body, S("body_coded")) >= 0);
    }
    Answer a = raw_ask(&r->addr, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n"
                                 "Content-Encoding: Identity\r\n\r\nok");
    CHECK_INT(a.status, 200);
    a = raw_ask(&r->addr, "GET /hello HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\n\r\n");
    CHECK_INT(a.status, 200); // there is nothing to decode
    rig_stop(r);
}
