// SPDX-License-Identifier: Apache-2.0
// cli_client.c - finding the server, calling it, and telling its failures.
#include "net/client.h"
#include "net/sse.h"
#include "os/terminal.h"
#include "res/cli.h"
#include <stdio.h>

enum { ANSWER_MAX = 256 << 20, CONFIG_MAX = 1 << 16 };

bool cli_tty(int fd) { return os_is_terminal(fd); }

// ---- where
static err from_context(
    Cli *
        // ~/.config/lathe/config.yaml: {current: NAME, contexts: {NAME: {url, key, project, ca}}}
        cli) {
    Ctx *c = cli->c;
    str text, *docs;
    size_t n;
    yyjson_val *v;
    const char *home = os_env(c->os, "HOME");
    if (!home
        || file_read_all(c, arena_printf(c->mem, "%s/.config/lathe/config.yaml", home), CONFIG_MAX,
                         &text))
        return ERR_OK;
    TRY(cli_yaml(c, text, &docs, &n));
    if (!n) return ERR_OK;
    TRY(json_parse(c, docs[0], &v));
    str current = json_get_str(v, "current");
    yyjson_val *context =
        json_get(json_get(v, "contexts"), current.n ? say_str(c, current) : "default");
    if (!cli->url.p) cli->url = json_get_str(context, "url");
    if (!cli->key.p) cli->key = json_get_str(context, "key");
    if (!cli->project.p) cli->project = json_get_str(context, "project");
    if (!cli->ca.p) cli->ca = json_get_str(context, "ca");
    return ERR_OK;
}

static void from_machine(
    Cli *cli) { // what `lathe serve` left: two lines, its address and its data folder
    Ctx *c = cli->c;
    str text, url, data, key;
    const char *home = os_env(c->os, "HOME");
    if (!home
        || file_read_all(c, arena_printf(c->mem, "%s/.local/state/lathe/server", home), CONFIG_MAX,
                         &text))
        return;
    if (!str_cut(&text, '\n', &url) || !str_cut(&text, '\n', &data)) return;
    if (!cli->url.p) cli->url = str_trim(url);
    if (cli->key.p || !str_eq(cli->url, str_trim(url))) return; // the key is for that server only
    if (!file_read_all(c, arena_printf(c->mem, STR_FMT "/admin.key", STR_ARG(str_trim(data))), 1024,
                       &key))
        cli->key = str_trim(key);
}

static err unreachable(Cli *cli, str why) {
    Ctx *c = cli->c;
    return fail(c, ERR_UNAVAILABLE, R_CLI_CONNECT, "url", say_str(c, cli->url), "why",
                say_str(c, why.n ? why : S("no connection")));
}

static err split_url(Cli *cli) {
    Ctx *c = cli->c;
    str rest = cli->url, host;
    if (str_starts(rest, S("unix:"))) return addr_parse(c, rest, &cli->addr);
    bool tls = str_starts(rest, S("https://"));
    if (!tls && !str_starts(rest, S("http://")))
        return fail(c, ERR_INVALID, R_CLI_URL, "url", say_str(c, cli->url));
    if (tls && !cli->tls) TRY(tls_client_new(c, cli->ca, TLS_1_2, &cli->tls));
    rest = str_sub(rest, tls ? 8 : 7, rest.n);
    ptrdiff_t slash = str_find_char(rest, '/');
    host = slash < 0 ? rest : str_sub(rest, 0, (size_t)slash);
    cli->base = slash < 0 ? S("") : str_sub(rest, (size_t)slash, rest.n);
    while (str_ends(cli->base, S("/"))) cli->base.n--;
    cli->host = host;
    if (!addr_parse(c, host, &cli->addr)) return ERR_OK;
    ptrdiff_t colon = str_find_char(host, ':');
    int64_t port = tls ? 443 : 80;
    size_t n;
    if (colon >= 0 && !str_to_i64(str_sub(host, (size_t)colon + 1, host.n), &port))
        return fail(c, ERR_INVALID, R_CLI_URL, "url", say_str(c, cli->url));
    err e = addr_resolve(c, colon < 0 ? host : str_sub(host, 0, (size_t)colon), (int)port,
                         &cli->addr, 1, &n);
    return e ? unreachable(cli, failure_param(&c->failure, "why")) : ERR_OK;
}

