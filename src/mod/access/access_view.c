// SPDX-License-Identifier: Apache-2.0
// access_view.c - see access_view.h. The JSON, of all or of what changed (access_part.c writes it):
//   {"orgs": [{id, name}], "projects": [{id, name, org}], "roles": {"ID": ["permission", …]},
//    "gone": ["key ID", …], "keys": [{id, name, hash, org, project, kind, owner, owner_name,
//     expires, roles: ["ID"], rights: ["permission"], scopes: […], rpm, concurrency, money}]}
// Of changes, "orgs" and "projects" are absent when none of them changed, "gone" are taken out
// before "keys" are put in, and "roles" are those that these keys have. Older releases wrote each
// key's "rights" out and no "roles".
#include "mod/access/access_view.h"
#include <assert.h>

typedef struct KeyNode {
    atomic_int refs;
    KeyEntry entry; // texts behind the struct, permissions in the RightsTable
    str hash;
} KeyNode;

static str node_hash(const void *n) { return ((const KeyNode *)n)->hash; }
static str node_id(const void *n) { return ((const KeyNode *)n)->entry.id; }
static void node_hold(void *n) {
    atomic_fetch_add_explicit(&((KeyNode *)n)->refs, 1, memory_order_relaxed);
}
static bool was_last(atomic_int *refs) {
    return atomic_fetch_sub_explicit(refs, 1, memory_order_acq_rel) == 1;
}
static void node_drop(void *n) {
    if (was_last(&((KeyNode *)n)->refs)) mem_free(n);
}
static const PmapKind by_hash = { node_hash, node_hold, node_drop };
static const PmapKind by_id = { node_id, node_hold, node_drop };

const KeyEntry *access_view_key(const AccessView *v, str hash) {
    const KeyNode *n = pmap_get(v->by_hash, hash);
    return n ? &n->entry : NULL;
}

const KeyEntry *access_key_by_id(const Snapshot *s, str id) {
    const AccessView *v = snapshot_get(s, &access_part);
    const KeyNode *n = v ? pmap_get(v->by_id, id) : NULL;
    return n ? &n->entry : NULL;
}

const PlaceEntry *access_place(const Snapshot *s, str id) {
    const AccessView *v = snapshot_get(s, &access_part);
    const PlaceEntry *p = v ? map_get(&v->places->projects, id) : NULL;
    return p || !v ? p : map_get(&v->places->orgs, id);
}

static void read_limits(yyjson_val *in, Limits *out) {
    json_get_i64(in, "rpm", &out->requests_per_minute);
    json_get_i64(in, "tpm", &out->tokens_per_minute);
    json_get_i64(in, "concurrency", &out->concurrency);
    json_get_i64(in, "money", &out->money_per_day);
    json_get_i64(in, "money_month", &out->money_per_month);
    json_get_i64(in, "money_total", &out->money_total);
}

// ---- shared by views
static void places_drop(Places *p) {
    if (!p || !was_last(&p->refs)) return;
    map_done(&p->projects), map_done(&p->orgs);
    arena_free(p->mem);
    mem_free(p);
}

static void rights_drop(RightsTable *r) {
    if (!r || !was_last(&r->refs)) return;
    map_done(&r->lists);
    arena_free(r->mem);
    mem_free(r);
}

static void view_done(void *arg) {
    AccessView *v = arg;
    pmap_free(v->by_hash), pmap_free(v->by_id);
    places_drop(v->places), rights_drop(v->rights); // keys point into the rights
}

static void place_read(Arena *mem, yyjson_val *in, PlaceEntry *out) {
    out->id = arena_str(mem, json_get_str(in, "id"));
    out->name = arena_str(mem, json_get_str(in, "name"));
    out->org = arena_str(mem, json_get_str(in, "org"));
    read_limits(in, &out->limits);
    out->responses_days = UNSET_INT;
    json_get_i64(in, "responses", &out->responses_days);
}

static Places *places_new(Ctx *c, yyjson_val *in) {
    Places *p = mem_new(sizeof *p);
    uint64_t seed;
    size_t i, n;
    yyjson_val *one, *projects = json_get(in, "projects");
    atomic_init(&p->refs, 1);
    p->mem = arena_new();
    os_random(c->os, &seed, sizeof seed);
    map_init(&p->projects, seed), map_init(&p->orgs, seed);
    yyjson_arr_foreach(json_get(in, "orgs"), i, n, one) {
        PlaceEntry *e = new (p->mem, PlaceEntry, 1);
        place_read(p->mem, one, e);
        map_set(&p->orgs, e->name, e), map_set(&p->orgs, e->id, e);
    }
    p->all = new (p->mem, PlaceEntry, yyjson_arr_size(projects) + 1);
    yyjson_arr_foreach(projects, i, n, one) {
        PlaceEntry *e = &p->all[p->all_n++];
        place_read(p->mem, one, e);
        map_set(&p->projects, e->id, e);
        if (!p->first || (str_is(e->name, "default") && !str_is(p->first->name, "default")))
            p->first = e;
    }
    return p;
}

static RightsTable *rights_new(Ctx *c) {
    RightsTable *r = mem_new(sizeof *r);
    uint64_t seed;
    os_random(c->os, &seed, sizeof seed);
    atomic_init(&r->refs, 1);
    r->mem = arena_new();
    map_init(&r->lists, seed);
    return r;
}

