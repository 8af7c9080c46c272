// SPDX-License-Identifier: Apache-2.0
// event_relay.c - numbers staged events and sends them out. One node numbers at a time, the holder
// of the lease "event-relay"; every node tails the table for its own readers. A turn runs on the
// relay's thread when the first loop asks for it: after a commit here, else every event.poll.
// An outbox row is moved, not copied: a row that becomes visible late (PostgreSQL gives ids before
// the commit) is numbered late, never lost.
// Threads: turns on the relay's, asking on the first loop; the list of running relays has a lock.
#include "base/log.h"
#include "base/time.h"
#include "os/sim.h"
#include "res/database.h"
#include "res/event_impl.h"
#include <assert.h>

enum {
    MOVED_MAX = 256,    // events numbered in one transaction, or read at once
    TRIMMED_MAX = 5000, // removed in one transaction
    LEASE_RETRY_MS = 1000,
    FOLLOW_MS = 200,
    ALONE_MS = 2500, // where no other process commits: each commit here asks by itself
    TRIM_MS = 60000,
    SEEN_MS = 5000,  // a look in any case
    TURN_MS = 20000, // longest turn; what is left is for the next
    READS_WAITING = 1 << 16,
};
static const int64_t MS = 1000000;

static pthread_mutex_t running_lock = PTHREAD_MUTEX_INITIALIZER;
static Events *running[SIM_NODES_MAX]; // more than one only in simulations and tests
static size_t running_n;

// ---- lifetime

Events *events_of(const void *app) {
    Events *e = NULL;
    pthread_mutex_lock(&running_lock);
    for (size_t i = 0; i < running_n && !e; i++)
        if (running[i]->app == app) e = running[i];
    if (e) atomic_fetch_add(&e->users, 1);
    pthread_mutex_unlock(&running_lock);
    return e;
}

void events_drop(Events *e) {
    if (atomic_fetch_sub(&e->users, 1) != 1) return;
    seats_done(&e->seats);
    mem_free(e);
}

static Events *hold(Events *e) {
    atomic_fetch_add(&e->users, 1);
    return e;
}

void batch_drop(Batch *b) {
    if (atomic_fetch_sub(&b->users, 1) == 1) arena_free(b->mem);
}

// ---- sending

// Kinds of a resource ask for its "read"; others for "<first part>.read", or its plural.
static void permissions_of(Arena *a, BatchEvent *b) {
    ptrdiff_t dot = str_find_char(b->event.kind, '.');
    str about = str_sub(b->event.kind, 0, dot < 0 ? b->event.kind.n : (size_t)dot);
    const Resource *r = resource_find(arena_z(a, about));
    if (r) b->may[0] = resource_permission(a, r, "get");
    else {
        b->may[0] = arena_printf(a, STR_FMT ".read", STR_ARG(about));
        b->may[1] = arena_printf(a, STR_FMT "s.read", STR_ARG(about));
    }
}

static str text_of(Arena *a, const Event *e) {
    Buf b;
    buf_init(&b, 2 * EVENT_DATA_MAX + 4096);
    Json j = json_to(&b);
    char at[TIME_TEXT];
    json_obj(&j);
    json_key(&j, "number");
    if (e->number) json_put_i64(&j, e->number);
    else json_put_null(&j);
    json_kv_str(&j, "at", time_format(e->at_ms, at));
    json_kv_str(&j, "kind", e->kind);
    json_kv_str(&j, "org", e->org);
    json_kv_str(&j, "project", e->project);
    json_kv_str(&j, "subject", e->subject);
    json_kv_raw(&j, "data", e->data);
    json_end_obj(&j);
    assert(!b.full);
    str text = arena_str(a, buf_str(&b));
    buf_done(&b);
    return text;
}

Batch *batch_new(const Event *events, size_t n) {
    Arena *mem = arena_new();
    Batch *b = new (mem, Batch, 1);
    *b = (Batch){ .users = 1, .mem = mem, .at = new (mem, BatchEvent, n), .n = n };
    for (size_t i = 0; i < n; i++) {
        BatchEvent *to = &b->at[i];
        const Event *e = &events[i];
        to->event = (Event){ .number = e->number,
                             .at_ms = e->at_ms,
                             .kind = arena_str(mem, e->kind),
                             .org = arena_str(mem, e->org),
                             .project = arena_str(mem, e->project),
                             .subject = arena_str(mem, e->subject) };
        if (e->number) to->id = arena_printf(mem, "%lld", (long long)e->number);
        to->text = text_of(mem, e);
        permissions_of(mem, to);
    }
    return b;
}

