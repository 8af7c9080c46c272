// SPDX-License-Identifier: Apache-2.0
// journal_sim_test.c - the journal on the simulated machine: random appends from a loop, faults,
// and deaths of the process and of the power, over many seeds. A folder goes along, whose position
// and results survive as SQL would. What must hold is said at check_folded.
#include "base/test.h"
#include "job/journal_own.h"
#include "os/sim.h"
#include <stdlib.h>

enum { RECORDS_MAX = 20000, SEGMENT = 16 << 10, RECORD_MOST = 3000 };

typedef struct Promise {
    bool appended, durable, written; // durable: told so; written: a turn's end came after it
    bool refused;                    // its durable callback brought an error
} Promise;

typedef struct World {
    Sim *sim;
    Ctx c;
    Loop *l;
    Journal *j;
    Timer *work;
    Promise *promises;
    size_t n, life_first, flush_from; // records appended, this life's first, after the last flush
    JournalPos folded;                // with folded_n: what SQL has
    uint32_t *fold;
    size_t fold_n;
    bool power_cut; // one has been
    bool lossy;     // a sync failed somewhere: segments may have damaged ends
    bool strange;   // a rule was broken, as `what` says
    const char *what;
    size_t reserved; // of one reservation that waits for its append
    size_t durables; // callbacks that came
} World;

static void broken(World *w, const char *what) {
    if (!w->strange) w->what = what;
    w->strange = true;
}

// ---- the workload

typedef struct Told {
    World *w;
    size_t number;
} Told;

static void told(void *arg, err e) {
    Told t = *(Told *)arg;
    mem_free(arg);
    Promise *p = &t.w->promises[t.number];
    if (p->durable || p->refused) broken(t.w, "durable was called twice");
    if (e) p->refused = true;
    else p->durable = true;
    t.w->durables++;
}

static str record_of(Ctx *c, size_t number, size_t n) {
    char *p = arena_alloc_raw(c->mem, n < 4 ? 4 : n);
    uint32_t id = (uint32_t)number;
    memcpy(p, &id, 4);
    for (size_t i = 4; i < n; i++) p[i] = (char)(number * 7 + i);
    return str_n(p, n < 4 ? 4 : n);
}

static void append_one(World *w) {
    Sim *s = w->sim;
    if (w->n == RECORDS_MAX) return;
    size_t n = sim_random(s, 10) ? 4 + sim_random(s, 200) : 4 + sim_random(s, RECORD_MOST);
    bool b = sim_random(s, 4) == 0, ask = b || sim_random(s, 8) == 0;
    size_t reserved = 0;
    if (w->reserved && sim_random(s, 2)) {
        reserved = w->reserved;
        w->reserved = 0;
        if (n > reserved) n = reserved;
    }
    Told *t = ask ? mem_new(sizeof *t) : NULL;
    if (t) *t = (Told){ w, w->n };
    JournalEntry e = { .cl = b ? JOURNAL_B : JOURNAL_A,
                       .kind = (uint16_t)w->n,
                       .bytes = record_of(&w->c, w->n, n),
                       .reserved = reserved,
                       .durable = ask ? told : NULL,
                       .arg = t };
    err append_e = journal_append(w->j, &e);
    if (append_e) mem_free(t);
    if (append_e && reserved) broken(w, "an append with its reservation was refused");
    if (append_e && append_e != ERR_FULL) broken(w, "an append failed in another way");
    if (append_e) return;
    w->promises[w->n++].appended = true;
}

static void life_note(World *w) {
    JournalCounts counts = journal_counts(w->j);
    w->lossy = w->lossy || counts.sync_errors || counts.write_errors;
}

