// SPDX-License-Identifier: Apache-2.0
// work.c - see sim_run.h: what is set up at first, and clients that ask, read, leave and change
// things, and remember what they were told. Each is a blocking program on a simulated thread.
#include "sim_run.h"
#include "os/sim_pthread.h"
#include "os/thread.h"
#include <stdio.h>

enum { WAIT_MS = 500 };

// ---- setting up

bool work_make(World *w, Ctx *c, const char *target, const char *body, Reply *out) {
    Reply r = ask(c, &w->servers[0].at, HTTP_POST, target, w->admin, str_z(body));
    if (out) *out = r;
    if (r.status == 201) return true;
    world_fail(w, "%s: %d %s " STR_FMT, target, r.status, r.why ? r.why : "", STR_ARG(r.body));
    return false;
}

static bool read_admin(World *w, Ctx *c) {
    Os *mine = c->os;
    str text;
    c->os = sim_node(w->sim, w->servers[0].node); // as its owner would, on that machine
    err e = file_read_all(c, S("/data/admin.key"), sizeof w->admin - 1, &text);
    c->os = mine;
    if (e) return false;
    snprintf(w->admin, sizeof w->admin, STR_FMT, STR_ARG(str_trim(text)));
    return true;
}

static void until_answers(World *w, Ctx *c, const Server *s) {
    for (;;) {
        arena_reset(c->mem);
        Reply r = ask(c, &s->at, HTTP_GET, "/readyz", NULL, (str){ 0 });
        if (r.status == 200 || w->failed) return;
        thread_pause(c->os, WAIT_MS * 1000000);
    }
}

void work_join(World *w) {
    Ctx *c = client_ctx(w);
    for (int i = 1; i < w->servers_n; i++) until_answers(w, c, &w->servers[i]);
    w->ready = true;
}

static bool deployment_ready(World *w, Ctx *c, const char *name) {
    const char *target = arena_printf(c->mem, "/lathe/v1/deployments/%s", name).p;
    Reply r = ask(c, &w->servers[0].at, HTTP_GET, target, w->admin, (str){ 0 });
    snprintf(w->waits, sizeof w->waits, "%d " STR_FMT, r.status, STR_ARG(str_sub(r.body, 0, 1500)));
    return r.status == 200 && str_find(r.body, S("\"state\":\"ready\"")) >= 0;
}

static bool make_rows(World *w, Ctx *c) {
    static const struct {
        const char *target, *body;
    } rows[] = {
        { "/lathe/v1/prices",
          "{\"name\":\"p\",\"model\":\"chat\",\"input\":\"1\",\"output\":\"2\"}" },
        { "/lathe/v1/prices",
          "{\"name\":\"o\",\"model\":\"own\",\"input\":\"1\",\"output\":\"2\"}" },
        { "/lathe/v1/deployments",
          "{\"name\":\"chat\",\"engine\":\"openai\",\"task\":\"chat\",\"slots\":4,\"endpoint\":"
          "{\"url\":\"http://10.0.0.2:9000/v1\",\"upstream_model\":\"fake\"}}" },
        { "/lathe/v1/service_accounts", "{\"name\":\"app\",\"roles\":[\"application\"]}" },
    };
    static const char *const limits[KEYS] = { [KEY_APP] = "{}",
                                              [KEY_POOR] = "{\"money_per_day\":\"0.0008\"}",
                                              [KEY_SLOW] = "{\"requests_per_minute\":20,"
                                                           "\"concurrency\":1}" };
    yyjson_val *root;
    Reply r;
    for (size_t i = 0; i < countof(rows); i++)
        if (!work_make(w, c, rows[i].target, rows[i].body, NULL)) return false;
    for (int i = 0; i < KEYS; i++) {
        str body = arena_printf(
            c->mem, "{\"name\":\"k%d\",\"service_account\":\"app\",\"limits\":%s}", i, limits[i]);
        if (!work_make(w, c, "/lathe/v1/api_keys", body.p, &r) || json_parse(c, r.body, &root))
            return false;
        snprintf(w->keys[i], sizeof w->keys[i], STR_FMT, STR_ARG(json_get_str(root, "key")));
        snprintf(w->key_ids[i], sizeof w->key_ids[i], STR_FMT, STR_ARG(json_get_str(root, "id")));
    }
    return true;
}

