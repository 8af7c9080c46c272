// SPDX-License-Identifier: Apache-2.0
// line.c - see line.h. Turns are handed out whenever a slot frees or replicas change: the replica
// with the least in flight is taken from the snapshot of that moment, so a replica that drains or
// died gets nothing new. A turn that is on its way to a loop when its flow leaves comes back as a
// freed slot. A line's memory stays; when there are LINES_MAX, one that nobody uses becomes that of
// another deployment. Locks, in this order: lines.lock, a line's.
#include "mod/gateway/line.h"
#include "base/map.h"
#include <assert.h>

enum { LINES_MAX = 4096, REPLICAS_MAX = 256, SERVICE_FIRST_MS = 1000 };
#define SHUN_NS 1000000000LL // a replica that failed a request gets none for so long

typedef enum { TICKET_WAITING, TICKET_CALLED, TICKET_HOLDING, TICKET_LEFT } TicketState;
typedef struct KeyLine {
    struct KeyLine *next;
    Ticket *first, *last;
    int64_t n;
    str key;
} KeyLine;
typedef struct ProjectLine {
    struct ProjectLine *next;
    KeyLine *turn;
    int64_t keys, n;
    str project;
} ProjectLine; // turn: last served; circular

struct Ticket {
    Line *line;
    LineCall call;
    TicketState state;
    Ticket *next, *prev; // within its key
    KeyLine *key;
    ProjectLine *project;
    str replica;
    char *text; // behind project, key
};
typedef struct Slot {
    char *replica;
    int64_t in_flight;
    int64_t shunned_ns; // when a request last failed there; 0: long ago
} Slot;
struct Line {
    pthread_mutex_t lock;
    atomic_int users; // tickets, and calls that look at it; they begin under lines.lock
    char *deployment;
    Slot slots[REPLICAS_MAX];
    size_t slots_n;
    ProjectLine *turn; // last served; circular
    int64_t waiting, running, service_ms;
};

static struct {
    pthread_mutex_t lock;
    Map by_id;
    Line *all[LINES_MAX];
    size_t n, hand; // hand: where the search for an unused one goes on
} lines = { .lock = PTHREAD_MUTEX_INITIALIZER };

// ---- under lines.lock
static Line *line_new(void) {
    if (!lines.n) map_init(&lines.by_id, 0x6c696e65);
    Line *l = mem_new(sizeof *l);
    pthread_mutex_init(&l->lock, NULL);
    lines.all[lines.n++] = l;
    return l;
}

static Line *line_unused(void) {
    for (size_t i = 0; i < LINES_MAX; i++) {
        Line *l = lines.all[lines.hand++ % LINES_MAX];
        if (atomic_load(&l->users)) continue;
        map_del(&lines.by_id, str_z(l->deployment));
        return l;
    }
    return NULL;
}

static Line *line_make(str deployment) {
    Line *l = lines.n < LINES_MAX ? line_new() : line_unused();
    if (!l) return NULL;
    pthread_mutex_lock(&l->lock); // who refreshes or counts them all may look
    assert(!l->waiting && !l->running);
    for (; l->slots_n; l->slots_n--) {
        Slot *last = &l->slots[l->slots_n - 1];
        mem_free(last->replica);
        *last = (Slot){ 0 };
    }
    mem_free(l->deployment);
    l->deployment = mem_strdup(deployment), l->service_ms = SERVICE_FIRST_MS;
    pthread_mutex_unlock(&l->lock);
    map_set(&lines.by_id, str_z(l->deployment), l);
    return l;
}

// Until line_give. NULL: as many as there may be are in use.
static Line *line_take(str deployment) {
    pthread_mutex_lock(&lines.lock);
    Line *l = lines.n ? map_get(&lines.by_id, deployment) : NULL;
    if (!l) l = line_make(deployment);
    if (l) atomic_fetch_add(&l->users, 1);
    pthread_mutex_unlock(&lines.lock);
    return l;
}

static void line_give(Line *l) { atomic_fetch_sub(&l->users, 1); }

