// SPDX-License-Identifier: Apache-2.0
// sim_file_test.c - what a power cut, a full disk and failing calls do to simulated files. Claims
// about chance are made over many seeds: what must never happen never does, what may happen does.
#include "base/test.h"
#include "os/file.h"
#include "os/sim.h"

enum { SEEDS = 200 };

static Ctx *sim_ctx(Sim *s, int node) {
    Ctx *c = test_ctx();
    c->os = sim_node(s, node);
    return c;
}

TEST(sim_file_is_a_file) {
    Sim *s = sim_new(1);
    Ctx *c = sim_ctx(s, 0);
    File *f;
    char out[16];
    size_t got, n;
    int64_t size;
    str *names, text;
    PathInfo info;
    CHECK_ERR(file_open(c, S("/d/f"), FILE_READ, &f), ERR_NOTFOUND);
    CHECK_OK(c, dir_make(c, S("/d/e/"), 0700));
    CHECK_OK(c, file_open(c, S("/d/f"), FILE_READ | FILE_WRITE | FILE_CREATE, &f));
    CHECK_OK(c, file_write_at(c, f, 3, "abc", 3));
    CHECK_OK(c, file_read_at(c, f, 1, out, sizeof out, &got));
    CHECK(got == 5 && !memcmp(out, "\0\0abc", 5));
    CHECK_OK(c, file_truncate(c, f, 4));
    CHECK_OK(c, file_size(c, f, &size));
    CHECK_INT(size, 4);
    CHECK(file_fd(f) >= 1000000); // no descriptor of the machine: children take it
    file_close(f);
    CHECK_ERR(file_open(c, S("/d/f"), FILE_WRITE | FILE_CREATE | FILE_EXCLUSIVE, &f), ERR_CONFLICT);
    CHECK_ERR(file_open(c, S("/d/e"), FILE_WRITE, &f), ERR_CONFLICT);
    CHECK_OK(c, path_rename(c, S("d/../d/./f"), S("/d/e/g")));
    CHECK_ERR(path_remove(c, S("/d/e")), ERR_CONFLICT);
    CHECK_ERR(path_rename(c, S("/d"), S("/d/e/d")), ERR_INVALID);
    CHECK_OK(c, path_info(c, S("/d/e"), &info));
    CHECK(info.is_dir && info.mode == 0700);
    CHECK_OK(c, file_write_all(c, S("/d/a"), S("x"), FILE_PRIVATE));
    CHECK_OK(c, file_read_all(c, S("/d/a"), 10, &text));
    CHECK_STR(text, "x");
    CHECK_OK(c, dir_list(c, S("/d"), &names, &n));
    CHECK_STR(arena_join(c->mem, names, n, S(" ")), "a e");
    CHECK_OK(c, path_remove_tree(c, S("/d")));
    CHECK_OK(c, dir_list(c, S("/"), &names, &n));
    CHECK_INT(n, 0);
    sim_free(s);
}

// --- contents

enum { BLOCK = 1024, BLOCKS = 8 };

static void fill(char *block, int number, int round) {
    memset(block, 'A' + number + round * 16, BLOCK);
}

// How a block of round 1 looks after round 2 was written over it and power was cut.
typedef enum { BLOCK_OLD, BLOCK_NEW, BLOCK_TORN, BLOCK_WRONG } BlockState;
static BlockState block_state(const char *p, int number) {
    int old = 0, new_ = 0;
    for (int i = 0; i < BLOCK; i++) {
        old += p[i] == 'A' + number;
        new_ += p[i] == 'A' + number + 16;
    }
    if (old + new_ < BLOCK) return BLOCK_WRONG;
    return old == BLOCK ? BLOCK_OLD : new_ == BLOCK ? BLOCK_NEW : BLOCK_TORN;
}