// A folder: reads on from its position and commits what it read together with the new one.
static void fold_some(World *w, size_t max) {
    JournalBatch b;
    err e = journal_read(&w->c, w->j, w->folded, max, &b);
    if (e && w->c.failure.why == &R_JOURNAL_BAD) {
        life_note(w);
        if (!w->lossy) broken(w, "damage without a failed sync");
        JournalPos next = journal_skip(w->j, w->folded.segment ? w->folded : (JournalPos){ 0 });
        w->folded = next;
    }
    if (e) return; // an injected fault: again later
    if (b.gap && !w->power_cut) broken(w, "a gap, and nothing was trimmed that was not folded");
    for (size_t i = 0; i < b.n; i++) {
        uint32_t id;
        memcpy(&id, b.records[i].bytes.p, 4);
        str want = record_of(&w->c, id, b.records[i].bytes.n);
        if (!str_eq(want, b.records[i].bytes) || b.records[i].kind != (uint16_t)id)
            broken(w, "a record has other bytes");
        if (w->fold_n == RECORDS_MAX || id >= w->n) broken(w, "a record was invented");
        else w->fold[w->fold_n++] = id;
        w->folded = b.records[i].next;
    }
}

static void work(void *arg) {
    World *w = arg;
    Sim *s = w->sim;
    arena_reset(w->c.mem);
    for (uint64_t i = sim_random(s, 12); i; i--) append_one(w);
    if (!w->reserved && sim_random(s, 3) == 0) {
        size_t n = 4 + sim_random(s, 400);
        if (journal_reserve(w->j, n)) w->reserved = n;
    }
    if (sim_random(s, 6) == 0) fold_some(w, 1 + sim_random(s, 100));
    if (sim_random(s, 20) == 0) {
        err e = journal_trim(&w->c, w->j, w->folded);
        (void)e;
    }
    if (sim_random(s, 40) == 0) {
        size_t upto = w->n;
        bool good = !journal_flush(&w->c, w->j);
        for (size_t i = w->flush_from; good && i < upto; i++) w->promises[i].durable = true;
        w->flush_from = upto; // a failed flush was told about those before it, once
    }
    timer_start(w->work, (int64_t)sim_random(s, 30));
}

// ---- lives

static err life_begin(World *w) {
    ctx_init(&w->c, w->c.mem ? w->c.mem : arena_new(), sim_node(w->sim, 0));
    TRY(dir_make(&w->c, S("/data"), 0700));
    TRY(dir_sync(&w->c, S("/")));
    TRY(journal_open_sized(&w->c, S("/data"), 1, SEGMENT, &w->j));
    w->l = loop_new(w->c.os);
    journal_attach(w->j, w->l);
    w->work = timer_new(w->l, work, w);
    timer_start(w->work, 0);
    w->life_first = w->flush_from = w->n;
    w->reserved = 0;
    return ERR_OK;
}

// What reached the file in this life: all but the last appended ones.
static void written_note(World *w) {
    size_t written = w->life_first + (size_t)journal_counts(w->j).records;
    for (size_t i = w->life_first; i < written; i++) w->promises[i].written = true;
}

static void life_end(World *w, bool crash, bool power) {
    life_note(w);
    w->power_cut = w->power_cut || power;
    if (crash && !power) written_note(w);
    size_t waiting = w->j->waiters_n;
    for (size_t i = 0; crash && i < waiting; i++) mem_free(w->j->waiters[i].arg);
    if (crash) {
        sim_crash(w->sim, 0, power);
        journal_drop(w->j);
    } else {
        if (w->reserved) journal_release(w->j, w->reserved);
        journal_close(w->j);
    }
    timer_free(w->work);
    loop_free(w->l);
}

typedef struct Died {
    Sim *sim;
    unsigned lives;
} Died;

static bool has_died(void *arg) {
    Died *d = arg;
    return sim_lives(d->sim, 0) != d->lives;
}

static void life_run(World *w) {
    Died d = { w->sim, sim_lives(w->sim, 0) };
    int64_t end_ns = os_mono_ns(w->c.os) + (int64_t)(1 + sim_random(w->sim, 400)) * 1000000;
    sim_run(w->sim, end_ns, has_died, &d);
    if (has_died(&d)) { // at a write, of whatever: only what was durable counts
        life_note(w);
        w->power_cut = true; // perhaps
        for (size_t i = 0; i < w->j->waiters_n; i++) mem_free(w->j->waiters[i].arg);
        journal_drop(w->j);
        timer_free(w->work);
        loop_free(w->l);
        return;
    }
    uint64_t how = sim_random(w->sim, 3);
    life_end(w, how != 0, how == 1);
}

