// SPDX-License-Identifier: Apache-2.0
// trace_day_test.c - records by day: each is folded exactly once, into the day of its start,
// wherever the process or the power dies; lists and gets over days are those of one database;
// retention removes files.
#include "base/id.h"
#include "base/test.h"
#include "base/time.h"
#include "mod/trace/trace_own.h"
#include "os/sim.h"
#include "res/toy_test.h"
#include "res/table.h"

static const int64_t DAY_MS = 86400000, START_MS = 1767225600000;
enum { DAYS = 4, RECORDS_MAX = 3000, SEGMENT = 64 << 10, ADDED = 180 };

typedef struct World {
    Sim *sim; // NULL: the real machine
    App app;
    Ctx *c;
    JournalPos at;
    size_t n; // records that were flushed: r0, r1, …
    int64_t started[RECORDS_MAX];
    unsigned seen[RECORDS_MAX];
    const char *strange;
    size_t again, deaths; // records that were read twice; lives that ended at a write
} World;

static err open_world(World *w, const char *dir) {
    static const Module *const mods[] = { &trace_module, NULL };
    App *a = &w->app;
    a->os = w->sim ? sim_node(w->sim, 0) : os_real();
    a->data_dir = str_z(dir), a->modules = mods;
    w->c = app_ctx_new(a);
    w->c->org = S("o1"), w->c->project = S("p1");
    tables_init(mods);
    TRY(dir_make(w->c, str_z(dir), 0700));
    TRY(dir_sync(w->c, S("/")));
    str url = arena_printf(w->c->mem, "sqlite:%s/main.db", dir);
    TRY(db_open(w->c, &(DbConfig){ .url = url }, &a->db));
    w->c->db = a->db;
    TRY(db_migrate(w->c, a->db, "usage", usage_module.migrations, usage_module.migrations_n));
    TRY(db_migrate(w->c, a->db, "trace", trace_module.migrations, trace_module.migrations_n));
    TRY(journal_open_sized(w->c, str_z(dir), 7, SEGMENT, &a->journal));
    TRY(trace_days_open(w->c));
    return trace_folder.position(w->c, &w->at);
}

static void close_world(World *w, bool died) {
    if (w->app.journal && died) journal_drop(w->app.journal);
    else if (w->app.journal) journal_close(w->app.journal);
    trace_days_close();
    db_close(w->app.db);
    app_ctx_free(w->c);
    w->app.journal = NULL, w->app.db = NULL, w->c = NULL;
}

static RequestRecord record(World *w, size_t number, int64_t start_ms) {
    RequestRecord r = { .request_id = arena_printf(w->c->mem, "r%zu", number),
                        .org = S("o1"),
                        .project = S("p1"),
                        .model = S("m"),
                        .key_id = S("key_1"),
                        .final = true,
                        .status = 429,
                        .outcome = OUTCOME_ERROR,
                        .start_ms = start_ms,
                        .end_ms = start_ms + 5 };
    return r;
}

// ---- exactly once

static err append_some(World *w, size_t n) {
    for (; n && w->n < RECORDS_MAX; n--, w->n++) {
        // Mostly of one day, as life is; some are of others.
        int64_t day = sim_random(w->sim, 5) ? (int64_t)w->n * DAYS / RECORDS_MAX
                                            : (int64_t)sim_random(w->sim, DAYS);
        w->started[w->n] = START_MS + day * DAY_MS + (int64_t)sim_random(w->sim, 86400000);
        RequestRecord r = record(w, w->n, w->started[w->n]);
        usage_refused(&w->app, &r);
        r.final = sim_random(w->sim, 2), r.project = r.final ? (str){ 0 } : S("p1");
        if (!sim_random(w->sim, 4)) usage_refused(&w->app, &r); // no record comes of it
    }
    return journal_flush(w->c, w->app.journal);
}

static err fold_some(World *w) {
    JournalBatch b;
    TRY(journal_read(w->c, w->app.journal, w->at, 1 + sim_random(w->sim, 120), &b));
    if (!b.n) return ERR_OK;
    JournalPos next = b.records[b.n - 1].next;
    TRY(trace_days_put(w->c, &b, next));
    if (!sim_random(w->sim, 4)) { // the next life has only what the days know
        w->again += b.n;
        return ERR_CANCELLED;
    }
    TRY(trace_days_mark(w->c, next));
    w->at = next;
    return ERR_OK;
}

