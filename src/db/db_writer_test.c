// SPDX-License-Identifier: Apache-2.0
// db_writer_test.c - SQLite's group commit and what it survives: neighbours that take the group
// down, callers that leave, kill -9, a full disk. Threads: the test's; processes of its own, by
// fork, for what would end this one.
#include "db/db_test.h"
#include "db/sqlite_impl.h"
#include <assert.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char table[] = "CREATE TABLE entry (id INTEGER NOT NULL, body BLOB, PRIMARY KEY (id))"
                            " STRICT";
static SQL(entry_add, "INSERT INTO entry (id, body) VALUES ($1, $2)");
static SQL(entry_has, "SELECT count(*) FROM entry WHERE id = $1");
static SQL(entries_drop, "DELETE FROM entry");
static SQL(endless, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
                    " INSERT INTO entry (id) SELECT 1000000 + i FROM n");

typedef struct Entry {
    int64_t id;
    size_t size;
} Entry;

static err add_entry(Ctx *c, Tx *tx, void *arg) {
    const Entry *e = arg;
    char *body = arena_alloc(c->mem, e->size + 1, 1);
    return db_run(c, tx, &entry_add, V(e->id), val_blob(str_n(body, e->size)));
}

static err has_entry(Ctx *c, Tx *tx, void *arg) {
    Entry *e = arg;
    Rows *r;
    TRY(db_one(c, tx, &r, &entry_has, (const Val[]){ V(e->id) }, 1));
    e->size = (size_t)col_int(r, 0);
    return ERR_OK;
}

static err drop_entries(Ctx *c, Tx *tx, void *arg) {
    (void)arg;
    return db_run(c, tx, &entries_drop);
}

static Writer *writer_of(Fix *f) { return &((SqliteDb *)f->db)->writer; }

static void await_queue(Fix *f, int n) {
    Writer *w = writer_of(f);
    for (int found = -1; found < n;) {
        sched_yield();
        pthread_mutex_lock(&w->lock);
        found = 0;
        for (Req *r = w->head; r; r = r->next) found++;
        pthread_mutex_unlock(&w->lock);
    }
}

// ---- one that holds the writer until the others wait behind it

typedef struct Member {
    struct Hold *hold;
    err (*fn)(Ctx *c, Tx *tx, void *arg);
    int64_t id;
    Ctx *c;
    err result;
    atomic_int runs;
    int64_t took_ns;
    Thread thread;
} Member;

typedef struct Hold {
    Fix *f;
    atomic_bool held, release;
    Member members[8];
    int n;
} Hold;

static err hold_writer(Ctx *c, Tx *tx, void *arg) {
    Member *m = arg;
    (void)c, (void)tx;
    atomic_store(&m->hold->held, true);
    while (!atomic_load(&m->hold->release)) sched_yield();
    return ERR_OK;
}

static err add_own(Ctx *c, Tx *tx, void *arg) {
    Member *m = arg;
    m->runs++;
    return add_entry(c, tx, &(Entry){ m->id, 10 });
}

// Adds its row, then writes without end: its deadline interrupts it, and SQLite rolls all back.
static err add_endless(Ctx *c, Tx *tx, void *arg) {
    TRY(add_own(c, tx, arg));
    c->deadline_ns = os_mono_ns(c->os) + 20 * INT64_C(1000000);
    return db_exec(c, tx, &endless, NULL, 0, NULL);
}

static void member_main(void *arg) {
    Member *m = arg;
    int64_t begun = os_mono_ns(os_real());
    m->result = db_tx(m->c, m->hold->f->db, m->fn, m);
    m->took_ns = os_mono_ns(os_real()) - begun;
}

// Starts a member that is queued behind the ones before.
static Member *start_member(Hold *h, err (*fn)(Ctx *, Tx *, void *)) {
    Member *m = &h->members[h->n];
    m->hold = h;
    m->fn = fn;
    m->id = h->n;
    m->c = suite_ctx(NULL);
    thread_start(os_real(), "db-test", member_main, m, &m->thread);
    if (h->n) await_queue(h->f, h->n);
    else
        while (!atomic_load(&h->held)) sched_yield();
    h->n++;
    return m;
}

static void release(Hold *h) {
    atomic_store(&h->release, true);
    for (int i = 0; i < h->n; i++) thread_join(h->members[i].thread);
}

static void hold_done(Hold *h) {
    for (int i = 0; i < h->n; i++) suite_ctx_free(h->members[i].c);
}

