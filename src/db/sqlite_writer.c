// SPDX-License-Identifier: Apache-2.0
// sqlite_writer.c - group commit. One thread runs waiting transactions one after the other, each in
// a savepoint of one SQLite transaction, commits once, and only then answers: so a refusal that
// rests on a neighbour's change is never told before that change is durable.
// A transaction that fails is undone alone. One that takes the whole group down (SQLite rolls back
// by itself when the disk is full or a statement is interrupted) is answered, and its neighbours
// run again, each in a group of its own.
// Leaves connections and statements to sqlite.c.
// Owner: a Req is in the arena of its caller, who waits. Threads: requests under Writer.lock; the
// connection is the writer's. Under simulation there is no thread: the caller takes its turn.
#include "db/sqlite_impl.h"
#include <assert.h>

enum {
    GROUP_MAX = 64,
    GROUP_MS = 5, // no new member after this
    CHECKPOINT_PAGES = 1000,
    // From here on the checkpoint waits a little for readers, so that the log starts over.
    CHECKPOINT_WAIT_PAGES = 8000,
    CHECKPOINT_WAIT_MS = 50,
};

typedef struct Group {
    Req *members[GROUP_MAX];
    int n, good; // good: those to commit
    bool lost;   // rolled back by SQLite
    int64_t begun_ns;
} Group;

// ---- the queue; all under the lock

static void push(Writer *w, Req *r) {
    r->next = NULL;
    *w->tail = r;
    w->tail = &r->next;
}

static void push_front(Writer *w, Req *r) {
    r->next = w->head;
    if (!w->head) w->tail = &r->next;
    w->head = r;
}

static void pull(Writer *w, Req *r) {
    Req **link = &w->head;
    while (*link != r) {
        assert(*link);
        link = &(*link)->next;
    }
    *link = r->next;
    if (w->tail == &r->next) w->tail = link;
}

static void answer(Writer *w, Req *r, err e) {
    assert(r->state == REQ_RUNNING);
    r->result = e;
    r->state = REQ_DONE;
    if (w->threaded) pthread_cond_signal(&r->done);
}

// The next to run in this group. Whoever gave up while waiting is dropped here, before it starts.
static Req *take(Writer *w, const Group *g) {
    Req *found = NULL;
    pthread_mutex_lock(&w->lock);
    while (!found && w->head && !(w->head->solo && g->n)) {
        Req *r = w->head;
        pull(w, r);
        r->state = REQ_RUNNING;
        atomic_fetch_add(&w->db->waits_ns, os_mono_ns(w->db->os) - r->queued_ns);
        err e = ctx_check(r->tx->c);
        if (e) answer(w, r, e);
        else found = r;
    }
    pthread_mutex_unlock(&w->lock);
    return found;
}

static void answer_one(Writer *w, Req *r, err e) {
    pthread_mutex_lock(&w->lock);
    answer(w, r, e);
    pthread_mutex_unlock(&w->lock);
}

// ---- a group

static bool in_transaction(SqliteConn *k) { return !sqlite3_get_autocommit(k->db); }

// References that may stay broken until COMMIT would break it for everybody.
static err check_deferred(Ctx *c, SqliteConn *k) {
    int broken = 0, high = 0;
    sqlite3_db_status(k->db, SQLITE_DBSTATUS_DEFERRED_FKS, &broken, &high, 0);
    return broken ? fail(c, ERR_CONFLICT, R_DB_REFERENCE, "index", "") : ERR_OK;
}

// A transaction that is neither committed nor undone would take in what comes next. Only a lack of
// memory keeps SQLite from undoing one.
static void undo_all(SqliteConn *k) {
    if (!in_transaction(k)) return;
    int rc = sqlite_control(k, CONTROL_ROLLBACK);
    if (in_transaction(k) && (rc & 0xff) == SQLITE_NOMEM) mem_exhausted(0);
    assert(!in_transaction(k));
}