typedef struct Post {
    LoopReaders *to;
    Batch *batch; // NULL: close them
} Post;

static void on_post(void *arg) {
    Post p = *(Post *)arg;
    mem_free(arg);
    Events *e = p.to->of;
    if (!loop_stopping(e->app->loops[p.to - e->at])) {
        if (p.batch) readers_take(p.to, p.batch);
        else readers_close(p.to);
    }
    if (p.batch) batch_drop(p.batch);
    events_drop(e);
}

static void post(LoopReaders *to, Batch *b) {
    Post *p = mem_new(sizeof *p);
    *p = (Post){ to, b };
    if (b) atomic_fetch_add(&b->users, 1);
    Events *e = hold(to->of);
    loop_post(e->app->loops[to - e->at], on_post, p);
}

void events_send(Events *e, Batch *b) {
    for (size_t i = 0; i < e->app->loops_n; i++)
        if (atomic_load(&e->at[i].n)) post(&e->at[i], b);
    batch_drop(b);
}

void event_live(void *app, const char *kind, str org, str project, str subject, str data) {
    Events *e = events_of(app);
    if (!e) return;
    assert(strchr(kind, '.') && data.n && data.p[0] == '{' && data.n <= EVENT_DATA_MAX);
    if (atomic_load(&e->readers_n)) {
        Event one = { .at_ms = os_wall_ms(e->app->os),
                      .kind = str_z(kind),
                      .org = org,
                      .project = project,
                      .subject = subject,
                      .data = data };
        events_send(e, batch_new(&one, 1));
    }
    events_drop(e);
}

bool event_heard(void *app) {
    Events *e = events_of(app);
    if (!e) return false;
    bool some = atomic_load(&e->readers_n) > 0;
    events_drop(e);
    return some;
}

// ---- a turn

static err take_lease(Ctx *c, Events *e) {
    int64_t now = os_mono_ns(c->os);
    if (now < e->lease_at_ns) return ERR_OK;
    // The node, not this life of it: its folder is locked, so the last life is over.
    Lease l = { S("event-relay"), e->app->node, 0, 0 };
    err x = lease_take(c, c->db, l.object, l.holder, lease_ttl_ms(c->db), &l);
    e->held = x == ERR_OK;
    e->lease_at_ns = now + (e->held ? lease_renew_ms(c->db) : LEASE_RETRY_MS) * MS;
    if (e->held) e->lease = (Lease){ S("event-relay"), e->app->node, l.epoch, l.until_ms };
    return x == ERR_CONFLICT ? ERR_OK : x;
}

typedef struct Look {
    bool staged;
    int64_t newest;
} Look;

static err look(Ctx *c, Tx *tx, void *arg) {
    static SQL(outbox_look, "SELECT p.last, CASE WHEN EXISTS (SELECT 1 FROM outbox) "
                            "THEN 1 ELSE 0 END FROM event_position p");
    Look *out = arg;
    Rows *rows;
    TRY(db_one(c, tx, &rows, &outbox_look, NULL, 0));
    out->newest = col_int(rows, 0);
    out->staged = col_int(rows, 1);
    rows_close(rows);
    return ERR_OK;
}

typedef struct Move {
    Events *e;
    int64_t moved;
} Move;

static err move(Ctx *c, Tx *tx, void *arg) {
    static SQL(event_number,
               "INSERT INTO event (number, at_ms, kind, org, project, subject, data) "
               "SELECT p.last + ROW_NUMBER() OVER (ORDER BY o.id), o.at_ms, o.kind, o.org,"
               " o.project, o.subject, o.data "
               "FROM (SELECT * FROM outbox ORDER BY id LIMIT $1) o, event_position p");
    static SQL(outbox_moved, "DELETE FROM outbox WHERE id IN "
                             "(SELECT id FROM outbox ORDER BY id LIMIT $1)");
    static SQL(event_forward, "UPDATE event_position SET last = last + $1");
    Move *m = arg;
    const Val max = V(MOVED_MAX);
    int64_t removed;
    TRY(lease_guard(c, tx, &m->e->lease));
    TRY(db_exec(c, tx, &event_number, &max, 1, &m->moved));
    TRY(db_exec(c, tx, &outbox_moved, &max, 1, &removed));
    assert(removed == m->moved);
    return db_run(c, tx, &event_forward, V(m->moved));
}