typedef struct Day {
    World *w;
    int64_t day;
} Day;
static err check_day(Ctx *c, Tx *tx, void *arg) {
    static SQL(day_rows, "SELECT request_id, started_at, id, created_at FROM traces");
    const Day *d = arg;
    World *w = d->w;
    Rows *rows;
    TRY(db_query(c, tx, &day_rows, NULL, 0, &rows));
    for (bool more;;) {
        int64_t n = -1;
        TRY(rows_next(c, rows, &more));
        if (!more) return ERR_OK;
        str id = col_str(rows, 0);
        if (!str_to_i64(str_sub(id, 1, id.n), &n) || n < 0 || (size_t)n >= w->n)
            w->strange = "a record was invented";
        else if (w->seen[n]++) w->strange = "a record is there twice";
        else if (col_int(rows, 1) != w->started[n] || time_day(w->started[n]) != d->day)
            w->strange = "a record is of another day";
        else if (id_time_ms(col_str(rows, 2)) != w->started[n])
            w->strange = "an identifier does not name its day";
        if (w->strange) return fail(c, ERR_INTERNAL, R_INTERNAL, "why", w->strange);
    }
}

static err check_world(World *w) {
    int64_t *days;
    size_t n;
    memset(w->seen, 0, sizeof w->seen);
    TRY(daily_days(w->c, trace_days(), &days, &n));
    for (size_t i = 0; i < n; i++) {
        Db *db;
        TRY(daily_take(w->c, trace_days(), days[i], false, &db));
        Day d = { w, days[i] };
        err e = db_read(w->c, db, check_day, &d);
        daily_give(trace_days(), db);
        TRY(e);
    }
    return ERR_OK;
}

static err live(World *w, const SimFaults *faults) {
    static const SimFaults none = { 0 };
    for (int life = 0; life < 12; life++) {
        TRY(open_world(w, "/data"));
        TRY(check_world(w)); // nothing twice, at any time
        TRY(append_some(w, sim_random(w->sim, 150)));
        unsigned lives = sim_lives(w->sim, 0);
        sim_faults(w->sim, 0, faults);
        err e = ERR_OK;
        for (uint64_t i = sim_random(w->sim, 5); i && !e; i--) e = fold_some(w);
        sim_faults(w->sim, 0, &none);
        if (sim_lives(w->sim, 0) == lives) sim_crash(w->sim, 0, sim_random(w->sim, 2));
        else w->deaths++;
        close_world(w, true);
    }
    TRY(open_world(w, "/data"));
    JournalPos end = journal_end(w->app.journal);
    while (w->at.segment < end.segment || w->at.offset < end.offset) {
        JournalBatch b;
        TRY(journal_read(w->c, w->app.journal, w->at, 500, &b));
        if (!b.n) break;
        w->at = b.records[b.n - 1].next;
        TRY(trace_folder.batch(w->c, &b, w->at));
    }
    TRY(check_world(w));
    for (size_t i = 0; i < w->n; i++)
        if (!w->seen[i]) return fail(w->c, ERR_INTERNAL, R_INTERNAL, "why", "a record is lost");
    return ERR_OK;
}

static void histories(uint64_t first, const SimFaults *faults) {
    size_t records = 0, again = 0, deaths = 0;
    for (uint64_t seed = first; seed < first + 12; seed++) {
        World *w = mem_new(sizeof *w);
        w->sim = sim_new(seed);
        err e = live(w, faults);
        Buf why;
        buf_init(&why, 1000);
        if (e) failure_format(&w->c->failure, "en", &why);
        if (e)
            test_failed(__FILE__, __LINE__, "seed %llu: %s", (unsigned long long)seed, buf_z(&why));
        buf_done(&why);
        records += w->n, again += w->again, deaths += w->deaths;
        close_world(w, true);
        sim_free(w->sim);
        mem_free(w);
        if (e) return;
    }
    CHECK(records > 4000); // the histories were not empty
    if (faults->crash) CHECK(deaths > 40);
    else CHECK(again > 1000);
}

TEST(trace_days_sim_deaths_between_commits) { histories(100, &(SimFaults){ 0 }); }
TEST(trace_days_sim_deaths_at_any_write) { histories(300, &(SimFaults){ .crash = 60000 }); }

// ---- lists

typedef struct Add {
    const RequestRecord *r;
    str id;
} Add;
static err add_tx(Ctx *c, Tx *tx, void *arg) {
    const Add *a = arg;
    Insert to = trace_add_begin(c, tx);
    TRY(trace_add(&to, a->r, a->id));
    return insert_end(&to, NULL);
}

