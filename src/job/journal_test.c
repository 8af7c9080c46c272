// SPDX-License-Identifier: Apache-2.0
// journal_test.c - the journal on real files: format, order, threads, the death of its process.
// What needs injected faults and power cuts is journal_sim_test.c.
#include "base/test.h"
#include "job/journal_own.h"
#include "os/process.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { SMALL = 64 << 10 };

static Ctx *real_ctx(void) {
    Ctx *c = test_ctx();
    c->os = os_real();
    return c;
}

// A record tells who wrote it and when; the rest follows from that, so that damage shows.
typedef struct Numbered {
    uint32_t writer, number;
} Numbered;

static str numbered(Arena *a, uint32_t writer, uint32_t number, size_t extra) {
    char *p = arena_alloc_raw(a, sizeof(Numbered) + extra);
    memcpy(p, &(Numbered){ writer, number }, sizeof(Numbered));
    for (size_t i = 0; i < extra; i++) p[sizeof(Numbered) + i] = (char)(writer * 31 + number + i);
    return str_n(p, sizeof(Numbered) + extra);
}

static bool numbered_ok(str s, Numbered *out) {
    if (s.n < sizeof *out) return false;
    memcpy(out, s.p, sizeof *out);
    for (size_t i = 0; i + sizeof *out < s.n; i++)
        if (s.p[sizeof *out + i] != (char)(out->writer * 31 + out->number + i)) return false;
    return true;
}

TEST(job_crc32c_vectors) { // RFC 3720, B.4
    unsigned char b[32];
    memset(b, 0, sizeof b);
    CHECK_INT(crc32c(0, b, 32), 0x8a9136aa);
    CHECK_INT(crc32c_plain(0, b, 32), 0x8a9136aa);
    memset(b, 0xff, sizeof b);
    CHECK_INT(crc32c(0, b, 32), 0x62a8ab43);
    for (unsigned i = 0; i < 32; i++) b[i] = (unsigned char)i;
    CHECK_INT(crc32c(0, b, 32), 0x46dd794e);
    CHECK_INT(crc32c_plain(crc32c_plain(0, b, 7), b + 7, 25), 0x46dd794e);
    for (size_t from = 0; from < 9; from++)
        CHECK(crc32c(5, b + from, 32 - from) == crc32c_plain(5, b + from, 32 - from));
}

TEST(job_segment_any_flipped_bit_is_found) {
    char seg[256] = { 0 };
    JournalRecord r;
    size_t next;
    const char *why;
    str payload = S("hello, journal");
    record_format(7, JOURNAL_B, payload, seg);
    memcpy(seg + RECORD_HEADER, payload.p, payload.n);
    CHECK(segment_next(str_n(seg, sizeof seg), 0, &r, &next, &why) == SEGMENT_RECORD);
    CHECK(r.kind == 7 && r.cl == JOURNAL_B && str_eq(r.bytes, payload));
    CHECK(segment_next(str_n(seg, sizeof seg), next, &r, &next, &why) == SEGMENT_END);
    for (size_t bit = 0; bit < 8 * (RECORD_HEADER + payload.n); bit++) {
        seg[bit / 8] ^= (char)(1 << bit % 8);
        CHECK(segment_next(str_n(seg, sizeof seg), 0, &r, &next, &why) == SEGMENT_BAD);
        seg[bit / 8] ^= (char)(1 << bit % 8);
    }
    for (size_t cut = 1; cut < RECORD_HEADER + payload.n; cut++)
        CHECK(segment_next(str_n(seg, cut), 0, &r, &next, &why) == SEGMENT_BAD);
    char head[SEGMENT_HEADER];
    uint32_t node;
    uint64_t number;
    segment_header_format(3, 9, head);
    CHECK(segment_header(str_n(head, sizeof head), &node, &number) && node == 3 && number == 9);
    for (size_t bit = 0; bit < 8 * 20; bit++) {
        head[bit / 8] ^= (char)(1 << bit % 8);
        CHECK(!segment_header(str_n(head, sizeof head), &node, &number));
        head[bit / 8] ^= (char)(1 << bit % 8);
    }
}

