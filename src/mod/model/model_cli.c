// SPDX-License-Identifier: Apache-2.0
// model_cli.c - `lathe model import NAME …`: one step from a file, an address or a path on the
// server to a ready version. The model is made when it is not there; a file is sent in pieces, each
// of which may be sent again, so that a broken line costs one piece; `--upload ID` goes on with an
// upload that was interrupted. Threads: the command line's only one.
#include "base/time.h"
#include "mod/model/model_own.h"
#include "res/cli.h"
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

enum {
    PIECE = 32 << 20,
    TRIES = 5, // without a byte more
    PIECE_IDLE_MS = 120000,
};

typedef struct Plan {
    Cli *cli;
    str name, file, url, path, sha256, upload;
    str job, version;
} Plan;

static str target(const Plan *p, const char *tail) {
    str name = cli_escape(p->cli, p->name);
    return arena_printf(p->cli->c->mem, "/lathe/v1/models/" STR_FMT "%s", STR_ARG(name), tail);
}

static str upload_target(const Plan *p, const char *tail) {
    return target(p, say(p->cli->c, "/uploads/" STR_FMT "%s", STR_ARG(p->upload), tail));
}

// An object of the members that are there.
static str object(Ctx *c, const char *const names[], const str values[], size_t n) {
    Buf b;
    buf_init(&b, 64 << 10);
    Json j = json_to(&b);
    json_obj(&j);
    for (size_t i = 0; i < n; i++)
        if (values[i].p) json_kv_str(&j, names[i], values[i]);
    json_end_obj(&j);
    str s = arena_str(c->mem, buf_str(&b));
    buf_done(&b);
    return s;
}

// ---- the model

static err make_model(Plan *p) {
    CliAnswer a;
    err e = cli_call(p->cli, HTTP_GET, target(p, ""), (str){ 0 }, &a);
    if (e != ERR_NOTFOUND) return e;
    str body = object(p->cli->c, (const char *const[]){ "name" }, &p->name, 1);
    e = cli_call(p->cli, HTTP_POST, S("/lathe/v1/models"), body, &a);
    return e == ERR_CONFLICT ? ERR_OK : e; // another was quicker
}

// ---- a file in pieces

typedef struct Sending {
    Plan *p;
    File *f;
    int64_t size, at, began_at, began_ns;
    int failures; // without progress
    char *piece;
} Sending;

static void tell(const Sending *s, bool end) {
    Ctx *c = s->p->cli->c;
    double seconds = (double)(os_mono_ns(c->os) - s->began_ns) / 1e9;
    double rate = seconds > 0 ? (double)(s->at - s->began_at) / seconds : 0;
    str sent = bytes_format(c->mem, s->at), of = bytes_format(c->mem, s->size);
    str speed = bytes_format(c->mem, (int64_t)rate);
    if (!cli_tty(2) && !end) return;
    fprintf(stderr, "%s  sent " STR_FMT " of " STR_FMT " (%" PRId64 " %%), " STR_FMT "/s%s",
            cli_tty(2) ? "\r" : "", STR_ARG(sent), STR_ARG(of),
            s->size ? s->at * 100 / s->size : 100, STR_ARG(speed), end ? "\n" : "   ");
}

static size_t add_headers(const Cli *cli, HttpHeader *h) {
    Ctx *c = cli->c;
    size_t n = 0;
    if (cli->key.n)
        h[n++] = (HttpHeader){ S("Authorization"),
                               arena_printf(c->mem, "Bearer " STR_FMT, STR_ARG(cli->key)) };
    if (cli->project.n) h[n++] = (HttpHeader){ S("OpenAI-Project"), cli->project };
    if (cli->org.n) h[n++] = (HttpHeader){ S("OpenAI-Organization"), cli->org };
    return n;
}

// What the server says goes into the failure; where it stands is asked for afterwards.
static err piece_failed(Ctx *c, const FetchResult *r) {
    yyjson_val *v = NULL;
    if (json_parse(c, r->body, &v)) v = NULL;
    str message = json_get_str(json_get(v, "error"), "message");
    err e = r->status == 409 || r->status >= 500 ? ERR_UPSTREAM : ERR_INVALID;
    return fail(c, r->status == 507 ? ERR_FULL : e, R_CLI_ANSWER, "message",
                message.p ? say_str(c, message) : say(c, "HTTP status %d", r->status));
}