static err number(Ctx *c, Events *e, int64_t *newest) {
    Move m = { .e = e, .moved = MOVED_MAX };
    while (m.moved == MOVED_MAX) {
        TRY(ctx_check(c));
        err x = db_tx(c, c->db, move, &m);
        if (x == ERR_LOST) {
            e->held = false;
            e->lease_at_ns = 0;
            return ERR_OK;
        }
        TRY(x);
        *newest += m.moved;
        metric_add(&metric_event_numbered, (double)m.moved);
    }
    return ERR_OK;
}

typedef struct Tail {
    int64_t after;
    EventPage page;
} Tail;

static err read_tail(Ctx *c, Tx *tx, void *arg) {
    Tail *t = arg;
    return event_read(c, tx, t->after, MOVED_MAX, &t->page);
}

static void send_tail(Ctx *c, Events *e, Tail *t) {
    const EventPage *p = &t->page;
    t->after = p->at[p->n - 1].number;
    if (t->after > atomic_load(&e->newest)) atomic_store(&e->newest, t->after);
    int64_t now = os_wall_ms(c->os);
    for (size_t i = 0; i < p->n; i++)
        metric_observe(&metric_event_delay, (double)(now - p->at[i].at_ms) / 1000);
    events_send(e, batch_new(p->at, p->n));
}

// A reader first counts itself, then starts at `newest`; here `newest` is stored first and readers
// are counted after: so either it starts behind these events, or they are sent to it.
static err tail(Ctx *c, Events *e, int64_t newest) {
    Tail t = { .after = atomic_load(&e->newest), .page.n = MOVED_MAX };
    if (newest <= t.after) return ERR_OK;
    if (!atomic_load(&e->readers_n)) {
        atomic_store(&e->newest, newest);
        if (!atomic_load(&e->readers_n)) return ERR_OK;
    }
    while (t.page.n == MOVED_MAX) {
        TRY(ctx_check(c));
        ArenaMark mark = arena_mark(c->mem);
        TRY(db_read(c, c->db, read_tail, &t));
        if (t.page.n) send_tail(c, e, &t);
        arena_restore(c->mem, mark);
    }
    return ERR_OK;
}

typedef struct Trim {
    const Lease *lease;
    int64_t before_ms, rows;
    bool more;
} Trim;

// The first number that is young enough.
static err first_kept(Ctx *c, Tx *tx, const Trim *t, int64_t newest, int64_t *out) {
    static SQL(event_young, "SELECT number FROM event WHERE at_ms >= $1 ORDER BY number LIMIT 1");
    Rows *rows;
    bool some;
    TRY(db_ask(c, tx, &rows, &event_young, V(t->before_ms)));
    TRY(rows_next(c, rows, &some));
    int64_t young = some ? col_int(rows, 0) : newest + 1;
    rows_close(rows);
    int64_t few = newest - t->rows + 1;
    *out = young > few ? young : few;
    return ERR_OK;
}

static err trim(Ctx *c, Tx *tx, void *arg) {
    static SQL(event_trim, "DELETE FROM event WHERE number < $1");
    Trim *t = arg;
    EventPage p;
    int64_t kept;
    TRY(lease_guard(c, tx, t->lease));
    TRY(event_read(c, tx, 0, 0, &p));
    TRY(first_kept(c, tx, t, p.newest, &kept));
    t->more = kept > p.oldest + TRIMMED_MAX;
    if (t->more) kept = p.oldest + TRIMMED_MAX;
    return kept > p.oldest ? db_run(c, tx, &event_trim, V(kept)) : ERR_OK;
}

static err keep_short(Ctx *c, Events *e) {
    int64_t now = os_mono_ns(c->os);
    if (!e->held || now < e->trim_at_ns) return ERR_OK;
    Trim t = { .lease = &e->lease,
               .before_ms = os_wall_ms(c->os) - setting_int(&event_settings[EVENT_SET_RETAIN]),
               .rows = setting_int(&event_settings[EVENT_SET_RETAIN_ROWS]) };
    err x = db_tx(c, c->db, trim, &t);
    e->trim_at_ns = t.more && !x ? now : now + TRIM_MS * MS;
    return x == ERR_LOST ? ERR_OK : x;
}

static err work(Ctx *c, Events *e) {
    Look seen = { 0 };
    str version;
    TRY(take_lease(c, e));
    TRY(db_version(c, c->db, &version));
    int64_t now = os_mono_ns(c->os);
    if (str_is(version, e->seen) && now < e->seen_until_ns) return keep_short(c, e);
    e->seen[0] = 0;
    TRY(db_read(c, c->db, look, &seen));
    if (atomic_load(&e->newest) == EVENT_UNKNOWN) atomic_store(&e->newest, seen.newest);
    if (e->held && seen.staged) TRY(number(c, e, &seen.newest));
    TRY(tail(c, e, seen.newest));
    if (version.n < sizeof e->seen && !seen.staged) {
        memcpy(e->seen, version.p, version.n);
        e->seen[version.n] = 0;
    }
    e->seen_until_ns = now + SEEN_MS * MS;
    return keep_short(c, e);
}

