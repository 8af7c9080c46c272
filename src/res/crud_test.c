// SPDX-License-Identifier: Apache-2.0
// crud_test.c - the derived routes of the toys over HTTP: what the conformance of the real modules
// does not reach, because none of them has it: actions of both kinds with a body, exports of many
// rows, one Idempotency-Key from many clients at once, and what strangers put into a query.
#include "net/client.h"
#include "res/bind.h"
#include "res/toy_test.h"

typedef struct Web {
    ToyFix *f;
    Thread thread;
    Addr addr;
} Web;

static const str may_all[] = { { "*", 1 } };
static const str may_read[] = { { "toys.read", 9 }, { "toys.wind", 9 } };
static const Identity all = { WHO_USER,    { "u_1", 3 }, { "sam", 3 }, { 0 },
                              { "o1", 2 }, { "p1", 2 },  may_all,      1 };
static const Identity reader = { WHO_USER,    { "u_2", 3 }, { "ann", 3 }, { 0 },
                                 { "o1", 2 }, { "p1", 2 },  may_read,     2 };

static err identify(Ctx *c, const HttpRequest *r, bool on_loop) {
    (void)on_loop;
    c->who = str_is(http_header(r, "authorization"), "reader") ? &reader : &all;
    c->org = c->who->org, c->project = c->who->project;
    return ERR_OK;
}

static void run_loop(void *l) { loop_run(l); }

static err web_open(Web *w) {
    App *a = &w->f->app;
    Ctx *c = w->f->c;
    a->identify = identify;
    a->loops[0] = loop_new(c->os), a->loops_n = 1;
    a->pool = pool_new(c->os, "web", 4, 100);
    ServerConfig config = {
        .pool = a->pool, .spool_dir = str_z(test_dir()), .app = a, .db = a->db
    };
    bindings_hooks(&config);
    TRY(bindings_build(c, toy_modules, &config.routes, &config.routes_n));
    TRY(server_new(c, a->loops, 1, &config, &a->server));
    Addr any;
    TRY(addr_parse(c, S("127.0.0.1:0"), &any));
    return server_listen(c, a->server, &any, &w->addr);
}

