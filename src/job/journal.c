// SPDX-License-Identifier: Apache-2.0
// journal.c - appending, writing and syncing. Records queue in memory in their final form; whoever
// writes (a loop's turn, or the journal's thread) takes the whole queue and writes it with one call
// into the current segment. One thread syncs: at once for class B and for flushes, which group by
// themselves while a sync is under way, and 50 ms after the first unsynced write otherwise.
// Simulated: the same work runs from a timer of the first loop.
#include "job/journal_own.h"
#include <assert.h>
#include <time.h>

enum { NS_PER_MS = 1000000 };

static size_t size_of(str bytes) { return bytes.n + RECORD_HEADER; }

// ---- telling the thread

static void work_later(Journal *j);

static void kick(Journal *j) {
    if (j->threaded) pthread_cond_signal(&j->work);
    else work_later(j);
}

// ---- waiters (lock held)

static void waiter_add(Journal *j, const JournalEntry *e) {
    if (j->waiters_n == j->waiters_cap) {
        j->waiters_cap = j->waiters_cap ? 2 * j->waiters_cap : 64;
        j->waiters = mem_grow(j->waiters, j->waiters_cap, sizeof *j->waiters);
    }
    j->waiters[j->waiters_n++] = (Waiter){ j->appended, e->durable, e->arg, ERR_OK };
}

// Those up to seq who were not synced yet learn of e, whatever a later sync brings.
static void waiters_fail(Journal *j, uint64_t seq, err e) {
    for (size_t i = 0; i < j->waiters_n && j->waiters[i].seq <= seq; i++)
        if (j->waiters[i].seq > j->synced && !j->waiters[i].e) j->waiters[i].e = e;
    j->failures++;
    j->last_error = e;
    pthread_cond_broadcast(&j->done);
}

// The kernel may have dropped these pages: the file's next sync would prove nothing.
static void sync_failed(Journal *j, uint64_t upto, err e) {
    waiters_fail(j, upto, e);
    j->counts.sync_errors++;
    j->unsynced++;
    j->replace = true;
}

static void waiters_settle(Journal *j) {
    pthread_mutex_lock(&j->lock);
    size_t n = 0;
    while (n < j->waiters_n && (j->waiters[n].e || j->waiters[n].seq <= j->synced)) n++;
    Waiter *ready = n ? mem_grow(NULL, n, sizeof *ready) : NULL;
    if (n) {
        memcpy(ready, j->waiters, n * sizeof *ready);
        j->waiters_n -= n;
        memmove(j->waiters, j->waiters + n, j->waiters_n * sizeof *ready);
    }
    pthread_mutex_unlock(&j->lock);
    for (size_t i = 0; i < n; i++) ready[i].durable(ready[i].arg, ready[i].e);
    mem_free(ready);
}

// ---- reserving and appending

bool journal_reserve(Journal *j, size_t n) {
    size_t need = n + RECORD_HEADER;
    if (n > j->record_max) return false;
    for (;;) { // again when another took the room that was made: it is progress all the same
        pthread_mutex_lock(&j->lock);
        bool failing = j->retry_ns != 0, given = !failing && journal_room(j) >= (int64_t)need;
        if (given) j->reserved += need;
        bool low = given && spare_wanted(j) && !j->full_ns;
        pthread_mutex_unlock(&j->lock);
        if (low) kick(j);
        if (given || failing) return given;
        if (!spare_make(j, need)) return false;
    }
}

static void reserved_return(Journal *j, size_t n) {
    size_t held = n + RECORD_HEADER;
    assert(j->reserved >= held);
    j->reserved -= held;
}

void journal_release(Journal *j, size_t n) {
    pthread_mutex_lock(&j->lock);
    reserved_return(j, n);
    pthread_mutex_unlock(&j->lock);
}

static void bytes_add(Bytes *b, const void *p, size_t n) {
    if (b->n + n > b->cap) {
        b->cap = 2 * b->cap > b->n + n ? 2 * b->cap : b->n + n;
        b->p = mem_grow(b->p, b->cap, 1);
    }
    if (n) memcpy(b->p + b->n, p, n);
    b->n += n;
}

