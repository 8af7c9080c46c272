// SPDX-License-Identifier: Apache-2.0
// blob_sim_test.c - objects on the simulated machine: deaths of the process and of the power at any
// write, failing syncs, full disks, over many seeds. What was committed stays, whole; what is there
// is whole; what is staged continues where it was, with the bytes that were given.
#include "base/test.h"
#include "blob/blob.h"
#include "os/sim.h"
#include <stdlib.h>

enum { OBJECTS = 6, BYTES_MAX = 60000 };

typedef struct Object { // of one name: bytes that follow from its seed, staged piece by piece
    char name[16], hex[BLOB_DIGEST_HEX + 1];
    size_t n;
    size_t synced, given; // staged bytes: surely there after a death, and at most
    bool committed;
} Object;

typedef struct World {
    Sim *sim;
    Ctx own, *c; // c is own's address
    Blobs *b;
    Object objects[OBJECTS];
    char *bytes; // all objects are parts of it
    const char *broken;
    size_t commits, resumed, deaths;
    bool faulty;
} World;

static void broken(World *w, const char *what) {
    if (!w->broken) w->broken = what;
}

static str bytes_of(World *w, const Object *o) { return str_n(w->bytes + (o - w->objects), o->n); }

static bool died(World *w, unsigned lives) { return sim_lives(w->sim, 0) != lives; }

// One call's work on an object: some pieces, perhaps a sync, a pause or the commit.
static void stage_some(World *w, Object *o) {
    Sim *s = w->sim;
    Ctx call;
    BlobWriter *bw;
    ctx_init(&call, arena_new(), w->c->os);
    if (blob_stage(&call, w->b, str_z(o->name), &bw)) {
        arena_free(call.mem);
        return;
    }
    size_t at = (size_t)blob_staged(bw);
    if (at < o->synced) broken(w, "synced bytes are gone");
    if (at > o->given) broken(w, "there are bytes that nobody gave");
    if (at && at == o->synced) w->resumed++;
    o->given = at;
    err e = ERR_OK;
    for (uint64_t i = sim_random(s, 6); !e && i; i--) {
        str piece = str_sub(bytes_of(w, o), at, 1 + sim_random(s, 15000));
        e = blob_append(&call, bw, piece);
        size_t now = (size_t)blob_staged(bw);
        if (now < at || now > at + piece.n) broken(w, "an append took another number of bytes");
        if (!e && now != at + piece.n) broken(w, "an append took less and said nothing");
        o->given = at = now;
        if (!e && sim_random(s, 3) == 0 && !(e = blob_sync(&call, bw))) o->synced = at;
    }
    char hex[BLOB_DIGEST_HEX + 1];
    int64_t size;
    if (at == o->n && !o->committed) {
        e = blob_commit(&call, bw, sim_random(s, 2) ? str_z(o->hex) : (str){ 0 }, hex, &size);
        if (e == ERR_INVALID) broken(w, "the digest was wrong");
        if (!e && !str_is(str_z(hex), o->hex)) broken(w, "bytes were committed that nobody gave");
        if (!e) o->committed = true, w->commits++;
        o->synced = 0; // one that failed may have come to the rename
        if (!e && !w->faulty) o->given = 0;
    } else if (sim_random(s, 12) == 0) {
        blob_abandon(&call, bw);
        o->synced = 0;
        if (!w->faulty) o->given = 0; // else it may not have come through
    } else if (sim_random(s, 2)) {
        blob_pause(bw);
    }
    arena_free(call.mem);
}

static void check_all(World *w) {
    for (int i = 0; i < OBJECTS; i++) {
        Object *o = &w->objects[i];
        if (o->committed && blob_verify(w->c, w->b, str_z(o->hex)))
            broken(w, "a committed object is gone or damaged");
    }
    for (unsigned i = 0; i < 256; i++) {
        str *list;
        size_t n;
        char prefix[3] = { "0123456789abcdef"[i >> 4], "0123456789abcdef"[i & 15], 0 };
        if (blob_list(w->c, w->b, str_z(prefix), &list, &n)) broken(w, "a folder is gone");
        else
            for (size_t k = 0; k < n; k++)
                if (blob_verify(w->c, w->b, list[k])) broken(w, "an object is there, and damaged");
    }
}

static bool life_begin(World *w) {
    arena_free(w->own.mem);
    ctx_init(&w->own, arena_new(), sim_node(w->sim, 0));
    w->c = &w->own;
    return !dir_make(w->c, S("/data"), 0700) && !dir_sync(w->c, S("/"))
           && !blobs_open(w->c, S("/data"), &w->b);
}

