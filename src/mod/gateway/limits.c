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
        for (int p = 0; p < PERIOD__COUNT; p++)
            if (limit_of_money(f->subjects[i].limits, (Period)p) > 0) return true;
    return false;
}

LimitUse limits_reserved(const Flow *f) {
    return (LimitUse){ f->r.reserved_nano, f->reserved_tokens };
}

LimitUse limits_used(const Flow *f) {
    return (LimitUse){ f->r.cost_nano, f->r.prompt_tokens + f->r.completion_tokens };
}

static str name_of(const Flow *f, size_t by) {
    if (by == BY_KEY) return f->key->name;
    const PlaceEntry *place = access_place(f->snapshot, f->subjects[by].id);
    return place ? place->name : S("");
}

// Money is refused when the request may cost more than is left: less may do, waiting may not.
static err too_dear(Flow *f, size_t by, LimitKind kind, const LimitState *s) {
    static const char *const who[][3] = { { "API key", "project", "organisation" },
                                          { "API 密钥", "项目", "组织" } };
    Ctx *c = f->c;
    bool zh = c->lang && !strcmp(c->lang, "zh");
    return fail(c, ERR_LIMITED, R_BUDGET, "who",
                say(c, "%s " STR_FMT, who[zh][by], STR_ARG(name_of(f, by))), "limit",
                limit_name(kind), "value", money_format(c->mem, s->limit).p, "left",
                money_format(c->mem, s->remaining).p, "most",
                money_format(c->mem, f->r.reserved_nano).p);
}

// When the next one may come: a slot frees when a request ends, which nobody can tell.
static const char *frees(Ctx *c, LimitKind kind, int64_t ms) {
    bool zh = c->lang && !strcmp(c->lang, "zh");
    if (kind == LIMIT_CONCURRENCY)
        return zh ? "其中一个请求结束后恢复" : "it frees when one of its requests ends";
    if (ms < 1000) return say(c, zh ? "%lld 毫秒后恢复" : "it frees in %lld ms", (long long)ms);
    return say(c, zh ? "%.1f 秒后恢复" : "it frees in %.1f s", (double)ms / 1000);
}

err limits_refused(Flow *f, size_t by, LimitKind kind, const LimitState *s, int64_t retry_ms) {
    static const Reason *const why[] = { &R_LIMITED, &R_PROJECT_LIMITED, &R_ORG_LIMITED };
    static const char *const who[] = { "key", "project", "org" };
    Ctx *c = f->c;
    err e = kind >= LIMIT_MONEY
                ? too_dear(f, by, kind, s)
                : fail(c, ERR_LIMITED, *why[by], who[by], say_str(c, name_of(f, by)), "limit",
                       limit_name(kind), "value", say(c, "%lld", (long long)s->limit), "ms",
                       say(c, "%lld", (long long)retry_ms), "frees", frees(c, kind, retry_ms));
    c->failure.retry_after_ms = retry_ms;
    return e;
}
