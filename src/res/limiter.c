// SPDX-License-Identifier: Apache-2.0
// limiter.c - see limiter.h. Subjects live in 64 shards, each a small hash table under its own
// lock. GCRA keeps one number a window: the theoretical arrival time (TAT) of the next conforming
// request; a limit of n a minute has an emission interval of 60 s / n and lets a burst of n through
// at once. Money of a day = spent + reserved; a reservation is taken back on the day it was made.
// Two days are kept: a clock that goes back over midnight, and forth again, finds each as it was.
// Sums of money are wider than money: no number of dear requests at once makes one run over.
#include "res/limiter.h"
#include "base/time.h"
#include <assert.h>
#include <pthread.h>

enum { SHARDS = 64, SHARD_BUCKETS = 256 };
#define MINUTE_NS 60000000000LL
#define DAY_MS 86400000LL

typedef __int128 Sum;
typedef struct Money {
    int64_t day;
    Sum spent, reserved;
} Money;
typedef struct Subject {
    struct Subject *next, *newer, *older; // bucket chain; order of use in the shard
    int64_t tat_ns, tokens_ns, in_flight; // theoretical arrival times: of requests, of tokens
    int pins;                             // calls that are at it
    Money newest, other;                  // other: of an earlier day
    size_t id_n;
    char id[];
} Subject;
typedef struct Shard {
    pthread_mutex_t lock;
    Subject *buckets[SHARD_BUCKETS], *newest, *oldest;
    size_t n;
} Shard;
struct Limiter {
    Shard shards[SHARDS];
    size_t shard_max;
};

const char *limit_name(LimitKind k) {
    static const char *const names[] = { "none", "requests_per_minute", "tokens_per_minute",
                                         "concurrency", "money_per_day" };
    assert((unsigned)k < countof(names));
    return names[k];
}

Limiter *limiter_new(size_t subjects_max) {
    Limiter *l = mem_new(sizeof *l);
    l->shard_max = subjects_max / SHARDS + 1;
    for (size_t i = 0; i < SHARDS; i++) pthread_mutex_init(&l->shards[i].lock, NULL);
    return l;
}

void limiter_free(Limiter *l) {
    for (size_t i = 0; l && i < SHARDS; i++) {
        for (Subject *s = l->shards[i].newest, *older; s; s = older) older = s->older, mem_free(s);
        pthread_mutex_destroy(&l->shards[i].lock);
    }
    mem_free(l);
}

// ---- subjects of a locked shard
static void use_unlink(Shard *sh, Subject *s) {
    *(s->newer ? &s->newer->older : &sh->newest) = s->older;
    *(s->older ? &s->older->newer : &sh->oldest) = s->newer;
}
static void use_first(Shard *sh, Subject *s) {
    s->newer = NULL, s->older = sh->newest;
    *(sh->newest ? &sh->newest->newer : &sh->oldest) = s;
    sh->newest = s;
}

// The one that was idle for longest. A subject with requests under way, or with money spent today,
// is never forgotten.
static bool counts(const Money *m, int64_t today) {
    return m->reserved || (m->spent && m->day >= today);
}
static void evict(Shard *sh, int64_t today) {
    for (Subject *s = sh->oldest; s; s = s->newer) {
        if (s->in_flight || s->pins || counts(&s->newest, today) || counts(&s->other, today))
            continue;
        Subject **link = &sh->buckets[str_hash(str_n(s->id, s->id_n)) / SHARDS % SHARD_BUCKETS];
        while (*link != s) link = &(*link)->next;
        *link = s->next;
        use_unlink(sh, s);
        mem_free(s);
        sh->n--;
        return;
    }
}

static Subject *subject(Limiter *l, Shard *sh, str id, uint64_t hash, int64_t today) {
    Subject **bucket = &sh->buckets[hash / SHARDS % SHARD_BUCKETS];
    for (Subject *s = *bucket; s; s = s->next) {
        if (!str_eq(str_n(s->id, s->id_n), id)) continue;
        use_unlink(sh, s), use_first(sh, s);
        return s;
    }
    if (sh->n >= l->shard_max) evict(sh, today);
    Subject *s = mem_new(sizeof *s + id.n);
    memcpy(s->id, id.p, id.n);
    s->id_n = id.n, s->next = *bucket;
    s->newest.day = today, s->other.day = today - 1;
    *bucket = s;
    use_first(sh, s);
    sh->n++;
    return s;
}

