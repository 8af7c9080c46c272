// SPDX-License-Identifier: Apache-2.0
// denial.c - refusals as entries: counted, and written at growing distances while they go on, so
// that ten thousand of them a second for a day are some thousand rows. What is counted is written
// later, never dropped: what the database does not take is counted on, and the end writes the rest.
// Threads: any counts; one at a time writes.
#include "mod/audit/audit_own.h"
#include "base/map.h"

enum { DENIALS_MAX = 1000, EVERY_MS = 1000, FARTHEST_MS = 60000, REST_MS = 60000 };
typedef struct Denial {
    str key, org, project, who, who_name, permission, target;
    int64_t n, due_ms, wait_ms; // n since it was last written; when it may be again, and how far on
    Scope scope;
} Denial;
static struct {
    pthread_mutex_t lock;
    Map seen; // by key: project, who and permission
    Arena *mem;
    Worker *writer;
} denials = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void begin(void) {
    denials.mem = arena_new();
    map_init(&denials.seen, 0x64656e);
}

void denial_reset(void) {
    map_done(&denials.seen);
    arena_free(denials.mem);
    begin();
}

void denial_writer(Worker *w) {
    pthread_mutex_lock(&denials.lock);
    denials.writer = w;
    pthread_mutex_unlock(&denials.lock);
}

static Denial *denial_copy(Arena *mem, const Denial *from) {
    Denial *d = new (mem, Denial, 1);
    *d = *from;
    str *texts[] = { &d->key,      &d->org,        &d->project, &d->who,
                     &d->who_name, &d->permission, &d->target };
    for (size_t i = 0; i < countof(texts); i++) *texts[i] = arena_str(mem, *texts[i]);
    return d;
}

static Denial *denial_keep(const Denial *from) {
    Denial *d = denial_copy(denials.mem, from);
    map_set(&denials.seen, d->key, d);
    return d;
}

// Beyond the most there is one for all others, in the system's chain: they are of many places.
static Denial *denial_of(Ctx *c, str who, const char *permission) {
    Denial made = { .org = c->org,
                    .project = c->project,
                    .who = who,
                    .who_name = c->who ? c->who->name : S("nobody"),
                    .permission = str_z(permission),
                    .scope = c->project.n ? SCOPE_PROJECT
                             : c->org.n   ? SCOPE_ORG
                                          : SCOPE_SYSTEM };
    made.key = arena_printf(c->mem, STR_FMT "/" STR_FMT "/%s", STR_ARG(c->project), STR_ARG(who),
                            permission);
    Denial *d = map_get(&denials.seen, made.key);
    if (!d && denials.seen.live >= DENIALS_MAX) {
        str others = S("others");
        made =
            (Denial){ others, { 0 }, { 0 }, others, others, others, { 0 }, .scope = SCOPE_SYSTEM };
        d = map_get(&denials.seen, others);
    }
    return d ? d : denial_keep(&made);
}

void denial_note(Ctx *c, const char *permission, str target) {
    pthread_mutex_lock(&denials.lock);
    Denial *d = denial_of(c, c->who ? c->who->id : S("nobody"), permission);
    if (!d->n++) d->target = arena_str(denials.mem, str_sub(target, 0, 200));
    worker_nudge(denials.writer);
    pthread_mutex_unlock(&denials.lock);
}

typedef struct Due {
    Denial *at;
    size_t n;
} Due;

static err write_denials(Ctx *c, Tx *tx, void *arg) {
    const Due *due = arg;
    for (size_t i = 0; i < due->n; i++) {
        const Denial *d = &due->at[i];
        Identity who = { .id = d->who, .name = d->who_name };
        c->org = d->org, c->project = d->project, c->who = &who;
        Buf b;
        buf_init(&b, 4096);
        Json j = json_to(&b);
        json_obj(&j), json_kv_i64(&j, "count", d->n), json_kv_str(&j, "first_target", d->target),
            json_end_obj(&j);
        AuditEntry entry = { "denied", "permission",  { 0 },
                             { 0 },    d->permission, arena_str(c->mem, buf_str(&b)),
                             d->scope };
        buf_done(&b);
        err failed = audit_add(c, tx, &entry);
        c->who = &identity_system; // `who` ends here
        if (failed) return failed;
    }
    return ERR_OK;
}

// What is to be written now, in c->mem; it counts anew from here on. What may be written and has
// nothing to say is forgotten, and its memory given back by moving what stays.
static Due denials_take(Ctx *c, bool all) {
    int64_t now_ms = os_mono_ns(c->os) / 1000000;
    Map was = denials.seen;
    Arena *mem = denials.mem;
    Due due = { new (c->mem, Denial, was.live + 1), 0 };
    MapEntry *e;
    begin();
    for (size_t i = 0; map_each(&was, &i, &e);) {
        Denial *d = denial_copy(c->mem, e->value);
        bool now = all || now_ms >= d->due_ms;
        if (now && !d->n) continue;
        if (now) {
            due.at[due.n++] = *d;
            d->wait_ms = d->wait_ms ? d->wait_ms * 2 : EVERY_MS;
            if (d->wait_ms > FARTHEST_MS) d->wait_ms = FARTHEST_MS;
            d->n = 0, d->target = (str){ 0 }, d->due_ms = now_ms + d->wait_ms;
        }
        denial_keep(d);
    }
    map_done(&was);
    arena_free(mem);
    return due;
}

// What could not be written is counted on.
static void denials_back(const Due *due) {
    for (size_t i = 0; i < due->n; i++) {
        Denial *d = map_get(&denials.seen, due->at[i].key);
        if (!d) d = denial_keep(&(Denial){ .key = due->at[i].key });
        int64_t more = d->n;
        *d = *denial_copy(denials.mem, &due->at[i]);
        d->n += more;
    }
}

err denial_flush(Ctx *c, bool all) {
    pthread_mutex_lock(&denials.lock);
    Due due = { 0 };
    if (denials.seen.live) due = denials_take(c, all);
    pthread_mutex_unlock(&denials.lock);
    const Identity *who = c->who;
    str org = c->org, project = c->project;
    err e = due.n ? db_tx(c, c->db, write_denials, &due) : ERR_OK;
    c->who = who, c->org = org, c->project = project;
    if (!e) return ERR_OK;
    pthread_mutex_lock(&denials.lock);
    denials_back(&due);
    pthread_mutex_unlock(&denials.lock);
    return e;
}

// The next denial after a time without any wakes it; those that follow wait for the next turn.
err denial_turn(Ctx *c, void *unused) {
    (void)unused;
    worker_pace(REST_MS);
    pthread_mutex_lock(&denials.lock);
    bool any = denials.seen.live;
    pthread_mutex_unlock(&denials.lock);
    if (any) worker_pace(EVERY_MS);
    return denial_flush(c, false);
}
