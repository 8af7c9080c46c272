// SPDX-License-Identifier: Apache-2.0
// check_told.c - see sim_run.h: the ledger and the audit beside what clients were told and what the
// engine did.
//   - An answer that its client has read to the end is in the ledger: one attempt that ended
//     well, and only one, with the tokens that the engine billed for this request.
//   - The engine did nothing that is not in the ledger, attempt for attempt, and nothing at all for
//     a request that was refused.
//   - No key has spent more on a day than it may.
//   - A change that was answered has its one audit entry; one that was refused has none.
// What a power cut may have taken is left out; where it took an answer, the audit has a gap.
#include "sim_run.h"
#include "base/map.h"
#include "base/time.h"
#include <stdio.h>

enum { DAYS = TOLD_DAYS };

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
    int64_t most = BUDGET_NANO * (int64_t)w->servers_n;
    for (int day = 0; day < DAYS; day++)
        if (all->spent[KEY_POOR][day] > most)
            world_fail(w, "a key that may spend %lld has spent %lld in one day", (long long)most,
                       (long long)all->spent[KEY_POOR][day]);
}

// ---- request by request

typedef struct Ran { // what engines did for one request
    int times;
    const Run *last; // a repeated attempt's
} Ran;

static void count_runs(const World *w, Map *of) {
    for (size_t i = 0; i < w->runs_n; i++) {
        const Run *run = &w->runs[i];
        Ran *ran = map_get(of, str_z(run->id));
        if (!ran) ran = mem_new(sizeof *ran), map_set(of, str_z(run->id), ran);
        ran->times++, ran->last = run;
    }
}

static void check_one(World *w, const Told *t, const Billed *b, const Ran *ran) {
    bool refused = t->status == 401 || t->status == 429;
    if (refused && ran->times)
        world_fail(w, "request %s was refused with %d and is at the engine", t->id, t->status);
    else if (ran->times > b->attempts)
        world_fail(w,
                   "request %s (%d; %lld to %lld ms) is %d times at the engine and %d times in the "
                   "ledger",
                   t->id, t->status, (long long)(t->began_ns / 1000000),
                   (long long)(t->at_ns / 1000000), ran->times, b->attempts);
    if (!t->whole || w->failed) return;
    if (b->good != 1)
        world_fail(
            w, "request %s was answered whole by %s at %lld ms, in the ledger %d times, %d well",
            t->id, w->servers[t->server].at.text, (long long)(t->at_ns / 1000000), b->attempts,
            b->good);
    else if (!ran->times || b->prompt != ran->last->prompt || b->written != ran->last->written)
        world_fail(w,
                   "request %s: the ledger has %lld + %lld tokens, the engine billed %lld + %lld",
                   t->id, (long long)b->prompt, (long long)b->written,
                   (long long)(ran->times ? ran->last->prompt : 0),
                   (long long)(ran->times ? ran->last->written : 0));
}

static void find_gap(Look *l, yyjson_val *row, void *arg) {
    (void)l;
    *(bool *)arg |= str_is(json_get_str(row, "kind"), "journal");
}

static void check_gap(Look *l, const char *missing) {
    bool told = false;
    look_each(l, "/lathe/v1/system_audit_entries", find_gap, &told);
    if (!told && !l->w->failed)
        world_fail(l->w, "the power took the answer of %s, and the audit does not say so", missing);
}

int64_t told_spent(Look *l, KeyId key, int day) {
    Ledger all = { .first_day = time_day(1767225600000) - 1 };
    map_init(&all.of, l->w->seed);
    look_each(l, "/lathe/v1/usage", read_usage, &all);
    return all.spent[key][day];
}

void check_told(Look *l) {
    World *w = l->w;
    Ledger all = { .first_day = time_day(1767225600000) - 1 };
    Map runs;
    const char *missing = NULL;
    map_init(&all.of, w->seed), map_init(&runs, w->seed);
    look_each(l, "/lathe/v1/usage", read_usage, &all);
    check_budget(w, &all);
    count_runs(w, &runs);
    for (size_t i = 0; i < w->told_n && !w->failed; i++) {
        static const Billed none;
        static const Ran never;
        const Told *t = &w->told[i];
        const Billed *b = map_get(&all.of, str_z(t->id));
        const Ran *ran = map_get(&runs, str_z(t->id));
        if (!t->lost) check_one(w, t, b ? b : &none, ran ? ran : &never);
        if (t->cut && t->whole && (!b || !b->good)) missing = t->id;
    }
    if (missing) check_gap(l, missing);
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
