// SPDX-License-Identifier: Apache-2.0
// admit.c - memory: what a replica will need, what is free for it, and how many fit. The kernel
// calls mapped weights available although an engine reads all of them for each token, so two bounds
// hold: what the machine has left, less what starting replicas have yet to take; and all of the
// machine, less all that our replicas need.
// Owner: nothing is kept. Threads: any.
#include "mod/deployment/decide.h"
#include <assert.h>

// An engine's q8_0 cache has blocks of 32 numbers, so a head's width must be a multiple of it.
static bool allows_q8(const VersionInfo *v) {
    bool known = v->key_length > 0 && v->value_length > 0;
    return known && v->key_length % 32 == 0 && v->value_length % 32 == 0;
}

static int task_of(const Deployment *d, const VersionInfo *v) {
    if (d->task >= 0) return d->task;
    if (!v) return TASK_CHAT;
    return v->embedder ? TASK_EMBEDDING : v->can_chat ? TASK_CHAT : TASK_COMPLETION;
}

void serving_of(const Deployment *d, const VersionInfo *v, Serving *out) {
    *out = (Serving){ .task = task_of(d, v), .context = d->context, .generation = d->rollout };
    if (d->context <= 0) {
        bool shorter = v && v->context > 0 && v->context < CONTEXT_DEFAULT;
        out->context = shorter ? v->context : CONTEXT_DEFAULT;
    }
    if (!v) return;
    out->version = v->id, out->digest = v->digest;
    out->size_bytes = v->size_bytes;
    out->model = v->model;
    bool embeds = out->task == TASK_EMBEDDING;
    out->pool_mean = embeds && !v->embedder;
    bool q8 = d->cache == CACHE_Q8 || d->cache == CACHE_AUTO;
    out->cache_q8 = q8 && !embeds && allows_q8(v);
}

int64_t memory_needed(const VersionInfo *v, const Serving *s, int64_t slots) {
    GgufFacts facts = v->facts;
    if (s->task == TASK_EMBEDDING) facts.embedder = true;
    return gguf_memory_bytes(&facts, s->context, slots, s->cache_q8 ? "q8_0" : "f16");
}

void memory_add(Memory *m, const ReplicaRow *r) {
    bool live = r->state != AT_WAITING && r->state != AT_GONE;
    if (!live || r->memory_needed <= 0) return;
    if (__builtin_add_overflow(m->held, r->memory_needed, &m->held)) m->held = INT64_MAX;
    if (r->state != AT_STARTING || r->memory_needed <= r->memory_bytes) return;
    int64_t more = r->memory_needed - r->memory_bytes;
    if (__builtin_add_overflow(m->promised, more, &m->promised)) m->promised = INT64_MAX;
}

static int64_t rest(int64_t all, int64_t used, int64_t reserve) {
    int64_t left = all - reserve;
    return left <= used || left <= 0 ? 0 : left - used;
}

int64_t memory_free(const Memory *m, int64_t reserve) {
    assert(m->held >= 0 && m->promised >= 0);
    if (!m->available && !m->total) return INT64_MAX;
    int64_t now = m->available ? rest(m->available, m->promised, reserve) : INT64_MAX;
    int64_t ever = m->total ? rest(m->total, m->held, reserve) : INT64_MAX;
    return now < ever ? now : ever;
}

int64_t memory_room(int64_t free_bytes, int64_t needed, int64_t most) {
    if (needed <= 0) return most;
    int64_t n = free_bytes / needed;
    return n < most ? n : most;
}
