// SPDX-License-Identifier: Apache-2.0
// check.c - see sim_run.h: what must hold once faults are over.
//   - The deployment becomes ready again, by itself, as every server sees it.
//   - Replicas that are wished run, once each, and no other child of a server is left.
//   - Every chain of the audit proves itself.
//   - What was told to clients is true: check_told.c.
#include "sim_run.h"
#include "os/thread.h"
#include <stdio.h>

enum { LOOK_MS = 500, SETTLED_MS = 2000, TARGET_MAX = 300, ALONE_S = 75 };
static const int64_t MS = 1000000, SECOND = 1000000000;

bool look_get(Look *l, const Addr *to, const char *target, yyjson_val **out) {
    Reply r = ask(l->c, to, HTTP_GET, target, l->w->admin, (str){ 0 });
    snprintf(l->w->waits, sizeof l->w->waits, "%s of %s: %d %s " STR_FMT, target, to->text,
             r.status, r.why ? r.why : "", STR_ARG(str_sub(r.body, 0, 1200)));
    return r.status == 200 && !json_parse(l->c, r.body, out);
}

void look_each(Look *l, const char *target, void (*fn)(Look *l, yyjson_val *row, void *arg),
               void *arg) {
    char page[TARGET_MAX * 2], next[TARGET_MAX] = "";
    yyjson_val *root, *row;
    size_t i, n;
    do {
        arena_reset(l->c->mem);
        snprintf(page, sizeof page, "%s%climit=200%s%s", target, strchr(target, '?') ? '&' : '?',
                 *next ? "&cursor=" : "", next);
        if (!look_get(l, &l->w->servers[0].at, page, &root)) {
            world_fail(l->w, "%s", l->w->waits);
            return;
        }
        yyjson_arr_foreach(json_get(root, "data"), i, n, row) fn(l, row, arg);
        snprintf(next, sizeof next, STR_FMT, STR_ARG(json_get_str(root, "next_cursor")));
    } while (*next && !l->w->failed);
}

static void until(Look *l, const Server *s, bool (*holds)(Look *, const Server *)) {
    while (!l->w->failed && !holds(l, s)) {
        arena_reset(l->c->mem);
        thread_pause(l->c->os, LOOK_MS * MS);
    }
    arena_reset(l->c->mem);
}

static bool is_ready(Look *l, const Server *s) {
    yyjson_val *d;
    int64_t ready = 0;
    return look_get(l, &s->at, "/lathe/v1/deployments/chat", &d)
           && str_is(json_get_str(d, "state"), "ready")
           && look_get(l, &s->at, "/lathe/v1/deployments/own", &d)
           && str_is(json_get_str(d, "state"), "ready") && json_get_i64(d, "ready_replicas", &ready)
           && ready == l->w->replicas;
}

// What clients wished last nobody knows when nobody answered: it is wished once more.
static bool is_wished(Look *l, const Server *s) {
    str body = arena_printf(l->c->mem, "{\"replicas\":%d,\"stopped\":false}", l->w->replicas);
    Reply r = ask(l->c, &s->at, HTTP_PATCH, "/lathe/v1/deployments/own", l->w->admin, body);
    snprintf(l->w->waits, sizeof l->w->waits, "wishing: %d " STR_FMT, r.status,
             STR_ARG(str_sub(r.body, 0, 1000)));
    return r.status == 200;
}

// Each engine is a replica that is wished, each shim holds one, and nothing else was left.
static bool is_alone(Look *l, const Server *s) {
    World *w = l->w;
    size_t engines = children_alive(w, CHILD_ENGINE, -1), shims = children_alive(w, CHILD_SHIM, -1);
    size_t readers = children_alive(w, CHILD_READER, -1);
    (void)s;
    snprintf(w->waits, sizeof w->waits, "%zu engines, %zu shims and %zu readers for %d replicas",
             engines, shims, readers, w->replicas);
    return engines == (size_t)w->replicas && shims == engines && !readers;
}

// Who lost a deployment to another node ends what it runs of it: requests under way may take
// drain_ms, a process that hears nothing a little more.
static void left_within(Look *l) {
    int64_t began_ns = os_mono_ns(l->c->os);
    until(l, &l->w->servers[0], is_alone);
    if (os_mono_ns(l->c->os) - began_ns > ALONE_S * SECOND)
        world_fail(l->w, "children that nobody wants lived for %lld s",
                   (long long)((os_mono_ns(l->c->os) - began_ns) / SECOND));
}

