// SPDX-License-Identifier: Apache-2.0
// map_test.c - the map against a plain array that does the same slowly.
#include "arena.h"
#include "map.h"
#include "test.h"
#include <stdio.h>
#include <stdlib.h>

enum { KEYS = 300 };

// Key i in memory of its own: the sanitizer sees one that is touched after its entry is gone.
static str key_new(int i) {
    char text[16];
    snprintf(text, sizeof text, "k%d", i);
    return str_z(mem_strdup(str_z(text)));
}

TEST(map_agrees_with_a_plain_array) {
    Map m;
    str keys[KEYS] = { 0 };
    void *values[KEYS] = { 0 };
    size_t live = 0;
    map_init(&m, test_random());
    for (int round = 0; round < 20000; round++) {
        int i = (int)(test_random() % KEYS);
        void *value = (void *)(uintptr_t)(round + 1), *before = values[i];
        str key = key_new(i);
        if (round % 2000 < 1000 ? test_random() % 4 != 0 : test_random() % 4 == 0) {
            CHECK(map_set(&m, key, value) == before);
            values[i] = value;
            live += !before;
            if (!before) keys[i] = key, key.p = NULL;
        } else {
            CHECK(map_del(&m, key) == before);
            values[i] = NULL;
            live -= before != NULL;
            if (before) mem_free((void *)keys[i].p);
        }
        mem_free((void *)key.p);
        key = key_new((int)(test_random() % KEYS));
        CHECK(map_get(&m, key) == values[strtol(key.p + 1, NULL, 10)] && m.live == live);
        mem_free((void *)key.p);
    }
    CHECK(m.slots_n <= 4 * KEYS * 2); // twenty thousand changes did not pile up
    MapEntry *e;
    size_t seen = 0;
    for (size_t i = 0; map_each(&m, &i, &e); seen++) mem_free((void *)e->key.p);
    CHECK_INT(seen, live);
    map_done(&m);
}

TEST(map_keeps_the_order_of_insertion) {
    Map m;
    char text[KEYS][8];
    map_init(&m, 1);
    for (int i = 0; i < KEYS; i++) {
        snprintf(text[i], sizeof text[i], "%d", (i * 7919) % KEYS);
        CHECK(!map_set(&m, str_z(text[i]), text[i]));
    }
    CHECK(map_set(&m, str_z(text[5]), text[6]) == text[5]); // keeps its place
    for (int i = 0; i < KEYS; i += 2) CHECK(map_del(&m, str_z(text[i])));
    int want = 1;
    MapEntry *e;
    for (size_t i = 0; map_each(&m, &i, &e); want += 2) {
        CHECK(e->key.p == text[want] && e->value == (want == 5 ? text[6] : text[want]));
        map_del(&m, e->key); // deleting on the way is fine
    }
    CHECK(want == KEYS + 1 && !m.live);
    map_done(&m);
}

TEST(map_deleted_entry_is_not_the_empty_key) {
    for (uint64_t seed = 0; seed < 100; seed++) { // so that some probe meets a deleted entry
        Map m;
        map_init(&m, seed);
        for (int i = 0; i < 7; i++) map_set(&m, str_n("abcdefg" + i, 1), &m);
        for (int i = 0; i < 7; i++) map_del(&m, str_n("abcdefg" + i, 1));
        CHECK(!map_get(&m, S("")) && !map_set(&m, S(""), &m) && m.live == 1);
        CHECK(map_get(&m, S("")) == &m && map_del(&m, S("")) == &m && !m.live);
        map_done(&m);
    }
}

TEST(map_empty_and_odd_keys) {
    Map m;
    MapEntry *e;
    int one, two;
    size_t i = 0;
    map_init(&m, 0);
    CHECK(!map_get(&m, S("a")) && !map_del(&m, S("a")) && !map_each(&m, &i, &e));
    CHECK(!map_set(&m, S(""), &one) && map_get(&m, (str){ 0 }) == &one);
    CHECK(!map_set(&m, str_n("\0", 1), &two) && map_get(&m, S("")) == &one);
    CHECK(map_del(&m, S("")) == &one && !map_get(&m, S("")) && m.live == 1);
    map_done(&m);
    map_done(&m);
}
