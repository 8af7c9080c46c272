// SPDX-License-Identifier: Apache-2.0
// rollup_test.c - roll-ups are the exact sums of what was folded, however it is cut into batches;
// and a chart that reads them once and follows the events always shows what is in the table, also
// when events are lost, several projects fold at once, and transactions run twice.
#include "mod/trace/trace_own.h"
#include "base/map.h"
#include "base/time.h"
#include "res/toy_test.h"

static const char *const projects[] = { "p1", "p2" }, *const models[] = { "m1", "m2", "m3" },
                         *const keys[] = { "key_a", "key_b", "key_c", "key_d" };
static const int64_t START_MS = 1767225600000; // a whole minute

static RequestRecord *record(Ctx *c, int minutes) {
    RequestRecord *r = new (c->mem, RequestRecord, 1);
    bool deployed = test_random() % 8;
    *r = (RequestRecord){ .request_id = S("req_1"), .org = S("o1"), .final = true, .attempt = 1 };
    r->project = str_z(projects[test_random() % countof(projects)]);
    r->model = str_z(models[test_random() % countof(models)]);
    r->deployment = deployed ? S("dep_1") : (str){ 0 };
    r->key_id = str_z(keys[test_random() % countof(keys)]);
    r->start_ms = START_MS + (int64_t)(test_random() % (uint64_t)(minutes * 60000));
    r->outcome = test_random() % 3 ? OUTCOME_OK : OUTCOME_ERROR;
    r->streamed = test_random() % 2;
    r->ttft_us = test_random() % 4 ? (int64_t)(test_random() % 12000000) : -1;
    r->prompt_tokens = (int64_t)(test_random() % 1000);
    r->completion_tokens = (int64_t)(test_random() % 1000);
    r->cost_nano = (int64_t)(test_random() % 1000000);
    r->stage_us[STAGE_TOTAL] = (int64_t)(test_random() % 20000000);
    if (!(test_random() % 10)) r->final = false; // another attempt follows: not counted
    return r;
}

typedef struct Fold {
    const RequestRecord **at;
    size_t n;
} Fold;
static err fold_tx(Ctx *c, Tx *tx, void *arg) {
    const Fold *f = arg;
    return rollup_fold(c, tx, f->at, f->n);
}

// ---- what the sums must be

typedef struct Want {
    int64_t requests, errors, prompt, completion, cost, total_us, timed, ttft_us;
    int64_t buckets[ROLLUP_BOUNDS];
} Want;

static void count(Ctx *c, Map *wants, const RequestRecord *r) {
    if (!r->final) return;
    str key =
        arena_printf(c->mem, STR_FMT "|%lld|" STR_FMT "|" STR_FMT "|" STR_FMT, STR_ARG(r->project),
                     (long long)(r->start_ms / 60000), STR_ARG(r->deployment),
                     STR_ARG(r->deployment.n ? r->model : S("")), STR_ARG(r->key_id));
    Want *w = map_get(wants, key);
    if (!w) map_set(wants, key, w = new (c->mem, Want, 1));
    w->requests++, w->errors += r->outcome != OUTCOME_OK;
    w->prompt += r->prompt_tokens, w->completion += r->completion_tokens;
    w->cost += r->cost_nano, w->total_us += r->stage_us[STAGE_TOTAL];
    if (!r->streamed || r->ttft_us < 0) return;
    w->timed++, w->ttft_us += r->ttft_us;
    for (int i = 0; i < ROLLUP_BOUNDS; i++) w->buckets[i] += r->ttft_us <= rollup_bounds_us[i];
}

static bool same(yyjson_val *row, const Want *w) {
    const struct {
        const char *name;
        int64_t n;
    } sums[] = { { "requests", w->requests },    { "errors", w->errors },
                 { "prompt_tokens", w->prompt }, { "completion_tokens", w->completion },
                 { "cost_nano", w->cost },       { "total_us", w->total_us },
                 { "ttft_count", w->timed },     { "ttft_us", w->ttft_us } };
    int64_t n = -1;
    for (size_t i = 0; i < countof(sums); i++)
        if (!json_get_i64(row, sums[i].name, &n) || n != sums[i].n) return false;
    yyjson_val *buckets = json_get(row, "ttft_buckets");
    for (size_t i = 0; i < ROLLUP_BOUNDS; i++)
        if (yyjson_get_sint(yyjson_arr_get(buckets, i)) != w->buckets[i]) return false;
    return yyjson_arr_size(buckets) == ROLLUP_BOUNDS;
}

static str key_of(Ctx *c, str project, yyjson_val *row) {
    int64_t ms = 0;
    str at = json_get_str(row, "at"), deployment = json_get_str(row, "deployment"),
        model = json_get_str(row, "model"), key = json_get_str(row, "key");
    if (!time_parse(at, &ms)) return S("?");
    return arena_printf(c->mem, STR_FMT "|%lld|" STR_FMT "|" STR_FMT "|" STR_FMT, STR_ARG(project),
                        (long long)(ms / 60000), STR_ARG(deployment), STR_ARG(model), STR_ARG(key));
}

