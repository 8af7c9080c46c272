// SPDX-License-Identifier: Apache-2.0
// observe.c - what is seen of a deployment's replicas: the executor's children (those that survived
// a restart of this program among them), probes, requests in flight.
// Owner: the turn. Threads: the reconciler's.
#include "mod/deployment/reconcile_own.h"
#include <assert.h>

// "<deployment>.<generation>.<number>"
bool replica_key_parse(str key, str *out_deployment, int64_t *out_generation, int64_t *out_number) {
    str rest = key, dep, generation;
    if (!str_cut(&rest, '.', &dep) || !str_cut(&rest, '.', &generation) || !rest.p) return false;
    if (!str_starts(dep, S("dep_")) || !str_to_i64(generation, out_generation)
        || !str_to_i64(rest, out_number))
        return false;
    *out_deployment = dep;
    return *out_generation > 0 && *out_number >= 0 && *out_number < REPLICAS_MAX;
}

static str read_tail(Ctx *c, str handle) {
    enum { CHUNK = 65536, TAIL = 8000, CHUNKS_MAX = 256 };
    Buf tail;
    ChildLog log;
    int64_t offset = 0;
    buf_init(&tail, 2 * CHUNK);
    for (int i = 0; i < CHUNKS_MAX; i++) {
        ArenaMark mark = arena_mark(c->mem);
        bool more =
            !executor_logs(c, app_of(c)->executor, handle, offset, CHUNK, &log) && log.text.n;
        if (more) buf_add(&tail, log.text), offset = log.next;
        arena_restore(c->mem, mark);
        if (!more) break;
        if (tail.n > TAIL) buf_drop(&tail, tail.n - TAIL);
    }
    str text = arena_str(c->mem, buf_str(&tail));
    ptrdiff_t line = tail.n == TAIL ? str_find_char(text, '\n') : -1; // the first line is cut
    buf_done(&tail);
    return str_trim(str_sub(text, (size_t)(line + 1), text.n));
}

// llama-server's lines are "0.00.423.619 E source: text".
static bool is_complaint(str line) {
    str rest = line, time, level;
    return str_cut(&rest, ' ', &time) && str_cut(&rest, ' ', &level) && str_is(level, "E");
}

// The last complaints; of a log without any its last lines.
const char *log_tail(Ctx *c, str handle) {
    enum { LINES = 4, SHORT = 200 };
    str text = read_tail(c, handle), rest = text, line, last[LINES] = { 0 };
    size_t n = 0, complaints = 0;
    if (!text.n) return "";
    while (str_cut(&rest, '\n', &line)) complaints += is_complaint(line);
    for (rest = text; str_cut(&rest, '\n', &line);)
        if (line.n && (!complaints || is_complaint(line)))
            last[n++ % LINES] = str_sub(line, 0, SHORT);
    Buf out;
    buf_init(&out, LINES * (SHORT + 4));
    for (size_t i = n > LINES ? n - LINES : 0; i < n; i++)
        buf_printf(&out, "%s" STR_FMT, out.n ? " | " : "", STR_ARG(str_trim(last[i % LINES])));
    const char *joined = arena_z(c->mem, buf_str(&out));
    buf_done(&out);
    return joined;
}

static const ChildView *child_of(const Turn *t, str id) {
    for (size_t i = 0; i < t->children_n; i++)
        if (str_eq(t->children[i].key, id)) return &t->children[i];
    return NULL;
}

static bool has_ended(const ChildView *v) {
    return v->state == CHILD_EXITED || v->state == CHILD_LOST;
}

static str end_reason(Ctx *c, const ReplicaRow *r, const ChildView *v) {
    if (r->state == AT_WAITING) return S(""); // said already
    const char *tail = log_tail(c, v->handle);
    return arena_printf(c->mem, STR_FMT "%s%s", STR_ARG(v->reason.n ? v->reason : S("it ended")),
                        *tail ? "; its log ends with: " : "", tail);
}

// What ran on a node that let its lease go is replaced here; attached servers move as they are.
static str left_node(Ctx *c, ReplicaRow *r) {
    str was = r->node, here = app_of(c)->node;
    r->node = here;
    return r->attached || r->state == AT_WAITING || str_eq(was, here) ? S("") : was;
}

static void look_at(Ctx *c, One *o, ReplicaRow *r, Seen *s) {
    const ChildView *v = s->child = child_of(o->t, r->id);
    Look *l = &s->look;
    *l = (Look){ .launched = !r->attached, .there = v, .ended = v && has_ended(v) };
    l->left = left_node(c, r);
    l->in_flight = flight_count(r->id, r->state == AT_DRAINING);
    l->ended_before = l->ended && v->adopted && v->ended_ms < o->t->opened_ms;
    if (l->ended) l->end_reason = end_reason(c, r, v);
    if (v) l->pid = v->pid, l->memory_bytes = v->memory_bytes, l->started_ms = v->started_ms;
    if (r->memory_needed > 0) l->model_bytes = o->d.serving.size_bytes;
    ProbeView probe;
    probe_view(c->mem, r->id, &probe);
    l->probe = probe.state, l->probe_text = probe.text, l->silent_ms = probe.silent_ms;
    if (!l->launched) l->address = probe.address;
}

// A child that no row tells of: this program died between starting it and saying so.
static void adopt_children(Ctx *c, One *o) {
    for (size_t i = 0; i < o->t->children_n && o->n < UNITS_MAX; i++) {
        const ChildView *v = &o->t->children[i];
        str dep;
        int64_t generation, number;
        bool ours =
            replica_key_parse(v->key, &dep, &generation, &number) && str_eq(dep, o->d.head.id);
        for (size_t r = 0; ours && r < o->n; r++) ours = !str_eq(o->rows[r].id, v->key);
        if (!ours) continue;
        ReplicaRow *row = &o->rows[o->n++];
        *row = (ReplicaRow){ .id = v->key,
                             .generation = generation,
                             .number = number,
                             .state = AT_STARTING,
                             .since = os_wall_ms(c->os),
                             .node = app_of(c)->node,
                             .memory_needed = o->d.memory_needed > 0 ? o->d.memory_needed : 0,
                             .context = o->d.serving.context,
                             .slots = o->d.slots };
    }
}

void one_observe(Ctx *c, One *o) {
    int64_t now_ms = os_wall_ms(c->os);
    adopt_children(c, o);
    for (size_t i = 0; i < o->n; i++) {
        ReplicaRow *r = &o->rows[i];
        int64_t restarts = r->restarts;
        look_at(c, o, r, &o->seen[i]);
        replica_step(c->mem, r, &o->seen[i].look, &o->policy, now_ms);
        if (r->restarts > restarts)
            metric_add(&metric_restarts, (double)(r->restarts - restarts), o->d.head.project,
                       o->d.head.name);
    }
}

void one_settle(One *o) {
    size_t n = 0;
    for (size_t i = 0; i < o->n; i++) {
        const ChildView *v = o->seen[i].child;
        if (o->rows[i].state != AT_GONE) {
            o->rows[n] = o->rows[i], o->seen[n] = o->seen[i];
            n++;
            continue;
        }
        if (v && has_ended(v)) o->gone[o->gone_n++] = v;
        flight_forget(o->rows[i].id);
    }
    o->n = n;
}