static void turn_done(void *arg);

static void turn(void *arg) {
    Events *e = arg;
    Ctx *c = app_ctx_new(e->app);
    c->deadline_ns = os_mono_ns(c->os) + TURN_MS * MS;
    bool failing = work(c, e) != ERR_OK;
    if (failing && !e->failing) {
        Buf b;
        buf_init(&b, 4096);
        failure_format(&c->failure, "en", &b);
        log_at("event", LOG_WARN, c, "events wait", "why", buf_z(&b));
        buf_done(&b);
    }
    e->failing = failing;
    app_ctx_free(c);
    loop_post(e->app->loops[0], turn_done, e);
}

// ---- asking for turns, on the first loop

static void ask(void *arg) {
    Events *e = arg;
    if (e->busy) {
        e->again = true;
        return;
    }
    timer_stop(e->timer);
    e->busy = true;
    e->again = false;
    bool taken = pool_submit(e->relay, turn, hold(e));
    assert(taken); // one turn at a time
}

// Readers here wait for what another node numbers.
static int64_t pause_ms(const Events *e) {
    int64_t ms = setting_int(&event_settings[EVENT_SET_POLL]);
    if (!db_shared(e->app->db)) return ms > ALONE_MS ? ms : ALONE_MS;
    bool waited_for = !e->held && atomic_load(&e->readers_n);
    return waited_for && ms > FOLLOW_MS ? FOLLOW_MS : ms;
}

static void turn_done(void *arg) {
    Events *e = arg;
    if (!loop_stopping(e->app->loops[0])) {
        e->busy = false;
        if (e->again) ask(e);
        else timer_start(e->timer, pause_ms(e));
    }
    events_drop(e);
}

static void on_wake(void *arg) {
    Events *e = arg;
    atomic_store(&e->woken, false);
    if (!loop_stopping(e->app->loops[0])) ask(e);
    events_drop(e);
}

void events_wake(Events *e) {
    if (!atomic_exchange(&e->woken, true)) loop_post(e->app->loops[0], on_wake, hold(e));
}

// ---- start and stop

static err read_newest(Ctx *c, Tx *tx, void *arg) { return event_read(c, tx, 0, 0, arg); }

err event_start(Ctx *c, App *app) {
    EventPage page = { .newest = EVENT_UNKNOWN };
    err x = db_read(c, app->db, read_newest, &page);
    if (x && !database_awaited()) return x;
    assert(app->loops_n && app->node.n);
    Events *e = mem_new(sizeof *e);
    e->app = app;
    atomic_init(&e->users, 1);
    seats_init(&e->seats);
    atomic_init(&e->newest, page.newest);
    for (size_t i = 0; i < app->loops_n; i++) e->at[i].of = e;
    e->relay = pool_new(app->os, "events", 1, 4);
    e->reads = pool_new(app->os, "event-reads", 1, READS_WAITING);
    e->timer = timer_new(app->loops[0], ask, e);
    pthread_mutex_lock(&running_lock);
    assert(running_n < countof(running));
    running[running_n++] = e;
    pthread_mutex_unlock(&running_lock);
    events_wake(e);
    return ERR_OK;
}

void event_drain(App *app) {
    Events *e = events_of(app);
    if (!e) return;
    atomic_store(&e->draining, true);
    for (size_t i = 0; i < app->loops_n; i++) post(&e->at[i], NULL);
    events_drop(e);
}

static Events *take_from_running(const App *app) {
    Events *e = NULL;
    pthread_mutex_lock(&running_lock);
    for (size_t i = 0; i < running_n; i++) {
        if (running[i]->app != app) continue;
        e = running[i];
        running[i] = running[--running_n];
    }
    pthread_mutex_unlock(&running_lock);
    return e;
}

void event_stop(App *app) {
    Events *e = take_from_running(app);
    if (!e) return;
    pool_free(e->relay);
    pool_free(e->reads);
    timer_free(e->timer);
    if (e->held) {
        Ctx *c = app_ctx_new(app);
        c->deadline_ns = os_mono_ns(c->os) + 2000 * MS;
        if (lease_drop(c, c->db, &e->lease)) {} // then it runs out by itself
        app_ctx_free(c);
    }
    events_drop(e);
}