// Every record that was told to be durable, and in a death of the process only every one that a
// turn had written, was folded; in order; once; and nothing else but records that were appended.
static void check_folded(World *w) {
    size_t at = 0;
    for (size_t i = 0; i < w->n; i++) {
        bool there = at < w->fold_n && w->fold[at] == i;
        at += there;
        if (!there && w->promises[i].durable) broken(w, "a durable record is lost");
        if (!there && w->promises[i].written && !w->lossy) broken(w, "a written record is lost");
    }
    if (at != w->fold_n) broken(w, "records came twice or out of order");
}

static void world_run(uint64_t seed, const SimFaults *faults, World *w) {
    static const SimFaults none = { 0 };
    *w = (World){ .sim = sim_new(seed) };
    w->promises = mem_new(RECORDS_MAX * sizeof *w->promises);
    w->fold = mem_new(RECORDS_MAX * sizeof *w->fold);
    for (int life = 0; life < 12 && !w->strange; life++) {
        unsigned lives = sim_lives(w->sim, 0);
        sim_node(w->sim, 0);
        sim_faults(w->sim, 0, life % 3 == 2 ? &none : faults);
        err e = life_begin(w);
        for (int i = 0; e && i < 50; i++) { // opening met a fault, or died of it
            sim_faults(w->sim, 0, i < 3 ? faults : &none);
            if (sim_lives(w->sim, 0) == lives) sim_crash(w->sim, 0, sim_random(w->sim, 2));
            lives = sim_lives(w->sim, 0);
            w->lossy = w->power_cut = true; // it may have failed at a sync
            e = life_begin(w);
        }
        if (e) broken(w, "it cannot be opened any more");
        if (!e) life_run(w);
    }
    sim_node(w->sim, 0);
    sim_faults(w->sim, 0, &none);
    if (!w->strange && life_begin(w)) broken(w, "it cannot be opened in the end");
    else if (!w->strange) {
        for (size_t before = SIZE_MAX; before != w->fold_n || w->lossy;) {
            JournalPos was = w->folded;
            before = w->fold_n;
            fold_some(w, 1000);
            if (before == w->fold_n && !memcmp(&was, &w->folded, sizeof was)) break;
        }
        life_end(w, false, false);
        check_folded(w);
    }
    if (w->c.mem) arena_free(w->c.mem);
}

static void world_free(World *w) {
    sim_free(w->sim);
    mem_free(w->promises);
    mem_free(w->fold);
}

static void histories(uint64_t first, const SimFaults *faults) {
    size_t records = 0, durable = 0, lost = 0;
    const char *more = getenv("LATHE_SIM_SEEDS"); // for a night
    int64_t seeds = 200;
    if (more && !str_to_i64(str_z(more), &seeds)) seeds = 200;
    for (uint64_t seed = first; seed < first + (uint64_t)seeds; seed++) {
        World w;
        world_run(seed, faults, &w);
        records += w.n;
        durable += w.durables;
        lost += w.n - w.fold_n;
        const char *what = w.strange ? w.what : NULL;
        world_free(&w);
        if (what) {
            test_failed(__FILE__, __LINE__, "seed %llu: %s", (unsigned long long)seed, what);
            return;
        }
    }
    CHECK(records > 5000 && durable > 500); // the histories were not empty,
    CHECK(lost > 0);                        // and the deaths took something
}

TEST(job_journal_sim_deaths_without_other_faults) { histories(1000, &(SimFaults){ 0 }); }

TEST(job_journal_sim_deaths_at_any_write) { histories(2000, &(SimFaults){ .crash = 20000 }); }

TEST(job_journal_sim_failing_disk) {
    histories(3000, &(SimFaults){ .write_error = 20000,
                                  .write_full = 20000,
                                  .sync_error = 30000,
                                  .read_error = 10000,
                                  .crash = 5000 });
}

