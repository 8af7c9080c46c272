// SPDX-License-Identifier: Apache-2.0
// collect_test.c - removal of objects against those who store them, on threads that meet at random:
// whoever has claimed an object and stored it finds it whole until it lets go, and what nobody
// names goes. The same steps one at a time, in every order that a seed draws, with deaths between.
#include "blob/store.h"
#include "res/objects.h"
#include "os/sim.h"
#include "res/toy_test.h"
#include <sched.h>
#include <stdatomic.h>

enum {
    CONTENTS = 3,
    THREADS = 5,
    TURNS = 50,
    ROUNDS = 25,
    CONTENT_BYTES = 3000,
    PATIENCE_MS = 60000
};

// ---- rows that name objects, of a module of the test's own

typedef struct Shelf {
    Head head;
    str picture;
} Shelf;
static const Field shelf_rows[] = { ROW(Shelf, picture, T_BLOB, 0, "Picture", "图"), { 0 } };
static const Resource shelf_resource = { .name = "shelf",
                                         .plural = "collect_shelves",
                                         .prefix = "shelf",
                                         .flags = RES_UNNAMED,
                                         .size = sizeof(Shelf),
                                         .fields = shelf_rows,
                                         .en = "A shelf",
                                         .zh = "架" };
static const Resource *const shelf_resources[] = { &shelf_resource, NULL };
static const Module shelf_module = {
    .name = "shelf", .needs = "", .resources = shelf_resources, .en = "Shelves", .zh = "架"
};
static const Module *const mods[] = { &shelf_module, NULL };
static const Migration shelf_migrations[] = {
    { 1, "CREATE TABLE collect_shelves (id TEXT PRIMARY KEY, picture TEXT);", NULL }
};

typedef struct World {
    App app;
    atomic_int stored, waited;
} World;

static str content(Ctx *c, int k) {
    char *p = new (c->mem, char, CONTENT_BYTES);
    memset(p, 'a' + k, CONTENT_BYTES);
    return str_n(p, CONTENT_BYTES);
}

typedef struct Put {
    str id, digest;
} Put;

static err claim_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(shelf_add, "INSERT INTO collect_shelves (id, picture) VALUES ($1, $2)");
    const Put *p = arg;
    TRY(object_claim(c, tx, p->digest));
    return db_run(c, tx, &shelf_add, V(p->id), V(p->digest));
}

static err drop_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(shelf_drop, "DELETE FROM collect_shelves WHERE id = $1");
    const Put *p = arg;
    TRY(db_run(c, tx, &shelf_drop, V(p->id)));
    return collect_object(c, tx, p->digest);
}

// "http://HOST:PORT/BUCKET" of test/s3-run
static bool in_bucket;
static err use_bucket(Ctx *c, Blobs *b) {
    str url = str_z(os_env(c->os, "LATHE_TEST_S3"));
    size_t slash = url.n;
    while (slash && url.p[slash - 1] != '/') slash--;
    S3Config config = { .endpoint = str_sub(url, 0, slash - 1),
                        .bucket = str_sub(url, slash, url.n),
                        .prefix = os_id(c, "collect"),
                        .region = S("us-east-1"),
                        .access_key = S("test"),
                        .secret_key = S("test"),
                        .patience_ms = PATIENCE_MS,
                        .parallel = 2 };
    return blobs_use_s3(c, b, &config, true);
}

static err open_world(World *w, Ctx *c, Db *db, str dir, str node) {
    static const JobKind *const kinds[] = { &collect_kind };
    static const Setting *const tables[] = { blob_settings, NULL };
    static const str flags[] = { { "blob.grace=0", 12 } };
    Settings *set;
    w->app.os = c->os, w->app.db = db, w->app.modules = mods, w->app.node = node;
    w->app.data_dir = dir;
    c->app = &w->app, c->db = db;
    TRY(settings_load(c, tables, (str){ 0 }, flags, 1, &set));
    settings_use(set);
    TRY(db_migrate(c, db, "blob", collect_migrations, COLLECT_MIGRATIONS));
    TRY(db_migrate(c, db, "collect_shelf", shelf_migrations, 1));
    TRY(blobs_open(c, dir, &w->app.blobs));
    if (in_bucket) TRY(use_bucket(c, w->app.blobs));
    JobsConfig config = { .db = db,
                          .kinds = kinds,
                          .n = countof(kinds),
                          .node = node,
                          .log_dir = arena_printf(c->mem, STR_FMT "/jobs", STR_ARG(dir)),
                          .workers = 3 };
    TRY(jobs_open(c, &config, &w->app.jobs));
    jobs_on_ctx(w->app.jobs, app_ctx_of_job, &w->app);
    return blob_module.init(c);
}

static err objects(Ctx *c, Blobs *b, int64_t *out_n) {
    *out_n = 0;
    for (unsigned i = 0; i < 256; i++) {
        str *names;
        size_t more;
        TRY(blob_list(c, b, arena_printf(c->mem, "%02x", i), &names, &more));
        *out_n += (int64_t)more;
    }
    return ERR_OK;
}