static void life_run(World *w, const SimFaults *faults) {
    static const SimFaults none = { 0 };
    unsigned lives = sim_lives(w->sim, 0);
    sim_node(w->sim, 0);
    sim_faults(w->sim, 0, &none);
    if (sim_random(w->sim, 4) == 0) sim_disk_max(w->sim, 0, 150000);
    else sim_disk_max(w->sim, 0, 0);
    if (!life_begin(w)) return; // the full disk
    check_all(w);
    sim_faults(w->sim, 0, faults);
    w->faulty = faults->crash || faults->sync_error;
    for (int i = 0; i < 30 && !died(w, lives) && !w->broken; i++) {
        stage_some(w, &w->objects[sim_random(w->sim, OBJECTS)]);
        sim_node(w->sim, 0); // a death takes effect between calls
        if (died(w, lives)) w->deaths++;
    }
    blobs_close(w->b);
    if (!died(w, lives)) sim_crash(w->sim, 0, sim_random(w->sim, 2));
}

static void world_run(uint64_t seed, const SimFaults *faults, World *w) {
    *w = (World){ .sim = sim_new(seed) };
    w->bytes = mem_new(BYTES_MAX + OBJECTS);
    for (size_t i = 0; i < BYTES_MAX + OBJECTS; i++) w->bytes[i] = (char)sim_random(w->sim, 256);
    for (int i = 0; i < OBJECTS; i++) {
        Object *o = &w->objects[i];
        memcpy(o->name, "import_0", 9);
        o->name[7] = (char)('0' + i);
        o->n = sim_random(w->sim, BYTES_MAX);
        sha256_hex(bytes_of(w, o), o->hex);
    }
    for (int life = 0; life < 8 && !w->broken; life++) life_run(w, faults);
    sim_node(w->sim, 0);
    sim_faults(w->sim, 0, &(SimFaults){ 0 });
    sim_disk_max(w->sim, 0, 0);
    if (!w->broken && life_begin(w)) {
        check_all(w);
        blobs_close(w->b);
    }
    arena_free(w->own.mem);
    mem_free(w->bytes);
    sim_free(w->sim);
}

static void histories(uint64_t first, const SimFaults *faults) {
    const char *more = getenv("LATHE_SIM_SEEDS");
    int64_t seeds = 30;
    size_t commits = 0, resumed = 0;
    if (more && !str_to_i64(str_z(more), &seeds)) seeds = 30;
    for (uint64_t seed = first; seed < first + (uint64_t)seeds; seed++) {
        World w;
        world_run(seed, faults, &w);
        commits += w.commits;
        resumed += w.resumed;
        if (w.broken) {
            test_failed(__FILE__, __LINE__, "seed %llu: %s", (unsigned long long)seed, w.broken);
            return;
        }
    }
    CHECK(commits > 30 && resumed > 30); // the histories were not empty
}

TEST(blob_sim_deaths_lose_nothing_committed) { histories(1000, &(SimFaults){ 0 }); }

TEST(blob_sim_deaths_at_any_write) { histories(2000, &(SimFaults){ .crash = 10000 }); }

TEST(blob_sim_failing_disk) {
    histories(3000, &(SimFaults){ .write_error = 10000,
                                  .write_full = 10000,
                                  .sync_error = 20000,
                                  .read_error = 5000,
                                  .crash = 3000 });
}

typedef struct One { // one named staging file on a machine of its own
    Sim *sim;
    Ctx *c;
    Blobs *b;
    BlobWriter *w;
} One;

static err one_open(One *o) {
    o->c->os = sim_node(o->sim, 0);
    TRY(dir_make(o->c, S("/data"), 0700));
    TRY(dir_sync(o->c, S("/")));
    return blobs_open(o->c, S("/data"), &o->b);
}

static err one_put(One *o, str bytes, char hex[BLOB_DIGEST_HEX + 1]) {
    int64_t size;
    TRY(blob_stage(o->c, o->b, S("x"), &o->w));
    err e = blob_append(o->c, o->w, str_sub(bytes, (size_t)blob_staged(o->w), bytes.n));
    if (!e) return blob_commit(o->c, o->w, (str){ 0 }, hex, &size);
    blob_pause(o->w);
    return e;
}