// The function in its savepoint, which is gone afterwards. When SQLite rolled everything back, so
// is the transaction.
static err attempt(SqliteConn *k, Tx *tx) {
    if (sqlite_control(k, CONTROL_SAVE)) return sqlite_fail(tx->c, k, tx, "savepoint");
    err e = tx_run(tx);
    if (!e && in_transaction(k)) e = check_deferred(tx->c, k);
    if (!in_transaction(k)) {
        assert(e && "a transaction's function ends it neither way");
        return e;
    }
    k->tx = NULL; // the undoing must not be interrupted
    bool undone = (e || tx->again) && sqlite_control(k, CONTROL_UNDO);
    bool stuck = undone || sqlite_control(k, CONTROL_RELEASE);
    if (stuck) {
        err worse = sqlite_fail(tx->c, k, NULL, "release");
        undo_all(k);
        return worse;
    }
    return e;
}

static void run(Writer *w, Group *g, Req *r) {
    SqliteConn *k = w->conn;
    err e;
    do {
        k->tx = r->tx;
        r->tx->conn = k;
        e = attempt(k, r->tx);
        k->tx = NULL;
        if (r->tx->again) atomic_fetch_add(&w->db->retries, 1);
    } while (r->tx->again && in_transaction(k));
    g->lost = !in_transaction(k);
    if (g->lost) {
        answer_one(w, r, e);
        return;
    }
    assert(g->n < GROUP_MAX);
    r->result = e;
    g->members[g->n++] = r;
    g->good += !e;
}

static void run_again(Writer *w, Group *g) {
    pthread_mutex_lock(&w->lock);
    for (int i = g->n; i-- > 0;) {
        Req *r = g->members[i];
        r->state = REQ_WAITING;
        r->solo = true;
        push_front(w, r);
    }
    pthread_mutex_unlock(&w->lock);
    atomic_fetch_add(&w->db->retries, g->n);
}

static void commit(Writer *w, Group *g) {
    SqliteConn *k = w->conn;
    sqlite_doing(k, "the disk's sync of a commit");
    bool failed = sqlite_control(k, g->good ? CONTROL_COMMIT : CONTROL_ROLLBACK);
    if (failed)
        for (int i = 0; i < g->n; i++)
            g->members[i]->result = sqlite_commit_fail(g->members[i]->tx->c, k);
    else if (g->good) atomic_fetch_add(&w->db->commits, 1);
    undo_all(k);
    pthread_mutex_lock(&w->lock);
    for (int i = 0; i < g->n; i++) answer(w, g->members[i], g->members[i]->result);
    pthread_mutex_unlock(&w->lock);
}

// After the answers, so that nobody waits for it. A failure (say, a full disk) costs nothing: the
// log still has everything, and the next one tries again.
static void checkpoint(Writer *w) {
    SqliteConn *k = w->conn;
    if (k->wal_pages < w->checkpoint_at) return;
    bool wait = k->wal_pages >= CHECKPOINT_WAIT_PAGES;
    int64_t busy_ms = k->busy_ms;
    int pages = 0, moved = 0;
    sqlite_doing(k, "moving the log into the database");
    k->busy_ms = CHECKPOINT_WAIT_MS;
    sqlite3_wal_checkpoint_v2(
        k->db, NULL, wait ? SQLITE_CHECKPOINT_RESTART : SQLITE_CHECKPOINT_PASSIVE, &pages, &moved);
    k->busy_ms = busy_ms;
    // All moved: the log starts over with the next commit, and its count of pages too.
    w->checkpoint_at = pages == moved ? CHECKPOINT_PAGES : k->wal_pages + CHECKPOINT_PAGES;
    k->wal_pages = 0;
}

