// SPDX-License-Identifier: Apache-2.0
// buf.h - bytes that grow to a stated maximum. What does not fit is dropped as a whole, and from
// then on the buffer stays `full` and takes no more, so that it holds a true prefix: callers check
// once at the end. Owner: whoever called buf_init; buf_done frees. Threads: one at a time.
#ifndef LATHE_BASE_BUF_H
#define LATHE_BASE_BUF_H
#include "str.h"
#include <stdarg.h>

typedef struct Buf {
    char *p;
    size_t n, cap, max; // max: most bytes it may ever hold
    bool full;          // something did not fit
} Buf;

void buf_init(Buf *b, size_t max);
void buf_done(Buf *b);  // frees; usable again after buf_init only
void buf_clear(Buf *b); // empty and not full; keeps the memory
static inline str buf_str(const Buf *b) { return (str){ b->p ? b->p : "", b->n }; }
const char *buf_z(Buf *b); // NUL-terminated view, valid until the next change

bool buf_add(Buf *b, str s); // false when it did not fit, here and below
bool buf_add_char(Buf *b, char c);
bool buf_add_repeat(Buf *b, char c, size_t n);
bool buf_printf(Buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool buf_vprintf(Buf *b, const char *fmt, va_list args);
bool buf_add_json(Buf *b, str s); // a JSON string with its quotes; bad UTF-8 becomes U+FFFD
bool buf_add_hex(Buf *b, const void *p, size_t n); // lower case
void buf_drop(Buf *b, size_t n);                   // takes n bytes off the front
// Room for n bytes at p + n; then buf_commit. NULL when that is over max: the buffer is full then.
char *buf_reserve(Buf *b, size_t n);
void buf_commit(Buf *b, size_t n);
#endif