// Round 1 is synced, of round 2 the first half is. Counts what each half looks like afterwards.
static void two_rounds(uint64_t seed, bool power, int synced[4], int unsynced[4]) {
    Sim *s = sim_new(seed);
    Ctx *c = sim_ctx(s, 0);
    File *f;
    char block[BLOCK], all[BLOCK * BLOCKS] = "";
    size_t got = 0;
    CHECK_OK(c, file_open(c, S("f"), FILE_READ | FILE_WRITE | FILE_CREATE, &f));
    CHECK_OK(c, dir_sync(c, S(".")));
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < BLOCKS; i++) {
            fill(block, i, round);
            CHECK_OK(c, file_write_at(c, f, (int64_t)i * BLOCK, block, BLOCK));
            if (i == (round ? BLOCKS / 2 : BLOCKS) - 1) CHECK_OK(c, file_sync(c, f));
        }
    }
    sim_crash(s, 0, power);
    CHECK_ERR(file_read_at(c, f, 0, all, 1, &got), ERR_INTERNAL); // handles are lost
    file_close(f);
    CHECK_OK(c, file_open(c, S("f"), FILE_READ, &f));
    CHECK_OK(c, file_read_at(c, f, 0, all, sizeof all, &got));
    CHECK_INT(got, sizeof all);
    for (int i = 0; i < BLOCKS; i++)
        (i < BLOCKS / 2 ? synced : unsynced)[block_state(all + i * BLOCK, i)]++;
    file_close(f);
    sim_free(s);
}

TEST(sim_file_power_cut_takes_only_what_was_not_synced) {
    int synced[4] = { 0 }, unsynced[4] = { 0 };
    for (uint64_t seed = 0; seed < SEEDS; seed++) two_rounds(seed, true, synced, unsynced);
    CHECK_INT(synced[BLOCK_NEW], SEEDS * BLOCKS / 2);
    CHECK(unsynced[BLOCK_OLD] > SEEDS / 4); // lost
    CHECK(unsynced[BLOCK_NEW] > SEEDS / 4); // kept
    CHECK(unsynced[BLOCK_TORN] > SEEDS / 4);
    CHECK_INT(unsynced[BLOCK_WRONG], 0);
}

TEST(sim_file_death_of_the_process_takes_nothing) {
    int synced[4] = { 0 }, unsynced[4] = { 0 };
    for (uint64_t seed = 0; seed < 20; seed++) two_rounds(seed, false, synced, unsynced);
    CHECK_INT(synced[BLOCK_NEW] + unsynced[BLOCK_NEW], 20 * BLOCKS);
}

// A sync that failed has lost something for good in some histories, though the next one says OK.
TEST(sim_file_failed_sync_is_not_repaired_by_the_next) {
    int lost = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        Sim *s = sim_new(seed);
        Ctx *c = sim_ctx(s, 0);
        File *f;
        str text;
        CHECK_OK(c, file_open(c, S("f"), FILE_READ | FILE_WRITE | FILE_CREATE, &f));
        CHECK_OK(c, dir_sync(c, S("/")));
        CHECK_OK(c, file_write_at(c, f, 0, "data", 4));
        sim_faults(s, 0, &(SimFaults){ .sync_error = 1000000 });
        CHECK_ERR(file_sync(c, f), ERR_INTERNAL);
        sim_faults(s, 0, &(SimFaults){ 0 });
        CHECK_OK(c, file_sync(c, f));
        file_close(f);
        sim_crash(s, 0, true);
        CHECK_OK(c, file_read_all(c, S("f"), 10, &text));
        lost += !str_is(text, "data");
        sim_free(s);
    }
    CHECK(lost > SEEDS * 2 / 5 && lost < SEEDS * 3 / 5); // half, by the seed
}

// --- names

