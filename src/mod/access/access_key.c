// SPDX-License-Identifier: Apache-2.0
// access_key.c - keys: how they are made, and who is behind one that a request shows and where it
// may act, by the snapshot's view (access_view.h).
#include "base/id.h"
#include "base/time.h"
#include "blob/blob.h"
#include "mod/access/access_view.h"
#include <assert.h>

enum { KEY_SECRET = 32, KEY_TEXT_MAX = 200 };

// ---- making keys
str key_hash(Ctx *c, str key) {
    char hex[BLOB_DIGEST_HEX + 1];
    sha256_hex(key, hex);
    return arena_str(c->mem, str_z(hex));
}

void key_make(Ctx *c, str *out_key, str *out_hint, str *out_hash) {
    static const char letters[33] = "0123456789abcdefghjkmnpqrstvwxyz";
    uint8_t random[KEY_SECRET];
    char secret[KEY_SECRET + 1] = "";
    str id = os_id(c, "k");
    os_random(c->os, random, sizeof random);
    for (int i = 0; i < KEY_SECRET; i++) secret[i] = letters[random[i] & 31]; // 160 bits
    *out_key = arena_printf(c->mem, "lathe_" STR_FMT "_%s", STR_ARG(str_sub(id, 2, id.n)), secret);
    *out_hint = arena_printf(c->mem, "lathe_" STR_FMT "…%s", STR_ARG(str_sub(id, 2, 6)),
                             secret + KEY_SECRET - 4);
    *out_hash = key_hash(c, *out_key);
}

// ---- who is it
static str sent_key(const HttpRequest *r) {
    str bearer = http_header(r, "authorization");
    if (bearer.n > 7 && str_ieq(str_sub(bearer, 0, 7), S("bearer ")))
        return str_trim(str_sub(bearer, 7, bearer.n));
    return http_header(r, "x-api-key");
}

// The organisation that the key is of, or that the system's key asks to act in. A key of one that
// names another is refused; OpenAI's header is then left alone: its clients send it everywhere.
static err choose_org(Ctx *c, const AccessView *v, const KeyEntry *k, const HttpRequest *r,
                      str *out) {
    str name = http_header(r, "lathe-organisation");
    *out = k->org;
    if (!name.p && !k->org.n) name = http_header(r, "openai-organization");
    if (!name.n) return ERR_OK;
    const PlaceEntry *o = map_get(&v->places->orgs, name);
    if (k->org.n && o && str_eq(o->id, k->org)) return ERR_OK;
    if (k->org.n)
        return fail(c, ERR_DENIED, R_ORG_DENIED, "key", say_str(c, k->name), "org",
                    say_str(c, name));
    if (!o) return fail(c, ERR_NOTFOUND, R_ORG_UNKNOWN, "org", say_str(c, name));
    *out = o->id;
    return ERR_OK;
}

static const PlaceEntry *find_project(const AccessView *v, str org, str id_or_name) {
    const PlaceEntry *p = map_get(&v->places->projects, id_or_name);
    if (p && (!org.n || str_eq(p->org, org))) return p;
    const PlaceEntry *found = NULL;
    for (size_t i = 0; i < v->places->all_n; i++) {
        if (!str_eq(v->places->all[i].name, id_or_name)
            || (org.n && !str_eq(v->places->all[i].org, org)))
            continue;
        if (found) return NULL; // two organisations have one: the id says which
        found = &v->places->all[i];
    }
    return found;
}

static err choose_project(Ctx *c, const AccessView *v, const KeyEntry *k, const HttpRequest *r,
                          str *out_org, str *out_project) {
    str asked = request_project(r), org;
    const PlaceEntry *p = NULL;
    TRY(choose_org(c, v, k, r, &org));
    if (k->project.n) {
        p = map_get(&v->places->projects, k->project);
        if (asked.n && !str_eq(asked, k->project) && !(p && str_eq(asked, p->name)))
            return fail(c, ERR_DENIED, R_PROJECT_DENIED, "key", say_str(c, k->name), "project",
                        say_str(c, asked));
    } else if (asked.n) {
        p = find_project(v, org, asked);
        if (!p) return fail(c, ERR_NOTFOUND, R_PROJECT_UNKNOWN, "project", say_str(c, asked));
    } else if (!org.n) {
        p = v->places->first;
    } else {
        p = find_project(v, org, S("default"));
    }
    *out_project = k->project.n ? k->project : p ? p->id : (str){ 0 };
    *out_org = p ? p->org : org;
    return ERR_OK;
}

