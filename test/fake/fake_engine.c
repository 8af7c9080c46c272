// SPDX-License-Identifier: Apache-2.0
// fake_engine.c - the program: takes llama-server's command line and its place, without a model.
// fake.h says what lies where, README.md what it does.
// Owner: everything of the Engine, freed at the end. Threads: one loop, this thread.
#include "fake.h"
#include <assert.h>
#include <signal.h>
#include <stdio.h>

enum { TEXT_BYTES_MAX = 256 << 20 };

// ---- routes

static const AskKind chat = ASK_CHAT, text = ASK_TEXT, embed = ASK_EMBED;
enum { BODY_MAX = 64 << 20 };
// clang-format off
#define GET(pattern, fn, owner) &(const NetRoute){ HTTP_GET, pattern, 0, 0, NULL, fn, owner }
#define POST(pattern, fn, owner) \
    &(const NetRoute){ HTTP_POST, pattern, BODY_MAX, 0, NULL, fn, owner }
static const NetRoute *const routes[] = {
    GET("/health", info_route, &info_health),
    GET("/v1/health", info_route, &info_health),
    GET("/models", info_route, &info_models),
    GET("/v1/models", info_route, &info_models),
    GET("/props", info_route, &info_props),
    GET("/slots", slots_route, &info_slots),
    GET("/metrics", metrics_route, NULL),
    POST("/tokenize", post_route, &post_tokenize),
    POST("/apply-template", post_route, &post_template),
    POST("/chat/completions", job_route, &chat),
    POST("/v1/chat/completions", job_route, &chat),
    POST("/v1/chat/completions/input_tokens", post_route, &post_count),
    POST("/v1/completions", job_route, &text),
    POST("/v1/embeddings", job_route, &embed),
    GET("/fake/ledger", info_route, &info_ledger),
    GET("/fake/requests/{id}", requests_route, NULL),
    GET("/fake/options", info_route, &info_options),
    POST("/fake/options", post_route, &post_options),
};
// clang-format on

// What net refuses by itself, in llama-server's words: it has no 405.
static void refuse(void *app, Ctx *c, const HttpRequest *r, HttpReply *out) {
    err e = c->failure.code;
    bool absent = e == ERR_NOTFOUND || e == ERR_METHOD;
    Json j = json_to(&out->body);
    (void)app, (void)r;
    out->status = absent ? 404 : err_row(e)->http;
    json_obj(&j);
    json_key(&j, "error");
    json_obj(&j);
    json_kv_z(&j, "message", absent ? "File Not Found" : err_row(e)->slug);
    json_kv_z(&j, "type", absent ? "not_found_error" : "server_error");
    json_kv_i64(&j, "code", out->status);
    json_end_obj(&j);
    json_end_obj(&j);
}

// ---- start and end

static void stop(void *loop) { loop_stop(loop); }
static void on_signal(void *arg, int signal) {
    Engine *e = arg;
    Server *s = e->server;
    (void)signal;
    e->server = NULL; // a second signal changes nothing
    if (s) server_drain(s, 0, stop, e->loop);
}

static err address(Ctx *c, const Options *o, Addr *out) {
    str host = str_z(o->host);
    bool path = str_starts(host, S("/")) || str_ends(host, S(".sock"));
    if (path) return addr_parse(c, arena_printf(c->mem, "unix:%s", o->host), out);
    if (str_is(host, "localhost")) host = S("127.0.0.1");
    bool v6 = str_find_char(host, ':') >= 0;
    return addr_parse(
        c,
        arena_printf(c->mem, v6 ? "[%.*s]:%lld" : "%.*s:%lld", STR_ARG(host), (long long)o->port),
        out);
}

static void engine_init(Engine *e, Arena *boot) {
    e->loop = loop_new(e->os);
    e->ledger = ledger_new(e->os, e->o.keep);
    e->slots = new (boot, Job *, (size_t)e->o.slots);
    buf_init(&e->piece, TEXT_BYTES_MAX);
    buf_init(&e->text, TEXT_BYTES_MAX);
    snprintf(e->fingerprint, sizeof e->fingerprint, "b0-fake");
    e->ready_ns = loop_now_ns(e->loop) + e->o.load_ms * 1000000;
}
static void engine_done(Engine *e) {
    buf_done(&e->piece);
    buf_done(&e->text);
    ledger_free(e->ledger);
    loop_free(e->loop);
}

static err serve(Ctx *c, Engine *e) {
    ServerConfig config = {
        .refuse = refuse,
        .app = e,
        .routes = routes,
        .routes_n = countof(routes),

        .idle_timeout_ms = e->o.idle_ms,
        .write_timeout_ms = 3600000,
    };
    Server *s;
    Addr at, actual;
    PathInfo info;
    if (*e->o.model) TRY(path_info(c, str_z(e->o.model), &info));
    TRY(address(c, &e->o, &at));
    TRY(server_new(c, &e->loop, 1, &config, &s));
    err failed = server_listen(c, s, &at, &actual);
    if (!failed) {
        bool unix_socket = !strncmp(actual.text, "unix:", 5);
        fprintf(stderr, "fake-engine: listening on %s%s\n", unix_socket ? "" : "http://",
                actual.text);
        e->server = s;
        loop_on_signal(e->loop, SIGTERM, on_signal, e);
        loop_on_signal(e->loop, SIGINT, on_signal, e);
        loop_run(e->loop);
    }
    server_free(s);
    return failed;
}

int main(int argc, char **argv) {
    static Engine e;
    char bad[TEXT_MAX];
    if (!options_parse(argc, argv, &e.o, bad)) {
        fprintf(stderr, "%s\n", bad);
        return 1;
    }
    Ctx c;
    Arena *boot = arena_new();
    e.os = os_real();
    ctx_init(&c, boot, e.os);
    engine_init(&e, boot);
    err failed = serve(&c, &e);
    if (failed) {
        Buf b;
        buf_init(&b, 4096);
        failure_format(&c.failure, "en", &b);
        fprintf(stderr, "fake-engine: error loading model: %s\n", buf_z(&b));
        buf_done(&b);
    }
    engine_done(&e);
    arena_free(boot);
    return failed ? 1 : 0;
}