DB_TEST_SQLITE(waiting_ones_share_one_commit) {
    Hold h = { .f = f };
    CHECK_OK(f->c, fix_script(f, table));
    DbCounts before = db_counts(f->db);
    start_member(&h, hold_writer);
    for (int i = 0; i < 5; i++) start_member(&h, add_own);
    release(&h);
    for (int i = 0; i < h.n; i++) CHECK_OK(h.members[i].c, h.members[i].result);
    DbCounts after = db_counts(f->db);
    CHECK_INT(after.transactions - before.transactions, 6);
    // The holder's time is up when it returns, so its neighbours make a group of their own.
    CHECK(after.commits - before.commits <= 2);
    CHECK(after.waits_ns > before.waits_ns);
    CHECK_SQL(f, "SELECT count(*) FROM entry", 5);
    hold_done(&h);
}

// Whether the first was in the group that went down: it closes after 5 ms, so on a machine that is
// slow just then the first may have been committed by itself.
static void lose_group(Fix *f, bool *out_shared) {
    Hold h = { .f = f };
    CHECK_OK(f->c, fix_script(f, "DELETE FROM entry"));
    int64_t retries = db_counts(f->db).retries;
    start_member(&h, hold_writer);
    Member *early = start_member(&h, add_own), *bad = start_member(&h, add_endless),
           *late = start_member(&h, add_own);
    release(&h);
    CHECK_OK(early->c, early->result);
    CHECK_OK(late->c, late->result);
    CHECK_ERR(bad->result, ERR_TIMEOUT);
    CHECK(bad->c->failure.why == &R_DEADLINE);
    *out_shared = early->runs == 2;
    CHECK_INT(early->runs, *out_shared ? 2 : 1);
    CHECK_INT(bad->runs, 1);
    CHECK_INT(late->runs, 1);
    CHECK_SQL(f, "SELECT count(*) FROM entry", 2);
    CHECK_SQL(f, "SELECT count(*) FROM entry WHERE id = 2", 0);
    CHECK(!*out_shared || db_counts(f->db).retries > retries);
    hold_done(&h);
}

DB_TEST_SQLITE(one_that_takes_the_group_down_goes_alone) {
    bool shared = false;
    CHECK_OK(f->c, fix_script(f, table));
    for (int i = 0; i < 50 && !shared; i++) lose_group(f, &shared);
    CHECK(shared);
}

DB_TEST_SQLITE(a_waiting_caller_may_leave) {
    Hold h = { .f = f };
    CHECK_OK(f->c, fix_script(f, table));
    start_member(&h, hold_writer);
    Member *leaver = start_member(&h, add_own), *stayer = start_member(&h, add_own);
    int64_t begun = os_mono_ns(os_real());
    ctx_cancel(leaver->c);
    thread_join(leaver->thread); // while the writer is still held
    CHECK(os_mono_ns(os_real()) - begun < test_longer(1000 * INT64_C(1000000))); // not by busy_ms
    CHECK_ERR(leaver->result, ERR_CANCELLED);
    atomic_store(&h.release, true);
    thread_join(stayer->thread);
    thread_join(h.members[0].thread);
    CHECK_OK(stayer->c, stayer->result);
    CHECK_INT(leaver->runs, 0);
    CHECK_SQL(f, "SELECT count(*) FROM entry", 1);
    hold_done(&h);
}

DB_TEST_SQLITE(nobody_waits_longer_than_asked) {
    const DbConfig config = { .url = f->url, .busy_ms = 60 };
    Db *first;
    CHECK_OK(f->c, fix_script(f, table));
    db_close(f->db);
    CHECK_OK(f->c, db_open(f->c, &config, &first));
    CHECK_OK(f->c, db_open(f->c, &config, &f->db));
    Hold h = { .f = f };
    start_member(&h, hold_writer);
    Member *waiter = start_member(&h, add_own);
    thread_join(waiter->thread);
    CHECK_ERR(waiter->result, ERR_UNAVAILABLE);
    CHECK(waiter->c->failure.why == &R_DB_BUSY && waiter->c->failure.retry_after_ms > 0);
    CHECK(waiter->took_ns >= 60 * INT64_C(1000000));
    // Another process's lock counts as well: here, another Db on the same file.
    Fix other = { .c = suite_ctx(NULL), .db = first };
    CHECK_ERR(db_tx(other.c, first, add_entry, &(Entry){ 1, 1 }), ERR_UNAVAILABLE);
    CHECK(other.c->failure.why == &R_DB_BUSY);
    atomic_store(&h.release, true);
    thread_join(h.members[0].thread);
    CHECK_OK(f->c, db_tx(f->c, first, add_entry, &(Entry){ 1, 1 }));
    db_close(first);
    suite_ctx_free(other.c);
    hold_done(&h);
}

