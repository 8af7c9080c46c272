// SPDX-License-Identifier: Apache-2.0
// map.c - slots hold indices into the entries; linear probing, at most half of the slots in use. A
// deleted entry keeps its slot, without its key, until the next rebuild.
// Owner and threads: see map.h.
#include "arena.h"
#include "map.h"
#include <assert.h>

enum { SLOTS_FIRST = 16 };

void map_init(Map *m, uint64_t seed) { *m = (Map){ .seed = seed }; }

void map_done(Map *m) {
    mem_free(m->entries);
    mem_free(m->slots);
    *m = (Map){ 0 };
}

// The slot that holds key, or the free one where it belongs.
static size_t slot_of(const Map *m, str key) {
    size_t i = str_hash_seed(key, m->seed) & (m->slots_n - 1);
    for (; m->slots[i]; i = (i + 1) & (m->slots_n - 1)) {
        const MapEntry *e = &m->entries[m->slots[i] - 1];
        if (e->value && str_eq(e->key, key)) break;
    }
    return i;
}

static MapEntry *entry_of(const Map *m, str key) {
    if (!m->live) return NULL;
    uint32_t at = m->slots[slot_of(m, key)];
    return at ? &m->entries[at - 1] : NULL;
}

// Drops the deleted entries and makes room for as many again as live.
static void rebuild(Map *m) {
    size_t n = 0, slots_n = SLOTS_FIRST;
    for (size_t i = 0; i < m->used; i++)
        if (m->entries[i].value) m->entries[n++] = m->entries[i];
    assert(n == m->live && n < UINT32_MAX / 4);
    while (slots_n < 4 * n) slots_n *= 2;
    m->entries = mem_grow(m->entries, slots_n / 2, sizeof *m->entries);
    mem_free(m->slots);
    m->slots = mem_new(slots_n * sizeof *m->slots);
    m->slots_n = slots_n;
    m->used = n;
    for (size_t i = 0; i < n; i++) m->slots[slot_of(m, m->entries[i].key)] = (uint32_t)i + 1;
}

void *map_get(const Map *m, str key) {
    const MapEntry *e = entry_of(m, key);
    return e ? e->value : NULL;
}

void *map_set(Map *m, str key, void *value) {
    assert(value);
    MapEntry *e = entry_of(m, key);
    if (e) {
        void *before = e->value;
        e->value = value;
        return before;
    }
    if (m->used == m->slots_n / 2) rebuild(m);
    size_t slot = slot_of(m, key);
    assert(m->used < m->slots_n / 2 && !m->slots[slot]);
    m->entries[m->used++] = (MapEntry){ key, value };
    m->slots[slot] = (uint32_t)m->used;
    m->live++;
    return NULL;
}

void *map_del(Map *m, str key) {
    MapEntry *e = entry_of(m, key);
    if (!e) return NULL;
    void *before = e->value;
    *e = (MapEntry){ 0 };
    m->live--;
    return before;
}

bool map_each(const Map *m, size_t *i, MapEntry **out) {
    while (*i < m->used) {
        MapEntry *e = &m->entries[(*i)++];
        if (!e->value) continue;
        *out = e;
        return true;
    }
    return false;
}
