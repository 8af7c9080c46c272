// SPDX-License-Identifier: Apache-2.0
// probe.c - is a replica there and does it answer. Each has a probe on loops[0] with a timer of its
// own: health; before it is first called ready a trial request of one token; health again and
// again. A name is looked up on the pool, again each minute. What was found out is under the lock,
// for the reconciler.
// Owner: this file; a probe that is not kept dies on the loop. Threads: public functions any,
// everything of Call and Timer on loops[0].
#include "base/log.h"
#include "base/map.h"
#include "mod/deployment/watch.h"
#include <assert.h>

enum {
    LOADING_MS = 200,
    FAILED_MS = 500,
    TRIAL_MS = 300000, // a token of a big model on a small machine
    TRIALS_MAX = 3,
    LOOKUP_MS = 60000,
    BODY_MAX = 4096
};

typedef struct Probe Probe;
struct Probe {
    Arena *mem;
    ProbeSpec spec;
    Call *call; // loop only, as all up to the lock's
    Timer *timer;
    bool trial;
    int status, trials;
    Buf body;
    Addr asked; // where the call under way went
    int64_t looked_up_ns;
    // under the lock
    Probe *next;
    Addr addr;
    bool resolving, asking;
    bool poked, nudged, dead; // poked: not yet said by probe_view; nudged: ask now
    ProbeState state;
    int64_t answered_ns; // when it last answered anything, or was first asked
    str text;            // heap
};

static struct {
    pthread_mutex_t lock;
    Map by_id;  // the living
    Probe *all; // with those that are to die
    App *app;   // NULL: closed
    void (*changed)(void);
} probes = { .lock = PTHREAD_MUTEX_INITIALIZER };

static int64_t mono_ns(void) { return os_mono_ns(probes.app->os); }

// ---- what was found
static void tell(Probe *p, ProbeState state, str text) {
    mem_free((char *)(uintptr_t)p->text.p);
    p->text = str_z(mem_strdup(text));
    p->state = state;
}

// text NULL: as before.
static void found(Probe *p, ProbeState state, bool answered, const char *text) {
    pthread_mutex_lock(&probes.lock);
    bool news = state != p->state || (text && !str_is(p->text, text));
    if (news) tell(p, state, text ? str_z(text) : S(""));
    if (answered) p->answered_ns = mono_ns();
    p->asking = false;
    pthread_mutex_unlock(&probes.lock);
    if (news && probes.changed) probes.changed();
    timer_start(p->timer, state == PROBE_READY ? setting_int(&deployment_settings[SET_PROBE_EVERY])
                          : state == PROBE_LOADING ? LOADING_MS
                                                   : FAILED_MS);
}

// ---- a call
static void ask(Probe *p, bool trial);

static void on_head(void *arg, const CallHead *h) { ((Probe *)arg)->status = h->status; }

static void on_data(void *arg, struct evbuffer *chunk) {
    Probe *p = arg;
    size_t n = evbuffer_get_length(chunk), room = BODY_MAX - p->body.n;
    size_t take = n < room ? n : room;
    char *at = take ? buf_reserve(&p->body, take) : NULL;
    if (at) {
        ev_ssize_t got = evbuffer_remove(chunk, at, take);
        buf_commit(&p->body, got > 0 ? (size_t)got : 0);
    }
    evbuffer_drain(chunk, evbuffer_get_length(chunk));
}

// What a server says of its failure: {"error":{"message":…}}, {"error":…} or its first bytes.
static const char *complaint(Ctx *c, const Probe *p) {
    yyjson_val *root;
    str body = buf_str(&p->body);
    if (json_parse(c, body, &root)) return say_str(c, str_sub(body, 0, 200));
    str text = json_get_str(json_get(root, "error"), "message");
    if (!text.p) text = json_get_str(root, "error"); // Ollama's
    return text.p ? say_str(c, text) : "";
}

// No descriptor was left for a connection: that says nothing of the engine, and it is not killed.
static bool fault_is_ours(Ctx *c, CallEnd why) {
    File *f;
    if (why != CALL_CONNECT) return false;
    err e = file_open(c, S("/dev/null"), FILE_READ, &f);
    if (!e) file_close(f);
    return e == ERR_UNAVAILABLE;
}

