// SPDX-License-Identifier: Apache-2.0
// client_test.c - the client against an upstream of raw bytes: framing, the pool, repeating,
// cancelling, time-outs.
#include "net/talk_test.h"

enum { END = 1, RST = 2 }; // what the upstream does after its bytes

static const struct {
    const char *bytes;
    int then;
    const char *method;
    CallEnd why;
    int status;
    const char *body;
    bool kept; // the connection serves another call
} answers[] = {
    { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 0, "GET", CALL_OK, 200, "hello", true },
    { "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 0, "GET", CALL_OK, 200, "", true },
    { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nT: "
      "a\r\n\r\n",
      0, "GET", CALL_OK, 200, "hello", true },
    { "HTTP/1.1 200 OK\r\n\r\nhello", END, "GET", CALL_OK, 200, "hello", false },
    { "HTTP/1.0 200 OK\r\n\r\nhello", END, "GET", CALL_OK, 200, "hello", false },
    { "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", 0, "GET",
      CALL_OK, 200, "hello", true },
    { "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", 0, "GET", CALL_OK,
      200, "hello", false },
    { "HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", 0, "GET", CALL_OK, 200, "hello", true },
    { "HTTP/1.1 204 No\r\n\r\n", 0, "GET", CALL_OK, 204, "", true },
    { "HTTP/1.1 304 Same\r\nContent-Length: 5\r\n\r\n", 0, "GET", CALL_OK, 304, "", true },
    { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 0, "HEAD", CALL_OK, 200, "", true },
    { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 0, "HEAD", CALL_OK, 200, "", true },
    { "HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno", 0, "GET", CALL_OK, 500, "no", true },
    { "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n"
      "Content-Length: 2\r\n\r\nhi",
      0, "GET", CALL_OK, 200, "hi", true },
    { "HTTP/1.1 102 P\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", 0, "HEAD", CALL_OK, 200,
      "", true },
    { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n", 0, "GET", CALL_OK,
      200, "hello", false }, // more than was asked for
    { "HTTP/1.1 101 Switch\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", 0, "GET", CALL_PROTOCOL,
      0, "", false },
    { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 0, "GET",
      CALL_PROTOCOL, 0, "", false },
    { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 0, "GET", CALL_PROTOCOL,
      0, "", false },
    { "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 0, "GET", CALL_PROTOCOL, 0, "",
      false },
    { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nx\r\n", 0, "GET",
      CALL_PROTOCOL, 200, "hello", false },
    { "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", 0, "GET", CALL_PROTOCOL, 0, "", false },
    { "HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", 0, "GET", CALL_PROTOCOL, 0, "", false },
    { "SSH-2.0-OpenSSH_9.2\r\n", 0, "GET", CALL_PROTOCOL, 0, "", false },
    { "", END, "GET", CALL_RESET, 0, "", false },
    { "", RST, "GET", CALL_RESET, 0, "", false },
    { "HTTP/1.1 200 OK\r\nContent-Le", END, "GET", CALL_RESET, 0, "", false },
    { "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", END, "GET", CALL_RESET, 200, "hello",
      false },
    { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", END, "GET", CALL_RESET,
      200, "hello", false },
};

static HttpMethod method_named(const char *name) {
    HttpMethod m = HTTP_GET;
    while (strcmp(http_method_name(m), name) != 0) m++;
    return m;
}

// Each as it is, and byte for byte in packets of its own: the same comes out.
TEST(net_client_framing) {
    Line l;
    Addr to;
    Buf head;
    int up = up_listen(&to, 16);
    buf_init(&head, 1 << 16);
    line_open(&l, 4, 60000);
    for (size_t i = 0; i < 2 * countof(answers); i++) {
        Talk t = { .spec = { .to = to, .method = method_named(answers[i / 2].method) } };
        talk_start(&l, &t);
        int fd = up_accept(up);
        CHECK(fd >= 0 && up_request(fd, &head));
        str bytes = str_z(answers[i / 2].bytes);
        if (i % 2)
            for (size_t at = 0; at < bytes.n; at++) raw_send(fd, str_sub(bytes, at, 1));
        else raw_send(fd, bytes);
        if (answers[i / 2].then == END) raw_close(fd);
        if (answers[i / 2].then == RST) raw_reset(fd);
        CHECK(talk_wait(&t));
        if (t.why != answers[i / 2].why || t.status != answers[i / 2].status
            || !str_is(buf_str(&t.answer), answers[i / 2].body))
            test_failed(__FILE__, __LINE__, "%zu: %s, %d, '%s'", i / 2, call_end_name(t.why),
                        t.status, buf_z(&t.answer));
        CHECK_INT(atomic_load(&t.heads), t.status ? 1 : 0);
        talk_done(&t);
        if (answers[i / 2].kept) {
            Talk again = { .spec = { .to = to } };
            talk_start(&l, &again);
            CHECK(up_request(fd, &head)); // on the same connection
            raw_sendz(fd, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n.");
            CHECK(talk_wait(&again));
            CHECK(again.why == CALL_OK && again.reused);
            talk_done(&again);
        }
        if (answers[i / 2].then) continue;
        CHECK(raw_ended(fd));
        raw_close(fd);
    }
    line_close(&l);
    raw_close(up);
    buf_done(&head);
}

TEST(net_client_heads_have_limits) {
    Line l;
    Addr to;
    Buf head, b;
    int up = up_listen(&to, 16);
    buf_init(&head, 1 << 16);
    line_open(&l, 4, 60000);
    for (int i = 0; i < 4; i++) {
        buf_init(&b, 1 << 20);
        buf_add(&b, S("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"));
        for (int h = 0; i < 2 && h < 98 + 2 * i; h++) buf_printf(&b, "X-%d: y\r\n", h);
        if (i >= 2) {
            buf_add(&b, S("X: "));
            buf_add_repeat(&b, 'x', i == 2 ? 60000 : 70000);
            buf_add(&b, S("\r\n"));
        }
        buf_add(&b, S("\r\n"));
        Talk t = { .spec = { .to = to } };
        talk_start(&l, &t);
        int fd = up_accept(up);
        CHECK(up_request(fd, &head));
        raw_send(fd, buf_str(&b));
        CHECK(talk_wait(&t));
        CHECK_INT(t.why, i % 2 ? CALL_TOOLARGE : CALL_OK);
        talk_done(&t);
        talk_forget(&l, &to);
        CHECK(raw_ended(fd));
        raw_close(fd);
        buf_done(&b);
    }
    line_close(&l);
    raw_close(up);
    buf_done(&head);
}

TEST(net_client_skips_so_many_interim_answers) {
    Line l;
    Addr to;
    Buf head;
    int up = up_listen(&to, 16);
    buf_init(&head, 1 << 16);
    line_open(&l, 0, 60000);
    for (int interim = 15; interim < 18; interim++) {
        Talk t = { .spec = { .to = to } };
        talk_start(&l, &t);
        int fd = up_accept(up);
        CHECK(up_request(fd, &head));
        for (int i = 0; i < interim; i++) raw_sendz(fd, "HTTP/1.1 103 Early\r\n\r\n");
        raw_sendz(fd, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        CHECK(talk_wait(&t));
        CHECK_INT(t.why, interim > 16 ? CALL_PROTOCOL : CALL_OK);
        talk_done(&t);
        raw_close(fd);
    }
    line_close(&l);
    raw_close(up);
    buf_done(&head);
}

// What is sent: exactly this, whatever the caller passes.
TEST(net_client_request_text) {
    const HttpHeader headers[] = {
        { S("Accept"), S("*/*") },
        { S("Host"), S("evil") },
        { S("Connection"), S("close, X-Hop") },
        { S("X-Hop"), S("1") },
        { S("Content-Length"), S("77") },
        { S("transfer-encoding"), S("chunked") },
        { S("Expect"), S("100-continue") },
        { S("X-Split"), S("a\r\nInjected: 1") },
        { S("Bad Name"), S("1") },
        { S(""), S("1") },
    };
    Line l;
    Addr to;
    Buf head;
    int up = up_listen(&to, 16);
    buf_init(&head, 1 << 16);
    line_open(&l, 0, 60000);
    Talk t = { .spec = { .to = to,
                         .method = HTTP_POST,
                         .target = S("/a b\r\n?c"),
                         .headers = headers,
                         .headers_n = countof(headers) },
               .body = S("body") };
    talk_start(&l, &t);
    int fd = up_accept(up);
    CHECK(up_request(fd, &head));
    CHECK_STR(buf_str(&head), say(test_ctx(),
                                  "POST /a%%20b%%0D%%0A?c HTTP/1.1\r\nHost: %s\r\n"
                                  "Accept: */*\r\nX-Split: a  Injected: 1\r\n"
                                  "Content-Length: 4\r\n\r\n",
                                  to.text));
    raw_sendz(fd, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    CHECK(talk_wait(&t));
    talk_done(&t);
    raw_close(fd);
    line_close(&l);
    raw_close(up);
    buf_done(&head);
}