// ---- a chart: one GET, then events

typedef struct Chart {
    ToyFix *f;
    const char *project;
    Map rows; // by key: the row's text
    int64_t revision, parts, gets, lost;
    unsigned lose; // of 10 events
} Chart;

static yyjson_val *get(ToyFix *f, const char *project, const char *query) {
    HttpReply reply = { 0 };
    HttpRequest r = { .query = str_z(query) };
    yyjson_val *root = NULL;
    toy_enter(f, "o1", project);
    buf_init(&reply.body, 8 << 20);
    err e = serve_rollups(f->c, &r, NULL, &reply);
    if (!e && !reply.body.full && json_parse(f->c, buf_str(&reply.body), &root)) root = NULL;
    buf_done(&reply.body);
    return root;
}

static void put_rows(Chart *ch, yyjson_val *data) {
    size_t i, n;
    yyjson_val *row;
    yyjson_arr_foreach(data, i, n, row) {
        Ctx *c = ch->f->c;
        str *text = new (c->mem, str, 1);
        *text = json_text(c->mem, row);
        map_set(&ch->rows, key_of(c, str_z(ch->project), row), text);
    }
}

#define WHOLE "from=2025-12-31T00:00:00Z&to=2026-01-02T00:00:00Z&by=deployment,model,key"
static void chart_get(Chart *ch) {
    yyjson_val *root = get(ch->f, ch->project, WHOLE);
    ch->gets++, ch->parts = 0;
    if (json_get_i64(root, "revision", &ch->revision)) put_rows(ch, json_get(root, "data"));
}

static void chart_event(Chart *ch, str project, str data) {
    yyjson_val *root;
    int64_t after = -1, revision = -1, part = 0, parts = 0;
    if (!str_is(project, ch->project)) return;
    if (test_random() % 10 < ch->lose) {
        ch->lost++;
        return;
    }
    CHECK_OK(ch->f->c, json_parse(ch->f->c, data, &root));
    CHECK(json_get_i64(root, "after", &after) && json_get_i64(root, "revision", &revision));
    CHECK(json_get_i64(root, "part", &part) && json_get_i64(root, "parts", &parts));
    CHECK(after <= revision && part >= 1 && part <= parts);
    if (revision <= ch->revision) return;
    if (after > ch->revision) {
        chart_get(ch);
        return;
    }
    put_rows(ch, json_get(root, "data"));
    ch->parts = part == 1 ? 1 : ch->parts + (ch->parts == part - 1);
    if (part == parts && ch->parts == parts) ch->revision = revision;
}

typedef struct Charts {
    Chart at[3];
    size_t events;
} Charts;
static void hear(void *arg, str org, str project, str data) {
    Charts *charts = arg;
    charts->events++;
    if (!str_is(org, "o1")) test_failed(__FILE__, __LINE__, "an event of another organisation");
    for (size_t i = 0; i < countof(charts->at); i++) chart_event(&charts->at[i], project, data);
}

// Every row of the chart is in the table and says the same, and none is missing.
static bool shows_all(Chart *ch) {
    yyjson_val *data = json_get(get(ch->f, ch->project, WHOLE), "data"), *row;
    size_t i, n;
    if (yyjson_arr_size(data) != ch->rows.live) return false;
    yyjson_arr_foreach(data, i, n, row) {
        const str *shown = map_get(&ch->rows, key_of(ch->f->c, str_z(ch->project), row));
        if (!shown || !str_eq(*shown, json_text(ch->f->c->mem, row))) return false;
    }
    return true;
}

// ---- tests

static err open_trace(ToyFix *f) {
    f->c->db = f->app.db;
    db_faults(f->app.db, &(DbFaults){ .again = 200000 });
    return db_migrate(f->c, f->app.db, "trace", trace_migrations, 2);
}

static err fold_some(ToyFix *f, Map *wants, size_t n, int minutes) {
    Fold fold = { new (f->c->mem, const RequestRecord *, n), n };
    for (size_t i = 0; i < n; i++) {
        RequestRecord *r = record(f->c, minutes);
        if (wants) count(f->c, wants, r);
        fold.at[i] = r;
    }
    return db_tx(f->c, f->c->db, fold_tx, &fold);
}