TEST(job_journal_sim_same_seed_same_history) {
    World a, b;
    SimFaults faults = { .write_error = 10000, .sync_error = 10000, .crash = 10000 };
    world_run(77, &faults, &a);
    world_run(77, &faults, &b);
    bool same = sim_digest(a.sim) == sim_digest(b.sim) && a.n == b.n && a.fold_n == b.fold_n;
    world_free(&a);
    world_free(&b);
    CHECK(same);
}

// A record is folded before it was synced, and a power cut takes it, with all else in its segment
// or not: what is appended afterwards lies behind the folder's position all the same.
TEST(job_journal_sim_no_position_is_used_twice) {
    size_t lost = 0;
    for (uint64_t seed = 0; seed < 60; seed++) {
        Sim *s = sim_new(seed);
        Ctx *c = test_ctx();
        Journal *j;
        JournalBatch b;
        c->os = sim_node(s, 0);
        CHECK_OK(c, dir_make(c, S("/data"), 0700));
        CHECK_OK(c, dir_sync(c, S("/")));
        CHECK_OK(c, journal_open_sized(c, S("/data"), 1, SEGMENT, &j));
        Loop *l = loop_new(c->os);
        journal_attach(j, l);
        CHECK_ERR(journal_append(j, &(JournalEntry){ .kind = 1, .bytes = S("folded too early") }),
                  ERR_OK);
        int64_t now_ns = os_mono_ns(c->os);
        sim_run(s, now_ns + (int64_t)(WRITE_MS + 5) * 1000000, NULL, NULL); // written, not synced
        CHECK_OK(c, journal_read(c, j, (JournalPos){ 0 }, 10, &b));
        CHECK_INT(b.n, 1);
        JournalPos folded = b.records[0].next;
        sim_crash(s, 0, true);
        journal_drop(j);
        loop_free(l);
        CHECK_OK(c, journal_open_sized(c, S("/data"), 1, SEGMENT, &j));
        CHECK_OK(c, journal_read(c, j, (JournalPos){ 0 }, 10, &b));
        lost += b.n == 0;
        for (uint16_t i = 2; i < 5; i++)
            CHECK_ERR(journal_append(j, &(JournalEntry){ .kind = i, .bytes = S("after") }), ERR_OK);
        CHECK_OK(c, journal_flush(c, j));
        CHECK_OK(c, journal_read(c, j, folded, 10, &b));
        CHECK_INT(b.n, 3);
        for (uint16_t i = 0; i < 3; i++) CHECK_INT(b.records[i].kind, i + 2);
        journal_close(j);
        sim_free(s);
    }
    CHECK(lost > 5);
}

// ---- how soon

typedef struct Soon {
    Journal *j;
    Os *os;
    int64_t began_ns, b_ns, a_ns; // when class B, and class A, was durable
} Soon;

static void soon_b(void *arg, err e) {
    Soon *w = arg;
    w->b_ns = e ? -1 : os_mono_ns(w->os) - w->began_ns;
}
static void soon_a(void *arg, err e) {
    Soon *w = arg;
    w->a_ns = e ? -1 : os_mono_ns(w->os) - w->began_ns;
}

static void soon_append(void *arg) {
    Soon *w = arg;
    bool b = w->a_ns != 0;
    JournalEntry e = {
        .cl = b ? JOURNAL_B : JOURNAL_A, .bytes = S("x"), .durable = b ? soon_b : soon_a, .arg = w
    };
    w->began_ns = os_mono_ns(w->os);
    err append_e = journal_append(w->j, &e);
    if (append_e) w->a_ns = -1;
}

TEST(job_journal_sim_class_b_at_once_class_a_in_50_ms) {
    Sim *s = sim_new(3);
    Ctx *c = test_ctx();
    c->os = sim_node(s, 0);
    Soon w = { .os = c->os };
    CHECK_OK(c, journal_open_sized(c, S("/data"), 1, SEGMENT, &w.j));
    Loop *l = loop_new(c->os);
    journal_attach(w.j, l);
    for (int i = 0; i < 2; i++) {
        loop_post(l, soon_append, &w);
        sim_run(s, os_mono_ns(c->os) + (int64_t)1000 * 1000000, NULL, NULL);
    }
    CHECK(w.a_ns >= (int64_t)SYNC_MS * 1000000 && w.a_ns < (int64_t)(SYNC_MS + 5) * 1000000);
    CHECK(w.b_ns > 0 && w.b_ns < (int64_t)5 * 1000000);
    journal_close(w.j);
    loop_free(l);
    sim_free(s);
}

