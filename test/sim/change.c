// SPDX-License-Identifier: Apache-2.0
// change.c - see sim_run.h: what clients change. A row is made, changed and deleted, the making
// repeated under one Idempotency-Key until somebody answers; a key is made, used, revoked and
// refused.
#include "sim_run.h"
#include "os/thread.h"
#include <stdio.h>

enum { TRIES = 40, TRY_MS = 700, WITHIN_MS = 1000, TARGET_MAX = 120 };
static const int64_t MS = 1000000;

static bool answered(int status) { return status && status < 500 && status != 429; }

static int change(Client *k, Call *q, const char *verb, Reply *out) {
    World *w = k->w;
    Change now = { .verb = verb };
    client_id(k, now.id);
    q->id = arena_z(k->c->mem, str_z(now.id));
    for (int i = 0; i < (q->once ? TRIES : 1) && !w->failed && !answered(now.status); i++) {
        if (i) thread_pause(k->c->os, TRY_MS * MS);
        q->to = &w->servers[k->server].at, q->key = w->admin;
        *out = call(k->c, q);
        now.status = out->status;
        if (!answered(now.status)) k->server = (k->server + 1) % w->servers_n;
        w->operations++;
    }
    if (!answered(now.status)) now.status = 0;
    if (w->changes_n < CALLS_MAX) w->changes[w->changes_n++] = now;
    return now.status;
}

static void want(Client *k, const Call *q, const Reply *r, int status) {
    if (r->status && r->status != status)
        world_fail(k->w, "%s %s: %d, not %d: " STR_FMT, q->id, q->target, r->status, status,
                   STR_ARG(str_sub(r->body, 0, 800)));
}

void change_row(Client *k) {
    char target[TARGET_MAX], once[40];
    Reply r;
    if (k->step % 3 == 0) {
        snprintf(k->row, sizeof k->row, "sa-%d-%d", k->number, k->step);
        snprintf(once, sizeof once, "once-%s", k->row);
        Call q = { .method = HTTP_POST, .target = "/lathe/v1/service_accounts", .once = once };
        q.body = arena_printf(k->c->mem, "{\"name\":\"%s\",\"roles\":[\"viewer\"]}", k->row);
        int status = change(k, &q, "create", &r);
        if (status) want(k, &q, &r, 201);
        k->step += status == 201 ? 1 : 3;
        return;
    }
    snprintf(target, sizeof target, "/lathe/v1/service_accounts/%s", k->row);
    bool last = k->step % 3 == 2;
    Call q = { .method = last ? HTTP_DELETE : HTTP_PATCH, .target = target };
    if (!last) q.body = arena_printf(k->c->mem, "{\"title\":\"row %d\"}", k->step);
    int status = change(k, &q, last ? "delete" : "update", &r);
    if (status) want(k, &q, &r, last ? 204 : 200);
    k->step++;
}

void change_deployment(Client *k) {
    Reply r;
    Call q = { .method = HTTP_PATCH, .target = "/lathe/v1/deployments/chat" };
    q.body = arena_printf(k->c->mem, "{\"queue_max\":%d}", 1000 + k->calls * CLIENTS + k->number);
    if (change(k, &q, "update", &r)) want(k, &q, &r, 200);
}

// What changes nothing has no audit entry, so these are not counted.
void change_own(Client *k) {
    static const char *const actions[] = { "restart", "stop", "start", "start" };
    char target[TARGET_MAX] = "/lathe/v1/deployments/own";
    World *w = k->w;
    HttpMethod method = HTTP_PATCH;
    str body = { 0 };
    if (sim_random(w->sim, 2)) {
        w->replicas = 1 + (int)sim_random(w->sim, REPLICAS_MOST);
        body = arena_printf(k->c->mem, "{\"replicas\":%d}", w->replicas);
    } else {
        size_t len = strlen(target);
        method = HTTP_POST;
        snprintf(target + len, sizeof target - len, "/%s",
                 actions[sim_random(w->sim, countof(actions))]);
    }
    Reply r = ask(k->c, &w->servers[k->server].at, method, target, w->admin, body);
    w->operations++;
    if (answered(r.status) && r.status != 200) world_fail(w, "%s: %d", target, r.status);
}

// ---- keys

static bool calm_since(const World *w, int server, int64_t ns) {
    const Server *s = &w->servers[server];
    return s->trouble_ns < ns && s->died_ns < ns;
}

// On the server that made the change at once, on others within a second; one that has trouble of
// its own may be behind for longer, by its settings. But who gave a key out never calls it wrong.
static void try_key(Client *k, const char *key, int changed_on, int64_t changed_ns, bool valid) {
    World *w = k->w;
    int server = (int)sim_random(w->sim, (uint64_t)w->servers_n);
    int64_t wait_ns = server == changed_on ? 0 : WITHIN_MS * MS;
    if (wait_ns) thread_pause(k->c->os, wait_ns);
    bool calm = calm_since(w, server, changed_ns);
    int status = infer(k, server, key, KEY_APP);
    if (valid && server == changed_on && status == 401)
        world_fail(w, "request sim-%d-%d: 401 for a key that server %d has given out", k->number,
                   k->calls - 1, server);
    if (!calm || !calm_since(w, server, changed_ns) || (status != 401 && status != 200)) return;
    if ((status == 401) == valid)
        world_fail(w, "request sim-%d-%d: %d of server %d for a key that was %s by server %d",
                   k->number, k->calls - 1, status, server, valid ? "made" : "revoked", changed_on);
}

void change_key(Client *k) {
    char target[TARGET_MAX], once[40], key[200];
    yyjson_val *root;
    Reply r;
    snprintf(once, sizeof once, "key-%d-%d", k->number, k->calls);
    Call q = { .method = HTTP_POST, .target = "/lathe/v1/api_keys", .once = once };
    q.body = arena_printf(k->c->mem, "{\"name\":\"%s\",\"service_account\":\"app\"}", once);
    if (change(k, &q, "create", &r) != 201 || json_parse(k->c, r.body, &root)) return;
    snprintf(key, sizeof key, STR_FMT, STR_ARG(json_get_str(root, "key")));
    if (*key) try_key(k, key, k->server, os_mono_ns(k->c->os), true); // a repeated answer has none
    snprintf(target, sizeof target, "/lathe/v1/api_keys/%s", once);
    Call drop = { .method = HTTP_DELETE, .target = target };
    int on = k->server;
    if (change(k, &drop, "delete", &r) != 204 || !*key) return;
    try_key(k, key, on, os_mono_ns(k->c->os), false);
}

// ---- what waits

static bool says_why(yyjson_val *row, const char *state, const char *settled, const char *reason) {
    return str_is(json_get_str(row, state), settled) || json_get_str(row, reason).n;
}

void look_at_waiting(Client *k) {
    World *w = k->w;
    yyjson_val *root;
    const char *target =
        sim_random(w->sim, 2) ? "/lathe/v1/deployments/own" : "/lathe/v1/deployments/chat";
    Reply r = ask(k->c, &w->servers[k->server].at, HTTP_GET, target, w->admin, (str){ 0 });
    w->operations++;
    if (r.status != 200 || json_parse(k->c, r.body, &root)) return;
    if (!says_why(root, "state", "ready", "state_reason"))
        world_fail(w, "the deployment is not ready and says not why: " STR_FMT,
                   STR_ARG(str_sub(r.body, 0, 1500)));
}
