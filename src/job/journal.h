// SPDX-License-Identifier: Apache-2.0
// journal.h - one append-only log of preallocated, checksummed segments for usage, traces,
// inference audit and job logs. Records are opaque here: kind + bytes. Class A is written once per
// loop turn, before the last bytes of an answer leave, and synced every 50 ms; class B is synced
// before its `durable` callback. Space for a record may be reserved ahead, so that a full disk
// refuses new work and never the settling of old. Folding: one reader takes records in order with
// their position and commits that position with what it made of them. The format: README.md.
// Threads: append, reserve, read and trim from any thread or loop, all at once.
#ifndef LATHE_JOB_JOURNAL_H
#define LATHE_JOB_JOURNAL_H
#include "os/file.h"
#include "os/loop.h"

typedef struct Journal Journal;
typedef struct JournalPos {
    uint32_t node;
    uint64_t segment, offset;
} JournalPos;
typedef enum { JOURNAL_A, JOURNAL_B } JournalClass;
enum { JOURNAL_RECORD_MAX = 1 << 20, JOURNAL_SEGMENT = 16 << 20 };

// Files DIR/journal/NODE-SEGMENT.log. Recovers: cuts a torn tail; what comes next goes to a new
// segment, so that no position is ever used twice. A full disk is no error here: see counts.
err journal_open(Ctx *c, str dir, uint32_t node, Journal **out);
// The same with smaller segments, for tests; a record is then at most a quarter of one.
err journal_open_sized(Ctx *c, str dir, uint32_t node, size_t segment_bytes, Journal **out);
void journal_close(Journal *j); // writes and syncs what is pending; after its loops have stopped
// As if the process died here: nothing more is written. Simulated: after sim_crash.
void journal_drop(Journal *j);
// This loop's turns write what its callbacks appended (loop_on_turn), for ever: the journal is
// closed after the loop stopped. On a simulated os the first loop attached also syncs.
void journal_attach(Journal *j, Loop *l);
// Room for one later append of up to n bytes that passes reserved = n. False: the disk is full or
// failing; answer 507.
bool journal_reserve(Journal *j, size_t n);
void journal_release(Journal *j, size_t n); // that append will not come
// Queues one record; it reaches the file at this turn's end (or within 10 ms off-loop). durable
// (may be NULL) is called once it is synced, or with the error of a failed write or sync, on a
// thread of the journal's own (simulated: on a loop): post to your loop from there. ERR_FULL only
// without a reservation that covers it, ERR_TOOLARGE above the record limit; on an error durable is
// not called. reserved: the n of one journal_reserve, used up by this call even when it fails.
typedef struct JournalEntry {
    JournalClass cl;
    uint16_t kind;
    str bytes;
    size_t reserved; // 0: none
    void (*durable)(void *arg, err e);
    void *arg;
} JournalEntry;
err journal_append(Journal *j, const JournalEntry *e);
// Blocks until all so far is written and synced; an error when that failed, or when a sync has
// failed since the flush before: what it should have covered may not survive a power cut.
err journal_flush(Ctx *c, Journal *j);

typedef struct JournalRecord {
    JournalPos pos, next;
    uint16_t kind;
    JournalClass cl;
    str bytes;
} JournalRecord;
// Reads up to max records from pos on (zero: the oldest), into c->mem; fewer when they come to more
// than 4 MiB. A position that was removed gives what comes after it with gap true. ERR_INTERNAL
// with R_JOURNAL_BAD when the next record is damaged: journal_skip gives the position to go on
// from.
typedef struct JournalBatch {
    JournalRecord *records;
    size_t n;
    bool gap;
} JournalBatch;
err journal_read(Ctx *c, Journal *j, JournalPos from, size_t max, JournalBatch *out);
JournalPos journal_skip(Journal *j, JournalPos bad);            // the start of the next segment
static inline bool journal_before(JournalPos a, JournalPos b) { // of one node
    return a.segment < b.segment || (a.segment == b.segment && a.offset < b.offset);
}
// An earlier life was open when its machine ended: the last of what it wrote to class A, up to
// 50 ms, may be missing. So until it was written down somewhere: journal_gap_told.
bool journal_gap(const Journal *j);
err journal_gap_told(Ctx *c, Journal *j);
JournalPos journal_end(Journal *j); // after the last record that is written
// Wakes the folder after a write, on the writing thread; may be lost, so it polls too. Set it
// before the first append.
void journal_on_data(Journal *j, void (*fn)(void *), void *arg);
err journal_trim(Ctx *c, Journal *j, JournalPos folded); // removes whole segments before it
typedef struct JournalCounts {
    int64_t records, bytes, writes, syncs, segments, reserved_bytes;
    int64_t write_errors, sync_errors, torn_bytes; // torn: cut by recovery at this open
    bool full;                                     // refuses what was not reserved
} JournalCounts;
JournalCounts journal_counts(Journal *j);

// Reading a segment from memory: what recovery, the reader and the fuzzer share.
typedef enum { SEGMENT_RECORD, SEGMENT_END, SEGMENT_SEALED, SEGMENT_BAD } SegmentStep;
// Header of a segment: false when it is damaged or not of this journal's format.
bool segment_header(str bytes, uint32_t *out_node, uint64_t *out_segment);
// The record at `at`: END where zeros or the end of bytes begin, SEALED at the mark that closes a
// full segment. out->bytes points into bytes; *out_next is where the following one starts; *out_why
// names a fault.
SegmentStep segment_next(str bytes, size_t at, JournalRecord *out, size_t *out_next,
                         const char **out_why);
uint32_t crc32c(uint32_t crc, const void *p, size_t n); // Castagnoli, RFC 3720 B.4; start with 0
#endif
