// SPDX-License-Identifier: Apache-2.0
// rollup_live.c - roll-ups as they change, for charts: once a second each project's changed rows
// go to the live readers of this node as the event "trace.rollup". They are not stored: an event
// says from which revision to which it leads, so a reader that missed one sees it, and asks
// GET /lathe/v1/rollups again, which says its revision. Revisions are said again for a while after
// the last change, so that a missed last event is noticed as well. Every node looks at the table,
// so it does not matter which one folded. Rows hold what their minute sums up to, no differences.
// Threads: a worker's; nothing is read while nobody listens.
#include "mod/trace/trace_own.h"
#include "base/map.h"
#include <assert.h>

enum {
    EVERY_MS = 1000,
    PART_MAX = EVENT_DATA_MAX - 1024, // rows of one event, in bytes; the rest is its frame
    PARTS_MAX = 8,                    // more has changed: readers are told to ask again
    ROWS_MAX = 1000,
    ECHO_MS = 15000, // a slow reader is live again, or sent away, within 20 s: it hears the second
    ECHO_FOR_MS = 3 * ECHO_MS,
};
static const int64_t MS = 1000000;

typedef struct Known { // of a project
    str project, org;
    int64_t revision, changed_ns;
} Known;

struct RollupTold { // up to which revision each project's readers were told
    Map projects;   // of Known
    Arena *mem;     // of these
    bool active;    // somebody listened at the last look
    int64_t echo_ns;
};

RollupTold *rollup_told_new(void) {
    RollupTold *t = mem_new(sizeof *t);
    t->mem = arena_new();
    map_init(&t->projects, 0x746f6c64);
    return t;
}

void rollup_told_free(RollupTold *t) {
    if (!t) return;
    map_done(&t->projects);
    arena_free(t->mem);
    mem_free(t);
}

// ---- one project's changes

typedef struct Changes {
    str project, org;
    int64_t after, revision;
    Buf parts[PARTS_MAX]; // rows, separated by commas
    size_t parts_n;
    bool many; // they do not fit
} Changes;

static void add_row(Changes *ch, const Rows *rows) {
    Buf one;
    buf_init(&one, PART_MAX);
    Json j = json_to(&one);
    rollup_write(rows, 1, &j);
    assert(!one.full);
    Buf *part = ch->parts_n ? &ch->parts[ch->parts_n - 1] : NULL;
    if (!part || part->n + one.n + 1 > PART_MAX) {
        ch->many = ch->parts_n == PARTS_MAX;
        part = ch->many ? NULL : &ch->parts[ch->parts_n++];
        if (part) buf_init(part, PART_MAX);
    }
    if (part && part->n) buf_add_char(part, ',');
    if (part) buf_add(part, buf_str(&one));
    buf_done(&one);
}

static void parts_drop(Changes *ch) {
    while (ch->parts_n) buf_done(&ch->parts[--ch->parts_n]);
    ch->many = false;
}

static err read_rows(Ctx *c, Tx *tx, Changes *ch) {
    static SQL(rollups_changed,
               "SELECT minute, deployment, model, key_id, requests, errors, prompt_tokens, "
               "completion_tokens, cost, total_us, ttft_n, ttft_us, b1, b2, b3, b4, b5, b6, b7, b8 "
               "FROM rollups WHERE project = $1 AND revision > $2 AND revision <= $3 "
               "ORDER BY revision, minute LIMIT $4");
    Rows *rows;
    size_t n = 0;
    TRY(db_ask(c, tx, &rows, &rollups_changed, V(ch->project), V(ch->after), V(ch->revision),
               V(ROWS_MAX + 1)));
    for (bool more;; n++) {
        TRY(rows_next(c, rows, &more));
        if (!more) return ERR_OK;
        if (n == ROWS_MAX) ch->many = true;
        if (ch->many) break;
        add_row(ch, rows);
    }
    rows_close(rows);
    return ERR_OK;
}

static void send_part(const Changes *ch, size_t part, const RollupSink *to) {
    Buf b;
    buf_init(&b, EVENT_DATA_MAX);
    bool rows = ch->parts_n && !ch->many;
    buf_printf(&b, "{\"after\":%lld,\"revision\":%lld,\"part\":%zu,\"parts\":%zu,\"data\":[",
               (long long)(rows ? ch->after : ch->revision), (long long)ch->revision, part + 1,
               rows ? ch->parts_n : 1);
    if (rows) buf_add(&b, buf_str(&ch->parts[part]));
    buf_add(&b, S("]}"));
    assert(!b.full);
    to->send(to->arg, ch->org, ch->project, buf_str(&b));
    buf_done(&b);
}

