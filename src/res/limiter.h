// SPDX-License-Identifier: Apache-2.0
// limiter.h - one service of limits for gateway, sign-in and jobs, on one node: requests and tokens
// a minute (GCRA: ITU-T I.371, ATM Forum TM 4.1), concurrency, and money per day, per month (UTC)
// and in all, with a reservation before the call and settlement after. State is in memory, keyed by
// a subject's id; money spent is recovered from the usage ledger at start and kept exact by the
// journal. Threads: any; each call is one short lock of its subjects.
#ifndef LATHE_RES_LIMITER_H
#define LATHE_RES_LIMITER_H
#include "base/ctx.h"

typedef struct Limits { // UNSET_INT (INT64_MIN) or 0: no limit
    int64_t requests_per_minute, tokens_per_minute, concurrency;
    int64_t money_per_day, money_per_month, money_total; // nano-units
} Limits;
typedef enum { PERIOD_DAY, PERIOD_MONTH, PERIOD_TOTAL, PERIOD__COUNT } Period;
int64_t limit_of_money(const Limits *l, Period p);
typedef enum {
    LIMIT_NONE,
    LIMIT_REQUESTS,
    LIMIT_TOKENS,
    LIMIT_CONCURRENCY,
    LIMIT_MONEY // and the next ones: of each period
} LimitKind;
static inline LimitKind limit_money(Period p) { return (LimitKind)((int)LIMIT_MONEY + (int)p); }
const char *limit_name(LimitKind k); // "requests_per_minute" …
typedef struct LimitState {
    int64_t limit, remaining, reset_ms;
} LimitState;
typedef struct LimitAnswer {
    LimitKind refused;      // LIMIT_NONE: admitted
    size_t by;              // which subject refused it
    int64_t retry_after_ms; // when it would be admitted at the earliest; 0: unknown
    int64_t at_ms;          // whose day and month it counts for: now_ms's
    LimitState requests, tokens, concurrency, money[PERIOD__COUNT]; // for x-ratelimit-* headers
} LimitAnswer;
// What a request may use at most, or has used. Of a limit of tokens no more is reserved than it
// allows in a minute, and what was used beyond that is made up for by those who come next.
typedef struct LimitUse {
    int64_t nano, tokens;
} LimitUse;

typedef struct Limiter Limiter;
// Who is limited by one request: a key, its project, its organisation. All admit it, or none does.
typedef struct LimitSubject {
    str id;
    const Limits *limits;
} LimitSubject;
enum { LIMIT_SUBJECTS_MAX = 4 };
Limiter *limiter_new(size_t subjects_max); // the least recently used idle subject goes first
void limiter_free(Limiter *l);
// Admits one request that may use at most `reserve`, or refuses without a trace. now_ms: wall
// clock; mono_ns: monotonic. The states are those of whoever has the least left.
LimitAnswer limiter_admit(Limiter *l, const LimitSubject *of, size_t n, LimitUse reserve,
                          int64_t now_ms, int64_t mono_ns);
// The request is over: gives its slots back, turns the reservation of then into what it used.
// admitted_ms, here and below: the answer's at_ms.
void limiter_settle(Limiter *l, const LimitSubject *of, size_t n, LimitUse reserved, LimitUse used,
                    int64_t admitted_ms);
// The request is tried once more: what the last attempt used is spent, and as much as before stays
// reserved for the next. Else which limit does not allow it, and nothing changed.
LimitKind limiter_again(Limiter *l, const LimitSubject *of, size_t n, LimitUse used,
                        int64_t admitted_ms, size_t *out_by);
// More is reserved for a request under way; the same. out_by, here and above (may be NULL): whose.
LimitKind limiter_more(Limiter *l, const LimitSubject *of, size_t n, int64_t more_nano,
                       int64_t admitted_ms, size_t *out_by);
// Recovery: adds what the ledger knows of the period that now_ms is in.
void limiter_spent(Limiter *l, str subject, Period p, int64_t now_ms, int64_t nano);
LimitAnswer limiter_look(Limiter *l, str subject, const Limits *limits, int64_t now_ms,
                         int64_t mono_ns); // for display
#endif
