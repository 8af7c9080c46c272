// SPDX-License-Identifier: Apache-2.0
// token.c - what a token is here. From the left, the longest that fits:
//   1. "<|", 1 to 32 of [a-z_], "|>"
//   2. a word: 1 to 16 bytes of [A-Za-z0-9_'] and of UTF-8 beyond ASCII, no character cut; one
//      space before it belongs to it
//   3. any single byte
// So tokens of parts add up wherever the cut is not within a word or after a space.
// Threads: any.
#include "fake.h"
#include <assert.h>

enum { WORD_MAX = 16, MARK_MAX = 32, VOCABULARY = 49152 };

static bool is_word(char ch) {
    unsigned char u = (unsigned char)ch;
    return u >= 0x80 || u == '_' || u == '\'' || (u >= '0' && u <= '9')
           || ((u | 32) >= 'a' && (u | 32) <= 'z');
}

static size_t word_length(str text, size_t at) {
    size_t n = 0;
    while (at + n < text.n && n < WORD_MAX && is_word(text.p[at + n])) n++;
    // Not within a character: back to its first byte, unless it is too broken for that.
    size_t back = n;
    while (back && at + n < text.n && ((unsigned char)text.p[at + back] & 0xc0) == 0x80) back--;
    return back ? back : n;
}

static size_t mark_length(str text, size_t at) {
    if (text.n - at < 5 || memcmp(text.p + at, "<|", 2)) return 0;
    size_t n = 2;
    while (at + n < text.n && n < 2 + MARK_MAX
           && (text.p[at + n] == '_' || (text.p[at + n] >= 'a' && text.p[at + n] <= 'z')))
        n++;
    bool whole = n > 2 && at + n + 2 <= text.n && !memcmp(text.p + at + n, "|>", 2);
    return whole ? n + 2 : 0;
}

size_t token_next(str text, size_t at) {
    if (at >= text.n) return 0;
    size_t n = text.p[at] == '<' ? mark_length(text, at) : 0;
    if (n) return n;
    bool space = text.p[at] == ' ';
    n = word_length(text, at + space);
    return n ? n + space : 1;
}

int64_t token_count(str text) {
    int64_t count = 0;
    for (size_t at = 0, n; (n = token_next(text, at)); at += n) count++;
    return count;
}

int64_t token_id(str piece) { return (int64_t)(str_hash(piece) % VOCABULARY); }

void prompt_add(Prompt *p, str text) {
    p->tokens += token_count(text);
    p->hash = mix(p->hash, str_hash_seed(text, 1));
}

// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
uint64_t mix(uint64_t a, uint64_t b) {
    uint64_t z = a + 0x9e3779b97f4a7c15u * (b + 1);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

// clang-format off
static const char *const words[] = {
    " the", " river", " light", " under", " seven", " stone", " garden", " walks", " slowly",
    " past", " every", " door", " and", " a", " small", " bird", " sings", " about", " winter",
    " rain", " where", " old", " roads", " meet", " paper", " boats", " carry", " names", " of",
    " towns", " nobody", " has", " seen", " yet", " morning", " comes", " with", " bread",
    " salt", " copper", " lamps", " along", " quiet", " harbour", " while", " clocks", " count",
    " two", " by", " two", " then", " turn", " back", " to", " listen", " for", " wind", " in",
    " tall", " grass", " until", " evening", ".", ",",
};
// clang-format on

str word_at(uint64_t seed, int64_t i) {
    str w = str_z(words[mix(seed, (uint64_t)i) % countof(words)]);
    if (i) return w;
    return w.n > 1 ? str_sub(w, 1, w.n) : S("well");
}
