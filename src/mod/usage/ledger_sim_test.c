// SPDX-License-Identifier: Apache-2.0
// ledger_sim_test.c - journal, ledger and audit chain on the simulated machine: attempts are
// opened, marked and settled by a loop, folded now and then, and the process or the power dies at
// any moment. What must hold is said at check_rows and check_sums.
#include "mod/usage/usage_own.h"
#include "base/test.h"
#include "mod/audit/audit.h"
#include "os/sim.h"
#include <stdio.h>

enum { ATTEMPTS_MAX = 6000, EVENTS_MAX = 30000, SEGMENT = 128 << 10, LIVE_MAX = 40, AHEAD = 16 };

typedef struct Attempt {
    RequestRecord r;
    int64_t opened, settled;   // positions among all appended records; -1: not
    int64_t marked, marked_at; // the last mark: tokens, and its position
    bool dead;                 // its process died before it was settled
    bool kept, kept_settled;   // seen in the ledger after a start; as it was settled
    int64_t kept_tokens;
} Attempt;

typedef struct World {
    Sim *sim;
    App app;
    Ctx *c;
    Loop *l;
    Timer *work;
    FoldReader reader;
    Attempt *all;
    size_t n;
    int64_t events, written, life_first; // appended ever; sure to be in the file; this life's first
    bool power_cut;
    DbFaults db_faults;  // while it lives
    const char *strange; // the rule that was broken
    size_t orphans, lost, folds;
} World;

static void broken(World *w, const char *what) {
    if (!w->strange) w->strange = what;
}

// ---- the workload

static void begin(World *w) {
    if (w->n == ATTEMPTS_MAX || !usage_room(&w->app)) return;
    Attempt *a = &w->all[w->n++];
    static const char *const projects[] = { "project_a", "project_b" }, *const models[] = { "m",
                                                                                            "n" };
    int64_t start_ms = os_wall_ms(w->app.os) - (int64_t)sim_random(w->sim, 3) * 86400000;
    *a = (Attempt){ .settled = -1, .marked_at = -1, .opened = w->events++ };
    a->r = (RequestRecord){ .org = S("org_1"),
                            .project = str_z(projects[sim_random(w->sim, 2)]),
                            .model = str_z(models[sim_random(w->sim, 2)]),
                            .key_id = S("key_1"),
                            .streamed = true,
                            .final = true,
                            .attempt = 1,
                            .prompt_tokens = 1 + (int64_t)sim_random(w->sim, 100),
                            .start_ms = start_ms,
                            .end_ms = start_ms };
    char *id = mem_new(40);
    snprintf(id, 40, "attempt_%06zu", w->n - 1);
    a->r.attempt_id = a->r.request_id = str_z(id);
    usage_open(&w->app, &a->r);
}

static void step(World *w, Attempt *a) {
    if (sim_random(w->sim, 3)) {
        a->marked += 1 + (int64_t)sim_random(w->sim, AHEAD);
        a->marked_at = w->events++;
        usage_mark(&w->app, &a->r, a->marked);
        return;
    }
    a->r.completion_tokens =
        a->marked - (a->marked ? (int64_t)sim_random(w->sim, (uint64_t)a->marked) : 0);
    a->r.cost_nano = (int64_t)sim_random(w->sim, 1000);
    a->r.status = 200, a->r.tokens_exact = true;
    a->settled = w->events++;
    usage_settle(&w->app, &a->r);
}

static void work(void *arg) {
    World *w = arg;
    for (uint64_t i = sim_random(w->sim, 4); i; i--) begin(w);
    size_t live = 0;
    for (size_t i = w->n; i-- > 0 && live < LIVE_MAX;) {
        Attempt *a = &w->all[i];
        if (a->opened < w->life_first || a->settled >= 0) continue;
        live++;
        if (sim_random(w->sim, 2)) step(w, a);
    }
    timer_start(w->work, (int64_t)sim_random(w->sim, 20));
}

static err fold_some(World *w, size_t most, bool *out_more) {
    arena_reset(w->c->mem);
    TRY(fold_next(w->c, &w->reader, most, out_more));
    w->folds += *out_more;
    return ERR_OK;
}

// ---- what lies in the tables

// Rows of the ledger against what was told: nothing invented, nothing changed once it was seen, and
// lost is only what never reached the disk.
static void check_row(World *w, const Rows *rows) {
    int64_t number = -1;
    str id = col_str(rows, 0), outcome = col_str(rows, 1);
    if (!str_to_i64(str_sub(id, 8, id.n), &number) || number < 0 || (size_t)number >= w->n) {
        broken(w, "an attempt was invented");
        return;
    }
    Attempt *a = &w->all[number];
    int64_t tokens = col_int(rows, 2);
    bool settled = str_is(outcome, "ok"), fresh = a->opened >= w->life_first; // of the last life
    if (settled && (a->settled < 0 || tokens != a->r.completion_tokens))
        broken(w, "settled with other tokens than were told");
    if (!settled && (!str_is(outcome, "interrupted") || tokens > a->marked))
        broken(w, "more tokens than any mark said");
    if (!settled && fresh && a->marked_at >= 0 && a->marked_at < w->written && tokens != a->marked)
        broken(w, "a mark that was written is not counted");
    if (!settled && fresh && a->settled >= 0 && a->settled < w->written)
        broken(w, "a settle that was written is not counted");
    if (a->kept && (a->kept_settled != settled || a->kept_tokens != tokens))
        broken(w, "a row changed after it was seen");
    w->orphans += !a->kept && !settled;
    a->kept = true, a->kept_settled = settled, a->kept_tokens = tokens;
}

