// SPDX-License-Identifier: Apache-2.0
// id.c - UUIDv7 as text: 128 bits in 26 digits of five bits, so the first digit is at most '7'.
// Leaves clock and random to the caller. Threads: pure.
#include "id.h"
#include <assert.h>

static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz"; // Crockford: no i, l, o, u
enum { NAME_MAX_BYTES = 200 };

static bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static bool prefix_valid(str s) {
    if (!s.n || s.n > ID_PREFIX_MAX || !is_lower(*s.p)) return false;
    for (size_t i = 1; i < s.n; i++)
        if (!is_lower(s.p[i]) && !is_digit(s.p[i]) && s.p[i] != '_') return false;
    return true;
}

str id_format(Arena *a, const char *prefix, int64_t unix_ms, const uint8_t random[10]) {
    assert(prefix_valid(str_z(prefix)) && unix_ms >= 0 && unix_ms < (int64_t)1 << 48);
    uint64_t high = (uint64_t)unix_ms << 16 | 7u << 12 | (random[0] & 15u) << 8 | random[1];
    uint64_t low = 0;
    for (int i = 2; i < 10; i++) low = low << 8 | random[i];
    low = low >> 2 | (uint64_t)1 << 63; // the variant: 10
    unsigned __int128 bits = (unsigned __int128)high << 64 | low;
    char text[ID_PREFIX_MAX + 1 + ID_BODY];
    size_t n = strlen(prefix);
    memcpy(text, prefix, n);
    text[n++] = '_';
    for (int i = ID_BODY - 1; i >= 0; i--, bits >>= 5) text[n + (size_t)i] = digits[bits & 31];
    return arena_str(a, str_n(text, n + ID_BODY));
}

str id_format_ns(Arena *a, const char *prefix, int64_t unix_ns, const uint8_t random[10]) {
    enum { NS_PER_MS = 1000000 };
    assert(unix_ns >= 0);
    uint8_t bytes[10];
    unsigned part = (unsigned)((uint64_t)(unix_ns % NS_PER_MS) * 4096 / NS_PER_MS);
    memcpy(bytes, random, sizeof bytes);
    bytes[0] = (uint8_t)(part >> 8), bytes[1] = (uint8_t)part;
    return id_format(a, prefix, unix_ns / NS_PER_MS, bytes);
}

// The 128 bits of the last 26 characters. False when that is no id.
static bool id_read(str id, unsigned __int128 *out) {
    if (id.n < ID_BODY + 2 || id.p[id.n - ID_BODY - 1] != '_') return false;
    if (!prefix_valid(str_sub(id, 0, id.n - ID_BODY - 1))) return false;
    str body = str_sub(id, id.n - ID_BODY, ID_BODY);
    unsigned __int128 bits = 0;
    for (size_t i = 0; i < ID_BODY; i++) {
        const char *at = memchr(digits, body.p[i], 32);
        if (!at) return false;
        bits = bits << 5 | (unsigned)(at - digits);
    }
    *out = bits;
    return *body.p <= '7' && (unsigned)(bits >> 76 & 15) == 7 && (unsigned)(bits >> 62 & 3) == 2;
}

bool id_valid(str id, const char *prefix) {
    unsigned __int128 bits;
    if (!id_read(id, &bits)) return false;
    return !prefix || str_is(str_sub(id, 0, id.n - ID_BODY - 1), prefix);
}

int64_t id_time_ms(str id) {
    unsigned __int128 bits;
    return id_read(id, &bits) ? (int64_t)(bits >> 80) : -1;
}

bool name_valid(str s) {
    if (!s.n || s.n > NAME_MAX_BYTES) return false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool plain = is_lower(c) || is_digit(c) || (c >= 'A' && c <= 'Z');
        if (!plain && (!i || (c != '.' && c != '_' && c != '-'))) return false;
    }
    return true;
}
