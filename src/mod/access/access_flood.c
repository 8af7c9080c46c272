// SPDX-License-Identifier: Apache-2.0
// access_flood.c - keys that are not known here, many from one place: they are counted by the
// address they come from, and over the limit told to wait. A right key is never held up, so those
// who share an address with whoever guesses (a gateway, a household) go on; guessing 160 random
// bits is hopeless at any rate, what is bounded here is its cost and its noise.
// Threads: any.
#include "mod/access/access_own.h"
#include <assert.h>

enum { ADDRESSES_MAX = 10000, GROUPS = 8, NETWORK_GROUPS = 4 };
static Limiter *limiter;

// clang-format off
const Setting access_settings[ACCESS_SETTINGS + 1] = {
    [ACCESS_WRONG_KEYS] = { "access.wrong_keys", SET_INT, "60", 0, 1000000, .live = true,
        .en = "Unknown keys a minute from one address (of IPv6: one /64) that are told they are "
            "unknown; more are told to wait; 0: no limit",
        .zh = "每个地址（IPv6 为 /64 网段）每分钟可得到“未知密钥”答复的次数；超出则要求等待；0 为不限" },
    { 0 }
};
static const Metric refused = { "lathe.access.refused", "{request}", METRIC_COUNTER, { "reason" },
    NULL, "Requests whose key opened nothing", "密钥无效而被拒绝的请求数" };
const Metric *const access_metrics[] = { &refused, NULL };
// clang-format on

void flood_start(void) { limiter = limiter_new(ADDRESSES_MAX); }
void flood_stop(void) {
    limiter_free(limiter);
    limiter = NULL;
}

// The first four groups of an IPv6 address, in any spelling of inet_ntop (RFC 5952).
static str network(Ctx *c, str six) {
    str groups[GROUPS], part, rest = six;
    size_t n = 0, gap = GROUPS;
    while (n < GROUPS && str_cut(&rest, ':', &part)) {
        if (part.n) groups[n++] = part;
        else if (gap == GROUPS) gap = n;
    }
    Buf b;
    buf_init(&b, 64);
    for (size_t i = 0; i < NETWORK_GROUPS; i++) {
        bool zero = i >= gap && i < gap + (GROUPS - n);
        size_t at = i < gap ? i : i - (GROUPS - n);
        buf_add(&b, zero || at >= n ? S("0") : groups[at]), buf_add_char(&b, ':');
    }
    str text = arena_printf(c->mem, STR_FMT ":/64", STR_ARG(buf_str(&b)));
    buf_done(&b);
    return text;
}

str flood_source(Ctx *c, str peer) {
    size_t end = peer.n;
    while (end && peer.p[end - 1] != ':') end--;
    str host = end ? str_sub(peer, 0, end - 1) : peer;
    if (!str_starts(peer, S("[")) || host.n < 2) return host;
    return network(c, str_sub(host, 1, host.n - 2));
}

err flood_note(Ctx *c, err e) {
    metric_add(&refused, 1, str_z(c->failure.why->slug));
    return e;
}

err flood_check(Ctx *c, const HttpRequest *r, err e) {
    assert(e == ERR_UNAUTHENTICATED && c->failure.why);
    int64_t most = setting_int(&access_settings[ACCESS_WRONG_KEYS]), now_ms = os_wall_ms(c->os);
    if (c->failure.why == &R_KEY_UNKNOWN && most && limiter) {
        Limits limits = { .requests_per_minute = most };
        str from = flood_source(c, r->peer);
        LimitSubject of = { from, &limits };
        LimitAnswer a = limiter_admit(limiter, &of, 1, (LimitUse){ 0 }, now_ms, os_mono_ns(c->os));
        if (!a.refused) // only its rate counts
            limiter_settle(limiter, &of, 1, (LimitUse){ 0 }, (LimitUse){ 0 }, now_ms);
        else {
            e = fail(c, ERR_LIMITED, R_KEYS_WRONG, "address", say_str(c, from), "limit",
                     say(c, "%lld", (long long)most), "ms",
                     say(c, "%lld", (long long)a.retry_after_ms));
            c->failure.retry_after_ms = a.retry_after_ms;
        }
    }
    return flood_note(c, e);
}