typedef struct Tally {
    uint32_t next[16]; // number each writer's next record must have
    size_t records;
} Tally;

// Reads on from *pos to the end; false when a record is damaged, missing, twice or out of order.
static bool read_on(Ctx *c, Journal *j, JournalPos *pos, size_t max, Tally *t) {
    for (;;) {
        ArenaMark m = arena_mark(c->mem);
        JournalBatch b;
        if (journal_read(c, j, *pos, max, &b) || b.gap) return false;
        for (size_t i = 0; i < b.n; i++) {
            Numbered n;
            if (!numbered_ok(b.records[i].bytes, &n) || n.writer >= 16) return false;
            if (b.records[i].kind != (uint16_t)n.number) return false;
            if (n.number != t->next[n.writer]++) return false;
            t->records++;
        }
        if (b.n) *pos = b.records[b.n - 1].next;
        arena_restore(c->mem, m);
        if (!b.n) return true;
    }
}

static err put(Journal *j, JournalClass cl, uint32_t writer, uint32_t number, size_t extra) {
    Arena *a = arena_new();
    str s = numbered(a, writer, number, extra);
    err e = journal_append(j, &(JournalEntry){ .cl = cl, .kind = (uint16_t)number, .bytes = s });
    arena_free(a);
    return e;
}

TEST(job_journal_keeps_order_over_segments_and_lives) {
    Ctx *c = real_ctx();
    Journal *j;
    JournalPos pos = { 0 };
    Tally t = { 0 };
    uint32_t number = 0;
    for (int life = 0; life < 4; life++) {
        CHECK_OK(c, journal_open_sized(c, str_z(test_dir()), 1, SMALL, &j));
        for (int i = 0; i < 300; i++)
            CHECK_ERR(put(j, i % 7 ? JOURNAL_A : JOURNAL_B, 0, number++, (size_t)(i * 37 % 1500)),
                      ERR_OK);
        CHECK_OK(c, journal_flush(c, j));
        CHECK(read_on(c, j, &pos, 17, &t));
        CHECK_INT(t.records, number);
        JournalPos end = journal_end(j);
        CHECK(end.segment == pos.segment && end.offset == pos.offset && end.node == 1);
        if (life % 2) journal_close(j);
        else journal_drop(j);
    }
    CHECK_OK(c, journal_open_sized(c, str_z(test_dir()), 1, SMALL, &j));
    Tally again = { 0 };
    pos = (JournalPos){ 0 };
    CHECK(read_on(c, j, &pos, 1000, &again));
    CHECK_INT(again.records, 1200);
    journal_close(j);
}

// What recovery reads in pieces: records of every size around a piece and up to the limit, the last
// segment closed or left as a death leaves it, with torn bytes far behind its end or without.
TEST(job_journal_finds_its_end_whatever_the_sizes) {
    static const size_t sizes[] = { 0,      1,      4000,   131071,
                                    131072, 131073, 300000, JOURNAL_RECORD_MAX - 16 };
    Ctx *c = real_ctx();
    JournalPos pos = { 0 };
    Tally t = { 0 };
    uint32_t number = 0;
    for (int life = 0; life < 9; life++) {
        Journal *j;
        CHECK_OK(c, journal_open(c, str_z(test_dir()), 1, &j));
        CHECK(read_on(c, j, &pos, 100, &t));
        CHECK_INT(t.records, number);
        CHECK_INT(journal_counts(j).torn_bytes, life && life % 3 == 0 ? 3000003 : 0);
        for (size_t i = 0; i < countof(sizes); i++)
            CHECK_ERR(put(j, JOURNAL_A, 0, number++, sizes[(i + (size_t)life) % countof(sizes)]),
                      ERR_OK);
        CHECK_OK(c, journal_flush(c, j));
        JournalPos end = journal_end(j);
        if (life % 3 == 0) journal_close(j);
        else journal_drop(j);
        if (life % 3 != 2) continue;
        File *f; // a write that only its end survived
        str name = arena_printf(c->mem, "%s/journal/%08x-%016llx.log", test_dir(), 1u,
                                (unsigned long long)end.segment);
        CHECK_OK(c, file_open(c, name, FILE_WRITE, &f));
        CHECK_OK(c, file_write_at(c, f, (int64_t)end.offset + 3000000, "xyz", 3));
        file_close(f);
    }
}

