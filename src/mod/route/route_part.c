// SPDX-License-Identifier: Apache-2.0
// route_part.c - the request path's view: a part of the snapshot, found by project and name, or by
// organisation and name where it is published. Owner: the snapshot. Threads: the builder writes,
// any reads.
#include "base/map.h"
#include "mod/route/route_own.h"

enum { NAME_BYTES = 512 };

// ---- rows to JSON
static void write_route(Json *j, const RouteRow *r) {
    json_obj(j);
    json_kv_str(j, "id", r->head.id), json_kv_str(j, "name", r->head.name),
        json_kv_str(j, "org", r->head.org);
    json_kv_str(j, "project", r->head.project), json_kv_bool(j, "published", r->published);
    json_kv_z(j, "strategy", strategy_names[r->strategy < 0 ? STRATEGY_ORDERED : r->strategy]);
    json_kv_i64(j, "attempts_max", r->attempts_max);
    if (r->spill_ms != UNSET_INT) json_kv_i64(j, "spill_ms", r->spill_ms);
    json_key(j, "targets"), json_arr(j);
    for (size_t i = 0; i < r->targets_n; i++) {
        json_obj(j);
        json_kv_str(j, "deployment", r->targets[i].deployment),
            json_kv_i64(j, "weight", r->targets[i].weight);
        json_end_obj(j);
    }
    json_end_arr(j), json_end_obj(j);
}

static err query(Ctx *c, Tx *tx, Json *out) {
    ListSpec spec = { .limit = LIST_MAX, .all_scopes = true };
    json_arr(out);
    do {
        ListPage page;
        TRY(res_list(c, tx, &route_resource, &spec, &page));
        for (size_t i = 0; i < page.n; i++) write_route(out, (const RouteRow *)page.rows + i);
        spec.cursor = page.cursor;
    } while (spec.cursor.n);
    json_end_arr(out);
    return ERR_OK;
}

// ---- compiled
typedef struct View {
    Map by_project, by_org; // "<project>/<name>", "<organisation>/<name>"
    RouteEntry *all;
    size_t n;
} View;

static void view_done(void *arg) {
    View *v = arg;
    map_done(&v->by_project), map_done(&v->by_org);
}

static Strategy strategy_of(str name) {
    for (int i = 0; i < STRATEGY__COUNT; i++)
        if (str_is(name, strategy_names[i])) return (Strategy)i;
    return STRATEGY_ORDERED; // of a newer release
}

static void read_targets(Arena *mem, yyjson_val *list, RouteEntry *r) {
    size_t i, n, most = yyjson_arr_size(list);
    yyjson_val *one;
    RouteTarget *targets = new(mem, RouteTarget, most + 1);
    yyjson_arr_foreach(list, i, n, one) {
        if (r->targets_n == ROUTE_TARGETS_MAX) break;
        RouteTarget *t = &targets[r->targets_n++];
        t->deployment = json_get_str(one, "deployment"), t->weight = 1;
        json_get_i64(one, "weight", &t->weight);
    }
    r->targets = targets;
}

static void read_route(Arena *mem, yyjson_val *in, RouteEntry *r) {
    *r = (RouteEntry){ .id = json_get_str(in, "id"),
                       .name = json_get_str(in, "name"),
                       .org = json_get_str(in, "org"),
                       .project = json_get_str(in, "project"),
                       .published = json_get_bool(in, "published", false),
                       .strategy = strategy_of(json_get_str(in, "strategy")),
                       .attempts_max = 3,
                       .spill_ms = UNSET_INT };
    json_get_i64(in, "attempts_max", &r->attempts_max), json_get_i64(in, "spill_ms", &r->spill_ms);
    read_targets(mem, json_get(in, "targets"), r);
}

static str key_of(Arena *mem, str scope, str name) {
    return arena_printf(mem, STR_FMT "/" STR_FMT, STR_ARG(scope), STR_ARG(name));
}

static err compile(Ctx *c, Arena *mem, yyjson_val *in, void **out) {
    View *v = new(mem, View, 1);
    size_t i, n;
    yyjson_val *one;
    (void)c;
    map_init(&v->by_project, 0x726f7574), map_init(&v->by_org, 0x6f726774);
    arena_defer(mem, view_done, v);
    v->all = new(mem, RouteEntry, yyjson_arr_size(in) + 1);
    yyjson_arr_foreach(in, i, n, one) {
        RouteEntry *r = &v->all[v->n++];
        read_route(mem, one, r);
        map_set(&v->by_project, key_of(mem, r->project, r->name), r);
        if (r->published) map_set(&v->by_org, key_of(mem, r->org, r->name), r);
    }
    *out = v;
    return ERR_OK;
}
const SnapshotPart route_part = { .name = "routes", .query = query, .compile = compile };

// ---- readers
static const RouteEntry *find(const Map *m, str scope, str name) {
    char key[NAME_BYTES];
    if (!m->live || scope.n + name.n + 1 > sizeof key) return NULL;
    memcpy(key, scope.p, scope.n);
    key[scope.n] = '/';
    memcpy(key + scope.n + 1, name.p, name.n);
    return map_get(m, str_n(key, scope.n + name.n + 1));
}

const RouteEntry *route_find(const Snapshot *s, str org, str project, str name) {
    const View *v = snapshot_get(s, &route_part);
    const RouteEntry *own = find(&v->by_project, project, name);
    return own ? own : find(&v->by_org, org, name);
}

size_t route_list(Ctx *c, const Snapshot *s, str org, str project, const RouteEntry ***out) {
    const View *v = snapshot_get(s, &route_part);
    const RouteEntry **list = *out = new(c->mem, const RouteEntry *, v->n + 1);
    size_t n = 0;
    for (size_t i = 0; i < v->n; i++)
        if (str_eq(v->all[i].project, project)) list[n++] = &v->all[i];
    for (size_t i = 0; i < v->n; i++) {
        const RouteEntry *r = &v->all[i];
        bool shared = r->published && str_eq(r->org, org) && !str_eq(r->project, project);
        if (shared && !find(&v->by_project, project, r->name)) list[n++] = r;
    }
    return n;
}
