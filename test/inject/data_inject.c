// SPDX-License-Identifier: Apache-2.0
// data_inject.c - databases, objects and the journal: what was acknowledged is there, what was
// refused is not, and what nobody knows is one of the two.
#include "blob/blob.h"
#include "db/db_test.h"
#include "inject.h"
#include "job/journal.h"
#include <stdio.h>
#include <stdlib.h>

enum { WRITES = 4 };
static SQL(numbers_make, "CREATE TABLE numbers (n BIGINT PRIMARY KEY, note TEXT NOT NULL)");
static SQL(numbers_add, "INSERT INTO numbers (n, note) VALUES ($1, $2)");
static SQL(numbers_list, "SELECT n, note FROM numbers ORDER BY n");

static err make_numbers(Ctx *c, Tx *tx, void *arg) {
    (void)arg;
    return db_run(c, tx, &numbers_make);
}

static err add_number(Ctx *c, Tx *tx, void *arg) {
    int n = *(int *)arg;
    return db_run(c, tx, &numbers_add, V(n), V(say(c, "this is number %d", n)));
}

static err list_numbers(Ctx *c, Tx *tx, void *arg) {
    bool *there = arg, more;
    Rows *r;
    memset(there, 0, WRITES * sizeof *there);
    TRY(db_ask(c, tx, &r, &numbers_list));
    for (;;) {
        TRY(rows_next(c, r, &more));
        if (!more) return ERR_OK;
        int64_t n = col_int(r, 0);
        const char *note = say(c, "this is number %d", (int)n);
        if (n < 0 || n >= WRITES || !str_is(col_str(r, 1), note))
            return fail(c, ERR_INTERNAL, R_INTERNAL, "why", "a wrong row");
        there[n] = true;
    }
}

// What became of each write: -1 refused, 0 nobody knows, 1 acknowledged.
static bool fits(const int *told, const bool *there) {
    for (int i = 0; i < WRITES; i++)
        if (told[i] == (there[i] ? -1 : 1)) return false;
    return true;
}

static void write_some(Ctx *c, Db *db, int *told) {
    bool there[WRITES];
    for (int i = 0; i < WRITES; i++) {
        err e = db_tx(c, db, add_number, &i);
        CHECK_TOLERABLE(c, e);
        told[i] = !e ? 1 : c->failure.why == &R_DB_UNKNOWN ? 0 : -1;
        inject_promise((size_t)i, told[i] + 2);
        e = db_read(c, db, list_numbers, there);
        CHECK_TOLERABLE(c, e);
        int so_far[WRITES] = { 0 };
        memcpy(so_far, told, (size_t)(i + 1) * sizeof *told);
        if (!e) CHECK(fits(so_far, there));
    }
}

static str sqlite_url(Ctx *c) { return arena_printf(c->mem, "sqlite:%s/t.db", inject_dir()); }

static void check_numbers(Ctx *c, Db *db, const int *told) {
    bool there[WRITES];
    CHECK_OK(c, db_check(c, db));
    CHECK_OK(c, db_read(c, db, list_numbers, there));
    for (int i = 0; i < WRITES; i++)
        if (told[i] == (there[i] ? -1 : 1)) CHECK_INT(there[i] ? i : -i, told[i]);
}

INJECT_RECOVER(sqlite_commits) {
    Ctx *c = inject_ctx();
    DbConfig config = { .url = sqlite_url(c), .readers = 1 };
    int told[WRITES] = { -1, -1, -1, -1 };
    Db *db;
    CHECK_OK(c, db_open(c, &config, &db));
    CHECK_OK(c, db_tx(c, db, make_numbers, NULL));
    db_close(db);
    inject_on();
    err e = db_open(c, &config, &db);
    CHECK_TOLERABLE(c, e);
    if (!e) {
        write_some(c, db, told);
        db_close(db);
    }
    inject_off();
    CHECK_OK(c, db_open(c, &config, &db));
    check_numbers(c, db, told);
    for (int i = 0; i < WRITES; i++)
        if (told[i] < 0) CHECK_OK(c, db_tx(c, db, add_number, &i));
    db_close(db);
}
RECOVER(sqlite_commits) {
    Ctx *c = inject_ctx();
    DbConfig config = { .url = sqlite_url(c) };
    int told[WRITES];
    Db *db;
    for (size_t i = 0; i < WRITES; i++) told[i] = inject_promised(i) ? inject_promised(i) - 2 : 0;
    CHECK_OK(c, db_open(c, &config, &db));
    check_numbers(c, db, told);
    db_close(db);
}

