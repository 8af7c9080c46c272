// SPDX-License-Identifier: Apache-2.0
// stage_identify.c - whose key this is, which project it acts in, whether it may use models, and
// whether it goes round in circles.
// From the headers and the snapshot alone.
#include "mod/gateway/flow.h"

enum { HOPS_MAX = 4 };

// An attached engine may be a gateway, even this one: then a request would go round until there is
// nothing left to go round with. Each gateway adds one to `Lathe-Hops`.
static err check_hops(Flow *f) {
    str text = http_header(exchange_request(f->x), "lathe-hops");
    if (!str_to_i64(text, &f->hops) || f->hops < 0) f->hops = 0;
    if (f->hops < HOPS_MAX) return ERR_OK;
    return fail(f->c, ERR_UPSTREAM, R_LOOP, "hops", say(f->c, "%lld", (long long)f->hops));
}

static err identify(Flow *f) {
    Ctx *c = f->c;
    int64_t stale_ms = setting_int(&gateway_settings[GW_STALE]);
    if (stale_ms && snapshot_age_ms(f->snapshot) > stale_ms)
        return fail(c, ERR_UNAVAILABLE, R_DB_AWAY, "why",
                    "the last known state is too old to go by");
    TRY(access_key(c, f->snapshot, exchange_request(f->x), &f->key, &f->project));
    f->who = access_identity(f->key);
    c->who = &f->who, c->project = f->project;
    TRY(require(c, "inference.use", exchange_request(f->x)->path));
    return check_hops(f);
}

Verdict stage_identify(Flow *f) {
    err e = identify(f);
    if (!e) access_key_used(f->key->id, f->start_ms);
    return flow_denied(f, e);
}
