// SPDX-License-Identifier: Apache-2.0
// sse_fuzz.c - libFuzzer's entry to server-sent events: any bytes, in any cuts, give the same
// events, and what is read survives being written and read again. The first byte chooses the cuts.
// Threads: one.
// Covers: src/net/sse.c
#include "fuzz.h"
#include "net/sse.h"

enum { EVENT_MAX = 4096 };

static void note(void *arg, const SseEvent *ev) {
    Buf *out = arg;
    assert(ev->data.n <= EVENT_MAX && str_find_char(ev->data, '\r') < 0);
    buf_add(out, S("event: "));
    buf_add(out, ev->event);
    buf_add(out, S("\nid: "));
    buf_add(out, ev->id);
    str rest = ev->data, line;
    while (str_cut(&rest, '\n', &line)) {
        buf_add(out, S("\ndata: "));
        buf_add(out, line);
    }
    buf_add(out, S("\n\n"));
}

static bool feed(str bytes, unsigned cut, Buf *out) {
    Sse s;
    bool good = true;
    uint32_t dice = cut;
    buf_init(out, 64 << 20);
    sse_init(&s, EVENT_MAX);
    while (bytes.n) {
        dice = dice * 1664525 + 1013904223;
        size_t n = cut ? 1 + (dice >> 16) % cut : bytes.n;
        good = sse_feed(&s, str_sub(bytes, 0, n), note, out);
        bytes = str_sub(bytes, n, bytes.n);
    }
    sse_done(&s);
    return good;
}

FUZZ(sse) {
    unsigned cuts = fuzz_choice(&bytes);
    if (bytes.n > 100000) return;
    Buf whole, cut, again;
    bool good = feed(bytes, 0, &whole);
    assert(feed(bytes, 1u + cuts, &cut) == good);
    assert(str_eq(buf_str(&whole), buf_str(&cut)));
    bool good_again = feed(buf_str(&whole), 0, &again);
    assert(!good || (good_again && str_eq(buf_str(&whole), buf_str(&again))));
    buf_done(&whole);
    buf_done(&cut);
    buf_done(&again);
}