// "old" is durable as `a`; renamed to `b`, perhaps synced; then the power goes.
static void renamed(uint64_t seed, bool synced, int *a, int *b, int *both) {
    Sim *s = sim_new(seed);
    Ctx *c = sim_ctx(s, 0);
    str text;
    CHECK_OK(c, file_write_all(c, S("/a"), S("kept"), 0));
    CHECK_OK(c, path_rename(c, S("/a"), S("/b")));
    if (synced) CHECK_OK(c, dir_sync(c, S("/")));
    sim_crash(s, 0, true);
    bool is_a = !file_read_all(c, S("/a"), 10, &text);
    if (is_a) CHECK_STR(text, "kept");
    bool is_b = !file_read_all(c, S("/b"), 10, &text);
    if (is_b) CHECK_STR(text, "kept");
    *a += is_a;
    *b += is_b;
    *both += is_a == is_b;
    sim_free(s);
}

TEST(sim_file_rename_may_be_lost_until_dir_sync) {
    int a = 0, b = 0, both = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) renamed(seed, false, &a, &b, &both);
    CHECK(a > SEEDS / 4 && b > SEEDS / 4);
    CHECK_INT(both, 0); // atomic: never neither, never both
    a = b = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) renamed(seed, true, &a, &b, &both);
    CHECK_INT(b, SEEDS);
    CHECK_INT(a, 0);
}

TEST(sim_file_new_name_needs_dir_sync) {
    int kept = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        Sim *s = sim_new(seed);
        Ctx *c = sim_ctx(s, 0);
        File *f;
        CHECK_OK(c, file_open(c, S("f"), FILE_WRITE | FILE_CREATE, &f));
        CHECK_OK(c, file_write_at(c, f, 0, "x", 1));
        CHECK_OK(c, file_sync(c, f)); // of the contents only
        file_close(f);
        sim_crash(s, 0, true);
        PathInfo info;
        kept += !path_info(c, S("f"), &info);
        sim_free(s);
    }
    CHECK(kept > SEEDS / 4 && kept < SEEDS * 3 / 4);
}

// file_write_all is atomic and durable whatever happens within it.
TEST(sim_file_write_all_survives_death_at_any_write) {
    int died = 0, before = 0, after = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        Sim *s = sim_new(seed);
        Ctx *c = sim_ctx(s, 0);
        str text;
        char value[3000];
        int done = -1;
        memset(value, 'a', sizeof value);
        CHECK_OK(c, file_write_all(c, S("/f"), str_n(value, sizeof value), 0));
        sim_faults(s, 0,
                   &(SimFaults){ .crash = 200000, .write_error = 50000, .sync_error = 50000 });
        for (int i = 1; i < 20 && done < 0; i++) {
            memset(value, 'a' + i, sizeof value);
            if (file_write_all(c, S("/f"), str_n(value, sizeof value), 0)) done = i - 1;
        }
        sim_faults(s, 0, &(SimFaults){ 0 });
        if (sim_lives(s, 0) == 0) sim_crash(s, 0, true); // it did not die by itself
        else died++;
        CHECK_OK(c, file_read_all(c, S("/f"), 3000, &text));
        CHECK_INT(text.n, sizeof value);
        for (size_t i = 1; i < text.n; i++) CHECK(text.p[i] == text.p[0]);
        if (done >= 0) {
            before += text.p[0] == 'a' + done;
            after += text.p[0] == 'a' + done + 1;
            CHECK(text.p[0] == 'a' + done || text.p[0] == 'a' + done + 1);
        }
        sim_free(s);
    }
    CHECK(died > SEEDS / 4 && before > 0 && after > 0);
}

TEST(sim_file_dying_node_does_nothing_more) {
    Sim *s = sim_new(3);
    Ctx *c = sim_ctx(s, 0);
    File *f;
    PathInfo info;
    CHECK_OK(c, file_open(c, S("f"), FILE_WRITE | FILE_CREATE, &f));
    sim_faults(s, 0, &(SimFaults){ .crash = 1000000 });
    CHECK_ERR(file_write_at(c, f, 0, "x", 1), ERR_INTERNAL);
    sim_faults(s, 0, &(SimFaults){ 0 }); // still dying: until sim_run or sim_lives look
    CHECK_INT(sim_lives(s, 0), 1);
    CHECK_ERR(file_sync(c, f), ERR_INTERNAL); // its handles stay lost
    CHECK_OK(c, file_write_all(c, S("g"), S("new life"), 0));
    CHECK_OK(c, path_info(c, S("g"), &info));
    file_close(f);
    sim_free(s);
}

