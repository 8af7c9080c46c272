// SPDX-License-Identifier: Apache-2.0
// snapshot_test.c - one picture for all readers: what was committed before a sync is in it, one
// that is held stays as it was, what does not compile changes nothing, and a start without SQL
// serves the last one from disk.
#include "os/file.h"
#include "res/snapshot.h"
#include "res/toy_test.h"

static err notes_query(Ctx *c, Tx *tx, Json *out) {
    static SQL(all_notes, "SELECT subject FROM toy_note ORDER BY subject");
    Rows *rows;
    bool more;
    TRY(db_query(c, tx, &all_notes, NULL, 0, &rows));
    json_arr(out);
    for (;;) {
        TRY(rows_next(c, rows, &more));
        if (!more) break;
        json_put_str(out, col_str(rows, 0));
    }
    json_end_arr(out);
    return ERR_OK;
}

typedef struct Notes {
    size_t n;
    str last;
} Notes;
static err notes_compile(Ctx *c, Arena *mem, yyjson_val *in, void **out) {
    Notes *notes = new(mem, Notes, 1);
    size_t i, n;
    yyjson_val *v;
    yyjson_arr_foreach(in, i, n, v) {
        notes->n++, notes->last = json_str(v);
        if (str_is(notes->last, "bad")) return fail(c, ERR_INVALID, R_INTERNAL, "why", "a test");
    }
    *out = notes;
    return ERR_OK;
}
static const SnapshotPart part = { "notes", notes_query, notes_compile };

static err note_tx(Ctx *c, Tx *tx, void *arg) {
    static SQL(snapshot_note, "INSERT INTO toy_note (verb, subject) VALUES ('note', $1)");
    return db_run(c, tx, &snapshot_note, V((const char *)arg));
}
static err note(ToyFix *f, const char *text) {
    return db_tx(f->c, f->app.db, note_tx, (void *)(uintptr_t)text);
}

static err start(ToyFix *f) {
    f->app.data_dir = str_z(test_dir());
    snapshot_part(&part);
    return snapshot_start(f->c);
}

static size_t count_now(int64_t *out_number) {
    const Snapshot *s = snapshot_take();
    size_t n = ((const Notes *)snapshot_get(s, &part))->n;
    *out_number = snapshot_number(s);
    snapshot_give(s);
    return n;
}

TOY_TEST(snapshot_holds_what_was_committed_before_a_sync) {
    int64_t first, number, again;
    CHECK_OK(f->c, start(f));
    CHECK_INT(count_now(&first), 0);
    for (int i = 1; i <= 20; i++) {
        CHECK_OK(f->c, note(f, say(f->c, "n%02d", i)));
        CHECK_OK(f->c, snapshot_sync(f->c));
        CHECK_INT(count_now(&number), i);
        CHECK(number > first);
    }
    CHECK_OK(f->c, snapshot_sync(f->c)); // nothing has changed: the same one stays
    CHECK_INT(count_now(&again), 20);
    CHECK_INT(again, number);
    snapshot_stop(&f->app);
}

TOY_TEST(snapshot_that_is_held_stays_as_it_was) {
    CHECK_OK(f->c, note(f, "one"));
    CHECK_OK(f->c, start(f));
    const Snapshot *old = snapshot_take();
    const Notes *notes = snapshot_get(old, &part);
    CHECK_OK(f->c, note(f, "two"));
    CHECK_OK(f->c, snapshot_sync(f->c));
    CHECK_INT(notes->n, 1);
    CHECK_STR(notes->last, "one");
    snapshot_stop(&f->app); // even after the end
    CHECK_STR(notes->last, "one");
    snapshot_give(old);
}

TOY_TEST(snapshot_that_does_not_compile_changes_nothing) {
    int64_t before, after;
    CHECK_OK(f->c, note(f, "a"));
    CHECK_OK(f->c, start(f));
    count_now(&before);
    CHECK_OK(f->c, note(f, "bad"));
    CHECK_ERR(snapshot_sync(f->c), ERR_INVALID);
    CHECK_INT(count_now(&after), 1);
    CHECK_INT(after, before);
    snapshot_stop(&f->app);
}

TOY_TEST(snapshot_on_disk_serves_a_start_without_sql) {
    int64_t number, again;
    PathInfo info;
    CHECK_OK(f->c, note(f, "kept"));
    CHECK_OK(f->c, start(f));
    CHECK_OK(f->c, note(f, "too"));
    CHECK_OK(f->c, snapshot_sync(f->c));
    CHECK_INT(count_now(&number), 2);
    snapshot_stop(&f->app);
    CHECK_OK(f->c, path_info(f->c, str_z(say(f->c, "%s/snapshot.json", test_dir())), &info));
    CHECK_INT(info.mode & 0777, 0600); // hashes of keys lie in it
    db_faults(f->app.db, &(DbFaults){ .away = 1000000 });
    CHECK_OK(f->c, start(f));
    CHECK_INT(count_now(&again), 2);
    CHECK_INT(again, number);
    CHECK_ERR(snapshot_sync(f->c), ERR_UNAVAILABLE);
    snapshot_stop(&f->app);
    db_faults(f->app.db, &(DbFaults){ 0 });
}

TOY_TEST(snapshot_without_sql_and_disk_is_no_start) {
    f->app.data_dir = str_z(test_dir());
    snapshot_part(&part);
    db_faults(f->app.db, &(DbFaults){ .away = 1000000 });
    CHECK(snapshot_start(f->c) != ERR_OK);
    snapshot_stop(&f->app);
    db_faults(f->app.db, &(DbFaults){ 0 });
}

static atomic_int swaps;
static void count_swap(void *arg) {
    (void)arg;
    atomic_fetch_add(&swaps, 1);
}

typedef struct Reader {
    atomic_bool *stop;
    int wrong;
} Reader;
static void read_on(void *arg) {
    Reader *r = arg;
    size_t most = 0;
    int64_t newest = 0;
    while (!atomic_load(r->stop)) {
        const Snapshot *s = snapshot_take();
        const Notes *notes = snapshot_get(s, &part);
        if (notes->n < most || snapshot_number(s) < newest) r->wrong++; // time goes one way
        if (notes->n && notes->last.n != 3) r->wrong++;
        most = notes->n, newest = snapshot_number(s);
        snapshot_give(s);
    }
}

TOY_TEST(snapshot_swaps_under_readers) {
    atomic_bool stop = false;
    Reader readers[3] = { 0 };
    Thread threads[3];
    atomic_store(&swaps, 0);
    snapshot_on_swap(count_swap, NULL);
    CHECK_OK(f->c, start(f));
    for (int i = 0; i < 3; i++) {
        readers[i].stop = &stop;
        thread_start(f->c->os, "reader", read_on, &readers[i], &threads[i]);
    }
    err e = ERR_OK;
    for (int i = 0; i < 25 && !e; i++) {
        e = note(f, say(f->c, "n%02d", i));
        if (!e) e = snapshot_sync(f->c);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < 3; i++) thread_join(threads[i]);
    snapshot_stop(&f->app);
    CHECK_OK(f->c, e);
    for (int i = 0; i < 3; i++) CHECK_INT(readers[i].wrong, 0);
    CHECK_INT(atomic_load(&swaps), 26);
}
