// SPDX-License-Identifier: Apache-2.0
// pg_pool.c - connections to PostgreSQL: opening with back-off, sharing, waiting for answers, and
// leaving what nobody wants any more. Leaves SQL and its failures to postgres.c.
// Owner: the pool, or the caller that took a connection. Threads: a connection belongs to one at a
// time; the pool is under PgDb.lock.
#include "db/pg_impl.h"
#include <assert.h>
#include <event2/event.h>
#include <stdio.h>

enum {
    BACKOFF_MIN_MS = 100,
    BACKOFF_MAX_MS = 1000, // all nodes are back within a moment, so none takes another's work
    CONNECT_MS = 3000,     // and as long for the session's settings
    CHECK_MS = 250,
    STATEMENTS = 256,
};
#define MS_NS INT64_C(1000000)

// ---- waiting for the socket

static void on_ready(evutil_socket_t fd, short what, void *arg) { (void)fd, (void)what, (void)arg; }

// libpq offers nothing to wait with. The loop is poll(2) and one event, used by one thread.
static struct event_base *wait_loop(void) {
    struct event_config *config = event_config_new();
    event_config_avoid_method(config, "epoll");
    event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_IGNORE_ENV);
    struct event_base *loop = event_base_new_with_config(config);
    event_config_free(config);
    assert(loop);
    return loop;
}

static void wait_socket(PgConn *k, bool read, bool write) {
    struct timeval slice = { .tv_usec = DB_SLICE_MS * 1000 };
    short what = (short)((read ? EV_READ : 0) | (write ? EV_WRITE : 0) | EV_TIMEOUT);
    int fd = PQsocket(k->pg);
    if (fd < 0 || event_base_once(k->loop, fd, what, on_ready, NULL, &slice)) return;
    event_base_loop(k->loop, EVLOOP_ONCE);
}

// ---- results

// Whoever calls the API reads this: libpq's first line, without where the database is.
static str what_failed(str said) {
    ptrdiff_t line = str_find_char(said, '\n'), where = str_find(said, S(" failed: "));
    str first = str_sub(said, 0, line < 0 ? said.n : (size_t)line);
    bool placed = str_starts(said, S("connection to server ")) && where > 0;
    return str_trim(placed && (size_t)where < first.n ? str_sub(first, (size_t)where + 9, first.n)
                                                      : first);
}

err pg_lost(Ctx *c, Tx *tx, PgConn *k) {
    str said = what_failed(str_trim(str_z(PQerrorMessage(k->pg))));
    k->broken = true;
    k->streaming = NULL;
    if (tx) tx->again = true;
    return db_away(c, say_str(c, said), BACKOFF_MIN_MS);
}

static bool past_limit(const PgConn *k) { return k->limit_ns && os_mono_ns(k->os) >= k->limit_ns; }

// What nobody wants any more is left with its connection: the server looks every CHECK_MS whether
// there is still a client. To ask it to cancel would wait for a server that may not answer at all.
static void leave(PgConn *k) {
    k->streaming = NULL;
    k->broken = k->left = true;
}

// A server that lives ends a statement before this (postgres.c), so one that is silent is away:
// this call does not wait for it again.
static bool is_silent(const PgConn *k, int64_t since_ns) {
    return k->silent_ms && os_mono_ns(k->os) - since_ns >= k->silent_ms * MS_NS;
}

static err silent(Ctx *c, Tx *tx, PgConn *k) {
    err e = pg_lost(c, tx, k);
    if (tx) tx->again = false;
    return e == ERR_UNAVAILABLE ? db_away(c, "it is silent", BACKOFF_MAX_MS) : e;
}

err pg_result(Ctx *c, Tx *tx, PgConn *k, PGresult **out) {
    for (int64_t since_ns = os_mono_ns(k->os);;) {
        int flush = PQflush(k->pg);
        bool alive = flush >= 0 && PQconsumeInput(k->pg);
        // A dead connection still has the server's last words.
        if (!alive || !PQisBusy(k->pg)) {
            *out = PQgetResult(k->pg);
            return *out || alive ? ERR_OK : pg_lost(c, tx, k);
        }
        wait_socket(k, true, flush);
        err e = tx ? tx_expiry(c, tx) : ERR_OK;
        if (e) leave(k);
        TRY(e);
        if (past_limit(k) || is_silent(k, since_ns)) return silent(c, tx, k);
    }
}

bool pg_good(const PGresult *res) {
    ExecStatusType s = PQresultStatus(res);
    return s == PGRES_COMMAND_OK || s == PGRES_TUPLES_OK || s == PGRES_SINGLE_TUPLE
           || s == PGRES_EMPTY_QUERY;
}