static err check_rows(Ctx *c, Tx *tx, void *arg) {
    static SQL(rows_of, "SELECT id, outcome, completion_tokens FROM usage ORDER BY id");
    World *w = arg;
    Rows *rows;
    bool more;
    size_t seen = 0, kept = 0;
    TRY(db_query(c, tx, &rows_of, NULL, 0, &rows));
    for (;; seen++) {
        TRY(rows_next(c, rows, &more));
        if (!more) break;
        check_row(w, rows);
    }
    for (size_t i = 0; i < w->n; i++) {
        const Attempt *a = &w->all[i];
        kept += a->kept;
        if (a->kept) continue;
        w->lost++;
        if (a->opened >= w->life_first && a->opened < w->written)
            broken(w, "a written attempt is lost");
    }
    if (kept != seen) broken(w, "a row that was seen is gone");
    return ERR_OK;
}

static err one_number(Ctx *c, Tx *tx, const Sql *sql, int64_t *out) {
    Rows *rows;
    TRY(db_one(c, tx, &rows, sql, NULL, 0));
    *out = col_int(rows, 0);
    return ERR_OK;
}

// The sums by day, the audit records and what waits as open agree with the rows.
static err check_sums(Ctx *c, Tx *tx, void *arg) {
    static SQL(by_row,
               "SELECT count(*) * 1000003 + COALESCE(SUM(prompt_tokens), 0) * 101 + "
               "COALESCE(SUM(completion_tokens), 0) * 7 + COALESCE(SUM(cost), 0) FROM usage");
    static SQL(by_day,
               "SELECT COALESCE(SUM(requests), 0) * 1000003 + COALESCE(SUM(prompt_tokens), "
               "0) * 101 + COALESCE(SUM(completion_tokens), 0) * 7 + COALESCE(SUM(cost), 0) "
               "FROM usage_day");
    static SQL(audited, "SELECT count(*) - (SELECT count(*) FROM usage) FROM inference_audits");
    static SQL(unspent,
               "SELECT COALESCE(SUM(cost), 0) - (SELECT COALESCE(SUM(cost), 0) FROM usage_spent "
               "WHERE subject IN (SELECT key_id FROM usage)) FROM usage WHERE key_id <> ''");
    static SQL(open_now, "SELECT count(*) FROM usage_open");
    World *w = arg;
    int64_t rows, days, audits, spent, open;
    TRY(one_number(c, tx, &by_row, &rows));
    TRY(one_number(c, tx, &by_day, &days));
    TRY(one_number(c, tx, &audited, &audits));
    TRY(one_number(c, tx, &unspent, &spent));
    TRY(one_number(c, tx, &open_now, &open));
    if (rows != days) broken(w, "the sums by day are not those of the rows");
    if (audits) broken(w, "there are not as many audit records as rows");
    if (spent) broken(w, "what keys spent in all is not what their rows cost");
    if (open) broken(w, "an attempt stays open after a start");
    return ERR_OK;
}

// No module audit runs here, so there is no checkpoint: that is the one fault allowed.
static err check_chains(Ctx *c, World *w) {
    str json;
    yyjson_val *v, *fault;
    size_t i, n;
    TRY(audit_report(c, &json));
    TRY(json_parse(c, json, &v));
    yyjson_arr_foreach(json_get(v, "faults"), i, n, fault) {
        if (!str_is(json_get_str(fault, "chain"), "checkpoint"))
            broken(w, "the audit chain is broken");
    }
    return ERR_OK;
}

// ---- lives

static err life_begin(World *w) {
    Ctx *c = w->c;
    bool more = true;
    arena_reset(c->mem);
    c->os = w->app.os = sim_node(w->sim, 0);
    TRY(dir_make(c, S("/data"), 0700));
    TRY(dir_sync(c, S("/")));
    TRY(db_open(c, &(DbConfig){ .url = S("sqlite:/data/t.db") }, &w->app.db));
    c->db = w->app.db;
    TRY(db_migrate(c, c->db, "audit", audit_module.migrations, audit_module.migrations_n));
    TRY(db_migrate(c, c->db, "usage", usage_migrations, usage_module.migrations_n));
    TRY(journal_open_sized(c, S("/data"), 1, SEGMENT, &w->app.journal));
    w->reader = (FoldReader){ .f = &ledger };
    TRY(ledger.position(c, &w->reader.at));
    while (more) TRY(fold_some(w, 500, &more));
    TRY(ledger_settle_orphans(c));
    TRY(db_read(c, c->db, check_rows, w));
    TRY(db_read(c, c->db, check_sums, w));
    TRY(check_chains(c, w));
    w->l = loop_new(c->os);
    journal_attach(w->app.journal, w->l);
    w->work = timer_new(w->l, work, w);
    timer_start(w->work, 0);
    w->life_first = w->events;
    db_faults(c->db, &w->db_faults);
    return ERR_OK;
}

