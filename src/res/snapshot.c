// SPDX-License-Identifier: Apache-2.0
// snapshot.c - see snapshot.h: readers, and the builder. What changed is snapshot_change.c's, the
// copy on disk snapshot_disk.c's.
#include "base/log.h"
#include "res/snapshot_impl.h"
#include "res/worker.h"
#include <assert.h>

// Looked at twice a second, for what other nodes commit; read again when something was committed,
// and now and then in any case. With SQLite there are no other nodes, and our own changes wake it.
// Parts that say what changed are read whole once a minute at most, for a hundredth of the time; a
// node that has not read for half an hour begins anew, for the log of changes is kept for one.
enum { WHOLE_MS = 60000, WHOLE_SHARE = 100, LOG_SHARE = 20, LOST_MS = 1800000, TRIM_MS = 600000 };
#define AGE_MS_MAX INT64_C(3155760000000) // a hundred years: nobody knows
enum { EVERY_MS = 500, ALONE_MS = 5000, READ_MS = 10000, READ_ALONE_MS = 60000 };

struct Snapshot {
    atomic_int refs; // one for being current
    Arena *mem;
    int64_t number;
    str text[PARTS_MAX]; // each part's JSON, but of those that say what changed
    void *part[PARTS_MAX];
};

static struct {
    const SnapshotPart *parts[PARTS_MAX];
    size_t parts_n;
    pthread_mutex_t lock; // of current
    Snapshot *current;
    atomic_llong true_at_ns; // when SQL last agreed with it
    Worker *builder;
    atomic_bool wanted; // somebody woke it
    // Tickets: the last that was given, the last whose holder was not shown what he wants to be
    // seen, and the last that what is current is at least as new as.
    atomic_llong asked, owed, shown;
    // the builder's alone, from here
    char version[200]; // the database's, when it was read last
    int64_t read_ns;
    int64_t cursor, whole_ns, cost_ns,
        trim_ns;                    // cursor -1: read all of it; cost: of the last whole
    uint64_t seed, hash[PARTS_MAX]; // of the text that came last
    bool dirty[PARTS_MAX];          // changed since it was read whole
    void (*swapped[8])(void *);
    void *swapped_arg[8];
    size_t swapped_n;
} all = { .lock = PTHREAD_MUTEX_INITIALIZER, .cursor = -1 };

void snapshot_part(const SnapshotPart *p) {
    assert(all.parts_n < PARTS_MAX && !all.current);
    assert(!p->apply == !p->changes);
    all.parts[all.parts_n++] = p;
}

void snapshot_on_swap(void (*fn)(void *arg), void *arg) {
    assert(all.swapped_n < countof(all.swapped));
    all.swapped[all.swapped_n] = fn, all.swapped_arg[all.swapped_n++] = arg;
}

// ---- readers
const Snapshot *snapshot_take(void) {
    pthread_mutex_lock(&all.lock);
    Snapshot *s = all.current;
    assert(s);
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    pthread_mutex_unlock(&all.lock);
    return s;
}

void snapshot_give(const Snapshot *given) {
    Snapshot *s = (Snapshot *)(uintptr_t)given;
    if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1) return;
    arena_free(s->mem);
    mem_free(s);
}

const void *snapshot_get(const Snapshot *s, const SnapshotPart *p) {
    for (size_t i = 0; i < all.parts_n; i++)
        if (all.parts[i] == p) return s->part[i];
    assert(!"a part that a module registered");
    return NULL;
}

int64_t snapshot_number(const Snapshot *s) { return s->number; }
int64_t snapshot_age_ms(const Snapshot *s) {
    (void)s;
    return (os_mono_ns(os_real()) - atomic_load(&all.true_at_ns)) / 1000000;
}

// What is current is looked at last: it is swapped before it is said to be shown.
bool snapshot_behind(const Snapshot *s) {
    if (atomic_load(&all.owed) > atomic_load(&all.shown)) return true;
    pthread_mutex_lock(&all.lock);
    bool current = s == all.current;
    pthread_mutex_unlock(&all.lock);
    return !current;
}

static long long ticket(void) { return atomic_fetch_add(&all.asked, 1) + 1; }
static void owe(long long n) {
    long long owed = atomic_load(&all.owed);
    while (owed < n && !atomic_compare_exchange_weak(&all.owed, &owed, n)) {}
}

// ---- building
typedef struct Query {
    Build *b;
    SnapshotChange *changes;
    size_t n;
} Query;

static err query_part(Ctx *c, Tx *tx, const Query *q, size_t i, Buf *out, bool *out_whole) {
    const SnapshotPart *p = q->b->parts[i];
    Json j = json_to(out);
    buf_clear(out);
    if (!part_delta(q->b, i)) TRY(p->query(c, tx, &j));
    else if (q->n) TRY(p->changes(c, tx, q->changes, q->n, &j, out_whole));
    if (out->full) return fail(c, ERR_TOOLARGE, R_TOO_LONG, "what", p->name, "limit", "1 GiB");
    q->b->text[i] = out->n ? arena_str(c->mem, buf_str(out)) : (str){ 0 };
    return ERR_OK;
}

