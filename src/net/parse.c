// SPDX-License-Identifier: Apache-2.0
// parse.c - see parse.h. llhttp runs over the chains of the evbuffer in place and stops at the end
// of the head, after each piece of chunked body, and at the end of the message. What it has read of
// a head is copied once, into the Buf; llhttp has checked its grammar by then (CRLF ends each
// line, no folding, names are tokens), so cutting it into slices needs no second parser.
// A body of known length does not pass through llhttp at all.
#include "net/parse.h"
#include <assert.h>

// A chunked message may spend this much on chunk sizes, extensions and trailers, and so many times
// its body: no one can keep a connection busy with extensions alone.
enum { CHUNK_COST_FREE = 64 << 10, CHUNK_COST_TIMES = 16 };

const char parser_too_many_headers[] = "too many headers";

static int on_headers_complete(llhttp_t *http) {
    Parser *p = http->data;
    if (p->bodyless) http->flags |= F_SKIPBODY;
    p->upgrade = http->upgrade;
    http->upgrade = 0; // an upgrade is never granted: the message ends as it would without
    // "close" beats whatever else is named (RFC 9112, 9.3), in HTTP/1.0 as well.
    p->keep_alive = llhttp_should_keep_alive(http) && !(http->flags & F_CONNECTION_CLOSE);
    p->at = PARSER_BODY;
    return HPE_PAUSED;
}

static int on_body(llhttp_t *http, const char *at, size_t n) {
    Parser *p = http->data;
    p->piece = at, p->piece_n = n;
    return HPE_PAUSED;
}