static bool on_a_loop(Journal *j) {
    for (size_t i = 0; i < j->loops_n; i++)
        if (loop_is_mine(j->loops[i])) return true;
    return false;
}

// Lock held. The queue has its space on the disk already, which also limits it in memory.
static void enqueue(Journal *j, const JournalEntry *e, const char header[RECORD_HEADER]) {
    bytes_add(&j->queue, header, RECORD_HEADER);
    bytes_add(&j->queue, e->bytes.p, e->bytes.n);
    j->committed += size_of(e->bytes);
    j->queue.seq = ++j->appended;
    if (!j->queued_ns) j->queued_ns = os_mono_ns(j->os);
    if (e->durable) waiter_add(j, e);
    if (e->cl == JOURNAL_B) j->wanted = j->appended;
    atomic_store(&j->has_queue, true);
}

err journal_append(Journal *j, const JournalEntry *e) {
    bool fits = e->bytes.n <= j->record_max;
    bool covered = e->reserved && e->bytes.n <= e->reserved;
    char header[RECORD_HEADER];
    if (fits) record_format(e->kind, (uint8_t)e->cl, e->bytes, header);
    if (fits && !covered && !journal_reserve(j, e->bytes.n)) fits = false;
    pthread_mutex_lock(&j->lock);
    if (e->reserved) reserved_return(j, e->reserved);
    if (fits) {
        if (!covered) reserved_return(j, e->bytes.n);
        enqueue(j, e, header);
    }
    bool idle = j->idle;
    pthread_mutex_unlock(&j->lock);
    if (!fits) return e->bytes.n > j->record_max ? ERR_TOOLARGE : ERR_FULL;
    if (e->cl == JOURNAL_B && !on_a_loop(j)) {
        pthread_mutex_lock(&j->lock);
        j->write_now = true;
        pthread_mutex_unlock(&j->lock);
        kick(j);
    } else if (idle || !j->threaded) {
        kick(j);
    }
    return ERR_OK;
}

// ---- writing (io held)

// The old segment is sealed and synced before the next one takes a byte, so that only the last
// segment can have a torn tail.
static bool roll(Journal *j) {
    Ctx c;
    err e = ERR_OK;
    if (!spare_make(j, 0)) return false;
    ctx_init(&c, arena_new(), j->os);
    pthread_mutex_lock(&j->sync);
    if (j->current.file) {
        char mark[RECORD_HEADER];
        record_format(0, SEALED_CLASS, S(""), mark);
        e = ERR_INTERNAL;
        for (int tries = 0; e && tries < 3; tries++) // half a mark reads as damage
            e = file_write_at(&c, j->current.file, (int64_t)j->at, mark, sizeof mark);
        if (!e) e = file_sync(&c, j->current.file);
        if (j->replace) e = j->last_error; // behind what it lost, nothing of it can be promised
        file_close(j->current.file);
    }
    pthread_mutex_lock(&j->lock);
    if (j->current.file) {
        old_add(j, j->current.number);
        if (e) sync_failed(j, j->written, e);
        j->counts.syncs++;
        j->synced = j->written;
        j->dirty_ns = 0;
    }
    j->replace = false;
    bool taken = spare_take(j); // only a writer takes one, and we are the writer
    assert(taken);
    pthread_cond_broadcast(&j->done);
    pthread_mutex_unlock(&j->lock);
    pthread_mutex_unlock(&j->sync);
    arena_free(c.mem);
    return true;
}

// The longest run of whole records that fits into room.
static size_t run_length(const Bytes *b, size_t from, size_t room, uint64_t *out_records) {
    size_t n = 0;
    *out_records = 0;
    while (from + n < b->n) {
        uint32_t length;
        memcpy(&length, b->p + from + n, 4);
        if (n + RECORD_HEADER + length > room) break;
        n += RECORD_HEADER + length;
        ++*out_records;
    }
    return n;
}

static void written_note(Journal *j, size_t n, uint64_t records) {
    pthread_mutex_lock(&j->lock);
    j->at += n;
    j->written += records;
    j->committed -= n;
    j->retry_ns = 0;
    j->counts.records += (int64_t)records;
    j->counts.bytes += (int64_t)n;
    j->counts.writes++;
    if (!j->dirty_ns) j->dirty_ns = os_mono_ns(j->os);
    pthread_mutex_unlock(&j->lock);
}