// One group, from the first who waits. False: nobody does.
static bool turn(Writer *w) {
    SqliteConn *k = w->conn;
    Group g = { .begun_ns = os_mono_ns(w->db->os) };
    Req *r = take(w, &g);
    if (!r) return false;
    k->tx = r->tx;
    sqlite_doing(k, "the lock of another connection");
    int rc = sqlite_control(k, CONTROL_BEGIN_WRITE);
    if (rc) {
        err e = sqlite_fail(r->tx->c, k, r->tx, "begin");
        k->tx = NULL;
        answer_one(w, r, e);
        return true;
    }
    bool open = true;
    while (r && open) {
        bool solo = r->solo;
        run(w, &g, r);
        open = !g.lost && !solo && g.n < GROUP_MAX
               && os_mono_ns(w->db->os) - g.begun_ns < GROUP_MS * INT64_C(1000000);
        r = open ? take(w, &g) : NULL;
    }
    if (g.lost) run_again(w, &g);
    else commit(w, &g);
    checkpoint(w);
    return true;
}

// ---- the callers' side

static void writer_main(void *arg) {
    Writer *w = arg;
    for (bool more = true; more;) {
        pthread_mutex_lock(&w->lock);
        while (!w->head && !w->closing) pthread_cond_wait(&w->more, &w->lock);
        more = w->head;
        pthread_mutex_unlock(&w->lock);
        atomic_store(&w->turn_ns, os_mono_ns(w->db->os));
        if (more) turn(w);
        atomic_store(&w->turn_ns, 0);
    }
}

err writer_start(Ctx *c, Writer *w, Db *db, SqliteConn *conn) {
    assert(conn && !w->conn);
    w->db = db;
    w->conn = conn;
    w->tail = &w->head;
    w->checkpoint_at = CHECKPOINT_PAGES;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->more, NULL);
    err e = w->threaded ? thread_open(c, "db-writer", writer_main, w, &w->thread) : ERR_OK;
    if (!e) return ERR_OK;
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->more);
    w->conn = NULL;
    return e;
}

void writer_stop(Writer *w) {
    if (!w->conn) return;
    if (w->threaded) {
        pthread_mutex_lock(&w->lock);
        w->closing = true;
        pthread_cond_signal(&w->more);
        pthread_mutex_unlock(&w->lock);
        thread_join(w->thread);
    }
    assert(!w->head);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->more);
}

// What keeps those waiting who wait. Under the lock.
static const char *writer_says(Ctx *c, Writer *w) {
    int64_t turn_ns = atomic_load(&w->turn_ns);
    int64_t ms = turn_ns ? (os_mono_ns(w->db->os) - turn_ns) / 1000000 : 0;
    int n = 0;
    for (const Req *r = w->head; r; r = r->next) n++;
    const char *doing = atomic_load(&w->conn->doing);
    return say(c, "%d changes wait; the writer took its turn %lld ms ago and is at %s", n,
               (long long)ms, doing ? doing : "its start");
}

// Under the lock. Whoever has not started may leave: cancelled, or waiting for too long.
static err leave(Ctx *c, Writer *w, Req *r) {
    err e = ctx_check(c);
    if (!e && os_mono_ns(w->db->os) - r->queued_ns >= w->db->busy_ms * 1000000)
        e = db_busy(c, w->db->busy_ms, writer_says(c, w));
    if (e) {
        pull(w, r);
        r->state = REQ_RUNNING;
        answer(w, r, e);
    }
    return e;
}

static err wait_answer(Ctx *c, Writer *w, Req *r) {
    cond_init(&r->done);
    pthread_mutex_lock(&w->lock);
    assert(!w->closing);
    push(w, r);
    pthread_cond_signal(&w->more);
    while (r->state != REQ_DONE) {
        // Once it runs, its statements look at the Ctx themselves.
        if (r->state == REQ_WAITING && leave(c, w, r)) break;
        cond_wait_ms(w->db->os, &r->done, &w->lock, DB_SLICE_MS);
    }
    pthread_mutex_unlock(&w->lock);
    pthread_cond_destroy(&r->done);
    return r->result;
}

err writer_tx(Ctx *c, Writer *w, Tx *tx) {
    Req *r = new (c->mem, Req, 1);
    r->tx = tx;
    r->queued_ns = os_mono_ns(w->db->os);
    if (w->threaded) return wait_answer(c, w, r);
    push(w, r);
    while (r->state != REQ_DONE) turn(w);
    return r->result;
}