// ---- slots of a locked line
static Slot *slot_of(Line *l, str replica) {
    Slot *idle = NULL;
    for (size_t i = 0; i < l->slots_n; i++) {
        if (str_is(replica, l->slots[i].replica)) return &l->slots[i];
        if (!l->slots[i].in_flight) idle = &l->slots[i];
    }
    if (l->slots_n < REPLICAS_MAX) idle = &l->slots[l->slots_n++];
    if (!idle) return NULL;
    mem_free(idle->replica);
    *idle = (Slot){ mem_strdup(replica), 0, 0 };
    return idle;
}

static Slot *least_busy(Line *l, const DeploymentEntry *d) {
    Slot *best = NULL;
    for (size_t i = 0; i < d->replicas_n; i++) {
        const Replica *r = &d->replicas[i];
        if (!r->ready || r->draining) continue;
        Slot *s = slot_of(l, r->id);
        if (s && !s->shunned_ns && s->in_flight < d->slots
            && (!best || s->in_flight < best->in_flight))
            best = s;
    }
    return best;
}

static void hold(Ticket *t, Slot *s) {
    s->in_flight++, t->line->running++;
    t->replica = str_z(s->replica);
    replica_begin(t->replica);
}

static void let_go(Ticket *t) {
    if (!t->replica.n) return;
    Slot *s = slot_of(t->line, t->replica);
    assert(s && s->in_flight > 0);
    replica_end(t->replica);
    s->in_flight--, t->line->running--;
    t->replica = (str){ 0 };
}

// ---- the circular lists
static ProjectLine *project_line(Line *l, str project) {
    ProjectLine *p = l->turn;
    if (p) do
            if (str_eq(p->project, project)) return p;
        while ((p = p->next) != l->turn);
    p = mem_new(sizeof *p);
    p->project = str_z(mem_strdup(project));
    p->next = l->turn ? l->turn->next : p; // right after the last served: next in turn
    if (l->turn) l->turn->next = p;
    else l->turn = p;
    return p;
}

static KeyLine *key_line(ProjectLine *p, str key) {
    KeyLine *k = p->turn;
    if (k) do
            if (str_eq(k->key, key)) return k;
        while ((k = k->next) != p->turn);
    k = mem_new(sizeof *k);
    k->key = str_z(mem_strdup(key));
    k->next = p->turn ? p->turn->next : k;
    if (p->turn) p->turn->next = k;
    else p->turn = k;
    p->keys++;
    return k;
}

static void drop_key(ProjectLine *p, KeyLine *k) {
    KeyLine *before = k;
    while (before->next != k) before = before->next;
    before->next = k->next;
    if (p->turn == k) p->turn = before == k ? NULL : before;
    p->keys--;
    mem_free((char *)(uintptr_t)k->key.p), mem_free(k);
}

static void drop_project(Line *l, ProjectLine *p) {
    ProjectLine *before = p;
    while (before->next != p) before = before->next;
    before->next = p->next;
    if (l->turn == p) l->turn = before == p ? NULL : before;
    mem_free((char *)(uintptr_t)p->project.p), mem_free(p);
}

static void enqueue(Line *l, Ticket *t, bool first) {
    KeyLine *k = NULL;
    t->project = project_line(l, t->call.project);
    t->key = k = key_line(t->project, t->call.key);
    t->prev = first ? NULL : k->last, t->next = first ? k->first : NULL;
    *(t->prev ? &t->prev->next : &k->first) = t;
    *(t->next ? &t->next->prev : &k->last) = t;
    k->n++, t->project->n++, l->waiting++;
    t->state = TICKET_WAITING;
}

static void dequeue(Line *l, Ticket *t) {
    *(t->prev ? &t->prev->next : &t->key->first) = t->next;
    *(t->next ? &t->next->prev : &t->key->last) = t->prev;
    l->waiting--, t->project->n--;
    if (!--t->key->n) drop_key(t->project, t->key);
    if (!t->project->n) drop_project(l, t->project);
    t->key = NULL, t->project = NULL, t->next = t->prev = NULL;
}

static Ticket *next_in_turn(Line *l) {
    if (!l->turn) return NULL;
    ProjectLine *p = l->turn = l->turn->next;
    p->turn = p->turn->next;
    Ticket *t = p->turn->first;
    dequeue(l, t);
    return t;
}

static void ticket_free(Ticket *t) {
    line_give(t->line);
    mem_free(t->text);
    mem_free(t);
}

