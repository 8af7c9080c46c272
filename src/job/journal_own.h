// SPDX-License-Identifier: Apache-2.0
// journal_own.h - what the files of the journal share; nobody else includes it.
// segment.c bytes; journal_file.c segments as files, recovery, trim; journal.c appending, writing,
// syncing; journal_read.c reading; journal_life.c power cuts.
// Locks, taken in this order: prepare, io, sync, lock. Only `lock` is taken by an append.
#ifndef LATHE_JOB_JOURNAL_OWN_H
#define LATHE_JOB_JOURNAL_OWN_H
#include "job/journal.h"
#include "job/reason.h"
#include "os/thread.h"

enum { SEGMENT_HEADER = 24, RECORD_HEADER = 12, SEALED_CLASS = 0xff };
enum { SPARES_MAX = 64, LOOPS_MAX = 64, SYNC_MS = 50, WRITE_MS = 10, RETRY_MS = 100 };
#define RECORD_CUT "a record is cut short"

void segment_header_format(uint32_t node, uint64_t segment, char out[SEGMENT_HEADER]);
void record_format(uint16_t kind, uint8_t class, str bytes, char out[RECORD_HEADER]);
uint32_t crc32c_plain(uint32_t crc, const void *p, size_t n); // without special instructions

typedef struct Spare {
    uint64_t number;
    File *file;
} Spare;
typedef struct Waiter {
    uint64_t seq;
    void (*durable)(void *arg, err e);
    void *arg;
    err e; // set: the write or sync of its record failed
} Waiter;
typedef struct Bytes { // whole records, in order
    char *p;
    size_t n, cap;
    uint64_t seq; // of its last record
} Bytes;

struct Journal {
    Os *os;
    Arena *mem;
    const char *dir;
    uint32_t node;
    size_t segment_bytes, record_max;

    pthread_mutex_t prepare; // one maker of spares at a time
    pthread_mutex_t io;      // one writer at a time: batch, batch_at, rolling
    pthread_mutex_t sync;    // one sync at a time; held while current.file is replaced
    pthread_mutex_t lock;    // all below but the atomics
    pthread_cond_t work, done;
    Bytes batch; // being written (io)
    size_t batch_at;

    JournalPos read_end; // behind the last record of an old segment that a reader waits at
    uint64_t *old;       // segments that are full or of earlier lives, ascending
    size_t old_n, old_cap;
    Spare current; // file NULL: none yet
    size_t at;     // where the next byte of current goes
    Spare spares[SPARES_MAX];
    size_t spares_n;
    uint64_t next_number;

    Bytes queue;                        // appended, not being written yet
    uint64_t appended, written, synced; // sequence numbers of records
    uint64_t wanted;                    // sync up to here at once (class B, flush)
    uint64_t failures;                  // of writes and syncs
    uint64_t unsynced, unsynced_told;   // failed syncs, and how many of them a flush reported
    Waiter *waiters;                    // in order of seq
    size_t waiters_n, waiters_cap;
    size_t reserved, committed;                     // committed: queued or being written
    int64_t queued_ns, dirty_ns, retry_ns, full_ns; // 0: not so
    err last_error;
    bool replace;               // current failed to sync: go on in another segment
    bool stop, write_now, idle; // idle: the thread waits until it is told
    Journal **posted;           // simulated: what work_posted is to find; NULL: none is under way
    JournalCounts counts;
    atomic_bool has_queue; // lets a turn without records cost one load
    atomic_bool gap;       // see journal_gap

    Loop *loops[LOOPS_MAX];
    size_t loops_n;
    Timer *timer; // simulated: instead of the thread
    Thread thread;
    bool threaded;
    void (*on_data)(void *);
    void *on_data_arg;
};

// journal_file.c
err segments_recover(Ctx *c, Journal *j, str parent); // parent: where its folder lies
err segment_close(Ctx *c, File *f, size_t at); // marks its end there, synced, and cuts the rest off
bool spare_make(Journal *j, size_t need);      // see there
bool spare_take(Journal *j);                   // lock held: a spare becomes current
size_t spare_ahead(const Journal *j);          // the room that is kept ready ahead of need
bool spare_wanted(const Journal *j);           // lock held: one more should be made for that
str segment_path(Ctx *c, const Journal *j, uint64_t number);
size_t segment_room(const Journal *j, size_t at); // bytes that records may still take there
int64_t journal_room(const Journal *j);           // lock held: guaranteed and not promised yet
void old_add(Journal *j, uint64_t number);        // lock held
// journal_life.c
err life_open(Ctx *c, Journal *j); // once its folder is there
void life_close(Ctx *c, Journal *j);  // all is synced
#endif
