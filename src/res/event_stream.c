// SPDX-License-Identifier: Apache-2.0
// event_stream.c - readers of /lathe/v1/events. A reader is live, and is then sent what the relay
// posts to its loop, or it catches up: it reads the table on a thread until nothing is left. One
// that does not take its bytes is left behind and catches up when it did; for too long, and it is
// sent away with the reason. Rights are looked up again each second that something is sent, so a
// revoked key sees no more.
// Owner: a Reader is freed with its exchange, or after the read that is under way.
// Threads: a reader's loop; the reading of the table on the pool `reads`.
#include "res/event_impl.h"
#include "res/bind.h"
#include <assert.h>
#include <stdio.h>

enum {
    PENDING_MAX = 256 << 10, // bytes in a connection, then its reader is behind
    BEHIND_MS = 20000,       // longest time without taking any of them
    RIGHTS_MS = 1000,
    HEARTBEAT_MS = 15000,
    CAUGHT_MAX = 64, // events of one read
    RETRY_MS = 5000,
};
static const int64_t MS = 1000000;

typedef struct Reader {
    LoopReaders *loop;
    struct Reader *next, **from;
    Exchange *x; // NULL: ended, and only a read is still under way
    EventQuery query;
    int64_t position; // of the last event that was sent or passed over
    bool reading, more, behind;
    int64_t behind_ns, rights_ns;
    Ctx *rights; // who reads, looked up anew
    EventSeat seat;
} Reader;

// ---- lifetime

static void rights_free(Ctx *c) {
    if (!c) return;
    arena_free(c->mem);
    mem_free(c);
}

static void reader_free(Reader *rd) {
    Events *e = rd->loop->of;
    rights_free(rd->rights);
    mem_free(rd);
    events_drop(e);
}

// Its exchange is over. The reader is gone too, unless it is being read for.
static void reader_leave(Reader *rd) {
    Events *e = rd->loop->of;
    *rd->from = rd->next;
    if (rd->next) rd->next->from = rd->from;
    atomic_fetch_sub(&rd->loop->n, 1);
    atomic_fetch_sub(&e->readers_n, 1);
    seats_give(&e->seats, &rd->seat);
    metric_add(&metric_event_readers, -1);
    rd->x = NULL;
    if (!rd->reading) reader_free(rd);
}

// Says why, and where to go on; the reader is gone.
static void reader_end(Reader *rd, const char *reason) {
    char text[100];
    snprintf(text, sizeof text, "{\"reason\":\"%s\",\"after\":%lld}", reason,
             (long long)rd->position);
    Exchange *x = rd->x;
    exchange_sse(x, "closed", (str){ 0 }, str_z(text));
    metric_add(&metric_event_ended, 1, str_z(reason));
    reader_leave(rd);
    exchange_end(x);
}

// ---- rights

static err rights_look(Reader *rd, Ctx *c) {
    const HttpRequest *r = exchange_request(rd->x);
    const App *app = c->app;
    if (app->identify) TRY(app->identify(c, r, true));
    rd->rights_ns = loop_now_ns(exchange_loop(rd->x));
    return require(c, "events.read", r->path);
}

static bool rights_hold(Reader *rd) {
    if (loop_now_ns(exchange_loop(rd->x)) < rd->rights_ns + RIGHTS_MS * MS) return true;
    const Ctx *of = exchange_ctx(rd->x);
    Ctx *c = mem_new(sizeof *c);
    ctx_init(c, arena_new(), of->os);
    c->app = of->app;
    c->db = of->db;
    c->lang = of->lang;
    c->request_id = of->request_id;
    rights_free(rd->rights);
    rd->rights = c;
    return rights_look(rd, c) == ERR_OK;
}

static bool kind_wanted(str wanted, str kind) {
    if (!wanted.n) return true;
    for (str one; str_cut(&wanted, ',', &one);) {
        one = str_trim(one);
        bool open = one.n && one.p[one.n - 1] == '*';
        if (open ? str_starts(kind, str_sub(one, 0, one.n - 1)) : str_eq(kind, one)) return true;
    }
    return false;
}

static bool visible(const Reader *rd, const BatchEvent *b) {
    const Ctx *c = rd->rights ? rd->rights : exchange_ctx(rd->x);
    const Identity *who = c->who;
    str project = c->project.n || !who ? c->project : who->project;
    str org = c->org.n || !who ? c->org : who->org;
    const Event *e = &b->event;
    if (project.n && !str_eq(e->project, project)) return false;
    if (org.n && !str_eq(e->org, org)) return false;
    if (rd->query.subject.n && !str_eq(rd->query.subject, e->subject)) return false;
    return kind_wanted(rd->query.kind, e->kind)
           && (identity_may(who, b->may[0]) || (b->may[1].n && identity_may(who, b->may[1])));
}