// What is not in the snapshot is wrong only while the snapshot is all there is.
static err no_key(Ctx *c, const Snapshot *s) {
    enum { RETRY_MS = 1000 };
    if (!snapshot_behind(s)) return fail(c, ERR_UNAUTHENTICATED, R_KEY_UNKNOWN);
    err e = fail(c, ERR_UNAVAILABLE, R_KEY_UNCLEAR);
    c->failure.retry_after_ms = RETRY_MS;
    return e;
}

static err find_key(Ctx *c, const Snapshot *s, const AccessView *v, const HttpRequest *r,
                    const KeyEntry **out) {
    str text = sent_key(r);
    if (!text.n) return fail(c, ERR_UNAUTHENTICATED, R_KEY_MISSING);
    if (text.n > KEY_TEXT_MAX) return fail(c, ERR_UNAUTHENTICATED, R_KEY_UNKNOWN);
    char hex[BLOB_DIGEST_HEX + 1], at[TIME_TEXT];
    sha256_hex(text, hex); // found by its hash: no comparison whose time tells of a prefix
    const KeyEntry *k = access_view_key(v, str_z(hex));
    if (!k) return no_key(c, s);
    if (k->expires_ms && os_wall_ms(c->os) >= k->expires_ms)
        return fail(c, ERR_UNAUTHENTICATED, R_KEY_EXPIRED, "key", say_str(c, k->name), "at",
                    say_str(c, time_format(k->expires_ms, at)));
    *out = k;
    return ERR_OK;
}

// A key that reaches for another's place leaves a mark in its own.
static err denied_place(Ctx *c, const KeyEntry *k, const HttpRequest *r, err e) {
    App *app = app_of(c);
    if (e != ERR_DENIED || !app->audit_denied) return e;
    Identity *who = new (c->mem, Identity, 1);
    *who = access_identity(k);
    c->who = who, c->org = k->org, c->project = k->project;
    app->audit_denied(c, "another place", r->path);
    return e;
}

err access_key(Ctx *c, const Snapshot *s, const HttpRequest *r, const KeyEntry **out,
               str *out_project) {
    const AccessView *v = snapshot_get(s, &access_part);
    const KeyEntry *k = NULL;
    str org;
    err e = find_key(c, s, v, r, &k);
    if (e == ERR_UNAVAILABLE) return flood_note(c, e);
    if (e) {
        App *app = app_of(c);
        if (app->audit_denied) app->audit_denied(c, "identify", r->peer);
        return flood_check(c, r, e);
    }
    e = choose_project(c, v, k, r, &org, out_project);
    if (e) return denied_place(c, k, r, e);
    c->org = org;
    *out = k;
    return ERR_OK;
}

Identity access_identity(const KeyEntry *k) {
    return (Identity){ k->owner_kind, k->owner,   k->owner_name,  k->id,
                       k->org,        k->project, k->permissions, k->permissions_n };
}

static void give(void *s) { snapshot_give(s); }

err access_identify(Ctx *c, const HttpRequest *r, bool on_loop) {
    const Snapshot *s = snapshot_take(); // the identity points into it: kept as long as the call
    const KeyEntry *k;
    str project;
    (void)on_loop;
    arena_defer(c->mem, give, (void *)(uintptr_t)s);
    TRY(access_key(c, s, r, &k, &project));
    Identity *who = new (c->mem, Identity, 1);
    *who = access_identity(k);
    c->who = who, c->project = project;
    access_key_used(k->id, os_wall_ms(c->os));
    return ERR_OK;
}
