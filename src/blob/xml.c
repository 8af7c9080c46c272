// SPDX-License-Identifier: Apache-2.0
// xml.c - see xml.h. Threads: one at a time.
#include "blob/xml.h"
#include <assert.h>

static bool blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
static bool name_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_'
           || c == '-' || c == '.' || c == ':';
}

Xml xml_of(Arena *mem, str text) {
    Xml x = { .mem = mem, .all = text };
    if (str_starts(text, S("\xef\xbb\xbf"))) x.at = 3;
    if (str_starts(str_sub(text, x.at, text.n), S("<?xml"))) {
        ptrdiff_t end = str_find(text, S("?>"));
        x.bad = end < 0;
        if (end >= 0) x.at = (size_t)end + 2;
    }
    x.from = x.at;
    x.bad = x.bad || !str_utf8(text) || memchr(text.p ? text.p : "", 0, text.n);
    return x;
}

static XmlKind bad(Xml *x) {
    x->bad = true;
    return XML_BAD;
}

// ---- text

static size_t put_utf8(char *out, uint32_t u) {
    if (u < 0x80) return out[0] = (char)u, 1;
    if (u < 0x800) return out[0] = (char)(0xc0 | u >> 6), out[1] = (char)(0x80 | (u & 63)), 2;
    if (u < 0x10000)
        return out[0] = (char)(0xe0 | u >> 12), out[1] = (char)(0x80 | (u >> 6 & 63)),
               out[2] = (char)(0x80 | (u & 63)), 3;
    out[0] = (char)(0xf0 | u >> 18), out[1] = (char)(0x80 | (u >> 12 & 63));
    out[2] = (char)(0x80 | (u >> 6 & 63)), out[3] = (char)(0x80 | (u & 63));
    return 4;
}

// "#38", "#x26". 0: not a character.
static uint32_t number(str s) {
    uint32_t base = 10, u = 0;
    size_t i = 1;
    if (s.n > 1 && s.p[1] == 'x') base = 16, i = 2;
    if (i == s.n) return 0;
    for (; i < s.n; i++) {
        char ch = s.p[i];
        uint32_t d = ch >= '0' && ch <= '9'   ? (uint32_t)(ch - '0')
                     : ch >= 'a' && ch <= 'f' ? (uint32_t)(ch - 'a') + 10
                     : ch >= 'A' && ch <= 'F' ? (uint32_t)(ch - 'A') + 10
                                              : 99;
        if (d >= base) return 0;
        u = u * base + d;
        if (u > 0x10ffff) return 0;
    }
    return u >= 0xd800 && u < 0xe000 ? 0 : u;
}

static uint32_t entity(str s) {
    static const struct {
        const char *name;
        char is;
    } known[] = { { "amp", '&' }, { "lt", '<' }, { "gt", '>' }, { "quot", '"' }, { "apos", '\'' } };
    for (size_t i = 0; i < countof(known); i++)
        if (str_is(s, known[i].name)) return (uint32_t)known[i].is;
    return s.n && *s.p == '#' ? number(s) : 0;
}

static bool decode(Xml *x, str s, str *out) {
    *out = s;
    if (str_find_char(s, '&') < 0) return true;
    char *to = arena_alloc_raw(x->mem, s.n + 1); // no entity is shorter than what it stands for
    size_t n = 0;
    for (size_t i = 0; i < s.n;) {
        if (s.p[i] != '&') {
            to[n++] = s.p[i++];
            continue;
        }
        ptrdiff_t end = str_find_char(str_sub(s, i, 12), ';');
        uint32_t u = end < 0 ? 0 : entity(str_sub(s, i + 1, (size_t)end - 1));
        if (!u) return false;
        n += put_utf8(to + n, u);
        i += (size_t)end + 1;
    }
    to[n] = 0;
    *out = str_n(to, n);
    return true;
}

// ---- tags

static bool only_blank(str s) {
    for (size_t i = 0; i < s.n; i++)
        if (!blank(s.p[i])) return false;
    return true;
}

// Up to the '>' outside quotes. False: none.
static bool tag_end(const Xml *x, size_t from, size_t *out) {
    char quote = 0;
    for (size_t i = from; i < x->all.n; i++) {
        char ch = x->all.p[i];
        if (quote) quote = ch == quote ? 0 : quote;
        else if (ch == '"' || ch == '\'') quote = ch;
        else if (ch == '<') return false;
        else if (ch == '>') return *out = i, true;
    }
    return false;
}

static XmlKind close(Xml *x, str name, str text, str *out_name, str *out_text) {
    if (!x->depth || !str_eq(x->open[x->depth - 1], name)) return bad(x);
    if (!decode(x, x->leaf ? text : S(""), out_text)) return bad(x);
    x->depth--;
    x->leaf = false;
    x->ended = !x->depth;
    *out_name = name;
    return XML_CLOSE;
}

static XmlKind open(Xml *x, str tag, str *out_name) {
    size_t n = 0;
    while (n < tag.n && name_char(tag.p[n])) n++;
    str rest = str_sub(tag, n, tag.n);
    x->closes = str_ends(tag, S("/"));
    bool good = n && n <= 64 && (!rest.n || blank(*rest.p) || str_is(rest, "/"));
    if (!good || x->ended || x->depth == XML_DEPTH) return bad(x);
    x->leaf = true;
    *out_name = x->open[x->depth++] = str_sub(tag, 0, n);
    return XML_OPEN;
}

XmlKind xml_next(Xml *x, str *out_name, str *out_text) {
    size_t end;
    *out_name = *out_text = S("");
    if (x->bad) return XML_BAD;
    if (x->closes) {
        x->closes = false;
        return close(x, x->open[x->depth - 1], S(""), out_name, out_text);
    }
    ptrdiff_t next = str_find_char(str_sub(x->all, x->at, x->all.n), '<');
    str text = str_sub(x->all, x->from, next < 0 ? x->all.n : x->at + (size_t)next - x->from);
    if (next < 0) return x->ended && only_blank(text) ? XML_END : bad(x);
    size_t at = x->at + (size_t)next;
    if (!tag_end(x, at + 1, &end)) return bad(x);
    str tag = str_sub(x->all, at + 1, end - at - 1);
    x->at = x->from = end + 1;
    if (str_starts(tag, S("/"))) {
        str name = str_sub(tag, 1, tag.n);
        while (name.n && blank(name.p[name.n - 1])) name.n--;
        if (!x->leaf && !only_blank(text)) return bad(x); // text between elements
        return close(x, name, text, out_name, out_text);
    }
    return only_blank(text) ? open(x, tag, out_name) : bad(x);
}

// How many leading parts of path stand open below the root.
static bool on_path(const Xml *x, const char *path, str leaf) {
    str rest = str_z(path), part;
    int i = 1; // the root's name is not asked for
    while (str_cut(&rest, '/', &part)) {
        if (!rest.p) return i == x->depth && str_eq(part, leaf);
        if (i >= x->depth || !str_eq(x->open[i], part)) return false;
        i++;
    }
    return false;
}

str xml_find(Arena *mem, str text, const char *path) {
    Xml x = xml_of(mem, text);
    str name, value, found = { 0 };
    for (;;) {
        switch (xml_next(&x, &name, &value)) {
        case XML_OPEN: break;
        case XML_CLOSE:
            if (!found.p && on_path(&x, path, name)) found = value;
            break;
        case XML_END: return found;
        case XML_BAD: return (str){ 0 };
        }
    }
}