static ProbeState state_of(Probe *p) {
    pthread_mutex_lock(&probes.lock);
    ProbeState state = p->state;
    pthread_mutex_unlock(&probes.lock);
    return state;
}

static void excuse(Probe *p) {
    ProbeState state = state_of(p);
    found(p, state, true,
          state == PROBE_FAILED ? "this server has no file descriptor left to reach it" : NULL);
}

static void end_trial(Probe *p, CallEnd why) {
    Ctx *c = app_ctx_new(probes.app);
    if (fault_is_ours(c, why)) {
        excuse(p);
    } else if (why == CALL_OK && p->status == 200) {
        p->spec.trusted = true;
        found(p, PROBE_READY, true, "");
    } else if (why == CALL_OK && p->status == 503) {
        found(p, PROBE_LOADING, true, "");
    } else {
        const char *text =
            why == CALL_OK
                ? say(c, "its trial request was answered %d %s", p->status, complaint(c, p))
                : say(c, "its trial request ended with %s", call_end_name(why));
        found(p, ++p->trials >= TRIALS_MAX ? PROBE_BROKEN : PROBE_FAILED, why == CALL_OK, text);
    }
    app_ctx_free(c);
}

static str health_of(const Probe *p) {
    return p->spec.engine->launched ? str_z(p->spec.engine->health_path) : p->spec.health;
}

static void end_health(Probe *p, CallEnd why) {
    Ctx *c = app_ctx_new(probes.app);
    bool untried = p->spec.engine->launched && !p->spec.trusted;
    bool lacks = p->spec.may_lack_health && (p->status == 404 || p->status == 405);
    const char *path = say_str(c, health_of(p));
    if (fault_is_ours(c, why)) {
        excuse(p);
    } else if (why != CALL_OK) {
        // A slow answer is not yet a failure: a machine may be busy. Silence is counted.
        bool slow = why == CALL_TIMEOUT_FIRST || why == CALL_TIMEOUT_IDLE;
        ProbeState before = state_of(p);
        bool fresh = before == PROBE_NONE || before == PROBE_LOADING; // not listening yet
        if (slow || (fresh && p->spec.engine->launched)) found(p, before, false, NULL);
        else
            found(p, PROBE_FAILED, false,
                  say(c, "GET %s of %s: %s", path, p->asked.text, call_end_name(why)));
    } else if (p->status == 503) {
        found(p, PROBE_LOADING, true, "");
    } else if (p->status / 100 != 2 && !lacks) {
        found(p, PROBE_FAILED, true,
              say(c, "GET %s was answered %d %s", path, p->status, complaint(c, p)));
    } else if (untried) {
        ask(p, true);
    } else {
        found(p, PROBE_READY, true, "");
    }
    app_ctx_free(c);
}

static void on_end(void *arg, CallEnd why) {
    Probe *p = arg;
    p->call = NULL;
    if (p->trial) end_trial(p, why);
    else end_health(p, why);
}

static const CallEvents call_events = { .head = on_head, .data = on_data, .end = on_end };

static str trial_body(const Probe *p) {
    return p->spec.task == TASK_EMBEDDING ? S("{\"input\":\"Hello\"}")
                                          : S("{\"prompt\":\"Hello\",\"max_tokens\":1}");
}

static void ask(Probe *p, bool trial) {
    Ctx *c = app_ctx_new(probes.app);
    const ProbeSpec *s = &p->spec;
    HttpHeader headers[2 + ENDPOINT_HEADERS] = { { S("X-Request-Id"), S("lathe-probe") },
                                                 { S("Content-Type"), S("application/json") } };
    size_t headers_n = 2;
    for (size_t i = 0; i < s->headers_n; i++) headers[headers_n++] = s->headers[i];
    str try = s->task == TASK_EMBEDDING ? S("/v1/embeddings") : S("/v1/completions");
    int64_t ms = setting_int(&deployment_settings[SET_PROBE_TIMEOUT]);
    struct evbuffer *body = trial ? evbuffer_new() : NULL;
    if (trial) evbuffer_add(body, trial_body(p).p, trial_body(p).n);
    CallSpec spec = {
        .method = trial ? HTTP_POST : HTTP_GET,
        .target = trial ? try : health_of(p),
        .host = s->host,
        .headers = headers,
        .headers_n = headers_n,
        .body = body,
        .repeatable = true,
        .connect_ms = ms,
        .first_byte_ms = trial ? TRIAL_MS : ms,
        .idle_ms = ms
    };
    pthread_mutex_lock(&probes.lock);
    spec.to = p->asked = p->addr;
    if (s->tls) spec.tls = probes.app->tls;
    p->asking = trial;
    if (!p->answered_ns) p->answered_ns = mono_ns();
    pthread_mutex_unlock(&probes.lock);
    p->trial = trial, p->status = 0;
    buf_clear(&p->body);
    assert(!s->tls || spec.tls); // never in the clear instead
    p->call = call_start(probes.app->clients[0], &spec, &call_events, p);
    if (body) evbuffer_free(body);
    app_ctx_free(c);
}

