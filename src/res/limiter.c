// SPDX-License-Identifier: Apache-2.0
// limiter.c - see limiter.h. Subjects live in 64 shards, each a small hash table under its own
// lock. GCRA keeps one number a subject: the theoretical arrival time (TAT) of the next conforming
// request; a limit of n a minute has an emission interval of 60 s / n and lets a burst of n through
// at once. Money of the day = spent + reserved; a reservation is taken back on the day it was made.
// Sums of money are wider than money: no number of dear requests at once makes one run over.
#include "res/limiter.h"
#include "base/time.h"
#include <assert.h>
#include <pthread.h>

enum { SHARDS = 64, SHARD_BUCKETS = 256 };
#define MINUTE_NS 60000000000LL
#define DAY_MS 86400000LL
typedef __int128 Sum;

typedef struct Subject {
    struct Subject *next, *newer, *older; // bucket chain; order of use in the shard
    int64_t tat_ns, in_flight, day;
    Sum spent, reserved, spent_before; // spent_before: of the day before, still settling
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
static void evict(Shard *sh, int64_t today) {
    for (Subject *s = sh->oldest; s; s = s->newer) {
        if (s->in_flight || s->reserved || (s->spent && s->day >= today)) continue;
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
    s->id_n = id.n, s->day = today, s->next = *bucket;
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

static void roll_day(Subject *s, int64_t day) {
    if (day <= s->day) return; // a clock that went back keeps today's sum
    s->spent_before = day == s->day + 1 ? s->spent : 0;
    s->day = day, s->spent = 0, s->reserved = 0;
}

static bool has(int64_t limit) { return limit > 0; } // UNSET_INT and 0: no limit

static int64_t clamp0(int64_t n) { return n > 0 ? n : 0; }

static int64_t money_left(const Subject *s, const Limits *limits) {
    Sum left = limits->money_per_day - s->spent - s->reserved;
    return left > 0 ? (int64_t)left : 0;
}

static LimitAnswer look(const Subject *s, const Limits *limits, int64_t now_ms, int64_t mono_ns) {
    LimitAnswer a = { 0 };
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
            (LimitState){ limits->money_per_day, money_left(s, limits), DAY_MS - now_ms % DAY_MS };
    return a;
}

static LimitKind refuse(const Subject *s, const Limits *limits, int64_t reserve, int64_t mono_ns) {
    if (has(limits->requests_per_minute)) {
        int64_t interval = MINUTE_NS / limits->requests_per_minute;
        int64_t tat = s->tat_ns > mono_ns ? s->tat_ns : mono_ns;
        if (tat + interval - mono_ns > interval * limits->requests_per_minute)
            return LIMIT_REQUESTS;
    }
    if (has(limits->concurrency) && s->in_flight >= limits->concurrency) return LIMIT_CONCURRENCY;
    bool dear =
        has(limits->money_per_day) && s->spent + s->reserved + reserve > limits->money_per_day;
    return dear && reserve ? LIMIT_MONEY : LIMIT_NONE;
}

static void admit(Subject *s, const Limits *limits, int64_t reserve, int64_t mono_ns) {
    if (has(limits->requests_per_minute))
        s->tat_ns =
            (s->tat_ns > mono_ns ? s->tat_ns : mono_ns) + MINUTE_NS / limits->requests_per_minute;
    s->in_flight++;
    s->reserved += reserve;
}

static int64_t retry_after(const Subject *s, const Limits *limits, LimitKind k,
                           const LimitAnswer *a, int64_t mono_ns) {
    if (k == LIMIT_MONEY)
        return s->reserved ? 0 : a->money.reset_ms; // a settlement may free some before midnight
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
    roll_day(s, time_day(now_ms));
    LimitKind k = refuse(s, limits, reserve_nano, mono_ns);
    if (!k) admit(s, limits, reserve_nano, mono_ns);
    LimitAnswer a = look(s, limits, now_ms, mono_ns);
    a.refused = k;
    a.at_ms = time_day(now_ms) < s->day ? s->day * DAY_MS : now_ms;
    if (k) a.retry_after_ms = retry_after(s, limits, k, &a, mono_ns);
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
    if (time_day(admitted_ms) >= s->day) s->reserved -= reserved_nano, s->spent += cost_nano;
    else if (time_day(admitted_ms) == s->day - 1) s->spent_before += cost_nano;
    assert(s->reserved >= 0);
    pthread_mutex_unlock(&sh->lock);
}

bool limiter_again(Limiter *l, str id, const Limits *limits, int64_t reserved_nano,
                   int64_t cost_nano, int64_t admitted_ms) {
    assert(reserved_nano >= 0 && cost_nano >= 0);
    uint64_t hash;
    Shard *sh = shard_lock(l, id, &hash);
    Subject *s = subject(l, sh, id, hash, time_day(admitted_ms));
    bool today = time_day(admitted_ms) >= s->day;
    assert(s->in_flight > 0 && (!today || s->reserved >= reserved_nano));
    bool fits = !today || !has(limits->money_per_day)
                || s->spent + s->reserved + cost_nano <= limits->money_per_day;
    if (fits && today) s->spent += cost_nano;
    else if (fits && time_day(admitted_ms) == s->day - 1) s->spent_before += cost_nano;
    pthread_mutex_unlock(&sh->lock);
    return fits;
}

void limiter_spent(Limiter *l, str id, int64_t day, int64_t nano) {
    uint64_t hash;
    Shard *sh = shard_lock(l, id, &hash);
    Subject *s = subject(l, sh, id, hash, day);
    roll_day(s, day);
    if (day == s->day) s->spent += nano;
    pthread_mutex_unlock(&sh->lock);
}

LimitAnswer limiter_look(Limiter *l, str id, const Limits *limits, int64_t now_ms,
                         int64_t mono_ns) {
    uint64_t hash;
    Shard *sh = shard_lock(l, id, &hash);
    Subject *s = subject(l, sh, id, hash, time_day(now_ms));
    roll_day(s, time_day(now_ms));
    LimitAnswer a = look(s, limits, now_ms, mono_ns);
    pthread_mutex_unlock(&sh->lock);
    return a;
}
