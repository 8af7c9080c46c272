// SPDX-License-Identifier: Apache-2.0
// head.c - see head.h.
#include "net/head.h"
#include "net/target.h"
#include <assert.h>
#include <stdio.h>

static const char *status_phrase(int status) {
    switch (status) {
    case 200: return "OK";
    case 201: return "Created";
    case 202: return "Accepted";
    case 204: return "No Content";
    case 206: return "Partial Content";
    case 301: return "Moved Permanently";
    case 302: return "Found";
    case 303: return "See Other";
    case 304: return "Not Modified";
    case 307: return "Temporary Redirect";
    case 308: return "Permanent Redirect";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 402: return "Payment Required";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 410: return "Gone";
    case 412: return "Precondition Failed";
    case 413: return "Content Too Large";
    case 415: return "Unsupported Media Type";
    case 416: return "Range Not Satisfiable";
    case 422: return "Unprocessable Content";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 502: return "Bad Gateway";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    case 507: return "Insufficient Storage";
    default: return "";
    }
}

// Headers that belong to one connection (RFC 9110 §7.6.1), or that net writes itself.
static bool is_ours(str name, bool response) {
    switch (name.n) {
    case 2: return str_ieq(name, S("TE"));
    case 4: return str_ieq(name, response ? S("Date") : S("Host"));
    case 6: return !response && str_ieq(name, S("Expect"));
    case 7: return str_ieq(name, S("Trailer")) || str_ieq(name, S("Upgrade"));
    case 10: return str_ieq(name, S("Connection")) || str_ieq(name, S("Keep-Alive"));
    case 12: return response && str_ieq(name, S("X-Request-Id"));
    case 14: return str_ieq(name, S("Content-Length"));
    case 16: return str_ieq(name, S("Proxy-Connection"));
    case 17: return str_ieq(name, S("Transfer-Encoding"));
    default: return false;
    }
}

static bool is_listed(str list, str name) {
    str part;
    while (str_cut(&list, ',', &part))
        if (str_ieq(str_trim(part), name)) return true;
    return false;
}

static void add_header(Buf *out, str name, str value) {
    char *at = buf_reserve(out, name.n + value.n + 4);
    if (!at) return;
    memcpy(at, name.p, name.n);
    at += name.n;
    *at++ = ':', *at++ = ' ';
    for (size_t i = 0; i < value.n; i++) {
        unsigned char c = (unsigned char)value.p[i];
        *at++ = (c < ' ' && c != '\t') || c == 0x7f ? ' ' : (char)c;
    }
    *at++ = '\r', *at++ = '\n';
    buf_commit(out, name.n + value.n + 4);
}

static void add_headers(Buf *out, const HttpHeader *headers, size_t n, bool response) {
    str listed = { 0 };
    for (size_t i = 0; i < n; i++)
        if (str_ieq(headers[i].name, S("Connection"))) listed = headers[i].value;
    for (size_t i = 0; i < n; i++) {
        str name = headers[i].name;
        if (is_ours(name, response) || !http_is_token(name)) continue;
        if (!listed.p || !is_listed(listed, name)) add_header(out, name, headers[i].value);
    }
}

void head_add_i64(Buf *out, int64_t n) {
    char text[STR_I64];
    buf_add(out, str_i64(n, text));
}

static void add_length(Buf *out, int64_t length) {
    if (length == HEAD_LENGTH_CHUNKED) buf_add(out, S("Transfer-Encoding: chunked\r\n"));
    if (length < 0) return;
    buf_add(out, S("Content-Length: "));
    head_add_i64(out, length);
    buf_add(out, S("\r\n"));
}

void head_response(Buf *out, const HeadResponse *h) {
    assert(h->status >= 100 && h->status <= 999);
    buf_add(out, S("HTTP/1.1 "));
    head_add_i64(out, h->status);
    buf_add_char(out, ' ');
    buf_add(out, str_z(status_phrase(h->status)));
    buf_add(out, S("\r\nDate: "));
    buf_add(out, h->date);
    buf_add(out, S("\r\n"));
    add_headers(out, h->headers, h->headers_n, true);
    add_length(out, h->length);
    if (h->connection) add_header(out, S("Connection"), str_z(h->connection));
    add_header(out, S("X-Request-Id"), h->request_id);
    buf_add(out, S("\r\n"));
    assert(!out->full);
}

// What cannot stand in a target is escaped: it would end the request line.
static void add_target(Buf *out, str target) {
    for (size_t i = 0, from; i < target.n;) {
        for (from = i; i < target.n && target.p[i] > ' ' && target.p[i] < 0x7f;) i++;
        buf_add(out, str_sub(target, from, i - from));
        if (i < target.n) buf_printf(out, "%%%02X", (unsigned char)target.p[i++]);
    }
}

void head_request(Buf *out, const HeadRequest *h) {
    buf_add(out, str_z(http_method_name(h->method)));
    buf_add_char(out, ' ');
    add_target(out, h->target);
    buf_add(out, S(" HTTP/1.1\r\n"));
    add_header(out, S("Host"), h->host);
    add_headers(out, h->headers, h->headers_n, false);
    add_length(out, h->length);
    if (h->close) add_header(out, S("Connection"), S("close"));
    buf_add(out, S("\r\n"));
    assert(!out->full);
}

void head_date(int64_t unix_s, char out[32]) {
    static const char days[] = "ThuFriSatSunMonTueWed";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    int64_t day = unix_s / 86400, s = unix_s % 86400;
    assert(unix_s >= 0);
    // Civil date from days since 1970, in eras of 400 years that begin in March.
    int64_t z = day + 719468, era = z / 146097, doe = z - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
    int64_t mday = doy - (153 * mp + 2) / 5 + 1, month = mp < 10 ? mp + 2 : mp - 10;
    int64_t year = yoe + era * 400 + (month < 2);
    snprintf(out, 32, "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT", days + day % 7 * 3, (int)mday,
             months + month * 3, (int)year, (int)(s / 3600), (int)(s / 60 % 60), (int)(s % 60));
}
