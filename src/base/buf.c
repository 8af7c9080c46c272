// SPDX-License-Identifier: Apache-2.0
// buf.c - growth by doubling up to the stated maximum, one byte beyond it for the NUL of buf_z.
// Owner and threads: see buf.h.
#include "arena.h"
#include "buf.h"
#include <assert.h>
#include <stdio.h>

enum { CAP_FIRST = 256 };

void buf_init(Buf *b, size_t max) {
    assert(max < SIZE_MAX);
    *b = (Buf){ .max = max };
}

void buf_done(Buf *b) {
    mem_free(b->p);
    *b = (Buf){ 0 };
}

void buf_clear(Buf *b) {
    b->n = 0;
    b->full = false;
}

char *buf_reserve(Buf *b, size_t n) {
    assert(b->n <= b->cap && b->cap <= b->max);
    if (b->full || n > b->max - b->n) {
        b->full = true;
        return NULL;
    }
    if (n > b->cap - b->n || !b->p) {
        size_t cap = b->p ? 2 * b->cap : CAP_FIRST;
        if (cap < b->n + n) cap = b->n + n;
        if (cap > b->max) cap = b->max;
        b->p = mem_grow(b->p, cap + 1, 1);
        b->cap = cap;
    }
    return b->p + b->n;
}

void buf_commit(Buf *b, size_t n) {
    assert(n <= b->cap - b->n);
    b->n += n;
}

const char *buf_z(Buf *b) {
    if (!b->p) return "";
    b->p[b->n] = 0;
    return b->p;
}

bool buf_add(Buf *b, str s) {
    char *at = buf_reserve(b, s.n);
    if (!at) return false;
    if (s.n) memcpy(at, s.p, s.n);
    b->n += s.n;
    return true;
}

bool buf_add_char(Buf *b, char c) {
    char *at = buf_reserve(b, 1);
    if (!at) return false;
    *at = c;
    b->n++;
    return true;
}

bool buf_add_repeat(Buf *b, char c, size_t n) {
    char *at = buf_reserve(b, n);
    if (!at) return false;
    memset(at, c, n);
    b->n += n;
    return true;
}

bool buf_vprintf(Buf *b, const char *fmt, va_list args) {
    if (!buf_reserve(b, 0)) return false;
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(b->p + b->n, b->cap - b->n + 1, fmt, args);
    assert(n >= 0);
    size_t room = b->cap - b->n;
    bool fits = (size_t)n <= room || buf_reserve(b, (size_t)n);
    if ((size_t)n > room && fits) vsnprintf(b->p + b->n, (size_t)n + 1, fmt, again);
    va_end(again);
    if (fits) b->n += (size_t)n;
    return fits;
}

bool buf_printf(Buf *b, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    bool fits = buf_vprintf(b, fmt, args);
    va_end(args);
    return fits;
}

// How a byte stands in a JSON string: 0 as itself, 1 as \u00XX, else this letter after a backslash.
static const unsigned char json_byte[256] = {
    1,           1,
    1,           1,
    1,           1,
    1,           1,
    'b',         't',
    'n',         1,
    'f',         'r',
    1,           1, // 0x00
    1,           1,
    1,           1,
    1,           1,
    1,           1,
    1,           1,
    1,           1,
    1,           1,
    1,           1, // 0x10
    ['"'] = '"', ['\\'] = '\\',
};

static void add_escaped(Buf *b, unsigned char c) {
    static const char hex[] = "0123456789abcdef";
    char named[] = { '\\', (char)json_byte[c] };
    char coded[] = { '\\', 'u', '0', '0', hex[c >> 4], hex[c & 15] };
    if (json_byte[c] == 1) buf_add(b, str_n(coded, sizeof coded));
    else buf_add(b, str_n(named, sizeof named));
}

// Whether eight bytes are ASCII and stand in a JSON string as they are: no top bit tells of a byte
// over 0x7f, below 0x20, a quote or a backslash. (x - 1) & ~x has it of a zero.
static bool eight_plain(const char *p) {
    static const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;
    uint64_t x;
    memcpy(&x, p, 8);
    uint64_t quote = x ^ ones * '"', slash = x ^ ones * '\\';
    uint64_t low = (x - ones * 0x20) & ~x, is_quote = (quote - ones) & ~quote;
    return !((x | low | is_quote | ((slash - ones) & ~slash)) & tops);
}

static bool all_plain(str s) {
    size_t i = 0;
    if (s.n >= 8) {
        while (i + 8 <= s.n && eight_plain(s.p + i)) i += 8;
        return i == s.n || (i + 8 > s.n && eight_plain(s.p + s.n - 8));
    }
    while (i < s.n && !json_byte[(unsigned char)s.p[i]] && (unsigned char)s.p[i] < 0x80) i++;
    return i == s.n;
}

bool buf_add_json(Buf *b, str s) {
    if (all_plain(s)) { // nearly all are
        char *at = s.n < SIZE_MAX - 2 ? buf_reserve(b, s.n + 2) : NULL;
        if (!at) return false;
        at[0] = at[s.n + 1] = '"';
        if (s.n) memcpy(at + 1, s.p, s.n);
        b->n += s.n + 2;
        return true;
    }
    size_t before = b->n;
    ptrdiff_t bad = str_utf8_bad(s); // of the bytes from `checked` on; -1: none
    size_t checked = 0;
    buf_add_char(b, '"');
    for (size_t i = 0; i < s.n;) {
        size_t from = i, stop = bad < 0 ? s.n : checked + (size_t)bad;
        while (i < stop && !json_byte[(unsigned char)s.p[i]]) i++;
        buf_add(b, str_n(s.p + from, i - from));
        if (i < stop) add_escaped(b, (unsigned char)s.p[i++]);
        else if (i < s.n) {
            buf_add(b, S("\xef\xbf\xbd"));
            checked = ++i;
            bad = str_utf8_bad(str_sub(s, checked, s.n));
        }
    }
    buf_add_char(b, '"');
    if (b->full) b->n = before; // no half a literal
    return !b->full;
}

bool buf_add_hex(Buf *b, const void *p, size_t n) {
    static const char hex[] = "0123456789abcdef";
    char *at = buf_reserve(b, n <= SIZE_MAX / 2 ? 2 * n : SIZE_MAX);
    if (!at) return false;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = ((const unsigned char *)p)[i];
        at[2 * i] = hex[c >> 4], at[2 * i + 1] = hex[c & 15];
    }
    b->n += 2 * n;
    return true;
}

void buf_drop(Buf *b, size_t n) {
    assert(n <= b->n);
    if (n && n < b->n) memmove(b->p, b->p + n, b->n - n);
    b->n -= n;
}
