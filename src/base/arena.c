// SPDX-License-Identifier: Apache-2.0
// arena.c - a list of chunks that double in size; a list of cleanups that lives in them.
// Under AddressSanitizer what is not handed out is poisoned, with a gap between allocations;
// without it, unoptimised builds overwrite what is released.
// Owner and threads: see arena.h.
#include "arena.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { CHUNK_FIRST = 8 << 10, CHUNK_MAX = 1 << 20, ALIGN_MAX = _Alignof(max_align_t) };

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
enum { GAP = 16 };
static void hide(void *p, size_t n) { ASAN_POISON_MEMORY_REGION(p, n); }
static void show(void *p, size_t n) { ASAN_UNPOISON_MEMORY_REGION(p, n); }
#elif !defined(__OPTIMIZE__)
enum { GAP = 0 };
static void hide(void *p, size_t n) { memset(p, 0xdd, n); }
static void show(void *p, size_t n) { (void)p, (void)n; }
#else
enum { GAP = 0 };
static void hide(void *p, size_t n) { (void)p, (void)n; }
static void show(void *p, size_t n) { (void)p, (void)n; }
#endif

typedef struct Chunk {
    struct Chunk *below;
    size_t cap, used;
    size_t before; // bytes used in the chunks below
    _Alignas(max_align_t) char data[];
} Chunk;

typedef struct Defer {
    void (*fn)(void *);
    void *arg;
    struct Defer *next;
} Defer;

struct Arena {
    Chunk *top;
    Defer *defers;
};

void mem_exhausted(size_t size) {
    fprintf(stderr, "out of memory: %zu bytes wanted\n", size);
    abort();
}

static Chunk *chunk_new(Chunk *below, size_t cap) {
    Chunk *c = cap < PTRDIFF_MAX - sizeof *c ? malloc(sizeof *c + cap) : NULL;
    if (!c) mem_exhausted(cap);
    *c = (Chunk){ .below = below, .cap = cap, .before = below ? below->before + below->used : 0 };
    hide(c->data, cap);
    return c;
}

static void chunk_free(Chunk *c) {
    show(c->data, c->cap);
    free(c);
}

Arena *arena_new(void) {
    Arena *a = mem_new(sizeof *a);
    a->top = chunk_new(NULL, CHUNK_FIRST);
    return a;
}

Arena *arena_free(Arena *a) {
    if (!a) return NULL;
    arena_reset(a);
    chunk_free(a->top);
    return mem_free(a);
}

void arena_reset(Arena *a) {
    Chunk *first = a->top;
    while (first->below) first = first->below;
    arena_restore(a, (ArenaMark){ first, 0, NULL });
}

size_t arena_used(const Arena *a) { return a->top->before + a->top->used; }

// Where the next bytes of the chunk with this alignment start.
static size_t offset_for(const Chunk *c, size_t align) {
    uintptr_t at = (uintptr_t)c->data + c->used;
    return c->used + (-at & (align - 1));
}

static void *bump(Arena *a, size_t size, size_t align) {
    assert(align && !(align & (align - 1)));
    Chunk *c = a->top;
    size_t from = offset_for(c, align);
    if (size > PTRDIFF_MAX - align - GAP) mem_exhausted(size);
    if (from > c->cap || size + GAP > c->cap - from) {
        size_t cap = c->cap < CHUNK_MAX ? 2 * c->cap : CHUNK_MAX;
        if (cap < size + align + GAP) cap = size + align + GAP;
        a->top = c = chunk_new(c, cap);
        from = offset_for(c, align);
    }
    c->used = from + size + GAP;
    assert(c->used <= c->cap);
    show(c->data + from, size);
    return c->data + from;
}

void *arena_alloc(Arena *a, size_t size, size_t align) {
    return memset(bump(a, size, align), 0, size);
}

void *arena_alloc_array(Arena *a, size_t count, size_t size, size_t align) {
    size_t total;
    if (__builtin_mul_overflow(count, size, &total)) mem_exhausted(SIZE_MAX);
    return arena_alloc(a, total, align);
}

void *arena_alloc_raw(Arena *a, size_t size) { return bump(a, size, ALIGN_MAX); }

void *arena_grow_raw(Arena *a, void *p, size_t old_size, size_t size) {
    assert(size >= old_size && (p || !old_size));
    Chunk *c = a->top;
    uintptr_t at = (uintptr_t)p, data = (uintptr_t)c->data;
    bool last = at >= data && at + old_size + GAP == data + c->used;
    if (last && size - old_size <= c->cap - c->used) {
        c->used += size - old_size;
        show((char *)p + old_size, size - old_size);
        return p;
    }
    void *fresh = bump(a, size, ALIGN_MAX);
    return old_size ? memcpy(fresh, p, old_size) : fresh;
}

str arena_str(Arena *a, str s) {
    if (!s.p) return s;
    char *p = bump(a, s.n + 1, 1);
    memcpy(p, s.p, s.n);
    p[s.n] = 0;
    return (str){ p, s.n };
}

const char *arena_z(Arena *a, str s) { return s.p ? arena_str(a, s).p : ""; }

str arena_vprintf(Arena *a, const char *fmt, va_list args) {
    char small[256];
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(small, sizeof small, fmt, args);
    assert(n >= 0);
    char *p = bump(a, (size_t)n + 1, 1);
    if ((size_t)n < sizeof small) memcpy(p, small, (size_t)n + 1);
    else vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    return (str){ p, (size_t)n };
}

str arena_printf(Arena *a, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    str s = arena_vprintf(a, fmt, args);
    va_end(args);
    return s;
}

str arena_join(Arena *a, const str *parts, size_t n, str sep) {
    size_t total = 0;
    for (size_t i = 0; i < n; i++) total += parts[i].n + (i ? sep.n : 0);
    char *p = bump(a, total + 1, 1), *at = p;
    for (size_t i = 0; i < n; i++) {
        if (i && sep.n) at = mempcpy(at, sep.p, sep.n);
        if (parts[i].n) at = mempcpy(at, parts[i].p, parts[i].n);
    }
    *at = 0;
    return (str){ p, total };
}

void arena_defer(Arena *a, void (*fn)(void *), void *arg) {
    Defer *d = new (a, Defer, 1);
    *d = (Defer){ fn, arg, a->defers };
    a->defers = d;
}

ArenaMark arena_mark(Arena *a) { return (ArenaMark){ a->top, a->top->used, a->defers }; }

void arena_restore(Arena *a, ArenaMark m) {
    while (a->defers != m.defers) { // a cleanup may itself allocate and defer
        assert(a->defers);
        Defer *d = a->defers;
        a->defers = d->next;
        d->fn(d->arg);
    }
    while (a->top != m.chunk) {
        assert(a->top->below);
        Chunk *c = a->top;
        a->top = c->below;
        chunk_free(c);
    }
    assert(m.used <= a->top->used);
    hide(a->top->data + m.used, a->top->used - m.used);
    a->top->used = m.used;
}

void *mem_new(size_t size) {
    void *p = calloc(1, size ? size : 1);
    if (!p) mem_exhausted(size);
    return p;
}

void *mem_grow(void *p, size_t count, size_t size) {
    size_t total;
    if (__builtin_mul_overflow(count, size, &total)) mem_exhausted(SIZE_MAX);
    p = realloc(p, total ? total : 1);
    if (!p) mem_exhausted(total);
    return p;
}

void *mem_free(void *p) {
    free(p);
    return NULL;
}

char *mem_strdup(str s) {
    char *p = mem_new(s.n + 1);
    if (s.n) memcpy(p, s.p, s.n);
    return p;
}
