// SPDX-License-Identifier: Apache-2.0
// str.c - comparing, finding, cutting and reading text. Leaves memory to the arena and buffers.
// Owner: nothing is owned here. Threads: all functions are pure.
#include "str.h"
#include <assert.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>

static unsigned char lower(char c) {
    return c >= 'A' && c <= 'Z' ? (unsigned char)(c + 32) : (unsigned char)c;
}
static bool is_digit(char c) { return c >= '0' && c <= '9'; }

int str_cmp(str a, str b) {
    size_t n = a.n < b.n ? a.n : b.n;
    int d = n ? memcmp(a.p, b.p, n) : 0;
    return d ? d : (a.n > b.n) - (a.n < b.n);
}

bool str_ieq(str a, str b) {
    if (a.n != b.n) return false;
    for (size_t i = 0; i < a.n; i++)
        if (lower(a.p[i]) != lower(b.p[i])) return false;
    return true;
}

bool str_starts(str s, str prefix) {
    return prefix.n <= s.n && (!prefix.n || !memcmp(s.p, prefix.p, prefix.n));
}

bool str_ends(str s, str suffix) {
    return suffix.n <= s.n && (!suffix.n || !memcmp(s.p + s.n - suffix.n, suffix.p, suffix.n));
}

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

str str_trim(str s) {
    while (s.n && is_space(s.p[s.n - 1])) s.n--;
    while (s.n && is_space(*s.p)) s.p++, s.n--;
    return s;
}

str str_sub(str s, size_t from, size_t n) {
    if (!s.p) return s;
    if (from > s.n) from = s.n;
    if (n > s.n - from) n = s.n - from;
    return (str){ s.p + from, n };
}

ptrdiff_t str_find(str s, str needle) {
    if (!needle.n) return 0;
    if (needle.n > s.n) return -1;
    const char *at = memmem(s.p, s.n, needle.p, needle.n);
    return at ? at - s.p : -1;
}

ptrdiff_t str_find_char(str s, char c) {
    const char *at = s.n ? memchr(s.p, c, s.n) : NULL;
    return at ? at - s.p : -1;
}

bool str_cut(str *rest, char sep, str *out_part) {
    if (!rest->p) return false;
    ptrdiff_t at = str_find_char(*rest, sep);
    if (at < 0) {
        *out_part = *rest;
        *rest = (str){ 0 };
    } else {
        *out_part = (str){ rest->p, (size_t)at };
        *rest = (str){ rest->p + at + 1, rest->n - (size_t)at - 1 };
    }
    return true;
}

uint64_t str_hash(str s) {
    uint64_t h = 0xcbf29ce484222325u; // FNV-1a, 64 bits
    for (size_t i = 0; i < s.n; i++) h = (h ^ (unsigned char)s.p[i]) * 0x100000001b3u;
    return h ^ h >> 32; // the low bits alone are weak, and tables use them
}

static uint64_t rotl(uint64_t x, int n) { return x << n | x >> (64 - n); }

static inline void sip_round(uint64_t v[4]) {
    v[0] += v[1], v[2] += v[3];
    v[1] = rotl(v[1], 13) ^ v[0], v[3] = rotl(v[3], 16) ^ v[2];
    v[0] = rotl(v[0], 32);
    v[2] += v[1], v[0] += v[3];
    v[1] = rotl(v[1], 17) ^ v[2], v[3] = rotl(v[3], 21) ^ v[0];
    v[2] = rotl(v[2], 32);
}