// The batch stays and is tried again; until then nothing new is promised, nor what was queued
// behind it meanwhile: on a disk that never mends nobody would be told.
static void failed_note(Journal *j, err e) {
    pthread_mutex_lock(&j->lock);
    waiters_fail(j, j->appended, e);
    j->counts.write_errors++;
    j->retry_ns = os_mono_ns(j->os) + (int64_t)RETRY_MS * NS_PER_MS;
    pthread_mutex_unlock(&j->lock);
}

static bool batch_write(Journal *j) {
    uint64_t records;
    pthread_mutex_lock(&j->lock);
    size_t room = j->current.file ? segment_room(j, j->at) : 0;
    bool replace = j->replace;
    pthread_mutex_unlock(&j->lock);
    size_t n = run_length(&j->batch, j->batch_at, room, &records);
    if (!n || replace) {
        if (roll(j)) return true;
        if (!n) failed_note(j, ERR_FULL);
        if (!n) return false; // else better here than nowhere
    }
    Ctx c;
    ctx_init(&c, arena_new(), j->os);
    const char *p = j->batch.p + j->batch_at;
    err e = file_write_at(&c, j->current.file, (int64_t)j->at, p, n);
    arena_free(c.mem);
    if (e) {
        failed_note(j, e);
        return false;
    }
    j->batch_at += n;
    written_note(j, n, records);
    return true;
}

static bool batch_take(Journal *j) {
    pthread_mutex_lock(&j->lock);
    Bytes empty = j->batch;
    empty.n = 0;
    j->batch = j->queue;
    j->queue = empty;
    j->batch_at = 0;
    j->queued_ns = 0;
    j->write_now = false;
    atomic_store(&j->has_queue, false);
    pthread_mutex_unlock(&j->lock);
    return j->batch.n != 0;
}

// True when something was written.
static bool write_all(Journal *j) {
    bool any = false;
    pthread_mutex_lock(&j->io);
    while (j->batch_at < j->batch.n || batch_take(j)) {
        if (!batch_write(j)) break;
        any = true;
    }
    pthread_mutex_unlock(&j->io);
    if (any && j->on_data) j->on_data(j->on_data_arg);
    return any;
}

static void turn(void *arg) {
    Journal *j = arg;
    if (!atomic_load_explicit(&j->has_queue, memory_order_acquire)) return;
    write_all(j);
    pthread_mutex_lock(&j->lock);
    bool tell = j->idle || j->wanted > j->synced;
    pthread_mutex_unlock(&j->lock);
    if (tell) kick(j);
}

// ---- syncing

static void sync_now(Journal *j) {
    Ctx c;
    ctx_init(&c, arena_new(), j->os);
    pthread_mutex_lock(&j->sync);
    pthread_mutex_lock(&j->lock);
    uint64_t upto = j->written;
    bool due = upto > j->synced;
    j->dirty_ns = 0;
    pthread_mutex_unlock(&j->lock);
    err e = due ? file_sync(&c, j->current.file) : ERR_OK;
    pthread_mutex_lock(&j->lock);
    if (due && j->replace && !e) e = j->last_error; // no other segment could be had
    if (e) sync_failed(j, upto, e);
    if (due) {
        j->synced = upto;
        j->counts.syncs++;
        pthread_cond_broadcast(&j->done);
    }
    pthread_mutex_unlock(&j->lock);
    pthread_mutex_unlock(&j->sync);
    arena_free(c.mem);
}

// ---- the work of the thread, or of the timer

static bool write_due(const Journal *j, int64_t now_ns) {
    if (j->retry_ns) return now_ns >= j->retry_ns;
    if (!j->queue.n) return false;
    return j->write_now || now_ns - j->queued_ns >= (int64_t)WRITE_MS * NS_PER_MS;
}

static bool sync_due(const Journal *j, int64_t now_ns) {
    if (j->wanted > j->synced && j->written > j->synced) return true;
    return j->dirty_ns && now_ns - j->dirty_ns >= (int64_t)SYNC_MS * NS_PER_MS;
}

static int64_t earlier(int64_t a, int64_t b) { return a && a < b ? a : b; }

