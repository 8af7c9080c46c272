// SPDX-License-Identifier: Apache-2.0
// access_view.h - private to access: the request path's view of keys, organisations and projects.
// Views share what did not change from one to the next: places as a whole, keys one by one.
// Owner: each view lives in its snapshot's arena and holds what it shares. Threads: the snapshot's
// builder makes them, any reads.
#ifndef LATHE_MOD_ACCESS_VIEW_H
#define LATHE_MOD_ACCESS_VIEW_H
#include "base/map.h"
#include "base/pmap.h"
#include "mod/access/access_own.h"

typedef struct Places {
    atomic_int refs;
    Arena *mem;
    Map projects, orgs; // of PlaceEntry, by id; organisations also by name
    PlaceEntry *all;    // projects
    size_t all_n;
    const PlaceEntry *first; // "default" of "default", else the oldest
} Places;
// Permissions, each list once, however many keys have it. Grows only, until the next whole reading.
typedef struct RightsTable {
    atomic_int refs;
    Arena *mem;
    Map lists; // of Rights, by their text; the builder's alone
} RightsTable;
typedef struct AccessView {
    Places *places;
    RightsTable *rights;
    Pmap *by_hash, *by_id; // of KeyNode
} AccessView;

const KeyEntry *access_view_key(const AccessView *v, str hash); // NULL: no such key
err access_view_compile(Ctx *c, Arena *mem, yyjson_val *in, void **out);
err access_view_apply(Ctx *c, Arena *mem, const void *before, yyjson_val *in, void **out);
err access_part_query(Ctx *c, Tx *tx, Json *out);
err access_part_changes(Ctx *c, Tx *tx, const SnapshotChange *at, size_t n, Json *out,
                        bool *out_whole);
#endif