// ---- sending

typedef enum { SENT, SEND_BEHIND, SEND_ENDED } Sent;

static Sent send_one(Reader *rd, const BatchEvent *b) {
    const Event *e = &b->event;
    if (e->number && e->number <= rd->position) return SENT;
    if (!rights_hold(rd)) {
        reader_end(rd, "denied");
        return SEND_ENDED;
    }
    if (visible(rd, b)) {
        if (exchange_pending(rd->x) > PENDING_MAX) return SEND_BEHIND;
        exchange_sse(rd->x, e->kind.p, b->id, b->text); // kind ends in NUL: the batch's arena
    }
    if (e->number) rd->position = e->number;
    return SENT;
}

static Sent send_all(Reader *rd, const Batch *b) {
    for (size_t i = 0; i < b->n; i++) {
        Sent s = send_one(rd, &b->at[i]);
        if (s == SENT) continue;
        if (s == SEND_BEHIND) {
            rd->behind = true;
            rd->behind_ns = loop_now_ns(exchange_loop(rd->x));
        }
        return s;
    }
    return SENT;
}

// ---- catching up

typedef struct Catch {
    Reader *rd;
    Loop *loop;
    int64_t after;
    EventPage page; // without its events: they are in the batch
    Batch *batch;
    bool failed;
} Catch;

static err catch_read(Ctx *c, Tx *tx, void *arg) {
    Catch *k = arg;
    TRY(event_read(c, tx, k->after, CAUGHT_MAX, &k->page));
    if (k->batch) batch_drop(k->batch); // of a run that had to be repeated
    k->batch = batch_new(k->page.at, k->page.n);
    k->page.at = NULL;
    return ERR_OK;
}

static void catch_done(void *arg);
static void catch_run(void *arg) {
    Catch *k = arg;
    Ctx *c = app_ctx_new(k->rd->loop->of->app);
    k->failed = db_read(c, c->db, catch_read, k) != ERR_OK;
    app_ctx_free(c);
    loop_post(k->loop, catch_done, k);
}

static void catch_up(Reader *rd) {
    assert(rd->x && !rd->reading);
    Catch *k = mem_new(sizeof *k);
    *k = (Catch){ .rd = rd, .loop = exchange_loop(rd->x), .after = rd->position };
    rd->reading = true;
    rd->more = false;
    if (pool_submit(rd->loop->of->reads, catch_run, k)) return;
    rd->reading = false;
    mem_free(k);
    reader_end(rd, "busy");
}

// Some events after the reader's last are gone, or its number is of another history.
static void send_expired(Reader *rd, const Catch *k) {
    rd->position = k->after > k->page.newest ? k->page.newest : k->page.oldest - 1;
    char id[24], text[100];
    snprintf(id, sizeof id, "%lld", (long long)rd->position);
    snprintf(text, sizeof text, "{\"oldest\":%lld,\"newest\":%lld}", (long long)k->page.oldest,
             (long long)k->page.newest);
    exchange_sse(rd->x, "expired", str_z(id), str_z(text));
}

static void catch_use(Reader *rd, const Catch *k) {
    if (k->failed) {
        reader_end(rd, "unavailable");
        return;
    }
    if (k->page.expired && k->after)
        send_expired(rd, k);                    // from 0 on: nothing that was known is missed
    if (send_all(rd, k->batch) != SENT) return; // behind or gone
    if (k->batch->n == CAUGHT_MAX || rd->more) catch_up(rd);
    else if (!rd->query.follow) reader_end(rd, "end");
}

static void catch_done(void *arg) {
    Catch *k = arg;
    Reader *rd = k->rd;
    rd->reading = false;
    if (!rd->x) reader_free(rd);
    else if (!loop_stopping(k->loop)) catch_use(rd, k);
    if (k->batch) batch_drop(k->batch);
    mem_free(k);
}

// ---- what comes from outside

static void take(Reader *rd, const Batch *b) {
    bool live = !b->at[0].event.number;
    if (rd->reading) {
        rd->more |= !live;
        return;
    }
    if (rd->behind) {
        if (loop_now_ns(exchange_loop(rd->x)) > rd->behind_ns + BEHIND_MS * MS)
            reader_end(rd, "slow_reader");
        return;
    }
    if (!live && b->at[0].event.number > rd->position + 1) catch_up(rd);
    else send_all(rd, b);
}