// Lock held. When there is something to do next; INT64_MAX: when told.
static int64_t next_due(const Journal *j, int64_t now_ns) {
    int64_t due = INT64_MAX;
    if (write_due(j, now_ns) || sync_due(j, now_ns)) return now_ns;
    if (j->retry_ns) due = earlier(j->retry_ns, due);
    else if (j->queued_ns) due = earlier(j->queued_ns + (int64_t)WRITE_MS * NS_PER_MS, due);
    if (j->dirty_ns) due = earlier(j->dirty_ns + (int64_t)SYNC_MS * NS_PER_MS, due);
    if (spare_wanted(j))
        due = earlier(j->full_ns ? j->full_ns + (int64_t)1000 * NS_PER_MS : now_ns, due);
    return due;
}

static void work_pass(Journal *j) {
    pthread_mutex_lock(&j->lock);
    int64_t now_ns = os_mono_ns(j->os);
    bool must_write = write_due(j, now_ns);
    pthread_mutex_unlock(&j->lock);
    if (must_write) write_all(j);
    pthread_mutex_lock(&j->lock);
    bool must_sync = sync_due(j, now_ns);
    pthread_mutex_unlock(&j->lock);
    if (must_sync) sync_now(j);
    waiters_settle(j);
    pthread_mutex_lock(&j->lock);
    bool must_prepare =
        spare_wanted(j) && (!j->full_ns || now_ns - j->full_ns >= (int64_t)1000 * NS_PER_MS);
    pthread_mutex_unlock(&j->lock);
    if (must_prepare) spare_make(j, spare_ahead(j));
}

static void work_thread(void *arg) {
    Journal *j = arg;
    for (;;) {
        work_pass(j);
        pthread_mutex_lock(&j->lock);
        int64_t due = next_due(j, os_mono_ns(j->os));
        if (!j->stop && due == INT64_MAX) {
            j->idle = true;
            pthread_cond_wait(&j->work, &j->lock);
            j->idle = false;
        } else if (!j->stop && due > os_mono_ns(j->os)) {
            struct timespec until = { due / 1000000000, due % 1000000000 };
            pthread_cond_timedwait(&j->work, &j->lock, &until);
        }
        bool stop = j->stop;
        pthread_mutex_unlock(&j->lock);
        if (stop) return;
    }
}

static void work_timer(void *arg) {
    Journal *j = arg;
    work_pass(j);
    int64_t now_ns = os_mono_ns(j->os), due = next_due(j, now_ns);
    if (due == INT64_MAX) return;
    timer_start(j->timer, due > now_ns ? (due - now_ns + NS_PER_MS - 1) / NS_PER_MS : 0);
}

static void work_posted(void *arg) {
    Journal *j = *(Journal **)arg; // NULL: closed meanwhile
    mem_free(arg);
    if (!j) return;
    j->posted = NULL;
    work_timer(j);
}

static void work_later(Journal *j) {
    if (!j->timer || j->posted) return;
    j->posted = mem_new(sizeof *j->posted);
    *j->posted = j;
    loop_post(j->loops[0], work_posted, j->posted);
}

void journal_attach(Journal *j, Loop *l) {
    assert(j->loops_n < LOOPS_MAX);
    j->loops[j->loops_n++] = l;
    loop_on_turn(l, turn, j);
    if (!j->threaded && !j->timer) j->timer = timer_new(l, work_timer, j);
}

err journal_flush(Ctx *c, Journal *j) {
    pthread_mutex_lock(&j->lock);
    uint64_t upto = j->appended, failures = j->failures, unsynced = j->unsynced_told;
    if (upto > j->wanted) j->wanted = upto;
    j->write_now = true;
    if (!j->threaded) {
        pthread_mutex_unlock(&j->lock);
        write_all(j);
        sync_now(j);
        waiters_settle(j);
        pthread_mutex_lock(&j->lock);
    }
    pthread_cond_signal(&j->work);
    while (j->threaded && j->synced < upto && j->failures == failures)
        pthread_cond_wait(&j->done, &j->lock);
    bool failed = j->synced < upto || j->unsynced != unsynced;
    j->unsynced_told = j->unsynced;
    err e = j->last_error ? j->last_error : ERR_INTERNAL;
    pthread_mutex_unlock(&j->lock);
    if (!failed) return ERR_OK;
    return fail(c, e, R_INTERNAL, "why", "the journal could not be written and synced");
}

