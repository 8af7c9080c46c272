// SPDX-License-Identifier: Apache-2.0
// limiter.c - see limiter.h. Subjects live in 64 shards, each a small hash table under its own
// lock. GCRA keeps one number a subject: the theoretical arrival time (TAT) of the next conforming
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
    int64_t tat_ns, in_flight;
    Money newest, other; // other: of an earlier day
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
    static const char *const names[] = { "none", "requests_per_minute", "concurrency",
                                         "money_per_day" };
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
        if (s->in_flight || counts(&s->newest, today) || counts(&s->other, today)) continue;
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

static LimitAnswer look(Subject *s, const Limits *limits, int64_t now_ms, int64_t mono_ns) {
    LimitAnswer a = { 0 };
    const Money *m = money_of(s, time_day(now_ms));
    if (has(limits->requests_per_minute)) {
        int64_t interval = MINUTE_NS / limits->requests_per_minute,
                ahead = clamp0(s->tat_ns - mono_ns);
        int64_t used = interval ? (ahead + interval - 1) / interval : 0;
        a.requests = (LimitState){ limits->requests_per_minute,
                                   clamp0(limits->requests_per_minute - used), ahead / 1000000 };
    }
    if (has(limits->concurrency))
        a.concurrency =
            (LimitState){ limits->concurrency, clamp0(limits->concurrency - s->in_flight), 0 };
    if (has(limits->money_per_day))
        a.money =
            (LimitState){ limits->money_per_day, money_left(m, limits), DAY_MS - now_ms % DAY_MS };
    return a;
}

static LimitKind refuse(const Subject *s, const Money *m, const Limits *limits, int64_t reserve,
                        int64_t mono_ns) {
    if (has(limits->requests_per_minute)) {
        int64_t interval = MINUTE_NS / limits->requests_per_minute;
        int64_t tat = s->tat_ns > mono_ns ? s->tat_ns : mono_ns;
        if (tat + interval - mono_ns > interval * limits->requests_per_minute)
            return LIMIT_REQUESTS;
    }
    if (has(limits->concurrency) && s->in_flight >= limits->concurrency) return LIMIT_CONCURRENCY;
    bool dear =
        has(limits->money_per_day) && m->spent + m->reserved + reserve > limits->money_per_day;
    return dear && reserve ? LIMIT_MONEY : LIMIT_NONE;
}

static void admit(Subject *s, Money *m, const Limits *limits, int64_t reserve, int64_t mono_ns) {
    if (has(limits->requests_per_minute))
        s->tat_ns =
            (s->tat_ns > mono_ns ? s->tat_ns : mono_ns) + MINUTE_NS / limits->requests_per_minute;
    s->in_flight++;
    m->reserved += reserve;
}

// reserved: of the day, and a settlement may free some before midnight.
static int64_t retry_after(const Subject *s, bool reserved, const Limits *limits, LimitKind k,
                           const LimitAnswer *a, int64_t mono_ns) {
    if (k == LIMIT_MONEY) return reserved ? 0 : a->money.reset_ms;
    if (k != LIMIT_REQUESTS) return 0;
    int64_t interval = MINUTE_NS / limits->requests_per_minute;
    int64_t ns = s->tat_ns + interval - interval * limits->requests_per_minute - mono_ns;
    return ns <= 0 ? 1 : (ns + 999999) / 1000000;
}

LimitAnswer limiter_admit(Limiter *l, str id, const Limits *limits, int64_t reserve_nano,
                          int64_t now_ms, int64_t mono_ns) {
    assert(reserve_nano >= 0);
    uint64_t hash;
    Shard *sh = shard_lock(l, id, &hash);
    Subject *s = subject(l, sh, id, hash, time_day(now_ms));
    Money *m = money_of(s, time_day(now_ms));
    LimitKind k = refuse(s, m, limits, reserve_nano, mono_ns);
    if (!k) admit(s, m, limits, reserve_nano, mono_ns);
    LimitAnswer a = look(s, limits, now_ms, mono_ns);
    a.refused = k;
    a.at_ms = now_ms;
    if (k) a.retry_after_ms = retry_after(s, m->reserved > 0, limits, k, &a, mono_ns);
    pthread_mutex_unlock(&sh->lock);
    return a;
}

void limiter_settle(Limiter *l, str id, int64_t reserved_nano, int64_t cost_nano,
                    int64_t admitted_ms) {
    uint64_t hash;
    Shard *sh = shard_lock(l, id, &hash);
    Subject *s = subject(l, sh, id, hash, time_day(admitted_ms));
    assert(s->in_flight > 0);
    s->in_flight--;
    Money *m = money_find(s, time_day(admitted_ms)); // NULL: nobody asks for that day any more
    // A day that was left for two others and came back begins anew: without that reservation.
    if (m && m->reserved >= reserved_nano) m->reserved -= reserved_nano;
    if (m) m->spent += cost_nano;
    pthread_mutex_unlock(&sh->lock);
}

bool limiter_again(Limiter *l, str id, const Limits *limits, int64_t reserved_nano,
                   int64_t cost_nano, int64_t admitted_ms) {
    assert(reserved_nano >= 0 && cost_nano >= 0);
    uint64_t hash;
    Shard *sh = shard_lock(l, id, &hash);
    Subject *s = subject(l, sh, id, hash, time_day(admitted_ms));
    Money *m = money_find(s, time_day(admitted_ms));
    assert(s->in_flight > 0);
    bool fits = !m || !has(limits->money_per_day)
                || m->spent + m->reserved + cost_nano <= limits->money_per_day;
    if (fits && m) m->spent += cost_nano;
    pthread_mutex_unlock(&sh->lock);
    return fits;
}

bool limiter_more(Limiter *l, str id, const Limits *limits, int64_t more_nano,
                  int64_t admitted_ms) {
    assert(more_nano >= 0);
    uint64_t hash;
    Shard *sh = shard_lock(l, id, &hash);
    Subject *s = subject(l, sh, id, hash, time_day(admitted_ms));
    Money *m = money_find(s, time_day(admitted_ms)); // NULL: nobody asks for that day any more
    assert(s->in_flight > 0);
    bool fits = !m || !has(limits->money_per_day)
                || m->spent + m->reserved + more_nano <= limits->money_per_day;
    if (fits && m) m->reserved += more_nano;
    pthread_mutex_unlock(&sh->lock);
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