static void send_all(const Changes *ch, const RollupSink *to) {
    size_t parts = ch->parts_n && !ch->many ? ch->parts_n : 1;
    for (size_t p = 0; p < parts; p++) send_part(ch, p, to);
}

// ---- all projects

typedef struct Look {
    RollupTold *told;
    Changes *changed;
    size_t n;
} Look;

static void look_drop(Look *l) {
    for (size_t i = 0; i < l->n; i++) parts_drop(&l->changed[i]);
    l->n = 0;
}

static err read_changes(Ctx *c, Tx *tx, void *arg) {
    static SQL(rollup_states, "SELECT project, org, revision FROM rollup_state ORDER BY project");
    Look *l = arg;
    Rows *rows;
    size_t room = 0;
    look_drop(l);
    TRY(db_query(c, tx, &rollup_states, NULL, 0, &rows));
    for (bool more;;) {
        TRY(rows_next(c, rows, &more));
        if (!more) return ERR_OK;
        const Known *known = map_get(&l->told->projects, col_str(rows, 0));
        Changes ch = { .project = col_str(rows, 0),
                       .org = col_str(rows, 1),
                       .after = known ? known->revision : 0,
                       .revision = col_int(rows, 2) };
        if (known && known->revision >= ch.revision) continue;
        if (l->n == room) {
            room = room ? room * 2 : 16;
            Changes *grown = new (c->mem, Changes, room);
            if (l->n) memcpy(grown, l->changed, l->n * sizeof *grown);
            l->changed = grown;
        }
        Changes *to = &l->changed[l->n++];
        *to = ch;
        if (l->told->active) TRY(read_rows(c, tx, to));
    }
}

static void remember(RollupTold *t, const Changes *ch, int64_t now_ns) {
    Known *k = map_get(&t->projects, ch->project);
    if (!k) {
        k = new (t->mem, Known, 1);
        k->project = arena_str(t->mem, ch->project), k->org = arena_str(t->mem, ch->org);
        map_set(&t->projects, k->project, k);
    }
    k->revision = ch->revision, k->changed_ns = now_ns;
}

void rollup_echo(RollupTold *t, int64_t now_ns, const RollupSink *to) {
    MapEntry *e;
    for (size_t i = 0; map_each(&t->projects, &i, &e);) {
        const Known *k = e->value;
        if (now_ns - k->changed_ns > ECHO_FOR_MS * MS) continue;
        send_all(&(Changes){ .project = k->project, .org = k->org, .revision = k->revision }, to);
    }
    t->echo_ns = now_ns + ECHO_MS * MS;
}

// The first look after a time without readers tells revisions only: who came in between asks again
// when it knows less.
err rollup_tell(Ctx *c, RollupTold *t, const RollupSink *to) {
    Look l = { .told = t };
    err e = db_read(c, c->db, read_changes, &l);
    int64_t now_ns = os_mono_ns(c->os);
    for (size_t i = 0; i < l.n && !e; i++) {
        send_all(&l.changed[i], to);
        remember(t, &l.changed[i], now_ns);
    }
    look_drop(&l);
    if (e) return e;
    if (t->active && now_ns >= t->echo_ns) rollup_echo(t, now_ns, to);
    t->active = true;
    return ERR_OK;
}

void rollup_told_rest(RollupTold *t) { t->active = false; }

// ---- the worker

static Worker *teller;
static RollupTold *told;

static void send_live(void *app, str org, str project, str data) {
    event_live(app, rollup_event.name, org, project, (str){ 0 }, data);
}

static err tell(Ctx *c, void *arg) {
    App *app = app_of(c);
    (void)arg;
    if (event_heard(app)) return rollup_tell(c, told, &(RollupSink){ send_live, app });
    rollup_told_rest(told);
    return ERR_OK;
}

err rollup_live_start(Ctx *c) {
    told = rollup_told_new();
    teller = worker_start(app_of(c), "rollups", EVERY_MS, tell, NULL);
    return ERR_OK;
}

void rollup_live_stop(void *app) {
    (void)app;
    worker_free(teller);
    rollup_told_free(told);
    teller = NULL, told = NULL;
}
