// SPDX-License-Identifier: Apache-2.0
// gen.c - the tokens of one choice. Words follow from the seed and the place alone, so a longer
// answer begins with the shorter one. An answer that ends by itself ends with a token that is
// billed and not seen, as a real model's.
// Owner: the exchange's arena. Threads: the loop's.
#include "fake.h"
#include <assert.h>

static str words_text(Ctx *c, uint64_t seed, int64_t n) {
    Buf b;
    buf_init(&b, 64 << 20);
    for (int64_t i = 0; i < n; i++) buf_add(&b, word_at(seed, i));
    str out = arena_str(c->mem, buf_str(&b));
    buf_done(&b);
    return out;
}

static ptrdiff_t first_stop(str text, const Ask *a, size_t *out_n) {
    ptrdiff_t best = -1;
    for (size_t i = 0; i < a->stops_n; i++) {
        ptrdiff_t at = str_find(text, a->stops[i]);
        if (at < 0 || (best >= 0 && at >= best)) continue;
        best = at;
        *out_n = a->stops[i].n;
    }
    return best;
}

// A stop string ends the answer with the token that completes it; neither is seen.
static void stop_at(Gen *g, size_t from, size_t n) {
    int64_t tokens = 0;
    for (size_t at = 0; at < from + n; at += token_next(g->text, at)) tokens++;
    if (tokens > g->total) return; // the limit comes first
    g->total = tokens;
    g->visible = from;
    g->finish = "stop";
}

void gen_init(Ctx *c, const Ask *a, const Behaviour *b, uint64_t seed, int64_t room, Gen *g) {
    assert(room > 0);
    bool sampled = a->json || a->tool;
    int64_t limit = a->max_tokens < 0 ? room : a->max_tokens ? a->max_tokens : 1;
    if (limit > room) limit = room;
    *g = (Gen){ .seed = seed };
    if (sampled)
        g->text = sample_json(c, a->tool ? json_get(a->tool, "parameters") : a->schema, seed);
    int64_t seen = sampled ? token_count(g->text) : a->ignore_eos ? limit : b->tokens;
    g->total = seen + 1 < limit ? seen + 1 : limit;
    g->finish = g->total <= seen ? "length" : a->tool ? "tool_calls" : "stop";
    if (a->stops_n && !sampled) g->text = words_text(c, seed, seen < limit ? seen : limit);
    g->visible = g->text.n;
    size_t n = 0;
    ptrdiff_t stop = g->text.p ? first_stop(g->text, a, &n) : -1;
    if (stop >= 0) stop_at(g, (size_t)stop, n);
}

bool gen_next(Gen *g, str *out_piece) {
    *out_piece = S("");
    if (g->made == g->total) {
        if (!g->big.p) return false;
        *out_piece = g->big;
        g->big = (str){ 0 };
        return true;
    }
    int64_t i = g->made++;
    bool hidden = g->made == g->total && strcmp(g->finish, "length") != 0;
    if (g->text.p) {
        size_t n = token_next(g->text, g->at);
        size_t seen = g->at < g->visible ? g->visible - g->at : 0;
        *out_piece = str_sub(g->text, g->at, n < seen ? n : seen);
        g->at += n;
    } else if (!hidden) {
        *out_piece = word_at(g->seed, i);
    }
    return true;
}
