// SPDX-License-Identifier: Apache-2.0
// conformance_boot_test.c - the server of conformance_test.h: from an empty folder through its own
// start, with three places made over its API.
#include "conformance_test.h"
#include "net/client.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

extern void __gcov_dump(void) __attribute__((weak)); // of the compiler, in `make cover`

int complaints;
enum { LIMIT_S = 110 };

// "": SQLite in the server's own folder, as by default.
static err make_url(Conf *f, const char **out) {
    str url = { 0 };
    if (f->kind == DB_POSTGRES) TRY(suite_database(f->c, f->kind, &url));
    *out = url.n ? url.p : "";
    return ERR_OK;
}

// ---- asking

Told conf_ask(Conf *f, const Question *q) {
    Ctx *c = f->c;
    HttpHeader headers[5];
    size_t n = 0;
    if (q->key)
        headers[n++] = (HttpHeader){ S("Authorization"), str_z(say(c, "Bearer %s", q->key)) };
    if (q->body) headers[n++] = (HttpHeader){ S("Content-Type"), S("application/json") };
    for (size_t i = 0; i < countof(q->headers) && q->headers[i][0]; i++)
        headers[n++] = (HttpHeader){ str_z(q->headers[i][0]), str_z(q->headers[i][1]) };
    CallSpec spec = { .to = serve_addr(f->s),
                      .method = q->method,
                      .target = str_z(q->path),
                      .headers = headers,
                      .headers_n = n,
                      .idle_ms = test_longer(20000) };
    if (q->body) {
        spec.body = evbuffer_new();
        evbuffer_add(spec.body, q->body, strlen(q->body));
    }
    FetchResult got;
    Told t = { 0 };
    if (!http_fetch(c, &spec, 8 << 20, NULL, NULL, &got)) {
        t.status = got.status, t.body = got.body;
        for (size_t i = 0; i < got.headers_n; i++)
            if (str_ieq(got.headers[i].name, S("etag"))) t.etag = got.headers[i].value;
        if (t.body.n && json_parse(c, t.body, &t.json)) t.json = NULL;
    }
    if (spec.body) evbuffer_free(spec.body);
    return t;
}

Told conf_do(Conf *f, const Tenant *p, HttpMethod method, const char *path, const char *body) {
    Question q = { method, path, f->admin, body, { { "lathe-organisation", p->org } } };
    if (p->project) q.headers[1][0] = "lathe-project", q.headers[1][1] = p->project;
    return conf_ask(f, &q);
}

// Of foreign routes in OpenAI's words.
static str conf_told(const Told *t, const char *ours, const char *theirs) {
    yyjson_val *error = json_get(t->json, "error");
    str text = json_get_str(error, ours);
    return text.p ? text : json_get_str(error, theirs);
}
str conf_reason(const Told *t) { return conf_told(t, "reason", "code"); }
str conf_field(const Told *t) { return conf_told(t, "field", "param"); }
bool conf_has(str text, const char *part) { return str_find(text, str_z(part)) >= 0; }

// ---- places

static const char *id_of(Conf *f, const Told *t, const char *what) {
    str id = json_get_str(t->json, what);
    if (!id.n) COMPLAIN("no %s in %d " STR_FMT, what, t->status, STR_ARG(t->body));
    return say_str(f->c, id);
}

static const char *made(Conf *f, const Tenant *p, const char *path, const char *body,
                        const char *what) {
    Told t = conf_do(f, p, HTTP_POST, path, body);
    return id_of(f, &t, what);
}

static const char *make_owner(Conf *f, const Tenant *p) {
    const char *account = made(f, p, "/lathe/v1/service_accounts",
                               "{\"name\":\"place-owner\",\"roles\":[\"owner\"]}", "id");
    return made(f, p, "/lathe/v1/api_keys",
                say(f->c, "{\"name\":\"place-owner\",\"service_account\":\"%s\"}", account), "key");
}

