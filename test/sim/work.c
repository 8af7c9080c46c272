// SPDX-License-Identifier: Apache-2.0
// work.c - see sim_run.h: clients that ask, read, leave and change things, and remember what they
// were told. Each is a blocking program on a simulated thread.
#include "sim_run.h"
#include "os/sim_pthread.h"
#include "os/thread.h"
#include <stdio.h>
#include <strings.h>

enum { ANSWER_MAX = 4 << 20, ROUNDS = 60, WAIT_MS = 500 };

static str header_of(const FetchResult *r, const char *name) {
    for (size_t i = 0; i < r->headers_n; i++)
        if (r->headers[i].name.n == strlen(name)
            && !strncasecmp(r->headers[i].name.p, name, strlen(name)))
            return r->headers[i].value;
    return (str){ 0 };
}

typedef struct Reading {
    int pieces, leave_after; // 0: reads to the end
    bool done;               // [DONE] was seen
} Reading;

static bool read_piece(void *arg, str piece) {
    Reading *r = arg;
    if (str_find(piece, S("\"content\":\"")) >= 0) r->pieces++;
    if (str_find(piece, S("[DONE]")) >= 0) r->done = true;
    return !r->leave_after || r->pieces < r->leave_after;
}

typedef struct Question {
    const Addr *to;
    HttpMethod method;
    const char *target, *key;
    str body;
} Question;

static err fetch(Ctx *c, const Question *q, Reading *r, FetchResult *out) {
    HttpHeader headers[2] = { { S("Content-Type"), S("application/json") } };
    size_t n = 1;
    if (q->key) {
        headers[n].name = S("Authorization");
        headers[n++].value = arena_printf(c->mem, "Bearer %s", q->key);
    }
    struct evbuffer *bytes = q->body.n ? evbuffer_new() : NULL;
    if (bytes) evbuffer_add(bytes, q->body.p, q->body.n);
    CallSpec spec = { .to = *q->to,
                      .method = q->method,
                      .target = str_z(q->target),
                      .headers = headers,
                      .headers_n = n,
                      .body = bytes,
                      .connect_ms = 3000,
                      .first_byte_ms = 60000,
                      .idle_ms = 60000 };
    err e = http_fetch(c, &spec, ANSWER_MAX, r ? read_piece : NULL, r, out);
    if (bytes) evbuffer_free(bytes);
    return e;
}

Reply ask(Ctx *c, const Addr *to, HttpMethod m, const char *target, const char *key, str body) {
    FetchResult r = { 0 };
    err e = fetch(c, &(Question){ to, m, target, key, body }, NULL, &r);
    return e ? (Reply){ 0, { 0 }, err_row(e)->slug } : (Reply){ r.status, r.body, NULL };
}

static Ctx *new_ctx(World *w) {
    Ctx *c = mem_new(sizeof *c); // not in its arena, which is emptied between calls
    ctx_init(c, arena_new(), sim_node(w->sim, NODE_CLIENT));
    return c;
}

// ---- setting up

static bool must(World *w, Ctx *c, const char *target, const char *body, Reply *out) {
    Reply r = ask(c, &w->lathe, HTTP_POST, target, w->admin, str_z(body));
    if (out) *out = r;
    if (r.status == 201) return true;
    world_fail(w, "%s: %d %s " STR_FMT, target, r.status, r.why ? r.why : "", STR_ARG(r.body));
    return false;
}

static bool read_admin(World *w, Ctx *c) {
    Os *mine = c->os;
    str text;
    c->os = sim_node(w->sim, NODE_LATHE); // as its owner would, on that machine
    err e = file_read_all(c, S("/data/admin.key"), sizeof w->admin - 1, &text);
    c->os = mine;
    if (e) return false;
    snprintf(w->admin, sizeof w->admin, STR_FMT, STR_ARG(str_trim(text)));
    return true;
}