static err left_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(left, "SELECT COUNT(*) FROM job WHERE state IN ('waiting', 'running')");
    Rows *rows;
    TRY(db_one(c, tx, &rows, &left, NULL, 0));
    *(int64_t *)arg = col_int(rows, 0);
    return ERR_OK;
}

// ---- on threads

typedef struct Actor {
    World *w;
    int number;
} Actor;

// As an import does: staged, claimed by a row, made an object; then it is there until the row goes.
static void round_of(Ctx *c, Actor *a, uint32_t dice) {
    Blobs *b = a->w->app.blobs;
    BlobWriter *writer;
    char hex[BLOB_DIGEST_HEX + 1];
    int64_t size;
    str bytes = content(c, (int)(dice % CONTENTS));
    sha256_hex(bytes, hex);
    Put put = { os_id(c, "shelf"), arena_str(c->mem, str_z(hex)) };
    CHECK_OK(c, blob_stage(c, b, (str){ 0 }, &writer));
    CHECK_OK(c, blob_append(c, writer, bytes));
    err e = ERR_UNAVAILABLE;
    int64_t until = os_mono_ns(c->os) + test_longer(PATIENCE_MS) * INT64_C(1000000);
    while (e == ERR_UNAVAILABLE && os_mono_ns(c->os) < until) {
        e = db_tx(c, c->db, claim_tx, &put);
        if (e) atomic_fetch_add(&a->w->waited, 1);
    }
    CHECK_OK(c, e);
    CHECK_OK(c, blob_commit(c, writer, put.digest, hex, &size));
    for (unsigned i = 0; i < (dice >> 8) % 4; i++) CHECK_OK(c, blob_verify(c, b, put.digest));
    CHECK_OK(c, blob_verify(c, b, put.digest));
    atomic_fetch_add(&a->w->stored, 1);
    CHECK_OK(c, db_tx(c, c->db, drop_tx, &put));
}

// Between condemning and removing others get some way: the moment that claims are for.
static World *threads_world;
static void let_others(void) {
    enum { LOOKS = 5000 };
    int before = atomic_load(&threads_world->stored);
    int64_t until = os_mono_ns(threads_world->app.os) + (in_bucket ? 30000000 : 0);
    for (int i = 0; atomic_load(&threads_world->stored) < before + 2; i++) {
        if (i >= LOOKS && os_mono_ns(threads_world->app.os) >= until) break;
        sched_yield();
    }
}

static void act(void *arg) {
    Actor *a = arg;
    Ctx *c = app_ctx_new(&a->w->app);
    for (int i = 0; i < ROUNDS; i++) {
        uint32_t dice;
        os_random(c->os, &dice, sizeof dice);
        round_of(c, a, dice);
        arena_reset(c->mem);
    }
    app_ctx_free(c);
}

static void wait_idle(Ctx *c, World *w) {
    int64_t left = 1, until = os_mono_ns(c->os) + test_longer(PATIENCE_MS) * INT64_C(1000000);
    while (left && os_mono_ns(c->os) < until) {
        ArenaMark mark = arena_mark(c->mem);
        CHECK_OK(c, db_read(c, w->app.db, left_tx, &left));
        arena_restore(c->mem, mark);
    }
    CHECK_INT(left, 0);
}

static void threads_store_the_same(ToyFix *f) {
    World w = { 0 };
    Thread threads[THREADS];
    Actor actors[THREADS];
    Ctx *c = f->c;
    CHECK_OK(c, open_world(&w, c, f->app.db, str_z(test_dir()), S("node")));
    threads_world = &w, collect_between = let_others;
    jobs_start(w.app.jobs);
    int turns = 0;
    while (turns < TURNS && !atomic_load(&w.waited)) { // until a claim met a removal
        for (int i = 0; i < THREADS; i++) {
            actors[i] = (Actor){ &w, i };
            thread_start(c->os, "actor", act, &actors[i], &threads[i]);
        }
        for (int i = 0; i < THREADS; i++) thread_join(threads[i]);
        turns++;
    }
    CHECK_INT(atomic_load(&w.stored), turns * THREADS * ROUNDS);
    wait_idle(c, &w);
    collect_between = NULL;
    CHECK(atomic_load(&w.waited) > 0);
    int64_t left;
    CHECK_OK(c, objects(c, w.app.blobs, &left));
    CHECK_INT(left, 0); // nobody names any
    jobs_stop(w.app.jobs);
    jobs_free(w.app.jobs);
    blobs_close(w.app.blobs);
    c->app = &f->app;
    settings_use(NULL);
}

TOY_TEST(collect_never_takes_what_was_claimed_while_threads_store_the_same) {
    threads_store_the_same(f);
}

TOY_TEST(collect_never_takes_what_was_claimed_in_a_bucket) {
    if (!os_env(f->c->os, "LATHE_TEST_S3")) return;
    in_bucket = true;
    threads_store_the_same(f);
    in_bucket = false;
}

