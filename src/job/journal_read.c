// SPDX-License-Identifier: Apache-2.0
// journal_read.c - taking records in order. A reader opens files of its own and never looks past
// what is written, so it needs the journal's lock only to learn where that is. Threads: any.
#include "job/journal_own.h"
#include <assert.h>

enum { READ_BYTES = 4 << 20 };

// Where reading goes on: the first segment at or after pos that exists, and how far it may be read.
typedef struct Place {
    JournalPos pos;
    int64_t limit; // -1: to the end of the file
    bool any, gap;
} Place;

static uint64_t segment_at(const Journal *j, size_t i) {
    return i < j->old_n ? j->old[i] : j->current.number;
}

static Place place_of(Journal *j, JournalPos from) {
    Place p = { .pos = from, .limit = -1 };
    pthread_mutex_lock(&j->lock);
    size_t n = j->old_n + (j->current.file != NULL), i = 0;
    bool over =
        from.segment && from.segment == j->read_end.segment && from.offset >= j->read_end.offset;
    if (over) from = (JournalPos){ j->node, from.segment + 1, 0 };
    while (i < n && segment_at(j, i) < from.segment) i++;
    p.any = i < n;
    if (p.any) {
        uint64_t number = segment_at(j, i);
        // Numbers may skip at a restart, but nobody removes a segment that is still being read, or
        // what lies behind it.
        bool begun = from.offset > SEGMENT_HEADER;
        p.gap = from.segment && number != from.segment && !over && (i == 0 || begun);
        if (number != from.segment || from.offset < SEGMENT_HEADER) p.pos.offset = SEGMENT_HEADER;
        p.pos.segment = number;
        if (i == j->old_n) p.limit = (int64_t)j->at;
    }
    pthread_mutex_unlock(&j->lock);
    p.pos.node = j->node;
    return p;
}

JournalPos journal_end(Journal *j) {
    pthread_mutex_lock(&j->lock);
    JournalPos end = { j->node, j->current.number, j->at };
    if (!j->current.file && j->old_n) end = (JournalPos){ j->node, j->old[j->old_n - 1] + 1, 0 };
    pthread_mutex_unlock(&j->lock);
    return end;
}

JournalPos journal_skip(Journal *j, JournalPos bad) {
    Place p = place_of(j, (JournalPos){ j->node, bad.segment + 1, 0 });
    return p.any ? p.pos : journal_end(j);
}

static err damaged(Ctx *c, Journal *j, uint64_t segment, uint64_t offset, const char *why) {
    return fail(c, ERR_INTERNAL, R_JOURNAL_BAD, "path", say_str(c, segment_path(c, j, segment)),
                "offset", say(c, "%llu", (unsigned long long)offset), "why", why);
}

// Bytes of the place's segment from its offset on, at most READ_BYTES: more than one record needs.
static err piece_read(Ctx *c, Journal *j, const Place *p, str *out) {
    File *f;
    char head[SEGMENT_HEADER], *bytes = NULL;
    size_t got = 0;
    uint32_t node = 0;
    uint64_t number = 0;
    int64_t limit = p->limit;
    TRY(file_open(c, segment_path(c, j, p->pos.segment), FILE_READ, &f));
    err e = file_read_at(c, f, 0, head, sizeof head, &got);
    if (!e && limit < 0) e = file_size(c, f, &limit);
    bool good = !e && segment_header(str_n(head, got), &node, &number);
    good = good && node == j->node && number == p->pos.segment;
    int64_t left = limit - (int64_t)p->pos.offset;
    got = 0;
    if (good && left > 0) {
        size_t want = left < READ_BYTES ? (size_t)left : READ_BYTES;
        bytes = arena_alloc_raw(c->mem, want);
        e = file_read_at(c, f, (int64_t)p->pos.offset, bytes, want, &got);
    }
    file_close(f);
    if (e) return e;
    if (!good) return damaged(c, j, p->pos.segment, 0, "its header is not one");
    *out = str_n(bytes ? bytes : "", got);
    return ERR_OK;
}

// Adds the records of one piece. Damage is reported when it comes first; what comes after some
// records is left to the next call.
static err piece_parse(Ctx *c, Journal *j, str piece, const Place *p, size_t max, JournalBatch *b) {
    size_t at = 0, next = 0;
    const char *why = "zeros instead of a record";
    JournalRecord r;
    SegmentStep step = SEGMENT_END;
    while (b->n < max && (step = segment_next(piece, at, &r, &next, &why)) == SEGMENT_RECORD) {
        r.pos = r.next = p->pos;
        r.pos.offset = p->pos.offset + at;
        r.next.offset = p->pos.offset + next;
        b->records[b->n++] = r;
        at = next;
    }
    if (b->n || step == SEGMENT_SEALED || (step == SEGMENT_END && !piece.n)) return ERR_OK;
    return damaged(c, j, p->pos.segment, p->pos.offset, why);
}

// An old segment gets no more records: who waits behind its last one need not look there again.
static void read_end_note(Journal *j, JournalPos at) {
    pthread_mutex_lock(&j->lock);
    j->read_end = at;
    pthread_mutex_unlock(&j->lock);
}

err journal_read(Ctx *c, Journal *j, JournalPos from, size_t max, JournalBatch *out) {
    assert(max > 0);
    JournalBatch b = { 0 };
    b.records = new (c->mem, JournalRecord, max);
    for (;;) {
        Place p = place_of(j, from);
        b.gap = b.gap || p.gap;
        str piece;
        if (!p.any || (p.limit >= 0 && (int64_t)p.pos.offset >= p.limit)) break; // nothing new
        err e = piece_read(c, j, &p, &piece);
        if (e == ERR_NOTFOUND) { // trimmed meanwhile, unless it should be there
            Place again = place_of(j, from);
            if (again.any && again.pos.segment == p.pos.segment)
                return damaged(c, j, p.pos.segment, 0, "the file is missing");
            continue;
        }
        if (e) return e;
        TRY(piece_parse(c, j, piece, &p, max, &b));
        if (b.n || p.limit >= 0) break;
        read_end_note(j, p.pos);
        from = (JournalPos){ j->node, p.pos.segment + 1, 0 };
    }
    *out = b;
    return ERR_OK;
}
