// SPDX-License-Identifier: Apache-2.0
// chunk.c - see chunk.h. Nearly all that an engine streams is one shape with another word in it:
// a grammar of that shape (RFC 8259, less) reads it in one pass, and leaves the rest to the parser.
#include "mod/gateway/chunk.h"

typedef struct Cursor {
    const char *p, *end;
} Cursor;
typedef struct Members { // of one object: which there may be, which there were
    const char *const *names;
    bool (*read)(Cursor *c, int member, Chunk *out);
} Members;
enum { DIGITS_MAX = 15 };

static bool take(Cursor *c, char ch) {
    while (c->p < c->end && *c->p == ' ') c->p++;
    bool there = c->p < c->end && *c->p == ch;
    c->p += there;
    return there;
}

static bool take_null(Cursor *c) {
    while (c->p < c->end && *c->p == ' ') c->p++;
    bool there = c->end - c->p >= 4 && !memcmp(c->p, "null", 4);
    if (there) c->p += 4;
    return there;
}

static bool take_text(Cursor *c, str *out) {
    if (!take(c, '"')) return false;
    const char *start = c->p;
    unsigned char all = 0;
    while (c->p < c->end && *c->p != '"') {
        unsigned char ch = (unsigned char)*c->p++;
        if (ch < 0x20 || ch == '\\') return false;
        all |= ch;
    }
    if (c->p == c->end) return false;
    *out = str_n(start, (size_t)(c->p++ - start));
    return all < 0x80 || str_utf8(*out);
}

static bool take_number(Cursor *c) {
    while (c->p < c->end && *c->p == ' ') c->p++;
    const char *start = c->p;
    while (c->p < c->end && *c->p >= '0' && *c->p <= '9') c->p++;
    ptrdiff_t n = c->p - start;
    return n == 1 || (n > 1 && n <= DIGITS_MAX && *start != '0');
}

static bool take_object(Cursor *c, const Members *m, Chunk *out) {
    unsigned seen = 0;
    str key;
    if (!take(c, '{')) return false;
    do {
        int i = 0;
        if (!take_text(c, &key)) return false;
        while (m->names[i] && !str_is(key, m->names[i])) i++;
        if (!m->names[i] || seen & 1u << i || !take(c, ':') || !m->read(c, i, out)) return false;
        seen |= 1u << i;
    } while (take(c, ','));
    return take(c, '}');
}

// A choice has one text: completion's own, or the delta's.
static bool note_text(str text, Chunk *out) {
    bool first = !out->text.n;
    if (text.n) out->text = text;
    return first || !text.n;
}

static bool read_delta(Cursor *c, int member, Chunk *out) {
    str text = { 0 };
    if (!take_null(c) && !take_text(c, &text)) return false;
    return member || note_text(text, out); // else the role
}
static const char *const delta_names[] = { "content", "role", NULL };
static const Members delta = { delta_names, read_delta };

static bool read_choice(Cursor *c, int member, Chunk *out) {
    str text;
    switch (member) {
    case 0: return take_object(c, &delta, out);
    case 1: return take_number(c);
    case 2: return take_text(c, &text) && note_text(text, out);
    default: return take_null(c);
    }
}
static const char *const choice_names[] = { "delta",         "index",    "text",
                                            "finish_reason", "logprobs", NULL };
static const Members choice = { choice_names, read_choice };

static bool read_root(Cursor *c, int member, Chunk *out) {
    str text;
    switch (member) {
    case 0: return take(c, '[') && take_object(c, &choice, out) && take(c, ']');
    case 1: return take_text(c, &out->id);
    case 2: return take_number(c);
    case 3: return take_null(c);
    default: return take_null(c) || take_text(c, &text);
    }
}
static const char *const root_names[] = {
    "choices", "id", "created", "usage", "object", "model", "system_fingerprint", NULL
};
static const Members root = { root_names, read_root };

bool chunk_read(str data, Chunk *out) {
    Cursor c = { data.p, data.p + data.n };
    *out = (Chunk){ 0 };
    return take_object(&c, &root, out) && c.p == c.end;
}
