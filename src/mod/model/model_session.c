// SPDX-License-Identifier: Apache-2.0
// model_session.c - writers of uploads that stay open between the requests of one upload: a closed
// one would have to read all staged bytes again for their digest, so that small requests would cost
// the square of the file.
// Owner: this table; whoever took a session has it alone until it gives it back. At most
// SESSIONS_MAX stay open: the one that rested longest goes first, nothing is lost with it.
// Threads: workers; the lock is never held while a file is touched.
#include "mod/model/model_upload.h"
#include "os/thread.h"
#include <assert.h>
#include <time.h>

enum {
    SESSIONS_MAX = 64,
    PATIENCE_MS = 1000, // for another request to leave: a client that lost its line is back soon
    PATIENT_MAX = 2,    // that wait so: each has a worker, of which there are few for all
};

struct Session {
    Ctx *c;        // its arena holds the writer
    BlobWriter *w; // NULL while it is being opened
    str id;
    int64_t offset; // of w, readable under the lock while another has the session
    int64_t rest_ns;
    bool taken;
    Session *next;
};
static struct {
    pthread_mutex_t lock;
    pthread_cond_t given;
    Session *list;
    size_t n, patient;
} sessions = { .lock = PTHREAD_MUTEX_INITIALIZER, .given = PTHREAD_COND_INITIALIZER };

static void free_session(Session *s) {
    if (s->w) blob_pause(s->w);
    app_ctx_free(s->c);
    mem_free(s);
}

// All below with the lock held.
static Session *find(str id) {
    for (Session *s = sessions.list; s; s = s->next)
        if (str_eq(s->id, id)) return s;
    return NULL;
}
static void unlink_session(Session *s) {
    Session **at = &sessions.list;
    while (*at != s) at = &(*at)->next;
    *at = s->next;
    sessions.n--;
}
static Session *unlink_oldest(void) {
    Session *oldest = NULL;
    for (Session *s = sessions.list; s; s = s->next)
        if (!s->taken && (!oldest || s->rest_ns < oldest->rest_ns)) oldest = s;
    if (oldest) unlink_session(oldest);
    return oldest;
}

static err busy(Ctx *c, str id) {
    return fail(c, ERR_CONFLICT, R_UPLOAD_BUSY, "id", say_str(c, id));
}

static Session *new_session(str id) {
    Session *s = mem_new(sizeof *s);
    s->c = app_ctx_new(model_app());
    s->id = arena_str(s->c->mem, id);
    s->taken = true;
    return s;
}

// False: another has it still.
static bool wait_given(Ctx *c, str id) {
    int64_t until = os_mono_ns(c->os) + (int64_t)PATIENCE_MS * 1000000;
    struct timespec when = { until / 1000000000, until % 1000000000 };
    bool may = sessions.patient < PATIENT_MAX;
    sessions.patient += may;
    for (Session *s; may && (s = find(id)) && s->taken;)
        if (pthread_cond_clockwait(&sessions.given, &sessions.lock, CLOCK_MONOTONIC, &when)) break;
    sessions.patient -= may;
    Session *s = find(id);
    return !s || !s->taken;
}

// The session of that id, now the caller's; NULL: another has it. *out_left is to be freed.
static Session *claim(Ctx *c, str id, Session **out_left) {
    pthread_mutex_lock(&sessions.lock);
    bool may = wait_given(c, id);
    Session *s = may ? find(id) : NULL;
    if (may && !s) {
        if (sessions.n >= SESSIONS_MAX) *out_left = unlink_oldest();
        s = new_session(id);
        s->next = sessions.list, sessions.list = s;
        sessions.n++;
    }
    if (s) s->taken = true;
    pthread_mutex_unlock(&sessions.lock);
    return s;
}

// Takes it off the table and closes it.
static void end(Session *s) {
    pthread_mutex_lock(&sessions.lock);
    unlink_session(s);
    pthread_cond_broadcast(&sessions.given);
    pthread_mutex_unlock(&sessions.lock);
    free_session(s);
}

static void note_offset(Session *s) {
    pthread_mutex_lock(&sessions.lock);
    s->offset = blob_staged(s->w);
    pthread_mutex_unlock(&sessions.lock);
}

static err open_writer(Ctx *c, Session *s) {
    BlobWriter *w;
    err e = blob_stage(s->c, model_app()->blobs, s->id, &w);
    if (e) {
        c->failure = failure_copy(c->mem, &s->c->failure);
        if (c->failure.why == &R_BLOB_STAGED) e = busy(c, s->id);
        end(s);
        return e;
    }
    pthread_mutex_lock(&sessions.lock);
    s->w = w;
    pthread_mutex_unlock(&sessions.lock);
    note_offset(s);
    return ERR_OK;
}

err model_session_take(Ctx *c, str id, Session **out) {
    Session *left = NULL, *s = claim(c, id, &left);
    if (left) free_session(left);
    if (!s) return busy(c, id);
    if (!s->w) TRY(open_writer(c, s));
    *out = s;
    return ERR_OK;
}

err model_session_append(Ctx *c, Session *s, str bytes) {
    assert(s->taken);
    err e = blob_append(c, s->w, bytes);
    note_offset(s);
    return e;
}

err model_session_sync(Ctx *c, Session *s) {
    assert(s->taken);
    return blob_sync(c, s->w);
}

int64_t model_session_offset(const Session *s) {
    assert(s->taken);
    return blob_staged(s->w);
}

void model_session_give(Session *s) {
    int64_t now_ns = os_mono_ns(s->c->os);
    pthread_mutex_lock(&sessions.lock);
    assert(s->taken);
    s->taken = false, s->rest_ns = now_ns;
    pthread_cond_broadcast(&sessions.given);
    pthread_mutex_unlock(&sessions.lock);
}

err model_session_peek(Ctx *c, str id, int64_t *out_offset) {
    pthread_mutex_lock(&sessions.lock);
    Session *s = find(id);
    bool there = s && s->w;
    if (there) *out_offset = s->offset;
    pthread_mutex_unlock(&sessions.lock);
    if (there) return ERR_OK;
    TRY(model_session_take(c, id, &s));
    *out_offset = model_session_offset(s);
    model_session_give(s);
    return ERR_OK;
}

err model_session_close(Ctx *c, str id) {
    pthread_mutex_lock(&sessions.lock);
    bool may = wait_given(c, id);
    Session *s = may ? find(id) : NULL;
    if (s) unlink_session(s);
    pthread_mutex_unlock(&sessions.lock);
    if (!may) return busy(c, id);
    if (s) free_session(s);
    return ERR_OK;
}

void model_sessions_close(void) {
    for (;;) {
        pthread_mutex_lock(&sessions.lock);
        Session *s = unlink_oldest();
        pthread_mutex_unlock(&sessions.lock);
        if (!s) return;
        free_session(s);
    }
}