static void make_places(Conf *f) {
    Tenant system = { .org = "default" };
    Told t = conf_do(f, &system, HTTP_GET, "/lathe/v1/organisations/default", NULL);
    f->a.org = f->b.org = id_of(f, &t, "id");
    f->far.org = made(f, &system, "/lathe/v1/organisations", "{\"name\":\"far\"}", "id");
    f->a.project = made(f, &f->a, "/lathe/v1/projects", "{\"name\":\"near-a\"}", "id");
    f->b.project = made(f, &f->b, "/lathe/v1/projects", "{\"name\":\"near-b\"}", "id");
    f->far.project = made(f, &f->far, "/lathe/v1/projects", "{\"name\":\"far\"}", "id");
    f->a.owner = make_owner(f, &f->a);
    f->b.owner = make_owner(f, &f->b);
    f->far.owner = make_owner(f, &f->far);
}

// ---- start and stop

static void keep_line(void *arg, str line) {
    Conf *f = arg;
    pthread_mutex_lock(&f->lock);
    buf_add(&f->log, line);
    pthread_mutex_unlock(&f->lock);
}
static int64_t no_time(void *arg) {
    (void)arg;
    return 0;
}
static void serve_thread(void *s) { serve_run(s); }

static bool start(Conf *f) {
    Ctx *c = f->c;
    const char *url;
    if (make_url(f, &url)) return false;
    f->dir = say(c, "%s/data", test_dir());
    char *argv[] = { (char *)(uintptr_t)say(c, "--serve.data=%s", f->dir),
                     (char *)(uintptr_t) "--serve.listen=127.0.0.1:0",
                     (char *)(uintptr_t) "--serve.loops=1",
                     (char *)(uintptr_t) "--serve.drain=1s",
                     (char *)(uintptr_t) "--log.level=debug",
                     (char *)(uintptr_t) "--model.allow_private_urls=true",
                     (char *)(uintptr_t) "--access.wrong_keys=0", // every route is asked with some
                     (char *)(uintptr_t)say(c, "--db.url=%s", url) };
    err e = serve_open(f->s, countof(argv), argv);
    log_to((LogSink){ keep_line, no_time, f, false });
    if (e) {
        Buf b;
        buf_init(&b, 4096);
        failure_format(&serve_ctx(f->s)->failure, "en", &b);
        COMPLAIN("the server does not start: %s", buf_z(&b));
        buf_done(&b);
        return false;
    }
    c->os = f->app->os, c->db = f->app->db, c->app = f->app;
    thread_start(c->os, "serve", serve_thread, f->s, &f->thread);
    str key;
    if (file_read_all(c, str_z(say(c, "%s/admin.key", f->dir)), 1000, &key)) return false;
    f->admin = arena_z(c->mem, str_trim(key));
    return true;
}

static void run(DbKind kind, void (*fn)(Conf *f)) {
    Conf *f = mem_new(sizeof *f);
    pthread_mutex_init(&f->lock, NULL);
    buf_init(&f->log, 256 << 20);
    f->kind = kind, f->c = test_ctx();
    f->c->os = os_real(), f->c->who = &identity_system;
    f->s = serve_new(lathe_modules);
    f->app = serve_app(f->s);
    if (start(f)) {
        make_places(f);
        fn(f);
        serve_quit(f->s);
        thread_join(f->thread);
    }
    serve_free(f->s);
    log_to((LogSink){ 0 });
    buf_done(&f->log);
    mem_free(f);
}

// In a process of its own, because modules keep their state in statics; it prints what fails, and
// its status says how often that was.
void conf_run(DbKind kind, void (*fn)(Conf *f)) {
    const char *dir = test_dir(); // made, and removed, by the parent
    fflush(NULL);
    pid_t child = fork();
    if (!child) {
        alarm((unsigned)test_longer(LIMIT_S));
        complaints = 0;
        run(kind, fn);
        fflush(NULL);
        if (__gcov_dump) __gcov_dump(); // _exit would forget which lines the server ran
        _exit(complaints > 100 ? 100 : complaints);
    }
    int status = -1;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) TEST_FAIL_("the server died of signal %d", WTERMSIG(status));
    if (status) TEST_FAIL_("%d complaints (%s)", WEXITSTATUS(status), dir);
}