static void postgres_commits(Fix *f) {
    Ctx *c = f->c;
    DbConfig config = { .url = f->url, .readers = 2 };
    int told[WRITES] = { -1, -1, -1, -1 };
    Db *db;
    CHECK_OK(c, db_tx(c, f->db, make_numbers, NULL));
    inject_on();
    err e = db_open(c, &config, &db);
    CHECK_TOLERABLE(c, e);
    if (!e) {
        write_some(c, db, told);
        inject_off();
        for (int i = 0; i < WRITES; i++)
            if (told[i] < 0) CHECK_COMES_BACK(c, db_tx(c, db, add_number, &i));
        for (int i = 0; i < WRITES; i++) told[i] = told[i] ? 1 : 0;
        db_close(db);
    }
    inject_off();
    check_numbers(c, f->db, told);
}
INJECT(postgres_commits) {
    if (getenv("LATHE_TEST_POSTGRES")) fix_run(DB_POSTGRES, postgres_commits);
}

// A database is migrated whole or not at all, and the next start goes on.
static const Migration steps[] = {
    { 1, "CREATE TABLE one (n BIGINT PRIMARY KEY); INSERT INTO one (n) VALUES (1)", NULL },
    { 2, "CREATE TABLE two (n BIGINT); INSERT INTO two (n) SELECT n FROM one; DROP TABLE one",
      NULL },
};
INJECT(migrations_go_on) {
    Ctx *c = inject_ctx();
    DbConfig config = { .url = sqlite_url(c), .readers = 1 };
    Db *db;
    Column *columns;
    size_t n;
    inject_on();
    err e = db_open(c, &config, &db);
    CHECK_TOLERABLE(c, e);
    if (!e) {
        CHECK_TOLERABLE(c, db_migrate(c, db, "toy", steps, countof(steps)));
        db_close(db);
    }
    inject_off();
    CHECK_OK(c, db_open(c, &config, &db));
    CHECK_OK(c, db_migrate(c, db, "toy", steps, countof(steps)));
    CHECK_OK(c, db_columns(c, db, "two", &columns, &n));
    CHECK_INT(n, 1);
    CHECK_OK(c, db_columns(c, db, "one", &columns, &n));
    CHECK_INT(n, 0);
    db_close(db);
}

// --- objects

static err put(Ctx *c, Blobs *b, str name, str bytes, char hex[BLOB_DIGEST_HEX + 1]) {
    BlobWriter *w;
    int64_t size;
    TRY(blob_stage(c, b, name, &w));
    str rest = str_sub(bytes, (size_t)blob_staged(w), bytes.n);
    err e = blob_append(c, w, str_sub(rest, 0, rest.n / 2));
    if (!e) e = blob_sync(c, w);
    if (!e) e = blob_append(c, w, str_sub(rest, rest.n / 2, rest.n));
    if (!e) return blob_commit(c, w, (str){ 0 }, hex, &size);
    blob_pause(w);
    return e;
}

static str pattern(Ctx *c, size_t n) {
    char *p = arena_alloc_raw(c->mem, n);
    for (size_t i = 0; i < n; i++) p[i] = (char)(i * 31 + i / 253);
    return str_n(p, n);
}

INJECT_RECOVER(objects_kept) {
    Ctx *c = inject_ctx();
    Blobs *b;
    char hex[BLOB_DIGEST_HEX + 1], want[BLOB_DIGEST_HEX + 1];
    str bytes = pattern(c, 70000);
    sha256_hex(bytes, want);
    inject_on();
    err e = blobs_open(c, str_z(inject_dir()), &b);
    CHECK_TOLERABLE(c, e);
    err kept = ERR_INTERNAL;
    if (!e) {
        kept = put(c, b, S("import_1"), bytes, hex);
        CHECK_TOLERABLE(c, kept);
        if (!kept) {
            inject_promise(0, 1);
            CHECK(str_is(str_z(hex), want));
            CHECK_TOLERABLE(c, blob_verify(c, b, str_z(want)));
        }
    }
    inject_off();
    if (e) CHECK_OK(c, blobs_open(c, str_z(inject_dir()), &b));
    if (!kept) CHECK_OK(c, blob_verify(c, b, str_z(want)));
    CHECK_OK(c, put(c, b, S("import_1"), bytes, hex)); // goes on where it was
    CHECK(str_is(str_z(hex), want));
    CHECK_OK(c, blob_verify(c, b, str_z(want)));
    str *names;
    size_t n;
    CHECK_OK(c, dir_list(c, arena_printf(c->mem, "%s/staging", inject_dir()), &names, &n));
    CHECK_INT(n, 0);
    blobs_close(b);
}
RECOVER(objects_kept) {
    Ctx *c = inject_ctx();
    Blobs *b;
    char hex[BLOB_DIGEST_HEX + 1], want[BLOB_DIGEST_HEX + 1];
    str bytes = pattern(c, 70000);
    sha256_hex(bytes, want);
    CHECK_OK(c, blobs_open(c, str_z(inject_dir()), &b));
    if (inject_promised(0)) CHECK_OK(c, blob_verify(c, b, str_z(want)));
    CHECK_OK(c, put(c, b, S("import_1"), bytes, hex));
    CHECK(str_is(str_z(hex), want));
    CHECK_OK(c, blob_verify(c, b, str_z(want)));
    blobs_close(b);
}

