// SPDX-License-Identifier: Apache-2.0
// chat.c - `lathe chat NAME`: talk to a model from the terminal, streamed; after each answer its
// TTFT, tokens and speed on stderr.
#include "mod/gateway/chat.h"
#include "res/cli.h"
#include <stdio.h>

enum { HISTORY_MAX = 4 << 20, LINE_MAX_BYTES = 1 << 20 };

typedef struct Chat {
    Cli *cli;
    str model;
    int64_t max_tokens;
    Buf history, answer; // history: JSON messages without the outer brackets
    int64_t sent_ns, first_ns, prompt_tokens, completion_tokens;
    bool failed;
} Chat;

static void add_message(Chat *c, const char *role, str content) {
    Json j = json_to(&c->history);
    if (c->history.n) buf_add_char(&c->history, ',');
    json_obj(&j), json_kv_z(&j, "role", role), json_kv_str(&j, "content", content),
        json_end_obj(&j);
}

static bool on_event(void *arg, const char *event, str data) {
    Chat *c = arg;
    yyjson_val *v;
    (void)event;
    if (str_is(data, "[DONE]") || json_parse(c->cli->c, data, &v)) return true;
    str message = json_get_str(json_get(v, "error"), "message");
    if (message.p) {
        fprintf(stderr, "\nlathe: " STR_FMT "\n", STR_ARG(message));
        c->failed = true;
        return false;
    }
    str text =
        json_get_str(json_get(yyjson_arr_get_first(json_get(v, "choices")), "delta"), "content");
    if (text.n && !c->first_ns) c->first_ns = os_mono_ns(c->cli->c->os);
    fwrite(text.p ? text.p : "", 1, text.n, stdout);
    fflush(stdout);
    buf_add(&c->answer, text);
    yyjson_val *usage = json_get(v, "usage");
    json_get_i64(usage, "prompt_tokens", &c->prompt_tokens);
    json_get_i64(usage, "completion_tokens", &c->completion_tokens);
    return true;
}

static void say_speed(Chat *c) {
    int64_t end = os_mono_ns(c->cli->c->os);
    double stream_s = (double)(end - c->first_ns) / 1e9;
    if (!c->first_ns) return;
    fprintf(stderr, "  [TTFT %.0f ms, %lld + %lld tokens, %.1f tokens/s, request " STR_FMT "]\n",
            (double)(c->first_ns - c->sent_ns) / 1e6, (long long)c->prompt_tokens,
            (long long)c->completion_tokens,
            stream_s > 0 && c->completion_tokens > 1 ? (double)(c->completion_tokens - 1) / stream_s
                                                     : 0.0,
            STR_ARG(c->cli->c->request_id));
}

static err ask(Chat *c, str text) {
    Buf body;
    add_message(c, "user", text);
    buf_init(&body, HISTORY_MAX + 4096);
    Json j = json_to(&body);
    json_obj(&j);
    json_kv_str(&j, "model", c->model), json_kv_bool(&j, "stream", true);
    json_kv_raw(&j, "stream_options", S("{\"include_usage\":true}"));
    if (c->max_tokens) json_kv_i64(&j, "max_tokens", c->max_tokens);
    json_key(&j, "messages"), buf_add_char(&body, '['), buf_add(&body, buf_str(&c->history)),
        buf_add_char(&body, ']');
    json_end_obj(&j);
    buf_clear(&c->answer);
    c->first_ns = 0, c->sent_ns = os_mono_ns(c->cli->c->os);
    err e = body.full ? fail(c->cli->c, ERR_TOOLARGE, R_TOO_LONG, "what", "the conversation",
                             "limit", "4 MiB")
                      : cli_events(c->cli, HTTP_POST, S("/v1/chat/completions"), buf_str(&body),
                                   on_event, c);
    buf_done(&body);
    if (e) return e;
    printf("\n");
    say_speed(c);
    add_message(c, "assistant", buf_str(&c->answer));
    return c->failed ? fail(c->cli->c, ERR_UPSTREAM, R_CLI_ANSWER, "message",
                            "the answer is not complete")
                     : ERR_OK;
}

static err talk(Chat *c) {
    char *line = mem_new(LINE_MAX_BYTES);
    err e = ERR_OK;
    while (!e) {
        if (cli_tty(0)) fprintf(stderr, "> ");
        if (!fgets(line, LINE_MAX_BYTES, stdin)) break;
        str text = str_trim(str_z(line));
        if (str_is(text, "/exit")) break;
        ArenaMark mark = arena_mark(c->cli->c->mem);
        if (text.n) e = ask(c, text);
        if (!e) arena_restore(c->cli->c->mem, mark); // a failure's words are still wanted
    }
    mem_free(line);
    return e;
}

static err run(Cli *cli, Chat *c) {
    str system = cli_option(cli, "system"), most = cli_option(cli, "max-tokens");
    c->model = cli_word(cli);
    if (!c->model.n) return fail(cli->c, ERR_INVALID, R_CLI_MISSING, "what", "NAME");
    if (most.p && !str_to_i64(most, &c->max_tokens))
        return fail(cli->c, ERR_INVALID, R_FIELD_TYPE, "field", "--max-tokens", "want",
                    "an integer", "got", say_str(cli->c, most));
    str message = cli_word(cli);
    TRY(cli_done(cli));
    TRY(cli_connect(cli));
    if (system.n) add_message(c, "system", system);
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
    { "chat", NULL, "NAME [MESSAGE] [--system TEXT] [--max-tokens N]", chat,
        "Talk to a model; without MESSAGE line by line", "与模型对话；不带消息时逐行交互" },
    { 0 }
};
// clang-format on
