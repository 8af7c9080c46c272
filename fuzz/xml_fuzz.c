// SPDX-License-Identifier: Apache-2.0
// xml_fuzz.c - libFuzzer's entry to what an S3 service answers: any bytes end in XML_END or
// XML_BAD, the depth keeps its bound and comes back to none, texts are UTF-8 without NUL; what was
// taken is bad once anything of it is cut off, and is read the same again.
// Threads: one.
// Covers: src/blob/xml.c
#include "blob/xml.h"
#include "fuzz.h"

static bool read_all(Arena *mem, str text, uint64_t *out_hash) {
    Xml x = xml_of(mem, text);
    str name, value;
    *out_hash = 0;
    for (size_t steps = 0;; steps++) {
        assert(steps <= 2 * text.n + 2);
        XmlKind kind = xml_next(&x, &name, &value);
        if (kind == XML_BAD) {
            assert(xml_next(&x, &name, &value) == XML_BAD); // it stays so
            return false;
        }
        assert(x.depth >= 0 && x.depth <= XML_DEPTH);
        if (kind == XML_END) return assert(!x.depth), true;
        assert(name.n && name.n <= 64 && str_utf8(value) && !memchr(value.p, 0, value.n));
        *out_hash = *out_hash * 31 + str_hash(name) + str_hash(value) + (uint64_t)kind;
    }
}

FUZZ(xml) {
    uint64_t first, again;
    if (bytes.n > 20000) return;
    Arena *mem = arena_new();
    bool good = read_all(mem, bytes, &first);
    assert(read_all(mem, bytes, &again) == good && first == again);
    str code = xml_find(mem, bytes, "Code");
    assert(good || !code.p);
    size_t n = bytes.n;
    while (good && n
           && (bytes.p[n - 1] == ' ' || (bytes.p[n - 1] >= '\t' && bytes.p[n - 1] <= '\r')))
        n--;
    if (good) assert(n && !read_all(mem, str_sub(bytes, 0, n - 1), &again));
    arena_free(mem);
}
