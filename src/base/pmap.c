// SPDX-License-Identifier: Apache-2.0
// pmap.c - see pmap.h. Nodes and buckets are counted; one that is held once, by the version being
// changed, is changed in place, any other is copied first.
#include "base/pmap.h"
#include "base/arena.h"
#include <assert.h>
#include <stdatomic.h>
#include <string.h>

enum { FAN = 64, FAN_BITS = 6 };
typedef struct Item {
    uint64_t hash;
    void *value;
} Item;
typedef struct Bucket {
    atomic_int refs;
    uint32_t n, cap;
    Item at[];
} Bucket;
typedef struct Branch {
    atomic_int refs;
    Bucket *at[FAN];
} Branch;
struct Pmap {
    const PmapKind *kind;
    uint64_t seed;
    size_t n;
    Branch *at[FAN];
};

Pmap *pmap_new(const PmapKind *kind, uint64_t seed) {
    Pmap *m = mem_new(sizeof *m);
    m->kind = kind, m->seed = seed;
    return m;
}

static bool last(atomic_int *refs) {
    int before = atomic_fetch_sub_explicit(refs, 1, memory_order_acq_rel);
    assert(before > 0);
    return before == 1;
}
static void again(atomic_int *refs) { atomic_fetch_add_explicit(refs, 1, memory_order_relaxed); }
static bool ours(atomic_int *refs) { return atomic_load_explicit(refs, memory_order_acquire) == 1; }

Pmap *pmap_copy(const Pmap *m) {
    Pmap *copy = mem_new(sizeof *copy);
    *copy = *m;
    for (size_t i = 0; i < FAN; i++)
        if (copy->at[i]) again(&copy->at[i]->refs);
    return copy;
}

static void bucket_drop(const PmapKind *kind, Bucket *b) {
    if (!b || !last(&b->refs)) return;
    for (uint32_t i = 0; i < b->n; i++) kind->drop(b->at[i].value);
    mem_free(b);
}

static void branch_drop(const PmapKind *kind, Branch *b) {
    if (!b || !last(&b->refs)) return;
    for (size_t i = 0; i < FAN; i++) bucket_drop(kind, b->at[i]);
    mem_free(b);
}

void pmap_free(Pmap *m) {
    if (!m) return;
    for (size_t i = 0; i < FAN; i++) branch_drop(m->kind, m->at[i]);
    mem_free(m);
}

size_t pmap_count(const Pmap *m) { return m->n; }

static size_t high(uint64_t hash) { return hash >> (64 - FAN_BITS); }
static size_t low(uint64_t hash) { return hash >> (64 - 2 * FAN_BITS) & (FAN - 1); }

static uint32_t find(const Pmap *m, const Bucket *b, uint64_t hash, str key) {
    uint32_t i = 0;
    while (i < b->n && (b->at[i].hash != hash || !str_eq(m->kind->key(b->at[i].value), key))) i++;
    return i;
}

void *pmap_get(const Pmap *m, str key) {
    uint64_t hash = str_hash_seed(key, m->seed);
    const Branch *branch = m->at[high(hash)];
    const Bucket *b = branch ? branch->at[low(hash)] : NULL;
    if (!b) return NULL;
    uint32_t i = find(m, b, hash, key);
    return i < b->n ? b->at[i].value : NULL;
}

// ---- changing

static Branch *own_branch(Pmap *m, size_t i) {
    Branch *was = m->at[i];
    if (was && ours(&was->refs)) return was;
    Branch *b = mem_new(sizeof *b);
    atomic_init(&b->refs, 1);
    if (was) memcpy(b->at, was->at, sizeof b->at);
    for (size_t k = 0; k < FAN; k++)
        if (b->at[k]) again(&b->at[k]->refs);
    branch_drop(m->kind, was);
    return m->at[i] = b;
}

// With room for one more. A bucket that several share is copied with its values held once more.
static Bucket *own_bucket(Pmap *m, Bucket **at) {
    Bucket *was = *at;
    if (was && ours(&was->refs) && was->n < was->cap) return was;
    uint32_t cap = was ? was->n + was->n / 2 + 2 : 2;
    Bucket *b = mem_new(sizeof *b + cap * sizeof *b->at);
    atomic_init(&b->refs, 1);
    b->cap = cap, b->n = was ? was->n : 0;
    if (was) memcpy(b->at, was->at, was->n * sizeof *b->at);
    for (uint32_t i = 0; i < b->n; i++) m->kind->hold(b->at[i].value);
    bucket_drop(m->kind, was);
    return *at = b;
}

void pmap_set(Pmap *m, void *value) {
    str key = m->kind->key(value);
    uint64_t hash = str_hash_seed(key, m->seed);
    Bucket *b = own_bucket(m, &own_branch(m, high(hash))->at[low(hash)]);
    uint32_t i = find(m, b, hash, key);
    m->kind->hold(value);
    if (i < b->n) m->kind->drop(b->at[i].value);
    else b->n++, m->n++;
    assert(b->n <= b->cap);
    b->at[i] = (Item){ hash, value };
}

bool pmap_del(Pmap *m, str key) {
    uint64_t hash = str_hash_seed(key, m->seed);
    if (!pmap_get(m, key)) return false;
    Bucket *b = own_bucket(m, &own_branch(m, high(hash))->at[low(hash)]);
    uint32_t i = find(m, b, hash, key);
    assert(i < b->n && m->n);
    void *gone = b->at[i].value;
    b->at[i] = b->at[--b->n], m->n--;
    m->kind->drop(gone); // last: the key may be its own
    return true;
}
