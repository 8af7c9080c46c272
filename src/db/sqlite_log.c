// SPDX-License-Identifier: Apache-2.0
// sqlite_log.c - see copy.h. Two connections take turns at holding a read transaction: the next one
// begins before the last one ends. While one is open the log cannot start over twice: a reader of
// the log keeps its end from being moved into the database, and a reader of the database alone
// keeps anything from being moved; and once it starts over, all that it loses was kept before.
// What is committed stands in the index of the log (DB-shm), which is written after the sync.
// Owner, threads: copy.h.
#include "db/copy.h"
#include "db/sqlite_impl.h"
#include <assert.h>
#include <stdlib.h>

enum { LOG_HEAD = 32, FRAME_HEAD = 24, INDEX_HEAD = 48, TRIES = 1000, BUSY_MS = 5000 };

typedef struct Index { // what its head says
    uint32_t frames, pages, salt;
    int64_t page_bytes;
} Index;
struct SqliteLog {
    sqlite3 *held, *spare;
    File *index; // the database's
    str path;
    char path_text[1024];
    Index at, next; // kept up to; of the step that is not kept yet
};
typedef struct Change {
    uint32_t page, frame;
} Change;

static uint32_t big32(const char *p) {
    const unsigned char *b = (const unsigned char *)p;
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static err refused(Ctx *c, sqlite3 *db, int code) {
    return db_away(c, db ? sqlite3_errmsg(db) : sqlite3_errstr(code), 0);
}

static err conn_open(Ctx *c, const char *path, sqlite3 **out) {
    int rc = sqlite3_open_v2(path, out, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    if (!rc) rc = sqlite3_busy_timeout(*out, BUSY_MS);
    if (!rc) rc = sqlite3_wal_autocheckpoint(*out, 0);
    if (!rc) rc = sqlite3_exec(*out, "PRAGMA query_only=ON", NULL, NULL, NULL);
    return rc ? refused(c, *out, rc) : ERR_OK;
}

static err begin(Ctx *c, sqlite3 *db) {
    int rc = sqlite3_exec(db, "BEGIN; SELECT 1 FROM sqlite_schema", NULL, NULL, NULL);
    return rc ? refused(c, db, rc) : ERR_OK;
}
static void end(sqlite3 *db) {
    if (!sqlite3_get_autocommit(db)) sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
}

// Its head stands there twice, written one after the other: equal ones are whole.
static err index_read(Ctx *c, const SqliteLog *l, Index *out) {
    char head[2 * INDEX_HEAD];
    uint16_t size;
    size_t n = 0;
    bool whole = false;
    for (int i = 0; !whole && i < TRIES; i++) {
        TRY(file_read_at(c, l->index, 0, head, sizeof head, &n));
        whole = n == sizeof head && head[12] == 1 && !memcmp(head, head + INDEX_HEAD, INDEX_HEAD);
    }
    if (!whole) return db_away(c, "the index of the log is not whole", 100);
    memcpy(&size, head + 14, sizeof size);
    memcpy(&out->frames, head + 16, 4), memcpy(&out->pages, head + 20, 4);
    out->salt = big32(head + 32);
    out->page_bytes = size == 1 ? 65536 : size;
    return ERR_OK;
}

// Kept open for as long as the database: SQLite's locks on its log are this process's on this
// file, and closing any descriptor of it would drop them all (POSIX). Whoever came next, say
// somebody with a SQL shell, would take himself for the first and cut the file under us.
static err index_of(Ctx *c, Db *of, File **out) {
    SqliteDb *db = (SqliteDb *)of;
    str path = arena_printf(c->mem, "%s-shm", db->path);
    err e = ERR_OK;
    pthread_mutex_lock(&db->lock);
    if (!db->index) e = file_open(c, path, FILE_READ, &db->index);
    *out = db->index;
    pthread_mutex_unlock(&db->lock);
    return e;
}

err sqlite_log_open(Ctx *c, Db *db, SqliteLog **out) {
    SqliteLog *l = mem_new(sizeof *l);
    str path = sqlite_path(db);
    assert(c->os == os_real() && path.n < sizeof l->path_text);
    memcpy(l->path_text, path.p, path.n);
    l->path = str_n(l->path_text, path.n);
    err e = conn_open(c, l->path_text, &l->held);
    if (!e) e = conn_open(c, l->path_text, &l->spare);
    if (!e) e = begin(c, l->held);
    if (!e) e = index_of(c, db, &l->index);
    if (!e) e = index_read(c, l, &l->at);
    if (e) sqlite_log_close(l);
    else *out = l;
    return e;
}

static int by_page(const void *a, const void *b) {
    const Change *x = a, *y = b;
    if (x->page != y->page) return x->page < y->page ? -1 : 1;
    return x->frame < y->frame ? -1 : x->frame > y->frame;
}

static err frame_bad(Ctx *c) { return db_away(c, "a frame of the log is not of this log", 100); }

// Which pages frames (from, to] hold, the last of each; *out_n of them.
static err changes_read(Ctx *c, File *f, uint32_t from, const Index *to, Change *at,
                        size_t *out_n) {
    size_t n = 0, kept = 0, got;
    char head[FRAME_HEAD];
    for (uint32_t i = from; i < to->frames; i++) {
        int64_t place = LOG_HEAD + (int64_t)i * (FRAME_HEAD + to->page_bytes);
        TRY(file_read_at(c, f, place, head, sizeof head, &got));
        if (got < sizeof head || big32(head + 8) != to->salt || !big32(head)) return frame_bad(c);
        at[n++] = (Change){ big32(head), i };
    }
    qsort(at, n, sizeof *at, by_page);
    for (size_t i = 0; i < n; i++)
        if (i + 1 == n || at[i + 1].page != at[i].page) at[kept++] = at[i];
    *out_n = kept;
    return ERR_OK;
}

static err changes_write(Ctx *c, File *f, const Index *to, const Change *at, size_t n, File *out) {
    size_t size = (size_t)to->page_bytes, got;
    char *page = mem_new(4 + size);
    err e = ERR_OK;
    for (size_t i = 0; !e && i < n; i++) {
        int64_t place = LOG_HEAD + (int64_t)at[i].frame * (int64_t)(FRAME_HEAD + size) + FRAME_HEAD;
        for (int k = 0; k < 4; k++) page[k] = (char)(at[i].page >> (24 - 8 * k));
        e = file_read_at(c, f, place, page + 4, size, &got);
        if (!e && got < size) e = frame_bad(c);
        if (!e) e = file_write_at(c, out, (int64_t)i * (int64_t)(4 + size), page, 4 + size);
    }
    mem_free(page);
    return e;
}

static err copy_changes(Ctx *c, SqliteLog *l, uint32_t from, File *to) {
    size_t room = l->next.frames > from ? l->next.frames - from : 0, n = 0;
    File *f;
    if (!room) return ERR_OK;
    TRY(file_open(c, arena_printf(c->mem, STR_FMT "-wal", STR_ARG(l->path)), FILE_READ, &f));
    Change *at = mem_new(room * sizeof *at);
    err e = changes_read(c, f, from, &l->next, at, &n);
    if (!e) e = changes_write(c, f, &l->next, at, n, to);
    mem_free(at);
    file_close(f);
    return e;
}

err sqlite_log_next(Ctx *c, SqliteLog *l, File *to, LogStep *out) {
    *out = (LogStep){ .before_ms = os_wall_ms(c->os) };
    end(l->spare); // of a step that was not kept
    TRY(begin(c, l->spare));
    TRY(index_read(c, l, &l->next));
    out->after_ms = os_wall_ms(c->os);
    bool same = l->next.salt == l->at.salt;
    // It counts its starts; more than one, or frames that went, were not ours to see.
    out->gap = same ? l->next.frames < l->at.frames : l->next.salt != l->at.salt + 1;
    uint32_t from = same && !out->gap ? l->at.frames : 0;
    out->pages = l->next.pages, out->page_bytes = l->next.page_bytes;
    out->frames = l->next.frames - from;
    return copy_changes(c, l, from, to);
}

err sqlite_log_keep(Ctx *c, SqliteLog *l) {
    (void)c;
    sqlite3 *held = l->held;
    l->held = l->spare, l->spare = held;
    l->at = l->next;
    end(l->spare);
    return ERR_OK;
}

void sqlite_log_close(SqliteLog *l) {
    if (!l) return;
    if (l->held) end(l->held);
    if (l->spare) end(l->spare);
    sqlite3_close(l->held);
    sqlite3_close(l->spare);
    mem_free(l);
}

err sqlite_log_apply(Ctx *c, str path, File *step, int64_t page_bytes, int64_t pages) {
    int64_t size;
    size_t one = 4 + (size_t)page_bytes, got;
    File *f;
    if (page_bytes < 512 || page_bytes > 65536 || pages < 1)
        return db_away(c, "a step of the log is not possible", 0);
    TRY(file_size(c, step, &size));
    TRY(file_open(c, path, FILE_READ | FILE_WRITE, &f));
    char *page = mem_new(one);
    err e = size % (int64_t)one ? db_away(c, "a step of the log is cut", 0) : ERR_OK;
    for (int64_t at = 0; !e && at < size; at += (int64_t)one) {
        e = file_read_at(c, step, at, page, one, &got);
        int64_t number = (int64_t)big32(page) - 1;
        if (!e && (got < one || number < 0)) e = db_away(c, "a step of the log is cut", 0);
        if (!e && number < pages) e = file_write_at(c, f, number * page_bytes, page + 4, one - 4);
    }
    if (!e) e = file_truncate(c, f, pages * page_bytes);
    if (!e) e = file_sync(c, f);
    mem_free(page);
    file_close(f);
    return e;
}
