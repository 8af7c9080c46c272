// SPDX-License-Identifier: Apache-2.0
// check.c - see sim_run.h: what must hold once faults are over.
//   - The deployment becomes ready again, by itself.
//   - An answer that its client has read to the end is in the ledger: one attempt that ended
//     well, and only one, with the tokens that the engine billed for this request.
//   - No attempt is in the ledger twice, and none stays open.
#include "sim_run.h"
#include "os/thread.h"
#include <stdio.h>

enum { LOOK_MS = 500, TARGET_MAX = 200 };

typedef struct Look {
    World *w;
    Ctx *c;
} Look;

static bool get(Look *l, const Addr *to, const char *target, yyjson_val **out) {
    const char *key = to == &l->w->lathe ? l->w->admin : NULL;
    Reply r = ask(l->c, to, HTTP_GET, target, key, (str){ 0 });
    snprintf(l->w->waits, sizeof l->w->waits, "%s: %d %s " STR_FMT, target, r.status,
             r.why ? r.why : "", STR_ARG(str_sub(r.body, 0, 1200)));
    return r.status == 200 && !json_parse(l->c, r.body, out);
}

static void until(Look *l, bool (*holds)(Look *)) {
    while (!l->w->failed && !holds(l)) {
        arena_reset(l->c->mem);
        thread_pause(l->c->os, LOOK_MS * 1000000);
    }
    arena_reset(l->c->mem);
}

static bool is_ready(Look *l) {
    yyjson_val *d;
    return get(l, &l->w->lathe, "/lathe/v1/deployments/chat", &d)
           && str_is(json_get_str(d, "state"), "ready");
}

// What the engine billed for one request: its newest record, which a repeated attempt left.
static bool billed(Look *l, const Told *t, int64_t *out_prompt, int64_t *out_written) {
    char target[TARGET_MAX];
    yyjson_val *root;
    snprintf(target, sizeof target, "/fake/requests/%s", t->id);
    if (!get(l, &l->w->engine, target, &root)) return false;
    yyjson_val *record = yyjson_arr_get_first(root);
    return json_get_i64(record, "prompt_tokens", out_prompt)
           && json_get_i64(record, "completion_tokens", out_written);
}

static void check_told(Look *l, const Told *t) {
    char target[TARGET_MAX], ledger[sizeof l->w->waits];
    yyjson_val *root, *row;
    int64_t prompt = 0, written = 0, got_prompt = 0, got_written = 0;
    size_t i, n, good = 0;
    snprintf(target, sizeof target, "/lathe/v1/usage?request_id=%s&limit=20", t->id);
    bool there = get(l, &l->w->lathe, target, &root);
    snprintf(ledger, sizeof ledger, "%s", l->w->waits);
    if (!there || !billed(l, t, &prompt, &written)) {
        world_fail(l->w, "%s", l->w->waits);
        return;
    }
    yyjson_arr_foreach(json_get(root, "data"), i, n, row) {
        if (!str_is(json_get_str(row, "outcome"), "ok")) continue;
        good++;
        json_get_i64(row, "prompt_tokens", &got_prompt);
        json_get_i64(row, "completion_tokens", &got_written);
    }
    if (good != 1)
        world_fail(l->w, "request %s was answered whole and is %zu times in the ledger: %s", t->id,
                   good, ledger);
    else if (got_prompt != prompt || got_written != written)
        world_fail(l->w,
                   "request %s: the ledger has %lld + %lld tokens, the engine billed %lld + %lld",
                   t->id, (long long)got_prompt, (long long)got_written, (long long)prompt,
                   (long long)written);
}

// The fold has caught up with the newest answer that came whole.
static bool is_folded(Look *l) {
    char target[TARGET_MAX];
    yyjson_val *root;
    const Told *last = NULL;
    for (size_t i = 0; i < l->w->told_n; i++)
        if (l->w->told[i].whole && !l->w->told[i].lost) last = &l->w->told[i];
    if (!last) return true;
    snprintf(target, sizeof target, "/lathe/v1/usage?request_id=%s", last->id);
    return get(l, &l->w->lathe, target, &root) && yyjson_arr_size(json_get(root, "data"));
}

void check_end(World *w) {
    Ctx c;
    ctx_init(&c, arena_new(), sim_node(w->sim, NODE_CLIENT));
    Look l = { w, &c };
    until(&l, is_ready);
    until(&l, is_folded);
    for (size_t i = 0; i < w->told_n && !w->failed; i++) {
        arena_reset(c.mem);
        if (w->told[i].whole && !w->told[i].lost) check_told(&l, &w->told[i]);
    }
    arena_free(c.mem);
}