// SipHash-1-3 (Aumasson and Bernstein, 2012), its second key word derived from the first: 64 bits
// of secret are enough to keep a table's order unknown.
uint64_t str_hash_seed(str s, uint64_t seed) {
    uint64_t k0 = seed, k1 = rotl(seed, 32) * 0x9e3779b97f4a7c15u + 1;
    uint64_t v[4] = { k0 ^ 0x736f6d6570736575u, k1 ^ 0x646f72616e646f6du, k0 ^ 0x6c7967656e657261u,
                      k1 ^ 0x7465646279746573u };
    size_t i = 0;
    for (; i + 8 <= s.n; i += 8) {
        uint64_t m;
        memcpy(&m, s.p + i, 8);
        v[3] ^= m;
        sip_round(v);
        v[0] ^= m;
    }
    uint64_t last = (uint64_t)s.n << 56;
    for (int shift = 0; i < s.n; i++, shift += 8) last |= (uint64_t)(unsigned char)s.p[i] << shift;
    v[3] ^= last;
    sip_round(v);
    v[0] ^= last;
    v[2] ^= 0xff;
    for (int r = 0; r < 3; r++) sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

enum { DISTANCE_MAX = 64 };

unsigned str_distance(str a, str b) {
    if (a.n > DISTANCE_MAX || b.n > DISTANCE_MAX) return UINT_MAX;
    unsigned row[DISTANCE_MAX + 1]; // row[j]: distance of what is read of a to b's first j bytes
    for (unsigned j = 0; j <= b.n; j++) row[j] = j;
    for (unsigned i = 1; i <= a.n; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= b.n; j++) {
            unsigned best = diagonal + (a.p[i - 1] != b.p[j - 1]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[b.n];
}

bool str_to_u64(str s, uint64_t *out) {
    uint64_t n = 0;
    if (!s.n) return false;
    for (size_t i = 0; i < s.n; i++) {
        if (!is_digit(s.p[i]) || __builtin_mul_overflow(n, (uint64_t)10, &n)) return false;
        if (__builtin_add_overflow(n, (uint64_t)(s.p[i] - '0'), &n)) return false;
    }
    *out = n;
    return true;
}

str str_i64(int64_t n, char out[STR_I64]) {
    char *end = out + STR_I64, *at = end;
    uint64_t left = n < 0 ? -(uint64_t)n : (uint64_t)n;
    do *--at = (char)('0' + left % 10);
    while (left /= 10);
    if (n < 0) *--at = '-';
    return str_n(at, (size_t)(end - at));
}

bool str_to_i64(str s, int64_t *out) {
    uint64_t n;
    bool negative = s.n && *s.p == '-';
    if (!str_to_u64(negative ? str_sub(s, 1, s.n) : s, &n)) return false;
    if (n > (uint64_t)INT64_MAX + negative) return false;
    *out = negative ? (int64_t)-n : (int64_t)n;
    return true;
}

// -?digits[.digits][(e|E)[+-]digits], what strtod would read too but without its hexadecimal, names
// and white space.
static bool is_decimal(str s) {
    size_t i = s.n && *s.p == '-', start = i;
    while (i < s.n && is_digit(s.p[i])) i++;
    if (i == start) return false;
    if (i < s.n && s.p[i] == '.') {
        start = ++i;
        while (i < s.n && is_digit(s.p[i])) i++;
        if (i == start) return false;
    }
    if (i < s.n && (s.p[i] == 'e' || s.p[i] == 'E')) {
        i++;
        if (i < s.n && (s.p[i] == '+' || s.p[i] == '-')) i++;
        start = i;
        while (i < s.n && is_digit(s.p[i])) i++;
        if (i == start) return false;
    }
    return i == s.n;
}

bool str_to_f64(str s, double *out) {
    char z[512];
    if (s.n >= sizeof z || !is_decimal(s)) return false;
    memcpy(z, s.p, s.n);
    z[s.n] = 0;
    double f = strtod(z, NULL); // the program stays in the C locale, so the point is '.'
    if (!isfinite(f)) return false;
    *out = f;
    return true;
}

bool str_to_bool(str s, bool *out) {
    static const char *const words[] = { "false", "true", "0", "1", "no", "yes", "off", "on" };
    for (size_t i = 0; i < countof(words); i++) {
        if (!str_is(s, words[i])) continue;
        *out = i & 1;
        return true;
    }
    return false;
}

// Bytes of the well-formed sequence at p, or 0. The second byte's range depends on the first:
// that is where overlongs, surrogates and what is past U+10FFFF are refused.
static size_t sequence(const unsigned char *p, size_t n) {
    unsigned char c = p[0], lo = 0x80, hi = 0xbf;
    size_t want;
    if (c < 0x80) return 1;
    else if (c < 0xc2) return 0;
    else if (c < 0xe0) want = 2;
    else if (c < 0xf0) want = 3, lo = c == 0xe0 ? 0xa0 : 0x80, hi = c == 0xed ? 0x9f : 0xbf;
    else if (c < 0xf5) want = 4, lo = c == 0xf0 ? 0x90 : 0x80, hi = c == 0xf4 ? 0x8f : 0xbf;
    else return 0;
    if (n < want || p[1] < lo || p[1] > hi) return 0;
    for (size_t i = 2; i < want; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    return want;
}

static bool eight_ascii(const unsigned char *p) {
    uint64_t eight;
    memcpy(&eight, p, 8);
    return !(eight & 0x8080808080808080u);
}

ptrdiff_t str_utf8_bad(str s) {
    const unsigned char *p = (const unsigned char *)s.p;
    for (size_t i = 0; i < s.n;) {
        while (i + 8 <= s.n && eight_ascii(p + i)) i += 8;
        if (i == s.n || (s.n >= 8 && i + 8 > s.n && eight_ascii(p + s.n - 8))) break;
        size_t n = sequence(p + i, s.n - i);
        if (!n) return (ptrdiff_t)i;
        i += n;
    }
    return -1;
}

bool str_utf8(str s) { return str_utf8_bad(s) < 0; }

size_t str_utf8_count(str s) {
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) n += ((unsigned char)s.p[i] & 0xc0) != 0x80;
    return n;
}

bool str_eq_secret(str a, str b) {
    if (a.n != b.n) return false;
    volatile unsigned char differ = 0; // volatile: no early exit may be compiled in
    for (size_t i = 0; i < a.n; i++) differ |= (unsigned char)(a.p[i] ^ b.p[i]);
    return !differ;
}
