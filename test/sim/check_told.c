// SPDX-License-Identifier: Apache-2.0
// check_told.c - see sim_run.h: the ledger and the audit beside what clients were told and what the
// engine did.
//   - An answer that its client has read to the end is in the ledger: one attempt that ended
//     well, and only one, with the tokens that the engine billed for this request.
//   - The engine did nothing that is not in the ledger, attempt for attempt, and nothing at all for
//     a request that was refused.
//   - No key has spent more on a day than it may.
//   - A change that was answered has its one audit entry; one that was refused has none.
// What a power cut may have taken is left out.
#include "sim_run.h"
#include "base/map.h"
#include "base/time.h"
#include <stdio.h>

enum { TARGET_MAX = 200, DAYS = 4, REQUEST_ATTEMPTS = 8 };

// ---- the ledger

typedef struct Billed { // of one request
    int attempts, good;
    int64_t prompt, written; // of the good one
} Billed;
typedef struct Ledger {
    Map of;                    // request -> Billed
    int64_t spent[KEYS][DAYS]; // nano; days from the first on
    int64_t first_day;
} Ledger;

static void spend(Look *l, Ledger *all, yyjson_val *row) {
    int64_t cost = 0, at_ms = 0;
    int key = 0;
    while (key < KEYS && !str_is(json_get_str(row, "key_id"), l->w->key_ids[key])) key++;
    if (key == KEYS) return;
    if (!money_parse(json_get_str(row, "cost"), &cost)
        || !time_parse(json_get_str(row, "started_at"), &at_ms)) {
        world_fail(l->w, "a usage row's cost or time is no such");
        return;
    }
    int64_t day = time_day(at_ms) - all->first_day;
    if (day >= 0 && day < DAYS) all->spent[key][day] += cost;
}

static void read_usage(Look *l, yyjson_val *row, void *arg) {
    Ledger *all = arg;
    str id = json_get_str(row, "request_id");
    Billed *b = map_get(&all->of, id);
    if (!b) {
        b = mem_new(sizeof *b);
        map_set(&all->of, str_z(mem_strdup(id)), b);
    }
    b->attempts++;
    spend(l, all, row);
    if (!str_is(json_get_str(row, "outcome"), "ok")) return;
    b->good++;
    json_get_i64(row, "prompt_tokens", &b->prompt);
    json_get_i64(row, "completion_tokens", &b->written);
}

static void check_budget(World *w, const Ledger *all) {
    // State of limits is each server's own (res/limiter.h).
    int64_t most = 800000 * (int64_t)w->servers_n;
    for (int day = 0; day < DAYS; day++)
        if (all->spent[KEY_POOR][day] > most)
            world_fail(w, "a key that may spend %lld has spent %lld in one day", (long long)most,
                       (long long)all->spent[KEY_POOR][day]);
}

// ---- request by request

static void check_one(Look *l, const Told *t, const Billed *b) {
    char target[TARGET_MAX];
    yyjson_val *root = NULL;
    int64_t prompt = 0, written = 0;
    World *w = l->w;
    snprintf(target, sizeof target, "/fake/requests/%s", t->id);
    Reply r = ask(l->c, &w->engine, HTTP_GET, target, NULL, (str){ 0 });
    bool told = r.status == 404 || (r.status == 200 && !json_parse(l->c, r.body, &root));
    if (!told) world_fail(w, "%s: %d %s", target, r.status, r.why ? r.why : "");
    const char *records = arena_z(l->c->mem, str_sub(r.body, 0, 1200));
    int done = (int)yyjson_arr_size(root);
    bool refused = t->status == 401 || t->status == 429;
    if (refused && done)
        world_fail(w, "request %s was refused with %d and is at the engine: %s", t->id, t->status,
                   records);
    else if (done > b->attempts)
        world_fail(w,
                   "request %s (%d; %lld to %lld ms) is %d times at the engine and %d times in the "
                   "ledger: %s",
                   t->id, t->status, (long long)(t->began_ns / 1000000),
                   (long long)(t->at_ns / 1000000), done, b->attempts, records);
    if (!t->whole || w->failed) return;
    yyjson_val *record = yyjson_arr_get_first(root); // the newest: a repeated attempt's
    json_get_i64(record, "prompt_tokens", &prompt);
    json_get_i64(record, "completion_tokens", &written);
    if (b->good != 1)
        world_fail(
            w, "request %s was answered whole by %s at %lld ms, in the ledger %d times, %d well",
            t->id, w->servers[t->server].at.text, (long long)(t->at_ns / 1000000), b->attempts,
            b->good);
    else if (!done || b->prompt != prompt || b->written != written)
        world_fail(w,
                   "request %s: the ledger has %lld + %lld tokens, the engine billed %lld + %lld",
                   t->id, (long long)b->prompt, (long long)b->written, (long long)prompt,
                   (long long)written);
}

void check_told(Look *l) {
    World *w = l->w;
    Ledger all = { .first_day = time_day(1767225600000) - 1 };
    map_init(&all.of, w->seed);
    look_each(l, "/lathe/v1/usage", read_usage, &all);
    check_budget(w, &all);
    for (size_t i = 0; i < w->told_n && !w->failed; i++) {
        static const Billed none;
        const Told *t = &w->told[i];
        const Billed *b = map_get(&all.of, str_z(t->id));
        arena_reset(l->c->mem);
        if (!t->lost) check_one(l, t, b ? b : &none);
    }
}

// ---- changes

static void count_entry(Look *l, yyjson_val *row, void *arg) {
    str id = json_get_str(row, "request_id");
    Map *entries = arg;
    (void)l;
    int *n = map_get(entries, id);
    if (!n) {
        n = mem_new(sizeof *n);
        map_set(entries, str_z(mem_strdup(id)), n);
    }
    ++*n;
}

void check_changes(Look *l) {
    World *w = l->w;
    Map entries;
    map_init(&entries, w->seed);
    look_each(l, "/lathe/v1/audit_entries", count_entry, &entries);
    for (size_t i = 0; i < w->changes_n && !w->failed; i++) {
        const Change *now = &w->changes[i];
        const int *n = map_get(&entries, str_z(now->id));
        int there = n ? *n : 0;
        bool done = now->status >= 200 && now->status < 300;
        if (now->status ? there != done : there > 1)
            world_fail(w, "%s %s was answered %d and is %d times in the audit", now->verb, now->id,
                       now->status, there);
    }
}
