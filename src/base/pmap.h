// SPDX-License-Identifier: Apache-2.0
// pmap.h - a map that many versions share: a copy costs a few hundred bytes, a change a few dozen
// entries, whatever the map's size; a version that is read by others is never changed. Values are
// counted references: the map holds each of its values through `hold` and lets go through `drop`.
// A tree of two levels of 64 over buckets in no order; keys are found by their hash, so a map of a
// million has some 250 entries in a bucket.
// Owner: pmap_free drops one version. Threads: a version is changed by its maker alone, until it is
// shared; read, copied and freed by any.
#ifndef LATHE_BASE_PMAP_H
#define LATHE_BASE_PMAP_H
#include "str.h"

typedef struct PmapKind {
    str (*key)(const void *value); // lives as long as the value
    void (*hold)(void *value);
    void (*drop)(void *value);
} PmapKind;
typedef struct Pmap Pmap;

Pmap *pmap_new(const PmapKind *kind, uint64_t seed); // seed: from os random, when keys are others'
Pmap *pmap_copy(const Pmap *m);
void pmap_free(Pmap *m);                // NULL is fine
void *pmap_get(const Pmap *m, str key); // NULL: absent
void pmap_set(Pmap *m, void *value);    // holds it; one of the same key is let go
bool pmap_del(Pmap *m, str key);        // false: absent
size_t pmap_count(const Pmap *m);
#endif
