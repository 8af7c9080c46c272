// SPDX-License-Identifier: Apache-2.0
// value_fuzz.c - any text as each of the small values that people write: instants, spans, bytes,
// money, numbers, addresses, URLs. What is read is written, and reads the same again.
// Covers: src/base/time.c src/os/addr.c src/mod/model/model_url.c
// Threads: one.
#include "fuzz.h"
#include "base/time.h"
#include "mod/model/model_import.h"
#include "os/stream.h"

static void check_texts(Arena *a, str s) {
    int64_t n, again;
    char text[TIME_TEXT];
    if (time_parse(s, &n)) assert(time_parse(time_format(n, text), &again) && again == n);
    if (span_parse(s, &n)) assert(span_parse(span_format(a, n), &again) && again == n);
    if (bytes_parse(s, &n)) assert(n >= 0 && bytes_format(a, n).n); // rounded for people
    if (money_parse(s, &n)) assert(money_parse(money_format(a, n), &again) && again == n);
    if (str_to_i64(s, &n))
        assert(str_to_i64(arena_printf(a, "%lld", (long long)n), &again) && n == again);
}

static void check_addr(Ctx *c, str s) {
    Addr addr, again;
    err e = addr_parse(c, s, &addr);
    if (e) {
        fuzz_refused(c, e, ERR_INVALID);
        return;
    }
    e = addr_parse(c, str_z(addr.text), &again);
    assert(!e && !strcmp(addr.text, again.text));
    assert(addr_is_private(&addr) == addr_is_private(&again));
}

static void check_url(Ctx *c, str s) {
    Url url, again, joined;
    err e = model_url_parse(c, s, &url);
    if (e) {
        fuzz_refused(c, e, e == ERR_DENIED ? e : ERR_INVALID);
        return;
    }
    assert(url.host.n && url.target.n && *url.target.p == '/' && url.port > 0);
    assert(str_find_char(url.shown, '?') < 0 && str_find_char(url.target, ' ') < 0);
    e = model_url_parse(c, url.shown, &again);
    assert(!e && str_eq(again.shown, url.shown) && str_eq(again.host, url.host));
    assert(again.port == url.port);
    if (!model_url_join(c, &url, s, &joined)) assert(str_eq(joined.shown, url.shown));
    bool network = str_starts(url.target, S("//")); // RFC 3986, 4.2: another host
    if (!network && !model_url_join(c, &url, url.target, &joined))
        assert(str_eq(joined.host, url.host) && joined.port == url.port);
}

FUZZ(value) {
    Ctx c;
    ctx_init(&c, arena_new(), os_real());
    check_texts(c.mem, bytes);
    check_addr(&c, bytes);
    check_url(&c, bytes);
    arena_free(c.mem);
}