// --- space

TEST(sim_file_full_disk) {
    Sim *s = sim_new(5);
    Ctx *c = sim_ctx(s, 0);
    File *f, *reserved;
    static char kib[1024];
    int64_t left;
    sim_disk_max(s, 0, 10 * 1024);
    CHECK_OK(c, file_open(c, S("r"), FILE_WRITE | FILE_CREATE, &reserved));
    CHECK_OK(c, file_allocate(c, reserved, 4 * 1024));
    CHECK_ERR(file_allocate(c, reserved, 11 * 1024), ERR_FULL);
    CHECK_OK(c, file_open(c, S("f"), FILE_WRITE | FILE_CREATE, &f));
    for (int i = 0; i < 6; i++) CHECK_OK(c, file_write_at(c, f, i * 1024, kib, 1024));
    CHECK_ERR(file_write_at(c, f, 6 * 1024, kib, 1024), ERR_FULL);
    CHECK(c->failure.why == &R_DISK_FULL);
    for (int i = 0; i < 4; i++) CHECK_OK(c, file_write_at(c, reserved, i * 1024, kib, 1024));
    CHECK_OK(c, disk_free(c, S("/"), &left));
    CHECK_INT(left, 0);
    CHECK_OK(c, path_remove(c, S("f")));
    CHECK_OK(c, disk_free(c, S("/"), &left));
    CHECK_INT(left, 0); // still open
    file_close(f);
    CHECK_OK(c, disk_free(c, S("/"), &left));
    CHECK_INT(left, 6 * 1024);
    sim_crash(s, 0, false); // the other one's handle is lost, its file stays
    CHECK_OK(c, disk_free(c, S("/"), &left));
    CHECK_INT(left, 6 * 1024);
    CHECK_OK(c, path_remove(c, S("r")));
    CHECK_OK(c, disk_free(c, S("/"), &left));
    CHECK_INT(left, 10 * 1024);
    CHECK_OK(c, disk_size(c, S("/"), &left));
    CHECK_INT(left, 10 * 1024);
    file_close(reserved);
    sim_free(s);
}

TEST(sim_file_faults_come_as_drawn) {
    Sim *s = sim_new(7);
    Ctx *c = sim_ctx(s, 0);
    File *f;
    int failed = 0, full = 0;
    CHECK_OK(c, file_open(c, S("f"), FILE_WRITE | FILE_CREATE, &f));
    sim_faults(s, 0, &(SimFaults){ .write_error = 250000, .write_full = 250000 });
    for (int i = 0; i < 1000; i++) {
        err e = file_write_at(c, f, 0, "x", 1);
        failed += e == ERR_INTERNAL;
        full += e == ERR_FULL;
    }
    CHECK(failed > 150 && failed < 350 && full > 100 && full < 300);
    file_close(f);
    sim_free(s);
}

TEST(sim_file_lock_goes_with_its_life) {
    Sim *s = sim_new(9);
    Ctx *c = sim_ctx(s, 0);
    File *one, *two;
    CHECK_OK(c, file_open(c, S("f"), FILE_WRITE | FILE_CREATE, &one));
    CHECK_OK(c, file_open(c, S("f"), FILE_WRITE, &two));
    CHECK_OK(c, file_lock(c, one));
    CHECK_ERR(file_lock(c, two), ERR_CONFLICT);
    file_close(one);
    CHECK_OK(c, file_lock(c, two));
    sim_crash(s, 0, false);
    CHECK_OK(c, file_open(c, S("f"), FILE_WRITE, &one));
    CHECK_OK(c, file_lock(c, one)); // two was never closed
    file_close(one);
    sim_free(s); // frees it
}
