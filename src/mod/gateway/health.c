// SPDX-License-Identifier: Apache-2.0
// health.c - see health.h. The latency is Finagle's Peak EWMA (Twitter): a slower answer counts at
// once, faster ones and silence wear it off, so that what was slow is tried again. Owner: one
// table; what nobody asked of for an hour goes when room is needed.
#include "mod/gateway/health.h"
#include "base/arena.h"
#include "base/map.h"
#include <assert.h>
#include <math.h>
#include <pthread.h>

#define SECOND_NS INT64_C(1000000000)
enum { KNOWN_MAX = 4096, LONGER_MAX = 4, REST_MAX_MS = 300000 };
static const double DECAY_NS = 10e9;

typedef struct Known {
    double latency_ns;
    int64_t stamp_ns;           // of the latency, and of the last answer
    int64_t failures, until_ns; // open or being tried until then
    int64_t open_ms;            // as it was opened last
    bool open;
    char id[];
} Known;

static struct {
    pthread_mutex_t lock;
    Map map;
    bool begun;
} table = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void forget_old(int64_t now_ns) {
    MapEntry *e;
    for (size_t i = 0; map_each(&table.map, &i, &e);) {
        Known *k = e->value;
        if (now_ns - k->stamp_ns < 3600 * SECOND_NS && table.map.live <= KNOWN_MAX) continue;
        map_del(&table.map, e->key);
        mem_free(k);
    }
}

static Known *find(str id) { return table.begun ? map_get(&table.map, id) : NULL; }

static Known *known(str id, int64_t now_ns) {
    Known *k = find(id);
    if (k) return k;
    if (!table.begun) map_init(&table.map, 0x6865616c7468), table.begun = true;
    if (table.map.live >= KNOWN_MAX) forget_old(now_ns);
    k = mem_new(sizeof *k + id.n + 1);
    memcpy(k->id, id.p, id.n);
    k->stamp_ns = now_ns;
    map_set(&table.map, str_n(k->id, id.n), k);
    return k;
}

static double worn(const Known *k, int64_t now_ns) {
    double gone = (double)(now_ns - k->stamp_ns);
    return gone > 0 ? k->latency_ns * exp(-gone / DECAY_NS) : k->latency_ns;
}

void health_ok(str id, int64_t first_ns, int64_t now_ns) {
    double took = first_ns > 0 ? (double)first_ns : 0;
    pthread_mutex_lock(&table.lock);
    Known *k = known(id, now_ns);
    double gone = (double)(now_ns - k->stamp_ns), keep = exp(-(gone > 0 ? gone : 0) / DECAY_NS);
    k->latency_ns = took > k->latency_ns ? took : k->latency_ns * keep + took * (1 - keep);
    k->stamp_ns = now_ns;
    k->failures = 0, k->open = false;
    pthread_mutex_unlock(&table.lock);
}

void health_failed(str id, int64_t retry_after_ms, int64_t most, int64_t open_ms, int64_t now_ns) {
    pthread_mutex_lock(&table.lock);
    Known *k = known(id, now_ns);
    int64_t longer = ++k->failures - most;
    if (most && (longer >= 0 || retry_after_ms)) {
        k->open = true;
        k->open_ms = open_ms << (longer < 0 ? 0 : longer < LONGER_MAX ? longer : LONGER_MAX);
        if (retry_after_ms > k->open_ms) k->open_ms = retry_after_ms;
        if (k->open_ms > REST_MAX_MS) k->open_ms = REST_MAX_MS;
        k->until_ns = now_ns + k->open_ms * 1000000;
    }
    pthread_mutex_unlock(&table.lock);
}

Health health_of(str id, int64_t now_ns) {
    Health h = { 0 };
    pthread_mutex_lock(&table.lock);
    const Known *k = find(id);
    if (k) {
        h.failures = k->failures, h.latency_us = (int64_t)(worn(k, now_ns) / 1000);
        h.breaker = !k->open ? BREAKER_CLOSED : now_ns < k->until_ns ? BREAKER_OPEN : BREAKER_HALF;
        if (h.breaker == BREAKER_OPEN) h.open_ms = (k->until_ns - now_ns + 999999) / 1000000;
    }
    pthread_mutex_unlock(&table.lock);
    return h;
}

bool health_try(str id, int64_t now_ns) {
    pthread_mutex_lock(&table.lock);
    Known *k = find(id);
    bool mine = k && k->open && now_ns >= k->until_ns;
    if (mine) k->until_ns = now_ns + k->open_ms * 1000000;
    pthread_mutex_unlock(&table.lock);
    return mine;
}
