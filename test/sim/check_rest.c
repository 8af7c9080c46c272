// SPDX-License-Identifier: Apache-2.0
// check_rest.c - see sim_run.h: when no request is under way, nothing is held for one.
//   - No slot of a replica is taken and nobody stands in a line, on every server.
//   - Money that was set aside is free again: what a key may still spend and what it has spent make
//     up its budget. With one server, for each keeps its own account.
#include "base/time.h"
#include "os/thread.h"
#include "sim_run.h"

enum { LOOK_MS = 500, LOOKS = 40 };

// The sum over all of a metric's lines; -1: it was not told.
static int64_t metric_sum(Look *l, const Server *s, const char *name) {
    Reply r = ask(l->c, &s->at, HTTP_GET, "/metrics", l->w->admin, (str){ 0 });
    str rest = r.body, line;
    int64_t sum = 0, n;
    if (r.status != 200) return -1;
    while (str_cut(&rest, '\n', &line)) {
        size_t at = line.n;
        if (!str_starts(line, str_z(name))) continue;
        while (at && line.p[at - 1] != ' ') at--;
        if (str_to_i64(str_sub(line, at, line.n), &n)) sum += n;
    }
    return sum;
}

static void check_slots(Look *l, const Server *s) {
    static const char *const names[] = { "lathe_gateway_requests_running",
                                         "lathe_gateway_queue_waiting" };
    for (size_t i = 0; i < countof(names); i++) {
        int64_t n = -1;
        for (int k = 0; k < LOOKS && n && !l->w->failed; k++) {
            if (k) thread_pause(l->c->os, LOOK_MS * INT64_C(1000000));
            arena_reset(l->c->mem);
            n = metric_sum(l, s, names[i]);
        }
        if (n) world_fail(l->w, "%s of %s is %lld at rest", names[i], s->at.text, (long long)n);
    }
}

// A request that may cost more than the whole budget is refused, with what is left.
static void check_money(Look *l, const Server *s) {
    World *w = l->w;
    int64_t left = -1;
    bool fits = false;
    Reply r = ask(l->c, &s->at, HTTP_POST, "/v1/chat/completions", w->keys[KEY_POOR],
                  S("{\"model\":\"chat\",\"max_tokens\":1000000,\"messages\":[{\"role\":\"user\","
                    "\"content\":\"all\"}]}"));
    if (r.status != 429 || !money_parse(r.money, &left)) {
        world_fail(w, "what a key may spend is not told: %d, %s " STR_FMT, r.status,
                   r.why ? r.why : "", STR_ARG(r.body));
        return;
    }
    for (int day = 0; day < TOLD_DAYS && !w->failed; day++)
        fits |= left + told_spent(l, KEY_POOR, day) == BUDGET_NANO;
    if (!fits && !w->failed)
        world_fail(w, "a key may spend %lld more: that and what it spent is not its budget",
                   (long long)left);
}

void check_rest(Look *l) {
    for (int i = 0; i < l->w->servers_n && !l->w->failed; i++) check_slots(l, &l->w->servers[i]);
    if (l->w->servers_n == 1 && !l->w->failed) check_money(l, &l->w->servers[0]);
}
