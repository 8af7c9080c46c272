// SPDX-License-Identifier: Apache-2.0
// reply_test.c - answers over real sockets: ranges and conditions, pieces on demand, failures,
// broken answers, server-sent events.
#include "net/fixture_test.h"

enum { FILE_SIZE = 1000003 };

static str make_file(Ctx *c) {
    str bytes = test_bytes(c, FILE_SIZE + 3);
    c->os = os_real();
    err e = file_write_all(c, arena_printf(c->mem, "%s/file", test_dir()), bytes, 0);
    if (e) test_failed(__FILE__, __LINE__, "no file");
    atomic_store(&test_app.file_size, FILE_SIZE);
    return str_sub(bytes, 3, FILE_SIZE); // the reply starts at byte 3
}

static Answer get(Rig *r, Ctx *c, const char *method, const char *path, const char *headers) {
    return raw_ask(&r->addr, say(c, "%s %s HTTP/1.1\r\nHost: a\r\n%s\r\n", method, path, headers));
}

TEST(net_file_ranges) {
    static const struct {
        const char *headers;
        int status;
        size_t from, n;
    } rows[] = {
        { "", 200, 0, FILE_SIZE },
        { "Range: bytes=0-0\r\n", 206, 0, 1 },
        { "Range: bytes=10-19\r\n", 206, 10, 10 },
        { "Range: bytes = 10-19\r\n", 200, 0, FILE_SIZE },
        { "Range: BYTES=10-19\r\n", 206, 10, 10 },
        { "Range: bytes=999999-\r\n", 206, 999999, 4 },
        { "Range: bytes=5-99999999999999999999999\r\n", 200, 0, FILE_SIZE },
        { "Range: bytes=5-9223372036854775807\r\n", 206, 5, FILE_SIZE - 5 },
        { "Range: bytes=-7\r\n", 206, FILE_SIZE - 7, 7 },
        { "Range: bytes=-99999999\r\n", 206, 0, FILE_SIZE },
        { "Range: bytes=-0\r\n", 416, 0, 0 },
        { "Range: bytes=1000003-\r\n", 416, 0, 0 },
        { "Range: bytes=1000003-1000009\r\n", 416, 0, 0 },
        { "Range: bytes=1000002-\r\n", 206, 1000002, 1 },
        { "Range: bytes=9-3\r\n", 200, 0, FILE_SIZE },
        { "Range: bytes=0-1,5-9\r\n", 200, 0, FILE_SIZE },
        { "Range: bytes=-\r\n", 200, 0, FILE_SIZE },
        { "Range: lines=1-2\r\n", 200, 0, FILE_SIZE },
        { "Range: bytes=1-2\r\nIf-Range: \"f1\"\r\n", 206, 1, 2 },
        { "Range: bytes=1-2\r\nIf-Range: \"f0\"\r\n", 200, 0, FILE_SIZE },
        { "Range: bytes=1-2\r\nIf-Range: W/\"f1\"\r\n", 200, 0, FILE_SIZE },
        { "Range: bytes=1-2\r\nIf-Range: Sun, 22 Nov 2026 16:37:00 GMT\r\n", 200, 0, FILE_SIZE },
        { "If-None-Match: \"f1\"\r\n", 304, 0, 0 },
        { "If-None-Match: \"f0\", W/\"f1\"\r\nRange: bytes=1-2\r\n", 304, 0, 0 },
        { "If-None-Match: *\r\n", 304, 0, 0 },
        { "If-None-Match: \"f0\"\r\n", 200, 0, FILE_SIZE },
    };
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    Ctx *c = test_ctx();
    str bytes = make_file(c);
    for (size_t i = 0; i < countof(rows); i++) {
        Answer a = get(r, c, "GET", "/file", rows[i].headers);
        if (a.status != rows[i].status)
            test_failed(__FILE__, __LINE__, "%s gave %d", rows[i].headers, a.status);
        CHECK(a.status >= 400 || str_is(answer_header(&a, "ETag"), "\"f1\""));
        CHECK(!answer_header(&a, "Set-Cookie").p); // no value adds a header
        if (a.status == 416) CHECK_STR(answer_header(&a, "Content-Range"), "bytes */1000003");
        if (a.status == 206)
            CHECK_STR(answer_header(&a, "Content-Range"),
                      say(c, "bytes %zu-%zu/1000003", rows[i].from, rows[i].from + rows[i].n - 1));
        if (a.status < 300) CHECK(str_eq(a.body, str_sub(bytes, rows[i].from, rows[i].n)));
        if (a.status < 300) CHECK_STR(answer_header(&a, "Accept-Ranges"), "bytes");
        if (a.status == 304) CHECK(!answer_header(&a, "Content-Length").p);
    }
    Answer a = get(r, c, "HEAD", "/file", "Range: bytes=1-2\r\n"); // ranges are for GET
    CHECK_INT(a.status, 200);
    CHECK_STR(answer_header(&a, "Content-Length"), "1000003");
    rig_stop(r);
}