typedef struct Died {
    Sim *sim;
    unsigned lives;
} Died;
static bool has_died(void *arg) {
    const Died *d = arg;
    return sim_lives(d->sim, 0) != d->lives;
}

static void life_end(World *w) {
    if (w->work) timer_free(w->work);
    if (w->l) loop_free(w->l);
    db_close(w->app.db);
    w->work = NULL, w->l = NULL, w->app.db = NULL, w->app.journal = NULL;
}

static void life_run(World *w, const SimFaults *faults) {
    Died d = { w->sim, sim_lives(w->sim, 0) };
    bool more;
    for (int i = (int)sim_random(w->sim, 12); i >= 0 && !has_died(&d); i--) {
        int64_t end_ns = os_mono_ns(w->app.os) + (int64_t)(1 + sim_random(w->sim, 60)) * 1000000;
        sim_run(w->sim, end_ns, has_died, &d);
        if (!has_died(&d) && sim_random(w->sim, 2))
            if (fold_some(w, 1 + sim_random(w->sim, 200), &more)) {
            } // a fault: the next start does it
    }
    w->written = 0;
    if (!has_died(&d)) {
        bool power = sim_random(w->sim, 2);
        if (!power && !faults->write_full) // else marks may have been left out
            w->written = w->life_first + journal_counts(w->app.journal).records;
        w->power_cut = w->power_cut || power;
        sim_crash(w->sim, 0, power);
    } else {
        w->power_cut = true; // perhaps
    }
    journal_drop(w->app.journal);
    life_end(w);
}

static void world_run(World *w, uint64_t seed, const SimFaults *faults, const DbFaults *db) {
    static const SimFaults none = { 0 };
    *w = (World){ .sim = sim_new(seed), .db_faults = *db };
    w->all = mem_new(ATTEMPTS_MAX * sizeof *w->all);
    w->app.os = sim_node(w->sim, 0), w->app.data_dir = S("/data");
    w->c = app_ctx_new(&w->app);
    for (int life = 0; life < 10 && !w->strange; life++) {
        sim_faults(w->sim, 0, &none);
        if (life_begin(w)) {
            Buf why;
            buf_init(&why, 1000);
            failure_format(&w->c->failure, "en", &why);
            fprintf(stderr, "DBG %s\n", buf_z(&why));
            broken(w, "it cannot start");
        }
        if (w->strange) break;
        sim_faults(w->sim, 0, faults);
        life_run(w, faults);
    }
    if (w->app.journal) journal_drop(w->app.journal);
    life_end(w);
    app_ctx_free(w->c);
    for (size_t i = 0; i < w->n; i++) mem_free((char *)(uintptr_t)w->all[i].r.attempt_id.p);
    mem_free(w->all);
    sim_free(w->sim);
}

static bool none_repeated(void) {
    Buf b;
    buf_init(&b, 1 << 20);
    metrics_write(&b);
    bool none = str_find(buf_str(&b), S("\nlathe_usage_repeated_total 0\n")) >= 0;
    buf_done(&b);
    return none;
}

static void histories(uint64_t first, uint64_t n, const SimFaults *faults, const DbFaults *db) {
    size_t attempts = 0, orphans = 0, folds = 0;
    metrics_reset();
    metrics_declare(usage_metrics);
    usage_view(&usage_audit_view);
    for (uint64_t seed = first; seed < first + n; seed++) {
        World w;
        world_run(&w, seed, faults, db);
        attempts += w.n, orphans += w.orphans, folds += w.folds;
        if (!w.strange) continue;
        test_failed(__FILE__, __LINE__, "seed %llu: %s", (unsigned long long)seed, w.strange);
        break;
    }
    ledger_close();
    CHECK(none_repeated());
    CHECK(attempts > 80 * n && orphans > 8 * n && folds > 16 * n); // the histories were not empty
}

static const DbFaults sound = { 0 };
TEST(usage_ledger_sim_deaths_without_other_faults) {
    histories(100, 100, &(SimFaults){ 0 }, &sound);
}
TEST(usage_ledger_sim_deaths_at_any_write) {
    histories(300, 40, &(SimFaults){ .crash = 3000 }, &sound);
}
TEST(usage_ledger_sim_full_disk) {
    histories(500, 40, &(SimFaults){ .write_full = 5000, .read_error = 2000 }, &sound);
}
// It is no damage, and nothing may be passed over for it.
TEST(usage_ledger_sim_reads_that_fail) {
    histories(600, 40, &(SimFaults){ .read_error = 100000 }, &sound);
}
// Above all the commit of which nobody knows: what it folded must not be folded again.
TEST(usage_ledger_sim_database_that_fails) {
    histories(700, 40, &(SimFaults){ 0 },
              &(DbFaults){ .again = 100000, .away = 100000, .unknown = 300000 });
}