static err add_both(World *w, Db *one, size_t number) {
    static const char *const models[] = { "a", "b", "c" };
    uint8_t random[10];
    int64_t day = (int64_t)(test_random() % DAYS);
    RequestRecord r =
        record(w, number, START_MS + day * DAY_MS + (int64_t)(test_random() % 86400000));
    for (size_t i = 0; i < sizeof random; i++) random[i] = (uint8_t)test_random();
    r.status = test_random() % 2 ? 200 : 429, r.model = str_z(models[test_random() % 3]);
    r.deployment = test_random() % 3 ? S("dep_1") : (str){ 0 };
    r.cost_nano = (int64_t)(test_random() % 5);
    r.prompt = test_random() % 4 ? (str){ 0 } : S("{}");
    Add add = { &r, id_format(w->c->mem, "trace", r.start_ms, random) };
    TRY(db_tx(w->c, one, add_tx, &add));
    if (!(test_random() % 6)) return db_tx(w->c, w->app.db, add_tx, &add);
    Db *db;
    TRY(daily_take(w->c, trace_days(), time_day(r.start_ms), true, &db));
    err e = db_tx(w->c, db, add_tx, &add);
    daily_give(trace_days(), db);
    return e;
}

static err list_tx(Ctx *c, Tx *tx, void *arg) {
    struct {
        const ListSpec *spec;
        ListPage page;
    } *l = arg;
    return res_list(c, tx, &trace_resource, l->spec, &l->page);
}

static ListSpec random_spec(World *w) {
    static const char *const sorts[] = { NULL, "started_at", "model", "deployment", "status" };
    const char *sort = sorts[test_random() % countof(sorts)];
    ListSpec spec = { .limit = 1 + test_random() % 30, .descending = test_random() % 2 };
    if (sort) spec.sort = field_find(trace_resource.fields, str_z(sort));
    err e = ERR_OK;
    if (!(test_random() % 2)) e = list_filter(w->c, &trace_resource, &spec, "model", OP_EQ, S("b"));
    if (!e && !(test_random() % 3))
        e = list_filter(w->c, &trace_resource, &spec, "status", OP_LT, S("300"));
    if (e) test_failed(__FILE__, __LINE__, "a filter");
    return spec;
}

// Page by page the same rows and the same cursors.
static void same_lists(World *w, Db *one, ListSpec spec, size_t *pages) {
    struct {
        const ListSpec *spec;
        ListPage page;
    } l = { &spec, { 0 } };
    do {
        ListPage got;
        CHECK_OK(w->c, db_read(w->c, one, list_tx, &l));
        CHECK_OK(w->c, daily_list(w->c, trace_days(), &trace_resource, &spec, &got));
        CHECK_INT(got.n, l.page.n);
        for (size_t i = 0; i < got.n; i++) {
            const TraceRow *a = (const TraceRow *)got.rows + i, *b = (TraceRow *)l.page.rows + i;
            CHECK(str_eq(a->head.id, b->head.id) && str_eq(a->request_id, b->request_id));
        }
        CHECK(str_eq(got.cursor, l.page.cursor));
        spec.cursor = got.cursor;
        ++*pages;
    } while (spec.cursor.n);
}

static err get_tx(Ctx *c, Tx *tx, void *arg) {
    TraceRow *row = arg;
    return res_get(c, tx, &trace_resource, row->head.id, row);
}

static void check_lists(World *w, Db *one) {
    size_t pages = 0;
    for (size_t i = 0; i < ADDED; i++) CHECK_OK(w->c, add_both(w, one, i));
    for (int i = 0; i < 60; i++) same_lists(w, one, random_spec(w), &pages);
    CHECK(pages > 100);
    ListPage page;
    ListSpec all = { .limit = LIST_MAX };
    CHECK_OK(w->c, daily_list(w->c, trace_days(), &trace_resource, &all, &page));
    CHECK_INT(page.n, ADDED);
    for (size_t i = 0; i < page.n; i += 7) {
        TraceRow row = { .head.id = ((TraceRow *)page.rows)[i].head.id };
        CHECK_OK(w->c, daily_read(w->c, trace_days(), row.head.id, get_tx, &row));
        CHECK(str_eq(row.request_id, ((TraceRow *)page.rows)[i].request_id));
    }
    w->c->project = S("p2"); // nothing of it is another project's
    TraceRow row = { .head.id = ((TraceRow *)page.rows)[0].head.id };
    CHECK_ERR(daily_read(w->c, trace_days(), row.head.id, get_tx, &row), ERR_NOTFOUND);
    CHECK_OK(w->c, daily_list(w->c, trace_days(), &trace_resource, &all, &page));
    CHECK_INT(page.n, 0);
    w->c->project = S("p1");
}

static bool there(World *w, int64_t day) {
    char text[TIME_TEXT];
    PathInfo info;
    time_format((time_day(START_MS) + day) * DAY_MS, text);
    return !path_info(w->c,
                      arena_printf(w->c->mem, STR_FMT "/telemetry/traces-%.10s.db",
                                   STR_ARG(w->app.data_dir), text),
                      &info);
}

