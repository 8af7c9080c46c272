// SPDX-License-Identifier: Apache-2.0
// ledger.c - every inference request: what it asked, how it ended, and the tokens that it cost.
// Sums are for ever; single records are kept for the last `keep` of them.
// Owner: the Engine. Threads: the loop's.
#include "fake.h"
#include <assert.h>

enum { FOUND_MAX = 1000 };

// A simulation looks on, for an engine's memory dies with it: at each beginning and end.
void (*ledger_watch)(const Record *r);

struct Ledger {
    Record *records;
    size_t keep, next;
    Map by_id; // the newest of that id
    int64_t requests, prompt_tokens, completion_tokens, told_tokens, active;
    struct {
        int64_t requests, prompt_tokens, completion_tokens, told_tokens;
    } by[OUT__COUNT];
};

static const char *const names[OUT__COUNT] = {
    [OUT_ACTIVE] = "active",
    [OUT_FINISHED] = "finished",
    [OUT_REFUSED] = "refused",
    [OUT_FAILED] = "failed",
    [OUT_CUT] = "cut",
    [OUT_DISCONNECTED] = "disconnected",
    [OUT_LEFT_QUEUE] = "left_queue",
};

Ledger *ledger_new(Os *os, int64_t keep) {
    assert(keep > 0);
    uint64_t seed;
    os_random(os, &seed, sizeof seed);
    Ledger *l = mem_new(sizeof *l);
    l->keep = (size_t)keep;
    l->records = mem_new(l->keep * sizeof *l->records);
    map_init(&l->by_id, seed);
    return l;
}
void ledger_free(Ledger *l) {
    map_done(&l->by_id);
    mem_free(l->records);
    mem_free(l);
}

static void forget(Ledger *l, Record *r) {
    if (!*r->id) return;
    if (r->older) r->older->newer = r->newer;
    if (r->newer) {
        r->newer->older = r->older;
        return;
    }
    map_del(&l->by_id, str_z(r->id));
    if (r->older) map_set(&l->by_id, str_z(r->older->id), r->older);
}

Record *ledger_open(Ledger *l, str id, const char *path) {
    assert(l->active < (int64_t)l->keep); // connections are fewer
    Record *r;
    do {
        r = &l->records[l->next];
        l->next = (l->next + 1) % l->keep;
    } while (*r->id && r->outcome == OUT_ACTIVE);
    forget(l, r);
    *r = (Record){ .path = path, .ordinal = l->requests++ };
    str kept = str_sub(id, 0, sizeof r->id - 1);
    memcpy(r->id, kept.p, kept.n);
    // The map borrows its key: the newest record's, which lives longest.
    r->older = map_del(&l->by_id, str_z(r->id));
    if (r->older) r->older->newer = r;
    map_set(&l->by_id, str_z(r->id), r);
    l->active++;
    if (ledger_watch) ledger_watch(r);
    return r;
}

void ledger_close(Ledger *l, Record *r, Outcome outcome) {
    assert(r->outcome == OUT_ACTIVE && outcome != OUT_ACTIVE);
    r->outcome = outcome;
    l->active--;
    l->prompt_tokens += r->prompt_tokens;
    l->completion_tokens += r->completion_tokens;
    l->told_tokens += r->told_tokens;
    l->by[outcome].requests++;
    l->by[outcome].prompt_tokens += r->prompt_tokens;
    l->by[outcome].completion_tokens += r->completion_tokens;
    l->by[outcome].told_tokens += r->told_tokens;
    if (ledger_watch) ledger_watch(r);
}

int64_t ledger_completion(const Ledger *l) { return l->completion_tokens; }
int64_t ledger_prompt(const Ledger *l) { return l->prompt_tokens; }

void ledger_json(const Ledger *l, Json *j) {
    json_obj(j);
    json_kv_i64(j, "requests", l->requests);
    json_kv_i64(j, "active", l->active);
    json_kv_i64(j, "prompt_tokens", l->prompt_tokens);
    json_kv_i64(j, "completion_tokens", l->completion_tokens);
    json_kv_i64(j, "told_tokens", l->told_tokens);
    json_key(j, "outcomes");
    json_obj(j);
    for (int i = OUT_FINISHED; i < OUT__COUNT; i++) {
        json_key(j, names[i]);
        json_obj(j);
        json_kv_i64(j, "requests", l->by[i].requests);
        json_kv_i64(j, "prompt_tokens", l->by[i].prompt_tokens);
        json_kv_i64(j, "completion_tokens", l->by[i].completion_tokens);
        json_kv_i64(j, "told_tokens", l->by[i].told_tokens);
        json_end_obj(j);
    }
    json_end_obj(j);
    json_end_obj(j);
}

bool ledger_find(const Ledger *l, str id, Json *j) {
    const Record *r = map_get(&l->by_id, id);
    if (!r) return false;
    json_arr(j);
    for (int i = 0; r && i < FOUND_MAX; r = r->older, i++) {
        json_obj(j);
        json_kv_z(j, "id", r->id);
        json_kv_z(j, "path", r->path);
        json_kv_i64(j, "ordinal", r->ordinal);
        json_kv_bool(j, "stream", r->stream);
        json_kv_z(j, "outcome", names[r->outcome]);
        json_kv_str(j, "finish_reason", str_z(r->finish));
        json_kv_i64(j, "prompt_tokens", r->prompt_tokens);
        json_kv_i64(j, "completion_tokens", r->completion_tokens);
        json_kv_i64(j, "told_tokens", r->told_tokens);
        json_end_obj(j);
    }
    json_end_arr(j);
    return true;
}