static err send_piece(Sending *s) {
    Cli *cli = s->p->cli;
    Ctx *c = cli->c;
    HttpHeader headers[4];
    FetchResult r;
    size_t got, n = add_headers(cli, headers);
    TRY(file_read_at(c, s->f, s->at, s->piece, PIECE, &got));
    str at = arena_printf(c->mem, "%" PRId64, s->at);
    headers[n++] = (HttpHeader){ S("Upload-Offset"), at };
    struct evbuffer *body = evbuffer_new();
    evbuffer_add_reference(body, s->piece, got, NULL, NULL);
    str where = upload_target(s->p, "");
    CallSpec spec = { .to = cli->addr,
                      .method = HTTP_PATCH,
                      .target =
                          arena_printf(c->mem, STR_FMT STR_FMT, STR_ARG(cli->base), STR_ARG(where)),
                      .host = cli->host,
                      .headers = headers,
                      .headers_n = n,
                      .body = body,
                      .connect_ms = 10000,
                      .idle_ms = PIECE_IDLE_MS };
    err e = http_fetch(c, &spec, 1 << 20, NULL, NULL, &r);
    evbuffer_free(body);
    TRY(e);
    if (r.status != 204) return piece_failed(c, &r);
    s->at += (int64_t)got;
    return ERR_OK;
}

static err ask_offset(Sending *s) {
    CliAnswer a;
    TRY(cli_call(s->p->cli, HTTP_GET, upload_target(s->p, ""), (str){ 0 }, &a));
    json_get_i64(a.json, "offset", &s->at);
    return ERR_OK;
}

static bool worth_trying(err e) {
    return e == ERR_UPSTREAM || e == ERR_UNAVAILABLE || e == ERR_TIMEOUT;
}

// After a failure: waits a little, then learns from the server where it stands.
static err recover(Sending *s, err why) {
    Failure first = s->p->cli->c->failure;
    int64_t before = s->at;
    for (; worth_trying(why) && s->failures < TRIES; s->failures++) {
        struct timespec pause = { 1 << s->failures, 0 };
        fprintf(stderr, "\n  broken off at byte %" PRId64 ": trying again\n", s->at);
        nanosleep(&pause, NULL);
        if (ask_offset(s)) continue;
        s->failures = s->at > before ? 0 : s->failures + 1;
        return ERR_OK;
    }
    s->p->cli->c->failure = first;
    fprintf(stderr,
            "\n  to go on later: lathe model import " STR_FMT " --file " STR_FMT
            " --upload " STR_FMT "\n",
            STR_ARG(s->p->name), STR_ARG(s->p->file), STR_ARG(s->p->upload));
    return why;
}

static err send_all(Sending *s) {
    Ctx *c = s->p->cli->c;
    s->began_at = s->at, s->began_ns = os_mono_ns(c->os);
    while (s->at < s->size) {
        ArenaMark m = arena_mark(c->mem);
        int64_t before = s->at;
        err e = send_piece(s);
        if (s->at > before) s->failures = 0;
        if (e) TRY(recover(s, e));
        tell(s, s->at >= s->size);
        if (!e) arena_restore(c->mem, m);
    }
    return ERR_OK;
}

static err begin_upload(Plan *p, int64_t size) {
    CliAnswer a;
    Ctx *c = p->cli->c;
    str digest = p->sha256.p
                     ? arena_printf(c->mem, ",\"sha256\":\"" STR_FMT "\"", STR_ARG(p->sha256))
                     : S("");
    str body = arena_printf(c->mem, "{\"size_bytes\":%" PRId64 STR_FMT "}", size, STR_ARG(digest));
    TRY(cli_call(p->cli, HTTP_POST, target(p, "/uploads"), body, &a));
    p->upload = arena_str(c->mem, json_get_str(a.json, "id"));
    return ERR_OK;
}

static err send_file(Plan *p) {
    Ctx *c = p->cli->c;
    Sending s = { .p = p };
    CliAnswer a;
    TRY(file_open(c, p->file, FILE_READ, &s.f));
    err e = file_size(c, s.f, &s.size);
    if (!e) e = p->upload.n ? ask_offset(&s) : begin_upload(p, s.size);
    s.piece = arena_alloc_raw(c->mem, PIECE);
    if (!e) e = send_all(&s);
    file_close(s.f);
    TRY(e);
    TRY(cli_call(p->cli, HTTP_POST, upload_target(p, "/finish"), S("{}"), &a));
    p->job = json_get_str(a.json, "job"), p->version = json_get_str(a.json, "version");
    return ERR_OK;
}

// ---- an address, or a path on the server

static err fetch_there(Plan *p) {
    static const char *const names[] = { "path", "url", "sha256" };
    const str values[] = { p->path, p->url, p->sha256 };
    Ctx *c = p->cli->c;
    CliAnswer a;
    TRY(cli_call(p->cli, HTTP_POST, target(p, "/import"), object(c, names, values, 3), &a));
    p->job = json_get_str(a.json, "job");
    str job = arena_printf(c->mem, "/lathe/v1/jobs/" STR_FMT, STR_ARG(p->job));
    TRY(cli_call(p->cli, HTTP_GET, job, (str){ 0 }, &a));
    p->version = json_get_str(a.json, "subject");
    return ERR_OK;
}

// ---- what became of it

static str bytes_of(Ctx *c, yyjson_val *v, const char *key) {
    int64_t n = 0;
    json_get_i64(v, key, &n);
    return bytes_format(c->mem, n);
}