// A request at the end of all: when it is in the ledger, so is what came before it.
static void last_request(Look *l, int server) {
    World *w = l->w;
    Client k = { .w = w, .c = client_ctx(w), .number = CLIENTS + server };
    thread_pause(l->c->os, SETTLED_MS * MS); // what clients left is noticed
    do {
        arena_reset(k.c->mem);
        thread_pause(l->c->os, LOOK_MS * MS);
        infer(&k, server, w->keys[KEY_APP], KEY_APP);
    } while (!w->failed && !w->told[w->told_n - 1].whole);
    arena_free(k.c->mem);
    mem_free(k.c);
}

static bool is_folded(Look *l, const Server *s) {
    char target[TARGET_MAX];
    yyjson_val *root;
    const Told *last = NULL;
    for (size_t i = 0; i < l->w->told_n; i++) {
        const Told *t = &l->w->told[i];
        if (t->whole && !t->lost && &l->w->servers[t->server] == s) last = t;
    }
    if (!last) return true;
    snprintf(target, sizeof target, "/lathe/v1/usage?request_id=%s", last->id);
    if (!look_get(l, &s->at, target, &root)) return false;
    yyjson_val *row;
    size_t i, n;
    bool good = false; // attempts that failed may be there before the one that answered
    yyjson_arr_foreach(json_get(root, "data"), i, n, row) good |=
        str_is(json_get_str(row, "outcome"), "ok");
    return good;
}

static void check_chains(Look *l, const Server *s) {
    yyjson_val *root;
    if (!look_get(l, &s->at, "/lathe/v1/audit/verify", &root)
        || !yyjson_get_bool(json_get(root, "ok")))
        world_fail(l->w, "a chain of the audit does not prove itself: %s", l->w->waits);
}

void check_end(World *w) {
    Ctx c;
    ctx_init(&c, arena_new(), sim_node(w->sim, NODE_CLIENT));
    Look l = { w, &c };
    until(&l, &w->servers[0], is_wished);
    for (int i = 0; i < w->servers_n; i++) until(&l, &w->servers[i], is_ready);
    for (int i = 0; i < w->servers_n && !w->failed; i++) last_request(&l, i);
    until(&l, &w->servers[0], versions_settled);
    left_within(&l);
    for (int i = 0; i < w->servers_n; i++) until(&l, &w->servers[i], is_folded);
    for (int i = 0; i < w->servers_n && !w->failed; i++) check_chains(&l, &w->servers[i]);
    if (!w->failed) check_told(&l);
    if (!w->failed) check_changes(&l);
    if (!w->failed) check_rest(&l);
    arena_free(c.mem);
}

void check_again(World *w) {
    Ctx c;
    ctx_init(&c, arena_new(), sim_node(w->sim, NODE_CLIENT));
    Look l = { w, &c };
    for (int i = 0; i < w->servers_n; i++) until(&l, &w->servers[i], is_ready);
    left_within(&l);
    arena_free(c.mem);
}

// ---- without the deployment

static bool is_deleted(Look *l, const Server *s) {
    Reply r = ask(l->c, &s->at, HTTP_DELETE, "/lathe/v1/deployments/own", l->w->admin, (str){ 0 });
    snprintf(l->w->waits, sizeof l->w->waits, "deleting: %d " STR_FMT, r.status,
             STR_ARG(str_sub(r.body, 0, 1000)));
    return r.status == 404;
}

// No process, and no file that tells of one.
static bool is_empty(Look *l, const Server *s) {
    World *w = l->w;
    str *names;
    size_t n = 0, alive = 0;
    Os *mine = l->c->os;
    for (ChildKind k = CHILD_SHIM; k <= CHILD_READER; k++) alive += children_alive(w, k, s->node);
    l->c->os = sim_node(w->sim, s->node);
    err e = dir_list(l->c, S("/data/run"), &names, &n);
    l->c->os = mine;
    snprintf(w->waits, sizeof w->waits, "%zu children and %zu of their files on %s", alive, n,
             s->at.text);
    return !e && !alive && !n;
}

void check_deleted(World *w) {
    Ctx c;
    ctx_init(&c, arena_new(), sim_node(w->sim, NODE_CLIENT));
    Look l = { w, &c };
    w->replicas = 0;
    until(&l, &w->servers[0], is_deleted);
    for (int i = 0; i < w->servers_n; i++) until(&l, &w->servers[i], is_empty);
    arena_free(c.mem);
}
