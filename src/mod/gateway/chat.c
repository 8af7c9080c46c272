// SPDX-License-Identifier: Apache-2.0
// chat.c - `lathe chat NAME`: talk to a model from the terminal, streamed; after each answer its
// TTFT, tokens and speed on stderr. At a terminal Ctrl-C ends the answer under way (the server
// notices and frees its slot) and, between answers, the program; a failure is told and the talk
// goes on. Elsewhere the first failure ends it, with its exit status.
// Threads: the program's; a second one hears Ctrl-C while an answer comes.
#include "mod/gateway/chat.h"
#include "os/thread.h"
#include "res/cli.h"
#include <signal.h>
#include <stdio.h>

enum { HISTORY_MAX = 4 << 20, LINE_MAX_BYTES = 1 << 20 };

typedef struct Chat {
    Cli *cli;
    str model, temperature; // temperature: a JSON number; absent: the engine's own
    int64_t max_tokens;
    Buf history, answer; // history: JSON messages without the outer brackets
    int64_t sent_ns, first_ns, prompt_tokens, completion_tokens;
    bool failed, at_terminal, shown; // shown: something of this answer stands on the last line
    bool cut;                        // it reached the limit of its length
} Chat;

static void add_message(Chat *c, const char *role, str content) {
    Json j = json_to(&c->history);
    if (c->history.n) buf_add_char(&c->history, ',');
    json_obj(&j), json_kv_z(&j, "role", role), json_kv_str(&j, "content", content),
        json_end_obj(&j);
}

// What a model writes must not steer the terminal: of control characters only line ends and tabs.
static void show(Chat *c, str text) {
    bool raw = !cli_tty(1);
    for (size_t i = 0; i < text.n; i++) {
        unsigned char ch = (unsigned char)text.p[i];
        if (raw || ch >= 0x20 || ch == '\n' || ch == '\t') putchar(ch);
    }
    fflush(stdout);
    c->shown |= text.n > 0;
}

static bool on_event(void *arg, const char *event, str data) {
    Chat *c = arg;
    yyjson_val *v;
    (void)event;
    if (str_is(data, "[DONE]") || json_parse(c->cli->c, data, &v)) return true;
    str message = json_get_str(json_get(v, "error"), "message");
    if (message.p) {
        (void)fail(c->cli->c, ERR_UPSTREAM, R_CLI_ANSWER, "message", say_str(c->cli->c, message));
        c->failed = true;
        return false;
    }
    yyjson_val *choice = yyjson_arr_get_first(json_get(v, "choices"));
    str text = json_get_str(json_get(choice, "delta"), "content");
    if (text.n && !c->first_ns) c->first_ns = os_mono_ns(c->cli->c->os);
    show(c, text);
    buf_add(&c->answer, text);
    c->cut |= str_is(json_get_str(choice, "finish_reason"), "length");
    yyjson_val *usage = json_get(v, "usage");
    json_get_i64(usage, "prompt_tokens", &c->prompt_tokens);
    json_get_i64(usage, "completion_tokens", &c->completion_tokens);
    return true;
}

static void say_speed(Chat *c) {
    int64_t end = os_mono_ns(c->cli->c->os);
    double stream_s = (double)(end - c->first_ns) / 1e9;
    char speed[40] =
        ""; // an answer that came at once (all of it held back for a stop text) has none
    if (!c->first_ns) return;
    if (stream_s >= 0.01 && c->completion_tokens > 1)
        snprintf(speed, sizeof speed, ", %.1f tokens/s",
                 (double)(c->completion_tokens - 1) / stream_s);
    fprintf(stderr, "  [TTFT %.0f ms, %lld + %lld tokens%s%s, request " STR_FMT "]\n",
            (double)(c->first_ns - c->sent_ns) / 1e6, (long long)c->prompt_tokens,
            (long long)c->completion_tokens, speed, c->cut ? ", cut at the length limit" : "",
            STR_ARG(c->cli->c->request_id));
}

// ---- Ctrl-C while an answer comes
typedef struct Interrupt {
    Loop *loop;
    Thread thread;
} Interrupt;

static void on_interrupt(void *arg, int signal) {
    (void)signal;
    ctx_cancel(arg); // the call looks at it
}

static void listen_on(void *arg) { loop_run(arg); }

static err interrupt_begin(Chat *c, Interrupt *i) {
    Ctx *ctx = c->cli->c;
    if (!c->at_terminal) return ERR_OK;
    TRY(loop_open(ctx, &i->loop));
    loop_on_signal(i->loop, SIGINT, on_interrupt, ctx);
    err e = thread_open(ctx, "chat", listen_on, i->loop, &i->thread);
    if (e) loop_free(i->loop), i->loop = NULL;
    return e;
}

static void interrupt_end(Chat *c, Interrupt *i) {
    if (!i->loop) return;
    loop_stop(i->loop);
    thread_join(i->thread);
    loop_free(i->loop); // from here on Ctrl-C ends the program again
    atomic_store(&c->cli->c->cancelled, false);
}