// --- the journal: records 0, 1, 2, …; those that were said to be durable are promised

enum { RECORDS = 24 };
typedef struct Written {
    pthread_mutex_t lock;
    pthread_cond_t moved;
    int waits;
} Written;
typedef struct One {
    Written *all;
    int n;
} One;

static void on_durable(void *arg, err e) {
    One *one = arg;
    if (!e) inject_promise((size_t)one->n, 1);
    pthread_mutex_lock(&one->all->lock);
    one->all->waits--;
    pthread_cond_broadcast(&one->all->moved);
    pthread_mutex_unlock(&one->all->lock);
}

static str record(Ctx *c, int n) { return arena_printf(c->mem, "%03d %0800d", n, n); }

static void append_all(Ctx *c, Journal *j, Written *w, One *ones) {
    int flushed = 0;
    bool taken[RECORDS];
    for (int i = 0; i < RECORDS; i++) {
        ones[i] = (One){ w, i };
        bool b = i % 3 == 0;
        pthread_mutex_lock(&w->lock);
        w->waits += b;
        pthread_mutex_unlock(&w->lock);
        JournalEntry entry = { b ? JOURNAL_B : JOURNAL_A, (uint16_t)(i + 1), record(c, i), 0,
                               b ? on_durable : NULL,     &ones[i] };
        taken[i] = !journal_append(j, &entry);
        pthread_mutex_lock(&w->lock);
        if (!taken[i] && b) w->waits--; // while others are told
        pthread_mutex_unlock(&w->lock);
        if (i % 8 < 7) continue;
        err e = journal_flush(c, j);
        CHECK_TOLERABLE(c, e);
        for (int k = flushed; !e && k <= i; k++)
            if (k % 3 && taken[k]) inject_promise((size_t)k, 2);
        flushed = i + 1;
    }
    pthread_mutex_lock(&w->lock);
    while (w->waits) pthread_cond_wait(&w->moved, &w->lock);
    pthread_mutex_unlock(&w->lock);
}

// Of records appended without an error in between, those promised are there, once, in order.
static void check_records(Ctx *c, Journal *j) {
    bool there[RECORDS] = { 0 };
    int before = -1;
    JournalPos at = { 0 };
    for (;;) {
        JournalBatch batch;
        CHECK_OK(c, journal_read(c, j, at, 100, &batch));
        if (!batch.n) break;
        for (size_t i = 0; i < batch.n; i++) {
            int n = batch.records[i].kind - 1;
            CHECK(n > before && n < RECORDS && str_eq(batch.records[i].bytes, record(c, n)));
            before = n;
            there[n] = true;
            at = batch.records[i].next;
        }
    }
    for (int i = 0; i < RECORDS; i++)
        if (inject_promised((size_t)i)) CHECK_INT(there[i] ? i : -1, i);
}

INJECT_RECOVER(journal_kept) {
    Ctx *c = inject_ctx();
    Written w = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0 };
    One ones[RECORDS];
    Journal *j;
    inject_on();
    err e = journal_open_sized(c, str_z(inject_dir()), 7, 8192, &j);
    CHECK_TOLERABLE(c, e);
    if (!e) {
        append_all(c, j, &w, ones);
        journal_close(j);
    }
    inject_off();
    CHECK_OK(c, journal_open_sized(c, str_z(inject_dir()), 7, 8192, &j));
    check_records(c, j);
    JournalEntry more = { JOURNAL_B, RECORDS, record(c, RECORDS - 1), 0, NULL, NULL };
    CHECK_INT(journal_append(j, &more), ERR_OK);
    CHECK_OK(c, journal_flush(c, j));
    journal_close(j);
}
RECOVER(journal_kept) {
    Ctx *c = inject_ctx();
    Journal *j;
    CHECK_OK(c, journal_open_sized(c, str_z(inject_dir()), 7, 8192, &j));
    check_records(c, j);
    journal_close(j);
}
