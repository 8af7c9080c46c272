// SPDX-License-Identifier: Apache-2.0
// snapshot_impl.h - private to snapshot*.c: what one reading of the database gave, and the copy on
// disk. Threads: the builder's, and who starts it before it is there.
#ifndef LATHE_RES_SNAPSHOT_IMPL_H
#define LATHE_RES_SNAPSHOT_IMPL_H
#include "res/app.h"
#include "res/snapshot.h"

// A whole copy is half a kilobyte a key: 1 GiB is some two million.
enum { PARTS_MAX = 16, SNAPSHOT_BYTES_MAX = 1 << 30 };

typedef struct Build {
    const SnapshotPart *const *parts;
    size_t parts_n;
    bool whole;           // every part's text is all of it
    bool same[PARTS_MAX]; // nothing of it changed since the last build
    str text
        [PARTS_MAX]; // JSON: of a part with `apply`, unless whole, what changed (absent: nothing)
    yyjson_val **replay; // what changed after a whole one, as the disk has it: {"part": …}
    size_t replay_n;
    int64_t cursor;  // where the next reading of changes begins
    int64_t true_ms; // of a copy on disk: wall clock, when SQL last agreed with it; 0: unknown
} Build;

static inline bool part_delta(const Build *b, size_t i) { return b->parts[i]->apply && !b->whole; }

// Rows of the log of changes. Reads on from *cursor, or, when b is whole, only where to begin.
// Too many: b becomes whole.
err change_list(Ctx *c, Tx *tx, int64_t cursor, Build *b, SnapshotChange **out, size_t *out_n);
err change_trim(Ctx *c); // what every node has read long ago

// DIR/snapshot.json, all of it, and DIR/snapshot.log: a line for each build since, which names its
// base. A whole build replaces the one and empties the other.
err disk_save(Ctx *c, const Build *b, int64_t number);
err disk_load(Ctx *c, Build *b, int64_t *out_number); // ERR_NOTFOUND: none is kept
// SQL agrees with what was saved last. Costs nothing within a few seconds of the last time.
void disk_agrees(Ctx *c);
bool disk_wants_whole(void); // the log has grown, or there is no base
void disk_close(void);
#endif
