// SPDX-License-Identifier: Apache-2.0
// order.c - in which order one request asks a route's targets, where that depends on how they are
// doing or on what is asked: by load, by latency (the better of two drawn at random, Mitzenmacher,
// "The Power of Two Choices"), by cost, or the same target for the same conversation (weighted
// rendezvous hashing: Thaler and Ravishankar; Schindelhauer and Schomaker). What cannot answer now,
// or failed several times in a row, comes last whatever the strategy. Threads: any.
#include "mod/gateway/order.h"
#include "mod/gateway/health.h"
#include <assert.h>

typedef struct Scored {
    const DeploymentEntry *d;
    double score; // the least is asked first
} Scored;

// ---- chances: the same on every server
enum { DICE = 0x64696365, TALK = 0x74616c6b };

uint64_t order_dice(const Flow *f) { return str_hash_seed(f->c->request_id, DICE); }

static uint64_t mix(uint64_t h, str s) { return str_hash_seed(s, h); }

// ---- which conversation it is
static bool ends_prefix(yyjson_val *message) {
    return str_is(json_get_str(message, "role"), "user");
}

// What stays the same from turn to turn: everything up to the first thing that the user said.
static uint64_t prefix_of(const Flow *f) {
    enum { LOOKED_AT = 8, LOOKED_AT_BYTES = 4096 };
    static const char *const lists[] = { "messages", "input" };
    uint64_t h = mix(TALK, json_get_str(f->in.root, "prompt"));
    h = mix(h, json_get_str(f->in.root, "input"));
    for (size_t k = 0; k < countof(lists); k++) {
        size_t i, n;
        yyjson_val *one;
        yyjson_arr_foreach(json_get(f->in.root, lists[k]), i, n, one) {
            if (i == LOOKED_AT) break;
            yyjson_val *said = json_get(one, "content");
            str text = yyjson_is_str(said) ? json_str(said) : json_text(f->c->mem, said);
            h = mix(h, str_sub(text, 0, LOOKED_AT_BYTES));
            if (ends_prefix(one)) break;
        }
    }
    return h;
}

static uint64_t conversation(const Flow *f) {
    str session = f->x ? http_header(exchange_request(f->x), "lathe-session") : (str){ 0 };
    if (session.n) return mix(TALK, session);
    if (f->in.user.n) return mix(TALK, f->in.user);
    return f->in.root ? prefix_of(f) : order_dice(f);
}

// ---- scores
static double busy(const LineFigures *now, const DeploymentEntry *d) {
    enum { SLOTS_SAID_MAX = 1000 }; // as many as come
    double slots = (double)d->slots * (double)(now->ready ? now->ready : 1);
    if (slots > SLOTS_SAID_MAX || slots < 1) slots = SLOTS_SAID_MAX;
    return (double)(now->running + now->waiting + 1) / slots;
}

static int64_t weight_of(const RouteEntry *r, str deployment) {
    for (size_t i = 0; i < r->targets_n; i++)
        if (str_eq(r->targets[i].deployment, deployment)) return r->targets[i].weight;
    return 0;
}

static double sticks(const RouteEntry *r, const DeploymentEntry *d, uint64_t key) {
    int64_t weight = weight_of(r, d->id);
    double u = ((double)(mix(key, d->id) >> 11) + 1) / 9007199254740994.0; // in (0, 1)
    return weight > 0 ? -log(u) / (double)weight : 1e300;
}

static void score(const Flow *f, Scored *all, size_t n, int64_t now_ns) {
    uint64_t key = f->route->strategy == STRATEGY_STICKY ? conversation(f) : 0;
    for (size_t i = 0; i < n; i++) {
        const DeploymentEntry *d = all[i].d;
        LineFigures now;
        line_ask(d, now_ns, &now);
        switch (f->route->strategy) {
        case STRATEGY_LEAST_BUSY: all[i].score = busy(&now, d); break;
        case STRATEGY_LOWEST_LATENCY:
            all[i].score = (double)(health_of(d->id, now_ns).latency_us + 1)
                           * (double)(now.running + now.waiting + 1);
            break;
        case STRATEGY_LOWEST_COST: all[i].score = (double)flow_cost_at(f, d); break;
        case STRATEGY_STICKY: all[i].score = sticks(f->route, d, key); break;
        default: all[i].score = (double)i;
        }
    }
}

static void sort(Scored *all, size_t n) { // stable; n is at most ROUTE_TARGETS_MAX
    for (size_t i = 1; i < n; i++)
        for (size_t k = i; k && all[k].score < all[k - 1].score; k--) {
            Scored was = all[k];
            all[k] = all[k - 1], all[k - 1] = was;
        }
}

// Equal ones take turns by chance.
static void shuffle(const Flow *f, Scored *all, size_t n) {
    for (size_t i = n; i > 1; i--) {
        size_t k = mix(DICE + i, f->c->request_id) % i;
        Scored was = all[i - 1];
        all[i - 1] = all[k], all[k] = was;
    }
}

// ---- who comes last
static void put_last(const DeploymentEntry **plan, size_t n, size_t at) {
    const DeploymentEntry *d = plan[at];
    memmove(&plan[at], &plan[at + 1], (n - 1 - at) * sizeof *plan);
    plan[n - 1] = d;
}

static bool rests(const DeploymentEntry *d, int64_t now_ns) {
    LineFigures now;
    return health_of(d->id, now_ns).breaker == BREAKER_OPEN
           || line_ask(d, now_ns, &now) == LINE_NONE;
}

static void rested_last(Flow *f, int64_t now_ns) {
    size_t at = 0;
    for (size_t seen = 0; seen < f->plan_n; seen++) {
        if (rests(f->plan[at], now_ns)) put_last(f->plan, f->plan_n, at);
        else at++;
    }
    // Of one that is half open one request finds out; whoever only asks why does not.
    bool half = health_of(f->plan[0]->id, now_ns).breaker == BREAKER_HALF;
    if (half && f->x && !health_try(f->plan[0]->id, now_ns)) put_last(f->plan, f->plan_n, 0);
}

void order_plan(Flow *f) {
    Scored all[ROUTE_TARGETS_MAX];
    size_t n = f->plan_n;
    int64_t now_ns = os_mono_ns(f->c->os);
    assert(f->route && n <= ROUTE_TARGETS_MAX);
    if (n < 2) return;
    for (size_t i = 0; i < n; i++) all[i] = (Scored){ .d = f->plan[i] };
    Strategy how = f->route->strategy;
    bool scores = how != STRATEGY_ORDERED && how != STRATEGY_WEIGHTED;
    if (scores) shuffle(f, all, n);
    score(f, all, n, now_ns);
    // Of all the fastest would have everybody at once: the faster of two is asked.
    sort(all, how == STRATEGY_LOWEST_LATENCY ? 2 : n);
    for (size_t i = 0; i < n; i++) f->plan[i] = all[i].d;
    rested_last(f, now_ns);
}
