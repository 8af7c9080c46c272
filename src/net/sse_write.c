// SPDX-License-Identifier: Apache-2.0
// sse_write.c - server-sent events on an exchange (WHATWG HTML §9.2): each event is one write.
// Owner and threads: see exchange.h.
#include "net/conn.h"
#include <assert.h>

static str first_line(str s) {
    static const char ends[] = { '\n', '\r', '\0' };
    for (size_t i = 0; i < countof(ends); i++) {
        ptrdiff_t at = str_find_char(s, ends[i]);
        if (at >= 0) s.n = (size_t)at;
    }
    return s;
}

// Takes a line off *rest, ended by CR, LF or CRLF.
static str line_take(str *rest) {
    str line = first_line(*rest);
    while (line.n < rest->n && !rest->p[line.n]) { // a NUL ends no line
        str more = first_line(str_sub(*rest, line.n + 1, rest->n));
        line.n += 1 + more.n;
    }
    size_t skip = line.n;
    if (skip < rest->n)
        skip += rest->p[skip] == '\r' && str_starts(str_sub(*rest, skip, 2), S("\r\n")) ? 2 : 1;
    bool over = line.n == rest->n;
    *rest = over ? (str){ 0 } : str_sub(*rest, skip, rest->n);
    return line;
}

static void add_field(Buf *out, str name, str value) {
    buf_add(out, name);
    buf_add(out, value);
    buf_add_char(out, '\n');
}

static void add_lines(Buf *out, str name, str text) {
    if (!text.p) text = S("");
    while (text.p) add_field(out, name, line_take(&text));
}

void exchange_sse_begin(Exchange *x, const HttpHeader *headers, size_t n, int64_t heartbeat_ms) {
    HttpHeader all[HTTP_HEADERS_MAX + 3] = {
        { S("Content-Type"), S("text/event-stream; charset=utf-8") },
        { S("Cache-Control"), S("no-cache") },
        { S("X-Accel-Buffering"), S("no") }, // nginx would hold events back
    };
    assert(n <= HTTP_HEADERS_MAX && heartbeat_ms >= 0);
    if (n) memcpy(all + 3, headers, n * sizeof *headers);
    exchange_begin(x, 200, all, n + 3, -1);
    x->beat_ms = x->bodyless ? 0 : heartbeat_ms;
    x->beat_ns = loop_now_ns(x->loop);
    conn_settle(x->conn);
}

void exchange_sse(Exchange *x, const char *event, str id, str data) {
    Buf *out = lane_scratch(x->lane);
    if (event) add_field(out, S("event: "), first_line(str_z(event)));
    if (id.p) add_field(out, S("id: "), first_line(id));
    add_lines(out, S("data: "), data);
    buf_add_char(out, '\n');
    assert(!out->full);
    exchange_write(x, buf_str(out));
}

void exchange_sse_comment(Exchange *x, str text) {
    Buf *out = lane_scratch(x->lane);
    add_lines(out, S(": "), text);
    buf_add_char(out, '\n');
    assert(!out->full);
    exchange_write(x, buf_str(out));
}

void sse_beat(Exchange *x, int64_t now_ns) {
    if (now_ns < x->beat_ns + x->beat_ms * 1000000) return;
    x->beat_ns = now_ns;
    if (x->owned && !conn_pending(x->conn))
        exchange_write(x, S(":\n\n")); // else it is slow, not idle
}