TEST(job_journal_every_position_resumes) {
    Ctx *c = real_ctx();
    Journal *j;
    JournalBatch all, rest;
    CHECK_OK(c, journal_open_sized(c, str_z(test_dir()), 1, 4096, &j));
    for (uint32_t i = 0; i < 60; i++) CHECK_ERR(put(j, JOURNAL_A, 0, i, i * 13 % 700), ERR_OK);
    CHECK_OK(c, journal_flush(c, j));
    JournalPos at = { 0 };
    for (uint32_t i = 0; i < 60; i++) { // one at a time: a segment's end is crossed many times
        CHECK_OK(c, journal_read(c, j, at, 1, &all));
        CHECK_INT(all.n, 1);
        CHECK_INT(all.records[0].kind, i);
        CHECK_OK(c, journal_read(c, j, all.records[0].pos, 60, &rest));
        CHECK(rest.n >= 1 && rest.records[0].kind == i);
        at = all.records[0].next;
    }
    CHECK_OK(c, journal_read(c, j, at, 60, &rest));
    CHECK(rest.n == 0 && !rest.gap);
    journal_close(j);
}

TEST(job_journal_trim_leaves_the_rest_and_says_gap) {
    Ctx *c = real_ctx();
    Journal *j;
    JournalBatch b;
    CHECK_OK(c, journal_open_sized(c, str_z(test_dir()), 1, 4096, &j));
    for (uint32_t i = 0; i < 60; i++) CHECK_ERR(put(j, JOURNAL_A, 0, i, 400), ERR_OK);
    CHECK_OK(c, journal_flush(c, j));
    CHECK_OK(c, journal_read(c, j, (JournalPos){ 0 }, 1, &b));
    JournalPos first = b.records[0].next, pos = { 0 };
    for (int i = 0; i < 40; i++) {
        CHECK_OK(c, journal_read(c, j, pos, 1, &b));
        pos = b.records[0].next;
    }
    int64_t before = journal_counts(j).segments;
    CHECK_OK(c, journal_trim(c, j, pos));
    CHECK(journal_counts(j).segments < before);
    CHECK_OK(c, journal_read(c, j, pos, 1, &b));
    CHECK(b.n == 1 && b.records[0].kind == 40 && !b.gap);
    CHECK_OK(c, journal_read(c, j, first, 1, &b));
    CHECK(b.n == 1 && b.gap && b.records[0].pos.segment == pos.segment);
    journal_close(j);
    CHECK_OK(c, journal_open_sized(c, str_z(test_dir()), 1, 4096, &j));
    CHECK_OK(c, journal_read(c, j, pos, 1, &b));
    CHECK(b.n == 1 && b.records[0].kind == 40 && !b.gap);
    CHECK_OK(c, journal_trim(c, j, journal_end(j))); // also all of it: numbers go on all the same
    journal_close(j);
    CHECK_OK(c, journal_open_sized(c, str_z(test_dir()), 1, 4096, &j));
    CHECK(journal_end(j).segment > pos.segment);
    journal_close(j);
}

