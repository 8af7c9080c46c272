// SPDX-License-Identifier: Apache-2.0
// journal.h - one append-only log of preallocated, checksummed segments (DIR/journal/NODE-SEGMENT.log) for usage, traces, inference audit
// and job logs. Records are opaque here: kind + bytes. Class A is written once per loop turn, before the last bytes of an answer leave,
// and synced every 50 ms; class B is synced before its `durable` callback. Space for a record may be reserved ahead, so that a full disk
// refuses new work and never the settling of old.
// Folding: one reader at a time takes records in order with their position and commits that position with what it made of them.
// Format: segment header {magic "LATHEJ1\n", node u32, segment u64, crc32c}; record {length u32, kind u16, class u8, 0 u8, crc32c u32, bytes},
// little endian; the first bad checksum ends recovery of the tail, and what follows in the last segment is dropped as never acknowledged.
// Threads: journal_append from any thread or loop; folding on a worker.
#ifndef LATHE_JOB_JOURNAL_H
#define LATHE_JOB_JOURNAL_H
#include "os/file.h"
#include "os/loop.h"

typedef struct Journal Journal;
typedef struct JournalPos { uint32_t node; uint64_t segment, offset; } JournalPos;
typedef enum { JOURNAL_A, JOURNAL_B } JournalClass;
enum { JOURNAL_RECORD_MAX = 1 << 20, JOURNAL_SEGMENT = 16 << 20 };

err journal_open(Ctx *c, str dir, uint32_t node, Journal **out);         // recovers: cuts a torn tail, continues after it
void journal_close(Journal *j);                  // writes and syncs what is pending
void journal_attach(Journal *j, Loop *l);        // this loop's turns write what its callbacks appended (loop_on_turn)
// Room for n bytes more that a later append with reserved=true may use. False: the disk is full; answer 507.
bool journal_reserve(Journal *j, size_t n);
void journal_release(Journal *j, size_t n);      // not needed after all
// Queues one record; it reaches the file at this turn's end (or within 10 ms off-loop). durable (class B; may be NULL) is called on a
// thread of the journal's once it is synced: post to your loop from there. ERR_FULL only without a reservation.
err journal_append(Journal *j, JournalClass cl, uint16_t kind, str bytes, size_t reserved, void (*durable)(void *arg, err e), void *arg);
err journal_flush(Ctx *c, Journal *j);           // blocks until all so far is written and synced

typedef struct JournalRecord { JournalPos pos, next; uint16_t kind; str bytes; } JournalRecord;
// Reads up to max records from pos on (zero: the oldest), into c->mem. A position that was removed gives the oldest with *out_gap true.
err journal_read(Ctx *c, Journal *j, JournalPos from, size_t max, JournalRecord **out, size_t *out_n, bool *out_gap);
JournalPos journal_end(Journal *j);              // after the last record that is written
void journal_on_data(Journal *j, void (*fn)(void *), void *arg);         // wakes the folder; may be lost, so it polls too
err journal_trim(Ctx *c, Journal *j, JournalPos folded);     // removes whole segments before it
typedef struct JournalCounts { int64_t records, bytes, writes, syncs, segments, reserved_bytes; bool full; } JournalCounts;
JournalCounts journal_counts(Journal *j);
#endif
