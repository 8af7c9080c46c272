// SPDX-License-Identifier: Apache-2.0
// limits.c - who limits a request: its key, the project it acts in, and that project's
// organisation. All admit it, or none does (res/limiter.h); each of them holds the reservation, and
// is charged.
// Threads: the exchange's loop; limits_of and limits_refused also workers.
#include "mod/gateway/flow.h"
#include "base/time.h"
#include <assert.h>

enum { BY_KEY, BY_PROJECT, BY_ORG };

void limits_of(Flow *f) {
    const PlaceEntry *places[] = { access_place(f->snapshot, f->project),
                                   access_place(f->snapshot, f->c->org) };
    static const Limits none;
    f->subjects_n = 0;
    f->subjects[f->subjects_n++] = (LimitSubject){ f->key->id, &f->key->limits };
    for (size_t i = 0; i < countof(places); i++) {
        LimitSubject nobody = { S("nobody"), &none }; // of the system's own key
        f->subjects[f->subjects_n++] =
            places[i] ? (LimitSubject){ places[i]->id, &places[i]->limits } : nobody;
    }
    assert(f->subjects_n <= LIMIT_SUBJECTS_MAX);
}

bool limits_have_money(const Flow *f) {
    for (size_t i = 0; i < f->subjects_n; i++)
        if (f->subjects[i].limits->money_per_day > 0) return true;
    return false;
}

LimitUse limits_reserved(const Flow *f) {
    return (LimitUse){ f->r.reserved_nano, f->reserved_tokens };
}

LimitUse limits_used(const Flow *f) {
    return (LimitUse){ f->r.cost_nano, f->r.prompt_tokens + f->r.completion_tokens };
}

err limits_refused(Flow *f, size_t by, LimitKind kind, int64_t limit, int64_t retry_ms) {
    Ctx *c = f->c;
    const char *value =
        kind == LIMIT_MONEY ? money_format(c->mem, limit).p : say(c, "%lld", (long long)limit);
    const char *ms = say(c, "%lld", (long long)retry_ms);
    const PlaceEntry *place = by == BY_KEY ? NULL : access_place(f->snapshot, f->subjects[by].id);
    err e;
    if (by == BY_KEY)
        e = fail(c, ERR_LIMITED, R_LIMITED, "key", say_str(c, f->key->name), "limit",
                 limit_name(kind), "value", value, "ms", ms);
    else if (by == BY_PROJECT)
        e = fail(c, ERR_LIMITED, R_PROJECT_LIMITED, "project", place ? say_str(c, place->name) : "",
                 "limit", limit_name(kind), "value", value, "ms", ms);
    else
        e = fail(c, ERR_LIMITED, R_ORG_LIMITED, "org", place ? say_str(c, place->name) : "",
                 "limit", limit_name(kind), "value", value, "ms", ms);
    c->failure.retry_after_ms = retry_ms;
    return e;
}