// ---- names
typedef struct Lookup {
    App *app;
    char *id, *name;
    int port;
} Lookup;

static void tend(void *unused);

static err lookup(Ctx *c, const Lookup *l, Addr *out) {
    size_t n;
    TRY(addr_resolve(c, str_z(l->name), l->port, out, 1, &n));
    bool allowed =
        setting_int(&deployment_settings[SET_PRIVATE_ENDPOINTS]) || !addr_is_private(out);
    if (allowed) return ERR_OK;
    return fail(c, ERR_DENIED, R_URL_PRIVATE, "host", l->name, "address", out->text, "setting",
                deployment_settings[SET_PRIVATE_ENDPOINTS].name);
}

static void run_lookup(void *arg) {
    Lookup *l = arg;
    Ctx *c = app_ctx_new(l->app);
    Addr addr = { 0 };
    Buf why;
    buf_init(&why, 1000);
    err e = lookup(c, l, &addr);
    if (e) failure_format(&c->failure, "en", &why);
    pthread_mutex_lock(&probes.lock);
    Probe *p = probes.app ? map_get(&probes.by_id, str_z(l->id)) : NULL;
    if (p) {
        p->resolving = false, p->nudged = !e;
        if (!e) p->addr = addr;
        else if (!p->addr.text[0]) tell(p, PROBE_FAILED, buf_str(&why));
    }
    pthread_mutex_unlock(&probes.lock);
    loop_post(l->app->loops[0], tend, NULL);
    buf_done(&why), app_ctx_free(c);
    mem_free(l->id), mem_free(l->name), mem_free(l);
}

// False while there is no address yet.
static bool located(Probe *p) {
    if (!p->spec.resolve.n) return true;
    bool due = !p->looked_up_ns || mono_ns() - p->looked_up_ns > (int64_t)LOOKUP_MS * 1000000;
    pthread_mutex_lock(&probes.lock);
    bool known = p->addr.text[0], go = (due || !known) && !p->resolving;
    if (go) p->resolving = true;
    pthread_mutex_unlock(&probes.lock);
    if (!go) return known;
    p->looked_up_ns = mono_ns();
    Lookup *l = mem_new(sizeof *l);
    *l = (Lookup){ probes.app, mem_strdup(p->spec.id), mem_strdup(p->spec.resolve), p->spec.port };
    if (pool_submit(probes.app->pool, run_lookup, l)) return known;
    mem_free(l->id), mem_free(l->name), mem_free(l);
    pthread_mutex_lock(&probes.lock);
    p->resolving = false;
    pthread_mutex_unlock(&probes.lock);
    return known;
}

static void on_timer(void *arg) {
    Probe *p = arg;
    if (p->call) return;
    if (located(p)) ask(p, false);
    else timer_start(p->timer, FAILED_MS);
}

// ---- life
static void probe_free(Probe *p) {
    if (p->call) call_cancel(p->call);
    timer_free(p->timer);
    buf_done(&p->body);
    mem_free((char *)(uintptr_t)p->text.p);
    arena_free(p->mem);
}