static err query_parts(Ctx *c, Tx *tx, const Query *q, bool *out_whole) {
    Buf out;
    buf_init(&out, SNAPSHOT_BYTES_MAX);
    err e = ERR_OK;
    for (size_t i = 0; i < all.parts_n && !e && !*out_whole; i++)
        e = query_part(c, tx, q, i, &out, out_whole);
    buf_done(&out);
    return e;
}

static bool any_delta(void) {
    for (size_t i = 0; i < all.parts_n; i++)
        if (all.parts[i]->apply) return true;
    return false;
}

static err query_all(Ctx *c, Tx *tx, void *arg) {
    Query q = { .b = arg };
    bool whole = false;
    if (any_delta()) TRY(change_list(c, tx, all.cursor, q.b, &q.changes, &q.n));
    TRY(query_parts(c, tx, &q, &whole));
    if (!whole) return ERR_OK;
    q.b->whole = true, whole = false;
    return query_parts(c, tx, &q, &whole);
}

// Which parts are as they were; false when none changed.
static bool compare(Build *b, uint64_t hash[PARTS_MAX]) {
    bool any = !all.current;
    for (size_t i = 0; i < b->parts_n; i++) {
        hash[i] = str_hash_seed(b->text[i], all.seed);
        b->same[i] = all.current && hash[i] == all.hash[i];
        if (part_delta(b, i)) b->same[i] |= !b->text[i].n; // told of again
        else if (b->parts[i]->apply) b->same[i] &= !all.dirty[i];
        any |= !b->same[i];
    }
    return any;
}

static void note(const Build *b, const uint64_t hash[PARTS_MAX]) {
    for (size_t i = 0; i < b->parts_n; i++) {
        if (part_delta(b, i) && !b->text[i].n) continue;
        all.hash[i] = hash[i];
        all.dirty[i] = part_delta(b, i);
    }
    all.cursor = b->cursor;
}

static err replay(Ctx *c, const Build *b, Snapshot *s, size_t i) {
    for (size_t k = 0; k < b->replay_n; k++) {
        yyjson_val *in = json_get(b->replay[k], b->parts[i]->name);
        if (in) TRY(b->parts[i]->apply(c, s->mem, s->part[i], in, &s->part[i]));
    }
    return ERR_OK;
}

// A view that shares with the one before outlives the text that it was made of.
static err compile_shared(Ctx *c, const Build *b, Snapshot *s, size_t i) {
    yyjson_val *json = NULL;
    bool delta = part_delta(b, i) || b->same[i];
    if (!b->same[i]) TRY(json_parse(c, b->text[i], &json));
    if (delta) return b->parts[i]->apply(c, s->mem, all.current->part[i], json, &s->part[i]);
    TRY(b->parts[i]->compile(c, s->mem, json, &s->part[i]));
    return replay(c, b, s, i);
}

static err compile_part(Ctx *c, const Build *b, Snapshot *s, size_t i) {
    Ctx in = {
        .mem = s->mem, .os = c->os, .app = c->app, .db = c->db, .who = c->who, .lang = c->lang
    };
    yyjson_val *json;
    if (b->parts[i]->apply) return compile_shared(c, b, s, i);
    s->text[i] = arena_str(s->mem, b->text[i]);
    TRY(json_parse(&in, s->text[i], &json));
    return b->parts[i]->compile(&in, s->mem, json, &s->part[i]);
}

static err compile_all(Ctx *c, const Build *b, Snapshot *s) {
    for (size_t i = 0; i < all.parts_n; i++) {
        err e = compile_part(c, b, s, i);
        if (e)
            return fail(c, e, R_INTERNAL, "why",
                        say(c, "snapshot part %s does not compile", all.parts[i]->name));
    }
    return ERR_OK;
}

static err swap(Ctx *c, const Build *b, int64_t number) {
    Snapshot *s = mem_new(sizeof *s);
    atomic_init(&s->refs, 1);
    s->mem = arena_new(), s->number = number;
    err e = compile_all(c, b, s);
    if (e) {
        snapshot_give(s);
        return e;
    }
    pthread_mutex_lock(&all.lock);
    Snapshot *old = all.current;
    all.current = s;
    pthread_mutex_unlock(&all.lock);
    snapshot_give(old);
    for (size_t i = 0; i < all.swapped_n; i++) all.swapped[i](all.swapped_arg[i]);
    return ERR_OK;
}

static bool wants_whole(int64_t now_ns) {
    int64_t since_ns = now_ns - all.whole_ns;
    if (all.cursor < 0 || !all.current || !any_delta()) return true;
    if (now_ns - atomic_load(&all.true_at_ns) > LOST_MS * 1000000LL) return true;
    if (since_ns > WHOLE_MS * 1000000LL && since_ns > WHOLE_SHARE * all.cost_ns) return true;
    return disk_wants_whole() && since_ns > LOG_SHARE * all.cost_ns;
}

// SQLite is there whenever this program is.
static void agrees(Ctx *c, int64_t now_ns) {
    atomic_store(&all.true_at_ns, now_ns);
    if (db_shared(c->db)) disk_agrees(c);
}