// ---- keys
static void add_texts(Arena *mem, yyjson_val *list, Rights *to) {
    size_t i, n, have = to->n;
    yyjson_val *v;
    str *grown = new (mem, str, have + yyjson_arr_size(list) + 1);
    if (have) memcpy(grown, to->at, have * sizeof *grown);
    to->at = grown;
    yyjson_arr_foreach(list, i, n, v) to->at[to->n++] = json_str(v);
}

static Rights *copy_rights(Arena *mem, Rights from) {
    Rights *to = new (mem, Rights, 1);
    *to = (Rights){ new (mem, str, from.n + 1), from.n };
    for (size_t i = 0; i < from.n; i++) to->at[i] = arena_str(mem, from.at[i]);
    return to;
}

// What a key may: its roles' permissions and its own, cut to its scopes.
static const Rights *rights_of(Ctx *c, RightsTable *t, yyjson_val *roles, yyjson_val *key) {
    Rights have = { 0 }, scopes = { 0 };
    size_t i, n;
    yyjson_val *role;
    add_texts(c->mem, json_get(key, "rights"), &have);
    yyjson_arr_foreach(json_get(key, "roles"), i, n, role) add_texts(
        c->mem, yyjson_obj_getn(roles, yyjson_get_str(role), yyjson_get_len(role)), &have);
    add_texts(c->mem, json_get(key, "scopes"), &scopes);
    Rights cut = rights_cut(c->mem, have, scopes);
    str text = arena_join(c->mem, cut.at, cut.n, S("\n"));
    Rights *known = map_get(&t->lists, text);
    if (known) return known;
    known = copy_rights(t->mem, cut);
    map_set(&t->lists, arena_str(t->mem, text), known);
    return known;
}

static KeyNode *node_new(yyjson_val *in, const Rights *rights) {
    static const struct {
        const char *key;
        size_t at;
    } texts[] = {
        { "id", offsetof(KeyNode, entry.id) },
        { "name", offsetof(KeyNode, entry.name) },
        { "org", offsetof(KeyNode, entry.org) },
        { "project", offsetof(KeyNode, entry.project) },
        { "owner", offsetof(KeyNode, entry.owner) },
        { "hash", offsetof(KeyNode, hash) },
        { "owner_name", offsetof(KeyNode, entry.owner_name) },
    };
    size_t bytes = 0;
    for (size_t i = 0; i < countof(texts); i++) bytes += json_get_str(in, texts[i].key).n + 1;
    KeyNode *k = mem_new(sizeof *k + bytes);
    char *end = (char *)(k + 1);
    for (size_t i = 0; i < countof(texts); i++) {
        str s = json_get_str(in, texts[i].key);
        if (!s.p) continue; // stays absent
        memcpy(end, s.p, s.n);
        *(str *)(void *)((char *)k + texts[i].at) = str_n(end, s.n);
        end += s.n + 1;
    }
    assert(end <= (char *)(k + 1) + bytes);
    atomic_init(&k->refs, 1);
    KeyEntry *e = &k->entry;
    e->owner_kind = str_is(json_get_str(in, "kind"), "service") ? WHO_SERVICE : WHO_USER;
    json_get_i64(in, "expires", &e->expires_ms);
    read_limits(in, &e->limits);
    e->permissions = rights->at, e->permissions_n = rights->n;
    return k;
}

static void take_out(AccessView *v, str id) {
    const KeyNode *k = pmap_get(v->by_id, id);
    if (!k) return;
    pmap_del(v->by_hash, k->hash);
    pmap_del(v->by_id, id);
}

static err put_in(Ctx *c, AccessView *v, yyjson_val *in) {
    ArenaMark mark = arena_mark(c->mem);
    yyjson_val *list = json_get(in, "keys"), *one, *roles = json_get(in, "roles");
    size_t i, n;
    yyjson_arr_foreach(json_get(in, "gone"), i, n, one) take_out(v, json_str(one));
    yyjson_arr_foreach(list, i, n, one) {
        if (!json_get_str(one, "hash").n || !json_get_str(one, "id").n)
            return fail(c, ERR_INVALID, R_INTERNAL, "why", "a key without its hash");
        take_out(v, json_get_str(one, "id"));
        KeyNode *k = node_new(one, rights_of(c, v->rights, roles, one));
        pmap_set(v->by_hash, k), pmap_set(v->by_id, k);
        node_drop(k);
        arena_restore(c->mem, mark);
    }
    return ERR_OK;
}

err access_view_compile(Ctx *c, Arena *mem, yyjson_val *in, void **out) {
    AccessView *v = new (mem, AccessView, 1);
    uint64_t seed;
    os_random(c->os, &seed, sizeof seed);
    *v = (AccessView){ places_new(c, in), rights_new(c), pmap_new(&by_hash, seed),
                       pmap_new(&by_id, seed) };
    arena_defer(mem, view_done, v);
    *out = v;
    return put_in(c, v, in);
}

err access_view_apply(Ctx *c, Arena *mem, const void *before, yyjson_val *in, void **out) {
    const AccessView *was = before;
    AccessView *v = new (mem, AccessView, 1);
    bool places = json_get(in, "projects");
    *v = (AccessView){ places ? places_new(c, in) : was->places, was->rights,
                       pmap_copy(was->by_hash), pmap_copy(was->by_id) };
    if (!places) atomic_fetch_add_explicit(&v->places->refs, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&v->rights->refs, 1, memory_order_relaxed);
    arena_defer(mem, view_done, v);
    *out = v;
    return in ? put_in(c, v, in) : ERR_OK;
}
const SnapshotPart access_part = { "access", access_part_query, access_view_compile,
                                   access_part_changes, access_view_apply };
