// SPDX-License-Identifier: Apache-2.0
// request.c - looking things up in a parsed request. Leaves parsing to parse.c and target.c.
// Owner and threads: see request.h.
#include "net/request.h"
#include "net/reason.h"
#include "net/target.h"
#include <assert.h>

REASONS_DEFINE(NET_REASONS, net_reasons)

const char *http_method_name(HttpMethod m) {
    static const char *const names[HTTP_METHODS + 1] = { "GET",   "HEAD",   "POST",    "PUT",
                                                         "PATCH", "DELETE", "OPTIONS", "other" };
    assert((unsigned)m <= HTTP_METHODS);
    return names[m];
}

str http_header(const HttpRequest *r, const char *name) {
    str want = str_z(name);
    for (size_t i = 0; i < r->headers_n; i++)
        if (str_ieq(r->headers[i].name, want)) return r->headers[i].value;
    return (str){ 0 };
}

// Every byte of s that breaks UTF-8 becomes U+FFFD.
static str repair(Arena *a, str s) {
    ptrdiff_t bad = str_utf8_bad(s);
    if (bad < 0) return s;
    Buf b;
    buf_init(&b, 3 * s.n);
    for (; bad >= 0; bad = str_utf8_bad(s)) {
        buf_add(&b, str_sub(s, 0, (size_t)bad));
        buf_add(&b, S("\xef\xbf\xbd"));
        s = str_sub(s, (size_t)bad + 1, s.n);
    }
    buf_add(&b, s);
    str out = arena_str(a, buf_str(&b));
    buf_done(&b);
    return out;
}

static str form_decode(Arena *a, str s) {
    if (str_find_char(s, '%') < 0 && str_find_char(s, '+') < 0) return s;
    char *out = arena_alloc_raw(a, s.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        int high = -1, low = -1;
        if (s.p[i] == '%' && i + 2 < s.n) high = http_hex(s.p[i + 1]), low = http_hex(s.p[i + 2]);
        if (high >= 0 && low >= 0) out[n++] = (char)(high << 4 | low), i += 2;
        else out[n++] = s.p[i] == '+' ? ' ' : s.p[i];
    }
    out[n] = 0;
    return repair(a, str_n(out, n));
}

bool http_query_next(Arena *a, str *rest, str *out_name, str *out_value) {
    str part;
    while (str_cut(rest, '&', &part)) {
        if (!part.n) continue;
        str name;
        bool has_value = str_find_char(part, '=') >= 0;
        str_cut(&part, '=', &name);
        *out_name = form_decode(a, name);
        *out_value = has_value ? form_decode(a, part) : S("");
        return true;
    }
    return false;
}

str http_query(Arena *a, const HttpRequest *r, const char *name, size_t *out_n) {
    str rest = r->query, key, value, found = { 0 };
    size_t n = 0;
    while (http_query_next(a, &rest, &key, &value))
        if (str_is(key, name) && !n++) found = value;
    if (out_n) *out_n = n;
    return found;
}