static void called(void *arg) {
    Ticket *t = arg;
    Line *l = t->line;
    pthread_mutex_lock(&l->lock);
    bool left = t->state == TICKET_LEFT;
    if (!left) t->state = TICKET_HOLDING;
    pthread_mutex_unlock(&l->lock);
    if (left || loop_stopping(t->call.loop)) ticket_free(t); // its slot went back when it left
    else t->call.turn(t->call.arg);
}

static void serve_next(Line *l, const DeploymentEntry *d) {
    for (Slot *s; l->waiting && (s = least_busy(l, d));) {
        Ticket *t = next_in_turn(l);
        hold(t, s);
        t->state = TICKET_CALLED;
        loop_post(t->call.loop, called, t);
    }
}

static void serve_now(Line *l) {
    if (!l->waiting) return;
    const Snapshot *s = snapshot_take();
    const DeploymentEntry *d = deployment_by_id(s, str_z(l->deployment));
    if (d) serve_next(l, d);
    snapshot_give(s);
}

// A failure says little of what comes later, and no new snapshot follows one that passed.
static void forgive(Line *l, int64_t now_ns) {
    for (size_t i = 0; i < l->slots_n; i++)
        if (now_ns - l->slots[i].shunned_ns > SHUN_NS) l->slots[i].shunned_ns = 0;
}

// ---- for flows
static bool could_serve(const DeploymentEntry *d) {
    if (deployment_elsewhere(d).n) return false; // waiting here would be for nothing
    for (size_t i = 0; i < d->replicas_n; i++)
        if (!d->replicas[i].draining) return true; // one that is loading will be ready
    return str_is(d->state, "starting") || str_is(d->state, "updating");
}

static Ticket *ticket_new(Line *l, const LineCall *call) {
    Ticket *t = mem_new(sizeof *t);
    t->line = l, t->call = *call;
    atomic_fetch_add(&l->users, 1);
    t->text = mem_new(call->project.n + call->key.n + 1);
    memcpy(t->text, call->project.p, call->project.n);
    if (call->key.n) memcpy(t->text + call->project.n, call->key.p, call->key.n);
    t->call.project = str_n(t->text, call->project.n),
    t->call.key = str_n(t->text + call->project.n, call->key.n);
    return t;
}

LineAnswer line_join(const DeploymentEntry *d, const LineCall *call, Ticket **out) {
    Line *l = could_serve(d) ? line_take(d->id) : NULL;
    LineAnswer answer = LINE_GO;
    if (!l) return LINE_NONE;
    pthread_mutex_lock(&l->lock);
    forgive(l, loop_now_ns(call->loop));
    Slot *s = l->waiting ? NULL : least_busy(l, d);
    if (!s && l->waiting >= d->queue_max) answer = LINE_FULL;
    else {
        *out = ticket_new(l, call);
        if (s) hold(*out, s), (*out)->state = TICKET_HOLDING;
        else enqueue(l, *out, false), answer = LINE_WAIT;
    }
    pthread_mutex_unlock(&l->lock);
    line_give(l);
    return answer;
}

static void count_slots(Line *l, const DeploymentEntry *d, LineFigures *out) {
    for (size_t i = 0; i < d->replicas_n; i++) {
        const Replica *r = &d->replicas[i];
        Slot *s = r->ready && !r->draining ? slot_of(l, r->id) : NULL;
        if (!s) continue;
        out->ready++, out->failed += s->shunned_ns != 0;
        if (!s->shunned_ns && s->in_flight < d->slots) out->free += d->slots - s->in_flight;
    }
    out->running = l->running, out->waiting = l->waiting;
}

LineAnswer line_ask(const DeploymentEntry *d, int64_t now_ns, LineFigures *out) {
    *out = (LineFigures){ 0 };
    Line *l = line_take(d->id);
    if (!l) return LINE_NONE;
    pthread_mutex_lock(&l->lock);
    forgive(l, now_ns);
    count_slots(l, d, out);
    pthread_mutex_unlock(&l->lock);
    line_give(l);
    if (!could_serve(d)) return LINE_NONE;
    if (out->free && !out->waiting) return LINE_GO;
    return out->waiting >= d->queue_max ? LINE_FULL : LINE_WAIT;
}

