// SPDX-License-Identifier: Apache-2.0
// pmap_test.c - versions of a map against plain arrays: each keeps what it was made of, whatever
// later ones do, and every value is let go exactly once.
#include "base/pmap.h"
#include "base/test.h"

typedef struct Thing {
    int64_t refs;
    int generation;
    char name[12];
} Thing;
static int64_t living;
static str thing_key(const void *t) { return str_z(((const Thing *)t)->name); }
static void thing_hold(void *t) { ((Thing *)t)->refs++; }
static void thing_drop(void *t) {
    Thing *thing = t;
    if (--thing->refs) return;
    living--;
    mem_free(thing);
}
static const PmapKind kind = { thing_key, thing_hold, thing_drop };

enum { NAMES = 700, VERSIONS = 40, STEPS = 120 };
typedef struct Model {
    Pmap *map;
    int generation[NAMES]; // 0: absent
    size_t n;
} Model;

static void name_of(int i, char out[12]) { snprintf(out, 12, "n%d", i % 1000000); }

static void put(Model *m, int i, int generation) {
    Thing *t = mem_new(sizeof *t);
    name_of(i, t->name);
    t->generation = generation, living++, t->refs = 1;
    pmap_set(m->map, t);
    thing_drop(t);
    m->n += !m->generation[i];
    m->generation[i] = generation;
}

static void take_out(Model *m, int i) {
    char name[12];
    name_of(i, name);
    CHECK(pmap_del(m->map, str_z(name)) == (m->generation[i] != 0));
    m->n -= m->generation[i] != 0;
    m->generation[i] = 0;
}

static void compare(const Model *m) {
    CHECK_INT(pmap_count(m->map), m->n);
    for (int i = 0; i < NAMES; i++) {
        char name[12];
        name_of(i, name);
        const Thing *t = pmap_get(m->map, str_z(name));
        CHECK_INT(t ? t->generation : 0, m->generation[i]);
    }
}

TEST(pmap_versions_keep_what_they_were_made_of) {
    uint64_t x = test_random();
    Model *all = mem_new(VERSIONS * sizeof *all);
    living = 0;
    all[0].map = pmap_new(&kind, x);
    for (int v = 0; v < VERSIONS; v++) {
        if (v) {
            int from = (int)(x % (uint64_t)v); // any version may be the start of another
            all[v] = all[from];
            all[v].map = pmap_copy(all[from].map);
        }
        for (int step = 1; step <= STEPS; step++) {
            x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            int i = (int)(x >> 33) % NAMES;
            if (x >> 62) put(&all[v], i, v * STEPS + step);
            else take_out(&all[v], i);
        }
        x ^= x >> 29;
    }
    for (int v = 0; v < VERSIONS; v++) compare(&all[v]);
    for (int v = 0; v < VERSIONS; v += 2) pmap_free(all[v].map);
    for (int v = 1; v < VERSIONS; v += 2) compare(&all[v]), pmap_free(all[v].map);
    CHECK_INT(living, 0);
    mem_free(all);
}

TEST(pmap_of_nothing) {
    Pmap *m = pmap_new(&kind, 1), *copy = pmap_copy(m);
    CHECK(!pmap_get(m, S("a")) && !pmap_del(m, S("")) && !pmap_count(copy));
    pmap_free(m), pmap_free(copy), pmap_free(NULL);
}