static void web_run(ToyFix *f, void (*fn)(Web *w)) {
    Web w = { .f = f };
    CHECK_OK(f->c, web_open(&w));
    thread_start(f->c->os, "loop", run_loop, f->app.loops[0], &w.thread);
    fn(&w);
    loop_stop(f->app.loops[0]);
    thread_join(w.thread);
    pool_free(f->app.pool);
    server_free(f->app.server);
    loop_free(f->app.loops[0]);
}
#define WEB_TEST(name_)                          \
    static void web_##name_(Web *w);             \
    TOY_TEST(name_) { web_run(f, web_##name_); } \
    static void web_##name_(Web *w)

typedef struct Got {
    int status;
    str body, reason, field;
    yyjson_val *json;
} Got;

typedef struct Ask {
    HttpMethod method;
    const char *path, *body, *header, *value; // header NULL: none
} Ask;

static Got ask_as(Ctx *c, const Web *w, const Ask *q) {
    HttpHeader header = { str_z(q->header), str_z(q->value) };
    const char *body = q->body;
    CallSpec spec = { .to = w->addr,
                      .method = q->method,
                      .target = str_z(q->path),
                      .headers = &header,
                      .headers_n = q->header != NULL,
                      .idle_ms = 20000 };
    if (body) spec.body = evbuffer_new(), evbuffer_add(spec.body, body, strlen(body));
    FetchResult r;
    Got g = { 0 };
    if (!http_fetch(c, &spec, 8 << 20, NULL, NULL, &r)) {
        g.status = r.status, g.body = r.body;
        if (g.body.n && *g.body.p == '{' && json_parse(c, g.body, &g.json)) g.json = NULL;
        g.reason = json_get_str(json_get(g.json, "error"), "reason");
        g.field = json_get_str(json_get(g.json, "error"), "field");
    }
    if (spec.body) evbuffer_free(spec.body);
    return g;
}
static Got ask(Web *w, HttpMethod method, const char *path, const char *body) {
    return ask_as(w->f->c, w, &(Ask){ method, path, body, NULL, NULL });
}
static Got ask_with(Web *w, HttpMethod method, const char *path, const char *body,
                    const char *header, const char *value) {
    return ask_as(w->f->c, w, &(Ask){ method, path, body, header, value });
}

// ---- actions

WEB_TEST(crud_actions_of_both_kinds) {
    CHECK_INT(ask(w, HTTP_POST, "/lathe/v1/toys", "{\"name\":\"one\"}").status, 201);
    Got g = ask(w, HTTP_POST, "/lathe/v1/toys/one/wind", "{\"turns\":3}");
    int64_t n = 0;
    CHECK_INT(g.status, 200);
    CHECK(json_get_i64(g.json, "count", &n));
    CHECK_INT(n, 8);
    CHECK_INT(toy_count(w->f, "SELECT COUNT(*) FROM toy_note WHERE verb = $1", "wind"), 1);
    CHECK_INT(toy_count(w->f, "SELECT count FROM toys", NULL), 8);
    g = ask(w, HTTP_POST, "/lathe/v1/toys/one/wind", "{}");
    CHECK(g.status == 400 && str_is(g.field, "turns"));
    g = ask(w, HTTP_POST, "/lathe/v1/toys/one/wind", "{\"turns\":3,\"tuns\":1}");
    CHECK(g.status == 400 && str_is(g.field, "tuns"));
    g = ask_with(w, HTTP_POST, "/lathe/v1/toys/one/wind", "{\"turns\":3}", "if-match", "\"1\"");
    CHECK_INT(g.status, 412);
    g = ask(w, HTTP_POST, "/lathe/v1/toys/one/wind?dry_run=true", "{\"turns\":3}");
    CHECK_INT(g.status, 200);
    CHECK_INT(toy_count(w->f, "SELECT count FROM toys", NULL), 8);
    ask(w, HTTP_PATCH, "/lathe/v1/toys/one", "{\"count\":98}"); // and its limits still hold
    g = ask(w, HTTP_POST, "/lathe/v1/toys/one/wind", "{\"turns\":3}");
    CHECK(g.status == 400 && str_is(g.field, "count"));
    g = ask(w, HTTP_POST, "/lathe/v1/toys/one/ship", NULL);
    CHECK_INT(g.status, 202);
    CHECK_STR(json_get_str(g.json, "job"), "job_1");
    CHECK_INT(toy_count(w->f, "SELECT COUNT(*) FROM toy_note WHERE verb = $1", "ship"), 1);
    CHECK_INT(ask(w, HTTP_POST, "/lathe/v1/toys/one/ship", "{\"a\":1}").status, 400);
}

WEB_TEST(crud_actions_ask_for_their_own_permission) {
    CHECK_INT(ask(w, HTTP_POST, "/lathe/v1/toys", "{\"name\":\"one\"}").status, 201);
    static const struct {
        HttpMethod method;
        const char *path, *body;
        int want;
    } asks[] = {
        { HTTP_GET, "/lathe/v1/toys/one", NULL, 200 },
        { HTTP_GET, "/lathe/v1/toys", NULL, 200 },
        { HTTP_POST, "/lathe/v1/toys/one/wind", "{\"turns\":1}", 200 },
        { HTTP_POST, "/lathe/v1/toys/one/ship", NULL, 403 },
        { HTTP_POST, "/lathe/v1/toys", "{\"name\":\"two\"}", 403 },
        { HTTP_PATCH, "/lathe/v1/toys/one", "{}", 403 },
        { HTTP_DELETE, "/lathe/v1/toys/one", NULL, 403 },
        { HTTP_GET, "/lathe/v1/robots", NULL, 403 },
    };
    for (size_t i = 0; i < countof(asks); i++) {
        Got g = ask_with(w, asks[i].method, asks[i].path, asks[i].body, "authorization", "reader");
        if (g.status != asks[i].want) TEST_FAIL_("%s: %d", asks[i].path, g.status);
    }
}

// ---- bodies and queries

WEB_TEST(crud_refuses_what_strangers_send) {
    static const struct {
        HttpMethod method;
        const char *path, *body;
        int want;
    } asks[] = {
        { HTTP_GET, "/lathe/v1/toys?limit=0", NULL, 400 },
        { HTTP_GET, "/lathe/v1/toys?limit=1001", NULL, 400 },
        { HTTP_GET, "/lathe/v1/toys?limit=1000", NULL, 200 },
        { HTTP_GET, "/lathe/v1/toys?format=xml", NULL, 400 },
        { HTTP_GET, "/lathe/v1/toys?sort=hash", NULL, 400 }, // hidden
        { HTTP_GET, "/lathe/v1/toys?sort=shelf", NULL, 400 },
        { HTTP_GET, "/lathe/v1/toys?sort=-count", NULL, 200 },
        { HTTP_GET, "/lathe/v1/toys?hash=a", NULL, 400 },
        { HTTP_GET, "/lathe/v1/toys?nothing=a", NULL, 400 },
        { HTTP_GET, "/lathe/v1/toys?name=%00", NULL, 400 },
        { HTTP_GET, "/lathe/v1/toys?q=%ff", NULL, 200 }, // what is no UTF-8 stays as it was sent
        { HTTP_GET, "/lathe/v1/toys?q=%00", NULL, 400 },
        { HTTP_GET, "/lathe/v1/toys?title=%ff", NULL, 200 },
        { HTTP_GET, "/lathe/v1/toys?cursor=%ff", NULL, 400 },
        { HTTP_GET, "/lathe/v1/toys?format=csv&count=x", NULL, 400 }, // before its first byte
        { HTTP_GET, "/lathe/v1/toys?dry_run=perhaps", NULL, 200 },
        { HTTP_GET, "/lathe/v1/toys/%27%20OR%201%3D1", NULL, 404 },
        { HTTP_DELETE, "/lathe/v1/toys/x?dry_run=perhaps", NULL, 400 },
        { HTTP_POST, "/lathe/v1/toys", "{\"name\":\"a\",\"title\":\"a\\u0000b\"}", 400 },
        { HTTP_POST, "/lathe/v1/toys", "{\"name\":\"b\",\"extra\":{\"a\":\"\\u0000\"}}", 201 },
    };
    for (size_t i = 0; i < countof(asks); i++) {
        Got g = ask(w, asks[i].method, asks[i].path, asks[i].body);
        if (g.status != asks[i].want)
            TEST_FAIL_("%s %s: %d " STR_FMT, asks[i].path, asks[i].body ? asks[i].body : "",
                       g.status, STR_ARG(g.body));
    }
    static const char *const ids[] = { "%ff", "%00", "a%00b", "%c0%80", "..", "%2e%2e" };
    for (size_t i = 0; i < countof(ids); i++) { // no such thing, or no such request; never a fault
        Got g = ask(w, HTTP_GET, say(w->f->c, "/lathe/v1/toys/%s", ids[i]), NULL);
        if (g.status != 400 && g.status != 404) TEST_FAIL_("%s: %d", ids[i], g.status);
    }
    Got g =
        ask_with(w, HTTP_POST, "/lathe/v1/toys", "{\"name\":\"c\"}", "content-type", "text/plain");
    CHECK_INT(g.status, 415);
    static const struct {
        const char *type;
        int want;
    } types[] = { { "image/json", 415 },
                  { "application/jsonl", 415 },
                  { "json", 415 },
                  { "application/x-www-form-urlencoded", 415 },
                  { "Application/JSON", 200 },
                  { "application/json ; charset=utf-8", 200 },
                  { "application/merge-patch+json", 200 } };
    for (size_t i = 0; i < countof(types); i++) {
        g = ask_with(w, HTTP_POST, "/lathe/v1/toys?dry_run=true", "{\"name\":\"c\"}",
                     "content-type", types[i].type);
        if (g.status != types[i].want) TEST_FAIL_("%s: %d", types[i].type, g.status);
    }
    g = ask_with(w, HTTP_POST, "/lathe/v1/toys", "{\"name\":\"c\"}", "idempotency-key", "\xff");
    CHECK(g.status == 400 && str_is(g.field, "Idempotency-Key"));
    g = ask_with(w, HTTP_POST, "/lathe/v1/toys", "{\"name\":\"c\"}", "idempotency-key",
                 say(w->f->c, "%0256d", 0));
    CHECK_INT(g.status, 400);
}

// ---- exports

static size_t lines(str text) {
    size_t n = 0;
    for (size_t i = 0; i < text.n; i++) n += text.p[i] == '\n';
    return n;
}

WEB_TEST(crud_exports_hold_every_row) {
    enum { MANY = 1203 }; // over two pages of an export
    ToyFix *f = w->f;
    for (int i = 0; i < MANY; i++) {
        Toy *t = toy_new(f, say(f->c, "n%04d", i));
        t->count = 1 + i % 50;
        CHECK_OK(f->c, toy_create(f, &toy, t));
    }
    Got g = ask(w, HTTP_GET, "/lathe/v1/toys?format=ndjson&sort=name", NULL);
    CHECK_INT(g.status, 200);
    str rest = g.body, line;
    for (int i = 0; i < MANY; i++) {
        yyjson_val *v;
        CHECK(str_cut(&rest, '\n', &line));
        CHECK_OK(f->c, json_parse(f->c, line, &v));
        CHECK_STR(json_get_str(v, "name"), say(f->c, "n%04d", i));
        CHECK(!json_get(v, "pass") && !json_get(v, "hash"));
    }
    CHECK_INT(rest.n, 0);
    g = ask(w, HTTP_GET, "/lathe/v1/toys?format=csv&sort=-name&count=7", NULL);
    CHECK_INT(lines(g.body), 1 + MANY / 50);
    CHECK(str_starts(g.body, S("id,name,org,project,title,shelf,count,")));
    CHECK(str_find(g.body, S("pass")) < 0 && str_find(g.body, S("hash")) < 0);
}

WEB_TEST(crud_csv_runs_nothing) {
    static const char *const titles[] = { "=1+1",      "+a",      "-a",      "@a",
                                          "a,b",       "a\\\"b",  "a\\nb",   "\\n=1",
                                          "\uff1d1+1", "\uff0ba", "\uff0da", "\uff20a" };
    static const char *const cells[] = { "\"'=1+1\"",    "\"'+a\"",      "\"'-a\"",
                                         "\"'@a\"",      "\"a,b\"",      "\"a\"\"b\"",
                                         "\"a\nb\"",     "\"'\n=1\"",    "\"'\uff1d1+1\"",
                                         "\"'\uff0ba\"", "\"'\uff0da\"", "\"'\uff20a\"" };
    for (size_t i = 0; i < countof(titles); i++) {
        const char *body = say(w->f->c, "{\"name\":\"t%zu\",\"title\":\"%s\"}", i, titles[i]);
        CHECK_INT(ask(w, HTTP_POST, "/lathe/v1/toys", body).status, 201);
        Got g = ask(w, HTTP_GET, say(w->f->c, "/lathe/v1/toys?format=csv&name=t%zu", i), NULL);
        if (str_find(g.body, str_z(say(w->f->c, ",%s,", cells[i]))) < 0)
            TEST_FAIL_("%s: " STR_FMT, titles[i], STR_ARG(g.body));
    }
}

// ---- many at once

typedef struct Racer {
    Web *w;
    Ctx *c;
    Got got;
} Racer;
static void race(void *arg) {
    Racer *r = arg;
    r->got = ask_as(
        r->c, r->w,
        &(Ask){ HTTP_POST, "/lathe/v1/toys", "{\"name\":\"one\"}", "idempotency-key", "the-same" });
}

WEB_TEST(crud_one_key_from_many_clients_makes_one) {
    Racer racers[6];
    Thread threads[6];
    for (int i = 0; i < 6; i++) {
        racers[i] = (Racer){ w, app_ctx_new(&w->f->app), { 0 } };
        thread_start(w->f->c->os, "racer", race, &racers[i], &threads[i]);
    }
    for (int i = 0; i < 6; i++) thread_join(threads[i]);
    for (int i = 0; i < 6; i++) {
        CHECK_INT(racers[i].got.status, 201);
        CHECK(str_eq(racers[i].got.body, racers[0].got.body));
        CHECK(str_find(racers[i].got.body, S("one-time")) > 0); // what is shown once, too
    }
    for (int i = 0; i < 6; i++) app_ctx_free(racers[i].c);
    CHECK_INT(toy_count(w->f, "SELECT COUNT(*) FROM toys", NULL), 1);
    CHECK_INT(toy_count(w->f, "SELECT COUNT(*) FROM idempotency WHERE body LIKE $1", "%one-time%"),
              0);
}

static void bump(void *arg) {
    Racer *r = arg;
    for (int done = 0; done < 5;) { // as a careful client does: read, change, send with If-Match
        Got was = ask_as(r->c, r->w, &(Ask){ HTTP_GET, "/lathe/v1/toys/one", NULL, NULL, NULL });
        int64_t count = 0, revision = 0;
        json_get_i64(was.json, "count", &count), json_get_i64(was.json, "revision", &revision);
        const char *match = say(r->c, "\"%lld\"", (long long)revision);
        const char *body = say(r->c, "{\"count\":%lld}", (long long)count + 1);
        Got g =
            ask_as(r->c, r->w, &(Ask){ HTTP_PATCH, "/lathe/v1/toys/one", body, "if-match", match });
        done += g.status == 200;
        if (g.status != 200 && g.status != 412) r->got = g, done = 99;
    }
}

WEB_TEST(crud_if_match_loses_no_update) {
    Racer racers[4];
    Thread threads[4];
    CHECK_INT(ask(w, HTTP_POST, "/lathe/v1/toys", "{\"name\":\"one\",\"count\":1}").status, 201);
    for (int i = 0; i < 4; i++) {
        racers[i] = (Racer){ w, app_ctx_new(&w->f->app), { 0 } };
        thread_start(w->f->c->os, "racer", bump, &racers[i], &threads[i]);
    }
    for (int i = 0; i < 4; i++) thread_join(threads[i]);
    for (int i = 0; i < 4; i++)
        if (racers[i].got.status)
            TEST_FAIL_("%d " STR_FMT, racers[i].got.status, STR_ARG(racers[i].got.body));
    for (int i = 0; i < 4; i++) app_ctx_free(racers[i].c);
    CHECK_INT(toy_count(w->f, "SELECT count FROM toys", NULL), 21);
}