static void release(Ticket *t, int64_t service_ms) {
    Line *l = t->line;
    pthread_mutex_lock(&l->lock);
    bool on_its_way = t->state == TICKET_CALLED;
    if (t->state == TICKET_WAITING) dequeue(l, t);
    let_go(t);
    t->state = TICKET_LEFT;
    if (service_ms >= 0) l->service_ms += (service_ms - l->service_ms) / 8;
    serve_now(l);
    pthread_mutex_unlock(&l->lock);
    if (!on_its_way) ticket_free(t);
}
void line_leave(Ticket *t) { release(t, -1); }
void line_done(Ticket *t, int64_t service_ms) { release(t, service_ms); }

LineAnswer line_other(Ticket *t) {
    LineAnswer answer = LINE_NONE;
    Line *l = t->line;
    const Snapshot *snap = snapshot_take();
    const DeploymentEntry *d = deployment_by_id(snap, str_z(l->deployment));
    pthread_mutex_lock(&l->lock);
    Slot *failed = slot_of(l, t->replica), *s = NULL;
    assert(t->state == TICKET_HOLDING);
    if (failed) failed->shunned_ns = loop_now_ns(t->call.loop);
    let_go(t);
    if (d && could_serve(d)) {
        if (!l->waiting) s = least_busy(l, d);
        if (s) hold(t, s), answer = LINE_GO;
        else enqueue(l, t, true), answer = LINE_WAIT;
    }
    pthread_mutex_unlock(&l->lock);
    snapshot_give(snap);
    return answer;
}

void line_look(Ticket *t) {
    Line *l = t->line;
    pthread_mutex_lock(&l->lock);
    forgive(l, loop_now_ns(t->call.loop));
    serve_now(l);
    pthread_mutex_unlock(&l->lock);
}

str ticket_replica(const Ticket *t) { return t->replica; }

// Turns before this one: its key's turn comes once a round of its project's keys, its project's
// once a round of projects.
int64_t ticket_position(const Ticket *t) {
    Line *l = t->line;
    pthread_mutex_lock(&l->lock);
    int64_t ahead = 0, in_project = 0, total = 0;
    if (t->state == TICKET_WAITING) {
        for (const Ticket *p = t->prev; p; p = p->prev) ahead++;
        KeyLine *k = t->project->turn;
        do in_project += k->n < ahead + 1 ? k->n : ahead + 1;
        while ((k = k->next) != t->project->turn);
        ProjectLine *p = l->turn;
        do total += p->n < in_project ? p->n : in_project;
        while ((p = p->next) != l->turn);
    }
    pthread_mutex_unlock(&l->lock);
    return total;
}

int64_t line_retry_after_ms(const DeploymentEntry *d) {
    Line *l = line_take(d->id);
    if (!l) return 1000;
    pthread_mutex_lock(&l->lock);
    int64_t room = d->slots * (int64_t)(d->replicas_n ? d->replicas_n : 1);
    int64_t ms = l->service_ms * (l->waiting + 1) / (room ? room : 1);
    pthread_mutex_unlock(&l->lock);
    line_give(l);
    return ms < 1000 ? 1000 : ms > 300000 ? 300000 : ms;
}

void lines_refresh(void *unused) {
    (void)unused;
    pthread_mutex_lock(&lines.lock);
    size_t n = lines.n;
    pthread_mutex_unlock(&lines.lock);
    for (size_t i = 0; i < n; i++) {
        Line *l = lines.all[i];
        pthread_mutex_lock(&l->lock);
        serve_now(l);
        pthread_mutex_unlock(&l->lock);
    }
}

size_t lines_view(Ctx *c, LineView **out) {
    pthread_mutex_lock(&lines.lock);
    size_t n = lines.n;
    pthread_mutex_unlock(&lines.lock);
    *out = new (c->mem, LineView, n + 1);
    for (size_t i = 0; i < n; i++) {
        Line *l = lines.all[i];
        pthread_mutex_lock(&l->lock);
        (*out)[i] = (LineView){ arena_str(c->mem, str_z(l->deployment)), l->waiting, l->running };
        pthread_mutex_unlock(&l->lock);
    }
    return n;
}