void work_setup(World *w) {
    Ctx *c = client_ctx(w);
    until_answers(w, c, &w->servers[0]);
    if (!read_admin(w, c)) world_fail(w, "the administrator's key is not there");
    if (w->failed || !make_rows(w, c) || !model_setup(w, c)) return;
    while (!w->failed && !(deployment_ready(w, c, "chat") && deployment_ready(w, c, "own"))) {
        arena_reset(c->mem);
        thread_pause(c->os, WAIT_MS * 1000000);
    }
    w->ready = true;
}

// ---- working

void client_id(Client *k, char out[24]) { snprintf(out, 24, "sim-%d-%d", k->number, k->calls++); }

static void remember(World *w, const Told *t) {
    Server *s = &w->servers[t->server];
    if (t->status && t->began_ns > s->died_ns) s->answered_ns = t->at_ns; // not a dead life's
    if (w->told_n < CALLS_MAX) w->told[w->told_n++] = *t;
    w->operations++;
}

int infer(Client *k, int server, const char *key, KeyId limits) {
    World *w = k->w;
    Sim *s = w->sim;
    Told t = { .stream = sim_random(s, 2), .key = limits, .server = server };
    t.own = sim_random(s, 2);
    Call q = { &w->servers[server].at, HTTP_POST, "/v1/chat/completions", key, .id = t.id,
               .stream = t.stream };
    client_id(k, t.id);
    if (t.stream && !sim_random(s, 5)) q.leave_after = 1 + (int)sim_random(s, 10);
    q.body = arena_printf(k->c->mem,
                          "{\"model\":\"%s\",\"max_tokens\":%d,\"stream\":%s,\"messages\":[{"
                          "\"role\":\"user\",\"content\":\"say %d things\"}]}",
                          t.own ? "own" : "chat", 1 + (int)sim_random(s, 16),
                          t.stream ? "true" : "false", (int)sim_random(s, 1000));
    t.began_ns = os_mono_ns(k->c->os);
    Reply r = call(k->c, &q);
    t.status = r.status, t.tokens = r.pieces;
    t.whole = r.status == 200 && (!t.stream || r.done);
    t.at_ns = os_mono_ns(k->c->os);
    // A power cut while it was under way may have taken any of it.
    t.lost = t.began_ns <= w->servers[server].cut_ns;
    remember(w, &t);
    return t.status;
}

static void one(Client *k) {
    World *w = k->w;
    uint64_t dice = sim_random(w->sim, 20);
    if (dice < 2) change_row(k);
    else if (dice < 3) change_key(k);
    else if (dice < 4) look_at_waiting(k);
    else if (dice == 4 || (w->stalls && dice < 14)) change_deployment(k);
    else if (dice == 5 && !sim_random(w->sim, 2)) change_own(k);
    else if (dice == 5) import_again(k);
    else {
        KeyId key = dice < 8 ? KEY_POOR : dice < 10 ? KEY_SLOW : KEY_APP;
        int status = infer(k, k->server, w->keys[key], key);
        if (!status || status >= 500) k->server = (k->server + 1) % w->servers_n;
    }
}

void work_client(World *w, int number) {
    Client k = { .w = w, .c = client_ctx(w), .number = number, .server = number % w->servers_n };
    for (int i = 0; i < w->rounds && !w->failed; i++) {
        arena_reset(k.c->mem);
        one(&k);
        thread_pause(k.c->os, (int64_t)sim_random(w->sim, 400) * 1000000);
    }
    arena_free(k.c->mem);
    mem_free(k.c);
}