// Bytes behind the last sync are dropped, not left at the end of what is staged next.
TEST(blob_sim_unsynced_bytes_do_not_come_back) {
    One o = { .sim = sim_new(1), .c = test_ctx() };
    char hex[BLOB_DIGEST_HEX + 1];
    CHECK_OK(o.c, one_open(&o));
    CHECK_OK(o.c, blob_stage(o.c, o.b, S("x"), &o.w));
    CHECK_OK(o.c, blob_append(o.c, o.w, S("short")));
    CHECK_OK(o.c, blob_sync(o.c, o.w));
    CHECK_OK(o.c, blob_append(o.c, o.w, S(", and a long text that nobody synced")));
    sim_crash(o.sim, 0, false); // the process only: all of it is in the file
    blob_pause(o.w);
    blobs_close(o.b);
    CHECK_OK(o.c, one_open(&o));
    CHECK_OK(o.c, one_put(&o, S("shorter"), hex));
    CHECK_OK(o.c, blob_verify(o.c, o.b, str_z(hex)));
    blobs_close(o.b);
    sim_free(o.sim);
}

// A commit whose last sync failed, then a power cut, may leave one file under both its names: what
// is staged next under the one must not be written into the object.
TEST(blob_sim_a_half_known_rename_harms_no_object) {
    size_t failed = 0;
    for (uint64_t seed = 0; seed < 400; seed++) {
        One o = { .sim = sim_new(seed), .c = test_ctx() };
        char hex[BLOB_DIGEST_HEX + 1];
        CHECK_OK(o.c, one_open(&o));
        sim_faults(o.sim, 0, &(SimFaults){ .sync_error = 300000 });
        failed += one_put(&o, S("the first content"), hex) != ERR_OK;
        blobs_close(o.b);
        sim_crash(o.sim, 0, true);
        sim_node(o.sim, 0);
        sim_faults(o.sim, 0, &(SimFaults){ 0 });
        CHECK_OK(o.c, one_open(&o));
        CHECK_OK(o.c, blob_stage(o.c, o.b, S("x"), &o.w));
        CHECK_OK(o.c, blob_append(o.c, o.w, S("another")));
        CHECK_OK(o.c, blob_sync(o.c, o.w));
        sha256_hex(S("the first content"), hex);
        bool there = blob_has(o.c, o.b, str_z(hex));
        if (there) CHECK_OK(o.c, blob_verify(o.c, o.b, str_z(hex)));
        blob_abandon(o.c, o.w);
        if (there) CHECK_OK(o.c, blob_verify(o.c, o.b, str_z(hex)));
        blobs_close(o.b);
        sim_free(o.sim);
    }
    CHECK(failed > 100 && failed < 400);
}

TEST(blob_sim_full_disk_keeps_what_fitted) {
    for (uint64_t seed = 0; seed < 30; seed++) {
        Sim *s = sim_new(seed);
        Ctx *c = test_ctx();
        Blobs *b;
        BlobWriter *w;
        char *bytes = mem_new(200000), hex[BLOB_DIGEST_HEX + 1], want[BLOB_DIGEST_HEX + 1];
        size_t at = 0;
        int64_t size;
        for (size_t i = 0; i < 200000; i++) bytes[i] = (char)sim_random(s, 256);
        sha256_hex(str_n(bytes, 200000), want);
        c->os = sim_node(s, 0);
        CHECK_OK(c, blobs_open(c, S("/data"), &b));
        CHECK_OK(c, blob_stage(c, b, S("x"), &w));
        sim_disk_max(s, 0, (int64_t)(50000 + sim_random(s, 100000)));
        err e = ERR_OK;
        while (!e && at < 200000) {
            str piece = str_n(bytes + at, 1 + sim_random(s, 200000 - at));
            e = blob_append(c, w, piece);
            at = (size_t)blob_staged(w);
        }
        CHECK_ERR(e, ERR_FULL);
        blob_pause(w); // keeps them, also on a disk without a byte left
        CHECK_OK(c, blob_stage(c, b, S("x"), &w));
        CHECK_INT(blob_staged(w), at);
        sim_disk_max(s, 0, 0);
        CHECK_OK(c, blob_append(c, w, str_n(bytes + at, 200000 - at)));
        CHECK_OK(c, blob_commit(c, w, str_z(want), hex, &size));
        CHECK_OK(c, blob_verify(c, b, str_z(want)));
        blobs_close(b);
        mem_free(bytes);
        sim_free(s);
    }
}