DB_TEST_SQLITE(files_are_private) {
    static const char *const ends[] = { "", "-wal", "-shm" };
    CHECK_OK(f->c, fix_script(f, table));
    for (size_t i = 0; i < countof(ends); i++) {
        struct stat st;
        CHECK(!stat(say(f->c, "%s%s", f->url.p + 7, ends[i]), &st));
        CHECK_INT(st.st_mode & 0777, 0600);
    }
}

// A reader that stays keeps the log from starting over; when it is gone the log is cut back.
typedef struct Stay {
    Fix *f;
    int64_t log_bytes;
} Stay;

static int64_t log_bytes(Fix *f) {
    struct stat st;
    return stat(say(f->c, "%s-wal", f->url.p + 7), &st) ? -1 : st.st_size;
}

static void write_much(void *arg) {
    Stay *s = arg;
    Ctx *c = suite_ctx(NULL);
    for (int64_t i = 0; i < 40; i++)
        if (db_tx(c, s->f->db, add_entry, &(Entry){ 100 + i, 200000 })) break;
    s->log_bytes = log_bytes(s->f);
    suite_ctx_free(c);
}

static err stay(Ctx *c, Tx *tx, void *arg) {
    Thread t;
    TRY(has_entry(c, tx, &(Entry){ 1, 0 }));
    thread_start(c->os, "db-test", write_much, arg, &t);
    thread_join(t);
    return ERR_OK;
}

DB_TEST_SQLITE(the_log_does_not_grow_for_ever) {
    Stay s = { .f = f };
    CHECK_OK(f->c, fix_script(f, table));
    CHECK_OK(f->c, db_read(f->c, f->db, stay, &s));
    CHECK(s.log_bytes > 7000000);
    for (int64_t i = 0; i < 400; i++)
        CHECK_OK(f->c, db_tx(f->c, f->db, add_entry, &(Entry){ 1000 + i, 200000 }));
    CHECK(log_bytes(f) < 24000000); // of 80 MB written
}

// ---- processes that end badly

static Fix child_fix(Fix *f) {
    Fix mine = { .c = suite_ctx(NULL), .kind = f->kind, .url = f->url };
    if (fix_open(&mine, &mine.db)) _exit(90);
    return mine;
}

// ThreadSanitizer starts none in the child of a process that had some.
#ifdef __SANITIZE_THREAD__
static const bool children_have_threads = false;
#else
static const bool children_have_threads = true;
#endif

// Closed and to be opened again by a child and by the parent: SQLite's locks do not survive a fork.
static pid_t fork_with(Fix *f, void (*child)(Fix *f, int fd), int *out_fd) {
    int fds[2];
    db_close(f->db);
    f->db = NULL;
    if (pipe(fds)) return -1;
    pid_t pid = fork();
    if (!pid) {
        close(fds[0]);
        Fix mine = child_fix(f);
        child(&mine, fds[1]);
        _exit(0);
    }
    close(fds[1]);
    *out_fd = fds[0];
    return pid;
}

typedef struct Acks {
    Fix *f;
    int fd;
} Acks;

static void acknowledge(void *arg, int i) {
    Acks *a = arg;
    Ctx *c = suite_ctx(NULL);
    for (int64_t n = 0;; n++) {
        int64_t id = n * 4 + i;
        if (db_tx(c, a->f->db, add_entry, &(Entry){ id, 100 })) _exit(91);
        if (write(a->fd, &id, sizeof id) != sizeof id) _exit(92);
        arena_reset(c->mem);
    }
}

static void acknowledge_for_ever(Fix *f, int fd) { fix_threads(4, acknowledge, &(Acks){ f, fd }); }