static int on_message_complete(llhttp_t *http) {
    Parser *p = http->data;
    p->at = PARSER_END;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = { .on_headers_complete = on_headers_complete,
                                            .on_body = on_body,
                                            .on_message_complete = on_message_complete };

void parser_init(Parser *p, bool response) {
    memset(p, 0, sizeof *p);
    llhttp_init(&p->http, response ? HTTP_RESPONSE : HTTP_REQUEST, &settings);
    p->http.data = p;
}

void parser_next(Parser *p, Buf *head) {
    assert(head->max >= PARSE_HEAD_MAX);
    llhttp_reset(&p->http);
    p->at = PARSER_HEAD;
    p->head = head;
    buf_clear(head);
    p->frame = FRAME_NONE;
    p->left = p->framing = p->body = 0;
    p->bodyless = p->keep_alive = p->upgrade = false;
    p->why = NULL;
}

static ParseStep bad(Parser *p, const char *why) {
    p->why = why;
    return PARSE_BAD;
}

// How the body is framed (RFC 9112 §6.3). llhttp has refused two lengths, and a length beside a
// transfer coding.
static ParseStep frame(Parser *p) {
    const llhttp_t *h = &p->http;
    bool response = h->type == HTTP_RESPONSE, length = h->flags & F_CONTENT_LENGTH;
    if (h->http_major != 1 || h->http_minor > 1) return bad(p, "not HTTP/1.0 or 1.1");
    if (length && h->content_length > INT64_MAX) return bad(p, "Content-Length overflow");
    if (h->flags & F_TRANSFER_ENCODING && (!h->http_minor || !(h->flags & F_CHUNKED)))
        return bad(p, "Transfer-Encoding is not chunked, or not in HTTP/1.1");
    if (response && h->status_code == 101) return bad(p, "the protocol was switched");
    int status = response ? h->status_code : 0;
    bool bodyless =
        p->bodyless || (status >= 100 && status < 200) || status == 204 || status == 304;
    if (bodyless) p->frame = FRAME_NONE;
    else if (h->flags & F_CHUNKED) p->frame = FRAME_CHUNKED;
    else if (length) p->frame = h->content_length ? FRAME_LENGTH : FRAME_NONE;
    else p->frame = response ? FRAME_CLOSE : FRAME_NONE;
    if (p->frame == FRAME_LENGTH) p->left = (int64_t)h->content_length;
    if (p->frame == FRAME_NONE) p->at = PARSER_END;
    return PARSE_HEAD;
}

static ParseStep step_head(Parser *p, struct evbuffer *in) {
    struct evbuffer_iovec piece;
    while (evbuffer_peek(in, -1, NULL, &piece, 1) > 0 && piece.iov_len) {
        size_t n = PARSE_HEAD_MAX - p->head->n;
        if (n > piece.iov_len) n = piece.iov_len;
        const char *from = piece.iov_base;
        llhttp_errno_t e = llhttp_execute(&p->http, from, n);
        if (e != HPE_OK && e != HPE_PAUSED) return bad(p, llhttp_get_error_reason(&p->http));
        if (e == HPE_PAUSED) n = (size_t)(llhttp_get_error_pos(&p->http) - from);
        buf_add(p->head, str_n(from, n));
        evbuffer_drain(in, n);
        if (e == HPE_PAUSED) {
            llhttp_resume(&p->http);
            return frame(p);
        }
        if (p->head->n > HTTP_HEAD_BYTES_MAX) return PARSE_TOOLARGE;
    }
    return PARSE_MORE;
}

static ParseStep step_length(Parser *p, struct evbuffer *in, struct evbuffer *body, size_t room) {
    size_t n = evbuffer_get_length(in);
    if (n > room) n = room;
    if ((int64_t)n > p->left) n = (size_t)p->left;
    if (!n) return PARSE_MORE;
    int moved = evbuffer_remove_buffer(in, body, n);
    assert(moved == (int)n);
    p->left -= (int64_t)n;
    if (p->left) return PARSE_BODY;
    p->at = PARSER_END;
    return PARSE_END;
}

static ParseStep step_chunked(Parser *p, struct evbuffer *in, struct evbuffer *body, size_t room) {
    struct evbuffer_iovec chain;
    size_t before = evbuffer_get_length(body);
    while (evbuffer_get_length(body) - before < room) {
        if (evbuffer_peek(in, -1, NULL, &chain, 1) <= 0 || !chain.iov_len) break;
        const char *from = chain.iov_base;
        p->piece = NULL, p->piece_n = 0;
        llhttp_errno_t e = llhttp_execute(&p->http, from, chain.iov_len);
        if (e != HPE_OK && e != HPE_PAUSED) {
            bad(p, llhttp_get_error_reason(&p->http));
            break; // what came before is handed over first
        }
        const char *to = e == HPE_PAUSED ? llhttp_get_error_pos(&p->http) : from + chain.iov_len;
        size_t lead = (size_t)((p->piece ? p->piece : to) - from);
        assert(!p->piece || p->piece + p->piece_n == to);
        if (e == HPE_PAUSED) llhttp_resume(&p->http);
        evbuffer_drain(in, lead);
        p->framing += (int64_t)lead;
        if (p->framing > CHUNK_COST_FREE + CHUNK_COST_TIMES * p->body) {
            bad(p, "the chunks hold more framing than body");
            break;
        }
        if (p->at == PARSER_END) return PARSE_END;
        if (p->piece_n) evbuffer_remove_buffer(in, body, p->piece_n);
        p->body += (int64_t)p->piece_n;
    }
    if (evbuffer_get_length(body) > before) return PARSE_BODY;
    return p->why ? PARSE_BAD : PARSE_MORE;
}

ParseStep parser_step(Parser *p, struct evbuffer *in, struct evbuffer *body, size_t room) {
    assert(p->head && room);
    if (p->why) return PARSE_BAD;
    if (p->at == PARSER_HEAD) return step_head(p, in);
    if (p->at == PARSER_END) return PARSE_END;
    if (p->frame == FRAME_CHUNKED) return step_chunked(p, in, body, room);
    if (p->frame == FRAME_CLOSE) p->left = INT64_MAX;
    return step_length(p, in, body, room);
}

bool parser_finish(Parser *p) {
    if (p->at == PARSER_BODY && p->frame == FRAME_CLOSE) p->at = PARSER_END;
    return p->at == PARSER_END;
}

// Takes a line off *rest; llhttp has seen that each ends in CRLF.
static str line_cut(str *rest) {
    const char *end = memchr(rest->p, '\r', rest->n);
    assert(end && end + 1 < rest->p + rest->n && end[1] == '\n');
    str line = str_n(rest->p, (size_t)(end - rest->p));
    *rest = str_n(end + 2, rest->n - line.n - 2);
    return line;
}

static str start_line(const Parser *p, str *rest) {
    *rest = buf_str(p->head);
    while (*rest->p == '\r' || *rest->p == '\n') rest->p++, rest->n--; // RFC 9112 §2.2
    return line_cut(rest);
}

static str header_trim(str s) {
    while (s.n && (*s.p == ' ' || *s.p == '\t')) s.p++, s.n--;
    while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t')) s.n--;
    return s;
}

static const char *headers_cut(str rest, HttpHeader headers[HTTP_HEADERS_MAX], size_t *out_n) {
    size_t n = 0;
    for (str line; (line = line_cut(&rest)).n; n++) {
        if (n == HTTP_HEADERS_MAX) return parser_too_many_headers;
        const char *colon = memchr(line.p, ':', line.n);
        assert(colon);
        size_t name_n = (size_t)(colon - line.p);
        headers[n].name = str_n(line.p, name_n);
        headers[n].value = header_trim(str_n(colon + 1, line.n - name_n - 1));
        if (str_ieq(headers[n].name, S("Transfer-Encoding"))
            && !str_ieq(headers[n].value, S("chunked")))
            return "a transfer coding other than chunked";
    }
    *out_n = n;
    return NULL;
}

static HttpMethod method_of(const llhttp_t *http) {
    switch (http->method) {
    case LLHTTP_GET: return HTTP_GET;
    case LLHTTP_HEAD: return HTTP_HEAD;
    case LLHTTP_POST: return HTTP_POST;
    case LLHTTP_PUT: return HTTP_PUT;
    case LLHTTP_PATCH: return HTTP_PATCH;
    case LLHTTP_DELETE: return HTTP_DELETE;
    case LLHTTP_OPTIONS: return HTTP_OPTIONS;
    default: return HTTP_METHODS;
    }
}

const char *parser_request(Parser *p, Arena *a, HttpRequest *out) {
    HttpHeader headers[HTTP_HEADERS_MAX];
    str rest, line = start_line(p, &rest), version, method;
    const char *why = headers_cut(rest, headers, &out->headers_n);
    if (why) return why;
    size_t bytes = out->headers_n * sizeof *headers;
    out->headers = memcpy(arena_alloc_raw(a, bytes), headers, bytes);
    str_cut(&line, ' ', &method);
    str_cut(&line, ' ', &out->target);
    version = line;
    if (!out->target.n || version.n != 8) return "the request line is not three words";
    out->method = method_of(&p->http);
    out->chunked = p->frame == FRAME_CHUNKED;
    out->length = p->http.flags & F_CONTENT_LENGTH ? (int64_t)p->http.content_length : -1;
    out->keep_alive = p->keep_alive;
    out->expects_continue = false;
    size_t hosts = 0;
    for (size_t i = 0; i < out->headers_n; i++) {
        const HttpHeader *h = &out->headers[i];
        hosts += str_ieq(h->name, S("Host"));
        if (!str_ieq(h->name, S("Expect"))) continue;
        if (!str_ieq(h->value, S("100-continue"))) return "an expectation that is not known";
        out->expects_continue = p->http.http_minor && p->frame != FRAME_NONE;
    }
    if (hosts > 1 || (!hosts && p->http.http_minor)) return "there must be one Host";
    return NULL;
}

const char *parser_response(Parser *p, ParsedResponse *out) {
    str rest;
    start_line(p, &rest);
    out->status = p->http.status_code;
    bool length = p->http.flags & F_CONTENT_LENGTH;
    out->length = length ? (int64_t)p->http.content_length : p->frame == FRAME_NONE ? 0 : -1;
    return headers_cut(rest, out->headers, &out->headers_n);
}