static void check_retention(World *w) {
    Db *held;
    int64_t removed = 0;
    CHECK_OK(w->c, daily_take(w->c, trace_days(), time_day(START_MS), false, &held));
    CHECK_OK(w->c, trace_trim(w->c, START_MS + 2 * DAY_MS + 1000, &removed));
    CHECK(removed > 1 && there(w, 0) && !there(w, 1) && there(w, 2) && there(w, 3)); // 0 is in use
    daily_give(trace_days(), held);
    CHECK_OK(w->c, trace_trim(w->c, START_MS + 2 * DAY_MS + 1000, &removed));
    CHECK(!there(w, 0) && there(w, 2));
    ListPage page;
    ListSpec all = { .limit = LIST_MAX };
    CHECK_OK(w->c, daily_list(w->c, trace_days(), &trace_resource, &all, &page));
    CHECK(page.n > ADDED / 4 && page.n < 3 * ADDED / 4);
    for (size_t i = 0; i < page.n; i++)
        CHECK(((TraceRow *)page.rows)[i].started_at >= START_MS + 2 * DAY_MS);
}

TEST(trace_days_lists_and_retention) {
    World *w = mem_new(sizeof *w);
    Ctx *c = test_ctx();
    c->os = os_real();
    Db *one;
    str path = arena_printf(c->mem, "sqlite:%s/one.db", test_dir());
    CHECK_OK(c, db_open(c, &(DbConfig){ .url = path }, &one));
    CHECK_OK(c, db_migrate(c, one, "trace", trace_daily.migrations, trace_daily.migrations_n));
    if (open_world(w, test_dir())) test_failed(__FILE__, __LINE__, "it cannot start");
    else {
        check_lists(w, one);
        check_retention(w);
    }
    close_world(w, false);
    db_close(one);
    mem_free(w);
}

// ---- partitions

static err fold_tx(Ctx *c, Tx *tx, void *arg) {
    RequestRecord *all = arg;
    const RequestRecord *at[DAYS * 2];
    for (size_t i = 0; i < countof(at); i++) at[i] = &all[i];
    return trace_fold(c, tx, at, countof(at));
}

static err fold_days(ToyFix *f) {
    RequestRecord all[DAYS * 2];
    for (size_t i = 0; i < countof(all); i++)
        all[i] = (RequestRecord){ .request_id = S("r"),
                                  .org = S("o1"),
                                  .project = S("p1"),
                                  .final = true,
                                  .start_ms = START_MS + (int64_t)i % DAYS * DAY_MS };
    return db_tx(f->c, f->app.db, fold_tx, all);
}

static err old_tx(Ctx *c, Tx *tx, void *arg) {
    Insert to = trace_add_begin(c, tx);
    (void)arg;
    for (int i = 0; i < 3; i++) {
        RequestRecord r = { .request_id = S("old"),
                            .org = S("o1"),
                            .project = S("p1"),
                            .start_ms = START_MS + i / 2 * DAY_MS };
        TRY(trace_add(&to, &r, os_id(c, "trace")));
    }
    return insert_end(&to, NULL);
}

// Folded before the table was partitioned and after it: all is kept, then whole days go.
static void suite_trace_partitions(ToyFix *f) {
    static const char *const all = "SELECT COUNT(*) FROM traces",
                             *const parts = "SELECT COUNT(*) FROM pg_inherits WHERE inhparent = "
                                            "to_regclass('traces')";
    const Module *u = &usage_module, *t = &trace_module;
    int64_t removed = 0;
    f->c->db = f->app.db;
    CHECK(!trace_days());
    CHECK_OK(f->c, db_migrate(f->c, f->app.db, "usage", u->migrations, u->migrations_n));
    CHECK_OK(f->c, db_migrate(f->c, f->app.db, "trace", t->migrations, 3));
    CHECK_OK(f->c, db_tx(f->c, f->app.db, old_tx, NULL));
    CHECK_OK(f->c, db_migrate(f->c, f->app.db, "trace", t->migrations, t->migrations_n));
    CHECK_INT(toy_count(f, all, NULL), 3);
    CHECK_INT(toy_count(f, parts, NULL), 2 + 1);
    CHECK_OK(f->c, fold_days(f));
    CHECK_OK(f->c, fold_days(f));
    CHECK_INT(toy_count(f, all, NULL), 3 + DAYS * 4);
    CHECK_INT(toy_count(f, parts, NULL), DAYS + 1);
    CHECK_OK(f->c, trace_trim(f->c, START_MS + 2 * DAY_MS + 5000, &removed));
    CHECK_INT(toy_count(f, parts, NULL), DAYS - 2 + 1);
    CHECK_INT(toy_count(f, all, NULL), (DAYS - 2) * 4);
}
SUITE_TEST_ON(DB_POSTGRES, toy_run, trace_partitions, _postgres)
