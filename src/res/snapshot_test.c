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
    Notes *notes = new (mem, Notes, 1);
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

static bool behind_now(void) {
    const Snapshot *s = snapshot_take();
    bool behind = snapshot_behind(s);
    snapshot_give(s);
    return behind;
}

TOY_TEST(snapshot_that_does_not_compile_changes_nothing) {
    int64_t before, after;
    CHECK_OK(f->c, note(f, "a"));
    CHECK_OK(f->c, start(f));
    count_now(&before);
    CHECK(!behind_now());
    CHECK_OK(f->c, note(f, "bad"));
    CHECK_ERR(snapshot_sync(f->c), ERR_INVALID);
    CHECK_INT(count_now(&after), 1);
    CHECK_INT(after, before);
    CHECK(behind_now());
    CHECK_OK(f->c, note(f, "good"));
    CHECK_ERR(snapshot_sync(f->c), ERR_INVALID);
    CHECK(behind_now()); // until all of it can be read
    snapshot_stop(&f->app);
}

// Whoever may not wait for what he committed has not been shown it; the next look shows it.
TOY_TEST(snapshot_is_behind_until_what_was_committed_is_shown) {
    CHECK_OK(f->c, start(f));
    const Snapshot *old = snapshot_take();
    CHECK(!snapshot_behind(old));
    CHECK_OK(f->c, note(f, "one"));
    CHECK_OK(f->c, snapshot_sync(f->c));
    CHECK(snapshot_behind(old)); // it is another's by now
    snapshot_give(old);
    CHECK(!behind_now());
    Ctx *hasty = app_ctx_new(&f->app);
    ctx_cancel(hasty);
    CHECK_OK(f->c, note(f, "two"));
    err e = snapshot_sync(hasty);
    app_ctx_free(hasty);
    int64_t number;
    CHECK(e == ERR_CANCELLED && (behind_now() || count_now(&number) == 2));
    CHECK_OK(f->c, snapshot_sync(f->c));
    CHECK(!behind_now());
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
    CHECK(behind_now());
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

// ---- a part that says what changed

static int whole_readings, changed_rows;
static err told_query(Ctx *c, Tx *tx, Json *out) {
    whole_readings++;
    return notes_query(c, tx, out);
}
static err told_changes(Ctx *c, Tx *tx, const SnapshotChange *at, size_t n, Json *out,
                        bool *out_whole) {
    (void)c, (void)tx;
    json_arr(out);
    for (size_t i = 0; i < n; i++, changed_rows++) {
        *out_whole |= str_is(at[i].id, "whole");
        if (str_is(at[i].kind, "note")) json_put_str(out, at[i].id);
    }
    json_end_arr(out);
    return ERR_OK;
}
static err told_apply(Ctx *c, Arena *mem, const void *before, yyjson_val *in, void **out) {
    Notes *notes = new (mem, Notes, 1);
    *notes = *(const Notes *)before;
    notes->n += yyjson_arr_size(in), notes->last = S("shared");
    *out = notes;
    (void)c;
    return ERR_OK;
}
static err told_compile(Ctx *c, Arena *mem, yyjson_val *in, void **out) {
    TRY(notes_compile(c, mem, in, out));
    ((Notes *)*out)->last = S("whole");
    return ERR_OK;
}
static const SnapshotPart told = { "told", told_query, told_compile, told_changes, told_apply };

static err tell_tx(Ctx *c, Tx *tx, void *arg) {
    TRY(note_tx(c, tx, arg));
    return snapshot_changed(c, tx, "note", str_z(arg));
}
static err tell(ToyFix *f, const char *id) {
    TRY(db_tx(f->c, f->app.db, tell_tx, (void *)(uintptr_t)id));
    return snapshot_sync(f->c);
}
static size_t told_now(const char *how) {
    const Snapshot *s = snapshot_take();
    const Notes *notes = snapshot_get(s, &told);
    size_t n = str_is(notes->last, how) ? notes->n : 0;
    snapshot_give(s);
    return n;
}
static err start_told(ToyFix *f) {
    whole_readings = changed_rows = 0;
    f->app.data_dir = str_z(test_dir());
    snapshot_part(&part), snapshot_part(&told);
    return snapshot_start(f->c);
}
static PathInfo on_disk(ToyFix *f, const char *name) {
    PathInfo info = { 0 };
    if (path_info(f->c, str_z(say(f->c, "%s/%s", test_dir(), name)), &info)) info.size = -1;
    return info;
}

TOY_TEST(snapshot_reads_what_changed_and_no_more) {
    int64_t number;
    CHECK_OK(f->c, start_told(f));
    int64_t base = on_disk(f, "snapshot.json").size;
    for (int i = 1; i <= 30; i++) {
        CHECK_OK(f->c, tell(f, say(f->c, "n%02d", i)));
        CHECK_INT(told_now("shared"), i);
        CHECK_INT(count_now(&number), i);                     // the other part is read whole
        if (f->kind == DB_SQLITE) CHECK_INT(changed_rows, i); // PostgreSQL may tell of one twice
    }
    CHECK_INT(whole_readings, 1);
    CHECK_INT(on_disk(f, "snapshot.json").size, base); // a change costs a line, not all of it
    CHECK(on_disk(f, "snapshot.log").size > 0);
    CHECK_INT(on_disk(f, "snapshot.log").mode & 0777, 0600);
    CHECK_OK(f->c, tell(f, "whole")); // the part asks for it
    CHECK_INT(told_now("whole"), 31);
    CHECK_INT(whole_readings, 2);
    CHECK(on_disk(f, "snapshot.json").size > base);
    CHECK_INT(on_disk(f, "snapshot.log").size, 0);
    snapshot_stop(&f->app);
}

TOY_TEST(snapshot_and_its_log_serve_a_start_without_sql) {
    int64_t number, again;
    CHECK_OK(f->c, start_told(f));
    for (int i = 0; i < 5; i++) CHECK_OK(f->c, tell(f, say(f->c, "n%d", i)));
    count_now(&number);
    snapshot_stop(&f->app);
    str log_path = str_z(say(f->c, "%s/snapshot.log", test_dir())), log;
    CHECK_OK(f->c, file_read_all(f->c, log_path, 1 << 20, &log));
    db_faults(f->app.db, &(DbFaults){ .away = 1000000 });
    CHECK_OK(f->c, start_told(f));
    CHECK_INT(told_now("shared"), 5);
    CHECK_INT(count_now(&again), 5);
    CHECK_INT(again, number);
    snapshot_stop(&f->app);
    // A torn end: what was whole counts.
    CHECK_OK(f->c, file_write_all(f->c, log_path, str_sub(log, 0, log.n - 3), FILE_PRIVATE));
    CHECK_OK(f->c, start_told(f));
    CHECK_INT(told_now("shared"), 4);
    snapshot_stop(&f->app);
    db_faults(f->app.db, &(DbFaults){ 0 });
    CHECK_OK(f->c, start_told(f)); // the log of another base says nothing
    CHECK_INT(told_now("whole"), 5);
    snapshot_stop(&f->app);
}

// ---- how far the copy is to be trusted

static err kept_text(ToyFix *f, const char *name, str *out) {
    return file_read_all(f->c, str_z(say(f->c, "%s/%s", test_dir(), name)), 1 << 20, out);
}
static err keep_text(ToyFix *f, const char *name, str text) {
    return file_write_all(f->c, str_z(say(f->c, "%s/%s", test_dir(), name)), text, 0);
}
static err flip(ToyFix *f, const char *name, size_t at) {
    str text;
    TRY(kept_text(f, name, &text));
    char *bytes = arena_alloc_raw(f->c->mem, text.n);
    memcpy(bytes, text.p, text.n);
    bytes[at % text.n] ^= 1;
    return keep_text(f, name, str_n(bytes, text.n));
}
static int64_t age_now(void) {
    const Snapshot *s = snapshot_take();
    int64_t ms = snapshot_age_ms(s);
    snapshot_give(s);
    return ms;
}

TOY_TEST(snapshot_on_disk_that_rotted_is_not_gone_by) {
    CHECK_OK(f->c, note(f, "one"));
    CHECK_OK(f->c, start(f));
    snapshot_stop(&f->app);
    db_faults(f->app.db, &(DbFaults){ .away = 1000000 });
    str whole;
    CHECK_OK(f->c, kept_text(f, "snapshot.json", &whole));
    for (size_t at = 8; at < whole.n; at += 3) {
        CHECK_OK(f->c, flip(f, "snapshot.json", at));
        CHECK(start(f) != ERR_OK);
        snapshot_stop(&f->app);
        CHECK_OK(f->c, keep_text(f, "snapshot.json", whole));
    }
    CHECK_OK(f->c, start(f));
    snapshot_stop(&f->app);
}

TOY_TEST(snapshot_line_that_rotted_ends_the_log) {
    int64_t number;
    CHECK_OK(f->c, start_told(f));
    for (int i = 0; i < 3; i++) CHECK_OK(f->c, tell(f, say(f->c, "n%d", i)));
    snapshot_stop(&f->app);
    db_faults(f->app.db, &(DbFaults){ .away = 1000000 });
    str log;
    CHECK_OK(f->c, kept_text(f, "snapshot.log", &log));
    size_t line = (size_t)str_find_char(log, '\n') + 1;
    CHECK_OK(f->c, flip(f, "snapshot.log", line + 40));
    CHECK_OK(f->c, start_told(f));
    CHECK_INT(told_now("shared"), 1);
    CHECK_INT(count_now(&number), 1);
    snapshot_stop(&f->app);
}

// Nobody knows when a copy of an older release was true; one of ours says it, and a later look too.
TOY_TEST(snapshot_on_disk_is_as_old_as_it_was) {
    enum { HOUR_MS = 3600000 };
    CHECK_OK(f->c, start(f));
    snapshot_stop(&f->app);
    db_faults(f->app.db, &(DbFaults){ .away = 1000000 });
    CHECK_OK(f->c, start(f));
    CHECK(age_now() < HOUR_MS / 2);
    snapshot_stop(&f->app);
    str text, rest;
    CHECK_OK(f->c, kept_text(f, "snapshot.json", &text));
    ptrdiff_t at = str_find(text, S("\"number\""));
    CHECK(at > 0);
    rest = str_sub(text, (size_t)at, text.n);
    CHECK_OK(f->c, path_remove_tree(f->c, str_z(say(f->c, "%s/snapshot.true", test_dir()))));
    CHECK_OK(f->c,
             keep_text(f, "snapshot.json", arena_printf(f->c->mem, "{" STR_FMT, STR_ARG(rest))));
    CHECK_OK(f->c, start(f));
    CHECK(age_now() > INT64_C(1000) * HOUR_MS);
    snapshot_stop(&f->app);
    int64_t now_ms = os_wall_ms(f->c->os);
    CHECK_OK(f->c, keep_text(f, "snapshot.json",
                             arena_printf(f->c->mem, "{\"at_ms\":%lld," STR_FMT,
                                          (long long)now_ms - HOUR_MS, STR_ARG(rest))));
    CHECK_OK(f->c, start(f));
    CHECK(age_now() >= HOUR_MS && age_now() < 2 * HOUR_MS);
    snapshot_stop(&f->app);
    CHECK_OK(f->c, keep_text(f, "snapshot.true",
                             arena_printf(f->c->mem, "%019lld\n", (long long)now_ms)));
    CHECK_OK(f->c, start(f));
    CHECK(age_now() < HOUR_MS / 2);
    snapshot_stop(&f->app);
}
