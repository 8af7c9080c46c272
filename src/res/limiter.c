// SPDX-License-Identifier: Apache-2.0
// limiter.c - see limiter.h. Subjects live in 64 shards, each a small hash table under its own
// lock. GCRA keeps one number a window: the theoretical arrival time (TAT) of the next conforming
// request; a limit of n a minute has an emission interval of 60 s / n and lets a burst of n through
// at once. Money of a period = spent + reserved; a reservation is taken back in the period it was
// made in. Two days and two months are kept: a clock that goes back over midnight, and forth again,
// finds each as it was.
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
    int64_t number; // of the period: time_day, time_month, 0
    Sum spent, reserved;
} Money;
typedef struct Purse {
    Money newest, other; // other: of an earlier period
} Purse;
typedef struct Subject {
    struct Subject *next, *newer, *older; // bucket chain; order of use in the shard
    int64_t tat_ns, tokens_ns, in_flight; // theoretical arrival times: of requests, of tokens
    int pins;                             // calls that are at it
    Purse purses[PERIOD__COUNT];
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
    static const char *const names[] = { "none",        "requests_per_minute", "tokens_per_minute",
                                         "concurrency", "money_per_day",       "money_per_month",
                                         "money_total" };
    assert((unsigned)k < countof(names));
    return names[k];
}

int64_t limit_of_money(const Limits *l, Period p) {
    return p == PERIOD_DAY     ? l->money_per_day
           : p == PERIOD_MONTH ? l->money_per_month
                               : l->money_total;
}

static int64_t number_of(Period p, int64_t ms) {
    return p == PERIOD_DAY ? time_day(ms) : p == PERIOD_MONTH ? time_month(ms) : 0;
}