static Shard *shard_lock(Limiter *l, str id, uint64_t *out_hash) {
    *out_hash = str_hash(id);
    Shard *sh = &l->shards[*out_hash % SHARDS];
    pthread_mutex_lock(&sh->lock);
    return sh;
}

static Money *money_find(Subject *s, int64_t day) {
    return day == s->newest.day ? &s->newest : day == s->other.day ? &s->other : NULL;
}

static Money *money_of(Subject *s, int64_t day) {
    Money *m = money_find(s, day);
    if (m) return m;
    m = day > s->newest.day ? &s->newest : &s->other;
    if (m == &s->newest) s->other = s->newest;
    *m = (Money){ .day = day };
    return m;
}

static bool has(int64_t limit) { return limit > 0; } // UNSET_INT and 0: no limit

static int64_t clamp0(int64_t n) { return n > 0 ? n : 0; }

static int64_t money_left(const Money *m, const Limits *limits) {
    Sum left = limits->money_per_day - m->spent - m->reserved;
    return left > 0 ? (int64_t)left : 0;
}

static int64_t interval_ns(int64_t per_minute) { return MINUTE_NS / per_minute; }

// How a window of so many a minute stands.
static LimitState window(int64_t limit, int64_t tat_ns, int64_t mono_ns) {
    int64_t interval = interval_ns(limit), ahead = clamp0(tat_ns - mono_ns);
    int64_t used = interval ? (ahead + interval - 1) / interval : 0;
    return (LimitState){ limit, clamp0(limit - used), ahead / 1000000 };
}

// When n more fit into it: nanoseconds from now, at most 0 when they do.
static int64_t fits_in(int64_t limit, int64_t tat_ns, int64_t n, int64_t mono_ns) {
    int64_t interval = interval_ns(limit), tat = tat_ns > mono_ns ? tat_ns : mono_ns;
    return tat + n * interval - interval * limit - mono_ns;
}

