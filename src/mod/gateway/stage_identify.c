// SPDX-License-Identifier: Apache-2.0
// stage_identify.c - whose key this is, which project it acts in, and whether it may use models.
// From the headers and the snapshot alone.
#include "mod/gateway/flow.h"

static err identify(Flow *f) {
    Ctx *c = f->c;
    int64_t stale_ms = setting_int(&gateway_settings[GW_STALE]);
    if (stale_ms && snapshot_age_ms(f->snapshot) > stale_ms)
        return fail(c, ERR_UNAVAILABLE, R_DB_AWAY, "why",
                    "the last known state is too old to go by");
    TRY(access_key(c, f->snapshot, exchange_request(f->x), &f->key, &f->project));
    f->who = access_identity(f->key);
    c->who = &f->who, c->project = f->project;
    return require(c, "inference.use", exchange_request(f->x)->path);
}

Verdict stage_identify(Flow *f) {
    err e = identify(f);
    if (!e) access_key_used(f->key->id, f->start_ms);
    return flow_denied(f, e);
}