err pg_collect(Ctx *c, Tx *tx, PgConn *k, PGresult **out) {
    PGresult *kept = NULL, *res;
    err e;
    while (!(e = pg_result(c, tx, k, &res)) && res) {
        ExecStatusType s = PQresultStatus(res);
        // COPY would wait for data that nobody sends.
        if (s == PGRES_COPY_IN || s == PGRES_COPY_OUT || s == PGRES_COPY_BOTH) leave(k);
        if (kept && !pg_good(kept)) {
            PQclear(res);
            continue;
        }
        PQclear(kept);
        kept = res;
        if (PQstatus(k->pg) == CONNECTION_BAD) break;
    }
    if (!e && !kept) e = pg_lost(c, tx, k);
    if (e) {
        PQclear(kept);
        return e;
    }
    *out = kept;
    return ERR_OK;
}

err pg_simple(Ctx *c, Tx *tx, PgConn *k, const char *text, PGresult **out) {
    assert(!k->streaming);
    if (!PQsendQuery(k->pg, text)) return pg_lost(c, tx, k);
    return pg_collect(c, tx, k, out);
}

// ---- opening and closing

static void silence(void *arg, const PGresult *res) { (void)arg, (void)res; }

static void conn_close(PgConn *k) {
    assert(!k->streaming);
    k->closing = true;
    stmt_clear(&k->cache);
    PQfinish(k->pg);
    event_base_free(k->loop);
    mem_free(k);
}

// What a session must agree on whatever the server's defaults are. An acknowledged commit is on
// the disk even where the administrator relaxed that for others.
static err settle_session(Ctx *c, PgDb *db, PgConn *k) {
    PGresult *res;
    const char *text =
        say(c,
            "SET lock_timeout = %lld; SET idle_in_transaction_session_timeout = 60000;"
            "SET timezone = 'UTC'; SET bytea_output = 'hex'; SET extra_float_digits = 1;"
            "SET standard_conforming_strings = on; SET client_min_messages = 'error';"
            "SET jit = off;" // a page's query runs for less than its compiling takes
            "SELECT set_config('client_connection_check_interval', '%d', false)"
            " WHERE current_setting('server_version_num')::int >= 140000;"
            "SELECT set_config('synchronous_commit', 'on', false)"
            " WHERE current_setting('synchronous_commit') IN ('off', 'local')",
            (long long)db->base.busy_ms, CHECK_MS);
    k->limit_ns = os_mono_ns(k->os) + CONNECT_MS * MS_NS;
    TRY(pg_simple(c, NULL, k, text, &res));
    bool good = pg_good(res);
    PQclear(res);
    k->limit_ns = 0;
    return good ? ERR_OK : pg_lost(c, NULL, k);
}

static err handshake(Ctx *c, PgConn *k) {
    int64_t until = os_mono_ns(k->os) + CONNECT_MS * MS_NS;
    for (PostgresPollingStatusType next = PGRES_POLLING_WRITING;;) {
        if (PQstatus(k->pg) == CONNECTION_BAD || next == PGRES_POLLING_FAILED)
            return pg_lost(c, NULL, k);
        if (next == PGRES_POLLING_OK) return ERR_OK;
        wait_socket(k, next == PGRES_POLLING_READING, next == PGRES_POLLING_WRITING);
        TRY(ctx_check(c));
        if (os_mono_ns(k->os) >= until) return db_away(c, "no answer in time", BACKOFF_MIN_MS);
        next = PQconnectPoll(k->pg);
    }
}

// Later keywords win: what the address says over our wishes, and our encoding over all.
static PGconn *begin_connect(const char *conninfo) {
    static const char *const keys[] = {
        "connect_timeout",  "keepalives_idle",  "keepalives_interval",
        "keepalives_count", "tcp_user_timeout", "application_name",
        "dbname",           "client_encoding",  NULL
    };
    const char *const values[] = { "5", "10", "3", "3", "15000", "lathe", conninfo, "UTF8", NULL };
    return PQconnectStartParams(keys, values, 1);
}

static err conn_open(Ctx *c, PgDb *db, PgConn **out) {
    PgConn *k = mem_new(sizeof *k);
    k->os = db->base.os;
    k->silent_ms = CONNECT_MS;
    k->loop = wait_loop();
    k->cache = (StmtCache){ .max = STATEMENTS, .drop = pg_drop_stmt, .owner = k };
    k->pg = begin_connect(db->conninfo);
    if (!k->pg) return conn_close(k), db_away(c, "there is no memory for a connection", 1000);
    PQsetNoticeReceiver(k->pg, silence, NULL);
    err e = handshake(c, k);
    if (!e && PQsetnonblocking(k->pg, 1)) e = pg_lost(c, NULL, k);
    if (!e) e = settle_session(c, db, k);
    if (e) conn_close(k);
    else *out = k;
    return e;
}

// ---- the pool