TOY_TEST(trace_rollup_sums_are_exact) {
    Map wants;
    CHECK_OK(f->c, open_trace(f));
    map_init(&wants, 1);
    for (int i = 0; i < 40; i++) CHECK_OK(f->c, fold_some(f, &wants, 1 + test_random() % 60, 3));
    size_t seen = 0, i, n;
    yyjson_val *row;
    for (size_t p = 0; p < countof(projects); p++) {
        yyjson_val *data = json_get(get(f, projects[p], WHOLE), "data");
        yyjson_arr_foreach(data, i, n, row) {
            const Want *w = map_get(&wants, key_of(f->c, str_z(projects[p]), row));
            CHECK(w && same(row, w));
            seen++;
        }
    }
    CHECK_INT(seen, wants.live);
    // Put together they are the same sums.
    int64_t all = 0, errors = 0, got = 0, got_errors = 0, one;
    MapEntry *e;
    for (size_t at = 0; map_each(&wants, &at, &e);)
        if (str_starts(e->key, S("p1|")))
            all += ((Want *)e->value)->requests, errors += ((Want *)e->value)->errors;
    yyjson_val *data = json_get(
        get(f, "p1", "from=2025-12-31T00:00:00Z&to=2026-01-02T00:00:00Z&step=60&by=key"), "data");
    yyjson_arr_foreach(data, i, n, row) {
        CHECK(json_get_str(row, "key").n && !json_get(row, "model")
              && !json_get(row, "deployment"));
        CHECK(json_get_i64(row, "requests", &one));
        got += one;
        CHECK(json_get_i64(row, "errors", &one));
        got_errors += one;
    }
    CHECK_INT(got, all);
    CHECK_INT(got_errors, errors);
    CHECK_INT(n, countof(keys));
    CHECK(!get(f, "p1", "by=colour") && !str_cmp(str_z(toy_param(f, "got")), S("colour")));
    map_done(&wants);
}

TOY_TEST(trace_rollup_a_chart_has_no_gap) {
    Charts charts = { .at = { { f, "p1", { 0 }, 0, 0, 0, 0, 0 },
                              { f, "p1", { 0 }, 0, 0, 0, 0, 3 },
                              { f, "p2", { 0 }, 0, 0, 0, 0, 0 } } };
    RollupTold *told = rollup_told_new();
    RollupSink sink = { hear, &charts };
    CHECK_OK(f->c, open_trace(f));
    for (int i = 0; i < 3; i++) map_init(&charts.at[i].rows, 2);
    for (int turn = 0; turn < 120; turn++) {
        size_t n =
            1 + test_random() % (turn % 20 ? 10 : 400); // now and then more than an event holds
        CHECK_OK(f->c, fold_some(f, NULL, n, turn % 20 ? 2 : 30));
        if (turn == 10 || turn == 70) // a chart opens; the other is opened anew
            for (int i = 0; i < 3; i++) chart_get(&charts.at[i]);
        if (turn > 10 && test_random() % 2) CHECK_OK(f->c, rollup_tell(f->c, told, &sink));
        if (turn == 50) rollup_told_rest(told);
        if (turn % 30 == 29) { // whatever the last event was that it missed
            CHECK_OK(f->c, rollup_tell(f->c, told, &sink));
            charts.at[1].lose = 0;
            rollup_echo(told, os_mono_ns(f->c->os), &sink);
            for (int i = 0; turn > 10 && i < 3; i++) CHECK(shows_all(&charts.at[i]));
            charts.at[1].lose = 3;
        }
    }
    CHECK(charts.at[1].lost > 3 && charts.at[1].gets > charts.at[2].gets);
    size_t events = charts.events; // nothing has changed: nothing is said
    CHECK_OK(f->c, rollup_tell(f->c, told, &sink));
    CHECK_INT(charts.events, events);
    for (int i = 0; i < 3; i++) map_done(&charts.at[i].rows);
    rollup_told_free(told);
}

// Costs as high as a record can hold them: their sum is more than 64 bits, and must not keep what
// others used from being folded.
TOY_TEST(rollups_of_unpayable_requests_are_folded) {
    enum { MANY = 1500, BATCHES = 3 };
    RequestRecord dear = { .request_id = S("req_1"),
                           .org = S("o1"),
                           .project = S("p1"),
                           .model = S("m1"),
                           .key_id = S("key_a"),
                           .start_ms = START_MS,
                           .cost_nano = 1LL << 53,
                           .final = true,
                           .attempt = 1 };
    Fold all = { new (f->c->mem, const RequestRecord *, MANY), MANY };
    CHECK_OK(f->c, open_trace(f));
    for (size_t i = 0; i < MANY; i++) all.at[i] = &dear;
    for (int i = 0; i < BATCHES; i++) CHECK_OK(f->c, db_tx(f->c, f->app.db, fold_tx, &all));
    CHECK_INT(toy_count(f, "SELECT requests FROM rollups", NULL), MANY * BATCHES);
    CHECK_INT(toy_count(f, "SELECT cost FROM rollups", NULL), USAGE_SUM_MAX);
    CHECK(get(f, "p1", WHOLE));
}