TEST(net_tags_of_small_answers) {
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    Ctx *c = test_ctx();
    Answer a = get(r, c, "GET", "/tagged", "Range: bytes=1-2\r\n"); // no parts of what was made up
    CHECK_STR(a.body, "tagged");
    CHECK_STR(answer_header(&a, "ETag"), "\"t1\"");
    CHECK_INT(get(r, c, "GET", "/tagged", "If-None-Match: \"t1\"\r\n").status, 304);
    CHECK_INT(get(r, c, "HEAD", "/tagged", "If-None-Match: \"t1\"\r\n").status, 304);
    rig_stop(r);
}

// A file that is shorter than promised breaks the answer: no client takes a part for the whole.
TEST(net_file_cut_short_breaks_the_answer) {
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    Ctx *c = test_ctx();
    make_file(c);
    atomic_store(&test_app.file_size, FILE_SIZE + 10);
    Answer a = get(r, c, "GET", "/file", "");
    CHECK_INT(a.status, 200);
    CHECK(a.cut);
    rig_stop(r);
}

TEST(net_pieces_on_demand) {
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    Ctx *c = test_ctx();
    Answer a = get(r, c, "GET", "/pull/1/-1", ""); // one piece is the whole: its length is known
    CHECK_STR(answer_header(&a, "Content-Length"), "10000");
    a = get(r, c, "GET", "/pull/100/-1", "");
    CHECK(a.chunked && !a.cut);
    CHECK_INT(a.body.n, 1000000);
    for (size_t i = 0; i < a.body.n; i++)
        CHECK(a.body.p[i] == 'a' + (char)((100 - i / 10000) % 26));
    a = get(r, c, "GET", "/pull/100/50", ""); // fails in the midst
    CHECK(a.status == 200 && a.cut);
    a = get(r, c, "GET", "/pull/100/100", ""); // fails at once: still an answer
    CHECK_INT(a.status, 500);
    a = get(r, c, "HEAD", "/pull/100/-1", "");
    CHECK_INT(a.status, 200);
    CHECK(wait_int(&test_app.pulls_done, 5));
    rig_stop(r);
    CHECK_INT(atomic_load(&test_app.pulls_done), 5);
    CHECK_INT(atomic_load(&test_app.pulls), 1 + 100 + 51 + 1); // none for HEAD
}

// The generator is not run ahead of its client.
TEST(net_pieces_wait_for_the_client) {
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    int fd = raw_open(&r->addr);
    raw_sendz(fd, "GET /pull/5000/-1 HTTP/1.1\r\nHost: a\r\n\r\n"); // 50 MB
    CHECK(wait_int(&test_app.pulls, 10));
    char byte;
    CHECK(raw_peek(fd, &byte));
    int before = -1, now = atomic_load(&test_app.pulls);
    for (int quiet = 0; quiet < 50; quiet = now == before ? quiet + 1 : 0) {
        before = now;
        wait_ms(2);
        now = atomic_load(&test_app.pulls);
    }
    CHECK(now < 2000); // what the kernel's buffers hold, and little more
    CHECK(server_counts(r->server).bytes_in_flight < 200000);
    CHECK_INT(raw_answer(fd).body.n, 50000000);
    raw_close(fd);
    rig_stop(r);
    CHECK_INT(atomic_load(&test_app.pulls_done), 1);
}