// ---- a full disk

TEST(job_journal_sim_full_disk_refuses_only_what_was_not_reserved) {
    for (uint64_t seed = 0; seed < 40; seed++) {
        Sim *s = sim_new(seed);
        Ctx *c = test_ctx();
        Journal *j;
        size_t held[4000], n = 0;
        c->os = sim_node(s, 0);
        sim_disk_max(s, 0, (int64_t)(100 + sim_random(s, 300)) << 10);
        CHECK_OK(c, journal_open_sized(c, S("/data"), 1, SEGMENT, &j));
        for (size_t size; n < countof(held); n++) { // until it says 507
            size = 1 + sim_random(s, sim_random(s, 4) ? 300 : 3900);
            if (!journal_reserve(j, size)) break;
            held[n] = size;
        }
        CHECK(n > 10 && n < countof(held));
        char *bytes = mem_new(4096);
        JournalEntry big = { .bytes = str_n(bytes, 4000) };
        CHECK_ERR(journal_append(j, &big), ERR_FULL);
        CHECK(journal_counts(j).full);
        size_t used = 0;
        for (size_t i = 0; i < n; i++) { // in any order, written in any pieces: all of it fits
            size_t pick = i + sim_random(s, n - i), size = held[pick];
            held[pick] = held[i];
            JournalEntry e = { .bytes = str_n(bytes, size), .reserved = size };
            if (sim_random(s, 10) == 0) journal_release(j, size);
            else {
                CHECK_ERR(journal_append(j, &e), ERR_OK);
                used++;
            }
            if (sim_random(s, 5) == 0) CHECK_OK(c, journal_flush(c, j));
        }
        CHECK_OK(c, journal_flush(c, j));
        CHECK_INT(journal_counts(j).reserved_bytes, 0);
        CHECK_INT(journal_counts(j).records, used);
        CHECK_OK(c, journal_trim(c, j, journal_end(j))); // room again: new work is taken
        Loop *l = loop_new(c->os);                       // time only passes for a loop
        Timer *t = timer_new(l, (void (*)(void *))loop_stop, l);
        timer_start(t, 2 * RETRY_MS);
        loop_run(l);
        CHECK(journal_reserve(j, 100));
        journal_release(j, 100);
        timer_free(t);
        journal_close(j);
        loop_free(l);
        mem_free(bytes);
        sim_free(s);
    }
}

// A restart on a disk that became full meanwhile: the spare that was made ahead is there, so what
// the last life left open can be settled.
TEST(job_journal_sim_restart_on_a_full_disk_can_settle) {
    Sim *s = sim_new(5);
    Ctx *c = test_ctx();
    Journal *j;
    char bytes[500] = { 0 };
    c->os = sim_node(s, 0);
    CHECK_OK(c, journal_open_sized(c, S("/data"), 1, SEGMENT, &j));
    JournalEntry e = { .bytes = str_n(bytes, sizeof bytes) };
    for (int i = 0; i < 30; i++) CHECK_ERR(journal_append(j, &e), ERR_OK);
    CHECK_OK(c, journal_flush(c, j));
    CHECK(spare_make(j, 0));
    sim_disk_max(s, 0, 1); // not a byte more
    sim_crash(s, 0, true);
    journal_drop(j);
    c->os = sim_node(s, 0);
    CHECK_OK(c, journal_open_sized(c, S("/data"), 1, SEGMENT, &j));
    for (int i = 0; i < 15; i++) CHECK_ERR(journal_append(j, &e), ERR_OK);
    CHECK_OK(c, journal_flush(c, j));
    JournalBatch b;
    size_t n = 0;
    for (JournalPos at = { 0 };; at = b.records[b.n - 1].next, n += b.n) {
        CHECK_OK(c, journal_read(c, j, at, 100, &b));
        if (!b.n) break;
    }
    CHECK_INT(n, 45);
    journal_close(j);
    sim_free(s);
}