DB_TEST_SQLITE(what_was_acknowledged_survives_kill_9) {
    if (!children_have_threads) return;
    enum { ACKS = 400, ROUNDS = 4 };
    CHECK_OK(f->c, fix_script(f, table));
    for (int round = 0; round < ROUNDS; round++) {
        int fd, status;
        int64_t ids[8192];
        size_t got = 0;
        CHECK_OK(f->c, db_tx(f->c, f->db, drop_entries, NULL));
        pid_t pid = fork_with(f, acknowledge_for_ever, &fd);
        CHECK(pid > 0);
        for (ssize_t n; got < countof(ids); got += (size_t)n / sizeof *ids) {
            n = read(fd, &ids[got], sizeof *ids);
            if (n <= 0) break;
            if (got == ACKS + (size_t)round * 7) kill(pid, SIGKILL);
        }
        close(fd);
        CHECK_INT(waitpid(pid, &status, 0), pid);
        CHECK(WIFSIGNALED(status) && got >= ACKS);
        CHECK_OK(f->c, fix_open(f, &f->db));
        CHECK_OK(f->c, db_check(f->c, f->db));
        for (size_t i = 0; i < got; i++) {
            Entry e = { ids[i], 0 };
            CHECK_OK(f->c, db_read(f->c, f->db, has_entry, &e));
            CHECK_INT(e.size, 1);
        }
    }
}

// Under a limit of the file size the log meets its end as on a full disk.
static void limit_files(rlim_t bytes) {
    struct rlimit limit;
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = bytes ? bytes : limit.rlim_max;
    if (setrlimit(RLIMIT_FSIZE, &limit)) _exit(93);
}

typedef struct Fill {
    Fix *f;
    atomic_int good, full, odd;
} Fill;

static void fill(void *arg, int i) {
    Fill *s = arg;
    for (int64_t n = 0; n < 40; n++) {
        Ctx *c = suite_ctx(NULL);
        err e = db_tx(c, s->f->db, add_entry, &(Entry){ n * 4 + i, 40000 });
        bool full = e == ERR_FULL && c->failure.why == &R_DB_FULL;
        atomic_fetch_add(!e ? &s->good : full ? &s->full : &s->odd, 1);
        suite_ctx_free(c);
    }
}

static void fill_disk(Fix *f, int fd) {
    Fill s = { .f = f };
    signal(SIGXFSZ, SIG_IGN);
    limit_files(2000000);
    fix_threads(4, fill, &s);
    int64_t said[5] = { s.good, s.full, s.odd };
    if (fix_int(f, "SELECT count(*) FROM entry", &said[3])) _exit(94); // reads go on
    limit_files(0);
    said[4] = db_tx(f->c, f->db, add_entry, &(Entry){ 100000, 40000 });
    if (write(fd, said, sizeof said) != sizeof said) _exit(95);
    db_close(f->db);
}

DB_TEST_SQLITE(a_full_disk_refuses_and_recovers) {
    if (!children_have_threads) return;
    int fd, status;
    int64_t said[5] = { 0 };
    CHECK_OK(f->c, fix_script(f, table));
    pid_t pid = fork_with(f, fill_disk, &fd);
    CHECK(pid > 0);
    ssize_t n = read(fd, said, sizeof said);
    close(fd);
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(status, 0);
    CHECK_INT(n, sizeof said);
    CHECK(said[0] > 0 && said[1] > 0); // some went in, some were refused,
    CHECK_INT(said[2], 0);             // and nothing else happened
    CHECK_INT(said[3], said[0]);       // what was acknowledged, no more and no less
    CHECK_INT(said[4], ERR_OK);
    CHECK_OK(f->c, fix_open(f, &f->db));
    CHECK_OK(f->c, db_check(f->c, f->db));
    CHECK_SQL(f, "SELECT count(*) FROM entry", said[0] + 1);
}

// ---- what must not be done

static err within(Ctx *c, Tx *tx, void *arg) {
    (void)tx;
    return db_tx(c, arg, drop_entries, NULL);
}

static err within_read(Ctx *c, Tx *tx, void *arg) {
    (void)tx;
    return db_read(c, arg, drop_entries, NULL);
}

static void quiet(void) {
    int fd = open("/dev/null", O_WRONLY);
    dup2(fd, STDERR_FILENO);
    signal(SIGABRT, SIG_DFL);
}

static void nest_write(Fix *f, int fd) {
    (void)fd;
    quiet();
    (void)!db_tx(f->c, f->db, within, f->db);
}

static void nest_read(Fix *f, int fd) {
    (void)fd;
    quiet();
    (void)!db_read(f->c, f->db, within_read, f->db);
}

DB_TEST_SQLITE(nesting_is_refused_by_an_assertion) {
    void (*const nests[])(Fix *, int) = { nest_write, nest_read };
    for (size_t i = 0; i < countof(nests); i++) {
        int fd, status;
        CHECK_OK(f->c, f->db ? ERR_OK : fix_open(f, &f->db));
        pid_t pid = fork_with(f, nests[i], &fd);
        CHECK(pid > 0);
        close(fd);
        CHECK_INT(waitpid(pid, &status, 0), pid);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    }
}
