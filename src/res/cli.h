// SPDX-License-Identifier: Apache-2.0
// cli.h - the command line: a client of the same API, derived from the same rows. Answers go to
// stdout, everything else to stderr; an error is one line with its request id, and the exit status
// is the error table's. Where the server is: --server and --key, LATHE_URL and LATHE_API_KEY, a
// context of ~/.config/lathe/config.yaml, else the server that runs on this machine under this
// user, which leaves its address and key file in ~/.local/state/lathe/server.
#ifndef LATHE_RES_CLI_H
#define LATHE_RES_CLI_H
#include "res/app.h"

typedef enum { SHOW_TABLE, SHOW_JSON, SHOW_YAML, SHOW_NAME } CliShow;
typedef struct Cli {
    Ctx *c;
    const Module *const *modules;
    str url, key, project, org, ca; // ca: PEM file of whom to trust; absent: the system's
    Addr addr;
    TlsClient *tls; // of an https url
    str host, base; // Host header; path before the API's, usually ""
    CliShow show;
    bool wait, dry_run, prune, connected;
    int argc; // what is left of the line: options taken out
    char **argv;
    const char *noun;  // what the line is about, for `lathe help NOUN`; NULL: not known yet
    const char *where; // put before a failure's sentence: a file and its document; NULL: nothing
} Cli;

// One call, answered whole. Statuses of 400 and above are failures with the server's own words (the
// request id is kept for cli_fail).
typedef struct CliAnswer {
    int status;
    str body, request_id, etag;
    yyjson_val *json;
    HttpHeader *headers;
    size_t headers_n;
} CliAnswer;
err cli_call(Cli *cli, HttpMethod m, str target, str body, CliAnswer *out);
// Server-sent events of a call; on_event returns false to leave. Extra headers may be NULL.
err cli_events(Cli *cli, HttpMethod m, str target, str body,
               bool (*on_event)(void *arg, const char *event, str data), void *arg);
err cli_connect(Cli *cli);       // finds server and key; the calls above do it themselves
int cli_fail(Cli *cli, err e);   // prints the failure; the exit status
str cli_escape(Cli *cli, str s); // for a path segment or a query value
bool cli_tty(int fd);

// --name VALUE, --name=VALUE or a bare --name (value "true") out of argv; the rest stays in order.
// Absent string when it is not there.
str cli_option(Cli *cli, const char *name);
err cli_value(Cli *cli, const char *name, str *out); // the same, but a bare --name is refused
bool cli_flag(Cli *cli, const char *name);
str cli_word(Cli *cli); // the next positional one; absent at the end
err cli_read(Cli *cli, str path, size_t max, str *out); // a file whole; "-": stdin
err cli_done(Cli *cli); // ERR_INVALID when something is left over, naming it
// The verb of noun that is nearest to word, or, noun absent, the nearest noun; NULL: noun has none.
const char *cli_nearest(Cli *cli, str noun, str word);
unsigned cli_distance(str a, str b); // of edits; a first letter in common breaks a tie
int cli_unknown_verb(Cli *cli, str noun, str verb);  // says so, with the nearest
const Resource *cli_resource_of(Cli *cli, str noun); // api-key is api_key; NULL: no resource
const char *cli_topic(Cli *cli); // " deployment" or "": what follows `lathe help` in a failure

void cli_print(Cli *cli, str json,
               const char *const
                   *columns); // one object or {"data": […]} in the chosen form; columns NULL: all
void cli_print_yaml(Buf *out, yyjson_val *v);
// On stderr, what the answer to a change warns of, and what it shows this once when stdout has
// names only.
void cli_asides(Cli *cli, const Resource *r, yyjson_val *made);
// For a terminal: what it would obey (control characters, marks that turn text around) is U+FFFD. A
// line break is followed by `indent` blanks, or is a blank itself when indent < 0.
str cli_visible(Ctx *c, str s, int indent);
// Waits until a reconciled resource has done what was asked, or a job has ended, saying on stderr
// what changes.
err cli_wait_resource(Cli *cli, const Resource *r, str id);
err cli_wait_job(Cli *cli, str id);