static int64_t ends_in_ms(Period p, int64_t ms) { // 0: never
    if (p == PERIOD_DAY) return DAY_MS - ms % DAY_MS;
    return p == PERIOD_MONTH ? time_month_begin(time_month(ms) + 1) - ms : 0;
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

// The one that was idle for longest. A subject with requests under way, or with money that counts
// still, is never forgotten.
static bool counts(const Money *m, int64_t now) {
    return m->reserved || (m->spent && m->number >= now);
}
static bool is_needed(const Subject *s, int64_t now_ms) {
    bool needed = s->in_flight || s->pins;
    for (int p = 0; p < PERIOD__COUNT; p++) {
        int64_t now = number_of((Period)p, now_ms);
        needed |= counts(&s->purses[p].newest, now) || counts(&s->purses[p].other, now);
    }
    return needed;
}
static void evict(Shard *sh, int64_t now_ms) {
    for (Subject *s = sh->oldest; s; s = s->newer) {
        if (is_needed(s, now_ms)) continue;
        Subject **link = &sh->buckets[str_hash(str_n(s->id, s->id_n)) / SHARDS % SHARD_BUCKETS];
        while (*link != s) link = &(*link)->next;
        *link = s->next;
        use_unlink(sh, s);
        mem_free(s);
        sh->n--;
        return;
    }
}

static Subject *subject(Limiter *l, Shard *sh, str id, uint64_t hash, int64_t now_ms) {
    Subject **bucket = &sh->buckets[hash / SHARDS % SHARD_BUCKETS];
    for (Subject *s = *bucket; s; s = s->next) {
        if (!str_eq(str_n(s->id, s->id_n), id)) continue;
        use_unlink(sh, s), use_first(sh, s);
        return s;
    }
    if (sh->n >= l->shard_max) evict(sh, now_ms);
    Subject *s = mem_new(sizeof *s + id.n);
    memcpy(s->id, id.p, id.n);
    s->id_n = id.n, s->next = *bucket;
    for (int p = 0; p < PERIOD__COUNT; p++) {
        int64_t now = number_of((Period)p, now_ms);
        s->purses[p] = (Purse){ { .number = now }, { .number = now - 1 } };
    }
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

// NULL: nobody asks for that period any more.
static Money *money_find(Subject *s, Period p, int64_t ms) {
    Purse *of = &s->purses[p];
    int64_t number = number_of(p, ms);
    return number == of->newest.number  ? &of->newest
           : number == of->other.number ? &of->other
                                        : NULL;
}

static Money *money_of(Subject *s, Period p, int64_t ms) {
    Money *m = money_find(s, p, ms);
    Purse *of = &s->purses[p];
    if (m) return m;
    int64_t number = number_of(p, ms);
    m = number > of->newest.number ? &of->newest : &of->other;
    if (m == &of->newest) of->other = of->newest;
    *m = (Money){ .number = number };
    return m;
}

static bool has(int64_t limit) { return limit > 0; } // UNSET_INT and 0: no limit

static int64_t clamp0(int64_t n) { return n > 0 ? n : 0; }

static int64_t money_left(const Money *m, int64_t limit) {
    Sum left = limit - m->spent - m->reserved;
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
    if (has(limits->requests_per_minute))
        a.requests = window(limits->requests_per_minute, s->tat_ns, mono_ns);
    if (has(limits->tokens_per_minute))
        a.tokens = window(limits->tokens_per_minute, s->tokens_ns, mono_ns);
    if (has(limits->concurrency))
        a.concurrency =
            (LimitState){ limits->concurrency, clamp0(limits->concurrency - s->in_flight), 0 };
    for (int i = 0; i < PERIOD__COUNT; i++) {
        Period p = (Period)i;
        int64_t limit = limit_of_money(limits, p);
        if (has(limit))
            a.money[p] = (LimitState){ limit, money_left(money_of(s, p, now_ms), limit),
                                       ends_in_ms(p, now_ms) };
    }
    return a;
}

// Which period has not so much left; LIMIT_NONE: each has, or nothing is asked of it.
static LimitKind too_dear(Subject *s, const Limits *limits, int64_t nano, int64_t ms) {
    for (int i = 0; i < PERIOD__COUNT && nano; i++) {
        const Money *m = money_find(s, (Period)i, ms);
        int64_t limit = limit_of_money(limits, (Period)i);
        if (m && has(limit) && m->spent + m->reserved + nano > limit) return limit_money((Period)i);
    }
    return LIMIT_NONE;
}

static LimitKind refuse(Subject *s, const Limits *limits, LimitUse reserve, int64_t now_ms,
                        int64_t mono_ns) {
    int64_t requests = limits->requests_per_minute, tokens = limits->tokens_per_minute;
    if (has(requests) && fits_in(requests, s->tat_ns, 1, mono_ns) > 0) return LIMIT_REQUESTS;
    if (has(tokens) && fits_in(tokens, s->tokens_ns, least(reserve.tokens, tokens), mono_ns) > 0)
        return LIMIT_TOKENS;
    if (has(limits->concurrency) && s->in_flight >= limits->concurrency) return LIMIT_CONCURRENCY;
    for (int i = 0; i < PERIOD__COUNT; i++) money_of(s, (Period)i, now_ms); // it is there
    return too_dear(s, limits, reserve.nano, now_ms);
}

static void admit(Subject *s, const Limits *limits, LimitUse reserve, int64_t now_ms,
                  int64_t mono_ns) {
    int64_t requests = limits->requests_per_minute, tokens = limits->tokens_per_minute;
    if (has(requests)) move_on(&s->tat_ns, requests, 1, mono_ns);
    if (has(tokens)) move_on(&s->tokens_ns, tokens, least(reserve.tokens, tokens), mono_ns);
    s->in_flight++;
    for (int i = 0; i < PERIOD__COUNT; i++)
        money_of(s, (Period)i, now_ms)->reserved += reserve.nano;
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

static void hold(Limiter *l, const LimitSubject *of, size_t n, int64_t now_ms, Held *h) {
    uint64_t hashes[LIMIT_SUBJECTS_MAX];
    assert(n && n <= LIMIT_SUBJECTS_MAX);
    h->shards_n = 0, h->n = n;
    for (size_t i = 0; i < n; i++) hashes[i] = str_hash(of[i].id);
    lock_shards(l, hashes, n, h);
    for (size_t i = 0; i < n; i++) {
        h->at[i] = subject(l, &l->shards[hashes[i] % SHARDS], of[i].id, hashes[i], now_ms);
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
        tighter(&all.concurrency, &a.concurrency);
        for (int p = 0; p < PERIOD__COUNT; p++) tighter(&all.money[p], &a.money[p]);
    }
    return all;
}

// When money would admit it, should nobody give anything back; 0: nobody knows.
static int64_t money_free_in_ms(Subject *s, const LimitAnswer *a, int64_t nano, int64_t now_ms) {
    Period p = (Period)(a->refused - LIMIT_MONEY);
    const LimitState *state = &a->money[p];
    // What is reserved may be given back before; more than the whole limit never fits.
    bool waits = !money_of(s, p, now_ms)->reserved && nano <= state->limit;
    return waits ? state->reset_ms : 0;
}

LimitAnswer limiter_admit(Limiter *l, const LimitSubject *of, size_t n, LimitUse reserve,
                          int64_t now_ms, int64_t mono_ns) {
    assert(reserve.nano >= 0 && reserve.tokens >= 0);
    Held h;
    LimitKind k = LIMIT_NONE;
    size_t by = 0;
    hold(l, of, n, now_ms, &h);
    for (size_t i = 0; i < n && !k; i++)
        k = refuse(h.at[i], of[i].limits, reserve, now_ms, mono_ns), by = i;
    for (size_t i = 0; i < n && !k; i++) admit(h.at[i], of[i].limits, reserve, now_ms, mono_ns);
    LimitAnswer a =
        k ? look(h.at[by], of[by].limits, now_ms, mono_ns) : look_all(&h, of, now_ms, mono_ns);
    a.refused = k, a.by = by, a.at_ms = now_ms;
    a.retry_after_ms = k >= LIMIT_MONEY ? money_free_in_ms(h.at[by], &a, reserve.nano, now_ms)
                                        : free_in_ms(h.at[by], of[by].limits, k, reserve, mono_ns);
    let_go(&h);
    return a;
}

void limiter_settle(Limiter *l, const LimitSubject *of, size_t n, LimitUse reserved, LimitUse used,
                    int64_t admitted_ms) {
    Held h;
    hold(l, of, n, admitted_ms, &h);
    for (size_t i = 0; i < n; i++) {
        Subject *s = h.at[i];
        assert(s->in_flight > 0);
        s->in_flight--;
        for (int p = 0; p < PERIOD__COUNT; p++) {
            Money *m = money_find(s, (Period)p, admitted_ms);
            // A period that was left for two others and came back begins anew: without that
            // reservation.
            if (m && m->reserved >= reserved.nano) m->reserved -= reserved.nano;
            if (m) m->spent += used.nano;
        }
        settle_tokens(s, of[i].limits, reserved.tokens, used.tokens);
    }
    let_go(&h);
}

// Which of them has not so much left; LIMIT_NONE: each has.
static LimitKind all_fit(const Held *h, const LimitSubject *of, int64_t ms, int64_t nano,
                         size_t *by) {
    LimitKind k = LIMIT_NONE;
    for (size_t i = 0; i < h->n && !k; i++) {
        assert(h->at[i]->in_flight > 0);
        k = too_dear(h->at[i], of[i].limits, nano, ms);
        if (k && by) *by = i;
    }
    return k;
}

LimitKind limiter_again(Limiter *l, const LimitSubject *of, size_t n, LimitUse used,
                        int64_t admitted_ms, size_t *out_by) {
    assert(used.nano >= 0 && used.tokens >= 0);
    Held h;
    hold(l, of, n, admitted_ms, &h);
    LimitKind k = all_fit(&h, of, admitted_ms, used.nano, out_by);
    for (size_t i = 0; i < n && !k; i++) {
        for (int p = 0; p < PERIOD__COUNT; p++) {
            Money *m = money_find(h.at[i], (Period)p, admitted_ms);
            if (m) m->spent += used.nano;
        }
        settle_tokens(h.at[i], of[i].limits, 0, used.tokens);
    }
    let_go(&h);
    return k;
}

LimitKind limiter_more(Limiter *l, const LimitSubject *of, size_t n, int64_t more_nano,
                       int64_t admitted_ms, size_t *out_by) {
    assert(more_nano >= 0);
    Held h;
    hold(l, of, n, admitted_ms, &h);
    LimitKind k = all_fit(&h, of, admitted_ms, more_nano, out_by);
    for (size_t i = 0; i < n && !k; i++)
        for (int p = 0; p < PERIOD__COUNT; p++) {
            Money *m = money_find(h.at[i], (Period)p, admitted_ms);
            if (m) m->reserved += more_nano;
        }
    let_go(&h);
    return k;
}

void limiter_spent(Limiter *l, str id, Period p, int64_t now_ms, int64_t nano) {
    uint64_t hash;
    Shard *sh = shard_lock(l, id, &hash);
    Subject *s = subject(l, sh, id, hash, now_ms);
    money_of(s, p, now_ms)->spent += nano;
    pthread_mutex_unlock(&sh->lock);
}

LimitAnswer limiter_look(Limiter *l, str id, const Limits *limits, int64_t now_ms,
                         int64_t mono_ns) {
    uint64_t hash;
    Shard *sh = shard_lock(l, id, &hash);
    Subject *s = subject(l, sh, id, hash, now_ms);
    LimitAnswer a = look(s, limits, now_ms, mono_ns);
    pthread_mutex_unlock(&sh->lock);
    return a;
}