TEST(job_journal_damage_in_an_old_segment_is_reported_and_passed) {
    Ctx *c = real_ctx();
    Journal *j;
    JournalBatch b;
    CHECK_OK(c, journal_open_sized(c, str_z(test_dir()), 1, 4096, &j));
    for (uint32_t i = 0; i < 40; i++) CHECK_ERR(put(j, JOURNAL_A, 0, i, 400), ERR_OK);
    CHECK_OK(c, journal_flush(c, j));
    CHECK_OK(c, journal_read(c, j, (JournalPos){ 0 }, 3, &b));
    JournalPos third = b.records[2].pos;
    str path = segment_path(c, j, third.segment);
    File *f;
    CHECK_OK(c, file_open(c, path, FILE_READ | FILE_WRITE, &f));
    for (int zero = 0; zero < 2; zero++) { // a changed byte, and a lost page
        char bytes[1024] = { 0 };
        size_t n = zero ? sizeof bytes : 1;
        CHECK_OK(c, file_write_at(c, f, (int64_t)third.offset + (zero ? 0 : 20), bytes, n));
        CHECK_OK(c, journal_read(c, j, (JournalPos){ 0 }, 40, &b));
        CHECK_INT(b.n, 2);
        CHECK_ERR(journal_read(c, j, b.records[1].next, 40, &b), ERR_INTERNAL);
        CHECK(c->failure.why == &R_JOURNAL_BAD);
        CHECK_STR(failure_param(&c->failure, "offset"), say(c, "%d", (int)third.offset));
        CHECK_OK(c, journal_read(c, j, journal_skip(j, third), 40, &b));
        CHECK(b.n > 0 && b.records[0].pos.segment == third.segment + 1);
    }
    file_close(f);
    journal_close(j);
}

TEST(job_journal_limits) {
    Ctx *c = real_ctx();
    Journal *j;
    JournalBatch b;
    CHECK_OK(c, journal_open(c, str_z(test_dir()), 1, &j));
    char *big = mem_new(JOURNAL_RECORD_MAX + 1);
    JournalEntry e = { .kind = 1, .bytes = str_n(big, JOURNAL_RECORD_MAX + 1) };
    CHECK_ERR(journal_append(j, &e), ERR_TOOLARGE);
    CHECK(!journal_reserve(j, JOURNAL_RECORD_MAX + 1));
    e.bytes.n = JOURNAL_RECORD_MAX;
    for (int i = 0; i < 20; i++) CHECK_ERR(journal_append(j, &e), ERR_OK);
    e.bytes.n = 0;
    CHECK_ERR(journal_append(j, &e), ERR_OK);
    CHECK_OK(c, journal_flush(c, j));
    for (int life = 0; life < 2; life++) {
        size_t n = 0;
        for (JournalPos pos = { 0 };; pos = b.records[b.n - 1].next, n += b.n) {
            CHECK_OK(c, journal_read(c, j, pos, 100, &b));
            if (!b.n) break;
            for (size_t i = 0; i < b.n; i++)
                CHECK(b.records[i].bytes.n == (n + i < 20 ? JOURNAL_RECORD_MAX : 0));
        }
        CHECK_INT(n, 21);
        journal_drop(j);
        CHECK_OK(c, journal_open(c, str_z(test_dir()), 1, &j));
        CHECK_INT(journal_counts(j).torn_bytes, 0);
    }
    mem_free(big);
    journal_close(j);
}

// ---- many threads and loops at once

enum { WRITERS = 6, EACH = 400 };
typedef struct Crowd {
    Journal *j;
    Loop *loop;
    uint32_t writer, number;
    atomic_uint durable;
    Thread thread;
} Crowd;

static void durable_count(void *arg, err e) {
    Crowd *w = arg;
    if (!e) atomic_fetch_add(&w->durable, 1);
}

static void crowd_put(Crowd *w) {
    Arena *a = arena_new();
    JournalClass cl = w->number % 5 ? JOURNAL_A : JOURNAL_B;
    size_t n = w->number * 17 % 900;
    bool reserved = w->number % 3 == 0 && journal_reserve(w->j, n + sizeof(Numbered));
    JournalEntry e = { .cl = cl,
                       .kind = (uint16_t)w->number,
                       .bytes = numbered(a, w->writer, w->number, n),
                       .reserved = reserved ? n + sizeof(Numbered) : 0,
                       .durable = cl == JOURNAL_B ? durable_count : NULL,
                       .arg = w };
    err put_e = journal_append(w->j, &e);
    if (put_e) test_failed(__FILE__, __LINE__, "append: %s", err_row(put_e)->name);
    w->number++;
    arena_free(a);
}