// ---- one step at a time, with deaths

typedef enum { AT_REST, AT_CLAIMED, AT_STORED, AT__COUNT } At;
typedef struct Keeper { // as a row's import: survives a death in what SQL and the disk say of it
    At at;
    int k;
    Put put;
} Keeper;
enum { KEEPERS = 4, STEPS = 250, LIVES = 12 };
typedef struct Story {
    World w;
    Sim *sim;
    Ctx *c;
    Db *db;
    Loop *l;
    Keeper keepers[KEEPERS];
    Arena *mem;
} Story;

static void life_begin(Story *s) {
    s->c = mem_new(sizeof *s->c);
    ctx_init(s->c, arena_new(), sim_node(s->sim, 0));
    s->c->who = &identity_system, s->c->lang = "en";
    CHECK_OK(s->c, dir_make(s->c, S("/data"), 0700));
    CHECK_OK(s->c, dir_sync(s->c, S("/")));
    CHECK_OK(s->c, db_open(s->c, &(DbConfig){ .url = S("sqlite:/data/t.db") }, &s->db));
    CHECK_OK(s->c, open_world(&s->w, s->c, s->db, S("/data"), S("node")));
    s->l = loop_new(s->c->os);
    jobs_attach(s->w.app.jobs, s->l);
}

static void life_end(Story *s, bool power) {
    sim_crash(s->sim, 0, power);
    jobs_drop(s->w.app.jobs);
    loop_free(s->l);
    blobs_close(s->w.app.blobs);
    db_close(s->db);
    arena_free(s->c->mem);
    mem_free(s->c);
}

static void store_step(Story *s, Keeper *k) {
    Ctx *c = s->c;
    BlobWriter *writer;
    char hex[BLOB_DIGEST_HEX + 1];
    int64_t size;
    CHECK_OK(c, blob_stage(c, s->w.app.blobs, (str){ 0 }, &writer));
    CHECK_OK(c, blob_append(c, writer, content(c, k->k)));
    CHECK_OK(c, blob_commit(c, writer, k->put.digest, hex, &size));
    k->at = AT_STORED;
}

static void keeper_step(Story *s, Keeper *k) {
    Ctx *c = s->c;
    char hex[BLOB_DIGEST_HEX + 1];
    err e;
    switch (k->at) {
    case AT_REST:
        k->k = (int)sim_random(s->sim, CONTENTS);
        sha256_hex(content(c, k->k), hex);
        k->put = (Put){ arena_str(s->mem, os_id(c, "shelf")), arena_str(s->mem, str_z(hex)) };
        e = db_tx(c, s->db, claim_tx, &k->put);
        CHECK(!e || e == ERR_UNAVAILABLE); // it is leaving: another time
        if (!e) k->at = AT_CLAIMED;
        break;
    case AT_CLAIMED: store_step(s, k); break;
    default:
        CHECK_OK(c, blob_verify(c, s->w.app.blobs, k->put.digest));
        if (sim_random(s->sim, 2)) break;
        CHECK_OK(c, db_tx(c, s->db, drop_tx, &k->put));
        k->at = AT_REST;
    }
}

static void check_kept(Story *s) {
    for (int i = 0; i < KEEPERS; i++)
        if (s->keepers[i].at == AT_STORED)
            CHECK_OK(s->c, blob_verify(s->c, s->w.app.blobs, s->keepers[i].put.digest));
}

static Story *told;
static void others_step(void) {
    for (uint64_t n = sim_random(told->sim, 8); n; n--)
        keeper_step(told, &told->keepers[sim_random(told->sim, KEEPERS)]);
}

static void live_on(Story *s) {
    for (int i = 0; i < STEPS; i++) {
        ArenaMark mark = arena_mark(s->c->mem);
        if (sim_random(s->sim, 3)) keeper_step(s, &s->keepers[sim_random(s->sim, KEEPERS)]);
        else
            sim_run(s->sim, os_mono_ns(s->c->os) + (int64_t)sim_random(s->sim, 20000000), NULL,
                    NULL);
        check_kept(s);
        arena_restore(s->c->mem, mark);
    }
}

static void history(uint64_t seed) {
    Story s = { .sim = sim_new(seed), .mem = arena_new() };
    told = &s, collect_between = others_step;
    for (int life = 0; life < LIVES; life++) {
        life_begin(&s);
        check_kept(&s); // what was stored before the death is there
        live_on(&s);
        life_end(&s, sim_random(s.sim, 2));
    }
    collect_between = NULL;
    sim_free(s.sim);
    arena_free(s.mem);
    settings_use(NULL);
}

TEST(collect_sim_never_takes_what_was_claimed_through_deaths) {
    const char *seeds = getenv("LATHE_SIM_SEEDS");
    int64_t n = 0;
    if (!seeds || !str_to_i64(str_z(seeds), &n)) n = 2;
    for (int64_t seed = 1; seed <= n; seed++) history((uint64_t)seed);
}