// On the loop: new ones begin, those that nobody keeps die, nudged ones ask at once. Posted without
// an argument, so that what is posted late finds what is left.
static void tend(void *unused) {
    (void)unused;
    Probe *dead = NULL;
    pthread_mutex_lock(&probes.lock);
    bool on = probes.app && !loop_stopping(probes.app->loops[0]);
    for (Probe **at = &probes.all; on && *at;) {
        Probe *p = *at;
        if (p->dead) {
            *at = p->next, p->next = dead, dead = p;
            continue;
        }
        if (!p->timer) p->timer = timer_new(probes.app->loops[0], on_timer, p), p->nudged = true;
        if (p->nudged && !p->call) timer_start(p->timer, 0);
        p->nudged = false;
        at = &p->next;
    }
    pthread_mutex_unlock(&probes.lock);
    while (dead) {
        Probe *p = dead;
        dead = p->next;
        probe_free(p);
    }
}

void probe_start(const ProbeSpec *spec) {
    pthread_mutex_lock(&probes.lock);
    bool there = map_get(&probes.by_id, spec->id);
    Probe *p = NULL;
    if (!there) {
        Arena *mem = arena_new();
        p = new (mem, Probe, 1);
        p->mem = mem, p->spec = *spec, p->addr = spec->addr;
        p->spec.id = arena_str(mem, spec->id), p->spec.host = arena_str(mem, spec->host);
        p->spec.resolve = arena_str(mem, spec->resolve);
        p->spec.health = arena_str(mem, spec->health);
        for (size_t i = 0; i < spec->headers_n; i++)
            p->spec.headers[i] = (HttpHeader){ arena_str(mem, spec->headers[i].name),
                                               arena_str(mem, spec->headers[i].value) };
        p->text = str_z(mem_strdup(S("")));
        buf_init(&p->body, BODY_MAX);
        map_set(&probes.by_id, p->spec.id, p);
        p->next = probes.all, probes.all = p;
    }
    pthread_mutex_unlock(&probes.lock);
    if (p) loop_post(probes.app->loops[0], tend, NULL);
}

static const str unreached = { "a request could not reach it", 28 };

void probe_view(Arena *mem, str id, ProbeView *out) {
    *out = (ProbeView){ 0 };
    pthread_mutex_lock(&probes.lock);
    Probe *p = map_get(&probes.by_id, id);
    if (p) {
        out->state = p->state, out->text = arena_str(mem, p->text);
        out->address = arena_str(mem, str_z(p->addr.text));
        bool counts = p->answered_ns && !p->asking; // a trial takes what it takes
        out->silent_ms = counts ? (mono_ns() - p->answered_ns) / 1000000 : 0;
        // Said at least once, so that whoever shuns the replica since sees it come back.
        if (p->poked && p->state == PROBE_READY) out->state = PROBE_FAILED, out->text = unreached;
        p->poked = false;
    }
    pthread_mutex_unlock(&probes.lock);
}

void probe_poke(str id) {
    void (*changed)(void) = NULL;
    pthread_mutex_lock(&probes.lock);
    Probe *p = probes.app ? map_get(&probes.by_id, id) : NULL;
    if (p && p->state == PROBE_READY) {
        p->poked = p->nudged = true;
        tell(p, PROBE_FAILED, unreached);
        changed = probes.changed;
        loop_post(probes.app->loops[0], tend, NULL);
    }
    pthread_mutex_unlock(&probes.lock);
    if (changed) changed();
}

void probes_keep(bool (*wanted)(void *arg, str id), void *arg) {
    MapEntry *e;
    bool any = false;
    pthread_mutex_lock(&probes.lock);
    for (size_t i = 0; map_each(&probes.by_id, &i, &e);) {
        Probe *p = e->value;
        if (wanted(arg, p->spec.id)) continue;
        map_del(&probes.by_id, p->spec.id);
        p->dead = any = true;
    }
    if (any) loop_post(probes.app->loops[0], tend, NULL);
    pthread_mutex_unlock(&probes.lock);
}

void probes_open(App *app, void (*changed)(void)) {
    pthread_mutex_lock(&probes.lock);
    map_init(&probes.by_id, 0x70726f62);
    probes.app = app, probes.changed = changed;
    pthread_mutex_unlock(&probes.lock);
}

void probes_close(void) {
    pthread_mutex_lock(&probes.lock);
    for (Probe *p = probes.all, *next; p; p = next) {
        next = p->next;
        probe_free(p);
    }
    if (probes.app) map_done(&probes.by_id);
    probes.app = NULL, probes.changed = NULL, probes.all = NULL;
    pthread_mutex_unlock(&probes.lock);
}