static void crowd_thread(void *arg) {
    Crowd *w = arg;
    while (w->number < EACH) crowd_put(w);
}

static void crowd_turn(void *arg) {
    Crowd *w = arg;
    for (int i = 0; i < 8 && w->number < EACH; i++) crowd_put(w);
    if (w->number < EACH) loop_post(w->loop, crowd_turn, w);
    else loop_stop(w->loop);
}

static void crowd_loop(void *arg) {
    Crowd *w = arg;
    loop_run(w->loop);
}

TEST(job_journal_threads_loops_and_a_reader_at_once) {
    Ctx *c = real_ctx();
    Journal *j;
    static Crowd crowd[WRITERS];
    memset(crowd, 0, sizeof crowd);
    CHECK_OK(c, journal_open_sized(c, str_z(test_dir()), 7, SMALL, &j));
    for (uint32_t i = 0; i < WRITERS; i++) {
        crowd[i].j = j;
        crowd[i].writer = i;
        if (i % 2 == 0) continue;
        crowd[i].loop = loop_new(c->os);
        journal_attach(j, crowd[i].loop);
        loop_post(crowd[i].loop, crowd_turn, &crowd[i]);
    }
    for (int i = 0; i < WRITERS; i++)
        thread_start(c->os, "crowd", i % 2 ? crowd_loop : crowd_thread, &crowd[i],
                     &crowd[i].thread);
    JournalPos pos = { 0 };
    Tally t = { 0 };
    bool good = true;
    while (good && t.records < WRITERS * EACH) {
        good = read_on(c, j, &pos, 50, &t);
        good = good && !journal_trim(c, j, pos) && !journal_flush(c, j);
    }
    for (int i = 0; i < WRITERS; i++) thread_join(crowd[i].thread);
    CHECK(good);
    CHECK_OK(c, journal_flush(c, j));
    JournalCounts counts = journal_counts(j);
    journal_close(j);
    for (int i = 0; i < WRITERS; i++) {
        CHECK_INT(t.next[i], EACH);
        CHECK_INT(atomic_load(&crowd[i].durable), EACH / 5);
        loop_free(crowd[i].loop);
    }
    CHECK_INT(counts.records, WRITERS * EACH);
    CHECK_INT(counts.reserved_bytes, 0);
    CHECK(counts.writes < counts.records);
}

TEST(job_journal_one_write_a_turn) {
    Ctx *c = real_ctx();
    Journal *j;
    Crowd w = { .number = 1 };
    CHECK_OK(c, journal_open(c, str_z(test_dir()), 1, &j));
    w.j = j;
    w.loop = loop_new(c->os);
    journal_attach(j, w.loop);
    w.number = EACH - 8; // one turn's work, then the loop stops
    loop_post(w.loop, crowd_turn, &w);
    loop_run(w.loop);
    JournalCounts counts = journal_counts(j); // before the thread's 10 ms could pass unnoticed
    CHECK_INT(counts.records, 8);
    CHECK(counts.writes <= 2); // the thread may come between, never a write for each record
    journal_close(j);
    loop_free(w.loop);
}

// ---- the death of the process

// In the child: each turn appends for ever, and first prints how far the turn before came, whose
// records are surely in the file.
static void child_turn(void *arg) {
    Crowd *w = arg;
    if (write(1, &w->number, sizeof w->number) != sizeof w->number) _exit(6);
    for (int i = 0; i < 5; i++, w->number++)
        if (put(w->j, w->number % 4 ? JOURNAL_A : JOURNAL_B, 0, w->number, w->number % 3000))
            _exit(4);
    loop_post(w->loop, child_turn, w);
}

static void child_append(const char *dir) {
    Ctx c;
    Crowd w = { 0 };
    ctx_init(&c, arena_new(), os_real());
    if (journal_open_sized(&c, str_z(dir), 1, SMALL, &w.j)) _exit(3);
    w.loop = loop_new(c.os);
    journal_attach(w.j, w.loop);
    loop_post(w.loop, child_turn, &w);
    loop_run(w.loop);
}