// ---- one question
static err send_all(Chat *c) {
    Buf body;
    buf_init(&body, HISTORY_MAX + 4096);
    Json j = json_to(&body);
    json_obj(&j);
    json_kv_str(&j, "model", c->model), json_kv_bool(&j, "stream", true);
    json_kv_raw(&j, "stream_options", S("{\"include_usage\":true}"));
    if (c->max_tokens) json_kv_i64(&j, "max_tokens", c->max_tokens);
    if (c->temperature.p) json_kv_raw(&j, "temperature", c->temperature);
    json_key(&j, "messages"), buf_add_char(&body, '['), buf_add(&body, buf_str(&c->history)),
        buf_add_char(&body, ']');
    json_end_obj(&j);
    err e = c->history.full || body.full ? fail(c->cli->c, ERR_TOOLARGE, R_TOO_LONG, "what",
                                                "the conversation", "limit", "4 MiB")
                                         : cli_events(c->cli, HTTP_POST, S("/v1/chat/completions"),
                                                      buf_str(&body), on_event, c);
    buf_done(&body);
    return !e && c->failed ? ERR_UPSTREAM : e;
}

// A question that failed is forgotten; what was answered until Ctrl-C belongs to the talk.
static err ask(Chat *c, str text) {
    Interrupt heard = { 0 };
    size_t before = c->history.n;
    add_message(c, "user", text);
    buf_clear(&c->answer);
    c->failed = c->shown = c->cut = false;
    c->first_ns = c->prompt_tokens = c->completion_tokens = 0;
    c->sent_ns = os_mono_ns(c->cli->c->os);
    err e = interrupt_begin(c, &heard);
    if (!e) e = send_all(c);
    interrupt_end(c, &heard);
    if (c->shown || !e) putchar('\n');
    fflush(stdout);
    if (e && !(e == ERR_CANCELLED && c->answer.n)) {
        c->history.n = before, c->history.full = false;
        return e;
    }
    if (!e) say_speed(c);
    add_message(c, "assistant", buf_str(&c->answer));
    return e;
}

// ---- line by line
static void say_help(void) {
    fprintf(stderr,
            "  /clear begins anew, /exit or Ctrl-D ends; Ctrl-C ends an answer under way\n");
}

// False: it is to be sent.
static bool is_command(Chat *c, str text, size_t system, bool *out_end) {
    if (!c->at_terminal && !str_is(text, "/exit")) return !text.n;
    if (str_is(text, "/exit")) *out_end = true;
    else if (str_is(text, "/clear")) c->history.n = system;
    else if (str_starts(text, S("/"))) say_help();
    else return !text.n;
    return true;
}

static err talk(Chat *c) {
    char *line = mem_new(LINE_MAX_BYTES);
    size_t system = c->history.n;
    bool end = false;
    err e = ERR_OK;
    if (c->at_terminal) say_help();
    while (!e && !end) {
        if (c->at_terminal) fprintf(stderr, "> ");
        if (!fgets(line, LINE_MAX_BYTES, stdin)) break;
        str text = str_trim(str_z(line));
        ArenaMark mark = arena_mark(c->cli->c->mem);
        if (is_command(c, text, system, &end)) continue;
        e = ask(c, text);
        if (e == ERR_CANCELLED) fprintf(stderr, "  [cancelled]\n"), e = ERR_OK;
        if (e && !c->at_terminal) break; // its words are still wanted
        if (e) cli_fail(c->cli, e), e = ERR_OK;
        arena_restore(c->cli->c->mem, mark);
        c->cli->c->request_id = (str){ 0 };
    }
    if (c->at_terminal && !end) fprintf(stderr, "\n");
    mem_free(line);
    return e;
}

static err read_temperature(Cli *cli, Chat *c) {
    yyjson_val *v;
    c->temperature = cli_option(cli, "temperature");
    if (!c->temperature.p || (!json_parse(cli->c, c->temperature, &v) && yyjson_is_num(v)))
        return ERR_OK;
    return fail(cli->c, ERR_INVALID, R_FIELD_TYPE, "field", "--temperature", "want", "a number",
                "got", say_str(cli->c, c->temperature));
}

static err run(Cli *cli, Chat *c) {
    str system = cli_option(cli, "system"), most = cli_option(cli, "max-tokens");
    TRY(read_temperature(cli, c));
    c->model = cli_word(cli);
    if (!c->model.n) return fail(cli->c, ERR_INVALID, R_CLI_MISSING, "what", "NAME");
    if (most.p && (!str_to_i64(most, &c->max_tokens) || c->max_tokens < 1))
        return fail(cli->c, ERR_INVALID, R_FIELD_TYPE, "field", "--max-tokens", "want",
                    "an integer of at least 1", "got", say_str(cli->c, most));
    str message = cli_word(cli);
    TRY(cli_done(cli));
    TRY(cli_connect(cli));
    if (system.n) add_message(c, "system", system);
    c->at_terminal = !message.p && cli_tty(0);
    return message.p ? ask(c, message) : talk(c);
}

static int chat(Cli *cli, int argc, char **argv) {
    Chat c = { .cli = cli };
    (void)argc, (void)argv;
    buf_init(&c.history, HISTORY_MAX), buf_init(&c.answer, HISTORY_MAX);
    err e = run(cli, &c);
    buf_done(&c.history), buf_done(&c.answer);
    return e ? cli_fail(cli, e) : 0;
}

// clang-format off
const CliVerb gateway_verbs[] = {
    { "chat", NULL, "NAME [MESSAGE] [--system TEXT] [--max-tokens N] [--temperature T]", chat,
        "Talk to a model; without MESSAGE line by line", "与模型对话；不带消息时逐行交互" },
    { 0 }
};
// clang-format on
