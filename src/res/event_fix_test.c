// SPDX-License-Identifier: Apache-2.0
// event_fix_test.c - the fixture of event_test.h.
// Threads: each node's loops, each reader's own, and the test's.
#include "net/sse.h"
#include "res/bind.h"
#include "res/event_test.h"
#include <assert.h>
#include <stdlib.h>
#include <time.h>

static const int64_t WAIT_NS = 20000000000;

// ---- who asks

typedef struct Gadget {
    Head head;
} Gadget;
static const Field gadget_rows[] = { { 0 } };
static const Resource gadget = { .name = "gadget",
                                 .plural = "gadgets",
                                 .prefix = "gadget",
                                 .scope = SCOPE_PROJECT,
                                 .size = sizeof(Gadget),
                                 .fields = gadget_rows,
                                 .en = "A gadget",
                                 .zh = "器具" };
static const Module test_module = { .name = "test",
                                    .resources = (const Resource *const[]){ &gadget, NULL },
                                    .routes = event_routes };
static const Module *const mods[] = { &test_module, NULL };

#define S_(z) \
    { "" z, sizeof(z) - 1 }
static const str all[] = { S_("*") };
static const str reads[] = { S_("events.read"), S_("gadgets.read") };
static const str listens[] = { S_("events.read"), S_("beats.read") };
static const Identity people[] = {
    { WHO_USER, S_("u_1"), S_("admin"), { 0 }, { 0 }, { 0 }, all, 1 },
    { WHO_USER, S_("u_2"), S_("alice"), { 0 }, S_("o1"), S_("p1"), reads, 2 },
    { WHO_USER, S_("u_3"), S_("bob"), { 0 }, S_("o1"), S_("p2"), reads, 2 },
    { WHO_USER, S_("u_4"), S_("cat"), { 0 }, S_("o1"), S_("p1"), listens, 2 },
    { WHO_USER, S_("u_5"), S_("dan"), { 0 }, S_("o1"), S_("p1"), NULL, 0 },
};
static EventFix *now; // tests run one after the other

static err identify(Ctx *c, const HttpRequest *r, bool on_loop) {
    static const Reason gone = { "gone", "the key is gone", "" };
    assert(on_loop);
    if (atomic_load(&now->revoked)) return fail(c, ERR_UNAUTHENTICATED, gone);
    for (size_t i = 0; i < countof(people); i++) {
        if (!str_eq(http_header(r, "authorization"), people[i].name)) continue;
        c->who = &people[i];
        c->org = people[i].org;
        c->project = people[i].project;
        return ERR_OK;
    }
    return fail(c, ERR_UNAUTHENTICATED, gone);
}

// ---- nodes

static void run_loop(void *l) { loop_run(l); }

bool node_start(EventFix *f, size_t i) {
    Node *n = &f->nodes[i];
    Ctx *c = f->c;
    n->app = (App){ .os = c->os, .db = f->db, .loops_n = FIX_LOOPS, .identify = identify };
    n->app.node = arena_printf(c->mem, "node-%zu", i);
    for (size_t l = 0; l < FIX_LOOPS; l++) n->app.loops[l] = loop_new(c->os);
    n->app.pool = pool_new(c->os, "test", 2, 100);
    ServerConfig config = { .pool = n->app.pool, .spool_dir = str_z(test_dir()), .app = &n->app };
    bindings_hooks(&config);
    const NetRoute *const *routes;
    if (!i) tables_init(mods);
    static const NetRoute *const *bound; // once: building them again frees the others
    static size_t bound_n;
    if (!i && bindings_build(c, mods, &bound, &bound_n)) return false;
    routes = bound;
    config.routes = routes;
    config.routes_n = bound_n;
    Addr any;
    bool ok = !server_new(c, n->app.loops, FIX_LOOPS, &config, &n->app.server)
              && !addr_parse(c, S("127.0.0.1:0"), &any)
              && !server_listen(c, n->app.server, &any, &n->addr) && !event_start(c, &n->app);
    for (size_t l = 0; l < FIX_LOOPS; l++)
        thread_start(c->os, "loop", run_loop, n->app.loops[l], &n->threads[l]);
    n->runs = true;
    return ok;
}

