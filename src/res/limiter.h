// SPDX-License-Identifier: Apache-2.0
// limiter.h - one service of limits for gateway, sign-in and jobs, on one node: requests per minute
// (GCRA: ITU-T I.371, ATM Forum TM 4.1), concurrency, and money per day (UTC) with a reservation
// before the call and settlement after. State is in memory, keyed by a subject's id; money spent is
// recovered from the usage ledger at start and kept exact by the journal. Threads: any; each call
// is one short lock.
#ifndef LATHE_RES_LIMITER_H
#define LATHE_RES_LIMITER_H
#include "base/ctx.h"

typedef struct Limits {                                      // UNSET_INT (INT64_MIN) or 0: no limit
    int64_t requests_per_minute, concurrency, money_per_day; // money: nano-units
} Limits;
typedef enum { LIMIT_NONE, LIMIT_REQUESTS, LIMIT_CONCURRENCY, LIMIT_MONEY } LimitKind;
const char *limit_name(LimitKind k); // "requests_per_minute" …
typedef struct LimitState {
    int64_t limit, remaining, reset_ms;
} LimitState;
typedef struct LimitAnswer {
    LimitKind refused;      // LIMIT_NONE: admitted
    int64_t retry_after_ms; // when it would be admitted at the earliest; 0: unknown
    int64_t at_ms;          // whose day it counts for: now_ms's
    LimitState requests, concurrency, money; // for x-ratelimit-* headers
} LimitAnswer;

typedef struct Limiter Limiter;
Limiter *limiter_new(size_t subjects_max); // the least recently used idle subject goes first
void limiter_free(Limiter *l);
// Admits one request that may cost at most reserve_nano, or refuses without a trace. now_ms: wall
// clock; mono_ns: monotonic.
LimitAnswer limiter_admit(Limiter *l, str subject, const Limits *limits, int64_t reserve_nano,
                          int64_t now_ms, int64_t mono_ns);
// The request is over: gives its slot back, turns the reservation of that day into what it cost.
// admitted_ms, here and below: the answer's at_ms.
void limiter_settle(Limiter *l, str subject, int64_t reserved_nano, int64_t cost_nano,
                    int64_t admitted_ms);
// The request is tried once more: what the last attempt cost is spent, and as much as before stays
// reserved for the next. False, and nothing changed: the money of that day does not allow it.
bool limiter_again(Limiter *l, str subject, const Limits *limits, int64_t reserved_nano,
                   int64_t cost_nano, int64_t admitted_ms);
// More is reserved for a request under way. False, and nothing changed: the money of that day does
// not allow it.
bool limiter_more(Limiter *l, str subject, const Limits *limits, int64_t more_nano,
                  int64_t admitted_ms);
void limiter_spent(Limiter *l, str subject, int64_t day,
                   int64_t nano); // recovery: adds what the ledger knows of that day (time_day)
LimitAnswer limiter_look(Limiter *l, str subject, const Limits *limits, int64_t now_ms,
                         int64_t mono_ns); // for display
#endif
