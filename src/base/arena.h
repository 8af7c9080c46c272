// SPDX-License-Identifier: Apache-2.0
// arena.h - memory by lifetime: bump allocation, freed as one, with cleanups that run in reverse.
// Allocation never returns NULL: limits are enforced where input enters; true exhaustion aborts.
// Owner: whoever called arena_new. Threads: one at a time.
#ifndef LATHE_BASE_ARENA_H
#define LATHE_BASE_ARENA_H
#include "str.h"
#include <stdarg.h>

typedef struct Arena Arena;
typedef struct ArenaMark {
    void *chunk;
    size_t used;
    void *defers;
} ArenaMark;

Arena *arena_new(void);
Arena *arena_free(Arena *a);       // runs the cleanups; NULL is fine; returns NULL
void arena_reset(Arena *a);        // as free, but keeps the first chunk for the next call
size_t arena_used(const Arena *a); // bytes handed out since new or reset, with their alignment

void *arena_alloc(Arena *a, size_t size, size_t align); // zeroed; align is a power of two
// Zeroed; aborts when the product overflows.
void *arena_alloc_array(Arena *a, size_t count, size_t size, size_t align);
// clang-format off
#define new(a, T, n) ((T *)arena_alloc_array((a), (n), sizeof(T), _Alignof(T)))
// clang-format on
// For bytes that are written at once: not zeroed, aligned for any type.
void *arena_alloc_raw(Arena *a, size_t size);
// From arena_alloc_raw, larger: in place when p was the last allocation, else a copy. p NULL: new.
void *arena_grow_raw(Arena *a, void *p, size_t old_size, size_t size);

str arena_str(Arena *a, str s);       // a copy, NUL after it; the absent string stays absent
const char *arena_z(Arena *a, str s); // the same as a C string ("" for the absent one)
str arena_printf(Arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
str arena_vprintf(Arena *a, const char *fmt, va_list args);
str arena_join(Arena *a, const str *parts, size_t n, str sep);

// Calls fn(arg) at reset, at free, or when a mark set before it is restored.
void arena_defer(Arena *a, void (*fn)(void *), void *arg);
ArenaMark arena_mark(Arena *a);
void arena_restore(Arena *a, ArenaMark m); // releases what came after the mark, cleanups first

// Heap memory for objects that outlive a call. Never NULL; zeroed.
void *mem_new(size_t size);
// realloc with a checked product; the new bytes are not zeroed.
void *mem_grow(void *p, size_t count, size_t size);
void *mem_free(void *p); // NULL is fine; returns NULL
// Says how much was wanted and ends the process: also for what a library could not allocate and
// nobody could answer for.
__attribute__((noreturn)) void mem_exhausted(size_t size);
char *mem_strdup(str s);
#endif
