// SPDX-License-Identifier: Apache-2.0
// journal_fuzz.c - any bytes as a journal segment: reading ends, stays inside them, and what it
// accepts is the same when it is written again. And any bytes as records: they read back, a segment
// that was cut gives those before the cut, and a bit that turned is noticed where it is.
// Covers: src/job/segment.c
#include "fuzz.h"
#include "job/journal_own.h"

enum { RECORDS_MAX = 32, DAMAGE_MAX = 4096 };
typedef struct Written {
    Buf b;
    size_t at[RECORDS_MAX + 1], n; // where each begins; the last one's end
    str text[RECORDS_MAX];
} Written;

// Lines become records.
static void write_records(Written *w, str bytes) {
    char head[RECORD_HEADER], top[SEGMENT_HEADER];
    str line;
    buf_init(&w->b, 1 << 20);
    segment_header_format(7, 9, top);
    buf_add(&w->b, str_n(top, sizeof top));
    while (bytes.n && w->n < RECORDS_MAX && str_cut(&bytes, '\n', &line)) {
        w->at[w->n] = w->b.n, w->text[w->n++] = line;
        record_format((uint16_t)(line.n * 7), line.n & 1, line, head);
        buf_add(&w->b, str_n(head, sizeof head)), buf_add(&w->b, line);
    }
    w->at[w->n] = w->b.n;
}

// How many of its records a segment still gives, in order and unchanged.
static size_t count_good(const Written *w, str bytes) {
    size_t at = SEGMENT_HEADER, next, n = 0;
    const char *why;
    JournalRecord r;
    while (n < w->n && at <= bytes.n
           && segment_next(bytes, at, &r, &next, &why) == SEGMENT_RECORD) {
        assert(str_eq(r.bytes, w->text[n]) && r.kind == (uint16_t)(w->text[n].n * 7));
        at = next, n++;
    }
    return n;
}

static size_t whole_before(const Written *w, size_t at) {
    size_t n = 0;
    while (n < w->n && w->at[n + 1] <= at) n++;
    return n;
}

static void check_damage(str bytes) {
    Written w = { 0 };
    uint32_t node, dice = (uint32_t)str_hash(bytes);
    uint64_t number;
    write_records(&w, bytes);
    str all = buf_str(&w.b);
    bool good = segment_header(all, &node, &number) && node == 7 && number == 9;
    assert(good && count_good(&w, all) == w.n);
    size_t cut = SEGMENT_HEADER + dice % (all.n - SEGMENT_HEADER + 1);
    assert(count_good(&w, str_sub(all, 0, cut)) == whole_before(&w, cut));
    size_t turned = dice / 8 % all.n;
    w.b.p[turned] = (char)(w.b.p[turned] ^ 1 << dice % 8);
    assert(segment_header(all, &node, &number) == (turned >= SEGMENT_HEADER));
    if (turned >= SEGMENT_HEADER) assert(count_good(&w, all) == whole_before(&w, turned));
    buf_done(&w.b);
}

FUZZ(journal) {
    uint32_t node;
    uint64_t number;
    if (segment_header(bytes, &node, &number)) {
        char again[SEGMENT_HEADER];
        segment_header_format(node, number, again);
        assert(!memcmp(again, bytes.p, 20));
    }
    for (size_t start = 0; start <= bytes.n && start <= SEGMENT_HEADER; start += SEGMENT_HEADER) {
        size_t at = start, next = 0;
        const char *why = NULL;
        JournalRecord r;
        SegmentStep step;
        while ((step = segment_next(bytes, at, &r, &next, &why)) == SEGMENT_RECORD) {
            char head[RECORD_HEADER];
            assert(next > at && next <= bytes.n && next == at + RECORD_HEADER + r.bytes.n);
            record_format(r.kind, (uint8_t)r.cl, r.bytes, head);
            assert(!memcmp(head, bytes.p + at, RECORD_HEADER));
            at = next;
        }
        assert(step != SEGMENT_BAD || why);
    }
    if (bytes.n < DAMAGE_MAX) check_damage(bytes);
}