__attribute__((constructor)) static void journal_child(void) {
    const char *dir = getenv("LATHE_TEST_JOURNAL_DIR");
    if (dir) child_append(dir);
}

TEST(job_journal_kill_9_loses_nothing_written) {
    Ctx *c = real_ctx();
    const char *env[] = { arena_printf(c->mem, "LATHE_TEST_JOURNAL_DIR=%s", test_dir()).p, NULL };
    const char *argv[] = { arena_z(c->mem, os_program(c)), NULL };
    for (uint32_t round = 1; round <= 5; round++) {
        int fds[2];
        Process *p;
        ProcessExit how;
        uint32_t last = 0;
        CHECK(pipe(fds) == 0);
        ProcessSpec spec = { .argv = argv, .env = env, .in_fd = -1, .out_fd = fds[1], .err_fd = 2 };
        CHECK_OK(c, process_start(c, &spec, NULL, NULL, NULL, &p));
        close(fds[1]);
        while (last < 100 * round && read(fds[0], &last, sizeof last) == sizeof last) {}
        process_signal(p, SIGKILL);
        uint32_t more;
        while (read(fds[0], &more, sizeof more) == sizeof more) last = more;
        close(fds[0]);
        CHECK_OK(c, process_wait(c, p, 10000, &how));
        CHECK_INT(how.signal, SIGKILL);
        process_free(p);
        Journal *j;
        JournalPos pos = { 0 };
        Tally t = { 0 };
        CHECK_OK(c, journal_open_sized(c, str_z(test_dir()), 1, SMALL, &j));
        CHECK(read_on(c, j, &pos, 100, &t));
        CHECK(t.records >= last);
        CHECK_OK(c, journal_trim(c, j, journal_end(j)));
        journal_close(j);
        CHECK_OK(c, path_remove_tree(c, arena_printf(c->mem, "%s/journal", test_dir())));
    }
}

// What is there of a journal after segments were lost: a gap where a reader stood in one of them,
// and new numbers, so that nothing new passes for what was read.
TEST(job_journal_says_what_was_lost) {
    Ctx *c = real_ctx();
    Journal *j;
    JournalBatch b;
    JournalPos at[60];
    CHECK_OK(c, journal_open_sized(c, str_z(test_dir()), 1, 4096, &j));
    for (uint32_t i = 0; i < 60; i++) CHECK_ERR(put(j, JOURNAL_A, 0, i, 400), ERR_OK);
    CHECK_OK(c, journal_flush(c, j));
    JournalPos pos = { 0 };
    for (int i = 0; i < 60; i++) {
        CHECK_OK(c, journal_read(c, j, pos, 1, &b));
        at[i] = b.records[0].pos, pos = b.records[0].next;
    }
    journal_close(j);
    str lost = arena_printf(c->mem, "%s/journal/00000001-%016llx.log", test_dir(),
                            (unsigned long long)at[30].segment);
    CHECK_OK(c, path_remove(c, lost));
    CHECK_OK(c, journal_open_sized(c, str_z(test_dir()), 1, 4096, &j));
    CHECK_OK(c, journal_read(c, j, at[30], 1, &b));
    CHECK(b.n == 1 && b.records[0].pos.segment > at[30].segment);
    CHECK(b.gap == (at[30].offset > at[29].offset)); // at its begin nothing of it was read yet
    journal_close(j);
    CHECK_OK(c, path_remove_tree(c, arena_printf(c->mem, "%s/journal", test_dir())));
    CHECK_OK(c, journal_open_sized(c, str_z(test_dir()), 1, 4096, &j));
    CHECK_OK(c, journal_read(c, j, at[3], 60, &b));
    CHECK(b.n == 0);
    CHECK_ERR(put(j, JOURNAL_A, 0, 70, 400), ERR_OK);
    CHECK_OK(c, journal_flush(c, j));
    CHECK_OK(c, journal_read(c, j, at[3], 60, &b));
    CHECK(b.n == 1 && b.gap && b.records[0].kind == 70);
    journal_close(j);
}
