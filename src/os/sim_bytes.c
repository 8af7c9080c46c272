// SPDX-License-Identifier: Apache-2.0
// sim_bytes.c - the contents of a simulated file, in pieces: one that holds only zeros is not kept,
// so what was reserved and not written costs nothing.
// Owner: its inode. Threads: one.
#include "os/sim_disk.h"
#include <assert.h>

enum { PIECE = 16384 };

static size_t pieces_of(size_t n) { return (n + PIECE - 1) / PIECE; }

static bool zeros(const uint8_t *p, size_t n) { return !n || (!p[0] && !memcmp(p, p + 1, n - 1)); }

// Zeros behind the end of what is left, so that it may grow again.
static void cut(Bytes *b, size_t n) {
    size_t keep = pieces_of(n);
    for (size_t i = keep; i < b->pieces_n; i++) b->pieces[i] = mem_free(b->pieces[i]);
    if (n % PIECE && keep <= b->pieces_n && b->pieces[keep - 1])
        memset(b->pieces[keep - 1] + n % PIECE, 0, PIECE - n % PIECE);
}

void bytes_size(Bytes *b, size_t n) {
    size_t want = pieces_of(n);
    if (n < b->n) cut(b, n);
    if (want > b->pieces_n) {
        size_t more = want > b->pieces_n * 2 ? want : b->pieces_n * 2;
        b->pieces = mem_grow(b->pieces, more, sizeof *b->pieces);
        memset(b->pieces + b->pieces_n, 0, (more - b->pieces_n) * sizeof *b->pieces);
        b->pieces_n = more;
    }
    b->n = n;
}

void bytes_put(Bytes *b, size_t at, const uint8_t *p, size_t n) {
    if (at + n > b->n) bytes_size(b, at + n);
    while (n) {
        size_t from = at % PIECE, part = PIECE - from < n ? PIECE - from : n;
        uint8_t **piece = &b->pieces[at / PIECE];
        if (!*piece && !zeros(p, part)) *piece = mem_new(PIECE);
        if (*piece) memcpy(*piece + from, p, part);
        at += part, p += part, n -= part;
    }
}

void bytes_get(const Bytes *b, size_t at, uint8_t *out, size_t n) {
    assert(at + n <= b->n);
    while (n) {
        size_t from = at % PIECE, part = PIECE - from < n ? PIECE - from : n;
        const uint8_t *piece = b->pieces[at / PIECE];
        if (piece) memcpy(out, piece + from, part);
        else memset(out, 0, part);
        at += part, out += part, n -= part;
    }
}

void bytes_copy(Bytes *to, const Bytes *from) {
    bytes_size(to, 0);
    bytes_size(to, from->n);
    for (size_t i = 0; i < pieces_of(from->n); i++) {
        if (!from->pieces[i]) continue;
        to->pieces[i] = mem_new(PIECE);
        memcpy(to->pieces[i], from->pieces[i], PIECE);
    }
}

int64_t bytes_next(const Bytes *b, size_t at) {
    while (at < b->n && !b->pieces[at / PIECE]) at = (at / PIECE + 1) * PIECE;
    return at < b->n ? (int64_t)at : -1;
}

void bytes_done(Bytes *b) {
    for (size_t i = 0; i < b->pieces_n; i++) mem_free(b->pieces[i]);
    mem_free(b->pieces);
    *b = (Bytes){ 0 };
}
