// SPDX-License-Identifier: Apache-2.0
// kept.c - an answer's deltas in one piece each: what stands together is one text. Bounded in bytes
// and in pieces. Owner: whoever called kept_new. Threads: one at a time.
#include "mod/dialect/dialect_own.h"
#include <assert.h>

enum { PIECES_MAX = 16384, SIZE_MAX_BYTES = 64 << 20 };

Kept *kept_new(void) {
    Kept *f = mem_new(sizeof *f);
    buf_init(&f->stop, 4096);
    return f;
}

Kept *kept_free(Kept *f) {
    if (!f) return NULL;
    for (size_t i = 0; i < f->n; i++) {
        Piece *p = &f->pieces[i];
        buf_done(&p->text), buf_done(&p->signature), buf_done(&p->id), buf_done(&p->name),
            buf_done(&p->logprobs);
    }
    mem_free(f->pieces);
    buf_done(&f->stop);
    return mem_free(f);
}

Piece *kept_last(Kept *f, DeltaKind kind, int64_t choice, int64_t call) {
    for (size_t i = f->n; i-- > 0;) {
        Piece *p = &f->pieces[i];
        if (p->choice != choice) continue;
        if (p->kind == kind && (kind != DELTA_CALL || p->call == call)) return p;
        if (kind != DELTA_CALL) return NULL; // texts join only what stands right before
    }
    return NULL;
}

str kept_text(const Piece *p) {
    return p->kind == DELTA_CALL && !p->text.n ? S("{}") : buf_str(&p->text);
}

static Piece *add(Kept *f, DeltaKind kind, const Delta *d) {
    if (f->n == PIECES_MAX) {
        f->full = true;
        return NULL;
    }
    if (f->n == f->cap) {
        f->cap = f->cap ? 2 * f->cap : 8;
        f->pieces = mem_grow(f->pieces, f->cap, sizeof *f->pieces);
    }
    Piece *p = &f->pieces[f->n++];
    *p = (Piece){ .kind = kind, .choice = d->choice, .call = d->call };
    Buf *all[] = { &p->text, &p->signature, &p->id, &p->name, &p->logprobs };
    for (size_t i = 0; i < countof(all); i++) buf_init(all[i], SIZE_MAX_BYTES);
    if (d->choice >= f->choices) f->choices = d->choice + 1;
    return p;
}

static void put(Kept *f, Buf *b, str s) {
    if (s.n > SIZE_MAX_BYTES - f->size_bytes || !buf_add(b, s)) f->full = true;
    else f->size_bytes += s.n;
}

static void add_logprobs(Kept *f, Piece *p, yyjson_val *logprobs) {
    size_t i, n, before = p->logprobs.n;
    yyjson_val *one;
    Json j = json_to(&p->logprobs);
    yyjson_arr_foreach(logprobs, i, n, one) {
        if (p->logprobs.n) buf_add_char(&p->logprobs, ',');
        json_put_val(&j, one);
    }
    f->size_bytes += p->logprobs.n - before;
    f->full |= p->logprobs.full || f->size_bytes > SIZE_MAX_BYTES;
}

static void add_text(Kept *f, DeltaKind kind, const Delta *d) {
    Piece *p = kept_last(f, kind, d->choice, d->call);
    // Reasoning after its signature is another piece of reasoning; and so is a second signature.
    if (p && kind == DELTA_REASONING && p->signature.n) p = NULL;
    if (!p && !(p = add(f, kind, d))) return;
    put(f, d->kind == DELTA_SIGNATURE ? &p->signature : &p->text, d->text);
    if (d->logprobs) add_logprobs(f, p, d->logprobs);
}

bool kept_add(Kept *f, const Delta *d) {
    if (f->full || d->choice < 0 || d->choice >= DIALECT_CHOICES_MAX) return !f->full;
    Piece *p;
    switch (d->kind) {
    case DELTA_TEXT:
    case DELTA_REASONING:
    case DELTA_REFUSAL: add_text(f, d->kind, d); break;
    case DELTA_SIGNATURE: add_text(f, DELTA_REASONING, d); break;
    case DELTA_CALL:
        if (!(p = add(f, DELTA_CALL, d))) break;
        put(f, &p->id, d->id), put(f, &p->name, d->name);
        break;
    case DELTA_ARGUMENTS:
        p = kept_last(f, DELTA_CALL, d->choice, d->call);
        if (p) put(f, &p->text, d->text);
        break;
    case DELTA_FINISH:
        f->finish[d->choice] = d->finish;
        if (d->choice >= f->choices) f->choices = d->choice + 1;
        buf_clear(&f->stop), buf_add(&f->stop, d->stop);
        break;
    case DELTA_USAGE: f->usage = d->usage; break;
    case DELTA_BEGIN:
    case DELTA_ERROR:
    case DELTA_END: break;
    }
    return !f->full;
}