static void move_on(int64_t *tat_ns, int64_t limit, int64_t n, int64_t mono_ns) {
    *tat_ns = (*tat_ns > mono_ns ? *tat_ns : mono_ns) + n * interval_ns(limit);
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static LimitAnswer look(Subject *s, const Limits *limits, int64_t now_ms, int64_t mono_ns) {
    LimitAnswer a = { 0 };
    const Money *m = money_of(s, time_day(now_ms));
    if (has(limits->requests_per_minute))
        a.requests = window(limits->requests_per_minute, s->tat_ns, mono_ns);
    if (has(limits->tokens_per_minute))
        a.tokens = window(limits->tokens_per_minute, s->tokens_ns, mono_ns);
    if (has(limits->concurrency))
        a.concurrency =
            (LimitState){ limits->concurrency, clamp0(limits->concurrency - s->in_flight), 0 };
    if (has(limits->money_per_day))
        a.money =
            (LimitState){ limits->money_per_day, money_left(m, limits), DAY_MS - now_ms % DAY_MS };
    return a;
}

static LimitKind refuse(const Subject *s, const Money *m, const Limits *limits, LimitUse reserve,
                        int64_t mono_ns) {
    int64_t requests = limits->requests_per_minute, tokens = limits->tokens_per_minute;
    if (has(requests) && fits_in(requests, s->tat_ns, 1, mono_ns) > 0) return LIMIT_REQUESTS;
    if (has(tokens) && fits_in(tokens, s->tokens_ns, least(reserve.tokens, tokens), mono_ns) > 0)
        return LIMIT_TOKENS;
    if (has(limits->concurrency) && s->in_flight >= limits->concurrency) return LIMIT_CONCURRENCY;
    bool dear =
        has(limits->money_per_day) && m->spent + m->reserved + reserve.nano > limits->money_per_day;
    return dear && reserve.nano ? LIMIT_MONEY : LIMIT_NONE;
}

static void admit(Subject *s, Money *m, const Limits *limits, LimitUse reserve, int64_t mono_ns) {
    int64_t requests = limits->requests_per_minute, tokens = limits->tokens_per_minute;
    if (has(requests)) move_on(&s->tat_ns, requests, 1, mono_ns);
    if (has(tokens)) move_on(&s->tokens_ns, tokens, least(reserve.tokens, tokens), mono_ns);
    s->in_flight++;
    m->reserved += reserve.nano;
}

// What was reserved of the tokens becomes what was used; no debt lasts longer than an hour.
static void settle_tokens(Subject *s, const Limits *limits, int64_t reserved, int64_t used) {
    enum { MINUTES = 60 };
    int64_t tokens = limits->tokens_per_minute;
    if (!has(tokens)) return;
    s->tokens_ns += (least(used, MINUTES * tokens) - least(reserved, tokens)) * interval_ns(tokens);
}

// When a window lets it pass, if nobody else comes; 0: not a window's refusal.
static int64_t free_in_ms(const Subject *s, const Limits *limits, LimitKind k, LimitUse reserve,
                          int64_t mono_ns) {
    int64_t tokens = limits->tokens_per_minute, ns = 0;
    if (k != LIMIT_REQUESTS && k != LIMIT_TOKENS) return 0;
    if (k == LIMIT_REQUESTS) ns = fits_in(limits->requests_per_minute, s->tat_ns, 1, mono_ns);
    else ns = fits_in(tokens, s->tokens_ns, least(reserve.tokens, tokens), mono_ns);
    return ns <= 0 ? 1 : (ns + 999999) / 1000000;
}

// ---- all subjects of one request
typedef struct Held {
    Shard *shards[LIMIT_SUBJECTS_MAX]; // locked, each once
    size_t shards_n, n;
    Subject *at[LIMIT_SUBJECTS_MAX];
} Held;

// Shards are locked in their order, so that no two calls wait for each other.
static void lock_shards(Limiter *l, const uint64_t *hashes, size_t n, Held *h) {
    for (size_t from = 0;;) {
        size_t next = SHARDS;
        for (size_t i = 0; i < n; i++)
            if (hashes[i] % SHARDS >= from && hashes[i] % SHARDS < next) next = hashes[i] % SHARDS;
        if (next == SHARDS) return;
        pthread_mutex_lock(&l->shards[next].lock);
        h->shards[h->shards_n++] = &l->shards[next];
        from = next + 1;
    }
}

static void hold(Limiter *l, const LimitSubject *of, size_t n, int64_t day, Held *h) {
    uint64_t hashes[LIMIT_SUBJECTS_MAX];
    assert(n && n <= LIMIT_SUBJECTS_MAX);
    h->shards_n = 0, h->n = n;
    for (size_t i = 0; i < n; i++) hashes[i] = str_hash(of[i].id);
    lock_shards(l, hashes, n, h);
    for (size_t i = 0; i < n; i++) {
        h->at[i] = subject(l, &l->shards[hashes[i] % SHARDS], of[i].id, hashes[i], day);
        h->at[i]->pins++;
    }
}

static void let_go(Held *h) {
    for (size_t i = 0; i < h->n; i++) h->at[i]->pins--;
    for (size_t i = h->shards_n; i--;) pthread_mutex_unlock(&h->shards[i]->lock);
}

static void tighter(LimitState *than, const LimitState *s) {
    if (s->limit && (!than->limit || s->remaining < than->remaining)) *than = *s;
}

static LimitAnswer look_all(const Held *h, const LimitSubject *of, int64_t now_ms,
                            int64_t mono_ns) {
    LimitAnswer all = look(h->at[0], of[0].limits, now_ms, mono_ns);
    for (size_t i = 1; i < h->n; i++) {
        LimitAnswer a = look(h->at[i], of[i].limits, now_ms, mono_ns);
        tighter(&all.requests, &a.requests), tighter(&all.tokens, &a.tokens);
        tighter(&all.concurrency, &a.concurrency), tighter(&all.money, &a.money);
    }
    return all;
}

LimitAnswer limiter_admit(Limiter *l, const LimitSubject *of, size_t n, LimitUse reserve,
                          int64_t now_ms, int64_t mono_ns) {
    assert(reserve.nano >= 0 && reserve.tokens >= 0);
    Held h;
    LimitKind k = LIMIT_NONE;
    size_t by = 0;
    int64_t day = time_day(now_ms);
    hold(l, of, n, day, &h);
    for (size_t i = 0; i < n && !k; i++)
        k = refuse(h.at[i], money_of(h.at[i], day), of[i].limits, reserve, mono_ns), by = i;
    for (size_t i = 0; i < n && !k; i++)
        admit(h.at[i], money_of(h.at[i], day), of[i].limits, reserve, mono_ns);
    LimitAnswer a =
        k ? look(h.at[by], of[by].limits, now_ms, mono_ns) : look_all(&h, of, now_ms, mono_ns);
    a.refused = k, a.by = by, a.at_ms = now_ms;
    a.retry_after_ms = free_in_ms(h.at[by], of[by].limits, k, reserve, mono_ns);
    // What is reserved of the day may be given back before midnight; more than a day's never fits.
    bool waits = k == LIMIT_MONEY && !money_of(h.at[by], day)->reserved;
    if (waits && reserve.nano <= a.money.limit) a.retry_after_ms = a.money.reset_ms;
    let_go(&h);
    return a;
}

void limiter_settle(Limiter *l, const LimitSubject *of, size_t n, LimitUse reserved, LimitUse used,
                    int64_t admitted_ms) {
    Held h;
    hold(l, of, n, time_day(admitted_ms), &h);
    for (size_t i = 0; i < n; i++) {
        Subject *s = h.at[i];
        assert(s->in_flight > 0);
        s->in_flight--;
        Money *m = money_find(s, time_day(admitted_ms)); // NULL: nobody asks for that day any more
        // A day that was left for two others and came back begins anew: without that reservation.
        if (m && m->reserved >= reserved.nano) m->reserved -= reserved.nano;
        if (m) m->spent += used.nano;
        settle_tokens(s, of[i].limits, reserved.tokens, used.tokens);
    }
    let_go(&h);
}

// Whether each has so much left on that day; else *by.
static bool all_fit(const Held *h, const LimitSubject *of, int64_t day, int64_t nano, size_t *by) {
    for (size_t i = 0; i < h->n; i++) {
        const Money *m = money_find(h->at[i], day); // NULL: nobody asks for that day any more
        assert(h->at[i]->in_flight > 0);
        if (!m || !has(of[i].limits->money_per_day)
            || m->spent + m->reserved + nano <= of[i].limits->money_per_day)
            continue;
        if (by) *by = i;
        return false;
    }
    return true;
}

bool limiter_again(Limiter *l, const LimitSubject *of, size_t n, LimitUse used, int64_t admitted_ms,
                   size_t *out_by) {
    assert(used.nano >= 0 && used.tokens >= 0);
    Held h;
    int64_t day = time_day(admitted_ms);
    hold(l, of, n, day, &h);
    bool fits = all_fit(&h, of, day, used.nano, out_by);
    for (size_t i = 0; i < n && fits; i++) {
        Money *m = money_find(h.at[i], day);
        if (m) m->spent += used.nano;
        settle_tokens(h.at[i], of[i].limits, 0, used.tokens);
    }
    let_go(&h);
    return fits;
}

bool limiter_more(Limiter *l, const LimitSubject *of, size_t n, int64_t more_nano,
                  int64_t admitted_ms, size_t *out_by) {
    assert(more_nano >= 0);
    Held h;
    int64_t day = time_day(admitted_ms);
    hold(l, of, n, day, &h);
    bool fits = all_fit(&h, of, day, more_nano, out_by);
    for (size_t i = 0; i < n && fits; i++) {
        Money *m = money_find(h.at[i], day);
        if (m) m->reserved += more_nano;
    }
    let_go(&h);
    return fits;
}

void limiter_spent(Limiter *l, str id, int64_t day, int64_t nano) {
    uint64_t hash;
    Shard *sh = shard_lock(l, id, &hash);
    Subject *s = subject(l, sh, id, hash, day);
    money_of(s, day)->spent += nano;
    pthread_mutex_unlock(&sh->lock);
}

LimitAnswer limiter_look(Limiter *l, str id, const Limits *limits, int64_t now_ms,
                         int64_t mono_ns) {
    uint64_t hash;
    Shard *sh = shard_lock(l, id, &hash);
    Subject *s = subject(l, sh, id, hash, time_day(now_ms));
    LimitAnswer a = look(s, limits, now_ms, mono_ns);
    pthread_mutex_unlock(&sh->lock);
    return a;
}