err cli_connect(Cli *cli) {
    Ctx *c = cli->c;
    if (cli->connected) return ERR_OK;
    if (!cli->url.p) cli->url = str_z(os_env(c->os, "LATHE_URL"));
    if (!cli->key.p) cli->key = str_z(os_env(c->os, "LATHE_API_KEY"));
    if (!cli->project.p) cli->project = str_z(os_env(c->os, "LATHE_PROJECT"));
    if (!cli->ca.p) cli->ca = str_z(os_env(c->os, "LATHE_CA"));
    TRY(from_context(cli));
    from_machine(cli);
    if (!cli->url.p) return fail(c, ERR_UNAVAILABLE, R_CLI_SERVER);
    cli->connected = true;
    return split_url(cli);
}

// ---- calls
static size_t add_headers(Cli *cli, HttpHeader *h, bool json) {
    size_t n = 0;
    if (cli->key.n)
        h[n++] = (HttpHeader){ S("Authorization"),
                               arena_printf(cli->c->mem, "Bearer " STR_FMT, STR_ARG(cli->key)) };
    if (cli->project.n) h[n++] = (HttpHeader){ S("OpenAI-Project"), cli->project };
    if (cli->org.n) h[n++] = (HttpHeader){ S("OpenAI-Organization"), cli->org };
    if (!strcmp(cli->c->lang, "zh")) h[n++] = (HttpHeader){ S("Accept-Language"), S("zh") };
    if (json) h[n++] = (HttpHeader){ S("Content-Type"), S("application/json") };
    return n;
}

static str answer_header(const FetchResult *r, const char *name) {
    for (size_t i = 0; i < r->headers_n; i++)
        if (str_ieq(r->headers[i].name, str_z(name))) return r->headers[i].value;
    return (str){ 0 };
}

static err code_of(int status) {
    for (int e = 1; e < ERR__COUNT; e++)
        if (err_row((err)e)->http == status) return (err)e;
    return status >= 500 ? ERR_UPSTREAM : ERR_INVALID;
}

static err read_failure(Cli *cli, int status, str body) {
    yyjson_val *v = NULL;
    Ctx *c = cli->c;
    if (json_parse(c, body, &v)) v = NULL;
    yyjson_val *e = json_get(v, "error");
    str message = json_get_str(e, "message"), id = json_get_str(e, "request_id");
    if (id.n) c->request_id = id;
    if (status == 401 && !cli->key.n)
        return fail(c, ERR_UNAUTHENTICATED, R_CLI_NO_KEY, "url", say_str(c, cli->url));
    if (!message.p) message = arena_printf(c->mem, "HTTP status %d", status);
    return fail(c, code_of(status), R_CLI_ANSWER, "message", say_str(c, message));
}

static err fetch(Cli *cli, const CallSpec *spec, size_t max, bool (*on_data)(void *, str),
                 void *arg, CliAnswer *out) {
    FetchResult r;
    Ctx *c = cli->c;
    err e = http_fetch(c, spec, max, on_data, arg, &r);
    if (e == ERR_UNAVAILABLE) return unreachable(cli, failure_param(&c->failure, "why"));
    if (e) return e;
    *out = (CliAnswer){
        .status = r.status, .body = r.body, .headers = r.headers, .headers_n = r.headers_n
    };
    out->request_id = c->request_id = answer_header(&r, "x-request-id"),
    out->etag = answer_header(&r, "etag");
    if (r.status >= 400) return read_failure(cli, r.status, r.body);
    if (str_find(answer_header(&r, "content-type"), S("json")) >= 0 && r.body.n)
        TRY(json_parse(c, r.body, &out->json));
    return ERR_OK;
}