// ---- opening and closing

static void locks_init(Journal *j) {
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&j->work, &attr);
    pthread_cond_init(&j->done, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&j->prepare, NULL);
    pthread_mutex_init(&j->io, NULL);
    pthread_mutex_init(&j->sync, NULL);
    pthread_mutex_init(&j->lock, NULL);
}

static void journal_free(Journal *j) {
    file_close(j->current.file);
    for (size_t i = 0; i < j->spares_n; i++) file_close(j->spares[i].file);
    pthread_cond_destroy(&j->work);
    pthread_cond_destroy(&j->done);
    pthread_mutex_destroy(&j->prepare);
    pthread_mutex_destroy(&j->io);
    pthread_mutex_destroy(&j->sync);
    pthread_mutex_destroy(&j->lock);
    mem_free(j->batch.p);
    mem_free(j->queue.p);
    mem_free(j->old);
    mem_free(j->waiters);
    arena_free(j->mem);
    mem_free(j);
}

err journal_open_sized(Ctx *c, str dir, uint32_t node, size_t segment_bytes, Journal **out) {
    assert(segment_bytes >= 4096);
    Journal *j = mem_new(sizeof *j);
    j->os = c->os;
    j->mem = arena_new();
    j->dir = arena_printf(j->mem, STR_FMT "/journal", STR_ARG(dir)).p;
    j->node = node;
    j->segment_bytes = segment_bytes;
    j->record_max = segment_bytes / 4 < JOURNAL_RECORD_MAX ? segment_bytes / 4 : JOURNAL_RECORD_MAX;
    locks_init(j);
    err e = dir_make(c, str_z(j->dir), 0700);
    if (!e) e = segments_recover(c, j, dir);
    if (!e) e = life_open(c, j);
    j->threaded = thread_can_start(j->os);
    if (!e && j->threaded) e = thread_open(c, "journal", work_thread, j, &j->thread);
    if (e) {
        journal_free(j);
        return e;
    }
    *out = j;
    return ERR_OK;
}

err journal_open(Ctx *c, str dir, uint32_t node, Journal **out) {
    return journal_open_sized(c, dir, node, JOURNAL_SEGMENT, out);
}

static void thread_end(Journal *j) {
    if (!j->threaded) return;
    pthread_mutex_lock(&j->lock);
    j->stop = true;
    pthread_cond_signal(&j->work);
    pthread_mutex_unlock(&j->lock);
    thread_join(j->thread);
}

// So that the next open need not look for its end. When this fails, it is as after a death.
static void current_close(Journal *j) {
    if (j->batch_at < j->batch.n || j->replace) return;
    Ctx c;
    err e = ERR_OK;
    ctx_init(&c, arena_new(), j->os);
    if (j->current.file && j->at > SEGMENT_HEADER) e = segment_close(&c, j->current.file, j->at);
    if (!e && j->synced == j->appended) life_close(&c, j);
    arena_free(c.mem);
}

void journal_close(Journal *j) {
    if (!j) return;
    thread_end(j);
    write_all(j);
    sync_now(j);
    waiters_settle(j);
    current_close(j);
    timer_free(j->timer);
    if (j->posted) *j->posted = NULL;
    journal_free(j);
}

void journal_drop(Journal *j) {
    thread_end(j);
    timer_free(j->timer);
    mem_free(j->posted); // it vanished with its loop
    journal_free(j);
}

void journal_on_data(Journal *j, void (*fn)(void *), void *arg) {
    j->on_data = fn;
    j->on_data_arg = arg;
}

JournalCounts journal_counts(Journal *j) {
    pthread_mutex_lock(&j->lock);
    JournalCounts counts = j->counts;
    counts.segments = (int64_t)(j->old_n + j->spares_n + (j->current.file != NULL));
    counts.reserved_bytes = (int64_t)j->reserved;
    counts.full = j->full_ns && journal_room(j) < (int64_t)j->record_max;
    pthread_mutex_unlock(&j->lock);
    return counts;
}