static void print_memory(Ctx *c, yyjson_val *list) {
    yyjson_val *row;
    size_t i, n;
    printf("memory        ");
    yyjson_arr_foreach(list, i, n, row) {
        int64_t context = 0;
        json_get_i64(row, "context", &context);
        str bytes = bytes_of(c, row, "bytes");
        printf("%s" STR_FMT " for %" PRId64, i ? ", " : "", STR_ARG(bytes), context);
    }
    printf(" tokens of context\n");
}

static void print_text(const char *label, str s) {
    if (s.n) printf("%-13s " STR_FMT "\n", label, STR_ARG(s));
}

static void print_facts(Ctx *c, str name, yyjson_val *v) {
    yyjson_val *facts = json_get(v, "facts");
    int64_t number = 0, parameters = 0, context = 0, words = 0;
    bool chat = json_get_bool(facts, "can_chat", false);
    bool embedder = json_get_bool(facts, "embedder", false);
    json_get_i64(v, "number", &number), json_get_i64(facts, "parameters", &parameters);
    json_get_i64(facts, "context", &context), json_get_i64(facts, "vocabulary", &words);
    str size = bytes_of(c, v, "size_bytes");
    printf("version       " STR_FMT ":%" PRId64 " (" STR_FMT ")\n", STR_ARG(name), number,
           STR_ARG(json_get_str(v, "id")));
    print_text("state", json_get_str(v, "state"));
    print_text("reason", json_get_str(v, "state_reason"));
    if (!json_get_str(facts, "architecture").n) return;
    print_text("size", size);
    print_text("architecture", json_get_str(facts, "architecture"));
    printf("parameters    %.1f million\n", (double)parameters / 1e6);
    print_text("quantisation", json_get_str(facts, "quantisation"));
    printf("context       %" PRId64 " tokens\n", context);
    printf("tokenizer     " STR_FMT ", %" PRId64 " tokens\n",
           STR_ARG(json_get_str(facts, "tokenizer")), words);
    printf("good for      %s\n", embedder ? "embeddings" : chat ? "chat" : "completion");
    print_memory(c, json_get(v, "memory"));
    print_text("sha256", json_get_str(v, "digest"));
}

static err show(Plan *p) {
    Cli *cli = p->cli;
    CliAnswer a;
    str at = arena_printf(cli->c->mem, "/lathe/v1/model_versions/" STR_FMT, STR_ARG(p->version));
    TRY(cli_call(cli, HTTP_GET, at, (str){ 0 }, &a));
    if (cli->show == SHOW_TABLE) print_facts(cli->c, p->name, a.json);
    else cli_print(cli, a.body, NULL);
    return ERR_OK;
}

// ---- the verb

static err file_there(Plan *p) {
    File *f;
    int64_t size;
    TRY(file_open(p->cli->c, p->file, FILE_READ, &f));
    err e = file_size(p->cli->c, f, &size);
    file_close(f);
    TRY(e);
    return size ? ERR_OK : fail(p->cli->c, ERR_INVALID, R_UPLOAD_EMPTY);
}

static err import(Plan *p, bool no_wait) {
    TRY(cli_connect(p->cli));
    if (p->file.p) TRY(file_there(p)); // before a model is made for it
    TRY(make_model(p));
    TRY(p->file.p ? send_file(p) : fetch_there(p));
    if (!no_wait) TRY(cli_wait_job(p->cli, p->job));
    return show(p);
}

static err read_line(Plan *p, bool *out_no_wait) {
    Cli *cli = p->cli;
    Ctx *c = cli->c;
    p->file = cli_option(cli, "file"), p->path = cli_option(cli, "path");
    p->url = cli_option(cli, "url"); // the model's; --server is the server's
    p->sha256 = cli_option(cli, "sha256"), p->upload = cli_option(cli, "upload");
    *out_no_wait = cli_flag(cli, "no-wait");
    p->name = cli_word(cli);
    TRY(cli_done(cli));
    if (!p->name.n) return fail(c, ERR_INVALID, R_CLI_MISSING, "what", "NAME");
    if (!!p->file.n + !!p->path.n + !!p->url.n != 1)
        return fail(c, ERR_INVALID, R_CLI_MISSING, "what", "one of --file, --url and --path");
    return model_digest_check(c, "--sha256", p->sha256);
}

static int run(Cli *cli, int argc, char **argv) {
    Plan p = { .cli = cli };
    bool no_wait = false;
    (void)argc, (void)argv;
    err e = read_line(&p, &no_wait);
    if (!e) e = import(&p, no_wait);
    return e ? cli_fail(cli, e) : 0;
}

// clang-format off
const CliVerb model_verbs[] = {
    { "model", "import",
      "NAME --file PATH | --url URL | --path SERVERPATH [--sha256 HEX] [--upload ID] [--no-wait]",
      run,
      "Make a version of a GGUF file, and the model when it is not there",
      "用 GGUF 文件创建版本；模型不存在时一并创建" },
    { 0 }
};
// clang-format on