static str full_target(Cli *cli, str target) {
    return arena_printf(cli->c->mem, STR_FMT STR_FMT, STR_ARG(cli->base.p ? cli->base : S("")),
                        STR_ARG(target));
}

err cli_call(Cli *cli, HttpMethod m, str target, str body, CliAnswer *out) {
    HttpHeader headers[8];
    TRY(cli_connect(cli));
    struct evbuffer *b = body.n ? evbuffer_new() : NULL;
    if (b) evbuffer_add(b, body.p, body.n);
    CallSpec spec = { .to = cli->addr,
                      .tls = cli->tls,
                      .method = m,
                      .target = full_target(cli, target),
                      .host = cli->host,
                      .headers = headers,
                      .headers_n = add_headers(cli, headers, body.n > 0),
                      .body = b,
                      .connect_ms = 10000 };
    err e = fetch(cli, &spec, ANSWER_MAX, NULL, NULL, out);
    if (b) evbuffer_free(b);
    return e;
}

typedef struct Events {
    Sse sse;
    bool (*on_event)(void *, const char *, str);
    void *arg;
    bool go;
    Cli *cli;
} Events;

static void one_event(void *arg, const SseEvent *ev) {
    Events *e = arg;
    if (e->go) e->go = e->on_event(e->arg, arena_z(e->cli->c->mem, ev->event), ev->data);
}
static bool more_events(void *arg, str piece) {
    Events *e = arg;
    return sse_feed(&e->sse, piece, one_event, e) && e->go;
}

err cli_events(Cli *cli, HttpMethod m, str target, str body,
               bool (*on_event)(void *arg, const char *event, str data), void *arg) {
    HttpHeader headers[8];
    CliAnswer answer;
    TRY(cli_connect(cli));
    Events events = { .on_event = on_event, .arg = arg, .go = true, .cli = cli };
    struct evbuffer *b = body.n ? evbuffer_new() : NULL;
    if (b) evbuffer_add(b, body.p, body.n);
    CallSpec spec = { .to = cli->addr,
                      .tls = cli->tls,
                      .method = m,
                      .target = full_target(cli, target),
                      .host = cli->host,
                      .headers = headers,
                      .headers_n = add_headers(cli, headers, body.n > 0),
                      .body = b,
                      .connect_ms = 10000 };
    sse_init(&events.sse, 16 << 20);
    err e = fetch(cli, &spec, 1 << 20, more_events, &events, &answer);
    sse_done(&events.sse);
    if (b) evbuffer_free(b);
    return e;
}

// ---- failures
int cli_fail(Cli *cli, err e) {
    Buf b;
    buf_init(&b, 16384);
    failure_format(&cli->c->failure, cli->c->lang, &b);
    str said = cli_visible(cli->c, buf_str(&b), -1);
    buf_clear(&b), buf_add(&b, said);
    bool id = cli->c->request_id.n > 0;
    if (cli->c->failure.why == &R_CLI_MISSING && cli->noun)
        buf_printf(&b, "; %s `lathe help %s`", strcmp(cli->c->lang, "zh") ? "see" : "参见",
                   cli->noun);
    fprintf(stderr, "lathe: %s%s%s%s" STR_FMT "%s\n", cli->where ? cli->where : "",
            cli->where ? ": " : "", buf_z(&b), id ? " (request " : "",
            STR_ARG(id ? cli->c->request_id : S("")), id ? ")" : "");
    buf_done(&b);
    return err_row(e)->exit_status;
}

str cli_escape(Cli *cli, str s) {
    Buf b;
    buf_init(&b, s.n * 3 + 1);
    for (size_t i = 0; i < s.n; i++) {
        unsigned char ch = (unsigned char)s.p[i];
        bool plain = (ch >= '0' && ch <= '9') || (ch >= 'a' && ch <= 'z')
                     || (ch >= 'A' && ch <= 'Z') || memchr("-._~", ch, 4);
        if (plain) buf_add_char(&b, (char)ch);
        else buf_printf(&b, "%%%02X", ch);
    }
    str out = arena_str(cli->c->mem, buf_str(&b));
    buf_done(&b);
    return out;
}