void node_stop(EventFix *f, size_t i) {
    Node *n = &f->nodes[i];
    if (!n->runs) return;
    for (size_t l = 0; l < FIX_LOOPS; l++) loop_stop(n->app.loops[l]);
    for (size_t l = 0; l < FIX_LOOPS; l++) thread_join(n->threads[l]);
    pool_free(n->app.pool);
    server_free(n->app.server);
    event_stop(&n->app);
    for (size_t l = 0; l < FIX_LOOPS; l++) loop_free(n->app.loops[l]);
    n->runs = false;
}

// ---- databases

static err make_database(EventFix *f) {
    Ctx *c = f->c;
    TRY(suite_database(c, f->kind, &f->url));
    TRY(db_open(c, &(DbConfig){ .url = f->url }, &f->db));
    TRY(lease_migrate(c, f->db));
    return db_migrate(c, f->db, "event", event_migrations, event_migrations_n);
}

static void run(EventFix *f, const char *const *settings, void (*fn)(EventFix *f)) {
    static const Setting *const tables[] = { event_settings, NULL };
    str flags[8];
    size_t n = 0;
    for (; settings && settings[n]; n++) flags[n] = str_z(settings[n]);
    Settings *set;
    CHECK_OK(f->c, settings_load(f->c, tables, (str){ 0 }, flags, n, &set));
    settings_use(set);
    CHECK_OK(f->c, make_database(f));
    fn(f);
    for (size_t i = 0; i < FIX_NODES; i++) node_stop(f, i);
    db_close(f->db);
    settings_use(NULL);
}

void event_fix_run(DbKind kind, const char *const *settings, void (*fn)(EventFix *f)) {
    EventFix *f = mem_new(sizeof *f);
    f->c = test_ctx();
    f->c->os = os_real();
    f->kind = kind;
    now = f;
    run(f, settings, fn);
    mem_free(f);
}

// ---- events

typedef struct Stage {
    const char *kind, *project, *data;
} Stage;

static err stage(Ctx *c, Tx *tx, void *arg) {
    static const Reason undone = { "undone", "rolled back", "" };
    const Stage *s = arg;
    const char *kind = s->kind ? s->kind : "gadget.undone";
    TRY(event_stage(c, tx, kind, S("o1"), str_z(s->project), S("gadget_1"), str_z(s->data)));
    return s->kind ? ERR_OK : fail(c, ERR_CONFLICT, undone);
}

err fix_stage(EventFix *f, size_t node, const char *kind, const char *project, const char *data) {
    Ctx *c = app_ctx_new(&f->nodes[node].app);
    c->os = f->c->os;
    Stage s = { kind, project, data };
    err e = db_tx(c, f->db, stage, &s);
    app_ctx_free(c);
    return e;
}

typedef struct Read {
    int64_t after;
    size_t max;
    EventPage *out;
} Read;

static err read_page(Ctx *c, Tx *tx, void *arg) {
    Read *r = arg;
    return event_read(c, tx, r->after, r->max, r->out);
}

err fix_read(EventFix *f, int64_t after, size_t max, EventPage *out) {
    return db_read(f->c, f->db, read_page, &(Read){ after, max, out });
}

bool wait_numbered(EventFix *f, int64_t newest) {
    int64_t end = os_mono_ns(f->c->os) + test_longer(WAIT_NS);
    EventPage p = { 0 };
    while (p.newest < newest && os_mono_ns(f->c->os) < end)
        if (fix_read(f, 0, 0, &p)) return false;
    return p.newest >= newest;
}