TEST(net_failure_discards_what_was_written) {
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    Answer a = get(r, test_ctx(), "GET", "/failing", "");
    CHECK_INT(a.status, 429);
    CHECK_STR(answer_header(&a, "Retry-After"), "3");
    CHECK(str_find(a.body, S("slow down")) > 0 && str_find(a.body, S("half")) < 0);
    CHECK(str_find(a.body, answer_header(&a, "X-Request-Id")) > 0);
    rig_stop(r);
}

TEST(net_broken_answers_are_seen_as_broken) {
    static const char *const paths[] = { "/aborting", "/lying" };
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    for (size_t i = 0; i < countof(paths); i++) {
        Answer a = get(r, test_ctx(), "GET", paths[i], "");
        CHECK(!a.status || a.cut);
        CHECK(wait_int(&r->left, (int)i + 1));
        CHECK_INT(atomic_load(&r->left_status), 500);
    }
    rig_stop(r);
}

TEST(net_large_stream_is_held_back) {
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    Answer a = get(r, test_ctx(), "GET", "/flood/20000000", "");
    CHECK_INT(a.body.n, 20000000);
    CHECK(atomic_load(&test_app.pending_most) < 220000);
    CHECK(wait_int(&r->left, 1));
    CHECK(atomic_load(&r->left_sent) > 20000000 && atomic_load(&r->left_sent) < 20001000);
    rig_stop(r);
}

// ---- server-sent events

static bool read_until(int fd, Buf *b, const char *what) {
    while (str_find(buf_str(b), str_z(what)) < 0)
        if (!raw_more(fd, b)) return false;
    return true;
}

static void end_hanging(void *arg) {
    (void)arg;
    exchange_end(atomic_load(&test_app.hanging));
}

TEST(net_sse) {
    Rig *r = rig_start(&(RigSpec){ 0 });
    CHECK(r);
    int fd = raw_open(&r->addr);
    raw_sendz(fd, "GET /sse HTTP/1.1\r\nHost: a\r\n\r\n");
    Buf b;
    buf_init(&b, 1 << 20);
    CHECK(read_until(fd, &b, "\n:\n\n\r\n")); // the first heartbeat
    str text = buf_str(&b);
    CHECK(str_find(text, S("Content-Type: text/event-stream")) > 0);
    CHECK(str_find(text, S("X-Own: 1\r\n")) > 0);
    const char *event = "event: greeting\nid: 7\ndata: a\ndata: b\ndata: c\ndata: d\n\n";
    CHECK(str_find(text, str_z(say(test_ctx(), "\r\n\r\n%zx\r\n%s\r\n", strlen(event), event)))
          > 0);
    CHECK(str_find(text, S("\r\ndata: \n\n\r\n")) > 0);
    CHECK(str_find(text, S("\r\n: note\n\n\r\n")) > 0);
    int64_t from = now_ms();
    buf_clear(&b);
    CHECK(read_until(fd, &b, ":\n\n\r\n3\r\n:\n\n\r\n3\r\n:\n\n"));
    CHECK(now_ms() - from >= 40); // every 30 ms, not all at once
    rig_do(r, end_hanging, NULL);
    CHECK(read_until(fd, &b, "\r\n0\r\n\r\n"));
    raw_sendz(fd, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"); // the connection lives on
    buf_clear(&b);
    CHECK(read_until(fd, &b, "hello"));
    buf_done(&b);
    raw_close(fd);
    rig_stop(r);
}