void readers_take(LoopReaders *l, const Batch *b) {
    assert(b->n);
    for (Reader *rd = l->first, *next; rd; rd = next) {
        next = rd->next;
        take(rd, b);
    }
}

void readers_close(LoopReaders *l) {
    while (l->first) reader_end(l->first, "stopping");
}

static void on_drained(void *arg) {
    Reader *rd = arg;
    if (!rd->behind) return;
    rd->behind = false;
    if (!rd->reading) catch_up(rd);
}

static void on_gone(void *arg) { reader_leave(arg); }

// ---- the route

static err wanted_read(Ctx *c, const HttpRequest *r, EventQuery *out) {
    TRY(query_read(c, event_query_rows, out, r));
    // A reader that comes back sends the address it began with, so what it saw last counts more.
    str last = http_header(r, "last-event-id");
    int64_t n;
    if (!last.n) return ERR_OK;
    if (!str_to_i64(last, &n) || n < 0)
        return fail(c, ERR_INVALID, R_FIELD_TYPE, "field", "Last-Event-ID", "want",
                    "the number of an event", "got", say_str(c, last));
    out->after = n;
    return ERR_OK;
}

static err seated(Ctx *c, Events *e, EventSeat *out) {
    bool stopping = !e || atomic_load(&e->draining);
    bool unknown = !stopping && atomic_load(&e->newest) == EVENT_UNKNOWN;
    err x = stopping  ? fail(c, ERR_UNAVAILABLE, R_EVENT_STOPPING)
            : unknown ? fail(c, ERR_UNAVAILABLE, R_DB_AWAY, "why", "not since this server's start")
                      : seats_take(c, &e->seats, out);
    if (x) c->failure.retry_after_ms = RETRY_MS;
    return x;
}

static size_t loop_index(const App *app, const Loop *l) {
    size_t i = 0;
    while (i < app->loops_n && app->loops[i] != l) i++;
    assert(i < app->loops_n);
    return i;
}

static const ExchangeEvents reader_events = { .drained = on_drained, .gone = on_gone };

static void reader_start(Events *e, Exchange *x, const EventQuery *q, EventSeat seat) {
    Reader *rd = mem_new(sizeof *rd);
    LoopReaders *l = &e->at[loop_index(e->app, exchange_loop(x))];
    *rd = (Reader){
        .loop = l, .x = x, .query = *q, .seat = seat, .next = l->first, .from = &l->first
    };
    rd->rights_ns = loop_now_ns(exchange_loop(x));
    if (l->first) l->first->from = &rd->next;
    l->first = rd;
    atomic_fetch_add(&l->n, 1);
    atomic_fetch_add(&e->readers_n, 1);
    rd->position = atomic_load(&e->newest); // after it was counted: see tail() in event_relay.c
    metric_add(&metric_event_readers, 1);
    static const HttpHeader headers[] = { { { "Cache-Control", 13 }, { "no-store", 8 } },
                                          { { "X-Accel-Buffering", 17 }, { "no", 2 } } };
    exchange_events(x, &reader_events, rd);
    exchange_sse_begin(x, headers, countof(headers), HEARTBEAT_MS);
    if (q->after == UNSET_INT && q->follow) return;
    rd->position = q->after == UNSET_INT ? 0 : q->after;
    catch_up(rd);
}

static err open_stream(Ctx *c, Events *e, const HttpRequest *r, EventQuery *q, EventSeat *seat) {
    const App *app = c->app;
    if (app->identify) TRY(app->identify(c, r, true));
    TRY(require(c, "events.read", r->path));
    TRY(wanted_read(c, r, q));
    return seated(c, e, seat);
}

void event_stream(Exchange *x) {
    Ctx *c = exchange_ctx(x);
    const HttpRequest *r = exchange_request(x);
    EventQuery q;
    EventSeat seat;
    Events *e = events_of(c->app);
    if (open_stream(c, e, r, &q, &seat)) {
        exchange_refuse(x);
        if (e) events_drop(e);
    } else if (r->method == HTTP_HEAD) {
        seats_give(&e->seats, &seat);
        exchange_reply(x, 200, "text/event-stream", S(""));
        events_drop(e);
    } else reader_start(e, x, &q, seat); // which keeps e
}
