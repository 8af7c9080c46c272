// SPDX-License-Identifier: Apache-2.0
// map.h - str to pointer, open addressing, insertion order kept. Keys are borrowed: each must live
// as long as its entry. A seed from os random keeps hostile keys from piling up.
// Owner: map_done frees the table, not what it points to. Threads: one at a time.
#ifndef LATHE_BASE_MAP_H
#define LATHE_BASE_MAP_H
#include "str.h"

typedef struct MapEntry {
    str key;
    void *value; // NULL: deleted
} MapEntry;

typedef struct Map {
    MapEntry *entries;          // in order of insertion
    uint32_t *slots;            // index + 1 into entries, 0: free
    size_t used, live, slots_n; // used counts deleted ones too
    uint64_t seed;
} Map;

void map_init(Map *m, uint64_t seed);
void map_done(Map *m);
void *map_get(const Map *m, str key); // NULL when absent
// The value before, or NULL; value must not be NULL. A key that is present keeps its first spelling
// in memory and its place in the order.
void *map_set(Map *m, str key, void *value);
void *map_del(Map *m, str key); // the value before, or NULL
// for (size_t i = 0; map_each(m, &i, &e);) visits the living entries in order; nothing may be added
// meanwhile, deleting is fine.
bool map_each(const Map *m, size_t *i, MapEntry **out);
#endif