bool wait_readers(EventFix *f, size_t node, size_t n) {
    int64_t end = os_mono_ns(f->c->os) + test_longer(WAIT_NS);
    Events *e = events_of(&f->nodes[node].app);
    size_t got = n + 1;
    while (e && got != n && os_mono_ns(f->c->os) < end) got = atomic_load(&e->readers_n);
    if (e) events_drop(e);
    return got == n;
}

// ---- readers

static void note(void *arg, const SseEvent *ev) {
    EventReader *r = arg;
    assert(r->n < SEEN_MAX);
    Seen *s = &r->seen[r->n++];
    int64_t id = 0;
    if (ev->id.n && !str_to_i64(ev->id, &id)) id = -1;
    s->id = id;
    str kind = str_sub(ev->event, 0, sizeof s->kind - 1);
    str data = str_sub(ev->data, 0, sizeof s->data - 1);
    memcpy(s->kind, kind.p, kind.n);
    memcpy(s->data, data.p, data.n);
}

typedef struct Feed {
    EventReader *r;
    Sse sse;
} Feed;

static bool on_data(void *arg, str piece) {
    Feed *feed = arg;
    EventReader *r = feed->r;
    pthread_mutex_lock(&r->lock);
    while (r->held) pthread_cond_wait(&r->grew, &r->lock);
    bool ok = sse_feed(&feed->sse, piece, note, r);
    pthread_cond_broadcast(&r->grew);
    pthread_mutex_unlock(&r->lock);
    return ok;
}

static void run_reader(void *arg) {
    EventReader *r = arg;
    Feed feed = { .r = r };
    sse_init(&feed.sse, 1 << 16);
    HttpHeader headers[2] = { { S("Authorization"), str_z(r->who) },
                              { S("Last-Event-ID"), str_z(r->last_id) } };
    CallSpec spec = { .to = r->node->addr,
                      .method = HTTP_GET,
                      .target = str_z(r->target),
                      .headers = headers,
                      .headers_n = r->last_id ? 2 : 1 };
    FetchResult got = { 0 };
    err e = http_fetch(r->c, &spec, 1 << 16, on_data, &feed, &got);
    pthread_mutex_lock(&r->lock);
    r->ended = true;
    r->status = e ? -1 : got.status;
    r->body = got.body;
    pthread_cond_broadcast(&r->grew);
    pthread_mutex_unlock(&r->lock);
    sse_done(&feed.sse);
}

EventReader *reader_open(EventFix *f, size_t node, const char *who, const char *target,
                         const char *last_id) {
    EventReader *r = mem_new(sizeof *r);
    r->f = f;
    r->node = &f->nodes[node];
    r->target = target;
    r->who = who;
    r->last_id = last_id;
    r->c = mem_new(sizeof *r->c);
    ctx_init(r->c, arena_new(), f->c->os);
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->grew, NULL);
    thread_start(f->c->os, "reader", run_reader, r, &r->thread);
    return r;
}

void reader_close(EventReader *r) {
    reader_hold(r, false);
    ctx_cancel(r->c);
    thread_join(r->thread);
    arena_free(r->c->mem);
    mem_free(r->c);
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->grew);
    mem_free(r);
}

void reader_hold(EventReader *r, bool on) {
    pthread_mutex_lock(&r->lock);
    r->held = on;
    pthread_cond_broadcast(&r->grew);
    pthread_mutex_unlock(&r->lock);
}

static bool wait_for(EventReader *r, size_t n, bool end) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += test_longer(WAIT_NS) / 1000000000;
    pthread_mutex_lock(&r->lock);
    int rc = 0;
    while (!rc && (r->n < n || (end && !r->ended)))
        rc = pthread_cond_timedwait(&r->grew, &r->lock, &until);
    bool ok = r->n >= n && (!end || r->ended);
    pthread_mutex_unlock(&r->lock);
    return ok;
}
bool wait_seen(EventReader *r, size_t n) { return wait_for(r, n, false); }
bool wait_ended(EventReader *r) { return wait_for(r, 0, true); }