static void until_answers(World *w, Ctx *c, const char *target, const char *key, int status) {
    for (;;) {
        arena_reset(c->mem);
        Reply r = ask(c, &w->lathe, HTTP_GET, target, key, (str){ 0 });
        if (r.status == status || w->failed) return;
        thread_pause(c->os, WAIT_MS * 1000000);
    }
}

static bool deployment_ready(World *w, Ctx *c) {
    Reply r = ask(c, &w->lathe, HTTP_GET, "/lathe/v1/deployments/chat", w->admin, (str){ 0 });
    return r.status == 200 && str_find(r.body, S("\"state\":\"ready\"")) >= 0;
}

static bool make_rows(World *w, Ctx *c) {
    static const struct {
        const char *target, *body;
    } rows[] = {
        { "/lathe/v1/prices",
          "{\"name\":\"p\",\"model\":\"chat\",\"input\":\"1\",\"output\":\"2\"}" },
        { "/lathe/v1/deployments",
          "{\"name\":\"chat\",\"engine\":\"openai\",\"task\":\"chat\",\"slots\":4,\"endpoint\":"
          "{\"url\":\"http://10.0.0.2:9000/v1\",\"upstream_model\":\"fake\"}}" },
        { "/lathe/v1/service_accounts", "{\"name\":\"app\",\"roles\":[\"application\"]}" },
        { "/lathe/v1/api_keys", "{\"name\":\"app\",\"service_account\":\"app\"}" },
    };
    Reply r;
    yyjson_val *root;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!must(w, c, rows[i].target, rows[i].body, &r)) return false;
    if (!json_parse(c, r.body, &root))
        snprintf(w->key, sizeof w->key, STR_FMT, STR_ARG(json_get_str(root, "key")));
    return *w->key;
}

void work_setup(World *w) {
    Ctx *c = new_ctx(w);
    until_answers(w, c, "/readyz", NULL, 200);
    if (!read_admin(w, c)) world_fail(w, "the administrator's key is not there");
    if (w->failed || !make_rows(w, c)) return;
    while (!w->failed && !deployment_ready(w, c)) {
        arena_reset(c->mem);
        thread_pause(c->os, WAIT_MS * 1000000);
    }
    w->ready = true;
}

// ---- working

static void infer(World *w, Ctx *c) {
    Sim *s = w->sim;
    FetchResult r = { 0 };
    Reading reading = { 0 };
    Told t = { .stream = sim_random(s, 2) };
    if (t.stream && !sim_random(s, 5)) reading.leave_after = 1 + (int)sim_random(s, 10);
    str body = arena_printf(c->mem,
                            "{\"model\":\"chat\",\"max_tokens\":%d,\"stream\":%s,\"messages\":[{"
                            "\"role\":\"user\",\"content\":\"say %d things\"}]}",
                            1 + (int)sim_random(s, 16), t.stream ? "true" : "false",
                            (int)sim_random(s, 1000));
    Question q = { &w->lathe, HTTP_POST, "/v1/chat/completions", w->key, body };
    err e = fetch(c, &q, t.stream ? &reading : NULL, &r);
    if (!e) t.status = r.status;
    str id = header_of(&r, "x-request-id");
    snprintf(t.id, sizeof t.id, STR_FMT, STR_ARG(id));
    t.tokens = reading.pieces;
    t.whole = !e && r.status == 200 && (!t.stream || reading.done);
    t.at_ns = os_mono_ns(c->os);
    if (t.status) w->answered_ns = t.at_ns;
    if (w->told_n < CALLS_MAX) w->told[w->told_n++] = t;
    w->operations++;
}

void work_client(World *w, int number) {
    (void)number;
    Ctx *c = new_ctx(w);
    for (int i = 0; i < ROUNDS && !w->failed; i++) {
        arena_reset(c->mem);
        infer(w, c);
        thread_pause(c->os, (int64_t)sim_random(w->sim, 400) * 1000000);
    }
    arena_free(c->mem);
    mem_free(c);
}