static err build_and_swap(Ctx *c, Build *b, int64_t number) {
    uint64_t hash[PARTS_MAX];
    TRY(db_read(c, c->db, query_all, b));
    bool changed = compare(b, hash);
    if (changed) TRY(swap(c, b, number));
    note(b, hash);
    if (changed && disk_save(c, b, number)) // requests do not depend on it
        log_at("snapshot", LOG_WARN, c, "cannot keep the snapshot on disk");
    agrees(c, os_mono_ns(c->os));
    return ERR_OK;
}

static err rebuild(Ctx *c) {
    int64_t began_ns = os_mono_ns(c->os);
    Build *b = new (c->mem, Build, 1);
    *b = (Build){ .parts = all.parts, .parts_n = all.parts_n, .whole = wants_whole(began_ns) };
    err e = build_and_swap(c, b, all.current ? all.current->number + 1 : 1);
    if (e) all.cursor = -1;
    if (e || !b->whole) return e;
    all.whole_ns = began_ns, all.cost_ns = os_mono_ns(c->os) - began_ns;
    if (!any_delta() || began_ns - all.trim_ns < TRIM_MS * 1000000LL) return ERR_OK;
    all.trim_ns = began_ns;
    return change_trim(c);
}

static bool read_since(Ctx *c, int64_t ms) {
    return os_mono_ns(c->os) - all.read_ns < ms * 1000000;
}

static err unchanged(Ctx *c, str *version, bool *out) {
    if (!db_shared(c->db)) {
        worker_pace(ALONE_MS);
        *out = !atomic_exchange(&all.wanted, false) && read_since(c, READ_ALONE_MS);
        return ERR_OK;
    }
    TRY(db_version(c, c->db, version));
    *out = str_is(*version, all.version) && read_since(c, READ_MS);
    return ERR_OK;
}

static err look(Ctx *c) {
    str version = S("");
    int64_t now_ns = os_mono_ns(c->os);
    bool same;
    TRY(unchanged(c, &version, &same));
    if (same) {
        agrees(c, now_ns);
        return ERR_OK;
    }
    all.version[0] = 0;
    all.read_ns = now_ns - (int64_t)READ_ALONE_MS * 1000000; // until it has been
    TRY(rebuild(c));
    all.read_ns = now_ns;
    if (version.n < sizeof all.version)
        snprintf(all.version, sizeof all.version, STR_FMT, STR_ARG(version));
    return ERR_OK;
}

static err turn(Ctx *c, void *arg) {
    long long asked = atomic_load(&all.asked);
    (void)arg;
    err e = look(c);
    if (e) owe(ticket());
    else atomic_store(&all.shown, asked);
    return e;
}

// As old as it was when SQL last agreed: a key that was revoked since would still be good.
static err from_disk(Ctx *c) {
    Build *b = new (c->mem, Build, 1);
    int64_t number = 0, now_ms = os_wall_ms(c->os);
    *b = (Build){ .parts = all.parts, .parts_n = all.parts_n };
    TRY(disk_load(c, b, &number));
    TRY(swap(c, b, number));
    int64_t age_ms = now_ms > b->true_ms ? now_ms - b->true_ms : 0;
    if (!b->true_ms || age_ms > AGE_MS_MAX) age_ms = AGE_MS_MAX;
    atomic_store(&all.true_at_ns, os_mono_ns(c->os) - age_ms * 1000000);
    owe(ticket());
    log_at("snapshot", LOG_WARN, c, "the database is away; serving from the snapshot on disk",
           "age_s", say(c, "%lld", (long long)age_ms / 1000));
    return ERR_OK;
}

err snapshot_start(Ctx *c) {
    assert(!all.current);
    os_random(c->os, &all.seed, sizeof all.seed);
    all.cursor = -1, all.trim_ns = os_mono_ns(c->os);
    err e = rebuild(c);
    if (e == ERR_UNAVAILABLE) {
        Failure away = c->failure;
        err none = from_disk(c);
        if (none == ERR_NOTFOUND) c->failure = away;
        if (none) return none == ERR_NOTFOUND ? e : none;
    } else if (e) {
        return e;
    }
    all.builder = worker_start(app_of(c), "snapshot", EVERY_MS, turn, NULL);
    return ERR_OK;
}

void snapshot_stop(void *app) {
    (void)app;
    worker_free(all.builder);
    snapshot_give(all.current);
    disk_close();
    all.builder = NULL, all.current = NULL, all.parts_n = 0, all.swapped_n = 0;
    all.version[0] = 0, all.read_ns = INT64_MIN / 2;
    atomic_store(&all.shown, atomic_load(&all.asked));
}

void snapshot_wake(void *app) {
    (void)app;
    atomic_store(&all.wanted, true);
    worker_wake(all.builder);
}
err snapshot_sync(Ctx *c) {
    atomic_store(&all.wanted, true); // before the ticket: a turn that has it looks
    long long mine = ticket();
    err e = worker_sync(c, all.builder);
    if (e) owe(mine);
    return e;
}