void pg_pool_init(PgDb *db, const char *conninfo) {
    db->conninfo = mem_strdup(str_z(conninfo));
    db->backoff_ms = BACKOFF_MIN_MS;
    pthread_mutex_init(&db->lock, NULL);
    cond_init(&db->freed);
}

void pg_pool_done(PgDb *db) {
    for (PgConn *k = db->idle, *next; k; k = next, db->opened--) {
        next = k->next;
        conn_close(k);
    }
    assert(!db->opened); // nobody uses one any more
    pthread_mutex_destroy(&db->lock);
    pthread_cond_destroy(&db->freed);
    mem_free(db->conninfo);
}

// Under the lock: an idle connection that is worth trying.
static PgConn *take_idle(PgDb *db) {
    while (db->idle) {
        PgConn *k = db->idle;
        db->idle = k->next;
        if (k->generation == db->generation) return k;
        db->opened--;
        conn_close(k);
    }
    return NULL;
}

// Under the lock: waits until there is an idle one (*out), or room for another (NULL).
static err wait_turn(Ctx *c, PgDb *db, PgConn **out) {
    Os *os = db->base.os;
    int64_t since = os_mono_ns(os), now = since;
    err e = ERR_OK;
    while (!(*out = take_idle(db)) && !e) {
        if (db->opened < db->base.readers) {
            int64_t left_ns = db->retry_at_ns - now;
            bool tried = db->retry_at_ns && db->opening; // by another: one is enough to find out
            if (left_ns > 0 || tried)
                e = db_away(c, say(c, "%s", db->why), left_ns > 0 ? left_ns / MS_NS + 1 : 1000);
            else db->opened++, db->opening++;
            break;
        }
        e = ctx_check(c);
        if (!e && now - since >= db->base.busy_ms * MS_NS)
            e = db_busy(c, db->base.busy_ms, say(c, "all %d connections are in use", db->opened));
        if (!e) cond_wait_ms(os, &db->freed, &db->lock, DB_SLICE_MS);
        now = os_mono_ns(os);
    }
    if (now != since) atomic_fetch_add(&db->base.waits_ns, now - since);
    return e;
}

// Under the lock: how opening one went. Each failure doubles the time until the next try.
static void note_open(Ctx *c, PgDb *db, PgConn *k, err e) {
    db->opening--;
    if (!e) {
        k->generation = db->generation;
        db->backoff_ms = BACKOFF_MIN_MS;
        db->retry_at_ns = 0;
        return;
    }
    db->opened--;
    pthread_cond_signal(&db->freed);
    if (e != ERR_UNAVAILABLE) return; // the caller left
    db->retry_at_ns = os_mono_ns(db->base.os) + db->backoff_ms * MS_NS;
    c->failure.retry_after_ms = db->backoff_ms;
    db->backoff_ms = 2 * db->backoff_ms < BACKOFF_MAX_MS ? 2 * db->backoff_ms : BACKOFF_MAX_MS;
    str why = failure_param(&c->failure, "why");
    snprintf(db->why, sizeof db->why, STR_FMT, STR_ARG(why.p ? why : S("")));
}

err pg_take(Ctx *c, PgDb *db, PgConn **out) {
    PgConn *k = NULL;
    pthread_mutex_lock(&db->lock);
    err e = wait_turn(c, db, &k);
    pthread_mutex_unlock(&db->lock);
    TRY(e);
    if (!k) {
        e = conn_open(c, db, &k);
        pthread_mutex_lock(&db->lock);
        note_open(c, db, k, e);
        pthread_mutex_unlock(&db->lock);
        TRY(e);
    }
    *out = k;
    return ERR_OK;
}

void pg_give(PgDb *db, PgConn *k) {
    k->limit_ns = 0;
    bool broken = k->broken || k->streaming || PQtransactionStatus(k->pg) != PQTRANS_IDLE;
    pthread_mutex_lock(&db->lock);
    if (broken) {
        db->opened--;
        if (k->generation == db->generation && !k->left) db->generation++;
    } else {
        k->next = db->idle;
        db->idle = k;
    }
    pthread_cond_signal(&db->freed);
    pthread_mutex_unlock(&db->lock);
    if (!broken) return; // another's already, perhaps
    k->streaming = NULL;
    conn_close(k);
}

err pg_pause(Ctx *c, PgDb *db, int ms) {
    Os *os = db->base.os;
    int64_t until = os_mono_ns(os) + ms * MS_NS;
    pthread_cond_t never;
    cond_init(&never);
    pthread_mutex_lock(&db->lock);
    err e = ctx_check(c);
    for (int64_t left; !e && (left = until - os_mono_ns(os)) > 0; e = ctx_check(c))
        cond_wait_ms(os, &never, &db->lock,
                     left < DB_SLICE_MS * MS_NS ? (int)(left / MS_NS) + 1 : DB_SLICE_MS);
    pthread_mutex_unlock(&db->lock);
    pthread_cond_destroy(&never);
    return e;
}
