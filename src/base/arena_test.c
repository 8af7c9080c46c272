// SPDX-License-Identifier: Apache-2.0
// arena_test.c - zeroed and aligned memory, cleanups in reverse, marks.
#include "test.h"
#include <stdio.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

static Buf trail;
static void note(void *arg) { buf_add(&trail, str_z(arg)); }

TEST(arena_memory_is_zeroed_aligned_and_apart) {
    Arena *a = test_ctx()->mem;
    for (int pass = 0; pass < 3; pass++) {
        ArenaMark m = arena_mark(a);
        char *before = NULL;
        size_t before_size = 0;
        for (int i = 0; i < 2000; i++) {
            size_t size = test_random() % 300, align = (size_t)1 << test_random() % 8;
            if (i % 500 == 0) size = 3 << 20; // larger than any usual chunk
            char *p = arena_alloc(a, size, align);
            CHECK(((uintptr_t)p & (align - 1)) == 0);
            for (size_t k = 0; k < size; k++) CHECK(!p[k]);
            memset(p, 0xff, size);
            CHECK(!before || p >= before + before_size || p + size <= before);
            before = p, before_size = size;
        }
        arena_restore(a, m); // the next pass gets memory that was written to
    }
}

TEST(arena_cleanups_run_once_in_reverse) {
    Arena *a = arena_new();
    buf_init(&trail, 64);
    arena_defer(a, note, "a");
    ArenaMark m = arena_mark(a);
    arena_defer(a, note, "b");
    arena_alloc(a, 1 << 20, 1);
    arena_defer(a, note, "c");
    arena_restore(a, m);
    CHECK_STR(buf_str(&trail), "cb");
    arena_defer(a, note, "d");
    arena_reset(a);
    CHECK_STR(buf_str(&trail), "cbda");
    arena_defer(a, note, "e");
    CHECK(!arena_free(a));
    CHECK_STR(buf_str(&trail), "cbdae");
    buf_done(&trail);
    CHECK(!arena_free(NULL));
}

static void defer_more(void *arena) {
    arena_alloc(arena, 100000, 8);
    arena_defer(arena, note, "later");
}

TEST(arena_cleanup_may_allocate_and_defer) {
    Arena *a = arena_new();
    buf_init(&trail, 64);
    arena_defer(a, defer_more, a);
    arena_reset(a);
    CHECK_STR(buf_str(&trail), "later");
    buf_done(&trail);
    CHECK_INT(arena_used(a), 0);
    arena_free(a);
}

TEST(arena_used_follows_marks) {
    Arena *a = arena_new();
    CHECK_INT(arena_used(a), 0);
    size_t before = 0;
    ArenaMark m = arena_mark(a);
    for (int i = 0; i < 1000; i++) {
        if (i == 10) m = arena_mark(a), before = arena_used(a);
        size_t used = arena_used(a);
        arena_alloc(a, 100, 1);
        CHECK(arena_used(a) >= used + 100 && arena_used(a) <= used + 200);
    }
    arena_restore(a, m);
    CHECK_INT(arena_used(a), before);
    arena_free(a);
}

TEST(arena_grow_keeps_what_was_written) {
    Arena *a = test_ctx()->mem;
    unsigned char *p = NULL;
    size_t n = 0;
    for (int i = 0; i < 300; i++) {
        size_t more = n + test_random() % 200;
        p = arena_grow_raw(a, p, n, more);
        for (size_t k = 0; k < n; k++) CHECK(p[k] == (unsigned char)(k * 7));
        for (size_t k = n; k < more; k++) p[k] = (unsigned char)(k * 7);
        n = more;
        if (i % 3 == 0) *(char *)arena_alloc(a, 1, 1) = 1; // no longer the last
    }
    char *small = arena_alloc_raw(a, 10);
    CHECK(arena_grow_raw(a, small, 10, 20) == small); // the last grows where it is
}

TEST(arena_text_is_copied_with_a_nul) {
    Arena *a = test_ctx()->mem;
    str s = arena_str(a, str_n("abcdef", 3));
    CHECK_STR(s, "abc");
    CHECK(!s.p[3]);
    CHECK(!arena_str(a, (str){ 0 }).p && arena_str(a, S("")).p);
    CHECK_STR(str_z(arena_z(a, (str){ 0 })), "");
    for (size_t n = 200; n < 300; n++) { // around the size that is formatted at once
        str text = arena_printf(a, "%0*d", (int)n, 7);
        CHECK(text.n == n && text.p[n - 1] == '7' && !text.p[n]);
    }
    str parts[] = { S("a"), S(""), S("bc"), { 0 } };
    CHECK_STR(arena_join(a, parts, 4, S(", ")), "a, , bc, ");
    CHECK_STR(arena_join(a, parts, 0, S(", ")), "");
    CHECK_STR(arena_join(a, parts, 3, (str){ 0 }), "abc");
}

#ifdef __SANITIZE_ADDRESS__
TEST(arena_hides_what_is_not_handed_out) {
    Arena *a = arena_new();
    ArenaMark m = arena_mark(a);
    char *p = arena_alloc(a, 24, 8);
    CHECK(!__asan_region_is_poisoned(p, 24) && __asan_address_is_poisoned(p + 24));
    arena_restore(a, m);
    CHECK(__asan_address_is_poisoned(p));
    arena_free(a);
}
#endif

TEST(mem_grow_and_strdup) {
    int *p = mem_new(0);
    p = mem_grow(p, 1000, sizeof *p);
    memset(p, 1, 1000 * sizeof *p);
    CHECK(!mem_free(p) && !mem_free(NULL));
    char *z = mem_strdup((str){ 0 });
    CHECK_STR(str_z(z), "");
    mem_free(z);
}
