// SPDX-License-Identifier: Apache-2.0
// gateway_inject.c - an inference from the client's bytes to its row in the ledger: identified,
// written ahead, sent to an upstream, answered whole or streamed, settled in the journal, folded
// into tables and audited, while the n-th call of any of the server's threads fails. The upstream
// is a process without faults.
// Threads: the test's; the server has its own.
#include "../conformance_test.h"
#include "fault.h"
#include "inject.h"
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ASKED = 4, HEAD_MAX = 64 << 10 };

// ---- the upstream: a process for each connection; all end with the run's process group

#define USAGE "\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1,\"total_tokens\":4}"
static const char models[] = "{\"object\":\"list\",\"data\":[{\"id\":\"m\",\"object\":\"model\"}]}";
static const char whole[] =
    "{\"id\":\"x\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"m\",\"choices\":[{"
    "\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"four\"},\"finish_reason\":"
    "\"stop\"}]," USAGE "}";
#define CHUNK \
    "data: {\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\","
static const char streamed[] = CHUNK
    "\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"four\"}}]}\n\n" CHUNK
    "\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n" CHUNK
    "\"choices\":[]," USAGE "}\n\ndata: [DONE]\n\n";

static int upstream_port;

static void answer(int fd, const char *kind, const char *body) {
    dprintf(fd, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n%s", kind,
            strlen(body), body);
}

// One request from the first byte of `in`, whose n bytes hold it whole or not. How long it was.
static size_t serve_one(int fd, const char *in) {
    const char *end = strstr(in, "\r\n\r\n"), *length = strcasestr(in, "content-length:");
    if (!end) return 0;
    size_t head = (size_t)(end - in) + 4;
    size_t body = length && length < end ? strtoul(length + 15, NULL, 10) : 0;
    if (strlen(in) < head + body) return 0;
    if (!strncmp(in, "GET ", 4)) answer(fd, "application/json", models);
    else if (strstr(end, "\"stream\":true")) answer(fd, "text/event-stream", streamed);
    else answer(fd, "application/json", whole);
    return head + body;
}

static _Noreturn void serve_connection(int fd) {
    static char in[HEAD_MAX];
    size_t n = 0;
    for (ssize_t got; n < HEAD_MAX - 1 && (got = read(fd, in + n, HEAD_MAX - 1 - n)) > 0;) {
        in[n += (size_t)got] = 0;
        for (size_t used; (used = serve_one(fd, in)) > 0;) memmove(in, in + used, (n -= used) + 1);
    }
    _exit(0);
}

static _Noreturn void serve_all(int listener) {
    fault_here = false;
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd >= 0 && fork() == 0) serve_connection(fd);
        close(fd);
    }
}

static bool upstream_start(void) {
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t n = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool good = fd >= 0 && !bind(fd, (struct sockaddr *)&at, n) && !listen(fd, 64)
                && !getsockname(fd, (struct sockaddr *)&at, &n);
    upstream_port = ntohs(at.sin_port);
    pid_t pid = good ? fork() : -1;
    if (pid == 0) serve_all(fd);
    if (fd >= 0) close(fd);
    return pid > 0;
}

// ---- the scenario

static Told ask(Conf *f, const char *user, bool stream) {
    const char *body =
        say(f->c,
            "{\"model\":\"up\",\"user\":\"%s\",\"stream\":%s,\"messages\":[{\"role\":"
            "\"user\",\"content\":\"Two and two?\"}]}",
            user, stream ? "true,\"stream_options\":{\"include_usage\":true}" : "false");
    Question q = { HTTP_POST, "/v1/chat/completions", f->a.owner, body };
    return conf_ask(f, &q);
}

static bool is_whole(const Told *t, bool stream) {
    if (t->status != 200 || !conf_has(t->body, "four")) return false;
    return conf_has(t->body, stream ? "[DONE]" : "\"total_tokens\":4");
}

// In OpenAI's form; the connection may have been cut, and a stream ends by an error event.
static bool is_refusal(const Told *t) {
    if (!t->status || t->status == 200) return true;
    str message = json_get_str(json_get(t->json, "error"), "message");
    return t->status >= 400 && t->status <= 599 && message.n > 0;
}

static bool soon(int *tries) {
    poll(NULL, 0, 10);
    return ++*tries < test_longer(1500);
}

static void attach(Conf *f) {
    const char *body = say(f->c,
                           "{\"name\":\"up\",\"engine\":\"openai\",\"task\":\"chat\",\"endpoint\":{"
                           "\"url\":\"http://127.0.0.1:%d/v1\"}}",
                           upstream_port);
    Told t = conf_do(f, &f->a, HTTP_POST, "/lathe/v1/deployments", body);
    CHECK_INT(t.status, 201);
    int tries = 0;
    do t = ask(f, "before", false);
    while (!is_whole(&t, false) && soon(&tries));
    CHECK_INT(t.status, 200);
}

static int64_t settled(Conf *f, const char *user) {
    return conf_count(f, "SELECT COUNT(*) FROM usage WHERE end_user = $1 AND outcome = 'ok'", user,
                      NULL);
}

static void check_ledger(Conf *f, const bool *got) {
    int tries = 0;
    Told t = ask(f, "after", false);
    while (!is_whole(&t, false) && soon(&tries)) t = ask(f, "after", false);
    CHECK(is_whole(&t, false));
    do t = conf_do(f, &f->a, HTTP_GET, "/lathe/v1/usage_totals", NULL); // waits for the fold
    while (t.status != 200 && soon(&tries));
    CHECK_INT(t.status, 200);
    for (int i = 0; i < ASKED; i++) {
        int64_t n = settled(f, say(f->c, "at-%d", i));
        if (got[i] ? n != 1 : n > 1) CHECK_INT(n, got[i]);
    }
    CHECK_INT(settled(f, "after"), 1);
    CHECK_INT(conf_count(f, "SELECT COUNT(*) FROM usage_open", NULL, NULL), 0);
    int64_t usage = conf_count(f, "SELECT COUNT(DISTINCT request_id) FROM usage", NULL, NULL);
    CHECK(conf_count(f, "SELECT COUNT(*) FROM inference_audits", NULL, NULL) >= usage);
    Question verify = { HTTP_GET, "/lathe/v1/audit/verify", f->admin, NULL };
    do t = conf_ask(f, &verify); // the first signed checkpoint may be a second away
    while (!yyjson_is_true(json_get(t.json, "ok")) && soon(&tries));
    CHECK_INT(t.status, 200);
    CHECK(yyjson_is_true(json_get(t.json, "ok")));
}

static void gateway_settles(Conf *f) {
    bool got[ASKED] = { false };
    attach(f);
    if (complaints) return;
    inject_on();
    for (int i = 0; i < ASKED; i++) {
        Told t = ask(f, say(f->c, "at-%d", i), i % 2);
        got[i] = is_whole(&t, i % 2);
        if (!got[i]) CHECK(is_refusal(&t));
    }
    Told t = conf_do(f, &f->a, HTTP_GET, "/lathe/v1/usage_totals", NULL);
    if (t.status != 200) CHECK(is_refusal(&t));
    inject_off();
    check_ledger(f, got);
}
INJECT(gateway_on_sqlite) {
    CHECK(upstream_start());
    conf_run(DB_SQLITE, gateway_settles);
}
