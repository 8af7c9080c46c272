// SPDX-License-Identifier: Apache-2.0
// stmt_cache.c - prepared statements of one connection. Leaves preparing and releasing to the
// backend. Owner: the connection. Threads: the connection's.
#include "db/db_impl.h"
#include <assert.h>

static Stmt **bucket_of(StmtCache *cache, const Sql *sql) {
    uintptr_t at = (uintptr_t)sql / sizeof(Sql);
    return &cache->buckets[(at ^ at >> 6) % STMT_BUCKETS];
}

static void drop(StmtCache *cache, Stmt *s) {
    assert(!s->busy);
    cache->drop(cache->owner, s);
    mem_free(s->text);
    mem_free(s);
}

static void unlink_stmt(StmtCache *cache, Stmt **link) {
    Stmt *s = *link;
    *link = s->next;
    cache->n--;
    assert(cache->n >= 0);
    drop(cache, s);
}

// Where the statement of this row hangs, or NULL.
static Stmt **find(StmtCache *cache, const Sql *sql) {
    for (Stmt **link = bucket_of(cache, sql); *link; link = &(*link)->next)
        if ((*link)->sql == sql) return link;
    return NULL;
}

Stmt *stmt_take(StmtCache *cache, const Sql *sql, const char *text) {
    Stmt **link = find(cache, sql);
    if (!link || (*link)->busy) return NULL;
    if (strcmp((*link)->text, text)) {
        unlink_stmt(cache, link);
        return NULL;
    }
    (*link)->busy = true;
    (*link)->used = ++cache->clock;
    return *link;
}

static bool evict(StmtCache *cache) {
    Stmt **oldest = NULL;
    for (int i = 0; i < STMT_BUCKETS; i++)
        for (Stmt **link = &cache->buckets[i]; *link; link = &(*link)->next)
            if (!(*link)->busy && (!oldest || (*link)->used < (*oldest)->used)) oldest = link;
    if (oldest) unlink_stmt(cache, oldest);
    return oldest;
}

void stmt_add(StmtCache *cache, Stmt *s, const Sql *sql, const char *text) {
    s->sql = sql;
    s->text = mem_strdup(str_z(text));
    s->busy = true;
    s->used = ++cache->clock;
    s->cached = !find(cache, sql) && (cache->n < cache->max || evict(cache));
    if (!s->cached) return;
    Stmt **bucket = bucket_of(cache, sql);
    s->next = *bucket;
    *bucket = s;
    cache->n++;
    assert(cache->n <= cache->max);
}

void stmt_give(StmtCache *cache, Stmt *s) {
    assert(s->busy);
    s->busy = false;
    if (!s->cached) drop(cache, s);
}

void stmt_clear(StmtCache *cache) {
    for (int i = 0; i < STMT_BUCKETS; i++)
        while (cache->buckets[i]) unlink_stmt(cache, &cache->buckets[i]);
    assert(!cache->n);
}
