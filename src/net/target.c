// SPDX-License-Identifier: Apache-2.0
// target.c - see target.h. A target without '%' and without dot segments costs no copy.
#include "base/buf.h"
#include "net/target.h"
#include <assert.h>

int http_hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool http_is_token(str s) {
    // One bit a character, for 32 to 127: letters, digits and !#$%&'*+-.^_`|~
    static const uint32_t set[3] = { 0x03ff6cfa, 0xc7fffffe, 0x57ffffff };
    for (size_t i = 0; i < s.n; i++) {
        unsigned c = (unsigned char)s.p[i];
        if (c < 32 || c > 127 || !(set[c / 32 - 1] >> c % 32 & 1)) return false;
    }
    return s.n > 0;
}

// Replaces "scheme://authority/path" by "/path". NULL, or why it is bad.
static const char *strip_authority(str *target) {
    str s = *target;
    if (s.n && *s.p == '/') return NULL;
    bool http = s.n > 7 && str_ieq(str_sub(s, 0, 7), S("http://"));
    bool https = s.n > 8 && str_ieq(str_sub(s, 0, 8), S("https://"));
    if (!http && !https) return "the target is no path";
    s = str_sub(s, http ? 7 : 8, s.n);
    size_t n = 0;
    while (n < s.n && s.p[n] != '/' && s.p[n] != '?') n++;
    if (!n) return "the target names no host";
    *target = n == s.n ? S("/") : str_sub(s, n, s.n);
    return NULL;
}

static bool is_dots(str s) { return str_is(s, ".") || str_is(s, ".."); }

// What decoding may bring in: NUL, broken text, or dot segments behind an encoded slash.
static const char *decoded_fault(str s) {
    if (str_find_char(s, 0) >= 0) return "the path holds a NUL";
    if (!str_utf8(s)) return "the path is not UTF-8";
    if (str_find_char(s, '/') < 0) return NULL;
    str rest = s, part;
    while (str_cut(&rest, '/', &part))
        if (is_dots(part)) return "the path hides a dot segment";
    return NULL;
}

static const char *segment_decode(Arena *a, str *segment) {
    str s = *segment;
    if (str_find_char(s, '%') < 0) return NULL;
    char *out = arena_alloc_raw(a, s.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] != '%') {
            out[n++] = s.p[i];
            continue;
        }
        int high = i + 2 < s.n ? http_hex(s.p[i + 1]) : -1;
        int low = i + 2 < s.n ? http_hex(s.p[i + 2]) : -1;
        if (high < 0 || low < 0) return "the path has a bad escape";
        out[n++] = (char)(high << 4 | low), i += 2;
    }
    out[n] = 0;
    *segment = str_n(out, n);
    return decoded_fault(*segment);
}

// The path again from its decoded segments.
static str join(Arena *a, const Target *t) {
    Buf b;
    buf_init(&b, SIZE_MAX / 2);
    for (size_t i = 0; i < t->segments_n; i++) {
        str rest = t->segments[i], part;
        buf_add_char(&b, '/');
        for (bool more = false; str_cut(&rest, '/', &part); more = true) {
            if (more) buf_add(&b, S("%2F"));
            buf_add(&b, part);
        }
    }
    str out = arena_str(a, buf_str(&b));
    buf_done(&b);
    return out;
}

// Splits, decodes and removes dot segments. *out_plain: the path was already in its final form.
static const char *split(Arena *a, str path, Target *t, bool *out_plain) {
    str rest = str_sub(path, 1, path.n), part;
    *out_plain = str_find_char(path, '%') < 0;
    while (str_cut(&rest, '/', &part)) {
        const char *fault = segment_decode(a, &part);
        if (fault) return fault;
        bool dots = is_dots(part);
        if (dots) *out_plain = false;
        if (dots && part.n == 2) {
            if (!t->segments_n) return "the path leaves the root";
            t->segments_n--;
        }
        if (dots && rest.p) continue;
        if (t->segments_n == TARGET_SEGMENTS_MAX) return "the path has too many segments";
        t->segments[t->segments_n++] = dots ? S("") : part;
    }
    return NULL;
}

const char *target_parse(Arena *a, str target, Target *out) {
    out->segments_n = 0;
    out->path = target, out->query = S("");
    for (size_t i = 0; i < target.n; i++)
        if (target.p[i] <= ' ' || target.p[i] > '~') return "the target holds a bad character";
    if (str_find_char(target, '#') >= 0) return "the target holds a fragment";
    if (str_is(target, "*")) return NULL;
    const char *fault = strip_authority(&target);
    if (fault) return fault;
    str path, rest = target;
    if (*rest.p == '?') path = S("/"), rest = str_sub(rest, 1, rest.n);
    else str_cut(&rest, '?', &path);
    bool plain;
    if ((fault = split(a, path, out, &plain))) return fault;
    assert(out->segments_n);
    out->path = plain ? path : join(a, out);
    if (rest.p) out->query = rest;
    return NULL;
}