int cli_resource(Cli *cli, const Resource *r, str verb); // derived verbs
int cli_route(Cli *cli, const Route *r);
int cli_apply(Cli *cli, bool diff);
int cli_help(Cli *cli, str noun);
int cli_completion(Cli *cli, int argc, char **argv);
err cli_yaml(Ctx *c, str text, str **out_docs, size_t *out_n); // YAML documents as JSON texts

// clang-format off
#define CLI_REASONS(X) \
    X(CLI_WORD, "unexpected_argument", "{word} is not expected here; see `lathe help{noun}`", \
      "此处不应出现 {word}；参见 `lathe help{noun}`") \
    X(CLI_FLAG, "unknown_flag", \
      "there is no flag {word} here; the nearest is {nearest}; see `lathe help{noun}`", \
      "没有参数 {word}；最接近的是 {nearest}；参见 `lathe help{noun}`") \
    X(CLI_BARE, "flag_without_value", "{word} needs a value after it", "{word} 之后需要一个值") \
    X(CLI_VERB, "unknown_command", \
      "there is no `lathe {word}`; the nearest is `lathe {nearest}`; see `lathe help{noun}`", \
      "没有 `lathe {word}`；最接近的是 `lathe {nearest}`；参见 `lathe help{noun}`") \
    X(CLI_MISSING, "argument_missing", "{what} is missing", "缺少 {what}") \
    X(CLI_CONNECT, "server_unreachable", \
      "no server answers at {url} ({why}): is `lathe serve` running there? --server or LATHE_URL" \
      " says where else to look", \
      "{url} 没有服务器应答（{why}）：`lathe serve` 是否在运行？可用 --server 或 LATHE_URL 另行指定") \
    X(CLI_URL, "bad_server_url", \
      "{url} is not the address of a server: http(s)://HOST:PORT or unix:PATH", \
      "{url} 不是服务器地址：应为 http(s)://HOST:PORT 或 unix:PATH") \
    X(CLI_SERVER, "no_server", \
      "no server found: start one with `lathe serve`, or set LATHE_URL and LATHE_API_KEY", \
      "未找到服务器：请运行 `lathe serve`，或设置 LATHE_URL 与 LATHE_API_KEY") \
    X(CLI_ANSWER, "server_said", "{message}", "{message}") \
    X(CLI_YAML, "bad_yaml", "line {line}: {why}", "第 {line} 行：{why}") \
    X(CLI_LONG, "input_too_long", "stdin is longer than {max} bytes", "标准输入超过 {max} 字节") \
    X(CLI_DOCUMENT, "bad_document", "it must be a map with kind, name and the kind's fields", \
      "应为含 kind、name 及该类型字段的映射") \
    X(CLI_NO_KEY, "no_key", \
      "no API key for {url}: set LATHE_API_KEY, or --key, or `key` in" \
      " ~/.config/lathe/config.yaml", \
      "没有用于 {url} 的 API 密钥：请设置 LATHE_API_KEY、--key 或 ~/.config/lathe/config.yaml 中的 key") \
    X(CLI_EMPTY, "no_document", "there is no document in it", "其中没有文档") \
    X(CLI_MANY, "too_many_documents", "there are more than {max} documents", \
      "文档超过 {max} 个") \
    X(CLI_KEY, "not_a_key", \
      "--key is the API key to act with, lathe_…, and this is none; a list is filtered by" \
      " --key_id", \
      "--key 指用于操作的 API 密钥（lathe_…），此处不是；过滤列表请用 --key_id") \
    X(CLI_KIND, "unknown_kind", "there is no kind {word}; the nearest is {nearest}", \
      "没有类型 {word}；最接近的是 {nearest}") \
    X(CLI_STATE, "not_reached", "{kind} {name} is {state}: {why}", \
      "{kind} {name} 的状态为 {state}：{why}")
// clang-format on
REASONS_DECLARE(CLI_REASONS)
#endif
